"""Many runs over processes, each as a row of numbers and a trace for the pictures."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from simulator.baselines import grouped_optimum
from simulator.replay import check_run, play
from simulator.utility import utilities
from simulator.world import Run, World, order_of

Array = npt.NDArray[np.float64]

T = TypeVar("T")
R = TypeVar("R")

CHECKPOINTS = 50
"""Most points of a trace."""
_BLAS_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Row(TypedDict):
    """One run: means over its rounds; ``spend_ratio`` is mean cost / budget, ``shares`` the share of prompts by model.

    ``None`` where a number does not apply. Utility and regret (a sum over rounds) are in the objective's unit, see
    ``simulator.utility``.
    """

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


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What came of one run: its row, a trace at c rounds, and each prompt's outcome in the order of the table (n).

    ``regret_c`` is cumulative after ``round_c`` rounds, ``share_ck`` the traffic of each model since the point before.
    ``cost_n`` is NaN where a cost is unknown.
    """

    run: Run
    row: Row
    round_c: npt.NDArray[np.int64]
    regret_c: Array
    share_ck: Array
    quality_n: Array
    cost_n: Array
    utility_n: Array


def run_all(
    world: World,
    runs: Sequence[tuple[str, Run]],
    jobs: int,
    done: Callable[[], None] = lambda: None,
) -> list[Result]:
    """The results of ``runs`` (each with its objective as it was written), in their order, whatever ``jobs``.

    ``done`` is called after each. Raises ``SettingError`` before anything has run if one of them makes no sense.
    """
    for run in {(run.policy, run.objective, run.budget): run for _, run in runs}.values():
        check_run(world, run)
    results: list[Result] = []
    for result in over_processes(world, _evaluate_named, runs, jobs):
        results.append(result)
        done()
    return results


def over_processes(world: World, work: Callable[[World, T], R], items: Sequence[T], jobs: int) -> Iterator[R]:
    """What ``work`` makes of each item in ``world``, in their order, over ``jobs`` processes; ``work`` is a module's function."""
    if jobs == 1 or len(items) == 1:
        for item in items:
            yield work(world, item)
        return
    # New interpreters, not forks: a fork of a process that has threads can hang.
    context = multiprocessing.get_context("spawn")
    with (
        _one_blas_thread(),
        ProcessPoolExecutor(min(jobs, len(items)), context, initializer=_set_world, initargs=(world,)) as pool,
    ):
        yield from pool.map(partial(_work_here, work), items)


def evaluate(world: World, objective_name: str, run: Run) -> Result:
    """Play one run and measure it."""
    table = world.table
    share_nk = play(world, run)
    utility_nk = utilities(table, run.objective)
    best_nk = utility_nk.max(axis=1)
    if run.budget is not None:
        best_share_nk = grouped_optimum(utility_nk, table.cost_nk, np.arange(len(table)), run.budget)
        best_nk = (best_share_nk * utility_nk).sum(axis=1)
    quality_n = (share_nk * table.quality_nk).sum(axis=1)
    utility_n = (share_nk * utility_nk).sum(axis=1)
    cost_n = _mix(share_nk, table.cost_nk)
    mean_cost = _mean(cost_n)
    regret_n = best_nk - utility_n
    order = order_of(world, run.seed)
    ends_c = np.unique(np.linspace(0, len(table), CHECKPOINTS + 1).round().astype(np.int64))[1:]
    starts_c = np.concatenate([[0], ends_c[:-1]])
    played_nk = share_nk[order]
    return Result(
        run=run,
        row=Row(
            policy=run.policy,
            objective=objective_name,
            budget=run.budget,
            seed=run.seed,
            rounds=len(table),
            mean_quality=float(quality_n.mean()),
            mean_cost=mean_cost,
            spend_ratio=None if run.budget is None or mean_cost is None else mean_cost / run.budget,
            mean_latency=_mean(_mix(share_nk, table.latency_nk)),
            regret=float(regret_n.sum()),
            mean_utility=float(utility_n.mean()),
            features=world.features.kind,
            bucket=world.features.bucket,
            shares=dict(zip(table.models, share_nk.mean(axis=0).tolist(), strict=True)),
        ),
        round_c=ends_c,
        regret_c=np.cumsum(regret_n[order])[ends_c - 1],
        share_ck=np.add.reduceat(played_nk, starts_c, axis=0) / (ends_c - starts_c)[:, None],
        quality_n=quality_n,
        cost_n=cost_n,
        utility_n=utility_n,
    )


def flat(row: Row) -> dict[str, object]:
    """A row with a column ``share/<model>`` for each model in place of ``shares``."""
    cells: dict[str, object] = {name: value for name, value in row.items() if name != "shares"}
    return cells | {f"share/{model}": share for model, share in row["shares"].items()}


def _mix(share_nk: Array, cell_nk: Array) -> Array:
    """What each prompt's mix comes to, (n); NaN if a model that has a share in it is unknown."""
    return np.asarray(np.where(share_nk > 0.0, share_nk * cell_nk, 0.0).sum(axis=1))


def _mean(value_n: Array) -> float | None:
    """The mean of what is known, if anything is."""
    known_n = value_n[~np.isnan(value_n)]
    return float(known_n.mean()) if known_n.size else None


_worker: dict[str, World] = {}
"""The world of a worker process, sent to it once."""


def _set_world(world: World) -> None:
    _worker["world"] = world


def _work_here(work: Callable[[World, T], R], item: T) -> R:
    return work(_worker["world"], item)


def _evaluate_named(world: World, named_run: tuple[str, Run]) -> Result:
    return evaluate(world, *named_run)


@contextlib.contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Processes started inside use one thread for linear algebra: the matrices are small, and the cores are taken."""
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name in _BLAS_THREADS}
    os.environ.update(dict.fromkeys(_BLAS_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
