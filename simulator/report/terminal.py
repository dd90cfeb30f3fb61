"""What a simulation shows in a terminal: progress on the way, a table and verdicts at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from pointsman.simulator.report.summary import Group, is_ours, number, verdicts
from pointsman.simulator.run.experiment import Result

WIDTH = 160
"""Characters of a line where the output is no terminal."""


def noting(done: Callable[[], None], results: Iterable[Result]) -> list[Result]:
    """All of ``results``, each noted as it comes."""
    found = []
    for result in results:
        found.append(result)
        done()
    return found


def with_progress(total: int, play: Callable[[Callable[[], None]], list[Result]]) -> list[Result]:
    """What ``play`` gives; it calls what it is given after each of ``total`` runs."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("replay", total=total)
        return play(lambda: progress.advance(bar))


def console() -> Console:
    """Where results go: a file or a pipe has no width of its own."""
    here = Console()
    return here if here.is_terminal else Console(width=WIDTH)


def show(groups: Sequence[Group]) -> None:
    """The table of results, and the verdicts on our policy."""
    gains = [[number(verdict.gain) for verdict in verdicts(one)] for one in groups]
    columns = {
        "world": [one.world for one in groups],
        "policy": [one.policy for one in groups],
        "objective": [one.objective for one in groups],
        "budget": ["–" if one.budget is None else f"{one.budget:g}" for one in groups],
        "quality": [number(one.quality) for one in groups],
        "$ per 1,000": [number(one.cost, 1000.0) for one in groups],
        "spend/budget": [number(one.spend_ratio) for one in groups],
        "latency, s": [number(one.latency) for one in groups],
        "regret": [number(one.regret) for one in groups],
        "utility − best fixed": [fixed for fixed, _ in gains],
        "quality − mix": [mix for _, mix in gains],
    }
    shown = {title: cells for title, cells in columns.items() if set(cells) != {"–"}}
    if len(set(shown["world"])) == 1:
        del shown["world"]
    worlds = ", ".join(dict.fromkeys(one.world for one in groups))
    rounds = " or ".join(dict.fromkeys(str(result.row["rounds"]) for one in groups for result in one.results))
    sheet = Table(title=escape(f"{rounds} rounds of {worlds}; mean ± 95 % interval over seeds"))
    for title in shown:
        sheet.add_column(
            title, justify="left" if title in ("world", "policy", "objective") else "right", overflow="fold"
        )
    for one, cells in zip(groups, zip(*shown.values(), strict=True), strict=True):
        sheet.add_row(*(escape(cell) for cell in cells), style="bold" if is_ours(one) else "")
    out = console()
    out.print(sheet)
    for one in groups:
        if is_ours(one):
            for verdict in verdicts(one):
                out.print(verdict.sentence, markup=False, highlight=False, soft_wrap=True)
