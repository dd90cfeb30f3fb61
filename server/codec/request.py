"""Objectives, limits, contexts and outcomes: the contract's messages as the core's values, and back.

Reading a message raises ``FieldError`` with the path of the wrong field, relative to the message.

>>> limits = read_limits(decision_pb2.Limits(max_cost_usd=0.02, deny_models=["models/large"]))
>>> limits.max_cost, sorted(limits.deny)
(0.02, ['large'])
>>> read_outcome(outcome_pb2.Outcome(quality=0.9, success=True))
{<Signal.QUALITY: 1>: 0.9, <Signal.SUCCESS: 4>: 1.0}
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from pointsman.bandit import catalog as c
from pointsman.bandit.encoder import Context
from pointsman.bandit.errors import FieldError
from pointsman.bandit.limits import NO_LIMITS, Limits
from pointsman.bandit.outcome import ReportedOutcome, Signal
from pointsman.server.names import model_name, parse
from pointsman.v1 import catalog_pb2 as pb
from pointsman.v1 import context_pb2, decision_pb2, outcome_pb2

_MODE_NUMBERS = {
    c.Mode.BALANCED: pb.OBJECTIVE_MODE_BALANCED,
    c.Mode.QUALITY_FIRST: pb.OBJECTIVE_MODE_QUALITY_FIRST,
    c.Mode.COST_FIRST: pb.OBJECTIVE_MODE_COST_FIRST,
    c.Mode.LATENCY_FIRST: pb.OBJECTIVE_MODE_LATENCY_FIRST,
    c.Mode.WEIGHTED: pb.OBJECTIVE_MODE_WEIGHTED,
    c.Mode.AVAILABILITY_FIRST: pb.OBJECTIVE_MODE_AVAILABILITY_FIRST,
}
_MODES = {int(number): mode for mode, number in _MODE_NUMBERS.items()}


def read_objective(message: pb.Objective) -> c.Objective | None:
    """An objective, or ``None`` if the message is empty. Raises ``FieldError``."""
    if message == pb.Objective():
        return None
    if message.mode not in _MODES and message.mode != pb.OBJECTIVE_MODE_UNSPECIFIED:
        raise FieldError("mode", f"expected an ObjectiveMode, got the unknown number {message.mode}")
    floor = message.WhichOneof("quality_floor")
    return c.Objective(
        mode=_MODES.get(message.mode, c.Mode.BALANCED),
        cost_weight=message.cost_weight if message.HasField("cost_weight") else None,
        latency_weight=message.latency_weight if message.HasField("latency_weight") else None,
        min_quality=message.min_quality if floor == "min_quality" else None,
        max_quality_loss=message.max_quality_loss if floor == "max_quality_loss" else None,
        min_mean_quality=message.min_mean_quality if floor == "min_mean_quality" else None,
    )


@lru_cache(maxsize=256)
def write_objective(objective: c.Objective) -> pb.Objective:
    """The message of an objective. It is shared by callers, which must not change it."""
    return pb.Objective(
        mode=_MODE_NUMBERS[objective.mode],
        cost_weight=objective.cost_weight,
        latency_weight=objective.latency_weight,
        min_quality=objective.min_quality,
        max_quality_loss=objective.max_quality_loss,
        min_mean_quality=objective.min_mean_quality,
    )


def read_limits(message: decision_pb2.Limits) -> Limits:
    """The limits of a request: costs in dollars, latencies in seconds. Raises ``FieldError``."""
    if message.latency_statistic not in decision_pb2.LatencyStatistic.values():
        raise FieldError("latency_statistic", f"got the unknown number {message.latency_statistic}")
    return Limits(
        max_cost=message.max_cost_usd if message.HasField("max_cost_usd") else None,
        max_latency=message.max_latency_seconds if message.HasField("max_latency_seconds") else None,
        latency_p95=message.latency_statistic == decision_pb2.LATENCY_STATISTIC_P95,
        min_quality=message.min_quality if message.HasField("min_quality") else None,
        allow=_read_models(message.allow_models, "allow_models"),
        deny=_read_models(message.deny_models, "deny_models"),
        capabilities=frozenset(message.required_capabilities),
        tags=dict(message.required_tags),
        allow_least_violating=message.allow_least_violating,
    )


def write_limits(limits: Limits) -> decision_pb2.Limits | None:
    """The message of limits; ``None`` for ``NO_LIMITS``."""
    if limits is NO_LIMITS:
        return None
    statistic = decision_pb2.LATENCY_STATISTIC_P95 if limits.latency_p95 else decision_pb2.LATENCY_STATISTIC_MEAN
    return decision_pb2.Limits(
        max_cost_usd=limits.max_cost,
        max_latency_seconds=limits.max_latency,
        latency_statistic=statistic if limits.max_latency is not None else None,
        min_quality=limits.min_quality,
        allow_models=[model_name(model) for model in sorted(limits.allow)],
        deny_models=[model_name(model) for model in sorted(limits.deny)],
        required_capabilities=sorted(limits.capabilities),
        required_tags=limits.tags,
        allow_least_violating=limits.allow_least_violating,
    )


def _read_models(names: Iterable[str], field: str) -> frozenset[str]:
    return frozenset(parse(name, "models", f"{field}[{i}]") for i, name in enumerate(names))


def read_context(message: context_pb2.Context) -> Context:
    """The context of a request before the call. The encoder checks the values against the bucket's schema."""
    return Context(
        numbers=message.numbers,
        categories=message.categories,
        embeddings={name: vector.values for name, vector in message.embeddings.items()},
        text=message.text if message.HasField("text") else None,
        input_tokens=message.input_tokens if message.HasField("input_tokens") else None,
        max_output_tokens=message.max_output_tokens if message.HasField("max_output_tokens") else None,
    )


_OUTCOME_FIELDS = {
    "quality": Signal.QUALITY,
    "cost_usd": Signal.COST,
    "latency_seconds": Signal.LATENCY,
    "success": Signal.SUCCESS,
    "input_tokens": Signal.INPUT_TOKENS,
    "output_tokens": Signal.OUTPUT_TOKENS,
}


def read_outcome(message: outcome_pb2.Outcome) -> dict[Signal, float]:
    """The signals that are set, as numbers: dollars, seconds, tokens, and success as 0 or 1."""
    return {
        _OUTCOME_FIELDS[descriptor.name]: float(value)
        for descriptor, value in message.ListFields()
        if descriptor.name in _OUTCOME_FIELDS
    }


def write_reported_outcome(reported: ReportedOutcome) -> outcome_pb2.Outcome:
    """The message of all that was reported of one model's outcome."""
    values = {signal: aggregate.value for signal, aggregate in reported.aggregates.items()}
    message = outcome_pb2.Outcome()
    for name, signal in _OUTCOME_FIELDS.items():
        if signal in values:
            value = values[signal]
            if signal is Signal.SUCCESS:
                message.success = value != 0.0
            elif signal in (Signal.INPUT_TOKENS, Signal.OUTPUT_TOKENS):
                setattr(message, name, int(value))
            else:
                setattr(message, name, value)
    return message
