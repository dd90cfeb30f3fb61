"""Cost from prices: a price change acts on the very next decision, with nothing to relearn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pointsman.bandit.catalog import Bucket, Model, Prices, Schema, TokenCountFeature
from pointsman.bandit.encoder import Context
from pointsman.bandit.event import ModelPut
from pointsman.bandit.outcome import Signal
from tests.bandit.worlds import World

PRICED = Model("priced", prices=Prices(input_per_million=2.0, output_per_million=10.0, per_request=0.001))
PLAIN = Model("plain")


def priced_world() -> World:
    world = World(Bucket("b", schema=Schema(input_tokens=TokenCountFeature())), [PRICED, PLAIN])

    def answer(t: int, model: str) -> dict[Signal, float]:
        return {Signal.QUALITY: 0.5, Signal.COST: 0.008, Signal.OUTPUT_TOKENS: 500.0}

    world.play(300, answer, lambda t: Context(input_tokens=1000))
    return world


def cost(world: World, model: str, context: Context) -> float:
    decision = world.decide(context)
    return float(decision.predicted.cost_k[decision.models.index(model)])


def test_cost_is_made_of_tokens_and_prices() -> None:
    world = priced_world()
    expected = 2e-6 * 1000 + 10e-6 * 500 + 0.001
    assert cost(world, "priced", Context(input_tokens=1000)) == pytest.approx(expected, rel=0.05)
    assert cost(world, "plain", Context(input_tokens=1000)) == pytest.approx(0.008, rel=0.1)


def test_a_price_change_acts_on_the_next_decision() -> None:
    world = priced_world()
    before = cost(world, "priced", Context(input_tokens=1000))
    tenth = replace(PRICED, prices=Prices(0.2, 1.0, 0.0001))
    world.put(ModelPut(tenth))
    assert cost(world, "priced", Context(input_tokens=1000)) == pytest.approx(before / 10, rel=1e-3)
    world.put(ModelPut(PRICED))
    assert cost(world, "priced", Context(input_tokens=1000)) == pytest.approx(before, rel=1e-3)


def test_the_most_output_tokens_bound_it() -> None:
    world = priced_world()
    bound = 2e-6 * 1000 + 10e-6 * 20 + 0.001
    assert cost(world, "priced", Context(input_tokens=1000, max_output_tokens=20)) == pytest.approx(bound)


def test_where_only_dollars_are_reported_they_are_believed() -> None:
    world = World(Bucket("b", schema=Schema(input_tokens=TokenCountFeature())), [PRICED])
    world.play(100, lambda t, model: {Signal.COST: 0.05}, lambda t: Context(input_tokens=1000))
    assert cost(world, "priced", Context(input_tokens=1000)) == pytest.approx(0.05, rel=0.1)


def test_an_unknown_models_cost_follows_its_list_prices() -> None:
    world = World(Bucket("b", schema=Schema(input_tokens=TokenCountFeature())), [PRICED])
    assert 0.003 < cost(world, "priced", Context(input_tokens=1000)) < 0.01
