"""A 95th percentile holds, on data it was not fitted to, whatever the shape of the latencies."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.bandit.catalog import Bucket, Mode, Model, NumberFeature, Objective, Schema
from pointsman.bandit.encoder import Context
from pointsman.bandit.errors import NothingEligibleError
from pointsman.bandit.latency_calibration import LATENCIES, MISSES, RATIOS, Grid
from pointsman.bandit.limits import Limits
from pointsman.bandit.outcome import Signal
from tests.bandit.worlds import World

SHAPES: dict[str, Callable[[np.random.Generator], float]] = {
    "log-normal": lambda rng: float(np.exp(0.5 * rng.normal())),
    "Pareto": lambda rng: float(rng.pareto(2.5) + 0.3),
    "one in twelve stalls": lambda rng: float(np.exp(0.2 * rng.normal()) * (5.0 if rng.random() < 1 / 12 else 1.0)),
    "uniform": lambda rng: float(rng.uniform(0.5, 1.5)),
    "constant": lambda rng: 1.0,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_p95_limit_holds_for_chosen_models(shape: str) -> None:
    """Models of different speeds and qualities; the dearest in latency is the best, so that the limit binds."""
    rng, draw = np.random.default_rng(1), SHAPES[shape]
    speed = {"fast": 0.5, "middle": 1.0, "slow": 2.0}
    quality = {"fast": 0.6, "middle": 0.7, "slow": 0.9}
    schema = Schema(numbers=(NumberFeature("size"),))
    world = World(
        Bucket("b", schema=schema, objective=Objective(Mode.QUALITY_FIRST)), [Model(m) for m in speed], seed=2
    )
    limits = Limits(max_latency=4.0, latency_p95=True)
    late, total = 0, 0
    for t in range(2500):
        size = float(rng.uniform(-1, 1))
        limited = t % 2 == 1
        try:
            decision = world.decide(Context({"size": size}), limits if limited else Limits())
        except NothingEligibleError:
            continue
        model = decision.models[decision.chosen]
        latency = speed[model] * math.exp(0.5 * size) * draw(rng)
        if limited and t > 500:
            late += latency > 4.0
            total += 1
        world.report(decision, {Signal.QUALITY: quality[model], Signal.LATENCY: latency})
    assert total > 300
    assert late / total <= 0.05


def test_a_limit_leaves_models_that_keep_it() -> None:
    world = World(Bucket("b"), [Model("a")], seed=3)
    rng = np.random.default_rng(4)
    world.play(500, lambda t, model: {Signal.LATENCY: float(np.exp(0.5 * rng.normal()))})
    p95 = float(world.decide().predicted.latency_p95_k[0])
    assert math.exp(0.5 * 1.645) <= p95 <= 1.3 * math.exp(0.5 * 1.645)


@given(st.lists(st.tuples(st.floats(-20, 20) | st.just(-math.inf), st.floats(0.1, 1)), max_size=30))
def test_counts_can_be_taken_back(values: list[tuple[float, float]]) -> None:
    for grid in (RATIOS, LATENCIES):
        count_n = grid.no_counts(1)[0]
        grid.count(count_n, 0.3, 1.0)
        before = count_n.copy()
        for value, weight in values:
            grid.count(count_n, value, weight)
        for value, weight in reversed(values):
            grid.count(count_n, value, -weight)
        np.testing.assert_allclose(count_n, before, atol=1e-12)


@pytest.mark.parametrize("grid", [RATIOS, LATENCIES], ids=["ratios", "latencies"])
def test_the_percentile_is_the_quantile_of_many_values(grid: Grid) -> None:
    count_n = grid.no_counts(1)[0]
    values = np.random.default_rng(5).normal(0.4, 0.3, size=5000)
    for value in values:
        grid.count(count_n, float(value), 1.0)
    assert grid.percentile(count_n) == pytest.approx(np.quantile(values, 1.0 - MISSES), abs=0.03)
    for _ in range(200_000):
        grid.count(count_n, 50.0, 1.0)
    assert grid.percentile(count_n) == pytest.approx(grid.lowest + grid.step * (grid.edges - 1))
    for _ in range(10_000_000 // 100):
        grid.count(count_n, -math.inf, 100.0)
    assert grid.percentile(count_n) == pytest.approx(grid.lowest)


@given(st.floats(1e-5, 1e3))
def test_the_percentile_of_a_point_mass_is_the_point(seconds: float) -> None:
    count_n = LATENCIES.no_counts(1)[0]
    for _ in range(20):
        LATENCIES.count(count_n, math.log(seconds), 1.0)
    assert math.exp(LATENCIES.percentile(count_n)) == pytest.approx(seconds, rel=0.1)
