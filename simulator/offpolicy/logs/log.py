"""Logged bandit data as one immutable value, whatever file it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Ints = npt.NDArray[np.int64]


class LogError(ValueError):
    """A log's content is not acceptable; says file, row and column."""


@dataclass(frozen=True, slots=True, eq=False)
class Log:
    """n decisions of a logging policy, oldest first, over k models, with what came of them. Arrays are read-only.

    ``chosen_n`` numbers ``models``; ``propensity_n`` in (0, 1] is the probability with which the logging policy chose it, given
    all that came before; ``logged_nk`` its whole distribution (rows sum to 1, 0 where not eligible), ``None`` if the log does
    not say. ``eligible_nk`` says which models could be chosen at all. ``signals`` are what came of the chosen model by name
    (``quality``, ``cost`` in dollars, ``latency`` in seconds, ``success``, or the source's own, such as ``click``), each (n)
    with NaN where it was not reported. ``x_nd`` are the features the policy saw (d may be 0). ``group_n`` numbers ``groups``:
    buckets, or the positions of a page; decisions of different groups are different problems. ``time_ns_n`` never falls.
    """

    name: str
    models: tuple[str, ...]
    groups: tuple[str, ...]
    chosen_n: Indices
    propensity_n: Array
    logged_nk: Array | None
    eligible_nk: Flags
    signals: Mapping[str, Array]
    x_nd: Array
    group_n: Indices
    time_ns_n: Ints

    def __len__(self) -> int:
        """The number of decisions, n."""
        return len(self.chosen_n)


def part(log: Log, first: int, last: int) -> Log:
    """Decisions number ``first`` to before ``last`` of ``log``."""
    here = slice(first, last)
    return replace(
        log,
        chosen_n=log.chosen_n[here],
        propensity_n=log.propensity_n[here],
        logged_nk=None if log.logged_nk is None else log.logged_nk[here],
        eligible_nk=log.eligible_nk[here],
        signals={name: value_n[here] for name, value_n in log.signals.items()},
        x_nd=log.x_nd[here],
        group_n=log.group_n[here],
        time_ns_n=log.time_ns_n[here],
    )


def joined(logs: Sequence[Log]) -> Log:
    """Pieces of one log, all with the same models, groups and signals, as one."""
    one = logs[0]
    whole = [log.logged_nk for log in logs if log.logged_nk is not None]
    return replace(
        one,
        chosen_n=np.concatenate([log.chosen_n for log in logs]),
        propensity_n=np.concatenate([log.propensity_n for log in logs]),
        logged_nk=np.concatenate(whole) if len(whole) == len(logs) else None,
        eligible_nk=np.concatenate([log.eligible_nk for log in logs]),
        signals={name: np.concatenate([log.signals[name] for log in logs]) for name in one.signals},
        x_nd=np.concatenate([log.x_nd for log in logs]),
        group_n=np.concatenate([log.group_n for log in logs]),
        time_ns_n=np.concatenate([log.time_ns_n for log in logs]),
    )
