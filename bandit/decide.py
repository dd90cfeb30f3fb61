"""From a bucket's state and requests to decisions: what the server and the simulator both call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bandit.catalog import Objective
from bandit.encoder import Encoded
from bandit.errors import FieldError, within
from bandit.event import DecisionMade
from bandit.health import Health
from bandit.pacer import affordable, multiplier_for
from bandit.policy import (
    Candidates,
    Choices,
    Exclusion,
    Ints,
    Limits,
    Predictions,
    choose,
    exclusions,
    explored_share,
    least_violating,
    predictions_batch,
    priced,
    race,
)
from bandit.state import BucketState

NO_LIMITS = Limits()


def decide(
    bucket: BucketState,
    encoded: Sequence[Encoded],
    ids: Sequence[bytes],
    rng: np.random.Generator,
    *,
    health: Mapping[str, Health],
    now_ns: int,
    state_position: int,
    objective: Objective | None = None,
    limits: Limits = NO_LIMITS,
    request_id: str = "",
) -> list[DecisionMade]:
    """Decide for each of ``encoded`` on the same state, as the events to be journalled; the state does not change.

    ``health`` is the state's; ``objective`` replaces the bucket's own. Raises ``FieldError`` for an objective or limits that
    do not fit the bucket and ``NothingEligibleError`` if some request has no eligible model.
    """
    config = bucket.config
    quality = config.quality_range
    resolved = bucket.objective
    if objective is not None:
        with within("objective"):
            resolved = objective.resolve(quality)
    candidates = bucket.candidates
    if not candidates.models:
        raise FieldError("bucket", f"buckets/{config.id} has no models")
    if limits is not NO_LIMITS:
        with within("limits"):
            limits.check(candidates.names, quality)
    predicted = predictions_batch(bucket.posteriors, np.array([one.x_d for one in encoded]))
    if bucket.members is not None:
        predicted = predicted.take(bucket.members)
    input_b = np.array([one.input_tokens for one in encoded])
    most_b = np.array([one.max_output_tokens for one in encoded])
    if candidates.prices_3k is not None:
        predicted = priced(predicted, candidates, _seen(bucket), input_b, most_b)
    needed_b = np.maximum(input_b, 0) + np.maximum(most_b, 0)
    exclusions_bk = exclusions(candidates, limits, quality, predicted, needed_b)
    if health:
        predicted = _heed(health, candidates, predicted, exclusions_bk)
    multiplier, affordable_floor = 0.0, 1.0
    if config.budget is not None and bucket.pacer is not None:
        multiplier = multiplier_for(bucket.pacer, config.budget, resolved, quality, predicted, exclusions_bk)
        affordable_floor = affordable(bucket.pacer, config.budget, predicted.cost_k)
    race_ = race(resolved, quality, predicted, exclusions_bk, multiplier)
    exploration_b = np.minimum(explored_share(race_, predicted, config.exploration_floor), affordable_floor)
    choices = choose(race_, exploration_b, rng)
    for i in () if choices.eligible_b.all() else np.flatnonzero(choices.eligible_b == 0):
        _least_violating(
            choices, int(i), least_violating(quality, limits, predicted.at(int(i)), exclusions_bk[i], candidates)
        )
    expire_ns = now_ns + config.window_ns
    return [
        DecisionMade(
            id=ids[i],
            bucket=config.id,
            generation=bucket.generation,
            x_d=one.x_d,
            models=candidates.names,
            chosen=int(choices.chosen_b[i]),
            fallbacks=tuple(choices.order_bk[i, 1 : choices.eligible_b[i]].tolist()),
            propensity=float(choices.propensity_b[i]),
            explored=bool(choices.explored_b[i]),
            limits_violated=bool(choices.limits_violated_b[i]),
            predicted=predicted.at(i),
            draw_k=choices.draw_bk[i],
            exclusions_k=exclusions_bk[i],
            objective=resolved,
            multiplier=multiplier,
            exploration_floor=float(exploration_b[i]),
            limits=limits,
            state_position=state_position,
            expire_ns=expire_ns,
            request_id=request_id,
            input_tokens=one.input_tokens,
            max_output_tokens=one.max_output_tokens,
        )
        for i, one in enumerate(encoded)
    ]


def _heed(
    health: Mapping[str, Health], candidates: Candidates, predicted: Predictions, exclusions_bk: Ints
) -> Predictions:
    """Exclude, in place, models whose breaker is open, and discount quality by the chance that a call succeeds.

    Of a batch at most one request may be a probe.
    """
    rate_k = np.ones(len(candidates.names))
    for k, name in enumerate(candidates.names):
        known = health.get(name)
        if known is not None:
            rate_k[k] = known.discount
            if known.open:
                exclusions_bk[int(known.may_run) :, k] |= Exclusion.CIRCUIT_OPEN.bit
    return replace(predicted, quality_k=predicted.quality_k * rate_k, quality_sd_k=predicted.quality_sd_k * rate_k)


def _seen(bucket: BucketState) -> Ints:
    """How often each response (r) of each candidate (k) was observed."""
    seen_rk = np.array([bucket.posteriors.designs[g].seen_k for g in bucket.posteriors.design_r])
    return seen_rk if bucket.members is None else seen_rk[:, bucket.members]


def _least_violating(choices: Choices, row: int, order_e: Ints) -> None:
    """Make the choice of a request without an eligible model, in place: the first of ``order_e``, for certain."""
    choices.chosen_b[row] = order_e[0]
    choices.order_bk[row, : len(order_e)] = order_e
    choices.eligible_b[row] = len(order_e)
    choices.propensity_b[row] = 1.0
    choices.explored_b[row] = False
    choices.limits_violated_b[row] = True
