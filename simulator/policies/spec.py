"""What is to be played: names of policies with settings, ``thompson:exploration_floor=0.05:half_life=500``, and runs of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pointsman.bandit.catalog import Objective
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.world.changes import Schedule

THOMPSON = "thompson"


def base(policy: str) -> str:
    """The name without settings."""
    return policy.partition(":")[0]


def setting(policy: str, default: float, what: str) -> float:
    """The one number of ``name:number``, or ``default`` without one. Raises ``SettingError`` that says ``what`` it is."""
    _, colon, text = policy.partition(":")
    if not colon:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise SettingError(f"policy {policy!r}: expected {what} after the colon, got {text!r}")
    return value


@dataclass(frozen=True, slots=True)
class Run:
    """One policy under one objective, and perhaps within a budget (mean dollars a request), in one random order.

    An outcome is learned ``delay`` rounds after its decision. ``rounds`` (``None``: as many as there are rows) may be fewer, or
    more: then the rows come again, in another order. ``schedule`` says what changes on the way.
    """

    policy: str
    objective: Objective
    budget: float | None
    seed: int
    delay: int = 0
    rounds: int | None = None
    schedule: Schedule = ()


CASCADE = "cascade"
"""Calls several models for a prompt, so that it is no split of the traffic; ``cascade:THRESHOLD`` has a fixed threshold."""


FIXED = "fixed:"


def policy_rng(run: Run) -> np.random.Generator:
    """What a policy draws from."""
    return np.random.default_rng([run.seed, 1])
