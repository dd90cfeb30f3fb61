"""The multiplier at which a policy's mean cost on given requests comes down to a target: a budget's dual, solved and not stepped.

>>> costs_bk = np.array([[0.001, 0.1]])  # a cheap arm, and a dear one that is better by 0.2
>>> mean_bk, none_b = np.array([[0.6, 0.8]]), np.full(1, np.nan)
>>> replay = Replay(mean_bk, mean_bk, costs_bk, None, none_b, none_b)
>>> round(solve(replay, target=0.01, guess=0.0).multiplier, 2)  # quality per dollar at which the cheap one wins: 0.2 / 0.099
2.02
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pointsman.bandit.packed import Array
from pointsman.bandit.policy import INELIGIBLE
from pointsman.bandit.predictions import Ints

LAST_RANK = 1 << 30
"""Rank of an arm that may not run."""
_STEPS = 14
UNREACHABLE = 1e15
"""Multiplier where no multiplier reaches the target."""
_SMALLEST = 1e-9


@dataclass(frozen=True, slots=True)
class Replay:
    """Scores of b requests at a multiplier of 0, to be replayed at others; all (b, k) or (b).

    Means and draws are of quality scaled to [0, 1], less what the objective subtracts, ``INELIGIBLE`` for arms that are not
    eligible; costs are the expected dollars. Under a floor rule ``rank_bk`` says which arm comes first, ``floor_b`` is an
    absolute floor and ``loss_b`` one relative to the best mean, NaN where there is none.
    """

    mean_bk: Array
    draw_bk: Array
    cost_bk: Array
    rank_bk: Ints | None
    floor_b: Array
    loss_b: Array


class Solution(NamedTuple):
    """A multiplier in quality (scaled to [0, 1]) per dollar, and what the replayed requests cost at it, in dollars: the mean
    and the standard deviation.
    """

    multiplier: float
    mean_cost: float
    cost_sd: float


def solve(replay: Replay, target: float, guess: float) -> Solution:
    """The smallest multiplier (>= 0) at which the policy's mean cost on the replayed requests is at most ``target`` dollars, to a
    relative precision of about 1e-4. If none reaches it, one at which the cheapest arms are chosen.

    ``guess`` is where the search starts.
    """
    chooser = _Chooser(replay)
    if chooser.mean_cost(0.0) <= target:
        return chooser.solution(0.0)
    high = guess if guess > 0.0 else 0.01 / max(target, _SMALLEST)
    while chooser.mean_cost(high) > target:
        high *= 4.0
        if high > UNREACHABLE:
            return chooser.solution(UNREACHABLE)
    low = high / 4.0
    while low > _SMALLEST and chooser.mean_cost(low) <= target:
        high, low = low, low / 4.0
    for _ in range(_STEPS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if chooser.mean_cost(middle) <= target else (middle, high)
    return chooser.solution(high)


class _Chooser:
    """What the policy chooses on the requests of a replay at any multiplier."""

    def __init__(self, replay: Replay) -> None:
        eligible_bk = replay.draw_bk > 0.5 * INELIGIBLE
        self._draw_bk = np.where(eligible_bk, replay.draw_bk, -np.inf)
        self._cost_bk = replay.cost_bk
        self._row_b = np.arange(len(replay.draw_bk))
        self._floored_b = ~(np.isnan(replay.loss_b) & np.isnan(replay.floor_b))
        self._rank_bk = replay.rank_bk if self._floored_b.any() else None
        if self._rank_bk is not None:
            self._mean_bk = np.where(eligible_bk, replay.mean_bk, -np.inf)
            self._floor_b, self._loss_b = replay.floor_b, replay.loss_b

    def costs(self, multiplier: float) -> Array:
        """Expected dollars of the arms that are chosen, (b)."""
        drawn_bk = self._draw_bk - multiplier * self._cost_bk
        chosen_b = drawn_bk.argmax(axis=1)
        if self._rank_bk is not None:
            best_b = (self._mean_bk - multiplier * self._cost_bk).max(axis=1)
            floor_b = np.where(np.isnan(self._loss_b), self._floor_b, best_b - self._loss_b)
            cleared_bk = drawn_bk >= floor_b[:, None]
            first_b = np.where(cleared_bk, self._rank_bk, LAST_RANK).argmin(axis=1)
            chosen_b = np.where(self._floored_b & cleared_bk.any(axis=1), first_b, chosen_b)
        cost_b: Array = self._cost_bk[self._row_b, chosen_b]
        return cost_b

    def mean_cost(self, multiplier: float) -> float:
        """Their mean."""
        return float(self.costs(multiplier).mean())

    def solution(self, multiplier: float) -> Solution:
        """A multiplier with what it leads to."""
        cost_b = self.costs(multiplier)
        return Solution(multiplier, float(cost_b.mean()), float(cost_b.std()))
