"""Pooling: a bucket that knows little of a model starts from what the model did elsewhere.

What a response comes to in a bucket is split in two: the bucket's level (how hard, long or dear its tasks are) and each
model's offset from it. Offsets carry over from task to task, levels much less. So the prior of a cell is

    level of the bucket + offset of the model, averaged over the other buckets,

worth σ²/τ² observations, with τ² the spread of a model's offset from bucket to bucket, by moments (two-level Normal model:
Gelman et al., Bayesian Data Analysis, 5.4; for bandits Hong et al., "Hierarchical Bayesian Bandits", AISTATS 2022), and never
more than ``MOST``: ten real outcomes outweigh it. A model that is new everywhere has the population's offset, 0, and its
spread. Levels and offsets are predictions at a bucket's average context, not averages of outcomes, which would hold it
against a model that it is given the hard prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bandit.posterior import INTERCEPT_PRECISION, PRIOR_A, QUALITY, RESPONSES, Posteriors, Prior

Array = npt.NDArray[np.float64]

SEEN = 8
"""Outcomes of a cell from which on it says something to other buckets, and its own level is known."""
MOST = 10.0
"""Most observations that a pooled prior is worth."""
SPREAD = 0.1
"""Standard deviation of a model's offset of quality between buckets, until buckets tell, …"""
SPREAD_MASS = 4.0
"""… in so many pairs of buckets."""
WIDER = 2.0
"""A model that is new everywhere has the population's variance, times this."""


@dataclass(slots=True)
class Pool:
    """What buckets say of models, by response: rows are count, sum and sum of squares; changed in place.

    ``level_3r`` of the buckets' levels, ``offset_3r`` of each model's offsets.
    """

    level_3r: Array = field(default_factory=lambda: np.zeros((3, RESPONSES)))
    offset_3r: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """What one bucket says: its level (r) and its models' offsets (k, r); NaN where it says nothing."""

    level_r: Array
    offset_kr: Array


def nothing(models: int) -> Offer:
    """The offer of a bucket that knows nothing."""
    return Offer(np.full(RESPONSES, np.nan), np.full((models, RESPONSES), np.nan))


def offer(posteriors: Posteriors, x_d: Array) -> Offer:
    """What a bucket with average context ``x_d`` says."""
    known_kr = seen(posteriors) >= SEEN
    value_kr = np.where(known_kr, posteriors.mean_krd @ x_d, 0.0)
    count_r = known_kr.sum(axis=0)
    level_r = np.where(count_r > 0, value_kr.sum(axis=0) / np.maximum(count_r, 1), np.nan)
    return Offer(level_r, np.where(known_kr & (count_r > 1), value_kr - level_r, np.nan))


def seen(posteriors: Posteriors) -> npt.NDArray[np.int64]:
    """How often each response of each model was observed, (k, r)."""
    return np.array([posteriors.designs[g].seen_k for g in posteriors.design_r]).T


def exchange(pool: Pool, models: Sequence[str], old: Offer, new: Offer) -> None:
    """Let a bucket say ``new`` where it said ``old``, in place."""
    for sign, one in ((-1.0, old), (1.0, new)):
        pool.level_3r += sign * _moments(one.level_r)
        for model, offset_r in zip(models, one.offset_kr, strict=True):
            if not np.isnan(offset_r).all():
                held = pool.offset_3r.setdefault(model, np.zeros((3, RESPONSES)))
                held += sign * _moments(offset_r)


def pooled_priors(
    pool: Pool, models: Sequence[str], own: Offer, known: Posteriors, x_d: Array, default: Sequence[Prior]
) -> list[tuple[list[Prior], float]]:
    """For each model of a bucket, priors by response and their mass, from all other buckets and the bucket's own level.

    ``own`` is what the bucket itself has said; ``default`` where nobody knows anything.
    """
    others = Pool(pool.level_3r.copy(), {model: held.copy() for model, held in pool.offset_3r.items()})
    exchange(others, models, own, nothing(len(models)))
    count_kr, mean_kr = _means(others, models)
    known_kr = seen(known) >= SEEN
    value_kr = np.where(known_kr, known.mean_krd @ x_d - mean_kr, 0.0)
    here_r, elsewhere_r = known_kr.sum(axis=0), others.level_3r[0]
    default_r = np.array([prior.intercept for prior in default])
    level_r = np.where(elsewhere_r > 0.5, others.level_3r[1] / np.maximum(elsewhere_r, 1.0), default_r)
    level_r = np.where(here_r > 0, value_kr.sum(axis=0) / np.maximum(here_r, 1), level_r)
    noise = default[QUALITY].b / (PRIOR_A - 1.0)
    variance_k = _variances(others, count_kr[:, QUALITY])
    return [
        (
            [Prior(float(level_r[r] + mean_kr[k, r]), default[r].b) for r in range(RESPONSES)],
            min(MOST, max(INTERCEPT_PRECISION, noise / variance_k[k])),
        )
        for k in range(len(models))
    ]


def forget(pool: Pool, models: Iterable[str]) -> None:
    """Drop, in place, what is known of ``models``."""
    for model in models:
        pool.offset_3r.pop(model, None)


def _moments(value_r: Array) -> Array:
    there_r = ~np.isnan(value_r)
    plain_r = np.where(there_r, value_r, 0.0)
    return np.array([there_r.astype(np.float64), plain_r, plain_r**2])


def _means(pool: Pool, models: Sequence[str]) -> tuple[Array, Array]:
    """How many buckets know each model's offset, and its mean, shrunk as by one more bucket that says 0; each (k, r)."""
    held_k3r = np.array([pool.offset_3r.get(model, np.zeros((3, RESPONSES))) for model in models])
    count_kr = np.round(held_k3r[:, 0])
    return count_kr, np.where(count_kr > 0, held_k3r[:, 1] / (count_kr + 1.0), 0.0)


def _variances(pool: Pool, count_k: Array) -> Array:
    """Variance of each model's offset of quality in one more bucket, (k); infinite where there is no telling."""
    between, pairs, squares, known = SPREAD_MASS * SPREAD**2, SPREAD_MASS, 0.0, 0
    for held_3r in pool.offset_3r.values():
        count, total, square = held_3r[:, QUALITY].tolist()
        if count > 0.5:
            between += max(square - total * total / count, 0.0)
            pairs += count - 1.0
            squares += (total / count) ** 2
            known += 1
    tau2 = between / pairs
    if not known:
        return np.full(len(count_k), np.inf)
    strange = WIDER * (squares / known + tau2)
    return np.where(count_k > 0.5, tau2 * (1.0 + 1.0 / np.maximum(count_k, 1.0)), strange)
