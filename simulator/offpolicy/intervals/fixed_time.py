"""Fixed-time intervals for the mean of per-round scores: Student's t, bootstrap, empirical Bernstein.

All take scores whose mean is the estimate. None may be looked at again and again while data come in, and all but
:func:`empirical_bernstein` take the rounds as independent, which the log of a learning policy is not: for that, see
``betting`` (valid at any time, for any log) and ``adaptive``.

>>> score_n = np.arange(100.0) / 100.0
>>> interval = normal(score_n, 0.95)
>>> round(interval.low, 3), round(interval.high, 3)
(0.437, 0.553)
>>> normal(score_n, 0.95).width < empirical_bernstein(score_n, 0.95, 0.0, 1.0).width
True
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from pointsman.simulator.offpolicy.intervals.interval import Interval, check_level, check_scores
from pointsman.simulator.offpolicy.logs.log import Array, Indices

RESAMPLED = 2_000
"""The most values that a bootstrap draws from; more rounds than twice this are averaged in blocks first."""

_CHUNK = 4_000_000
"""Draws held in memory at once by the bootstrap."""

_PRIOR_ROUNDS = 5.0
"""Rounds' worth of prior weight on a model's mean squared residual being that of all models together."""

_LARGEST_BET = 0.75
"""Largest bet of the predictable plug-in interval, as a share of the range; Waudby-Smith and Ramdas suggest 1/2 or 3/4."""


def normal(score_n: Array, level: float) -> Interval:
    """Student's t interval: mean ± t(n-1) · s/√n, for n >= 2 independent scores of finite variance, n large.

    Raises:
        ValueError: as :func:`check_scores` and :func:`check_level`.
    """
    score_n, level = check_scores(score_n, 2), check_level(level)
    n = len(score_n)
    half = float(stdtrit(n - 1, 0.5 + level / 2.0)) * float(score_n.std(ddof=1)) / math.sqrt(n)
    mean = float(score_n.mean())
    return Interval(mean - half, mean + half, level)


def expected_squares(residual_n: Array, chosen_n: Indices, target_nk: Array, logged_nk: Array) -> Array:
    """The expected square of weight · residual in every round (n), whatever weights happened to come.

    Where a candidate does what the log rarely did, a sample holds too few of the rounds with large weights, and the sample
    variance of its scores is too small more often than not. But both distributions are known: given the context, w² is
    Σ_a target²/logged on average, so that only each model's mean squared residual has to be learned, from all of its rounds
    alike, shrunk to that of all models as if by five more rounds.

    ``residual_n`` are rewards, or rewards less their predictions, in the reward's unit; ``target_nk`` and ``logged_nk`` the
    candidate's and the logging policy's distributions. ``logged_nk`` must be positive wherever ``target_nk`` is.
    """
    k = target_nk.shape[1]
    count_k = np.bincount(chosen_n, minlength=k)
    overall = float((residual_n**2).mean())
    squares_k = np.bincount(chosen_n, weights=residual_n**2, minlength=k)
    mean_k = (squares_k + _PRIOR_ROUNDS * overall) / (count_k + _PRIOR_ROUNDS)
    safe_nk = np.where(target_nk > 0.0, logged_nk, 1.0)
    return np.asarray((target_nk**2 / safe_nk) @ mean_k)


def widened(interval: Interval, estimate: float, standard_error: float) -> Interval:
    """The smallest interval that holds ``interval`` and the Normal one around ``estimate`` with ``standard_error``."""
    half = float(ndtri(0.5 + interval.level / 2.0)) * standard_error
    return Interval(min(interval.low, estimate - half), max(interval.high, estimate + half), interval.level)


def bias_aware(score_n: Array, unbiased_n: Array, level: float) -> Interval:
    """Interval of an estimate that trades bias for less spread, from the scores of an unbiased one on the same rounds, each (n).

    Half of the error is for the spread of ``score_n``; half for its bias, which is at most the difference of the two means and
    that difference's own spread. It is no narrower than the unbiased estimate's: shrinking weights makes the estimate
    better, not what is known of its error (Armstrong and Kolesár, "Optimal inference in a class of regression models", 2018,
    for intervals that allow for a bound of the bias).

    Raises:
        ValueError: as :func:`normal`.
    """
    half_level = (1.0 + check_level(level)) / 2.0
    around = normal(score_n, half_level)
    difference = normal(np.asarray(unbiased_n) - np.asarray(score_n), half_level)
    bias = max(abs(difference.low), abs(difference.high))
    return Interval(around.low - bias, around.high + bias, level)


def bootstrap(score_n: Array, level: float, rng: np.random.Generator, replicates: int = 1_000) -> Interval:
    """Bias-corrected and accelerated (BCa) bootstrap interval of the mean, for n >= 2 independent scores.

    It leans to the long tail of skewed scores, as importance-weighted ones are; it needs ``replicates`` well over
    2/(1 - level). Bias from the share of replicates below the mean, acceleration from the jackknife, in closed form
    for a mean: Σ(x-x̄)³ / 6(Σ(x-x̄)²)^1.5 (Efron, "Better bootstrap confidence intervals", JASA 1987). More than
    2 · ``RESAMPLED`` rounds are first averaged in ``RESAMPLED`` blocks of neighbours, which costs nothing in
    accuracy at that size (and allows short dependence: Carlstein 1986); a remainder of rounds, under one block in all,
    widens the first blocks by one each, weighted accordingly.

    Raises:
        ValueError: as :func:`check_scores` and :func:`check_level`, or ``replicates`` is under 100.
    """
    score_n, level = check_scores(score_n, 2), check_level(level)
    if replicates < 100:
        raise ValueError(f"replicates: {replicates} is under 100")
    mean = float(score_n.mean())
    value_m = _blocks(score_n - mean)
    centred_m = value_m - value_m.mean()
    squares = float(centred_m @ centred_m)
    # A constant may differ from its own mean by rounding; that is no spread.
    if squares <= len(value_m) * (8.0 * np.finfo(np.float64).eps * (abs(mean) + float(np.abs(value_m).max()))) ** 2:
        return Interval(mean, mean, level)
    drawn_r = np.empty(replicates)
    rows = max(1, _CHUNK // len(value_m))
    for start in range(0, replicates, rows):
        stop = min(start + rows, replicates)
        index_rm = rng.integers(0, len(value_m), (stop - start, len(value_m)))
        drawn_r[start:stop] = value_m[index_rm].mean(axis=1)
    observed = float(value_m.mean())
    # Half of those that tie, and a tie is one even if the order of summing made a difference.
    tie = 1e-12 * float(np.abs(value_m).max())
    below = float((drawn_r < observed - tie).mean() + (drawn_r <= observed + tie).mean()) / 2.0
    # All replicates on one side happens by chance only with very few distinct values: half a replicate keeps it finite.
    bias = float(ndtri(min(max(below, 0.5 / replicates), 1.0 - 0.5 / replicates)))
    acceleration = float((centred_m**3).sum()) / (6.0 * squares**1.5)
    z_2 = bias + np.array([ndtri(0.5 - level / 2.0), ndtri(0.5 + level / 2.0)])
    share_2 = ndtr(bias + z_2 / (1.0 - acceleration * z_2))
    low, high = np.quantile(drawn_r, share_2)
    return Interval(mean + float(low), mean + float(high), level)


def _blocks(score_n: Array) -> Array:
    """``score_n`` itself, or its sums over equal blocks, scaled so that the mean and its variance stay as they were."""
    n = len(score_n)
    if n <= 2 * RESAMPLED:
        return score_n
    edge_m = np.arange(RESAMPLED) * n // RESAMPLED
    return np.asarray(np.add.reduceat(score_n, edge_m) * (RESAMPLED / n))


def empirical_bernstein(score_n: Array, level: float, low: float, high: float) -> Interval:
    """Non-asymptotic interval for scores in [``low``, ``high``] whose mean given the past is always the same.

    The rounds need not be independent. It is the predictable plug-in empirical-Bernstein interval for a sample size fixed
    beforehand, which is narrower than Maurer and Pontil's (COLT 2009): Waudby-Smith and Ramdas, "Estimating means of
    bounded random variables by betting" (JRSS-B 2024), section 3.2: with λ_t = min(√(2 log(2/δ) / n σ̂²_{t-1}), 3/4), centre
    Σλx/Σλ and half width (log(2/δ) + Σ 4(x_t - μ̂_{t-1})² (-log(1-λ_t) - λ_t)/4) / Σλ, on the scale where the range is 1.

    Raises:
        ValueError: as :func:`check_scores` and :func:`check_level`, ``low >= high``, or a score is outside.
    """
    score_n = _check_range(check_scores(score_n, 1), low, high)
    x_n = (score_n - low) / (high - low)
    n, log = len(x_n), math.log(2.0 / (1.0 - check_level(level)))
    t_n = np.arange(1, n + 1)
    after_n = (0.5 + np.cumsum(x_n)) / (t_n + 1)
    before_n = np.concatenate(([0.5], after_n[:-1]))
    variance_n = (0.25 + np.cumsum((x_n - after_n) ** 2)) / (t_n + 1)
    variance_n = np.concatenate(([0.25], variance_n[:-1]))
    bet_n = np.minimum(np.sqrt(2.0 * log / (n * variance_n)), _LARGEST_BET)
    total = float(bet_n.sum())
    centre = float(bet_n @ x_n) / total
    half = (log + float(((x_n - before_n) ** 2) @ (-np.log1p(-bet_n) - bet_n))) / total
    scaled = max(centre - half, 0.0), min(centre + half, 1.0)
    return Interval(low + (high - low) * scaled[0], low + (high - low) * scaled[1], level)


def _check_range(score_n: Array, low: float, high: float) -> Array:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"low, high: {low} and {high} are not two finite numbers in rising order")
    if score_n.min() < low or score_n.max() > high:
        raise ValueError(f"score_n: {score_n.min()} to {score_n.max()} is not within [{low}, {high}]")
    return score_n
