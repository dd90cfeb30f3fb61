"""Changes of the world during a replay: prices, quality, latency, outages, new models, feedback lost or late.

A schedule is a tuple of changes. Each holds from round ``start`` (counted from 0) to before round ``end``, or for good if that
is ``None``; then the world is as it was.

>>> check_schedule(["small", "large"], QualityRange(), (Outage("large", start=100, end=50),))
Traceback (most recent call last):
    ...
pointsman.simulator.data.errors.SettingError: schedule[0] (Outage).end: expected a round after start 100, got 50
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pointsman.bandit.catalog import QualityRange
from pointsman.simulator.data.errors import SettingError


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
class QualityDrift:
    """The quality of ``model`` shifts little by little, from nothing at ``start`` to ``by`` (the table's units, either sign) at
    ``end``, and stays there; clipped to the range.
    """

    model: str
    by: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class LatencyFactor:
    """Calls of ``model`` take ``factor`` > 0 times as long."""

    model: str
    factor: float
    start: int = 0
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Outage:
    """A ``share`` of the calls of ``model``, by default all, fail: they are worth the least quality, of which nothing is
    reported, and cost nothing.
    """

    model: str
    start: int = 0
    end: int | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class ModelAdded:
    """``model``, a column of the table, is in the catalogue only from round ``start`` on."""

    model: str
    start: int = 0


@dataclass(frozen=True, slots=True)
class FeedbackLost:
    """The quality of a ``share`` of the answers (of ``model``, or of all), 0 to 1, is never reported; cost is, if known."""

    share: float
    start: int = 0
    end: int | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class FeedbackLate:
    """Outcomes are learned some rounds later, ``rounds`` > 0 on average: geometric, so that they overtake each other."""

    rounds: float
    start: int = 0
    end: int | None = None


WorldChange = (
    PriceFactor | QualityLevel | QualityDrift | LatencyFactor | Outage | ModelAdded | FeedbackLost | FeedbackLate
)
Schedule = tuple[WorldChange, ...]


def models_added_later(schedule: Schedule) -> frozenset[str]:
    """The models that are not in the catalogue at first."""
    return frozenset(change.model for change in schedule if isinstance(change, ModelAdded) and change.start > 0)


def has_outage(schedule: Schedule) -> bool:
    """Whether calls may fail: then their success is worth reporting."""
    return any(isinstance(change, Outage) for change in schedule)


def check_schedule(models: Sequence[str], quality: QualityRange, schedule: Schedule) -> None:
    """Raise ``SettingError``, naming the change and the field, for one that makes no sense with these models."""
    joined = set()
    for i, change in enumerate(schedule):
        path = f"schedule[{i}] ({type(change).__name__})"
        if change.start < 0:
            raise SettingError(f"{path}.start: expected a round from 0 on, got {change.start}")
        if not isinstance(change, ModelAdded) and change.end is not None and change.end <= change.start:
            raise SettingError(f"{path}.end: expected a round after start {change.start}, got {change.end}")
        model = None if isinstance(change, FeedbackLate) else change.model
        if model is not None and model not in models:
            raise SettingError(f"{path}.model: expected one of {', '.join(models)}, got {model!r}")
        if isinstance(change, FeedbackLost | Outage) and not 0.0 <= change.share <= 1.0:
            raise SettingError(f"{path}.share: expected 0 to 1, got {change.share:g}")
        if isinstance(change, FeedbackLate) and not (math.isfinite(change.rounds) and change.rounds > 0.0):
            raise SettingError(f"{path}.rounds: expected a finite number above 0, got {change.rounds:g}")
        if isinstance(change, PriceFactor | LatencyFactor) and not (
            math.isfinite(change.factor) and change.factor > 0.0
        ):
            raise SettingError(f"{path}.factor: expected a finite number above 0, got {change.factor:g}")
        if isinstance(change, QualityLevel) and not quality.min <= change.level <= quality.max:
            raise SettingError(f"{path}.level: expected {quality.min:g} to {quality.max:g}, got {change.level:g}")
        if isinstance(change, QualityDrift) and not abs(change.by) <= quality.width:
            raise SettingError(f"{path}.by: expected {-quality.width:g} to {quality.width:g}, got {change.by:g}")
        if isinstance(change, ModelAdded):
            if change.model in joined:
                raise SettingError(f"{path}.model: {change.model!r} is added twice")
            joined.add(change.model)
    if len(models_added_later(schedule)) == len(models):
        raise SettingError("schedule: expected at least one model that is there from the start")
