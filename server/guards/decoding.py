"""Bytes that are not the message which a method takes: refused as INVALID_ARGUMENT.

gRPC itself would answer UNKNOWN, with the name of a Python class, and log a traceback for each: as if the server had failed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError

from pointsman.bandit.errors import FieldError
from pointsman.server.rpc.interceptor import Interceptor, wrap
from pointsman.server.rpc.status import Call

_NOTHING = nullcontext()


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Takes the place of a request that could not be read; ``problem`` is what protobuf says of it."""

    problem: str


class DecodingInterceptor(Interceptor):
    """Refuses requests that cannot be read. To be before the interceptors that look into requests."""

    def applies(self, method: str) -> bool:
        """All methods."""
        return True

    def wrapped(self, handler: Any, method: str) -> Any:
        """The method's handler, which gets only requests that could be read."""
        if handler.request_deserializer is None:
            return handler
        return wrap(handler, partial(self.around, method), read_or_explain(handler.request_deserializer))

    def around(self, method: str, request: Any, context: Call) -> AbstractContextManager[None]:
        """Raises ``FieldError`` for a request that could not be read."""
        if isinstance(request, Undecodable):
            raise FieldError(
                "request", f"expected a message of the contract, got bytes that are none: {request.problem}"
            )
        return _NOTHING


def read_or_explain(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """``deserialize``, but with an ``Undecodable`` where it raises ``DecodeError``.

    >>> from pointsman.v1.catalog_pb2 import Model
    >>> read = read_or_explain(Model.FromString)
    >>> read(Model(name="models/a").SerializeToString()).name
    'models/a'
    >>> type(read(b"?")).__name__
    'Undecodable'
    """

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            return Undecodable(str(error))

    return read
