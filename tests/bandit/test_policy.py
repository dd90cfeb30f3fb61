"""Draws are distributed as their propensities, limits have reasons, and every objective follows its rule."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.bandit.bucket import learn
from pointsman.bandit.catalog import Bucket, Mode, Model, NumberFeature, Objective, QualityRange, Schema
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Context
from pointsman.bandit.errors import FieldError, NothingEligibleError
from pointsman.bandit.limits import Exclusion, Limits, describe_exclusions, exclusions
from pointsman.bandit.outcome import Signal
from pointsman.bandit.policy import EXPLORATION_FLOOR, exploration_floors, propensities, score_arms
from pointsman.bandit.predictions import Predictions
from tests.bandit.worlds import World, one_change

UNIT = QualityRange()
OBJECTIVES = [
    Objective(Mode.QUALITY_FIRST),
    Objective(Mode.AVAILABILITY_FIRST),
    Objective(Mode.BALANCED),
    Objective(Mode.WEIGHTED, cost_weight=50.0, latency_weight=0.1),
    Objective(Mode.COST_FIRST, min_quality=0.55),
    Objective(Mode.COST_FIRST, max_quality_loss=0.1),
    Objective(Mode.LATENCY_FIRST, max_quality_loss=0.05),
]
SCHEMA = Schema(numbers=(NumberFeature("n"),))


def learned(objective: Objective, floor: float | None = 0.05, models: int = 4, seed: int = 0) -> World:
    """A world whose models differ a little in quality and much in cost and latency."""
    bucket = Bucket("b", schema=SCHEMA, objective=objective, exploration_floor=floor)
    world = World(bucket, [Model(f"m{k}") for k in range(models)], seed)
    rng = np.random.default_rng(seed)
    for k in range(models):
        for _ in range(6):
            x_d = world.bucket.encoder.encode(Context({"n": rng.normal()})).x_d
            quality = float(np.clip(0.5 + 0.05 * k + 0.2 * rng.normal(), 0, 1))
            learn(world.bucket, f"m{k}", x_d, one_change(Signal.QUALITY, quality))
            learn(world.bucket, f"m{k}", x_d, one_change(Signal.COST, 1e-4 * 4.0**k))
            learn(world.bucket, f"m{k}", x_d, one_change(Signal.LATENCY, 0.2 * (models - k)))
    return world


def many(world: World, count: int, limits: Limits = Limits()) -> list:  # noqa: B008
    encoded = world.bucket.encoder.encode(Context({"n": 0.3}))
    return decide(
        world.bucket,
        [encoded] * count,
        [b""] * count,
        world.rng,
        health=world.state.health,
        now_ns=0,
        state_position=world.state.position,
        limits=limits,
    )


@pytest.mark.parametrize("floor", [0.0, 0.05, 1.0, None])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_choice_frequencies_match_propensities(objective: Objective, floor: float | None) -> None:
    world = learned(objective, floor)
    decisions = many(world, 10_000)
    decision = decisions[0]
    pi_k = propensities(decision.objective, UNIT, decision.exploration_floor, decision.predicted, decision.exclusions_k)
    assert pi_k.sum() == pytest.approx(1.0, abs=1e-9)
    counts_k = np.bincount([d.chosen for d in decisions], minlength=4)
    error_k = np.sqrt(pi_k * (1 - pi_k) / len(decisions))
    assert (np.abs(counts_k / len(decisions) - pi_k) <= 5 * error_k + 1e-9).all()
    for k in range(4):
        logged = next((d.propensity for d in decisions if d.chosen == k), None)
        assert logged is None or logged == pytest.approx(pi_k[k], abs=1e-9)
    single = many(world, 1)[0]
    pi_k = propensities(single.objective, UNIT, single.exploration_floor, single.predicted, single.exclusions_k)
    assert single.propensity == pytest.approx(pi_k[single.chosen], abs=1e-9)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_fallbacks_are_the_other_eligible_models(objective: Objective) -> None:
    world = learned(objective, 0.5)
    for decision in many(world, 200, Limits(deny=frozenset({"m1"}))):
        assert sorted([decision.chosen, *decision.fallbacks]) == [0, 2, 3]


def test_the_same_seed_decides_the_same() -> None:
    def chosen() -> list[int]:
        return [d.chosen for d in many(learned(Objective(Mode.QUALITY_FIRST)), 200)]

    assert chosen() == chosen()


def answers(quality: dict[str, float], cost: dict[str, float]) -> object:
    rng = np.random.default_rng(1)
    return lambda t, model: {
        Signal.QUALITY: float(np.clip(quality[model] + 0.1 * rng.normal(), 0, 1)),
        Signal.COST: cost[model],
    }


@pytest.mark.parametrize(
    ("objective", "winner"),
    [
        (Objective(Mode.QUALITY_FIRST), "dear"),
        (Objective(Mode.COST_FIRST, min_quality=0.6), "middle"),
        (Objective(Mode.COST_FIRST, min_quality=0.3), "cheap"),
        (Objective(Mode.COST_FIRST, max_quality_loss=0.2), "middle"),
        (Objective(Mode.BALANCED, cost_weight=1.0), "dear"),
        (Objective(Mode.BALANCED, cost_weight=20.0), "middle"),
        (Objective(Mode.WEIGHTED, cost_weight=1000.0), "cheap"),
    ],
    ids=str,
)
def test_each_objective_ends_at_the_model_it_means(objective: Objective, winner: str) -> None:
    world = World(Bucket("b", objective=objective), [Model("cheap"), Model("middle"), Model("dear")])
    answer = answers({"cheap": 0.5, "middle": 0.75, "dear": 0.85}, {"cheap": 1e-4, "middle": 1e-3, "dear": 2e-2})
    chosen = world.play(600, answer)  # type: ignore[arg-type]
    assert chosen[-200:].count(winner) >= 180


def test_a_context_that_matters_is_learned() -> None:
    world = World(Bucket("b", schema=SCHEMA, objective=Objective(Mode.QUALITY_FIRST)), [Model("low"), Model("high")])
    rng = np.random.default_rng(2)
    contexts = rng.choice([-1.0, 1.0], size=1000)

    def answer(t: int, model: str) -> dict[Signal, float]:
        right = (contexts[t] > 0) == (model == "high")
        return {Signal.QUALITY: float(np.clip((0.8 if right else 0.4) + 0.1 * rng.normal(), 0, 1))}

    chosen = world.play(1000, answer, lambda t: Context({"n": float(contexts[t])}))
    right = [(contexts[t] > 0) == (chosen[t] == "high") for t in range(500, 1000)]
    assert sum(right) > 470


def test_every_limit_excludes_with_its_reason() -> None:
    models = [
        Model("plain", context_window=100),
        Model("able", capabilities=("tools",), tags={"region": "eu"}),
        Model("small", context_window=10, capabilities=("tools",), tags={"region": "eu"}),
    ]
    world = World(Bucket("b", exploration_floor=0.0), models)
    limits = Limits(
        max_cost=1e-12,
        max_latency=1e-9,
        min_quality=0.99,
        allow=frozenset({"plain", "small"}),
        deny=frozenset({"small"}),
        capabilities=frozenset({"tools"}),
        tags={"region": "eu"},
    )
    with pytest.raises(NothingEligibleError) as caught:
        world.decide(Context(input_tokens=50, max_output_tokens=20), limits)
    plain, able, small = (" ".join(caught.value.reasons[m.id]) for m in models)
    assert "lacks tools" in plain
    assert "lacks region=eu" in plain
    assert "allow_models" in able
    assert "deny_models" in small
    assert "context window of 10" in small
    for reasons in (plain, able, small):
        assert "max_cost_usd 1e-12" in reasons
        assert "max_latency_seconds 1e-09" in reasons
        assert "min_quality 0.99" in reasons
    soft = Limits(max_cost=1e-12, allow=frozenset({"plain"}), allow_least_violating=True)
    decision = world.decide(limits=soft)
    assert decision.limits_violated
    assert decision.models[decision.chosen] == "plain"
    assert decision.propensity == 1.0
    hard = Limits(capabilities=frozenset({"wings"}), allow_least_violating=True)
    with pytest.raises(NothingEligibleError):
        world.decide(limits=hard)


def test_the_least_violating_is_the_nearest_to_the_limit() -> None:
    world = learned(Objective(Mode.QUALITY_FIRST), 0.0)
    for decision in many(world, 20, Limits(max_cost=1e-6, allow_least_violating=True)):
        assert (decision.chosen, decision.fallbacks) == (0, (1, 2, 3))


def test_one_eligible_model_is_certain() -> None:
    world = learned(Objective(Mode.QUALITY_FIRST), None)
    for decision in many(world, 50, Limits(allow=frozenset({"m2"}))):
        assert (decision.chosen, decision.propensity, decision.fallbacks) == (2, 1.0, ())


def test_a_p95_limit_is_stricter_than_one_on_the_mean() -> None:
    world = learned(Objective(Mode.QUALITY_FIRST))
    predicted = many(world, 1)[0].predicted
    assert (predicted.latency_p95_k > predicted.latency_k).all()
    between = float(predicted.latency_k[3] + predicted.latency_p95_k[3]) / 2
    batch = predicted.batch()
    none_b = np.zeros(1, dtype=np.int64)
    on_mean = exclusions(world.bucket.candidates, Limits(max_latency=between), UNIT, batch, none_b)
    on_p95 = exclusions(world.bucket.candidates, Limits(max_latency=between, latency_p95=True), UNIT, batch, none_b)
    assert on_mean[0, 3] == 0
    assert on_p95[0, 3] == Exclusion.LATENCY.bit


def test_a_bucket_without_models_is_reported() -> None:
    with pytest.raises(FieldError, match="has no models"):
        World(Bucket("b"), []).decide()


@given(
    st.integers(1, 6).flatmap(
        lambda k: st.tuples(
            *(
                st.lists(st.floats(low, high), min_size=k, max_size=k)
                for low, high in ((-0.5, 1.5), (0, 0.5), (1e-6, 1))
            )
        )
    ),
    st.sampled_from(OBJECTIVES),
    st.sampled_from([None, 0.0, 0.2]),
    st.floats(0, 100),
)
def test_propensities_sum_to_one_for_any_posterior(
    columns: tuple[list[float], list[float], list[float]],
    objective: Objective,
    floor: float | None,
    multiplier: float,
) -> None:
    mean, sd, cost = (np.array(c) for c in columns)
    predicted = Predictions(mean, sd, cost, cost, 2 * cost, cost)
    exclusions_k = np.zeros(len(mean), dtype=np.int64)
    resolved = objective.resolve(UNIT)
    batch = predicted.batch()
    scores = score_arms(resolved, UNIT, batch, exclusions_k[None], multiplier)
    share = float(exploration_floors(scores, batch, floor)[0])
    assert 0.0 <= share <= max(EXPLORATION_FLOOR, floor or 0.0)
    pi_k = propensities(resolved, UNIT, share, predicted, exclusions_k, multiplier)
    assert pi_k.sum() == pytest.approx(1.0, abs=1e-9)
    assert (pi_k >= share / len(mean) - 1e-12).all()


def test_the_even_draw_gives_way_where_it_is_dear() -> None:
    mean_k, sd_k = np.array([0.8, 0.8]), np.array([0.01, 0.01])
    for cost, expected in ((1e-3, EXPLORATION_FLOOR), (1.0, 0.0005 / (10 * 0.999 / 2))):
        cost_k = np.array([1e-3, cost])
        batch = Predictions(*(a[None] for a in (mean_k, sd_k, cost_k, cost_k, cost_k, cost_k)))
        scores = score_arms(Objective().resolve(UNIT), UNIT, batch, np.zeros((1, 2), dtype=np.int64))
        assert exploration_floors(scores, batch, None)[0] == pytest.approx(expected, rel=1e-6)
        assert exploration_floors(scores, batch, 0.3)[0] == 0.3


def test_descriptions_name_numbers() -> None:
    world = learned(Objective(Mode.QUALITY_FIRST))
    predicted = many(world, 1)[0].predicted
    limits = Limits(max_cost=1e-9)
    ((reason, sentence),) = describe_exclusions(Exclusion.COST.bit, 0, Model("m0"), limits, UNIT, predicted)
    assert reason is Exclusion.COST
    assert f"{predicted.cost_k[0]:.3g}" in sentence


def test_the_core_is_pure() -> None:
    code = (
        "import sys, pointsman.bandit.decide, pointsman.bandit.state; "
        "print({m.split('.')[0] for m in sys.modules} & {'grpc', 'google', 'pandas', 'click', 'rich', 'yaml', 'pydantic'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
