"""What an evaluation says in words: whether routing is worth it, and what to know before its numbers are believed."""

from __future__ import annotations

import math
from dataclasses import replace

from pointsman.simulator.offpolicy.evaluation.comparators import Control, Line
from pointsman.simulator.offpolicy.evaluation.evaluate import Evaluation, SignalReport


def lines_of(evaluation: Evaluation, report: SignalReport) -> list[Line]:
    """All that is said of one signal: what was logged, the candidate's estimates, and those of its controls."""
    of = {"quality": lambda control: control.quality, "cost": lambda control: control.cost}
    found = [report.logged, *report.lines]
    for control in evaluation.controls if report.signal in of else ():
        line = of[report.signal](control)
        if line is not None:
            found.append(replace(line, estimator=control.name))
    return found


def controls_sentence(evaluation: Evaluation) -> list[str]:
    """Whether the candidate beats what needs no routing. Against a fixed model its cost is told too; a mix costs the same."""
    said = []
    for control in evaluation.controls:
        gain, interval = control.gain.estimate, control.gain.intervals["normal"]
        numbers = f"[{interval.low:+.4f}, {interval.high:+.4f}] in quality{_cost_beside(evaluation, control)}"
        same_cost = control.cost is not None and control.name.startswith("best mix")
        if interval.low > 0.0:
            said.append(f"The candidate beats the {control.name}, by {gain:.4f} {numbers}.")
        elif interval.high < 0.0:
            verdict = ": routing is not worth it here" if same_cost else ""
            said.append(f"The candidate is worse than the {control.name}, by {-gain:.4f} {numbers}{verdict}.")
        else:
            said.append(
                f"The candidate cannot be told from the {control.name}: the difference is {gain:+.4f} {numbers}."
            )
    return said


def _cost_beside(evaluation: Evaluation, control: Control) -> str:
    """How much less or more the candidate costs than a fixed model, as words; nothing where that is not known."""
    report = evaluation.reports.get("cost")
    if report is None or control.cost is None or not control.cost.estimate > 0.0 or control.name.startswith("best mix"):
        return ""
    cost = next((line.estimate for line in report.lines if line.estimator == "dr"), math.nan)
    if math.isnan(cost):
        return ""
    share = cost / control.cost.estimate - 1.0
    return f"; it costs {abs(share):.1%} {'less' if share < 0.0 else 'more'}"


def warnings(evaluation: Evaluation) -> list[str]:
    """What to know before these numbers are believed."""
    seen, said = evaluation.diagnostics, []
    if seen.ess < 500:
        said.append(
            f"Only {seen.ess:.0f} of {seen.n} rounds count (effective sample size): intervals may be too narrow."
        )
    if seen.largest_weight_share > 0.05:
        said.append(f"One round carries {seen.largest_weight_share:.0%} of all weight.")
    if seen.tail_index > 0.7:
        said.append(f"Weights have a heavy tail (k = {seen.tail_index:.2f}): prefer the last column.")
    if seen.unsupported:
        said.append(f"{seen.unsupported:.1%} of what the candidate does was never tried: it is counted at the worst.")
    if seen.by_propensity is not None and seen.by_propensity.p_value < 1e-3:
        said.append(f"Models were not chosen as often as the log says (p = {seen.by_propensity.p_value:.1g}).")
    if evaluation.replaced:
        said.append(
            f"In {evaluation.replaced} rounds the candidate's model could not be chosen; there it does as the log did."
        )
    for name, report in evaluation.reports.items():
        if report.high_seen:
            said.append(f"{name} is taken to be at most {report.high:.4g}, the largest seen; bounds hold if it never is more. "
                        f"Say what it can be with --cap {name}=VALUE.")  # fmt: skip
        if report.missing_p < 1e-3:
            said.append(f"Whether {name} was reported depends on the model (p = {report.missing_p:.1g}): "
                        "its estimates may be off.")  # fmt: skip
    return said
