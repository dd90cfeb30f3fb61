"""The proof of trust as one page: coverage, bias and width of every estimator, and how often the gate lets through what."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from pointsman.simulator.report.charts import COLOURS, Axis, ForestRow, PlotLine, axis_over, forest, plot
from pointsman.simulator.report.page import cards, page

LEVEL = 0.95
"""Of all intervals."""
BAR = 0.94
"""Coverage below this is shown as too little."""
LOOKS = 100
"""Looks at a growing log."""
TITLES = {
    "gate": "the gate",
    "conditions": "its conditions",
    "bound": "its bound",
    "bound_ever": f"bound, any of {LOOKS} looks",
    "naive": "normal interval",
    "naive_ever": f"normal, any of {LOOKS} looks",
}
"""What lets a candidate through, as tables call it."""


def coverage_page(
    rows: list[dict[str, Any]], looks: list[dict[str, Any]], gates: list[dict[str, Any]], settings: str
) -> str:
    """One page: coverage of every estimator with the bar, bias and width; intervals looked at again and again; the gate."""
    sections = [
        "<h1>Can the estimates be trusted?</h1>",
        f"<p>{escape(settings)} Intervals are meant to hold in {LEVEL:.0%}.</p>",
    ]
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        sections.append(f"<h2>{escape(scenario)}</h2>")
        sections.append(cards(_pictures([row for row in rows if row["scenario"] == scenario])))
    powers = [
        (scenario, _power([row for row in gates if row["scenario"] == scenario]))
        for scenario in dict.fromkeys(row["scenario"] for row in gates)
    ]
    return page(
        "Pointsman: can the estimates be trusted?",
        [
            *sections,
            f"<h2>Do they hold at every one of {LOOKS} looks?</h2>",
            _sheet(looks),
            "<h2>The gate</h2>",
            "<p>Where the margin is below 0 the requirement is not true, and nothing should pass.</p>",
            cards(powers),
            _sheet(gates),
            "<h2>All numbers</h2>",
            _sheet(rows),
        ],
    )


def _pictures(scenario_rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Coverage, bias and width of every estimator in one scenario: means, and ranges over candidates and signals."""
    forests: dict[str, list[ForestRow]] = {"coverage": [], "bias": [], "width": []}
    for estimator, interval in dict.fromkeys((row["estimator"], row["interval"]) for row in scenario_rows):
        group = [r for r in scenario_rows if (r["estimator"], r["interval"]) == (estimator, interval)]
        values = {
            "coverage": [r["coverage"] for r in group],
            "bias": relative_biases(group),
            "width": relative_widths(group, scenario_rows),
        }
        for measure, numbers in values.items():
            if numbers:
                range_ = ("least to greatest, over candidates and signals", min(numbers), max(numbers), COLOURS[0])
                forests[measure].append(ForestRow(f"{estimator}, {interval}", float(np.mean(numbers)), [range_]))
    ends = {measure: [end for row in lines for end in row.intervals[0][1:3]] for measure, lines in forests.items()}
    return [
        (
            f"coverage; dashed: {BAR:.0%}",
            forest(axis_over("", [min(*ends["coverage"], 0.9), 1.0]), forests["coverage"], BAR),
        ),
        ("bias, in widths of the interval", forest(axis_over("", ends["bias"], zero=True), forests["bias"])),
        (
            "width, in widths of dr's; dashed: the same",
            forest(axis_over("", ends["width"], log=True), forests["width"], 1.0),
        ),
    ]


def _power(gate_rows: list[dict[str, Any]]) -> str:
    """How often a better candidate passes, by how much better it is."""
    margins = [margin for margin in dict.fromkeys(row["margin"] for row in gate_rows) if margin > 0.0]
    lines = []
    for name, colour in zip(("gate", "conditions", "bound", "naive"), COLOURS, strict=False):
        shares = [float(np.mean([r[name] for r in gate_rows if r["margin"] == margin])) for margin in margins]
        dashed = name == "conditions"
        lines.append(PlotLine(TITLES[name], list(zip(margins, shares, strict=True)), colour=colour, dashed=dashed))
    x = Axis("margin: how much better than required, in quality", min(margins), max(margins), log=True)
    return plot(x, Axis("share promoted", 0.0, 1.02), lines)


def relative_biases(rows: list[dict[str, Any]]) -> list[float]:
    """Bias as a share of the interval's width, of rows that have both."""
    return [abs(r["bias"]) / r["width"] for r in rows if r["bias"] is not None and r["width"] > 0.0]


def relative_widths(group: list[dict[str, Any]], scenario_rows: list[dict[str, Any]]) -> list[float]:
    """Widths as multiples of that of ``dr``'s normal interval for the same candidate and signal."""
    plain = {
        (r["candidate"], r["signal"]): r["width"]
        for r in scenario_rows
        if (r["estimator"], r["interval"]) == ("dr", "normal")
    }
    return [r["width"] / plain[r["candidate"], r["signal"]] for r in group if plain[r["candidate"], r["signal"]] > 0.0]


def _sheet(rows: list[dict[str, Any]]) -> str:
    heads = "".join(f"<th>{escape(column)}</th>" for column in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row.values()) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{heads}</tr>{body}</table></div>'


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else escape(str(value))
