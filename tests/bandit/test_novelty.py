"""What is believed of quality, how new a context is, and that draws have the propensities that are said."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from pointsman.bandit.catalog import (
    Bucket,
    CategoryFeature,
    EmbeddingFeature,
    Mode,
    Model,
    Objective,
    QualityRange,
    Schema,
)
from pointsman.bandit.encoder import Context
from pointsman.bandit.novelty import FAMILIAR, MOST_NOISE, Novelty, wide_shares
from pointsman.bandit.outcome import Signal
from pointsman.bandit.packed import unpack
from pointsman.bandit.policy import choose, logged_propensities, propensities, score_arms
from pointsman.bandit.posterior import QUALITY, Posteriors, Prior, add_models, empty
from pointsman.bandit.predictions import Predictions, predictions_batch
from pointsman.bandit.propensity import Mixtures, argmax_propensities, argmax_propensity, floor_propensities, normals
from pointsman.bandit.propensity_batch import argmax_propensity_batch
from pointsman.bandit.updates import observe_all
from tests.bandit.worlds import World

UNIT = QualityRange()
PRIORS = [Prior(0.5, b=0.5)] * 4


@st.composite
def mixtures(draw: st.DrawFn, max_arms: int = 8, min_arms: int = 1) -> Mixtures:
    """Sds over four decades, weights from nothing to all, means near, apart, or where windows end."""
    k, c = draw(st.integers(min_arms, max_arms)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight_kc = rng.dirichlet(np.full(c, draw(st.sampled_from([0.05, 0.3, 3.0]))), size=k)
    sd_kc = 10.0 ** rng.uniform(-draw(st.sampled_from([0.2, 1.0, 4.0])), 0.0, size=(k, c))
    z_kc = rng.uniform(-8.0, 8.0, size=(k, c))
    mean_kc = draw(st.sampled_from([z_kc * sd_kc, z_kc * sd_kc.max(), 0.1 * z_kc, z_kc * sd_kc.min() - 6.5 * sd_kc]))
    return Mixtures(weight_kc / weight_kc.sum(axis=1, keepdims=True), mean_kc, sd_kc)


@given(mixtures())
def test_laws(arms: Mixtures) -> None:
    """Probabilities sum to 1, go with their arms, and are the same one by one, together and in batches."""
    p_k = argmax_propensities(arms)
    k = len(p_k)
    assert p_k.sum() == pytest.approx(1.0, abs=1e-9)
    order_k = np.random.default_rng(k).permutation(k)
    np.testing.assert_allclose(argmax_propensities(arms.take(order_k)), p_k[order_k], atol=1e-9)
    np.testing.assert_allclose([argmax_propensity(arms, arm) for arm in range(k)], p_k, atol=1e-9)
    rows = Mixtures(*(np.repeat(array_kc[None], k, axis=0) for array_kc in arms))
    np.testing.assert_allclose(argmax_propensity_batch(rows, np.arange(k)), p_k, atol=1e-9)
    for floor in (float(arms.mean_kc.min()), float(np.median(arms.mean_kc))):
        assert floor_propensities(arms, order_k, floor=floor).sum() == pytest.approx(1.0, abs=1e-9)


@given(mixtures())
def test_equal_components_are_one(arms: Mixtures) -> None:
    mean_k, sd_k = arms.mean_kc[:, 0], arms.sd_kc[:, 0]
    same = Mixtures(
        arms.weight_kc, *(np.repeat(a_k[:, None], arms.weight_kc.shape[1], axis=1) for a_k in (mean_k, sd_k))
    )
    np.testing.assert_allclose(argmax_propensities(same), argmax_propensities(normals(mean_k, sd_k)), atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_known_answers(seed: int) -> None:
    """Against scipy's adaptive quadrature and 10⁵ draws."""
    rng = np.random.default_rng(seed)
    k, c = 3 + seed, 1 + seed % 4
    arms = Mixtures(rng.dirichlet(np.ones(c), size=k), rng.normal(size=(k, c)), 10.0 ** rng.uniform(-1.5, 0.0, (k, c)))
    p_k = argmax_propensities(arms)

    def density(u: float, arm: int) -> float:
        below_k = (arms.weight_kc * norm.cdf(u, arms.mean_kc, arms.sd_kc)).sum(axis=1)
        own = (arms.weight_kc[arm] * norm.pdf(u, arms.mean_kc[arm], arms.sd_kc[arm])).sum()
        return float(own * np.delete(below_k, arm).prod())

    edges = np.unique((arms.mean_kc[..., None] + arms.sd_kc[..., None] * np.array([-9, -3, 0, 3, 9])).ravel())
    for arm in range(k):
        exact = sum(quad(density, low, high, (arm,), epsabs=1e-12)[0] for low, high in itertools.pairwise(edges))
        assert p_k[arm] == pytest.approx(exact, abs=1e-9)
    component_nk = (rng.random((100_000, k, 1)) >= arms.weight_kc.cumsum(axis=1)[:, :-1]).sum(axis=2)
    arm_k = np.arange(k)
    draw_nk = rng.normal(arms.mean_kc[arm_k, component_nk], arms.sd_kc[arm_k, component_nk])
    share_k = np.bincount(draw_nk.argmax(axis=1), minlength=k) / len(draw_nk)
    assert (np.abs(share_k - p_k) < 5.0 * np.sqrt(p_k * (1.0 - p_k) / len(draw_nk)) + 1e-9).all()


def taught(n: int, seed: int = 0) -> Posteriors:
    posteriors = add_models(empty(4, slice(0, 3)), 3, PRIORS)
    rng = np.random.default_rng(seed)
    for _ in range(n):
        x_d = np.append(rng.normal(size=3) / 3.0, 1.0)
        observe_all(posteriors, int(rng.integers(2)), x_d, [(QUALITY, float(rng.random() < 0.5 + x_d[0]))])
    return posteriors


def test_beliefs_are_the_moments_of_all_shrinkages() -> None:
    posteriors = taught(40)
    x_d = np.array([0.2, -0.3, 0.1, 1.0])
    predicted = predictions_batch(posteriors, x_d[None]).at(0)
    novelty, shrinkages = predicted.novelty, posteriors.shrinkages
    assert novelty is not None
    assert shrinkages is not None
    cov_sdd = [
        unpack(posteriors.designs[0].cov_kp[1], 4),
        unpack(shrinkages.cov_kwp[1, 0], 4),
        unpack(shrinkages.cov_kwp[1, 1], 4),
    ]
    quadratic_s = np.array([float(x_d @ cov_dd @ x_d) for cov_dd in cov_sdd])
    noise_s = np.array([posteriors.b_kr[1, QUALITY], *shrinkages.b_kw[1]]) / (posteriors.a_kr[1, QUALITY] - 1.0)
    mean_s = np.array([posteriors.mean_krd[1, QUALITY] @ x_d, *(shrinkages.mean_kwd[1] @ x_d)])
    weight_s = shrinkages.weight_ks[1]
    mean = float(weight_s @ mean_s)
    assert predicted.quality_k[1] == pytest.approx(mean)
    assert predicted.quality_sd_k[1] ** 2 == pytest.approx(
        float(weight_s @ (noise_s * quadratic_s + mean_s**2)) - mean**2
    )
    assert novelty.mean_k[1] == pytest.approx(min(max(mean_s[2], 0.0), 1.0))
    assert novelty.sd_k[1] == pytest.approx(math.sqrt(max(noise_s[2], MOST_NOISE) * quadratic_s[2]))
    level = 1.0 / float(posteriors.designs[0].precision_kp[1, -1])
    assert novelty.share_k[1] == pytest.approx(min(1.0, level + (2.0 * float(weight_s @ quadratic_s)) ** 2))
    assert novelty.share_k[2] == 1.0  # of which nothing is known


@pytest.mark.parametrize("n", [0, 5, 300])
def test_a_batch_is_its_contexts_one_by_one(n: int) -> None:
    posteriors = taught(n)
    x_bd = np.random.default_rng(1).normal(size=(20, 4))
    together = predictions_batch(posteriors, x_bd)
    for i, x_d in enumerate(x_bd):
        alone = predictions_batch(posteriors, x_d[None]).at(0)
        row = together.at(i)
        np.testing.assert_allclose(row.quality_k, alone.quality_k, rtol=1e-9)
        np.testing.assert_allclose(row.quality_sd_k, alone.quality_sd_k, rtol=1e-9)
        assert (row.novelty is None) == (alone.novelty is None)
        if row.novelty is not None and alone.novelty is not None:
            for name in Novelty.__slots__:
                np.testing.assert_allclose(getattr(row.novelty, name), getattr(alone.novelty, name), rtol=1e-9)


def test_novelty_wears_off_and_is_shared() -> None:
    posteriors = add_models(empty(1), 2, PRIORS)
    for _ in range(30):
        observe_all(posteriors, 0, np.ones(1), [(QUALITY, 0.5)])
    novelty = predictions_batch(posteriors, np.ones((1, 1))).novelty
    assert novelty is not None
    assert FAMILIAR > 1.0 / 30.0
    assert novelty.share_k[0].tolist() == [0.0, 1.0]
    unknown = predictions_batch(add_models(empty(1), 4, PRIORS), np.ones((1, 1))).novelty
    assert unknown is not None
    some_bk = np.array([[True, True, False, True]])
    assert wide_shares(unknown, some_bk)[0].tolist() == pytest.approx([1 / 3, 1 / 3, 0.0, 1 / 3])


def test_choices_have_the_propensities_that_are_said() -> None:
    predicted = predictions_batch(taught(12), np.repeat(np.array([[0.3, 0.1, -0.2, 1.0]]), 40_000, axis=0))
    exclusions_bk = np.zeros((40_000, 3), dtype=np.int64)
    scores = score_arms(Objective(Mode.QUALITY_FIRST).resolve(UNIT), UNIT, predicted, exclusions_bk)
    choices = choose(scores, np.zeros(40_000), np.random.default_rng(3))
    for arm in range(3):
        propensity_m = choices.propensity_b[choices.chosen_b == arm]
        share = len(propensity_m) / 40_000
        assert propensity_m.std() < 1e-12
        assert share == pytest.approx(float(propensity_m[0]), abs=5.0 * math.sqrt(share * (1.0 - share) / 40_000))


def test_what_could_not_pay_if_it_were_perfect_is_not_drawn_widely() -> None:
    """A budget bought a call worth a hundred requests, because a wide draw said a quality of 3."""
    values = [np.array(pair) for pair in ((0.8, 0.5), (0.01, 0.4), (1e-3, 0.1), (1.0, 1.0), (2.0, 2.0), (9.0, 9.0))]
    new = Novelty(np.array([0.0, 1.0]), np.array([0.8, 0.5]), np.array([0.0, 0.8]))
    predicted = Predictions(*values, np.array([0.005, 0.1]), new)
    nothing_k, objective = np.zeros(2, dtype=np.int64), Objective(Mode.QUALITY_FIRST).resolve(UNIT)
    assert propensities(objective, UNIT, 0.0, predicted, nothing_k, multiplier=1.0)[1] > 0.2
    assert propensities(objective, UNIT, 0.0, predicted, nothing_k, multiplier=4.0)[1] < 1e-9


def test_where_nothing_is_new_draws_are_normal() -> None:
    values = [np.array(pair) for pair in ((0.6, 0.7), (0.2, 0.1), (1e-3, 1e-3), (1.0, 1.0), (2.0, 2.0), (9.0, 9.0))]
    former = Predictions(values[0], values[1], values[2], values[3], values[4], values[5])
    scores = score_arms(
        Objective(Mode.QUALITY_FIRST).resolve(UNIT), UNIT, former.batch(), np.zeros((1, 2), dtype=np.int64)
    )
    expected = norm.cdf(-0.1 / math.hypot(0.1, 0.05))  # half the standard deviations
    assert argmax_propensity(Mixtures(*(array[0] for array in scores.drawn)), 0) == pytest.approx(expected, abs=1e-9)


ITEMS = ("politics", "sports", "music", "food")
LIKED = {("t", "m"): "politics", ("t", "a"): "music", ("a", "m"): "sports", ("a", "a"): "politics"}


@pytest.mark.parametrize("how", ["embedding", "categories"])
def test_two_users_at_two_times_are_told_apart(how: str) -> None:
    """Answers without noise made every posterior certain of what it had not seen, and one seed in two got stuck."""
    schema = Schema(embeddings=(EmbeddingFeature("x", 4, scale=math.sqrt(0.5)),))
    if how == "categories":
        schema = Schema(categories=(CategoryFeature("user", ("t", "a")), CategoryFeature("time", ("m", "a"))))
    right = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        bucket = Bucket("news", schema=schema, objective=Objective(Mode.QUALITY_FIRST))
        world = World(bucket, [Model(item) for item in ITEMS], seed)
        liked = 0
        rounds = 450 if how == "embedding" else 650
        for t in range(rounds):
            user, time = rng.choice(["t", "a"]), rng.choice(["m", "a"])
            if how == "categories":
                context = Context(categories={"user": str(user), "time": str(time)})
            else:
                context = Context(embeddings={"x": [user == "t", user == "a", time == "m", time == "a"]})
            decision = world.decide(context)
            answer = float(decision.models[decision.chosen] == LIKED[str(user), str(time)])
            world.report(decision, {Signal.QUALITY: answer})
            liked += t >= rounds - 150 and answer
        right.append(liked / 150)
        assert logged_propensities(decision).sum() == pytest.approx(1.0, abs=1e-9)
    assert min(right) > 0.8


def test_no_seed_stays_with_the_second_best() -> None:
    """Three models of .6, .75 and .85 without features."""
    last = []
    for seed in range(8):
        rng = np.random.default_rng(100 + seed)
        bucket = Bucket("plain", schema=Schema(), objective=Objective(Mode.QUALITY_FIRST))
        world = World(bucket, [Model(name) for name in ("best", "good", "poor")], seed)
        quality = {"best": 0.85, "good": 0.75, "poor": 0.6}
        best = 0
        for t in range(700):
            decision = world.decide(Context())
            model = decision.models[decision.chosen]
            world.report(decision, {Signal.QUALITY: float(rng.random() < quality[model])})
            best += t >= 500 and model == "best"
        last.append(best / 200)
    assert min(last) > 0.4
    assert np.mean(last) > 0.8
