"""Retention: what is old enough is replaced by the state it led to, so that the disk that a journal takes is bounded.

A snapshot is put aside as the candidate. Once it is as old as the retention, and no decision before it is still open, it becomes
the journal's base and the newest snapshot the next candidate: the journal holds between one and two retentions of traffic.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pointsman.server.journal.interface import Base, Journal
from pointsman.server.state import snapshot
from pointsman.v1 import journal_pb2

log = logging.getLogger("pointsman.retention")

DAY_NS = 86_400 * 10**9
CANDIDATE = "candidate"
"""Ending of the candidate's file among the snapshots."""
_LOOKED_AT_ONCE = 50
_LOOK_PAUSE = 0.002
"""Seconds between looks at so many rows, so that decisions hardly wait for the interpreter."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What is to be known of rows before they go: those of the catalogue, which stay, and when the last decision expires."""

    kept: tuple[int, ...]
    expire_ns: int


def retain(
    journal: Journal, snapshots: Path, retention_ns: int, now_ns: int, stopped: Callable[[], bool] = lambda: False
) -> int:
    """Compact ``journal`` if its candidate has come of age, and finish a compaction that was cut off.

    Returns the position of the base, 0 if there is none. Blocks, and is slow on purpose: meant for another thread than the one
    that decides. ``stopped`` ends it soon; the next call takes it up again. Raises ``JournalError`` and ``OSError``.
    """
    candidate = next(iter(sorted(snapshots.glob(f"*.{CANDIDATE}"))), None)
    if candidate is not None:
        try:
            base = snapshot.position_and_time(data := candidate.read_bytes())
            old_enough = _is_of(journal, base) and base.time_ns <= now_ns - retention_ns
        except snapshot.SnapshotError as error:
            log.warning("the candidate %s is dropped: %s", candidate.name, error)
            candidate.unlink()
            candidate = None
        else:
            if old_enough and base.position > journal.base().position:
                looked = look(journal, base.position, stopped)
                if looked is None or looked.expire_ns > now_ns:
                    old_enough = False
                else:
                    journal.compact(base, data, looked.kept)
                    log.info("the journal starts from position %d now; older rows are freed", base.position)
            if old_enough:
                candidate.unlink()
                candidate = None
    newest = next(iter(snapshot.saved(snapshots)), None)
    if candidate is None and newest is not None:
        os.link(newest, newest.with_suffix(f".{CANDIDATE}"))
    journal.sweep(stopped)
    return journal.base().position


def _is_of(journal: Journal, base: Base) -> bool:
    """Whether a snapshot is of this journal."""
    if base == journal.base():
        return True
    row = next(journal.read(base.position, base.position), None)
    if row is None or row.time_ns != base.time_ns:
        raise snapshot.SnapshotError("it is of another journal")
    return True


def look(
    journal: Journal, last: int, stopped: Callable[[], bool] = lambda: False, pause: float = _LOOK_PAUSE
) -> Looked | None:
    """Look at the rows after the base up to ``last``; None if ``stopped`` meanwhile."""
    kept, expire_ns = [], 0
    for number, row in enumerate(journal.read(journal.base().position + 1, last), 1):
        event = journal_pb2.JournalEvent.FromString(row.data)
        match event.WhichOneof("kind"):
            case "decision_made":
                expire_ns = max(expire_ns, event.decision_made.expire_time_ns)
            case "outcome_applied":
                pass
            case _:
                kept.append(row.position)
        if number % _LOOKED_AT_ONCE == 0:
            if stopped():
                return None
            time.sleep(pause)
    return Looked(tuple(kept), expire_ns)
