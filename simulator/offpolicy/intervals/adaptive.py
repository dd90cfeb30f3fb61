"""Estimates from the log of a policy that was learning: rounds are weighted so that a normal interval holds.

Where the logging policy grows surer, it plays what looks bad ever more rarely, importance weights grow, and the average of
scores is not normal however long the log. Weighting each round by about the inverse of its score's standard deviation, as
far as the *past* tells it, makes the terms' variances alike, and the studentised weighted average is normal again
(martingale central limit theorem), for a value that is the same in every round. Where the value drifts, what is estimated
is the value averaged with these weights; ``betting`` bounds the plain average.

It is normal in the limit only. A model that was drawn a handful of times has no such limit: in 7,500 simulated logs of
1,500 rounds with two equal models, one deserted at t^-0.7, its 90 % intervals covered 87 % (plain ones 86 %), and with t^-0.5
or slower 89 to 90 %, as plain ones about do. What the weights gained in every one is width, about a fifth. Where a decision
hangs on it, take ``betting``, which asks for no limit.

Sources: Hadad, Hirshberg, Zhan, Wager and Athey, "Confidence intervals for policy evaluation in adaptive experiments"
(PNAS 2021); Zhan, Hadad, Hirshberg and Athey, "Off-policy evaluation via adaptive weighting with data from contextual
bandits" (KDD 2021).

>>> target_nk = np.array([[0.0, 1.0]] * 4)
>>> logged_nk = np.array([[0.5, 0.5], [0.5, 0.5], [0.9, 0.1], [0.9, 0.1]])
>>> squared_n = expected_squared_weights(target_nk, logged_nk)
>>> squared_n.tolist()
[2.0, 2.0, 10.0, 10.0]
>>> stable_var_weights(squared_n).round(2).tolist()
[1.0, 0.82, 0.77, 0.52]
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from pointsman.simulator.offpolicy.intervals.interval import Interval, check_level, check_scores
from pointsman.simulator.offpolicy.logs.log import Array

_RECENT = 0.1
"""Share of the rounds so far that the next round is expected to be like: logging policies change on that scale."""

_FEWEST = 50
"""Rounds looked back on at the least, if there are so many."""


def expected_squared_weights(target_nk: Array, logged_nk: Array) -> Array:
    """Σ_a target²/logged of each round (n), >= 1: the mean of the squared importance weight, given context and past.

    Up to a constant it bounds the variance of that round's (doubly robust) score: Zhan et al. 2021, section 3. Models where
    both distributions are 0 add nothing.

    Raises:
        ValueError: shapes disagree, or the target has mass where the logging policy has none.
    """
    target_nk, logged_nk = np.asarray(target_nk, dtype=np.float64), np.asarray(logged_nk, dtype=np.float64)
    if target_nk.ndim != 2 or target_nk.shape != logged_nk.shape:
        raise ValueError(f"target_nk, logged_nk: shapes {target_nk.shape} and {logged_nk.shape} are not both (n, k)")
    unsupported_n = ((target_nk > 0.0) & ~(logged_nk > 0.0)).any(axis=1)
    if unsupported_n.any():
        raise ValueError(
            f"logged_nk: round {int(np.argmax(unsupported_n))} gives no propensity to a model of the target"
        )
    safe_nk = np.where(target_nk > 0.0, logged_nk, 1.0)
    return np.asarray((target_nk**2 / safe_nk).sum(axis=1))


def stable_var_weights(squared_n: Array) -> Array:
    """StableVar weights h_t = 1/√(squared weight expected from the past), (n), for a contextual policy.

    Zhan et al. average each round's logging policy over all past contexts; a log holds it at its own contexts alone, so
    here it is the mean of ``squared_n`` over the last tenth of the past (at least 50 rounds) that is expected of the next.
    So h_t depends on rounds before t only, as it must: a weight that saw its own round's context would estimate the value
    over other contexts. ``squared_n`` is :func:`expected_squared_weights`, or, if the log holds only the chosen propensity, the
    squared importance weight itself, whose mean that is. The first weight is 1.

    Raises:
        ValueError: a squared weight is negative or not finite.
    """
    squared_n = check_scores(squared_n)
    if squared_n.min() < 0.0:
        raise ValueError(f"squared_n: {squared_n.min()} is negative")
    past_n = np.arange(len(squared_n))
    start_n = past_n - np.minimum(past_n, np.maximum(_FEWEST, np.ceil(_RECENT * past_n).astype(np.intp)))
    sums = np.concatenate(([0.0], np.cumsum(squared_n)))
    # One pseudo-round with a squared weight of 1 keeps weights finite where the past had none at all.
    expected_n = (1.0 + sums[past_n] - sums[start_n]) / (1.0 + past_n - start_n)
    # A difference of running sums may round to under the pseudo-round's share.
    return np.asarray(1.0 / np.sqrt(np.maximum(expected_n, 1.0 / (1.0 + past_n - start_n))))


def weighted_mean(score_n: Array, h_n: Array, level: float) -> tuple[float, Interval]:
    """The weighted mean Σhx/Σh of unbiased scores, and its studentised normal interval.

    Variance Σh²(x - mean)² / (Σh)², Hadad et al. 2021, section 2. ``score_n`` are IPS or doubly robust scores, the latter
    with predictions from earlier rounds alone; ``h_n`` >= 0, each determined by the rounds before its own, as
    :func:`stable_var_weights` are.

    Raises:
        ValueError: lengths disagree, a weight is negative, all are 0, or fewer than two rounds.
    """
    score_n, h_n = check_scores(score_n, 2), check_scores(h_n, 2)
    if len(score_n) != len(h_n):
        raise ValueError(f"h_n: {len(h_n)} weights for {len(score_n)} scores")
    total = float(h_n.sum())
    if h_n.min() < 0.0 or total <= 0.0:
        raise ValueError("h_n: expected weights of at least 0, not all 0")
    mean = float(h_n @ score_n) / total
    standard_error = math.sqrt(float((h_n**2) @ ((score_n - mean) ** 2))) / total
    half = float(ndtri(0.5 + check_level(level) / 2.0)) * standard_error
    return mean, Interval(mean - half, mean + half, level)
