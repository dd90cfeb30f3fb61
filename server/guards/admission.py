"""Admission control: calls beyond what can be served in time are refused at once, so that admitted ones keep their latency.

A server that takes more calls than it can answer makes all of them late, and does work for callers that have given up. Two
queues are kept short:

- Calls under way. They have weights, and a call that would have to wait too long, or past its own deadline, is refused. The
  expected wait is the weight of the calls under way over the weight served per second of late.
- Calls not yet begun. They wait inside gRPC, unseen, until the event loop gets to them. `server/guards/queue_delay.py`
  measures how long, and that drives the share of calls that is refused at random, as in active queue management (PIE, RFC
  8033): it grows with the delay's excess over its target, and decays below the target.

>>> admission = Admission(max_in_flight=100)
>>> admission.enter(weight=99, remaining=None)
>>> admission.enter(weight=2, remaining=None)
Traceback (most recent call last):
    ...
pointsman.server.errors.OverloadedError: too many calls are under way; nothing was done, retry later
>>> admission.leave(weight=99, served=True)
>>> admission.in_flight
0
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
"""Largest weight of the unary calls under way."""
MAX_WAIT = 0.5
"""Longest expected wait of an admitted call, in seconds."""
ALWAYS_ADMITTED = 64
"""Weight that is admitted whatever the expected wait: with fewer calls the pace of a group commit cannot be told."""
MAX_STREAMS = 256
"""Most streams (`WatchDecisions`, `ExportJournal`) at once."""
PER_WEIGHT = 16
"""Contexts or reports of a batch that weigh as much as one call: they share its overhead."""
TARGET_DELAY = 0.4
"""Queue delay, in seconds, that refusals aim at under overload."""
SHORT_QUEUE = 16
"""Calls that may wait to be begun, however long: a few callers with large batches are no overload."""
RISE = 0.3
"""What a measurement over the target adds to the share of refusals, for each second of excess."""
DECAY = 0.9
"""What a measurement below the target multiplies the share of refusals by."""
BURST_LENGTH = 4
"""Measurements in a row that must be over the target before calls are refused: a burst passes by itself."""
MAX_REFUSED_SHARE = 0.95
"""Largest share of calls refused because of the delay: some must come through, for the delay to be that of real calls."""
PACE_HALF_LIFE = 1.0
"""Busy seconds after which what was measured of the pace counts half."""
EXEMPT = ("/grpc.health.", "/grpc.reflection.")
"""Services that must answer when nothing else does."""

_WEIGH: dict[str, Callable[[Any], int]] = {
    "BatchDecide": lambda request: 1 + len(request.contexts) // PER_WEIGHT,
    "BatchReportOutcomes": lambda request: 1 + len(request.requests) // PER_WEIGHT,
}
"""The weights of calls by method, where they are not 1."""


class Admission:
    """The calls under way, and the pace at which they are served. For one event loop.

    ``clock`` gives seconds; ``draw``, numbers that are uniform in [0, 1), decides which calls are refused for the delay.
    """

    def __init__(
        self,
        max_in_flight: int = MAX_IN_FLIGHT,
        max_wait: float = MAX_WAIT,
        max_streams: int = MAX_STREAMS,
        clock: Callable[[], float] = time.perf_counter,
        draw: Callable[[], float] | None = None,
    ) -> None:
        self._max_in_flight, self._max_wait, self._max_streams = max_in_flight, max_wait, max_streams
        self._clock = clock
        self._draw = draw or random.Random().random
        self.in_flight = 0
        """Weight of the unary calls under way."""
        self.streams = 0
        """Streams under way."""
        self.admitted = 0
        """Unary calls admitted so far."""
        self.shed = 0
        """Calls and streams refused so far."""
        self.refused_share = 0.0
        """Share of calls that is refused at present because of the queue delay."""
        self._delay = 0.0  # as last measured, in seconds
        self._over_target = 0  # measurements in a row that were over the target
        self._arrivals = 0  # since the last measurement
        self._measured_at = clock()
        self._arrival_rate = 0.0  # calls per second, smoothed
        self._busy = 0.0  # seconds in which calls were under way, halved now and then
        self._served = 0.0  # weight that was served in them
        self._busy_since = 0.0  # the time up to which ``_busy`` is counted

    def enter(self, weight: int, remaining: float | None) -> None:
        """Count a unary call of ``weight`` in; ``leave`` must follow. ``remaining`` is the time to its deadline in seconds.

        Raises ``LateError`` if its deadline has passed, ``OverloadedError`` if it would wait too long; then it is not
        counted. A call alone is always admitted, whatever it weighs.
        """
        if remaining is not None and remaining <= 0:
            raise LateError
        in_flight = self.in_flight
        if not in_flight:
            self._busy_since = self._clock()
        elif in_flight + weight > ALWAYS_ADMITTED:
            wait = self.wait()
            is_late = remaining is not None and wait > remaining
            if is_late or wait > self._max_wait or in_flight + weight > self._max_in_flight:
                self.shed += 1
                raise OverloadedError(min(max(wait, 0.05), 5.0))
        self.in_flight = in_flight + weight
        self.admitted += 1

    def leave(self, weight: int, served: bool) -> None:
        """Count a call out that was counted in. ``served``: it ran to its end, so that it says something about the pace."""
        now = self._clock()
        self._busy += now - self._busy_since
        self._busy_since = now
        self.in_flight -= weight
        if served:
            self._served += weight
        if self._busy > PACE_HALF_LIFE:
            self._busy *= 0.5
            self._served *= 0.5

    def wait(self) -> float:
        """Seconds that the calls under way will take at the recent pace; 0 while too little is known of it."""
        is_known = self._busy >= PACE_HALF_LIFE / 2 and self._served
        return self.in_flight * self._busy / self._served if is_known else 0.0

    def observe_delay(self, seconds: float) -> None:
        """Take in a measurement of the queue delay, in seconds; about every 0.1 s."""
        now = self._clock()
        self._arrival_rate += 0.3 * (self._arrivals / max(now - self._measured_at, 1e-3) - self._arrival_rate)
        self._arrivals, self._measured_at = 0, now
        if self._arrival_rate * seconds < SHORT_QUEUE:  # the queue's length, by Little's law
            seconds = 0.0
        self._delay = seconds
        self._over_target = self._over_target + 1 if seconds > TARGET_DELAY else 0
        if self._over_target >= BURST_LENGTH:
            self.refused_share = min(self.refused_share + RISE * (seconds - TARGET_DELAY), MAX_REFUSED_SHARE)
        elif not self._over_target:
            self.refused_share = self.refused_share * DECAY if self.refused_share > 0.01 else 0.0

    def refuse(self) -> OverloadedError | None:
        """The error of a call that is refused before its request is read, or ``None``: at random, ``refused_share`` of all."""
        self._arrivals += 1
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
