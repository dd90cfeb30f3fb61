"""`propensity` for many rows at once: meshes of the same kind, one array operation per order of a rule.

>>> arms = normals(np.array([[0.0, 0.0], [0.0, 3.0]]), np.ones((2, 2)))
>>> argmax_propensity_batch(arms, np.array([0, 1])).round(6).tolist()
[0.5, 0.983053]
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from pointsman.bandit.propensity import NEGLIGIBLE, Mixtures
from pointsman.bandit.quadrature import (
    CROWD,
    MAX_SPAN,
    MERGE,
    ORDER_ARMS,
    ORDER_BASE,
    ORDER_CAP_BASE,
    ORDER_CAP_SPAN,
    ORDER_SPAN,
    Z_HIGH,
    Z_LOW,
    FloatArray,
    IntArray,
    gauss_legendre,
)

_BATCH_ELEMENTS = 1 << 16  # per work array, 512 kB: larger gains nothing, smaller pays for more calls


def normals(mean_bk: FloatArray, sd_bk: FloatArray) -> Mixtures:
    """Mixtures (b, k, 1) of one component each: Normals."""
    return Mixtures(np.ones((*mean_bk.shape, 1)), mean_bk[..., None], sd_bk[..., None])


class _Components(NamedTuple):
    """The components (b, m) of all rows that can win, by arm; those that cannot fill up rows and have a weight of 0.

    ``rest_bk`` is the weight of each arm's other components. ``low_bm`` and ``high_bm`` bound the windows, centred as the means.
    """

    arm_bm: IntArray
    weight_bm: FloatArray
    mean_bm: FloatArray
    sd_bm: FloatArray
    low_bm: FloatArray
    high_bm: FloatArray
    rest_bk: FloatArray

    def part(self, row_s: IntArray, size: int) -> _Components:
        """Those of some rows, the first ``size`` of each."""
        arm_bm, *floats, rest_bk = self
        weight_sm, mean_sm, sd_sm, low_sm, high_sm = (array[row_s][:, :size] for array in floats)
        return _Components(arm_bm[row_s][:, :size], weight_sm, mean_sm, sd_sm, low_sm, high_sm, rest_bk[row_s])


class _Segments(NamedTuple):
    """Segments of all rows, flat. Within one, the nodes are start + width * (a rule's nodes on [0, 1])."""

    row_g: IntArray
    start_g: FloatArray
    width_g: FloatArray
    order_g: IntArray


def argmax_propensity_batch(arms: Mixtures, arm_b: IntArray) -> FloatArray:
    """P(the arm ``arm_b[i]`` has the largest draw of row i), shape (b,), for b >= 0 rows: as `argmax_propensity` of each.

    arms: of the independent draws, each array (b, k, c). Preconditions, accuracy and ties as in `propensity`.
    """
    b = len(arms.mean_kc)
    rows_b = np.arange(b)
    if not b:
        return np.empty(0)
    components, lower_b, can_win_bkc, mean_bkc = _windows(arms)
    point_bk = arms.sd_kc[:, :, 0] == 0.0
    atom_bk = point_bk & (mean_bkc[:, :, 0] >= lower_b[:, None])
    has_atom_b = atom_bk.any(axis=1)
    p_b = np.zeros(b)
    for row in np.flatnonzero(has_atom_b & (atom_bk.argmax(axis=1) == arm_b)).tolist():
        p_b[row] = _all_below(components, row, float(lower_b[row]))
    high_bk = np.max(np.where(can_win_bkc, mean_bkc + Z_HIGH * arms.sd_kc, -math.inf), axis=2)
    top_b = high_bk.argmax(axis=1)
    runs_b = high_bk[rows_b, top_b] > lower_b  # false where only a point mass is left
    high_bk[rows_b, top_b] = -math.inf
    # where the top arm is alone: from minus infinity on where there is nothing else, and then the tail is all
    alone_b = np.where(has_atom_b, np.maximum(high_bk.max(axis=1), lower_b), high_bk.max(axis=1))
    tops = np.flatnonzero(runs_b & (top_b == arm_b))
    mine_mc = can_win_bkc[tops, arm_b[tops]] * arms.weight_kc[tops, arm_b[tops]]
    safe_sd_mc = np.where(arms.sd_kc[tops, arm_b[tops]] > 0.0, arms.sd_kc[tops, arm_b[tops]], 1.0)
    z_mc = (mean_bkc[tops, arm_b[tops]] - np.maximum(alone_b, lower_b)[tops, None]) / safe_sd_mc
    tail_m = (mine_mc * ndtr(z_mc)).sum(axis=1)
    p_b[tops] += np.where(alone_b[tops] == -math.inf, mine_mc.sum(axis=1), tail_m)
    np.minimum(components.high_bm, np.maximum(alone_b, lower_b)[:, None], out=components.high_bm)
    _add_integrals(p_b, components, arm_b)
    return np.minimum(p_b, 1.0)


def _windows(arms: Mixtures) -> tuple[_Components, FloatArray, npt.NDArray[np.bool_], FloatArray]:
    """The components that can win, with their windows; the heights (b) below which the largest draw falls with negligible
    probability; which components can win (b, k, c); and the centred means (b, k, c).
    """
    weight_bkc, mean_bkc, sd_bkc = arms
    b, k, _ = mean_bkc.shape
    counts_bkc = weight_bkc > NEGLIGIBLE
    low_bk = np.min(np.where(counts_bkc, mean_bkc - Z_LOW * sd_bkc, math.inf), axis=2)
    centre_b = mean_bkc[np.arange(b), low_bk.argmax(axis=1), 0]
    mean_bkc = mean_bkc - centre_b[:, None, None]
    lower_b = low_bk.max(axis=1) - centre_b
    for count, z in CROWD:
        if count > k:
            break
        bound_bk = np.min(np.where(counts_bkc, mean_bkc + z * sd_bkc, math.inf), axis=2)
        np.maximum(lower_b, np.partition(bound_bk, k - count, axis=1)[:, k - count], out=lower_b)
    can_win_bkc = counts_bkc & (sd_bkc > 0.0) & (mean_bkc + Z_HIGH * sd_bkc > lower_b[:, None, None])
    rest_bk = np.maximum(1.0 - (weight_bkc * can_win_bkc).sum(axis=2), 0.0)
    can_win_bm = can_win_bkc.reshape(b, -1)
    most = max(int(can_win_bm.sum(axis=1).max()), 1)
    place_bm = np.argsort(~can_win_bm, axis=1, kind="stable")[:, :most]  # those that can win first, by arm

    def taken(array_bkc: FloatArray, otherwise: float) -> FloatArray:
        values_bm = np.take_along_axis(array_bkc.reshape(b, -1), place_bm, axis=1)
        return np.where(np.take_along_axis(can_win_bm, place_bm, axis=1), values_bm, otherwise)

    mean_bm, sd_bm = taken(mean_bkc, -math.inf), taken(sd_bkc, 1.0)
    low_bm = np.maximum(mean_bm - Z_LOW * sd_bm, lower_b[:, None])
    components = _Components(
        place_bm // mean_bkc.shape[2],
        taken(weight_bkc, 0.0),
        mean_bm,
        sd_bm,
        low_bm,
        mean_bm + Z_HIGH * sd_bm,
        rest_bk,
    )
    return components, lower_b, can_win_bkc, mean_bkc


def _all_below(components: _Components, row: int, u: float) -> float:
    """P(all draws of the contenders of a row are below u)."""
    below_k = components.rest_bk[row].copy()
    z_m = (u - components.mean_bm[row]) / components.sd_bm[row]
    np.add.at(below_k, components.arm_bm[row], components.weight_bm[row] * ndtr(z_m))
    return float(np.prod(below_k))


def _add_integrals(p_b: FloatArray, components: _Components, arm_b: IntArray) -> None:
    """Add to ``p_b``, in place, the integrals over f prod F of each row's arm: rows with like numbers of components together."""
    count_b = (components.weight_bm > 0.0).sum(axis=1)
    size_b = 4 * ((count_b + 3) // 4)
    for size in np.unique(size_b[count_b > 0]).tolist():
        row_s = np.flatnonzero(size_b == size)
        part = components.part(row_s, size)
        p_s, segments = p_b[row_s], _segments(part, arm_b[row_s])
        for order in np.unique(segments.order_g):
            group = np.flatnonzero(segments.order_g == order)
            step = max(_BATCH_ELEMENTS // (int(order) * size), 1)
            for at in range(0, len(group), step):
                _add_segments(p_s, part, segments, group[at : at + step], arm_b[row_s])
        p_b[row_s] = p_s


def _segments(components: _Components, arm_b: IntArray) -> _Segments:
    """The segments on which the density of each row's arm is, from all components' windows: everywhere the finest scale counts.

    Neighbouring pieces become one segment where nodes at the finer scale cost less than another segment.
    """
    live_bm = components.high_bm > components.low_bm
    mine_bm = live_bm & (components.arm_bm == arm_b[:, None])
    from_b = np.min(np.where(mine_bm, components.low_bm, math.inf), axis=1)
    to_b = np.max(np.where(mine_bm, components.high_bm, -math.inf), axis=1)
    none_b = ~mine_bm.any(axis=1)
    from_b[none_b] = to_b[none_b] = 0.0
    low_bm = np.clip(np.where(live_bm, components.low_bm, from_b[:, None]), from_b[:, None], to_b[:, None])
    high_bm = np.clip(np.where(live_bm, components.high_bm, from_b[:, None]), from_b[:, None], to_b[:, None])
    edge_be = np.sort(np.concatenate([low_bm, high_bm], axis=1), axis=1)
    covers_bem = (low_bm[:, None] <= edge_be[:, :-1, None]) & (high_bm[:, None] >= edge_be[:, 1:, None])
    scale_be = np.min(np.where(covers_bem & live_bm[:, None], components.sd_bm[:, None], math.inf), axis=2)
    row_g, start_g, end_g, scale_g = _joined(edge_be, scale_be)
    overlaps_gm = (low_bm[row_g] < end_g[:, None]) & (high_bm[row_g] > start_g[:, None]) & live_bm[row_g]
    rising_g = np.square(np.where(overlaps_gm, scale_g[:, None] / components.sd_bm[row_g], 0.0)).sum(axis=1)
    span_g = (end_g - start_g) / scale_g
    order_g = np.minimum(
        ORDER_BASE + span_g * (ORDER_SPAN + ORDER_ARMS * np.log(np.maximum(rising_g, 1.0))),
        ORDER_CAP_BASE + ORDER_CAP_SPAN * span_g,
    )
    # Few distinct orders, so that many segments share one array operation.
    return _Segments(row_g, start_g, end_g - start_g, 4 * np.ceil(order_g / 4.0).astype(np.intp))


def _joined(edge_be: FloatArray, scale_be: FloatArray) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
    """Row, start, end and scale of segments: pieces between neighbouring edges joined from the left; none where the scale is
    infinite.
    """
    start_b, end_b = edge_be[:, 0].copy(), edge_be[:, 0].copy()
    scale_b = np.ones(len(edge_be))
    rows: list[IntArray] = []
    bounds: list[FloatArray] = []

    def close(row_c: IntArray) -> None:
        row_c = row_c[end_b[row_c] > start_b[row_c]]
        rows.append(row_c)
        bounds.append(np.array([start_b[row_c], end_b[row_c], scale_b[row_c]]))

    for piece in range(scale_be.shape[1]):
        low_b, high_b, fine_b = edge_be[:, piece], edge_be[:, piece + 1], scale_be[:, piece]
        some_b = (high_b > low_b) & (fine_b < math.inf)
        finer_b = np.minimum(scale_b, fine_b)
        extra_b = (high_b - start_b) / finer_b - (end_b - start_b) / scale_b - (high_b - low_b) / fine_b
        joins_b = some_b & (end_b == low_b) & (end_b > start_b)
        joins_b &= (extra_b <= MERGE) & (high_b - start_b <= MAX_SPAN * finer_b)
        fresh = np.flatnonzero(some_b & ~joins_b)
        close(fresh)
        start_b[fresh], scale_b[fresh] = low_b[fresh], fine_b[fresh]
        scale_b[joins_b] = finer_b[joins_b]
        end_b[some_b] = high_b[some_b]
    close(np.arange(len(edge_be)))
    start_g, end_g, scale_g = np.concatenate(bounds, axis=1)
    return np.concatenate(rows), start_g, end_g, scale_g


def _add_segments(
    p_b: FloatArray, components: _Components, segments: _Segments, chunk_g: IntArray, arm_b: IntArray
) -> None:
    """Add to ``p_b``, in place, the integrals over some segments of one order."""
    row_g, start_g, width_g = segments.row_g[chunk_g], segments.start_g[chunk_g], segments.width_g[chunk_g]
    node_n, weight_n = gauss_legendre(int(segments.order_g[chunk_g[0]]))
    segment_p, place_p = np.nonzero(components.weight_bm[row_g] > 0.0)
    row_p = row_g[segment_p]
    arm_p, share_p = components.arm_bm[row_p, place_p], components.weight_bm[row_p, place_p]
    inv_sd_p = 1.0 / components.sd_bm[row_p, place_p]
    z_pn = np.multiply.outer(width_g[segment_p] * inv_sd_p, node_n)
    z_pn += ((start_g[segment_p] - components.mean_bm[row_p, place_p]) * inv_sd_p)[:, None]
    cdf_pn = ndtr(z_pn)
    cdf_pn *= share_p[:, None]
    # components -> arms of a segment -> segments
    first_q = np.flatnonzero(np.diff(segment_p, prepend=-1) | np.diff(arm_p, prepend=-1))
    cdf_qn = np.add.reduceat(cdf_pn, first_q, axis=0)
    cdf_qn += components.rest_bk[row_p[first_q], arm_p[first_q]][:, None]
    first_g = np.searchsorted(segment_p[first_q], np.arange(len(row_g)))
    product_gn = np.multiply.reduceat(cdf_qn, first_g, axis=0)
    product_gn *= weight_n
    mine_p = np.flatnonzero(arm_p == arm_b[row_p])
    mine_q = np.flatnonzero(arm_p[first_q] == arm_b[row_p[first_q]])
    segment_q = segment_p[first_q][mine_q]
    product_gn[segment_q] /= cdf_qn[mine_q]
    density_pn = z_pn[mine_p]
    density_pn *= density_pn
    density_pn *= -0.5
    np.exp(density_pn, out=density_pn)
    mass_p = np.einsum("pn,pn->p", density_pn, product_gn[segment_p[mine_p]])
    mass_p *= share_p[mine_p] * inv_sd_p[mine_p] * width_g[segment_p[mine_p]]
    np.add.at(p_b, row_p[mine_p], mass_p)
