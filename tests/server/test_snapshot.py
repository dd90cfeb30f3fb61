"""A snapshot equals the state bit for bit, and folding on from it equals a full fold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pointsman.bandit.state import State, apply, fingerprint
from pointsman.server.state import snapshot
from pointsman.server.state.recovery import fold_rows
from pointsman.server.state.rows import decode
from pointsman.server.state.snapshot_store import SnapshotStore
from pointsman.v1 import catalog_pb2, catalog_service_pb2, context_pb2
from tests.server.conftest import Scenario, Service
from tests.server.test_budgets import PRICES, hard, put_bucket, put_model, put_project

Run = Callable[[Scenario], None]


async def traffic(service: Service, rounds: int) -> None:
    """Decisions of two buckets of a project, most of them with outcomes, a failing model, time passing."""
    for i in range(rounds):
        bucket = f"buckets/b{1 + i % 2}"
        context = context_pb2.Context(numbers={"n": i / rounds}, input_tokens=i % 7)
        decision = await service.decide(bucket, context=context)
        service.clock[0] += 10**9
        if i % 5:
            quality = 0.3 + 0.02 * len(decision.model) + 0.1 * (i % 3)
            signals = {"quality": quality, "cost_usd": 1e-5 * (i % 9), "latency_seconds": 0.5 + i % 3}
            await service.report(decision.name, success=bool(i % 11), **signals)


async def set_up(service: Service) -> None:
    for name, prices in PRICES.items():
        await put_model(service, name, prices)
    await put_project(service, "p", budget=hard(0.5))
    await put_project(service, "empty")
    schema = catalog_pb2.ContextSchema(numbers=[catalog_pb2.NumberFeature(name="n")])
    await put_bucket(service, "b1", project="projects/p", context_schema=schema, budget=hard(0.1))
    await put_bucket(service, "b2", project="projects/p", context_schema=schema, half_life={"seconds": 60})


def saved_and_loaded(state: State, directory: Path) -> State:
    return snapshot.load(SnapshotStore(directory).save(snapshot.capture(state), state.position).read_bytes())


def test_a_snapshot_is_the_state_with_projects_and_pool(run: Run, tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        await set_up(service)
        await traffic(service, 120)
        live = service.replica.state
        loaded = saved_and_loaded(live, tmp_path / "s")
        assert loaded.hierarchical_prior.models
        assert loaded.hierarchical_prior.precision_rgmm.any()
        assert loaded.projects["p"].pacer is not None and loaded.projects["p"].pacer.reserved > 0.0
        assert loaded.projects["empty"].pacer is None
        assert fingerprint(loaded) == fingerprint(live)
        await traffic(service, 60)
        new = catalog_service_pb2.CreateModelRequest(model=catalog_pb2.Model(name="models/new"))
        await service.catalog.CreateModel(new)  # starts from the pool
        await put_bucket(service, "b3", project="projects/p")
        await service.catalog.DeleteBucket(catalog_service_pb2.DeleteBucketRequest(name="buckets/b2"))
        await service.catalog.DeleteProject(catalog_service_pb2.DeleteProjectRequest(name="projects/empty"))
        rows = await service.rows()
        assert fingerprint(fold_rows(rows[loaded.position :], loaded)) == fingerprint(live)
        assert fingerprint(fold_rows(rows, State())) == fingerprint(live)

    run(scenario)


def test_a_concurrent_copy_is_of_the_position_at_its_start(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "SLICE", 1)  # a bucket at a time

    async def scenario(service: Service) -> None:
        await set_up(service)
        await traffic(service, 40)
        await put_bucket(service, "b3", project="projects/p")
        await put_model(service, "a", PRICES["b"])
        await traffic(service, 40)
        await service.catalog.DeleteBucket(catalog_service_pb2.DeleteBucketRequest(name="buckets/b1"))
        rows = await service.rows()
        rng, state, copies = np.random.default_rng(5), State(), list[tuple[snapshot.Capture, str]]()
        finished = 0
        for row in rows:
            record = decode(row, state.terms)
            for copy, before in list(copies):
                copy.before(record.event)
                if rng.random() < 0.3 and not copy.step():
                    assert fingerprint(snapshot.load(snapshot.whole(copy.parts()))) == before
                    copies.remove((copy, before))
                    finished += 1
            apply(state, record)
            if rng.random() < 0.5:
                copies.append((snapshot.Capture(state), fingerprint(state)))
        assert finished > 50

    run(scenario)


def test_the_fingerprint_sees_projects_and_pool(run: Run, tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        await set_up(service)
        await traffic(service, 40)
        live = service.replica.state
        spent, pooled, renamed = (saved_and_loaded(live, tmp_path / "s") for _ in range(3))
        assert spent.projects["p"].pacer is not None
        spent.projects["p"].pacer.sums[4] += 1e-12
        pooled.hierarchical_prior.precision_rgmm[0, 0, 0, 0] += 1e-12
        renamed.projects["q"] = renamed.projects.pop("empty")
        assert len({fingerprint(state) for state in (live, spent, pooled, renamed)}) == 4

    run(scenario)
