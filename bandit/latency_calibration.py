"""Calibration of the regression's 95th percentile of latency: observed ratios, and the factor that corrects it.

The log-normal model is never quite right: latencies have heavier tails, and models that look fast are chosen because they look
fast. So for each model of a bucket the ratios log(latency / p95) of its decisions are counted, p95 being the model's own
figure at the decision, and the 95th percentile that the policy uses is that figure times the quantile of the ratios (split
conformal prediction on the log scale: Vovk, Gammerman & Shafer 2005; with weights that forget as the posterior does). Counts
add, so the order of outcomes does not matter and a correction can be taken back exactly.

>>> exceedance_n = no_exceedances(models=1)[0]
>>> for _ in range(100):  # every latency is twice what the regression calls its 95th percentile
...     count_exceedance(exceedance_n, math.log(2.0), weight=1.0)
>>> round(math.exp(log_correction(exceedance_n)), 2)  # in steps of 6.25 %
2.12
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr, ndtri

from pointsman.bandit.packed import Array

LOWEST, STEP, EDGES = -1.0, 0.0625, 64
"""Ratios are counted between exp(-1) and exp(3) in steps of 6.25 %."""
MISSES = 0.04
"""Share that may overshoot. A hundredth under the promised 5 %: the choice itself favours models that look fast."""
PRIOR_MASS = 20.0
"""Latencies that the belief in the log-normal model is worth."""
_edge_n = LOWEST + STEP * np.arange(EDGES)
_prior_n = PRIOR_MASS * ndtr(-(float(ndtri(0.95)) + _edge_n / 0.5))


def no_exceedances(models: int) -> Array:
    """Counts of nothing yet, (k, n + 1): how much weight lies above each edge, and in all."""
    return np.zeros((models, EDGES + 1))


def count_exceedance(exceedance_n: Array, ratio: float, weight: float) -> None:
    """Count, in place, one log ratio of a model (``exceedance_n``, its row) with ``weight``; a negative weight takes it back."""
    above = math.ceil((ratio - LOWEST) / STEP)
    exceedance_n[: min(max(above, 0), EDGES)] += weight
    exceedance_n[EDGES] += weight


def log_correction(exceedance_n: Array) -> float:
    """Natural logarithm of the correction factor of one model's 95th percentile."""
    allowed = MISSES * (exceedance_n[EDGES] + PRIOR_MASS)
    over = int(np.count_nonzero(exceedance_n[:EDGES] + _prior_n > allowed))
    return LOWEST + STEP * min(over, EDGES - 1)


PRIOR_CORRECTION = log_correction(no_exceedances(1)[0])
"""``log_correction`` of a model without latencies."""
