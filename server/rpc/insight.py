"""InsightService: posterior summaries, live decisions and the journal itself over gRPC.

>>> write_record(position=7, time_ns=5, data=b"", terms={}).position  # exported are such records, up to 500 in a message
7
>>> ROWS_PER_MESSAGE
500
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from pointsman.bandit.errors import FieldError
from pointsman.server.codec.event import write_record
from pointsman.server.names import bucket_name, parse
from pointsman.server.rpc.bucket_insight import write_budget_insight, write_model_insights, write_quality_floor
from pointsman.server.rpc.decision_message import write_decision
from pointsman.server.rpc.feature_insight import write_feature_insights
from pointsman.server.rpc.status import Call, streaming, unary
from pointsman.server.state.replica import Replica
from pointsman.v1 import insight_service_pb2 as rpc
from pointsman.v1 import insight_service_pb2_grpc

ROWS_PER_MESSAGE = 500
"""Most records in one message of an export."""


class InsightService(insight_service_pb2_grpc.InsightServiceServicer):
    """Serves a replica's state and journal."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    @unary
    async def GetBucketInsight(
        self, request: rpc.GetBucketInsightRequest, context: Call
    ) -> rpc.GetBucketInsightResponse:
        """Posterior summaries, traffic and spend of one bucket."""
        bucket = self._replica.catalogue.bucket(parse(request.name, "buckets", "name"), "name")
        models = write_model_insights(bucket, self._replica.state.health, self._replica.now_ns())
        own, project = None, None
        for active in self._replica.active_budgets(bucket):
            insight = write_budget_insight(active, bucket.config.quality_range, self._replica.now_ns())
            own, project = (insight, project) if active.pacer is bucket.pacer else (own, insight)
        return rpc.GetBucketInsightResponse(
            name=bucket_name(bucket.config.id),
            budget=own,
            project_budget=project,
            quality_floor=write_quality_floor(bucket),
            models=models,
            features=write_feature_insights(bucket),
            decisions=int(bucket.decisions_k.sum()),
            spend_usd=sum(model.spend_usd for model in models),
            position=self._replica.state.position,
        )

    @streaming
    async def WatchDecisions(
        self, request: rpc.WatchDecisionsRequest, context: Call
    ) -> AsyncIterator[rpc.WatchDecisionsResponse]:
        """Decisions as they become durable."""
        bucket = parse(request.bucket, "buckets", "bucket") if request.bucket else ""
        if bucket:
            self._replica.catalogue.bucket(bucket)
        with self._replica.watchers.watch(bucket) as records:
            await context.send_initial_metadata(())  # tells the caller that it misses nothing from here on
            async for record in records:
                yield rpc.WatchDecisionsResponse(
                    decision=write_decision(record.decision, record.time_ns, self._replica.state.models)
                )

    @streaming
    async def ExportJournal(
        self, request: rpc.ExportJournalRequest, context: Call
    ) -> AsyncIterator[rpc.ExportJournalResponse]:
        """Journal records from a position up to the end at the time of the call."""
        if request.from_position < 0:
            raise FieldError("from_position", f"expected 0 or more, got {request.from_position}")
        terms = self._replica.state.terms
        async for rows in self._replica.export(max(1, request.from_position), self._replica.state.position):
            for start in range(0, len(rows), ROWS_PER_MESSAGE):
                some = rows[start : start + ROWS_PER_MESSAGE]
                records = [write_record(row.position, row.time_ns, row.data, terms) for row in some]
                yield rpc.ExportJournalResponse(records=records)
