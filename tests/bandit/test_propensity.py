"""Propensities against independent quadrature, Monte Carlo, closed forms, and the laws they must obey.

The reference integrates over panels of every arm's own scale (20 nodes per sd, 8 sds to each side),
multiplies leave-one-out products without dividing, and takes the floor rule from its textbook formula: it
shares no mesh, range, pruning or formula with the code under test, and a test holds it to scipy's quadrature.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import ndtr
from scipy.stats import norm

from pointsman.bandit.propensity import (
    argmax_propensities,
    argmax_propensity,
    floor_propensities,
    floor_propensity,
    normals,
)
from pointsman.bandit.propensity_batch import argmax_propensity_batch
from pointsman.bandit.propensity_batch import normals as batch_normals

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

TOLERANCE = 1e-9
_NODE, _WEIGHT = np.polynomial.legendre.leggauss(20)


def _panels(edges: FloatArray) -> tuple[FloatArray, FloatArray]:
    half = np.diff(edges) / 2
    node = (edges[:-1, None] + half[:, None] * (1 + _NODE)).ravel()
    return node, (half[:, None] * _WEIGHT).ravel()


def _leave_one_out(cdf_kn: FloatArray) -> FloatArray:
    before, after = np.ones_like(cdf_kn), np.ones_like(cdf_kn)
    before[1:] = np.cumprod(cdf_kn[:-1], axis=0)
    after[:-1] = np.cumprod(cdf_kn[:0:-1], axis=0)[::-1]
    return before * after


def reference_argmax(mean_k: FloatArray, sd_k: FloatArray, ceiling: float = math.inf) -> FloatArray:
    """P(a has the largest draw, below ceiling); point masses tie to the lowest index."""
    p_k = np.zeros(len(mean_k))
    centre = mean_k[np.argmax(mean_k - 8 * sd_k)]
    mean_k, ceiling = mean_k - centre, ceiling - centre
    smooth = sd_k > 0
    low = np.max(mean_k - 8 * sd_k)
    if not smooth.all():
        top = int(np.argmax(np.where(smooth, -np.inf, mean_k)))
        p_k[top] = np.prod(ndtr((mean_k[top] - mean_k[smooth]) / sd_k[smooth]))
    if not smooth.any():
        return p_k
    mean_k, sd_k = mean_k[smooth], sd_k[smooth]
    high = min(np.max(mean_k + 8 * sd_k), ceiling)
    if high > low:
        marks = (mean_k[:, None] + sd_k[:, None] * np.arange(-8, 9)).ravel()
        edges = np.unique(np.r_[low, marks[(marks > low) & (marks < high)], high])
        for at in range(0, len(edges) - 1, 100):
            node_n, weight_n = _panels(edges[at : at + 101])
            z_kn = (node_n - mean_k[:, None]) / sd_k[:, None]
            p_k[smooth] += (norm.pdf(z_kn) * _leave_one_out(ndtr(z_kn))) @ weight_n / sd_k
    return p_k


def reference_floor(mean_k: FloatArray, sd_k: FloatArray, rank_k: IntArray, floor: float) -> FloatArray:
    below_k = ndtr((floor - mean_k) / sd_k)
    p_k = reference_argmax(mean_k, sd_k, floor)
    for arm in range(len(mean_k)):
        p_k[arm] += (1 - below_k[arm]) * np.prod(below_k[rank_k < rank_k[arm]])
    return p_k


@st.composite
def arm_posteriors(
    draw: st.DrawFn, max_arms: int = 12, decades: float = 6.0, points: bool = True, min_arms: int = 1
) -> tuple[FloatArray, FloatArray]:
    """Sds over `decades`; means in units of each arm's own sd or of the widest, near ties, identical arms."""
    k = draw(st.integers(min_arms, max_arms))
    exponent_k = draw(arrays(np.float64, k, elements=st.floats(-decades, 0.0)))
    sd_k = 10.0 ** (exponent_k if draw(st.booleans()) else np.round(exponent_k / 3))
    z_k = draw(arrays(np.float64, k, elements=st.floats(-8.0, 8.0)))
    match draw(st.sampled_from(["own", "widest", "near", "upper ends", "same"])):
        case "own":
            mean_k = z_k * sd_k
        case "widest":
            mean_k = z_k * sd_k.max()
        case "near":
            mean_k = 1.0 + z_k * sd_k.min() * 1e-3
        case "upper ends":
            mean_k = -6.5 * sd_k + z_k * sd_k.min()
        case _:
            mean_k, sd_k = np.full(k, z_k[0]), np.full(k, sd_k[0])
    if points and draw(st.integers(0, 3)) == 0:
        sd_k = np.where(draw(arrays(np.bool_, k)), 0.0, sd_k)
    return mean_k, sd_k


def permutations(k: int) -> st.SearchStrategy[IntArray]:
    return st.permutations(range(k)).map(lambda order: np.array(order, np.intp))


def best_of(mean_k: FloatArray, sd_k: FloatArray, draws: int, seed: int) -> FloatArray:
    return mean_k + sd_k * np.random.default_rng(seed).standard_normal((draws, len(mean_k)))


def assert_frequencies(chosen_n: IntArray, p_k: FloatArray) -> None:
    """Each frequency within 5 standard errors of its probability."""
    share_k = np.bincount(chosen_n, minlength=len(p_k)) / len(chosen_n)
    assert np.all(np.abs(share_k - p_k) <= 5 * np.sqrt(p_k * (1 - p_k) / len(chosen_n)) + 1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_reference_agrees_with_adaptive_quadrature(seed: int) -> None:
    rng = np.random.default_rng(seed)
    k = 2 + seed % 3
    sd_k = 10.0 ** rng.uniform(-2, 0, k)
    mean_k = rng.normal(size=k) * sd_k
    marks = np.sort((mean_k[:, None] + sd_k[:, None] * np.array([-8, -4, -2, 0, 2, 4, 8])).ravel())
    for arm in range(k):
        others = np.arange(k) != arm

        def density(u: float, arm: int = arm, others: NDArray[np.bool_] = others) -> float:
            cdf = np.prod(ndtr((u - mean_k[others]) / sd_k[others]))
            return float(norm.pdf(u, mean_k[arm], sd_k[arm]) * cdf)

        expected = sum(quad(density, a, b, epsabs=1e-12, limit=200)[0] for a, b in pairwise(marks))
        assert reference_argmax(mean_k, sd_k)[arm] == pytest.approx(expected, abs=1e-10)
        assert argmax_propensity(normals(mean_k, sd_k), arm) == pytest.approx(expected, abs=TOLERANCE)


@settings(max_examples=300, deadline=None)
@given(arm_posteriors())
def test_argmax_matches_reference_and_sums_to_one(arms: tuple[FloatArray, FloatArray]) -> None:
    mean_k, sd_k = arms
    p_k = argmax_propensities(normals(mean_k, sd_k))
    np.testing.assert_allclose(p_k, reference_argmax(mean_k, sd_k), rtol=0, atol=TOLERANCE)
    assert p_k.sum() == pytest.approx(1, abs=1e-9)
    assert p_k.min() >= 0 and p_k.max() <= 1
    for arm in range(len(mean_k)):
        assert argmax_propensity(normals(mean_k, sd_k), arm) == pytest.approx(p_k[arm], abs=TOLERANCE)


@pytest.mark.parametrize("k", [20, 50, 100])
@pytest.mark.parametrize("decades", [0, 0.3, 1, 3, 6])
@pytest.mark.parametrize("spread", [0, 1e-3, 1, 4])
def test_many_arms_match_reference(k: int, decades: float, spread: float) -> None:
    rng = np.random.default_rng([k, round(10 * decades), round(1e3 * spread)])
    sd_k = 10.0 ** rng.uniform(-decades, 0, k)
    for mean_k in (rng.normal(size=k) * spread * sd_k, -3 * sd_k + rng.normal(size=k) * spread * sd_k.min()):
        p_k = argmax_propensities(normals(mean_k, sd_k))
        np.testing.assert_allclose(p_k, reference_argmax(mean_k, sd_k), rtol=0, atol=TOLERANCE)
        if k <= 50:
            assert p_k.sum() == pytest.approx(1, abs=1e-9)
        best = int(np.argmax(p_k))
        assert argmax_propensity(normals(mean_k, sd_k), best) == pytest.approx(p_k[best], abs=TOLERANCE)


@settings(max_examples=100, deadline=None)
@given(arm_posteriors(points=False), st.data())
def test_argmax_is_permutation_equivariant(arms: tuple[FloatArray, FloatArray], data: st.DataObject) -> None:
    mean_k, sd_k = arms
    order = data.draw(permutations(len(mean_k)))
    permuted = argmax_propensities(normals(mean_k[order], sd_k[order]))
    np.testing.assert_allclose(permuted, argmax_propensities(normals(mean_k, sd_k))[order], rtol=0, atol=TOLERANCE)


@settings(max_examples=100, deadline=None)
@given(arm_posteriors(decades=3), st.floats(-100, 100), st.integers(-20, 20))
def test_argmax_is_shift_and_scale_invariant(arms: tuple[FloatArray, FloatArray], shift: float, exponent: int) -> None:
    mean_k, sd_k = arms
    shifted = argmax_propensities(normals((mean_k + shift) - shift, sd_k))  # as the rounded means would have it
    np.testing.assert_allclose(argmax_propensities(normals(mean_k + shift, sd_k)), shifted, rtol=0, atol=TOLERANCE)
    scale = 2.0**exponent
    np.testing.assert_allclose(
        argmax_propensities(normals(mean_k * scale, sd_k * scale)),
        argmax_propensities(normals(mean_k, sd_k)),
        rtol=0,
        atol=TOLERANCE,
    )


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(1e-6, 10), st.floats(1e-6, 10))
def test_two_arms_have_a_closed_form(m0: float, m1: float, s0: float, s1: float) -> None:
    expected = float(ndtr((m0 - m1) / math.hypot(s0, s1)))
    mean_k, sd_k = np.array([m0, m1]), np.array([s0, s1])
    np.testing.assert_allclose(
        argmax_propensities(normals(mean_k, sd_k)), [expected, 1 - expected], rtol=0, atol=TOLERANCE
    )
    assert argmax_propensity(normals(mean_k, sd_k), 0) == pytest.approx(expected, abs=TOLERANCE)
    # Two more arms that cannot win leave the quadrature nothing to change.
    far = m0 - 100 * (s0 + s1) - 20
    four = argmax_propensities(normals(np.array([far, m0, far, m1]), np.array([0.5, s0, 0.0, s1])))
    np.testing.assert_allclose(four, [0, expected, 0, 1 - expected], rtol=0, atol=TOLERANCE)


def test_one_arm_is_certain() -> None:
    for sd in (0.0, 1e-9, 3.0):
        arm = np.array([2.5]), np.array([sd])
        assert argmax_propensities(normals(*arm)).tolist() == [1.0]
        assert argmax_propensity(normals(*arm), 0) == 1.0
        assert argmax_propensity_batch(batch_normals(arm[0][None], arm[1][None]), np.array([0])).tolist() == [1.0]
        for floor in (2.0, 9.0, 2.5):
            p_k = floor_propensities(normals(*arm), np.array([0]), floor=floor)
            assert p_k == pytest.approx([1.0], abs=TOLERANCE)
            assert floor_propensity(normals(*arm), np.array([0]), 0, floor=floor) == pytest.approx(1, abs=TOLERANCE)


@pytest.mark.parametrize("k", [2, 3, 8, 50])
def test_identical_arms_share_equally(k: int) -> None:
    mean_k, sd_k = np.full(k, 7e5), np.full(k, 1e-6)
    np.testing.assert_allclose(argmax_propensities(normals(mean_k, sd_k)), 1 / k, rtol=0, atol=TOLERANCE)
    assert argmax_propensity(normals(mean_k, sd_k), k - 1) == pytest.approx(1 / k, abs=TOLERANCE)


def test_near_ties_keep_their_digits_far_from_zero() -> None:
    sd_k = np.array([1e-20, 2e-20, 3e-20])  # far under the spacing of floats at 1
    np.testing.assert_allclose(
        argmax_propensities(normals(np.ones(3), sd_k)),
        argmax_propensities(normals(np.zeros(3), sd_k)),
        rtol=0,
        atol=1e-12,
    )


def test_point_masses_exactly() -> None:
    mean_k, sd_k = np.array([0.0, 1.0, 1.0, 0.5]), np.array([1.0, 0.0, 0.0, 2.0])
    p_k = argmax_propensities(normals(mean_k, sd_k))
    assert p_k[1] == pytest.approx(ndtr(1.0) * ndtr(0.25), abs=1e-12)
    assert p_k[2] == 0.0  # a tie goes to the lowest index
    assert argmax_propensity(normals(mean_k, sd_k), 1) == pytest.approx(p_k[1], abs=1e-12)
    assert argmax_propensities(normals(np.array([1.0, 3.0, 3.0, 2.0]), np.zeros(4))).tolist() == [0, 1, 0, 0]
    # The floor rule gives that tie to the preferred arm where no arm clears the floor.
    floor_k = floor_propensities(normals(mean_k, sd_k), np.array([3, 2, 1, 0]), floor=60.0)
    assert floor_k[2] == pytest.approx(p_k[1], abs=TOLERANCE)
    assert floor_k[1] == 0.0


def test_point_mass_at_the_floor_clears_it() -> None:
    mean_k, sd_k, rank_k = np.array([0.9, 0.5, 0.7]), np.array([0.0, 0.0, 0.0]), np.array([2, 0, 1])
    assert floor_propensities(normals(mean_k, sd_k), rank_k, floor=0.5).tolist() == [0, 1, 0]
    assert floor_propensities(normals(mean_k, sd_k), rank_k, floor=np.nextafter(0.5, 1)).tolist() == [0, 0, 1]
    assert floor_propensities(normals(mean_k, sd_k), rank_k, floor=0.95).tolist() == [1, 0, 0]


@pytest.mark.parametrize("seed", range(4))
def test_monte_carlo_agrees(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    k = 2 + 2 * seed
    mean_k, sd_k, rank_k = rng.normal(0.6, 0.1, k), rng.choice([0.0, 0.03, 0.1, 0.4], k), rng.permutation(k)
    draw_nk = best_of(mean_k, sd_k, 400_000, seed)
    assert_frequencies(np.argmax(draw_nk, axis=1), argmax_propensities(normals(mean_k, sd_k)))

    preferred = np.argsort(rank_k)

    def first_clearing(clears_nk: NDArray[np.bool_]) -> IntArray:
        choice_n = preferred[np.argmax(clears_nk[:, preferred], axis=1)]
        return np.asarray(np.where(clears_nk.any(axis=1), choice_n, np.argmax(draw_nk, axis=1)))

    for floor in (0.4, 0.65, 0.9):
        p_k = floor_propensities(normals(mean_k, sd_k), rank_k, floor=floor)
        assert_frequencies(first_clearing(draw_nk >= floor), p_k)


@settings(max_examples=150, deadline=None)
@given(arm_posteriors(max_arms=6, decades=3, points=False), st.floats(-4, 9), st.data())
def test_absolute_floor_matches_reference(
    arms: tuple[FloatArray, FloatArray], height: float, data: st.DataObject
) -> None:
    mean_k, sd_k = arms
    rank_k = data.draw(permutations(len(mean_k)))
    arm = data.draw(st.integers(0, len(mean_k) - 1))
    floor = float(mean_k[arm] + height * sd_k[arm])
    p_k = floor_propensities(normals(mean_k, sd_k), rank_k, floor=floor)
    expected = reference_floor(mean_k, sd_k, rank_k, floor)
    np.testing.assert_allclose(p_k, expected, rtol=0, atol=TOLERANCE)
    assert p_k.sum() == pytest.approx(1, abs=1e-9)
    assert floor_propensity(normals(mean_k, sd_k), rank_k, arm, floor=floor) == pytest.approx(p_k[arm], abs=TOLERANCE)


@settings(max_examples=150, deadline=None)
@given(arm_posteriors(), st.floats(-6, 6), st.data())
def test_floor_rule_laws(arms: tuple[FloatArray, FloatArray], floor: float, data: st.DataObject) -> None:
    """With point masses too: sums, single against all, relabelling, and the limits that are other rules."""
    mean_k, sd_k = arms
    k = len(mean_k)
    rank_k, order = data.draw(permutations(k)), data.draw(permutations(k))
    first_k = (rank_k == 0).astype(float)
    p_k = floor_propensities(normals(mean_k, sd_k), rank_k, floor=floor)
    assert p_k.sum() == pytest.approx(1, abs=1e-9)
    assert p_k.min() >= 0 and p_k.max() <= 1
    single_k = [floor_propensity(normals(mean_k, sd_k), rank_k, arm, floor=floor) for arm in range(k)]
    np.testing.assert_allclose(single_k, p_k, rtol=0, atol=TOLERANCE)
    permuted = floor_propensities(normals(mean_k[order], sd_k[order]), rank_k[order], floor=floor)
    np.testing.assert_allclose(permuted, p_k[order], rtol=0, atol=TOLERANCE)
    preferred = np.argsort(rank_k)
    argmax_k = np.empty(k)
    argmax_k[preferred] = argmax_propensities(normals(mean_k[preferred], sd_k[preferred]))
    for high in (math.inf, 1e6):
        p_k = floor_propensities(normals(mean_k, sd_k), rank_k, floor=high)
        np.testing.assert_allclose(p_k, argmax_k, rtol=0, atol=TOLERANCE)
    for low in (-math.inf, -1e6):
        p_k = floor_propensities(normals(mean_k, sd_k), rank_k, floor=low)
        np.testing.assert_allclose(p_k, first_k, rtol=0, atol=TOLERANCE)


def test_fifty_arms_under_the_floor_rule() -> None:
    rng = np.random.default_rng(5)
    mean_k, sd_k, rank_k = rng.normal(size=50), 10.0 ** rng.uniform(-3, 0, 50), rng.permutation(50)
    for floor in (0.0, 1.5, 3.0):
        p_k = floor_propensities(normals(mean_k, sd_k), rank_k, floor=floor)
        np.testing.assert_allclose(p_k, reference_floor(mean_k, sd_k, rank_k, floor), rtol=0, atol=TOLERANCE)
        assert p_k.sum() == pytest.approx(1, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_batch_equals_single(data: st.DataObject) -> None:
    k = data.draw(st.integers(1, 9))
    rows = data.draw(st.lists(arm_posteriors(max_arms=k, min_arms=k), min_size=1, max_size=12))
    mean_bk, sd_bk = np.array([m for m, _ in rows]), np.array([s for _, s in rows])
    p_bk = np.array([argmax_propensities(normals(m, s)) for m, s in rows])
    for arm in range(k):
        one_b = argmax_propensity_batch(batch_normals(mean_bk, sd_bk), np.full(len(rows), arm))
        np.testing.assert_allclose(one_b, p_bk[:, arm], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("k", [3, 50])
def test_large_batch_equals_single(k: int) -> None:
    rng = np.random.default_rng(k)
    mean_bk, sd_bk = rng.normal(size=(600, k)), 10.0 ** rng.uniform(-3, 1, (600, k))
    sd_bk[rng.random((600, k)) < 0.05] = 0.0
    arm_b = rng.integers(k, size=600)
    batch_bk = np.array(
        [argmax_propensity_batch(batch_normals(mean_bk, sd_bk), np.full(600, arm)) for arm in range(k)]
    ).T
    np.testing.assert_allclose(batch_bk.sum(axis=1), 1, rtol=0, atol=1e-9)
    chosen_b = argmax_propensity_batch(batch_normals(mean_bk, sd_bk), arm_b)
    np.testing.assert_array_equal(chosen_b, batch_bk[np.arange(600), arm_b])
    for row in range(0, 600, 7):
        expected_k = argmax_propensities(normals(mean_bk[row], sd_bk[row]))
        np.testing.assert_allclose(batch_bk[row], expected_k, rtol=0, atol=TOLERANCE)


def test_empty_batch() -> None:
    assert argmax_propensity_batch(batch_normals(np.empty((0, 4)), np.empty((0, 4))), np.empty(0, np.intp)).shape == (
        0,
    )


def test_inputs_are_left_alone() -> None:
    mean_k, sd_k, rank_k = np.array([0.1, 0.2, 0.3]), np.array([0.1, 0.2, 0.0]), np.array([2, 0, 1])
    kept = mean_k.copy(), sd_k.copy(), rank_k.copy()
    argmax_propensities(normals(mean_k, sd_k))
    argmax_propensity(normals(mean_k, sd_k), 1)
    argmax_propensity_batch(batch_normals(mean_k[None], sd_k[None]), np.array([1]))
    floor_propensities(normals(mean_k, sd_k), rank_k, floor=0.2)
    for array, before in zip((mean_k, sd_k, rank_k), kept, strict=True):
        np.testing.assert_array_equal(array, before)
