"""Compaction of a journal that nobody serves: folds it up to a time, and lets it start from there."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

from pointsman.server.journal.interface import Base, JournalError
from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.state import snapshot
from pointsman.server.state.replica import base_state, fold_rows
from pointsman.server.state.retention import look


@dataclass(frozen=True, slots=True)
class Compacted:
    """Up to which position the rows are gone (as before, if none were old enough), and the size of the file in bytes."""

    position: int
    size: int


def compact(journal: SqliteJournal, before_ns: int, now_ns: int) -> Compacted:
    """Replace all rows up to the time ``before_ns`` by the state they led to, and give the space back to the file system.

    Raises ``JournalError`` if one of them is a decision that can still get outcomes at ``now_ns``.
    """
    state = base_state(journal)
    started_at = state.position
    fold_rows(takewhile(lambda row: row.time_ns <= before_ns, journal.read(started_at + 1)), state)
    if state.position > started_at:
        looked = look(journal, state.position, pause=0.0)
        assert looked is not None
        if looked.expire_ns > now_ns:
            hours = -(-(looked.expire_ns - now_ns) // (3600 * 10**9))
            raise JournalError(
                f"decisions up to then can still get outcomes, the last for {hours} more hours; nothing was compacted: "
                "keep more days"
            )
        journal.compact(Base(state.position, state.time_ns), snapshot.whole(snapshot.capture(state)), looked.kept)
    journal.sweep(lambda: False)
    return Compacted(state.position, journal.shrink())
