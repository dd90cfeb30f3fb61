"""Can the numbers of `pointsman evaluate` be trusted? Off-policy estimates against the truth, on data where it is known.

    python benchmarks/simulator/coverage.py [--replications 500] [--rounds 2000] [--only NAME] [--jobs N] [--out DIR]

Every replication draws prompts with replacement from a table that knows every model's outcome, lets one policy decide and log,
and evaluates others from that log. Logging policies: ours, learning as it logs (the very objects that serve, with their exact
propensities); an even draw; a fixed mix that differs by task. Candidates: a fixed model, an even draw, a rule that looks at
the task, and the serving policy under another objective.

The truth is what the candidate is worth, on average, on the very rounds of the log; for candidates that do not learn also what
it is worth on the whole table ("all prompts"), of which the rounds are a sample. Reported are coverage of 95 % intervals, bias,
root mean squared error and width; of betting bounds, and of normal intervals beside them, also how often they hold at every look,
one after each hundredth of the log, of the average over the rounds until then.

Then the gate itself, with all its conditions. A requirement that is false by a hair, `lower(quality) >= f * logged(quality)` with
f just above the true ratio, is put to it: how often does it pass (it may, in 5 %)? And if the candidate is better than required
by a margin, how often is it promoted? The same of the gate's betting bound alone, which is what keeps the promise (the conditions
only ever refuse more), and of the naive rule that looks at the lower end of the normal interval, once, or after every hundredth.
Last come logs that invite a false promotion (`hard_logs.py`): models never tried, shares left out, rare catastrophes, negative
ranges, rows that stand there twice, outcomes missing for a reason. `--only hard` runs those alone.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import numpy.typing as npt
from coverage_page import BAR, LEVEL, LOOKS, TITLES, coverage_page, relative_biases
from hard_logs import SCENARIOS as HARD
from hard_logs import Answer, answer, report_hard, summarise_answers
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.special import ndtri
from simulated_logs import static_log, thompson_log

from pointsman.simulator.data.table import OutcomeTable, load_table
from pointsman.simulator.offpolicy.candidate import BucketPolicy, Candidate, target_of
from pointsman.simulator.offpolicy.estimators.reward_models import cross_fitted, past_only
from pointsman.simulator.offpolicy.evaluation import evidence
from pointsman.simulator.offpolicy.evaluation.evaluate import Evaluation, evaluate_candidate
from pointsman.simulator.offpolicy.evaluation.evidence import Evidence, dr_scores
from pointsman.simulator.offpolicy.expression import parse_requirement
from pointsman.simulator.offpolicy.gate import judge
from pointsman.simulator.offpolicy.logs.log import Log
from pointsman.simulator.policies.registry import parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.run.executor import map_over
from pointsman.simulator.world.changes import FeedbackLost
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.rounds import unfold
from pointsman.simulator.world.utility import parse_objective
from pointsman.simulator.world.world import UNIT, World, make_world

Array = npt.NDArray[np.float64]
T = TypeVar("T")

FIRST_LOOK = 200
"""Rounds before which nobody would look at a normal interval."""
MARGINS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
"""By how much the candidate is better than is required, in quality."""
HAIR = 1e-6
"""By how much the requirement is false of the candidate that must not pass."""
CANDIDATES = ("fixed", "even", "by task", "thompson")


@dataclass(frozen=True, slots=True)
class Scenario:
    """Who logs what: ``logger`` is ours, even or mixed; ``missing`` the share of outcomes that never come."""

    name: str
    data: str
    logger: str
    floor: float = 0.1
    objective: str = "QUALITY_FIRST"
    missing: float = 0.0


SCENARIOS = (
    Scenario("ours learns, explores 10 %", "val", "ours"),
    Scenario("ours learns, explores 3 %", "val", "ours", floor=0.03),
    Scenario("ours learns, cost counts, 20 % missing", "val", "ours", objective="BALANCED", missing=0.2),
    Scenario("even draw", "val", "even"),
    Scenario("a mix by task", "val", "mixed"),
    Scenario("ours learns, made-up data", "made", "ours"),
)


@dataclass(frozen=True, slots=True)
class Point:
    """One estimate of one replication."""

    scenario: str
    candidate: str
    signal: str
    estimator: str
    interval: str
    estimate: float
    truth: float
    everywhere: float
    low: float
    high: float
    ess: float


@dataclass(frozen=True, slots=True)
class Watched:
    """Whether the intervals of one replication held at every look."""

    scenario: str
    candidate: str
    signal: str
    betting: bool
    normal: bool


@dataclass(frozen=True, slots=True)
class Promotion:
    """What lets the candidate through if it is better than required by ``margin`` (negative: worse).

    ``gate`` is the gate's verdict, made of ``conditions`` and ``bound``; ``bound_ever`` is the bound at any look, ``naive`` and
    ``naive_ever`` the lower end of the normal interval.
    """

    scenario: str
    candidate: str
    margin: float
    gate: bool
    conditions: bool
    bound: bool
    bound_ever: bool
    naive: bool
    naive_ever: bool


@dataclass(frozen=True, slots=True)
class Replication:
    """All that is said of one log."""

    points: list[Point]
    watched: list[Watched]
    promotions: list[Promotion]


def made_table(n: int = 2000, seed: int = 0) -> OutcomeTable:
    """Three models, four tasks, graded quality, costs of 1 : 10 : 60."""
    rng = np.random.default_rng(seed)
    task_n = rng.integers(4, size=n)
    mean_tk = np.array([[0.8, 0.82, 0.85], [0.4, 0.7, 0.9], [0.6, 0.5, 0.8], [0.3, 0.6, 0.65]])
    p_nk = mean_tk[task_n]
    return OutcomeTable(
        name="made",
        sha256="",
        models=("small", "middle", "large"),
        prompt_ids=tuple(map(str, range(n))),
        tasks=tuple(f"t{t}" for t in task_n),
        texts=None,
        x_nd=None,
        input_tokens_n=np.full(n, -1),
        quality_nk=rng.beta(4.0 * p_nk, 4.0 * (1.0 - p_nk)),
        cost_nk=np.array([0.0001, 0.001, 0.006]) * np.exp(0.5 * rng.standard_normal((n, 3)) - 0.125),
        latency_nk=np.full((n, 3), np.nan),
        output_tokens_nk=np.full((n, 3), np.nan),
    )


def _once(fit: Callable[..., Array]) -> Callable[..., Array]:
    """``fit``, once for the same arguments: predictions do not depend on the candidate, and there are several for each log."""
    prediction_by_arguments: dict[tuple[object, ...], Array] = {}

    def fitted(*arguments: Any) -> Array:
        key = tuple((a.shape, a.tobytes()) if isinstance(a, np.ndarray) else a for a in arguments)
        if key not in prediction_by_arguments:
            prediction_by_arguments[key] = fit(*arguments)
        return prediction_by_arguments[key]

    return fitted


def replicate(worlds: dict[str, World], item: tuple[Scenario, int, int]) -> Replication:
    """One log of (scenario, seed, rounds), and all that is said of it."""
    scenario, seed, rounds = item
    world = worlds[scenario.data]
    table = world.table
    rng = np.random.default_rng([seed, 77])
    order = rng.integers(0, len(table), rounds)
    schedule = (FeedbackLost(scenario.missing),) if scenario.missing else ()
    played = unfold(table, order.tolist(), schedule, UNIT, seed)
    if scenario.logger == "ours":
        policy = parse_policy(f"thompson:exploration_floor={scenario.floor}")
        log = thompson_log(world, Run(policy, parse_objective(scenario.objective, UNIT), None, seed), played)
    else:
        k = len(table.models)
        share_tk = np.full((rounds, k), 1.0 / k)
        if scenario.logger == "mixed":
            mix_tk = np.random.default_rng(5).dirichlet(np.ones(k), size=int(world.task_n.max()) + 1)
            share_tk = 0.8 * mix_tk[world.task_n[played.row_t]] + 0.2 / k
        chosen_t = (rng.random(rounds)[:, None] > np.cumsum(share_tk, axis=1)[:, :-1]).sum(axis=1)
        log = static_log(world, played, chosen_t, share_tk)
    with patch.multiple(evidence, past_only=_once(past_only), cross_fitted=_once(cross_fitted)):
        return _judged(world, scenario, log, order, seed)


def _judged(world: World, scenario: Scenario, log: Log, order: npt.NDArray[np.int64], seed: int) -> Replication:
    """Every candidate on one log, whose rounds are the rows ``order`` of the table."""
    table = world.table
    replication = Replication([], [], [])
    for name in CANDIDATES if scenario.logger == "ours" else CANDIDATES[:3]:
        candidate = _candidate(name, world, log)
        evaluation = evaluate_candidate(log, candidate, signals=["quality", "cost"], level=LEVEL, seed=seed)
        target_tk = evaluation.target.target_nk
        worth_tk = {"quality": table.quality_nk[order], "cost": table.cost_nk[order]}
        for signal in ("quality", "cost"):
            reported_t = ~np.isnan(log.signals[signal])
            truth_m = (target_tk * worth_tk[signal]).sum(axis=1)[reported_t]
            everywhere = _everywhere(candidate, world, signal)
            truth = float(truth_m.mean())
            replication.points.extend(_points(scenario.name, name, evaluation, signal, truth, everywhere))
            replication.watched.append(_watched(scenario.name, name, evaluation.evidence[signal], truth_m))
        promotions = _promotions(scenario.name, name, evaluation, log, target_tk, worth_tk["quality"])
        replication.promotions.extend(promotions)
    return replication


def _candidate(name: str, world: World, log: Log) -> Candidate:
    """What might go live. Rules are made of the table's means, so that they differ from the log."""
    if name == "even":
        return Candidate(name, BucketPolicy(policy="uniform"), {})
    if name == "fixed":
        return Candidate(name, BucketPolicy(policy="fixed", model=log.models[-1]), {})
    if name == "thompson":
        return Candidate(
            name, BucketPolicy.model_validate({"objective": {"mode": "BALANCED", "cost_weight": 50.0}}), {}
        )
    settings = {}
    for number, task in enumerate(log.groups):
        best = int(world.table.quality_nk[world.task_n == number].mean(axis=0).argmax())
        shares = {model: 0.1 / len(log.models) for model in log.models}
        shares[log.models[best]] += 0.9
        settings[task] = BucketPolicy(policy="mix", shares=shares)
    return Candidate(name, BucketPolicy(policy="uniform"), settings)


def _everywhere(candidate: Candidate, world: World, signal: str) -> float:
    """What the candidate is worth on the whole table; NaN for one that depends on what was learned."""
    table = world.table
    cell_nk = table.quality_nk if signal == "quality" else table.cost_nk
    if candidate.name == "thompson":
        return float("nan")
    n, k = cell_nk.shape
    rows = np.zeros(n, dtype=np.intp)
    even = Log("", table.models, tuple(sorted(set(table.tasks))), rows, np.full(n, 1.0 / k), np.full((n, k), 1.0 / k),
               np.ones((n, k), dtype=np.bool_), {}, np.zeros((n, 0)), world.task_n, np.arange(n))  # fmt: skip
    return float((target_of(candidate, even).target_nk * cell_nk).sum(axis=1).mean())


def _points(
    scenario: str, name: str, evaluation: Evaluation, signal: str, truth: float, everywhere: float
) -> list[Point]:
    report = evaluation.reports[signal]
    points = []
    for estimate in report.estimates:
        for kind, interval in estimate.intervals.items():
            points.append(
                Point(scenario, name, signal, estimate.estimator, kind, estimate.estimate, truth, everywhere, interval.low,
                      interval.high, evaluation.diagnostics.ess)
            )  # fmt: skip
    return points


def _looks(m: int) -> npt.NDArray[np.int64]:
    """Counts of rounds after which is looked: every hundredth of ``m``, and all of them."""
    return np.unique(np.linspace(0, m, LOOKS + 1).astype(np.int64)[1:])


def _running(score_m: Array, ends: npt.NDArray[np.int64]) -> tuple[Array, Array]:
    """Means of the first so many scores, and their standard errors."""
    count = np.arange(1, len(score_m) + 1)
    mean = np.cumsum(score_m) / count
    variance = np.maximum(np.cumsum(score_m**2) / count - mean**2, 0.0)
    return mean[ends - 1], np.sqrt(variance / count)[ends - 1]


def _watched(scenario: str, name: str, evidence_: Evidence, truth_m: Array) -> Watched:
    """Whether every look's interval held what the candidate was worth, on average, on the rounds until then."""
    ends = _looks(len(truth_m))
    truth = _running(truth_m, ends)[0]
    side = (1.0 + LEVEL) / 2.0
    low, high = (evidence_.bounds(side, lower=lower, at=ends) for lower in (True, False))
    mean, error = _running(dr_scores(evidence_), ends)
    off = np.abs(mean - truth) > float(ndtri(0.5 + LEVEL / 2.0)) * error
    within = bool(((low <= truth) & (truth <= high)).all())
    return Watched(scenario, name, evidence_.signal, within, not bool((off & (ends >= FIRST_LOOK)).any()))


def _promotions(
    scenario: str, name: str, evaluation: Evaluation, log: Log, target_tk: Array, worth_tk: Array
) -> list[Promotion]:
    """What the gate says of requirements that the candidate fails by a hair, or meets with a margin."""
    quality = evaluation.evidence["quality"]
    reported_t = ~np.isnan(log.signals["quality"])
    assert log.logged_nk is not None
    candidate_m = (target_tk * worth_tk).sum(axis=1)[reported_t]
    logging_m = (log.logged_nk * worth_tk).sum(axis=1)[reported_t]
    ends = _looks(len(candidate_m))
    dr_m = dr_scores(quality)
    z = float(ndtri(LEVEL))
    promotions = []
    for margin in (-HAIR, *MARGINS[1:]):
        # the largest ratio that is still that much under the truth at the end
        factor = (float(candidate_m.mean()) - margin) / float(logging_m.mean())
        if factor <= 0.0:
            continue
        requirement = parse_requirement(f"lower(quality) >= {factor!r} * logged(quality)", evaluation.evidence)
        verdict = judge(evaluation, requirement)
        shown = quality.bounds(LEVEL, lower=True, factor=factor, at=ends) >= 0.0
        mean, error = _running(dr_m - factor * quality.reward_m, ends)
        naive = mean - z * error >= 0.0
        # A look is a mistake only where the requirement is false of the rounds until then.
        truth = _running(candidate_m - factor * logging_m, ends)[0]
        wrong = truth < 0.0 if margin < 0.0 else np.ones(len(ends), dtype=bool)
        promotions.append(
            Promotion(
                scenario,
                name,
                margin,
                gate=verdict.passed,
                conditions=all(condition.shown for condition in verdict.conditions),
                bound=verdict.clauses[0].shown,
                bound_ever=bool((shown & wrong).any()),
                naive=bool(naive[-1]),
                naive_ever=bool((naive & wrong & (ends >= FIRST_LOOK)).any()),
            )
        )
    return promotions


def _groups(records: Sequence[T], names: tuple[str, ...]) -> dict[tuple[tuple[str, Any], ...], list[T]]:
    """Records by the values of their fields ``names``, in the order in which they first came."""
    groups: dict[tuple[tuple[str, Any], ...], list[T]] = {}
    for record in records:
        groups.setdefault(tuple((name, getattr(record, name)) for name in names), []).append(record)
    return groups


def summarise(points: list[Point]) -> list[dict[str, Any]]:
    """Coverage, bias, error and width by scenario, candidate, signal, estimator and interval."""
    rows = []
    for key, replications in _groups(points, ("scenario", "candidate", "signal", "estimator", "interval")).items():
        off = np.array([p.estimate - p.truth for p in replications])
        scale = float(np.mean([p.truth for p in replications]))
        everywhere = [p.low <= p.everywhere <= p.high for p in replications if not np.isnan(p.everywhere)]
        rows.append(
            dict(key)
            | {
                "replications": len(replications),
                "coverage": float(np.mean([p.low <= p.truth <= p.high for p in replications])),
                "coverage_all_prompts": float(np.mean(everywhere)) if everywhere else None,
                "bias": None if np.isnan(off).all() else float(np.nanmean(off)),
                "rmse": None if np.isnan(off).all() else float(np.sqrt(np.nanmean(off**2))),
                "width": float(np.mean([p.high - p.low for p in replications])),
                "truth": scale,
                "ess": float(np.mean([p.ess for p in replications])),
            }
        )
    return rows


def promoted(promotions: list[Promotion]) -> list[dict[str, Any]]:
    """Shares of promotions by scenario, candidate and margin."""
    rows = []
    for key, replications in _groups(promotions, ("scenario", "candidate", "margin")).items():
        shares = {name: float(np.mean([getattr(p, name) for p in replications])) for name in TITLES}
        rows.append(dict(key) | {"replications": len(replications)} | shares)
    return rows


def interval_coverage(watched: list[Watched]) -> list[dict[str, Any]]:
    """How often intervals held at every look, by scenario, candidate and signal."""
    rows = []
    for key, replications in _groups(watched, ("scenario", "candidate", "signal")).items():
        shares = {name: float(np.mean([getattr(w, name) for w in replications])) for name in ("betting", "normal")}
        rows.append(dict(key) | {"replications": len(replications)} | shares)
    return rows


def report(
    console: Console, rows: list[dict[str, Any]], looks: list[dict[str, Any]], gates: list[dict[str, Any]]
) -> None:
    """Tables on the terminal."""
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        sheet = Table(title=f"{scenario}: {rows[0]['replications']} replications, quality and cost over all candidates")
        for title in (
            "estimator",
            "interval",
            "least coverage",
            "coverage",
            "all prompts",
            "bias/width",
            "mean width, quality",
        ):
            sheet.add_column(title, justify="left" if title in ("estimator", "interval") else "right")
        scenario_rows = [row for row in rows if row["scenario"] == scenario]
        for estimator, interval in dict.fromkeys((row["estimator"], row["interval"]) for row in scenario_rows):
            group = [row for row in scenario_rows if (row["estimator"], row["interval"]) == (estimator, interval)]
            least, mean = min(r["coverage"] for r in group), np.mean([r["coverage"] for r in group])
            everywhere = [r["coverage_all_prompts"] for r in group if r["coverage_all_prompts"] is not None]
            off = relative_biases(group)
            width = np.mean([r["width"] for r in group if r["signal"] == "quality"])
            sheet.add_row(estimator, interval, f"{least:.3f}", f"{mean:.3f}", f"{np.mean(everywhere):.3f}",
                          f"{np.mean(off):.3f}" if off else "", f"{width:.4f}",
                          style="bold" if least >= BAR else "")  # fmt: skip
        console.print(sheet)
    sheet = Table(title=f"Intervals that hold at every one of {LOOKS} looks: mean (least)")
    for title in ("scenario", "betting", f"normal of dr, from {FIRST_LOOK} rounds"):
        sheet.add_column(title, justify="left" if title == "scenario" else "right")
    for scenario in dict.fromkeys(row["scenario"] for row in looks):
        scenario_rows = [row for row in looks if row["scenario"] == scenario]
        cells = [
            f"{np.mean([r[n] for r in scenario_rows]):.3f} ({min(r[n] for r in scenario_rows):.3f})"
            for n in ("betting", "normal")
        ]
        sheet.add_row(scenario, *cells)
    console.print(sheet)
    sheet = Table(title="Promotions: mean (most); margin: how much better than required; below 0 it must not pass")
    for title in ("margin", *TITLES.values()):
        sheet.add_column(title, justify="right")
    for margin in dict.fromkeys(row["margin"] for row in gates):
        margin_rows = [row for row in gates if row["margin"] == margin]
        cells = [f"{np.mean([r[n] for r in margin_rows]):.4f} ({max(r[n] for r in margin_rows):.3f})" for n in TITLES]
        sheet.add_row(f"{margin:g}", *cells)
    console.print(sheet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--only", help="the scenarios whose name has this in it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    worlds = {"made": make_world(made_table(), Features("none", "one"))}
    scenarios = [s for s in SCENARIOS if arguments.only is None or arguments.only in s.name]
    if importlib.util.find_spec("pareto_bandit") is None:
        print("paretobandit is not installed: made-up data only")
        scenarios = [s for s in scenarios if s.data == "made"]
    else:
        worlds["val"] = make_world(load_table("paretobandit:val"), Features("none", "one"))
    console = Console(width=150)
    content: dict[str, Any] = {"settings": {"replications": arguments.replications, "rounds": arguments.rounds}}
    items = [(s, seed, arguments.rounds) for s in scenarios for seed in range(arguments.replications)]
    replications = map_over(worlds, replicate, items, arguments.jobs)
    points, watched, promotions = [], [], []
    progress = Console(stderr=True)
    for replication in track(replications, "replications", total=len(items), console=progress) if items else ():
        points += replication.points
        watched += replication.watched
        promotions += replication.promotions
    rows, looks, gates = summarise(points), interval_coverage(watched), promoted(promotions)
    if rows:
        report(console, rows, looks, gates)
        content |= {"scenarios": [asdict(s) for s in scenarios], "estimates": rows, "looks": looks, "gate": gates}
    answers: list[Answer] = []
    if arguments.only is None or arguments.only == "hard":
        questions = [(name, seed, 2 * arguments.rounds) for name in HARD for seed in range(arguments.replications)]
        replies = map_over(None, answer, questions, arguments.jobs)
        answers = list(track(replies, "hard logs", total=len(questions), console=progress))
        content["hard"] = summarise_answers(answers)
        report_hard(console, content["hard"])
    if arguments.out is not None:
        _write(
            arguments.out, content, f"{arguments.replications} replications of {arguments.rounds} rounds a scenario."
        )


def _write(out: Path, content: dict[str, Any], settings: str) -> None:
    """All numbers as JSON, those of estimates as CSV, and the page."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "coverage.json").write_text(json.dumps(content, indent=1) + "\n")
    rows = content.get("estimates")
    if rows:
        with (out / "coverage.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        page = coverage_page(rows, content["looks"], content["gate"], settings)
        (out / "coverage.html").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
