"""The grid's worlds: a base case, and what each of the others changes in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from kit import QUALITY

from pointsman.bandit.catalog import Mode, Objective
from pointsman.simulator.world.world import UNIT


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
