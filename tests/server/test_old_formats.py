"""Data of version 0.1.0 stays readable: its snapshots, its journals and the states that compacted ones start from."""

from __future__ import annotations

import asyncio
import json
import tarfile
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import json_format

from pointsman.bandit.state import State, fingerprint
from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.journal.sqlite_store import SqliteStore, read_rows
from pointsman.server.state import snapshot
from pointsman.server.state.recovery import fold_rows
from pointsman.server.state.replica import open_replica
from pointsman.server.state.snapshot_store import SnapshotStore
from pointsman.v1 import router_service_pb2, router_service_pb2_grpc
from tests.server.conftest import recovered, serving

DATA = Path(__file__).parent / "data" / "format-2"
JOURNALS = ("whole", "compacted")


@pytest.fixture(params=JOURNALS)
def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A data directory of version 0.1.0, and what that version said of it."""
    with tarfile.open(DATA / f"{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    expected: dict[str, Any] = json.loads((DATA / f"{request.param}.json").read_text())
    return tmp_path, expected


def check(state: State, expected: dict[str, Any]) -> None:
    """Counts are the same, numbers to 1e-9 relative: sums are rounded differently by other processors."""
    assert state.position == expected["position"]
    assert {name: list(bucket.columns) for name, bucket in state.buckets.items()} == expected["columns"]
    for name, bucket in state.buckets.items():
        np.testing.assert_array_equal(bucket.decisions_k, expected["decisions_k"][name])
        np.testing.assert_array_equal(bucket.count_sk, expected["count_sk"][name])
        np.testing.assert_allclose(bucket.posteriors.mean_krd, expected["mean_krd"][name], rtol=1e-9, atol=1e-13)
    pacers = {f"buckets/{name}": bucket.pacer for name, bucket in state.buckets.items()}
    pacers |= {f"projects/{name}": project.pacer for name, project in state.projects.items()}
    for name, reserved in expected["reserved"].items():
        pacer = pacers[name]
        assert pacer is not None
        assert pacer.reserved == pytest.approx(reserved, rel=1e-9)
        assert pacer.spent == pytest.approx(expected["spent"][name], rel=1e-9)


def test_a_journal_folds_to_what_it_was(recorded: tuple[Path, dict[str, Any]]) -> None:
    directory, expected = recorded
    store = SqliteStore(directory)
    assert store.base().position == expected["base"]
    assert store.is_old
    store.close()
    check(recovered(directory, use_snapshots=False), expected)


def test_a_snapshot_with_the_rest_of_its_journal_is_the_same_state(recorded: tuple[Path, dict[str, Any]]) -> None:
    directory, expected = recorded
    refolded = recovered(directory, use_snapshots=False)
    rows = list(read_rows(directory))
    paths = SnapshotStore(directory / "snapshots").newest_first()
    assert paths
    for path in paths:
        state = snapshot.load(path.read_bytes())
        fold_rows((row for row in rows if row.position > state.position), state)
        check(state, expected)
        for name, bucket in state.buckets.items():
            np.testing.assert_allclose(
                bucket.posteriors.exceedance_kn, refolded.buckets[name].posteriors.exceedance_kn, rtol=1e-9
            )
            np.testing.assert_array_equal(bucket.changed_at_k, refolded.buckets[name].changed_at_k)
        again = snapshot.load(snapshot.whole(snapshot.capture(state)))
        assert fingerprint(again) == fingerprint(state)  # written under the present names, read under both


def test_decisions_are_answered_as_they_were(recorded: tuple[Path, dict[str, Any]]) -> None:
    directory, expected = recorded
    answers = [router_service_pb2.GetDecisionResponse.FromString(bytes.fromhex(text)) for text in expected["decisions"]]
    assert len(answers) == 60

    async def ask() -> list[router_service_pb2.GetDecisionResponse]:
        rng = np.random.default_rng(0)
        replica = await open_replica(SqliteJournal(directory), rng, lambda: expected["now_ns"], directory / "snapshots")
        async with serving(replica) as address, grpc.aio.insecure_channel(address) as channel:
            router: Any = router_service_pb2_grpc.RouterServiceStub(channel)
            requests = [router_service_pb2.GetDecisionRequest(name=answer.decision.name) for answer in answers]
            return [await router.GetDecision(request) for request in requests]

    for now, then in zip(asyncio.run(ask()), answers, strict=True):
        assert_alike(json_format.MessageToDict(now), json_format.MessageToDict(then), then.decision.name)


def assert_alike(now: Any, then: Any, where: str) -> None:
    """The same, numbers to 1e-9 relative."""
    if isinstance(then, dict):
        assert now.keys() == then.keys(), where
        for key in then:
            assert_alike(now[key], then[key], f"{where}.{key}")
    elif isinstance(then, list):
        assert len(now) == len(then), where
        for i, (left, right) in enumerate(zip(now, then, strict=True)):
            assert_alike(left, right, f"{where}[{i}]")
    elif isinstance(then, float):
        assert now == pytest.approx(then, rel=1e-9, abs=1e-12), where
    else:
        assert now == then, where
