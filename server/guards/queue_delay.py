"""How long calls wait to be begun: the server calls itself.

Between a call's arrival and its handler lies gRPC's own queue, which says nothing of its length. A call through it does.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

log = logging.getLogger("pointsman.probe")

EVERY = 0.1
"""Seconds between two measurements."""


class OneQueue:
    """``server`` as what services are added to, so that all methods share one queue, first come first served.

    gRPC would give each method a queue of its own, in which calls wait unseen by what comes for another.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """As the server's."""
        self._server.add_generic_rpc_handlers(tuple(handlers))

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Nothing: what is registered so is in the generic handlers too."""


async def probe(server: grpc.aio.Server, started: asyncio.Event, delayed: Callable[[float], None]) -> None:
    """Tell ``delayed``, every ``EVERY`` seconds, how long a call takes that does nothing, or has been taking. Until cancelled.

    Call it before ``server`` starts, and set ``started`` then. The calls come over a socket that is open to this user alone.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="pointsman-") as directory:
            address = f"unix:{Path(directory) / 'probe'}"
            server.add_insecure_port(address)
            await started.wait()
            async with grpc.aio.insecure_channel(address) as channel:
                await _measure(health_pb2_grpc.HealthStub(channel), delayed)
    except (OSError, RuntimeError, grpc.aio.AioRpcError) as error:  # the service does its work without this
        log.warning("how long calls wait is not measured: %s", error)


async def _measure(health: Any, delayed: Callable[[float], None]) -> None:
    loop = asyncio.get_running_loop()
    await health.Check(health_pb2.HealthCheckRequest())  # connects
    while True:
        start = loop.time()
        call = asyncio.ensure_future(_finish(health.Check(health_pb2.HealthCheckRequest())))
        while not call.done():
            await asyncio.wait((call,), timeout=EVERY)
            delayed(loop.time() - start)
        await asyncio.sleep(max(0.0, EVERY - (loop.time() - start)))


async def _finish(call: grpc.aio.UnaryUnaryCall[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]) -> None:
    """Wait for the end of a call, whatever it is: only the time counts."""
    await call.code()
