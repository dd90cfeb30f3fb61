from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from pointsman.simulator.offpolicy.evaluation.diagnostics import (
    OVERLAP_LEVELS,
    Calibration,
    calibration,
    calibration_by_model,
    diagnose,
    effective_sample_size,
    mass_below,
    mean_weight_z,
    tail_index,
)
from tests.simulator.logged_paths import bandit_paths, most_misses

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

weights = arrays(np.float64, st.integers(1, 100), elements=st.just(0.0) | st.floats(1e-6, 1e6))


def draws(rng: np.random.Generator, probability_nk: Array) -> Indices:
    """One model a round."""
    return np.asarray((rng.random((len(probability_nk), 1)) > np.cumsum(probability_nk, axis=1)[:, :-1]).sum(axis=1))


# -- Weights ---------------------------------------------------------------------------------------------------------


def test_effective_sample_size_of_known_weights() -> None:
    assert effective_sample_size(np.full(7, 3.0)) == pytest.approx(7.0)
    assert effective_sample_size(np.array([5.0, 0.0, 0.0])) == pytest.approx(1.0)
    assert effective_sample_size(np.array([1.0, 2.0, 3.0])) == pytest.approx(36.0 / 14.0)
    assert effective_sample_size(np.zeros(3)) == 0.0


@given(weights, st.floats(1e-3, 1e3))
@settings(deadline=None)
def test_effective_sample_size_has_no_unit_and_keeps_its_range(weight_n: Array, scale: float) -> None:
    size = effective_sample_size(weight_n)
    assert effective_sample_size(weight_n * scale) == pytest.approx(size, rel=1e-6)
    if weight_n.any():
        assert 1.0 - 1e-9 <= size <= len(weight_n) + 1e-6


def test_mean_weight_z_is_a_t_statistic() -> None:
    weight_n = np.random.default_rng(1).gamma(2.0, 0.6, 400)
    assert mean_weight_z(weight_n) == pytest.approx(stats.ttest_1samp(weight_n, 1.0).statistic)
    assert mean_weight_z(np.ones(9)) == 0.0
    assert mean_weight_z(np.full(9, 0.5)) == -math.inf


@pytest.mark.parametrize("shape", [-0.3, 0.2, 0.7, 1.2])
def test_tail_index_of_a_known_tail(shape: float) -> None:
    """Excesses over a threshold of a generalised Pareto are one again, of the same shape; a tail of ~950 of 100,000."""
    tail_indices = [
        tail_index(stats.genpareto.rvs(shape, size=100_000, random_state=np.random.default_rng(seed)))
        for seed in range(5)
    ]
    assert float(np.mean(tail_indices)) == pytest.approx(shape, abs=0.1)


def test_tail_index_has_no_unit_and_is_near_the_likeliest() -> None:
    weight_n = np.random.default_rng(3).pareto(2.0, 20_000)
    assert tail_index(50.0 * weight_n) == pytest.approx(tail_index(weight_n), rel=1e-6)
    tail_m = np.sort(weight_n)[-math.ceil(3.0 * math.sqrt(20_000)) - 1 :]
    likeliest, _, _ = stats.genpareto.fit(tail_m[1:] - tail_m[0], floc=0.0)
    assert tail_index(weight_n) == pytest.approx(likeliest, abs=0.05)


def test_weights_without_a_tail_have_no_index() -> None:
    assert math.isnan(tail_index(np.ones(1_000)))
    assert math.isnan(tail_index(np.array([1.0, 2.0, 3.0])))
    assert math.isnan(tail_index(np.where(np.arange(1_000) < 10, 5.0, 1.0)))


def test_overlap_is_the_mass_on_rare_models() -> None:
    target_nk = np.array([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]])
    logged_nk = np.array([[0.98, 0.02, 0.0], [0.5, 0.005, 0.495]])
    assert mass_below(target_nk, logged_nk, 0.01) == pytest.approx((0.5 + 1.0) / 2.0)
    assert mass_below(target_nk, logged_nk, 0.05) == pytest.approx((0.8 + 1.0) / 2.0)


def test_diagnose_puts_all_together() -> None:
    rng = np.random.default_rng(5)
    logged_nk = rng.dirichlet(np.ones(3), 5_000)
    chosen_n = draws(rng, logged_nk)
    target_nk = np.tile([0.2, 0.5, 0.3], (5_000, 1))
    each_n = np.arange(5_000)
    weight_n = target_nk[each_n, chosen_n] / logged_nk[each_n, chosen_n]
    diagnostics = diagnose(weight_n, chosen_n, target_nk, logged_nk)
    assert diagnostics.n == 5_000
    assert diagnostics.ess == effective_sample_size(weight_n)
    assert diagnostics.largest_weight_share == pytest.approx(weight_n.max() / weight_n.sum())
    assert diagnostics.quantiles[0] == np.median(weight_n)
    assert diagnostics.largest == weight_n.max()
    assert diagnostics.overlap == tuple(mass_below(target_nk, logged_nk, level) for level in OVERLAP_LEVELS)
    assert diagnostics.unsupported == 0.0
    assert diagnostics.by_model == calibration_by_model(chosen_n, logged_nk)
    assert diagnostics.by_propensity == calibration(chosen_n, logged_nk)
    alone = diagnose(weight_n, chosen_n, target_nk, None)
    assert (alone.overlap, alone.unsupported, alone.by_model, alone.by_propensity) == (None, None, None, None)
    assert alone.tail_index == diagnostics.tail_index


# -- Propensities ----------------------------------------------------------------------------------------------------


def test_calibration_by_model_of_a_fixed_policy_is_pearsons_chi_square() -> None:
    chosen_n = np.repeat([0, 1, 2], [130, 250, 120])
    logged_nk = np.tile([0.3, 0.5, 0.2], (500, 1))
    expected = stats.chisquare([130, 250, 120], [150, 250, 100])
    result = calibration_by_model(chosen_n, logged_nk)
    assert result.statistic == pytest.approx(expected.statistic, rel=1e-9)
    assert result.dof == 2
    assert result.p_value == pytest.approx(min(1.0, 2.0 * expected.pvalue))
    assert [result_bin.observed for result_bin in result.bins] == [130, 250, 120]
    assert result.bins[0].z == pytest.approx(-20.0 / math.sqrt(500 * 0.3 * 0.7))


def test_bins_hold_every_pair_once() -> None:
    rng = np.random.default_rng(7)
    logged_nk = rng.dirichlet(np.full(4, 0.3), 3_000)
    result = calibration(draws(rng, logged_nk), logged_nk)
    assert sum(result_bin.pairs for result_bin in result.bins) == logged_nk.size
    assert sum(result_bin.observed for result_bin in result.bins) == 3_000
    assert sum(result_bin.stated for result_bin in result.bins) == pytest.approx(3_000)
    inside = (logged_nk >= result.bins[3].low) & (logged_nk < result.bins[3].high)
    assert result.bins[3].pairs == inside.sum()
    assert result.bins[3].stated == pytest.approx(logged_nk[inside].sum())


@pytest.mark.parametrize("test", [calibration, calibration_by_model])
def test_true_propensities_of_a_learning_policy_are_rarely_refused(
    test: Callable[[Indices, Array], Calibration],
) -> None:
    paths = 400
    logs = bandit_paths(11, paths, 400, np.array([[0.7, 0.4, 0.5], [0.3, 0.6, 0.5]]))
    results = [test(logs.chosen_rn[r], logs.logged_rnk[r]) for r in range(paths)]
    for alpha in (0.2, 0.05):
        assert sum(result.p_value < alpha for result in results) <= most_misses(paths, alpha)
    # The statistic itself, before it is made safe for rare events, has the mean of a chi-square.
    assert np.mean([result.statistic / result.dof for result in results if result.dof]) == pytest.approx(1.0, abs=0.2)


def test_wrong_propensities_are_refused() -> None:
    rng = np.random.default_rng(13)
    logged_nk = rng.dirichlet(np.ones(3), 4_000)
    # Logged for a policy that is sharper than the one that chose.
    flatter_nk = logged_nk**0.7 / (logged_nk**0.7).sum(axis=1, keepdims=True)
    assert calibration(draws(rng, flatter_nk), logged_nk).p_value < 1e-6
    # Logged before a limit that took half of one model's choices away.
    chosen_n = draws(rng, logged_nk)
    moved_n = np.where((chosen_n == 2) & (rng.random(4_000) < 0.5), 0, chosen_n)
    assert calibration_by_model(moved_n, logged_nk).p_value < 1e-6
    assert calibration_by_model(chosen_n, logged_nk).p_value > 0.01


def test_a_rare_choice_that_comes_too_often_is_refused_though_nothing_is_normal() -> None:
    logged_nk = np.tile([0.9999, 0.0001], (1_000, 1))
    often_n = np.where(np.arange(1_000) < 20, 1, 0)
    result = calibration(often_n, logged_nk)
    assert result.dof == 0
    assert result.p_value < 1e-10
    # Four more than the 0.1 expected: Bennett's bound on either side, of one bin among all, and of one test among two.
    four_n = np.where(np.arange(1_000) < 4, 1, 0)
    variance = 1_000 * 0.0001 * 0.9999
    ratio = 3.9 / variance
    bound = 2.0 * math.exp(-variance * ((1.0 + ratio) * math.log(1.0 + ratio) - ratio))
    assert calibration_by_model(four_n, logged_nk).p_value == pytest.approx(2.0 * 2.0 * bound, rel=1e-6)
    assert calibration(np.zeros(1_000, dtype=np.intp), logged_nk).p_value == 1.0


def test_the_impossible_is_refused_outright() -> None:
    logged_nk = np.tile([0.5, 0.5, 0.0], (100, 1))
    chosen_n = np.arange(100) % 2
    assert calibration_by_model(chosen_n, logged_nk).p_value > 0.5
    chosen_n[7] = 2
    result = calibration_by_model(chosen_n, logged_nk)
    assert result.p_value == 0.0
    assert result.bins[2].z == math.inf


# -- Bad input -------------------------------------------------------------------------------------------------------


def test_bad_input_is_named() -> None:
    one_n, half_nk = np.array([1.0]), np.array([[0.5, 0.5]])
    with pytest.raises(ValueError, match="weight_n: value 1 is negative"):
        effective_sample_size(np.array([1.0, -2.0]))
    with pytest.raises(ValueError, match="expected 1 rounds in each"):
        diagnose(one_n, np.array([0, 1]), half_nk, None)
    with pytest.raises(ValueError, match="does not number 2 models"):
        calibration(np.array([2]), half_nk)
    with pytest.raises(ValueError, match="rows that sum to 1"):
        calibration(np.array([0]), half_nk * 0.9)
    with pytest.raises(ValueError, match="chosen_n, logged_nk: shapes"):
        calibration_by_model(np.array([0, 1]), half_nk)
