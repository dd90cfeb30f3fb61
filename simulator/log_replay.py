"""What ``pointsman simulate --log`` does: policies that learn, replayed on a log by rejection."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from rich.markup import escape
from rich.table import Table

from simulator.offpolicy.read import read_log
from simulator.offpolicy.read_journal import Journal
from simulator.offpolicy.rejection import check_policy, in_units, replay, world_of
from simulator.report import number, write_rows
from simulator.summary import LEVEL, Estimate
from simulator.terminal import console
from simulator.world import Run


def replay_log(name: str, signal: str, runs: Sequence[tuple[str, Run]], out: Path | None, as_json: bool) -> None:
    """Replay ``runs`` (each with its objective as it was written), write and show what was kept.

    Raises ``SettingError``, ``LogError`` and ``click.ClickException``.
    """
    source = read_log(name)
    log = source.log if isinstance(source, Journal) else source
    for _, run in runs:
        check_policy(run)
    world = world_of(log, signal)
    rows, sheet = [], Table(title=escape(f"{len(log)} rounds of {log.name}, replayed by rejection; 95 % t intervals"))
    for title in ("policy", "objective", "seed", "rounds kept", signal, "$ per 1,000"):
        sheet.add_column(title, justify="left" if title in ("policy", "objective") else "right", overflow="fold")
    for objective, run in runs:
        found = in_units(replay(log, world, run), log, signal)
        (quality, interval), (cost, _) = found.mean("quality", LEVEL), found.mean("cost", LEVEL)
        latency, _ = found.mean("latency", LEVEL)
        kept = len(found.kept_m)
        shares = np.bincount(found.chosen_m, minlength=len(log.models)) / max(kept, 1)
        rows.append(
            {
                "world": log.name,
                "policy": run.policy,
                "objective": objective,
                "budget": run.budget,
                "seed": run.seed,
                "rounds": kept,
                "mean_quality": _known(quality),
                "low": None if interval is None else interval.low,
                "high": None if interval is None else interval.high,
                "mean_cost": _known(cost),
                "spend_ratio": None if run.budget is None else _known(cost / run.budget),
                "mean_latency": _known(latency),
                "regret": None,
                "shares": dict(zip(log.models, shares.tolist(), strict=True)),
            }
        )
        half = None if interval is None else interval.width / 2.0
        dollars = "–" if math.isnan(cost) else f"{1000.0 * cost:.4g}"
        shown = number(Estimate(quality, half)) if kept else "–"
        sheet.add_row(escape(run.policy), escape(objective), str(run.seed), str(kept), shown, dollars)
    if out is not None:
        try:
            write_rows(out / "results", rows)
        except OSError as error:
            raise click.ClickException(f"--out {out}: {error}") from error
    if as_json:
        click.echo(json.dumps(rows, allow_nan=False))
        return
    console().print(sheet)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
