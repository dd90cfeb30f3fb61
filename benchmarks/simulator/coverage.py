"""Can the numbers of `pointsman evaluate` be trusted? Off-policy estimates against the truth, on data where it is known.

    python benchmarks/simulator/coverage.py [--replications 500] [--rounds 2000] [--only NAME] [--jobs N] [--out DIR]

Every replication draws prompts with replacement from a table that knows every model's outcome, lets one policy decide and log,
and evaluates others from that log. Logging policies: ours, learning as it logs (the very objects that serve, with their exact
propensities); an even draw; a fixed mix that differs by task. Candidates: a fixed model, an even draw, a rule that looks at
the task, and the serving policy under another objective.

The truth is what the candidate is worth, on average, on the very rounds of the log; for candidates that do not learn also what
it is worth on the whole table ("all prompts"), of which the rounds are a sample. Reported are coverage of 95 % intervals, bias,
root mean squared error and width.

Then the gate. A requirement that is false by a hair, `lower(quality) >= f * logged(quality)` with f just above the true ratio, is
put to it: how often does it pass (it may, in 5 %)? And if the candidate is better than required by a margin, how often is it
promoted? The same of the naive rule that looks at the lower end of the normal interval, once, or after every hundredth.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.special import ndtri

from pointsman.simulator.changes import FeedbackLost, unfold
from pointsman.simulator.charts import COLOURS, Estimated, axis_over, forest
from pointsman.simulator.executor import spread
from pointsman.simulator.offpolicy import betting, evidence
from pointsman.simulator.offpolicy.candidate import Candidate, Setting, target
from pointsman.simulator.offpolicy.evaluate import Evaluation, evaluate
from pointsman.simulator.offpolicy.log import Log
from pointsman.simulator.offpolicy.read_journal import Journal
from pointsman.simulator.offpolicy.reward_models import cross_fitted, past_only
from pointsman.simulator.offpolicy.simulated import log_of, logged
from pointsman.simulator.report import cards, page
from pointsman.simulator.table import OutcomeTable, load_table
from pointsman.simulator.utility import parse_objective
from pointsman.simulator.world import UNIT, Features, Run, World, make_world

Array = npt.NDArray[np.float64]

LEVEL = 0.95
BAR = 0.94
LOOKS = 100
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
class Promotion:
    """Which gates let the candidate through if it is better than required by ``margin`` (negative: worse)."""

    scenario: str
    candidate: str
    margin: float
    gate: bool
    ever: bool
    naive: bool
    naive_ever: bool


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
    """``fit``, once for the same rewards: predictions do not depend on the candidate, and there are several for each log."""
    made: dict[bytes, Array] = {}

    def fitted(reward_n: Array, *rest: Any) -> Array:
        key = reward_n.tobytes()
        if key not in made:
            made[key] = fit(reward_n, *rest)
        return made[key]

    return fitted


def replicate(worlds: dict[str, World], item: tuple[Scenario, int, int]) -> tuple[list[Point], list[Promotion]]:
    """One log, and all that is said of it."""
    scenario, seed, rounds = item
    world = worlds[scenario.data]
    table = world.table
    rng = np.random.default_rng([seed, 77])
    order = rng.integers(0, len(table), rounds)
    schedule = (FeedbackLost(scenario.missing),) if scenario.missing else ()
    played = unfold(table, order.tolist(), schedule, UNIT, seed)
    source: Log | Journal
    if scenario.logger == "ours":
        policy = f"thompson:exploration_floor={scenario.floor}"
        source = logged(world, Run(policy, parse_objective(scenario.objective, UNIT), None, seed), played)
        log = source.log
    else:
        k = len(table.models)
        share_tk = np.full((rounds, k), 1.0 / k)
        if scenario.logger == "mixed":
            mix_tk = np.random.default_rng(5).dirichlet(np.ones(k), size=int(world.task_n.max()) + 1)
            share_tk = 0.8 * mix_tk[world.task_n[played.row_t]] + 0.2 / k
        chosen_t = (rng.random(rounds)[:, None] > np.cumsum(share_tk, axis=1)[:, :-1]).sum(axis=1)
        source = log = log_of(world, played, chosen_t, share_tk)
    points, promotions = [], []
    evidence.past_only, evidence.cross_fitted = _once(past_only), _once(cross_fitted)
    for name in CANDIDATES if scenario.logger == "ours" else CANDIDATES[:3]:
        candidate = _candidate(name, world, log)
        found = evaluate(source, candidate, signals=["quality", "cost"], level=LEVEL, seed=seed)
        made_tk = target(candidate, source).target_nk
        worth_tk = {"quality": table.quality_nk[order], "cost": table.cost_nk[order]}
        for signal in ("quality", "cost"):
            there_t = ~np.isnan(log.signals[signal])
            truth = float((made_tk * worth_tk[signal]).sum(axis=1)[there_t].mean())
            everywhere = _everywhere(candidate, world, signal)
            points += _points(scenario.name, name, found, signal, truth, everywhere)
        promotions += _promotions(scenario.name, name, found, log, made_tk, worth_tk["quality"])
    return points, promotions


def _candidate(name: str, world: World, log: Log) -> Candidate:
    """What might go live. Rules are made of the table's means, so that they differ from the log."""
    if name == "even":
        return Candidate(name, Setting(policy="uniform"), {})
    if name == "fixed":
        return Candidate(name, Setting(policy="fixed", model=log.models[-1]), {})
    if name == "thompson":
        return Candidate(name, Setting.model_validate({"objective": {"mode": "BALANCED", "cost_weight": 50.0}}), {})
    settings = {}
    for number, task in enumerate(log.groups):
        best = int(world.table.quality_nk[world.task_n == number].mean(axis=0).argmax())
        shares = {model: 0.1 / len(log.models) for model in log.models}
        shares[log.models[best]] += 0.9
        settings[task] = Setting(policy="mix", shares=shares)
    return Candidate(name, Setting(policy="uniform"), settings)


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
    return float((target(candidate, even).target_nk * cell_nk).sum(axis=1).mean())


def _points(scenario: str, name: str, found: Evaluation, signal: str, truth: float, everywhere: float) -> list[Point]:
    report = found.reports[signal]
    points = []
    for line in report.lines:
        for kind, interval in line.intervals.items():
            points.append(
                Point(scenario, name, signal, line.estimator, kind, line.estimate, truth, everywhere, interval.low,
                      interval.high, found.diagnostics.ess)
            )  # fmt: skip
    return points


def _promotions(
    scenario: str, name: str, found: Evaluation, log: Log, made_tk: Array, worth_tk: Array
) -> list[Promotion]:
    """The gate's bound of V(candidate) - f · V(logged), against what it truly is, after every hundredth and at the end."""
    one = found.evidence["quality"]
    there_t = ~np.isnan(log.signals["quality"])
    assert log.logged_nk is not None
    candidate_m = (made_tk * worth_tk).sum(axis=1)[there_t]
    logging_m = (log.logged_nk * worth_tk).sum(axis=1)[there_t]
    ends = np.unique(np.linspace(0, len(candidate_m), LOOKS + 1).astype(int)[1:])
    promoted = []
    rows = np.arange(len(one.chosen_m))
    dr_m = np.einsum("mk,mk->m", one.q_mk, one.target_mk) + one.weight_m * (one.reward_m - one.q_mk[rows, one.chosen_m])
    z = float(ndtri(LEVEL))
    for margin in (-HAIR, *MARGINS[1:]):
        # the largest ratio that is still that much under the truth at the end
        factor = (float(candidate_m.mean()) - margin) / float(logging_m.mean())
        if factor <= 0.0:
            continue
        bounds = betting.sequence(
            np.clip(one.reward_m - one.low, 0.0, one.high - one.low), one.weight_m, 2.0 * LEVEL - 1.0, factor=factor,
            high=one.high - one.low, control=one.control(), at=ends,
        )[0] + one.low * (1.0 - factor)  # fmt: skip
        gain_m = dr_m - factor * one.reward_m
        count = np.arange(1, len(gain_m) + 1)
        mean = np.cumsum(gain_m) / count
        sd = np.sqrt(np.maximum(np.cumsum(gain_m**2) / count - mean**2, 0.0))
        naive = (mean - z * sd / np.sqrt(count))[ends - 1]
        # A look is a mistake only where the requirement is false of the rounds until then.
        truth = (np.cumsum(candidate_m - factor * logging_m) / count)[ends - 1]
        wrong = truth < 0.0 if margin < 0.0 else np.ones(len(ends), dtype=bool)
        promoted.append(
            Promotion(scenario, name, margin, bool(bounds[-1] >= 0.0), bool(((bounds >= 0.0) & wrong).any()),
                      bool(naive[-1] >= 0.0), bool(((naive >= 0.0) & wrong & (ends >= 200)).any()))
        )  # fmt: skip
    return promoted


def summarise(points: list[Point]) -> list[dict[str, Any]]:
    """Coverage, bias, error and width by scenario, candidate, signal, estimator and interval."""
    keys = dict.fromkeys((p.scenario, p.candidate, p.signal, p.estimator, p.interval) for p in points)
    rows = []
    for key in keys:
        these = [p for p in points if (p.scenario, p.candidate, p.signal, p.estimator, p.interval) == key]
        off = np.array([p.estimate - p.truth for p in these])
        scale = float(np.mean([p.truth for p in these]))
        everywhere = [p.low <= p.everywhere <= p.high for p in these if not np.isnan(p.everywhere)]
        rows.append(
            dict(zip(("scenario", "candidate", "signal", "estimator", "interval"), key, strict=True))
            | {
                "replications": len(these),
                "coverage": float(np.mean([p.low <= p.truth <= p.high for p in these])),
                "coverage_all_prompts": float(np.mean(everywhere)) if everywhere else None,
                "bias": None if np.isnan(off).all() else float(np.nanmean(off)),
                "rmse": None if np.isnan(off).all() else float(np.sqrt(np.nanmean(off**2))),
                "width": float(np.mean([p.high - p.low for p in these])),
                "truth": scale,
                "ess": float(np.mean([p.ess for p in these])),
            }
        )
    return rows


def promoted(promotions: list[Promotion]) -> list[dict[str, Any]]:
    """Shares of promotions by scenario, candidate and margin."""
    keys = dict.fromkeys((p.scenario, p.candidate, p.margin) for p in promotions)
    rows = []
    for key in keys:
        these = [p for p in promotions if (p.scenario, p.candidate, p.margin) == key]
        shares = {
            name: float(np.mean([getattr(p, name) for p in these])) for name in ("gate", "ever", "naive", "naive_ever")
        }
        rows.append(
            dict(zip(("scenario", "candidate", "margin"), key, strict=True)) | {"replications": len(these)} | shares
        )
    return rows


def report(console: Console, rows: list[dict[str, Any]], gates: list[dict[str, Any]]) -> None:
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
        these = [row for row in rows if row["scenario"] == scenario]
        for estimator, interval in dict.fromkeys((row["estimator"], row["interval"]) for row in these):
            group = [row for row in these if (row["estimator"], row["interval"]) == (estimator, interval)]
            least, mean = min(r["coverage"] for r in group), np.mean([r["coverage"] for r in group])
            everywhere = [r["coverage_all_prompts"] for r in group if r["coverage_all_prompts"] is not None]
            off = [abs(r["bias"]) / r["width"] for r in group if r["bias"] is not None and r["width"] > 0.0]
            width = np.mean([r["width"] for r in group if r["signal"] == "quality"])
            sheet.add_row(estimator, interval, f"{least:.3f}", f"{mean:.3f}", f"{np.mean(everywhere):.3f}",
                          f"{np.mean(off):.3f}" if off else "", f"{width:.4f}",
                          style="bold" if mean >= BAR else "")  # fmt: skip
        console.print(sheet)
    sheet = Table(
        title="Promotions; margin is how much better the candidate is than required, below 0 it must not pass"
    )
    for title in ("margin", "gate", "gate, any of 100 looks", "normal interval", "normal, any of 100 looks"):
        sheet.add_column(title, justify="right")
    for margin in dict.fromkeys(row["margin"] for row in gates):
        these = [row for row in gates if row["margin"] == margin]
        cells = [f"{np.mean([r[n] for r in these]):.3f} (≤ {max(r[n] for r in these):.3f})" for n in
                 ("gate", "ever", "naive", "naive_ever")]  # fmt: skip
        sheet.add_row(f"{margin:g}", *cells)
    console.print(sheet)


def html(rows: list[dict[str, Any]], gates: list[dict[str, Any]], settings: str) -> str:
    """One page: coverage of every estimator with the bar, bias and width."""
    charts = []
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        lines = []
        these = [row for row in rows if row["scenario"] == scenario]
        for estimator, interval in dict.fromkeys((row["estimator"], row["interval"]) for row in these):
            group = [r["coverage"] for r in these if (r["estimator"], r["interval"]) == (estimator, interval)]
            spread_ = ("least to greatest, over candidates and signals", min(group), max(group), COLOURS[0])
            lines.append(Estimated(f"{estimator}, {interval}", float(np.mean(group)), [spread_]))
        low = min(min(r["coverage"] for r in these), 0.9)
        charts.append((scenario, forest(axis_over("coverage", [low, 1.0]), lines, BAR)))
    columns = list(rows[0])
    body = "".join("<tr>" + "".join(f"<td>{_cell(row[c])}</td>" for c in columns) + "</tr>" for row in rows)
    gate_columns = list(gates[0])
    gate_body = "".join("<tr>" + "".join(f"<td>{_cell(row[c])}</td>" for c in gate_columns) + "</tr>" for row in gates)
    return page(
        "Pointsman: can the estimates be trusted?",
        [
            "<h1>Can the estimates be trusted?</h1>",
            f"<p>{settings}</p>",
            f"<p>Coverage of {LEVEL:.0%} intervals by estimator; the dashed line is {BAR:.0%}.</p>",
            cards(charts),
            "<h2>The gate</h2>",
            f'<div class="wide"><table><tr>{"".join(f"<th>{c}</th>" for c in gate_columns)}</tr>{gate_body}</table></div>',
            "<h2>All numbers</h2>",
            f'<div class="wide"><table><tr>{"".join(f"<th>{c}</th>" for c in columns)}</tr>{body}</table></div>',
        ],
    )


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


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
    items = [(s, seed, arguments.rounds) for s in scenarios for seed in range(arguments.replications)]
    found = spread(worlds, replicate, items, arguments.jobs)
    points, promotions = [], []
    for p, q in track(found, "replications", total=len(items), console=Console(stderr=True)):
        points += p
        promotions += q
    rows, gates = summarise(points), promoted(promotions)
    console = Console(width=150)
    report(console, rows, gates)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        settings = f"{arguments.replications} replications of {arguments.rounds} rounds a scenario."
        content = {"settings": {"replications": arguments.replications, "rounds": arguments.rounds},
                   "scenarios": [asdict(s) for s in scenarios], "estimates": rows, "gate": gates}  # fmt: skip
        (arguments.out / "coverage.json").write_text(json.dumps(content, indent=1) + "\n")
        with (arguments.out / "coverage.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        (arguments.out / "coverage.html").write_text(html(rows, gates, settings), encoding="utf-8")


if __name__ == "__main__":
    main()
