"""Insight into a bucket's features: what requests have brought beside what the schema declares, and a warning where they differ.

>>> from pointsman.bandit.bucket import new_bucket
>>> from pointsman.bandit.catalog import Bucket, NumberFeature, Schema
>>> from pointsman.bandit.feature_scales import count_context, fit
>>> bucket = new_bucket(Bucket("b", schema=Schema(numbers=(NumberFeature("size", scale=1000.0),))), 1, 1)
>>> for i in range(100):
...     count_context(bucket.scales, np.array([1e-3 * i]))
>>> fit(bucket.scales)
>>> (insight,) = write_feature_insights(bucket)
>>> insight.mean, insight.rescaled
(49.5, True)
>>> insight.warning
'the declared center 0 and scale 1000 do not suit values of 49.5 ± 28.9: they are ranked instead; declare center 49.5, scale 28.9'
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pointsman.bandit.bucket import BucketState
from pointsman.bandit.catalog import CategoryFeature, EmbeddingFeature, NumberFeature
from pointsman.bandit.feature_scales import CLIP, present, suits
from pointsman.bandit.packed import Array
from pointsman.v1 import insight_service_pb2 as rpc

WARN_FROM = 32
"""Requests with a feature, or of the bucket, from which on there is a warning."""
MOSTLY = 0.5
"""Share of requests without a feature, or without a declared value of it, from which on there is a warning."""


def write_feature_insights(bucket: BucketState) -> list[rpc.FeatureInsight]:
    """Insight into each declared number, category and embedding, in the schema's order."""
    return [*_numbers(bucket), *_categories(bucket), *_embeddings(bucket)]


def _numbers(bucket: BucketState) -> Iterator[rpc.FeatureInsight]:
    for m, number in enumerate(bucket.config.schema.numbers):
        scaled = present(bucket.scales, m)
        rescaled = bucket.encoder.version > 1 and bool(bucket.scales.ranked_m[m])
        insight = _measured(bucket, number.name, scaled, number.center + number.scale * scaled)
        insight.rescaled = rescaled
        insight.warning = _join(_number_warning(number, insight, scaled), _missing_warning(insight))
        yield insight


def _number_warning(number: NumberFeature, insight: rpc.FeatureInsight, scaled: Array) -> str:
    if len(scaled) < WARN_FROM:
        return ""
    if insight.sd == 0.0:
        return f"always {insight.mean:.3g}: it tells nothing"
    if suits(scaled):
        return ""
    declared = f"the declared center {number.center:g} and scale {number.scale:g} do not suit"
    values = f"values of {insight.mean:.3g} ± {insight.sd:.3g}"
    remedy = f"declare center {insight.mean:.3g}, scale {insight.sd:.3g}"
    return f"{declared} {values}: they {'are ranked instead' if insight.rescaled else 'hardly count'}; {remedy}"


def _embeddings(bucket: BucketState) -> Iterator[rpc.FeatureInsight]:
    schema = bucket.config.schema
    for e, embedding in enumerate(schema.embeddings):
        lengths = present(bucket.scales, len(schema.numbers) + e)
        insight = _measured(bucket, embedding.name, lengths, lengths / embedding.scale)
        insight.rescaled = bucket.encoder.version > 1 and bool(bucket.scales.factor_e[e] != 1.0)
        insight.warning = _join(_embedding_warning(bucket, e, embedding, insight), _missing_warning(insight))
        yield insight


def _embedding_warning(bucket: BucketState, e: int, embedding: EmbeddingFeature, insight: rpc.FeatureInsight) -> str:
    factor = float(bucket.scales.factor_e[e])
    if factor == 1.0:
        return ""
    found = f"vectors times the declared scale {embedding.scale:g} are about {1.0 / factor:.3g} long instead of 1"
    remedy = f"declare scale {embedding.scale * factor:.3g}"
    return f"{found}: {'they are scaled to 1' if insight.rescaled else 'they count too little or too much'}; {remedy}"


def _measured(bucket: BucketState, name: str, scaled: Array, values: Array) -> rpc.FeatureInsight:
    """Insight without rescaling and warning: ``scaled`` are sampled values as declared, ``values`` the same in their units."""
    sampled = bucket.scales.sampled
    insight = rpc.FeatureInsight(feature=name, sampled=sampled)
    if sampled:
        insight.missing_share = 1.0 - len(values) / sampled
    if len(values):
        insight.outside_share = float(np.mean(np.abs(scaled) > CLIP))
        insight.mean, insight.sd = float(values.mean()), float(values.std())
    return insight


def _categories(bucket: BucketState) -> Iterator[rpc.FeatureInsight]:
    at = len(bucket.config.schema.numbers)
    decisions = int(bucket.decisions_k.sum())
    for category in bucket.config.schema.categories:
        share = float(bucket.context_d[at : at + len(category.values)].sum())
        insight = rpc.FeatureInsight(feature=category.name, sampled=decisions)
        if decisions >= WARN_FROM:
            insight.outside_share = max(0.0, 1.0 - share)
            insight.warning = _category_warning(category, insight.outside_share)
        at += len(category.values)
        yield insight


def _category_warning(category: CategoryFeature, outside_share: float) -> str:
    if outside_share <= MOSTLY:
        return ""
    none = f"{outside_share:.0%} of requests have none of the {len(category.values)} declared values"
    return f"{none}: what they have in common is learned; declare the commonest"


def _missing_warning(insight: rpc.FeatureInsight) -> str:
    if insight.sampled < WARN_FROM or insight.missing_share <= MOSTLY:
        return ""
    return f"missing from {insight.missing_share:.0%} of requests"


def _join(*warnings: str) -> str:
    return "; ".join(warning for warning in warnings if warning)
