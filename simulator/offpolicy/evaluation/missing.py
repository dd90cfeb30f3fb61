"""Whether outcomes are missing alike: as often for all models, and inside a model whatever the request was like.

What is estimated is over rounds that have an outcome. Where all models have one equally often in every kind of round, they are
compared on the same rounds, but perhaps on a choice of them; where they have not, one may be judged by its easy rounds and
another by its hard ones. Kinds of rounds are buckets, tenths of the log, and quarters of every feature. That outcomes are missing
*because* of what they would have been shows only as far as models, buckets, times or features go with that.

>>> rng = np.random.default_rng(0)
>>> model_n, hard_n = rng.integers(0, 2, 4000), rng.integers(0, 2, 4000)
>>> reported_n = rng.random(4000) < np.where(hard_n == model_n, 0.9, 0.5)  # as often for both models, on other requests
>>> p_value(np.zeros(4000, dtype=np.intp), model_n, reported_n) > 0.01, p_value(hard_n, model_n, reported_n) < 1e-9
(True, True)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from pointsman.simulator.offpolicy.logs.log import Array, Flags, Indices, Log

MIN_INSIDE_P = 1e-4
"""Below this p-value, corrected for the number of kinds, outcomes are missing unequally inside models."""
TIME = "time"
"""The kind of tenths of the log."""
_TENTHS, _QUARTERS = 10, 4
_FEWEST_EXPECTED = 5.0
"""Expected events, reported and missing, from which χ² holds."""
_MOST_ROUNDS = 200_000
"""Rounds that features are looked at in, evenly from the whole log."""


@dataclass(frozen=True, slots=True, eq=False)
class UnequalKind:
    """A kind of rounds (``name``; ``kind_n`` numbers each round's, (n)) on which it depends whether outcomes were reported.

    In ``model``, where that shows most, between ``least`` and ``most`` of them were.
    """

    name: str
    kind_n: Indices
    p_value: float
    model: str
    least: float
    most: float


@dataclass(frozen=True, slots=True, eq=False)
class Missingness:
    """What is missing of one signal: ``reported_n`` (n) has it.

    ``across_p`` is the p-value of all models having it equally often in rounds of a kind, by the kind ``across`` in which that
    is least so. ``inside`` are the kinds on which it depends inside models, the surest first.
    """

    reported_n: Flags
    across_p: float
    across: str
    inside: tuple[UnequalKind, ...]


def missingness(log: Log, reported_n: Flags) -> Missingness:
    """What is missing, by models, buckets, time and features."""
    k, group_n, chosen_n = len(log.models), log.group_n, log.chosen_n
    if reported_n.all():
        return Missingness(reported_n, 1.0, "", ())
    kinds = dict(kinds_of_rounds(log))
    across, across_p, inside = "", 1.0, list[UnequalKind]()
    for name, kind_n in kinds.items():
        levels = int(kind_n.max()) + 1
        p_across = p_value(group_n * levels + kind_n, chosen_n, reported_n) * len(kinds)
        if p_across < across_p:
            across, across_p = name, p_across
        within_n = chosen_n if name == "bucket" else group_n * k + chosen_n
        p_inside = min(1.0, p_value(within_n, kind_n, reported_n) * len(kinds))
        if p_inside < MIN_INSIDE_P:
            inside.append(_unequal(log, reported_n, name, kind_n, p_inside))
    return Missingness(reported_n, across_p, across, tuple(sorted(inside, key=lambda kind: kind.p_value)))


def p_value(cell_n: Indices, level_n: Indices, reported_n: Flags) -> float:
    """The p-value of outcomes being reported equally often at all levels of a cell: Pearson's χ², summed over cells.

    Levels with fewer than five expected events, reported or missing, are left out, where the approximation does not hold; 1 where
    nothing is left to compare.
    """
    count_cl, reported_cl = _counts(cell_n, level_n, reported_n)
    rate_c1 = reported_cl.sum(axis=1, keepdims=True) / np.maximum(count_cl.sum(axis=1, keepdims=True), 1.0)
    is_tested_cl = count_cl * np.minimum(rate_c1, 1.0 - rate_c1) >= _FEWEST_EXPECTED
    is_tested_cl &= is_tested_cl.sum(axis=1, keepdims=True) > 1
    count_cl, reported_cl = np.where(is_tested_cl, count_cl, 0.0), np.where(is_tested_cl, reported_cl, 0.0)
    rate_c1 = reported_cl.sum(axis=1, keepdims=True) / np.maximum(count_cl.sum(axis=1, keepdims=True), 1.0)
    variance_cl = count_cl * rate_c1 * (1.0 - rate_c1)
    square_cl = (reported_cl - rate_c1 * count_cl) ** 2
    statistic = np.divide(square_cl, variance_cl, out=np.zeros_like(square_cl), where=variance_cl > 0.0).sum()
    dof = int((is_tested_cl.sum(axis=1) - 1).clip(min=0).sum())
    return float(chdtrc(dof, statistic)) if dof else 1.0


def kinds_of_rounds(log: Log) -> Iterator[tuple[str, Indices]]:
    """Kinds that rounds are looked at by: buckets, tenths of the log, quarters of every feature, each by name and number (n)."""
    n = len(log)
    if len(log.groups) > 1:
        yield "bucket", log.group_n
    yield TIME, np.arange(n) * _TENTHS // n
    step = max(1, n // _MOST_ROUNDS)
    for i in range(log.x_nd.shape[1]):
        edges = np.unique(np.quantile(log.x_nd[::step, i], np.arange(1, _QUARTERS) / _QUARTERS))
        kind_n = np.searchsorted(edges, log.x_nd[:, i], side="left")
        if kind_n.min() < kind_n.max():
            yield f"x/{i}", kind_n


def _unequal(log: Log, reported_n: Flags, name: str, kind_n: Indices, p: float) -> UnequalKind:
    """``name`` with the model in which what is reported depends on it most."""
    surest = min(range(len(log.models)), key=lambda model: _p_of_model(log.chosen_n == model, kind_n, reported_n))
    is_model_n = log.chosen_n == surest
    one_cell_m = np.zeros(int(is_model_n.sum()), dtype=np.intp)
    (count_l,), (reported_l,) = _counts(one_cell_m, kind_n[is_model_n], reported_n[is_model_n])
    rate_l = reported_l[count_l > 0.0] / count_l[count_l > 0.0]
    return UnequalKind(name, kind_n, p, log.models[surest], float(rate_l.min()), float(rate_l.max()))


def _p_of_model(is_model_n: Flags, kind_n: Indices, reported_n: Flags) -> float:
    return p_value(np.zeros(int(is_model_n.sum()), dtype=np.intp), kind_n[is_model_n], reported_n[is_model_n])


def _counts(cell_n: Indices, level_n: Indices, reported_n: Flags) -> tuple[Array, Array]:
    """Rounds, and those with an outcome, by cell and level, each (c, l)."""
    if not len(cell_n):
        return np.zeros((1, 1)), np.zeros((1, 1))
    cells, levels = int(cell_n.max()) + 1, int(level_n.max()) + 1
    place_n = cell_n * levels + level_n
    count_cl = np.bincount(place_n, minlength=cells * levels).reshape(cells, levels).astype(np.float64)
    reported_cl = np.bincount(place_n[reported_n], minlength=cells * levels).reshape(cells, levels).astype(np.float64)
    return count_cl, reported_cl
