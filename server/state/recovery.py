"""Recovery: the state that a journal folds to, from the newest good snapshot or from where the journal starts.

>>> import tempfile
>>> from pathlib import Path
>>> from pointsman.bandit.catalog import Model
>>> from pointsman.bandit.event import ModelPut
>>> from pointsman.server.journal.interface import Group
>>> from pointsman.server.journal.sqlite import SqliteJournal
>>> from pointsman.server.state.rows import entry_of
>>> async def example():
...     journal = SqliteJournal(Path(tempfile.mkdtemp()))
...     await journal.append([Group((entry_of(ModelPut(Model("gpt"))),))], now_ns=5)
...     state = await recover(journal, None)
...     await journal.close()
...     return state.position, list(state.models)
>>> asyncio.run(example())
(1, ['gpt'])
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from pointsman.bandit.state import State, apply
from pointsman.server.journal.interface import Base, Journal, JournalError, JournalFormatError, Row, read_whole
from pointsman.server.state import snapshot
from pointsman.server.state.fold import log_bucket_reset
from pointsman.server.state.reservations import counters_of
from pointsman.server.state.rows import decode, lifetime_of_bytes
from pointsman.server.state.snapshot_store import SnapshotStore

log = logging.getLogger("pointsman.recovery")


async def recover(journal: Journal, store: SnapshotStore | None) -> State:
    """The fold of ``journal``: from the newest snapshot in ``store`` that is whole and of this journal, else from the start.

    Raises ``JournalFormatError``, with the position, for an event that cannot be read or folded, and for a base that is damaged;
    also if there is a snapshot of a journal that is empty: then the journal was lost.
    """
    state = await _newest_snapshot(journal, store) if store is not None else None
    return await _fold_rest(journal, await base_state(journal) if state is None else state)


async def refold(journal: Journal) -> State:
    """The fold of ``journal`` from where it starts, whatever snapshots there are. Raises ``JournalFormatError``."""
    return await _fold_rest(journal, await base_state(journal))


async def migrate(journal: Journal, state: State) -> None:
    """Bring a journal that an older version wrote, and that folds to ``state``, into the present form; if it is one.

    It had no counters: they start from what the state counts against each hard budget. Raises ``JournalError``.
    """
    if await journal.is_old():
        await journal.migrate(lifetime_of_bytes, counters_of(state))
        log.info("the journal was brought into the form of this version, at position %d", state.position)


async def base_state(journal: Journal) -> State:
    """The state that ``journal`` starts from: an empty one if it is whole. Raises ``JournalFormatError`` if it is damaged."""
    base = await journal.base()
    if not base.position:
        return State()
    try:
        state = snapshot.load(await journal.base_state())
    except JournalError:
        raise
    except Exception as error:
        raise JournalFormatError(
            f"the journal starts from a state at position {base.position} that cannot be read: {error or repr(error)}. "
            "Restore it from a backup"
        ) from error
    if (state.position, state.time_ns) != (base.position, base.time_ns):
        raise JournalFormatError(
            f"the journal starts at position {base.position}, but its state there is of {state.position}. "
            "Restore it from a backup"
        )
    return state


def fold_rows(rows: Iterable[Row], state: State) -> State:
    """Apply stored rows in order to ``state``, in place, and return it.

    Raises ``JournalFormatError``, with the position, for an event that cannot be read or folded.
    """
    for row in rows:
        record = decode(row, state.terms)
        try:
            log_bucket_reset(record, apply(state, record))
        except Exception as error:
            raise JournalFormatError(f"the event at position {row.position} cannot be folded: {error!r}") from error
    return state


async def _fold_rest(journal: Journal, state: State) -> State:
    async for rows in read_whole(journal, state.position + 1, await journal.end()):
        fold_rows(rows, state)
    return state


async def _newest_snapshot(journal: Journal, store: SnapshotStore) -> State | None:
    """The newest snapshot that can be folded on from; what is wrong with newer ones is logged."""
    base, end = await journal.base(), await journal.end()
    for path in store.newest_first():
        try:
            state = snapshot.load(await asyncio.to_thread(path.read_bytes), complete=True)
        except Exception as error:  # a snapshot is a cache: whatever is wrong with it must not keep the service down
            log.warning("skipping the snapshot %s: %s", path.name, error or repr(error))
            continue
        if state.position and not end:
            raise JournalFormatError(
                f"the journal is empty, but {path} is of position {state.position}: the journal was lost. Restore it from a "
                "backup; or, to begin anew, move the snapshots away"
            )
        problem = await _problem(journal, state, base, end)
        if not problem:
            return state
        log.warning("skipping the snapshot %s: %s", path.name, problem)
    return None


async def _problem(journal: Journal, state: State, base: Base, end: int) -> str:
    """Why a snapshot is not one to go on from; empty if it is."""
    if state.position > end:
        return f"the journal ends before it, at {end}"
    if state.position < base.position:
        return f"the journal starts after it, at {base.position}"
    time_ns = base.time_ns
    if state.position > base.position:
        time_ns = next((row.time_ns for row in await journal.read(state.position, state.position)), 0)
    return "" if state.time_ns == time_ns else "it is of another journal"
