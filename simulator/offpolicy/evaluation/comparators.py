"""Comparators of a candidate: static policies, estimated from the same log.

>>> chosen_n = np.array([0, 1] * 50)
>>> log = Log(
...     "even", ("small", "large"), ("chat",), chosen_n, np.full(100, 0.5), np.full((100, 2), 0.5),
...     np.ones((100, 2), dtype=np.bool_), {}, np.zeros((100, 0)), np.zeros(100, dtype=np.intp), np.arange(100),
... )
>>> quality = Evidence(
...     "quality", 0.0, 1.0, chosen_n * 1.0, np.ones(100), np.zeros((100, 2)), np.full((100, 2), 0.5), np.full((100, 2), 0.5),
...     chosen_n, np.zeros((100, 2)),
... )
>>> [(comparator.name, comparator.gain.estimate) for comparator in comparators_of(log, {"quality": quality}, 0.95)]
[('best fixed model: large', -0.5)]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pointsman.simulator.offpolicy.evaluation.estimates import IntervalEstimate, mean_of
from pointsman.simulator.offpolicy.evaluation.evidence import Evidence, dr_scores, dr_scores_by_model
from pointsman.simulator.offpolicy.logs.log import Array, Log
from pointsman.simulator.policies.hindsight import mix_at


@dataclass(frozen=True, slots=True)
class Comparator:
    """A static policy, its estimated quality and cost (``None`` where costs are not known), and the candidate's gain over it.

    The gain, in quality, is estimated from paired scores. ``is_mix``: it costs the same as the candidate.
    """

    name: str
    is_mix: bool
    quality: IntervalEstimate
    cost: IntervalEstimate | None
    gain: IntervalEstimate


def comparators_of(log: Log, evidence: Mapping[str, Evidence], level: float) -> tuple[Comparator, ...]:
    """The best fixed model and, where costs are known, the best mix of models that costs what the candidate costs.

    Both are picked by their doubly robust estimates on the same rounds, which favours them. None without quality.
    """
    quality, cost = evidence.get("quality"), evidence.get("cost")
    if quality is None or len(quality) < 2:
        return ()
    if cost is not None and len(cost) < 2:
        cost = None
    k = len(log.models)
    quality_mk = dr_scores_by_model(quality)
    cost_mk = None if cost is None else dr_scores_by_model(cost)
    could_nk = (
        log.eligible_nk if log.logged_nk is None else log.logged_nk > 0.0
    )  # of a model never tried nothing is known
    could_k = could_nk.mean(axis=0)
    is_option_k = could_k >= min(0.5, float(could_k.max()))  # in most rounds, or else most often
    quality_k = quality_mk.mean(axis=0)
    best = int(np.where(is_option_k, quality_k, -np.inf).argmax())
    named_shares = [(f"best fixed model: {log.models[best]}", False, np.eye(k)[best])]
    if cost is not None and cost_mk is not None:
        budget = float(dr_scores(cost).mean())
        share_k = mix_at(np.where(is_option_k, quality_k, np.nan), cost_mk.mean(axis=0), budget)
        shown = " + ".join(f"{share:.0%} {log.models[i]}" for i, share in enumerate(share_k) if share > 0.005)
        named_shares.append((f"best mix at the same cost: {shown}", True, share_k))
    candidate_m = dr_scores(quality)
    return tuple(
        _comparator(name, is_mix, share_k, candidate_m, quality_mk, cost_mk, level)
        for name, is_mix, share_k in named_shares
    )


def _comparator(
    name: str,
    is_mix: bool,
    share_k: Array,
    candidate_m: Array,
    quality_mk: Array,
    cost_mk: Array | None,
    level: float,
) -> Comparator:
    """The static policy with shares ``share_k``, from the doubly robust scores of every model and of the candidate."""
    score_m = quality_mk @ share_k
    return Comparator(
        name,
        is_mix,
        quality=mean_of("dr", score_m, level),
        cost=None if cost_mk is None else mean_of("dr", cost_mk @ share_k, level),
        gain=mean_of("dr, paired", candidate_m - score_m, level),
    )
