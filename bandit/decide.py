"""From a bucket's state and a request to a decision: what the server and the simulator both call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bandit.catalog import Objective
from bandit.encoder import Encoded
from bandit.errors import FieldError
from bandit.event import DecisionMade
from bandit.policy import (
    Limits,
    Predictions,
    choose,
    exclusions,
    predictions,
    predictions_batch,
    static_exclusions,
)
from bandit.state import BucketState

NO_LIMITS = Limits()


def decide(
    bucket: BucketState,
    encoded: Sequence[Encoded],
    ids: Sequence[bytes],
    rng: np.random.Generator,
    *,
    now_ns: int,
    state_position: int,
    objective: Objective | None = None,
    limits: Limits = NO_LIMITS,
    request_id: str = "",
) -> list[DecisionMade]:
    """Decide for each of ``encoded`` on the same state, as the events to be journalled; the state does not change.

    ``objective`` replaces the bucket's own. Raises ``FieldError`` for an objective or limits that do not fit the bucket
    and ``NothingEligibleError`` if some request has no eligible model.
    """
    config = bucket.config
    quality = config.quality_range
    resolved = (objective or config.objective).resolve(quality)
    candidates = bucket.candidates
    if not candidates.models:
        raise FieldError("bucket", f"buckets/{config.id} has no models")
    names = tuple(model.id for model in candidates.models)
    if limits is not NO_LIMITS:
        limits.check(dict.fromkeys(names), quality)
    static_k = static_exclusions(candidates, limits)
    everyone = np.array_equal(bucket.members, np.arange(len(bucket.columns)))
    decisions = []
    for one, id_, predicted in zip(encoded, ids, _predict(bucket, encoded), strict=True):
        if not everyone:
            predicted = _take(predicted, bucket)
        exclusions_k = exclusions(candidates, static_k, limits, quality, predicted, one)
        choice = choose(
            resolved,
            quality,
            config.exploration_floor,
            limits,
            predicted,
            exclusions_k,
            candidates,
            rng,
        )
        decisions.append(
            DecisionMade(
                id=id_,
                bucket=config.id,
                generation=bucket.generation,
                x_d=one.x_d,
                models=names,
                chosen=choice.chosen,
                fallbacks=choice.fallbacks,
                propensity=choice.propensity,
                explored=choice.explored,
                limits_violated=choice.limits_violated,
                predicted=predicted,
                exclusions_k=exclusions_k,
                objective=resolved,
                exploration_floor=config.exploration_floor,
                limits=limits,
                state_position=state_position,
                expire_ns=now_ns + config.window_ns,
                request_id=request_id,
                input_tokens=one.input_tokens,
                max_output_tokens=one.max_output_tokens,
            )
        )
    return decisions


def _predict(bucket: BucketState, encoded: Sequence[Encoded]) -> list[Predictions]:
    if len(encoded) == 1:
        return [predictions(bucket.posteriors, encoded[0].x_d)]
    return predictions_batch(bucket.posteriors, np.stack([one.x_d for one in encoded]))


def _take(predicted: Predictions, bucket: BucketState) -> Predictions:
    columns = bucket.members
    return Predictions(
        predicted.quality_k[columns],
        predicted.quality_sd_k[columns],
        predicted.cost_k[columns],
        predicted.latency_k[columns],
        predicted.latency_p95_k[columns],
    )
