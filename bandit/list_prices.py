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

>>> row_5 = np.zeros(5)
>>> for _ in range(30):  # the price was halved, and nobody said so
...     count_paid(row_5, paid=0.005, listed=0.010)
>>> price_ratios(row_5[None]).round(2).tolist(), reserve_ratios(row_5[None]).tolist()
([0.51], [1.0])
>>> announce(row_5, Prices(10.0, 20.0), Prices(5.0, 10.0))  # now somebody did
>>> price_ratios(row_5[None]).tolist()
[1.0]
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from pointsman.bandit.catalog import Prices
from pointsman.bandit.outcome import ReportedOutcome, Signal, SignalChange
from pointsman.bandit.packed import Array

PAID, LISTED, CALLS, UP, DOWN = range(5)
"""Columns of a bucket's ``paid_k5``: sums of dollars paid and by list, how many calls, and the sums of the detector."""
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


def count_paid(row_5: Array, paid: float, listed: float) -> None:
    """Count, in place, a call of one model that cost ``paid`` dollars, ``listed`` by list."""
    if listed <= 0.0:
        return
    if row_5[CALLS] >= WATCH_FROM:
        expected = float(row_5[PAID] / row_5[LISTED]) * listed
        deviation = math.log(max(paid, 1e-12) / max(expected, 1e-12)) / UNIT
        deviation = min(LARGEST, max(-LARGEST, deviation))
        row_5[UP] = max(0.0, row_5[UP] + deviation - ALLOWANCE)
        row_5[DOWN] = max(0.0, row_5[DOWN] - deviation - ALLOWANCE)
        if row_5[UP] > THRESHOLD or row_5[DOWN] > THRESHOLD:
            _cap(row_5, AFTER_ALARM)
    row_5[:UP] += paid, listed, 1.0


def take_back(row_5: Array, paid: float, listed: float) -> None:
    """Take back, in place, a call that was counted: exact but for what the detector made of it."""
    if listed > 0.0:
        row_5[:UP] = np.maximum(row_5[:UP] - (paid, listed, 1.0), 0.0)
        if row_5[CALLS] < 0.5:
            row_5[:] = 0.0


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
    row_5: Array, prices: Prices, input_tokens: int, changes: tuple[SignalChange, ...], reported: ReportedOutcome
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
        take_back(row_5, *old)
    if new is not None:
        count_paid(row_5, *new)


def announce(row_5: Array, old: Prices | None, new: Prices | None) -> None:
    """Note, in place, that a model's list prices were changed."""
    factor = _factor(old, new)
    if factor is None or row_5[LISTED] <= 0.0 or row_5[PAID] <= 0.0:
        row_5[:] = 0.0
        return
    log_ratio = math.log(row_5[PAID] / row_5[LISTED])
    if abs(log_ratio - math.log(factor)) < 0.5 * abs(log_ratio):
        row_5[:] = 0.0  # it says what is paid already
        return
    _cap(row_5, TRIAL)


def price_ratios(paid_k5: Array) -> Array:
    """By what costs from list prices are multiplied, (k); 1 where nothing was counted."""
    calls_k = paid_k5[:, CALLS]
    with np.errstate(divide="ignore", invalid="ignore"):
        raw_k = np.where(calls_k > 0.0, paid_k5[:, PAID] / paid_k5[:, LISTED], 1.0)
    return np.asarray(np.maximum(raw_k ** (calls_k / (calls_k + 1.0)), (1.0 + calls_k) ** -1.5))


def reserve_ratios(paid_k5: Array) -> Array:
    """By what the largest costs of calls are multiplied, (k): at least 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        raw_k = np.where(paid_k5[:, CALLS] > 0.0, paid_k5[:, PAID] / paid_k5[:, LISTED], 1.0)
    return np.maximum(raw_k, 1.0)


def _cap(row_5: Array, calls: float) -> None:
    """Let what was summed count as ``calls`` calls at most, in place, and start the detector again."""
    if row_5[CALLS] > calls:
        row_5[:UP] *= calls / row_5[CALLS]
    row_5[UP:] = 0.0


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
