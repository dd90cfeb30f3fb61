"""Shared by the soak tests: stubs, checks of a stopped server's data and log, and the final table."""

from __future__ import annotations

import json
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
from tests.processes import run_python

VERIFY_S = 3600.0
"""Seconds after which a refold is taken to hang: a long soak leaves a long journal."""


class Stubs:
    """The three services on a channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.router: Any = router_service_pb2_grpc.RouterServiceStub(channel)
        self.catalog: Any = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        self.insight: Any = insight_service_pb2_grpc.InsightServiceStub(channel)


def verify(data: Path) -> dict[str, Any]:
    """The report of `pointsman verify --json`; the server must not be running."""
    code = "from pointsman.server.cli.journal import verify; verify()"
    done = run_python("-c", code, "--data", str(data), "--json", seconds=VERIFY_S)
    if not done.stdout:
        raise RuntimeError(f"verify failed: {done.stderr}")
    return dict(json.loads(done.stdout))


def tracebacks(output: str) -> int:
    """The number of tracebacks in a server's log."""
    return output.count("Traceback (most recent call last)")


def finish(title: str, rows: Mapping[str, object], violations: Sequence[str], started: float, as_json: bool) -> int:
    """Print the table (or JSON) and the violations; returns the exit code."""
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
