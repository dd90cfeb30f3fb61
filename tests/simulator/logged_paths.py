"""Many logs at once, of a policy that learns while it logs: the same bandit, played again and again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Paths:
    """``context_rn`` and ``chosen_rn`` are numbers, ``logged_rnk`` the logging policy, ``reward_rn`` 0 or 1."""

    context_rn: npt.NDArray[np.intp]
    chosen_rn: npt.NDArray[np.intp]
    logged_rnk: Array
    reward_rn: Array

    @property
    def propensity_rn(self) -> Array:
        return np.take_along_axis(self.logged_rnk, self.chosen_rn[..., None], axis=-1)[..., 0]

    def weight_rn(self, target_ck: Array) -> Array:
        return target_ck[self.context_rn, self.chosen_rn] / self.propensity_rn


def bandit_paths(
    seed: int, paths: int, n: int, mean_ck: Array, *, floor: float = 0.02, decay: float = 0.7, drift: float = 0.0
) -> Paths:
    """A greedy learner per context: what is not its favourite shares max(t^-decay / 2, floor).

    Contexts are uniform. ``drift`` adds drift · sin(2π t/n) to every mean.
    """
    rng = np.random.default_rng(seed)
    contexts, k = mean_ck.shape
    each_r = np.arange(paths)
    context_rn = rng.integers(0, contexts, (paths, n))
    pick_rn, luck_rn = rng.random((paths, n)), rng.random((paths, n))
    won_rck, tried_rck = np.full((paths, contexts, k), 0.5), np.ones((paths, contexts, k))
    won_rck += 1e-6 * rng.random(won_rck.shape)
    chosen_rn = np.empty((paths, n), dtype=np.intp)
    logged_rnk, reward_rn = np.empty((paths, n, k)), np.empty((paths, n))
    for t in range(n):
        context_r = context_rn[:, t]
        favourite_r = (won_rck[each_r, context_r] / tried_rck[each_r, context_r]).argmax(axis=1)
        spare = max(0.5 * (t + 1.0) ** -decay, floor)
        logged_rk = np.full((paths, k), spare / k)
        logged_rk[each_r, favourite_r] += 1.0 - spare
        chosen_r = (pick_rn[:, t, None] > np.cumsum(logged_rk, axis=1)[:, :-1]).sum(axis=1)
        mean_r = mean_ck[context_r, chosen_r] + drift * np.sin(2.0 * np.pi * t / n)
        reward_r = (luck_rn[:, t] < mean_r).astype(np.float64)
        won_rck[each_r, context_r, chosen_r] += reward_r
        tried_rck[each_r, context_r, chosen_r] += 1.0
        chosen_rn[:, t], logged_rnk[:, t], reward_rn[:, t] = chosen_r, logged_rk, reward_r
    return Paths(context_rn, chosen_rn, logged_rnk, reward_rn)


def most_misses(paths: int, rate: float) -> int:
    """More misses than this happen once in a thousand if each path misses with probability ``rate``."""
    return int(binom.ppf(0.999, paths, rate))


def past_means(reward_n: Array, chosen_n: npt.NDArray[np.intp], models: int, start: float) -> Array:
    """Predictions that need no model: each model's mean reward over *earlier* rounds, (n, models).

    A model not seen yet is predicted at ``start``, which afterwards counts as one round.
    """
    reward_n = np.asarray(reward_n, dtype=np.float64)
    is_chosen_nk = np.asarray(chosen_n)[:, None] == np.arange(models)
    earned_nk = np.cumsum(np.where(is_chosen_nk, reward_n[:, None], 0.0), axis=0)
    seen_nk = np.cumsum(is_chosen_nk, axis=0)
    mean_nk = (start + earned_nk) / (1.0 + seen_nk)
    return np.concatenate((np.full((1, models), start), mean_nk[:-1]))
