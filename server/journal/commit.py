"""Group commit: many callers' groups in one durable append, answered once their rows are folded.

    submit ──▶ gathered ──▶ Journal.append ──▶ where they landed ─┐
                                                                  ├──▶ callers, once their position is folded
               fold  ◀─── rows in order ◀─── Journal.tail ────────┘

What is gathered while one append is under way makes up the next. Rows are folded from the journal's tail and nowhere else; of
those that this process wrote the events are still at hand, so they need not be decoded.

>>> import tempfile
>>> from pathlib import Path
>>> from pointsman.bandit.event import ModelDeleted
>>> from pointsman.server.journal.interface import Condition, Entry
>>> from pointsman.server.journal.sqlite import SqliteJournal
>>> async def example() -> None:
...     journal = SqliteJournal(Path(tempfile.mkdtemp()))
...     commit = GroupCommit(journal, lambda: 5, lambda rows: print("folded", [event.model for _, event in rows]))
...     commit.start()
...     group = Group((Entry(b"deleted", b"models/a"),), conditions=(Condition(b"models/a", 0),))
...     print(await commit.write(group, [ModelDeleted("a")]))
...     await commit.close()
...     await journal.close()
>>> asyncio.run(example())
folded ['a']
Appended(positions=(1,), time_ns=5)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pointsman.bandit.event import Event
from pointsman.server.errors import UnavailableError
from pointsman.server.journal.interface import (
    Appended,
    Conflict,
    Group,
    Journal,
    JournalError,
    Refused,
    Result,
    Row,
    Unknown,
)

log = logging.getLogger("pointsman.commit")

MAX_GROUPS = 4096
"""Most groups in one append: bounds how long one caller waits for the others."""
FOLDED_AT_ONCE = 512
"""Rows that are folded in one turn of the event loop, for others to have theirs."""
UNKNOWN_PATIENCE = 10.0
"""Seconds after which a caller is told that it is not known whether its group was written. It goes on being looked for."""
RETRY, LONGEST_RETRY = 0.02, 1.0
"""Seconds before an unknown append is tried again: first, and at most, doubled each time."""
MAYBE_WRITTEN = "it is not known whether this was written; repeat it with the same request id or idempotency key"


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """A group to append, the events it encodes, the future that gets its result, and what to call when it is settled."""

    group: Group
    events: tuple[Event, ...]
    done: asyncio.Future[Result]
    on_settled: Callable[[], None]


Observer = Callable[[int, float, float], None]
Fold = Callable[[Sequence[tuple[Row, Event | None]]], None]


class GroupCommit:
    """Appends writes to a journal, and folds the journal's tail.

    ``fold`` is called on the loop with the rows after position ``folded``, in order; with the event of those that were written
    here and ``None`` for others. Then those whose rows these are are answered, and ``on_append_done`` is called: the moment to
    write what waited for the append. ``on_broken`` is called once if the rows cannot be folded any further.

    Make it on a running event loop and ``start`` it; ``close`` it before the journal.
    """

    def __init__(
        self,
        journal: Journal,
        clock_ns: Callable[[], int],
        fold: Fold,
        folded: int = 0,
        on_append_done: Callable[[], None] = lambda: None,
        on_broken: Callable[[], None] = lambda: None,
    ) -> None:
        self._journal, self._clock_ns, self._fold, self._folded = journal, clock_ns, fold, folded
        self._on_append_done, self._on_broken = on_append_done, on_broken
        self._loop = asyncio.get_running_loop()
        self.observers: list[Observer] = []
        """Told of every append that was folded: how many groups, how long it took, how long it then waited for its fold."""
        self._gathered: list[Write] = []
        self._unsettled: dict[Write, None] = {}  # submitted, and not known yet what became of them, in order
        self._own: dict[int, Event] = {}  # events written here whose rows the tail has not brought yet, by position
        self._appends: deque[_Answered] = deque()  # what was answered and waits for its fold, in order
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._settle_waiters: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self._under_way = False  # Journal.append has been called and has not answered
        self._closing = False
        self._broken = ""
        self._appending: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._settling: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to fold the tail and to append."""
        self._following = self._loop.create_task(self._follow())
        self._appending = self._loop.create_task(self._append_gathered())

    @property
    def broken(self) -> str:
        """Why nothing can be written any more; empty while all is well."""
        return self._broken

    @property
    def busy(self) -> bool:
        """Whether something is being appended or waits for its fold; ``on_append_done`` is called when that has ended."""
        return self._under_way or bool(self._gathered or self._appends)

    async def write(
        self, group: Group, events: Sequence[Event], on_settled: Callable[[], None] = lambda: None
    ) -> Result:
        """Append ``group``. On ``Appended`` its events are durable and folded; on a refusal the conflicting rows are folded.

        Raises ``UnavailableError`` if they could not be appended, if it is not known whether they were, or if they could not be
        folded: after a fold that failed nothing more is appended. A caller that is cancelled may find its group appended all the
        same; so ``on_settled`` is called once, on the loop, when the events are folded or it is certain that they will not be,
        whatever became of the caller.
        """
        done: asyncio.Future[Result] = self._loop.create_future()
        self.submit([Write(group, tuple(events), done, on_settled)])
        return await done

    def submit(self, writes: Sequence[Write]) -> None:
        """``write`` for many groups, in order, without waiting: their futures get the results or the errors.

        Raises ``ValueError`` for a group that could be appended twice.
        """
        for write in writes:
            if write.group.once is None:
                raise ValueError("expected a condition on a key that the group is filed under")
        refusal = self._broken or ("the server is shutting down" if self._closing else "")
        self._unsettled.update(dict.fromkeys(writes))
        if refusal:
            self._fail(writes, refusal)
            return
        self._gathered += writes
        self._wake.set()

    async def wait_folded(self, position: int) -> None:
        """Return once the fold has come to ``position``. Raises ``UnavailableError`` if it never will."""
        if self._broken:
            raise UnavailableError(self._broken)
        if position > self._folded:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append((position, waiter))
            await waiter

    async def wait_settled(self) -> None:
        """Return once every write submitted by now is settled and folded."""
        submitted = set(self._unsettled)
        while submitted & self._unsettled.keys():
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._settle_waiters.append(waiter)
            await waiter

    async def close(self) -> None:
        """Append what is gathered, fold it and what others have written by then, and stop."""
        self._closing = True
        self._wake.set()
        if self._appending is not None:
            await self._appending
        for task in self._settling:
            task.cancel()
        await asyncio.gather(*self._settling, return_exceptions=True)
        if self._following is not None:
            waiting = asyncio.ensure_future(self._wait_all_folded())
            await asyncio.wait([waiting, self._following], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        self._fail(list(self._unsettled), f"the server is shutting down; {MAYBE_WRITTEN}")

    async def _wait_all_folded(self) -> None:
        await self.wait_folded(max(await self._journal.end(), self._appends[-1].awaited if self._appends else 0))

    async def _append_gathered(self) -> None:
        while True:
            await self._wake.wait()
            while self._gathered:
                writes, self._gathered = self._gathered[:MAX_GROUPS], self._gathered[MAX_GROUPS:]
                await self._append(writes)
            if self._closing:
                return
            self._wake.clear()

    async def _append(self, writes: Sequence[Write]) -> None:
        begun = time.perf_counter()
        self._under_way = True
        try:
            results = await self._journal.append([write.group for write in writes], self._clock_ns())
        except Exception as error:  # whatever went wrong, nothing of it was written and the next append may go well
            if not isinstance(error, JournalError):
                log.exception("the journal failed in an unforeseen way")
            self._under_way = False
            self._fail(writes, str(error) or repr(error))
            self._on_append_done()
            return
        self._under_way = False
        now = time.perf_counter()
        self._answer_once_folded(list(zip(writes, results, strict=True)), now - begun, now)
        unknown = [write for write, result in zip(writes, results, strict=True) if isinstance(result, Unknown)]
        if unknown:
            task = self._loop.create_task(self._settle(unknown))
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)
            if len(unknown) == len(writes):
                self._on_append_done()

    def _answer_once_folded(self, results: Sequence[tuple[Write, Result]], seconds: float, durable: float) -> None:
        """Answer these as soon as the rows that they tell of are folded. ``seconds`` is what it took until ``durable``."""
        answered = [(write, result) for write, result in results if not isinstance(result, Unknown)]
        if self._broken:  # all have been answered
            self._on_append_done()
            return
        if not answered:
            return
        awaited = 0
        for write, result in answered:
            if isinstance(result, Appended):
                for position, event in zip(result.positions, write.events, strict=True):
                    if position > self._folded:
                        self._own[position] = event
            awaited = max(awaited, _position(result))
        self._appends.append(_Answered(awaited, answered, seconds, durable))
        self._answer_folded()

    def _answer_folded(self) -> None:
        while self._appends and self._appends[0].awaited <= self._folded:
            append = self._appends.popleft()
            for observe in self.observers:
                observe(len(append.results), append.seconds, time.perf_counter() - append.durable)
            for write, result in append.results:
                self._settled(write)
                if not write.done.done():
                    write.done.set_result(result)
            self._wake_settle_waiters()
            self._on_append_done()
        ready = [waiter for position, waiter in self._waiters if position <= self._folded]
        if ready:
            self._waiters = [(position, waiter) for position, waiter in self._waiters if position > self._folded]
            for waiter in ready:
                if not waiter.done():
                    waiter.set_result(None)

    def _settled(self, write: Write) -> None:
        if write in self._unsettled:
            del self._unsettled[write]
            write.on_settled()

    def _wake_settle_waiters(self) -> None:
        waiters, self._settle_waiters = self._settle_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _follow(self) -> None:
        try:
            async for rows in self._journal.tail(self._folded):
                for start in range(0, len(rows), FOLDED_AT_ONCE):
                    if start:
                        await asyncio.sleep(0)
                    some = rows[start : start + FOLDED_AT_ONCE]
                    self._fold([(row, self._own.pop(row.position, None)) for row in some])
                    self._folded = some[-1].position
                self._answer_folded()
        except Exception as error:
            # What was appended is durable but must not be acknowledged as learned. An event may be half applied: going on would
            # serve a state that is not the fold of the journal, and append to it what was decided on that state.
            log.exception("the journal cannot be folded any further")
            self._break(error)

    def _break(self, error: Exception) -> None:
        """Take nothing any more, and answer all who wait."""
        self._broken = f"the journal cannot be folded any further ({error!r}); nothing is taken until that is mended"
        gathered, self._gathered = self._gathered, []
        self._appends.clear()
        self._fail(gathered, self._broken)
        self._fail(list(self._unsettled), f"{self._broken}; {MAYBE_WRITTEN}")
        for _, waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(UnavailableError(self._broken))
        self._on_broken()
        self._on_append_done()

    async def _settle(self, writes: Sequence[Write]) -> None:
        """Append groups again of which it is not known whether they were written, until it is."""
        delay, timer = RETRY, self._loop.call_later(UNKNOWN_PATIENCE, _tell_unknown, writes)
        while writes and not self._broken:
            await asyncio.sleep(delay)
            delay = min(2.0 * delay, LONGEST_RETRY)
            try:
                results = await self._journal.append([write.group for write in writes], self._clock_ns())
            except Exception as error:  # whatever it is: what they hold may be released only when they are settled
                log.warning("cannot find out what became of an append (it is tried again): %r", error)
                continue
            settled = list(zip(writes, results, strict=True))
            self._answer_once_folded(settled, 0.0, time.perf_counter())
            writes = [write for write, result in settled if isinstance(result, Unknown)]
        timer.cancel()

    def _fail(self, writes: Sequence[Write], why: str) -> None:
        for write in writes:
            self._settled(write)
            if not write.done.done():
                write.done.set_exception(UnavailableError(why))
        self._wake_settle_waiters()


@dataclass(frozen=True, slots=True)
class _Answered:
    """What became of one append: the results and the last position that they tell of, which is to be folded first."""

    awaited: int
    results: Sequence[tuple[Write, Result]]
    seconds: float
    durable: float


def _tell_unknown(writes: Sequence[Write]) -> None:
    """Answer callers still waiting that it is not known whether their groups were written."""
    for write in writes:
        if not write.done.done():
            write.done.set_exception(UnavailableError(MAYBE_WRITTEN))


def _position(result: Result) -> int:
    """The last position that a result tells of."""
    match result:
        case Appended():
            return result.positions[-1]
        case Conflict():
            return result.span.last if result.span is not None else 0
        case Refused():
            return result.position
        case Unknown():
            return 0
