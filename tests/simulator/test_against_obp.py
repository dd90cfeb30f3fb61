"""The Open Bandit Pipeline's estimators, on the real data it carries, agree with ours to 1e-10.

obp imports torch, which its estimators need for tensors alone; where torch is missing an empty stand-in takes its place.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pointsman.simulator.offpolicy.estimators import scores as est

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("obp") is None,
    reason="the package obp is not installed (pip install --no-deps obp==0.4.1)",
)


@pytest.fixture(scope="module")
def theirs() -> Any:
    """``obp.ope.estimators``."""
    before = dict(sys.modules)
    named = ("torch", "seaborn", "matplotlib", "matplotlib.pyplot")
    for missing in [name for name in named if importlib.util.find_spec(name.partition(".")[0]) is None]:
        stand_in = types.ModuleType(missing)
        stand_in.Tensor = type("Tensor", (), {})  # type: ignore[attr-defined]
        sys.modules[missing] = stand_in
    package = types.ModuleType("obp.ope")  # without its __init__, which imports all that needs more packages
    root = importlib.util.find_spec("obp")
    assert root is not None and root.submodule_search_locations
    package.__path__ = [str(Path(root.submodule_search_locations[0]) / "ope")]
    sys.modules["obp.ope"] = package
    yield importlib.import_module("obp.ope.estimators")
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


@pytest.mark.parametrize("campaign", ["all", "men", "women"])
@pytest.mark.parametrize("policy", ["random", "bts"])
def test_estimates_agree_on_the_open_bandit_data(theirs: Any, policy: str, campaign: str) -> None:
    root = importlib.util.find_spec("obp")
    assert root is not None and root.submodule_search_locations
    file = Path(root.submodule_search_locations[0]) / "dataset" / "obd" / policy / campaign / f"{campaign}.csv"
    data = pd.read_csv(file, index_col=0).sort_values("timestamp")
    chosen_n, reward_n = data["item_id"].to_numpy(), data["click"].to_numpy().astype(float)
    pscore_n, n, k = data["propensity_score"].to_numpy(), len(data), int(data["item_id"].max()) + 1
    rng = np.random.default_rng(1)
    target_nk, q_nk = rng.dirichlet(np.ones(k), size=n), 0.01 * rng.random((n, k))
    weight_n = est.weights(target_nk, chosen_n, pscore_n)
    arguments = {
        "reward": reward_n,
        "action": chosen_n,
        "pscore": pscore_n,
        "action_dist": target_nk[:, :, None],
        "estimated_rewards_by_reg_model": q_nk[:, :, None],
        "position": np.zeros(n, dtype=int),
    }
    doubly = (reward_n, weight_n, q_nk, target_nk, chosen_n)
    pairs = [
        (est.ips(reward_n, weight_n), theirs.InverseProbabilityWeighting()),
        (est.snips(reward_n, weight_n), theirs.SelfNormalizedInverseProbabilityWeighting()),
        (est.dm(q_nk, target_nk), theirs.DirectMethod()),
        (est.dr(*doubly), theirs.DoublyRobust()),
        (est.sndr(*doubly), theirs.SelfNormalizedDoublyRobust()),
        *((est.switch_dr(*doubly, tau), theirs.SwitchDoublyRobust(tau=tau)) for tau in (0.5, 1.0, 5.0)),
        *((est.dros(*doubly, lam), theirs.DoublyRobustWithShrinkage(lambda_=lam)) for lam in (0.5, 5.0, 500.0)),
    ]
    assert n > 9000
    for ours, their in pairs:
        assert ours.estimate == pytest.approx(their.estimate_policy_value(**arguments), abs=1e-10), ours.name
