"""Logs by name: the one place that knows which reader a file is for.

>>> read_log("export.txt")
Traceback (most recent call last):
    ...
pointsman.simulator.offpolicy.logs.log.LogError: export.txt: expected the journal's export (FILE.jsonl), a table of decisions \
(FILE.csv, .jsonl, .parquet), the Open Bandit Dataset (obd:FOLDER:POLICY/CAMPAIGN, or obp:POLICY/CAMPAIGN from the package obp)
"""

from __future__ import annotations

import json
from pathlib import Path

from pointsman.simulator.offpolicy.logs.journal import read_journal
from pointsman.simulator.offpolicy.logs.log import Log, LogError, concatenate, part
from pointsman.simulator.offpolicy.logs.obd import read_obd
from pointsman.simulator.offpolicy.logs.table import read_pieces, read_table

FORMS = (
    "the journal's export (FILE.jsonl), a table of decisions (FILE.csv, .jsonl, .parquet), the Open Bandit Dataset "
    "(obd:FOLDER:POLICY/CAMPAIGN, or obp:POLICY/CAMPAIGN from the package obp)"
)
"""The logs that can be read, for help texts and errors."""


def read_log(spec: str, first: int = 0, last: int | None = None) -> Log:
    """The decisions ``first`` <= number < ``last``, counted from 0, of a log in any of ``FORMS``.

    Of a file, the others are never held in memory. Raises ``LogError``.
    """
    if spec.startswith(("obp:", "obd:")):
        log = read_obd(spec)
        return part(log, *_range(spec, first, last, len(log)))
    path = Path(spec)
    if "\0" in spec or path.suffix.lower() not in (".csv", ".jsonl", ".parquet"):
        raise LogError(f"{spec!r}: expected {FORMS}" if "\0" in spec else f"{spec}: expected {FORMS}")
    if path.suffix.lower() == ".jsonl" and _is_journal(path):
        return read_journal(path, first, last)
    if not first and last is None:
        return read_table(path)
    return _read_part(path, first, last)


def _read_part(path: Path, first: int, last: int | None) -> Log:
    """Some decisions of a table, read piece by piece. Raises ``LogError`` if there are none."""
    kept, count = [], 0
    for piece in read_pieces(path):
        start = max(first - count, 0)
        stop = len(piece) if last is None else min(last - count, len(piece))
        count += len(piece)
        if stop > start:
            kept.append(part(piece, start, stop))
        if last is not None and count >= last:
            break
    if not kept:
        _range(str(path), first, last, count)
    return concatenate(kept)


def _range(spec: str, first: int, last: int | None, n: int) -> tuple[int, int]:
    stop = n if last is None else min(last, n)
    if not first < stop:
        raise LogError(f"{spec}: expected decisions {first} to {'the end' if last is None else last}, it has {n}")
    return first, stop


def _is_journal(path: Path) -> bool:
    """Whether the first line is a record of the journal."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            record = json.loads(next((line for line in file if line.strip()), "null"))
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        return False  # the reader of tables says what is wrong with the line
    return isinstance(record, dict) and "event" in record
