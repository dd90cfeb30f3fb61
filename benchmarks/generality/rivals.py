"""The usual bandits as anyone would write them: what ours is compared with.

Those of the regret table play many worlds at a time, a *lane* each, with its own rewards, features and random numbers; a
failed call is worth 0, and what is not reported is not learned. ``linear`` knows objectives, budgets and warm starts, for the
grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from kit import Array

from pointsman.bandit.catalog import FLOOR_MODES, Mode, Objective
from pointsman.simulator.world.rounds import Rounds

Indices = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Lanes:
    """What every model would earn in each round of s worlds, (s, t, k); features (s, t, d), the intercept last."""

    reward_stk: Array
    reported_stk: Flags
    available_stk: Flags
    z_std: Array
    delay: int


def lanes_of(worlds: Sequence[tuple[Array, Rounds]], delay: int) -> Lanes:
    """The lanes of plain features (n, d) and rounds of each world."""
    return Lanes(
        np.array([np.where(rounds.success_tk, rounds.quality_tk, 0.0) for _, rounds in worlds]),
        np.array([rounds.quality_reported_tk | ~rounds.success_tk for _, rounds in worlds]),
        np.array([rounds.available_tk for _, rounds in worlds]),
        np.array([z_nd[rounds.row_t] for z_nd, rounds in worlds]),
        delay,
    )


class Bandit(Protocol):
    """Scores models, (s, k), the largest of which is chosen; learns the rewards (s) of models where ``known_s``."""

    def score(self, z_sd: Array, rng: np.random.Generator) -> Array:
        """What is compared."""

    def learn(self, model_s: Indices, z_sd: Array, reward_s: Array, known_s: Flags) -> None:
        """Learn one reward in each lane."""


def play_lanes(bandit: Bandit, lanes: Lanes, seed: int) -> Indices:
    """The models chosen, (s, t)."""
    rng = np.random.default_rng(seed)
    s, rounds, _ = lanes.reward_stk.shape
    lane_s, chosen_st = np.arange(s), np.zeros((s, rounds), dtype=np.intp)
    for t in range(rounds):
        score_sk = bandit.score(lanes.z_std[:, t], rng)
        chosen_st[:, t] = np.where(lanes.available_stk[:, t], score_sk, -np.inf).argmax(axis=1)
        past = t - lanes.delay
        if past >= 0:
            model_s = chosen_st[:, past]
            known_s = lanes.reported_stk[lane_s, past, model_s]
            bandit.learn(model_s, lanes.z_std[:, past], lanes.reward_stk[lane_s, past, model_s], known_s)
    return chosen_st


class Ridge:
    """Regressions of r responses for each of k models in s lanes, by rank-one updates from the precision 1."""

    def __init__(self, s: int, k: int, r: int, d: int) -> None:
        self._cov_skdd = np.tile(np.eye(d), (s, k, 1, 1))
        self._theta_skrd = np.zeros((s, k, r, d))

    def predict(self, z_sd: Array) -> tuple[Array, Array]:
        """Expected responses (s, k, r), and standard errors for noise of variance 1 (s, k)."""
        along_skd = np.matmul(self._cov_skdd, z_sd[:, None, :, None])[..., 0]
        variance_sk = np.matmul(along_skd, z_sd[:, :, None])[..., 0]
        mean_skr = np.matmul(self._theta_skrd, z_sd[:, None, :, None])[..., 0]
        return mean_skr, np.sqrt(np.maximum(variance_sk, 0.0))

    def learn(self, lane_s: Indices, model_s: Indices, z_sd: Array, y_sr: Array) -> Array:
        """Learn one answer in each of the lanes; the residuals (s, r) over the square root of 1 + zᵀΣz."""
        cov_sdd = self._cov_skdd[lane_s, model_s]
        along_sd = np.matmul(cov_sdd, z_sd[..., None])[..., 0]
        widening_s1 = 1.0 + (along_sd * z_sd).sum(axis=1)[:, None]
        residual_sr = y_sr - np.matmul(self._theta_skrd[lane_s, model_s], z_sd[..., None])[..., 0]
        self._theta_skrd[lane_s, model_s] += residual_sr[:, :, None] * (along_sd / widening_s1)[:, None, :]
        self._cov_skdd[lane_s, model_s] -= along_sd[:, :, None] * (along_sd / widening_s1)[:, None, :]
        return np.asarray(residual_sr / np.sqrt(widening_s1))


class Linear:
    """LinUCB and LinTS: a ridge regression of the reward for each model, a bound or a draw ``width`` standard errors wide."""

    def __init__(self, s: int, k: int, d: int, width: float, *, draws: bool) -> None:
        self._ridge, self._width, self._draws = Ridge(s, k, 1, d), width, draws

    def score(self, z_sd: Array, rng: np.random.Generator) -> Array:
        """Expected rewards and what is added to them."""
        mean_skr, error_sk = self._ridge.predict(z_sd)
        factor_sk = rng.standard_normal(error_sk.shape) if self._draws else 1.0
        return np.asarray(mean_skr[:, :, 0] + self._width * error_sk * factor_sk)

    def learn(self, model_s: Indices, z_sd: Array, reward_s: Array, known_s: Flags) -> None:
        """One rank-one update of one model."""
        self._ridge.learn(np.flatnonzero(known_s), model_s[known_s], z_sd[known_s], reward_s[known_s, None])


class BetaThompson:
    """Beta-Bernoulli Thompson sampling from the prior Beta(``prior``, ``prior``), perhaps with a ``discount`` of all data in each
    round (Raj and Kalyani, "Taming non-stationary bandits", arXiv:1707.09727).
    """

    def __init__(self, s: int, k: int, prior: float = 1.0, discount: float = 1.0) -> None:
        self._count_2sk = np.zeros((2, s, k))
        self._prior, self._discount, self._lane_s = prior, discount, np.arange(s)

    def score(self, z_sd: Array, rng: np.random.Generator) -> Array:
        """Draws."""
        return rng.beta(self._count_2sk[0] + self._prior, self._count_2sk[1] + self._prior)

    def learn(self, model_s: Indices, z_sd: Array, reward_s: Array, known_s: Flags) -> None:
        """Count."""
        self._count_2sk *= self._discount
        self._count_2sk[0, self._lane_s, model_s] += np.where(known_s, reward_s, 0.0)
        self._count_2sk[1, self._lane_s, model_s] += np.where(known_s, 1.0 - reward_s, 0.0)


class EpsilonGreedy:
    """The largest mean reward, or with probability ``epsilon`` any model; each is tried once first."""

    def __init__(self, s: int, k: int, epsilon: float) -> None:
        self._sum_sk, self._count_sk = np.zeros((s, k)), np.zeros((s, k))
        self._epsilon, self._lane_s = epsilon, np.arange(s)

    def score(self, z_sd: Array, rng: np.random.Generator) -> Array:
        """Means, 1.5 of what was never tried, and 2 to 3 where it explores."""
        mean_sk = np.where(self._count_sk == 0.0, 1.5, self._sum_sk / np.maximum(self._count_sk, 1.0))
        tie_sk = rng.random(mean_sk.shape)
        explores_s1 = rng.random((len(mean_sk), 1)) < self._epsilon
        return np.asarray(np.where(explores_s1, 2.0 + tie_sk, mean_sk + 1e-6 * tie_sk))

    def learn(self, model_s: Indices, z_sd: Array, reward_s: Array, known_s: Flags) -> None:
        """Add to the sums."""
        self._sum_sk[self._lane_s, model_s] += np.where(known_s, reward_s, 0.0)
        self._count_sk[self._lane_s, model_s] += known_s


NAMED = ("LinUCB", "LinTS", "Beta-TS", "ε-greedy")
"""The rivals that ours is held against."""
FORGETFUL = "discounted TS"
"""Beta-Bernoulli Thompson sampling that forgets, shown beside them."""


def bandits(s: int, k: int, d: int) -> Iterator[tuple[str, str, Bandit]]:
    """Kind, tuning and bandit for s lanes, k models, d features: a few tunings of each kind."""
    for width in (0.25, 0.5, 1.0):
        yield "LinUCB", f"{width:g}", Linear(s, k, d, width, draws=False)
        yield "LinTS", f"{width:g}", Linear(s, k, d, width, draws=True)
    for prior in (0.5, 1.0):
        yield "Beta-TS", f"{prior:g}", BetaThompson(s, k, prior)
    for epsilon in (0.01, 0.03, 0.1):
        yield "ε-greedy", f"{epsilon:g}", EpsilonGreedy(s, k, epsilon)
    for discount in (0.99, 0.997, 0.999):
        yield FORGETFUL, f"{discount:g}", BetaThompson(s, k, discount=discount)


class Warm(NamedTuple):
    """A table that is learned in full first: features (n, d), and quality, cost and latency (s, n, k)."""

    z_nd: Array
    outcome_snk: Array


def linear(
    draws: bool,
    z_nd: Array,
    outcome_snk: Array,
    warm: Warm | None,
    order_n: Sequence[int],
    objective: Objective,
    budget: float | None,
    delay: int,
    rng: np.random.Generator,
) -> Indices:
    """The models (n, by row) that linear UCB chooses, or linear Thompson sampling (``draws``).

    A regression of quality, cost and latency (``outcome_snk``) for each model; each model once, then the objective on the
    predictions, with one standard deviation of quality added, or a draw from it; the noise is the running deviation of the
    residuals of all models. A budget is kept by the dual step of the ParetoBandit paper: a running mean of cost, λ moved by 0.05
    of its relative excess, between 0 and 5. Outcomes are known ``delay`` rounds late.
    """
    n, models = len(z_nd), outcome_snk.shape[2]
    ridge, tried_k = Ridge(1, models, 3, z_nd.shape[1]), np.zeros(models, dtype=np.int64)
    squares, count = 0.1, 1.0
    lane = np.zeros(1, dtype=np.intp)

    def learn(model: int, z_d: Array, y_s: Array) -> None:
        nonlocal squares, count
        residual_1s = ridge.learn(lane, np.array([model]), z_d[None], y_s[None])
        squares, count = squares + float(residual_1s[0, 0]) ** 2, count + 1.0

    if warm is not None:
        for row, z_d in enumerate(warm.z_nd):
            for model in range(models):
                learn(model, z_d, warm.outcome_snk[:, row, model])
        tried_k += len(warm.z_nd)
    multiplier, running = 0.0, 0.0 if budget is None else budget
    chosen_n = np.zeros(n, dtype=np.intp)
    for t, row in enumerate(order_n):
        if t > delay:
            past = order_n[t - delay - 1]
            learn(int(chosen_n[past]), z_nd[past], outcome_snk[:, past, chosen_n[past]])
        untried = np.flatnonzero(tried_k == 0)
        if untried.size:
            pick = int(rng.choice(untried))
        else:
            mean_1ks, error_1k = ridge.predict(z_nd[row][None])
            sd_k = np.sqrt(squares / count) * error_1k[0]
            quality_k = mean_1ks[0, :, 0] + sd_k * (rng.standard_normal(models) if draws else 1.0)
            price_k = multiplier / budget if budget else 0.0
            pick = _best(objective, mean_1ks[0], quality_k, price_k)
        chosen_n[row] = pick
        tried_k[pick] += 1
        if budget is not None:
            running += 0.05 * (outcome_snk[1, row, pick] - running)
            multiplier = min(5.0, max(0.0, multiplier + 0.05 * (running / budget - 1.0)))
    return chosen_n


def _best(objective: Objective, mean_ks: Array, quality_k: Array, multiplier: float) -> int:
    """The model that an objective chooses, given what it takes quality to be; ``multiplier`` is a budget's, per dollar."""
    cost_k, latency_k = np.maximum(mean_ks[:, 1], 0.0), np.maximum(mean_ks[:, 2], 0.0)
    if objective.mode in FLOOR_MODES:
        floor = mean_ks[:, 0].max() - (objective.max_quality_loss or 0.0)
        if objective.min_quality is not None:
            floor = objective.min_quality
        if not (quality_k >= floor).any():
            return int(np.argmax(quality_k))
        price_k = cost_k if objective.mode is Mode.COST_FIRST else latency_k
        return int(np.argmin(np.where(quality_k >= floor, price_k, np.inf)))
    weighed_k = ((objective.cost_weight or 0.0) + multiplier) * cost_k + (objective.latency_weight or 0.0) * latency_k
    return int(np.argmax(quality_k - weighed_k))
