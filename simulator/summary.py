"""What a set of runs says: means over seeds with intervals, and whether routing was worth it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

from simulator.baselines import best_fixed, best_shares
from simulator.experiment import Result
from simulator.replay import FIXED, HINDSIGHT, THOMPSON
from simulator.table import OutcomeTable
from simulator.utility import utilities, utility_unit

Array = npt.NDArray[np.float64]

LEVEL = 0.95
"""Of all intervals."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and the half width of its interval; ``half`` is ``None`` when one value gives none."""

    mean: float
    half: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The runs of one policy, objective and budget; estimates are over its seeds.

    ``quality_n``, ``cost_n`` and ``utility_n`` are each prompt's means over the seeds.
    """

    policy: str
    objective: str
    budget: float | None
    results: tuple[Result, ...]
    quality: Estimate
    cost: Estimate | None
    spend_ratio: Estimate | None
    latency: Estimate | None
    regret: Estimate
    quality_n: Array
    cost_n: Array
    utility_n: Array

    @property
    def title(self) -> str:
        """``policy, objective, budget`` as a reader would name it."""
        return f"{self.policy}, {self.setting}"

    @property
    def setting(self) -> str:
        """``objective, budget``."""
        return self.objective if self.budget is None else f"{self.objective}, ${self.budget:g} a request"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``gain`` of a policy over one control in ``unit``, with an interval over prompts, and the sentence that says so.

    ``beats`` is ``None`` when the comparison cannot be made.
    """

    against: str
    gain: Estimate | None
    beats: bool | None
    sentence: str


def group(results: Sequence[Result]) -> list[Group]:
    """The results by policy, objective and budget, in order of first appearance."""
    groups: dict[tuple[str, str, float | None], list[Result]] = {}
    for result in results:
        row = result.row
        groups.setdefault((row["policy"], row["objective"], row["budget"]), []).append(result)
    return [_group(*key, tuple(members)) for key, members in groups.items()]


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean of a policy over seeds and the half width of its Student-t interval."""
    n = len(values)
    if n < 2:
        return Estimate(float(np.mean(values)), None)
    spread = float(np.std(values, ddof=1)) / math.sqrt(n)
    return Estimate(float(np.mean(values)), float(stdtrit(n - 1, (1.0 + LEVEL) / 2.0)) * spread)


def over_prompts(value_n: Array) -> Estimate:
    """Mean over prompts and the half width of its Normal interval, as if the prompts were a sample of many."""
    if len(value_n) < 2:
        return Estimate(float(value_n.mean()), None)
    spread = float(value_n.std(ddof=1)) / math.sqrt(len(value_n))
    return Estimate(float(value_n.mean()), float(ndtri((1.0 + LEVEL) / 2.0)) * spread)


def mix_at(table: OutcomeTable, cost: float) -> Array:
    """Shares (k) of the static mix of best mean quality at a mean cost of ``cost`` dollars, in hindsight.

    Below the cheapest model that model: then the mix may spend more.
    """
    quality_1k = table.quality_nk.mean(axis=0, keepdims=True)
    cost_1k = table.cost_nk.mean(axis=0, keepdims=True)
    shares_k: Array = best_shares(quality_1k, cost_1k, np.ones(1), cost)[0]
    return shares_k


def verdicts(table: OutcomeTable, one: Group) -> list[Verdict]:
    """Whether a policy beat the best fixed model, in utility, and the best static mix that costs the same, in quality.

    Both controls know all outcomes beforehand. Intervals are over prompts, of each prompt's mean over the seeds: they say
    what to expect of other prompts like these.
    """
    return [_against_fixed(table, one), _against_mix(table, one)]


def routes(one: Group) -> bool:
    """Whether a group is of a policy that one could run, and that chooses: what verdicts are worth giving of."""
    return one.policy not in HINDSIGHT and not one.policy.startswith(FIXED)


def is_ours(one: Group) -> bool:
    """Whether a group is of the policy that serves."""
    return one.policy == THOMPSON


def _against_fixed(table: OutcomeTable, one: Group) -> Verdict:
    objective = one.results[0].run.objective
    utility_nk = utilities(table, objective)
    best = best_fixed(utility_nk, None if np.isnan(table.cost_nk).any() else table.cost_nk, one.budget)
    against = f"the best fixed model ({table.models[best]})"
    unit = {"quality": "", "dollars": " dollars", "seconds": " seconds"}[utility_unit(objective)]
    return _verdict(one, against, over_prompts(one.utility_n - utility_nk[:, best]), f"utility{unit} a request")


def _against_mix(table: OutcomeTable, one: Group) -> Verdict:
    against = "the best static mix of models at the same cost"
    if np.isnan(table.cost_nk).any():
        return Verdict(against, None, None, f"{one.title}: without the cost of every outcome, {against} is not known.")
    shares_k = mix_at(table, float(one.cost_n.mean()))
    return _verdict(one, against, over_prompts(one.quality_n - table.quality_nk @ shares_k), "quality")


def _verdict(one: Group, against: str, gain: Estimate, unit: str) -> Verdict:
    if gain.half is None:
        return Verdict(against, gain, None, f"{one.title}: one prompt cannot tell whether it beat {against}.")
    beats = gain.mean > gain.half
    how = "beat" if beats else "did NOT beat" if gain.mean < -gain.half else "did not clearly beat"
    worse = ", it was worse" if gain.mean < -gain.half else ""
    return Verdict(
        against,
        gain,
        beats,
        f"{one.title}: routing {how} {against}: {gain.mean:+.4g} ± {gain.half:.2g} {unit}{worse}.",
    )


def _group(policy: str, objective: str, budget: float | None, results: tuple[Result, ...]) -> Group:
    rows = [result.row for result in results]

    def estimate(name: str) -> Estimate | None:
        values = [row[name] for row in rows]  # type: ignore[literal-required]
        return None if any(value is None for value in values) else over_seeds(values)

    quality, regret = estimate("mean_quality"), estimate("regret")
    assert quality is not None and regret is not None
    return Group(
        policy=policy,
        objective=objective,
        budget=budget,
        results=results,
        quality=quality,
        cost=estimate("mean_cost"),
        spend_ratio=estimate("spend_ratio"),
        latency=estimate("mean_latency"),
        regret=regret,
        quality_n=np.mean([result.quality_n for result in results], axis=0),
        cost_n=np.mean([result.cost_n for result in results], axis=0),
        utility_n=np.mean([result.utility_n for result in results], axis=0),
    )
