"""What mixtures do to choices: of a model whose amounts have a shape, and one whose amounts are always the same.

    python benchmarks/shapes/regret.py [--seeds N] [--rounds N] [--only NAME]

Calls of the shaped model come to 10 millidollars and a second on average. In the first five columns it is the better one
(quality .9 against .7) and the other's calls come to 1.3 times as much: every rule should choose it, also within a budget of
1.1 and under a limit of 1.15 times its mean cost. In the last two both are equally good and the other's calls come to .7
times as much. Shown are the requests, of each hundred, that went to the wrong one: mean over seeds ± standard error, worst
seed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
from play import Play, context_of, schema_of
from rich.console import Console
from rich.progress import track
from rich.table import Table
from shapes import SHAPES, Shape

from pointsman.bandit.catalog import Bucket, Budget, Mode, Model, Objective
from pointsman.bandit.limits import NO_LIMITS, Limits
from pointsman.bandit.outcome import Signal

COST, LATENCY = 0.01, 1.0
"""Dollars and seconds of the shaped model's calls, on average."""
CHEAP = Objective(Mode.COST_FIRST, max_quality_loss=0.05)
FAST = Objective(Mode.LATENCY_FIRST, max_quality_loss=0.05)
LIMITED = Limits(max_cost=1.15 * COST, allow_least_violating=True)
Rule = tuple[Objective, Budget | None, Limits, bool]
RULES: dict[str, Rule] = {
    "BALANCED": (Objective(Mode.BALANCED), None, NO_LIMITS, True),
    "COST_FIRST": (CHEAP, None, NO_LIMITS, True),
    "LATENCY_FIRST": (FAST, None, NO_LIMITS, True),
    "budget": (Objective(Mode.QUALITY_FIRST), Budget(1.1 * COST), NO_LIMITS, True),
    "limit": (Objective(Mode.QUALITY_FIRST), None, LIMITED, True),
    "COST_FIRST, other cheaper": (CHEAP, None, NO_LIMITS, False),
    "LATENCY_FIRST, other faster": (FAST, None, NO_LIMITS, False),
}
"""Objective, budget, limits, and whether the shaped model is the one to choose, by column."""


def wrong(shape: Shape, rule: Rule, seed: int, rounds: int) -> float:
    """Requests of each hundred that went to the wrong model."""
    objective, budget, limits, shaped_is_best = rule
    bucket = Bucket("b", schema=schema_of(shape), objective=objective, budget=budget)
    play, rng = Play([Model("other"), Model("shaped")], bucket, seed), np.random.default_rng(1000 + seed)
    mean = _mean(shape.mean, shape.contexts)
    mistakes = 0
    for _ in range(rounds):
        z = float(rng.uniform(-1, 1))
        decision = play.decide(context_of(shape, z), limits)
        play.fold(decision)
        shaped = decision.models[decision.chosen] == "shaped"
        mistakes += shaped != shaped_is_best
        amount = (
            shape.draw(rng, z, 0.5) / mean if shaped else (1.3 if shaped_is_best else 0.7) * shape.mean(z, 0.5) / mean
        )
        level = (0.9 if shaped else 0.7) if shaped_is_best else 0.8
        quality = float(np.clip(level + 0.1 * rng.normal(), 0.0, 1.0))
        play.report(decision, {Signal.QUALITY: quality, Signal.COST: COST * amount, Signal.LATENCY: LATENCY * amount})
    return 100.0 * mistakes / rounds


def _mean(mean: Callable[[float, float], float], contexts: bool) -> float:
    return float(np.mean([mean(z, 0.5) for z in np.linspace(-1, 1, 400)])) if contexts else mean(0.0, 0.5)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    table = Table("shape", *RULES, title=f"wrong choices in a hundred, {args.seeds} seeds, {args.rounds} rounds")
    for name, shape in track(list(SHAPES.items()), description="shapes"):
        if args.only in name:
            cells = []
            for rule in RULES.values():
                wrong_s = np.array([wrong(shape, rule, seed, args.rounds) for seed in range(args.seeds)])
                error = wrong_s.std(ddof=1) / np.sqrt(args.seeds)
                cells.append(f"{wrong_s.mean():.1f} ± {error:.1f}, {wrong_s.max():.0f}")
            table.add_row(name, *cells)
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
