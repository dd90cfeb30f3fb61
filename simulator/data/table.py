"""The outcome table: the outcome of every model on every prompt, as one immutable value.

One row a prompt. Columns: ``prompt_id``, ``task``, optional ``prompt`` (text) and ``input_tokens``, optional features
``x/0`` … ``x/n``, and per model ``quality/<model>``, optional ``cost/<model>`` (dollars), ``latency/<model>`` (seconds),
``output_tokens/<model>``. A model's name may contain slashes. Other columns are ignored. Quality must be there in every
row; cells of the optional columns may be empty.

>>> table = from_columns("two.csv", "", {"prompt_id": ["a", "b"], "task": ["chat", "chat"], "quality/small": [0.5, 1.0]})
>>> table.models, table.quality_nk.tolist()
(('small',), [[0.5], [1.0]])
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pointsman.bandit.catalog import check_id
from pointsman.bandit.errors import FieldError
from pointsman.bandit.outcome import MAX_COST, MAX_LATENCY
from pointsman.simulator.data.frames import SUFFIXES, FrameError, frames

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Columns = dict[str, list[object]]
"""Cells by column, in the order of the file; ``None`` is an empty cell."""

PACKAGED = ("val", "test_holdout")
"""The data sets of the package ``paretobandit``: ``paretobandit:val``, ``paretobandit:test_holdout``."""
MAX_TASK = 256
"""Longest name of a task, in characters."""
_LIMITS = {
    "quality": (-math.inf, math.inf),
    "cost": (0.0, MAX_COST),
    "latency": (0.0, MAX_LATENCY),
    "output_tokens": (0.0, 2.0**53),
}


class TableError(ValueError):
    """A table's content is not acceptable; says file, row and column."""


class UnknownTableError(TableError):
    """A table's name is not that of a file or data set that can be read."""


@dataclass(frozen=True, slots=True, eq=False)
class OutcomeTable:
    """Full-information data of n prompts and k models. Arrays are read-only; NaN marks an empty cell.

    ``texts`` and ``x_nd`` are ``None`` without such columns; ``input_tokens_n`` is -1 where unknown; quality is in the
    table's own units, cost in dollars, latency in seconds. ``sha256`` is that of the file.
    """

    name: str
    sha256: str
    models: tuple[str, ...]
    prompt_ids: tuple[str, ...]
    tasks: tuple[str, ...]
    texts: tuple[str, ...] | None
    x_nd: Array | None
    input_tokens_n: Ints
    quality_nk: Array
    cost_nk: Array
    latency_nk: Array
    output_tokens_nk: Array

    def __post_init__(self) -> None:
        for array in (self.x_nd, self.input_tokens_n, self.quality_nk, self.cost_nk, self.latency_nk):
            if array is not None:
                array.flags.writeable = False
        self.output_tokens_nk.flags.writeable = False

    def __len__(self) -> int:
        """n, the number of prompts."""
        return len(self.prompt_ids)

    def take(self, rows: Sequence[int] | npt.NDArray[np.intp], name: str) -> OutcomeTable:
        """The table of some rows, in the order given."""
        index = np.asarray(rows, dtype=np.intp)
        return OutcomeTable(
            name=name,
            sha256=self.sha256,
            models=self.models,
            prompt_ids=tuple(self.prompt_ids[i] for i in index),
            tasks=tuple(self.tasks[i] for i in index),
            texts=None if self.texts is None else tuple(self.texts[i] for i in index),
            x_nd=None if self.x_nd is None else self.x_nd[index],
            input_tokens_n=self.input_tokens_n[index],
            quality_nk=self.quality_nk[index],
            cost_nk=self.cost_nk[index],
            latency_nk=self.latency_nk[index],
            output_tokens_nk=self.output_tokens_nk[index],
        )


def load_table(name: str) -> OutcomeTable:
    """Read ``FILE.csv``, ``FILE.jsonl``, ``FILE.parquet``, ``paretobandit:val`` or ``paretobandit:test_holdout``.

    Raises ``UnknownTableError`` if there is no such file, data set or format, and ``TableError`` if the content is wrong.
    """
    package, colon, dataset = name.partition(":")
    if colon and package == "paretobandit":
        content = _content(name, _packaged(dataset))
        return from_columns(name, hashlib.sha256(content).hexdigest(), _read_paretobandit(name, content))
    path = Path(name)
    if path.suffix.lower() not in SUFFIXES:
        raise UnknownTableError(f"{name}: expected a file that ends in .csv, .jsonl or .parquet")
    content = _content(name, path)
    try:
        frame = next(frames(path))
    except FrameError as error:
        raise TableError(str(error)) from None
    return from_columns(name, hashlib.sha256(content).hexdigest(), columns_of(frame, path))


def _content(name: str, path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnknownTableError(f"{name}: cannot be read: {error.strerror}") from None
    if not content.strip():
        raise TableError(f"{name}: expected at least one row, got an empty file")
    return content


def with_features(table: OutcomeTable, spec: str) -> OutcomeTable:
    """``table`` with features from ``FILE.npz:ARRAY``, an array (n, d) of rows in the order of the table.

    If the file has a text ``ARRAY_sha256`` too, it must be the table's. Raises ``TableError``, ``UnknownTableError``.
    """
    file, colon, array = spec.rpartition(":")
    if not (colon and file and array):
        raise UnknownTableError(f"expected FILE.npz:ARRAY, got {spec!r}")
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in (array, f"{array}_sha256") if key in archive}
    except (OSError, ValueError, AttributeError) as error:
        raise UnknownTableError(f"{file}: cannot be read as .npz: {error}") from None
    if array not in arrays:
        raise UnknownTableError(f"{file}: has no array {array!r}")
    x_nd = arrays[array]
    if x_nd.ndim != 2 or x_nd.dtype.kind not in "fiu" or len(x_nd) != len(table) or not x_nd.shape[1]:
        raise TableError(
            f"{spec}: expected numbers of shape ({len(table)}, d) for {table.name}, got {x_nd.dtype} {x_nd.shape}"
        )
    bad = np.argwhere(~np.isfinite(x_nd))
    if bad.size:
        raise TableError(f"{spec}: row {bad[0][0] + 1}, column {bad[0][1]}: expected a finite number")
    made_for = str(arrays.get(f"{array}_sha256", table.sha256))
    if made_for != table.sha256:
        raise TableError(f"{spec}: was made for the file with sha256 {made_for}; {table.name} has {table.sha256}")
    return replace(table, x_nd=x_nd.astype(np.float64))


def _packaged(dataset: str) -> Path:
    if dataset not in PACKAGED:
        raise UnknownTableError(f"paretobandit:{dataset}: expected paretobandit:val or paretobandit:test_holdout")
    spec = importlib.util.find_spec("pareto_bandit")  # finds it without importing what it imports
    if spec is None or not spec.submodule_search_locations:
        raise TableError(
            f"paretobandit:{dataset}: needs the package paretobandit: pip install 'pointsman[demo]'",
        )
    return Path(spec.submodule_search_locations[0], "data", "examples", f"{dataset}.jsonl")


def columns_of(frame: pd.DataFrame, path: Path) -> Columns:
    """A piece of the file ``path`` as cells by column, ``None`` where empty."""
    columns: Columns = {}
    text = path.suffix.lower() == ".csv"  # where all is text, what is a number is decided here
    for title in map(str, frame.columns):
        series = frame[title]
        if series.dtype == object or isinstance(series.dtype, pd.StringDtype):
            cells = series.tolist()
            if path.suffix.lower() == ".parquet":  # which has NaN for nothing; in JSON it is a cell, and a wrong one
                cells = [None if cell is None or cell != cell else cell for cell in cells]
            columns[title] = [_from_text(title, cell) if text else cell for cell in cells]
        else:
            columns[title] = [
                None if empty else cell for cell, empty in zip(series.tolist(), series.isna().tolist(), strict=True)
            ]
    return columns


def _from_text(title: str, text: str | None) -> object:
    """A cell of a CSV file: a number where the column holds numbers and the text is one."""
    if not text:
        return None
    if title == "input_tokens" or title.startswith(("x/", *(f"{kind}/" for kind in _LIMITS))):
        try:
            return float(text)
        except ValueError:
            return text  # refused later, with its row and column
    return text


def _read_paretobandit(name: str, content: bytes) -> Columns:
    objects = _json_lines(name, content)
    dataset = name.partition(":")[2]
    columns: Columns = {"prompt_id": [f"{dataset}/{i}" for i in range(len(objects))], "task": [], "prompt": []}
    try:
        models = list(objects[0]["arms"])
        for model in models:
            columns[f"quality/{model}"], columns[f"cost/{model}"] = [], []
        for prompt in objects:
            columns["task"].append(prompt["source"])
            columns["prompt"].append(prompt["prompt"])
            for model in models:
                columns[f"quality/{model}"].append(prompt["arms"][model]["reward"])
                columns[f"cost/{model}"].append(prompt["arms"][model]["cost"])
    except (KeyError, TypeError) as error:
        raise TableError(f"{name}: not the data of paretobandit 0.1.1: {error!r} is missing") from None
    return columns


def _json_lines(name: str, content: bytes) -> list[dict[str, Any]]:
    try:
        # not splitlines(): prompts hold other separators
        return [json.loads(line) for line in content.decode("utf-8").split("\n") if line.strip()]
    except ValueError as error:
        raise TableError(f"{name}: not the data of paretobandit 0.1.1: {error}") from None


def from_columns(name: str, sha256: str, columns: Columns, first: int = 0) -> OutcomeTable:
    """The columns as a checked value; ``first`` is the number of rows before them in the file. Raises ``TableError``."""
    for title in ("prompt_id", "task"):
        if title not in columns:
            raise TableError(f"{name}: has no column {title}; columns are {', '.join(list(columns)[:12])}")
    if not columns["prompt_id"]:
        raise TableError(f"{name}: expected at least one row, got none")
    models = _models(name, columns)
    prompt_ids = _strings(name, columns, "prompt_id", (), first)
    row_by_prompt: dict[str, int] = {}
    for i, prompt_id in enumerate(prompt_ids):
        if prompt_id in row_by_prompt:
            raise TableError(
                f"{name}: row {first + i + 1}, column prompt_id: {prompt_id!r} is in row "
                f"{first + row_by_prompt[prompt_id] + 1} already"
            )
        row_by_prompt[prompt_id] = i
    tasks = _strings(name, columns, "task", prompt_ids, first)
    for i, task in enumerate(tasks):
        if len(task) > MAX_TASK:
            raise TableError(
                f"{name}: {_row(i, prompt_ids, first)}, column task: expected at most {MAX_TASK} characters"
            )
    tokens_n = np.full(len(prompt_ids), -1, dtype=np.int64)
    if "input_tokens" in columns:
        cells = _numbers(name, columns, "input_tokens", prompt_ids, 0.0, 2.0**40, first)
        for i in np.flatnonzero(~np.isnan(cells)).tolist():
            if cells[i] != int(cells[i]):
                raise TableError(
                    f"{name}: {_row(i, prompt_ids, first)}, column input_tokens: expected a whole number, got {cells[i]:g}"
                )
            tokens_n[i] = int(cells[i])
    texts = None
    if "prompt" in columns:
        texts = _strings(name, columns, "prompt", prompt_ids, first, empty=True)

    def of_models(kind: str) -> Array:
        low, high = _LIMITS[kind]
        cells = [
            _numbers(name, columns, f"{kind}/{model}", prompt_ids, low, high, first, needed=kind == "quality")
            if f"{kind}/{model}" in columns
            else np.full(len(prompt_ids), np.nan)
            for model in models
        ]
        return np.column_stack(cells)

    return OutcomeTable(
        name=name,
        sha256=sha256,
        models=models,
        prompt_ids=prompt_ids,
        tasks=tasks,
        texts=texts,
        x_nd=_features(name, columns, prompt_ids, first),
        input_tokens_n=tokens_n,
        quality_nk=of_models("quality"),
        cost_nk=of_models("cost"),
        latency_nk=of_models("latency"),
        output_tokens_nk=of_models("output_tokens"),
    )


def _models(name: str, columns: Mapping[str, object]) -> tuple[str, ...]:
    models = tuple(title.removeprefix("quality/") for title in columns if title.startswith("quality/"))
    if not models:
        raise TableError(f"{name}: has no column quality/<model>; columns are {', '.join(list(columns)[:12])}")
    for model in models:
        try:
            check_id(model, f"column quality/{model[:140]}")
        except FieldError as error:
            raise TableError(f"{name}: {error}") from None
    for kind in ("cost", "latency", "output_tokens"):
        for title in columns:
            if title.startswith(f"{kind}/") and title.removeprefix(f"{kind}/") not in models:
                raise TableError(f"{name}: has a column {title} but no quality/{title.removeprefix(f'{kind}/')}")
    return models


def _features(name: str, columns: Columns, prompt_ids: tuple[str, ...], first: int) -> Array | None:
    titles = [title for title in columns if title.startswith("x/")]
    if not titles:
        return None
    expected = [f"x/{i}" for i in range(len(titles))]
    for title in expected:
        if title not in columns:
            raise TableError(f"{name}: has {len(titles)} columns x/…, but no column {title}")
    return np.column_stack(
        [_numbers(name, columns, title, prompt_ids, -math.inf, math.inf, first, needed=True) for title in expected]
    )


def _strings(
    name: str, columns: Columns, title: str, prompt_ids: tuple[str, ...], first: int, *, empty: bool = False
) -> tuple[str, ...]:
    values = []
    for i, cell in enumerate(columns[title]):
        if cell is None and empty:
            cell = ""
        if isinstance(cell, int) and not isinstance(cell, bool):
            cell = str(cell)
        if not isinstance(cell, str) or not (cell or empty):
            raise TableError(
                f"{name}: {_row(i, prompt_ids, first)}, column {title}: expected a text, got {_show(cell)}"
            )
        values.append(cell)
    return tuple(values)


def _numbers(
    name: str,
    columns: Columns,
    title: str,
    prompt_ids: tuple[str, ...],
    low: float,
    high: float,
    first: int,
    *,
    needed: bool = False,
) -> Array:
    """One column as numbers from ``low`` to ``high``; NaN where empty, which is refused if ``needed``."""
    values_n = np.empty(len(prompt_ids))
    for i, cell in enumerate(columns[title]):
        if cell is None and not needed:
            values_n[i] = np.nan
            continue
        value = _number(cell)
        if value is None or not (math.isfinite(value) and low <= value <= high):
            bounds = f" from {low:g} to {high:g}" if math.isfinite(low) else ""
            raise TableError(
                f"{name}: {_row(i, prompt_ids, first)}, column {title}: expected a finite number{bounds}, got {_show(cell)}"
            )
        values_n[i] = value
    return values_n


def _number(cell: object) -> float | None:
    if isinstance(cell, bool):
        return None
    if isinstance(cell, (int, float)):
        try:
            return float(cell)
        except OverflowError:  # an integer of more than 308 digits
            return None
    return None


def _row(i: int, prompt_ids: tuple[str, ...], first: int) -> str:
    return f"row {first + i + 1} ({prompt_ids[i][:80]!r})" if prompt_ids else f"row {first + i + 1}"


def _show(cell: object) -> str:
    return "nothing" if cell is None else repr(cell)[:80]
