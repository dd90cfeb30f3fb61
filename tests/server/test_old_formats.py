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

from pointsman.bandit.encoder import Context
from pointsman.bandit.errors import NothingEligibleError
from pointsman.bandit.outcome import Signal
from pointsman.bandit.posterior import settle
from pointsman.bandit.state import State, fingerprint
from pointsman.server.errors import ExpiredError, NotFoundError
from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.journal.sqlite_store import SqliteStore, read_rows
from pointsman.server.names import parse_decision
from pointsman.server.state import snapshot
from pointsman.server.state.outcomes import Report
from pointsman.server.state.recovery import fold_rows
from pointsman.server.state.replica import Replica, open_replica
from pointsman.server.state.reservations import counters_of
from pointsman.server.state.snapshot_store import SnapshotStore
from pointsman.v1 import router_service_pb2, router_service_pb2_grpc
from tests.server.conftest import recovered, serving

DATA = Path(__file__).parent / "data" / "format-2"
JOURNALS = ("whole", "compacted")
OFTEN = 24
"""Judged outcomes of a cell from which on its prior matters little."""


@pytest.fixture(params=JOURNALS)
def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A data directory of version 0.1.0, and what that version said of it."""
    with tarfile.open(DATA / f"{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    expected: dict[str, Any] = json.loads((DATA / f"{request.param}.json").read_text())
    return tmp_path, expected


def check(state: State, expected: dict[str, Any]) -> None:
    """Counts and spend are the same (to 1e-9 relative: sums are rounded otherwise elsewhere), and what is predicted of
    cells with many outcomes at the average context is about the same: priors are not those of that version.
    """
    assert state.position == expected["position"]
    assert {name: list(bucket.columns) for name, bucket in state.buckets.items()} == expected["columns"]
    for name, bucket in state.buckets.items():
        np.testing.assert_array_equal(bucket.decisions_k, expected["decisions_k"][name])
        np.testing.assert_array_equal(bucket.count_sk, expected["count_sk"][name])
        often_k = bucket.count_sk[Signal.QUALITY] >= OFTEN
        mean_kr = bucket.posteriors.mean_krd @ bucket.context_d
        then_kr = np.array(expected["mean_krd"][name]) @ bucket.context_d
        np.testing.assert_allclose(mean_kr[often_k], then_kr[often_k], atol=0.08)
    pacers = {f"buckets/{name}": bucket.pacer for name, bucket in state.buckets.items()}
    pacers |= {f"projects/{name}": project.pacer for name, project in state.projects.items()}
    for name, reserved in expected["reserved"].items():
        pacer = pacers[name]
        assert pacer is not None
        assert pacer.reserved == pytest.approx(reserved, rel=1e-9)
        assert pacer.spent == pytest.approx(expected["spent"][name], rel=1e-9)


def test_a_journal_folds_to_the_recorded_state(recorded: tuple[Path, dict[str, Any]]) -> None:
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
            np.testing.assert_allclose(  # an old snapshot has no sums of amounts: they are made from the regressions
                settle(bucket.posteriors).log_mean_kr,
                settle(refolded.buckets[name].posteriors).log_mean_kr,
                atol=0.15,
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


def test_it_is_migrated_and_goes_on(recorded: tuple[Path, dict[str, Any]]) -> None:
    """It is opened, migrated, decided and reported on, old decisions included, and recovered: the state is its journal's fold,
    the counters of hard budgets start from what was reserved, and no cap is passed.
    """
    directory, expected = recorded
    states: list[str] = []

    async def session(first: bool) -> None:
        journal = SqliteJournal(directory)
        assert await journal.is_old() == first
        rng = np.random.default_rng(0)
        replica = await open_replica(journal, rng, lambda: expected["now_ns"], directory / "snapshots")
        assert not await journal.is_old()
        states.append(fingerprint(replica.state))
        counters = {counter: journal.store.used(counter) for counter in counters_of(replica.state)}
        if first:
            check(replica.state, expected)
            for counter, used in counters.items():
                reserved = expected["reserved"][counter.decode().partition("\n")[0]]
                assert 0 <= used - reserved * 1e9 <= 1 + 1e-6
        decisions = await decide_until_refused(replica)
        after = {counter: journal.store.used(counter) for counter in counters_of(replica.state)}
        assert counters.keys() <= after.keys() or not decisions
        hard = replica.state.buckets["hard"]
        assert hard.config.budget is not None
        assert hard.pacer is not None
        # a call that is reported to have cost more than its bound may pass the cap, decisions may not
        assert hard.pacer.reserved <= hard.config.budget.amount or not decisions
        await report_late(replica, expected["names"])
        for counter, (nanodollars, _) in counters_of(replica.state).items():
            assert abs(journal.store.used(counter) - nanodollars) <= replica.state.position
        (record,) = await replica.decisions.decide("balanced", [CONTEXT], request_id="again")
        states.append(fingerprint(replica.state))
        assert (await replica.decisions.decide("balanced", [CONTEXT], request_id="again"))[0].last == record.last
        await replica.close()

    asyncio.run(session(first=True))
    assert fingerprint(recovered(directory)) == fingerprint(recovered(directory, use_snapshots=False)) == states[-1]
    asyncio.run(session(first=False))
    assert states[2] == states[1]


CONTEXT = Context(numbers={"n": 0.5}, text="a prompt", input_tokens=20_000)


async def decide_until_refused(replica: Replica) -> int:
    """Decide on the hard budget, in batches of 10, until nothing is left of it; how many batches that were."""
    for decisions in range(2000):
        try:
            await replica.decisions.decide("hard", [CONTEXT] * 10)
        except NothingEligibleError:
            return decisions
    raise AssertionError("a hard budget never ended")


async def report_late(replica: Replica, names: list[str]) -> None:
    """Report on decisions of before the migration, those whose window is open; again with the same key changes nothing."""
    joined = 0
    for name in reversed(names):
        report = Report(parse_decision(name, "name"), {Signal.COST: 0.0005, Signal.QUALITY: 0.5}, "late")
        try:
            reported = await replica.outcomes.report(report)
        except (ExpiredError, NotFoundError):
            continue
        assert (await replica.outcomes.report(report)).duplicate
        joined += not reported.duplicate
        if joined == 20:
            break
    assert joined


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
