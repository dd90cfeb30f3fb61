"""One replica: the state folded from a journal, and everything that reads it or adds to the journal.

    decide, report, put ──▶ event ──▶ commit ──▶ journal ──▶ tail ──▶ fold ──▶ state ──▶ the caller is answered

All of it lives on one event loop. A write is made into an event on the state as it is, appended (in a group with others), and
folded when the journal's tail brings it, as are the writes of other processes.

>>> import tempfile
>>> from pointsman.bandit.catalog import Bucket, Model
>>> from pointsman.bandit.encoder import Context
>>> from pointsman.bandit.outcome import Signal
>>> from pointsman.server.journal.sqlite import SqliteJournal
>>> from pointsman.server.state.outcomes import Report
>>> async def example() -> None:
...     journal = SqliteJournal(Path(tempfile.mkdtemp()))
...     replica = await open_replica(journal, np.random.default_rng(0), lambda: 5, None)
...     await replica.catalogue.put_model(Model("gpt"), expected_version=0)
...     await replica.catalogue.put_bucket(Bucket("summarize"), expected_version=0)
...     (record,) = await replica.decisions.decide("summarize", [Context()])
...     reported = await replica.outcomes.report(Report(record.decision.id, {Signal.QUALITY: 1.0}))
...     print(record.last, reported.position, replica.state.position)
...     await replica.close()
>>> asyncio.run(example())
3 4 4
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np

from pointsman.bandit import event as e
from pointsman.bandit.bucket import BucketState
from pointsman.bandit.pacer import ActiveBudget
from pointsman.bandit.state import State
from pointsman.server.journal.commit import GroupCommit, Observer
from pointsman.server.journal.interface import Journal, Row, read_whole
from pointsman.server.state.catalogue import Catalogue
from pointsman.server.state.decisions import Decisions
from pointsman.server.state.fold import Fold
from pointsman.server.state.outcomes import Outcomes
from pointsman.server.state.records import DecisionRecords
from pointsman.server.state.recovery import migrate, recover
from pointsman.server.state.snapshot_store import SnapshotStore
from pointsman.server.state.snapshotting import EVERY, Snapshotting
from pointsman.server.state.watching import Watchers


class Replica:
    """The fold of ``journal``, kept up to date, and the only writer to it in this process.

    Make one with ``open_replica`` on a running event loop; end it with ``close``.
    """

    def __init__(
        self,
        journal: Journal,
        state: State,
        rng: np.random.Generator,
        clock_ns: Callable[[], int],
        snapshots: SnapshotStore | None,
        snapshot_every: int,
        retention_ns: int,
    ) -> None:
        self.journal = journal
        self.now_ns = clock_ns
        self.broken = asyncio.Event()
        """Set when the fold has failed, so that nothing more is taken."""
        fold = Fold(state)
        self.state = state
        self.commit = GroupCommit(
            journal, clock_ns, fold.apply, state.position, lambda: self.decisions.on_append_done(), self.broken.set
        )
        self.records = DecisionRecords(journal, state, self.commit.wait_folded)
        self.decisions = Decisions(state, journal, self.commit, self.records, rng, clock_ns)
        self.outcomes = Outcomes(state, self.commit, self.records, clock_ns)
        self.catalogue = Catalogue(state, journal, self.commit)
        self.watchers = Watchers(self.records)
        self.snapshotting = Snapshotting(fold, journal, snapshots, clock_ns, snapshot_every, retention_ns)
        self._observers = fold.observers
        self._observers += [self.records.observe, self.watchers.observe, self.snapshotting.observe]
        self.commit.start()

    def active_budgets(self, bucket: BucketState) -> list[ActiveBudget]:
        """The budgets that a bucket's decisions draw on, with what decisions reserve that are not folded yet."""
        return self.decisions.active_budgets(bucket)

    def observe(self, record: Callable[[e.Record], None] | None, append: Observer) -> None:
        """Have ``record`` told of every event folded from now on, if given, and ``append`` of every append."""
        if record is not None:
            self._observers.append(record)
        self.commit.observers.append(append)

    async def export(self, first: int, last: int) -> AsyncIterator[list[Row]]:
        """The journal's rows from ``first``, or from where it starts, to ``last``, in chunks.

        Raises ``JournalError`` if the journal is compacted beyond what was read so far.
        """
        start = (await self.journal.base()).position + 1
        async for rows in read_whole(self.journal, max(first, start), last):
            yield rows

    async def close(self) -> None:
        """Finish what is pending, snapshot, and release the journal."""
        self.snapshotting.stop_retention()
        await self.commit.close()
        await self.snapshotting.close(final=not self.commit.broken)
        await self.journal.close()


async def open_replica(
    journal: Journal,
    rng: np.random.Generator,
    clock_ns: Callable[[], int],
    snapshots: Path | None,
    snapshot_every: int = EVERY,
    retention_ns: int = 0,
    *,
    keeps_snapshots: bool = True,
) -> Replica:
    """Recover the state (newest good snapshot, then the tail) and serve it. Needs a running event loop.

    Decisions and outcomes stay in the journal for at least ``retention_ns``; 0 means for ever. It needs ``snapshots``. Of the
    processes that share a journal one ``keeps_snapshots``. A journal that an older version wrote is migrated first.

    Raises ``JournalError`` if the journal cannot be read or folded.
    """
    store = None if snapshots is None else SnapshotStore(snapshots)
    state = await recover(journal, store)
    await migrate(journal, state)
    return Replica(journal, state, rng, clock_ns, store if keeps_snapshots else None, snapshot_every, retention_ns)
