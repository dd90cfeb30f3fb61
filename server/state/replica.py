"""One replica: the state folded from a journal, and everything that reads it or adds to the journal.

All state is touched on one event loop only, so nothing here locks. A write is made into an event on the state as it is,
appended (in a group with others), and folded when it is durable; then its caller is answered.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from pointsman.bandit import event as e
from pointsman.bandit.bucket import BucketState
from pointsman.bandit.catalog import Bucket, Model, Objective, Project, QualityRange
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Context
from pointsman.bandit.errors import FieldError, NothingEligibleError, within
from pointsman.bandit.join import join
from pointsman.bandit.limits import NO_LIMITS, Limits
from pointsman.bandit.outcome import ReportedOutcome, Signal
from pointsman.bandit.pacer import ActiveBudget
from pointsman.bandit.state import ModelState, ProjectState, State, active_budgets, apply
from pointsman.server.codec.event import read_event, write_event
from pointsman.server.errors import (
    AlreadyExistsError,
    ExpiredError,
    InUseError,
    NotFoundError,
    StaleError,
    UnavailableError,
)
from pointsman.server.journal.commit import GroupCommit, Observer, Write, positions
from pointsman.server.journal.interface import (
    Appended,
    Behind,
    Conflict,
    Duplicate,
    Entry,
    Group,
    Journal,
    JournalError,
    JournalFormatError,
    Result,
    Row,
)
from pointsman.server.journal.keys import decisions_once, key_of, report_once
from pointsman.server.names import bucket_name, decision_name, model_name, new_decision_id, project_name
from pointsman.server.state import snapshot
from pointsman.server.state.reservations import Pending, holders
from pointsman.server.state.retention import retain
from pointsman.v1 import journal_pb2

log = logging.getLogger("pointsman.replica")
Resource = ModelState | BucketState | ProjectState

DECISIONS_KEPT = 20_000
"""Recent decisions kept in memory, so that their outcomes need no look-up. About 3 kB each."""
WATCH_QUEUE = 10_000
"""Decisions that a watcher may be behind before it loses the oldest."""
ENOUGH = 32
"""Requests gathered that are decided though an append is under way."""
ATTEMPTS = 64
"""How often an outcome is joined anew because another one of the same decision came first, or something is decided anew because
another process decided at the same time.
"""
POLL = 0.005
"""Seconds between two looks for what other processes wrote."""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A decision and what is known of its outcome: ``reported_outcomes`` by model, ``last`` the position of its last event."""

    decision: e.DecisionMade
    time_ns: int
    last: int
    reported_outcomes: Mapping[str, ReportedOutcome]


@dataclass(slots=True, eq=False)
class _Ask:
    """One caller's contexts, waiting to be decided. ``done`` gets what became of them; then ``events`` are the decisions."""

    contexts: Sequence[Context]
    field: str
    request_id: str
    done: asyncio.Future[Result]
    events: Sequence[e.DecisionMade] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """One report on a decision: signals and their values, an idempotency key or "", the model reported on or "" for the
    chosen one.
    """

    decision: bytes
    signals: Mapping[Signal, float]
    key: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Reported:
    """What is known of the decision and model after a report, and whether the report was a repetition."""

    outcome: ReportedOutcome
    duplicate: bool
    position: int


class Replica:
    """The fold of ``journal``, kept up to date, and the only writer to it in this process.

    ``shared``: other processes write to it too.

    Make one with ``open_replica`` on a running event loop; end it with ``close``.
    """

    def __init__(
        self,
        journal: Journal,
        state: State,
        rng: np.random.Generator,
        clock_ns: Callable[[], int],
        snapshots: Path | None,
        snapshot_every: int = snapshot.EVERY,
        retention_ns: int = 0,
        shared: bool = False,
    ) -> None:
        self.state = state
        self._shared = shared
        self._retention_ns = retention_ns
        self._closing = threading.Event()
        self._journal = journal
        self._rng = rng
        self._clock_ns = clock_ns
        self._snapshots = snapshots
        self._snapshot_every = snapshot_every
        self._snapshot_position = state.position
        self._snapshot_task: asyncio.Task[None] | None = None
        self._capture: snapshot.Capture | None = None  # the copy for a snapshot, while it is being made
        self._loop = asyncio.get_running_loop()
        self._commit = GroupCommit(
            journal,
            self._loop,
            clock_ns,
            self._deliver,
            self._landed,
            poll=POLL if shared else None,
            told=state.position,
            news=self._hear,
        )
        self._recent: OrderedDict[bytes, Known] = OrderedDict()
        self._asked: dict[tuple[str, Objective | None], list[_Ask]] = {}
        self._gathered = 0  # how many asks these are
        self._soon = False  # whether they are about to be answered
        self._pending = Pending()
        self._unseen = 0  # outcomes folded whose decision was not in memory
        self._observers: list[Callable[[e.Record], None]] = []
        self._watchers: set[asyncio.Queue[e.DecisionMade | None]] = set()
        self._ending = False
        self.broken = asyncio.Event()
        """Set when the fold has failed, so that nothing more is taken."""

    # --- decisions and outcomes -------------------------------------------------------------------------------------

    async def decide(
        self,
        bucket_id: str,
        contexts: Sequence[Context],
        objective: Objective | None,
        limits: Limits | None,
        request_id: str,
        field: str = "context",
    ) -> list[Known]:
        """Decide for each of ``contexts`` and journal it; all or none. ``field`` is what errors call a context.

        With a ``request_id`` that this bucket has seen, answers the decisions made then. Single requests that come at about the
        same time are decided together, on the same state: that costs each a fraction.
        """
        for _ in range(ATTEMPTS):
            ask = _Ask(contexts, field, request_id, self._loop.create_future())
            result = await self._ask(ask, bucket_id, objective, limits)
            match result:
                case Appended():
                    return [
                        Known(event, result.time_ns, position, {})
                        for event, position in zip(ask.events, positions(result), strict=True)
                    ]
                case Duplicate():
                    return await self._decided(result, len(contexts))
                case Conflict():
                    raise UnavailableError("two decisions were given the same id; nothing was written, retry")
                case Behind():  # another process decided meanwhile, and may have spent what is left of a hard budget
                    continue
        raise UnavailableError("too many decisions on this budget at the same time; nothing was written, retry")

    async def _ask(self, ask: _Ask, bucket_id: str, objective: Objective | None, limits: Limits | None) -> Result:
        """Have ``ask`` decided; what became of it."""
        contexts, request_id = ask.contexts, ask.request_id
        if len(contexts) == 1 and limits is None:
            # What is decided now would wait for the append that is under way: so gather until that has ended, or enough came.
            asks = self._asked.setdefault((bucket_id, objective), [])
            asks.append(ask)
            self._gathered += 1
            if self._gathered == ENOUGH:
                self._loop.call_soon(self._answer_gathered)
            elif not (self._commit.busy or self._soon):
                self._answer_soon()
        else:
            self._answer([ask], bucket_id, objective, limits)
        try:
            return await ask.done
        except NothingEligibleError:  # the first decision of this request may have taken the last of a budget
            once = decisions_once(bucket_id, request_id)
            before = await self._commit.write(Group((), once), ()) if once else None
            if not isinstance(before, Duplicate):
                raise
            return before

    def _landed(self) -> None:
        if not self._soon:
            self._answer_soon()

    def _answer_soon(self, before: int = 0) -> None:
        """Answer what is gathered once a turn of the loop has brought nothing more."""
        if self._gathered == before:
            self._answer_gathered()
        else:
            self._soon = True
            self._loop.call_soon(self._answer_soon, self._gathered)

    def _answer_gathered(self) -> None:
        asked, self._asked, self._gathered, self._soon = self._asked, {}, 0, False
        for (bucket_id, objective), asks in asked.items():
            self._answer(asks, bucket_id, objective, None)

    def _answer(self, asks: Sequence[_Ask], bucket_id: str, objective: Objective | None, limits: Limits | None) -> None:
        """Decide for ``asks`` on the state as it is and hand that to the journal; ``done`` of each gets what comes of it.

        An ask that cannot be decided fails alone. Who has gone away meanwhile gets no decision.
        """
        asks = [ask for ask in asks if not ask.done.done()]
        if not asks:
            return
        try:
            self._decide(asks, bucket_id, objective, limits)
        except Exception as error:
            known = isinstance(error, FieldError | NotFoundError | NothingEligibleError)
            if known and len(asks) > 1:
                for ask in asks:
                    self._answer([ask], bucket_id, objective, limits)
                return
            for ask in asks:
                ask.done.set_exception(error)

    def _decide(self, asks: Sequence[_Ask], bucket_id: str, objective: Objective | None, limits: Limits | None) -> None:
        bucket = self.bucket(bucket_id)
        encoded, request_ids = [], []
        for ask in asks:
            for i, context in enumerate(ask.contexts):
                with within(ask.field if ask.field == "context" else f"{ask.field}[{i}]"):
                    encoded.append(bucket.encoder.encode(context))
                request_ids.append(ask.request_id)
        now_ns = self._clock_ns()
        events = decide(
            bucket,
            encoded,
            [new_decision_id(now_ns) for _ in encoded],
            self._rng,
            health=self.state.health,
            now_ns=now_ns,
            state_position=self.state.position,
            active_budgets=self.active_budgets(bucket),
            objective=objective,
            limits=limits or NO_LIMITS,
            request_ids=request_ids,
        )
        writes, at = [], 0
        for ask in asks:
            ask.events = events[at : at + len(ask.contexts)]
            at += len(ask.contexts)
            entries = tuple(Entry(_encode(event), key_of(event), expect=0) for event in ask.events)
            worst = sum(event.max_cost for event in ask.events)
            release = self._pending.hold(holders(bucket.config), worst)
            # What this process decided meanwhile is pending; what others did, it cannot know.
            seen = self.state.position if self._shared and worst else None
            group = Group(entries, decisions_once(bucket_id, ask.request_id), seen)
            writes.append(Write(group, tuple(ask.events), ask.done, release))
        self._commit.submit(writes)

    async def _decided(self, before: Duplicate, count: int) -> list[Known]:
        """The decisions that a request id was given before; there must be ``count``."""
        if before.count != count:
            raise FieldError("request_id", f"was used before, for {before.count} decisions, got {count} contexts")
        return [self._known(row) for row in await self._rows(before.first, before.first + before.count - 1)]

    def now_ns(self) -> int:
        """The time, in nanoseconds since 1970."""
        return self._clock_ns()

    def active_budgets(self, bucket: BucketState) -> list[ActiveBudget]:
        """The budgets that a bucket's decisions draw on, with what decisions hold that are not folded yet."""
        own, project = holders(bucket.config)
        return [
            replace(active, pending=self._pending.held(own if active.pacer is bucket.pacer else project))
            for active in active_budgets(self.state, bucket)
        ]

    async def report(self, report: Report) -> Reported:
        """Join a report with its decision and journal it; when this returns it is durable and learned, exactly once.

        Raises ``NotFoundError``, ``ExpiredError``, ``FieldError`` (fields relative to ReportOutcomeRequest).
        """
        if not report.signals:
            raise FieldError("outcome", "expected at least one signal, got none")
        once = report_once(report.decision, report.key)
        for _ in range(ATTEMPTS):
            known = await self.decision(report.decision, "decision")
            event = self._join(known, report)
            entry = Entry(_encode(event), key_of(event), expect=known.last)
            result = await self._commit.write(Group((entry,), once), (event,))
            match result:
                case Appended():
                    return Reported(event.reported_outcomes[event.model], False, result.first)
                case Duplicate():
                    known = await self.decision(report.decision, "decision")
                    return Reported(known.reported_outcomes.get(event.model, ReportedOutcome()), True, result.first)
                case Conflict() | Behind():  # another report came first: join again with what is known after it
                    self._recent.pop(report.decision, None)
        raise UnavailableError("too many reports on this decision at the same time; nothing was written, retry")

    async def decision(self, id_: bytes, field: str) -> Known:
        """A decision and what is known of its outcome. Raises ``NotFoundError``."""
        known = self._recent.get(id_)
        if known is not None:
            self._recent.move_to_end(id_)
            return known
        unseen = self._unseen
        known = await self._loop.run_in_executor(None, self._look_up, id_)
        if known is None:
            raise NotFoundError(field, decision_name(id_))
        if self._shared and known.last > self.state.position:  # another process's, just now: fold it first
            await self._commit.write(Group(()), ())
        newer = self._recent.get(id_)
        if newer is not None and newer.last >= known.last:  # folded while we were reading
            return newer
        if unseen == self._unseen:  # else an outcome of it may have been folded since it was read: do not keep it
            self._remember(known)
        return known

    async def quality_range(self, decision: e.DecisionMade) -> QualityRange:
        """The scale of quality that ``decision`` was made on, whatever has become of its bucket since."""
        bucket = self.state.buckets.get(decision.bucket)
        if bucket is not None and bucket.generation == decision.generation:
            return bucket.config.quality_range
        (row,) = await self._rows(
            decision.generation, decision.generation
        )  # where the bucket's posteriors started afresh
        put = decode(row).event
        if not isinstance(put, e.BucketPut):
            raise ValueError(f"the journal's position {row.position} should hold a bucket")
        return put.bucket.quality_range

    def _join(self, known: Known, report: Report) -> e.OutcomeApplied:
        decision = known.decision
        if self._clock_ns() > decision.expire_ns:
            raise ExpiredError(
                "decision",
                f"the attribution window of {decision_name(decision.id)} has ended",
            )
        if report.model and report.model not in decision.models:
            raise FieldError("model", f"{model_name(report.model)} was not a candidate of this decision")
        bucket = self.state.buckets.get(decision.bucket)
        if bucket is None:
            raise NotFoundError(
                "decision",
                f"{bucket_name(decision.bucket)}, the bucket of this decision,",
            )
        with within("outcome"):
            return join(
                bucket,
                decision,
                known.time_ns,
                report.signals,
                model=report.model,
                reported_outcomes=known.reported_outcomes,
                idempotency_key=report.key,
            )

    async def watch(self, bucket_id: str) -> AsyncIterator[Known]:
        """Decisions as they become durable, of one bucket or ("") all, until ``end_watches``. A watcher that falls far behind
        loses some.
        """
        queue: asyncio.Queue[e.DecisionMade | None] = asyncio.Queue(maxsize=WATCH_QUEUE)
        self._watchers.add(queue)
        try:
            while not self._ending:
                decision = await queue.get()
                if decision is not None and bucket_id in ("", decision.bucket):
                    yield await self.decision(decision.id, "decision")
        finally:
            self._watchers.discard(queue)

    def end_watches(self) -> None:
        """End every ``watch``: without this a server that stops would wait for its watchers."""
        self._ending = True
        for queue in self._watchers:
            _put(queue, None)

    # --- the catalogue ----------------------------------------------------------------------------------------------

    def model(self, id_: str, field: str = "name") -> ModelState:
        """A model of the catalogue. Raises ``NotFoundError``."""
        if id_ not in self.state.models:
            raise NotFoundError(field, model_name(id_))
        return self.state.models[id_]

    def bucket(self, id_: str, field: str = "bucket") -> BucketState:
        """A bucket. Raises ``NotFoundError``."""
        if id_ not in self.state.buckets:
            raise NotFoundError(field, bucket_name(id_))
        return self.state.buckets[id_]

    def project(self, id_: str, field: str = "name") -> ProjectState:
        """A project. Raises ``NotFoundError``."""
        if id_ not in self.state.projects:
            raise NotFoundError(field, project_name(id_))
        return self.state.projects[id_]

    async def put_model(self, model: Model, seen: int | None) -> ModelState:
        """Create (``seen`` 0) or replace a model whose last change must be at ``seen`` (``None``: whichever)."""
        known = self.state.models.get(model.id)
        same = known is not None and known.model == model
        await self._put(model_name(model.id), known, same, e.ModelPut(model), seen)
        return self.model(model.id)

    async def set_availability(self, id_: str, available: bool, reason: str) -> ModelState:
        """Switch a model on or off."""
        known = self.model(id_)
        if known.available != available:
            await self._change(model_name(id_), known, e.AvailabilitySet(id_, available, reason), None)
        return self.model(id_)

    async def delete_model(self, id_: str, seen: int | None) -> None:
        """Delete a model. Raises ``InUseError`` while buckets list it."""
        users = [bucket_name(b) for b, bucket in self.state.buckets.items() if id_ in bucket.config.models]
        await self._delete(model_name(id_), self.model(id_), users, e.ModelDeleted(id_), seen)

    async def put_bucket(self, bucket: Bucket, seen: int | None) -> BucketState:
        """Create (``seen`` 0) or replace a bucket whose last change must be at ``seen`` (``None``: whichever)."""
        for i, model in enumerate(bucket.models):
            self.model(model, f"bucket.models[{i}]")
        if bucket.project:
            self.project(bucket.project, "bucket.project")
        known = self.state.buckets.get(bucket.id)
        same = known is not None and known.config == bucket
        await self._put(bucket_name(bucket.id), known, same, e.BucketPut(bucket), seen)
        return self.bucket(bucket.id)

    async def delete_bucket(self, id_: str, seen: int | None) -> None:
        """Delete a bucket and its posteriors."""
        await self._delete(bucket_name(id_), self.bucket(id_, "name"), [], e.BucketDeleted(id_), seen)

    async def put_project(self, project: Project, seen: int | None) -> ProjectState:
        """Create (``seen`` 0) or replace a project whose last change must be at ``seen`` (``None``: whichever)."""
        known = self.state.projects.get(project.id)
        same = known is not None and known.project == project
        await self._put(project_name(project.id), known, same, e.ProjectPut(project), seen)
        return self.project(project.id)

    async def delete_project(self, id_: str, seen: int | None) -> None:
        """Delete a project. Raises ``InUseError`` while buckets name it."""
        users = [bucket_name(b) for b, bucket in self.state.buckets.items() if id_ == bucket.config.project]
        await self._delete(project_name(id_), self.project(id_), users, e.ProjectDeleted(id_), seen)

    async def _put(self, name: str, known: Resource | None, same: bool, event: e.Event, seen: int | None) -> None:
        """Create or replace the resource ``name``, ``known`` so far; nothing is written if it is the ``same``."""
        if seen == 0 and known:
            raise AlreadyExistsError(f"{name.partition('s/')[0]}.name", name)
        _check_seen(name, known, seen)
        if not same:
            await self._change(name, known, event, seen)

    async def _delete(self, name: str, known: Resource, users: Sequence[str], event: e.Event, seen: int | None) -> None:
        _check_seen(name, known, seen)
        if users:
            raise InUseError("name", name, sorted(users))
        await self._change(name, known, event, seen)

    async def _change(self, name: str, known: Resource | None, event: e.Event, seen: int | None) -> None:
        expect = None
        if seen is not None:
            if known is not None:
                expect = known.version
            else:  # never there, or deleted; a change that is in the journal but not folded yet is a conflict
                span = self._journal.span(name.encode())
                expect = span.last if span is not None and span.last <= self.state.position else 0
        result = await self._commit.write(Group((Entry(_encode(event), key_of(event), expect),)), (event,))
        if not isinstance(result, Appended):
            raise StaleError("etag", f"{name} was changed at the same time; read it again")

    # --- the journal ------------------------------------------------------------------------------------------------

    def export(self, first: int, last: int) -> Iterator[Row]:
        """The journal's rows from ``first``, or from where it starts, to ``last``. Blocks; meant for another thread."""
        return self._journal.read(max(first, self._journal.base().position + 1), last)

    async def close(self) -> None:
        """Finish what is pending, snapshot, and release the journal."""
        self._closing.set()
        await self._loop.run_in_executor(None, self._commit.close)
        await asyncio.sleep(0)  # let the last results be delivered
        if self._snapshot_task is not None:
            await self._snapshot_task
        if self._snapshots is not None and self.state.position > self._snapshot_position and not self._commit.broken:
            await self._take_snapshot(self._snapshots)
        self._journal.close()

    def _hear(self, rows: Sequence[Row]) -> None:
        """Fold what other processes wrote."""
        try:
            for row in rows:
                self._apply(decode(row))
        except Exception:
            self.broken.set()
            raise
        self._snapshot_if_due()

    def _deliver(self, results: Sequence[tuple[Write, Result]]) -> None:
        try:
            self._fold(results)
        except Exception:
            self.broken.set()
            raise
        self._snapshot_if_due()

    def _snapshot_if_due(self) -> None:
        idle = self._snapshot_task is None or self._snapshot_task.done()
        due = self.state.position >= self._snapshot_position + self._snapshot_every
        if self._snapshots is not None and idle and due:
            self._snapshot_task = self._loop.create_task(self._take_snapshot(self._snapshots))

    def _fold(self, results: Sequence[tuple[Write, Result]]) -> None:
        for write, result in results:
            if not isinstance(result, Appended):
                continue
            for position, event in zip(positions(result), write.events, strict=True):
                self._apply(e.Record(position, result.time_ns, event))

    @property
    def snapshot_position(self) -> int:
        """Where the last snapshot was taken, or tried."""
        return self._snapshot_position

    @property
    def watchers(self) -> int:
        """How many callers watch decisions."""
        return len(self._watchers)

    def observe(self, record: Callable[[e.Record], None] | None, append: Observer) -> None:
        """Have ``record`` told of every event folded from now on, if given, and ``append`` of every append."""
        if record is not None:
            self._observers.append(record)
        self._commit.observers.append(append)

    def _apply(self, record: e.Record) -> None:
        if self._capture is not None:
            self._capture.before(record.event)
        tell_afresh(record, apply(self.state, record))
        for observe in self._observers:
            observe(record)
        event = record.event
        if isinstance(event, e.DecisionMade):
            self._remember(Known(event, record.time_ns, record.position, {}))
            for queue in self._watchers:
                _put(queue, event)
        elif isinstance(event, e.OutcomeApplied):
            known = self._recent.get(event.decision_id)
            if known is None:
                self._unseen += 1
            else:
                self._remember(replace(known, last=record.position, reported_outcomes=event.reported_outcomes))

    async def _take_snapshot(self, directory: Path) -> None:
        position = self.state.position
        self._snapshot_position = position  # also when it fails: the next try is due as many events later
        self._capture = copy = snapshot.Capture(self.state)
        try:
            while copy.step():
                await asyncio.sleep(0)
        finally:
            self._capture = None
        try:
            captured = copy.parts()
            await self._loop.run_in_executor(None, snapshot.save, directory, captured, position)
        except OSError as error:
            log.warning("cannot write a snapshot (a restart will take longer): %s", error)
        if self._retention_ns and not self._closing.is_set():
            try:
                await self._loop.run_in_executor(None, self._retain, directory)
            except (JournalError, OSError) as error:
                log.warning("cannot compact the journal (it is tried again after the next snapshot): %s", error)

    def _retain(self, directory: Path) -> None:
        retain(self._journal, directory, self._retention_ns, self._clock_ns(), self._closing.is_set)

    def _remember(self, known: Known) -> None:
        self._recent[known.decision.id] = known
        self._recent.move_to_end(known.decision.id)
        if len(self._recent) > DECISIONS_KEPT:
            self._recent.popitem(last=False)

    def _look_up(self, id_: bytes) -> Known | None:
        span = self._journal.span(id_)
        if span is None:
            return None
        first = next(self._journal.read(span.first, span.first), None)
        last = next(self._journal.read(span.last, span.last), None)
        if first is None or last is None:  # compacted since the span was read
            return None
        known = self._known(first)
        if span.last == span.first:
            return known
        outcome = decode(last).event
        if not isinstance(outcome, e.OutcomeApplied):
            raise ValueError(f"the journal's position {span.last} should hold an outcome")
        return replace(known, last=span.last, reported_outcomes=outcome.reported_outcomes)

    @staticmethod
    def _known(row: Row) -> Known:
        decision = decode(row).event
        if not isinstance(decision, e.DecisionMade):
            raise ValueError(f"the journal's position {row.position} should hold a decision")
        return Known(decision, row.time_ns, row.position, {})

    async def _rows(self, first: int, last: int) -> list[Row]:
        return await self._loop.run_in_executor(None, lambda: list(self._journal.read(first, last)))


def _put(queue: asyncio.Queue[e.DecisionMade | None], item: e.DecisionMade | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(item)


def _check_seen(name: str, known: Resource | None, seen: int | None) -> None:
    if seen and (known is None or known.version != seen):
        raise StaleError("etag", f"{name} has changed since that etag; read it again")


def open_replica(
    journal: Journal,
    rng: np.random.Generator,
    clock_ns: Callable[[], int],
    snapshots: Path | None,
    snapshot_every: int = snapshot.EVERY,
    retention_ns: int = 0,
    *,
    shared: bool = False,
    keeps_snapshots: bool = True,
) -> Replica:
    """Recover the state (newest good snapshot, then the tail) and serve it. Needs a running event loop.

    Decisions and outcomes stay in the journal for at least ``retention_ns``; 0 means for ever. It needs ``snapshots``.

    ``shared``: other processes write to the journal too, of which one ``keeps_snapshots``.

    Raises ``JournalError`` if the journal cannot be read or folded.
    """
    state = recover(journal, snapshots)
    kept = snapshots if keeps_snapshots else None
    return Replica(journal, state, rng, clock_ns, kept, snapshot_every, retention_ns, shared)


def recover(journal: Journal, snapshots: Path | None) -> State:
    """The fold of ``journal``: from the newest snapshot in ``snapshots`` that is whole and of this journal, else from the start.

    Raises ``JournalFormatError``, with the position, for an event that cannot be read or folded, and for a base that is damaged;
    also if there is a snapshot of a journal that is empty: then the journal was lost.
    """
    state = None
    base, end = journal.base(), journal.last_position()
    for path in snapshot.saved(snapshots) if snapshots is not None else []:
        try:
            loaded = snapshot.load(path.read_bytes())
        except Exception as error:  # a snapshot is a cache: whatever is wrong with it must not keep the service down
            log.warning("skipping the snapshot %s: %s", path.name, error or repr(error))
            continue
        if loaded.position and not end:
            raise JournalFormatError(
                f"the journal is empty, but {path} is of position {loaded.position}: the journal was lost. Restore it from a "
                "backup; or, to begin anew, move the snapshots away"
            )
        if loaded.position > end:
            log.warning(
                "skipping the snapshot %s: the journal ends before it, at %d",
                path.name,
                end,
            )
            continue
        if loaded.position < base.position:
            log.warning("skipping the snapshot %s: the journal starts after it, at %d", path.name, base.position)
            continue
        at = base.time_ns if loaded.position == base.position else time_at(journal, loaded.position)
        if at != loaded.time_ns:
            log.warning("skipping the snapshot %s: it is of another journal", path.name)
            continue
        state = loaded
        break
    if state is None:
        state = base_state(journal)
    return fold_rows(journal.read(state.position + 1, end), state)


def time_at(journal: Journal, position: int) -> int:
    """The time of the row at ``position``, 0 if there is none."""
    return next((row.time_ns for row in journal.read(position, position)), 0)


def base_state(journal: Journal) -> State:
    """The state that ``journal`` starts from: an empty one if it is whole. Raises ``JournalFormatError`` if it is damaged."""
    base = journal.base()
    if not base.position:
        return State()
    try:
        state = snapshot.load(journal.base_state())
    except JournalError:
        raise
    except Exception as error:
        raise JournalFormatError(
            f"the journal starts from a state at position {base.position} that cannot be read: {error or repr(error)}. "
            "Restore it from a backup"
        ) from error
    if (state.position, state.time_ns) != (base.position, base.time_ns):
        raise JournalFormatError(
            f"the journal starts at position {base.position}, but its state there is of {state.position}. "
            "Restore it from a backup"
        )
    return state


def fold_rows(rows: Iterable[Row], state: State) -> State:
    """Apply stored rows in order to ``state``, in place, and return it.

    Raises ``JournalFormatError``, with the position, for an event that cannot be read or folded.
    """
    for row in rows:
        record = decode(row)
        try:
            tell_afresh(record, apply(state, record))
        except Exception as error:
            raise JournalFormatError(f"the event at position {row.position} cannot be folded: {error!r}") from error
    return state


def tell_afresh(record: e.Record, error: Exception | None) -> None:
    """Log that a bucket could not learn from an event and has started afresh, if so."""
    if error is not None:
        assert isinstance(record.event, e.DecisionMade | e.OutcomeApplied)
        log.error(
            "buckets/%s cannot learn from the event at position %d, so it has started afresh there; all others go on. This "
            "is a defect of the service: please report it",
            record.event.bucket,
            record.position,
            exc_info=error,
        )


def decode(row: Row) -> e.Record:
    """The record of a stored row. Raises ``JournalFormatError`` if this version cannot read it."""
    try:
        event = read_event(journal_pb2.JournalEvent.FromString(row.data))
    except (ValueError, DecodeError) as error:
        raise JournalFormatError(f"the event at position {row.position} cannot be read: {error}") from error
    return e.Record(row.position, row.time_ns, event)


def _encode(event: e.Event) -> bytes:
    return write_event(event).SerializeToString()
