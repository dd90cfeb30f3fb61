"""Seconds per million logged rows of off-policy estimators, beside the Open Bandit Pipeline's on the same arrays.

    python benchmarks/simulator/estimators.py [--rows 1000000] [--json FILE]

k = 8, the same propensities, rewards and predictions; estimates have to agree to 1e-10. obp checks arrays in every estimator, we
check all of them once before any: both are shown without the checks and with them, and the last row, all of them on one log,
counts our check once. All take turns, and a ratio is the median of those of each turn. Without `obp`
(`pip install --no-deps obp==0.4.1`) only ours are timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import kit  # sets the number of threads before numpy is loaded
import numpy as np
from rich.console import Console
from rich.table import Table

from pointsman.simulator.offpolicy.estimators import scores as est
from pointsman.simulator.offpolicy.logs.log import Array, Indices

K, TUNED = 8, 10.0
NAMES = ("ips", "snips", "dm", "dr", "sndr", "switch-dr", "dros")


@dataclass(frozen=True, slots=True, eq=False)
class LoggedRounds:
    """A log, the candidate's probabilities, and a reward model's predictions."""

    reward_n: Array
    chosen_n: Indices
    propensity_n: Array
    target_nk: Array
    q_nk: Array


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    log = make_log(arguments.rows)
    module = kit.import_obp("obp.ope.estimators")
    if module is None:
        print("obp is not installed: left out")
    kinds = {"ours": _ours(log), "ours checked": _ours_checked(log)}
    kinds |= {} if module is None else _theirs(module, log)
    titles = (
        "estimator",
        "ours",
        "obp",
        "faster by",
        "ours checked",
        "obp checked",
        "faster by",
        "estimates differ by",
    )
    sheet = Table(
        title=f"seconds per million rows, k = {K}, {arguments.rows:,} rows, median of {kit.REPEATS}, one thread"
    )
    for title in titles:
        sheet.add_column(title, justify="left" if title == "estimator" else "right")
    figures: dict[str, dict[str, float]] = {}
    totals: dict[str, list[float]] = {kind: [0.0] * kit.REPEATS for kind in kinds}
    for name in NAMES:
        estimates = {kind: actions[name]() for kind, actions in kinds.items()}
        difference = max(abs(estimate - estimates["ours"]) for estimate in estimates.values())
        assert difference < 1e-10, f"{name}: estimates differ by {difference}"
        taken = kit.seconds_in_turn({kind: actions[name] for kind, actions in kinds.items()})
        # of ours the check is added below, once
        for kind, seconds in taken.items():
            added = taken["ours"] if kind == "ours checked" else seconds
            totals[kind] = [a + b for a, b in zip(totals[kind], added, strict=True)]
        figures[name] = _medians(taken, arguments.rows)
        sheet.add_row(name, *_cells(taken, figures[name]), "" if module is None else f"{difference:.1e}")
    check = kit.seconds_in_turn({"check": lambda: _check(log)})["check"]
    totals["ours checked"] = [a + b for a, b in zip(totals["ours checked"], check, strict=True)]
    figures["all"] = _medians(totals, arguments.rows)
    sheet.add_row("all of them", *_cells(totals, figures["all"]))
    Console(width=110).print(sheet)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def make_log(n: int) -> LoggedRounds:
    """A log of ``n`` rounds with propensities of at least .2/k, and a candidate unlike the policy that was logged."""
    rng = np.random.default_rng(0)
    logged_nk = rng.dirichlet(np.ones(K), size=n) * 0.8 + 0.2 / K
    chosen_n = (rng.random(n)[:, None] > np.cumsum(logged_nk, axis=1)[:, :-1]).sum(axis=1)
    target_nk, q_nk, reward_n = rng.dirichlet(np.ones(K), size=n), rng.random((n, K)), rng.random(n)
    return LoggedRounds(reward_n, chosen_n, logged_nk[np.arange(n), chosen_n], target_nk, q_nk)


def _medians(taken: Mapping[str, list[float]], rows: int) -> dict[str, float]:
    """Seconds per million rows."""
    return {kind: statistics.median(seconds) * 1e6 / rows for kind, seconds in taken.items()}


def _cells(taken: Mapping[str, list[float]], medians: Mapping[str, float]) -> list[str]:
    cells = []
    for ours, theirs in (("ours", "obp"), ("ours checked", "obp checked")):
        cells += [f"{medians[kind]:.3f}" if kind in medians else "" for kind in (ours, theirs)]
        cells.append(_ratio(taken, ours, theirs))
    return cells


def _ratio(taken: Mapping[str, list[float]], ours: str, theirs: str) -> str:
    if theirs not in taken:
        return ""
    return f"{statistics.median(b / a for a, b in zip(taken[ours], taken[theirs], strict=True)):.1f}"


def _check(log: LoggedRounds) -> None:
    weight_n = est.weights(log.target_nk, log.chosen_n, log.propensity_n)
    est.check(log.reward_n, weight_n, log.q_nk, log.target_nk, log.chosen_n)


def _ours(log: LoggedRounds) -> dict[str, Callable[[], float]]:
    """From the log to the estimate, weights included."""

    def weights() -> Array:
        return est.weights(log.target_nk, log.chosen_n, log.propensity_n)

    reward_n, doubly = log.reward_n, (log.q_nk, log.target_nk, log.chosen_n)
    return {
        "ips": lambda: est.ips(reward_n, weights()).estimate,
        "snips": lambda: est.snips(reward_n, weights()).estimate,
        "dm": lambda: est.dm(log.q_nk, log.target_nk).estimate,
        "dr": lambda: est.dr(reward_n, weights(), *doubly).estimate,
        "sndr": lambda: est.sndr(reward_n, weights(), *doubly).estimate,
        "switch-dr": lambda: est.switch_dr(reward_n, weights(), *doubly, TUNED).estimate,
        "dros": lambda: est.dros(reward_n, weights(), *doubly, TUNED).estimate,
    }


def _ours_checked(log: LoggedRounds) -> dict[str, Callable[[], float]]:
    """The same after a check of all arrays: what one estimator alone takes."""

    def checked(action: Callable[[], float]) -> float:
        _check(log)
        return action()

    return {name: partial(checked, action) for name, action in _ours(log).items()}


def _theirs(module: Any, log: LoggedRounds) -> dict[str, dict[str, Callable[[], float]]]:
    """obp's estimates without its checks, and as it gives them."""
    arrays = {
        "reward": log.reward_n,
        "action": log.chosen_n,
        "pscore": log.propensity_n,
        "action_dist": log.target_nk[:, :, None],
        "position": np.zeros(len(log.reward_n), dtype=int),
        "estimated_rewards_by_reg_model": log.q_nk[:, :, None],
    }
    estimators = {
        "ips": module.InverseProbabilityWeighting(),
        "snips": module.SelfNormalizedInverseProbabilityWeighting(),
        "dm": module.DirectMethod(),
        "dr": module.DoublyRobust(),
        "sndr": module.SelfNormalizedDoublyRobust(),
        "switch-dr": module.SwitchDoublyRobust(tau=TUNED),
        "dros": module.DoublyRobustWithShrinkage(lambda_=TUNED),
    }

    def plain(estimator: Any) -> float:
        return float(np.mean(estimator._estimate_round_rewards(**arrays)))

    return {
        "obp": {name: partial(plain, estimator) for name, estimator in estimators.items()},
        "obp checked": {
            name: partial(estimator.estimate_policy_value, **arrays) for name, estimator in estimators.items()
        },
    }


if __name__ == "__main__":
    main()
