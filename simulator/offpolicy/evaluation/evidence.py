"""What a log says of one signal of a candidate: rewards, weights, predictions and range, in the rounds where it was reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from pointsman.simulator.offpolicy.estimators.reward_models import cross_fitted, past_only
from pointsman.simulator.offpolicy.estimators.scores import dr
from pointsman.simulator.offpolicy.expression import Sum
from pointsman.simulator.offpolicy.intervals import betting
from pointsman.simulator.offpolicy.logs.journal import Journal
from pointsman.simulator.offpolicy.logs.log import Array, Flags, Indices, Log

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


def signals_of(
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
    for name, value_n in values.items():
        if np.isnan(value_n).all():
            raise EvaluationError(f"{name}: expected a round in which all that it is made of was reported, found none")
    for name, cap in caps.items():
        largest = float(np.nanmax({**known, **values}[name]))
        if largest > cap:
            raise EvaluationError(f"--cap {name}: expected at least {largest:g}, the largest seen, got {cap:g}")
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


def evidence_of(
    log: Log, signal: str, value_n: Array, range_: tuple[float, float], target_nk: Array, weight_n: Array
) -> Evidence:
    """What is known of a signal whose values are ``value_n`` (NaN where not reported), cut to ``range_``."""
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


def missing_p(log: Log, there_n: Flags) -> float:
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


def supported(one: Evidence) -> bool:
    """Whether the log is known to have tried all that the candidate does."""
    return one.logged_mk is not None and not bool(((one.target_mk > 0.0) & (one.logged_mk <= 0.0)).any())


def dr_scores(one: Evidence) -> Array:
    """Doubly robust scores of the candidate (m), by predictions from the past."""
    return dr(one.reward_m, one.weight_m, one.q_mk, one.target_mk, one.chosen_m).score_n


def model_scores(one: Evidence, k: int) -> Array:
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
