"""Features that policies see of a prompt: as a bucket's encoder makes them, and unscaled for rivals.

>>> Features("none", "task").bucket_of(3), Features("none", "one").bucket_of(3)
('task/3', 'one/0')
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pointsman.bandit.catalog import (
    MAX_CATEGORY_VALUES,
    CategoryFeature,
    EmbeddingFeature,
    NumberFeature,
    QualityRange,
    Schema,
    TextFeature,
    TokenCountFeature,
)
from pointsman.bandit.encoder import Context, Encoder
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.table import OutcomeTable

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Ints = npt.NDArray[np.int64]

FEATURES = ("x", "text", "none")
"""The table's feature columns, the prompt's text, or nothing beside the task."""
MOST_UNLIKE = 100.0
"""Largest column of features over the smallest spread of one, up to which the columns are taken for one embedding."""
BUCKETS = ("task", "one")
"""A bucket for each task, or one for all with the task as a category."""


@dataclass(frozen=True, slots=True)
class Features:
    """What the policy is told of a prompt: ``kind`` of ``FEATURES``, and ``bucket``, one a task or one for all."""

    kind: str
    bucket: str

    def bucket_of(self, task: int) -> str:
        """The name of the bucket of task number ``task``."""
        return f"task/{task}" if self.bucket == "task" else "one/0"


@dataclass(frozen=True, slots=True, eq=False)
class EncodedRows:
    """n prompts as policies see them.

    ``x_nd`` are the encoded contexts, ``tokens_n`` the input tokens, ``task_n`` numbers of tasks (-1: none of those known),
    ``bucket_n`` names of buckets. For rivals ``z_np`` are the same features unscaled, the task one-hot among them and the
    intercept last.
    """

    x_nd: Array
    tokens_n: Ints
    bucket_n: tuple[str, ...]
    task_n: Indices
    z_np: Array


def check_features(table: OutcomeTable, features: Features, quality: QualityRange) -> None:
    """Raise ``SettingError`` if ``table`` lacks what ``features`` asks for, or has a quality out of range."""
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


def schema_of(features: Features, table: OutcomeTable, warm: OutcomeTable | None, tasks: tuple[str, ...]) -> Schema:
    """The context schema of every bucket: scaled by the warm start's features, if there are any, else by the table's.

    ``tasks`` are those that may come beside the two tables'; of more than ``MAX_CATEGORY_VALUES`` the commonest are kept.
    """
    categories: tuple[CategoryFeature, ...] = ()
    if features.bucket == "one":
        counts = Counter(table.tasks) + Counter(() if warm is None else warm.tasks) + Counter(tasks)
        commonest = sorted(counts, key=lambda task: (-counts[task], task))[:MAX_CATEGORY_VALUES]
        categories = (CategoryFeature("task", tuple(sorted(commonest)), open=True),)
    if features.kind == "x":
        x_nd = table.x_nd if warm is None else warm.x_nd
        assert x_nd is not None
        if differ_in_unit(x_nd):
            numbers = [
                NumberFeature(f"x/{i}", center, scale or 1.0)
                for i, (center, scale) in enumerate(
                    zip(x_nd.mean(axis=0).tolist(), x_nd.std(axis=0).tolist(), strict=True)
                )
            ]
            return Schema(numbers=tuple(numbers), categories=categories)
        length = float(np.sqrt(np.square(x_nd).sum(axis=1)).mean())
        embedding = EmbeddingFeature("x", x_nd.shape[1], scale=1.0 / length if length > 0.0 else 1.0)
        return Schema(categories=categories, embeddings=(embedding,))
    if features.kind == "text":
        return Schema(categories=categories, text=TextFeature(), input_tokens=TokenCountFeature())
    return Schema(categories=categories)


def differ_in_unit(x_nd: Array) -> bool:
    """Whether the columns (d) of ``x_nd`` are numbers of different units rather than an embedding: then each is scaled by itself.

    Scaled together, the column of the smallest unit would be all that is seen.

    >>> differ_in_unit(np.array([[0.1, 900.0], [0.3, 100.0]])), differ_in_unit(np.array([[0.1, 0.9], [0.3, 0.0]]))
    (True, False)
    """
    spread_d = x_nd.std(axis=0)
    sizes = np.sqrt(np.square(x_nd).mean(axis=0))[spread_d > 0.0]
    return bool(sizes.size) and float(sizes.max()) > MOST_UNLIKE * float(spread_d[spread_d > 0.0].min())


def encode_rows(encoder: Encoder, features: Features, table: OutcomeTable, tasks: Sequence[str]) -> EncodedRows:
    """All rows of ``table``, of which ``tasks`` are the tasks that are known. Raises ``FieldError``."""
    x_nd, tokens_n = _encode(encoder, features, table)
    number_by_task = {task: number for number, task in enumerate(tasks)}
    task_n = np.array([number_by_task.get(task, -1) for task in table.tasks], dtype=np.intp)
    z_np = x_nd.copy()
    if features.kind == "x":
        numbers = len(encoder.schema.numbers)
        z_np[:, slice(0, numbers) if numbers else encoder.content] = table.x_nd
    if features.bucket == "task":  # rivals have no buckets, and are told the task as a feature
        z_np = np.hstack([(task_n[:, None] == np.arange(len(tasks))).astype(np.float64), z_np])
    buckets = tuple(features.bucket_of(task) for task in task_n.tolist())
    return EncodedRows(x_nd, tokens_n, buckets, task_n, z_np)


def _encode(encoder: Encoder, features: Features, table: OutcomeTable) -> tuple[Array, Ints]:
    """The features (n, d) and input tokens (n) of all prompts."""
    encoded_nd = np.empty((len(table), encoder.dim))
    x_nd = table.x_nd if features.kind == "x" else None
    names = [number.name for number in encoder.schema.numbers]
    tokens_n = np.empty(len(table), dtype=np.int64)
    for i in range(len(table)):
        tokens = int(table.input_tokens_n[i])
        context = Context(
            categories={"task": table.tasks[i]} if features.bucket == "one" else {},
            numbers={} if x_nd is None or not names else dict(zip(names, x_nd[i].tolist(), strict=True)),
            embeddings={} if x_nd is None or names else {"x": x_nd[i]},
            text=None if features.kind != "text" or table.texts is None else table.texts[i],
            input_tokens=None if tokens < 0 else tokens,
        )
        encoded = encoder.encode(context)
        encoded_nd[i], tokens_n[i] = encoded.x_d, encoded.input_tokens
    return encoded_nd, tokens_n
