"""Models that are hardly chosen become uncertain again: unlucky starts and rises are found, and nobody else notices."""

from __future__ import annotations

import numpy as np
import pytest

from pointsman.bandit.bucket import (
    AGING,
    AGING_FROM,
    BucketState,
    add_columns,
    age_hardly_chosen,
    learn,
    new_bucket,
)
from pointsman.bandit.catalog import Bucket, Mode, Model, Objective
from pointsman.bandit.event import DecisionMade
from pointsman.bandit.outcome import Signal
from pointsman.bandit.posterior import QUALITY
from tests.bandit.test_order import assert_same
from tests.bandit.worlds import World, one_change

QUALITY_FIRST = Bucket("b", objective=Objective(Mode.QUALITY_FIRST))
OUTCOMES = 40


def two_models(config: Bucket = QUALITY_FIRST, models: tuple[str, ...] = ("often", "never")) -> BucketState:
    """A bucket of models with ``OUTCOMES`` judged outcomes each."""
    bucket = new_bucket(config, version=1, generation=1)
    add_columns(bucket, models, position=1)
    for i in range(OUTCOMES):
        for model in models:
            learn(bucket, model, np.ones(1), one_change(Signal.QUALITY, float(i % 2)))
    bucket.decisions_k[:] = OUTCOMES
    return bucket


def pass_decisions(bucket: BucketState, until: int) -> None:
    """Give decisions to the first model up to a total of ``until``."""
    for total in range(int(bucket.decisions_k.sum()) + 1, until + 1):
        bucket.decisions_k[0] += 1
        age_hardly_chosen(bucket, total)


def sizes(bucket: BucketState) -> np.ndarray:
    """What the data of each model's quality weigh, in outcomes."""
    posteriors = bucket.posteriors
    return posteriors.designs[posteriors.design_r[QUALITY]].precision_kp[:, -1] - posteriors.mass_k


@pytest.mark.parametrize("models", [("often", "never"), ("often", *"abcdefghijk")])
@pytest.mark.parametrize("decisions", [4096, 5120, 100_000])
def test_weights_fall_with_the_root_of_the_decisions(models: tuple[str, ...], decisions: int) -> None:
    bucket = two_models(models=models)
    pass_decisions(bucket, decisions)
    hardly_from = max(AGING_FROM, OUTCOMES * 10 * len(models))  # they have a tenth of an average share
    expected = OUTCOMES * (hardly_from / decisions) ** AGING
    assert sizes(bucket)[1:] == pytest.approx(min(expected, OUTCOMES), rel=0.15)  # in steps of a quarter of an octave
    assert sizes(bucket)[0] == pytest.approx(OUTCOMES)


def test_a_model_that_is_chosen_does_not_age() -> None:
    bucket = two_models()
    for total in range(2 * OUTCOMES + 1, 3000):
        bucket.decisions_k[total % 2] += 1
        age_hardly_chosen(bucket, total)
    assert sizes(bucket) == pytest.approx(OUTCOMES, abs=1e-12)


def test_outcomes_of_a_warm_start_are_calls() -> None:
    bucket = two_models()
    bucket.warm_start_k[:] = 5000
    pass_decisions(bucket, 10_000)
    assert sizes(bucket) == pytest.approx(OUTCOMES, abs=1e-12)


def test_a_bucket_that_forgets_nothing_ages_nothing() -> None:
    bucket = two_models(Bucket("b", half_life=0.0))
    pass_decisions(bucket, 10_000)
    assert sizes(bucket) == pytest.approx(OUTCOMES, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_rises_is_found(seed: int) -> None:
    world = World(QUALITY_FIRST, [Model("rises"), Model("fair"), Model("good")], seed=seed)
    rng = np.random.default_rng(seed + 10)

    def answer(t: int, model: str) -> dict[Signal, float]:
        level = {"rises": 0.3 if t < 300 else 0.9, "fair": 0.6, "good": 0.7}[model]
        return {Signal.QUALITY: float(rng.random() < level)}

    chosen = world.play(2500, answer)
    assert chosen[-200:].count("rises") > 170


@pytest.mark.parametrize("seed", range(3))
def test_a_missed_start_is_made_good(seed: int) -> None:
    world = World(QUALITY_FIRST, [Model("best"), Model("good"), Model("fair")], seed=seed)
    rng = np.random.default_rng(seed + 20)

    def answer(t: int, model: str) -> dict[Signal, float]:
        level = {"best": 0.85 if t >= 40 else 0.0, "good": 0.75, "fair": 0.6}[model]
        return {Signal.QUALITY: float(rng.random() < level)}

    chosen = world.play(2000, answer)
    assert chosen[-300:].count("best") > 200


def late(order: list[int]) -> World:
    """300 decisions between two models, of which few go to one; what came after the first 40 is reported in ``order``."""
    world = World(QUALITY_FIRST, [Model("a"), Model("b")], seed=3)
    waiting: list[DecisionMade] = []
    for i in range(300):
        decision = world.decide()
        if i < 40:
            world.report(decision, {Signal.QUALITY: float(decision.models[decision.chosen] == "a")})
        else:
            waiting.append(decision)
    for i in order:
        world.report(waiting[i], {Signal.QUALITY: 1.0 - 0.1 * (i % 3)})  # like before: no alarm
    return world


def test_the_order_of_late_outcomes_does_not_matter_while_models_age() -> None:
    straight = late(list(range(260)))
    number = int(straight.bucket.posteriors.design_r[QUALITY])
    assert straight.bucket.posteriors.designs[number].log_decay_k[1] < -0.2  # it aged
    shuffled = late(np.random.default_rng(5).permutation(260).tolist())
    assert_same(shuffled, straight)
