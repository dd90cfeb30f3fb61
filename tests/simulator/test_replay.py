from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from pointsman.bandit.catalog import QualityRange
from pointsman.bandit.outcome import Signal
from pointsman.bandit.posterior import COST, LATENCY, QUALITY
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.policies.registry import parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.report.files import flatten_shares
from pointsman.simulator.run.experiment import PlannedRun, RunResult, measure_run, run_all
from pointsman.simulator.run.replay import play
from pointsman.simulator.world.encoding import BUCKETS, FEATURES, Features
from pointsman.simulator.world.utility import parse_objective, utilities
from pointsman.simulator.world.world import World, make_world

UNIT = QualityRange()
TASK = Features("none", "task")
MEAN_FLOOR = "COST_FIRST:min_mean_quality=0.7"
Make = Callable[..., OutcomeTable]


def task(policy: str, **kwargs: object) -> PlannedRun:
    return PlannedRun(0, *run(policy, **kwargs))  # type: ignore[arg-type]


def run(
    policy: str, seed: int = 0, objective: str = "BALANCED", budget: float | None = None, delay: int = 0
) -> tuple[str, Run]:
    return objective, Run(parse_policy(policy), parse_objective(objective, UNIT), budget, seed, delay)


def result(world: World, *args: object, **kwargs: object) -> RunResult:
    return measure_run(world, *run(*args, **kwargs))  # type: ignore[arg-type]


def test_thompson_finds_each_tasks_winner(make_table: Make) -> None:
    world = make_world(make_table(400), TASK)
    for seed in range(3):
        thompson, uniform = result(world, "thompson", seed), result(world, "uniform", seed)
        assert thompson.row["regret"] < 0.25 * uniform.row["regret"]
        assert thompson.row["mean_utility"] > uniform.row["mean_utility"] + 0.1
        assert thompson.row["mean_utility"] > result(world, "best-fixed", seed).row["mean_utility"]


@pytest.mark.parametrize("kind", FEATURES)
@pytest.mark.parametrize("bucket", BUCKETS)
def test_every_kind_of_context_finds_them(make_table: Make, kind: str, bucket: str) -> None:
    world = make_world(make_table(400), Features(kind, bucket))
    thompson, uniform = result(world, "thompson"), result(world, "uniform")
    assert thompson.row["regret"] < 0.5 * uniform.row["regret"]


def test_columns_of_different_units_are_each_seen(make_table: Make) -> None:
    rng, table = np.random.default_rng(0), make_table(400)
    right_n = table.quality_nk[:, 0] > table.quality_nk[:, 1]
    x_nd = np.column_stack(
        [right_n + 0.1 * rng.normal(size=400), 1e4 * rng.normal(size=400), 1.7e9 + rng.normal(size=400)]
    )
    blank = replace(table, tasks=("all",) * 400, x_nd=x_nd)
    world = make_world(blank, Features("x", "one"))
    (bucket,) = world.start.buckets.values()
    assert [number.name for number in bucket.config.schema.numbers] == ["x/0", "x/1", "x/2"]
    np.testing.assert_array_equal(world.z_np[:, :3], x_nd)
    (of_one_unit,) = make_world(replace(blank, x_nd=x_nd[:, :1]), Features("x", "one")).start.buckets.values()
    assert of_one_unit.config.schema.embeddings and not of_one_unit.config.schema.numbers
    thompson, uniform = result(world, "thompson"), result(world, "uniform")
    assert thompson.row["regret"] < 0.5 * uniform.row["regret"]


@pytest.mark.parametrize(
    ("objective", "share"),
    [("QUALITY_FIRST", (0.35, 0.65)), ("COST_FIRST:max_quality_loss=0.9", (0.9, 1.0)), ("LATENCY_FIRST", (0.35, 0.65)),
     ("WEIGHTED:latency_weight=1", (0.9, 1.0))],
)  # fmt: skip
def test_thompson_follows_the_objective(make_table: Make, objective: str, share: tuple[float, float]) -> None:
    world = make_world(make_table(500), TASK)
    small = result(world, "thompson", 1, objective).row["shares"]["small"]
    assert share[0] <= small <= share[1]


def test_the_same_seed_gives_the_same_rows_whatever_the_jobs(make_table: Make) -> None:
    world = make_world(make_table(80), Features("text", "one"), warm=make_table(40, seed=9))
    tasks = [task(policy, seed=s) for policy in ("thompson", "epsilon-greedy", "uniform", "task-lp") for s in (0, 1)]
    alone, shared = run_all([world], tasks, jobs=1), run_all([world], tasks, jobs=2)
    assert [r.row for r in alone] == [r.row for r in shared]
    for left, right in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(left.regret_c, right.regret_c)
        np.testing.assert_array_equal(left.judged_n.worth_n, right.judged_n.worth_n)
    assert alone[0].row != alone[1].row


def test_a_run_leaves_the_world_as_it_was(make_table: Make) -> None:
    world = make_world(make_table(60), TASK)
    first = play(world, run("thompson")[1])
    np.testing.assert_array_equal(first, play(world, run("thompson")[1]))
    assert all(bucket.posteriors.a_kr.max() == 3.0 for bucket in world.start.buckets.values())


def test_a_warm_start_learns_every_outcome_of_every_row(make_table: Make) -> None:
    warm = make_table(90, seed=4)
    cold, started = make_world(make_table(20), TASK), make_world(make_table(20), TASK, warm=warm)
    learned = 0
    for name, bucket in started.start.buckets.items():
        before = cold.start.buckets[name]
        rows = warm.tasks.count(bucket.config.display_name)
        learned += rows
        for response in (QUALITY, COST, LATENCY):
            gained_k = bucket.posteriors.a_kr[:, response] - before.posteriors.a_kr[:, response]
            np.testing.assert_allclose(gained_k, 0.5 * rows)
        assert (bucket.count_sk[Signal.QUALITY] == rows).all()
    assert learned == 90
    assert result(started, "thompson").row["regret"] < 0.5 * result(cold, "thompson").row["regret"]


def test_a_warm_start_may_list_models_and_tasks_otherwise(make_table: Make) -> None:
    """Models in another order, and a task that the table does not have, change nothing."""
    warm = make_table(60, seed=4)
    turned = OutcomeTable(
        name="turned", sha256="", models=warm.models[::-1],
        prompt_ids=(*warm.prompt_ids, "stray"), tasks=(*warm.tasks, "elsewhere"), texts=None, x_nd=None,
        input_tokens_n=np.append(warm.input_tokens_n, -1),
        **{name: np.vstack([getattr(warm, name)[:, ::-1], [[0.5, 0.5]]])
           for name in ("quality_nk", "cost_nk", "latency_nk", "output_tokens_nk")},
    )  # fmt: skip
    straight, other = (make_world(make_table(50), TASK, warm=table) for table in (warm, turned))
    for policy in ("thompson", "epsilon-greedy"):
        assert result(straight, policy).row == result(other, policy).row


def test_late_outcomes_are_learned_late(make_table: Make) -> None:
    world = make_world(make_table(300), TASK)
    prompt, late, never = (result(world, "thompson", delay=delay).row["regret"] for delay in (0, 100, 300))
    assert prompt < late < never


def test_thompson_paces_a_budget(make_table: Make) -> None:
    """Spend follows the budget, and a larger one buys more quality; too large a one changes nothing."""
    world = make_world(make_table(1500), Features("none", "one"))
    rows = [result(world, "thompson", objective="QUALITY_FIRST", budget=budget).row for budget in (2e-4, 5e-4, 1.0)]
    assert [row["spend_ratio"] for row in rows[:2]] == pytest.approx([1.0, 1.0], abs=0.05)
    assert rows[0]["mean_quality"] < rows[1]["mean_quality"] < rows[2]["mean_quality"]
    free = result(world, "thompson", objective="QUALITY_FIRST").row
    assert rows[2]["mean_quality"] == free["mean_quality"]


def test_controls_are_ordered_within_every_budget(make_table: Make) -> None:
    table = make_table(150)
    world = make_world(table, TASK)
    for objective in ("QUALITY_FIRST", "AVAILABILITY_FIRST", "BALANCED", "COST_FIRST", "LATENCY_FIRST"):
        for budget in (1e-4, 5e-4, 1.5e-3, 1.0, None):
            rows = [
                result(world, policy, objective=objective, budget=budget).row
                for policy in ("best-fixed", "best-mix", "task-lp", "prompt-oracle")
            ]
            worth = [row["mean_utility"] for row in rows]
            assert all(a <= b + 1e-12 for a, b in pairwise(worth)), (objective, budget)
            assert rows[-1]["regret"] == pytest.approx(0.0, abs=1e-9)
            if budget is not None:
                for row in rows:
                    assert row["spend_ratio"] == pytest.approx(row["mean_cost"] / budget)
                    assert row["spend_ratio"] <= 1.0 + 1e-9


def test_a_row_is_what_was_played(make_table: Make) -> None:
    table = make_table(50)
    replayed = result(make_world(table, TASK), "fixed:vendor/large", 3, "WEIGHTED:cost_weight=5", 1e-3)
    row = replayed.row
    assert row["policy"] == "fixed:vendor/large" and row["seed"] == 3 and row["rounds"] == 50
    assert row["mean_quality"] == pytest.approx(table.quality_nk[:, 1].mean())
    assert row["mean_cost"] == pytest.approx(table.cost_nk[:, 1].mean())
    assert row["mean_latency"] == pytest.approx(table.latency_nk[:, 1].mean())
    assert row["spend_ratio"] == pytest.approx(table.cost_nk[:, 1].mean() / 1e-3)
    assert row["shares"] == {"small": 0.0, "vendor/large": 1.0}
    assert replayed.round_c[-1] == 50 and replayed.regret_c[-1] == pytest.approx(row["regret"])
    np.testing.assert_allclose(replayed.share_ck, [[0.0, 1.0]] * len(replayed.round_c))
    assert flatten_shares(row)["share/vendor/large"] == 1.0 and "shares" not in flatten_shares(row)


def test_unknown_values_are_null(make_table: Make) -> None:
    world = make_world(make_table(30, latency=False, cost=False), TASK)
    row = result(world, "thompson", objective="BALANCED").row
    assert row["mean_cost"] is None and row["mean_latency"] is None and row["spend_ratio"] is None
    assert row["regret"] >= 0.0


def test_utilities_and_regret_of_floors(make_table: Make) -> None:
    table = make_table(3)
    table = OutcomeTable(
        **{name: getattr(table, name) for name in ("name", "sha256", "models", "prompt_ids", "tasks", "texts", "x_nd",
           "input_tokens_n", "latency_nk", "output_tokens_nk")},
        quality_nk=np.array([[0.9, 0.95], [0.5, 0.95], [0.2, 0.3]]),
        cost_nk=np.array([[1.0, 4.0], [1.0, 4.0], [1.0, 4.0]]),
    )  # fmt: skip
    # over the floor: what it costs; under it: what it costs to buy again at the dearest price
    relative = utilities(table, parse_objective("COST_FIRST:max_quality_loss=0.1", UNIT))
    assert relative.tolist() == [[-1.0, -4.0], [-5.0, -4.0], [-1.0, -4.0]]
    absolute = utilities(table, parse_objective("COST_FIRST:min_quality=0.8", UNIT))
    assert absolute.tolist() == [[-1.0, -4.0], [-5.0, -4.0], [-5.0, -4.0]]
    weighted = utilities(table, parse_objective("BALANCED:cost_weight=0.1", UNIT))
    np.testing.assert_allclose(weighted, table.quality_nk - 0.1 * table.cost_nk)
    # a floor on the mean: the dear model on all of the second prompt and half of the third
    mean = Run(parse_policy("prompt-oracle"), parse_objective("COST_FIRST:min_mean_quality=0.7", UNIT), None, 0)
    np.testing.assert_allclose(play(make_world(table, TASK), mean)[:, 1], [0.0, 1.0, 0.5])


def test_other_scales_of_quality(make_table: Make) -> None:
    """Marks of 1 to 5 instead of 0 to 1: the same choices, when the weight of cost grows with them."""
    table = make_table(120)
    marks = OutcomeTable(
        **{name: getattr(table, name) for name in ("name", "sha256", "models", "prompt_ids", "tasks", "texts", "x_nd",
           "input_tokens_n", "cost_nk", "latency_nk", "output_tokens_nk")},
        quality_nk=1.0 + 4.0 * table.quality_nk,
    )  # fmt: skip
    with pytest.raises(SettingError, match=r"row 1 .*expected 0 to 1.*--quality-range"):
        make_world(marks, TASK)
    scale = QualityRange(1.0, 5.0)
    of_marks = play(
        make_world(marks, TASK, scale), Run(parse_policy("thompson"), parse_objective("BALANCED", scale), None, 0)
    )
    np.testing.assert_array_equal(of_marks, play(make_world(table, TASK), run("thompson")[1]))


def test_invalid_input_is_refused(make_table: Make) -> None:
    table = make_table(10)
    world = make_world(table, TASK)
    for policy, message in (("greedy", "expected one of thompson"), ("fixed:huge", "small, vendor/large")):
        with pytest.raises(SettingError, match=message):
            run_all([world], [task(policy)], 1)
    with pytest.raises(SettingError, match="budget"):
        run_all([world], [task("thompson", budget=1.0)], 1)
    poor = make_world(make_table(10, cost=False, latency=False), TASK)
    for objective in ("COST_FIRST", "LATENCY_FIRST", "WEIGHTED:cost_weight=2", "BALANCED:latency_weight=1"):
        with pytest.raises(SettingError, match=r"row 1 .'p0'., column (cost|latency)/small"):
            run_all([poor], [task("uniform", objective=objective)], 1)
    with pytest.raises(SettingError, match="a budget needs a cost"):
        run_all([poor], [task("uniform", budget=1.0)], 1)
    with pytest.raises(SettingError, match="no columns x/0"):
        make_world(make_table(10, features=0), Features("x", "one"))
    with pytest.raises(SettingError, match="3 feature columns"):
        make_world(table, Features("x", "one"), warm=make_table(10, features=3))
    with pytest.raises(SettingError, match="min_mean_quality, got both"):
        run_all([make_world(table, Features("x", "one"))], [task("uniform", budget=1.0, objective=MEAN_FLOOR)], 1)
    with pytest.raises(SettingError, match="min_mean_quality in each bucket"):
        run_all([world], [task("thompson", objective=MEAN_FLOOR)], 1)
    fewer = OutcomeTable("fewer", "", ("small",), table.prompt_ids, table.tasks, None, None, table.input_tokens_n,
                         *(getattr(table, name)[:, :1] for name in
                           ("quality_nk", "cost_nk", "latency_nk", "output_tokens_nk")))  # fmt: skip
    with pytest.raises(SettingError, match="no column prompt"):
        make_world(fewer, Features("text", "one"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FASTEST", "expected one of BALANCED, QUALITY_FIRST"),
        ("BALANCED:weight=2", "cost_weight, latency_weight"),
        ("BALANCED:cost_weight", "expected parameter=value"),
        ("BALANCED:cost_weight=a", "cost_weight: expected a number, got 'a'"),
        ("BALANCED:cost_weight=-1", "cost_weight"),
        ("BALANCED:cost_weight=1:cost_weight=2", "twice"),
        ("BALANCED:min_quality=0.5", "min_quality"),
        ("WEIGHTED", "cost_weight or latency_weight"),
        ("COST_FIRST:min_quality=2", "min_quality"),
        ("COST_FIRST:min_quality=0.5:max_quality_loss=0.1", "both"),
    ],
)
def test_objectives_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        parse_objective(text, UNIT)
