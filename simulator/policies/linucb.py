"""LinUCB: one ridge regression of the reward for each model, and the model of the highest upper confidence bound.

Li, Chu, Langford and Schapire, "A contextual-bandit approach to personalized news article recommendation" (WWW 2010),
algorithm 1, with disjoint models. Precisions are inverted once and then updated by rank one (Sherman and Morrison 1950).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pointsman.simulator.policies.base import Asked, Dual, reward_of, warm_rewards
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.world.rounds import Added, Notice, Outcome
from pointsman.simulator.world.world import World

Array = npt.NDArray[np.float64]

ALPHA = 1.0
"""Width of the bound, in standard errors of a reward of unit noise: a model that was never tried has a bound above any reward in
[0, 1], so that each is tried at least once."""


class LinUcb:
    """Disjoint LinUCB on the world's plain features; a budget acts through ``simulator.policies.base.Dual``.

    Rewards are ``simulator.policies.base.reward_of``; what was not reported is not learned.
    """

    def __init__(self, world: World, run: Run) -> None:
        self._world, self._run = world, run
        k, d = len(world.table.models), world.z_np.shape[1]
        self._covariance_kdd = np.tile(np.eye(d), (k, 1, 1))
        self._sum_kd, self._theta_kd = np.zeros((k, d)), np.zeros((k, d))
        self._there_k = np.array([model in world.present for model in world.table.models])
        if world.warm is not None:
            reward_nk = warm_rewards(world, run.objective)
            columns = [world.table.models.index(model) for model in world.present]
            precision_dd = np.eye(d) + world.warm.z_np.T @ world.warm.z_np
            self._covariance_kdd[columns] = np.linalg.inv(precision_dd)
            self._sum_kd[columns] = reward_nk.T @ world.warm.z_np
            self._theta_kd[columns] = self._sum_kd[columns] @ self._covariance_kdd[columns[0]]
        self._dual = Dual(world, run.budget)

    def notice(self, t: int, notice: Notice) -> None:
        """Choose a new model too."""
        if isinstance(notice, Added):
            self._there_k[self._world.table.models.index(notice.model)] = True

    def see(self, world: World) -> None:
        """Other rows."""
        self._world = world

    def choose(self, t: int, row: int) -> int:
        """The highest bound of those that are there."""
        z_d = self._world.z_np[row]
        width_k = np.sqrt(np.maximum((self._covariance_kdd @ z_d) @ z_d, 0.0))
        bound_k = self._theta_kd @ z_d + ALPHA * width_k - self._dual.penalty_k()
        return int(np.argmax(np.where(self._there_k, bound_k, -np.inf)))

    def learn(self, now: int, asked: Asked, outcome: Outcome) -> None:
        """One rank-one update of one model."""
        self._dual.learn(asked.model, outcome)
        reward = reward_of(self._world, self._run.objective, outcome)
        if reward is None:
            return
        z_d, covariance_dd = self._world.z_np[asked.row], self._covariance_kdd[asked.model]
        along_d = covariance_dd @ z_d
        covariance_dd -= np.outer(along_d, along_d) / (1.0 + float(z_d @ along_d))
        self._sum_kd[asked.model] += reward * z_d
        self._theta_kd[asked.model] = covariance_dd @ self._sum_kd[asked.model]
