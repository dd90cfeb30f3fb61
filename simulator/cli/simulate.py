"""The command ``pointsman simulate``.

>>> from click.testing import CliRunner
>>> print(CliRunner().invoke(simulate, []).output.splitlines()[-1])
Error: --table, --world, --log: expected one of them
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pointsman.simulator.cli.log_replay import replay_log
from pointsman.simulator.cli.plan import Plan, describe_scenario, make_plan, play
from pointsman.simulator.cli.settings import SimulateSettings, read_recorded_settings
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.table import TableError, UnknownTableError
from pointsman.simulator.offpolicy.logs.log import LogError
from pointsman.simulator.offpolicy.logs.read import FORMS
from pointsman.simulator.policies.registry import policy_names
from pointsman.simulator.policies.thompson import THOMPSON_SETTINGS
from pointsman.simulator.report.files import write_results
from pointsman.simulator.report.summary import RunGroup, group_runs
from pointsman.simulator.report.terminal import InputUnreadableError, show
from pointsman.simulator.run.executor import PROCESSES
from pointsman.simulator.run.experiment import RunResult
from pointsman.simulator.run.streaming import STREAMED
from pointsman.simulator.run.versions import versions
from pointsman.simulator.world.encoding import BUCKETS, FEATURES
from pointsman.simulator.world.world import DEFAULT_WARM_LEVEL


def _default_to_recorded(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Make the settings of an earlier run the defaults of this one."""
    if path is not None:
        try:
            recorded = read_recorded_settings(path)
        except SettingError as error:
            raise click.BadParameter(str(error)) from None
        context.default_map = {**(context.default_map or {}), **recorded}


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    is_eager=True,
    expose_value=False,
    callback=_default_to_recorded,
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
    f"{', '.join(STREAMED)}, without budgets. Benchmarks in hindsight are "
    "computed on the way; features are scaled by the first piece, and a prompt_id that is there twice is seen within one.",
)
@click.option(
    "--log",
    "log_name",
    metavar="L",
    help="A log, on which policies are replayed by rejection: rounds in which they choose another model "
    "than the log are skipped. "
    f"{FORMS}.",
)
@click.option("--signal", default="quality", show_default=True, help="The signal of a log that counts as quality.")
@click.option("--warm-start", metavar="T2", help="A table whose outcomes are all learned before the first round.")
@click.option(
    "--warm-mass",
    metavar="N",
    type=click.FloatRange(min=0.0, min_open=True),
    help="Most observations of each model that the warm start counts as; inf: as many as it has, for outcomes of the same judge. "
    f"Default: as many as it has, but {DEFAULT_WARM_LEVEL:g} of each model's mean quality.",
)
@click.option(
    "--warm-quality-range",
    metavar="LOW,HIGH",
    help="The scale of the warm start's quality, such as 1,5 for stars, which is mapped to --quality-range. Default: the same.",
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
    help="Dollars a request, on average. Rivals that know no budget are given the same simple one; "
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
def simulate(**options: Any) -> None:
    """Replay outcomes, or play a world, through the policy that serves, beside its controls.

    Prompts come one by one in a seeded random order; a policy chooses a model, and learns that model's outcome only.
    """
    settings = SimulateSettings(**options)
    try:
        settings.check()
        if settings.log_name is not None:
            runs = settings.log_runs()
            replay_log(settings.log_name, settings.signal, runs, settings.out, settings.as_json)
            return
        plan = make_plan(settings)
        for scenario in plan.scenarios:
            if scenario.note:
                click.echo(scenario.note, err=True)
        results = play(plan, settings.jobs, settings.executor)
    except (SettingError, UnknownTableError) as error:
        raise click.UsageError(str(error)) from error
    except LogError as error:
        raise InputUnreadableError(str(error)) from error
    except TableError as error:
        raise click.ClickException(str(error)) from error
    groups = group_runs(results)
    if settings.out is not None:
        _write(settings.out, settings, plan, results, groups)
    if settings.as_json:
        click.echo(json.dumps([result.row for result in results], allow_nan=False))
        return
    show(groups)
    if settings.out is not None:
        click.echo(f"\n{settings.out / 'report.html'} is written; every number is beside it as JSON and CSV.")


def _write(out: Path, settings: SimulateSettings, plan: Plan, results: list[RunResult], groups: list[RunGroup]) -> None:
    recorded = settings.recorded()
    objectives = dict.fromkeys(f"{planned.objective} = {planned.run.objective}" for planned in plan.runs)
    configuration = {
        **{f"world {scenario.name}": describe_scenario(scenario) for scenario in plan.scenarios},
        **{name: str(value) for name, value in recorded.items()},
        "objectives": "; ".join(objectives),
        "seeds": f"0 to {settings.seeds - 1}",
        **versions(),
    }
    try:
        write_results(out, results, groups, configuration, recorded)
    except OSError as error:
        raise click.ClickException(f"--out {out}: {error}") from error
