"""The embedded journal engine: one SQLite file in write-ahead-log mode. No set-up, one machine.

``append`` is one transaction with ``synchronous=FULL``: when it returns, the log has been flushed to the disk. Callers
get group commit by handing many groups to one call.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from server.journal import (
    Appended,
    Conflict,
    Duplicate,
    Group,
    JournalError,
    JournalFormatError,
    JournalLockedError,
    Result,
    Row,
    Span,
)

FORMAT = 1
"""Version of the tables, kept in SQLite's ``user_version``."""
FILE = "journal.sqlite3"
_READ_AT_ONCE = 1000

_TABLES = """
CREATE TABLE journal (position INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE keys (key BLOB PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE once (once BLOB PRIMARY KEY, first INTEGER NOT NULL, count INTEGER NOT NULL) WITHOUT ROWID;
"""


class SqliteJournal:
    """A journal in ``directory``, which is made if it does not exist. One process at a time may have it open.

    Raises ``JournalLockedError`` if another process has it, ``JournalFormatError`` if the file is not a journal that
    this version reads, ``JournalError`` if the directory cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._lock_file = _lock(directory)
        # One connection writes and one reads, each behind its lock: readers never wait for a flush.
        self._write_lock, self._read_lock = threading.Lock(), threading.Lock()
        try:
            self._writer = _connect(self._path)
            _prepare(self._writer, self._path)
            self._reader = _connect(self._path)
            self._last, self._time_ns = _end(self._writer)
        except sqlite3.Error as error:
            os.close(self._lock_file)
            raise JournalFormatError(f"cannot open {self._path}: {error}") from error
        except JournalError:
            os.close(self._lock_file)
            raise

    def append(self, groups: Sequence[Group], now_ns: int) -> list[Result]:
        """See ``Journal.append``."""
        with self._write_lock:
            cursor = self._writer.cursor()
            last, time_ns = self._last, max(now_ns, self._time_ns)
            try:
                cursor.execute("BEGIN IMMEDIATE")
                results = []
                for group in groups:
                    result = self._append_group(cursor, group, last + 1, time_ns)
                    if isinstance(result, Appended):
                        last += result.count
                    results.append(result)
                cursor.execute("COMMIT")
            except Exception as error:  # an open transaction would refuse every later append, whatever the fault was
                self._roll_back()
                raise JournalError(f"cannot append to {self._path}: {error}") from error
            if last > self._last:
                self._last, self._time_ns = last, time_ns
            return results

    def read(self, first: int, last: int | None = None) -> Iterator[Row]:
        """See ``Journal.read``."""
        return _read(
            self._reader,
            self._read_lock,
            self._path,
            first,
            self._last if last is None else last,
        )

    def span(self, key: bytes) -> Span | None:
        """See ``Journal.span``."""
        with self._read_lock:
            try:
                found = self._reader.execute("SELECT first, last FROM keys WHERE key = ?", (key,)).fetchone()
            except sqlite3.Error as error:
                raise JournalError(f"cannot read {self._path}: {error}") from error
        return Span(*found) if found else None

    def last_position(self) -> int:
        """See ``Journal.last_position``."""
        return self._last

    def close(self) -> None:
        """See ``Journal.close``."""
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()
            os.close(self._lock_file)

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    @staticmethod
    def _append_group(cursor: sqlite3.Cursor, group: Group, first: int, time_ns: int) -> Result:
        if group.once:
            found = cursor.execute("SELECT first, count FROM once WHERE once = ?", (group.once,)).fetchone()
            if found:
                return Duplicate(*found)
        for entry in group.entries:
            if entry.expect is not None:
                found = cursor.execute("SELECT last FROM keys WHERE key = ?", (entry.key,)).fetchone()
                last = found[0] if found else 0
                if last != entry.expect:
                    return Conflict(entry.key, last)
        count = len(group.entries)
        cursor.executemany(
            "INSERT INTO journal VALUES (?, ?, ?)",
            [(first + i, time_ns, entry.data) for i, entry in enumerate(group.entries)],
        )
        cursor.executemany(
            "INSERT INTO keys VALUES (?1, ?2, ?2) ON CONFLICT (key) DO UPDATE SET last = ?2",
            [(entry.key, first + i) for i, entry in enumerate(group.entries) if entry.key],
        )
        if group.once and group.entries:
            cursor.execute("INSERT INTO once VALUES (?, ?, ?)", (group.once, first, count))
        return Appended(first, count, time_ns)


def read_rows(directory: Path) -> Iterator[Row]:
    """All rows of the journal in ``directory``, which another process may be serving. Raises ``JournalError``."""
    path = directory / FILE
    if not path.is_file():
        raise JournalError(f"there is no journal in {directory}")
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)
        with closing(connection):
            _check_format(connection, path)
            yield from _read(connection, threading.Lock(), path, 1, _end(connection)[0])
    except sqlite3.Error as error:
        raise JournalFormatError(f"cannot read {path}: {error}") from error


def _lock(directory: Path) -> int:
    """Make ``directory`` if need be and take its lock; returns the descriptor that holds it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise JournalError(f"cannot use the data directory {directory}: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise JournalLockedError(f"another process serves {directory}; stop it or choose another directory") from error
    return descriptor


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -65536")  # 64 MiB
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {FORMAT}; COMMIT;")
    _check_format(connection, path)


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != FORMAT:
        raise JournalFormatError(f"{path} has format {version}; this version reads format {FORMAT}")


def _end(connection: sqlite3.Connection) -> tuple[int, int]:
    """Position and time of the last row."""
    row = connection.execute("SELECT position, time_ns FROM journal ORDER BY position DESC LIMIT 1").fetchone()
    return (row[0], row[1]) if row else (0, 0)


def _read(
    connection: sqlite3.Connection,
    lock: threading.Lock,
    path: Path,
    first: int,
    last: int,
) -> Iterator[Row]:
    while first <= last:
        with lock:
            try:
                found = connection.execute(
                    "SELECT position, time_ns, data FROM journal WHERE position BETWEEN ? AND ? ORDER BY position",
                    (first, min(last, first + _READ_AT_ONCE - 1)),
                ).fetchall()
            except sqlite3.Error as error:
                raise JournalError(f"cannot read {path}: {error}") from error
        if not found:
            return
        for row in found:
            yield Row(*row)
        first = found[-1][0] + 1
