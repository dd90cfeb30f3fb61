"""Logs by name: the one place that knows which reader a file is for."""

from __future__ import annotations

import json
from pathlib import Path

from pointsman.simulator.offpolicy.logs.journal import Journal, read_journal
from pointsman.simulator.offpolicy.logs.log import Log, LogError, joined, part
from pointsman.simulator.offpolicy.logs.obd import read_obd
from pointsman.simulator.offpolicy.logs.table import read_pieces, read_table

FORMS = (
    "the journal's export (FILE.jsonl), a table of decisions (FILE.csv, .jsonl, .parquet), the Open Bandit Dataset "
    "(obd:FOLDER:POLICY/CAMPAIGN, or obp:POLICY/CAMPAIGN from the package obp)"
)


def read_log(spec: str, first: int = 0, last: int | None = None) -> Log | Journal:
    """A log, in any of ``FORMS``: its decisions number ``first`` to before ``last``, counted from 0, of a file without holding
    the others in memory. Raises ``LogError``.
    """
    if spec.startswith(("obp:", "obd:")):
        log = read_obd(spec)
        return part(log, *_range(spec, first, last, len(log)))
    path = Path(spec)
    if path.suffix.lower() not in (".csv", ".jsonl", ".parquet"):
        raise LogError(f"{spec}: expected {FORMS}")
    if path.suffix.lower() == ".jsonl" and _is_journal(path):
        return read_journal(path, first, last)
    if not first and last is None:
        return read_table(path)
    pieces, seen = [], 0
    for piece in read_pieces(path):
        low, high = first - seen, len(piece) if last is None else min(last - seen, len(piece))
        seen += len(piece)
        if high > max(low, 0):
            pieces.append(part(piece, max(low, 0), high))
        if last is not None and seen >= last:
            break
    if not pieces:
        _range(spec, first, last, seen)
    return joined(pieces)


def _range(spec: str, first: int, last: int | None, n: int) -> tuple[int, int]:
    end = n if last is None else min(last, n)
    if not first < end:
        raise LogError(f"{spec}: expected decisions {first} to {'the end' if last is None else last}, it has {n}")
    return first, end


def _is_journal(path: Path) -> bool:
    """Whether the first line is a record of the journal."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = json.loads(next((line for line in file if line.strip()), "null"))
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError:
        return False  # the reader of tables says what is wrong with the line
    return isinstance(first, dict) and "event" in first
