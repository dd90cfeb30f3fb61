from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from pointsman.simulator.offpolicy.intervals.adaptive import (
    expected_squared_weights,
    stable_var_weights,
    weighted_mean,
)
from pointsman.simulator.offpolicy.intervals.fixed_time import normal
from pointsman.simulator.offpolicy.intervals.interval import Interval
from tests.simulator.logged_paths import bandit_paths, most_misses

Array = npt.NDArray[np.float64]

squares = arrays(np.float64, st.integers(2, 200), elements=st.floats(0.0, 1e4))


def test_spread_is_the_mean_squared_weight() -> None:
    target_nk, logged_nk = np.array([[0.5, 0.5, 0.0]]), np.array([[0.1, 0.9, 0.0]])
    assert expected_squared_weights(target_nk, logged_nk) == pytest.approx([0.25 / 0.1 + 0.25 / 0.9])
    assert expected_squared_weights(logged_nk, logged_nk) == pytest.approx([1.0])


@given(squares, st.data())
@settings(deadline=None)
def test_stable_weights_know_only_earlier_rounds(squared_n: Array, data: st.DataObject) -> None:
    h_n = stable_var_weights(squared_n)
    assert (h_n > 0.0).all() and np.isfinite(h_n).all()
    t = data.draw(st.integers(0, len(squared_n) - 1))
    changed_n = squared_n.copy()
    changed_n[t:] = data.draw(st.floats(0.0, 1e4))
    assert stable_var_weights(changed_n)[: t + 1] == pytest.approx(h_n[: t + 1], rel=1e-6)


def test_stable_weights_follow_the_spread() -> None:
    squared_n = np.repeat([1.0, 100.0], 2_000)
    h_n = stable_var_weights(squared_n)
    assert h_n[1_999] == pytest.approx(1.0)
    # The last 400 rounds before it, and the pseudo-round.
    assert h_n[-1] == pytest.approx(1.0 / math.sqrt((1.0 + 400 * 100.0) / 401.0), rel=1e-9)


@given(arrays(np.float64, 30, elements=st.floats(-5.0, 5.0)), st.floats(-9.0, 9.0), st.floats(0.1, 9.0))
@settings(deadline=None)
def test_weighted_means_move_with_their_scores(score_n: Array, shift: float, scale: float) -> None:
    h_n = np.linspace(0.1, 2.0, 30)
    mean, plain = weighted_mean(score_n, h_n, 0.9)
    moved_mean, moved = weighted_mean(score_n * scale + shift, 7.0 * h_n, 0.9)
    bounds = moved_mean, moved.low, moved.high
    assert bounds == pytest.approx([v * scale + shift for v in (mean, plain.low, plain.high)], rel=1e-7, abs=1e-6)
    _, wider = weighted_mean(score_n, h_n, 0.99)
    assert wider.low <= plain.low <= mean <= plain.high <= wider.high


def test_equal_weights_give_the_normal_interval() -> None:
    score_n = np.random.default_rng(2).random(5_000)
    mean, of_scores = weighted_mean(score_n, np.ones(5_000), 0.95)
    assert mean == pytest.approx(score_n.mean())
    assert of_scores.width == pytest.approx(normal(score_n, 0.95).width, rel=1e-3)


def adaptively_weighted(score_n: Array, target_nk: Array, logged_nk: Array, level: float) -> tuple[float, Interval]:
    return weighted_mean(score_n, stable_var_weights(expected_squared_weights(target_nk, logged_nk)), level)


def _doubly_robust(score_rn: Array, chosen_rn: npt.NDArray[np.intp], propensity_rn: Array, arm: int) -> Array:
    """Scores of one arm's value, its prediction being the arm's mean over earlier rounds."""
    is_arm_rn = chosen_rn == arm
    earned_rn = np.cumsum(np.where(is_arm_rn, score_rn, 0.0), axis=1)
    seen_rn = np.cumsum(is_arm_rn, axis=1)
    past_rn = (0.5 + earned_rn - np.where(is_arm_rn, score_rn, 0.0)) / (1.0 + seen_rn - is_arm_rn)
    return past_rn + np.where(is_arm_rn, (score_rn - past_rn) / propensity_rn, 0.0)


def _intervals(seed: int, paths: int, n: int, decay: float) -> dict[str, list[Interval]]:
    """90 % intervals of the second arm's value, 0.5, per path: Hadad et al.'s hard case.

    Two arms of the same value, and a learner that deserts one of them by chance, at rate t^-decay.
    """
    logs = bandit_paths(seed, paths, n, np.array([[0.5, 0.5]]), floor=0.0, decay=decay)
    score_rn = _doubly_robust(logs.reward_rn, logs.chosen_rn, logs.propensity_rn, 1)
    target_nk = np.tile([0.0, 1.0], (n, 1))
    of_paths: dict[str, list[Interval]] = {"stable": [], "plain": []}
    for r in range(paths):
        logged_nk = logs.logged_rnk[r]
        of_paths["stable"].append(adaptively_weighted(score_rn[r], target_nk, logged_nk, 0.9)[1])
        of_paths["plain"].append(normal(score_rn[r], 0.9))
    return of_paths


def test_intervals_cover_at_their_level_where_no_arm_is_starved() -> None:
    """Normal only in the limit: one point of 1 - level is allowed for that, besides chance."""
    paths = 1_500
    of_paths = _intervals(101, paths, 1_500, 0.5)
    assert sum(not interval.covers(0.5) for interval in of_paths["stable"]) <= most_misses(paths, 0.11)


def test_of_a_starved_arm_weighted_intervals_are_narrower_and_miss_no_more() -> None:
    """At t^-0.7 one path in twenty has some six draws of the arm: too few for any normal interval to keep its level.

    So no level is asked for: a narrower interval than the plain one, and no sign (one in a thousand) that, where only
    one of the two covers, it is more often the plain one.
    """
    of_paths = _intervals(103, 1_500, 1_500, 0.7)
    plain, stable = of_paths["plain"], of_paths["stable"]
    pairs = [(weighted.covers(0.5), unweighted.covers(0.5)) for weighted, unweighted in zip(stable, plain, strict=True)]
    only_plain, only_this = pairs.count((False, True)), pairs.count((True, False))
    assert stats.binomtest(only_plain, only_plain + only_this, alternative="greater").pvalue > 0.001
    assert np.mean([interval.width for interval in stable]) < 0.9 * np.mean([interval.width for interval in plain])


def test_contextual_policy_on_a_contextual_bandits_log() -> None:
    paths, n, alpha = 400, 1_000, 0.1
    mean_ck = np.array([[0.7, 0.4, 0.5], [0.3, 0.6, 0.5]])
    target_ck = np.array([[0.1, 0.1, 0.8], [0.05, 0.9, 0.05]])
    value = float((target_ck * mean_ck).sum(axis=1).mean())
    logs = bandit_paths(43, paths, n, mean_ck)
    score_rn = logs.weight_rn(target_ck) * (logs.reward_rn - 0.5) + 0.5
    missed, widths = 0, []
    for r in range(paths):
        target_nk = target_ck[logs.context_rn[r]]
        _, of_log = adaptively_weighted(score_rn[r], target_nk, logs.logged_rnk[r], 1.0 - alpha)
        missed += not of_log.covers(value)
        widths.append((of_log.width, normal(score_rn[r], 1.0 - alpha).width))
    assert missed <= most_misses(paths, alpha + 0.01)
    weighted_width, plain_width = np.mean(widths, axis=0)
    assert weighted_width < plain_width


def test_bad_input_is_named() -> None:
    two_n = np.array([0.5, 1.0])
    with pytest.raises(ValueError, match="round 1 gives no propensity"):
        expected_squared_weights(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([[0.5, 0.5], [1.0, 0.0]]))
    with pytest.raises(ValueError, match="target_nk, logged_nk: shapes"):
        expected_squared_weights(np.ones((2, 2)), np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"squared_n: .* negative"):
        stable_var_weights(np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match="h_n: 3 weights for 2"):
        weighted_mean(two_n, np.ones(3), 0.9)
    with pytest.raises(ValueError, match="not all 0"):
        weighted_mean(two_n, np.zeros(2), 0.9)
