"""What becomes of calls when more come than can be answered: how many are refused, and how long the others take.

    python benchmarks/service/overload.py [--seconds S] [--times 0.7 1 3] [--no-limit]

The server is measured first, with as many callers as it takes to keep it busy. Then calls come at random moments (Poisson) at
multiples of that rate, whether or not the ones before were answered, from another process.
Each call is a batch of 64 decisions, so that the load costs little beside the service. ``--no-limit`` serves without
admission, to compare. The load takes its share of the same cores: read the figures against each other.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

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
    router_service_pb2,
    router_service_pb2_grpc,
)
from tests.processes import SERVE, address_of

CONNECTIONS, CALLERS, MODELS, BATCH = 32, 32, 8, 64
DEADLINE = 10.0
UNLIMITED = (
    "import pointsman.server.guards.admission as a; "
    "a.Admission.__init__.__defaults__ = (10**9, 1e9, 10**9, a.time.perf_counter, lambda: 1.0); "
    "import pointsman.server.guards.connection_limits as l; l.OPTIONS = tuple(o for o in l.OPTIONS if 'pending' not in o[0]); "
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--times", type=float, nargs="+", default=[0.7, 1.0, 3.0])
    parser.add_argument("--no-limit", action="store_true")
    arguments = parser.parse_args()
    table = Table(title="open loop" + (", no limit" if arguments.no_limit else ""))
    for title in (
        "offered/s",
        "sent/s",
        "answered/s",
        "refused/s",
        "other",
        "p50 ms",
        "p99 ms",
        "max ms",
        "refused p50 ms",
    ):
        table.add_column(title, justify="right")
    with tempfile.TemporaryDirectory() as directory:
        code = (UNLIMITED if arguments.no_limit else "") + SERVE
        command = [sys.executable, "-c", code, "--data", directory, "--listen", "127.0.0.1:0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        address = address_of(process)
        try:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                capacity = pool.apply(measure, (address, arguments.seconds))
                print(f"capacity, {CALLERS} callers: {capacity:,.0f} calls per second")
                for times in arguments.times:
                    table.add_row(*pool.apply(offer, (address, times * capacity, arguments.seconds)))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
    Console(width=120).print(table)


def measure(address: str, seconds: float) -> float:
    """Calls per second of a closed loop."""
    return asyncio.run(_measure(address, seconds))


async def _measure(address: str, seconds: float) -> float:
    channels = _channels(address)
    catalog = catalog_service_pb2_grpc.CatalogServiceStub(channels[0])
    for k in range(MODELS):
        model = catalog_pb2.Model(name=f"models/m{k}")
        await catalog.UpdateModel(catalog_service_pb2.UpdateModelRequest(model=model, allow_missing=True))
    bucket = catalog_pb2.Bucket(name="buckets/b", context_schema={"numbers": [{"name": "n"}]})
    await catalog.UpdateBucket(catalog_service_pb2.UpdateBucketRequest(bucket=bucket, allow_missing=True))
    routers = [router_service_pb2_grpc.RouterServiceStub(channel) for channel in channels]
    request = _request()
    count, end = 0, time.perf_counter() + seconds

    async def caller(number: int) -> None:
        nonlocal count
        while time.perf_counter() < end:
            await routers[number % CONNECTIONS].BatchDecide(request)
            count += 1

    await asyncio.gather(*(caller(i) for i in range(CALLERS)))
    await asyncio.gather(*(channel.close() for channel in channels))
    return count / seconds


def offer(address: str, rate: float, seconds: float) -> list[str]:
    """One row of the table: what becomes of ``rate`` calls per second."""
    return asyncio.run(_offer(address, rate, seconds))


async def _offer(address: str, rate: float, seconds: float) -> list[str]:
    channels = _channels(address)
    routers = [router_service_pb2_grpc.RouterServiceStub(channel) for channel in channels]
    request, rng = _request(), np.random.default_rng(0)
    codes: Counter[grpc.StatusCode] = Counter()
    answered: list[float] = []
    refused: list[float] = []

    async def decide_once(router: router_service_pb2_grpc.RouterServiceStub) -> None:
        start = time.perf_counter()
        try:
            await router.BatchDecide(request, timeout=DEADLINE)
        except grpc.aio.AioRpcError as error:
            codes[error.code()] += 1
            if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                refused.append(time.perf_counter() - start)
        else:
            codes[grpc.StatusCode.OK] += 1
            answered.append(time.perf_counter() - start)

    begin = time.perf_counter()
    due, tasks = begin, []
    while due < begin + seconds:
        due += rng.exponential(1 / rate)
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        elif len(tasks) % 16 == 0:
            await asyncio.sleep(0)
        tasks.append(asyncio.create_task(decide_once(routers[len(tasks) % CONNECTIONS])))
    sending = time.perf_counter() - begin
    await asyncio.gather(*tasks)
    took = time.perf_counter() - begin
    await asyncio.gather(*(channel.close() for channel in channels))
    ok, full = codes.pop(grpc.StatusCode.OK, 0), codes.pop(grpc.StatusCode.RESOURCE_EXHAUSTED, 0)
    other = ", ".join(f"{code.name} {count}" for code, count in codes.items()) or "0"
    p50, p99, most = np.quantile(answered or [np.nan], [0.5, 0.99, 1.0]) * 1e3
    quick = np.median(refused) * 1e3 if refused else np.nan
    numbers = [rate, len(tasks) / sending, ok / took, full / took]
    return [f"{x:,.0f}" for x in numbers] + [other] + [f"{x:,.1f}" for x in (p50, p99, most, quick)]


def _channels(address: str) -> list[grpc.aio.Channel]:
    options = (("grpc.use_local_subchannel_pool", 1),)
    return [grpc.aio.insecure_channel(address, options=options) for _ in range(CONNECTIONS)]


def _request() -> router_service_pb2.BatchDecideRequest:
    return router_service_pb2.BatchDecideRequest(
        bucket="buckets/b", contexts=[context_pb2.Context(numbers={"n": 0.5})] * BATCH
    )


if __name__ == "__main__":
    main()
