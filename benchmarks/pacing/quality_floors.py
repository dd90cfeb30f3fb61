"""Is a floor on mean quality kept, and at what cost? Synthetic worlds, against the cheapest choices in hindsight that keep it.

    python benchmarks/pacing/quality_floors.py [--seeds N] [--rounds N]

Each seed draws abilities of the models by task and by feature, and prices; dearer models tend to be better. The floor lies a
third or two thirds of the way from the cheapest model's mean quality to that of the best model. Per world and floor: mean quality
less the floor, over all rounds and over the second half (mean and worst seed); cost in multiples of that of the cheapest static
mix and of the cheapest split of each task that keep the floor, known in hindsight; and the same of the nearest rule that needs
no pacing, the floor on every request.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pointsman.bandit.catalog import Mode, Objective
from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.policies.hindsight import grouped_optimum
from pointsman.simulator.policies.registry import parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.run.replay import play
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.world import make_world

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of world. ``spread`` is the dearest over the cheapest cost, ``delay`` the rounds until an outcome is known."""

    name: str
    models: int = 3
    tasks: int = 8
    spread: float = 30.0
    dim: int = 0
    graded: bool = False
    delay: int = 0


CASES = (
    Case("base"),
    Case("two models", models=2),
    Case("eight models", models=8, spread=1000.0),
    Case("one task", tasks=1),
    Case("features", dim=16),
    Case("graded", graded=True),
    Case("200 rounds late", delay=200),
)
LEVELS = (1 / 3, 2 / 3)


def draw(case: Case, seed: int, rounds: int) -> tuple[OutcomeTable, Array]:
    """A table, and the expected quality and cost of each of its cells, (2, n, k)."""
    rng = np.random.default_rng(seed)
    price_k = np.linspace(0.0, 1.0, case.models)
    ability_tk = 0.2 + 1.4 * price_k + 0.8 * rng.standard_normal((case.tasks, 1))
    ability_tk = ability_tk + 0.5 * rng.standard_normal((case.tasks, case.models))
    task_n = rng.integers(0, case.tasks, rounds)
    x_nd = rng.standard_normal((rounds, case.dim))
    logit_nk = ability_tk[task_n]
    if case.dim:
        logit_nk = logit_nk + x_nd[:, :4] @ rng.normal(0.0, 0.5, (4, case.models))
    quality_nk = 1.0 / (1.0 + np.exp(-logit_nk))
    if case.graded:
        drawn_nk = rng.beta(8.0 * quality_nk, 8.0 * (1.0 - quality_nk))
    else:
        drawn_nk = (rng.random(quality_nk.shape) < quality_nk).astype(np.float64)
    cost_nk = 1e-4 * case.spread**price_k * np.exp(0.3 * rng.standard_normal((case.tasks, 1)))[task_n]
    table = OutcomeTable(
        name=f"{case.name}/{seed}",
        sha256="",
        models=tuple(f"m{i}" for i in range(case.models)),
        prompt_ids=tuple(str(i) for i in range(rounds)),
        tasks=tuple(f"t{i}" for i in task_n),
        texts=None,
        x_nd=x_nd if case.dim else None,
        input_tokens_n=np.full(rounds, -1, dtype=np.int64),
        quality_nk=drawn_nk,
        cost_nk=cost_nk * np.exp(0.4 * rng.standard_normal(cost_nk.shape) - 0.08),
        latency_nk=np.full(cost_nk.shape, np.nan),
        output_tokens_nk=np.full(cost_nk.shape, np.nan),
    )
    return table, np.stack([quality_nk, cost_nk])


def run(job: tuple[Case, float, int, int]) -> dict[str, Any]:
    """Both rules in the world of one seed, and the optima."""
    case, level, seed, rounds = job
    table, (quality_nk, cost_nk) = draw(case, seed, rounds)
    mean_k = quality_nk.mean(axis=0)
    floor = float(mean_k[0] + level * (mean_k.max() - mean_k[0]))
    world = make_world(table, Features("x" if case.dim else "none", "one"))
    row: dict[str, Any] = {"case": case.name, "level": level}
    for rule, objective in (
        ("mean", Objective(Mode.COST_FIRST, min_mean_quality=floor)),
        ("request", Objective(Mode.COST_FIRST, min_quality=floor)),
    ):
        share_nk = play(world, Run(parse_policy("thompson"), objective, None, seed, case.delay))
        quality_n = (share_nk * quality_nk).sum(axis=1)
        row[f"{rule}_quality"] = float(quality_n.mean()) - floor
        row[f"{rule}_later"] = float(quality_n[rounds // 2 :].mean()) - floor
        row[f"{rule}_cost"] = float((share_nk * cost_nk).sum(axis=1).mean())
    for name, group_n in (("static", np.zeros(rounds, dtype=np.intp)), ("task", world.task_n)):
        row[name] = float((grouped_optimum(-cost_nk, -quality_nk, group_n, -floor) * cost_nk).sum(axis=1).mean())
    return row


def mean_and_error(value_s: Array) -> str:
    """Mean and 95 % interval over seeds."""
    error = 1.96 * float(value_s.std(ddof=1)) / np.sqrt(len(value_s)) if len(value_s) > 1 else float("nan")
    return f"{value_s.mean():+.3f} ± {error:.3f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3000)
    settings = parser.parse_args()
    jobs = [
        (case, level, seed, settings.rounds) for case in CASES for level in LEVELS for seed in range(settings.seeds)
    ]
    console = Console()
    with ProcessPoolExecutor() as pool:
        rows = list(track(pool.map(run, jobs), total=len(jobs), console=console, description="worlds"))
    shown = Table(title="mean quality less its floor; cost over that of the cheapest choice in hindsight that keeps it")
    for heading in ("world", "floor at", "quality - floor", "worst", "2nd half", "cost / static", "cost / per task"):
        shown.add_column(heading)
    shown.add_column("floor on each request: quality", justify="right")
    shown.add_column("its cost / static", justify="right")
    for case in CASES:
        for level in LEVELS:
            some = [row for row in rows if (row["case"], row["level"]) == (case.name, level)]
            column = {name: np.array([row[name] for row in some]) for name in some[0] if name != "case"}
            shown.add_row(
                case.name,
                f"{level:.2f}",
                mean_and_error(column["mean_quality"]),
                f"{column['mean_quality'].min():+.3f}",
                mean_and_error(column["mean_later"]),
                f"{(column['mean_cost'] / column['static']).mean():.2f}",
                f"{(column['mean_cost'] / column['task']).mean():.2f}",
                mean_and_error(column["request_quality"]),
                f"{(column['request_cost'] / column['static']).mean():.2f}",
            )
    console.print(shown)


if __name__ == "__main__":
    main()
