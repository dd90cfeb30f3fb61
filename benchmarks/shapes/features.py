"""Are features used whatever their units, tails, gaps and levels? One world, its feature declared and reported in many ways.

    python benchmarks/shapes/features.py [--seeds N] [--rounds N] [--only NAME]

In the world a latent number, Normal(0, 1), decides which of three models answers best: the first is good where it is high, the
second where it is low, the third is middling everywhere. Each row tells the policy of that number in another way; nothing else
changes. Scored is the regret in expected quality against the best model for each request, summed over the rounds. `none` is
what a policy without the feature loses, `as declared` what one loses whose schema is right; where half of the values are missing
at random, nobody can do better than the mean of both. Everything goes through the service's own encoder, decisions and fold.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pointsman.bandit.catalog import (
    Bucket,
    CategoryFeature,
    EmbeddingFeature,
    Mode,
    Model,
    NumberFeature,
    Objective,
    Schema,
)
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Context
from pointsman.bandit.event import BucketPut, Event, ModelPut, Record
from pointsman.bandit.join import join
from pointsman.bandit.outcome import Signal
from pointsman.bandit.state import State, fold

MODELS = ("high", "low", "middling")
SECOND = 10**9
LEVELS = 2000
"""Levels of the wide category, drawn by Zipf's law; of the commonest 256 the schema knows."""
DIM = 16
"""Dimensions of the embedding."""

Tell = Callable[[float, np.random.Generator], Context]


@dataclass(frozen=True, slots=True)
class Shape:
    """One way of telling the policy of the latent number: the schema, and the context made of the number."""

    name: str
    schema: Schema
    tell: Tell


def number(name: str, of: Callable[[float, np.random.Generator], float | None], **declared: float | bool) -> Shape:
    """A shape in which the feature is one number."""
    schema = Schema(numbers=(NumberFeature("n", **declared),))  # type: ignore[arg-type]

    def tell(latent: float, rng: np.random.Generator) -> Context:
        value = of(latent, rng)
        return Context(numbers={} if value is None else {"n": value})

    return Shape(name, schema, tell)


def embedding(name: str, length: float) -> Shape:
    """A shape in which the feature is one direction of an embedding of about that length, among others that are noise."""
    direction_d = np.random.default_rng(0).normal(size=DIM)
    direction_d /= np.linalg.norm(direction_d)

    def tell(latent: float, rng: np.random.Generator) -> Context:
        vector_d = 0.15 * rng.normal(size=DIM) + latent * direction_d
        return Context(embeddings={"e": length * vector_d / 1.15})

    return Shape(name, Schema(embeddings=(EmbeddingFeature("e", DIM),)), tell)


def levels() -> Shape:
    """A shape in which the number is known by one of thousands of levels of a category only (a customer, say)."""
    rng = np.random.default_rng(1)
    latent_l = rng.normal(size=LEVELS)
    order_l = np.argsort(latent_l)
    share_l = 1.0 / np.arange(1.0, LEVELS + 1.0)
    share_l = share_l[rng.permutation(LEVELS)] / share_l.sum()
    commonest = sorted(range(LEVELS), key=lambda level: -share_l[level])[:256]
    reach_l = np.cumsum(share_l[order_l])

    def tell(latent: float, rng: np.random.Generator) -> Context:
        share = 0.5 * (1.0 + np.tanh(0.8 * latent))  # about the Normal distribution function
        level = order_l[min(int(reach_l.searchsorted(share)), LEVELS - 1)]
        return Context(categories={"level": f"l{level}"})

    values = tuple(f"l{level}" for level in commonest)
    return Shape(f"{LEVELS} levels", Schema(categories=(CategoryFeature("level", values, open=True),)), tell)


def shapes() -> list[Shape]:
    """The rows of the table."""

    def dropped(latent: float, rng: np.random.Generator) -> float | None:
        return latent if rng.random() < 0.5 else None

    def dropped_if_low(latent: float, rng: np.random.Generator) -> float | None:
        return latent if latent > 0.0 else None

    return [
        Shape("none", Schema(), lambda latent, rng: Context()),
        number("as declared", lambda z, rng: z),
        number("declared and shifted", lambda z, rng: 50.0 + 10.0 * z, center=50.0, scale=10.0),
        number("1,000 times too large a scale", lambda z, rng: z, scale=1000.0),
        number("1,000 times too small a scale", lambda z, rng: 1000.0 * z),
        number("10 times too large a scale", lambda z, rng: z, scale=10.0),
        number("10 times too small a scale", lambda z, rng: 10.0 * z),
        number("far from its center", lambda z, rng: 1000.0 + z),
        number("a time stamp, 1.7e9", lambda z, rng: 1.7e9 + 43_200.0 * z),
        number("heavy tail, log-normal σ 2", lambda z, rng: float(np.exp(2.0 * z))),
        number("heavy tail, scale 1,000 too large", lambda z, rng: float(np.exp(2.0 * z)), scale=1000.0),
        number("heavy tail, both sides (cubed)", lambda z, rng: z**3 * 10.0),
        number("one in 200 absurd", lambda z, rng: z if rng.random() > 0.005 else 1e9),
        number("half missing, at random", dropped, optional=True),
        number("half missing, scale 1,000 too large", dropped, optional=True, scale=1000.0),
        number("missing below the median", dropped_if_low, optional=True),
        number("a flag: is it high?", lambda z, rng: float(z > 0.0)),
        number("a flag of 0 and 1,000", lambda z, rng: 1000.0 * float(z > 0.0)),
        number("constant and useless", lambda z, rng: 1e6),
        embedding("embedding of length 1", 1.0),
        embedding("embedding of length 100", 100.0),
        embedding("embedding of length .01", 0.01),
        levels(),
    ]


def quality_of(latent: float) -> np.ndarray:
    """Expected quality of the three models."""
    high = 1.0 / (1.0 + np.exp(-1.5 * latent))
    return np.array([0.15 + 0.7 * high, 0.85 - 0.7 * high, 0.52])


def run(job: tuple[str, int, int]) -> tuple[str, int, float]:
    """The regret of one shape in the world of one seed."""
    name, seed, rounds = job
    shape = next(shape for shape in shapes() if shape.name == name)
    world = np.random.default_rng([seed, 1])
    rng, noise = np.random.default_rng([seed, 2]), np.random.default_rng([seed, zlib.crc32(name.encode())])
    state = State()

    def put(event: Event) -> None:
        position = state.position + 1
        fold((Record(position, position * SECOND, event),), state)

    for model in MODELS:
        put(ModelPut(Model(model)))
    put(BucketPut(Bucket("b", schema=shape.schema, objective=Objective(Mode.QUALITY_FIRST))))
    regret = 0.0
    for t in range(rounds):
        latent, luck = float(world.normal()), float(world.random())
        bucket = state.buckets["b"]
        (decision,) = decide(
            bucket,
            [bucket.encoder.encode(shape.tell(latent, noise))],
            [t.to_bytes(16, "big")],
            rng,
            health={},
            now_ns=state.time_ns,
            state_position=state.position,
            with_propensity=False,
        )
        put(decision)
        expected_k = quality_of(latent)
        chosen = MODELS.index(decision.models[decision.chosen])
        regret += float(expected_k.max() - expected_k[chosen])
        put(join(bucket, decision, state.time_ns, {Signal.QUALITY: float(luck < expected_k[chosen])}))
    return name, seed, regret


def main() -> None:
    """Run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--only", default="", help="shapes whose name contains this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    names = [shape.name for shape in shapes() if arguments.only in shape.name]
    jobs = [(name, seed, arguments.rounds) for name in names for seed in range(arguments.seeds)]
    console = Console(width=120)
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("forkserver")) as pool:
        done = list(track(pool.map(run, jobs), total=len(jobs), description="features", console=console))
    table = Table(title=f"regret in {arguments.rounds:,} rounds, {arguments.seeds} seeds")
    for heading in ("the feature", "mean ± 95 %", "worst seed"):
        table.add_column(heading, justify="left" if heading == "the feature" else "right")
    for name in names:
        regrets = np.array([regret for shape, _, regret in done if shape == name])
        margin = 1.96 * regrets.std(ddof=1) / len(regrets) ** 0.5 if len(regrets) > 1 else float("nan")
        table.add_row(name, f"{regrets.mean():.0f} ± {margin:.0f}", f"{regrets.max():.0f}")
    console.print(table)


if __name__ == "__main__":
    main()
