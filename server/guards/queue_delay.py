"""How long calls wait before they are begun: the server measures it by calling itself.

Between a call's arrival and its handler lies gRPC's own queue, which does not tell its length. A call through it does.

>>> class Server:
...     def add_insecure_port(self, address):
...         self.address = address
>>> server = Server()
>>> with private_socket(server) as address:
...     address == server.address, Path(address.removeprefix("unix:")).parent.stat().st_mode & 0o777 == 0o700
(True, True)
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

log = logging.getLogger("pointsman.queue_delay")

INTERVAL = 0.1
"""Seconds between two measurements."""


@contextmanager
def private_socket(server: grpc.aio.Server) -> Iterator[str | None]:
    """A socket of ``server`` that is open to this user alone, while the context lasts. To be entered before the server starts.

    Yields its address, or ``None``, after a warning, if there can be none.
    """
    with ExitStack() as stack:
        address = None
        try:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="pointsman-"))
            address = f"unix:{Path(directory) / 'self'}"
            server.add_insecure_port(address)
        except (OSError, RuntimeError) as error:  # the service does its work without this
            log.warning("queue delays are not measured: %s", error)
            address = None
        yield address


async def measure_queue_delay(address: str, report: Callable[[float], None]) -> None:
    """Tell ``report``, every ``INTERVAL`` seconds, the queue delay of the server at ``address`` in seconds. Until cancelled.

    That is how long a call takes that does nothing, or has been taking so far.
    """
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            await _measure(health_pb2_grpc.HealthStub(channel), report)
    except (OSError, RuntimeError, grpc.aio.AioRpcError) as error:
        log.warning("queue delays are no longer measured: %s", error)


async def _measure(health: Any, report: Callable[[float], None]) -> None:
    loop = asyncio.get_running_loop()
    await health.Check(health_pb2.HealthCheckRequest())  # connects
    while True:
        start = loop.time()
        call = asyncio.ensure_future(_end(health.Check(health_pb2.HealthCheckRequest())))
        while not call.done():
            await asyncio.wait((call,), timeout=INTERVAL)
            report(loop.time() - start)
        await asyncio.sleep(max(0.0, INTERVAL - (loop.time() - start)))


async def _end(call: grpc.aio.UnaryUnaryCall[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]) -> None:
    """Wait for the end of a call, whatever its status: only the time counts."""
    await call.code()
