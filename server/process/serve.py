"""Runs the service: journal, replica, gRPC server, and an orderly end.

>>> now_ns = steady_clock_ns()
>>> now_ns() <= now_ns()
True
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2

from pointsman.bandit.state import fingerprint
from pointsman.server.guards.admission import Admission
from pointsman.server.guards.api_keys import KeysError
from pointsman.server.guards.auth import AuthInterceptor
from pointsman.server.guards.keyring import Keyring
from pointsman.server.guards.queue_delay import measure_queue_delay, private_socket
from pointsman.server.guards.tls import Certificates, TlsError
from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.observe.metrics import Metrics
from pointsman.server.observe.metrics_server import MetricsServer
from pointsman.server.process.config import Config
from pointsman.server.process.drain import drain
from pointsman.server.process.grpc_server import SERVICES, make_server
from pointsman.server.process.supervisor import Worker
from pointsman.server.state.replica import Replica, open_replica
from pointsman.server.state.retention import DAY_NS

if TYPE_CHECKING:
    from pointsman.server.observe.tracing import Tracing

log = logging.getLogger("pointsman.serve")


class ServeError(Exception):
    """The service cannot start; the message says why."""


def steady_clock_ns() -> Callable[[], int]:
    """A clock of nanoseconds since 1970 that never jumps: the system's is read once, and the monotonic one from then on."""
    offset = time.time_ns() - time.monotonic_ns()
    return lambda: offset + time.monotonic_ns()


async def serve(config: Config, ready: Callable[[str], None], worker: Worker | None = None) -> None:
    """Serve until SIGTERM or SIGINT. ``ready`` is called with the bound address once calls are answered.

    As a ``worker``, share the journal and the port with others.

    Raises ``JournalError`` or ``ServeError`` if it cannot start.
    """
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:  # what was opened last is closed first
        tracing = _tracing() if config.traces else None
        if tracing is not None:
            stack.push_async_callback(asyncio.to_thread, tracing.close)
        replica = await _open_replica(config, worker)
        stack.push_async_callback(replica.close)
        metrics = Metrics() if config.http else None
        if metrics is not None:
            replica.observe(metrics.record, metrics.appended)
        if tracing is not None:
            replica.observe(None, tracing.appended)
        admission = Admission()
        server, health_servicer = make_server(
            replica, admission, _auth(config), metrics, tracing, shares_port=worker is not None
        )
        address = _bind(server, config)
        own_address = stack.enter_context(private_socket(server))
        stop, hurry = _stop_events(loop)
        await server.start()
        tasks = [loop.create_task(_report_when_broken(replica, health_servicer, stop if worker else None))]
        if own_address is not None:
            tasks.append(loop.create_task(measure_queue_delay(own_address, admission.observe_delay)))
        await _set_health(health_servicer, health_pb2.HealthCheckResponse.SERVING)
        if metrics is not None and config.http is not None:
            http = _serve_http(config.http, worker.index if worker else 0, replica, admission, metrics)
            stack.push_async_callback(asyncio.to_thread, http.close)
        _spare_collections()
        ready(address)
        await stop.wait()
        for task in tasks:
            task.cancel()
        await drain(server, health_servicer, replica, admission, config.drain_seconds, hurry)
    if worker:
        log.info("stopped at position %d: %s", replica.state.position, fingerprint(replica.state))
        if replica.broken.is_set():
            raise ServeError("the journal could not be folded any further")


async def _open_replica(config: Config, worker: Worker | None) -> Replica:
    """The replica of the journal in the data directory. Raises ``JournalError``."""
    journal = SqliteJournal(config.data, shared=worker is not None)
    try:
        return await open_replica(
            journal,
            worker.rng(config.seed) if worker else np.random.default_rng(config.seed),
            steady_clock_ns(),
            config.data / "snapshots",
            config.snapshot_every,
            config.retention_days * DAY_NS,
            keeps_snapshots=worker is None or worker.index == 0,
        )
    except BaseException:
        await journal.close()
        raise


def _bind(server: grpc.aio.Server, config: Config) -> str:
    """Bind ``server`` to its port, encrypted if there is a certificate; the address with the port. Raises ``ServeError``."""
    try:
        if config.tls_cert and config.tls_key:
            certificates = Certificates(config.tls_cert, config.tls_key, config.tls_client_ca)
            port = server.add_secure_port(config.listen, certificates.credentials())
        else:
            port = server.add_insecure_port(config.listen)
    except TlsError as error:
        raise ServeError(str(error)) from error
    except RuntimeError as error:
        raise ServeError(f"cannot listen on {config.listen}: {error}") from error
    return f"{config.listen.rpartition(':')[0]}:{port}"


def _stop_events(loop: asyncio.AbstractEventLoop) -> tuple[asyncio.Event, asyncio.Event]:
    """The events that the first SIGTERM or SIGINT sets (graceful stop) and the second one (immediate stop)."""
    stop, hurry = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: (hurry if stop.is_set() else stop).set())
    return stop, hurry


def _serve_http(address: str, offset: int, replica: Replica, admission: Admission, metrics: Metrics) -> MetricsServer:
    """Metrics over HTTP; each of several workers has a port of its own, the first one's plus its number."""
    host, _, port = address.rpartition(":")
    try:
        server = MetricsServer(host.strip("[]"), int(port) + offset if int(port) else 0, replica, admission, metrics)
    except (OSError, OverflowError) as error:
        raise ServeError(f"cannot listen on {address} for HTTP: {error}") from error
    log.info("metrics are on http://%s:%d/metrics", host, server.port)
    return server


def _tracing() -> Tracing:
    """Traces of calls. Raises ``ServeError`` where OpenTelemetry is not installed."""
    try:
        from pointsman.server.observe.tracing import Tracing, make_provider  # an extra: not everybody has it
    except ImportError as error:
        raise ServeError(f"traces: expected the extra `otel`, as in pip install 'pointsman[otel]': {error}") from error
    return Tracing(make_provider())


def _auth(config: Config) -> AuthInterceptor | None:
    """The interceptor that checks API keys, if there are any."""
    if config.api_keys is None:
        return None
    try:
        return AuthInterceptor(Keyring(config.api_keys, time.monotonic_ns), time.monotonic_ns)
    except KeysError as error:
        raise ServeError(str(error)) from error


def _spare_collections() -> None:
    """Exclude what was recovered from garbage collections, and make full collections rare.

    Decisions that wait for their outcomes are many long-lived objects and none of them is garbage: a full collection stopped
    the server for a tenth of a second. Reference counting frees almost everything at once.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)


async def _report_when_broken(
    replica: Replica, health_servicer: health.aio.HealthServicer, stop: asyncio.Event | None
) -> None:
    """Once nothing can be written any more, set health to NOT_SERVING and ``stop``, if given.

    A worker stops then: it is started again, and others serve meanwhile.
    """
    await replica.broken.wait()
    await _set_health(health_servicer, health_pb2.HealthCheckResponse.NOT_SERVING)
    if stop is not None:
        stop.set()


async def _set_health(health_servicer: health.aio.HealthServicer, status: Any) -> None:
    """Set the health of every service and of the whole."""
    for service in ("", *SERVICES):
        await health_servicer.set(service, status)
