"""The SQLite engine's own: locks, formats, disks that are full, readers in other processes."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pointsman.server.journal.interface import (
    READ_AT_ONCE,
    Appended,
    Base,
    Entry,
    Group,
    JournalError,
    JournalFormatError,
    JournalLockedError,
    Row,
    Span,
)
from pointsman.server.journal.locks import FORMER_LOCK, TURN_FILE
from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.journal.sqlite_store import FILE, SqliteStore, read_rows
from tests.processes import WAIT, environment, first_line, pause, run_python
from tests.server.test_journal import at, followed, group_of, scenario

OPEN = """
import sys
from pathlib import Path
from pointsman.server.journal.sqlite_store import SqliteStore
SqliteStore(Path(sys.argv[1]))
"""


def test_a_second_process_is_locked_out(tmp_path: Path) -> None:
    journal = SqliteStore(tmp_path)
    done = run_python("-c", OPEN, str(tmp_path))
    assert "JournalLockedError" in done.stderr
    assert str(tmp_path) in done.stderr
    with pytest.raises(JournalLockedError, match="another process"):
        SqliteStore(tmp_path)
    journal.close()
    assert run_python("-c", OPEN, str(tmp_path)).returncode == 0


def test_files_that_are_not_journals_are_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"this is not a database" * 1000)
    for _ in range(2):  # the lock of a journal that could not be opened is let go
        with pytest.raises(JournalFormatError, match=FILE):
            SqliteStore(tmp_path)
    with pytest.raises(JournalFormatError):
        list(read_rows(tmp_path))
    with pytest.raises(JournalError, match="no journal"):
        list(read_rows(tmp_path / "nowhere"))


def test_another_format_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    journal = SqliteStore(tmp_path)
    journal.append([group_of(b"a")], 1)
    journal.writer.execute("PRAGMA user_version = 99")
    journal.close()
    with pytest.raises(JournalFormatError, match="format 99"):
        SqliteStore(tmp_path)
    with pytest.raises(JournalFormatError, match="format 99"):
        list(read_rows(tmp_path))


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(JournalError, match="cannot use the data directory"):
        SqliteStore(tmp_path / "file")
    with pytest.raises(JournalError, match="cannot use the data directory"):
        SqliteStore(tmp_path / "file" / "below")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(JournalError, match="cannot use the data directory"):
            SqliteStore(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_a_full_file_fails_the_append_and_nothing_else(tmp_path: Path) -> None:
    journal = SqliteStore(tmp_path)
    journal.append([group_of(b"before", b"k")], 1)
    pages = journal.writer.execute("PRAGMA page_count").fetchone()[0]
    journal.writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalError, match="full"):
        journal.append([group_of(b"x" * 100_000), group_of(b"y", b"k")], 2)
    assert journal.end() == 1
    assert journal.span(b"k") == Span(1, 1)
    assert [row.data for row in journal.read(1)] == [b"before"]
    journal.writer.execute("PRAGMA max_page_count = 1000000")
    assert journal.append([group_of(b"after", b"k", 1)], 3) == [at(2, time_ns=3)]
    journal.close()


NO_MORE_SPACE = """
import resource, signal, sys
from pathlib import Path
from pointsman.server.journal.interface import Entry, Group, JournalError
from pointsman.server.journal.sqlite_store import SqliteStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails as on a full disk
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
journal = SqliteStore(Path(sys.argv[1]))
written = 0
try:
    while True:
        journal.append([Group((Entry(bytes(20_000), b"k%d" % written), Entry(b"second")))], 1)
        written += 1
except JournalError as error:
    print("refused:", error)
assert journal.end() == 2 * written
assert journal.span(b"k%d" % written) is None
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
journal.append([Group((Entry(b"space again", b"k%d" % written),))], 1)
print(written)
"""


def test_a_write_that_the_system_refuses_loses_nothing(tmp_path: Path) -> None:
    done = run_python("-c", NO_MORE_SPACE, str(tmp_path))
    assert done.returncode == 0, done.stderr
    refused, written = done.stdout.splitlines()
    assert refused.startswith("refused: cannot append to")
    assert int(written) > 5
    journal = SqliteStore(tmp_path)  # the process above ended without closing it
    rows = list(journal.read(1))
    assert [row.position for row in rows] == list(range(1, 2 * int(written) + 2))
    assert rows[-1].data == b"space again"
    journal.close()


def test_rows_are_readable_while_it_is_served(tmp_path: Path) -> None:
    journal = SqliteStore(tmp_path)
    journal.append([group_of(b"a"), group_of(b"b")], 1)
    rows = read_rows(tmp_path)
    assert next(rows).data == b"a"
    journal.append([Group((Entry(b"c"),) * 3000)], 2)  # while the other reads: neither waits for the other
    assert [row.data for row in rows] == [b"b"]
    assert sum(1 for _ in read_rows(tmp_path)) == 3002
    journal.close()
    assert sum(1 for _ in read_rows(tmp_path)) == 3002


def test_names_that_uris_give_a_meaning(tmp_path: Path) -> None:
    directory = tmp_path / "a b?c#d%20é"
    journal = SqliteStore(directory)
    journal.append([group_of(b"a")], 1)
    assert [row.data for row in read_rows(directory)] == [b"a"]
    journal.close()


def test_the_lock_is_on_the_directory_and_cannot_be_deleted(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    for path in tmp_path.iterdir():
        if not path.name.startswith(FILE):
            path.unlink()
    with pytest.raises(JournalLockedError, match="another process"):
        SqliteStore(tmp_path)
    store.close()
    SqliteStore(tmp_path).close()


def test_a_server_of_a_version_that_locked_a_file_is_seen(tmp_path: Path) -> None:
    with (tmp_path / FORMER_LOCK).open("w") as former:
        fcntl.flock(former, fcntl.LOCK_EX)
        with pytest.raises(JournalLockedError, match="another process"):
            SqliteStore(tmp_path)
    SqliteStore(tmp_path).close()


TAKES_THE_TURN = """
import os, signal, sys
from pathlib import Path
from pointsman.server.journal.locks import Turn
with Turn(Path(sys.argv[1])).taken(60.0):
    print("taken", flush=True)
    signal.pause()
"""


def test_a_turn_that_does_not_come_fails_the_append_and_the_next_one_goes_on(tmp_path: Path) -> None:
    """The process that has the turn is stopped: nobody waits for it for ever, and when it is killed its turn is free."""
    holder, store = SqliteStore(tmp_path), SqliteStore(tmp_path, shared=True, patience=0.2)
    with subprocess.Popen(
        [sys.executable, "-c", TAKES_THE_TURN, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            assert process.stdout is not None
            assert first_line(process.stdout) == "taken\n"
            pause(process.pid)
            for _ in range(2):
                with pytest.raises(JournalError, match=r"turn to write for more than 0\.2 s; nothing was written"):
                    store.append([group_of(b"late", b"k", 0)], 1)
        finally:
            process.kill()
        process.wait(WAIT)
    assert store.append([group_of(b"a", b"k", 0)], 1) == [at(1)]
    assert store.read(1) == [Row(1, 1, b"a")]
    store.close()
    holder.close()


def test_the_file_of_the_turn_may_be_deleted_under_those_who_write(tmp_path: Path) -> None:
    holder = SqliteStore(tmp_path)
    stores = [SqliteStore(tmp_path, shared=True) for _ in range(3)]

    def write(store: SqliteStore) -> int:
        done = 0
        while done < 40:
            span = store.span(b"n")
            number = int(store.read(span.last)[0].data) if span else 0
            (result,) = store.append([group_of(b"%d" % (number + 1), b"n", span.last if span else 0)], 1)
            done += isinstance(result, Appended)
            if done % 10 == 0:
                (tmp_path / TURN_FILE).unlink(missing_ok=True)
        return done

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(write, stores)) == [40, 40, 40]
    assert [int(row.data) for row in read_rows(tmp_path)] == list(range(1, 121))  # no increment was lost
    for store in (*stores, holder):
        store.close()


@scenario
async def test_a_tail_ends_with_an_error_when_rows_were_compacted_before_it_came_to_them(tmp_path: Path) -> None:
    holder, late = SqliteStore(tmp_path), SqliteJournal(tmp_path, shared=True)
    other = SqliteStore(tmp_path, shared=True)
    other.append([group_of(b"%d" % i) for i in range(5)], 1)
    other.compact(Base(4, 1), b"state")
    with pytest.raises(JournalFormatError, match="rows after position 0 were compacted before they were read"):
        async for _ in late.tail(0):
            pass
    await late.close()
    other.close()
    holder.close()


@scenario
async def test_other_writers_rows_are_delivered_once_readable_again(tmp_path: Path) -> None:
    holder, journal, other = SqliteStore(tmp_path), SqliteJournal(tmp_path, shared=True), SqliteStore(tmp_path, True)
    read, failed = journal.store.read, asyncio.Event()
    loop = asyncio.get_running_loop()

    def fails(first: int, last: int | None = None) -> list[Row]:
        loop.call_soon_threadsafe(failed.set)
        raise JournalError("no luck")

    journal.store.read = fails  # type: ignore[method-assign]
    following = asyncio.create_task(followed(journal, 0, 3))
    await asyncio.sleep(0)
    other.append([group_of(b"others")], 1)
    await failed.wait()
    assert await journal.append([group_of(b"own")], 2) == [at(2, time_ns=2)]
    journal.store.read = read  # type: ignore[method-assign]
    await journal.append([group_of(b"more")], 3)
    assert [row.data for row in await following] == [b"others", b"own", b"more"]
    await journal.close()
    other.close()
    holder.close()


@scenario
async def test_rows_that_cannot_be_read_for_too_long_end_the_tail(tmp_path: Path) -> None:
    holder, other = SqliteStore(tmp_path), SqliteStore(tmp_path, True)
    journal = SqliteJournal(tmp_path, shared=True, patience=0.05)

    def fails(first: int, last: int | None = None) -> list[Row]:
        raise JournalError("no luck")

    journal.store.read = fails  # type: ignore[method-assign]
    other.append([group_of(b"others")], 1)
    with pytest.raises(JournalError, match="cannot read what others wrote: no luck"):
        await followed(journal, 0, 1)
    await journal.close()
    other.close()
    holder.close()


def test_rows_that_are_compacted_while_they_are_read_are_missed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    entries = [Entry(b"%d" % i, permanent=i == READ_AT_ONCE) for i in range(READ_AT_ONCE + 5)]
    store.append([Group((entry,)) for entry in entries], 1)
    rows = read_rows(tmp_path)
    assert next(rows).position == 1
    store.compact(Base(READ_AT_ONCE + 3, 1), b"state")
    with pytest.raises(JournalError, match="compacted before they were read"):
        list(rows)
    store.close()
