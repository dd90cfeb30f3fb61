"""Deciding: callers' requests are gathered, decided together on the state as it is, journalled, and answered once folded.

>>> import tempfile
>>> from pathlib import Path
>>> import numpy as np
>>> from pointsman.bandit.catalog import Bucket, Model
>>> from pointsman.bandit.encoder import Context
>>> from pointsman.server.journal.sqlite import SqliteJournal
>>> from pointsman.server.state.replica import open_replica
>>> async def example():
...     journal = SqliteJournal(Path(tempfile.mkdtemp()))
...     replica = await open_replica(journal, np.random.default_rng(0), lambda: 5, None)
...     await replica.catalogue.put_model(Model("gpt"), expected_version=0)
...     await replica.catalogue.put_bucket(Bucket("summarize"), expected_version=0)
...     first = await replica.decisions.decide("summarize", [Context()], request_id="r1")
...     again = await replica.decisions.decide("summarize", [Context()], request_id="r1")
...     await replica.close()
...     return first[0].decision.id == again[0].decision.id
>>> asyncio.run(example())
True
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pointsman.bandit import event as e
from pointsman.bandit.bucket import BucketState
from pointsman.bandit.catalog import Objective
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Context
from pointsman.bandit.errors import FieldError, NothingEligibleError, within
from pointsman.bandit.limits import NO_LIMITS, Limits
from pointsman.bandit.pacer import ActiveBudget
from pointsman.bandit.state import State, active_budgets, bucket_to_decide
from pointsman.server.errors import NotFoundError, UnavailableError
from pointsman.server.journal.commit import MAYBE_WRITTEN, UNKNOWN_PATIENCE, GroupCommit, Write
from pointsman.server.journal.interface import Appended, Condition, Conflict, Group, Journal, Refused, Result, Span
from pointsman.server.journal.keys import request_key
from pointsman.server.names import bucket_name, new_decision_id
from pointsman.server.state.records import DecisionRecord, DecisionRecords
from pointsman.server.state.reservations import Reservations, decision_guards, holders
from pointsman.server.state.rows import entry_of

ENOUGH = 32
"""Requests gathered that are decided though an append is under way."""
ATTEMPTS = 64
"""Optimistic-concurrency retries of one request: decided anew because its bucket or project was changed meanwhile."""
REFUSALS = 3
"""How often one request is decided anew because a hard budget had too little left; then nothing is eligible."""


@dataclass(slots=True, eq=False)
class PendingDecide:
    """One caller's contexts, waiting to be decided. ``done`` gets the result of their append; ``decisions`` are then the events.

    ``exhausted``: its hard budgets were tried often enough and count as used up.
    """

    contexts: Sequence[Context]
    field: str
    request_id: str
    done: asyncio.Future[Result]
    exhausted: bool = False
    decisions: Sequence[e.DecisionMade] = ()


class Decisions:
    """Decides on ``state`` and appends to the journal what was decided."""

    def __init__(
        self,
        state: State,
        journal: Journal,
        commit: GroupCommit,
        records: DecisionRecords,
        rng: np.random.Generator,
        clock_ns: Callable[[], int],
    ) -> None:
        self._state, self._journal, self._commit, self._records = state, journal, commit, records
        self._rng, self._clock_ns = rng, clock_ns
        self._loop = asyncio.get_running_loop()
        self.reservations = Reservations()
        self._gathered: dict[tuple[str, Objective | None], list[PendingDecide]] = {}
        self._count = 0  # how many are gathered
        self._soon = False  # whether they are about to be decided

    async def decide(
        self,
        bucket_id: str,
        contexts: Sequence[Context],
        objective: Objective | None = None,
        limits: Limits | None = None,
        request_id: str = "",
        field: str = "context",
    ) -> list[DecisionRecord]:
        """Decide for each of ``contexts`` and journal it; all or none. ``field`` is what errors call a context.

        With a ``request_id`` that this bucket has seen, answers the decisions made then. Single requests that come at about the
        same time are decided together, on the same state: that costs each a fraction.

        Raises ``FieldError``, ``NotFoundError``, ``NothingEligibleError``, ``UnavailableError``.
        """
        key, refusals = request_key(bucket_id, request_id), 0
        for _ in range(ATTEMPTS):
            pending = PendingDecide(contexts, field, request_id, self._loop.create_future(), refusals == REFUSALS)
            try:
                result = await self._have_decided(pending, bucket_id, objective, limits)
            except NothingEligibleError:  # the first decision of this request may have taken the last of a budget
                if key:
                    await self._wait_settled()
                span = await self._journal.span(key) if key else None
                if span is None:
                    raise
                return await self._decided_before(span, bucket_id, request_id, len(contexts))
            match result:
                case Appended():
                    return [
                        DecisionRecord(decision, result.time_ns, position, {})
                        for decision, position in zip(pending.decisions, result.positions, strict=True)
                    ]
                case Conflict(span=span) if key and result.key == key and span is not None:
                    return await self._decided_before(span, bucket_id, request_id, len(contexts))
                case Refused():
                    refusals += 1
                case Conflict() if any(result.key == decision.id for decision in pending.decisions):
                    raise UnavailableError("two decisions were given the same id; nothing was written, retry")
        raise UnavailableError(f"{bucket_name(bucket_id)} is changed too often; nothing was written, retry")

    def active_budgets(self, bucket: BucketState, exhausted: bool = False) -> list[ActiveBudget]:
        """The budgets that a bucket's decisions draw on, with what decisions reserve that are not folded yet."""
        own, project = holders(bucket.config)
        reserved = self.reservations.reserved
        return [
            replace(
                active,
                pending=np.inf if exhausted else reserved(own if active.pacer is bucket.pacer else project),
            )
            for active in active_budgets(self._state, bucket)
        ]

    def on_append_done(self) -> None:
        """Decide what was gathered while an append was under way."""
        if not self._soon:
            self._decide_soon()

    async def _have_decided(
        self, pending: PendingDecide, bucket_id: str, objective: Objective | None, limits: Limits | None
    ) -> Result:
        """Have ``pending`` decided and journalled; returns the result of its append."""
        if len(pending.contexts) == 1 and limits is None and not pending.exhausted:
            # What is decided now would wait for the append that is under way: so gather until that has ended, or enough came.
            self._gathered.setdefault((bucket_id, objective), []).append(pending)
            self._count += 1
            if self._count == ENOUGH:
                self._loop.call_soon(self._decide_gathered)
            elif not (self._commit.busy or self._soon):
                self._decide_soon()
        else:
            self._decide_all([pending], bucket_id, objective, limits)
        return await pending.done

    def _decide_soon(self, before: int = 0) -> None:
        """Decide what is gathered once a turn of the loop has brought nothing more."""
        if self._count == before:
            self._decide_gathered()
        else:
            self._soon = True
            self._loop.call_soon(self._decide_soon, self._count)

    def _decide_gathered(self) -> None:
        gathered, self._gathered, self._count, self._soon = self._gathered, {}, 0, False
        for (bucket_id, objective), pending in gathered.items():
            self._decide_all(pending, bucket_id, objective, None)

    def _decide_all(
        self, pending: Sequence[PendingDecide], bucket_id: str, objective: Objective | None, limits: Limits | None
    ) -> None:
        """Decide on the current state and append the decisions; each caller's ``done`` gets the result.

        One that cannot be decided fails alone. Who has gone away meanwhile gets no decision.
        """
        pending = [request for request in pending if not request.done.done()]
        if not pending:
            return
        try:
            self._decide_together(pending, bucket_id, objective, limits)
        except Exception as error:
            expected = isinstance(error, FieldError | NotFoundError | NothingEligibleError)
            if expected and len(pending) > 1:
                for request in pending:
                    self._decide_all([request], bucket_id, objective, limits)
                return
            for request in pending:
                request.done.set_exception(error)

    def _decide_together(
        self, pending: Sequence[PendingDecide], bucket_id: str, objective: Objective | None, limits: Limits | None
    ) -> None:
        bucket = self._state.buckets.get(bucket_id)
        if bucket is None:
            raise NotFoundError("bucket", bucket_name(bucket_id))
        encoded, request_ids = [], []
        for request in pending:
            for i, context in enumerate(request.contexts):
                with within(request.field if request.field == "context" else f"{request.field}[{i}]"):
                    encoded.append(bucket.encoder.encode(context))
                request_ids.append(request.request_id)
        now_ns = self._clock_ns()
        decisions = decide(
            bucket_to_decide(self._state, bucket),
            encoded,
            [new_decision_id(now_ns) for _ in encoded],
            self._rng,
            health=self._state.health,
            now_ns=now_ns,
            state_position=self._state.position,
            active_budgets=self.active_budgets(bucket, pending[0].exhausted),
            objective=objective,
            limits=limits or NO_LIMITS,
            request_ids=request_ids,
        )
        groups, start = [], 0
        for request in pending:
            request.decisions = decisions[start : start + len(request.contexts)]
            start += len(request.contexts)
            groups.append(self._group(bucket, request, now_ns))
        writes = []
        for request, group in zip(
            pending, groups, strict=True
        ):  # nothing fails from here on: what is reserved is released
            max_cost = sum(decision.max_cost for decision in request.decisions)
            release = self.reservations.reserve(holders(bucket.config), max_cost)
            writes.append(Write(group, tuple(request.decisions), request.done, release))
        self._commit.submit(writes)

    def _group(self, bucket: BucketState, request: PendingDecide, now_ns: int) -> Group:
        key = request_key(bucket.config.id, request.request_id)
        conditions, guards = decision_guards(self._state, bucket, request.decisions, now_ns)
        return Group(
            tuple(entry_of(decision, self._state.terms) for decision in request.decisions),
            (key,) if key else (),
            (
                *((Condition(key, 0),) if key else ()),
                *(Condition(decision.id, 0) for decision in request.decisions),
                *conditions,
            ),
            guards,
        )

    async def _wait_settled(self) -> None:
        """Return once it is known what became of what was decided before. Raises ``UnavailableError`` if that stays unknown."""
        try:
            async with asyncio.timeout(UNKNOWN_PATIENCE):
                await self._commit.wait_settled()
        except TimeoutError as error:
            raise UnavailableError(MAYBE_WRITTEN) from error

    async def _decided_before(self, span: Span, bucket: str, request_id: str, count: int) -> list[DecisionRecord]:
        """The decisions that a request id was given before; there must be ``count``."""
        records = await self._records.of_request(span, bucket, request_id)
        if len(records) != count:
            raise FieldError("request_id", f"was used before, for {len(records)} decisions, got {count} contexts")
        return records
