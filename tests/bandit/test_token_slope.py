"""Cost, latency and output tokens know how long the prompt is, also where the schema does not say so; quality does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.bandit.amounts import COST, DERIVED, LATENCY, QUALITY, SUMS
from pointsman.bandit.bucket import Bucket, learn
from pointsman.bandit.catalog import Model, NumberFeature, Schema, TokenCountFeature
from pointsman.bandit.encoder import Context
from pointsman.bandit.outcome import Signal, SignalChange
from pointsman.bandit.packed import unpack
from pointsman.bandit.posterior import prior_precision, settle
from pointsman.bandit.token_slope import SLOPE_PRECISION, log_tokens
from tests.bandit.worlds import World

SCHEMA = Schema(numbers=(NumberFeature("n"),))


def test_the_effect_is_that_of_a_regression_with_one_more_feature() -> None:
    world, rng = World(Bucket("b", schema=SCHEMA, half_life=0.0), [Model("a")]), np.random.default_rng(1)
    rows, logs = [], []
    for i in range(300):  # past a refresh
        x_d, tokens = np.array([rng.normal(), 1.0]), int(np.exp(rng.normal(6.0, 1.5)))
        log_cost = -7.0 + 0.3 * x_d[0] + 0.8 * log_tokens(tokens) + 0.1 * rng.normal()
        changes = [SignalChange(Signal.COST, None, math.exp(log_cost)), SignalChange(Signal.QUALITY, None, 0.5)]
        learn(world.bucket, "a", x_d, changes[: 1 + i % 2], input_tokens=tokens)
        rows.append([*x_d, log_tokens(tokens)])
        logs.append(log_cost)
    posteriors, z_nd = world.bucket.posteriors, np.array(rows)
    prior_d = [*prior_precision(posteriors.ridge_d(COST), float(posteriors.mass_k[0])), SLOPE_PRECISION]
    intercept, b = posteriors.prior_kr2[0, COST]
    precision_dd, eta_d = np.diag(prior_d) + z_nd.T @ z_nd, z_nd.T @ np.array(logs)
    eta_d[1] += prior_d[1] * intercept
    joint_d = np.linalg.solve(precision_dd, eta_d)
    slope = settle(posteriors).slope_kr[0, COST]
    assert slope == pytest.approx(joint_d[2], rel=1e-9)
    design = posteriors.designs[posteriors.design_r[COST]]
    np.testing.assert_allclose(posteriors.mean_krd[0, COST] - slope * design.token_mean_kd[0], joint_d[:2], rtol=1e-9)
    np.testing.assert_allclose(unpack(design.precision_kp[0], 2), precision_dd[:2, :2], rtol=1e-9)
    assert b + (np.array(logs) @ np.array(logs) + prior_d[1] * intercept**2 - joint_d @ eta_d) / 2 > 0.0


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_cost_and_latency_follow_the_tokens(power: float) -> None:
    world, rng = World(Bucket("b"), [Model("a")]), np.random.default_rng(2)
    tokens = [int(10 ** rng.uniform(1.5, 4.5)) for _ in range(300)]

    def answer(t: int, model: str) -> dict[Signal, float]:
        amount = (tokens[t] / 1000.0) ** power * math.exp(0.2 * rng.normal())
        return {Signal.QUALITY: 0.5, Signal.COST: 0.01 * amount, Signal.LATENCY: amount, Signal.OUTPUT_TOKENS: 300.0}

    world.play(300, answer, lambda t: Context(input_tokens=tokens[t]))
    for count in (50, 1_000, 20_000):
        predicted = world.decide(Context(input_tokens=count)).predicted
        assert predicted.cost_k[0] == pytest.approx(0.01 * (count / 1000.0) ** power, rel=0.15)
        assert predicted.latency_k[0] == pytest.approx((count / 1000.0) ** power, rel=0.15)
        assert predicted.latency_p95_k[0] == pytest.approx((count / 1000.0) ** power * math.exp(0.33), rel=0.3)
        assert predicted.tokens_k[0] == pytest.approx(300.0, rel=0.05)
        assert predicted.quality_k[0] == pytest.approx(0.5, abs=0.01)
    unknown = world.decide(Context()).predicted
    typical = 0.01 * (10**3.0 / 1000.0) ** power  # at the average logarithm of the tokens
    assert typical / 2 < unknown.cost_k[0] < 4 * typical


def test_tokens_that_are_never_known_or_are_a_feature_change_nothing() -> None:
    for schema, count in ((SCHEMA, None), (Schema(input_tokens=TokenCountFeature()), 500)):
        world = World(Bucket("b", schema=schema), [Model("a")])
        numbers = {"n": 0.5} if schema is SCHEMA else {}
        world.play(40, lambda t, model: {Signal.COST: 0.01}, lambda t, n=numbers, c=count: Context(n, input_tokens=c))  # type: ignore[misc]
        posteriors = world.bucket.posteriors
        assert not settle(posteriors).slope_kr.any()
        assert not posteriors.amounts.cross_kr.any()
        assert not posteriors.designs[posteriors.design_r[COST]].token_square_k.any()


def test_tokens_known_now_and_then_are_harmless() -> None:
    world, rng = World(Bucket("b"), [Model("a")]), np.random.default_rng(3)
    world.play(200, lambda t, model: {Signal.COST: 0.01 * math.exp(0.2 * rng.normal())},
               lambda t: Context(input_tokens=4000 if t % 3 == 0 else None))  # fmt: skip
    for context in (Context(), Context(input_tokens=4000)):
        assert world.decide(context).predicted.cost_k[0] == pytest.approx(0.01, rel=0.1)


AMOUNT = st.floats(1e-4, 1.0)
REPORTS = st.lists(st.fixed_dictionaries({Signal.COST: AMOUNT, Signal.LATENCY: AMOUNT}), min_size=8, max_size=8)


def told(
    half_life: float, reports: list[dict[Signal, float]], order: list[int], first: dict[Signal, float] | None
) -> World:
    """Eight decisions on prompts of different lengths, reported in ``order``, if need be with wrong values ``first``."""
    world = World(Bucket("b", schema=SCHEMA, half_life=half_life), [Model("a")], seed=5)
    world.play(
        12,
        lambda t, model: {Signal.COST: 0.01, Signal.LATENCY: 1.0 + t},
        lambda t: Context({"n": t / 12}, input_tokens=10 ** (1 + t % 4)),
    )
    decisions = [world.decide(Context({"n": i / 8}, input_tokens=5 ** (i + 1))) for i in range(8)]
    if first is not None:
        reported = [
            world.report(decision, first | {Signal.SUCCESS: float(i % 2)}) for i, decision in enumerate(decisions)
        ]
    for i in order:
        final = {**reports[i], Signal.SUCCESS: 1.0}
        world.report(decisions[i], final, None if first is None else reported[i])
    return world


@pytest.mark.parametrize("half_life", [0.0, 16.0])
@settings(deadline=None, max_examples=15)
@given(reports=REPORTS, order=st.permutations(range(8)), wrong=AMOUNT)
def test_order_corrections_and_retractions_leave_no_trace(
    half_life: float, reports: list[dict[Signal, float]], order: list[int], wrong: float
) -> None:
    straight = told(half_life, reports, list(range(8)), None)
    mended = told(half_life, reports, order, {Signal.COST: wrong, Signal.LATENCY: wrong})
    mine, other = straight.bucket.posteriors, mended.bucket.posteriors
    for name in (*SUMS, *DERIVED):
        np.testing.assert_allclose(getattr(settle(mine), name), getattr(settle(other), name), rtol=1e-7, atol=1e-8)
    for response in (COST, LATENCY):
        left, right = mine.designs[mine.design_r[response]], other.designs[other.design_r[response]]
        np.testing.assert_allclose(left.token_eta_kd, right.token_eta_kd, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(left.token_mean_kd, right.token_mean_kd, rtol=1e-7, atol=1e-9)
    assert settle(mine).slope_kr[0, QUALITY] == 0.0
