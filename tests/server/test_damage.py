"""Damage to the data directory: the server starts with a correct state, or with a message that says what to do."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from click.testing import CliRunner

from pointsman.bandit.state import State, fingerprint
from pointsman.server.cli.journal import verify
from pointsman.server.errors import UnavailableError
from pointsman.server.journal.interface import JournalError, JournalFormatError, JournalLockedError, Row
from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.journal.sqlite_store import FILE, SqliteStore, check, read_rows
from pointsman.server.state import snapshot
from pointsman.server.state.recovery import fold_rows
from pointsman.server.state.replica import open_replica
from pointsman.server.state.snapshot_store import SnapshotStore
from pointsman.v1 import router_service_pb2
from tests.processes import refused_start
from tests.server.conftest import Service, recovered
from tests.server.test_journal import group_of


@pytest.fixture
def data(tmp_path: Path, run: Callable[..., None]) -> Path:
    """A data directory with two snapshots and a journal of a few hundred events, closed in order."""

    async def scenario(service: Service) -> None:
        for i in range(150):
            decision = await service.decide()
            await service.report(decision.name, quality=i % 10 / 10)
            if i == 75:
                await service.replica.snapshotting.take()

    run(scenario)
    assert len(SnapshotStore(tmp_path / "snapshots").newest_first()) == 2
    return tmp_path


def spoil(path: Path, at: int) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[at] ^= 1
    path.write_bytes(bytes(damaged))


def test_broken_snapshots_are_skipped(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = fingerprint(recovered(data))
    newest, before = SnapshotStore(data / "snapshots").newest_first()
    spoil(newest, newest.stat().st_size // 2)
    assert fingerprint(recovered(data)) == whole
    assert f"skipping the snapshot {newest.name}: its checksum is wrong" in caplog.text
    before.write_bytes(b"")
    assert fingerprint(recovered(data)) == whole
    assert f"skipping the snapshot {before.name}: it is not a snapshot of this version" in caplog.text


def test_a_snapshot_of_another_journal_is_skipped(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = recovered(data)
    newest = SnapshotStore(data / "snapshots").newest_first()[0]
    other = snapshot.load(newest.read_bytes())
    other.time_ns += 1
    SnapshotStore(data / "snapshots").save(snapshot.capture(other), other.position)
    assert fingerprint(recovered(data)) == fingerprint(whole)
    assert "it is of another journal" in caplog.text
    other.position += 1000
    SnapshotStore(data / "snapshots").save(snapshot.capture(other), other.position)
    assert fingerprint(recovered(data)) == fingerprint(whole)
    assert f"the journal ends before it, at {whole.position}" in caplog.text


@pytest.mark.parametrize("how", ["empty", "deleted"])
def test_a_journal_that_was_lost_is_not_taken_for_a_new_one(data: Path, how: str) -> None:
    if how == "empty":
        (data / FILE).write_bytes(b"")
    else:
        (data / FILE).unlink()
    with pytest.raises(JournalFormatError, match=r"the journal was lost\. Restore it from a backup"):
        recovered(data)
    shutil.rmtree(data / "snapshots")
    assert recovered(data).position == 0


def test_garbage_instead_of_a_database(data: Path) -> None:
    (data / FILE).write_bytes(np.random.default_rng(0).bytes(100_000))
    refused = refused_start(data)
    assert refused.returncode == 1
    assert "is not a journal" in refused.stderr
    assert "restore the file from a backup" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_database_that_is_no_journal(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("CREATE TABLE guests (name TEXT)")
    connection.close()
    with pytest.raises(JournalFormatError, match="is a database, but not a journal"):
        SqliteStore(tmp_path)


def test_a_journal_of_a_newer_version(data: Path) -> None:
    with sqlite3.connect(data / FILE) as connection:
        connection.execute("PRAGMA user_version = 4")
    connection.close()
    before = (data / FILE).read_bytes()
    for opening in (lambda: SqliteStore(data), lambda: list(read_rows(data))):
        with pytest.raises(
            JournalFormatError, match="format 4, written by a newer version of Pointsman; this one reads"
        ):
            opening()
    assert (data / FILE).read_bytes() == before


@pytest.mark.parametrize("unknown", [b"\xfa\x7f\x02hi", b"", b"\x3a\x05"])
def test_an_event_that_cannot_be_read_is_named(data: Path, unknown: bytes) -> None:
    """A kind that a newer version writes, nothing, a message that is cut off."""
    store = SqliteStore(data)
    end = store.end()
    store.append([group_of(unknown)], 1)
    store.close()
    with pytest.raises(JournalFormatError, match=f"position {end + 1} cannot be read"):
        recovered(data)


def test_a_row_that_is_missing_is_named(data: Path) -> None:
    with sqlite3.connect(data / FILE) as connection:
        connection.execute("DELETE FROM journal WHERE position = 100")
    connection.close()
    with pytest.raises(JournalFormatError, match="is damaged: the row at position 100 is missing"):
        fold_rows(read_rows(data), State())


def test_a_damaged_page_in_the_middle(data: Path) -> None:
    with sqlite3.connect(data / FILE) as connection:
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        leaves = (
            connection.execute(
                "SELECT pageno FROM dbstat WHERE name = 'journal' AND pagetype = 'leaf' ORDER BY pageno"
            ).fetchall()
            if _has_dbstat(connection)
            else [(connection.execute("PRAGMA page_count").fetchone()[0] // 2,)]
        )
    connection.close()
    page = leaves[len(leaves) // 2][0]
    with (data / FILE).open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    with pytest.raises(JournalFormatError, match=r"is damaged.*restore the file from a backup"):
        check(data)
    shutil.rmtree(data / "snapshots")
    with pytest.raises(JournalFormatError, match=r"is damaged.*restore the file from a backup"):
        recovered(data)
    done = CliRunner().invoke(verify, ["--data", str(data)])
    assert done.exit_code == 1
    assert "is damaged" in done.output


def _has_dbstat(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1 FROM dbstat LIMIT 1")
    except sqlite3.OperationalError:
        return False
    return True


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.97])
def test_a_log_that_was_cut_off_leaves_a_prefix(tmp_path: Path, share: float) -> None:
    """Cutting the write-ahead log off loses what was in it; what is left is what was there at some time, and goes on."""
    journal = SqliteStore(tmp_path / "live")
    journal.append([group_of(b"0", b"k0", 0)], 0)
    for i in range(1, 60):
        journal.append([group_of(b"%d" % i * 50, b"k%d" % i, 0)], i)
    (tmp_path / "crashed").mkdir()
    for end in ("", "-wal"):
        shutil.copy(tmp_path / "live" / (FILE + end), tmp_path / "crashed" / (FILE + end))
    journal.close()
    log = tmp_path / "crashed" / (FILE + "-wal")
    log.write_bytes(log.read_bytes()[: int(log.stat().st_size * share)])
    journal = SqliteStore(tmp_path / "crashed")
    rows = list(journal.read(1))
    assert len(rows) < 60
    assert rows == [Row(i + 1, i, b"%d" % i * (50 if i else 1)) for i in range(len(rows))]
    assert journal.end() == len(rows)
    assert journal.span(b"k%d" % len(rows)) is None
    journal.append([group_of(b"on", b"k%d" % len(rows), 0)], 99)
    assert len(list(journal.read(1))) == len(rows) + 1
    journal.close()


def test_a_disk_that_fills_up_while_serving(tmp_path: Path, run: Callable[..., None]) -> None:
    states: list[str] = []

    async def scenario(service: Service) -> None:
        journal = service.replica.journal
        assert isinstance(journal, SqliteJournal)
        answered = [await service.decide() for _ in range(20)]
        pages = journal.store.writer.execute("PRAGMA page_count").fetchone()[0]
        journal.store.writer.execute(f"PRAGMA max_page_count = {pages}")

        async def fill() -> None:
            while len(answered) < 200:
                answered.append(await service.decide())

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await fill()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "full" in (caught.value.details() or "")
        view = await service.router.GetDecision(router_service_pb2.GetDecisionRequest(name=answered[0].name))
        assert view.decision.name == answered[0].name
        journal.store.writer.execute("PRAGMA max_page_count = 1000000")
        for decision in answered:
            await service.report(decision.name, quality=0.5)
        states.append(fingerprint(service.replica.state))

    run(scenario)
    assert fingerprint(recovered(tmp_path)) == states[0]
    assert fingerprint(fold_rows(read_rows(tmp_path), State())) == states[0]


def test_a_journal_that_cannot_be_written_any_more(data: Path) -> None:
    """What a disk that was made read-only does to a server: its writes fail, its reads go on."""

    async def go() -> None:
        journal = SqliteJournal(data)
        clock = max(row.time_ns for row in read_rows(data))
        replica = await open_replica(journal, np.random.default_rng(0), lambda: clock, None)
        journal.store.writer.execute("PRAGMA query_only = ON")
        end = await journal.end()
        with pytest.raises(UnavailableError, match="readonly"):
            await replica.catalogue.set_availability("a", False, "")
        assert await journal.end() == replica.state.position == end
        assert replica.catalogue.model("a").available
        journal.store.writer.execute("PRAGMA query_only = OFF")
        await replica.catalogue.set_availability("a", False, "")
        assert not replica.catalogue.model("a").available
        await replica.close()

    asyncio.run(go())


def test_two_servers_on_one_directory(data: Path) -> None:
    journal = SqliteStore(data)
    with pytest.raises(JournalLockedError, match="another process serves"):
        SqliteStore(data)
    journal.close()
    assert recovered(data).position > 0


def test_a_place_for_the_log_that_cannot_be_used(data: Path) -> None:
    (data / (FILE + "-wal")).mkdir()
    with pytest.raises(JournalError, match="cannot open"):
        SqliteStore(data)


@pytest.mark.parametrize("jump_s", [-86_400, 50, 101])
def test_the_clock_jumps_between_restarts(tmp_path: Path, run: Callable[..., None], jump_s: int) -> None:
    """A window of 100 seconds is counted on the clock: one that went back makes it longer, one that went on ends it."""
    names: list[str] = []

    async def before(service: Service) -> None:
        names.append((await service.decide()).name)

    async def after(service: Service) -> None:
        service.clock[0] += jump_s * 10**9
        if jump_s > 100:
            with pytest.raises(grpc.aio.AioRpcError, match="attribution window"):
                await service.report(names[0], quality=1.0)
        else:
            await service.report(names[0], quality=1.0)
        await service.report((await service.decide()).name, quality=1.0)

    run(before)
    run(after)
    times = [row.time_ns for row in read_rows(tmp_path)]
    assert times == sorted(times)
    assert fingerprint(recovered(tmp_path)) == fingerprint(fold_rows(read_rows(tmp_path), State()))
