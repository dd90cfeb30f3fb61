"""Exact replay of an outcome table: prompts come one by one in random order, a policy chooses, and learns what it chose.

The policy ``thompson`` is the one that serves: the same buckets, decisions (``bandit.decide``) and fold of the same events
(``bandit.state.apply``), one event each for a decision and for its outcome.
"""

from __future__ import annotations

import copy
from collections import Counter, deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bandit.catalog import (
    MAX_CATEGORY_VALUES,
    Bucket,
    Budget,
    CategoryFeature,
    EmbeddingFeature,
    Model,
    Objective,
    QualityRange,
    Schema,
    TextFeature,
    TokenCountFeature,
)
from bandit.decide import decide
from bandit.encoder import Context, Encoded, Encoder
from bandit.errors import FieldError
from bandit.event import BucketPut, Event, ModelPut, Record
from bandit.join import join
from bandit.outcome import Change, Signal, check_report
from bandit.state import State, apply, fold, learn, purses
from simulator import baselines
from simulator.table import OutcomeTable
from simulator.utility import SettingError, known, utilities

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

THOMPSON = "thompson"
ONLINE = (THOMPSON, "uniform", "epsilon-greedy")
"""Policies that decide round by round."""
HINDSIGHT = ("best-fixed", "best-mix", "task-lp", "prompt-oracle")
"""Controls that know every outcome beforehand."""
FIXED = "fixed:"
FEATURES = ("x", "text", "none")
BUCKETS = ("task", "one")
UNIT = QualityRange()
ROUND_NS = 10**9
"""Time between two rounds: a second."""


@dataclass(frozen=True, slots=True)
class Features:
    """What the policy is told of a prompt: ``kind`` of ``FEATURES``, and ``bucket``, one a task or one for all."""

    kind: str
    bucket: str


@dataclass(frozen=True, slots=True)
class Run:
    """One policy under one objective, and perhaps within a budget (mean dollars a request), in one random order."""

    policy: str
    objective: Objective
    budget: float | None
    seed: int
    delay: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """A table made ready for any number of runs. All of it is read-only; a run copies ``start``.

    ``start`` is the state before the first round, warm start included; ``x_nd`` the encoded contexts, ``bucket_n`` the
    name of each prompt's bucket. ``task_n`` numbers the tasks; ``warm_tsk`` are the sums and counts that a warm start
    gives the ε-greedy control.
    """

    table: OutcomeTable
    features: Features
    quality: QualityRange
    start: State
    x_nd: Array
    tokens_n: npt.NDArray[np.int64]
    bucket_n: tuple[str, ...]
    task_n: Indices
    warm_tsk: tuple[Array, Array] | None


def make_world(
    table: OutcomeTable,
    features: Features,
    quality: QualityRange = UNIT,
    warm: OutcomeTable | None = None,
) -> World:
    """Encode all contexts and, if there is a ``warm`` table, learn every outcome of it, in its order.

    Rows of ``warm`` whose task is not in ``table`` are left out if each task has a bucket. Raises ``SettingError``.
    """
    for one in (table, warm):
        if one is not None:
            _check(one, features, quality)
    if warm is not None and set(warm.models) != set(table.models):
        raise SettingError(
            f"{warm.name} and {table.name} have different models: {', '.join(warm.models)}; {', '.join(table.models)}"
        )
    if warm is not None and features.kind == "x":
        assert warm.x_nd is not None and table.x_nd is not None
        if warm.x_nd.shape[1] != table.x_nd.shape[1]:
            raise SettingError(
                f"{warm.name} has {warm.x_nd.shape[1]} feature columns x/…, {table.name} {table.x_nd.shape[1]}"
            )
    tasks = sorted(set(table.tasks))
    try:
        schema = _schema(features, table, warm)
        start = _start(table, tasks, features, schema, quality)
        encoder = Encoder(schema)
        x_nd, tokens_n = _encode(encoder, features, table)
        if warm is not None:
            _learn_all(start, encoder, features, warm, tasks)
    except FieldError as error:
        raise SettingError(f"{table.name}: {error}") from None
    number = {task: i for i, task in enumerate(tasks)}
    warm_tsk = None
    if warm is not None:
        warm_n = np.array([number.get(task, -1) for task in warm.tasks], dtype=np.intp)
        columns = [warm.models.index(model) for model in table.models]
        warm_tsk = baselines.sums_by_task(_outcomes(warm, quality)[:, :, columns], warm_n, len(tasks))
    return World(
        table=table,
        features=features,
        quality=quality,
        start=start,
        x_nd=x_nd,
        tokens_n=tokens_n,
        bucket_n=tuple(_bucket_id(features, tasks, task) for task in table.tasks),
        task_n=np.array([number[task] for task in table.tasks], dtype=np.intp),
        warm_tsk=warm_tsk,
    )


def check_run(world: World, run: Run) -> None:
    """Raise ``SettingError`` if ``run`` makes no sense in ``world``."""
    fixed = run.policy.removeprefix(FIXED) if run.policy.startswith(FIXED) else None
    if fixed is None and run.policy not in (*ONLINE, *HINDSIGHT):
        listed = ", ".join((*ONLINE, f"{FIXED}<model>", *HINDSIGHT))
        raise SettingError(f"policy {run.policy!r}: expected one of {listed}")
    if fixed is not None and fixed not in world.table.models:
        raise SettingError(f"policy {run.policy!r}: expected one of the models {', '.join(world.table.models)}")
    utilities(world.table, run.objective)
    if run.budget is not None:
        known(world.table, "cost", "a budget")
        if run.policy == THOMPSON and world.features.bucket != "one":
            raise SettingError("policy thompson paces a budget for each bucket: use --bucket one with --budget")


def order_of(world: World, seed: int) -> list[int]:
    """The order of the rows under ``seed``: the same for every policy, so that runs compare in pairs."""
    order: list[int] = np.random.default_rng([seed, 0]).permutation(len(world.table)).tolist()
    return order


def play(world: World, run: Run) -> Array:
    """The share of each prompt that each model got, (n, k) in the order of the table.

    An online policy chooses one model for each prompt; a control in hindsight may split it.
    """
    table = world.table
    n, k = len(table), len(table.models)
    order = order_of(world, run.seed)
    rng = np.random.default_rng([run.seed, 1])
    if run.policy == THOMPSON:
        return _one_hot(_thompson(world, run, order, rng), k)
    if run.policy == "uniform":
        return _one_hot(rng.integers(k, size=n, dtype=np.intp), k)
    if run.policy == "epsilon-greedy":
        outcome_snk = _outcomes(table, world.quality)
        chosen_n = baselines.epsilon_greedy(
            outcome_snk, world.warm_tsk, world.task_n, order, run.objective, world.quality, run.delay, rng
        )
        return _one_hot(chosen_n, k)
    if run.policy.startswith(FIXED):
        return _one_hot(np.full(n, table.models.index(run.policy.removeprefix(FIXED)), dtype=np.intp), k)
    utility_nk = utilities(table, run.objective)
    cost_nk = None if np.isnan(table.cost_nk).any() else table.cost_nk
    if run.policy == "best-fixed":
        return _one_hot(np.full(n, baselines.best_fixed(utility_nk, cost_nk, run.budget), dtype=np.intp), k)
    group_n = {"best-mix": np.zeros(n, dtype=np.intp), "task-lp": world.task_n, "prompt-oracle": np.arange(n)}
    return baselines.grouped_optimum(utility_nk, cost_nk, group_n[run.policy], run.budget)


def _thompson(world: World, run: Run, order: list[int], rng: np.random.Generator) -> Indices:
    """The model chosen for each row by the policy that serves."""
    table, state = world.table, copy.deepcopy(world.start)
    for bucket in list(state.buckets.values()):
        budget = None if run.budget is None else Budget(run.budget)
        config = replace(bucket.config, objective=run.objective, budget=budget)
        apply(state, Record(state.position + 1, 0, BucketPut(config)))
    place = {model: i for i, model in enumerate(table.models)}
    chosen_n = np.zeros(len(table), dtype=np.intp)
    waiting: deque[Event] = deque()
    for t, row in enumerate(order):
        now_ns = (t + 1) * ROUND_NS
        bucket = state.buckets[world.bucket_n[row]]
        decision = decide(
            bucket,
            [Encoded(world.x_nd[row], int(world.tokens_n[row]), -1)],
            [t.to_bytes(16, "big")],
            rng,
            health=state.health,
            now_ns=now_ns,
            state_position=state.position,
            purses=purses(state, bucket),
        )[0]
        apply(state, Record(state.position + 1, now_ns, decision))
        model = decision.models[decision.chosen]
        chosen_n[row] = place[model]
        waiting.append(join(bucket, decision, now_ns, _report(table, row, place[model])))
        if len(waiting) > run.delay:
            apply(state, Record(state.position + 1, now_ns, waiting.popleft()))
    return chosen_n


def _report(table: OutcomeTable, row: int, model: int) -> dict[Signal, float]:
    """What a caller would report of one outcome: the cells that are not empty."""
    cells = {
        Signal.QUALITY: table.quality_nk[row, model],
        Signal.COST: table.cost_nk[row, model],
        Signal.LATENCY: table.latency_nk[row, model],
        Signal.OUTPUT_TOKENS: table.output_tokens_nk[row, model],
    }
    return {signal: float(value) for signal, value in cells.items() if not np.isnan(value)}


def _check(table: OutcomeTable, features: Features, quality: QualityRange) -> None:
    if features.kind == "x" and table.x_nd is None:
        raise SettingError(f"features x: {table.name} has no columns x/0 … x/n")
    if features.kind == "text" and table.texts is None:
        raise SettingError(f"features text: {table.name} has no column prompt")
    if features.kind not in FEATURES or features.bucket not in BUCKETS:
        raise SettingError(f"expected features of {', '.join(FEATURES)} and bucket of {', '.join(BUCKETS)}")
    outside = np.argwhere((table.quality_nk < quality.min) | (table.quality_nk > quality.max))
    if outside.size:
        row, model = outside[0]
        raise SettingError(
            f"{table.name}: row {row + 1} ({table.prompt_ids[row]!r}), column quality/{table.models[model]}: "
            f"expected {quality.min:g} to {quality.max:g}, got {table.quality_nk[row, model]:g}; see --quality-range"
        )


def _schema(features: Features, table: OutcomeTable, warm: OutcomeTable | None) -> Schema:
    categories: tuple[CategoryFeature, ...] = ()
    if features.bucket == "one":
        counts = Counter(table.tasks) + Counter(() if warm is None else warm.tasks)
        commonest = sorted(counts, key=lambda task: (-counts[task], task))[:MAX_CATEGORY_VALUES]
        categories = (CategoryFeature("task", tuple(sorted(commonest)), open=True),)
    if features.kind == "x":
        x_nd = table.x_nd if warm is None else warm.x_nd
        assert x_nd is not None
        length = float(np.sqrt(np.square(x_nd).sum(axis=1)).mean())
        embedding = EmbeddingFeature("x", x_nd.shape[1], scale=1.0 / length if length > 0.0 else 1.0)
        return Schema(categories=categories, embeddings=(embedding,))
    if features.kind == "text":
        return Schema(categories=categories, text=TextFeature(), input_tokens=TokenCountFeature())
    return Schema(categories=categories)


def _start(
    table: OutcomeTable,
    tasks: list[str],
    features: Features,
    schema: Schema,
    quality: QualityRange,
) -> State:
    """The state of a catalogue with the table's models and the buckets."""
    titles = tasks if features.bucket == "task" else ["all tasks"]
    buckets = [
        Bucket(f"{features.bucket}/{i}", display_name=title, schema=schema, quality_range=quality)
        for i, title in enumerate(titles)
    ]
    events: list[Event] = [ModelPut(Model(model)) for model in table.models]
    events += [BucketPut(bucket) for bucket in buckets]
    return fold(Record(i, 0, event) for i, event in enumerate(events, start=1))


def _bucket_id(features: Features, tasks: list[str], task: str) -> str:
    return f"task/{tasks.index(task)}" if features.bucket == "task" else "one/0"


def _encode(encoder: Encoder, features: Features, table: OutcomeTable) -> tuple[Array, npt.NDArray[np.int64]]:
    """The features (n, d) and input tokens (n) of all prompts."""
    x_nd = np.empty((len(table), encoder.dim))
    tokens_n = np.empty(len(table), dtype=np.int64)
    for i in range(len(table)):
        tokens = int(table.input_tokens_n[i])
        context = Context(
            categories={"task": table.tasks[i]} if features.bucket == "one" else {},
            embeddings={} if features.kind != "x" or table.x_nd is None else {"x": table.x_nd[i]},
            text=None if features.kind != "text" or table.texts is None else table.texts[i],
            input_tokens=None if tokens < 0 else tokens,
        )
        encoded = encoder.encode(context)
        x_nd[i], tokens_n[i] = encoded.x_d, encoded.input_tokens
    return x_nd, tokens_n


def _learn_all(state: State, encoder: Encoder, features: Features, warm: OutcomeTable, tasks: list[str]) -> None:
    """Learn, in place, every outcome of every row whose task has a bucket."""
    x_nd, _ = _encode(encoder, features, warm)
    there = set(tasks)
    for row in range(len(warm)):
        if features.bucket == "task" and warm.tasks[row] not in there:
            continue
        bucket = state.buckets[_bucket_id(features, tasks, warm.tasks[row])]
        for i, model in enumerate(warm.models):
            report = _report(warm, row, i)
            check_report(report, bucket.config.quality_range)
            learn(bucket, model, x_nd[row], [Change(signal, None, value) for signal, value in report.items()])


def _outcomes(table: OutcomeTable, quality: QualityRange) -> Array:
    """Quality scaled to [0, 1], cost and latency of every outcome, (s, n, k); NaN where unknown."""
    return np.stack([(table.quality_nk - quality.min) / quality.width, table.cost_nk, table.latency_nk])


def _one_hot(chosen_n: npt.NDArray[Any], k: int) -> Array:
    return np.asarray(np.eye(k)[chosen_n])
