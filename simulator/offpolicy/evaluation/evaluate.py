"""Everything that a log says of a candidate: estimates with intervals, comparators, diagnostics.

Rounds whose outcome never came are left out of what is said of that signal. That is right if the outcome being missing does
not depend on the model that was called; ``SignalReport.missing_p`` tests it.

>>> from pointsman.simulator.offpolicy.candidate import BucketPolicy
>>> n, chosen_n = 1000, np.arange(1000) % 2
>>> log = Log(
...     "even", ("small", "large"), ("chat",), chosen_n, np.full(n, 0.5), np.full((n, 2), 0.5), np.ones((n, 2), dtype=np.bool_),
...     {"quality": 0.5 + 0.5 * chosen_n}, np.zeros((n, 0)), np.zeros(n, dtype=np.intp), np.arange(n),
... )
>>> candidate = Candidate("large only", BucketPolicy(policy="fixed", model="large"), {})
>>> evaluation = evaluate_candidate(log, candidate, estimators=["ips", "dr"])
>>> report = evaluation.reports["quality"]
>>> report.logged.estimate, [estimate.estimator for estimate in report.estimates]
(0.75, ['ips', 'dr', 'dr, adaptive weights', 'betting'])
>>> report.estimate("ips").estimate, report.estimate("betting").intervals["betting"].low > 0.75
(1.0, True)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pointsman.bandit.catalog import Objective
from pointsman.simulator.offpolicy.candidate import Candidate, Target, target_of
from pointsman.simulator.offpolicy.estimators.scores import NAMES, weights
from pointsman.simulator.offpolicy.evaluation.comparators import Comparator, comparators_of, objective_of
from pointsman.simulator.offpolicy.evaluation.diagnostics import Diagnostics, diagnose, mean_weight_z, missingness_p
from pointsman.simulator.offpolicy.evaluation.estimates import IntervalEstimate, estimates_of, mean_of
from pointsman.simulator.offpolicy.evaluation.evidence import Evidence, evidence_of
from pointsman.simulator.offpolicy.evaluation.missing import Missingness, missingness
from pointsman.simulator.offpolicy.evaluation.repeats import Repeats, repeats_in
from pointsman.simulator.offpolicy.evaluation.signals import SignalValues, select_signals
from pointsman.simulator.offpolicy.evaluation.support import Support, support_of
from pointsman.simulator.offpolicy.expression import LinearCombination
from pointsman.simulator.offpolicy.logs.log import Array, Log, where

_ROUNDING = 1e-12
"""Variance of a weight below which it is the same in every round."""


@dataclass(frozen=True, slots=True)
class SignalReport:
    """The estimates of one signal, from the ``reported`` rounds that had it.

    ``missing_p`` is the p-value of outcomes missing equally often for all models, ``low`` to ``high`` the signal's range (see
    ``SignalValues``), ``logged`` the logging policy's mean.
    """

    signal: str
    reported: int
    missing_p: float
    low: float
    high: float
    low_is_seen: bool
    high_is_seen: bool
    logged: IntervalEstimate
    estimates: tuple[IntervalEstimate, ...]

    def estimate(self, estimator: str) -> IntervalEstimate:
        """The estimate of one estimator. Raises ``StopIteration`` if it was not asked for."""
        return next(estimate for estimate in self.estimates if estimate.estimator == estimator)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Everything that ``log`` says of ``candidate``; ``reports`` and ``evidence`` by signal, intervals at ``level``.

    ``objective`` is what comparators are judged by, ``None`` if by quality. ``target`` is the candidate's distribution in every
    round, ``support`` how far the log covers it; ``weight_z`` is by how many standard errors the mean weight is off 1. ``acted``
    is what the rounds alone say in which every model was eligible that the candidate wants; ``None`` if those are all, or none.
    ``repeats`` are rows of the log that stand there twice, ``missing`` says by signal what is missing how.
    """

    log: Log
    candidate: Candidate
    level: float
    target: Target
    weight_z: float
    diagnostics: Diagnostics
    reports: Mapping[str, SignalReport]
    evidence: Mapping[str, Evidence]
    comparators: tuple[Comparator, ...]
    objective: Objective | None
    support: Support
    acted: ActedRounds | None
    repeats: Repeats
    missing: Mapping[str, Missingness]


@dataclass(frozen=True, slots=True, eq=False)
class ActedRounds:
    """The rounds in which a candidate could do what it wants: how many, their weights, and the evidence by signal."""

    rounds: int
    weight_z: float
    diagnostics: Diagnostics
    evidence: Mapping[str, Evidence]


def evaluate_candidate(
    log: Log,
    candidate: Candidate,
    *,
    signals: Sequence[str] = (),
    sums: Mapping[str, LinearCombination] | None = None,
    caps: Mapping[str, float] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    objective: Objective | None = None,
    estimators: Sequence[str] = NAMES,
    level: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Evaluate ``candidate`` on ``log``.

    ``signals`` are those to be evaluated (all that matter by default), ``sums`` more of them by name, made of the log's.
    ``ranges`` are the least and the largest value that a signal can have, ``caps`` the largest alone; without, what the log knows
    of it, else the values seen, with which nothing can be proven. ``objective``, resolved, is what comparators are judged by
    instead of the candidate's own (``comparators.objective_of``). ``seed`` is the bootstrap's.

    Raises:
        EvaluationError: the log does not have the signals, or not within what is stated.
        CandidateError: the log does not say enough for this candidate.
    """
    selected = select_signals(log, signals, sums or {}, caps or {}, ranges)
    target = target_of(candidate, log)
    served = objective_of(candidate, log) if objective is None else objective
    weight_n = weights(target.target_nk, log.chosen_n, log.propensity_n)
    evidence = {name: evidence_of(log, name, signal, target.target_nk, weight_n) for name, signal in selected.items()}
    rng = np.random.default_rng(seed)
    reports, missing = {}, {name: missingness(log, ~np.isnan(signal.value_n)) for name, signal in selected.items()}
    for name, signal in selected.items():
        estimates = estimates_of(evidence[name], estimators, level, rng, is_static=candidate.is_static)
        reports[name] = _report(log, signal, evidence[name], estimates, level)
    return Evaluation(
        log=log,
        candidate=candidate,
        level=level,
        target=target,
        weight_z=_weight_z(log, target.target_nk, weight_n),
        diagnostics=diagnose(weight_n, log.chosen_n, target.target_nk, log.logged_nk),
        reports=reports,
        evidence=evidence,
        comparators=comparators_of(log, evidence, level, served),
        objective=served,
        support=support_of(log, target),
        acted=_acted(log, target, selected),
        repeats=repeats_in(log),
        missing=missing,
    )


def _acted(log: Log, target: Target, selected: Mapping[str, SignalValues]) -> ActedRounds | None:
    """The rounds in which nothing that the candidate wants was out of its reach; ``None`` if those are all, or none."""
    acted_n = target.acted_n
    if acted_n.all() or not acted_n.any():
        return None
    rounds, target_nk = where(log, acted_n), target.target_nk[acted_n]
    weight_n = weights(target_nk, rounds.chosen_n, rounds.propensity_n)
    signals = {name: replace(signal, value_n=signal.value_n[acted_n]) for name, signal in selected.items()}
    return ActedRounds(
        rounds=len(rounds),
        weight_z=_weight_z(rounds, target_nk, weight_n),
        diagnostics=diagnose(weight_n, rounds.chosen_n, target_nk, rounds.logged_nk),
        evidence={
            name: evidence_of(rounds, name, signal, target_nk, weight_n)
            for name, signal in signals.items()
            if not np.isnan(signal.value_n).all()
        },
    )


def _report(
    log: Log, signal: SignalValues, evidence: Evidence, estimates: tuple[IntervalEstimate, ...], level: float
) -> SignalReport:
    reported_n = ~np.isnan(signal.value_n)
    return SignalReport(
        signal=evidence.signal,
        reported=len(evidence),
        missing_p=missingness_p(log.chosen_n, log.group_n, reported_n, len(log.models)),
        low=evidence.low,
        high=evidence.high,
        low_is_seen=signal.low_is_seen,
        high_is_seen=signal.high_is_seen,
        logged=mean_of("logged", evidence.reward_m, level),
        estimates=estimates,
    )


def _weight_z(log: Log, target_nk: Array, weight_n: Array) -> float:
    """By how many standard errors the mean weight is off 1, or off the share of the candidate's choices that the log has.

    With the whole logged distribution they are exact: given the past, the mean of a weight is the mass m of the target where the
    logging policy has some, its variance Σ target²/logged - m².
    """
    if log.logged_nk is None:
        return mean_weight_z(weight_n)
    has_some_nk = log.logged_nk > 0.0
    mass_n = np.where(has_some_nk, target_nk, 0.0).sum(axis=1)
    square_nk = np.divide(target_nk**2, log.logged_nk, out=np.zeros_like(target_nk), where=has_some_nk)
    difference, variance = float((weight_n - mass_n).sum()), float(square_nk.sum() - (mass_n**2).sum())
    return 0.0 if variance <= _ROUNDING * len(log) else difference / math.sqrt(variance)
