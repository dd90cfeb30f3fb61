"""Exact replay of an outcome table: prompts come one by one in random order, a policy chooses, and learns what it chose.

Policies are behind ``simulator.online.Online``, so that all of them play in the same loop; the world may change on the way
(``simulator.changes``).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator import baselines
from simulator.changes import Outcome, Rounds, check_schedule, joins_later, unfold
from simulator.online import ROUND_NS as ROUND_NS
from simulator.online import Asked, EpsilonGreedy, Online, Thompson, Uniform, refuse_floors
from simulator.peers import PEERS, check_installed, make_peer
from simulator.utility import SettingError, known, utilities

# the names of a replay, wherever they are made
from simulator.world import BUCKETS as BUCKETS
from simulator.world import FEATURES as FEATURES
from simulator.world import UNIT as UNIT
from simulator.world import Features as Features
from simulator.world import Run, World, order_of
from simulator.world import make_world as make_world

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

THOMPSON = "thompson"
ONLINE = (THOMPSON, "uniform", "epsilon-greedy", *PEERS)
"""Policies that decide round by round."""
HINDSIGHT = ("best-fixed", "best-mix", "task-lp", "prompt-oracle")
"""Controls that know every outcome beforehand."""
FIXED = "fixed:"


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """What an online policy chose in every round (t), and the world it met."""

    rounds: Rounds
    chosen_t: Indices


def check_run(world: World, run: Run) -> None:
    """Raise ``SettingError`` if ``run`` makes no sense in ``world``."""
    fixed = run.policy.removeprefix(FIXED) if run.policy.startswith(FIXED) else None
    if fixed is None and run.policy not in (*ONLINE, *HINDSIGHT):
        listed = ", ".join((*ONLINE, f"{FIXED}<model>", *HINDSIGHT))
        raise SettingError(f"policy {run.policy!r}: expected one of {listed}")
    if fixed is not None and fixed not in world.table.models:
        raise SettingError(f"policy {run.policy!r}: expected one of the models {', '.join(world.table.models)}")
    if run.policy in PEERS:
        refuse_floors(run.policy, run.objective)
        check_installed(run.policy)
    utilities(world.table, run.objective)
    if run.budget is not None:
        known(world.table, "cost", "a budget")
        if run.policy == THOMPSON and world.features.bucket != "one":
            raise SettingError("policy thompson paces a budget for each bucket: use --bucket one with --budget")
    check_schedule(world.table.models, world.quality, run.schedule)
    if joins_later(run.schedule) != frozenset(world.later):
        raise SettingError(
            f"schedule: expected to add {', '.join(world.later) or 'no model'}, "
            f"got {', '.join(sorted(joins_later(run.schedule))) or 'none'}"
        )


def make_policy(world: World, run: Run, rng: np.random.Generator) -> Online:
    """An online policy as it is before the first round."""
    if run.policy == THOMPSON:
        return Thompson(world, run, rng)
    if run.policy == "uniform":
        return Uniform(world, rng)
    if run.policy == "epsilon-greedy":
        return EpsilonGreedy(world, run, rng)
    return make_peer(world, run, rng)


def play_online(world: World, run: Run) -> Played:
    """Play a policy of ``ONLINE`` through the rounds of ``run``."""
    order = order_of(world, run.seed, run.rounds)
    rounds = unfold(world.table, order, run.schedule, world.quality, run.seed)
    policy = make_policy(world, run, np.random.default_rng([run.seed, 1]))
    chosen_t = np.zeros(len(rounds), dtype=np.intp)
    waiting: deque[tuple[Asked, Outcome]] = deque()
    for t, row in enumerate(order):
        for notice in rounds.notices.get(t, ()):
            policy.notice(t, notice)
        model = policy.choose(t, row)
        if not rounds.there_tk[t, model]:
            raise RuntimeError(f"{run.policy} chose {world.table.models[model]}, which is not in the catalogue")
        chosen_t[t] = model
        waiting.append((Asked(t, row, model), rounds.outcome(t, model)))
        if len(waiting) > run.delay:
            policy.learn(t, *waiting.popleft())
    return Played(rounds, chosen_t)


def play(world: World, run: Run) -> Array:
    """The share of each prompt that each model got, (n, k) in the order of the table.

    An online policy chooses one model for each prompt; a control in hindsight may split it. The run has as many rounds as the
    table has rows, and no schedule: ``play_online`` is for those.
    """
    table = world.table
    n, k = len(table), len(table.models)
    if run.schedule or run.rounds is not None:
        raise ValueError("expected a run without schedule and rounds")
    if run.policy in ONLINE:
        played = play_online(world, run)
        share_nk = np.zeros((n, k))
        share_nk[played.rounds.row_t, played.chosen_t] = 1.0
        return share_nk
    if run.policy.startswith(FIXED):
        return _one_hot(np.full(n, table.models.index(run.policy.removeprefix(FIXED)), dtype=np.intp), k)
    utility_nk = utilities(table, run.objective)
    cost_nk = None if np.isnan(table.cost_nk).any() else table.cost_nk
    if run.policy == "best-fixed":
        return _one_hot(np.full(n, baselines.best_fixed(utility_nk, cost_nk, run.budget), dtype=np.intp), k)
    group_n = {"best-mix": np.zeros(n, dtype=np.intp), "task-lp": world.task_n, "prompt-oracle": np.arange(n)}
    return baselines.grouped_optimum(utility_nk, cost_nk, group_n[run.policy], run.budget)


def _one_hot(chosen_n: npt.NDArray[Any], k: int) -> Array:
    return np.asarray(np.eye(k)[chosen_n])
