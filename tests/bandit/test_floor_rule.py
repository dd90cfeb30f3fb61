"""Under a quality floor an unlucky start does not decide for ever, and what looking again may cost is bounded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.bandit.catalog import Bucket, Mode, Model, Objective, QualityRange
from pointsman.bandit.floor_rule import BENEFIT, DEARER_COST, FULL, LEAST_BENEFIT, benefit, price_aware
from pointsman.bandit.outcome import Signal
from pointsman.bandit.policy import (
    FIRST_CALLS,
    FIRST_FLOOR,
    RESHAPE,
    choice_probabilities,
    exploration_floors,
    logged_propensities,
    score_arms,
)
from pointsman.bandit.predictions import Predictions
from tests.bandit.worlds import World

UNIT = QualityRange()
COST = Objective(Mode.COST_FIRST, max_quality_loss=0.02)


def predictions(
    mean: list[float], sd: list[float], cost: list[float], latency: list[float] | None = None
) -> Predictions:
    cost_k, latency_k = np.array(cost), np.array(latency or cost)
    return Predictions(np.array(mean), np.array(sd), cost_k, latency_k, 2.0 * latency_k, cost_k)


def probabilities(predicted: Predictions, objective: Objective = COST, *, by_price: bool = True) -> np.ndarray:
    nothing_bk = np.zeros((1, len(predicted.cost_k)), dtype=np.int64)
    return choice_probabilities(score_arms(objective, UNIT, predicted.batch(), nothing_bk, by_price=by_price))


def first(
    world_seed: int, start: dict[str, float], quality: dict[str, float], cost: dict[str, float], objective: Objective
):
    """A world whose models' first three answers were as good as ``start`` says."""
    world, rng = (
        World(Bucket("b", objective=objective), [Model(m) for m in quality], world_seed),
        np.random.default_rng(world_seed),
    )
    count = dict.fromkeys(quality, 0)

    def answer(t: int, model: str) -> dict[Signal, float]:
        count[model] += 1
        good = start.get(model, quality[model]) if count[model] <= 3 else float(rng.random() < quality[model])
        price = {Signal.COST: cost[model], Signal.LATENCY: 1e3 * cost[model]}
        return {Signal.QUALITY: good, **price}

    return world, answer


@pytest.mark.parametrize("objective", [COST, replace(COST, mode=Mode.LATENCY_FIRST)], ids=lambda o: o.mode.value)
def test_a_cheap_model_that_failed_at_first_is_found(objective: Objective) -> None:
    shares = []
    for seed in range(4):
        quality, cost = {"small": 0.8, "large": 0.8}, {"small": 0.00045, "large": 0.0075}
        world, answer = first(seed, {"small": 0.0}, quality, cost, objective)
        chosen = world.play(500, answer)
        shares.append(chosen[250:].count("small") / 250)
    assert np.mean(shares) > 0.7
    assert min(shares) > 0.2


def test_a_dear_model_that_failed_at_first_is_found() -> None:
    for seed in range(3):
        quality, cost = {"small": 0.4, "large": 0.9}, {"small": 0.00045, "large": 0.0075}
        world, answer = first(seed, {"small": 1.0, "large": 0.0}, quality, cost, COST)
        chosen = world.play(500, answer)
        assert chosen[300:].count("large") > 150


def test_a_cheap_model_that_is_bad_is_soon_given_up() -> None:
    quality, cost = {"small": 0.4, "large": 0.9}, {"small": 0.00045, "large": 0.0075}
    for seed in range(3):
        world, answer = first(seed, {}, quality, cost, COST)
        assert world.play(500, answer)[100:].count("small") < 40


def test_what_a_try_saves_raises_its_mean_and_spread() -> None:
    mean_bk, sd_bk = np.array([[0.7, 0.7, 0.8]]), np.full((1, 3), 0.1)
    price_bk, rank_bk = np.array([[0.25, 0.5, 1.0]]), np.array([[0, 1, 2]])
    eligible_bk = np.ones((1, 3), dtype=np.bool_)
    draw = price_aware(mean_bk, sd_bk, RESHAPE, price_bk, rank_bk, np.array([0.78]), eligible_bk)
    np.testing.assert_allclose(draw.bonus_bk, [[0.1 * BENEFIT * 0.75, 0.1 * BENEFIT * 0.5, 0.0]])
    np.testing.assert_allclose(draw.spread_bk[0, 1:2], RESHAPE + (FULL - RESHAPE) * np.array([0.5]))
    relative = price_aware(mean_bk, sd_bk, RESHAPE, price_bk, rank_bk, np.array([0.78]), eligible_bk, relative=True)
    np.testing.assert_allclose(relative.bonus_bk, [[0.138474 * 0.75, 0.138474 * 0.5, 0.0]], rtol=1e-5)


def test_an_arm_is_turned_down_on_more_evidence_the_more_there_is() -> None:
    sd_bk = np.array([[0.0, 0.0125, 0.025, 0.05, 0.1, 0.4, 1.5]])
    benefit_bk = benefit(sd_bk)
    np.testing.assert_allclose(benefit_bk[0, 1:5] / sd_bk[0, 1:5], [3.6, 2.85, 2.1, 1.35])
    assert benefit_bk[0, 0] == 0.0
    assert (np.diff(benefit_bk[0, :5]) > 0.0).all()  # the margin itself shrinks with what is known
    assert benefit_bk[0, 6] == LEAST_BENEFIT * 1.5


@pytest.mark.parametrize("seed", range(4))
def test_no_unlucky_start_is_dear_for_long(seed: int) -> None:
    """Two equal models at a sixteenth of the price: seed 3 spent nine times what the cheap one costs."""
    quality, cost = {"small": 0.8, "large": 0.8}, {"small": 0.00045, "large": 0.0075}
    world, answer = first(seed, {}, quality, cost, COST)
    chosen = world.play(1000, answer)
    assert chosen.count("small") > 900


def test_old_decisions_keep_the_rule_they_were_made_by() -> None:
    """Half the spread for all: P(the cheap one clears 0.78) = 1 - Φ(0.08 / 0.05)."""
    predicted = predictions([0.7, 0.8], [0.1, 0.0], [1e-3, 1e-2])
    assert probabilities(predicted, by_price=False)[0] == pytest.approx(0.054799, abs=1e-6)
    assert probabilities(predicted)[0] > 0.3
    decision = World(Bucket("b", objective=COST), [Model("a"), Model("c")]).decide()
    assert decision.by_price
    before = replace(decision, predicted=predicted, by_price=False, exploration_floor=0.0)
    assert logged_propensities(before)[0] == pytest.approx(0.054799, abs=1e-6)


@given(
    st.integers(2, 6).flatmap(
        lambda k: st.tuples(
            *(st.lists(st.floats(*ends), min_size=k, max_size=k) for ends in ((0.0, 1.0), (0.0, 0.5), (0.0, 1.0)))
        )
    ),
    st.sampled_from(
        [COST, Objective(Mode.COST_FIRST, min_quality=0.6), Objective(Mode.LATENCY_FIRST, max_quality_loss=0.1)]
    ),
)
def test_dearer_draws_are_bounded_by_what_they_cost(
    columns: tuple[list[float], list[float], list[float]], objective: Objective
) -> None:
    """Whatever is believed: if the cheapest model is expected, the next one is drawn at most as often as it may cost."""
    mean, sd, cost = columns
    predicted = predictions(mean, sd, cost)
    pi_k = probabilities(predicted, objective)
    assert pi_k.sum() == pytest.approx(1.0, abs=1e-9)
    assert (pi_k >= 0.0).all()
    cost_k, floor = predicted.cost_k, objective.min_quality or max(mean) - (objective.max_quality_loss or 0.0)
    clears_k = predicted.quality_k >= floor
    cheapest = int(np.argmin(cost_k))
    if clears_k.all() and (cost_k > cost_k[cheapest]).sum() == len(cost_k) - 1:
        extra = np.sort(cost_k)[1] - cost_k[cheapest]
        most = DEARER_COST * max(cost_k[cheapest], 1e-3 * cost_k.max()) / extra
        assert pi_k[cheapest] >= 1.0 - max(most, 0.0) - 1e-9 or most >= 0.5


@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([0.0, 0.3]), st.booleans())
def test_one_request_and_a_batch_draw_alike(seed: int, k: int, free: float, relative: bool) -> None:
    rng = np.random.default_rng(seed)
    mean_bk, sd_bk = rng.random((20, k)), rng.random((20, k)) * (rng.random((20, k)) > 0.2)
    price_bk = rng.random((20, k)) * (rng.random((20, k)) >= free)
    rank_bk = np.argsort(np.argsort(price_bk, axis=1, kind="stable"), axis=1)
    floor_b, eligible_bk = rng.random(20), rng.random((20, k)) > 0.2
    batch = price_aware(mean_bk, sd_bk, RESHAPE, price_bk, rank_bk, floor_b, eligible_bk, relative=relative)
    for i in range(20):
        at = slice(i, i + 1)
        of_row = (mean_bk[at], sd_bk[at], RESHAPE, price_bk[at], rank_bk[at], floor_b[at], eligible_bk[at])
        alone = price_aware(*of_row, relative=relative)
        np.testing.assert_allclose(alone.bonus_bk[0], batch.bonus_bk[i], rtol=1e-12)
        np.testing.assert_allclose(alone.spread_bk[0], batch.spread_bk[i], rtol=1e-12)


def test_every_model_gets_its_first_calls_as_far_as_they_are_affordable() -> None:
    predicted = predictions([0.9, 0.1], [0.1, 0.1], [1e-3, 2e-3]).batch()
    scores = score_arms(COST, UNIT, predicted, np.zeros((1, 2), dtype=np.int64))
    few_k, many_k = np.array([100, 3]), np.array([100, FIRST_CALLS])
    assert exploration_floors(scores, predicted, None, few_k)[0] == FIRST_FLOOR
    assert exploration_floors(scores, predicted, None, many_k)[0] == pytest.approx(0.01)
    assert exploration_floors(scores, predicted, 0.03, few_k)[0] == 0.03
    dear = predictions([0.9, 0.1], [0.1, 0.1], [1e-3, 1.0]).batch()
    scores = score_arms(COST, UNIT, dear, np.zeros((1, 2), dtype=np.int64))
    assert exploration_floors(scores, dear, None, few_k)[0] == pytest.approx(2e-3 / (0.999 / 2))
    names = (name for name in Predictions.__slots__ if name != "novelty")
    batch = Predictions(*(np.repeat(getattr(predicted, name), 1000, axis=0) for name in names))
    scores = score_arms(COST, UNIT, batch, np.zeros((1000, 2), dtype=np.int64))
    assert exploration_floors(scores, batch, None, few_k).sum() == pytest.approx(2.0 * (FIRST_CALLS - 3))
