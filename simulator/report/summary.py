"""What a set of runs says: means over seeds with intervals, and whether routing was worth it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

from pointsman.simulator.policies.registry import CASCADE, THOMPSON, is_online
from pointsman.simulator.run.experiment import Result
from pointsman.simulator.world.utility import utility_unit

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
    """The runs of one policy, objective and budget in one world; estimates are over its seeds."""

    world: str
    policy: str
    objective: str
    budget: float | None
    results: tuple[Result, ...]
    quality: Estimate
    cost: Estimate | None
    spend_ratio: Estimate | None
    latency: Estimate | None
    regret: Estimate

    @property
    def title(self) -> str:
        """``policy, world, objective, budget`` as a reader would name it."""
        return f"{self.policy}, {self.setting}"

    @property
    def setting(self) -> str:
        """``world, objective, budget``."""
        within = "" if self.budget is None else f", ${self.budget:g} a request"
        return f"{self.world}, {self.objective}{within}"


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
    """The results by world, policy, objective and budget, in order of first appearance."""
    groups: dict[tuple[str, str, str, float | None], list[Result]] = {}
    for result in results:
        row = result.row
        groups.setdefault((row["world"], row["policy"], row["objective"], row["budget"]), []).append(result)
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


def verdicts(one: Group) -> list[Verdict]:
    """Whether a policy beat the best fixed model, in utility, and the best static mix that costs the same, in quality.

    Both controls know all outcomes beforehand. Where every prompt came once, intervals are over prompts, of each prompt's mean
    over the seeds: they say what to expect of other prompts like these. In a changing or noisy world they are over seeds.
    """
    return [_against_fixed(one), _against_mix(one)]


def routes(one: Group) -> bool:
    """Whether a group is of a policy that one could run, and that chooses: what verdicts are worth giving of."""
    spec = one.results[0].run.policy
    return is_online(spec) or (spec.name == CASCADE and bool(spec.settings))


def is_ours(one: Group) -> bool:
    """Whether a group is of the policy that serves."""
    return one.results[0].run.policy.name == THOMPSON


def _against_fixed(one: Group) -> Verdict:
    unit = {"quality": "", "dollars": " dollars", "seconds": " seconds"}[utility_unit(one.results[0].run.objective)]
    names = dict.fromkeys(result.against.fixed for result in one.results)
    against = f"the best fixed model ({', '.join(names)})"
    gains = [result.utility_n - result.against.fixed_n for result in one.results]
    return _verdict(one, against, _gain(one, gains), f"utility{unit} a request")


def _against_mix(one: Group) -> Verdict:
    against = "the best static mix of models at the same cost"
    gains = [result.quality_n - result.against.mix_n for result in one.results if result.against.mix_n is not None]
    if len(gains) < len(one.results):
        return Verdict(against, None, None, f"{one.title}: without the cost of every outcome, {against} is not known.")
    return _verdict(one, against, _gain(one, gains), "quality")


def _gain(one: Group, gain_sn: Sequence[Array]) -> Estimate:
    """The mean gain, by prompt where that means something, else by seed."""
    if one.results[0].by_prompt:
        return over_prompts(np.mean(gain_sn, axis=0))
    return over_seeds([float(gain_n.mean()) for gain_n in gain_sn])


def _verdict(one: Group, against: str, gain: Estimate, unit: str) -> Verdict:
    if gain.half is None:
        sample = "prompt" if one.results[0].by_prompt else "seed"
        return Verdict(against, gain, None, f"{one.title}: one {sample} cannot tell whether it beat {against}.")
    beats = gain.mean > gain.half
    how = "beat" if beats else "did NOT beat" if gain.mean < -gain.half else "did not clearly beat"
    worse = ", it was worse" if gain.mean < -gain.half else ""
    return Verdict(
        against,
        gain,
        beats,
        f"{one.title}: routing {how} {against}: {gain.mean:+.4g} ± {gain.half:.2g} {unit}{worse}.",
    )


def _group(world: str, policy: str, objective: str, budget: float | None, results: tuple[Result, ...]) -> Group:
    rows = [result.row for result in results]

    def estimate(name: str) -> Estimate | None:
        values = [row[name] for row in rows]  # type: ignore[literal-required]
        return None if any(value is None for value in values) else over_seeds(values)

    quality, regret = estimate("mean_quality"), estimate("regret")
    assert quality is not None and regret is not None
    return Group(
        world=world,
        policy=policy,
        objective=objective,
        budget=budget,
        results=results,
        quality=quality,
        cost=estimate("mean_cost"),
        spend_ratio=estimate("spend_ratio"),
        latency=estimate("mean_latency"),
        regret=regret,
    )


_DIGITS = 6
"""Digits after the point that a reader still counts."""


_NOTHING = 1e-12
"""Differences below are rounding."""


def number(estimate: Estimate | None, scale: float = 1.0) -> str:
    """``mean ± half`` to two digits of the half; the mean alone where there is none, or nothing varies."""
    if estimate is None:
        return "–"
    if abs(estimate.mean) < _NOTHING:
        estimate = Estimate(0.0, estimate.half)
    if not estimate.half or estimate.half < _NOTHING * max(1.0, abs(estimate.mean)):
        return f"{scale * estimate.mean:.4g}"
    half = scale * estimate.half
    digits = max(1 - math.floor(math.log10(half)), 0)
    if digits > _DIGITS:
        return f"{scale * estimate.mean:.2g} ± {half:.2g}"
    return f"{scale * estimate.mean:.{digits}f} ± {half:.{digits}f}"
