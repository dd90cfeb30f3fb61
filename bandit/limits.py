"""Limits of a request, and reasons for which a candidate is not eligible.

A candidate's exclusions are a set, kept as the bits of an integer: bit i stands for the ``Exclusion`` of number i.

>>> Limits(max_cost=0.0)
Traceback (most recent call last):
pointsman.bandit.errors.FieldError: max_cost_usd: expected a finite number above 0, got 0
>>> candidates = Candidates((Model("a"), Model("b")), available=(True, False))
>>> excluded_k = static_exclusions(candidates, Limits(deny=frozenset({"a"})))
>>> [[reason.name for reason in Exclusion if bits & reason.bit] for bits in excluded_k.tolist()]
[['DENIED'], ['UNAVAILABLE']]
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from pointsman.bandit.catalog import Model, QualityRange, check_number
from pointsman.bandit.errors import FieldError, NothingEligibleError
from pointsman.bandit.predictions import Candidates, Ints, Predictions


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
    CIRCUIT_OPEN = 10
    BUDGET = 11
    AVAILABILITY = 12

    @property
    def bit(self) -> int:
        """The bit that stands for it in a set of exclusions."""
        return 1 << int(self)


SOFT = Exclusion.COST.bit | Exclusion.LATENCY.bit | Exclusion.QUALITY.bit
"""Limits on what is predicted; ``allow_least_violating`` may break these, never the others."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits that one request places on its candidates; see the contract's ``Limits``."""

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

    @property
    def on_predictions(self) -> bool:
        """Whether any of them depends on what is predicted."""
        return self.max_cost is not None or self.max_latency is not None or self.min_quality is not None

    def check(self, names: Collection[str], quality: QualityRange) -> None:
        """Raise ``FieldError`` for models that are not in the bucket and a quality outside its range."""
        for name, models in (("allow_models", self.allow), ("deny_models", self.deny)):
            for model in sorted(models):
                if model not in names:
                    raise FieldError(name, f"models/{model} is not a model of this bucket")
        if self.min_quality is not None:
            check_number(self.min_quality, "min_quality", low=quality.min, high=quality.max)


NO_LIMITS = Limits()
"""No demands."""


def static_exclusions(candidates: Candidates, limits: Limits) -> Ints:
    """For each model the set (as bits, k) of exclusions that do not depend on the context."""
    static_k = candidates.unavailable_k * Exclusion.UNAVAILABLE.bit
    if not (limits.allow or limits.deny or limits.capabilities or limits.tags):
        return static_k
    for k, model in enumerate(candidates.models):
        if limits.allow and model.id not in limits.allow:
            static_k[k] |= Exclusion.NOT_ALLOWED.bit
        if model.id in limits.deny:
            static_k[k] |= Exclusion.DENIED.bit
        if not limits.capabilities.issubset(model.capabilities):
            static_k[k] |= Exclusion.CAPABILITY.bit
        if any(model.tags.get(key) != value for key, value in limits.tags.items()):
            static_k[k] |= Exclusion.TAG.bit
    return static_k


def exclusions(
    candidates: Candidates, limits: Limits, quality: QualityRange, predicted: Predictions, needed_b: Ints
) -> Ints:
    """For each of b requests and each model the set (as bits, (b, k)) of everything that excludes it.

    ``predicted`` is (b, k), at best (``bandit.optimism``): what little is known of is not shut out for good by a few unlucky
    outcomes; ``needed_b`` the tokens that a context window must hold, 0 if unknown.
    """
    static_k = static_exclusions(candidates, limits)
    bits_bk = np.empty((len(needed_b), len(static_k)), dtype=np.int64)
    bits_bk[:] = static_k
    if candidates.window_k.any():
        bits_bk[(needed_b[:, None] > candidates.window_k) & (candidates.window_k > 0)] |= Exclusion.CONTEXT_WINDOW.bit
    if limits.max_cost is not None:
        bits_bk[predicted.cost_k > limits.max_cost] |= Exclusion.COST.bit
    if limits.max_latency is not None:
        latency = predicted.latency_p95_k if limits.latency_p95 else predicted.latency_k
        bits_bk[latency > limits.max_latency] |= Exclusion.LATENCY.bit
    if limits.min_quality is not None:
        lowest = (limits.min_quality - quality.min) / quality.width
        bits_bk[predicted.quality_k < lowest] |= Exclusion.QUALITY.bit
    return bits_bk


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
        Exclusion.CIRCUIT_OPEN: "its calls have been failing (circuit breaker open)",
        Exclusion.AVAILABILITY: "another model is clearly more likely to answer (objective AVAILABILITY_FIRST)",
        Exclusion.BUDGET: (
            "a call could pass a hard budget (or what it can cost at most is unknown: that takes list prices, and a limit of "
            "output tokens on the model or the request)"
        ),
        Exclusion.QUALITY: f"expected quality {expected:.3g} is under limits.min_quality {limits.min_quality}",
    }
    return [(reason, sentences[reason]) for reason in Exclusion if bits & reason.bit]


def least_violating(
    quality: QualityRange, limits: Limits, predicted: Predictions, exclusions_k: Ints, candidates: Candidates
) -> Ints:
    """The models that break only limits on predictions, those that break them least (relative to the limits, summed) first.

    For a request without an eligible model, at one context. Raises ``NothingEligibleError`` with the reasons of every model
    unless ``limits.allow_least_violating`` and there is such a model.
    """
    soft_e = np.flatnonzero((exclusions_k & ~SOFT) == 0)
    if not (limits.allow_least_violating and soft_e.size):
        reasons = {}
        for k, model in enumerate(candidates.models):
            described = describe_exclusions(int(exclusions_k[k]), k, model, limits, quality, predicted)
            reasons[model.id] = tuple(sentence for _, sentence in described)
        raise NothingEligibleError(reasons)
    excess_k = np.zeros(len(exclusions_k))
    if limits.max_cost is not None:
        excess_k += np.maximum(predicted.cost_k / limits.max_cost - 1.0, 0.0)
    if limits.max_latency is not None:
        latency_k = predicted.latency_p95_k if limits.latency_p95 else predicted.latency_k
        excess_k += np.maximum(latency_k / limits.max_latency - 1.0, 0.0)
    if limits.min_quality is not None:
        lowest = (limits.min_quality - quality.min) / quality.width
        excess_k += np.maximum(lowest - predicted.quality_k, 0.0)
    return soft_e[np.argsort(excess_k[soft_e], kind="stable")]
