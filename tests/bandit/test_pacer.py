"""A budget is kept, spent where spending buys quality, and paced on what is known when."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.bandit.catalog import Bucket, Budget, Mode, Model, Objective
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Context
from pointsman.bandit.event import AvailabilitySet, BucketPut
from pointsman.bandit.outcome import Signal
from pointsman.bandit.pacer import (
    COST_SD,
    DECISIONS,
    MAX_RISE,
    SPENT,
    SURPLUS,
    SURPLUS_CALLS,
    TOTAL,
    ActiveBudget,
    affordable,
    from_arrays,
    new_pacer,
    request_target,
    solve_for_target,
    to_arrays,
)
from pointsman.bandit.state import active_budgets, fingerprint, fold
from tests.bandit.worlds import SECOND, World

QUALITY = {"cheap": 0.6, "middle": 0.8, "dear": 0.9}
MODELS = [Model(name) for name in QUALITY]


def paced_world(budget: Budget, spread: float, seed: int = 0, mode: Mode = Mode.QUALITY_FIRST) -> tuple[World, object]:
    """Three models whose costs differ by ``spread`` between neighbours, answering with noise."""
    rng = np.random.default_rng(seed)
    costs = {"cheap": 1e-4, "middle": 1e-4 * spread, "dear": 1e-4 * spread**2}

    def answer(t: int, model: str) -> dict[Signal, float]:
        noisy = float(np.clip(QUALITY[model] + 0.1 * rng.normal(), 0, 1))
        return {Signal.QUALITY: noisy, Signal.COST: costs[model] * float(np.exp(0.3 * rng.normal()))}

    world = World(Bucket("b", objective=Objective(mode), budget=budget), MODELS, seed)
    return world, answer


@pytest.mark.parametrize("spread", [1.5, 5.0, 30.0])
@pytest.mark.parametrize("level", [0.3, 0.7])
def test_spend_tracks_the_budget_from_the_first_thousand_requests_on(spread: float, level: float) -> None:
    cheap, dear = 1e-4, 1e-4 * spread**2
    budget = cheap * 1.1 * (dear / cheap) ** level
    world, answer = paced_world(Budget(budget), spread)
    world.play(1000, answer)  # type: ignore[arg-type]
    for rounds in (1000, 1300, 1600, 2000):
        if rounds > 1000:
            world.play(rounds - world.bucket.decisions_k.sum(), answer)  # type: ignore[arg-type]
        spend = world.bucket.sum_sk[Signal.COST].sum() / rounds
        assert spend <= 1.02 * budget
    assert spend >= 0.93 * budget  # money that buys quality is not left on the table


def test_a_budget_above_the_dearest_does_not_bind() -> None:
    world, answer = paced_world(Budget(1.0), 5.0)
    chosen = world.play(600, answer)  # type: ignore[arg-type]
    assert world.bucket.pacer is not None
    assert world.bucket.pacer.multiplier == 0.0
    assert chosen[-200:].count("dear") > 150


def test_late_costs_do_not_let_spend_run_away() -> None:
    world, answer = paced_world(Budget(1e-3), 10.0)
    world.play(300, answer)  # type: ignore[arg-type]
    costs = world.bucket.sum_sk[Signal.COST].sum()
    decisions = [world.decide() for _ in range(500)]  # and nothing is reported of them
    expected = sum(float(decision.predicted.cost_k[decision.chosen]) for decision in decisions)
    assert (costs + expected) / 800 <= 1.05e-3
    assert world.bucket.pacer is not None
    assert world.bucket.pacer.spent == pytest.approx(costs + expected)
    for decision in decisions:
        world.report(decision, {Signal.COST: 1e-3})
    assert world.bucket.pacer.spent == pytest.approx(costs + 0.5)


def test_a_corrected_cost_is_counted_once() -> None:
    world, _ = paced_world(Budget(1e-3), 10.0)
    decision = world.decide()
    reported = world.report(decision, {Signal.COST: 0.5})
    reported = world.report(decision, {Signal.COST: 0.2}, reported)
    world.report(decision, {Signal.QUALITY: 1.0}, reported)
    assert world.bucket.pacer is not None
    assert world.bucket.pacer.spent == pytest.approx(0.2)


def test_a_budget_per_period_is_spent_evenly_and_renewed() -> None:
    period = 2000 * SECOND  # a decision and a report a second: 1,000 requests
    world, answer = paced_world(Budget(1.0, period), 10.0)
    world.play(3000, answer)  # type: ignore[arg-type]
    assert world.bucket.pacer is not None
    spend = world.bucket.sum_sk[Signal.COST].sum()
    assert 2.5 <= spend <= 3.1


def test_what_a_quiet_time_left_is_spent_later_at_no_more_than_twice_the_rate() -> None:
    budget = 1e-3
    world, answer = paced_world(Budget(budget), 10.0)
    world.play(600, answer)  # type: ignore[arg-type]
    pacer = world.bucket.pacer
    assert pacer is not None
    world.put(AvailabilitySet("dear", False))
    world.put(AvailabilitySet("middle", False))
    world.play(200, answer)  # type: ignore[arg-type]
    left = budget * pacer.decisions - pacer.spent
    assert left > 170 * budget
    for model in ("middle", "dear"):
        world.put(AvailabilitySet(model, True))
    for _ in range(4):
        world.play(250, answer)  # type: ignore[arg-type]
        assert pacer.target <= 2.0 * budget * (1 + 1e-9)
    assert pacer.forgone == 0.0
    assert budget * pacer.decisions - pacer.spent < 0.35 * left


@given(
    decisions=st.integers(0, 10**7),
    spent=st.floats(0, 1e5),
    sd=st.floats(0, 1.0),
    dearest=st.floats(0, 10.0),
    amount=st.floats(1e-6, 1.0),
)
def test_the_target_of_a_budget_per_request_is_bounded(
    decisions: int, spent: float, sd: float, dearest: float, amount: float
) -> None:
    pacer = new_pacer(1)
    pacer.cost_nk = np.full((len(pacer.cost_nk), 1), dearest)
    pacer.counts[DECISIONS], pacer.counts[TOTAL] = decisions, min(decisions, 10)
    pacer.sums[SPENT], pacer.sums[COST_SD] = spent, sd
    target = request_target(pacer, amount)
    assert target <= amount * (1.0 + MAX_RISE) * (1 + 1e-9)
    carried = amount * decisions - spent - pacer.forgone
    assert carried <= max(SURPLUS * amount, SURPLUS_CALLS * dearest) * (1 + 1e-9) + 1e-6
    if carried < 0.0:
        assert target < amount
    again = request_target(pacer, amount)
    assert again == pytest.approx(target, rel=1e-6, abs=1e-9)  # what is forgone is forgone once


def test_old_scores_are_replayed_with_what_was_learned_since() -> None:
    """What all models look better by since then changes nothing; what one looks better by changes the multiplier as if new."""
    world, answer = paced_world(Budget(1e-3), 10.0)
    world.play(100, answer)  # type: ignore[arg-type]
    pacer = world.bucket.pacer
    assert pacer is not None
    before = solve_for_target(pacer).multiplier
    last = (pacer.total - 1) % len(pacer.level_nk)
    others = np.arange(len(pacer.level_nk)) != last
    pacer.level_nk[others] -= 0.1
    moved = solve_for_target(pacer).multiplier
    assert moved == pytest.approx(before, rel=0.1)
    pacer.level_nk[others] += 0.1
    pacer.level_nk[others, 0] -= 0.05  # the first model (cheap) is better by .05 than when the others were scored
    assert solve_for_target(pacer).multiplier < before


def test_a_pacer_from_before_demand_was_counted_keeps_what_it_spent() -> None:
    old = {
        "counts": np.array([700, 700, 0, 9, 3], dtype=np.int64),
        "sums": np.array([0.5, 20.0, 1e-3, 1e9, 0.25, 0.125]),
        **{name: np.zeros((128, 2)) for name in ("mean_nk", "draw_nk", "cost_nk", "rank_nk")},
        **{name: np.zeros(128) for name in ("floor_n", "loss_n")},
    }
    pacer = from_arrays(old)
    assert (pacer.decisions, pacer.total, pacer.born, pacer.last_ns) == (700, 0, 3, 9)
    assert (pacer.spent, pacer.multiplier, pacer.target, pacer.reserved, pacer.forgone) == (
        0.5,
        20.0,
        1e-3,
        0.25,
        0.125,
    )
    again = from_arrays(to_arrays(pacer))
    assert all(
        np.array_equal(a, b, equal_nan=True)
        for a, b in zip(to_arrays(again).values(), to_arrays(pacer).values(), strict=True)
    )


def test_ten_times_the_demand_by_day_neither_starves_noon_nor_leaves_money() -> None:
    """Four days; the first knows no rhythm, the last spends all of its budget and pays day and night alike."""
    hour, per_day = 3600 * SECOND, 500
    share_h = np.array([10.0 if 8 <= h < 20 else 1.0 for h in range(24)])
    count_h = np.round(per_day * share_h / share_h.sum()).astype(int)
    amount = 1e-3 * count_h.sum()
    world, answer = paced_world(Budget(amount, 24 * hour), 10.0)
    spent, target = np.zeros(4), np.zeros((4, 24))
    for day in range(4):
        for h in range(24):
            for i in range(count_h[h]):
                world.now_ns = (day * 24 + h) * hour + i * hour // int(count_h[h])
                decision = world.decide()
                world.report(decision, report := answer(0, decision.models[decision.chosen]))  # type: ignore[operator]
                spent[day] += report[Signal.COST]
            assert world.bucket.pacer is not None
            target[day, h] = world.bucket.pacer.target
    assert 0.97 <= spent[-1] / amount <= 1.03
    assert target[-1, 3] == pytest.approx(target[-1, 12], rel=0.35)
    assert target[0, 3] > 2.0 * target[0, 12]  # of which nothing could be known


@pytest.mark.parametrize("mode", [Mode.COST_FIRST, Mode.BALANCED])
def test_other_objectives_keep_to_it_too(mode: Mode) -> None:
    world, answer = paced_world(Budget(4e-4), 10.0, mode=mode)
    world.play(1500, answer)  # type: ignore[arg-type]
    assert world.bucket.sum_sk[Signal.COST].sum() / 1500 <= 1.05 * 4e-4


def test_propensities_are_those_of_the_paced_policy() -> None:
    world, answer = paced_world(Budget(1e-3), 10.0)
    world.play(200, answer)  # type: ignore[arg-type]
    decision = world.decide()
    counts = dict.fromkeys(QUALITY, 0)
    state = world.state.buckets["b"]
    many = decide(
        state,
        [state.encoder.encode(Context())] * 20_000,
        [b""] * 20_000,
        world.rng,
        health={},
        now_ns=0,
        state_position=0,
        active_budgets=active_budgets(world.state, state),
    )
    for other in many:
        counts[other.models[other.chosen]] += 1
    for other in many[:3]:
        share = counts[other.models[other.chosen]] / len(many)
        assert share == pytest.approx(other.propensity, abs=5 * np.sqrt(0.25 / len(many)))
    assert decision.multiplier > 0.0


def test_a_changed_budget_starts_afresh_and_the_fold_is_the_same() -> None:
    world, answer = paced_world(Budget(1e-3), 10.0)
    world.play(50, answer)  # type: ignore[arg-type]
    world.put(BucketPut(replace(world.bucket.config, budget=Budget(2e-3))))
    assert world.bucket.pacer is not None
    assert world.bucket.pacer.decisions == 0
    world.put(BucketPut(replace(world.bucket.config, budget=None)))
    assert world.bucket.pacer is None
    assert fingerprint(fold([], world.state)) == fingerprint(world.state)


def test_no_even_draw_may_cost_more_than_what_is_left_and_a_hundredth() -> None:
    pacer, budget = new_pacer(position=1), Budget(0.001)
    pacer.counts[DECISIONS], pacer.sums[SPENT] = 999, 0.95
    cost_bk = np.array([[1e-4, 0.05]])
    assert affordable(ActiveBudget(budget, pacer), cost_bk) > 0.0
    pacer.sums[SPENT] = 1.0
    assert affordable(ActiveBudget(budget, pacer), cost_bk) == 0.0
    assert affordable(ActiveBudget(budget, pacer), cost_bk / 10.0) > 0.0
