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
from pointsman.bandit.event import BucketDeleted, BucketPut, ModelDeleted, ModelPut
from pointsman.bandit.hierarchical_prior import (
    LEVELS,
    MAX_PRIOR_MASS,
    HierarchicalPrior,
    data_means,
    pool_priors,
    replace_contribution,
    zero_contribution,
)
from pointsman.bandit.join import join
from pointsman.bandit.outcome import Signal
from pointsman.bandit.posterior import INTERCEPT_PRECISION, QUALITY, RESPONSES, Prior, add_models, empty, set_prior
from pointsman.bandit.state import active_budgets, fingerprint, rebuild_pool
from pointsman.bandit.updates import observe_all
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
    assert masses["unlike"] < 0.7 * masses["alike"]


def test_a_model_new_everywhere_has_the_population_s_prior() -> None:
    world, _ = world_of_buckets(5)
    world.put(ModelPut(Model("unheard")))
    bucket = world.state.buckets["b1"]
    k = bucket.columns.index("unheard")
    own = [float(bucket.posteriors.mean_krd[bucket.columns.index(m), QUALITY] @ bucket.context_d) for m in OFFSETS]
    prior = bucket.posteriors.prior_kr2[k, QUALITY, 0]
    assert min(own) - 0.1 < prior < max(own) + 0.1
    assert INTERCEPT_PRECISION <= bucket.posteriors.mass_k[k] <= MAX_PRIOR_MASS


CELLS = 3 * RESPONSES
unit = st.lists(st.floats(0, 1), min_size=2 * CELLS, max_size=2 * CELLS)


@settings(deadline=None)
@given(st.lists(unit, max_size=6))
def test_only_the_last_contribution_counts(histories: list[list[float]]) -> None:
    models = ("m", "n")
    incremental, direct, latest = HierarchicalPrior(), HierarchicalPrior(), zero_contribution(2)
    for numbers in histories:
        new = np.zeros((3, 3, RESPONSES))
        new[:2] = np.array(numbers).reshape(2, 3, RESPONSES)
        new[2] = 0.5
        replace_contribution(incremental, models, latest, new)
        latest = new
    replace_contribution(direct, models, zero_contribution(2), latest)
    np.testing.assert_allclose(incremental.sum_sr, direct.sum_sr, atol=1e-12)
    if direct.models:
        np.testing.assert_allclose(incremental.precision_rmm, direct.precision_rmm, atol=1e-12)
        np.testing.assert_allclose(incremental.eta_rm, direct.eta_rm, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.floats(-1, 2), st.floats(0.1, 30), st.integers(0, 2**32 - 1))
def test_a_bucket_reports_data_and_no_prior(intercept: float, mass: float, seed: int) -> None:
    rng, x_d = np.random.default_rng(seed), np.array([0.3, 1.0])
    posteriors = add_models(empty(2), 1, [Prior(0.5, b=0.5)] * RESPONSES)
    values = rng.random(20)
    for value in values:
        observe_all(posteriors, 0, np.array([0.0, 1.0]), [(QUALITY, value)])
    set_prior(posteriors, 0, [Prior(intercept, b=0.5)] * RESPONSES, mass)
    count_kr, value_kr = data_means(posteriors, x_d)
    assert count_kr[0].tolist() == pytest.approx([20, 0, 0, 0])
    assert value_kr[0, QUALITY] == pytest.approx(values.mean(), abs=1e-6)


def test_buckets_that_are_told_repeatedly_do_not_echo() -> None:
    """However often priors are renewed without new data, the pool and the priors stay what they are."""
    world, _ = world_of_buckets(7, others=3)
    pool, default = world.state.hierarchical_prior, [Prior(0.5, b=0.5)] * RESPONSES
    for bucket in list(world.state.buckets.values()) * 10:
        x_d, before = bucket.context_d, bucket.contribution_3mr
        pooled = pool_priors(pool, bucket.columns, before, bucket.posteriors, x_d, default)
        replace_contribution(pool, bucket.columns, before, pooled.contribution_3mr)
        bucket.contribution_3mr = pooled.contribution_3mr
        for k, prior in enumerate(pooled.priors):
            set_prior(bucket.posteriors, k, *prior)
    bucket = world.state.buckets["b0"]
    again = pool_priors(pool, bucket.columns, bucket.contribution_3mr, bucket.posteriors, bucket.context_d, default)
    for (priors, mass), (intercept, _), kept in zip(
        again.priors, bucket.posteriors.prior_kr2[:, QUALITY], bucket.posteriors.mass_k, strict=True
    ):
        assert priors[QUALITY].intercept == pytest.approx(intercept, abs=1e-3)
        assert mass == pytest.approx(kept, rel=0.02)


def test_a_bucket_of_opposite_effects_pays_for_a_few_calls() -> None:
    opposite = {model: -offset for model, offset in OFFSETS.items()}
    lost: dict[str, float] = {"pooled": 0.0, "alone": 0.0}
    for seed in range(30, 42):
        world, rng = world_of_buckets(seed, others=6)
        for name, priors in (("pooled", Priors()), ("alone", Priors(quality=0.5))):
            world.put(BucketPut(Bucket(name, objective=BEST, priors=priors)))
            chosen = play(world, name, 100, 0.5, rng, opposite)
            lost[name] += sum(0.15 - opposite[model] for model in chosen) / 100 / 12
    assert lost["pooled"] < lost["alone"] + 0.05  # 0.3 is lost by a call of the worst: 17 of 100


def test_priors_do_not_depend_on_the_order_of_outcomes() -> None:
    """Two outcomes that come late, in either order, between the same decisions."""
    masses = []
    for order in ((0, 1), (1, 0)):
        world, rng = world_of_buckets(8, others=2)
        world.put(BucketPut(Bucket("late", objective=BEST)))
        play(world, "late", 5, 0.5, rng)
        bucket, decisions = world.state.buckets["late"], []
        for _ in range(2):
            (decision,) = decide(
                bucket,
                [bucket.encoder.encode(Context())],
                [world.state.position.to_bytes(16, "big")],
                world.rng,
                health={},
                now_ns=world.now_ns,
                state_position=world.state.position,
            )
            world.put(decision)
            decisions.append(decision)
        for i in order:
            world.put(join(bucket, decisions[i], world.now_ns, {Signal.QUALITY: (0.1, 0.9)[i]}))
        play(world, "late", 1, 0.5, rng)
        masses.append((bucket.posteriors.mass_k.copy(), world.state.hierarchical_prior.sum_sr.copy()))
    np.testing.assert_allclose(masses[0][0], masses[1][0], rtol=1e-9)
    np.testing.assert_allclose(masses[0][1], masses[1][1], rtol=1e-9, atol=1e-12)


def test_a_deleted_model_leaves_the_pool_as_if_it_had_never_been_there() -> None:
    world, rng = world_of_buckets(9, others=3)
    world.put(ModelDeleted("fair"))
    pool = world.state.hierarchical_prior
    assert sorted(pool.models) == ["good", "poor"]
    direct = HierarchicalPrior(["good", "poor"] if pool.models[0] == "good" else ["poor", "good"])
    direct.precision_rmm, direct.eta_rm = np.zeros((RESPONSES, 2, 2)), np.zeros((RESPONSES, 2))
    for bucket in world.state.buckets.values():
        zero = zero_contribution(len(bucket.columns))
        replace_contribution(direct, bucket.columns, zero, bucket.contribution_3mr)
    np.testing.assert_allclose(pool.precision_rmm, direct.precision_rmm, atol=1e-12)
    np.testing.assert_allclose(pool.sum_sr, direct.sum_sr, atol=1e-12)
    play(world, "b0", 5, 0.5, rng)


def test_a_pool_made_anew_is_the_pool() -> None:
    world, _ = world_of_buckets(10, others=3)
    before = world.state.hierarchical_prior.sum_sr.copy()
    rebuild_pool(world.state)
    np.testing.assert_allclose(world.state.hierarchical_prior.sum_sr[:3], before[:3], rtol=0.2)


def test_a_deleted_bucket_withdraws_its_contribution() -> None:
    world, rng = world_of_buckets(6, others=2)
    before = world.state.hierarchical_prior.sum_sr.copy()
    world.put(BucketPut(Bucket("passing", objective=BEST)))
    play(world, "passing", 200, 0.5, rng)
    assert world.state.hierarchical_prior.sum_sr[LEVELS, QUALITY] > before[LEVELS, QUALITY] + 0.5
    world.put(BucketDeleted("passing"))
    np.testing.assert_allclose(world.state.hierarchical_prior.sum_sr, before, atol=1e-12)
    assert len(fingerprint(world.state)) == 64
    assert world.now_ns > SECOND
