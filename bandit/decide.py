"""Decisions from a bucket's state and requests; called by the server and the simulator alike.

>>> from pointsman.bandit.catalog import Bucket, Model
>>> from pointsman.bandit.encoder import Context
>>> from pointsman.bandit.event import BucketPut, ModelPut, Record
>>> from pointsman.bandit.state import fold
>>> events = [ModelPut(Model("small")), ModelPut(Model("large")), BucketPut(Bucket("summarize"))]
>>> state = fold([Record(position, 0, event) for position, event in enumerate(events, start=1)])
>>> bucket = state.buckets["summarize"]
>>> encoded = [bucket.encoder.encode(Context())]
>>> rng = np.random.default_rng(0)
>>> (event,) = decide(bucket, encoded, [bytes(16)], rng, health={}, now_ns=0, state_position=state.position)
>>> event.models, round(event.propensity, 6)  # nothing is known of either
(('large', 'small'), 0.5)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pointsman.bandit.amounts import UNCERTAIN, UNKNOWN
from pointsman.bandit.bucket import BucketState, knows_length, log_decays
from pointsman.bandit.catalog import Mode, Objective
from pointsman.bandit.encoder import Encoded
from pointsman.bandit.errors import FieldError, within
from pointsman.bandit.event import DecisionMade
from pointsman.bandit.health import Health
from pointsman.bandit.limits import NO_LIMITS, Exclusion, Limits, exclusions, least_violating
from pointsman.bandit.list_prices import price_ratios, reserve_ratios
from pointsman.bandit.optimism import LEAST_CHARGE, at_best, level_variances
from pointsman.bandit.outcome import Signal
from pointsman.bandit.pacer import ActiveBudget, affordable, is_unaffordable, multiplier_for, remaining
from pointsman.bandit.packed import Array
from pointsman.bandit.policy import (
    ALL_TAKE_PART,
    ArmScores,
    Choices,
    PartialModels,
    choose,
    exploration_floors,
    score_arms,
    weighted_scores,
)
from pointsman.bandit.posterior import LATENCY, noise, observation_counts
from pointsman.bandit.predictions import Candidates, Ints, Predictions, max_costs, priced, regress
from pointsman.bandit.token_slope import CENTER
from pointsman.bandit.trials import quotas

_LARGEST_411 = np.array([UNKNOWN, UNKNOWN, UNKNOWN, UNCERTAIN])[:, None, None]
"""Largest variances of predictions that are references: of dollars, seconds, tokens, and of seconds for percentiles."""


AVAILABILITY_MARGIN = 0.05
"""Under AVAILABILITY_FIRST models compete by quality whose chance of success is within this of the best one's: what is known of a
model that was never called (95 %) is within it of one that never failed."""


class _Situation(NamedTuple):
    """Inputs that all decisions of one call share; ``objective`` is resolved."""

    health: Mapping[str, Health]
    now_ns: int
    state_position: int
    active_budgets: tuple[ActiveBudget, ...]
    objective: Objective
    limits: Limits
    with_propensity: bool

    @property
    def is_unaffordable(self) -> bool:
        """Whether some budget is not kept by any choice."""
        return any(is_unaffordable(active.pacer) for active in self.active_budgets)


class _Requests(NamedTuple):
    """b requests for one decision each; ``request_ids`` is empty if the callers did not name them."""

    encoded: Sequence[Encoded]
    ids: Sequence[bytes]
    request_ids: Sequence[str]

    def one(self, i: int) -> _Requests:
        """Request number ``i`` alone."""
        return _Requests(self.encoded[i : i + 1], self.ids[i : i + 1], self.request_ids[i : i + 1])


class _Drawn(NamedTuple):
    """The draw of b decisions with the numbers it was made with, (b, k); ``max_cost_bk`` only under a hard budget,
    ``reference_bk4`` as ``references`` in ``DecisionMade``.
    """

    reference_bk4: Array
    predicted: Predictions
    exclusions_bk: Ints
    max_cost_bk: Array | None
    multiplier: float
    exploration_b: Array
    partial: PartialModels
    choices: Choices


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

    ``ids`` are 16 bytes each. ``health`` is the state's; ``active_budgets`` come from ``bandit.state.active_budgets``;
    ``objective`` replaces the bucket's own; ``request_ids`` are what the callers named their requests, if they did.
    ``with_propensity`` false leaves the propensities at 0, which changes nothing else: for replays that nobody logs.

    Raises ``FieldError`` for an objective or limits that do not fit the bucket and ``NothingEligibleError`` if some request has
    no eligible model.
    """
    resolved = bucket.objective
    if objective is not None:
        with within("objective"):
            if objective.min_mean_quality is not None:
                raise FieldError(
                    "min_mean_quality", "expected it in the bucket's own objective: it holds for all its requests"
                )
            resolved = objective.resolve(bucket.config.quality_range)
    if not bucket.candidates.models:
        raise FieldError("bucket", f"buckets/{bucket.config.id} has no models")
    if limits is not NO_LIMITS:
        with within("limits"):
            limits.check(bucket.candidates.names, bucket.config.quality_range)
    if bucket.encoder.version >= 2 and bucket.encoder.measured and (bucket.scales.fitted or not bucket.scales.compared):
        encoded = [rescaled(bucket, context) for context in encoded]
    situation = _Situation(health, now_ns, state_position, tuple(active_budgets), resolved, limits, with_propensity)
    return _decide(bucket, _Requests(encoded, ids, request_ids), rng, situation)


def rescaled(bucket: BucketState, context: Encoded) -> Encoded:
    """A context that was encoded as declared, with the scales that the bucket has found its features to have."""
    if not len(context.measured_m):
        return context
    return replace(context, x_d=bucket.encoder.rescale(context.x_d, context.measured_m, bucket.scales))


def _decide(
    bucket: BucketState, requests: _Requests, rng: np.random.Generator, situation: _Situation
) -> list[DecisionMade]:
    """Predict, exclude, score, draw."""
    candidates, quality = bucket.candidates, bucket.config.quality_range
    input_b = np.array([context.input_tokens for context in requests.encoded])
    max_output_b = np.array([context.max_output_tokens for context in requests.encoded])
    predicted, possible, reference_bk4 = _predict(bucket, requests.encoded, input_b, max_output_b, situation)
    needed_b = np.maximum(input_b, 0) + np.maximum(max_output_b, 0)
    exclusions_bk = exclusions(candidates, situation.limits, quality, possible, needed_b)
    if situation.health:
        predicted = _apply_circuit_breakers(situation, candidates, predicted, exclusions_bk)
        if situation.objective.mode is Mode.AVAILABILITY_FIRST:
            _exclude_less_available(situation, candidates, exclusions_bk)
    max_cost_bk = None
    hard = [active for active in situation.active_budgets if active.budget.hard]
    if hard:
        max_input_b = np.array([context.max_input_tokens for context in requests.encoded])
        ratio_k = _of_candidates(bucket, reserve_ratios(bucket.paid_k7))
        max_cost_bk = max_costs(candidates, max_input_b, max_output_b, ratio_k)
        predicted = replace(predicted, cost_k=np.minimum(predicted.cost_k, max_cost_bk))
        remaining_usd = min(remaining(active, situation.now_ns) for active in hard)
        if len(input_b) > 1 and _dearest(max_cost_bk) > remaining_usd:
            return _one_by_one(bucket, requests, rng, situation)
        exclusions_bk[~(max_cost_bk <= remaining_usd)] |= Exclusion.BUDGET.bit
    scores, multiplier, exploration_b = _score(bucket, situation, predicted, exclusions_bk)
    partial = _partial(bucket, exclusions_bk)
    weighted = weighted_scores(scores, partial, situation.objective, quality, predicted, exclusions_bk, multiplier)
    choices = choose(scores, exploration_b, rng, weighted, with_propensity=situation.with_propensity)
    for i in () if choices.eligible_b.all() else np.flatnonzero(choices.eligible_b == 0).tolist():
        order_e = least_violating(quality, situation.limits, predicted.at(i), exclusions_bk[i], candidates)
        _choose_least_violating(choices, i, order_e)
    drawn = _Drawn(reference_bk4, predicted, exclusions_bk, max_cost_bk, multiplier, exploration_b, partial, choices)
    return _events(bucket, requests, situation, drawn)


def _predict(
    bucket: BucketState, encoded: Sequence[Encoded], input_b: Ints, max_output_b: Ints, situation: _Situation
) -> tuple[Predictions, Predictions, Array]:
    """Predictions for the bucket's candidates at b contexts, (b, k), with costs from list prices where models have them; what
    limits are held against, these at best; and what outcomes will be held against: dollars, seconds and tokens that the
    regressions expect, (b, k, 4).
    """
    posteriors = bucket.posteriors
    token_b = None
    if not knows_length(bucket) and (input_b >= 0).any():
        token_b = np.where(input_b >= 0, np.log(np.maximum(1.0 + input_b, 1.0) / CENTER), np.nan)
    predicted, quadratic_3bk = regress(posteriors, np.array([context.x_d for context in encoded]), token_b)
    variance_4bk = np.array((*quadratic_3bk, quadratic_3bk[1] * noise(posteriors)[:, LATENCY]))
    expected_4bk = np.array((predicted.cost_k, predicted.latency_k, predicted.tokens_k, predicted.latency_k))
    reference_bk4 = (expected_4bk * (variance_4bk <= _LARGEST_411)).transpose(1, 2, 0)
    if bucket.members is not None:
        predicted, reference_bk4 = predicted.take(bucket.members), reference_bk4[:, bucket.members]
        quadratic_3bk = [quadratic_bk[:, bucket.members] for quadratic_bk in quadratic_3bk]
    possible = charged = predicted
    if situation.limits.on_predictions:
        possible = at_best(bucket, predicted, np.array(quadratic_3bk), with_p95=situation.limits.latency_p95)
    if situation.is_unaffordable:
        charged = at_best(bucket, predicted, level_variances(bucket, len(encoded)), with_p95=False)
    if bucket.candidates.prices_3k is not None:
        count_kr = observation_counts(posteriors)
        count_kr = count_kr if bucket.members is None else count_kr[bucket.members]
        ratio_k = _of_candidates(bucket, price_ratios(bucket.paid_k7))
        terms = (bucket.candidates, count_kr.T, input_b, max_output_b, ratio_k)
        possible, charged, predicted = (priced(each, *terms) for each in (possible, charged, predicted))
    if situation.is_unaffordable:
        predicted = replace(
            predicted, charged_k=np.clip(charged.cost_k, LEAST_CHARGE * predicted.cost_k, predicted.cost_k)
        )
    return predicted, possible, reference_bk4


def _of_candidates(bucket: BucketState, by_column_k: Array) -> Array:
    """What is given for each of a bucket's columns, for its candidates."""
    return by_column_k if bucket.members is None else by_column_k[bucket.members]


def _dearest(max_cost_bk: Array) -> float:
    """Dollars that a batch costs at most if each request goes to the dearest model whose cost is bounded."""
    return float(np.max(max_cost_bk, axis=1, where=np.isfinite(max_cost_bk), initial=0.0).sum())


def _one_by_one(
    bucket: BucketState, requests: _Requests, rng: np.random.Generator, situation: _Situation
) -> list[DecisionMade]:
    """Decide on a batch that might pass a hard budget as a whole: each decision reserves what it may cost at most."""
    events: list[DecisionMade] = []
    for i in range(len(requests.encoded)):
        reserved = sum(event.max_cost for event in events)
        budgets = tuple([replace(active, pending=active.pending + reserved) for active in situation.active_budgets])
        events += _decide(bucket, requests.one(i), rng, situation._replace(active_budgets=budgets))
    return events


def _score(
    bucket: BucketState, situation: _Situation, predicted: Predictions, exclusions_bk: Ints
) -> tuple[ArmScores, float, Array]:
    """The arms' scores, what budgets add to λ in them (quality per dollar), and the exploration floor of each request (b)."""
    quality = bucket.config.quality_range
    scores = score_arms(situation.objective, quality, predicted, exclusions_bk)
    multiplier, affordable_floor = 0.0, 1.0
    if situation.objective.min_mean_quality is not None and bucket.quality_pacer is not None:
        multiplier = bucket.quality_pacer.multiplier
    for active in situation.active_budgets:
        multiplier = max(multiplier, multiplier_for(active, scores, predicted.cost_k))
        affordable_floor = min(affordable_floor, affordable(active, predicted.cost_k))
    if multiplier:
        scores = score_arms(situation.objective, quality, predicted, exclusions_bk, multiplier)
    floor_b = exploration_floors(scores, predicted, bucket.config.exploration_floor, _calls(bucket))
    return scores, multiplier, np.minimum(floor_b, affordable_floor)


def _events(bucket: BucketState, requests: _Requests, situation: _Situation, drawn: _Drawn) -> list[DecisionMade]:
    """The events of b decisions."""
    candidates, choices, predicted, max_cost_bk = bucket.candidates, drawn.choices, drawn.predicted, drawn.max_cost_bk
    # plain lists: reading numbers out of arrays one by one costs more than all else here
    chosen, order, eligible = choices.chosen_b.tolist(), choices.order_bk.tolist(), choices.eligible_b.tolist()
    propensity, explored = choices.propensity_b.tolist(), choices.explored_b.tolist()
    violated, exploration = choices.limits_violated_b.tolist(), drawn.exploration_b.tolist()
    references_b4 = drawn.reference_bk4[np.arange(len(chosen)), choices.chosen_b].tolist()
    log_decays_k = {k: log_decays(bucket, candidates.names[k]) for k in set(chosen)}
    expire_ns = situation.now_ns + bucket.config.window_ns
    return [
        DecisionMade(
            id=requests.ids[i],
            bucket=bucket.config.id,
            generation=bucket.generation,
            x_d=context.x_d,
            models=candidates.names,
            chosen=chosen[i],
            fallbacks=tuple(order[i][1 : eligible[i]]),
            propensity=propensity[i],
            explored=explored[i],
            limits_violated=violated[i],
            predicted=predicted.at(i),
            draw_k=choices.draw_bk[i],
            exclusions_k=drawn.exclusions_bk[i],
            objective=situation.objective,
            quality=bucket.config.quality_range,
            multiplier=drawn.multiplier,
            exploration_floor=exploration[i],
            limits=situation.limits,
            state_position=situation.state_position,
            expire_ns=expire_ns,
            request_id=requests.request_ids[i] if requests.request_ids else "",
            input_tokens=context.input_tokens,
            max_output_tokens=context.max_output_tokens,
            project=bucket.config.project,
            newcomers=drawn.partial.models,
            quotas=drawn.partial.quotas,
            by_price=True,
            max_cost=0.0 if max_cost_bk is None else float(max_cost_bk[i, chosen[i]]),
            log_decays=log_decays_k[chosen[i]],
            measured_m=context.measured_m,
            references=tuple(references_b4[i]),
        )
        for i, context in enumerate(requests.encoded)
    ]


def _calls(bucket: BucketState) -> Ints:
    """How often each candidate (k) was called so far, or judged in a warm start."""
    calls_k: Ints = np.maximum(bucket.decisions_k, bucket.count_sk[Signal.QUALITY])
    return calls_k if bucket.members is None else calls_k[bucket.members]


def _partial(bucket: BucketState, exclusions_bk: Ints) -> PartialModels:
    """The candidates that take full part in a share of the draws only; none if no other can be chosen."""
    quota_k = quotas(bucket)
    quota_k = quota_k if bucket.members is None else quota_k[bucket.members]
    if quota_k.min() >= 1.0:
        return ALL_TAKE_PART
    held_k = quota_k < 1.0
    if not (exclusions_bk[:, ~held_k] == 0).any():
        return ALL_TAKE_PART
    return PartialModels(tuple(np.flatnonzero(held_k).tolist()), tuple(quota_k[held_k].tolist()))


def _apply_circuit_breakers(
    situation: _Situation, candidates: Candidates, predicted: Predictions, exclusions_bk: Ints
) -> Predictions:
    """Exclude, in place, models whose breaker is open, and discount quality by the chance that a call succeeds.

    Of a batch at most one request may be a probe. Where the breakers of all models that could be chosen are open they are not
    applied: a try that will probably fail is better than none.
    """
    discount_k = np.ones(len(candidates.names))
    without_bk = exclusions_bk.copy()
    for k, name in enumerate(candidates.names):
        model_health = situation.health.get(name)
        if model_health is not None:
            discount_k[k] = model_health.discount(situation.now_ns)
            if model_health.open:
                exclusions_bk[int(model_health.may_run(situation.now_ns)) :, k] |= Exclusion.CIRCUIT_OPEN.bit
    stuck_b = (exclusions_bk != 0).all(axis=1)
    if stuck_b.any():
        exclusions_bk[stuck_b] = without_bk[stuck_b]
    return replace(
        predicted,
        quality_k=predicted.quality_k * discount_k,
        quality_sd_k=predicted.quality_sd_k * discount_k,
        draw_sd_k=None if predicted.draw_sd_k is None else predicted.draw_sd_k * discount_k,
        novelty=None if predicted.novelty is None else predicted.novelty.scaled(discount_k),
    )


def _exclude_less_available(situation: _Situation, candidates: Candidates, exclusions_bk: Ints) -> None:
    """Exclude, in place, models whose calls succeed less probably than those of the best eligible one by more than a margin."""
    healthy = Health()
    success_k = np.array(
        [situation.health.get(name, healthy).success_rate(situation.now_ns) for name in candidates.names]
    )
    best_b1 = np.where(exclusions_bk == 0, success_k, -np.inf).max(axis=1, keepdims=True)
    exclusions_bk[(exclusions_bk == 0) & (success_k < best_b1 - AVAILABILITY_MARGIN)] |= Exclusion.AVAILABILITY.bit


def _choose_least_violating(choices: Choices, row: int, order_e: Ints) -> None:
    """Make the choice of a request without an eligible model, in place: the first of ``order_e``, for certain."""
    choices.chosen_b[row] = order_e[0]
    choices.order_bk[row, : len(order_e)] = order_e
    choices.eligible_b[row] = len(order_e)
    choices.propensity_b[row] = 1.0
    choices.explored_b[row] = False
    choices.limits_violated_b[row] = True
