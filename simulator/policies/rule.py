"""The rule that serves, for controls and verdicts: what must be kept under an objective, and then what is least or greatest.

=====================  =========================================================  ===============================================
objective              what must be kept                                          among what keeps it
=====================  =========================================================  ===============================================
``COST_FIRST``,        each task's mean quality at its floor: ``min_quality``,    the least cost, or latency
``LATENCY_FIRST``      or that of the task's best model less
                       ``max_quality_loss``; where no model reaches it, the
                       best model's
``min_mean_quality``   the mean quality at the floor                              the least cost
``AVAILABILITY_FIRST`` as many answers as the most reliable model, but for        the best quality
                       ``AVAILABILITY_MARGIN``
others                 nothing                                                    the greatest utility (``world.utility``)
=====================  =========================================================  ===============================================

A task is what all policies are told of a prompt. Models that are not there from first to last are no static choice. A model is
under the floor of a task if its mean there is by more than ``CLEARLY`` standard errors: prompts are a sample.

>>> from pointsman.bandit.catalog import Mode
>>> quality_tk, cost_tk = np.tile([[0.65, 0.95]], (100, 1)), np.tile([[0.00003, 0.003]], (100, 1))
>>> objective, answer_tk, task_t = Objective(Mode.COST_FIRST, min_quality=0.9), np.ones((100, 2)), np.zeros(100, dtype=np.intp)
>>> rule = rule_of(objective, quality_tk, -cost_tk, answer_tk, task_t)
>>> round(rule.floor, 9), shortfalls(rule, np.array([True, True])).round(2).tolist(), best_static(rule, np.array([True, True]))
(0.9, [0.25, 0.0], 1)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pointsman.bandit.catalog import FLOOR_MODES, Mode, Objective
from pointsman.bandit.decide import AVAILABILITY_MARGIN

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

CLEARLY = 3.0
"""Standard errors under the floor of a task at which a model does not keep it."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """The rule over t rounds and k models: ``worth_tk`` is to be as great as can be, once ``kept_tk`` reaches ``floor_t``.

    ``kept_tk`` and ``floor_t`` are ``None`` if nothing must be kept. ``against_tk`` is what a relative floor was made of (the
    quality of the task's best model), ``None`` if it is absolute; ``is_exact``: no noise is allowed for.
    """

    worth_tk: Array
    kept_tk: Array | None
    floor_t: Array | None
    group_t: Indices
    against_tk: Array | None = None
    is_exact: bool = False

    @property
    def floor(self) -> float | None:
        """The mean of what must be kept, over all rounds."""
        return None if self.floor_t is None else float(self.floor_t.mean())


def rule_of(objective: Objective, quality_tk: Array, worth_tk: Array, success_tk: Array, task_t: Indices) -> Rule:
    """The rule of a resolved ``objective``.

    ``quality_tk``, ``success_tk`` (shares of calls that answer) and ``worth_tk`` (see :func:`worth_of`) are every model's (t, k);
    models that are not there all the time have the least. ``task_t`` numbers the tasks.
    """
    t, one_group_t = len(task_t), np.zeros(len(task_t), dtype=np.intp)
    if objective.min_mean_quality is not None:
        return Rule(worth_tk, quality_tk, np.full(t, objective.min_mean_quality), one_group_t, is_exact=True)
    if objective.mode is Mode.AVAILABILITY_FIRST:
        floor = float(success_tk.mean(axis=0).max()) - AVAILABILITY_MARGIN
        return Rule(worth_tk, success_tk, np.full(t, floor), one_group_t, is_exact=True)
    if objective.mode not in FLOOR_MODES:
        return Rule(worth_tk, None, None, one_group_t)
    mean_gk = _means(quality_tk, task_t)
    best_t = mean_gk.max(axis=1)[task_t]
    if objective.min_quality is not None:
        return Rule(worth_tk, quality_tk, np.minimum(objective.min_quality, best_t), task_t)
    against_t = quality_tk[np.arange(t), mean_gk.argmax(axis=1)[task_t]]
    return Rule(worth_tk, quality_tk, best_t - (objective.max_quality_loss or 0.0), task_t, against_t[:, None])


def worth_of(objective: Objective, utility: Array, cost: Array, latency: Array) -> Array:
    """What ``objective`` wants the most of, of calls (any shape): less cost, less latency, or utility."""
    if objective.mode is Mode.COST_FIRST:
        return -cost
    return -np.nan_to_num(latency, nan=0.0) if objective.mode is Mode.LATENCY_FIRST else utility


def worth_unit(objective: Objective) -> str:
    """The unit of :func:`worth_of`: ``quality``, ``dollars`` or ``seconds``."""
    return {Mode.COST_FIRST: "dollars", Mode.LATENCY_FIRST: "seconds"}.get(objective.mode, "quality")


def describe_rule(objective: Objective) -> str:
    """By what ``objective`` judges, in words.

    >>> describe_rule(Objective(Mode.COST_FIRST, min_quality=0.9))
    'the least cost at a mean quality of at least 0.9 in every task'
    """
    what = {Mode.COST_FIRST: "the least cost", Mode.LATENCY_FIRST: "the least latency"}.get(objective.mode, "")
    if objective.min_mean_quality is not None:
        return f"{what} at a mean quality of at least {objective.min_mean_quality:g}"
    if what and objective.min_quality is not None:
        return f"{what} at a mean quality of at least {objective.min_quality:g} in every task"
    if what:
        return f"{what} at a mean quality at most {objective.max_quality_loss or 0.0:g} under the best model's in every task"
    if objective.mode is Mode.AVAILABILITY_FIRST:
        return f"the best quality at a share of answers at most {AVAILABILITY_MARGIN:g} under that of the most reliable model"
    weights = [("cost", objective.cost_weight, "$"), ("latency", objective.latency_weight, "s")]
    prices = [f" - {weight:g} × {name} in {unit}" for name, weight, unit in weights if weight]
    return f"the greatest utility, quality{''.join(prices)}" if prices else "the best quality"


def shortfalls(rule: Rule, is_option_k: Flags) -> Array:
    """By how much each model (k) is under the floor, weighted over the tasks in which it clearly is; infinite for no option."""
    if rule.kept_tk is None or rule.floor_t is None:
        return np.where(is_option_k, 0.0, np.inf)
    mean_gk = _means(rule.kept_tk - rule.floor_t[:, None], rule.group_t)
    share_g = np.bincount(rule.group_t) / len(rule.group_t)
    is_under_gk = mean_gk < -_ROUNDING
    if not rule.is_exact:
        noise_tk = rule.kept_tk if rule.against_tk is None else rule.kept_tk - rule.against_tk
        square_gk = _means(noise_tk**2, rule.group_t) - _means(noise_tk, rule.group_t) ** 2
        error_gk = np.sqrt(np.maximum(square_gk, 0.0) / np.bincount(rule.group_t)[:, None])
        is_under_gk = mean_gk < -CLEARLY * error_gk - _ROUNDING
    return np.where(is_option_k, share_g @ np.where(is_under_gk, -mean_gk, 0.0), np.inf)


def best_static(rule: Rule, is_option_k: Flags) -> int:
    """The model that the rule would choose for all prompts: least under the floor, then worth the most."""
    shortfall_k = shortfalls(rule, is_option_k)
    is_kept_k = shortfall_k <= shortfall_k.min() + _ROUNDING
    return int(np.where(is_kept_k & is_option_k, rule.worth_tk.mean(axis=0), -np.inf).argmax())


def _means(value_tk: Array, group_t: Indices) -> Array:
    """Means by group, (g, k)."""
    sum_gk = np.zeros((int(group_t.max(initial=0)) + 1, value_tk.shape[1]))
    np.add.at(sum_gk, group_t, value_tk)
    return np.asarray(sum_gk / np.maximum(np.bincount(group_t, minlength=len(sum_gk)), 1)[:, None])
