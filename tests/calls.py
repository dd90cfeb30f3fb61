"""Calls as a patient caller makes them: sent again while the service is too busy to begin them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc

from tests.processes import WAIT

_PAUSE = 0.05
"""Seconds before a refused call is sent again."""


async def patient(method: Any, request: Any) -> tuple[Any, int]:
    """The answer to a call of an asynchronous stub's ``method``, and how often the service refused it as too many.

    Raises ``grpc.aio.AioRpcError`` for any other refusal, or after ``WAIT`` seconds of these.
    """
    refused, end = 0, time.monotonic() + WAIT
    while True:
        try:
            return await method(request, timeout=WAIT), refused
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED or time.monotonic() > end:
                raise
            refused += 1
            await asyncio.sleep(_PAUSE)
