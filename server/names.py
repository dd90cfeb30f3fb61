"""Resource names and decision ids: `models/{id}`, `buckets/{id}`, `projects/{id}`, `decisions/{ulid}`.

>>> parse("models/small", "models", "name")
'small'
>>> decision_name(bytes(15) + b"\\x21")
'decisions/00000000000000000000000011'
>>> parse_decision("decisions/00000000000000000000000011", "name")[-1]
33
"""

from __future__ import annotations

import os

from pointsman.bandit.catalog import check_id
from pointsman.bandit.errors import FieldError

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {letter: i for i, letter in enumerate(_CROCKFORD)}
ULID_BYTES = 16
_ULID_LETTERS = 26


def model_name(id_: str) -> str:
    """`models/{id}`."""
    return f"models/{id_}"


def bucket_name(id_: str) -> str:
    """`buckets/{id}`."""
    return f"buckets/{id_}"


def project_name(id_: str) -> str:
    """`projects/{id}`."""
    return f"projects/{id_}"


def decision_name(id_: bytes) -> str:
    """`decisions/{ulid}` in Crockford's base 32."""
    number = int.from_bytes(id_, "big")
    letters = [_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5)]
    return "decisions/" + "".join(letters)


def parse(name: str, collection: str, field: str) -> str:
    """The id in ``{collection}/{id}``; raises ``FieldError(field, …)`` if it is not of that form."""
    prefix = collection + "/"
    if not name.startswith(prefix):
        raise FieldError(field, f"expected {prefix}{{id}}, got {name[:140]!r}")
    return check_id(name[len(prefix) :], field)


def parse_decision(name: str, field: str) -> bytes:
    """The 16 bytes of the ULID in `decisions/{ulid}`; raises ``FieldError(field, …)``."""
    text = name.removeprefix("decisions/").upper()
    number = 0
    valid = name.startswith("decisions/") and len(text) == _ULID_LETTERS and text[0] in "01234567"
    for letter in text if valid else "":
        if letter not in _VALUES:
            valid = False
            break
        number = number << 5 | _VALUES[letter]
    if not valid:
        raise FieldError(field, f"expected decisions/ and 26 letters of a ULID, got {name[:80]!r}")
    return number.to_bytes(ULID_BYTES, "big")


def new_decision_id(now_ns: int) -> bytes:
    """A ULID: 48 bits of milliseconds, 80 random bits. Sorts by time."""
    return ((now_ns // 1_000_000) & (2**48 - 1)).to_bytes(6, "big") + os.urandom(10)
