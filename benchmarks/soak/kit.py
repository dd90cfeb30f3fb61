"""What the soaks share: a server process, calls on it, and a table at the end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from rich.console import Console
from rich.table import Table

from pointsman.v1 import (
    catalog_service_pb2_grpc,
    insight_service_pb2_grpc,
    router_service_pb2_grpc,
)

ROOT = Path(__file__).parents[2]
WAIT = 60.0
"""Seconds after which a call or a process is taken to hang."""


class Server:
    """A service in a process group of its own on ``data``; its standard error goes to a file beside it."""

    def __init__(self, data: Path, *more: str) -> None:
        self.data, self.errors = data, data.with_name(data.name + ".stderr")
        code = "from pointsman.server.cli.commands import serve; serve()"
        command = [sys.executable, "-c", code, "--data", str(data), "--listen", "127.0.0.1:0", *more]
        with self.errors.open("a") as errors:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )
        self.address = ""

    def ready(self) -> Server:
        """Wait until it answers. Raises ``RuntimeError`` with what it said if it ends instead."""
        assert self.process.stdout is not None
        found = re.search(r"serving on (\S+)", self.process.stdout.readline())
        if not found:
            raise RuntimeError(f"the server did not start: {self.said()[-2000:]}")
        self.address = found[1]
        return self

    def said(self) -> str:
        """All that was written to standard error on this data directory."""
        return self.errors.read_text()

    def kill(self) -> None:
        """SIGKILL to the whole group: no chance to do anything more."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(WAIT)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def stop(self) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(WAIT)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


class Stubs:
    """The three services on a channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.router: Any = router_service_pb2_grpc.RouterServiceStub(channel)
        self.catalog: Any = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        self.insight: Any = insight_service_pb2_grpc.InsightServiceStub(channel)


async def patient(method: Any, request: Any) -> tuple[Any, int]:
    """The answer to a call that is sent again while the server is too busy to begin it; how often it was refused."""
    refused = 0
    while True:
        try:
            return await method(request, timeout=WAIT), refused
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            refused += 1
            await asyncio.sleep(0.05)


def verify(data: Path) -> dict[str, Any]:
    """What `pointsman verify --json` says; the server must not be running."""
    code = "from pointsman.server.cli.commands import verify; verify()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--data", str(data), "--json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    if not done.stdout:
        raise RuntimeError(f"verify failed: {done.stderr}")
    return dict(json.loads(done.stdout))


def tracebacks(said: str) -> int:
    """How many exceptions the server logged that nobody expected."""
    return said.count("Traceback (most recent call last)")


def finish(title: str, rows: Mapping[str, object], violations: Sequence[str], started: float, as_json: bool) -> int:
    """Print the table (or JSON) and what was violated; the exit code."""
    rows = {**rows, "violations": len(violations), "seconds": round(time.perf_counter() - started)}
    if as_json:
        print(json.dumps({"title": title, **rows, "violated": list(violations[:50])}))
    else:
        table = Table(title=title, show_header=False)
        for name, value in rows.items():
            table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
        console = Console()
        console.print(table)
        for violation in violations[:50]:
            console.print(violation, markup=False)
    return 1 if violations else 0
