"""Streaming a table gives what playing it in memory in the file's order gives, in memory that does not grow."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pointsman.simulator.cli.simulate import simulate
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.pieces import extent, pieces
from pointsman.simulator.data.table import OutcomeTable, TableError, load_table
from pointsman.simulator.policies.base import OnlinePolicy
from pointsman.simulator.policies.registry import FIXED, check_run, make_policy, parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.run.replay import play_online
from pointsman.simulator.run.streaming import STREAMED, check_file, check_streamed, stream
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.rounds import unfold
from pointsman.simulator.world.utility import parse_objective, utilities
from pointsman.simulator.world.world import UNIT, World, make_world, window

Make = Callable[..., OutcomeTable]
Columns = dict[str, list[object]]
QUALITY = parse_objective("QUALITY_FIRST", UNIT)
BALANCED = parse_objective("BALANCED:cost_weight=20", UNIT)
FORMATS = (".csv", ".jsonl", ".parquet")


def write(columns: Columns, path: Path) -> Path:
    frame = pd.DataFrame(columns)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        rows = [
            {k: v for k, v in row.items() if v is not None}
            for row in (dict(zip(columns, r, strict=True)) for r in zip(*columns.values(), strict=True))
        ]
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        frame.to_parquet(path)
    return path


@contextlib.contextmanager
def noted_choices() -> Iterator[list[int]]:
    """What policies that are streamed choose, round by round."""
    chosen: list[int] = []

    def make(world: World, run: Run, rng: np.random.Generator) -> OnlinePolicy:
        policy = make_policy(world, run, rng)
        choose = policy.choose

        def noted(t: int, row: int) -> int:
            chosen.append(choose(t, row))
            return chosen[-1]

        policy.choose = noted  # type: ignore[method-assign]
        return policy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pointsman.simulator.run.streaming.make_policy", make)
        yield chosen


@pytest.mark.parametrize("policy", [*(name for name in STREAMED if name != FIXED), "fixed:small"])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 130))
def test_any_pieces_give_the_replay_in_the_files_order(
    make_table: Make,
    columns_of: Callable[[OutcomeTable], Columns],
    tmp_path_factory: pytest.TempPathFactory,
    policy: str,
    rows: int,
) -> None:
    table = make_table(120)
    path = write(columns_of(table), tmp_path_factory.mktemp("table") / "t.parquet")
    whole = extent(path)
    first = next(pieces(path, rows))
    # the scale of features is that of the first piece: the world in memory has to be given the same
    world = make_world(first, Features("x", "one"), tasks=whole.tasks)
    run = Run(parse_policy(policy), BALANCED, None, 3)
    with noted_choices() as chosen:
        result = stream(world, lambda: pieces(path, rows), 120, "BALANCED", run)

    everything = window(world, table)
    rounds = unfold(table, range(120))
    chosen_t = np.zeros(120, dtype=np.intp)  # the first model, if it is fixed
    if not policy.startswith("fixed:"):
        chosen_t = play_online(everything, run, rounds).chosen_t
        assert chosen == chosen_t.tolist()
    utility_tk = table.quality_nk - 20.0 * table.cost_nk
    assert result.row["shares"]["small"] == pytest.approx(np.mean(chosen_t == 0))
    assert result.row["mean_quality"] == pytest.approx(table.quality_nk[np.arange(120), chosen_t].mean())
    assert result.row["mean_cost"] == pytest.approx(table.cost_nk[np.arange(120), chosen_t].mean())
    regret_t = utility_tk.max(axis=1) - utility_tk[np.arange(120), chosen_t]
    assert result.row["regret"] == pytest.approx(regret_t.sum())
    np.testing.assert_allclose(result.regret_c, np.cumsum(regret_t)[result.round_c - 1])
    fixed = int(utility_tk.mean(axis=0).argmax())
    assert result.benchmarks.fixed == table.models[fixed]
    np.testing.assert_allclose(
        result.benchmarks.fixed_regret_c, np.cumsum(utility_tk.max(axis=1) - utility_tk[:, fixed])[result.round_c - 1]
    )


@pytest.mark.parametrize("suffix", FORMATS)
def test_pieces_of_a_file_are_the_table(
    make_table: Make, columns_of: Callable[[OutcomeTable], Columns], tmp_path: Path, suffix: str
) -> None:
    table = make_table(100)
    path = write(columns_of(table), tmp_path / f"t{suffix}")
    parts = list(pieces(path, 33))
    assert [len(piece) for piece in parts] == [33, 33, 33, 1]
    assert all(piece.models == table.models for piece in parts) and table.x_nd is not None
    np.testing.assert_allclose(np.vstack([piece.quality_nk for piece in parts]), table.quality_nk)
    np.testing.assert_allclose(np.vstack([piece.x_nd for piece in parts if piece.x_nd is not None]), table.x_nd)
    assert sum((piece.texts or () for piece in parts), ()) == table.texts
    assert extent(path, 7) == extent(path, 1000)
    assert (extent(path).rows, extent(path).tasks) == (100, ("chat", "maths"))


def test_a_bad_cell_far_down_is_named_before_anything_is_played(
    make_table: Make, columns_of: Callable[[OutcomeTable], Columns], tmp_path: Path
) -> None:
    columns = columns_of(make_table(100))
    columns["quality/small"][70] = "good"
    path = write(columns, tmp_path / "t.csv")
    with pytest.raises(
        TableError, match=r"row 71 \('p70'\), column quality/small: expected a finite number, got 'good'"
    ):
        extent(path, 20)
    done = CliRunner().invoke(simulate, ["--table", str(path), "--stream", "--jobs", "1"])
    assert done.exit_code == 1 and "row 71" in done.output


@pytest.mark.parametrize(
    ("column", "cell", "objective", "place"),
    [
        ("quality/small", 3.0, "QUALITY_FIRST", r"row 71 \('p70'\), column quality/small: expected 0 to 1, got 3"),
        ("quality/small", -0.5, "QUALITY_FIRST", r"row 71 \('p70'\), column quality/small: expected 0 to 1, got -0\.5"),
        ("cost/small", None, "BALANCED:cost_weight=20", r"row 71 \('p70'\), column cost/small is empty"),
        (
            "cost/vendor/large",
            None,
            "COST_FIRST:max_quality_loss=0.1",
            r"row 71 \('p70'\), column cost/vendor/large is",
        ),
        ("latency/small", None, "LATENCY_FIRST:max_quality_loss=0.1", r"row 71 \('p70'\), column latency/small is"),
        ("latency/small", None, "BALANCED:latency_weight=0.1", r"row 71 \('p70'\), column latency/small is empty"),
    ],
)
def test_a_cell_that_does_not_do_is_named_by_its_row_in_the_file(
    make_table: Make,
    columns_of: Callable[[OutcomeTable], Columns],
    tmp_path: Path,
    column: str,
    cell: object,
    objective: str,
    place: str,
) -> None:
    columns = columns_of(make_table(100))
    parsed = parse_objective(objective, UNIT)
    check_file(extent(write(columns, tmp_path / "good.parquet"), 20), UNIT, parsed)
    columns[column][70] = cell
    path = write(columns, tmp_path / "t.parquet")
    for rows in (20, 33, 1000):
        with pytest.raises(SettingError, match=place):
            check_file(extent(path, rows), UNIT, parsed)
    with pytest.raises(SettingError, match=place):  # as in memory
        utilities(make_world(load_table(str(path)), Features("none", "one")).table, parsed)


def test_cells_that_no_objective_needs_may_be_empty(
    make_table: Make, columns_of: Callable[[OutcomeTable], Columns], tmp_path: Path
) -> None:
    columns = columns_of(make_table(60))
    columns["cost/small"][50] = None
    path = write(columns, tmp_path / "t.parquet")
    check_file(extent(path, 20), UNIT, QUALITY)
    table = make_table(60)
    result = stream(
        make_world(table, Features("none", "one"), tasks=table.tasks),
        lambda: pieces(path, 20), 60, "Q", Run(parse_policy("fixed:small"), QUALITY, None, 0),
    )  # fmt: skip
    assert result.row["mean_cost"] is None and result.row["regret"] >= 0.0


def test_costs_nowhere_weigh_nothing_but_costs_in_some_pieces_are_refused(
    make_table: Make, columns_of: Callable[[OutcomeTable], Columns], tmp_path: Path
) -> None:
    columns = columns_of(make_table(60))
    without = {title: cells for title, cells in columns.items() if not title.startswith("cost/")}
    check_file(extent(write(without, tmp_path / "none.csv"), 20), UNIT, BALANCED)
    columns["cost/small"][:20] = columns["cost/vendor/large"][:20] = [
        None
    ] * 20  # a piece where no cost is known at all
    with pytest.raises(SettingError, match=r"BALANCED needs a cost .*row 1 \('p0'\), column cost/small is empty"):
        check_file(extent(write(columns, tmp_path / "some.csv"), 20), UNIT, BALANCED)


def test_lines_of_json_may_order_their_cells_differently(
    make_table: Make, columns_of: Callable[[OutcomeTable], Columns], tmp_path: Path
) -> None:
    table = make_table(60)
    path = write(columns_of(table), tmp_path / "t.jsonl")
    lines = [json.loads(line) for line in path.read_text().split("\n")]
    path.write_text(
        "\n".join(json.dumps(dict(reversed(cells.items())) if i >= 20 else cells) for i, cells in enumerate(lines))
    )
    assert extent(path, 20).models == table.models
    found_nk = np.vstack([piece.quality_nk for piece in pieces(path, 20)])
    np.testing.assert_allclose(found_nk, table.quality_nk)


@pytest.mark.parametrize("suffix", FORMATS)
def test_memory_does_not_grow_with_the_file(
    make_table: Make, columns_of: Callable[[OutcomeTable], Columns], tmp_path: Path, suffix: str
) -> None:
    def peak(n: int) -> int:
        path = write(columns_of(make_table(n)), tmp_path / f"{n}{suffix}")
        tracemalloc.start()
        extent(path, 100)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(3000), peak(12_000)  # few that are more than a reader's buffer
    assert many < 1.3 * few


def test_memory_does_not_grow_with_the_rounds(make_table: Make) -> None:
    table = make_table(250)
    world = make_world(table, Features("x", "one"))

    def peak(times: int) -> int:
        def rest() -> Iterator[OutcomeTable]:
            for _ in range(times):
                yield replace(table, quality_nk=table.quality_nk.copy())

        tracemalloc.start()
        stream(world, rest, 250 * times, "Q", Run(parse_policy("thompson"), QUALITY, None, 0))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(12) < 1.3 * peak(3)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (Run(parse_policy("task-lp"), QUALITY, None, 0), "expected one of thompson, uniform"),
        (Run(parse_policy("length-rule"), QUALITY, None, 0), "expected one of thompson, uniform"),
        (Run(parse_policy("linucb"), QUALITY, None, 0, delay=3), "only thompson can be told late there"),
        (Run(parse_policy("thompson"), QUALITY, 0.1, 0), "expected no budget"),
    ],
)
def test_runs_that_cannot_be_streamed_are_refused(run: Run, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        check_streamed(run)


def test_thompson_may_be_told_late_across_pieces(make_table: Make) -> None:
    table = make_table(120)
    world = make_world(table, Features("x", "one"))
    run = Run(parse_policy("thompson"), QUALITY, None, 0, delay=25)
    check_run(world, run)
    halves = [table.take(range(60), "a"), table.take(range(60, 120), "b")]
    result = stream(world, lambda: iter(halves), 120, "Q", run)
    chosen_t = play_online(world, run, unfold(table, range(120))).chosen_t
    assert result.row["shares"]["small"] == pytest.approx(np.mean(chosen_t == 0))


def test_the_command(make_table: Make, columns_of: Callable[[OutcomeTable], Columns], tmp_path: Path) -> None:
    path = write(columns_of(make_table(90)), tmp_path / "t.jsonl")
    out = tmp_path / "out"
    args = ["--table", str(path), "--stream", "--policy", "thompson,fixed:small", "--seeds", "2", "--jobs", "1"]
    done = CliRunner().invoke(simulate, [*args, "--out", str(out), "--features", "x"])
    assert done.exit_code == 0, done.output
    rows = json.loads((out / "results.json").read_text())
    assert [row["rounds"] for row in rows] == [90] * 4 and rows[2]["shares"]["small"] == 1.0
    assert "best fixed model" in (out / "report.html").read_text()
    again = CliRunner().invoke(simulate, ["--config", str(out / "run.json"), "--json", "--jobs", "2"])
    assert json.loads(again.stdout) == rows
    short = CliRunner().invoke(simulate, [*args, "--rounds", "30", "--json"])
    assert {row["rounds"] for row in json.loads(short.stdout)} == {30}
    for more, message in (
        (["--rounds", "91"], "expected at most 90"),
        (["--warm-start", str(path)], "--stream: expected with --table, and without"),
        (["--budget", "0.1"], "expected no budget"),
    ):
        wrong = CliRunner().invoke(simulate, [*args, *more])
        assert wrong.exit_code == 2 and message in wrong.output, wrong.output
