"""Means over seeds with bootstrap intervals, and what each policy is ahead of the peer at equal spend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt
from cases import PEER, Case
from phases import Measured, PhaseRow

Array = npt.NDArray[np.float64]
RESAMPLES = 10_000


class Row(PhaseRow):
    """One phase of one run, and of which case."""

    experiment: str
    variant: str
    start: str
    features: str


class Summary(TypedDict):
    """One phase of one policy at one budget: means over seeds; ``low`` and ``high`` are 95 % bootstrap intervals.

    ``settled`` is the median over seeds, ``spend_most`` the largest. ``ahead`` is the gain less the peer's, in pairs of the same
    seed; NaN without the peer. ``at`` counts the phases.
    """

    experiment: str
    variant: str
    start: str
    features: str
    budget: float
    at: int
    phase: str
    policy: str
    seeds: int
    quality: float
    quality_low: float
    quality_high: float
    cost: float
    spend_ratio: float
    spend_low: float
    spend_high: float
    spend_most: float
    share: float
    share_warned: float
    settled: float
    gain: float
    gain_low: float
    gain_high: float
    ahead: float
    ahead_low: float
    ahead_high: float


class Curve(TypedDict):
    """One stretch of rounds of one policy at one budget: means over seeds, and the standard error of quality's."""

    experiment: str
    variant: str
    start: str
    features: str
    budget: float
    policy: str
    round: float
    quality: float
    quality_se: float
    spend_ratio: float
    share: float


def interval(value_s: Array) -> tuple[float, float]:
    """95 % bootstrap interval of the mean."""
    mean_r = np.random.default_rng(0).choice(value_s, size=(RESAMPLES, len(value_s))).mean(axis=1)
    return float(np.quantile(mean_r, 0.025)), float(np.quantile(mean_r, 0.975))


def summaries(rows: Sequence[Row]) -> list[Summary]:
    """By case, budget, phase and policy, in order of first appearance."""
    groups: dict[tuple[str, str, str, str, float, str, str], dict[int, Row]] = {}
    phases: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        key = (
            row["experiment"],
            row["variant"],
            row["start"],
            row["features"],
            row["budget"],
            row["phase"],
            row["policy"],
        )
        groups.setdefault(key, {})[row["seed"]] = row
        phase_names = phases.setdefault((row["experiment"], row["variant"]), [])
        if row["phase"] not in phase_names:
            phase_names.append(row["phase"])
    summary_rows = []
    for key, by_seed in groups.items():
        experiment, variant, start, features, budget, phase, policy = key
        peers = groups.get((*key[:-1], PEER))
        seeds = sorted(by_seed)

        def of(name: str, by_seed: dict[int, Row] = by_seed, seeds: list[int] = seeds) -> Array:
            return np.array([by_seed[seed][name] for seed in seeds], dtype=np.float64)  # type: ignore[literal-required]

        ahead = (float("nan"),) * 3
        if peers is not None and set(peers) == set(by_seed):
            ahead_s = of("gain") - np.array([peers[seed]["gain"] for seed in seeds])
            ahead = (float(ahead_s.mean()), *interval(ahead_s))
        warned_s = of("share_warned")
        quality, spend, gain = interval(of("quality")), interval(of("spend_ratio")), interval(of("gain"))
        summary_rows.append(
            Summary(
                experiment=experiment,
                variant=variant,
                start=start,
                features=features,
                budget=budget,
                at=phases[experiment, variant].index(phase),
                phase=phase,
                policy=policy,
                seeds=len(seeds),
                quality=float(of("quality").mean()),
                quality_low=quality[0],
                quality_high=quality[1],
                cost=float(of("cost").mean()),
                spend_ratio=float(of("spend_ratio").mean()),
                spend_low=spend[0],
                spend_high=spend[1],
                spend_most=float(of("spend_ratio").max()),
                share=float(of("share").mean()),
                share_warned=float("nan") if np.isnan(warned_s).all() else float(np.nanmean(warned_s)),
                settled=_median(of("settled")),
                gain=float(of("gain").mean()),
                gain_low=gain[0],
                gain_high=gain[1],
                ahead=ahead[0],
                ahead_low=ahead[1],
                ahead_high=ahead[2],
            )
        )
    return summary_rows


def curves(measured: Sequence[tuple[Case, Measured]]) -> list[Curve]:
    """Means over seeds, by case, budget and policy."""
    groups: dict[tuple[str, str, str, str, float, str], list[Measured]] = {}
    for case, result in measured:
        run = result.trial.run
        assert run.budget is not None
        key = (case.experiment, case.variant, case.start, case.features, run.budget, run.policy.text)
        groups.setdefault(key, []).append(result)
    drawn = []
    for (experiment, variant, start, features, budget, policy), members in groups.items():
        curves_s3c = np.array([result.curves_3c for result in members])
        mean_3c = curves_s3c.mean(axis=0)
        spread_c = curves_s3c[:, 0].std(axis=0, ddof=1) if len(members) > 1 else np.zeros(mean_3c.shape[1])
        for c, at in enumerate(members[0].round_c):
            drawn.append(
                Curve(
                    experiment=experiment,
                    variant=variant,
                    start=start,
                    features=features,
                    budget=budget,
                    policy=policy,
                    round=float(at),
                    quality=float(mean_3c[0, c]),
                    quality_se=float(spread_c[c] / np.sqrt(len(members))),
                    spend_ratio=float(mean_3c[1, c]),
                    share=float(mean_3c[2, c]),
                )
            )
    return drawn


def _median(value_s: Array) -> float:
    """Of the seeds in which something had to settle, if that is at least half of them; infinity counts as the largest."""
    known_s = value_s[~np.isnan(value_s)]
    if 2 * known_s.size < value_s.size or not known_s.size:
        return float("nan")
    return float(np.sort(known_s)[known_s.size // 2])
