"""The journal engine's interface: one append-only, totally ordered log, looked up by position and by key.

Engines store bytes and know nothing of what they mean. Every engine passes `tests/server/test_journal.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


class JournalError(Exception):
    """The engine could not do what was asked; nothing of it was written. The message is for operators."""


class JournalLockedError(JournalError):
    """Another process already writes this journal."""


class JournalFormatError(JournalError):
    """The stored journal was written by a version that this one cannot read, or is damaged."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event to append.

    ``key`` names what the event is about (a decision, a model, a bucket; empty for nothing). If ``expect`` is given the
    last event with that key must be at that position (0: there must be none), else nothing is written: optimistic
    concurrency.
    """

    data: bytes
    key: bytes = b""
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Entries that are appended all or none, next to each other.

    If ``once`` is not empty and a group with the same ``once`` was appended before, nothing is written: idempotency. A group
    without entries asks whether that is so, and writes nothing.

    ``seen`` is for a group that rests on all that was written: nothing is written if another writer (another opening of the same
    journal, not this one) has appended a row after position ``seen``.
    """

    entries: tuple[Entry, ...]
    once: bytes = b""
    seen: int | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """The group is durable: its entries are at ``first`` … ``first + count - 1``, stamped ``time_ns``."""

    first: int
    count: int
    time_ns: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Nothing was written: the same ``once`` was appended before, at ``first`` … ``first + count - 1``."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing was written: the last event of ``key`` is at ``last`` (0: there is none), not where it was expected."""

    key: bytes
    last: int


@dataclass(frozen=True, slots=True)
class Behind:
    """Nothing was written: another writer's row at ``last`` is after the position that the group's writer had seen."""

    last: int


Result = Appended | Duplicate | Conflict | Behind


@dataclass(frozen=True, slots=True)
class Row:
    """A stored entry."""

    position: int
    time_ns: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Span:
    """The first and the last position at which a key occurs."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Base:
    """What a compacted journal starts from: the state at ``position``, whose event happened at ``time_ns``."""

    position: int = 0
    time_ns: int = 0


class Journal(Protocol):
    """What an engine does. Methods block, and may be called from any thread."""

    def append(self, groups: Sequence[Group], now_ns: int) -> list[Result]:
        """Append ``groups`` in order and make them durable before returning; one result for each group.

        Each group is judged after those before it. Entries are stamped ``now_ns``, or the last entry's time if that is
        later: time never goes back. Raises ``JournalError`` if it cannot be made durable; then nothing is appended.
        """
        ...

    def read(self, first: int, last: int | None = None) -> Iterator[Row]:
        """The rows from position ``first`` to ``last`` (inclusive; the end when ``None``), in order."""
        ...

    def span(self, key: bytes) -> Span | None:
        """Where ``key`` occurs, or ``None`` if it never did."""
        ...

    def last_position(self) -> int:
        """The position of the last row, also if it was compacted; 0 for an empty journal."""
        ...

    def base(self) -> Base:
        """What the journal starts from; position 0 if it is whole."""
        ...

    def base_state(self) -> bytes:
        """The state that was given for ``base``; empty if the journal is whole."""
        ...

    def compact(self, base: Base, state: bytes, kept: Sequence[int]) -> None:
        """From now on the journal is ``state``, at ``base``, and the rows after it; all at once and durably, or not at all.

        Of the rows up to ``base.position`` only those at the positions ``kept``, or kept before, stay readable; a key whose first
        row is gone, and a ``once`` from then, were never there. ``sweep`` frees their space.
        Raises ``JournalError`` if it cannot be done.
        """
        ...

    def sweep(self, stopped: Callable[[], bool]) -> None:
        """Free the space of what was compacted, in small steps, until done or ``stopped``; to be called again after a crash.

        Appends go on meanwhile. Raises ``JournalError``.
        """
        ...

    def close(self) -> None:
        """Release everything. The journal must not be used afterwards."""
        ...
