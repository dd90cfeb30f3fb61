"""Logged bandit data as one immutable value, whatever file it came from.

>>> log = Log(
...     name="two decisions",
...     models=("small", "large"),
...     groups=("chat",),
...     chosen_n=np.array([0, 1]),
...     propensity_n=np.array([0.8, 0.2]),
...     logged_nk=np.array([[0.8, 0.2], [0.8, 0.2]]),
...     eligible_nk=np.ones((2, 2), dtype=np.bool_),
...     signals={"quality": np.array([0.7, np.nan])},
...     x_nd=np.zeros((2, 0)),
...     group_n=np.zeros(2, dtype=np.intp),
...     time_ns_n=np.array([0, 1]),
... )
>>> len(log), log.is_journal
(2, False)
>>> part(log, 1, 2).propensity_n.tolist()
[0.2]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pointsman.bandit.catalog import Objective, QualityRange
from pointsman.bandit.policy import PartialModels
from pointsman.bandit.predictions import Predictions

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Ints = npt.NDArray[np.int64]


class LogError(ValueError):
    """A log cannot be read or is not acceptable. Says file, row and column."""


@dataclass(frozen=True, slots=True, eq=False)
class LoggedDecision:
    """What one decision of our own service was made with, over its own candidates ``models`` (k).

    The fields are those of ``bandit.event.DecisionMade`` that its distribution depends on; ``quality`` is the bucket's scale of
    quality at that time.
    """

    models: tuple[str, ...]
    chosen: int
    quality: QualityRange
    objective: Objective
    predicted: Predictions
    exclusions_k: Ints
    multiplier: float
    exploration_floor: float
    newcomers: tuple[int, ...]
    quota: float
    limits_violated: bool
    by_price: bool = False
    quotas: tuple[float, ...] = ()

    @property
    def partial(self) -> PartialModels:
        """Which candidates took full part only in a share of the draws."""
        return PartialModels(self.newcomers, self.quotas, self.quota)


@dataclass(frozen=True, slots=True, eq=False)
class Log:
    """n decisions of a logging policy, oldest first, over k models, with their outcomes. Arrays are read-only.

    ``chosen_n`` numbers ``models``; ``propensity_n`` in (0, 1] is the probability with which the logging policy chose it, given
    all that came before; ``logged_nk`` its whole distribution (rows sum to 1, 0 where not eligible), ``None`` if the log does
    not say. ``eligible_nk`` says which models could be chosen at all, by limits, capabilities and availability: one that could be
    and had propensity 0 was left out by the policy. ``signals`` are the outcomes of the chosen model by name (``quality``,
    ``cost`` in dollars, ``latency`` in seconds, ``success``, or the source's own, such as ``click``), each (n) with NaN where it
    was not reported. ``x_nd`` are the features the policy saw (d may be 0). ``group_n`` numbers ``groups``: buckets, or the
    positions of a page; decisions of different groups are different problems. ``time_ns_n`` never falls. ``decisions`` (n) are
    there if the log is a journal of our own service: then other settings of it can be evaluated.

    ``ranges`` are the least and the largest value that a signal can have, as far as the source says so (an end is infinite where
    it does not): never what was seen. ``has_ids``: each decision has an id in the source, and none is there twice. ``is_dated``:
    times are the source's; without, they number the rows.
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
    decisions: tuple[LoggedDecision, ...] | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    has_ids: bool = False
    is_dated: bool = True

    def __len__(self) -> int:
        """The number of decisions, n."""
        return len(self.chosen_n)

    @property
    def is_journal(self) -> bool:
        """Whether it says what each decision was made with."""
        return self.decisions is not None


def part(log: Log, first: int, last: int) -> Log:
    """The decisions ``first`` <= number < ``last`` of ``log``."""
    return _rows(log, slice(first, last))


def where(log: Log, is_kept_n: Flags) -> Log:
    """The decisions of ``log`` for which ``is_kept_n`` is true, in their order."""
    return _rows(log, np.flatnonzero(is_kept_n))


def _rows(log: Log, rows: slice | Indices) -> Log:
    return replace(
        log,
        chosen_n=log.chosen_n[rows],
        propensity_n=log.propensity_n[rows],
        logged_nk=None if log.logged_nk is None else log.logged_nk[rows],
        eligible_nk=log.eligible_nk[rows],
        signals={name: value_n[rows] for name, value_n in log.signals.items()},
        x_nd=log.x_nd[rows],
        group_n=log.group_n[rows],
        time_ns_n=log.time_ns_n[rows],
        decisions=None if log.decisions is None else _decisions(log.decisions, rows),
    )


def _decisions(decisions: tuple[LoggedDecision, ...], rows: slice | Indices) -> tuple[LoggedDecision, ...]:
    return decisions[rows] if isinstance(rows, slice) else tuple(decisions[row] for row in rows.tolist())


def concatenate(logs: Sequence[Log]) -> Log:
    """Pieces of one log, which have the same models, groups and signals, in their order, as one."""
    distributions = [log.logged_nk for log in logs if log.logged_nk is not None]
    decisions = [log.decisions for log in logs if log.decisions is not None]
    return replace(
        logs[0],
        chosen_n=np.concatenate([log.chosen_n for log in logs]),
        propensity_n=np.concatenate([log.propensity_n for log in logs]),
        logged_nk=np.concatenate(distributions) if len(distributions) == len(logs) else None,
        eligible_nk=np.concatenate([log.eligible_nk for log in logs]),
        signals={name: np.concatenate([log.signals[name] for log in logs]) for name in logs[0].signals},
        x_nd=np.concatenate([log.x_nd for log in logs]),
        group_n=np.concatenate([log.group_n for log in logs]),
        time_ns_n=np.concatenate([log.time_ns_n for log in logs]),
        decisions=tuple(d for piece in decisions for d in piece) if len(decisions) == len(logs) else None,
    )
