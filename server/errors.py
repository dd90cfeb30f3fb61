"""Errors of requests besides invalid field values. `server/rpc/status.py` maps each to its gRPC status.

>>> str(InUseError("name", "models/small", ["buckets/a", "buckets/b"]))
'models/small is listed by buckets/a, buckets/b'
"""

from __future__ import annotations

from collections.abc import Sequence


class RequestError(Exception):
    """A request that cannot be served although each of its values is valid. ``field`` is the request's field at issue."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field
        self.problem = problem


class NotFoundError(RequestError):
    """The resource that ``field`` names does not exist."""

    def __init__(self, field: str, resource: str) -> None:
        super().__init__(field, f"{resource} does not exist")
        self.resource = resource


class AlreadyExistsError(RequestError):
    """The resource to be created exists."""

    def __init__(self, field: str, resource: str) -> None:
        super().__init__(field, f"{resource} already exists")
        self.resource = resource


class ExpiredError(RequestError):
    """The decision's attribution window has ended."""


class InUseError(RequestError):
    """The resource is used by others, ``users``, and cannot be deleted."""

    SHOWN = 10
    """Most users that the message names."""

    def __init__(self, field: str, resource: str, users: Sequence[str]) -> None:
        others = f" and {len(users) - self.SHOWN} more" if len(users) > self.SHOWN else ""
        super().__init__(field, f"{resource} is listed by {', '.join(users[: self.SHOWN])}{others}")
        self.resource = resource
        self.users = users[: self.SHOWN]


class StaleError(RequestError):
    """The etag is not the current one, or the resource changed meanwhile: it is to be read again."""


class OverloadedError(Exception):
    """Too many calls are under way; this one was not begun. It may be sent again after ``delay`` seconds."""

    def __init__(self, delay: float) -> None:
        super().__init__("too many calls are under way; nothing was done, retry later")
        self.delay = delay


class UnauthenticatedError(Exception):
    """The call has no API key, or an unknown one."""


class ForbiddenError(Exception):
    """The caller's API key lacks the scope that the method needs."""

    def __init__(self, key: str, scope: str) -> None:
        super().__init__(f"the API key {key} lacks the scope {scope}")


class RateLimitedError(Exception):
    """The caller's API key has made more calls than it may; the next is allowed after ``delay`` seconds."""

    def __init__(self, key: str, delay: float) -> None:
        super().__init__(f"the API key {key} has made more calls a second than it may; nothing was done, retry later")
        self.delay = delay


class LateError(Exception):
    """The call's deadline passed before it was begun."""

    def __init__(self) -> None:
        super().__init__("the deadline passed before the call was begun; nothing was done")


class UnavailableError(Exception):
    """The journal cannot be appended to, or the server is shutting down. May be retried.

    Nothing was written, unless the message says that this is not known: then repeat only with the same request id or
    idempotency key.
    """
