"""What a candidate is set beside: policies that need no routing, estimated from the same log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pointsman.simulator.offpolicy.evaluation.evidence import Evidence, dr_scores, model_scores
from pointsman.simulator.offpolicy.intervals.fixed_time import Interval, normal
from pointsman.simulator.offpolicy.logs.log import Array, Log
from pointsman.simulator.policies.hindsight import mix_at


@dataclass(frozen=True, slots=True)
class Line:
    """An estimate with its intervals by name: ``normal``, ``bootstrap``, ``bernstein``, ``betting`` (those that apply)."""

    estimator: str
    estimate: float
    tuned: float | None
    intervals: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class Control:
    """What the candidate is set beside: a static policy, its estimate, and the candidate's gain over it (by paired scores)."""

    name: str
    quality: Line
    cost: Line | None
    gain: Line


def controls_of(log: Log, evidence: Mapping[str, Evidence], level: float) -> tuple[Control, ...]:
    """The best fixed model and, where costs are known, the best mix of models that costs what the candidate costs.

    Both are picked by their doubly robust estimates on the same rounds, which favours them.
    """
    one = evidence.get("quality")
    if one is None or len(one.reward_m) < 2:
        return ()
    k = len(log.models)
    often_k = log.eligible_nk.mean(axis=0)
    always_k = often_k >= min(0.5, float(often_k.max()))  # what is a choice in most rounds, or else most often
    quality_mk = model_scores(one, k)
    candidate_m = dr_scores(one)
    quality_k = np.where(always_k, quality_mk.mean(axis=0), -np.inf)
    cost = evidence.get("cost")
    same = cost is not None and len(cost.reward_m) > 1
    cost_k = model_scores(cost, k).mean(axis=0) if same and cost is not None else None
    found = [
        _control(
            f"best fixed model: {log.models[int(quality_k.argmax())]}",
            np.eye(k)[int(quality_k.argmax())],
            one,
            cost,
            candidate_m,
            quality_mk,
            level,
        )
    ]
    if cost_k is not None and cost is not None:
        budget = float(dr_scores(cost).mean())
        share_k = mix_at(np.where(always_k, quality_k, np.nan), cost_k, budget)
        shown = " + ".join(f"{share:.0%} {log.models[i]}" for i, share in enumerate(share_k) if share > 0.005)
        found.append(
            _control(f"best mix at the same cost: {shown}", share_k, one, cost, candidate_m, quality_mk, level)
        )
    return tuple(found)


def _control(
    name: str,
    share_k: Array,
    quality: Evidence,
    cost: Evidence | None,
    candidate_m: Array,
    quality_mk: Array,
    level: float,
) -> Control:
    score_m = quality_mk @ share_k
    gain_m = candidate_m - score_m
    priced = None
    if cost is not None and len(cost.reward_m) > 1:
        cost_m = model_scores(cost, len(share_k)) @ share_k
        priced = Line("dr", float(cost_m.mean()), None, {"normal": normal(cost_m, level)})
    return Control(
        name,
        Line("dr", float(score_m.mean()), None, {"normal": normal(score_m, level)}),
        priced,
        Line("dr, paired", float(gain_m.mean()), None, {"normal": normal(gain_m, level)}),
    )
