"""State is a deterministic fold of outcomes and catalogue edits."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.bandit.bucket import arrays, restore_arrays
from pointsman.bandit.catalog import Aggregation, Bucket, Model, NumberFeature, OutcomeRules, Schema
from pointsman.bandit.encoder import Context
from pointsman.bandit.event import (
    AvailabilitySet,
    BucketDeleted,
    BucketPut,
    ModelDeleted,
    ModelPut,
    OutcomeApplied,
    Record,
)
from pointsman.bandit.join import join
from pointsman.bandit.outcome import ReportedOutcome, Signal, merge
from pointsman.bandit.posterior import QUALITY, to_arrays
from pointsman.bandit.state import State, apply, fingerprint, fold
from tests.bandit.worlds import World

SCHEMA = Schema(numbers=(NumberFeature("n"),))


def recorded(seed: int = 0) -> list[Record]:
    """The journal of a world in which everything happens."""
    records: list[Record] = []

    class Recording(World):
        def put(self, event: object) -> None:
            super().put(event)  # type: ignore[arg-type]
            records.append(Record(self.state.position, self.now_ns, event))  # type: ignore[arg-type]

    world = Recording(Bucket("b", schema=SCHEMA), [Model("a"), Model("c")], seed)
    for t in range(40):
        decision = world.decide(Context({"n": float(world.rng.normal())}))
        reported = world.report(decision, {Signal.QUALITY: float(world.rng.random()), Signal.SUCCESS: float(t % 7 > 0)})
        if t % 3 == 0:
            world.report(decision, {Signal.QUALITY: 0.5, Signal.COST: 0.01, Signal.LATENCY: 2.0}, reported)
        if t == 20:
            world.put(ModelPut(Model("new")))
            world.put(AvailabilitySet("a", False, "tired"))
    return records


def test_the_same_journal_gives_the_same_state_bit_for_bit() -> None:
    records = recorded()
    whole = fold(records)
    assert fingerprint(whole) == fingerprint(fold(records))
    for cut in (1, 17, len(records) - 1):
        assert fingerprint(fold(records[cut:], fold(records[:cut]))) == fingerprint(whole)
    assert fingerprint(fold(records[:-1])) != fingerprint(whole)
    assert fingerprint(fold(recorded(seed=1))) != fingerprint(whole)


def test_positions_may_have_gaps_but_never_go_back() -> None:
    records = recorded()
    state = fold([records[0], replace(records[1], position=9)])
    assert state.position == 9
    for record in (records[1], replace(records[2], position=9)):
        with pytest.raises(ValueError, match="after position 9"):
            fold([record], state)


def test_time_never_goes_back() -> None:
    records = recorded()
    earlier = replace(records[2], time_ns=records[0].time_ns - 1)
    assert fold([*records[:2], earlier]).time_ns == records[1].time_ns


def test_arrays_restore_a_bucket() -> None:
    bucket = fold(recorded()).buckets["b"]
    named = {name: array.copy() for name, array in arrays(bucket).items()}
    restore_arrays(bucket, named)
    assert {name: array.tobytes() for name, array in arrays(bucket).items()} == {
        name: array.tobytes() for name, array in named.items()
    }


def one_decision_each(order: list[int], reports: list[list[dict[Signal, float]]], rules: OutcomeRules) -> State:
    """Decide once for each list of reports, then report them in the order of decisions that ``order`` gives."""
    world = World(Bucket("b", schema=SCHEMA, rules=rules), [Model("a")])
    decisions = [world.decide(Context({"n": i / 3})) for i in range(len(reports))]
    reported_outcomes = [ReportedOutcome() for _ in reports]
    left = [list(r) for r in reports]
    for i in order:
        reported_outcomes[i] = world.report(decisions[i], left[i].pop(0), reported_outcomes[i])
    return world.state


@given(st.permutations([0, 0, 1, 1, 2, 2, 3]))
def test_the_order_of_independent_outcomes_does_not_matter(order: list[int]) -> None:
    reports = [
        [{Signal.QUALITY: 0.2, Signal.COST: 0.1}, {Signal.QUALITY: 0.9}],
        [{Signal.COST: 0.5}, {Signal.COST: 0.25, Signal.LATENCY: 3.0}],
        [{Signal.QUALITY: 1.0}, {Signal.QUALITY: 0.0, Signal.OUTPUT_TOKENS: 50.0}],
        [{Signal.QUALITY: 0.4, Signal.COST: 0.2}],
    ]
    state = one_decision_each(order, reports, OutcomeRules())
    expected = one_decision_each([0, 0, 1, 1, 2, 2, 3], reports, OutcomeRules())
    for mine, other in ((state, expected),):
        a, b = mine.buckets["b"].posteriors, other.buckets["b"].posteriors
        for name in ("mean_krd", "eta_krd", "a_kr", "b_kr"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(mine.buckets["b"].sum_sk, other.buckets["b"].sum_sk, rtol=1e-12)
        np.testing.assert_array_equal(mine.buckets["b"].count_sk, other.buckets["b"].count_sk)


def test_a_correction_equals_observing_the_final_value() -> None:
    wrong = one_decision_each(
        [0, 1, 0], [[{Signal.QUALITY: 0.1}, {Signal.QUALITY: 0.8}], [{Signal.QUALITY: 0.5}]], OutcomeRules()
    )
    right = one_decision_each([0, 1], [[{Signal.QUALITY: 0.8}], [{Signal.QUALITY: 0.5}]], OutcomeRules())
    a, b = wrong.buckets["b"].posteriors, right.buckets["b"].posteriors
    for name in ("mean_krd", "b_kr"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-10)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.sampled_from(list(Aggregation)))
def test_reports_merge_by_the_rule(values: list[float], rule: Aggregation) -> None:
    expected = {
        Aggregation.LAST: lambda v: v[-1],
        Aggregation.MEAN: lambda v: sum(v) / len(v),
        Aggregation.SUM: sum,
    }[rule]
    reported, merged_values, before = ReportedOutcome(), [], None
    for value in values:
        reported, changes = merge(reported, {Signal.QUALITY: value}, OutcomeRules(quality=rule))
        merged_values.append(value)
        assert reported.aggregates[Signal.QUALITY].value == pytest.approx(expected(merged_values))
        for change in changes:
            assert change.before == before
            before = change.after
    assert reported.reports == len(values)
    if rule is not Aggregation.LAST:
        for order in itertools.islice(itertools.permutations(values), 24):
            other = ReportedOutcome()
            for value in order:
                other, _ = merge(other, {Signal.QUALITY: value}, OutcomeRules(quality=rule))
            assert other.aggregates[Signal.QUALITY].value == pytest.approx(reported.aggregates[Signal.QUALITY].value)


def test_a_changed_schema_starts_afresh_and_old_decisions_teach_nothing() -> None:
    world = World(Bucket("b", schema=SCHEMA), [Model("a")])
    for _ in range(5):
        world.report(world.decide(Context({"n": 0})), {Signal.QUALITY: 1.0})
    old = world.decide(Context({"n": 0}))
    world.put(BucketPut(replace(world.bucket.config, display_name="renamed")))
    assert world.bucket.count_sk[Signal.QUALITY, 0] == 5
    world.put(BucketPut(replace(world.bucket.config, schema=Schema())))
    assert world.bucket.count_sk[Signal.QUALITY, 0] == 0
    before = {name: a.tobytes() for name, a in to_arrays(world.bucket.posteriors).items()}
    world.report(old, {Signal.QUALITY: 0.0})
    assert {name: a.tobytes() for name, a in to_arrays(world.bucket.posteriors).items()} == before


def test_a_deleted_and_recreated_model_starts_from_the_prior() -> None:
    world = World(Bucket("b"), [Model("a"), Model("c")])
    old = next(d for d in (world.decide() for _ in range(50)) if d.models[d.chosen] == "a")
    reported = world.report(old, {Signal.QUALITY: 1.0})
    world.put(ModelDeleted("a"))
    assert world.bucket.candidates.names == ("c",)
    assert world.decide().models == ("c",)
    world.put(ModelPut(Model("a")))
    k = world.bucket.columns.index("a")
    fresh = world.bucket.posteriors.mean_krd[k, QUALITY].copy()
    world.report(old, {Signal.QUALITY: 0.0}, reported)  # a correction of what is no longer there
    np.testing.assert_array_equal(world.bucket.posteriors.mean_krd[k, QUALITY], fresh)


def test_candidates_follow_the_catalogue() -> None:
    world = World(Bucket("b"), [Model("a")])
    world.put(BucketPut(Bucket("pinned", models=("a",))))
    world.put(ModelPut(Model("later")))
    assert world.bucket.candidates.names == ("a", "later")
    assert world.state.buckets["pinned"].candidates.names == ("a",)
    world.put(AvailabilitySet("a", False))
    assert world.bucket.candidates.available == (False, True)
    assert {world.decide().models[world.decide().chosen] for _ in range(20)} == {"later"}
    world.put(ModelPut(Model("a", display_name="changed")))
    assert world.bucket.candidates.available == (False, True)  # replacing a model does not switch it on
    world.put(BucketPut(replace(world.bucket.config, models=("later",))))
    assert world.bucket.candidates.names == ("later",)
    assert world.bucket.columns == ("a", "later")  # what was learned is kept
    world.put(BucketDeleted("b"))
    assert "b" not in world.state.buckets


def test_events_on_deleted_resources_change_only_the_position() -> None:
    world = World(Bucket("b"), [Model("a")])
    decision = world.decide()
    world.put(BucketDeleted("b"))
    event = OutcomeApplied(b"", "b", decision.generation, "a", decision.x_d, 0, 0.0, (), {})
    apply(world.state, Record(world.state.position + 1, world.now_ns, event))
    apply(world.state, Record(world.state.position + 1, world.now_ns, decision))
    apply(world.state, Record(world.state.position + 1, world.now_ns, AvailabilitySet("none", True)))
    assert world.state.buckets == {}


def test_a_bucket_that_cannot_learn_starts_afresh_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(Bucket("b", schema=SCHEMA), [Model("a"), Model("c")])
    world.put(BucketPut(Bucket("other", schema=SCHEMA)))
    decisions = [world.decide(Context({"n": i / 3})) for i in range(20)]
    for decision in decisions[:10]:
        world.report(decision, {Signal.QUALITY: 0.9})
    world.bucket_id = "other"
    elsewhere = [world.decide(Context({"n": i / 3})) for i in range(20)]
    before, position = world.state.buckets["other"], world.state.position
    world.bucket_id = "b"

    def broken(*_: object, **__: object) -> None:
        raise ArithmeticError("the precision of model 0 in design 0 is not positive definite")

    event = join(world.bucket, decisions[10], world.now_ns, {Signal.QUALITY: 0.5})
    with monkeypatch.context() as patch:
        patch.setattr("pointsman.bandit.state.learn", broken)
        error = apply(world.state, Record(position + 1, world.now_ns, event))
    assert isinstance(error, ArithmeticError)
    assert (
        world.bucket.generation == position + 1
        and not world.bucket.count_sk.any()
        and not world.bucket.decisions_k.any()
    )
    assert world.state.buckets["other"] is before
    world.report(decisions[11], {Signal.QUALITY: 0.5})  # decided before it started afresh: not learned
    assert not world.bucket.count_sk.any()
    world.report(world.decide(Context({"n": 0.1})), {Signal.QUALITY: 0.5})
    assert world.bucket.count_sk[Signal.QUALITY].sum() == 1
    world.bucket_id = "other"
    world.report(elsewhere[0], {Signal.QUALITY: 0.5})
    assert world.bucket.count_sk[Signal.QUALITY].sum() == 1
