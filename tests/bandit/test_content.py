"""The shrinkage of content features adapts to how informative they are."""

from __future__ import annotations

import numpy as np
import pytest

from pointsman.bandit.catalog import Bucket, EmbeddingFeature, Mode, Model, NumberFeature, Objective, Schema
from pointsman.bandit.encoder import Context
from pointsman.bandit.outcome import Signal
from pointsman.bandit.posterior import PRECISION
from tests.bandit.worlds import World

DIM = 16
SCHEMA = Schema(numbers=(NumberFeature("n"),), embeddings=(EmbeddingFeature("e", DIM),))
MODELS = ("a", "b", "c")


def routed(strength: float, seed: int, rounds: int = 800) -> tuple[World, float]:
    """A bucket whose models differ by ``strength`` along directions of an embedding; the share of best choices at the end."""
    rng = np.random.default_rng(seed)
    world = World(Bucket("b", schema=SCHEMA, objective=Objective(Mode.QUALITY_FIRST)), [Model(m) for m in MODELS], seed)
    effect_kd = rng.normal(size=(3, DIM)) * strength
    best = 0
    for t in range(rounds):
        vector_d = rng.normal(size=DIM)
        vector_d /= np.linalg.norm(vector_d)
        decision = world.decide(Context(numbers={"n": 0.0}, embeddings={"e": vector_d}))
        model = decision.models[decision.chosen]
        level_k = 0.5 + effect_kd @ vector_d
        best += t >= rounds - 300 and MODELS[int(level_k.argmax())] == model
        noisy = level_k[MODELS.index(model)] + 0.1 * rng.normal()
        world.report(decision, {Signal.QUALITY: float(np.clip(noisy, 0, 1))})
    return world, best / 300


@pytest.mark.parametrize(("strength", "weaker"), [(0.3, True), (0.0, False)])
def test_shrinkage_follows_the_evidence(strength: float, weaker: bool) -> None:
    world, best = routed(strength, seed=1, rounds=1200)
    shrinkages = world.bucket.posteriors.shrinkages
    assert shrinkages is not None
    most_k = shrinkages.weight_ks.argmax(axis=1)
    assert (most_k > 0).any() if weaker else (most_k == 0).all()
    assert (world.bucket.posteriors.ridge_sd[:, 0] == PRECISION).all()  # a declared number
    if weaker:
        assert best > 0.75


def test_without_content_there_is_one_shrinkage() -> None:
    world = World(Bucket("b", schema=Schema(numbers=(NumberFeature("n"),))), [Model(m) for m in MODELS])
    world.play(100, lambda t, model: {Signal.QUALITY: 0.5}, lambda t: Context({"n": 1.0}))
    assert world.bucket.posteriors.ridge_sd.tolist() == [[PRECISION] * 2]
    assert world.bucket.posteriors.shrinkages is None
