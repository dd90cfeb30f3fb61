"""What the simulator's benchmarks share: one BLAS thread, medians, and peers imported without what they do not need here."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import statistics
import sys
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

REPEATS = 5


def median_seconds(action: Callable[[], object], repeats: int = REPEATS) -> float:
    """Of one call, over ``repeats``."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def seconds_in_turn(actions: Mapping[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, list[float]]:
    """Of every call, by name and repeat. All take turns, so that what else the machine does meets them alike."""
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            taken[name].append(time.perf_counter() - start)
    return taken


def import_obp(module: str) -> Any:
    """A module of the Open Bandit Pipeline, ``None`` where it is not installed.

    Its packages import torch, seaborn and more for policies and pictures that are not measured; where they are missing, empty
    stand-ins take their places.
    """
    if "obp" in sys.modules:
        return importlib.import_module(module)
    root = importlib.util.find_spec("obp")
    if root is None or not root.submodule_search_locations:
        return None
    folder = Path(root.submodule_search_locations[0])
    _stand_in("torch", "torch.nn", "torch.nn.functional", "torch.optim", "torch.utils", "torch.utils.data", "seaborn",
              "matplotlib", "matplotlib.pyplot", "tqdm")  # fmt: skip
    for package in ("obp.ope", "obp.policy", "obp.simulator", "obp"):
        inner = types.ModuleType(package)  # without its __init__, which imports all of it
        inner.__path__ = [str(folder.joinpath(*package.split(".")[1:]))]
        sys.modules.setdefault(package, inner)
    if module != "obp.ope.estimators":
        base = importlib.import_module("obp.policy.base")
        vars(sys.modules["obp.policy"]).update({name: value for name, value in vars(base).items() if name[0] != "_"})
    return importlib.import_module(module)


def _stand_in(*names: str) -> None:
    """Empty modules for those that are not installed."""
    for name in names:
        top = sys.modules.get(name.partition(".")[0])
        if isinstance(top, _StandIn) or (top is None and importlib.util.find_spec(name.partition(".")[0]) is None):
            sys.modules.setdefault(name, _StandIn(name))


class _StandIn(types.ModuleType):
    """A module whose every attribute is an empty class, or for tqdm what it is given."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "tqdm":
            return lambda items, **_: items
        return type(name, (), {})


def import_mabwiser_simulator() -> Any:
    """MABWiser's simulator, ``None`` where it is not installed; it draws pictures when asked, never here."""
    if importlib.util.find_spec("mabwiser") is None:
        return None
    _stand_in("seaborn", "matplotlib", "matplotlib.pyplot")
    logging.disable(logging.INFO)  # it says a page for every round
    return importlib.import_module("mabwiser.simulator")
