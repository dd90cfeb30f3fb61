"""The command ``pointsman simulate``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from pointsman.simulator.cli.log_replay import replay_log
from pointsman.simulator.cli.options import parse_budget, parse_quality_range, split_list
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.pieces import Extent, extent, pieces
from pointsman.simulator.data.table import OutcomeTable, TableError, UnknownTableError, load_table, with_features
from pointsman.simulator.offpolicy.logs.log import LogError
from pointsman.simulator.offpolicy.logs.read import FORMS
from pointsman.simulator.policies.registry import check_run, parse_policy, policy_names
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.policies.thompson import THOMPSON_SETTINGS
from pointsman.simulator.report.files import write_results
from pointsman.simulator.report.summary import group_runs
from pointsman.simulator.report.terminal import collect_results, show, with_progress
from pointsman.simulator.run.executor import PROCESSES, check_executor, map_over
from pointsman.simulator.run.experiment import PlannedRun, RunResult, run_all
from pointsman.simulator.run.streaming import STREAMED, check_file, check_streamed, stream
from pointsman.simulator.run.versions import versions
from pointsman.simulator.world.file import Scenario, read_scenario
from pointsman.simulator.world.utility import parse_objective
from pointsman.simulator.world.world import BUCKETS, FEATURES, UNIT, Features, World, make_world


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, path: _recorded(context, path),
    help="The run.json of an earlier run, whose options are the defaults of this one: the same numbers again.",
)
@click.option(
    "--table",
    "table_name",
    metavar="T",
    help="Outcomes of every model on every prompt: FILE.csv, .jsonl or .parquet, paretobandit:val or "
    "paretobandit:test_holdout.",
)
@click.option(
    "--world",
    "world_files",
    metavar="FILE[,FILE…]",
    help="Worlds as YAML files, made up or of a table, with what changes on the way; see docs/simulator.md.",
)
@click.option(
    "--stream",
    "streamed",
    is_flag=True,
    help="The table is larger than memory: it is read in pieces, in the file's order, for "
    f"{', '.join(STREAMED)}, without budgets. What is best in hindsight is "
    "reckoned on the way; features are scaled by the first piece, and a prompt_id that is there twice is seen within one.",
)
@click.option(
    "--log",
    "log_name",
    metavar="L",
    help="A log, on which policies are replayed by rejection: what they choose otherwise than the log did is skipped. "
    f"{FORMS}.",
)
@click.option("--signal", default="quality", show_default=True, help="What of a log is taken for quality.")
@click.option("--warm-start", metavar="T2", help="A table whose every outcome is learned first.")
@click.option(
    "--warm-mass",
    metavar="N",
    type=click.FloatRange(min=0.0, min_open=True),
    help="As how many observations of each model the warm start counts at most; all of them by default.",
)
@click.option(
    "--policy",
    metavar="P[,P…]",
    default="thompson",
    show_default=True,
    help=f"Any of {', '.join(policy_names('MODEL'))}. "
    "Settings follow: length-rule:TOKENS, cascade:QUALITY, thompson:exploration_floor=0.05 and so on, any of "
    f"{', '.join(THOMPSON_SETTINGS)}.",
)
@click.option(
    "--objective",
    metavar="O[,O…]",
    default="BALANCED",
    show_default=True,
    help="MODE[:parameter=value…], such as COST_FIRST:max_quality_loss=0.05 or WEIGHTED:cost_weight=20:latency_weight=0.1.",
)
@click.option(
    "--budget",
    metavar="B[,B…]",
    help="Dollars a request, on average. What knows no budget of its own is given one; "
    "uniform and fixed models spend as they will.",
)
@click.option(
    "--features",
    type=click.Choice(FEATURES),
    help="What the policy sees of a prompt beside its task: the table's columns x/…, the prompt's text, or nothing. "
    "Default: x if the table has it, else text, else none.",
)
@click.option(
    "--bucket",
    type=click.Choice(BUCKETS),
    help="One bucket for all prompts with the task as a category, or one bucket a task. Default: one, or what a world says.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="How many: 0, 1, …, N-1.")
@click.option(
    "--rounds", type=click.IntRange(min=1), help="Rounds of a run. Default: a pass of the table, or what a world says."
)
@click.option(
    "--delay", type=click.IntRange(min=0), help="Rounds until an outcome is learned. Default: 0, or what a world says."
)
@click.option(
    "--quality-range", metavar="LOW,HIGH", default="0,1", show_default=True, help="The scale of the table's quality."
)
@click.option("--x-from", metavar="FILE.npz:ARRAY", help="Features x of the table, a row for each of its rows.")
@click.option("--warm-x-from", metavar="FILE.npz:ARRAY", help="The same of the warm start's table.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for report.html, every number as JSON and CSV, and run.json.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes. Default: one a processor.")
@click.option(
    "--executor",
    default=PROCESSES,
    show_default=True,
    metavar="processes|tcp://HOST:PORT",
    help="Where runs are played: processes of this machine, or the cluster of a Dask scheduler.",
)
@click.pass_context
def simulate(
    context: click.Context,
    table_name: str | None,
    world_files: str | None,
    streamed: bool,
    log_name: str | None,
    signal: str,
    warm_start: str | None,
    warm_mass: float | None,
    policy: str,
    objective: str,
    budget: str | None,
    features: str | None,
    bucket: str | None,
    seeds: int,
    rounds: int | None,
    delay: int | None,
    quality_range: str,
    x_from: str | None,
    warm_x_from: str | None,
    out: Path | None,
    as_json: bool,
    jobs: int | None,
    executor: str,
) -> None:
    """Replay outcomes, or play a world, through the policy that serves, beside its controls.

    Prompts come one by one in a seeded random order; a policy chooses a model, and learns that model's outcome only.
    """
    try:
        check_executor(executor)
        policies = split_list(policy, "--policy")
        budgets: list[float | None] = (
            [None] if budget is None else [parse_budget(b) for b in split_list(budget, "--budget")]
        )
        if sum(name is not None for name in (table_name, world_files, log_name)) != 1:
            raise SettingError("--table, --world, --log: expected one of them")
        if log_name is not None:
            runs = [
                (name, Run(parse_policy(one), parse_objective(name, UNIT), limit, seed))
                for one in policies
                for name in split_list(objective, "--objective")
                for limit in budgets
                for seed in range(seeds)
            ]
            replay_log(log_name, signal, runs, out, as_json)
            return
        if streamed and (table_name is None or warm_start or x_from):
            raise SettingError("--stream: expected with --table, and without --warm-start and --x-from")
        source = None
        if world_files is not None:
            only = {"--warm-start": warm_start, "--x-from": x_from, "--warm-mass": warm_mass}
            for option, value in only.items():
                if value is not None:
                    raise SettingError(f"{option}: expected with --table only")
            places = _worlds(split_list(world_files, "--world"), features, bucket)
        else:
            assert table_name is not None
            if warm_start is None and (warm_x_from or warm_mass is not None):
                option = "--warm-x-from" if warm_x_from else "--warm-mass"
                raise SettingError(f"{option}: expected --warm-start too")
            source = _first_piece(table_name) if streamed else None
            table = _load(table_name, x_from) if source is None else source.first
            warm = None if warm_start is None else _load(warm_start, warm_x_from)
            world = make_world(
                table,
                Features(features or _default_features(table), bucket or "one"),
                parse_quality_range(quality_range),
                warm,
                warm_mass=math.inf if warm_mass is None else warm_mass,
                tasks=() if source is None else source.extent.tasks,
            )
            started = "" if warm is None else f"; warm start {warm.name} (sha256 {warm.sha256}), {len(warm)} prompts"
            places = [Scenario(table.name, f"sha256 {table.sha256}{started}", world, (), None, 0)]
        tasks = [
            PlannedRun(i, name, _run(place, one, name, limit, seed, delay, rounds))
            for i, place in enumerate(places)
            for one in policies
            for name in split_list(objective, "--objective")
            for limit in budgets
            for seed in range(seeds)
        ]
        worlds = [place.world for place in places]
        for task in tasks:
            check_run(worlds[task.world], task.run)
        jobs = jobs or os.cpu_count() or 1
        if source is not None:
            for task in tasks:
                check_streamed(task.run)
                check_file(source.extent, worlds[0].quality, task.run.objective)
            shared = (source.path, worlds[0], rounds or source.extent.rows)
            results = with_progress(
                len(tasks), lambda done: collect_results(done, map_over(shared, _streamed, tasks, jobs, executor))
            )
        else:
            results = with_progress(len(tasks), lambda done: run_all(worlds, tasks, jobs, done, executor))
    except (SettingError, UnknownTableError) as error:
        raise click.UsageError(str(error)) from error
    except (TableError, LogError) as error:
        raise click.ClickException(str(error)) from error
    groups = group_runs(results)
    if out is not None:
        options = {n: v for n, v in sorted(context.params.items()) if v is not None and n not in _NOT_TOLD}
        configuration = {
            **{f"world {place.name}": _described(place) for place in places},
            **{name: str(value) for name, value in options.items()},
            "objectives": "; ".join(dict.fromkeys(f"{task.objective} = {task.run.objective}" for task in tasks)),
            "seeds": f"0 to {seeds - 1}",
            **versions(),
        }
        try:
            write_results(out, results, groups, configuration, options)
        except OSError as error:
            raise click.ClickException(f"--out {out}: {error}") from error
    if as_json:
        click.echo(json.dumps([result.row for result in results], allow_nan=False))
        return
    show(groups)
    if out is not None:
        click.echo(f"\n{out / 'report.html'} is written; every number is beside it as JSON and CSV.")


_NOT_TOLD = frozenset({"out", "as_json", "jobs", "executor"})
"""Options that change no number."""


def _recorded(context: click.Context, path: Path | None) -> None:
    """Options of an earlier run become defaults."""
    if path is None:
        return
    try:
        options = json.loads(path.read_text(encoding="utf-8"))["options"]
        assert isinstance(options, dict)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise click.BadParameter(f"{path}: expected the run.json of an earlier run: {error!r}") from None
    context.default_map = {**(context.default_map or {}), **options}


def _worlds(names: Sequence[str], features: str | None, bucket: str | None) -> list[Scenario]:
    places = [read_scenario(Path(name), features, bucket) for name in names]
    if len({place.name for place in places}) < len(places):
        raise SettingError("--world: expected files of different names")
    return places


def _run(
    place: Scenario, policy: str, objective: str, budget: float | None, seed: int, delay: int | None, rounds: int | None
) -> Run:
    """One run in a place, which says what the options do not."""
    return Run(
        parse_policy(policy),
        parse_objective(objective, place.world.quality),
        budget,
        seed,
        place.delay if delay is None else delay,
        place.rounds if rounds is None else rounds,
        place.schedule,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """A table that is larger than memory: its file, extent and first piece."""

    path: Path
    extent: Extent
    first: OutcomeTable


def _first_piece(name: str) -> _Source:
    path = Path(name)
    if ":" in name and not path.is_file():
        raise SettingError(f"--stream: expected a file, got {name}")
    return _Source(path, extent(path), next(pieces(path)))


def _streamed(shared: tuple[Path, World, int], task: PlannedRun) -> RunResult:
    path, world, rounds = shared
    return stream(world, lambda: pieces(path), rounds, task.objective, task.run)


def _described(place: Scenario) -> str:
    world = place.world
    return (
        f"{place.source}; {len(world.table)} prompts, models {', '.join(world.table.models)}; features {world.features.kind}, "
        f"bucket {world.features.bucket}" + "".join(f"; {change}" for change in place.schedule)
    )


def _load(name: str, features: str | None) -> OutcomeTable:
    table = load_table(name)
    return table if features is None else with_features(table, features)


def _default_features(table: OutcomeTable) -> str:
    if table.x_nd is not None:
        return "x"
    return "none" if table.texts is None else "text"
