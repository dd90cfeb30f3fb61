"""Under forgetting too, an outcome counts by the age of its decision: order and lateness of reports change nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.bandit.amounts import DERIVED, SUMS
from pointsman.bandit.catalog import Bucket, Model, NumberFeature, Schema
from pointsman.bandit.encoder import Context
from pointsman.bandit.event import DecisionMade
from pointsman.bandit.outcome import ReportedOutcome, Signal
from pointsman.bandit.packed import pack
from pointsman.bandit.posterior import NONE, Posteriors, observation_counts, prior_precision, settle
from tests.bandit.worlds import World

DAY_NS = 86_400 * 10**9
HOUR_NS = 3600 * 10**9
SCHEMA = Schema(numbers=(NumberFeature("n"),))
BY_OUTCOMES = Bucket("b", schema=SCHEMA, half_life=16.0)
BY_TIME = Bucket("b", schema=SCHEMA, half_life=0.0, half_life_ns=HOUR_NS)


def told(bucket: Bucket, order: list[int], waits: int = 0) -> tuple[World, list[DecisionMade]]:
    """40 decisions, of which the first 10 are reported at once and the others in ``order``, after a wait of so many hours."""
    world = World(bucket, [Model("a")], seed=1)
    rng = np.random.default_rng(2)
    decisions = []
    for i in range(40):
        world.now_ns += HOUR_NS // 20
        decisions.append(world.decide(Context({"n": float(rng.normal())})))
        if i < 10:
            world.report(decisions[-1], {Signal.QUALITY: 0.5, Signal.COST: 0.01})
    world.now_ns += waits * HOUR_NS
    for i in order:
        world.report(
            decisions[10 + i], {Signal.QUALITY: (i % 7) / 7, Signal.COST: 0.01 * (1 + i), Signal.LATENCY: 1.0 + i}
        )
    return world, decisions


def assert_same(left: World, right: World, rtol: float = 1e-9) -> None:
    a, b = left.bucket.posteriors, right.bucket.posteriors
    atol = 1e-12 if rtol < 1e-6 else 1e-3
    for name in ("mean_krd", "eta_krd", "a_kr", "b_kr", "square_kr"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=rtol, atol=atol, err_msg=name)
    for name in (*SUMS, *DERIVED):
        mine, other = getattr(settle(a), name), getattr(settle(b), name)
        if mine.shape != other.shape:  # a latency was counted and taken back, or never counted
            mine, other = mine.sum(), other.sum()
        np.testing.assert_allclose(mine, other, rtol=rtol, atol=atol, err_msg=name)
    for r in range(4):
        np.testing.assert_allclose(precision(a, r), precision(b, r), rtol=rtol, atol=atol)


def precision(posteriors: Posteriors, response: int) -> npt.NDArray[np.float64]:
    """Λ of all models (packed), the prior's where nothing was observed."""
    number = int(posteriors.design_r[response])
    if number != NONE:
        return posteriors.designs[number].precision_kp
    return np.array(
        [pack(np.diag(prior_precision(posteriors.ridge_d(response), float(mass)))) for mass in posteriors.mass_k]
    )


@pytest.mark.parametrize("bucket", [BY_OUTCOMES, BY_TIME], ids=["outcomes", "time"])
@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(30)))
def test_the_order_of_late_outcomes_does_not_matter(bucket: Bucket, order: list[int]) -> None:
    shuffled, _ = told(bucket, list(order))
    straight, _ = told(bucket, list(range(30)))
    assert_same(shuffled, straight)


def test_a_late_outcome_has_the_remaining_weight_of_its_decision() -> None:
    late, _ = told(BY_TIME, list(range(30)), waits=3)
    prompt, _ = told(BY_TIME, list(range(30)), waits=0)
    prompt.now_ns = late.now_ns
    prompt.decide(Context({"n": 0.0}))  # lets the time pass
    late.decide(Context({"n": 0.0}))
    assert_same(late, prompt, rtol=0.03)  # the half-life is applied in steps of a thirty-second of it
    design = late.bucket.posteriors.designs[late.bucket.posteriors.design_r[0]]
    assert design.log_decay_k[0] == pytest.approx(-np.log(2.0) * 5, abs=0.3)  # two hours of decisions, three of waiting


@pytest.mark.parametrize("bucket", [BY_OUTCOMES, BY_TIME], ids=["outcomes", "time"])
def test_a_late_correction_equals_a_correct_first_report(bucket: Bucket) -> None:
    right, _ = told(bucket, list(range(30)))
    wrong, _ = told(bucket, [])
    decisions, reported_outcomes = told(bucket, [])[1], {}
    for i in range(30):
        reported_outcomes[i] = wrong.report(
            decisions[10 + i], {Signal.QUALITY: 1.0, Signal.COST: 5.0, Signal.LATENCY: 90.0}
        )
    for i in reversed(range(30)):
        signals = {Signal.QUALITY: (i % 7) / 7, Signal.COST: 0.01 * (1 + i), Signal.LATENCY: 1.0 + i}
        wrong.report(decisions[10 + i], signals, reported_outcomes[i])
    assert_same(right, wrong)


PARTS: tuple[dict[Signal, float], ...] = (
    {Signal.SUCCESS: 0.0},
    {Signal.COST: 0.5, Signal.LATENCY: 3.0},
    {Signal.OUTPUT_TOKENS: 120.0, Signal.QUALITY: 0.4},
)
"""What is reported of a call, in any order; whether it failed may come last."""


def told_in_parts(bucket: Bucket, order: list[int], success: list[float]) -> World:
    """Six decisions with ``PARTS`` of each reported in ``order``; how decision i went is ``success[i]``, first or last."""
    world = World(bucket, [Model("a")], seed=4)
    decisions, reported_outcomes = [], [ReportedOutcome() for _ in range(6)]
    for i in range(6):
        world.now_ns += HOUR_NS // 20
        decisions.append(world.decide(Context({"n": i / 3 - 1})))
    for which in order:
        i, part = divmod(which, 3)
        report = {Signal.SUCCESS: success[i]} if part == 0 else {s: v * (1 + i) / 6 for s, v in PARTS[part].items()}
        reported_outcomes[i] = world.report(decisions[i], report, reported_outcomes[i])
    return world


@pytest.mark.parametrize("bucket", [BY_OUTCOMES, BY_TIME], ids=["outcomes", "time"])
@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(18)), success=st.lists(st.sampled_from([0.0, 1.0]), min_size=6, max_size=6))
def test_the_order_of_failure_reports_does_not_matter(bucket: Bucket, order: list[int], success: list[float]) -> None:
    straight = told_in_parts(bucket, list(range(18)), success)
    shuffled = told_in_parts(bucket, list(order), success)
    assert_same(shuffled, straight)
    shuffled_bucket, straight_bucket = shuffled.bucket, straight.bucket
    np.testing.assert_allclose(shuffled_bucket.sum_sk, straight_bucket.sum_sk, rtol=1e-12)
    np.testing.assert_array_equal(
        observation_counts(shuffled_bucket.posteriors), observation_counts(straight_bucket.posteriors)
    )


def test_a_retracted_failure_is_learned_and_a_late_one_is_unlearned() -> None:
    """What the fuzzer found: tokens of a failed call were never observed, and then corrected."""
    signals = {Signal.COST: 0.5, Signal.LATENCY: 3.0, Signal.OUTPUT_TOKENS: 19.0}
    right = World(Bucket("b"), [Model("a")], seed=4)
    right.report(right.decide(), signals | {Signal.SUCCESS: 1.0})
    flips = World(Bucket("b"), [Model("a")], seed=4)
    decision = flips.decide()
    reported = flips.report(decision, {**signals, Signal.OUTPUT_TOKENS: 120.0, Signal.SUCCESS: 0.0})
    assert (flips.bucket.posteriors.design_r == NONE).all()
    reported = flips.report(decision, {Signal.SUCCESS: 1.0, Signal.OUTPUT_TOKENS: 19.0}, reported)
    assert_same(flips, right)
    reported = flips.report(decision, {Signal.SUCCESS: 0.0}, reported)
    nothing = flips.bucket.posteriors
    np.testing.assert_allclose(nothing.mean_krd[0, :, -1], nothing.prior_kr2[0, :, 0], atol=1e-12)
    assert not any(design.count_k.any() for g, design in enumerate(nothing.designs) if g in nothing.design_r)
    flips.report(decision, {Signal.SUCCESS: 1.0}, reported)
    assert_same(flips, right)


REPORT = st.fixed_dictionaries(
    {},
    optional={
        Signal.SUCCESS: st.sampled_from([0.0, 1.0]),
        Signal.QUALITY: st.floats(0.0, 1.0),
        Signal.COST: st.floats(0.0, 1.0),
        Signal.LATENCY: st.floats(0.01, 100.0),
        Signal.OUTPUT_TOKENS: st.integers(0, 1000).map(float),
    },
).filter(bool)


@pytest.mark.parametrize("half_life", [0.0, 16.0])
@settings(max_examples=60, deadline=None)
@given(reports=st.lists(st.tuples(st.integers(0, 2), REPORT), min_size=1, max_size=12))
def test_only_the_last_word_on_each_signal_counts(
    half_life: float, reports: list[tuple[int, dict[Signal, float]]]
) -> None:
    bucket = Bucket("b", schema=SCHEMA, half_life=half_life)
    corrected, direct = World(bucket, [Model("a")], seed=6), World(bucket, [Model("a")], seed=6)
    contexts = [Context({"n": n}) for n in (-1.0, 0.5, 2.0)]
    decisions, same = [corrected.decide(c) for c in contexts], [direct.decide(c) for c in contexts]
    reported_outcomes, final = [ReportedOutcome() for _ in contexts], [dict[Signal, float]() for _ in contexts]
    for i, report in reports:
        reported_outcomes[i] = corrected.report(decisions[i], report, reported_outcomes[i])
        final[i] |= report
    for decision, report in zip(same, final, strict=True):
        if report:
            direct.report(decision, report)
    assert_same(corrected, direct, rtol=1e-8)
    np.testing.assert_array_equal(
        observation_counts(corrected.bucket.posteriors), observation_counts(direct.bucket.posteriors)
    )
    np.testing.assert_allclose(corrected.bucket.sum_sk, direct.bucket.sum_sk, rtol=1e-9, atol=1e-9)


def test_idle_time_widens_posteriors() -> None:
    world = World(BY_TIME, [Model("a"), Model("c")], seed=3)
    world.play(200, lambda t, model: {Signal.QUALITY: 0.9 if model == "a" else 0.1}, lambda t: Context({"n": 0.0}))
    sure = world.decide(Context({"n": 0.0})).predicted.quality_sd_k
    world.now_ns += 2 * DAY_NS
    world.decide(Context({"n": 0.0}))
    assert (world.decide(Context({"n": 0.0})).predicted.quality_sd_k > 3 * sure).all()
