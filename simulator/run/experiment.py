"""Many runs over processes, each as a row of numbers and a trace for the pictures.

>>> from pointsman.bandit.catalog import Mode, Objective
>>> from pointsman.simulator.data.table import from_columns
>>> from pointsman.simulator.policies.registry import parse_policy
>>> from pointsman.simulator.world.encoding import Features
>>> from pointsman.simulator.world.world import make_world
>>> columns = {"prompt_id": ["a", "b"], "task": ["chat", "maths"], "quality/small": [0.9, 0.1], "quality/large": [0.8, 0.6]}
>>> world = make_world(from_columns("two", "", columns), Features("none", "one"))
>>> result = measure_run(world, "QUALITY_FIRST", Run(parse_policy("fixed:large"), Objective(Mode.QUALITY_FIRST), None, seed=0))
>>> round(result.row["mean_quality"], 9), round(result.row["regret"], 9)
(0.7, 0.1)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from pointsman.bandit.catalog import FLOOR_MODES, Mode, Objective
from pointsman.simulator.policies.cascade import Cascaded, cascade, thresholds
from pointsman.simulator.policies.hindsight import best_fixed_in, mix_at, optimum, rule_in
from pointsman.simulator.policies.registry import CASCADE, check_run
from pointsman.simulator.policies.rule import shortfalls, worth_of
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.run.executor import PROCESSES, map_over
from pointsman.simulator.run.replay import rounds_of, shares
from pointsman.simulator.world.rounds import Rounds
from pointsman.simulator.world.utility import utility_of
from pointsman.simulator.world.world import World

Array = npt.NDArray[np.float64]

CHECKPOINTS = 50
"""Most points of a trace."""


class RunRow(TypedDict):
    """One run: means over its rounds; ``spend_ratio`` is mean cost / budget, ``shares`` the share of prompts by model.

    ``None`` where a number does not apply. Utility and regret (a sum over rounds) are in the objective's unit, see
    ``simulator.world.utility``.
    """

    world: str
    policy: str
    objective: str
    budget: float | None
    seed: int
    rounds: int
    mean_quality: float
    mean_cost: float | None
    spend_ratio: float | None
    mean_latency: float | None
    regret: float
    mean_utility: float
    features: str
    bucket: str
    shares: dict[str, float]


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run: the number of its world, its objective as it was written, and the run."""

    world: int
    objective: str
    run: Run


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What the rule that serves looks at, (n): ``worth_n`` should be as great as can be, and ``kept_n`` reach its floor.

    ``kept_n`` is ``None`` where nothing must be kept.
    """

    worth_n: Array
    kept_n: Array | None

    def taken(self, place_n: npt.NDArray[np.intp]) -> Judged:
        """In another order."""
        return Judged(self.worth_n[place_n], None if self.kept_n is None else self.kept_n[place_n])


@dataclass(frozen=True, slots=True, eq=False)
class Benchmarks:
    """Benchmarks of a run, which know its rounds beforehand and ignore the prompt.

    ``fixed`` is the best fixed model by the rule that serves (``policies.rule``; within the budget), ``fixed_n`` what it is
    judged by. ``floor`` is the mean of what must be kept, ``None`` if nothing must, and ``fixed_keeps`` whether it keeps that in
    every task. ``mix_n`` is the quality of the best static mix of models that costs (under ``LATENCY_FIRST``: takes) what the run
    did, ``None`` if not every cost is known. ``quality_k`` and ``cost_k`` are each model's means, NaN for one that was not
    there all the time. ``fixed_regret_c`` and ``mix_regret_c`` are cumulative, as in ``RunResult``.
    """

    fixed: str
    fixed_n: Judged
    floor: float | None
    fixed_keeps: bool
    fixed_regret_c: Array
    mix_n: Array | None
    mix_regret_c: Array | None
    quality_k: Array
    cost_k: Array


@dataclass(frozen=True, slots=True, eq=False)
class RunResult:
    """The result of one run: its row, a trace at c rounds, and what each prompt came to (n) beside its controls.

    ``regret_c`` is cumulative after ``round_c`` rounds, ``spend_c`` the mean cost until then (NaN where a cost is unknown),
    ``share_ck`` the traffic of each model since the point before. If ``by_prompt``, n are the rows of the table, each of which
    came once and had one outcome; else n are the rounds.
    """

    run: Run
    row: RunRow
    round_c: npt.NDArray[np.int64]
    regret_c: Array
    spend_c: Array
    share_ck: Array
    by_prompt: bool
    quality_n: Array
    cost_n: Array
    judged_n: Judged
    benchmarks: Benchmarks


def run_all(
    worlds: Sequence[World],
    planned: Sequence[PlannedRun],
    jobs: int,
    done: Callable[[], None] = lambda: None,
    executor: str = PROCESSES,
) -> list[RunResult]:
    """The results of ``planned`` runs, in their order, whatever ``jobs`` and ``executor`` (``simulator.run.executor.map_over``).

    ``done`` is called after each. Raises ``SettingError`` before anything has run if one of them makes no sense.
    """
    distinct = {(item.world, item.run.policy, item.run.objective, item.run.budget): item for item in planned}
    for item in distinct.values():
        check_run(worlds[item.world], item.run)
    results: list[RunResult] = []
    for result in map_over(tuple(worlds), _measure_planned, planned, jobs, executor):
        results.append(result)
        done()
    return results


def _measure_planned(worlds: tuple[World, ...], planned: PlannedRun) -> RunResult:
    return measure_run(worlds[planned.world], planned.objective, planned.run)


def measure_run(world: World, objective_name: str, run: Run) -> RunResult:
    """Play one run and measure it, by what its calls were worth. ``objective_name`` is its objective as it was written."""
    rounds = rounds_of(world, run)
    expected = rounds.expected
    utility_tk = utility_of(
        run.objective, expected.quality_tk, expected.cost_tk, expected.latency_tk, rounds.available_tk
    )
    best_t = (optimum(world, run, rounds, "prompt-oracle") * utility_tk).sum(axis=1)
    if run.policy.name == CASCADE:
        achieved = _cascade_outcomes(run, rounds)
    else:
        achieved = _split_outcomes(shares(world, run, rounds), rounds, utility_tk)
    regret_t = best_t - achieved.utility_t
    ends_c = np.unique(np.linspace(0, len(rounds), CHECKPOINTS + 1).round().astype(np.int64))[1:]
    starts_c = np.concatenate([[0], ends_c[:-1]])
    is_timed = run.objective.mode is Mode.LATENCY_FIRST
    spent = _mean(achieved.latency_t if is_timed else achieved.cost_t)
    benchmarks = _benchmarks(world, run, rounds, utility_tk, spent, best_t, ends_c)
    # Where each prompt came once and nothing changed, prompts are a sample that says what to expect of others.
    by_prompt = not run.schedule and run.rounds is None and world.noise is None
    place_t = np.argsort(rounds.row_t) if by_prompt else np.arange(len(rounds))
    return RunResult(
        run=run,
        row=_row(world, objective_name, run, achieved, float(regret_t.sum())),
        round_c=ends_c,
        regret_c=np.cumsum(regret_t)[ends_c - 1],
        spend_c=np.cumsum(achieved.cost_t)[ends_c - 1] / ends_c,
        share_ck=np.add.reduceat(achieved.share_tk, starts_c, axis=0) / (ends_c - starts_c)[:, None],
        by_prompt=by_prompt,
        quality_n=achieved.quality_t[place_t],
        cost_n=achieved.cost_t[place_t],
        judged_n=_judged(run.objective, achieved).taken(place_t),
        benchmarks=replace(
            benchmarks,
            fixed_n=benchmarks.fixed_n.taken(place_t),
            mix_n=None if benchmarks.mix_n is None else benchmarks.mix_n[place_t],
        ),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Achieved:
    """The results of a policy in every round (t): each model's share, quality, cost, latency, utility and share of answers."""

    share_tk: Array
    quality_t: Array
    cost_t: Array
    latency_t: Array
    utility_t: Array
    success_t: Array


def _judged(objective: Objective, achieved: _Achieved) -> Judged:
    """What the rule that serves looks at."""
    kept_t = None
    if objective.mode in FLOOR_MODES:
        kept_t = achieved.quality_t
    elif objective.mode is Mode.AVAILABILITY_FIRST:
        kept_t = achieved.success_t
    return Judged(worth_of(objective, achieved.utility_t, achieved.cost_t, achieved.latency_t), kept_t)


def _row(world: World, objective_name: str, run: Run, achieved: _Achieved, regret: float) -> RunRow:
    mean_cost = _mean(achieved.cost_t)
    return RunRow(
        world=world.table.name,
        policy=run.policy.text,
        objective=objective_name,
        budget=run.budget,
        seed=run.seed,
        rounds=len(achieved.quality_t),
        mean_quality=float(achieved.quality_t.mean()),
        mean_cost=mean_cost,
        spend_ratio=None if run.budget is None or mean_cost is None else mean_cost / run.budget,
        mean_latency=_mean(achieved.latency_t),
        regret=regret,
        mean_utility=float(achieved.utility_t.mean()),
        features=world.features.kind,
        bucket=world.features.bucket,
        shares=dict(zip(world.table.models, achieved.share_tk.mean(axis=0).tolist(), strict=True)),
    )


def _split_outcomes(share_tk: Array, rounds: Rounds, utility_tk: Array) -> _Achieved:
    """The results of a policy that splits every round's traffic by ``share_tk``."""
    expected = rounds.expected
    return _Achieved(
        share_tk,
        (share_tk * expected.quality_tk).sum(axis=1),
        _mix(share_tk, expected.cost_tk),
        _mix(share_tk, expected.latency_tk),
        (share_tk * utility_tk).sum(axis=1),
        (share_tk * rounds.success_tk).sum(axis=1),
    )


def _cascade_outcomes(run: Run, rounds: Rounds) -> _Achieved:
    """The results of a cascade whose judge sees the outcomes. Shares are those of the models that answered last.

    Without a threshold of its own it has the best in hindsight within the budget; the cheapest, if none is.
    """
    tried = [run.policy.number("quality", 0.0)] if run.policy.settings else thresholds(rounds.quality_tk).tolist()
    best: tuple[Cascaded, Array] | None = None
    for threshold in tried:
        cascaded = cascade(rounds.quality_tk, rounds.cost_tk, rounds.latency_tk, rounds.available_tk, threshold)
        columns = (cascaded.quality_n[:, None], cascaded.cost_n[:, None], cascaded.latency_n[:, None])
        utility_t = utility_of(run.objective, *columns)[:, 0]
        within = run.budget is None or float(cascaded.cost_n.mean()) <= run.budget
        # thresholds rise, and costs with them: the first is the cheapest
        if best is None or (within and float(utility_t.mean()) > float(best[1].mean())):
            best = cascaded, utility_t
    assert best is not None
    cascaded, utility_t = best
    share_tk = np.eye(rounds.quality_tk.shape[1])[cascaded.stopped_n]
    latency_t = np.full(len(rounds), np.nan) if np.isnan(rounds.latency_tk).all() else cascaded.latency_n
    success_t = (share_tk * rounds.success_tk).sum(axis=1)
    return _Achieved(share_tk, cascaded.quality_n, cascaded.cost_n, latency_t, utility_t, success_t)


def _benchmarks(
    world: World,
    run: Run,
    rounds: Rounds,
    utility_tk: Array,
    spent: float | None,
    best_t: Array,
    ends_c: npt.NDArray[np.int64],
) -> Benchmarks:
    """The controls of one run, round by round. ``spent`` is what the mix may cost, or take."""
    expected = rounds.expected
    always_k = rounds.available_tk.all(axis=0)
    quality_k = np.where(always_k, expected.quality_tk.mean(axis=0), np.nan)
    cost_k = np.where(always_k, expected.cost_tk.mean(axis=0), np.nan)
    rule, fixed = rule_in(world, run, rounds, utility_tk), best_fixed_in(world, run, rounds, utility_tk)
    mix_t, mix_regret_c = None, None
    spent_tk = expected.latency_tk if run.objective.mode is Mode.LATENCY_FIRST else expected.cost_tk
    if spent is not None and not np.isnan(spent_tk).any():
        mix_k = mix_at(quality_k, np.where(always_k, spent_tk.mean(axis=0), np.nan), spent)
        mix_t = expected.quality_tk @ mix_k
        mix_regret_c = np.cumsum(best_t - utility_tk @ mix_k)[ends_c - 1]
    return Benchmarks(
        fixed=world.table.models[fixed],
        fixed_n=Judged(rule.worth_tk[:, fixed], None if rule.kept_tk is None else rule.kept_tk[:, fixed]),
        floor=rule.floor,
        fixed_keeps=bool(shortfalls(rule, np.asarray(always_k))[fixed] <= 0.0),
        fixed_regret_c=np.cumsum(best_t - utility_tk[:, fixed])[ends_c - 1],
        mix_n=mix_t,
        mix_regret_c=mix_regret_c,
        quality_k=quality_k,
        cost_k=cost_k,
    )


def _mix(share_nk: Array, cell_nk: Array) -> Array:
    """The mean under each round's mix, (n); NaN if a model with a share in it is unknown."""
    return np.asarray(np.where(share_nk > 0.0, share_nk * cell_nk, 0.0).sum(axis=1))


def _mean(value_n: Array) -> float | None:
    """The mean of the known values; NaN if there are none."""
    known_n = value_n[~np.isnan(value_n)]
    return float(known_n.mean()) if known_n.size else None
