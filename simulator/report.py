"""The files of a simulation: every number as JSON and CSV, and one HTML page that needs nothing else."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from simulator.charts import COLOURS, Axis, Line, Point, axis_over, plot, short, stacked
from simulator.experiment import Result, flat
from simulator.replay import HINDSIGHT
from simulator.summary import Estimate, Group, is_ours, mix_at, over_seeds, routes, verdicts
from simulator.table import OutcomeTable
from simulator.utility import utility_unit

FIXED_COLOUR, MIX_COLOUR = "#5a5a5a", "#9a9a9a"
_MIX_POINTS = 60
STYLE = """
:root{color-scheme:light dark;--ink:#1c1c1c;--paper:#fff;--faint:#8886;--card:#f6f6f4}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e8;--paper:#161616;--card:#222}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
  max-width:1360px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}h3{font-size:1rem;margin:1rem 0 .3rem}.grid-of-charts h3{margin-top:0}
table{border-collapse:collapse;font-size:.9rem}.wide{overflow-x:auto}
th,td{padding:.25rem .7rem;border-bottom:1px solid var(--faint);text-align:right}
td{white-space:nowrap}td:first-child,td.text{white-space:normal}
th:first-child,td:first-child,td.text,th.text{text-align:left}td.text{overflow-wrap:anywhere}.as-is{white-space:pre-wrap}tr.ours{font-weight:600}
.grid-of-charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(420px,100%),1fr));gap:1.2rem}
.grid-of-charts>div{background:var(--card);padding:1rem;border-radius:8px}
figure{margin:0}svg{width:100%;height:auto}svg text{font-size:12px;fill:var(--ink)}
.axis{fill:none;stroke:var(--ink)}.dot{fill:var(--ink)}.grid{stroke:var(--faint);stroke-width:.6}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.82rem}
.legend i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.35em}
@media(max-width:600px){svg text{font-size:18px}.grid-of-charts>div{padding:.6rem}}
li.yes::marker{content:"✓  "}li.no::marker{content:"✗  "}li.open::marker{content:"?  "}
"""
"""Of all our pages."""


def write_results(
    directory: Path,
    table: OutcomeTable,
    results: Sequence[Result],
    groups: Sequence[Group],
    configuration: Mapping[str, str],
) -> None:
    """Write ``results.json``, ``results.csv`` and ``report.html`` into ``directory``, made if need be."""
    directory.mkdir(parents=True, exist_ok=True)
    rows = [result.row for result in results]
    (directory / "results.json").write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    flats = [flat(row) for row in rows]
    with (directory / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(flats[0]))
        writer.writeheader()
        writer.writerows(flats)
    (directory / "report.html").write_text(html(table, groups, configuration), encoding="utf-8")


def html(table: OutcomeTable, groups: Sequence[Group], configuration: Mapping[str, str]) -> str:
    """The report as one page."""
    settings = list(dict.fromkeys((one.objective, one.budget) for one in groups))
    sections = [
        "<h1>Pointsman: replay of an outcome table</h1>",
        f"<p>{len(table):,} prompts of <b>{escape(table.name)}</b>, {len(table.models)} models; every policy saw the prompts "
        "in the same random orders, and learned only of the models it chose.</p>",
        "<h2>Was routing worth it?</h2>",
        _verdict_list(table, groups),
        "<p>Both controls know every outcome beforehand and ignore the prompt. ± is a 95 % interval over prompts, of each "
        "prompt's mean over the seeds.</p>",
        "<h2>Results</h2>",
        _result_table(groups),
        "<p>Means over the seeds; ± is a 95 % Student-t interval over the seeds, which differ in the order of the prompts "
        "and in the policy's draws. best-fixed, best-mix, task-lp and prompt-oracle are optima in hindsight.</p>",
        "<h2>Cost and quality</h2>",
        cards(
            (objective, _frontier(table, [one for one in groups if one.objective == objective]))
            for objective in dict.fromkeys(one.objective for one in groups)
        ),
        "<h2>Cumulative regret</h2>",
        "<p>Best achievable utility less the achieved one, added up over rounds; with a budget the best within it, so that a "
        "policy which overspends can fall below 0. Bands are 95 % intervals over the seeds.</p>",
        cards(
            (members[0].setting, _regret(members))
            for members in ([g for g in groups if (g.objective, g.budget) == setting] for setting in settings)
        ),
    ]
    online = [one for one in groups if routes(one) and one.policy != "uniform"]
    if online:
        sections += ["<h2>Share of the traffic</h2>", cards((one.title, _traffic(table, one)) for one in online)]
    sections += ["<h2>Configuration</h2>", settings_table(configuration)]
    return page(f"Pointsman: {table.name}", sections)


def page(title: str, sections: Iterable[str]) -> str:
    """One HTML page that needs nothing else."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>{''.join(sections)}</body></html>\n"
    )


def settings_table(configuration: Mapping[str, str]) -> str:
    """What was run, by name."""
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="text"><span class="as-is">{escape(value)}</span></td></tr>'
        for name, value in configuration.items()
    )
    return f'<div class="wide"><table>{rows}</table></div>'


def number(estimate: Estimate | None, scale: float = 1.0) -> str:
    """``mean ± half`` to two digits of the half; the mean alone where there is none, or nothing varies."""
    if estimate is None:
        return "–"
    if not estimate.half:
        return f"{scale * estimate.mean:.4g}"
    half = scale * estimate.half
    digits = min(max(1 - math.floor(math.log10(half)), 0), 6)
    return f"{scale * estimate.mean:.{digits}f} ± {half:.{digits}f}"


def _verdict_list(table: OutcomeTable, groups: Sequence[Group]) -> str:
    items = []
    for one in groups:
        if not is_ours(one):
            continue
        for verdict in verdicts(table, one):
            kind = {True: "yes", False: "no", None: "open"}[verdict.beats]
            items.append(f'<li class="{kind}">{escape(verdict.sentence)}</li>')
    return f"<ul>{''.join(items)}</ul>" if items else "<p>The policy thompson was not among those replayed.</p>"


def _result_table(groups: Sequence[Group]) -> str:
    titles = (
        "policy", "objective", "budget $/request", "mean quality", "mean cost, $ per 1,000", "spend / budget",
        "mean latency, s", "regret", "seeds",
    )  # fmt: skip
    head = "".join(f'<th class="text">{t}</th>' if t == "objective" else f"<th>{t}</th>" for t in titles)
    rows = []
    for one in groups:
        cells = [
            "–" if one.budget is None else f"{one.budget:g}",
            number(one.quality),
            number(one.cost, 1000.0),
            number(one.spend_ratio),
            number(one.latency),
            f"{number(one.regret)} {_unit(one)}",
            str(len(one.results)),
        ]
        rows.append(
            f"<tr{' class=ours' if is_ours(one) else ''}><td>{escape(one.policy)}</td>"
            f'<td class="text">{escape(one.objective)}</td>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        )
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def cards(charts: Iterable[tuple[str, str]]) -> str:
    """Charts with their titles, side by side where there is room."""
    cards = [f"<div><h3>{escape(title)}</h3>{chart}</div>" for title, chart in charts]
    return f'<div class="grid-of-charts">{"".join(cards)}</div>'


def _unit(one: Group) -> str:
    return utility_unit(one.results[0].run.objective)


def _colours(groups: Sequence[Group]) -> dict[str, str]:
    policies = dict.fromkeys(one.policy for one in groups)
    return {policy: COLOURS[i % len(COLOURS)] for i, policy in enumerate(policies)}


def _frontier(table: OutcomeTable, groups: Sequence[Group]) -> str:
    if np.isnan(table.cost_nk).any():
        return "<p>Not every outcome has a cost.</p>"
    cost_k, quality_k = table.cost_nk.mean(axis=0), table.quality_nk.mean(axis=0)
    colours = _colours(groups)
    points = [
        Point("one model for all prompts", float(c), float(q), colour=FIXED_COLOUR, mark="diamond", note=model)
        for model, c, q in zip(table.models, cost_k, quality_k, strict=True)
    ]
    for one in groups:
        if one.cost is None:
            continue
        halves = (one.cost.half or 0.0, one.quality.half or 0.0)
        points.append(Point(one.policy, one.cost.mean, one.quality.mean, *halves, colour=colours[one.policy]))
    costs = [point.x for point in points]
    log = min(costs) > 0.0 and max(costs) > 20.0 * min(costs)
    space = np.geomspace if log else np.linspace
    mix = Line(
        "best static mix, in hindsight",
        [
            (float(c), float(mix_at(table, float(c)) @ quality_k))
            for c in space(cost_k.min(), cost_k.max(), _MIX_POINTS)
        ],
        colour=MIX_COLOUR,
        dashed=True,
    )
    x = axis_over("mean cost, $ a request" + (" (logarithmic)" if log else ""), costs, log=log, zero=not log)
    y = axis_over("mean quality", [p.y + s * p.half_y for p in points for s in (-1, 1)])
    return plot(x, y, [mix], points)


def _regret(groups: Sequence[Group]) -> str:
    colours = _colours(groups)
    lines = []
    for one in groups:
        regret_sc = np.array([result.regret_c for result in one.results])
        estimates = [over_seeds(regret_s.tolist()) for regret_s in regret_sc.T]
        points = [(0.0, 0.0)] + [
            (float(t), estimate.mean) for t, estimate in zip(one.results[0].round_c, estimates, strict=True)
        ]
        low = [0.0] + [estimate.mean - (estimate.half or 0.0) for estimate in estimates]
        high = [0.0] + [estimate.mean + (estimate.half or 0.0) for estimate in estimates]
        lines.append(Line(one.policy, points, low, high, colours[one.policy], dashed=one.policy in HINDSIGHT))
    x = axis_over("rounds", [px for px, _ in lines[0].points], zero=True)
    y = axis_over(f"cumulative regret, {_unit(groups[0])}", [v for l in lines for v in (*l.low, *l.high)], zero=True)
    return plot(x, y, lines)


def _traffic(table: OutcomeTable, one: Group) -> str:
    share_ck = np.mean([result.share_ck for result in one.results], axis=0)
    total_k = {model: float(np.mean([r.row["shares"][model] for r in one.results])) for model in table.models}
    rounds = [0.0, *one.results[0].round_c.tolist()]
    layers = [
        (f"{model}, {short(100.0 * total_k[model])} % in all", [share_ck[0, k], *share_ck[:, k]])
        for k, model in enumerate(table.models)
    ]
    return stacked(axis_over("rounds", rounds, zero=True), Axis("share of prompts", 0.0, 1.0), rounds, layers)
