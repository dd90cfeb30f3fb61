"""The page of the experiments: verdicts, tables and pictures, in one file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from cases import ABOUT, BAR_WARM, BUDGETS, OURS, PEER, PUBLISHED, THIRD, TITLES
from phases import CONTROLS
from summary import Curve, Summary

from pointsman.simulator.report.charts import COLOURS, PlotLine, axis_over, plot
from pointsman.simulator.report.page import STYLE, cards

ALLOWED = {"a": 1.01, "e": 1.01, "b": 1.05, "c": 1.05, "d": 1.05, "f": 1.05}
"""Largest spend over the budget, in every phase."""
BANDS = (OURS, PEER)
METHOD = f"""<p>Every policy met the same prompts in the same random orders, and learned only of the models it chose. {OURS} is
the policy that serves. {PEER} is BanditRouter 0.1.1 in the same process, with its own pacer and its authors' tuned settings,
priors made by its own generate_warmup_priors from the same warm table, and realised costs fed back. MABWiser's LinTS and LinUCB,
Vowpal Wabbit's SquareCB and ε-greedy know no budget; each got the same simple primal-dual one: it maximises reward − λ·c/B, with
c a model's running mean cost, B the budget, and λ ← λ·exp(.05 (c̄/B − 1)) after every call, where c̄ is a running mean of cost
with weight .05 and the bracket is at most 3. Features are the same for all: the task one-hot, then x (whitened for the peers),
the text featuriser's, or nothing, then an intercept. A call that fails is worth 0 to the peers; ours is told that it failed.</p>
<p><b>Ahead</b> compares at equal spend: a policy's gain is its mean quality less that of the best static mix of models, in
hindsight of the same phase, that costs what the policy spent; ahead is the difference of two gains, in pairs of seeds.
<b>Settled</b> is the median number of requests until the share of the model concerned over the last 50 had gone half the way
from where it was to its share in the best per-task mixture of the phase (<i>never</i>: not within the phase; –: it need not
change by .1). <b>Share after 20</b> is the share of that model after its first 20 calls in the phase. best-fixed, best-mix and
task-lp are optima in hindsight of each phase, within the budget.</p>"""


def html(summary_rows: Sequence[Summary], drawn: Sequence[Curve], settings: Mapping[str, str], *, holdout: bool) -> str:
    """The page."""
    parts = ["<h1>Pointsman: routing experiments</h1>"]
    rows = "".join(f'<tr><td>{escape(k)}</td><td class="text">{escape(v)}</td></tr>' for k, v in settings.items())
    parts += [f"<table>{rows}</table>", METHOD]
    for experiment in dict.fromkeys(row["experiment"] for row in summary_rows):
        parts.append(f"<h2>({experiment}) {escape(TITLES[experiment])}</h2><p>{escape(ABOUT[experiment])}</p>")
        members = [row for row in summary_rows if row["experiment"] == experiment]
        for variant, features in dict.fromkeys((row["variant"], row["features"]) for row in members):
            group = [row for row in members if (row["variant"], row["features"]) == (variant, features)]
            curves = [
                c for c in drawn if (c["experiment"], c["variant"], c["features"]) == (experiment, variant, features)
            ]
            parts.append(f"<h3>{escape(variant)}, features {escape(features)}, {group[0]['start']} start</h3>")
            parts.append(_verdicts(experiment, group, holdout=holdout))
            charts = [_by_budget(group, holdout=holdout)] if experiment in "ae" else []
            for budget in dict.fromkeys(row["budget"] for row in group):
                if experiment != "a":
                    charts += _over_time([curve for curve in curves if curve["budget"] == budget], experiment)
            parts += [cards(charts), _table(group)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Pointsman: routing experiments</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def bar_of(row: Summary, *, holdout: bool) -> float | None:
    """What the mean quality of ours should reach at least, if there is such a figure."""
    if not holdout or row["experiment"] not in "ae" or row["policy"] != OURS or row["phase"] != "all":
        return None
    return dict(zip(BUDGETS, BAR_WARM if row["experiment"] == "a" else PUBLISHED, strict=True)).get(row["budget"])


def _verdicts(experiment: str, group: Sequence[Summary], *, holdout: bool) -> str:
    items = []
    for row in group:
        if row["policy"] != OURS:
            continue
        where = f"${row['budget']:g}, {row['phase']}: "
        bar = bar_of(row, holdout=holdout)
        if bar is not None:
            kind = "yes" if row["quality"] >= bar else "no"
            items.append((kind, f"{where}quality {row['quality']:.4f}, at least {bar:g} wanted"))
        if not math.isnan(row["ahead"]):
            kind = "yes" if row["ahead_low"] > 0.0 else "no" if row["ahead"] <= 0.0 else "open"
            how = {"yes": "ahead of", "no": "not ahead of", "open": "not clearly ahead of"}[kind]
            span = f"{row['ahead']:+.4f} [{row['ahead_low']:+.4f}, {row['ahead_high']:+.4f}]"
            items.append((kind, f"{where}{how} {PEER} at equal spend: {span}"))
        if row["spend_ratio"] > ALLOWED[experiment]:
            items.append(
                ("no", f"{where}spend {row['spend_ratio']:.3f} of the budget, at most {ALLOWED[experiment]:g} wanted")
            )
    good = sum(kind == "yes" for kind, _ in items)
    listed = "".join(f'<li class="{kind}">{escape(text)}</li>' for kind, text in items)
    state = " open" if good < len(items) else ""
    return f"<details{state}><summary>{good} of {len(items)} met</summary><ul>{listed}</ul></details>"


def _table(group: Sequence[Summary]) -> str:
    titles = ("policy", "budget", "phase", "quality", "95 %", "spend / budget", "95 %", "largest", "share", "share after 20",
              "settled", "gain", "ahead", "95 %")  # fmt: skip
    head = "".join(f"<th>{title}</th>" for title in titles)
    rows = []
    for row in sorted(group, key=lambda row: (row["budget"], row["at"])):
        cells = [
            f"{row['budget']:g}", row["phase"], f"{row['quality']:.4f}", _span(row["quality_low"], row["quality_high"], 4),
            f"{row['spend_ratio']:.3f}", _span(row["spend_low"], row["spend_high"], 3), f"{row['spend_most']:.3f}",
            f"{row['share']:.3f}", _or_dash(row["share_warned"], ".3f"), _or_dash(row["settled"], ".0f"),
            f"{row['gain']:+.4f}", _or_dash(row["ahead"], "+.4f"),
            "–" if math.isnan(row["ahead"]) else _span(row["ahead_low"], row["ahead_high"], 4),
        ]  # fmt: skip
        ours = " class=ours" if row["policy"] == OURS else ""
        rows.append(f"<tr{ours}><td>{escape(row['policy'])}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    table = f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'
    return f"<details><summary>All numbers</summary>{table}</details>"


def _by_budget(group: Sequence[Summary], *, holdout: bool) -> tuple[str, str]:
    all_phases = [row for row in group if row["phase"] == "all"]
    lines = []
    for policy, colour in _colours([row["policy"] for row in all_phases]).items():
        mine = sorted((row for row in all_phases if row["policy"] == policy), key=lambda row: row["budget"])
        lines.append(
            PlotLine(
                policy,
                [(row["budget"], row["quality"]) for row in mine],
                [row["quality_low"] for row in mine],
                [row["quality_high"] for row in mine],
                colour,
                dashed=policy in CONTROLS,
            )
        )
    if holdout:
        bars = [(b, q) for b, q in zip(BUDGETS, PUBLISHED, strict=True)]
        lines.append(PlotLine("published for ParetoBandit", bars, colour="#5a5a5a", dashed=True))
    x = axis_over("budget, $ a request (logarithmic)", [row["budget"] for row in all_phases], log=True)
    return "quality by budget", plot(x, axis_over("mean quality", [y for line in lines for _, y in line.points]), lines)


def _over_time(curves: Sequence[Curve], experiment: str) -> list[tuple[str, str]]:
    budget = curves[0]["budget"]
    colours = _colours([curve["policy"] for curve in curves if curve["policy"] not in ("best-fixed", "best-mix")])
    charts = []
    for name, title in (
        ("quality", "mean quality"),
        ("spend_ratio", "spend / budget"),
        ("share", "share of the model concerned"),
    ):
        lines = []
        for policy, colour in colours.items():
            mine = [curve for curve in curves if curve["policy"] == policy]
            points = [(curve["round"], curve[name]) for curve in mine]  # type: ignore[literal-required]
            halves = [1.96 * curve["quality_se"] for curve in mine] if name == "quality" and policy in BANDS else []
            low = [y - half for (_, y), half in zip(points, halves, strict=False)]
            high = [y + half for (_, y), half in zip(points, halves, strict=False)]
            lines.append(PlotLine(policy, points, low, high, colour, dashed=policy in CONTROLS))
        values = [y for line in lines for _, y in line.points]
        if name == "spend_ratio":
            values = [min(value, 4.0) for value in values]
            lines = [_clipped(line, 4.0) for line in lines]
        y = axis_over(title, values, zero=name != "quality")
        ends = (THIRD, 2 * THIRD) if experiment in "bcd" else (200, THIRD)
        lines += [
            PlotLine("a new phase", [(end, min(values)), (end, max(values))], colour="#9a9a9a", dashed=True)
            for end in ends
        ]
        charts.append(
            (
                f"{title}, ${budget:g} a request",
                plot(axis_over("rounds", [0.0, curves[-1]["round"]], zero=True), y, lines),
            )
        )
    return charts


def _clipped(line: PlotLine, most: float) -> PlotLine:
    return PlotLine(line.label, [(x, min(y, most)) for x, y in line.points], (), (), line.colour, line.dashed)


def _colours(policies: Sequence[str]) -> dict[str, str]:
    return {policy: COLOURS[i % len(COLOURS)] for i, policy in enumerate(dict.fromkeys(policies))}


def _span(low: float, high: float, digits: int) -> str:
    return f"{low:.{digits}f} to {high:.{digits}f}"


def _or_dash(value: float, form: str) -> str:
    return "–" if math.isnan(value) else "never" if math.isinf(value) else f"{value:{form}}"
