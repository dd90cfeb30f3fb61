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

from pointsman.bandit.catalog import Mode
from pointsman.simulator.policies.registry import CASCADE, THOMPSON, is_online
from pointsman.simulator.policies.rule import describe_rule, worth_unit
from pointsman.simulator.run.experiment import RunResult

Array = npt.NDArray[np.float64]

LEVEL = 0.95
"""Confidence of all intervals."""
_MAX_DIGITS = 6
"""Most digits after the point that a reader still counts."""
ROUNDING = 1e-12
"""Differences below are rounding."""
_TIE = 1e-9
"""Gains smaller than this share of what is compared are rounding, and no verdict."""


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

    @property
    def judged_by(self) -> str:
        """By what policies are judged under this objective, as a sentence."""
        objective = self.results[0].run.objective
        regret = (
            "; regret is by single answers (one under the floor is bought again)" if objective.has_request_floor else ""
        )
        return f"{self.objective} is judged by {describe_rule(objective)}{regret}."


@dataclass(frozen=True, slots=True)
class Comparison:
    """The ``gain`` of a policy over one ``control`` in ``unit``, with its interval, and the ``sentence`` that says so.

    ``beats`` is ``None`` when the comparison cannot be made.
    """

    control: str
    gain: Estimate | None
    beats: bool | None
    sentence: str
    unit: str = "quality"


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
    """Whether a policy beat the best fixed model, by the rule that serves, and in quality the best static mix of the same cost.

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
    """By the rule that serves (``policies.rule``): what must be kept first, then what the objective wants."""
    objective = group.results[0].run.objective
    models = dict.fromkeys(result.benchmarks.fixed for result in group.results)
    control = f"the best fixed model ({', '.join(models)})"
    worths = [(result.judged_n.worth_n, result.benchmarks.fixed_n.worth_n) for result in group.results]
    unit = worth_unit(objective)
    if group.results[0].benchmarks.floor is None:
        of_utility = "utility a request" if objective.mode in (Mode.BALANCED, Mode.WEIGHTED) else "quality"
        return _comparison(group, control, _gained(group, worths), of_utility)
    return _beside_fixed_above_floor(group, control, _gained(group, worths), unit)


def _beside_fixed_above_floor(group: RunGroup, control: str, worth: Gain, unit: str) -> Comparison:
    """A policy that is clearly under the floor does not beat a model that keeps it; where none does, coming nearer counts."""
    what = "share of answers" if group.results[0].run.objective.mode is Mode.AVAILABILITY_FIRST else "mean quality"
    kepts = [
        (result.judged_n.kept_n, result.benchmarks.fixed_n.kept_n)
        for result in group.results
        if result.judged_n.kept_n is not None and result.benchmarks.fixed_n.kept_n is not None
    ]
    floor = float(np.mean([result.benchmarks.floor for result in group.results]))
    to_floor = _gained(group, [(kept_n, np.full(len(kept_n), result.benchmarks.floor))
                               for (kept_n, _), result in zip(kepts, group.results, strict=True)])  # fmt: skip
    kept = float(np.mean([kept_n.mean() for kept_n, _ in kepts]))
    fixed_kept = float(np.mean([kept_n.mean() for _, kept_n in kepts]))
    beside = f"its {what} is {kept:.4g}, the model's {fixed_kept:.4g}, the floor {floor:.4g}"
    if not all(result.benchmarks.fixed_keeps for result in group.results):
        control = f"{control}, which does not keep the floor, as no model does"
        return _comparison(group, control, _gained(group, kepts), what, beside)
    if to_floor.is_clearly(-1):
        sentence = f"{group.title}: routing did NOT beat {control}: it does not keep the floor; {beside}."
        return Comparison(control, _gained(group, kepts).estimate, False, sentence, "quality")
    return _comparison(group, control, worth, unit if unit == "quality" else f"{unit} saved a request", beside)


def _beside_mix(group: RunGroup) -> Comparison:
    is_timed = group.results[0].run.objective.mode is Mode.LATENCY_FIRST
    control = f"the best static mix of models at the same {'latency' if is_timed else 'cost'}"
    pairs = [
        (result.quality_n, result.benchmarks.mix_n) for result in group.results if result.benchmarks.mix_n is not None
    ]
    if len(pairs) < len(group.results):
        known = "latency" if is_timed else "cost"
        return Comparison(
            control, None, None, f"{group.title}: without the {known} of every outcome, {control} is not known."
        )
    return _comparison(group, control, _gained(group, pairs), "quality")


@dataclass(frozen=True, slots=True)
class Gain:
    """What was gained, with its interval; ``scale`` is the size of what was compared: far below it a difference is rounding."""

    estimate: Estimate
    scale: float

    @property
    def is_none(self) -> bool:
        """Whether there is no difference but rounding."""
        return abs(self.estimate.mean) + (self.estimate.half or 0.0) <= _TIE * self.scale

    def is_clearly(self, sign: int) -> bool:
        """Whether it is above (``sign`` 1) or below (-1) 0, and its interval too."""
        half = self.estimate.half
        return half is not None and not self.is_none and sign * self.estimate.mean > half


def _gained(group: RunGroup, pairs: Sequence[tuple[Array, Array]]) -> Gain:
    """The mean gain of the first of each pair over the second, by prompt where that means something, else by seed."""
    gain_sn = [ours_n - theirs_n for ours_n, theirs_n in pairs]
    scale = max(float(np.abs(value_n).max()) for pair in pairs for value_n in pair)
    if group.results[0].by_prompt:
        return Gain(over_prompts(np.mean(gain_sn, axis=0)), scale)
    return Gain(over_seeds([float(gain_n.mean()) for gain_n in gain_sn]), scale)


def _comparison(group: RunGroup, control: str, gained: Gain, unit: str, beside: str = "") -> Comparison:
    """The comparison in words; ``unit`` is of the gain, ``beside`` what else there is to say."""
    gain, more = gained.estimate, f"; {beside}" if beside else ""
    short_unit = unit.split()[0]
    if gained.is_none:
        how = "is even with" if beside else "did the same as"
        sentence = f"{group.title}: routing {how} {control}{more}."
        return Comparison(control, Estimate(0.0, None), False, sentence, short_unit)
    if gain.half is None:
        sample = "prompt" if group.results[0].by_prompt else "seed"
        sentence = f"{group.title}: one {sample} cannot tell whether it beat {control}{more}."
        return Comparison(control, gain, None, sentence, short_unit)
    beats, is_worse = gained.is_clearly(1), gained.is_clearly(-1)
    how = "beat" if beats else "did NOT beat" if is_worse else "did not clearly beat"
    worse = ", it was worse" if is_worse else ""
    numbers = f"{gain.mean:+.4g} ± {gain.half:.2g} {unit}"
    return Comparison(
        control, gain, beats, f"{group.title}: routing {how} {control}: {numbers}{worse}{more}.", short_unit
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


def format_gain(comparison: Comparison) -> str:
    """The gain with its unit, where that is not quality or utility."""
    unit = {"dollars": " $", "seconds": " s"}.get(comparison.unit, "")
    return format_estimate(comparison.gain) + (unit if comparison.gain is not None else "")


def format_estimate(estimate: Estimate | None, scale: float = 1.0) -> str:
    """``mean ± half`` to two digits of the half; the mean alone where there is none, or nothing varies."""
    if estimate is None:
        return "–"
    if abs(estimate.mean) < ROUNDING:
        estimate = Estimate(0.0, estimate.half)
    if not estimate.half or estimate.half < ROUNDING * max(1.0, abs(estimate.mean)):
        return f"{scale * estimate.mean:.4g}"
    half = scale * estimate.half
    digits = max(1 - math.floor(math.log10(half)), 0)
    if digits > _MAX_DIGITS:
        return f"{scale * estimate.mean:.2g} ± {half:.2g}"
    mean = f"{scale * estimate.mean:.{digits}f}"
    return f"{mean.lstrip('-') if float(mean) == 0.0 else mean} ± {half:.{digits}f}"
