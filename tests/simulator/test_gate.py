"""The gate passes what a log shows, and nothing that it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pointsman.simulator.offpolicy.candidate import BucketPolicy, Candidate
from pointsman.simulator.offpolicy.evaluation.evaluate import Evaluation, evaluate_candidate
from pointsman.simulator.offpolicy.evaluation.signals import EvaluationError
from pointsman.simulator.offpolicy.expression import ExpressionError, parse_combination, parse_requirement
from pointsman.simulator.offpolicy.gate import GateVerdict, judge
from pointsman.simulator.offpolicy.logs.log import Log

MEAN_K = np.array([0.5, 0.6, 0.9])
COST_K = np.array([1.0, 2.0, 9.0])


def make_log(n: int = 6000, seed: int = 0, logged_k: tuple[float, ...] = (0.4, 0.3, 0.3)) -> Log:
    """A policy that looks at nothing, Bernoulli qualities, one report in ten missing."""
    rng = np.random.default_rng(seed)
    chosen_n = rng.choice(3, size=n, p=logged_k)
    quality_n = (rng.random(n) < MEAN_K[chosen_n]).astype(np.float64)
    quality_n[rng.random(n) < 0.1] = np.nan
    return Log(
        name="made",
        models=("small", "middle", "large"),
        groups=("all",),
        chosen_n=chosen_n,
        propensity_n=np.asarray(logged_k)[chosen_n],
        logged_nk=np.tile(logged_k, (n, 1)),
        eligible_nk=np.ones((n, 3), dtype=np.bool_),
        signals={"quality": quality_n, "cost": COST_K[chosen_n] * 1.0},
        x_nd=np.zeros((n, 0)),
        group_n=np.zeros(n, dtype=np.intp),
        time_ns_n=np.arange(n),
        ranges={"quality": (0.0, 1.0), "cost": (0.0, 9.0)},
    )


def candidate(**shares: float) -> Candidate:
    return Candidate("candidate", BucketPolicy(policy="mix", shares=shares), {})


def gate(
    log: Log, shares: dict[str, float], text: str, level: float = 0.95, **more: object
) -> tuple[Evaluation, GateVerdict]:
    evaluation = evaluate_candidate(log, candidate(**shares), level=level, **more)  # type: ignore[arg-type]
    return evaluation, judge(evaluation, parse_requirement(text, evaluation.evidence))


def test_what_is_clearly_so_is_shown() -> None:
    # logged: .65 and 3.7; candidate: .84 and 7.6
    _, verdict = gate(
        make_log(), {"middle": 0.2, "large": 0.8}, "lower(quality) >= 1.1 * logged(quality) and upper(cost) <= 8.5"
    )
    assert verdict.passed and all(finding.shown for finding in (*verdict.clauses, *verdict.conditions))
    _, verdict = gate(make_log(), {"small": 1.0}, "upper(cost) <= 0.5 * logged(cost)")
    assert verdict.passed


@pytest.mark.parametrize(
    "text",
    [
        "lower(quality) >= 1.4 * logged(quality)",  # it is 1.29
        "lower(quality) >= 0.9",
        "upper(cost) <= 2 * logged(cost)",  # 2.05
        "lower(quality) >= 1.1 * logged(quality) and upper(cost) <= 2 * logged(cost)",
        "lower(quality) >= 1.4 * logged(quality) or upper(cost) <= 2 * logged(cost)",
        "lower(quality) >= 1.1 * logged(quality) and ess() >= 10000",
    ],
)
def test_what_is_not_so_is_not_shown(text: str) -> None:
    for seed in range(3):
        assert not gate(make_log(seed=seed), {"middle": 0.2, "large": 0.8}, text)[1].passed


def test_one_of_two_is_enough_for_or() -> None:
    text = "lower(quality) >= 0.99 or upper(cost) <= 0.5 * logged(cost)"
    _, verdict = gate(make_log(), {"small": 1.0}, text)
    assert verdict.passed and [finding.shown for finding in verdict.clauses] == [False, True]


def test_clauses_share_the_error() -> None:
    """Each of two bounds is wider than the one of a clause alone: 97.5 %."""
    log, shares = make_log(), {"large": 1.0}
    alone, _ = gate(log, shares, "lower(quality) >= 0.5")
    interval = alone.evidence["quality"]
    assert interval.bound(0.975, lower=True) < interval.bound(0.95, lower=True)
    _, both = gate(log, shares, "lower(quality) >= 0.5 and upper(cost) <= 9.5")
    assert "97.50%" in both.clauses[0].why and f"{interval.bound(0.975, lower=True):.6g}" in both.clauses[0].why
    _, with_weights = gate(log, shares, "lower(quality) >= 0.5 and ess() > 1")
    assert "95.00%" in with_weights.clauses[0].why


def failed(verdict: GateVerdict) -> list[str]:
    return [finding.what for finding in verdict.conditions if not finding.shown]


def test_conditions() -> None:
    trivially = "lower(quality) >= 0"
    log = make_log()
    assert gate(log, {"large": 1.0}, trivially)[1].passed

    _, verdict = gate(make_log(n=1000), {"large": 1.0}, trivially)
    assert failed(verdict) == ["effective sample size of at least 500"] and not verdict.passed

    wrong = replace(log, propensity_n=log.propensity_n * 0.8, logged_nk=None)
    _, verdict = gate(wrong, {"large": 1.0}, trivially)
    assert any("weights are 1 on average" in condition for condition in failed(verdict))

    said_k = np.array([0.3, 0.3, 0.4])
    lied = replace(log, propensity_n=said_k[log.chosen_n], logged_nk=np.tile(said_k, (len(log), 1)))
    _, verdict = gate(lied, {"large": 1.0}, trivially)
    assert any("as often as the propensities say" in condition for condition in failed(verdict))

    never_nk = np.tile([0.5, 0.5, 0.0], (len(log), 1))
    two_n = np.where(log.chosen_n == 2, 0, log.chosen_n)
    never = replace(log, chosen_n=two_n, propensity_n=np.full(len(log), 0.5), logged_nk=never_nk)
    _, verdict = gate(never, {"middle": 0.9, "large": 0.1}, trivially)
    assert "the log shows what the candidate does" in failed(verdict)

    quality_n = log.signals["quality"].copy()
    quality_n[(log.chosen_n == 2) & (np.arange(len(log)) % 2 == 0)] = np.nan
    hidden = replace(log, signals={**log.signals, "quality": quality_n})
    _, verdict = gate(hidden, {"large": 1.0}, trivially)
    assert failed(verdict) == ["quality is missing equally often for all models"]
    assert gate(hidden, {"large": 1.0}, "upper(cost) <= 10")[1].passed  # nothing that was asked depends on it


def test_a_bound_beside_anothers_logged_value_is_refused() -> None:
    evaluation = evaluate_candidate(make_log(), candidate(large=1.0))
    with pytest.raises(ExpressionError, match=r"so that both can be tested together"):
        judge(evaluation, parse_requirement("lower(quality) >= 0.1 * logged(cost)", evaluation.evidence))


def test_two_bounds_in_one_clause_share_its_error() -> None:
    evaluation, verdict = gate(make_log(), {"large": 1.0}, "lower(quality) - 0.01 * upper(cost) >= 0.5")
    lower, upper = (
        evaluation.evidence["quality"].bound(0.975, lower=True),
        evaluation.evidence["cost"].bound(0.975, lower=False),
    )
    assert verdict.clauses[0].shown == (lower - 0.01 * upper >= 0.5)
    assert f"lower(quality) = {lower:.6g}" in verdict.clauses[0].why


def test_any_objective_is_a_sum_of_signals() -> None:
    log = make_log()
    worth = parse_combination("quality - 0.02 * cost", log.signals)
    evaluation, verdict = gate(log, {"middle": 1.0}, "lower(worth) >= logged(worth) - 0.15", sums={"worth": worth})
    report = evaluation.reports["worth"]
    truth = MEAN_K[1] - 0.02 * COST_K[1]
    assert abs(report.estimate("dr").estimate - truth) < 0.03 and verdict.passed
    assert (report.low, report.high) == pytest.approx((-0.18, 1.0))


def test_comparators_are_the_best_fixed_model_and_the_mix_of_the_same_cost() -> None:
    evaluation = evaluate_candidate(make_log(20_000), candidate(small=0.5, large=0.5))
    fixed, mix = evaluation.comparators
    assert (
        fixed.name == "best fixed model: large" and fixed.cost is not None and fixed.gain.intervals["normal"].high < 0.0
    )
    assert abs(fixed.quality.estimate - 0.9) < 0.02
    # 4/7 of middle and 3/7 of large cost 5 too, and are better: .729
    assert mix.name == "best mix at the same cost: 57% middle + 43% large"
    assert mix.cost is not None and abs(mix.cost.estimate - 5.0) < 0.1
    assert abs(mix.quality.estimate - 5.1 / 7.0) < 0.02 and abs(mix.gain.estimate - (0.7 - 5.1 / 7.0)) < 0.02


def test_estimates_are_near_the_truth_and_bounds_hold_it() -> None:
    evaluation = evaluate_candidate(make_log(20_000, seed=4), candidate(small=0.2, large=0.8), seed=1)
    truth = 0.2 * MEAN_K[0] + 0.8 * MEAN_K[2]
    report = evaluation.reports["quality"]
    assert report.reported == evaluation.evidence["quality"].reward_m.size < 20_000
    for line in report.estimates:
        for interval in line.intervals.values():
            assert interval.low - 0.01 < truth < interval.high + 0.01, line
        assert np.isnan(line.estimate) or abs(line.estimate - truth) < 0.03, line
    again = evaluate_candidate(make_log(20_000, seed=4), candidate(small=0.2, large=0.8), seed=1)
    assert again.reports == evaluation.reports


def test_what_the_log_has_not_is_named() -> None:
    log = make_log(100)
    with pytest.raises(EvaluationError, match="speed: expected a signal that the log has: cost, quality"):
        evaluate_candidate(log, candidate(large=1.0), signals=["speed"])
    with pytest.raises(EvaluationError, match="--cap cost: expected above 0, got -1"):
        evaluate_candidate(log, candidate(large=1.0), caps={"cost": -1.0})
    with pytest.raises(EvaluationError, match="--cap cost: expected at least 9, the largest seen, got 5"):
        evaluate_candidate(log, candidate(large=1.0), caps={"cost": 5.0})
    with pytest.raises(EvaluationError, match="--cap speed: expected a signal"):
        evaluate_candidate(log, candidate(large=1.0), caps={"speed": 1.0})
    apart = replace(log, signals={"quality": np.where(np.arange(100) < 50, 1.0, np.nan),
                                  "cost": np.where(np.arange(100) < 50, np.nan, 1.0)})  # fmt: skip
    with pytest.raises(EvaluationError, match="worth: expected a round in which all that it is made of was reported"):
        evaluate_candidate(
            apart, candidate(large=1.0), sums={"worth": parse_combination("quality - cost", apart.signals)}
        )
    silent = replace(log, signals={"quality": np.full(100, np.nan)})
    with pytest.raises(EvaluationError, match="no outcome was reported"):
        evaluate_candidate(silent, candidate(large=1.0))


def test_comparators_of_a_log_in_which_no_model_is_a_choice_for_long() -> None:
    """Models that follow each other: the one that was there the longest is the best fixed model."""
    log = make_log(3000)
    third_n = np.minimum(np.arange(3000) // 900, 2)
    alone_nk = np.eye(3)[third_n]
    log = replace(log, chosen_n=third_n, propensity_n=np.ones(3000), logged_nk=alone_nk, eligible_nk=alone_nk > 0.0)
    evaluation = evaluate_candidate(log, Candidate("as it was", BucketPolicy(policy="logged"), {}))
    assert evaluation.comparators[0].name == "best fixed model: large"
    assert len(evaluation.comparators) == 2
