"""From a bucket's state and requests to decisions: what the server and the simulator both call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pointsman.bandit.bucket import BucketState, log_decays, newcomers
from pointsman.bandit.catalog import Objective
from pointsman.bandit.encoder import Encoded
from pointsman.bandit.errors import FieldError, within
from pointsman.bandit.event import DecisionMade
from pointsman.bandit.health import Health
from pointsman.bandit.limits import NO_LIMITS, Exclusion, Limits, exclusions, least_violating
from pointsman.bandit.pacer import ActiveBudget, affordable, multiplier_for, remaining
from pointsman.bandit.policy import ArmScores, Choices, Newcomers, choose, explored_share, score_arms, without
from pointsman.bandit.posterior import observation_counts
from pointsman.bandit.predictions import Candidates, Ints, Predictions, max_costs, predictions_batch, priced

FREE = 10
"""Calls of a newcomer that may wait to be judged before its share of traffic is bounded."""
QUOTA = 0.05
"""Share of the requests in whose race newcomers take part from then on; it doubles …"""
QUOTA_DOUBLES = 2.0
"""… with so many judged outcomes of the one of which least is known."""


def decide(
    bucket: BucketState,
    encoded: Sequence[Encoded],
    ids: Sequence[bytes],
    rng: np.random.Generator,
    *,
    health: Mapping[str, Health],
    now_ns: int,
    state_position: int,
    active_budgets: Sequence[ActiveBudget] = (),
    objective: Objective | None = None,
    limits: Limits = NO_LIMITS,
    request_ids: Sequence[str] = (),
    with_propensity: bool = True,
) -> list[DecisionMade]:
    """Decide for each of ``encoded`` on the same state, as the events to be journalled; the state does not change.

    ``health`` is the state's; ``active_budgets`` come from ``bandit.state.active_budgets``; ``objective`` replaces the
    bucket's own; ``request_ids`` are what the callers named their requests, if they did. ``with_propensity`` false leaves the
    propensities at 0, which changes nothing else: for replays that nobody logs.
    Raises ``FieldError`` for an objective or limits that do not fit the bucket and ``NothingEligibleError`` if some request has
    no eligible model.
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
        count_kr = observation_counts(bucket.posteriors)
        count_kr = count_kr if bucket.members is None else count_kr[bucket.members]
        predicted = priced(predicted, candidates, count_kr.T, input_b, most_b)
    needed_b = np.maximum(input_b, 0) + np.maximum(most_b, 0)
    exclusions_bk = exclusions(candidates, limits, quality, predicted, needed_b)
    if health:
        predicted = _apply_circuit_breakers(health, candidates, predicted, exclusions_bk)
    max_cost_bk = None
    if any(active.budget.hard for active in active_budgets):
        max_cost_bk = max_costs(candidates, np.array([one.max_input_tokens for one in encoded]), most_b)
        predicted = replace(predicted, cost_k=np.minimum(predicted.cost_k, max_cost_bk))
        remaining_usd = min(remaining(active, now_ns) for active in active_budgets if active.budget.hard)
        if (
            len(encoded) > 1
            and np.max(max_cost_bk, axis=1, where=np.isfinite(max_cost_bk), initial=0.0).sum() > remaining_usd
        ):
            return _one_by_one(
                bucket, encoded, ids, rng, health, now_ns, state_position, active_budgets, objective, limits, request_ids,
                with_propensity,
            )  # fmt: skip
        exclusions_bk[~(max_cost_bk <= remaining_usd)] |= Exclusion.BUDGET.bit
    scores = score_arms(resolved, quality, predicted, exclusions_bk)
    multiplier, affordable_floor = 0.0, 1.0
    for active in active_budgets:
        multiplier = max(multiplier, multiplier_for(active, scores, predicted.cost_k))
        affordable_floor = min(affordable_floor, affordable(active, predicted.cost_k))
    if multiplier:
        scores = score_arms(resolved, quality, predicted, exclusions_bk, multiplier)
    exploration_b = np.minimum(explored_share(scores, predicted, config.exploration_floor), affordable_floor)
    new = _newcomers(bucket, scores)
    choices = choose(scores, exploration_b, rng, new, with_propensity=with_propensity)
    for i in () if choices.eligible_b.all() else np.flatnonzero(choices.eligible_b == 0):
        _least_violating(
            choices, int(i), least_violating(quality, limits, predicted.at(int(i)), exclusions_bk[i], candidates)
        )
    new_models = () if new is None else tuple(np.flatnonzero(new.new_k).tolist())
    quota = 1.0 if new is None else new.quota
    # plain lists: reading numbers out of arrays one by one costs more than all else here
    chosen, order, eligible = choices.chosen_b.tolist(), choices.order_bk.tolist(), choices.eligible_b.tolist()
    propensity, explored = choices.propensity_b.tolist(), choices.explored_b.tolist()
    violated, exploration = choices.limits_violated_b.tolist(), exploration_b.tolist()
    p95 = predicted.latency_p95_k[np.arange(len(encoded)), choices.chosen_b].tolist()
    log_decays_k = {k: log_decays(bucket, candidates.names[k]) for k in set(chosen)}
    p95_correction_k = (
        bucket.posteriors.p95_correction_k
        if bucket.members is None
        else bucket.posteriors.p95_correction_k[bucket.members]
    )
    raw_share = np.exp(-p95_correction_k).tolist()
    expire_ns = now_ns + config.window_ns
    return [
        DecisionMade(
            id=ids[i],
            bucket=config.id,
            generation=bucket.generation,
            x_d=one.x_d,
            models=candidates.names,
            chosen=chosen[i],
            fallbacks=tuple(order[i][1 : eligible[i]]),
            propensity=propensity[i],
            explored=explored[i],
            limits_violated=violated[i],
            predicted=predicted.at(i),
            draw_k=choices.draw_bk[i],
            exclusions_k=exclusions_bk[i],
            objective=resolved,
            multiplier=multiplier,
            exploration_floor=exploration[i],
            limits=limits,
            state_position=state_position,
            expire_ns=expire_ns,
            request_id=request_ids[i] if request_ids else "",
            input_tokens=one.input_tokens,
            max_output_tokens=one.max_output_tokens,
            project=config.project,
            newcomers=new_models,
            quota=quota,
            max_cost=0.0 if max_cost_bk is None else float(max_cost_bk[i, chosen[i]]),
            raw_p95=p95[i] * raw_share[chosen[i]],
            log_decays=log_decays_k[chosen[i]],
        )
        for i, one in enumerate(encoded)
    ]


def _one_by_one(
    bucket: BucketState,
    encoded: Sequence[Encoded],
    ids: Sequence[bytes],
    rng: np.random.Generator,
    health: Mapping[str, Health],
    now_ns: int,
    state_position: int,
    active_budgets: Sequence[ActiveBudget],
    objective: Objective | None,
    limits: Limits,
    request_ids: Sequence[str],
    with_propensity: bool,
) -> list[DecisionMade]:
    """``decide`` for a batch that might pass a hard budget as a whole: each decision holds back what it may cost."""
    made: list[DecisionMade] = []
    for i, (one, id_) in enumerate(zip(encoded, ids, strict=True)):
        held = sum(event.max_cost for event in made)
        made += decide(
            bucket,
            [one],
            [id_],
            rng,
            health=health,
            now_ns=now_ns,
            state_position=state_position,
            active_budgets=[replace(active, pending=active.pending + held) for active in active_budgets],
            objective=objective,
            limits=limits,
            request_ids=request_ids[i : i + 1],
            with_propensity=with_propensity,
        )
    return made


def _newcomers(bucket: BucketState, scores: ArmScores) -> Newcomers | None:
    """The bucket's newcomers, if their share of traffic must be bounded, and the share of requests that they may race in.

    Where outcomes come at once a newcomer is an ordinary candidate of which little is known; where they come late, or never,
    it would go on being tried.
    """
    count_k = newcomers(bucket)
    if count_k is None:
        return None
    new_k = count_k >= 0
    calls_k = bucket.decisions_k if bucket.members is None else bucket.decisions_k[bucket.members]
    if (calls_k[new_k] - count_k[new_k] < FREE).all():
        return None
    quota = min(1.0, QUOTA * 2.0 ** (int(count_k[new_k].min()) / QUOTA_DOUBLES))
    return Newcomers(new_k, quota, without(scores, new_k))


def _apply_circuit_breakers(
    health: Mapping[str, Health], candidates: Candidates, predicted: Predictions, exclusions_bk: Ints
) -> Predictions:
    """Exclude, in place, models whose breaker is open, and discount quality by the chance that a call succeeds.

    Of a batch at most one request may be a probe. Where the breakers of all models that could be chosen are open they are not
    heeded: a try that will probably fail is better than none.
    """
    rate_k = np.ones(len(candidates.names))
    without_bk = exclusions_bk.copy()
    for k, name in enumerate(candidates.names):
        known = health.get(name)
        if known is not None:
            rate_k[k] = known.discount
            if known.open:
                exclusions_bk[int(known.may_run) :, k] |= Exclusion.CIRCUIT_OPEN.bit
    stuck_b = (exclusions_bk != 0).all(axis=1)
    if stuck_b.any():
        exclusions_bk[stuck_b] = without_bk[stuck_b]
    return replace(predicted, quality_k=predicted.quality_k * rate_k, quality_sd_k=predicted.quality_sd_k * rate_k)


def _least_violating(choices: Choices, row: int, order_e: Ints) -> None:
    """Make the choice of a request without an eligible model, in place: the first of ``order_e``, for certain."""
    choices.chosen_b[row] = order_e[0]
    choices.order_bk[row, : len(order_e)] = order_e
    choices.eligible_b[row] = len(order_e)
    choices.propensity_b[row] = 1.0
    choices.explored_b[row] = False
    choices.limits_violated_b[row] = True
