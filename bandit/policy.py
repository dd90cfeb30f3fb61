"""The policy: from predictions for the candidates to one Thompson draw and its exact propensity.

The arms are independent given the posteriors, so instead of drawing coefficient vectors the policy draws, for each
candidate, the scalar θ·x that its objective needs: the same law of choice at O(d²) per arm. Quality is drawn from the
Normal with the posterior's mean and ``RESHAPE`` times its standard deviation; cost and latency enter at their
expectations. An even draw with probability ε (the exploration floor) is mixed in, and the propensity is that of the mixture:

    π(a) = (1 - ε)·P(a wins the posterior draw) + ε / |eligible|
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from pointsman.bandit.catalog import (
    FLOOR_MODES,
    Mode,
    Model,
    Objective,
    QualityRange,
    check_number,
)
from pointsman.bandit.errors import FieldError, NothingEligibleError
from pointsman.bandit.posterior import (
    COST,
    LATENCY,
    QUALITY,
    TOKENS,
    Posteriors,
    noise,
    predict_batch,
)
from pointsman.bandit.propensity import (
    argmax_propensities,
    argmax_propensity,
    argmax_propensity_batch,
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
    CIRCUIT_OPEN = 10
    BUDGET = 11

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

    def check(self, known: Collection[str], quality: QualityRange) -> None:
        """Raise ``FieldError`` for models that are not in the bucket and a quality outside its range."""
        for name, models in (("allow_models", self.allow), ("deny_models", self.deny)):
            for model in sorted(models):
                if model not in known:
                    raise FieldError(name, f"models/{model} is not a model of this bucket")
        if self.min_quality is not None:
            check_number(self.min_quality, "min_quality", low=quality.min, high=quality.max)


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a bucket can choose from: its models in the order of its posteriors' columns, which of them are switched on, and,
    derived, the exclusions that hold for every request, the context windows (0: unlimited), the most output tokens (infinite
    if unlimited or unknown), and, unless no model has prices, the dollars per input token, per output token and per request
    (NaN for a model without prices).
    """

    models: tuple[Model, ...]
    available: tuple[bool, ...]
    names: tuple[str, ...] = field(init=False)
    always_k: Ints = field(init=False)
    window_k: Ints = field(init=False)
    output_k: Array = field(init=False)
    prices_3k: Array | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(model.id for model in self.models))
        off = [0 if available else Exclusion.UNAVAILABLE.bit for available in self.available]
        object.__setattr__(self, "always_k", np.array(off, dtype=np.int64))
        prices = [
            (p.input_per_million, p.output_per_million, p.per_request) if (p := m.prices) else None for m in self.models
        ]
        table = np.array([one or (np.nan, np.nan, np.nan) for one in prices]).T.reshape(3, -1) / [[1e6], [1e6], [1.0]]
        object.__setattr__(self, "prices_3k", table if any(prices) else None)
        object.__setattr__(self, "window_k", np.array([m.context_window for m in self.models], dtype=np.int64))
        object.__setattr__(self, "output_k", np.array([m.max_output_tokens or np.inf for m in self.models]))


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the posteriors say of each of k models, (k) at one context or (b, k) at b. Quality is scaled to [0, 1]."""

    quality_k: Array
    quality_sd_k: Array
    cost_k: Array
    latency_k: Array
    latency_p95_k: Array
    tokens_k: Array

    def take(self, models: npt.NDArray[np.intp]) -> Predictions:
        """Those of some of the models, of a batch."""
        return Predictions(
            self.quality_k[:, models],
            self.quality_sd_k[:, models],
            self.cost_k[:, models],
            self.latency_k[:, models],
            self.latency_p95_k[:, models],
            self.tokens_k[:, models],
        )

    def at(self, row: int) -> Predictions:
        """Those of one context of a batch."""
        return Predictions(
            self.quality_k[row],
            self.quality_sd_k[row],
            self.cost_k[row],
            self.latency_k[row],
            self.latency_p95_k[row],
            self.tokens_k[row],
        )

    def batch(self) -> Predictions:
        """Those of one context as a batch of one."""
        return Predictions(
            self.quality_k[None],
            self.quality_sd_k[None],
            self.cost_k[None],
            self.latency_k[None],
            self.latency_p95_k[None],
            self.tokens_k[None],
        )


@dataclass(frozen=True, slots=True)
class Choices:
    """b draws: the chosen models, all models in the order in which to try them (the chosen one first; (b, k), of which the
    first ``eligible_b`` count), how probable the choices were, whether the even draw made them, and the draws of quality.
    """

    chosen_b: Ints
    order_bk: Ints
    eligible_b: Ints
    propensity_b: Array
    explored_b: npt.NDArray[np.bool_]
    limits_violated_b: npt.NDArray[np.bool_]
    draw_bk: Array


def predictions(posteriors: Posteriors, x_d: Array) -> Predictions:
    """What the posteriors say at ``x_d``. O(k·d²)."""
    return predictions_batch(posteriors, x_d[None]).at(0)


def predictions_batch(posteriors: Posteriors, x_bd: Array) -> Predictions:
    """``predictions`` for b contexts, computed as one, each (b, k)."""
    mean_bkr, (quality_bk, latency_bk) = predict_batch(posteriors, x_bd, (QUALITY, LATENCY))
    noise_kr = noise(posteriors)
    # E[exp(N(m, σ²))] = exp(m + σ²/2). Only the spread of responses enters, not that of θ: a model of which little is
    # known should look as its prior says, not dearer for being unknown.
    expected_bkr = mean_bkr[:, :, COST:] + 0.5 * noise_kr[:, COST:]
    np.minimum(expected_bkr, _MAX_LOG, out=expected_bkr)
    np.exp(expected_bkr, out=expected_bkr)
    p95_bk = _Z95 * np.sqrt(noise_kr[:, LATENCY] * (1.0 + latency_bk))
    p95_bk += mean_bkr[:, :, LATENCY] + posteriors.p95_correction_k
    return Predictions(
        quality_k=mean_bkr[:, :, QUALITY],
        quality_sd_k=np.sqrt(noise_kr[:, QUALITY] * quality_bk),
        cost_k=expected_bkr[:, :, COST - 1],
        latency_k=expected_bkr[:, :, LATENCY - 1],
        latency_p95_k=np.exp(np.minimum(p95_bk, _MAX_LOG, out=p95_bk), out=p95_bk),
        tokens_k=expected_bkr[:, :, TOKENS - 1],
    )


def priced(
    predicted: Predictions, candidates: Candidates, count_rk: Ints, input_b: Array, most_b: Array
) -> Predictions:
    """``predicted`` (b, k) with the cost of models that have prices made from them.

    That is price_in·input tokens + price_out·E[output tokens] + price of the request: a price change acts at once, with
    nothing to relearn. ``count_rk`` counts what was observed of each response (rows as in ``bandit.posterior``), ``input_b``
    the input tokens and ``most_b`` the most output tokens allowed (-1 when unknown). Where input tokens matter and are
    unknown, or only dollars were ever reported, the cost stays that of the regression.
    """
    if candidates.prices_3k is None:
        return predicted
    in_k, out_k, request_k = candidates.prices_3k
    told_k = (count_rk[TOKENS] > 0) | (count_rk[COST] == 0) | (out_k == 0.0)
    known_bk = np.isfinite(in_k) & told_k & ((input_b[:, None] >= 0) | (in_k == 0.0))
    most_bk = np.minimum(np.where(most_b[:, None] >= 0, most_b[:, None], np.inf), candidates.output_k)
    tokens_bk = np.minimum(predicted.tokens_k, most_bk)
    cost_bk = in_k * np.maximum(input_b, 0)[:, None] + out_k * tokens_bk + request_k
    return replace(predicted, cost_k=np.where(known_bk, cost_bk, predicted.cost_k))


def max_costs(candidates: Candidates, input_b: Ints, most_b: Ints) -> Array:
    """The most that each model's call can cost, (b, k) dollars: its prices times the most tokens; infinite where unbounded.

    ``input_b`` are input tokens and ``most_b`` the most output tokens that requests allow, -1 when unknown: then the model's
    own limits count.
    """
    if candidates.prices_3k is None:
        return np.full((len(input_b), len(candidates.models)), np.inf)
    in_k, out_k, request_k = candidates.prices_3k
    window_k = np.where(candidates.window_k > 0, candidates.window_k, np.inf)
    input_bk = np.where(input_b[:, None] >= 0, input_b[:, None], window_k)
    output_bk = np.minimum(np.where(most_b[:, None] >= 0, most_b[:, None], np.inf), candidates.output_k)
    output_bk = np.minimum(output_bk, window_k)
    with np.errstate(invalid="ignore"):  # a price of nothing for tokens without end
        dollars_bk = np.where(in_k > 0.0, in_k * input_bk, 0.0) + np.where(out_k > 0.0, out_k * output_bk, 0.0)
    return np.asarray(np.where(np.isnan(in_k), np.inf, dollars_bk + request_k))


def static_exclusions(candidates: Candidates, limits: Limits) -> Ints:
    """For each model the set (as bits, k) of exclusions that do not depend on the context."""
    static_k = candidates.always_k.copy()
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

    ``predicted`` is (b, k); ``needed_b`` the tokens that a context window must hold, 0 if unknown.
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
        Exclusion.BUDGET: (
            "a call could pass a hard budget (or what it can cost at most is unknown: that takes list prices, and a limit of "
            "output tokens on the model or the request)"
        ),
        Exclusion.QUALITY: f"expected quality {expected:.3g} is under limits.min_quality {limits.min_quality}",
    }
    return [(reason, sentences[reason]) for reason in Exclusion if bits & reason.bit]


@dataclass(frozen=True, slots=True)
class ArmScores:
    """What the arms of b requests are compared by, (b, k).

    Without ``rank_bk`` the largest draw of N(mean, sd²) wins. With it the draws are of quality (less what a budget takes
    off), and the arm of lowest rank wins among those that reach the floor; if none does, the largest draw. ``shift_bk`` is
    what was taken off the quality's mean. Arms that may not run have a mean of ``INELIGIBLE`` and no spread. ``relative`` says
    that the floor is relative to the best mean.
    """

    mean_bk: Array
    sd_bk: Array
    shift_bk: Array
    eligible_bk: npt.NDArray[np.bool_]
    rank_bk: Ints | None = None
    floor_b: Array | None = None
    relative: bool = False


RESHAPE = 0.5
"""Draws are made with this share of the posterior's standard deviation (Chapelle & Li, NIPS 2011, section 3): with tens of
features the full spread explores for longer than it pays, warm or cold (`docs/decisions/reshaped-draw.md`)."""
NO_SPREAD = 1e-12
"""A standard deviation of quality, scaled to [0, 1], that counts as none: quadrature need not resolve it."""
INELIGIBLE = -1e30
"""Mean of an arm that may not run: below anything that may, whatever multiplier a budget has put on the largest cost."""


def score_arms(
    objective: Objective,
    quality: QualityRange,
    predicted: Predictions,
    exclusions_bk: Ints,
    multiplier: float = 0.0,
) -> ArmScores:
    """What the arms race for under a resolved ``objective``, all (b, k).

    ``multiplier`` is what a budget adds to λ, in quality (scaled to [0, 1]) per dollar. A floor relative to the best is
    relative to the largest *expected* quality. The largest draw would be the other choice, but it is the maximum of all arms'
    uncertainties: the dear arms would be bought for noise (`docs/decisions/floor-from-means.md`).
    """
    eligible_bk = exclusions_bk == 0
    cost_weight = (objective.cost_weight or 0.0) / quality.width + multiplier
    shift_bk = cost_weight * predicted.cost_k
    if objective.latency_weight:
        shift_bk += (objective.latency_weight / quality.width) * predicted.latency_k
    mean_bk = np.where(eligible_bk, predicted.quality_k - shift_bk, INELIGIBLE)
    sd_bk = RESHAPE * predicted.quality_sd_k
    sd_bk = np.where(eligible_bk & (sd_bk > NO_SPREAD), sd_bk, 0.0)
    if objective.mode not in FLOOR_MODES:
        return ArmScores(mean_bk, sd_bk, shift_bk, eligible_bk)
    by_bk = predicted.cost_k if objective.mode is Mode.COST_FIRST else predicted.latency_k
    order_bk = np.argsort(np.where(eligible_bk, by_bk, np.inf), axis=1, kind="stable")
    rank_bk = np.empty_like(order_bk)
    np.put_along_axis(rank_bk, order_bk, np.arange(order_bk.shape[1])[None], axis=1)
    if objective.min_quality is not None:
        floor_b = np.full(len(mean_bk), (objective.min_quality - quality.min) / quality.width)
    else:
        floor_b = mean_bk.max(axis=1) - (objective.max_quality_loss or 0.0) / quality.width
    return ArmScores(mean_bk, sd_bk, shift_bk, eligible_bk, rank_bk, floor_b, relative=objective.min_quality is None)


def choice_probabilities(scores: ArmScores, row: int = 0) -> Array:
    """Exact probability, for each arm (k) of one request, of winning the race; 0 for those that may not run."""
    mean_k, sd_k = scores.mean_bk[row], scores.sd_bk[row]
    if scores.rank_bk is None or scores.floor_b is None:
        return argmax_propensities(mean_k, sd_k)
    return floor_propensities(mean_k, sd_k, scores.rank_bk[row], floor=float(scores.floor_b[row]))


def chosen_propensities(scores: ArmScores, arm_b: Ints) -> Array:
    """``choice_probabilities`` of one arm of each request only, (b), which costs less."""
    b = len(arm_b)
    if scores.rank_bk is not None and scores.floor_b is not None:
        return _floor_batch(scores, arm_b)
    if b >= FEW:
        return argmax_propensity_batch(scores.mean_bk, scores.sd_bk, arm_b)
    won = [argmax_propensity(scores.mean_bk[i], scores.sd_bk[i], int(arm_b[i])) for i in range(b)]
    return np.array(won)


FEW = 12
"""Requests below which quadrature one by one beats quadrature of a batch."""
_NEGLIGIBLE = 1e-10


def _floor_batch(scores: ArmScores, arm_b: Ints) -> Array:
    """The floor rule's closed form for a batch; by quadrature where it is not negligible that no arm reaches the floor."""
    assert scores.rank_bk is not None
    assert scores.floor_b is not None
    rows = np.arange(len(arm_b))
    with np.errstate(divide="ignore", invalid="ignore"):
        z_bk = (scores.floor_b[:, None] - scores.mean_bk) / scores.sd_bk
    z_bk[np.isnan(z_bk)] = -np.inf  # no spread, exactly at the floor: it clears
    short_bk = ndtr(z_bk)
    before_bk = scores.rank_bk < scores.rank_bk[rows, arm_b][:, None]
    won_b = (1.0 - short_bk[rows, arm_b]) * np.where(before_bk, short_bk, 1.0).prod(axis=1)
    for i in np.flatnonzero(short_bk.prod(axis=1) > _NEGLIGIBLE):
        won_b[i] = floor_propensity(
            scores.mean_bk[i], scores.sd_bk[i], scores.rank_bk[i], int(arm_b[i]), floor=float(scores.floor_b[i])
        )
    return np.asarray(won_b)


def rank_arms(scores: ArmScores, draw_bk: Array) -> Ints:
    """Order of arrival of the arms of each request, (b, k), winner first, when their draws of the race are ``draw_bk``."""
    if scores.rank_bk is None or scores.floor_b is None:
        return np.argsort(-draw_bk, axis=1, kind="stable")
    cleared_bk = draw_bk >= scores.floor_b[:, None]
    # those that clear the floor by rank, then the others by draw
    return np.lexsort((np.where(cleared_bk, scores.rank_bk, -draw_bk), ~cleared_bk), axis=1)


EXPLORE = 0.01
"""Share of requests that the even draw decides, unless a bucket says otherwise."""
EXPLORE_LOSS = 0.0005
"""What the even draw may cost a request on average, in utility on the scale of quality from 0 to 1."""
EXPLORE_DOLLARS = 0.02
"""What it may cost on average under a floor rule, as a share of the cost of the model that the rule expects to choose."""


def explored_share(scores: ArmScores, predicted: Predictions, floor: float | None) -> Array:
    """The exploration floor ε of each request, (b): ``floor`` if it is given, else ``EXPLORE`` or less.

    Where models differ a hundredfold in cost, a fixed share of even draws can cost more than all that routing saves; the floor
    gives way before that, and the propensities that are logged say by how much.
    """
    eligible_bk, mean_bk = scores.eligible_bk, scores.mean_bk
    b = len(mean_bk)
    if floor is not None:
        return np.full(b, floor)
    count_b = np.maximum(np.add.reduce(eligible_bk, axis=1), 1)
    if scores.rank_bk is None or scores.floor_b is None:
        gap_bk = np.maximum.reduce(mean_bk, axis=1, keepdims=True) - mean_bk
        gap_bk *= eligible_bk
        most_b: Array | float = EXPLORE_LOSS
    else:
        rows, best_b = np.arange(b), mean_bk.argmax(axis=1)
        clears_bk = eligible_bk & (mean_bk >= scores.floor_b[:, None])
        expected_b = np.where(clears_bk, scores.rank_bk, mean_bk.shape[1]).argmin(axis=1)
        cost_b = predicted.cost_k[rows, np.where(clears_bk.any(axis=1), expected_b, best_b)]
        gap_bk = np.where(eligible_bk, predicted.cost_k - cost_b[:, None], 0.0)
        most_b = EXPLORE_DOLLARS * cost_b
    loss_b = np.maximum(np.add.reduce(gap_bk, axis=1) / count_b, 1e-300)
    return np.asarray(np.minimum(EXPLORE, most_b / loss_b))


@dataclass(frozen=True, slots=True, eq=False)
class Newcomers:
    """Models of which a bucket that knows others knows little. They take part in a race only with probability ``quota``.

    ``scores`` are those without them.
    """

    new_k: npt.NDArray[np.bool_]
    quota: float
    scores: ArmScores


def choose(
    scores: ArmScores,
    exploration_b: Array,
    rng: np.random.Generator,
    newcomers: Newcomers | None = None,
    *,
    with_propensity: bool = True,
) -> Choices:
    """Draw the decisions of b requests, a share ``exploration_b`` of each by the even draw.

    A request that has no eligible arm gets a meaningless decision, with ``eligible_b`` 0. ``with_propensity`` false leaves the
    propensities at 0, for those who do not log.
    """
    b, k = scores.mean_bk.shape
    run = scores
    if newcomers is not None:
        run = _mixed(scores, newcomers.scores, np.asarray(rng.random(b) < newcomers.quota))
    draw_bk = run.sd_bk * rng.standard_normal((b, k))
    draw_bk += run.mean_bk
    order_bk = rank_arms(run, draw_bk)
    chosen_b = order_bk[:, 0].copy()
    eligible_b = scores.eligible_bk.sum(axis=1)
    explored_b = (rng.random(b) < exploration_b) & (eligible_b > 0)
    for i in np.flatnonzero(explored_b) if explored_b.any() else ():
        chosen_b[i] = rng.choice(np.flatnonzero(scores.eligible_bk[i]))
        place = int(np.flatnonzero(order_bk[i] == chosen_b[i])[0])
        order_bk[i, 1 : place + 1] = order_bk[i, :place].copy()
        order_bk[i, 0] = chosen_b[i]
    propensity_b = np.zeros(b)
    if with_propensity:
        won_b = chosen_propensities(scores, chosen_b)
        if newcomers is not None:
            won_b = newcomers.quota * won_b + (1.0 - newcomers.quota) * chosen_propensities(newcomers.scores, chosen_b)
        propensity_b = (1.0 - exploration_b) * won_b + exploration_b / np.maximum(eligible_b, 1)
    draw_bk += run.shift_bk
    return Choices(chosen_b, order_bk, eligible_b, propensity_b, explored_b, np.zeros(b, dtype=np.bool_), draw_bk)


def without(scores: ArmScores, new_k: npt.NDArray[np.bool_]) -> ArmScores:
    """The race of ``scores`` with some arms kept out, which stay eligible for the even draw, unless nobody else may run."""
    out_bk = new_k & np.any(scores.eligible_bk & ~new_k, axis=1, keepdims=True)
    mean_bk = np.where(out_bk, INELIGIBLE, scores.mean_bk)
    floor_b = scores.floor_b
    if floor_b is not None and scores.relative:
        floor_b = floor_b + mean_bk.max(axis=1) - scores.mean_bk.max(axis=1)
    return replace(scores, mean_bk=mean_bk, sd_bk=np.where(out_bk, 0.0, scores.sd_bk), floor_b=floor_b)


def _mixed(all_: ArmScores, some: ArmScores, admitted_b: npt.NDArray[np.bool_]) -> ArmScores:
    """The race with all arms where ``admitted_b``, else the one with some."""
    admitted_b1 = admitted_b[:, None]
    floor_b = all_.floor_b
    if floor_b is not None and some.floor_b is not None:
        floor_b = np.where(admitted_b, floor_b, some.floor_b)
    return replace(
        all_,
        mean_bk=np.where(admitted_b1, all_.mean_bk, some.mean_bk),
        sd_bk=np.where(admitted_b1, all_.sd_bk, some.sd_bk),
        floor_b=floor_b,
    )


def propensities(
    objective: Objective,
    quality: QualityRange,
    exploration_floor: float,
    predicted: Predictions,
    exclusions_k: Ints,
    multiplier: float = 0.0,
    newcomers: tuple[int, ...] = (),
    quota: float = 1.0,
) -> Array:
    """The propensity of every model (k) at one context; 0 for those excluded. For explanations and off-policy evaluation.

    ``newcomers`` are the models that took part in the race only with probability ``quota``.
    """
    if not (exclusions_k == 0).any():
        return np.zeros(len(exclusions_k))
    scores = score_arms(objective, quality, predicted.batch(), exclusions_k[None], multiplier)
    eligible_k = scores.eligible_bk[0]
    won_k = choice_probabilities(scores)
    if newcomers:
        new_k = np.isin(np.arange(len(exclusions_k)), newcomers)
        won_k = quota * won_k + (1.0 - quota) * choice_probabilities(without(scores, new_k))
    pi_k = (1.0 - exploration_floor) * won_k
    pi_k[eligible_k] += exploration_floor / eligible_k.sum()
    return pi_k


def utilities(objective: Objective, quality: QualityRange, predicted: Predictions) -> Array:
    """quality - λ·cost - μ·latency of every model (k), in the bucket's units."""
    weighted_k = (objective.cost_weight or 0.0) * predicted.cost_k
    weighted_k = weighted_k + (objective.latency_weight or 0.0) * predicted.latency_k
    return quality.min + quality.width * predicted.quality_k - weighted_k


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
            found = describe_exclusions(int(exclusions_k[k]), k, model, limits, quality, predicted)
            reasons[model.id] = tuple(sentence for _, sentence in found)
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
