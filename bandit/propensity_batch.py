"""`propensity` for many rows at once: the same meshes, one array operation per order of a rule.

>>> mean_bk, sd_bk = np.array([[0.0, 0.0], [0.0, 3.0]]), np.ones((2, 2))
>>> argmax_propensity_batch(mean_bk, sd_bk, np.array([0, 1])).round(6).tolist()
[0.5, 0.983053]
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from pointsman.bandit.quadrature import (
    CROWD,
    MAX_SPAN,
    MERGE,
    ONE_SEGMENT,
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


class _BatchMesh(NamedTuple):
    """Segments of all rows, flat. Within one, the nodes are start + width * (a rule's nodes on [0, 1])."""

    row_g: IntArray
    start_g: FloatArray
    width_g: FloatArray
    order_g: IntArray


def _batch_mesh(lower_b: FloatArray, upper_b: FloatArray, high_bk: FloatArray, sd_bk: FloatArray) -> _BatchMesh:
    """`mesh` for many rows at once; arms that cannot win have high = -inf."""
    sorted_bk = np.argsort(np.where(high_bk > lower_b[:, None], sd_bk, math.inf), axis=1, kind="stable")
    high_sorted_bk = np.minimum(np.take_along_axis(high_bk, sorted_bk, 1), upper_b[:, None])
    sd_sorted_bk = np.take_along_axis(sd_bk, sorted_bk, 1)
    start_b, end_b, scale_b = lower_b.copy(), lower_b.copy(), sd_sorted_bk[:, 0].copy()
    one_b = upper_b - lower_b <= ONE_SEGMENT * scale_b
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
        costly_c = (high_c - end_c) * (1.0 / scale_c - 1.0 / sd_c) > MERGE
        cut_c = begun_c & (costly_c | (high_c - start_c > MAX_SPAN * scale_c))
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
        ORDER_BASE + span_g * (ORDER_SPAN + ORDER_ARMS * np.log(arms_g)),
        ORDER_CAP_BASE + ORDER_CAP_SPAN * span_g,
    )
    # Few distinct orders, so that many segments share one array operation.
    return _BatchMesh(row_g, start_g, width_g, 4 * np.ceil(order_g / 4.0).astype(np.intp))


def _batch_masses(mean_bk: FloatArray, sd_bk: FloatArray, arm_b: IntArray) -> FloatArray:
    """P(the row's arm has the largest draw), shape (b,)."""
    batch, arms = mean_bk.shape
    all_b = np.arange(batch)
    mean_bk = mean_bk - mean_bk[all_b, np.argmax(mean_bk - Z_LOW * sd_bk, axis=1)][:, None]
    lower_b = np.max(mean_bk - Z_LOW * sd_bk, axis=1)
    for count, z in CROWD:
        if count > arms:
            break
        rivals_b = np.partition(mean_bk + z * sd_bk, arms - count, axis=1)[:, arms - count]
        np.maximum(lower_b, rivals_b, out=lower_b)
    point_bk = sd_bk == 0.0
    sd_bk = np.where(point_bk, 1.0, sd_bk)
    high_bk = np.where(point_bk, -math.inf, mean_bk + Z_HIGH * sd_bk)
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

    upper_b = np.maximum(high_bk[all_b, arm_b], lower_b)
    mesh = _batch_mesh(lower_b, upper_b, high_bk, sd_bk)
    for order in np.unique(mesh.order_g):
        group = np.flatnonzero(mesh.order_g == order)
        step = max(_BATCH_ELEMENTS // (int(order) * arms), 1)
        for at in range(0, len(group), step):
            _add_segments(p_bk, mean_bk, sd_bk, high_bk, mesh, group[at : at + step], arm_b)
    return np.minimum(p_bk[all_b, arm_b], 1.0)


def _add_segments(
    p_bk: FloatArray,
    mean_bk: FloatArray,
    sd_bk: FloatArray,
    high_bk: FloatArray,
    mesh: _BatchMesh,
    chunk_g: IntArray,
    arm_b: IntArray,
) -> None:
    """Add to p_bk, in place, the integrals over some segments of one order.

    Only pairs (segment, arm) whose arm still rises there are evaluated; the other cdfs are 1.
    """
    row_g, start_g, width_g = (
        mesh.row_g[chunk_g],
        mesh.start_g[chunk_g],
        mesh.width_g[chunk_g],
    )
    node_n, weight_n = gauss_legendre(int(mesh.order_g[chunk_g[0]]))
    segment_p, arm_p = np.nonzero(high_bk[row_g] > start_g[:, None])
    row_p = row_g[segment_p]
    inv_sd_p = 1.0 / sd_bk[row_p, arm_p]
    z_pn = np.multiply.outer(width_g[segment_p] * inv_sd_p, node_n)
    z_pn += ((start_g[segment_p] - mean_bk[row_p, arm_p]) * inv_sd_p)[:, None]
    cdf_pn = ndtr(z_pn)
    first_g = np.searchsorted(segment_p, np.arange(len(row_g)))
    weight_gn = np.multiply.reduceat(cdf_pn, first_g, axis=0)
    weight_gn *= weight_n
    wanted = np.flatnonzero(arm_p == arm_b[row_p])
    segment_p, arm_p, row_p, inv_sd_p = segment_p[wanted], arm_p[wanted], row_p[wanted], inv_sd_p[wanted]
    z_pn, cdf_pn = z_pn[wanted], cdf_pn[wanted]
    z_pn *= z_pn
    z_pn *= -0.5
    np.exp(z_pn, out=z_pn)
    z_pn /= cdf_pn
    mass_p = np.einsum("pn,pn->p", z_pn, weight_gn[segment_p]) * (width_g[segment_p] * inv_sd_p)
    np.add.at(p_bk, (row_p, arm_p), mass_p)


def argmax_propensity_batch(mean_bk: FloatArray, sd_bk: FloatArray, arm_b: IntArray) -> FloatArray:
    """P(the arm ``arm_b[i]`` has the largest draw of row i), shape (b,), for b >= 0 rows: as `argmax_propensity` of each.

    mean_bk, sd_bk: of the independent Normal draws, shape (b, k). Preconditions, accuracy and ties as in `propensity`.
    """
    return _batch_masses(mean_bk, sd_bk, arm_b)
