"""State and its fold: ``state = fold(journal)``.

``apply`` is the only thing that changes a state. It reads no clock and no random number, so the same journal gives the
same state, bit for bit; everything derived (candidates, encoders) is made from the events too.

>>> from pointsman.bandit.catalog import Bucket, Model
>>> events = [ModelPut(Model("small")), ModelPut(Model("large")), BucketPut(Bucket("summarize"))]
>>> state = fold([Record(position, 0, event) for position, event in enumerate(events, start=1)])
>>> state.position, state.buckets["summarize"].columns
(3, ('large', 'small'))
>>> fingerprint(state) == fingerprint(fold([Record(i, 0, event) for i, event in enumerate(events, start=1)]))
True
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from pointsman.bandit.bucket import (
    CHANGE_DECAY_EVERY,
    BucketState,
    add_columns,
    age_hardly_chosen,
    apply_time_decay,
    arrays,
    average_quality,
    decay_after_change,
    drop_column,
    learn,
    new_bucket,
)
from pointsman.bandit.catalog import Aggregation, Model, Project
from pointsman.bandit.event import (
    AvailabilitySet,
    BucketDeleted,
    BucketPut,
    DecisionMade,
    ModelDeleted,
    ModelPut,
    OutcomeApplied,
    ProjectDeleted,
    ProjectPut,
    Record,
)
from pointsman.bandit.feature_scales import count_context
from pointsman.bandit.feature_scales import fit as fit_scales
from pointsman.bandit.feedback import note_call, note_judgement
from pointsman.bandit.health import Health, count_request, record_call
from pointsman.bandit.hierarchical_prior import (
    HierarchicalPrior,
    forget_models,
    replace_contribution,
    zero_contribution,
)
from pointsman.bandit.list_prices import announce, learn_paid
from pointsman.bandit.outcome import NO_REPORTS, Signal
from pointsman.bandit.pacer import ActiveBudget, Pacer, count_decision, count_outcome, new_pacer, restart_ring
from pointsman.bandit.pacer import to_arrays as pacer_arrays
from pointsman.bandit.pooling import exchange, is_due, present_priors, rebuild, renew_priors
from pointsman.bandit.predictions import Candidates
from pointsman.bandit.quality_floor import count_decision as count_towards_floor
from pointsman.bandit.quality_floor import count_outcome as count_judgement
from pointsman.bandit.quality_floor import new_quality_pacer
from pointsman.bandit.terms import TermsHistory, note_terms


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model of the catalogue, whether an operator lets it be chosen, and the position of its last change."""

    model: Model
    available: bool
    version: int


@dataclass(slots=True)
class ProjectState:
    """A project, the position of its last change, and its pacer if it has a budget."""

    project: Project
    version: int
    pacer: Pacer | None


@dataclass(slots=True)
class State:
    """The fold of a journal up to ``position``, whose last event happened at ``time_ns``.

    ``health`` has the models of which a success or failure was ever reported; ``hierarchical_prior`` sums what buckets
    contribute to each other's priors. ``candidates`` are those of each list of models that some bucket has: derived, and shared
    by all buckets with that list.
    ``terms`` are those that decisions of each bucket were and are made on.
    """

    position: int = 0
    time_ns: int = 0
    models: dict[str, ModelState] = field(default_factory=dict)
    buckets: dict[str, BucketState] = field(default_factory=dict)
    projects: dict[str, ProjectState] = field(default_factory=dict)
    health: dict[str, Health] = field(default_factory=dict)
    hierarchical_prior: HierarchicalPrior = field(default_factory=HierarchicalPrior)
    candidates: dict[tuple[str, ...], Candidates] = field(default_factory=dict)
    terms: TermsHistory = field(default_factory=dict)


def fold(records: Iterable[Record], state: State | None = None) -> State:
    """Apply ``records`` in order to ``state`` (in place; a new one by default) and return it. Raises what ``apply`` returns."""
    state = State() if state is None else state
    for record in records:
        error = apply(state, record)
        if error is not None:
            raise error
    return state


def apply(state: State, record: Record) -> Exception | None:
    """Apply one record in place. Positions increase, but may have gaps; time never goes back.

    Raises ``ValueError`` for a record that does not come after those before.

    Returns the error, if there was one, that kept a bucket from learning from its event. Then the bucket was reset at this
    position: one bucket with impossible numbers must not stop all others, now and in every later fold.
    """
    error: Exception | None = None
    if record.position <= state.position:
        raise ValueError(f"expected a record after position {state.position}, got {record.position}")
    time_ns = max(record.time_ns, state.time_ns)
    event = record.event
    match event:
        case DecisionMade() | OutcomeApplied():
            bucket = state.buckets.get(event.bucket)
            if isinstance(event, DecisionMade):
                _count_decision(state, bucket, event, time_ns)
            else:
                _count_outcome(state, bucket, event, time_ns)
            if bucket is not None and bucket.generation == event.generation:
                try:
                    _learn_event(state, bucket, event, time_ns)
                except MemoryError:
                    raise
                except Exception as reason:  # the same in every fold: events and arithmetic are
                    error = reason
                    _reset_bucket(state, bucket, record.position)
        case ModelPut():
            before = state.models.get(event.model.id)
            available = before.available if before else True
            if before is not None and before.model.prices != event.model.prices:
                _announce_prices(state, before.model, event.model)
            state.models[event.model.id] = ModelState(event.model, available, record.position)
            _renew_all(state, record.position)
        case ModelDeleted():
            state.models.pop(event.model, None)
            state.health.pop(event.model, None)
            _drop_columns(state, event.model)
            _renew_all(state, record.position)
        case AvailabilitySet():
            if event.model in state.models:
                state.models[event.model] = replace(
                    state.models[event.model],
                    available=event.available,
                    version=record.position,
                )
                _renew_all(state, record.position)
        case BucketPut():
            _put_bucket(state, event, record.position)
        case BucketDeleted():
            _drop_bucket(state, event.bucket)
        case ProjectPut():
            previous = state.projects.get(event.project.id)
            pacer = None if event.project.budget is None else new_pacer(record.position)
            if previous is not None and previous.project.budget == event.project.budget:
                pacer = previous.pacer
            state.projects[event.project.id] = ProjectState(event.project, record.position, pacer)
        case ProjectDeleted():
            state.projects.pop(event.project, None)
    state.position = record.position
    state.time_ns = time_ns
    return error


def renew_candidates(state: State, bucket: BucketState, position: int) -> None:
    """Recompute ``members`` and ``candidates`` of one bucket, in place; new candidates get columns born at ``position``."""
    before, now = bucket.candidates, _candidates(state, bucket.config.models)
    new = [] if now.names == bucket.columns else [model for model in now.names if model not in bucket.columns]
    if new:
        add_columns(bucket, new, position)
        born = list(range(len(bucket.columns) - len(new), len(bucket.columns)))
        exchange(state.hierarchical_prior, bucket, born, anybody_knows=bool(bucket.judged_before_k.any()))
    if bucket.config.budget is not None and bucket.pacer is None:
        bucket.pacer = new_pacer(position)
    if bucket.objective.min_mean_quality is None:
        bucket.quality_pacer = None
    elif bucket.quality_pacer is None:
        bucket.quality_pacer = new_quality_pacer(position)
    refresh_derived(state, bucket)
    note_terms(state.terms, bucket.config.id, position, now.names, bucket.objective, bucket.config.quality_range)
    if bucket.pacer is not None and (before.models, before.available) != (now.models, now.available):
        restart_ring(bucket.pacer)


def refresh_derived(state: State, bucket: BucketState) -> None:
    """Recompute ``members`` and ``candidates`` of one bucket, in place, whose candidates all have columns."""
    bucket.candidates = _candidates(state, bucket.config.models)
    bucket.members = None
    if bucket.candidates.names != bucket.columns:
        place = {model: i for i, model in enumerate(bucket.columns)}
        bucket.members = np.array([place[model] for model in bucket.candidates.names], dtype=np.intp)


def _candidates(state: State, listed: tuple[str, ...]) -> Candidates:
    """The candidates of buckets that list these models; an empty list means every model of the catalogue."""
    candidates = state.candidates.get(listed)
    if candidates is None:
        present = [state.models[model] for model in listed or sorted(state.models) if model in state.models]
        candidates = Candidates(tuple(entry.model for entry in present), tuple(entry.available for entry in present))
        state.candidates[listed] = candidates
    return candidates


def active_budgets(state: State, bucket: BucketState) -> tuple[ActiveBudget, ...]:
    """The budgets that decisions of a bucket draw on: its own, then its project's."""
    return tuple(_active_budgets(state, bucket, bucket.config.project))


def _active_budgets(state: State, bucket: BucketState | None, project: str) -> Iterator[ActiveBudget]:
    if bucket is not None and bucket.config.budget is not None and bucket.pacer is not None:
        yield ActiveBudget(bucket.config.budget, bucket.pacer)
    entry = state.projects.get(project)
    if entry is not None and entry.project.budget is not None and entry.pacer is not None:
        yield ActiveBudget(entry.project.budget, entry.pacer)


def fingerprint(state: State) -> str:
    """SHA-256, in hexadecimal, of the complete state: states with equal fingerprints are equal bit for bit."""
    digest = hashlib.sha256(f"{state.position} {state.time_ns}".encode())
    for name, model in sorted(state.models.items()):
        digest.update(repr((name, model.available, model.version, _canonical(model.model))).encode())
    for name, project in sorted(state.projects.items()):
        digest.update(repr((name, project.project, project.version)).encode())
        for array in (pacer_arrays(project.pacer) if project.pacer else {}).values():
            digest.update(np.ascontiguousarray(array).data)
    pool = state.hierarchical_prior
    digest.update(repr(pool.models).encode())
    for array in (pool.precision_rgmm, pool.eta_rgm, pool.evidence_rg, pool.following_2r):
        digest.update(np.ascontiguousarray(array).data)
    for name, health in sorted(state.health.items()):
        digest.update(repr((name, health)).encode())
    for name, bucket in sorted(state.buckets.items()):
        digest.update(repr((name, bucket.version, bucket.generation, bucket.columns, bucket.config)).encode())
        digest.update(str(bucket.encoder.version).encode())
        for array in arrays(bucket).values():
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _canonical(model: Model) -> Model:
    return replace(model, tags=dict(sorted(model.tags.items())))


def _put_bucket(state: State, event: BucketPut, position: int) -> None:
    config = event.bucket
    before = state.buckets.get(config.id)
    if before is not None and config.same_posteriors(before.config):
        if config.budget != before.config.budget:
            before.pacer = None
        if config.objective != before.config.objective:
            before.quality_pacer = None
        before.config, before.version = config, position
        before.objective = config.objective.resolve(config.quality_range)
        renew_candidates(state, before, position)
        return
    _drop_bucket(state, config.id)
    bucket = new_bucket(config, version=position, generation=position, encoder_version=event.encoder_version)
    if before is not None and config.budget == before.config.budget:
        bucket.pacer = before.pacer  # what was spent is spent
    renew_candidates(state, bucket, position)
    state.buckets[config.id] = bucket


def _drop_bucket(state: State, id_: str) -> None:
    bucket = state.buckets.pop(id_, None)
    if bucket is not None:
        replace_contribution(
            state.hierarchical_prior, bucket.columns, bucket.contribution_2mr, zero_contribution(len(bucket.columns))
        )


def _renew_all(state: State, position: int) -> None:
    state.candidates.clear()
    for bucket in state.buckets.values():
        renew_candidates(state, bucket, position)
    for project in state.projects.values():
        if project.pacer is not None:
            restart_ring(project.pacer)


def _reset_bucket(state: State, bucket: BucketState, position: int) -> None:
    """Reset, in place, everything a bucket has learned; its spend stays."""
    _drop_bucket(state, bucket.config.id)
    fresh = new_bucket(bucket.config, bucket.version, generation=position, encoder_version=bucket.encoder.version)
    fresh.pacer = bucket.pacer
    renew_candidates(state, fresh, position)
    state.buckets[bucket.config.id] = fresh


def _count_decision(state: State, bucket: BucketState | None, event: DecisionMade, time_ns: int) -> None:
    if state.health:
        for i, model in enumerate(event.models):
            if model in state.health:
                count_request(state.health[model], i == event.chosen, time_ns)
    current = bucket is not None and bucket.generation == event.generation
    quality = bucket.config.quality_range if bucket is not None and current else None
    level_k = None
    for active in _active_budgets(state, bucket, event.project):
        if level_k is None and bucket is not None and current:
            level_k = average_quality(bucket, event.models)
        count_decision(active.pacer, active.budget, quality, event, time_ns, level_k)
    if bucket is not None and current and bucket.quality_pacer is not None and event.objective == bucket.objective:
        count_towards_floor(bucket.quality_pacer, event)


def _count_outcome(state: State, bucket: BucketState | None, event: OutcomeApplied, time_ns: int) -> None:
    for change in event.changes:
        if change.signal is Signal.SUCCESS and change.before is None and event.model in state.models:
            health = state.health.setdefault(event.model, Health())
            record_call(health, change.after != 0.0, time_ns, event.decided_ns or None)
    for active in _active_budgets(state, bucket, event.project):
        count_outcome(active.pacer, active.budget, event, bucket.config.rules.cost if bucket else Aggregation.LAST)
    if bucket is not None and bucket.quality_pacer is not None:
        count_judgement(bucket.quality_pacer, bucket.config.quality_range, event)


def _learn_event(state: State, bucket: BucketState, event: DecisionMade | OutcomeApplied, time_ns: int) -> None:
    """Let a bucket, and the pooled prior, learn from an event of its present generation, in place."""
    apply_time_decay(bucket, time_ns)
    if isinstance(event, DecisionMade):
        if event.models[event.chosen] in bucket.columns:
            note_call(bucket.feedback, bucket.columns.index(event.models[event.chosen]), time_ns)
            _learn_of_context(state, bucket, event)
    elif (
        event.changes
        and event.model in bucket.columns
        and event.state_position >= bucket.born_k[bucket.columns.index(event.model)]
    ):
        for change in event.changes:
            if change.signal is Signal.QUALITY and change.before is None:
                note_judgement(bucket.feedback, bucket.columns.index(event.model), time_ns - event.decided_ns)
        learn(
            bucket,
            event.model,
            event.x_d,
            event.changes,
            references=event.references,
            input_tokens=event.input_tokens,
            reported=event.reported_outcomes.get(event.model, NO_REPORTS),
        )
        _learn_paid(state, bucket, event)


def _learn_of_context(state: State, bucket: BucketState, event: DecisionMade) -> None:
    """Count a decision and its context, in place, and do what is due after that many decisions."""
    bucket.decisions_k[bucket.columns.index(event.models[event.chosen])] += 1
    total = int(bucket.decisions_k.sum())
    bucket.context_d += (event.x_d - bucket.context_d) / total
    if len(event.measured_m):
        count_context(bucket.scales, event.measured_m)
        if bucket.scales.compared and _is_round(total):
            fit_scales(bucket.scales)
    if total % CHANGE_DECAY_EVERY == 0 and bucket.changed_at_k.any():
        decay_after_change(bucket, total)
    age_hardly_chosen(bucket, total)
    if is_due(total):
        renew_priors(state.hierarchical_prior, bucket)


def _is_round(number: int) -> bool:
    """Whether ``number`` is a power of two or three times one: ever rarer."""
    number = number // 3 if number % 3 == 0 else number
    return number & (number - 1) == 0


def _drop_columns(state: State, model: str) -> None:
    """Drop a model from every bucket and from the pool, in place."""
    pool = state.hierarchical_prior
    for bucket in state.buckets.values():
        if model not in bucket.columns:
            continue
        before, columns = bucket.contribution_2mr, bucket.columns
        drop_column(bucket, model)
        replace_contribution(pool, columns, before, zero_contribution(len(columns)))
        replace_contribution(pool, bucket.columns, zero_contribution(len(bucket.columns)), bucket.contribution_2mr)
    forget_models(pool, [model])


def _announce_prices(state: State, before: Model, now: Model) -> None:
    """Tell every bucket's ratio of what is paid of new list prices, in place."""
    for bucket in state.buckets.values():
        if now.id in bucket.columns:
            announce(bucket.paid_k7[bucket.columns.index(now.id)], before.prices, now.prices)


def _learn_paid(state: State, bucket: BucketState, event: OutcomeApplied) -> None:
    """Hold what a call cost against the list prices it was made on, in place, if they are the present ones."""
    entry = state.models.get(event.model)
    if entry is not None and entry.model.prices is not None and entry.version <= event.state_position:
        row_7 = bucket.paid_k7[bucket.columns.index(event.model)]
        reported = event.reported_outcomes.get(event.model, NO_REPORTS)
        learn_paid(row_7, entry.model.prices, event.input_tokens, event.changes, reported)


def rebuild_pool(state: State) -> None:
    """Make the pool anew from what every bucket has learned, in place: for states that were stored without it."""
    state.hierarchical_prior = rebuild(state.buckets.values())


def bucket_to_decide(state: State, bucket: BucketState) -> BucketState:
    """``bucket`` as its next decision sees it: in a young bucket with the priors that other buckets give it by now, which its own
    events have not put yet. Nothing is changed; without that it is ``bucket`` itself.
    """
    return present_priors(state.hierarchical_prior, bucket)
