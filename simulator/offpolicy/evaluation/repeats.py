"""Whether rows of a log stand there more than once: a file that was joined to itself, a batch that was sent again.

Every such row is counted as evidence twice, so that bounds are narrower than what was seen. Where the source gives decisions ids
of their own, its reader refuses one that is there twice. Without ids equal rows need not be one decision: two prompts alike, the
same model, the same answer. But chance leaves a pattern. Let f_r be how many different rows stand there r times. Whatever rows
are likely or not, counts of independent rows are mixtures of Poisson counts, and by Cauchy and Schwarz

    f_r² <= (r+1)/r · f_(r-1) · f_(r+1)

in expectation: many rows that stand there twice need some that stand there three times, and many that stand there once. A log
that was doubled has the ones without the others. The same of runs of rows that are so long that chance repeats none, for logs of
few different rows; and rows that were doubled one by one stand in groups of even sizes throughout.
Rows of one time that are equal in everything are told by how rarely their neighbours of another time are.

>>> rng = np.random.default_rng(0)
>>> honest_n = rng.integers(0, 5000, 4000).astype(np.uint64)
>>> is_doubled(honest_n), is_doubled(np.concatenate([honest_n, honest_n]))
(False, True)
>>> is_doubled(np.repeat(rng.integers(0, 3, 500), 2).astype(np.uint64))
True
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import bdtrc, gammaincinv

from pointsman.simulator.offpolicy.logs.log import Array, Log

Hashes = npt.NDArray[np.uint64]

_MOST_TIMES = 20
"""Counts that are looked at: rows that stand there more often are common ones."""
_SURE = 1e-6
"""Chance of a false alarm, of each count."""
_CHANCE = 1e-9
"""Chance that two runs of rows are alike anywhere in the log, without being one."""
_STRETCHES = 20
"""Parts of the log of which the one with the most equal rows says how likely they are."""
_NEIGHBOURS = 20
"""How many rows after one are compared with it."""
_RARELY = 0.05
"""Share of neighbours alike under which rows of the same time that are alike are suspicious."""
_FEWEST_GROUPS = 30
"""Groups of equal neighbours from which their sizes tell something."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Repeats:
    """``rows`` of the log stand there before, word for word; ``is_beyond_chance``: they are no other decisions that are alike."""

    rows: int
    is_beyond_chance: bool


def repeats_in(log: Log) -> Repeats:
    """The rows of ``log`` that stand there before; none where decisions have ids, or where most rows are alike anyway."""
    if log.has_ids:
        return Repeats(0, False)
    row_n = row_hashes(log)
    times_m = np.unique(row_n, return_counts=True)[1]
    rows = len(row_n) - len(times_m)
    is_certain = is_doubled(row_n) or (log.is_dated and _same_time_alike(log, row_n))
    is_telling = is_certain or 2 * int((times_m == 1).sum()) > len(row_n)  # most rows are like no other
    return Repeats(rows if is_telling else 0, is_certain)


def is_doubled(row_n: Hashes) -> bool:
    """Whether rows, by their hashes, stand there twice or more often beyond what chance explains."""
    if _is_beyond_chance(_counts(row_n)):
        return True
    starts_n = np.flatnonzero(np.concatenate(([True], row_n[1:] != row_n[:-1])))
    size_m = np.diff(np.concatenate((starts_n, [len(row_n)])))
    if len(size_m) >= _FEWEST_GROUPS and int(np.gcd.reduce(size_m)) > 1:
        return True
    length = _run_length(row_n)
    return length is not None and _is_beyond_chance(_counts(_runs(row_n, length)))


def row_hashes(log: Log) -> Hashes:
    """A hash of all that a row says (n), without its number."""
    numbers = (log.chosen_n.astype(np.float64), log.group_n.astype(np.float64))
    columns: list[Array] = [*numbers, log.propensity_n, *log.signals.values(), *log.x_nd.T]
    if log.is_dated:
        columns.append(log.time_ns_n.view(np.float64))
    if log.logged_nk is not None:
        columns.extend(log.logged_nk.T)
    hash_n = np.zeros(len(log), dtype=np.uint64)
    for column_n in columns:
        bits_n = np.ascontiguousarray(column_n).view(np.uint64)
        hash_n = hash_n * _MULTIPLIER + pd.util.hash_array(np.where(np.isnan(column_n), np.uint64(1), bits_n))
    return hash_n


def _same_time_alike(log: Log, row_n: Hashes) -> bool:
    """Whether neighbours of the same time are alike far more often than those of another, which hardly ever are."""
    content_n = row_hashes(replace(log, is_dated=False, logged_nk=None, propensity_n=np.ones(len(log))))
    alike, same, near_alike, others = 0, 0, 0, 0
    for lag in range(1, min(_NEIGHBOURS, len(log) - 1) + 1):
        is_same_m = log.time_ns_n[lag:] == log.time_ns_n[:-lag]
        same += int(is_same_m.sum())
        alike += int((row_n[lag:] == row_n[:-lag])[is_same_m].sum())
        near_alike += int((content_n[lag:] == content_n[:-lag])[~is_same_m].sum())
        others += int((~is_same_m).sum())
    most = float(gammaincinv(near_alike + 1.0, 1.0 - _SURE)) / max(others, 1)  # a bound of the rate of a Poisson count
    return most <= _RARELY and alike > 0 and float(bdtrc(alike - 1, same, most)) < _SURE


def _counts(row_n: Hashes) -> npt.NDArray[np.int64]:
    """How many different rows stand there 0, 1, … ``_MOST_TIMES`` + 1 times, and, last, more often."""
    times_m = np.unique(row_n, return_counts=True)[1]
    return np.bincount(np.minimum(times_m, _MOST_TIMES + 2), minlength=_MOST_TIMES + 3)


def _is_beyond_chance(counts: npt.NDArray[np.int64]) -> bool:
    """Whether there are more rows of some count than their neighbours allow."""
    least, most = (gammaincinv(np.maximum(counts, 1e-12), _SURE), gammaincinv(counts + 1.0, 1.0 - _SURE))
    return any(
        least[r] > math.sqrt((r + 1.0) / r * most[r - 1] * most[r + 1]) for r in range(2, _MOST_TIMES + 1) if counts[r]
    )


def _run_length(row_n: Hashes) -> int | None:
    """So many rows, a power of 2, that no two stretches of them are alike by chance; ``None`` if that is much of the log."""
    likely = 0.0
    for stretch_m in np.array_split(row_n, min(_STRETCHES, len(row_n))):
        share_m = np.unique(stretch_m, return_counts=True)[1] / len(stretch_m)
        likely = max(likely, float(share_m @ share_m))
    if likely >= 1.0 - 1e-9:
        return None
    fewest = math.log(len(row_n) ** 2 / _CHANCE) / -math.log(likely) + 1.0
    length = 2 ** math.ceil(math.log2(fewest))
    return length if 8 * length <= len(row_n) else None


def _runs(row_n: Hashes, length: int) -> Hashes:
    """A hash of every stretch of ``length`` rows, a power of 2: twice as many rows with each step."""
    run_n, size = pd.util.hash_array(row_n), 1
    while size < length:
        run_n = pd.util.hash_array(run_n[:-size] * _MULTIPLIER + run_n[size:])
        size *= 2
    return np.asarray(run_n)
