"""The settings of ``pointsman simulate`` as one value, from the command line or a recorded ``run.json``.

>>> settings = SimulateSettings(table_name="outcomes.csv", policy="thompson,uniform", budget="0.001,0.002")
>>> [str(policy) for policy in settings.policies()], settings.budgets()
(['thompson', 'uniform'], [0.001, 0.002])
>>> SimulateSettings(world_files="drift.yaml", x_from="features.npz:x").check()
Traceback (most recent call last):
    ...
pointsman.simulator.data.errors.SettingError: --x-from: expected with --table only
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pointsman.simulator.cli.options import parse_budget, split_list
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.policies.registry import parse_policy
from pointsman.simulator.policies.spec import PolicySpec, Run
from pointsman.simulator.run.executor import PROCESSES, check_executor
from pointsman.simulator.world.utility import parse_objective
from pointsman.simulator.world.world import UNIT

_CHANGES_NO_NUMBER = frozenset({"out", "as_json", "jobs", "executor"})
"""Settings that say where a simulation is played and written, and change none of its numbers."""


@dataclass(frozen=True, slots=True)
class SimulateSettings:
    """The settings by the names of the command's parameters, as they were written; ``None`` where nothing was said.

    Lists (``policy``, ``objective``, ``budget``, ``world_files``) are texts separated by commas. The command's help says what
    each means.
    """

    table_name: str | None = None
    world_files: str | None = None
    streamed: bool = False
    log_name: str | None = None
    signal: str = "quality"
    warm_start: str | None = None
    warm_mass: float | None = None
    warm_quality_range: str | None = None
    policy: str = "thompson"
    objective: str = "BALANCED"
    budget: str | None = None
    features: str | None = None
    bucket: str | None = None
    seeds: int = 5
    rounds: int | None = None
    delay: int | None = None
    quality_range: str = "0,1"
    x_from: str | None = None
    warm_x_from: str | None = None
    out: Path | None = None
    as_json: bool = False
    jobs: int | None = None
    executor: str = PROCESSES

    def check(self) -> None:
        """Raise ``SettingError`` for lists that cannot be read and settings that do not go together."""
        check_executor(self.executor)
        self.policies()
        self.objectives()
        self.budgets()
        if sum(name is not None for name in (self.table_name, self.world_files, self.log_name)) != 1:
            raise SettingError("--table, --world, --log: expected one of them")
        if self.log_name is not None:
            return
        if self.streamed and (self.table_name is None or self.warm_start or self.x_from):
            raise SettingError("--stream: expected with --table, and without --warm-start and --x-from")
        if self.world_files is not None:
            only_with_table = {
                "--warm-start": self.warm_start,
                "--x-from": self.x_from,
                "--warm-mass": self.warm_mass,
                "--warm-quality-range": self.warm_quality_range,
            }
            for option, value in only_with_table.items():
                if value is not None:
                    raise SettingError(f"{option}: expected with --table only")
        elif self.warm_start is None:
            only_with_warm_start = {
                "--warm-x-from": self.warm_x_from,
                "--warm-mass": self.warm_mass,
                "--warm-quality-range": self.warm_quality_range,
            }
            for option, value in only_with_warm_start.items():
                if value is not None:
                    raise SettingError(f"{option}: expected --warm-start too")

    def policies(self) -> list[PolicySpec]:
        """The policies, in order. Raises ``SettingError``."""
        return [parse_policy(text) for text in split_list(self.policy, "--policy")]

    def objectives(self) -> list[str]:
        """The objectives as they were written: what they mean depends on the range of quality. Raises ``SettingError``."""
        return split_list(self.objective, "--objective")

    def budgets(self) -> list[float | None]:
        """Mean dollars a request, or ``None`` alone for no budget. Raises ``SettingError``."""
        if self.budget is None:
            return [None]
        return [parse_budget(text) for text in split_list(self.budget, "--budget")]

    def log_runs(self) -> list[tuple[str, Run]]:
        """The runs to replay on a log, each with its objective as it was written. Raises ``SettingError``."""
        return [
            (objective, Run(policy, parse_objective(objective, UNIT), budget, seed))
            for policy in self.policies()
            for objective in self.objectives()
            for budget in self.budgets()
            for seed in range(self.seeds)
        ]

    def recorded(self) -> dict[str, Any]:
        """What gives the same numbers again, by name; what was not said is left out."""
        values = sorted(asdict(self).items())
        return {name: value for name, value in values if value is not None and name not in _CHANGES_NO_NUMBER}


def read_recorded_settings(path: Path) -> dict[str, Any]:
    """The settings that ``run.json`` of an earlier run records. Raises ``SettingError`` for a file that is none."""
    try:
        options = json.loads(path.read_text(encoding="utf-8"))["options"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingError(f"{path}: expected the run.json of an earlier run: {error!r}") from None
    if not isinstance(options, dict):
        raise SettingError(f"{path}: expected the run.json of an earlier run: its options are no mapping")
    return options
