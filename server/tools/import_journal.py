"""A journal out of the file that an export wrote: the inverse of ``server.tools.export.write_journal``.

Each record is checked, folded, and filed under the same keys as when it was first written, so that the new directory serves the
same state, bit for bit, and knows every request id and idempotency key. The file is read once, a record at a time.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from pointsman.bandit import event as e
from pointsman.bandit.state import State, apply, fingerprint
from pointsman.server.journal.interface import (
    Appended,
    Condition,
    Conflict,
    Entry,
    Group,
    JournalError,
    JournalLockedError,
    Row,
)
from pointsman.server.journal.keys import idempotency_key_of, key_of, lifetime_of
from pointsman.server.journal.sqlite_store import FILE, SqliteStore
from pointsman.server.names import decision_name
from pointsman.server.state.fold import log_bucket_reset
from pointsman.server.state.reservations import counters_of
from pointsman.server.state.rows import decode
from pointsman.v1 import journal_pb2

MAX_EVENTS = 1000
"""Most events in one append, give or take one batch of decisions: bounds the memory."""
FORMER_NAMES = {
    "clocks": "log_decays",
    "faded": "log_decay",
    "latency_mark": "raw_p95",
    "ledgers": "reported_outcomes",
    "tallies": "aggregates",
    "worst_cost": "max_cost",
}
"""What fields of decisions and outcomes were called in exports of version 0.1.0, and are now."""
_TEMPORARY = ".import-"
_MAY_BE_THERE = frozenset({"lock", "lost+found"})


class ImportFileError(Exception):
    """A line of the file cannot be imported. The message names the file and the line; nothing was imported."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What was imported: the position of the last record, and the fingerprint of the fold of all."""

    records: int
    state: str


@dataclass(frozen=True, slots=True)
class _Line:
    """A record of the file: its line number, its event and the bytes to store."""

    number: int
    record: e.Record
    data: bytes


def import_journal(file: Path, directory: Path, progress: Callable[[int], None] = lambda read: None) -> Imported:
    """Fill ``directory``, new or empty, with the journal in ``file``. ``progress`` is told how many bytes were read so far.

    The journal is made in a temporary directory inside ``directory`` and moved to its place when it is whole and durable: an
    import that ends early leaves no journal. Raises ``ImportFileError`` for a line that is not a record, not the next one, or
    does not fold; ``JournalError`` if the directory is not empty or cannot be written; ``OSError`` if the file cannot be read.
    """
    with file.open("rb") as lines:
        _check_empty(directory)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            _sweep(directory)
            temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=directory))
        except OSError as error:
            raise JournalError(f"cannot use the data directory {directory}: {error}") from error
        try:
            state = State()
            store = SqliteStore(temporary)
            try:
                for batch in _batches(_folded(_parsed(file, _counted(lines, progress)), file, state)):
                    _append(store, file, batch)
                store.set_counters(counters_of(state))
            finally:
                store.close()
            if not state.position:
                raise ImportFileError(f"{file} has no records")
            _publish(temporary / FILE, directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return Imported(state.position, fingerprint(state))


def _check_empty(directory: Path) -> None:
    """Raise ``JournalError`` unless ``directory`` is new or holds nothing but what an earlier, interrupted import left."""
    if not directory.exists():
        return
    try:
        names = sorted(path.name for path in directory.iterdir())
    except OSError as error:
        raise JournalError(f"cannot use the data directory {directory}: {error}") from error
    found = [name for name in names if name not in _MAY_BE_THERE and not name.startswith(_TEMPORARY)]
    if found:
        raise JournalError(f"expected a new or empty directory, but {directory} has {', '.join(found[:5])}")


def _sweep(directory: Path) -> None:
    """Remove what imports left that were killed. One that still runs holds the lock of its directory and is left alone."""
    for old in directory.glob(_TEMPORARY + "*"):
        try:
            SqliteStore(old).close()
        except JournalLockedError:
            continue
        except JournalError:  # killed before its journal was one
            pass
        shutil.rmtree(old)


def _counted(lines: Iterable[bytes], progress: Callable[[int], None]) -> Iterator[bytes]:
    read = 0
    for line in lines:
        yield line
        read += len(line)
        progress(read)


def _parse_record(line: str) -> journal_pb2.JournalRecord:
    """A record from its JSON, also from an export whose fields had their ``FORMER_NAMES``. Raises as ``json_format.Parse``."""
    try:
        return json_format.Parse(line, journal_pb2.JournalRecord())
    except json_format.ParseError as error:
        try:
            document = json.loads(line)
            renamed = _rename_fields(document["event"])
        except (ValueError, KeyError, TypeError, AttributeError):
            renamed = False
        if not renamed:
            raise error
        return json_format.ParseDict(document, journal_pb2.JournalRecord())


def _rename_fields(event: dict[str, Any]) -> bool:
    """Give the fields of a decision or an outcome (JSON) their present names, in place; whether any had a former one."""
    decision, outcome = event.get("decision_made", {}), event.get("outcome_applied", {})
    messages = [decision, outcome, *outcome.get("changes", ())]
    for reported in outcome.get("ledgers", ()):
        messages += [reported, *reported.get("tallies", ())]
    renamed = False
    for message in messages:
        for former in FORMER_NAMES.keys() & message.keys():
            message[FORMER_NAMES[former]] = message.pop(former)
            renamed = True
    return renamed


def _parsed(file: Path, lines: Iterable[bytes]) -> Iterator[_Line]:
    """The records of the lines: line n has position n, and none is earlier than the one before."""
    time_ns = 0
    for number, line in enumerate(lines, 1):
        where = f"{file}, line {number}"
        try:
            message = _parse_record(line.decode())
        except (json_format.ParseError, ValueError, RecursionError) as error:  # ValueError: not UTF-8
            raise ImportFileError(f"{where}: expected a JournalRecord as JSON: {error}") from error
        if message.position != number:
            hint = "; a line is missing, or the journal was compacted" if message.position > number else ""
            raise ImportFileError(f"{where}: position: expected {number}, got {message.position}{hint}")
        if message.event.time_ns < time_ns:
            expected = f"expected at least {time_ns}, that of the record before"
            raise ImportFileError(f"{where}: event.time_ns: {expected}, got {message.event.time_ns}")
        time_ns = message.event.time_ns
        message.event.ClearField("time_ns")  # kept beside the event
        data = message.event.SerializeToString()
        try:
            record = decode(Row(number, time_ns, data))
        except (JournalError, ValueError) as error:
            raise ImportFileError(f"{where}: event: {error}") from error
        yield _Line(number, record, data)


def _folded(lines: Iterable[_Line], file: Path, state: State) -> Iterator[_Line]:
    """The lines, each after it was applied to ``state``."""
    for line in lines:
        event = line.record.event
        if isinstance(event, e.DecisionMade | e.OutcomeApplied):
            bucket = state.buckets.get(event.bucket)
            if bucket and bucket.generation == event.generation and event.x_d.size != bucket.encoder.dim:
                raise ImportFileError(
                    f"{file}, line {line.number}: event: features: expected {bucket.encoder.dim} numbers, "
                    f"got {event.x_d.size}"
                )
        try:
            log_bucket_reset(line.record, apply(state, line.record))
        except Exception as error:  # as in the replica: whatever the fold cannot take, a server could not either
            raise ImportFileError(f"{file}, line {line.number}: event: cannot be folded: {error!r}") from error
        yield line


def _batches(lines: Iterable[_Line]) -> Iterator[list[list[_Line]]]:
    """What is appended at once: groups of one time. A group is one event, or the decisions of one request."""
    batch: list[list[_Line]] = []
    size = 0
    for line in lines:
        last = batch[-1][-1].record if batch else None
        event = line.record.event
        same_time = last is not None and last.time_ns == line.record.time_ns
        joined = isinstance(event, e.DecisionMade) and bool(idempotency_key_of(event)) and last is not None
        if same_time and joined and last is not None and idempotency_key_of(last.event) == idempotency_key_of(event):
            batch[-1].append(line)
        else:
            if batch and (not same_time or size >= MAX_EVENTS):
                yield batch
                batch, size = [], 0
            batch.append([line])
        size += 1
    if batch:
        yield batch


def _append(store: SqliteStore, file: Path, batch: list[list[_Line]]) -> None:
    """Append the groups of ``batch``, all of one time."""
    made: set[bytes] = set()
    for line in (line for group in batch for line in group):
        event = line.record.event
        if isinstance(event, e.DecisionMade):
            made.add(event.id)
        elif isinstance(event, e.OutcomeApplied):
            known = event.decision_id in made or store.span(event.decision_id) is not None
            if not known:
                name = decision_name(event.decision_id)
                raise ImportFileError(f"{file}, line {line.number}: event: {name} was not made before its outcome")
    results = store.append([_group(group) for group in batch], batch[0][0].record.time_ns)
    for group, result in zip(batch, results, strict=True):
        first = group[0]
        where = f"{file}, line {first.number}: event"
        match result:
            case Appended():
                if (result.positions[0], result.time_ns) != (first.record.position, first.record.time_ns):
                    raise JournalError(f"{where}: was filed at position {result.positions[0]}, time {result.time_ns}")
            case Conflict(span=span) if span is not None and result.key == idempotency_key_of(first.record.event):
                raise ImportFileError(f"{where}: its request id or idempotency key was used at position {span.first}")
            case Conflict(span=span) if span is not None:
                raise ImportFileError(f"{where}: its decision was made before, and last heard of at {span.last}")
            case _:
                raise JournalError(f"{where}: {result}")


def _group(lines: list[_Line]) -> Group:
    events = [line.record.event for line in lines]
    entries = tuple(
        Entry(line.data, key_of(event), *lifetime_of(event)) for line, event in zip(lines, events, strict=True)
    )
    key = idempotency_key_of(events[0])
    new = ([key] if key else []) + [event.id for event in events if isinstance(event, e.DecisionMade)]
    return Group(entries, (key,) if key else (), tuple(Condition(name, 0) for name in new))


def _publish(journal: Path, directory: Path) -> None:
    """Put a whole and closed journal in its place, unless one has come there meanwhile."""
    try:
        os.link(journal, directory / FILE)  # unlike a renaming, never replaces what is there
        journal.unlink()
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except FileExistsError as error:
        raise JournalError(f"{directory} got another journal while the import ran; nothing was imported") from error
    except OSError as error:
        raise JournalError(f"cannot put the journal in {directory}: {error}") from error
