"""The command ``pointsman simulate``."""

from __future__ import annotations

import json
import math
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bandit.catalog import QualityRange
from bandit.errors import FieldError
from simulator.experiment import run_all
from simulator.replay import FIXED, HINDSIGHT, ONLINE, check_run
from simulator.report import number, write_results
from simulator.summary import Group, group, is_ours, verdicts
from simulator.table import OutcomeTable, TableError, UnknownTableError, load_table, with_features
from simulator.utility import SettingError, parse_objective
from simulator.world import BUCKETS, FEATURES, Features, Run, make_world

WIDTH = 160
"""Characters of a line where the output is no terminal."""
_POLICIES = ", ".join((*ONLINE, f"{FIXED}MODEL", *HINDSIGHT))


@click.command()
@click.option(
    "--table",
    "table_name",
    metavar="T",
    required=True,
    help="Outcomes of every model on every prompt: FILE.csv, .jsonl or .parquet, paretobandit:val or "
    "paretobandit:test_holdout.",
)
@click.option("--warm-start", metavar="T2", help="A table whose every outcome is learned first.")
@click.option(
    "--warm-mass",
    metavar="N",
    type=click.FloatRange(min=0.0, min_open=True),
    help="As how many observations of each model the warm start counts at most; all of them by default.",
)
@click.option("--policy", metavar="P[,P…]", default="thompson", show_default=True, help=f"Any of {_POLICIES}.")
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
    help="Dollars a request, on average. What knows no budget of its own is given one (simulator.online); uniform and fixed "
    "models spend as they will.",
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
    default="one",
    show_default=True,
    help="One bucket for all prompts with the task as a category, or one bucket a task.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="How many: 0, 1, …, N-1.")
@click.option(
    "--delay", type=click.IntRange(min=0), default=0, show_default=True, help="Rounds until an outcome is learned."
)
@click.option(
    "--quality-range", metavar="LOW,HIGH", default="0,1", show_default=True, help="The scale of the table's quality."
)
@click.option("--x-from", metavar="FILE.npz:ARRAY", help="Features x of the table, a row for each of its rows.")
@click.option("--warm-x-from", metavar="FILE.npz:ARRAY", help="The same of the warm start's table.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for results.json, results.csv and report.html.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes. Default: one a processor.")
def simulate(
    table_name: str,
    warm_start: str | None,
    warm_mass: float | None,
    policy: str,
    objective: str,
    budget: str | None,
    features: str | None,
    bucket: str,
    seeds: int,
    delay: int,
    quality_range: str,
    x_from: str | None,
    warm_x_from: str | None,
    out: Path | None,
    as_json: bool,
    jobs: int | None,
) -> None:
    """Replay a table of outcomes through the policy that serves, beside its controls.

    Prompts come one by one in a seeded random order; a policy chooses a model, and learns that model's outcome only.
    """
    try:
        quality = _quality_range(quality_range)
        objectives = [(name, parse_objective(name, quality)) for name in _listed(objective, "--objective")]
        policies = _listed(policy, "--policy")
        budgets: list[float | None] = [None] if budget is None else [_budget(b) for b in _listed(budget, "--budget")]
        if warm_x_from and not warm_start:
            raise SettingError("--warm-x-from: expected --warm-start too")
        if warm_mass is not None and not warm_start:
            raise SettingError("--warm-mass: expected --warm-start too")
        table = _load(table_name, x_from)
        warm = _load(warm_start, warm_x_from) if warm_start else None
        kind = Features(features or _default_features(table), bucket)
        world = make_world(table, kind, quality, warm, warm_mass=math.inf if warm_mass is None else warm_mass)
        runs = [
            (name, Run(one, resolved, limit, seed, delay))
            for one in policies
            for name, resolved in objectives
            for limit in budgets
            for seed in range(seeds)
        ]
        for _, run in runs:
            check_run(world, run)
    except (SettingError, UnknownTableError) as error:
        raise click.UsageError(str(error)) from error
    except TableError as error:
        raise click.ClickException(str(error)) from error
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("replay", total=len(runs))
        results = run_all(world, runs, jobs or os.cpu_count() or 1, lambda: progress.advance(task))
    groups = group(results)
    if out is not None:
        configuration = {
            "table": f"{table.name} (sha256 {table.sha256}), {len(table)} prompts",
            "models": ", ".join(table.models),
            "warm start": "none" if warm is None else f"{warm.name} (sha256 {warm.sha256}), {len(warm)} prompts",
            "warm start counts at most": "all of it"
            if warm_mass is None
            else f"{warm_mass:g} observations of each model",
            "policies": ", ".join(policies),
            "objectives": "; ".join(f"{name} = {resolved}" for name, resolved in objectives),
            "budgets": "none" if budget is None else budget,
            "features": world.features.kind + (f" from {x_from}" if x_from else ""),
            "bucket": world.features.bucket,
            "seeds": f"0 to {seeds - 1}",
            "delay": f"{delay} rounds",
            "quality range": quality_range,
            "pointsman": _version(),
        }
        try:
            write_results(out, table, results, groups, configuration)
        except OSError as error:
            raise click.ClickException(f"--out {out}: {error}") from error
    if as_json:
        click.echo(json.dumps([result.row for result in results], allow_nan=False))
        return
    _print(table, groups)
    if out is not None:
        click.echo(f"\n{out / 'report.html'}, results.json and results.csv are written.")


def _print(table: OutcomeTable, groups: list[Group]) -> None:
    """The table of results, and the verdicts on our policy."""
    columns = {
        "policy": [one.policy for one in groups],
        "objective": [one.objective for one in groups],
        "budget": ["–" if one.budget is None else f"{one.budget:g}" for one in groups],
        "quality": [number(one.quality) for one in groups],
        "$ per 1,000": [number(one.cost, 1000.0) for one in groups],
        "spend/budget": [number(one.spend_ratio) for one in groups],
        "latency, s": [number(one.latency) for one in groups],
        "regret": [number(one.regret) for one in groups],
    }
    shown = {title: cells for title, cells in columns.items() if set(cells) != {"–"}}
    sheet = Table(title=f"{len(table)} prompts of {table.name}; mean ± 95 % interval over seeds")
    for title in shown:
        sheet.add_column(title, justify="left" if title in ("policy", "objective") else "right", overflow="fold")
    for one, cells in zip(groups, zip(*shown.values(), strict=True), strict=True):
        sheet.add_row(*(escape(cell) for cell in cells), style="bold" if is_ours(one) else "")
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)  # a file or a pipe has none of its own
    console.print(sheet)
    for one in groups:
        if is_ours(one):
            for verdict in verdicts(table, one):
                console.print(verdict.sentence, markup=False, highlight=False, soft_wrap=True)


def _load(name: str, features: str | None) -> OutcomeTable:
    table = load_table(name)
    return table if features is None else with_features(table, features)


def _default_features(table: OutcomeTable) -> str:
    if table.x_nd is not None:
        return "x"
    return "none" if table.texts is None else "text"


def _listed(text: str, option: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise SettingError(f"{option}: expected a list separated by commas, got {text!r}")
    if len(set(items)) != len(items):
        raise SettingError(f"{option}: expected different items, got {text!r}")
    return items


def _budget(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0.0):
        raise SettingError(f"--budget: expected dollars above 0, got {text!r}")
    return value


def _quality_range(text: str) -> QualityRange:
    ends = text.split(",")
    try:
        low, high = (float(end) for end in ends)
        return QualityRange(low, high)
    except FieldError as error:
        raise SettingError(f"--quality-range: {error}") from None
    except ValueError:
        raise SettingError(f"--quality-range: expected LOW,HIGH, got {text!r}") from None


def _version() -> str:
    try:
        return version("pointsman")
    except PackageNotFoundError:  # run from the sources, not installed
        return "not installed"
