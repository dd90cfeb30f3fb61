"""What every policy of a replay is, and what the rivals of ours share.

A rival that knows no budget gets the simplest one that does not cripple it, the same for each: it maximises
reward − λ·c/B, where c is a model's running mean cost and B the budget. λ is found by multiplicative weights on the constraint
(the dual of Badanidiyuru, Kleinberg & Slivkins, arXiv:1305.2545): after every call c̄ ← .95 c̄ + .05 cost and
λ ← λ·exp(.05 (c̄/B − 1)), the bracket at most 3. Being multiplicative it needs no scale of costs; the additive step on
log-normalised cost of the ParetoBandit paper did worse for every rival.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pointsman.bandit.catalog import FLOOR_MODES, Mode, Objective, Prices
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.world.rounds import Notice, Outcome
from pointsman.simulator.world.world import World

Array = npt.NDArray[np.float64]

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
        """The rows from now on are those of ``world`` (``simulator.world.world.window``)."""


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
