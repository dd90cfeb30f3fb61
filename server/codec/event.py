"""Journal events: the contract's messages as the core's values, and back.

>>> message = write_event(e.AvailabilitySet("small", available=False, reason="outage"))
>>> message.model_availability_set.reason, read_event(message, terms={}).available
('outage', False)
>>> write_record(7, 1_000, message.SerializeToString(), terms={}).event.time_ns
1000
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pointsman.bandit import event as e
from pointsman.bandit.limits import NO_LIMITS
from pointsman.bandit.novelty import Novelty
from pointsman.bandit.outcome import ReportedOutcome, Signal, SignalAggregate, SignalChange
from pointsman.bandit.predictions import Predictions
from pointsman.bandit.terms import TermsHistory
from pointsman.server.codec.catalog import (
    read_bucket,
    read_model,
    read_project,
    write_bucket,
    write_model,
    write_project,
)
from pointsman.server.codec.request import read_limits, write_limits
from pointsman.server.codec.terms import fill_in, read_terms, write_terms
from pointsman.v1 import catalog_pb2 as pb
from pointsman.v1 import journal_pb2

_SIGNAL_NUMBERS = {
    Signal.QUALITY: journal_pb2.SIGNAL_QUALITY,
    Signal.COST: journal_pb2.SIGNAL_COST,
    Signal.LATENCY: journal_pb2.SIGNAL_LATENCY,
    Signal.SUCCESS: journal_pb2.SIGNAL_SUCCESS,
    Signal.INPUT_TOKENS: journal_pb2.SIGNAL_INPUT_TOKENS,
    Signal.OUTPUT_TOKENS: journal_pb2.SIGNAL_OUTPUT_TOKENS,
}


def write_event(event: e.Event, terms: TermsHistory | None = None) -> journal_pb2.JournalEvent:
    """The message of an event, without its time."""
    match event:
        case e.DecisionMade():
            return journal_pb2.JournalEvent(decision_made=_write_decision(event, terms))
        case e.OutcomeApplied():
            return journal_pb2.JournalEvent(outcome_applied=_write_outcome_applied(event))
        case e.ModelPut():
            return journal_pb2.JournalEvent(model_put=journal_pb2.ModelPut(model=write_model(event.model)))
        case e.ModelDeleted():
            return journal_pb2.JournalEvent(model_deleted=journal_pb2.ModelDeleted(model=event.model))
        case e.AvailabilitySet():
            availability = pb.MODEL_AVAILABILITY_ENABLED if event.available else pb.MODEL_AVAILABILITY_DISABLED
            return journal_pb2.JournalEvent(
                model_availability_set=journal_pb2.ModelAvailabilitySet(
                    model=event.model, availability=availability, reason=event.reason
                )
            )
        case e.BucketPut():
            put = journal_pb2.BucketPut(bucket=write_bucket(event.bucket), encoder_version=event.encoder_version)
            return journal_pb2.JournalEvent(bucket_put=put)
        case e.BucketDeleted():
            return journal_pb2.JournalEvent(bucket_deleted=journal_pb2.BucketDeleted(bucket=event.bucket))
        case e.ProjectPut():
            return journal_pb2.JournalEvent(project_put=journal_pb2.ProjectPut(project=write_project(event.project)))
        case e.ProjectDeleted():
            return journal_pb2.JournalEvent(project_deleted=journal_pb2.ProjectDeleted(project=event.project))


def read_event(message: journal_pb2.JournalEvent, terms: TermsHistory) -> e.Event:
    """The event in a message; ``terms`` supply the fields that a stored decision omits.

    Raises ``ValueError`` for a kind unknown to this version and a decision whose terms are not known, ``FieldError`` for a wrong
    value.
    """
    match message.WhichOneof("kind"):
        case "decision_made":
            return _read_decision(message.decision_made, terms)
        case "outcome_applied":
            return _read_outcome_applied(message.outcome_applied)
        case "model_put":
            return e.ModelPut(read_model(message.model_put.model))
        case "model_deleted":
            return e.ModelDeleted(message.model_deleted.model)
        case "model_availability_set":
            switch = message.model_availability_set
            return e.AvailabilitySet(
                switch.model,
                switch.availability != pb.MODEL_AVAILABILITY_DISABLED,
                switch.reason,
            )
        case "bucket_put":
            put = message.bucket_put
            return e.BucketPut(read_bucket(put.bucket), put.encoder_version or 1)
        case "bucket_deleted":
            return e.BucketDeleted(message.bucket_deleted.bucket)
        case "project_put":
            return e.ProjectPut(read_project(message.project_put.project))
        case "project_deleted":
            return e.ProjectDeleted(message.project_deleted.project)
        case _:
            raise ValueError("a journal event is of a kind that this version of Pointsman does not know")


def write_record(position: int, time_ns: int, data: bytes, terms: TermsHistory) -> journal_pb2.JournalRecord:
    """The message of a stored event, as it is exported: ``data`` is a ``JournalEvent`` without its time, and without what
    ``terms`` say.

    Raises ``ValueError`` if it refers to terms that are not known.
    """
    event = journal_pb2.JournalEvent.FromString(data)
    if event.HasField("decision_made"):
        fill_in(event.decision_made, terms)
    event.time_ns = time_ns
    return journal_pb2.JournalRecord(position=position, event=event)


def _write_decision(event: e.DecisionMade, history: TermsHistory | None) -> journal_pb2.DecisionMade:
    predicted = event.predicted
    message = journal_pb2.DecisionMade(
        id=event.id,
        bucket=event.bucket,
        generation=event.generation,
        features=event.x_d.tolist(),
        chosen=event.chosen,
        fallbacks=event.fallbacks,
        propensity=event.propensity,
        explored=event.explored,
        limits_violated=event.limits_violated,
        quality_mean=predicted.quality_k.tolist(),
        quality_sd=predicted.quality_sd_k.tolist(),
        cost=predicted.cost_k.tolist(),
        latency=predicted.latency_k.tolist(),
        latency_p95=predicted.latency_p95_k.tolist(),
        output_tokens=predicted.tokens_k.tolist(),
        quality_draw=event.draw_k.tolist(),
        exclusions=event.exclusions_k.tolist(),
        multiplier=event.multiplier,
        exploration_floor=event.exploration_floor,
        limits=write_limits(event.limits),
        state_position=event.state_position,
        expire_time_ns=event.expire_ns,
        request_id=event.request_id,
        input_tokens=event.input_tokens,
        max_output_tokens=event.max_output_tokens,
        newcomers=event.newcomers,
        quota=event.quota,
        max_cost=event.max_cost,
        references=event.references,
        log_decays=event.log_decays,
        measured=event.measured_m.tolist(),
        project=event.project,
        by_price=event.by_price,
        quotas=event.quotas,
    )
    if predicted.draw_sd_k is not None:
        message.draw_sd.extend(predicted.draw_sd_k.tolist())
    if predicted.novelty is not None:
        message.novelty.extend(predicted.novelty.share_k.tolist())
        message.wide_mean.extend(predicted.novelty.mean_k.tolist())
        message.wide_sd.extend(predicted.novelty.sd_k.tolist())
    if predicted.charged_k is not None:
        message.charged_cost.extend(predicted.charged_k.tolist())
    write_terms(message, event, history)
    return message


def _read_decision(message: journal_pb2.DecisionMade, history: TermsHistory) -> e.DecisionMade:
    terms = read_terms(message, history)
    return e.DecisionMade(
        id=message.id,
        bucket=message.bucket,
        generation=message.generation,
        x_d=np.array(message.features, dtype=np.float64),
        models=terms.models,
        chosen=message.chosen,
        fallbacks=tuple(message.fallbacks),
        propensity=message.propensity,
        explored=message.explored,
        limits_violated=message.limits_violated,
        predicted=Predictions(
            np.array(message.quality_mean),
            np.array(message.quality_sd),
            np.array(message.cost),
            np.array(message.latency),
            np.array(message.latency_p95),
            np.array(message.output_tokens),
            np.array(message.draw_sd) if message.draw_sd else None,
            _read_novelty(message),
            np.array(message.charged_cost) if message.charged_cost else None,
        ),
        draw_k=np.array(message.quality_draw),
        exclusions_k=np.array(message.exclusions, dtype=np.int64),
        objective=terms.objective,
        quality=terms.quality,
        multiplier=message.multiplier,
        exploration_floor=message.exploration_floor,
        limits=read_limits(message.limits) if message.HasField("limits") else NO_LIMITS,
        state_position=message.state_position,
        expire_ns=message.expire_time_ns,
        request_id=message.request_id,
        input_tokens=message.input_tokens,
        max_output_tokens=message.max_output_tokens,
        newcomers=tuple(message.newcomers),
        quota=message.quota,
        max_cost=message.max_cost,
        references=tuple(message.references),
        log_decays=tuple(message.log_decays),
        measured_m=np.array(message.measured),
        project=message.project,
        by_price=message.by_price,
        quotas=tuple(message.quotas),
    )


def _read_novelty(message: journal_pb2.DecisionMade) -> Novelty | None:
    if not message.novelty:
        return None
    return Novelty(np.array(message.novelty), np.array(message.wide_mean), np.array(message.wide_sd))


def _write_outcome_applied(event: e.OutcomeApplied) -> journal_pb2.OutcomeApplied:
    return journal_pb2.OutcomeApplied(
        decision_id=event.decision_id,
        bucket=event.bucket,
        generation=event.generation,
        model=event.model,
        features=event.x_d.tolist(),
        state_position=event.state_position,
        expected_cost=event.expected_cost,
        changes=[_write_change(change) for change in event.changes],
        idempotency_key=event.idempotency_key,
        decided_time_ns=event.decided_ns,
        project=event.project,
        max_cost=event.max_cost,
        expected_quality=event.expected_quality,
        references=event.references,
        input_tokens=event.input_tokens if event.input_tokens >= 0 else None,
        reported_outcomes=[
            _write_model_outcome(model, reported) for model, reported in event.reported_outcomes.items()
        ],
    )


def _write_model_outcome(model: str, reported: ReportedOutcome) -> journal_pb2.ReportedOutcome:
    return journal_pb2.ReportedOutcome(
        model=model,
        reports=reported.reports,
        aggregates=[_write_aggregate(signal, aggregate) for signal, aggregate in reported.aggregates.items()],
    )


def _write_change(change: SignalChange) -> journal_pb2.SignalChange:
    message = journal_pb2.SignalChange(
        signal=_SIGNAL_NUMBERS[change.signal], before=change.before, after=change.after, log_decay=change.log_decay
    )
    if change.released is not None:
        message.released = change.released
    if change.released_before is not None:
        message.released_before = change.released_before
    return message


def _write_aggregate(signal: Signal, aggregate: SignalAggregate) -> journal_pb2.SignalAggregate:
    message = journal_pb2.SignalAggregate(
        signal=_SIGNAL_NUMBERS[signal],
        count=aggregate.count,
        sum=aggregate.sum,
        last=aggregate.last,
        value=aggregate.value,
        log_decay=aggregate.log_decay,
    )
    if aggregate.released is not None:
        message.released = aggregate.released
    return message


def _read_outcome_applied(message: journal_pb2.OutcomeApplied) -> e.OutcomeApplied:
    return e.OutcomeApplied(
        decision_id=message.decision_id,
        bucket=message.bucket,
        generation=message.generation,
        model=message.model,
        x_d=np.array(message.features, dtype=np.float64),
        state_position=message.state_position,
        expected_cost=message.expected_cost,
        changes=tuple(
            SignalChange(
                Signal(change.signal),
                change.before if change.HasField("before") else None,
                change.after,
                change.log_decay,
                change.released if change.HasField("released") else None,
                change.released_before if change.HasField("released_before") else None,
            )
            for change in message.changes
        ),
        reported_outcomes=read_reported_outcomes(message),
        idempotency_key=message.idempotency_key,
        decided_ns=message.decided_time_ns,
        project=message.project,
        max_cost=message.max_cost,
        expected_quality=message.expected_quality if message.HasField("expected_quality") else None,
        references=tuple(message.references),
        input_tokens=message.input_tokens if message.HasField("input_tokens") else -1,
    )


def read_reported_outcomes(message: journal_pb2.OutcomeApplied) -> Mapping[str, ReportedOutcome]:
    """What was reported of a decision up to and with an outcome event, by model."""
    return {reported.model: _read_model_outcome(reported) for reported in message.reported_outcomes}


def _read_model_outcome(message: journal_pb2.ReportedOutcome) -> ReportedOutcome:
    aggregates = {
        Signal(aggregate.signal): SignalAggregate(
            aggregate.count,
            aggregate.sum,
            aggregate.last,
            aggregate.value,
            aggregate.log_decay,
            aggregate.released if aggregate.HasField("released") else None,
        )
        for aggregate in message.aggregates
    }
    return ReportedOutcome(aggregates, message.reports)
