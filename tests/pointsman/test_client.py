"""Both clients against real service processes: requests, retries, and outages of the service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from pointsman import Client, Refusal, aio
from pointsman.v1 import (
    catalog_pb2,
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    decision_pb2,
    insight_service_pb2_grpc,
    router_service_pb2_grpc,
)
from pointsman.v1 import insight_service_pb2 as insight
from pointsman.v1 import router_service_pb2 as rpc
from tests.processes import WAIT, Serve, Served


@pytest.fixture
def start(serve: Serve, address: str, tmp_path: Path) -> Callable[[], Served]:
    """Starts the service on one data directory, with models `a` and `b` and the bucket `t`; always on the same address."""

    def go() -> Served:
        served = serve(tmp_path / "data", listen=address)
        with grpc.insecure_channel(served.address) as channel:
            catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
            for name in ("a", "b"):
                model = catalog_pb2.Model(name=f"models/{name}", upstream=f"vendor/{name}")
                catalog.UpdateModel(catalog_service_pb2.UpdateModelRequest(model=model, allow_missing=True))
            schema = catalog_pb2.ContextSchema(text=catalog_pb2.TextFeature(optional=True))
            bucket = catalog_pb2.Bucket(name="buckets/t", context_schema=schema)
            catalog.UpdateBucket(catalog_service_pb2.UpdateBucketRequest(bucket=bucket, allow_missing=True))
        return served

    return go


def observed(address: str, model: str) -> Any:
    """What the service has counted of a model."""
    with grpc.insecure_channel(address) as channel:
        stub = insight_service_pb2_grpc.InsightServiceStub(channel)
        insight_now = stub.GetBucketInsight(insight.GetBucketInsightRequest(name="buckets/t"))
    return next(arm for arm in insight_now.models if arm.model == model)


def test_decide_report_and_look_back(start: Callable[[], Served]) -> None:
    with Client(start().address, timeout=WAIT) as client:
        first = client.decide("t", text="hello", request_id="r")
        assert first.upstream == "vendor/" + first.model.removeprefix("models/")
        assert client.decide("buckets/t", text="hello", request_id="r") == first
        client.report(first, quality=0.7, cost_usd=0.01, idempotency_key="k")
        client.report(first, quality=0.7, idempotency_key="k")
        client.report(first.name, success=True)
        (reported,) = client.get_decision(first).outcomes
        assert (reported.reports, reported.outcome.quality, reported.outcome.success) == (2, 0.7, True)
        many = client.batch_decide("t", [{"text": "x"}, {}, {"text": "y"}])
        assert len({decision.name for decision in many}) == 3
        with pytest.raises(grpc.RpcError) as refused:
            client.decide("t", numbers={"n": 1.0})
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_call_measures_latency_and_reports_the_blocks_outcome(start: Callable[[], Served]) -> None:
    with Client(start().address, timeout=WAIT) as client:
        with client.call("t", text="x") as good:
            time.sleep(0.02)
            good.succeeded(quality=0.9)
        with pytest.raises(KeyError), client.call("t", text="x") as bad:
            raise KeyError
        with client.call("t", text="x") as rescued:
            other = rescued.decision.fallbacks[0]
            rescued.fallback(other)
            assert rescued.model == other
            rescued.succeeded(cost_usd=0.5)
        assert client.flush(WAIT) == 0
        (reported,) = client.get_decision(good.decision).outcomes
        assert reported.outcome.success and reported.outcome.quality == 0.9 and reported.outcome.latency_seconds >= 0.02
        (reported,) = client.get_decision(bad.decision).outcomes
        assert not reported.outcome.success
        outcomes = {outcome.model: outcome.outcome for outcome in client.get_decision(rescued.decision).outcomes}
        assert not outcomes[rescued.decision.model].success
        assert outcomes[other].success and outcomes[other].cost_usd == 0.5


def test_reports_outlive_a_kill_of_the_service_and_count_once(start: Callable[[], Served]) -> None:
    service = start()
    client = Client(service.address, timeout=WAIT)
    decisions = [client.decide("t", text=f"{i}") for i in range(40)]
    for i, decision in enumerate(decisions):
        client.report_later(decision, quality=0.5)
        if i == 20:
            service.kill()
    again = start()
    assert client.flush(WAIT) == 0
    counts = [observed(again.address, f"models/{name}").quality_observations for name in ("a", "b")]
    assert sum(counts) == len(decisions)
    client.close()


class Flaky(router_service_pb2_grpc.RouterServiceServicer):
    """Has no time for the first two tries."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def Decide(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.seen.append((request.request_id, dict(context.invocation_metadata()).get("authorization")))
        if len(self.seen) < 3:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "later")
        return rpc.DecideResponse(decision=decision_pb2.Decision(name="decisions/x", model="models/a"))


def test_a_call_refused_under_load_is_retried_with_the_same_id() -> None:
    server, flaky = grpc.server(ThreadPoolExecutor(2)), Flaky()
    router_service_pb2_grpc.add_RouterServiceServicer_to_server(flaky, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"127.0.0.1:{port}", api_key="secret", timeout=WAIT) as client:
        assert client.decide("t").name == "decisions/x"
    server.stop(None)
    assert len(flaky.seen) == 3 and len(set(flaky.seen)) == 1
    assert flaky.seen[0][0] and flaky.seen[0][1] == "Bearer secret"


def test_a_default_where_the_service_is_away() -> None:
    with Client("127.0.0.1:1", timeout=0.5) as client:
        decision = client.decide("t", text="x", default="cheap/one")
        assert (decision.name, decision.model, decision.upstream) == ("", "models/cheap/one", "cheap/one")
        client.report(decision, quality=1.0)
        client.report_later(decision, quality=1.0)
        with client.call("t", default="cheap/one") as call:
            call.succeeded(quality=1.0)
        with pytest.raises(grpc.RpcError):
            client.decide("t", text="x")
        assert client.flush(WAIT) == 0


def test_reports_that_will_never_be_taken_are_given_up_one_by_one(start: Callable[[], Served]) -> None:
    refused: list[Refusal] = []
    with Client(start().address, timeout=WAIT, on_refused=refused.append) as client:
        good = client.decide("t")
        client.report_later("decisions/" + "0" * 26, quality=0.5)
        client.report_later(good, quality=7.0)
        client.report_later(good, quality=0.5)
        assert client.flush(WAIT) == 0
        assert sorted(report.code for report in refused) == ["INVALID_ARGUMENT", "NOT_FOUND"]
        assert client.get_decision(good).outcomes[0].outcome.quality == 0.5
    with pytest.raises(ValueError, match="closed"):
        client.report_later(good, quality=0.5)


def test_the_asynchronous_client(start: Callable[[], Served]) -> None:
    service = start()

    async def go() -> None:
        async with aio.Client(service.address, timeout=WAIT) as client:
            first = await client.decide("t", text="x", request_id="r")
            assert await client.decide("t", text="x", request_id="r") == first
            await client.report(first, quality=0.25)
            assert (await client.get_decision(first)).outcomes[0].outcome.quality == 0.25
            assert len(await client.batch_decide("t", [{}, {}])) == 2
            with pytest.raises(ZeroDivisionError):
                async with client.call("t") as bad:
                    raise ZeroDivisionError
            async with client.call("t", text="x") as good:
                good.succeeded(quality=1.0)
            assert await client.flush(WAIT) == 0
            assert (await client.get_decision(good.decision)).outcomes[0].outcome.success
            assert not (await client.get_decision(bad.decision)).outcomes[0].outcome.success
            decisions = [await client.decide("t") for _ in range(30)]
            for i, decision in enumerate(decisions):
                client.report_later(decision, quality=0.5)
                if i == 15:
                    await asyncio.sleep(0)  # some are sent by now, or none: either way they arrive once
                    service.kill()
            away = await client.decide("t", default="models/a", request_id="late")
            assert away.name == ""
            again = await asyncio.to_thread(start)
            assert await client.flush(WAIT) == 0
            counts = [observed(again.address, f"models/{n}").quality_observations for n in ("a", "b")]
            assert sum(counts) == 30 + 2

    asyncio.run(go())
