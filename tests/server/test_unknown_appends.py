"""The whole replica on a journal that loses answers, lands appends late or never, and has others' rows and gaps in between."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import numpy as np
import pytest

from pointsman.bandit.catalog import Bucket, Budget, Model, Prices
from pointsman.bandit.encoder import Context
from pointsman.bandit.errors import NothingEligibleError
from pointsman.bandit.event import DecisionMade, OutcomeApplied
from pointsman.bandit.outcome import Signal
from pointsman.bandit.state import State, fingerprint
from pointsman.server.errors import UnavailableError
from pointsman.server.journal import commit
from pointsman.server.journal.interface import Group, Result, Unknown
from pointsman.server.state.outcomes import Report
from pointsman.server.state.recovery import fold_rows
from pointsman.server.state.replica import Replica, open_replica
from pointsman.server.state.reservations import counters_of
from pointsman.server.state.rows import decode_all
from tests.server.memory_journal import Faults, MemoryJournal, MemoryLog
from tests.server.test_journal import scenario

MAX_COST = 0.01
"""Dollars that a call costs at most."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "RETRY", 0.0001)
    monkeypatch.setattr(commit, "LONGEST_RETRY", 0.002)


async def replica_on(journal: MemoryJournal, seed: int) -> Replica:
    return await open_replica(journal, np.random.default_rng(seed), lambda: 10**18, None)


async def set_up(replica: Replica, calls: float) -> None:
    """A model whose calls cost ``MAX_COST`` at most, and a bucket whose hard budget pays for so many of them."""
    await replica.catalogue.put_model(Model("m", prices=Prices(per_request=MAX_COST), max_output_tokens=1), 0)
    budget = Budget(amount=calls * MAX_COST, period_ns=10**15, hard=True)
    await replica.catalogue.put_bucket(Bucket("b", models=("m",), budget=budget), 0)


@pytest.mark.parametrize("seed", range(6))
@scenario
async def test_two_replicas_lose_nothing_and_pass_no_cap(seed: int) -> None:
    rng = random.Random(seed)
    log = MemoryLog(gap=lambda: rng.random() < 0.1)
    faults = [Faults(rng, unanswered=0.1, dropped=0.1, late=0.1, in_pieces=True) for _ in range(2)]
    replicas = [await replica_on(MemoryJournal(log, faulty), i) for i, faulty in enumerate(faults)]
    await set_up(replicas[0], calls=30.5)
    for replica in replicas:
        await replica.commit.wait_folded(log.end()[0])
    decided: Counter[bytes] = Counter()
    refused = 0

    async def caller(number: int) -> None:
        nonlocal refused
        for i in range(6):
            first, second = rng.sample(replicas, 2)
            request = f"{number}.{i}"
            try:
                (record,) = await first.decisions.decide("b", [Context(input_tokens=0)], request_id=request)
            except NothingEligibleError:
                refused += 1
                continue
            id_ = record.decision.id
            decided[id_] += 1
            again = await second.decisions.decide("b", [Context(input_tokens=0)], request_id=request)
            assert [other.decision.id for other in again] == [id_]
            if i % 3 == 0:
                cost = rng.choice([0.0, MAX_COST / 4])
                report = Report(id_, {Signal.COST: cost}, "key")
                reported = await asyncio.gather(first.outcomes.report(report), second.outcomes.report(report))
                assert sorted(report_result.duplicate for report_result in reported) == [False, True]

    await asyncio.gather(*(caller(number) for number in range(10)))
    for replica in replicas:
        await replica.commit.wait_folded(log.end()[0])
    assert refused > 0
    assert set(decided.values()) == {1}
    events = [record.event for _, record in decode_all(log.rows, State())]
    assert Counter(event.id for event in events if isinstance(event, DecisionMade)) == decided
    reports = Counter(event.decision_id for event in events if isinstance(event, OutcomeApplied))
    assert set(reports.values()) == {1}
    reserved, highest = 0.0, 0.0
    for event in events:  # what counts against the cap, at every position
        if isinstance(event, DecisionMade):
            reserved += event.max_cost
        elif isinstance(event, OutcomeApplied):
            reserved += event.changes[0].after - event.max_cost
        highest = max(highest, reserved)
    assert 29 * MAX_COST < highest <= 30.5 * MAX_COST * (1 + 1e-9)  # these are sums of floats, the counter is not
    expected = fingerprint(fold_rows(log.rows, State()))
    assert [fingerprint(replica.state) for replica in replicas] == [expected, expected]
    for counter, (nanodollars, _) in counters_of(replicas[0].state).items():
        assert abs(log.counters[counter][0] - nanodollars) <= len(events)
    for replica in replicas:
        assert replica.decisions.reservations.reserved("buckets/b") == 0.0
        await replica.close()


@scenario
async def test_unknown_writes_stay_reserved_until_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "UNKNOWN_PATIENCE", 0.01)
    journal = MemoryJournal(MemoryLog())
    replica = await replica_on(journal, 0)
    await set_up(replica, calls=1.5)
    append = journal.append

    async def lost(groups: list[Group], now_ns: int) -> list[Result]:
        await asyncio.sleep(0)
        return [Unknown("no connection") for _ in groups]

    journal.append = lost  # type: ignore[method-assign, assignment]
    with pytest.raises(UnavailableError, match="not known whether this was written"):
        await replica.decisions.decide("b", [Context(input_tokens=0)], request_id="r")
    for _ in range(3):
        assert replica.decisions.reservations.reserved("buckets/b") == MAX_COST
        with pytest.raises(NothingEligibleError, match="hard budget"):
            await replica.decisions.decide("b", [Context(input_tokens=0)])
    journal.append = append  # type: ignore[method-assign]
    await replica.commit.wait_settled()
    assert replica.decisions.reservations.reserved("buckets/b") == 0.0
    pacer = replica.state.buckets["b"].pacer
    assert pacer is not None
    assert pacer.reserved == MAX_COST  # the state counts it now
    (record,) = await replica.decisions.decide("b", [Context(input_tokens=0)], request_id="r")
    assert record.last == 3  # it was written after all, once
    await replica.close()
