"""Budgets per day under demand with a rhythm: is a day's money spent, and does noon get as much of it as midnight?

    python benchmarks/pacing/rhythms.py [--seeds N] [--days N] [--per-day N] [--only RHYTHM[,RHYTHM]] [--json FILE]

Eight tasks and two models at 1 : 20; the large one is better by 0 to .3, by task. Every request costs and answers at once. The
budget buys 30 % large calls at even demand. Rhythms: flat; ten times the demand from eight to eight; the same with a quiet
weekend; the same, moved by eight hours at half time; the same, doubled at noon at half time; the same, with nothing for six
hours at half time. What comes in an hour is Poisson.

The first day of a budget knows no past and is shown apart. `left`: 1 - spend / budget of a day. `night / day`: dollars a request
before six over those from eight to eight.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pointsman.bandit.catalog import Bucket, Budget, CategoryFeature, Mode, Model, Objective, Schema
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Context
from pointsman.bandit.event import BucketPut, Event, ModelPut, Record
from pointsman.bandit.join import join
from pointsman.bandit.outcome import Signal
from pointsman.bandit.state import State, active_budgets, fold

HOUR_NS = 3_600_000_000_000
MODELS, COST = ("small", "large"), {"small": 1e-3, "large": 2e-2}
SHARE = 0.3
"""Share of large calls that the budget buys at even demand."""
TASKS = 8
NIGHT, DAY = range(6), range(8, 20)
"""Hours."""


def _tenfold(hour: int) -> float:
    return 10.0 if hour % 24 in DAY else 1.0


RHYTHMS: dict[str, Callable[[int, int], float]] = {
    "flat": lambda hour, half: 1.0,
    "tenfold": lambda hour, half: _tenfold(hour),
    "weekend": lambda hour, half: _tenfold(hour) * (0.3 if hour // 24 % 7 in (2, 3) else 1.0),
    "moved": lambda hour, half: _tenfold(hour if hour < half else hour + 8),
    "doubled": lambda hour, half: _tenfold(hour) * (2.0 if hour >= half + 12 else 1.0),
    "stopped": lambda hour, half: 0.0 if half + 10 <= hour < half + 16 else _tenfold(hour),
}
"""Demand of an hour since Thursday, 1970-01-01; ``half`` is the hour at half time."""


@dataclass(frozen=True, slots=True)
class DayResult:
    """One day of one run: requests, spend over budget, expected quality a request, dollars a request by night and by day (NaN
    without requests).
    """

    rhythm: str
    seed: int
    day: int
    requests: int
    spend: float
    quality: float
    by_night: float
    by_day: float


class Service:
    """A state with one bucket and its day's budget."""

    def __init__(self, budget: Budget, seed: int) -> None:
        self.state, self.rng = State(), np.random.default_rng(seed)
        self._ids = 0
        schema = Schema(categories=(CategoryFeature("task", tuple(f"t{task}" for task in range(TASKS))),))
        for model in MODELS:
            self.put(0, ModelPut(Model(model)))
        self.put(0, BucketPut(Bucket("b", schema=schema, objective=Objective(Mode.QUALITY_FIRST), budget=budget)))

    def put(self, now_ns: int, event: Event) -> None:
        """Fold an event."""
        fold((Record(self.state.position + 1, now_ns, event),), self.state)

    def request(self, now_ns: int, task: int, quality_tk: dict[str, np.ndarray]) -> tuple[float, float]:  # type: ignore[type-arg]
        """Decide and report; dollars and expected quality."""
        bucket = self.state.buckets["b"]
        self._ids += 1
        (decision,) = decide(
            bucket,
            [bucket.encoder.encode(Context(categories={"task": f"t{task}"}))],
            [self._ids.to_bytes(16, "big")],
            self.rng,
            health={},
            now_ns=now_ns,
            state_position=self.state.position,
            active_budgets=active_budgets(self.state, bucket),
            with_propensity=False,
        )
        self.put(now_ns, decision)
        model = decision.models[decision.chosen]
        expected, cost = float(quality_tk[model][task]), COST[model] * float(np.exp(0.3 * self.rng.normal() - 0.045))
        right = float(self.rng.random() < expected)
        self.put(now_ns, join(bucket, decision, now_ns, {Signal.QUALITY: right, Signal.COST: cost}))
        return cost, expected


def play(task: tuple[str, int, int, int]) -> list[DayResult]:
    """One rhythm and seed."""
    rhythm, seed, days, per_day = task
    rng = np.random.default_rng(3000 + seed)
    large_t = rng.uniform(0.6, 0.95, TASKS)
    quality_tk = {"large": large_t, "small": large_t - np.linspace(0.0, 0.3, TASKS)}
    demand_h = np.array([RHYTHMS[rhythm](hour, days // 2 * 24) for hour in range(days * 24)])
    demand_h *= per_day / demand_h[:24].sum()
    amount = per_day * (SHARE * COST["large"] + (1.0 - SHARE) * COST["small"])
    service, results = Service(Budget(amount, 24 * HOUR_NS), seed), []
    for day in range(days):
        spent_h, count_h, quality = np.zeros(24), np.zeros(24), 0.0
        for hour in range(24):
            count_h[hour] = rng.poisson(demand_h[24 * day + hour])
            for moment in np.sort(rng.random(int(count_h[hour]))):
                now_ns = (24 * day + hour) * HOUR_NS + int(moment * HOUR_NS)
                cost, expected = service.request(now_ns, int(rng.integers(TASKS)), quality_tk)
                spent_h[hour] += cost
                quality += expected
        by_night, by_day = (
            float(spent_h[list(hours)].sum() / n) if (n := count_h[list(hours)].sum()) else float("nan")
            for hours in (NIGHT, DAY)
        )
        requests = int(count_h.sum())
        results.append(
            DayResult(
                rhythm, seed, day, requests, float(spent_h.sum()) / amount, quality / max(requests, 1), by_night, by_day
            )
        )
    return results


def _row(results: Sequence[DayResult], first: bool) -> tuple[str, ...]:
    mine = [result for result in results if (result.day == 0) == first]
    spend = np.array([result.spend for result in mine])
    quality = np.array([result.quality for result in mine])
    ratio = np.array([result.by_night / result.by_day for result in mine])
    return (
        results[0].rhythm,
        "first" if first else "later",
        f"{quality.mean():.4f} ± {1.96 * quality.std() / len(quality) ** 0.5:.4f}",
        f"{1.0 - spend.mean():+.3f}",
        f"{(1.0 - spend).min():+.3f} to {(1.0 - spend).max():+.3f}",
        f"{np.nanmedian(ratio):.2f}, {np.nanmin(ratio):.2f} to {np.nanmax(ratio):.2f}",
    )


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--days", type=int, default=8)
    parser.add_argument("--per-day", type=int, default=600)
    parser.add_argument("--only", default=",".join(RHYTHMS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    tasks = [(rhythm, seed, args.days, args.per_day) for rhythm in args.only.split(",") for seed in range(args.seeds)]
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        results = [
            result
            for found in track(pool.map(play, tasks), "runs", total=len(tasks), console=Console(stderr=True))
            for result in found
        ]
    shown = Table(title=f"Budgets per day, {args.per_day} requests a day, {args.days} days, {args.seeds} seeds")
    for title in ("rhythm", "days", "quality", "left: mean", "range", "night / day: median, range"):
        shown.add_column(title)
    for rhythm in dict.fromkeys(result.rhythm for result in results):
        for first in (True, False):
            shown.add_row(*_row([result for result in results if result.rhythm == rhythm], first))
    Console(width=150).print(shown)
    if args.json:
        args.json.write_text(json.dumps([asdict(result) for result in results]))


if __name__ == "__main__":
    main()
