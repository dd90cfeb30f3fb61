"""A floor on mean quality: "at least q on average, as cheaply as possible", paced like a budget.

The least mean cost at a mean quality of at least q has the Lagrangian cost - ν·(quality - q). Divided by -ν it is the score of a
budget, quality - λ·cost with λ = 1/ν, and the dual is the mirror of the pacer's (``bandit.pacer``): instead of the smallest
multiplier that keeps mean cost within a target, the *largest* that keeps mean quality at one. It is found on the last ``RING``
requests, whose draws and expectations are replayed at trial multipliers (constraints on quality as duals: SLARouter, arXiv
2606.19376).

The target is q, more if quality fell short of it so far and less if there was more (both made good over ``HORIZON`` requests, of
a surplus at most ``SURPLUS`` a request), plus by how much expectations have proved too high: models are chosen because they look
good. A decision counts with its expected quality until it is judged and with its quality from then on, whenever that is.

>>> mean_bk, cost_bk = np.array([[0.6, 0.9], [0.8, 0.9]]), np.array([[0.001, 0.1], [0.001, 0.1]])
>>> multiplier = solve(mean_bk, mean_bk, cost_bk, target=0.84, guess=0.0)
>>> (mean_bk - multiplier * cost_bk).argmax(axis=1).tolist()  # the dear one where it is worth most
[1, 0]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from pointsman.bandit.catalog import QualityRange
from pointsman.bandit.event import DecisionMade, OutcomeApplied
from pointsman.bandit.outcome import Signal
from pointsman.bandit.packed import Array
from pointsman.bandit.policy import INELIGIBLE

RING = 256
"""Requests that are replayed to find the multiplier."""
EVERY = 16
"""Decisions between two searches; the first ``EVERY`` decisions each search."""
HORIZON = 256
"""Requests over which a shortfall is made good, or a surplus spent."""
SURPLUS = 0.02
"""Most by which the target is lowered for a surplus, in quality scaled to [0, 1]: quality stays near what was promised."""
CARRIED = 2.0
"""Largest surplus that is kept, in multiples of what ``HORIZON`` requests may spend of it; the rest is forgone."""
OPTIMISM_MASS = 30.0
"""Judged decisions that the belief in unbiased expectations is worth."""
DECISIONS, JUDGED, BORN = range(3)
"""Places of ``QualityPacer.counts``."""
EXPECTED, EXPECTED_JUDGED, REPORTED, FORGONE, MULTIPLIER, TARGET = range(6)
"""Places of ``QualityPacer.sums``."""
_STEPS = 14
_SMALLEST, _LARGEST = 1e-9, 1e15


@dataclass(slots=True)
class QualityPacer:
    """The state of a bucket's floor on mean quality; changed in place by the fold. Quality is scaled to [0, 1].

    ``counts``: decisions since the start, how many of them are judged, and the position at which it started. ``sums``: of
    expected qualities, of those of the judged decisions, of reported qualities, of surpluses forgone; the multiplier (quality
    per dollar) and the target (mean expected quality). The ring holds, for request number ``DECISIONS % RING``, each model's
    expected quality, its draw (``INELIGIBLE`` where it was not eligible) and its expected cost.
    """

    counts: npt.NDArray[np.int64]
    sums: Array
    mean_nk: Array
    draw_nk: Array
    cost_nk: Array

    @property
    def born(self) -> int:
        """Position at which the pacer was made: what was decided on an earlier state is not its business."""
        return int(self.counts[BORN])

    @property
    def decisions(self) -> int:
        """Decisions since the start."""
        return int(self.counts[DECISIONS])

    @property
    def judged(self) -> int:
        """How many of them are judged."""
        return int(self.counts[JUDGED])

    @property
    def multiplier(self) -> float:
        """Quality (scaled to [0, 1]) that a dollar must buy: 0 until the floor can be kept."""
        return float(self.sums[MULTIPLIER])

    @property
    def target(self) -> float:
        """Mean expected quality that the next requests are to have, scaled to [0, 1]."""
        return float(self.sums[TARGET])

    @property
    def optimism(self) -> float:
        """By how much expectations were too high, on average, shrunk towards 0."""
        excess = float(self.sums[EXPECTED_JUDGED] - self.sums[REPORTED])
        return excess / (self.judged + OPTIMISM_MASS)

    @property
    def total(self) -> float:
        """Sum of qualities since the start: reported, and expected less ``optimism`` where nothing is reported."""
        expected = float(self.sums[EXPECTED] - self.sums[EXPECTED_JUDGED])
        return float(self.sums[REPORTED]) + expected - (self.decisions - self.judged) * self.optimism


def new_quality_pacer(position: int) -> QualityPacer:
    """A pacer of which nothing was decided yet, made at journal position ``position``."""
    return QualityPacer(
        counts=np.array([0, 0, position], dtype=np.int64),
        sums=np.zeros(TARGET + 1),
        mean_nk=np.zeros((RING, 0)),
        draw_nk=np.full((RING, 0), INELIGIBLE),
        cost_nk=np.zeros((RING, 0)),
    )


def to_arrays(pacer: QualityPacer) -> dict[str, npt.NDArray[np.generic]]:
    """All arrays by name."""
    return {f.name: getattr(pacer, f.name) for f in fields(pacer)}


def from_arrays(named: Mapping[str, npt.NDArray[Any]]) -> QualityPacer:
    """The pacer of ``to_arrays``."""
    return QualityPacer(**{f.name: named[f.name] for f in fields(QualityPacer)})


def count_decision(pacer: QualityPacer, event: DecisionMade) -> None:
    """Count the expected quality of a decision whose objective has a floor on mean quality, in place, and solve for the
    multiplier every few decisions. One made on a state before the pacer's changes nothing.
    """
    assert event.objective.min_mean_quality is not None
    if event.state_position < pacer.born:
        return
    floor = (event.objective.min_mean_quality - event.quality.min) / event.quality.width
    _remember(pacer, event)
    pacer.sums[EXPECTED] += event.predicted.quality_k[event.chosen]
    pacer.counts[DECISIONS] += 1
    count = pacer.decisions
    if count <= EVERY or count % EVERY == 0:
        n = min(count, RING)
        pacer.sums[TARGET] = _target(pacer, floor)
        pacer.sums[MULTIPLIER] = solve(
            pacer.mean_nk[:n], pacer.draw_nk[:n], pacer.cost_nk[:n], pacer.target, pacer.multiplier
        )


def count_outcome(pacer: QualityPacer, quality: QualityRange, event: OutcomeApplied) -> None:
    """Count, in place, the reported quality of a decision instead of the expected one, or of what was reported before.

    ``quality`` is the bucket's range. A decision from before the pacer was made changes nothing.
    """
    if event.expected_quality is None or event.state_position < pacer.born:
        return
    for change in event.changes:
        if change.signal is not Signal.QUALITY:
            continue
        pacer.sums[REPORTED] += (change.after - quality.min) / quality.width
        if change.before is None:
            pacer.counts[JUDGED] += 1
            pacer.sums[EXPECTED_JUDGED] += event.expected_quality
        else:
            pacer.sums[REPORTED] -= (change.before - quality.min) / quality.width


def solve(mean_bk: Array, draw_bk: Array, cost_bk: Array, target: float, guess: float) -> float:
    """The largest multiplier (>= 0, quality per dollar) at which the mean expected quality of b requests is at least ``target``,
    to a relative precision of about 1e-4; 0 if none reaches it.

    Means, draws and costs (b, k) as in ``QualityPacer``. Where even the cheapest models keep to the target, a multiplier at which
    they are chosen. ``guess`` is where the search starts.
    """
    rows = np.arange(len(mean_bk))
    eligible_bk = draw_bk > 0.5 * INELIGIBLE
    cheapest_b = np.where(eligible_bk, cost_bk, np.inf).argmin(axis=1)

    def choice_b(multiplier: float) -> npt.NDArray[np.intp]:
        return np.asarray(np.where(eligible_bk, draw_bk - multiplier * cost_bk, -np.inf).argmax(axis=1))

    def keeps(multiplier: float) -> bool:
        return float(mean_bk[rows, choice_b(multiplier)].mean()) >= target

    if not keeps(0.0):
        return 0.0
    low = guess if guess > 0.0 else 0.01 / max(float(cost_bk.mean()), 1e-12)
    while not keeps(low):
        low /= 4.0
        if low < _SMALLEST:
            return 0.0
    high = 4.0 * low
    while keeps(high):
        low, high = high, 4.0 * high
        if high > _LARGEST or (choice_b(low) == cheapest_b).all():
            return low
    for _ in range(_STEPS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low


def _target(pacer: QualityPacer, floor: float) -> float:
    """Mean expected quality that the next requests must have; a surplus beyond what is kept is forgone, in place."""
    surplus = pacer.total - floor * pacer.decisions - float(pacer.sums[FORGONE])
    largest = CARRIED * SURPLUS * HORIZON
    pacer.sums[FORGONE] += max(0.0, surplus - largest)
    return floor + pacer.optimism - min(surplus / HORIZON, SURPLUS)


def _remember(pacer: QualityPacer, event: DecisionMade) -> None:
    """Put the expectations and draws of a decision into the ring, in place."""
    k, width = len(event.models), pacer.mean_nk.shape[1]
    if k > width:
        grow = ((0, 0), (0, k - width))
        pacer.mean_nk = np.pad(pacer.mean_nk, grow)
        pacer.draw_nk = np.pad(pacer.draw_nk, grow, constant_values=INELIGIBLE)
        pacer.cost_nk = np.pad(pacer.cost_nk, grow)
    n = pacer.decisions % RING
    eligible_k = (event.exclusions_k == 0) & (event.draw_k > 0.5 * INELIGIBLE)
    pacer.mean_nk[n, :k], pacer.mean_nk[n, k:] = event.predicted.quality_k, 0.0
    pacer.draw_nk[n, :k], pacer.draw_nk[n, k:] = np.where(eligible_k, event.draw_k, INELIGIBLE), INELIGIBLE
    pacer.cost_nk[n, :k], pacer.cost_nk[n, k:] = event.predicted.cost_k, 0.0
