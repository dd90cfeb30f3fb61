"""Retention: old rows are deleted, posteriors are kept, and open decisions are not lost."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from click.testing import CliRunner

from pointsman.bandit.state import State, fingerprint
from pointsman.cli import main
from pointsman.server.journal.interface import Base, Conflict, JournalError, JournalFormatError, Row, Span
from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.journal.sqlite_store import FILE, SqliteStore, read_rows
from pointsman.server.names import parse_decision
from pointsman.server.state.recovery import fold_rows
from pointsman.server.state.replica import open_replica
from pointsman.server.state.retention import DAY_NS
from pointsman.server.state.snapshot_store import CANDIDATE
from pointsman.v1 import catalog_pb2, catalog_service_pb2, insight_service_pb2, router_service_pb2
from tests.server.conftest import Service, recovered, serving
from tests.server.test_journal import at, group_of

RETENTION_NS = 1000 * 10**9
WINDOW_S = 100


def never() -> bool:
    return False


def with_retention(
    directory: Path,
    scenario: Callable[[Service], Awaitable[None]],
    start_ns: int = 10**18,
    every: int = 40,
    retention_ns: int = RETENTION_NS,
) -> None:
    """Run a scenario on a service with short retention, a bucket `b` and frequent snapshots."""

    async def go() -> None:
        clock = [start_ns]
        replica = await open_replica(
            SqliteJournal(directory),
            np.random.default_rng(0),
            lambda: clock[0],
            directory / "snapshots",
            every,
            retention_ns,
        )
        async with serving(replica) as address, grpc.aio.insecure_channel(address) as channel:
            service = Service(replica, channel, clock)
            for name in ("a", "b"):
                model = catalog_pb2.Model(name=f"models/{name}")
                await service.catalog.UpdateModel(
                    catalog_service_pb2.UpdateModelRequest(model=model, allow_missing=True)
                )
            await put_bucket(service, WINDOW_S)
            await scenario(service)

    asyncio.run(go())


async def put_bucket(service: Service, window_s: int, high: float = 1.0) -> None:
    schema = catalog_pb2.ContextSchema(numbers=[catalog_pb2.NumberFeature(name="n")])
    quality = catalog_pb2.QualityRange(min=0.0, max=high)
    bucket = catalog_pb2.Bucket(name="buckets/b", context_schema=schema, quality_range=quality)
    bucket.attribution_window.seconds = window_s
    await service.catalog.UpdateBucket(catalog_service_pb2.UpdateBucketRequest(bucket=bucket, allow_missing=True))


async def traffic(service: Service, rounds: int, step_s: int = 10) -> list[str]:
    """Decisions with outcomes, ``step_s`` apart; their names."""
    names = []
    for i in range(rounds):
        decision = await service.decide(request_id=f"r{service.clock[0]}")
        await service.report(decision.name, quality=(i % 10) / 10, cost_usd=0.001, idempotency_key="k")
        names.append(decision.name)
        service.clock[0] += step_s * 10**9
    await service.replica.snapshotting.finished()
    return names


def base_of(directory: Path) -> int:
    with sqlite3.connect(directory / FILE) as connection:
        row = connection.execute("SELECT position FROM base").fetchone()
    return row[0] if row else 0


def test_old_rows_go_and_the_state_stays(tmp_path: Path) -> None:
    bases, rows, live = [], [], []

    async def scenario(service: Service) -> None:
        first = await traffic(service, 30)
        for _ in range(12):
            last = await traffic(service, 30)
            bases.append(base_of(tmp_path))
            rows.append(len(await service.rows()))
        for method, request in (
            (service.router.GetDecision, router_service_pb2.GetDecisionRequest(name=first[0])),
            (
                service.router.ReportOutcome,
                router_service_pb2.ReportOutcomeRequest(decision=first[0], outcome={"quality": 0.5}),
            ),
        ):
            service.replica.records.forget()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(request)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        view = await service.router.GetDecision(router_service_pb2.GetDecisionRequest(name=last[-1]))
        assert view.decision.name == last[-1]
        records = [
            record
            async for message in service.insight.ExportJournal(insight_service_pb2.ExportJournalRequest())
            for record in message.records
        ]
        assert records[0].position == base_of(tmp_path) + 1
        live.append(fingerprint(service.replica.state))

    with_retention(tmp_path, scenario)
    assert bases == sorted(bases)
    assert len(set(bases)) > 2, "the journal was compacted more than once"
    # 100 decisions and their outcomes happen in one retention; one snapshot's worth more may be there
    assert max(rows) <= 2 * 2 * 100 + 3 * 60
    assert fingerprint(recovered(tmp_path)) == live[0]
    assert fingerprint(recovered(tmp_path, use_snapshots=False)) == live[0]
    with sqlite3.connect(tmp_path / FILE) as connection:
        count = connection.execute(f"SELECT count(*) FROM journal WHERE position <= {bases[-1]}").fetchone()[0]
        assert count == 3, "two models and a bucket are all that is left of what was compacted"
        query = f"SELECT count(*) FROM keys WHERE first <= {bases[-1]}"
        assert connection.execute(query).fetchone()[0] == 3
    connection.close()
    assert next(read_rows(tmp_path)).position == bases[-1] + 1


def test_the_file_stops_growing(tmp_path: Path) -> None:
    pages: list[int] = []

    async def scenario(service: Service) -> None:
        for _ in range(16):
            for _ in range(6):  # compaction keeps pace, however busy the machine is
                await traffic(service, 10, step_s=20)
            with sqlite3.connect(tmp_path / FILE) as connection:
                pages.append(connection.execute("PRAGMA page_count").fetchone()[0])

    with_retention(tmp_path, scenario)
    # as many as at their height before, but for a page or two that rows happen to be spread over
    assert max(pages[8:]) <= 1.1 * max(pages[:8]), pages


def test_open_decisions_are_not_dropped(tmp_path: Path) -> None:
    """A decision made under a window longer than the retention holds compaction up, also when the window is shorter since."""

    async def scenario(service: Service) -> None:
        await put_bucket(service, 5000)
        open_one = await service.decide()
        await put_bucket(service, WINDOW_S)
        await traffic(service, 300)
        assert base_of(tmp_path) == 0
        service.replica.records.forget()
        await service.report(open_one.name, quality=0.5)
        await traffic(service, 300)
        assert base_of(tmp_path) > 0

    with_retention(tmp_path, scenario)


def test_a_decision_keeps_its_scale_when_its_bucket_was_compacted(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        await put_bucket(service, WINDOW_S, high=4.0)
        names = await traffic(service, 300)
        assert base_of(tmp_path) > 5
        await put_bucket(service, WINDOW_S, high=10.0)
        before = (await service.router.GetDecision(router_service_pb2.GetDecisionRequest(name=names[-1]))).decision
        assert max(c.quality_mean for c in before.candidates) <= 4.0
        record = await service.replica.records.get(parse_decision(names[-1], ""), "decision")
        assert record.decision.quality.max == 4.0

    with_retention(tmp_path, scenario)


def test_request_ids_are_known_as_long_as_their_decisions(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        old = await service.decide(request_id="old")
        assert (await service.decide(request_id="old")).name == old.name
        await traffic(service, 300)
        new = await service.decide(request_id="old")
        assert new.name != old.name
        assert (await service.decide(request_id="old")).name == new.name

    with_retention(tmp_path, scenario)


def test_without_retention_all_stays(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        await traffic(service, 300)
        assert not list((tmp_path / "snapshots").glob(f"*.{CANDIDATE}"))
        assert base_of(tmp_path) == 0

    with_retention(tmp_path, scenario, retention_ns=0)
    assert [row.position for row in read_rows(tmp_path)] == list(range(1, 604))


def test_a_clock_that_goes_back_compacts_nothing_and_keeps_the_time(tmp_path: Path) -> None:
    base: list[int] = []

    async def before(service: Service) -> None:
        await traffic(service, 200)
        base.append(base_of(tmp_path))

    async def after(service: Service) -> None:
        decision = (await traffic(service, 100, step_s=1))[-1]
        assert base_of(tmp_path) == base[0]
        await service.report(decision, latency_seconds=1.0)  # its window is counted on the clock it was opened on
        service.clock[0] += (WINDOW_S + 1) * 10**9
        with pytest.raises(grpc.aio.AioRpcError, match="attribution window"):
            await service.report(decision, latency_seconds=2.0)

    with_retention(tmp_path, before)
    with_retention(tmp_path, after, start_ns=10**18 - 10**15)
    times = [row.time_ns for row in read_rows(tmp_path)]
    assert times == sorted(times)
    assert times[-1] > 10**18


def test_a_large_base_and_many_rows_that_are_freed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.append([group_of(b"%d" % i, b"k%d" % i, 0, b"o%d" % i) for i in range(1, 3001)], 7)
    store.append([group_of(b"more", b"k5"), group_of(b"more", b"k2507")], 8)
    state = bytes(range(256)) * 40_000  # more than one part
    store.compact(Base(2500, 7), state)
    for sweep in (False, True):  # the same before the space is freed, and after
        if sweep:
            store.sweep(never)
        assert store.base() == Base(2500, 7)
        assert store.base_state() == state
        assert store.end() == 3002
        assert [row.position for row in store.read(1, 2502)] == [2501, 2502]
        assert store.span(b"k5") is None
        assert store.span(b"k2507") == Span(2507, 3002)
        assert store.span(b"o2500") is None
        assert store.append([group_of(b"x", once=b"o2501")], 9) == [Conflict(b"o2501", Span(2501, 2501))]
    store.compact(Base(3002, 8), b"all")
    store.sweep(never)
    store.close()
    store = SqliteStore(tmp_path)
    assert (store.end(), store.base(), store.base_state()) == (3002, Base(3002, 8), b"all")
    assert store.append([group_of(b"next", once=b"o1")], 1) == [at(3003, time_ns=8)]
    store.close()


def test_appends_go_on_while_space_is_freed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    for i in range(20):
        store.append([group_of(bytes(200), b"%d.%d" % (i, j), 0) for j in range(500)], 1)
    store.compact(Base(10_000, 1), b"s")
    sweeping = threading.Thread(target=store.sweep, args=(never,))
    sweeping.start()
    appended = 0
    while sweeping.is_alive():
        assert store.append([group_of(b"x", b"new%d" % appended, 0)], 2) == [at(10_001 + appended, time_ns=2)]
        appended += 1
    sweeping.join()
    assert appended > 10
    assert [row.position for row in read_rows(tmp_path)] == list(range(10_001, 10_001 + appended))
    assert store.reader.execute("SELECT count(*), min(first) FROM keys").fetchone() == (appended, 10_001)
    store.close()


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_freeing_that_was_cut_off_is_taken_up_again(tmp_path: Path, steps: int) -> None:
    store = SqliteStore(tmp_path)
    store.append([group_of(b"x", b"k%d" % i, 0, b"o%d" % i) for i in range(3000)], 1)
    store.compact(Base(2000, 1), b"s")
    left = iter(range(steps))
    store.sweep(lambda: next(left, None) is None)
    store.close()
    store = SqliteStore(tmp_path)
    assert [row.position for row in store.read(1)] == list(range(2001, 3001))
    store.sweep(never)
    assert store.reader.execute("SELECT count(*) FROM journal").fetchone() == (1000,)
    assert store.reader.execute("SELECT count(*) FROM keys").fetchone() == (2000,)
    store.close()


def test_how_long_rows_are_to_be_kept_is_stored_with_them(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        await traffic(service, 100)

    with_retention(tmp_path, scenario, retention_ns=0)
    store = SqliteStore(tmp_path)
    query = "SELECT position FROM journal WHERE permanent"
    assert store.reader.execute(query).fetchall() == [(1,), (2,), (3,)]
    assert store.open_until(3) == 0
    assert store.open_until(203) == 10**18 + (99 * 10 + WINDOW_S) * 10**9
    store.close()


FORMAT_1 = """
CREATE TABLE journal (position INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE keys (key BLOB PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE once (once BLOB PRIMARY KEY, first INTEGER NOT NULL, count INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


def lifetime(data: bytes) -> tuple[bool, int]:
    return data == b"a", 70 if data == b"b" else 0


def test_a_journal_of_format_1_is_migrated_in_place(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as old:
        old.executescript(FORMAT_1)
        old.executemany("INSERT INTO journal VALUES (?, 5, ?)", [(1, b"a"), (2, b"b")])
        old.execute("INSERT INTO keys VALUES (?, 1, 2)", (b"k",))
        old.execute("INSERT INTO once VALUES (?, 2, 1)", (b"o",))
    old.close()
    assert list(read_rows(tmp_path)) == [Row(1, 5, b"a"), Row(2, 5, b"b")]  # reading migrates nothing
    store = SqliteStore(tmp_path)
    assert (store.read(1), store.span(b"k"), store.base()) == ([Row(1, 5, b"a"), Row(2, 5, b"b")], Span(1, 2), Base())
    with pytest.raises(JournalError, match="must be migrated"):
        store.append([group_of(b"x")], 6)
    assert store.reader.execute("PRAGMA user_version").fetchone() == (1,)
    store.migrate(lifetime, {b"c": (4, 100)})
    for _ in range(2):
        assert (store.read(1), store.span(b"k")) == ([Row(1, 5, b"a"), Row(2, 5, b"b")], Span(1, 2))
        assert store.append([group_of(b"x", once=b"o")], 6) == [Conflict(b"o", Span(2, 2))]
        assert (store.base(), store.open_until(2), store.used(b"c")) == (Base(), 70, 4)
        assert store.reader.execute("PRAGMA user_version").fetchone() == (3,)
        store.close()
        store = SqliteStore(tmp_path)
    store.compact(Base(2, 5), b"s")
    assert [row.position for row in store.read(1)] == [1]
    assert store.append([group_of(b"next", b"k", 2)], 6) == [at(3, time_ns=6)]
    store.close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as old:
        old.executescript(FORMAT_1)
        old.execute("INSERT INTO journal VALUES (1, 5, ?)", (b"a",))
        tables = old.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    old.close()

    def fails(data: bytes) -> tuple[bool, int]:
        raise ZeroDivisionError

    store = SqliteStore(tmp_path)
    with pytest.raises(ZeroDivisionError):
        store.migrate(fails, {})
    assert store.is_old
    assert store.reader.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall() == tables
    assert store.read(1) == [Row(1, 5, b"a")]
    store.close()


def test_a_damaged_base_is_refused(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        await traffic(service, 300)

    with_retention(tmp_path, scenario)
    base = base_of(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute(
            "UPDATE base_part SET data = CAST(substr(data, 1, 5000) || "
            "CASE substr(data, 5001, 1) WHEN x'00' THEN x'01' ELSE x'00' END || substr(data, 5002) AS BLOB)"
        )
    connection.close()
    recovered(tmp_path)  # a newer snapshot needs no base
    with pytest.raises(
        JournalFormatError, match=f"state at position {base} that cannot be read: its checksum is wrong"
    ):
        recovered(tmp_path, use_snapshots=False)


def call(*arguments: str | Path | int) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def test_commands_on_a_compacted_journal(tmp_path: Path) -> None:
    data = tmp_path / "data"

    async def scenario(service: Service) -> None:
        await traffic(service, 300)

    with_retention(data, scenario, retention_ns=0)
    before = fingerprint(fold_rows(read_rows(data), State()))
    size = (data / FILE).stat().st_size
    code, out = call("compact", "--data", data, "--older-than", 1, "--json")
    assert code == 0, out
    done = json.loads(out)
    assert done["position"] == 603
    assert done["bytes"] == (data / FILE).stat().st_size < size
    code, out = call("verify", "--data", data, "--json")
    assert code == 0, out
    assert json.loads(out) == {"equal": True, "position": 603, "state": before}

    async def more(service: Service) -> None:
        await traffic(service, 5)

    with_retention(data, more, start_ns=10**18 + DAY_NS, retention_ns=0)
    code, out = call("export", "--data", data, "--to", tmp_path / "j.jsonl")
    assert code == 0, out
    assert "starts at position 604" in out
    assert json.loads((tmp_path / "j.jsonl").read_text().splitlines()[0])["position"] == "604"
    code, out = call("import", "--data", tmp_path / "new", "--from", tmp_path / "j.jsonl")
    assert (code, "expected 1, got 604" in out) == (1, True)
    code, out = call("compact", "--data", tmp_path / "none", "--older-than", 1)
    assert (code, "no journal" in out) == (1, True)
