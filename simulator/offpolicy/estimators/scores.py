"""Estimates of what another policy would have earned, from the log of one that decided.

Each estimator gives a score for every round; the estimate is the mean of the scores, so any interval of a mean applies to
any of them. With r the reward, w = π_candidate / π_logged of the chosen model, q̂ a model of the reward
(``reward_models``) and q̂(π) = Σ_a π(a) q̂(a) its mean under the candidate:

==========  =====================================  ==================================================================
name        score                                  source
==========  =====================================  ==================================================================
ips         w r                                    Horvitz and Thompson 1952
clipped     min(w, c) r                            Ionides 2008
snips       w r / mean(w)                          Swaminathan and Joachims, NeurIPS 2015
dm          q̂(π)                                  Beygelzimer and Langford, KDD 2009
dr          q̂(π) + w (r - q̂)                     Dudík, Erhan, Langford and Li, Statistical Science 2014
sndr        q̂(π) + w (r - q̂) / mean(w)           Thomas and Brunskill, ICML 2016
switch-dr   q̂(π) + w (r - q̂) 1[w ≤ τ]            Wang, Agarwal and Dudík, ICML 2017
dros        q̂(π) + λw/(w²+λ) (r - q̂)             Su, Dimakopoulou, Krishnamurthy and Dudík, ICML 2020
==========  =====================================  ==================================================================

``ips`` and ``dr`` are unbiased if propensities are right and the candidate has no mass where the logging policy has none.
The others trade some bias for less variance. c, τ and λ are chosen from the data by ``lepski``.

>>> reward_n, chosen_n, propensity_n = np.array([1.0, 0.0, 1.0]), np.array([0, 1, 1]), np.array([0.5, 0.5, 0.25])
>>> target_nk = np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]])
>>> weight_n = weights(target_nk, chosen_n, propensity_n)
>>> weight_n.tolist()
[1.0, 1.0, 2.0]
>>> ips(reward_n, weight_n).estimate, snips(reward_n, weight_n).estimate
(1.0, 0.75)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from pointsman.simulator.offpolicy.logs.log import Array, Indices

GRID = (1.0, 5.0, 10.0, 50.0, 100.0, 500.0, math.inf)
"""Values of c, τ and λ that ``lepski`` chooses from; the last is no clipping, no switching, no shrinkage."""
NAMES = ("ips", "clipped", "snips", "dm", "dr", "sndr", "switch-dr", "dros")
"""All estimators."""
UNBIASED = frozenset({"ips", "dr", "snips", "sndr"})
"""Those without bias, or whose bias falls faster than their spread."""
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class ScoredEstimate:
    """An estimate and its scores by round, (n), whose mean it is, in the reward's unit. ``tuned`` is the chosen c, τ or λ.

    Of self-normalised estimators ``score_n`` are linearised: their spread is that of the estimate, to first order.
    """

    name: str
    estimate: float
    score_n: Array
    tuned: float | None = None


def weights(target_nk: Array, chosen_n: Indices, propensity_n: Array) -> Array:
    """Importance weights (n): the candidate's probability of the model that was chosen, over its propensity."""
    rows_n = np.arange(len(chosen_n))
    return np.asarray(target_nk[rows_n, chosen_n] / propensity_n)


def ips(reward_n: Array, weight_n: Array) -> ScoredEstimate:
    """Inverse propensity scores."""
    return _plain("ips", weight_n * reward_n)


def clipped(reward_n: Array, weight_n: Array, clip: float) -> ScoredEstimate:
    """Inverse propensity scores with weights of at most ``clip``. Biased towards 0."""
    return _plain("clipped", np.minimum(weight_n, clip) * reward_n, clip)


def snips(reward_n: Array, weight_n: Array) -> ScoredEstimate:
    """Self-normalised inverse propensity scores: Σwr / Σw, within the range of rewards. NaN if all weights are 0."""
    return _normalised("snips", np.zeros(len(reward_n)), reward_n, weight_n)


def dm(q_nk: Array, target_nk: Array) -> ScoredEstimate:
    """The direct method: the reward model's mean under the candidate."""
    return _plain("dm", _expected(q_nk, target_nk))


def dr(reward_n: Array, weight_n: Array, q_nk: Array, target_nk: Array, chosen_n: Indices) -> ScoredEstimate:
    """Doubly robust: the reward model, corrected where the log shows it wrong."""
    expected_n, residual_n = _expected_and_residual(reward_n, q_nk, target_nk, chosen_n)
    return _plain("dr", expected_n + weight_n * residual_n)


def sndr(reward_n: Array, weight_n: Array, q_nk: Array, target_nk: Array, chosen_n: Indices) -> ScoredEstimate:
    """Doubly robust with a self-normalised correction. NaN if all weights are 0."""
    expected_n, residual_n = _expected_and_residual(reward_n, q_nk, target_nk, chosen_n)
    return _normalised("sndr", expected_n, residual_n, weight_n)


def switch_dr(
    reward_n: Array, weight_n: Array, q_nk: Array, target_nk: Array, chosen_n: Indices, tau: float
) -> ScoredEstimate:
    """Doubly robust where weights are at most ``tau``, the reward model alone elsewhere."""
    expected_n, residual_n = _expected_and_residual(reward_n, q_nk, target_nk, chosen_n)
    return _plain("switch-dr", expected_n + np.where(weight_n <= tau, weight_n, 0.0) * residual_n, tau)


def dros(
    reward_n: Array, weight_n: Array, q_nk: Array, target_nk: Array, chosen_n: Indices, lam: float
) -> ScoredEstimate:
    """Doubly robust with optimistic shrinkage of the weights; ``lam`` infinite shrinks nothing."""
    expected_n, residual_n = _expected_and_residual(reward_n, q_nk, target_nk, chosen_n)
    return _plain("dros", expected_n + _shrunk(weight_n, lam) * residual_n, lam)


def estimate_all(
    reward_n: Array,
    weight_n: Array,
    q_nk: Array,
    target_nk: Array,
    chosen_n: Indices,
    names: Sequence[str] = NAMES,
) -> list[ScoredEstimate]:
    """The estimators called ``names``, in that order; c, τ and λ are chosen by :func:`lepski`.

    Raises:
        ValueError: an unknown name, or as :func:`check`.
    """
    check(reward_n, weight_n, q_nk, target_nk, chosen_n)
    model = (q_nk, target_nk, chosen_n)
    estimate_by_name: dict[str, Callable[[], ScoredEstimate]] = {
        "ips": lambda: ips(reward_n, weight_n),
        "clipped": lambda: lepski([clipped(reward_n, weight_n, c) for c in GRID]),
        "snips": lambda: snips(reward_n, weight_n),
        "dm": lambda: dm(q_nk, target_nk),
        "dr": lambda: dr(reward_n, weight_n, *model),
        "sndr": lambda: sndr(reward_n, weight_n, *model),
        "switch-dr": lambda: lepski([switch_dr(reward_n, weight_n, *model, tau) for tau in GRID]),
        "dros": lambda: lepski([dros(reward_n, weight_n, *model, lam) for lam in GRID]),
    }
    unknown = [name for name in names if name not in estimate_by_name]
    if unknown:
        raise ValueError(f"estimators: expected some of {', '.join(NAMES)}, got {unknown[0]!r}")
    return [estimate_by_name[name]() for name in names]


def lepski(versions: Sequence[ScoredEstimate], level: float = 0.95) -> ScoredEstimate:
    """The one of several versions of an estimator, from the most biased to the least, that Lepski's principle chooses.

    Beginning with the least biased, the last whose difference to each of those before it is within the noise of that
    difference: while it is, so is what bias there is (Su, Srinath and Krishnamurthy, "Adaptive estimator selection for
    off-policy evaluation", ICML 2020, algorithm 1; there two intervals have to overlap, but versions of one estimator on the same
    rounds differ by far less than each is off, so that this sees bias earlier: Goldenshluger and Lepski, Ann. Stat. 2011).
    """
    z = float(ndtri(0.5 + level / 2.0))
    accepted = [versions[-1]]
    for version in reversed(versions[:-1]):
        for other in accepted:
            standard_error = float((version.score_n - other.score_n).std()) / math.sqrt(len(version.score_n))
            if abs(version.estimate - other.estimate) > z * standard_error + _ROUNDING:
                return accepted[-1]
        accepted.append(version)
    return accepted[-1]


def check(reward_n: Array, weight_n: Array, q_nk: Array, target_nk: Array, chosen_n: Indices) -> None:
    """Check arrays as they are given to estimators.

    Raises:
        ValueError: shapes that disagree, numbers that are not finite, negative weights, rows of ``target_nk`` that are no
            probabilities. It names the array.
    """
    n, k = np.shape(target_nk) if np.ndim(target_nk) == 2 else (-1, -1)
    if n < 1:
        raise ValueError(f"target_nk: expected (n, k) with n > 0, got {np.shape(target_nk)}")
    for name, array, shape in (
        ("reward_n", reward_n, (n,)),
        ("weight_n", weight_n, (n,)),
        ("q_nk", q_nk, (n, k)),
        ("chosen_n", chosen_n, (n,)),
    ):
        if np.shape(array) != shape:
            raise ValueError(f"{name}: expected {shape}, got {np.shape(array)}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers, got {array[~np.isfinite(array)].flat[0]}")
    if float(np.min(weight_n)) < 0.0:
        raise ValueError(f"weight_n: expected at least 0, got {np.min(weight_n)}")
    sums_n = np.asarray(target_nk).sum(axis=1)
    if float(np.min(target_nk)) < 0.0 or float(np.abs(sums_n - 1.0).max()) > 1e-6:
        raise ValueError("target_nk: expected rows of probabilities that sum to 1")


def _plain(name: str, score_n: Array, tuned: float | None = None) -> ScoredEstimate:
    return ScoredEstimate(name, float(np.mean(score_n)), score_n, tuned)


def _normalised(name: str, base_n: Array, value_n: Array, weight_n: Array) -> ScoredEstimate:
    """mean(base) + Σ w·value / Σw. Scores are its influence function: base + w/mean(w) · (value - ratio), plus the ratio."""
    mean = float(weight_n.mean())
    if mean == 0.0:
        return ScoredEstimate(name, math.nan, np.full(len(base_n), np.nan))
    ratio = float(weight_n @ value_n) / (len(base_n) * mean)
    score_n = base_n + ratio + weight_n / mean * (value_n - ratio)
    return ScoredEstimate(name, float(base_n.mean()) + ratio, score_n)


def _expected_and_residual(reward_n: Array, q_nk: Array, target_nk: Array, chosen_n: Indices) -> tuple[Array, Array]:
    """The reward model's mean under the candidate, and its residual at the chosen model, each (n)."""
    return _expected(q_nk, target_nk), reward_n - q_nk[np.arange(len(chosen_n)), chosen_n]


def _expected(q_nk: Array, target_nk: Array) -> Array:
    return np.asarray(np.einsum("nk,nk->n", q_nk, target_nk))


def _shrunk(weight_n: Array, lam: float) -> Array:
    return weight_n if math.isinf(lam) else lam * weight_n / (weight_n**2 + lam)
