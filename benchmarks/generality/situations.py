"""Worlds in which a policy may stay with the wrong model: expected qualities, features, and what changes on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from kit import QUALITY, Array, outcome_table, rng_of

from pointsman.simulator.policies.registry import parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.run.replay import rounds_of
from pointsman.simulator.world.changes import (
    FeedbackLost,
    ModelAdded,
    Outage,
    QualityDrift,
    QualityLevel,
    Schedule,
    models_added_later,
)
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.rounds import Noise, Rounds
from pointsman.simulator.world.world import World, make_world

Draw = Callable[[np.random.Generator, int], tuple[Array, Array | None]]


@dataclass(frozen=True, slots=True)
class Situation:
    """A kind of world: ``draw`` gives the expected qualities (n, k) of models m0, m1, … and their features (n, d) or ``None``.

    Answers are right (1) or wrong (0). Outcomes are known ``delay`` rounds late. ``changing`` marks worlds whose best model
    changes.
    """

    name: str
    draw: Draw
    schedule: Schedule = ()
    delay: int = 0
    rounds: int = 3000
    changing: bool = False


def plain(*quality_k: float) -> Draw:
    """Models of these qualities, without features."""
    return lambda rng, rounds: (np.repeat(np.array([quality_k]), rounds, axis=0), None)


def users_and_times(items: int, noise: float = 0.0) -> Draw:
    """Two users at two times of day who like one item each time; a share ``noise`` of the answers is wrong."""

    def draw(rng: np.random.Generator, rounds: int) -> tuple[Array, Array]:
        user_n, time_n = rng.integers(2, size=rounds), rng.integers(2, size=rounds)
        liked_n = np.array([[0, 2], [1, 0]])[user_n, time_n]
        quality_nk = np.full((rounds, items), noise)
        quality_nk[np.arange(rounds), liked_n] = 1.0 - noise
        return quality_nk, np.stack([user_n == 0, user_n == 1, time_n == 0, time_n == 1], axis=1).astype(np.float64)

    return draw


def effects(models: int, dim: int, strength: float, spread: float) -> Draw:
    """Logits linear in ``dim`` Normal features with effects of standard deviation ``strength``; levels of ``spread``."""

    def draw(rng: np.random.Generator, rounds: int) -> tuple[Array, Array]:
        x_nd = rng.standard_normal((rounds, dim))
        effect_kd = strength * rng.standard_normal((models, dim))
        level_k = spread * rng.standard_normal(models)
        return 1.0 / (1.0 + np.exp(-x_nd @ effect_kd.T - level_k)), x_nd

    return draw


def digits(rng: np.random.Generator, rounds: int) -> tuple[Array, Array]:
    """Handwritten digits, ten models that are right on one each."""
    from sklearn.datasets import load_digits

    data = load_digits()
    row_n = rng.integers(len(data.target), size=rounds)
    return np.eye(10)[data.target[row_n]], data.data[row_n] / 16.0


GAPS = plain(0.6, 0.75, 0.85)
FIRST, SECOND, THIRD = "m00", "m01", "m02"

SITUATIONS = (
    Situation("gaps .6 .75 .85", GAPS),
    Situation("two .5 .6", plain(0.5, 0.6)),
    Situation("ten .3 … .8", plain(*np.linspace(0.3, 0.8, 10))),
    Situation("thirty .3 … .85", plain(*np.linspace(0.3, 0.85, 30))),
    Situation("one per cent", plain(0.005, 0.01, 0.03), rounds=6000),
    Situation("duplicates", plain(0.5, 0.5, 0.5, 0.7, 0.7, 0.7)),
    Situation("users, 4 items", users_and_times(4)),
    Situation("users, 7 items", users_and_times(7)),
    Situation("users, 5 items, noise", users_and_times(5, 0.1)),
    Situation("strong, d = 16", effects(4, 16, 1.0, 0.5)),
    Situation("no effect, d = 32", effects(4, 32, 0.0, 0.5)),
    Situation("thirty, d = 16", effects(30, 16, 0.25, 0.5)),
    Situation("digits, d = 64", digits),
    Situation("5 % feedback", GAPS, (FeedbackLost(0.95),)),
    Situation("dominated added", plain(0.6, 0.75, 0.85, 0.4), (ModelAdded("m03", 1000),)),
    Situation("better added", GAPS, (ModelAdded(THIRD, 1000),)),
    Situation("missed start", GAPS, (QualityLevel(THIRD, 0.0, 0, 40),)),
    Situation("failing start", GAPS, (Outage(THIRD, 0, 40),)),
    Situation("rises .3 to .9", plain(0.3, 0.6, 0.7), (QualityLevel(FIRST, 0.9, 1000),), changing=True),
    Situation(
        "rises, 15,000 rounds",
        plain(0.3, 0.6, 0.7),
        (QualityLevel(FIRST, 0.9, 3000),),
        rounds=15_000,
        changing=True,
    ),
    Situation("drop and recovery", GAPS, (QualityLevel(THIRD, 0.4, 1000, 2000),), changing=True),
    Situation(
        "drift",
        GAPS,
        (QualityDrift(THIRD, -0.4, 500, 2500), QualityDrift(FIRST, 0.25, 500, 2500)),
        changing=True,
    ),
    Situation("outage", GAPS, (Outage(THIRD, 1000, 1500),), changing=True),
    Situation("delay 200", GAPS, delay=200),
)


def unfold_world(situation: Situation, seed: int) -> tuple[World, Run, Rounds]:
    """The world of a seed, our run in it, and what every model would answer in each round. Columns are shuffled."""
    rng = rng_of(situation.name, seed)
    quality_nk, x_nd = situation.draw(rng, situation.rounds)
    order_k = rng.permutation(quality_nk.shape[1])
    table = outcome_table(situation.name, [f"m{k:02d}" for k in order_k], quality_nk[:, order_k], x_nd)
    later = models_added_later(situation.schedule)
    world = make_world(
        table,
        Features("none" if x_nd is None else "x", "one"),
        later=tuple(model for model in table.models if model in later),
        noise=Noise("binary"),
    )
    run = Run(parse_policy("thompson"), QUALITY, None, seed, situation.delay, schedule=situation.schedule)
    return world, run, rounds_of(world, run)
