"""Hierarchical priors: a model with few observations in a bucket starts from what other buckets say of it.

The mean response y of model a in bucket z, at the bucket's average context, is

    y_za = level_z + offset_a + deviation_za,   deviation ~ N(0, τ²), offset ~ N(0, ν²), level ~ N(l, ω²):

how hard, long or dear the bucket's tasks are, how the model differs from others, and how that difference varies between buckets.
Offsets carry over, levels much less. Buckets report *data only*: the least-squares mean of each model's own outcomes, with the
prior taken out. A bucket that reported posterior means would echo what it was told. Offsets are the least-squares solution of
this two-way layout, with each bucket's level absorbed (reduced normal equations: Searle, Linear Models, 7.1), each cell weighing
n / (n + ``HALF_WEIGHT``) after n outcomes; the two parts of the variance come by moments (Henderson's method 3), and m and τ are
shrunk by a prior. The sums that this takes are added and taken back by bucket, so no bucket looks at all others.

In some buckets models differ otherwise than elsewhere. So a bucket either *follows*, as above, or has a slope of its own
(y_za = level_z + β_z·offset_a + deviation of a larger spread, β ~ N(0, 1)), where opposite effects are β = -1. The posterior
probability that it follows comes from its own data in closed form (Normal linear models), and from the share of other buckets
that follow (Beta); buckets report with that probability as their weight. A cell's prior is the Normal with the mean and the
variance of that mixture, worth σ²/variance observations, at most ``MAX_PRIOR_MASS``. One mass serves all responses of a model,
that of its quality; the prior means of the others are moved towards the bucket's own data by as much as their mass is less.

Two-level models: Gelman et al., Bayesian Data Analysis, 5.4; for bandits Hong et al., "Hierarchical Bayesian Bandits", 2022.

>>> from pointsman.bandit.posterior import add_models, empty
>>> from pointsman.bandit.updates import observe_all
>>> default = [Prior(0.5, b=0.5)] * RESPONSES
>>> pool, names = HierarchicalPrior(), ["small", "large"]
>>> for level in (0.4, 0.5, 0.6):
...     bucket = add_models(empty(dim=1), 2, default)
...     for _ in range(60):
...         for model, offset in enumerate((-0.2, 0.2)):
...             _ = observe_all(bucket, model, np.ones(1), [(QUALITY, level + offset)])
...     pooled = pool_priors(pool, names, zero_contribution(2), bucket, np.ones(1), default)
...     replace_contribution(pool, names, zero_contribution(2), pooled.contribution_3mr)
>>> new_bucket = add_models(empty(dim=1), 2, default)
>>> pooled = pool_priors(pool, names, zero_contribution(2), new_bucket, np.ones(1), default)
>>> [(round(prior[QUALITY].intercept, 1), round(mass)) for prior, mass in pooled.priors]
[(0.4, 6), (0.6, 6)]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dpotrf, dtrtri

from pointsman.bandit.packed import Array
from pointsman.bandit.posterior import (
    INTERCEPT_PRECISION,
    NONE,
    PRIOR_A,
    QUALITY,
    RESPONSES,
    Posteriors,
    Prior,
    noise,
)

HALF_WEIGHT = 2.0
"""Outcomes of a cell after which its contribution has half of its largest weight."""
MAX_PRIOR_MASS = 30.0
"""Most observations that a pooled prior is worth."""
LEVEL_SPREAD_R = np.array([0.2, 2.0, 1.0, 1.0])
"""Prior standard deviation of buckets' levels around their mean, by response: ω."""
OFFSET_SPREAD_R = np.array([0.2, 2.0, 1.0, 1.0])
"""Prior standard deviation of models' offsets, by response: ν."""
SPREAD_R = np.array([0.1, 0.5, 0.5, 0.5])
"""Prior standard deviation of a model's offset between buckets, by response: τ."""
SPREAD_MASS = 4.0
"""Weight of the priors of τ and ω, in buckets."""
NEW_MODEL_VARIANCE = 2.0
"""Factor of the variance in the prior of a model that is new everywhere."""
FOLLOWING, OTHERWISE = 8.0, 2.0
"""Beta prior of the share of buckets that follow the others."""
OWN_SPREAD = 0.1
"""Share of the variance between models that a bucket which does not follow adds to the variance of its deviations."""
DOUBT = 2.0
"""Factor of the variance that comes from not knowing whether a bucket follows: draws have half the posterior's spread, and
too little doubt there would cost a bucket of opposite effects dearly (`docs/decisions/pooling-reports-data.md`)."""
VALUE, WEIGHT, ERROR = 0, 1, 2
"""Rows of a contribution."""
SQUARE, PAIRS, NOISE, LEVELS, LEVEL, LEVEL_SQUARE, FOLLOW, KNOWN = range(8)
"""Rows of the pool's sums: weighted squares about the buckets' means, degrees of freedom, sampling variances; weights of levels,
their weighted sum and squares; weights of the buckets that follow, and of all."""
SUMS = 8
_LITTLE = 1e-9


@dataclass(slots=True)
class HierarchicalPrior:
    """Sums over all buckets' contributions, by response: the normal equations of the offsets of ``models`` (m),
    ``precision_rmm`` · offsets = ``eta_rm``, and ``sum_sr`` (rows as above). Changed in place.
    """

    models: list[str] = field(default_factory=list)
    precision_rmm: Array = field(default_factory=lambda: np.zeros((RESPONSES, 0, 0)))
    eta_rm: Array = field(default_factory=lambda: np.zeros((RESPONSES, 0)))
    sum_sr: Array = field(default_factory=lambda: np.zeros((SUMS, RESPONSES)))


class Pooled(NamedTuple):
    """What the pool gives a bucket: for each of its models priors by response and their mass in observations; the contribution
    that it now makes, (3, 1+k, r); and whether any other bucket has observations.
    """

    priors: list[tuple[list[Prior], float]]
    contribution_3mr: Array
    others_know: bool


class _Equations(NamedTuple):
    """One contribution's part of the pool, over its own models (k)."""

    precision_rkk: Array
    eta_rk: Array
    sum_sr: Array


class _Elsewhere(NamedTuple):
    """What other buckets say: the mean and variance of models' offsets (k, r), the variance of deviations, the variance
    between models, the mean and variance of levels, and the share of buckets that follow, (r); whether they have observations,
    and whether any has two models' quality.
    """

    offset_kr: Array
    variance_kr: Array
    deviation_r: Array
    between_r: Array
    level_r: Array
    level_variance_r: Array
    following_r: Array
    anything: bool
    offsets: bool


class _Fit(NamedTuple):
    """A Normal linear model of a bucket's means: level, slope on the offsets with its variance, log marginal likelihood; (r)."""

    level_r: Array
    slope_r: Array
    slope_variance_r: Array
    log_evidence_r: Array


def zero_contribution(models: int) -> Array:
    """The contribution of a bucket of k models without observations, (3, 1+k, r): by response value, weight and sampling variance
    of each model's mean; before them the bucket's level, its weight, and the probability that the bucket follows the others.
    """
    return np.zeros((3, 1 + models, RESPONSES))


def data_means(posteriors: Posteriors, x_d: Array) -> tuple[Array, Array]:
    """How many outcomes each cell holds, after forgetting, and their least-squares mean at ``x_d``, both (k, r); the prior is
    taken out but for the effects of features.
    """
    count_kr = np.zeros((posteriors.models, RESPONSES))
    value_kr = np.zeros((posteriors.models, RESPONSES))
    for response, number in enumerate(posteriors.design_r.tolist()):
        if number == NONE:
            continue
        last_kd = posteriors.designs[number].precision_kp[:, -posteriors.dim :]  # Σ w·x, and the prior's mass
        count_k = last_kd[:, -1] - posteriors.mass_k
        count_k = np.where(count_k > _LITTLE, count_k, 0.0)
        sum_k = posteriors.eta_krd[:, response, -1] - posteriors.mass_k * posteriors.prior_kr2[:, response, 0]
        safe_k = np.maximum(count_k, _LITTLE)
        away_kd = x_d[:-1] - last_kd[:, :-1] / safe_k[:, None]
        value_k = sum_k / safe_k + np.einsum("kd,kd->k", posteriors.mean_krd[:, response, :-1], away_kd)
        count_kr[:, response] = count_k
        value_kr[:, response] = np.where(count_k > 0.0, value_k, 0.0)
    return count_kr, value_kr


def replace_contribution(pool: HierarchicalPrior, models: Sequence[str], old: Array, new: Array) -> None:
    """Replace a bucket's contribution ``old`` by ``new``, each (3, 1+k, r), in place."""
    if not (old.any() or new.any()):
        return
    _add_models(pool, models)
    place_k = _places(pool, models)
    added, removed = _equations(new), _equations(old)
    pool.precision_rmm[:, place_k[:, None], place_k] += added.precision_rkk - removed.precision_rkk
    pool.eta_rm[:, place_k] += added.eta_rk - removed.eta_rk
    pool.sum_sr += added.sum_sr - removed.sum_sr


def forget_models(pool: HierarchicalPrior, models: Iterable[str]) -> None:
    """Drop the offsets of ``models``, of which no bucket's contribution may still speak, in place."""
    dropped = set(models) & set(pool.models)
    if dropped:
        kept_m = np.array([m for m, model in enumerate(pool.models) if model not in dropped], dtype=np.intp)
        pool.models = [pool.models[m] for m in kept_m.tolist()]
        pool.precision_rmm = pool.precision_rmm[:, kept_m[:, None], kept_m]
        pool.eta_rm = pool.eta_rm[:, kept_m]


def pool_priors(
    pool: HierarchicalPrior,
    models: Sequence[str],
    contribution_3mr: Array,
    posteriors: Posteriors,
    x_d: Array,
    default: Sequence[Prior],
) -> Pooled:
    """Priors of a bucket's ``models`` from all other buckets and its own level, and what it now contributes. O(m³) in the number
    of models that buckets have.

    ``contribution_3mr`` is what the bucket itself has in ``pool``, ``posteriors`` are its own and ``x_d`` is its average
    context; ``default`` are the priors by response where no bucket has observations.
    """
    count_kr, value_kr = data_means(posteriors, x_d)
    elsewhere = _elsewhere(pool, models, contribution_3mr, default)
    error_kr = _common_noise(posteriors) / np.maximum(count_kr, _LITTLE)
    variance_kr = elsewhere.deviation_r + elsewhere.variance_kr
    own_kr = elsewhere.deviation_r + OWN_SPREAD * elsewhere.between_r + np.zeros_like(value_kr)
    has_kr = count_kr > 0.0
    offset_kr, zero_kr = elsewhere.offset_kr, np.zeros_like(value_kr)
    follows = _fit(value_kr - offset_kr, variance_kr + error_kr, has_kr, zero_kr, elsewhere)
    differs = _fit(value_kr, own_kr + error_kr, has_kr, offset_kr, elsewhere)
    odds_r = np.log(elsewhere.following_r / (1.0 - elsewhere.following_r))
    odds_r += follows.log_evidence_r - differs.log_evidence_r
    share_r = 1.0 / (1.0 + np.exp(-np.clip(odds_r, -50.0, 50.0)))
    following_kr = follows.level_r + offset_kr
    differing_kr = differs.level_r + differs.slope_r * offset_kr
    mean_kr = share_r * following_kr + (1.0 - share_r) * differing_kr
    spread_kr = share_r * variance_kr + (1.0 - share_r) * (own_kr + offset_kr**2 * differs.slope_variance_r)
    spread_kr += DOUBT * share_r * (1.0 - share_r) * (following_kr - differing_kr) ** 2
    mass_kr = np.clip(noise(posteriors) / spread_kr, INTERCEPT_PRECISION, MAX_PRIOR_MASS)
    if not elsewhere.offsets:
        mass_kr[:] = INTERCEPT_PRECISION
    intercept_kr = _of_one_mass(mean_kr, mass_kr, count_kr, value_kr)
    weight_kr = count_kr / (count_kr + HALF_WEIGHT)
    total_r = weight_kr.sum(axis=0)
    new_3mr = zero_contribution(len(models))
    new_3mr[VALUE, 0] = (weight_kr * (value_kr - offset_kr)).sum(axis=0) / np.maximum(total_r, _LITTLE)
    new_3mr[WEIGHT, 0], new_3mr[ERROR, 0] = total_r / (total_r + 1.0), np.where(total_r > 0.0, share_r, 0.0)
    new_3mr[:, 1:] = value_kr, weight_kr, np.where(has_kr, error_kr, 0.0)
    return Pooled(
        [
            ([Prior(intercept, prior.b) for intercept, prior in zip(row, default, strict=True)], mass)
            for row, mass in zip(intercept_kr.tolist(), mass_kr[:, QUALITY].tolist(), strict=True)
        ],
        new_3mr,
        others_know=elsewhere.anything,
    )


def _elsewhere(
    pool: HierarchicalPrior, models: Sequence[str], contribution_3mr: Array, default: Sequence[Prior]
) -> _Elsewhere:
    """What the buckets other than that of ``contribution_3mr`` say of ``models``."""
    own, k = _equations(contribution_3mr), len(models)
    place_k = _places(pool, models)
    present_k = place_k >= 0
    precision_rmm, eta_rm = pool.precision_rmm.copy(), pool.eta_rm.copy()
    here_k = place_k[present_k]
    precision_rmm[:, here_k[:, None], here_k] -= own.precision_rkk[:, present_k][:, :, present_k]
    eta_rm[:, here_k] -= own.eta_rk[:, present_k]
    sum_sr = pool.sum_sr - own.sum_sr
    pairs_r = np.maximum(sum_sr[PAIRS], 0.0)
    default_noise_r = np.array([prior.b for prior in default]) / (PRIOR_A - 1.0)
    unit_r = SPREAD_R**2 + np.where(pairs_r > _LITTLE, sum_sr[NOISE] / np.maximum(pairs_r, _LITTLE), default_noise_r)
    offset_kr = np.zeros((k, RESPONSES))
    variance_kr = np.repeat(OFFSET_SPREAD_R[None] ** 2, k, axis=0)
    unknown_kr = np.ones((k, RESPONSES), dtype=np.bool_)
    square_r = sum_sr[SQUARE].copy()
    degrees_r = np.zeros(RESPONSES)
    for r in np.flatnonzero(pairs_r > _LITTLE).tolist():
        offset_m, variance_m = _solve(precision_rmm[r], eta_rm[r], float(unit_r[r] / OFFSET_SPREAD_R[r] ** 2))
        square_r[r] += offset_m.dot(precision_rmm[r].dot(offset_m) - 2.0 * eta_rm[r])
        weight_m = np.diag(precision_rmm[r])
        degrees_r[r] = (weight_m > _LITTLE).sum()
        offset_kr[present_k, r] = offset_m[here_k]
        variance_kr[present_k, r] = unit_r[r] * variance_m[here_k]
        unknown_kr[present_k, r] = weight_m[here_k] <= _LITTLE
    excess_r = np.maximum(square_r - sum_sr[NOISE], 0.0) + SPREAD_MASS * SPREAD_R**2
    between_r = ((offset_kr**2 + variance_kr).sum(axis=0) + OFFSET_SPREAD_R**2) / max(k, 1)
    levels_r = np.maximum(sum_sr[LEVELS], 0.0)
    default_r = np.array([prior.intercept for prior in default])
    level_r = np.where(levels_r > _LITTLE, sum_sr[LEVEL] / np.maximum(levels_r, _LITTLE), default_r)
    apart_r = np.maximum(sum_sr[LEVEL_SQUARE] - levels_r * level_r**2, 0.0) + SPREAD_MASS * LEVEL_SPREAD_R**2
    return _Elsewhere(
        offset_kr=offset_kr,
        variance_kr=np.where(unknown_kr, NEW_MODEL_VARIANCE, 1.0) * variance_kr,
        deviation_r=excess_r / (np.maximum(pairs_r - degrees_r, 0.0) + SPREAD_MASS),
        between_r=between_r,
        level_r=level_r,
        level_variance_r=apart_r / (np.maximum(levels_r - 1.0, 0.0) + SPREAD_MASS),
        following_r=(FOLLOWING + np.maximum(sum_sr[FOLLOW], 0.0))
        / (FOLLOWING + OTHERWISE + np.maximum(sum_sr[KNOWN], 0.0)),
        anything=bool((levels_r > _LITTLE).any()),
        offsets=bool(pairs_r[QUALITY] > _LITTLE),
    )


def _solve(precision_mm: Array, eta_m: Array, ridge: float) -> tuple[Array, Array]:
    """Solution of the normal equations with ``ridge`` added to the diagonal, and the diagonal of their inverse, both (m)."""
    factor_mm, failed = dpotrf(precision_mm + ridge * np.eye(len(eta_m)))
    if failed:  # a sum of projections and a positive diagonal: only a broken file can make it otherwise
        raise ArithmeticError("the precision of the models' offsets is not positive definite")
    root_mm, _ = dtrtri(factor_mm)
    root_mm = np.triu(root_mm)
    return root_mm @ (eta_m @ root_mm), (root_mm**2).sum(axis=1)


def _fit(
    residual_kr: Array, variance_kr: Array, has_kr: npt.NDArray[np.bool_], slope_kr: Array, elsewhere: _Elsewhere
) -> _Fit:
    """Level and slope of residual = level + slope·``slope_kr`` + N(0, variance) in closed form, with level ~ N(l, ω²) and
    slope ~ N(0, 1); where ``slope_kr`` is 0 the level alone.
    """
    weight_kr = np.where(has_kr, 1.0 / variance_kr, 0.0)
    residual_kr = np.where(has_kr, residual_kr - elsewhere.level_r, 0.0)
    level_precision_r = 1.0 / elsewhere.level_variance_r
    p11_r = weight_kr.sum(axis=0) + level_precision_r
    p12_r = (weight_kr * slope_kr).sum(axis=0)
    p22_r = (weight_kr * slope_kr**2).sum(axis=0) + 1.0
    g1_r = (weight_kr * residual_kr).sum(axis=0)
    g2_r = (weight_kr * residual_kr * slope_kr).sum(axis=0)
    determinant_r = p11_r * p22_r - p12_r**2
    level_r = (p22_r * g1_r - p12_r * g2_r) / determinant_r
    slope_r = (p11_r * g2_r - p12_r * g1_r) / determinant_r
    misfit_r = (weight_kr * residual_kr**2).sum(axis=0) - g1_r * level_r - g2_r * slope_r
    log_evidence_r = -0.5 * np.where(has_kr, np.log(variance_kr), 0.0).sum(axis=0)
    log_evidence_r -= 0.5 * (np.log(determinant_r / level_precision_r) + misfit_r)
    return _Fit(level_r + elsewhere.level_r, slope_r, p11_r / determinant_r, log_evidence_r)


def _of_one_mass(mean_kr: Array, mass_kr: Array, count_kr: Array, value_kr: Array) -> Array:
    """Prior intercepts (k, r) that, with the mass of quality, give the posterior means of priors at ``mean_kr`` with masses of
    their own: (κm′ + nȳ)/(κ + n) = (κ_r m + nȳ)/(κ_r + n), κ_r <= κ.
    """
    mass_k1 = mass_kr[:, QUALITY : QUALITY + 1]
    less_kr = np.minimum(mass_kr, mass_k1)
    pull_kr = (mass_k1 + count_kr) / mass_k1 * less_kr / (less_kr + count_kr)
    return np.where(count_kr > 0.0, value_kr + pull_kr * (mean_kr - value_kr), mean_kr)


def _equations(contribution_3mr: Array) -> _Equations:
    """What a contribution adds to the pool: its normal equations with its level absorbed, and its sums."""
    value_kr, weight_kr, error_kr = contribution_3mr[:, 1:]
    level_r, levels_r, share_r = contribution_3mr[:, 0]
    total_r = np.maximum(weight_kr.sum(axis=0), _LITTLE)
    weighted_kr = weight_kr * value_kr
    mean_r = weighted_kr.sum(axis=0) / total_r
    pairs_kr = weight_kr - weight_kr**2 / total_r
    precision_rkk = -np.einsum("kr,jr->rkj", weight_kr, weight_kr / total_r)
    diagonal = np.arange(len(value_kr))
    precision_rkk[:, diagonal, diagonal] += weight_kr.T
    pairs_r = pairs_kr.sum(axis=0)
    known_r = pairs_r / (pairs_r + 1.0)
    sum_sr = np.array(
        [
            share_r * (weight_kr * (value_kr - mean_r) ** 2).sum(axis=0),
            share_r * pairs_r,
            share_r * (pairs_kr * error_kr).sum(axis=0),
            levels_r,
            levels_r * level_r,
            levels_r * level_r**2,
            share_r * known_r,
            known_r,
        ]
    )
    return _Equations(share_r[:, None, None] * precision_rkk, (share_r * (weighted_kr - weight_kr * mean_r)).T, sum_sr)


def _places(pool: HierarchicalPrior, models: Sequence[str]) -> npt.NDArray[np.intp]:
    """Where the models are in the pool, -1 for those that are not."""
    place = {model: m for m, model in enumerate(pool.models)}
    return np.array([place.get(model, -1) for model in models], dtype=np.intp)


def _add_models(pool: HierarchicalPrior, models: Sequence[str]) -> None:
    new = [model for model in models if model not in pool.models]
    if new:
        pool.models += new
        pool.precision_rmm = np.pad(pool.precision_rmm, ((0, 0), (0, len(new)), (0, len(new))))
        pool.eta_rm = np.pad(pool.eta_rm, ((0, 0), (0, len(new))))


def _common_noise(posteriors: Posteriors) -> Array:
    """Expected noise variance (r) if it were the same for all models: a cell of few outcomes has mostly its prior's."""
    b_r = posteriors.prior_kr2[0, :, 1] + (posteriors.b_kr - posteriors.prior_kr2[:, :, 1]).sum(axis=0)
    a_r = PRIOR_A + (posteriors.a_kr - PRIOR_A).sum(axis=0)
    return np.asarray(b_r / (a_r - 1.0))
