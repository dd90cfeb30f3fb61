"""Errors that name the field that was wrong, so that every layer above can pass the name on.

>>> with within("bucket"), within("budget"):
...     raise FieldError("period", "expected at most 90 days, got 91")
Traceback (most recent call last):
pointsman.bandit.errors.FieldError: bucket.budget.period: expected at most 90 days, got 91
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class FieldError(ValueError):
    """A value given from outside is not acceptable.

    ``field`` is the path of the value in what the caller sent (``context.numbers["size"]``), ``problem`` a sentence that
    names what was expected and what was given.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field
        self.problem = problem


class NothingEligibleError(Exception):
    """No candidate satisfies the request. ``reasons`` maps each model to the sentences that exclude it."""

    def __init__(self, reasons: dict[str, tuple[str, ...]]) -> None:
        self.reasons = reasons
        listed = "; ".join(f"{model}: {', '.join(why)}" for model, why in reasons.items())
        super().__init__(f"no model is eligible: {listed or 'the bucket has no models'}")


@contextmanager
def within(prefix: str) -> Iterator[None]:
    """Prefix the field of every ``FieldError`` raised inside: ``bucket`` + ``name`` gives ``bucket.name``."""
    try:
        yield
    except FieldError as error:
        joint = "" if error.field.startswith("[") or not error.field else "."
        raise FieldError(f"{prefix}{joint}{error.field}", error.problem) from None
