"""The grid: many kinds of quality, cost, features, objectives, budgets and warm starts, one change from a base case at a time.

Each seed draws a world of its own: abilities of the models by task and by feature, prices, and a table of outcomes, which
``thompson`` (our policy, default settings) and three rivals replay once in the same order. What is scored is the *expected*
utility of the choices, which a synthetic world knows, so that the luck of single outcomes is no part of it:

- BALANCED, WEIGHTED, QUALITY_FIRST: quality - λ·cost - μ·latency;
- COST_FIRST, LATENCY_FIRST: -price / mean price - shortfall / tolerance, the shortfall being how far expected quality lies
  under the floor, the tolerance the stated loss (0.05 under an absolute floor).

Gain is utility above the best static choice in hindsight (the best fixed model; within a budget, the best mixture for what was
really spent, if that is more). Score is gain over what the ideal gains: the best choice for every context, knowing all
expectations. Spend is what the calls cost, luck included, over the budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from cases import Case
from kit import Array, mean_and_half, outcome_table, rng_of
from rich.console import Console
from rich.table import Table
from rivals import Warm, linear

from pointsman.bandit.catalog import FLOOR_MODES, Mode, Objective
from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.policies.hindsight import best_fixed, grouped_optimum
from pointsman.simulator.policies.registry import THOMPSON, parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.run.replay import play
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.world import World, make_world, order_of

RIVALS = ("epsilon-greedy", "lin-ucb", "lin-ts")
POLICIES = (THOMPSON, *RIVALS, "uniform")
CONTROLS = ("best-fixed", "task-lp", "ideal")


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
    rng = rng_of(case.name, seed)
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
    table = outcome_table(
        f"{case.name}/{seed}",
        [f"m{i:02d}" for i in range(case.models)],
        drawn_nk,
        factor_nl * decay_d if case.dim else None,
        tasks=[f"t{i:02d}" for i in task_n],
        cost_nk=cost_nk * np.exp(length_nk - 0.5 * (0.4**2 + 0.3**2)),
        latency_nk=latency_k * np.exp(wait_nk),
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


def run_case(job: tuple[Case, int]) -> dict[str, Any]:
    """Every policy and control in the world of one case and seed: utility, gain, quality, cost."""
    case, seed = job
    truth, warm = draw(case, seed)
    world = make_world(truth.table, Features("x" if case.dim else "none", case.bucket), warm=warm)
    setting = Setting(
        case, truth, world, expected_utility(case.objective, truth.mean_snk), budget_of(case, truth.mean_snk[1])
    )
    row_by_policy = {name: setting.row(setting.control(name, setting.budget)) for name in CONTROLS}
    chosen_by_rival = _linear_rivals(setting, warm, seed)
    for policy in POLICIES:
        if policy in chosen_by_rival:
            share_nk = np.eye(case.models)[chosen_by_rival[policy]]
        else:
            budget = setting.budget if policy == THOMPSON else None
            share_nk = play(world, Run(parse_policy(policy), case.objective, budget, seed, case.delay))
        row_by_policy[policy] = setting.row(share_nk)
    return {"case": case.name, "seed": seed, "rows": row_by_policy}


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """The world of one case and seed, what each choice is worth in it (n, k), and the budget in dollars a request."""

    case: Case
    truth: Truth
    world: World
    utility_nk: Array
    budget: float | None

    def control(self, name: str, allowed: float | None) -> Array:
        """The shares (n, k) of a control in hindsight within ``allowed`` dollars a request."""
        cost_nk, (n, k) = self.truth.mean_snk[1], self.utility_nk.shape
        if name == "best-fixed":
            return np.asarray(np.eye(k)[np.full(n, best_fixed(self.utility_nk, cost_nk, allowed))])
        groups = {"static": np.zeros(n, dtype=np.intp), "task-lp": self.world.task_n, "ideal": np.arange(n)}[name]
        return grouped_optimum(self.utility_nk, cost_nk, groups, allowed)

    def row(self, share_nk: Array) -> dict[str, float]:
        """What shares (n, k) of the requests are worth, gain and cost."""

        def mean(value_nk: Array, share_nk: Array = share_nk) -> float:
            return float((share_nk * value_nk).sum(axis=1).mean())

        quality_nk, cost_nk, _ = self.truth.mean_snk
        cost, utility = mean(cost_nk), mean(self.utility_nk)
        allowed = None if self.budget is None else max(self.budget, cost)
        return {
            "utility": utility,
            "gain": utility - mean(self.utility_nk, self.control("static", allowed)),
            "quality": mean(quality_nk),
            "cost": cost,
            "spend": mean(self.truth.table.cost_nk) / self.budget if self.budget else 1.0,
        }


def _linear_rivals(setting: Setting, warm: OutcomeTable | None, seed: int) -> dict[str, npt.NDArray[np.intp]]:
    """The choices (n) of linear UCB and linear Thompson sampling."""
    table, case = setting.truth.table, setting.case
    tasks = {task: i for i, task in enumerate(sorted(set(table.tasks)))}
    outcome_snk = np.stack([table.quality_nk, table.cost_nk, table.latency_nk])
    known = None
    if warm is not None:
        known = Warm(_plain_features(warm, tasks), np.stack([warm.quality_nk, warm.cost_nk, warm.latency_nk]))
    return {
        policy: linear(
            policy == "lin-ts",
            _plain_features(table, tasks),
            outcome_snk,
            known,
            order_of(setting.world, seed),
            case.objective,
            setting.budget,
            case.delay,
            np.random.default_rng([seed, 2]),
        )
        for policy in RIVALS
        if policy.startswith("lin-")
    }


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
    for heading in ("case", "gain ± 95 %", "score", "quality", "spend", "task-lp", "ideal", "best rival", "its gain"):
        shown.add_column(heading, justify="left" if heading in ("case", "best rival") else "right")
    shown.add_column("ours - rival's ± 95 %", justify="right")
    worse: list[str] = []
    for name, group in _by_case(results):
        ours = _values(group, THOMPSON, "gain")
        gain, error = mean_and_half(ours)
        ideal = _values(group, "ideal", "gain").mean()
        keeping = [r for r in RIVALS if _values(group, r, "spend").mean() <= 1.05]
        best = max(keeping or RIVALS, key=lambda rival: float(_values(group, rival, "gain").mean()))
        lead, lead_error = mean_and_half(ours - _values(group, best, "gain"))
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
        if lead < -lead_error:
            worse.append(f"{name}: {-lead:.4f} ± {lead_error:.4f} behind {best}")
        if gain < -error and gain < -1e-6:
            worse.append(f"{name}: {-gain:.4f} ± {error:.4f} behind the best static choice in hindsight")
        if spend > 1.01:
            worse.append(f"{name}: spends {spend:.3f} of its budget")
    console.print(shown)
    console.print("\nWorse by more than the interval, or over budget:" if worse else "\nNowhere worse.")
    for line in worse:
        console.print(f"  {line}")


def compare(results: list[dict[str, Any]], before: list[dict[str, Any]], console: Console) -> None:
    """Our gain now less our gain before, in the same worlds; the last line is the mean in units of uniform's regret."""
    shown = Table(title="our policy, now - before (in the same worlds)")
    for heading in (
        "case",
        "gain before",
        "gain now",
        "difference ± 95 %",
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
        step, error = mean_and_half(now - was)
        scale = (_values(group, "ideal", "gain") - _values(group, "uniform", "gain")).mean()
        share = step / scale if scale > 1e-6 else 0.0
        relative.append(share)
        mark = "" if abs(step) < error else "[green]" if step > 0 else "[red]"
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
