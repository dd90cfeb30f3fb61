"""Overload, deadlines, cancellation: calls over capacity are refused, late calls have no effect, and no reservation leaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from pointsman.server.errors import LateError, OverloadedError
from pointsman.server.guards.admission import ALWAYS_ADMITTED, Admission
from pointsman.server.guards.connection_limits import MAX_MESSAGE
from pointsman.server.journal.interface import Group, Result
from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.state.replica import open_replica
from pointsman.v1 import (
    catalog_pb2,
    catalog_service_pb2,
    context_pb2,
    insight_service_pb2,
    router_service_pb2,
)
from tests.processes import WAIT, until
from tests.server.conftest import Service, serving

CONTEXT = context_pb2.Context(numbers={"n": 0.5})
DECIDE = router_service_pb2.DecideRequest(bucket="buckets/b", context=CONTEXT)


class Gate(SqliteJournal):
    """A journal whose appends wait while the gate is shut."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.open = asyncio.Event()
        self.open.set()

    async def append(self, groups: Sequence[Group], now_ns: int) -> list[Result]:
        await asyncio.wait_for(self.open.wait(), WAIT)
        return await super().append(groups, now_ns)


class StallableService(Service):
    """A service whose journal can be held up, and its admission."""

    gate: Gate
    admission: Admission
    address: str


def run(tmp_path: Path, scenario: Callable[[StallableService], Awaitable[None]], **limits: Any) -> None:
    """Run a scenario on a service with one model and a bucket with a hard budget."""

    async def go() -> None:
        gate, admission = Gate(tmp_path), Admission(**limits)
        clock = [10**18]
        replica = await open_replica(gate, np.random.default_rng(0), lambda: clock[0], None)
        async with serving(replica, admission=admission) as address, grpc.aio.insecure_channel(address) as channel:
            service = StallableService(replica, channel, clock)
            service.gate, service.admission, service.address = gate, admission, address
            model = catalog_pb2.Model(
                name="models/a",
                prices={"request_usd": 0.25, "output_usd_per_million_tokens": 1},
                max_output_tokens=1,
            )
            await service.catalog.CreateModel(catalog_service_pb2.CreateModelRequest(model=model))
            bucket = catalog_pb2.Bucket(
                name="buckets/b",
                context_schema={"numbers": [{"name": "n"}]},
                budget={"usd_per_period": 1000, "hard": True},
            )
            await service.catalog.CreateBucket(catalog_service_pb2.CreateBucketRequest(bucket=bucket))
            try:
                await scenario(service)
            finally:
                gate.open.set()

    asyncio.run(go())


async def code(call: Any) -> grpc.StatusCode:
    return await call.code()


def reserved_usd(service: StallableService) -> float:
    return service.replica.decisions.reservations.reserved("buckets/b")


# --- the pure part ---------------------------------------------------------------------------------------------------


def test_a_steady_pace_admits_what_can_be_served_in_time() -> None:
    clock = [0.0]
    admission = Admission(max_in_flight=10**6, max_wait=0.5, clock=lambda: clock[0])
    for _ in range(ALWAYS_ADMITTED):  # 10 ms each, one after the other
        admission.enter(1, None)
    for _ in range(500):
        clock[0] += 0.01
        admission.leave(1, served=True)
        admission.enter(1, None)
    assert admission.wait() == pytest.approx(0.01 * ALWAYS_ADMITTED)
    with pytest.raises(OverloadedError) as refused:
        admission.enter(1, None)
    assert refused.value.delay == pytest.approx(0.01 * ALWAYS_ADMITTED)
    for _ in range(500):  # now ten times as quick
        clock[0] += 0.001
        admission.leave(1, served=True)
        admission.enter(1, None)
    assert admission.wait() < 0.5
    with pytest.raises(OverloadedError):
        admission.enter(1, remaining=admission.wait() / 2)  # would be too late for this caller
    with pytest.raises(LateError):
        admission.enter(1, remaining=0.0)
    admission.enter(1, remaining=2 * admission.wait())
    assert (admission.in_flight, admission.shed) == (ALWAYS_ADMITTED + 1, 2)


def test_a_single_call_is_admitted_at_any_weight() -> None:
    admission = Admission(max_in_flight=100)
    admission.enter(257, None)
    with pytest.raises(OverloadedError):
        admission.enter(1, None)
    admission.leave(257, served=True)
    admission.enter(1, None)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 300), st.floats(0, 2)), max_size=80),
    st.integers(ALWAYS_ADMITTED, 500),
)
def test_admitted_weight_is_released(steps: list[tuple[bool, int, float]], most: int) -> None:
    clock = [0.0]
    admission = Admission(max_in_flight=most, clock=lambda: clock[0])
    under_way: list[int] = []
    refused = 0
    for enter, weight, passed in steps:
        clock[0] += passed
        if enter:
            try:
                admission.enter(weight, None)
            except OverloadedError as error:
                refused += 1 if 0 < error.delay <= 5 else 10**6
            else:
                assert not under_way or sum(under_way) + weight <= most
                under_way.append(weight)
        elif under_way:
            admission.leave(under_way.pop(0), served=True)
        assert admission.in_flight == sum(under_way)
        assert admission.wait() >= 0
    assert admission.shed == refused


def test_the_share_that_is_refused_follows_the_delay() -> None:
    clock = [0.0]
    rng = np.random.default_rng(0)
    admission = Admission(clock=lambda: clock[0], draw=rng.random)
    queue, served, refused, longest = 0.0, 0, 0, 0.0
    for step in range(600):  # a server that takes 200 calls a second, and is offered 600 for half of the time
        offered = 60 if 100 <= step < 400 else 10
        for _ in range(offered):
            if admission.refuse() is None:
                queue += 1
            else:
                refused += 1
        taken = min(queue, 20)
        queue, served = queue - taken, served + int(taken)
        clock[0] += 0.1
        admission.observe_delay(queue / 200)
        if step >= 150:
            longest = max(longest, queue / 200)
    assert longest < 2.0  # without refusals it would be 60 seconds
    assert served > 0.95 * (200 * 30 + 100 * 30)  # and nothing is refused that could be served
    assert refused > 0.9 * 400 * 30 * 0.9
    assert admission.refused_share == 0.0


def test_a_few_callers_with_long_calls_are_no_overload() -> None:
    clock = [0.0]
    admission = Admission(clock=lambda: clock[0])
    for _ in range(100):
        assert admission.refuse() is None
        clock[0] += 0.5
        admission.observe_delay(2.0)  # four callers that wait for each other
    assert admission.refused_share == 0.0


# --- through a channel -----------------------------------------------------------------------------------------------


def test_calls_over_the_limit_are_refused_and_others_answered(tmp_path: Path) -> None:
    async def scenario(service: StallableService) -> None:
        service.gate.open.clear()
        calls = [service.router.Decide(DECIDE) for _ in range(3 * ALWAYS_ADMITTED)]
        await until(
            lambda: service.admission.in_flight + service.admission.shed == 3 * ALWAYS_ADMITTED,
            "every call is admitted or refused",
        )
        assert service.admission.in_flight == ALWAYS_ADMITTED
        health = health_pb2_grpc.HealthStub(service.channel)  # answers all the same
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        service.gate.open.set()
        codes = [await code(call) for call in calls]
        assert codes.count(grpc.StatusCode.OK) == ALWAYS_ADMITTED
        assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 2 * ALWAYS_ADMITTED
        assert service.admission.in_flight == 0
        last = service.replica.state.position
        assert last == 2 + ALWAYS_ADMITTED  # what was refused was not journalled
        assert await code(service.router.Decide(DECIDE)) == grpc.StatusCode.OK

    run(tmp_path, scenario, max_in_flight=ALWAYS_ADMITTED)


def test_a_refusal_has_a_retry_delay(tmp_path: Path) -> None:
    async def scenario(service: StallableService) -> None:
        service.gate.open.clear()
        first = [service.router.Decide(DECIDE) for _ in range(ALWAYS_ADMITTED)]
        await until(lambda: service.admission.in_flight == ALWAYS_ADMITTED, "as many calls are under way as may be")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await service.router.Decide(DECIDE)
        service.gate.open.set()
        status = rpc_status.from_call(refused.value)
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        assert any(detail.Unpack(info) for detail in status.details) and info.reason == "OVERLOADED"
        assert any(detail.Unpack(retry) for detail in status.details)
        pushback = int(dict(refused.value.trailing_metadata() or ())["grpc-retry-pushback-ms"])
        assert pushback == pytest.approx(retry.retry_delay.ToMilliseconds(), abs=1)
        assert 50 <= pushback <= 5000
        await asyncio.gather(*first)

    run(tmp_path, scenario, max_in_flight=ALWAYS_ADMITTED)


def test_batches_weigh_by_their_size(tmp_path: Path) -> None:
    async def scenario(service: StallableService) -> None:
        service.gate.open.clear()
        big = router_service_pb2.BatchDecideRequest(bucket="buckets/b", contexts=[CONTEXT] * 2048)
        first = service.router.BatchDecide(big)
        await until(lambda: service.admission.in_flight == 1 + 2048 // 16, "the batch is under way")
        assert await code(service.router.BatchDecide(big)) == grpc.StatusCode.RESOURCE_EXHAUSTED
        single = service.router.Decide(DECIDE)
        await until(lambda: service.admission.in_flight == 2 + 2048 // 16, "the single call is under way too")
        service.gate.open.set()
        assert len((await first).decisions) == 2048
        await single

    run(tmp_path, scenario, max_in_flight=200, max_wait=1e9)


def test_streams_have_a_limit_of_their_own(tmp_path: Path) -> None:
    async def scenario(service: StallableService) -> None:
        watches = [service.insight.WatchDecisions(insight_service_pb2.WatchDecisionsRequest()) for _ in range(2)]
        for watch in watches:
            await watch.initial_metadata()
        third = service.insight.ExportJournal(insight_service_pb2.ExportJournalRequest())
        assert await code(third) == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await code(service.router.Decide(DECIDE)) == grpc.StatusCode.OK
        watches[0].cancel()
        await until(lambda: service.admission.streams == 1, "the stream that was cancelled has ended")
        third = service.insight.ExportJournal(insight_service_pb2.ExportJournalRequest())
        assert sum([len(response.records) async for response in third]) == 3

    run(tmp_path, scenario, max_streams=2)


def test_a_decision_that_came_too_late_is_found_by_its_request_id(tmp_path: Path) -> None:
    async def scenario(service: StallableService) -> None:
        request = router_service_pb2.DecideRequest(bucket="buckets/b", context=CONTEXT, request_id="r")
        service.gate.open.clear()
        for seconds in (0.3, 3.0, 30.0):  # as long as it takes for the call to be under way before it is late
            call = service.router.Decide(request, timeout=seconds)
            await until(lambda call=call: service.admission.in_flight == 1 or call.done(), "the call is under way")
            if not call.done():
                break
        assert await code(call) == grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: service.admission.in_flight == 0, "nothing is under way")  # the server has let go of it
        assert reserved_usd(service) == pytest.approx(0.25, abs=1e-3)  # but the journal may still take it
        second, third = service.router.Decide(request), service.router.Decide(request)  # while it is under way
        service.gate.open.set()
        names = {(await second).decision.name, (await third).decision.name, (await service.decide(request_id="r")).name}
        assert len(names) == 1
        assert reserved_usd(service) == 0.0
        assert service.replica.state.position == 2 + 1

    run(tmp_path, scenario)


def test_cancelled_calls_leave_nothing_behind(tmp_path: Path) -> None:
    async def scenario(service: StallableService) -> None:
        service.gate.open.clear()
        decisions = [service.router.Decide(DECIDE) for _ in range(20)]
        await until(lambda: service.admission.in_flight == 20, "all calls are under way")
        await until(lambda: reserved_usd(service) > 0, "dollars are held for them")
        for call in decisions:
            call.cancel()
        await until(lambda: service.admission.in_flight == 0, "nothing is under way")
        service.gate.open.set()
        await until(lambda: reserved_usd(service) == 0.0, "nothing is held any more")
        assert service.replica.decisions.reservations._by_holder == {}
        decision = await service.decide()
        service.gate.open.clear()
        reports = router_service_pb2.BatchReportOutcomesRequest(
            requests=[router_service_pb2.ReportOutcomeRequest(decision=decision.name, outcome={"quality": 1})] * 9
        )
        call = service.router.BatchReportOutcomes(reports)
        await until(lambda: service.admission.in_flight == 1, "the call is under way")
        call.cancel()
        await until(lambda: service.admission.in_flight == 0, "nothing is under way")
        service.gate.open.set()
        await until(
            lambda: not any("in_order" in repr(task) for task in asyncio.all_tasks()),
            "the batch has ended",
        )
        await service.report(decision.name, quality=0.5)

    run(tmp_path, scenario)


def test_a_call_that_is_late_or_whose_caller_is_gone_does_nothing(tmp_path: Path) -> None:
    async def scenario(service: StallableService) -> None:
        before = service.replica.state.position
        calls = [service.router.Decide(DECIDE, timeout=0.05) for _ in range(20)]
        for _ in range(20):
            service.router.Decide(DECIDE).cancel()
        await asyncio.sleep(0)
        time.sleep(1.0)  # the server runs on this loop: it gets to none of them in time
        codes = [await code(call) for call in calls]
        assert codes == [grpc.StatusCode.DEADLINE_EXCEEDED] * 20
        await service.decide()
        assert service.replica.state.position == before + 1
        assert reserved_usd(service) == 0.0

    run(tmp_path, scenario)


# --- limits of connections -------------------------------------------------------------------------------------------


def test_messages_and_metadata_that_are_too_large_are_refused_and_the_server_lives(tmp_path: Path) -> None:
    async def scenario(service: StallableService) -> None:
        options = (("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 1 << 20))
        async with grpc.aio.insecure_channel(service.address, options) as channel:
            big = Service(service.replica, channel, service.clock)
            text = "x" * MAX_MESSAGE
            with pytest.raises(grpc.aio.AioRpcError, match=str(MAX_MESSAGE)) as refused:
                await big.decide(context=context_pb2.Context(numbers={"n": 0}, text=text))
            assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            with pytest.raises(grpc.aio.AioRpcError, match=r"context\.text: expected at most") as refused:
                await big.decide(context=context_pb2.Context(numbers={"n": 0}, text=text[: 8 << 20]))
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await big.router.Decide(DECIDE, metadata=(("x-large", "x" * (64 << 10)),))
            assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            await big.decide()
        await service.decide()

    run(tmp_path, scenario)
