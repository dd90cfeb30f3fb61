"""Expectations of cost, latency and tokens are near the mean of what was reported, whatever its distribution, its units and the
order in which it comes; so is the 95th percentile of latency.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.bandit.amounts import DERIVED, SUMS
from pointsman.bandit.bucket import arrays, end_warm_start, learn, restore_arrays
from pointsman.bandit.catalog import Bucket, Mode, Model, NumberFeature, Objective, Schema
from pointsman.bandit.encoder import Context
from pointsman.bandit.event import DecisionMade
from pointsman.bandit.limits import Limits
from pointsman.bandit.outcome import ReportedOutcome, Signal, SignalChange
from pointsman.bandit.posterior import settle
from pointsman.bandit.predictions import Predictions
from tests.bandit.worlds import World

Draw = Callable[[np.random.Generator], float]

SHAPES: dict[str, Draw] = {
    "log-normal": lambda rng: math.exp(0.5 * rng.normal()),
    "constant": lambda rng: 1.0,
    "5 % nothing": lambda rng: 0.0 if rng.random() < 0.05 else math.exp(0.5 * rng.normal()),
    "30 % nothing": lambda rng: 0.0 if rng.random() < 0.3 else 1.0,
    "80 % nothing": lambda rng: 0.0 if rng.random() < 0.8 else 1.0,
    "15 % cached": lambda rng: 0.004 if rng.random() < 0.15 else 1.0,
    "a placeholder for nothing": lambda rng: 1e-10 if rng.random() < 0.2 else 1.0,
    "short and reasoning answers": lambda rng: math.exp(0.4 * rng.normal()) * (30.0 if rng.random() < 0.2 else 1.0),
    "Pareto": lambda rng: float(rng.pareto(3.0)) + 1.0,
    "log-normal over four decades": lambda rng: math.exp(1.2 * rng.normal()),
}


def learned(
    draw: Draw, scale: float, count: int, seed: int, schema: Schema | None = None
) -> tuple[Predictions, list[float]]:
    """What is predicted of a model after ``count`` calls, and the amounts that these came to."""
    world = World(Bucket("b", schema=schema or Schema()), [Model("a")], seed)
    rng = np.random.default_rng(seed)
    amounts = [scale * draw(rng) for _ in range(count)]

    def context(t: int) -> Context:
        return Context({} if schema is None else {"noise": float(rng.normal())})

    def answer(t: int, model: str) -> dict[Signal, float]:
        return {Signal.COST: amounts[t], Signal.LATENCY: amounts[t], Signal.OUTPUT_TOKENS: amounts[t]}

    world.play(count, answer, context)
    return world.decide(Context({} if schema is None else {"noise": 0.5})).predicted, amounts


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1.0, 1e4], ids=["1e-8", "1e-3", "1", "1e4"])
@pytest.mark.parametrize("shape", SHAPES)
def test_without_features_they_are_the_mean_of_what_was_reported(shape: str, scale: float) -> None:
    predicted, amounts = learned(SHAPES[shape], scale, 100, seed=7)
    assert predicted.cost_k[0] == pytest.approx(np.mean(amounts), rel=0.1)
    assert predicted.latency_k[0] == pytest.approx(np.mean(amounts), rel=0.1)
    if scale >= 100.0:
        assert predicted.tokens_k[0] == pytest.approx(np.mean(amounts), rel=0.1)


@pytest.mark.parametrize("shape", [name for name in SHAPES if name != "80 % nothing"])
def test_features_that_say_nothing_change_little(shape: str) -> None:
    schema = Schema(numbers=(NumberFeature("noise"),))
    predicted, amounts = learned(SHAPES[shape], 0.1, 400, seed=8, schema=schema)
    far = shape == "a placeholder for nothing"  # eight decades apart: noise that looks like effects
    rel, loose = (0.35, 3.0) if far else (0.3, 1.8)
    assert predicted.cost_k[0] == pytest.approx(np.mean(amounts), rel=rel)
    assert predicted.latency_k[0] == pytest.approx(np.mean(amounts), rel=rel)
    assert 1.0 / loose < predicted.latency_p95_k[0] / np.quantile(amounts, 0.95) < loose


@pytest.mark.parametrize("seed", range(3))
def test_a_thousandfold_between_contexts_stays_one(seed: int) -> None:
    schema = Schema(numbers=(NumberFeature("size"),))
    world = World(Bucket("b", schema=schema), [Model("a")], seed)
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(-1, 1, size=1000)

    def answer(t: int, model: str) -> dict[Signal, float]:
        amount = math.exp(3.45 * sizes[t] + 0.5 * rng.normal())
        return {Signal.COST: 1e-3 * amount, Signal.LATENCY: amount}

    world.play(1000, answer, lambda t: Context({"size": float(sizes[t])}))
    for size in (-0.8, 0.0, 0.8):
        predicted, median = world.decide(Context({"size": size})).predicted, math.exp(3.45 * size)
        assert predicted.cost_k[0] == pytest.approx(1e-3 * median * math.exp(0.125), rel=0.25)
        assert predicted.latency_p95_k[0] == pytest.approx(median * math.exp(0.5 * 1.645), rel=0.35)


def test_a_model_without_observations_keeps_its_prior() -> None:
    bucket = Bucket("b")
    predicted = World(bucket, [Model("a")]).decide().predicted
    assert predicted.cost_k[0] == pytest.approx(bucket.priors.cost * math.exp(0.125))
    assert predicted.latency_k[0] == pytest.approx(bucket.priors.latency * math.exp(0.125))
    assert predicted.tokens_k[0] == pytest.approx(256.0 * math.exp(0.125))


def test_one_call_reported_in_the_wrong_unit_does_not_ban_a_model() -> None:
    world = World(Bucket("b"), [Model("a")])
    world.play(100, lambda t, model: {Signal.COST: 1e5 if t == 50 else 1e-3})
    assert world.decide().predicted.cost_k[0] < 0.02


def test_a_free_tier_that_ends_is_found() -> None:
    world = World(Bucket("b"), [Model("a")])
    world.play(200, lambda t, model: {Signal.COST: 0.0})
    assert world.decide().predicted.cost_k[0] < 1e-6
    world.play(40, lambda t, model: {Signal.COST: 1e-3})
    assert world.decide().predicted.cost_k[0] > 0.7e-3


@pytest.mark.parametrize("median", [0.1, 1.0, 20.0])
@pytest.mark.parametrize("ahead", ["decided at once", "in tens", "one by one", "warm start"])
def test_p95_is_right_after_300_outcomes_however_they_come(median: float, ahead: str) -> None:
    ratios = []
    for seed in range(8):
        world = World(Bucket("b"), [Model("a")], seed)
        rng = np.random.default_rng(100 + seed)
        latencies = median * np.exp(0.5 * rng.normal(size=300))
        if ahead == "warm start":
            for latency in latencies[:250]:
                learn(world.bucket, "a", np.ones(1), [SignalChange(Signal.LATENCY, None, float(latency))])
            end_warm_start(world.bucket, 100.0)
            latencies = latencies[250:]
        size = {"decided at once": len(latencies), "in tens": 10}.get(ahead, 1)
        for start in range(0, len(latencies), size):
            decisions = [world.decide() for _ in latencies[start : start + size]]
            for decision, latency in zip(decisions, latencies[start : start + size], strict=True):
                world.report(decision, {Signal.LATENCY: float(latency)})
        ratios.append(world.decide().predicted.latency_p95_k[0] / (median * math.exp(0.5 * 1.645)))
    assert np.exp(np.log(ratios).mean()) == pytest.approx(1.0, abs=0.08)
    assert (
        max(abs(math.log(ratio)) for ratio in ratios) < 0.25
    )  # 300 latencies say no more: 0.06 is one standard deviation
    assert np.median(np.abs(np.log(ratios))) < 0.15


def test_p95_of_a_cached_model_is_that_of_its_calls() -> None:
    world = World(Bucket("b"), [Model("a")])
    rng = np.random.default_rng(5)
    world.play(300, lambda t, model: {Signal.LATENCY: 0.004 if rng.random() < 0.15 else 1.0})
    predicted = world.decide().predicted
    assert predicted.latency_p95_k[0] == pytest.approx(1.0, rel=0.15)
    assert predicted.latency_k[0] == pytest.approx(0.85, rel=0.1)


@pytest.mark.parametrize("mode", [Mode.BALANCED, Mode.COST_FIRST])
def test_cache_hits_do_not_ban_the_better_and_cheaper_model(mode: Mode) -> None:
    objective = Objective(mode, max_quality_loss=0.05) if mode is Mode.COST_FIRST else Objective(mode)
    for seed in range(4):
        world = World(Bucket("b", objective=objective), [Model("cached"), Model("paid")], seed)
        rng = np.random.default_rng(seed)

        def answer(t: int, model: str, rng: np.random.Generator = rng) -> dict[Signal, float]:
            free = model == "cached" and rng.random() < 0.2
            return {Signal.QUALITY: 0.9 if model == "cached" else 0.7, Signal.COST: 0.0 if free else 0.0075}

        chosen = world.play(300, answer)
        assert chosen[-200:].count("cached") > 180


@pytest.mark.parametrize("mode", [Mode.QUALITY_FIRST, Mode.LATENCY_FIRST])
def test_fast_answers_of_a_cache_do_not_break_a_limit(mode: Mode) -> None:
    objective = Objective(mode, max_quality_loss=0.05) if mode is Mode.LATENCY_FIRST else Objective(mode)
    world = World(Bucket("b", objective=objective), [Model("cached"), Model("plain")], seed=2)
    rng = np.random.default_rng(2)
    limits = Limits(max_latency=2.0, latency_p95=True, allow_least_violating=True)
    chosen = []
    for _ in range(400):
        decision = world.decide(limits=limits)
        chosen.append(decision.models[decision.chosen])
        cached = rng.random() < 0.15
        latency = 1.5 if chosen[-1] == "plain" else 0.004 if cached else 1.0
        quality = 0.8 if chosen[-1] == "plain" else 0.85
        world.report(decision, {Signal.QUALITY: quality, Signal.LATENCY: latency})
    assert chosen[-200:].count("cached") > 180


AMOUNT = st.one_of(st.just(0.0), st.floats(1e-9, 1e4))
REPORT = st.fixed_dictionaries(
    {Signal.COST: AMOUNT, Signal.LATENCY: AMOUNT}, optional={Signal.SUCCESS: st.sampled_from([0.0, 1.0])}
)
TWELVE = st.lists(REPORT, min_size=12, max_size=12)


def taught(bucket: Bucket) -> tuple[World, list[DecisionMade]]:
    """A world whose model is known well enough for references, not for alarms, and 12 decisions that have them."""
    world = World(bucket, [Model("a")], seed=3)
    world.play(
        20,
        lambda t, model: {Signal.COST: 0.01 * (1 + t % 3), Signal.LATENCY: 1.0 + t % 4},
        lambda t: Context({"n": t / 20}),
    )
    decisions = [world.decide(Context({"n": i / 12})) for i in range(12)]
    assert sum(decision.references[0] > 0.0 for decision in decisions) >= 3
    return world, decisions


def assert_same(left: World, right: World) -> None:
    mine, other = left.bucket.posteriors, right.bucket.posteriors
    for name in (*SUMS, *DERIVED):
        np.testing.assert_allclose(
            getattr(settle(mine), name), getattr(settle(other), name), rtol=1e-7, atol=1e-8, err_msg=name
        )
    np.testing.assert_allclose(mine.mean_krd, other.mean_krd, rtol=1e-7, atol=1e-9)


BUCKETS = [Bucket("b", schema=Schema(numbers=(NumberFeature("n"),)), half_life=half_life) for half_life in (0.0, 16.0)]


@pytest.mark.parametrize("bucket", BUCKETS, ids=["kept", "forgotten"])
@settings(deadline=None, max_examples=15)
@given(order=st.permutations(range(12)), reports=TWELVE)
def test_the_order_of_late_outcomes_does_not_matter(
    bucket: Bucket, order: list[int], reports: list[dict[Signal, float]]
) -> None:
    worlds = []
    for sequence in (range(12), order):
        world, decisions = taught(bucket)
        for i in sequence:
            world.report(decisions[i], reports[i])
        worlds.append(world)
    assert_same(*worlds)


@pytest.mark.parametrize("bucket", BUCKETS, ids=["kept", "forgotten"])
@settings(deadline=None, max_examples=15)
@given(wrong=TWELVE, right=TWELVE)
def test_a_correction_is_as_having_reported_the_right_value_first(
    bucket: Bucket, wrong: list[dict[Signal, float]], right: list[dict[Signal, float]]
) -> None:
    corrected, decisions = taught(bucket)
    direct, same = taught(bucket)
    reported = [corrected.report(d, report) for d, report in zip(decisions, wrong, strict=True)]
    for i, report in enumerate(right):
        final = {Signal.SUCCESS: 1.0, **report}
        corrected.report(decisions[i], final, reported[i])
        direct.report(same[i], final)
    assert_same(corrected, direct)


@settings(deadline=None, max_examples=15)
@given(reports=TWELVE)
def test_a_call_that_failed_after_all_leaves_nothing_of_its_amounts(reports: list[dict[Signal, float]]) -> None:
    world, decisions = taught(BUCKETS[0])
    untouched, _ = taught(BUCKETS[0])
    for decision, report in zip(decisions, reports, strict=True):
        reported: ReportedOutcome = world.report(decision, {**report, Signal.SUCCESS: 1.0})
        world.report(decision, {Signal.SUCCESS: 0.0}, reported)
    assert_same(world, untouched)


def test_amounts_are_state_and_what_is_derived_is_not() -> None:
    world, _ = taught(BUCKETS[0])
    before = {name: array.copy() for name, array in arrays(world.bucket).items()}
    world.bucket.posteriors.amounts.stale.clear()
    predicted = world.decide(Context({"n": 0.5})).predicted
    restore_arrays(world.bucket, before)
    again = world.decide(Context({"n": 0.5})).predicted
    assert again.cost_k.tobytes() == predicted.cost_k.tobytes()
    assert again.latency_p95_k.tobytes() == predicted.latency_p95_k.tobytes()
    assert set(SUMS) <= before.keys()
    assert not before.keys() & set(DERIVED)
