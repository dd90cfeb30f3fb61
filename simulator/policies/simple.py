"""Simple routers that teams run: a uniform draw, ε-greedy and Beta-Bernoulli Thompson sampling for each task, and a rule on the
prompt's length.

>>> from pointsman.bandit.catalog import Objective
>>> outcome_sk = np.array([[0.7, 0.9], [0.1, 0.4], [1.0, 2.0]])  # quality, cost, latency of two models
>>> greedy(outcome_sk, Objective(Mode.QUALITY_FIRST), QualityRange())
1
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pointsman.bandit.catalog import FLOOR_MODES, Mode, Objective, QualityRange
from pointsman.bandit.text import estimate_tokens
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.policies.base import Choice, Rival, warm_rewards
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.world.rounds import CallOutcome, NewModelNotice, Notice
from pointsman.simulator.world.world import World

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

EPSILON = 0.1
"""Share of the traffic that ``epsilon-greedy`` spends on models drawn at random."""


class Uniform:
    """A model drawn evenly, whatever the prompt."""

    def __init__(self, world: World, run: Run, rng: np.random.Generator) -> None:
        self._rng = rng
        self._models = [world.table.models.index(model) for model in world.present]
        self._names = world.table.models

    def notice(self, t: int, notice: Notice) -> None:
        """Draw from a new model too."""
        if isinstance(notice, NewModelNotice):
            self._models.append(self._names.index(notice.model))

    def move_to(self, world: World) -> None:
        """Nothing: all rows are alike."""

    def choose(self, t: int, row: int) -> int:
        """Draw."""
        return self._models[self._rng.integers(len(self._models))]

    def learn(self, now: int, choice: Choice, outcome: CallOutcome) -> None:
        """Nothing."""


class EpsilonGreedy(Rival):
    """ε-greedy on each task's mean quality, cost and latency.

    A model that its task has not tried comes first; then the objective decides on the means, less the budget's penalties.
    """

    def __init__(self, world: World, run: Run, rng: np.random.Generator) -> None:
        super().__init__(world, run, rng)
        tasks, k = len(world.tasks), len(world.table.models)
        self._sum_tsk, self._count_tsk = np.zeros((tasks, 3, k)), np.zeros((tasks, 3, k))
        if world.warm is not None:
            sum_tsk, count_tsk = sums_by_task(world.warm.outcome_snk, world.warm.task_n, tasks)
            self._sum_tsk[:, :, self.available_k], self._count_tsk[:, :, self.available_k] = sum_tsk, count_tsk

    def choose(self, t: int, row: int) -> int:
        """Try what is untried, explore or exploit."""
        task = self.world.task_n[row]
        available = np.flatnonzero(self.available_k)
        count_sk = self._count_tsk[task][:, available]
        untried = np.flatnonzero(count_sk[0] == 0.0)
        if untried.size:
            return int(available[self.rng.choice(untried)])
        if self.rng.random() < EPSILON:
            return int(available[self.rng.integers(len(available))])
        mean_sk = self._sum_tsk[task][:, available] / np.maximum(count_sk, 1.0)
        mean_sk[0] -= self.budget.penalties_k()[available]
        return int(available[greedy(mean_sk, self.run.objective, self.world.quality)])

    def learn(self, now: int, choice: Choice, outcome: CallOutcome) -> None:
        """Add what was reported to the sums; a failed call is worth the least quality."""
        quality = self.world.quality
        has_quality = outcome.quality_reported or not outcome.success
        value_s = np.array(
            [
                (outcome.quality - quality.min) / quality.width if has_quality else np.nan,
                outcome.cost,
                outcome.latency,
            ]
        )
        reported_s = ~np.isnan(value_s)
        task = self.world.task_n[choice.row]
        self._sum_tsk[task, reported_s, choice.model] += value_s[reported_s]
        self._count_tsk[task, reported_s, choice.model] += 1.0
        self.budget.learn(choice.model, outcome)

    def learn_reward(self, choice: Choice, reward: float) -> None:
        """Nothing: the objective decides on the means of what makes a reward."""


class BetaThompson(Rival):
    """Thompson sampling with a Beta(1, 1) posterior of each model's success in each task.

    A reward r, clipped to [0, 1], is a success with probability r: Agrawal and Goyal, "Analysis of Thompson sampling for the
    multi-armed bandit problem" (COLT 2012), algorithm 2. It looks at the task and at nothing else of a prompt, as adaptive
    routers in gateways do. A warm start counts its rewards as fractions of successes.
    """

    def __init__(self, world: World, run: Run, rng: np.random.Generator) -> None:
        super().__init__(world, run, rng)
        tasks, k = len(world.tasks), len(world.table.models)
        self._successes_tk, self._failures_tk = np.ones((tasks, k)), np.ones((tasks, k))
        if world.warm is not None:
            reward_nk = np.clip(warm_rewards(world, run.objective), 0.0, 1.0)
            sum_t1k, count_t1k = sums_by_task(reward_nk[None], world.warm.task_n, tasks)
            self._successes_tk[:, self.available_k] += sum_t1k[:, 0]
            self._failures_tk[:, self.available_k] += (count_t1k - sum_t1k)[:, 0]

    def choose(self, t: int, row: int) -> int:
        """The model of the highest draw of those that are available."""
        task = self.world.task_n[row]
        draw_k = self.rng.beta(self._successes_tk[task], self._failures_tk[task]) - self.budget.penalties_k()
        return int(np.argmax(np.where(self.available_k, draw_k, -np.inf)))

    def learn_reward(self, choice: Choice, reward: float) -> None:
        """Toss for a success."""
        count_tk = self._successes_tk if self.rng.random() < reward else self._failures_tk
        count_tk[self.world.task_n[choice.row], choice.model] += 1.0


class LengthRule:
    """Short prompts to a cheap model, long ones to a good one: ``length-rule``, or ``length-rule:TOKENS`` with the limit.

    The cheap model has the lowest mean cost, the good one the best mean quality, both of the warm start, or without one of the
    table itself, in hindsight, which flatters the rule. So does its limit by default, the median length in the table. It
    learns nothing, and knows no budget. Raises ``SettingError`` where lengths or costs are not known.
    """

    def __init__(self, world: World, run: Run, rng: np.random.Generator | None = None) -> None:
        tokens_n, texts = world.table.input_tokens_n, world.table.texts
        if (tokens_n < 0).any():
            if texts is None:
                raise SettingError(
                    f"policy {run.policy.text!r}: expected the input tokens or the text of every prompt of {world.table.name}"
                )
            tokens_n = np.where(tokens_n < 0, [estimate_tokens(text) for text in texts], tokens_n)
        columns = [world.table.models.index(model) for model in world.present]
        if world.warm is not None:
            quality_nk, cost_nk, _ = world.warm.outcome_snk
            if np.isnan(cost_nk).all(axis=0).any():
                raise SettingError(f"policy {run.policy.text!r}: expected every model in the warm start's table")
        else:
            quality_nk, cost_nk = world.table.quality_nk[:, columns], world.table.cost_nk[:, columns]
        if np.isnan(cost_nk).any():
            raise SettingError(f"policy {run.policy.text!r}: expected the cost of every outcome of {world.table.name}")
        self._cheap = columns[int(cost_nk.mean(axis=0).argmin())]
        self._good = columns[int(quality_nk.mean(axis=0).argmax())]
        self._long_n = tokens_n > run.policy.number("tokens", float(np.median(tokens_n)))

    def notice(self, t: int, notice: Notice) -> None:
        """Nothing: a rule stays as it is."""

    def choose(self, t: int, row: int) -> int:
        """By length."""
        return self._good if self._long_n[row] else self._cheap

    def learn(self, now: int, choice: Choice, outcome: CallOutcome) -> None:
        """Nothing."""


def greedy(mean_sk: Array, objective: Objective, quality: QualityRange) -> int:
    """The model that a resolved ``objective`` prefers if quality (scaled to [0, 1]), cost and latency are their means."""
    quality_k, cost_k, latency_k = mean_sk
    if objective.mode in FLOOR_MODES:
        if objective.min_mean_quality is not None:
            floor = (objective.min_mean_quality - quality.min) / quality.width
        elif objective.min_quality is not None:
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
