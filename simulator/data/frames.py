"""Files of columns (CSV, JSON Lines, Parquet) read whole or in pieces, and their cells checked, column by column.

>>> frame = pd.DataFrame({"cost": ["0.5", ""]})
>>> numbers("log.csv", frame, "cost", 0, low=0.0, needed=False).tolist()
[0.5, nan]
>>> numbers("log.csv", frame, "cost", 0, low=0.0)
Traceback (most recent call last):
    ...
pointsman.simulator.data.frames.FrameError: log.csv: row 2, column cost: expected a finite number from 0, got nothing
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet

Array = npt.NDArray[np.float64]
SUFFIXES = (".csv", ".jsonl", ".parquet")


class FrameError(ValueError):
    """A file's content is not acceptable; says file, row and column."""


def frames(path: Path, rows: int | None = None) -> Iterator[pd.DataFrame]:
    """Pieces of at most ``rows`` rows of a file, in order; one piece of all without ``rows``. At least one is given.

    Cells are what the file holds: of CSV all text, "" where empty. Raises ``FrameError``.
    """
    readers = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise FrameError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
    try:
        yield from readers[path.suffix.lower()](path, rows)
    except OSError as error:
        raise FrameError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise FrameError(f"{path}: expected UTF-8: {error}") from None


def _csv(path: Path, rows: int | None) -> Iterator[pd.DataFrame]:
    with path.open(encoding="utf-8-sig") as file:
        titles = file.readline().rstrip("\r\n")
    if not titles:
        raise FrameError(f"{path}: expected columns in the first line, got nothing")
    # The first line is read as any other, so that a longer one below is an error, and not an index.
    settings = {"header": None, "dtype": str, "keep_default_na": False, "na_filter": False, "encoding": "utf-8-sig"}
    try:
        with pd.read_csv(path, iterator=True, **settings) as reader:  # type: ignore[call-overload]
            head = reader.get_chunk(1).iloc[0].tolist()
            twice = next((title for i, title in enumerate(head) if title in head[:i]), None)
            if twice is not None:
                raise FrameError(f"{path}: expected different columns, got {twice!r} twice")
            empty = True
            while True:
                try:
                    frame = reader.get_chunk(rows) if rows is not None else reader.read()
                except StopIteration:
                    break
                if len(frame):
                    yield frame.set_axis(head, axis=1)
                    empty = False
                if rows is None or not len(frame):
                    break
            if empty:
                yield pd.DataFrame(columns=head, dtype=str)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise FrameError(f"{path}: cannot be read as CSV: {str(error).strip()}") from None


def _jsonl(path: Path, rows: int | None) -> Iterator[pd.DataFrame]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        numbered = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
        any_yet = False
        while piece := list(itertools.islice(numbered, rows)):
            objects = []
            for number, line in piece:
                try:
                    cells = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise FrameError(f"{path}: line {number}: expected a JSON object: {error}") from None
                if not isinstance(cells, dict):
                    raise FrameError(f"{path}: line {number}: expected a JSON object, got {line.strip()[:80]}")
                objects.append(cells)
            titles = dict.fromkeys(title for cells in objects for title in cells)
            yield pd.DataFrame(
                {title: pd.Series([cells.get(title) for cells in objects], dtype=object) for title in titles}
            )
            any_yet = True
        if not any_yet:
            yield pd.DataFrame()


def _parquet(path: Path, rows: int | None) -> Iterator[pd.DataFrame]:
    try:
        # Without reading ahead, which keeps what was read until the end.
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            size = rows or max(file.metadata.num_rows, 1)
            empty = True
            for batch in file.iter_batches(batch_size=size):
                yield batch.to_pandas()
                empty = False
            if empty:
                yield file.schema_arrow.empty_table().to_pandas()
    except (pyarrow.ArrowException, ValueError) as error:
        if isinstance(error, FrameError):
            raise
        raise FrameError(f"{path}: cannot be read as Parquet: {str(error).strip()}") from None


def numbers(
    where: str,
    frame: pd.DataFrame,
    title: str,
    first: int,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: float = -math.inf,
    needed: bool = True,
) -> Array:
    """A column (n) of finite numbers from ``low`` to ``high``, greater than ``above``; NaN where empty, which is refused if
    ``needed``. ``first`` is the number of rows before this piece. Raises ``FrameError`` naming row and column.
    """
    column = frame[title]
    empty_n = column.isna().to_numpy() | (column == "").to_numpy(dtype=bool)
    # A boolean is no number, though Python takes it for one.
    boolean_n = np.zeros(len(column), dtype=bool)
    if column.dtype == object:
        boolean_n = np.fromiter((isinstance(cell, (bool, list, dict)) for cell in column), bool, len(column))
    elif column.dtype == bool:
        boolean_n = np.ones(len(column), dtype=bool)
    value_n = pd.to_numeric(column.where(~empty_n & ~boolean_n, np.nan), errors="coerce").to_numpy(dtype=np.float64)
    good_n = np.isfinite(value_n) & (value_n >= low) & (value_n <= high) & (value_n > above)
    bad_n = ~good_n & ~(empty_n & ~np.bool_(needed))
    if bad_n.any():
        i = int(bad_n.argmax())
        bounds = (f" above {above:g}" if above > -math.inf else "") + (
            f" from {low:g}" if low > -math.inf else ""
        ) + (f" to {high:g}" if high < math.inf else "")  # fmt: skip
        raise FrameError(
            f"{where}: row {first + i + 1}, column {title}: expected a finite number{bounds}, "
            f"got {'nothing' if empty_n[i] else repr(column.iloc[i])[:80]}"
        )
    return np.where(empty_n, np.nan, value_n)


def texts(where: str, frame: pd.DataFrame, title: str, first: int) -> list[str]:
    """A column of texts that are not empty (whole numbers are texts too). Raises ``FrameError`` naming row and column."""
    column = []
    for i, cell in enumerate(frame[title].tolist()):
        text = str(cell) if isinstance(cell, int) and not isinstance(cell, bool) else cell
        if not isinstance(text, str) or not text:
            shown = "nothing" if cell is None or cell == "" or cell != cell else repr(cell)[:80]
            raise FrameError(f"{where}: row {first + i + 1}, column {title}: expected a text, got {shown}")
        column.append(text)
    return column
