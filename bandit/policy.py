"""The policy: from predictions for the candidates to one Thompson draw and its exact propensity.

The arms are independent given the posteriors, so instead of drawing coefficient vectors the policy draws, for each
candidate, the scalar θ·x that its objective needs: the same law of choice at O(d²) per arm. Quality is drawn from what is
believed of it, with a share of the standard deviation, or widely where the context is new to the model (``bandit.novelty``);
cost and latency enter at their expectations. An even draw with probability ε (the exploration floor) is mixed in, and the
propensity is that of the mixture:

    π(a) = (1 - ε)·P(a wins the posterior draw) + ε / |eligible|

>>> predicted = Predictions(*(np.array([values]) for values in (
...     (0.6, 0.8), (0.1, 0.1), (0.001, 0.02), (1.0, 1.0), (2.0, 2.0), (100.0, 100.0)
... )))  # quality, its sd, dollars, seconds, their 95th percentile, output tokens, of two arms
>>> objective = Objective(cost_weight=10.0).resolve(QualityRange())  # 0.1 of quality is worth a cent
>>> scores = score_arms(objective, QualityRange(), predicted, np.zeros((1, 2), dtype=np.int64))
>>> scores.mean_bk.round(3).tolist()
[[0.59, 0.6]]
>>> choice_probabilities(scores).round(3).tolist()
[0.444, 0.556]
>>> choose(scores, np.array([0.01]), np.random.default_rng(0)).order_bk.tolist()
[[0, 1]]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pointsman.bandit.catalog import (
    Mode,
    Objective,
    QualityRange,
)
from pointsman.bandit.floor_rule import expected_arms, price_aware
from pointsman.bandit.novelty import wide_shares
from pointsman.bandit.packed import Array
from pointsman.bandit.predictions import Ints, Predictions
from pointsman.bandit.propensity import (
    NEGLIGIBLE,
    Mixtures,
    argmax_propensities,
    argmax_propensity,
    below,
    floor_propensities,
    floor_propensity,
)
from pointsman.bandit.propensity_batch import argmax_propensity_batch, normals


@dataclass(frozen=True, slots=True)
class Choices:
    """The outcome of b draws.

    ``chosen_b`` are the chosen arms, ``order_bk`` all arms in the order in which to try them, the chosen one first, of which the
    first ``eligible_b`` are eligible; ``propensity_b`` the probabilities of the choices, ``explored_b`` whether the even draw
    made them, ``draw_bk`` the draws of quality, scaled to [0, 1].
    """

    chosen_b: Ints
    order_bk: Ints
    eligible_b: Ints
    propensity_b: Array
    explored_b: npt.NDArray[np.bool_]
    limits_violated_b: npt.NDArray[np.bool_]
    draw_bk: Array


@dataclass(frozen=True, slots=True)
class ArmScores:
    """The distribution of each arm's score for b requests, and the rule that picks an arm by draws from it; all (b, k).

    ``mean_bk`` is the expected score, ``drawn`` the distribution of its draws, arrays (b, k, c).
    Without ``rank_bk`` the arm with the largest draw is chosen. With it the draws are of quality (less a
    budget's charge), and the arm of lowest rank is chosen among those whose draw reaches ``floor_b``; if none does, the largest
    draw. ``shift_bk`` is what was subtracted from the mean of quality, scaled to [0, 1]. Arms that are not eligible have a mean
    of ``INELIGIBLE`` and no spread. ``relative``: the floor is relative to the best mean.
    """

    mean_bk: Array
    drawn: Mixtures
    shift_bk: Array
    eligible_bk: npt.NDArray[np.bool_]
    rank_bk: Ints | None = None
    floor_b: Array | None = None
    relative: bool = False


RESHAPE = 0.5
"""Share of the posteriors' standard deviations that is drawn under a floor on a request's quality, where prices do not change it
(``bandit.floor_rule``), and in decisions that were stored without the standard deviations of their draws."""
NO_SPREAD = 1e-12
"""Largest standard deviation of quality, scaled to [0, 1], that is taken as 0: quadrature need not resolve it."""
INELIGIBLE = -1e30
"""Mean of an arm that is not eligible: below that of any that is, whatever multiplier a budget has put on the largest cost."""


def score_arms(
    objective: Objective,
    quality: QualityRange,
    predicted: Predictions,
    exclusions_bk: Ints,
    multiplier: float = 0.0,
    *,
    by_price: bool = True,
) -> ArmScores:
    """The arms' scores under a resolved ``objective``, all (b, k).

    ``multiplier`` is what a budget adds to λ, in quality (scaled to [0, 1]) per dollar. A floor relative to the best is
    relative to the largest *expected* quality. The largest draw would be the other choice, but it is the maximum of all arms'
    uncertainties: expensive arms would be chosen for noise (`docs/decisions/floor-from-means.md`). ``by_price`` false leaves
    draws under a floor as they were before they depended on prices (``bandit.floor_rule``): decisions from then.
    """
    eligible_bk = exclusions_bk == 0
    cost_weight = (objective.cost_weight or 0.0) / quality.width
    if predicted.charged_k is None:
        shift_bk = (cost_weight + multiplier) * predicted.cost_k
    else:
        shift_bk = cost_weight * predicted.cost_k + multiplier * predicted.charged_k
    if objective.latency_weight:
        shift_bk += (objective.latency_weight / quality.width) * predicted.latency_k
    mean_bk = np.where(eligible_bk, predicted.quality_k - shift_bk, INELIGIBLE)
    if not objective.has_request_floor:
        return ArmScores(mean_bk, _drawn(predicted, shift_bk, eligible_bk), shift_bk, eligible_bk)
    by_bk = predicted.cost_k if objective.mode is Mode.COST_FIRST else predicted.latency_k
    order_bk = np.argsort(np.where(eligible_bk, by_bk, np.inf), axis=1, kind="stable")
    rank_bk = np.empty_like(order_bk)
    np.put_along_axis(rank_bk, order_bk, np.arange(order_bk.shape[1])[None], axis=1)
    if objective.min_quality is not None:
        floor_b = np.full(len(mean_bk), (objective.min_quality - quality.min) / quality.width)
    else:
        floor_b = mean_bk.max(axis=1) - (objective.max_quality_loss or 0.0) / quality.width
    share_bk: Array | None = None
    if by_price:
        full_bk = np.where(eligible_bk & (predicted.quality_sd_k > NO_SPREAD), predicted.quality_sd_k, 0.0)
        is_relative = objective.min_quality is None
        draw = price_aware(mean_bk, full_bk, RESHAPE, by_bk, rank_bk, floor_b, eligible_bk, relative=is_relative)
        mean_bk, shift_bk = mean_bk + draw.bonus_bk, shift_bk - draw.bonus_bk
        share_bk = draw.spread_bk
    drawn = _drawn(predicted, shift_bk, eligible_bk, share_bk, explores=not by_price)
    return ArmScores(mean_bk, drawn, shift_bk, eligible_bk, rank_bk, floor_b, relative=objective.min_quality is None)


def _drawn(
    predicted: Predictions,
    shift_bk: Array,
    eligible_bk: npt.NDArray[np.bool_],
    share_bk: Array | None = None,
    *,
    explores: bool = True,
) -> Mixtures:
    """The distributions of the draws of quality less ``shift_bk``, (b, k, c): Normals, or mixtures of these and wide draws.

    ``share_bk`` is the share of the posteriors' standard deviations that is drawn, if it is not what they say themselves;
    ``explores`` says whether there are wide draws: none of an arm that would lose to what is expected of the best even if it were
    perfect.
    """
    mean_bk, sd_bk = predicted.quality_k - shift_bk, predicted.draw_sd_k
    if share_bk is not None or sd_bk is None:
        sd_bk = predicted.quality_sd_k * (RESHAPE if share_bk is None else share_bk)
    spread_bk = eligible_bk & (predicted.quality_sd_k > NO_SPREAD)
    if not spread_bk.all():
        mean_bk = np.where(eligible_bk, mean_bk, INELIGIBLE)
        sd_bk = np.where(spread_bk, sd_bk, 0.0)
    if predicted.novelty is None or not explores:
        return normals(mean_bk, sd_bk)
    could_win_bk = 1.0 - shift_bk > mean_bk.max(axis=1, keepdims=True)
    wide_bk = wide_shares(predicted.novelty, spread_bk & could_win_bk)
    is_wide_bk = wide_bk > NEGLIGIBLE
    return Mixtures(
        np.stack((1.0 - wide_bk, wide_bk), axis=-1),
        np.stack((mean_bk, np.where(is_wide_bk, predicted.novelty.mean_k - shift_bk, mean_bk)), axis=-1),
        np.stack((sd_bk, np.where(is_wide_bk, predicted.novelty.sd_k, sd_bk)), axis=-1),
    )


def choice_probabilities(scores: ArmScores, row: int = 0) -> Array:
    """Exact probability that each arm (k) of request number ``row`` is chosen by the draw; 0 for those not eligible."""
    arms = _row(scores.drawn, row)
    if scores.rank_bk is None or scores.floor_b is None:
        return argmax_propensities(arms)
    return floor_propensities(arms, scores.rank_bk[row], floor=float(scores.floor_b[row]))


def _row(drawn: Mixtures, row: int) -> Mixtures:
    return Mixtures(*(array_bkc[row] for array_bkc in drawn))


def chosen_propensities(scores: ArmScores, arm_b: Ints) -> Array:
    """``choice_probabilities`` of one arm of each request only, (b), which costs less."""
    b = len(arm_b)
    if scores.rank_bk is not None and scores.floor_b is not None:
        return _floor_batch(scores, arm_b)
    if b >= FEW:
        return argmax_propensity_batch(scores.drawn, arm_b)
    return np.array([argmax_propensity(_row(scores.drawn, i), int(arm_b[i])) for i in range(b)])


FEW = 12
"""Requests below which quadrature one by one beats quadrature of a batch."""
_NEGLIGIBLE = 1e-10


def _floor_batch(scores: ArmScores, arm_b: Ints) -> Array:
    """The floor rule's closed form for a batch; by quadrature where it is not negligible that no arm reaches the floor."""
    assert scores.rank_bk is not None
    assert scores.floor_b is not None
    rows = np.arange(len(arm_b))
    short_bk = below(scores.drawn, scores.floor_b[:, None, None])
    before_bk = scores.rank_bk < scores.rank_bk[rows, arm_b][:, None]
    probability_b = (1.0 - short_bk[rows, arm_b]) * np.where(before_bk, short_bk, 1.0).prod(axis=1)
    for i in np.flatnonzero(short_bk.prod(axis=1) > _NEGLIGIBLE).tolist():
        probability_b[i] = floor_propensity(
            _row(scores.drawn, i), scores.rank_bk[i], int(arm_b[i]), floor=float(scores.floor_b[i])
        )
    return np.asarray(probability_b)


def _draw(drawn: Mixtures, rng: np.random.Generator) -> Array:
    """One draw for each arm of each request, (b, k)."""
    weight_bkc, mean_bkc, sd_bkc = drawn
    normal_bk = rng.standard_normal(weight_bkc.shape[:2])
    if weight_bkc.shape[2] == 1:
        return np.asarray(sd_bkc[..., 0] * normal_bk + mean_bkc[..., 0])
    bound_bkc = np.add.accumulate(weight_bkc[..., :-1], axis=2)
    place_bk = np.add.reduce(rng.random(weight_bkc.shape[:2])[..., None] >= bound_bkc, axis=2, dtype=np.intp)
    place_bk += np.arange(0, weight_bkc.size, weight_bkc.shape[2]).reshape(place_bk.shape)
    return np.asarray(sd_bkc.take(place_bk) * normal_bk + mean_bkc.take(place_bk))


def rank_arms(scores: ArmScores, draw_bk: Array) -> Ints:
    """The arms of each request in the order in which the rule prefers them given their draws, (b, k), the chosen one first."""
    if scores.rank_bk is None or scores.floor_b is None:
        return np.argsort(-draw_bk, axis=1, kind="stable")
    cleared_bk = draw_bk >= scores.floor_b[:, None]
    # those that clear the floor by rank, then the others by draw
    return np.lexsort((np.where(cleared_bk, scores.rank_bk, -draw_bk), ~cleared_bk), axis=1)


EXPLORATION_FLOOR = 0.01
"""Share of requests that the even draw decides, unless a bucket configures its own."""
MAX_EXPLORATION_LOSS = 0.0005
"""Largest expected loss per request through the even draw, in utility on the scale of quality from 0 to 1."""
MAX_EXPLORATION_COST = 0.02
"""Under a floor rule: its largest expected extra cost, as a share of the cost of the model that the rule would choose."""
FIRST_CALLS, DOUBTFUL_CALLS = 16, 32
"""Calls of each model that a floor rule makes sure of, dear as it may be: without them an unlucky start would decide; and while
it is doubtful on which side of the floor the model is."""
DOUBTFUL = 3.0
"""Standard deviations between a model's expected quality and the floor up to which that is doubtful."""
FIRST_FLOOR = 0.2
"""Share of requests that the even draw decides under a floor rule until every model has had its first calls."""
FIRST_COST = 2.0
"""Largest expected extra cost of the even draw until then, as a share of the cost of the model that the rule would choose."""


def exploration_floors(
    scores: ArmScores, predicted: Predictions, floor: float | None, calls_k: Ints | None = None
) -> Array:
    """The exploration floor ε of each request, (b) in [0, 1]: ``floor`` if it is given, else ``EXPLORATION_FLOOR`` or less.

    Where models differ a hundredfold in cost, a fixed share of even draws can cost more than all that routing saves; so the
    default is lowered until the expected loss is at most ``MAX_EXPLORATION_LOSS`` or ``MAX_EXPLORATION_COST``. Under a floor rule
    it is higher until every model has had its first calls; ``calls_k`` counts them, ``None`` means that all have. Logged
    decisions carry the floor that was applied.
    """
    eligible_bk, mean_bk = scores.eligible_bk, scores.mean_bk
    b = len(mean_bk)
    if floor is not None:
        return np.full(b, floor)
    count_b = np.maximum(np.add.reduce(eligible_bk, axis=1), 1)
    if scores.rank_bk is None or scores.floor_b is None:
        gap_bk = np.maximum.reduce(mean_bk, axis=1, keepdims=True) - mean_bk
        gap_bk *= eligible_bk
        loss_b = np.maximum(np.add.reduce(gap_bk, axis=1) / count_b, 1e-300)
        return np.asarray(np.minimum(EXPLORATION_FLOOR, MAX_EXPLORATION_LOSS / loss_b))
    expected_b, _ = expected_arms(mean_bk, scores.rank_bk, scores.floor_b, eligible_bk)
    cost_b = predicted.cost_k[np.arange(b), expected_b]
    gap_bk = np.where(eligible_bk, predicted.cost_k - cost_b[:, None], 0.0)
    loss_b = np.maximum(np.add.reduce(gap_bk, axis=1) / count_b, 1e-300)
    floor_b = np.minimum(EXPLORATION_FLOOR, MAX_EXPLORATION_COST * cost_b / loss_b)
    if calls_k is not None and (calls_k < DOUBTFUL_CALLS).any():
        distance_bk = np.abs(mean_bk - scores.floor_b[:, None])
        calls_bk = np.where(distance_bk < DOUBTFUL * predicted.quality_sd_k, DOUBTFUL_CALLS, FIRST_CALLS)
        missing_b = np.where(eligible_bk, calls_bk - calls_k, 0).max(axis=1, initial=0)
        # a batch is decided at once: no more even draws than give each model what is missing
        most_b = np.minimum(FIRST_FLOOR, missing_b * count_b / b)
        floor_b = np.maximum(floor_b, np.minimum(most_b, FIRST_COST * cost_b / loss_b))
    return np.asarray(floor_b)


class WeightedScores(NamedTuple):
    """Scores that decide with a probability: a policy draws from one of several."""

    weight: float
    scores: ArmScores


@dataclass(frozen=True, slots=True)
class PartialModels:
    """Candidates that take full part only in a share of the draws, because their calls wait to be judged.

    ``models`` are their indices and ``quotas`` their shares; one number u, even in [0, 1), admits to a draw all whose share is
    more than u. Without ``quotas`` (decisions from before each had its own) all have the share ``quota``, and take no part
    otherwise.
    """

    models: tuple[int, ...] = ()
    quotas: tuple[float, ...] = ()
    quota: float = 1.0


ALL_TAKE_PART = PartialModels()
"""No candidate is held back."""
UNKNOWN_SD = 0.15
"""Standard deviation of the expected quality, scaled to [0, 1], from which on a model that is not admitted takes no part at
all."""


def weighted_scores(
    scores: ArmScores,
    partial: PartialModels,
    objective: Objective,
    quality: QualityRange,
    predicted: Predictions,
    exclusions_bk: Ints,
    multiplier: float = 0.0,
    *,
    by_price: bool = True,
) -> list[WeightedScores]:
    """What decides with which probability where not all models take full part in every draw; ``scores`` are those with all.

    A model that is not admitted takes no part if little is known of it, else with its expected quality less its standard
    deviation and without spread: a try would teach nothing, and nothing would correct a mistake. Weights sum to 1.
    """
    if not partial.models:
        return [WeightedScores(1.0, scores)]
    quotas = partial.quotas or (partial.quota,) * len(partial.models)
    index_k = np.arange(exclusions_bk.shape[1])
    weighted = []
    edges = [0.0, *sorted({quota for quota in quotas if 0.0 < quota < 1.0}), 1.0]
    for low, high in pairwise(edges):
        held = [model for model, quota in zip(partial.models, quotas, strict=True) if quota <= low]
        of_level = scores
        if held:
            held_k = np.isin(index_k, held)
            unknown_bk = held_k & (predicted.quality_sd_k >= UNKNOWN_SD) if partial.quotas else held_k
            believed = cautious(predicted, held_k & ~unknown_bk) if partial.quotas else predicted
            of_level = score_arms_without(
                unknown_bk, objective, quality, believed, exclusions_bk, multiplier, by_price=by_price
            )
        weighted.append(WeightedScores(high - low, of_level))
    return weighted


def cautious(predicted: Predictions, held_bk: npt.NDArray[np.bool_]) -> Predictions:
    """``predicted`` with the expected quality of some models less its standard deviation, and without spread."""
    if not held_bk.any():
        return predicted
    lower_bk = predicted.quality_k - predicted.quality_sd_k
    return replace(
        predicted,
        quality_k=np.where(held_bk, lower_bk, predicted.quality_k),
        quality_sd_k=np.where(held_bk, 0.0, predicted.quality_sd_k),
        draw_sd_k=None if predicted.draw_sd_k is None else np.where(held_bk, 0.0, predicted.draw_sd_k),
        novelty=None if predicted.novelty is None else predicted.novelty.without(held_bk),
    )


def choose(
    scores: ArmScores,
    exploration_b: Array,
    rng: np.random.Generator,
    weighted: Sequence[WeightedScores] = (),
    *,
    with_propensity: bool = True,
) -> Choices:
    """Draw the decisions of b requests: by the even draw with probability ``exploration_b`` (b), else by the scores.

    ``weighted`` says what decides with which probability, if it is not ``scores`` alone (``weighted_scores``). A request without
    an eligible arm gets a meaningless decision, with ``eligible_b`` 0. ``with_propensity`` false leaves the propensities at 0,
    for replays that are not logged.
    """
    b = len(scores.mean_bk)
    draw_bk, order_bk = _draw_and_rank(scores if len(weighted) < 2 else weighted[0].scores, rng)
    if len(weighted) > 1:
        level_b = np.searchsorted(np.cumsum([part.weight for part in weighted[:-1]]), rng.random(b), side="right")
        for level, part in enumerate(weighted[1:], start=1):
            at_b = level_b == level
            if at_b.any():
                other_draw_bk, other_order_bk = _draw_and_rank(part.scores, rng)
                draw_bk[at_b], order_bk[at_b] = other_draw_bk[at_b], other_order_bk[at_b]
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
        if len(weighted) > 1:
            probability_b = np.sum(
                [part.weight * chosen_propensities(part.scores, chosen_b) for part in weighted], axis=0
            )
        else:
            probability_b = chosen_propensities(scores, chosen_b)
        propensity_b = (1.0 - exploration_b) * probability_b + exploration_b / np.maximum(eligible_b, 1)
    return Choices(chosen_b, order_bk, eligible_b, propensity_b, explored_b, np.zeros(b, dtype=np.bool_), draw_bk)


def _draw_and_rank(scores: ArmScores, rng: np.random.Generator) -> tuple[Array, Ints]:
    """Draws of quality, scaled to [0, 1], and the arms in the order in which the rule prefers them by these, each (b, k)."""
    draw_bk = _draw(scores.drawn, rng)
    order_bk = rank_arms(scores, draw_bk)
    return draw_bk + scores.shift_bk, order_bk


def score_arms_without(
    out_bk: npt.NDArray[np.bool_],
    objective: Objective,
    quality: QualityRange,
    predicted: Predictions,
    exclusions_bk: Ints,
    multiplier: float = 0.0,
    *,
    by_price: bool = True,
) -> ArmScores:
    """``score_arms`` with the arms ``out_bk`` kept out, unless no other is eligible. They stay eligible for the even draw."""
    eligible_bk = exclusions_bk == 0
    out_bk = out_bk & np.any(eligible_bk & ~out_bk, axis=1, keepdims=True)
    scores = score_arms(
        objective, quality, predicted, np.where(out_bk, 1, exclusions_bk), multiplier, by_price=by_price
    )
    return replace(scores, eligible_bk=eligible_bk)


def propensities(
    objective: Objective,
    quality: QualityRange,
    exploration_floor: float,
    predicted: Predictions,
    exclusions_k: Ints,
    multiplier: float = 0.0,
    partial: PartialModels = ALL_TAKE_PART,
    *,
    by_price: bool = True,
) -> Array:
    """The propensity of every model (k) at one context, summing to 1 within 1e-9; 0 for those excluded, all 0 if all are.

    ``objective`` is resolved, ``exclusions_k`` are sets of ``bandit.limits.Exclusion`` as bits, ``multiplier`` is what a budget
    added to λ (quality scaled to [0, 1], per dollar), ``partial`` says which models took full part in a share of draws only.
    ``by_price`` as in ``score_arms``.
    """
    if not (exclusions_k == 0).any():
        return np.zeros(len(exclusions_k))
    batch, exclusions_1k = predicted.batch(), exclusions_k[None]
    scores = score_arms(objective, quality, batch, exclusions_1k, multiplier, by_price=by_price)
    eligible_k = scores.eligible_bk[0]
    weighted = weighted_scores(scores, partial, objective, quality, batch, exclusions_1k, multiplier, by_price=by_price)
    pi_k = np.zeros(len(exclusions_k))
    for part in weighted:
        pi_k += (1.0 - exploration_floor) * part.weight * choice_probabilities(part.scores)
    pi_k[eligible_k] += exploration_floor / eligible_k.sum()
    return pi_k


class DecisionTerms(Protocol):
    """What a decision was made with, over its own candidates (k): ``bandit.event.DecisionMade`` has all of it."""

    @property
    def chosen(self) -> int:
        """Index of the chosen candidate."""

    @property
    def objective(self) -> Objective:
        """As it was resolved."""

    @property
    def quality(self) -> QualityRange:
        """The bucket's scale at the decision."""

    @property
    def predicted(self) -> Predictions:
        """Predictions for the candidates."""

    @property
    def exclusions_k(self) -> Ints:
        """Sets of ``bandit.limits.Exclusion``, as bits."""

    @property
    def multiplier(self) -> float:
        """The budgets' multiplier, added to λ: quality scaled to [0, 1], per dollar."""

    @property
    def exploration_floor(self) -> float:
        """Probability of the even draw."""

    @property
    def partial(self) -> PartialModels:
        """Which candidates took full part only in a share of the draws."""

    @property
    def by_price(self) -> bool:
        """Whether draws under a quality floor depended on prices."""

    @property
    def limits_violated(self) -> bool:
        """Whether no candidate kept the limits."""


def logged_propensities(decision: DecisionTerms) -> Array:
    """The probability with which each candidate (k) would have been chosen: the whole distribution of a logged decision.

    Where limits could not be kept, the model that violates them least was certain. For explanations, exports and off-policy
    evaluation.
    """
    if decision.limits_violated:
        certain_k = np.zeros(len(decision.exclusions_k))
        certain_k[decision.chosen] = 1.0
        return certain_k
    return propensities(
        decision.objective,
        decision.quality,
        decision.exploration_floor,
        decision.predicted,
        decision.exclusions_k,
        decision.multiplier,
        decision.partial,
        by_price=decision.by_price,
    )


def utilities(objective: Objective, quality: QualityRange, predicted: Predictions) -> Array:
    """quality - λ·cost - μ·latency of every model (k), in the bucket's units of quality; ``objective`` is resolved."""
    weighted_k = (objective.cost_weight or 0.0) * predicted.cost_k
    weighted_k = weighted_k + (objective.latency_weight or 0.0) * predicted.latency_k
    return quality.min + quality.width * predicted.quality_k - weighted_k
