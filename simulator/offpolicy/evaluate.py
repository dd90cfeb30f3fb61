"""Everything that a log says of a candidate: estimates with intervals, controls, diagnostics.

Rounds whose outcome never came are left out of what is said of that signal. That is right if the outcome being missing does
not depend on the model that was called; ``missing_p`` tests it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from simulator.offpolicy import betting
from simulator.offpolicy.adaptive import adaptive_weights, spread
from simulator.offpolicy.candidate import Candidate, target
from simulator.offpolicy.diagnostics import Diagnostics, diagnose, mean_weight_z
from simulator.offpolicy.estimators import NAMES, UNBIASED, Scored, dm, estimate_all, weights
from simulator.offpolicy.expression import Sum
from simulator.offpolicy.intervals import Interval, bias_aware, bootstrap, empirical_bernstein, normal
from simulator.offpolicy.log import Array, Flags, Indices, Log
from simulator.offpolicy.read_journal import Journal
from simulator.offpolicy.reward_models import cross_fitted, past_only

GATED = ("quality", "cost", "latency", "success")
"""Signals of a journal that are evaluated if nothing else is asked for."""


class EvaluationError(ValueError):
    """What was asked for makes no sense with this log."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What the log says of one signal, in the rounds where it was reported (m of n): rewards, weights, distributions, what a
    model of the past expects, and its range. Rewards are in the signal's own unit.
    """

    signal: str
    low: float
    high: float
    reward_m: Array
    weight_m: Array
    q_mk: Array
    target_mk: Array
    logged_mk: Array | None
    chosen_m: Indices
    q_cross_mk: Array
    group_m: Indices

    @property
    def logged(self) -> float:
        """The mean of what was reported."""
        return float(self.reward_m.mean())

    def control(self) -> betting.Control | None:
        """Predictions for the betting bounds, on the scale where ``low`` is 0; none without the whole logged distribution."""
        if self.logged_mk is None:
            return None
        predicted_mk = np.clip(self.q_mk - self.low, 0.0, self.high - self.low)
        return betting.Control(predicted_mk, self.target_mk, self.logged_mk, self.chosen_m)

    def bound(self, level: float, *, lower: bool, factor: float = 0.0) -> float:
        """Anytime-valid bound of V(candidate) - ``factor`` · V(logging policy), in the signal's unit."""
        side = betting.lower if lower else betting.upper
        found = side(
            np.clip(self.reward_m - self.low, 0.0, self.high - self.low),
            self.weight_m,
            level,
            factor=factor,
            high=self.high - self.low,
            control=self.control(),
        )
        return found + self.low * (1.0 - factor)


@dataclass(frozen=True, slots=True)
class Line:
    """An estimate with its intervals by name: ``normal``, ``bootstrap``, ``bernstein``, ``betting`` (those that apply)."""

    estimator: str
    estimate: float
    tuned: float | None
    intervals: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class Control:
    """What the candidate is set beside: a static policy, its estimate, and the candidate's gain over it (by paired scores)."""

    name: str
    quality: Line
    cost: Line | None
    gain: Line


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
    values, ranges, seen = _signals(source, log, signals, sums or {}, caps or {})
    made = target(candidate, source)
    weight_n = weights(made.target_nk, log.chosen_n, log.propensity_n)
    evidence = {name: _evidence(log, name, values[name], ranges[name], made.target_nk, weight_n) for name in values}
    rng = np.random.default_rng(seed)
    reports = {
        name: _report(one, estimators, level, rng, _missing_p(log, ~np.isnan(values[name])), name in seen)
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
        controls=_controls(log, evidence, level),
    )


def _signals(
    source: Log | Journal,
    log: Log,
    wanted: Sequence[str],
    sums: Mapping[str, Sum],
    caps: Mapping[str, float],
) -> tuple[dict[str, Array], dict[str, tuple[float, float]], set[str]]:
    """Values (n) and range of every signal to be evaluated, and those whose upper end is only the largest value seen."""
    known = {name: value_n for name, value_n in log.signals.items() if not np.isnan(value_n).all()}
    for name in (*wanted, *(term.signal for one in sums.values() for term in one.factors)):
        if name not in known and name not in sums:
            raise EvaluationError(
                f"{name}: expected a signal that the log has: {', '.join(sorted(known)) or 'it has none'}"
            )
    chosen = list(wanted) or _usual(known, isinstance(source, Journal))
    ranges, seen = {}, set()
    for name, value_n in known.items():
        low, high, from_data = _range(source, name, value_n)
        ranges[name] = (low, caps.get(name, high))
        if from_data and name not in caps:
            seen.add(name)
    unknown = sorted(set(caps) - set(known) - set(sums))
    if unknown:
        raise EvaluationError(f"--cap {unknown[0]}: expected a signal that the log has: {', '.join(sorted(known))}")
    values = {name: known[name] for name in chosen if name in known}
    for name, one in sums.items():
        values[name] = np.asarray(one.constant + sum(f * known[term.signal] for term, f in one.factors.items()))
        ends = [(f * ranges[t.signal][0], f * ranges[t.signal][1]) for t, f in one.factors.items()]
        low, high = one.constant + sum(map(min, ends)), one.constant + sum(map(max, ends))
        ranges[name] = (low, caps.get(name, high))
        if name not in caps and any(term.signal in seen for term in one.factors):
            seen.add(name)
    for name, (low, high) in ranges.items():
        if not high > low:
            raise EvaluationError(f"--cap {name}: expected above {low:g}, got {high:g}")
    if not values:
        raise EvaluationError(f"{log.name}: no outcome was reported of any decision")
    return values, ranges, seen


def _usual(known: Mapping[str, Array], journal: bool) -> list[str]:
    """What is evaluated if nothing is asked for: what every service reports, then what else a log that is not ours has."""
    return [*(name for name in GATED if name in known), *(n for n in known if n not in GATED and not journal)]


def _range(source: Log | Journal, name: str, value_n: Array) -> tuple[float, float, bool]:
    """What a signal can be: quality by its bucket's scale, success and the like 0 or 1, others from 0 to the largest seen;
    and whether it is that.
    """
    seen_low, seen_high = float(np.nanmin(value_n)), float(np.nanmax(value_n))
    if name == "quality" and isinstance(source, Journal):
        return min(m.quality.min for m in source.made), max(m.quality.max for m in source.made), False
    if seen_low >= 0.0 and seen_high <= 1.0 and name not in ("cost", "latency"):
        return 0.0, 1.0, False
    low = min(0.0, seen_low)
    return low, seen_high if seen_high > low else low + 1.0, True


def _evidence(
    log: Log, signal: str, value_n: Array, range_: tuple[float, float], target_nk: Array, weight_n: Array
) -> Evidence:
    there_n = ~np.isnan(value_n)
    value_n = np.where(there_n, np.clip(value_n, *range_), np.nan)
    given = (value_n, log.chosen_n, log.x_nd, log.group_n, len(log.models))
    return Evidence(
        signal=signal,
        low=range_[0],
        high=range_[1],
        reward_m=value_n[there_n],
        weight_m=weight_n[there_n],
        q_mk=past_only(*given)[there_n],
        target_mk=target_nk[there_n],
        logged_mk=None if log.logged_nk is None else log.logged_nk[there_n],
        chosen_m=log.chosen_n[there_n],
        q_cross_mk=cross_fitted(*given)[there_n],
        group_m=log.group_n[there_n],
    )


def _weight_z(log: Log, target_nk: Array, weight_n: Array) -> float:
    """With the whole logged distribution standard errors are exact: given the past, the variance of a weight is
    Σ target²/logged - 1.
    """
    if log.logged_nk is None or bool(((target_nk > 0.0) & (log.logged_nk <= 0.0)).any()):
        return mean_weight_z(weight_n)
    variance = float((spread(target_nk, log.logged_nk) - 1.0).sum())
    return 0.0 if variance <= 0.0 else float((weight_n - 1.0).sum()) / math.sqrt(variance)


def _missing_p(log: Log, there_n: Flags) -> float:
    """The p-value of outcomes being missing alike for all models of a group: Pearson's χ², summed over groups."""
    statistic, freedom = 0.0, 0
    for group in range(len(log.groups)):
        rows_n = log.group_n == group
        counts_k = np.bincount(log.chosen_n[rows_n], minlength=len(log.models)).astype(np.float64)
        there_k = np.bincount(log.chosen_n[rows_n & there_n], minlength=len(log.models)).astype(np.float64)
        rate = float(there_k.sum() / max(counts_k.sum(), 1.0))
        told_k = counts_k * min(rate, 1.0 - rate) >= 5.0  # where the approximation holds
        if told_k.sum() < 2 or not 0.0 < rate < 1.0:
            continue
        rate = float(there_k[told_k].sum() / counts_k[told_k].sum())
        statistic += float(((there_k - rate * counts_k)[told_k] ** 2 / (counts_k[told_k] * rate * (1.0 - rate))).sum())
        freedom += int(told_k.sum()) - 1
    return float(chi2.sf(statistic, freedom)) if freedom else 1.0


def _report(
    one: Evidence,
    names: Sequence[str],
    level: float,
    rng: np.random.Generator,
    missing_p: float,
    high_seen: bool,
) -> SignalReport:
    scored = [
        dm(one.q_cross_mk, one.target_mk) if made.name == "dm" else made
        for made in estimate_all(one.reward_m, one.weight_m, one.q_mk, one.target_mk, one.chosen_m, names)
    ]
    lines = []
    for made in scored:
        lines.append(Line(made.name, made.estimate, made.tuned, _intervals(one, made, level, rng)))
        if made.name == "dr" and len(one.reward_m) > 1 and one.logged_mk is not None and _supported(one):
            estimate, interval = adaptive_weights(made.score_n, one.target_mk, one.logged_mk, level)
            lines.append(Line("dr, adaptive weights", estimate, None, {"normal": interval}))
    side = (1.0 + level) / 2.0
    bounds = Interval(one.bound(side, lower=True), one.bound(side, lower=False), level)
    lines.append(Line("betting", math.nan, None, {"betting": bounds}))
    logged = {"normal": normal(one.reward_m, level)} if len(one.reward_m) > 1 else {}
    return SignalReport(
        signal=one.signal,
        reported=len(one.reward_m),
        missing_p=missing_p,
        low=one.low,
        high=one.high,
        high_seen=high_seen,
        logged=Line("logged", one.logged, None, logged),
        lines=tuple(lines),
    )


def _supported(one: Evidence) -> bool:
    return one.logged_mk is not None and not bool(((one.target_mk > 0.0) & (one.logged_mk <= 0.0)).any())


def _intervals(one: Evidence, made: Scored, level: float, rng: np.random.Generator) -> dict[str, Interval]:
    if len(made.score_n) < 2 or math.isnan(made.estimate):
        return {}
    if made.name in UNBIASED:
        found = {"normal": normal(made.score_n, level), "bootstrap": bootstrap(made.score_n, level, rng)}
    else:
        unbiased_m = one.weight_m * one.reward_m if made.name == "clipped" else _dr_scores(one)
        found = {"normal": bias_aware(made.score_n, unbiased_m, level)}
    if made.name == "ips" and one.logged_mk is not None and _supported(one):
        # The largest weight that could have come is known: both distributions are.
        most = float((one.target_mk / np.where(one.target_mk > 0.0, one.logged_mk, 1.0)).max())
        low, high = min(0.0, most * one.low), max(0.0, most * one.high)
        inside_m = np.clip(made.score_n, low, high)  # but for rounding
        found["bernstein"] = empirical_bernstein(inside_m, level, low, high)
    return found


def _controls(log: Log, evidence: Mapping[str, Evidence], level: float) -> tuple[Control, ...]:
    """The best fixed model and, where costs are known, the best mix of models that costs what the candidate costs.

    Both are picked by their doubly robust estimates on the same rounds, which favours them.
    """
    one = evidence.get("quality")
    if one is None or len(one.reward_m) < 2:
        return ()
    k = len(log.models)
    always_k = log.eligible_nk.mean(axis=0) > 0.5
    quality_mk = _model_scores(one, k)
    candidate_m = _dr_scores(one)
    quality_k = np.where(always_k, quality_mk.mean(axis=0), -np.inf)
    cost = evidence.get("cost")
    same = cost is not None and len(cost.reward_m) > 1
    cost_k = _model_scores(cost, k).mean(axis=0) if same and cost is not None else None
    found = [
        _control(
            f"best fixed model: {log.models[int(quality_k.argmax())]}",
            np.eye(k)[int(quality_k.argmax())],
            one,
            cost,
            candidate_m,
            quality_mk,
            level,
        )
    ]
    if cost_k is not None and cost is not None:
        budget = float(_dr_scores(cost).mean())
        share_k = _mix(quality_k, cost_k, budget)
        shown = " + ".join(f"{share:.0%} {log.models[i]}" for i, share in enumerate(share_k) if share > 0.005)
        found.append(
            _control(f"best mix at the same cost: {shown}", share_k, one, cost, candidate_m, quality_mk, level)
        )
    return tuple(found)


def _control(
    name: str,
    share_k: Array,
    quality: Evidence,
    cost: Evidence | None,
    candidate_m: Array,
    quality_mk: Array,
    level: float,
) -> Control:
    score_m = quality_mk @ share_k
    gain_m = candidate_m - score_m
    priced = None
    if cost is not None and len(cost.reward_m) > 1:
        cost_m = _model_scores(cost, len(share_k)) @ share_k
        priced = Line("dr", float(cost_m.mean()), None, {"normal": normal(cost_m, level)})
    return Control(
        name,
        Line("dr", float(score_m.mean()), None, {"normal": normal(score_m, level)}),
        priced,
        Line("dr, paired", float(gain_m.mean()), None, {"normal": normal(gain_m, level)}),
    )


def _dr_scores(one: Evidence) -> Array:
    rows = np.arange(len(one.chosen_m))
    expected_m = np.einsum("mk,mk->m", one.q_mk, one.target_mk)
    return np.asarray(expected_m + one.weight_m * (one.reward_m - one.q_mk[rows, one.chosen_m]))


def _model_scores(one: Evidence, k: int) -> Array:
    """Doubly robust scores of every model alone, (m, k)."""
    rows = np.arange(len(one.chosen_m))
    propensity_m = np.divide(
        one.target_mk[rows, one.chosen_m], one.weight_m, out=np.ones(len(rows)), where=one.weight_m > 0.0
    )
    if one.logged_mk is not None:
        propensity_m = one.logged_mk[rows, one.chosen_m]
    score_mk = one.q_mk.copy()
    score_mk[rows, one.chosen_m] += (one.reward_m - one.q_mk[rows, one.chosen_m]) / propensity_m
    return score_mk


def _mix(quality_k: Array, cost_k: Array, budget: float) -> Array:
    """Shares (k) of at most two models with the best mean quality at a mean cost of at most ``budget``; the cheapest model if
    that costs more.
    """
    k = len(quality_k)
    best, found = -math.inf, np.eye(k)[int(np.argmin(cost_k))]
    for a in range(k):
        for b in range(k):
            if cost_k[a] > budget or not math.isfinite(quality_k[a]) or not math.isfinite(quality_k[b]):
                continue
            share = 1.0 if cost_k[b] <= budget else (budget - cost_k[a]) / (cost_k[b] - cost_k[a])
            value = (1.0 - share) * quality_k[a] + share * quality_k[b]
            if value > best:
                best, found = value, (1.0 - share) * np.eye(k)[a] + share * np.eye(k)[b]
    return np.asarray(found)
