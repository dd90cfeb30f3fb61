"""Features are used whatever their units, offsets, tails and gaps; what is declared rightly stays as declared."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.bandit.catalog import (
    Bucket,
    EmbeddingFeature,
    Mode,
    Model,
    NumberFeature,
    Objective,
    Schema,
)
from pointsman.bandit.encoder import Context, Encoder
from pointsman.bandit.event import BucketPut
from pointsman.bandit.feature_scales import (
    SAMPLE,
    FeatureScales,
    count_context,
    fit,
    new_scales,
    present,
    score,
    suits,
)
from pointsman.bandit.outcome import Signal
from pointsman.bandit.packed import Array
from tests.bandit.worlds import World

BEST = Objective(Mode.QUALITY_FIRST)


def scales_of(values: Array) -> FeatureScales:
    scales = new_scales(numbers=1, embeddings=0)
    for value in values:
        count_context(scales, np.array([value]))
    fit(scales)
    return scales


@given(st.integers(1, 3000))
def test_the_sample_is_spread_over_the_whole_life(count: int) -> None:
    scales = scales_of(np.arange(float(count)))
    values = present(scales, 0)
    every = next(2**i for i in range(16) if count <= SAMPLE * 2**i)
    assert scales.sampled == len(values)
    assert min(count, SAMPLE // 2) <= len(values) <= SAMPLE
    np.testing.assert_array_equal(values, np.arange(0.0, count, every))


@pytest.mark.parametrize(
    ("values", "suited"),
    [
        (np.linspace(-2, 2, 100), True),
        (np.linspace(0, 1, 100), True),
        (np.repeat([0.0, 1.0], 50), True),
        (np.append(np.zeros(99), 1.0), True),  # a flag that is rarely set
        (np.zeros(100), True),  # a constant
        (np.linspace(-2, 2, 100) / 1000, False),
        (np.linspace(-2, 2, 100) * 1000, False),
        (1.7e9 + np.linspace(-2, 2, 100), False),
        (np.full(100, 1e6), False),
        (np.sort(np.exp(2 * np.random.default_rng(0).normal(size=100))), False),
        (np.repeat([0.0, 1000.0], 50), False),
    ],
)
def test_what_suits_a_declaration(values: Array, suited: bool) -> None:
    assert suits(values) is suited
    assert bool(scales_of(values).fitted) is not suited


@given(st.floats(1e-6, 1e6), st.floats(-1e3, 1e3), st.floats(-3, 3))
def test_scores_do_not_depend_on_the_unit(unit: float, offset: float, value: float) -> None:
    latent = np.random.default_rng(0).normal(size=100)
    plain, converted = scales_of(1e4 * latent), scales_of(1e4 * unit * (latent + offset))
    if converted.fitted:
        assert score(converted, 0, 1e4 * unit * (value + offset)) == pytest.approx(
            score(plain, 0, 1e4 * value), abs=0.06
        )


def test_scores_are_about_the_normal_ones() -> None:
    scales = scales_of(1e-3 * np.random.default_rng(0).normal(size=128))
    for value in (-2.0, -1.0, 0.0, 1.0, 2.0):
        assert score(scales, 0, 1e-3 * value) == pytest.approx(value, abs=0.5)
    assert abs(score(scales, 0, 1e300)) < 2.7
    assert score(scales_of(np.full(50, 7e5)), 0, 7e5) == 0.0


def test_an_embedding_is_scaled_by_its_length() -> None:
    encoder = Encoder(
        Schema(numbers=(NumberFeature("n", optional=True),), embeddings=(EmbeddingFeature("e", 4, optional=True),))
    )
    scales = new_scales(numbers=1, embeddings=1)
    vectors_nd = 100.0 * np.random.default_rng(0).normal(size=(50, 4))
    encoded = [encoder.encode(Context(embeddings={"e": vector_d})) for vector_d in vectors_nd]
    for context in encoded:
        count_context(scales, context.measured_m)
    fit(scales)
    rescaled_nd = np.array([encoder.rescale(c.x_d, c.measured_m, scales) for c in encoded])[:, 1:5]
    lengths_n = np.linalg.norm(vectors_nd, axis=1)
    np.testing.assert_allclose(3.0 * rescaled_nd, vectors_nd / np.median(lengths_n), rtol=1e-5)
    missing = encoder.encode(Context())
    np.testing.assert_array_equal(encoder.rescale(missing.x_d, missing.measured_m, scales), missing.x_d)


def told(number: NumberFeature, of: Callable[[float], float], seed: int = 0, rounds: int = 400) -> tuple[World, float]:
    """A bucket whose best of two models depends on the sign of a number; the share of right choices in the second half."""
    schema, rng, right = Schema(numbers=(number,)), np.random.default_rng(seed), 0
    world = World(Bucket("b", schema=schema, objective=BEST), [Model("high"), Model("low")], seed)
    for t in range(rounds):
        latent = rng.normal()
        decision = world.decide(Context({number.name: of(latent)}))
        best = "high" if latent > 0.0 else "low"
        chosen = decision.models[decision.chosen]
        right += t >= rounds // 2 and chosen == best
        world.report(decision, {Signal.QUALITY: float(rng.random() < (0.9 if chosen == best else 0.1))})
    return world, 2.0 * right / rounds


@pytest.mark.parametrize(
    ("number", "of"),
    [
        (NumberFeature("n"), lambda z: z),
        (NumberFeature("n", scale=1000.0), lambda z: z),
        (NumberFeature("n"), lambda z: 1000.0 * z),
        (NumberFeature("n"), lambda z: 1.7e9 + 43_200.0 * z),
        (NumberFeature("n"), lambda z: float(np.exp(3.0 * z))),
        (NumberFeature("n"), lambda z: z**5),
    ],
    ids=["declared", "scale too large", "scale too small", "time stamp", "log-normal", "heavy tails"],
)
def test_a_number_is_used_whatever_its_scale(number: NumberFeature, of: Callable[[float], float]) -> None:
    shares = [told(number, of, seed)[1] for seed in range(3)]
    assert np.mean(shares) > 0.85


def test_a_right_declaration_stays() -> None:
    world, _ = told(NumberFeature("n"), lambda z: z)
    assert not world.bucket.scales.fitted


def test_missing_numbers_are_told_from_the_center() -> None:
    rng, right = np.random.default_rng(1), 0
    schema = Schema(numbers=(NumberFeature("n", optional=True),))
    world = World(Bucket("b", schema=schema, objective=BEST), [Model("here"), Model("gone")])
    for t in range(400):
        there = bool(rng.random() < 0.5)
        decision = world.decide(Context({"n": 0.0} if there else {}))
        best = "here" if there else "gone"
        chosen = decision.models[decision.chosen]
        right += t >= 200 and chosen == best
        world.report(decision, {Signal.QUALITY: float(rng.random() < (0.9 if chosen == best else 0.1))})
    assert right > 170


def test_corrections_are_exact_whatever_was_fitted_meanwhile() -> None:
    def world_of(first: float) -> World:
        world, rng = (
            World(Bucket("b", schema=Schema(numbers=(NumberFeature("n", scale=1e3),)), objective=BEST), [Model("a")]),
            (np.random.default_rng(0)),
        )
        early = world.decide(Context({"n": 3.0}))
        reported = world.report(early, {Signal.QUALITY: first})
        for _ in range(100):
            world.report(world.decide(Context({"n": rng.normal()})), {Signal.QUALITY: float(rng.random())})
        assert world.bucket.scales.fitted
        if first != 0.25:
            world.report(early, {Signal.QUALITY: 0.25}, reported)
        return world

    straight, corrected = world_of(0.25).bucket.posteriors, world_of(1.0).bucket.posteriors
    np.testing.assert_allclose(corrected.mean_krd, straight.mean_krd, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(corrected.b_kr, straight.b_kr, rtol=1e-9)


def test_a_bucket_keeps_its_encoder_as_long_as_its_schema() -> None:
    schema = Schema(numbers=(NumberFeature("n", scale=1e3, optional=True),))
    world = World(Bucket("other"), [Model("a")])
    world.bucket_id = "b"
    world.put(BucketPut(Bucket("b", schema=schema), encoder_version=1))
    decision = world.decide(Context({"n": 1.0}))
    assert len(decision.x_d) == 2
    for _ in range(40):
        decision = world.decide(Context({"n": 1.0}))
    assert decision.x_d[0] == np.float32(1e-3)  # as declared: what it learned from stays what it meant
    generation = world.bucket.generation
    world.put(BucketPut(Bucket("b", "renamed", schema=schema)))
    assert (world.bucket.encoder.version, world.bucket.generation) == (1, generation)
    world.put(BucketPut(Bucket("b", schema=Schema(numbers=(NumberFeature("n", optional=True),)))))
    assert world.bucket.encoder.version == 2 and world.bucket.generation > generation
    assert len(world.decide(Context({"n": 1.0})).x_d) == 3
