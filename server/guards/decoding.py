"""Bytes that are not the message which a method takes: refused as INVALID_ARGUMENT.

gRPC itself would answer UNKNOWN, with the name of a Python class, and log a traceback for each: as if the server had failed.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from pointsman.bandit.errors import FieldError
from pointsman.server.rpc.status import abort

Call = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class _Undecodable:
    """Takes the place of a request that could not be read."""

    problem: str

    def error(self) -> FieldError:
        return FieldError("request", f"expected a message of the contract, got bytes that are none: {self.problem}")


class DecodingInterceptor(grpc.aio.ServerInterceptor):
    """Refuses requests that cannot be read. To be the first of a server's interceptors: the others may look into requests."""

    def __init__(self) -> None:
        self._checked: dict[str, tuple[Any, Any]] = {}  # by method: the handler and what reads requests for it

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The method's handler, which gets only requests that could be read."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming or handler.request_deserializer is None:
            return handler
        method = handler_call_details.method
        inner, checked = self._checked.get(method, (None, None))
        if inner is not handler:
            checked = _checked(handler)
            self._checked[method] = handler, checked
        return checked


def _checked(handler: Any) -> Any:
    read, write = _tolerant(handler.request_deserializer), handler.response_serializer
    if handler.response_streaming:
        if not inspect.isasyncgenfunction(handler.unary_stream):  # writes its responses itself, as health's Watch does
            return grpc.unary_stream_rpc_method_handler(_unary(handler.unary_stream), read, write)
        return grpc.unary_stream_rpc_method_handler(_streaming(handler.unary_stream), read, write)
    return grpc.unary_unary_rpc_method_handler(_unary(handler.unary_unary), read, write)


def _tolerant(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            return _Undecodable(str(error))

    return read


def _unary(method: Callable[[Any, Call], Awaitable[Any]]) -> Callable[[Any, Call], Awaitable[Any]]:
    async def checked(request: Any, context: Call) -> Any:
        if isinstance(request, _Undecodable):
            await abort(context, request.error())
        return await method(request, context)

    return checked


def _streaming(method: Callable[[Any, Call], AsyncIterator[Any]]) -> Callable[[Any, Call], AsyncIterator[Any]]:
    async def checked(request: Any, context: Call) -> AsyncIterator[Any]:
        if isinstance(request, _Undecodable):
            await abort(context, request.error())
        async for response in method(request, context):
            yield response

    return checked
