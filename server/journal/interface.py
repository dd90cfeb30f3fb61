"""The journal engine's interface: one append-only, totally ordered log that is written to and followed.

A journal is two things: ``append``, which answers where groups of entries landed, and ``tail``, the rows in order, whoever wrote
them. Beside them it looks positions and keys up, and is compacted. Engines store bytes and know nothing of what they mean. Every
engine passes `tests/server/test_journal.py`.

>>> put = Group((Entry(b"created", key=b"models/a"),), conditions=(Condition(b"models/a", 0),))
>>> put.once  # this condition does not hold any more once the group is appended
Condition(key=b'models/a', position=0)
>>> Group(())
Traceback (most recent call last):
ValueError: expected at least one entry in a group, got none
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

READ_AT_ONCE = 1000
"""Most rows that one ``Journal.read`` returns, and most rows of other writers in one batch of a ``Journal.tail``."""


class JournalError(Exception):
    """The engine could not do what was asked; nothing of it was written. The message is for operators."""


class JournalLockedError(JournalError):
    """Another process already writes this journal."""


class JournalFormatError(JournalError):
    """The stored journal was written by a version that this one cannot read, or is damaged."""


class Entry(NamedTuple):
    """One event to append: its bytes, and the ``key`` it is filed under (what it is about; empty for none).

    A ``permanent`` entry stays readable when the journal is compacted. The journal is to be kept whole from this entry on until
    ``expire_ns``, in nanoseconds since 1970 (0: it need not be).
    """

    data: bytes
    key: bytes = b""
    permanent: bool = False
    expire_ns: int = 0


class Condition(NamedTuple):
    """The last row filed under ``key`` is at ``position``; 0: no row is."""

    key: bytes
    position: int


@dataclass(frozen=True, slots=True)
class Guard:
    """A bounded counter of the journal: what is used of ``counter`` and ``amount`` together are at most ``limit``.

    Integers, whose unit is the caller's affair; counters start from 0 and saturate at ±``COUNTER_MAX``. ``amount`` is added if
    the group is appended. Without a limit it is added whatever is used: an adjustment. ``end_ns`` is when the counter's period
    ends (0: never): a limited amount is refused to a group that would be stamped then or later, and once the journal starts
    from a later time than that, the counter may be forgotten.
    """

    counter: bytes
    amount: int
    limit: int | None = None
    end_ns: int = 0


COUNTER_MAX = 2**62
"""Largest magnitude of a counter, an amount and a limit."""


@dataclass(frozen=True, slots=True)
class Group:
    """Entries that are appended all or none, in this order, and on what conditions.

    All rows of the group are filed under ``keys`` besides their own. ``conditions`` are judged in order, then ``guards``; the
    first that does not hold is the answer. Idempotency is a condition: a group that files a key and demands that nothing is
    filed under it yet is appended once. Raises ``ValueError`` without entries.
    """

    entries: tuple[Entry, ...]
    keys: tuple[bytes, ...] = ()
    conditions: tuple[Condition, ...] = ()
    guards: tuple[Guard, ...] = ()

    def __post_init__(self) -> None:
        if not self.entries:
            raise ValueError("expected at least one entry in a group, got none")

    @property
    def once(self) -> Condition | None:
        """The first condition that the group itself makes untrue by being appended, so that it cannot be appended twice."""
        for condition in self.conditions:
            if condition.key in self.keys:
                return condition
            for entry in self.entries:  # asked of every group: no generator is made
                if entry.key == condition.key:
                    return condition
        return None


class Span(NamedTuple):
    """The first and the last position at which a key is filed."""

    first: int
    last: int


class Appended(NamedTuple):
    """The group is durable. Its entries are at ``positions``, which increase but may have others' rows or gaps between them."""

    positions: tuple[int, ...]
    time_ns: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing was written: a condition on ``key`` does not hold. ``span`` is where the key is filed, ``None`` for nowhere."""

    key: bytes
    span: Span | None


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was written: a guard does not hold. ``used`` is what was used of ``counter`` after the row at ``position``."""

    counter: bytes
    used: int
    position: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """It cannot be said whether the group was written, or will be: the connection was lost, or time was over.

    Append an equal group by the same journal to find out: the engine knows that it is the same one again. What it answers holds
    for both: that the first landed, and where; or that it will not land any more, and what became of the second. (Looking for
    the group's rows is not enough: one that is not there yet may land later, and another writer may have written an equal one.)
    """

    reason: str


Result = Appended | Conflict | Refused | Unknown


class Row(NamedTuple):
    """A stored entry: its position from 1, when it was appended (nanoseconds since 1970), and its bytes."""

    position: int
    time_ns: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Base:
    """The base of a compacted journal: the state at ``position``, whose event happened at ``time_ns``."""

    position: int = 0
    time_ns: int = 0


class Journal(Protocol):
    """What an engine does. Use it on one event loop, which no method blocks."""

    async def append(self, groups: Sequence[Group], now_ns: int) -> list[Result]:
        """Append ``groups`` in order and make them durable before returning; one result for each group.

        Each group is judged after those before it, by what is in the journal alone: a condition or guard has the same answer
        whichever writer asks, and whatever has been swept. Entries are stamped ``now_ns``, or the time of the row before if
        that is later: time never goes back. Several appends may be under way; they are taken in the order of the calls.
        Raises ``JournalError`` if nothing was written and nothing will be.
        """
        ...

    def tail(self, after: int) -> AsyncIterator[Sequence[Row]]:
        """The rows after position ``after`` in order, own and others', in batches; waits for more for ever.

        The rows of one own append, and others', are handed over soon after they are durable, never out of order, none twice.
        Positions may have gaps. Raises ``JournalError`` if the rows cannot be had any more.
        """
        ...

    async def read(self, first: int, last: int) -> list[Row]:
        """The first ``READ_AT_ONCE`` rows from position ``first`` to ``last`` (inclusive), in order; fewer if there are fewer."""
        ...

    async def span(self, key: bytes) -> Span | None:
        """Where ``key`` is filed, or ``None`` for nowhere."""
        ...

    async def end(self) -> int:
        """The position of the last row, also if it was compacted; 0 for an empty journal."""
        ...

    async def base(self) -> Base:
        """What the journal starts from; position 0 if it is whole."""
        ...

    async def base_state(self) -> bytes:
        """The state that was given for ``base``; empty if the journal is whole."""
        ...

    async def open_until(self, last: int) -> int:
        """The latest ``Entry.expire_ns`` of the rows after the base up to ``last``; 0 if there is none."""
        ...

    async def compact(self, base: Base, state: bytes) -> None:
        """From now on the journal is ``state``, at ``base``, and the rows after it; all at once and durably, or not at all.

        Of the rows up to ``base.position`` only the permanent ones stay readable; a key whose first row is gone was never filed.
        Counters stay, but for those whose period ended by ``base.time_ns``. ``sweep`` frees the space.
        Raises ``ValueError`` for a base that is not later than the present one or after the end, ``JournalError`` if it cannot
        be done.
        """
        ...

    async def sweep(self, stopped: Callable[[], bool]) -> None:
        """Free the space of what was compacted, in small steps, until done or ``stopped``; to be called again after a crash.

        Appends go on meanwhile. Raises ``JournalError``.
        """
        ...

    async def is_old(self) -> bool:
        """Whether what is stored was written by an older version: it can be read, but must be migrated to be appended to."""
        ...

    async def migrate(
        self, lifetime: Callable[[bytes], tuple[bool, int]], counters: Mapping[bytes, tuple[int, int]]
    ) -> None:
        """Bring what an older version stored into the present form, all at once and durably, or not at all.

        ``lifetime`` says of an entry's bytes whether it is permanent and when it expires; ``counters`` are what is used of each
        and when it ends. Raises ``JournalError``.
        """
        ...

    async def close(self) -> None:
        """Finish the appends under way and release everything. The journal must not be used afterwards."""
        ...


async def read_all(journal: Journal, first: int, last: int) -> AsyncIterator[list[Row]]:
    """All rows of ``journal`` from position ``first`` to ``last`` (inclusive), in chunks."""
    while first <= last and (chunk := await journal.read(first, last)):
        yield chunk
        first = chunk[-1].position + 1


async def read_whole(journal: Journal, first: int, last: int) -> AsyncIterator[list[Row]]:
    """``read_all`` of rows none of which may be missing. Raises ``JournalError`` if some were compacted before they were read."""
    while first <= last:
        rows = await journal.read(first, last)
        if (await journal.base()).position >= first:
            raise JournalError(f"the rows from position {first} on were compacted before they were read; begin anew")
        if not rows:
            return
        yield rows
        first = rows[-1].position + 1
