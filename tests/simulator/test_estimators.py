"""Estimators against exact expectations: every way that a small log could have come out, weighted by its probability."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.simulator.offpolicy.estimators import scores as est
from pointsman.simulator.offpolicy.estimators.reward_models import cross_fitted, past_only
from pointsman.simulator.offpolicy.estimators.scores import ScoredEstimate, weights

Array = npt.NDArray[np.float64]
N, K = 3, 3


def distributions(rng: np.random.Generator, least: float = 0.0) -> Array:
    drawn_nk = rng.dirichlet(np.ones(K), size=N)
    return (1.0 - K * least) * drawn_nk + least


def exact_mean(logged_nk: Array, reward_nk: Array, target_nk: Array, estimate: Callable[..., ScoredEstimate]) -> float:
    """Expected estimate over all logs of N rounds."""
    total = 0.0
    for actions in itertools.product(range(K), repeat=N):
        chosen_n = np.array(actions)
        propensity_n = logged_nk[np.arange(N), chosen_n]
        reward_n = reward_nk[np.arange(N), chosen_n]
        scored = estimate(reward_n, weights(target_nk, chosen_n, propensity_n), chosen_n)
        assert scored.estimate == pytest.approx(float(scored.score_n.mean()), abs=1e-12)
        total += float(propensity_n.prod()) * scored.estimate
    return total


@given(seed=st.integers(0, 10_000))
def test_ips_and_doubly_robust_are_unbiased_whatever_the_reward_model(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logged_nk, target_nk = distributions(rng, 0.02), distributions(rng)
    reward_nk, q_nk = rng.random((N, K)), rng.normal(size=(N, K))
    truth = float((target_nk * reward_nk).sum(axis=1).mean())
    mean = exact_mean(logged_nk, reward_nk, target_nk, lambda r, w, a: est.ips(r, w))
    assert mean == pytest.approx(truth, abs=1e-10)
    mean = exact_mean(logged_nk, reward_nk, target_nk, lambda r, w, a: est.dr(r, w, q_nk, target_nk, a))
    assert mean == pytest.approx(truth, abs=1e-10)


@given(seed=st.integers(0, 10_000))
def test_with_a_perfect_model_everything_doubly_robust_is_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target_nk, reward_nk, chosen_n = distributions(rng), rng.random((N, K)), rng.integers(0, K, N)
    reward_n, weight_n = reward_nk[np.arange(N), chosen_n], rng.exponential(size=N)
    truth = float((target_nk * reward_nk).sum(axis=1).mean())
    for scored in (
        est.dm(reward_nk, target_nk),
        est.dr(reward_n, weight_n, reward_nk, target_nk, chosen_n),
        est.sndr(reward_n, weight_n, reward_nk, target_nk, chosen_n),
        est.switch_dr(reward_n, weight_n, reward_nk, target_nk, chosen_n, 0.5),
        est.dros(reward_n, weight_n, reward_nk, target_nk, chosen_n, 2.0),
    ):
        assert scored.estimate == pytest.approx(truth, abs=1e-12)


@given(seed=st.integers(0, 10_000))
def test_limits_of_the_hyperparameters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target_nk, q_nk, chosen_n = distributions(rng), rng.random((N, K)), rng.integers(0, K, N)
    reward_n, weight_n = rng.random(N), rng.exponential(size=N)
    doubly = (reward_n, weight_n, q_nk, target_nk, chosen_n)
    assert est.clipped(reward_n, weight_n, math.inf).estimate == est.ips(reward_n, weight_n).estimate
    assert est.switch_dr(*doubly, math.inf).estimate == pytest.approx(est.dr(*doubly).estimate)
    assert est.dros(*doubly, math.inf).estimate == est.dr(*doubly).estimate
    assert est.dros(*doubly, 1e12).estimate == pytest.approx(est.dr(*doubly).estimate)
    assert est.dros(*doubly, 0.0).estimate == pytest.approx(est.dm(q_nk, target_nk).estimate)
    assert est.switch_dr(*doubly, -1.0).estimate == pytest.approx(est.dm(q_nk, target_nk).estimate)
    ones_n = np.ones(N)
    assert est.ips(reward_n, ones_n).estimate == pytest.approx(float(reward_n.mean()))
    assert est.snips(reward_n, 7.0 * ones_n).estimate == pytest.approx(float(reward_n.mean()))
    assert reward_n.min() - 1e-12 <= est.snips(reward_n, weight_n).estimate <= reward_n.max() + 1e-12


def test_a_linearised_score_spreads_as_the_estimate_does() -> None:
    rng = np.random.default_rng(5)
    estimates, spreads = [], []
    for _ in range(400):
        weight_n = rng.gamma(0.5, 2.0, size=1000)
        reward_n = 0.6 + 0.1 * rng.normal(size=1000)
        scored = est.snips(reward_n, weight_n)
        estimates.append(scored.estimate)
        spreads.append(float(scored.score_n.std()) / math.sqrt(1000))
    assert np.std(estimates) == pytest.approx(np.mean(spreads), rel=0.12)


def test_lepski_takes_the_most_biased_version_whose_bias_is_in_the_noise() -> None:
    rng = np.random.default_rng(0)
    weight_n = rng.pareto(1.6, size=4000)
    weight_n /= weight_n.mean()
    flat, steep = np.full(4000, 0.5), 0.5 + np.minimum(weight_n, 40.0)
    chosen = est.lepski([est.clipped(steep, weight_n, c) for c in est.GRID])
    assert chosen.tuned is not None and chosen.tuned >= 50.0, "clipping here costs more than it saves"
    exact = [ScoredEstimate(str(c), 0.5, 0.5 + rng.normal(size=4000) * c / 100, c) for c in (1.0, 5.0, 10.0)]
    assert est.lepski(exact).tuned == 1.0
    assert (
        est.lepski([ScoredEstimate("far", 0.9, flat), ScoredEstimate("near", 0.5, steep / steep.mean() / 2)]).name
        == "near"
    )


@pytest.mark.parametrize("fit", [cross_fitted, past_only])
def test_reward_models_find_what_is_there(fit: Callable[..., Array]) -> None:
    rng = np.random.default_rng(2)
    n, k, d = 4000, 3, 4
    x_nd, group_n = rng.normal(size=(n, d)), rng.integers(0, 2, n)
    beta_gkd, level_gk = 0.1 * rng.normal(size=(2, k, d)), 0.3 + 0.4 * rng.random((2, k))
    mean_nk = level_gk[group_n] + np.einsum("nkd,nd->nk", beta_gkd[group_n], x_nd)
    chosen_n = rng.integers(0, k, n)
    reward_n = mean_nk[np.arange(n), chosen_n] + 0.1 * rng.normal(size=n)
    reward_n[rng.random(n) < 0.1] = np.nan
    predicted_nk = fit(reward_n, chosen_n, x_nd, group_n, k)
    assert np.sqrt(np.mean((predicted_nk[2000:] - mean_nk[2000:]) ** 2)) < 0.03
    assert np.isfinite(predicted_nk).all()


@given(seed=st.integers(0, 1000), at=st.integers(0, 199))
def test_predictions_do_not_know_their_own_reward_nor_the_future(seed: int, at: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = 200, 2
    x_nd, group_n, chosen_n, reward_n = rng.normal(size=(n, 3)), np.zeros(n, int), rng.integers(0, k, n), rng.random(n)
    other_n = reward_n.copy()
    other_n[at] += 0.5
    before = cross_fitted(reward_n, chosen_n, x_nd, group_n, k)[at]
    np.testing.assert_array_equal(before, cross_fitted(other_n, chosen_n, x_nd, group_n, k)[at])
    past, changed = (past_only(r_n, chosen_n, x_nd, group_n, k) for r_n in (reward_n, other_n))
    np.testing.assert_array_equal(past[: at + 1], changed[: at + 1])


def test_reward_models_of_nothing() -> None:
    empty = np.full(20, np.nan)
    zeros, groups = np.zeros((20, 0)), np.arange(20) % 3
    for fit in (cross_fitted, past_only):
        assert not fit(empty, np.zeros(20, int), zeros, groups, 2).any()
        assert np.isfinite(fit(np.ones(20), np.zeros(20, int), zeros, groups, 2)).all()
        assert np.isfinite(fit(np.ones(20), np.zeros(20, int), np.ones((20, 2)), groups, 2)).all()


def test_wrong_arrays_are_named() -> None:
    target_nk, q_nk, chosen_n = np.full((4, 2), 0.5), np.zeros((4, 2)), np.zeros(4, int)
    reward_n, weight_n = np.ones(4), np.ones(4)
    assert [estimate.name for estimate in est.estimate_all(reward_n, weight_n, q_nk, target_nk, chosen_n)] == list(
        est.NAMES
    )
    for name, arrays in {
        "reward_n": (np.array([1.0, np.nan, 1.0, 1.0]), weight_n, q_nk, target_nk, chosen_n),
        "weight_n": (reward_n, -weight_n, q_nk, target_nk, chosen_n),
        "q_nk": (reward_n, weight_n, q_nk[:, :1], target_nk, chosen_n),
        "target_nk": (reward_n, weight_n, q_nk, target_nk * 0.5, chosen_n),
    }.items():
        with pytest.raises(ValueError, match=name):
            est.estimate_all(*arrays)
    with pytest.raises(ValueError, match="best"):
        est.estimate_all(reward_n, weight_n, q_nk, target_nk, chosen_n, ["best"])
    assert math.isnan(est.snips(reward_n, np.zeros(4)).estimate)
