"""Replay of a table that is larger than memory: one pass in the file's order, a piece at a time, for any number of rounds.

Policies, and what they are told, are those of ``simulator.run.replay``. What is kept of the rounds are sums up to each
checkpoint, so that memory does not grow with them; controls in hindsight are made of the same sums. The first piece sets the
scale of features.

>>> from pointsman.bandit.catalog import Mode, Objective
>>> from pointsman.simulator.data.table import from_columns
>>> from pointsman.simulator.policies.registry import parse_policy
>>> from pointsman.simulator.world.encoding import Features
>>> from pointsman.simulator.world.world import make_world
>>> columns = {"prompt_id": ["a", "b"], "task": ["chat", "maths"], "quality/small": [0.9, 0.1], "quality/large": [0.8, 0.6]}
>>> world = make_world(from_columns("two", "", columns), Features("none", "one"))
>>> run = Run(parse_policy("fixed:large"), Objective(Mode.QUALITY_FIRST), None, seed=0)
>>> result = stream(world, lambda: iter([world.table]), 2, "QUALITY_FIRST", run)
>>> round(result.row["mean_quality"], 9), round(result.row["regret"], 9)
(0.7, 0.1)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt

from pointsman.bandit.catalog import FLOOR_MODES, Mode, Objective, QualityRange
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.pieces import Extent
from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.policies.base import Choice, StreamingPolicy
from pointsman.simulator.policies.hindsight import mix_at
from pointsman.simulator.policies.registry import FIXED, THOMPSON, make_policy
from pointsman.simulator.policies.rule import Rule, best_static, rule_of, shortfalls, worth_of
from pointsman.simulator.policies.spec import Run, policy_rng
from pointsman.simulator.run.experiment import CHECKPOINTS, Benchmarks, Judged, RunResult, RunRow
from pointsman.simulator.world.rounds import CallOutcome, table_outcome
from pointsman.simulator.world.utility import utilities
from pointsman.simulator.world.world import World, window

Array = npt.NDArray[np.float64]

STREAMED = (THOMPSON, "uniform", "epsilon-greedy", "linucb", "beta-thompson", FIXED)
"""Policies that can be streamed."""


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Sums over the rounds so far: of the best and the achieved utility, and of what was achieved; by model (k) of what each
    would have achieved in all of them, and of how often each was chosen.
    """

    best_utility: float
    utility: float
    quality: float
    cost: float
    latency: float
    utility_k: Array
    quality_k: Array
    cost_k: Array
    latency_k: Array
    chosen_k: Array

    @staticmethod
    def of_nothing(k: int) -> _Sums:
        """Before the first round."""
        return _Sums(0.0, 0.0, 0.0, 0.0, 0.0, np.zeros(k), np.zeros(k), np.zeros(k), np.zeros(k), np.zeros(k))

    def plus(self, table: OutcomeTable, row: int, model: int, utility_k: Array) -> _Sums:
        """With one more round, in which ``model`` was chosen for ``row``."""
        chosen_k = self.chosen_k.copy()
        chosen_k[model] += 1.0
        return _Sums(
            self.best_utility + float(utility_k.max()),
            self.utility + float(utility_k[model]),
            self.quality + float(table.quality_nk[row, model]),
            self.cost + float(table.cost_nk[row, model]),
            self.latency + float(table.latency_nk[row, model]),
            self.utility_k + utility_k,
            self.quality_k + table.quality_nk[row],
            self.cost_k + table.cost_nk[row],
            self.latency_k + table.latency_nk[row],
            chosen_k,
        )


def check_streamed(run: Run) -> None:
    """Raise ``SettingError`` for a run that cannot be streamed."""
    name = run.policy.name
    if name not in STREAMED:
        listed = ", ".join(f"{FIXED}:<model>" if name == FIXED else name for name in STREAMED)
        raise SettingError(f"policy {run.policy.text!r}: expected one of {listed} in a stream")
    if run.schedule:
        raise SettingError("a stream: expected no schedule")
    if run.delay and name not in (THOMPSON, FIXED):
        raise SettingError(
            f"policy {run.policy.text!r}: expected no delay in a stream; only thompson can be told late there"
        )
    if run.budget is not None:
        raise SettingError("a stream: expected no budget: the best within one needs all rounds at once")
    if run.objective.min_mean_quality is not None:
        raise SettingError("a stream: expected no min_mean_quality: the cheapest within it needs all rounds at once")


def check_file(file: Extent, quality: QualityRange, objective: Objective) -> None:
    """Raise ``SettingError`` for a cell of a file that ``quality`` or ``objective`` does not allow, by its row in the file.

    As for a table in memory (``make_world``, ``utilities``), and before anything is played: a piece knows its own rows only.
    """
    for value, place in (file.lowest, file.highest):
        if not quality.min <= value <= quality.max:
            raise SettingError(
                f"{file.name}: {place}: expected {quality.min:g} to {quality.max:g}, got {value:g}; see --quality-range"
            )
    if objective.mode in FLOOR_MODES:
        needed = ["cost" if objective.mode is Mode.COST_FIRST else "latency"]
    else:
        weighs_cost = objective.cost_weight and (file.costs or objective.mode is not Mode.BALANCED)
        needed = ["cost"] * bool(weighs_cost) + ["latency"] * bool(objective.latency_weight)
    for kind in needed:
        if kind in file.empty:
            raise SettingError(
                f"{objective.mode.value} needs a {kind} of every model: {file.name}: {file.empty[kind]} is empty or missing"
            )


def stream(
    first: World, rest: Callable[[], Iterator[OutcomeTable]], rounds: int, objective: str, run: Run
) -> RunResult:
    """Play ``run`` over ``rounds`` rows of the tables that ``rest`` gives, of which ``first`` is a world of the first.

    A file has to be checked before, by ``check_file``. Raises ``SettingError``, and what ``rest`` raises.
    """
    check_streamed(run)
    models = first.table.models
    policy = None
    if run.policy.name != FIXED:
        policy = cast(StreamingPolicy, make_policy(first, run, policy_rng(run)))
    fixed = -1 if policy is not None else models.index(run.policy.string("model"))
    ends_c = np.unique(np.linspace(0, rounds, CHECKPOINTS + 1).round().astype(np.int64))[1:]
    sums, checkpoints = _Sums.of_nothing(len(models)), list[_Sums]()
    pending: list[tuple[Choice, CallOutcome]] = []
    t = 0
    for table in rest():
        if policy is not None:
            policy.move_to(window(first, table))
        utility_nk = utilities(table, run.objective)
        for row in range(min(len(table), rounds - t)):
            model = fixed if policy is None else policy.choose(t, row)
            if policy is not None:
                pending.append((Choice(t, row, model), table_outcome(table, row, model)))
                if len(pending) > run.delay:
                    policy.learn(t, *pending.pop(0))
            sums = sums.plus(table, row, model, utility_nk[row])
            t += 1
            if t == ends_c[len(checkpoints)]:
                checkpoints.append(sums)
        if t == rounds:
            break
    if t < rounds:
        raise SettingError(f"--rounds: expected at most {t}, as many as there are rows, got {rounds}")
    return _result(first, run, objective, checkpoints, ends_c)


def _result(
    world: World,
    run: Run,
    objective: str,
    checkpoints: list[_Sums],
    ends_c: npt.NDArray[np.int64],
) -> RunResult:
    n, models = int(ends_c[-1]), world.table.models
    total = checkpoints[-1]
    best_c, utility_c, cost_c = (
        np.array([getattr(sums, name) for sums in checkpoints]) for name in ("best_utility", "utility", "cost")
    )
    utility_ck, chosen_ck = (
        np.array([getattr(sums, name) for sums in checkpoints]) for name in ("utility_k", "chosen_k")
    )
    quality_k, cost_k, latency_k = total.quality_k / n, total.cost_k / n, total.latency_k / n
    rule = _rule(run.objective, total, n)
    is_option_k = np.ones(len(models), dtype=np.bool_)
    fixed = best_static(rule, is_option_k)
    mean_cost, mean_latency = _number_or_none(total.cost / n), _number_or_none(total.latency / n)
    is_timed = run.objective.mode is Mode.LATENCY_FIRST
    spent, spent_k = (mean_latency, latency_k) if is_timed else (mean_cost, cost_k)
    mix_k = None if spent is None or np.isnan(spent_k).any() else mix_at(quality_k, spent_k, spent)
    worth_n = worth_of(run.objective, *(np.array([value / n]) for value in (total.utility, total.cost, total.latency)))
    has_floor = rule.kept_tk is not None
    played_ck = np.diff(chosen_ck, axis=0, prepend=0.0)
    return RunResult(
        run=run,
        row=RunRow(
            world=world.table.name,
            policy=run.policy.text,
            objective=objective,
            budget=run.budget,
            seed=run.seed,
            rounds=n,
            mean_quality=total.quality / n,
            mean_cost=mean_cost,
            spend_ratio=None,
            mean_latency=mean_latency,
            regret=total.best_utility - total.utility,
            mean_utility=total.utility / n,
            features=world.features.kind,
            bucket=world.features.bucket,
            shares=dict(zip(models, (total.chosen_k / n).tolist(), strict=True)),
        ),
        round_c=ends_c,
        regret_c=best_c - utility_c,
        spend_c=cost_c / ends_c,
        share_ck=played_ck / played_ck.sum(axis=1, keepdims=True),
        by_prompt=False,
        quality_n=np.array([total.quality / n]),
        cost_n=np.array([total.cost / n]),
        judged_n=Judged(worth_n, np.array([total.quality / n]) if has_floor else None),
        benchmarks=Benchmarks(
            fixed=models[fixed],
            fixed_n=Judged(rule.worth_tk[:, fixed], quality_k[[fixed]] if has_floor else None),
            floor=rule.floor,
            fixed_keeps=bool(shortfalls(rule, is_option_k)[fixed] <= 0.0),
            fixed_regret_c=best_c - utility_ck[:, fixed],
            mix_n=None if mix_k is None else np.array([quality_k @ mix_k]),
            mix_regret_c=None if mix_k is None else best_c - utility_ck @ mix_k,
            quality_k=quality_k,
            cost_k=cost_k,
        ),
    )


def _rule(objective: Objective, total: _Sums, n: int) -> Rule:
    """The rule that serves, over all tasks together: sums are not kept for each of them. All calls of a table answer."""
    quality_1k, worth_1k = (
        total.quality_k[None] / n,
        worth_of(objective, total.utility_k, total.cost_k, total.latency_k)[None] / n,
    )
    rule = rule_of(objective, quality_1k, worth_1k, np.ones(quality_1k.shape), np.zeros(1, dtype=np.intp))
    return rule if objective.mode in FLOOR_MODES else replace(rule, kept_tk=None, floor_t=None)


def _number_or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
