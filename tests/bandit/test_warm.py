"""A warm start has its stated effective sample size, and a misleading one costs a bounded number of requests."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pointsman.bandit.bucket import end_warm_start, learn
from pointsman.bandit.catalog import Bucket, Mode, Model, Objective
from pointsman.bandit.outcome import Signal, SignalChange
from pointsman.bandit.posterior import QUALITY, RESPONSES, Prior, add_models, empty, predict
from pointsman.bandit.updates import allow_shift, observe_all
from tests.bandit.worlds import World

TRUTH = {"a": 0.9, "b": 0.6, "c": 0.7}


def warmed(
    beliefs: dict[str, float], most: float, seed: int, rows: int = 1000, level: float = math.inf
) -> tuple[World, np.random.Generator]:
    """A bucket that learned ``rows`` outcomes of every model offline, at the levels of ``beliefs``."""
    world = World(Bucket("b", objective=Objective(Mode.QUALITY_FIRST)), [Model(m) for m in TRUTH], seed)
    rng, x_d = np.random.default_rng(seed), np.ones(1)
    for _ in range(rows):
        for model, mean in beliefs.items():
            quality = float(np.clip(mean + 0.15 * rng.normal(), 0, 1))
            learn(world.bucket, model, x_d, [SignalChange(Signal.QUALITY, None, quality)])
    end_warm_start(world.bucket, most, level)
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


def test_a_level_counts_as_stated_and_effects_as_before() -> None:
    """Another judge's offset is integrated out: levels give way to a few outcomes, slopes stay as sure as they were."""
    rng = np.random.default_rng(2)
    posteriors = add_models(empty(3), 1, [Prior(0.5, b=0.5)] * RESPONSES)
    x_nd = np.column_stack([rng.normal(size=(400, 2)), np.ones(400)])
    for x_d in x_nd:
        observe_all(posteriors, 0, x_d, [(QUALITY, float(x_d @ [0.1, -0.2, 0.6] + 0.1 * rng.normal()))])
    mean_d = posteriors.mean_krd[0, QUALITY].copy()
    _, sure = predict(posteriors, np.array([1.0, 0.0, 0.0]))
    allow_shift(posteriors, 0, 0, 30.0)
    np.testing.assert_allclose(posteriors.mean_krd[0, QUALITY], mean_d, atol=0.01)
    assert posteriors.designs[0].precision_kp[0, -1] == pytest.approx(400 * 30 / 430 + posteriors.mass_k[0])
    _, slopes = predict(posteriors, np.array([1.0, 0.0, 0.0]))
    assert slopes[0, QUALITY] == pytest.approx(sure[0, QUALITY], rel=0.1)


@pytest.mark.parametrize("offset", [-0.3, 0.2])
def test_a_judge_whose_scores_are_all_shifted_costs_nearly_nothing(offset: float) -> None:
    losses = []
    for seed in range(5):
        world, rng = warmed(
            {model: level + offset for model, level in TRUTH.items()}, math.inf, seed, rows=300, level=30.0
        )
        losses.append(lost(world, rng, 600))
    assert max(losses) <= 28  # a model that is hardly chosen is retried once or twice more
