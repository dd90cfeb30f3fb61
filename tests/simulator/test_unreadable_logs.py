"""A log that cannot be read, for whatever reason, exits with 2: 1 is the verdict that something is not shown."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from pointsman.simulator.cli.simulate import simulate
from pointsman.simulator.offpolicy import commands
from pointsman.simulator.offpolicy.commands import evaluate_command

HEAD = "model,propensity,quality\n"
ROW = '{"model": "a", "propensity": 0.5, "quality": 1}\n'


def parquet(change: Callable[[bytes], bytes] = lambda content: content, **columns: list[object]) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame({"model": ["a", "b"], "propensity": [0.5, 0.5], "quality": [1, 0]} | columns).to_parquet(buffer)
    return change(buffer.getvalue())


UNREADABLE: dict[str, bytes | str] = {
    "no-form.txt": HEAD + "a,0.5,1\n",
    "empty.csv": "",
    "empty.jsonl": "",
    "empty.parquet": b"",
    "blank.csv": "\n\n\n",
    "header-only.csv": HEAD,
    "binary.csv": bytes(range(256)) * 20,
    "binary.jsonl": bytes(range(256)) * 20,
    "zeros.csv": b"\0" * 100,
    "latin1.csv": (HEAD + "mod\xe9le,0.5,1\n").encode("latin-1"),
    "text.parquet": "hello",
    "truncated.parquet": parquet(lambda content: content[: len(content) // 2]),
    "damaged.parquet": parquet(lambda content: content[:60] + b"\xff" * 40 + content[100:]),
    "nested.parquet": parquet(model=[["a"], ["b"]]),
    "truncated.csv": HEAD + "a,0.5,1\nb,0.",
    "truncated.jsonl": ROW + '{"model": "b", "prop',
    "ragged.csv": HEAD + "a,0.5,1,9,9\n",
    "open-quote.csv": HEAD + '"a,0.5,1\nb,0.5,1\n',
    "array.jsonl": "[1, 2]\n",
    "deep.jsonl": "[" * 100_000 + "\n",
    "no-propensity.csv": "model,quality\na,1\n",
    "no-model.csv": "propensity,quality\n0.5,1\n",
    "no-outcome.csv": "model,propensity\na,1\n",
    "out-of-range.csv": HEAD + "a,2,1\n",
    "huge.jsonl": '{"model": "a", "propensity": 0.5, "quality": 1e999}\n',
    "time.csv": "model,propensity,quality,time_ns\na,0.5,1,1e30\n",
    "journal.jsonl": '{"position": "1", "event": {"time_ns": "5", "decision_made": {}}}\n',
    "half-a-journal.jsonl": '{"position": "1", "event": {"time_ns": "5", "decision_ma',
}


def both(log: Path | str, folder: Path, *more: str) -> list[Result]:
    candidate = folder / "candidate.yaml"
    candidate.write_text("policy: fixed\nmodel: a\n")
    evaluated = ["--log", str(log), "--candidate", str(candidate), "--require", "lower(quality) >= 0", *more]
    simulated = ["--log", str(log), "--policy", "uniform", "--seeds", "1"]
    return [CliRunner().invoke(evaluate_command, evaluated), CliRunner().invoke(simulate, simulated)]


@pytest.mark.parametrize("name", UNREADABLE)
def test_it_exits_2_and_names_the_file(tmp_path: Path, name: str) -> None:
    path, content = tmp_path / name, UNREADABLE[name]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for done in both(path, tmp_path):
        assert done.exit_code == 2, done.output
        assert isinstance(done.exception, SystemExit) and name in done.output


@pytest.mark.parametrize(
    "name", ["none.csv", "none.jsonl", "none.parquet", "obd:nowhere:random/all", "obd:x", "", "\0.csv"]
)
def test_what_is_not_there_exits_2(tmp_path: Path, name: str) -> None:
    log = tmp_path / name if name.startswith("none") else name
    for done in both(log, tmp_path):
        assert done.exit_code == 2 and isinstance(done.exception, SystemExit), done.output


@pytest.mark.parametrize("name", ["folder.csv", "folder.jsonl", "folder.parquet"])
def test_a_folder_exits_2(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    for done in both(tmp_path / name, tmp_path):
        assert done.exit_code == 2 and name in done.output


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), MemoryError()])
def test_a_log_that_may_not_be_read_exits_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(commands, "read_log", refuse)
    done = both(tmp_path / "log.csv", tmp_path)[0]
    assert done.exit_code == 2 and "log.csv: cannot be evaluated" in done.output


def test_a_part_that_is_not_there_exits_2(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEAD + "a,0.5,1\nb,0.5,0\n")
    assert both(path, tmp_path, "--decisions", "2:")[0].exit_code == 2
    assert both(path, tmp_path, "--decisions", ":2")[0].exit_code == 1, "read, and not shown"
