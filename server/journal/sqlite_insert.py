"""The statements of one append to the embedded engine's file: each runs through all rows inside SQLite.

>>> packed = _Packed()
>>> packed.add(b"data", 7)
>>> packed.parameters()["rows"]  # starts at byte 1, has 4 bytes, and a number of its own
'[[1, 4, 7]]'
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence

from pointsman.server.journal.interface import Appended, Group, Result, Span
from pointsman.server.journal.sqlite_tables import FORMAT, KEPT


class _Packed:
    """Byte strings and numbers as the two parameters of one statement: a blob, and places in it as JSON.

    Each step of a statement lets go of the interpreter's lock and has to get it back from a busy event loop. So a group commit
    is a handful of statements that each run through all rows inside SQLite, however many callers share it.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0
        self._rows: list[tuple[int, ...]] = []

    def add(self, data: bytes, *numbers: int) -> None:
        self._rows.append((self._length + 1, len(data), *numbers))
        self._parts.append(data)
        self._length += len(data)

    def __len__(self) -> int:
        return len(self._rows)

    def parameters(self) -> dict[str, object]:
        # one byte more, for to SQLite a part of a blob without bytes is NULL
        return {"blob": b"".join((*self._parts, b"\0")), "rows": json.dumps(self._rows)}


def _number(place: int) -> str:
    return f"json_extract(r.value, '$[{place}]')"


_DATA = f"substr(:blob, {_number(0)}, {_number(1)})"
_SPANS = f"""SELECT json_group_array(json_array(r.key, k.first, k.last))
    FROM json_each(:rows) r JOIN keys k ON k.key = {_DATA} WHERE {KEPT[FORMAT].format("k.first")}"""
_USED = f"""SELECT json_group_array(json_array(r.key, c.used))
    FROM json_each(:rows) r JOIN counters c ON c.counter = {_DATA}"""
_ADD_KEYS = f"""INSERT INTO keys SELECT {_DATA}, {_number(2)}, {_number(3)} FROM json_each(:rows) r WHERE true
    ON CONFLICT (key) DO UPDATE SET last = max(keys.last, excluded.last),
        first = CASE WHEN {KEPT[FORMAT].format("keys.first")} THEN keys.first ELSE excluded.first END"""
_SET_COUNTERS = (
    f"""INSERT OR REPLACE INTO counters SELECT {_DATA}, {_number(2)}, {_number(3)} FROM json_each(:rows) r"""
)


def _add_rows(permanent: bool, expires: bool) -> str:
    """The statement that inserts rows of which some are permanent, and some expire: the less is read of each, the faster."""
    return f"""INSERT INTO journal (position, time_ns, permanent, expire_ns, data)
        SELECT :first + r.key, :time_ns, {_number(3) if permanent else 0}, {_number(2) if expires else 0}, {_DATA}
        FROM json_each(:rows) r"""


def stored(cursor: sqlite3.Cursor, groups: Sequence[Group]) -> tuple[dict[bytes, Span], dict[bytes, int]]:
    """Stored spans of the keys in the groups' conditions, and values of the counters in their guards."""
    keys = list({condition.key for group in groups for condition in group.conditions})
    counters = list({guard.counter for group in groups for guard in group.guards})
    spans = {keys[i]: Span(first, last) for i, first, last in _ask(cursor, _SPANS, keys)}
    used = {counters[i]: amount for i, amount in _ask(cursor, _USED, counters)}
    return spans, used


def _ask(cursor: sqlite3.Cursor, query: str, names: Sequence[bytes]) -> list[list[int]]:
    """Rows of ``query`` for ``names``; each row starts with the index of its name."""
    if not names:
        return []
    packed = _Packed()
    for name in names:
        packed.add(name)
    answers: list[list[int]] = json.loads(cursor.execute(query, packed.parameters()).fetchone()[0])
    return answers


def insert(
    cursor: sqlite3.Cursor,
    groups: Sequence[Group],
    results: Sequence[Result],
    counters: Mapping[bytes, tuple[int, int]],
    first: int,
    time_ns: int,
) -> None:
    """Insert the groups that are to be appended, from position ``first``, and what became of the counters."""
    rows, keys, used = _Packed(), _Packed(), _Packed()
    permanent, expires = False, False
    for group, result in zip(groups, results, strict=True):
        if not isinstance(result, Appended):
            continue
        for key in group.keys:
            keys.add(key, result.positions[0], result.positions[-1])
        for position, entry in zip(result.positions, group.entries, strict=True):
            rows.add(entry.data, entry.expire_ns, int(entry.permanent))
            permanent, expires = permanent or entry.permanent, expires or entry.expire_ns > 0
            if entry.key:
                keys.add(entry.key, position, position)
    for counter, (amount, end_ns) in counters.items():
        used.add(counter, amount, end_ns)
    if len(rows):
        cursor.execute(_add_rows(permanent, expires), {**rows.parameters(), "first": first, "time_ns": time_ns})
    if len(keys):
        cursor.execute(_ADD_KEYS, keys.parameters())
    if len(used):
        cursor.execute(_SET_COUNTERS, used.parameters())
