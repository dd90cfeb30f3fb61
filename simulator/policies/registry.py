"""The policies by name: how each is made, and what it asks of a run."""

from __future__ import annotations

import numpy as np

from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.policies.base import Online, refuse_floors
from pointsman.simulator.policies.hindsight import HINDSIGHT
from pointsman.simulator.policies.linucb import LinUcb
from pointsman.simulator.policies.published import PEERS, check_installed, make_peer
from pointsman.simulator.policies.simple import BetaThompson, EpsilonGreedy, LengthRule, Uniform
from pointsman.simulator.policies.spec import CASCADE, FIXED, THOMPSON, Run, base, setting
from pointsman.simulator.policies.thompson import Thompson, configured
from pointsman.simulator.world.changes import check_schedule, joins_later
from pointsman.simulator.world.utility import known, utilities
from pointsman.simulator.world.world import World

ONLINE = (THOMPSON, "uniform", "epsilon-greedy", "linucb", "beta-thompson", "length-rule", *PEERS)
"""Policies that decide round by round; ``thompson`` and ``length-rule`` may have settings (``simulator.policies.spec``)."""


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
