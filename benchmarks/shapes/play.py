"""A bucket whose models answer as they are told, played through the core: what the tables of this folder share.

>>> played = Play([Model("m")], Bucket("b"), seed=0)
>>> decision = played.decide()
>>> played.report(decision, {Signal.COST: 0.002})
>>> played.state.position
4
"""

from __future__ import annotations

import numpy as np
from shapes import Shape

from pointsman.bandit.catalog import Bucket, CategoryFeature, Model, NumberFeature, Schema
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Context
from pointsman.bandit.event import BucketPut, DecisionMade, Event, ModelPut, Record
from pointsman.bandit.join import join
from pointsman.bandit.limits import NO_LIMITS, Limits
from pointsman.bandit.outcome import Signal
from pointsman.bandit.state import State, active_budgets, fold

SECOND = 10**9
SCHEMA = Schema(numbers=(NumberFeature("z"),), categories=(CategoryFeature("kind", ("low", "high", "rare")),))
"""Of shapes that depend on the context."""


class Play:
    """A state with one bucket, its clock and its draws."""

    def __init__(self, models: list[Model], bucket: Bucket, seed: int) -> None:
        self.state, self.rng = State(), np.random.default_rng(seed)
        for event in (*map(ModelPut, models), BucketPut(bucket)):
            self._put(event)
        self.bucket = self.state.buckets[bucket.id]

    def _put(self, event: Event) -> None:
        position = self.state.position + 1
        fold((Record(position, position * SECOND, event),), self.state)

    def decide(self, context: Context | None = None, limits: Limits = NO_LIMITS) -> DecisionMade:
        """Decide; nothing is folded."""
        (event,) = decide(
            self.bucket,
            [self.bucket.encoder.encode(context or Context())],
            [self.state.position.to_bytes(16, "big")],
            self.rng,
            health=self.state.health,
            now_ns=self.state.time_ns,
            state_position=self.state.position,
            active_budgets=active_budgets(self.state, self.bucket),
            limits=limits,
            with_propensity=False,
        )
        return event

    def fold(self, decision: DecisionMade) -> None:
        """Fold a decision."""
        self._put(decision)

    def report(self, decision: DecisionMade, signals: dict[Signal, float]) -> None:
        """Fold a decision's outcome."""
        self._put(join(self.bucket, decision, self.state.time_ns, signals))


def schema_of(shape: Shape) -> Schema:
    """The features of a shape's contexts."""
    return SCHEMA if shape.contexts else Schema()


def context_of(shape: Shape, z: float) -> Context:
    """The context at z in [-1, 1]."""
    if not shape.contexts:
        return Context()
    return Context({"z": z}, {"kind": "low" if z <= 0.0 else "high" if z <= 0.95 else "rare"})
