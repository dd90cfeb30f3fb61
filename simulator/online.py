"""Policies that decide round by round, behind one small protocol, and the two that need no library beside ours.

``thompson`` is the policy that serves: the same buckets, decisions (``bandit.decide``) and fold of the same events
(``bandit.state.apply``), one event each for a decision and for its outcome. The rivals are in ``simulator.peers``.

A rival that knows no budget gets the simplest one that does not cripple it, the same for each: it maximises
reward − λ·c/B, where c is a model's running mean cost and B the budget. λ is found by multiplicative weights on the constraint
(the dual of Badanidiyuru, Kleinberg & Slivkins, arXiv:1305.2545): after every call c̄ ← .95 c̄ + .05 cost and
λ ← λ·exp(.05 (c̄/B − 1)), the bracket at most 3. Being multiplicative it needs no scale of costs; the additive step on
log-normalised cost of the ParetoBandit paper did worse for every rival.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pointsman.bandit.catalog import FLOOR_MODES, Budget, Mode, Model, Objective, Prices
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Encoded
from pointsman.bandit.event import BucketPut, DecisionMade, Event, ModelPut, Record
from pointsman.bandit.join import join
from pointsman.bandit.state import fold, purses
from pointsman.simulator.baselines import EPSILON, greedy, sums_by_task
from pointsman.simulator.changes import Added, Notice, Outcome, Priced, has_outage
from pointsman.simulator.configured import configured
from pointsman.simulator.utility import SettingError
from pointsman.simulator.world import Run, World, report_of

Array = npt.NDArray[np.float64]

ROUND_NS = 10**9
"""Time between two rounds: a second."""
_SMOOTHING, _STEP, _EXCESS = 0.05, 0.05, 3.0
_LEAST, _FIRST, _MOST = 1e-5, 1e-3, 10.0
"""Ends and start of a multiplier: at 1e-3 a call of 100 budgets is worth a tenth of the range of quality."""
_RECENT = 0.02
"""Smallest weight of a new cost in a model's running mean."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A decision that was made: in which round, for which row of the table, and which model (its number) it was."""

    t: int
    row: int
    model: int


class Online(Protocol):
    """A policy in a replay. Models are numbers, in the order of the table.

    The loop calls ``notice`` for what is announced before a round, then ``choose``, and ``learn`` once the outcome is known:
    after ``now`` = ``asked.t`` or, if outcomes are late, a later round.
    """

    def notice(self, t: int, notice: Notice) -> None:
        """Hear, before round ``t``, of a new model or of new list prices."""

    def choose(self, t: int, row: int) -> int:
        """The model for the prompt of ``row``, one of those in the catalogue."""

    def learn(self, now: int, asked: Asked, outcome: Outcome) -> None:
        """Learn what came of a decision."""


class Streaming(Online, Protocol):
    """A policy that can go on with other rows of a table that is larger than memory."""

    def see(self, world: World) -> None:
        """The rows from now on are those of ``world`` (``simulator.world.window``)."""


class Thompson:
    """The policy that serves. ``watch`` is called with every decision, as it is journalled, propensity included."""

    def __init__(
        self, world: World, run: Run, rng: np.random.Generator, watch: Callable[[DecisionMade], None] | None = None
    ) -> None:
        self._world, self._rng, self._watch = world, rng, watch
        self._state = copy.deepcopy(world.start)
        self._place = {model: i for i, model in enumerate(world.table.models)}
        self._success = has_outage(run.schedule)
        self._waiting: dict[int, DecisionMade] = {}
        budget = None if run.budget is None else Budget(run.budget)
        for bucket in list(self._state.buckets.values()):
            config = configured(bucket.config, run.policy)
            self._apply(0, BucketPut(replace(config, objective=run.objective, budget=budget)))

    def notice(self, t: int, notice: Notice) -> None:
        """Put the model into the catalogue, with its list prices if models have any."""
        prices = self._world.prices.get(notice.model) if self._world.priced else None
        if isinstance(notice, Priced):
            if prices is None:
                return  # without list prices there is nothing to announce
            prices = scaled(prices, notice.factor)
        self._apply(t * ROUND_NS, ModelPut(Model(notice.model, prices=prices)))

    def see(self, world: World) -> None:
        """Other rows."""
        self._world = world

    def choose(self, t: int, row: int) -> int:
        """Decide, and fold the decision."""
        return self.commit(t, self.propose(t, row))

    def propose(self, t: int, row: int) -> DecisionMade:
        """What would be decided; nothing is folded."""
        world, state, now_ns = self._world, self._state, (t + 1) * ROUND_NS
        bucket = state.buckets[world.bucket_n[row]]
        return decide(
            bucket,
            [Encoded(world.x_nd[row], int(world.tokens_n[row]), -1)],
            [t.to_bytes(16, "big")],
            self._rng,
            health=state.health,
            now_ns=now_ns,
            state_position=state.position,
            purses=purses(state, bucket),
            with_propensity=self._watch is not None,  # for whoever logs; nothing else reads it
        )[0]

    def commit(self, t: int, decision: DecisionMade) -> int:
        """Fold a decision; its model's number."""
        self._apply((t + 1) * ROUND_NS, decision)
        self._waiting[t] = decision
        if self._watch is not None:
            self._watch(decision)
        return self.number(decision)

    def number(self, decision: DecisionMade) -> int:
        """The number of the model that was chosen."""
        return self._place[decision.models[decision.chosen]]

    def learn(self, now: int, asked: Asked, outcome: Outcome) -> None:
        """Fold the outcome."""
        decision = self._waiting.pop(asked.t)
        report = report_of(outcome, success=self._success)
        if report:
            bucket = self._state.buckets[decision.bucket]
            self._apply((now + 1) * ROUND_NS, join(bucket, decision, (asked.t + 1) * ROUND_NS, report))

    def _apply(self, now_ns: int, event: Event) -> None:
        fold((Record(self._state.position + 1, now_ns, event),), self._state)


class Uniform:
    """A model drawn evenly, whatever the prompt."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self._rng = rng
        self._models = [world.table.models.index(model) for model in world.present]
        self._names = world.table.models

    def notice(self, t: int, notice: Notice) -> None:
        """Draw from a new model too."""
        if isinstance(notice, Added):
            self._models.append(self._names.index(notice.model))

    def see(self, world: World) -> None:
        """Other rows, which are all alike."""

    def choose(self, t: int, row: int) -> int:
        """Draw."""
        return self._models[self._rng.integers(len(self._models))]

    def learn(self, now: int, asked: Asked, outcome: Outcome) -> None:
        """Nothing."""


class EpsilonGreedy:
    """ε-greedy on each task's mean quality, cost and latency.

    A model that its task has not seen comes first; then the objective decides on the means. Within a budget they are
    penalised as the module says.
    """

    def __init__(self, world: World, run: Run, rng: np.random.Generator) -> None:
        self._world, self._run, self._rng = world, run, rng
        tasks, k = len(world.tasks), len(world.table.models)
        self._sum_tsk, self._count_tsk = np.zeros((tasks, 3, k)), np.zeros((tasks, 3, k))
        self._there_k = np.array([model in world.present for model in world.table.models])
        if world.warm is not None:
            summed = sums_by_task(world.warm.outcome_snk, world.warm.task_n, tasks)
            self._sum_tsk[:, :, self._there_k], self._count_tsk[:, :, self._there_k] = summed
        self._dual = Dual(world, run.budget)

    def notice(self, t: int, notice: Notice) -> None:
        """Choose a new model too."""
        if isinstance(notice, Added):
            self._there_k[self._world.table.models.index(notice.model)] = True

    def see(self, world: World) -> None:
        """Other rows."""
        self._world = world

    def choose(self, t: int, row: int) -> int:
        """Explore or exploit."""
        task = self._world.task_n[row]
        there = np.flatnonzero(self._there_k)
        count_sk = self._count_tsk[task][:, there]
        unseen = np.flatnonzero(count_sk[0] == 0.0)
        if unseen.size:
            return int(there[self._rng.choice(unseen)])
        if self._rng.random() < EPSILON:
            return int(there[self._rng.integers(len(there))])
        mean_sk = self._sum_tsk[task][:, there] / np.maximum(count_sk, 1.0)
        mean_sk[0] -= self._dual.penalty_k()[there]
        return int(there[greedy(mean_sk, self._run.objective, self._world.quality)])

    def learn(self, now: int, asked: Asked, outcome: Outcome) -> None:
        """Add to the sums what is known; a failed call is worth the least quality."""
        quality = self._world.quality
        worth = (outcome.quality - quality.min) / quality.width if outcome.judged or not outcome.success else np.nan
        value_s = np.array([worth, outcome.cost, outcome.latency])
        there_s = ~np.isnan(value_s)
        task = self._world.task_n[asked.row]
        self._sum_tsk[task, there_s, asked.model] += value_s[there_s]
        self._count_tsk[task, there_s, asked.model] += 1.0
        self._dual.learn(asked.model, outcome)


class Dual:
    """The budget of a policy that has none of its own: a multiplier, and a penalty for each model; see the module."""

    def __init__(self, world: World, budget: float | None) -> None:
        self._budget = budget
        self.multiplier = _FIRST
        self._running = 0.0 if budget is None else budget
        k = len(world.table.models)
        self._mean_k, self._count_k = np.full(k, np.nan), np.zeros(k)
        if world.warm is not None and budget is not None:
            columns = [world.table.models.index(model) for model in world.present]
            self._mean_k[columns] = world.warm.outcome_snk[1].mean(axis=0)
            self._count_k[columns] = world.warm.outcome_snk.shape[1]

    def penalty_k(self) -> Array:
        """λ·c/B of every model (quality scaled to [0, 1]); 0 without a budget, or of a model whose cost is unknown."""
        if self._budget is None:
            return np.zeros(len(self._mean_k))
        penalty_k: Array = self.multiplier * np.nan_to_num(self._mean_k, nan=0.0) / self._budget
        return penalty_k

    def learn(self, model: int, outcome: Outcome) -> None:
        """One call's cost; what a failed call costs says nothing of the next one's."""
        if self._budget is None or math.isnan(outcome.cost):
            return
        if outcome.success:
            self._count_k[model] += 1.0
            weight = max(1.0 / self._count_k[model], _RECENT)
            before = self._mean_k[model]
            self._mean_k[model] = outcome.cost if math.isnan(before) else before + weight * (outcome.cost - before)
        self._running += _SMOOTHING * (outcome.cost - self._running)
        excess = min(_EXCESS, self._running / self._budget - 1.0)
        self.multiplier = min(_MOST, max(_LEAST, self.multiplier * math.exp(_STEP * excess)))


def reward_of(world: World, objective: Objective, outcome: Outcome) -> float | None:
    """What rivals maximise: quality scaled to [0, 1], less the objective's weights times cost and latency; ``None`` if not
    reported. A failed call is worth 0.
    """
    if not outcome.success:
        return 0.0
    if not outcome.judged:
        return None
    width = world.quality.width
    return _weighed(objective, (outcome.quality - world.quality.min) / width, outcome.cost, outcome.latency, width)


def warm_rewards(world: World, objective: Objective) -> Array:
    """``reward_of`` every row of the warm start, (n, k)."""
    assert world.warm is not None
    quality_nk, cost_nk, latency_nk = world.warm.outcome_snk
    n, k = quality_nk.shape
    return np.array(
        [
            [
                _weighed(objective, quality_nk[i, j], cost_nk[i, j], latency_nk[i, j], world.quality.width)
                for j in range(k)
            ]
            for i in range(n)
        ]
    )


def scaled(prices: Prices, factor: float) -> Prices:
    """List prices times ``factor``."""
    return Prices(factor * prices.input_per_million, factor * prices.output_per_million, factor * prices.per_request)


def refuse_floors(policy: str, objective: Objective) -> None:
    """Raise ``SettingError`` for an objective that is no sum of rewards."""
    if objective.mode in FLOOR_MODES:
        others = ", ".join(mode.value for mode in Mode if mode not in FLOOR_MODES)
        raise SettingError(f"policy {policy} maximises a reward: expected an objective of {others}")


def _weighed(objective: Objective, quality: float, cost: float, latency: float, width: float) -> float:
    weighed = 0.0
    if objective.cost_weight and not math.isnan(cost):
        weighed += objective.cost_weight * cost
    if objective.latency_weight and not math.isnan(latency):
        weighed += objective.latency_weight * latency
    return quality - weighed / width
