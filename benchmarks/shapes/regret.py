"""What mixtures do to choices: of a model whose amounts have a shape, and one whose amounts are always the same.

    python benchmarks/shapes/regret.py [--seeds N] [--rounds N] [--only NAME]

Calls of the shaped model come to 10 millidollars and a second on average. In the first six columns it is the better one
(quality .9 against .7) and the other's calls come to 1.3 times as much: every rule should choose it, also within a budget of
1.1, and under a limit of 1.15 times its mean cost or 95th percentile of latency. Next it comes to 1.3 times the limit, so that
the other is the one to choose, though it is worse (where amounts depend on the context: in contexts in which it is over the
limit). In the last two both are equally good and the other's calls come to .7 times as much. Shown are the requests, of each
hundred, that went to the wrong one: mean over seeds ± standard error, worst seed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import NamedTuple

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
BEST = Objective(Mode.QUALITY_FIRST)
LIMITED = Limits(max_cost=1.15 * COST, allow_least_violating=True)
OVER = Limits(max_cost=COST / 1.3, allow_least_violating=True)


class Rule(NamedTuple):
    """What is tried: whether the shaped model is the one to choose, and whether it is the better one. ``p95`` limits that of
    latency to so many times the shaped model's.
    """

    objective: Objective
    budget: Budget | None = None
    limits: Limits = NO_LIMITS
    shaped_is_best: bool = True
    shaped_is_better: bool = True
    p95: float = 0.0


RULES: dict[str, Rule] = {
    "BALANCED": Rule(Objective(Mode.BALANCED)),
    "COST_FIRST": Rule(CHEAP),
    "LATENCY_FIRST": Rule(FAST),
    "budget": Rule(BEST, Budget(1.1 * COST)),
    "limit": Rule(BEST, limits=LIMITED),
    "p95 limit": Rule(BEST, p95=1.15),
    "over a limit": Rule(BEST, limits=OVER, shaped_is_best=False),
    "COST_FIRST, other cheaper": Rule(CHEAP, shaped_is_best=False, shaped_is_better=False),
    "LATENCY_FIRST, other faster": Rule(FAST, shaped_is_best=False, shaped_is_better=False),
}


def wrong(shape: Shape, rule: Rule, seed: int, rounds: int) -> float:
    """Requests of each hundred that went to the wrong model."""
    bucket = Bucket("b", schema=schema_of(shape), objective=rule.objective, budget=rule.budget)
    play, rng = Play([Model("other"), Model("shaped")], bucket, seed), np.random.default_rng(1000 + seed)
    mean = _mean(shape.mean, shape.contexts)
    limits = rule.limits
    if rule.p95:
        most = rule.p95 * LATENCY * max(shape.p95(z, 0.5) for z in (-1.0, 0.0, 1.0)) / mean
        limits = Limits(max_latency=most, latency_p95=True, allow_least_violating=True)
    mistakes = 0
    for _ in range(rounds):
        z = float(rng.uniform(-1, 1))
        decision = play.decide(context_of(shape, z), limits)
        play.fold(decision)
        shaped = decision.models[decision.chosen] == "shaped"
        within = limits is OVER and COST * shape.mean(z, 0.5) / mean <= COST / 1.3
        mistakes += shaped != (rule.shaped_is_best or within)
        relative = 1.3 if rule.shaped_is_best else 0.7
        amount = shape.draw(rng, z, 0.5) / mean if shaped else relative * shape.mean(z, 0.5) / mean
        level = (0.9 if shaped else 0.7) if rule.shaped_is_better else 0.8
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
    parser.add_argument("--only", default="", help="part of the names of shapes")
    parser.add_argument("--rules", default="", help="parts of the names of columns, by |")
    args = parser.parse_args()
    rules = {name: rule for name, rule in RULES.items() if any(part in name for part in args.rules.split("|"))}
    table = Table("shape", *rules, title=f"wrong choices in a hundred, {args.seeds} seeds, {args.rounds} rounds")
    for name, shape in track(list(SHAPES.items()), description="shapes"):
        if args.only in name:
            cells = []
            for rule in rules.values():
                wrong_s = np.array([wrong(shape, rule, seed, args.rounds) for seed in range(args.seeds)])
                error = wrong_s.std(ddof=1) / np.sqrt(args.seeds)
                cells.append(f"{wrong_s.mean():.1f} ± {error:.1f}, {wrong_s.max():.0f}")
            table.add_row(name, *cells)
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
