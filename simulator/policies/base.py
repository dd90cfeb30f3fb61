"""The interface of policies in a replay, and the base of rivals: features, announcements, rewards and a budget.

A rival that knows no budget gets the simplest one that does not cripple it, the same for each: it maximises
reward − λ·c/B, where c is a model's running mean cost and B the budget. λ is found by multiplicative weights on the constraint
(the dual of Badanidiyuru, Kleinberg and Slivkins, "Bandits with knapsacks", arXiv:1305.2545): after every call
c̄ ← .95 c̄ + .05 cost and λ ← λ·exp(.05 (c̄/B − 1)), the bracket at most 3. Being multiplicative it needs no scale of costs; the
additive step on log-normalised cost of the ParetoBandit paper did worse for every rival.

>>> from pointsman.bandit.catalog import Prices
>>> scale_prices(Prices(1.0, 4.0), 0.5)
Prices(input_per_million=0.5, output_per_million=2.0, per_request=0.0)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pointsman.bandit.catalog import FLOOR_MODES, Mode, Objective, Prices
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.policies.spec import PolicySpec, Run
from pointsman.simulator.world.rounds import CallOutcome, NewModelNotice, Notice
from pointsman.simulator.world.world import World

Array = npt.NDArray[np.float64]

_SMOOTHING, _STEP, _MAX_EXCESS = 0.05, 0.05, 3.0
_MIN_MULTIPLIER, _FIRST_MULTIPLIER, _MAX_MULTIPLIER = 1e-5, 1e-3, 10.0
"""Ends and start of a multiplier: at 1e-3 a call of 100 budgets is worth a tenth of the range of quality."""
_MIN_WEIGHT = 0.02
"""Smallest weight of a new cost in a model's running mean."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A decision: the round ``t``, the ``row`` of the table and the ``model`` chosen, by its number in the table."""

    t: int
    row: int
    model: int


class OnlinePolicy(Protocol):
    """A policy in a replay. Models are numbers, in the order of the table.

    The loop calls ``notice`` for what is announced before a round, then ``choose``, and ``learn`` once the outcome is known:
    after ``now`` = ``choice.t`` or, if outcomes are late, a later round.
    """

    def notice(self, t: int, notice: Notice) -> None:
        """Hear, before round ``t``, of a new model or of new list prices."""

    def choose(self, t: int, row: int) -> int:
        """The model for the prompt of ``row``, one of those in the catalogue."""

    def learn(self, now: int, choice: Choice, outcome: CallOutcome) -> None:
        """Learn the outcome of an earlier choice."""


class StreamingPolicy(OnlinePolicy, Protocol):
    """A policy that can go on with other rows of a table that is larger than memory."""

    def move_to(self, world: World) -> None:
        """The rows from now on are those of ``world`` (``simulator.world.world.window``)."""


class Rival(ABC):
    """A policy that maximises a reward, and shares its budget's multiplier and its list of models with other rivals.

    ``available_k`` says which models may be chosen. Subclasses choose, and learn the rewards that are reported.
    """

    def __init__(self, world: World, run: Run, rng: np.random.Generator) -> None:
        self.world, self.run, self.rng = world, run, rng
        self.number_by_model = {model: number for number, model in enumerate(world.table.models)}
        self.available_k = np.array([model in world.present for model in world.table.models])
        self.budget = BudgetMultiplier(world, run.budget)

    def notice(self, t: int, notice: Notice) -> None:
        """Let a new model be chosen too; new prices are learned from the costs."""
        if isinstance(notice, NewModelNotice):
            self.available_k[self.number_by_model[notice.model]] = True

    def move_to(self, world: World) -> None:
        """Go on with other rows."""
        self.world = world

    @abstractmethod
    def choose(self, t: int, row: int) -> int:
        """The model for the prompt of ``row``, one of those in the catalogue."""

    def learn(self, now: int, choice: Choice, outcome: CallOutcome) -> None:
        """Learn the cost and, if it was reported, the reward."""
        self.budget.learn(choice.model, outcome)
        reward = reward_of(self.world, self.run.objective, outcome)
        if reward is not None:
            self.learn_reward(choice, reward)

    @abstractmethod
    def learn_reward(self, choice: Choice, reward: float) -> None:
        """Learn one reward: at most 1, and from 0 up where cost and latency weigh nothing."""


class BudgetMultiplier:
    """The budget of a policy that has none of its own: a multiplier λ, and a penalty for each model; see the module.

    ``budget`` is in dollars a request; without one every penalty is 0.
    """

    def __init__(self, world: World, budget: float | None) -> None:
        self._budget = budget
        self.multiplier = _FIRST_MULTIPLIER
        self._recent_cost = 0.0 if budget is None else budget
        k = len(world.table.models)
        self._mean_cost_k, self._count_k = np.full(k, np.nan), np.zeros(k)
        if world.warm is not None and budget is not None:
            columns = [world.table.models.index(model) for model in world.present]
            known_nk = ~np.isnan(world.warm.outcome_snk[1])
            count_k = known_nk.sum(axis=0)
            total_k = np.where(known_nk, world.warm.outcome_snk[1], 0.0).sum(axis=0)
            self._mean_cost_k[columns] = np.where(count_k > 0, total_k / np.maximum(count_k, 1), np.nan)
            self._count_k[columns] = count_k

    def penalties_k(self) -> Array:
        """λ·c/B of every model (quality scaled to [0, 1]); 0 without a budget, or of a model whose cost is unknown."""
        if self._budget is None:
            return np.zeros(len(self._mean_cost_k))
        penalty_k: Array = self.multiplier * np.nan_to_num(self._mean_cost_k, nan=0.0) / self._budget
        return penalty_k

    def learn(self, model: int, outcome: CallOutcome) -> None:
        """Learn one call's cost; what a failed call costs says nothing of the next one's."""
        if self._budget is None or math.isnan(outcome.cost):
            return
        if outcome.success:
            self._count_k[model] += 1.0
            weight = max(1.0 / self._count_k[model], _MIN_WEIGHT)
            before = self._mean_cost_k[model]
            self._mean_cost_k[model] = outcome.cost if math.isnan(before) else before + weight * (outcome.cost - before)
        self._recent_cost += _SMOOTHING * (outcome.cost - self._recent_cost)
        excess = min(_MAX_EXCESS, self._recent_cost / self._budget - 1.0)
        self.multiplier = min(_MAX_MULTIPLIER, max(_MIN_MULTIPLIER, self.multiplier * math.exp(_STEP * excess)))


def reward_of(world: World, objective: Objective, outcome: CallOutcome) -> float | None:
    """The reward that rivals maximise: quality scaled to [0, 1], less the objective's weights times cost (dollars) and latency
    (seconds).

    ``None`` if quality was not reported. A failed call is worth 0.
    """
    if not outcome.success:
        return 0.0
    if not outcome.quality_reported:
        return None
    width = world.quality.width
    return _weighed(objective, (outcome.quality - world.quality.min) / width, outcome.cost, outcome.latency, width)


def warm_rewards(world: World, objective: Objective) -> Array:
    """``reward_of`` every row of the warm start, which the world must have, (n, k)."""
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


def scale_prices(prices: Prices, factor: float) -> Prices:
    """List prices times ``factor``."""
    return Prices(factor * prices.input_per_million, factor * prices.output_per_million, factor * prices.per_request)


def check_reward_objective(policy: PolicySpec, objective: Objective) -> None:
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
