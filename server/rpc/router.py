"""RouterService: decisions and their outcomes over gRPC. Reads messages, asks the replica, writes messages."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from pointsman.bandit.catalog import Model, QualityRange
from pointsman.bandit.encoder import Context
from pointsman.bandit.errors import FieldError, within
from pointsman.bandit.event import DecisionMade
from pointsman.bandit.policy import describe_exclusions, propensities, utilities
from pointsman.server.codec.request import (
    read_context,
    read_limits,
    read_objective,
    read_outcome,
    write_objective,
    write_reported_outcome,
)
from pointsman.server.names import bucket_name, decision_name, model_name, parse, parse_decision
from pointsman.server.rpc.status import KNOWN_ERRORS, Call, status_of, unary
from pointsman.server.state.replica import Known, Replica, Report, Reported
from pointsman.v1 import decision_pb2, router_service_pb2, router_service_pb2_grpc

MAX_BATCH = 4096
"""Most contexts or reports in one call."""
MAX_KEY = 128
"""Longest request id or idempotency key, in characters."""


class RouterService(router_service_pb2_grpc.RouterServiceServicer):
    """Serves a replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    @unary
    async def Decide(
        self, request: router_service_pb2.DecideRequest, context: Call
    ) -> router_service_pb2.DecideResponse:
        """Choose a model for one request."""
        known = await self._decide(request, [read_context(request.context)], "context")
        return router_service_pb2.DecideResponse(decision=await self._write(known[0], request.explain))

    @unary
    async def BatchDecide(
        self, request: router_service_pb2.BatchDecideRequest, context: Call
    ) -> router_service_pb2.BatchDecideResponse:
        """Choose models for many requests of one bucket."""
        _check_batch(len(request.contexts), "contexts")
        known = await self._decide(request, [read_context(c) for c in request.contexts], "contexts")
        decisions = [await self._write(one, request.explain) for one in known]
        return router_service_pb2.BatchDecideResponse(decisions=decisions)

    async def _decide(
        self,
        request: router_service_pb2.DecideRequest | router_service_pb2.BatchDecideRequest,
        contexts: list[Context],
        field: str,
    ) -> list[Known]:
        _check_key(request.request_id, "request_id")
        bucket = parse(request.bucket, "buckets", "bucket")
        with within("objective"):
            objective = read_objective(request.objective)
        with within("limits"):
            limits = read_limits(request.limits) if request.HasField("limits") else None
        return await self._replica.decide(bucket, contexts, objective, limits, request.request_id, field)

    @unary
    async def ReportOutcome(
        self, request: router_service_pb2.ReportOutcomeRequest, context: Call
    ) -> router_service_pb2.ReportOutcomeResponse:
        """Say what came of a decision."""
        return _write_reported(await self._replica.report(_read_report(request)))

    @unary
    async def BatchReportOutcomes(
        self, request: router_service_pb2.BatchReportOutcomesRequest, context: Call
    ) -> router_service_pb2.BatchReportOutcomesResponse:
        """Say what came of many decisions. Reports on one decision are taken in the order given."""
        _check_batch(len(request.requests), "requests")
        by_decision: dict[str, list[int]] = defaultdict(list)
        for i, one in enumerate(request.requests):
            by_decision[one.decision].append(i)
        results = [router_service_pb2.BatchReportOutcomesResult() for _ in request.requests]

        async def in_order(indices: list[int]) -> None:
            for i in indices:
                try:
                    reported = await self._replica.report(_read_report(request.requests[i]))
                except KNOWN_ERRORS as error:
                    code, status = status_of(error)
                    field = getattr(error, "field", "")
                    results[i].error.code = code.value[0]
                    results[i].error.message = status.message
                    results[i].error.field = f"requests[{i}].{field}" if field else ""
                else:
                    results[i].response.CopyFrom(_write_reported(reported))

        await asyncio.gather(*(in_order(indices) for indices in by_decision.values()))
        return router_service_pb2.BatchReportOutcomesResponse(results=results)

    @unary
    async def GetDecision(
        self, request: router_service_pb2.GetDecisionRequest, context: Call
    ) -> router_service_pb2.GetDecisionResponse:
        """A decision with its explanation and the outcomes known so far."""
        known = await self._replica.decision(parse_decision(request.name, "name"), "name")
        outcomes = [
            router_service_pb2.ModelOutcome(
                model=model_name(model),
                outcome=write_reported_outcome(outcome),
                reports=outcome.reports,
            )
            for model, outcome in known.reported_outcomes.items()
        ]
        return router_service_pb2.GetDecisionResponse(decision=await self._write(known, True), outcomes=outcomes)

    async def _write(self, known: Known, explain: bool) -> decision_pb2.Decision:
        message = write_decision(self._replica, known)
        if explain:
            scale = await self._replica.quality_range(known.decision)
            message.candidates.extend(_write_candidates(self._replica, known.decision, scale))
        return message


def write_decision(replica: Replica, known: Known) -> decision_pb2.Decision:
    """The message of a decision, without the explanation."""
    event = known.decision
    chosen = event.models[event.chosen]
    state = replica.state.models.get(chosen)
    message = decision_pb2.Decision(
        name=decision_name(event.id),
        bucket=bucket_name(event.bucket),
        model=model_name(chosen),
        upstream=(state.model.upstream if state else "") or chosen,
        fallbacks=[model_name(event.models[i]) for i in event.fallbacks],
        propensity=event.propensity,
        explored=event.explored,
        limits_violated=event.limits_violated,
        objective=write_objective(event.objective),
        state_position=event.state_position,
        newcomer_quota=event.quota if event.newcomers else None,
    )
    message.create_time.FromNanoseconds(known.time_ns)
    message.expire_time.FromNanoseconds(event.expire_ns)
    return message


def _write_candidates(replica: Replica, event: DecisionMade, scale: QualityRange) -> list[decision_pb2.Candidate]:
    """Every candidate and the numbers the decision was made with; ``scale`` is that of its time."""
    predicted = event.predicted
    pi_k = propensities(
        event.objective,
        scale,
        event.exploration_floor,
        predicted,
        event.exclusions_k,
        event.multiplier,
        event.newcomers,
        event.quota,
    )
    if event.limits_violated:
        pi_k[event.chosen] = 1.0
    utility_k = utilities(event.objective, scale, predicted)
    candidates = []
    for k, id_ in enumerate(event.models):
        bits = int(event.exclusions_k[k])
        state = replica.state.models.get(id_)
        model = state.model if state else Model(id_)
        reasons = [
            decision_pb2.Exclusion(reason=reason, detail=detail if state else "")  # type: ignore[arg-type]
            for reason, detail in describe_exclusions(bits, k, model, event.limits, scale, predicted)
        ]
        candidates.append(
            decision_pb2.Candidate(
                model=model_name(id_),
                eligible=bits == 0,
                exclusions=reasons,
                quality_mean=scale.min + scale.width * predicted.quality_k[k],
                quality_sd=scale.width * predicted.quality_sd_k[k],
                cost_usd=predicted.cost_k[k],
                latency_seconds=predicted.latency_k[k],
                latency_p95_seconds=predicted.latency_p95_k[k],
                propensity=pi_k[k],
                utility=utility_k[k],
                newcomer=k in event.newcomers,
            )
        )
    return candidates


def _read_report(request: router_service_pb2.ReportOutcomeRequest) -> Report:
    _check_key(request.idempotency_key, "idempotency_key")
    return Report(
        decision=parse_decision(request.decision, "decision"),
        signals=read_outcome(request.outcome),
        key=request.idempotency_key,
        model=parse(request.model, "models", "model") if request.model else "",
    )


def _write_reported(reported: Reported) -> router_service_pb2.ReportOutcomeResponse:
    return router_service_pb2.ReportOutcomeResponse(
        outcome=write_reported_outcome(reported.outcome),
        duplicate=reported.duplicate,
        position=reported.position,
    )


def _check_batch(size: int, field: str) -> None:
    if not 1 <= size <= MAX_BATCH:
        raise FieldError(field, f"expected 1 to {MAX_BATCH}, got {size}")


def _check_key(key: str, field: str) -> None:
    if len(key) > MAX_KEY:
        raise FieldError(field, f"expected at most {MAX_KEY} characters, got {len(key)}")
