"""Exact replay of an outcome table: prompts come one by one in random order, a policy chooses, and learns what it chose.

All policies are ``simulator.policies.base.OnlinePolicy``, so that they play in the same loop; the world may change on the way
(``simulator.world.changes``).

>>> from pointsman.bandit.catalog import Mode, Objective
>>> from pointsman.simulator.data.table import from_columns
>>> from pointsman.simulator.policies.registry import parse_policy
>>> from pointsman.simulator.world.encoding import Features
>>> from pointsman.simulator.world.world import make_world
>>> columns = {"prompt_id": ["a", "b"], "task": ["chat", "maths"], "quality/small": [0.9, 0.1], "quality/large": [0.8, 0.6]}
>>> world = make_world(from_columns("two", "", columns), Features("none", "one"))
>>> run = Run(parse_policy("prompt-oracle"), Objective(Mode.QUALITY_FIRST), None, seed=0)
>>> play(world, run).tolist()  # the best model of each prompt
[[1.0, 0.0], [0.0, 1.0]]
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
import numpy.typing as npt

from pointsman.simulator.policies.base import Choice, OnlinePolicy
from pointsman.simulator.policies.hindsight import optimum
from pointsman.simulator.policies.registry import FIXED, is_online, make_policy
from pointsman.simulator.policies.spec import Run, policy_rng
from pointsman.simulator.world.rounds import CallOutcome, Rounds, unfold
from pointsman.simulator.world.world import World, order_of

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """The choices of an online policy in every round (t), and the rounds it was played on."""

    rounds: Rounds
    chosen_t: Indices


def play_online(world: World, run: Run, rounds: Rounds | None = None, policy: OnlinePolicy | None = None) -> Replay:
    """Play a policy of ``ONLINE``, as ``make_policy`` makes it, through the rounds of ``run``, which ``rounds_of`` gives."""
    rounds = rounds_of(world, run) if rounds is None else rounds
    policy = make_policy(world, run, policy_rng(run)) if policy is None else policy
    chosen_t = np.zeros(len(rounds), dtype=np.intp)
    pending: list[
        tuple[int, int, Choice, CallOutcome]
    ] = []  # a heap, by the round in which to learn and that of the choice
    delays: list[int] = (rounds.delay_t + run.delay).tolist()
    for t, row in enumerate(rounds.row_t.tolist()):
        for notice in rounds.notices.get(t, ()):
            policy.notice(t, notice)
        model = policy.choose(t, row)
        if not rounds.available_tk[t, model]:
            raise RuntimeError(f"{run.policy} chose {world.table.models[model]}, which is not in the catalogue")
        chosen_t[t] = model
        heappush(pending, (t + delays[t], t, Choice(t, row, model), rounds.outcome(t, model)))
        while pending and pending[0][0] <= t:
            *_, choice, outcome = heappop(pending)
            policy.learn(t, choice, outcome)
    return Replay(rounds, chosen_t)


def shares(world: World, run: Run, rounds: Rounds) -> Array:
    """The share of each round that each model got, (t, k).

    An online policy chooses one model in each; a control in hindsight may split it. Controls but ``prompt-oracle`` split only
    between models that are there from first to last.
    """
    k = len(world.table.models)
    if is_online(run.policy):
        return np.eye(k)[play_online(world, run, rounds).chosen_t]
    if run.policy.name == FIXED:
        return np.tile(np.eye(k)[world.table.models.index(run.policy.string("model"))], (len(rounds), 1))
    return optimum(world, run, rounds, run.policy.name)


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


def rounds_of(world: World, run: Run) -> Rounds:
    """Every model's outcome in every round of ``run``: the same for all policies with its seed."""
    order = order_of(world, run.seed, run.rounds)
    return unfold(world.table, order, run.schedule, world.quality, run.seed, world.noise)
