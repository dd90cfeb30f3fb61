"""Calls per second and latency of the service against an empty grpc.aio echo, in one run.

    python benchmarks/service/throughput.py [--seconds S] [--connections C] [--json FILE]

The echo answers a message of the same size as `DecideResponse` to a request of the same size, and does nothing else: the
floor of a grpc.aio server. The load comes from another process; both servers run one after the other, in alternation.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2]))
from pointsman.v1 import (
    catalog_pb2,
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    context_pb2,
    outcome_pb2,
    router_service_pb2,
    router_service_pb2_grpc,
)
from tests.processes import address_of

D, K, BATCH = 32, 8, 4096
Calls = Callable[[grpc.aio.Channel, int], Awaitable[object]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rounds_by_kind: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for round_ in range(arguments.rounds):
            for kind in ("echo", "decide", "report", "batch"):
                process, address = start(kind, f"{directory}/{round_}-{kind}")
                try:
                    figures = load(kind, address, arguments.seconds, arguments.connections)
                    rounds_by_kind.setdefault(kind, []).append(figures)
                    if kind in ("echo", "decide"):
                        half = load(kind, address, arguments.seconds, arguments.connections, figures["rate"] / 2)
                        rounds_by_kind.setdefault(f"{kind}, half load", []).append(half)
                finally:
                    process.send_signal(signal.SIGTERM)
                    process.wait()
    middle = {
        kind: {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
        for kind, rounds in rounds_by_kind.items()
    }
    table = Table(
        title=f"{arguments.connections} connections, {os.cpu_count()} cores, median of {arguments.rounds} rounds"
    )
    for title in ("call", "per second", "of the echo", "p50 ms", "p99 ms"):
        table.add_column(title, justify="left" if title == "call" else "right")
    for kind, figures in middle.items():
        ratio = figures["rate"] / middle["echo"]["rate"]
        table.add_row(kind, f"{figures['rate']:,.0f}", f"{ratio:.2f}", f"{figures['p50']:.2f}", f"{figures['p99']:.2f}")
    Console(width=100).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(middle, indent=1))


def start(kind: str, directory: str) -> tuple[subprocess.Popen[str], str]:
    """A server process and its address."""
    if kind == "echo":
        command = [sys.executable, __file__, "--serve-echo"]
    else:
        command = [sys.executable, "-m", "pointsman.cli", "serve", "--data", directory, "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return process, address_of(process)


def load(kind: str, address: str, seconds: float, connections: int, rate: float = 0.0) -> dict[str, float]:
    """Figures of a load from another process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(run_load, (kind, address, seconds, connections, rate))


def run_load(kind: str, address: str, seconds: float, connections: int, rate: float) -> dict[str, float]:
    """Calls per second and latencies in milliseconds: one call at a time on each connection, ``rate`` a second or, if that is 0,
    as many as come.
    """
    return asyncio.run(_load(kind, address, seconds, connections, rate))


async def _load(kind: str, address: str, seconds: float, connections: int, rate: float) -> dict[str, float]:
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 << 20))
    count = 4 if kind == "batch" else connections
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(count)]
    call = await prepare(kind, channels[0])
    latencies: list[float] = []
    done = 0
    begun = time.perf_counter()
    end = begun + seconds

    async def caller(channel: grpc.aio.Channel, number: int) -> None:
        nonlocal done
        due = begun + (number / rate if rate else 0.0)
        while time.perf_counter() < end:
            if rate:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                due += count / rate
            start = time.perf_counter()
            await call(channel, number)
            latencies.append(time.perf_counter() - start)
            done += BATCH if kind == "batch" else 1

    await asyncio.gather(*(caller(channel, i) for i, channel in enumerate(channels)))
    rate = done / (time.perf_counter() - begun)
    for channel in channels:
        await channel.close()
    p50, p99 = np.percentile(latencies, (50, 99)) * 1e3
    return {"rate": rate, "p50": float(p50), "p99": float(p99)}


async def prepare(kind: str, channel: grpc.aio.Channel) -> Calls:
    """Set the service up and make the call to be repeated."""
    rng = np.random.default_rng(0)
    vectors_nd = (rng.normal(size=(BATCH, D - 1)) / np.sqrt(D - 1)).astype(np.float32)
    contexts = [context_pb2.Context(embeddings={"e": context_pb2.Embedding(values=v)}) for v in vectors_nd]
    requests = [router_service_pb2.DecideRequest(bucket="buckets/b", context=c) for c in contexts]
    if kind == "echo":
        return await _raw(requests)
    catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
    for k in range(K):
        model = catalog_pb2.Model(name=f"models/m{k}")
        await catalog.UpdateModel(catalog_service_pb2.UpdateModelRequest(model=model, allow_missing=True))
    schema = catalog_pb2.ContextSchema(embeddings=[catalog_pb2.EmbeddingFeature(name="e", dimension=D - 1)])
    bucket = catalog_pb2.Bucket(name="buckets/b", context_schema=schema)
    await catalog.UpdateBucket(catalog_service_pb2.UpdateBucketRequest(bucket=bucket, allow_missing=True))
    router = router_service_pb2_grpc.RouterServiceStub(channel)
    for _ in range(3):  # something to decide on
        decided = (await router.BatchDecide(_batch(contexts[:500]))).decisions
        reports = [_report(d.name, float(rng.random())) for d in decided]
        await router.BatchReportOutcomes(router_service_pb2.BatchReportOutcomesRequest(requests=reports))
    if kind == "decide":
        return _calls("/pointsman.v1.RouterService/Decide", [r.SerializeToString() for r in requests])
    if kind == "batch":
        return _calls("/pointsman.v1.RouterService/BatchDecide", [_batch(contexts).SerializeToString()])
    decided_all: list[Any] = []
    for _ in range(4):  # recent ones, as most that are reported on
        decided_all += (await router.BatchDecide(_batch(contexts))).decisions
    reports = [_report(d.name, 0.5) for d in decided_all]
    return _calls("/pointsman.v1.RouterService/ReportOutcome", [r.SerializeToString() for r in reports])


def _batch(contexts: list[context_pb2.Context]) -> router_service_pb2.BatchDecideRequest:
    return router_service_pb2.BatchDecideRequest(bucket="buckets/b", contexts=contexts)


def _report(name: str, quality: float) -> router_service_pb2.ReportOutcomeRequest:
    outcome = outcome_pb2.Outcome(quality=quality, cost_usd=0.001, latency_seconds=0.7)
    return router_service_pb2.ReportOutcomeRequest(decision=name, outcome=outcome)


async def _raw(requests: list[router_service_pb2.DecideRequest]) -> Calls:
    return _calls("/echo/Call", [r.SerializeToString() for r in requests])


def _calls(method: str, payloads: list[bytes]) -> Calls:
    """Calls that send bytes as they are, so that the client's own work is the same for all."""
    turn = 0

    async def call(channel: grpc.aio.Channel, number: int) -> object:
        nonlocal turn
        turn += 1
        while True:
            try:
                return await channel.unary_unary(method)(payloads[turn % len(payloads)])
            except grpc.aio.AioRpcError as error:  # one too many: try again
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                await asyncio.sleep(0.05)

    return call


async def serve_echo() -> None:
    """An empty unary of the sizes of Decide: reads the request message, answers a fixed response message."""
    decision = {"name": "decisions/" + "0" * 26, "bucket": "buckets/b", "model": "models/m0", "upstream": "m0"}
    answer = router_service_pb2.DecideResponse()
    for name, value in decision.items():
        setattr(answer.decision, name, value)
    answer.decision.fallbacks.extend(f"models/m{k}" for k in range(1, K))
    answer.decision.propensity = 0.5
    answer.decision.create_time.GetCurrentTime()
    answer.decision.expire_time.GetCurrentTime()

    async def echo(
        request: router_service_pb2.DecideRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> router_service_pb2.DecideResponse:
        return answer

    handler = grpc.unary_unary_rpc_method_handler(
        echo,
        request_deserializer=router_service_pb2.DecideRequest.FromString,
        response_serializer=router_service_pb2.DecideResponse.SerializeToString,
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo", {"Call": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"serving on 127.0.0.1:{port}", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(1)


if __name__ == "__main__":
    if "--serve-echo" in sys.argv:
        asyncio.run(serve_echo())
    else:
        main()
