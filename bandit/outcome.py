"""Outcomes in parts, late, repeated, corrected: what one more report changes in what is known of a decision.

Each signal of each model of a decision has a tally. A report adds to the tally, the bucket's rule makes one value of
it, and the difference to the value before is what the posteriors learn. So any number of reports, in any order that the
rules do not distinguish, end in the same place.
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
class Tally:
    """Everything reported of one signal: how many times, their sum, the last, and the value last learned from.

    ``faded`` is the posterior's clock of forgetting (``bandit.posterior.clock``) at the decision: with it an outcome counts as
    much as its decision's age says, whenever it arrives, and a correction as much as what is left of what it corrects.
    """

    count: int
    sum: float
    last: float
    value: float
    faded: float = 0.0


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything reported of one model for one decision, in how many reports."""

    tallies: Mapping[Signal, Tally] = field(default_factory=dict)
    reports: int = 0


UNTOLD = Ledger()
"""Nothing was reported."""


@dataclass(frozen=True, slots=True)
class Change:
    """One signal's value before (``None`` if there was none) and after a report; ``faded`` as in ``Tally``, ``None`` for the
    present clock.
    """

    signal: Signal
    before: float | None
    after: float
    faded: float | None = None


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is to be learned of one signal: its value before and after, ``None`` where it teaches nothing; ``faded`` as in
    ``Change``.
    """

    signal: Signal
    before: float | None
    after: float | None
    faded: float | None


def lessons(changes: Sequence[Change], ledger: Ledger) -> list[Lesson]:
    """What ``changes``, after which ``ledger`` is all that is known, teach.

    A failed call says nothing of what an answer costs, how long it takes and how long it is: only of quality, if that was
    reported. Whether a call failed may be said last, or be taken back: then what was learned is taken back, or learned after
    all, so that the end does not depend on the order of reports.
    """
    success = ledger.tallies.get(Signal.SUCCESS)
    fails = failed = success is not None and success.value == 0.0
    by_signal = {change.signal: change for change in changes}
    if Signal.SUCCESS in by_signal:
        failed = by_signal[Signal.SUCCESS].before == 0.0
    if not (fails or failed):
        return [Lesson(c.signal, c.before, c.after, c.faded) for c in changes]
    found = []
    for signal, tally in sorted(ledger.tallies.items()):
        change = by_signal.get(signal)
        before = tally.value if change is None else change.before
        after: float | None = tally.value
        if signal in OF_ANSWERS:
            before, after = None if failed else before, None if fails else after
        if before != after:
            found.append(Lesson(signal, before, after, tally.faded))
    return found


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
    ledger: Ledger,
    report: Mapping[Signal, float],
    rules: OutcomeRules,
    clock: Mapping[Signal, float] | None = None,
) -> tuple[Ledger, tuple[Change, ...]]:
    """The ledger after ``report``, and what changed. Signals whose value stays the same are not among the changes.

    ``clock`` gives the clock of forgetting at the decision for each signal (0 where it says nothing).
    """
    merged = dict(ledger.tallies)
    changes = []
    for signal in sorted(report):
        value = report[signal]
        old = merged.get(signal)
        count, total = (1, value) if old is None else (old.count + 1, old.sum + value)
        rule = _rule(signal, rules)
        now = value if rule is Aggregation.LAST else total if rule is Aggregation.SUM else total / count
        if not math.isfinite(now):
            raise FieldError(FIELDS[signal], "the sum of the reports is too large")
        faded = (clock or {}).get(signal, 0.0) if old is None else old.faded
        merged[signal] = Tally(count, total, value, now, faded)
        before = None if old is None else old.value
        if before != now:
            changes.append(Change(signal, before, now, faded))
    return Ledger(merged, ledger.reports + 1), tuple(changes)


def _rule(signal: Signal, rules: OutcomeRules) -> Aggregation:
    if signal is Signal.QUALITY:
        return rules.quality
    if signal is Signal.COST:
        return rules.cost
    if signal is Signal.LATENCY:
        return rules.latency
    return Aggregation.LAST
