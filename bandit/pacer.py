"""A budget's pacer: the multiplier that a budget adds to λ, so that spend tracks it.

The dual of "best quality at a mean cost of at most B" is one number, quality per dollar. Gradient steps on it need a step
size, and no step size suits costs that differ a thousandfold. So the pacer solves for it: it keeps the last ``RING`` requests
(predictions, draws and exclusions of every model), replays the policy on them at a trial multiplier, and takes the smallest
multiplier at which their mean cost is within the target. The target is the budget plus a share of what was left unspent, or
less a share of what was overspent, so that errors of prediction, drift and late costs are made good (model-predictive
control; the budgeted problem and its dual: Badanidiyuru, Kleinberg & Slivkins, arXiv:1305.2545).

Spend counts a decision at its predicted cost from the moment it is made and at its reported cost once that is known: a cost
that comes late, or without quality, or never, does not let spend run away. The pacer is part of the fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from bandit.catalog import Budget, Objective, QualityRange
from bandit.event import DecisionMade
from bandit.policy import Array, Ints, Predictions, finish, race

RING = 128
"""Requests that are replayed to find the multiplier."""
EVERY = 16
"""Decisions between two searches; the first ``EVERY`` decisions each search."""
HORIZON = 64
"""Requests over which a surplus is spent or a deficit is saved."""
EXPLORE_SHARE = 0.003
"""Largest share of the target that the exploration floor may cost."""
_STEPS = 14
_UNREACHABLE = 1e15


@dataclass(slots=True)
class Pacer:
    """A budget's state; changed in place by the fold. Columns (k) are those of the bucket.

    ``decisions`` and ``spent`` count since the start (of the period, for a budget per period, which began at ``start_ns``).
    ``multiplier`` is in quality (scaled to [0, 1]) per dollar, ``target`` in dollars per request. The ring holds, for the
    request ``n`` at ``decisions_total % RING``, predictions, draws of quality and exclusions.
    """

    counts: npt.NDArray[np.int64]
    sums: Array
    quality_nk: Array
    cost_nk: Array
    latency_nk: Array
    draw_nk: Array
    exclusions_nk: Ints

    @property
    def decisions(self) -> int:
        """Decisions since the start."""
        return int(self.counts[0])

    @property
    def total(self) -> int:
        """Decisions since the pacer was made: says how full the ring is."""
        return int(self.counts[1])

    @property
    def start_ns(self) -> int:
        """When the period began."""
        return int(self.counts[2])

    @property
    def last_ns(self) -> int:
        """When the last decision was made."""
        return int(self.counts[3])

    @property
    def spent(self) -> float:
        """Dollars since the start: reported, and predicted where nothing is reported yet."""
        return float(self.sums[0])

    @property
    def multiplier(self) -> float:
        """What the budget adds to λ, in quality (scaled to [0, 1]) per dollar."""
        return float(self.sums[1])

    @property
    def target(self) -> float:
        """Dollars that the next requests may cost on average."""
        return float(self.sums[2])

    @property
    def gap_ns(self) -> float:
        """Running mean of the time between decisions."""
        return float(self.sums[3])


def new_pacer(models: int) -> Pacer:
    """A pacer that has seen nothing."""
    shape = (RING, models)
    return Pacer(
        counts=np.zeros(4, dtype=np.int64),
        sums=np.zeros(4),
        quality_nk=np.zeros(shape),
        cost_nk=np.zeros(shape),
        latency_nk=np.zeros(shape),
        draw_nk=np.zeros(shape),
        exclusions_nk=np.ones(shape, dtype=np.int64),
    )


def with_models(pacer: Pacer, models: int) -> Pacer:
    """The same pacer for another set of columns: the ring starts anew, what was spent stays."""
    fresh = new_pacer(models)
    fresh.counts[:], fresh.sums[:] = pacer.counts, pacer.sums
    fresh.counts[1] = 0
    return fresh


def to_arrays(pacer: Pacer) -> dict[str, npt.NDArray[np.generic]]:
    """All arrays by name."""
    return {f.name: getattr(pacer, f.name) for f in fields(pacer)}


def from_arrays(named: Mapping[str, npt.NDArray[Any]]) -> Pacer:
    """The pacer of ``to_arrays``."""
    return Pacer(**{f.name: named[f.name] for f in fields(Pacer)})


def multiplier_for(
    pacer: Pacer,
    budget: Budget,
    objective: Objective,
    quality: QualityRange,
    predicted: Predictions,
    exclusions_bk: Ints,
) -> float:
    """The multiplier for the next requests; before the first decision, the one at which these keep to the budget."""
    if pacer.total:
        return pacer.multiplier
    return solve(objective, quality, predicted, predicted.quality_k, exclusions_bk, _start_target(budget), 0.0)


def affordable(pacer: Pacer, budget: Budget, cost_bk: Array) -> float:
    """The largest exploration floor at which the even draw costs at most ``EXPLORE_SHARE`` of the target."""
    target = pacer.target if pacer.total else _start_target(budget)
    return EXPLORE_SHARE * max(target, 0.0) / max(float(cost_bk.mean()), 1e-300)


def decided(
    pacer: Pacer,
    budget: Budget,
    objective: Objective,
    quality: QualityRange,
    event: DecisionMade,
    columns: npt.NDArray[np.intp],
    time_ns: int,
) -> None:
    """Count a decision, in place, and find the multiplier anew when it is time. ``columns`` are those of its models."""
    if budget.period_ns:
        start_ns = time_ns - time_ns % budget.period_ns
        if start_ns != pacer.start_ns:
            pacer.counts[0], pacer.sums[0], pacer.counts[2] = 0, 0.0, start_ns
    gap = float(time_ns - pacer.last_ns)
    if pacer.total:
        pacer.sums[3] += (gap - pacer.gap_ns) * max(0.02, 1.0 / pacer.total)
    pacer.counts[3] = time_ns
    n = pacer.total % RING
    predicted = event.predicted
    pacer.exclusions_nk[n] = 1
    pacer.quality_nk[n, columns] = predicted.quality_k
    pacer.cost_nk[n, columns] = predicted.cost_k
    pacer.latency_nk[n, columns] = predicted.latency_k
    pacer.draw_nk[n, columns] = event.draw_k
    pacer.exclusions_nk[n, columns] = event.exclusions_k
    pacer.sums[0] += predicted.cost_k[event.chosen]
    pacer.counts[0] += 1
    pacer.counts[1] += 1
    if pacer.total <= EVERY or pacer.total % EVERY == 0:
        pacer.sums[2] = _target(pacer, budget, time_ns)
        held = min(pacer.total, RING)
        replayed = Predictions(
            pacer.quality_nk[:held],
            pacer.quality_nk[:held],
            pacer.cost_nk[:held],
            pacer.latency_nk[:held],
            pacer.latency_nk[:held],
            pacer.cost_nk[:held],
        )
        pacer.sums[1] = solve(
            objective,
            quality,
            replayed,
            pacer.draw_nk[:held],
            pacer.exclusions_nk[:held],
            pacer.target,
            pacer.multiplier,
        )


def cost_known(pacer: Pacer, change: float) -> None:
    """Count, in place, that a decision costs ``change`` dollars more than was counted so far."""
    pacer.sums[0] += change


def solve(
    objective: Objective,
    quality: QualityRange,
    predicted: Predictions,
    draw_bk: Array,
    exclusions_bk: Ints,
    target: float,
    guess: float,
) -> float:
    """The smallest multiplier at which the policy's mean cost on these requests is at most ``target`` dollars.

    ``draw_bk`` are draws of quality. If no multiplier reaches the target, one at which the cheapest are chosen. ``guess`` is
    where to look first.
    """
    rows = np.arange(len(draw_bk))

    def mean_cost(multiplier: float) -> float:
        race_ = race(objective, quality, predicted, exclusions_bk, multiplier)
        drawn_bk = np.where(race_.eligible_bk, draw_bk - race_.shift_bk, race_.mean_bk)
        return float(predicted.cost_k[rows, finish(race_, drawn_bk)[:, 0]].mean())

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


def _start_target(budget: Budget) -> float:
    """Before anything is known of the traffic: the budget per request, or a hundredth of one per period."""
    return budget.amount if not budget.period_ns else 0.01 * budget.amount


def _target(pacer: Pacer, budget: Budget, time_ns: int) -> float:
    if not budget.period_ns:
        return budget.amount + (budget.amount * pacer.decisions - pacer.spent) / HORIZON
    left_ns = pacer.start_ns + budget.period_ns - time_ns
    if pacer.gap_ns <= 0.0:
        return _start_target(budget)
    return (budget.amount - pacer.spent) / max(left_ns / pacer.gap_ns, 1.0)
