"""Decisions of any service as a table (CSV, JSON Lines, Parquet), one row a decision, oldest first.

==================  =====================================================================================================
column              what it is
==================  =====================================================================================================
``model``           the model that was chosen
``decision``        its own id; optional, but without it a row that stands there twice can only be guessed
``propensity``      the probability with which it was, given all that came before, above 0 and at most 1
``p/<model>``       the whole distribution: empty where a model could not be chosen (limits, not available), 0 where it could
                    and never would; optional, but many estimates need it
``bucket``          the kind of request; optional, "all" without it
``time``            ISO 8601, or ``time_ns``, nanoseconds; optional; never falls
``x/0`` … ``x/d``   features of the request; optional; empty where its bucket has fewer
``eligible``        how many models could be chosen; optional: where it is the number of those with a propensity above 0,
                    the others could not
``quality``         and ``cost`` (dollars; or ``cost_usd``), ``latency`` (seconds; or ``latency_seconds``), ``success``,
                    ``signal/<name>`` for any other: what came of it, empty where it was not reported
==================  =====================================================================================================

``pointsman export --to FILE.csv`` (or ``.parquet``) writes such a table; what else it writes (``explored``, predictions, tokens)
is not used here.

>>> import tempfile
>>> from pathlib import Path
>>> with tempfile.TemporaryDirectory() as folder:
...     path = Path(folder, "log.csv")
...     _ = path.write_text("model,propensity,p/small,p/large,quality\\nsmall,0.8,0.8,0.2,0.7\\nlarge,0.2,0.8,0.2,\\n")
...     log = read_table(path)
>>> log.models, log.chosen_n.tolist(), log.signals["quality"].tolist()
(('large', 'small'), [1, 0], [0.7, nan])
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pointsman.simulator.data.frames import FrameError, frames, numbers, texts
from pointsman.simulator.offpolicy.logs.log import Array, Flags, Indices, Ints, Log, LogError

SIGNALS = {
    "quality": "quality",
    "cost": "cost",
    "cost_usd": "cost",
    "latency": "latency",
    "latency_seconds": "latency",
    "success": "success",
}
"""The signal that each column of an outcome holds."""
_RANGES = {"cost": (0.0, math.inf), "latency": (0.0, math.inf), "success": (0.0, 1.0)}
"""What values signals can have that are checked here; of others nothing is known."""
_ID = "decision"
"""The column of a decision's own id."""
_OTHERS = ("model", "propensity", "bucket", "time", "time_ns")
_PREFIXES = ("p/", "x/", "signal/")
_UNUSED = ("decision", "explored", "limits_violated", "eligible", "input_tokens", "output_tokens")
_UNUSED_PREFIXES = ("quality_mean/", "quality_sd/", "cost/", "latency/")
_LAST_NS = 2.0**62
"""Latest time, in nanoseconds: the year 2116."""
SUM_TOLERANCE = 1e-6
"""The most by which a distribution may miss 1, and a propensity its distribution."""
Hashes = npt.NDArray[np.uint64]
PIECE = 100_000
"""Decisions that ``read_pieces`` holds in memory at once."""


def read_table(path: Path) -> Log:
    """All decisions of a file. Raises ``LogError`` naming file, row and column."""
    return next(read_pieces(path, None))


def read_pieces(path: Path, rows: int | None = PIECE) -> Iterator[Log]:
    """A file in pieces of at most ``rows`` decisions (``None``: in one), for logs that are larger than memory.

    All have the same models, groups and signals, which a first pass over the file finds. Raises ``LogError``.
    """
    try:
        models, groups = _names(path, rows)
        first, last_ns = 0, -(2**63)
        for frame in frames(path, rows):
            if not len(frame):
                break
            log = _log(str(path), frame, first, models, groups)
            if int(log.time_ns_n[0]) < last_ns:
                raise FrameError(f"{path}: row {first + 1}, column time: expected no time before that of the row above")
            first, last_ns = first + len(log), int(log.time_ns_n[-1])
            yield log
    except FrameError as error:
        raise LogError(str(error)) from None


def _names(path: Path, rows: int | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Models and groups of the whole file, after its columns are checked."""
    models: set[str] = set()
    groups: set[str] = set()
    ids: list[Hashes] = []
    first = 0
    for frame in frames(path, rows):
        titles = [str(title) for title in frame.columns]
        if not len(frame):
            raise FrameError(f"{path}: expected at least one decision, got none")
        _check_titles(path, titles)
        models.update(_ids(str(path), frame, "model", first), (t[2:] for t in titles if t.startswith("p/")))
        groups.update(_ids(str(path), frame, "bucket", first) if "bucket" in titles else ["all"])
        if _ID in titles:
            ids.append(pd.util.hash_array(np.array(texts(str(path), frame, _ID, first), dtype=object)))
        first += len(frame)
    _check_ids(path, ids)
    return tuple(sorted(models)), tuple(sorted(groups))


def _check_ids(path: Path, ids: list[Hashes]) -> None:
    """Raise ``FrameError`` for a decision that is there twice."""
    if not ids:
        return
    id_n = np.concatenate(ids)
    first_m = np.unique(id_n, return_index=True)[1]
    if len(first_m) < len(id_n):
        again = int(np.setdiff1d(np.arange(len(id_n)), first_m)[0])
        before = int(np.flatnonzero(id_n == id_n[again])[0])
        raise FrameError(
            f"{path}: row {again + 1}, column {_ID}: expected one row a decision, this one is in row {before + 1} already "
            f"({len(id_n) - len(first_m)} such rows)"
        )


def _check_titles(path: Path, titles: list[str]) -> None:
    for title in ("model", "propensity"):
        if title not in titles:
            raise FrameError(f"{path}: has no column {title}; columns are {', '.join(titles[:12])}")
    for title in titles:
        if title not in (*SIGNALS, *_OTHERS, *_UNUSED) and not title.startswith((*_PREFIXES, *_UNUSED_PREFIXES)):
            raise FrameError(
                f"{path}: column {title}: expected one of {', '.join((*_OTHERS, *SIGNALS))}, or one that begins with "
                f"{', '.join(_PREFIXES)}"
            )
    for title, synonym in (("cost", "cost_usd"), ("latency", "latency_seconds"), ("time", "time_ns")):
        if title in titles and synonym in titles:
            raise FrameError(f"{path}: expected one of the columns {title} and {synonym}, got both")
    d = sum(title.startswith("x/") for title in titles)
    missing = next((f"x/{i}" for i in range(d) if f"x/{i}" not in titles), None)
    if missing is not None:
        raise FrameError(f"{path}: has {d} columns x/…, but no column {missing}")


def _log(where: str, frame: pd.DataFrame, first: int, models: tuple[str, ...], groups: tuple[str, ...]) -> Log:
    """The rows of ``frame``, of which the first is number ``first`` of the file."""
    n = len(frame)
    number_by_model = {model: i for i, model in enumerate(models)}
    number_by_group = {group: i for i, group in enumerate(groups)}
    chosen_n = np.array([number_by_model[model] for model in _ids(where, frame, "model", first)], dtype=np.intp)
    propensity_n = numbers(where, frame, "propensity", first, high=1.0, above=0.0)
    buckets = _ids(where, frame, "bucket", first) if "bucket" in frame.columns else ["all"] * n
    signals = _signals(where, frame, first)
    logged_nk, eligible_nk = _distribution(where, frame, first, models, chosen_n, propensity_n)
    return Log(
        name=where,
        models=models,
        groups=groups,
        chosen_n=chosen_n,
        propensity_n=propensity_n,
        logged_nk=logged_nk,
        eligible_nk=eligible_nk,
        signals=signals,
        x_nd=_features(where, frame, first),
        group_n=np.array([number_by_group[bucket] for bucket in buckets], dtype=np.intp),
        time_ns_n=_times(where, frame, first),
        ranges={name: ends for name, ends in _RANGES.items() if name in signals},
        has_ids=_ID in frame.columns,
        is_dated="time" in frame.columns or "time_ns" in frame.columns,
    )


def _signals(where: str, frame: pd.DataFrame, first: int) -> dict[str, Array]:
    """Outcomes by signal, each (n) with NaN where empty. Costs and latencies are not negative, success is in [0, 1]."""
    signals = {}
    for title in map(str, frame.columns):
        name = SIGNALS.get(title) or (title.removeprefix("signal/") if title.startswith("signal/") else "")
        if name:
            low, high = _RANGES.get(name, (-math.inf, math.inf))
            signals[name] = numbers(where, frame, title, first, low, high, needed=False)
    if not signals:
        raise FrameError(f"{where}: has no column of an outcome: expected some of {', '.join(SIGNALS)}, signal/<name>")
    return signals


def _features(where: str, frame: pd.DataFrame, first: int) -> Array:
    """The columns x/0, x/1, … (n, d), with 0 where empty."""
    x_nd = np.zeros((len(frame), sum(str(title).startswith("x/") for title in frame.columns)))
    for i in range(x_nd.shape[1]):
        x_nd[:, i] = np.nan_to_num(numbers(where, frame, f"x/{i}", first, needed=False))
    return x_nd


def _ids(where: str, frame: pd.DataFrame, title: str, first: int) -> list[str]:
    """Names of models or buckets without the prefix that the service's own export gives them."""
    return [name.removeprefix(f"{title}s/") for name in texts(where, frame, title, first)]


def _distribution(
    where: str, frame: pd.DataFrame, first: int, models: tuple[str, ...], chosen_n: Indices, propensity_n: Array
) -> tuple[Array | None, Flags]:
    """The whole distribution (n, k) if the table has it: rows sum to 1, and agree with the propensity; and who was eligible."""
    if not any(f"p/{model}" in frame.columns for model in models):
        return None, np.ones((len(frame), len(models)), dtype=np.bool_)
    stated_nk = np.full((len(frame), len(models)), np.nan)
    for i, model in enumerate(models):
        if f"p/{model}" in frame.columns:
            stated_nk[:, i] = numbers(where, frame, f"p/{model}", first, 0.0, 1.0, needed=False)
    eligible_nk, logged_nk = ~np.isnan(stated_nk), np.nan_to_num(stated_nk)
    if "eligible" in frame.columns:
        count_n = numbers(where, frame, "eligible", first, 0.0, needed=False)
        eligible_nk &= (logged_nk > 0.0) | (count_n != (logged_nk > 0.0).sum(axis=1))[:, None]
    difference_n = np.abs(logged_nk.sum(axis=1) - 1.0)
    if float(difference_n.max()) > SUM_TOLERANCE:
        i = int(difference_n.argmax())
        raise FrameError(
            f"{where}: row {first + i + 1}, columns p/…: expected probabilities that sum to 1, got {logged_nk[i].sum():g}"
        )
    stated_n = logged_nk[np.arange(len(frame)), chosen_n]
    difference_n = np.abs(stated_n - propensity_n)
    if float(difference_n.max()) > SUM_TOLERANCE:
        i = int(difference_n.argmax())
        raise FrameError(
            f"{where}: row {first + i + 1}, column propensity: expected {stated_n[i]:g} as in column p/{models[chosen_n[i]]}, "
            f"got {propensity_n[i]:g}"
        )
    return logged_nk, eligible_nk


def _times(where: str, frame: pd.DataFrame, first: int) -> Ints:
    """Nanoseconds (n); the numbers of the rows without a column of times."""
    if "time_ns" in frame.columns:
        title, time_ns_n = "time_ns", numbers(where, frame, "time_ns", first, 0.0, _LAST_NS).astype(np.int64)
    elif "time" in frame.columns:
        title = "time"
        parsed = pd.to_datetime(frame["time"], errors="coerce", utc=True, format="ISO8601")
        bad_n = parsed.isna().to_numpy()
        if bad_n.any():
            i = int(bad_n.argmax())
            raise FrameError(
                f"{where}: row {first + i + 1}, column time: expected ISO 8601 such as 2026-01-31T12:00:00Z, "
                f"got {frame['time'].iloc[i]!r}"
            )
        time_ns_n = np.asarray(parsed.dt.as_unit("ns").astype(np.int64), dtype=np.int64)
    else:
        return np.arange(first, first + len(frame), dtype=np.int64)
    falls_n = np.diff(time_ns_n) < 0
    if falls_n.any():
        i = int(falls_n.argmax()) + 1
        raise FrameError(f"{where}: row {first + i + 1}, column {title}: expected no time before that of the row above")
    return np.asarray(time_ns_n)
