"""The protocol of online policies: one loop for all, late and lost outcomes, models that come later, failing calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.routing.derive import with_model, with_tokens
from pointsman.bandit.catalog import Prices
from pointsman.bandit.event import DecisionMade
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.policies.base import BudgetMultiplier, Choice
from pointsman.simulator.policies.registry import check_run, parse_policy
from pointsman.simulator.policies.simple import EpsilonGreedy
from pointsman.simulator.policies.spec import Run, policy_rng
from pointsman.simulator.policies.thompson import Thompson
from pointsman.simulator.run.replay import Replay, play, play_online
from pointsman.simulator.world.changes import FeedbackLost, ModelAdded, Outage, PriceFactor, QualityLevel, Schedule
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.rounds import CallOutcome
from pointsman.simulator.world.utility import parse_objective
from pointsman.simulator.world.world import UNIT, World, make_world, order_of

Make = Callable[..., OutcomeTable]
ONE, TASK = Features("none", "one"), Features("none", "task")
LARGE = "vendor/large"
OURS = ("thompson", "uniform", "epsilon-greedy")


def run(policy: str, schedule: Schedule = (), objective: str = "QUALITY_FIRST", **settings: object) -> Run:
    plain = Run(parse_policy(policy), parse_objective(objective, UNIT), None, 0, schedule=schedule)
    return replace(plain, **settings)  # type: ignore[arg-type]


def share(played: Replay, model: int, start: int, end: int) -> float:
    return float(np.mean(played.chosen_t[start:end] == model))


def steady(make_table: Make, outcomes: list[tuple[float, float, float]], n: int = 300) -> World:
    """A world in which the outcomes (quality, cost, latency) of each model never vary."""
    table = make_table(n)
    while len(table.models) < len(outcomes):
        table = with_model(table, f"model {len(table.models)}".replace(" ", "-"), quality_of="small", cost_of="small")
    quality_nk, cost_nk, latency_nk = (np.tile(column, (n, 1)) for column in np.array(outcomes).T)
    table = replace(table, quality_nk=quality_nk, cost_nk=cost_nk, latency_nk=latency_nk, tasks=("t",) * n)
    return make_world(table, ONE)


@pytest.mark.parametrize(
    ("objective", "best"),
    [
        ("QUALITY_FIRST", 2),
        ("BALANCED:cost_weight=1", 1),
        ("BALANCED:cost_weight=100", 0),
        ("WEIGHTED:latency_weight=1", 1),
        ("COST_FIRST:max_quality_loss=0.1", 1),
        ("COST_FIRST:min_quality=0.5", 0),
        ("COST_FIRST:min_quality=0.95", 2),
        ("LATENCY_FIRST:max_quality_loss=0.5", 1),
    ],
)
def test_epsilon_greedy_follows_the_objective(make_table: Make, objective: str, best: int) -> None:
    world = steady(make_table, [(0.6, 0.01, 0.5), (0.88, 0.02, 0.1), (0.93, 0.4, 0.3)])
    played = play_online(world, run("epsilon-greedy", objective=objective))
    assert share(played, best, 10, 300) > 0.85  # 1 - ε and its share of ε


@pytest.mark.parametrize("policy", OURS)
def test_nothing_is_learned_before_its_delay(make_table: Make, policy: str) -> None:
    """With a delay as long as the run no outcome is ever learned, so nobody can prefer the better model."""
    world = steady(make_table, [(1.0, 1.0, 1.0), (0.0, 1.0, 1.0)], n=400)
    worse = [share(play_online(world, run(policy, delay=delay)), 1, 0, 400) for delay in (0, 400)]
    assert 0.35 < worse[1] < 0.65
    if policy != "uniform":
        assert worse[0] < 0.15


@pytest.mark.parametrize("policy", OURS)
def test_a_model_is_not_chosen_before_it_is_added(make_table: Make, policy: str) -> None:
    table = with_model(make_table(300), "new", quality_of=LARGE, cost_of="small")
    world = make_world(table, ONE, later=("new",))
    played = play_online(world, run(policy, (ModelAdded("new", 100),)))
    assert not (played.chosen_t[:100] == 2).any()
    assert (played.chosen_t[100:] == 2).any()
    assert world.present == ("small", LARGE)


def test_a_better_model_is_adopted(make_table: Make) -> None:
    table = with_model(make_table(600), "new", quality_of="small", cost_of="small", quality_factor=0.0)
    table = replace(table, quality_nk=np.column_stack([table.quality_nk[:, :2], np.full(600, 1.0)]))
    played = play_online(make_world(table, ONE, later=("new",)), run("thompson", (ModelAdded("new", 200),)))
    assert share(played, 2, 400, 600) > 0.9


def test_the_models_that_join_are_those_of_the_world(make_table: Make) -> None:
    world = make_world(make_table(20), ONE, later=(LARGE,))
    with pytest.raises(SettingError, match="expected to add vendor/large, got none"):
        check_run(world, run("thompson"))
    check_run(world, run("thompson", (ModelAdded(LARGE, 5),)))
    with pytest.raises(SettingError, match="some but not all"):
        make_world(make_table(20), ONE, later=("small", LARGE))


def test_a_dead_model_is_left_alone_and_found_again(make_table: Make) -> None:
    world = steady(make_table, [(0.9, 1e-4, 0.1), (0.5, 1e-4, 0.1)], n=900)
    played = play_online(world, run("thompson", (Outage("small", 300, 600),)))
    assert share(played, 0, 200, 300) > 0.9
    assert share(played, 0, 320, 600) < 0.05
    assert share(played, 0, 800, 900) > 0.9


def test_a_model_that_got_worse_is_left(make_table: Make) -> None:
    world = steady(make_table, [(0.9, 1e-4, 0.1), (0.5, 1e-4, 0.1)], n=900)
    played = play_online(world, run("thompson", (QualityLevel("small", 0.2, 300),)))
    assert share(played, 0, 200, 300) > 0.9
    assert share(played, 0, 600, 900) < 0.1


def test_announced_prices_act_at_once(make_table: Make) -> None:
    """A model whose list price falls below the other's is the cheaper from the next decision on."""
    prices = {"small": Prices(0.1, 0.1), LARGE: Prices(1.0, 10.0)}
    table = with_tokens(make_table(200), prices)
    table = replace(table, quality_nk=np.full((200, 2), 0.7))
    world = make_world(table, ONE, prices=prices, priced=True)
    played = play_online(world, run("thompson", (PriceFactor(LARGE, 1e-4, 100),), "BALANCED:cost_weight=30000"))
    assert share(played, 1, 20, 100) < 0.2
    assert share(played, 1, 102, 200) > 0.8
    with pytest.raises(SettingError, match=r"expected prices of all models, got none of vendor/large"):
        make_world(table, ONE, prices={"small": prices["small"]}, priced=True)


@pytest.mark.parametrize("policy", OURS)
def test_lost_feedback_is_not_learned(make_table: Make, policy: str) -> None:
    world = steady(make_table, [(1.0, 1e-4, 0.1), (0.0, 1e-4, 0.1)], n=400)
    played = play_online(world, run(policy, (FeedbackLost(1.0),)))
    assert 0.3 < share(played, 0, 0, 400) < 0.7


def test_rounds_may_be_more_or_fewer_than_rows(make_table: Make) -> None:
    world = make_world(make_table(50), ONE)
    order = order_of(world, 3)
    assert order_of(world, 3, 20) == order[:20]
    longer = order_of(world, 3, 120)
    assert len(longer) == 120 and longer[:50] == order and sorted(longer[50:100]) == list(range(50))
    assert longer[50:100] != order
    assert len(play_online(world, run("thompson", rounds=120)).chosen_t) == 120
    with pytest.raises(ValueError, match="without schedule and rounds"):
        play(world, run("thompson", rounds=120))


def test_all_policies_meet_the_same_world(make_table: Make) -> None:
    world = make_world(make_table(100), TASK)
    schedule = (FeedbackLost(0.5), PriceFactor(LARGE, 2.0, 30, 60))
    first, second = (play_online(world, run(policy, schedule)).rounds for policy in ("thompson", "uniform"))
    for name in ("row_t", "quality_tk", "cost_tk", "quality_reported_tk"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_the_dual_finds_the_multiplier(make_table: Make) -> None:
    """Calls that cost twice the budget raise it until they are worth avoiding; cheap ones lower it again."""
    world = steady(make_table, [(0.9, 1e-3, 0.1), (0.5, 1e-4, 0.1)])
    dual = BudgetMultiplier(world, 5e-4)
    assert not BudgetMultiplier(world, None).penalties_k().any()
    for _ in range(200):
        dual.learn(0, CallOutcome(0.9, 1e-3, 0.1, np.nan))
    raised = dual.penalties_k()
    assert raised[0] > 1.0 and raised[1] == 0.0  # nothing is known of the other's cost
    for _ in range(400):
        dual.learn(1, CallOutcome(0.5, 1e-4, 0.1, np.nan))
    assert dual.penalties_k()[0] < raised[0] and 0.0 < dual.penalties_k()[1] < dual.penalties_k()[0]
    before = dual.penalties_k() / dual.multiplier
    dual.learn(0, CallOutcome(0.0, 0.0, np.nan, np.nan, success=False, quality_reported=False))
    np.testing.assert_array_equal(dual.penalties_k() / dual.multiplier, before)


def test_epsilon_greedy_keeps_a_budget(make_table: Make) -> None:
    """Up to what its exploration costs."""
    world = make_world(make_table(1500), ONE, warm=make_table(200, seed=5))
    budget = 6e-4
    played = play_online(world, run("epsilon-greedy", budget=budget))
    cost_t = np.take_along_axis(played.rounds.cost_tk, played.chosen_t[:, None], axis=1)
    assert 0.7 < cost_t.mean() / budget < 1.1


def test_a_failed_call_is_worth_nothing_to_rivals(make_table: Make) -> None:
    world = steady(make_table, [(0.9, 1e-4, 0.1), (0.5, 1e-4, 0.1)])
    policy = EpsilonGreedy(world, run("epsilon-greedy"), np.random.default_rng(0))
    for t in range(20):
        policy.learn(t, Choice(t, 0, 0), CallOutcome(0.0, 0.0, np.nan, np.nan, success=False, quality_reported=False))
        policy.learn(t, Choice(t, 0, 1), CallOutcome(0.5, 1e-4, 0.1, np.nan))
    assert np.mean([policy.choose(t, 0) for t in range(100)]) > 0.85


@pytest.mark.parametrize("objective", ["QUALITY_FIRST", "COST_FIRST:max_quality_loss=0.05", "BALANCED"])
@pytest.mark.parametrize("budget", [None, 5e-4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_whether_propensities_are_computed_changes_no_choice(
    make_table: Make, objective: str, budget: float | None, seed: int
) -> None:
    world = make_world(make_table(150), Features("x", "one"))
    settings = run("thompson", objective=objective, budget=budget, seed=seed, delay=3)
    decisions: list[DecisionMade] = []
    watched = play_online(
        world, settings, policy=Thompson(world, settings, policy_rng(settings), watch=decisions.append)
    )
    np.testing.assert_array_equal(play_online(world, settings).chosen_t, watched.chosen_t)
    assert all(0.0 < decision.propensity <= 1.0 for decision in decisions) and len(decisions) == 150
