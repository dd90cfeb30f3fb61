"""The Open Bandit Dataset (Saito, Aihara, Matsutani and Narita, NeurIPS 2021 datasets track), as published and as in ``obp``.

A folder has ``POLICY/CAMPAIGN/CAMPAIGN.csv``: what was shown (``item_id``) in which ``position`` with which
``propensity_score``, to which user, and whether it was clicked. Items are the models here, positions the groups, and ``click``
the signal. Context is the users' features one-hot, each without its first value, as in the package's own preprocessing.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd

from pointsman.simulator.data.frames import FrameError, frames, numbers, texts
from pointsman.simulator.offpolicy.logs.log import Log, LogError

POLICIES, CAMPAIGNS = ("random", "bts"), ("all", "men", "women")


def read_obd(spec: str) -> Log:
    """``obp:POLICY/CAMPAIGN`` (the sample in the installed package ``obp``) or ``obd:FOLDER:POLICY/CAMPAIGN``.

    Raises ``LogError``.
    """
    source, _, rest = spec.partition(":")
    folder, _, which = rest.rpartition(":") if source == "obd" else ("", "", rest)
    policy, _, campaign = which.partition("/")
    if policy not in POLICIES or campaign not in CAMPAIGNS or (source == "obd" and not folder):
        form = "obp:POLICY/CAMPAIGN" if source == "obp" else "obd:FOLDER:POLICY/CAMPAIGN"
        raise LogError(
            f"{spec}: expected {form} with a policy of {', '.join(POLICIES)} and a campaign of {', '.join(CAMPAIGNS)}"
        )
    root = Path(folder) if source == "obd" else _sample(spec)
    path = root / policy / campaign / f"{campaign}.csv"
    try:
        frame = next(frames(path))
        return _log(spec, path, frame, policy == "random")
    except FrameError as error:
        raise LogError(str(error)) from None


def _sample(spec: str) -> Path:
    """Where the package keeps its sample, found without importing it."""
    found = importlib.util.find_spec("obp")
    if found is None or not found.submodule_search_locations:
        raise LogError(f"{spec}: needs the package obp: pip install --no-deps obp==0.4.1")
    return Path(found.submodule_search_locations[0], "dataset", "obd")


def _log(name: str, path: Path, frame: pd.DataFrame, even: bool) -> Log:
    for title in ("timestamp", "item_id", "position", "click", "propensity_score"):
        if title not in frame.columns:
            raise FrameError(f"{path}: has no column {title}; columns are {', '.join(map(str, frame.columns[:12]))}")
    if not len(frame):
        raise FrameError(f"{path}: expected at least one row, got none")
    where = str(path)
    time = pd.to_datetime(frame["timestamp"], errors="coerce", utc=True, format="ISO8601")
    if time.isna().any():
        i = int(time.isna().to_numpy().argmax())
        raise FrameError(f"{path}: row {i + 1}, column timestamp: expected a time, got {frame['timestamp'].iloc[i]!r}")
    item_n = numbers(where, frame, "item_id", 0, 0.0, 1e6).astype(np.intp)
    position_n = numbers(where, frame, "position", 0)
    click_n = numbers(where, frame, "click", 0, 0.0, 1.0, needed=False)
    propensity_n = numbers(where, frame, "propensity_score", 0, high=1.0, above=0.0)
    users = [texts(where, frame, str(title), 0) for title in frame.columns if "user_feature" in str(title)]
    encoded = [pd.get_dummies(pd.Series(values), drop_first=True).to_numpy(dtype=np.float64) for values in users]
    time_ns_n = np.asarray(time.dt.as_unit("ns").astype(np.int64), dtype=np.int64)
    order_n = np.argsort(time_ns_n, kind="stable")
    n, k = len(frame), int(item_n.max()) + 1
    positions, group_n = np.unique(position_n, return_inverse=True)
    # The even policy's whole distribution is known: all items alike.
    whole = even and bool(np.allclose(propensity_n, 1.0 / k, atol=1e-9))
    return Log(
        name=name,
        models=tuple(f"item-{i}" for i in range(k)),
        groups=tuple(f"position-{position:g}" for position in positions),
        chosen_n=item_n[order_n],
        propensity_n=propensity_n[order_n],
        logged_nk=np.full((n, k), 1.0 / k) if whole else None,
        eligible_nk=np.ones((n, k), dtype=np.bool_),
        signals={"click": click_n[order_n]},
        x_nd=(np.hstack(encoded) if encoded else np.zeros((n, 0)))[order_n],
        group_n=group_n[order_n].astype(np.intp),
        time_ns_n=time_ns_n[order_n],
    )
