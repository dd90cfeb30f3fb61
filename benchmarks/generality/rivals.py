"""Linear UCB and linear Thompson sampling as anyone would write them: the online rivals of the generality benchmark.

Both keep a ridge regression (precision 1) of quality, cost and latency for each model on the same features, try each model
once, and then decide by the objective on the predictions. UCB adds one standard deviation of the predicted quality, TS draws
from it; the noise is the running deviation of the residuals of all models. A budget is kept by the dual step of the
ParetoBandit paper: a running mean of cost, λ moved by 0.05 of its relative excess, between 0 and 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pointsman.bandit.catalog import FLOOR_MODES, Mode, Objective

Array = npt.NDArray[np.float64]


def linear(
    kind: str,
    z_nd: Array,
    outcome_snk: Array,
    warm: tuple[Array, Array] | None,
    order_n: Sequence[int],
    objective: Objective,
    budget: float | None,
    delay: int,
    rng: np.random.Generator,
) -> npt.NDArray[np.intp]:
    """The models chosen (n, by row). ``kind`` is ``lin-ucb`` or ``lin-ts``; ``outcome_snk`` quality, cost, latency;
    ``warm`` features and outcomes of a table to learn in full first; outcomes are known ``delay`` rounds late.
    """
    n, dim = z_nd.shape
    models = outcome_snk.shape[2]
    cov_kdd = np.repeat(np.eye(dim)[None], models, axis=0)
    theta_ksd = np.zeros((models, 3, dim))
    tried_k = np.zeros(models, dtype=np.int64)
    squares, count = 0.1, 1.0

    def learn(model: int, z_d: Array, y_s: Array) -> None:
        nonlocal squares, count
        v_d = cov_kdd[model] @ z_d
        widening = 1.0 + float(z_d @ v_d)
        residual_s = y_s - theta_ksd[model] @ z_d
        squares, count = squares + float(residual_s[0]) ** 2 / widening, count + 1.0
        theta_ksd[model] += np.outer(residual_s, v_d) / widening
        cov_kdd[model] -= np.outer(v_d, v_d) / widening

    if warm is not None:
        for row, z_d in enumerate(warm[0]):
            for model in range(models):
                learn(model, z_d, warm[1][:, row, model])
                tried_k[model] += 1
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
            z_d = z_nd[row]
            mean_ks = theta_ksd @ z_d
            sd_k = np.sqrt(squares / count * np.maximum((cov_kdd @ z_d) @ z_d, 0.0))
            quality_k = mean_ks[:, 0] + (sd_k if kind == "lin-ucb" else sd_k * rng.standard_normal(models))
            cost_k, latency_k = np.maximum(mean_ks[:, 1], 0.0), np.maximum(mean_ks[:, 2], 0.0)
            penalty_k = 0.0 if budget is None else multiplier * cost_k / budget
            pick = _best(objective, mean_ks[:, 0], quality_k, cost_k, latency_k, penalty_k)
        chosen_n[row] = pick
        tried_k[pick] += 1
        if budget is not None:
            running += 0.05 * (outcome_snk[1, row, pick] - running)
            multiplier = min(5.0, max(0.0, multiplier + 0.05 * (running / budget - 1.0)))
    return chosen_n


def _best(
    objective: Objective, mean_k: Array, quality_k: Array, cost_k: Array, latency_k: Array, penalty_k: Array | float
) -> int:
    if objective.mode in FLOOR_MODES:
        floor = mean_k.max() - (objective.max_quality_loss or 0.0)
        if objective.min_quality is not None:
            floor = objective.min_quality
        if not (quality_k >= floor).any():
            return int(np.argmax(quality_k))
        price_k = cost_k if objective.mode is Mode.COST_FIRST else latency_k
        return int(np.argmin(np.where(quality_k >= floor, price_k, np.inf)))
    weighed_k = (objective.cost_weight or 0.0) * cost_k + (objective.latency_weight or 0.0) * latency_k
    return int(np.argmax(quality_k - weighed_k - penalty_k))
