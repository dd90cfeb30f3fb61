"""The base of interceptors: wraps handlers of unary and streaming calls alike.

An interceptor says what happens around a call as a context manager. It is entered before the call begins: an error raised there
is the call's status, and the call is not begun. It may yield a function that is shown every response before it is sent. It is
left when the call ends, with the call's error if it has one.

>>> from contextlib import contextmanager
>>> @contextmanager
... def logged(request, context):
...     print("begins with", request)
...     yield lambda response: print("answers", response)
...     print("ends")
>>> async def double(request, context):
...     return 2 * request
>>> doubled = wrap(grpc.unary_unary_rpc_method_handler(double), logged)
>>> import asyncio
>>> asyncio.run(doubled.unary_unary(21, None))
begins with 21
answers 42
ends
42
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, aclosing
from functools import partial
from typing import Any

import grpc

from pointsman.server.rpc.status import KNOWN_ERRORS, Call, abort

OnResponse = Callable[[Any], None]
"""Is shown each response of a call before it is sent; an error of ``KNOWN_ERRORS`` ends the call instead."""
Around = Callable[[Any, Call], AbstractContextManager[OnResponse | None]]
"""What happens around a call, given its request and context."""
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


def wrap(handler: Any, around: Around, deserialize: Callable[[bytes], Any] | None = None) -> Any:
    """``handler`` with ``around`` around each of its calls, reading requests by ``deserialize`` if that is given.

    A handler that takes a stream of requests is returned as it is: the contract has none.
    """
    if handler.request_streaming:
        return handler
    decode, encode = deserialize or handler.request_deserializer, handler.response_serializer
    if not handler.response_streaming:
        return grpc.unary_unary_rpc_method_handler(_awaited(handler.unary_unary, around), decode, encode)
    if not inspect.isasyncgenfunction(handler.unary_stream):  # writes its responses itself, as health's Watch does
        return grpc.unary_stream_rpc_method_handler(_awaited(handler.unary_stream, around), decode, encode)
    return grpc.unary_stream_rpc_method_handler(_iterated(handler.unary_stream, around), decode, encode)


def _awaited(method: Callable[[Any, Call], Awaitable[Any]], around: Around) -> Callable[[Any, Call], Awaitable[Any]]:
    async def call(request: Any, context: Call) -> Any:
        try:
            with around(request, context) as on_response:
                response = await method(request, context)
                if on_response is not None:
                    on_response(response)
                return response
        except KNOWN_ERRORS as error:
            await abort(context, error)

    return call


def _iterated(
    method: Callable[[Any, Call], AsyncIterator[Any]], around: Around
) -> Callable[[Any, Call], AsyncIterator[Any]]:
    async def call(request: Any, context: Call) -> AsyncIterator[Any]:
        try:
            with around(request, context) as on_response:
                async with aclosing(method(request, context)) as responses:  # type: ignore[type-var]  # a generator
                    async for response in responses:
                        if on_response is not None:
                            on_response(response)
                        yield response
        except KNOWN_ERRORS as error:
            await abort(context, error)

    return call


def refuse(handler: Any, error: Exception) -> Any:
    """A handler in place of ``handler`` that ends every call with the status of ``error``, its request unread."""

    async def refuse_one(request: Any, context: Call) -> Any:
        await abort(context, error)

    async def refuse_stream(request: Any, context: Call) -> AsyncIterator[Any]:
        await abort(context, error)
        yield  # never reached: makes this a stream

    if handler.request_streaming:  # reflection
        return grpc.stream_stream_rpc_method_handler(refuse_stream)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(refuse_stream)
    return grpc.unary_unary_rpc_method_handler(refuse_one)


class Interceptor(grpc.aio.ServerInterceptor):
    """Does the same around every call of some methods. Each method's handler is wrapped once."""

    def __init__(self) -> None:
        self._wrapped: dict[str, tuple[Any, Any]] = {}  # by method: the handler, and what it is wrapped in

    @abstractmethod
    def around(self, method: str, request: Any, context: Call) -> AbstractContextManager[OnResponse | None]:
        """The context manager around a call of ``method``, as in ``wrap``."""

    def applies(self, method: str) -> bool:
        """Whether calls of ``method`` (`/package.Service/Method`) are intercepted: those of the contract, if not overridden."""
        return method.startswith("/pointsman.")

    def wrapped(self, handler: Any, method: str) -> Any:
        """``handler`` of ``method`` with ``around`` around its calls."""
        return wrap(handler, partial(self.around, method))

    async def intercept_service(self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The call's handler, wrapped if ``applies`` says so."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None or not self.applies(method):
            return handler
        inner, wrapped = self._wrapped.get(method, (None, None))
        if inner is not handler:
            wrapped = self.wrapped(handler, method)
            self._wrapped[method] = handler, wrapped
        return wrapped
