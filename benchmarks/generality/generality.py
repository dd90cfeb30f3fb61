"""Does the policy, with nothing but its defaults, do well in worlds it was not made for?

    python benchmarks/generality/generality.py [--table regret|grid|both] [--seeds N] [--only NAME,NAME] [--processes N]

Two tables. *Regret*: two dozen small worlds in which a model is easily missed, or in which models come, change and fail, with
worst and stuck seeds, against LinUCB, LinTS, Beta-Bernoulli Thompson sampling and ε-greedy (``regret.py``); 16 seeds take
half an hour on two processors, of which "rises, 15,000 rounds" and the digits take a third. *Grid*: 60 worlds with
objectives, budgets and warm starts, against linear rivals and optima in hindsight (``grid.py``); ten minutes.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

from cases import cases
from grid import compare, report, run_case
from kit import over_processes
from regret import jobs_of, markdown_of, rows_of, run_job, table_of
from rich.console import Console
from situations import SITUATIONS


def show_regret(arguments: argparse.Namespace, console: Console) -> None:
    """Run and print the regret table."""
    wanted = arguments.only.split(",")
    situations = [situation for situation in SITUATIONS if any(part in situation.name for part in wanted)]
    if arguments.rounds:
        situations = [situation for situation in situations if situation.rounds <= arguments.rounds]
    seeds = arguments.seeds or 16
    jobs = jobs_of(situations, seeds)
    results = over_processes(run_job, jobs, arguments.processes, console, "regret")
    rows = rows_of([regret for result in results for regret in result])
    console.print(table_of(rows, seeds))
    if arguments.markdown:
        arguments.markdown.write_text(markdown_of(rows))


def show_grid(arguments: argparse.Namespace, console: Console) -> None:
    """Run and print the grid."""
    wanted = arguments.only.split(",")
    chosen = [case for case in cases() if any(part in case.name for part in wanted)]
    if arguments.rounds:
        chosen = [replace(case, rounds=min(case.rounds, arguments.rounds)) for case in chosen]
    jobs = [(case, seed) for case in chosen for seed in range(arguments.seeds or 4)]
    jobs.sort(key=lambda job: -job[0].rounds * (1 + job[0].dim))
    done = over_processes(run_case, jobs, arguments.processes, console, "grid")
    place = {case.name: i for i, case in enumerate(chosen)}
    done.sort(key=lambda result: (place[result["case"]], result["seed"]))
    report(done, console)
    if arguments.against:
        compare(done, json.loads(arguments.against.read_text())["results"], console)
    if arguments.json:
        grid = [{**asdict(case), "objective": repr(case.objective)} for case in chosen]
        arguments.json.write_text(json.dumps({"cases": grid, "results": done}, indent=1))


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=("regret", "grid", "both"), default="both")
    parser.add_argument("--seeds", type=int, help="16 in the regret table, 4 in the grid")
    parser.add_argument("--only", default="", help="worlds whose name contains this; several: a,b")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, help="grid: at most so many in every case; regret: no longer worlds")
    parser.add_argument("--markdown", type=Path, help="write the regret table to this file")
    parser.add_argument("--json", type=Path, help="write every number of the grid to this file")
    parser.add_argument("--against", type=Path, help="compare the grid with a file that --json wrote with other code")
    arguments = parser.parse_args()
    console = Console(width=190)
    if arguments.table != "grid":
        show_regret(arguments, console)
    if arguments.table != "regret":
        show_grid(arguments, console)


if __name__ == "__main__":
    main()
