"""Counts calls, and logs those that failed, with a request id that the caller chose or is given.

>>> class Context:
...     def code(self):
...         return grpc.StatusCode.NOT_FOUND
>>> code_of(grpc.aio.AbortError(), Context()), code_of(asyncio.CancelledError(), Context())
('NOT_FOUND', 'CANCELLED')
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import Any

import grpc

from pointsman.server.observe.metrics import Metrics
from pointsman.server.rpc.interceptor import Interceptor
from pointsman.server.rpc.status import Call

log = logging.getLogger("pointsman.access")

HEADER = "x-request-id"
"""The metadata in which a caller may send an id of the call."""
LONGEST_ID = 128
"""Characters of a caller's id that are kept."""


class _TimedCall:
    """A call until it ends. A class, because a generator would cost every call microseconds more."""

    __slots__ = ("_access", "_caller", "_context", "_method", "_started")

    def __init__(self, access: AccessInterceptor, method: str, context: Call) -> None:
        self._access, self._method, self._context = access, method, context
        self._caller = _caller(context)  # gRPC frees what has it when the call ends
        self._started = time.perf_counter()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        code = "OK" if error is None else code_of(error, self._context)
        self._access.ended(self._method, code, time.perf_counter() - self._started, self._caller)


class AccessInterceptor(Interceptor):
    """Counts calls in ``metrics``, if given, and logs them. Outside those that may refuse calls, to count refusals too."""

    def __init__(self, metrics: Metrics | None) -> None:
        super().__init__()
        self._metrics = metrics

    def around(self, method: str, request: Any, context: Call) -> _TimedCall:
        """Counts and logs the call when it ends."""
        return _TimedCall(self, method, context)

    def ended(self, method: str, code: str, seconds: float, caller: tuple[str, str]) -> None:
        """Count and log a call to ``method`` that took ``seconds``, by the ``caller`` with that address and request id or ""."""
        method = method.removeprefix("/pointsman.v1.")
        if self._metrics is not None:
            self._metrics.calls.labels(method, code).inc()
            self._metrics.seconds.labels(method).observe(seconds)
        level = logging.DEBUG if code == "OK" else logging.INFO
        if log.isEnabledFor(level):
            fields = {
                "method": method,
                "code": code,
                "seconds": round(seconds, 6),
                "peer": caller[0],
                "request_id": caller[1] or uuid.uuid4().hex,
            }
            log.log(level, "call", extra=fields)


def code_of(error: BaseException, context: Call) -> str:
    """The name of the status code, such as `NOT_FOUND`, of a call that raised ``error``."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "CANCELLED"
    code = context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    return next((status.name for status in grpc.StatusCode if status.value[0] == code), "UNKNOWN")


def _caller(context: Call) -> tuple[str, str]:
    """The caller's address, and its request id or ""."""
    for name, value in context.invocation_metadata() or ():
        if name == HEADER and isinstance(value, str):
            return context.peer(), value[:LONGEST_ID]
    return context.peer(), ""
