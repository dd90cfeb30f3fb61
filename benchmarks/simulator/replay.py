"""Rounds per second of a replay of linear Thompson sampling, d = 32, k = 8, beside two simulators of others.

    python benchmarks/simulator/replay.py [--rounds 5000] [--json FILE]

One thread; from the arrays to the choices, for all of them. Ours is the very policy that serves, with what it does in service:
exploration, change detection, forgetting; only propensities are left out, which a replay does not log. It draws each model's
reward, one number, where the others draw the d coefficients behind it: the choices have the same distribution.

MABWiser (`pip install mabwiser`) replays logged decisions. Its `Simulator` learns after every round with `batch_size=1`, and what
it learns then is the logged decision; it also measures every batch, which is most of its time at that size. The row with larger
batches is another job, a policy that learns more rarely. The Open Bandit Pipeline (`pip install --no-deps obp==0.4.1`) replays
a log with `run_bandit_simulation`, and learns only where its choice is the logged one: an eighth of the rounds, as an even draw
made the log. Both bare policies, without a simulator around them, are told every round what came of their own choice.

All take turns, and a ratio is the median of those of each turn. Ratios to obp grow with the number of rounds: its draws factorise
every model's covariance, which is quick while most are still the identity.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kit  # sets the number of threads before numpy is loaded
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.policies.registry import parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.run.replay import play_online, rounds_of
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.utility import parse_objective
from pointsman.simulator.world.world import UNIT, make_world

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

D, K = 32, 8
BAR = 5.0
BATCH = 100
OURS, MABWISER, OBP = "pointsman, full information", "MABWiser Simulator, LinTS", "obp run_bandit_simulation, LinTS"
SIMULATORS = (MABWISER, OBP)
"""Those that the bar is measured against."""


@dataclass(frozen=True, slots=True, eq=False)
class Log:
    """What an even draw chose, ``action_n``, and got, ``reward_n``; and what every choice would have got."""

    x_nd: Array
    action_n: Indices
    reward_n: Array
    quality_nk: Array


def make_table(n: int, seed: int = 0) -> OutcomeTable:
    """Graded qualities, linear in d - 1 features (and an intercept) but for noise and clipping."""
    rng = np.random.default_rng(seed)
    x_nd = rng.standard_normal((n, D - 1))
    weight_kd = rng.standard_normal((K, D - 1)) / np.sqrt(D)
    quality_nk = np.clip(0.5 + 0.2 * x_nd @ weight_kd.T + 0.1 * rng.standard_normal((n, K)), 0.0, 1.0)
    nothing_nk = np.full((n, K), np.nan)
    return OutcomeTable(
        name="made",
        sha256="",
        models=tuple(f"m{k}" for k in range(K)),
        prompt_ids=tuple(map(str, range(n))),
        tasks=("t",) * n,
        texts=None,
        x_nd=x_nd,
        input_tokens_n=np.full(n, -1),
        quality_nk=quality_nk,
        cost_nk=nothing_nk,
        latency_nk=nothing_nk.copy(),
        output_tokens_nk=nothing_nk.copy(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    n = arguments.rounds
    table = make_table(n)
    action_n = np.random.default_rng(1).integers(0, K, n)
    assert table.x_nd is not None
    log = Log(
        np.hstack([table.x_nd, np.ones((n, 1))]), action_n, table.quality_nk[np.arange(n), action_n], table.quality_nk
    )
    actions = {OURS: lambda: _ours(table), **_mabwiser(log), **_obp(log)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MABWiser's, of every batch of one that it has one class
        taken = kit.seconds_in_turn(actions)
    rates = {name: n / statistics.median(seconds) for name, seconds in taken.items()}
    ratios = {
        name: statistics.median(other / ours for other, ours in zip(seconds, taken[OURS], strict=True))
        for name, seconds in taken.items()
    }
    sheet = Table(title=f"rounds per second, d = {D}, k = {K}, {n} rounds, median of {kit.REPEATS}, one thread")
    for title in ("what", "rounds/s", "ours is faster by"):
        sheet.add_column(title, justify="left" if title == "what" else "right")
    for name, rate in rates.items():
        sheet.add_row(name, f"{rate:,.0f}", "" if name == OURS else f"{ratios[name]:.1f}")
    console = Console(width=110)
    console.print(sheet)
    simulators = [ratios[name] for name in SIMULATORS if name in ratios]
    if simulators:
        ratio = min(simulators)
        console.print(f"{ratio:.1f} × the faster simulator (bar {BAR:g}): {'met' if ratio >= BAR else 'MISSED'}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rates, indent=1) + "\n")


def _ours(table: OutcomeTable) -> None:
    run = Run(parse_policy("thompson"), parse_objective("QUALITY_FIRST", UNIT), None, 0)
    world = make_world(table, Features("x", "one"))
    play_online(world, run, rounds_of(world, run))


def _mabwiser(log: Log) -> dict[str, Callable[[], None]]:
    simulator = kit.import_mabwiser_simulator()
    if simulator is None:
        print("mabwiser is not installed: left out")
        return {}
    module = importlib.import_module("mabwiser.mab")
    n, warm, arms = len(log.x_nd), K * 4, list(range(K))  # it has to be fitted once before it predicts

    def made_new() -> Any:
        return module.MAB(arms, module.LearningPolicy.LinTS(alpha=0.1), seed=0)

    def simulate(batch_size: int) -> None:
        run = simulator.Simulator(
            [("lints", made_new())],
            log.action_n,
            log.reward_n,
            log.x_nd,
            test_size=(n - warm) / n,
            is_ordered=True,
            batch_size=batch_size,
            is_quick=True,
            seed=0,
        )
        run.run()

    def bare() -> None:
        mab = made_new()
        mab.fit(log.action_n[:warm], log.reward_n[:warm], log.x_nd[:warm])
        for t in range(warm, n):
            choice = mab.predict(log.x_nd[t : t + 1])
            mab.partial_fit([choice], [log.quality_nk[t, choice]], log.x_nd[t : t + 1])

    return {
        MABWISER: lambda: simulate(1),
        f"the same in batches of {BATCH}, learning after each": lambda: simulate(BATCH),
        "MABWiser MAB alone, LinTS": bare,
    }


def _obp(log: Log) -> dict[str, Callable[[], None]]:
    simulator = kit.import_obp("obp.simulator.simulator")
    if simulator is None:
        print("obp is not installed: left out")
        return {}
    simulator.tqdm = lambda rounds, **_: rounds  # no time for its progress bar
    linear = kit.import_obp("obp.policy.linear")
    n, d = log.x_nd.shape
    feedback = {
        "n_rounds": n,
        "n_actions": K,
        "action": log.action_n,
        "position": np.zeros(n, dtype=int),
        "reward": log.reward_n,
        "pscore": np.full(n, 1.0 / K),
        "context": log.x_nd,
    }

    def simulate() -> None:
        policy = linear.LinTS(dim=d, n_actions=K, random_state=0)
        simulator.run_bandit_simulation(bandit_feedback=feedback, policy=policy)

    def bare() -> None:
        policy = linear.LinTS(dim=d, n_actions=K, random_state=0)
        for t in range(n):
            x_1d = log.x_nd[t : t + 1]
            choice = int(policy.select_action(x_1d)[0])
            policy.update_params(action=choice, reward=log.quality_nk[t, choice], context=x_1d)

    return {OBP: simulate, "obp LinTS alone": bare}


if __name__ == "__main__":
    main()
