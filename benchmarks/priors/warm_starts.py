"""What a warm start is worth, and what a wrong one costs: judges that differ, and tables that do not fit.

    python benchmarks/priors/warm_starts.py [--seeds N] [--rounds N] [--rows N] [--only KIND] [--json FILE]

Four models, ten features of which the quality depends (logistic), answers right or wrong. A warm start has `--rows` prompts with
every model's score. Kinds of judges: `right`; `offset` (scores .2 higher), `compressed` (.5 + .3·(q - .5)), `noisy` (± .3),
`family` (.25 more for two models), `exchanged` (the best and the worst model), `reversed` (1 - q); and tables: `lacks best`,
`lacks worst`, `extra models`, `other tasks` (features of which nothing is known here, and tasks that never come).

Shown is the expected regret over all rounds: without a warm start, with one that counts as all of its rows, with one of the
default mass, and with one of 30 observations for levels and effects alike.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pointsman.bandit.catalog import Mode, Objective
from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.policies.registry import parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.run.replay import play
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.world import DEFAULT_WARM_LEVEL, DEFAULT_WARM_MASS, make_world, order_of

Array = npt.NDArray[np.float64]
MODELS = ("m0", "m1", "m2", "m3")
DIM = 10
KINDS = (
    "right", "offset", "compressed", "noisy", "family", "exchanged", "reversed", "lacks best", "lacks worst",
    "extra models", "other tasks",
)  # fmt: skip
STARTS = ("cold", "all rows", "mass 30", "default")

MASSES = {
    "cold": (math.inf, math.inf),
    "all rows": (math.inf, math.inf),
    "mass 30": (30.0, 30.0),
    "default": (DEFAULT_WARM_MASS, DEFAULT_WARM_LEVEL),
}


def draw(seed: int, rounds: int, rows: int) -> tuple[OutcomeTable, Array, OutcomeTable]:
    """A table to route with its expected quality (n, k), and a right one to start from."""
    rng = np.random.default_rng([seed, 7])
    n, k = rounds + rows, len(MODELS)
    x_nd = rng.standard_normal((n, DIM)) / math.sqrt(DIM)
    effect_dk = rng.standard_normal((DIM, k))
    ability_k = rng.permutation(np.linspace(-0.6, 0.6, k)) + 0.3
    mean_nk = 1.0 / (1.0 + np.exp(-(ability_k + x_nd @ effect_dk)))
    quality_nk = (rng.random((n, k)) < mean_nk).astype(np.float64)
    table = OutcomeTable(
        name=f"world {seed}",
        sha256="",
        models=MODELS,
        prompt_ids=tuple(str(i) for i in range(n)),
        tasks=("all",) * n,
        texts=None,
        x_nd=x_nd,
        input_tokens_n=np.full(n, -1, dtype=np.int64),
        quality_nk=quality_nk,
        cost_nk=np.full((n, k), 0.001),
        latency_nk=np.ones((n, k)),
        output_tokens_nk=np.full((n, k), np.nan),
    )
    at = np.arange(n)
    return table.take(at[:rounds], table.name), mean_nk[:rounds], table.take(at[rounds:], f"{table.name}/warm")


def judged(warm: OutcomeTable, mean_nk: Array, kind: str, seed: int) -> OutcomeTable:
    """``warm`` as a judge of that kind would have made it."""
    rng = np.random.default_rng([seed, 8])
    quality_nk, (worst, *_, best) = warm.quality_nk.copy(), np.argsort(mean_nk.mean(axis=0)).tolist()
    if kind == "offset":
        quality_nk += 0.2
    elif kind == "compressed":
        quality_nk = 0.5 + 0.3 * (quality_nk - 0.5)
    elif kind == "noisy":
        quality_nk += 0.3 * rng.standard_normal(quality_nk.shape)
    elif kind == "family":
        quality_nk[:, :2] += 0.25
    elif kind == "exchanged":
        quality_nk[:, [worst, best]] = quality_nk[:, [best, worst]]
    elif kind == "reversed":
        quality_nk = 1.0 - quality_nk
    elif kind == "other tasks":
        return replace(
            warm, tasks=("another",) * len(warm), x_nd=rng.standard_normal((len(warm), DIM)) / math.sqrt(DIM)
        )
    elif kind.startswith("lacks"):
        lacking = best if kind == "lacks best" else worst
        return _with_columns(warm, [i for i in range(len(MODELS)) if i != lacking], ())
    elif kind == "extra models":
        return _with_columns(warm, [*range(len(MODELS)), best, worst], ("x0", "x1"))
    return replace(warm, quality_nk=np.clip(quality_nk, 0.0, 1.0))


def _with_columns(table: OutcomeTable, columns: list[int], names: tuple[str, ...]) -> OutcomeTable:
    kept = [MODELS[i] for i in columns][: len(columns) - len(names)]
    return replace(
        table,
        models=(*kept, *names),
        quality_nk=table.quality_nk[:, columns],
        cost_nk=table.cost_nk[:, columns],
        latency_nk=table.latency_nk[:, columns],
        output_tokens_nk=table.output_tokens_nk[:, columns],
    )


def regret(table: OutcomeTable, mean_nk: Array, warm: OutcomeTable | None, start: str, seed: int) -> float:
    """Expected regret over all rounds with one of ``STARTS``."""
    mass, level = MASSES[start]
    world = make_world(
        table, Features("x", "one"), warm=None if start == "cold" else warm, warm_mass=mass, warm_level=level
    )
    share_nk = play(world, Run(parse_policy("thompson"), Objective(Mode.QUALITY_FIRST), None, seed))
    assert len(order_of(world, seed)) == len(mean_nk)
    return float((mean_nk.max(axis=1) - (share_nk * mean_nk).sum(axis=1)).sum())


def main() -> None:
    """Play all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=800)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--only", help="one kind of warm start")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    arguments = parser.parse_args()
    kinds = [kind for kind in KINDS if arguments.only in (None, kind)]
    figures: dict[str, dict[str, list[float]]] = {kind: {start: [] for start in STARTS} for kind in kinds}
    for seed in track(range(arguments.seeds), "seeds"):
        table, mean_nk, right = draw(seed, arguments.rounds, arguments.rows)
        cold = regret(table, mean_nk, None, "cold", seed)
        for kind in kinds:
            warm = judged(right, mean_nk, kind, seed)
            figures[kind]["cold"].append(cold)
            for start in STARTS[1:]:
                figures[kind][start].append(regret(table, mean_nk, warm, start, seed))
    shown = Table(title=f"Expected regret over {arguments.rounds} rounds, {arguments.seeds} seeds")
    for column in (
        "warm start",
        "cold",
        "all rows",
        "worst",
        "mass 30",
        "worst",
        "default",
        "worst",
        "default - cold ± 95 %",
    ):
        shown.add_column(column, justify="left" if column == "warm start" else "right")
    for kind, by_start in figures.items():
        cold_s, all_s, thirty_s, default_s = (np.array(by_start[start]) for start in STARTS)
        gain_s = default_s - cold_s
        half = 1.96 * gain_s.std(ddof=1) / math.sqrt(len(gain_s)) if len(gain_s) > 1 else math.nan
        numbers = [cold_s.mean()] + [
            f(values_s) for values_s in (all_s, thirty_s, default_s) for f in (np.mean, np.max)
        ]
        shown.add_row(kind, *(f"{number:.1f}" for number in numbers), f"{gain_s.mean():+.1f} ± {half:.1f}")
    Console().print(shown)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
