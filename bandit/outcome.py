"""Outcomes in parts, late, repeated, corrected: what one more report changes in what is known of a decision.

Each signal of each model of a decision has an aggregate. A report adds to it, the bucket's rule makes one value of
it, and the difference to the value before is what the posteriors learn. So any number of reports, in any order that the
rules do not distinguish, end in the same place.

>>> rules = OutcomeRules(cost=Aggregation.SUM)
>>> outcome, changes = merge(NO_REPORTS, {Signal.QUALITY: 0.8, Signal.COST: 0.002}, rules)
>>> outcome, changes = merge(outcome, {Signal.COST: 0.001}, rules)
>>> changes
(SignalChange(signal=<Signal.COST: 2>, before=0.002, after=0.003, log_decay=0.0),)
>>> outcome.reports
2
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pointsman.bandit.catalog import Aggregation, OutcomeRules, QualityRange, check_number
from pointsman.bandit.errors import FieldError


class Signal(enum.IntEnum):
    """What an outcome can say. The numbers are those of the contract's ``Signal``."""

    QUALITY = 1
    COST = 2
    LATENCY = 3
    SUCCESS = 4
    INPUT_TOKENS = 5
    OUTPUT_TOKENS = 6


FIELDS = {
    Signal.QUALITY: "quality",
    Signal.COST: "cost_usd",
    Signal.LATENCY: "latency_seconds",
    Signal.SUCCESS: "success",
    Signal.INPUT_TOKENS: "input_tokens",
    Signal.OUTPUT_TOKENS: "output_tokens",
}
"""The contract's name of each signal."""
OF_ANSWERS = frozenset({Signal.COST, Signal.LATENCY, Signal.OUTPUT_TOKENS})
"""What a failed call says nothing of."""
MAX_COST = 1e6
"""Largest cost of one call that is believed, in dollars."""
MAX_LATENCY = 1e6
"""Largest latency of one call that is believed, in seconds."""


@dataclass(frozen=True, slots=True)
class SignalAggregate:
    """Everything reported of one signal: how many times, their sum, the last, and the value last learned from.

    ``log_decay`` is the posterior's (``bandit.posterior.log_decay``) at the decision: with it an outcome counts as much as its
    decision's age says, whenever it arrives, and a correction as much as what is left of what it corrects.
    """

    count: int
    sum: float
    last: float
    value: float
    log_decay: float = 0.0


@dataclass(frozen=True, slots=True)
class ReportedOutcome:
    """Everything reported of one model for one decision, in how many reports."""

    aggregates: Mapping[Signal, SignalAggregate] = field(default_factory=dict)
    reports: int = 0


NO_REPORTS = ReportedOutcome()
"""Nothing was reported."""


@dataclass(frozen=True, slots=True)
class SignalChange:
    """One signal's value before (``None`` if there was none) and after a report; ``log_decay`` as in ``SignalAggregate``,
    ``None`` for the present one.
    """

    signal: Signal
    before: float | None
    after: float
    log_decay: float | None = None


@dataclass(frozen=True, slots=True)
class LearningUpdate:
    """What is to be learned of one signal: its value before and after, ``None`` where it teaches nothing; ``log_decay`` as in
    ``SignalChange``.
    """

    signal: Signal
    before: float | None
    after: float | None
    log_decay: float | None


def learning_updates(changes: Sequence[SignalChange], reported: ReportedOutcome) -> list[LearningUpdate]:
    """What ``changes``, after which ``reported`` is all that is known, teach.

    A failed call says nothing of what an answer costs, how long it takes and how long it is: only of quality, if that was
    reported. Whether a call failed may be said last, or be taken back: then what was learned is taken back, or learned after
    all, so that the end does not depend on the order of reports.
    """
    success = reported.aggregates.get(Signal.SUCCESS)
    fails = failed = success is not None and success.value == 0.0
    by_signal = {change.signal: change for change in changes}
    if Signal.SUCCESS in by_signal:
        failed = by_signal[Signal.SUCCESS].before == 0.0
    if not (fails or failed):
        return [LearningUpdate(c.signal, c.before, c.after, c.log_decay) for c in changes]
    updates = []
    for signal, aggregate in sorted(reported.aggregates.items()):
        change = by_signal.get(signal)
        before = aggregate.value if change is None else change.before
        after: float | None = aggregate.value
        if signal in OF_ANSWERS:
            before, after = None if failed else before, None if fails else after
        if before != after:
            updates.append(LearningUpdate(signal, before, after, aggregate.log_decay))
    return updates


def check_report(report: Mapping[Signal, float], quality: QualityRange) -> None:
    """Raise ``FieldError`` (with the contract's field name) for an empty report or a value outside its range."""
    if not report:
        raise FieldError("", "expected at least one signal, got none")
    for signal, value in report.items():
        name = FIELDS[signal]
        if signal is Signal.QUALITY:
            check_number(value, name, low=quality.min, high=quality.max)
        elif signal is Signal.COST:
            check_number(value, name, low=0.0, high=MAX_COST)
        elif signal is Signal.LATENCY:
            check_number(value, name, low=0.0, high=MAX_LATENCY)
        elif signal is not Signal.SUCCESS:
            check_number(value, name, low=0.0, high=2.0**53)


def merge(
    reported: ReportedOutcome,
    report: Mapping[Signal, float],
    rules: OutcomeRules,
    log_decays: Mapping[Signal, float] | None = None,
) -> tuple[ReportedOutcome, tuple[SignalChange, ...]]:
    """The reported outcome after ``report``, and what changed. Signals whose value stays the same are not among the changes.

    ``log_decays`` gives the log decay at the decision for each signal (0 where it says nothing).
    """
    merged = dict(reported.aggregates)
    changes = []
    for signal in sorted(report):
        value = report[signal]
        old = merged.get(signal)
        count, total = (1, value) if old is None else (old.count + 1, old.sum + value)
        rule = _rule(signal, rules)
        now = value if rule is Aggregation.LAST else total if rule is Aggregation.SUM else total / count
        if not math.isfinite(now):
            raise FieldError(FIELDS[signal], "the sum of the reports is too large")
        log_decay = (log_decays or {}).get(signal, 0.0) if old is None else old.log_decay
        merged[signal] = SignalAggregate(count, total, value, now, log_decay)
        before = None if old is None else old.value
        if before != now:
            changes.append(SignalChange(signal, before, now, log_decay))
    return ReportedOutcome(merged, reported.reports + 1), tuple(changes)


def _rule(signal: Signal, rules: OutcomeRules) -> Aggregation:
    if signal is Signal.QUALITY:
        return rules.quality
    if signal is Signal.COST:
        return rules.cost
    if signal is Signal.LATENCY:
        return rules.latency
    return Aggregation.LAST
