"""Seconds per million logged rows of off-policy estimators, beside the Open Bandit Pipeline's on the same arrays.

    python benchmarks/simulator/estimators.py [--rows 1000000] [--json FILE]

k = 8, the same propensities, rewards and predictions; estimates have to agree to 1e-10. Without `obp`
(`pip install --no-deps obp==0.4.1`) only ours are timed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kit  # sets the number of threads before numpy is loaded
import numpy as np
from rich.console import Console
from rich.table import Table

from simulator.offpolicy import estimators as est

K = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    n = arguments.rows
    rng = np.random.default_rng(0)
    logged_nk = rng.dirichlet(np.ones(K), size=n) * 0.8 + 0.2 / K
    chosen_n = (rng.random(n)[:, None] > np.cumsum(logged_nk, axis=1)[:, :-1]).sum(axis=1)
    propensity_n = logged_nk[np.arange(n), chosen_n]
    target_nk, q_nk, reward_n = rng.dirichlet(np.ones(K), size=n), rng.random((n, K)), rng.random(n)
    ours, theirs = _ours(reward_n, chosen_n, propensity_n, target_nk, q_nk), {}
    module = kit.import_obp("obp.ope.estimators")
    if module is None:
        print("obp is not installed: left out")
    else:
        theirs = _theirs(module, reward_n, chosen_n, propensity_n, target_nk, q_nk)
    sheet = Table(title=f"seconds per million rows, k = {K}, {n:,} rows, median of {kit.REPEATS}, one thread")
    for title in ("estimator", "ours", "obp", "ours is faster by", "difference of estimates"):
        sheet.add_column(title, justify="left" if title == "estimator" else "right")
    figures = {}
    for name, action in ours.items():
        seconds, other = kit.median_seconds(action) * 1e6 / n, None
        cells = ["", "", ""]
        if name in theirs:
            other = kit.median_seconds(theirs[name]) * 1e6 / n
            off = abs(action().estimate - theirs[name]())
            assert off < 1e-10, f"{name}: estimates differ by {off}"
            cells = [f"{other:.3f}", f"{other / seconds:.1f}", f"{off:.1e}"]
        sheet.add_row(name, f"{seconds:.3f}", *cells)
        figures[name] = {"ours": seconds, "obp": other}
    Console(width=110).print(sheet)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def _ours(reward_n: Any, chosen_n: Any, propensity_n: Any, target_nk: Any, q_nk: Any) -> dict[str, Callable[[], Any]]:
    """From the log to the estimate, weights included."""

    def weights() -> Any:
        return est.weights(target_nk, chosen_n, propensity_n)

    doubly = (q_nk, target_nk, chosen_n)
    return {
        "ips": lambda: est.ips(reward_n, weights()),
        "snips": lambda: est.snips(reward_n, weights()),
        "dm": lambda: est.dm(q_nk, target_nk),
        "dr": lambda: est.dr(reward_n, weights(), *doubly),
        "sndr": lambda: est.sndr(reward_n, weights(), *doubly),
        "switch-dr": lambda: est.switch_dr(reward_n, weights(), *doubly, 10.0),
        "dros": lambda: est.dros(reward_n, weights(), *doubly, 10.0),
    }


def _theirs(
    module: Any, reward_n: Any, chosen_n: Any, propensity_n: Any, target_nk: Any, q_nk: Any
) -> dict[str, Callable[[], Any]]:
    given = {
        "reward": reward_n,
        "action": chosen_n,
        "pscore": propensity_n,
        "action_dist": target_nk[:, :, None],
        "position": np.zeros(len(reward_n), dtype=int),
        "estimated_rewards_by_reg_model": q_nk[:, :, None],
    }
    made = {
        "ips": module.InverseProbabilityWeighting(),
        "snips": module.SelfNormalizedInverseProbabilityWeighting(),
        "dm": module.DirectMethod(),
        "dr": module.DoublyRobust(),
        "sndr": module.SelfNormalizedDoublyRobust(),
        "switch-dr": module.SwitchDoublyRobust(tau=10.0),
        "dros": module.DoublyRobustWithShrinkage(lambda_=10.0),
    }
    return {name: lambda one=one: one.estimate_policy_value(**given) for name, one in made.items()}  # type: ignore[misc]


if __name__ == "__main__":
    main()
