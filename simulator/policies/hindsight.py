"""Benchmarks of a routing policy: controls without context, and optima in hindsight.

``fixed:<model>`` could be run in earnest. The others know every outcome beforehand and are bounds: ``best-fixed``;
``best-mix``, which splits the traffic between models without looking at a prompt; ``task-lp``, which splits each task's;
``prompt-oracle``, which splits each prompt's. Within a budget (mean dollars a request) each of the last three maximises total
utility over a larger set than the one before, so they are ordered.

``best-fixed`` is the model that the rule that serves would choose (``policies.rule``). Under a floor of each request's quality
(``COST_FIRST``, ``LATENCY_FIRST``) and without a budget, ``best-mix`` and ``task-lp`` go by the rule too: the cheapest or fastest
shares whose mean quality keeps the floor, over all prompts or in every task.

All three are one linear program: groups of prompts, each with shares of the models that sum to 1, maximise utility, one
constraint on total cost. It is the relaxed multiple-choice knapsack, whose exact solution is to start every group at its
cheapest model and buy improvements along each group's concave hull, best utility per dollar first (Sinha and Zoltners 1979;
Kellerer et al., Knapsack Problems, 2004, 11.2).

>>> mix_at(np.array([0.5, 0.9]), np.array([1.0, 3.0]), cost=2.0).tolist()  # half the prompts to each of two models
[0.5, 0.5]
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pointsman.simulator.policies.rule import Rule, best_static, rule_of, worth_of
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.world.rounds import Rounds
from pointsman.simulator.world.utility import utility_of
from pointsman.simulator.world.world import World

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

HINDSIGHT = ("best-fixed", "best-mix", "task-lp", "prompt-oracle")
"""Controls that know every outcome beforehand."""


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
    complete = np.flatnonzero(~np.isnan(quality_k) & ~np.isnan(cost_k))
    share_k = np.zeros(len(quality_k))
    share_k[complete] = best_shares(quality_k[None, complete], cost_k[None, complete], np.ones(1), cost)[0]
    return share_k


def _constraint(run: Run, quality_tk: Array, cost_tk: Array | None) -> tuple[Array | None, float | None]:
    """What is bounded on average, (t, k), and its bound: cost within the budget, or quality, negative, above its floor."""
    floor = run.objective.min_mean_quality
    return (cost_tk, run.budget) if floor is None else (-quality_tk, -floor)


def best_fixed(utility_nk: Array, cost_nk: Array | None, budget: float | None) -> int:
    """The model of the best mean utility among those whose mean cost is within ``budget``; if none is, the cheapest."""
    utility_k = utility_nk.mean(axis=0)
    if cost_nk is None or budget is None:
        return int(np.argmax(utility_k))
    cost_k = cost_nk.mean(axis=0)
    if not (cost_k <= budget).any():
        return int(np.argmin(cost_k))
    return int(np.argmax(np.where(cost_k <= budget, utility_k, -np.inf)))


def _means(value_nk: Array, group_n: Indices, weight_g: Array) -> Array:
    sum_gk = np.zeros((len(weight_g), value_nk.shape[1]))
    np.add.at(sum_gk, group_n, value_nk)
    return sum_gk / weight_g[:, None]


def rule_in(world: World, run: Run, rounds: Rounds, utility_tk: Array) -> Rule:
    """The rule that serves in these rounds. What is relative is so to the models that are there from first to last."""
    expected, always_k = rounds.expected, np.asarray(rounds.available_tk.all(axis=0))
    task_t = np.unique(world.task_n[rounds.row_t], return_inverse=True)[1]
    return rule_of(
        run.objective,
        np.where(always_k, expected.quality_tk, np.nanmin(expected.quality_tk)),
        worth_of(run.objective, utility_tk, expected.cost_tk, expected.latency_tk),
        np.where(always_k, rounds.success_tk, 0.0),
        task_t,
    )


def best_fixed_in(world: World, run: Run, rounds: Rounds, utility_tk: Array) -> int:
    """The model that the rule would choose for all prompts, of those that are there all the time and within the budget.

    If none is within it, the cheapest.
    """
    is_option_k = np.asarray(rounds.available_tk.all(axis=0))
    cost_tk = rounds.expected.cost_tk
    if run.budget is not None and not np.isnan(cost_tk).any():
        cost_k = np.where(is_option_k, cost_tk.mean(axis=0), np.inf)
        is_option_k &= cost_k <= max(run.budget, float(cost_k.min()))
    return best_static(rule_in(world, run, rounds, utility_tk), is_option_k)


def _cheapest_that_keep(rule: Rule, always: Indices, group_t: Indices) -> Array:
    """Shares (t, m) of the models ``always`` that keep the floor in every group and are worth the most; the best if none do."""
    assert rule.kept_tk is not None and rule.floor_t is not None
    weight_g = np.bincount(group_t).astype(np.float64)
    worth_gm, kept_gm = (_means(value_tk[:, always], group_t, weight_g) for value_tk in (rule.worth_tk, rule.kept_tk))
    floor_g = np.bincount(group_t, rule.floor_t) / weight_g
    one = np.ones(1)
    shares = [best_shares(worth_gm[[g]], -kept_gm[[g]], one, -float(floor_g[g])) for g in range(len(weight_g))]
    return np.concatenate(shares)[group_t]


def optimum(world: World, run: Run, rounds: Rounds, control: str) -> Array:
    """The shares (t, k) of a control of ``HINDSIGHT``, which knows what every call is worth.

    A floor on mean quality is a constraint as a budget is. All but ``prompt-oracle`` split only between models that are
    available from first to last.
    """
    expected, n = rounds.expected, len(rounds)
    cost_tk = None if np.isnan(expected.cost_tk).any() else expected.cost_tk
    bounded_tk, bound = _constraint(run, expected.quality_tk, cost_tk)
    all_utility_tk = utility_of(
        run.objective, expected.quality_tk, expected.cost_tk, expected.latency_tk, rounds.available_tk
    )
    if control == "prompt-oracle":
        if bounded_tk is not None:  # what is not there is worth less than anything, and costs more
            bounded_tk = np.where(rounds.available_tk, bounded_tk, 1.0 + 2.0 * bounded_tk.max())
        return grouped_optimum(all_utility_tk, bounded_tk, np.arange(n), bound)
    always = np.flatnonzero(rounds.available_tk.all(axis=0))
    utility_tk = utility_of(
        run.objective, expected.quality_tk[:, always], expected.cost_tk[:, always], expected.latency_tk[:, always]
    )
    bounded_tk = None if bounded_tk is None else bounded_tk[:, always]
    share_tk = np.zeros((n, len(world.table.models)))
    if control == "best-fixed":
        share_tk[:, best_fixed_in(world, run, rounds, all_utility_tk)] = 1.0
        return share_tk
    group_t = np.zeros(n, dtype=np.intp)
    if control == "task-lp":
        group_t = np.unique(world.task_n[rounds.row_t], return_inverse=True)[1]
    if run.objective.has_request_floor and run.budget is None:
        share_tk[:, always] = _cheapest_that_keep(rule_in(world, run, rounds, all_utility_tk), always, group_t)
        return share_tk
    share_tk[:, always] = grouped_optimum(utility_tk, bounded_tk, group_t, bound)
    return share_tk
