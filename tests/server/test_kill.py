"""A server that is killed at any moment loses nothing that it acknowledged and applies nothing twice.

Real processes, SIGKILL under load after a seeded random number of answers, and a client that keeps a history of its operations.
Four kills by default; set POINTSMAN_KILLS for more.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import grpc
import pytest

from pointsman.bandit.state import State, fingerprint
from pointsman.server.journal.sqlite_store import read_rows
from pointsman.server.state.recovery import fold_rows
from pointsman.v1 import (
    catalog_pb2,
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    context_pb2,
    insight_service_pb2,
    insight_service_pb2_grpc,
    outcome_pb2,
    router_service_pb2,
    router_service_pb2_grpc,
)
from tests.processes import Serve, Served, refused_start, until
from tests.server.conftest import recovered

KILLS = int(os.environ.get("POINTSMAN_KILLS", "4"))
CALLERS = 12
MODELS = ("models/a", "models/b", "models/c")


class History:
    """What the client knows: decisions that were acknowledged, and reports by key, acknowledged or not."""

    def __init__(self) -> None:
        self.decisions: dict[str, str] = {}
        self.sent: dict[tuple[str, str], float] = {}
        self.acknowledged: set[tuple[str, str]] = set()


async def set_up(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        for name in MODELS:
            model = catalog_pb2.Model(name=name)
            await catalog.UpdateModel(catalog_service_pb2.UpdateModelRequest(model=model, allow_missing=True))
        budget = catalog_pb2.Budget(usd_per_period=1e6)
        project = catalog_pb2.Project(name="projects/p", budget=budget)
        await catalog.UpdateProject(catalog_service_pb2.UpdateProjectRequest(project=project, allow_missing=True))
        bucket = catalog_pb2.Bucket(
            name="buckets/b",
            project="projects/p",
            budget=budget,
            context_schema=catalog_pb2.ContextSchema(numbers=[catalog_pb2.NumberFeature(name="n")]),
            outcome_rules=catalog_pb2.OutcomeRules(quality=catalog_pb2.AGGREGATION_LAST),
        )
        await catalog.UpdateBucket(catalog_service_pb2.UpdateBucketRequest(bucket=bucket, allow_missing=True))


async def load(served: Served, history: History, rng: random.Random, answers: int) -> None:
    """Decide and report from many callers until the server is killed, after so many ``answers``."""
    enough = len(history.decisions) + len(history.acknowledged) + answers
    async with grpc.aio.insecure_channel(served.address) as channel:
        router = router_service_pb2_grpc.RouterServiceStub(channel)

        async def report(name: str, key: str, quality: float) -> None:
            history.sent[name, key] = quality
            request = router_service_pb2.ReportOutcomeRequest(
                decision=name, idempotency_key=key, outcome=outcome_pb2.Outcome(quality=quality, cost_usd=0.5)
            )
            await router.ReportOutcome(request)
            history.acknowledged.add((name, key))

        async def caller() -> None:
            while True:
                context = context_pb2.Context(numbers={"n": rng.random()})
                decided = await router.Decide(router_service_pb2.DecideRequest(bucket="buckets/b", context=context))
                name = decided.decision.name
                history.decisions[name] = decided.decision.model
                if rng.random() < 0.8:
                    await report(name, "first", rng.random())
                if rng.random() < 0.2:
                    late = rng.choice(list(history.decisions))
                    if (late, "late") not in history.sent:
                        await report(late, "late", rng.random())

        async def kill() -> None:
            try:
                await until(lambda: len(history.decisions) + len(history.acknowledged) >= enough, f"{answers} answers")
            finally:
                served.process.kill()

        done = await asyncio.gather(kill(), *(caller() for _ in range(CALLERS)), return_exceptions=True)
        unexpected = [e for e in done if not (e is None or isinstance(e, grpc.aio.AioRpcError))]
        assert not unexpected, unexpected
        assert {e.code() for e in done[1:] if isinstance(e, grpc.aio.AioRpcError)} <= {grpc.StatusCode.UNAVAILABLE}


async def settle(address: str, history: History) -> insight_service_pb2.GetBucketInsightResponse:
    """Send again what was not acknowledged, report on every decision, and ask what the server knows."""
    async with grpc.aio.insecure_channel(address) as channel:
        router = router_service_pb2_grpc.RouterServiceStub(channel)
        again = [pair for pair in history.sent if pair not in history.acknowledged]
        repeated = random.Random(1).sample(sorted(history.acknowledged), min(50, len(history.acknowledged)))
        for name, key in again + repeated:
            request = router_service_pb2.ReportOutcomeRequest(
                decision=name,
                idempotency_key=key,
                outcome=outcome_pb2.Outcome(quality=history.sent[name, key], cost_usd=0.5),
            )
            answer = await router.ReportOutcome(request)
            assert answer.duplicate or (name, key) in again, "an acknowledged outcome was lost"
        requests = [
            router_service_pb2.ReportOutcomeRequest(decision=name, outcome=outcome_pb2.Outcome(latency_seconds=1.0))
            for name in history.decisions
        ]
        for i in range(0, len(requests), 1000):
            batch = router_service_pb2.BatchReportOutcomesRequest(requests=requests[i : i + 1000])
            for result in (await router.BatchReportOutcomes(batch)).results:
                assert result.HasField("response"), result.error.message
        insight = insight_service_pb2_grpc.InsightServiceStub(channel)
        return await insight.GetBucketInsight(insight_service_pb2.GetBucketInsightRequest(name="buckets/b"))


def test_nothing_acknowledged_is_lost_and_nothing_is_applied_twice(serve: Serve, tmp_path: Path) -> None:
    history, rng, data = History(), random.Random(0), tmp_path / "data"
    served = serve(data)
    asyncio.run(set_up(served.address))
    for _ in range(KILLS):
        asyncio.run(load(served, history, rng, answers=rng.randrange(100, 600)))
        assert served.wait() == -signal.SIGKILL
        served = serve(data)
    insight = asyncio.run(settle(served.address, history))
    reported = {name for name, _ in history.sent}
    assert len(history.decisions) > 20 * KILLS
    for model in insight.models:
        mine = [name for name in history.decisions if history.decisions[name] == model.model]
        with_quality = [name for name in mine if name in reported]
        assert model.latency_observations == len(mine), "a decision was lost or counted twice"
        assert model.quality_observations == len(with_quality), "an outcome was lost or counted twice"
        assert model.spend_usd == pytest.approx(0.5 * len(with_quality))
        assert model.decisions >= len(mine)  # decisions that were made but not acknowledged count too
    assert served.stop() == 0
    refolded = fold_rows(read_rows(data), State())
    assert fingerprint(recovered(data)) == fingerprint(refolded)
    bucket = refolded.buckets["b"]
    for model in insight.models:
        k = bucket.columns.index(model.model.removeprefix("models/"))
        design = bucket.posteriors.designs[bucket.posteriors.design_r[0]]
        assert design.count_k[k] == model.quality_observations


def test_a_second_server_on_the_same_directory_is_refused(serve: Serve, tmp_path: Path) -> None:
    served = serve(tmp_path / "data")
    second = refused_start(tmp_path / "data")
    assert second.returncode == 1
    assert "another process" in second.stderr
    assert served.stop() == 0


def test_a_damaged_snapshot_is_skipped(serve: Serve, tmp_path: Path) -> None:
    served = serve(tmp_path / "data")
    asyncio.run(set_up(served.address))
    assert served.stop() == 0
    (snapshot,) = (tmp_path / "data" / "snapshots").glob("*.snapshot")
    damaged = bytearray(snapshot.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    snapshot.write_bytes(bytes(damaged))
    served = serve(tmp_path / "data")
    asyncio.run(set_up(served.address))  # idempotent: finds everything as it was
    assert served.stop() == 0
    assert "checksum" in served.said()
