"""State and its fold: ``state = fold(journal)``.

``apply`` is the only thing that changes a state. It reads no clock and no random number, so the same journal gives the
same state, bit for bit; everything derived (candidates, encoders) is made from the events too.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bandit.catalog import Bucket, Model, Objective
from bandit.encoder import Encoder
from bandit.event import (
    AvailabilitySet,
    BucketDeleted,
    BucketPut,
    DecisionMade,
    ModelDeleted,
    ModelPut,
    OutcomeApplied,
    Record,
)
from bandit.health import Health, called, passed
from bandit.outcome import Change, Signal
from bandit.pacer import Pacer, cost_known, decided, new_pacer, with_models
from bandit.pacer import from_arrays as pacer_from_arrays
from bandit.pacer import to_arrays as pacer_arrays
from bandit.policy import Candidates
from bandit.posterior import (
    COST,
    LATENCY,
    QUALITY,
    TOKENS,
    Posteriors,
    Prior,
    add_model,
    correct,
    empty,
    from_arrays,
    observe_all,
    to_arrays,
    without_model,
)

SIGNALS = max(Signal) + 1
COUNTERS = ("born_k", "decisions_k", "count_sk", "sum_sk")
RESPONSE_OF = {
    Signal.QUALITY: QUALITY,
    Signal.COST: COST,
    Signal.LATENCY: LATENCY,
    Signal.OUTPUT_TOKENS: TOKENS,
}
"""Which regression learns from a signal."""
SMALLEST = {COST: 1e-9, LATENCY: 1e-4, TOKENS: 1.0}
"""Responses learned as logarithms: nothing, and anything smaller, counts as this (dollars, seconds, tokens)."""
EXPECTED_TOKENS = 256.0
"""Output tokens expected of an unknown model."""


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model of the catalogue, whether an operator lets it be chosen, and the position of its last change."""

    model: Model
    available: bool
    version: int


@dataclass(slots=True)
class BucketState:
    """All that is known in one bucket. Columns (k) run over ``columns``: every model that was ever a candidate.

    ``decisions_k`` counts choices; ``count_sk`` and ``sum_sk`` (rows by ``Signal``) count and add up the values known
    of decisions. ``generation`` is the position at which the posteriors started afresh, ``born_k`` that at which each
    column did: what was decided before that is not learned. ``pacer`` is there if the bucket has a budget. ``members`` are
    the columns of the present candidates (``None``: all columns in their order), ``candidates`` what the policy needs of
    them, ``objective`` the bucket's with its defaults filled in; all three are derived.
    """

    config: Bucket
    version: int
    generation: int
    encoder: Encoder
    columns: tuple[str, ...]
    posteriors: Posteriors
    born_k: npt.NDArray[np.int64]
    decisions_k: npt.NDArray[np.int64]
    count_sk: npt.NDArray[np.int64]
    sum_sk: npt.NDArray[np.float64]
    pacer: Pacer | None = None
    members: npt.NDArray[np.intp] | None = None
    candidates: Candidates = field(default_factory=lambda: Candidates((), ()))
    objective: Objective = field(default_factory=Objective)


@dataclass(slots=True)
class State:
    """The fold of a journal up to ``position``, whose last event happened at ``time_ns``.

    ``health`` has the models of which a success or failure was ever reported.
    """

    position: int = 0
    time_ns: int = 0
    models: dict[str, ModelState] = field(default_factory=dict)
    buckets: dict[str, BucketState] = field(default_factory=dict)
    health: dict[str, Health] = field(default_factory=dict)


def fold(records: Iterable[Record], state: State | None = None) -> State:
    """Apply ``records`` in order to ``state`` (in place; a new one by default) and return it."""
    state = State() if state is None else state
    for record in records:
        apply(state, record)
    return state


def apply(state: State, record: Record) -> None:
    """Apply one record in place. Raises ``ValueError`` if it is not the next one."""
    if record.position != state.position + 1:
        raise ValueError(f"expected the record at position {state.position + 1}, got {record.position}")
    event = record.event
    match event:
        case DecisionMade():
            _apply_decision(state, event, record.time_ns)
        case OutcomeApplied():
            _apply_outcome(state, event, record.time_ns)
        case ModelPut():
            known = state.models.get(event.model.id)
            available = known.available if known else True
            state.models[event.model.id] = ModelState(event.model, available, record.position)
            _renew_all(state, record.position)
        case ModelDeleted():
            state.models.pop(event.model, None)
            state.health.pop(event.model, None)
            for bucket in state.buckets.values():
                _drop_column(bucket, event.model)
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
            _put_bucket(state, event.bucket, record.position)
        case BucketDeleted():
            state.buckets.pop(event.bucket, None)
    state.position = record.position
    state.time_ns = record.time_ns


def default_priors(bucket: Bucket) -> tuple[Prior, ...]:
    """Where an unknown model of ``bucket`` starts: quality, log cost, log latency, log output tokens.

    Quality, scaled to [0, 1], starts with an expected noise variance of 0.1, the logarithms with 0.25; intercepts give
    way to the first few observations (``INTERCEPT_PRECISION``), the effects of features later.
    """
    scale = bucket.quality_range
    quality = 0.5 if bucket.priors.quality is None else (bucket.priors.quality - scale.min) / scale.width
    return (
        Prior(quality, b=0.2),
        Prior(math.log(bucket.priors.cost), b=0.5),
        Prior(math.log(bucket.priors.latency), b=0.5),
        Prior(math.log(EXPECTED_TOKENS), b=0.5),
    )


def new_bucket(config: Bucket, version: int, generation: int) -> BucketState:
    """A bucket that has seen nothing and has no columns yet."""
    encoder = Encoder(config.schema)
    return BucketState(
        config=config,
        version=version,
        generation=generation,
        encoder=encoder,
        columns=(),
        posteriors=empty(encoder.dim),
        born_k=np.zeros(0, dtype=np.int64),
        decisions_k=np.zeros(0, dtype=np.int64),
        count_sk=np.zeros((SIGNALS, 0), dtype=np.int64),
        sum_sk=np.zeros((SIGNALS, 0)),
    )


def renew_candidates(state: State, bucket: BucketState, position: int) -> None:
    """Make ``members`` and ``candidates`` of one bucket anew, in place; new candidates get columns born at ``position``."""
    for model in bucket.config.models or tuple(sorted(state.models)):
        if model in state.models and model not in bucket.columns:
            _add_column(bucket, model, position)
    if bucket.config.budget is not None and bucket.pacer is None:
        bucket.pacer = new_pacer(len(bucket.columns))
    refresh_derived(state, bucket)


def refresh_derived(state: State, bucket: BucketState) -> None:
    """Make ``members`` and ``candidates`` of one bucket anew, in place, from the models that have columns."""
    listed = bucket.config.models or tuple(sorted(state.models))
    present = [model for model in listed if model in state.models and model in bucket.columns]
    place = {model: i for i, model in enumerate(bucket.columns)}
    bucket.objective = bucket.config.objective.resolve(bucket.config.quality_range)
    members = [place[model] for model in present]
    bucket.members = None if members == list(range(len(bucket.columns))) else np.array(members, dtype=np.intp)
    bucket.candidates = Candidates(
        models=tuple(state.models[model].model for model in present),
        available=tuple(state.models[model].available for model in present),
    )


def learn(
    bucket: BucketState,
    model: str,
    x_d: npt.NDArray[np.float64],
    changes: Iterable[Change],
    weight: float = 1.0,
) -> None:
    """Learn, in place, changes of what ``model``, which has a column, answered at ``x_d``; what is new as ``weight``
    observations.
    """
    k = bucket.columns.index(model)
    first: list[tuple[int, float]] = []
    for change in changes:
        signal, before, after = change.signal, change.before, change.after
        bucket.sum_sk[signal, k] += after - (before or 0.0)
        if before is None:
            bucket.count_sk[signal, k] += 1
        if signal not in RESPONSE_OF:
            continue
        response = RESPONSE_OF[signal]
        if before is None:
            first.append((response, response_value(bucket, response, after)))
        else:
            old, new = response_value(bucket, response, before), response_value(bucket, response, after)
            left = math.exp(min(0.0, clock(bucket, model, response) - change.faded))
            correct(bucket.posteriors, response, k, x_d, old, new, left)
    if first:
        observe_all(bucket.posteriors, k, x_d, first, weight, bucket.config.half_life)


def clock(bucket: BucketState, model: str, response: int) -> float:
    """How much of an observation made at the start forgetting has left, as a natural logarithm."""
    design = bucket.posteriors.designs[bucket.posteriors.design_r[response]]
    return float(design.faded_k[bucket.columns.index(model)])


def clocks(bucket: BucketState, model: str) -> dict[Signal, float]:
    """``clock`` of each signal that is learned; empty if the model has no column."""
    if model not in bucket.columns:
        return {}
    return {signal: clock(bucket, model, response) for signal, response in RESPONSE_OF.items()}


def response_value(bucket: BucketState, response: int, value: float) -> float:
    """What the regression of ``response`` learns of a signal's value in the bucket's units, dollars, seconds, tokens."""
    if response == QUALITY:
        scale = bucket.config.quality_range
        return (value - scale.min) / scale.width
    return math.log(max(value, SMALLEST[response]))


def fingerprint(state: State) -> str:
    """SHA-256, in hexadecimal, of all that a state holds: two states are equal bit for bit if these are equal."""
    digest = hashlib.sha256(f"{state.position} {state.time_ns}".encode())
    for name, model in sorted(state.models.items()):
        digest.update(repr((name, model.available, model.version, _canonical(model.model))).encode())
    for name, health in sorted(state.health.items()):
        digest.update(repr((name, health)).encode())
    for name, bucket in sorted(state.buckets.items()):
        digest.update(repr((name, bucket.version, bucket.generation, bucket.columns, bucket.config)).encode())
        for array in arrays(bucket).values():
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def arrays(bucket: BucketState) -> dict[str, npt.NDArray[np.generic]]:
    """The arrays that make a bucket's state, by name, in a fixed order."""
    counters = {name: getattr(bucket, name) for name in COUNTERS}
    pacer = {} if bucket.pacer is None else pacer_arrays(bucket.pacer)
    return {
        **to_arrays(bucket.posteriors),
        **counters,
        **{f"pacer/{name}": array for name, array in pacer.items()},
    }


def restore_arrays(bucket: BucketState, named: Mapping[str, npt.NDArray[Any]]) -> None:
    """Put the arrays of ``arrays`` back, in place. Raises ``KeyError`` if one is missing."""
    bucket.posteriors = from_arrays(named)
    for name in COUNTERS:
        setattr(bucket, name, named[name])
    pacer = {name.removeprefix("pacer/"): array for name, array in named.items() if name.startswith("pacer/")}
    bucket.pacer = pacer_from_arrays(pacer) if pacer else None


def _canonical(model: Model) -> Model:
    return replace(model, tags=dict(sorted(model.tags.items())))


def _put_bucket(state: State, config: Bucket, position: int) -> None:
    known = state.buckets.get(config.id)
    if known is not None and config.same_posteriors(known.config):
        if config.budget != known.config.budget:
            known.pacer = None
        known.config, known.version = config, position
        renew_candidates(state, known, position)
        return
    bucket = new_bucket(config, version=position, generation=position)
    renew_candidates(state, bucket, position)
    state.buckets[config.id] = bucket


def _renew_all(state: State, position: int) -> None:
    for bucket in state.buckets.values():
        renew_candidates(state, bucket, position)


def _apply_decision(state: State, event: DecisionMade, time_ns: int) -> None:
    if state.health:
        for i, model in enumerate(event.models):
            if model in state.health:
                passed(state.health[model], chosen=i == event.chosen)
    bucket = state.buckets.get(event.bucket)
    if bucket is None or bucket.generation != event.generation:
        return
    if not all(model in bucket.columns for model in event.models):
        return
    columns = np.array([bucket.columns.index(model) for model in event.models], dtype=np.intp)
    bucket.decisions_k[columns[event.chosen]] += 1
    config = bucket.config
    if config.budget is not None and bucket.pacer is not None:
        decided(bucket.pacer, config.budget, bucket.objective, config.quality_range, event, columns, time_ns)


def _apply_outcome(state: State, event: OutcomeApplied, time_ns: int) -> None:
    for change in event.changes:
        if change.signal is Signal.SUCCESS and change.before is None and event.model in state.models:
            called(state.health.setdefault(event.model, Health()), change.after != 0.0, time_ns)
    bucket = state.buckets.get(event.bucket)
    if bucket is None or bucket.generation != event.generation or event.model not in bucket.columns:
        return
    if event.state_position >= bucket.born_k[bucket.columns.index(event.model)]:
        learn(bucket, event.model, event.x_d, event.changes)
    for change in event.changes:
        if change.signal is Signal.COST and bucket.pacer is not None:
            cost_known(bucket.pacer, change.after - (event.expected_cost if change.before is None else change.before))


def _add_column(bucket: BucketState, model: str, position: int) -> None:
    bucket.posteriors = add_model(bucket.posteriors, default_priors(bucket.config))
    bucket.columns = (*bucket.columns, model)
    bucket.pacer = bucket.pacer and with_models(bucket.pacer, len(bucket.columns))
    bucket.born_k = np.append(bucket.born_k, position)
    bucket.decisions_k = np.append(bucket.decisions_k, 0)
    bucket.count_sk = np.pad(bucket.count_sk, ((0, 0), (0, 1)))
    bucket.sum_sk = np.pad(bucket.sum_sk, ((0, 0), (0, 1)))


def _drop_column(bucket: BucketState, model: str) -> None:
    if model not in bucket.columns:
        return
    k = bucket.columns.index(model)
    bucket.posteriors = without_model(bucket.posteriors, k)
    bucket.columns = bucket.columns[:k] + bucket.columns[k + 1 :]
    bucket.pacer = bucket.pacer and with_models(bucket.pacer, len(bucket.columns))
    bucket.born_k = np.delete(bucket.born_k, k)
    bucket.decisions_k = np.delete(bucket.decisions_k, k)
    bucket.count_sk = np.delete(bucket.count_sk, k, axis=1)
    bucket.sum_sk = np.delete(bucket.sum_sk, k, axis=1)
