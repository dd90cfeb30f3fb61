"""Logs of replays: what the journal would hold of a run, with all that its decisions were made with."""

from __future__ import annotations

import numpy as np

from pointsman.bandit.event import DecisionMade
from pointsman.bandit.policy import logged_propensities
from pointsman.simulator.offpolicy.logs.log import Array, Indices, Log, LoggedDecision
from pointsman.simulator.policies.spec import Run, policy_rng
from pointsman.simulator.policies.thompson import ROUND_NS, Thompson
from pointsman.simulator.run.replay import play_online
from pointsman.simulator.world.rounds import Rounds
from pointsman.simulator.world.world import World


def thompson_log(world: World, run: Run, rounds: Rounds) -> Log:
    """What the policy that serves logs in ``rounds``, in which all models are there all the time, with its decisions."""
    events: list[DecisionMade] = []
    policy = Thompson(world, run, policy_rng(run), watch=events.append)
    chosen_n = play_online(world, run, rounds, policy).chosen_t
    decisions = tuple(_decision(event, world) for event in events)
    number_by_model = {model: i for i, model in enumerate(world.table.models)}
    logged_nk = np.zeros((len(decisions), len(number_by_model)))
    for i, decision in enumerate(decisions):
        logged_nk[i, [number_by_model[model] for model in decision.models]] = logged_propensities(decision)
    return static_log(world, rounds, chosen_n, logged_nk, decisions)


def static_log(
    world: World,
    rounds: Rounds,
    chosen_n: Indices,
    logged_nk: Array,
    decisions: tuple[LoggedDecision, ...] | None = None,
) -> Log:
    """The log of a policy that chose ``chosen_n`` with the probabilities ``logged_nk`` in ``rounds``."""
    rows_n = np.arange(len(chosen_n))
    judged_n = rounds.quality_reported_tk[rows_n, chosen_n] & rounds.success_tk[rows_n, chosen_n]
    signals = {
        "quality": np.where(judged_n, rounds.quality_tk[rows_n, chosen_n], np.nan),
        "cost": rounds.cost_tk[rows_n, chosen_n],
        "latency": rounds.latency_tk[rows_n, chosen_n],
    }
    return Log(
        name=world.table.name,
        models=world.table.models,
        groups=tuple(sorted(set(world.table.tasks))),
        chosen_n=chosen_n,
        propensity_n=logged_nk[rows_n, chosen_n],
        logged_nk=logged_nk,
        eligible_nk=rounds.available_tk,
        signals={name: value_n for name, value_n in signals.items() if not np.isnan(value_n).all()},
        x_nd=world.x_nd[rounds.row_t],
        group_n=world.task_n[rounds.row_t],
        time_ns_n=(rows_n + 1) * ROUND_NS,
        decisions=decisions,
        ranges={name: ends for name, ends in _ranges(world).items() if name in signals},
    )


def _ranges(world: World) -> dict[str, tuple[float, float]]:
    """What values signals can have: of all models on all prompts, whatever of them the log has."""
    table = world.table
    largest = {
        name: float(np.nanmax(cell_nk, initial=0.0))
        for name, cell_nk in (("cost", table.cost_nk), ("latency", table.latency_nk))
    }
    return {"quality": (world.quality.min, world.quality.max)} | {
        name: (0.0, high) for name, high in largest.items() if high > 0.0
    }


def _decision(event: DecisionMade, world: World) -> LoggedDecision:
    return LoggedDecision(
        models=event.models,
        chosen=event.chosen,
        quality=world.quality,
        objective=event.objective,
        predicted=event.predicted,
        exclusions_k=event.exclusions_k,
        multiplier=event.multiplier,
        exploration_floor=event.exploration_floor,
        newcomers=event.newcomers,
        quota=event.quota,
        limits_violated=event.limits_violated,
        by_price=event.by_price,
        quotas=event.quotas,
    )
