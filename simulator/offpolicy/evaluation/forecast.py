"""How many decisions it takes until a clause of the gate is shown, at the present share and effect, or with more exploration.

The log stands for what is to come: rounds are drawn from it again, with the outcomes, weights and predictions that they had, and
of longer and longer such logs the very bound of the gate is computed, until it is as near the estimate as the estimate is to what
is asked for, with a chance of ``POWER``. With an exploration share e the logging policy becomes (1 - e) · itself + e · an even
draw of the models it can choose: rounds are then drawn in proportion to how much more probable their choice is. A forecast is no
proof: the effect may be another one.

>>> n, rng = 2000, np.random.default_rng(0)
>>> chosen_n = (rng.random(n) < 0.1).astype(np.intp)
>>> logged_nk, target_nk = np.tile([0.9, 0.1], (n, 1)), np.tile([0.0, 1.0], (n, 1))
>>> evidence = Evidence(
...     "quality", 0.0, 1.0, 1.0 * (rng.random(n) < 0.8), 10.0 * (chosen_n == 1), np.full((n, 2), 0.8), target_nk, logged_nk,
...     chosen_n, np.full((n, 2), 0.8),
... )
>>> present, explored = (decisions_needed(evidence, PairedTest("quality", True, 0.9, 0.0), 0.95, share) for share in (0.0, 0.4))
>>> explored < present
True
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy.special import ndtri

from pointsman.simulator.offpolicy.evaluation.evidence import Evidence, dr_scores
from pointsman.simulator.offpolicy.expression import PairedTest
from pointsman.simulator.offpolicy.logs.log import Array

POWER = 0.9
"""Chance with which that many decisions show it, where the effect is as estimated."""
MOST_DRAWN = 100_000
"""Rounds drawn at most; beyond, the width of the bound is taken to fall with the root of their number."""
_LOOKS = 60
"""Lengths at which the bound is computed."""
_FEWEST = 200
"""Rounds from which a log says enough to be drawn from."""


def decisions_needed(evidence: Evidence, test: PairedTest, level: float, share: float = 0.0, seed: int = 0) -> float:
    """Rounds with an outcome until ``test`` is shown at ``level``, if the logging policy explores in a further ``share`` of them.

    Infinite where the effect, as estimated, is not what is asked for; NaN where the log is too short to tell, or does not say
    what else could have been chosen.
    """
    if len(evidence) < _FEWEST or (share > 0.0 and evidence.logged_mk is None):
        return math.nan
    sign = 1.0 if test.lower else -1.0
    effect = sign * (float((dr_scores(evidence) - test.factor * evidence.reward_m).mean()) - test.offset)
    if effect <= 0.0:
        return math.inf
    drawn = _drawn(evidence, share, np.random.default_rng(seed))
    at = np.unique(np.geomspace(_FEWEST / 4, MOST_DRAWN, _LOOKS).astype(np.intp))
    score_m = dr_scores(drawn) - test.factor * drawn.reward_m
    mean_m = np.cumsum(score_m)[at - 1] / at
    width_m = sign * (mean_m - drawn.bounds(level, lower=test.lower, factor=test.factor, at=at))
    width_m += float(ndtri(POWER)) * float(score_m.std()) / np.sqrt(at)
    narrow = np.flatnonzero(width_m <= effect)
    if len(narrow):
        return float(at[narrow[0]])
    return MOST_DRAWN * (float(width_m[-1]) / effect) ** 2


def _drawn(evidence: Evidence, share: float, rng: np.random.Generator) -> Evidence:
    """``MOST_DRAWN`` rounds of the log, as a policy would have made them that explores in a further ``share``."""
    m, rows = len(evidence), np.arange(len(evidence))
    logged_mk: Array | None = evidence.logged_mk
    weight_m, probable_m = evidence.weight_m, np.ones(m)
    if share > 0.0 and logged_mk is not None:
        eligible_mk = (logged_mk > 0.0) / (logged_mk > 0.0).sum(axis=1, keepdims=True)
        explored_mk = (1.0 - share) * logged_mk + share * eligible_mk
        probable_m = explored_mk[rows, evidence.chosen_m] / logged_mk[rows, evidence.chosen_m]
        weight_m, logged_mk = (
            evidence.target_mk[rows, evidence.chosen_m] / explored_mk[rows, evidence.chosen_m],
            explored_mk,
        )
    taken = rng.choice(m, MOST_DRAWN, p=probable_m / probable_m.sum())
    return replace(
        evidence,
        reward_m=evidence.reward_m[taken],
        weight_m=weight_m[taken],
        q_mk=evidence.q_mk[taken],
        target_mk=evidence.target_mk[taken],
        logged_mk=None if logged_mk is None else logged_mk[taken],
        chosen_m=evidence.chosen_m[taken],
        q_cross_mk=evidence.q_cross_mk[taken],
    )
