"""Replicas on a journal that answers late, wrongly or not at all: every caller gets an answer, and only a right one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from pointsman.bandit.catalog import Aggregation, Bucket, Budget, Model, OutcomeRules, Prices
from pointsman.bandit.encoder import Context
from pointsman.bandit.errors import NothingEligibleError
from pointsman.bandit.outcome import Signal
from pointsman.server.errors import UnavailableError
from pointsman.server.journal.interface import Entry, Group, Result, Row, Unknown
from pointsman.server.state import decisions
from pointsman.server.state.outcomes import Report
from pointsman.server.state.replica import Replica, open_replica
from pointsman.server.state.reservations import counters_of
from tests.server.memory_journal import MemoryJournal, MemoryLog
from tests.server.test_journal import scenario

PRICED = Model("priced", prices=Prices(per_request=0.001))


class HeldJournal(MemoryJournal):
    """A journal whose tail and appends wait until they are let go, and whose answers may all get lost."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.may_append, self.may_fold = asyncio.Event(), asyncio.Event()
        self.may_append.set()
        self.may_fold.set()
        self.appending = asyncio.Event()
        self.lost = False

    async def append(self, groups: Sequence[Group], now_ns: int) -> list[Result]:
        self.appending.set()
        await self.may_append.wait()
        return [Unknown("no connection") for _ in groups] if self.lost else await super().append(groups, now_ns)

    async def tail(self, after: int) -> AsyncIterator[Sequence[Row]]:
        async for rows in super().tail(after):
            await self.may_fold.wait()
            yield rows


async def opened(journal: MemoryJournal, seed: int = 0) -> Replica:
    return await open_replica(journal, np.random.default_rng(seed), lambda: 5, None)


async def set_up(replica: Replica, budget: float = 1.0) -> None:
    """The model `priced`, and the bucket `b` with a hard budget."""
    await replica.catalogue.put_model(PRICED, expected_version=0)
    await replica.catalogue.put_bucket(Bucket("b", budget=Budget(budget, 10**15, hard=True)), expected_version=0)


@pytest.mark.parametrize("late", [False, True])
@scenario
async def test_pending_decisions_are_answered_when_the_fold_breaks(late: bool) -> None:
    """``late``: the call comes after the fold broke, while an append is still under way."""
    journal = HeldJournal(MemoryLog())
    replica = await opened(journal)
    await set_up(replica)
    journal.may_append.clear()
    journal.appending.clear()
    first = asyncio.ensure_future(replica.decisions.decide("b", [Context()]))
    await journal.appending.wait()
    calls = [first]
    if not late:
        calls.append(asyncio.ensure_future(replica.decisions.decide("b", [Context()])))
        await asyncio.sleep(0)
    journal.log.land(Group((Entry(b"\xff no event"),)), 5)
    async with journal.log.changed:
        journal.log.changed.notify_all()
    await replica.broken.wait()
    if late:
        calls.append(asyncio.ensure_future(replica.decisions.decide("b", [Context()])))
        await asyncio.sleep(0)
    journal.may_append.set()
    first_error, second_error = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(first_error, UnavailableError)
    assert "not known whether this was written" in str(first_error)
    assert isinstance(second_error, UnavailableError)
    assert "not known" not in str(second_error)
    assert replica.decisions.reservations.reserved("buckets/b") == 0.0
    await replica.close()


@scenario
async def test_a_decision_of_another_process_is_read_once_its_terms_are_known() -> None:
    log = MemoryLog()
    writer = await opened(MemoryJournal(log))
    behind_journal = HeldJournal(log)
    behind = await opened(behind_journal, seed=1)
    behind_journal.may_fold.clear()
    await set_up(writer)
    (record,) = await writer.decisions.decide("b", [Context()], request_id="r")
    await writer.catalogue.put_model(Model("another"), expected_version=0)
    (later,) = await writer.decisions.decide("b", [Context()])
    span = await behind_journal.span(record.decision.id)
    assert span is not None
    answers = [
        asyncio.ensure_future(answer)
        for answer in (
            behind.outcomes.report(Report(record.decision.id, {Signal.QUALITY: 0.5})),
            behind.records.get(later.decision.id, "decision"),
            behind.records.of_request(span, "b", "r"),
        )
    ]
    for _ in range(50):
        await asyncio.sleep(0)
    behind_journal.may_fold.set()
    reported, decision, of_request = await asyncio.gather(*answers)
    assert reported.position == later.last + 1  # type: ignore[union-attr]
    assert decision.decision.models == later.decision.models == ("another", "priced")  # type: ignore[union-attr]
    assert [repeated.decision.models for repeated in of_request] == [("priced",)]  # type: ignore[union-attr]
    await asyncio.gather(writer.close(), behind.close())


@scenario
async def test_a_repeated_request_is_answered_though_the_first_stays_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "UNKNOWN_PATIENCE", 0.01)
    journal = HeldJournal(MemoryLog())
    replica = await opened(journal)
    await set_up(replica, budget=0.0015)
    journal.lost = True
    first = asyncio.ensure_future(replica.decisions.decide("b", [Context()], request_id="r"))
    while not replica.commit._settling:
        await asyncio.sleep(0)
    with pytest.raises(UnavailableError, match="not known whether this was written"):
        await replica.decisions.decide("b", [Context()], request_id="r")
    with pytest.raises(NothingEligibleError):
        await replica.decisions.decide("b", [Context()])  # the first may have been made
    journal.lost = False
    (record,) = await first
    (again,) = await replica.decisions.decide("b", [Context()], request_id="r")
    assert again.decision.id == record.decision.id
    await replica.close()


@scenario
async def test_a_decision_that_cannot_be_stored_reserves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = await opened(MemoryJournal(MemoryLog()))
    await set_up(replica)

    def fails(*_: object) -> None:
        raise OverflowError("no such luck")

    with monkeypatch.context() as patch:
        patch.setattr(decisions, "entry_of", fails)
        with pytest.raises(OverflowError):
            await replica.decisions.decide("b", [Context()])
    assert replica.decisions.reservations.reserved("buckets/b") == 0.0
    await replica.decisions.decide("b", [Context()])
    await replica.close()


@pytest.mark.parametrize("before", [Aggregation.LAST, Aggregation.SUM])
@scenario
async def test_an_edit_of_the_cost_rule_while_a_report_is_under_way_leaves_counter_and_fold_alike(
    before: Aggregation,
) -> None:
    log = MemoryLog()
    journal = HeldJournal(log)
    replica, other = await opened(journal), await opened(MemoryJournal(log), seed=1)
    after = Aggregation.SUM if before is Aggregation.LAST else Aggregation.LAST
    bucket = Bucket("b", budget=Budget(1.0, 10**15, hard=True), rules=OutcomeRules(cost=before))
    await replica.catalogue.put_model(PRICED, expected_version=0)
    await replica.catalogue.put_bucket(bucket, expected_version=0)
    (record,) = await replica.decisions.decide("b", [Context()])
    journal.may_append.clear()
    journal.appending.clear()
    reporting = asyncio.ensure_future(replica.outcomes.report(Report(record.decision.id, {Signal.COST: 0.0002})))
    await journal.appending.wait()
    await other.commit.wait_folded(record.last)
    await other.catalogue.put_bucket(replace(bucket, rules=OutcomeRules(cost=after)), expected_version=None)
    journal.may_append.set()
    await reporting
    expected = {counter: used for counter, (used, _) in counters_of(replica.state).items()}
    assert {counter: used for counter, (used, _) in log.counters.items()} == expected
    assert list(expected.values()) == [200_000 if after is Aggregation.LAST else 1_000_000]
    await asyncio.gather(replica.close(), other.close())
