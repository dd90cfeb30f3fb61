"""What models cost whose calls are never judged, or late, rarely, not any more: regret, beside Beta-Bernoulli Thompson sampling.

    python benchmarks/trials/unjudged.py [--seeds N] [--rounds N] [--only NAME|NAME] [--processes N]

Three models answer right with probability .6, .75 and .85, in a bucket without features, QUALITY_FIRST. Regret is against the
best model of which anything can be known: one whose calls are judged at some time. Share is what the model in question got in
the last third. Beta-Bernoulli Thompson sampling starts from one success and one failure of each model and draws from what was
judged so far.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import kit
import numpy as np
from rich.console import Console
from rich.table import Table

from pointsman.bandit.catalog import Bucket, Mode, Model, Objective
from pointsman.bandit.event import ModelPut
from pointsman.bandit.outcome import Signal

QUALITY_K = (0.6, 0.75, 0.85)


@dataclass(frozen=True, slots=True)
class Case:
    """``judged`` gives for each model the rounds (start, end) in which its calls are judged; ``rate`` of them are, ``delay``
    rounds later. ``joins`` is the round in which model number ``watched`` joins; it is the one whose share is shown.
    """

    name: str
    judged: tuple[tuple[int, int], ...] = ((0, 10**9),) * 3
    watched: int = 0
    rate: float = 1.0
    delay: int = 0
    joins: int = 0
    rounds: int = 3000


ALWAYS, NEVER = (0, 10**9), (0, 0)


def cases() -> Iterator[Case]:
    """Who is never judged, rare and late feedback, judges that break and are mended, models that join."""
    yield Case("all judged")
    yield Case("worst never judged", (NEVER, ALWAYS, ALWAYS), 0)
    yield Case("middle never judged", (ALWAYS, NEVER, ALWAYS), 1)
    yield Case("best never judged", (ALWAYS, ALWAYS, NEVER), 2)
    yield Case("only the middle judged", (NEVER, ALWAYS, NEVER), 0)
    yield Case("nothing judged", (NEVER,) * 3, 0)
    yield Case("5 % judged", rate=0.05)
    yield Case("5 % judged, worst never", (NEVER, ALWAYS, ALWAYS), 0, rate=0.05)
    yield Case("200 late", delay=200)
    yield Case("200 late, worst never", (NEVER, ALWAYS, ALWAYS), 0, delay=200)
    yield Case("worst not any more from 100 on", ((0, 100), ALWAYS, ALWAYS), 0)
    yield Case("best not any more from 500 on", (ALWAYS, ALWAYS, (0, 500)), 2)
    yield Case("best only from 1,000 on", (ALWAYS, ALWAYS, (1000, 10**9)), 2)
    yield Case("best joins at 1,000", watched=2, joins=1000)
    yield Case("best joins at 1,000, 200 late", watched=2, joins=1000, delay=200)
    yield Case("best joins at 1,000, 5 % judged", watched=2, joins=1000, rate=0.05)
    yield Case("worst joins at 1,000, never judged", (NEVER, ALWAYS, ALWAYS), 0, joins=1000)


Choose = Callable[[int], int]
Learn = Callable[[int, int, float], None]


def play(case: Case, seed: int, choose: Choose, learn: Learn) -> tuple[float, float]:
    """Regret and the watched model's share in the last third; ``choose(t)`` and ``learn(t, t of the choice, quality)``."""
    rng = np.random.default_rng([seed, 3])
    known_k = [case.judged[k] != NEVER for k in range(3)]
    regret, last = 0.0, []
    pending: list[tuple[int, int, float]] = []
    for t in range(case.rounds):
        there = [k for k in range(3) if not (k == case.watched and t < case.joins)]
        while pending and pending[0][0] <= t:
            _, chosen_at, good = heapq.heappop(pending)
            learn(t, chosen_at, good)
        chosen = choose(t)
        best = max([QUALITY_K[k] for k in there if known_k[k]], default=QUALITY_K[chosen])
        regret += best - QUALITY_K[chosen]
        good, kept = float(rng.random() < QUALITY_K[chosen]), rng.random() < case.rate
        start, end = case.judged[chosen]
        if start <= t < end and kept:
            heapq.heappush(pending, (t + 1 + case.delay, t, good))
        if t >= 2 * case.rounds // 3:
            last.append(chosen == case.watched)
    return regret, float(np.mean(last))


def pointsman(case: Case, seed: int) -> tuple[float, float]:
    """The policy that serves."""
    names = ["m0", "m1", "m2"]
    first = [name for k, name in enumerate(names) if not (case.joins and k == case.watched)]
    service = kit.Service(first, [Bucket("b", objective=Objective(Mode.QUALITY_FIRST))], seed)
    decisions = {}

    def choose(t: int) -> int:
        if case.joins and t == case.joins:
            service.put(ModelPut(Model(names[case.watched])), (t + 1) * kit.SECOND)
        decisions[t] = service.decide("b", (t + 1) * kit.SECOND)
        return names.index(decisions[t].models[decisions[t].chosen])

    def learn(t: int, chosen_at: int, good: float) -> None:
        service.report(decisions[chosen_at], (chosen_at + 1) * kit.SECOND, (t + 1) * kit.SECOND, {Signal.QUALITY: good})

    return play(case, seed, choose, learn)


def beta(case: Case, seed: int) -> tuple[float, float]:
    """Beta-Bernoulli Thompson sampling."""
    rng = np.random.default_rng([seed, 4])
    good_k, bad_k = np.ones(3), np.ones(3)
    chosen_at: dict[int, int] = {}

    def choose(t: int) -> int:
        draw_k = rng.beta(good_k, bad_k)
        if t < case.joins:
            draw_k[case.watched] = -1.0
        chosen_at[t] = int(draw_k.argmax())
        return chosen_at[t]

    def learn(t: int, at: int, good: float) -> None:
        good_k[chosen_at[at]] += good
        bad_k[chosen_at[at]] += 1.0 - good

    return play(case, seed, choose, learn)


def run(job: tuple[Case, int]) -> tuple[float, float, float, float]:
    """Regret and share, of Pointsman and of Beta-Bernoulli Thompson sampling."""
    return (*pointsman(*job), *beta(*job))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--only", default="")
    parser.add_argument("--processes", type=int)
    options = parser.parse_args()
    table = Table(title=f"{options.rounds} rounds, {options.seeds} seeds: mean ± 95 % interval (worst seed)")
    for title in ("case", "regret, Pointsman", "share", "regret, Beta-Bernoulli", "share "):
        table.add_column(title, justify="left" if title == "case" else "right")
    for case in cases():
        if any(part in case.name for part in options.only.split("|")):
            result = kit.over_seeds(run, replace(case, rounds=options.rounds), options.seeds, options.processes)
            ours, share, theirs, other = result.T
            table.add_row(
                case.name,
                kit.mean_and_worst(ours, 0),
                f"{share.mean():.3f}",
                kit.mean_and_worst(theirs, 0),
                f"{other.mean():.3f}",
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
