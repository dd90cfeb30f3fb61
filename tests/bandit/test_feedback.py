"""Models whose calls are never judged get a bounded share; late or rare feedback of all models alike is no reason for that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.bandit.catalog import Bucket, Mode, Model, Objective
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Context
from pointsman.bandit.event import DecisionMade
from pointsman.bandit.feedback import FREE, MOST, UNJUDGED, no_feedback, note_call, note_judgement, participation
from pointsman.bandit.outcome import Signal
from pointsman.bandit.policy import PartialModels, logged_propensities, propensities
from pointsman.bandit.trials import feedback_is_missing, quotas
from tests.bandit.worlds import SECOND, World

QUALITY = {"a": 0.6, "b": 0.75, "c": 0.85}
Judged = Callable[[int, str], bool]


def play(
    judged: Judged, rounds: int = 600, delay: int = 0, seed: int = 0, mode: Mode = Mode.QUALITY_FIRST
) -> tuple[World, list[DecisionMade]]:
    """``judged(round, model)`` says whether a call is judged, ``delay`` rounds later."""
    world = World(Bucket("b", objective=Objective(mode)), [Model(model) for model in QUALITY], seed)
    rng = np.random.default_rng(seed)
    decisions: list[DecisionMade] = []
    waiting: list[tuple[int, DecisionMade, float]] = []
    for t in range(rounds):
        while waiting and waiting[0][0] <= t:
            _, decision, good = waiting.pop(0)
            world.report(decision, {Signal.QUALITY: good})
        decisions.append(world.decide())
        if judged(t, model := choice(decisions[-1])):
            waiting.append((t + 1 + delay, decisions[-1], float(rng.random() < QUALITY[model])))
    return world, decisions


def choice(decision: DecisionMade) -> str:
    return decision.models[decision.chosen]


def share(decisions: list[DecisionMade], model: str) -> float:
    return sum(choice(decision) == model for decision in decisions) / len(decisions)


@pytest.mark.parametrize("never", ["a", "b", "c"])
def test_a_model_that_is_never_judged_gets_a_small_share(never: str) -> None:
    """Whichever it is: what is never judged cannot be found to be the best."""
    world, decisions = play(lambda t, model: model != never)
    assert share(decisions[300:], never) < 0.06
    assert share(decisions[300:], "c" if never != "c" else "b") > 0.7
    missing_k = feedback_is_missing(world.bucket)
    assert [world.bucket.columns[k] for k in np.flatnonzero(missing_k)] == [never]


def test_where_nothing_is_judged_the_split_is_even() -> None:
    world, decisions = play(lambda t, model: False, 300)
    assert (quotas(world.bucket) == 1.0).all()
    assert min(share(decisions, model) for model in QUALITY) > 0.23


@pytest.mark.parametrize(("rate", "delay"), [(0.05, 0), (1.0, 100), (0.3, 50)])
def test_rare_and_late_feedback_holds_nobody_back(rate: float, delay: int) -> None:
    rng = np.random.default_rng(5)
    world, decisions = play(lambda t, model: bool(rng.random() < rate), delay=delay)
    held = sum(1.0 - quota for decision in decisions for quota in decision.quotas)
    assert held < 0.05 * len(decisions)
    assert not feedback_is_missing(world.bucket).any()


def test_a_model_that_is_never_judged_is_told_from_late_ones() -> None:
    _, decisions = play(lambda t, model: model != "a", 1000, delay=50)
    assert share(decisions[700:], "a") < 0.06


def test_what_is_known_of_a_model_counts_when_its_judge_breaks() -> None:
    """The best one stays in use; a worse one, of which less is known, is not tried for ever."""
    _, decisions = play(lambda t, model: model != "c" or t < 300)
    assert share(decisions[300:], "c") > 0.9
    _, decisions = play(lambda t, model: model != "a" or t < 20)
    assert share(decisions[300:], "a") < 0.06


def test_a_model_whose_judge_is_mended_is_found() -> None:
    shares = [
        share(play(lambda t, model: model != "c" or t >= 300, 1000, seed=seed)[1][800:], "c") for seed in range(3)
    ]
    assert np.mean(shares) > 0.5


@pytest.mark.parametrize("mode", [Mode.QUALITY_FIRST, Mode.COST_FIRST, Mode.BALANCED])
def test_propensities_are_those_of_the_draws(mode: Mode) -> None:
    world, decisions = play(lambda t, model: model == "b", 200, mode=mode)
    decision = decisions[-1]
    assert len(decision.newcomers) == 2
    assert all(0.0 < quota < 1.0 for quota in decision.quotas)
    pi_k = logged_propensities(decision)
    assert pi_k.sum() == pytest.approx(1.0, abs=1e-9)
    assert decision.propensity == pytest.approx(pi_k[decision.chosen], abs=1e-9)
    encoded = [world.bucket.encoder.encode(Context())] * 20_000
    many = decide(world.bucket, encoded, [b""] * 20_000, world.rng, health={}, now_ns=0, state_position=0)
    counts_k = np.bincount([decision.chosen for decision in many], minlength=3)
    expected_k = logged_propensities(many[0])
    np.testing.assert_allclose(counts_k / 20_000, expected_k, atol=5 * 0.5 / np.sqrt(20_000))
    for decision in many[:50]:
        assert decision.propensity == pytest.approx(expected_k[decision.chosen], abs=1e-9)


def test_each_model_has_its_own_share_and_old_decisions_one_for_all() -> None:
    """Two models that are held back: in a quarter of the draws all take part, in another quarter one of them does not."""
    _, decisions = play(lambda t, model: True, 30)
    decision = decisions[-1]
    predicted = replace(decision.predicted, quality_sd_k=np.array([0.3, 0.3, 0.1]), quality_k=np.array([0.5, 0.5, 0.5]))

    def pi(partial: PartialModels) -> np.ndarray:
        return propensities(decision.objective, decision.quality, 0.0, predicted, decision.exclusions_k, 0.0, partial)

    all_k, first_out_k, last_k = pi(PartialModels()), pi(PartialModels((0,), (), 0.0)), np.array([0.0, 0.0, 1.0])
    two_k = pi(PartialModels((0, 1), (0.25, 0.5)))
    np.testing.assert_allclose(two_k, 0.25 * all_k + 0.25 * first_out_k + 0.5 * last_k, atol=1e-9)
    old_k = pi(PartialModels((0, 1), (), 0.25))
    np.testing.assert_allclose(old_k, 0.25 * all_k + 0.75 * last_k, atol=1e-9)


def test_a_known_model_takes_part_by_what_is_sure_of_it() -> None:
    _, decisions = play(lambda t, model: True, 30)
    decision = decisions[-1]
    predicted = replace(
        decision.predicted, quality_sd_k=np.array([0.05, 0.05, 0.0]), quality_k=np.array([0.9, 0.8, 0.84]), novelty=None
    )
    partial = PartialModels((0, 1), (1e-9, 1e-9))
    pi_k = propensities(decision.objective, decision.quality, 0.0, predicted, decision.exclusions_k, 0.0, partial)
    np.testing.assert_allclose(pi_k, [1.0, 0.0, 0.0], atol=1e-6)  # 0.85 against 0.75 and 0.84


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 2000)), max_size=60))
def test_sums_are_bounded_and_judged_models_take_full_part(steps: list[tuple[bool, int, int]]) -> None:
    feedback, now_ns = no_feedback(4), 0
    for judged, model, seconds in steps:
        now_ns += seconds * SECOND
        note_call(feedback, model, now_ns)
        if judged:
            note_judgement(feedback, model, seconds * SECOND)
    assert (feedback.sums_6k >= -1e-9).all()
    assert (feedback.sums_6k[UNJUDGED] <= MOST).all()
    share_k = participation(feedback)
    assert ((share_k > 0.0) & (share_k <= 1.0)).all()
    assert (share_k[feedback.sums_6k[UNJUDGED] <= FREE] == 1.0).all()


def test_the_order_of_judgements_does_not_matter() -> None:
    feedbacks = [no_feedback(2), no_feedback(2)]
    for t in range(20):
        for feedback in feedbacks:
            note_call(feedback, t % 2, t * SECOND)
    delays = [(0, 5), (1, 700), (0, 3), (1, 9), (0, 10**6)]
    for feedback, order in zip(feedbacks, (delays, delays[::-1]), strict=True):
        for model, delay in order:
            note_judgement(feedback, model, delay)
    np.testing.assert_array_equal(feedbacks[0].sums_6k, feedbacks[1].sums_6k)
    np.testing.assert_array_equal(feedbacks[0].counts_3, feedbacks[1].counts_3)
