"""Simple routers that teams run: Beta-Bernoulli Thompson sampling for each task, and a rule on the prompt's length."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pointsman.bandit.text import estimate_tokens
from pointsman.simulator.baselines import sums_by_task
from pointsman.simulator.changes import Added, Notice, Outcome
from pointsman.simulator.configured import setting
from pointsman.simulator.online import Asked, Dual, reward_of, warm_rewards
from pointsman.simulator.utility import SettingError
from pointsman.simulator.world import Run, World

Array = npt.NDArray[np.float64]


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
