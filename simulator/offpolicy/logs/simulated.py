"""Logs of replays: what the journal would hold of a run, with all that its decisions were made with."""

from __future__ import annotations

import numpy as np

from pointsman.bandit.event import DecisionMade
from pointsman.bandit.policy import logged_propensities
from pointsman.simulator.offpolicy.logs.journal import Journal, Made
from pointsman.simulator.offpolicy.logs.log import Array, Indices, Log
from pointsman.simulator.policies.spec import Run, policy_rng
from pointsman.simulator.policies.thompson import ROUND_NS, Thompson
from pointsman.simulator.run.replay import play_online
from pointsman.simulator.world.rounds import Rounds
from pointsman.simulator.world.world import World


def logged(world: World, run: Run, rounds: Rounds) -> Journal:
    """What the policy that serves logs in ``rounds``, in which all models are there all the time."""
    decisions: list[DecisionMade] = []
    policy = Thompson(world, run, policy_rng(run), watch=decisions.append)
    chosen_n = play_online(world, run, rounds, policy).chosen_t
    place = {model: i for i, model in enumerate(world.table.models)}
    made = tuple(
        Made(
            models=one.models,
            chosen=one.chosen,
            quality=world.quality,
            objective=one.objective,
            predicted=one.predicted,
            exclusions_k=one.exclusions_k,
            multiplier=one.multiplier,
            exploration_floor=one.exploration_floor,
            newcomers=one.newcomers,
            quota=one.quota,
            limits_violated=one.limits_violated,
        )
        for one in decisions
    )
    logged_nk = np.zeros((len(made), len(place)))
    for i, one in enumerate(made):
        logged_nk[i, [place[model] for model in one.models]] = logged_propensities(one, one.quality)
    return Journal(log_of(world, rounds, chosen_n, logged_nk), made)


def log_of(world: World, rounds: Rounds, chosen_n: Indices, logged_nk: Array) -> Log:
    """The log of a policy that chose ``chosen_n`` with the probabilities ``logged_nk`` in ``rounds``."""
    rows_n = np.arange(len(chosen_n))
    judged_n = rounds.quality_reported_tk[rows_n, chosen_n] & rounds.success_tk[rows_n, chosen_n]
    signals = {
        "quality": np.where(judged_n, rounds.quality_tk[rows_n, chosen_n], np.nan),
        "cost": rounds.cost_tk[rows_n, chosen_n],
        "latency": rounds.latency_tk[rows_n, chosen_n],
    }
    tasks = tuple(sorted(set(world.table.tasks)))
    return Log(
        name=world.table.name,
        models=world.table.models,
        groups=tasks,
        chosen_n=chosen_n,
        propensity_n=logged_nk[rows_n, chosen_n],
        logged_nk=logged_nk,
        eligible_nk=rounds.available_tk,
        signals={name: value_n for name, value_n in signals.items() if not np.isnan(value_n).all()},
        x_nd=world.x_nd[rounds.row_t],
        group_n=world.task_n[rounds.row_t],
        time_ns_n=(rows_n + 1) * ROUND_NS,
    )
