"""A server that is asked to stop finishes admitted calls, refuses new ones with a status, and loses nothing it answered."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pointsman.v1 import (
    catalog_pb2,
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    context_pb2,
    insight_service_pb2,
    insight_service_pb2_grpc,
    router_service_pb2,
    router_service_pb2_grpc,
)
from tests.calls import patient
from tests.processes import WAIT, Serve, Served, until

CALLERS = 24
ENDED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


async def set_up(channel: grpc.aio.Channel) -> None:
    catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
    for name in ("models/a", "models/b"):
        await catalog.CreateModel(catalog_service_pb2.CreateModelRequest(model=catalog_pb2.Model(name=name)))
    bucket = catalog_pb2.Bucket(name="buckets/b", context_schema={"numbers": [{"name": "n"}]})
    await catalog.CreateBucket(catalog_service_pb2.CreateBucketRequest(bucket=bucket))


class Observed:
    """What callers and watchers of a server observe until it has stopped."""

    def __init__(self) -> None:
        self.answered: dict[str, router_service_pb2.DecideResponse] = {}
        self.failed: Counter[grpc.StatusCode] = Counter()
        self.statuses: list[int] = []
        self.watched: list[str] = []

    async def decide(self, router: Any, number: int) -> None:
        """Decide again and again until a call fails."""
        for i in range(10**6):
            request = decide_request(f"{number}/{i}")
            try:
                self.answered[request.request_id], _ = await patient(router.Decide, request)
            except grpc.aio.AioRpcError as error:
                self.failed[error.code()] += 1
                return

    async def watch_decisions(self, call: Any) -> grpc.StatusCode:
        """The names of all decisions; the status with which the stream ends."""
        async for response in call:
            self.watched.append(response.decision.name)
        return await call.code()

    async def watch_health(self, call: Any) -> None:
        """Every status until the stream fails."""
        try:
            async for response in call:
                self.statuses.append(response.status)
        except grpc.aio.AioRpcError as error:
            self.failed[error.code()] += 1


def decide_request(request_id: str = "") -> router_service_pb2.DecideRequest:
    context = context_pb2.Context(numbers={"n": 0.5})
    return router_service_pb2.DecideRequest(bucket="buckets/b", context=context, request_id=request_id)


async def load_until_stopped(served: Served, observed: Observed) -> None:
    """Load and watch a server, ask it to stop after 300 answers, and wait until it has."""
    async with grpc.aio.insecure_channel(served.address, (("grpc.enable_retries", 0),)) as channel:
        await set_up(channel)
        router = router_service_pb2_grpc.RouterServiceStub(channel)

        async def stop() -> None:
            await until(lambda: len(observed.answered) >= 300, "300 answers")
            served.process.send_signal(signal.SIGTERM)

        watch_call = insight_service_pb2_grpc.InsightServiceStub(channel).WatchDecisions(
            insight_service_pb2.WatchDecisionsRequest()
        )
        await watch_call.initial_metadata()  # from here on it misses nothing
        watching = asyncio.create_task(observed.watch_decisions(watch_call))
        health_call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        watching_health = asyncio.create_task(observed.watch_health(health_call))
        await until(lambda: bool(observed.statuses), "the first status of health")
        await asyncio.gather(stop(), watching_health, *(observed.decide(router, i) for i in range(CALLERS)))
        assert await watching == grpc.StatusCode.OK  # ended, not cut off
        assert await asyncio.to_thread(served.process.wait, WAIT) == 0


async def check_answers(address: str, answered: dict[str, router_service_pb2.DecideResponse]) -> None:
    """A server that was started again has every decision that was answered, also by request id."""
    async with grpc.aio.insecure_channel(address) as channel:
        router = router_service_pb2_grpc.RouterServiceStub(channel)
        for request_id, response in answered.items():
            name = response.decision.name
            view = await router.GetDecision(router_service_pb2.GetDecisionRequest(name=name))
            view.decision.ClearField("candidates")
            assert view.decision == response.decision
            assert (await router.Decide(decide_request(request_id))).decision.name == name


def test_a_stop_under_load(serve: Serve, tmp_path: Path) -> None:
    observed = Observed()
    served = serve(tmp_path / "data", "--drain-seconds", "300")  # watchers of health are not waited for so long
    asyncio.run(load_until_stopped(served, observed))
    assert sum(observed.failed.values()) == CALLERS + 1  # and the watcher of health
    assert set(observed.failed) <= ENDED, (observed.failed, served.said()[-3000:])
    assert observed.statuses == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
    assert len(observed.watched) >= 200
    assert "Traceback" not in served.said()
    asyncio.run(check_answers(serve(tmp_path / "data").address, observed.answered))


def test_a_second_signal_does_not_wait(serve: Serve, tmp_path: Path) -> None:
    served = serve(tmp_path / "data", "--drain-seconds", "3000")

    async def hold() -> None:
        async with grpc.aio.insecure_channel(served.address) as channel:
            await set_up(channel)
            router = router_service_pb2_grpc.RouterServiceStub(channel)
            first = (await router.Decide(decide_request())).decision
            served.process.send_signal(signal.SIGTERM)
            served.process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(served.process.wait, WAIT) == 0
            assert first.name

    asyncio.run(hold())
    assert "Traceback" not in served.said()
