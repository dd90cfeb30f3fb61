"""What is measured of a phase: by hand on small worlds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.routing.derive import with_model
from benchmarks.routing.phases import (
    ALL,
    CONTROLS,
    WARNING,
    Phase,
    Trial,
    measure,
    mix_quality,
    requests_to_adapt,
    share_after_warning,
)
from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.policies.registry import parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.run.executor import map_over
from pointsman.simulator.world.changes import ModelAdded, Outage
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.rounds import unfold
from pointsman.simulator.world.utility import parse_objective
from pointsman.simulator.world.world import UNIT, make_world

Make = Callable[..., OutcomeTable]
ONE = Features("none", "one")
QUALITY = parse_objective("QUALITY_FIRST", UNIT)


def flat(make_table: Make, n: int = 300) -> OutcomeTable:
    """Two models: .5 at $1, .9 at $3."""
    table = make_table(n)
    return replace(table, quality_nk=np.tile([0.5, 0.9], (n, 1)), cost_nk=np.tile([1.0, 3.0], (n, 1)))


def test_the_mix_at_a_spend(make_table: Make) -> None:
    rounds = unfold(flat(make_table), range(300))
    phase = Phase("p", 0, 100)
    assert [mix_quality(rounds, phase, cost) for cost in (0.5, 1.0, 2.0, 3.0, 9.0)] == pytest.approx(
        [0.5, 0.5, 0.7, 0.9, 0.9]
    )


def test_only_models_that_are_there_are_mixed(make_table: Make) -> None:
    table = with_model(flat(make_table), "new", quality_of="vendor/large", cost_of="small")
    rounds = unfold(table, range(300), (ModelAdded("new", 100),))
    assert mix_quality(rounds, Phase("before", 0, 100), 1.0) == pytest.approx(0.5)
    assert mix_quality(rounds, Phase("added", 100, 300), 1.0) == pytest.approx(0.9)


def test_gain_is_quality_over_the_mix_and_all_is_the_mean_of_the_phases(make_table: Make) -> None:
    world = make_world(flat(make_table), ONE)
    phases = (Phase("first", 0, 100), Phase("second", 100, 300))
    run = Run(parse_policy("thompson"), QUALITY, 2.0, 0, rounds=300, schedule=(Outage("small", 100),))
    first, second, whole = measure(world, Trial(run, phases, "small")).rows
    assert (first["phase"], second["phase"], whole["phase"]) == ("first", "second", ALL)
    assert first["gain"] == pytest.approx(0.0, abs=1e-9)  # two points: whatever is spent, quality is that of the mix
    assert first["share"] == pytest.approx((3.0 - first["cost"]) / 2.0)
    assert whole["rounds"] == 300 and whole["spend_ratio"] == pytest.approx(whole["cost"] / 2.0)
    assert whole["quality"] == pytest.approx((first["quality"] + 2.0 * second["quality"]) / 3.0)


def test_controls_keep_the_budget_in_every_phase(make_table: Make) -> None:
    world = make_world(make_table(300), ONE)
    phases = (Phase("first", 0, 150), Phase("second", 150, 300))
    worth = []
    for policy in CONTROLS:
        rows = measure(world, Trial(Run(parse_policy(policy), QUALITY, 5e-4, 0, rounds=300), phases, "small")).rows
        assert all(row["spend_ratio"] <= 1.0 + 1e-9 and math.isnan(row["settled"]) for row in rows)
        worth.append(rows[-1]["quality"])
    assert worth == sorted(worth)
    assert worth[1] == pytest.approx(
        measure(world, Trial(Run(parse_policy("best-mix"), QUALITY, 5e-4, 0, rounds=300), phases, "small")).rows[-1][
            "mix"
        ]
    )


def test_settled_counts_requests() -> None:
    share_t = np.array([0.0] * 200 + [0.0] * 60 + [1.0] * 140)
    phase = Phase("p", 200, 400)
    assert requests_to_adapt(share_t, phase, 1.0) == 60 + 25  # half of the last 50
    assert math.isnan(requests_to_adapt(share_t, phase, 0.05))
    assert math.isinf(requests_to_adapt(np.zeros(400), phase, 1.0))
    assert requests_to_adapt(1.0 - share_t, phase, 0.0) == 60 + 25


def test_warned_is_the_share_after_twenty_calls() -> None:
    share_t = np.array([1.0] * WARNING + [0.0] * 60 + [1.0] * 20)
    assert share_after_warning(share_t) == pytest.approx(0.25)
    assert math.isnan(share_after_warning(np.zeros(50)))
    assert math.isnan(share_after_warning(np.ones(WARNING)))


def test_measured_the_same_over_processes(make_table: Make) -> None:
    world = make_world(make_table(80), ONE)
    trials = [
        Trial(Run(parse_policy("thompson"), QUALITY, 5e-4, seed, rounds=80), (Phase("p", 0, 80),), "small")
        for seed in (0, 1)
    ]
    alone = [result.rows for result in map_over(world, measure, trials, 1)]
    shared = [result.rows for result in map_over(world, measure, trials, 2)]
    assert repr(alone) == repr(shared)
