"""List prices against what is paid: a ratio for each model of a bucket, which corrects costs made from list prices.

List prices go out of date (a silent cut), are in the wrong unit, know no discount by contract and no cached tokens. So for each
call whose cost and tokens are known, what was paid and what its tokens cost by list are summed, and costs made from list prices
are multiplied by

    ratio = max((paid / list)^(n / (n + 1)), (1 + n)^(-3/2))

after n calls: a factor of a thousand is half learned, in logarithms, after one call, while a few calls that cost nothing (a
cache) do not make a model look free. Where the ratio changes, two one-sided CUSUMs (Page 1954) of log(paid / expected),
clipped, raise an alarm, after which what was summed before counts as one call. An announced price acts at once: the ratio is
kept, as a discount would be, but as ``TRIAL`` calls; unless the announcement only says what is paid already, after which the
ratio starts anew.

What hard budgets reserve is corrected upwards only, by paid / list as it is.

>>> row_7 = no_calls(models=1)[0]
>>> for _ in range(30):  # the price was halved, and nobody said so
...     count_paid(row_7, paid=0.005, listed=0.010)
>>> price_ratios(row_7[None]).round(2).tolist(), reserve_ratios(row_7[None]).tolist()
([0.51], [1.0])
>>> announce(row_7, Prices(10.0, 20.0), Prices(5.0, 10.0))  # now somebody did
>>> price_ratios(row_7[None]).tolist()
[1.0]
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from pointsman.bandit.catalog import Prices
from pointsman.bandit.outcome import ReportedOutcome, Signal, SignalChange
from pointsman.bandit.packed import Array

PAID, LISTED, CALLS, UP, DOWN, EXCESS, RESERVE = range(7)
"""Columns of a bucket's ``paid_k7``: sums of dollars paid and by list, how many calls, the sums of the detector; and, derived, by
how much the ratios for expected and for largest costs exceed 1.
"""
UNIT = 0.25
"""Deviation of log(paid / expected) that the detector counts as one."""
ALLOWANCE, THRESHOLD = 0.5, 12.0
"""Half of the shift that the detector is tuned to find, and its threshold, in such units: a cut by a fifth is found in 30 calls,
one by half in 5."""
LARGEST = 3.0
"""Largest deviation in such units."""
WATCH_FROM = 8
"""Calls after which the detector starts."""
AFTER_ALARM = 1.0
"""Calls that what was summed before an alarm counts as."""
TRIAL = 4.0
"""Calls that it counts as after an announcement of other prices."""


def count_paid(row_7: Array, paid: float, listed: float) -> None:
    """Count, in place, a call of one model that cost ``paid`` dollars, ``listed`` by list."""
    if listed <= 0.0:
        return
    if row_7[CALLS] >= WATCH_FROM:
        expected = float(row_7[PAID] / row_7[LISTED]) * listed
        deviation = math.log(max(paid, 1e-12) / max(expected, 1e-12)) / UNIT
        deviation = min(LARGEST, max(-LARGEST, deviation))
        row_7[UP] = max(0.0, row_7[UP] + deviation - ALLOWANCE)
        row_7[DOWN] = max(0.0, row_7[DOWN] - deviation - ALLOWANCE)
        if row_7[UP] > THRESHOLD or row_7[DOWN] > THRESHOLD:
            _cap(row_7, AFTER_ALARM)
    row_7[:UP] += paid, listed, 1.0
    _derive(row_7)


def take_back(row_7: Array, paid: float, listed: float) -> None:
    """Take back, in place, a call that was counted: exact but for what the detector made of it."""
    if listed > 0.0:
        row_7[:UP] = np.maximum(row_7[:UP] - (paid, listed, 1.0), 0.0)
        if row_7[CALLS] < 0.5:
            row_7[:] = 0.0
        _derive(row_7)


def paid_and_listed(values: Mapping[Signal, float], prices: Prices, input_tokens: int) -> tuple[float, float] | None:
    """What a call cost and what its tokens cost by list, in dollars; ``None`` if it failed or one of the two is not known.

    ``values`` are its signals, ``input_tokens`` those of the request (-1 if unknown), for which reported ones take precedence.
    """
    paid = values.get(Signal.COST)
    if paid is None or values.get(Signal.SUCCESS) == 0.0:
        return None
    sent = values.get(Signal.INPUT_TOKENS, float(input_tokens) if input_tokens >= 0 else None)
    answered = values.get(Signal.OUTPUT_TOKENS)
    if (sent is None and prices.input_per_million) or (answered is None and prices.output_per_million):
        return None
    listed = prices.input_per_million * (sent or 0.0) + prices.output_per_million * (answered or 0.0)
    return paid, listed / 1e6 + prices.per_request


def learn_paid(
    row_7: Array, prices: Prices, input_tokens: int, changes: tuple[SignalChange, ...], reported: ReportedOutcome
) -> None:
    """Count, in place, what ``changes`` make of a call of which ``reported`` is all that is known after them."""
    after = {signal: aggregate.value for signal, aggregate in reported.aggregates.items()}
    before = dict(after)
    for change in changes:
        if change.before is None:
            before.pop(change.signal, None)
        else:
            before[change.signal] = change.before
    old, new = (paid_and_listed(values, prices, input_tokens) for values in (before, after))
    if old == new:
        return
    if old is not None:
        take_back(row_7, *old)
    if new is not None:
        count_paid(row_7, *new)


def announce(row_7: Array, old: Prices | None, new: Prices | None) -> None:
    """Note, in place, that a model's list prices were changed."""
    factor = _factor(old, new)
    if factor is None or row_7[LISTED] <= 0.0 or row_7[PAID] <= 0.0:
        row_7[:] = 0.0
        return
    log_ratio = math.log(row_7[PAID] / row_7[LISTED])
    if abs(log_ratio - math.log(factor)) < 0.5 * abs(log_ratio):
        row_7[:] = 0.0  # it says what is paid already
        return
    _cap(row_7, TRIAL)
    _derive(row_7)


def no_calls(models: int) -> Array:
    """``paid_k7`` of models of which nothing was counted."""
    return np.zeros((models, RESERVE + 1))


def price_ratios(paid_k7: Array) -> Array:
    """By what costs from list prices are multiplied, (k); 1 where nothing was counted."""
    return 1.0 + paid_k7[:, EXCESS]


def reserve_ratios(paid_k7: Array) -> Array:
    """By what the largest costs of calls are multiplied, (k): at least 1."""
    return 1.0 + paid_k7[:, RESERVE]


def _derive(row_7: Array) -> None:
    """Make both ratios follow the sums, in place."""
    paid, listed, calls = row_7[:UP].tolist()
    if calls <= 0.0 or listed <= 0.0:
        row_7[EXCESS:] = 0.0
        return
    raw = paid / listed
    row_7[EXCESS] = max(raw ** (calls / (calls + 1.0)), (1.0 + calls) ** -1.5) - 1.0
    row_7[RESERVE] = max(raw, 1.0) - 1.0


def _cap(row_7: Array, calls: float) -> None:
    """Let what was summed count as ``calls`` calls at most, in place, and start the detector again."""
    if row_7[CALLS] > calls:
        row_7[:UP] *= calls / row_7[CALLS]
    row_7[UP:EXCESS] = 0.0


def _factor(old: Prices | None, new: Prices | None) -> float | None:
    """By what prices were multiplied: the geometric mean over those that were not 0; ``None`` where that says nothing."""
    if old is None or new is None:
        return None
    pairs = (
        (old.input_per_million, new.input_per_million),
        (old.output_per_million, new.output_per_million),
        (old.per_request, new.per_request),
    )
    logs = [math.log(after / before) for before, after in pairs if before > 0.0 and after > 0.0]
    return math.exp(sum(logs) / len(logs)) if logs else None
