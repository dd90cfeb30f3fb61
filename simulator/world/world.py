"""What a replay needs of a table: encoded contexts, the catalogue before the first round, and what a warm start taught."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pointsman.bandit.bucket import end_warm_start, learn
from pointsman.bandit.catalog import (
    MAX_CATEGORY_VALUES,
    Bucket,
    CategoryFeature,
    EmbeddingFeature,
    Model,
    Prices,
    QualityRange,
    Schema,
    TextFeature,
    TokenCountFeature,
)
from pointsman.bandit.encoder import Context, Encoder
from pointsman.bandit.errors import FieldError
from pointsman.bandit.event import BucketPut, Event, ModelPut, Record
from pointsman.bandit.outcome import SignalChange, check_report
from pointsman.bandit.state import State, fold
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.world.rounds import CallOutcome, Noise, report_of

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

FEATURES = ("x", "text", "none")
BUCKETS = ("task", "one")
UNIT = QualityRange()


@dataclass(frozen=True, slots=True)
class Features:
    """What the policy is told of a prompt: ``kind`` of ``FEATURES``, and ``bucket``, one a task or one for all."""

    kind: str
    bucket: str


@dataclass(frozen=True, slots=True, eq=False)
class WarmRows:
    """The rows of a warm start as rivals see them: plain features (n, p), tasks by number (-1: none of the table's), and
    quality scaled to [0, 1], cost and latency, (s, n, k), NaN where unknown.
    """

    z_np: Array
    task_n: Indices
    outcome_snk: Array


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """A table made ready for any number of runs. All of it is read-only; a run copies ``start``.

    ``start`` is the state before the first round, warm start included; ``x_nd`` the encoded contexts, ``bucket_n`` the
    name of each prompt's bucket. ``task_n`` numbers ``tasks``. ``later`` are the models that a schedule adds. ``prices`` are
    list prices that anybody may know; ``priced`` says whether the catalogue's models carry them. For rivals, ``z_np`` are the
    same features unscaled, the task one-hot among them and the intercept last, ``warm`` the warm start's rows. With ``noise``
    the table is of averages, and every round draws its outcomes.
    """

    table: OutcomeTable
    features: Features
    quality: QualityRange
    start: State
    x_nd: Array
    tokens_n: npt.NDArray[np.int64]
    bucket_n: tuple[str, ...]
    task_n: Indices
    z_np: Array
    warm: WarmRows | None = None
    later: tuple[str, ...] = ()
    prices: Mapping[str, Prices] = field(default_factory=dict)
    priced: bool = False
    noise: Noise | None = None
    tasks: tuple[str, ...] = ()

    @property
    def present(self) -> tuple[str, ...]:
        """The models that are there before the first round, in the table's order."""
        return tuple(model for model in self.table.models if model not in self.later)


def make_world(
    table: OutcomeTable,
    features: Features,
    quality: QualityRange = UNIT,
    warm: OutcomeTable | None = None,
    *,
    later: tuple[str, ...] = (),
    prices: Mapping[str, Prices] | None = None,
    priced: bool = False,
    warm_mass: float = math.inf,
    noise: Noise | None = None,
    tasks: Sequence[str] = (),
) -> World:
    """Encode all contexts and, if there is a ``warm`` table, learn every outcome of it, in its order.

    Models of ``later`` are not in the catalogue before a schedule adds them (``simulator.world.changes.ModelAdded``), nor in
    ``warm``, of whose models each counts as at most ``warm_mass`` observations. ``prices``, ``priced``, ``noise``: see ``World``.
    ``tasks`` are all that may come, where ``table`` is only the first piece of more (``window``).
    Rows of ``warm`` whose task is not in ``table`` are left out if each task has a bucket. Raises ``SettingError``.
    """
    prices = {} if prices is None else prices
    present = tuple(model for model in table.models if model not in later)
    for one in (table, warm):
        if one is not None:
            _check(one, features, quality)
    if not set(later) < set(table.models):
        raise SettingError(f"later: expected some but not all of the models {', '.join(table.models)}")
    if warm is not None and set(warm.models) != set(present):
        raise SettingError(
            f"{warm.name} and {table.name} have different models: {', '.join(warm.models)}; {', '.join(present)}"
        )
    if warm is not None and features.kind == "x":
        assert warm.x_nd is not None and table.x_nd is not None
        if warm.x_nd.shape[1] != table.x_nd.shape[1]:
            raise SettingError(
                f"{warm.name} has {warm.x_nd.shape[1]} feature columns x/…, {table.name} {table.x_nd.shape[1]}"
            )
    if priced and set(present) - set(prices):
        raise SettingError(
            f"expected prices of all models, got none of {', '.join(sorted(set(present) - set(prices)))}"
        )
    given, tasks = tuple(tasks), sorted(set(tasks) | set(table.tasks))
    number = {task: i for i, task in enumerate(tasks)}
    task_n = np.array([number[task] for task in table.tasks], dtype=np.intp)
    warm_rows = None
    try:
        schema = _schema(features, table, warm, given)
        models = [Model(model, prices=prices.get(model) if priced else None) for model in present]
        start = _start(models, tasks, features, schema, quality)
        encoder = Encoder(schema)
        x_nd, tokens_n = _encode(encoder, features, table)
        if warm is not None:
            warm_nd, _ = _encode(encoder, features, warm)
            _learn_all(start, warm_nd, features, warm, tasks)
            for bucket in start.buckets.values():
                end_warm_start(bucket, warm_mass)
            warm_n = np.array([number.get(task, -1) for task in warm.tasks], dtype=np.intp)
            columns = [warm.models.index(model) for model in present]
            warm_rows = WarmRows(
                z_np=_plain(encoder, features, warm, warm_nd, warm_n, len(tasks)),
                task_n=warm_n,
                outcome_snk=scaled_outcomes(warm, quality)[:, :, columns],
            )
    except FieldError as error:
        raise SettingError(f"{table.name}: {error}") from None
    return World(
        table=table,
        features=features,
        quality=quality,
        start=start,
        x_nd=x_nd,
        tokens_n=tokens_n,
        bucket_n=tuple(_bucket_id(features, tasks, task) for task in table.tasks),
        task_n=task_n,
        z_np=_plain(encoder, features, table, x_nd, task_n, len(tasks)),
        warm=warm_rows,
        later=tuple(later),
        prices=prices,
        priced=priced,
        noise=noise,
        tasks=tuple(tasks),
    )


def window(world: World, table: OutcomeTable) -> World:
    """``world`` with the rows of another piece of its table in place of its own, encoded alike. Raises ``SettingError``."""
    _check(table, world.features, world.quality)
    encoder = Encoder(next(iter(world.start.buckets.values())).config.schema)
    try:
        x_nd, tokens_n = _encode(encoder, world.features, table)
    except FieldError as error:
        raise SettingError(f"{table.name}: {error}") from None
    number = {task: i for i, task in enumerate(world.tasks)}
    task_n = np.array([number[task] for task in table.tasks], dtype=np.intp)
    return replace(
        world,
        table=table,
        x_nd=x_nd,
        tokens_n=tokens_n,
        bucket_n=tuple(_bucket_id(world.features, list(world.tasks), task) for task in table.tasks),
        task_n=task_n,
        z_np=_plain(encoder, world.features, table, x_nd, task_n, len(world.tasks)),
    )


def order_of(world: World, seed: int, rounds: int | None = None) -> list[int]:
    """The order of the rows under ``seed``: the same for every policy, so that runs compare in pairs.

    More ``rounds`` than rows: they come again, each time in another order.
    """
    n = len(world.table)
    rng = np.random.default_rng([seed, 0])
    rounds = n if rounds is None else rounds
    passes = [rng.permutation(n) for _ in range(max(1, -(-rounds // n)))]
    order: list[int] = np.concatenate(passes)[:rounds].tolist()
    return order


def scaled_outcomes(table: OutcomeTable, quality: QualityRange) -> Array:
    """Quality scaled to [0, 1], cost and latency of every outcome, (s, n, k); NaN where unknown."""
    return np.stack([(table.quality_nk - quality.min) / quality.width, table.cost_nk, table.latency_nk])


def _plain(
    encoder: Encoder, features: Features, table: OutcomeTable, x_nd: Array, task_n: Indices, tasks: int
) -> Array:
    """The encoded features with the content unscaled, and with the task one-hot also where each task has a bucket."""
    z_np = x_nd.copy()
    if features.kind == "x":
        z_np[:, encoder.content] = table.x_nd
    if features.bucket == "task":
        z_np = np.hstack([(task_n[:, None] == np.arange(tasks)).astype(np.float64), z_np])
    return z_np


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


def _schema(features: Features, table: OutcomeTable, warm: OutcomeTable | None, tasks: tuple[str, ...]) -> Schema:
    categories: tuple[CategoryFeature, ...] = ()
    if features.bucket == "one":
        counts = Counter(table.tasks) + Counter(() if warm is None else warm.tasks) + Counter(tasks)
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
    models: list[Model],
    tasks: list[str],
    features: Features,
    schema: Schema,
    quality: QualityRange,
) -> State:
    """The state of a catalogue with the models and the buckets."""
    titles = tasks if features.bucket == "task" else ["all tasks"]
    buckets = [
        Bucket(f"{features.bucket}/{i}", display_name=title, schema=schema, quality_range=quality)
        for i, title in enumerate(titles)
    ]
    events: list[Event] = [ModelPut(model) for model in models]
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


def _learn_all(state: State, x_nd: Array, features: Features, warm: OutcomeTable, tasks: list[str]) -> None:
    """Learn, in place, every outcome of every row whose task has a bucket."""
    there = set(tasks)
    for row in range(len(warm)):
        if features.bucket == "task" and warm.tasks[row] not in there:
            continue
        bucket = state.buckets[_bucket_id(features, tasks, warm.tasks[row])]
        for i, model in enumerate(warm.models):
            outcome = CallOutcome(
                quality=float(warm.quality_nk[row, i]),
                cost=float(warm.cost_nk[row, i]),
                latency=float(warm.latency_nk[row, i]),
                output_tokens=float(warm.output_tokens_nk[row, i]),
            )
            report = report_of(outcome, success=False)
            check_report(report, bucket.config.quality_range)
            learn(bucket, model, x_nd[row], [SignalChange(signal, None, value) for signal, value in report.items()])
