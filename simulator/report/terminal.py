"""Terminal output of a simulation: progress, then a table and comparisons.

>>> collect_results(lambda: None, [])
[]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from pointsman.simulator.report.summary import RunGroup, comparisons, format_estimate, format_gain, is_ours
from pointsman.simulator.run.experiment import RunResult


class InputUnreadableError(click.ClickException):
    """What a command was given cannot be read, or its report not be written: exit code 2, for 1 is a verdict."""

    exit_code = 2


WIDTH = 160
"""Characters of a line where the output is no terminal."""


def collect_results(done: Callable[[], None], results: Iterable[RunResult]) -> list[RunResult]:
    """All of ``results``, in order; ``done`` is called after each."""
    collected = []
    for result in results:
        collected.append(result)
        done()
    return collected


def with_progress(total: int, play: Callable[[Callable[[], None]], list[RunResult]]) -> list[RunResult]:
    """The results of ``play``, with a progress bar if standard error is a terminal.

    ``play`` must call the function that it is given after each of ``total`` runs.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("replay", total=total)
        return play(lambda: progress.advance(bar))


def console() -> Console:
    """Standard output, ``WIDTH`` wide where it is a file or a pipe, which has no width of its own."""
    detected = Console()
    return detected if detected.is_terminal else Console(width=WIDTH)


def show(groups: Sequence[RunGroup]) -> None:
    """Print the table of results, and whether our policy beat its benchmarks."""
    gains = [[format_gain(comparison) for comparison in comparisons(group)] for group in groups]
    columns = {
        "world": [group.world for group in groups],
        "policy": [group.policy for group in groups],
        "objective": [group.objective for group in groups],
        "budget": ["–" if group.budget is None else f"{group.budget:g}" for group in groups],
        "quality": [format_estimate(group.quality) for group in groups],
        "$ per 1,000": [format_estimate(group.cost, 1000.0) for group in groups],
        "spend/budget": [format_estimate(group.spend_ratio) for group in groups],
        "latency, s": [format_estimate(group.latency) for group in groups],
        "regret": [format_estimate(group.regret) for group in groups],
        "gain over best fixed": [fixed for fixed, _ in gains],
        "quality − mix": [mix for _, mix in gains],
    }
    shown = {title: cells for title, cells in columns.items() if set(cells) != {"–"}}
    if len(set(shown["world"])) == 1:
        del shown["world"]
    worlds = ", ".join(dict.fromkeys(group.world for group in groups))
    rounds = " or ".join(dict.fromkeys(str(result.row["rounds"]) for group in groups for result in group.results))
    judged = " ".join(dict.fromkeys(group.judged_by for group in groups))
    sheet = Table(title=escape(f"{rounds} rounds of {worlds}; mean ± 95 % interval over seeds\n{judged}"))
    for title in shown:
        sheet.add_column(
            title, justify="left" if title in ("world", "policy", "objective") else "right", overflow="fold"
        )
    for group, cells in zip(groups, zip(*shown.values(), strict=True), strict=True):
        sheet.add_row(*(escape(cell) for cell in cells), style="bold" if is_ours(group) else "")
    out = console()
    out.print(sheet)
    for group in groups:
        if is_ours(group):
            for comparison in comparisons(group):
                out.print(comparison.sentence, markup=False, highlight=False, soft_wrap=True)
