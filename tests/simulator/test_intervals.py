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

from simulator.offpolicy.intervals import (
    RESAMPLED,
    Interval,
    bootstrap,
    empirical_bernstein,
    normal,
    predictable_bernstein,
)
from tests.simulator.logged_paths import most_misses

Array = npt.NDArray[np.float64]
Method = Callable[[Array, float], Interval]


def _bootstrap(score_n: Array, level: float) -> Interval:
    return bootstrap(score_n, level, np.random.default_rng(0), 500)


def _maurer_pontil(score_n: Array, level: float) -> Interval:
    return empirical_bernstein(score_n, level, -1.0, 2.0)


def _predictable(score_n: Array, level: float) -> Interval:
    return predictable_bernstein(score_n, level, -1.0, 2.0)


each_method = pytest.mark.parametrize("method", [normal, _bootstrap, _maurer_pontil, _predictable])
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


def test_empirical_bernstein_is_the_theorem() -> None:
    score_n = np.array([0.1, 0.4, 0.35, 0.8, 0.2] * 200)
    n, log = 1_000, math.log(4.0 / 0.05)
    half = math.sqrt(2.0 * np.var(score_n, ddof=1) * log / n) + 7.0 * log / (3.0 * (n - 1))
    of_scores = empirical_bernstein(score_n, 0.95, 0.0, 1.0)
    assert (of_scores.low, of_scores.high) == pytest.approx((0.37 - half, 0.37 + half), rel=1e-12)


def test_predictable_bernstein_is_the_theorem_round_by_round() -> None:
    x = np.random.default_rng(2).random(300).tolist()
    n, log, total, earned, spent = len(x), math.log(2.0 / 0.1), 0.0, 0.0, 0.0
    seen, squares = 0.5, 0.25
    for t, score in enumerate(x):
        bet = min(math.sqrt(2.0 * log / (n * squares / (t + 1))), 0.75)
        spent += (score - seen / (t + 1)) ** 2 * (-math.log(1.0 - bet) - bet)
        earned, total, seen = earned + bet * score, total + bet, seen + score
        squares += (score - seen / (t + 2)) ** 2
    expected = (earned - log - spent) / total, (earned + log + spent) / total
    of_scores = predictable_bernstein(np.array(x), 0.9, 0.0, 1.0)
    assert (of_scores.low, of_scores.high) == pytest.approx(expected, rel=1e-12)
    assert of_scores.width < empirical_bernstein(np.array(x), 0.9, 0.0, 1.0).width


# -- Laws ------------------------------------------------------------------------------------------------------------


@each_method
@given(score_n=scores, one=st.floats(0.05, 0.99), other=st.floats(0.05, 0.99))
@settings(deadline=None, max_examples=40)
def test_more_certain_intervals_hold_the_others(method: Method, score_n: Array, one: float, other: float) -> None:
    less, more = sorted((one, other))
    inner, outer = method(score_n, less), method(score_n, more)
    # Plug-in bets depend on the level, so its intervals are nested in width, up to their centres.
    if method is _predictable:
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
    moved = {
        _maurer_pontil: lambda: empirical_bernstein(moved_n, 0.9, low, high),
        _predictable: lambda: predictable_bernstein(moved_n, 0.9, low, high),
    }.get(method, lambda: method(moved_n, 0.9))()
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


@pytest.mark.parametrize("method", [empirical_bernstein, predictable_bernstein])
def test_bernstein_intervals_cover_bounded_scores_of_any_shape(
    method: Callable[[Array, float, float, float], Interval],
) -> None:
    rng = np.random.default_rng(3)
    paths, alpha = 400, 0.2
    for score_rn, mean in (
        ((rng.random((paths, 150)) < 0.03).astype(np.float64), 0.03),
        (rng.beta(2.0, 5.0, (paths, 150)), 2.0 / 7.0),
    ):
        missed = sum(not method(score_n, 1.0 - alpha, 0.0, 1.0).covers(mean) for score_n in score_rn)
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
        predictable_bernstein(good_n, 0.9, 0.15, 1.0)
