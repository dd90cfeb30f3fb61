"""Logs that invite a false promotion: each asks the gate for what is not true, by a hair or by much.

Three models, an even draw unless it says otherwise, and requests of which half, the hard ones, have less quality. The log is
looked at five times as it grows. What is true is known over all rounds, whether an outcome was reported or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from pointsman.simulator.offpolicy.candidate import BucketPolicy, Candidate
from pointsman.simulator.offpolicy.evaluation.evaluate import evaluate_candidate
from pointsman.simulator.offpolicy.expression import ExpressionError, parse_requirement
from pointsman.simulator.offpolicy.gate import judge
from pointsman.simulator.offpolicy.logs.log import Log, part, where

Array = npt.NDArray[np.float64]
Generator = np.random.Generator

MODELS = ("m0", "m1", "m2")
LOOKS = (0.2, 0.4, 0.6, 0.8, 1.0)
HAIR = 1e-6
LEVEL = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A log, what might go live, and by how much its quality is truly above the log's: the gate is asked for a hair more.

    ``log`` knows the range of quality unless the gate has to be asked without one.
    """

    log: Log
    candidate: Candidate
    gain: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What the gate said of one log: ``passed`` after all rounds, ``ever`` at any look, ``bound`` at any without conditions."""

    scenario: str
    passed: bool
    ever: bool
    bound: bool


def fixed(model: str = "m2") -> Candidate:
    return Candidate(model, BucketPolicy(policy="fixed", model=model), {})


def mixed(share: float) -> Candidate:
    return Candidate("mix", BucketPolicy(policy="mix", shares={"m0": 1.0 - share, "m2": share}), {})


def _log(rng: Generator, quality_nk: Array, logged_nk: Array, hard_n: Array, low: float, high: float) -> Log:
    n = len(quality_nk)
    chosen_n = (rng.random((n, 1)) > logged_nk.cumsum(axis=1)[:, :-1]).sum(axis=1)
    rows_n = np.arange(n)
    return Log(
        name="hard",
        models=MODELS,
        groups=("all",),
        chosen_n=chosen_n,
        propensity_n=logged_nk[rows_n, chosen_n],
        logged_nk=logged_nk,
        eligible_nk=np.ones((n, 3), dtype=np.bool_),
        signals={"quality": quality_nk[rows_n, chosen_n]},
        x_nd=(hard_n + 0.1 * rng.random(n))[:, None],
        group_n=np.zeros(n, dtype=np.intp),
        time_ns_n=rows_n,
        ranges={"quality": (low, high)},
        is_dated=False,
    )


def _even(n: int) -> Array:
    return np.full((n, 3), 1.0 / 3.0)


def _worth(rng: Generator, n: int, graded: bool = False) -> tuple[Array, Array]:
    """Qualities of all models (n, k), and which requests are hard (n). m2 is a little worse than the others."""
    hard_n = rng.integers(0, 2, n).astype(np.float64)
    mean_nk = np.where(hard_n[:, None] == 1.0, [[0.5, 0.6, 0.52]], [[0.8, 0.75, 0.78]])
    quality_nk = (
        rng.beta(6.0 * mean_nk, 6.0 * (1.0 - mean_nk)) if graded else (rng.random((n, 3)) < mean_nk).astype(np.float64)
    )
    return quality_nk, hard_n


def _gain(quality_nk: Array, logged_nk: Array, target_k: Array) -> float:
    return float((quality_nk @ target_k).mean() - (quality_nk * logged_nk).sum(axis=1).mean())


M2 = np.array([0.0, 0.0, 1.0])


def never_tried(rng: Generator, n: int, share: float) -> Question:
    """m2 never was chosen, and is worth nothing."""
    quality_nk, hard_n = _worth(rng, n)
    quality_nk[:, 2] = 0.0
    logged_nk = np.tile([0.5, 0.5, 0.0], (n, 1))
    log = _log(rng, quality_nk, logged_nk, hard_n, 0.0, 1.0)
    return Question(log, mixed(share), _gain(quality_nk, logged_nk, np.array([1.0 - share, 0.0, share])))


def dropped(rng: Generator, n: int, p: float) -> Question:
    """m2 had propensity ``p`` (or none) for hard requests, for which it is bad."""
    quality_nk, hard_n = _worth(rng, n)
    quality_nk[hard_n == 1.0, 2] = 0.0
    logged_nk = np.where(hard_n[:, None] == 1.0, [[0.5, 0.5 - p, p]], _even(n))
    return Question(_log(rng, quality_nk, logged_nk, hard_n, 0.0, 1.0), fixed(), _gain(quality_nk, logged_nk, M2))


def rare_hole(rng: Generator, n: int) -> Question:
    """m2 had no propensity in 2 % of the rounds, by no rule that the log tells, and is worth nothing there."""
    quality_nk, hard_n = _worth(rng, n)
    hole_n = rng.random(n) < 0.02
    quality_nk[hole_n, 2] = 0.0
    logged_nk = np.where(hole_n[:, None], [[0.5, 0.5, 0.0]], _even(n))
    return Question(_log(rng, quality_nk, logged_nk, hard_n, 0.0, 1.0), fixed(), _gain(quality_nk, logged_nk, M2))


def not_eligible(rng: Generator, n: int, share: float) -> Question:
    """m2 was eligible in a share of the rounds only, and is worse there; elsewhere the log's policy stands in for it."""
    quality_nk, hard_n = _worth(rng, n)
    eligible_n = rng.random(n) < share
    logged_nk = np.where(eligible_n[:, None], _even(n), [[0.5, 0.5, 0.0]])
    log = _log(rng, quality_nk, logged_nk, hard_n, 0.0, 1.0)
    eligible_nk = np.ones((n, 3), dtype=np.bool_)
    eligible_nk[~eligible_n, 2] = False
    gain = _gain(quality_nk[eligible_n], logged_nk[eligible_n], M2)
    return Question(replace(log, eligible_nk=eligible_nk), fixed(), gain)


def catastrophes(rng: Generator, n: int, known: bool) -> Question:
    """m2 is better by .1, but for 0.3 % of its calls, each worth -300."""
    quality_nk, hard_n = _worth(rng, n, graded=True)
    quality_nk[:, 2] = np.where(rng.random(n) < 0.003, -300.0, np.minimum(quality_nk[:, 2] + 0.1, 1.0))
    log = _log(rng, quality_nk, _even(n), hard_n, -300.0, 1.0)
    truth = _gain(quality_nk, _even(n), M2)
    return Question(log if known else replace(log, ranges={}), fixed(), min(truth, -HAIR))


def negative(rng: Generator, n: int) -> Question:
    """Qualities from -2 to 0, of which m2 has less."""
    quality_nk, hard_n = _worth(rng, n, graded=True)
    quality_nk = 2.0 * quality_nk - 2.0
    return Question(_log(rng, quality_nk, _even(n), hard_n, -2.0, 0.0), fixed(), _gain(quality_nk, _even(n), M2))


def twice(rng: Generator, n: int, times: int, graded: bool, joined: bool) -> Question:
    """Every row stands there so many times, one after the other or as a file that was joined to itself."""
    few = n // times
    quality_nk, hard_n = _worth(rng, few, graded)
    log = _log(rng, quality_nk, _even(few), hard_n, 0.0, 1.0)
    if not graded:
        log = replace(log, x_nd=np.zeros((few, 0)))
    rows_n = np.tile(np.arange(few), times) if joined else np.repeat(np.arange(few), times)
    repeated = where(log, np.ones(few, dtype=np.bool_))
    repeated = _taken(repeated, rows_n)
    return Question(repeated, fixed(), _gain(quality_nk, _even(few), M2))


def _taken(log: Log, rows_n: npt.NDArray[np.intp]) -> Log:
    assert log.logged_nk is not None
    return replace(
        log,
        chosen_n=log.chosen_n[rows_n],
        propensity_n=log.propensity_n[rows_n],
        logged_nk=log.logged_nk[rows_n],
        eligible_nk=log.eligible_nk[rows_n],
        signals={name: value_n[rows_n] for name, value_n in log.signals.items()},
        x_nd=log.x_nd[rows_n],
        group_n=log.group_n[rows_n],
        time_ns_n=np.arange(len(rows_n)),
    )


def missing(rng: Generator, n: int, how: str) -> Question:
    """Outcomes are missing for a reason."""
    quality_nk, hard_n = _worth(rng, n)
    log = _log(rng, quality_nk, _even(n), hard_n, 0.0, 1.0)
    quality_n = log.signals["quality"]
    rate_n = {
        "where m2 is bad": np.where((log.chosen_n == 2) & (quality_n == 0.0), 0.4, 0.8),
        "where answers are bad": np.where(quality_n == 0.0, 0.4, 0.8),
        "of hard requests": np.where(hard_n == 1.0, 0.2, 0.9),
        "of hard requests for m2, of easy ones for others": np.where((log.chosen_n == 2) == (hard_n == 1.0), 0.4, 0.8),
    }[how]
    value_n = np.where(rng.random(n) < rate_n, quality_n, np.nan)
    return Question(replace(log, signals={"quality": value_n}), fixed(), _gain(quality_nk, _even(n), M2))


SCENARIOS: dict[str, Callable[[Generator, int], Question]] = {
    "never tried": lambda rng, n: never_tried(rng, n, 1.0),
    "never tried, 5 % of a mix": lambda rng, n: never_tried(rng, n, 0.05),
    "left out for hard requests": lambda rng, n: dropped(rng, n, 0.0),
    "1 in a million for hard requests": lambda rng, n: dropped(rng, n, 1e-6),
    "left out in 2 % of rounds": rare_hole,
    "eligible in half of the rounds": lambda rng, n: not_eligible(rng, n, 0.5),
    "eligible in 5 % of the rounds": lambda rng, n: not_eligible(rng, n, 0.05),
    "rare catastrophe, range stated": lambda rng, n: catastrophes(rng, n, True),
    "rare catastrophe, no range": lambda rng, n: catastrophes(rng, n, False),
    "negative range": negative,
    "twice, joined, graded": lambda rng, n: twice(rng, n, 2, True, True),
    "twice, joined, right or wrong": lambda rng, n: twice(rng, n, 2, False, True),
    "four times, one by one, right or wrong": lambda rng, n: twice(rng, n, 4, False, False),
    "missing where m2 is bad": lambda rng, n: missing(rng, n, "where m2 is bad"),
    "missing where answers are bad": lambda rng, n: missing(rng, n, "where answers are bad"),
    "missing of hard requests": lambda rng, n: missing(rng, n, "of hard requests"),
    "missing of hard ones for m2, of easy ones for others": lambda rng, n: missing(
        rng, n, "of hard requests for m2, of easy ones for others"
    ),
}
"""Each makes a log of so many rounds, in which the candidate is worth so much more than the log's policy, or less."""


def answer(_: None, item: tuple[str, int, int]) -> Answer:
    """What the gate says of one log of (scenario, seed, rounds)."""
    scenario, seed, rounds = item
    question = SCENARIOS[scenario](np.random.default_rng([seed, list(SCENARIOS).index(scenario)]), rounds)
    passed, bounds = [], []
    for look in LOOKS:
        n = int(look * len(question.log))
        evaluation = evaluate_candidate(part(question.log, 0, n), question.candidate, estimators=["dr"], level=LEVEL)
        requirement = parse_requirement(
            f"lower(quality) >= logged(quality) + {question.gain + HAIR!r}", evaluation.evidence
        )
        try:
            verdict = judge(evaluation, requirement)
        except ExpressionError:  # no range: refused
            passed.append(False)
            bounds.append(False)
            continue
        passed.append(verdict.passed)
        bounds.append(verdict.clauses[0].shown)
    return Answer(scenario, passed[-1], any(passed), any(bounds))


def summarise_answers(answers: list[Answer]) -> list[dict[str, Any]]:
    """How often the gate passed what is not true, by scenario."""
    rows = []
    for scenario in dict.fromkeys(a.scenario for a in answers):
        of_scenario = [a for a in answers if a.scenario == scenario]
        shares = {name: float(np.mean([getattr(a, name) for a in of_scenario])) for name in ("passed", "ever", "bound")}
        rows.append({"scenario": scenario, "replications": len(of_scenario)} | shares)
    return rows


def report_hard(console: Console, rows: list[dict[str, Any]]) -> None:
    """How often the gate passed what is not true, on the terminal."""
    replications = rows[0]["replications"]
    sheet = Table(
        title=f"What is not true passed, of {replications} logs each; the gate may be wrong in {1.0 - LEVEL:.0%}"
    )
    for title in ("log", "at the end", f"at any of {len(LOOKS)} looks", "its bound alone, at any"):
        sheet.add_column(title, justify="left" if title == "log" else "right")
    for row in rows:
        cells = [f"{row[name]:.3f}" for name in ("passed", "ever", "bound")]
        sheet.add_row(row["scenario"], *cells, style="" if row["ever"] <= 1.0 - LEVEL else "bold red")
    console.print(sheet)
