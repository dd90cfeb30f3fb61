"""A floor on mean quality is kept on average, at little more than the least cost, and by what is known when."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.bandit.bucket import arrays, restore_arrays
from pointsman.bandit.catalog import Bucket, Budget, Mode, Model, NumberFeature, Objective, QualityRange, Schema
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Context
from pointsman.bandit.errors import FieldError
from pointsman.bandit.event import BucketPut
from pointsman.bandit.outcome import Signal
from pointsman.bandit.policy import INELIGIBLE
from pointsman.bandit.quality_floor import solve
from pointsman.bandit.state import fingerprint
from tests.bandit.worlds import Answer, World

MODELS = [Model("cheap"), Model("dear")]
COSTS = {"cheap": 0.001, "dear": 0.01}


def world_of(floor: float, quality: QualityRange | None = None, **more: object) -> World:
    objective = Objective(Mode.COST_FIRST, min_mean_quality=floor)
    bucket = Bucket("b", objective=objective, quality_range=quality or QualityRange(), **more)  # type: ignore[arg-type]
    return World(bucket, MODELS)


def answers(cheap: float, dear: float, seed: int = 1, scale: float = 1.0) -> Answer:
    """Right or wrong, with these chances; the right answer is worth ``scale``."""
    rng = np.random.default_rng(seed)
    chance = {"cheap": cheap, "dear": dear}

    def answer(t: int, model: str) -> dict[Signal, float]:
        return {Signal.QUALITY: scale * float(rng.random() < chance[model]), Signal.COST: COSTS[model]}

    return answer


def reported_mean(world: World) -> float:
    return float(world.bucket.sum_sk[Signal.QUALITY].sum() / world.bucket.count_sk[Signal.QUALITY].sum())


@pytest.mark.parametrize("floor", [0.7, 0.8])
def test_the_mean_is_kept_and_no_more_is_bought(floor: float) -> None:
    """Half or three quarters of the requests must go to the dear model: no model alone keeps the floor at that cost."""
    world = world_of(floor)
    chosen = world.play(2000, answers(0.6, 0.9))
    assert abs(reported_mean(world) - floor) < 0.015
    needed = (floor - 0.6) / 0.3
    assert abs(chosen[500:].count("dear") / 1500 - needed) < 0.1


def test_a_floor_that_the_cheap_model_keeps_costs_nothing() -> None:
    world = world_of(0.6)
    chosen = world.play(800, answers(0.8, 0.9))
    assert chosen[200:].count("dear") < 15
    assert reported_mean(world) > 0.6


def test_a_floor_out_of_reach_has_the_best_quality() -> None:
    world = world_of(0.95)
    chosen = world.play(600, answers(0.4, 0.8))
    assert chosen[200:].count("dear") > 380
    assert world.bucket.quality_pacer is not None
    assert world.bucket.quality_pacer.multiplier == 0.0


def test_the_dear_model_is_bought_where_it_is_worth_most() -> None:
    """It is better by half on hard requests and no better on easy ones."""
    world = world_of(0.85, schema=Schema(numbers=(NumberFeature("hard"),)))
    rng = np.random.default_rng(3)
    calls = {0.0: {"cheap": 0, "dear": 0}, 1.0: {"cheap": 0, "dear": 0}}
    for t in range(1500):
        hard = float(t % 2)
        decision = world.decide(Context(numbers={"hard": hard}))
        model = decision.models[decision.chosen]
        chance = {"cheap": 0.95 - 0.45 * hard, "dear": 0.95}[model]
        world.report(decision, {Signal.QUALITY: float(rng.random() < chance), Signal.COST: COSTS[model]})
        if t >= 500:
            calls[hard][model] += 1
    assert abs(reported_mean(world) - 0.85) < 0.02
    assert calls[1.0]["dear"] > 4 * calls[0.0]["dear"]


def test_the_range_of_quality_does_not_matter() -> None:
    """The same world in stars from 1 to 5 is the same world."""
    stars = world_of(3.8, QualityRange(1.0, 5.0))
    unit = world_of(0.7)
    rng, other = np.random.default_rng(5), np.random.default_rng(5)
    chosen = unit.play(300, lambda t, model: {Signal.QUALITY: float(rng.random() < 0.7), Signal.COST: COSTS[model]})
    stars_chosen = stars.play(
        300, lambda t, model: {Signal.QUALITY: 1.0 + 4.0 * float(other.random() < 0.7), Signal.COST: COSTS[model]}
    )
    assert chosen == stars_chosen


def test_judgements_count_once_whenever_they_come_and_corrections_replace_them() -> None:
    orders = []
    for order in itertools.permutations(range(3)):
        world = world_of(0.7)
        decisions = [world.decide() for _ in range(3)]
        reported = {place: world.report(decisions[place], {Signal.QUALITY: 0.2 * place}) for place in order}
        world.report(decisions[1], {Signal.QUALITY: 0.9}, reported[1])
        pacer = world.bucket.quality_pacer
        assert pacer is not None
        assert (pacer.decisions, pacer.judged) == (3, 3)
        assert pacer.total == pytest.approx(0.0 + 0.9 + 0.4)
        orders.append(pacer.optimism)
    assert orders == pytest.approx([orders[0]] * 6)


def test_requests_with_their_own_objective_are_not_counted() -> None:
    world = world_of(0.7)
    encoded = [world.bucket.encoder.encode(Context())]
    best = Objective(Mode.QUALITY_FIRST)
    (event,) = decide(
        world.bucket, encoded, [bytes(16)], world.rng, health={}, now_ns=0, state_position=3, objective=best
    )
    world.put(event)
    pacer = world.bucket.quality_pacer
    assert pacer is not None
    assert pacer.decisions == 0
    with pytest.raises(FieldError, match=r"objective\.min_mean_quality: expected it in the bucket's own objective"):
        decide(
            world.bucket,
            encoded,
            [bytes(16)],
            world.rng,
            health={},
            now_ns=0,
            state_position=3,
            objective=Objective(Mode.COST_FIRST, min_mean_quality=0.7),
        )


def test_another_floor_starts_anew_and_none_ends_it() -> None:
    world = world_of(0.7)
    world.play(50, answers(0.6, 0.9))
    config = world.bucket.config
    world.put(BucketPut(replace(config, window_ns=2 * config.window_ns)))
    assert world.bucket.quality_pacer is not None
    assert world.bucket.quality_pacer.decisions == 50
    world.put(BucketPut(replace(config, objective=Objective(Mode.COST_FIRST, min_mean_quality=0.8))))
    assert world.bucket.quality_pacer.decisions == 0
    world.put(BucketPut(replace(config, objective=Objective(Mode.COST_FIRST))))
    assert world.bucket.quality_pacer is None


def test_a_budget_that_does_not_reach_comes_first() -> None:
    world = world_of(0.85, budget=Budget(0.003))
    world.play(1500, answers(0.6, 0.9))
    assert world.bucket.sum_sk[Signal.COST].sum() / 1500 < 1.03 * 0.003


def test_it_is_part_of_the_state() -> None:
    world = world_of(0.7)
    world.play(100, answers(0.6, 0.9))
    before = fingerprint(world.state)
    saved = {name: array.copy() for name, array in arrays(world.bucket).items()}
    world.play(20, answers(0.6, 0.9))
    restore_arrays(world.bucket, saved)
    assert world.bucket.quality_pacer is not None
    assert world.bucket.quality_pacer.decisions == 100
    assert before != fingerprint(world.state)  # of later positions


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"mode": Mode.QUALITY_FIRST, "min_mean_quality": 0.5}, "only COST_FIRST and LATENCY_FIRST"),
        ({"mode": Mode.LATENCY_FIRST, "min_mean_quality": 0.5}, "expected nothing with LATENCY_FIRST, only COST_FIRST"),
        ({"mode": Mode.COST_FIRST, "min_mean_quality": 0.5, "min_quality": 0.4}, "expected min_quality or min_mean"),
        ({"mode": Mode.COST_FIRST, "min_mean_quality": 1.5}, "expected a finite number at least 0 and at most 1"),
    ],
)
def test_what_makes_no_sense_is_refused(objective: dict[str, object], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        Objective(**objective).resolve(QualityRange())  # type: ignore[arg-type]


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 0.9))
def test_the_multiplier_is_the_largest_that_keeps_the_target(seed: int, target: float) -> None:
    rng = np.random.default_rng(seed)
    mean_bk = rng.random((40, 3))
    draw_bk = mean_bk + 0.1 * rng.standard_normal((40, 3))
    draw_bk[rng.random((40, 3)) < 0.1] = INELIGIBLE
    draw_bk[:, 1] = mean_bk[:, 1]
    cost_bk = np.array([0.001, 0.01, 0.2]) * np.exp(0.3 * rng.standard_normal((40, 3)))

    def kept(multiplier: float) -> float:
        drawn_bk = np.where(draw_bk > INELIGIBLE / 2, draw_bk - multiplier * cost_bk, -np.inf)
        return float(mean_bk[np.arange(40), drawn_bk.argmax(axis=1)].mean())

    multiplier = solve(mean_bk, draw_bk, cost_bk, target, guess=0.0)
    if multiplier == 0.0:
        assert kept(0.0) < target or kept(1e-8) < target
    else:
        assert kept(multiplier) >= target
        cheapest = kept(1e12)
        assert cheapest >= target or kept(multiplier * 1.001) < target or kept(multiplier * 4.1) < target
