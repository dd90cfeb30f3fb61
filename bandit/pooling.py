"""When buckets and the pool tell each other what they know (``bandit.hierarchical_prior`` says what).

A bucket's contribution and its priors are renewed as its decisions are folded: each up to 16, then ever more rarely. Priors only
of models with few outcomes there. Between two decisions of a bucket others go on, so a young bucket decides with the priors that
it would be given now; that is computed from the state and changes nothing in it.

>>> from pointsman.bandit.bucket import add_columns, new_bucket
>>> from pointsman.bandit.catalog import Bucket
>>> bucket = new_bucket(Bucket("summarize"), version=1, generation=1)
>>> add_columns(bucket, ["large", "small"], position=1)
>>> present_priors(HierarchicalPrior(), bucket) is bucket  # nobody knows anything
True
>>> [decisions for decisions in range(1, 100) if is_due(decisions)][14:]
[15, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64, 80, 96]
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from pointsman.bandit.bucket import AGING, AGING_FROM, BucketState, default_priors
from pointsman.bandit.catalog import Priors
from pointsman.bandit.hierarchical_prior import (
    HierarchicalPrior,
    Pooled,
    pool_priors,
    replace_contribution,
    zero_contribution,
)
from pointsman.bandit.posterior import (
    INTERCEPT_PRECISION,
    QUALITY,
    Posteriors,
    observation_counts,
    set_prior,
    weaken_prior,
)

RENEW_UNTIL = ((16, 1), (64, 4), (256, 16))
"""Up to how many decisions of a bucket its priors and its contribution to the pool are renewed every so many decisions."""
RENEW_EVERY = 64
"""Decisions of a bucket between two such renewals from then on."""
YOUNG = 32
"""Outcomes of a cell after which its prior is not pooled any more."""
MAX_GROWN_MASS = 30.0
"""Most observations that the prior of such a cell is worth from then on: its own outcomes must be able to part with it."""
YOUNG_BUCKET = 16
"""Decisions of a bucket up to which it decides with the priors that it would be given now."""


def is_due(decisions: int) -> bool:
    """Whether priors and contribution are renewed with a bucket's decision number ``decisions``, from 1 on."""
    return decisions % next((every for most, every in RENEW_UNTIL if decisions <= most), RENEW_EVERY) == 0


def renew_priors(pool: HierarchicalPrior, bucket: BucketState) -> None:
    """Renew what a bucket contributes, and the priors of its models that have few outcomes there, in place."""
    young = _young_models(bucket)
    exchange(pool, bucket, young, share=_aged_share(bucket))
    for model in range(bucket.posteriors.models):
        if model not in young:
            weaken_prior(bucket.posteriors, model, MAX_GROWN_MASS)


def _aged_share(bucket: BucketState) -> float:
    """What is left of a prior at the bucket's age: priors age as what is known of hardly chosen models does
    (``bandit.bucket.age_hardly_chosen``), or a model that got better in one bucket would not be tried there again.
    """
    decisions = int(bucket.decisions_k.sum())
    forgets = bool(bucket.config.half_life or bucket.config.half_life_ns)
    return (AGING_FROM / decisions) ** AGING if forgets and decisions > AGING_FROM else 1.0


def exchange(
    pool: HierarchicalPrior,
    bucket: BucketState,
    models: Sequence[int],
    anybody_knows: bool = False,
    share: float = 1.0,
) -> None:
    """Renew what a bucket contributes to the pool, and put the pooled priors under the columns number ``models``, in place.

    No priors are put where nothing is known: neither in other buckets nor, as ``anybody_knows`` says, in this one. Nor in a
    bucket whose operator configured some. ``share`` of their mass is put.
    """
    pooled = _pooled(pool, bucket)
    replace_contribution(pool, bucket.columns, bucket.contribution_2mr, pooled.contribution_2mr)
    bucket.contribution_2mr = pooled.contribution_2mr
    if _takes_priors(bucket) and (pooled.others_know or anybody_knows):
        _put(bucket.posteriors, models, pooled, share)


def present_priors(pool: HierarchicalPrior, bucket: BucketState) -> BucketState:
    """``bucket`` with the priors that it would be given now, if it is young; changes nothing. O(m³ + k·d²)."""
    if not pool.models or not _takes_priors(bucket) or int(bucket.decisions_k.sum()) >= YOUNG_BUCKET:
        return bucket
    pooled = _pooled(pool, bucket)
    if not pooled.others_know:
        return bucket
    posteriors = copy.deepcopy(bucket.posteriors)
    _put(posteriors, _young_models(bucket), pooled, 1.0)
    return replace(bucket, posteriors=posteriors)


def rebuild(buckets: Iterable[BucketState]) -> HierarchicalPrior:
    """A pool made anew from what ``buckets`` have learned; their contributions are renewed in place."""
    pool = HierarchicalPrior()
    for bucket in buckets:
        bucket.contribution_2mr = zero_contribution(len(bucket.columns))
        exchange(pool, bucket, ())
    return pool


def _pooled(pool: HierarchicalPrior, bucket: BucketState) -> Pooled:
    default = default_priors(bucket.config)
    return pool_priors(pool, bucket.columns, bucket.contribution_2mr, bucket.posteriors, bucket.context_d, default)


def _takes_priors(bucket: BucketState) -> bool:
    return bucket.config.priors == Priors()


def _young_models(bucket: BucketState) -> list[int]:
    """Models with few outcomes in a bucket, whose quality has not changed there."""
    young_k = observation_counts(bucket.posteriors)[:, QUALITY] < YOUNG
    return [int(k) for k in np.flatnonzero(young_k & (bucket.changed_at_k == 0))]


def _put(posteriors: Posteriors, models: Sequence[int], pooled: Pooled, share: float) -> None:
    for model in models:
        priors, mass = pooled.priors[model]
        set_prior(posteriors, model, priors, max(INTERCEPT_PRECISION, share * mass))
