"""The promotion gate: whether a log shows, at a stated level, that a candidate meets a requirement.

What is promised: if the requirement is not true of the candidate, the gate passes with probability at most 1 - level, however
the log came about and whenever one looks (``betting``). The error is shared evenly among the clauses that have bounds, so it
holds for all of them together, for ``and`` and for ``or``. V(candidate) and V(logged) are averages over the very rounds of the
log. Two things are taken on trust: that the logged propensities are right (the diagnostics test it), and that outcomes that
never came would have been like those that did (tested against the model that was called).

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
>>> evaluation = evaluate_candidate(log, candidate, estimators=["dr"])
>>> requirement = parse_requirement("lower(quality) >= 1.1 * logged(quality)", evaluation.evidence)
>>> judge(evaluation, requirement).passed
True
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pointsman.simulator.offpolicy.evaluation.evaluate import Evaluation
from pointsman.simulator.offpolicy.expression import Clause, ExpressionError, Requirement, Term, paired_test

MIN_ESS = 500.0
"""Least effective sample size, in rounds."""
MAX_WEIGHT_SHARE = 0.05
"""A round may have less than this share of all weight."""
MAX_WEIGHT_Z = 5.0
"""The mean weight may be fewer standard errors than this off 1."""
MIN_MISSING_P = 1e-4
"""Least p-value of outcomes missing equally often for all models."""
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
    """Whether the evaluation shows ``requirement`` at its level. Raises ``ExpressionError`` for a clause without such a test."""
    clauses = requirement.clauses()
    for clause in clauses:
        _check(clause)
    bounded = sum(_bounds(clause) > 0 for clause in clauses)
    level = 1.0 - (1.0 - evaluation.level) / max(bounded, 1)
    finding_by_clause = {clause: _judge_clause(evaluation, clause, level) for clause in clauses}
    conditions = _conditions(evaluation, requirement)
    holds = requirement.holds({clause: finding.shown for clause, finding in finding_by_clause.items()})
    return GateVerdict(
        passed=holds and all(condition.shown for condition in conditions),
        level=evaluation.level,
        clauses=tuple(finding_by_clause.values()),
        conditions=conditions,
    )


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


def _judge_clause(evaluation: Evaluation, clause: Clause, level: float) -> Finding:
    test = paired_test(clause)
    if test is not None:
        bound = evaluation.evidence[test.signal].bound(level, lower=test.lower, factor=test.factor)
        shown = _compared(bound - test.offset, clause.comparison, test.lower)
        versus = f" - {test.factor:g} × logged" if test.factor else ""
        side = "at least" if test.lower else "at most"
        why = (
            f"{test.signal} of the candidate{versus} is {side} {bound:.6g} "
            f"({level:.2%} bound; wanted {side} {test.offset + 0.0:g})"
        )
        return Finding(clause.text, shown, why)
    level_of_each = 1.0 - (1.0 - level) / max(_bounds(clause), 1)
    values = {term: _value(evaluation, term, level_of_each) for term in clause.difference.factors}
    why = ", ".join(f"{term} = {value:.6g}" for term, value in values.items())
    return Finding(clause.text, clause.holds(values), why)


def _compared(excess: float, comparison: str, lower: bool) -> bool:
    if "=" in comparison:
        return excess >= 0.0 if lower else excess <= 0.0
    return excess > 0.0 if lower else excess < 0.0


def _value(evaluation: Evaluation, term: Term, level: float) -> float:
    """The value of a term, a bound at ``level``. Estimates are doubly robust if ``dr`` was asked for."""
    if term.function == "ess":
        return evaluation.diagnostics.ess
    if term.function == "largest_weight_share":
        return evaluation.diagnostics.largest_weight_share
    evidence = evaluation.evidence[term.signal]
    if term.function == "logged":
        return evidence.logged_mean
    if term.function == "estimate":
        by_name = {e.estimator: e.estimate for e in evaluation.reports[term.signal].estimates}
        return next((by_name[name] for name in ("dr", *by_name) if name in by_name), math.nan)
    return evidence.bound(level, lower=term.function == "lower")


def _conditions(evaluation: Evaluation, requirement: Requirement) -> tuple[Finding, ...]:
    """Preconditions of any estimate: on the weights, then on the signals of the requirement."""
    terms = [term for clause in requirement.clauses() for term in clause.difference.factors]
    findings = _weight_conditions(evaluation)
    for signal in sorted({term.signal for term in terms if term.signal}):
        report = evaluation.reports[signal]
        findings.append(
            Finding(
                f"{signal} is missing equally often for all models",
                report.missing_p >= MIN_MISSING_P,
                f"reported in {report.reported} of {evaluation.diagnostics.n} rounds, p = {report.missing_p:.2g}",
            )
        )
    return tuple(findings)


def _weight_conditions(evaluation: Evaluation) -> list[Finding]:
    diagnostics, z = evaluation.diagnostics, evaluation.weight_z
    supported = "in every round"
    if diagnostics.unsupported:
        supported = f"{diagnostics.unsupported:.2%} of what the candidate does was never tried"
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
            "weights are 1 on average, as they must be if propensities are right",
            abs(z) < MAX_WEIGHT_Z,
            f"{diagnostics.mean_weight:.4f}, {z:+.1f} standard errors off",
        ),
        Finding("the candidate's model could be chosen", not diagnostics.unsupported, supported),
    ]
    if diagnostics.by_propensity is not None:
        p_value = diagnostics.by_propensity.p_value
        findings.append(
            Finding(
                "models were chosen as often as the propensities say",
                p_value >= MIN_CALIBRATION_P,
                f"p = {p_value:.2g}",
            )
        )
    return findings
