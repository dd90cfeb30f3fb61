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
from pointsman.bandit.latency_calibration import (
    EDGES,
    LOWEST,
    PRIOR_CORRECTION,
    STEP,
    count_exceedance,
    log_correction,
    no_exceedances,
)
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


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 1)), max_size=30))
def test_counts_can_be_taken_back(ratios: list[tuple[float, float]]) -> None:
    exceedance_n = no_exceedances(1)[0]
    count_exceedance(exceedance_n, 0.3, 1.0)
    before = exceedance_n.copy()
    for ratio, weight in ratios:
        count_exceedance(exceedance_n, ratio, weight)
    for ratio, weight in reversed(ratios):
        count_exceedance(exceedance_n, ratio, -weight)
    np.testing.assert_allclose(exceedance_n, before, atol=1e-12)


def test_the_factor_is_the_quantile_of_many_ratios() -> None:
    exceedance_n = no_exceedances(1)[0]
    assert log_correction(exceedance_n) == PRIOR_CORRECTION
    assert 0.0 <= PRIOR_CORRECTION <= 2 * STEP
    ratios = np.random.default_rng(5).normal(0.4, 0.3, size=5000)
    for ratio in ratios:
        count_exceedance(exceedance_n, float(ratio), 1.0)
    assert log_correction(exceedance_n) == pytest.approx(np.quantile(ratios, 0.96), abs=1.5 * STEP)
    for _ in range(10_000):
        count_exceedance(exceedance_n, 50.0, 1.0)
    assert log_correction(exceedance_n) == LOWEST + STEP * (EDGES - 1)
