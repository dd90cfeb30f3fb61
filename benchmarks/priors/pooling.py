"""What buckets learn from each other: 200 buckets of 20 to 100 rounds, in turns, whose models differ alike, or not.

    python benchmarks/priors/pooling.py [--seeds N] [--buckets N] [--only KIND] [--policy NAME] [--json FILE]

Answers are right or wrong. A bucket's level lies between .3 and .7; its models lie .4 apart in equal steps, and each deviates by
.03 (standard deviation) from bucket to bucket. Kinds of worlds: `shared` (models differ alike everywhere), `opposite` (in a tenth
of the buckets the other way round), `unrelated` (in another order in each), `few` (shared, 10 buckets), `many models` (shared, 8
models), `costs` (shared, and what calls cost differs fourfold between buckets in no common order).

Policies: `pooled`, the service's core as it is; `alone`, the same where every bucket has priors of its own, which are then not
pooled; `hierarchy`, a simple one as a rival: Thompson sampling with known noise, offsets averaged over other buckets and worth 10
observations. What is scored is the expected regret a round; `odd` is that of the opposite buckets alone.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pointsman.bandit.catalog import Bucket, Mode, Model, Objective, Priors
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Context
from pointsman.bandit.event import BucketPut, Event, ModelPut, Record
from pointsman.bandit.join import join
from pointsman.bandit.outcome import Signal
from pointsman.bandit.state import State, apply, bucket_to_decide

Array = npt.NDArray[np.float64]
SHORTEST, LONGEST = 20, 100
"""Rounds of a bucket."""
ODD_SHARE = 0.1
HALF_RANGE = 0.2
"""Half of the distance between the best and the worst model."""
DEVIATION = 0.03


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of world; ``buckets`` 0 means as many as asked for."""

    name: str
    models: int = 4
    buckets: int = 0
    opposite: bool = False
    unrelated: bool = False
    costs: bool = False


KINDS = (
    Kind("shared"),
    Kind("opposite", opposite=True),
    Kind("unrelated", unrelated=True),
    Kind("few", buckets=10),
    Kind("many models", models=8),
    Kind("costs", costs=True),
)


@dataclass(frozen=True, slots=True)
class Truth:
    """Means of quality and of log cost by bucket and model, which buckets are opposite, and the bucket of each round."""

    mean_zk: Array
    log_cost_zk: Array
    odd_z: npt.NDArray[np.bool_]
    bucket_n: list[int]


class Learner(Protocol):
    """A policy over all buckets."""

    def choose(self, bucket: int) -> int:
        """The model for the next request of a bucket."""

    def learn(self, quality: float, cost: float) -> None:
        """Learn the outcome of the last choice."""


def draw_world(kind: Kind, buckets: int, seed: int) -> Truth:
    """One world of that kind."""
    rng = np.random.default_rng([seed, 1])
    z, k = kind.buckets or buckets, kind.models
    offset_k = rng.permutation(np.linspace(-HALF_RANGE, HALF_RANGE, k))
    offset_zk = np.array([rng.permutation(offset_k) if kind.unrelated else offset_k for _ in range(z)])
    odd_z = (rng.random(z) < ODD_SHARE) & kind.opposite
    offset_zk[odd_z] *= -1.0
    mean_zk = rng.uniform(0.3, 0.7, (z, 1)) + offset_zk + DEVIATION * rng.normal(size=(z, k))
    log_cost_zk = np.log(0.001) + (rng.uniform(-1.4, 1.4, (z, k)) if kind.costs else np.zeros((z, k)))
    rounds_z = rng.integers(SHORTEST, LONGEST + 1, z)
    return Truth(
        np.clip(mean_zk, 0.02, 0.98), log_cost_zk, odd_z, rng.permutation(np.repeat(np.arange(z), rounds_z)).tolist()
    )


class Core:
    """The core as it serves, with a bucket of its own for each; ``pooled`` false configures priors, which turns pooling off."""

    def __init__(self, truth: Truth, seed: int, pooled: bool) -> None:
        self._state, self._rng = State(), np.random.default_rng([seed, 2])
        z, k = truth.mean_zk.shape
        for model in range(k):
            self._put(ModelPut(Model(f"m{model:02}")))
        for bucket in range(z):
            priors = Priors() if pooled else Priors(quality=0.5)
            self._put(BucketPut(Bucket(f"b{bucket}", objective=Objective(Mode.QUALITY_FIRST), priors=priors)))
        self._encoded = self._state.buckets["b0"].encoder.encode(Context())

    def choose(self, bucket: int) -> int:
        """Decide as the service does, and fold the decision."""
        state = self._state
        self._bucket = state.buckets[f"b{bucket}"]
        (self._decision,) = decide(
            bucket_to_decide(state, self._bucket),
            [self._encoded],
            [state.position.to_bytes(16, "big")],
            self._rng,
            health={},
            now_ns=0,
            state_position=state.position,
            with_propensity=False,
        )
        self._put(self._decision)
        return int(self._decision.models[self._decision.chosen][1:])

    def learn(self, quality: float, cost: float) -> None:
        """Join and fold the outcome."""
        self._put(join(self._bucket, self._decision, 0, {Signal.QUALITY: quality, Signal.COST: cost}))

    def _put(self, event: Event) -> None:
        error = apply(self._state, Record(self._state.position + 1, 0, event))
        if error is not None:
            raise error


class Hierarchy:
    """A simple hierarchy: offsets are means over all other buckets of what models had there above the bucket's level."""

    MASS, VARIANCE = 10.0, 0.25

    def __init__(self, truth: Truth, seed: int) -> None:
        shape = truth.mean_zk.shape
        self._rng = np.random.default_rng([seed, 3])
        self._count_zk, self._sum_zk = np.zeros(shape), np.zeros(shape)
        self._offset_zk, self._weight_zk = np.zeros(shape), np.zeros(shape)

    def choose(self, bucket: int) -> int:
        """A draw for each model, with half the posterior's spread."""
        count_k, sum_k = self._count_zk[bucket], self._sum_zk[bucket]
        weight_k = self._weight_zk.sum(axis=0) - self._weight_zk[bucket]
        total_k = (self._weight_zk * self._offset_zk).sum(axis=0) - self._weight_zk[bucket] * self._offset_zk[bucket]
        offset_k = total_k / np.maximum(weight_k, 1e-9)
        level = (sum_k - count_k * offset_k).sum() / count_k.sum() if count_k.any() else 0.5
        mass_k = np.where(weight_k > 0.0, self.MASS, 0.1)
        mean_k = (mass_k * (level + offset_k) + sum_k) / (mass_k + count_k)
        draw_k = mean_k + 0.5 * np.sqrt(self.VARIANCE / (mass_k + count_k)) * self._rng.normal(size=len(mean_k))
        self._last = bucket, int(draw_k.argmax())
        return self._last[1]

    def learn(self, quality: float, cost: float) -> None:
        """Count the outcome, and report the bucket's offsets anew."""
        bucket, model = self._last
        self._count_zk[bucket, model] += 1
        self._sum_zk[bucket, model] += quality
        count_k = self._count_zk[bucket]
        if (count_k > 0).sum() > 1:
            weight_k = count_k / (count_k + 2.0)
            value_k = self._sum_zk[bucket] / np.maximum(count_k, 1.0)
            self._weight_zk[bucket] = weight_k
            self._offset_zk[bucket] = value_k - (weight_k * value_k).sum() / weight_k.sum()


POLICIES: dict[str, Callable[[Truth, int], Learner]] = {
    "pooled": lambda truth, seed: Core(truth, seed, pooled=True),
    "alone": lambda truth, seed: Core(truth, seed, pooled=False),
    "hierarchy": Hierarchy,
}


def regrets(truth: Truth, learner: Learner, seed: int) -> tuple[float, float]:
    """Expected regret a round, of all buckets and of the opposite ones (NaN without any)."""
    rng = np.random.default_rng([seed, 4])
    regret_n = np.empty(len(truth.bucket_n))
    for n, bucket in enumerate(truth.bucket_n):
        mean_k = truth.mean_zk[bucket]
        model = learner.choose(bucket)
        cost = float(np.exp(truth.log_cost_zk[bucket, model] + 0.3 * rng.normal()))
        learner.learn(float(rng.random() < mean_k[model]), cost)
        regret_n[n] = mean_k.max() - mean_k[model]
    odd_n = truth.odd_z[truth.bucket_n]
    return float(regret_n.mean()), float(regret_n[odd_n].mean()) if odd_n.any() else float("nan")


def main() -> None:
    """Play all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--buckets", type=int, default=200)
    parser.add_argument("--only", help="one kind of world")
    parser.add_argument("--policy", action="append", choices=tuple(POLICIES), help="only this one; may be repeated")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    arguments = parser.parse_args()
    policies = {name: POLICIES[name] for name in arguments.policy or POLICIES}
    figures: dict[str, dict[str, list[tuple[float, float]]]] = {}
    kinds = [kind for kind in KINDS if arguments.only in (None, kind.name)]
    for kind in track(kinds, "worlds"):
        figures[kind.name] = {name: [] for name in policies}
        for seed in range(arguments.seeds):
            truth = draw_world(kind, arguments.buckets, seed)
            for name, policy in policies.items():
                figures[kind.name][name].append(regrets(truth, policy(truth, seed), seed))
    table = Table(title=f"Expected regret a round, {arguments.seeds} seeds")
    for column in ("world", "policy", "mean", "± 95 %", "worst seed", "odd buckets"):
        table.add_column(column, justify="left" if column in ("world", "policy") else "right")
    for world, by_policy in figures.items():
        for name, pairs in by_policy.items():
            all_s, odd_s = np.array(pairs).T
            half = 1.96 * all_s.std(ddof=1) / np.sqrt(len(all_s)) if len(all_s) > 1 else float("nan")
            odd = "" if np.isnan(odd_s).all() else f"{np.nanmean(odd_s):.4f}"
            table.add_row(world, name, f"{all_s.mean():.4f}", f"{half:.4f}", f"{all_s.max():.4f}", odd)
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
