"""The policy: from predictions for the candidates to one Thompson draw and its exact propensity.

The arms are independent given the posteriors, so instead of drawing coefficient vectors the policy draws, for each
candidate, the scalar θ·x that its objective needs: the same law of choice at O(d²) per arm. Quality is drawn from the
Normal with the posterior's mean and variance; cost and latency enter at their expectations. An even draw with
probability ε (the exploration floor) is mixed in, and the propensity is that of the mixture:

    π(a) = (1 - ε)·P(a wins the posterior draw) + ε / |eligible|
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from bandit.catalog import (
    FLOOR_MODES,
    Mode,
    Model,
    Objective,
    QualityRange,
    check_number,
)
from bandit.encoder import Encoded
from bandit.errors import FieldError, NothingEligibleError
from bandit.posterior import (
    COST,
    LATENCY,
    QUALITY,
    Posteriors,
    noise,
    predict,
    predict_batch,
)
from bandit.propensity import (
    argmax_propensities,
    argmax_propensity,
    floor_propensities,
    floor_propensity,
)

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_MAX_LOG = 40.0  # keeps exp() finite whatever was reported
_Z95 = float(ndtri(0.95))


class Exclusion(enum.IntEnum):
    """Why a candidate is not eligible. The numbers are those of the contract's ``ExclusionReason``."""

    UNAVAILABLE = 1
    NOT_ALLOWED = 2
    DENIED = 3
    CONTEXT_WINDOW = 4
    CAPABILITY = 5
    TAG = 6
    COST = 7
    LATENCY = 8
    QUALITY = 9

    @property
    def bit(self) -> int:
        """The bit that stands for it in a set of exclusions."""
        return 1 << int(self)


SOFT = Exclusion.COST.bit | Exclusion.LATENCY.bit | Exclusion.QUALITY.bit
"""Limits on what is predicted; ``allow_least_violating`` may break these, never the others."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request demands of its candidates; see the contract's ``Limits``."""

    max_cost: float | None = None
    max_latency: float | None = None
    latency_p95: bool = False
    min_quality: float | None = None
    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()
    capabilities: frozenset[str] = frozenset()
    tags: Mapping[str, str] = field(default_factory=dict)
    allow_least_violating: bool = False

    def __post_init__(self) -> None:
        if self.max_cost is not None:
            check_number(self.max_cost, "max_cost_usd", above=0.0)
        if self.max_latency is not None:
            check_number(self.max_latency, "max_latency_seconds", above=0.0)
        if self.min_quality is not None:
            check_number(self.min_quality, "min_quality")

    def check(self, known: Mapping[str, object], quality: QualityRange) -> None:
        """Raise ``FieldError`` for models that are not in the bucket and a quality outside its range."""
        for name, models in (("allow_models", self.allow), ("deny_models", self.deny)):
            for model in sorted(models):
                if model not in known:
                    raise FieldError(name, f"models/{model} is not a model of this bucket")
        if self.min_quality is not None:
            check_number(self.min_quality, "min_quality", low=quality.min, high=quality.max)


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a bucket can choose from: its models in the order of its posteriors' columns, and which are switched on."""

    models: tuple[Model, ...]
    available: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the posteriors say of each of k models at one context. Quality is scaled to [0, 1]."""

    quality_k: Array
    quality_sd_k: Array
    cost_k: Array
    latency_k: Array
    latency_p95_k: Array


@dataclass(frozen=True, slots=True)
class Choice:
    """One draw: indices of the chosen model and of the fallbacks (best first), and how probable the choice was."""

    chosen: int
    fallbacks: tuple[int, ...]
    propensity: float
    explored: bool
    limits_violated: bool


def predictions(posteriors: Posteriors, x_d: Array) -> Predictions:
    """What the posteriors say at ``x_d``. O(k·d²)."""
    mean_rk, variance_rk = predict(posteriors, x_d)
    return _predictions(mean_rk, variance_rk, noise(posteriors))


def predictions_batch(posteriors: Posteriors, x_bd: Array) -> list[Predictions]:
    """``predictions`` for b contexts, computed as one."""
    mean_brk, variance_brk = predict_batch(posteriors, x_bd)
    noise_rk = noise(posteriors)
    return [_predictions(m, v, noise_rk) for m, v in zip(mean_brk, variance_brk, strict=True)]


def _predictions(mean_rk: Array, variance_rk: Array, noise_rk: Array) -> Predictions:
    # E[exp(N(m, σ²))] = exp(m + σ²/2). Only the spread of responses enters, not that of θ: a model of which little is
    # known should look as its prior says, not dearer for being unknown.
    center_rk = np.minimum(mean_rk[COST : LATENCY + 1] + 0.5 * noise_rk[COST : LATENCY + 1], _MAX_LOG)
    spread_k = np.sqrt(noise_rk[LATENCY] + variance_rk[LATENCY])
    return Predictions(
        quality_k=mean_rk[QUALITY],
        quality_sd_k=np.sqrt(variance_rk[QUALITY]),
        cost_k=np.exp(center_rk[COST - 1]),
        latency_k=np.exp(center_rk[LATENCY - 1]),
        latency_p95_k=np.exp(np.minimum(mean_rk[LATENCY] + _Z95 * spread_k, _MAX_LOG)),
    )


def static_exclusions(candidates: Candidates, limits: Limits) -> list[int]:
    """For each model the set (as bits) of exclusions that do not depend on the context."""
    sets = []
    for model, available in zip(candidates.models, candidates.available, strict=True):
        bits = 0 if available else Exclusion.UNAVAILABLE.bit
        if limits.allow and model.id not in limits.allow:
            bits |= Exclusion.NOT_ALLOWED.bit
        if model.id in limits.deny:
            bits |= Exclusion.DENIED.bit
        if not limits.capabilities.issubset(model.capabilities):
            bits |= Exclusion.CAPABILITY.bit
        if any(model.tags.get(key) != value for key, value in limits.tags.items()):
            bits |= Exclusion.TAG.bit
        sets.append(bits)
    return sets


def exclusions(
    candidates: Candidates,
    static_k: Sequence[int],
    limits: Limits,
    quality: QualityRange,
    predicted: Predictions,
    encoded: Encoded,
) -> Ints:
    """For each model the set (as bits, k) of everything that excludes it for this request."""
    bits_k = np.array(static_k, dtype=np.int64)
    if encoded.input_tokens >= 0:
        needed = encoded.input_tokens + max(encoded.max_output_tokens, 0)
        for i, model in enumerate(candidates.models):
            if 0 < model.context_window < needed:
                bits_k[i] |= Exclusion.CONTEXT_WINDOW.bit
    if limits.max_cost is not None:
        bits_k[predicted.cost_k > limits.max_cost] |= Exclusion.COST.bit
    if limits.max_latency is not None:
        latency_k = predicted.latency_p95_k if limits.latency_p95 else predicted.latency_k
        bits_k[latency_k > limits.max_latency] |= Exclusion.LATENCY.bit
    if limits.min_quality is not None:
        lowest = (limits.min_quality - quality.min) / quality.width
        bits_k[predicted.quality_k < lowest] |= Exclusion.QUALITY.bit
    return bits_k


def describe_exclusions(
    bits: int,
    index: int,
    model: Model,
    limits: Limits,
    quality: QualityRange,
    predicted: Predictions,
) -> list[tuple[Exclusion, str]]:
    """Each exclusion in ``bits`` of model number ``index`` with a sentence that names the limit and the model's value."""
    latency = (predicted.latency_p95_k if limits.latency_p95 else predicted.latency_k)[index]
    missing = sorted(limits.capabilities.difference(model.capabilities))
    tags = {k: v for k, v in limits.tags.items() if model.tags.get(k) != v}
    statistic = "95th percentile of latency" if limits.latency_p95 else "expected latency"
    expected = quality.min + quality.width * float(predicted.quality_k[index])
    sentences = {
        Exclusion.UNAVAILABLE: "switched off by an operator",
        Exclusion.NOT_ALLOWED: "not in limits.allow_models",
        Exclusion.DENIED: "in limits.deny_models",
        Exclusion.CONTEXT_WINDOW: f"context window of {model.context_window} tokens is too small",
        Exclusion.CAPABILITY: f"lacks {', '.join(missing)}",
        Exclusion.TAG: "lacks " + ", ".join(f"{k}={v}" for k, v in sorted(tags.items())),
        Exclusion.COST: f"expected cost ${predicted.cost_k[index]:.3g} is over limits.max_cost_usd {limits.max_cost}",
        Exclusion.LATENCY: f"{statistic} {latency:.3g} s is over limits.max_latency_seconds {limits.max_latency}",
        Exclusion.QUALITY: f"expected quality {expected:.3g} is under limits.min_quality {limits.min_quality}",
    }
    return [(reason, sentences[reason]) for reason in Exclusion if bits & reason.bit]


@dataclass(frozen=True, slots=True)
class Race:
    """What the eligible arms race for, in columns over the eligible ones (e).

    Without a ``floor`` the largest draw of N(mean, sd²) wins. With one the draws are of quality, and the arm of lowest rank
    wins among those that reach the floor; if none does, the largest draw.
    """

    mean_e: Array
    sd_e: Array
    rank_e: Ints | None = None
    floor: float = 0.0


def race(objective: Objective, quality: QualityRange, predicted: Predictions, eligible_e: Ints) -> Race:
    """What the eligible arms race for under a resolved ``objective``.

    A floor relative to the best is relative to the largest *expected* quality. The largest draw would be the other choice,
    but it is the maximum of all arms' uncertainties: the dear arms would be bought for noise
    (`docs/decisions/floor-from-means.md`).
    """
    mean_e, sd_e = predicted.quality_k[eligible_e], predicted.quality_sd_k[eligible_e]
    if objective.mode in FLOOR_MODES:
        by_k = predicted.cost_k if objective.mode is Mode.COST_FIRST else predicted.latency_k
        rank_e = np.empty(len(eligible_e), dtype=np.int64)
        rank_e[np.argsort(by_k[eligible_e], kind="stable")] = np.arange(len(eligible_e))
        if objective.min_quality is not None:
            return Race(mean_e, sd_e, rank_e, (objective.min_quality - quality.min) / quality.width)
        return Race(mean_e, sd_e, rank_e, float(mean_e.max()) - (objective.max_quality_loss or 0.0) / quality.width)
    if objective.cost_weight or objective.latency_weight:
        mean_e = mean_e - ((objective.cost_weight or 0.0) / quality.width) * predicted.cost_k[eligible_e]
        mean_e -= ((objective.latency_weight or 0.0) / quality.width) * predicted.latency_k[eligible_e]
    return Race(mean_e, sd_e)


def win_probabilities(race_: Race) -> Array:
    """Exact probability, for each eligible arm, of winning the race; sums to 1."""
    if race_.rank_e is None:
        return argmax_propensities(race_.mean_e, race_.sd_e)
    return floor_propensities(race_.mean_e, race_.sd_e, race_.rank_e, floor=race_.floor)


def win_probability(race_: Race, arm: int) -> float:
    """``win_probabilities`` of one arm only, which costs less."""
    if race_.rank_e is None:
        return argmax_propensity(race_.mean_e, race_.sd_e, arm)
    return floor_propensity(race_.mean_e, race_.sd_e, race_.rank_e, arm, floor=race_.floor)


def finish(race_: Race, draw_e: Array) -> Ints:
    """Order of arrival, winner first, when the arms' draws are ``draw_e``."""
    if race_.rank_e is None:
        return np.argsort(-draw_e, kind="stable")
    cleared_e = draw_e >= race_.floor
    # those that clear the floor by rank, then the others by quality
    return np.lexsort((np.where(cleared_e, race_.rank_e, -draw_e), ~cleared_e))


def choose(
    objective: Objective,
    quality: QualityRange,
    exploration_floor: float,
    limits: Limits,
    predicted: Predictions,
    exclusions_k: Ints,
    candidates: Candidates,
    rng: np.random.Generator,
) -> Choice:
    """Draw one decision under a resolved ``objective``.

    Raises ``NothingEligibleError`` if every model is excluded, unless ``limits.allow_least_violating`` and some model
    is excluded by limits on predictions only: then the one that breaks them least (relative to the limits, summed) is
    taken, with propensity 1.
    """
    eligible_e = np.flatnonzero(exclusions_k == 0)
    if not eligible_e.size:
        return _least_violating(quality, limits, predicted, exclusions_k, candidates)
    race_ = race(objective, quality, predicted, eligible_e)
    draw_e = race_.mean_e + race_.sd_e * rng.standard_normal(eligible_e.size)
    order = finish(race_, draw_e)
    explored = bool(rng.random() < exploration_floor)
    winner = int(rng.integers(eligible_e.size)) if explored else int(order[0])
    won = win_probability(race_, winner) if exploration_floor < 1.0 else 0.0
    return Choice(
        chosen=int(eligible_e[winner]),
        fallbacks=tuple(int(eligible_e[i]) for i in order if i != winner),
        propensity=mixed(won, exploration_floor, eligible_e.size),
        explored=explored,
        limits_violated=False,
    )


def mixed(won: float, exploration_floor: float, eligible: int) -> float:
    """The propensity π of an arm that wins the posterior draw with probability ``won``."""
    return (1.0 - exploration_floor) * won + exploration_floor / eligible


def propensities(
    objective: Objective,
    quality: QualityRange,
    exploration_floor: float,
    predicted: Predictions,
    exclusions_k: Ints,
) -> Array:
    """The propensity of every model (k); 0 for those excluded. For explanations and off-policy evaluation."""
    pi_k = np.zeros(len(exclusions_k))
    eligible_e = np.flatnonzero(exclusions_k == 0)
    if eligible_e.size:
        won_e = win_probabilities(race(objective, quality, predicted, eligible_e))
        pi_k[eligible_e] = (1.0 - exploration_floor) * won_e + exploration_floor / eligible_e.size
    return pi_k


def utilities(objective: Objective, quality: QualityRange, predicted: Predictions) -> Array:
    """quality - λ·cost - μ·latency of every model (k), in the bucket's units."""
    weighted_k = (objective.cost_weight or 0.0) * predicted.cost_k
    weighted_k = weighted_k + (objective.latency_weight or 0.0) * predicted.latency_k
    return quality.min + quality.width * predicted.quality_k - weighted_k


def _least_violating(
    quality: QualityRange,
    limits: Limits,
    predicted: Predictions,
    exclusions_k: Ints,
    candidates: Candidates,
) -> Choice:
    soft_e = np.flatnonzero((exclusions_k & ~SOFT) == 0)
    if not (limits.allow_least_violating and soft_e.size):
        raise NothingEligibleError(
            {
                model.id: tuple(
                    sentence
                    for _, sentence in describe_exclusions(int(exclusions_k[i]), i, model, limits, quality, predicted)
                )
                for i, model in enumerate(candidates.models)
            }
        )
    excess_k = np.zeros(len(exclusions_k))
    if limits.max_cost is not None:
        excess_k += np.maximum(predicted.cost_k / limits.max_cost - 1.0, 0.0)
    if limits.max_latency is not None:
        latency_k = predicted.latency_p95_k if limits.latency_p95 else predicted.latency_k
        excess_k += np.maximum(latency_k / limits.max_latency - 1.0, 0.0)
    if limits.min_quality is not None:
        lowest = (limits.min_quality - quality.min) / quality.width
        excess_k += np.maximum(lowest - predicted.quality_k, 0.0)
    order = soft_e[np.argsort(excess_k[soft_e], kind="stable")]
    return Choice(
        int(order[0]),
        tuple(int(i) for i in order[1:]),
        1.0,
        explored=False,
        limits_violated=True,
    )
