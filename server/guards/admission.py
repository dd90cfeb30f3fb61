"""How many calls run at once: what is over that is refused at once, so that what is admitted keeps its latency.

A server that takes more calls than it can answer makes all of them late, and callers that have given up are answered for
nothing. Two things are kept short:

- what is under way: calls are weighed, and one that would have to wait too long, or past its own deadline, is refused. How
  long follows from what was served lately: the weight of the calls under way over the weight that is served per second.
- what is not begun: calls wait inside gRPC, unseen, until the event loop gets to them. `server/guards/queue_delay.py` measures
  how long, and from that follows the share of calls that is refused, as in the queue disciplines that drop by chance to keep a
  delay (PIE, RFC 8033): it rises by how far the delay is over its target, and falls off under it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc

from pointsman.server.errors import LateError, OverloadedError
from pointsman.server.rpc.interceptor import Continuation, Interceptor, refuse, wrap
from pointsman.server.rpc.status import Call

MAX_IN_FLIGHT = 1024
"""Most unary calls under way at once, by weight."""
MAX_WAIT = 0.5
"""Longest time in seconds that an admitted call may expect to wait for those before it."""
FREE = 64
"""So many calls, by weight, may always be under way: the least from which the pace of a group commit can be told."""
MAX_STREAMS = 256
"""Most streams (`WatchDecisions`, `ExportJournal`) at once."""
PER_WEIGHT = 16
"""So many contexts or reports of a batch weigh as much as one call: they share the cost of it."""
TARGET = 0.4
"""The delay in seconds before calls are begun that refusals keep to when there are too many."""
QUEUE = 16
"""So many calls may wait to be begun, however long: a few callers with large batches are no overload."""
RISE, FALL = 0.3, 0.9
"""How the share of refusals moves with each measurement: by so much for each second over the target, times so much under it."""
BURST = 4
"""So many measurements in a row must be over the target before calls are refused: a burst passes by itself."""
MOST_REFUSED = 0.95
"""Largest share of calls refused because of the delay: some must come through, for the delay to be that of real calls."""
MEMORY = 1.0
"""Busy seconds after which what was measured counts half."""
EXEMPT = ("/grpc.health.", "/grpc.reflection.")
"""What must answer when nothing else does."""

_WEIGH: dict[str, Callable[[Any], int]] = {
    "BatchDecide": lambda request: 1 + len(request.contexts) // PER_WEIGHT,
    "BatchReportOutcomes": lambda request: 1 + len(request.requests) // PER_WEIGHT,
}
"""What a call of a method weighs, if not 1."""


class Admission:
    """The calls under way, and the pace at which they are served. Used on one event loop; ``clock`` gives seconds."""

    def __init__(
        self,
        max_in_flight: int = MAX_IN_FLIGHT,
        max_wait: float = MAX_WAIT,
        max_streams: int = MAX_STREAMS,
        clock: Callable[[], float] = time.perf_counter,
        draw: Callable[[], float] | None = None,
    ) -> None:
        self._max_in_flight, self._max_wait, self._max_streams, self._clock = (
            max_in_flight,
            max_wait,
            max_streams,
            clock,
        )
        self.in_flight = 0
        """The weight of the unary calls under way."""
        self.streams = 0
        """How many streams there are."""
        self.admitted = 0
        """How many unary calls were admitted so far."""
        self.shed = 0
        """How many calls and streams were refused so far."""
        self.refused_share = 0.0
        """Share of calls that is refused at present because calls wait long to be begun."""
        self._delay, self._over = 0.0, 0  # as last measured, and how often in a row it was over its target
        self._came, self._said, self._rate = (
            0,
            clock(),
            0.0,
        )  # calls since the last measurement, its time, calls per second
        self._draw = draw or random.Random().random
        self._busy = 0.0  # seconds in which calls were under way, forgotten by halves, and what was served in them
        self._served = 0.0
        self._since = 0.0  # from when on busy time is not in ``_busy`` yet

    def enter(self, weight: int, remaining: float | None) -> None:
        """Count a unary call of ``weight`` in; ``leave`` must follow. ``remaining`` is the time to its deadline in seconds.

        Raises ``LateError`` if its deadline has passed, ``OverloadedError`` if it would wait too long; then it is not
        counted. A call alone is always admitted, whatever it weighs.
        """
        if remaining is not None and remaining <= 0:
            raise LateError
        in_flight = self.in_flight
        if not in_flight:
            self._since = self._clock()
        elif in_flight + weight > FREE:
            wait = self.wait()
            late = remaining is not None and wait > remaining
            if late or wait > self._max_wait or in_flight + weight > self._max_in_flight:
                self.shed += 1
                raise OverloadedError(min(max(wait, 0.05), 5.0))
        self.in_flight = in_flight + weight
        self.admitted += 1

    def leave(self, weight: int, served: bool) -> None:
        """Count a call out that was counted in. ``served``: it ran to its end, so that it tells of the pace."""
        now = self._clock()
        self._busy += now - self._since
        self._since = now
        self.in_flight -= weight
        if served:
            self._served += weight
        if self._busy > MEMORY:
            self._busy *= 0.5
            self._served *= 0.5

    def wait(self) -> float:
        """Seconds that the calls under way will take, at the pace of late; 0 if too little is known of that."""
        known = self._busy >= MEMORY / 2 and self._served
        return self.in_flight * self._busy / self._served if known else 0.0

    def delayed(self, seconds: float) -> None:
        """Say that calls wait ``seconds`` to be begun at present; said about every 0.1 s."""
        now = self._clock()
        self._rate += 0.3 * (self._came / max(now - self._said, 1e-3) - self._rate)
        self._came, self._said = 0, now
        if self._rate * seconds < QUEUE:  # so many wait, by Little's law
            seconds = 0.0
        self._delay = seconds
        self._over = self._over + 1 if seconds > TARGET else 0
        if self._over >= BURST:
            self.refused_share = min(self.refused_share + RISE * (seconds - TARGET), MOST_REFUSED)
        elif not self._over:
            self.refused_share = self.refused_share * FALL if self.refused_share > 0.01 else 0.0

    def refuse(self) -> OverloadedError | None:
        """Why a call that has come is to be refused unseen, or ``None``. By chance: ``refused_share`` of all are."""
        self._came += 1
        if not self.refused_share or self._draw() >= self.refused_share:
            return None
        self.shed += 1
        return OverloadedError(min(max(self._delay, 0.1), 5.0))

    def enter_stream(self) -> None:
        """Count a stream in. Raises ``OverloadedError`` if there are as many as there may be."""
        if self.streams >= self._max_streams:
            self.shed += 1
            raise OverloadedError(1.0)
        self.streams += 1

    def leave_stream(self) -> None:
        """Count a stream out."""
        self.streams -= 1


class _AdmittedCall:
    """An admitted unary call until it ends. A class, because a generator would cost every call microseconds more."""

    __slots__ = ("_admission", "_weight")

    def __init__(self, admission: Admission, weight: int) -> None:
        self._admission, self._weight = admission, weight

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._admission.leave(self._weight, served=error is None or isinstance(error, grpc.aio.AbortError))


class AdmissionInterceptor(Interceptor):
    """Puts every call of the service before ``admission``; the innermost of the interceptors, so that it sees what is called."""

    def __init__(self, admission: Admission) -> None:
        super().__init__()
        self._admission = admission

    def applies(self, method: str) -> bool:
        """All methods but those that must answer when nothing else does."""
        return not method.startswith(EXEMPT)

    async def intercept_service(self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The call's handler behind ``admission``, or one that refuses the call before its request is read."""
        handler, _ = self._wrapped.get(handler_call_details.method, (None, None))
        if handler is not None and not handler.response_streaming:
            error = self._admission.refuse()
            if error is not None:
                return refuse(handler, error)
        return await super().intercept_service(continuation, handler_call_details)

    def wrapped(self, handler: Any, method: str) -> Any:
        """The handler of ``method`` behind ``admission``."""
        if handler.response_streaming:
            return wrap(handler, self._around_stream)
        return wrap(handler, partial(self.around, method))

    def around(self, method: str, request: Any, context: Call) -> _AdmittedCall:
        """Counts a unary call in, and out when it ends. Raises ``LateError`` or ``OverloadedError``."""
        weigh = _WEIGH.get(method.rpartition("/")[2])
        weight = weigh(request) if weigh else 1
        self._admission.enter(weight, context.time_remaining())
        return _AdmittedCall(self._admission, weight)

    @contextmanager
    def _around_stream(self, request: Any, context: Call) -> Iterator[None]:
        self._admission.enter_stream()
        try:
            yield
        finally:
            self._admission.leave_stream()
