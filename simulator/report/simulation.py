"""The report of a simulation as one HTML page.

>>> from pointsman.bandit.catalog import Mode, Objective
>>> from pointsman.simulator.data.table import from_columns
>>> from pointsman.simulator.policies.registry import parse_policy
>>> from pointsman.simulator.world.encoding import Features
>>> from pointsman.simulator.world.world import make_world
>>> columns = {"prompt_id": ["a", "b"], "task": ["chat", "maths"], "quality/small": [0.9, 0.1], "quality/large": [0.8, 0.6]}
>>> world = make_world(from_columns("two", "", columns), Features("none", "one"))
>>> from pointsman.simulator.policies.spec import Run
>>> from pointsman.simulator.report.summary import group_runs
>>> from pointsman.simulator.run.experiment import measure_run
>>> run = Run(parse_policy("fixed:large"), Objective(Mode.QUALITY_FIRST), None, seed=0)
>>> groups = group_runs([measure_run(world, "QUALITY_FIRST", run)])
>>> html(groups, {}).startswith("<!doctype html>")
True
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from pointsman.simulator.policies.hindsight import HINDSIGHT, mix_at
from pointsman.simulator.report.charts import COLOURS, Axis, Marker, PlotLine, axis_over, plot, short, stacked
from pointsman.simulator.report.page import cards, page, settings_table
from pointsman.simulator.report.summary import (
    RunGroup,
    chooses_models,
    comparisons,
    format_estimate,
    format_gain,
    is_ours,
    over_seeds,
)
from pointsman.simulator.run.experiment import RunResult
from pointsman.simulator.world.utility import utility_unit

Array = npt.NDArray[np.float64]

FIXED_COLOUR, MIX_COLOUR = "#5a5a5a", "#9a9a9a"
_MIX_POINTS = 60
"""Points of the curve of static mixes."""
_MOST_REGRET = 1.6
"""Times the worst policy's regret that a control's may show."""
_MOST_SPEND = 3.0
"""Budgets beyond which a curve leaves its chart."""


def html(groups: Sequence[RunGroup], configuration: Mapping[str, str]) -> str:
    """The report as one page."""
    settings = list(dict.fromkeys(group.setting for group in groups))
    by_setting = [(setting, [group for group in groups if group.setting == setting]) for setting in settings]
    worlds = list(dict.fromkeys(group.world for group in groups))
    frontiers = dict.fromkeys((group.world, group.objective) for group in groups)
    rounds = sorted({result.row["rounds"] for group in groups for result in group.results})
    sections = [
        f"<h1>Pointsman: {escape(', '.join(worlds))}</h1>",
        f"<p>{' or '.join(f'{n:,}' for n in rounds)} rounds a run; every policy met the same prompts in the same random orders, "
        "and learned only of the models it chose.</p>",
        f"<p>{escape(' '.join(dict.fromkeys(group.judged_by for group in groups)))}</p>",
        "<h2>Was routing worth it?</h2>",
        _comparison_list(groups),
        "<p>Both controls know what every call would have been worth, and ignore the prompt. The best fixed model is the one "
        "that the same rule would choose for all prompts. ± is a 95 % interval: over "
        "prompts, of each prompt's mean over the seeds, where every prompt came once; over seeds in worlds that change or draw "
        "outcomes anew.</p>",
        "<h2>Results</h2>",
        _result_table(groups),
        "<p>Means over the seeds; ± is a 95 % Student-t interval over the seeds, which differ in the order of the prompts "
        "and in what is drawn. best-fixed, best-mix, task-lp and prompt-oracle are optima in hindsight.</p>",
        "<h2>Cost and quality</h2>",
        cards(
            (f"{world}, {objective}", _frontier([g for g in groups if (g.world, g.objective) == (world, objective)]))
            for world, objective in frontiers
        ),
        "<h2>Cumulative regret</h2>",
        "<p>Best achievable utility less the achieved one, added up over rounds; with a budget the best within it, so that a "
        "policy which overspends can fall below 0. Bands are 95 % intervals over the seeds.</p>",
        cards((setting, _regret(members)) for setting, members in by_setting),
    ]
    budgeted = [(setting, members) for setting, members in by_setting if members[0].budget is not None]
    if budgeted:
        sections += [
            "<h2>Budget</h2>",
            "<p>Mean cost so far, over the budget. Bands are 95 % intervals over the seeds.</p>",
            cards((setting, _spend(members)) for setting, members in budgeted),
        ]
    online = [group for group in groups if chooses_models(group) and group.policy != "uniform"]
    if online:
        sections += ["<h2>Share of the traffic</h2>", cards((group.title, _traffic(group)) for group in online)]
    sections += ["<h2>Configuration</h2>", settings_table(configuration)]
    return page(f"Pointsman: {', '.join(worlds)}", sections)


def _comparison_list(groups: Sequence[RunGroup]) -> str:
    items = []
    for group in groups:
        for comparison in comparisons(group) if chooses_models(group) else ():
            gain = comparison.gain
            worse = gain is not None and gain.half is not None and gain.mean < -gain.half
            kind = "yes" if comparison.beats else "no" if worse else "open"
            sentence = escape(comparison.sentence)
            items.append(f'<li class="{kind}">{f"<b>{sentence}</b>" if is_ours(group) else sentence}</li>')
    return f"<ul>{''.join(items)}</ul>" if items else "<p>No policy was replayed that routes.</p>"


def _result_table(groups: Sequence[RunGroup]) -> str:
    titles = (
        "policy", "world", "objective", "budget $/request", "mean quality", "mean cost, $ per 1,000", "spend / budget",
        "mean latency, s", "regret", "gain over the best fixed model", "quality − best mix's at its cost", "seeds",
    )  # fmt: skip
    head = "".join(f'<th class="text">{t}</th>' if t in ("world", "objective") else f"<th>{t}</th>" for t in titles)
    rows = []
    for group in groups:
        cells = [
            "–" if group.budget is None else f"{group.budget:g}",
            format_estimate(group.quality),
            format_estimate(group.cost, 1000.0),
            format_estimate(group.spend_ratio),
            format_estimate(group.latency),
            f"{format_estimate(group.regret)} {_unit(group)}",
            *(format_gain(comparison) for comparison in comparisons(group)),
            str(len(group.results)),
        ]
        named = f'<td>{escape(group.policy)}</td><td class="text">{escape(group.world)}</td>'
        named += f'<td class="text">{escape(group.objective)}</td>'
        rows.append(
            f"<tr{' class=ours' if is_ours(group) else ''}>{named}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        )
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _unit(group: RunGroup) -> str:
    return utility_unit(group.results[0].run.objective)


def _colours(groups: Sequence[RunGroup]) -> dict[str, str]:
    policies = dict.fromkeys(group.policy for group in groups)
    return {policy: COLOURS[i % len(COLOURS)] for i, policy in enumerate(policies)}


def _frontier(groups: Sequence[RunGroup]) -> str:
    benchmarks = [result.benchmarks for group in groups for result in group.results]
    cost_k = np.mean([beside.cost_k for beside in benchmarks], axis=0)
    quality_k = np.mean([beside.quality_k for beside in benchmarks], axis=0)
    models = list(groups[0].results[0].row["shares"])
    costed = [k for k in range(len(models)) if not math.isnan(cost_k[k])]
    if any(beside.mix_n is None for beside in benchmarks) or not costed:
        return "<p>Not every outcome has a cost.</p>"
    colours = _colours(groups)
    points = [
        Marker(
            "one model for all prompts",
            float(cost_k[k]),
            float(quality_k[k]),
            colour=FIXED_COLOUR,
            mark="diamond",
            note=models[k],
        )
        for k in costed
    ]
    for group in groups:
        if group.cost is None:
            continue
        halves = (group.cost.half or 0.0, group.quality.half or 0.0)
        points.append(Marker(group.policy, group.cost.mean, group.quality.mean, *halves, colour=colours[group.policy]))
    costs = [point.x for point in points]
    log = min(costs) > 0.0 and max(costs) > 20.0 * min(costs)
    space = np.geomspace if log else np.linspace
    mixed = [
        (float(c), float(mix_at(quality_k, cost_k, float(c))[costed] @ quality_k[costed]))
        for c in space(cost_k[costed].min(), cost_k[costed].max(), _MIX_POINTS)
    ]
    mix = PlotLine("best static mix, in hindsight", mixed, colour=MIX_COLOUR, dashed=True)
    x = axis_over("mean cost, $ a request" + (" (logarithmic)" if log else ""), costs, log=log, zero=not log)
    y = axis_over("mean quality", [p.y + s * p.half_y for p in points for s in (-1, 1)])
    return plot(x, y, [mix], points)


def _regret(groups: Sequence[RunGroup]) -> str:
    lines = _curves(groups, lambda result: result.regret_c, origin=True)
    routing = [group for group in groups if chooses_models(group)]
    group = next((group for group in routing if is_ours(group)), routing[0] if routing else groups[0])
    lines += _control_curves(group)
    x = axis_over("rounds", [px for px, _ in lines[0].points], zero=True)
    banded = [v for line in lines for v in (*line.low, *line.high)]
    # Controls that are far worse leave the chart, so that they do not flatten the rest.
    most = _MOST_REGRET * max(banded)
    shown = [*banded, *(min(py, most) for line in lines for _, py in line.points)]
    return plot(x, axis_over(f"cumulative regret, {_unit(groups[0])}", shown, zero=True), lines)


def _spend(groups: Sequence[RunGroup]) -> str:
    costed = [group for group in groups if group.cost is not None and group.budget is not None]
    if not costed:
        return "<p>Not every outcome has a cost.</p>"
    lines = _curves(costed, lambda result: result.spend_c / (result.run.budget or math.nan), origin=False)
    x = axis_over("rounds", [0.0, *(px for px, _ in lines[0].points)], zero=True)
    flat = [PlotLine("the budget", [(x.low, 1.0), (x.high, 1.0)], colour=FIXED_COLOUR, dashed=True)]
    benchmarks, budget = groups[0].results[0].benchmarks, groups[0].budget or math.nan
    models = list(groups[0].results[0].row["shares"])
    spent = float(np.mean([r.benchmarks.cost_k[models.index(benchmarks.fixed)] for r in groups[0].results])) / budget
    if spent < _MOST_SPEND:
        ends = [(x.low, spent), (x.high, spent)]
        flat.append(PlotLine(f"best fixed model ({benchmarks.fixed})", ends, colour=MIX_COLOUR, dashed=True))
    top = max(1.1, *(min(py, _MOST_SPEND) for line in (*flat, *lines) for _, py in line.points))
    return plot(x, axis_over("mean cost / budget", [0.0, top], zero=True), [*flat, *lines])


def _curves(groups: Sequence[RunGroup], of: Callable[[RunResult], Array], *, origin: bool) -> list[PlotLine]:
    """Means of a curve over the seeds, with bands; from (0, 0) if ``origin``."""
    colours, lines = _colours(groups), []
    for group in groups:
        estimates = [over_seeds(value_s.tolist()) for value_s in np.array([of(result) for result in group.results]).T]
        points = [(float(t), e.mean) for t, e in zip(group.results[0].round_c, estimates, strict=True)]
        low = [e.mean - (e.half or 0.0) for e in estimates]
        high = [e.mean + (e.half or 0.0) for e in estimates]
        if origin:
            points, low, high = [(0.0, 0.0), *points], [0.0, *low], [0.0, *high]
        lines.append(PlotLine(group.policy, points, low, high, colours[group.policy], dashed=group.policy in HINDSIGHT))
    return lines


def _traffic(group: RunGroup) -> str:
    models = list(group.results[0].row["shares"])
    share_ck = np.mean([result.share_ck for result in group.results], axis=0)
    total_k = {model: float(np.mean([r.row["shares"][model] for r in group.results])) for model in models}
    rounds = [0.0, *group.results[0].round_c.tolist()]
    layers = [
        (f"{model}, {short(100.0 * total_k[model])} % in all", [share_ck[0, k], *share_ck[:, k]])
        for k, model in enumerate(models)
    ]
    chart = stacked(axis_over("rounds", rounds, zero=True), Axis("share of prompts", 0.0, 1.0), rounds, layers)
    return chart + f'<p class="legend">{escape(_static(group, models))}</p>'


def _static(group: RunGroup, models: Sequence[str]) -> str:
    """Traffic shares of the static controls."""
    benchmarks = [result.benchmarks for result in group.results]
    best_fixed = f"Best fixed model: all to {benchmarks[0].fixed}."
    if group.cost is None or any(beside.mix_n is None for beside in benchmarks):
        return best_fixed
    quality_k, cost_k = (
        np.mean([getattr(beside, name) for beside in benchmarks], axis=0) for name in ("quality_k", "cost_k")
    )
    mix_k = mix_at(quality_k, cost_k, group.cost.mean)
    parts = [f"{share:.0%} {model}" for model, share in zip(models, mix_k.tolist(), strict=True) if share > 0.005]
    return f"{best_fixed} Best static mix at the same cost: {', '.join(parts)}."


def _control_curves(group: RunGroup) -> list[PlotLine]:
    """Regret of the best fixed model and of the best static mix that costs what ``group`` did, means over the seeds."""
    benchmarks = [result.benchmarks for result in group.results]
    named = [
        (f"best fixed model ({benchmarks[0].fixed})", FIXED_COLOUR, [beside.fixed_regret_c for beside in benchmarks])
    ]
    mixed = [beside.mix_regret_c for beside in benchmarks if beside.mix_regret_c is not None]
    if len(mixed) == len(benchmarks):
        named.append((f"best static mix at the cost of {group.policy}", MIX_COLOUR, mixed))
    return [
        PlotLine(
            label,
            [(0.0, 0.0), *zip(group.results[0].round_c.tolist(), np.mean(regret_sc, axis=0).tolist(), strict=True)],
            colour=colour,
            dashed=True,
        )
        for label, colour, regret_sc in named
    ]
