"""A server that is told to stop finishes what it has begun, refuses the rest by name, and loses nothing it answered."""

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


def test_a_stop_under_load(serve: Serve, tmp_path: Path) -> None:
    answered: dict[str, router_service_pb2.DecideResponse] = {}
    failed: Counter[grpc.StatusCode] = Counter()
    statuses: list[int] = []
    watched: list[str] = []

    async def load(served: Served) -> None:
        options = (("grpc.enable_retries", 0),)
        async with grpc.aio.insecure_channel(served.address, options) as channel:
            await set_up(channel)
            router = router_service_pb2_grpc.RouterServiceStub(channel)

            async def caller(number: int) -> None:
                for i in range(10**6):
                    request = router_service_pb2.DecideRequest(
                        bucket="buckets/b",
                        context=context_pb2.Context(numbers={"n": 0.5}),
                        request_id=f"{number}/{i}",
                    )
                    try:
                        answered[request.request_id], _ = await patient(router.Decide, request)
                    except grpc.aio.AioRpcError as error:
                        failed[error.code()] += 1
                        return

            async def watch(call: Any) -> grpc.StatusCode:
                async for one in call:
                    watched.append(one.decision.name)
                return await call.code()

            async def health(call: Any) -> None:
                try:
                    async for one in call:
                        statuses.append(one.status)
                except grpc.aio.AioRpcError as error:
                    failed[error.code()] += 1

            async def stop() -> None:
                await until(lambda: len(answered) >= 300, "300 answers")
                served.process.send_signal(signal.SIGTERM)

            watch_call = insight_service_pb2_grpc.InsightServiceStub(channel).WatchDecisions(
                insight_service_pb2.WatchDecisionsRequest()
            )
            await watch_call.initial_metadata()  # from here on it misses nothing
            watching = asyncio.create_task(watch(watch_call))
            health_call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            watching_health = asyncio.create_task(health(health_call))
            await until(lambda: bool(statuses), "the first word on health")
            await asyncio.gather(stop(), watching_health, *(caller(i) for i in range(CALLERS)))
            assert await watching == grpc.StatusCode.OK  # ended, not cut off
            assert await asyncio.to_thread(served.process.wait, WAIT) == 0

    served = serve(
        tmp_path / "data", "--drain-seconds", "300"
    )  # a caller that watches health is not waited for so long
    asyncio.run(load(served))
    assert sum(failed.values()) == CALLERS + 1  # and the one who watches health
    assert set(failed) <= ENDED, (failed, served.said()[-3000:])
    assert statuses == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
    assert len(watched) >= 200
    assert "Traceback" not in served.said()

    async def check(address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            router = router_service_pb2_grpc.RouterServiceStub(channel)
            for request_id, response in answered.items():
                name = response.decision.name
                found = await router.GetDecision(router_service_pb2.GetDecisionRequest(name=name))
                found.decision.ClearField("candidates")
                assert found.decision == response.decision
                again = router_service_pb2.DecideRequest(
                    bucket="buckets/b", context=context_pb2.Context(numbers={"n": 0.5}), request_id=request_id
                )
                assert (await router.Decide(again)).decision.name == name

    asyncio.run(check(serve(tmp_path / "data").address))


def test_a_second_signal_does_not_wait(serve: Serve, tmp_path: Path) -> None:
    served = serve(tmp_path / "data", "--drain-seconds", "3000")

    async def hold() -> None:
        async with grpc.aio.insecure_channel(served.address) as channel:
            await set_up(channel)
            request = router_service_pb2.DecideRequest(
                bucket="buckets/b", context=context_pb2.Context(numbers={"n": 0.5})
            )
            router = router_service_pb2_grpc.RouterServiceStub(channel)
            first = (await router.Decide(request)).decision
            served.process.send_signal(signal.SIGTERM)
            served.process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(served.process.wait, WAIT) == 0
            assert first.name

    asyncio.run(hold())
    assert "Traceback" not in served.said()
