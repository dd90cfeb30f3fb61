"""Logs by name: the one place that knows which reader a file is for."""

from __future__ import annotations

import json
from pathlib import Path

from simulator.offpolicy.log import Log, LogError
from simulator.offpolicy.read_journal import Journal, read_journal
from simulator.offpolicy.read_obd import read_obd
from simulator.offpolicy.read_table import read_table

FORMS = (
    "the journal's export (FILE.jsonl), a table of decisions (FILE.csv, .jsonl, .parquet), the Open Bandit Dataset "
    "(obd:FOLDER:POLICY/CAMPAIGN, or obp:POLICY/CAMPAIGN from the package obp)"
)


def read_log(spec: str) -> Log | Journal:
    """A log, in any of ``FORMS``. Raises ``LogError``."""
    if spec.startswith(("obp:", "obd:")):
        return read_obd(spec)
    path = Path(spec)
    if path.suffix.lower() not in (".csv", ".jsonl", ".parquet"):
        raise LogError(f"{spec}: expected {FORMS}")
    return read_journal(path) if path.suffix.lower() == ".jsonl" and _is_journal(path) else read_table(path)


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
