"""Watching: streams of decisions as they become durable.

>>> import tempfile
>>> from pathlib import Path
>>> import numpy as np
>>> from pointsman.bandit.catalog import Bucket, Model
>>> from pointsman.bandit.encoder import Context
>>> from pointsman.server.journal.sqlite import SqliteJournal
>>> from pointsman.server.state.replica import open_replica
>>> async def example():
...     journal = SqliteJournal(Path(tempfile.mkdtemp()))
...     replica = await open_replica(journal, np.random.default_rng(0), lambda: 5, None)
...     await replica.catalogue.put_model(Model("gpt"), expected_version=0)
...     await replica.catalogue.put_bucket(Bucket("summarize"), expected_version=0)
...     with replica.watchers.watch("summarize") as records:
...         (decided,) = await replica.decisions.decide("summarize", [Context()])
...         same = (await anext(records)).decision.id == decided.decision.id
...     await replica.close()
...     return same
>>> asyncio.run(example())
True
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from pointsman.bandit import event as e
from pointsman.server.state.records import DecisionRecord, DecisionRecords

QUEUE = 10_000
"""Decisions that a watcher may be behind before it loses the oldest."""


class Watchers:
    """Subscribers to decisions, each with its queue."""

    def __init__(self, records: DecisionRecords) -> None:
        self._records = records
        self._queues: set[asyncio.Queue[e.DecisionMade | None]] = set()
        self._ended = False

    def __len__(self) -> int:
        return len(self._queues)

    @contextmanager
    def watch(self, bucket_id: str) -> Iterator[AsyncIterator[DecisionRecord]]:
        """Decisions that become durable from the moment this is entered, of one bucket or ("") all, until ``end``. A watcher that
        falls far behind loses some.
        """
        queue: asyncio.Queue[e.DecisionMade | None] = asyncio.Queue(maxsize=QUEUE)
        self._queues.add(queue)
        try:
            yield self._records_of(queue, bucket_id)
        finally:
            self._queues.discard(queue)

    async def _records_of(
        self, queue: asyncio.Queue[e.DecisionMade | None], bucket_id: str
    ) -> AsyncIterator[DecisionRecord]:
        while not self._ended:
            decision = await queue.get()
            if decision is not None and bucket_id in ("", decision.bucket):
                yield await self._records.get(decision.id, "decision")

    def end(self) -> None:
        """End every ``watch``: without this a server that stops would wait for its watchers."""
        self._ended = True
        for queue in self._queues:
            _put(queue, None)

    def observe(self, record: e.Record) -> None:
        """Pass a folded event to the watchers."""
        if isinstance(record.event, e.DecisionMade):
            for queue in self._queues:
                _put(queue, record.event)


def _put(queue: asyncio.Queue[e.DecisionMade | None], item: e.DecisionMade | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(item)
