"""The embedded journal engine: one SQLite file in write-ahead-log mode. No set-up, one machine.

``append`` is one transaction with ``synchronous=FULL``: when it returns, the log has been flushed to the disk. Callers
get group commit by handing many groups to one call.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from pointsman.server.journal.interface import (
    Appended,
    Base,
    Behind,
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

FORMAT = 2
"""Version of the tables, kept in SQLite's ``user_version``. Format 1 had no compaction; it is upgraded when it is opened."""
FILE = "journal.sqlite3"
TURN = "turn"
"""The file whose lock is held by the one of several processes that writes just now."""
_PATIENCE = 30.0
"""Seconds that a statement waits for another process's transaction before it fails."""
_READ_AT_ONCE = 1000
_PART = 4 << 20
"""Bytes of a base's state in one row: appends wait for at most one of these."""
_SWEPT_AT_ONCE = 500
"""Rows freed in one transaction: appends wait for at most one of these."""
_SWEEP_PAUSE = 0.005
"""Seconds between two of them, so that appends get their turn."""

_TABLES_1 = """
CREATE TABLE journal (position INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE keys (key BLOB PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE once (once BLOB PRIMARY KEY, first INTEGER NOT NULL, count INTEGER NOT NULL) WITHOUT ROWID;
"""
# At most one base; parts of another position are of a base that was replaced, or never came to be.
_TABLES_2 = """
CREATE TABLE base (position INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL);
CREATE TABLE base_part (position INTEGER NOT NULL, number INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (position, number));
CREATE TABLE kept (position INTEGER PRIMARY KEY);
"""
_BASE = "(SELECT coalesce(max(position), 0) FROM base)"
_KEPT = "IN (SELECT position FROM kept)"


class SqliteJournal:
    """A journal in ``directory``, which is made if it does not exist. One process at a time may have it open.

    ``shared``: several may, each with its own ``SqliteJournal``, while one that is not shared, in the process that started
    them, holds the directory's lock and appends nothing itself. Their appends take turns.

    Raises ``JournalLockedError`` if another process has it, ``JournalFormatError`` if the file is not a journal that
    this version reads, ``JournalError`` if the directory cannot be used.
    """

    def __init__(self, directory: Path, shared: bool = False) -> None:
        self._path = directory / FILE
        self._shared = shared
        self._lock_file = _open_lock(directory, TURN) if shared else _lock(directory)
        # One connection writes and one reads, each behind its lock: readers never wait for a flush.
        self._write_lock, self._read_lock = threading.Lock(), threading.Lock()
        try:
            self._writer = _connect(self._path)
            _prepare(self._writer, self._path)
            self._reader = _connect(self._path)
            self._last, self._time_ns = _end(self._writer)
            self._others = self._last  # the last row that this opening did not append
        except sqlite3.Error as error:
            os.close(self._lock_file)
            raise _fault(self._path, error, "open") from error
        except JournalError:
            os.close(self._lock_file)
            raise

    def append(self, groups: Sequence[Group], now_ns: int) -> list[Result]:
        """See ``Journal.append``."""
        with self._write_lock, self._turn():
            cursor = self._writer.cursor()
            try:
                cursor.execute("BEGIN IMMEDIATE")
                last, end_ns = _end(self._writer) if self._shared else (self._last, self._time_ns)
                others = last if last > self._last else self._others
                time_ns = max(now_ns, end_ns)
                results = _judge(cursor, groups, last, time_ns, others)
                added = _insert(cursor, groups, results, last + 1, time_ns)
                cursor.execute("COMMIT")
            except Exception as error:  # an open transaction would refuse every later append, whatever the fault was
                self._roll_back()
                raise JournalError(f"cannot append to {self._path}: {error}") from error
            self._last, self._time_ns, self._others = last + added, time_ns if added else end_ns, others
            return results

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Among those who share the journal, be the one who writes. They queue here: SQLite would let them sleep and retry."""
        if self._shared:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if self._shared:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def read(self, first: int, last: int | None = None) -> Iterator[Row]:
        """See ``Journal.read``."""
        return _read(
            self._reader,
            self._read_lock,
            self._path,
            first,
            self.last_position() if last is None else last,
        )

    def span(self, key: bytes) -> Span | None:
        """See ``Journal.span``."""
        with self._read_lock:
            try:
                found = self._reader.execute(
                    f"SELECT first, last FROM keys WHERE key = ? AND (first > {_BASE} OR first {_KEPT})", (key,)
                ).fetchone()
            except sqlite3.Error as error:
                raise _fault(self._path, error) from error
        return Span(*found) if found else None

    def last_position(self) -> int:
        """See ``Journal.last_position``."""
        if not self._shared:
            return self._last
        with self._read_lock:
            try:
                return _end(self._reader)[0]
            except sqlite3.Error as error:
                raise _fault(self._path, error) from error

    def base(self) -> Base:
        """See ``Journal.base``."""
        with self._read_lock:
            try:
                return _base(self._reader)
            except sqlite3.Error as error:
                raise _fault(self._path, error) from error

    def base_state(self) -> bytes:
        """See ``Journal.base_state``."""
        query = f"SELECT data FROM base_part WHERE position = {_BASE} ORDER BY number"
        with self._read_lock:
            try:
                return b"".join(part for (part,) in self._reader.execute(query))
            except sqlite3.Error as error:
                raise _fault(self._path, error) from error

    def compact(self, base: Base, state: bytes, kept: Sequence[int]) -> None:
        """See ``Journal.compact``."""
        before = self.base().position
        end = self.last_position()
        if not before < base.position <= end:
            raise ValueError(f"expected a base after {before} and at most at {end}, got {base.position}")
        self._change("DELETE FROM base_part WHERE position = ?", (base.position,))  # of an attempt that was cut off
        for number, start in enumerate(range(0, len(state), _PART)):
            part = state[start : start + _PART]
            self._change("INSERT INTO base_part VALUES (?, ?, ?)", (base.position, number, part))
        with self._write_lock, self._turn():
            cursor = self._writer.cursor()
            try:
                cursor.execute("BEGIN IMMEDIATE")
                cursor.execute("INSERT OR IGNORE INTO kept SELECT value FROM json_each(?)", (json.dumps(list(kept)),))
                cursor.execute("DELETE FROM base")
                cursor.execute("INSERT INTO base VALUES (?, ?)", (base.position, base.time_ns))
                cursor.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                raise _fault(self._path, error, "write") from error

    def sweep(self, stopped: Callable[[], bool]) -> None:
        """See ``Journal.sweep``. Freed pages are used again by later appends; the file does not shrink."""
        base = self.base().position
        if not base:
            return
        gone: dict[str, tuple[str, int | bytes, str]] = {
            "journal": ("position", 0, f"position <= {base} AND position NOT {_KEPT}"),
            "keys": ("key", b"", f"first <= {base} AND first NOT {_KEPT}"),
            "once": ("once", b"", f"first <= {base}"),
        }
        for table, (key, start, condition) in gone.items():
            after: int | bytes | None = start
            while after is not None and not stopped():
                after = self._sweep_some(table, key, after, condition, base)
                time.sleep(_SWEEP_PAUSE)
        while not stopped() and self._change(
            "DELETE FROM base_part WHERE rowid IN (SELECT rowid FROM base_part WHERE position < ? LIMIT 1)", (base,)
        ):
            time.sleep(_SWEEP_PAUSE)

    def shrink(self) -> int:
        """Give free pages back to the file system; returns the size of the file. Takes as long as copying it."""
        self._change("VACUUM", ())
        self._change("PRAGMA wal_checkpoint(TRUNCATE)", ())
        return self._path.stat().st_size

    def _sweep_some(self, table: str, key: str, after: int | bytes, condition: str, base: int) -> int | bytes | None:
        """Look at the next rows of ``table`` after ``after`` and free what fits; returns the last one, None at the end."""
        found = "position <= :base AND " if table == "journal" else ""
        last = f"""SELECT max({key}) FROM
            (SELECT {key} FROM {table} WHERE {found}{key} > :after ORDER BY {key} LIMIT {_SWEPT_AT_ONCE})"""
        with self._read_lock:
            try:
                (end,) = self._reader.execute(last, {"after": after, "base": base}).fetchone()
            except sqlite3.Error as error:
                raise _fault(self._path, error) from error
        if end is not None:
            self._change(f"DELETE FROM {table} WHERE {key} > ? AND {key} <= ? AND {condition}", (after, end))
        return end  # type: ignore[no-any-return]

    def _change(self, statement: str, parameters: tuple[object, ...]) -> int:
        """Run one statement in a transaction of its own; returns how many rows it changed."""
        with self._write_lock, self._turn():
            try:
                return self._writer.execute(statement, parameters).rowcount
            except sqlite3.Error as error:
                self._roll_back()
                raise _fault(self._path, error, "write") from error

    def fileno(self) -> int:
        """The descriptor of the directory's lock: the lock is held until it is closed in every process that was given it."""
        return self._lock_file

    def close(self) -> None:
        """See ``Journal.close``."""
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()
            os.close(self._lock_file)

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")


class _Packed:
    """Byte strings and numbers as the two parameters of one statement: a blob, and places in it as JSON.

    Each step of a statement lets go of the interpreter's lock and has to get it back from a busy event loop. So a group commit
    is a handful of statements that each run through all rows inside SQLite, however many callers share it.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0
        self._rows: list[tuple[int, ...]] = []

    def add(self, data: bytes, *numbers: int) -> None:
        self._rows.append((self._length + 1, len(data), *numbers))
        self._parts.append(data)
        self._length += len(data)

    def __len__(self) -> int:
        return len(self._rows)

    def parameters(self) -> dict[str, object]:
        # one byte more, for to SQLite a part of a blob without bytes is NULL
        return {"blob": b"".join((*self._parts, b"\0")), "rows": json.dumps(self._rows)}


_DATA = "substr(:blob, json_extract(r.value, '$[0]'), json_extract(r.value, '$[1]'))"
_ONCE = f"""SELECT json_group_array(json_array(r.key, o.first, o.count))
    FROM json_each(:rows) r JOIN once o ON o.once = {_DATA} WHERE o.first > {_BASE}"""
_LAST = f"SELECT json_group_array(json_array(r.key, k.last)) FROM json_each(:rows) r JOIN keys k ON k.key = {_DATA}"
_ADD_ROWS = f"INSERT INTO journal SELECT :first + r.key, :time_ns, {_DATA} FROM json_each(:rows) r"
_ADD_KEYS = f"""INSERT INTO keys
    SELECT {_DATA}, json_extract(r.value, '$[2]'), json_extract(r.value, '$[2]') FROM json_each(:rows) r WHERE true
    ON CONFLICT (key) DO UPDATE SET last = excluded.last"""
_ADD_ONCE = f"""INSERT OR REPLACE INTO once
    SELECT {_DATA}, json_extract(r.value, '$[2]'), json_extract(r.value, '$[3]') FROM json_each(:rows) r"""


def _judge(cursor: sqlite3.Cursor, groups: Sequence[Group], last: int, time_ns: int, others: int) -> list[Result]:
    """What becomes of each group if they are appended in order after position ``last``; ``others`` is the last row of others."""
    once, lasts = _known(cursor, groups)
    results: list[Result] = []
    for group in groups:
        before = once.get(group.once) if group.once else None
        if before is not None:
            results.append(Duplicate(*before))
            continue
        if group.seen is not None and group.seen < others:
            results.append(Behind(others))
            continue
        stale = next((e for e in group.entries if e.expect is not None and lasts.get(e.key, 0) != e.expect), None)
        if stale is not None:
            results.append(Conflict(stale.key, lasts.get(stale.key, 0)))
            continue
        results.append(Appended(last + 1, len(group.entries), time_ns))
        for entry in group.entries:
            last += 1
            lasts[entry.key] = last
        if group.once and group.entries:
            once[group.once] = (last - len(group.entries) + 1, len(group.entries))
    return results


def _known(cursor: sqlite3.Cursor, groups: Sequence[Group]) -> tuple[dict[bytes, tuple[int, int]], dict[bytes, int]]:
    """What is stored of the groups' ``once`` and of the keys for which they expect something."""
    onces = list({group.once for group in groups if group.once})
    keys = list({entry.key for group in groups for entry in group.entries if entry.expect is not None})
    found_once: list[list[int]] = []
    found_keys: list[list[int]] = []
    for wanted, query, found in ((onces, _ONCE, found_once), (keys, _LAST, found_keys)):
        if wanted:
            packed = _Packed()
            for one in wanted:
                packed.add(one)
            found += json.loads(cursor.execute(query, packed.parameters()).fetchone()[0])
    return (
        {onces[i]: (first, count) for i, first, count in found_once},
        {keys[i]: position for i, position in found_keys},
    )


def _insert(
    cursor: sqlite3.Cursor, groups: Sequence[Group], results: Sequence[Result], first: int, time_ns: int
) -> int:
    """Insert the groups that are to be appended, from position ``first``; returns how many entries that were."""
    rows, keys, onces = _Packed(), _Packed(), _Packed()
    for group, result in zip(groups, results, strict=True):
        if not isinstance(result, Appended):
            continue
        for position, entry in enumerate(group.entries, result.first):
            rows.add(entry.data)
            if entry.key:
                keys.add(entry.key, position)
        if group.once and group.entries:
            onces.add(group.once, result.first, result.count)
    if len(rows):
        cursor.execute(_ADD_ROWS, {**rows.parameters(), "first": first, "time_ns": time_ns})
    if len(keys):
        cursor.execute(_ADD_KEYS, keys.parameters())
    if len(onces):
        cursor.execute(_ADD_ONCE, onces.parameters())
    return len(rows)


def read_rows(directory: Path) -> Iterator[Row]:
    """All rows of the journal in ``directory``, which another process may be serving. Raises ``JournalError``."""
    path = directory / FILE
    if not path.is_file():
        raise JournalError(f"there is no journal in {directory}")
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)
        with closing(connection):
            whole = _check_format(connection, path) == 1
            first = 1 if whole else _base(connection).position + 1
            yield from _read(connection, threading.Lock(), path, first, _end(connection, whole)[0], whole)
    except sqlite3.Error as error:
        raise _fault(path, error) from error


def check(directory: Path) -> None:
    """Look at every page of the journal in ``directory``. Raises ``JournalFormatError`` if one is damaged."""
    path = directory / FILE
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            _check_format(connection, path)
            found = [text for (text,) in connection.execute("PRAGMA integrity_check(5)")]
    except sqlite3.Error as error:
        raise _fault(path, error) from error
    if found != ["ok"]:
        raise JournalFormatError(f"{path} is damaged ({'; '.join(found)}); {_RESTORE}")


_RESTORE = (
    "stop the server, put a copy of the directory aside, and restore the file from a backup, "
    "or import what `pointsman export` can still read"
)


def _fault(path: Path, error: sqlite3.Error, what: str = "read") -> JournalError:
    """What to say of an error of SQLite."""
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code == sqlite3.SQLITE_CORRUPT:
        return JournalFormatError(f"{path} is damaged ({error}); {_RESTORE}")
    if code == sqlite3.SQLITE_NOTADB:
        return JournalFormatError(f"{path} is not a journal ({error}); {_RESTORE}")
    return JournalError(f"cannot {what} {path}: {error}")


def _open_lock(directory: Path, name: str) -> int:
    """A descriptor of the lock file ``name`` in ``directory``, which is made if need be."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise JournalError(f"cannot use the data directory {directory}: {error}") from error


def _lock(directory: Path) -> int:
    """Make ``directory`` if need be and take its lock; returns the descriptor that holds it."""
    descriptor = _open_lock(directory, "lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise JournalLockedError(f"another process serves {directory}; stop it or choose another directory") from error
    return descriptor


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, _PATIENCE, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -65536")  # 64 MiB
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        connection.executescript(f"BEGIN; {_TABLES_1} {_TABLES_2} PRAGMA user_version = {FORMAT}; COMMIT;")
    if _check_format(connection, path) == 1:
        connection.executescript(f"BEGIN IMMEDIATE; {_TABLES_2} PRAGMA user_version = {FORMAT}; COMMIT;")


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


def _base(connection: sqlite3.Connection) -> Base:
    found = connection.execute("SELECT position, time_ns FROM base").fetchone()
    return Base(*found) if found else Base()


def _end(connection: sqlite3.Connection, whole: bool = False) -> tuple[int, int]:
    """Position and time of the last row, which may have been compacted; ``whole``: it cannot have been."""
    row = connection.execute("SELECT position, time_ns FROM journal ORDER BY position DESC LIMIT 1").fetchone()
    base = Base() if whole else _base(connection)
    return max((row[0], row[1]) if row else (0, 0), (base.position, base.time_ns))


def _read(
    connection: sqlite3.Connection,
    lock: threading.Lock,
    path: Path,
    first: int,
    last: int,
    whole: bool = False,
) -> Iterator[Row]:
    there = "" if whole else f"AND (position > {_BASE} OR position {_KEPT})"
    while first <= last:
        with lock:
            try:
                found = connection.execute(
                    f"""SELECT position, time_ns, data FROM journal WHERE position BETWEEN ? AND ? {there}
                        ORDER BY position LIMIT {_READ_AT_ONCE}""",
                    (first, last),
                ).fetchall()
            except sqlite3.Error as error:
                raise _fault(path, error) from error
        if not found:
            return
        for row in found:
            yield Row(*row)
        first = found[-1][0] + 1
