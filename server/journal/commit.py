"""Group commit: many callers' groups in one durable append.

A single thread appends whatever has gathered while the last append was being flushed, so that the cost of a flush is
shared by all who wait for it. Results come back to the event loop in journal order.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pointsman.bandit.event import Event
from pointsman.server.errors import UnavailableError
from pointsman.server.journal.interface import Appended, Group, Journal, JournalError, Result, Row

log = logging.getLogger("pointsman.commit")

MAX_GROUPS = 4096
"""Most groups in one append: bounds how long one caller waits for the others."""


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """A group to append, the events it encodes, the future that gets its result, and what to call when it is known."""

    group: Group
    events: tuple[Event, ...]
    done: asyncio.Future[Result]
    settled: Callable[[], None]


_NEWS_AT_ONCE = 200
"""Rows of other writers that are folded in one turn of the loop."""

Observer = Callable[[int, float, float], None]
Deliver = Callable[[Sequence[tuple[Write, Result]]], None]


class GroupCommit:
    """Appends writes to a journal from one thread. ``deliver`` is called on the loop with each append's results, in
    journal order, before their futures are resolved: the place to fold the events. ``landed`` is called after that.

    With ``poll``, others write to the journal too: it is looked at every ``poll`` seconds and after each append, and ``news`` is
    called on the loop with what they wrote after position ``told``. All that is delivered is in the journal's order: rows that
    come before a result are delivered before it, also if the result is that nothing was written.
    """

    def __init__(
        self,
        journal: Journal,
        loop: asyncio.AbstractEventLoop,
        clock_ns: Callable[[], int],
        deliver: Deliver,
        landed: Callable[[], None] = lambda: None,
        *,
        poll: float | None = None,
        told: int = 0,
        news: Callable[[Sequence[Row]], None] = lambda rows: None,
    ) -> None:
        self._poll, self._told, self._news = poll, told, news
        self._journal = journal
        self._loop = loop
        self._clock_ns = clock_ns
        self.observers: list[Observer] = []
        """Told of every append that was folded: how many groups, how long it took, how long it then waited for its fold."""
        self._deliver = deliver
        self._landed = landed
        self._pending: list[Write] = []
        self._under_way = 0  # writes submitted whose results are not known yet; touched on the loop only
        self._wake = threading.Condition()
        self._closing = False
        self._broken = ""
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    @property
    def broken(self) -> str:
        """Why nothing can be written any more; empty while all is well."""
        return self._broken

    async def write(self, group: Group, events: Sequence[Event], settled: Callable[[], None] = lambda: None) -> Result:
        """Append ``group``; when this returns ``Appended`` the events are durable and folded.

        Raises ``UnavailableError`` if they could not be appended, or not folded: after a fold that failed nothing more is
        appended. A caller that is cancelled may find its group appended all the same; so ``settled`` is called once, on the
        loop, when the events are folded or it is certain that they will not be, whatever became of the caller.
        """
        done: asyncio.Future[Result] = self._loop.create_future()
        self.submit([Write(group, tuple(events), done, settled)])
        return await done

    def submit(self, writes: Sequence[Write]) -> None:
        """``write`` for many groups, in order, without waiting: their futures get the results or the errors."""
        with self._wake:
            refused = self._broken or ("the server is shutting down" if self._closing else "")
            if not refused:
                self._pending += writes
                self._under_way += len(writes)
                self._wake.notify()
        if refused:
            self._fail(writes, refused)

    @property
    def busy(self) -> bool:
        """Whether something is being appended; ``landed`` is called when that has ended."""
        return self._under_way > 0

    def close(self) -> None:
        """Append what is pending, then stop. Blocks; call it off the loop."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._pending and not self._closing:
                    self._wake.wait(self._poll)
                writes, self._pending = (
                    self._pending[:MAX_GROUPS],
                    self._pending[MAX_GROUPS:],
                )
                ending = self._closing and not writes
            if not writes:
                self._tell()
                if ending:
                    return
                continue
            begun = time.perf_counter()
            try:
                results = self._journal.append([write.group for write in writes], self._clock_ns())
            except Exception as error:
                # Whatever went wrong, nothing of it was written and the next append may go well: this thread must live.
                if not isinstance(error, JournalError):
                    log.exception("the journal failed in an unforeseen way")
                self._call(self._failed, writes, str(error) or repr(error))
            else:
                own = [result for result in results if isinstance(result, Appended) and result.count]
                self._tell(own[0].first - 1 if own else None)
                if own:
                    self._told = own[-1].first + own[-1].count - 1
                durable = time.perf_counter()
                self._call(self._finish, list(zip(writes, results, strict=True)), durable - begun, durable)

    def _tell(self, last: int | None = None) -> None:
        """Hand over what others wrote up to ``last``, or so far."""
        if self._poll is None:
            return
        try:
            last = self._journal.last_position() if last is None else last
            if last <= self._told:
                return
            rows: list[Row] = []
            for row in self._journal.read(self._told + 1, last):
                rows.append(row)
                if len(rows) == _NEWS_AT_ONCE or row.position == last:
                    self._call(self._hear, rows)
                    self._told, rows = row.position, []
        except Exception as error:  # it is tried again; a gap, should there be one, is noticed by the fold
            log.warning("cannot read what others wrote: %s", error)

    def _hear(self, rows: Sequence[Row]) -> None:
        if self._broken:
            return
        try:
            self._news(rows)
        except Exception as error:
            self._break(error)
            raise

    def _break(self, error: Exception) -> None:
        """Take nothing any more: what was handed over can be half folded."""
        self._broken = f"the journal cannot be folded any further ({error!r}); nothing is taken until that is mended"

    def _call(self, deliver: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():  # else nobody waits for the answer any more; what is durable stays so
            self._loop.call_soon_threadsafe(deliver, *arguments)

    def _failed(self, writes: Sequence[Write], why: str) -> None:
        self._under_way -= len(writes)
        self._fail(writes, why)
        self._landed()

    def _finish(self, results: Sequence[tuple[Write, Result]], seconds: float, durable: float) -> None:
        writes = [write for write, _ in results]
        if self._broken:
            self._failed(writes, self._broken)
            return
        try:
            self._deliver(results)
        except Exception as error:
            # These are durable but must not be acknowledged as learned. An event may be half applied: going on would
            # serve a state that is not the fold of the journal, and append to it what was decided on that state.
            self._break(error)
            self._failed(writes, self._broken)
            raise
        for observe in self.observers:
            observe(len(writes), seconds, time.perf_counter() - durable)
        self._under_way -= len(writes)
        for write, result in results:
            write.settled()
            if not write.done.done():
                write.done.set_result(result)
        self._landed()

    @staticmethod
    def _fail(writes: Sequence[Write], why: str) -> None:
        for write in writes:
            write.settled()
            if not write.done.done():
                write.done.set_exception(UnavailableError(why))


def positions(result: Appended) -> range:
    """The positions of an appended group's entries."""
    return range(result.first, result.first + result.count)
