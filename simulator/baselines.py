"""What a routing policy is set beside: controls that need no context, and optima that know all in hindsight.

``fixed:<model>`` could be run in earnest. The others know every outcome beforehand and are bounds: ``best-fixed``;
``best-mix``, which splits the traffic between models without looking at a prompt; ``task-lp``, which splits each task's;
``prompt-oracle``, which splits each prompt's. Within a budget (mean dollars a request) each of the last three maximises total
utility over a larger set than the one before, so they are ordered.

All three are one linear program: groups of prompts, each with shares of the models that sum to 1, maximise utility, one
constraint on total cost. It is the relaxed multiple-choice knapsack, whose exact solution is to start every group at its
cheapest model and buy improvements along each group's concave hull, best utility per dollar first (Sinha and Zoltners 1979;
Kellerer et al., Knapsack Problems, 2004, 11.2).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pointsman.bandit.catalog import FLOOR_MODES, Mode, Objective, QualityRange

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

EPSILON = 0.1
"""Share of the traffic that ``epsilon-greedy`` spends on models drawn at random."""


def best_shares(utility_gk: Array, cost_gk: Array | None, weight_g: Array, budget: float | None) -> Array:
    """Shares of k models in g groups, (g, k), that maximise Σ weight·share·utility with mean cost within ``budget``.

    ``weight_g`` > 0 are the prompts of each group; ``cost_gk`` (mean dollars a prompt) is needed with a budget. Of equal
    utilities the cheaper is taken. If even the cheapest shares cost more than ``budget``, those are returned.
    """
    groups = len(utility_gk)
    share_gk = np.zeros_like(utility_gk)
    if cost_gk is None or budget is None:
        cost_gk = np.zeros_like(utility_gk) if cost_gk is None else cost_gk
        order = np.lexsort((cost_gk, -utility_gk))
        share_gk[np.arange(groups), order[:, 0]] = 1.0
        return share_gk
    steps: list[tuple[float, float, int, int, int]] = []  # -slope, cost, group, from model, to model
    left = budget * float(weight_g.sum())
    for g in range(groups):
        hull = _hull(utility_gk[g], cost_gk[g])
        share_gk[g, hull[0]] = 1.0
        left -= float(weight_g[g] * cost_gk[g, hull[0]])
        for a, b in pairwise(hull):
            extra = float(cost_gk[g, b] - cost_gk[g, a])
            slope = float(utility_gk[g, b] - utility_gk[g, a]) / extra
            steps.append((-slope, float(weight_g[g]) * extra, g, a, b))
    steps.sort(key=lambda step: step[0])  # stable: within a group slopes fall anyway
    for _, cost, g, a, b in steps:
        if left <= 0.0:
            break
        bought = min(1.0, left / cost)
        share_gk[g, a], share_gk[g, b] = 1.0 - bought, bought
        left -= cost
    return share_gk


def _hull(utility_k: Array, cost_k: Array) -> list[int]:
    """Models on the upper concave hull of utility over cost, from the cheapest (best of equals) to the best (cheapest)."""
    hull: list[int] = []
    for k in np.lexsort((-utility_k, cost_k)).tolist():
        if hull and utility_k[k] <= utility_k[hull[-1]]:
            continue
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (utility_k[b] - utility_k[a]) * (cost_k[k] - cost_k[b]) > (utility_k[k] - utility_k[b]) * (
                cost_k[b] - cost_k[a]
            ):
                break
            hull.pop()
        hull.append(k)
    return hull


def grouped_optimum(utility_nk: Array, cost_nk: Array | None, group_n: Indices, budget: float | None) -> Array:
    """The best shares that are the same for all prompts of a group, for each prompt, (n, k)."""
    weight_g = np.bincount(group_n).astype(np.float64)
    utility_gk = _means(utility_nk, group_n, weight_g)
    cost_gk = None if cost_nk is None else _means(cost_nk, group_n, weight_g)
    return best_shares(utility_gk, cost_gk, weight_g, budget)[group_n]


def mix_at(quality_k: Array, cost_k: Array, cost: float) -> Array:
    """Shares (k) of the static mix of best mean quality at a mean cost of ``cost`` dollars, of models whose means are known.

    Below the cheapest model that model: then the mix may spend more.
    """
    known = np.flatnonzero(~np.isnan(quality_k) & ~np.isnan(cost_k))
    share_k = np.zeros(len(quality_k))
    share_k[known] = best_shares(quality_k[None, known], cost_k[None, known], np.ones(1), cost)[0]
    return share_k


def best_fixed(utility_nk: Array, cost_nk: Array | None, budget: float | None) -> int:
    """The model of the best mean utility among those whose mean cost is within ``budget``; if none is, the cheapest."""
    utility_k = utility_nk.mean(axis=0)
    if cost_nk is None or budget is None:
        return int(np.argmax(utility_k))
    cost_k = cost_nk.mean(axis=0)
    if not (cost_k <= budget).any():
        return int(np.argmin(cost_k))
    return int(np.argmax(np.where(cost_k <= budget, utility_k, -np.inf)))


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


def _means(value_nk: Array, group_n: Indices, weight_g: Array) -> Array:
    sum_gk = np.zeros((len(weight_g), value_nk.shape[1]))
    np.add.at(sum_gk, group_n, value_nk)
    return sum_gk / weight_g[:, None]
