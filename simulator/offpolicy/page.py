"""An evaluation as one HTML page that needs nothing else.

>>> import numpy as np
>>> from pointsman.simulator.offpolicy.candidate import BucketPolicy, Candidate
>>> from pointsman.simulator.offpolicy.evaluation.evaluate import evaluate_candidate
>>> from pointsman.simulator.offpolicy.logs.log import Log
>>> n, chosen_n = 1000, np.arange(1000) % 2
>>> log = Log(
...     "even", ("small", "large"), ("chat",), chosen_n, np.full(n, 0.5), np.full((n, 2), 0.5), np.ones((n, 2), dtype=np.bool_),
...     {"quality": 0.5 + 0.5 * chosen_n}, np.zeros((n, 0)), np.zeros(n, dtype=np.intp), np.arange(n),
... )
>>> candidate = Candidate("large only", BucketPolicy(policy="fixed", model="large"), {})
>>> html = evaluation_page(evaluate_candidate(log, candidate, estimators=["dr"]), None, {"level": 0.95})
>>> "may large only go live?" in html, "1,000 decisions of <b>even</b>" in html
(True, True)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from pointsman.simulator.offpolicy.evaluation.comparators import Comparator
from pointsman.simulator.offpolicy.evaluation.diagnostics import OVERLAP_LEVELS, TAIL_LEVELS, Calibration, Diagnostics
from pointsman.simulator.offpolicy.evaluation.estimates import IntervalEstimate
from pointsman.simulator.offpolicy.evaluation.evaluate import Evaluation, SignalReport
from pointsman.simulator.offpolicy.gate import Finding, GateVerdict
from pointsman.simulator.offpolicy.intervals.interval import Interval
from pointsman.simulator.offpolicy.sentences import MAX_TAIL_INDEX, all_estimates, comparisons, warnings
from pointsman.simulator.report.charts import COLOURS, ForestRow, axis_over, forest, short
from pointsman.simulator.report.page import cards, page, settings_table

KINDS = {
    "normal": ("normal", COLOURS[0]),
    "bootstrap": ("bootstrap", COLOURS[5]),
    "bernstein": ("empirical Bernstein", COLOURS[4]),
    "betting": ("betting: any time, any log", COLOURS[2]),
}
"""Intervals by name: what a reader calls them, and their colour."""


def evaluation_page(
    evaluation: Evaluation, verdict: GateVerdict | None, configuration: Mapping[str, Any], forecasts: Sequence[str] = ()
) -> str:
    """The page: the verdict, how long it would take (``sentences.forecasts``), the comparison with static policies, warnings,
    estimates, diagnostics, configuration.
    """
    log = evaluation.log
    sections = [
        f"<h1>Pointsman: may {escape(evaluation.candidate.name)} go live?</h1>",
        f"<p>{len(log):,} decisions of <b>{escape(log.name)}</b>, {len(log.models)} models, "
        f"{len(log.groups)} {'bucket' if len(log.groups) == 1 else 'buckets'}; intervals at {evaluation.level:.4g}.</p>",
        _verdict(verdict),
        *(
            []
            if not forecasts
            else ["<h3>How long it would take</h3>", _list([(None, sentence) for sentence in forecasts])]
        ),
        "<h2>Is routing worth it?</h2>",
        *_comparisons(evaluation),
        *_warnings(evaluation),
        "<h2>Estimates</h2>",
        "<p>The dashed line is what the policy of the log reached. A logging policy that learns makes normal and bootstrap "
        "intervals only nearly right; the betting interval is right however the log came about, and whenever one looks.</p>",
        cards(
            (report.signal, _forest(report, all_estimates(evaluation, report)))
            for report in evaluation.reports.values()
        ),
        *(_estimates(report, all_estimates(evaluation, report)) for report in evaluation.reports.values()),
        "<h2>What the log can answer</h2>",
        _diagnostics(evaluation.diagnostics),
        "<h2>Configuration</h2>",
        settings_table({name: _setting(value) for name, value in configuration.items()}),
    ]
    return page(f"Pointsman: {evaluation.candidate.name} on {log.name}", sections)


def _verdict(verdict: GateVerdict | None) -> str:
    if verdict is None:
        return "<p>Nothing was required.</p>"
    word = "Passed: it is shown" if verdict.passed else "Not passed: it is not shown"
    return (
        f"<h2>{word}, at {verdict.level:.4g}</h2><h3>Required</h3>{_findings(verdict.clauses)}"
        f"<h3>Conditions without which no number is trusted</h3>{_findings(verdict.conditions)}"
    )


def _findings(findings: Sequence[Finding]) -> str:
    return _list([(finding.shown, f"{finding.what}: {finding.why}") for finding in findings])


def _list(items: Sequence[tuple[bool | None, str]]) -> str:
    marks = {True: ' class="yes"', False: ' class="no"', None: ""}
    rows = "".join(f"<li{marks[shown]}>{escape(text)}</li>" for shown, text in items)
    return f"<ul>{rows}</ul>" if rows else ""


def _comparisons(evaluation: Evaluation) -> list[str]:
    if not evaluation.comparators:
        return ["<p>Without quality there is nothing to compare by.</p>"]
    return [
        _list([(None, sentence) for sentence in comparisons(evaluation)]),
        "<p>Both static policies ignore the request. They are picked by their estimates on the same log, which favours "
        "them.</p>",
        _table(
            ("static policy", "its quality", "its cost", "the candidate's gain"),
            [_comparator_row(comparator) for comparator in evaluation.comparators],
        ),
    ]


def _comparator_row(comparator: Comparator) -> tuple[str, ...]:
    cost = "–" if comparator.cost is None else _with_interval(comparator.cost)
    return (
        comparator.name,
        _with_interval(comparator.quality),
        cost,
        f"{_with_interval(comparator.gain)} {comparator.unit}",
    )


def _with_interval(estimate: IntervalEstimate) -> str:
    if "normal" not in estimate.intervals:
        return short(estimate.estimate)
    interval = estimate.intervals["normal"]
    return f"{short(estimate.estimate)} [{short(interval.low)}, {short(interval.high)}]"


def _warnings(evaluation: Evaluation) -> list[str]:
    sentences = warnings(evaluation)
    if not sentences:
        return []
    return ["<h2>Before you trust it</h2>", _list([(None, sentence) for sentence in sentences])]


def _forest(report: SignalReport, estimates: Sequence[IntervalEstimate]) -> str:
    """The picture of all estimates and their intervals."""
    rows = [
        ForestRow(
            estimate.estimator.partition(":")[0],  # which models a static policy is made of is too long here
            None if math.isnan(estimate.estimate) else estimate.estimate,
            [(KINDS[kind][0], i.low, i.high, KINDS[kind][1]) for kind, i in estimate.intervals.items()],
        )
        for estimate in estimates
    ]
    ends = [end for row in rows for _, low, high, _ in row.intervals for end in (low, high) if math.isfinite(end)]
    shown = ends + [row.estimate for row in rows if row.estimate is not None]
    return forest(axis_over("", shown), rows, report.logged.estimate)


def _estimates(report: SignalReport, estimates: Sequence[IntervalEstimate]) -> str:
    """The table of all estimates and their intervals."""
    kinds = [kind for kind in KINDS if any(kind in estimate.intervals for estimate in report.estimates)]
    rows = [
        (
            estimate.estimator + ("" if estimate.tuned is None else f" ({estimate.tuned:g})"),
            "–" if math.isnan(estimate.estimate) else short(estimate.estimate),
            *(_ends(estimate.intervals.get(kind)) for kind in kinds),
        )
        for estimate in estimates
    ]
    title = (
        f"{report.signal}, reported in {report.reported:,} rounds; between {short(report.low)} and {short(report.high)}"
    )
    return f"<h3>{escape(title)}</h3>" + _table(("estimator", "estimate", *(KINDS[kind][0] for kind in kinds)), rows)


def _ends(interval: Interval | None) -> str:
    return "" if interval is None else f"{short(interval.low)} … {short(interval.high)}"


def _diagnostics(diagnostics: Diagnostics) -> str:
    tail_index = "–" if math.isnan(diagnostics.tail_index) else f"{diagnostics.tail_index:.2f}"
    rows = [
        ("effective sample size, rounds", f"{diagnostics.ess:,.0f} of {diagnostics.n:,}"),
        ("share of all weight that the largest has", f"{diagnostics.largest_weight_share:.2%}"),
        *(
            (f"{level:g} quantile of weights", short(quantile))
            for level, quantile in zip(TAIL_LEVELS, diagnostics.quantiles, strict=True)
        ),
        ("largest weight", short(diagnostics.largest)),
        (f"tail index k (above {MAX_TAIL_INDEX:g}: not to be trusted)", tail_index),
        ("mean weight (1 if propensities are right)", f"{diagnostics.mean_weight:.4f}"),
    ]
    if diagnostics.overlap is not None:
        rows += [
            (f"candidate's mass where the log's propensity is under {level:g}", f"{mass:.2%}")
            for level, mass in zip(OVERLAP_LEVELS, diagnostics.overlap, strict=True)
        ]
    if diagnostics.unsupported is not None:
        rows.append(("candidate's mass on what was never tried", f"{diagnostics.unsupported:.2%}"))
    return _table(("diagnostic", "value"), rows) + _calibration(diagnostics.by_propensity)


def _calibration(calibration: Calibration | None) -> str:
    if calibration is None:
        return ""
    titles = ("propensity", "pairs", "chosen, by the propensities", "chosen", "standard errors off")
    rows = [
        (f"{b.low:g} to {b.high:g}", f"{b.pairs:,}", f"{b.stated:.1f}", f"{b.observed:,}", f"{b.z:+.1f}")
        for b in calibration.bins
    ]
    heading = f"<h3>Logged propensities against what was chosen (p = {calibration.p_value:.2g})</h3>"
    return heading + _table(titles, rows)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _setting(value: object) -> str:
    if value is None:
        return "none"
    return ", ".join(map(str, value)) or "default" if isinstance(value, list) else str(value)
