"""A service in this process, on a real channel, with a clock that tests can set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from pointsman.bandit.state import State
from pointsman.server.journal.interface import Row
from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.process.grpc_server import make_server
from pointsman.server.state.recovery import recover
from pointsman.server.state.replica import Replica, open_replica
from pointsman.server.state.snapshot_store import SnapshotStore
from pointsman.v1 import (
    catalog_pb2,
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    context_pb2,
    insight_service_pb2_grpc,
    router_service_pb2,
    router_service_pb2_grpc,
)

MODELS = ("a", "b", "c/d")


class Service:
    """Stubs of a running service, its replica, and its clock."""

    def __init__(self, replica: Replica, channel: grpc.aio.Channel, clock: list[int]) -> None:
        self.replica, self.channel, self.clock = replica, channel, clock
        self.router: Any = router_service_pb2_grpc.RouterServiceStub(channel)
        self.catalog: Any = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        self.insight: Any = insight_service_pb2_grpc.InsightServiceStub(channel)

    async def decide(self, bucket: str = "buckets/b", **fields: Any) -> Any:
        fields.setdefault("context", context_pb2.Context(numbers={"n": 0.5}))
        request = router_service_pb2.DecideRequest(bucket=bucket, **fields)
        return (await self.router.Decide(request)).decision

    async def rows(self) -> list[Row]:
        """The journal's rows that can be exported."""
        exported = self.replica.export(1, self.replica.state.position)
        return [row async for rows in exported for row in rows]

    async def report(self, decision: str, **fields: Any) -> Any:
        key, model = fields.pop("idempotency_key", ""), fields.pop("model", "")
        request = router_service_pb2.ReportOutcomeRequest(
            decision=decision, outcome=fields, idempotency_key=key, model=model
        )
        return await self.router.ReportOutcome(request)


def recovered(data: Path, use_snapshots: bool = True) -> State:
    """The state that a restart on this data directory would serve."""

    async def go() -> State:
        journal = SqliteJournal(data)
        try:
            return await recover(journal, SnapshotStore(data / "snapshots") if use_snapshots else None)
        finally:
            await journal.close()

    return asyncio.run(go())


Scenario = Callable[[Service], Awaitable[None]]


@asynccontextmanager
async def serving(replica: Replica, **guards: Any) -> AsyncIterator[str]:
    """The address of a server of ``replica`` in this process; ``guards`` as for ``make_server``. Closes the replica."""
    server, _ = make_server(replica, **guards)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(1)
        await replica.close()


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Scenario], None]:
    """Run a scenario against a service with three models and the bucket `b` (number `n`, optional category and vector)."""

    async def go(scenario: Scenario) -> None:
        clock = [10**18]
        replica = await open_replica(
            SqliteJournal(tmp_path), np.random.default_rng(0), lambda: clock[0], tmp_path / "snapshots"
        )
        async with serving(replica) as address, grpc.aio.insecure_channel(address) as channel:
            service = Service(replica, channel, clock)
            for name in MODELS:
                model = catalog_pb2.Model(name=f"models/{name}")
                await service.catalog.UpdateModel(
                    catalog_service_pb2.UpdateModelRequest(model=model, allow_missing=True)
                )
            schema = catalog_pb2.ContextSchema(
                numbers=[catalog_pb2.NumberFeature(name="n")],
                categories=[catalog_pb2.CategoryFeature(name="c", values=["x", "y"], optional=True)],
                embeddings=[catalog_pb2.EmbeddingFeature(name="e", dimension=3, optional=True)],
            )
            bucket = catalog_pb2.Bucket(name="buckets/b", context_schema=schema)
            bucket.attribution_window.seconds = 100
            await service.catalog.UpdateBucket(
                catalog_service_pb2.UpdateBucketRequest(bucket=bucket, allow_missing=True)
            )
            await scenario(service)

    return lambda scenario: asyncio.run(go(scenario))
