"""A warm start has its stated effective sample size, and a misleading one costs a bounded number of requests."""

from __future__ import annotations

import numpy as np
import pytest

from pointsman.bandit.bucket import end_warm_start, learn
from pointsman.bandit.catalog import Bucket, Mode, Model, Objective
from pointsman.bandit.outcome import Signal, SignalChange
from pointsman.bandit.posterior import QUALITY
from tests.bandit.worlds import World

TRUTH = {"a": 0.9, "b": 0.6, "c": 0.7}


def warmed(beliefs: dict[str, float], most: float, seed: int, rows: int = 1000) -> tuple[World, np.random.Generator]:
    """A bucket that learned ``rows`` outcomes of every model offline, at the levels of ``beliefs``."""
    world = World(Bucket("b", objective=Objective(Mode.QUALITY_FIRST)), [Model(m) for m in TRUTH], seed)
    rng, x_d = np.random.default_rng(seed), np.ones(1)
    for _ in range(rows):
        for model, level in beliefs.items():
            quality = float(np.clip(level + 0.15 * rng.normal(), 0, 1))
            learn(world.bucket, model, x_d, [SignalChange(Signal.QUALITY, None, quality)])
    end_warm_start(world.bucket, most)
    return world, rng


@pytest.mark.parametrize("most", [20.0, 500.0, 5000.0])
def test_it_counts_as_many_observations_as_stated(most: float) -> None:
    world, _ = warmed(TRUTH, most, seed=1)
    posteriors = world.bucket.posteriors
    design = posteriors.designs[posteriors.design_r[QUALITY]]
    for k, model in enumerate(world.bucket.columns):
        assert design.precision_kp[k, -1] - posteriors.mass_k[k] == pytest.approx(
            min(most, 1000.0), rel=0.05
        )  # 1000 decay a little
        assert posteriors.mean_krd[k, QUALITY, -1] == pytest.approx(TRUTH[model], abs=0.03)


def lost(world: World, rng: np.random.Generator, rounds: int = 1500) -> float:
    """Requests' worth of the gap between best and worst that was lost."""

    def answer(t: int, model: str) -> dict[Signal, float]:
        return {Signal.QUALITY: float(np.clip(TRUTH[model] + 0.15 * rng.normal(), 0, 1))}

    chosen = world.play(rounds, answer)
    return sum(0.9 - TRUTH[model] for model in chosen) / 0.3


@pytest.mark.parametrize(
    "beliefs",
    [
        {"a": 0.6, "b": 0.9, "c": 0.7},  # best and worst exchanged
        {"a": 0.4, "b": 0.7, "c": 0.8},  # the order of all three wrong
        {"a": 0.3, "b": 0.99, "c": 0.3},  # wildly sure of the worst
    ],
    ids=["exchanged", "reordered", "wild"],
)
def test_a_misleading_one_costs_at_most_150_requests(beliefs: dict[str, float]) -> None:
    losses = [lost(*warmed(beliefs, 1000.0, seed)) for seed in range(5)]
    assert max(losses) <= 150


def test_a_right_one_is_not_thrown_away() -> None:
    losses = [lost(*warmed(TRUTH, 1000.0, seed)) for seed in range(5)]
    assert max(losses) <= 15
    world, rng = warmed(TRUTH, 1000.0, 9)
    lost(world, rng)
    assert world.bucket.warm_start_k.any()
