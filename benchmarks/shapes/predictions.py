"""What is predicted of cost and latency over what is true, by shape and number of outcomes: mean over seeds [5 %, 95 %], worst.

    python benchmarks/shapes/predictions.py [--seeds N] [--ahead N] [--only NAME]

One model answers; ``--ahead`` decisions are made before their outcomes are reported. Where contexts differ, ratios are geometric
means over five of them. The mean is that of cost; latency's is alike.
"""

from __future__ import annotations

import argparse
import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import numpy.typing as npt
from play import Play, context_of, schema_of
from rich.console import Console
from rich.progress import track
from rich.table import Table
from shapes import SHAPES, Shape

from pointsman.bandit.catalog import Bucket, Model
from pointsman.bandit.outcome import Signal

AFTER = (10, 100, 300, 1000)
MILLI = 1e-3
"""Dollars a second: costs are a thousandth of latencies."""
PLACES = (-0.9, -0.3, 0.3, 0.9, 0.99)
"""Contexts at which predictions are compared."""


def ratios(shape: Shape, seed: int, ahead: int) -> dict[int, npt.NDArray[np.float64]]:
    """Predicted over true mean of cost, and 95th percentile of latency, (2), after so many outcomes."""
    play = Play([Model("m")], Bucket("b", schema=schema_of(shape)), seed)
    rng, waiting, by_count = np.random.default_rng(1000 + seed), [], {}
    for n in range(1, AFTER[-1] + 1):
        z, t = float(rng.uniform(-1, 1)), n / AFTER[-1]
        decision = play.decide(context_of(shape, z))
        play.fold(decision)
        amount = shape.draw(rng, z, t)
        waiting.append((decision, {Signal.QUALITY: 0.5, Signal.COST: MILLI * amount, Signal.LATENCY: amount}))
        if len(waiting) == ahead or n in AFTER:
            for earlier, report in waiting:
                play.report(earlier, report)
            waiting = []
        if n in AFTER:
            by_count[n] = _compare(play, shape, t)
    return by_count


def _compare(play: Play, shape: Shape, t: float) -> npt.NDArray[np.float64]:
    rows = []
    for z in PLACES if shape.contexts else (0.0,):
        predicted = play.decide(context_of(shape, z)).predicted
        mean = predicted.cost_k[0] / MILLI / shape.mean(z, t)
        rows.append((mean, predicted.latency_p95_k[0] / shape.p95(z, t)))
    return np.asarray(np.exp(np.log(rows).mean(axis=0)))


def cell(ratio_s: npt.NDArray[np.float64]) -> str:
    """Mean over seeds, interval, and the seed that is furthest off."""
    low, high = np.quantile(ratio_s, (0.05, 0.95))
    worst = ratio_s[np.abs(np.log(ratio_s)).argmax()]
    return f"{np.exp(np.log(ratio_s).mean()):.2f} [{low:.2f}, {high:.2f}] {worst:.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--ahead", type=int, default=1)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    table = Table("shape", "of", *(f"{n} outcomes" for n in AFTER), title=f"predicted / true, {args.seeds} seeds")
    for name, shape in track(list(SHAPES.items()), description="shapes"):
        if args.only in name:
            played = [ratios(shape, seed, args.ahead) for seed in range(args.seeds)]
            for row, of in enumerate(("mean", "p95")):
                table.add_row(name, of, *(cell(np.array([by_count[n][row] for by_count in played])) for n in AFTER))
    Console(width=180).print(table)


if __name__ == "__main__":
    main()
