"""List prices that are not what is paid: found, corrected, and announced changes still act at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.bandit.catalog import Bucket, Budget, Model, Prices, Schema, TokenCountFeature
from pointsman.bandit.encoder import Context
from pointsman.bandit.errors import NothingEligibleError
from pointsman.bandit.event import BucketPut, DecisionMade, ModelPut
from pointsman.bandit.list_prices import CALLS, LISTED, PAID, count_paid, learn_paid, no_calls, price_ratios
from pointsman.bandit.outcome import NO_REPORTS, OutcomeRules, Signal, merge
from tests.bandit.worlds import World

LIST = Prices(input_per_million=2.0, output_per_million=10.0)
MODEL = Model("m", prices=LIST, max_output_tokens=2000)
SENT = Context(input_tokens=1000)
BY_LIST = 2e-6 * 1000 + 10e-6 * 500
Paid = Callable[[int], float]


def paying(factor: Paid, calls: int, world: World | None = None, told: Callable[[int], bool] = lambda t: True) -> World:
    """A world whose only model's calls cost ``factor`` times what its list says."""
    schema = Schema(input_tokens=TokenCountFeature())
    world = World(Bucket("b", schema=schema), [MODEL]) if world is None else world

    def answer(t: int, model: str) -> dict[Signal, float]:
        reported = {Signal.COST: BY_LIST * factor(t), Signal.OUTPUT_TOKENS: 500.0} if told(t) else {}
        return {Signal.QUALITY: 0.5, **reported}

    world.play(calls, answer, lambda t: SENT)
    return world


def expected_cost(world: World) -> float:
    return float(world.decide(SENT).predicted.cost_k[0])


@pytest.mark.parametrize(
    ("factor", "calls", "within"),
    [(0.25, 10, 0.3), (0.8, 50, 0.1), (2.0, 10, 0.2), (1000.0, 20, 0.4), (0.001, 200, 0.4)],
    ids=["cut", "discount", "too low", "per thousand too low", "per thousand too high"],
)
def test_a_list_price_that_was_never_true_is_corrected(factor: float, calls: int, within: float) -> None:
    assert expected_cost(paying(lambda t: factor, calls)) == pytest.approx(BY_LIST * factor, rel=within)


@pytest.mark.parametrize(("factor", "calls"), [(0.25, 25), (0.5, 30), (4.0, 25), (0.75, 80)])
def test_a_silent_change_is_found_after_a_long_time(factor: float, calls: int) -> None:
    world = paying(lambda t: 1.0, 2000)
    assert expected_cost(world) == pytest.approx(BY_LIST, rel=0.05)
    assert expected_cost(paying(lambda t: factor, calls, world)) == pytest.approx(BY_LIST * factor, rel=0.25)


def test_a_share_of_cached_calls_counts_as_it_is_paid() -> None:
    rng = np.random.default_rng(0)
    for free, paid in ((0.4, 0.1), (0.05, 0.0), (0.3, 0.0)):
        world = paying(lambda t, free=free, paid=paid: paid if rng.random() < free else 1.0, 1000)  # type: ignore[misc]
        mean = BY_LIST * (1.0 - free + free * paid)
        assert expected_cost(world) == pytest.approx(mean, rel=0.25)


def test_a_few_free_calls_do_not_make_a_model_look_free() -> None:
    assert expected_cost(paying(lambda t: 0.0, 1)) > 0.3 * BY_LIST
    assert expected_cost(paying(lambda t: float(t > 3), 40)) == pytest.approx(0.9 * BY_LIST, rel=0.15)


def test_reports_of_a_tenth_of_the_calls_are_enough() -> None:
    world = paying(lambda t: 0.3, 200, told=lambda t: t % 10 == 0)
    assert expected_cost(world) == pytest.approx(0.3 * BY_LIST, rel=0.15)


def test_a_discount_persists_across_an_announcement_which_acts_at_once() -> None:
    world = paying(lambda t: 0.8, 300)
    world.put(ModelPut(replace(MODEL, prices=Prices(1.0, 5.0))))
    assert expected_cost(world) == pytest.approx(0.8 * BY_LIST / 2.0, rel=0.1)


def test_an_announcement_of_what_is_paid_already_changes_nothing() -> None:
    world = paying(lambda t: 0.25, 300)
    world.put(ModelPut(replace(MODEL, prices=Prices(0.5, 2.5))))
    assert expected_cost(world) == pytest.approx(0.25 * BY_LIST, rel=0.02)


def test_calls_of_before_a_change_are_not_held_against_the_new_prices() -> None:
    world = paying(lambda t: 1.0, 50)
    late = [world.decide(SENT) for _ in range(20)]
    world.put(ModelPut(replace(MODEL, prices=Prices(0.2, 1.0))))
    for decision in late:
        world.report(decision, {Signal.COST: BY_LIST, Signal.OUTPUT_TOKENS: 500.0})
    assert expected_cost(world) == pytest.approx(BY_LIST / 10.0, rel=0.05)


def test_a_free_model_that_is_paid_for_costs_what_is_paid() -> None:
    world = World(Bucket("b", schema=Schema(input_tokens=TokenCountFeature())), [Model("m", prices=Prices(0.0, 0.0))])
    answer = {Signal.QUALITY: 0.5, Signal.COST: 0.02, Signal.OUTPUT_TOKENS: 500.0}
    world.play(60, lambda t, model: answer, lambda t: SENT)
    assert expected_cost(world) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_a_hard_budget_reserves_what_is_paid_or_the_list_whichever_is_more(factor: float) -> None:
    """The cap holds though calls cost twice what the list says, from when that was seen; and no less is reserved if they cost
    half.
    """
    world = paying(lambda t: factor, 30)
    plain = world.bucket.config
    world.put(BucketPut(replace(plain, budget=Budget(1.0, period_ns=86_400 * 10**9, hard=True))))
    most = (2e-6 * 1000 + 10e-6 * 2000) * max(factor, 1.0)
    spent, decisions = 0.0, list[DecisionMade]()
    for _ in range(400):
        try:
            decision = world.decide(SENT)
        except NothingEligibleError:
            break
        assert decision.max_cost == pytest.approx(most, rel=0.01)
        decisions.append(decision)
        if len(decisions) == 10:  # ten at a time are under way
            for waiting in decisions:
                world.report(waiting, {Signal.COST: most / max(factor, 1.0) * factor, Signal.OUTPUT_TOKENS: 2000.0})
                spent += most / max(factor, 1.0) * factor
            decisions.clear()
    assert 0.5 < spent <= 1.0


report = st.dictionaries(
    st.sampled_from([Signal.COST, Signal.INPUT_TOKENS, Signal.OUTPUT_TOKENS, Signal.SUCCESS]),
    st.floats(0.5, 1.0),
    min_size=1,
    max_size=3,
)


@settings(deadline=None)
@given(st.lists(report, min_size=1, max_size=6))
def test_parts_and_corrections_come_to_what_is_known_in_the_end(reports: list[dict[Signal, float]]) -> None:
    """In whatever parts, with whatever corrections: the sums are those of the values in the end."""
    row_7, reported = no_calls(1)[0], NO_REPORTS
    for values in reports:
        given_values = {s: float(round(v)) if s is Signal.SUCCESS else v * 1000 for s, v in values.items()}
        reported, changes = merge(reported, given_values, OutcomeRules())
        learn_paid(row_7, LIST, -1, changes, reported)
    final = {signal: aggregate.value for signal, aggregate in reported.aggregates.items()}
    needed = {Signal.COST, Signal.INPUT_TOKENS, Signal.OUTPUT_TOKENS}
    if needed <= final.keys() and final.get(Signal.SUCCESS) != 0.0:
        listed = (2.0 * final[Signal.INPUT_TOKENS] + 10.0 * final[Signal.OUTPUT_TOKENS]) / 1e6
        np.testing.assert_allclose(row_7[[PAID, LISTED, CALLS]], [final[Signal.COST], listed, 1.0], rtol=1e-9)
    else:
        np.testing.assert_allclose(row_7[[PAID, LISTED, CALLS]], 0.0, atol=1e-9)


@settings(deadline=None)
@given(st.floats(1e-6, 1e6), st.integers(1, 300))
def test_ratios_lie_between_the_list_and_what_is_paid(factor: float, calls: int) -> None:
    row_7 = no_calls(1)[0]
    for _ in range(calls):
        count_paid(row_7, factor, 1.0)
    (ratio,) = price_ratios(row_7[None])
    assert min(1.0, factor) <= ratio * (1 + 1e-9)
    assert ratio <= max(1.0, factor) * (1 + 1e-9)
