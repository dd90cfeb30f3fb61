"""Runs the service: journal, replica, gRPC server, and an orderly end."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from pointsman.bandit.state import fingerprint
from pointsman.server.guards.admission import Admission, AdmissionInterceptor
from pointsman.server.guards.api_keys import Keyring, KeysError
from pointsman.server.guards.auth import AuthInterceptor
from pointsman.server.guards.connection_limits import OPTIONS, SHARED_PORT_OPTIONS
from pointsman.server.guards.decoding import DecodingInterceptor
from pointsman.server.guards.queue_delay import OneQueue, probe
from pointsman.server.guards.tls import Certificates, TlsError
from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.observe.access import AccessInterceptor
from pointsman.server.observe.metrics import Metrics, MetricsServer
from pointsman.server.process.config import Config
from pointsman.server.process.drain import drain
from pointsman.server.process.supervisor import Worker
from pointsman.server.rpc.catalog import CatalogService
from pointsman.server.rpc.insight import InsightService
from pointsman.server.rpc.router import RouterService
from pointsman.server.state.replica import Replica, open_replica
from pointsman.server.state.retention import DAY_NS
from pointsman.v1 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    insight_service_pb2,
    insight_service_pb2_grpc,
    router_service_pb2,
    router_service_pb2_grpc,
)

if TYPE_CHECKING:
    from pointsman.server.observe.tracing import Tracing

log = logging.getLogger("pointsman.serve")

SERVICES = tuple(
    descriptor.services_by_name[name].full_name
    for descriptor, name in (
        (router_service_pb2.DESCRIPTOR, "RouterService"),
        (catalog_service_pb2.DESCRIPTOR, "CatalogService"),
        (insight_service_pb2.DESCRIPTOR, "InsightService"),
    )
)


class ServeError(Exception):
    """The service cannot start; the message says why."""


def steady_clock_ns() -> Callable[[], int]:
    """A clock of nanoseconds since 1970 that is read once and then runs evenly, whatever is done to the system's."""
    offset = time.time_ns() - time.monotonic_ns()
    return lambda: offset + time.monotonic_ns()


async def serve(config: Config, ready: Callable[[str], None], worker: Worker | None = None) -> None:
    """Serve until SIGTERM or SIGINT. ``ready`` is called with the bound address once calls are answered.

    As a ``worker``, share the journal and the port with others.

    Raises ``JournalError`` or ``ServeError`` if it cannot start.
    """
    journal = SqliteJournal(config.data, shared=worker is not None)
    try:
        rng = worker.rng(config.seed) if worker else np.random.default_rng(config.seed)
        snapshots, retention_ns = config.data / "snapshots", config.retention_days * DAY_NS
        replica = open_replica(
            journal,
            rng,
            steady_clock_ns(),
            snapshots,
            config.snapshot_every,
            retention_ns,
            shared=worker is not None,
            keeps_snapshots=worker is None or worker.index == 0,
        )
    except BaseException:
        journal.close()
        raise
    http: MetricsServer | None = None
    tracing: Tracing | None = None
    try:
        admission = Admission()
        metrics = Metrics() if config.http else None
        tracing = _tracing() if config.traces else None
        if metrics is not None:
            replica.observe(metrics.record, metrics.appended)
        if tracing is not None:
            replica.observe(None, tracing.appended)
        server, healthy = make_server(
            replica, admission, _auth(config), metrics, tracing, shares_port=worker is not None
        )
        host = config.listen.rpartition(":")[0]
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
        stop, hurry = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):  # the second one ends the drain
            loop.add_signal_handler(number, lambda: (hurry if stop.is_set() else stop).set())
        started = asyncio.Event()
        probing = loop.create_task(probe(server, started, admission.delayed))
        await asyncio.sleep(0)  # it adds its socket
        await server.start()
        started.set()
        for service in ("", *SERVICES):
            await healthy.set(service, health_pb2.HealthCheckResponse.SERVING)
        alarm = loop.create_task(_tell_when_broken(replica, healthy))
        if worker:  # it is started again; others serve meanwhile
            alarm.add_done_callback(lambda _: stop.set())
        if metrics is not None and config.http is not None:
            http = _serve_http(config.http, worker.index if worker else 0, replica, admission, metrics)
        _spare_collections()
        ready(f"{host}:{port}")
        await stop.wait()
        alarm.cancel()
        probing.cancel()
        await drain(server, healthy, replica, admission, config.drain_seconds, hurry)
    finally:
        if http is not None:
            await asyncio.get_running_loop().run_in_executor(None, http.close)
        await replica.close()
        if tracing is not None:
            await asyncio.get_running_loop().run_in_executor(None, tracing.close)
        if worker:
            log.info("stopped at position %d: %s", replica.state.position, fingerprint(replica.state))
    if worker and replica.broken.is_set():
        raise ServeError("the journal could not be folded any further")


def _serve_http(address: str, offset: int, replica: Replica, admission: Admission, metrics: Metrics) -> MetricsServer:
    """Metrics over HTTP; each of several workers has a port of its own, the first one's plus its number."""
    host, _, port = address.rpartition(":")
    try:
        made = MetricsServer(host.strip("[]"), int(port) + offset if int(port) else 0, replica, admission, metrics)
    except (OSError, OverflowError) as error:
        raise ServeError(f"cannot listen on {address} for HTTP: {error}") from error
    log.info("metrics are on http://%s:%d/metrics", host, made.port)
    return made


def _tracing() -> Tracing:
    """What makes traces. Raises ``ServeError`` where OpenTelemetry is not installed."""
    try:
        from pointsman.server.observe.tracing import Tracing, make_provider  # an extra: not everybody has it
    except ImportError as error:
        raise ServeError(f"traces: expected the extra `otel`, as in pip install 'pointsman[otel]': {error}") from error
    return Tracing(make_provider())


def _auth(config: Config) -> AuthInterceptor | None:
    """What asks callers for their API keys, if there are any."""
    if config.api_keys is None:
        return None
    try:
        return AuthInterceptor(Keyring(config.api_keys, time.monotonic_ns), time.monotonic_ns)
    except KeysError as error:
        raise ServeError(str(error)) from error


def _spare_collections() -> None:
    """Leave what was recovered out of garbage collections, and have few of those that look at everything.

    Decisions kept for their outcomes are many long-lived objects and none of them is garbage: looking at them all stopped the
    server for a tenth of a second at a time. What goes is almost always freed at once by its count of references.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)


async def _tell_when_broken(replica: Replica, healthy: health.aio.HealthServicer) -> None:
    """Set health to NOT_SERVING once nothing can be written any more."""
    await replica.broken.wait()
    for service in ("", *SERVICES):
        await healthy.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)


def make_server(
    replica: Replica,
    admission: Admission | None = None,
    auth: AuthInterceptor | None = None,
    metrics: Metrics | None = None,
    tracing: Tracing | None = None,
    shares_port: bool = False,
) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    """A gRPC server of all services, health and reflection on ``replica``, without a port yet.

    ``admission`` limits what runs at once and knows how much that is; one with the defaults if not given.
    ``auth`` asks callers who they are, ``metrics`` counts calls, ``tracing`` makes spans of them, if given. ``shares_port``: with
    servers in other processes.
    """
    guards = [] if auth is None else [auth]
    interceptors = (
        *([] if tracing is None else [tracing.interceptor]),
        AccessInterceptor(metrics),
        *guards,
        DecodingInterceptor(),
        AdmissionInterceptor(admission or Admission()),
    )
    server = grpc.aio.server(interceptors=interceptors, options=SHARED_PORT_OPTIONS if shares_port else OPTIONS)
    queue: Any = OneQueue(server)
    router_service_pb2_grpc.add_RouterServiceServicer_to_server(RouterService(replica), queue)
    catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(CatalogService(replica), queue)
    insight_service_pb2_grpc.add_InsightServiceServicer_to_server(InsightService(replica), queue)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, queue)
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server, healthy
