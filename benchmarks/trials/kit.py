"""What the benchmarks of trials have in common: a bucket on the core alone, seeds over processes, means with worst seeds."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np

from pointsman.bandit.catalog import Bucket, Model
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Context
from pointsman.bandit.event import BucketPut, DecisionMade, Event, ModelPut, Record
from pointsman.bandit.join import join
from pointsman.bandit.outcome import Signal
from pointsman.bandit.state import State, active_budgets, fold

SECOND = 10**9


class Service:
    """The core as the service drives it: decisions and outcomes are folded at the time that the caller says (nanoseconds)."""

    def __init__(self, models: Sequence[str], buckets: Sequence[Bucket], seed: int) -> None:
        self.state, self._rng = State(), np.random.default_rng([seed, 1])
        for model in models:
            self.put(ModelPut(Model(model)), 0)
        for bucket in buckets:
            self.put(BucketPut(bucket), 0)

    def put(self, event: Event, now_ns: int) -> None:
        """Fold one event."""
        fold((Record(self.state.position + 1, now_ns, event),), self.state)

    def decide(self, bucket_id: str, now_ns: int, context: Context | None = None) -> DecisionMade:
        """Decide and fold the decision."""
        bucket = self.state.buckets[bucket_id]
        (decision,) = decide(
            bucket,
            [bucket.encoder.encode(context or Context())],
            [self.state.position.to_bytes(16, "big")],
            self._rng,
            health=self.state.health,
            now_ns=now_ns,
            state_position=self.state.position,
            active_budgets=active_budgets(self.state, bucket),
            with_propensity=False,
        )
        self.put(decision, now_ns)
        return decision

    def report(self, decision: DecisionMade, decided_ns: int, now_ns: int, signals: Mapping[Signal, float]) -> None:
        """Fold what is reported of the chosen model."""
        if signals:
            self.put(join(self.state.buckets[decision.bucket], decision, decided_ns, signals), now_ns)


def over_seeds(
    run: Callable[[tuple[Any, int]], Any], case: Any, seeds: int, processes: int | None = None
) -> np.ndarray:
    """What ``run`` gives for one case and each seed, stacked; on all processors unless ``processes`` says how many."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        return np.array(list(pool.map(run, [(case, seed) for seed in range(seeds)])))


def mean_and_worst(values: np.ndarray, digits: int = 2) -> str:
    """``mean ± half of the 95 % interval (worst)`` over seeds."""
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{values.mean():.{digits}f} ± {half:.{digits}f} ({values.max():.{digits}f})"
