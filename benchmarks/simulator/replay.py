"""Rounds per second of a replay of linear Thompson sampling, d = 32, k = 8, beside two simulators of others.

    python benchmarks/simulator/replay.py [--rounds 3000] [--json FILE]

Every policy learns after every round, in one thread. Ours is the very policy that serves, with what it does in service:
exploration, change detection, forgetting; only propensities are left out, which a replay does not log. MABWiser
(`pip install mabwiser`) replays logged decisions with LinTS and batches of one round, which is how its `Simulator` learns
online; the bare `MAB`, predicted and fitted round by round without a simulator around it, is shown too. The Open Bandit
Pipeline (`pip install --no-deps obp==0.4.1`) replays a log with `run_bandit_simulation` and `LinTS`. Logs for both were made by
an even draw; obp learns only where its choice matches.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import kit  # sets the number of threads before numpy is loaded
import numpy as np
from rich.console import Console
from rich.table import Table

from simulator.replay import play_online
from simulator.table import OutcomeTable
from simulator.utility import parse_objective
from simulator.world import UNIT, Features, Run, make_world, rounds_of

D, K = 32, 8
BAR = 5.0


def made(n: int, seed: int = 0) -> OutcomeTable:
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
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    n = arguments.rounds
    table = made(n)
    rates = {"pointsman, full information": n / _ours(table)}
    rng = np.random.default_rng(1)
    action_n = rng.integers(0, K, n)
    assert table.x_nd is not None
    x_nd, reward_n = np.hstack([table.x_nd, np.ones((n, 1))]), table.quality_nk[np.arange(n), action_n]
    rates |= _mabwiser(x_nd, action_n, reward_n, table.quality_nk)
    rates |= _obp(x_nd, action_n, reward_n)
    ours = rates["pointsman, full information"]
    sheet = Table(title=f"rounds per second, d = {D}, k = {K}, {n} rounds, median of {kit.REPEATS}, one thread")
    for title in ("what", "rounds/s", "ours is faster by"):
        sheet.add_column(title, justify="left" if title == "what" else "right")
    for name, rate in rates.items():
        sheet.add_row(name, f"{rate:,.0f}", "" if rate == ours else f"{ours / rate:.1f}")
    console = Console(width=110)
    console.print(sheet)
    simulators = [rate for name, rate in rates.items() if "simulat" in name.lower()]
    if simulators:
        ratio = ours / max(simulators)
        console.print(f"{ratio:.1f} × the faster simulator (bar {BAR:g}): {'met' if ratio >= BAR else 'MISSED'}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rates, indent=1) + "\n")


def _ours(table: OutcomeTable) -> float:
    world = make_world(table, Features("x", "one"))
    run = Run("thompson", parse_objective("QUALITY_FIRST", UNIT), None, 0)
    rounds = rounds_of(world, run)
    return kit.median_seconds(lambda: play_online(world, run, rounds))


def _mabwiser(x_nd: Any, action_n: Any, reward_n: Any, quality_nk: Any) -> dict[str, float]:
    simulator = kit.import_mabwiser_simulator()
    if simulator is None:
        print("mabwiser is not installed: left out")
        return {}
    from mabwiser.mab import MAB, LearningPolicy

    n, warm = len(x_nd), K * 4
    arms = list(range(K))

    def simulate() -> None:
        bandits = [("lints", MAB(arms, LearningPolicy.LinTS(alpha=0.1), seed=0))]
        run = simulator.Simulator(
            bandits,
            action_n,
            reward_n,
            x_nd,
            test_size=(n - warm) / n,
            is_ordered=True,
            batch_size=1,
            is_quick=True,
            seed=0,
        )
        run.run()

    def bare() -> None:
        mab = MAB(arms, LearningPolicy.LinTS(alpha=0.1), seed=0)
        mab.fit(action_n[:warm], reward_n[:warm], x_nd[:warm])
        for t in range(warm, n):
            choice = mab.predict(x_nd[t : t + 1])
            mab.partial_fit([choice], [quality_nk[t, choice]], x_nd[t : t + 1])

    return {
        "MABWiser Simulator, LinTS, batches of 1": (n - warm) / kit.median_seconds(simulate, 1),
        "MABWiser MAB alone, LinTS": (n - warm) / kit.median_seconds(bare, 3),
    }


def _obp(x_nd: Any, action_n: Any, reward_n: Any) -> dict[str, float]:
    simulator = kit.import_obp("obp.simulator.simulator")
    if simulator is None:
        print("obp is not installed: left out")
        return {}
    linear = kit.import_obp("obp.policy.linear")
    n = len(x_nd)
    log = {
        "n_rounds": n,
        "n_actions": K,
        "action": action_n,
        "position": np.zeros(n, dtype=int),
        "reward": reward_n,
        "pscore": np.full(n, 1.0 / K),
        "context": x_nd,
    }

    def simulate() -> None:
        policy = linear.LinTS(dim=x_nd.shape[1], n_actions=K, random_state=0)
        simulator.run_bandit_simulation(bandit_feedback=log, policy=policy)

    return {"obp run_bandit_simulation, LinTS": n / kit.median_seconds(simulate, 1)}


if __name__ == "__main__":
    main()
