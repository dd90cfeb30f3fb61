"""Demand forecast of a budget per period: how many decisions are still to come, from what the fold has counted so far.

Decisions are counted by the hour (UTC). Three forecasts run side by side: a flat one, one for the hour of the day and one for
the hour of the week, each times its own level: how many decisions came lately over how many it expected, both decayed, so that
a doubled demand is noticed within an eighth of the period or a few hours. They are averaged, and a forecast's weight falls with
its squared errors one hour ahead in the last days (inverse-error weights: Bates & Granger, "The combination of forecasts",
1969, made sharper). So a rhythm counts as soon as it has shown itself, and no longer when it has changed.

>>> hour = HOUR_NS
>>> demand, day = new_demand(), 24 * hour
>>> for number in range(3 * 24 * 10):  # three days: ten decisions an hour, none before noon
...     time_ns = number * hour // 10
...     if time_ns % day >= day // 2:
...         count(demand, time_ns, day)
>>> count(demand, 3 * day + 6 * hour, day)
>>> abs(remaining(demand, 3 * day + 6 * hour, 4 * day, day) - 120.0) < 12.0  # at six in the morning, all of noon's are to come
True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from pointsman.bandit.packed import Array

HOUR_NS = 3_600_000_000_000
"""Nanoseconds of an hour, in which demand is counted."""
DAY, WEEK = 24, 168
"""Hours of a day and of a week."""
FORECASTS = 3
"""The flat forecast, that by hour of the day, and that by hour of the week."""
FLAT_WEIGHT, DAY_WEIGHT, WEEK_WEIGHT = 1 / 24, 0.5, 0.3
"""Least weight of the newest hour in the three running means."""
LEVEL_HALF_LIFE = 6.0
"""Longest half-life of the level, in hours; an eighth of the period if that is shorter."""
LEVEL_PRIOR = 0.25
"""Demand, in mean demands of that half-life, that the level starts with as expected and come."""
FIRST_WAIT = 0.01
"""Share of that half-life that is taken to have passed before the first decision: two decisions at once are no rate."""
ERROR_HALF_LIFE = 24.0
"""Half-life of the squared errors, in hours."""
SHARPNESS = 4
"""Power of the inverse mean squared error that is a forecast's weight."""
FORGOTTEN = 4 * WEEK
"""Hours without a decision after which the past says nothing any more."""
LAST_NS, HOUR, IN_HOUR, HOURS = range(4)
"""Places of ``Demand.marks``: the last decision's time, the present hour's number since 1970 (-1: nothing was counted yet), the
decisions in it, and how many whole hours were counted (-1: not even the first, of which the start was missed, is over)."""
CAME, WAITED = range(2)
"""Places of ``Demand.recent``: decisions that came lately and the hours they took, both decayed."""


@dataclass(slots=True)
class Demand:
    """The counts; changed in place by the fold.

    ``rate_h`` are decisions an hour: 24 for the hours of the day, 168 for those of the week, then the flat mean; ``visits_h`` how
    often each of these was counted. ``expected_f`` is what each forecast expected lately, decayed as ``recent``;
    ``error_f`` its squared error, decayed; ``ahead_f`` its forecast for the present hour, made when that began.
    """

    marks: npt.NDArray[np.int64]
    recent: Array
    rate_h: Array
    visits_h: npt.NDArray[np.int64]
    expected_f: Array
    error_f: Array
    ahead_f: Array


def new_demand() -> Demand:
    """Nothing was counted yet."""
    return Demand(
        marks=np.array([0, -1, 0, -1], dtype=np.int64),
        recent=np.zeros(2),
        rate_h=np.zeros(DAY + WEEK + 1),
        visits_h=np.zeros(DAY + WEEK + 1, dtype=np.int64),
        expected_f=np.zeros(FORECASTS),
        error_f=np.zeros(FORECASTS),
        ahead_f=np.zeros(FORECASTS),
    )


def to_arrays(demand: Demand) -> dict[str, npt.NDArray[np.generic]]:
    """All arrays by name."""
    return {f"demand_{f.name}": getattr(demand, f.name) for f in fields(demand)}


def from_arrays(named: Mapping[str, npt.NDArray[Any]]) -> Demand:
    """The demand of ``to_arrays``."""
    return Demand(**{f.name: named[f"demand_{f.name}"] for f in fields(Demand)})


def count(demand: Demand, time_ns: int, period_ns: int) -> None:
    """Count a decision, in place. Times never go back. O(1), and O(hours) after a pause."""
    marks, hour = demand.marks, time_ns // HOUR_NS
    if marks[HOUR] < 0 or hour - marks[HOUR] > FORGOTTEN:
        _start(demand, time_ns)
    half_life = _half_life(period_ns)
    while marks[HOUR] < hour:
        _pass_time(demand, int(marks[HOUR] + 1) * HOUR_NS, half_life)
        _close_hour(demand, half_life)
    _pass_time(demand, time_ns, half_life)
    marks[IN_HOUR] += 1
    demand.recent[CAME] += 1.0


def remaining(demand: Demand, time_ns: int, end_ns: int, period_ns: int) -> float:
    """How many decisions are expected from ``time_ns``, which is that of the last decision, to ``end_ns``. Before a whole hour
    was counted it is the present rate that goes on.
    """
    if end_ns <= time_ns:
        return 0.0
    if demand.marks[HOURS] < 1:
        waited = float(demand.recent[WAITED]) + FIRST_WAIT * _half_life(period_ns)
        return float(demand.recent[CAME]) / waited * (end_ns - time_ns) / HOUR_NS
    first, last = time_ns // HOUR_NS, (end_ns - 1) // HOUR_NS
    share_h = np.ones(last - first + 1)  # of each hour, what is yet to come
    share_h[0] -= (time_ns - first * HOUR_NS) / HOUR_NS
    share_h[-1] -= ((last + 1) * HOUR_NS - end_ns) / HOUR_NS
    day_h, week_h = _profiles(demand)
    hour_h = np.arange(first, last + 1)
    expected_f = np.array(
        [
            demand.rate_h[-1] * share_h.sum(),
            (day_h[hour_h % DAY] * share_h).sum(),
            (week_h[hour_h % WEEK] * share_h).sum(),
        ]
    )
    return float((_weights(demand) * _levels(demand, _half_life(period_ns)) * expected_f).sum())


def _start(demand: Demand, time_ns: int) -> None:
    fresh = new_demand()
    for f in fields(demand):
        getattr(demand, f.name)[:] = getattr(fresh, f.name)
    demand.marks[LAST_NS], demand.marks[HOUR] = time_ns, time_ns // HOUR_NS


def _half_life(period_ns: int) -> float:
    """That of the level, in hours."""
    return min(period_ns / (8.0 * HOUR_NS), LEVEL_HALF_LIFE)


def _pass_time(demand: Demand, time_ns: int, half_life: float) -> None:
    """Decay what is recent up to ``time_ns``, which is in the present hour or its end, in place."""
    hours = (time_ns - int(demand.marks[LAST_NS])) / HOUR_NS
    kept = 0.5 ** (hours / half_life)
    passed = (1.0 - kept) * half_life / np.log(2.0)  # the integral of the decay
    demand.recent *= kept
    demand.recent[WAITED] += passed
    demand.expected_f *= kept
    if demand.marks[HOURS] > 0:
        demand.expected_f += _at(demand, int(demand.marks[HOUR])) * passed
    demand.marks[LAST_NS] = time_ns


def _close_hour(demand: Demand, half_life: float) -> None:
    """Learn the count of the present hour, unless it was the first, which was not counted whole, and begin the next, in place."""
    marks, hour, came = demand.marks, int(demand.marks[HOUR]), float(demand.marks[IN_HOUR])
    if marks[HOURS] >= 0:
        if marks[HOURS] > 0:
            demand.error_f *= 0.5 ** (1.0 / ERROR_HALF_LIFE)
            demand.error_f += (demand.ahead_f - came) ** 2
        for place, least in ((hour % DAY, DAY_WEIGHT), (DAY + hour % WEEK, WEEK_WEIGHT), (DAY + WEEK, FLAT_WEIGHT)):
            demand.visits_h[place] += 1
            demand.rate_h[place] += (came - demand.rate_h[place]) * max(1.0 / demand.visits_h[place], least)
    marks[HOURS] += 1
    marks[HOUR] += 1
    marks[IN_HOUR] = 0
    demand.ahead_f[:] = _levels(demand, half_life) * _at(demand, hour + 1)


def _at(demand: Demand, hour: int) -> Array:
    """Decisions in ``hour`` by the three forecasts, (f), before their levels; of an hour not yet counted, the coarser one's."""
    day, week = hour % DAY, DAY + hour % WEEK
    flat = demand.rate_h[-1]
    of_day = demand.rate_h[day] if demand.visits_h[day] else flat
    of_week = demand.rate_h[week] if demand.visits_h[week] else of_day
    return np.array([flat, of_day, of_week])


def _profiles(demand: Demand) -> tuple[Array, Array]:
    """``_at`` of every hour of the day and of the week."""
    day_h = np.where(demand.visits_h[:DAY] > 0, demand.rate_h[:DAY], demand.rate_h[-1])
    week_h = np.where(demand.visits_h[DAY:-1] > 0, demand.rate_h[DAY:-1], np.tile(day_h, 7))
    return day_h, week_h


def _levels(demand: Demand, half_life: float) -> Array:
    """Decisions that came lately over those that each forecast expected, (f)."""
    prior = LEVEL_PRIOR * half_life * float(demand.rate_h[-1]) + 1e-9
    level_f: Array = (prior + demand.recent[CAME]) / (prior + demand.expected_f)
    return level_f


def _weights(demand: Demand) -> Array:
    """Shares of the three forecasts, (f)."""
    weight_f = ((1.0 + demand.error_f.min()) / (1.0 + demand.error_f)) ** SHARPNESS
    return np.asarray(weight_f / weight_f.sum())
