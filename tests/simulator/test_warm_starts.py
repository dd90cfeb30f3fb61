"""Warm starts from tables that do not fit: other scales of quality, models that are missing or that nobody has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pointsman.bandit.catalog import Mode, Objective, QualityRange
from pointsman.bandit.outcome import Signal
from pointsman.bandit.state import fingerprint
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.policies.registry import parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.run.replay import play
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.world import DEFAULT_WARM_LEVEL, DEFAULT_WARM_MASS, fit_of_warm_start, make_world

TASK, ONE = Features("none", "task"), Features("none", "one")
Make = Callable[..., OutcomeTable]
BEST = Objective(Mode.QUALITY_FIRST)


def columns(table: OutcomeTable, names: dict[str, int]) -> OutcomeTable:
    """``table`` with models of those names, each with the outcomes of a column."""
    picked = list(names.values())
    cells = ("quality_nk", "cost_nk", "latency_nk", "output_tokens_nk")
    return replace(table, models=tuple(names), **{name: getattr(table, name)[:, picked] for name in cells})


@pytest.mark.parametrize(("low", "high"), [(0.0, 10.0), (1.0, 5.0), (-1.0, 1.0)], ids=["tens", "stars", "signed"])
def test_another_scale_is_mapped(make_table: Make, low: float, high: float) -> None:
    table, warm = make_table(20), make_table(60, seed=4)
    scaled = replace(warm, quality_nk=low + (high - low) * warm.quality_nk)
    world = make_world(table, TASK, warm=scaled, warm_quality=QualityRange(low, high))
    plain = make_world(table, TASK, warm=warm)
    for name, bucket in world.start.buckets.items():
        expected = plain.start.buckets[name].posteriors.mean_krd
        np.testing.assert_allclose(bucket.posteriors.mean_krd, expected, atol=1e-9)


def test_a_score_outside_the_declared_scale_is_refused(make_table: Make) -> None:
    warm = make_table(60, seed=4)
    stars = replace(warm, quality_nk=1.0 + 4.0 * warm.quality_nk)
    with pytest.raises(SettingError, match=r"expected quality from 0 to 1, got 1\..* to "):
        make_world(make_table(20), TASK, warm=stars, warm_quality=QualityRange(0.0, 1.0))


def test_a_model_that_it_lacks_starts_as_without_it(make_table: Make) -> None:
    table, warm = make_table(400), columns(make_table(60, seed=4), {"small": 0})
    world, cold = make_world(table, ONE, warm=warm), make_world(table, ONE)
    (bucket,), (before,) = world.start.buckets.values(), cold.start.buckets.values()
    large, small = bucket.columns.index("vendor/large"), bucket.columns.index("small")
    assert bucket.count_sk[Signal.QUALITY, [large, small]].tolist() == [0, 60]
    np.testing.assert_array_equal(bucket.posteriors.mean_krd[large], before.posteriors.mean_krd[large])
    assert fit_of_warm_start(table, warm).startswith("has no vendor/large: they start from their usual priors")
    shares_nk = play(world, Run(parse_policy("thompson"), BEST, None, 0))
    assert shares_nk[:, 1].mean() > 0.3  # it is the better one for half of the prompts


def test_models_that_nobody_has_are_left_out(make_table: Make) -> None:
    table, warm = make_table(20), make_table(60, seed=4)
    more = columns(warm, {"small": 0, "retired": 1, "vendor/large": 1})
    world, plain = make_world(table, TASK, warm=more), make_world(table, TASK, warm=warm)
    assert fingerprint(world.start) == fingerprint(plain.start)
    assert fit_of_warm_start(table, more) == "retired of it left out"
    with pytest.raises(SettingError, match="no model in common"):
        make_world(table, TASK, warm=columns(warm, {"retired": 0}))


@pytest.mark.parametrize("policy", ["linucb", "epsilon-greedy", "beta-thompson"])
def test_rivals_start_from_what_there_is(make_table: Make, policy: str) -> None:
    world = make_world(make_table(200), ONE, warm=columns(make_table(60, seed=4), {"small": 0}))
    shares_nk = play(world, Run(parse_policy(policy), BEST, 1e-3, 0))
    assert np.isfinite(shares_nk).all()
    assert (shares_nk.sum(axis=0) > 0).all()


def test_a_wrong_judge_costs_little_at_the_default_mass(make_table: Make) -> None:
    """All scores .2 higher than they will be paid for: not much worse than a cold start."""
    table = make_table(400)
    lost: dict[str, float] = {}
    for name, warm in (("cold", None), ("offset", make_table(300, seed=4))):
        if warm is not None:
            warm = replace(warm, quality_nk=np.minimum(warm.quality_nk + 0.2, 1.0))
        world = make_world(table, ONE, warm=warm, warm_mass=DEFAULT_WARM_MASS, warm_level=DEFAULT_WARM_LEVEL)
        shares_nk = play(world, Run(parse_policy("thompson"), BEST, None, 0))
        lost[name] = float((table.quality_nk.max(axis=1) - (shares_nk * table.quality_nk).sum(axis=1)).sum())
    assert lost["offset"] < lost["cold"] + 15.0
