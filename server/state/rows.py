"""Events as journal rows, and back.

>>> entry = entry_of(e.ModelDeleted("gpt"))
>>> entry.key, entry.permanent
(b'models/gpt', True)
>>> decode(Row(1, 5, entry.data), terms={})
Record(position=1, time_ns=5, event=ModelDeleted(model='gpt'))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.message import DecodeError

from pointsman.bandit import event as e
from pointsman.bandit.state import State, apply
from pointsman.bandit.terms import TermsHistory
from pointsman.server.codec.event import read_event, write_event
from pointsman.server.journal.interface import Entry, JournalFormatError, Row
from pointsman.server.journal.keys import key_of, lifetime_of
from pointsman.v1 import journal_pb2


def entry_of(event: e.Event, terms: TermsHistory | None = None) -> Entry:
    """The journal entry of ``event``; with ``terms``, those of the state, a decision leaves out what they say."""
    return Entry(write_event(event, terms).SerializeToString(), key_of(event), *lifetime_of(event))


def decode(row: Row, terms: TermsHistory) -> e.Record:
    """The record of a stored row; ``terms`` are those of a state that has come to the row, or further.

    Raises ``JournalFormatError`` if this version cannot read it.
    """
    try:
        event = read_event(journal_pb2.JournalEvent.FromString(row.data), terms)
    except (ValueError, DecodeError) as error:
        raise JournalFormatError(f"the event at position {row.position} cannot be read: {error}") from error
    return e.Record(row.position, row.time_ns, event)


def decode_all(rows: Iterable[Row], state: State) -> Iterator[tuple[Row, e.Record]]:
    """Rows in order with their records, without learning from them: to ``state``, in place, only the catalogue's are applied.

    The rows are those from ``state`` on, or from the beginning, where of those before a journal's base the catalogue's are left.
    Raises ``JournalFormatError`` for a row that cannot be read.
    """
    for row in rows:
        record = decode(row, state.terms)
        if not isinstance(record.event, e.DecisionMade | e.OutcomeApplied):
            apply(state, record)
        yield row, record


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
