"""Metrics and health over HTTP."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import Metric

from pointsman.server.guards.admission import Admission
from pointsman.server.observe.metrics import Metrics
from pointsman.server.observe.state_metrics import StateCollector
from pointsman.server.state.replica import Replica

log = logging.getLogger("pointsman.metrics")
PATIENCE = 5.0
"""Seconds that a look at the state may wait for the event loop."""


class MetricsServer:
    """`/metrics` and `/healthz` over HTTP on a thread of its own. Raises ``OSError`` if it cannot listen."""

    def __init__(self, host: str, port: int, replica: Replica, admission: Admission, metrics: Metrics) -> None:
        loop = asyncio.get_running_loop()
        collector = StateCollector(replica, admission, metrics)

        class OnLoop:
            def collect(self) -> Iterator[Metric]:
                async def read() -> list[Metric]:
                    return list(collector.collect())

                yield from asyncio.run_coroutine_threadsafe(read(), loop).result(PATIENCE)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    try:
                        self._answer(200, generate_latest(metrics.registry), CONTENT_TYPE_LATEST)
                    except TimeoutError:
                        self._answer(503, b"the server is too busy to be looked at\n")
                elif path == "/healthz":
                    broken = replica.broken.is_set()
                    self._answer(503 if broken else 200, b"broken\n" if broken else b"ok\n")
                else:
                    self._answer(404, b"there are /metrics and /healthz\n")

            def _answer(self, status: int, body: bytes, type_: str = "text/plain; charset=utf-8") -> None:
                self.send_response(status)
                self.send_header("Content-Type", type_)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                log.debug(format, *arguments)

        metrics.registry.register(OnLoop())
        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop. Blocks for up to half a second; call it off the loop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
