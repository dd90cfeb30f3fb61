"""Logs by name: the one place that knows which reader a file is for."""

from __future__ import annotations

from pathlib import Path

from simulator.offpolicy.log import Log, LogError
from simulator.offpolicy.read_journal import Journal, read_journal


def read_log(spec: str) -> Log | Journal:
    """A log: FILE.jsonl is the journal's export. Raises ``LogError``."""
    path = Path(spec)
    if path.suffix != ".jsonl":
        raise LogError(f"{spec}: expected FILE.jsonl, the journal's export")
    return read_journal(path)
