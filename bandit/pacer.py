"""A budget's pacer: the multiplier that a budget adds to λ, so that spend tracks it, and the hard cap.

The dual of "best quality at a mean cost of at most B" is one number, quality per dollar. Gradient steps on it need a step
size, and no step size suits costs that differ a thousandfold. So the pacer solves for it: it keeps the scores of the last
``RING`` requests (means, draws and costs of every model), replays them at a trial multiplier, and takes the smallest multiplier
at which their mean cost is within the target. The target is the budget plus a share of what was left unspent (within bounds), or
less a share of what was overspent, so that errors of prediction, drift and late costs are made good (model-predictive control;
the budgeted problem and its dual: Badanidiyuru, Kleinberg & Slivkins, arXiv:1305.2545).

Spend counts a decision at its predicted cost from the moment it is made and at its reported cost once that is known: a cost
that comes late, or without quality, or never, does not let spend run away. A hard budget also counts what is *reserved*: each
decision at the most it can cost, until its cost is known; a model that could pass the cap is not eligible.

One pacer serves a bucket's budget or a project's, whose requests may come from different buckets with different models and
objectives: the scores of one request need nothing but themselves. The pacer is part of the fold.

>>> costs_bk = np.array([[0.001, 0.1]])  # a cheap arm, and a dear one that is better by 0.2
>>> mean_bk, none_b = np.array([[0.6, 0.8]]), np.full(1, np.nan)
>>> multiplier = solve(mean_bk, mean_bk, costs_bk, None, none_b, none_b, target=0.01, guess=0.0)
>>> round(multiplier, 2)  # quality per dollar at which the cheap one wins: 0.2 / 0.099
2.02
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from pointsman.bandit.catalog import Aggregation, Budget, QualityRange
from pointsman.bandit.event import DecisionMade, OutcomeApplied
from pointsman.bandit.outcome import Signal
from pointsman.bandit.packed import Array
from pointsman.bandit.policy import INELIGIBLE, ArmScores, score_arms
from pointsman.bandit.predictions import Ints

RING = 128
"""Requests that are replayed to find the multiplier."""
EVERY = 16
"""Decisions between two searches; the first ``EVERY`` decisions each search."""
HORIZON = 64
"""Requests over which a surplus is spent or a deficit is made up."""
SURPLUS, SURPLUS_CALLS = 24.0, 3.0
"""Largest surplus that is carried over, in requests' worth of a budget per request, or in calls to the most expensive model if
those cost more: what a quiet time left is not spent all at once."""
EXPLORE_SHARE = 0.003
"""Largest share of the target that the exploration floor may cost."""
DECISIONS, TOTAL, START_NS, LAST_NS, BORN = range(5)
"""Places of ``Pacer.counts``."""
SPENT, MULTIPLIER, TARGET, GAP_NS, RESERVED, FORGONE = range(6)
"""Places of ``Pacer.sums``."""
_STEPS = 14
_UNREACHABLE = 1e15
_LAST = 1 << 30  # rank of an arm that may not run


@dataclass(slots=True)
class Pacer:
    """A budget's state; changed in place by the fold.

    ``decisions``, ``spent`` and ``reserved`` count since the start (of the period, for a budget per period, which began at
    ``start_ns``). ``multiplier`` is in quality (scaled to [0, 1]) per dollar, ``target`` in dollars per request. The ring
    holds, for request number ``total % RING``, the arms' scores at a multiplier of 0 (``bandit.policy.ArmScores``):
    ``floor_n`` is an absolute floor and ``loss_n`` one relative to the best, NaN where there is none.
    """

    counts: npt.NDArray[np.int64]
    sums: Array
    mean_nk: Array
    draw_nk: Array
    cost_nk: Array
    rank_nk: Ints
    floor_n: Array
    loss_n: Array

    @property
    def decisions(self) -> int:
        """Decisions since the start."""
        return int(self.counts[DECISIONS])

    @property
    def total(self) -> int:
        """Decisions since the ring was started: it holds the last ``RING`` of them."""
        return int(self.counts[TOTAL])

    @property
    def start_ns(self) -> int:
        """When the period began."""
        return int(self.counts[START_NS])

    @property
    def last_ns(self) -> int:
        """When the last decision was made."""
        return int(self.counts[LAST_NS])

    @property
    def born(self) -> int:
        """Position at which the pacer was made: what was decided on an earlier state is not its business."""
        return int(self.counts[BORN])

    @property
    def spent(self) -> float:
        """Dollars since the start: reported, and predicted where nothing is reported yet."""
        return float(self.sums[SPENT])

    @property
    def multiplier(self) -> float:
        """The budget's multiplier, added to λ, in quality (scaled to [0, 1]) per dollar."""
        return float(self.sums[MULTIPLIER])

    @property
    def target(self) -> float:
        """Dollars that the next requests may cost on average."""
        return float(self.sums[TARGET])

    @property
    def gap_ns(self) -> float:
        """Running mean of the time between decisions."""
        return float(self.sums[GAP_NS])

    @property
    def forgone(self) -> float:
        """Dollars of a budget per request that were left unspent for too long to be spent any more."""
        return float(self.sums[FORGONE])

    @property
    def reserved(self) -> float:
        """Dollars since the start: reported, and the most that it can be where nothing is reported yet."""
        return float(self.sums[RESERVED])


@dataclass(frozen=True, slots=True)
class ActiveBudget:
    """A budget that a decision draws on, its state, and the dollars reserved for decisions that are not folded yet."""

    budget: Budget
    pacer: Pacer
    pending: float = 0.0


def new_pacer(position: int) -> Pacer:
    """A pacer of which nothing was decided yet, made at journal position ``position``."""
    return Pacer(
        counts=np.array([0, 0, 0, 0, position], dtype=np.int64),
        sums=np.zeros(FORGONE + 1),
        mean_nk=np.full((RING, 0), INELIGIBLE),
        draw_nk=np.full((RING, 0), INELIGIBLE),
        cost_nk=np.zeros((RING, 0)),
        rank_nk=np.full((RING, 0), _LAST, dtype=np.int64),
        floor_n=np.full(RING, np.nan),
        loss_n=np.full(RING, np.nan),
    )


def restart_ring(pacer: Pacer) -> None:
    """Forget, in place, the requests to replay, because they cost something else now; what was spent stays."""
    pacer.counts[TOTAL] = 0


def to_arrays(pacer: Pacer) -> dict[str, npt.NDArray[np.generic]]:
    """All arrays by name."""
    return {f.name: getattr(pacer, f.name) for f in fields(pacer)}


def from_arrays(named: Mapping[str, npt.NDArray[Any]]) -> Pacer:
    """The pacer of ``to_arrays``."""
    return Pacer(**{f.name: named[f.name] for f in fields(Pacer)})


def multiplier_for(active: ActiveBudget, scores: ArmScores, cost_bk: Array) -> float:
    """The multiplier for the next requests (quality per dollar); while the ring is empty, the one at which these keep to the
    budget. ``scores`` are theirs at a multiplier of 0, ``cost_bk`` their expected costs in dollars.
    """
    if active.pacer.total:
        return active.pacer.multiplier
    floor_b, loss_b = _floors(scores)
    mean_bk = np.where(scores.eligible_bk, scores.mean_bk, INELIGIBLE)
    return solve(mean_bk, mean_bk, cost_bk, scores.rank_bk, floor_b, loss_b, _start_target(active.budget), 0.0)


def affordable(active: ActiveBudget, cost_bk: Array) -> float:
    """The largest exploration floor at which the even draw costs at most ``EXPLORE_SHARE`` of the target."""
    target = active.pacer.target if active.pacer.total else _start_target(active.budget)
    return EXPLORE_SHARE * max(target, 0.0) / max(float(cost_bk.mean()), 1e-300)


def remaining(active: ActiveBudget, now_ns: int) -> float:
    """Dollars of a hard budget that are neither spent nor reserved at ``now_ns``."""
    now_ns = max(now_ns, active.pacer.last_ns)  # a clock that was put back does not open a period again
    reserved = active.pacer.reserved if _period(active.budget, now_ns) == active.pacer.start_ns else 0.0
    return active.budget.amount - reserved - active.pending


def count_decision(
    pacer: Pacer, budget: Budget, quality: QualityRange | None, event: DecisionMade, time_ns: int
) -> None:
    """Count a decision's predicted cost, in place, and solve for the multiplier every few decisions.

    ``quality`` is the scale of its bucket, ``None`` if that was deleted: then its scores are not replayed.
    """
    if budget.period_ns:
        start_ns = _period(budget, time_ns)
        if start_ns != pacer.start_ns:
            pacer.counts[DECISIONS], pacer.counts[START_NS] = 0, start_ns
            pacer.sums[SPENT] = pacer.sums[RESERVED] = 0.0
    gap = float(time_ns - pacer.last_ns)
    if pacer.total:
        pacer.sums[GAP_NS] += (gap - pacer.gap_ns) * max(0.02, 1.0 / pacer.total)
    pacer.counts[LAST_NS] = time_ns
    pacer.sums[SPENT] += event.predicted.cost_k[event.chosen]
    pacer.sums[RESERVED] += event.max_cost
    pacer.counts[DECISIONS] += 1
    if quality is None:
        return
    _remember_scores(pacer, quality, event)
    pacer.counts[TOTAL] += 1
    if pacer.total <= EVERY or pacer.total % EVERY == 0:
        pacer.sums[TARGET] = _target(pacer, budget, time_ns)
        n = min(pacer.total, RING)
        pacer.sums[MULTIPLIER] = solve(
            pacer.mean_nk[:n],
            pacer.draw_nk[:n],
            pacer.cost_nk[:n],
            pacer.rank_nk[:n],
            pacer.floor_n[:n],
            pacer.loss_n[:n],
            pacer.target,
            pacer.multiplier,
        )


def count_outcome(pacer: Pacer, budget: Budget, event: OutcomeApplied, rule: Aggregation) -> None:
    """Count, in place, the reported cost of a decision instead of what was counted for it so far.

    Its reservation is released at the first report, unless ``rule`` says that more parts of the cost may come. A decision of
    an earlier period, or from before the pacer was made, changes nothing any more.
    """
    in_period = not budget.period_ns or _period(budget, event.decided_ns) == pacer.start_ns
    if not in_period or event.state_position < pacer.born:
        return
    for change in event.changes:
        if change.signal is Signal.COST:
            least = event.max_cost if rule is Aggregation.SUM else 0.0
            pacer.sums[SPENT] += change.after - (event.expected_cost if change.before is None else change.before)
            before = event.max_cost if change.before is None else max(change.before, least)
            pacer.sums[RESERVED] += max(change.after, least) - before


def solve(
    mean_bk: Array,
    draw_bk: Array,
    cost_bk: Array,
    rank_bk: Ints | None,
    floor_b: Array,
    loss_b: Array,
    target: float,
    guess: float,
) -> float:
    """The smallest multiplier (>= 0, quality per dollar) at which the policy's mean cost on b requests is at most ``target``
    dollars, to a relative precision of about 1e-4.

    Means and draws (b, k) are those at a multiplier of 0, ``INELIGIBLE`` for arms that are not eligible; ``rank_bk``, ``floor_b``
    and ``loss_b`` as in ``Pacer``. If no multiplier reaches the target, one at which the cheapest arms are chosen. ``guess`` is
    where the search starts.
    """
    rows = np.arange(len(draw_bk))
    eligible_bk = draw_bk > 0.5 * INELIGIBLE
    relative_b, floored_b = ~np.isnan(loss_b), ~(np.isnan(loss_b) & np.isnan(floor_b))

    def mean_cost(multiplier: float) -> float:
        drawn_bk = np.where(eligible_bk, draw_bk - multiplier * cost_bk, -np.inf)
        chosen_b = drawn_bk.argmax(axis=1)
        if rank_bk is not None and floored_b.any():
            best_b = np.where(eligible_bk, mean_bk - multiplier * cost_bk, -np.inf).max(axis=1)
            cleared_bk = drawn_bk >= np.where(relative_b, best_b - loss_b, floor_b)[:, None]
            first_b = np.where(cleared_bk, rank_bk, _LAST).argmin(axis=1)
            chosen_b = np.where(floored_b & cleared_bk.any(axis=1), first_b, chosen_b)
        return float(cost_bk[rows, chosen_b].mean())

    if mean_cost(0.0) <= target:
        return 0.0
    high = guess if guess > 0.0 else 0.01 / max(target, 1e-9)
    while mean_cost(high) > target:
        high *= 4.0
        if high > _UNREACHABLE:
            return _UNREACHABLE
    low = high / 4.0
    while low > 1e-9 and mean_cost(low) <= target:
        high, low = low, low / 4.0
    for _ in range(_STEPS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if mean_cost(middle) <= target else (middle, high)
    return high


def _remember_scores(pacer: Pacer, quality: QualityRange, event: DecisionMade) -> None:
    """Put the scores of a decision into the ring, in place."""
    scores = score_arms(
        event.objective, quality, event.predicted.batch(), event.exclusions_k[None], by_price=event.by_price
    )
    k, width = len(event.models), pacer.mean_nk.shape[1]
    if k > width:
        grow = ((0, 0), (0, k - width))
        pacer.mean_nk = np.pad(pacer.mean_nk, grow, constant_values=INELIGIBLE)
        pacer.draw_nk = np.pad(pacer.draw_nk, grow, constant_values=INELIGIBLE)
        pacer.cost_nk = np.pad(pacer.cost_nk, grow)
        pacer.rank_nk = np.pad(pacer.rank_nk, grow, constant_values=_LAST)
    n, eligible_k = pacer.total % RING, scores.eligible_bk[0] & (event.draw_k > 0.5 * INELIGIBLE)
    for ring_nk, empty, value_k in (
        (pacer.mean_nk, INELIGIBLE, np.where(eligible_k, scores.mean_bk[0], INELIGIBLE)),
        (pacer.draw_nk, INELIGIBLE, np.where(eligible_k, event.draw_k - scores.shift_bk[0], INELIGIBLE)),
        (pacer.cost_nk, 0, event.predicted.cost_k),
        (pacer.rank_nk, _LAST, _LAST if scores.rank_bk is None else scores.rank_bk[0]),
    ):
        ring_nk[n, :k], ring_nk[n, k:] = value_k, empty
    pacer.floor_n[n : n + 1], pacer.loss_n[n : n + 1] = _floors(scores)


def _floors(scores: ArmScores) -> tuple[Array, Array]:
    """Absolute floors and losses against the best arm at a multiplier of 0, each (b); NaN where there is none."""
    none_b = np.full(len(scores.mean_bk), np.nan)
    if scores.floor_b is None:
        return none_b, none_b
    if scores.relative:
        return none_b, scores.mean_bk.max(axis=1) - scores.floor_b
    return scores.floor_b, none_b


def _period(budget: Budget, time_ns: int) -> int:
    """Start of the period that contains ``time_ns``; 0 for a budget without periods."""
    return time_ns - time_ns % budget.period_ns if budget.period_ns else 0


def _start_target(budget: Budget) -> float:
    """Dollars per request before any traffic was observed: the budget per request, or a hundredth of one per period."""
    return budget.amount if not budget.period_ns else 0.01 * budget.amount


def _target(pacer: Pacer, budget: Budget, time_ns: int) -> float:
    """Dollars that the next requests may cost on average. For a budget per request a surplus beyond what may be carried over is
    forgone, in place.
    """
    if not budget.period_ns:
        unspent = budget.amount * pacer.decisions - pacer.spent - pacer.forgone
        cost_of_dearest = float(pacer.cost_nk[: min(pacer.total, RING)].max(axis=1).mean())
        largest_surplus = max(SURPLUS * budget.amount, SURPLUS_CALLS * cost_of_dearest)
        pacer.sums[FORGONE] += max(0.0, unspent - largest_surplus)
        return budget.amount + min(unspent, largest_surplus) / HORIZON
    left_ns = pacer.start_ns + budget.period_ns - time_ns
    if pacer.gap_ns <= 0.0:
        return _start_target(budget)
    return (budget.amount - pacer.spent) / max(left_ns / pacer.gap_ns, 1.0)
