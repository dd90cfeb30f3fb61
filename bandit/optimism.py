"""What a model may be at best, as long as little is known of it: confidence bounds, by which limits exclude.

A model that a limit excludes by what is expected of it is never called again, and nothing corrects an expectation that a few
unlucky outcomes have spoilt (or a prior, if it was never called). So a limit excludes a model that breaks it even at best:

    cost, latency, p95: E·exp(-Z·sd),   sd² = v·xᵀΣx          quality: E + Z·sd

with v the relative variance of the amounts, or of p95 that of the logarithm of latency, besides which as many more latencies may
exceed it as chance can make (``bandit.amounts``). Bounds close in on the expectation as one over the square root of the outcomes,
so a limit is broken by so much and so long at most. They hold for a bounded number of calls whose outcome is not known yet,
``FREE_CALLS`` and as many for each known one: beyond, and for models of which nothing is ever reported, the expectation counts.

Costs made from list prices are uncertain in their output tokens only, once some were reported.

>>> from pointsman.bandit.bucket import add_columns, new_bucket
>>> from pointsman.bandit.catalog import Bucket
>>> from pointsman.bandit.predictions import regress
>>> bucket = new_bucket(Bucket("summarize"), version=1, generation=1)
>>> add_columns(bucket, ["small"], position=1)
>>> predicted, quadratic_3bk = regress(bucket.posteriors, np.ones((1, 1)))
>>> possible = at_best(bucket, predicted, np.array(quadratic_3bk))
>>> predicted.latency_k.round(2).tolist(), possible.latency_k.round(4).tolist()  # seconds, of a model that was never called
([[0.57]], [[0.0006]])
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pointsman.bandit.amounts import COST, LATENCY, QUALITY, TOKENS
from pointsman.bandit.bucket import BucketState
from pointsman.bandit.packed import Array
from pointsman.bandit.posterior import NONE, lower_p95, observation_counts
from pointsman.bandit.predictions import Predictions

Z = 1.8
"""Standard deviations between an expectation and the bound."""
UNTRIED_SD = 0.25
"""Standard deviation of expected quality, scaled to [0, 1], that is reckoned with at most of a model that was never judged."""
FEW = 4.0
"""Judged outcomes at which the variance of expected quality counts twice: three wrong answers prove little."""
LEAST_FACTORS = 1.0 / 16.0, 1e-3
"""Least shares of an expectation that an amount may be at best, once some were reported and before: what trying a model can
cost."""
LEAST_CHARGE = 0.2
"""Least share of a model's expected cost that budgets charge: a model that is five times as dear as the cheapest is not tried."""
FREE_CALLS = 16
"""Calls whose outcome is not known yet for which bounds hold, and as many more for each outcome."""


def at_best(bucket: BucketState, predicted: Predictions, quadratic_3bk: Array, *, with_p95: bool = True) -> Predictions:
    """``predicted``, what is expected of a bucket's candidates at b contexts, (b, k), as good as each of its numbers may be.

    ``quadratic_3bk`` are xᵀΣx of cost, latency and tokens (``bandit.predictions.regress``). ``with_p95`` false leaves the
    percentile of latency as it is expected.
    """
    amounts, known_kr = bucket.posteriors.amounts, observation_counts(bucket.posteriors)
    variance_4k = np.stack(
        (
            amounts.variance_kr[:, COST],
            amounts.variance_kr[:, LATENCY],
            amounts.variance_kr[:, TOKENS] * (known_kr[:, TOKENS] > 0),
            amounts.log_variance_k,
        )
    )
    known_5k = known_kr.T[[COST, LATENCY, TOKENS, LATENCY, QUALITY]]
    free_5k = FREE_CALLS * (1 + known_5k) - np.maximum(bucket.decisions_k - known_5k, 0)
    if bucket.members is not None:
        variance_4k = variance_4k[:, bucket.members]
        known_5k, free_5k = known_5k[:, bucket.members], free_5k[:, bucket.members]
    # of a batch no more requests may count on it than calls are left
    z_5bk = np.where(np.arange(quadratic_3bk.shape[1])[:, None] < free_5k[:, None], Z, 0.0)
    log_4bk = -z_5bk[:-1] * np.sqrt(variance_4k[:, None] * quadratic_3bk[[0, 1, 2, 1]])
    if with_p95:
        log_4bk[3] += np.where(z_5bk[3] > 0.0, _p95_change(bucket, quadratic_3bk[1]), 0.0)
    factor_4bk = np.maximum(np.exp(log_4bk), np.where(known_5k[:-1, None] > 0, *LEAST_FACTORS))
    few_k, sd_bk = known_5k[-1], predicted.quality_sd_k
    sd_bk = np.where(few_k > 0, sd_bk * np.sqrt(1.0 + FEW / np.maximum(few_k, 1)), np.minimum(sd_bk, UNTRIED_SD))
    return replace(
        predicted,
        quality_k=predicted.quality_k + z_5bk[-1] * sd_bk,
        cost_k=predicted.cost_k * factor_4bk[0],
        latency_k=predicted.latency_k * factor_4bk[1],
        tokens_k=predicted.tokens_k * factor_4bk[2],
        latency_p95_k=predicted.latency_p95_k * factor_4bk[3],
    )


def level_variances(bucket: BucketState, requests: int) -> Array:
    """``quadratic_3bk`` of the candidates' levels alone, as if all contexts were alike, and 0 where nothing was reported: for
    budgets, which compare models in sum, and where a first call may cost hundreds of requests' worth.
    """
    posteriors = bucket.posteriors
    variance_3k = np.zeros((3, posteriors.models))
    for place, response in enumerate((COST, LATENCY, TOKENS)):
        number = int(posteriors.design_r[response])
        if number != NONE:
            design = posteriors.designs[number]
            variance_3k[place] = (design.count_k > 0) / design.precision_kp[:, -1]
    if bucket.members is not None:
        variance_3k = variance_3k[:, bucket.members]
    return np.broadcast_to(variance_3k[:, None], (3, requests, variance_3k.shape[1]))


def _p95_change(bucket: BucketState, quadratic_bk: Array) -> Array:
    """By how much the logarithm of the 95th percentile changes, (b, k), where as many more latencies may exceed it as chance can
    make; ``quadratic_bk`` is xᵀΣx of latency.
    """
    change_k2 = lower_p95(bucket.posteriors, Z) - bucket.posteriors.amounts.p95_k2
    if bucket.members is not None:
        change_k2 = change_k2[bucket.members]
    return np.asarray(change_k2[:, 0] + change_k2[:, 1] * np.sqrt(1.0 + quadratic_bk))
