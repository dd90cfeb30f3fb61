"""Events as journal rows, and back.

>>> entry = entry_of(e.ModelDeleted("gpt"))
>>> entry.key, entry.permanent
(b'models/gpt', True)
>>> decode(Row(1, 5, entry.data))
Record(position=1, time_ns=5, event=ModelDeleted(model='gpt'))
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from pointsman.bandit import event as e
from pointsman.server.codec.event import read_event, write_event
from pointsman.server.journal.interface import Entry, JournalFormatError, Row
from pointsman.server.journal.keys import key_of, lifetime_of
from pointsman.v1 import journal_pb2


def entry_of(event: e.Event) -> Entry:
    """The journal entry of ``event``."""
    return Entry(write_event(event).SerializeToString(), key_of(event), *lifetime_of(event))


def decode(row: Row) -> e.Record:
    """The record of a stored row. Raises ``JournalFormatError`` if this version cannot read it."""
    return e.Record(row.position, row.time_ns, _event(row.data, row.position))


def lifetime_of_bytes(data: bytes) -> tuple[bool, int]:
    """``lifetime_of`` the event in ``data``, whatever else is in it."""
    message = journal_pb2.JournalEvent.FromString(data)
    match message.WhichOneof("kind"):
        case "decision_made":
            return False, message.decision_made.expire_time_ns
        case "outcome_applied" | None:
            return False, 0
        case _:
            return True, 0


def _event(data: bytes, position: int) -> e.Event:
    try:
        return read_event(journal_pb2.JournalEvent.FromString(data))
    except (ValueError, DecodeError) as error:
        raise JournalFormatError(f"the event at position {position} cannot be read: {error}") from error
