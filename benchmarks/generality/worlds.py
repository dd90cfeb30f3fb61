"""Does the policy, with nothing but its defaults, do well in worlds it was not made for? A grid of synthetic ones.

    python benchmarks/generality/worlds.py [--seeds N] [--rounds N] [--only NAME] [--json FILE] [--against FILE]

Each case is a base case with one thing changed (some with several): how many models and tasks, kind of quality, spread of
costs, features, rounds, objective, budget, delay, warm start. Each seed draws a world of its own: abilities of the models by
task and by feature, prices, and a table of outcomes, which `thompson` (our policy, default settings) and three rivals replay
once in the same order. What is scored is the *expected* utility of the choices, which a synthetic world knows, so that the
luck of single outcomes is no part of it:

- BALANCED, WEIGHTED, QUALITY_FIRST: quality - λ·cost - μ·latency;
- COST_FIRST, LATENCY_FIRST: -price / mean price - shortfall / tolerance, the shortfall being how far expected quality lies
  under the floor, the tolerance the stated loss (0.05 under an absolute floor).

Gain is utility above the best static choice in hindsight (the best fixed model; within a budget, the best mixture for what was
really spent, if that is more). Score is gain over what the ideal gains: the best choice for every context, knowing all
expectations. Spend is what the calls cost, luck included, over the budget. `--against` a file that `--json` wrote with other
code prints the differences, world by world.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pointsman.simulator.policies.registry import parse_policy

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rivals import linear

from pointsman.bandit.catalog import FLOOR_MODES, Mode, Objective
from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.policies.hindsight import best_fixed, grouped_optimum
from pointsman.simulator.policies.registry import THOMPSON
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.run.replay import play
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.world import UNIT, make_world, order_of

Array = npt.NDArray[np.float64]

RIVALS = ("epsilon-greedy", "lin-ucb", "lin-ts")
POLICIES = (THOMPSON, *RIVALS, "uniform")
CONTROLS = ("best-fixed", "task-lp", "ideal")
QUALITY = Objective(Mode.QUALITY_FIRST)


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of world and what is asked of the policy in it.

    ``quality`` is binary, graded (Beta) or rare (binary, 2 %); ``gap`` scales how much models differ in ability, in logits;
    ``spread`` is the dearest over the cheapest mean cost, ``cheapest`` dollars; ``dim`` features of which ``effect`` logits
    (standard deviation) matter; ``tail`` the log standard deviation of latency; ``shape`` a special world (see ``_abilities``).
    A budget is a fraction of the way, in logarithms, from the cheapest to the dearest mean cost; ``tight`` is 1.2 × the cheapest.
    """

    name: str
    models: int = 3
    tasks: int = 8
    quality: str = "binary"
    gap: float = 0.7
    spread: float = 30.0
    cheapest: float = 1e-4
    dim: int = 0
    effect: float = 1.0
    tail: float = 0.5
    shape: str = ""
    bucket: str = "one"
    rounds: int = 2000
    objective: Objective = QUALITY
    budget: str = ""
    delay: int = 0
    warm: int = 0


def cases() -> list[Case]:
    """The grid, each case as it differs from the base."""
    return [Case("base"), *_problems(), *_objectives(), *_budgets(), *_corners()]


def _case(name: str, **changes: Any) -> Case:
    return replace(Case("base"), name=name, **changes)


def _balanced(weight: float | None = None) -> Objective:
    return Objective(Mode.BALANCED, cost_weight=weight).resolve(UNIT)


def _problems() -> Iterator[Case]:
    for models in (2, 8, 20):
        yield _case(f"models-{models}", models=models)
    for quality in ("graded", "rare"):
        yield _case(f"quality-{quality}", quality=quality)
    for tasks in (1, 60):
        yield _case(f"tasks-{tasks}", tasks=tasks)
    for tasks in (8, 60):
        yield _case(f"buckets-{tasks}", tasks=tasks, bucket="task")
    for dim in (16, 64, 384):
        rounds = 1000 if dim == 384 else 2000
        yield _case(f"x{dim}", dim=dim, rounds=rounds)
        yield _case(f"x{dim}-noise", dim=dim, effect=0.0, rounds=rounds)
    yield _case("x16-only", dim=16, tasks=1, effect=1.5)
    for rounds in (300, 10_000):
        yield _case(f"rounds-{rounds}", rounds=rounds)
    for delay in (50, 200):
        yield _case(f"delay-{delay}", delay=delay)
    yield _case("warm", warm=300)
    yield _case("equal", shape="equal")
    yield _case("dominated", shape="dominated")
    yield _case("close", gap=0.15)
    yield _case("far", gap=2.0)


def _objectives() -> Iterator[Case]:
    for spread in (1.0, 30.0, 1000.0):
        yield _case(f"balanced-{spread:g}x", objective=_balanced(), spread=spread)
    yield _case("balanced-cheap", objective=_balanced(), cheapest=1e-5, spread=30.0)
    yield _case("balanced-dear", objective=_balanced(), cheapest=5e-3, spread=100.0)
    yield _case("balanced-dear-8", objective=_balanced(), cheapest=1e-3, spread=500.0, models=8)
    yield _case("balanced-w100", objective=_balanced(100.0))
    yield _case("balanced-w1000", objective=_balanced(1000.0), cheapest=1e-5)
    yield _case("balanced-equal", objective=_balanced(), shape="equal", spread=100.0, cheapest=1e-3)
    yield _case("balanced-little-better", objective=_balanced(), shape="little", spread=300.0)
    yield _case("balanced-latency", objective=Objective(Mode.WEIGHTED, cost_weight=10.0, latency_weight=0.05), tail=1.2)
    for loss in (0.02, 0.1):
        objective = Objective(Mode.COST_FIRST, max_quality_loss=loss)
        yield _case(f"cost-first-{loss:g}", objective=objective)
        yield _case(f"cost-first-{loss:g}-8", objective=objective, models=8, spread=1000.0)
    yield _case(
        "cost-first-little", objective=Objective(Mode.COST_FIRST, max_quality_loss=0.05), shape="little", spread=300.0
    )
    yield _case("cost-first-equal", objective=Objective(Mode.COST_FIRST, max_quality_loss=0.02), shape="equal")
    yield _case("cost-first-floor", objective=Objective(Mode.COST_FIRST, min_quality=0.6))
    yield _case("cost-first-graded", objective=Objective(Mode.COST_FIRST, max_quality_loss=0.05), quality="graded")
    yield _case("latency-first", objective=Objective(Mode.LATENCY_FIRST, max_quality_loss=0.05), tail=1.5)


def _budgets() -> Iterator[Case]:
    for budget in ("tight", "0.33", "0.67", "0.95"):
        yield _case(f"budget-{budget}", budget=budget)
    yield _case("budget-1000x", budget="0.5", spread=1000.0)
    yield _case("budget-1000x-tight", budget="tight", spread=1000.0)
    yield _case("budget-1000x-short", budget="0.5", spread=1000.0, rounds=300)
    yield _case("budget-dear", budget="0.5", spread=100.0, cheapest=5e-3)
    yield _case("budget-20-models", budget="0.5", models=20, spread=1000.0)
    yield _case("budget-x64", budget="0.5", dim=64)
    yield _case("budget-delay", budget="0.5", delay=200)
    yield _case("budget-warm", budget="0.5", warm=300)
    yield _case("budget-little", budget="0.5", shape="little", spread=300.0)
    yield _case("budget-rare", budget="0.5", quality="rare")


def _corners() -> Iterator[Case]:
    yield _case("corner-2-short", models=2, rounds=300, tasks=1)
    yield _case("corner-rare-long", quality="rare", rounds=10_000)
    yield _case("corner-20-tasks-60", models=20, tasks=60)
    yield _case("corner-20-short", models=20, rounds=300)
    yield _case("corner-rare-balanced", quality="rare", objective=_balanced(1.0), spread=1000.0)
    yield _case("corner-graded-x64-8", quality="graded", dim=64, models=8)
    yield _case("corner-buckets-warm", tasks=60, bucket="task", warm=300)


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """A table and what is expected of each of its cells: quality, cost, latency, (n, k)."""

    table: OutcomeTable
    mean_snk: Array


def _abilities(case: Case, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Ability in logits by task and model (t, k), mean cost (k), median latency (k). Dearer models tend to be better.

    ``equal``: all answer alike; ``dominated``: the dearest is worse than the cheapest at everything; ``little``: the dearest
    is better by two hundredths, everywhere.
    """
    k, t = case.models, case.tasks
    price_k = np.linspace(0.0, 1.0, k)
    ability_k = case.gap * (1.5 * (price_k - 0.5) + 0.5 * rng.standard_normal(k))
    difficulty_t = 0.8 * rng.standard_normal(t)
    ability_tk = ability_k + difficulty_t[:, None] + case.gap * rng.standard_normal((t, k))
    centre = {"rare": -4.2, "graded": 0.5}.get(case.quality, 0.7)
    if case.shape == "equal":
        ability_tk = np.repeat(difficulty_t[:, None], k, axis=1)
    elif case.shape == "dominated":
        ability_tk[:, -1] = ability_tk[:, 0] - 0.8
    elif case.shape == "little":
        ability_tk = np.repeat(difficulty_t[:, None], k, axis=1)
        ability_tk[:, -1] += 0.1
    cost_k = case.cheapest * case.spread**price_k
    latency_k = np.exp(rng.normal(0.0, 0.7, size=k))
    return ability_tk + centre, cost_k, latency_k


def draw(case: Case, seed: int) -> tuple[Truth, OutcomeTable | None]:
    """The world of one seed: a table to route, and one of the same world to warm up on, if the case has it."""
    rng = np.random.default_rng([seed, zlib.crc32(case.name.encode())])
    ability_tk, cost_k, latency_k = _abilities(case, rng)
    lead = min(8, case.dim)
    effect_kl = rng.standard_normal((case.models, lead)) * (case.effect / max(lead, 1) ** 0.5)
    length_t = np.exp(0.3 * rng.standard_normal(case.tasks))
    share_t = rng.dirichlet(np.full(case.tasks, 2.0))
    n = case.rounds + case.warm
    task_n = rng.choice(case.tasks, size=n, p=share_t)
    factor_nl = rng.standard_normal((n, case.dim))  # an embedding whose directions matter less and less
    decay_d = np.arange(1.0, case.dim + 1.0) ** -0.5
    logit_nk = ability_tk[task_n] + factor_nl[:, :lead] @ effect_kl.T
    quality_nk = 1.0 / (1.0 + np.exp(-logit_nk))
    shape = (n, case.models)
    if case.quality == "graded":
        drawn_nk = rng.beta(8.0 * quality_nk, 8.0 * (1.0 - quality_nk))
    else:
        drawn_nk = (rng.random(shape) < quality_nk).astype(np.float64)
    cost_nk = cost_k * length_t[task_n, None]
    length_nk = 0.4 * rng.standard_normal((n, 1)) + 0.3 * rng.standard_normal(shape)
    wait_nk = case.tail * rng.standard_normal(shape)
    latency_nk = np.broadcast_to(latency_k * np.exp(0.5 * case.tail**2), shape)
    table = OutcomeTable(
        name=f"{case.name}/{seed}",
        sha256="",
        models=tuple(f"m{i:02d}" for i in range(case.models)),
        prompt_ids=tuple(str(i) for i in range(n)),
        tasks=tuple(f"t{i:02d}" for i in task_n),
        texts=None,
        x_nd=factor_nl * decay_d if case.dim else None,
        input_tokens_n=np.full(n, -1, dtype=np.int64),
        quality_nk=drawn_nk,
        cost_nk=cost_nk * np.exp(length_nk - 0.5 * (0.4**2 + 0.3**2)),
        latency_nk=latency_k * np.exp(wait_nk),
        output_tokens_nk=np.full(shape, np.nan),
    )
    mean_snk = np.stack([quality_nk, cost_nk, latency_nk])[:, : case.rounds]
    rows = np.arange(n)
    warm = table.take(rows[case.rounds :], f"{table.name}/warm") if case.warm else None
    return Truth(table.take(rows[: case.rounds], table.name), mean_snk), warm


def expected_utility(objective: Objective, mean_snk: Array) -> Array:
    """What each choice is worth in expectation, (n, k); see the top."""
    quality_nk, cost_nk, latency_nk = mean_snk
    if objective.mode in FLOOR_MODES:
        price_nk = cost_nk if objective.mode is Mode.COST_FIRST else latency_nk
        best_n1 = quality_nk.max(axis=1, keepdims=True)
        tolerance = objective.max_quality_loss or 0.05
        floor_n1 = best_n1 - (objective.max_quality_loss or 0.0)
        if objective.min_quality is not None:
            floor_n1 = np.minimum(objective.min_quality, best_n1)
        return np.asarray(-price_nk / price_nk.mean() - np.maximum(floor_n1 - quality_nk, 0.0) / tolerance)
    weighed_nk = (objective.cost_weight or 0.0) * cost_nk + (objective.latency_weight or 0.0) * latency_nk
    return np.asarray(quality_nk - weighed_nk)


def budget_of(case: Case, cost_nk: Array) -> float | None:
    """Dollars a request."""
    cost_k = cost_nk.mean(axis=0)
    if not case.budget:
        return None
    if case.budget == "tight":
        return 1.2 * float(cost_k.min())
    low, high = float(cost_k.min()), float(cost_k.max())
    return float(low * (high / low) ** float(case.budget))


def run(job: tuple[Case, int]) -> dict[str, Any]:
    """Every policy and control in the world of one case and seed: utility, gain, quality, cost."""
    case, seed = job
    truth, warm = draw(case, seed)
    table, mean_snk = truth.table, truth.mean_snk
    features = Features("x" if case.dim else "none", case.bucket)
    world = make_world(table, features, warm=warm)
    budget = budget_of(case, mean_snk[1])
    utility_nk = expected_utility(case.objective, mean_snk)
    n, k = utility_nk.shape
    order = order_of(world, seed)
    tasks = {task: i for i, task in enumerate(sorted(set(table.tasks)))}
    z_nd = _plain_features(table, tasks)
    warm_told = None
    if warm is not None:
        warm_told = _plain_features(warm, tasks), np.stack([warm.quality_nk, warm.cost_nk, warm.latency_nk])
    outcome_snk = np.stack([table.quality_nk, table.cost_nk, table.latency_nk])
    one_n, rows_n = np.zeros(n, dtype=np.intp), np.arange(n)

    def control(name: str, allowed: float | None) -> Array:
        if name == "best-fixed":
            return np.asarray(np.eye(k)[np.full(n, best_fixed(utility_nk, mean_snk[1], allowed))])
        groups = {"static": one_n, "task-lp": world.task_n, "ideal": rows_n}[name]
        return grouped_optimum(utility_nk, mean_snk[1], groups, allowed)

    def row(share_nk: Array) -> dict[str, float]:
        cost = float((share_nk * mean_snk[1]).sum(axis=1).mean())
        allowed = None if budget is None else max(budget, cost)
        utility = float((share_nk * utility_nk).sum(axis=1).mean())
        static = float((control("static", allowed) * utility_nk).sum(axis=1).mean())
        quality = float((share_nk * mean_snk[0]).sum(axis=1).mean())
        return {
            "utility": utility,
            "gain": utility - static,
            "quality": quality,
            "cost": cost,
            "spend": float((share_nk * table.cost_nk).sum(axis=1).mean()) / budget if budget else 1.0,
        }

    row_by_policy = {name: row(control(name, budget)) for name in CONTROLS}
    for policy in POLICIES:
        if policy.startswith("lin-"):
            chosen_n = linear(
                policy,
                z_nd,
                outcome_snk,
                warm_told,
                order,
                case.objective,
                budget,
                case.delay,
                np.random.default_rng([seed, 2]),
            )
            row_by_policy[policy] = row(np.eye(k)[chosen_n])
        else:
            ours = budget if policy == THOMPSON else None
            row_by_policy[policy] = row(play(world, Run(parse_policy(policy), case.objective, ours, seed, case.delay)))
    return {"case": case.name, "seed": seed, "rows": row_by_policy}


def _plain_features(table: OutcomeTable, tasks: dict[str, int]) -> Array:
    """What the linear rivals see: the task one-hot, the embedding at a length of about 1, an intercept."""
    n = len(table)
    hot_nt = np.zeros((n, len(tasks) if len(tasks) > 1 else 0))
    if len(tasks) > 1:
        for i, task in enumerate(table.tasks):
            if task in tasks:
                hot_nt[i, tasks[task]] = 1.0
    parts = [hot_nt]
    if table.x_nd is not None:
        parts.append(table.x_nd / np.sqrt(np.square(table.x_nd).sum(axis=1).mean()))
    return np.hstack([*parts, np.ones((n, 1))])


def mean_se(values: Array) -> tuple[float, float]:
    """Mean and standard error."""
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return float(values.mean()), error


def _by_case(results: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    names = dict.fromkeys(result["case"] for result in results)
    for name in names:
        yield name, sorted((r for r in results if r["case"] == name), key=lambda r: r["seed"])


def _values(results: list[dict[str, Any]], policy: str, column: str) -> Array:
    return np.array([result["rows"][policy][column] for result in results])


def report(results: list[dict[str, Any]], console: Console) -> None:
    """The table, and the list of the cases in which we are worse than something we should not be worse than."""
    shown = Table(
        title="gain = expected utility a request above the best static choice in hindsight; score = gain / ideal's"
    )
    for heading in ("case", "gain ± se", "score", "quality", "spend", "task-lp", "ideal", "best rival", "its gain"):
        shown.add_column(heading, justify="left" if heading in ("case", "best rival") else "right")
    shown.add_column("ours - rival's ± se", justify="right")
    worse: list[str] = []
    for name, group in _by_case(results):
        ours = _values(group, THOMPSON, "gain")
        gain, error = mean_se(ours)
        ideal = _values(group, "ideal", "gain").mean()
        keeping = [r for r in RIVALS if _values(group, r, "spend").mean() <= 1.05]
        best = max(keeping or RIVALS, key=lambda rival: float(_values(group, rival, "gain").mean()))
        lead, lead_error = mean_se(ours - _values(group, best, "gain"))
        spend = _values(group, THOMPSON, "spend").mean()
        shown.add_row(
            name,
            f"{gain:+.4f} ± {error:.4f}",
            f"{gain / ideal:+.2f}" if ideal > 1e-6 else "-",
            f"{_values(group, THOMPSON, 'quality').mean():.3f}",
            f"{spend:.3f}",
            f"{_values(group, 'task-lp', 'gain').mean():.4f}",
            f"{ideal:.4f}",
            best,
            f"{_values(group, best, 'gain').mean():+.4f}",
            f"{'[red]' if lead < 0 else ''}{lead:+.4f} ± {lead_error:.4f}",
        )
        if lead < -2.0 * lead_error:
            worse.append(f"{name}: {-lead:.4f} ± {lead_error:.4f} behind {best}")
        if gain < -2.0 * error and gain < -1e-6:
            worse.append(f"{name}: {-gain:.4f} ± {error:.4f} behind the best static choice in hindsight")
        if spend > 1.01:
            worse.append(f"{name}: spends {spend:.3f} of its budget")
    console.print(shown)
    console.print("\nWorse by more than two standard errors, or over budget:" if worse else "\nNowhere worse.")
    for line in worse:
        console.print(f"  {line}")


def compare(results: list[dict[str, Any]], before: list[dict[str, Any]], console: Console) -> None:
    """Our gain now less our gain before, in the same worlds; the last line is the mean in units of uniform's regret."""
    shown = Table(title="our policy, now - before (in the same worlds)")
    for heading in (
        "case",
        "gain before",
        "gain now",
        "difference ± se",
        "of uniform's regret",
        "spend before",
        "spend now",
    ):
        shown.add_column(heading, justify="left" if heading == "case" else "right")
    old = dict(_by_case(before))
    relative = []
    for name, group in _by_case(results):
        seeds = {r["seed"] for r in group}
        matched = [r for r in old.get(name, []) if r["seed"] in seeds]
        if len(matched) != len(group):
            continue
        was, now = _values(matched, THOMPSON, "gain"), _values(group, THOMPSON, "gain")
        step, error = mean_se(now - was)
        scale = (_values(group, "ideal", "gain") - _values(group, "uniform", "gain")).mean()
        share = step / scale if scale > 1e-6 else 0.0
        relative.append(share)
        mark = "" if abs(step) < 2 * error else "[green]" if step > 0 else "[red]"
        shown.add_row(
            name,
            f"{was.mean():+.4f}",
            f"{now.mean():+.4f}",
            f"{mark}{step:+.4f} ± {error:.4f}",
            f"{100 * share:+.2f} %",
            f"{_values(matched, THOMPSON, 'spend').mean():.3f}",
            f"{_values(group, THOMPSON, 'spend').mean():.3f}",
        )
    console.print(shown)
    if relative:
        console.print(f"mean over cases: {100 * np.mean(relative):+.3f} % of uniform's regret")


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--rounds", type=int, help="at most so many rounds in every case")
    parser.add_argument("--only", help="cases whose name contains this; several: a,b")
    parser.add_argument("--json", type=Path, help="write every number to this file")
    parser.add_argument("--against", type=Path, help="compare with a file that --json wrote")
    arguments = parser.parse_args()
    console = Console(width=170)
    chosen = cases()
    if arguments.only:
        chosen = [case for case in chosen if any(part in case.name for part in arguments.only.split(","))]
        if not chosen:
            parser.error(f"--only {arguments.only}: no such case; there are {', '.join(c.name for c in cases())}")
    if arguments.rounds:
        chosen = [replace(case, rounds=min(case.rounds, arguments.rounds)) for case in chosen]
    jobs = [(case, seed) for case in chosen for seed in range(arguments.seeds)]
    jobs.sort(key=lambda job: -job[0].rounds * (1 + job[0].dim))
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("forkserver")) as pool:
        done = list(track(pool.map(run, jobs), total=len(jobs), description="worlds", console=console))
    place = {case.name: i for i, case in enumerate(chosen)}
    done.sort(key=lambda result: (place[result["case"]], result["seed"]))
    report(done, console)
    if arguments.against:
        compare(done, json.loads(arguments.against.read_text())["results"], console)
    if arguments.json:
        grid = [{**asdict(case), "objective": repr(case.objective)} for case in chosen]
        arguments.json.write_text(json.dumps({"cases": grid, "results": done}, indent=1))


if __name__ == "__main__":
    main()
