"""Bounds rest on what a signal can be, not on what was seen; and factors of what can be negative are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from pointsman.simulator.offpolicy.commands import evaluate_command

N = 4000


def log_of(quality_nk: np.ndarray, seed: int = 0, **columns: object) -> pd.DataFrame:
    """An even draw of two models."""
    rng = np.random.default_rng(seed)
    chosen_n = rng.integers(0, 2, N)
    quality_n = quality_nk[np.arange(N), chosen_n]
    named = {"model": [f"m{i}" for i in chosen_n], "propensity": 0.5, "p/m0": 0.5, "p/m1": 0.5, "quality": quality_n}
    return pd.DataFrame(named | {"cost": 0.001 * (1.0 + chosen_n), "latency": 1.0 + rng.random(N)} | columns)


def call(folder: Path, frame: pd.DataFrame, require: str, *more: str, model: str = "m1") -> Result:
    log, candidate = folder / "log.csv", folder / "candidate.yaml"
    frame.to_csv(log, index=False)
    candidate.write_text(f"policy: fixed\nmodel: {model}\n")
    args = ["--log", str(log), "--candidate", str(candidate), "--estimators", "dr", "--require", require, *more]
    return CliRunner().invoke(evaluate_command, args)


def graded(seed: int = 0, gain: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed + 100)
    return np.column_stack([rng.uniform(0.4, 0.6, N), rng.uniform(0.4, 0.6, N) + gain])


@pytest.mark.parametrize(
    ("require", "signal"),
    [
        ("lower(quality) >= logged(quality)", "quality"),
        ("lower(quality) >= 0.4", "quality"),
        ("upper(quality) <= 0.9", "quality"),
        ("upper(cost) <= 3 * logged(cost)", "cost"),
        ("lower(cost) >= 0.0001", "cost"),
        ("upper(latency) <= 5", "latency"),
        ("lower(quality) - 20 * upper(cost) >= 0", "quality"),
        ("lower(quality) >= 0.4 and upper(cost) <= 3 * logged(cost)", "quality"),
        ("lower(worth) >= 0.1", "worth"),
    ],
)
def test_a_range_that_nobody_states_is_refused_with_what_to_do(tmp_path: Path, require: str, signal: str) -> None:
    done = call(tmp_path, log_of(graded()), require, "--signal", "worth=quality - 20 * cost", "--signal", "quality",
                "--signal", "cost", "--signal", "latency")  # fmt: skip
    assert done.exit_code == 2 and f"--range {signal}=LOW,HIGH" in done.output, done.output


@pytest.mark.parametrize(
    ("require", "more"),
    [
        ("lower(quality) >= logged(quality)", ("--range", "quality=0,1")),
        ("upper(cost) <= 3 * logged(cost)", ("--range", "cost=0,0.01")),
        ("upper(cost) <= 3 * logged(cost)", ("--cap", "cost=0.01")),
        ("lower(quality) - 20 * upper(cost) >= 0.4", ("--range", "quality=0,1", "--cap", "cost=0.005")),
        ("lower(worth) >= 0.4", ("--range", "worth=-0.2,1", "--signal", "worth=quality - 20 * cost")),
        (
            "lower(worth) >= 0.4",
            ("--range", "quality=0,1", "--cap", "cost=0.01", "--signal", "worth=quality - 20 * cost"),
        ),
        ("lower(success) >= 0.5", ()),
    ],
)
def test_a_range_that_is_known_is_enough(tmp_path: Path, require: str, more: tuple[str, ...]) -> None:
    done = call(tmp_path, log_of(graded(), success=np.ones(N, dtype=np.intp)), require, *more)
    assert done.exit_code == 0 and "PASSED: shown" in done.output, done.output


def test_a_clause_without_a_range_does_not_hide_what_fails(tmp_path: Path) -> None:
    """Where another clause decides, that is the verdict."""
    both = "lower(quality) >= 0.99 and upper(cost) <= 0.1 * logged(cost)"
    done = call(tmp_path, log_of(graded()), both, "--range", "quality=0,1")
    assert done.exit_code == 1 and "--range cost=LOW,HIGH" in done.output
    either = "lower(quality) >= 0.4 or upper(cost) <= 0.1 * logged(cost)"
    assert call(tmp_path, log_of(graded()), either, "--range", "quality=0,1").exit_code == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--range", "quality=0.6,1"), "--range quality: expected to reach from"),
        (("--range", "quality=0,0.5"), "--range quality: expected to reach from"),
        (("--range", "quality=1,0"), "--range: expected SIGNAL=LOW,HIGH"),
        (("--range", "quality=0"), "--range: expected SIGNAL=LOW,HIGH"),
        (("--range", "quality=0,inf"), "--range: expected SIGNAL=LOW,HIGH"),
        (("--range", "quality=0,1,2"), "--range: expected SIGNAL=LOW,HIGH"),
        (("--range", "speed=0,1"), "--range speed: expected a signal that the log has"),
        (("--range", "quality=0,1", "--cap", "quality=-1"), "--cap quality: expected above 0, got -1"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(tmp_path: Path, more: tuple[str, ...], message: str) -> None:
    done = call(tmp_path, log_of(graded()), "lower(quality) >= 0.4", *more)
    assert done.exit_code == 2 and message in done.output, done.output


def test_rare_catastrophes_are_not_promoted(tmp_path: Path) -> None:
    """m1 is better by .1 but for 0.3 % of calls, each worth -300: worse by .8 on average. Of some logs they are not in."""
    for seed in range(6):
        quality_nk = graded(seed)
        quality_nk[np.random.default_rng(seed).random(N) < 0.003, 1] = -300.0
        frame = log_of(quality_nk, seed)
        lucky = frame[frame.quality > -1.0]
        for log in (frame, lucky):
            assert call(tmp_path, log, "lower(quality) >= logged(quality)").exit_code == 2
            done = call(tmp_path, log, "lower(quality) >= logged(quality)", "--range", "quality=-300,1")
            assert done.exit_code == 1 and "NO   lower(quality)" in done.output, done.output


@pytest.mark.parametrize(
    "require",
    [
        "lower(quality) >= 1.1 * logged(quality)",
        "lower(quality) >= 0.98 * logged(quality)",
        "lower(quality) - 1.1 * logged(quality) >= 0",
        "2 * lower(quality) >= logged(quality)",
        "estimate(quality) >= 1.1 * logged(quality)",
        "upper(quality) <= 0.9 * logged(quality)",
        "lower(quality) >= 1.1 * logged(quality) and ess() > 1",
    ],
)
def test_a_factor_of_what_can_be_negative_is_refused(tmp_path: Path, require: str) -> None:
    """m1 is worse: -1.05 where the log has -1; 1.1 times that is -1.1, which it beats."""
    quality_nk = np.column_stack([np.full(N, -0.95), np.full(N, -1.05)])
    done = call(tmp_path, log_of(quality_nk), require, "--range", "quality=-2,0")
    assert done.exit_code == 2 and "expected a difference" in done.output and "logged(quality) + 0.1" in done.output


def test_differences_are_what_to_write_instead(tmp_path: Path) -> None:
    quality_nk = np.column_stack([np.full(N, -0.95), np.full(N, -1.05)])
    for require, exit_code in (
        ("lower(quality) >= logged(quality)", 1),
        ("lower(quality) >= logged(quality) + 0.1", 1),
        ("lower(quality) >= logged(quality) - 0.2", 0),
        ("upper(quality) <= logged(quality)", 0),
    ):
        done = call(tmp_path, log_of(quality_nk), require, "--range", "quality=-2,0")
        assert done.exit_code == exit_code, (require, done.output)
