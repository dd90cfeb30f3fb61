"""Retention: old rows are replaced by the state they folded to, which bounds the size of the journal.

A snapshot is put aside as the candidate. Once it is as old as the retention, and no decision before it is still open, it becomes
the journal's base and the newest snapshot the next candidate: the journal holds between one and two retentions of traffic.

>>> import tempfile
>>> from pathlib import Path
>>> from pointsman.bandit.catalog import Model
>>> from pointsman.bandit.event import ModelPut
>>> from pointsman.server.journal.interface import Group
>>> from pointsman.server.journal.sqlite import SqliteJournal
>>> from pointsman.server.state.recovery import recover
>>> from pointsman.server.state.rows import entry_of
>>> async def example():
...     directory = Path(tempfile.mkdtemp())
...     journal, store = SqliteJournal(directory), SnapshotStore(directory / "snapshots")
...     await journal.append([Group((entry_of(ModelPut(Model("gpt"))),))], now_ns=5)
...     store.save(snapshot.capture(await recover(journal, None)), position=1)
...     bases = [await retain(journal, store, DAY_NS, now_ns) for now_ns in (6, 2 * DAY_NS)]
...     await journal.close()
...     return bases
>>> asyncio.run(example())  # the snapshot becomes the candidate; a day later, the journal's base
[0, 1]
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from pointsman.server.journal.interface import Base, Journal
from pointsman.server.state import snapshot
from pointsman.server.state.snapshot_store import SnapshotStore

log = logging.getLogger("pointsman.retention")

DAY_NS = 86_400 * 10**9


async def retain(
    journal: Journal, store: SnapshotStore, retention_ns: int, now_ns: int, stopped: Callable[[], bool] = lambda: False
) -> int:
    """Compact ``journal`` if its candidate has come of age, and finish a compaction that was cut off.

    Returns the position of the base, 0 if there is none. ``stopped`` ends it soon; the next call takes it up again. Raises
    ``JournalError`` and ``OSError``.
    """
    candidate = await asyncio.to_thread(store.candidate)
    if candidate is not None and await _is_done_with(journal, candidate, retention_ns, now_ns):
        await asyncio.to_thread(store.drop_candidate)
    await asyncio.to_thread(store.propose_candidate)
    await journal.sweep(stopped)
    return (await journal.base()).position


async def _is_done_with(journal: Journal, candidate: bytes, retention_ns: int, now_ns: int) -> bool:
    """Make ``candidate`` the journal's base if it is time; whether another candidate is wanted."""
    try:
        base = await asyncio.to_thread(snapshot.position_and_time, candidate)
        await _check_is_of(journal, base)
    except snapshot.SnapshotError as error:
        log.warning("the candidate for the journal's base is dropped: %s", error)
        return True
    if base.time_ns > now_ns - retention_ns:
        return False
    if base.position > (await journal.base()).position:
        if await journal.open_until(base.position) > now_ns:
            return False
        await journal.compact(base, candidate)
        log.info("the journal starts from position %d now; older rows are freed", base.position)
    return True


async def _check_is_of(journal: Journal, base: Base) -> None:
    """Raise ``SnapshotError`` for a snapshot that is not of this journal."""
    if base == await journal.base():
        return
    row = next(iter(await journal.read(base.position, base.position)), None)
    if row is None or row.time_ns != base.time_ns:
        raise snapshot.SnapshotError("it is of another journal")
