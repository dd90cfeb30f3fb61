"""Estimates of a candidate's value with their intervals, from the evidence on one signal.

Unbiased estimates have intervals that are no narrower than the weights that *could* have come make likely
(``fixed_time.expected_squares``); those that trade bias for less spread have intervals that allow for the bias.

>>> mean_of("logged", np.array([0.0, 1.0, 1.0, 1.0]), 0.95).estimate
0.75
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pointsman.simulator.offpolicy.estimators.scores import UNBIASED, ScoredEstimate, dm, estimate_all
from pointsman.simulator.offpolicy.evaluation.evidence import Evidence
from pointsman.simulator.offpolicy.intervals.adaptive import (
    expected_squared_weights,
    stable_var_weights,
    weighted_mean,
)
from pointsman.simulator.offpolicy.intervals.fixed_time import (
    bias_aware,
    bootstrap,
    empirical_bernstein,
    expected_squares,
    normal,
    widened,
)
from pointsman.simulator.offpolicy.intervals.interval import Interval
from pointsman.simulator.offpolicy.logs.log import Array

MAX_UNSUPPORTED = 1e-6
"""Share of the candidate's choices without propensity from which no interval is right: no outcome of those ever came."""


@dataclass(frozen=True, slots=True)
class IntervalEstimate:
    """An estimate with its intervals by name: ``normal``, ``bootstrap``, ``bernstein``, ``betting`` (those that apply).

    ``estimate`` is NaN where there are bounds alone; ``tuned`` the estimator's c, τ or λ.
    """

    estimator: str
    estimate: float
    tuned: float | None
    intervals: Mapping[str, Interval]


def mean_of(estimator: str, score_m: Array, level: float) -> IntervalEstimate:
    """The mean of scores, with a normal interval if there are two or more."""
    intervals = {"normal": normal(score_m, level)} if len(score_m) > 1 else {}
    return IntervalEstimate(estimator, float(score_m.mean()), None, intervals)


def estimates_of(
    evidence: Evidence, names: Sequence[str], level: float, rng: np.random.Generator, *, is_static: bool
) -> tuple[IntervalEstimate, ...]:
    """The estimators called ``names``, then betting bounds; ``rng`` draws the bootstrap.

    ``is_static``: the candidate does the same in a context all along, so that adaptive weights apply to it.
    """
    estimates = []
    for scored in _all_scores(evidence, names):
        if scored.name == "dm":
            scored = dm(evidence.q_cross_mk, evidence.target_mk)
        intervals = _intervals(evidence, scored, level, rng)
        estimates.append(IntervalEstimate(scored.name, scored.estimate, scored.tuned, intervals))
        if scored.name == "dr" and is_static and len(evidence) > 1 and evidence.is_supported:
            estimates.append(_adaptively_weighted(evidence, scored, level))
    side = (1.0 + level) / 2.0
    bounds = Interval(evidence.bound(side, lower=True), evidence.bound(side, lower=False), level)
    estimates.append(IntervalEstimate("betting", math.nan, None, {"betting": bounds}))
    return tuple(estimates)


def _all_scores(evidence: Evidence, names: Sequence[str]) -> list[ScoredEstimate]:
    return estimate_all(
        evidence.reward_m, evidence.weight_m, evidence.q_mk, evidence.target_mk, evidence.chosen_m, names
    )


def _intervals(
    evidence: Evidence, scored: ScoredEstimate, level: float, rng: np.random.Generator
) -> dict[str, Interval]:
    """The intervals that apply to an estimate, by name; none where there are fewer than two rounds, or it is partly a guess."""
    if len(scored.score_n) < 2 or math.isnan(scored.estimate) or evidence.unsupported > MAX_UNSUPPORTED:
        return {}
    if scored.name not in UNBIASED:
        return {"normal": _bias_aware(evidence, scored, level)}
    error = _expected_error(evidence, scored)
    intervals = {
        "normal": widened(normal(scored.score_n, level), scored.estimate, error),
        "bootstrap": widened(bootstrap(scored.score_n, level, rng), scored.estimate, error),
    }
    if scored.name == "ips" and evidence.is_supported:
        intervals["bernstein"] = _bernstein(evidence, scored, level)
    return intervals


def _bias_aware(evidence: Evidence, scored: ScoredEstimate, level: float) -> Interval:
    """The interval that allows for bias, and no narrower than that of the unbiased estimate on the same rounds."""
    (unbiased,) = _all_scores(evidence, ["ips" if scored.name == "clipped" else "dr"])
    around = bias_aware(scored.score_n, unbiased.score_n, level)
    of_unbiased = widened(normal(unbiased.score_n, level), unbiased.estimate, _expected_error(evidence, unbiased))
    return Interval(min(around.low, of_unbiased.low), max(around.high, of_unbiased.high), level)


def _bernstein(evidence: Evidence, scored: ScoredEstimate, level: float) -> Interval:
    """Of the scores of ``ips``, whose range is known: both distributions are, and so the largest weight that could have come."""
    assert evidence.logged_mk is not None
    safe_mk = np.where(evidence.target_mk > 0.0, evidence.logged_mk, 1.0)
    largest = float((evidence.target_mk / safe_mk).max())
    low, high = min(0.0, largest * evidence.low), max(0.0, largest * evidence.high)
    return empirical_bernstein(np.clip(scored.score_n, low, high), level, low, high)  # clipped where it was rounded


def _expected_error(evidence: Evidence, scored: ScoredEstimate) -> float:
    """The standard error to be expected of an unbiased estimate; 0 where the log does not say which weights could have come."""
    if not evidence.is_supported:
        return 0.0
    variance = float(_expected_squares(evidence, scored).mean())
    if scored.name in ("dr", "sndr"):
        variance += float(np.einsum("mk,mk->m", evidence.q_mk, evidence.target_mk).var())
    elif scored.name == "ips":
        variance -= scored.estimate**2
    return math.sqrt(max(variance, 0.0) / len(scored.score_n))


def _expected_squares(evidence: Evidence, scored: ScoredEstimate) -> Array:
    """The expected squares of the weighted part of the scores (m)."""
    assert evidence.logged_mk is not None
    residual_m = evidence.reward_m
    if scored.name == "snips":
        residual_m = evidence.reward_m - scored.estimate
    elif scored.name in ("dr", "sndr"):
        # By the whole log's model: the first rounds' predictions were worse, as the scores themselves show.
        residual_m = evidence.reward_m - evidence.q_cross_mk[np.arange(len(evidence)), evidence.chosen_m]
    return expected_squares(residual_m, evidence.chosen_m, evidence.target_mk, evidence.logged_mk)


def _adaptively_weighted(evidence: Evidence, scored: ScoredEstimate, level: float) -> IntervalEstimate:
    """The doubly robust estimate with adaptive weights."""
    assert evidence.logged_mk is not None
    h_m = stable_var_weights(expected_squared_weights(evidence.target_mk, evidence.logged_mk))
    estimate, interval = weighted_mean(scored.score_n, h_m, level)
    expected_m = np.einsum("mk,mk->m", evidence.q_mk, evidence.target_mk)
    squares_m = _expected_squares(evidence, scored) + float(expected_m.var())
    error = math.sqrt(float(h_m**2 @ squares_m)) / float(h_m.sum())
    return IntervalEstimate("dr, adaptive weights", estimate, None, {"normal": widened(interval, estimate, error)})
