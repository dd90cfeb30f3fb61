"""What the experiments of routing run: worlds, schedules, phases, budgets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from derive import inverted, with_model, with_qualities_of, with_tokens
from phases import CONTROLS, Phase, Trial

from pointsman.bandit.catalog import Mode, Objective, Prices
from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.policies.registry import parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.world.changes import ModelAdded, Outage, PriceFactor, QualityLevel, Schedule
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.world import UNIT, World, make_world

ROUNDS = 1824
"""Of every run: as many as `test_holdout` has prompts; a smaller stream repeats."""
THIRD = ROUNDS // 3
BUDGETS = (2.9e-5, 8.3e-5, 2.3e-4, 6.6e-4, 1.9e-3, 5.3e-3, 1.5e-2)
"""Dollars a request: from the cheapest model's mean cost to the dearest's."""
THREE_BUDGETS = (3.0e-4, 6.6e-4, 1.9e-3)
"""Of the experiments in which the world changes, as in the ParetoBandit paper."""
PUBLISHED = (0.793, 0.813, 0.859, 0.898, 0.917, 0.924, 0.929)
"""Mean reward of ParetoBandit on `test_holdout` at ``BUDGETS``, in its authors' repository."""
BAR_WARM = (0.793, 0.829, 0.8755, 0.9235, 0.927, 0.9325, 0.937)
"""Ours on `test_holdout`, warm."""
OURS, PEER = "thompson", "paretobandit"
POLICIES = (OURS, PEER, "mabwiser-lints", "mabwiser-linucb", "vw-squarecb", "epsilon-greedy", *CONTROLS)
CHEAP, MIDDLE, DEAR = "meta-llama/llama-3.1-8b-instruct", "mistralai/mistral-large-2512", "google/gemini-2.5-pro"
NEWCOMER = "newcomer"
PRICES = {CHEAP: Prices(0.1, 0.1), MIDDLE: Prices(0.5, 1.5), DEAR: Prices(1.25, 10.0)}
"""List prices, dollars per million tokens, as in the package's catalogue."""
REGRESSED = 0.75
PRICE_CUT = 0.1

THIRDS = (Phase("before", 0, THIRD), Phase("changed", THIRD, 2 * THIRD), Phase("restored", 2 * THIRD, ROUNDS))
ADDED = (Phase("before", 0, THIRD), Phase("added", THIRD, 2 * THIRD), Phase("later", 2 * THIRD, ROUNDS))
START = (Phase("first 200", 0, 200), Phase("201 to 608", 200, THIRD), Phase("from 609", THIRD, ROUNDS))
WHOLE = (Phase("all", 0, ROUNDS),)
TITLES = {
    "a": "Seven budgets, stationary, warm start",
    "b": "The dearest model costs a tenth in the middle third",
    "c": "One model gets worse, or fails, in the middle third",
    "d": "A fourth model from the second third on",
    "e": "Seven budgets, stationary, cold start",
    "f": "A wrong prior",
}
ABOUT = {
    "a": "The warm start is every outcome of the warm table.",
    "b": "Announced: ours has list prices in its catalogue (tokens are those that explain the costs at these prices) and is told "
    "of the new ones, ParetoBandit by update_model_pricing. Silent: nobody is told, and costs say it alone.",
    "c": f"Regression: all answers of {MIDDLE} are worse by the same, clipped, so that their mean is {REGRESSED:g}; its cost "
    "stays, and nobody is told. Outage: all its calls fail, cost nothing, and are worth 0.",
    "d": f"Good and cheap: the quality of {DEAR} at the cost of {CHEAP}. Good and dear: the quality and the cost of {DEAR}. Bad "
    f"and cheap: half the quality of {CHEAP}, at its cost. It is announced; ParetoBandit makes 20 forced calls of it, as in its "
    "paper.",
    "e": "No prior at all.",
    "f": f"Permuted: the warm table has {DEAR}'s quality for {CHEAP}, {CHEAP}'s for {MIDDLE} and {MIDDLE}'s for {DEAR}. "
    "Inverted: quality q is 1 − q there. Costs are right.",
}


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One world and what is run in it; ``later`` and ``schedule`` say how it changes, ``concerned`` whose share matters."""

    experiment: str
    variant: str
    table: OutcomeTable
    warm: OutcomeTable | None
    features: str
    budgets: tuple[float, ...]
    phases: tuple[Phase, ...]
    concerned: str
    schedule: Schedule = ()
    later: tuple[str, ...] = ()
    prices: Mapping[str, Prices] = field(default_factory=lambda: PRICES)
    priced: bool = False

    @property
    def start(self) -> str:
        """``warm`` or ``cold``."""
        return "cold" if self.warm is None else "warm"

    def world(self) -> World:
        """The world, ready for runs."""
        return make_world(
            self.table,
            Features(self.features, "one"),
            warm=self.warm,
            later=self.later,
            prices=self.prices,
            priced=self.priced,
        )

    def trials(self, policies: Sequence[str], seeds: int) -> list[Trial]:
        """Every policy at every budget with every seed."""
        objective = Objective(Mode.QUALITY_FIRST)
        return [
            Trial(
                Run(parse_policy(policy), objective, budget, seed, rounds=ROUNDS, schedule=self.schedule),
                self.phases,
                self.concerned,
            )
            for policy in policies
            for budget in self.budgets
            for seed in range(seeds)
        ]


def halves(table: OutcomeTable) -> tuple[OutcomeTable, OutcomeTable]:
    """A warm table and a stream, each half of the rows, drawn once for all."""
    order = np.random.default_rng(0).permutation(len(table))
    middle = len(table) // 2
    return table.take(order[:middle], f"{table.name}, one half"), table.take(
        order[middle:], f"{table.name}, other half"
    )


def cases(
    experiments: Sequence[str], table: OutcomeTable, warm: OutcomeTable, kinds: Sequence[str], all_kinds: bool
) -> Iterator[Case]:
    """The cases of some experiments. With every kind of features in (a) and (e), in the others the first unless ``all_kinds``."""
    for experiment in experiments:
        for kind in kinds if experiment in "ae" or all_kinds else kinds[:1]:
            yield from _cases(experiment, table, warm, kind)


def _cases(experiment: str, table: OutcomeTable, warm: OutcomeTable, kind: str) -> Iterator[Case]:
    middle_third = {"start": THIRD, "end": 2 * THIRD}
    if experiment == "a":
        yield Case("a", "stationary", table, warm, kind, BUDGETS, WHOLE, MIDDLE)
    elif experiment == "b":
        for announced in (True, False):
            yield Case(
                "b",
                "announced" if announced else "silent",
                with_tokens(table, PRICES) if announced else table,
                with_tokens(warm, PRICES) if announced else warm,
                kind,
                THREE_BUDGETS,
                THIRDS,
                DEAR,
                (PriceFactor(DEAR, PRICE_CUT, announced=announced, **middle_third),),
                priced=announced,
            )
    elif experiment == "c":
        changes = {
            "regression": QualityLevel(MIDDLE, REGRESSED, **middle_third),
            "outage": Outage(MIDDLE, **middle_third),
        }
        for variant, change in changes.items():
            yield Case("c", variant, table, warm, kind, THREE_BUDGETS, THIRDS, MIDDLE, (change,))
    elif experiment == "d":
        for variant, quality_of, cost_of, factor in (
            ("good and cheap", DEAR, CHEAP, 1.0),
            ("good and dear", DEAR, DEAR, 1.0),
            ("bad and cheap", CHEAP, CHEAP, 0.5),
        ):
            more = with_model(table, NEWCOMER, quality_of=quality_of, cost_of=cost_of, quality_factor=factor)
            prices = {**PRICES, NEWCOMER: PRICES[cost_of]}
            schedule = (ModelAdded(NEWCOMER, THIRD),)
            yield Case(
                "d", variant, more, warm, kind, THREE_BUDGETS, ADDED, NEWCOMER, schedule, (NEWCOMER,), prices=prices
            )
    elif experiment == "e":
        yield Case("e", "stationary", table, None, kind, BUDGETS, START, MIDDLE)
    elif experiment == "f":
        sources = {CHEAP: DEAR, MIDDLE: CHEAP, DEAR: MIDDLE}
        wrong = {
            "permuted": with_qualities_of(warm, [sources[model] for model in warm.models]),
            "inverted": inverted(warm, UNIT),
        }
        for variant, misleading in wrong.items():
            yield Case("f", variant, table, misleading, kind, THREE_BUDGETS, START, MIDDLE)
    else:
        raise ValueError(f"expected an experiment of {', '.join(TITLES)}, got {experiment!r}")
