"""Under forgetting too, an outcome counts by the age of its decision: order and lateness of reports change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandit.catalog import Bucket, Model, NumberFeature, Schema
from bandit.encoder import Context
from bandit.event import DecisionMade
from bandit.outcome import Signal
from tests.bandit.worlds import World

DAY_NS = 86_400 * 10**9
HOUR_NS = 3600 * 10**9
SCHEMA = Schema(numbers=(NumberFeature("n"),))
BY_OUTCOMES = Bucket("b", schema=SCHEMA, half_life=16.0)
BY_TIME = Bucket("b", schema=SCHEMA, half_life=0.0, half_life_ns=HOUR_NS)


def told(bucket: Bucket, order: list[int], waits: int = 0) -> tuple[World, list[DecisionMade]]:
    """40 decisions, of which the first 10 are reported at once and the others in ``order``, after a wait of so many hours."""
    made = World(bucket, [Model("a")], seed=1)
    rng = np.random.default_rng(2)
    decisions = []
    for i in range(40):
        made.now_ns += HOUR_NS // 20
        decisions.append(made.decide(Context({"n": float(rng.normal())})))
        if i < 10:
            made.report(decisions[-1], {Signal.QUALITY: 0.5, Signal.COST: 0.01})
    made.now_ns += waits * HOUR_NS
    for i in order:
        made.report(
            decisions[10 + i], {Signal.QUALITY: (i % 7) / 7, Signal.COST: 0.01 * (1 + i), Signal.LATENCY: 1.0 + i}
        )
    return made, decisions


def assert_same(one: World, other: World, rtol: float = 1e-9) -> None:
    a, b = one.bucket.posteriors, other.bucket.posteriors
    atol = 1e-12 if rtol < 1e-6 else 1e-3
    for name in ("mean_krd", "eta_krd", "a_kr", "b_kr", "square_kr", "late_kn", "tail_k"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=rtol, atol=atol, err_msg=name)
    for g, h in zip(a.design_r, b.design_r, strict=True):
        np.testing.assert_allclose(
            a.designs[g].precision_kp, b.designs[h].precision_kp, rtol=rtol, atol=1e-12 if rtol < 1e-6 else 1e-3
        )


@pytest.mark.parametrize("bucket", [BY_OUTCOMES, BY_TIME], ids=["outcomes", "time"])
@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(30)))
def test_the_order_of_late_outcomes_does_not_matter(bucket: Bucket, order: list[int]) -> None:
    shuffled, _ = told(bucket, list(order))
    straight, _ = told(bucket, list(range(30)))
    assert_same(shuffled, straight)


def test_a_late_outcome_counts_what_is_left_of_its_decision() -> None:
    late, _ = told(BY_TIME, list(range(30)), waits=3)
    prompt, _ = told(BY_TIME, list(range(30)), waits=0)
    prompt.now_ns = late.now_ns
    prompt.decide(Context({"n": 0.0}))  # lets the time pass
    late.decide(Context({"n": 0.0}))
    assert_same(late, prompt, rtol=0.03)  # the half-life is applied in steps of a thirty-second of it
    design = late.bucket.posteriors.designs[late.bucket.posteriors.design_r[0]]
    assert design.faded_k[0] == pytest.approx(-np.log(2.0) * 5, abs=0.3)  # two hours of decisions, three of waiting


@pytest.mark.parametrize("bucket", [BY_OUTCOMES, BY_TIME], ids=["outcomes", "time"])
def test_a_late_correction_equals_having_been_told_right(bucket: Bucket) -> None:
    right, _ = told(bucket, list(range(30)))
    wrong, _ = told(bucket, [])
    decisions, ledgers = told(bucket, [])[1], {}
    for i in range(30):
        ledgers[i] = wrong.report(decisions[10 + i], {Signal.QUALITY: 1.0, Signal.COST: 5.0, Signal.LATENCY: 90.0})
    for i in reversed(range(30)):
        signals = {Signal.QUALITY: (i % 7) / 7, Signal.COST: 0.01 * (1 + i), Signal.LATENCY: 1.0 + i}
        wrong.report(decisions[10 + i], signals, ledgers[i])
    assert_same(right, wrong)


def test_idle_time_widens_what_is_known() -> None:
    made = World(BY_TIME, [Model("a"), Model("c")], seed=3)
    made.play(200, lambda t, model: {Signal.QUALITY: 0.9 if model == "a" else 0.1}, lambda t: Context({"n": 0.0}))
    sure = made.decide(Context({"n": 0.0})).predicted.quality_sd_k
    made.now_ns += 2 * DAY_NS
    made.decide(Context({"n": 0.0}))
    assert (made.decide(Context({"n": 0.0})).predicted.quality_sd_k > 3 * sure).all()
