"""The Open Bandit Dataset (Saito, Aihara, Matsutani and Narita, NeurIPS 2021 datasets track), as published and as in ``obp``.

A folder has ``POLICY/CAMPAIGN/CAMPAIGN.csv``: what was shown (``item_id``) in which ``position`` with which
``propensity_score``, to which user, and whether it was clicked. Items are the models here, positions the groups, and ``click``
the signal. Context is the users' features one-hot, each without its first value, as in the package's own preprocessing.

>>> read_obd("obd:data:random/pets")
Traceback (most recent call last):
    ...
pointsman.simulator.offpolicy.logs.log.LogError: obd:data:random/pets: expected obd:FOLDER:POLICY/CAMPAIGN with a policy of \
random, bts and a campaign of all, men, women
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd

from pointsman.simulator.data.frames import FrameError, frames, numbers, texts
from pointsman.simulator.offpolicy.logs.log import Array, Ints, Log, LogError

POLICIES = ("random", "bts")
"""Logging policies of the dataset: an even draw, and Bernoulli Thompson sampling."""
CAMPAIGNS = ("all", "men", "women")
"""Campaigns of the dataset."""
_COLUMNS = ("timestamp", "item_id", "position", "click", "propensity_score")


def read_obd(spec: str) -> Log:
    """The log ``obp:POLICY/CAMPAIGN`` (the sample in the installed package ``obp``) or ``obd:FOLDER:POLICY/CAMPAIGN``.

    Raises ``LogError``.
    """
    source, _, rest = spec.partition(":")
    folder, _, name = rest.rpartition(":") if source == "obd" else ("", "", rest)
    policy, _, campaign = name.partition("/")
    if policy not in POLICIES or campaign not in CAMPAIGNS or (source == "obd" and not folder):
        form = "obp:POLICY/CAMPAIGN" if source == "obp" else "obd:FOLDER:POLICY/CAMPAIGN"
        raise LogError(
            f"{spec}: expected {form} with a policy of {', '.join(POLICIES)} and a campaign of {', '.join(CAMPAIGNS)}"
        )
    root = Path(folder) if source == "obd" else _sample_folder(spec)
    path = root / policy / campaign / f"{campaign}.csv"
    try:
        frame = next(frames(path))
        return _log(spec, path, frame, policy == "random")
    except FrameError as error:
        raise LogError(str(error)) from None


def _sample_folder(spec: str) -> Path:
    """Where the package keeps its sample, without importing it. Raises ``LogError`` if it is not installed."""
    package = importlib.util.find_spec("obp")
    if package is None or not package.submodule_search_locations:
        raise LogError(f"{spec}: needs the package obp: pip install --no-deps obp==0.4.1")
    return Path(package.submodule_search_locations[0], "dataset", "obd")


def _log(name: str, path: Path, frame: pd.DataFrame, even: bool) -> Log:
    """``frame`` in the order of time. ``even``: it was logged by the even draw, whose whole distribution is known."""
    _check_columns(path, frame)
    where = str(path)
    item_n = numbers(where, frame, "item_id", 0, 0.0, 1e6).astype(np.intp)
    position_n = numbers(where, frame, "position", 0)
    click_n = numbers(where, frame, "click", 0, 0.0, 1.0, needed=False)
    propensity_n = numbers(where, frame, "propensity_score", 0, high=1.0, above=0.0)
    time_ns_n = _times(path, frame)
    order_n = np.argsort(time_ns_n, kind="stable")
    n, k = len(frame), int(item_n.max()) + 1
    positions, group_n = np.unique(position_n, return_inverse=True)
    is_even = even and bool(np.allclose(propensity_n, 1.0 / k, atol=1e-9))
    return Log(
        name=name,
        models=tuple(f"item-{i}" for i in range(k)),
        groups=tuple(f"position-{position:g}" for position in positions),
        chosen_n=item_n[order_n],
        propensity_n=propensity_n[order_n],
        logged_nk=np.full((n, k), 1.0 / k) if is_even else None,
        eligible_nk=np.ones((n, k), dtype=np.bool_),
        signals={"click": click_n[order_n]},
        x_nd=_user_features(where, frame)[order_n],
        group_n=group_n[order_n].astype(np.intp),
        time_ns_n=time_ns_n[order_n],
        ranges={"click": (0.0, 1.0)},
    )


def _check_columns(path: Path, frame: pd.DataFrame) -> None:
    for title in _COLUMNS:
        if title not in frame.columns:
            raise FrameError(f"{path}: has no column {title}; columns are {', '.join(map(str, frame.columns[:12]))}")
    if not len(frame):
        raise FrameError(f"{path}: expected at least one row, got none")


def _times(path: Path, frame: pd.DataFrame) -> Ints:
    """Nanoseconds (n)."""
    time_n = pd.to_datetime(frame["timestamp"], errors="coerce", utc=True, format="ISO8601")
    if time_n.isna().any():
        i = int(time_n.isna().to_numpy().argmax())
        raise FrameError(f"{path}: row {i + 1}, column timestamp: expected a time, got {frame['timestamp'].iloc[i]!r}")
    return np.asarray(time_n.dt.as_unit("ns").astype(np.int64), dtype=np.int64)


def _user_features(where: str, frame: pd.DataFrame) -> Array:
    """The users' features one-hot, (n, d), each without its first value."""
    columns = [texts(where, frame, str(title), 0) for title in frame.columns if "user_feature" in str(title)]
    encoded = [pd.get_dummies(pd.Series(values), drop_first=True).to_numpy(dtype=np.float64) for values in columns]
    return np.hstack(encoded) if encoded else np.zeros((len(frame), 0))
