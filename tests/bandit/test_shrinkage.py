"""Quality under several shrinkages: probabilities of the scales, and that every way of learning keeps them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pointsman.bandit.posterior import (
    AMOUNT_PRECISION,
    COST,
    PRECISION,
    PRIOR_A,
    QUALITY,
    Posteriors,
    Prior,
    add_models,
    empty,
    from_arrays,
    prior_precision,
    refresh,
    set_prior,
    to_arrays,
    without_model,
)
from pointsman.bandit.updates import correct, decay_all, observe_all, retract_all

DIM, CONTENT = 5, slice(0, 3)
PRIORS = (Prior(0.4, 0.5), Prior(-7.0, 0.5), Prior(0.0, 0.5), Prior(5.0, 0.5))
SUMS = ("mean_kwd", "b_kw", "volume_ks", "weight_ks", "cov_kwp")


def fresh(models: int = 2) -> Posteriors:
    return add_models(empty(DIM, CONTENT), models, PRIORS)


def data(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x_nd = rng.normal(size=(n, DIM))
    x_nd[:, -1] = 1.0
    return x_nd, np.clip(0.5 + x_nd[:, 0] * rng.choice([0.0, 0.3]) + 0.1 * rng.normal(size=n), 0.0, 1.0)


def taught(x_nd: np.ndarray, y_n: np.ndarray, model: int = 0) -> Posteriors:
    posteriors = fresh()
    for x_d, y in zip(x_nd, y_n, strict=True):
        observe_all(posteriors, model, x_d, ((QUALITY, float(y)), (COST, -float(y))))
    return posteriors


def assert_same(one: Posteriors, other: Posteriors) -> None:
    """Up to a constant of the volumes and to rounding."""
    assert one.shrinkages is not None
    assert other.shrinkages is not None
    for name in SUMS:
        left, right = getattr(one.shrinkages, name), getattr(other.shrinkages, name)
        if name == "volume_ks":
            left, right = left - left[:, :1], right - right[:, :1]
        np.testing.assert_allclose(left, right, rtol=1e-7, atol=1e-9, err_msg=name)


@given(st.integers(0, 1000))
def test_probabilities_are_those_of_the_marginal_likelihoods(seed: int) -> None:
    """Against scipy's multivariate t (Gelman et al., Bayesian Data Analysis, 14.2)."""
    x_nd, y_n = data(12, seed)
    posteriors = taught(x_nd, y_n)
    logs = []
    for ridge_d in posteriors.ridge_sd:
        prior_d = prior_precision(ridge_d, float(posteriors.mass_k[0]))
        shape_nn = (np.eye(len(y_n)) + (x_nd / prior_d) @ x_nd.T) * PRIORS[QUALITY].b / PRIOR_A
        logs.append(stats.multivariate_t(x_nd[:, -1] * 0.4, shape_nn, df=2 * PRIOR_A).logpdf(y_n))
    assert posteriors.shrinkages is not None
    weight_s = posteriors.shrinkages.weight_ks[0]
    np.testing.assert_allclose(weight_s, np.exp(logs - np.logaddexp.reduce(logs)), rtol=1e-6)
    np.testing.assert_allclose(posteriors.shrinkages.weight_ks[1], 1 / 3)  # of which nothing is known


@given(st.integers(0, 1000))
def test_every_scale_is_the_posterior_of_its_own_prior(seed: int) -> None:
    x_nd, y_n = data(30, seed)
    posteriors = taught(x_nd, y_n)
    assert posteriors.shrinkages is not None
    for w, ridge_d in enumerate(posteriors.ridge_sd[1:]):
        alone = fresh()
        alone.ridge_sd = ridge_d[None]
        for x_d, y in zip(x_nd, y_n, strict=True):
            observe_all(alone, 0, x_d, ((QUALITY, float(y)),))
        np.testing.assert_allclose(
            posteriors.shrinkages.mean_kwd[0, w], alone.mean_krd[0, QUALITY], rtol=1e-7, atol=1e-9
        )
        assert posteriors.shrinkages.b_kw[0, w] == pytest.approx(alone.b_kr[0, QUALITY], rel=1e-7)


@given(st.integers(0, 1000))
def test_what_was_learned_step_by_step_is_what_the_sums_say(seed: int) -> None:
    posteriors, again = taught(*data(40, seed)), taught(*data(40, seed))
    refresh(again, int(again.design_r[QUALITY]), 0)
    assert_same(posteriors, again)


@given(st.integers(0, 1000), st.permutations(range(12)))
def test_the_order_of_outcomes_does_not_matter(seed: int, order: list[int]) -> None:
    x_nd, y_n = data(12, seed)
    assert_same(taught(x_nd, y_n), taught(x_nd[order], y_n[order]))


def test_corrections_and_retractions_are_exact() -> None:
    x_nd, y_n = data(20, 1)
    corrected = taught(x_nd, y_n)
    correct(corrected, QUALITY, 0, x_nd[3], before=float(y_n[3]), after=0.9)
    y_n[3] = 0.9
    assert_same(corrected, taught(x_nd, y_n))
    retracted = taught(x_nd, y_n)
    retract_all(retracted, 0, x_nd[7], ((QUALITY, float(y_n[7]), 1.0), (COST, -float(y_n[7]), 1.0)))
    assert_same(retracted, taught(np.delete(x_nd, 7, axis=0), np.delete(y_n, 7)))


def test_forgetting_and_a_changed_prior() -> None:
    x_nd, y_n = data(20, 2)
    faded, weighed = taught(x_nd, y_n), fresh()
    decay_all(faded, 0.5)
    for x_d, y in zip(x_nd, y_n, strict=True):
        observe_all(weighed, 0, x_d, ((QUALITY, float(y)), (COST, -float(y))), weight=0.5)
    assert_same(faded, weighed)
    late, early = taught(x_nd, y_n), fresh()
    priors = [Prior(0.8, 0.3), *PRIORS[1:]]
    set_prior(late, 0, priors, 2.0)
    set_prior(early, 0, priors, 2.0)
    for x_d, y in zip(x_nd, y_n, strict=True):
        observe_all(early, 0, x_d, ((QUALITY, float(y)), (COST, -float(y))))
    assert_same(late, early)


def test_models_come_and_go() -> None:
    x_nd, y_n = data(20, 3)
    posteriors = taught(x_nd, y_n, model=1)
    grown = add_models(posteriors, 1, PRIORS)
    assert grown.shrinkages is not None
    np.testing.assert_allclose(grown.shrinkages.weight_ks[2], 1 / 3)
    assert_same(without_model(grown, 2), posteriors)
    observe_all(grown, 2, x_nd[0], ((QUALITY, 1.0),))
    left = without_model(grown, 0)
    assert left.shrinkages is not None
    np.testing.assert_array_equal(left.shrinkages.mean_kwd, grown.shrinkages.mean_kwd[1:])


def test_without_content_or_outcomes_there_is_nothing_to_keep() -> None:
    plain = add_models(empty(DIM), 2, PRIORS)
    observe_all(plain, 0, np.ones(DIM), ((QUALITY, 0.5),))
    assert plain.shrinkages is None
    silent = fresh()
    observe_all(silent, 0, np.ones(DIM), ((COST, -7.0),))
    assert silent.shrinkages is None
    assert [name for name in to_arrays(silent) if name in SUMS] == []


def test_arrays_come_back_and_former_ones_are_read() -> None:
    """Version 0.1 kept one precision of content features, fitted to the outcomes."""
    posteriors = taught(*data(30, 4))
    back = from_arrays({name: array.copy() for name, array in to_arrays(posteriors).items()}, CONTENT)
    for name, array in to_arrays(posteriors).items():
        np.testing.assert_array_equal(to_arrays(back)[name], array)
    former = {name: array.copy() for name, array in to_arrays(posteriors).items() if name not in SUMS}
    ridge_d = former.pop("ridge_sd")[0]
    ridge_d[CONTENT] = PRECISION / 16
    for name in [name for name in former if name.startswith("precision_kp/")]:
        former[name][:, [0, 2, 5]] -= PRECISION - PRECISION / 16  # the diagonal's places, packed
        if name != f"precision_kp/{posteriors.design_r[QUALITY]}":
            former[name][:, 9] += PRECISION - AMOUNT_PRECISION  # amounts had quality's
    former["ridge_d"] = ridge_d
    assert_same(from_arrays(former, CONTENT), posteriors)
