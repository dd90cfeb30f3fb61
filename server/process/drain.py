"""Graceful stop: health says NOT_SERVING, new calls are refused, calls under way finish, a second signal ends it early.

>>> class Stopping:
...     async def enter_graceful_shutdown(self):
...         print("NOT_SERVING")
...     def end(self):
...         print("no more watches")
...     async def stop(self, grace):
...         print(f"calls have {grace:g} s to finish")
>>> part = Stopping()
>>> part.watchers = part
>>> async def stop():
...     await drain(part, part, part, Admission(), seconds=10.0, hurry=asyncio.Event())
>>> asyncio.run(stop())
NOT_SERVING
no more watches
calls have 10 s to finish
calls have 0 s to finish
"""

from __future__ import annotations

import asyncio

import grpc
from grpc_health.v1 import health

from pointsman.server.guards.admission import Admission
from pointsman.server.state.replica import Replica

QUIET = 0.2
"""Seconds without a call under way after which the server stops waiting: the last answers are on their way by then."""
_POLL = 0.02


async def drain(
    server: grpc.aio.Server,
    health_servicer: health.aio.HealthServicer,
    replica: Replica,
    admission: Admission,
    seconds: float,
    hurry: asyncio.Event,
) -> None:
    """Stop ``server`` within ``seconds``, or at once when ``hurry`` is set.

    First health is NOT_SERVING, then watches end, new calls are refused, and calls under way finish. What does not finish in
    time is cancelled. Callers that watch health never leave by themselves, so they are not waited for.
    """
    await health_servicer.enter_graceful_shutdown()
    replica.watchers.end()
    stopped = asyncio.ensure_future(server.stop(seconds))
    hurried = asyncio.ensure_future(hurry.wait())
    quiet = asyncio.ensure_future(_quiet(admission))
    await asyncio.wait((stopped, hurried, quiet), return_when=asyncio.FIRST_COMPLETED)
    for task in (hurried, quiet):
        task.cancel()
    await server.stop(0)
    await stopped


async def _quiet(admission: Admission) -> None:
    """Return when no call has been under way for ``QUIET`` seconds."""
    loop = asyncio.get_running_loop()
    since = loop.time()
    while loop.time() - since < QUIET:
        await asyncio.sleep(_POLL)
        if admission.in_flight or admission.streams:
            since = loop.time()
