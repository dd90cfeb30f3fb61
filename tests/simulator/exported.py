"""A journal's export, made by the very service: three models, two buckets, some reports late or missing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from pointsman.server.cli.journal import export
from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.rpc.catalog import CatalogService
from pointsman.server.rpc.router import RouterService
from pointsman.server.state.replica import open_replica
from pointsman.v1 import catalog_pb2, catalog_service_pb2, context_pb2, outcome_pb2, router_service_pb2

COSTS = (0.0001, 0.001, 0.01)
WAVE = 25
"""Decisions that are made at once, before their outcomes are reported at once: they share a few transactions."""
MODES = {"chat": catalog_pb2.OBJECTIVE_MODE_BALANCED, "maths": catalog_pb2.OBJECTIVE_MODE_QUALITY_FIRST}


class _Context:
    """As much of a gRPC context as the handlers use."""

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def time_remaining(self) -> None:
        return None

    def set_trailing_metadata(self, *_: Any) -> None:
        return None


def export_journal(folder: Path, decisions: int, seed: int = 0) -> Path:
    """Model i has quality .5 + .1 i + .1 z (i - 1) and costs COSTS[i]; one report in ten never comes."""
    asyncio.run(_play(folder / "data", decisions, seed))
    path = folder / "export.jsonl"
    done = CliRunner().invoke(export, ["--data", str(folder / "data"), "--to", str(path)])
    assert done.exit_code == 0, done.output
    return path


async def _play(data: Path, decisions: int, seed: int) -> None:
    clock = [10**18]

    def now_ns() -> int:
        clock[0] += 10**9
        return clock[0]

    data.mkdir(parents=True)
    replica = await open_replica(SqliteJournal(data), np.random.default_rng(seed), now_ns, None)
    router, catalog, context = RouterService(replica), CatalogService(replica), _Context()
    for i in range(len(COSTS)):
        model = catalog_pb2.Model(name=f"models/m{i}")
        await catalog.CreateModel(catalog_service_pb2.CreateModelRequest(model=model), context)  # type: ignore[arg-type]
    schema = catalog_pb2.ContextSchema(numbers=[catalog_pb2.NumberFeature(name="z")])
    for name, mode in MODES.items():
        bucket = catalog_pb2.Bucket(
            name=f"buckets/{name}", context_schema=schema, objective=catalog_pb2.Objective(mode=mode)
        )
        await catalog.CreateBucket(catalog_service_pb2.CreateBucketRequest(bucket=bucket), context)  # type: ignore[arg-type]
    rng = np.random.default_rng(seed + 1)
    for start in range(0, decisions, WAVE):
        wave = range(start, min(start + WAVE, decisions))
        z_by_round = {t: float(rng.normal()) for t in wave}
        requests = [
            router_service_pb2.DecideRequest(
                bucket=f"buckets/{list(MODES)[t % 2]}", context=context_pb2.Context(numbers={"z": z})
            )
            for t, z in z_by_round.items()
        ]
        answers = await asyncio.gather(*(router.Decide(request, context) for request in requests))  # type: ignore[arg-type]
        reports = []
        for z, answer in zip(z_by_round.values(), answers, strict=True):
            i = int(answer.decision.model[-1])
            quality = float(np.clip(0.5 + 0.1 * i + 0.1 * z * (i - 1) + 0.1 * rng.normal(), 0.0, 1.0))
            if rng.random() < 0.9:
                outcome = outcome_pb2.Outcome(quality=quality, cost_usd=COSTS[i], latency_seconds=1.0 + i)
                reports.append(router_service_pb2.ReportOutcomeRequest(decision=answer.decision.name, outcome=outcome))
        await asyncio.gather(*(router.ReportOutcome(report, context) for report in reports))  # type: ignore[arg-type]
    await replica.close()
