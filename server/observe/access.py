"""Counts calls, and logs those that failed, with a request id that the caller chose or gets."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from pointsman.server.observe.metrics import Metrics

log = logging.getLogger("pointsman.access")

HEADER = "x-request-id"
LONGEST_ID = 128
Call = grpc.aio.ServicerContext[Any, Any]


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """The outermost of the interceptors, so that what the others refuse is counted too."""

    def __init__(self, metrics: Metrics | None) -> None:
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The call's handler, which is counted when it ends."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith("/pointsman."):
            return handler
        method = handler_call_details.method.removeprefix("/pointsman.v1.")
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(handler.unary_unary, method), handler.request_deserializer, handler.response_serializer
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(handler.unary_stream, method), handler.request_deserializer, handler.response_serializer
            )
        return handler

    def _unary(self, inner: Callable[[Any, Call], Awaitable[Any]], method: str) -> Callable[[Any, Call], Any]:
        async def counted(request: Any, context: Call) -> Any:
            started, who = time.perf_counter(), _who(context)
            code = "UNKNOWN"
            try:
                response = await inner(request, context)
                code = "OK"
                return response
            except BaseException as error:
                code = code_of(error, context)
                raise
            finally:
                self._ended(method, code, time.perf_counter() - started, who)

        return counted

    def _stream(self, inner: Callable[[Any, Call], AsyncIterator[Any]], method: str) -> Callable[[Any, Call], Any]:
        async def counted(request: Any, context: Call) -> AsyncIterator[Any]:
            started, who = time.perf_counter(), _who(context)
            code = "UNKNOWN"
            try:
                async for response in inner(request, context):
                    yield response
                code = "OK"
            except BaseException as error:
                code = code_of(error, context)
                raise
            finally:
                self._ended(method, code, time.perf_counter() - started, who)

        return counted

    def _ended(self, method: str, code: str, seconds: float, who: tuple[str, str]) -> None:
        if self._metrics is not None:
            self._metrics.calls.labels(method, code).inc()
            self._metrics.seconds.labels(method).observe(seconds)
        level = logging.DEBUG if code == "OK" else logging.INFO
        if log.isEnabledFor(level):
            more = {
                "method": method,
                "code": code,
                "seconds": round(seconds, 6),
                "peer": who[0],
                "request_id": who[1] or uuid.uuid4().hex,
            }
            log.log(level, "call", extra=more)


def code_of(error: BaseException, context: Call) -> str:
    """The name of the code with which a call ends that raised ``error``."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "CANCELLED"
    found = context.code()
    if isinstance(found, grpc.StatusCode):
        return found.name
    return next((code.name for code in grpc.StatusCode if code.value[0] == found), "UNKNOWN")


def _who(context: Call) -> tuple[str, str]:
    """Whence a call comes, and its request id or "". Asked before it begins: after its end gRPC has freed what it would read."""
    for name, value in context.invocation_metadata() or ():
        if name == HEADER and isinstance(value, str):
            return context.peer(), value[:LONGEST_ID]
    return context.peer(), ""
