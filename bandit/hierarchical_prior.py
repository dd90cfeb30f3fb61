"""Hierarchical priors: a model with few observations in a bucket starts from what other buckets say of it.

The mean response y of model a in bucket z, at the bucket's average context, is

    y_za = level_z + offset_a + deviation_za,   deviation ~ N(0, τ²), offset ~ N(0, ν²), level ~ N(l, ω²):

how hard, long or dear the bucket's tasks are, how the model differs from others, and how that difference varies between buckets.
Buckets report *data only*: how many outcomes each of their models has, and their least-squares mean, with the prior taken out. A
bucket that reported posterior means would echo what it was told.

How alike buckets are is not known, so all of it is done under each τ of ``SPREADS``. Given τ a bucket's means are Normal with the
covariance ω²11ᵀ + diag(τ² + σ²/n), so its part of the log likelihood is a quadratic in the offsets: the sums over buckets give
the offsets' posterior (reduced normal equations of a two-way layout with random levels: Searle, Casella & McCulloch, Variance
Components, ch. 7) and the marginal likelihood of τ, which weighs the results. Buckets that agree make τ small and a prior worth
hundreds of observations, buckets that do not make it large. A bucket's part is added and taken back, so no bucket looks at all.

In some buckets models differ otherwise than elsewhere. So a bucket either *follows*, as above, or has a slope of its own
(y_za = level_z + β_z·offset_a + deviation of a larger spread, β ~ N(0, ``SLOPE_SPREAD``²)), where opposite effects are β = -1,
or is like no other (no slope, deviations as large as models differ). The posterior probability that it follows comes from its own
data, by the marginal likelihoods of all three, and from the share of other buckets that follow (Beta); buckets report with that
probability as their weight.

A cell's prior is what is believed of its mean without its own outcomes, the level of the bucket taken as it is estimated: a
mixture over the kinds of buckets and all τ, whose mean and variance make it worth σ²/variance observations, at most
``MAX_PRIOR_MASS``. One mass serves all responses of a model, that of its quality; the prior means of the others are moved towards
the bucket's own data by as much as their mass is less.

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
...     replace_contribution(pool, names, zero_contribution(2), pooled.contribution_2mr)
>>> new_bucket = add_models(empty(dim=1), 2, default)
>>> pooled = pool_priors(pool, names, zero_contribution(2), new_bucket, np.ones(1), default)
>>> [(round(prior[QUALITY].intercept, 1), round(mass)) for prior, mass in pooled.priors]
[(0.3, 20), (0.7, 20)]
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

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

SPREADS = (0.2, 0.5, 1.0, 2.0)
"""What τ may be, in units of ``SPREAD_R``, all equally probable a priori."""
SPREAD_R = np.array([0.1, 0.5, 0.5, 0.5])
"""Unit of the standard deviation of a model's offset between buckets, by response: τ."""
OFFSET_SPREAD_R = np.array([0.2, 2.0, 1.0, 1.0])
"""Prior standard deviation of models' offsets, by response: ν."""
LEVEL_SPREAD_R = np.array([0.15, 2.0, 1.0, 1.0])
"""Standard deviation of buckets' levels around their mean, by response: ω."""
REFERENCE_R = np.array([0.5, math.log(1e-4), math.log(0.5), math.log(256.0)])
"""Prior mean of l, by response, from which values are measured in the sums."""
REFERENCE_SPREAD_R = np.array([0.3, 4.0, 4.0, 4.0])
"""Prior standard deviation of l, by response."""
MAX_PRIOR_MASS = 120.0
"""Most observations that a pooled prior is worth."""
NEW_MODEL_VARIANCE = 2.0
"""Factor of the variance in the prior of a model that is new everywhere."""
FOLLOWING, OTHERWISE = 9.0, 1.0
"""Beta prior of the share of buckets that follow the others."""
SLOPE_SPREAD = 1.4
"""Prior standard deviation of the slope of a bucket that does not follow: β."""
OWN_SPREAD = 0.05
"""Share of the variance between models that such a bucket adds to the variance of its deviations."""
UNLIKE = 0.1
"""Prior share, of the buckets that do not follow, of those that are like no other."""
HALF_WEIGHT = 2.0
"""Outcomes of a cell after which it counts half towards what is known of the share of buckets that follow."""
VALUE, COUNT = 0, 1
"""Rows of a contribution."""
_LITTLE = 1e-9
_LEAST_ERROR = 1e-6


@dataclass(slots=True)
class HierarchicalPrior:
    """Sums over all buckets' contributions, by response and spread (g): the normal equations of the offsets of ``models`` (m),
    ``precision_rgmm`` · offsets = ``eta_rgm``, the constant of the log likelihood ``evidence_rg``; and ``following_2r``, the
    weights of the buckets that follow, and of all. Changed in place.
    """

    models: list[str] = field(default_factory=list)
    precision_rgmm: Array = field(default_factory=lambda: np.zeros((RESPONSES, len(SPREADS), 0, 0)))
    eta_rgm: Array = field(default_factory=lambda: np.zeros((RESPONSES, len(SPREADS), 0)))
    evidence_rg: Array = field(default_factory=lambda: np.zeros((RESPONSES, len(SPREADS))))
    following_2r: Array = field(default_factory=lambda: np.zeros((2, RESPONSES)))


class Pooled(NamedTuple):
    """What the pool gives a bucket: for each of its models priors by response and their mass in observations; the contribution
    that it now makes, (2, 1+k, r); and whether any other bucket has observations.
    """

    priors: list[tuple[list[Prior], float]]
    contribution_2mr: Array
    others_know: bool


class _Equations(NamedTuple):
    """One contribution's part of the pool, over its own models (k)."""

    precision_rgkk: Array
    eta_rgk: Array
    evidence_rg: Array
    following_2r: Array


class _Elsewhere(NamedTuple):
    """What other buckets say under each spread: the mean and variance of levels (r, g), of the offsets, whose mean is taken out,
    (r, g, k) and (r, g, k, k), the log marginal likelihood; the share of buckets that follow, (r); whether they have
    observations, and whether any has two models' quality.
    """

    level_rg: Array
    level_variance_rg: Array
    offset_rgk: Array
    covariance_rgkk: Array
    log_evidence_rg: Array
    following_r: Array
    anything: bool
    offsets: bool


class _Belief(NamedTuple):
    """Mean and variance of cells without their own outcomes, (r, k), and the probability that the bucket follows, (r)."""

    mean_rk: Array
    variance_rk: Array
    share_r: Array


def zero_contribution(models: int) -> Array:
    """The contribution of a bucket of k models without observations, (2, 1+k, r): by response the mean and the number of each
    model's outcomes; before them the probability that the bucket follows the others, and the variance of its noise.
    """
    return np.zeros((2, 1 + models, RESPONSES))


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
    """Replace a bucket's contribution ``old`` by ``new``, each (2, 1+k, r), in place."""
    if not (old.any() or new.any()):
        return
    _add_models(pool, models)
    place_k = _places(pool, models)
    added, removed = _equations(new), _equations(old)
    pool.precision_rgmm[:, :, place_k[:, None], place_k] += added.precision_rgkk - removed.precision_rgkk
    pool.eta_rgm[:, :, place_k] += added.eta_rgk - removed.eta_rgk
    pool.evidence_rg += added.evidence_rg - removed.evidence_rg
    pool.following_2r += added.following_2r - removed.following_2r


def forget_models(pool: HierarchicalPrior, models: Iterable[str]) -> None:
    """Drop the offsets of ``models``, of which no bucket's contribution may still speak, in place."""
    dropped = set(models) & set(pool.models)
    if dropped:
        kept_m = np.array([m for m, model in enumerate(pool.models) if model not in dropped], dtype=np.intp)
        pool.models = [pool.models[m] for m in kept_m.tolist()]
        pool.precision_rgmm = pool.precision_rgmm[:, :, kept_m[:, None], kept_m]
        pool.eta_rgm = pool.eta_rgm[:, :, kept_m]


def pool_priors(
    pool: HierarchicalPrior,
    models: Sequence[str],
    contribution_2mr: Array,
    posteriors: Posteriors,
    x_d: Array,
    default: Sequence[Prior],
) -> Pooled:
    """Priors of a bucket's ``models`` from all other buckets and its own level, and what it now contributes. O(m³) in the number
    of models that buckets have.

    ``contribution_2mr`` is what the bucket itself has in ``pool``, ``posteriors`` are its own and ``x_d`` is its average
    context; ``default`` are the priors by response where no bucket has observations.
    """
    count_kr, value_kr = data_means(posteriors, x_d)
    noise_r = _common_noise(posteriors)
    elsewhere = _elsewhere(pool, models, contribution_2mr)
    belief = _believe(elsewhere, count_kr.T, value_kr.T, noise_r)
    mass_kr = np.clip(noise(posteriors) / belief.variance_rk.T, INTERCEPT_PRECISION, MAX_PRIOR_MASS)
    if not elsewhere.offsets:
        mass_kr[:] = INTERCEPT_PRECISION
    mean_kr = belief.mean_rk.T
    if not elsewhere.anything:  # the bucket's own level where it has one
        mean_kr = np.where(count_kr.any(axis=0), mean_kr, [prior.intercept for prior in default])
    intercept_kr = _of_one_mass(mean_kr, mass_kr, count_kr, value_kr)
    new_2mr = zero_contribution(len(models))
    new_2mr[:, 0] = np.where(count_kr.any(axis=0), [belief.share_r, noise_r], 0.0)
    new_2mr[:, 1:] = value_kr, count_kr
    return Pooled(
        [
            ([Prior(intercept, prior.b) for intercept, prior in zip(row, default, strict=True)], mass)
            for row, mass in zip(intercept_kr.tolist(), mass_kr[:, QUALITY].tolist(), strict=True)
        ],
        new_2mr,
        others_know=elsewhere.anything,
    )


def _elsewhere(pool: HierarchicalPrior, models: Sequence[str], contribution_2mr: Array) -> _Elsewhere:
    """What the buckets other than that of ``contribution_2mr`` say of ``models``."""
    own, k, m = _equations(contribution_2mr), len(models), len(pool.models)
    place_k = _places(pool, models)
    present_k = place_k >= 0
    here_k = place_k[present_k]
    precision_rgmm, eta_rgm = pool.precision_rgmm.copy(), pool.eta_rgm.copy()
    precision_rgmm[:, :, here_k[:, None], here_k] -= own.precision_rgkk[:, :, present_k][:, :, :, present_k]
    eta_rgm[:, :, here_k] -= own.eta_rgk[:, :, present_k]
    # the mean of levels comes first: its column is the sum of the others
    system_rgmm = np.zeros((RESPONSES, len(SPREADS), 1 + m, 1 + m))
    system_rgmm[:, :, 1:, 1:] = precision_rgmm
    system_rgmm[:, :, 0, 1:] = system_rgmm[:, :, 1:, 0] = precision_rgmm.sum(axis=3)
    system_rgmm[:, :, 0, 0] = precision_rgmm.sum(axis=(2, 3))
    ridge_rm = np.repeat(OFFSET_SPREAD_R[:, None] ** -2.0, 1 + m, axis=1)
    ridge_rm[:, 0] = REFERENCE_SPREAD_R**-2.0
    system_rgmm[:, :, range(1 + m), range(1 + m)] += ridge_rm[:, None]
    right_rgm = np.concatenate([eta_rgm.sum(axis=2, keepdims=True), eta_rgm], axis=2)
    covariance_rgmm = np.linalg.inv(system_rgmm)
    solution_rgm = np.einsum("rgij,rgj->rgi", covariance_rgmm, right_rgm)
    log_evidence_rg = pool.evidence_rg - own.evidence_rg
    log_evidence_rg += 0.5 * ((solution_rgm * right_rgm).sum(axis=2) - np.linalg.slogdet(system_rgmm)[1])
    # level + offset of each of the bucket's models, then the mean of these and what is left
    map_km = np.zeros((k, 1 + m))
    map_km[:, 0] = 1.0
    map_km[present_k, 1 + here_k] = 1.0
    sum_rgk = solution_rgm @ map_km.T
    sum_rgkk = map_km @ covariance_rgmm @ map_km.T
    known_rk = np.zeros((RESPONSES, k), dtype=np.bool_)
    weight_rm = np.einsum("rmm->rm", precision_rgmm[:, 0])
    known_rk[:, present_k] = weight_rm[:, here_k] > _LITTLE
    unknown_rk = np.where(known_rk, 0.0, NEW_MODEL_VARIANCE - present_k) * OFFSET_SPREAD_R[:, None] ** 2
    sum_rgkk[:, :, range(k), range(k)] += unknown_rk[:, None]
    centre_kk = np.eye(k) - 1.0 / max(k, 1)
    weight_r, all_r = np.maximum(pool.following_2r - own.following_2r, 0.0)
    return _Elsewhere(
        level_rg=sum_rgk.sum(axis=2) / max(k, 1) + REFERENCE_R[:, None],
        level_variance_rg=sum_rgkk.sum(axis=(2, 3)) / max(k, 1) ** 2,
        offset_rgk=sum_rgk @ centre_kk,
        covariance_rgkk=centre_kk @ sum_rgkk @ centre_kk * (k / max(k - 1, 1)),  # as much between two models as before
        log_evidence_rg=log_evidence_rg,
        following_r=(FOLLOWING + weight_r) / (FOLLOWING + OTHERWISE + all_r),
        anything=bool((weight_rm > _LITTLE).any()),
        offsets=bool(all_r[QUALITY] > _LITTLE),
    )


def _believe(elsewhere: _Elsewhere, count_rk: Array, value_rk: Array, noise_r: Array) -> _Belief:
    """What is believed of a bucket's cells without their own outcomes, given all its data: numbers of outcomes, and means."""
    spread_rg = _spread_rg()
    k = count_rk.shape[1]
    offset_rgk = elsewhere.offset_rgk
    between_rg = (offset_rgk**2).sum(axis=2) / max(k, 1)
    # the kinds of buckets, h: it follows, has a slope of its own, is like no other
    nothing_rgk = np.zeros_like(offset_rgk)
    slope_rgkk = SLOPE_SPREAD**2 * offset_rgk[..., :, None] * offset_rgk[..., None, :]
    covariance_rghkk = np.stack([elsewhere.covariance_rgkk, slope_rgkk, np.zeros_like(slope_rgkk)], axis=2)
    own_rgh = np.stack([0.0 * between_rg, OWN_SPREAD * between_rg, spread_rg[:, -1:] ** 2 + between_rg], axis=2)
    covariance_rghkk[..., range(k), range(k)] += (own_rgh + spread_rg[:, :, None] ** 2)[..., None]
    mean_rghk = elsewhere.level_rg[:, :, None, None] + np.stack([offset_rgk, nothing_rgk, nothing_rgk], axis=2)
    error_rk = np.maximum(noise_r[:, None] / np.maximum(count_rk, _LITTLE), _LEAST_ERROR)
    weight_rk = np.where(count_rk > 0.0, 1.0 / error_rk, 0.0)
    weight_r11k = weight_rk[:, None, None]
    residual_rghk = value_rk[:, None, None] - mean_rghk
    level_variance_rgh = (LEVEL_SPREAD_R[:, None] ** 2 + elsewhere.level_variance_rg)[:, :, None]
    _, shift_rghk, log_likelihood_rgh = _condition(
        covariance_rghkk + level_variance_rgh[..., None, None], weight_rk, residual_rghk
    )
    level_rgh = level_variance_rgh * (weight_r11k * (residual_rghk - shift_rghk)).sum(axis=3)
    mean_rghk += level_rgh[..., None]
    variance_rghk, shift_rghk, _ = _condition(covariance_rghkk, weight_rk, value_rk[:, None, None] - mean_rghk)
    # the Normal that, times the likelihood of a cell's own outcomes, is its posterior
    precision_rghk = np.maximum(1.0 / variance_rghk - weight_r11k, _LITTLE)
    mean_rghk = ((mean_rghk + shift_rghk) / variance_rghk - weight_r11k * value_rk[:, None, None]) / precision_rghk
    log_rgh = elsewhere.log_evidence_rg[:, :, None] + log_likelihood_rgh
    other_r = 1.0 - elsewhere.following_r
    log_rgh += np.log([elsewhere.following_r, (1.0 - UNLIKE) * other_r, UNLIKE * other_r]).T[:, None]
    weight_rgh = np.exp(log_rgh - log_rgh.max(axis=(1, 2), keepdims=True))
    weight_rgh /= weight_rgh.sum(axis=(1, 2), keepdims=True)
    mean_rk = np.einsum("rgh,rghk->rk", weight_rgh, mean_rghk)
    spread_rghk = 1.0 / precision_rghk + (mean_rghk - mean_rk[:, None, None]) ** 2
    return _Belief(mean_rk, np.einsum("rgh,rghk->rk", weight_rgh, spread_rghk), weight_rgh[:, :, 0].sum(axis=1))


def _condition(covariance_rghkk: Array, weight_rk: Array, residual_rghk: Array) -> tuple[Array, Array, Array]:
    """Variances and shifts of Normals of mean 0 given ``residual_rghk``, observed with precisions ``weight_rk`` (0: not at all),
    and the log likelihood of that, up to what all share.
    """
    seen_o = np.flatnonzero(weight_rk.any(axis=0))
    cross_rghok = covariance_rghkk[..., seen_o, :]
    weight_r11o = weight_rk[:, None, None, seen_o]
    gain_rghoo = np.eye(len(seen_o)) + cross_rghok[..., seen_o] * weight_r11o[..., None, :]
    posterior_rghok = np.linalg.solve(gain_rghoo, cross_rghok)
    residual_rgho = residual_rghk[..., seen_o]
    shift_rghk = np.einsum("rghok,rgho->rghk", posterior_rghok, weight_r11o * residual_rgho)
    misfit_rgh = (weight_r11o * residual_rgho * (residual_rgho - shift_rghk[..., seen_o])).sum(axis=3)
    explained_rghk = (cross_rghok * weight_r11o[..., None] * posterior_rghok).sum(axis=3)
    log_likelihood_rgh = -0.5 * (np.linalg.slogdet(gain_rghoo)[1] + misfit_rgh)
    return np.einsum("rghkk->rghk", covariance_rghkk) - explained_rghk, shift_rghk, log_likelihood_rgh


def _of_one_mass(mean_kr: Array, mass_kr: Array, count_kr: Array, value_kr: Array) -> Array:
    """Prior intercepts (k, r) that, with the mass of quality, give the posterior means of priors at ``mean_kr`` with masses of
    their own: (κm′ + nȳ)/(κ + n) = (κ_r m + nȳ)/(κ_r + n), κ_r <= κ.
    """
    mass_k1 = mass_kr[:, QUALITY : QUALITY + 1]
    less_kr = np.minimum(mass_kr, mass_k1)
    pull_kr = (mass_k1 + count_kr) / mass_k1 * less_kr / (less_kr + count_kr)
    return np.where(count_kr > 0.0, value_kr + pull_kr * (mean_kr - value_kr), mean_kr)


def _equations(contribution_2mr: Array) -> _Equations:
    """What a contribution adds to the pool: under each spread the quadratic of its log likelihood in the offsets."""
    value_rk, count_rk = contribution_2mr[:, 1:].transpose(0, 2, 1)
    share_r, noise_r = contribution_2mr[:, 0]
    has_rk = count_rk > 0.0
    error_rk = np.maximum(noise_r[:, None] / np.maximum(count_rk, _LITTLE), _LEAST_ERROR)
    weight_rgk = np.where(has_rk[:, None], 1.0 / (_spread_rg()[:, :, None] ** 2 + error_rk[:, None]), 0.0)
    level_precision_r1 = LEVEL_SPREAD_R[:, None] ** -2.0
    total_rg = weight_rgk.sum(axis=2) + level_precision_r1
    precision_rgkk = -weight_rgk[..., :, None] * (weight_rgk / total_rg[..., None])[..., None, :]
    diagonal = range(weight_rgk.shape[2])
    precision_rgkk[..., diagonal, diagonal] += weight_rgk
    residual_rk = np.where(has_rk, value_rk - REFERENCE_R[:, None], 0.0)
    eta_rgk = np.einsum("rgij,rj->rgi", precision_rgkk, residual_rk)
    log_variance_rg = -np.log(np.where(has_rk[:, None], weight_rgk, 1.0)).sum(axis=2)
    log_variance_rg += np.log(total_rg / level_precision_r1)
    evidence_rg = -0.5 * ((eta_rgk * residual_rk[:, None]).sum(axis=2) + log_variance_rg)
    half_rk = count_rk / (count_rk + HALF_WEIGHT)
    half_r = half_rk.sum(axis=1)
    pairs_r = half_r - (half_rk**2).sum(axis=1) / np.maximum(half_r, _LITTLE)
    known_r = pairs_r / (pairs_r + 1.0)
    share_r1 = share_r[:, None]
    return _Equations(
        share_r1[..., None, None] * precision_rgkk,
        share_r1[..., None] * eta_rgk,
        share_r1 * evidence_rg,
        np.array([share_r * known_r, known_r]),
    )


def _spread_rg() -> Array:
    """What τ may be, by response."""
    return np.outer(SPREAD_R, SPREADS)


def _places(pool: HierarchicalPrior, models: Sequence[str]) -> npt.NDArray[np.intp]:
    """Where the models are in the pool, -1 for those that are not."""
    place = {model: m for m, model in enumerate(pool.models)}
    return np.array([place.get(model, -1) for model in models], dtype=np.intp)


def _add_models(pool: HierarchicalPrior, models: Sequence[str]) -> None:
    new = [model for model in models if model not in pool.models]
    if new:
        pool.models += new
        pool.precision_rgmm = np.pad(pool.precision_rgmm, ((0, 0), (0, 0), (0, len(new)), (0, len(new))))
        pool.eta_rgm = np.pad(pool.eta_rgm, ((0, 0), (0, 0), (0, len(new))))


def _common_noise(posteriors: Posteriors) -> Array:
    """Expected noise variance (r) if it were the same for all models: a cell of few outcomes has mostly its prior's."""
    b_r = posteriors.prior_kr2[0, :, 1] + (posteriors.b_kr - posteriors.prior_kr2[:, :, 1]).sum(axis=0)
    a_r = PRIOR_A + (posteriors.a_kr - PRIOR_A).sum(axis=0)
    return np.asarray(b_r / (a_r - 1.0))
