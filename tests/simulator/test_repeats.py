"""Rows that stand twice are noticed, and the gate does not count them twice; rows that are alike by chance are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from pointsman.simulator.offpolicy.commands import evaluate_command
from pointsman.simulator.offpolicy.evaluation.repeats import repeats_in
from pointsman.simulator.offpolicy.logs.log import LogError
from pointsman.simulator.offpolicy.logs.read import read_log

KINDS = (
    "few kinds of rows",
    "propensities that change",
    "graded outcomes",
    "prompts that come again",
    "features",
    "seconds",
)


def log_of(kind: str, n: int = 3000, seed: int = 0) -> pd.DataFrame:
    """An honest log of two models."""
    rng = np.random.default_rng([seed, len(kind)])
    p_n = rng.uniform(0.3, 0.7, n) if kind == "propensities that change" else np.full(n, 0.5)
    chosen_n = (rng.random(n) > p_n).astype(np.intp)
    frame = pd.DataFrame(
        {
            "model": [f"m{i}" for i in chosen_n],
            "propensity": np.where(chosen_n == 0, p_n, 1.0 - p_n),
            "p/m0": p_n,
            "p/m1": 1.0 - p_n,
            "quality": (rng.random(n) < 0.7).astype(np.float64),
        }
    )
    if kind == "graded outcomes":
        frame["quality"] = rng.random(n)
    elif kind == "prompts that come again":  # each with one answer a model
        prompt_n = rng.integers(0, 2000, n)
        frame["quality"] = np.random.default_rng(9).random((2000, 2))[prompt_n, chosen_n]
    elif kind == "features":
        frame["x/0"] = rng.normal(size=n)
    elif kind == "seconds":
        frame["time_ns"] = (np.cumsum(rng.exponential(0.7, n)).astype(np.int64)) * 10**9
    return frame


def doubled(frame: pd.DataFrame, how: str, seed: int = 0) -> pd.DataFrame:
    if how == "one after the other":
        return frame.iloc[np.repeat(np.arange(len(frame)), 2)]
    if how == "sent again":  # a third of the file, as a block
        return pd.concat([frame, frame.iloc[len(frame) // 3 : 2 * len(frame) // 3]])
    twice = pd.concat([frame, frame])
    return twice.sample(frac=1.0, random_state=seed) if how == "shuffled" else twice


def read(folder: Path, frame: pd.DataFrame) -> Path:
    path = folder / "log.csv"
    (frame.sort_values("time_ns", kind="stable") if "time_ns" in frame else frame).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_honest_logs_are_left_alone(tmp_path: Path, kind: str, seed: int) -> None:
    assert not repeats_in(read_log(str(read(tmp_path, log_of(kind, seed=seed))))).is_beyond_chance


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["joined to itself", "one after the other", "sent again", "shuffled"])
def test_rows_that_stand_twice_are_found(tmp_path: Path, kind: str, how: str) -> None:
    if kind == "few kinds of rows" and how == "shuffled":
        return  # nothing tells them from others
    log = read_log(str(read(tmp_path, doubled(log_of(kind), how))))
    found = repeats_in(log)
    assert found.is_beyond_chance and found.rows >= 1000 - 1


def test_a_few_rows_of_one_time_that_stand_twice_are_found(tmp_path: Path) -> None:
    frame = log_of("seconds").assign(cost=np.random.default_rng(3).random(3000))
    again = pd.concat([frame, frame.iloc[::300]])
    found = repeats_in(read_log(str(read(tmp_path, again))))
    assert found.rows == 10 and found.is_beyond_chance


def call(log: Path, folder: Path) -> Result:
    candidate = folder / "m1.yaml"
    candidate.write_text("policy: fixed\nmodel: m1\n")
    require = "lower(quality) >= 0.5 * logged(quality)"
    args = [
        "--log",
        str(log),
        "--candidate",
        str(candidate),
        "--estimators",
        "dr",
        "--range",
        "quality=0,1",
        "--require",
        require,
    ]
    return CliRunner().invoke(evaluate_command, [*args, "--require", require])


def test_the_gate_does_not_count_rows_twice(tmp_path: Path) -> None:
    frame = log_of("graded outcomes")
    done = call(read(tmp_path, frame), tmp_path)
    assert (
        done.exit_code == 0
        and "yes  every decision is there once: no more rows are alike than by chance" in done.output
    )
    done = call(read(tmp_path, doubled(frame, "joined to itself")), tmp_path)
    assert done.exit_code == 1
    assert "NO   every decision is there once: 3000 of 6000 rows stand there before, word for word" in done.output


def test_a_few_rows_are_told_though_they_may_be_others(tmp_path: Path) -> None:
    frame = log_of("graded outcomes")
    done = call(read(tmp_path, pd.concat([frame, frame.iloc[:7]])), tmp_path)
    assert done.exit_code == 0 and "7 of 3007 rows stand there before, word for word" in done.output


def test_with_ids_equal_rows_are_different_decisions(tmp_path: Path) -> None:
    frame = doubled(log_of("graded outcomes"), "joined to itself")
    frame["decision"] = [f"decisions/{i}" for i in range(len(frame))]
    done = call(read(tmp_path, frame), tmp_path)
    assert done.exit_code == 0 and "yes  every decision is there once: each has an id of its own" in done.output


@pytest.mark.parametrize("rows", [(100, 2100), (0, 1)])
def test_an_id_that_is_there_twice_is_refused(tmp_path: Path, rows: tuple[int, int]) -> None:
    """Also where the rows differ: one row a decision."""
    frame = log_of("graded outcomes")
    frame["decision"] = [f"d{i}" for i in range(len(frame))]
    frame.loc[rows[1], "decision"] = f"d{rows[0]}"
    path = read(tmp_path, frame)
    with pytest.raises(
        LogError, match=rf"row {rows[1] + 1}, column decision: .* in row {rows[0] + 1} already \(1 such rows\)"
    ):
        read_log(str(path))
    with pytest.raises(LogError, match="column decision"):
        read_log(str(path), 0, 50)
    assert call(path, tmp_path).exit_code == 2
