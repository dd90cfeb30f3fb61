"""A model that joins an established bucket gets a bounded share until it has outcomes, and propensities account for it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pointsman.bandit.catalog import Bucket, Budget, Mode, Model, Objective
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Context
from pointsman.bandit.event import ModelDeleted, ModelPut
from pointsman.bandit.outcome import Signal
from pointsman.bandit.policy import propensities
from pointsman.bandit.state import active_budgets
from pointsman.bandit.trials import ADOPTED, QUOTA, newcomers, quotas
from tests.bandit.worlds import World

LEVELS = {"a": 0.8, "b": 0.7, "new": 0.9}


def established(
    objective: Objective, level: float = 0.9, cost: float = 1e-3, seed: int = 0, budget: Budget | None = None
):
    """A bucket that has judged 300 outcomes of two models, and then gets a third."""
    rng = np.random.default_rng(seed)
    quality, costs = {"a": 0.8, "b": 0.7, "new": level}, {"a": 1e-3, "b": 1e-4, "new": cost}

    def answer(t: int, model: str) -> dict[Signal, float]:
        return {Signal.QUALITY: float(np.clip(quality[model] + 0.1 * rng.normal(), 0, 1)), Signal.COST: costs[model]}

    world = World(Bucket("b", objective=objective, budget=budget), [Model("a"), Model("b")], seed)
    world.play(300, answer)
    world.put(ModelPut(Model("new")))
    return world, answer


MODES = [
    Objective(Mode.QUALITY_FIRST),
    Objective(Mode.COST_FIRST, max_quality_loss=0.05),
    Objective(Mode.COST_FIRST, min_quality=0.75),
    Objective(Mode.BALANCED),
]


@pytest.mark.parametrize("objective", MODES, ids=lambda o: f"{o.mode.value} {o.min_quality or ''}")
def test_a_newcomers_share_is_bounded_before_outcomes(objective: Objective) -> None:
    """However long outcomes take to come."""
    world, _ = established(objective)
    chosen = Counter((decision := world.decide()).models[decision.chosen] for _ in range(3000))
    assert chosen["new"] / 3000 <= QUOTA + 0.01 / 3 + 0.01


@pytest.mark.parametrize("objective", MODES, ids=lambda o: f"{o.mode.value} {o.min_quality or ''}")
def test_propensities_are_those_of_the_mixture(objective: Objective) -> None:
    world, _ = established(objective)
    while not world.decide().quotas:  # until ten calls of it wait to be judged
        pass
    bucket = world.bucket
    assert newcomers(bucket).any()
    many = decide(
        bucket,
        [bucket.encoder.encode(Context())] * 20_000,
        [b""] * 20_000,
        world.rng,
        health={},
        now_ns=0,
        state_position=0,
        active_budgets=active_budgets(world.state, bucket),
    )
    counts = Counter(decision.chosen for decision in many)
    decision = many[0]
    pi_k = propensities(
        decision.objective,
        bucket.config.quality_range,
        decision.exploration_floor,
        decision.predicted,
        decision.exclusions_k,
        decision.multiplier,
        decision.partial,
        by_price=decision.by_price,
    )
    assert pi_k.sum() == pytest.approx(1.0, abs=1e-9)
    for k in range(3):
        assert counts[k] / len(many) == pytest.approx(pi_k[k], abs=5 * np.sqrt(0.25 / len(many)))
    for other in many[:50]:
        assert other.propensity == pytest.approx(pi_k[other.chosen], abs=1e-9)


def test_a_better_newcomer_is_adopted_soon() -> None:
    shares = []
    for seed in range(6):
        world, answer = established(Objective(Mode.QUALITY_FIRST), level=0.95, seed=seed)
        chosen = world.play(600, answer)
        shares.append(chosen[400:].count("new") / 200)
    assert np.mean(shares) > 0.85


def test_a_worse_newcomer_costs_little() -> None:
    world, answer = established(Objective(Mode.QUALITY_FIRST), level=0.3)
    chosen = world.play(1000, answer)
    assert chosen.count("new") <= 40
    assert not newcomers(world.bucket).any() or world.bucket.count_sk[Signal.QUALITY, 2] < ADOPTED


def test_a_dear_newcomer_does_not_break_the_budget() -> None:
    world, answer = established(Objective(Mode.QUALITY_FIRST), level=0.95, cost=0.05, budget=Budget(5e-4))
    before = world.bucket.sum_sk[Signal.COST].sum()
    world.play(1500, answer)
    assert (world.bucket.sum_sk[Signal.COST].sum() - before) / 1500 <= 1.05 * 5e-4


def test_models_that_start_together_are_no_newcomers() -> None:
    world = World(Bucket("b"), [Model("a")])
    world.put(ModelPut(Model("c")))
    world.put(ModelPut(Model("d")))
    assert not newcomers(world.bucket).any()
    assert (quotas(world.bucket) == 1.0).all()
    assert world.decide().quotas == ()


def test_where_only_newcomers_may_run_they_do() -> None:
    world, _ = established(Objective(Mode.QUALITY_FIRST))
    world.put(ModelDeleted("a"))
    world.put(ModelDeleted("b"))
    assert {world.decide().propensity for _ in range(5)} == {1.0}
