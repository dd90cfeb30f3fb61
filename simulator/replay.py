"""Exact replay of an outcome table: prompts come one by one in random order, a policy chooses, and learns what it chose.

Policies are behind ``simulator.online.Online``, so that all of them play in the same loop; the world may change on the way
(``simulator.changes``).
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
import numpy.typing as npt

from pointsman.simulator import baselines
from pointsman.simulator.changes import Outcome, Rounds, check_schedule, joins_later
from pointsman.simulator.configured import THOMPSON as THOMPSON
from pointsman.simulator.configured import base, configured, setting
from pointsman.simulator.contextual import LinUcb
from pointsman.simulator.online import ROUND_NS as ROUND_NS
from pointsman.simulator.online import Asked, EpsilonGreedy, Online, Thompson, Uniform, refuse_floors
from pointsman.simulator.peers import PEERS, check_installed, make_peer
from pointsman.simulator.simple import BetaThompson, LengthRule
from pointsman.simulator.utility import SettingError, known, utilities, utility_of

# the names of a replay, wherever they are made
from pointsman.simulator.world import BUCKETS as BUCKETS
from pointsman.simulator.world import FEATURES as FEATURES
from pointsman.simulator.world import UNIT as UNIT
from pointsman.simulator.world import Features as Features
from pointsman.simulator.world import Run, World, rounds_of
from pointsman.simulator.world import make_world as make_world
from pointsman.simulator.world import order_of as order_of

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

ONLINE = (THOMPSON, "uniform", "epsilon-greedy", "linucb", "beta-thompson", "length-rule", *PEERS)
"""Policies that decide round by round; ``thompson`` and ``length-rule`` may have settings (``simulator.configured``)."""
HINDSIGHT = ("best-fixed", "best-mix", "task-lp", "prompt-oracle")
"""Controls that know every outcome beforehand."""
CASCADE = "cascade"
"""Calls several models for a prompt, so that it is no split of the traffic; ``cascade:THRESHOLD`` has a fixed threshold."""
FIXED = "fixed:"


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """What an online policy chose in every round (t), and the world it met."""

    rounds: Rounds
    chosen_t: Indices


def check_run(world: World, run: Run) -> None:
    """Raise ``SettingError`` if ``run`` makes no sense in ``world``."""
    fixed = run.policy.removeprefix(FIXED) if run.policy.startswith(FIXED) else None
    name = base(run.policy)
    if fixed is None and (name if name in (THOMPSON, "length-rule", CASCADE) else run.policy) not in (
        *ONLINE,
        *HINDSIGHT,
        CASCADE,
    ):
        listed = ", ".join((*ONLINE, CASCADE, f"{FIXED}<model>", *HINDSIGHT))
        raise SettingError(f"policy {run.policy!r}: expected one of {listed}")
    if name == THOMPSON:
        configured(next(iter(world.start.buckets.values())).config, run.policy)
    if name == "length-rule":
        LengthRule(world, run)
    if name == CASCADE:
        refuse_floors(run.policy, run.objective)
        setting(run.policy, 0.0, "a quality")
        known(world.table, "cost", "policy cascade")
    if name in ("linucb", "beta-thompson"):
        refuse_floors(run.policy, run.objective)
    if fixed is not None and fixed not in world.table.models:
        raise SettingError(f"policy {run.policy!r}: expected one of the models {', '.join(world.table.models)}")
    if fixed in world.later:
        raise SettingError(f"policy {run.policy!r}: expected a model that is there from the start")
    if run.policy in PEERS:
        refuse_floors(run.policy, run.objective)
        check_installed(run.policy)
    utilities(world.table, run.objective)
    if run.budget is not None:
        known(world.table, "cost", "a budget")
        if name == THOMPSON and world.features.bucket != "one":
            raise SettingError("policy thompson paces a budget for each bucket: use --bucket one with --budget")
    check_schedule(world.table.models, world.quality, run.schedule)
    if joins_later(run.schedule) != frozenset(world.later):
        raise SettingError(
            f"schedule: expected to add {', '.join(world.later) or 'no model'}, "
            f"got {', '.join(sorted(joins_later(run.schedule))) or 'none'}"
        )


def make_policy(world: World, run: Run, rng: np.random.Generator) -> Online:
    """An online policy as it is before the first round."""
    name = base(run.policy)
    if name == THOMPSON:
        return Thompson(world, run, rng)
    if name == "length-rule":
        return LengthRule(world, run)
    if name == "linucb":
        return LinUcb(world, run)
    if name == "beta-thompson":
        return BetaThompson(world, run, rng)
    if run.policy == "uniform":
        return Uniform(world, rng)
    if run.policy == "epsilon-greedy":
        return EpsilonGreedy(world, run, rng)
    return make_peer(world, run, rng)


def policy_rng(run: Run) -> np.random.Generator:
    """What a policy draws from."""
    return np.random.default_rng([run.seed, 1])


def play_online(world: World, run: Run, rounds: Rounds | None = None, policy: Online | None = None) -> Played:
    """Play a policy of ``ONLINE``, as ``make_policy`` makes it, through the rounds of ``run``, which ``rounds_of`` gives."""
    rounds = rounds_of(world, run) if rounds is None else rounds
    policy = make_policy(world, run, policy_rng(run)) if policy is None else policy
    chosen_t = np.zeros(len(rounds), dtype=np.intp)
    waiting: list[
        tuple[int, int, Asked, Outcome]
    ] = []  # a heap: the round after which to learn, the round of the decision
    late: list[int] = (rounds.late_t + run.delay).tolist()
    for t, row in enumerate(rounds.row_t.tolist()):
        for notice in rounds.notices.get(t, ()):
            policy.notice(t, notice)
        model = policy.choose(t, row)
        if not rounds.there_tk[t, model]:
            raise RuntimeError(f"{run.policy} chose {world.table.models[model]}, which is not in the catalogue")
        chosen_t[t] = model
        heappush(waiting, (t + late[t], t, Asked(t, row, model), rounds.outcome(t, model)))
        while waiting and waiting[0][0] <= t:
            *_, asked, outcome = heappop(waiting)
            policy.learn(t, asked, outcome)
    return Played(rounds, chosen_t)


def shares(world: World, run: Run, rounds: Rounds) -> Array:
    """The share of each round that each model got, (t, k).

    An online policy chooses one model in each; a control in hindsight may split it. Controls but ``prompt-oracle`` split only
    between models that are there from first to last.
    """
    k = len(world.table.models)
    if base(run.policy) in ONLINE:
        return np.eye(k)[play_online(world, run, rounds).chosen_t]
    if run.policy.startswith(FIXED):
        return np.tile(np.eye(k)[world.table.models.index(run.policy.removeprefix(FIXED))], (len(rounds), 1))
    return optimum(world, run, rounds, run.policy)


def optimum(world: World, run: Run, rounds: Rounds, control: str) -> Array:
    """The shares (t, k) of a control of ``HINDSIGHT``, which knows what every call is worth."""
    worth, n = rounds.worth, len(rounds)
    cost_tk = None if np.isnan(worth.cost_tk).any() else worth.cost_tk
    if control == "prompt-oracle":
        utility_tk = utility_of(run.objective, worth.quality_tk, worth.cost_tk, worth.latency_tk, rounds.there_tk)
        if cost_tk is not None:  # what is not there is worth less than anything, and costs more
            cost_tk = np.where(rounds.there_tk, cost_tk, 1.0 + 2.0 * cost_tk.max())
        return baselines.grouped_optimum(utility_tk, cost_tk, np.arange(n), run.budget)
    there = np.flatnonzero(rounds.there_tk.all(axis=0))
    utility_tk = utility_of(
        run.objective, worth.quality_tk[:, there], worth.cost_tk[:, there], worth.latency_tk[:, there]
    )
    cost_tk = None if cost_tk is None else cost_tk[:, there]
    share_tk = np.zeros((n, len(world.table.models)))
    if control == "best-fixed":
        share_tk[:, there[baselines.best_fixed(utility_tk, cost_tk, run.budget)]] = 1.0
        return share_tk
    group_t = np.zeros(n, dtype=np.intp)
    if control == "task-lp":
        group_t = np.unique(world.task_n[rounds.row_t], return_inverse=True)[1]
    share_tk[:, there] = baselines.grouped_optimum(utility_tk, cost_tk, group_t, run.budget)
    return share_tk


def play(world: World, run: Run) -> Array:
    """``shares`` of each prompt, (n, k) in the order of the table. The run has as many rounds as the table has rows, and no
    schedule.
    """
    if run.schedule or run.rounds is not None:
        raise ValueError("expected a run without schedule and rounds")
    rounds = rounds_of(world, run)
    share_nk = np.zeros((len(world.table), len(world.table.models)))
    share_nk[rounds.row_t] = shares(world, run, rounds)
    return share_nk
