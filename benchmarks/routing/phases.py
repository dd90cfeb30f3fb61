"""What a policy did in each phase of a changing world, set beside what could have been had at the same spend.

*Equal spend*: two policies that spent differently are compared through the best static mix of models in hindsight of the same
phase. A policy's ``gain`` is its mean quality less that of the mix which costs what the policy spent. The difference of two
gains is what one is ahead of the other at equal spend; where both spent the same it is the difference of their qualities.

*Settled*: requests from the start of a phase until the share of the concerned model over the last ``WINDOW`` requests has gone
half the way from where it was to its share in the best per-task mixture of the phase (``task-lp``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from pointsman.simulator.policies.hindsight import HINDSIGHT, best_fixed, best_shares, grouped_optimum
from pointsman.simulator.policies.registry import is_online
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.run.replay import play_online, rounds_of
from pointsman.simulator.world.rounds import Rounds
from pointsman.simulator.world.world import World

Array = npt.NDArray[np.float64]

WINDOW = 50
"""Requests over which a share is measured."""
BEFORE = 100
"""Requests at the end of a phase that say where a share was."""
LEAST = 0.1
"""Smallest change of share of which it is asked how long it took."""
WARNING = 20
"""Calls of the concerned model in a phase after which a policy could know."""
BINS = 48
"""Points of a curve."""
ALL = "all"
"""Name of the phase of all phases together."""
CONTROLS = HINDSIGHT[:3]
"""Optima in hindsight that are measured: each phase's own, within the budget."""


@dataclass(frozen=True, slots=True)
class Phase:
    """Rounds ``start`` to before ``end``."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Trial:
    """A run with a budget, cut into phases; ``concerned`` is the model whose share matters."""

    run: Run
    phases: tuple[Phase, ...]
    concerned: str


class PhaseRow(TypedDict):
    """One phase of one run. Quality in the table's units, cost in dollars.

    ``share`` is the concerned model's, ``share_warned`` that after its first ``WARNING`` calls of the phase (NaN if there were
    fewer). ``settled`` is NaN where nothing had to change, infinite if it never did. ``mix`` and ``gain``: see the module.
    """

    policy: str
    budget: float
    seed: int
    phase: str
    rounds: int
    quality: float
    cost: float
    spend_ratio: float
    share: float
    share_warned: float
    settled: float
    mix: float
    gain: float


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """The rows of one trial and, for its curves, means over ``BINS`` stretches of rounds, (c): quality, spend / budget, share."""

    trial: Trial
    rows: tuple[PhaseRow, ...]
    round_c: Array
    curves_3c: Array


def measure(world: World, trial: Trial) -> Measured:
    """Play a policy, or one of ``CONTROLS``, and measure every phase."""
    run = trial.run
    assert run.budget is not None
    rounds = rounds_of(world, run)
    lp_tk = np.vstack([_optimum(world, rounds, phase, run.budget, "task-lp") for phase in trial.phases])
    if is_online(run.policy):
        share_tk = np.eye(len(world.table.models))[play_online(world, run, rounds).chosen_t]
    elif run.policy.name == "task-lp":
        share_tk = lp_tk
    else:
        share_tk = np.vstack([_optimum(world, rounds, phase, run.budget, run.policy.name) for phase in trial.phases])
    quality_t = (share_tk * rounds.quality_tk).sum(axis=1)
    cost_t = (share_tk * rounds.cost_tk).sum(axis=1)
    concerned = world.table.models.index(trial.concerned)
    share_t = share_tk[:, concerned]
    rows = []
    for phase in trial.phases:
        part = slice(phase.start, phase.end)
        cost = float(cost_t[part].mean())
        mix = mix_quality(rounds, phase, cost)
        quality = float(quality_t[part].mean())
        target = float(lp_tk[part, concerned].mean())
        rows.append(
            PhaseRow(
                policy=run.policy.text,
                budget=run.budget,
                seed=run.seed,
                phase=phase.name,
                rounds=phase.end - phase.start,
                quality=quality,
                cost=cost,
                spend_ratio=cost / run.budget,
                share=float(share_t[part].mean()),
                share_warned=share_after_warning(share_t[part]),
                settled=requests_to_adapt(share_t, phase, target) if is_online(run.policy) else math.nan,
                mix=mix,
                gain=quality - mix,
            )
        )
    if len(rows) > 1:
        rows.append(_whole(rows))
    ends = np.linspace(0, len(rounds), BINS + 1).round().astype(np.int64)
    size_c = np.diff(ends)
    series = np.stack([quality_t, cost_t / run.budget, share_t])
    return Measured(
        trial=trial,
        rows=tuple(rows),
        round_c=ends[1:].astype(np.float64),
        curves_3c=np.add.reduceat(series, ends[:-1], axis=1) / size_c,
    )


def mix_quality(rounds: Rounds, phase: Phase, cost: float) -> float:
    """Mean quality of the best static mix, in hindsight of a phase, of the models that were there, at a mean cost of ``cost``.

    Below the cheapest model it is that model's, which costs more: the comparison then errs against who spent so little.
    """
    part = slice(phase.start, phase.end)
    available = np.flatnonzero(rounds.available_tk[part].all(axis=0))
    quality_1k = rounds.quality_tk[part][:, available].mean(axis=0, keepdims=True)
    cost_1k = rounds.cost_tk[part][:, available].mean(axis=0, keepdims=True)
    return float((best_shares(quality_1k, cost_1k, np.ones(1), cost) * quality_1k).sum())


def requests_to_adapt(share_t: Array, phase: Phase, target: float) -> float:
    """Requests until the share over the last ``WINDOW`` has gone half the way to ``target``; NaN if that is not far, inf if
    it never has by the end of the phase.
    """
    start = max(phase.start, WARNING)  # in the first phase the first few requests say where a share was
    before = float(share_t[max(0, start - BEFORE) : start].mean())
    if abs(target - before) < LEAST:
        return math.nan
    total_t = np.concatenate([[0.0], np.cumsum(share_t)])
    middle = (before + target) / 2.0
    for end in range(start + WINDOW // 5, phase.end + 1):  # a handful of requests says nothing of a share
        since = max(start, end - WINDOW)
        share = (total_t[end] - total_t[since]) / (end - since)
        if (share >= middle) if target > before else (share <= middle):
            return float(end - phase.start)
    return math.inf


def share_after_warning(share_t: Array) -> float:
    """The share after the first ``WARNING`` calls; NaN if there were no more."""
    calls_t = np.cumsum(share_t)
    after = int(np.searchsorted(calls_t, WARNING)) + 1
    return float(share_t[after:].mean()) if after < len(share_t) else math.nan


def _whole(rows: list[PhaseRow]) -> PhaseRow:
    """All phases together: means weighted by their rounds. What they had to get used to is not asked."""
    weight_n = np.array([row["rounds"] for row in rows], dtype=np.float64)

    def mean(values: list[float]) -> float:
        return float(np.average(values, weights=weight_n))

    return PhaseRow(
        policy=rows[0]["policy"],
        budget=rows[0]["budget"],
        seed=rows[0]["seed"],
        phase=ALL,
        rounds=int(weight_n.sum()),
        quality=mean([row["quality"] for row in rows]),
        cost=mean([row["cost"] for row in rows]),
        spend_ratio=mean([row["spend_ratio"] for row in rows]),
        share=mean([row["share"] for row in rows]),
        share_warned=math.nan,
        settled=math.nan,
        mix=mean([row["mix"] for row in rows]),
        gain=mean([row["gain"] for row in rows]),
    )


def _optimum(world: World, rounds: Rounds, phase: Phase, budget: float, control: str) -> Array:
    """The shares (t, k) of a control in hindsight of one phase, of the models that were there."""
    part = slice(phase.start, phase.end)
    available = np.flatnonzero(rounds.available_tk[part].all(axis=0))
    quality_tk, cost_tk = rounds.quality_tk[part][:, available], rounds.cost_tk[part][:, available]
    share_tk = np.zeros((phase.end - phase.start, len(world.table.models)))
    if control == "best-fixed":
        share_tk[:, available[best_fixed(quality_tk, cost_tk, budget)]] = 1.0
        return share_tk
    task_t = world.task_n[rounds.row_t[part]]
    group_t = (
        np.unique(task_t, return_inverse=True)[1] if control == "task-lp" else np.zeros(len(task_t), dtype=np.intp)
    )
    share_tk[:, available] = grouped_optimum(quality_tk, cost_tk, group_t, budget)
    return share_tk
