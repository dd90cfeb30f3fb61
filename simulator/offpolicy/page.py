"""An evaluation as one HTML page that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from pointsman.simulator.offpolicy.evaluation.comparators import Control, Line
from pointsman.simulator.offpolicy.evaluation.diagnostics import OVERLAP_LEVELS, TAIL_LEVELS, Diagnostics
from pointsman.simulator.offpolicy.evaluation.evaluate import Evaluation, SignalReport
from pointsman.simulator.offpolicy.gate import Finding, Verdict
from pointsman.simulator.offpolicy.sentences import controls_sentence, lines_of, warnings
from pointsman.simulator.report.charts import COLOURS, ForestRow, axis_over, forest, short
from pointsman.simulator.report.page import cards, page, settings_table

KINDS = {
    "normal": ("normal", COLOURS[0]),
    "bootstrap": ("bootstrap", COLOURS[5]),
    "bernstein": ("empirical Bernstein", COLOURS[4]),
    "betting": ("betting: any time, any log", COLOURS[2]),
}
"""Intervals by name: what a reader calls them, and their colour."""


def html(evaluation: Evaluation, verdict: Verdict | None, configuration: Mapping[str, Any]) -> str:
    """The page."""
    log = evaluation.log
    sections = [
        f"<h1>Pointsman: may {escape(evaluation.candidate.name)} go live?</h1>",
        f"<p>{len(log):,} decisions of <b>{escape(log.name)}</b>, {len(log.models)} models, "
        f"{len(log.groups)} {'bucket' if len(log.groups) == 1 else 'buckets'}; intervals at {evaluation.level:.4g}.</p>",
        _verdict(verdict),
        "<h2>Is routing worth it?</h2>",
        _list([(None, sentence) for sentence in controls_sentence(evaluation)])
        or "<p>Without quality there is nothing to compare by.</p>",
        "<p>Both controls ignore the request. They are picked by their estimates on the same log, which favours them.</p>"
        if evaluation.controls
        else "",
        _controls(evaluation.controls),
    ]
    warned = warnings(evaluation)
    if warned:
        sections += ["<h2>Before you believe it</h2>", _list([(None, sentence) for sentence in warned])]
    sections += [
        "<h2>Estimates</h2>",
        "<p>The dashed line is what the policy of the log reached. A logging policy that learns makes normal and bootstrap "
        "intervals only nearly right; the betting interval is right however the log came about, and whenever one looks.</p>",
        cards((report.signal, _forest(report, lines_of(evaluation, report))) for report in evaluation.reports.values()),
        *(_estimates(report, lines_of(evaluation, report)) for report in evaluation.reports.values()),
        "<h2>What the log can answer</h2>",
        _diagnostics(evaluation.diagnostics),
        "<h2>Configuration</h2>",
        settings_table({name: _said(value) for name, value in configuration.items()}),
    ]
    return page(f"Pointsman: {evaluation.candidate.name} on {log.name}", sections)


def _verdict(verdict: Verdict | None) -> str:
    if verdict is None:
        return "<p>Nothing was required.</p>"
    word = "Passed: it is shown" if verdict.passed else "Not passed: it is not shown"
    return (
        f"<h2>{word}, at {verdict.level:.4g}</h2><h3>Required</h3>{_findings(verdict.clauses)}"
        f"<h3>Conditions without which no number is believed</h3>{_findings(verdict.conditions)}"
    )


def _findings(findings: Sequence[Finding]) -> str:
    return _list([(finding.shown, f"{finding.what}: {finding.why}") for finding in findings])


def _list(items: Sequence[tuple[bool | None, str]]) -> str:
    marks = {True: ' class="yes"', False: ' class="no"', None: ""}
    rows = "".join(f"<li{marks[shown]}>{escape(text)}</li>" for shown, text in items)
    return f"<ul>{rows}</ul>" if rows else ""


def _controls(controls: Sequence[Control]) -> str:
    if not controls:
        return ""
    rows = [
        (
            control.name,
            _with_interval(control.quality),
            "–" if control.cost is None else _with_interval(control.cost),
            _with_interval(control.gain),
        )
        for control in controls
    ]
    return _table(("control", "its quality", "its cost", "the candidate's gain in quality"), rows)


def _with_interval(line: Line) -> str:
    if "normal" not in line.intervals:
        return short(line.estimate)
    interval = line.intervals["normal"]
    return f"{short(line.estimate)} [{short(interval.low)}, {short(interval.high)}]"


def _forest(report: SignalReport, lines: Sequence[Line]) -> str:
    rows = [
        ForestRow(
            line.estimator.partition(":")[0],  # a control's name says which models it is of, which is too long here
            None if math.isnan(line.estimate) else line.estimate,
            [(KINDS[kind][0], i.low, i.high, KINDS[kind][1]) for kind, i in line.intervals.items()],
        )
        for line in lines
    ]
    ends = [end for row in rows for _, low, high, _ in row.intervals for end in (low, high) if math.isfinite(end)]
    seen = ends + [row.estimate for row in rows if row.estimate is not None]
    return forest(axis_over("", seen), rows, report.logged.estimate)


def _estimates(report: SignalReport, lines: Sequence[Line]) -> str:
    kinds = [kind for kind in KINDS if any(kind in line.intervals for line in report.lines)]
    rows = [
        (
            line.estimator + ("" if line.tuned is None else f" ({line.tuned:g})"),
            "–" if math.isnan(line.estimate) else short(line.estimate),
            *(
                f"{short(line.intervals[kind].low)} … {short(line.intervals[kind].high)}"
                if kind in line.intervals
                else ""
                for kind in kinds
            ),
        )
        for line in lines
    ]
    title = (
        f"{report.signal}, reported in {report.reported:,} rounds; between {short(report.low)} and {short(report.high)}"
    )
    return f"<h3>{escape(title)}</h3>" + _table(("estimator", "estimate", *(KINDS[kind][0] for kind in kinds)), rows)


def _diagnostics(seen: Diagnostics) -> str:
    rows = [
        ("effective sample size, rounds", f"{seen.ess:,.0f} of {seen.n:,}"),
        ("share of all weight that the largest has", f"{seen.largest_weight_share:.2%}"),
        *((f"{level:g} quantile of weights", short(q)) for level, q in zip(TAIL_LEVELS, seen.quantiles, strict=True)),
        ("largest weight", short(seen.largest)),
        (
            "tail index k (above 0.7: not to be believed)",
            "–" if math.isnan(seen.tail_index) else f"{seen.tail_index:.2f}",
        ),
        ("mean weight (1 if propensities are right)", f"{seen.mean_weight:.4f}"),
    ]
    if seen.overlap is not None:
        rows += [
            (f"candidate's mass where the log's propensity is under {level:g}", f"{mass:.2%}")
            for level, mass in zip(OVERLAP_LEVELS, seen.overlap, strict=True)
        ]
    if seen.unsupported is not None:
        rows.append(("candidate's mass on what was never tried", f"{seen.unsupported:.2%}"))
    calibration = ""
    if seen.by_propensity is not None:
        calibration = (
            f"<h3>Logged propensities against what was chosen (p = {seen.by_propensity.p_value:.2g})</h3>"
            + _table(
                ("propensity", "pairs", "chosen, by the propensities", "chosen", "standard errors off"),
                [
                    (f"{b.low:g} to {b.high:g}", f"{b.pairs:,}", f"{b.stated:.1f}", f"{b.observed:,}", f"{b.z:+.1f}")
                    for b in seen.by_propensity.bins
                ],
            )
        )
    return _table(("diagnostic", "value"), rows) + calibration


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _said(value: object) -> str:
    if value is None:
        return "none"
    return ", ".join(map(str, value)) or "default" if isinstance(value, list) else str(value)
