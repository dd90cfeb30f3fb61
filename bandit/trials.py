"""Which candidates of a bucket take full part only in a share of the draws: their calls wait to be judged.

There are two reasons. A *newcomer* joined a bucket that knows other models: it has ``FREE_CALLS``, and while as many wait that
should have been judged at the rate of the others, it takes part in ``QUOTA`` of the draws, twice as many for every two
outcomes. And a model whose calls are *not judged*, while those of others are (``bandit.feedback``), whenever it came. Where
feedback is missing for all alike nobody is held back.

>>> from pointsman.bandit.bucket import add_columns, new_bucket
>>> from pointsman.bandit.catalog import Bucket
>>> bucket = new_bucket(Bucket("summarize"), version=1, generation=1)
>>> add_columns(bucket, ["small", "large"], position=1)
>>> quotas(bucket).tolist()
[1.0, 1.0]
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pointsman.bandit.bucket import BucketState
from pointsman.bandit.feedback import FREE, UNJUDGED, half_octaves, participation
from pointsman.bandit.outcome import Signal
from pointsman.bandit.packed import Array

ESTABLISHED = 20
"""Judged outcomes that a bucket must have for a model added to it to be a newcomer."""
ADOPTED = 9
"""Judged outcomes of its own after which a model is no newcomer any more."""
FREE_CALLS = 10
"""Calls of a newcomer that may wait, of those that would be judged at the others' rate, before its share is bounded."""
QUOTA = 2.0**-4.5
"""Share of the draws in which a newcomer takes part while nothing is known of it: 0.044, and 1 after ``ADOPTED`` outcomes."""
QUOTA_DOUBLES = 2.0
"""Judged outcomes after which that share has doubled."""
LEAST_RATE = 0.05
"""Least share of judged calls that is reckoned with: a newcomer in a bucket without feedback has 200 free calls."""


def quotas(bucket: BucketState) -> Array:
    """The share of the draws in which each column's model (k) takes full part, in (0, 1]."""
    unjudged_k = bucket.feedback.sums_6k[UNJUDGED]
    if unjudged_k.max(initial=0.0) <= FREE and bucket.judged_before_k.max(initial=0) < ESTABLISHED:
        return np.ones(len(unjudged_k))
    quota_k = participation(bucket.feedback)
    new_k = newcomers(bucket)
    known_k = ~new_k if bucket.members is None else np.isin(np.arange(len(new_k)), bucket.members) & ~new_k
    if known_k.any():  # where the judges of all models stopped nobody is held back
        quota_k = np.minimum(quota_k / quota_k[known_k].max(), 1.0)
    if new_k.any():
        judged_k = bucket.count_sk[Signal.QUALITY]
        calls = int(bucket.decisions_k[~new_k].sum())
        rate = min(max(float(judged_k[~new_k].sum()) / max(calls, 1), LEAST_RATE), 1.0)
        waits_k = new_k & ((bucket.decisions_k - judged_k) * rate >= FREE_CALLS)
        share_k = half_octaves(np.minimum(QUOTA * 2.0 ** (judged_k / QUOTA_DOUBLES), 1.0))
        quota_k = np.where(waits_k, np.minimum(quota_k, share_k), quota_k)
    return quota_k


def newcomers(bucket: BucketState) -> npt.NDArray[np.bool_]:
    """Which columns' models (k) joined a bucket that knew others, and have few judged outcomes of their own."""
    return np.asarray((bucket.judged_before_k >= ESTABLISHED) & (bucket.count_sk[Signal.QUALITY] < ADOPTED))


def feedback_is_missing(bucket: BucketState) -> npt.NDArray[np.bool_]:
    """Which columns' models (k) have calls that should have been judged by now, if they were judged as the others' are."""
    return np.asarray(bucket.feedback.sums_6k[UNJUDGED] > FREE_CALLS)
