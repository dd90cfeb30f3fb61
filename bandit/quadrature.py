"""Meshes for integrals over mixtures of Normals: where the integrand lives, and Gauss-Legendre rules long enough for it.

How the integrals are done, and why:

* *Range.* Below `lower`, where one arm's F is under 4e-11 (or j arms' F under the j-th root of that), the
  product is negligible; a component wholly below `lower` is 1 there and its density is dropped (under 2e-12).
* *Mesh.* Each component left varies on its window only, from 6.6 sds below its mean to 7 above. The finest scale
  that matters at u is the smallest sd among the components whose windows hold u. Taking the windows from the narrowest on,
  and of each what the narrower ones have left, cuts the range into few segments of one scale each; each gets one
  Gauss-Legendre rule whose order grows with its length in that scale. (With 8 Normals of like sds nodes needed
  for 1e-9, median: one long rule 34; panels of 8, 12 or 16 nodes 48; tanh-sinh 102; the trapezoidal rule 26, but over 390
  where a point mass or a floor cuts the range, one long rule: 12.) Where no window is, no density is.
* *Closed forms.* Two contenders: sums of Normal cdfs. Above every other arm's windows: the last arm's own tail.
* *All arms from one product.* f_a prod_{b != a} F_b = (prod_b F_b) f_a / F_a, and F_a > 0 on the range.

>>> node_n, weight_n = mesh([(-7.0, 7.0, 1.0)], [(-7.0, 7.0)])
>>> density_n = np.exp(-0.5 * node_n**2)  # the weights carry 1 / sqrt(2 pi)
>>> round(float(density_n @ weight_n), 9)
1.0
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

TOLERANCE = 4e-11
"""Mass given up below the range."""
Z_HIGH = 7.0
"""Standard deviations above its mean at which a component's window ends; 1.3e-12 of it lies above."""
Z_LOW = -float(ndtri(TOLERANCE))
"""Standard deviations below its mean at which a component's window begins."""
CROWD = [(4**e, float(ndtri(TOLERANCE ** (0.25**e)))) for e in range(1, 7)]
"""(j, z) with F(z) = tolerance**(1 / j): if j arms each have no more at u, the product is at most the tolerance."""
MAX_SPAN = 20.0
"""Longest segment, in units of its scale."""
MERGE = 2.0
"""A new segment costs about as many nodes as this many scale lengths."""
ORDER_BASE, ORDER_SPAN, ORDER_ARMS = 5.0, 1.95, 0.7
"""The order of a rule by the segment's span and the components on it: see ``order_of``."""
ORDER_CAP_BASE, ORDER_CAP_SPAN = 40.0, 2.0
"""Bound of that order, by span, however many components there are."""

Window = tuple[float, float, float]
"""Where a component varies, from and to, and its standard deviation; of a segment, its finest scale."""


@cache
def gauss_legendre(order: int) -> FloatArray:
    """The rule of an order > 0, shape (2, order), not to be written to: nodes on [0, 1], and weights that carry the Normal
    density's 1 / sqrt(2 pi). Worked out when it is first asked for: the 80 of them would be a sixth of the time of a start.
    """
    node, weight = np.polynomial.legendre.leggauss(order)
    return np.array([(node + 1.0) / 2.0, weight / (2.0 * math.sqrt(2.0 * math.pi))])


def order_of(span: float, rising: float) -> int:
    """Gauss-Legendre order for a segment `span` <= 20 scale lengths long, on which `rising` components vary; <= 80.

    `rising` counts a component of sd s as (scale / s)^2: how fast prod F grows off the real axis sets the error of a
    Gauss rule, and it grows like a single F with 1 / sd^2 = sum 1 / sd_b^2. The numbers are fitted from above
    to the least order with an error of some 1e-11 over random and adversarial sets of 2 to 500 Normals. Past a
    point more arms do no harm, because they raise `lower` beyond the flat part; hence the minimum.
    """
    return math.ceil(
        min(
            ORDER_BASE + span * (ORDER_SPAN + ORDER_ARMS * math.log(max(rising, 1.0))),
            ORDER_CAP_BASE + ORDER_CAP_SPAN * span,
        )
    )


def segments_of(windows: Sequence[Window]) -> list[Window]:
    """The union of ``windows``, each of positive length, cut into segments of one scale each, in order.

    The scale of a segment is that of the finest window that reaches into it. What a window adds to finer ones is joined to a
    neighbour where nodes at the finer scale cost less than a segment of its own.
    """
    segments: list[Window] = []
    for low, high, sd in sorted(windows, key=_scale):
        at = 0
        while at < len(segments) and segments[at][1] < low:
            at += 1
        while low < high:
            start, end, scale = segments[at] if at < len(segments) else (math.inf, math.inf, sd)
            stop = min(high, start)
            if low < stop:  # a gap before the next segment, or a part of one
                cost = (stop - low) / sd + MERGE
                right = (stop - low) / scale if stop == start else math.inf
                before = segments[at - 1] if at else (0.0, -math.inf, sd)
                left = (stop - low) / before[2] if before[1] == low else math.inf
                if min(left, right) <= cost and left <= right:
                    segments[at - 1] = (before[0], stop, before[2])
                elif right <= cost:
                    segments[at] = (low, end, scale)
                else:
                    segments.insert(at, (low, stop, sd))
                    at += 1
            low = max(low, end)
            at += 1
    return segments


def _scale(window: Window) -> float:
    return window[2]


def mesh(windows: Sequence[Window], support: Sequence[tuple[float, float]]) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights (with 1 / sqrt(2 pi)) on the parts of ``windows`` that lie in ``support``, disjoint intervals."""
    rules = []
    for start, end, scale in segments_of(windows):
        precision = sum([1.0 / (sd * sd) for low, high, sd in windows if low < end and high > start])
        for low, high in support:
            low, high = max(low, start), min(high, end)
            if low >= high:
                continue
            pieces = math.ceil((high - low) / (MAX_SPAN * scale))
            width = (high - low) / pieces
            rule_2n = gauss_legendre(order_of(width / scale, scale * scale * precision))
            for piece in range(pieces):
                shifted_2n = width * rule_2n
                shifted_2n[0] += low + piece * width
                rules.append(shifted_2n)
    if not rules:
        return np.empty(0), np.empty(0)
    rule_2n = np.concatenate(rules, axis=1) if len(rules) > 1 else rules[0]
    return rule_2n[0], rule_2n[1]
