"""A journal in memory that several writers share, and that does what a journal over a network may do: answers get lost, appends
land late or never, others' rows come in between, positions have gaps.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pointsman.server.journal.interface import (
    READ_AT_ONCE,
    Appended,
    Base,
    Entry,
    Group,
    JournalError,
    Result,
    Row,
    Span,
    Unknown,
    read_all,
)
from pointsman.server.journal.judge import Judge


@dataclass
class Faults:
    """How often what goes wrong, each a chance from 0 to 1. ``foreign`` makes a group of somebody else's."""

    rng: random.Random
    unanswered: float = 0.0
    """An append lands and its answer is lost."""
    dropped: float = 0.0
    """An append does not land, which cannot be known."""
    late: float = 0.0
    """An append is not answered, and lands later."""
    between: float = 0.0
    """A foreign group comes before a group."""
    foreign: Callable[[], Group] | None = None
    in_pieces: bool = False
    """The tail brings rows in batches of any size."""

    def happens(self, chance: float) -> bool:
        return chance > 0.0 and self.rng.random() < chance


@dataclass
class MemoryLog:
    """What all writers share: the rows and what is known of them."""

    gap: Callable[[], bool] = lambda: False
    rows: list[Row] = field(default_factory=list)
    entries: dict[int, Entry] = field(default_factory=dict)
    spans: dict[bytes, Span] = field(default_factory=dict)
    counters: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    base: Base = field(default_factory=Base)
    state: bytes = b""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def is_kept(self, position: int) -> bool:
        return position > self.base.position or (position in self.entries and self.entries[position].permanent)

    def visible(self) -> dict[bytes, Span]:
        if not self.base.position:
            return self.spans
        return {key: span for key, span in self.spans.items() if self.is_kept(span.first)}

    def end(self) -> tuple[int, int]:
        last = self.rows[-1] if self.rows else Row(0, 0, b"")
        return max((last.position, last.time_ns), (self.base.position, self.base.time_ns))

    def land(self, group: Group, now_ns: int) -> Result:
        last, end_ns = self.end()
        time_ns = max(now_ns, end_ns)
        used = {counter: amount for counter, (amount, _) in self.counters.items()}
        names = {condition.key for condition in group.conditions} & self.spans.keys()
        stored = {name: self.spans[name] for name in names if self.is_kept(self.spans[name].first)}
        judge = Judge(stored, used, last, time_ns, lambda position: position + 1 + self.gap())
        result = judge.judge(group)
        if isinstance(result, Appended):
            spans = self.visible()
            filed = [(key, result.positions) for key in group.keys]
            for position, entry in zip(result.positions, group.entries, strict=True):
                self.rows.append(Row(position, time_ns, entry.data))
                self.entries[position] = entry
                filed.append((entry.key, (position,)))
            for key, positions in filed:
                if key:
                    span = spans.get(key, Span(positions[0], 0))
                    spans[key] = Span(span.first, max(span.last, positions[-1]))
            self.spans = spans
            self.counters.update(judge.changed_counters)
        return result


@dataclass(eq=False)
class Unanswered:
    """A group that was answered by ``Unknown``: what became of it, or ``None`` while it may land yet (or is lost)."""

    group: Group
    now_ns: int
    result: Result | None
    is_lost: bool = False


class MemoryJournal:
    """One writer's way to a ``MemoryLog``: a ``Journal``."""

    def __init__(self, log: MemoryLog, faults: Faults | None = None) -> None:
        self.log, self.faults = log, faults or Faults(random.Random(0))
        self.unanswered: list[Unanswered] = []

    async def append(self, groups: Sequence[Group], now_ns: int) -> list[Result]:
        if not 0 <= now_ns < 2**63 or any(type(entry.data) is not bytes for g in groups for entry in g.entries):
            raise JournalError("expected bytes and a time")
        await asyncio.sleep(0)
        results = []
        for group in groups:
            if self.faults.foreign is not None and self.faults.happens(self.faults.between):
                self.log.land(self.faults.foreign(), now_ns)
            results.append(self._send(group, now_ns))
        async with self.log.changed:
            self.log.changed.notify_all()
        return results

    def _send(self, group: Group, now_ns: int) -> Result:
        self._let_some_land()
        sent = next((before for before in self.unanswered if before.group == group), None)
        if sent is not None:
            self.unanswered.remove(sent)
            if sent.result is None and not sent.is_lost and self.faults.happens(0.5):
                sent.result = self.log.land(group, sent.now_ns)  # it arrives before the fence does
        else:
            sent = Unanswered(group, now_ns, None)
        if sent.result is None:
            sent.is_lost = self.faults.happens(self.faults.dropped)
            if sent.is_lost or self.faults.happens(self.faults.late):
                self.unanswered.append(sent)
                return Unknown("dropped or late")
            sent.result = self.log.land(group, now_ns)
        if self.faults.happens(self.faults.unanswered):
            self.unanswered.append(sent)
            return Unknown("unanswered")
        return sent.result

    def _let_some_land(self) -> None:
        for sent in self.unanswered:
            if sent.result is None and not sent.is_lost and self.faults.happens(0.3):
                sent.result = self.log.land(sent.group, sent.now_ns)

    async def tail(self, after: int) -> AsyncIterator[Sequence[Row]]:
        while True:
            if self.log.base.position > after:
                raise JournalError(f"the rows after position {after} were compacted")
            rows = [row for row in self.log.rows if row.position > after]
            if rows:
                rows = rows[: self.faults.rng.randint(1, len(rows))] if self.faults.in_pieces else rows
                after = rows[-1].position
                yield rows
            else:
                async with self.log.changed:
                    await self.log.changed.wait()

    async def read(self, first: int, last: int) -> list[Row]:
        await asyncio.sleep(0)
        rows = (row for row in self.log.rows if first <= row.position <= last and self.log.is_kept(row.position))
        return list(rows)[:READ_AT_ONCE]

    async def span(self, key: bytes) -> Span | None:
        await asyncio.sleep(0)
        return self.log.visible().get(key)

    async def end(self) -> int:
        await asyncio.sleep(0)
        return self.log.end()[0]

    async def base(self) -> Base:
        return self.log.base

    async def base_state(self) -> bytes:
        return self.log.state

    async def open_until(self, last: int) -> int:
        start = self.log.base.position
        return max((e.expire_ns for position, e in self.log.entries.items() if start < position <= last), default=0)

    async def compact(self, base: Base, state: bytes) -> None:
        if not self.log.base.position < base.position <= self.log.end()[0]:
            raise ValueError(f"expected a base after {self.log.base.position}")
        self.log.base, self.log.state = base, state
        kept = {c: used for c, used in self.log.counters.items() if not 0 < used[1] <= base.time_ns}
        self.log.counters = kept

    async def sweep(self, stopped: Callable[[], bool]) -> None:
        if not stopped():
            self.log.spans = self.log.visible()
            self.log.rows = [row for row in self.log.rows if self.log.is_kept(row.position)]
            self.log.entries = {row.position: self.log.entries[row.position] for row in self.log.rows}

    async def is_old(self) -> bool:
        return False

    async def migrate(
        self, lifetime: Callable[[bytes], tuple[bool, int]], counters: Mapping[bytes, tuple[int, int]]
    ) -> None:
        raise AssertionError("nothing to migrate")

    async def close(self) -> None:
        await asyncio.sleep(0)


async def rows_of(journal: MemoryJournal) -> list[Row]:
    """All rows that can be read."""
    return [row async for rows in read_all(journal, 1, await journal.end()) for row in rows]
