"""Offline compaction: rows older than a time are replaced by the state they folded to.

>>> import asyncio, tempfile
>>> with tempfile.TemporaryDirectory() as directory:
...     compacted = asyncio.run(compact(Path(directory), before_ns=0, now_ns=0))
>>> compacted.position
0
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from pointsman.bandit.state import State
from pointsman.server.journal.interface import Base, JournalError, read_all
from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.state import snapshot
from pointsman.server.state.recovery import base_state, fold_rows, migrate, recover
from pointsman.server.state.snapshot_store import SnapshotStore


@dataclass(frozen=True, slots=True)
class Compacted:
    """The ``position`` up to which there are no rows any more, and the ``size`` of the file in bytes."""

    position: int
    size: int


async def compact(data: Path, before_ns: int, now_ns: int) -> Compacted:
    """Replace all rows of the journal in ``data`` up to the time ``before_ns`` by the state they led to, and give the space back
    to the file system.

    Raises ``JournalError`` if one of them is a decision that can still get outcomes at ``now_ns``.
    """
    journal = SqliteJournal(data)
    try:
        if await journal.is_old():
            await migrate(journal, await recover(journal, SnapshotStore(data / "snapshots")))
        state = await _fold_until(journal, before_ns)
        if state.position > (await journal.base()).position:
            expire_ns = await journal.open_until(state.position)
            if expire_ns > now_ns:
                hours = -(-(expire_ns - now_ns) // (3600 * 10**9))
                raise JournalError(
                    f"decisions up to then can still get outcomes, the last for {hours} more hours; nothing was compacted: "
                    "keep more days"
                )
            await journal.compact(Base(state.position, state.time_ns), snapshot.whole(snapshot.capture(state)))
        await journal.sweep(lambda: False)
        return Compacted(state.position, journal.store.shrink())
    finally:
        await journal.close()


async def _fold_until(journal: SqliteJournal, before_ns: int) -> State:
    """The fold of the rows up to the time ``before_ns``."""
    state = await base_state(journal)
    async for rows in read_all(journal, state.position + 1, await journal.end()):
        old = list(takewhile(lambda row: row.time_ns <= before_ns, rows))
        fold_rows(old, state)
        if len(old) < len(rows):
            break
    return state
