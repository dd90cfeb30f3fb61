"""Exact choice probabilities (propensities) of Thompson sampling with independent Normal draws.

Every arm a draws u_a ~ N(mean_a, sd_a^2), independently; a rule then picks one arm:

* the **argmax rule** picks the largest draw, so P(a) = integral f_a(u) prod_{b != a} F_b(u) du;
* the **floor rule** picks the most preferred arm whose draw clears a floor, which is either a number or
  "at most `loss` below the best draw".

Both come down to one-dimensional integrals (the argmax case: Jeunen, RecSys 2025, arXiv 2504.08773).

Preconditions of every function here (they sit on the hot path and check nothing): float64 arrays with k >= 1
arms; finite means; finite sds >= 0; no NaN; no overflow in (mean - mean') / sd.

**Accuracy.** The absolute error per arm is below 1e-9, whatever the ratio of the sds (measured: 4.1e-11 at
worst over 8,000 hard cases of up to 50 arms). It is absolute, not relative: a probability under 1e-10 may
come out as 0. Results are clipped to [0, 1] and *not* normalised: all arms sum to 1 within 1e-9 by themselves
(6.6e-10 at worst, with 500 arms).

**Point masses.** sd = 0 is a draw that always equals its mean. Draws tie with positive probability only then;
the argmax rule gives a tie to the lowest index, the floor rule to the preferred arm, and a draw equal to the
floor clears it.

How the integrals are done, and why:

* *Range.* Below `lower`, where one arm's F is under 4e-11 (or j arms' F under the j-th root of that), the
  product is negligible; an arm wholly below `lower` is hopeless and dropped (it keeps under 2e-12). Each arm
  left has begun its rise at `lower`, so its integrand lives on [lower, high_a], high_a = mean_a + 7 sd_a: the
  supports are nested.
* *Mesh.* Hence the finest scale alive at u is the smallest sd among arms with high_a > u. Walking the arms by
  sd cuts the range into few segments of one scale each, and each gets one Gauss-Legendre rule whose order
  grows with its length in that scale. Nodes needed for 1e-9 with 8 arms of like sds, median: one long rule
  34; panels of 8, 12 or 16 nodes 48; tanh-sinh 102; the trapezoidal rule 26, but over 390 where a point mass
  or a floor cuts the range (one long rule: 12).
* *Closed forms.* Two contenders: one Normal cdf. Above every other arm's support: the last arm's own tail.
* *All arms from one product.* f_a prod_{b != a} F_b = (prod_b F_b) f_a / F_a, and F_a >= 4e-11 on the range.

Cost of one arm out of 8 whose sds span a decade: 7 us of list work to prune, 8 us for the mesh, 5 us for some
60 nodes x 8 cdfs at 10 ns, 6 us for the other array calls. Lists, not arrays, do the small steps: an array
call costs about 1 us however few arms there are.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

_TOLERANCE = 4e-11  # mass given up below the range
_Z_HIGH = 7.0  # an arm's support ends here; 1.3e-12 of it lies above
_Z_LOW = -float(ndtri(_TOLERANCE))
# If j arms each have F <= tolerance**(1 / j) at u, the product is <= tolerance: (j, z) with F(z) that root.
_CROWD = [(4**e, float(ndtri(_TOLERANCE ** (0.25**e)))) for e in range(1, 7)]

_ONE_SEGMENT = 14.0  # a range this long, in units of the finest scale, is not worth cutting
_MAX_SPAN = 20.0  # longest segment, in units of its scale
_MERGE = 2.0  # a new segment costs about as many nodes as this many scale lengths
_MAX_ORDER = 80
_ORDER_BASE, _ORDER_SPAN, _ORDER_ARMS = 5.0, 1.95, 0.7  # see _order
_ORDER_CAP_BASE, _ORDER_CAP_SPAN = 40.0, 2.0
_SQRT_HALF = math.sqrt(0.5)
_BATCH_ELEMENTS = 1 << 16  # per work array, 512 kB: larger gains nothing, smaller pays for more calls


def _gauss_legendre(order: int) -> FloatArray:
    """Row 0: nodes on [0, 1]; row 1: weights that already carry the Normal density's 1 / sqrt(2 pi)."""
    node, weight = np.polynomial.legendre.leggauss(order)
    return np.array([(node + 1.0) / 2.0, weight / (2.0 * math.sqrt(2.0 * math.pi))])


_RULES = [_gauss_legendre(max(order, 1)) for order in range(_MAX_ORDER + 1)]  # by order


def _cdf(z: float) -> float:
    """Standard Normal cdf of one number; math.erfc costs a tenth of an array call."""
    return 0.5 * math.erfc(-z * _SQRT_HALF)


class _Contenders(NamedTuple):
    """The arms that can win, in coordinates centred so that near ties keep their digits."""

    arms: list[int]  # arms with sd > 0 that can win, ascending
    means: list[float]  # of those arms, minus centre
    sds: list[float]
    lower: float  # below this the largest draw falls with probability <= tolerance (or never)
    atom: int  # the point mass that can win (it sits at lower), or -1
    centre: float


def _contenders(mean_k: FloatArray, sd_k: FloatArray) -> _Contenders:
    """Drop the hopeless arms. Plain lists: for tens of arms they beat array calls."""
    means: list[float] = mean_k.tolist()
    sds: list[float] = sd_k.tolist()
    lows = [m - _Z_LOW * s for m, s in zip(means, sds, strict=True)]
    centre = means[lows.index(max(lows))]
    means = [m - centre for m in means]
    lower = max([m - _Z_LOW * s for m, s in zip(means, sds, strict=True)])
    for count, z in _CROWD:
        if count > len(means):
            break
        rivals = sorted([m + z * s for m, s in zip(means, sds, strict=True)])
        lower = max(lower, rivals[-count])
    index = [i for i, m in enumerate(means) if m + _Z_HIGH * sds[i] > lower and sds[i] > 0.0]
    atom = -1
    if 0.0 in sds:
        atom = next((i for i, m in enumerate(means) if sds[i] == 0.0 and m >= lower), -1)
    return _Contenders(index, [means[i] for i in index], [sds[i] for i in index], lower, atom, centre)


def _order(span: float, arms: float) -> int:
    """Gauss-Legendre order for a segment `span` <= 20 scale lengths long, on which `arms` arms rise; <= 80.

    `arms` counts an arm of sd s as (scale / s)^2: how fast prod F grows off the real axis sets the error of a
    Gauss rule, and it grows like a single F with 1 / sd^2 = sum 1 / sd_b^2. The numbers are fitted from above
    to the least order with an error of some 1e-11 over random and adversarial sets of 2 to 500 arms. Past a
    point more arms do no harm, because they raise `lower` beyond the flat part; hence the minimum.
    """
    return math.ceil(
        min(
            _ORDER_BASE + span * (_ORDER_SPAN + _ORDER_ARMS * math.log(arms)),
            _ORDER_CAP_BASE + _ORDER_CAP_SPAN * span,
        )
    )


def _mesh(lower: float, upper: float, highs: list[float], sds: list[float]) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights (with 1 / sqrt(2 pi)) on [lower, upper], lower < upper, by segments of one scale."""
    start = end = lower
    scale = min(sds)
    if upper - lower <= _ONE_SEGMENT * scale:
        width = upper - lower
        rising = sum([(scale / sd) ** 2 for sd in sds])
        rule = width * _RULES[_order(width / scale, rising)]
        rule[0] += lower
        return rule[0], rule[1]
    by_sd = sorted(zip(sds, highs, strict=True))
    segments = []  # (start, end, scale, position of the scale's arm)
    first = 0
    for position, (sd, high) in enumerate(by_sd):
        high = min(high, upper)
        if high <= end:
            continue
        if end == start:
            scale, first = sd, position
        elif (high - end) * (1.0 / scale - 1.0 / sd) > _MERGE or high - start > _MAX_SPAN * scale:
            segments.append((start, end, scale, first))
            start, scale, first = end, sd, position
        end = high
    segments.append((start, end, scale, first))
    rules = []
    precision, done = (
        0.0,
        len(by_sd),
    )  # of the arms from position `done` on: those that still rise
    for start, end, scale, first in reversed(segments):
        precision += sum([1.0 / (sd * sd) for sd, _ in by_sd[first:done]])
        done = first
        width = end - start
        rule = width * _RULES[_order(width / scale, scale * scale * precision)]
        rule[0] += start
        rules.append(rule)
    rule = np.concatenate(rules, axis=1) if len(rules) > 1 else rules[0]
    return rule[0], rule[1]


def _atom_mass(contenders: _Contenders) -> float:
    """Probability that every contender falls below the point mass at `lower`."""
    return math.prod([_cdf((contenders.lower - m) / s) for m, s in zip(contenders.means, contenders.sds, strict=True)])


def _split_top(contenders: _Contenders) -> tuple[list[float], int, float]:
    """Ends of the supports, the arm that reaches highest, and the height above which it is alone.

    Above that height its integrand is its bare density, so its support is cut there and the rest is a tail.
    """
    highs = [m + _Z_HIGH * s for m, s in zip(contenders.means, contenders.sds, strict=True)]
    top = highs.index(max(highs))
    nothing_else = contenders.lower if contenders.atom >= 0 else -math.inf
    alone = max(highs[:top] + highs[top + 1 :], default=nothing_else)
    highs[top] = alone
    return highs, top, alone


def _tail(mean: float, sd: float, low: float, ceiling: float) -> float:
    """P(low < draw < ceiling)."""
    return max(_cdf((mean - low) / sd) - _cdf((mean - ceiling) / sd), 0.0)


def _integrands(
    contenders: _Contenders, first: int, stop: int, upper: float, highs: list[float]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Of contenders first..stop-1, sd sqrt(2 pi) f_a / F_a at the nodes; weights x prod F; and 1 / sd."""
    node_n, weight_n = _mesh(contenders.lower, upper, highs, contenders.sds)
    inv_sd_k1 = 1.0 / np.array(contenders.sds)[:, None]
    z_kn = (node_n - np.array(contenders.means)[:, None]) * inv_sd_k1
    cdf_kn = ndtr(z_kn)
    weight_n *= np.multiply.reduce(cdf_kn, axis=0)
    z_kn = z_kn[first:stop]
    hazard_kn = np.exp(z_kn * z_kn * -0.5)
    hazard_kn /= cdf_kn[first:stop]
    return hazard_kn, weight_n, inv_sd_k1[first:stop, 0]


def _masses(mean_k: FloatArray, sd_k: FloatArray, ceiling: float = math.inf) -> FloatArray:
    """P(arm a has the largest draw, and it is below `ceiling`), for each a. No point mass at or above it."""
    p_k = np.zeros(len(mean_k))
    contenders = _contenders(mean_k, sd_k)
    ceiling -= contenders.centre
    if ceiling <= contenders.lower:
        return p_k
    if contenders.atom >= 0:
        p_k[contenders.atom] = _atom_mass(contenders)
    arms = len(contenders.arms)
    if arms == 2 and contenders.atom < 0 and ceiling == math.inf:
        z = (contenders.means[0] - contenders.means[1]) / math.hypot(*contenders.sds)
        p_k[contenders.arms] = _cdf(z), _cdf(-z)
        return p_k
    if arms:
        highs, top, alone = _split_top(contenders)
        upper = min(alone, ceiling)
        if upper > contenders.lower:
            hazard_kn, weight_n, inv_sd_k = _integrands(contenders, 0, arms, upper, highs)
            p_k[contenders.arms] = (hazard_kn @ weight_n) * inv_sd_k
        if ceiling > alone:
            p_k[contenders.arms[top]] += _tail(contenders.means[top], contenders.sds[top], alone, ceiling)
    return np.minimum(p_k, 1.0)


def _mass(
    mean_k: FloatArray,
    sd_k: FloatArray,
    first: int,
    stop: int,
    ceiling: float = math.inf,
) -> float:
    """Sum of `_masses` over the arms first..stop-1, at the cost of one arm where it is one arm."""
    contenders = _contenders(mean_k, sd_k)
    ceiling -= contenders.centre
    if ceiling <= contenders.lower:
        return 0.0
    mass = _atom_mass(contenders) if first <= contenders.atom < stop else 0.0
    begin, end = bisect_left(contenders.arms, first), bisect_left(contenders.arms, stop)
    if begin == end:
        return mass
    arms = len(contenders.arms)
    if arms == 2 and contenders.atom < 0 and ceiling == math.inf:
        if end - begin == 2:
            return 1.0
        return _cdf((contenders.means[begin] - contenders.means[1 - begin]) / math.hypot(*contenders.sds))
    highs, top, alone = _split_top(contenders)
    upper = min(max(highs[begin:end]), ceiling)
    if upper > contenders.lower:
        hazard_kn, weight_n, inv_sd_k = _integrands(contenders, begin, end, upper, highs)
        mass += float(inv_sd_k @ (hazard_kn @ weight_n))
    if begin <= top < end and ceiling > alone:
        mass += _tail(contenders.means[top], contenders.sds[top], alone, ceiling)
    return min(mass, 1.0)


def argmax_propensities(mean_k: FloatArray, sd_k: FloatArray) -> FloatArray:
    """P(arm a has the largest draw) for every arm, shape (k,), each in [0, 1], summing to 1 within 1e-9.

    mean_k, sd_k: of the independent Normal draws, shape (k,). See the module for preconditions and ties.
    """
    return _masses(mean_k, sd_k)


def argmax_propensity(mean_k: FloatArray, sd_k: FloatArray, arm: int) -> float:
    """P(`arm` has the largest draw), 0 <= arm < k: as `argmax_propensities(...)[arm]`, cheaper."""
    return _mass(mean_k, sd_k, arm, arm + 1)


def _in_order(mean_k: FloatArray, sd_k: FloatArray, rank_k: IntArray) -> tuple[FloatArray, FloatArray, IntArray]:
    """The arms from most to least preferred (so that a tie goes to the lowest index), and who they are."""
    order_k = np.empty(len(rank_k), np.intp)
    order_k[rank_k] = np.arange(len(rank_k))
    return mean_k[order_k], sd_k[order_k], order_k


def _below(mean_k: FloatArray, sd_k: FloatArray, floor: float) -> FloatArray:
    """P(draw < floor) for each arm; a point mass at the floor is not below it."""
    gap_k = floor - mean_k
    point_k = sd_k == 0.0
    if not point_k.any():
        return np.asarray(ndtr(gap_k / sd_k))
    return np.where(point_k, gap_k > 0.0, ndtr(gap_k / np.where(point_k, 1.0, sd_k)))


def _none_clears(mean_k: FloatArray, sd_k: FloatArray, rank: int, loss: float) -> float:
    """P(no arm of the ranks before `rank` is within `loss` of the best draw), arms in order of preference.

    That is P(max of those before, plus loss < max of the others): the others' chance to hold the largest
    draw once `loss` has been added to those before.
    """
    if rank == 0:
        return 1.0
    if rank == len(mean_k):
        return 0.0
    shifted_k = mean_k.copy()
    shifted_k[:rank] += loss
    return _mass(shifted_k, sd_k, rank, len(mean_k))


def floor_propensities(
    mean_k: FloatArray,
    sd_k: FloatArray,
    rank_k: IntArray,
    *,
    floor: float | None = None,
    loss: float | None = None,
) -> FloatArray:
    """P(the floor rule picks arm a) for every arm, shape (k,), each in [0, 1], summing to 1 within 1e-9.

    mean_k, sd_k: of the independent Normal quality draws q_a, shape (k,).
    rank_k: each arm's place in the order of preference, a permutation of 0..k-1; rank 0 is tried first (the
        cheapest, for a cost-first objective).

    Exactly one of:
    floor: the most preferred arm with q_a >= floor; where none clears it, the arm with the largest q.
        P(a) = P(q_a >= floor) prod_{b preferred to a} P(q_b < floor) + P(q_a is largest, and below floor).
    loss: >= 0; the most preferred arm with q_a + loss >= max_b q_b. With S_r the probability that none of the
        first r arms is within loss of the best, P(the arm of rank r) = S_r - S_{r+1}. A loss of 0 is the
        argmax rule, infinity always takes rank 0.

    See the module for preconditions and ties. Raises ValueError unless exactly one of floor, loss is given.
    """
    if (floor is None) == (loss is None):
        raise ValueError(f"exactly one of floor and loss is expected, got floor={floor}, loss={loss}")
    mean_k, sd_k, order_k = _in_order(mean_k, sd_k, rank_k)
    p_k = np.empty(len(mean_k))
    if floor is not None:
        below_k = _below(mean_k, sd_k, floor)
        none_clears_k = np.cumprod(below_k)
        in_order_k = 1.0 - below_k
        in_order_k[1:] *= none_clears_k[:-1]
        if none_clears_k[-1] > _TOLERANCE:
            in_order_k += _masses(mean_k, sd_k, floor)
        np.minimum(in_order_k, 1.0, out=in_order_k)
    else:
        assert loss is not None
        left_k = np.zeros(len(mean_k) + 1)
        for rank in range(len(mean_k)):
            left_k[rank] = _none_clears(mean_k, sd_k, rank, loss)
            if left_k[rank] <= _TOLERANCE:
                break
        in_order_k = np.maximum(left_k[:-1] - left_k[1:], 0.0)
    p_k[order_k] = in_order_k
    return p_k


def floor_propensity(
    mean_k: FloatArray,
    sd_k: FloatArray,
    rank_k: IntArray,
    arm: int,
    *,
    floor: float | None = None,
    loss: float | None = None,
) -> float:
    """P(the floor rule picks `arm`), 0 <= arm < k: as `floor_propensities(...)[arm]`, cheaper."""
    if (floor is None) == (loss is None):
        raise ValueError(f"exactly one of floor and loss is expected, got floor={floor}, loss={loss}")
    mean_k, sd_k, _ = _in_order(mean_k, sd_k, rank_k)
    rank = int(rank_k[arm])
    if floor is not None:
        below_k = _below(mean_k, sd_k, floor)
        p = float((1.0 - below_k[rank]) * np.multiply.reduce(below_k[:rank]))
        if np.multiply.reduce(below_k) > _TOLERANCE:
            p += _mass(mean_k, sd_k, rank, rank + 1, floor)
        return min(p, 1.0)
    assert loss is not None
    left = _none_clears(mean_k, sd_k, rank, loss)
    if left <= _TOLERANCE:
        return 0.0
    return max(left - _none_clears(mean_k, sd_k, rank + 1, loss), 0.0)


class _BatchMesh(NamedTuple):
    """Segments of all rows, flat. Within one, the nodes are start + width * (a rule's nodes on [0, 1])."""

    row_g: IntArray
    start_g: FloatArray
    width_g: FloatArray
    order_g: IntArray


def _batch_mesh(lower_b: FloatArray, upper_b: FloatArray, high_bk: FloatArray, sd_bk: FloatArray) -> _BatchMesh:
    """`_mesh` for many rows at once; arms out of the race have high = -inf."""
    sorted_bk = np.argsort(np.where(high_bk > lower_b[:, None], sd_bk, math.inf), axis=1, kind="stable")
    high_sorted_bk = np.minimum(np.take_along_axis(high_bk, sorted_bk, 1), upper_b[:, None])
    sd_sorted_bk = np.take_along_axis(sd_bk, sorted_bk, 1)
    start_b, end_b, scale_b = lower_b.copy(), lower_b.copy(), sd_sorted_bk[:, 0].copy()
    one_b = upper_b - lower_b <= _ONE_SEGMENT * scale_b
    high_sorted_bk[one_b, 0] = upper_b[one_b]
    rows, starts, ends, scales = [], [], [], []

    def close(row_c: IntArray) -> None:
        rows.append(row_c)
        starts.append(start_b[row_c])
        ends.append(end_b[row_c])
        scales.append(scale_b[row_c])

    for arm in range(high_bk.shape[1]):
        row_c = np.flatnonzero(high_sorted_bk[:, arm] > end_b)
        high_c, sd_c = high_sorted_bk[row_c, arm], sd_sorted_bk[row_c, arm]
        scale_c, start_c, end_c = scale_b[row_c], start_b[row_c], end_b[row_c]
        begun_c = end_c > start_c
        costly_c = (high_c - end_c) * (1.0 / scale_c - 1.0 / sd_c) > _MERGE
        cut_c = begun_c & (costly_c | (high_c - start_c > _MAX_SPAN * scale_c))
        close(row_c[cut_c])
        start_b[row_c[cut_c]] = end_c[cut_c]
        fresh_c = cut_c | ~begun_c
        scale_b[row_c[fresh_c]] = sd_c[fresh_c]
        end_b[row_c] = high_c
    close(np.flatnonzero(end_b > start_b))

    row_g, start_g, scale_g = (
        np.concatenate(rows),
        np.concatenate(starts),
        np.concatenate(scales),
    )
    width_g = np.concatenate(ends) - start_g
    ratio_gk = scale_g[:, None] / sd_bk[row_g]
    ratio_gk[high_bk[row_g] <= start_g[:, None]] = 0.0
    arms_g = np.einsum("gk,gk->g", ratio_gk, ratio_gk)
    span_g = width_g / scale_g
    order_g = np.minimum(
        _ORDER_BASE + span_g * (_ORDER_SPAN + _ORDER_ARMS * np.log(arms_g)),
        _ORDER_CAP_BASE + _ORDER_CAP_SPAN * span_g,
    )
    # Few distinct orders, so that many segments share one array operation.
    return _BatchMesh(row_g, start_g, width_g, 4 * np.ceil(order_g / 4.0).astype(np.intp))


def _batch_masses(mean_bk: FloatArray, sd_bk: FloatArray, arm_b: IntArray | None) -> FloatArray:
    """Row by row `_masses`, shape (b, k); with arm_b, only the entry of each row's own arm is right."""
    batch, arms = mean_bk.shape
    all_b = np.arange(batch)
    mean_bk = mean_bk - mean_bk[all_b, np.argmax(mean_bk - _Z_LOW * sd_bk, axis=1)][:, None]
    lower_b = np.max(mean_bk - _Z_LOW * sd_bk, axis=1)
    for count, z in _CROWD:
        if count > arms:
            break
        rivals_b = np.partition(mean_bk + z * sd_bk, arms - count, axis=1)[:, arms - count]
        np.maximum(lower_b, rivals_b, out=lower_b)
    point_bk = sd_bk == 0.0
    sd_bk = np.where(point_bk, 1.0, sd_bk)
    high_bk = np.where(point_bk, -math.inf, mean_bk + _Z_HIGH * sd_bk)
    high_bk[high_bk <= lower_b[:, None]] = -math.inf
    p_bk = np.zeros((batch, arms))

    atom_bk = point_bk & (mean_bk >= lower_b[:, None])
    row_a = np.flatnonzero(atom_bk.any(axis=1))
    if len(row_a):
        below_ak = ndtr((lower_b[row_a, None] - mean_bk[row_a]) / sd_bk[row_a])
        below_ak[high_bk[row_a] == -math.inf] = 1.0
        p_bk[row_a, np.argmax(atom_bk[row_a], axis=1)] = below_ak.prod(axis=1)

    top_b = np.argmax(high_bk, axis=1)
    runs_b = high_bk[all_b, top_b] > lower_b  # false where only a point mass is left
    high_bk[all_b, top_b] = -math.inf
    alone_b = high_bk.max(axis=1)  # -inf, and so the tail is all, where there is nothing else
    alone_b[row_a] = np.maximum(alone_b[row_a], lower_b[row_a])
    tail_b = ndtr((mean_bk[all_b, top_b] - alone_b) / sd_bk[all_b, top_b])
    p_bk[all_b, top_b] += np.where(runs_b, tail_b, 0.0)
    np.maximum(alone_b, lower_b, out=alone_b)
    high_bk[all_b, top_b] = np.where(runs_b & (alone_b > lower_b), alone_b, -math.inf)

    upper_b = alone_b if arm_b is None else np.maximum(high_bk[all_b, arm_b], lower_b)
    mesh = _batch_mesh(lower_b, upper_b, high_bk, sd_bk)
    for order in np.unique(mesh.order_g):
        group = np.flatnonzero(mesh.order_g == order)
        step = max(_BATCH_ELEMENTS // (int(order) * arms), 1)
        for at in range(0, len(group), step):
            _add_segments(p_bk, mean_bk, sd_bk, high_bk, mesh, group[at : at + step], arm_b)
    return np.minimum(p_bk, 1.0, out=p_bk)


def _add_segments(
    p_bk: FloatArray,
    mean_bk: FloatArray,
    sd_bk: FloatArray,
    high_bk: FloatArray,
    mesh: _BatchMesh,
    chunk_g: IntArray,
    arm_b: IntArray | None,
) -> None:
    """Add to p_bk, in place, the integrals over some segments of one order.

    Only pairs (segment, arm) whose arm still rises there are evaluated; the other cdfs are 1.
    """
    row_g, start_g, width_g = (
        mesh.row_g[chunk_g],
        mesh.start_g[chunk_g],
        mesh.width_g[chunk_g],
    )
    node_n, weight_n = _RULES[mesh.order_g[chunk_g[0]]]
    segment_p, arm_p = np.nonzero(high_bk[row_g] > start_g[:, None])
    row_p = row_g[segment_p]
    inv_sd_p = 1.0 / sd_bk[row_p, arm_p]
    z_pn = np.multiply.outer(width_g[segment_p] * inv_sd_p, node_n)
    z_pn += ((start_g[segment_p] - mean_bk[row_p, arm_p]) * inv_sd_p)[:, None]
    cdf_pn = ndtr(z_pn)
    first_g = np.searchsorted(segment_p, np.arange(len(row_g)))
    weight_gn = np.multiply.reduceat(cdf_pn, first_g, axis=0)
    weight_gn *= weight_n
    if arm_b is not None:
        wanted = np.flatnonzero(arm_p == arm_b[row_p])
        segment_p, arm_p, row_p, inv_sd_p = (
            segment_p[wanted],
            arm_p[wanted],
            row_p[wanted],
            inv_sd_p[wanted],
        )
        z_pn, cdf_pn = z_pn[wanted], cdf_pn[wanted]
    z_pn *= z_pn
    z_pn *= -0.5
    np.exp(z_pn, out=z_pn)
    z_pn /= cdf_pn
    mass_p = np.einsum("pn,pn->p", z_pn, weight_gn[segment_p]) * (width_g[segment_p] * inv_sd_p)
    np.add.at(p_bk, (row_p, arm_p), mass_p)


def argmax_propensities_batch(mean_bk: FloatArray, sd_bk: FloatArray) -> FloatArray:
    """`argmax_propensities` of each row, shape (b, k), for b >= 0 rows at once."""
    return _batch_masses(mean_bk, sd_bk, None)


def argmax_propensity_batch(mean_bk: FloatArray, sd_bk: FloatArray, arm_b: IntArray) -> FloatArray:
    """`argmax_propensity` of each row's arm, shape (b,): as `argmax_propensities_batch` there, cheaper."""
    return _batch_masses(mean_bk, sd_bk, arm_b)[np.arange(len(arm_b)), arm_b]
