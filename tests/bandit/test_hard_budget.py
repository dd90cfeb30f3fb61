"""A hard budget is never exceeded, in any order of reports; a project's budget binds all its buckets together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.bandit.catalog import (
    Aggregation,
    Bucket,
    Budget,
    Mode,
    Model,
    Objective,
    OutcomeRules,
    Prices,
    Project,
    QualityRange,
    Schema,
    TextFeature,
    TokenCountFeature,
)
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Context
from pointsman.bandit.errors import FieldError, NothingEligibleError
from pointsman.bandit.event import BucketDeleted, BucketPut, DecisionMade, ProjectDeleted, ProjectPut
from pointsman.bandit.join import join
from pointsman.bandit.outcome import Signal
from pointsman.bandit.pacer import remaining
from pointsman.bandit.state import active_budgets
from tests.bandit.worlds import SECOND, World

PERIOD = 1000 * SECOND
CHEAP = Model("cheap", prices=Prices(1.0, 2.0), max_output_tokens=1000)
DEAR = Model("dear", prices=Prices(10.0, 30.0), max_output_tokens=1000)
FREE_FORM = Model("unbounded", prices=Prices(1.0, 1.0))
SCHEMA = Schema(input_tokens=TokenCountFeature())


def bound(decision: DecisionMade, tokens: int) -> float:
    model = {"cheap": CHEAP, "dear": DEAR}[decision.models[decision.chosen]]
    assert model.prices is not None
    return (model.prices.input_per_million * tokens + model.prices.output_per_million * 1000) / 1e6


actions = st.lists(
    st.tuples(st.sampled_from(["decide", "report", "silent", "wait"]), st.floats(0, 1), st.integers(1, 5000)),
    min_size=50,
    max_size=150,
)


@settings(max_examples=30, deadline=None)
@given(actions=actions, seed=st.integers(0, 1000))
def test_it_is_never_passed(actions: list[tuple[str, float, int]], seed: int) -> None:
    cap = 0.2
    world = World(Bucket("b", schema=SCHEMA, budget=Budget(cap, PERIOD, hard=True)), [CHEAP, DEAR], seed)
    spent: dict[int, float] = {}
    waiting: list[tuple[DecisionMade, int, int, float]] = []
    for action, share, tokens in actions * 3:
        if action == "wait":
            world.now_ns += int(share * 100 * SECOND)
        elif action == "decide":
            try:
                decision = world.decide(Context(input_tokens=tokens))
            except NothingEligibleError:
                continue
            period = world.now_ns // PERIOD
            waiting.append((decision, period, tokens, share))
            # as much as it can cost, until it is known: what the provider bills may be any of it
            spent[period] = spent.get(period, 0.0) + bound(decision, tokens)
        elif waiting:
            decision, period, tokens, factor = waiting.pop(int(share * len(waiting)) % len(waiting))
            if action == "report":
                world.report(decision, {Signal.COST: factor * bound(decision, tokens)})
                spent[period] -= (1.0 - factor) * bound(decision, tokens)
        assert all(dollars <= cap * (1 + 1e-9) for dollars in spent.values())
    assert spent


def test_money_that_was_held_and_not_needed_is_spent() -> None:
    world = World(Bucket("b", schema=SCHEMA, budget=Budget(0.05, PERIOD, hard=True)), [CHEAP], 0)
    for _ in range(100):  # each may cost 0.0021 and costs a twentieth of it
        world.report(world.decide(Context(input_tokens=100)), {Signal.COST: 0.0001})


def test_a_batch_holds_back_for_each_of_its_decisions() -> None:
    world = World(Bucket("b", schema=SCHEMA, budget=Budget(0.01, PERIOD, hard=True)), [CHEAP], 0)
    bucket = world.bucket
    encoded = [bucket.encoder.encode(Context(input_tokens=100))] * 4
    ids = [i.to_bytes(16, "big") for i in range(8)]
    state = {
        "health": {},
        "now_ns": world.now_ns,
        "state_position": 0,
        "active_budgets": active_budgets(world.state, bucket),
    }
    four = decide(bucket, encoded, ids, world.rng, **state)
    assert sum(decision.max_cost for decision in four) == pytest.approx(4 * 0.0021)
    with pytest.raises(NothingEligibleError, match="hard budget"):
        decide(bucket, encoded * 2, ids, world.rng, **state)


def test_a_model_without_a_bound_is_not_eligible() -> None:
    world = World(Bucket("b", schema=SCHEMA, budget=Budget(5.0, PERIOD, hard=True)), [CHEAP, FREE_FORM], 0)
    assert {(decision := world.decide(Context(input_tokens=10))).models[decision.chosen] for _ in range(30)} == {
        "cheap"
    }
    bounded = Context(input_tokens=10, max_output_tokens=50)
    assert len({(decision := world.decide(bounded)).models[decision.chosen] for _ in range(60)}) == 2


def test_a_cost_over_its_bound_still_counts() -> None:
    world = World(Bucket("b", schema=SCHEMA, budget=Budget(0.05, PERIOD, hard=True)), [CHEAP], 0)
    world.report(world.decide(Context(input_tokens=10)), {Signal.COST: 0.049})
    with pytest.raises(NothingEligibleError):
        world.decide(Context(input_tokens=10))
    world.now_ns += PERIOD
    world.decide(Context(input_tokens=10))  # a new period


def test_a_clock_put_back_does_not_open_a_period_again() -> None:
    world = World(Bucket("b", schema=SCHEMA, budget=Budget(0.005, PERIOD, hard=True)), [CHEAP], 0)
    world.now_ns = 5 * PERIOD
    for _ in range(2):
        world.decide(Context(input_tokens=10))
    (active,) = active_budgets(world.state, world.bucket)
    assert remaining(active, world.now_ns) < 0.0021
    assert remaining(active, 2 * PERIOD) == remaining(active, world.now_ns)
    assert remaining(active, 7 * PERIOD) == 0.005


def test_late_costs_of_a_past_period_do_not_touch_this_one() -> None:
    world = World(Bucket("b", schema=SCHEMA, budget=Budget(0.05, PERIOD, hard=True)), [CHEAP], 0)
    old = world.decide(Context(input_tokens=10))
    world.now_ns += PERIOD
    world.decide(Context(input_tokens=10))
    (active,) = active_budgets(world.state, world.bucket)
    before = active.pacer.reserved, active.pacer.spent
    world.report(old, {Signal.COST: 0.001})
    assert (active.pacer.reserved, active.pacer.spent) == before


def test_an_average_cannot_be_hard() -> None:
    with pytest.raises(FieldError, match="per period"):
        Budget(1.0, hard=True)


QUALITY = {"low": 0.6, "high": 0.9}
COST = {"low": 1e-4, "high": 1e-2}


def test_a_project_s_budget_binds_its_buckets_together() -> None:
    """Two buckets with different models and objectives; the one where money buys more gets more of it."""
    rng = np.random.default_rng(1)
    low, high = Model("low"), Model("high")
    world = World(
        Bucket("needs", models=("low", "high"), objective=Objective(Mode.QUALITY_FIRST), project="p"), [low, high]
    )
    world.put(BucketPut(Bucket("easy", models=("high", "low"), objective=Objective(Mode.QUALITY_FIRST), project="p")))
    budget = 4e-3
    world.put(ProjectPut(Project("p", budget=Budget(budget))))
    spend, dear = 0.0, {"needs": 0, "easy": 0}
    for t in range(3000):
        bucket = world.state.buckets["needs" if t % 2 else "easy"]
        decision = decide(
            bucket,
            [bucket.encoder.encode(Context())],
            [t.to_bytes(16, "big")],
            world.rng,
            health={},
            now_ns=world.now_ns,
            state_position=world.state.position,
            active_budgets=active_budgets(world.state, bucket),
        )[0]
        world.put(decision)
        model = decision.models[decision.chosen]
        gain = 0.1 if bucket.config.id == "easy" and model == "high" else 0.0
        quality = float(np.clip(QUALITY[model] - 2 * gain + 0.1 * rng.normal(), 0, 1))
        world.put(join(bucket, decision, world.now_ns, {Signal.QUALITY: quality, Signal.COST: COST[model]}))
        spend += COST[model]
        dear[bucket.config.id] += model == "high"
    assert 0.93 * budget <= spend / 3000 <= 1.02 * budget
    assert dear["needs"] > 2 * dear["easy"]
    world.put(ProjectDeleted("p"))
    assert active_budgets(world.state, world.bucket) == ()


def test_the_tighter_of_two_budgets_binds() -> None:
    world = World(
        Bucket("b", objective=Objective(Mode.QUALITY_FIRST), budget=Budget(5e-3), project="p"),
        [Model("low"), Model("high")],
    )
    world.put(ProjectPut(Project("p", budget=Budget(1e-3))))
    rng = np.random.default_rng(2)

    def answer(t: int, model: str) -> dict[Signal, float]:
        return {Signal.QUALITY: float(np.clip(QUALITY[model] + 0.1 * rng.normal(), 0, 1)), Signal.COST: COST[model]}

    world.play(1500, answer)
    assert world.bucket.sum_sk[Signal.COST].sum() / 1500 <= 1.05e-3


HARD = Budget(0.0105, PERIOD, hard=True)  # five calls of 0.0021


def calls_left(world: World) -> int:
    count = 0
    while True:
        try:
            world.decide(Context(input_tokens=100))
        except NothingEligibleError:
            return count
        count += 1


def test_a_budget_changed_in_between_does_not_settle_costs_it_never_reserved() -> None:
    world = World(Bucket("b", schema=SCHEMA, budget=Budget(1.0, PERIOD, hard=True)), [CHEAP], 0)
    old = [world.decide(Context(input_tokens=100)) for _ in range(10)]
    world.put(BucketPut(replace(world.bucket.config, budget=HARD)))
    for decision in old:
        world.report(decision, {Signal.COST: 0.0})
    assert calls_left(world) == 5


def test_a_bucket_that_moves_to_another_project_takes_nothing_along() -> None:
    world = World(Bucket("b", schema=SCHEMA, project="from"), [CHEAP], 0)
    world.put(ProjectPut(Project("from", budget=HARD)))
    world.put(ProjectPut(Project("to", budget=HARD)))
    old = [world.decide(Context(input_tokens=100)) for _ in range(3)]
    world.put(BucketPut(replace(world.bucket.config, project="to")))
    for decision in old:
        world.report(decision, {Signal.COST: 0.0})
    start, end = (world.state.projects[name].pacer for name in ("from", "to"))
    assert start is not None
    assert end is not None
    assert start.reserved == pytest.approx(0.0, abs=1e-12)
    assert end.reserved == 0.0
    assert calls_left(world) == 5


def test_a_reset_bucket_keeps_its_spend() -> None:
    world = World(Bucket("b", schema=SCHEMA, budget=HARD, project="p"), [CHEAP], 0)
    world.put(ProjectPut(Project("p", budget=HARD)))
    old = [world.decide(Context(input_tokens=100)) for _ in range(3)]
    world.put(BucketPut(replace(world.bucket.config, quality_range=QualityRange(0.0, 5.0))))
    world.report(old[0], {Signal.COST: 0.0})
    assert calls_left(world) == 3
    world.put(BucketDeleted("b"))
    pacer = world.state.projects["p"].pacer
    assert pacer is not None
    assert pacer.reserved == pytest.approx(5 * 0.0021)
    world.put(old[1])  # a decision that was in flight when its bucket went
    assert pacer.reserved == pytest.approx(6 * 0.0021)


def test_parts_of_a_cost_let_go_of_nothing() -> None:
    """Where reports add up, more may come until the period ends."""
    rules = OutcomeRules(cost=Aggregation.SUM)
    world = World(Bucket("b", schema=SCHEMA, budget=HARD, rules=rules), [CHEAP], 0)
    decision = world.decide(Context(input_tokens=100))
    reported = world.report(decision, {Signal.COST: 0.0001})
    world.report(decision, {Signal.COST: 0.002}, reported)
    assert calls_left(world) == 4


rule_edits = st.lists(
    st.tuples(st.sampled_from([Aggregation.LAST, Aggregation.SUM, Aggregation.MEAN]), st.floats(0.0, 0.002)),
    min_size=1,
    max_size=6,
)


@given(edits=rule_edits)
def test_edits_of_the_cost_rule_between_reports_count_every_dollar(edits: list[tuple[Aggregation, float]]) -> None:
    """A decision counts its bound until a report releases that, and the reported cost from then on, whatever the rule was."""
    world = World(Bucket("b", schema=SCHEMA, budget=HARD), [CHEAP], 0)
    decision = world.decide(Context(input_tokens=100))
    pacer = world.bucket.pacer
    assert pacer is not None
    reported, released = None, False
    for rule, cost in edits:
        world.put(BucketPut(replace(world.bucket.config, rules=OutcomeRules(cost=rule))))
        reported = world.report(decision, {Signal.COST: cost}, reported)
        released = released or rule is not Aggregation.SUM
        value = reported.aggregates[Signal.COST].value
        assert pacer.reserved == pytest.approx(value if released else max(value, decision.max_cost), abs=1e-12)
        assert pacer.spent == pytest.approx(value, abs=1e-12)


def test_a_rule_edited_from_last_to_sum_counts_the_second_part() -> None:
    world = World(Bucket("b", schema=SCHEMA, budget=HARD), [CHEAP], 0)
    decision = world.decide(Context(input_tokens=100))
    reported = world.report(decision, {Signal.COST: 0.0001})
    world.put(BucketPut(replace(world.bucket.config, rules=OutcomeRules(cost=Aggregation.SUM))))
    world.report(decision, {Signal.COST: 0.0015}, reported)
    assert world.bucket.pacer is not None
    assert world.bucket.pacer.reserved == pytest.approx(0.0016)


def test_an_estimate_of_the_input_is_no_bound() -> None:
    schema = Schema(input_tokens=TokenCountFeature(), text=TextFeature())
    world = World(Bucket("b", schema=schema, budget=HARD), [CHEAP], 0)
    text = "ab " * 1000
    decision = world.decide(Context(text=text))
    assert decision.max_cost == pytest.approx((3000 * 1.0 + 1000 * 2.0) / 1e6)
