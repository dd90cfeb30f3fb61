"""A period's demand is forecast from what was counted, and its money is spread over what is still to come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.bandit.demand import HOUR_NS, Demand, count, from_arrays, new_demand, remaining, to_arrays

DAY_NS = 24 * HOUR_NS
Rate = Callable[[int], float]


def tenfold(hour: int) -> float:
    """Decisions an hour: ten times as many from eight to eight."""
    return 100.0 if 8 <= hour % 24 < 20 else 10.0


def counted(rate: Rate, hours: int, period_ns: int = DAY_NS) -> Demand:
    """Demand after so many hours of evenly spaced decisions."""
    demand = new_demand()
    for hour in range(hours):
        n = int(rate(hour))
        for i in range(n):
            count(demand, hour * HOUR_NS + i * HOUR_NS // n, period_ns)
    return demand


def truth(rate: Rate, start: int, end: int) -> float:
    return sum(rate(hour) for hour in range(start, end))


def forecast(demand: Demand, start: int, end: int, period_ns: int = DAY_NS) -> float:
    return remaining(demand, start * HOUR_NS, end * HOUR_NS, period_ns)


def weekend(hour: int) -> float:
    return tenfold(hour) * (0.3 if hour // 24 % 7 >= 5 else 1.0)


@pytest.mark.parametrize("rate", [lambda hour: 40.0, tenfold, weekend], ids=["flat", "tenfold", "weekend"])
@pytest.mark.parametrize("hour", [0, 7, 12, 19, 23])
def test_a_rhythm_that_was_there_for_two_weeks_is_forecast(rate: Rate, hour: int) -> None:
    now = 14 * 24 + hour
    assert forecast(counted(rate, now), now, 15 * 24) == pytest.approx(truth(rate, now, 15 * 24), rel=0.05)


def test_one_day_is_enough_for_the_rhythm_of_a_day() -> None:
    night = 48 + 4
    assert forecast(counted(tenfold, night), night, 72) == pytest.approx(truth(tenfold, night, 72), rel=0.1)


def test_the_weekend_is_known_from_the_third_week_on() -> None:
    friday_night = 14 * 24 + 5 * 24
    demand = counted(weekend, friday_night)
    assert forecast(demand, friday_night, friday_night + 24) == pytest.approx(
        truth(weekend, friday_night, friday_night + 24), rel=0.1
    )


def test_a_doubled_demand_is_noticed_within_hours() -> None:
    start, now = 10 * 24 + 8, 10 * 24 + 13

    def rate(hour: int) -> float:
        return tenfold(hour) * (2.0 if hour >= start else 1.0)

    left = truth(rate, now, 11 * 24)
    assert 0.75 * left <= forecast(counted(rate, now), now, 11 * 24) <= 1.05 * left


def test_a_reversed_rhythm_is_relearned_within_days() -> None:
    def rate(hour: int) -> float:
        return tenfold(hour) if hour < 10 * 24 else 110.0 - tenfold(hour)

    now = 15 * 24 + 2
    assert forecast(counted(rate, now), now, 16 * 24) == pytest.approx(truth(rate, now, 16 * 24), rel=0.15)


def test_traffic_that_stopped_comes_back_at_its_old_rhythm() -> None:
    def rate(hour: int) -> float:
        return 0.0 if 10 * 24 + 9 <= hour < 10 * 24 + 12 else tenfold(hour)

    now = 10 * 24 + 22
    assert forecast(counted(rate, now), now, 12 * 24) == pytest.approx(truth(rate, now, 12 * 24), rel=0.15)


def test_without_a_past_the_present_rate_counts() -> None:
    demand = new_demand()
    count(demand, 5 * HOUR_NS, DAY_NS)
    for i in range(1, 60):
        count(demand, 5 * HOUR_NS + i * HOUR_NS // 60, DAY_NS)
    assert remaining(demand, 5 * HOUR_NS + 59 * HOUR_NS // 60, DAY_NS, DAY_NS) == pytest.approx(18 * 60, rel=0.05)


def test_a_short_period_and_a_long_one() -> None:
    quarter_hour = HOUR_NS // 4
    assert remaining(
        counted(lambda hour: 40.0, 30, quarter_hour), 30 * HOUR_NS, 30 * HOUR_NS + quarter_hour, quarter_hour
    ) == pytest.approx(10.0, rel=0.3)
    month, now = 30 * DAY_NS, 21 * 24 + 5
    assert forecast(counted(weekend, now, month), now, 30 * 24, month) == pytest.approx(
        truth(weekend, now, 30 * 24), rel=0.05
    )


def test_after_a_month_of_silence_the_past_is_forgotten() -> None:
    demand, later = counted(tenfold, 100), 3000 * HOUR_NS
    count(demand, later, DAY_NS)
    fresh = new_demand()
    count(fresh, later, DAY_NS)
    for f in fields(Demand):
        np.testing.assert_array_equal(getattr(demand, f.name), getattr(fresh, f.name))


@settings(deadline=None)
@given(
    gaps=st.lists(st.integers(0, 40 * HOUR_NS), min_size=2, max_size=60),
    period_ns=st.sampled_from([10**9, HOUR_NS // 2, DAY_NS, 90 * DAY_NS]),
)
def test_whatever_comes_forecasts_are_finite_and_the_state_round_trips(gaps: list[int], period_ns: int) -> None:
    demand, time_ns = new_demand(), 0
    for gap in gaps:
        time_ns += gap
        count(demand, time_ns, period_ns)
        left = remaining(demand, time_ns, time_ns - time_ns % period_ns + period_ns, period_ns)
        assert 0.0 <= left < 1e9
    again = from_arrays(to_arrays(demand))
    count(again, time_ns + 1, period_ns)
    count(demand, time_ns + 1, period_ns)
    for f in fields(Demand):
        np.testing.assert_array_equal(getattr(demand, f.name), getattr(again, f.name))
