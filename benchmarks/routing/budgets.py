"""Quality at seven budgets on real prompts, warm-started and cold, against the published figures and hindsight.

    python benchmarks/routing/budgets.py [--seeds N] [--features none,text] [--x-from FILE.npz] [--out DIR]

Routes the 1,824 prompts of `paretobandit:test_holdout` among its three models under QUALITY_FIRST with a budget per request, each
seed in its own random order; the warm start is every outcome of `paretobandit:val`. The task is a category of the context;
`--features` says what else is seen. Published: the ParetoBandit paper's repository, K = 3, 20 seeds. LP: the best mixture of
models for each task in hindsight. Everything was tuned on `val` only.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bandit.catalog import Mode, Objective
from simulator.experiment import run_all
from simulator.replay import Features, Run, make_world
from simulator.table import load_table, with_features

BUDGETS = (2.9e-5, 8.3e-5, 2.3e-4, 6.6e-4, 1.9e-3, 5.3e-3, 1.5e-2)
PUBLISHED = (0.793, 0.813, 0.859, 0.898, 0.917, 0.924, 0.929)
BAR_WARM = (0.793, 0.829, 0.8755, 0.9235, 0.927, 0.9325, 0.937)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--features", default="none,text")
    parser.add_argument("--x-from", help="FILE.npz with arrays `val` and `test_holdout`: adds the features `x`")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/routing/results"))
    arguments = parser.parse_args()
    warm, table = load_table("paretobandit:val"), load_table("paretobandit:test_holdout")
    kinds = arguments.features.split(",")
    if arguments.x_from:
        warm = with_features(warm, f"{arguments.x_from}:val")
        table = with_features(table, f"{arguments.x_from}:test_holdout")
        kinds.append("x")
    objective = Objective(Mode.QUALITY_FIRST)
    rows = []
    for start in ("warm", "cold"):
        for kind in kinds:
            world = make_world(table, Features(kind, "one"), warm=warm if start == "warm" else None)
            runs = [
                (objective.mode.value, Run("thompson", objective, budget, seed))
                for budget in BUDGETS
                for seed in range(arguments.seeds)
            ]
            results = run_all(world, runs, os.cpu_count() or 1)
            for i, budget in enumerate(BUDGETS):
                mine = results[i * arguments.seeds : (i + 1) * arguments.seeds]
                quality_s = np.array([r.row["mean_quality"] for r in mine])
                spend_s = np.array([r.row["spend_ratio"] for r in mine], dtype=np.float64)
                low, high = interval(quality_s)
                rows.append(
                    {
                        "start": start,
                        "features": kind,
                        "budget": budget,
                        "quality": quality_s.mean(),
                        "low": low,
                        "high": high,
                        "spend_ratio": spend_s.mean(),
                        "largest_spend_ratio": spend_s.max(),
                        "published": PUBLISHED[i],
                        "bar": BAR_WARM[i] if start == "warm" else PUBLISHED[i],
                    }
                )
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / "budgets.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    sheet = Table(title=f"mean quality on {len(table)} prompts, {arguments.seeds} seeds (95 % bootstrap interval)")
    for title in ("start", "features", "budget", "quality", "interval", "spend/B", "largest", "published", "bar"):
        sheet.add_column(title, justify="left" if title in ("start", "features") else "right")
    for row in rows:
        met = "green" if row["quality"] >= row["bar"] else ""
        sheet.add_row(
            row["start"], row["features"], f"{row['budget']:g}", f"{row['quality']:.4f}",
            f"{row['low']:.4f} – {row['high']:.4f}", f"{row['spend_ratio']:.3f}", f"{row['largest_spend_ratio']:.3f}",
            f"{row['published']:.3f}", f"{row['bar']:.4f}", style=met,
        )  # fmt: skip
    Console(width=110).print(sheet)


def interval(values_s: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean."""
    rng = np.random.default_rng(0)
    means = rng.choice(values_s, size=(10_000, len(values_s))).mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


if __name__ == "__main__":
    main()
