"""Outcomes in parts, late, repeated, corrected: what one more report changes in what is known of a decision.

Each signal of each model of a decision has a tally. A report adds to the tally, the bucket's rule makes one value of
it, and the difference to the value before is what the posteriors learn. So any number of reports, in any order that the
rules do not distinguish, end in the same place.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from bandit.catalog import Aggregation, OutcomeRules, QualityRange, check_number
from bandit.errors import FieldError


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


@dataclass(frozen=True, slots=True)
class Change:
    """One signal's value before (``None`` if there was none) and after a report; ``faded`` as in ``Tally``, ``None`` for the
    present clock.
    """

    signal: Signal
    before: float | None
    after: float
    faded: float | None = None


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
