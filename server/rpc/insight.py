"""InsightService: posterior summaries, live decisions and the journal itself over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from pointsman.bandit.bucket import BucketState, newcomer_counts
from pointsman.bandit.catalog import QualityRange
from pointsman.bandit.errors import FieldError
from pointsman.bandit.health import Health
from pointsman.bandit.outcome import Signal
from pointsman.bandit.pacer import ActiveBudget, remaining
from pointsman.bandit.posterior import QUALITY, noise, predict
from pointsman.server.codec.catalog import write_budget
from pointsman.server.codec.event import write_record
from pointsman.server.journal.interface import Row
from pointsman.server.names import bucket_name, model_name, parse
from pointsman.server.rpc.decision_message import write_decision
from pointsman.server.rpc.status import Call, streaming, unary
from pointsman.server.state.replica import Replica
from pointsman.v1 import insight_service_pb2 as rpc
from pointsman.v1 import insight_service_pb2_grpc

ROWS_PER_MESSAGE = 500


class InsightService(insight_service_pb2_grpc.InsightServiceServicer):
    """Serves what a replica knows."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    @unary
    async def GetBucketInsight(
        self, request: rpc.GetBucketInsightRequest, context: Call
    ) -> rpc.GetBucketInsightResponse:
        """Posterior summaries, traffic and spend of one bucket."""
        bucket = self._replica.bucket(parse(request.name, "buckets", "name"), "name")
        models = _insights(bucket, self._replica.state.health)
        own, project = None, None
        for active in self._replica.active_budgets(bucket):
            found = _budget(active, bucket.config.quality_range, self._replica.now_ns())
            own, project = (found, project) if active.pacer is bucket.pacer else (own, found)
        return rpc.GetBucketInsightResponse(
            name=bucket_name(bucket.config.id),
            budget=own,
            project_budget=project,
            models=models,
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
            self._replica.bucket(bucket)
        await context.send_initial_metadata(())  # tells the caller that it misses nothing from here on
        async for known in self._replica.watch(bucket):
            yield rpc.WatchDecisionsResponse(
                decision=write_decision(known.decision, known.time_ns, self._replica.state.models)
            )

    @streaming
    async def ExportJournal(
        self, request: rpc.ExportJournalRequest, context: Call
    ) -> AsyncIterator[rpc.ExportJournalResponse]:
        """Journal records from a position up to the end at the time of the call."""
        if request.from_position < 0:
            raise FieldError("from_position", f"expected 0 or more, got {request.from_position}")
        rows = self._replica.export(max(1, request.from_position), self._replica.state.position)
        loop = asyncio.get_running_loop()
        while chunk := await loop.run_in_executor(None, _take, rows, ROWS_PER_MESSAGE):
            yield rpc.ExportJournalResponse(
                records=[write_record(row.position, row.time_ns, row.data) for row in chunk]
            )


def _take(rows: Iterator[Row], count: int) -> list[Row]:
    return list(islice(rows, count))


def _budget(active: ActiveBudget, quality: QualityRange, now_ns: int) -> rpc.BudgetInsight:
    """A budget as it stands at ``now_ns``; ``quality`` is the scale of the bucket that is looked at."""
    budget, pacer = active.budget, active.pacer
    insight = rpc.BudgetInsight(
        budget=write_budget(budget),
        spent_usd=pacer.spent,
        reserved_usd=budget.amount - remaining(active, now_ns) if budget.hard else 0.0,
        multiplier=pacer.multiplier * quality.width,
        target_usd_per_request=pacer.target,
    )
    if budget.period_ns:
        now_ns = max(now_ns, pacer.last_ns)
        start_ns = now_ns - now_ns % budget.period_ns
        insight.period_start.FromNanoseconds(start_ns)
        insight.period_end.FromNanoseconds(start_ns + budget.period_ns)
        if start_ns != pacer.start_ns:  # nothing was decided in this period yet
            insight.spent_usd = 0.0
    return insight


def _insights(bucket: BucketState, health: Mapping[str, Health]) -> list[rpc.ModelInsight]:
    scale = bucket.config.quality_range
    average_d = bucket.context_d.copy()
    average_d[-1] = 1.0  # also before the first decision
    mean_kr, variance_kr = predict(bucket.posteriors, average_d)
    noise_kr = noise(bucket.posteriors)
    total = max(int(bucket.decisions_k.sum()), 1)
    new_k = newcomer_counts(bucket)
    new = set() if new_k is None else {bucket.candidates.names[i] for i in np.flatnonzero(new_k >= 0)}
    insights = []
    for k in sorted(range(len(bucket.columns)), key=lambda k: bucket.columns[k]):
        count, sums = bucket.count_sk[:, k], bucket.sum_sk[:, k]

        def average(signal: Signal, count: Any = count, sums: Any = sums) -> float | None:
            return float(sums[signal] / count[signal]) if count[signal] else None

        insights.append(
            rpc.ModelInsight(
                model=model_name(bucket.columns[k]),
                decisions=int(bucket.decisions_k[k]),
                traffic_share=float(bucket.decisions_k[k] / total),
                quality_observations=int(count[Signal.QUALITY]),
                cost_observations=int(count[Signal.COST]),
                latency_observations=int(count[Signal.LATENCY]),
                mean_quality=average(Signal.QUALITY),
                mean_cost_usd=average(Signal.COST),
                mean_latency_seconds=average(Signal.LATENCY),
                spend_usd=float(sums[Signal.COST]),
                quality_posterior_mean=scale.min + scale.width * float(mean_kr[k, QUALITY]),
                quality_posterior_sd=scale.width * float(np.sqrt(variance_kr[k, QUALITY])),
                quality_noise_sd=scale.width * float(np.sqrt(noise_kr[k, QUALITY])),
                successes=round(sums[Signal.SUCCESS]),
                failures=int(count[Signal.SUCCESS]) - round(sums[Signal.SUCCESS]),
                success_rate=health.get(bucket.columns[k], Health()).success_rate,
                circuit_open=health.get(bucket.columns[k], Health()).open,
                newcomer=bucket.columns[k] in new,
                latency_p95_factor=float(np.exp(bucket.posteriors.p95_correction_k[k])),
                prior_mass=float(bucket.posteriors.mass_k[k]),
            )
        )
    return insights
