"""Outcome tables that are larger than memory, piece by piece, with the checks of ``simulator.table``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from simulator.frames import FrameError, frames
from simulator.table import OutcomeTable, TableError, UnknownTableError, columns_of, from_columns

PIECE = 20_000
"""Rows of a piece."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What has to be known of a whole file before its first round: rows, models, and tasks in alphabetical order."""

    rows: int
    models: tuple[str, ...]
    tasks: tuple[str, ...]


def pieces(path: Path, rows: int = PIECE) -> Iterator[OutcomeTable]:
    """The table of a file (CSV, JSON Lines, Parquet), ``rows`` rows at a time.

    Raises ``TableError`` naming the file's row and column. That a prompt_id is there twice is seen within a piece only.
    """
    first, titles = 0, None
    try:
        for frame in frames(path, rows):
            columns = columns_of(frame, path)
            if titles is None:
                titles = list(columns)
            for title in titles:  # a line of JSON may leave out what is empty
                columns.setdefault(title, [None] * len(frame))
            yield from_columns(str(path), "", columns, first)
            first += len(frame)
    except FrameError as error:
        raise (UnknownTableError if not path.is_file() else TableError)(str(error)) from None


def extent(path: Path, rows: int = PIECE) -> Extent:
    """Read a file once, checking all of it. Raises ``TableError``."""
    count, tasks = 0, set[str]()
    models: tuple[str, ...] = ()
    for piece in pieces(path, rows):
        models = models or piece.models
        if piece.models != models:
            raise TableError(
                f"{path}: rows {count + 1} to {count + len(piece)}: expected the models {', '.join(models)}"
            )
        count += len(piece)
        tasks.update(piece.tasks)
    return Extent(count, models, tuple(sorted(tasks)))
