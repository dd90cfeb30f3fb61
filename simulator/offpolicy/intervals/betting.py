"""Anytime-valid bounds by betting, for importance-weighted scores of any log, adaptive or not.

A gambler who bets, every round and before seeing it, that scores are higher than they are said to be, cannot expect to
win if they are not. So the wealth such bets have made is evidence, and whatever average would have made the gambler
richer than 1/α is refused, at level 1-α, no matter when or how often one looks (Ville's inequality).

What is assumed of scores x_1, x_2, …: each is at least ``low``. Nothing else: no upper bound (importance weights may be
as heavy as they come), no independence, no fixed logging policy. **What is bounded is the average of the conditional
means**, (1/t) Σ E[x_s | what came before s]: the value itself where it is constant, and where contexts, models or the
logging policy drift, the average value over the rounds seen. For that the bets are these. With a bet size λ fixed
beforehand and a centre c_s >= low that the past alone determines, λ(c_s - low) <= 1, the wealth

    W_t(λ) = ∏ (1 + λ(x_s - c_s)) · exp(-λ(E[x_s | past] - c_s))

never expects to grow, because 1 + y <= exp(y), and is never negative. Its mean over a fixed grid of bet sizes (so that
none must be chosen) therefore exceeds 1/α at any time with probability at most α, and is a falling function of the sum
of conditional means: where it equals 1/α is the lower bound. The only loss against betting on a constant mean m, with
factors 1 + λ(x_s - m), is in second order of the centre's error; against empirical-Bernstein sequences, which replace
log(1+y) by y - y²(-log(1-λ)-λ), it is always narrower at the same bets.

Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS-B 2024), for betting;
Karampatziakis, Mineiro and Ramdas, "Off-policy confidence sequences" (ICML 2021), for off-policy bets and for the upper
bound by mirroring the reward; Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro, "Anytime-valid off-policy inference
for contextual bandits" (2022), for predictors cut where they would unbound the score, and time-varying values; Howard,
Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences" (Ann. Stat. 2021), for
mixtures that cover a running average.

>>> reward_n = np.tile([1.0, 0.0, 1.0, 1.0], 250)
>>> weight_n = np.ones(1000)
>>> low = lower_bounds(reward_n, weight_n, 0.95, at=np.array([100, 1000]))
>>> high = upper_bounds(reward_n, weight_n, 0.95, at=np.array([100, 1000]))
>>> low.round(2).tolist(), high.round(2).tolist()
([0.58, 0.7], [0.89, 0.79])
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pointsman.simulator.offpolicy.intervals.interval import check_level
from pointsman.simulator.offpolicy.logs.log import Array, Indices

_SIZES = 2.0 ** -np.arange(24.0)
"""Bet sizes tried, times 1/high. They reach from ten rounds to some 10^13; past that, bounds stay valid."""

_PRIOR = 1.0 / (1.0 + ((np.arange(24.0) - 6.0) / 4.0) ** 2)
_PRIOR /= _PRIOR.sum()
"""How the first stake is shared among them: most on those that suit 10^3 to 10^6 rounds. Tuned on simulations."""

_MOST_AT_RISK = 0.75
"""The most of its wealth that a bet can lose: λ(c_s - low) stays at or under this."""

_DEPTH = 0.25
"""The part of its wealth that a bet puts at risk for the sake of predictions. More makes scores calmer but longer on the
side that loses; a third of the above was about best in simulations of 300 to 20,000 rounds."""

ScoresOfBet = Callable[[float], tuple[Array, float]]
"""What a bet of size λ bets on: scores (..., n) with the same conditional means for every λ, and their least value."""


@dataclass(frozen=True, slots=True, eq=False)
class ControlVariate:
    """Predictions that take out of the scores what was to be expected (doubly robust bounds).

    ``predicted_nk`` in [0, high] are each round's rewards of each model as predicted **from earlier rounds, or from other
    data, alone** (``reward_models.past_only``; a model fitted on folds of the same log knows the
    future, and the bound is no longer proven). Good ones narrow the bounds; bad ones widen them, but never make them wrong.
    ``target_nk`` and ``logged_nk`` are the candidate's and the logging policy's whole distributions, ``chosen_n`` the
    model that was chosen.
    """

    predicted_nk: Array
    target_nk: Array
    logged_nk: Array
    chosen_n: Indices


def lower_bounds(
    reward_n: Array,
    weight_n: Array,
    level: float,
    *,
    factor: float = 0.0,
    high: float = 1.0,
    control_variate: ControlVariate | None = None,
    at: Indices | None = None,
) -> Array:
    """Anytime-valid lower bounds of V(candidate) - ``factor`` · V(logging policy), from rewards in [0, ``high``].

    One bound after each count of rounds in ``at`` (rising; all counts if absent): (len(at)). With probability at least ``level``
    all of them, over all time, hold at once. V are averages over the rounds until then. All arrays may have axes before the
    rounds': paths, each on its own.

    It is one test of paired scores (w_t - factor) r_t: with ``factor`` 0 it bounds the candidate's value; with 0.98, a result of
    at least 0 shows at ``level`` that the candidate keeps 98 % of the logged value, from much less data than two bounds
    apart need. ``weight_n`` = candidate's probability / logged propensity of the chosen model, of any size. The candidate must
    be fixed before the rounds, or depend on earlier ones alone: to pick the best of m on the same log, use level
    1 - (1-level)/m. Mass of the candidate on models with no propensity counts as reward 0, so the bound still holds.

    With ``control_variate``, scores are u r - g(chosen) + Σ_a logged_a g_a, where u = w - factor and
    g = min(u · predicted, depth): the same conditional mean, less spread. The depth keeps them bounded below; each bet size
    gets the one it can afford.

    Raises:
        ValueError: shapes that disagree, rewards outside [0, high], weights or ``factor`` negative, a ``control_variate`` whose
            distributions do not give ``weight_n`` or whose predictions are outside [0, high], ``level`` or ``at`` out of range.
    """
    reward_n, weight_n = _check_rewards(reward_n, weight_n, factor, high)
    if control_variate is not None:
        _check_control_variate(control_variate, weight_n, high)
    return _bounds(reward_n, weight_n, level, factor, high, control_variate, at)


def upper_bounds(
    reward_n: Array,
    weight_n: Array,
    level: float,
    *,
    factor: float = 0.0,
    high: float = 1.0,
    control_variate: ControlVariate | None = None,
    at: Indices | None = None,
) -> Array:
    """Anytime-valid upper bounds of V(candidate) - ``factor`` · V(logging policy), from rewards in [0, ``high``].

    :func:`lower_bounds` of the mirrored rewards ``high`` - r, turned back; so mass of the candidate on models with no propensity
    counts as reward ``high``. With cost as the reward and ``factor`` 0.8, a result of at most 0 shows at ``level`` a candidate
    that costs at most 80 % of what was spent. Wide without ``control_variate`` where rewards are far below ``high``.

    Raises:
        ValueError: as :func:`lower_bounds`.
    """
    reward_n, weight_n = _check_rewards(reward_n, weight_n, factor, high)
    if control_variate is not None:
        _check_control_variate(control_variate, weight_n, high)
        control_variate = replace(control_variate, predicted_nk=high - control_variate.predicted_nk)
    return high * (1.0 - factor) - _bounds(high - reward_n, weight_n, level, factor, high, control_variate, at)


def _bounds(
    reward_n: Array,
    weight_n: Array,
    level: float,
    factor: float,
    high: float,
    control_variate: ControlVariate | None,
    at: Indices | None,
) -> Array:
    """Lower bounds from rewards, weights and a control variate that have been checked."""
    scores = _paired_scores(reward_n, weight_n, factor, high)
    if control_variate is not None:
        scores = _doubly_robust_scores(reward_n, weight_n, factor, high, control_variate)
    counts = _check_counts(at, reward_n.shape[-1])
    bound_m = _solve(*_log_wealth(scores, check_level(level), 0.5 * (1.0 - factor) * high, high, counts))
    return np.maximum(bound_m, 0.0 - factor * high)


def _paired_scores(reward_n: Array, weight_n: Array, factor: float, high: float) -> ScoresOfBet:
    """Scores u r, the same for every bet."""
    score_n = (weight_n - factor) * reward_n
    return lambda _: (score_n, -factor * high)


def _doubly_robust_scores(
    reward_n: Array, weight_n: Array, factor: float, high: float, control_variate: ControlVariate
) -> ScoresOfBet:
    """Scores u r - g(chosen) + Σ_a logged_a g_a, where g = min(u · predicted, depth), by depth.

    Each is at least -factor · high - max(depth, factor · high): where u >= 0, u r - g >= -depth; where not, u r - g =
    u (r - predicted) >= -factor · high; and the sum is at least -factor · high, for the logged probabilities add up to 1.
    """
    logged_nk, predicted_nk = control_variate.logged_nk, control_variate.predicted_nk
    excess_n = weight_n - factor
    paid_n = excess_n * reward_n
    chosen_n1 = control_variate.chosen_n[..., None]
    expected_n = excess_n * np.take_along_axis(predicted_nk, chosen_n1, axis=-1)[..., 0]
    # logged · u · predicted, without dividing by a propensity that may be 0.
    supported_nk = logged_nk > 0.0
    mass_nk = np.where(supported_nk, (control_variate.target_nk - factor * logged_nk) * predicted_nk, 0.0)
    deepest = float((mass_nk[supported_nk] / logged_nk[supported_nk]).max(initial=0.0))
    plain = _paired_scores(reward_n, weight_n, factor, high)
    uncut_n = paid_n - expected_n + mass_nk.sum(axis=-1)

    def scores(bet: float) -> tuple[Array, float]:
        depth = _DEPTH / bet - (1.0 + factor) * high
        if depth <= 0.0 or depth < factor * high:
            return plain(bet)
        # Not from the largest term that did occur: a bet may not know the future.
        least = -factor * high - depth
        if depth >= deepest:
            return uncut_n, least
        sum_n = np.minimum(mass_nk, depth * logged_nk).sum(axis=-1)
        return paid_n - np.minimum(expected_n, depth) + sum_n, least

    return scores


def _log_wealth(scores: ScoresOfBet, level: float, start: float, unit: float, counts: Indices) -> tuple[Array, Array]:
    """The log wealth of every bet size j after each count, less log(1/(1-level)), as intercept and slope, each (j, ..., m):
    intercept - slope · (average conditional mean).

    ``start``, at least as high as the scores' least value, is the centre of the first bet; bet sizes are in 1/``unit``.
    """
    count_n = np.arange(1.0, counts[-1] + 1.0)
    start_m = np.concatenate(([0], counts[:-1]))
    bet_j = _SIZES / unit
    intercepts = []
    for bet, stake in zip(bet_j.tolist(), _PRIOR.tolist(), strict=True):
        score_n, low = scores(bet)
        over_n = score_n[..., : counts[-1]] - low
        # The centre: the mean of earlier rounds and one pseudo-round at start, each cut to what the bet can afford.
        cut_n = np.minimum(over_n, _MOST_AT_RISK / bet)
        centre_n = (np.cumsum(cut_n, axis=-1) - cut_n + min(start - low, _MOST_AT_RISK / bet)) / count_n
        gain_n = np.log1p(bet * (over_n - centre_n)) + bet * centre_n
        gain_m = np.cumsum(np.add.reduceat(gain_n, start_m, axis=-1), axis=-1)
        intercepts.append(gain_m + bet * low * counts + math.log(stake))
    intercept_jm = np.stack(intercepts) + math.log1p(-level)
    return intercept_jm, np.multiply.outer(bet_j, np.ones(intercept_jm.shape[1:]) * counts)


def _solve(intercept_jm: Array, slope_jm: Array) -> Array:
    """The mean (..., m) at which log Σ_j exp(intercept - slope · mean) is 0.

    It falls in the mean and is convex: from the best single bet, Newton's steps never pass the root.
    """
    mean_m = np.asarray((intercept_jm / slope_jm).max(axis=0))
    for _ in range(12):
        power_jm = intercept_jm - slope_jm * mean_m
        top_m = power_jm.max(axis=0)
        share_jm = np.exp(power_jm - top_m)
        sum_m = share_jm.sum(axis=0)
        step_m = np.maximum(top_m + np.log(sum_m), 0.0) * sum_m / (slope_jm * share_jm).sum(axis=0)
        mean_m = mean_m + step_m
    return mean_m


def _check_rewards(reward_n: Array, weight_n: Array, factor: float, high: float) -> tuple[Array, Array]:
    reward_n, weight_n = _check_rounds("reward_n", reward_n), _check_rounds("weight_n", weight_n)
    if weight_n.shape != reward_n.shape:
        raise ValueError(f"weight_n: shape {weight_n.shape} is not reward_n's, {reward_n.shape}")
    if not (0.0 < high < math.inf and 0.0 <= factor < math.inf):
        raise ValueError(f"high, factor: expected high > 0 and factor >= 0, finite, not {high} and {factor}")
    if reward_n.min() < 0.0 or reward_n.max() > high:
        raise ValueError(f"reward_n: {reward_n.min()} to {reward_n.max()} is not within [0, high = {high}]")
    if weight_n.min() < 0.0:
        raise ValueError(f"weight_n: {weight_n.min()} is negative")
    return reward_n, weight_n


def _check_rounds(name: str, value_n: Array) -> Array:
    value_n = np.asarray(value_n, dtype=np.float64)
    if value_n.ndim == 0 or value_n.size == 0:
        raise ValueError(f"{name}: expected at least one round, not shape {value_n.shape}")
    if not np.isfinite(value_n).all():
        raise ValueError(f"{name}: value {int(np.argmin(np.isfinite(value_n)))} is not a finite number")
    return value_n


def _check_counts(at: Indices | None, n: int) -> Indices:
    """The counts of rounds after which there is a bound."""
    counts = np.arange(1, n + 1) if at is None else np.asarray(at)
    if counts.ndim != 1 or len(counts) == 0 or counts[0] < 1 or counts[-1] > n or (np.diff(counts) <= 0).any():
        raise ValueError(f"at: expected rising counts of rounds, from 1 to {n}")
    return counts


def _check_control_variate(control_variate: ControlVariate, weight_n: Array, high: float) -> None:
    shape = weight_n.shape
    target_nk, logged_nk, chosen_n = control_variate.target_nk, control_variate.logged_nk, control_variate.chosen_n
    for name in ("predicted_nk", "target_nk", "logged_nk"):
        value_nk = getattr(control_variate, name)
        if value_nk.shape[:-1] != shape or value_nk.shape != target_nk.shape:
            raise ValueError(f"control_variate.{name}: shape {value_nk.shape} does not fit {shape} rounds by models")
        if not np.isfinite(value_nk).all() or value_nk.min() < 0.0:
            raise ValueError(f"control_variate.{name}: expected finite numbers of at least 0")
    if chosen_n.shape != shape:
        raise ValueError(f"control_variate.chosen_n: shape {chosen_n.shape} is not {shape}")
    if control_variate.predicted_nk.max() > high:
        raise ValueError(f"control_variate.predicted_nk: {control_variate.predicted_nk.max()} is over high = {high}")
    if not np.allclose(logged_nk.sum(axis=-1), 1.0, rtol=0.0, atol=1e-6):
        raise ValueError("control_variate.logged_nk: a row does not sum to 1")
    target_n = np.take_along_axis(target_nk, chosen_n[..., None], axis=-1)[..., 0]
    logged_n = np.take_along_axis(logged_nk, chosen_n[..., None], axis=-1)[..., 0]
    if not np.allclose(weight_n * logged_n, target_n, rtol=1e-6, atol=1e-9):
        raise ValueError("weight_n: not the control variate's target_nk / logged_nk of the chosen model in every round")
