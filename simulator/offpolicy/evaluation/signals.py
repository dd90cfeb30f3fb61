"""The signals that are evaluated: those of the log or sums of them, each with the range that its values can have.

Bounds need a range that was known beforehand: what was seen says nothing of a value that is rare and far away. A journal knows
its buckets' scales of quality; success is 0 to 1, and costs and latencies are not negative; the rest the caller has to state.
Until then the values seen stand in, for estimates and pictures, and the range is marked as seen: nothing is proven with it.

>>> log = Log(
...     name="two decisions", models=("small",), groups=("all",), chosen_n=np.zeros(2, dtype=np.intp), propensity_n=np.ones(2),
...     logged_nk=None, eligible_nk=np.ones((2, 1), dtype=np.bool_), x_nd=np.zeros((2, 0)), group_n=np.zeros(2, dtype=np.intp),
...     time_ns_n=np.arange(2), signals={"quality": np.array([0.5, np.nan]), "cost": np.array([0.01, 0.03])},
...     ranges={"cost": (0.0, math.inf)},
... )
>>> for name, signal in select_signals(log, [], {}, {}).items():
...     print(name, signal.low, signal.high, signal.low_is_seen, signal.high_is_seen)
quality 0.0 1.0 True True
cost 0.0 0.03 False True
>>> select_signals(log, ["quality"], {}, {}, {"quality": (-1.0, 1.0)})["quality"].range_is_known
True
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pointsman.simulator.offpolicy.expression import LinearCombination
from pointsman.simulator.offpolicy.logs.log import Array, Log

DEFAULT_SIGNALS = ("quality", "cost", "latency", "success")
"""Signals of a journal that are evaluated if nothing else is asked for."""


class EvaluationError(ValueError):
    """The request cannot be evaluated on this log. The message names the signal or option, and what was expected."""


@dataclass(frozen=True, slots=True, eq=False)
class SignalValues:
    """A signal's values (n), NaN where not reported, in its own unit, and the range that it has.

    ``low_is_seen``, ``high_is_seen``: nothing says how small or large it can be, so that end is made of the values seen.
    """

    value_n: Array
    low: float
    high: float
    low_is_seen: bool
    high_is_seen: bool

    @property
    def range_is_known(self) -> bool:
        """Whether both ends were known beforehand."""
        return not (self.low_is_seen or self.high_is_seen)


def select_signals(
    log: Log,
    wanted: Sequence[str],
    sums: Mapping[str, LinearCombination],
    caps: Mapping[str, float],
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, SignalValues]:
    """The signals of ``log`` to be evaluated: ``wanted`` by name (all that matter by default), and ``sums`` of signals by theirs.

    ``ranges`` are the least and the largest values that a signal or sum can have, ``caps`` the largest alone.

    Raises:
        EvaluationError: the log has no such signal, no outcome at all, no round with all that a sum needs, or values outside
            what was stated.
    """
    ranges = ranges or {}
    reported = {n: value_n for n, value_n in log.signals.items() if not np.isnan(value_n).all()}
    _check_names(reported, wanted, sums, {"--cap": caps, "--range": ranges})
    signals = {name: _with_range(log, name, value_n) for name, value_n in reported.items()}
    signals = {name: _stated(signal, name, caps, ranges) for name, signal in signals.items()}
    combined = {name: _stated(_combined(terms, signals), name, caps, ranges) for name, terms in sums.items()}
    names = list(wanted) or _default_names(list(reported), log)
    selected = {name: signals[name] for name in names if name in signals} | combined
    for name, signal in selected.items():
        if np.isnan(signal.value_n).all():
            raise EvaluationError(f"{name}: expected a round in which all that it is made of was reported, found none")
    _check_values(signals | selected, caps, ranges)
    if not selected:
        raise EvaluationError(f"{log.name}: no outcome was reported of any decision")
    return selected


def _check_names(
    reported: Mapping[str, Array],
    wanted: Sequence[str],
    sums: Mapping[str, LinearCombination],
    stated: Mapping[str, Mapping[str, object]],
) -> None:
    available = ", ".join(sorted(reported))
    terms = [term.signal for combination in sums.values() for term in combination.factors]
    for name in (*(name for name in wanted if name not in sums), *terms):
        if name not in reported:
            raise EvaluationError(f"{name}: expected a signal that the log has: {available or 'it has none'}")
    for option, named in stated.items():
        unknown = sorted(set(named) - set(reported) - set(sums))
        if unknown:
            raise EvaluationError(f"{option} {unknown[0]}: expected a signal that the log has: {available}")


def _check_values(
    signals: Mapping[str, SignalValues], caps: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]
) -> None:
    """Raise ``EvaluationError`` for a value that was seen outside what was stated."""
    for name, signal in signals.items():
        smallest, largest = float(np.nanmin(signal.value_n)), float(np.nanmax(signal.value_n))
        if name in caps and largest > caps[name]:
            raise EvaluationError(f"--cap {name}: expected at least {largest:g}, the largest seen, got {caps[name]:g}")
        low, high = ranges.get(name, (-math.inf, math.inf))
        if smallest < low or largest > high:
            raise EvaluationError(
                f"--range {name}: expected to reach from {smallest:g} to {largest:g}, as was seen, got {low:g},{high:g}"
            )


def _default_names(reported: Sequence[str], log: Log) -> list[str]:
    """What every service reports, then what else a log that is not ours has."""
    others = [] if log.is_journal else [name for name in reported if name not in DEFAULT_SIGNALS]
    return [*(name for name in DEFAULT_SIGNALS if name in reported), *others]


def _with_range(log: Log, name: str, value_n: Array) -> SignalValues:
    """The range that the log knows. For an end that it does not know the values seen stand in, and 0 or 1 if they are near."""
    smallest, largest = float(np.nanmin(value_n)), float(np.nanmax(value_n))
    low, high = log.ranges.get(name, (-math.inf, math.inf))
    low_is_seen, high_is_seen = math.isinf(low), math.isinf(high)
    if low_is_seen:
        low = min(0.0, smallest)
    if high_is_seen:
        is_share = low == 0.0 and largest <= 1.0 and name not in ("cost", "latency")
        high = 1.0 if is_share else largest if largest > low else low + 1.0
    return SignalValues(value_n, low, high, low_is_seen, high_is_seen)


def _stated(
    signal: SignalValues, name: str, caps: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]
) -> SignalValues:
    """``signal`` with the range that the caller states, if it does."""
    option, stated = "--range", signal
    if name in ranges:
        low, high = ranges[name]
        stated = replace(signal, low=low, high=high, low_is_seen=False, high_is_seen=False)
    if name in caps:
        option, stated = "--cap", replace(stated, high=caps[name], high_is_seen=False)
    if not stated.high > stated.low:
        raise EvaluationError(f"{option} {name}: expected above {stated.low:g}, got {stated.high:g}")
    return stated


def _combined(terms: LinearCombination, signals: Mapping[str, SignalValues]) -> SignalValues:
    """A sum of signals, NaN where one of them was not reported, with the range that theirs give."""
    factors = {term.signal: factor for term, factor in terms.factors.items()}
    value_n = terms.constant + sum(factor * signals[name].value_n for name, factor in factors.items())
    ends = [(factor * signals[name].low, factor * signals[name].high) for name, factor in factors.items()]
    rising = [(signals[name], factor > 0.0) for name, factor in factors.items()]
    return SignalValues(
        np.asarray(value_n),
        terms.constant + sum(map(min, ends)),
        terms.constant + sum(map(max, ends)),
        low_is_seen=any(s.low_is_seen if is_rising else s.high_is_seen for s, is_rising in rising),
        high_is_seen=any(s.high_is_seen if is_rising else s.low_is_seen for s, is_rising in rising),
    )
