"""``pointsman simulate --log``: online policies replayed on a log by rejection sampling.

>>> _number_or_none(math.nan), _number_or_none(0.25)
(None, 0.25)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.markup import escape
from rich.table import Table

from pointsman.simulator.offpolicy.intervals.fixed_time import normal
from pointsman.simulator.offpolicy.logs.log import Array, Log
from pointsman.simulator.offpolicy.logs.read import read_log
from pointsman.simulator.offpolicy.rejection import (
    Replayed,
    check_policy,
    in_signal_unit,
    replay,
    snips_scores_by_model,
    world_of,
)
from pointsman.simulator.policies.hindsight import mix_at
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.report.files import write_rows
from pointsman.simulator.report.summary import LEVEL, ROUNDING, Estimate, format_estimate
from pointsman.simulator.report.terminal import console

_CONTROL_KEYS = {"the best fixed model": "over_fixed", "the best static mix at the same cost": "over_mix"}
"""What a replay is compared with, and how the gain over it is called in a row."""


class _Controls:
    """Controls without learning, estimated from the same log: the best fixed model, and the best mix at equal cost.

    Both are picked by their estimates, which favours them.
    """

    def __init__(self, log: Log, signal: str) -> None:
        self._quality_mk = snips_scores_by_model(log, signal)
        self._quality_k = self._quality_mk.mean(axis=0)
        self._cost_k = snips_scores_by_model(log, "cost").mean(axis=0) if "cost" in log.signals else None
        self._best = int(np.nanargmax(self._quality_k))
        self.fixed = f"best fixed model ({log.models[self._best]})"

    def gains(self, quality: float, half: float | None, cost: float) -> tuple[Estimate | None, Estimate | None]:
        """What a replay earned more than either; errors add up as if they were independent."""
        fixed_k = np.eye(len(self._quality_k))[self._best]
        mix_k = None
        if self._cost_k is not None and not math.isnan(cost):
            mix_k = mix_at(self._quality_k, self._cost_k, cost)
        return self._gain(quality, half, fixed_k), None if mix_k is None else self._gain(quality, half, mix_k)

    def _gain(self, quality: float, half: float | None, share_k: Array) -> Estimate | None:
        if math.isnan(quality):
            return None
        used = share_k > 0.0
        score_m = self._quality_mk[:, used] @ share_k[used]
        control = normal(score_m, LEVEL)
        both = None if half is None else math.hypot(half, control.width / 2.0)
        return Estimate(quality - float(score_m.mean()), both)


def replay_log(name: str, signal: str, runs: Sequence[tuple[str, Run]], out: Path | None, as_json: bool) -> None:
    """Replay ``runs`` (each with its objective as it was written) on a log, write and show what was kept.

    ``signal`` is what counts as quality. Raises ``SettingError``, ``LogError``, and ``click.ClickException`` if ``out`` cannot be
    written.
    """
    log = read_log(name)
    for _, run in runs:
        check_policy(run)
    world = world_of(log, signal)
    controls = _Controls(log, signal)
    rows = [
        _row(log, objective, run, in_signal_unit(replay(log, world, run), log, signal), controls)
        for objective, run in runs
    ]
    if out is not None:
        try:
            write_rows(out / "results", rows)
        except OSError as error:
            raise click.ClickException(f"--out {out}: {error}") from error
    if as_json:
        click.echo(json.dumps(rows, allow_nan=False))
        return
    console().print(_sheet(log, signal, controls.fixed, rows))
    for row in rows:
        for control, key in _CONTROL_KEYS.items():
            gain, half = row[f"{key}_gain"], row[f"{key}_half"]
            if gain is not None and half is not None:
                click.echo(f"{row['policy']}, seed {row['seed']}, {_beside(gain, half, signal, control)}")


def _beside(gain: float, half: float, signal: str, control: str) -> str:
    """Whether a gain of a replay over a control means something, in words.

    >>> _beside(0.1, 0.02, "quality", "the best fixed model"), _beside(-1e-17, 1e-18, "quality", "the best fixed model")
    ('beat the best fixed model: +0.1 ± 0.02 quality.', 'did the same as the best fixed model.')
    """
    if abs(gain) + half <= ROUNDING:
        return f"did the same as {control}."
    how = "beat" if gain > half else "was worse than" if gain < -half else "does not differ significantly from"
    return f"{how} {control}: {gain:+.4g} ± {half:.2g} {signal}."


def _row(log: Log, objective: str, run: Run, replayed: Replayed, controls: _Controls) -> dict[str, Any]:
    """One replay as a flat row; ``None`` where a number is not known."""
    (quality, interval), (cost, _) = replayed.mean("quality", LEVEL), replayed.mean("cost", LEVEL)
    latency, _ = replayed.mean("latency", LEVEL)
    kept = len(replayed.kept_m)
    shares = np.bincount(replayed.chosen_m, minlength=len(log.models)) / max(kept, 1)
    row: dict[str, Any] = {
        "world": log.name,
        "policy": run.policy.text,
        "objective": objective,
        "budget": run.budget,
        "seed": run.seed,
        "rounds": kept,
        "mean_quality": _number_or_none(quality),
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
        "mean_cost": _number_or_none(cost),
        "spend_ratio": None if run.budget is None else _number_or_none(cost / run.budget),
        "mean_latency": _number_or_none(latency),
        "regret": None,
        "shares": dict(zip(log.models, shares.tolist(), strict=True)),
    }
    gains = controls.gains(quality, None if interval is None else interval.width / 2.0, cost)
    for key, gain in zip(_CONTROL_KEYS.values(), gains, strict=True):
        row[f"{key}_gain"] = None if gain is None else gain.mean
        row[f"{key}_half"] = None if gain is None else gain.half
    return row


def _sheet(log: Log, signal: str, fixed: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """The table for the terminal."""
    sheet = Table(
        title=escape(f"{len(log)} rounds of {log.name}, replayed by rejection; 95 % t intervals\njudged by {signal}")
    )
    columns = ("policy", "objective", "seed", "rounds kept", signal, "$ per 1,000")
    for title in (*columns, f"− {fixed}", "− best mix at its cost"):
        sheet.add_column(title, justify="left" if title in ("policy", "objective") else "right", overflow="fold")
    for row in rows:
        quality, cost = row["mean_quality"], row["mean_cost"]
        half = None if row["low"] is None else (row["high"] - row["low"]) / 2.0
        shown = "–" if quality is None else format_estimate(Estimate(quality, half))
        dollars = "–" if cost is None else f"{1000.0 * cost:.4g}"
        gains = [
            None if row[f"{key}_gain"] is None else Estimate(row[f"{key}_gain"], row[f"{key}_half"])
            for key in _CONTROL_KEYS.values()
        ]
        cells = (row["policy"], row["objective"], str(row["seed"]), str(row["rounds"]), shown, dollars)
        sheet.add_row(*map(escape, (*cells, *(format_estimate(gain) for gain in gains))))
    return sheet


def _number_or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
