"""The records of an exported journal, checked line by line.

>>> line = b'{"position": "1", "event": {"time_ns": "5", "model_deleted": {"model": "small"}}}'
>>> records = read_records(Path("j.jsonl"), [line], terms={})
>>> [(record.line, record.record.time_ns, record.record.event) for record in records]
[(1, 5, ModelDeleted(model='small'))]
>>> list(read_records(Path("j.jsonl"), [b"{}"], terms={}))
Traceback (most recent call last):
    ...
pointsman.server.tools.exported_records.ImportFileError: j.jsonl, line 1: position: expected 1, got 0
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from pointsman.bandit import event as e
from pointsman.bandit.terms import TermsHistory
from pointsman.server.journal.interface import (
    JournalError,
    Row,
)
from pointsman.server.state.rows import decode
from pointsman.v1 import journal_pb2

FORMER_NAMES = {
    "clocks": "log_decays",
    "faded": "log_decay",
    "latency_mark": "raw_p95",
    "ledgers": "reported_outcomes",
    "tallies": "aggregates",
    "worst_cost": "max_cost",
}
"""What fields of decisions and outcomes were called in exports of version 0.1.0, and are now."""


class ImportFileError(Exception):
    """A line of the file cannot be imported. The message names the file and the line; nothing was imported."""


@dataclass(frozen=True, slots=True)
class ExportedRecord:
    """A record of the file: its line number, from 1, its event and the bytes to store."""

    line: int
    record: e.Record
    data: bytes


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


def read_records(file: Path, lines: Iterable[bytes], terms: TermsHistory) -> Iterator[ExportedRecord]:
    """The records in ``lines``: line n must have position n, and none may be earlier than the one before.

    ``terms`` are those of the lines before the next one, for exports of versions that did not say them all. ``file`` is what
    errors call the file. Raises ``ImportFileError``.
    """
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
            record = decode(Row(number, time_ns, data), terms)
        except (JournalError, ValueError) as error:
            raise ImportFileError(f"{where}: event: {error}") from error
        yield ExportedRecord(number, record, data)
