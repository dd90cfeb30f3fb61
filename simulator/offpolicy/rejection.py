"""Replay of an online policy on a log by rejection: rounds in which its choice differs from the logged one are skipped.

Li, Chu, Langford and Wang, "Unbiased offline evaluation of contextual-bandit-based news article recommendation algorithms"
(WSDM 2011), algorithm 1: the policy is asked about each logged request in turn; where it chooses what the log did, it learns the
outcome, and elsewhere the request is as if it had never come. For logs of an even draw what is kept are requests as they come,
and the mean of what was kept is what the policy would earn in as many rounds, learning on the way.

Where the log's propensities differ, a match is kept with probability c / propensity only, c the smallest propensity of any model
in any round, so that each (request, model) is kept alike. That wastes most of a log whose policy rarely explored; for a policy
that does not learn from what it does, estimate from all rounds instead (``estimators``).

>>> log = Log(
...     name="even", models=("small", "large"), groups=("chat",), chosen_n=np.arange(100) % 2, propensity_n=np.full(100, 0.5),
...     logged_nk=None, eligible_nk=np.ones((100, 2), dtype=np.bool_), signals={"quality": np.arange(100) % 2 * 1.0},
...     x_nd=np.zeros((100, 0)), group_n=np.zeros(100, dtype=np.intp), time_ns_n=np.arange(100),
... )
>>> keep_rate(log)
0.5
>>> snips_scores_by_model(log, "quality").mean(axis=0).tolist()
[0.0, 1.0]
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.offpolicy.estimators.scores import snips
from pointsman.simulator.offpolicy.intervals.fixed_time import normal
from pointsman.simulator.offpolicy.intervals.interval import Interval
from pointsman.simulator.offpolicy.logs.log import Array, Indices, Log, LogError
from pointsman.simulator.policies.base import Choice, OnlinePolicy
from pointsman.simulator.policies.registry import make_policy
from pointsman.simulator.policies.spec import Run, policy_rng
from pointsman.simulator.policies.thompson import Thompson
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.rounds import CallOutcome
from pointsman.simulator.world.world import World, make_world, order_of

POLICIES = ("thompson", "uniform", "epsilon-greedy", "linucb", "beta-thompson")
"""Those whose choice changes nothing until it is learned."""
FEWEST = 20
"""Rounds that must be expected to be kept."""


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """The rounds that were kept (m of the log's), in the order of the replay, with the models chosen and their outcomes.

    Quality is in [0, 1] (see :func:`world_of`), cost in dollars, latency in seconds; NaN where it was not reported.
    """

    kept_m: Indices
    chosen_m: Indices
    quality_m: Array
    cost_m: Array
    latency_m: Array

    def mean(self, signal: str, level: float) -> tuple[float, Interval | None]:
        """The mean of ``quality``, ``cost`` or ``latency`` over the rounds that reported it, with a t interval.

        NaN where none did; no interval where fewer than two did.
        """
        value_m = {"quality": self.quality_m, "cost": self.cost_m, "latency": self.latency_m}[signal]
        reported_m = value_m[~np.isnan(value_m)]
        if not reported_m.size:
            return math.nan, None
        return float(reported_m.mean()), normal(reported_m, level) if reported_m.size > 1 else None


def world_of(log: Log, signal: str = "quality") -> World:
    """A world whose requests are those of ``log``, and of whose outcomes only the chosen models' are known.

    ``signal``, scaled to [0, 1] by :func:`signal_range`, is the quality that policies see. Groups are tasks. Raises ``LogError``.
    """
    if signal not in log.signals or np.isnan(log.signals[signal]).all():
        raise LogError(f"{log.name}: {signal}: expected a signal that the log has: {', '.join(sorted(log.signals))}")
    n, k = len(log), len(log.models)
    rows_n = np.arange(n)

    def cells(name: str) -> Array:
        cell_nk = np.full((n, k), np.nan)
        if name in log.signals:
            cell_nk[rows_n, log.chosen_n] = log.signals[name]
        return cell_nk

    low, high = signal_range(log, signal)
    quality_nk = (cells(signal) - low) / (high - low)
    table = OutcomeTable(
        name=log.name,
        sha256="",
        models=log.models,
        prompt_ids=tuple(map(str, range(n))),
        tasks=tuple(log.groups[i] for i in log.group_n.tolist()),
        texts=None,
        x_nd=log.x_nd.copy() if log.x_nd.shape[1] else None,
        input_tokens_n=np.full(n, -1),
        quality_nk=quality_nk,
        cost_nk=cells("cost"),
        latency_nk=cells("latency"),
        output_tokens_nk=np.full((n, k), np.nan),
    )
    return make_world(table, Features("x" if log.x_nd.shape[1] else "none", "one"))


def signal_range(log: Log, signal: str) -> tuple[float, float]:
    """The range that a signal is taken to have: 0 to 1, or as far beyond as its values are."""
    value_n = log.signals[signal]
    return min(0.0, float(np.nanmin(value_n))), max(1.0, float(np.nanmax(value_n)))


def keep_rate(log: Log) -> float:
    """c, the smallest propensity: a match is kept with probability c / its propensity, so c is the share of rounds kept.

    Raises:
        LogError: the log does not say what its smallest propensity is, or fewer than ``FEWEST`` rounds would be kept.
    """
    if log.logged_nk is None:
        if float(np.ptp(log.propensity_n)) > 1e-9:
            raise LogError(f"{log.name}: expected the log's whole distribution, or the same propensity in every round")
        c = float(log.propensity_n[0])
    else:
        c = float(np.where(log.eligible_nk, log.logged_nk, np.inf).min())
    if c * len(log) < FEWEST:
        raise LogError(
            f"{log.name}: expected to keep {FEWEST} rounds or more, but the smallest propensity, {c:.2g}, leaves about "
            f"{c * len(log):.2g} of {len(log)}; a log that explores more, or an estimate of a fixed policy, would do"
        )
    return c


def check_policy(run: Run) -> None:
    """Raise ``SettingError`` for a policy that cannot be replayed so."""
    if run.policy.name not in POLICIES:
        raise SettingError(f"policy {run.policy.text!r}: expected one of {', '.join(POLICIES)} on a log")


def replay(log: Log, world: World, run: Run) -> Replayed:
    """Replay a policy of ``POLICIES`` on ``log``, whose ``world`` is :func:`world_of`, in the seed's order of its rounds.

    Raises ``SettingError`` for another policy, ``LogError`` if too little would be kept.
    """
    check_policy(run)
    c = keep_rate(log)
    policy: OnlinePolicy = make_policy(world, run, policy_rng(run))
    luck_n = np.random.default_rng([run.seed, 6]).random(len(log))
    kept: list[int] = []
    for row in order_of(world, run.seed):
        t = len(kept)
        proposed = policy.propose(t, row) if isinstance(policy, Thompson) else None
        model = policy.number(proposed) if isinstance(policy, Thompson) and proposed else policy.choose(t, row)
        if model != log.chosen_n[row] or luck_n[row] * log.propensity_n[row] >= c:
            continue
        if isinstance(policy, Thompson) and proposed is not None:
            policy.commit(t, proposed)
        kept.append(row)
        policy.learn(t, Choice(t, row, model), _outcome(world.table, row, model))
    kept_m = np.array(kept, dtype=np.intp)
    cells = (kept_m, log.chosen_n[kept_m])
    table = world.table
    return Replayed(*cells, table.quality_nk[cells], table.cost_nk[cells], table.latency_nk[cells])


def _outcome(table: OutcomeTable, row: int, model: int) -> CallOutcome:
    quality = float(table.quality_nk[row, model])
    return CallOutcome(
        quality=quality,
        cost=float(table.cost_nk[row, model]),
        latency=float(table.latency_nk[row, model]),
        output_tokens=math.nan,
        quality_reported=not math.isnan(quality),
    )


def snips_scores_by_model(log: Log, signal: str) -> Array:
    """Scores (m, k) whose means are each model's own value: self-normalised, over the rounds where ``signal`` was reported.

    NaN for a model that the log never chose there.
    """
    value_n = log.signals[signal]
    reported_n = ~np.isnan(value_n)
    columns = []
    for model in range(len(log.models)):
        weight_m = ((log.chosen_n == model) / log.propensity_n)[reported_n]
        columns.append(snips(value_n[reported_n], weight_m).score_n)
    return np.column_stack(columns)


def in_signal_unit(replayed: Replayed, log: Log, signal: str) -> Replayed:
    """``replayed`` with quality in the signal's own unit instead of [0, 1]."""
    low, high = signal_range(log, signal)
    return replace(replayed, quality_m=low + (high - low) * replayed.quality_m)
