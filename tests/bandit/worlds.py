"""A small world to drive the core through: a catalogue, one bucket, and models that answer as told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pointsman.bandit.bucket import BucketState
from pointsman.bandit.catalog import Bucket, Model
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Context
from pointsman.bandit.event import BucketPut, DecisionMade, Event, ModelPut, Record
from pointsman.bandit.join import join
from pointsman.bandit.limits import NO_LIMITS, Limits
from pointsman.bandit.outcome import ReportedOutcome, Signal, SignalChange
from pointsman.bandit.packed import Array
from pointsman.bandit.posterior import Posteriors
from pointsman.bandit.state import State, active_budgets, fold
from pointsman.bandit.updates import observe_all

SECOND = 10**9
Answer = Callable[[int, str], dict[Signal, float]]


class World:
    """A state, its clock and its draws. ``answer(round, model)`` says what a model's call comes to."""

    def __init__(self, bucket: Bucket, models: list[Model], seed: int = 0) -> None:
        self.state, self.rng, self.now_ns = State(), np.random.default_rng(seed), 0
        self.bucket_id = bucket.id
        self.times: dict[bytes, int] = {}
        for model in models:
            self.put(ModelPut(model))
        self.put(BucketPut(bucket))

    @property
    def bucket(self) -> BucketState:
        return self.state.buckets[self.bucket_id]

    def put(self, event: Event) -> None:
        self.now_ns += SECOND
        fold((Record(self.state.position + 1, self.now_ns, event),), self.state)

    def decide(self, context: Context | None = None, limits: Limits = NO_LIMITS) -> DecisionMade:
        encoded = self.bucket.encoder.encode(context or Context())
        decision = decide(
            self.bucket,
            [encoded],
            [self.state.position.to_bytes(16, "big")],
            self.rng,
            health=self.state.health,
            now_ns=self.now_ns,
            state_position=self.state.position,
            active_budgets=active_budgets(self.state, self.bucket),
            limits=limits,
        )[0]
        self.put(decision)
        self.times[decision.id] = self.now_ns
        return decision

    def report(
        self, decision: DecisionMade, signals: dict[Signal, float], reported: ReportedOutcome | None = None
    ) -> ReportedOutcome:
        """Report on the chosen model; gives the reported outcome to hand in with the next report on the same decision."""
        model = decision.models[decision.chosen]
        reported_outcomes = None if reported is None else {model: reported}
        joined = join(self.bucket, decision, self.times[decision.id], signals, reported_outcomes=reported_outcomes)
        self.put(joined)
        return joined.reported_outcomes[model]

    def play(self, rounds: int, answer: Answer, context: Callable[[int], Context] | None = None) -> list[str]:
        """Decide and report ``rounds`` times; gives the chosen models."""
        chosen = []
        for t in range(rounds):
            decision = self.decide(context(t) if context else None)
            chosen.append(decision.models[decision.chosen])
            self.report(decision, answer(t, chosen[-1]))
        return chosen


def one_change(signal: Signal, value: float) -> tuple[SignalChange, ...]:
    """The change of a first report."""
    return (SignalChange(signal, None, value),)


def observe(posteriors: Posteriors, response: int, model: int, x_d: Array, y: float, weight: float = 1.0) -> None:
    """Learn one answer of one response, in place."""
    observe_all(posteriors, model, x_d, ((response, y),), weight)
