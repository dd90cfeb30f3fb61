"""The policies by name: how each is written, how it is made, and what it asks of a run.

>>> parse_policy("thompson:half_life=500").settings
(('half_life', 500.0),)
>>> parse_policy("tompson")
Traceback (most recent call last):
    ...
pointsman.simulator.data.errors.SettingError: policy 'tompson': expected one of thompson, uniform, epsilon-greedy, linucb, \
beta-thompson, length-rule, paretobandit, mabwiser-lints, mabwiser-linucb, vw-squarecb, cascade, fixed:<model>, best-fixed, \
best-mix, task-lp, prompt-oracle
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.policies.base import OnlinePolicy, check_reward_objective
from pointsman.simulator.policies.hindsight import HINDSIGHT
from pointsman.simulator.policies.linucb import LinUcb
from pointsman.simulator.policies.published import PACKAGES, MabWiser, ParetoBandit, SquareCb, check_installed
from pointsman.simulator.policies.simple import BetaThompson, EpsilonGreedy, LengthRule, Uniform
from pointsman.simulator.policies.spec import PolicySpec, Run, Settings, SettingsParser, named_numbers, one_number
from pointsman.simulator.policies.thompson import THOMPSON_SETTINGS, Thompson, configure_bucket
from pointsman.simulator.world.changes import check_schedule, models_added_later
from pointsman.simulator.world.utility import required_cells, utilities
from pointsman.simulator.world.world import World

THOMPSON = "thompson"
CASCADE = "cascade"
"""Calls several models for a prompt, so that it is no split of the traffic; ``cascade:THRESHOLD`` has a fixed threshold."""
FIXED = "fixed"
"""``fixed:<model>`` sends everything to one model."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The registry's entry for policies of one name.

    ``make`` gives an online policy as it is before the first round; ``None`` marks what does not decide round by round. Each of
    ``checks`` raises ``SettingError`` for a run that makes no sense in its world. ``parse`` reads settings; without it a name
    has none.
    """

    make: Callable[[World, Run, np.random.Generator], OnlinePolicy] | None = None
    checks: tuple[Callable[[World, Run], None], ...] = ()
    parse: SettingsParser | None = None


def parse_policy(text: str) -> PolicySpec:
    """A policy as it is written: ``thompson:exploration_floor=0.05:half_life=500``, ``cascade:0.7``, ``fixed:MODEL``.

    Raises ``SettingError`` for a name, a setting or a number that is not acceptable.
    """
    name, colon, rest = text.partition(":")
    entry = POLICIES.get(name)
    if entry is None or (entry.parse is None and colon) or (name == FIXED and not colon):
        raise SettingError(f"policy {text!r}: expected one of {', '.join(policy_names('<model>'))}")
    return PolicySpec(text, name, entry.parse(text, rest if colon else None) if entry.parse else ())


def policy_names(model: str) -> tuple[str, ...]:
    """How every policy is written without settings, with ``model`` for the name of a fixed one."""
    return tuple(f"{FIXED}:{model}" if name == FIXED else name for name in POLICIES)


def is_online(spec: PolicySpec) -> bool:
    """Whether a policy decides round by round."""
    return POLICIES[spec.name].make is not None


def check_run(world: World, run: Run) -> None:
    """Raise ``SettingError`` if ``run`` makes no sense in ``world``."""
    for check in POLICIES[run.policy.name].checks:
        check(world, run)
    utilities(world.table, run.objective)
    if run.budget is not None:
        required_cells(world.table, "cost", "a budget")
        if run.policy.name == THOMPSON and world.features.bucket != "one":
            raise SettingError("policy thompson paces a budget for each bucket: use --bucket one with --budget")
    if run.objective.min_mean_quality is not None:
        if run.budget is not None:
            raise SettingError(
                "expected --budget or min_mean_quality, got both: there is no best within one to compare with"
            )
        if run.policy.name == THOMPSON and world.features.bucket != "one":
            raise SettingError("policy thompson keeps min_mean_quality in each bucket: use --bucket one with it")
    check_schedule(world.table.models, world.quality, run.schedule)
    added = models_added_later(run.schedule)
    if added != frozenset(world.later):
        raise SettingError(
            f"schedule: expected to add {', '.join(world.later) or 'no model'}, got {', '.join(sorted(added)) or 'none'}"
        )


def make_policy(world: World, run: Run, rng: np.random.Generator) -> OnlinePolicy:
    """An online policy as it is before the first round; it draws from ``rng``.

    Raises ``SettingError`` if a package that it needs is not installed, and ``ValueError`` for a policy that is not online.
    """
    make = POLICIES[run.policy.name].make
    if make is None:
        raise ValueError(f"policy {run.policy} does not decide round by round")
    if run.policy.name in PACKAGES:
        check_installed(run.policy.name)
    return make(world, run, rng)


def _check_reward(world: World, run: Run) -> None:
    check_reward_objective(run.policy, run.objective)


def _check_package(world: World, run: Run) -> None:
    check_installed(run.policy.name)


def _check_thompson(world: World, run: Run) -> None:
    configure_bucket(next(iter(world.start.buckets.values())).config, run.policy)


def _check_length_rule(world: World, run: Run) -> None:
    LengthRule(world, run)


def _check_cascade(world: World, run: Run) -> None:
    required_cells(world.table, "cost", "policy cascade")


def _check_fixed(world: World, run: Run) -> None:
    model = run.policy.string("model")
    if model not in world.table.models:
        raise SettingError(f"policy {run.policy.text!r}: expected one of the models {', '.join(world.table.models)}")
    if model in world.later:
        raise SettingError(f"policy {run.policy.text!r}: expected a model that is there from the start")


def _model_name(text: str, rest: str | None) -> Settings:
    return (("model", rest or ""),)


_PUBLISHED_CHECKS = (_check_reward, _check_package)
POLICIES: Mapping[str, Entry] = {
    THOMPSON: Entry(Thompson, (_check_thompson,), named_numbers(THOMPSON_SETTINGS)),
    "uniform": Entry(Uniform),
    "epsilon-greedy": Entry(EpsilonGreedy),
    "linucb": Entry(LinUcb, (_check_reward,)),
    "beta-thompson": Entry(BetaThompson, (_check_reward,)),
    "length-rule": Entry(LengthRule, (_check_length_rule,), one_number("tokens", "a number of tokens")),
    "paretobandit": Entry(ParetoBandit, _PUBLISHED_CHECKS),
    "mabwiser-lints": Entry(MabWiser, _PUBLISHED_CHECKS),
    "mabwiser-linucb": Entry(MabWiser, _PUBLISHED_CHECKS),
    "vw-squarecb": Entry(SquareCb, _PUBLISHED_CHECKS),
    CASCADE: Entry(None, (_check_reward, _check_cascade), one_number("quality", "a quality")),
    FIXED: Entry(None, (_check_fixed,), _model_name),
    **dict.fromkeys(HINDSIGHT, Entry()),
}
"""Every policy by its name, in the order in which they are listed for a reader."""
ONLINE = tuple(name for name, entry in POLICIES.items() if entry.make is not None)
"""Policies that decide round by round."""
