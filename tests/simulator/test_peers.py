"""The published bandits as policies: they learn, keep to a budget about as they can, and take part in a changing world."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.routing.derive import with_model
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.policies import published as peers
from pointsman.simulator.policies.published import PACKAGES, inverse_gap, list_prices
from pointsman.simulator.policies.registry import check_run, parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.run.replay import play_online
from pointsman.simulator.world.changes import FeedbackLost, ModelAdded, Outage, PriceFactor
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.utility import parse_objective
from pointsman.simulator.world.world import UNIT, make_world

Make = Callable[..., OutcomeTable]
ONE = Features("none", "one")
LARGE = "vendor/large"
INSTALLED = [
    pytest.param(
        policy,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(module) is None, reason=f"the package {package} is not installed"
        ),
    )
    for policy, (module, package) in PACKAGES.items()
]
QUALITY = parse_objective("QUALITY_FIRST", UNIT)


@pytest.mark.parametrize("policy", INSTALLED)
def test_it_finds_each_tasks_winner(make_table: Make, policy: str) -> None:
    table = make_table(600)
    played = play_online(
        make_world(table, ONE, warm=make_table(100, seed=3)), Run(parse_policy(policy), QUALITY, None, 0)
    )
    rows = played.rounds.row_t[300:]
    assert np.mean(played.chosen_t[300:] == table.quality_nk[rows].argmax(axis=1)) > 0.9


@pytest.mark.parametrize("policy", INSTALLED)
def test_it_learns_without_a_prior(make_table: Make, policy: str) -> None:
    """Better than any one model; each may stay with the first model that it finds good, in one task at most."""
    table = make_table(900, features=24)
    played = play_online(make_world(table, Features("x", "one")), Run(parse_policy(policy), QUALITY, None, 0))
    quality_tk = played.rounds.quality_tk[300:]
    mean_quality = np.take_along_axis(quality_tk, played.chosen_t[300:, None], axis=1).mean()
    assert mean_quality > quality_tk.mean(axis=0).max() + 0.02


@pytest.mark.parametrize("policy", INSTALLED)
def test_a_run_can_be_repeated(make_table: Make, policy: str) -> None:
    world = make_world(make_table(120), ONE, warm=make_table(40, seed=3))
    first, second = (play_online(world, Run(parse_policy(policy), QUALITY, 5e-4, 4)).chosen_t for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("policy", INSTALLED)
def test_a_smaller_budget_spends_less(make_table: Make, policy: str) -> None:
    world = make_world(make_table(800), ONE, warm=make_table(200, seed=3))
    spent = []
    for budget in (2e-4, 1.0):
        played = play_online(world, Run(parse_policy(policy), QUALITY, budget, 0))
        spent.append(float(np.take_along_axis(played.rounds.cost_tk, played.chosen_t[:, None], axis=1).mean()))
    assert spent[0] < 2.0 * 2e-4 < spent[1]


@pytest.mark.parametrize("policy", INSTALLED)
@pytest.mark.parametrize("delay", [0, 7])
def test_it_takes_part_in_a_changing_world(make_table: Make, policy: str, delay: int) -> None:
    table = with_model(make_table(240), "new", quality_of=LARGE, cost_of="small")
    world = make_world(table, ONE, warm=make_table(60, seed=3), later=("new",))
    schedule = (
        ModelAdded("new", 80), Outage("small", 100, 140), PriceFactor(LARGE, 0.1, 60, 160), FeedbackLost(0.2),
    )  # fmt: skip
    played = play_online(world, Run(parse_policy(policy), QUALITY, 5e-4, 0, delay=delay, schedule=schedule))
    assert not (played.chosen_t[:80] == 2).any()
    assert (played.chosen_t[80:] == 2).any()


@pytest.mark.parametrize("policy", list(PACKAGES))
def test_an_absent_package_is_named(make_table: Make, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match=f"policy {policy} needs the package .*: pip install {PACKAGES[policy][1]}"):
        check_run(make_world(make_table(10), ONE), Run(parse_policy(policy), QUALITY, None, 0))


@pytest.mark.parametrize("policy", INSTALLED)
def test_a_floor_is_no_reward(make_table: Make, policy: str) -> None:
    objective = parse_objective("COST_FIRST", UNIT)
    with pytest.raises(
        SettingError, match="expected an objective of BALANCED, QUALITY_FIRST, AVAILABILITY_FIRST, WEIGHTED"
    ):
        check_run(make_world(make_table(10), ONE), Run(parse_policy(policy), objective, None, 0))


@given(st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=20), st.floats(0.0, 1e6))
def test_inverse_gap_weights_are_shares_that_fall_with_cost(costs: list[float], gamma: float) -> None:
    share_m = inverse_gap(np.array(costs), gamma)
    assert share_m.sum() == pytest.approx(1.0) and (share_m >= -1e-12).all()
    assert share_m[int(np.argmin(costs))] == pytest.approx(share_m.max())


def test_inverse_gap_weights_by_hand() -> None:
    np.testing.assert_allclose(inverse_gap(np.array([0.5, 0.0]), 16.0), [0.1, 0.9])


def test_without_list_prices_a_price_is_made_of_the_mean_cost(make_table: Make) -> None:
    table = make_table(50)
    price = list_prices(make_world(table, ONE), LARGE)
    assert price.output_per_million * 1e-6 * peers.TOKENS_PER_CALL == pytest.approx(table.cost_nk[:, 1].mean())
