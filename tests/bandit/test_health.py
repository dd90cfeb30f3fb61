"""A dead model gets next to no traffic, and gets it back soon after it recovers."""

from __future__ import annotations

import numpy as np
import pytest

from pointsman.bandit.catalog import Bucket, Mode, Model, Objective
from pointsman.bandit.health import PROBE_EVERY, TRIP, Health, count_request, record_call
from pointsman.bandit.outcome import Signal
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


def test_probes_are_bounded_and_a_failed_probe_waits_again() -> None:
    health = Health()
    for _ in range(TRIP):
        assert health.may_run
        record_call(health, False, 1)
    assert health.open
    assert not health.may_run
    for _ in range(PROBE_EVERY):
        count_request(health, chosen=False)
    assert health.may_run
    count_request(health, chosen=True)
    assert not health.may_run
    record_call(health, False, 2)
    assert not health.may_run


def test_three_successes_close_it() -> None:
    health = Health(open=True, waited=PROBE_EVERY, streak=-9, bad=9.0)
    for _ in range(2):
        count_request(health, chosen=True)
        record_call(health, True, 1)
        assert health.open
        assert health.may_run
    record_call(health, True, 1)
    assert not health.open


def test_failures_fade_with_event_time() -> None:
    health = Health()
    for _ in range(4):
        record_call(health, False, 0)
    bad = health.success_rate
    record_call(health, True, 10**13)
    assert health.success_rate > bad
    assert health.discount <= 1.0


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
