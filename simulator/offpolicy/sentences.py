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
['The candidate, judged by quality, is as good as the best fixed model: large.']
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pointsman.simulator.offpolicy.evaluation.comparators import Comparator
from pointsman.simulator.offpolicy.evaluation.diagnostics import MAX_WEIGHT_SHARE
from pointsman.simulator.offpolicy.evaluation.estimates import IntervalEstimate
from pointsman.simulator.offpolicy.evaluation.evaluate import Evaluation, SignalReport
from pointsman.simulator.offpolicy.evaluation.forecast import POWER, decisions_needed
from pointsman.simulator.offpolicy.evaluation.support import describe_gaps
from pointsman.simulator.offpolicy.expression import Requirement, paired_test
from pointsman.simulator.offpolicy.gate import MIN_ESS, GateVerdict, describe_repeats, level_of_clause
from pointsman.simulator.policies.rule import describe_rule

MAX_TAIL_INDEX = 0.7
"""Above this shape of the weights' tail estimates are not to be trusted (Vehtari et al. 2024)."""
_TIE = 1e-9
"""Differences smaller than this share of what is compared are rounding, and no verdict."""
_SAME_COST = 5e-4
"""Relative difference in cost that rounds to nothing."""
EXPLORED = (0.1, 0.3)
"""Exploration shares of which forecasts are made."""
_MAX_DIGITS = 6
"""Most digits after the point that a reader still counts."""
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
    """By what is judged, and whether the candidate beats each static policy, a sentence each.

    Beside a fixed model the difference in cost is told too, unless that is what is judged; a mix costs the same.
    """
    if not evaluation.support.shows_choices:
        return ["The candidate cannot be compared with static policies: the log does not show what it does."]
    return [_beside(evaluation, comparator) for comparator in evaluation.comparators]


def _beside(evaluation: Evaluation, comparator: Comparator) -> str:
    """Whether the candidate beats one static policy."""
    gain, interval = comparator.gain.estimate, comparator.gain.intervals["normal"]
    judged, more, name = "quality", _cost_difference(evaluation, comparator), comparator.name
    if evaluation.objective is not None and comparator.above is not None:
        judged, more = describe_rule(evaluation.objective), _beside_floor(comparator)
        if comparator.keeps and comparator.above.intervals["normal"].high < 0.0:
            return f"The candidate, judged by {judged}, is worse than the {name}: it does not keep the floor{more}."
        if not comparator.keeps:
            name += ", which does not keep the floor, as no model does,"
    scale = (
        comparator.quality.estimate
        if comparator.unit == "quality" or comparator.cost is None
        else comparator.cost.estimate
    )
    if max(abs(interval.low), abs(interval.high)) <= _TIE * max(abs(scale), _TIE):
        return f"The candidate, judged by {judged}, is as good as the {name}{more}."
    low, middle, high = _shown((interval.low, gain, interval.high))
    unit = "" if comparator.unit == "quality" else f" {comparator.unit} saved a request"
    numbers = f"{middle} [{low}, {high}]{unit}{more}"
    how = "does not differ significantly from"
    if interval.low > 0.0:
        how = "beats"
    elif interval.high < 0.0:
        how = "is worse than"
        numbers += ": routing is not worth it here" if comparator.is_mix else ""
    return f"The candidate, judged by {judged}, {how} the {name}: {numbers}."


def _beside_floor(comparator: Comparator) -> str:
    """How far the candidate's quality is above the floor."""
    assert comparator.above is not None
    interval = comparator.above.intervals["normal"]
    low, middle, high = _shown((interval.low, comparator.above.estimate, interval.high))
    return f"; its mean quality is {middle} [{low}, {high}] from the floor"


def _shown(values: Sequence[float]) -> list[str]:
    """An estimate between the ends of its interval, with as many digits as two of the interval's width need.

    >>> _shown((-0.0611, -0.0428, -0.0245)), _shown((-3e-7, -2e-7, -1e-7)), _shown((-0.1, 0.0, 0.1))
    (['-0.061', '-0.043', '-0.025'], ['-3e-07', '-2e-07', '-1e-07'], ['-0.10', '0.00', '+0.10'])
    """
    width = max(values) - min(values) or max(map(abs, values)) or 1.0
    digits = 1 - math.floor(math.log10(width))
    if digits > _MAX_DIGITS:
        return [f"{value:+.2g}" for value in values]
    shown = [f"{value:+.{max(digits, 0)}f}" for value in values]
    return [text[1:] if float(text) == 0.0 else text for text in shown]


def _cost_difference(evaluation: Evaluation, comparator: Comparator) -> str:
    """How much less or more the candidate costs than a fixed model, in words; nothing where that is not known."""
    report = evaluation.reports.get("cost")
    if report is None or comparator.is_mix or comparator.unit != "quality":
        return ""
    if comparator.cost is None or not comparator.cost.estimate > 0.0:
        return ""
    cost = next((estimate.estimate for estimate in report.estimates if estimate.estimator == "dr"), math.nan)
    if math.isnan(cost):
        return ""
    share = cost / comparator.cost.estimate - 1.0
    if abs(share) < _SAME_COST:
        return "; it costs the same"
    return f"; it costs {abs(share):.1%} {'less' if share < 0.0 else 'more'}"


def forecasts(evaluation: Evaluation, requirement: Requirement, verdict: GateVerdict) -> list[str]:
    """Of each clause that is not shown, how many decisions it takes, now and with more exploration (``evaluation.forecast``)."""
    sentences = []
    level = level_of_clause(evaluation, requirement)
    for clause, finding in zip(requirement.clauses(), verdict.clauses, strict=True):
        test = paired_test(clause)
        if finding.shown or test is None or not evaluation.support.shows_choices:
            continue
        evidence = evaluation.evidence[test.signal]
        if not evidence.range_is_known:
            continue
        share_reported = len(evidence) / len(evaluation.log)
        needed = {share: decisions_needed(evidence, test, level, share) / share_reported for share in (0.0, *EXPLORED)}
        if math.isnan(needed[0.0]):
            continue
        if math.isinf(needed[0.0]):
            sentences.append(f"{clause.text}: by the estimate it is not so; more decisions would not show it.")
            continue
        more = [
            f"of {share:g} some {_rounded(needed[share])}" for share in EXPLORED if needed[share] < 0.9 * needed[0.0]
        ]
        explored = f"; with a further share explored evenly {', '.join(more)}" if more else ""
        sentences.append(
            f"{clause.text}: if the gain is as estimated, some {_rounded(needed[0.0])} decisions like these "
            f"{len(evaluation.log):,} show it ({POWER:.0%} sure){explored}."
        )
    return sentences


def _rounded(count: float) -> str:
    """A number to two digits.

    >>> _rounded(41_499.0), _rounded(97.0)
    ('41,000', '97')
    """
    unit = 10.0 ** max(math.floor(math.log10(max(count, 1.0))) - 1, 0)
    return f"{round(count / unit) * unit:,.0f}"


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
    if evaluation.repeats.rows:
        sentences.append(f"{describe_repeats(evaluation)}.")
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
    for kind in evaluation.missing[signal].inside:
        sentences.append(
            f"Whether {signal} was reported depends on {kind.name} inside a model: for {kind.model} in {kind.least:.0%} to "
            f"{kind.most:.0%} of the rounds of a kind (p = {kind.p_value:.1g}). Estimates are of the rounds that have it."
        )
    return sentences
