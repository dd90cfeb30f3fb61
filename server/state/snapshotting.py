"""Snapshotting: when a snapshot is due it is copied while the fold goes on, saved, and the journal compacted after it.

>>> import tempfile
>>> from pathlib import Path
>>> from pointsman.bandit.state import State
>>> from pointsman.server.journal.sqlite import SqliteJournal
>>> async def example():
...     directory = Path(tempfile.mkdtemp())
...     journal, store = SqliteJournal(directory), SnapshotStore(directory / "snapshots")
...     await Snapshotting(Fold(State()), journal, store, lambda: 5).take()
...     await journal.close()
...     return [path.name for path in store.newest_first()]
>>> asyncio.run(example())
['00000000000000000000.snapshot']
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from pointsman.bandit import event as e
from pointsman.server.journal.interface import Journal, JournalError
from pointsman.server.state import snapshot
from pointsman.server.state.fold import Fold
from pointsman.server.state.retention import retain
from pointsman.server.state.snapshot_store import SnapshotStore

log = logging.getLogger("pointsman.snapshots")

EVERY = 50_000
"""Events between two snapshots, by default: bounds the tail that a restart has to fold."""


class Snapshotting:
    """Takes a snapshot of ``fold`` every so many events, if there is a ``store``; and compacts ``journal`` after
    ``retention_ns``, unless that is 0.
    """

    def __init__(
        self,
        fold: Fold,
        journal: Journal,
        store: SnapshotStore | None,
        clock_ns: Callable[[], int],
        every: int = EVERY,
        retention_ns: int = 0,
    ) -> None:
        self._fold, self._journal, self._store = fold, journal, store
        self._clock_ns, self._every, self._retention_ns = clock_ns, every, retention_ns
        self._closing = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self.position = fold.state.position
        """Where the last snapshot was taken, or tried."""

    def observe(self, record: e.Record) -> None:
        """Begin with a snapshot if one is due after a folded event."""
        if self._store is None or record.position < self.position + self._every:
            return
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self.take())

    async def take(self) -> None:
        """Take a snapshot of the state as it is. A disk that cannot be written is logged, and does no other harm."""
        assert self._store is not None
        self.position = position = self._fold.state.position  # also when it fails: the next is due as many events later
        copy = snapshot.Capture(self._fold.state)
        self._fold.before = copy.before
        try:
            while copy.step():
                await asyncio.sleep(0)
        finally:
            self._fold.before = None
        try:
            await asyncio.to_thread(self._store.save, copy.parts(), position)
        except OSError as error:
            log.warning("cannot write a snapshot (a restart will take longer): %s", error)
        if self._retention_ns and not self._closing.is_set():
            try:
                now_ns = self._clock_ns()
                await retain(self._journal, self._store, self._retention_ns, now_ns, self._closing.is_set)
            except (JournalError, OSError) as error:
                log.warning("cannot compact the journal (it is tried again after the next snapshot): %s", error)

    async def finished(self) -> None:
        """Return when the snapshot under way, and the compaction it started, are done."""
        if self._task is not None:
            await self._task

    def stop_retention(self) -> None:
        """Leave off compacting the journal soon, and begin with it no more."""
        self._closing.set()

    async def close(self, *, final: bool) -> None:
        """Finish the snapshot under way; with ``final``, take a last one if anything was folded since."""
        self.stop_retention()
        await self.finished()
        if final and self._store is not None and self._fold.state.position > self.position:
            await self.take()
