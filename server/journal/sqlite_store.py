"""Storage of the embedded journal engine: one SQLite file in write-ahead-log mode, read and written by blocking calls.

An append is one transaction with ``synchronous=FULL``: when it returns, the log has been flushed to the disk.

>>> import tempfile
>>> from pointsman.server.journal.interface import Condition, Entry
>>> store = SqliteStore(Path(tempfile.mkdtemp()))
>>> store.append([Group((Entry(b"first", b"key"),), conditions=(Condition(b"key", 0),))] * 2, now_ns=5)
[Appended(positions=(1,), time_ns=5), Conflict(key=b'key', span=Span(first=1, last=1))]
>>> store.close()
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pointsman.server.journal.interface import (
    READ_AT_ONCE,
    Base,
    Group,
    JournalError,
    JournalFormatError,
    Result,
    Row,
    Span,
)
from pointsman.server.journal.judge import Judge
from pointsman.server.journal.locks import Turn, lock_directory
from pointsman.server.journal.sqlite_insert import insert, stored
from pointsman.server.journal.sqlite_tables import BASE, BASES, COUNTERS, FORMAT, IS_KEPT, KEPT, ROWS

FILE = "journal.sqlite3"
PATIENCE = 10.0
"""Seconds that an append waits for another process's turn or transaction before it fails."""
_PART = 4 << 20
"""Bytes of a base's state in one row: appends wait for at most one of these."""
_SWEPT_AT_ONCE = 500
"""Rows freed in one transaction: appends wait for at most one of these."""
_SWEEP_PAUSE = 0.005
"""Seconds between two of them, so that appends get their turn."""


class SqliteStore:
    """The file of a journal in ``directory``, which is made if it does not exist. One process at a time may have it open.

    ``shared``: several may, each with its own store, while one that is not shared, in the process that started them, holds the
    directory's lock and appends nothing itself. Their appends take turns; one that has to wait for longer than ``patience``
    seconds fails.

    Raises ``JournalLockedError`` if another process has it, ``JournalFormatError`` if the file is not a journal that
    this version reads, ``JournalError`` if the directory cannot be used.
    """

    def __init__(self, directory: Path, shared: bool = False, patience: float = PATIENCE) -> None:
        self._path = directory / FILE
        self._turn = Turn(directory) if shared else None
        self._patience = patience
        self._lock = -1 if shared else lock_directory(directory)
        # One connection writes and one reads, each behind its lock: readers never wait for a flush.
        self._write_lock, self._read_lock = threading.Lock(), threading.Lock()
        try:
            self.writer = _connect(self._path, patience)
            self.format = _prepare(self.writer, self._path)
            self.reader = _connect(self._path, patience)
            self._last, self._time_ns = _end(self.writer, self.format)
        except sqlite3.Error as error:
            self._unlock()
            raise _fault(self._path, error, "open") from error
        except JournalError:
            self._unlock()
            raise

    @property
    def shared(self) -> bool:
        """Whether other processes write to the file too."""
        return self._turn is not None

    @property
    def is_old(self) -> bool:
        """See ``Journal.is_old``."""
        return self.format != FORMAT

    def append(self, groups: Sequence[Group], now_ns: int) -> list[Result]:
        """See ``Journal.append``. The rows of all groups are next to each other."""
        if self.is_old:
            raise JournalError(f"{self._path} has format {self.format}: it must be migrated before it is written to")
        with self._write_lock, self._my_turn():
            cursor = self.writer.cursor()
            try:
                cursor.execute("BEGIN IMMEDIATE")
                last, end_ns = _end(self.writer, FORMAT) if self.shared else (self._last, self._time_ns)
                time_ns = max(now_ns, end_ns)
                judge = Judge(*stored(cursor, groups), last, time_ns)
                results: list[Result] = [judge.judge(group) for group in groups]
                insert(cursor, groups, results, judge.changed_counters, last + 1, time_ns)
                cursor.execute("COMMIT")
            except Exception as error:  # an open transaction would refuse every later append, whatever the fault was
                self._roll_back()
                raise JournalError(f"cannot append to {self._path}: {error}") from error
            self._last, self._time_ns = judge.last, time_ns if judge.last > last else end_ns
            return results

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Cursor]:
        """A transaction that changes something besides appends."""
        with self._write_lock, self._my_turn():
            cursor = self.writer.cursor()
            try:
                cursor.execute("BEGIN IMMEDIATE")
                yield cursor
                cursor.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                raise _fault(self._path, error, "write") from error
            except BaseException:
                self._roll_back()
                raise

    def _my_turn(self) -> Any:
        return nullcontext() if self._turn is None else self._turn.taken(self._patience)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._read_lock:
            try:
                yield self.reader
            except sqlite3.Error as error:
                raise _fault(self._path, error) from error

    def read(self, first: int, last: int | None = None) -> list[Row]:
        """See ``Journal.read``; up to the end without ``last``. Raises ``JournalFormatError`` if a row is missing."""
        with self._reading() as connection:
            return _read(connection, self._path, self.format, first, last)

    def span(self, key: bytes) -> Span | None:
        """See ``Journal.span``."""
        with self._reading() as connection:
            query = f"SELECT first, last FROM keys WHERE key = ? AND {KEPT[self.format].format('first')}"
            positions = connection.execute(query, (key,)).fetchone()
        return Span(*positions) if positions else None

    def used(self, counter: bytes) -> int:
        """The value of a counter."""
        with self._reading() as connection:
            row = connection.execute("SELECT used FROM counters WHERE counter = ?", (counter,)).fetchone()
        return row[0] if row else 0

    def end(self) -> int:
        """See ``Journal.end``."""
        if not self.shared:
            return self._last
        with self._reading() as connection:
            return _end(connection, self.format)[0]

    def base(self) -> Base:
        """See ``Journal.base``."""
        with self._reading() as connection:
            return _base(connection, self.format)

    def base_state(self) -> bytes:
        """See ``Journal.base_state``."""
        if self.format == 1:
            return b""
        with self._reading() as connection:
            query = f"SELECT data FROM base_part WHERE position = {BASE} ORDER BY number"
            return b"".join(part for (part,) in connection.execute(query))

    def open_until(self, last: int) -> int:
        """See ``Journal.open_until``. Reads every row up to ``last``, on a connection that keeps nobody waiting."""
        query = f"SELECT coalesce(max(expire_ns), 0) FROM journal WHERE position > {BASE} AND position <= ?"
        try:
            with closing(_connect_to_read(self._path)) as connection:
                expire_ns: int = connection.execute(query, (last,)).fetchone()[0]
        except sqlite3.Error as error:
            raise _fault(self._path, error) from error
        return expire_ns

    def compact(self, base: Base, state: bytes) -> None:
        """See ``Journal.compact``."""
        before, end = self.base().position, self.end()
        if not before < base.position <= end:
            raise ValueError(f"expected a base after {before} and at most at {end}, got {base.position}")
        with self._writing() as cursor:  # of an attempt that was cut off
            cursor.execute("DELETE FROM base_part WHERE position = ?", (base.position,))
        for number, start in enumerate(range(0, len(state), _PART)):
            part = state[start : start + _PART]
            with self._writing() as cursor:
                cursor.execute("INSERT INTO base_part VALUES (?, ?, ?)", (base.position, number, part))
        with self._writing() as cursor:
            cursor.execute("DELETE FROM base")
            cursor.execute("INSERT INTO base VALUES (?, ?)", (base.position, base.time_ns))
            cursor.execute("DELETE FROM counters WHERE end_ns > 0 AND end_ns <= ?", (base.time_ns,))

    def sweep(self, stopped: Callable[[], bool]) -> None:
        """See ``Journal.sweep``. Freed pages are used again by later appends; the file does not shrink."""
        base = self.base().position
        if not base:
            return
        gone: dict[str, tuple[str, int | bytes, str]] = {
            "journal": ("position", 0, f"position <= {base} AND NOT permanent"),
            "keys": ("key", b"", f"first <= {base} AND NOT {KEPT[FORMAT].format('first')}"),
        }
        for table, (key, start, condition) in gone.items():
            after: int | bytes | None = start
            while after is not None and not stopped():
                after = self._sweep_some(table, key, after, condition, base)
                time.sleep(_SWEEP_PAUSE)
        deleted = 1
        while deleted and not stopped():
            with self._writing() as cursor:
                query = "DELETE FROM base_part WHERE rowid IN (SELECT rowid FROM base_part WHERE position < ? LIMIT 1)"
                deleted = cursor.execute(query, (base,)).rowcount
            time.sleep(_SWEEP_PAUSE)

    def _sweep_some(self, table: str, key: str, after: int | bytes, condition: str, base: int) -> int | bytes | None:
        """Look at the next rows of ``table`` after ``after`` and free what fits; returns the last one, None at the end."""
        compacted = "position <= :base AND " if table == "journal" else ""
        query = f"""SELECT max({key}) FROM
            (SELECT {key} FROM {table} WHERE {compacted}{key} > :after ORDER BY {key} LIMIT {_SWEPT_AT_ONCE})"""
        with self._reading() as connection:
            (end,) = connection.execute(query, {"after": after, "base": base}).fetchone()
        if end is not None:
            with self._writing() as cursor:
                cursor.execute(f"DELETE FROM {table} WHERE {key} > ? AND {key} <= ? AND {condition}", (after, end))
        return end  # type: ignore[no-any-return]

    def shrink(self) -> int:
        """Give free pages back to the file system; returns the size of the file. Takes as long as copying it."""
        with self._write_lock, self._my_turn():
            try:
                self.writer.execute("VACUUM")
                self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error as error:
                raise _fault(self._path, error, "write") from error
        return self._path.stat().st_size

    def migrate(self, lifetime: Callable[[bytes], tuple[bool, int]], counters: Mapping[bytes, tuple[int, int]]) -> None:
        """See ``Journal.migrate``."""
        if not self.is_old:
            return
        with self._writing() as cursor:
            if self.format == 1:
                _run_all(cursor, BASES)
            cursor.execute("ALTER TABLE journal ADD COLUMN permanent INTEGER NOT NULL DEFAULT 0")
            cursor.execute("ALTER TABLE journal ADD COLUMN expire_ns INTEGER NOT NULL DEFAULT 0")
            if self.format == 2:
                cursor.execute("UPDATE journal SET permanent = 1 WHERE position IN (SELECT position FROM kept)")
                cursor.execute("DROP TABLE kept")
            _fill_lifetimes(cursor, lifetime)
            cursor.execute(
                f"""INSERT INTO keys SELECT once, first, first + count - 1 FROM once WHERE first > {BASE}
                    ON CONFLICT (key) DO NOTHING"""
            )
            cursor.execute("DROP TABLE once")
            _run_all(cursor, COUNTERS)
            rows = [(counter, used, end_ns) for counter, (used, end_ns) in counters.items()]
            cursor.executemany("INSERT INTO counters VALUES (?, ?, ?)", rows)
            cursor.execute(f"PRAGMA user_version = {FORMAT}")
        self.format = FORMAT

    def set_counters(self, counters: Mapping[bytes, tuple[int, int]]) -> None:
        """Set values and ends of counters, for journals whose rows were not written by ``append``."""
        rows = [(counter, used, end_ns) for counter, (used, end_ns) in counters.items()]
        with self._writing() as cursor:
            cursor.executemany("INSERT OR REPLACE INTO counters VALUES (?, ?, ?)", rows)

    def fileno(self) -> int:
        """The descriptor of the directory's lock: the lock is held until it is closed in every process that was given it."""
        return self._lock

    def close(self) -> None:
        """Release everything. The store must not be used afterwards."""
        with self._write_lock, self._read_lock:
            self.reader.close()
            self.writer.close()
            self._unlock()

    def _unlock(self) -> None:
        if self._turn is not None:
            self._turn.close()
        else:
            os.close(self._lock)

    def _roll_back(self) -> None:
        if self.writer.in_transaction:
            self.writer.execute("ROLLBACK")


def read_rows(directory: Path) -> Iterator[Row]:
    """All rows of the journal in ``directory``, which another process may be serving. Raises ``JournalError``."""
    path = directory / FILE
    if not path.is_file():
        raise JournalError(f"there is no journal in {directory}")
    try:
        with closing(_connect_to_read(path)) as connection:
            format_ = _check_format(connection, path)
            first, last = _base(connection, format_).position + 1, _end(connection, format_)[0]
            while first <= last and (rows := _read(connection, path, format_, first, last)):
                if rows[-1].position - first + 1 != len(rows):  # since the base was read, by the process that serves it
                    raise JournalError(f"the rows from position {first} on were compacted before they were read")
                yield from rows
                first = rows[-1].position + 1
    except sqlite3.Error as error:
        raise _fault(path, error) from error


def rows_before_base(directory: Path) -> list[Row]:
    """What is left of the rows before the one that ``read_rows`` begins with: the permanent ones. Raises ``JournalError``."""
    path = directory / FILE
    try:
        with closing(_connect_to_read(path)) as connection:
            format_ = _check_format(connection, path)
            last = _base(connection, format_).position
            rows: list[Row] = []
            while chunk := _read(connection, path, format_, rows[-1].position + 1 if rows else 1, last):
                rows += chunk
            return rows
    except sqlite3.Error as error:
        raise _fault(path, error) from error


def check(directory: Path) -> None:
    """Look at every page of the journal in ``directory``. Raises ``JournalFormatError`` if one is damaged."""
    path = directory / FILE
    try:
        with closing(_connect_to_read(path)) as connection:
            _check_format(connection, path)
            lines = [text for (text,) in connection.execute("PRAGMA integrity_check(5)")]
    except sqlite3.Error as error:
        raise _fault(path, error) from error
    if lines != ["ok"]:
        raise JournalFormatError(f"{path} is damaged ({'; '.join(lines)}); {_RESTORE}")


_RESTORE = (
    "stop the server, put a copy of the directory aside, and restore the file from a backup, "
    "or import what `pointsman export` can still read"
)


def _fault(path: Path, error: sqlite3.Error, action: str = "read") -> JournalError:
    """The ``JournalError`` for an error of SQLite."""
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code == sqlite3.SQLITE_CORRUPT:
        return JournalFormatError(f"{path} is damaged ({error}); {_RESTORE}")
    if code == sqlite3.SQLITE_NOTADB:
        return JournalFormatError(f"{path} is not a journal ({error}); {_RESTORE}")
    return JournalError(f"cannot {action} {path}: {error}")


def _connect(path: Path, patience: float) -> sqlite3.Connection:
    connection = sqlite3.connect(path, patience, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -65536")  # 64 MiB
    return connection


def _connect_to_read(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)


def _run_all(cursor: sqlite3.Cursor, statements: str) -> None:
    """Run statements that end in semicolons; unlike ``executescript``, inside the transaction."""
    for statement in statements.split(";"):
        if statement.strip():
            cursor.execute(statement)


def _prepare(connection: sqlite3.Connection, path: Path) -> int:
    """Make the tables in a new file; returns the format of what is there."""
    if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        connection.executescript(f"BEGIN; {ROWS} {BASES} {COUNTERS} PRAGMA user_version = {FORMAT}; COMMIT;")
    return _check_format(connection, path)


def _check_format(connection: sqlite3.Connection, path: Path) -> int:
    """The format, if this version reads it."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > FORMAT:
        raise JournalFormatError(
            f"{path} has format {version}, written by a newer version of Pointsman; this one reads formats 1 to {FORMAT}: "
            "serve it with that version or a later one"
        )
    if version < 1:
        raise JournalFormatError(f"{path} has format {version}: it is a database, but not a journal")
    return version


def _fill_lifetimes(cursor: sqlite3.Cursor, lifetime: Callable[[bytes], tuple[bool, int]]) -> None:
    """Set the columns `permanent` and `expire_ns` of all rows after the base."""
    (after,) = cursor.execute(f"SELECT {BASE}").fetchone()
    while rows := cursor.execute(
        f"SELECT position, data FROM journal WHERE position > ? ORDER BY position LIMIT {READ_AT_ONCE}", (after,)
    ).fetchall():
        changes = [(*lifetime(data), position) for position, data in rows]
        changes = [change for change in changes if change[0] or change[1]]
        cursor.executemany("UPDATE journal SET permanent = ?, expire_ns = ? WHERE position = ?", changes)
        after = rows[-1][0]


def _base(connection: sqlite3.Connection, format_: int) -> Base:
    if format_ == 1:
        return Base()
    row = connection.execute("SELECT position, time_ns FROM base").fetchone()
    return Base(*row) if row else Base()


def _end(connection: sqlite3.Connection, format_: int) -> tuple[int, int]:
    """Position and time of the last row, which may have been compacted."""
    row = connection.execute("SELECT position, time_ns FROM journal ORDER BY position DESC LIMIT 1").fetchone()
    base = _base(connection, format_)
    return max((row[0], row[1]) if row else (0, 0), (base.position, base.time_ns))


def _read(connection: sqlite3.Connection, path: Path, format_: int, first: int, last: int | None) -> list[Row]:
    """The next rows, those of them that are after the base without a gap."""
    base = "0" if format_ == 1 else BASE
    columns = connection.execute(
        f"""SELECT position, time_ns, data, {base} FROM journal
            WHERE position BETWEEN ? AND coalesce(?, 9223372036854775807) AND {IS_KEPT[format_].format("position")}
            ORDER BY position LIMIT {READ_AT_ONCE}""",
        (first, last),
    ).fetchall()
    rows = [Row(position, time_ns, data) for position, time_ns, data, _ in columns]
    expected = max(first, columns[0][3] + 1) if columns else 0
    for row in rows:
        if row.position >= expected:
            if row.position > expected:
                raise JournalFormatError(f"{path} is damaged: the row at position {expected} is missing; {_RESTORE}")
            expected += 1
    return rows
