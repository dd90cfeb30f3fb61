"""Posteriors against closed forms: a batch solve, the order of observations, corrections, batches of contexts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pointsman.bandit.packed import pack, packed_indices, unpack
from pointsman.bandit.posterior import (
    COST,
    INTERCEPT_PRECISION,
    LATENCY,
    PRECISION,
    PRIOR_A,
    QUALITY,
    RESPONSES,
    Posteriors,
    Prior,
    add_models,
    empty,
    from_arrays,
    noise,
    predict,
    predict_batch,
    prior_precision,
    set_prior,
    to_arrays,
    without_model,
)
from pointsman.bandit.updates import REFRESH, correct, observe_all
from tests.bandit.worlds import observe

PRIORS = (Prior(0.5, 0.2), Prior(-9.0, 0.5), Prior(-0.7, 0.5), Prior(5.5, 0.5))


def fresh(dim: int, models: int = 2) -> Posteriors:
    posteriors = empty(dim)
    for _ in range(models):
        posteriors = add_models(posteriors, 1, PRIORS)
    return posteriors


def data(n: int, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x_nd = rng.normal(size=(n, dim)) / math.sqrt(dim)
    x_nd[:, -1] = 1.0
    return x_nd, rng.random(n), rng.uniform(0.1, 3.0, n)


def batch(x_nd: np.ndarray, y_n: np.ndarray, w_n: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Mean, covariance, a and b of quality by the textbook's formulas."""
    dim = x_nd.shape[1]
    prior_d, mean0_d = prior_precision(np.full(dim, PRECISION), INTERCEPT_PRECISION), np.zeros(dim)
    mean0_d[-1] = 0.5
    precision_dd = np.diag(prior_d) + (x_nd * w_n[:, None]).T @ x_nd
    mean_d = np.linalg.solve(precision_dd, prior_d * mean0_d + x_nd.T @ (w_n * y_n))
    squares = mean0_d @ (prior_d * mean0_d) + (w_n * y_n) @ y_n - mean_d @ precision_dd @ mean_d
    return mean_d, np.linalg.inv(precision_dd), PRIOR_A + w_n.sum() / 2, 0.2 + squares / 2


@given(st.integers(1, 12), st.integers(1, 60), st.integers(0, 10**6))
def test_observing_is_a_batch_solve(dim: int, n: int, seed: int) -> None:
    posteriors = fresh(dim)
    x_nd, y_n, w_n = data(n, dim, seed)
    for x_d, y, w in zip(x_nd, y_n, w_n, strict=True):
        observe(posteriors, QUALITY, 1, x_d, float(y), float(w))
    mean_d, cov_dd, a, b = batch(x_nd, y_n, w_n)
    design = posteriors.designs[posteriors.design_r[QUALITY]]
    np.testing.assert_allclose(posteriors.mean_krd[1, QUALITY], mean_d, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(unpack(design.cov_kp[1], dim), cov_dd, rtol=1e-9, atol=1e-11)
    assert posteriors.a_kr[1, QUALITY] == pytest.approx(a)
    assert posteriors.b_kr[1, QUALITY] == pytest.approx(b, rel=1e-9)
    np.testing.assert_array_equal(posteriors.mean_krd[0], fresh(dim).mean_krd[0])  # the other model is as it was


def test_the_predicted_variance_is_that_of_the_student_t() -> None:
    posteriors = fresh(4)
    x_nd, y_n, _ = data(30, 4, 1)
    for x_d, y in zip(x_nd, y_n, strict=True):
        observe(posteriors, QUALITY, 0, x_d, float(y))
    x_d = x_nd[3]
    a, b = posteriors.a_kr[0, QUALITY], posteriors.b_kr[0, QUALITY]
    scale = math.sqrt(b / a * (x_d @ unpack(posteriors.designs[posteriors.design_r[QUALITY]].cov_kp[0], 4) @ x_d))
    law = stats.t(df=2 * a, loc=posteriors.mean_krd[0, QUALITY] @ x_d, scale=scale)
    mean_kr, variance_kr = predict(posteriors, x_d)
    assert mean_kr[QUALITY, 0] == pytest.approx(law.mean())
    assert variance_kr[QUALITY, 0] == pytest.approx(law.var())
    assert noise(posteriors)[QUALITY, 0] == pytest.approx(stats.invgamma(a, scale=b).mean())


@given(st.integers(0, 10**6), st.permutations(range(20)))
def test_order_does_not_matter(seed: int, order: list[int]) -> None:
    x_nd, y_n, w_n = data(20, 5, seed)
    forward, backward = fresh(5), fresh(5)
    for i in range(20):
        observe(forward, COST, 0, x_nd[i], float(y_n[i]), float(w_n[i]))
    for i in order:
        observe(backward, COST, 0, x_nd[i], float(y_n[i]), float(w_n[i]))
    np.testing.assert_allclose(forward.mean_krd, backward.mean_krd, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(forward.b_kr, backward.b_kr, rtol=1e-9)


@given(st.integers(0, 10**6), st.floats(-3, 3), st.floats(0.1, 4))
def test_a_correction_equals_observing_the_final_value(seed: int, wrong: float, weight: float) -> None:
    x_nd, y_n, _ = data(15, 4, seed)
    direct, corrected = fresh(4), fresh(4)
    for i in range(15):
        observe(direct, LATENCY, 0, x_nd[i], float(y_n[i]), weight)
        observe(corrected, LATENCY, 0, x_nd[i], wrong if i == 4 else float(y_n[i]), weight)
    correct(corrected, LATENCY, 0, x_nd[4], wrong, float(y_n[4]), weight)
    np.testing.assert_allclose(direct.mean_krd, corrected.mean_krd, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(direct.eta_krd, corrected.eta_krd, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(direct.b_kr, corrected.b_kr, rtol=1e-8)


def test_amounts_reported_together_share_a_design_until_one_comes_alone() -> None:
    x_nd, y_n, _ = data(12, 3, 2)
    apart, together = fresh(3), fresh(3)
    everything = [(r, 0.3 * r) for r in range(4)]
    for x_d in x_nd[:6]:
        observe_all(together, 1, x_d, everything)
        for response, y in everything:
            observe(apart, response, 1, x_d, y)
    assert len(together.designs) == 2, "quality has its own"
    for x_d, y in zip(x_nd[6:], y_n[6:], strict=True):
        observe(together, COST, 1, x_d, float(y))
        observe(apart, COST, 1, x_d, float(y))
    assert len(together.designs) == 3
    for mine, other in zip(predict(together, x_nd[0]), predict(apart, x_nd[0]), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-12)


@pytest.mark.parametrize("b", [1, 2, 7, 300, 700])
def test_batch_predictions_equal_single_ones(b: int) -> None:
    posteriors = fresh(6, 5)
    x_nd, y_n, _ = data(40, 6, 3)
    for i, x_d in enumerate(x_nd):
        observe(posteriors, i % 3, i % 5, x_d, float(y_n[i]))
    x_bd, _, _ = data(b, 6, 4)
    mean_bkr, quadratics = predict_batch(posteriors, x_bd, range(RESPONSES))
    variance_bkr = np.stack(quadratics, axis=2) * noise(posteriors)
    for i in range(0, b, 13):
        mean_kr, variance_kr = predict(posteriors, x_bd[i])
        np.testing.assert_allclose(mean_bkr[i], mean_kr, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(variance_bkr[i], variance_kr, rtol=1e-12)


def test_refreshing_changes_nothing_beyond_rounding() -> None:
    posteriors = fresh(5, 1)
    x_nd, y_n, w_n = data(REFRESH + 1, 5, 5)
    for i in range(REFRESH - 1):
        observe(posteriors, QUALITY, 0, x_nd[i], float(y_n[i]))
    observe(posteriors, QUALITY, 0, x_nd[REFRESH - 1], float(y_n[REFRESH - 1]))  # this one refreshes
    mean_d, cov_dd, _, _ = batch(x_nd[:REFRESH], y_n[:REFRESH], np.ones_like(w_n[:REFRESH]))
    design = posteriors.designs[posteriors.design_r[QUALITY]]
    np.testing.assert_allclose(posteriors.mean_krd[0, QUALITY], mean_d, rtol=1e-11)
    np.testing.assert_allclose(unpack(design.cov_kp[0], 5), cov_dd, rtol=1e-11)


def test_badly_scaled_features_stay_sound() -> None:
    rng = np.random.default_rng(6)
    posteriors = fresh(4, 1)
    x_nd = rng.normal(size=(20_000, 4)) * [1e-4, 5.0, 5.0, 1.0]
    x_nd[:, 2] = x_nd[:, 1] * (1 + 1e-7)
    x_nd[:, 3] = 1.0
    y_n = x_nd @ [10.0, 0.1, -0.1, 0.5] + 0.1 * rng.normal(size=20_000)
    for x_d, y in zip(x_nd, y_n, strict=True):
        observe(posteriors, QUALITY, 0, x_d, float(y))
    mean_d, _, _, b = batch(x_nd, y_n, np.ones(20_000))
    cov_dd = unpack(posteriors.designs[posteriors.design_r[QUALITY]].cov_kp[0], 4)
    assert np.linalg.eigvalsh(cov_dd).min() > 0
    np.testing.assert_allclose(x_nd[:50] @ posteriors.mean_krd[0, QUALITY], x_nd[:50] @ mean_d, rtol=1e-8)
    assert posteriors.b_kr[0, QUALITY] == pytest.approx(b, rel=1e-6)


def test_packing() -> None:
    rng = np.random.default_rng(7)
    for dim in (1, 2, 5, 33):
        matrix_dd = rng.normal(size=(dim, dim))
        matrix_dd += matrix_dd.T
        np.testing.assert_array_equal(unpack(pack(matrix_dd), dim), matrix_dd)
        assert len(packed_indices(dim)[0]) == dim * (dim + 1) // 2


def test_adding_and_removing_a_model_leaves_the_others_alone() -> None:
    posteriors = fresh(3, 3)
    x_nd, y_n, _ = data(30, 3, 8)
    for i, x_d in enumerate(x_nd):
        observe(posteriors, i % 4, i % 3, x_d, float(y_n[i]))
    before = predict(posteriors, x_nd[0])
    grown = add_models(posteriors, 1, PRIORS)
    for old, new in zip(before, predict(grown, x_nd[0]), strict=True):
        np.testing.assert_array_equal(old, new[:3])
    left = without_model(grown, 1)
    for old, new in zip(before, predict(left, x_nd[0]), strict=True):
        np.testing.assert_array_equal(old[[0, 2]], new[:2])


def test_arrays_come_back_as_they_were() -> None:
    posteriors = fresh(3, 2)
    x_nd, y_n, _ = data(9, 3, 9)
    for i, x_d in enumerate(x_nd):
        observe(posteriors, i % 4, i % 2, x_d, float(y_n[i]))
    back = from_arrays({name: array.copy() for name, array in to_arrays(posteriors).items()})
    for name, array in to_arrays(posteriors).items():
        np.testing.assert_array_equal(to_arrays(back)[name], array)
    observe(posteriors, QUALITY, 0, x_nd[0], 0.1)
    observe(back, QUALITY, 0, x_nd[0], 0.1)
    np.testing.assert_array_equal(posteriors.mean_krd, back.mean_krd)


def test_a_changed_prior_equals_starting_with_it() -> None:
    x_nd, y_n, _ = data(40, 3, 4)
    priors = [Prior(0.8, 0.3), Prior(-5.0, 0.5), Prior(0.1, 0.5), Prior(4.0, 0.5)]
    late, early = fresh(3, 2), fresh(3, 2)
    set_prior(early, 1, priors, 2.5)
    for posteriors in (late, early):
        for i, (x_d, y) in enumerate(zip(x_nd, y_n, strict=True)):
            observe(posteriors, i % 4, 1, x_d, float(y))
    set_prior(late, 1, priors, 2.5)
    for name in ("mean_krd", "eta_krd", "a_kr", "b_kr"):
        np.testing.assert_allclose(getattr(late, name), getattr(early, name), rtol=1e-9, atol=1e-12)


def test_unreported_responses_take_no_memory_and_predict_the_prior() -> None:
    posteriors, x_d = fresh(4, 2), np.array([0.5, -1.0, 2.0, 1.0])
    assert posteriors.designs == []
    before = predict(posteriors, x_d)[1]
    for response in range(RESPONSES):
        prior_d = prior_precision(posteriors.ridge_d(response), INTERCEPT_PRECISION)
        expected_k = noise(posteriors)[:, response] * ((x_d**2) / prior_d).sum()
        np.testing.assert_allclose(before[:, response], expected_k, rtol=1e-12)
    observe(posteriors, QUALITY, 0, np.array([0.0, 0.0, 1.0, 1.0]), 0.7)
    after = predict(posteriors, x_d)[1]
    np.testing.assert_array_equal(after[:, 1:], before[:, 1:])
    np.testing.assert_allclose(after[1], before[1], rtol=1e-12)
    assert after[0, QUALITY] < before[0, QUALITY]
