"""What is predicted of cost and latency over what is true, by shape and number of outcomes: mean over seeds [5 %, 95 %].

make bench-shapes            (ARGS="--seeds 4" for a glance)
"""

from __future__ import annotations

import argparse

import numpy as np
from shapes import SHAPES, Shape

from pointsman.bandit.catalog import Bucket, CategoryFeature, Model, NumberFeature, Schema
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Context
from pointsman.bandit.event import BucketPut, DecisionMade, Event, ModelPut, Record
from pointsman.bandit.join import join
from pointsman.bandit.outcome import Signal
from pointsman.bandit.state import State, fold

AFTER = (10, 100, 300, 1000)
MILLI = 1e-3
PLACES = (-0.9, -0.3, 0.3, 0.9, 0.99)


class World:
    """One model in one bucket, whose amounts have a shape: dollars a thousandth of seconds."""

    def __init__(self, shape: Shape, seed: int, ahead: int) -> None:
        self.shape, self.ahead, self.rng = shape, ahead, np.random.default_rng(seed)
        schema = Schema()
        if shape.contexts:
            schema = Schema(numbers=(NumberFeature("z"),), categories=(CategoryFeature("kind", ("a", "b", "c")),))
        self.state = State()
        for event in (ModelPut(Model("m")), BucketPut(Bucket("b", schema=schema))):
            self.put(event)
        self.bucket = self.state.buckets["b"]

    def put(self, event: Event) -> None:
        position = self.state.position + 1
        fold((Record(position, position * 10**9, event),), self.state)

    def decide(self, z: float) -> DecisionMade:
        context = (
            Context({"z": z}, {"kind": "a" if z <= 0 else "b" if z <= 0.95 else "c"})
            if self.shape.contexts
            else Context()
        )
        (event,) = decide(
            self.bucket,
            [self.bucket.encoder.encode(context)],
            [self.state.position.to_bytes(16, "big")],
            self.rng,
            health={},
            now_ns=self.state.time_ns,
            state_position=self.state.position,
            with_propensity=False,
        )
        return event

    def play(self) -> dict[int, np.ndarray]:
        """Ratios of predicted and true mean cost, mean latency and p95, (3), after so many outcomes."""
        waiting, ratios = [], {}
        for n in range(1, AFTER[-1] + 1):
            z, t = float(self.rng.uniform(-1, 1)), n / AFTER[-1]
            decision = self.decide(z)
            self.put(decision)
            amount = self.shape.draw(self.rng, z, t)
            waiting.append((decision, {Signal.QUALITY: 0.5, Signal.COST: MILLI * amount, Signal.LATENCY: amount}))
            if len(waiting) == self.ahead or n in AFTER:
                for decision, report in waiting:
                    self.put(join(self.bucket, decision, 0, report))
                waiting = []
            if n in AFTER:
                ratios[n] = self.ratios(t)
        return ratios

    def ratios(self, t: float) -> np.ndarray:
        rows = []
        for z in PLACES if self.shape.contexts else (0.0,):
            p = self.decide(z).predicted
            mean = self.shape.mean(z, t)
            rows.append([p.cost_k[0] / mean / MILLI, p.latency_k[0] / mean, p.latency_p95_k[0] / self.shape.p95(z, t)])
        return np.exp(np.log(rows).mean(axis=0))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--ahead", type=int, default=1)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    for name, shape in SHAPES.items():
        if args.only not in name:
            continue
        played = [World(shape, seed, args.ahead).play() for seed in range(args.seeds)]
        cells = []
        for n in AFTER:
            r = np.array([p[n] for p in played])
            lo, hi = np.quantile(r, (0.05, 0.95), axis=0)
            cells.append(
                f"{r[:, 0].mean():.2f} [{lo[0]:.2f},{hi[0]:.2f}] p95 {r[:, 2].mean():.2f} [{lo[2]:.2f},{hi[2]:.2f}]"
            )
        print(f"{name:28}", " | ".join(cells))


if __name__ == "__main__":
    main()
