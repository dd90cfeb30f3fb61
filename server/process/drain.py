"""How a server stops: says so, takes nothing new, lets what is under way finish, and ends early if told to."""

from __future__ import annotations

import asyncio

import grpc
from grpc_health.v1 import health

from pointsman.server.guards.admission import Admission
from pointsman.server.state.replica import Replica

QUIET = 0.2
"""Seconds without a call under way after which nothing is waited for any more: the last answers are on their way by then."""
_LOOK = 0.02


async def drain(
    server: grpc.aio.Server,
    health_servicer: health.aio.HealthServicer,
    replica: Replica,
    admission: Admission,
    seconds: float,
    hurry: asyncio.Event,
) -> None:
    """Stop ``server`` within ``seconds``, or at once when ``hurry`` is set.

    Health is NOT_SERVING first, then watches end, new calls are refused, and calls under way finish. What does not finish in
    time is cancelled. Callers that watch health, who never end by themselves, are not waited for.
    """
    await health_servicer.enter_graceful_shutdown()
    replica.end_watches()
    stopped = asyncio.ensure_future(server.stop(seconds))
    hurried = asyncio.ensure_future(hurry.wait())
    quiet = asyncio.ensure_future(_quiet(admission))
    await asyncio.wait((stopped, hurried, quiet), return_when=asyncio.FIRST_COMPLETED)
    for task in (hurried, quiet):
        task.cancel()
    await server.stop(0)
    await stopped


async def _quiet(admission: Admission) -> None:
    """Returns when nothing has been under way for a while."""
    loop = asyncio.get_running_loop()
    since = loop.time()
    while loop.time() - since < QUIET:
        await asyncio.sleep(_LOOK)
        if admission.in_flight or admission.streams:
            since = loop.time()
