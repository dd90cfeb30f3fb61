"""Exact choice probabilities (propensities) of Thompson sampling with independent draws from mixtures of Normals.

Every arm a draws u_a with the density f_a = sum_c w_ac N(mean_ac, sd_ac^2), independently; a rule then picks one arm:

* the **argmax rule** picks the largest draw, so P(a) = integral f_a(u) prod_{b != a} F_b(u) du;
* the **floor rule** picks the most preferred arm whose draw clears a floor; where none does, the largest draw.

Both come down to one-dimensional integrals (the argmax case: Jeunen, RecSys 2025, arXiv 2504.08773), however many
components the mixtures have, because the arms stay independent.

Preconditions of every function here (they sit on the hot path and check nothing): ``Mixtures`` with k >= 1
arms; weights >= 0 whose sum is 1 for each arm; finite means; finite sds >= 0; no NaN; no overflow in (mean - mean') / sd;
either all components of an arm have sd > 0, or none has and they have the same mean.

**Accuracy.** The absolute error per arm is below 1e-9, whatever the ratio of the sds. It is absolute, not relative: a
probability under 1e-10 may come out as 0. Results are clipped to [0, 1] and *not* normalised: all arms sum to 1
within 1e-9 by themselves. Components of less weight than 1e-13 are left out.

**Point masses.** sd = 0 is a draw that always equals its mean. Draws tie with positive probability only then;
the argmax rule gives a tie to the lowest index, the floor rule to the preferred arm, and a draw equal to the
floor clears it.

How the integrals are done, and why: `quadrature`. Above every other arm's support the last arm's own tail is a closed form;
so are two contenders. All arms come from one product: f_a prod_{b != a} F_b = (prod_b F_b) f_a / F_a.

>>> arms = normals(np.array([0.0, 0.0, 1.0]), np.array([1.0, 1.0, 1.0]))
>>> argmax_propensities(arms).round(6).tolist()
[0.183149, 0.183149, 0.633702]
>>> argmax_propensity(arms, 2).__round__(6)
0.633702
>>> cheapest_first_k = np.array([0, 1])
>>> arms = normals(np.array([0.5, 0.9]), np.array([0.1, 0.1]))
>>> floor_propensities(arms, cheapest_first_k, floor=0.5).round(6).tolist()
[0.500003, 0.499997]
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from pointsman.bandit.quadrature import CROWD, TOLERANCE, Z_HIGH, Z_LOW, FloatArray, IntArray, mesh

NEGLIGIBLE = 1e-13
"""Weight up to which a component is left out."""
_SQRT_HALF = math.sqrt(0.5)


class Mixtures(NamedTuple):
    """The distributions of k arms' draws, each a mixture of c Normals: weights, means and standard deviations, all (k, c)."""

    weight_kc: FloatArray
    mean_kc: FloatArray
    sd_kc: FloatArray

    def take(self, arms: IntArray) -> Mixtures:
        """Those of some of the arms, in this order."""
        return Mixtures(self.weight_kc[arms], self.mean_kc[arms], self.sd_kc[arms])


def normals(mean_k: FloatArray, sd_k: FloatArray) -> Mixtures:
    """Mixtures of one component each: Normals."""
    return Mixtures(np.ones((len(mean_k), 1)), mean_k[:, None], sd_k[:, None])


def _cdf(z: float) -> float:
    """Standard Normal cdf of one number; math.erfc costs a tenth of an array call."""
    return 0.5 * math.erfc(-z * _SQRT_HALF)


class _Contenders(NamedTuple):
    """The components that can win, in coordinates centred so that near ties keep their digits.

    Each is (arm, weight, mean, sd), by arm; ``rest`` is, by arm, the weight of the arm's components that lie below ``lower``.
    """

    components: list[tuple[int, float, float, float]]
    rest: dict[int, float]
    lower: float  # below this the largest draw falls with probability <= tolerance (or never)
    atom: int  # the point mass that can win (it sits at lower), or -1
    centre: float


def _contenders(arms: Mixtures) -> _Contenders:
    """Drop the hopeless components."""
    weight_kc, mean_kc, sd_kc = arms
    if mean_kc.shape[1] > 1:
        counts_kc = weight_kc > NEGLIGIBLE
        low_k = np.minimum.reduce(mean_kc - Z_LOW * sd_kc, axis=1, where=counts_kc, initial=math.inf)
    else:
        counts_kc, low_k = None, (mean_kc - Z_LOW * sd_kc)[:, 0]
    first = int(low_k.argmax())
    centre = float(mean_kc[first, 0])
    mean_kc = mean_kc - centre
    low_c = (
        mean_kc[first] - Z_LOW * sd_kc[first]
    )  # anew: far from 0 the first one has no digits left of a narrow component
    lower = float(low_c[0] if counts_kc is None else low_c[counts_kc[first]].min())
    for count, z in CROWD:
        if count > len(mean_kc):
            break
        bound_kc = mean_kc + z * sd_kc
        bound_k = bound_kc[:, 0] if counts_kc is None else bound_kc.min(axis=1, where=counts_kc, initial=math.inf)
        lower = max(lower, float(np.partition(bound_k, -count)[-count]))
    can_win_kc = mean_kc + Z_HIGH * sd_kc > lower
    can_win_kc &= sd_kc > 0.0
    if counts_kc is not None:
        can_win_kc &= counts_kc
    arm_m, component_m = can_win_kc.nonzero()
    components = list(
        zip(
            arm_m.tolist(),
            weight_kc[arm_m, component_m].tolist(),
            mean_kc[arm_m, component_m].tolist(),
            sd_kc[arm_m, component_m].tolist(),
            strict=True,
        )
    )
    rest = dict.fromkeys(arm_m.tolist(), 1.0)
    for arm, weight, _, _ in components:
        rest[arm] -= weight
    atom = -1
    point_k = sd_kc[:, 0] == 0.0
    if point_k.any():
        at_lower = np.flatnonzero(point_k & (mean_kc[:, 0] >= lower))
        atom = int(at_lower[0]) if at_lower.size else -1
    return _Contenders(components, {a: max(r, 0.0) for a, r in rest.items()}, lower, atom, centre)


def _cdfs_at(contenders: _Contenders, u: float) -> dict[int, float]:
    """By arm the probability that its draw is below ``u``."""
    below = dict(contenders.rest)
    for arm, weight, mean, sd in contenders.components:
        below[arm] += weight * _cdf((u - mean) / sd)
    return below


def _two(contenders: _Contenders, arm: int) -> float:
    """P(``arm`` has the larger draw of the two contenders)."""
    mine = [component for component in contenders.components if component[0] == arm]
    others = [component for component in contenders.components if component[0] != arm]
    mass = sum(
        [
            w * v * _cdf((mean - other) / math.hypot(sd, other_sd))
            for _, w, mean, sd in mine
            for _, v, other, other_sd in others
        ]
    )
    ((_, below),) = [item for item in contenders.rest.items() if item[0] != arm]
    return mass + below * sum([w for _, w, _, _ in mine])


def _split_top(contenders: _Contenders) -> tuple[int, float]:
    """The arm that reaches highest, and the height above which it is alone.

    Above that height its integrand is its bare density, so its windows are cut there and the rest is a tail.
    """
    high_by_arm = dict.fromkeys(contenders.rest, -math.inf)
    for arm, _, mean, sd in contenders.components:
        high_by_arm[arm] = max(high_by_arm[arm], mean + Z_HIGH * sd)
    top = max(high_by_arm, key=high_by_arm.__getitem__)
    nothing_else = contenders.lower if contenders.atom >= 0 else -math.inf
    return top, max([high for arm, high in high_by_arm.items() if arm != top], default=nothing_else)


def _tail(contenders: _Contenders, arm: int, low: float, ceiling: float) -> float:
    """P(low < draw < ceiling) of an arm."""
    return sum(
        [
            weight * max(_cdf((mean - low) / sd) - _cdf((mean - ceiling) / sd), 0.0)
            for other, weight, mean, sd in contenders.components
            if other == arm
        ]
    )


def _integrals(contenders: _Contenders, upper: float, only: int | None) -> dict[int, float]:
    """By arm the integral of f_a prod_{b != a} F_b from ``lower`` to ``upper``; of ``only`` one arm if it is given."""
    lower, windows, support = contenders.lower, [], []
    for arm, _, mean, sd in contenders.components:
        low, high = max(lower, mean - Z_LOW * sd), min(upper, mean + Z_HIGH * sd)
        if low < high:
            windows.append((low, high, sd))
            if only is None or arm == only:
                support.append((low, high))
    node_n, weight_n = mesh(windows, _disjoint(support))
    if not node_n.size:
        return {}
    arms = list(contenders.rest)
    arm_m, weight_m, mean_m, sd_m = (np.array(column)[:, None] for column in zip(*contenders.components, strict=True))
    z_mn = (node_n - mean_m) / sd_m
    cdf_mn = ndtr(z_mn)
    cdf_mn *= weight_m
    first_a = np.searchsorted(arm_m[:, 0], arms)
    cdf_an = np.add.reduceat(cdf_mn, first_a, axis=0)
    cdf_an += np.array(list(contenders.rest.values()))[:, None]
    weight_n *= np.multiply.reduce(cdf_an, axis=0)
    if only is None:
        density_mn = np.exp(z_mn * z_mn * -0.5)
        density_mn *= weight_m / sd_m
        hazard_an = np.add.reduceat(density_mn, first_a, axis=0) / cdf_an
        return dict(zip(arms, (hazard_an @ weight_n).tolist(), strict=True))
    place = arms.index(only)
    start, stop = int(first_a[place]), int(first_a[place + 1]) if place + 1 < len(arms) else len(z_mn)
    z_mn = z_mn[start:stop]
    density_mn = np.exp(z_mn * z_mn * -0.5)
    weight_n /= cdf_an[place]
    return {only: float((density_mn @ weight_n) @ (weight_m / sd_m)[start:stop, 0])}


def _disjoint(intervals: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The union of intervals, as disjoint ones in order."""
    union: list[tuple[float, float]] = []
    for low, high in sorted(intervals):
        if union and low <= union[-1][1]:
            union[-1] = (union[-1][0], max(union[-1][1], high))
        else:
            union.append((low, high))
    return union


def _masses(arms: Mixtures, only: int | None = None, ceiling: float = math.inf) -> dict[int, float]:
    """P(arm a has the largest draw, and it is below `ceiling`), by arm, where it is not 0; of ``only`` one arm if it is given.

    No point mass is at or above the ceiling.
    """
    contenders = _contenders(arms)
    ceiling -= contenders.centre
    masses: dict[int, float] = {}
    if ceiling <= contenders.lower:
        return masses
    if contenders.atom >= 0 and only in (None, contenders.atom):
        masses[contenders.atom] = math.prod(_cdfs_at(contenders, contenders.lower).values())
    if not contenders.components or (only is not None and only not in contenders.rest):
        return masses
    if len(contenders.rest) == 2 and contenders.atom < 0 and ceiling == math.inf:
        return {arm: _two(contenders, arm) for arm in (contenders.rest if only is None else (only,))}
    top, alone = _split_top(contenders)
    upper = min(alone, ceiling)
    if upper > contenders.lower:
        masses.update(_integrals(contenders, upper, only))
    if ceiling > alone and only in (None, top):
        masses[top] = masses.get(top, 0.0) + _tail(contenders, top, alone, ceiling)
    return masses


def argmax_propensities(arms: Mixtures) -> FloatArray:
    """P(arm a has the largest draw) for every arm, shape (k,), each in [0, 1], summing to 1 within 1e-9.

    See the module for preconditions and ties.
    """
    p_k = np.zeros(len(arms.mean_kc))
    for arm, mass in _masses(arms).items():
        p_k[arm] = min(mass, 1.0)
    return p_k


def argmax_propensity(arms: Mixtures, arm: int) -> float:
    """P(`arm` has the largest draw), 0 <= arm < k: as `argmax_propensities(...)[arm]`, cheaper."""
    return min(_masses(arms, arm).get(arm, 0.0), 1.0)


def below(arms: Mixtures, floor: FloatArray | float) -> FloatArray:
    """P(draw < floor) for each arm; a point mass at the floor is not below it. ``arms`` may have more dimensions in front."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z_kc = (floor - arms.mean_kc) / arms.sd_kc
    z_kc[np.isnan(z_kc)] = -np.inf  # no spread, exactly at the floor
    below_k: FloatArray = (arms.weight_kc * ndtr(z_kc)).sum(axis=-1)
    return np.minimum(below_k, 1.0)


def floor_propensities(arms: Mixtures, rank_k: IntArray, *, floor: float) -> FloatArray:
    """P(the floor rule picks arm a) for every arm, shape (k,), each in [0, 1], summing to 1 within 1e-9.

    The rule picks the most preferred arm with q_a >= floor; where none clears it, the arm with the largest q. So
    P(a) = P(q_a >= floor) prod_{b preferred to a} P(q_b < floor) + P(q_a is largest, and below floor).

    arms: of the independent quality draws q_a.
    rank_k: each arm's place in the order of preference, a permutation of 0..k-1; rank 0 is tried first (the
        cheapest, for a cost-first objective).

    See the module for preconditions and ties.
    """
    order_k = _order(rank_k)
    arms = arms.take(order_k)
    p_k = np.empty(len(order_k))
    below_k = below(arms, floor)
    none_clears_k = np.cumprod(below_k)
    in_order_k = 1.0 - below_k
    in_order_k[1:] *= none_clears_k[:-1]
    if none_clears_k[-1] > TOLERANCE:
        for arm, mass in _masses(arms, ceiling=floor).items():
            in_order_k[arm] += mass
    np.minimum(in_order_k, 1.0, out=in_order_k)
    p_k[order_k] = in_order_k
    return p_k


def floor_propensity(arms: Mixtures, rank_k: IntArray, arm: int, *, floor: float) -> float:
    """P(the floor rule picks `arm`), 0 <= arm < k: as `floor_propensities(...)[arm]`, cheaper."""
    arms, rank = arms.take(_order(rank_k)), int(rank_k[arm])
    below_k = below(arms, floor)
    p = float((1.0 - below_k[rank]) * np.multiply.reduce(below_k[:rank]))
    if np.multiply.reduce(below_k) > TOLERANCE:
        p += _masses(arms, rank, floor).get(rank, 0.0)
    return min(p, 1.0)


def _order(rank_k: IntArray) -> IntArray:
    """The arms from most to least preferred, so that a tie goes to the preferred one."""
    order_k = np.empty(len(rank_k), np.intp)
    order_k[rank_k] = np.arange(len(rank_k))
    return order_k
