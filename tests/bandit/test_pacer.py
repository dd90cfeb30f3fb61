"""A budget is kept, spent where spending buys quality, and paced on what is known when."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pointsman.bandit.catalog import Bucket, Budget, Mode, Model, Objective
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Context
from pointsman.bandit.event import BucketPut
from pointsman.bandit.outcome import Signal
from pointsman.bandit.state import active_budgets, fingerprint, fold
from tests.bandit.worlds import SECOND, World

QUALITY = {"cheap": 0.6, "middle": 0.8, "dear": 0.9}
MODELS = [Model(name) for name in QUALITY]


def paced_world(budget: Budget, spread: float, seed: int = 0, mode: Mode = Mode.QUALITY_FIRST) -> tuple[World, object]:
    """Three models whose costs differ by ``spread`` between neighbours, answering with noise."""
    rng = np.random.default_rng(seed)
    costs = {"cheap": 1e-4, "middle": 1e-4 * spread, "dear": 1e-4 * spread**2}

    def answer(t: int, model: str) -> dict[Signal, float]:
        noisy = float(np.clip(QUALITY[model] + 0.1 * rng.normal(), 0, 1))
        return {Signal.QUALITY: noisy, Signal.COST: costs[model] * float(np.exp(0.3 * rng.normal()))}

    world = World(Bucket("b", objective=Objective(mode), budget=budget), MODELS, seed)
    return world, answer


@pytest.mark.parametrize("spread", [1.5, 5.0, 30.0])
@pytest.mark.parametrize("level", [0.3, 0.7])
def test_spend_tracks_the_budget_from_the_first_thousand_requests_on(spread: float, level: float) -> None:
    cheap, dear = 1e-4, 1e-4 * spread**2
    budget = cheap * 1.1 * (dear / cheap) ** level
    world, answer = paced_world(Budget(budget), spread)
    world.play(1000, answer)  # type: ignore[arg-type]
    for rounds in (1000, 1300, 1600, 2000):
        if rounds > 1000:
            world.play(rounds - world.bucket.decisions_k.sum(), answer)  # type: ignore[arg-type]
        spend = world.bucket.sum_sk[Signal.COST].sum() / rounds
        assert spend <= 1.03 * budget
    assert spend >= 0.9 * budget  # money that buys quality is not left on the table


def test_a_budget_above_the_dearest_does_not_bind() -> None:
    world, answer = paced_world(Budget(1.0), 5.0)
    chosen = world.play(600, answer)  # type: ignore[arg-type]
    assert world.bucket.pacer is not None
    assert world.bucket.pacer.multiplier == 0.0
    assert chosen[-200:].count("dear") > 150


def test_late_costs_do_not_let_spend_run_away() -> None:
    world, answer = paced_world(Budget(1e-3), 10.0)
    world.play(300, answer)  # type: ignore[arg-type]
    costs = world.bucket.sum_sk[Signal.COST].sum()
    decisions = [world.decide() for _ in range(500)]  # and nothing is reported of them
    expected = sum(float(decision.predicted.cost_k[decision.chosen]) for decision in decisions)
    assert (costs + expected) / 800 <= 1.05e-3
    assert world.bucket.pacer is not None
    assert world.bucket.pacer.spent == pytest.approx(costs + expected)
    for decision in decisions:
        world.report(decision, {Signal.COST: 1e-3})
    assert world.bucket.pacer.spent == pytest.approx(costs + 0.5)


def test_a_corrected_cost_is_counted_once() -> None:
    world, _ = paced_world(Budget(1e-3), 10.0)
    decision = world.decide()
    reported = world.report(decision, {Signal.COST: 0.5})
    reported = world.report(decision, {Signal.COST: 0.2}, reported)
    world.report(decision, {Signal.QUALITY: 1.0}, reported)
    assert world.bucket.pacer is not None
    assert world.bucket.pacer.spent == pytest.approx(0.2)


def test_a_budget_per_period_is_spent_evenly_and_renewed() -> None:
    period = 2000 * SECOND  # a decision and a report a second: 1,000 requests
    world, answer = paced_world(Budget(1.0, period), 10.0)
    world.play(3000, answer)  # type: ignore[arg-type]
    assert world.bucket.pacer is not None
    spend = world.bucket.sum_sk[Signal.COST].sum()
    assert 2.5 <= spend <= 3.1


@pytest.mark.parametrize("mode", [Mode.COST_FIRST, Mode.BALANCED])
def test_other_objectives_keep_to_it_too(mode: Mode) -> None:
    world, answer = paced_world(Budget(4e-4), 10.0, mode=mode)
    world.play(1500, answer)  # type: ignore[arg-type]
    assert world.bucket.sum_sk[Signal.COST].sum() / 1500 <= 1.05 * 4e-4


def test_propensities_are_those_of_the_paced_policy() -> None:
    world, answer = paced_world(Budget(1e-3), 10.0)
    world.play(200, answer)  # type: ignore[arg-type]
    decision = world.decide()
    counts = dict.fromkeys(QUALITY, 0)
    state = world.state.buckets["b"]
    many = decide(
        state,
        [state.encoder.encode(Context())] * 20_000,
        [b""] * 20_000,
        world.rng,
        health={},
        now_ns=0,
        state_position=0,
        active_budgets=active_budgets(world.state, state),
    )
    for other in many:
        counts[other.models[other.chosen]] += 1
    for other in many[:3]:
        share = counts[other.models[other.chosen]] / len(many)
        assert share == pytest.approx(other.propensity, abs=5 * np.sqrt(0.25 / len(many)))
    assert decision.multiplier > 0.0


def test_a_changed_budget_starts_afresh_and_the_fold_is_the_same() -> None:
    world, answer = paced_world(Budget(1e-3), 10.0)
    world.play(50, answer)  # type: ignore[arg-type]
    world.put(BucketPut(replace(world.bucket.config, budget=Budget(2e-3))))
    assert world.bucket.pacer is not None
    assert world.bucket.pacer.decisions == 0
    world.put(BucketPut(replace(world.bucket.config, budget=None)))
    assert world.bucket.pacer is None
    assert fingerprint(fold([], world.state)) == fingerprint(world.state)
