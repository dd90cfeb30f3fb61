"""Metrics and health over HTTP."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from pointsman.server.guards.admission import Admission
from pointsman.server.observe.metrics import Metrics
from pointsman.server.observe.state_metrics import StateCollector
from pointsman.server.state.replica import Replica

log = logging.getLogger("pointsman.metrics")

PATIENCE = 5.0
"""Seconds that reading the state may wait for the event loop."""
Answer = tuple[int, bytes, str]
"""Status, body and content type of an HTTP response."""
_TEXT = "text/plain; charset=utf-8"


def answer(path: str, metrics: Callable[[], bytes], is_broken: bool) -> Answer:
    """The response to a GET of ``path``. ``metrics`` writes them, and raises ``TimeoutError`` if that takes too long.

    >>> answer("/healthz?from=lb", lambda: b"", is_broken=False)
    (200, b'ok\\n', 'text/plain; charset=utf-8')
    >>> answer("/healthz", lambda: b"", is_broken=True)[0]
    503
    """
    match path.partition("?")[0]:
        case "/metrics":
            try:
                return 200, metrics(), CONTENT_TYPE_LATEST
            except TimeoutError:
                return 503, b"the server is too busy to be looked at\n", _TEXT
        case "/healthz":
            return (503, b"broken\n", _TEXT) if is_broken else (200, b"ok\n", _TEXT)
        case _:
            return 404, b"there are /metrics and /healthz\n", _TEXT


class _OnLoop(Collector):
    """A collector that is read on an event loop from the thread of an HTTP request."""

    def __init__(self, collector: StateCollector, loop: asyncio.AbstractEventLoop) -> None:
        self._collector, self._loop = collector, loop

    def collect(self) -> Iterator[Metric]:
        yield from asyncio.run_coroutine_threadsafe(self._read(), self._loop).result(PATIENCE)

    async def _read(self) -> list[Metric]:
        return list(self._collector.collect())


class MetricsServer:
    """`/metrics` and `/healthz` over HTTP on a thread of its own, with the state of ``replica``, whose loop must be running.

    ``port`` is the one that was bound; 0 takes a free one. Raises ``OSError`` if it cannot listen.
    """

    def __init__(self, host: str, port: int, replica: Replica, admission: Admission, metrics: Metrics) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body, content_type = answer(
                    self.path, lambda: generate_latest(metrics.registry), replica.broken.is_set()
                )
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                log.debug(format, *arguments)

        metrics.registry.register(_OnLoop(StateCollector(replica, admission, metrics), asyncio.get_running_loop()))
        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop. Blocks for up to half a second, so it is not to be called on the event loop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
