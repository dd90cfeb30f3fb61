"""The signals that are evaluated: those of the log or sums of them, each with the range that its values can have.

Bounds need a range that was known beforehand. Quality has its bucket's scale and success is 0 or 1; where nothing says how large
a signal can be, the largest value seen stands in, unless the caller gives a cap.

>>> log = Log(
...     name="two decisions", models=("small",), groups=("all",), chosen_n=np.zeros(2, dtype=np.intp), propensity_n=np.ones(2),
...     logged_nk=None, eligible_nk=np.ones((2, 1), dtype=np.bool_), x_nd=np.zeros((2, 0)), group_n=np.zeros(2, dtype=np.intp),
...     time_ns_n=np.arange(2), signals={"quality": np.array([0.5, np.nan]), "cost": np.array([0.01, 0.03])},
... )
>>> for name, signal in select_signals(log, [], {}, {}).items():
...     print(name, signal.low, signal.high, signal.high_is_observed)
quality 0.0 1.0 False
cost 0.0 0.03 True
"""

from __future__ import annotations

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

    ``high_is_observed``: nothing says how large it can be, so ``high`` is made of the largest values that were seen.
    """

    value_n: Array
    low: float
    high: float
    high_is_observed: bool


def select_signals(
    log: Log, wanted: Sequence[str], sums: Mapping[str, LinearCombination], caps: Mapping[str, float]
) -> dict[str, SignalValues]:
    """The signals of ``log`` to be evaluated: ``wanted`` by name (all that matter by default), and ``sums`` of signals by theirs.

    ``caps`` are the largest values that a signal or sum can have.

    Raises:
        EvaluationError: the log has no such signal, no outcome at all, no round with all that a sum needs, or values over a cap.
    """
    reported = {n: value_n for n, value_n in log.signals.items() if not np.isnan(value_n).all()}
    _check_names(reported, wanted, sums, caps)
    signals = {name: _with_range(log, name, value_n) for name, value_n in reported.items()}
    signals = {name: _capped(signal, caps.get(name)) for name, signal in signals.items()}
    combined = {name: _capped(_combined(terms, signals), caps.get(name)) for name, terms in sums.items()}
    for name, signal in (signals | combined).items():
        if not signal.high > signal.low:
            raise EvaluationError(f"--cap {name}: expected above {signal.low:g}, got {signal.high:g}")
    names = list(wanted) or _default_names(list(reported), log)
    selected = {name: signals[name] for name in names if name in signals} | combined
    for name, signal in selected.items():
        if np.isnan(signal.value_n).all():
            raise EvaluationError(f"{name}: expected a round in which all that it is made of was reported, found none")
    for name, cap in caps.items():
        largest = float(np.nanmax((signals | selected)[name].value_n))
        if largest > cap:
            raise EvaluationError(f"--cap {name}: expected at least {largest:g}, the largest seen, got {cap:g}")
    if not selected:
        raise EvaluationError(f"{log.name}: no outcome was reported of any decision")
    return selected


def _check_names(
    reported: Mapping[str, Array],
    wanted: Sequence[str],
    sums: Mapping[str, LinearCombination],
    caps: Mapping[str, float],
) -> None:
    available = ", ".join(sorted(reported))
    terms = [term.signal for combination in sums.values() for term in combination.factors]
    for name in (*(name for name in wanted if name not in sums), *terms):
        if name not in reported:
            raise EvaluationError(f"{name}: expected a signal that the log has: {available or 'it has none'}")
    unknown = sorted(set(caps) - set(reported) - set(sums))
    if unknown:
        raise EvaluationError(f"--cap {unknown[0]}: expected a signal that the log has: {available}")


def _default_names(reported: Sequence[str], log: Log) -> list[str]:
    """What every service reports, then what else a log that is not ours has."""
    others = [] if log.is_journal else [name for name in reported if name not in DEFAULT_SIGNALS]
    return [*(name for name in DEFAULT_SIGNALS if name in reported), *others]


def _with_range(log: Log, name: str, value_n: Array) -> SignalValues:
    """Quality by its buckets' scales, success and the like 0 to 1, others from 0 to the largest value seen."""
    smallest, largest = float(np.nanmin(value_n)), float(np.nanmax(value_n))
    if name == "quality" and log.decisions is not None:
        scales = [decision.quality for decision in log.decisions]
        return SignalValues(value_n, min(s.min for s in scales), max(s.max for s in scales), high_is_observed=False)
    if smallest >= 0.0 and largest <= 1.0 and name not in ("cost", "latency"):
        return SignalValues(value_n, 0.0, 1.0, high_is_observed=False)
    low = min(0.0, smallest)
    return SignalValues(value_n, low, largest if largest > low else low + 1.0, high_is_observed=True)


def _capped(signal: SignalValues, cap: float | None) -> SignalValues:
    return signal if cap is None else replace(signal, high=cap, high_is_observed=False)


def _combined(terms: LinearCombination, signals: Mapping[str, SignalValues]) -> SignalValues:
    """A sum of signals, NaN where one of them was not reported, with the range that theirs give."""
    factors = {term.signal: factor for term, factor in terms.factors.items()}
    value_n = terms.constant + sum(factor * signals[name].value_n for name, factor in factors.items())
    ends = [(factor * signals[name].low, factor * signals[name].high) for name, factor in factors.items()]
    return SignalValues(
        np.asarray(value_n),
        terms.constant + sum(map(min, ends)),
        terms.constant + sum(map(max, ends)),
        any(signals[name].high_is_observed for name in factors),
    )
