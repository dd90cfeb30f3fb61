"""A journal out of the file that an export wrote: the inverse of ``server.tools.export.write_journal``.

Each record is checked, folded, and filed under the same keys as when it was first written, so that the new directory serves the
same state, bit for bit, and knows every request id and idempotency key. The file is read once, a record at a time.

>>> with tempfile.TemporaryDirectory() as directory:
...     file = Path(directory) / "journal.jsonl"
...     record = '{"position": "1", "event": {"time_ns": "5", "model_put": {"model": {"name": "models/small"}}}}'
...     _ = file.write_text(record)
...     imported = import_journal(file, Path(directory) / "data")
>>> imported.records
1
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

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
)
from pointsman.server.journal.keys import idempotency_key_of, key_of, lifetime_of
from pointsman.server.journal.sqlite_store import FILE, SqliteStore
from pointsman.server.names import decision_name
from pointsman.server.state.fold import log_bucket_reset
from pointsman.server.state.reservations import counters_of
from pointsman.server.tools.exported_records import ExportedRecord, ImportFileError, read_records

MAX_EVENTS = 1000
"""Most events in one append, but for the last batch of decisions: bounds the memory."""
_TEMPORARY = ".import-"
_IGNORED = frozenset({"lock", "lost+found"})


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of an import: the position of the last record, and the fingerprint of the folded state."""

    records: int
    state: str


def import_journal(file: Path, directory: Path, progress: Callable[[int], None] = lambda done: None) -> Imported:
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
                for batch in _batches(_folded(read_records(file, _counted(lines, progress), state.terms), file, state)):
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
    """Raise ``JournalError`` unless ``directory`` is new or holds only the remains of an interrupted import."""
    if not directory.exists():
        return
    try:
        names = sorted(path.name for path in directory.iterdir())
    except OSError as error:
        raise JournalError(f"cannot use the data directory {directory}: {error}") from error
    others = [name for name in names if name not in _IGNORED and not name.startswith(_TEMPORARY)]
    if others:
        raise JournalError(f"expected a new or empty directory, but {directory} has {', '.join(others[:5])}")


def _sweep(directory: Path) -> None:
    """Remove the remains of killed imports. One that still runs holds the lock of its directory and is left alone."""
    for old in directory.glob(_TEMPORARY + "*"):
        try:
            SqliteStore(old).close()
        except JournalLockedError:
            continue
        except JournalError:  # killed before its journal was one
            pass
        shutil.rmtree(old)


def _counted(lines: Iterable[bytes], progress: Callable[[int], None]) -> Iterator[bytes]:
    """The lines; ``progress`` is told how many bytes have been read."""
    done = 0
    for line in lines:
        yield line
        done += len(line)
        progress(done)


def _folded(records: Iterable[ExportedRecord], file: Path, state: State) -> Iterator[ExportedRecord]:
    """The records, each after it was applied to ``state``. Raises ``ImportFileError`` for one that cannot be."""
    for record in records:
        where = f"{file}, line {record.line}: event"
        event = record.record.event
        if isinstance(event, e.DecisionMade | e.OutcomeApplied):
            bucket = state.buckets.get(event.bucket)
            if bucket and bucket.generation == event.generation and event.x_d.size != bucket.encoder.dim:
                raise ImportFileError(f"{where}: features: expected {bucket.encoder.dim} numbers, got {event.x_d.size}")
        try:
            log_bucket_reset(record.record, apply(state, record.record))
        except Exception as error:  # as in the replica: whatever the fold cannot take, a server could not either
            raise ImportFileError(f"{where}: cannot be folded: {error!r}") from error
        yield record


def _batches(records: Iterable[ExportedRecord]) -> Iterator[list[list[ExportedRecord]]]:
    """What is appended at once: groups of one time. A group is one event, or the decisions of one request."""
    batch: list[list[ExportedRecord]] = []
    size = 0
    for record in records:
        last = batch[-1][-1] if batch else None
        if last is not None and _same_request(last.record, record.record):
            batch[-1].append(record)
        else:
            if last is not None and (last.record.time_ns != record.record.time_ns or size >= MAX_EVENTS):
                yield batch
                batch, size = [], 0
            batch.append([record])
        size += 1
    if batch:
        yield batch


def _same_request(earlier: e.Record, later: e.Record) -> bool:
    """Whether two records are decisions of one request, which are one group."""
    key = idempotency_key_of(later.event)
    return (
        isinstance(later.event, e.DecisionMade)
        and bool(key)
        and earlier.time_ns == later.time_ns
        and idempotency_key_of(earlier.event) == key
    )


def _append(store: SqliteStore, file: Path, batch: list[list[ExportedRecord]]) -> None:
    """Append the groups of ``batch``, all of one time. Raises ``ImportFileError`` for what was there before."""
    _check_decisions(store, file, batch)
    results = store.append([_group(group) for group in batch], batch[0][0].record.time_ns)
    for group, result in zip(batch, results, strict=True):
        first = group[0]
        where = f"{file}, line {first.line}: event"
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


def _check_decisions(store: SqliteStore, file: Path, batch: list[list[ExportedRecord]]) -> None:
    """Raise ``ImportFileError`` for an outcome whose decision is neither in ``store`` nor before it in ``batch``."""
    decided: set[bytes] = set()
    for record in (record for group in batch for record in group):
        event = record.record.event
        if isinstance(event, e.DecisionMade):
            decided.add(event.id)
        elif isinstance(event, e.OutcomeApplied):
            is_known = event.decision_id in decided or store.span(event.decision_id) is not None
            if not is_known:
                name = decision_name(event.decision_id)
                raise ImportFileError(f"{file}, line {record.line}: event: {name} was not made before its outcome")


def _group(records: list[ExportedRecord]) -> Group:
    events = [record.record.event for record in records]
    entries = tuple(
        Entry(record.data, key_of(event), *lifetime_of(event)) for record, event in zip(records, events, strict=True)
    )
    key = idempotency_key_of(events[0])
    new_keys = ([key] if key else []) + [event.id for event in events if isinstance(event, e.DecisionMade)]
    return Group(entries, (key,) if key else (), tuple(Condition(new_key, 0) for new_key in new_keys))


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
