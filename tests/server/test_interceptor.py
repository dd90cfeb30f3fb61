"""Interceptors around handlers of every kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from pointsman.server.errors import OverloadedError, UnauthenticatedError
from pointsman.server.rpc.interceptor import refuse, wrap


class Context:
    """As much of a call's context as an error needs."""

    code: grpc.StatusCode | None = None

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: object = ()) -> None:
        self.code = code
        raise grpc.aio.AbortError(details)


class Recorder:
    """Notes what happens around calls; refuses those whose request is 0, ends those that answer 3."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    @contextmanager
    def around(self, request: Any, context: Any) -> Iterator[Any]:
        if request == 0:
            raise OverloadedError(1.0)
        self.events.append(request)
        try:
            yield self.see
        except BaseException as error:
            self.events.append(type(error))
            raise
        self.events.append("end")

    def see(self, response: Any) -> None:
        if response == 3:
            raise UnauthenticatedError("no more")
        self.events.append(("response", response))


async def double(request: int, context: Any) -> int:
    return 2 * request


async def count(request: int, context: Any) -> AsyncIterator[int]:
    try:
        for i in range(1, request + 1):
            yield i
    finally:
        context.closed = True


async def collect(responses: AsyncIterator[int]) -> list[int]:
    return [response async for response in responses]


def test_a_unary_call() -> None:
    recorder, context = Recorder(), Context()
    handler = wrap(grpc.unary_unary_rpc_method_handler(double, None, str), recorder.around, int)
    assert (handler.request_deserializer, handler.response_serializer) == (int, str)
    assert asyncio.run(handler.unary_unary(1, context)) == 2
    assert recorder.events == [1, ("response", 2), "end"]
    with pytest.raises(grpc.aio.AbortError):
        asyncio.run(handler.unary_unary(0, context))
    assert context.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(recorder.events) == 3, "a call that is refused was never begun"


def test_a_stream_ends_with_the_error_that_a_response_raises_and_closes_what_it_is_made_of() -> None:
    recorder, context = Recorder(), Context()
    handler = wrap(grpc.unary_stream_rpc_method_handler(count), recorder.around)
    assert asyncio.run(collect(handler.unary_stream(2, context))) == [1, 2]
    assert recorder.events == [2, ("response", 1), ("response", 2), "end"]
    recorder.events.clear()
    with pytest.raises(grpc.aio.AbortError):
        asyncio.run(collect(handler.unary_stream(9, context)))
    assert context.code is grpc.StatusCode.UNAUTHENTICATED
    assert recorder.events == [9, ("response", 1), ("response", 2), UnauthenticatedError]


def test_a_stream_whose_caller_leaves_is_closed_at_once() -> None:
    recorder, context = Recorder(), Context()
    handler = wrap(grpc.unary_stream_rpc_method_handler(count), recorder.around)

    async def leave() -> bool:
        responses = handler.unary_stream(2, context)
        assert await anext(responses) == 1
        await responses.aclose()
        return bool(context.closed)  # type: ignore[attr-defined]

    assert asyncio.run(leave())
    assert recorder.events == [2, ("response", 1), GeneratorExit]


def test_a_stream_that_writes_its_responses_itself_is_awaited() -> None:
    recorder = Recorder()
    handler = wrap(grpc.unary_stream_rpc_method_handler(double), recorder.around)
    assert asyncio.run(handler.unary_stream(5, Context())) == 10
    assert recorder.events == [5, ("response", 10), "end"]


def test_streams_of_requests_are_left_alone() -> None:
    handler = grpc.stream_stream_rpc_method_handler(count)
    assert wrap(handler, Recorder().around) is handler


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_stream"])
def test_a_refusal_is_of_the_kind_of_the_handler(kind: str) -> None:
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    handler, context = refuse(make(double, bytes.decode, str.encode), UnauthenticatedError("who?")), Context()
    assert handler.request_deserializer is None, "the request is not read"
    call = getattr(handler, kind)(b"", context)
    with pytest.raises(grpc.aio.AbortError, match="who"):
        asyncio.run(call if kind == "unary_unary" else collect(call))
    assert context.code is grpc.StatusCode.UNAUTHENTICATED
