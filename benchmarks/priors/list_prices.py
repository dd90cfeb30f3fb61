"""What list prices that are not what is paid cost a bucket with a budget.

    python benchmarks/priors/list_prices.py [--seeds N] [--rounds N] [--only KIND] [--json FILE]

Three models, two tasks, a budget of .0020 dollars a request. Kinds: `true` (calls cost what the list says), `silent cut` and
`silent rise` (halfway the best model costs a quarter, or four times as much, and nobody says so), `announced cut`, `too low` and
`too high` (the best model costs twice, or half of, what its list says), `per thousand` (its list prices are a thousand times too
low).

Shown are mean quality, and what was spent over the budget, of the second half of the rounds: with list prices, and without any,
where costs are learned from what is reported alone.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pointsman.bandit.catalog import Mode, Objective
from pointsman.simulator.policies.registry import parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.run.replay import play_online
from pointsman.simulator.world.file import Scenario, read_scenario

BUDGET = 0.002
COSTS = {"small": 0.0002, "middle": 0.0015, "large": 0.0080}
LARGEST_SHARE = {"silent cut": 0.25, "silent rise": 4.0, "announced cut": 0.25}
"""By what the best model's calls are multiplied halfway."""
LISTED_SHARE = {"too low": 2.0, "too high": 0.5, "per thousand": 1000.0}
"""By what they are multiplied from the start; the list says what is paid at 1, for the last of them a thousandth of it."""
KINDS = ("true", *LARGEST_SHARE, *LISTED_SHARE)


def scenario(kind: str, rounds: int, priced: bool) -> Scenario:
    """A world of that kind. What the best model costs by list is that of ``COSTS``, but for `per thousand`."""
    change = {"kind": "price", "model": "large", "announced": kind == "announced cut"}
    changes = []
    if kind in LARGEST_SHARE:
        changes = [{**change, "factor": LARGEST_SHARE[kind], "start": rounds // 2}]
    elif kind in LISTED_SHARE:
        changes = [{**change, "factor": LISTED_SHARE[kind], "start": 0}]
    scale = 0.001 if kind == "per thousand" else 1.0
    world = {
        "rounds": rounds,
        "priced": priced,
        "models": {
            "small": {"quality": 0.62, "cost": COSTS["small"], "latency": 0.4},
            "middle": {"quality": 0.74, "cost": COSTS["middle"], "latency": 0.8},
            "large": {"quality": 0.88, "cost": COSTS["large"] * scale, "latency": 1.6},
        },
        "tasks": {
            "chat": {"share": 2, "tokens": 150, "quality": {"small": 0.80, "middle": 0.84}},
            "maths": {"share": 1, "tokens": 400, "quality": {"small": 0.30, "middle": 0.55}},
        },
        "changes": changes,
    }
    with TemporaryDirectory() as folder:
        path = Path(folder, "world.yaml")
        path.write_text(yaml.safe_dump(world))
        return read_scenario(path)


def second_half(played: Scenario, seed: int) -> tuple[float, float]:
    """Mean quality and spend over the budget after the middle."""
    run = Run(
        parse_policy("thompson"),
        Objective(Mode.QUALITY_FIRST),
        BUDGET,
        seed,
        played.delay,
        played.rounds,
        played.schedule,
    )
    replay = play_online(played.world, run)
    rows = np.arange(len(replay.chosen_t) // 2, len(replay.chosen_t))
    expected, chosen = replay.rounds.expected, replay.chosen_t[rows]
    return float(expected.quality_tk[rows, chosen].mean()), float(expected.cost_tk[rows, chosen].mean() / BUDGET)


def main() -> None:
    """Play all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--only", help="one kind of list price")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    arguments = parser.parse_args()
    kinds = [kind for kind in KINDS if arguments.only in (None, kind)]
    figures: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for kind in track(kinds, "list prices"):
        for name, priced in (("list", True), ("none", False)):
            played = scenario(kind, arguments.rounds, priced)
            pairs = [second_half(played, seed) for seed in range(arguments.seeds)]
            figures.setdefault(kind, {})[name] = pairs
    table = Table(title=f"After the middle of {arguments.rounds} rounds, {arguments.seeds} seeds")
    for column in ("list price", "prices", "quality ± 95 %", "worst", "spend / budget", "least", "most"):
        table.add_column(column, justify="left" if column in ("list price", "prices") else "right")
    for kind, by_name in figures.items():
        for name, pairs in by_name.items():
            quality_s, spend_s = np.array(pairs).T
            half = 1.96 * quality_s.std(ddof=1) / np.sqrt(len(quality_s)) if len(quality_s) > 1 else float("nan")
            numbers = (quality_s.min(), spend_s.mean(), spend_s.min(), spend_s.max())
            table.add_row(kind, name, f"{quality_s.mean():.4f} ± {half:.4f}", *(f"{number:.3f}" for number in numbers))
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
