"""Comparators of a candidate: static policies, estimated from the same log, and by what they are judged.

The best fixed model is the one that the rule that serves would choose (``policies.rule``) by what is estimated, each bucket being
a task: under ``COST_FIRST`` and ``LATENCY_FIRST`` the cheapest or fastest of those that are not clearly under the floor, else the
best by quality. The rule is that of the objective that the candidate has, or the log, if it is the same in all decisions.

>>> chosen_n = np.array([0, 1] * 50)
>>> log = Log(
...     "even", ("small", "large"), ("chat",), chosen_n, np.full(100, 0.5), np.full((100, 2), 0.5),
...     np.ones((100, 2), dtype=np.bool_), {"quality": chosen_n * 1.0}, np.zeros((100, 0)), np.zeros(100, dtype=np.intp),
...     np.arange(100),
... )
>>> quality = Evidence(
...     "quality", 0.0, 1.0, chosen_n * 1.0, np.ones(100), np.zeros((100, 2)), np.full((100, 2), 0.5), np.full((100, 2), 0.5),
...     chosen_n, np.zeros((100, 2)),
... )
>>> [(comparator.name, comparator.gain.estimate) for comparator in comparators_of(log, {"quality": quality}, 0.95, None)]
[('best fixed model: large', -0.5)]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pointsman.bandit.catalog import Mode, Objective
from pointsman.simulator.offpolicy.candidate import Candidate
from pointsman.simulator.offpolicy.evaluation.estimates import IntervalEstimate, mean_of
from pointsman.simulator.offpolicy.evaluation.evidence import Evidence, dr_scores, dr_scores_by_model
from pointsman.simulator.offpolicy.logs.log import Array, Flags, Log
from pointsman.simulator.policies.hindsight import mix_at
from pointsman.simulator.policies.rule import best_static, rule_of, shortfalls, worth_unit


@dataclass(frozen=True, slots=True)
class Comparator:
    """A static policy, its estimated quality and cost (``None`` where costs are not known), and the candidate's gain over it.

    The gain, in ``unit`` (``quality``, or ``dollars`` or ``seconds`` saved), is estimated from paired scores. ``is_mix``: it
    costs the same as the candidate. Under a floor ``above`` is by how much the candidate's quality is above it, and ``keeps``
    says whether the static policy keeps it.
    """

    name: str
    is_mix: bool
    quality: IntervalEstimate
    cost: IntervalEstimate | None
    gain: IntervalEstimate
    unit: str = "quality"
    above: IntervalEstimate | None = None
    keeps: bool = True


def objective_of(candidate: Candidate, log: Log) -> Objective | None:
    """The objective that the candidate serves, resolved; ``None`` if the log does not say one, or there are several."""
    if log.decisions is None:
        return None
    objectives: set[Objective] = set()
    for number, group in enumerate(log.groups):
        policy = candidate.buckets.get(group, candidate.default)
        rows = np.flatnonzero(log.group_n == number).tolist()
        if policy.policy == "thompson" and policy.objective is not None:
            scales = {log.decisions[row].quality for row in rows}
            objectives |= {Objective(**policy.objective.model_dump()).resolve(scale) for scale in scales}
        else:
            objectives |= {log.decisions[row].objective for row in rows}
    return objectives.pop() if len(objectives) == 1 else None


def comparators_of(
    log: Log, evidence: Mapping[str, Evidence], level: float, objective: Objective | None
) -> tuple[Comparator, ...]:
    """The best fixed model and, where costs are known, the best mix of models that costs what the candidate costs.

    Both are picked by their doubly robust estimates on the same rounds, which favours them. None without quality.
    """
    quality, cost = evidence.get("quality"), evidence.get("cost")
    if quality is None or len(quality) < 2:
        return ()
    if cost is not None and len(cost) < 2:
        cost = None
    could_nk = (
        log.eligible_nk if log.logged_nk is None else log.logged_nk > 0.0
    )  # of a model never tried nothing is known
    could_k = could_nk.mean(axis=0)
    is_option_k = could_k >= min(0.5, float(could_k.max()))  # in most rounds, or else most often
    estimated = _Estimated(log, quality, cost, dr_scores_by_model(quality), level)
    price = (
        {Mode.COST_FIRST: cost, Mode.LATENCY_FIRST: evidence.get("latency")}.get(objective.mode) if objective else None
    )
    if objective is not None and price is not None and len(price) > 1:
        found = [_best_above_floor(estimated, objective, price, is_option_k)]
    else:
        best = int(np.where(is_option_k, estimated.quality_mk.mean(axis=0), -np.inf).argmax())
        found = [_comparator(estimated, f"best fixed model: {log.models[best]}", np.eye(len(log.models))[best])]
    if cost is not None:
        quality_k, cost_k = estimated.quality_mk.mean(axis=0), dr_scores_by_model(cost).mean(axis=0)
        share_k = mix_at(np.where(is_option_k, quality_k, np.nan), cost_k, float(dr_scores(cost).mean()))
        shown = " + ".join(f"{share:.0%} {log.models[i]}" for i, share in enumerate(share_k) if share > 0.005)
        found.append(replace(_comparator(estimated, f"best mix at the same cost: {shown}", share_k), is_mix=True))
    return tuple(found)


@dataclass(frozen=True, slots=True, eq=False)
class _Estimated:
    """The evidence on quality and cost, with the scores of every model alone of the former, (m, k)."""

    log: Log
    quality: Evidence
    cost: Evidence | None
    quality_mk: Array
    level: float


def _best_above_floor(estimated: _Estimated, objective: Objective, price: Evidence, is_option_k: Flags) -> Comparator:
    """The fixed model that a rule with a floor of quality would choose, and what the candidate saves beside it."""
    log, quality_mk = estimated.log, estimated.quality_mk
    reported_n = ~np.isnan(log.signals["quality"])
    task_m = np.unique(log.group_n[reported_n], return_inverse=True)[1]
    price_mk = dr_scores_by_model(price)
    worth_mk = np.broadcast_to(-price_mk.mean(axis=0), quality_mk.shape)
    kept_mk = np.where(is_option_k, quality_mk, estimated.quality.low)
    rule = replace(rule_of(objective, kept_mk, worth_mk, np.ones(quality_mk.shape), task_m), is_exact=False)
    best = best_static(rule, is_option_k)
    keeps = bool(shortfalls(rule, is_option_k)[best] <= 0.0)
    assert rule.floor_t is not None
    of_best = _comparator(estimated, f"best fixed model: {log.models[best]}", np.eye(len(log.models))[best])
    above = mean_of("dr", dr_scores(estimated.quality) - rule.floor_t, estimated.level)
    if not keeps:
        return replace(of_best, above=above, keeps=False)
    saved = mean_of("dr, paired", price_mk[:, best] - dr_scores(price), estimated.level)
    return replace(of_best, gain=saved, unit=worth_unit(objective), above=above)


def _comparator(estimated: _Estimated, name: str, share_k: Array) -> Comparator:
    """The static policy with shares ``share_k``, from the doubly robust scores of every model and of the candidate."""
    score_m, level = estimated.quality_mk @ share_k, estimated.level
    cost = None if estimated.cost is None else mean_of("dr", dr_scores_by_model(estimated.cost) @ share_k, level)
    gain = mean_of("dr, paired", dr_scores(estimated.quality) - score_m, level)
    return Comparator(name, is_mix=False, quality=mean_of("dr", score_m, level), cost=cost, gain=gain)
