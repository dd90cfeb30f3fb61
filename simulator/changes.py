"""Changes of the world during a replay: prices, quality, outages, new models, lost feedback; and what each round holds.

A schedule is a tuple of changes. Each holds from round ``start`` (counted from 0) to before round ``end``, or for good if that
is ``None``; then the world is as it was. ``unfold`` makes of a table, an order of its rows and a schedule what every model
would have answered in every round. It reads no random number but those that its seed gives, so that all policies meet the
same world.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bandit.catalog import QualityRange
from simulator.table import OutcomeTable
from simulator.utility import SettingError

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

_LOST = 2
"""Which of a seed's random streams says what feedback is lost (``simulator.replay`` has the others)."""
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class PriceFactor:
    """Calls of ``model`` cost ``factor`` > 0 times as much. ``announced``: who keeps list prices is told the new ones."""

    model: str
    factor: float
    start: int = 0
    end: int | None = None
    announced: bool = True


@dataclass(frozen=True, slots=True)
class QualityLevel:
    """The mean quality of ``model`` is ``level`` (the table's units): all its answers shift alike, clipped to the range.

    Nobody is told, and its costs stay.
    """

    model: str
    level: float
    start: int = 0
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Outage:
    """Every call of ``model`` fails: it is worth the least quality, of which nothing is reported, and costs nothing."""

    model: str
    start: int = 0
    end: int | None = None


@dataclass(frozen=True, slots=True)
class ModelAdded:
    """``model``, a column of the table, is in the catalogue only from round ``start`` on."""

    model: str
    start: int = 0


@dataclass(frozen=True, slots=True)
class FeedbackLost:
    """The quality of a ``share`` of the answers, 0 to 1, is never reported; cost is, if there is one."""

    share: float
    start: int = 0
    end: int | None = None


Change = PriceFactor | QualityLevel | Outage | ModelAdded | FeedbackLost
Schedule = tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Priced:
    """Policies are told that the list prices of ``model`` are now ``factor`` times the original ones."""

    model: str
    factor: float


@dataclass(frozen=True, slots=True)
class Added:
    """Policies are told that they may now choose ``model``."""

    model: str


Notice = Priced | Added


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call came to: ``quality`` in the table's units, cost in dollars, latency in seconds; NaN where unknown.

    ``quality`` is what it was worth; ``judged`` says whether that is reported. A call that failed has ``success`` False.
    """

    quality: float
    cost: float
    latency: float
    output_tokens: float
    success: bool = True
    judged: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Rounds:
    """What every model would have answered in every round, (t, k); fields as in ``Outcome``.

    ``row_t`` are rows of the table, ``there_tk`` says which models are in the catalogue, ``notices`` what policies are told
    before a round.
    """

    row_t: Indices
    quality_tk: Array
    cost_tk: Array
    latency_tk: Array
    output_tokens_tk: Array
    success_tk: Flags
    judged_t: Flags
    there_tk: Flags
    notices: Mapping[int, tuple[Notice, ...]]

    def __len__(self) -> int:
        """The number of rounds."""
        return len(self.row_t)

    def outcome(self, t: int, model: int) -> Outcome:
        """The outcome of calling model number ``model`` in round ``t``."""
        success = bool(self.success_tk[t, model])
        return Outcome(
            quality=float(self.quality_tk[t, model]),
            cost=float(self.cost_tk[t, model]),
            latency=float(self.latency_tk[t, model]),
            output_tokens=float(self.output_tokens_tk[t, model]),
            success=success,
            judged=success and bool(self.judged_t[t]),
        )


def joins_later(schedule: Schedule) -> frozenset[str]:
    """The models that are not in the catalogue at first."""
    return frozenset(change.model for change in schedule if isinstance(change, ModelAdded) and change.start > 0)


def has_outage(schedule: Schedule) -> bool:
    """Whether calls may fail: then their success is worth reporting."""
    return any(isinstance(change, Outage) for change in schedule)


def check_schedule(models: Sequence[str], quality: QualityRange, schedule: Schedule) -> None:
    """Raise ``SettingError``, naming the change and the field, for one that makes no sense with these models."""
    joined = set()
    for i, change in enumerate(schedule):
        what = f"schedule[{i}] ({type(change).__name__})"
        if change.start < 0:
            raise SettingError(f"{what}.start: expected a round from 0 on, got {change.start}")
        if not isinstance(change, ModelAdded) and change.end is not None and change.end <= change.start:
            raise SettingError(f"{what}.end: expected a round after start {change.start}, got {change.end}")
        if isinstance(change, FeedbackLost):
            if not 0.0 <= change.share <= 1.0:
                raise SettingError(f"{what}.share: expected 0 to 1, got {change.share:g}")
            continue
        if change.model not in models:
            raise SettingError(f"{what}.model: expected one of {', '.join(models)}, got {change.model!r}")
        if isinstance(change, PriceFactor) and not (math.isfinite(change.factor) and change.factor > 0.0):
            raise SettingError(f"{what}.factor: expected a finite number above 0, got {change.factor:g}")
        if isinstance(change, QualityLevel) and not quality.min <= change.level <= quality.max:
            raise SettingError(f"{what}.level: expected {quality.min:g} to {quality.max:g}, got {change.level:g}")
        if isinstance(change, ModelAdded):
            if change.model in joined:
                raise SettingError(f"{what}.model: {change.model!r} is added twice")
            joined.add(change.model)
    if len(joins_later(schedule)) == len(models):
        raise SettingError("schedule: expected at least one model that is there from the start")


def unfold(
    table: OutcomeTable,
    order: Sequence[int],
    schedule: Schedule = (),
    quality: QualityRange | None = None,
    seed: int = 0,
) -> Rounds:
    """The rounds of ``table`` when its rows come in ``order`` (which may repeat some) under ``schedule``.

    Changes of the same thing add up in the order in which they are given. Raises ``SettingError``.
    """
    quality = QualityRange() if quality is None else quality
    check_schedule(table.models, quality, schedule)
    row_t = np.asarray(order, dtype=np.intp)
    rounds, k = len(row_t), len(table.models)
    made = Rounds(
        row_t=row_t,
        quality_tk=table.quality_nk[row_t],
        cost_tk=table.cost_nk[row_t],
        latency_tk=table.latency_nk[row_t],
        output_tokens_tk=table.output_tokens_nk[row_t],
        success_tk=np.ones((rounds, k), dtype=np.bool_),
        judged_t=np.ones(rounds, dtype=np.bool_),
        there_tk=np.ones((rounds, k), dtype=np.bool_),
        notices={},
    )
    told_tk = np.ones((rounds, k))
    notices: dict[int, tuple[Notice, ...]] = {}
    lost_t = np.random.default_rng([seed, _LOST]).random(rounds)
    for change in schedule:
        when = slice(change.start, None if isinstance(change, ModelAdded) else change.end)
        if isinstance(change, FeedbackLost):
            made.judged_t[when] &= lost_t[when] >= change.share
            continue
        model = table.models.index(change.model)
        match change:
            case PriceFactor():
                made.cost_tk[when, model] *= change.factor
                if change.announced:
                    told_tk[when, model] *= change.factor
            case QualityLevel():
                shift = shift_to(table.quality_nk[:, model], change.level, quality)
                made.quality_tk[when, model] = np.clip(made.quality_tk[when, model] + shift, quality.min, quality.max)
            case Outage():
                made.success_tk[when, model] = False
            case ModelAdded():
                made.there_tk[: change.start, model] = False
                if 0 < change.start < rounds:
                    notices[change.start] = (*notices.get(change.start, ()), Added(change.model))
    failed_tk = ~made.success_tk
    made.quality_tk[failed_tk] = quality.min
    made.cost_tk[failed_tk] = np.where(np.isnan(made.cost_tk[failed_tk]), np.nan, 0.0)
    made.latency_tk[failed_tk] = np.nan
    made.output_tokens_tk[failed_tk] = np.nan
    before_tk = np.vstack([np.ones((1, k)), told_tk[:-1]])
    for t, model in np.argwhere(told_tk != before_tk).tolist():
        notices[t] = (*notices.get(t, ()), Priced(table.models[model], float(told_tk[t, model])))
    return replace(made, notices=notices)


def shift_to(quality_n: Array, level: float, quality: QualityRange) -> float:
    """What to add to every quality, clipping to the range, so that the mean is ``level``."""
    low, high = quality.min - float(quality_n.max()), quality.max - float(quality_n.min())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        below = float(np.clip(quality_n + middle, quality.min, quality.max).mean()) < level
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2.0
