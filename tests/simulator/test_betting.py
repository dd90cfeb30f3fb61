from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq

from pointsman.simulator.offpolicy.intervals.betting import ControlVariate, lower_bounds, upper_bounds
from pointsman.simulator.offpolicy.intervals.fixed_time import normal
from pointsman.simulator.offpolicy.intervals.interval import Interval
from tests.simulator.logged_paths import Paths, bandit_paths, most_misses, past_means

Array = npt.NDArray[np.float64]

MEAN_CK = np.array([[0.7, 0.4, 0.5], [0.3, 0.6, 0.5]])
TARGET_CK = np.array([[0.1, 0.1, 0.8], [0.05, 0.9, 0.05]])
VALUE = float((TARGET_CK * MEAN_CK).sum(axis=1).mean())

scores = arrays(np.float64, st.integers(1, 60), elements=st.floats(0.0, 50.0, allow_subnormal=False))
levels = st.floats(0.5, 0.999)


def of_scores(score_n: Array, level: float, at: npt.NDArray[np.intp] | None = None) -> Array:
    """Lower bounds of the mean of scores of at least 0: weights of rewards that are all 1."""
    return lower_bounds(np.ones_like(score_n), score_n, level, at=at)


def both_bounds(reward_n: Array, weight_n: Array, level: float, **more: Any) -> tuple[Array, Array]:
    """Lower and upper bounds that hold together with probability ``level``: either at half of 1 - ``level``."""
    side = 0.5 + level / 2.0
    return lower_bounds(reward_n, weight_n, side, **more), upper_bounds(reward_n, weight_n, side, **more)


def last_interval(reward_n: Array, weight_n: Array, level: float, **more: Any) -> Interval:
    """Both bounds after all rounds."""
    low_1, high_1 = both_bounds(reward_n, weight_n, level, at=np.array([len(reward_n)]), **more)
    return Interval(float(low_1[0]), float(high_1[0]), level)


# -- What is computed -----------------------------------------------------------------------------------------------


def by_hand(score_n: list[float], level: float) -> float:
    """The definition, round by round: wealth of every bet size as a function of the sum of conditional means."""
    stakes = [1.0 / (1.0 + ((j - 6.0) / 4.0) ** 2) for j in range(24)]

    def wealth(mean: float) -> float:
        total = 0.0
        for j, stake in enumerate(stakes):
            bet = 2.0**-j
            log_wealth, earlier = 0.0, 0.0
            for t, score in enumerate(score_n):
                centre = (min(0.5, 0.75 / bet) + earlier) / (t + 1)
                log_wealth += math.log(1.0 + bet * (score - centre)) - bet * (mean - centre)
                earlier += min(score, 0.75 / bet)
            total += stake / sum(stakes) * math.exp(log_wealth)
        return total

    return float(brentq(lambda mean: wealth(mean) - 1.0 / (1.0 - level), -40.0, 60.0, xtol=1e-13))


@given(st.lists(st.floats(0.0, 20.0), min_size=1, max_size=12), st.floats(0.2, 0.99))
@settings(max_examples=40, deadline=None)
def test_the_bound_is_where_wealth_reaches_one_over_alpha(score: list[float], level: float) -> None:
    assert of_scores(np.array(score), level)[-1] == pytest.approx(max(by_hand(score, level), 0.0), abs=1e-9)


@given(scores, levels, levels)
@settings(deadline=None)
def test_more_certain_bounds_are_wider(score_n: Array, level: float, other_level: float) -> None:
    less, more = sorted((level, other_level))
    assert (of_scores(score_n, more) <= of_scores(score_n, less)).all()
    reward_n, weight_n = score_n / 50.0, np.ones_like(score_n)
    assert (upper_bounds(reward_n, weight_n, more) >= upper_bounds(reward_n, weight_n, less)).all()


@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(0.0, 1.0)), st.integers(0, 2**32), levels)
@settings(deadline=None)
def test_the_upper_bound_is_the_lower_bound_of_the_mirrored_reward(reward_n: Array, seed: int, level: float) -> None:
    weight_n = np.random.default_rng(seed).pareto(1.5, len(reward_n))
    mirrored_n = 1.0 - lower_bounds(1.0 - reward_n, weight_n, level)
    np.testing.assert_array_equal(upper_bounds(reward_n, weight_n, level), mirrored_n)


@given(scores, levels)
@settings(deadline=None)
def test_the_past_does_not_change_when_rounds_are_added(score_n: Array, level: float) -> None:
    whole_n = of_scores(score_n, level)
    half = (len(score_n) + 1) // 2
    assert of_scores(score_n[:half], level) == pytest.approx(whole_n[:half], rel=1e-12, abs=1e-12)
    assert of_scores(score_n, level, at=np.array([half])) == pytest.approx(whole_n[half - 1], rel=1e-9, abs=1e-9)


def test_paths_side_by_side_are_each_on_their_own() -> None:
    score_rn = np.random.default_rng(3).pareto(1.2, (3, 2, 40))
    together = of_scores(score_rn, 0.9)
    assert together.shape == (3, 2, 40)
    assert together[2, 1] == pytest.approx(of_scores(score_rn[2, 1], 0.9), rel=1e-12)


def test_bounds_close_in_on_the_mean_about_as_fast_as_normal_ones() -> None:
    rng = np.random.default_rng(11)
    for n in (1_000, 10_000, 100_000):
        score_n = np.where(rng.random(n) < 0.2, rng.random(n) / 0.2, 0.0)
        low = float(of_scores(score_n, 0.975, at=np.array([n]))[0])
        reach = (0.5 - low) / (normal(score_n, 0.95).width / 2.0)
        assert 1.0 < reach < 2.4


@pytest.fixture(scope="module")
def long_log() -> Paths:
    return bandit_paths(47, 1, 40_000, MEAN_CK, floor=0.4)


@pytest.mark.parametrize("factor", [0.0, 0.8, 1.0, 1.3])
@pytest.mark.parametrize("controlled", [False, True])
def test_both_bounds_close_in_on_the_difference(long_log: Paths, factor: float, controlled: bool) -> None:
    """The candidate, the factor and a range other than 1 all enter: neither bound is merely safe."""
    high, logs = 2.5, long_log
    context_n, chosen_n, logged_nk = logs.context_rn[0], logs.chosen_rn[0], logs.logged_rnk[0]
    mean_nk = high * MEAN_CK[context_n]
    true = high * VALUE - factor * float((logged_nk * mean_nk).sum(axis=1).mean())
    control = ControlVariate(mean_nk, TARGET_CK[context_n], logged_nk, chosen_n) if controlled else None
    reward_n, weight_n = high * logs.reward_rn[0], logs.weight_rn(TARGET_CK)[0]
    of_log = last_interval(reward_n, weight_n, 0.95, factor=factor, high=high, control_variate=control)
    assert of_log.covers(true)
    assert true - of_log.low < 0.05 * high
    assert of_log.high - true < 0.05 * high


@given(
    arrays(np.float64, st.integers(1, 40), elements=st.floats(0.0, 1.0)), st.floats(0.01, 100.0), st.floats(0.0, 1.5)
)
@settings(deadline=None)
def test_bounds_of_scaled_rewards_are_scaled_and_the_last_of_all_is_that_of_the_end(
    reward_n: Array, high: float, factor: float
) -> None:
    weight_n = np.random.default_rng(len(reward_n)).pareto(1.5, len(reward_n))
    plain = last_interval(reward_n, weight_n, 0.9, factor=factor)
    scaled_n = np.minimum(reward_n * high, high)
    scaled = last_interval(scaled_n, weight_n, 0.9, factor=factor, high=high)
    assert (scaled.low, scaled.high) == pytest.approx((plain.low * high, plain.high * high), rel=1e-7, abs=1e-7 * high)
    low_n, high_n = both_bounds(reward_n, weight_n, 0.9, factor=factor)
    assert (low_n[-1], high_n[-1]) == pytest.approx((plain.low, plain.high), rel=1e-9, abs=1e-9)


def test_past_means_know_only_the_past() -> None:
    predicted_nk = past_means(np.array([1.0, 0.5, 0.0, 1.0]), np.array([0, 1, 0, 1]), 2, 0.5)
    assert predicted_nk.tolist() == [[0.5, 0.5], [0.75, 0.5], [0.75, 0.5], [0.5, 0.5]]


# -- Validity, exactly: all paths of a short game, with their probabilities -----------------------------------------


@pytest.mark.parametrize("mean", [0.05, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("level", [0.3, 0.6, 0.9])
def test_all_coin_paths(mean: float, level: float) -> None:
    score_rn = np.array(list(itertools.product((0.0, 1.0), repeat=12)))
    chance_r = np.where(score_rn == 1.0, mean, 1.0 - mean).prod(axis=1)
    missed_r = (of_scores(score_rn, level) > mean).any(axis=1)
    assert float(chance_r[missed_r].sum()) <= 1.0 - level
    above_rn = upper_bounds(score_rn, np.ones_like(score_rn), level)
    assert float(chance_r[(above_rn < mean).any(axis=1)].sum()) <= 1.0 - level


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("controlled", [False, True])
@pytest.mark.parametrize("level", [0.3, 0.6, 0.9])
def test_all_paths_of_a_log_that_learns(factor: float, controlled: bool, level: float) -> None:
    """Two models, a logging policy that follows success; every one of the 4^6 paths, anytime, all bounds."""
    mean_k, target_k, n = np.array([0.7, 0.35]), np.array([0.25, 0.75]), 6
    step_rn = np.array(list(itertools.product(range(4), repeat=n)))
    chosen_rn, reward_rn = step_rn // 2, (step_rn % 2).astype(np.float64)
    signed_rn = np.where(chosen_rn == 0, 1.0, -1.0) * (2.0 * reward_rn - 1.0)
    past_rn = np.cumsum(signed_rn, axis=1) - signed_rn
    first_rn = 0.1 + 0.8 / (1.0 + np.exp(-1.5 * past_rn))
    logged_rnk = np.stack([first_rn, 1.0 - first_rn], axis=-1)
    propensity_rn = np.where(chosen_rn == 0, first_rn, 1.0 - first_rn)
    chance_rn = propensity_rn * np.where(reward_rn == 1.0, mean_k[chosen_rn], 1.0 - mean_k[chosen_rn])
    chance_r = chance_rn.prod(axis=1)
    assert chance_r.sum() == pytest.approx(1.0)

    weight_rn = target_k[chosen_rn] / propensity_rn
    control = None
    if controlled:
        predicted_rnk = np.stack([past_means(*path, 2, 0.5) for path in zip(reward_rn, chosen_rn, strict=True)])
        target_rnk = np.broadcast_to(target_k, logged_rnk.shape)
        control = ControlVariate(predicted_rnk, target_rnk, logged_rnk, chosen_rn)
    low_rn, high_rn = both_bounds(reward_rn, weight_rn, level, factor=factor, control_variate=control)
    # The logged value changes with the policy: what is bounded is the difference, averaged over the rounds so far.
    true_rn = float(target_k @ mean_k) - factor * (logged_rnk @ mean_k)
    true_rn = np.cumsum(true_rn, axis=1) / np.arange(1, n + 1)
    assert float(chance_r[(low_rn > true_rn + 1e-12).any(axis=1)].sum()) <= (1.0 - level) / 2.0
    assert float(chance_r[(high_rn < true_rn - 1e-12).any(axis=1)].sum()) <= (1.0 - level) / 2.0


# -- Validity on longer paths, at many counts of rounds -------------------------------------------------------------


def looks(n: int) -> npt.NDArray[np.intp]:
    """Each of the first twenty counts of rounds, and every fourth from there to ``n``."""
    return np.concatenate((np.arange(1, 21), np.arange(24, n + 1, 4)))


@pytest.mark.parametrize("index", [1.1, 1.5, 3.0])
def test_heavy_tailed_scores(index: float) -> None:
    """Pareto scores, of infinite variance with index < 2, whose mean is known."""
    paths, alpha = 300, 0.1
    score_rn = np.random.default_rng(5).pareto(index, (paths, 800))
    low_rn = of_scores(score_rn, 1.0 - alpha, looks(800))
    missed = int((low_rn > 1.0 / (index - 1.0)).any(axis=1).sum())
    assert missed <= most_misses(paths, alpha)


@pytest.mark.parametrize("controlled", [False, True])
@pytest.mark.parametrize("drift", [0.0, 0.25])
def test_a_bandits_log(controlled: bool, drift: float) -> None:
    paths, n, alpha = 200, 600, 0.1
    logs = bandit_paths(17, paths, n, MEAN_CK, drift=drift)
    control = None
    if controlled:
        predicted_rnk = np.stack(
            [past_means(*path, 3, 0.5) for path in zip(logs.reward_rn, logs.chosen_rn, strict=True)]
        )
        control = ControlVariate(predicted_rnk, TARGET_CK[logs.context_rn], logs.logged_rnk, logs.chosen_rn)
    low_rn, high_rn = both_bounds(
        logs.reward_rn, logs.weight_rn(TARGET_CK), 1.0 - alpha, control_variate=control, at=looks(n)
    )
    t_n = np.arange(1, n + 1)
    true_n = VALUE + np.cumsum(drift * np.sin(2.0 * np.pi * (t_n - 1) / n)) / t_n
    true_n = true_n[looks(n) - 1]
    assert int(((low_rn > true_n) | (high_rn < true_n)).any(axis=1).sum()) <= most_misses(paths, alpha)
    assert float((high_rn - low_rn)[:, -1].mean()) < 0.75
    if drift == 0.0:
        # Where the value is constant, so does the running intersection; it never is empty where it covers.
        inner_rn = np.maximum.accumulate(low_rn, axis=1), np.minimum.accumulate(high_rn, axis=1)
        missed_r = (inner_rn[0][:, -1] > VALUE) | (inner_rn[1][:, -1] < VALUE)
        assert int(missed_r.sum()) <= most_misses(paths, alpha)


def test_looking_again_and_again_breaks_a_fixed_time_interval_and_not_this_one() -> None:
    """The control of the tests above: on the same paths, a normal interval misses far more often than its level says."""
    paths, n, alpha = 300, 600, 0.1
    logs = bandit_paths(17, paths, n, MEAN_CK)
    score_rn = logs.weight_rn(TARGET_CK) * logs.reward_rn
    t_n = np.arange(1, n + 1)
    mean_rn = np.cumsum(score_rn, axis=1) / t_n
    error_rn = np.sqrt(np.maximum(np.cumsum(score_rn**2, axis=1) / t_n - mean_rn**2, 0.0) / t_n)
    off_rn = np.abs(mean_rn - VALUE) > 1.645 * error_rn
    assert int(off_rn[:, 29:].any(axis=1).sum()) > 3 * most_misses(paths, alpha)


@pytest.mark.parametrize("controlled", [False, True])
def test_a_candidate_on_the_border_is_not_let_through(controlled: bool) -> None:
    """False promotion: candidates that keep exactly ``factor`` of the logged value, looked at again and again."""
    paths, n, alpha, factor = 250, 500, 0.05, 0.98
    mean_k = np.array([0.8, 0.6])
    # The favourite has 3/4 of the choices, whoever it is: the logged value differs by path and round.
    logs = bandit_paths(23, paths, n, mean_k[None, :], floor=0.5)
    share_rn = (factor * (logs.logged_rnk @ mean_k) - 0.6) / 0.2
    target_rnk = np.stack([share_rn, 1.0 - share_rn], axis=-1)
    assert target_rnk.min() > 0.0
    weight_rn = np.take_along_axis(target_rnk, logs.chosen_rn[..., None], axis=-1)[..., 0] / logs.propensity_rn
    control = None
    if controlled:
        control = ControlVariate(np.full(target_rnk.shape, 0.7), target_rnk, logs.logged_rnk, logs.chosen_rn)
    low_rn, high_rn = both_bounds(
        logs.reward_rn, weight_rn, 1.0 - 2.0 * alpha, factor=factor, control_variate=control, at=looks(n)
    )
    assert int((low_rn > 0.0).any(axis=1).sum()) <= most_misses(paths, alpha)
    assert int((high_rn < 0.0).any(axis=1).sum()) <= most_misses(paths, alpha)


def test_a_good_candidate_is_let_through_sooner_as_one_paired_test() -> None:
    logs = bandit_paths(29, 1, 6_000, MEAN_CK, floor=0.3)
    # The candidate is what logged, but for one percent of its choices: most rounds say the same of both.
    target_nk = 0.99 * logs.logged_rnk[0] + 0.01 / 3.0
    chosen_n, reward_n = logs.chosen_rn[0], logs.reward_rn[0]
    weight_n = np.take_along_axis(target_nk, chosen_n[:, None], axis=-1)[:, 0] / logs.propensity_rn[0]
    assert lower_bounds(reward_n, weight_n, 0.95, factor=0.96, at=np.array([6_000]))[0] > 0.0
    apart = last_interval(reward_n, weight_n, 0.95)
    assert apart.low < 0.96 * last_interval(reward_n, np.ones_like(weight_n), 0.95).high


def test_good_predictions_narrow_both_bounds_and_bad_ones_do_not_break_them() -> None:
    paths, n = 30, 3_000
    logs = bandit_paths(31, paths, n, MEAN_CK, floor=0.1)
    weight_rn, last = logs.weight_rn(TARGET_CK), np.array([n])
    target_rnk = TARGET_CK[logs.context_rn]
    width = {}
    for name, predicted_ck in {"none": None, "true": MEAN_CK, "wrong": 1.0 - MEAN_CK}.items():
        control = None
        if predicted_ck is not None:
            control = ControlVariate(predicted_ck[logs.context_rn], target_rnk, logs.logged_rnk, logs.chosen_rn)
        low_r1, high_r1 = both_bounds(logs.reward_rn, weight_rn, 0.95, control_variate=control, at=last)
        assert int(((low_r1 > VALUE) | (high_r1 < VALUE)).sum()) <= most_misses(paths, 0.05)
        width[name] = float((high_r1 - low_r1).mean())
    assert width["true"] < 0.9 * width["none"]
    assert width["true"] < width["wrong"]


def test_mass_that_the_log_cannot_tell_of_only_widens() -> None:
    """A third model was never logged: its rewards may be anything, and the bounds leave room for all of them."""
    rng = np.random.default_rng(37)
    n = 4_000
    chosen_n = rng.integers(0, 2, n)
    reward_n = (rng.random(n) < np.array([0.4, 0.6])[chosen_n]).astype(np.float64)
    target_nk = np.tile([0.3, 0.4, 0.3], (n, 1))
    logged_nk = np.tile([0.5, 0.5, 0.0], (n, 1))
    weight_n = target_nk[np.arange(n), chosen_n] / 0.5
    observed_part = 0.3 * 0.4 + 0.4 * 0.6
    for control in (None, ControlVariate(np.full((n, 3), 0.5), target_nk, logged_nk, chosen_n)):
        of_log = last_interval(reward_n, weight_n, 0.95, control_variate=control)
        assert of_log.low < observed_part
        assert of_log.high > observed_part + 0.3
        assert of_log.width < 0.5


# -- Bad input -------------------------------------------------------------------------------------------------------


def test_bad_input_is_named() -> None:
    good_n = np.array([0.5, 0.2])
    with pytest.raises(ValueError, match="level"):
        lower_bounds(good_n, good_n, 1.0)
    with pytest.raises(ValueError, match="value 1 is not a finite"):
        lower_bounds(np.array([0.5, math.nan]), good_n, 0.9)
    with pytest.raises(ValueError, match="at least one round"):
        lower_bounds(np.array([]), np.array([]), 0.9)
    with pytest.raises(ValueError, match="high, factor: expected high > 0"):
        lower_bounds(good_n, good_n, 0.9, high=0.0)
    with pytest.raises(ValueError, match="at: expected rising counts"):
        lower_bounds(good_n, good_n, 0.9, at=np.array([2, 1]))
    with pytest.raises(ValueError, match="at: expected rising counts"):
        upper_bounds(good_n, good_n, 0.9, at=np.array([3]))
    with pytest.raises(ValueError, match=r"reward_n: .* not within"):
        lower_bounds(np.array([0.5, 1.2]), good_n, 0.9)
    with pytest.raises(ValueError, match=r"weight_n: .* negative"):
        upper_bounds(good_n, np.array([-1.0, 1.0]), 0.9)
    with pytest.raises(ValueError, match="weight_n: shape"):
        upper_bounds(good_n, np.ones(3), 0.9)
    half_nk, chosen_n = np.full((2, 2), 0.5), np.array([0, 1])
    for message, variate, weight_n in (
        ("weight_n: not the control", ControlVariate(half_nk, half_nk, half_nk, chosen_n), np.array([1.0, 2.0])),
        (r"predicted_nk: .* over high", ControlVariate(half_nk * 3, half_nk, half_nk, chosen_n), np.ones(2)),
        ("logged_nk: a row", ControlVariate(half_nk, half_nk, half_nk / 2, chosen_n), np.ones(2)),
    ):
        for bounds in (lower_bounds, upper_bounds):
            with pytest.raises(ValueError, match=message):
                bounds(good_n, weight_n, 0.9, control_variate=variate)
