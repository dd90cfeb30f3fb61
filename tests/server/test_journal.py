"""What every journal engine must do. A new engine joins by being added to ``engine``."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.journal import (
    Appended,
    Conflict,
    Duplicate,
    Entry,
    Group,
    Journal,
    JournalError,
    JournalFormatError,
    JournalLockedError,
    Span,
)
from server.sqlite_journal import FILE, SqliteJournal, read_rows

Open = Callable[[], Journal]


@pytest.fixture(params=["sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens (again) the same journal; what was opened before is closed."""
    opened: list[Journal] = []

    def open_it() -> Journal:
        if opened:
            opened[-1].close()
        opened.append(SqliteJournal(tmp_path / "journal"))
        return opened[-1]

    yield open_it
    if opened:
        opened[-1].close()


def one(data: bytes, key: bytes = b"", expect: int | None = None, once: bytes = b"") -> Group:
    return Group((Entry(data, key, expect),), once)


def test_positions_run_from_1_without_gaps(engine: Open) -> None:
    journal = engine()
    assert journal.last_position() == 0
    assert journal.append([one(b"a"), Group((Entry(b"b"), Entry(b"c")))], 5) == [Appended(1, 1, 5), Appended(2, 2, 5)]
    assert journal.append([one(b"d")], 6) == [Appended(4, 1, 6)]
    assert [(row.position, row.time_ns, row.data) for row in journal.read(1)] == [
        (1, 5, b"a"),
        (2, 5, b"b"),
        (3, 5, b"c"),
        (4, 6, b"d"),
    ]
    assert journal.last_position() == 4


def test_reading_a_range(engine: Open) -> None:
    journal = engine()
    journal.append([one(bytes([i])) for i in range(100)] * 25, 1)
    assert [row.position for row in journal.read(2499)] == [2499, 2500]
    assert [row.position for row in journal.read(1000, 1002)] == [1000, 1001, 1002]
    assert list(journal.read(2501)) == []
    assert sum(1 for _ in journal.read(1)) == 2500


def test_time_never_goes_back(engine: Open) -> None:
    journal = engine()
    journal.append([one(b"a")], 100)
    assert journal.append([one(b"b")], 50) == [Appended(2, 1, 100)]
    journal = engine()
    assert journal.append([one(b"c")], 7) == [Appended(3, 1, 100)]


def test_everything_is_there_after_reopening(engine: Open) -> None:
    journal = engine()
    journal.append([one(b"a", b"k", 0, once=b"o")], 1)
    journal = engine()
    assert journal.last_position() == 1
    assert journal.span(b"k") == Span(1, 1)
    assert journal.append([one(b"again", once=b"o")], 2) == [Duplicate(1, 1)]
    assert journal.append([one(b"b", b"k", 1)], 2) == [Appended(2, 1, 2)]


def test_a_group_is_written_once(engine: Open) -> None:
    journal = engine()
    twice = Group((Entry(b"a"), Entry(b"b")), once=b"o")
    assert journal.append([one(b"z"), twice, twice], 1) == [Appended(1, 1, 1), Appended(2, 2, 1), Duplicate(2, 2)]
    assert journal.append([twice], 2) == [Duplicate(2, 2)]
    assert journal.last_position() == 3


def test_an_expectation_that_fails_writes_nothing(engine: Open) -> None:
    journal = engine()
    first = [one(b"a", b"k", 0), one(b"b", b"k", 0), one(b"c", b"k", 1)]
    assert journal.append(first, 1) == [Appended(1, 1, 1), Conflict(b"k", 1), Appended(2, 1, 1)]
    half = Group((Entry(b"x"), Entry(b"y", b"k", 1)), once=b"o")
    assert journal.append([half], 2) == [Conflict(b"k", 2)]
    assert journal.append([Group((Entry(b"x"), Entry(b"y", b"k", 2)), once=b"o")], 2) == [Appended(3, 2, 2)]
    assert journal.append([one(b"n", b"new", 3)], 2) == [Conflict(b"new", 0)]
    assert journal.span(b"k") == Span(1, 4)
    assert journal.span(b"new") is None
    assert [row.data for row in journal.read(1)] == [b"a", b"c", b"x", b"y"]


def test_nothing_and_large_values(engine: Open) -> None:
    journal = engine()
    assert journal.append([], 1) == []
    big = bytes(range(256)) * 8192
    journal.append([one(b""), one(big, key=b"\x00" * 200)], 1)
    assert [row.data for row in journal.read(1)] == [b"", big]
    assert journal.span(b"\x00" * 200) == Span(2, 2)


def test_many_threads_append_and_read(engine: Open) -> None:
    journal = engine()
    seen: list[int] = []

    def writer(number: int) -> None:
        for i in range(40):
            (result,) = journal.append([one(f"{number}.{i}".encode(), f"k{number}".encode())], 1)
            assert isinstance(result, Appended)
            seen.append(result.first)
            rows = list(journal.read(result.first, result.first))
            assert rows[0].data == f"{number}.{i}".encode()

    threads = [threading.Thread(target=writer, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(1, 241))


# --- SQLite's own ---------------------------------------------------------------------------------------------------


def test_sqlite_a_second_process_is_locked_out(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path)
    code = f"from pathlib import Path; from server.sqlite_journal import SqliteJournal; SqliteJournal(Path({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "JournalLockedError" in done.stderr
    with pytest.raises(JournalLockedError, match="another process"):
        SqliteJournal(tmp_path)
    journal.close()
    SqliteJournal(tmp_path).close()


def test_sqlite_what_is_not_a_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"this is not a database" * 1000)
    with pytest.raises(JournalFormatError, match=FILE):
        SqliteJournal(tmp_path)
    with pytest.raises(JournalFormatError):
        list(read_rows(tmp_path))
    with pytest.raises(JournalError, match="no journal"):
        list(read_rows(tmp_path / "nowhere"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(JournalError, match="cannot use"):
        SqliteJournal(tmp_path / "file")


def test_sqlite_another_format_is_refused(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path)
    journal._writer.execute("PRAGMA user_version = 99")
    journal.close()
    with pytest.raises(JournalFormatError, match="format 99"):
        SqliteJournal(tmp_path)


def test_sqlite_a_full_disk_fails_the_append_and_nothing_else(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path)
    journal.append([one(b"before", b"k")], 1)
    pages = journal._writer.execute("PRAGMA page_count").fetchone()[0]
    journal._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalError, match="full"):
        journal.append([one(b"x" * 100_000), one(b"y", b"k")], 2)
    assert journal.last_position() == 1
    assert journal.span(b"k") == Span(1, 1)
    journal._writer.execute("PRAGMA max_page_count = 1000000")
    assert journal.append([one(b"after", b"k", 1)], 3) == [Appended(2, 1, 3)]
    journal.close()


def test_sqlite_rows_are_readable_while_it_is_served(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path)
    journal.append([one(b"a"), one(b"b")], 1)
    assert [row.data for row in read_rows(tmp_path)] == [b"a", b"b"]
    journal.close()
