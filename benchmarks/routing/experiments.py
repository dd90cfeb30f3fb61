"""Six experiments on real prompts: the policy that serves beside published bandits, in the same worlds, with the same seeds.

    python benchmarks/routing/experiments.py [--seeds N] [--experiments a,b,c,d,e,f] [--split val|test_holdout]
        [--x-from FILE.npz] [--features x,text,none] [--policies P,…] [--out DIR] [--jobs N]

(a) seven budgets with a warm start; (b) a price cut of the dearest model and its end; (c) a silent regression of one model and
an outage; (d) a model added, of three kinds; (e) seven budgets with a cold start; (f) a wrong prior. `val` warms up on one half
of `paretobandit:val` and streams the other: everything is tuned there. `test_holdout` warms up on all of `val`, and is looked
at once a release. Writes `experiments.csv` (a row for each phase of each run), `summary.csv`, `curves.csv` and
`experiments.html` into DIR. The task is a category of the context in all; `--features` says what else is seen.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from cases import BAR_WARM, BUDGETS, OURS, PEER, POLICIES, PUBLISHED, TITLES, Case, cases, halves
from page import html
from phases import Measured, measure
from rich.console import Console
from rich.table import Table
from summary import Row, Summary, curves, summaries

from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.table import OutcomeTable, load_table, with_features
from pointsman.simulator.policies.registry import check_run
from pointsman.simulator.run.executor import map_over


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--experiments", default="a,b,c,d,e,f")
    parser.add_argument("--split", choices=("val", "test_holdout"), default="test_holdout")
    parser.add_argument("--x-from", help="FILE.npz with arrays `val` and `test_holdout`: the features `x`")
    parser.add_argument("--features", help="some of x, text, none for every experiment")
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/routing/results"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    console = Console(width=150)
    experiments = arguments.experiments.split(",")
    for experiment in experiments:
        if experiment not in TITLES:
            parser.error(f"--experiments: expected some of {', '.join(TITLES)}, got {experiment!r}")
    warm, table = _tables(arguments.split, arguments.x_from)
    kinds = ["x", "text", "none"] if arguments.x_from else ["text", "none"]
    if arguments.features:
        kinds = arguments.features.split(",")
    policies = arguments.policies.split(",")
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    measured: list[tuple[Case, Measured]] = []
    for case in cases(experiments, table, warm, kinds, all_kinds=bool(arguments.features)):
        start = time.monotonic()
        world = case.world()
        trials = case.trials(policies, arguments.seeds)
        try:
            for trial in {trial.run.policy: trial for trial in trials}.values():
                check_run(world, trial.run)
        except SettingError as error:
            parser.error(str(error))
        for result in map_over(world, measure, trials, arguments.jobs):
            measured.append((case, result))
            head = {name: getattr(case, name) for name in ("experiment", "variant", "start", "features")}
            rows += [Row(**head, **row) for row in result.rows]
        _write(
            arguments.out / "experiments.csv", rows
        )  # after each case: a long run that fails late keeps what it found
        spent = time.monotonic() - start
        console.print(
            f"({case.experiment}) {case.variant}, {case.start}, {case.features}: {len(trials)} runs, {spent:.0f} s"
        )
    summary_rows, drawn = summaries(rows), curves(measured)
    _write(arguments.out / "summary.csv", summary_rows)
    _write(arguments.out / "curves.csv", drawn)
    settings = {
        "stream": f"{table.name}, {len(table)} prompts (sha256 {table.sha256})",
        "warm start": f"{warm.name}, {len(warm)} prompts (sha256 {warm.sha256})",
        "seeds": f"0 to {arguments.seeds - 1}; intervals are 95 % bootstrap intervals of the mean over seeds",
        "features": ", ".join(kinds),
    }
    page = html(summary_rows, drawn, settings, holdout=arguments.split == "test_holdout")
    (arguments.out / "experiments.html").write_text(page, encoding="utf-8")
    for experiment in experiments:
        console.print(
            _sheet(experiment, [row for row in summary_rows if row["experiment"] == experiment], arguments.split)
        )
    console.print(f"{arguments.out / 'experiments.html'}, summary.csv, curves.csv and experiments.csv are written.")


def _tables(split: str, x_from: str | None) -> tuple[OutcomeTable, OutcomeTable]:
    """The warm table and the stream."""
    val = load_table("paretobandit:val")
    if x_from:
        val = with_features(val, f"{x_from}:val")
    if split == "val":
        return halves(val)
    holdout = load_table("paretobandit:test_holdout")
    return val, with_features(holdout, f"{x_from}:test_holdout") if x_from else holdout


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _sheet(experiment: str, summary_rows: Sequence[Summary], split: str) -> Table:
    """Ours and the peer, and in hindsight the best per-task mixture, phase by phase."""
    sheet = Table(title=f"({experiment}) {TITLES[experiment]}")
    columns = (
        "variant",
        "features",
        "budget",
        "phase",
        "policy",
        "quality",
        "spend/B",
        "most",
        "share",
        "settled",
        "ahead",
    )
    for title in (*columns, "bar"):
        sheet.add_column(title, justify="left" if title in ("variant", "features", "phase", "policy") else "right")
    for row in sorted(summary_rows, key=lambda row: (row["variant"], row["features"], row["budget"], row["at"])):
        if row["policy"] not in (OURS, PEER, "task-lp", "mabwiser-lints"):
            continue
        bars: dict[float, float] = {}
        if split == "test_holdout" and experiment in "ae" and row["policy"] == OURS and row["phase"] == "all":
            bars = dict(zip(BUDGETS, BAR_WARM if experiment == "a" else PUBLISHED, strict=True))
        bar = bars.get(row["budget"])
        ahead = f"{row['ahead']:+.4f} [{row['ahead_low']:+.4f}, {row['ahead_high']:+.4f}]"
        sheet.add_row(
            row["variant"], row["features"], f"{row['budget']:g}", row["phase"], row["policy"], f"{row['quality']:.4f}",
            f"{row['spend_ratio']:.3f}", f"{row['spend_most']:.3f}", f"{row['share']:.3f}", _number(row["settled"]),
            "" if np.isnan(row["ahead"]) or row["policy"] == PEER else ahead, "" if bar is None else f"{bar:.4f}",
            style="bold" if row["policy"] == OURS else "",
        )  # fmt: skip
    return sheet


def _number(value: float) -> str:
    return "–" if np.isnan(value) else "never" if np.isinf(value) else f"{value:.0f}"


if __name__ == "__main__":
    main()
