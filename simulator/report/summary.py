"""Summary of a set of runs: means over seeds with intervals, and comparison with static policies.

>>> round(over_seeds([0.7, 0.8, 0.9]).mean, 6)
0.8
>>> format_estimate(over_seeds([0.7, 0.8, 0.9]))
'0.80 ± 0.25'
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

from pointsman.simulator.policies.registry import CASCADE, THOMPSON, is_online
from pointsman.simulator.run.experiment import RunResult
from pointsman.simulator.world.utility import utility_unit

Array = npt.NDArray[np.float64]

LEVEL = 0.95
"""Confidence of all intervals."""
_MAX_DIGITS = 6
"""Most digits after the point that a reader still counts."""
_ROUNDING = 1e-12
"""Differences below are rounding."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and the half width of its interval; ``half`` is ``None`` when one value gives none."""

    mean: float
    half: float | None


@dataclass(frozen=True, slots=True, eq=False)
class RunGroup:
    """The runs of one policy, objective and budget in one world; estimates are over its seeds."""

    world: str
    policy: str
    objective: str
    budget: float | None
    results: tuple[RunResult, ...]
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
class Comparison:
    """The ``gain`` of a policy over one ``control``, with its interval, and the ``sentence`` that says so.

    ``beats`` is ``None`` when the comparison cannot be made.
    """

    control: str
    gain: Estimate | None
    beats: bool | None
    sentence: str


def group_runs(results: Sequence[RunResult]) -> list[RunGroup]:
    """The results by world, policy, objective and budget, in order of first appearance."""
    groups: dict[tuple[str, str, str, float | None], list[RunResult]] = {}
    for result in results:
        row = result.row
        groups.setdefault((row["world"], row["policy"], row["objective"], row["budget"]), []).append(result)
    return [_summarise(*key, tuple(members)) for key, members in groups.items()]


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


def comparisons(group: RunGroup) -> list[Comparison]:
    """Whether a policy beat the best fixed model, in utility, and the best static mix that costs the same, in quality.

    Both controls know all outcomes beforehand. Where every prompt came once, intervals are over prompts, of each prompt's mean
    over the seeds: they say what to expect of other prompts like these. In a changing or noisy world they are over seeds.
    """
    return [_beside_fixed(group), _beside_mix(group)]


def chooses_models(group: RunGroup) -> bool:
    """Whether a policy could be run in earnest and chooses between models: only then is it asked whether it was worth it.

    A cascade could be with a threshold of its own; without one it has the best in hindsight.
    """
    spec = group.results[0].run.policy
    return is_online(spec) or (spec.name == CASCADE and bool(spec.settings))


def is_ours(group: RunGroup) -> bool:
    """Whether a group is of the policy that serves."""
    return group.results[0].run.policy.name == THOMPSON


def _beside_fixed(group: RunGroup) -> Comparison:
    unit = {"quality": "", "dollars": " dollars", "seconds": " seconds"}[utility_unit(group.results[0].run.objective)]
    models = dict.fromkeys(result.benchmarks.fixed for result in group.results)
    control = f"the best fixed model ({', '.join(models)})"
    gains = [result.utility_n - result.benchmarks.fixed_n for result in group.results]
    return _comparison(group, control, _gain(group, gains), f"utility{unit} a request")


def _beside_mix(group: RunGroup) -> Comparison:
    control = "the best static mix of models at the same cost"
    gains = [
        result.quality_n - result.benchmarks.mix_n for result in group.results if result.benchmarks.mix_n is not None
    ]
    if len(gains) < len(group.results):
        return Comparison(
            control, None, None, f"{group.title}: without the cost of every outcome, {control} is not known."
        )
    return _comparison(group, control, _gain(group, gains), "quality")


def _gain(group: RunGroup, gain_sn: Sequence[Array]) -> Estimate:
    """The mean gain, by prompt where that means something, else by seed."""
    if group.results[0].by_prompt:
        return over_prompts(np.mean(gain_sn, axis=0))
    return over_seeds([float(gain_n.mean()) for gain_n in gain_sn])


def _comparison(group: RunGroup, control: str, gain: Estimate, unit: str) -> Comparison:
    if gain.half is None:
        sample = "prompt" if group.results[0].by_prompt else "seed"
        return Comparison(control, gain, None, f"{group.title}: one {sample} cannot tell whether it beat {control}.")
    beats = gain.mean > gain.half
    how = "beat" if beats else "did NOT beat" if gain.mean < -gain.half else "did not clearly beat"
    worse = ", it was worse" if gain.mean < -gain.half else ""
    return Comparison(
        control,
        gain,
        beats,
        f"{group.title}: routing {how} {control}: {gain.mean:+.4g} ± {gain.half:.2g} {unit}{worse}.",
    )


def _summarise(
    world: str, policy: str, objective: str, budget: float | None, results: tuple[RunResult, ...]
) -> RunGroup:
    rows = [result.row for result in results]

    def estimate(name: str) -> Estimate | None:
        values = [row[name] for row in rows]  # type: ignore[literal-required]
        return None if any(value is None for value in values) else over_seeds(values)

    quality, regret = estimate("mean_quality"), estimate("regret")
    assert quality is not None and regret is not None
    return RunGroup(
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


def format_estimate(estimate: Estimate | None, scale: float = 1.0) -> str:
    """``mean ± half`` to two digits of the half; the mean alone where there is none, or nothing varies."""
    if estimate is None:
        return "–"
    if abs(estimate.mean) < _ROUNDING:
        estimate = Estimate(0.0, estimate.half)
    if not estimate.half or estimate.half < _ROUNDING * max(1.0, abs(estimate.mean)):
        return f"{scale * estimate.mean:.4g}"
    half = scale * estimate.half
    digits = max(1 - math.floor(math.log10(half)), 0)
    if digits > _MAX_DIGITS:
        return f"{scale * estimate.mean:.2g} ± {half:.2g}"
    return f"{scale * estimate.mean:.{digits}f} ± {half:.{digits}f}"
