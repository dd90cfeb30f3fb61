"""The synchronous client. The generated stubs in ``pointsman.v1`` have everything else.

>>> with Client("unix:/nowhere", timeout=0.2) as client:  # no service there: the caller's default is called
...     decision = client.decide("summarize", default="small", text="A long text …")
>>> decision.model, decision.upstream, decision.propensity
('models/small', 'small', 0.0)
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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

log = logging.getLogger("pointsman.client")


class Client:
    """A connection to a Pointsman service; also a context manager. Threads may share it. Methods raise ``grpc.RpcError``.

    ``timeout`` (seconds) bounds each call with all its retries: calls that the service could not take are sent again, which is
    safe since every one carries an id. ``api_key`` is sent with every call. ``on_refused`` is told, from a thread of its own, of
    reports that were handed to ``report_later`` and given up; without it they are logged.
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
            self._channel = grpc.insecure_channel(address, OPTIONS)
        else:
            self._channel = grpc.secure_channel(address, tls.credentials(), OPTIONS)
        self._router = router_service_pb2_grpc.RouterServiceStub(self._channel)
        self._outbox = Outbox(on_refused)
        self._change = threading.Condition()  # the outbox got something, was emptied, or shall end
        self._ending = False
        self._sender: threading.Thread | None = None

    def decide(
        self,
        bucket: str,
        *,
        limits: decision_pb2.Limits | None = None,
        request_id: str = "",
        default: str = "",
        **context: Unpack[Context],
    ) -> Decision:
        """Which model to call for one request of ``bucket``, given what is known of it.

        The same ``request_id`` gets the same decision. ``default`` is the model to call if the service cannot be reached in time:
        routing that fails need not fail the request.
        """
        request = decide_request(bucket, limits, request_id, context)
        try:
            answer = self._router.Decide(request, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            return default_decision(default, error)
        return read_decision(answer.decision)

    def batch_decide(
        self,
        bucket: str,
        contexts: Iterable[Context],
        *,
        limits: decision_pb2.Limits | None = None,
        request_id: str = "",
    ) -> list[Decision]:
        """Which model to call for each of up to 4,096 requests of ``bucket``, all or none."""
        request = batch_decide_request(bucket, contexts, limits, request_id)
        answer = self._router.BatchDecide(request, timeout=self._timeout, metadata=self._metadata)
        return [read_decision(message) for message in answer.decisions]

    def report(
        self,
        decision: Decision | str,
        *,
        model: str = "",
        idempotency_key: str = "",
        **outcome: Unpack[Outcome],
    ) -> None:
        """Report an outcome of a decision, whole or in part, any number of times. ``model`` if a fallback answered.

        When this returns the service has it for good.
        """
        request = report_request(decision, model, idempotency_key, outcome)
        if request is not None:
            self._router.ReportOutcome(request, timeout=self._timeout, metadata=self._metadata)

    def report_later(
        self,
        decision: Decision | str,
        *,
        model: str = "",
        idempotency_key: str = "",
        **outcome: Unpack[Outcome],
    ) -> None:
        """``report``, without waiting: sent in the background, again and again until the service has it.

        What waits is in memory: ``flush`` or ``close`` before the process ends.
        """
        request = report_request(decision, model, idempotency_key, outcome)
        if request is None:
            return
        with self._change:
            if self._ending:
                raise ValueError("the client is closed")
            self._outbox.add(request)
            if self._sender is None:
                self._sender = threading.Thread(target=self._send, name="pointsman-reports", daemon=True)
                self._sender.start()
            self._change.notify_all()

    @contextmanager
    def call(
        self,
        bucket: str,
        *,
        limits: decision_pb2.Limits | None = None,
        request_id: str = "",
        default: str = "",
        **context: Unpack[Context],
    ) -> Iterator[Call]:
        """Decide, take the time of the block, and report: its latency, and whether it raised, besides what it says.

        with client.call("summarize", text=prompt) as call:
            answer = gateway(call.upstream, prompt)
            call.succeeded(cost_usd=answer.cost)
        """
        decision = self.decide(bucket, limits=limits, request_id=request_id, default=default, **context)
        call = Call(decision, self.report_later)
        try:
            yield call
        except BaseException:
            call.finish(success=False)
            raise
        call.finish(success=True)

    def get_decision(self, decision: Decision | str) -> rpc.GetDecisionResponse:
        """A decision with its explanation and its reported outcomes."""
        name = decision if isinstance(decision, str) else decision.name
        request = rpc.GetDecisionRequest(name=name)
        response: rpc.GetDecisionResponse = self._router.GetDecision(
            request, timeout=self._timeout, metadata=self._metadata
        )
        return response

    def flush(self, timeout: float = 5.0) -> int:
        """Wait until nothing waits to be sent, at most ``timeout`` seconds; returns how many reports still do."""
        with self._change:
            self._change.wait_for(lambda: not len(self._outbox), timeout)
            return len(self._outbox)

    def close(self, timeout: float = 5.0) -> None:
        """Send what waits, for at most ``timeout`` seconds, and close the connection."""
        left = self.flush(timeout)
        with self._change:
            self._ending = True
            self._change.notify_all()
        if left:
            log.warning("%d reports could not be sent", left)
        self._channel.close()
        if self._sender is not None:
            self._sender.join()

    def _send(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._ending or len(self._outbox))
                if self._ending:
                    return
                requests = self._outbox.take()
            try:
                message = rpc.BatchReportOutcomesRequest(requests=requests)
                response = self._router.BatchReportOutcomes(message, timeout=self._timeout, metadata=self._metadata)
            except (grpc.RpcError, ValueError) as error:  # ValueError: the channel was closed meanwhile
                if not isinstance(error, grpc.RpcError):
                    return
                self._outbox.failed(error)
            else:
                self._outbox.answered(response)
            wait = self._outbox.delay()
            with self._change:
                self._change.notify_all()
                if wait:
                    end = time.monotonic() + wait
                    while not self._ending and (left := end - time.monotonic()) > 0:
                        self._change.wait(left)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
