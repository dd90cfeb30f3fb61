"""Price-aware draws under a quality floor: looking again costs least where the model is cheap.

Under ``COST_FIRST`` the cheapest arm is chosen whose drawn quality reaches the floor. With the same spread for all, a cheap arm
whose first answers were unlucky is hardly tried again, although a try of it *saves* money, and a cheap arm that is good enough is
passed over for a dear one whenever its own draw falls short. So, with e the arm that the means would choose:

- an arm cheaper than e is presumed to clear the floor until its answers say otherwise: its mean is raised by a number of standard
  deviations of its distance from the floor (``benefit``) and it draws with more of its posterior's spread, both in proportion to
  what it saves, 1 - price / price of e;
- e itself falls short with at most the probability at which dearer arms cost ``DEARER_COST`` of its price on average.

Both are functions of predictions alone, so that draws stay independent and propensities closed
(`docs/decisions/price-aware-floor.md`).

>>> mean_bk, sd_bk = np.array([[0.70, 0.80]]), np.array([[0.05, 0.05]])  # a floor of 0.78: the second by means
>>> price_bk, rank_bk = np.array([[0.001, 0.016]]), np.array([[0, 1]])
>>> draw = price_aware(mean_bk, sd_bk, 0.5, price_bk, rank_bk, np.array([0.78]), np.ones((1, 2), dtype=bool))
>>> draw.bonus_bk.round(4).tolist(), draw.spread_bk.round(3).tolist()
([[0.0984, 0.0]], [[0.149, 0.5]])
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from pointsman.bandit.packed import Array

Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

BENEFIT, BENEFIT_GROWTH, LEAST_BENEFIT = 1.35, 0.75, 0.25
"""Standard deviations by which the mean of an arm that costs nothing is raised where they are ``BENEFIT_AT``, how many more each
time they have halved, and at least: an arm that is turned down late, on much evidence, takes as much to be taken back."""
BENEFIT_AT = 0.1
"""Standard deviation of quality, scaled to [0, 1], that 16 to 25 right or wrong answers leave."""
FLOOR_SHARE = 0.5
"""Share of the variance of the best arm's quality that counts as the floor's, where that is relative to the best."""
FULL = 0.75
"""Share of the posterior's standard deviation with which an arm that costs nothing draws."""
DEARER_COST = 0.1
"""Largest expected extra price through draws of the expected arm that fall short, as a share of its price."""
FEW = 12
"""Requests below which a loop over them beats arrays."""
LEAST_PRICE = 1e-3
"""Smallest price of the expected arm that counts in that, as a share of the dearest arm's: also free models are compared."""


class PriceAwareDraw(NamedTuple):
    """What is added to each arm's mean, and the share of its posterior's standard deviation with which it draws, (b, k)."""

    bonus_bk: Array
    spread_bk: Array


def price_aware(
    mean_bk: Array,
    sd_bk: Array,
    spread: float,
    price_bk: Array,
    rank_bk: Ints,
    floor_b: Array,
    eligible_bk: Flags,
    *,
    relative: bool = False,
) -> PriceAwareDraw:
    """How each arm (k) of b requests draws under a quality floor.

    ``mean_bk`` and ``sd_bk`` are the posterior's of quality (less a budget's charge), ``spread`` the share of ``sd_bk`` with
    which arms draw otherwise, ``price_bk`` >= 0 dollars or seconds, ``rank_bk`` the arms' places by price, ``floor_b`` the
    floors, which are ``relative`` to the largest mean or certain.
    """
    if len(mean_bk) < FEW:
        drawn = [
            _price_aware(
                mean_bk[i].tolist(),
                sd_bk[i].tolist(),
                price_bk[i].tolist(),
                rank_bk[i].tolist(),
                float(floor_b[i]),
                eligible_bk[i].tolist(),
                spread,
                relative,
            )
            for i in range(len(mean_bk))
        ]
        return PriceAwareDraw(
            np.array([bonus_k for bonus_k, _ in drawn]), np.array([spread_k for _, spread_k in drawn])
        )
    rows = np.arange(len(mean_bk))
    price_bk = np.where(eligible_bk, price_bk, 0.0)
    expected_b, _ = expected_arms(mean_bk, rank_bk, floor_b, eligible_bk)
    price_b1 = price_bk[rows, expected_b][:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        saving_bk = np.where(eligible_bk & (price_bk < price_b1), 1.0 - price_bk / price_b1, 0.0)
    best_b = np.where(eligible_bk, mean_bk, -np.inf).argmax(axis=1)
    floor_variance_b1 = (FLOOR_SHARE * relative * sd_bk[rows, best_b] ** 2)[:, None]
    bonus_bk = saving_bk * benefit(np.sqrt(sd_bk**2 + floor_variance_b1))
    spread_bk = spread + (FULL - spread) * saving_bk
    raised_bk = mean_bk + bonus_bk
    expected_b, clears_bk = expected_arms(raised_bk, rank_bk, floor_b, eligible_bk)
    dearer_bk = eligible_bk & (rank_bk > rank_bk[rows, expected_b][:, None])
    next_b, _ = expected_arms(raised_bk, rank_bk, floor_b, dearer_bk)
    price_b = np.maximum(price_bk[rows, expected_b], LEAST_PRICE * price_bk.max(axis=1))
    extra_b = np.where(dearer_bk.any(axis=1), price_bk[rows, next_b] - price_b, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        short_b = np.minimum(0.5, DEARER_COST * price_b / np.maximum(extra_b, 0.0))
        above_b = raised_bk[rows, expected_b] - floor_b
        least_b = above_b / (-ndtri(short_b) * sd_bk[rows, expected_b])
    bounded_b = clears_bk[rows, expected_b] & (short_b < 0.5) & (least_b < spread_bk[rows, expected_b])
    spread_bk[rows[bounded_b], expected_b[bounded_b]] = least_b[bounded_b]
    return PriceAwareDraw(bonus_bk, spread_bk)


def benefit(sd_bk: Array) -> Array:
    """By how much the mean of an arm that costs nothing is raised, its distance from the floor having this standard deviation."""
    with np.errstate(divide="ignore", invalid="ignore"):
        raised_bk = sd_bk * np.maximum(BENEFIT + BENEFIT_GROWTH * np.log2(BENEFIT_AT / sd_bk), LEAST_BENEFIT)
    return np.asarray(np.where(sd_bk > 0.0, raised_bk, 0.0))


def _benefit(sd: float) -> float:
    """``benefit`` for one arm."""
    return sd * max(BENEFIT + BENEFIT_GROWTH * math.log2(BENEFIT_AT / sd), LEAST_BENEFIT) if sd > 0.0 else 0.0


def _price_aware(
    means: list[float],
    sds: list[float],
    prices: list[float],
    ranks: list[int],
    floor: float,
    eligible: list[bool],
    spread: float,
    relative: bool,
) -> tuple[list[float], list[float]]:
    """``price_aware`` for one request: plain lists, which for few arms beat arrays."""
    bonuses, spreads, raised = [0.0] * len(means), [spread] * len(means), means.copy()
    arms = [arm for arm, can in enumerate(eligible) if can]
    if not arms:
        return bonuses, spreads
    price = prices[_expected(arms, means, ranks, floor)]
    floor_variance = FLOOR_SHARE * sds[max(arms, key=means.__getitem__)] ** 2 if relative else 0.0
    for arm in arms:
        if prices[arm] < price:
            saving = 1.0 - prices[arm] / price
            bonuses[arm] = saving * _benefit(math.sqrt(sds[arm] ** 2 + floor_variance))
            spreads[arm] = spread + (FULL - spread) * saving
            raised[arm] += bonuses[arm]
    expected = _expected(arms, raised, ranks, floor)
    dearer = [arm for arm in arms if ranks[arm] > ranks[expected]]
    above, sd = raised[expected] - floor, sds[expected]
    if not dearer or above < 0.0 or sd == 0.0:
        return bonuses, spreads
    price = max(prices[expected], LEAST_PRICE * max([prices[arm] for arm in arms]))
    extra = prices[_expected(dearer, raised, ranks, floor)] - price
    short = DEARER_COST * price / extra if extra > 0.0 else 0.5
    if short < 0.5:
        spreads[expected] = min(spreads[expected], above / (-float(ndtri(short)) * sd))
    return bonuses, spreads


def _expected(arms: list[int], means: list[float], ranks: list[int], floor: float) -> int:
    """``expected_arms`` for one request."""
    clear = [arm for arm in arms if means[arm] >= floor]
    return min(clear, key=ranks.__getitem__) if clear else max(arms, key=means.__getitem__)


def expected_arms(mean_bk: Array, rank_bk: Ints, floor_b: Array, among_bk: Flags) -> tuple[Ints, Flags]:
    """The arm that the means choose for each request among some arms, (b), and which arms' means clear the floor, (b, k)."""
    clears_bk = among_bk & (mean_bk >= floor_b[:, None])
    first_b = np.where(clears_bk, rank_bk, mean_bk.shape[1]).argmin(axis=1)
    best_b = np.where(among_bk, mean_bk, -np.inf).argmax(axis=1)
    return np.where(clears_bk.any(axis=1), first_b, best_b), clears_bk
