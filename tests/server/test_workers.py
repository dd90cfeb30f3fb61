"""Several processes on one port and one journal: one state, exactly-once outcomes, caps that hold, restarts of dead workers."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

from pointsman.bandit.event import DecisionMade, OutcomeApplied
from pointsman.bandit.state import State, fingerprint
from pointsman.server.cli.serve import serve as serve_command
from pointsman.server.journal.sqlite_store import SqliteStore, read_rows
from pointsman.server.names import parse_decision
from pointsman.server.state.recovery import fold_rows
from pointsman.server.state.rows import decode_all
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
from tests.processes import WAIT, Serve, Served, children, has_gone, pause, refused_start, until, wait_until

CHANNELS = 64
"""Most connections that are made to reach every worker."""
WORST = 0.001
"""Dollars that a call of `models/priced` costs at most."""


class Caller:
    """Stubs on a connection of its own."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.router: Any = router_service_pb2_grpc.RouterServiceStub(channel)
        self.catalog: Any = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        self.insight: Any = insight_service_pb2_grpc.InsightServiceStub(channel)

    async def decide(self, bucket: str = "b", request_id: str = "", number: float = 0.5) -> Any:
        context = context_pb2.Context(numbers={"n": number}) if bucket == "b" else context_pb2.Context(input_tokens=0)
        request = router_service_pb2.DecideRequest(bucket=f"buckets/{bucket}", context=context, request_id=request_id)
        return (await again(lambda: self.router.Decide(request))).decision

    async def report(self, decision: str, key: str, quality: float) -> Any:
        outcome = outcome_pb2.Outcome(quality=quality, cost_usd=0.5)
        request = router_service_pb2.ReportOutcomeRequest(decision=decision, idempotency_key=key, outcome=outcome)
        return await again(lambda: self.router.ReportOutcome(request))


async def again(call: Callable[[], Any]) -> Any:
    """The answer to a call, made again while nobody can answer it."""
    end = time.monotonic() + WAIT
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            refused = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
            if not refused or time.monotonic() > end:
                raise
            await asyncio.sleep(0.02)


def sockets(pid: int) -> int:
    """How many sockets a process has."""
    links = Path(f"/proc/{pid}/fd").iterdir()
    return sum(os.readlink(link).startswith("socket:") for link in links)


@asynccontextmanager
async def callers(served: Served) -> AsyncIterator[list[Caller]]:
    """Connections to ``served``, at least 4 and so many that every worker has one."""
    workers = children(served.process.pid)
    assert len(workers) == 2
    before = {pid: sockets(pid) for pid in workers}
    channels: list[grpc.aio.Channel] = []
    try:
        while len(channels) < 4 or any(sockets(pid) <= before[pid] for pid in workers):
            assert len(channels) < CHANNELS, "a worker gets no connections"
            # one of its own for each, or they would share a connection
            channel = grpc.aio.insecure_channel(served.address, (("grpc.use_local_subchannel_pool", 1),))
            channels.append(channel)
            await asyncio.wait_for(channel.channel_ready(), WAIT)
        yield [Caller(channel) for channel in channels]
    finally:
        for channel in channels:
            await channel.close()


async def set_up(caller: Caller, budget: float = 1.0) -> None:
    """Three models and the bucket `b`; a model with a price and the bucket `capped` with a hard budget."""
    for name in ("x", "y", "z", "priced"):
        model = catalog_pb2.Model(name=f"models/{name}")
        if name == "priced":
            model.max_output_tokens = 100
            model.prices.output_usd_per_million_tokens = WORST * 1e6 / 100
        await caller.catalog.UpdateModel(catalog_service_pb2.UpdateModelRequest(model=model, allow_missing=True))
    schema = catalog_pb2.ContextSchema(numbers=[catalog_pb2.NumberFeature(name="n")])
    free = catalog_pb2.Bucket(name="buckets/b", context_schema=schema, models=["models/x", "models/y", "models/z"])
    hard = catalog_pb2.Budget(usd_per_period=budget, period={"seconds": 90 * 86_400}, hard=True)
    capped = catalog_pb2.Bucket(name="buckets/capped", models=["models/priced"], budget=hard)
    for bucket in (free, capped):
        await caller.catalog.UpdateBucket(catalog_service_pb2.UpdateBucketRequest(bucket=bucket, allow_missing=True))


async def all_know(every_caller: Sequence[Caller]) -> None:
    """Wait until every worker has the buckets, which one of them made."""
    for caller in every_caller:
        for name in ("buckets/b", "buckets/capped"):
            request = insight_service_pb2.GetBucketInsightRequest(name=name)
            end = time.monotonic() + WAIT
            while True:
                try:
                    await caller.insight.GetBucketInsight(request)
                    break
                except grpc.aio.AioRpcError as error:
                    if error.code() != grpc.StatusCode.NOT_FOUND or time.monotonic() > end:
                        raise
                    await asyncio.sleep(0.005)


def stopped_at(served: Served) -> list[tuple[int, str]]:
    """Position and fingerprint that each worker had when it stopped."""
    lines = [json.loads(line) for line in served.said().splitlines() if line.startswith("{")]
    messages = [line["message"].split() for line in lines if line["message"].startswith("stopped at position")]
    return [(int(words[3].rstrip(":")), words[4]) for words in messages]


def refold(data: Path) -> State:
    """The journal's fold, from nothing."""
    return fold_rows(read_rows(data), State())


def test_all_workers_have_the_state_that_the_journal_folds_to(serve: Serve, tmp_path: Path) -> None:
    served = serve(tmp_path / "data", "--workers", "2", "--snapshot-every", "150")

    async def load() -> None:
        async with callers(served) as every_caller:
            await set_up(every_caller[0])
            await all_know(every_caller)
            watched: asyncio.Queue[str] = asyncio.Queue()

            async def watch(caller: Caller, started: asyncio.Event) -> None:
                stream = caller.insight.WatchDecisions(insight_service_pb2.WatchDecisionsRequest())
                await stream.initial_metadata()
                started.set()
                async for message in stream:
                    watched.put_nowait(message.decision.name)

            started = asyncio.Event()
            watching = asyncio.create_task(watch(every_caller[0], started))
            await started.wait()
            decided: list[str] = []

            async def work(number: int) -> None:
                rng = random.Random(number)
                for i in range(12):
                    first_caller, second_caller = rng.choices(every_caller, k=2)
                    id_ = f"{number}.{i}"
                    first, second = await asyncio.gather(
                        first_caller.decide(request_id=id_, number=rng.random()), second_caller.decide(request_id=id_)
                    )
                    assert first == second, "a request id got two decisions"
                    decided.append(first.name)
                    reports = await asyncio.gather(
                        *(c.report(first.name, "key", 0.5) for c in (first_caller, second_caller))
                    )
                    assert sorted(report.duplicate for report in reports) == [False, True]
                    fresh = await second_caller.decide(number=rng.random())
                    decided.append(fresh.name)
                    get = router_service_pb2.GetDecisionRequest(name=fresh.name)
                    assert (await first_caller.router.GetDecision(get)).decision.name == fresh.name
                    await asyncio.gather(
                        *(c.report(fresh.name, str(k), 0.1 * k) for k, c in enumerate(every_caller[:4]))
                    )

            await asyncio.gather(*(work(number) for number in range(8)))
            watched_names = [await asyncio.wait_for(watched.get(), WAIT) for _ in decided]
            assert sorted(watched_names) == sorted(decided)
            watching.cancel()

    asyncio.run(load())
    assert served.stop() == 0
    state = refold(tmp_path / "data")
    assert int(state.buckets["b"].decisions_k.sum()) == 8 * 12 * 2
    assert stopped_at(served) == [(state.position, fingerprint(state))] * 2
    assert len(list((tmp_path / "data" / "snapshots").glob("*.snapshot"))) >= 1
    served_alone = serve(tmp_path / "data")  # and one process goes on with it
    assert served_alone.address
    assert served_alone.stop() == 0


def test_a_worker_that_is_killed_is_started_again_and_nothing_is_lost_or_twice(serve: Serve, tmp_path: Path) -> None:
    served = serve(tmp_path / "data", "--workers", "2")
    decisions: dict[str, str] = {}
    reports: Counter[str] = Counter()

    async def load() -> None:
        async with callers(served) as every_caller:
            await set_up(every_caller[0])
            await all_know(every_caller)
            ending = asyncio.Event()

            async def work(number: int) -> None:
                rng, i = random.Random(number), 0
                while not ending.is_set():
                    i += 1
                    decision = await rng.choice(every_caller).decide(request_id=f"{number}.{i}", number=rng.random())
                    decisions[f"{number}.{i}"] = decision.name
                    await rng.choice(every_caller).report(decision.name, "only", rng.random())
                    reports[decision.name] += 1

            calling = [asyncio.create_task(work(number)) for number in range(12)]
            for _ in range(2):
                for pid in children(served.process.pid):
                    enough = len(decisions) + 60
                    await until(
                        lambda enough=enough: len(decisions) >= enough or any(task.done() for task in calling),
                        "60 more decisions",
                    )
                    assert not any(task.done() for task in calling)
                    os.kill(pid, signal.SIGKILL)
                    await until(
                        lambda pid=pid: pid not in (now := children(served.process.pid)) and len(now) == 2,
                        "the worker that was killed is started again",
                    )
            ending.set()
            await asyncio.gather(*calling)

    asyncio.run(load())
    # one that is asked to stop before has no state to tell of
    wait_until(lambda: served.said().count(") serves") >= 2 + 4, "every worker serves again")
    assert served.stop() == 0
    assert served.said().count("it is started again") == 4
    by_decision: Counter[bytes] = Counter()
    joined: Counter[bytes] = Counter()
    by_request: Counter[str] = Counter()
    for _, record in decode_all(read_rows(tmp_path / "data"), State()):
        event = record.event
        if isinstance(event, DecisionMade):
            by_decision[event.id] += 1
            by_request[event.request_id] += 1
        elif isinstance(event, OutcomeApplied):
            joined[event.decision_id] += 1
    assert set(by_decision.values()) == {1}
    assert all(by_request[id_] == 1 and by_decision[parse_decision(name, "")] == 1 for id_, name in decisions.items())
    assert joined == {parse_decision(name, ""): 1 for name in reports}
    state = refold(tmp_path / "data")
    assert stopped_at(served) == [(state.position, fingerprint(state))] * 2


def test_workers_do_not_pass_a_hard_budget_together(serve: Serve, tmp_path: Path) -> None:
    served = serve(tmp_path / "data", "--workers", "2")
    cap = 100

    async def load() -> int:
        async with callers(served) as every_caller:
            await set_up(every_caller[0], budget=(cap + 0.5) * WORST)
            await all_know(every_caller)
            over = asyncio.Event()

            async def spend(caller: Caller) -> int:
                allowed = 0
                while True:
                    try:
                        await caller.decide("capped")
                        allowed += 1
                    except grpc.aio.AioRpcError as error:
                        if error.code() != grpc.StatusCode.FAILED_PRECONDITION:
                            raise
                        return allowed

            async def other(caller: Caller) -> None:  # traffic that every fold is behind of
                while not over.is_set():
                    await caller.decide()

            others = [asyncio.create_task(other(caller)) for caller in every_caller]
            allowed = await asyncio.gather(*(spend(caller) for caller in every_caller for _ in range(4)))
            over.set()
            await asyncio.gather(*others)
            return sum(allowed)

    allowed = asyncio.run(load())
    assert served.stop() == 0
    state = refold(tmp_path / "data")
    assert int(state.buckets["capped"].decisions_k.sum()) == allowed == cap


def test_workers_end_with_their_supervisor(serve: Serve, address: str, tmp_path: Path) -> None:
    served = serve(tmp_path / "data", "--workers", "2", listen=address)
    assert served.address == address
    pids = children(served.process.pid)
    assert len(pids) == 2
    served.kill()
    wait_until(lambda: all(has_gone(pid) for pid in pids), "the workers end")
    host, _, port = address.rpartition(":")
    with socket.socket() as alone:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        alone.bind((host, int(port)))
    following = serve(tmp_path / "data", "--workers", "2", listen=address)
    assert following.address == address
    assert following.stop() == 0


def test_the_directory_stays_locked_until_the_last_worker_has_gone(serve: Serve, tmp_path: Path) -> None:
    served = serve(tmp_path / "data", "--workers", "2")
    first, second = children(served.process.pid)
    pause(first)  # it cannot see that its supervisor goes
    try:
        served.kill()
        wait_until(lambda: has_gone(second), "the other worker ends")
        late = refused_start(tmp_path / "data")
    finally:
        os.kill(first, signal.SIGKILL)
    wait_until(lambda: has_gone(first), "the worker ends")
    assert late.returncode == 1
    assert "another process" in late.stderr
    SqliteStore(tmp_path / "data").close()


def test_a_worker_that_hangs_is_killed_and_started_again(serve: Serve, tmp_path: Path) -> None:
    served = serve(tmp_path / "data", "--workers", "2")
    hanging, other = children(served.process.pid)
    pause(hanging)
    wait_until(lambda: has_gone(hanging), "the worker that hangs is killed")
    assert "has not answered for 10 s: it is killed" in served.said()
    wait_until(lambda: served.said().count(") serves") == 3, "it is started again")
    assert other in children(served.process.pid)

    async def load() -> None:
        async with callers(served) as every_caller:
            await set_up(every_caller[0])
            await all_know(every_caller)
            for caller in every_caller:
                assert (await caller.decide()).name

    asyncio.run(load())
    assert served.stop() == 0


def test_a_second_server_on_the_directory_or_the_port_is_refused(serve: Serve, tmp_path: Path) -> None:
    served = serve(tmp_path / "data", "--workers", "2")
    for more in (("--workers", "2"), ()):
        done = refused_start(tmp_path / "data", *more)
        assert done.returncode == 1
        assert "another process" in done.stderr
        done = refused_start(tmp_path / "other", *more, listen=served.address)
        assert done.returncode == 1
        assert f"cannot listen on {served.address}" in done.stderr
    assert served.stop() == 0


def test_workers_that_cannot_start_end_the_service(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    done = refused_start(tmp_path / "data", "--workers", "2", "--tls-cert", missing, "--tls-key", missing)
    assert done.returncode == 1
    assert "missing.pem" in done.stderr
    assert "cannot start" in done.stderr


@pytest.mark.parametrize("value", ["0", "-1", "65", "two", "1.5", ""])
def test_bad_numbers_of_workers_are_refused(tmp_path: Path, value: str) -> None:
    done = CliRunner().invoke(serve_command, ["--data", str(tmp_path / "data"), "--workers", value])
    assert done.exit_code == 2
    assert "--workers" in done.output
    assert not (tmp_path / "data").exists()
