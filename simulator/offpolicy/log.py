"""Logged bandit data as one immutable value, whatever file it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
