"""Changes of the world: each does what it says, in its rounds only, and the same for every policy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.routing.derive import inverted, with_model, with_qualities_of, with_tokens
from pointsman.bandit.catalog import Prices, QualityRange
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.world.changes import (
    FeedbackLost,
    ModelAdded,
    Outage,
    PriceFactor,
    QualityLevel,
    WorldChange,
    has_outage,
    models_added_later,
)
from pointsman.simulator.world.rounds import NewModelNotice, PriceNotice, shift_to, unfold

Make = Callable[..., OutcomeTable]
ORDER = list(range(60))
LARGE = "vendor/large"


def test_without_a_schedule_rounds_are_the_rows_in_order(make_table: Make) -> None:
    table, order = make_table(20), [3, 0, 3, 19]
    rounds = unfold(table, order)
    assert len(rounds) == 4 and rounds.row_t.tolist() == order and not rounds.notices
    np.testing.assert_array_equal(rounds.quality_tk, table.quality_nk[order])
    np.testing.assert_array_equal(rounds.cost_tk, table.cost_nk[order])
    outcome = rounds.outcome(3, 1)
    assert outcome.quality == table.quality_nk[19, 1] and outcome.latency == table.latency_nk[19, 1]
    assert outcome.success and outcome.quality_reported


def test_a_price_changes_costs_in_its_rounds_and_is_announced(make_table: Make) -> None:
    table = make_table(60)
    rounds = unfold(table, ORDER, (PriceFactor(LARGE, 0.1, 20, 40),))
    ratio_tk = rounds.cost_tk / table.cost_nk
    np.testing.assert_allclose(ratio_tk[:, 0], 1.0)
    np.testing.assert_allclose(ratio_tk[:, 1], [1.0] * 20 + [0.1] * 20 + [1.0] * 20)
    np.testing.assert_array_equal(rounds.quality_tk, table.quality_nk)
    assert rounds.notices == {20: (PriceNotice(LARGE, 0.1),), 40: (PriceNotice(LARGE, 1.0),)}
    assert unfold(table, ORDER, (PriceFactor(LARGE, 0.1, 20, 40, announced=False),)).notices == {}


def test_prices_multiply(make_table: Make) -> None:
    rounds = unfold(make_table(60), ORDER, (PriceFactor(LARGE, 0.5, 0), PriceFactor(LARGE, 0.5, 30)))
    assert rounds.notices == {0: (PriceNotice(LARGE, 0.5),), 30: (PriceNotice(LARGE, 0.25),)}


def test_a_level_is_reached_silently(make_table: Make) -> None:
    table = make_table(60)
    rounds = unfold(table, ORDER, (QualityLevel("small", 0.4, 10),))
    shifted_n = rounds.quality_tk[10:, 0] - table.quality_nk[10:, 0]
    inside_n = (rounds.quality_tk[10:, 0] > 0.0) & (rounds.quality_tk[10:, 0] < 1.0)
    assert np.ptp(shifted_n[inside_n]) < 1e-12
    np.testing.assert_array_equal(rounds.quality_tk[:10], table.quality_nk[:10])
    np.testing.assert_array_equal(rounds.cost_tk, table.cost_nk)
    assert not rounds.notices
    whole = unfold(table, ORDER, (QualityLevel("small", 0.4),))
    assert whole.quality_tk[:, 0].mean() == pytest.approx(0.4, abs=1e-9)


@given(st.lists(st.floats(1.0, 5.0), min_size=1, max_size=30), st.floats(1.0, 5.0))
def test_shift_reaches_any_level_of_the_range(qualities: list[float], level: float) -> None:
    scale, quality_n = QualityRange(1.0, 5.0), np.array(qualities)
    shifted_n = np.clip(quality_n + shift_to(quality_n, level, scale), 1.0, 5.0)
    assert shifted_n.mean() == pytest.approx(level, abs=1e-9)


def test_in_an_outage_calls_fail_unjudged_and_free(make_table: Make) -> None:
    table = make_table(60)
    schedule = (Outage("small", 5, 10),)
    rounds = unfold(table, ORDER, schedule)
    assert has_outage(schedule) and not has_outage(())
    for t in range(60):
        outcome = rounds.outcome(t, 0)
        failed = 5 <= t < 10
        assert outcome.success is outcome.quality_reported is not failed
        if failed:
            assert outcome.quality == 0.0 and outcome.cost == 0.0 and np.isnan(outcome.latency)
        else:
            assert outcome.quality == table.quality_nk[t, 0] and outcome.cost == table.cost_nk[t, 0]
    assert rounds.success_tk[:, 1].all()


def test_a_model_is_added(make_table: Make) -> None:
    schedule = (ModelAdded(LARGE, 30),)
    rounds = unfold(make_table(60), ORDER, schedule)
    assert models_added_later(schedule) == {LARGE}
    assert rounds.available_tk[:, 1].tolist() == [False] * 30 + [True] * 30 and rounds.available_tk[:, 0].all()
    assert rounds.notices == {30: (NewModelNotice(LARGE),)}


def test_lost_feedback_is_seeded_and_keeps_costs(make_table: Make) -> None:
    table, order = make_table(60), list(range(60)) * 30
    lost = unfold(table, order, (FeedbackLost(0.3),), seed=7)
    assert np.mean(~lost.quality_reported_tk) == pytest.approx(0.3, abs=0.04)
    np.testing.assert_array_equal(
        lost.quality_reported_tk, unfold(table, order, (FeedbackLost(0.3),), seed=7).quality_reported_tk
    )
    assert (lost.quality_reported_tk != unfold(table, order, (FeedbackLost(0.3),), seed=8).quality_reported_tk).any()
    np.testing.assert_array_equal(lost.cost_tk, table.cost_nk[order])
    assert not unfold(table, order, (FeedbackLost(1.0),)).quality_reported_tk.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            PriceFactor("huge", 2.0),
            r"schedule\[0\] \(PriceFactor\).model: expected one of small, vendor/large, got 'huge'",
        ),
        (PriceFactor(LARGE, 0.0), "factor: expected a finite number above 0, got 0"),
        (PriceFactor(LARGE, 2.0, -1), "start: expected a round from 0 on, got -1"),
        (Outage(LARGE, 5, 5), "end: expected a round after start 5, got 5"),
        (QualityLevel(LARGE, 1.5), "level: expected 0 to 1, got 1.5"),
        (FeedbackLost(1.5), "share: expected 0 to 1, got 1.5"),
    ],
)
def test_a_schedule_that_cannot_be(make_table: Make, change: WorldChange, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        unfold(make_table(10), range(10), (change,))


def test_a_model_is_added_once_and_not_all_are(make_table: Make) -> None:
    with pytest.raises(SettingError, match="added twice"):
        unfold(make_table(10), range(10), (ModelAdded("small", 1), ModelAdded("small", 2)))
    with pytest.raises(SettingError, match="there from the start"):
        unfold(make_table(10), range(10), (ModelAdded("small", 1), ModelAdded(LARGE, 2)))


def test_tables_made_of_tables(make_table: Make) -> None:
    table = make_table(30)
    more = with_model(table, "new", quality_of=LARGE, cost_of="small", quality_factor=0.5, cost_factor=2.0)
    assert more.models == ("small", LARGE, "new")
    np.testing.assert_allclose(more.quality_nk[:, 2], 0.5 * table.quality_nk[:, 1])
    np.testing.assert_allclose(more.cost_nk[:, 2], 2.0 * table.cost_nk[:, 0])
    swapped = with_qualities_of(table, [LARGE, "small"])
    np.testing.assert_array_equal(swapped.quality_nk, table.quality_nk[:, ::-1])
    np.testing.assert_array_equal(swapped.cost_nk, table.cost_nk)
    np.testing.assert_allclose(inverted(table, QualityRange()).quality_nk, 1.0 - table.quality_nk)
    for wrong in (lambda: with_model(table, "small", quality_of=LARGE, cost_of=LARGE),
                  lambda: with_model(table, "new", quality_of="huge", cost_of=LARGE),
                  lambda: with_qualities_of(table, ["small", "small"])):  # fmt: skip
        with pytest.raises(SettingError):
            wrong()


def test_tokens_explain_costs(make_table: Make) -> None:
    prices = {"small": Prices(0.1, 0.1), LARGE: Prices(1.0, 10.0)}
    table = with_tokens(make_table(80), prices)
    assert (table.input_tokens_n >= 0).all() and (table.output_tokens_nk >= 0.0).all()
    for k, model in enumerate(table.models):
        price = prices[model]
        cost_n = (
            price.input_per_million * table.input_tokens_n + price.output_per_million * table.output_tokens_nk[:, k]
        )
        np.testing.assert_allclose(1e-6 * cost_n, table.cost_nk[:, k], rtol=1e-9)
    with pytest.raises(SettingError, match="price of output tokens of vendor/large"):
        with_tokens(table, {"small": prices["small"]})
