"""Does an unlucky start decide for ever under a quality floor? Spend against the cheapest model that is good enough.

    python benchmarks/trials/unlucky.py [--seeds N] [--rounds N] [--only NAME|NAME] [--processes N]

Answers are right or wrong with a model's mean quality. Price is what was spent over what the cheapest model that truly clears the
floor costs (under LATENCY_FIRST seconds); shortfall the sum of how far choices' mean quality lay under the floor.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import kit
import numpy as np
from rich.console import Console
from rich.table import Table

from pointsman.bandit.catalog import Bucket, Mode, NumberFeature, Objective, Schema
from pointsman.bandit.encoder import Context
from pointsman.bandit.outcome import Signal

COST_FIRST = Objective(Mode.COST_FIRST, max_quality_loss=0.02)


@dataclass(frozen=True, slots=True)
class Case:
    """Models by mean quality and price (dollars, or seconds under LATENCY_FIRST); ``effect`` is how much each of four features
    shifts the quality of all models alike, ``buckets`` how many share the rounds.
    """

    name: str
    quality_k: tuple[float, ...] = (0.8, 0.8)
    price_k: tuple[float, ...] = (0.00045, 0.0075)
    objective: Objective = COST_FIRST
    effect: float = 0.0
    buckets: int = 1
    rounds: int = 1500


def cases() -> Iterator[Case]:
    """Equal models, gaps, floors, and the same with latency, features, buckets."""
    yield Case("equal, 2 models")
    yield Case("equal, 3 models, middling", (0.5,) * 3, (1e-4, 1e-3, 1e-2))
    yield Case("equal, 8 models", (0.8,) * 8, tuple((1e-4 * 30 ** np.linspace(0, 1, 8)).tolist()))
    for gap in (0.01, 0.03, 0.05, 0.1, 0.3):
        yield Case(f"cheap one worse by {gap:g}", (0.8 - gap, 0.8))
    yield Case("middle one will do", (0.6, 0.85, 0.86), (1e-4, 1e-3, 1e-2))
    yield Case(
        "8 mixed", (0.5, 0.6, 0.7, 0.75, 0.8, 0.79, 0.85, 0.84), tuple((1e-4 * 30 ** np.linspace(0, 1, 8)).tolist())
    )
    for floor in (0.7, 0.78, 0.95):
        yield Case(f"absolute floor {floor:g}", objective=Objective(Mode.COST_FIRST, min_quality=floor))
    yield Case(
        "absolute floor 0.75, cheap one under it", (0.7, 0.8), objective=Objective(Mode.COST_FIRST, min_quality=0.75)
    )
    yield Case("free model", price_k=(0.0, 0.0075))
    yield Case("latency first", price_k=(0.2, 3.0), objective=Objective(Mode.LATENCY_FIRST, max_quality_loss=0.02))
    yield Case("features", effect=0.1)
    yield Case("8 buckets", buckets=8)


def run(job: tuple[Case, int]) -> tuple[float, float]:
    """Price ratio and shortfall of one seed."""
    case, seed = job
    rng = np.random.default_rng([seed, 2])
    k = len(case.quality_k)
    names = [f"m{i}" for i in range(k)]
    numbers = tuple(NumberFeature(f"x{i}") for i in range(4)) if case.effect else ()
    ids = [f"b{i}" for i in range(case.buckets)]
    buckets = [Bucket(id_, schema=Schema(numbers=numbers), objective=case.objective) for id_ in ids]
    service = kit.Service(names, buckets, seed)
    signal = Signal.LATENCY if case.objective.mode is Mode.LATENCY_FIRST else Signal.COST
    spent = cheapest = shortfall = 0.0
    for t in range(case.rounds):
        now_ns = (t + 1) * kit.SECOND
        value_x = rng.uniform(-1.0, 1.0, 4)
        quality_k = np.clip(np.array(case.quality_k) + case.effect * value_x.sum(), 0.0, 1.0)
        context = Context({f"x{i}": float(value_x[i]) for i in range(4)} if case.effect else {})
        decision = service.decide(ids[t % case.buckets], now_ns, context)
        chosen = names.index(decision.models[decision.chosen])
        floor = quality_k.max() - (case.objective.max_quality_loss or 0.0)
        if case.objective.min_quality is not None:
            floor = min(case.objective.min_quality, quality_k.max())
        good = float(rng.random() < quality_k[chosen])
        price = case.price_k[chosen] * float(np.exp(0.1 * rng.standard_normal() - 0.005))
        service.report(decision, now_ns, now_ns, {Signal.QUALITY: good, signal: price})
        spent += case.price_k[chosen]
        cheapest += min(price for price, q in zip(case.price_k, quality_k, strict=True) if q >= floor - 1e-9)
        shortfall += max(0.0, floor - quality_k[chosen])
    least = cheapest or case.rounds * 1e-3 * max(
        case.price_k
    )  # a free model: against a thousandth of the other's price
    return spent / least, shortfall


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=1500)
    parser.add_argument("--only", default="")
    parser.add_argument("--processes", type=int)
    options = parser.parse_args()
    table = Table(title=f"{options.rounds} rounds, {options.seeds} seeds: mean ± 95 % interval (worst seed)")
    for title in ("case", "price / cheapest that will do", "shortfall"):
        table.add_column(title, justify="left" if title == "case" else "right")
    for case in cases():
        if any(part in case.name for part in options.only.split("|")):
            jobs = replace(case, rounds=options.rounds), options.seeds, options.processes
            ratio_shortfall: Any = kit.over_seeds(run, *jobs)
            table.add_row(
                case.name, kit.mean_and_worst(ratio_shortfall[:, 0]), kit.mean_and_worst(ratio_shortfall[:, 1], 1)
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
