"""What every policy of a replay must do, whoever wrote it; and the answers of the simple ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.routing.derive import with_model
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.policies.base import Choice, reward_of
from pointsman.simulator.policies.cascade import cascade
from pointsman.simulator.policies.linucb import ALPHA, LinUcb
from pointsman.simulator.policies.published import PACKAGES
from pointsman.simulator.policies.registry import ONLINE, check_run, make_policy, parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.policies.thompson import configure_bucket
from pointsman.simulator.run.experiment import measure_run
from pointsman.simulator.run.replay import play_online, rounds_of
from pointsman.simulator.world.changes import FeedbackLate, FeedbackLost, ModelAdded, Outage, Schedule
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.rounds import CallOutcome
from pointsman.simulator.world.utility import parse_objective
from pointsman.simulator.world.world import UNIT, World, make_world

Make = Callable[..., OutcomeTable]
ONE = Features("none", "one")
X = Features("x", "one")
LARGE = "vendor/large"
QUALITY = parse_objective("QUALITY_FIRST", UNIT)
EVERY = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name in PACKAGES and importlib.util.find_spec(PACKAGES[name][0]) is None,
            reason=f"{name}: the package is not installed",
        ),
    )
    for name in ONLINE
]
LEARNING = [param for param in EVERY if param.values[0] not in ("uniform", "length-rule")]
every_policy, learning = pytest.mark.parametrize("policy", EVERY), pytest.mark.parametrize("policy", LEARNING)


def run(policy: str, seed: int = 0, schedule: Schedule = (), budget: float | None = None, **more: object) -> Run:
    return replace(Run(parse_policy(policy), QUALITY, budget, seed, schedule=schedule), **more)  # type: ignore[arg-type]


@every_policy
def test_the_same_seed_gives_the_same_choices_whatever_else_is_random(make_table: Make, policy: str) -> None:
    world = make_world(make_table(80), X)
    np.random.seed(1)  # noqa: NPY002
    first = play_online(world, run(policy)).chosen_t
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(first, play_online(world, run(policy)).chosen_t)


@every_policy
def test_only_available_models_are_chosen(make_table: Make, policy: str) -> None:
    table = with_model(make_table(60), "new", quality_of=LARGE, cost_of="small")
    schedule = (ModelAdded("new", 20), Outage("small", 30, 40))
    world = make_world(table, ONE, later=("new",))
    for seed in range(3):
        settings = run(policy, seed, schedule)
        check_run(world, settings)
        played = play_online(world, settings)
        assert (played.chosen_t[:20] != 2).all() and set(played.chosen_t) <= {0, 1, 2}


@every_policy
def test_no_outcome_is_used_before_it_is_learned(make_table: Make, policy: str) -> None:
    """Worlds that differ only in what is not yet learned: the same choices, until the difference can be known."""
    table, rng = make_table(80), np.random.default_rng(5)
    other = replace(table, quality_nk=table.quality_nk[:, ::-1].copy(), latency_nk=table.latency_nk[::-1].copy())
    warm = make_table(50, seed=9)
    plain_world, changed_world = (make_world(t, ONE, warm=warm) for t in (table, other))
    delay = int(rng.integers(20, 30))
    first, second = (play_online(w, run(policy, delay=delay)).chosen_t for w in (plain_world, changed_world))
    np.testing.assert_array_equal(first[: delay + 1], second[: delay + 1])


@every_policy
def test_everything_may_go_wrong(make_table: Make, policy: str) -> None:
    table = make_table(80, latency=False, cost=policy == "length-rule")
    schedule = (Outage("small", 10, 30), Outage(LARGE, 20, 40, 0.5), FeedbackLost(0.5), FeedbackLate(10.0))
    played = play_online(make_world(table, ONE), run(policy, schedule=schedule))
    assert len(played.chosen_t) == 80


@every_policy
def test_one_model_and_one_prompt(make_table: Make, policy: str) -> None:
    table = make_table(1)
    single = replace(
        table,
        models=("small",),
        quality_nk=table.quality_nk[:, :1],
        cost_nk=table.cost_nk[:, :1],
        latency_nk=table.latency_nk[:, :1],
        output_tokens_nk=table.output_tokens_nk[:, :1],
    )
    assert play_online(make_world(single, ONE), run(policy)).chosen_t.tolist() == [0]


@learning
def test_it_learns(make_table: Make, policy: str) -> None:
    """Better than a coin by most of what there is to gain, whatever the seed."""
    warm = make_table(60, seed=4)
    world = make_world(make_table(400), ONE, warm=warm)
    for seed in range(3):
        result, coin = measure_run(world, "Q", run(policy, seed)), measure_run(world, "Q", run("uniform", seed))
        assert result.row["regret"] < 0.4 * coin.row["regret"]


@learning
def test_a_budget_is_about_kept(make_table: Make, policy: str) -> None:
    world = make_world(make_table(1000), ONE, warm=make_table(100, seed=4))
    result = measure_run(world, "Q", run(policy, budget=6e-4))
    assert result.row["spend_ratio"] is not None and result.row["spend_ratio"] < 1.25
    free = measure_run(world, "Q", run(policy))
    assert free.row["mean_cost"] is not None and free.row["mean_cost"] > 7e-4


def test_linucb_is_ridge_regression_and_its_bound(make_table: Make) -> None:
    world = make_world(make_table(50), X, warm=make_table(20, seed=3))
    policy = LinUcb(world, run("linucb"), np.random.default_rng(0))
    rng = np.random.default_rng(0)
    assert world.warm is not None
    rows: dict[int, list[np.ndarray]] = {k: list(world.warm.z_np) for k in (0, 1)}
    rewards: dict[int, list[float]] = {k: world.warm.outcome_snk[0][:, k].tolist() for k in (0, 1)}
    for t in range(50):
        model, quality = int(rng.integers(2)), float(rng.random())
        policy.learn(t, Choice(t, t, model), CallOutcome(quality, 0.1, 0.1, 5.0))
        rows[model].append(world.z_np[t])
        rewards[model].append(quality)
    for row in range(50):
        z_d, bound = world.z_np[row], []
        for k in (0, 1):
            a_nd, y_n = np.array(rows[k]), np.array(rewards[k])
            precision_dd = np.eye(len(z_d)) + a_nd.T @ a_nd
            theta_d = np.linalg.solve(precision_dd, a_nd.T @ y_n)
            bound.append(theta_d @ z_d + ALPHA * np.sqrt(z_d @ np.linalg.solve(precision_dd, z_d)))
        assert policy.choose(0, row) == int(np.argmax(bound))


def test_beta_thompson_counts_successes(make_table: Make) -> None:
    """With outcomes of 0 and 1 and one task the posterior is known: the share of draws agrees with it."""
    table = replace(make_table(40), tasks=("t",) * 40)
    policy = make_policy(make_world(table, ONE), run("beta-thompson"), np.random.default_rng(0))
    for t in range(30):
        policy.learn(t, Choice(t, t, t % 2), CallOutcome(float(t % 2 == 0 or t > 15), 0.1, 0.1, 5.0))
    chosen = np.mean([policy.choose(0, 0) == 0 for _ in range(4000)])
    rng = np.random.default_rng(1)
    # model 0 had 15 successes in 15, model 1 had 7 (t = 17, …, 29) in 15
    expected = np.mean(rng.beta(16.0, 1.0, 100_000) > rng.beta(8.0, 9.0, 100_000))
    assert chosen == pytest.approx(expected, abs=0.02)


def test_the_length_rule_goes_by_length(make_table: Make) -> None:
    world = make_world(make_table(100), ONE)
    tokens_n = world.table.input_tokens_n
    for policy, limit in (("length-rule", np.median(tokens_n)), ("length-rule:30", 30), ("length-rule:0", 0)):
        played = play_online(world, run(policy))
        good = int(world.table.quality_nk.mean(axis=0).argmax())
        expected = np.where(tokens_n[played.rounds.row_t] > limit, good, 0)
        np.testing.assert_array_equal(played.chosen_t, expected)


@given(st.integers(0, 1000), st.floats(-0.5, 1.5))
def test_a_cascade_calls_on_until_it_is_content(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    quality_nk, latency_nk = rng.random((20, 3)), rng.random((20, 3))
    cost_nk = rng.random((20, 3)) + np.array([0.0, 5.0, 2.0])
    available_nk = rng.random((20, 3)) < 0.8
    available_nk[:, 1] = True
    outcome = cascade(quality_nk, cost_nk, latency_nk, available_nk, threshold)
    for i in range(20):
        spent = waited = 0.0
        for model in (0, 2, 1):
            if not available_nk[i, model]:
                continue
            spent, waited, last = spent + cost_nk[i, model], waited + latency_nk[i, model], model
            if quality_nk[i, model] >= threshold:
                break
        assert (outcome.stopped_n[i], outcome.quality_n[i]) == (last, quality_nk[i, last])
        assert (outcome.cost_n[i], outcome.latency_n[i]) == pytest.approx((spent, waited))


def test_a_cascade_is_measured_and_keeps_its_budget(make_table: Make) -> None:
    world = make_world(make_table(300), ONE)
    free = measure_run(world, "Q", run("cascade"))
    assert free.row["mean_quality"] > measure_run(world, "Q", run("best-fixed")).row["mean_quality"]
    bound = measure_run(world, "Q", run("cascade", budget=4e-4))
    assert bound.row["spend_ratio"] is not None and bound.row["spend_ratio"] <= 1.0
    fixed = measure_run(world, "Q", run("cascade:0.6"))
    rounds = rounds_of(world, run("cascade:0.6"))
    by_hand = cascade(rounds.quality_tk, rounds.cost_tk, rounds.latency_tk, rounds.available_tk, 0.6)
    assert fixed.row["mean_quality"] == pytest.approx(by_hand.quality_n.mean())
    assert fixed.row["mean_cost"] == pytest.approx(by_hand.cost_n.mean())
    assert fixed.row["shares"][LARGE] == pytest.approx(np.mean(by_hand.stopped_n == 1))


def test_settings_of_the_policy_that_serves(make_table: Make) -> None:
    world = make_world(make_table(300), ONE)
    coin = play_online(world, run("thompson:exploration_floor=1"))
    assert np.mean(coin.chosen_t[150:] == coin.rounds.quality_tk[150:].argmax(axis=1)) < 0.7
    bucket = next(iter(world.start.buckets.values())).config
    configured = configure_bucket(
        bucket, parse_policy("thompson:half_life=50:prior_quality=0.9:prior_cost=0.5:prior_latency=2")
    )
    assert (configured.half_life, configured.priors.quality, configured.priors.cost, configured.priors.latency) == (
        50.0,
        0.9,
        0.5,
        2.0,
    )
    assert configure_bucket(bucket, parse_policy("thompson")) == bucket


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("thompson:floor=1", "expected setting=value, each once, with one of exploration_floor"),
        ("thompson:half_life=9:half_life=9", "each once"),
        ("thompson:half_life=x", "half_life: expected a number, got 'x'"),
        ("thompson:exploration_floor=2", "exploration_floor: expected"),
        ("uniform:3", "expected one of thompson"),
        ("length-rule:long", "expected a number of tokens after the colon, got 'long'"),
        ("cascade:inf", "expected a quality after the colon, got 'inf'"),
        ("best", "expected one of thompson, uniform"),
    ],
)
def test_a_wrong_name_lists_valid_ones(make_table: Make, policy: str, message: str) -> None:
    with pytest.raises(SettingError) as error:
        check_run(make_world(make_table(30), ONE), run(policy))
    assert message in str(error.value)


@pytest.mark.parametrize("policy", ["linucb", "beta-thompson", "cascade"])
def test_what_maximises_a_reward_refuses_floors(make_table: Make, policy: str) -> None:
    floors = replace(run(policy), objective=parse_objective("COST_FIRST", UNIT))
    with pytest.raises(SettingError, match="maximises a reward"):
        check_run(make_world(make_table(30), ONE), floors)


def test_a_length_rule_needs_lengths_and_costs(make_table: Make) -> None:
    table = make_table(30)
    guessed = replace(table, input_tokens_n=np.full(30, -1))
    texts = tuple("word " * (50 if i % 2 else 5) for i in range(30))
    played = play_online(make_world(replace(guessed, texts=texts), ONE), run("length-rule:20"))
    good = int(table.quality_nk.mean(axis=0).argmax())
    np.testing.assert_array_equal(played.chosen_t, np.where(played.rounds.row_t % 2 == 1, good, 0))
    with pytest.raises(SettingError, match="expected the input tokens or the text of every prompt"):
        check_run(make_world(replace(guessed, texts=None), ONE), run("length-rule"))
    with pytest.raises(SettingError, match="expected the cost of every outcome"):
        check_run(make_world(make_table(30, cost=False), ONE), run("length-rule"))


def test_rewards_follow_the_objective(make_table: Make) -> None:
    world: World = make_world(make_table(10), ONE)
    outcome = CallOutcome(0.8, 0.01, 2.0, 5.0)
    objective = parse_objective("WEIGHTED:cost_weight=10:latency_weight=0.1", UNIT)
    assert reward_of(world, objective, outcome) == pytest.approx(0.8 - 0.1 - 0.2)
    assert reward_of(world, objective, replace(outcome, success=False)) == 0.0
    assert reward_of(world, objective, replace(outcome, quality_reported=False)) is None
