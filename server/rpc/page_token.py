"""Tokens of pages: the name of a page's last resource, which need not exist any more when the next page is asked for.

>>> read_token(write_token("models", "small"), "models")
'small'
>>> read_token("c21hbGw=", "models")
Traceback (most recent call last):
    ...
pointsman.bandit.errors.FieldError: page_token: expected a token that List of models gave, got 'c21hbGw='
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

from pointsman.bandit.errors import FieldError
from pointsman.server.names import parse


def write_token(collection: str, last_id: str) -> str:
    """The token of the page of ``collection`` that ends with ``last_id``."""
    return urlsafe_b64encode(f"{collection}/{last_id}".encode()).decode()


def read_token(token: str, collection: str) -> str:
    """The id in a token of ``collection``. Raises ``FieldError`` if this service gave no such token."""
    try:
        name = urlsafe_b64decode(token.encode()).decode("ascii")
        last_id = parse(name, collection, "page_token")
    except (ValueError, FieldError):  # ValueError: not base 64, or not of ASCII
        last_id = ""
    if not last_id or write_token(collection, last_id) != token:
        raise FieldError("page_token", f"expected a token that List of {collection} gave, got {token[:40]!r}")
    return last_id
