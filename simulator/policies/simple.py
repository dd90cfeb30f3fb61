"""Simple routers that teams run: uniform, ε-greedy and Beta-Bernoulli Thompson sampling for each task, and a rule on the
prompt's length.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pointsman.bandit.catalog import FLOOR_MODES, Mode, Objective, QualityRange
from pointsman.bandit.text import estimate_tokens
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.policies.base import Asked, Dual, reward_of, warm_rewards
from pointsman.simulator.policies.spec import Run, setting
from pointsman.simulator.world.rounds import Added, Notice, Outcome
from pointsman.simulator.world.world import World

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


class BetaThompson:
    """Thompson sampling with a Beta(1, 1) posterior of each model's success in each task.

    A reward r, clipped to [0, 1], is a success with probability r: Agrawal and Goyal, "Analysis of Thompson sampling for the
    multi-armed bandit problem" (COLT 2012), algorithm 2. It looks at the task and at nothing else of a prompt, as adaptive
    routers in gateways do. A warm start counts its rewards as fractions of successes.
    """

    def __init__(self, world: World, run: Run, rng: np.random.Generator) -> None:
        self._world, self._run, self._rng = world, run, rng
        tasks, k = len(world.tasks), len(world.table.models)
        self._won_tk, self._lost_tk = np.ones((tasks, k)), np.ones((tasks, k))
        self._there_k = np.array([model in world.present for model in world.table.models])
        if world.warm is not None:
            reward_nk = np.clip(warm_rewards(world, run.objective), 0.0, 1.0)
            won_t1k, count_t1k = sums_by_task(reward_nk[None], world.warm.task_n, tasks)
            self._won_tk[:, self._there_k] += won_t1k[:, 0]
            self._lost_tk[:, self._there_k] += (count_t1k - won_t1k)[:, 0]
        self._dual = Dual(world, run.budget)

    def notice(self, t: int, notice: Notice) -> None:
        """Draw for a new model too."""
        if isinstance(notice, Added):
            self._there_k[self._world.table.models.index(notice.model)] = True

    def see(self, world: World) -> None:
        """Other rows."""
        self._world = world

    def choose(self, t: int, row: int) -> int:
        """The highest draw of those that are there."""
        task = self._world.task_n[row]
        draw_k = self._rng.beta(self._won_tk[task], self._lost_tk[task]) - self._dual.penalty_k()
        return int(np.argmax(np.where(self._there_k, draw_k, -np.inf)))

    def learn(self, now: int, asked: Asked, outcome: Outcome) -> None:
        """Toss for a success."""
        self._dual.learn(asked.model, outcome)
        reward = reward_of(self._world, self._run.objective, outcome)
        if reward is None:
            return
        table_tk = self._won_tk if self._rng.random() < reward else self._lost_tk
        table_tk[self._world.task_n[asked.row], asked.model] += 1.0


class LengthRule:
    """Short prompts to a cheap model, long ones to a good one: ``length-rule``, or ``length-rule:TOKENS`` with the limit.

    The cheap model has the lowest mean cost, the good one the best mean quality, both of the warm start, or without one of the
    table itself, in hindsight, which flatters the rule. So does its limit by default, the median length in the table. It
    learns nothing, and knows no budget.
    """

    def __init__(self, world: World, run: Run) -> None:
        tokens_n, texts = world.table.input_tokens_n, world.table.texts
        if (tokens_n < 0).any():
            if texts is None:
                raise SettingError(
                    f"policy {run.policy!r}: expected the input tokens or the text of every prompt of {world.table.name}"
                )
            tokens_n = np.where(tokens_n < 0, [estimate_tokens(text) for text in texts], tokens_n)
        columns = [world.table.models.index(model) for model in world.present]
        if world.warm is not None:
            quality_nk, cost_nk, _ = world.warm.outcome_snk
        else:
            quality_nk, cost_nk = world.table.quality_nk[:, columns], world.table.cost_nk[:, columns]
        if np.isnan(cost_nk).any():
            raise SettingError(f"policy {run.policy!r}: expected the cost of every outcome of {world.table.name}")
        self._cheap = columns[int(cost_nk.mean(axis=0).argmin())]
        self._good = columns[int(quality_nk.mean(axis=0).argmax())]
        limit = setting(run.policy, float(np.median(tokens_n)), "a number of tokens")
        self._long_n = tokens_n > limit

    def notice(self, t: int, notice: Notice) -> None:
        """Nothing: a rule stays as it is."""

    def choose(self, t: int, row: int) -> int:
        """By length."""
        return self._good if self._long_n[row] else self._cheap

    def learn(self, now: int, asked: Asked, outcome: Outcome) -> None:
        """Nothing."""


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


EPSILON = 0.1
"""Share of the traffic that ``epsilon-greedy`` spends on models drawn at random."""


def greedy(mean_sk: Array, objective: Objective, quality: QualityRange) -> int:
    """The model that a resolved ``objective`` prefers if quality (scaled to [0, 1]), cost and latency are their means."""
    quality_k, cost_k, latency_k = mean_sk
    if objective.mode in FLOOR_MODES:
        if objective.min_quality is not None:
            floor = (objective.min_quality - quality.min) / quality.width
        else:
            floor = quality_k.max() - (objective.max_quality_loss or 0.0) / quality.width
        if not (quality_k >= floor).any():
            return int(np.argmax(quality_k))
        price_k = cost_k if objective.mode is Mode.COST_FIRST else latency_k
        return int(np.argmin(np.where(quality_k >= floor, price_k, np.inf)))
    weighed_k = (objective.cost_weight or 0.0) * cost_k + (objective.latency_weight or 0.0) * latency_k
    return int(np.argmax(quality_k - weighed_k / quality.width))


def sums_by_task(outcome_snk: Array, task_n: Indices, tasks: int) -> tuple[Array, Array]:
    """Sums and counts, each (t, s, k), of the outcomes that are known; rows whose task is -1 are left out."""
    sum_tsk = np.zeros((tasks, outcome_snk.shape[0], outcome_snk.shape[2]))
    count_tsk = np.zeros_like(sum_tsk)
    rows = np.flatnonzero(task_n >= 0)
    known_nsk = np.moveaxis(outcome_snk[:, rows], 1, 0)
    np.add.at(sum_tsk, task_n[rows], np.nan_to_num(known_nsk, nan=0.0))
    np.add.at(count_tsk, task_n[rows], (~np.isnan(known_nsk)).astype(np.float64))
    return sum_tsk, count_tsk
