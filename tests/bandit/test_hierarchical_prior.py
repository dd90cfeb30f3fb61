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
    MAX_PRIOR_MASS,
    SPREADS,
    HierarchicalPrior,
    data_means,
    pool_priors,
    replace_contribution,
    zero_contribution,
)
from pointsman.bandit.join import join
from pointsman.bandit.outcome import Signal
from pointsman.bandit.posterior import INTERCEPT_PRECISION, QUALITY, RESPONSES, Prior, add_models, empty, set_prior
from pointsman.bandit.state import active_budgets, bucket_to_decide, fingerprint, rebuild_pool
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
        new = np.array(numbers).reshape(2, 3, RESPONSES)
        replace_contribution(incremental, models, latest, new)
        latest = new
    replace_contribution(direct, models, zero_contribution(2), latest)
    for name in ("evidence_rg", "following_2r", *(("precision_rgmm", "eta_rgm") if direct.models else ())):
        np.testing.assert_allclose(getattr(incremental, name), getattr(direct, name), rtol=1e-9, atol=1e-6)


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
        x_d, before = bucket.context_d, bucket.contribution_2mr
        pooled = pool_priors(pool, bucket.columns, before, bucket.posteriors, x_d, default)
        replace_contribution(pool, bucket.columns, before, pooled.contribution_2mr)
        bucket.contribution_2mr = pooled.contribution_2mr
        for k, prior in enumerate(pooled.priors):
            set_prior(bucket.posteriors, k, *prior)
    bucket = world.state.buckets["b0"]
    again = pool_priors(pool, bucket.columns, bucket.contribution_2mr, bucket.posteriors, bucket.context_d, default)
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
        masses.append((bucket.posteriors.mass_k.copy(), world.state.hierarchical_prior.eta_rgm.copy()))
    np.testing.assert_allclose(masses[0][0], masses[1][0], rtol=1e-9)
    np.testing.assert_allclose(masses[0][1], masses[1][1], rtol=1e-9, atol=1e-12)


def test_a_deleted_model_leaves_the_pool_as_if_it_had_never_been_there() -> None:
    world, rng = world_of_buckets(9, others=3)
    world.put(ModelDeleted("fair"))
    pool = world.state.hierarchical_prior
    assert sorted(pool.models) == ["good", "poor"]
    direct = HierarchicalPrior(["good", "poor"] if pool.models[0] == "good" else ["poor", "good"])
    direct.precision_rgmm = np.zeros((RESPONSES, len(SPREADS), 2, 2))
    direct.eta_rgm = np.zeros((RESPONSES, len(SPREADS), 2))
    for bucket in world.state.buckets.values():
        zero = zero_contribution(len(bucket.columns))
        replace_contribution(direct, bucket.columns, zero, bucket.contribution_2mr)
    np.testing.assert_allclose(pool.precision_rgmm, direct.precision_rgmm, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(pool.evidence_rg, direct.evidence_rg, rtol=1e-9, atol=1e-9)
    play(world, "b0", 5, 0.5, rng)


def test_a_pool_made_anew_is_the_pool() -> None:
    world, _ = world_of_buckets(10, others=3)
    before = world.state.hierarchical_prior.precision_rgmm[QUALITY].copy()
    rebuild_pool(world.state)
    np.testing.assert_allclose(world.state.hierarchical_prior.precision_rgmm[QUALITY], before, rtol=0.2)


def test_a_deleted_bucket_withdraws_its_contribution() -> None:
    world, rng = world_of_buckets(6, others=2)
    pool = world.state.hierarchical_prior
    before = pool.precision_rgmm.copy(), pool.eta_rgm.copy(), pool.evidence_rg.copy()
    world.put(BucketPut(Bucket("passing", objective=BEST)))
    play(world, "passing", 200, 0.5, rng)
    assert np.trace(pool.precision_rgmm[QUALITY, 0]) > 1.1 * np.trace(before[0][QUALITY, 0])
    world.put(BucketDeleted("passing"))
    for now, then in zip((pool.precision_rgmm, pool.eta_rgm, pool.evidence_rg), before, strict=True):
        np.testing.assert_allclose(now, then, rtol=1e-9, atol=1e-9)
    assert len(fingerprint(world.state)) == 64
    assert world.now_ns > SECOND


def test_offsets_are_those_of_the_joint_normal_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the dense joint distribution of all levels, offsets and cells, at one spread."""
    monkeypatch.setattr(hierarchical_prior, "SPREADS", (0.5,))
    rng, k, buckets, noise, tau = np.random.default_rng(12), 3, 5, 0.2, 0.05
    models = [f"m{i}" for i in range(k)]
    pool = HierarchicalPrior(
        precision_rgmm=np.zeros((RESPONSES, 1, 0, 0)),
        eta_rgm=np.zeros((RESPONSES, 1, 0)),
        evidence_rg=np.zeros((RESPONSES, 1)),
    )
    count_zk = rng.integers(0, 6, (buckets, k))
    value_zk = rng.random((buckets, k))
    for count_k, value_k in zip(count_zk, value_zk, strict=True):
        contribution = zero_contribution(k)
        contribution[:, 0, QUALITY] = 1.0, noise
        contribution[:, 1:, QUALITY] = np.where(count_k > 0, value_k, 0.0), count_k
        replace_contribution(pool, models, zero_contribution(k), contribution)
    elsewhere = hierarchical_prior._elsewhere(pool, models, zero_contribution(k))
    # unknowns: the mean of levels, k offsets; each cell is their sum with its bucket's level and its own deviation and noise
    map_ci = np.hstack([np.ones((buckets * k, 1)), np.tile(np.eye(k), (buckets, 1))])
    same_bucket_cc = np.kron(np.eye(buckets), np.ones((k, k)))
    count_c = count_zk.ravel()
    variance_cc = 0.15**2 * same_bucket_cc + np.diag(tau**2 + noise / np.maximum(count_c, 1e-300))
    seen_c = count_c > 0
    map_ci, variance_cc = map_ci[seen_c], variance_cc[np.ix_(seen_c, seen_c)]
    precision_ii = np.diag([0.3**-2.0, *[0.2**-2.0] * k]) + map_ci.T @ np.linalg.solve(variance_cc, map_ci)
    value_c = value_zk.ravel()[seen_c] - 0.5
    mean_i = np.linalg.solve(precision_ii, map_ci.T @ np.linalg.solve(variance_cc, value_c))
    np.testing.assert_allclose(elsewhere.offset_rgk[QUALITY, 0], mean_i[1:] - mean_i[1:].mean(), atol=1e-10)
    assert elsewhere.level_rg[QUALITY, 0] == pytest.approx(0.5 + mean_i[0] + mean_i[1:].mean())
    prior_ii = np.diag([0.3**2, *[0.2**2] * k])
    marginal_cc = variance_cc + map_ci @ prior_ii @ map_ci.T
    log_evidence = -0.5 * (np.linalg.slogdet(marginal_cc)[1] + value_c @ np.linalg.solve(marginal_cc, value_c))
    nothing = HierarchicalPrior(
        models,
        np.zeros((RESPONSES, 1, k, k)),
        np.zeros((RESPONSES, 1, k)),
        np.zeros((RESPONSES, 1)),
    )
    at_prior = hierarchical_prior._elsewhere(nothing, models, zero_contribution(k)).log_evidence_rg[QUALITY, 0]
    assert elsewhere.log_evidence_rg[QUALITY, 0] - at_prior == pytest.approx(log_evidence)


def contribution_of(values: list[float], count: int) -> np.ndarray:
    """What a bucket says whose models each had ``count`` outcomes of these means."""
    contribution = zero_contribution(len(values))
    contribution[:, 0, QUALITY] = 1.0, 0.2
    contribution[:, 1:, QUALITY] = values, [float(count)] * len(values)
    return contribution


def mass_after(buckets: int, deviation: float) -> float:
    """The mass of a new bucket's prior after so many buckets whose offsets deviate so much."""
    rng, models, pool = np.random.default_rng(3), ["a", "b"], HierarchicalPrior()
    for _ in range(buckets):
        values = rng.uniform(0.4, 0.6) + np.array([-0.1, 0.1]) + deviation * rng.normal(size=2)
        replace_contribution(pool, models, zero_contribution(2), contribution_of(values.tolist(), 100))
    default = [Prior(0.5, b=0.5)] * RESPONSES
    fresh = add_models(empty(1), 2, default)
    return pool_priors(pool, models, zero_contribution(2), fresh, np.ones(1), default).priors[0][1]


def test_buckets_that_agree_make_a_prior_worth_ever_more() -> None:
    agree = [mass_after(buckets, 0.01) for buckets in (3, 10, 100)]
    assert agree[0] < agree[1] < agree[2]
    assert agree[2] > 60.0
    assert mass_after(100, 0.2) < 12.0


def test_outcomes_of_single_models_say_how_models_differ_where_levels_are_alike() -> None:
    """No bucket has two models' outcomes, yet those of one model are better in all of theirs."""
    models, pool = ["a", "b"], HierarchicalPrior()
    for i in range(20):
        one = zero_contribution(2)
        one[:, 0, QUALITY] = 1.0, 0.2
        one[:, 1 + i % 2, QUALITY] = 0.4 + 0.2 * (i % 2), 20.0
        replace_contribution(pool, models, zero_contribution(2), one)
    offset_k = hierarchical_prior._elsewhere(pool, models, zero_contribution(2)).offset_rgk[QUALITY, 0]
    assert offset_k.tolist() == pytest.approx([-0.1, 0.1], abs=0.03)


def test_a_waiting_bucket_decides_first_with_what_others_know_by_now() -> None:
    rng = np.random.default_rng(13)
    world = World(Bucket("b0", objective=BEST), [Model(name) for name in OFFSETS], 3)
    world.put(BucketPut(Bucket("waiting", objective=BEST)))
    for i in range(4):
        world.put(BucketPut(Bucket(f"b{i}", objective=BEST)))
        play(world, f"b{i}", 150, 0.5, rng)
    bucket, before = world.state.buckets["waiting"], fingerprint(world.state)
    present = bucket_to_decide(world.state, bucket)
    assert fingerprint(world.state) == before
    mean = dict(zip(present.columns, present.posteriors.prior_kr2[:, QUALITY, 0], strict=True))
    assert mean["good"] > mean["fair"] + 0.05 > mean["poor"] + 0.1
    assert bucket.posteriors.mass_k.max() == INTERCEPT_PRECISION
    # the fold puts the same once it has the decision
    play(world, "waiting", 1, 0.5, rng)
    np.testing.assert_allclose(bucket.posteriors.mass_k, present.posteriors.mass_k)


def test_a_bucket_past_its_youth_decides_with_what_its_own_events_put() -> None:
    world, _ = world_of_buckets(14, others=2)
    assert bucket_to_decide(world.state, world.state.buckets["b0"]) is world.state.buckets["b0"]
    world.put(BucketPut(Bucket("own", objective=BEST, priors=Priors(quality=0.5))))
    assert bucket_to_decide(world.state, world.state.buckets["own"]) is world.state.buckets["own"]


def test_a_model_that_fails_in_one_bucket_is_left_there() -> None:
    """However much others agree that it is good: what a prior is worth ends with the cell's youth."""
    models = list(OFFSETS)
    world = World(Bucket("b0", objective=BEST), [Model(name) for name in models], 15)
    pool = world.state.hierarchical_prior
    order = world.state.buckets["b0"].columns
    for i in range(60):
        values = [0.4 + 0.002 * i + OFFSETS[model] for model in order]
        replace_contribution(pool, order, zero_contribution(3), contribution_of(values, 100))
    world.put(BucketPut(Bucket("drops", objective=BEST)))
    rng, bucket = np.random.default_rng(16), world.state.buckets["drops"]
    assert bucket.posteriors.mass_k.max() > 60.0
    assert play(world, "drops", 120, 0.5, rng).count("good") > 100
    assert bucket.posteriors.mass_k[bucket.columns.index("good")] <= 30.0
    after = play(world, "drops", 300, 0.5, rng, {"good": -0.4, "fair": 0.0, "poor": -0.15})
    assert after[100:].count("good") < 20  # of 200


def test_pooled_priors_age_with_their_bucket() -> None:
    """What others say of a model that is hardly chosen weighs less the longer the bucket goes on without it."""
    world, rng = world_of_buckets(17, others=3)
    world.put(BucketPut(Bucket("long", objective=BEST)))
    world.put(BucketPut(Bucket("sure", objective=BEST, half_life=0.0, half_life_ns=0)))
    mass = {}
    for name in ("long", "sure"):
        play(world, name, 512, 0.5, rng)
        bucket = world.state.buckets[name]
        k = bucket.columns.index("poor")
        pooled = pool_priors(
            world.state.hierarchical_prior, bucket.columns, bucket.contribution_2mr, bucket.posteriors, bucket.context_d,
            [Prior(0.5, b=0.5)] * RESPONSES,
        )  # fmt: skip
        mass[name] = bucket.posteriors.mass_k[k] / pooled.priors[k][1]
    assert mass["long"] == pytest.approx(0.5, rel=0.2)
    assert mass["sure"] == pytest.approx(1.0, rel=0.2)
