"""The promotion gate: whether a log shows, at a stated level, that a candidate meets a requirement.

What is promised: if the requirement is not true of the candidate, the gate passes with probability at most 1 - level, however
the log came about and whenever one looks (``betting``). The error is shared evenly among the clauses that have bounds, so it
holds of all of them together, for ``and`` and for ``or``. V(candidate) and V(logged) are averages over the very rounds of the
log. Two things are taken on trust: that the logged propensities are right (the diagnostics test it), and that outcomes that
never came would have been like those that did (tested against the model that was called).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pointsman.simulator.offpolicy.evaluation.evaluate import Evaluation
from pointsman.simulator.offpolicy.expression import Clause, ExpressionError, Requirement, Term, paired

MIN_ESS = 500.0
MOST_SHARE = 0.05
WEIGHT_Z = 5.0
MISSING_P = 1e-4
CALIBRATION_P = 1e-6


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that had to be shown: what, whether it was, and the numbers."""

    what: str
    shown: bool
    why: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the candidate may go live: the requirement's clauses, and the conditions without which no number is believed."""

    passed: bool
    level: float
    clauses: tuple[Finding, ...]
    conditions: tuple[Finding, ...]


def judge(evaluation: Evaluation, requirement: Requirement) -> Verdict:
    """Raises ``ExpressionError`` for a clause that cannot be tested with a promise."""
    clauses = requirement.clauses()
    for clause in clauses:
        _check(clause)
    bounded = sum(_bounds(clause) > 0 for clause in clauses)
    level = 1.0 - (1.0 - evaluation.level) / max(bounded, 1)
    found = {clause: _clause(evaluation, clause, level) for clause in clauses}
    conditions = _conditions(evaluation, requirement)
    holds = requirement.holds({clause: finding.shown for clause, finding in found.items()})
    return Verdict(
        passed=holds and all(condition.shown for condition in conditions),
        level=evaluation.level,
        clauses=tuple(found.values()),
        conditions=conditions,
    )


def _bounds(clause: Clause) -> int:
    return sum(term.function in ("lower", "upper") for term in clause.difference.factors)


def _check(clause: Clause) -> None:
    """A bound and a logged value that are not one question have errors that nobody controls."""
    logged = [term for term in clause.difference.factors if term.function == "logged"]
    if _bounds(clause) and logged and paired(clause) is None:
        raise ExpressionError(
            f"{clause.text!r}: expected {logged[0]} beside one bound of {logged[0].signal} only, as in "
            f"lower({logged[0].signal}) >= 0.98 * {logged[0]}, so that both can be tested together"
        )


def _clause(evaluation: Evaluation, clause: Clause, level: float) -> Finding:
    question = paired(clause)
    if question is not None:
        one = evaluation.evidence[question.signal]
        bound = one.bound(level, lower=question.lower, factor=question.factor)
        shown = _compared(bound - question.offset, clause.comparison, question.lower)
        versus = f" - {question.factor:g} × logged" if question.factor else ""
        side = "at least" if question.lower else "at most"
        why = (
            f"{question.signal} of the candidate{versus} is {side} {bound:.6g} "
            f"({level:.2%} bound; wanted {side} {question.offset + 0.0:g})"
        )
        return Finding(clause.text, shown, why)
    each = 1.0 - (1.0 - level) / max(_bounds(clause), 1)
    values = {term: _value(evaluation, term, each) for term in clause.difference.factors}
    why = ", ".join(f"{term} = {value:.6g}" for term, value in values.items())
    return Finding(clause.text, clause.holds(values), why)


def _compared(excess: float, comparison: str, lower: bool) -> bool:
    if "=" in comparison:
        return excess >= 0.0 if lower else excess <= 0.0
    return excess > 0.0 if lower else excess < 0.0


def _value(evaluation: Evaluation, term: Term, level: float) -> float:
    if term.function == "ess":
        return evaluation.diagnostics.ess
    if term.function == "largest_weight_share":
        return evaluation.diagnostics.largest_weight_share
    one = evaluation.evidence[term.signal]
    if term.function == "logged":
        return one.logged
    if term.function == "estimate":
        lines = {line.estimator: line.estimate for line in evaluation.reports[term.signal].lines}
        return next((lines[name] for name in ("dr", *lines) if name in lines), math.nan)
    return one.bound(level, lower=term.function == "lower")


def _conditions(evaluation: Evaluation, requirement: Requirement) -> tuple[Finding, ...]:
    """What must be so for any estimate to be believed."""
    seen = evaluation.diagnostics
    asked = {term.signal for clause in requirement.clauses() for term in clause.difference.factors if term.signal}
    z = evaluation.weight_z
    found = [
        Finding(
            f"effective sample size of at least {MIN_ESS:g}", seen.ess >= MIN_ESS, f"{seen.ess:.0f} of {seen.n} rounds"
        ),
        Finding(
            f"no round has {MOST_SHARE:.0%} of all weight",
            seen.largest_weight_share < MOST_SHARE,
            f"the largest has {seen.largest_weight_share:.2%}",
        ),
        Finding(
            "weights are 1 on average, as they must be if propensities are right",
            abs(z) < WEIGHT_Z,
            f"{seen.mean_weight:.4f}, {z:+.1f} standard errors off",
        ),
        Finding(
            "the candidate's model could be chosen",
            not seen.unsupported,
            "in every round"
            if not seen.unsupported
            else f"{seen.unsupported:.2%} of what the candidate does was never tried",
        ),
    ]
    if seen.by_propensity is not None:
        found.append(
            Finding(
                "models were chosen as often as the propensities say",
                seen.by_propensity.p_value >= CALIBRATION_P,
                f"p = {seen.by_propensity.p_value:.2g}",
            )
        )
    for signal in sorted(asked):
        report = evaluation.reports[signal]
        found.append(
            Finding(
                f"{signal} is missing alike for all models",
                report.missing_p >= MISSING_P,
                f"reported in {report.reported} of {seen.n} rounds, p = {report.missing_p:.2g}",
            )
        )
    return tuple(found)


def as_json(verdict: Verdict) -> Mapping[str, object]:
    """The verdict as plain values."""
    return {
        "passed": verdict.passed,
        "level": verdict.level,
        "clauses": [{"what": f.what, "shown": f.shown, "why": f.why} for f in verdict.clauses],
        "conditions": [{"what": f.what, "shown": f.shown, "why": f.why} for f in verdict.conditions],
    }
