"""A service in this process, on a real channel, with a clock that tests can set; and service processes of their own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.process.grpc_server import make_server
from pointsman.server.state.replica import Replica, open_replica
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

    async def report(self, decision: str, **fields: Any) -> Any:
        key, model = fields.pop("idempotency_key", ""), fields.pop("model", "")
        request = router_service_pb2.ReportOutcomeRequest(
            decision=decision, outcome=fields, idempotency_key=key, model=model
        )
        return await self.router.ReportOutcome(request)


Scenario = Callable[[Service], Awaitable[None]]
ROOT = Path(__file__).parents[2]
SERVE = "from pointsman.server.cli.commands import serve; serve()"  # works installed or not
WAIT = 60.0
"""Seconds after which a process that should have ended or answered is taken to hang."""


class Served:
    """A service in a process of its own. ``errors`` is where its standard error goes."""

    def __init__(self, data: Path, *more: str, listen: str = "127.0.0.1:0") -> None:
        self.errors = data.with_name(data.name + ".stderr")
        command = [sys.executable, "-c", SERVE, "--data", str(data), "--listen", listen, *more]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with self.errors.open("a") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, env=environment
            )
        assert self.process.stdout is not None
        found = re.search(r"serving on (\S+)", self.process.stdout.readline())  # empty if the process ends instead
        self.address = found[1] if found else ""

    def said(self) -> str:
        """All that was written to standard error on this data directory."""
        return self.errors.read_text()

    def stop(self) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT)

    def kill(self) -> None:
        """End it with no chance to do anything more."""
        self.process.kill()
        self.process.wait(WAIT)


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Starts service processes; those that still run at the end of the test are killed."""
    started: list[Served] = []

    def start(data: Path, *more: str, listen: str = "127.0.0.1:0") -> Served:
        started.append(Served(data, *more, listen=listen))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.kill()
        assert one.process.stdout is not None
        one.process.stdout.close()


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Scenario], None]:
    """Run a scenario against a service with three models and the bucket `b` (number `n`, optional category and vector)."""

    async def go(scenario: Scenario) -> None:
        clock = [10**18]
        replica = open_replica(
            SqliteJournal(tmp_path), np.random.default_rng(0), lambda: clock[0], tmp_path / "snapshots"
        )
        server, _ = make_server(replica)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
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
            try:
                await scenario(service)
            finally:
                await server.stop(1)
                await replica.close()

    return lambda scenario: asyncio.run(go(scenario))
