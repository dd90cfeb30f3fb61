"""LinUCB: one ridge regression of the reward for each model, and the model of the highest upper confidence bound.

Li, Chu, Langford and Schapire, "A contextual-bandit approach to personalized news article recommendation" (WWW 2010),
algorithm 1, with disjoint models. Precisions are inverted once and then updated by rank one (Sherman and Morrison 1950).

>>> inverse_dd = np.eye(2)
>>> update_inverse(inverse_dd, np.array([1.0, 0.0]))
>>> inverse_dd.tolist()
[[0.5, 0.0], [0.0, 1.0]]
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pointsman.simulator.policies.base import Choice, Rival, warm_rewards
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.world.world import World

Array = npt.NDArray[np.float64]

ALPHA = 1.0
"""Width of the bound, in standard errors of a reward of unit noise: a model that was never tried has a bound above any reward in
[0, 1], so that each is tried at least once."""


class LinUcb(Rival):
    """Disjoint LinUCB on the world's plain features."""

    def __init__(self, world: World, run: Run, rng: np.random.Generator) -> None:
        super().__init__(world, run, rng)
        k, d = len(world.table.models), world.z_np.shape[1]
        self._covariance_kdd = np.tile(np.eye(d), (k, 1, 1))
        self._sum_kd, self._theta_kd = np.zeros((k, d)), np.zeros((k, d))
        if world.warm is not None:
            reward_nk = warm_rewards(world, run.objective)
            for column, reward_n in zip(world.present, reward_nk.T, strict=True):
                model, known_n = self.number_by_model[column], ~np.isnan(reward_n)
                z_np = world.warm.z_np[known_n]
                self._covariance_kdd[model] = np.linalg.inv(np.eye(d) + z_np.T @ z_np)
                self._sum_kd[model] = reward_n[known_n] @ z_np
                self._theta_kd[model] = self._covariance_kdd[model] @ self._sum_kd[model]

    def choose(self, t: int, row: int) -> int:
        """The model of the highest bound of those that are available."""
        z_d = self.world.z_np[row]
        width_k = np.sqrt(np.maximum((self._covariance_kdd @ z_d) @ z_d, 0.0))
        bound_k = self._theta_kd @ z_d + ALPHA * width_k - self.budget.penalties_k()
        return int(np.argmax(np.where(self.available_k, bound_k, -np.inf)))

    def learn_reward(self, choice: Choice, reward: float) -> None:
        """One rank-one update of one model."""
        z_d, covariance_dd = self.world.z_np[choice.row], self._covariance_kdd[choice.model]
        update_inverse(covariance_dd, z_d)
        self._sum_kd[choice.model] += reward * z_d
        self._theta_kd[choice.model] = covariance_dd @ self._sum_kd[choice.model]


def update_inverse(inverse_dd: Array, z_d: Array) -> None:
    """Make the inverse of A the inverse of A + z zᵀ, in place (Sherman and Morrison 1950)."""
    along_d = inverse_dd @ z_d
    inverse_dd -= np.outer(along_d, along_d) / (1.0 + float(z_d @ along_d))
