"""The client for asyncio: as ``pointsman.Client``, with methods to be awaited.

>>> async def ask():
...     async with Client("unix:/nowhere", timeout=0.2) as client:  # no service there: the caller's default is called
...         return await client.decide("summarize", default="small", text="A long text …")
>>> asyncio.run(ask()).model
'models/small'
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Unpack

import grpc

from pointsman.channel import OPTIONS, Tls, metadata
from pointsman.messages import (
    Call,
    Context,
    Decision,
    Outcome,
    Refusal,
    batch_decide_request,
    decide_request,
    default_decision,
    read_decision,
    report_request,
)
from pointsman.outbox import Outbox
from pointsman.v1 import decision_pb2, router_service_pb2_grpc
from pointsman.v1 import router_service_pb2 as rpc

__all__ = ["Client", "Decision", "Refusal", "Tls"]
log = logging.getLogger("pointsman.client")


class Client:
    """A connection to a Pointsman service, for one event loop; also an asynchronous context manager. See ``pointsman.Client`` for
    the arguments. Methods raise ``grpc.RpcError``.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:7420",
        *,
        timeout: float = 5.0,
        api_key: str | None = None,
        tls: Tls | None = None,
        on_refused: Callable[[Refusal], None] | None = None,
    ) -> None:
        self._timeout, self._metadata = timeout, metadata(api_key)
        if tls is None:
            self._channel = grpc.aio.insecure_channel(address, OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(address, tls.credentials(), OPTIONS)
        self._router = router_service_pb2_grpc.RouterServiceStub(self._channel)
        self._outbox = Outbox(on_refused)
        self._filled, self._emptied = asyncio.Event(), asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self._ending = False

    async def decide(
        self,
        bucket: str,
        *,
        limits: decision_pb2.Limits | None = None,
        request_id: str = "",
        default: str = "",
        **context: Unpack[Context],
    ) -> Decision:
        """Which model to call for one request of ``bucket``; see ``pointsman.Client.decide``."""
        request = decide_request(bucket, limits, request_id, context)
        try:
            answer = await self._router.Decide(request, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            return default_decision(default, error)
        return read_decision(answer.decision)

    async def batch_decide(
        self,
        bucket: str,
        contexts: Iterable[Context],
        *,
        limits: decision_pb2.Limits | None = None,
        request_id: str = "",
    ) -> list[Decision]:
        """Which model to call for each of up to 4,096 requests of ``bucket``, all or none."""
        request = batch_decide_request(bucket, contexts, limits, request_id)
        answer = await self._router.BatchDecide(request, timeout=self._timeout, metadata=self._metadata)
        return [read_decision(message) for message in answer.decisions]

    async def report(
        self,
        decision: Decision | str,
        *,
        model: str = "",
        idempotency_key: str = "",
        **outcome: Unpack[Outcome],
    ) -> None:
        """Report an outcome of a decision; it is durable when this returns."""
        request = report_request(decision, model, idempotency_key, outcome)
        if request is not None:
            await self._router.ReportOutcome(request, timeout=self._timeout, metadata=self._metadata)

    def report_later(
        self,
        decision: Decision | str,
        *,
        model: str = "",
        idempotency_key: str = "",
        **outcome: Unpack[Outcome],
    ) -> None:
        """``report``, without waiting: sent in the background, again and again until the service has it."""
        request = report_request(decision, model, idempotency_key, outcome)
        if request is None:
            return
        if self._ending:
            raise ValueError("the client is closed")
        self._outbox.add(request)
        self._emptied.clear()
        self._filled.set()
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send())

    @asynccontextmanager
    async def call(
        self,
        bucket: str,
        *,
        limits: decision_pb2.Limits | None = None,
        request_id: str = "",
        default: str = "",
        **context: Unpack[Context],
    ) -> AsyncIterator[Call]:
        """Decide, take the time of the block, and report; see ``pointsman.Client.call``."""
        decision = await self.decide(bucket, limits=limits, request_id=request_id, default=default, **context)
        call = Call(decision, self.report_later)
        try:
            yield call
        except BaseException:
            call.finish(success=False)
            raise
        call.finish(success=True)

    async def get_decision(self, decision: Decision | str) -> rpc.GetDecisionResponse:
        """A decision with its explanation and its reported outcomes."""
        name = decision if isinstance(decision, str) else decision.name
        request = rpc.GetDecisionRequest(name=name)
        response: rpc.GetDecisionResponse = await self._router.GetDecision(
            request, timeout=self._timeout, metadata=self._metadata
        )
        return response

    async def flush(self, timeout: float = 5.0) -> int:
        """Wait until nothing waits to be sent, at most ``timeout`` seconds; returns how many reports still do."""
        if len(self._outbox):
            try:
                await asyncio.wait_for(self._emptied.wait(), timeout)
            except TimeoutError:
                return len(self._outbox)
        return len(self._outbox)

    async def close(self, timeout: float = 5.0) -> None:
        """Send what waits, for at most ``timeout`` seconds, and close the connection."""
        left = await self.flush(timeout)
        self._ending = True
        if left:
            log.warning("%d reports could not be sent", left)
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait([self._sender])
        await self._channel.close()

    async def _send(self) -> None:
        while True:
            await self._filled.wait()
            message = rpc.BatchReportOutcomesRequest(requests=self._outbox.take())
            try:
                response = await self._router.BatchReportOutcomes(
                    message, timeout=self._timeout, metadata=self._metadata
                )
            except grpc.RpcError as error:
                self._outbox.failed(error)
            else:
                self._outbox.answered(response)
            if not len(self._outbox):
                self._filled.clear()
                self._emptied.set()
            await asyncio.sleep(self._outbox.delay())

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
