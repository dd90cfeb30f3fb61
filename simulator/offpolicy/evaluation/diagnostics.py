"""Whether a log can answer for a candidate at all: the weights' size and tail, overlap, and the log's own propensities.

>>> effective_sample_size(np.array([1.0, 1.0, 1.0, 1.0])), effective_sample_size(np.array([4.0, 0.0, 0.0, 0.0]))
(4.0, 1.0)
>>> logged_nk = np.tile([0.9, 0.1], (1000, 1))
>>> calibration_by_model(np.zeros(1000, dtype=np.intp), logged_nk).p_value < 1e-6  # it never chose what it says it does in 10 %
True
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from pointsman.simulator.offpolicy.intervals.interval import check_scores
from pointsman.simulator.offpolicy.logs.log import Array, Flags, Indices

MAX_WEIGHT_SHARE = 0.05
"""A round may have less than this share of all weight."""

TAIL_LEVELS = (0.5, 0.9, 0.99, 0.999)
"""Quantiles of the weights that are reported."""

OVERLAP_LEVELS = (0.001, 0.01, 0.05)
"""Logged propensities under which the candidate's mass is reported."""

EDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 0.99)
"""Of the bins of stated propensities: fixed, so that no bin knows what came."""

_LEAST_VARIANCE = 5.0
"""Expected variance of a count from which it is nearly normal; bins with less join their neighbour in the test."""

_CHUNK = 65_536
"""Rounds whose mass per bin is held in memory at once."""


@dataclass(frozen=True, slots=True)
class Bin:
    """All (round, model) pairs whose stated propensity is in [``low``, ``high``), or all of one model.

    ``pairs`` of them; ``stated`` is their sum of propensities, ``observed`` how many were chosen, ``z`` the difference in
    standard deviations, given the propensities (0 where there is no difference, infinite where a sure thing failed).
    """

    low: float
    high: float
    pairs: int
    stated: float
    observed: int
    z: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """A test of stated propensities against what was chosen.

    ``statistic`` is about chi-square with ``dof`` degrees of freedom where the stated propensities are true. ``p_value`` is twice
    the smaller of the statistic's and of that by Bennett's inequality in the worst bin (for bins with too few events for the
    statistic); so it is 0 where something of propensity 0 was chosen.
    """

    bins: tuple[Bin, ...]
    statistic: float
    dof: int
    p_value: float


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """Diagnostics of an off-policy estimate over n rounds.

    ``ess``, in rounds: (Σw)²/Σw² (Kish), the number of rounds that would tell as much with equal weights, 0 if all
    weights are 0. ``largest_weight_share`` in (0, 1]: max w / Σw. ``quantiles`` of the weights at ``TAIL_LEVELS`` and their
    ``largest``. ``tail_index``: the k of a generalised Pareto fitted to the largest weights; from 0.5 their variance,
    from 1 their mean is infinite, and over 0.7 estimates are not to be trusted (Vehtari et al. 2024); ``nan`` if it has
    no tail to fit.
    ``mean_weight`` should be 1 where every model of the candidate could be chosen; ``mean_weight_z`` is its difference in
    standard errors. ``overlap`` gives, for each of ``OVERLAP_LEVELS``, the candidate's mean mass on models of smaller
    logged propensity, and ``unsupported`` on those of none; ``None`` if the log holds only the chosen propensity, as
    are ``by_propensity`` and ``by_model``, :func:`calibration` over bins of propensity and over models.
    """

    n: int
    ess: float
    largest_weight_share: float
    quantiles: tuple[float, ...]
    largest: float
    tail_index: float
    mean_weight: float
    mean_weight_z: float
    overlap: tuple[float, ...] | None
    unsupported: float | None
    by_propensity: Calibration | None
    by_model: Calibration | None


def diagnose(weight_n: Array, chosen_n: Indices, target_nk: Array, logged_nk: Array | None) -> Diagnostics:
    """All diagnostics of importance weights ``weight_n`` >= 0, of a candidate with distributions ``target_nk``.

    ``logged_nk`` are the logging policy's, ``None`` if the log does not say; ``chosen_n`` numbers the models it chose.

    Raises:
        ValueError: lengths disagree, weights negative or not finite, no rounds.
    """
    weight_n = check_weights(weight_n)
    n = len(weight_n)
    if len(chosen_n) != n or len(target_nk) != n or (logged_nk is not None and len(logged_nk) != n):
        raise ValueError(f"weight_n, chosen_n, target_nk, logged_nk: expected {n} rounds in each")
    return Diagnostics(
        n=n,
        ess=effective_sample_size(weight_n),
        largest_weight_share=float(weight_n.max() / weight_n.sum()) if weight_n.any() else 1.0,
        quantiles=tuple(np.quantile(weight_n, TAIL_LEVELS).tolist()),
        largest=float(weight_n.max()),
        tail_index=tail_index(weight_n),
        mean_weight=float(weight_n.mean()),
        mean_weight_z=mean_weight_z(weight_n),
        overlap=None
        if logged_nk is None
        else tuple(mass_below(target_nk, logged_nk, level) for level in OVERLAP_LEVELS),
        unsupported=None if logged_nk is None else float(target_nk[logged_nk <= 0.0].sum() / n),
        by_propensity=None if logged_nk is None else calibration(chosen_n, logged_nk),
        by_model=None if logged_nk is None else calibration_by_model(chosen_n, logged_nk),
    )


def check_weights(weight_n: Array) -> Array:
    """Return ``weight_n`` as float64 (n).

    Raises:
        ValueError: none, one not finite, or one negative.
    """
    weight_n = check_scores(weight_n)
    if weight_n.min() < 0.0:
        raise ValueError(f"weight_n: value {int(np.argmin(weight_n))} is negative")
    return weight_n


def effective_sample_size(weight_n: Array) -> float:
    """(Σw)²/Σw², in rounds: from 1 (one weight has it all) to n (all alike); 0 if all are 0."""
    weight_n = check_weights(weight_n)
    largest = float(weight_n.max())
    if largest == 0.0:
        return 0.0
    scaled_n = weight_n / largest
    return float(scaled_n.sum() ** 2 / (scaled_n @ scaled_n))


def mean_weight_z(weight_n: Array) -> float:
    """(mean weight - 1) in standard errors; 0 where all are 1, infinite where all are alike but not 1."""
    weight_n = check_weights(weight_n)
    difference = float(weight_n.mean()) - 1.0
    error = float(weight_n.std(ddof=1)) / math.sqrt(len(weight_n)) if len(weight_n) > 1 else 0.0
    if error <= 1e-12:
        return 0.0 if abs(difference) <= 1e-9 else math.copysign(math.inf, difference)
    return difference / error


def mass_below(target_nk: Array, logged_nk: Array, level: float) -> float:
    """The candidate's mean probability, in [0, 1], of models whose logged propensity is under ``level``."""
    return float(np.where(logged_nk < level, target_nk, 0.0).sum() / len(target_nk))


def tail_index(weight_n: Array) -> float:
    """The shape k of a generalised Pareto distribution fitted to the largest weights; ``nan`` if under 5 stand out.

    Of the min(n/5, 3√n) largest, above the next one: Vehtari, Simpson, Gelman, Yao and Gabry, "Pareto smoothed importance
    sampling" (JMLR 2024). The fit is Zhang and Stephens, "A new and efficient estimation method for the generalized Pareto
    distribution" (Technometrics 2009), drawn towards 1/2 as if by ten more weights, as there. Weights with a bound, as an
    exploration floor gives them, have k below 0 if the log reaches the bound.
    """
    weight_n = check_weights(weight_n)
    n = len(weight_n)
    tail = math.ceil(min(0.2 * n, 3.0 * math.sqrt(n)))
    if tail >= n:
        return math.nan
    sorted_m = np.sort(np.partition(weight_n, n - tail - 1)[n - tail - 1 :])
    excess_m = sorted_m[1:] - sorted_m[0]
    excess_m = excess_m[excess_m > 1e-12 * sorted_m[-1]]
    m = len(excess_m)
    if m < 5 or excess_m[0] == excess_m[-1]:
        return math.nan
    grid = 30 + int(math.sqrt(m))
    quartile = float(excess_m[int(m / 4.0 + 0.5) - 1])
    theta_g = 1.0 / excess_m[-1] + (1.0 - np.sqrt(grid / (np.arange(1.0, grid + 1.0) - 0.5))) / (3.0 * quartile)
    shape_g = np.log1p(-theta_g[:, None] * excess_m).mean(axis=1)
    likelihood_g = m * (np.log(-theta_g / shape_g) - shape_g - 1.0)
    share_g = np.exp(likelihood_g - likelihood_g.max())
    theta = float(share_g @ theta_g / share_g.sum())
    k = float(np.log1p(-theta * excess_m).mean())
    return (m * k + 10.0 * 0.5) / (m + 10.0)


def missingness_p(chosen_n: Indices, group_n: Indices, reported_n: Flags, k: int) -> float:
    """The p-value of outcomes missing equally often for all k models of a group: Pearson's χ², summed over groups.

    Models with fewer than five expected events, reported or missing, are left out, where the approximation does not hold; 1
    where nothing is left to compare.
    """
    statistic, dof = 0.0, 0
    for group in range(int(group_n.max(initial=-1)) + 1):
        in_group_n = group_n == group
        chosen_k = np.bincount(chosen_n[in_group_n], minlength=k).astype(np.float64)
        reported_k = np.bincount(chosen_n[in_group_n & reported_n], minlength=k).astype(np.float64)
        rate = float(reported_k.sum() / max(chosen_k.sum(), 1.0))
        is_tested_k = chosen_k * min(rate, 1.0 - rate) >= 5.0
        if is_tested_k.sum() < 2 or not 0.0 < rate < 1.0:
            continue
        count_k, observed_k = chosen_k[is_tested_k], reported_k[is_tested_k]
        rate = float(observed_k.sum() / count_k.sum())
        statistic += float(((observed_k - rate * count_k) ** 2 / (count_k * rate * (1.0 - rate))).sum())
        dof += len(count_k) - 1
    return float(chdtrc(dof, statistic)) if dof else 1.0


def calibration(chosen_n: Indices, logged_nk: Array) -> Calibration:
    """Whether models that are stated to be chosen with probability p are, in bins of p with edges ``EDGES``.

    Given the propensities, the vector of a round's chosen pairs per bin is multinomial with one trial, whatever came
    before. So the differences D_b of observed and stated sums are martingales with covariance C = Σ_t diag(P_t) - P_t P_tᵀ, P_tb
    being the round's stated mass in bin b, and DᵀC⁺D is chi-square in long logs, adaptive ones too. Bins in which under
    ``_LEAST_VARIANCE`` of variance was to be expected are tested together with the next, and each bin alone by Bennett's
    inequality for martingales (Freedman 1975), which holds for few events too.

    Raises:
        ValueError: shapes disagree, a propensity outside [0, 1], a row that does not sum to 1.
    """
    chosen_n, logged_nk = _check_logged(chosen_n, logged_nk)
    return _calibration(chosen_n, logged_nk, np.digitize(logged_nk, EDGES), [0.0, *EDGES, 1.0])


def calibration_by_model(chosen_n: Indices, logged_nk: Array) -> Calibration:
    """Whether each model is chosen as often as stated: :func:`calibration` with a bin for each model.

    Raises:
        ValueError: as :func:`calibration`.
    """
    chosen_n, logged_nk = _check_logged(chosen_n, logged_nk)
    bin_nk = np.broadcast_to(np.arange(logged_nk.shape[1]), logged_nk.shape)
    return _calibration(chosen_n, logged_nk, bin_nk, None)


def _check_logged(chosen_n: Indices, logged_nk: Array) -> tuple[Indices, Array]:
    chosen_n, logged_nk = np.asarray(chosen_n), np.asarray(logged_nk, dtype=np.float64)
    if logged_nk.ndim != 2 or chosen_n.shape != logged_nk.shape[:1] or len(chosen_n) == 0:
        raise ValueError(
            f"chosen_n, logged_nk: shapes {chosen_n.shape} and {logged_nk.shape} are not (n) and (n, k), n > 0"
        )
    if chosen_n.min() < 0 or chosen_n.max() >= logged_nk.shape[1]:
        raise ValueError(f"chosen_n: {chosen_n.min()} to {chosen_n.max()} does not number {logged_nk.shape[1]} models")
    if not (logged_nk >= 0.0).all() or not (np.abs(logged_nk.sum(axis=1) - 1.0) <= 1e-6).all():
        raise ValueError("logged_nk: expected propensities of at least 0 in rows that sum to 1")
    return chosen_n, logged_nk


def _calibration(chosen_n: Indices, logged_nk: Array, bin_nk: Indices, edges: list[float] | None) -> Calibration:
    """The test over bins b of all pairs. ``edges`` of the bins; ``None`` if a bin is a model."""
    index_n, count = np.arange(len(chosen_n)), (logged_nk.shape[1] if edges is None else len(edges) - 1)
    pairs_b = np.bincount(bin_nk[logged_nk > 0.0], minlength=count)
    observed_b = np.bincount(bin_nk[index_n, chosen_n], minlength=count)
    stated_b, covariance_bb = _stated_moments(logged_nk, bin_nk, count)
    difference_b = observed_b - stated_b
    variance_b = np.maximum(np.diag(covariance_bb), 0.0)
    # What is left of a variance of 0 after rounding, and of a difference of 0.
    variance_b[variance_b <= 1e-9 * stated_b] = 0.0
    difference_b[np.abs(difference_b) <= 1e-9 * (stated_b + 1.0)] = 0.0
    sd_b = np.sqrt(variance_b)
    z_b = np.divide(difference_b, sd_b, out=np.copysign(np.inf, difference_b), where=variance_b > 0.0)
    z_b[difference_b == 0.0] = 0.0
    bins = tuple(
        Bin(
            low=0.0 if edges is None else edges[b],
            high=1.0 if edges is None else edges[b + 1],
            pairs=int(pairs_b[b]),
            stated=float(stated_b[b]),
            observed=int(observed_b[b]),
            z=float(z_b[b]),
        )
        for b in range(count)
        if edges is None or pairs_b[b] or observed_b[b]
    )
    statistic, dof = _chi_square(difference_b, covariance_bb)
    ordinary = float(chdtrc(dof, statistic)) if dof else 1.0
    rare = count * min(_bennett(d, variance) for d, variance in zip(difference_b, variance_b, strict=True))
    return Calibration(bins, statistic, dof, min(1.0, 2.0 * min(ordinary, rare)))


def _stated_moments(logged_nk: Array, bin_nk: Indices, count: int) -> tuple[Array, Array]:
    """The mean (b) and covariance (b, b) of the counts of chosen pairs per bin, given the stated propensities."""
    stated_b = np.zeros(count)
    square_bb = np.zeros((count, count))
    for start in range(0, len(logged_nk), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        rows = len(logged_nk[chunk])
        flat_nk = np.arange(rows)[:, None] * count + bin_nk[chunk]
        mass_nb = np.bincount(flat_nk.ravel(), logged_nk[chunk].ravel(), minlength=rows * count).reshape(rows, count)
        stated_b += mass_nb.sum(axis=0)
        square_bb += mass_nb.T @ mass_nb
    return stated_b, np.diag(stated_b) - square_bb


def _chi_square(difference_b: Array, covariance_bb: Array) -> tuple[float, int]:
    """DᵀC⁺D and C's rank, after bins of little variance have been joined to the next (the last ones to the one before)."""
    group_b = np.zeros(len(difference_b), dtype=np.intp)
    group, first = 0, 0
    for b in range(len(difference_b)):
        group_b[b] = group
        if covariance_bb[first : b + 1, first : b + 1].sum() >= _LEAST_VARIANCE:
            group, first = group + 1, b + 1
    group_b[group_b == group] = max(group - 1, 0)
    join_gb = (group_b == np.arange(max(group, 1))[:, None]).astype(np.float64)
    value_g, vector_gg = np.linalg.eigh(join_gb @ covariance_bb @ join_gb.T)
    along_g = vector_gg.T @ (join_gb @ difference_b)
    # Counts add up to n, so at least one direction has no variance; those with little are not near normal.
    is_tested_g = value_g >= 1.0
    return float((along_g[is_tested_g] ** 2 / value_g[is_tested_g]).sum()), int(is_tested_g.sum())


def _bennett(difference: float, variance: float) -> float:
    """A bound of the chance that a sum of Bernoulli martingale differences of this variance is as far from 0 as this."""
    if difference == 0.0:
        return 1.0
    if variance == 0.0:
        return 0.0
    ratio = abs(difference) / variance
    return min(1.0, 2.0 * math.exp(-variance * ((1.0 + ratio) * math.log1p(ratio) - ratio)))
