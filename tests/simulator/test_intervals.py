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

from pointsman.simulator.offpolicy.intervals.fixed_time import (
    RESAMPLED,
    bias_aware,
    bootstrap,
    empirical_bernstein,
    expected_squares,
    normal,
    widened,
)
from pointsman.simulator.offpolicy.intervals.interval import Interval
from tests.simulator.logged_paths import most_misses

Array = npt.NDArray[np.float64]
Method = Callable[[Array, float], Interval]


def _bootstrap(score_n: Array, level: float) -> Interval:
    return bootstrap(score_n, level, np.random.default_rng(0), 500)


def _bernstein(score_n: Array, level: float) -> Interval:
    return empirical_bernstein(score_n, level, -1.0, 2.0)


each_method = pytest.mark.parametrize("method", [normal, _bootstrap, _bernstein])
scores = arrays(np.float64, st.integers(2, 60), elements=st.floats(-1.0, 2.0))


# -- Known answers ---------------------------------------------------------------------------------------------------


def test_normal_is_students_interval() -> None:
    score_n = np.random.default_rng(1).standard_normal(13)
    expected = stats.ttest_1samp(score_n, 0.0).confidence_interval(0.9)
    of_scores = normal(score_n, 0.9)
    assert (of_scores.low, of_scores.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert of_scores.level == 0.9


@pytest.mark.parametrize("seed", range(4))
def test_bootstrap_is_scipys_from_the_same_draws(seed: int) -> None:
    score_n = np.random.default_rng(100 + seed).pareto(3.0, 70)
    expected = stats.bootstrap(
        (score_n,), np.mean, n_resamples=3_000, confidence_level=0.95, method="BCa", rng=np.random.default_rng(seed)
    ).confidence_interval
    of_scores = bootstrap(score_n, 0.95, np.random.default_rng(seed), 3_000)
    assert (of_scores.low, of_scores.high) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_bootstrap_of_very_many_scores_is_that_of_their_blocks() -> None:
    score_n = np.random.default_rng(7).exponential(size=30 * RESAMPLED + 17)
    of_scores = bootstrap(score_n, 0.95, np.random.default_rng(8), 400)
    by_t = normal(score_n, 0.95)
    assert of_scores.width == pytest.approx(by_t.width, rel=0.1)
    assert of_scores.covers(float(score_n.mean()))


def test_empirical_bernstein_is_the_theorem_round_by_round() -> None:
    x = np.random.default_rng(2).random(300).tolist()
    n, log, total, earned, spent = len(x), math.log(2.0 / 0.1), 0.0, 0.0, 0.0
    mean, squares = 0.5, 0.25
    for t, score in enumerate(x):
        bet = min(math.sqrt(2.0 * log / (n * squares / (t + 1))), 0.75)
        spent += (score - mean / (t + 1)) ** 2 * (-math.log(1.0 - bet) - bet)
        earned, total, mean = earned + bet * score, total + bet, mean + score
        squares += (score - mean / (t + 2)) ** 2
    expected = (earned - log - spent) / total, (earned + log + spent) / total
    of_scores = empirical_bernstein(np.array(x), 0.9, 0.0, 1.0)
    assert (of_scores.low, of_scores.high) == pytest.approx(expected, rel=1e-12)
    half = math.sqrt(2.0 * np.var(x, ddof=1) * math.log(4.0 / 0.1) / n) + 7.0 * math.log(4.0 / 0.1) / (3.0 * (n - 1))
    assert of_scores.width < 2.0 * half, "narrower than Maurer and Pontil's"


# -- Laws ------------------------------------------------------------------------------------------------------------


@each_method
@given(score_n=scores, level=st.floats(0.05, 0.99), other_level=st.floats(0.05, 0.99))
@settings(deadline=None, max_examples=40)
def test_more_certain_intervals_hold_the_others(
    method: Method, score_n: Array, level: float, other_level: float
) -> None:
    less, more = sorted((level, other_level))
    inner, outer = method(score_n, less), method(score_n, more)
    # Plug-in bets depend on the level, so its intervals are nested in width, up to their centres.
    if method is _bernstein:
        assert outer.width >= inner.width - 1e-9 or outer.low == -1.0 or outer.high == 2.0
    else:
        assert outer.low <= inner.low + 1e-12
        assert outer.high >= inner.high - 1e-12


@each_method
@given(score_n=scores, shift=st.floats(-10.0, 10.0), scale=st.floats(0.1, 10.0))
@settings(deadline=None, max_examples=40)
def test_shifted_and_scaled_scores_give_shifted_and_scaled_intervals(
    method: Method, score_n: Array, shift: float, scale: float
) -> None:
    score_n = np.round(score_n, 3)
    low, high = shift - scale, shift + 2.0 * scale
    moved_n = np.clip(score_n * scale + shift, low, high)
    plain = method(score_n, 0.9)
    moved = empirical_bernstein(moved_n, 0.9, low, high) if method is _bernstein else method(moved_n, 0.9)
    expected = plain.low * scale + shift, plain.high * scale + shift
    assert (moved.low, moved.high) == pytest.approx(expected, rel=1e-9, abs=1e-8 * (scale + abs(shift)))


@each_method
def test_scores_all_alike_have_no_spread(method: Method) -> None:
    alike = method(np.full(50, 0.1), 0.95)
    assert alike.low <= 0.1 + 1e-12
    assert alike.high >= 0.1 - 1e-12
    if method in (normal, _bootstrap):
        assert alike.width == pytest.approx(0.0, abs=1e-12)


# -- Coverage --------------------------------------------------------------------------------------------------------


def test_bernstein_intervals_cover_bounded_scores_of_any_shape() -> None:
    rng = np.random.default_rng(3)
    paths, alpha = 400, 0.2
    for score_rn, mean in (
        ((rng.random((paths, 150)) < 0.03).astype(np.float64), 0.03),
        (rng.beta(2.0, 5.0, (paths, 150)), 2.0 / 7.0),
    ):
        missed = sum(not empirical_bernstein(score_n, 1.0 - alpha, 0.0, 1.0).covers(mean) for score_n in score_rn)
        assert missed <= most_misses(paths, alpha)


def test_normal_and_bootstrap_cover_calm_scores_at_their_level() -> None:
    rng = np.random.default_rng(4)
    paths, alpha = 500, 0.1
    score_rn = rng.gamma(4.0, 0.25, (paths, 200))
    missed = {
        "normal": sum(not normal(score_n, 1.0 - alpha).covers(1.0) for score_n in score_rn),
        "bootstrap": sum(not bootstrap(score_n, 1.0 - alpha, rng, 400).covers(1.0) for score_n in score_rn),
    }
    for name, count in missed.items():
        assert 20 <= count <= most_misses(paths, alpha), name


def test_bootstrap_leans_to_the_long_tail() -> None:
    """Skewed scores: the t interval misses nearly always on one side, BCa less so."""
    rng = np.random.default_rng(6)
    score_rn = rng.pareto(2.5, (400, 100))
    mean = 1.0 / 1.5
    by_t = sum(normal(score_n, 0.9).high < mean for score_n in score_rn)
    by_bootstrap = sum(bootstrap(score_n, 0.9, rng, 400).high < mean for score_n in score_rn)
    assert by_bootstrap < by_t


def test_a_biased_estimates_interval_holds_the_truth_and_the_unbiased_ones() -> None:
    """Shrunk by a third, with a spread a third of the unbiased scores'."""
    rng = np.random.default_rng(5)
    paths, alpha, missed = 300, 0.1, 0
    for _ in range(paths):
        unbiased_n = 0.6 + 0.9 * rng.standard_normal(400)
        shrunk_n = 0.4 + (unbiased_n - 0.6) / 3.0
        interval = bias_aware(shrunk_n, unbiased_n, 1.0 - alpha)
        missed += not interval.covers(0.6)
        assert interval.low < float(shrunk_n.mean()) < interval.high
        assert interval.width >= normal(unbiased_n, 1.0 - alpha).width
    assert missed <= most_misses(paths, alpha)
    same = bias_aware(unbiased_n, unbiased_n, 0.9)
    assert (same.low, same.high) == pytest.approx((normal(unbiased_n, 0.95).low, normal(unbiased_n, 0.95).high))


def test_the_expected_error_sees_weights_that_did_not_come() -> None:
    """A model drawn at .02: with too few of its rounds the variance seen is too small, the expected one is not."""
    rng = np.random.default_rng(6)
    n, paths, sample_variances, hoped = 300, 400, [], []
    logged_nk, target_nk = np.tile([0.98, 0.02], (n, 1)), np.tile([0.5, 0.5], (n, 1))
    for _ in range(paths):
        chosen_n = (rng.random(n) < 0.02).astype(np.intp)
        residual_n = rng.choice([-1.0, 1.0], n)
        score_n = (target_nk / logged_nk)[np.arange(n), chosen_n] * residual_n
        sample_variances.append(score_n.var())
        hoped.append(expected_squares(residual_n, chosen_n, target_nk, logged_nk).mean())
    truth = 0.25 / 0.98 + 0.25 / 0.02
    assert hoped == pytest.approx([truth] * paths)
    assert np.mean(np.array(sample_variances) < 0.7 * truth) > 0.15, "and far less was seen in many"


def test_an_interval_is_widened_only_where_it_is_too_narrow() -> None:
    interval = Interval(0.4, 0.9, 0.95)
    assert widened(interval, 0.5, 0.01) == interval
    wider = widened(interval, 0.5, 0.1)
    assert (wider.low, wider.high) == pytest.approx((0.5 - 0.1959964, 0.9))
    assert widened(interval, 0.5, 0.0) == interval


# -- Bad input -------------------------------------------------------------------------------------------------------


def test_bad_input_is_named() -> None:
    good_n = np.array([0.1, 0.2])
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="level: 1"):
        normal(good_n, 1.5)
    with pytest.raises(ValueError, match="at least 2 values"):
        normal(np.array([1.0]), 0.9)
    with pytest.raises(ValueError, match="value 1 is not a finite"):
        bootstrap(np.array([1.0, math.inf]), 0.9, rng)
    with pytest.raises(ValueError, match="replicates: 10"):
        bootstrap(good_n, 0.9, rng, 10)
    with pytest.raises(ValueError, match="rising order"):
        empirical_bernstein(good_n, 0.9, 1.0, 1.0)
    with pytest.raises(ValueError, match="not within"):
        empirical_bernstein(good_n, 0.9, 0.15, 1.0)
