"""Decision records: decisions with their reported outcomes, cached and read from the journal.

Recent ones are kept in memory; older ones are read from the journal.

>>> import asyncio, tempfile
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
...     (decided,) = await replica.decisions.decide("summarize", [Context()])
...     replica.records.forget()  # read it from the journal
...     record = await replica.records.get(decided.decision.id, "decision")
...     await replica.close()
...     return record.decision.models, record.last
>>> asyncio.run(example())
(('gpt',), 3)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from pointsman.bandit import event as e
from pointsman.bandit.outcome import ReportedOutcome
from pointsman.bandit.state import State
from pointsman.server.errors import NotFoundError
from pointsman.server.journal.interface import Journal, Row, Span, read_all
from pointsman.server.names import decision_name
from pointsman.server.state.rows import decode

KEPT = 20_000
"""Recent decisions kept in memory, so that their outcomes need no look-up. About 3 kB each."""


@dataclass(frozen=True, slots=True, eq=False)
class DecisionRecord:
    """A decision with its reported outcomes: ``reported_outcomes`` by model, ``last`` the position of its last event."""

    decision: e.DecisionMade
    time_ns: int
    last: int
    reported_outcomes: Mapping[str, ReportedOutcome]


class DecisionRecords:
    """The decisions of a journal. ``wait_folded`` returns when ``state`` has come to a position."""

    def __init__(self, journal: Journal, state: State, wait_folded: Callable[[int], Awaitable[None]]) -> None:
        self._journal, self._state, self._wait_folded = journal, state, wait_folded
        self._recent: OrderedDict[bytes, DecisionRecord] = OrderedDict()
        self._missed = 0  # outcomes folded whose decision was not in memory

    async def get(self, id_: bytes, field: str) -> DecisionRecord:
        """A decision with its reported outcomes. Raises ``NotFoundError``."""
        record = self._recent.get(id_)
        if record is not None:
            self._recent.move_to_end(id_)
            return record
        missed = self._missed
        record = await self._look_up(id_)
        if record is None:
            raise NotFoundError(field, decision_name(id_))
        newer = self._recent.get(id_)
        if newer is not None and newer.last >= record.last:  # folded while we were reading
            return newer
        if missed == self._missed:  # else an outcome of it may have been folded since it was read: do not keep it
            self._keep(record)
        return record

    async def of_request(self, span: Span, bucket: str, request_id: str) -> list[DecisionRecord]:
        """The decisions that ``bucket`` made for a request id, which are in ``span``, in order."""
        records = []
        await self._wait_folded(span.last)  # only then are the terms known
        async for rows in read_all(self._journal, span.first, span.last):
            for row in rows:
                event = decode(row, self._state.terms).event
                if isinstance(event, e.DecisionMade) and (event.bucket, event.request_id) == (bucket, request_id):
                    records.append(DecisionRecord(event, row.time_ns, row.position, {}))
        return records

    def observe(self, record: e.Record) -> None:
        """Take note of a folded event."""
        event = record.event
        if isinstance(event, e.DecisionMade):
            self._keep(DecisionRecord(event, record.time_ns, record.position, {}))
        elif isinstance(event, e.OutcomeApplied):
            recent = self._recent.get(event.decision_id)
            if recent is None:
                self._missed += 1
            else:
                self._keep(replace(recent, last=record.position, reported_outcomes=event.reported_outcomes))

    def forget(self, id_: bytes | None = None) -> None:
        """Look a decision, or all, up in the journal when next asked."""
        if id_ is None:
            self._recent.clear()
        else:
            self._recent.pop(id_, None)

    def _keep(self, record: DecisionRecord) -> None:
        self._recent[record.decision.id] = record
        self._recent.move_to_end(record.decision.id)
        if len(self._recent) > KEPT:
            self._recent.popitem(last=False)

    async def _look_up(self, id_: bytes) -> DecisionRecord | None:
        span = await self._journal.span(id_)
        if span is None:
            return None
        await self._wait_folded(span.last)  # it may be another process's, just now; only then are its terms known
        first, last = await self._row(span.first), await self._row(span.last)
        if first is None or last is None:  # compacted since the span was read
            return None
        decision, outcome = decode(first, self._state.terms).event, decode(last, self._state.terms).event
        if not isinstance(decision, e.DecisionMade):
            raise ValueError(f"the journal's position {span.first} should hold a decision")
        if span.last == span.first:
            return DecisionRecord(decision, first.time_ns, span.first, {})
        if not isinstance(outcome, e.OutcomeApplied):
            raise ValueError(f"the journal's position {span.last} should hold an outcome")
        return DecisionRecord(decision, first.time_ns, span.last, outcome.reported_outcomes)

    async def _row(self, position: int) -> Row | None:
        return next(iter(await self._journal.read(position, position)), None)
