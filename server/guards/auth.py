"""Who calls, and whether they may: API keys in the call's metadata, `authorization: Bearer pk_…`.

>>> scope_of("/pointsman.v1.RouterService/ReportOutcome")
'report'
>>> scope_of("/grpc.health.v1.Health/Check") is None
True
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from pointsman.server.errors import ForbiddenError, RateLimitedError, UnauthenticatedError
from pointsman.server.guards.api_keys import Key
from pointsman.server.guards.keyring import Keyring
from pointsman.server.rpc.interceptor import Continuation, OnResponse, refuse, wrap
from pointsman.server.rpc.status import Call
from pointsman.v1 import catalog_service_pb2, insight_service_pb2, router_service_pb2

_ROUTER = {
    "Decide": "decide",
    "BatchDecide": "decide",
    "ReportOutcome": "report",
    "BatchReportOutcomes": "report",
    "GetDecision": "insight",
}
_OPEN = "/grpc.health."


def _scopes() -> dict[str, str]:
    """The scope of every method of the contract. ``KeyError`` for one without: better not to start than to leave it open."""
    table = {}
    for module, name, scope_by_method in (
        (router_service_pb2, "RouterService", _ROUTER.__getitem__),
        (catalog_service_pb2, "CatalogService", lambda _: "catalogue"),
        (insight_service_pb2, "InsightService", lambda _: "insight"),
    ):
        service = module.DESCRIPTOR.services_by_name[name]
        table.update({f"/{service.full_name}/{m.name}": scope_by_method(m.name) for m in service.methods})
    return table


_SCOPES = _scopes()


def scope_of(method: str) -> str | None:
    """The scope that a caller of ``method`` needs; "" if any key will do, ``None`` if none is needed."""
    scope = _SCOPES.get(method)
    if scope is None and not method.startswith(_OPEN):
        return ""  # reflection
    return scope


class RateLimiter:
    """Limits each key's calls per second by a token bucket that holds its burst: if not given, a second's worth, at least one.

    >>> limited = Key(name="a", id="0" * 16, hash="0" * 64, scopes=("decide",), requests_per_second=1)
    >>> limiter = RateLimiter(lambda: 0)
    >>> limiter.take(limited)
    >>> try:
    ...     limiter.take(limited)
    ... except RateLimitedError as error:
    ...     print(f"{error.delay:g} s")
    1 s
    """

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._tokens: dict[str, tuple[float, int]] = {}  # by id: how many tokens there were, and when

    def take(self, key: Key) -> None:
        """Count a call of ``key``. Raises ``RateLimitedError``, with the seconds to wait, if it has made too many."""
        rate = key.requests_per_second
        if rate is None:
            return
        now_ns = self._clock_ns()
        capacity = max(rate, 1.0) if key.burst is None else float(key.burst)
        tokens, then_ns = self._tokens.get(key.id, (capacity, now_ns))
        tokens = min(capacity, tokens + rate * max(now_ns - then_ns, 0) / 1e9)
        if tokens < 1.0:
            self._tokens[key.id] = tokens, now_ns
            raise RateLimitedError(key.name, (1.0 - tokens) / rate)
        self._tokens[key.id] = tokens - 1.0, now_ns


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls without a key of the right scope, before their message is decoded. Health is open to all.

    A stream ends before the first response that comes after its key was revoked.
    """

    def __init__(self, keyring: Keyring, clock_ns: Callable[[], int]) -> None:
        self._keyring, self._limiter = keyring, RateLimiter(clock_ns)

    async def intercept_service(self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The call's handler, or one that refuses it before its request is read."""
        scope = scope_of(handler_call_details.method)
        handler = await continuation(handler_call_details)
        if handler is None or scope is None:
            return handler
        try:
            key = self._caller(handler_call_details.invocation_metadata or ())
            if scope and scope not in key.scopes:
                raise ForbiddenError(key.name, scope)
            self._limiter.take(key)
        except (UnauthenticatedError, ForbiddenError, RateLimitedError) as error:
            return refuse(handler, error)
        if not handler.response_streaming:
            return handler

        @contextmanager
        def while_valid(request: Any, context: Call) -> Iterator[OnResponse]:
            yield lambda response: self._check_valid(key, scope)

        return wrap(handler, while_valid)

    def _check_valid(self, key: Key, scope: str) -> None:
        """Raise ``UnauthenticatedError`` if a key that was found before is no longer what it was."""
        if not self._keyring.holds(key, scope):
            raise UnauthenticatedError("the API key was revoked or changed")

    def _caller(self, metadata: Sequence[tuple[str, str | bytes]]) -> Key:
        """The key that a call's metadata shows. Raises ``UnauthenticatedError``."""
        values = [value for name, value in metadata if name == "authorization"]
        if len(values) != 1 or not isinstance(values[0], str):
            raise UnauthenticatedError("expected one `authorization` in the metadata")
        scheme, _, token = values[0].partition(" ")
        key = self._keyring.find(token) if scheme.lower() == "bearer" else None
        if key is None:
            raise UnauthenticatedError("expected `authorization: Bearer` and a known API key")
        return key
