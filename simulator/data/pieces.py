"""Outcome tables that are larger than memory, piece by piece, with the checks of ``simulator.data.table``.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     path = Path(folder, "t.csv")
...     _ = path.write_text("prompt_id,task,quality/small\\np1,chat,0.5\\np2,maths,0.25\\np3,chat,1\\n")
...     sizes, whole = [len(piece) for piece in pieces(path, rows=2)], extent(path)
>>> sizes, whole.tasks, whole.lowest[0]
([2, 1], ('chat', 'maths'), 0.25)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pointsman.simulator.data.frames import FrameError, frames
from pointsman.simulator.data.table import OutcomeTable, TableError, UnknownTableError, columns_of, from_columns

PIECE = 20_000
"""Rows of a piece."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What has to be known of a whole file before its first round.

    ``tasks`` are in alphabetical order; ``lowest`` and ``highest`` are the extreme qualities and where they are; ``empty`` says
    where the first empty cell of ``cost`` and of ``latency`` is, if there is one; ``costs`` whether any cost is known at all.
    """

    name: str
    rows: int
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    lowest: tuple[float, str]
    highest: tuple[float, str]
    empty: Mapping[str, str]
    costs: bool


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
            # nor need its cells be in the order of the first piece, which is that of the models
            columns = {title: columns[title] for title in titles} | columns
            yield from_columns(str(path), "", columns, first)
            first += len(frame)
    except FrameError as error:
        raise (UnknownTableError if not path.is_file() else TableError)(str(error)) from None


def extent(path: Path, rows: int = PIECE) -> Extent:
    """Read a file once, checking all of it. Raises ``TableError``."""
    count, tasks, costs = 0, set[str](), False
    models: tuple[str, ...] = ()
    lowest, highest = (math.inf, ""), (-math.inf, "")
    empty: dict[str, str] = {}
    for piece in pieces(path, rows):
        models = models or piece.models
        if piece.models != models:
            raise TableError(
                f"{path}: rows {count + 1} to {count + len(piece)}: expected the models {', '.join(models)}"
            )
        quality_nk = piece.quality_nk
        if quality_nk.min() < lowest[0]:
            lowest = float(quality_nk.min()), _place(piece, count, "quality", int(quality_nk.argmin()))
        if quality_nk.max() > highest[0]:
            highest = float(quality_nk.max()), _place(piece, count, "quality", int(quality_nk.argmax()))
        for kind, cells_nk in (("cost", piece.cost_nk), ("latency", piece.latency_nk)):
            empty_nk = np.isnan(cells_nk)
            if kind not in empty and empty_nk.any():
                empty[kind] = _place(piece, count, kind, int(empty_nk.argmax()))
        costs = costs or not np.isnan(piece.cost_nk).all()
        count += len(piece)
        tasks.update(piece.tasks)
    return Extent(str(path), count, models, tuple(sorted(tasks)), lowest, highest, empty, costs)


def _place(piece: OutcomeTable, before: int, kind: str, cell: int) -> str:
    """Where in the file a cell is, by its number in the piece, which has ``before`` rows before it."""
    row, model = divmod(cell, len(piece.models))
    return f"row {before + row + 1} ({piece.prompt_ids[row]!r}), column {kind}/{piece.models[model]}"
