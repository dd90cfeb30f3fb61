"""Hierarchical priors: a model with few observations in a bucket starts from its posteriors in other buckets.

A response's expectation in a bucket is split in two: the bucket's level (how hard, long or dear its tasks are) and each model's
offset from that level. Offsets carry over from task to task, levels much less. So the prior mean of a cell is

    level of the bucket + offset of the model, averaged over the other buckets,

worth σ²/τ² observations, with τ² the variance of a model's offset between buckets, estimated by moments (two-level Normal
model: Gelman et al., Bayesian Data Analysis, 5.4; for bandits Hong et al., "Hierarchical Bayesian Bandits", AISTATS 2022), and
never more than ``MAX_PRIOR_MASS``: a handful of real outcomes outweighs it. One mass serves all responses of a model, the least
of theirs. A model that is new everywhere has the population's mean offset, 0, and its spread.

Levels and offsets are predictions at a bucket's average context, not averages of outcomes: those would hold it against a model
that it is given the hard prompts. After n outcomes a bucket's contribution has the weight n / (n + ``HALF_WEIGHT``): one outcome
of a dear model in one bucket spares all others theirs.

>>> from pointsman.bandit.posterior import add_models, empty
>>> from pointsman.bandit.updates import observe_all
>>> default = [Prior(0.5, b=0.5)] * RESPONSES
>>> elsewhere = add_models(empty(dim=1), 2, default)
>>> for _ in range(20):
...     for model, quality in enumerate((0.4, 0.8)):
...         _ = observe_all(elsewhere, model, np.ones(1), [(QUALITY, quality)])
>>> pool = HierarchicalPrior()
>>> replace_contribution(pool, ["small", "large"], zero_contribution(2), contribution(elsewhere, np.ones(1)))
>>> new_bucket = add_models(empty(dim=1), 2, default)
>>> priors = pooled_priors(pool, ["small", "large"], zero_contribution(2), new_bucket, np.ones(1), default)
>>> [(round(prior[QUALITY].intercept, 2), round(mass, 2)) for prior, mass in priors]
[(0.4, 3.0), (0.8, 3.0)]"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from pointsman.bandit.packed import Array
from pointsman.bandit.posterior import (
    INTERCEPT_PRECISION,
    PRIOR_A,
    QUALITY,
    RESPONSES,
    Posteriors,
    Prior,
    noise,
    observation_counts,
)

HALF_WEIGHT = 2.0
"""Outcomes of a cell after which its contribution has half of its largest weight."""
MAX_PRIOR_MASS = 3.0
"""Most observations that a pooled prior is worth: little enough that a bucket in which a model is the opposite of what it is
elsewhere finds out."""
SPREAD_R = np.array([0.1, 0.5, 0.5, 0.5])
"""Prior standard deviation of a model's offset between buckets, by response."""
SPREAD_MASS = 4.0
"""Weight of that prior, in pairs of buckets."""
NEW_MODEL_VARIANCE = 2.0
"""Factor of the population's variance in the prior of a model that is new everywhere."""
VALUE, WEIGHT, ERROR = 0, 1, 2
"""Rows of a contribution."""
MOMENTS = 4
"""Sums kept: of weights, weighted values, weighted squares, weighted sampling variances."""


@dataclass(slots=True)
class HierarchicalPrior:
    """Sums over all buckets' contributions, by response: of weights, and of weighted values, squares and sampling variances.

    ``level_4r`` sums the buckets' levels, ``offset_4r`` each model's offsets, by model. Changed in place.
    """

    level_4r: Array = field(default_factory=lambda: np.zeros((MOMENTS, RESPONSES)))
    offset_4r: dict[str, Array] = field(default_factory=dict)


def zero_contribution(models: int) -> Array:
    """The contribution of a bucket of k models without observations, (3, 1+k, r): value, weight and sampling variance of its
    level and then of its models' offsets, by response.
    """
    return np.zeros((3, 1 + models, RESPONSES))


def contribution(posteriors: Posteriors, x_d: Array) -> Array:
    """A bucket's contribution to the pooled prior, (3, 1+k, r) as in ``zero_contribution``; ``x_d`` is its average context."""
    count_kr = observation_counts(posteriors)
    weight_kr = count_kr / (count_kr + HALF_WEIGHT)
    total_r = weight_kr.sum(axis=0)
    value_kr = posteriors.mean_krd @ x_d
    level_r = (weight_kr * value_kr).sum(axis=0) / np.maximum(total_r, 1e-300)
    several_r = (count_kr > 0).sum(axis=0) > 1  # one model alone has no offset
    contribution_3mr = zero_contribution(posteriors.models)
    contribution_3mr[VALUE, 0], contribution_3mr[WEIGHT, 0] = level_r, total_r / (total_r + 1.0)
    contribution_3mr[VALUE, 1:], contribution_3mr[WEIGHT, 1:] = value_kr - level_r, weight_kr * several_r
    contribution_3mr[ERROR, 1:] = _common_noise(posteriors) / np.maximum(count_kr, 1)
    return contribution_3mr


def _common_noise(posteriors: Posteriors) -> Array:
    """Expected noise variance (r) if it were the same for all models: a cell of few outcomes has mostly its prior's."""
    b_r = posteriors.prior_kr2[0, :, 1] + (posteriors.b_kr - posteriors.prior_kr2[:, :, 1]).sum(axis=0)
    a_r = PRIOR_A + (posteriors.a_kr - PRIOR_A).sum(axis=0)
    return np.asarray(b_r / (a_r - 1.0))


def replace_contribution(pool: HierarchicalPrior, models: Sequence[str], old: Array, new: Array) -> None:
    """Replace a bucket's contribution ``old`` by ``new``, each (3, 1+k, r), in place."""
    value, weight, error = new
    moments = np.array([weight, weight * value, weight * value**2, weight * error])
    value, weight, error = old
    moments -= np.array([weight, weight * value, weight * value**2, weight * error])
    pool.level_4r += moments[:, 0]
    for k, model in enumerate(models, start=1):
        if new[WEIGHT, k].any() or old[WEIGHT, k].any():
            moments_4r = pool.offset_4r.setdefault(model, np.zeros((MOMENTS, RESPONSES)))
            moments_4r += moments[:, k]


def pooled_priors(
    pool: HierarchicalPrior,
    models: Sequence[str],
    contribution_3mr: Array,
    posteriors: Posteriors,
    x_d: Array,
    default: Sequence[Prior],
) -> list[tuple[list[Prior], float]]:
    """For each of the bucket's ``models``, priors by response and their mass in observations, from all other buckets and the
    bucket's own level.

    ``contribution_3mr`` is what the bucket itself contributes to ``pool``, ``posteriors`` are its own and ``x_d`` is its average
    context; ``default`` are the priors by response where no bucket has observations.
    """
    others = HierarchicalPrior(
        pool.level_4r.copy(), {model: offset_4r.copy() for model, offset_4r in pool.offset_4r.items()}
    )
    replace_contribution(others, models, contribution_3mr, zero_contribution(len(models)))
    offset_k4r = np.array([others.offset_4r.get(model, np.zeros((MOMENTS, RESPONSES))) for model in models])
    mean_kr = offset_k4r[:, 1] / np.maximum(offset_k4r[:, 0], 1e-9)
    elsewhere_r = np.maximum(others.level_4r[0], 0.0)
    default_r = np.array([prior.intercept for prior in default])
    level_r = np.where(elsewhere_r > 1e-9, others.level_4r[1] / np.maximum(elsewhere_r, 1e-9), default_r)
    count_kr = observation_counts(posteriors)
    weight_kr = count_kr / (count_kr + HALF_WEIGHT)
    here_r = weight_kr.sum(axis=0)
    own_r = (weight_kr * (posteriors.mean_krd @ x_d - mean_kr)).sum(axis=0)
    level_r = np.where(here_r > 0.0, own_r / np.maximum(here_r, 1e-9), level_r)
    mass_k = (noise(posteriors) / _variances(others, offset_k4r[:, 0])).min(axis=1)
    return [
        (
            [Prior(float(level_r[r] + mean_kr[k, r]), default[r].b) for r in range(RESPONSES)],
            float(min(MAX_PRIOR_MASS, max(INTERCEPT_PRECISION, mass_k[k]))),
        )
        for k in range(len(models))
    ]


def forget_models(pool: HierarchicalPrior, models: Iterable[str]) -> None:
    """Drop the offsets of ``models``, in place."""
    for model in models:
        pool.offset_4r.pop(model, None)


def _variances(pool: HierarchicalPrior, weight_kr: Array) -> Array:
    """Variance of each model's offset in one more bucket, (k, r); tiny for a response without observations anywhere."""
    offset_m4r = np.array(list(pool.offset_4r.values())).reshape(-1, MOMENTS, RESPONSES)
    weight_mr, total_mr, square_mr, error_mr = np.maximum(offset_m4r[:, 0], 0.0), *(offset_m4r[:, i] for i in (1, 2, 3))
    mean2_mr = total_mr**2 / np.maximum(weight_mr, 1e-9)
    weight_r = weight_mr.sum(axis=0)
    between_r = np.maximum(square_mr - mean2_mr - error_mr, 0.0).sum(axis=0) + SPREAD_MASS * SPREAD_R**2
    tau2_r = between_r / (np.maximum(weight_mr - 1.0, 0.0).sum(axis=0) + SPREAD_MASS)
    among_r = np.maximum(mean2_mr.sum(axis=0) - error_mr.sum(axis=0), 0.0) / np.maximum(weight_r, 1e-9)
    variance_kr = np.where(
        weight_kr > 1e-9, tau2_r * (1.0 + 1.0 / np.maximum(weight_kr, 1e-9)), NEW_MODEL_VARIANCE * (among_r + tau2_r)
    )
    if weight_r[QUALITY] <= 1e-9:
        return np.full_like(variance_kr, np.inf)
    return np.where(weight_r > 1e-9, variance_kr, 1e-9)
