"""A bucket with little data starts from its models' posteriors elsewhere, the more so the more alike buckets are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.bandit import hierarchical_prior
from pointsman.bandit.catalog import Bucket, Mode, Model, Objective, Priors
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Context
from pointsman.bandit.event import BucketDeleted, BucketPut, ModelPut
from pointsman.bandit.hierarchical_prior import (
    MAX_PRIOR_MASS,
    MOMENTS,
    HierarchicalPrior,
    replace_contribution,
    zero_contribution,
)
from pointsman.bandit.join import join
from pointsman.bandit.outcome import Signal
from pointsman.bandit.posterior import INTERCEPT_PRECISION, QUALITY, RESPONSES
from pointsman.bandit.state import active_budgets, fingerprint
from tests.bandit.worlds import SECOND, World

OFFSETS = {"good": 0.15, "fair": 0.0, "poor": -0.15}
BEST = Objective(Mode.QUALITY_FIRST)


def play(
    world: World, bucket_id: str, rounds: int, level: float, rng: np.random.Generator, offsets=OFFSETS
) -> list[str]:
    """Decide and report in one bucket; the models differ by ``offsets`` from the bucket's ``level``."""
    chosen = []
    for _ in range(rounds):
        bucket = world.state.buckets[bucket_id]
        decision = decide(
            bucket,
            [bucket.encoder.encode(Context())],
            [world.state.position.to_bytes(16, "big")],
            world.rng,
            health={},
            now_ns=world.now_ns,
            state_position=world.state.position,
            active_budgets=active_budgets(world.state, bucket),
        )[0]
        world.put(decision)
        model = decision.models[decision.chosen]
        quality = float(np.clip(level + offsets[model] + 0.2 * rng.normal(), 0, 1))
        world.put(join(bucket, decision, world.now_ns, {Signal.QUALITY: quality}))
        chosen.append(model)
    return chosen


def world_of_buckets(seed: int, others: int = 4) -> tuple[World, np.random.Generator]:
    """Several buckets of different levels in which the models have been tried."""
    rng = np.random.default_rng(seed)
    world = World(Bucket("b0", objective=BEST), [Model(name) for name in OFFSETS], seed)
    for i in range(others):
        world.put(BucketPut(Bucket(f"b{i}", objective=BEST)))
        play(world, f"b{i}", 150, 0.3 + 0.1 * i, rng)
    return world, rng


def test_a_new_bucket_starts_far_better_than_ignorant() -> None:
    pooled, alone = [], []
    for seed in range(8):
        world, rng = world_of_buckets(seed)
        world.put(BucketPut(Bucket("fresh", objective=BEST)))
        pooled += play(world, "fresh", 25, 0.75, rng)
        world.put(BucketPut(Bucket("own", objective=BEST, priors=Priors(quality=0.5))))  # says what to believe
        alone += play(world, "own", 25, 0.75, rng)
    assert pooled.count("good") / len(pooled) > alone.count("good") / len(alone) + 0.2


def test_the_hierarchical_prior_gives_way_to_data() -> None:
    """Where a model is the opposite of what it is elsewhere, that is found out."""
    poor_shares = []
    for seed in range(20, 26):
        world, rng = world_of_buckets(seed)
        world.put(BucketPut(Bucket("odd", objective=BEST)))
        chosen = play(world, "odd", 800, 0.5, rng, {"good": -0.2, "fair": 0.0, "poor": 0.2})
        poor_shares.append(chosen[600:].count("poor") / 200)
    assert np.median(poor_shares) > 0.9


def test_buckets_that_existed_before_anybody_knew_anything_profit_too() -> None:
    rng = np.random.default_rng(3)
    world = World(Bucket("b0", objective=BEST), [Model(name) for name in OFFSETS], 3)
    world.put(BucketPut(Bucket("waiting", objective=BEST)))
    for i in range(4):
        world.put(BucketPut(Bucket(f"b{i}", objective=BEST)))
        play(world, f"b{i}", 150, 0.5, rng)
    assert world.state.buckets["waiting"].posteriors.mass_k.max() == INTERCEPT_PRECISION
    play(world, "waiting", 1, 0.5, rng)
    bucket = world.state.buckets["waiting"]
    assert bucket.posteriors.mass_k.max() > 1.0
    mean = dict(zip(bucket.columns, bucket.posteriors.prior_kr2[:, QUALITY, 0], strict=True))
    assert mean["good"] > mean["fair"] > mean["poor"]


def test_a_prior_is_worth_less_where_buckets_differ_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hierarchical_prior, "MAX_PRIOR_MASS", 100.0)
    masses = {}
    for name, swing in (("alike", 0.0), ("unlike", 0.5)):
        rng = np.random.default_rng(4)
        world = World(Bucket("b0", objective=BEST), [Model(n) for n in OFFSETS], 4)
        for i in range(6):
            world.put(BucketPut(Bucket(f"b{i}", objective=BEST)))
            sign = 1 if i % 2 else -1
            offsets = {
                m: o + swing * sign * (1 if m == "good" else -1 if m == "poor" else 0) for m, o in OFFSETS.items()
            }
            play(world, f"b{i}", 300, 0.5, rng, offsets)
        world.put(BucketPut(Bucket("fresh", objective=BEST)))
        bucket = world.state.buckets["fresh"]
        masses[name] = bucket.posteriors.mass_k[bucket.columns.index("good")]
    assert masses["unlike"] < 0.5 * masses["alike"]


def test_a_model_new_everywhere_has_the_population_s_prior() -> None:
    world, _ = world_of_buckets(5)
    world.put(ModelPut(Model("unheard")))
    bucket = world.state.buckets["b1"]
    k = bucket.columns.index("unheard")
    own = [float(bucket.posteriors.mean_krd[bucket.columns.index(m), QUALITY] @ bucket.context_d) for m in OFFSETS]
    prior = bucket.posteriors.prior_kr2[k, QUALITY, 0]
    assert min(own) - 0.1 < prior < max(own) + 0.1
    assert INTERCEPT_PRECISION <= bucket.posteriors.mass_k[k] <= MAX_PRIOR_MASS


said = st.lists(st.floats(0, 1), min_size=3 * 3 * RESPONSES, max_size=3 * 3 * RESPONSES)


@settings(deadline=None)
@given(st.lists(said, max_size=6))
def test_only_the_last_contribution_counts(all_said: list[list[float]]) -> None:
    models = ("m", "n")
    incremental, direct, latest = HierarchicalPrior(), HierarchicalPrior(), zero_contribution(2)
    for numbers in all_said:
        new = np.array(numbers).reshape(3, 3, RESPONSES)
        replace_contribution(incremental, models, latest, new)
        latest = new
    replace_contribution(direct, models, zero_contribution(2), latest)
    np.testing.assert_allclose(incremental.level_4r, direct.level_4r, atol=1e-12)
    for model in models:
        zero = np.zeros((MOMENTS, RESPONSES))
        np.testing.assert_allclose(
            incremental.offset_4r.get(model, zero), direct.offset_4r.get(model, zero), atol=1e-12
        )


def test_a_deleted_bucket_withdraws_its_contribution() -> None:
    world, rng = world_of_buckets(6, others=2)
    before = world.state.hierarchical_prior.level_4r.copy()
    world.put(BucketPut(Bucket("passing", objective=BEST)))
    play(world, "passing", 200, 0.5, rng)
    assert world.state.hierarchical_prior.level_4r[0, QUALITY] > before[0, QUALITY] + 0.5
    world.put(BucketDeleted("passing"))
    np.testing.assert_allclose(world.state.hierarchical_prior.level_4r, before, atol=1e-12)
    assert len(fingerprint(world.state)) == 64
    assert world.now_ns > SECOND
