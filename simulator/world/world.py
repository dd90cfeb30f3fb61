"""A table prepared for replay: encoded contexts, the catalogue before the first round, and the warm start.

>>> from pointsman.simulator.data.table import from_columns
>>> columns = {"prompt_id": ["a", "b"], "task": ["chat", "maths"], "quality/small": [0.9, 0.1], "quality/large": [0.8, 0.6]}
>>> world = make_world(from_columns("two", "", columns), Features("none", "task"))
>>> world.bucket_n, world.present
(('task/0', 'task/1'), ('small', 'large'))
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pointsman.bandit.bucket import end_warm_start, learn
from pointsman.bandit.catalog import (
    Bucket,
    Model,
    Prices,
    QualityRange,
    Schema,
)
from pointsman.bandit.encoder import Encoder
from pointsman.bandit.errors import FieldError
from pointsman.bandit.event import BucketPut, Event, ModelPut, Record
from pointsman.bandit.outcome import SignalChange, check_report
from pointsman.bandit.state import State, fold
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.world.encoding import (
    EncodedRows,
    Features,
    check_features,
    encode_rows,
    schema_of,
)
from pointsman.simulator.world.rounds import Noise, report_of, table_outcome

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

UNIT = QualityRange()
"""Qualities from 0 to 1."""
DEFAULT_WARM_MASS, DEFAULT_WARM_LEVEL = math.inf, 30.0
"""Most observations of each model, and of its level alone, that a warm start counts as (`make bench-priors`)."""


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
    warm_level: float = math.inf,
    warm_quality: QualityRange | None = None,
    noise: Noise | None = None,
    tasks: Sequence[str] = (),
) -> World:
    """Encode all contexts and, if there is a ``warm`` table, learn every outcome of it, in its order.

    Models of ``later`` are not in the catalogue before a schedule adds them (``simulator.world.changes.ModelAdded``), nor in
    ``warm``, of whose models each counts as at most ``warm_mass`` observations and its level as ``warm_level``. The quality of
    ``warm`` is mapped from the scale ``warm_quality``, if that is given, to the table's. Models of ``warm`` that are not in
    ``table`` are left out, and those that it lacks start from their usual priors.
    ``prices``, ``priced``, ``noise``: see ``World``. ``tasks`` are all that may come, where ``table`` is only the first piece of
    more (``window``).
    Rows of ``warm`` whose task is not in ``table`` are left out if each task has a bucket. Raises ``SettingError``.
    """
    prices = {} if prices is None else prices
    if warm is not None and warm_quality is not None:
        warm = _rescaled(warm, warm_quality, quality)
    present = tuple(model for model in table.models if model not in later)
    _check_tables(table, warm, present, features, quality)
    if not set(later) < set(table.models):
        raise SettingError(f"later: expected some but not all of the models {', '.join(table.models)}")
    if priced and set(present) - set(prices):
        raise SettingError(
            f"expected prices of all models, got none of {', '.join(sorted(set(present) - set(prices)))}"
        )
    schema_tasks, tasks = tuple(tasks), tuple(sorted(set(tasks) | set(table.tasks)))
    try:
        schema = schema_of(features, table, warm, schema_tasks)
        models = [Model(model, prices=prices.get(model) if priced else None) for model in present]
        start = _start(models, tasks, features, schema, quality)
        encoder = Encoder(schema)
        rows = encode_rows(encoder, features, table, tasks)
        warm_rows = None
        if warm is not None:
            warm_rows = _warm_up(start, warm, encode_rows(encoder, features, warm, tasks), present, quality)
            for bucket in start.buckets.values():
                end_warm_start(bucket, warm_mass, warm_level)
    except FieldError as error:
        raise SettingError(f"{table.name}: {error}") from None
    return World(
        table=table,
        features=features,
        quality=quality,
        start=start,
        x_nd=rows.x_nd,
        tokens_n=rows.tokens_n,
        bucket_n=rows.bucket_n,
        task_n=rows.task_n,
        z_np=rows.z_np,
        warm=warm_rows,
        later=tuple(later),
        prices=prices,
        priced=priced,
        noise=noise,
        tasks=tasks,
    )


def window(world: World, table: OutcomeTable) -> World:
    """``world`` with the rows of another piece of its table in place of its own, encoded alike. Raises ``SettingError``."""
    check_features(table, world.features, world.quality)
    unknown = sorted(set(table.tasks) - set(world.tasks))
    if unknown:
        raise SettingError(f"{table.name}: expected the tasks {', '.join(world.tasks)}, got {unknown[0]!r}")
    encoder = Encoder(next(iter(world.start.buckets.values())).config.schema)
    try:
        rows = encode_rows(encoder, world.features, table, world.tasks)
    except FieldError as error:
        raise SettingError(f"{table.name}: {error}") from None
    return replace(
        world,
        table=table,
        x_nd=rows.x_nd,
        tokens_n=rows.tokens_n,
        bucket_n=rows.bucket_n,
        task_n=rows.task_n,
        z_np=rows.z_np,
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


def _rescaled(table: OutcomeTable, scale: QualityRange, to: QualityRange) -> OutcomeTable:
    """``table`` with its qualities, on ``scale``, mapped to another. Raises ``SettingError`` for one outside it."""
    quality_nk = table.quality_nk
    if (quality_nk < scale.min).any() or (quality_nk > scale.max).any():  # not for NaN: unknown
        low, high = np.nanmin(quality_nk), np.nanmax(quality_nk)
        raise SettingError(
            f"{table.name}: expected quality from {scale.min:g} to {scale.max:g}, got {low:g} to {high:g}"
        )
    return replace(table, quality_nk=to.min + (quality_nk - scale.min) / scale.width * to.width)


def fit_of_warm_start(table: OutcomeTable, warm: OutcomeTable, later: Sequence[str] = ()) -> str:
    """What does not fit, in words: models of ``table`` that ``warm`` lacks, and models and tasks of ``warm`` that come to
    nothing; "" if all fits.
    """
    present = [model for model in table.models if model not in later]
    missing = [model for model in present if model not in warm.models]
    extra = [model for model in warm.models if model not in present]
    tasks = sorted(set(warm.tasks) - set(table.tasks))
    parts = []
    if missing:
        parts.append(f"has no {', '.join(missing)}: they start from their usual priors, as candidates nobody knows")
    if extra:
        parts.append(f"{', '.join(extra)} of it left out")
    if tasks:
        parts.append(f"{len(tasks)} of its tasks never come here")
    return "; ".join(parts)


def scaled_outcomes(table: OutcomeTable, quality: QualityRange) -> Array:
    """Quality scaled to [0, 1], cost and latency of every outcome, (s, n, k); NaN where unknown."""
    return np.stack([(table.quality_nk - quality.min) / quality.width, table.cost_nk, table.latency_nk])


def _start(
    models: list[Model],
    tasks: Sequence[str],
    features: Features,
    schema: Schema,
    quality: QualityRange,
) -> State:
    """The state of a catalogue with the models and the buckets."""
    titles = list(tasks) if features.bucket == "task" else ["all tasks"]
    buckets = [
        Bucket(f"{features.bucket}/{i}", display_name=title, schema=schema, quality_range=quality)
        for i, title in enumerate(titles)
    ]
    events: list[Event] = [ModelPut(model) for model in models]
    events += [BucketPut(bucket) for bucket in buckets]
    return fold(Record(i, 0, event) for i, event in enumerate(events, start=1))


def _check_tables(
    table: OutcomeTable,
    warm: OutcomeTable | None,
    present: tuple[str, ...],
    features: Features,
    quality: QualityRange,
) -> None:
    """Raise ``SettingError`` if a table lacks features or the warm start does not fit the table."""
    check_features(table, features, quality)
    if warm is None:
        return
    check_features(warm, features, quality)
    if not set(warm.models) & set(present):
        raise SettingError(
            f"{warm.name} and {table.name} have no model in common: {', '.join(warm.models)}; {', '.join(present)}"
        )
    if features.kind == "x":
        assert warm.x_nd is not None and table.x_nd is not None
        if warm.x_nd.shape[1] != table.x_nd.shape[1]:
            raise SettingError(
                f"{warm.name} has {warm.x_nd.shape[1]} feature columns x/…, {table.name} {table.x_nd.shape[1]}"
            )


def _warm_up(
    start: State,
    warm: OutcomeTable,
    rows: EncodedRows,
    present: tuple[str, ...],
    quality: QualityRange,
) -> WarmRows:
    """Learn, in place, every outcome of every row of ``warm`` whose bucket there is; the rows, for rivals."""
    for row, name in enumerate(rows.bucket_n):
        bucket = start.buckets.get(name)
        if bucket is None:
            continue
        for number, model in enumerate(warm.models):
            if model not in present:
                continue
            report = report_of(table_outcome(warm, row, number), success=False)
            check_report(report, bucket.config.quality_range)
            changes = [SignalChange(signal, None, value) for signal, value in report.items()]
            learn(bucket, model, rows.x_nd[row], changes, input_tokens=int(rows.tokens_n[row]))
    outcome_snk = np.full((3, len(warm), len(present)), np.nan)
    common = [k for k, model in enumerate(present) if model in warm.models]
    columns = [warm.models.index(present[k]) for k in common]
    outcome_snk[:, :, common] = scaled_outcomes(warm, quality)[:, :, columns]
    return WarmRows(rows.z_np, rows.task_n, outcome_snk)
