"""Budgets per request from a cold start: is the money spent, never too much of it, and on the right requests?

    python benchmarks/pacing/requests.py [--seeds N] [--rounds N] [--only WORLD[,WORLD]] [--json FILE]

Worlds: 58 tasks and two models, whose costs depend on the task and on the tokens of a prompt, with right or wrong answers; one
task without any features; and the prompts of `paretobandit:val`, repeated, at the budgets of `make bench-routing` above the price
of the cheapest model. Other budgets lie at .1, .25, .45 and .7 of the way from the mean cost of the cheapest model to that of the
dearest. Each seed draws a world (or an order) of its own.

`1,000` and `all`: spend over budget after so many requests; `from 1,000`: the largest from then on. *Way*: quality less that of
the best static mixture of models at what was spent, over what the best mixture for each task gains; both know every outcome.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pointsman.bandit.catalog import Mode, Objective
from pointsman.simulator.data.table import OutcomeTable, TableError, from_columns, load_table
from pointsman.simulator.policies.hindsight import best_shares
from pointsman.simulator.policies.registry import THOMPSON, parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.run.replay import play_online
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.world import make_world

Array = npt.NDArray[np.float64]

LEVELS = (0.1, 0.25, 0.45, 0.7)
"""Budgets, from the mean cost of the cheapest model (0) to that of the dearest (1)."""
VAL_BUDGETS = (2.3e-4, 6.6e-4, 1.9e-3, 5.3e-3)
"""Dollars a request, of `paretobandit:val`."""
WORLDS = ("58 tasks", "one task", "val")
FIRST = 1000
"""Requests after which spend is held to account."""


@dataclass(frozen=True, slots=True)
class Result:
    """One run: spend over budget after ``FIRST`` requests, at most from then on, and at the end; quality, and the two optima in
    hindsight at what was spent.
    """

    world: str
    budget: str
    seed: int
    first: float
    most: float
    all: float
    quality: float
    static: float
    optimum: float


def many_tasks(seed: int, rows: int) -> OutcomeTable:
    """58 tasks, two models at 1 : 20 and more; prices per token, output by task; a model is right with a task's probability."""
    rng, tasks = np.random.default_rng(1000 + seed), 58
    share_t = rng.lognormal(0.0, 0.8, tasks)
    task_n = rng.choice(tasks, rows, p=share_t / share_t.sum())
    strong_t = np.clip(rng.beta(9.0, 2.2, tasks), 0.3, 0.99)
    weak_t = np.clip(strong_t - np.clip(rng.gamma(2.5, 0.05, tasks) - 0.01, -0.05, 0.6), 0.05, 0.97)
    input_n = np.maximum(
        10.0, rng.lognormal(np.log(120.0), 0.55, tasks)[task_n] * rng.lognormal(0.0, 0.4, rows)
    ).astype(int)
    output_nk = np.maximum(
        1.0, rng.lognormal(np.log(20.0), 1.2, tasks)[task_n, None] * rng.lognormal(0.0, 0.3, (rows, 2))
    )
    cost_nk = (input_n[:, None] * np.array([0.6, 10.0]) + output_nk * np.array([0.6, 30.0])) / 1e6
    hardness_nk = 0.5 * rng.random(rows)[:, None] + 0.5 * rng.random(
        (rows, 2)
    )  # what one gets wrong the other often does
    hardness_nk = hardness_nk.argsort(axis=0).argsort(axis=0) / rows
    right_nk = (hardness_nk < np.stack([weak_t[task_n], strong_t[task_n]], axis=1)).astype(float)
    return _table(f"58 tasks, {seed}", [f"t{task:02d}" for task in task_n], right_nk, cost_nk, input_n)


def one_task(seed: int, rows: int) -> OutcomeTable:
    """Two models at 1 : 20, .7 and .8 good with noise; nothing is known of a request."""
    rng = np.random.default_rng(2000 + seed)
    quality_nk = np.clip(np.array([0.7, 0.8]) + 0.1 * rng.normal(size=(rows, 2)), 0.0, 1.0)
    cost_nk = np.array([1e-3, 2e-2]) * rng.lognormal(-0.045, 0.3, (rows, 2))
    return _table(f"one task, {seed}", ["task"] * rows, quality_nk, cost_nk, None)


def _table(
    name: str, tasks: list[str], quality_nk: Array, cost_nk: Array, input_n: npt.NDArray[np.int64] | None
) -> OutcomeTable:
    columns: dict[str, list[object]] = {"prompt_id": [str(i) for i in range(len(tasks))], "task": list(tasks)}
    if input_n is not None:
        columns["input_tokens"] = input_n.tolist()
    for k, model in enumerate(("small", "large")):
        columns[f"quality/{model}"], columns[f"cost/{model}"] = quality_nk[:, k].tolist(), cost_nk[:, k].tolist()
    return from_columns(name, "", columns)


def play_seed(task: tuple[str, int, int]) -> list[Result]:
    """All budgets of one world and seed."""
    name, seed, rounds = task
    if name == "val":
        table, budgets = load_table("paretobandit:val"), [(f"{budget:g}", budget) for budget in VAL_BUDGETS]
    else:
        table = many_tasks(seed, rounds) if name == "58 tasks" else one_task(seed, rounds)
        low, high = np.sort(table.cost_nk.mean(axis=0))[[0, -1]]
        budgets = [(f"{level:g}", float(low + level * (high - low))) for level in LEVELS]
    world = make_world(table, Features("none", "one"))
    results = []
    for label, budget in budgets:
        run = Run(parse_policy(THOMPSON), Objective(Mode.QUALITY_FIRST), budget, seed, rounds=rounds)
        replay = play_online(world, run)
        row_n = np.asarray(replay.rounds.row_t)
        cost_n = table.cost_nk[row_n, replay.chosen_t]
        ratio_n = np.cumsum(cost_n) / np.arange(1, rounds + 1) / budget
        first = min(FIRST, rounds) - 1
        results.append(
            Result(
                name,
                label,
                seed,
                float(ratio_n[first]),
                float(ratio_n[first:].max()),
                float(ratio_n[-1]),
                float(table.quality_nk[row_n, replay.chosen_t].mean()),
                *optima(table, row_n, float(cost_n.mean())),
            )
        )
    return results


def optima(table: OutcomeTable, row_n: npt.NDArray[np.intp], cost: float) -> tuple[float, float]:
    """Mean quality of the best static mixture, and of the best for each task, at a mean cost of ``cost`` dollars."""
    tasks = np.array(table.tasks)[row_n]
    values = []
    for group_n in (np.zeros(len(row_n), dtype=np.intp), np.unique(tasks, return_inverse=True)[1]):
        weight_g = np.bincount(group_n).astype(float)
        quality_gk, cost_gk = (
            np.stack([np.bincount(group_n, value_nk[row_n, k]) for k in range(value_nk.shape[1])], axis=1)
            / weight_g[:, None]
            for value_nk in (table.quality_nk, table.cost_nk)
        )
        share_gk = best_shares(quality_gk, cost_gk, weight_g, cost)
        values.append(float((weight_g[:, None] * share_gk * quality_gk).sum() / weight_g.sum()))
    return values[0], values[1]


def _rows(results: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    for world, budget in dict.fromkeys((result.world, result.budget) for result in results):
        mine = [result for result in results if (result.world, result.budget) == (world, budget)]
        first, most, whole, quality, static, optimum = (
            np.array([getattr(result, name) for result in mine])
            for name in ("first", "most", "all", "quality", "static", "optimum")
        )
        gain, possible = quality - static, optimum - static
        way = "–"
        if possible.mean() > 0.005:
            half = 1.96 * gain.std(ddof=1) / len(mine) ** 0.5 / possible.mean() if len(mine) > 1 else np.nan
            way = f"{gain.mean() / possible.mean():.3f} ± {half:.3f}, {(gain / possible).min():.2f}"
        yield (
            world,
            budget,
            f"{first.mean():.3f}, {first.min():.3f}–{first.max():.3f}",
            f"{most.mean():.3f}, {most.max():.3f}",
            f"{whole.mean():.4f}, {whole.min():.4f}–{whole.max():.4f}",
            f"{quality.mean():.4f}",
            f"{gain.mean():+.4f}",
            way,
        )


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15_000)
    parser.add_argument("--only", default=",".join(WORLDS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    worlds = [name for name in args.only.split(",") if name != "val" or _has_val()]
    tasks = [(name, seed, args.rounds) for name in worlds for seed in range(args.seeds)]
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        results = [
            result
            for found in track(pool.map(play_seed, tasks), "runs", total=len(tasks), console=Console(stderr=True))
            for result in found
        ]
    shown = Table(title=f"Budgets per request, cold start, {args.rounds} requests, {args.seeds} seeds")
    for title in (
        "world",
        "budget",
        "1,000: mean, range",
        "from 1,000: mean, worst",
        "all: mean, range",
        "quality",
        "over static",
    ):
        shown.add_column(title)
    shown.add_column("way: mean, worst")
    for row in _rows(results):
        shown.add_row(*row)
    Console(width=150).print(shown)
    if args.json:
        args.json.write_text(json.dumps([asdict(result) for result in results]))


def _has_val() -> bool:
    try:
        load_table("paretobandit:val")
    except TableError:
        return False
    return True


if __name__ == "__main__":
    main()
