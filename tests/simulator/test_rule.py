"""Controls and verdicts go by the rule that serves, and differences within rounding are no verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pointsman.bandit.catalog import QualityRange
from pointsman.simulator.cli.simulate import simulate
from pointsman.simulator.data.table import OutcomeTable, from_columns
from pointsman.simulator.offpolicy import sentences
from pointsman.simulator.offpolicy.candidate import BucketPolicy, Candidate
from pointsman.simulator.offpolicy.evaluation.comparators import objective_of
from pointsman.simulator.offpolicy.evaluation.evaluate import evaluate_candidate
from pointsman.simulator.offpolicy.logs.journal import read_journal
from pointsman.simulator.offpolicy.logs.log import Log
from pointsman.simulator.policies.registry import parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.report.summary import (
    Comparison,
    RunGroup,
    comparisons,
    format_estimate,
    group_runs,
    over_seeds,
)
from pointsman.simulator.run.experiment import RunResult, measure_run
from pointsman.simulator.run.streaming import stream
from pointsman.simulator.world.changes import Outage
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.utility import parse_objective
from pointsman.simulator.world.world import make_world

N = 400
MODELS = ("weak", "middle", "strong")


def table_of(
    quality_by_task: dict[str, tuple[float, ...]],
    cost: tuple[float, ...],
    latency: tuple[float, ...],
    grades: bool = False,
) -> OutcomeTable:
    """As many prompts of each task. Qualities are right or wrong, or grades around their means."""
    rng = np.random.default_rng(0)
    tasks = [task for task in quality_by_task for _ in range(N // len(quality_by_task))]
    mean_nk = np.array([quality_by_task[task] for task in tasks])
    spread_nk = rng.uniform(-0.3, 0.3, mean_nk.shape)
    quality_nk = mean_nk + spread_nk if grades else (rng.random(mean_nk.shape) < mean_nk).astype(np.float64)
    models = MODELS if len(cost) == 3 else (MODELS[0], MODELS[-1])
    columns: dict[str, Sequence[object]] = {"prompt_id": [str(i) for i in range(len(tasks))], "task": tasks}
    for k, model in enumerate(models):
        columns |= {f"quality/{model}": quality_nk[:, k].tolist(), f"cost/{model}": [cost[k]] * len(tasks)}
        columns |= {f"latency/{model}": [latency[k]] * len(tasks)}
    return from_columns("made", "", {name: list(cells) for name, cells in columns.items()})


TWO = table_of({"maths": (0.65, 0.95)}, (0.00003, 0.003), (0.2, 3.0))
EASY_AND_HARD = table_of(
    {"easy": (0.97, 0.98, 0.98), "hard": (0.3, 0.95, 0.96)}, (0.00003, 0.001, 0.003), (0.2, 1.0, 3.0)
)
STARS = table_of({"chat": (3.55, 4.0, 4.5)}, (0.00003, 0.001, 0.003), (0.2, 1.0, 3.0), grades=True)


def played(
    table: OutcomeTable, policy: str, objective: str, seed: int = 0, top: float = 1.0, **more: object
) -> RunResult:
    quality = QualityRange(0.0, top)
    world = make_world(table, Features("none", "one"), quality=quality)
    run = Run(parse_policy(policy), parse_objective(objective, quality), None, seed, **more)  # type: ignore[arg-type]
    return measure_run(world, objective, run)


def group_of(
    table: OutcomeTable, policy: str, objective: str, seeds: int = 2, top: float = 1.0, **more: object
) -> RunGroup:
    return group_runs([played(table, policy, objective, seed, top, **more) for seed in range(seeds)])[0]


def beside_fixed(group: RunGroup) -> Comparison:
    return comparisons(group)[0]


@pytest.mark.parametrize(
    ("table", "objective", "fixed", "keeps"),
    [
        (TWO, "COST_FIRST:min_quality=0.9", "strong", True),
        (TWO, "COST_FIRST:max_quality_loss=0.05", "strong", True),
        (TWO, "COST_FIRST:max_quality_loss=0.4", "weak", True),
        (TWO, "COST_FIRST:min_mean_quality=0.9", "strong", True),
        (TWO, "COST_FIRST:min_mean_quality=0.6", "weak", True),
        (TWO, "COST_FIRST:min_mean_quality=0.99", "strong", False),
        (TWO, "LATENCY_FIRST:min_quality=0.9", "strong", True),
        (TWO, "LATENCY_FIRST:max_quality_loss=0.4", "weak", True),
        (
            EASY_AND_HARD,
            "COST_FIRST:min_quality=0.6",
            "middle",
            True,
        ),  # weak has .635 on average, and .3 on hard prompts
        (EASY_AND_HARD, "COST_FIRST:max_quality_loss=0.05", "middle", True),
        (EASY_AND_HARD, "LATENCY_FIRST:max_quality_loss=0.05", "middle", True),
        (EASY_AND_HARD, "COST_FIRST:min_mean_quality=0.6", "weak", True),
        (EASY_AND_HARD, "QUALITY_FIRST", "strong", True),
        (EASY_AND_HARD, "WEIGHTED:cost_weight=1000", "weak", True),
    ],
)
def test_the_best_fixed_model_is_that_of_the_rule(table: OutcomeTable, objective: str, fixed: str, keeps: bool) -> None:
    benchmarks = played(table, "fixed:weak", objective).benchmarks
    assert (benchmarks.fixed, benchmarks.fixed_keeps) == (fixed, keeps)
    assert played(table, "best-fixed", objective).row["shares"][fixed] == 1.0


def test_a_model_under_the_floor_does_not_beat_one_that_keeps_it() -> None:
    """It costs a hundredth: but it was not allowed."""
    for objective in ("COST_FIRST:min_quality=0.9", "LATENCY_FIRST:min_quality=0.9", "COST_FIRST:min_mean_quality=0.9"):
        comparison = beside_fixed(group_of(TWO, "fixed:weak", objective))
        assert comparison.beats is False and "it does not keep the floor" in comparison.sentence
        assert "the best fixed model (strong)" in comparison.sentence


def test_among_what_keeps_the_floor_cost_decides() -> None:
    dear = beside_fixed(group_of(EASY_AND_HARD, "fixed:strong", "COST_FIRST:min_quality=0.9"))
    assert (
        dear.beats is False
        and "-0.002 ± " in dear.sentence
        and "dollars saved a request, it was worse" in dear.sentence
    )
    lp = beside_fixed(group_of(EASY_AND_HARD, "task-lp", "COST_FIRST:min_quality=0.9"))
    assert lp.beats is True and lp.gain is not None and lp.gain.mean == pytest.approx(0.000485, rel=0.2)
    assert lp.unit == "dollars"
    fast = beside_fixed(group_of(EASY_AND_HARD, "task-lp", "LATENCY_FIRST:min_quality=0.9"))
    assert fast.beats is True and "seconds saved a request" in fast.sentence and fast.unit == "seconds"


def test_where_no_model_keeps_the_floor_nearer_is_better() -> None:
    """Stars: .95 better than the best fixed model, which was called a loss."""
    tasks = {"a": (4.6, 2.5), "b": (2.5, 4.6)}
    table = table_of(tasks, (0.001, 0.003), (1.0, 2.0), grades=True)
    lp = beside_fixed(group_of(table, "task-lp", "COST_FIRST:min_mean_quality=4.4", top=5.0))
    assert lp.beats is True and "which does not keep the floor, as no model does" in lp.sentence
    assert "its mean quality is 4.4, the model's 3.5" in lp.sentence
    assert beside_fixed(group_of(table, "uniform", "COST_FIRST:min_mean_quality=4.4", top=5.0)).beats is False


def test_thompson_is_not_said_to_lose_to_a_model_under_the_floor() -> None:
    for objective in ("COST_FIRST:min_quality=4.3", "COST_FIRST:max_quality_loss=0.2", "LATENCY_FIRST:min_quality=4.3"):
        comparison = beside_fixed(group_of(STARS, "thompson", objective, top=5.0))
        assert "best fixed model (strong)" in comparison.sentence
        assert "the floor 4." in comparison.sentence or "floor" in comparison.sentence
        assert "weak" not in comparison.sentence


def test_availability_comes_first_then_quality() -> None:
    outage = (Outage("strong", share=0.3, start=0, end=None),)
    group = group_of(EASY_AND_HARD, "fixed:strong", "AVAILABILITY_FIRST", schedule=outage)
    assert group.results[0].benchmarks.fixed == "middle"
    comparison = beside_fixed(group)
    assert comparison.beats is False and "share of answers" in comparison.sentence
    assert "does not keep the floor" in comparison.sentence
    slight = (Outage("strong", share=0.02, start=0, end=None),)  # within what counts as equally available
    assert played(EASY_AND_HARD, "fixed:weak", "AVAILABILITY_FIRST", schedule=slight).benchmarks.fixed in (
        "middle",
        "strong",
    )


def test_mixes_and_rules_by_task_keep_the_floor() -> None:
    for policy in ("best-mix", "task-lp"):
        row = played(EASY_AND_HARD, policy, "COST_FIRST:min_quality=0.9").row
        assert row["mean_quality"] >= 0.9 - 1e-9
        assert row["mean_cost"] is not None and row["mean_cost"] < 0.001
    assert played(EASY_AND_HARD, "best-mix", "LATENCY_FIRST:min_quality=0.9").row["mean_quality"] >= 0.9 - 1e-9


def test_a_difference_within_rounding_is_no_verdict() -> None:
    for objective in ("QUALITY_FIRST", "COST_FIRST:min_quality=0.9", "BALANCED:cost_weight=20", "LATENCY_FIRST"):
        result = played(EASY_AND_HARD, "fixed:weak", objective)
        same = played(EASY_AND_HARD, f"fixed:{result.benchmarks.fixed}", objective)
        for comparison in comparisons(group_runs([same])[0]):
            assert "routing did the same as" in comparison.sentence or "routing is even with" in comparison.sentence
            assert comparison.beats is False and comparison.gain is not None and comparison.gain.mean == 0.0
    assert format_estimate(over_seeds([-0.0001, 0.0001])).startswith("0.0000 ± ")


def test_a_stream_goes_by_the_rule_too() -> None:
    world = make_world(TWO, Features("none", "one"))
    for objective, fixed in (
        ("COST_FIRST:min_quality=0.9", "strong"),
        ("LATENCY_FIRST:min_quality=0.9", "strong"),
        ("QUALITY_FIRST", "strong"),
    ):
        run = Run(parse_policy("fixed:weak"), parse_objective(objective, QualityRange()), None, 0)
        result = stream(world, lambda: iter([world.table]), N, objective, run)
        assert result.benchmarks.fixed == fixed
        assert beside_fixed(group_runs([result, result])[0]).beats is False


@pytest.mark.parametrize(
    ("objective", "rule"),
    [
        ("COST_FIRST:min_quality=0.9", "the least cost at a mean quality of at least 0.9 in every task"),
        (
            "LATENCY_FIRST:max_quality_loss=0.1",
            "the least latency at a mean quality at most 0.1 under the best model's in every task",
        ),
        ("COST_FIRST:min_mean_quality=0.8", "the least cost at a mean quality of at least 0.8"),
        (
            "AVAILABILITY_FIRST",
            "the best quality at a share of answers at most 0.05 under that of the most reliable model",
        ),
        ("QUALITY_FIRST", "the best quality"),
        (
            "WEIGHTED:cost_weight=20:latency_weight=0.1",
            "the greatest utility, quality - 20 × cost in $ - 0.1 × latency in s",
        ),
    ],
)
def test_the_first_screen_says_by_what_is_judged(tmp_path: Path, objective: str, rule: str) -> None:
    path = tmp_path / "table.csv"
    rows = [f"{i},maths,{int(i % 2)},1,0.001,0.002,1,2" for i in range(40)]
    path.write_text("prompt_id,task,quality/a,quality/b,cost/a,cost/b,latency/a,latency/b\n" + "\n".join(rows))
    args = [
        "--table",
        str(path),
        "--policy",
        "uniform",
        "--objective",
        objective,
        "--seeds",
        "2",
        "--jobs",
        "1",
        "--out",
        str(tmp_path),
    ]
    done = CliRunner().invoke(simulate, [*args, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert f"{objective} is judged by {rule}" in " ".join(done.output.split())
    head = (tmp_path / "report.html").read_text().partition("<h2>Results")[0]
    assert f"{objective} is judged by {rule}".replace("'", "&#x27;") in head


def even_log(seed: int = 0) -> Log:
    """A log of COST_FIRST: weak .65, middle .92, strong .95 of an even draw."""
    rng, n = np.random.default_rng(seed), 6000
    chosen_n = rng.integers(0, 3, n)
    quality_n = (rng.random(n) < np.array([0.65, 0.92, 0.95])[chosen_n]).astype(np.float64)
    cost_n = np.array([0.00003, 0.001, 0.003])[chosen_n] * rng.uniform(0.9, 1.1, n)
    return Log(
        name="logged", models=MODELS, groups=("maths",), chosen_n=chosen_n, propensity_n=np.full(n, 1.0 / 3.0),
        logged_nk=np.full((n, 3), 1.0 / 3.0), eligible_nk=np.ones((n, 3), dtype=np.bool_),
        signals={"quality": quality_n, "cost": cost_n}, x_nd=np.zeros((n, 0)), group_n=np.zeros(n, dtype=np.intp),
        time_ns_n=np.arange(n), ranges={"quality": (0.0, 1.0), "cost": (0.0, 0.01)}, has_ids=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("floor", "model", "says"),
    [
        ("min_quality=0.9", "strong", "is worse than the best fixed model: middle: -0.0019"),
        ("min_quality=0.9", "middle", "is as good as the best fixed model: middle; its mean quality is"),
        ("min_quality=0.9", "weak", "is worse than the best fixed model: middle: it does not keep the floor"),
        ("min_mean_quality=0.5", "middle", "is worse than the best fixed model: weak: -0.0009"),
        ("max_quality_loss=0.5", "weak", "is as good as the best fixed model: weak"),
        (
            "min_mean_quality=0.99",
            "weak",
            "is worse than the best fixed model: strong, which does not keep the floor, as no model does",
        ),
    ],
)
def test_evaluations_are_judged_by_the_rule_too(floor: str, model: str, says: str) -> None:
    objective = parse_objective(f"COST_FIRST:{floor}", QualityRange())
    candidate = Candidate(model, BucketPolicy(policy="fixed", model=model), {})
    evaluation = evaluate_candidate(even_log(), candidate, objective=objective, estimators=["dr"])
    sentence = sentences.comparisons(evaluation)[0]
    assert says in sentence and "judged by the least cost" in sentence, sentence


def test_an_evaluation_without_an_objective_is_judged_by_quality(journal_file: Path) -> None:
    candidate = Candidate("weak", BucketPolicy(policy="fixed", model="weak"), {})
    evaluation = evaluate_candidate(even_log(), candidate, estimators=["dr"])
    assert "judged by quality, is worse than the best fixed model: strong" in sentences.comparisons(evaluation)[0]
    journal = read_journal(journal_file)
    settings = BucketPolicy.model_validate({"objective": {"mode": "COST_FIRST", "min_quality": 0.5}})
    objective = objective_of(Candidate("ours", settings, {}), journal)
    assert objective is not None and objective.min_quality == 0.5
    assert objective_of(Candidate("m0", BucketPolicy(policy="fixed", model="m0"), {}), journal) is None, (
        "two buckets, two modes"
    )
