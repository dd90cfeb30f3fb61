"""Meshes for integrals over Normal draws: where the integrand lives, and Gauss-Legendre rules long enough for it.

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

>>> node_n, weight_n = mesh(-7.0, 7.0, highs=[7.0], sds=[1.0])
>>> density_n = np.exp(-0.5 * node_n**2)  # the weights carry 1 / sqrt(2 pi)
>>> round(float(density_n @ weight_n), 9)
1.0
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

TOLERANCE = 4e-11
"""Mass given up below the range."""
Z_HIGH = 7.0
"""Standard deviations above its mean at which an arm's support ends; 1.3e-12 of it lies above."""
Z_LOW = -float(ndtri(TOLERANCE))
"""Standard deviations below its mean at which an arm's support begins."""
CROWD = [(4**e, float(ndtri(TOLERANCE ** (0.25**e)))) for e in range(1, 7)]
"""(j, z) with F(z) = tolerance**(1 / j): if j arms each have no more at u, the product is at most the tolerance."""
ONE_SEGMENT = 14.0
"""A range this long, in units of the finest scale, is not worth cutting."""
MAX_SPAN = 20.0
"""Longest segment, in units of its scale."""
MERGE = 2.0
"""A new segment costs about as many nodes as this many scale lengths."""
ORDER_BASE, ORDER_SPAN, ORDER_ARMS = 5.0, 1.95, 0.7
"""The order of a rule by the segment's span and the arms on it: see ``order_of``."""
ORDER_CAP_BASE, ORDER_CAP_SPAN = 40.0, 2.0
"""Bound of that order, by span, however many arms there are."""


@cache
def gauss_legendre(order: int) -> FloatArray:
    """The rule of an order > 0, shape (2, order), not to be written to: nodes on [0, 1], and weights that carry the Normal
    density's 1 / sqrt(2 pi). Worked out when it is first asked for: the 80 of them would be a sixth of the time of a start.
    """
    node, weight = np.polynomial.legendre.leggauss(order)
    return np.array([(node + 1.0) / 2.0, weight / (2.0 * math.sqrt(2.0 * math.pi))])


def order_of(span: float, arms: float) -> int:
    """Gauss-Legendre order for a segment `span` <= 20 scale lengths long, on which `arms` arms rise; <= 80.

    `arms` counts an arm of sd s as (scale / s)^2: how fast prod F grows off the real axis sets the error of a
    Gauss rule, and it grows like a single F with 1 / sd^2 = sum 1 / sd_b^2. The numbers are fitted from above
    to the least order with an error of some 1e-11 over random and adversarial sets of 2 to 500 arms. Past a
    point more arms do no harm, because they raise `lower` beyond the flat part; hence the minimum.
    """
    return math.ceil(
        min(
            ORDER_BASE + span * (ORDER_SPAN + ORDER_ARMS * math.log(arms)),
            ORDER_CAP_BASE + ORDER_CAP_SPAN * span,
        )
    )


def mesh(lower: float, upper: float, highs: list[float], sds: list[float]) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights (with 1 / sqrt(2 pi)) on [lower, upper], lower < upper, by segments of one scale."""
    start = end = lower
    scale = min(sds)
    if upper - lower <= ONE_SEGMENT * scale:
        width = upper - lower
        rising = sum([(scale / sd) ** 2 for sd in sds])
        rule = width * gauss_legendre(order_of(width / scale, rising))
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
        elif (high - end) * (1.0 / scale - 1.0 / sd) > MERGE or high - start > MAX_SPAN * scale:
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
        rule = width * gauss_legendre(order_of(width / scale, scale * scale * precision))
        rule[0] += start
        rules.append(rule)
    rule = np.concatenate(rules, axis=1) if len(rules) > 1 else rules[0]
    return rule[0], rule[1]
