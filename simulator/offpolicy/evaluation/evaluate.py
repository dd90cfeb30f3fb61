"""Everything that a log says of a candidate: estimates with intervals, controls, diagnostics.

Rounds whose outcome never came are left out of what is said of that signal. That is right if the outcome being missing does
not depend on the model that was called; ``missing_p`` tests it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pointsman.simulator.offpolicy.candidate import Candidate, target
from pointsman.simulator.offpolicy.estimators.scores import NAMES, UNBIASED, Scored, dm, estimate_all, weights
from pointsman.simulator.offpolicy.evaluation.comparators import Control, Line, controls_of
from pointsman.simulator.offpolicy.evaluation.diagnostics import Diagnostics, diagnose, mean_weight_z
from pointsman.simulator.offpolicy.evaluation.evidence import Evidence, evidence_of, missing_p, signals_of, supported
from pointsman.simulator.offpolicy.expression import Sum
from pointsman.simulator.offpolicy.intervals.adaptive import adaptive_weights, spread, stable_weights
from pointsman.simulator.offpolicy.intervals.fixed_time import (
    Interval,
    at_least,
    bias_aware,
    bootstrap,
    empirical_bernstein,
    expected_squares,
    normal,
)
from pointsman.simulator.offpolicy.logs.journal import Journal
from pointsman.simulator.offpolicy.logs.log import Array, Log


@dataclass(frozen=True, slots=True)
class SignalReport:
    """One signal: in how many rounds it was reported, whether what is missing depends on the model (p-value), the logging
    policy's mean, and the estimates. ``high_seen``: nothing says how large the signal can be, so that ``high`` is the largest
    value that was seen.
    """

    signal: str
    reported: int
    missing_p: float
    low: float
    high: float
    high_seen: bool
    logged: Line
    lines: tuple[Line, ...]

    def line(self, estimator: str) -> Line:
        """The line of one estimator."""
        return next(line for line in self.lines if line.estimator == estimator)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """All of it. ``replaced`` are rounds in which the candidate's model could not be chosen and the log's policy stood in;
    ``weight_z`` is by how many standard errors the mean weight is off 1.
    """

    log: Log
    candidate: Candidate
    level: float
    replaced: int
    weight_z: float
    diagnostics: Diagnostics
    reports: Mapping[str, SignalReport]
    evidence: Mapping[str, Evidence]
    controls: tuple[Control, ...]


def evaluate(
    source: Log | Journal,
    candidate: Candidate,
    *,
    signals: Sequence[str] = (),
    sums: Mapping[str, Sum] | None = None,
    caps: Mapping[str, float] | None = None,
    estimators: Sequence[str] = NAMES,
    level: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Evaluate ``candidate`` on a log. ``signals`` are those to be evaluated (all that matter by default), ``sums`` more of
    them by name, made of the log's. ``caps`` are the largest values that a signal is believed to have; by default the range
    of quality, and the largest value seen for others.

    Raises ``EvaluationError`` and ``CandidateError``.
    """
    log = source.log if isinstance(source, Journal) else source
    values, ranges, seen = signals_of(source, log, signals, sums or {}, caps or {})
    made = target(candidate, source)
    weight_n = weights(made.target_nk, log.chosen_n, log.propensity_n)
    evidence = {name: evidence_of(log, name, values[name], ranges[name], made.target_nk, weight_n) for name in values}
    rng = np.random.default_rng(seed)
    reports = {
        name: _report(
            one, estimators, level, rng, missing_p(log, ~np.isnan(values[name])), name in seen, candidate.static
        )
        for name, one in evidence.items()
    }
    return Evaluation(
        log=log,
        candidate=candidate,
        level=level,
        replaced=made.replaced,
        weight_z=_weight_z(log, made.target_nk, weight_n),
        diagnostics=diagnose(weight_n, log.chosen_n, made.target_nk, log.logged_nk),
        reports=reports,
        evidence=evidence,
        controls=controls_of(log, evidence, level),
    )


def _weight_z(log: Log, target_nk: Array, weight_n: Array) -> float:
    """With the whole logged distribution standard errors are exact: given the past, the variance of a weight is
    Σ target²/logged - 1.
    """
    if log.logged_nk is None or bool(((target_nk > 0.0) & (log.logged_nk <= 0.0)).any()):
        return mean_weight_z(weight_n)
    variance = float((spread(target_nk, log.logged_nk) - 1.0).sum())
    return 0.0 if variance <= 0.0 else float((weight_n - 1.0).sum()) / math.sqrt(variance)


def _report(
    one: Evidence,
    names: Sequence[str],
    level: float,
    rng: np.random.Generator,
    p_missing: float,
    high_seen: bool,
    static: bool,
) -> SignalReport:
    scored = [
        dm(one.q_cross_mk, one.target_mk) if made.name == "dm" else made
        for made in estimate_all(one.reward_m, one.weight_m, one.q_mk, one.target_mk, one.chosen_m, names)
    ]
    lines = []
    for made in scored:
        lines.append(Line(made.name, made.estimate, made.tuned, _intervals(one, made, level, rng)))
        if made.name == "dr" and static and len(one.reward_m) > 1 and supported(one):
            lines.append(_adaptive(one, made, level))
    side = (1.0 + level) / 2.0
    bounds = Interval(one.bound(side, lower=True), one.bound(side, lower=False), level)
    lines.append(Line("betting", math.nan, None, {"betting": bounds}))
    logged = {"normal": normal(one.reward_m, level)} if len(one.reward_m) > 1 else {}
    return SignalReport(
        signal=one.signal,
        reported=len(one.reward_m),
        missing_p=p_missing,
        low=one.low,
        high=one.high,
        high_seen=high_seen,
        logged=Line("logged", one.logged, None, logged),
        lines=tuple(lines),
    )


def _intervals(one: Evidence, made: Scored, level: float, rng: np.random.Generator) -> dict[str, Interval]:
    if len(made.score_n) < 2 or math.isnan(made.estimate):
        return {}
    if made.name in UNBIASED:
        error = _expected_error(one, made)
        found = {
            "normal": at_least(normal(made.score_n, level), made.estimate, error),
            "bootstrap": at_least(bootstrap(made.score_n, level, rng), made.estimate, error),
        }
    else:
        name = "ips" if made.name == "clipped" else "dr"
        (unbiased,) = estimate_all(one.reward_m, one.weight_m, one.q_mk, one.target_mk, one.chosen_m, [name])
        around = bias_aware(made.score_n, unbiased.score_n, level)
        sure = at_least(normal(unbiased.score_n, level), unbiased.estimate, _expected_error(one, unbiased))
        found = {"normal": Interval(min(around.low, sure.low), max(around.high, sure.high), level)}
    if made.name == "ips" and supported(one):
        # The largest weight that could have come is known: both distributions are.
        assert one.logged_mk is not None
        most = float((one.target_mk / np.where(one.target_mk > 0.0, one.logged_mk, 1.0)).max())
        low, high = min(0.0, most * one.low), max(0.0, most * one.high)
        inside_m = np.clip(made.score_n, low, high)  # but for rounding
        found["bernstein"] = empirical_bernstein(inside_m, level, low, high)
    return found


def _expected_error(one: Evidence, made: Scored) -> float:
    """The standard error to be expected of an unbiased estimate; 0 where the log does not say which weights could have come."""
    if not supported(one):
        return 0.0
    variance = float(_expected_squares(one, made).mean())
    if made.name in ("dr", "sndr"):
        variance += float(np.einsum("mk,mk->m", one.q_mk, one.target_mk).var())
    elif made.name == "ips":
        variance -= made.estimate**2
    return math.sqrt(max(variance, 0.0) / len(made.score_n))


def _expected_squares(one: Evidence, made: Scored) -> Array:
    """Of the weighted part of the scores (m)."""
    assert one.logged_mk is not None
    residual_m = one.reward_m
    if made.name == "snips":
        residual_m = one.reward_m - made.estimate
    elif made.name in ("dr", "sndr"):
        # By the whole log's model: the first rounds' predictions were worse, as the scores themselves show.
        residual_m = one.reward_m - one.q_cross_mk[np.arange(len(one.chosen_m)), one.chosen_m]
    return expected_squares(residual_m, one.chosen_m, one.target_mk, one.logged_mk)


def _adaptive(one: Evidence, made: Scored, level: float) -> Line:
    """The doubly robust estimate with adaptive weights."""
    assert one.logged_mk is not None
    estimate, interval = adaptive_weights(made.score_n, one.target_mk, one.logged_mk, level)
    h_m = stable_weights(spread(one.target_mk, one.logged_mk))
    expected_m = np.einsum("mk,mk->m", one.q_mk, one.target_mk)
    squares_m = _expected_squares(one, made) + float(expected_m.var())
    error = math.sqrt(float(h_m**2 @ squares_m)) / float(h_m.sum())
    return Line("dr, adaptive weights", estimate, None, {"normal": at_least(interval, estimate, error)})
