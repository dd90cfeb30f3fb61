"""Outcomes: a report is joined with its decision, journalled, and answered once it is learned.

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
...     (record,) = await replica.decisions.decide("summarize", [Context()])
...     report = Report(record.decision.id, {Signal.QUALITY: 0.5}, key="k1")
...     reported = [await replica.outcomes.report(report) for _ in range(2)]
...     await replica.close()
...     return [(answer.duplicate, answer.position) for answer in reported]
>>> asyncio.run(example())
[(False, 4), (True, 4)]
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pointsman.bandit import event as e
from pointsman.bandit.errors import FieldError, within
from pointsman.bandit.join import join
from pointsman.bandit.outcome import ReportedOutcome, Signal
from pointsman.bandit.state import State
from pointsman.server.errors import ExpiredError, NotFoundError, UnavailableError
from pointsman.server.journal.commit import GroupCommit
from pointsman.server.journal.interface import Appended, Condition, Conflict, Group
from pointsman.server.journal.keys import report_key
from pointsman.server.names import bucket_name, decision_name, model_name
from pointsman.server.state.records import DecisionRecord, DecisionRecords
from pointsman.server.state.reservations import outcome_guards
from pointsman.server.state.rows import entry_of

ATTEMPTS = 64
"""Optimistic-concurrency retries of one report."""


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


class Outcomes:
    """Joins reports with decisions made on ``state`` and appends them to the journal."""

    def __init__(
        self, state: State, commit: GroupCommit, records: DecisionRecords, clock_ns: Callable[[], int]
    ) -> None:
        self._state, self._commit, self._records, self._clock_ns = state, commit, records, clock_ns
        self._loop = asyncio.get_running_loop()

    async def report(self, report: Report) -> Reported:
        """Join a report with its decision and journal it; when this returns it is durable and learned, exactly once.

        Raises ``NotFoundError``, ``ExpiredError``, ``FieldError`` (fields relative to ReportOutcomeRequest),
        ``UnavailableError``.
        """
        if not report.signals:
            raise FieldError("outcome", "expected at least one signal, got none")
        key = report_key(report.decision, report.key)
        for _ in range(ATTEMPTS):
            record = await self._records.get(report.decision, "decision")
            event = self._join(record, report)
            conditions, guards = outcome_guards(self._state, event)
            group = Group(
                (entry_of(event),),
                (key,) if key else (),
                (*((Condition(key, 0),) if key else ()), Condition(event.decision_id, record.last), *conditions),
                guards,
            )
            result = await self._commit.write(group, (event,))
            match result:
                case Appended():
                    return Reported(event.reported_outcomes[event.model], False, result.positions[0])
                case Conflict(span=span) if key and result.key == key and span is not None:
                    record = await self._records.get(report.decision, "decision")
                    outcome = record.reported_outcomes.get(event.model, ReportedOutcome())
                    return Reported(outcome, True, span.first)
                case _:  # another report on this decision was folded meanwhile, or an edit of its bucket: join it anew
                    self._records.forget(report.decision)
        raise UnavailableError("too many reports on this decision at the same time; nothing was written, retry")

    def _join(self, record: DecisionRecord, report: Report) -> e.OutcomeApplied:
        decision = record.decision
        if self._clock_ns() > decision.expire_ns:
            raise ExpiredError("decision", f"the attribution window of {decision_name(decision.id)} has ended")
        if report.model and report.model not in decision.models:
            raise FieldError("model", f"{model_name(report.model)} was not a candidate of this decision")
        bucket = self._state.buckets.get(decision.bucket)
        if bucket is None:
            raise NotFoundError("decision", f"{bucket_name(decision.bucket)}, the bucket of this decision,")
        with within("outcome"):
            return join(
                bucket,
                decision,
                record.time_ns,
                report.signals,
                model=report.model,
                reported_outcomes=record.reported_outcomes,
                idempotency_key=report.key,
            )
