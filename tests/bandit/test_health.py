"""A dead model gets next to no traffic, and gets it back soon after it recovers."""

from __future__ import annotations

import numpy as np
import pytest

from pointsman.bandit.catalog import Bucket, Mode, Model, Objective
from pointsman.bandit.health import (
    CLOSE,
    HOLD_NS,
    LONGEST_HOLD_NS,
    LONGEST_INTERVAL_NS,
    PROBE_EVERY,
    SECOND_NS,
    TRIP,
    Health,
    count_request,
    record_call,
)
from pointsman.bandit.limits import Exclusion
from pointsman.bandit.outcome import Signal
from pointsman.bandit.policy import logged_propensities
from tests.bandit.worlds import World


def outage(start: int, end: int) -> tuple[list[str], list[str]]:
    """Choices of 3,000 rounds in which the best model fails from ``start`` to ``end``."""
    world = World(Bucket("b", objective=Objective(Mode.QUALITY_FIRST)), [Model("best"), Model("other")])
    dead: list[str] = []

    def answer(t: int, model: str) -> dict[Signal, float]:
        if model == "best" and start <= t < end:
            dead.append(model)
            return {Signal.SUCCESS: 0.0}
        return {Signal.SUCCESS: 1.0, Signal.QUALITY: 0.9 if model == "best" else 0.6}

    return world.play(3000, answer), dead


def test_less_than_2_percent_goes_to_a_dead_model_after_its_first_20_failures() -> None:
    chosen, dead = outage(500, 2000)
    during = chosen[500:2000]
    first_20 = [t for t, model in enumerate(during) if model == "best"][:20][-1]
    rest = during[first_20 + 1 :]
    assert rest.count("best") < 0.02 * max(len(rest), 1)
    assert len(dead) < 20 + 0.02 * 1500


def test_traffic_is_back_within_200_requests_of_the_recovery() -> None:
    chosen, _ = outage(500, 2000)
    assert chosen[2200:2400].count("best") > 190
    assert chosen[300:500].count("best") > 190


def tripped(now_ns: int = 0) -> Health:
    """A model whose calls all fail from the start, at ``now_ns``."""
    health = Health()
    for _ in range(TRIP):
        assert health.may_run(now_ns)
        record_call(health, False, now_ns)
    assert health.open
    return health


def probe(health: Health, success: bool, now_ns: int) -> None:
    """A request at ``now_ns`` and its outcome, a tenth of a second later."""
    assert health.may_run(now_ns)
    count_request(health, True, now_ns)
    record_call(health, success, now_ns + SECOND_NS // 10, now_ns)


def test_a_probe_is_due_after_a_time_that_doubles_up_to_a_minute_or_a_quarter_of_the_outage() -> None:
    health, now_ns, waits = tripped(), 0, []
    for _ in range(14):
        waits.append(health.until_ns - now_ns)
        assert not health.may_run(health.until_ns - 1)
        now_ns = health.until_ns
        probe(health, False, now_ns)
    seconds = [round(wait / SECOND_NS) for wait in waits]
    assert seconds[:5] == [10, 10, 20, 40, 60]
    assert all(wait <= max(LONGEST_HOLD_NS, health.until_ns // 4) + SECOND_NS for wait in waits)
    assert max(waits) <= LONGEST_INTERVAL_NS + SECOND_NS
    assert now_ns < 3600 * SECOND_NS


def test_where_requests_are_many_one_in_a_hundred_probes_earlier() -> None:
    health, now_ns = tripped(), HOLD_NS
    for _ in range(4):
        probe(health, False, now_ns)
        now_ns = health.until_ns
    probe(health, False, now_ns)
    for _ in range(PROBE_EVERY):
        assert not health.may_run(now_ns + HOLD_NS)
        count_request(health, False, now_ns)
    assert not health.may_run(now_ns + HOLD_NS - 1)
    assert health.may_run(now_ns + HOLD_NS)


def test_one_probe_at_a_time() -> None:
    health = tripped()
    assert health.may_run(HOLD_NS)
    count_request(health, True, HOLD_NS)
    assert not health.may_run(HOLD_NS + SECOND_NS)
    assert health.may_run(2 * HOLD_NS)  # its outcome was never reported


def test_successes_in_a_row_close_it() -> None:
    health = tripped()
    for i in range(CLOSE):
        assert health.open
        probe(health, True, HOLD_NS + i * SECOND_NS)
    assert not health.open
    assert (
        health.success_rate(health.time_ns) > 0.94
    )  # what was counted during the outage says nothing of the model now


def test_answers_of_calls_from_before_it_opened_are_no_probes() -> None:
    health = tripped(SECOND_NS)
    for _ in range(2 * CLOSE):
        record_call(health, True, 2 * SECOND_NS, SECOND_NS // 2)
    assert health.open
    assert not health.may_run(3 * SECOND_NS)


def test_a_flaky_model_is_discounted_not_cut_off() -> None:
    """A fifth of its calls fails: three failures in a row are no news then."""
    health, openings = Health(), 0
    for t in range(2000):
        before = health.open
        if health.may_run(t * SECOND_NS):
            count_request(health, True, t * SECOND_NS)
            record_call(health, t % 5 != 0 if t % 40 else t % 3 != 0, t * SECOND_NS, t * SECOND_NS)
        openings += health.open and not before
    assert health.discount(health.time_ns) < 0.9
    for t in range(3):
        record_call(health, False, (2000 + t) * SECOND_NS)
    assert openings == 0
    assert not health.open
    record_call(health, False, 2003 * SECOND_NS)
    record_call(health, False, 2004 * SECOND_NS)
    assert health.open


@pytest.mark.parametrize("limit", [20, 40])
def test_behind_a_rate_limit_it_learns_for_how_long_to_hold_off(limit: int) -> None:
    """So many calls a minute of the clock, 60 asked: most of what the limit allows is used, at few failures."""
    health, served, failed, minute, used = Health(), 0, 0, -1, 0
    for t in range(7200):
        now_ns = t * SECOND_NS
        if t // 60 != minute:
            minute, used = t // 60, 0
        if health.may_run(now_ns):
            count_request(health, True, now_ns)
            used += 1
            success = used <= limit
            served, failed = served + success, failed + (not success)
            record_call(health, success, now_ns + SECOND_NS // 2, now_ns)
        elif health.open:
            count_request(health, False, now_ns)
    assert served > 0.75 * 120 * limit
    assert failed < 0.2 * served


def test_slow_traffic_finds_a_recovery_soon() -> None:
    """One request a minute: not after a hundred of them."""
    health, back = Health(), 0
    for t in range(180):
        now_ns = t * 60 * SECOND_NS
        fails = 30 <= t < 60
        if health.may_run(now_ns):
            count_request(health, True, now_ns)
            record_call(health, not fails, now_ns + SECOND_NS, now_ns)
            back = back or (t if t >= 60 else 0)
        else:
            count_request(health, False, now_ns)
    assert 60 <= back <= 68
    assert not health.open


def test_failures_fade_with_event_time() -> None:
    health = Health()
    for _ in range(2):
        record_call(health, False, 0)
    bad = health.success_rate(0)
    assert health.success_rate(10**13) == pytest.approx(0.95)  # also without calls
    record_call(health, True, 10**13)
    assert health.success_rate(10**13) > bad
    assert health.discount(10**13) <= 1.0


def test_a_model_that_often_fails_is_worth_less() -> None:
    world = World(Bucket("b", objective=Objective(Mode.QUALITY_FIRST)), [Model("flaky"), Model("sound")])

    def answer(t: int, model: str) -> dict[Signal, float]:
        if model == "flaky" and t % 3 == 0:
            return {Signal.SUCCESS: 0.0}
        return {Signal.SUCCESS: 1.0, Signal.QUALITY: 0.82 if model == "flaky" else 0.8}

    chosen = world.play(600, answer)
    assert chosen[-200:].count("sound") > 150


def test_failed_calls_do_not_teach_cost() -> None:
    world = World(Bucket("b"), [Model("a"), Model("c")])
    world.play(100, lambda t, model: {Signal.QUALITY: 0.8, Signal.COST: 0.01, Signal.LATENCY: 2.0, Signal.SUCCESS: 1.0})
    before = world.decide().predicted
    world.play(20, lambda t, model: {Signal.COST: 0.0, Signal.LATENCY: 0.01, Signal.SUCCESS: 0.0})
    after = world.decide().predicted
    np.testing.assert_array_equal(after.cost_k, before.cost_k)
    np.testing.assert_array_equal(after.latency_k, before.latency_k)
    assert world.bucket.sum_sk[Signal.COST].sum() == pytest.approx(1.0)


def test_if_all_models_fail_one_is_still_tried() -> None:
    world = World(Bucket("b"), [Model("a"), Model("c")])
    world.play(50, lambda t, model: {Signal.SUCCESS: 0.0})
    assert all(health.open for health in world.state.health.values())
    assert {(decision := world.decide()).models[decision.chosen] for _ in range(40)} == {"a", "c"}


def test_availability_first_asks_who_is_most_likely_to_answer() -> None:
    """The better model fails in a third of its calls: it is out until its failures have faded; among equals quality decides."""
    objective = Objective(Mode.AVAILABILITY_FIRST)
    world = World(Bucket("b", objective=objective), [Model("flaky"), Model("sound"), Model("weak")])
    quality = {"flaky": 0.9, "sound": 0.7, "weak": 0.5}

    def answer(t: int, model: str) -> dict[Signal, float]:
        if model == "flaky" and t % 3 == 0:
            return {Signal.SUCCESS: 0.0}
        return {Signal.SUCCESS: 1.0, Signal.QUALITY: quality[model]}

    chosen = world.play(400, answer)
    assert chosen[200:].count("flaky") < 10
    assert chosen[200:].count("sound") > 170
    decision = world.decide()
    reason = Exclusion.AVAILABILITY.bit
    assert (decision.exclusions_k & reason).tolist() == [reason, 0, 0]
    pi_k = logged_propensities(decision)
    assert pi_k.sum() == pytest.approx(1.0, abs=1e-9)
    assert decision.propensity == pytest.approx(pi_k[decision.chosen], abs=1e-9)
    world.now_ns += 3 * 3600 * SECOND_NS
    later = world.decide()
    assert not later.exclusions_k.any()


def test_availability_first_is_quality_first_where_all_answer() -> None:
    def answer(t: int, model: str) -> dict[Signal, float]:
        return {Signal.SUCCESS: 1.0, Signal.QUALITY: 0.9 if model == "a" else 0.6}

    world = World(Bucket("b", objective=Objective(Mode.AVAILABILITY_FIRST)), [Model("a"), Model("c")])
    assert world.play(200, answer)[100:].count("a") > 95
