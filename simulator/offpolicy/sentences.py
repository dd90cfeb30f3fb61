"""An evaluation in sentences: whether routing is worth it, and warnings about its assumptions.

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
>>> comparisons(evaluate_candidate(log, candidate, estimators=["dr"]))
['The candidate does not differ significantly from the best fixed model: large: +0.0000 [+0.0000, +0.0000] in quality.']
"""

from __future__ import annotations

import math
from dataclasses import replace

from pointsman.simulator.offpolicy.evaluation.comparators import Comparator
from pointsman.simulator.offpolicy.evaluation.diagnostics import MAX_WEIGHT_SHARE
from pointsman.simulator.offpolicy.evaluation.estimates import IntervalEstimate
from pointsman.simulator.offpolicy.evaluation.evaluate import Evaluation, SignalReport
from pointsman.simulator.offpolicy.evaluation.support import describe_gaps
from pointsman.simulator.offpolicy.gate import MIN_ESS

MAX_TAIL_INDEX = 0.7
"""Above this shape of the weights' tail estimates are not to be trusted (Vehtari et al. 2024)."""
MIN_P = 1e-3
"""Below this p-value a violated assumption is told."""


def all_estimates(evaluation: Evaluation, report: SignalReport) -> list[IntervalEstimate]:
    """All estimates of one signal by name: the logging policy's, the candidate's, and the comparators'."""
    estimates = [report.logged, *report.estimates]
    for comparator in evaluation.comparators:
        estimate = {"quality": comparator.quality, "cost": comparator.cost}.get(report.signal)
        if estimate is not None:
            estimates.append(replace(estimate, estimator=comparator.name))
    return estimates


def comparisons(evaluation: Evaluation) -> list[str]:
    """Whether the candidate beats each static policy, a sentence each.

    Beside a fixed model the difference in cost is told too; a mix costs the same.
    """
    if not evaluation.support.shows_choices:
        return ["The candidate cannot be compared with static policies: the log does not show what it does."]
    sentences = []
    for comparator in evaluation.comparators:
        gain, interval = comparator.gain.estimate, comparator.gain.intervals["normal"]
        numbers = f"[{interval.low:+.4f}, {interval.high:+.4f}] in quality{_cost_difference(evaluation, comparator)}"
        if interval.low > 0.0:
            sentences.append(f"The candidate beats the {comparator.name}, by {gain:.4f} {numbers}.")
        elif interval.high < 0.0:
            verdict = ": routing is not worth it here" if comparator.is_mix else ""
            sentences.append(f"The candidate is worse than the {comparator.name}, by {-gain:.4f} {numbers}{verdict}.")
        else:
            sentences.append(
                f"The candidate does not differ significantly from the {comparator.name}: {gain:+.4f} {numbers}."
            )
    return sentences


def _cost_difference(evaluation: Evaluation, comparator: Comparator) -> str:
    """How much less or more the candidate costs than a fixed model, in words; nothing where that is not known."""
    report = evaluation.reports.get("cost")
    if report is None or comparator.is_mix or comparator.cost is None or not comparator.cost.estimate > 0.0:
        return ""
    cost = next((estimate.estimate for estimate in report.estimates if estimate.estimator == "dr"), math.nan)
    if math.isnan(cost):
        return ""
    share = cost / comparator.cost.estimate - 1.0
    return f"; it costs {abs(share):.1%} {'less' if share < 0.0 else 'more'}"


def warnings(evaluation: Evaluation) -> list[str]:
    """Warnings about the assumptions of the estimates, a sentence each."""
    return [
        *_weight_warnings(evaluation),
        *(s for name in evaluation.reports for s in _signal_warnings(evaluation, name)),
    ]


def _weight_warnings(evaluation: Evaluation) -> list[str]:
    diagnostics, sentences = evaluation.diagnostics, []
    if diagnostics.ess < MIN_ESS:
        sentences.append(
            f"Only {diagnostics.ess:.0f} of {diagnostics.n} rounds count (effective sample size): intervals may be too narrow."
        )
    if diagnostics.largest_weight_share > MAX_WEIGHT_SHARE:
        sentences.append(f"One round carries {diagnostics.largest_weight_share:.0%} of all weight.")
    if diagnostics.tail_index > MAX_TAIL_INDEX:
        sentences.append(f"Weights have a heavy tail (k = {diagnostics.tail_index:.2f}): prefer the betting bounds.")
    support = evaluation.support
    if support.gaps:
        sentences.append(
            f"{support.unshown + support.rare:.2%} of what the candidate does the log cannot show: {describe_gaps(support)}. "
            "Bounds assume the worst of it, estimates guess."
        )
    if diagnostics.by_propensity is not None and diagnostics.by_propensity.p_value < MIN_P:
        p_value = diagnostics.by_propensity.p_value
        sentences.append(f"Models were not chosen as often as the log says (p = {p_value:.1g}).")
    if support.displaced > 0.0:
        sentences.append(
            f"{support.displaced:.2%} of what the candidate wants was not eligible then (limits, not available): the eligible "
            f"models of its mix took their part{_stand_in(evaluation.target.replaced)}. "
            f"In {support.acted} of {diagnostics.n} rounds all of its models were eligible."
        )
    return sentences


def _stand_in(replaced: int) -> str:
    return f", and in {replaced} rounds, in which none was, the logging policy stands in" if replaced else ""


def _signal_warnings(evaluation: Evaluation, signal: str) -> list[str]:
    report, sentences = evaluation.reports[signal], []
    if report.low_is_seen or report.high_is_seen:
        seen = f"between {report.low:.4g} and {report.high:.4g}"
        if not report.low_is_seen:
            seen = f"at most {report.high:.4g}"
        sentences.append(
            f"{signal} is taken to be {seen}, as the values seen are: bounds hold only if it never is outside. Say what it "
            f"can be with --range {signal}=LOW,HIGH."
        )
    if report.missing_p < MIN_P:
        sentences.append(
            f"Whether {signal} was reported depends on the model (p = {report.missing_p:.1g}): its estimates may be biased."
        )
    return sentences
