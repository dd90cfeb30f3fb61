"""Forgetting is stable, corrections count what is left, sudden changes are noticed, and calm costs nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pointsman.bandit.catalog import Bucket, Mode, Model, Objective
from pointsman.bandit.outcome import Signal
from pointsman.bandit.packed import unpack
from pointsman.bandit.posterior import (
    INTERCEPT_PRECISION,
    PRIOR_A,
    QUALITY,
    Posteriors,
    Prior,
    add_models,
    empty,
    predict,
    prior_precision,
    refresh,
)
from pointsman.bandit.updates import ESS_AFTER_ALARM, REFRESH, correct, decay, observe_all
from tests.bandit.worlds import World, observe

PRIORS = (Prior(0.5, 0.2), Prior(-9.0, 0.5), Prior(-0.7, 0.5), Prior(5.5, 0.5))


def fresh(dim: int, models: int = 1) -> Posteriors:
    posteriors = empty(dim)
    for _ in range(models):
        posteriors = add_models(posteriors, 1, PRIORS)
    return posteriors


def contexts(n: int, dim: int, seed: int = 0) -> np.ndarray:
    x_nd = np.random.default_rng(seed).normal(size=(n, dim)) / math.sqrt(dim)
    x_nd[:, -1] = 1.0
    return x_nd


def test_fading_away_ends_at_the_prior() -> None:
    posteriors, untouched = fresh(4), fresh(4)
    for x_d in contexts(50, 4):
        observe(posteriors, QUALITY, 0, x_d, 0.9)
    decay(posteriors, int(posteriors.design_r[QUALITY]), 0, 1e-300)
    refresh(posteriors, int(posteriors.design_r[QUALITY]), 0)
    x_d = contexts(1, 4, seed=1)[0]
    np.testing.assert_allclose(
        predict(posteriors, x_d)[0][:, QUALITY], predict(untouched, x_d)[0][:, QUALITY], rtol=1e-12
    )
    np.testing.assert_allclose(
        predict(posteriors, x_d)[1][:, QUALITY], predict(untouched, x_d)[1][:, QUALITY], rtol=1e-12
    )
    assert posteriors.a_kr[0, QUALITY] == pytest.approx(PRIOR_A)


def test_a_half_life_weighs_observations_as_a_batch_solve_does() -> None:
    dim, half_life, n = 5, 64.0, 400
    posteriors = fresh(dim)
    x_nd = contexts(n, dim)
    y_n = np.random.default_rng(2).random(n)
    for x_d, y in zip(x_nd, y_n, strict=True):
        observe_all(posteriors, 0, x_d, ((QUALITY, float(y)),), half_life=half_life)
    interval = int(half_life / 8)
    weight_n = 2.0 ** (-((n // interval) - np.arange(n) // interval) * interval / half_life)
    prior_d = prior_precision(fresh(dim).ridge_d(QUALITY), INTERCEPT_PRECISION)
    precision_dd = np.diag(prior_d) + (x_nd * weight_n[:, None]).T @ x_nd
    eta_d = x_nd.T @ (weight_n * y_n)
    eta_d[-1] += prior_d[-1] * 0.5
    design = posteriors.designs[posteriors.design_r[QUALITY]]
    np.testing.assert_allclose(unpack(design.precision_kp[0], dim), precision_dd, rtol=1e-10)
    np.testing.assert_allclose(posteriors.mean_krd[0, QUALITY], np.linalg.solve(precision_dd, eta_d), rtol=1e-9)


def test_a_correction_has_the_remaining_weight() -> None:
    uncorrected, corrected = fresh(3), fresh(3)
    x_nd = contexts(200, 3)
    for posteriors, first in ((uncorrected, 0.9), (corrected, 0.1)):
        observe_all(posteriors, 0, x_nd[0], ((QUALITY, first),), half_life=32.0)
        for x_d in x_nd[1:]:
            observe_all(posteriors, 0, x_d, ((QUALITY, 0.5),), half_life=32.0)
    left = math.exp(corrected.designs[corrected.design_r[QUALITY]].log_decay_k[0])
    assert 0.0 < left < 0.1
    correct(corrected, QUALITY, 0, x_nd[0], 0.1, 0.9, left)
    np.testing.assert_allclose(corrected.mean_krd[:, QUALITY], uncorrected.mean_krd[:, QUALITY], rtol=1e-9)


def test_years_of_updates_with_forgetting_stay_sound() -> None:
    dim = 6
    posteriors = fresh(dim)
    x_nd = contexts(500, dim)
    x_nd[:, 0] = x_nd[:, 1] + 1e-6 * x_nd[:, 0]  # all but collinear
    rng = np.random.default_rng(3)
    for i in range(40_000):
        observe_all(posteriors, 0, x_nd[i % 500], ((QUALITY, float(rng.random())),), half_life=2000.0)
    design = posteriors.designs[posteriors.design_r[QUALITY]]
    precision_dd, cov_dd = unpack(design.precision_kp[0], dim), unpack(design.cov_kp[0], dim)
    assert np.linalg.eigvalsh(cov_dd).min() > 0
    np.testing.assert_allclose(cov_dd @ precision_dd, np.eye(dim), atol=1e-8)
    np.testing.assert_allclose(
        posteriors.mean_krd[0, QUALITY], np.linalg.solve(precision_dd, posteriors.eta_krd[0, QUALITY]), rtol=1e-8
    )


def test_a_silent_regression_is_noticed_and_unlearned() -> None:
    world = World(Bucket("b", objective=Objective(Mode.QUALITY_FIRST)), [Model("falls"), Model("stays")], seed=1)
    rng = np.random.default_rng(4)

    def answer(t: int, model: str) -> dict[Signal, float]:
        level = (0.9 if t < 1500 else 0.7) if model == "falls" else 0.8
        return {Signal.QUALITY: float(np.clip(level + 0.1 * rng.normal(), 0, 1))}

    chosen = world.play(2000, answer)
    assert chosen[1000:1500].count("falls") > 450
    assert chosen[1700:2000].count("stays") > 270


def test_calm_raises_no_alarm() -> None:
    posteriors = fresh(3)
    rng = np.random.default_rng(5)
    x_nd = contexts(6000, 3)
    alarms = 0
    for x_d in x_nd:
        before = posteriors.alarm_kr2.max()
        observe(posteriors, QUALITY, 0, x_d, float(rng.random() < 0.8))
        alarms += bool(before > 10.0 and posteriors.alarm_kr2.max() == 0.0)
    assert alarms == 0
    design = posteriors.designs[posteriors.design_r[QUALITY]]
    assert design.precision_kp[0, -1] > 5000 > ESS_AFTER_ALARM


def test_a_change_keeps_other_responses_as_they_were() -> None:
    posteriors = fresh(2)
    rng = np.random.default_rng(6)
    x_nd = contexts(REFRESH + 200, 2)
    for i, x_d in enumerate(x_nd):
        quality = (0.9 if i < REFRESH else 0.1) + 0.01 * rng.normal()
        observe_all(posteriors, 0, x_d, ((QUALITY, float(quality)), (1, -7.0)))
    quality_design, cost_design = (posteriors.designs[posteriors.design_r[r]] for r in (0, 1))
    assert quality_design.precision_kp[0, -1] < cost_design.precision_kp[0, -1]
    assert posteriors.mean_krd[0, 1, -1] == pytest.approx(-7.0, abs=0.01)
    assert posteriors.mean_krd[0, 0, -1] < 0.2
