"""The promotion gate: whether a log shows, at a stated level, that a candidate meets a requirement.

What is promised: if the requirement is not true of the candidate, the gate passes with probability at most 1 - level, however
the log came about and whenever one looks (``betting``). The error is shared evenly among the clauses that have bounds, so it
holds for all of them together, for ``and`` and for ``or``. V(candidate) and V(logged) are averages over the very rounds of the
log. Two things are taken on trust: that the logged propensities are right (the diagnostics test it), and that outcomes that
never came would have been like those that did. That is tested against the model that was called, in every kind of round
(``evaluation.missing``); and where some kinds have outcomes more often, a clause has to hold too with kinds counted as they came.

Bounds rest on the range that a signal can have. Where neither the log nor the caller says it, a clause with a bound is not
judged; if the verdict hangs on it, it is refused (``ExpressionError``), and if other clauses or the conditions fail, that is the
verdict.

What the log cannot show of the candidate fails the gate (``evaluation.support``). Where models that it wants were not eligible,
others took their part, and every clause has to be shown twice: over all rounds, and over those alone in which the candidate
could do what it wants. Conditions on weights are then about the latter.

>>> import numpy as np
>>> from pointsman.simulator.offpolicy.candidate import BucketPolicy, Candidate
>>> from pointsman.simulator.offpolicy.evaluation.evaluate import evaluate_candidate
>>> from pointsman.simulator.offpolicy.logs.log import Log
>>> from pointsman.simulator.offpolicy.expression import parse_requirement
>>> n, chosen_n = 1000, np.arange(1000) % 2
>>> log = Log(
...     "even", ("small", "large"), ("chat",), chosen_n, np.full(n, 0.5), np.full((n, 2), 0.5), np.ones((n, 2), dtype=np.bool_),
...     {"quality": 0.5 + 0.5 * chosen_n}, np.zeros((n, 0)), np.zeros(n, dtype=np.intp), np.arange(n),
... )
>>> candidate = Candidate("large only", BucketPolicy(policy="fixed", model="large"), {})
>>> evaluation = evaluate_candidate(log, candidate, estimators=["dr"], ranges={"quality": (0.0, 1.0)})
>>> requirement = parse_requirement("lower(quality) >= 1.1 * logged(quality)", evaluation.evidence)
>>> judge(evaluation, requirement).passed
True
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pointsman.simulator.offpolicy.evaluation.diagnostics import MAX_WEIGHT_SHARE
from pointsman.simulator.offpolicy.evaluation.evaluate import Evaluation
from pointsman.simulator.offpolicy.evaluation.evidence import Evidence
from pointsman.simulator.offpolicy.evaluation.missing import TIME
from pointsman.simulator.offpolicy.evaluation.reweighted import reweighted_bound
from pointsman.simulator.offpolicy.evaluation.support import Support, describe_gaps
from pointsman.simulator.offpolicy.expression import (
    Clause,
    ExpressionError,
    Requirement,
    Term,
    paired_test,
    scaled_logged,
)

MIN_ESS = 500.0
"""Least effective sample size, in rounds."""
MAX_WEIGHT_Z = 5.0
"""The mean weight may be fewer standard errors than this off 1."""
MIN_MISSING_P = 1e-3
"""Least p-value of outcomes missing equally often for all models."""
LOOKS_ALLOWED = 10.0
"""A normal bound has this part of the error only, for one may look more than once."""
MIN_CALIBRATION_P = 1e-6
"""Least p-value of models being chosen as often as their propensities say."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that had to be shown: ``what``, whether it was ``shown``, and ``why``, with the numbers."""

    what: str
    shown: bool
    why: str


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """Whether the candidate may go live: the requirement's clauses, and the conditions without which no number is trusted."""

    passed: bool
    level: float
    clauses: tuple[Finding, ...]
    conditions: tuple[Finding, ...]


def judge(evaluation: Evaluation, requirement: Requirement) -> GateVerdict:
    """Whether the evaluation shows ``requirement`` at its level.

    Raises:
        ExpressionError: a clause has no such test, or the verdict hangs on the range of a signal that nobody states.
    """
    clauses = requirement.clauses()
    for clause in clauses:
        _check(clause)
        _check_factor(evaluation, clause)
    level = level_of_clause(evaluation, requirement)
    finding_by_clause = {clause: _judge_clause(evaluation, clause, level) for clause in clauses}
    conditions = _conditions(evaluation, requirement, level)
    without_range = {clause: _without_range(evaluation, clause) for clause in clauses}
    holds = requirement.holds({c: None if without_range[c] else f.shown for c, f in finding_by_clause.items()})
    is_trusted = all(condition.shown for condition in conditions)
    if holds is None and is_trusted:
        unknown = next(signal for signal in without_range.values() if signal)
        raise ExpressionError(_what_to_state(unknown))
    return GateVerdict(
        passed=holds is True and is_trusted,
        level=evaluation.level,
        clauses=tuple(finding_by_clause.values()),
        conditions=conditions,
    )


def level_of_clause(evaluation: Evaluation, requirement: Requirement) -> float:
    """The level at which each clause is tested: those that have bounds share the error."""
    bounded = sum(_bounds(clause) > 0 for clause in requirement.clauses())
    return 1.0 - (1.0 - evaluation.level) / max(bounded, 1)


def _bounds(clause: Clause) -> int:
    return sum(term.function in ("lower", "upper") for term in clause.difference.factors)


def _check(clause: Clause) -> None:
    """A bound and a logged value that are not one paired test have errors that nothing controls."""
    logged = [term for term in clause.difference.factors if term.function == "logged"]
    if _bounds(clause) and logged and paired_test(clause) is None:
        raise ExpressionError(
            f"{clause.text!r}: expected {logged[0]} beside one bound of {logged[0].signal} only, as in "
            f"lower({logged[0].signal}) >= 0.98 * {logged[0]}, so that both can be tested together"
        )


def _check_factor(evaluation: Evaluation, clause: Clause) -> None:
    """A factor of what can be negative means the opposite of what it seems to."""
    signal = scaled_logged(clause)
    if signal is not None and evaluation.evidence[signal].low < 0.0:
        raise ExpressionError(
            f"{clause.text!r}: expected a difference, for {signal} can be negative (down to "
            f"{evaluation.evidence[signal].low:g}), where a factor turns round: write logged({signal}) + 0.1 or - 0.1 instead"
        )


def _without_range(evaluation: Evaluation, clause: Clause) -> str | None:
    """A signal of whose bounds in ``clause`` nothing is proven, because nobody says what values it can have."""
    bounded = [term.signal for term in clause.difference.factors if term.function in ("lower", "upper")]
    return next((signal for signal in bounded if not evaluation.evidence[signal].range_is_known), None)


def _what_to_state(signal: str) -> str:
    return (
        f"nothing says what values {signal} can have, and a bound cannot rest on those that were seen: state the least and the "
        f"largest with --range {signal}=LOW,HIGH"
    )


def _judge_clause(evaluation: Evaluation, clause: Clause, level: float) -> Finding:
    """Whether a clause is shown over all rounds and, where the candidate could not always do what it wants, over those."""
    signal = _without_range(evaluation, clause)
    if signal is not None:
        return Finding(clause.text, False, f"not judged: {_what_to_state(signal)}")
    shown, why = _judge_rounds(evaluation, evaluation.evidence, clause, level)
    if evaluation.acted is None:
        return Finding(clause.text, shown, why)
    signals = {term.signal for term in clause.difference.factors if term.signal}
    acted, there = False, "no outcome was reported"
    if signals <= set(evaluation.acted.evidence):
        acted, there = _judge_rounds(evaluation, evaluation.acted.evidence, clause, level)
    where = f"in the {evaluation.acted.rounds} rounds in which all of its models were eligible"
    return Finding(clause.text, shown and acted, f"{why}; {where}: {there}")


def _judge_rounds(
    evaluation: Evaluation, evidence: Mapping[str, Evidence], clause: Clause, level: float
) -> tuple[bool, str]:
    """Whether ``evidence``, of all rounds or of some, shows a clause at ``level``, and why."""
    test = paired_test(clause)
    if test is not None:
        bound = evidence[test.signal].bound(level, lower=test.lower, factor=test.factor)
        shown = _compared(bound - test.offset, clause.comparison, test.lower)
        versus = f" - {test.factor:g} × logged" if test.factor else ""
        side = "at least" if test.lower else "at most"
        why = (
            f"{test.signal} of the candidate{versus} is {side} {bound:.6g} "
            f"({level:.2%} bound; wanted {side} {test.offset + 0.0:g})"
        )
        return shown, why
    level_of_each = 1.0 - (1.0 - level) / max(_bounds(clause), 1)
    values = {term: _value(evaluation, evidence, term, level_of_each) for term in clause.difference.factors}
    return clause.holds(values), ", ".join(f"{term} = {value:.6g}" for term, value in values.items())


def _compared(excess: float, comparison: str, lower: bool) -> bool:
    if "=" in comparison:
        return excess >= 0.0 if lower else excess <= 0.0
    return excess > 0.0 if lower else excess < 0.0


def _value(evaluation: Evaluation, evidence: Mapping[str, Evidence], term: Term, level: float) -> float:
    """The value of a term, a bound at ``level``. Estimates, over all rounds, are doubly robust if ``dr`` was asked for."""
    if term.function in ("ess", "largest_weight_share"):
        diagnostics = evaluation.diagnostics if evaluation.acted is None else evaluation.acted.diagnostics
        return diagnostics.ess if term.function == "ess" else diagnostics.largest_weight_share
    if term.function == "logged":
        return evidence[term.signal].logged_mean
    if term.function == "estimate":
        by_name = {e.estimator: e.estimate for e in evaluation.reports[term.signal].estimates}
        return next((by_name[name] for name in ("dr", *by_name) if name in by_name), math.nan)
    return evidence[term.signal].bound(level, lower=term.function == "lower")


def _conditions(evaluation: Evaluation, requirement: Requirement, level: float) -> tuple[Finding, ...]:
    """Preconditions of any estimate: on the weights, then on the signals of the requirement."""
    repeats = evaluation.repeats
    terms = [term for clause in requirement.clauses() for term in clause.difference.factors]
    findings = [*_support_conditions(evaluation.support), *_weight_conditions(evaluation)]
    if evaluation.log.has_ids:
        findings.append(Finding("every decision is there once", True, "each has an id of its own"))
    else:
        why = "no more rows are alike than by chance" if not repeats.is_beyond_chance else describe_repeats(evaluation)
        findings.append(Finding("every decision is there once", not repeats.is_beyond_chance, why))
    for signal in sorted({term.signal for term in terms if term.signal}):
        report, missing = evaluation.reports[signal], evaluation.missing[signal]
        kinds = f"; by {missing.across} p = {missing.across_p:.2g}" if missing.across else ""
        findings.append(
            Finding(
                f"{signal} is missing equally often for all models",
                min(report.missing_p, missing.across_p) >= MIN_MISSING_P,
                f"reported in {report.reported} of {evaluation.diagnostics.n} rounds, p = {report.missing_p:.2g}{kinds}",
            )
        )
    return (
        *findings,
        *(f for clause in requirement.clauses() for f in _reweighted_conditions(evaluation, clause, level)),
    )


def _reweighted_conditions(evaluation: Evaluation, clause: Clause, level: float) -> list[Finding]:
    """Whether a clause holds too if kinds of rounds count as often as they came, where they were reported unequally.

    Times are left out: the last rounds' outcomes come later.
    """
    bounded = {term.signal for term in clause.difference.factors if term.function in ("lower", "upper")}
    kinds = {kind.name for signal in bounded for kind in evaluation.missing[signal].inside} - {TIME}
    findings = []
    for name in sorted(kinds):
        values = {term: _reweighted(evaluation, clause, term, name, level) for term in clause.difference.factors}
        why = ", ".join(
            f"{term} = {value:.6g}" for term, value in values.items() if term.function in ("lower", "upper")
        )
        findings.append(
            Finding(f"{clause.text}, all kinds of {name} counted as often as they came", clause.holds(values), why)
        )
    return findings


def _reweighted(evaluation: Evaluation, clause: Clause, term: Term, name: str, level: float) -> float:
    """The value of a term with the rounds of each kind ``name`` counted as often as they came, where they were not.

    Of a paired test the bound is of the difference, and the logged value counts nothing more.
    """
    test = paired_test(clause)
    if test is not None and term.function == "logged":
        return 0.0
    kind = next((k for k in evaluation.missing[term.signal].inside if k.name == name), None) if term.signal else None
    if kind is None or term.function not in ("lower", "upper"):
        return _value(evaluation, evaluation.evidence, term, level)
    group_n, reported_n = evaluation.log.group_n, evaluation.missing[term.signal].reported_n
    place_n = group_n * (int(kind.kind_n.max()) + 1) + kind.kind_n
    lower, factor = term.function == "lower", 0.0 if test is None else test.factor
    level = 1.0 - (1.0 - level) / LOOKS_ALLOWED
    return reweighted_bound(evaluation.evidence[term.signal], reported_n, place_n, level, lower=lower, factor=factor)


def describe_repeats(evaluation: Evaluation) -> str:
    """How many rows stand there twice, and what to do about it."""
    return (
        f"{evaluation.repeats.rows} of {len(evaluation.log)} rows stand there before, word for word: leave them out, or give "
        "every decision an id of its own (column decision)"
    )


def _support_conditions(support: Support) -> list[Finding]:
    """Whether the log shows what the candidate does, and, where its models were not always eligible, whether they ever were."""
    unshown = support.unshown + support.rare
    why = f"{1.0 - unshown:.2%} of it could be chosen and was"
    if unshown > 0.0:
        why = f"{unshown:.2%} of it the log cannot show: {describe_gaps(support)}"
    findings = [Finding("the log shows what the candidate does", support.shows_choices, why)]
    if support.displaced > 0.0 or support.barred:
        why = f"{support.displaced:.2%} of its choices were not; others took their part"
        if support.barred:
            barred = ", ".join(
                f"{gap.model} in {gap.group} ({gap.share:.2%} of its choices)" for gap in support.barred[:5]
            )
            why += f", and never were: {barred}; say what it does there (buckets: …)"
        findings.append(
            Finding("the models that it wants were eligible at times", not support.barred and support.acted > 0, why)
        )
    return findings


def _weight_conditions(evaluation: Evaluation) -> list[Finding]:
    rounds = evaluation if evaluation.acted is None else evaluation.acted
    diagnostics, z = rounds.diagnostics, rounds.weight_z
    unsupported = diagnostics.unsupported or 0.0
    findings = [
        Finding(
            f"effective sample size of at least {MIN_ESS:g}",
            diagnostics.ess >= MIN_ESS,
            f"{diagnostics.ess:.0f} of {diagnostics.n} rounds",
        ),
        Finding(
            f"no round has {MAX_WEIGHT_SHARE:.0%} of all weight",
            diagnostics.largest_weight_share < MAX_WEIGHT_SHARE,
            f"the largest has {diagnostics.largest_weight_share:.2%}",
        ),
        Finding(
            f"weights are {1.0 - unsupported:.4g} on average, as they must be if propensities are right",
            abs(z) < MAX_WEIGHT_Z,
            f"{diagnostics.mean_weight:.4f}, {z:+.1f} standard errors off",
        ),
    ]
    if evaluation.diagnostics.by_propensity is not None:
        p_value = evaluation.diagnostics.by_propensity.p_value
        findings.append(
            Finding(
                "models were chosen as often as the propensities say",
                p_value >= MIN_CALIBRATION_P,
                f"p = {p_value:.2g}",
            )
        )
    return findings
