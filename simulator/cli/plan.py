"""The plan of a simulation: worlds, their runs, and their execution over processes or a cluster.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     file = Path(folder, "tiny.yaml")
...     _ = file.write_text("rounds: 20\\nmodels: {small: {quality: 0.6, cost: 0.001}}\\n")
...     plan = make_plan(SimulateSettings(world_files=str(file), seeds=2, policy="uniform,best-fixed"))
>>> [(planned.run.policy.name, planned.run.seed) for planned in plan.runs]
[('uniform', 0), ('uniform', 1), ('best-fixed', 0), ('best-fixed', 1)]
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pointsman.simulator.cli.options import parse_quality_range, split_list
from pointsman.simulator.cli.settings import SimulateSettings
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.pieces import Extent, extent, pieces
from pointsman.simulator.data.table import OutcomeTable, load_table, with_features
from pointsman.simulator.policies.registry import check_run
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.report.terminal import collect_results, with_progress
from pointsman.simulator.run.executor import map_over
from pointsman.simulator.run.experiment import PlannedRun, RunResult, run_all
from pointsman.simulator.run.streaming import check_file, check_streamed, stream
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.file import Scenario, read_scenario
from pointsman.simulator.world.utility import parse_objective
from pointsman.simulator.world.world import DEFAULT_WARM_LEVEL, DEFAULT_WARM_MASS, World, fit_of_warm_start, make_world


@dataclass(frozen=True, slots=True, eq=False)
class StreamedFile:
    """A table that is larger than memory: its file, how far it extends, and how many rounds of it are played."""

    path: Path
    extent: Extent
    rounds: int


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The worlds and the runs in them; with ``streamed`` there is one world, of the file's first piece."""

    scenarios: tuple[Scenario, ...]
    runs: tuple[PlannedRun, ...]
    streamed: StreamedFile | None = None


def make_plan(settings: SimulateSettings) -> Plan:
    """Read worlds or tables, and plan the runs. ``settings`` must have been checked.

    Raises ``SettingError`` for a run that makes no sense in its world, and what ``load_table`` raises.
    """
    streamed = None
    if settings.world_files is not None:
        scenarios = _read_scenarios(settings.world_files, settings)
    else:
        assert settings.table_name is not None
        streamed = _open_stream(settings.table_name, settings.rounds) if settings.streamed else None
        scenarios = (_table_scenario(settings.table_name, settings, streamed),)
    runs = tuple(
        PlannedRun(number, objective, run)
        for number, scenario in enumerate(scenarios)
        for objective, run in _runs(settings, scenario)
    )
    for planned in runs:
        check_run(scenarios[planned.world].world, planned.run)
    if streamed is not None:
        for planned in runs:
            check_streamed(planned.run)
            check_file(streamed.extent, scenarios[0].world.quality, planned.run.objective)
    return Plan(scenarios, runs, streamed)


def play(plan: Plan, jobs: int | None, executor: str) -> list[RunResult]:
    """The results of a plan's runs, in their order, with a progress bar; ``jobs`` ``None`` is one a processor.

    Raises ``SettingError``, and ``TableError`` if a streamed file has changed.
    """
    jobs = jobs or os.cpu_count() or 1
    worlds, streamed = [scenario.world for scenario in plan.scenarios], plan.streamed
    if streamed is None:
        return with_progress(len(plan.runs), lambda done: run_all(worlds, plan.runs, jobs, done, executor))
    shared = (streamed.path, worlds[0], streamed.rounds)
    return with_progress(
        len(plan.runs),
        lambda done: collect_results(done, map_over(shared, _stream_run, plan.runs, jobs, executor)),
    )


def describe_scenario(scenario: Scenario) -> str:
    """A one-line description of a scenario: source, size, models, features and changes."""
    world = scenario.world
    return (
        f"{scenario.source}; {len(world.table)} prompts, models {', '.join(world.table.models)}; features "
        f"{world.features.kind}, bucket {world.features.bucket}"
        + "".join(f"; {change}" for change in scenario.schedule)
        + (f"; {scenario.note}" if scenario.note else "")
    )


def _read_scenarios(world_files: str, settings: SimulateSettings) -> tuple[Scenario, ...]:
    names = split_list(world_files, "--world")
    scenarios = tuple(read_scenario(Path(name), settings.features, settings.bucket) for name in names)
    if len({scenario.name for scenario in scenarios}) < len(scenarios):
        raise SettingError("--world: expected files of different names")
    return scenarios


def _table_scenario(name: str, settings: SimulateSettings, streamed: StreamedFile | None) -> Scenario:
    """The world of a table without changes: whole, or of its first piece."""
    table = _load(name, settings.x_from) if streamed is None else next(pieces(streamed.path))
    warm = None if settings.warm_start is None else _load(settings.warm_start, settings.warm_x_from)
    world = make_world(
        table,
        Features(settings.features or _default_features(table), settings.bucket or "one"),
        parse_quality_range(settings.quality_range),
        warm,
        warm_mass=DEFAULT_WARM_MASS if settings.warm_mass is None else settings.warm_mass,
        warm_level=DEFAULT_WARM_LEVEL if settings.warm_mass is None else settings.warm_mass,
        warm_quality=None if settings.warm_quality_range is None else parse_quality_range(settings.warm_quality_range),
        tasks=() if streamed is None else streamed.extent.tasks,
    )
    started = "" if warm is None else f"; warm start {warm.name} (sha256 {warm.sha256}), {len(warm)} prompts"
    misfit = "" if warm is None else fit_of_warm_start(table, warm)
    note = f"{settings.warm_start}: {misfit}" if misfit else ""
    return Scenario(table.name, f"sha256 {table.sha256}{started}", world, (), None, 0, note)


def _runs(settings: SimulateSettings, scenario: Scenario) -> list[tuple[str, Run]]:
    """Every run in a scenario, which says what the settings do not, each with its objective as it was written."""
    return [
        (
            objective,
            Run(
                policy,
                parse_objective(objective, scenario.world.quality),
                budget,
                seed,
                scenario.delay if settings.delay is None else settings.delay,
                scenario.rounds if settings.rounds is None else settings.rounds,
                scenario.schedule,
            ),
        )
        for policy in settings.policies()
        for objective in settings.objectives()
        for budget in settings.budgets()
        for seed in range(settings.seeds)
    ]


def _open_stream(name: str, rounds: int | None) -> StreamedFile:
    path = Path(name)
    if ":" in name and not path.is_file():
        raise SettingError(f"--stream: expected a file, got {name}")
    whole = extent(path)
    return StreamedFile(path, whole, rounds or whole.rows)


def _stream_run(shared: tuple[Path, World, int], planned: PlannedRun) -> RunResult:
    path, world, rounds = shared
    return stream(world, lambda: pieces(path), rounds, planned.objective, planned.run)


def _load(name: str, features: str | None) -> OutcomeTable:
    table = load_table(name)
    return table if features is None else with_features(table, features)


def _default_features(table: OutcomeTable) -> str:
    if table.x_nd is not None:
        return "x"
    return "none" if table.texts is None else "text"
