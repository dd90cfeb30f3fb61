"""Who calls, and whether they may: API keys in the call's metadata, `authorization: Bearer pk_…`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc

from server.errors import ForbiddenError, RateLimitedError, UnauthenticatedError
from server.keys import Key, Keyring
from server.status import abort

_ROUTER, _CATALOG, _INSIGHT = (f"/pointsman.v1.{name}Service/" for name in ("Router", "Catalog", "Insight"))
_METHODS = {
    _ROUTER + "Decide": "decide",
    _ROUTER + "BatchDecide": "decide",
    _ROUTER + "ReportOutcome": "report",
    _ROUTER + "BatchReportOutcomes": "report",
    _ROUTER + "GetDecision": "insight",
}
_OPEN = "/grpc.health."


def scope_of(method: str) -> str | None:
    """The scope that a method asks for; "" if any key will do, ``None`` if none is asked for."""
    if method.startswith(_OPEN):
        return None
    if method.startswith(_CATALOG):
        return "catalogue"
    if method.startswith(_INSIGHT):
        return "insight"
    return _METHODS.get(method, "")


class Rates:
    """Calls per second of each key: a bucket of tokens that holds a second's worth, and at least one."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._tokens: dict[str, tuple[float, int]] = {}  # by id: how many there are, and when that was

    def take(self, key: Key) -> None:
        """Take a token. Raises ``RateLimitedError`` if there is none."""
        rate = key.requests_per_second
        if rate is None:
            return
        now_ns = self._clock_ns()
        most = max(rate, 1.0)
        tokens, then_ns = self._tokens.get(key.id, (most, now_ns))
        tokens = min(most, tokens + rate * max(now_ns - then_ns, 0) / 1e9)
        if tokens < 1.0:
            self._tokens[key.id] = tokens, now_ns
            raise RateLimitedError(key.name, (1.0 - tokens) / rate)
        self._tokens[key.id] = tokens - 1.0, now_ns


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls without a key of the right scope, before their message is read. Health is open to all."""

    def __init__(self, keyring: Keyring, clock_ns: Callable[[], int]) -> None:
        self._keyring, self._rates = keyring, Rates(clock_ns)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The call's handler, or one that refuses it."""
        scope = scope_of(handler_call_details.method)
        handler = await continuation(handler_call_details)
        if handler is None or scope is None:
            return handler
        try:
            key = self._caller(handler_call_details.invocation_metadata or ())
            if scope and scope not in key.scopes:
                raise ForbiddenError(key.name, scope)
            self._rates.take(key)
        except (UnauthenticatedError, ForbiddenError, RateLimitedError) as error:
            return _refusing(handler, error)
        return handler

    def _caller(self, metadata: Sequence[tuple[str, str | bytes]]) -> Key:
        given = [value for name, value in metadata if name == "authorization"]
        if len(given) != 1 or not isinstance(given[0], str):
            raise UnauthenticatedError("expected one `authorization` in the metadata")
        kind, _, token = given[0].partition(" ")
        key = self._keyring.find(token) if kind.lower() == "bearer" else None
        if key is None:
            raise UnauthenticatedError("expected `authorization: Bearer` and a known API key")
        return key


def _refusing(handler: Any, error: Exception) -> Any:
    async def one(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        await abort(context, error)

    async def stream(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        await abort(context, error)
        yield  # never reached: makes this a stream

    if handler.stream_stream is not None:  # reflection
        return grpc.stream_stream_rpc_method_handler(stream)
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(stream)
    return grpc.unary_unary_rpc_method_handler(one)
