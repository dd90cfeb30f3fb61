"""Codec of messages and values: exact round trips."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pointsman.bandit import catalog as c
from pointsman.bandit import event as e
from pointsman.bandit.limits import Limits
from pointsman.bandit.novelty import Novelty
from pointsman.bandit.outcome import ReportedOutcome, Signal, SignalAggregate, SignalChange
from pointsman.bandit.predictions import Predictions
from pointsman.server.codec.catalog import (
    read_bucket,
    read_model,
    read_project,
    write_bucket,
    write_model,
    write_project,
)
from pointsman.server.codec.event import read_event, write_event
from pointsman.server.codec.request import read_limits, read_objective, write_limits, write_objective
from pointsman.server.names import decision_name, new_decision_id, parse_decision
from pointsman.v1 import catalog_pb2, journal_pb2

ids = st.from_regex(r"[A-Za-z0-9._:@/-]{1,20}", fullmatch=True)
names = st.from_regex(r"[a-z_]{1,10}", fullmatch=True)
positive = st.floats(1e-9, 1e9)
amount = st.floats(0, 1e6)
words = st.text(st.characters(codec="utf-8"), max_size=20)
prices = st.builds(c.Prices, amount, amount, amount)
models = st.builds(
    c.Model,
    ids,
    words,
    words,
    st.none() | prices,
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    st.lists(words, max_size=3).map(tuple),
    st.dictionaries(words, words, max_size=3).map(lambda d: dict(sorted(d.items()))),
)
schemas = st.builds(
    c.Schema,
    st.lists(
        st.builds(c.NumberFeature, names, amount, positive, st.booleans()), max_size=3, unique_by=lambda f: f.name
    ).map(tuple),
    st.lists(
        st.builds(
            c.CategoryFeature, names, st.sets(words, min_size=1, max_size=3).map(tuple), st.booleans(), st.booleans()
        ),
        max_size=2,
        unique_by=lambda f: f.name,
    ).map(tuple),
    st.lists(
        st.builds(c.EmbeddingFeature, names, st.integers(1, 512), positive, st.booleans()),
        max_size=1,
    ).map(tuple),
    st.none() | st.builds(c.TextFeature, st.booleans()),
    st.none() | st.builds(c.TokenCountFeature, st.booleans()),
)
objectives = st.one_of(
    st.builds(c.Objective, st.just(c.Mode.BALANCED), st.none() | amount, st.none() | amount),
    st.builds(c.Objective, st.just(c.Mode.WEIGHTED), amount, st.none() | amount),
    st.just(c.Objective(c.Mode.QUALITY_FIRST)),
    st.builds(
        lambda mode, loss: c.Objective(mode, max_quality_loss=loss),
        st.sampled_from([c.Mode.COST_FIRST, c.Mode.LATENCY_FIRST]),
        st.none() | amount,
    ),
    st.builds(lambda floor: c.Objective(c.Mode.COST_FIRST, min_mean_quality=floor), st.floats(0.0, 0.1)),
)
rules = st.builds(c.OutcomeRules, *[st.sampled_from(list(c.Aggregation))] * 3)
budgets = st.builds(c.Budget, positive, st.sampled_from([0, 10**9, 86_400 * 10**9 + 7])) | st.builds(
    c.Budget, positive, st.integers(10**9, c.MAX_WINDOW_NS), st.booleans()
)
projects = st.builds(c.Project, ids, words, st.none() | budgets)
buckets = st.builds(
    c.Bucket,
    id=ids,
    display_name=words,
    schema=schemas,
    models=st.lists(ids, max_size=3, unique=True).map(tuple),
    objective=objectives,
    exploration_floor=st.none() | st.floats(0, 1),
    quality_range=st.builds(c.QualityRange, st.floats(-10, 0), st.floats(0.1, 10)),
    window_ns=st.integers(1, c.MAX_WINDOW_NS),
    rules=rules,
    priors=st.builds(c.Priors, st.none() | st.floats(0, 0.1), positive, positive),
    budget=st.none() | budgets,
    half_life=st.just(0.0) | st.floats(8, 1e9),
    half_life_ns=st.just(0) | st.integers(c.MIN_HALF_LIFE_NS, c.MAX_HALF_LIFE_NS),
    project=st.just("") | ids,
)
limits = st.builds(
    Limits,
    st.none() | positive,
    st.none() | positive,
    st.just(False),
    st.none() | st.floats(-5, 5),
    st.frozensets(ids, max_size=2),
    st.frozensets(ids, max_size=2),
    st.frozensets(words, max_size=2),
    st.dictionaries(words, words, max_size=2),
    st.booleans(),
)
anything = st.floats(allow_nan=False)
maybe = st.none() | st.booleans()
signals = st.sampled_from(list(Signal))
reported_outcomes = st.builds(
    ReportedOutcome,
    st.dictionaries(
        signals,
        st.builds(SignalAggregate, st.integers(1, 99), anything, anything, anything, anything, maybe),
        max_size=4,
    ),
    st.integers(0, 99),
)


@given(models, st.booleans())
def test_models(model: c.Model, available: bool) -> None:
    message = catalog_pb2.Model.FromString(write_model(model, available, "7").SerializeToString())
    assert read_model(message) == model


@given(buckets)
def test_buckets(bucket: c.Bucket) -> None:
    assert read_bucket(catalog_pb2.Bucket.FromString(write_bucket(bucket).SerializeToString())) == bucket


@given(projects)
def test_projects(project: c.Project) -> None:
    message = catalog_pb2.Project.FromString(write_project(project, "7").SerializeToString())
    assert read_project(message) == project


def test_a_half_life_in_time_takes_the_place_of_the_default_and_joins_a_given_one() -> None:
    message = catalog_pb2.Bucket(name="buckets/b", half_life={"seconds": 3600})
    assert (read_bucket(message).half_life, read_bucket(message).half_life_ns) == (0.0, 3600 * 10**9)
    message.half_life_outcomes = 100
    assert (read_bucket(message).half_life, read_bucket(message).half_life_ns) == (100.0, 3600 * 10**9)
    message.ClearField("half_life_outcomes")
    message.ClearField("half_life")
    assert (read_bucket(message).half_life, read_bucket(message).half_life_ns) == (c.Bucket("b").half_life, 0)


@given(objectives)
def test_objectives(objective: c.Objective) -> None:
    assert read_objective(write_objective(objective)) == objective


@given(limits)
def test_limits(limit: Limits) -> None:
    assert read_limits(write_limits(limit)) == limit


def novelties(k: int) -> st.SearchStrategy[Novelty]:
    numbers = st.lists(anything, min_size=k, max_size=k).map(np.array)
    return st.builds(Novelty, numbers, numbers, numbers)


@given(st.integers(1, 5), st.data())
def test_decisions(k: int, data: st.DataObject) -> None:
    def numbers() -> np.ndarray:
        return np.array(data.draw(st.lists(anything, min_size=k, max_size=k)))

    x_d = np.array(data.draw(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=6)), dtype=np.float64)
    event = e.DecisionMade(
        id=data.draw(st.binary(min_size=16, max_size=16)),
        bucket="b",
        generation=data.draw(st.integers(0, 2**50)),
        x_d=x_d,
        models=tuple(f"m{i}" for i in range(k)),
        chosen=data.draw(st.integers(0, k - 1)),
        fallbacks=tuple(data.draw(st.permutations(range(k)))),
        propensity=data.draw(st.floats(0, 1)),
        explored=data.draw(st.booleans()),
        limits_violated=data.draw(st.booleans()),
        predicted=Predictions(
            numbers(),
            numbers(),
            numbers(),
            numbers(),
            numbers(),
            numbers(),
            data.draw(st.none() | st.builds(numbers)),
            data.draw(st.none() | novelties(k)),
            data.draw(st.none() | st.lists(anything, min_size=k, max_size=k).map(np.array)),
        ),
        draw_k=numbers(),
        exclusions_k=np.array(data.draw(st.lists(st.integers(0, 2**11), min_size=k, max_size=k))),
        objective=data.draw(objectives).resolve(c.QualityRange()),
        quality=data.draw(st.sampled_from([c.QualityRange(), c.QualityRange(-2.0, 10.0)])),
        multiplier=data.draw(amount),
        exploration_floor=data.draw(st.floats(0, 1)),
        limits=data.draw(limits),
        state_position=data.draw(st.integers(0, 2**50)),
        expire_ns=data.draw(st.integers(0, 2**62)),
        request_id=data.draw(words),
        input_tokens=data.draw(st.integers(-1, 2**40)),
        max_output_tokens=data.draw(st.integers(-1, 2**40)),
        newcomers=tuple(data.draw(st.lists(st.integers(0, k - 1), max_size=k, unique=True))),
        quotas=tuple(data.draw(st.lists(st.floats(0.0, 1.0), max_size=k))),
        quota=data.draw(st.floats(0, 1)),
        max_cost=data.draw(amount),
        log_decays=tuple(data.draw(st.lists(anything, max_size=4))),
        measured_m=np.array(data.draw(st.lists(anything | st.just(math.nan), max_size=4)), dtype=np.float64),
        references=tuple(data.draw(st.lists(amount, max_size=3))),
    )
    same(event, read_event(journal_pb2.JournalEvent.FromString(write_event(event).SerializeToString()), {}))


@given(
    st.lists(st.builds(SignalChange, signals, st.none() | anything, anything, anything, maybe, maybe), max_size=4),
    reported_outcomes,
    st.integers(0, 2**62),
    amount,
    st.lists(amount, max_size=3),
)
def test_outcomes(
    changes: list[SignalChange], reported: ReportedOutcome, decided_ns: int, max_cost: float, references: list[float]
) -> None:
    event = e.OutcomeApplied(
        decision_id=b"1" * 16,
        bucket="b",
        generation=3,
        model="m",
        x_d=np.array([0.5, 1.0]),
        state_position=9,
        expected_cost=0.25,
        changes=tuple(changes),
        reported_outcomes={"m": reported},
        idempotency_key="key",
        decided_ns=decided_ns,
        max_cost=max_cost,
        references=tuple(references),
        input_tokens=len(references) - 1,
    )
    same(event, read_event(journal_pb2.JournalEvent.FromString(write_event(event).SerializeToString()), {}))


def test_catalogue_events() -> None:
    for event in (
        e.ModelPut(c.Model("m")),
        e.ModelDeleted("m"),
        e.AvailabilitySet("m", False, "why"),
        e.BucketPut(c.Bucket("b")),
        e.BucketPut(c.Bucket("b"), encoder_version=1),
        e.BucketDeleted("b"),
        e.ProjectPut(c.Project("p", "P", c.Budget(1.0, c.DAY_NS, hard=True))),
        e.ProjectDeleted("p"),
    ):
        assert read_event(write_event(event), {}) == event


def test_buckets_of_former_events_keep_the_first_encoder() -> None:
    message = write_event(e.BucketPut(c.Bucket("b")))
    message.bucket_put.ClearField("encoder_version")
    assert read_event(message, {}) == e.BucketPut(c.Bucket("b"), encoder_version=1)


def same(left: object, right: object) -> None:
    """Equal, field by field, arrays bit by bit."""
    assert type(left) is type(right)
    for name in type(left).__slots__:  # type: ignore[attr-defined]
        mine, theirs = getattr(left, name), getattr(right, name)
        if isinstance(mine, np.ndarray):
            np.testing.assert_array_equal(mine, theirs)
        elif isinstance(mine, Predictions | Novelty):
            same(mine, theirs)
        else:
            assert mine == theirs, name


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_decision_names_sort_by_time(first_ns: int, second_ns: int) -> None:
    first, second = new_decision_id(first_ns), new_decision_id(second_ns)
    assert parse_decision(decision_name(first), "name") == first
    assert parse_decision(decision_name(first).replace("decisions/", "decisions/").lower(), "name") == first
    if first_ns // 10**6 < second_ns // 10**6 < 2**48:
        assert decision_name(first) < decision_name(second)
