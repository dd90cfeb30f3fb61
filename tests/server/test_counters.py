"""Hard budgets of two replicas on a journal that loses answers: its counters are what the fold counts, whatever comes."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

from pointsman.bandit.catalog import Aggregation, Bucket, Budget, Model, OutcomeRules, Prices, Project
from pointsman.bandit.encoder import Context
from pointsman.bandit.errors import NothingEligibleError
from pointsman.bandit.outcome import Signal
from pointsman.bandit.state import fingerprint
from pointsman.server.errors import NotFoundError, StaleError, UnavailableError
from pointsman.server.journal import commit
from pointsman.server.state.outcomes import Report
from pointsman.server.state.records import DecisionRecord
from pointsman.server.state.replica import Replica, open_replica
from pointsman.server.state.reservations import counters_of
from tests.server.memory_journal import Faults, MemoryJournal, MemoryLog
from tests.server.test_journal import scenario

SECOND = 10**9


def budget(dollars: float, hard: bool = True) -> Budget:
    return Budget(dollars, 100 * SECOND, hard=hard)


def any_bucket(rng: random.Random) -> Bucket:
    rules = OutcomeRules(cost=rng.choice(list(Aggregation)))
    own = budget(rng.choice([0.006, 0.004]), rng.random() < 0.8)
    return Bucket("b", project=rng.choice(["p", "q"]), budget=own, rules=rules)


async def act(replica: Replica, rng: random.Random, decided: list[DecisionRecord]) -> None:
    """One call: mostly a decision or a report, sometimes an edit, or another bucket of the same name."""
    chance = rng.random()
    if chance < 0.5:
        contexts = [Context()] * rng.choice([1, 1, 3])
        decided.extend(await replica.decisions.decide("b", contexts, request_id=str(rng.random())))
    elif chance < 0.9 and decided:
        decision = rng.choice(decided).decision
        cost = {Signal.COST: rng.choice([0.0, 0.0001, 0.0009, 0.002])}
        key, model = rng.choice(["", "k1", "k2"]), rng.choice(["", *decision.models])
        await replica.outcomes.report(Report(decision.id, cost, key, model))
    else:
        if chance > 0.995:
            await replica.catalogue.delete_bucket("b", None)
        await replica.catalogue.put_bucket(any_bucket(rng), None)


@pytest.mark.parametrize("seed", range(6))
@scenario
async def test_counters_and_fold_agree_whatever_comes_at_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Periods end, the clocks of the two are an hour apart in every third case, answers get lost, appends come late."""
    monkeypatch.setattr(commit, "RETRY", 0.0001)
    monkeypatch.setattr(commit, "LONGEST_RETRY", 0.001)
    rng, now = random.Random(seed), [1000 * SECOND]
    log = MemoryLog(gap=lambda: rng.random() < 0.2)
    faults = Faults(rng, unanswered=0.1, dropped=0.1, late=0.1, in_pieces=True)
    ahead = 3600 * SECOND if seed % 3 == 0 else 0
    clocks = (lambda: now[0], lambda: now[0] + ahead)
    replicas = [
        await open_replica(MemoryJournal(log, faults), np.random.default_rng(i), clock, None)
        for i, clock in enumerate(clocks)
    ]
    for model, price in (("dear", 0.001), ("cheap", 0.0003)):
        await replicas[0].catalogue.put_model(Model(model, prices=Prices(per_request=price)), None)
    for project, dollars in (("p", 0.01), ("q", 0.008)):
        await replicas[0].catalogue.put_project(Project(project, budget=budget(dollars)), None)
    await replicas[0].catalogue.put_bucket(any_bucket(rng), None)
    decided: list[DecisionRecord] = []
    refused = 0

    async def caller() -> None:
        nonlocal refused
        for _ in range(40):
            now[0] += rng.choice([0, SECOND // 1000, SECOND, 5 * SECOND])
            try:
                await act(rng.choice(replicas), rng, decided)
            except NothingEligibleError:
                refused += 1
            except (NotFoundError, StaleError, UnavailableError):
                continue

    await asyncio.gather(*(caller() for _ in range(8)))
    for replica in replicas:
        await replica.commit.wait_settled()
    for replica in replicas:
        await replica.commit.wait_folded(log.end()[0])
        assert all(replica.decisions.reservations.reserved(name) == 0.0 for name in ("buckets/b", "projects/p"))
    assert decided
    assert refused
    assert fingerprint(replicas[0].state) == fingerprint(replicas[1].state)
    for counter, (nanodollars, _) in counters_of(replicas[0].state).items():
        used, _ = log.counters.get(counter, (0, 0))
        assert abs(used - nanodollars) <= len(log.rows)  # sums of floats, and each amount rounded up
    for replica in replicas:
        await replica.close()
