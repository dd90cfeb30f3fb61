"""Bounds as they would be had all kinds of rounds been reported as often as they came (``missing``).

Where feedback comes more often for some kinds of requests, estimates are of those. If within a kind the rounds that have an
outcome are like those that have none, weighing each kind by how often it came makes up for that (post-stratification; Holt and
Smith, JRSS-A 1979). Its bound is a normal one: a check beside the proven bound, which is of the rounds that have an outcome.

>>> rng = np.random.default_rng(0)
>>> kind_n, chosen_n = np.arange(4000) % 2, rng.integers(0, 2, 4000)
>>> reported_n = rng.random(4000) < np.where(kind_n == 0, 0.9, 0.1)  # where all is well
>>> m = int(reported_n.sum())
>>> even_mk, chosen_m = np.full((m, 2), 0.5), chosen_n[reported_n]
>>> reward_m = 1.0 * (kind_n[reported_n] == 0)
>>> evidence = Evidence(
...     "quality", 0.0, 1.0, reward_m, np.ones(m), np.zeros((m, 2)), even_mk, even_mk, chosen_m, np.zeros((m, 2))
... )
>>> round(evidence.logged_mean, 1), round(reweighted_bound(evidence, reported_n, kind_n, 0.95, lower=True), 1)
(0.9, 0.5)
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from pointsman.simulator.offpolicy.evaluation.evidence import Evidence, dr_scores
from pointsman.simulator.offpolicy.logs.log import Flags, Indices


def reweighted_bound(
    evidence: Evidence, reported_n: Flags, kind_n: Indices, level: float, *, lower: bool, factor: float = 0.0
) -> float:
    """A normal bound of V(candidate) - ``factor`` · V(logging policy) over all rounds, were they like those of their kind.

    ``reported_n`` (n) are the rounds that ``evidence`` is of, ``kind_n`` (n) numbers the kind of each. Infinite, on the wrong
    side, where a kind has fewer than two outcomes.
    """
    none = -math.inf if lower else math.inf
    count_z = np.bincount(kind_n).astype(np.float64)
    reported_z = np.bincount(kind_n[reported_n], minlength=len(count_z)).astype(np.float64)
    is_there_z = count_z > 0.0
    if (reported_z[is_there_z] < 2.0).any():
        return none
    score_m, kind_m = dr_scores(evidence) - factor * evidence.reward_m, kind_n[reported_n]
    mean_z = np.bincount(kind_m, score_m, len(count_z))[is_there_z] / reported_z[is_there_z]
    square_z = np.bincount(kind_m, score_m**2, len(count_z))[is_there_z] / reported_z[is_there_z]
    variance_z = np.maximum(square_z - mean_z**2, 0.0) / (reported_z[is_there_z] - 1.0)
    share_z = count_z[is_there_z] / len(kind_n)
    half = float(ndtri(level)) * math.sqrt(float(share_z**2 @ variance_z))
    return float(share_z @ mean_z) + (-half if lower else half)
