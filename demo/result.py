"""What routing came to, beside what one would do instead: a table, a picture, and sentences.

Every figure is of the same prompts, with judged quality and real cost. *Best mix* is a fixed mix of models at what routing
spent, all outcomes known beforehand: what no policy that ignores the request can beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import plotext
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.policies.hindsight import mix_at

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Routed:
    """One way of routing the prompts: its name, its budget in dollars a request if it has one, and what was chosen for each
    prompt (n), as a column of the table.
    """

    name: str
    budget: float | None
    chosen_n: npt.NDArray[np.intp]


@dataclass(frozen=True)
class Result:
    """Mean quality and mean dollars a request; beside them the quality of the best mix at that cost, by how much routing is
    better, and half of that difference's interval of 95 %.
    """

    routed: Routed
    quality: float
    cost: float
    mix: float
    gain: float
    half: float


def result_of(table: OutcomeTable, routed: Routed) -> Result:
    """What ``routed`` came to."""
    rows = np.arange(len(table))
    quality_n, cost_n = table.quality_nk[rows, routed.chosen_n], table.cost_nk[rows, routed.chosen_n]
    cost = float(cost_n.mean())
    mix_n = table.quality_nk @ mix_at(*means(table), cost)
    gain_n = quality_n - mix_n
    half = 1.96 * float(gain_n.std(ddof=1)) / len(rows) ** 0.5
    return Result(routed, float(quality_n.mean()), cost, float(mix_n.mean()), float(gain_n.mean()), half)


def means(table: OutcomeTable) -> tuple[Array, Array]:
    """Mean quality and mean dollars of every model, (k)."""
    return table.quality_nk.mean(axis=0), table.cost_nk.mean(axis=0)


def cost_of_quality(table: OutcomeTable, quality: float) -> float:
    """Dollars a request of the cheapest fixed mix of models that reaches a mean quality; NaN if none does."""
    quality_k, cost_k = means(table)
    if quality > quality_k.max():
        return float("nan")
    low, high = float(cost_k.min()), float(cost_k.max())
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (low, middle) if quality_k @ mix_at(quality_k, cost_k, middle) >= quality else (middle, high)
    return high


def show(console: Console, warm: OutcomeTable, table: OutcomeTable, routed: Sequence[Routed]) -> None:
    """Print the table, the picture and the sentences; ``warm`` is what was known before, of other prompts."""
    results = [result_of(table, one_way) for one_way in routed]
    console.print(sheet(warm, table, results))
    console.print(
        f"Saved: against always {_short(table, int(means(table)[1].argmax()))}. One model: the best that the same feedback "
        "finds for the budget (or what was spent). Best mix: the best fixed mix of models at the same cost, all outcomes known "
        "beforehand; no policy that ignores the request can beat it."
    )
    console.print(Text.from_ansi(picture(table, results, min(console.width, 110))))
    for sentence in sentences(warm, table, results):
        console.print(sentence)


def sheet(warm: OutcomeTable, table: OutcomeTable, results: Sequence[Result]) -> Table:
    """The table: routing, and for each way what one would do instead; then every model alone."""
    quality_k, cost_k = means(table)
    dearest = float(cost_k.max())
    shown = Table(title=f"{len(table):,} real prompts, judged quality and real cost of {len(cost_k)} models")
    shown.add_column("policy", no_wrap=True)
    for title in ("quality", "$/1,000", "saved", "one model", "best mix", "against it"):
        shown.add_column(title, justify="right", no_wrap=True)

    def add(name: str, quality: float, cost: float, *beside: str, style: str = "") -> None:
        shown.add_row(name, f"{quality:.4f}", f"{1000 * cost:.3f}", f"{1 - cost / dearest:.1%}", *beside, style=style)

    for result in results:
        alone = quality_k[best_within(warm, result.routed.budget or result.cost)]
        beside = (f"{alone:.4f}", f"{result.mix:.4f}", f"{result.gain:+.4f} ± {result.half:.4f}")
        add(result.routed.name, result.quality, result.cost, *beside, style="bold")
    shown.add_section()
    for k in np.argsort(cost_k).tolist():
        add(f"always {_short(table, k)}", float(quality_k[k]), float(cost_k[k]))
    return shown


def best_within(warm: OutcomeTable, budget: float) -> int:
    """The best fixed model that the same feedback, ``warm``, would have found for a budget in dollars a request."""
    quality_k, cost_k = means(warm)
    return int(np.where(cost_k <= budget, quality_k, -np.inf).argmax())


def picture(table: OutcomeTable, results: Sequence[Result], width: int) -> str:
    """Quality over cost in the terminal: routing, the models, and the fixed mixes of these."""
    quality_k, cost_k = means(table)
    cost_c = np.geomspace(cost_k.min(), cost_k.max(), 200)
    quality_c = [float(quality_k @ mix_at(quality_k, cost_k, float(cost))) for cost in cost_c]
    plotext.clear_figure()
    plotext.plot_size(width, 22)
    plotext.theme("clear")
    plotext.xscale("log")
    plotext.plot((1000.0 * cost_c).tolist(), quality_c, marker="·", label="fixed mixes, known in hindsight")
    plotext.scatter((1000.0 * cost_k).tolist(), quality_k.tolist(), marker="O", label="always one model")
    plotext.scatter([1000.0 * r.cost for r in results], [r.quality for r in results], marker="#", label="Pointsman")
    ticks = [tick for tick in (0.03, 0.1, 0.3, 1.0, 3.0, 10.0) if tick <= 1000.0 * cost_k.max()]
    plotext.xticks(ticks, [f"${tick:g}" for tick in ticks])
    plotext.xlabel("dollars per 1,000 requests")
    plotext.ylabel("quality")
    built: str = plotext.build()
    return built


def sentences(warm: OutcomeTable, table: OutcomeTable, results: Sequence[Result]) -> list[str]:
    """What it means in money, and where one fixed model is as good."""
    said = []
    best = max(results, key=lambda result: result.gain - result.half)
    mix_cost = cost_of_quality(table, best.quality)
    if best.gain > best.half:
        alone = best_within(warm, best.cost)
        said.append(
            f"[bold]{best.routed.name}: {best.quality:.3f} for ${1000.0 * best.cost:.2f} per 1,000 requests. The best single "
            f"model at that price has {means(table)[0][alone]:.3f}; a fixed mix of models that is as good costs "
            f"${1000.0 * mix_cost:.2f}: routing saves {1.0 - best.cost / mix_cost:.0%} of the bill.[/bold]"
        )
    even = [result for result in results if result.gain <= result.half]
    if even:
        alone_by_way = "; ".join(f"{result.routed.name}: {_as_good(table, result)}" for result in even)
        said.append(f"No proven gain where one fixed model, if you knew which, is as good: {alone_by_way}.")
    return said


def _as_good(table: OutcomeTable, result: Result) -> str:
    """The fixed model that is nearest in cost, with its figures."""
    quality_k, cost_k = means(table)
    k = int(np.abs(np.log(cost_k / result.cost)).argmin())
    return f"always {_short(table, k)}: {quality_k[k]:.3f} for ${1000.0 * cost_k[k]:.2f}"


def _short(table: OutcomeTable, model: int) -> str:
    return table.models[model].rpartition("/")[2]
