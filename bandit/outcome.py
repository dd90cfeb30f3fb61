"""Outcomes reported in parts, late, repeatedly or corrected: merging of reports, and the resulting updates.

Each signal of each model of a decision has an aggregate of its reports. A report is added to it, the bucket's aggregation rule
makes one value of it, and the posteriors learn the difference from the value before. So the result of any number of reports
depends on their order only where the rule does.

>>> rules = OutcomeRules(cost=Aggregation.SUM)
>>> outcome, changes = merge(NO_REPORTS, {Signal.QUALITY: 0.8, Signal.COST: 0.002}, rules)
>>> outcome, changes = merge(outcome, {Signal.COST: 0.001}, rules)
>>> [(change.signal.name, change.before, change.after) for change in changes]
[('COST', 0.002, 0.003)]
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
    """The signals of a response that can be reported. The numbers are those of the contract's ``Signal``."""

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
"""Signals of a response's content: those of a failed call are not learned."""
MAX_COST = 1e6
"""Largest cost of one call that is accepted, in dollars."""
MAX_LATENCY = 1e6
"""Largest latency of one call that is accepted, in seconds."""


@dataclass(frozen=True, slots=True)
class SignalAggregate:
    """The reports of one signal: their number, their sum, the last one, and the value last learned by the aggregation rule.

    ``log_decay`` is the posterior's (``bandit.posterior.log_decay``) at the decision: with it an outcome counts as much as its
    decision's age says, whenever it arrives, and a correction as much as what is left of what it corrects. ``released``, of a
    cost: whether a report released what the decision reserved of hard budgets; ``None`` where that was not recorded.
    """

    count: int
    sum: float
    last: float
    value: float
    log_decay: float = 0.0
    released: bool | None = None


@dataclass(frozen=True, slots=True)
class ReportedOutcome:
    """Everything reported of one model's response to one decision: aggregates by signal, and the number of reports."""

    aggregates: Mapping[Signal, SignalAggregate] = field(default_factory=dict)
    reports: int = 0


NO_REPORTS = ReportedOutcome()
"""Nothing was reported."""


@dataclass(frozen=True, slots=True)
class SignalChange:
    """One signal's value before (``None`` if there was none) and after a report; ``log_decay`` as in ``SignalAggregate``,
    ``None`` for the present one; ``released`` and ``released_before`` as there, after and before the report.
    """

    signal: Signal
    before: float | None
    after: float
    log_decay: float | None = None
    released: bool | None = None
    released_before: bool | None = None


@dataclass(frozen=True, slots=True)
class LearningUpdate:
    """What is to be learned of one signal: its value before and after, ``None`` where there is none to learn; ``log_decay`` as
    in ``SignalChange``.
    """

    signal: Signal
    before: float | None
    after: float | None
    log_decay: float | None


def learning_updates(changes: Sequence[SignalChange], reported: ReportedOutcome) -> list[LearningUpdate]:
    """What is to be learned from ``changes``; ``reported`` is all that was reported, these changes included.

    The cost, latency and length of a failed call are not learned, only its quality if that was reported. A failure may be
    reported last, or be corrected: then what was learned is retracted, or learned after all, so that the result does not depend
    on the order of reports.
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
    """The reported outcome after ``report``, and the signals whose value changed.

    ``log_decays`` are the posterior's at the decision, by signal (0 for those not given). Raises ``FieldError`` if a sum of
    reports is not finite.
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
        released_before = None if old is None else old.released
        released = None
        if (
            signal is Signal.COST
        ):  # parts may follow where they add up; what is released once stays so, whatever the rule becomes
            released = bool(released_before) or rule is not Aggregation.SUM
        merged[signal] = SignalAggregate(count, total, value, now, log_decay, released)
        before = None if old is None else old.value
        if before != now or (released_before is not None and released != released_before):
            changes.append(SignalChange(signal, before, now, log_decay, released, released_before))
    return ReportedOutcome(merged, reported.reports + 1), tuple(changes)


def reserved(change: SignalChange, max_cost: float, rule: Aggregation) -> tuple[float, float]:
    """Dollars that a decision counts against hard budgets before and after a change of its cost.

    That is ``max_cost``, what it reserved, or more if that is reported, until a report releases it; the reported cost from then
    on. ``rule`` is the bucket's for costs: it says what was released where the change does not.

    >>> change = SignalChange(Signal.COST, before=0.1, after=0.3, released=True, released_before=True)
    >>> reserved(change, 1.0, Aggregation.SUM)  # reports were added up only after the first one had released the rest
    (0.1, 0.3)
    """
    released = rule is not Aggregation.SUM if change.released is None else change.released
    released_before = released if change.released_before is None else change.released_before
    before = max_cost if change.before is None else max(change.before, 0.0 if released_before else max_cost)
    return before, max(change.after, 0.0 if released else max_cost)


def _rule(signal: Signal, rules: OutcomeRules) -> Aggregation:
    if signal is Signal.QUALITY:
        return rules.quality
    if signal is Signal.COST:
        return rules.cost
    if signal is Signal.LATENCY:
        return rules.latency
    return Aggregation.LAST
