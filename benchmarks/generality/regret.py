"""The regret table: does any seed stay with the wrong model, and how much is lost against the usual bandits?

Regret is against the best model for each context, in expected quality, over all rounds of a world. A seed is *stuck* if in
the last quarter of its rounds it still loses a fifth or more of what the worst choices there would lose. Ours is ``thompson``
with default settings. Each rival has a few tunings, of which the best *in that world* is shown: nobody can tune like that, so
the comparison is hard on ours. The first ratio is ours over the best of the four named rivals so tuned, the second over the best
of them with the one tuning of each that does best in all worlds together; intervals by the delta method, in pairs by seed.
Discounted Thompson sampling, which forgets on purpose, is shown beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from kit import Array, mean_and_half
from rich.table import Table
from rivals import FORGETFUL, NAMED, bandits, lanes_of, play_lanes
from situations import Situation, unfold_world

from pointsman.simulator.run.replay import play_online
from pointsman.simulator.world.rounds import Rounds

OURS = "ours"
STUCK = 0.2
"""Share of the worst choices' loss from which a seed is stuck."""


@dataclass(frozen=True, slots=True)
class RegretJob:
    """``policy`` is ``OURS``, or anything else for all rivals at once."""

    situation: Situation
    policy: str
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Regret:
    """What a policy lost in each of s worlds, and which seeds are stuck; ``tuning`` is "" where there is none."""

    situation: str
    policy: str
    tuning: str
    total_s: Array
    stuck_s: np.ndarray


def jobs_of(situations: Sequence[Situation], seeds: int) -> list[RegretJob]:
    """Ours seed by seed, the rivals all seeds at once; the longest first."""
    ours = [RegretJob(situation, OURS, (seed,)) for situation in situations for seed in range(seeds)]
    rivals = [RegretJob(situation, "rivals", tuple(range(seeds))) for situation in situations]
    return [*rivals, *sorted(ours, key=lambda job: -job.situation.rounds)]


def run_job(job: RegretJob) -> list[Regret]:
    """Play."""
    worlds = [unfold_world(job.situation, seed) for seed in job.seeds]
    loss_stk = np.array([losses(rounds) for _, _, rounds in worlds])

    def regret(policy: str, tuning: str, chosen_st: np.ndarray) -> Regret:
        lost_st = np.take_along_axis(loss_stk, chosen_st[..., None], axis=2)[..., 0]
        last = slice(-(lost_st.shape[1] // 4), None)
        worst_s = np.nanmax(loss_stk[:, last], axis=2).mean(axis=1)
        return Regret(
            job.situation.name, policy, tuning, lost_st.sum(axis=1), lost_st[:, last].mean(axis=1) >= STUCK * worst_s
        )

    if job.policy == OURS:
        chosen_st = np.array([play_online(world, run, rounds).chosen_t for world, run, rounds in worlds])
        return [regret(OURS, "", chosen_st)]
    lanes = lanes_of([(world.z_np, rounds) for world, _, rounds in worlds], job.situation.delay)
    s, _, k = lanes.reward_stk.shape
    return [
        regret(policy, tuning, play_lanes(bandit, lanes, seed=1))
        for policy, tuning, bandit in bandits(s, k, lanes.z_std.shape[2])
    ]


def losses(rounds: Rounds) -> Array:
    """What each choice loses in expectation, (t, k); NaN of models that are not there."""
    quality_tk = np.where(rounds.available_tk, rounds.expected.quality_tk, np.nan)
    return np.asarray(np.nanmax(quality_tk, axis=1, keepdims=True) - quality_tk)


def best_tunings(regrets: Sequence[Regret]) -> dict[str, dict[str, Regret]]:
    """By situation and policy the tuning with the least mean regret; seeds of ours put together."""
    of_situation: dict[str, dict[str, Regret]] = {}
    for name in dict.fromkeys(regret.situation for regret in regrets):
        here = [regret for regret in regrets if regret.situation == name]
        ours = [regret for regret in here if regret.policy == OURS]
        best = {
            OURS: Regret(
                name,
                OURS,
                "",
                np.concatenate([regret.total_s for regret in ours]),
                np.concatenate([regret.stuck_s for regret in ours]),
            )
        }
        for policy in (*NAMED, FORGETFUL):
            tuned = [regret for regret in here if regret.policy == policy]
            best[policy] = min(tuned, key=lambda regret: float(regret.total_s.mean()))
        of_situation[name] = best
    return of_situation


def usual_tunings(regrets: Sequence[Regret]) -> dict[str, str]:
    """By rival the one tuning that is best in all situations together: whose geometric mean of regrets is the least."""
    usual = {}
    for policy in NAMED:
        logs: dict[str, list[float]] = {}
        for regret in regrets:
            if regret.policy == policy:
                logs.setdefault(regret.tuning, []).append(float(np.log(regret.total_s.mean() + 1.0)))
        usual[policy] = min(logs, key=lambda tuning: float(np.mean(logs[tuning])))
    return usual


def ratio_and_half(ours_s: Array, theirs_s: Array) -> tuple[float, float]:
    """Ratio of the means, and half of its 95 % interval."""
    ratio = float(ours_s.mean() / theirs_s.mean())
    return ratio, mean_and_half((ours_s - ratio * theirs_s) / theirs_s.mean())[1]


def rows_of(regrets: Sequence[Regret]) -> list[list[str]]:
    """The table's rows as text."""
    best_by_situation, usual = best_tunings(regrets), usual_tunings(regrets)
    rows = []
    for name, best in best_by_situation.items():
        cells = [name]
        for policy in (OURS, *NAMED, FORGETFUL):
            regret = best[policy]
            mean, half = mean_and_half(regret.total_s)
            tuning = f" ({regret.tuning})" if regret.tuning else ""
            cells.append(f"{mean:.0f} ± {half:.0f}, {regret.total_s.max():.0f}, {regret.stuck_s.sum()}{tuning}")
        tuned = [best[policy] for policy in NAMED]
        untuned = [r for r in regrets if r.situation == name and usual.get(r.policy) == r.tuning]
        for rivals in (tuned, untuned):
            rival = min(rivals, key=lambda regret: float(regret.total_s.mean()))
            ratio, half = ratio_and_half(best[OURS].total_s, rival.total_s)
            cells.append(f"{ratio:.2f} ± {half:.2f}")
        rows.append(cells)
    return rows


HEADINGS = ("world", OURS, *NAMED, FORGETFUL, "ours / best of the four", "with one tuning each")


def table_of(rows: Sequence[Sequence[str]], seeds: int) -> Table:
    """For the terminal."""
    shown = Table(title=f"regret, {seeds} seeds: mean ± 95 %, worst seed, stuck seeds (best tuning)")
    for heading in HEADINGS:
        shown.add_column(heading)
    for row in rows:
        shown.add_row(*row)
    return shown


def markdown_of(rows: Sequence[Sequence[str]]) -> str:
    """For the documentation."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
