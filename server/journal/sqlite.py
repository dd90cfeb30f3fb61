"""The embedded journal engine: a SQLite file behind threads of its own. No set-up, one machine.

One thread appends, and hands what it appended to those who follow the journal without reading it back; where several processes
share the file it also looks for what the others wrote. Another thread looks things up.

>>> import tempfile
>>> from pointsman.server.journal.interface import Entry
>>> async def example() -> list[Result]:
...     journal = SqliteJournal(Path(tempfile.mkdtemp()))
...     results = await journal.append([Group((Entry(b"first"),))], now_ns=5)
...     await journal.close()
...     return results
>>> asyncio.run(example())
[Appended(positions=(1,), time_ns=5)]
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pointsman.server.journal.interface import (
    READ_AT_ONCE,
    Appended,
    Base,
    Group,
    JournalError,
    JournalFormatError,
    Result,
    Row,
    Span,
    read_whole,
)
from pointsman.server.journal.sqlite_store import PATIENCE, SqliteStore

log = logging.getLogger("pointsman.journal")

POLL = 0.005
"""Seconds between two looks for what other processes wrote."""
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, eq=False)
class _Append:
    """Groups that wait to be appended, and the future that gets the results."""

    groups: Sequence[Group]
    now_ns: int
    done: asyncio.Future[list[Result]]


class _Follower:
    """What one ``tail`` has not handed over yet: batches of rows, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._batches: deque[Sequence[Row]] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._error: JournalError | None = None

    def end(self, error: JournalError) -> None:
        self._error = error
        self.put(())

    def put(self, rows: Sequence[Row]) -> None:
        self._batches.append(rows)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def get(self) -> Sequence[Row]:
        while not self._batches:
            self._waiting = self._loop.create_future()
            await self._waiting
        if self._error is not None:
            raise self._error
        return self._batches.popleft()


class SqliteJournal:
    """The ``Journal`` in ``directory``, which is made if it does not exist. One process at a time may have it open.

    See ``SqliteStore`` for ``shared``, ``patience`` and errors. Making one blocks while the file is opened.
    """

    def __init__(self, directory: Path, shared: bool = False, patience: float = PATIENCE) -> None:
        self.store = SqliteStore(directory, shared, patience)
        self._patience = patience
        self._failing_since: float | None = None  # when reading what others wrote began to fail; the appending thread's
        self._appends: queue.SimpleQueue[_Append | None] = queue.SimpleQueue()
        self._followers: list[_Follower] = []
        self._told = self.store.end()  # position up to which followers have been told; the appending thread's
        self._published = self._told  # the same, as the event loop knows it
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._looking_up = ThreadPoolExecutor(1, thread_name_prefix="journal-read")

    async def append(self, groups: Sequence[Group], now_ns: int) -> list[Result]:
        """See ``Journal.append``."""
        if not groups:
            return []
        loop = self._start()
        done: asyncio.Future[list[Result]] = loop.create_future()
        self._appends.put(_Append(groups, now_ns, done))
        return await done

    async def tail(self, after: int) -> AsyncIterator[Sequence[Row]]:
        """See ``Journal.tail``."""
        follower = _Follower(self._start())
        self._followers.append(follower)
        try:
            start = self._published
            async for rows in read_whole(self, after + 1, start):
                yield rows
            position = max(after, start)
            while True:
                batch = await follower.get()
                if batch[0].position <= position:
                    batch = [row for row in batch if row.position > position]
                if batch:
                    yield batch
        finally:
            self._followers.remove(follower)

    async def read(self, first: int, last: int) -> list[Row]:
        """See ``Journal.read``."""
        return await self._look_up(lambda: self.store.read(first, last))

    async def span(self, key: bytes) -> Span | None:
        """See ``Journal.span``."""
        return await self._look_up(lambda: self.store.span(key))

    async def end(self) -> int:
        """See ``Journal.end``."""
        return await self._look_up(self.store.end)

    async def base(self) -> Base:
        """See ``Journal.base``."""
        return await self._look_up(self.store.base)

    async def base_state(self) -> bytes:
        """See ``Journal.base_state``."""
        return await self._look_up(self.store.base_state)

    async def open_until(self, last: int) -> int:
        """See ``Journal.open_until``."""
        return await asyncio.to_thread(self.store.open_until, last)

    async def compact(self, base: Base, state: bytes) -> None:
        """See ``Journal.compact``."""
        await asyncio.to_thread(self.store.compact, base, state)

    async def sweep(self, stopped: Callable[[], bool]) -> None:
        """See ``Journal.sweep``."""
        await asyncio.to_thread(self.store.sweep, stopped)

    async def is_old(self) -> bool:
        """See ``Journal.is_old``."""
        return self.store.is_old

    async def migrate(
        self, lifetime: Callable[[bytes], tuple[bool, int]], counters: Mapping[bytes, tuple[int, int]]
    ) -> None:
        """See ``Journal.migrate``."""
        await asyncio.to_thread(self.store.migrate, lifetime, counters)

    def fileno(self) -> int:
        """See ``SqliteStore.fileno``."""
        return self.store.fileno()

    async def close(self) -> None:
        """See ``Journal.close``."""
        if self._thread.is_alive():
            self._appends.put(None)
            await asyncio.to_thread(self._thread.join)
            await asyncio.sleep(0)  # let the last results be handed over
        self._looking_up.shutdown()
        self.store.close()

    def _start(self) -> asyncio.AbstractEventLoop:
        """The event loop, which must be the same always; starts the appending thread when it is first needed."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._thread.start()
        if loop is not self._loop:
            raise RuntimeError("expected to be used on one event loop")
        return loop

    async def _look_up(self, answer: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._looking_up, answer)

    def _run(self) -> None:
        while True:
            try:
                append = self._appends.get(timeout=POLL if self.store.shared else None)
            except queue.Empty:
                self._tell_of_others()
                continue
            if append is None:
                return
            try:
                results = self.store.append(append.groups, append.now_ns)
            except Exception as error:  # whatever it is, nothing was written and the next append may go well
                if not isinstance(error, JournalError):
                    log.exception("the journal failed in an unforeseen way")
                    error = JournalError(f"the journal failed: {error!r}")
                self._call(self._fail, append.done, error)
                continue
            own = _rows(append.groups, results)
            if not self._tell_of_others(own[0].position - 1 if own else None):
                own = []  # they are read when what is before them can be read
            elif own:
                self._told = own[-1].position
            self._call(self._finish, append.done, results, own)

    def _tell_of_others(self, last: int | None = None) -> bool:
        """Hand over what others wrote up to ``last``, or so far; false if it cannot be read."""
        if not self.store.shared:
            return True
        try:
            last = self.store.end() if last is None else last
            while self._told < last:
                rows = self.store.read(self._told + 1, last)
                if not rows or rows[-1].position - self._told != len(rows):  # permanent ones may be left
                    raise JournalFormatError(
                        f"the rows after position {self._told} were compacted before they were read"
                    )
                for start in range(0, len(rows), _AT_ONCE):
                    self._call(self._publish, rows[start : start + _AT_ONCE])
                self._told = rows[-1].position
        except JournalFormatError as error:
            self._call(self._end_tails, error)
            return False
        except Exception as error:
            self._note_failure(error)
            return False
        self._failing_since = None
        return True

    def _note_failure(self, error: Exception) -> None:
        """Log that others' rows cannot be read; once that has lasted for too long, nobody is to wait for them any more."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            log.warning("cannot read what others wrote (it is tried again): %s", error)
        elif now - self._failing_since > self._patience:
            self._call(self._end_tails, JournalError(f"cannot read what others wrote: {error}"))

    def _call(self, deliver: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():  # else nobody waits for the answer any more; what is durable stays so
            self._loop.call_soon_threadsafe(deliver, *arguments)

    def _fail(self, done: asyncio.Future[list[Result]], error: Exception) -> None:
        if not done.done():
            done.set_exception(error)

    def _finish(self, done: asyncio.Future[list[Result]], results: list[Result], own: Sequence[Row]) -> None:
        if not done.done():
            done.set_result(results)  # first, so that who appended knows its rows when they come
        if own:
            self._publish(own)

    def _end_tails(self, error: JournalError) -> None:
        for follower in self._followers:
            follower.end(error)

    def _publish(self, rows: Sequence[Row]) -> None:
        self._published = rows[-1].position
        for follower in self._followers:
            follower.put(rows)


_AT_ONCE = 200
"""Rows of other processes that are handed over in one batch."""
assert _AT_ONCE <= READ_AT_ONCE


def _rows(groups: Sequence[Group], results: Sequence[Result]) -> list[Row]:
    """The rows that were appended."""
    return [
        Row(position, result.time_ns, entry.data)
        for group, result in zip(groups, results, strict=True)
        if isinstance(result, Appended)
        for position, entry in zip(result.positions, group.entries, strict=True)
    ]
