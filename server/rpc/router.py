"""RouterService: decisions and their outcomes over gRPC. Reads messages, asks the replica, writes messages.

>>> check_batch(MAX_BATCH, "contexts")
>>> check_key("x" * 129, "request_id")
Traceback (most recent call last):
    ...
pointsman.bandit.errors.FieldError: request_id: expected at most 128 characters, got 129
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from pointsman.bandit.encoder import Context
from pointsman.bandit.errors import FieldError, within
from pointsman.server.codec.request import (
    read_context,
    read_limits,
    read_objective,
    read_outcome,
    write_reported_outcome,
)
from pointsman.server.names import model_name, parse, parse_decision
from pointsman.server.rpc.decision_message import write_candidates, write_decision
from pointsman.server.rpc.status import KNOWN_ERRORS, Call, status_of, unary
from pointsman.server.state.outcomes import Report, Reported
from pointsman.server.state.records import DecisionRecord
from pointsman.server.state.replica import Replica
from pointsman.v1 import decision_pb2, router_service_pb2, router_service_pb2_grpc

MAX_BATCH = 4096
"""Most contexts or reports in one call."""
MAX_KEY = 128
"""Longest request id or idempotency key, in characters."""


class RouterService(router_service_pb2_grpc.RouterServiceServicer):
    """Serves a replica's decisions and outcomes."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    @unary
    async def Decide(
        self, request: router_service_pb2.DecideRequest, context: Call
    ) -> router_service_pb2.DecideResponse:
        """Choose a model for one request."""
        (record,) = await self._decide(request, [read_context(request.context)], "context")
        return router_service_pb2.DecideResponse(decision=self._write(record, request.explain))

    @unary
    async def BatchDecide(
        self, request: router_service_pb2.BatchDecideRequest, context: Call
    ) -> router_service_pb2.BatchDecideResponse:
        """Choose models for many requests of one bucket."""
        check_batch(len(request.contexts), "contexts")
        contexts = [read_context(message) for message in request.contexts]
        records = await self._decide(request, contexts, "contexts")
        decisions = [self._write(record, request.explain) for record in records]
        return router_service_pb2.BatchDecideResponse(decisions=decisions)

    async def _decide(
        self,
        request: router_service_pb2.DecideRequest | router_service_pb2.BatchDecideRequest,
        contexts: list[Context],
        field: str,
    ) -> list[DecisionRecord]:
        check_key(request.request_id, "request_id")
        bucket = parse(request.bucket, "buckets", "bucket")
        with within("objective"):
            objective = read_objective(request.objective)
        with within("limits"):
            limits = read_limits(request.limits) if request.HasField("limits") else None
        return await self._replica.decisions.decide(bucket, contexts, objective, limits, request.request_id, field)

    @unary
    async def ReportOutcome(
        self, request: router_service_pb2.ReportOutcomeRequest, context: Call
    ) -> router_service_pb2.ReportOutcomeResponse:
        """Report the outcome of a decision, or a part of it."""
        return _write_reported(await self._replica.outcomes.report(_read_report(request)))

    @unary
    async def BatchReportOutcomes(
        self, request: router_service_pb2.BatchReportOutcomesRequest, context: Call
    ) -> router_service_pb2.BatchReportOutcomesResponse:
        """Report the outcomes of many decisions. Reports on one decision are taken in the order given."""
        check_batch(len(request.requests), "requests")
        by_decision: dict[str, list[int]] = defaultdict(list)
        for i, report in enumerate(request.requests):
            by_decision[report.decision].append(i)
        results = [router_service_pb2.BatchReportOutcomesResult() for _ in request.requests]

        async def in_order(indices: list[int]) -> None:
            for i in indices:
                try:
                    reported = await self._replica.outcomes.report(_read_report(request.requests[i]))
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
        record = await self._replica.records.get(parse_decision(request.name, "name"), "name")
        outcomes = [
            router_service_pb2.ModelOutcome(
                model=model_name(model),
                outcome=write_reported_outcome(outcome),
                reports=outcome.reports,
            )
            for model, outcome in record.reported_outcomes.items()
        ]
        return router_service_pb2.GetDecisionResponse(decision=self._write(record, True), outcomes=outcomes)

    def _write(self, record: DecisionRecord, explain: bool) -> decision_pb2.Decision:
        models = self._replica.state.models
        message = write_decision(record.decision, record.time_ns, models)
        if explain:
            message.candidates.extend(write_candidates(record.decision, models))
        return message


def _read_report(request: router_service_pb2.ReportOutcomeRequest) -> Report:
    check_key(request.idempotency_key, "idempotency_key")
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


def check_batch(size: int, field: str) -> None:
    """Raise ``FieldError`` unless a batch has a size that one call may have."""
    if not 1 <= size <= MAX_BATCH:
        raise FieldError(field, f"expected 1 to {MAX_BATCH}, got {size}")


def check_key(key: str, field: str) -> None:
    """Raise ``FieldError`` if a request id or idempotency key is too long."""
    if len(key) > MAX_KEY:
        raise FieldError(field, f"expected at most {MAX_KEY} characters, got {len(key)}")
