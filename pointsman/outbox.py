"""A buffer of reports that wait to be sent, shared by both clients. Thread-safe; sends nothing itself.

>>> refused = []
>>> outbox = Outbox(refused.append, limit=2)
>>> for name in ("decisions/1", "decisions/2", "decisions/3"):
...     outbox.add(rpc.ReportOutcomeRequest(decision=name))
>>> [refusal.request.decision for refusal in refused]  # the oldest: only two may wait
['decisions/1']
>>> [request.decision for request in outbox.take()]
['decisions/2', 'decisions/3']
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence

import grpc

from pointsman.messages import UNREACHED, Refusal
from pointsman.v1 import router_service_pb2 as rpc

log = logging.getLogger("pointsman.client")

LIMIT = 100_000
"""Most reports that wait; beyond it the oldest are given up."""
AT_ONCE = 512
"""Most reports in one call."""
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
"""Seconds between tries: doubled with each that fails, half of it by chance."""
_LATER = frozenset(code.value[0] for code in UNREACHED)


class Outbox:
    """Reports in the order given, until the service has taken or refused them. Each carries its idempotency key, so that one
    which is sent again counts once.

    ``on_refused`` is told of every report that is given up: refused by the service, or the oldest when more than ``limit`` wait.
    """

    def __init__(self, on_refused: Callable[[Refusal], None] | None, limit: int = LIMIT) -> None:
        self._on_refused = on_refused or _log_refusal
        self._limit = limit
        self._waiting: deque[rpc.ReportOutcomeRequest] = deque()
        self._sending: list[rpc.ReportOutcomeRequest] = []
        self._lock = threading.Lock()
        self._failures = 0
        self.refused = 0
        """How many reports were given up so far."""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sending)

    def add(self, request: rpc.ReportOutcomeRequest) -> None:
        """Take a report."""
        oldest = None
        with self._lock:
            self._waiting.append(request)
            if len(self._waiting) > self._limit:
                oldest = self._waiting.popleft()
        if oldest is not None:
            self._refuse(oldest, "RESOURCE_EXHAUSTED", f"more than {self._limit} reports wait to be sent")

    def take(self) -> Sequence[rpc.ReportOutcomeRequest]:
        """The next reports to send; ``answered`` or ``failed`` must follow. One sender at a time."""
        with self._lock:
            count = min(AT_ONCE, len(self._waiting))
            self._sending = [self._waiting.popleft() for _ in range(count)]
            return self._sending

    def answered(self, response: rpc.BatchReportOutcomesResponse) -> None:
        """The service answered the reports taken: those that it could not take now wait again."""
        taken, again = self._sending, []
        for request, result in zip(taken, response.results, strict=True):
            if result.HasField("error"):
                if result.error.code in _LATER:
                    again.append(request)
                else:
                    name = next((c.name for c in grpc.StatusCode if c.value[0] == result.error.code), "UNKNOWN")
                    self._refuse(request, name, result.error.message)
        self._again(again)

    def failed(self, error: grpc.RpcError) -> None:
        """The call with the reports taken failed: they wait again, unless the service says that it will never take them."""
        code = error.code()
        final = (
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.PERMISSION_DENIED,
            grpc.StatusCode.UNIMPLEMENTED,
        )
        if code in final:
            taken = self._sending
            self._again([])
            for request in taken:
                self._refuse(request, code.name, error.details() or "")
        else:
            self._again(self._sending)

    def delay(self) -> float:
        """Seconds to wait before the next try; 0 if the last one went well."""
        if not self._failures:
            return 0.0
        longest: float = min(FIRST_DELAY * 2.0 ** (self._failures - 1), LONGEST_DELAY)
        return longest * (0.5 + 0.5 * random.random())

    def _again(self, requests: Sequence[rpc.ReportOutcomeRequest]) -> None:
        with self._lock:
            self._waiting.extendleft(reversed(requests))
            self._sending = []
            self._failures = min(self._failures + 1, 30) if requests else 0

    def _refuse(self, request: rpc.ReportOutcomeRequest, code: str, message: str) -> None:
        self.refused += 1
        try:
            self._on_refused(Refusal(request, code, message))
        except Exception:  # the caller's own function: its fault must not stop the reports that follow
            log.exception("on_refused failed")


def _log_refusal(refusal: Refusal) -> None:
    log.warning("a report on %s was refused: %s: %s", refusal.request.decision, refusal.code, refusal.message)
