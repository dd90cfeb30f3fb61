"""Outcomes that are missing unequally, across models or inside one, are told, and do not promote what is worse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from pointsman.simulator.offpolicy.commands import evaluate_command
from pointsman.simulator.offpolicy.evaluation.missing import TIME, missingness
from pointsman.simulator.offpolicy.logs.log import Log
from pointsman.simulator.offpolicy.logs.read import read_log

N = 6000


def log_of(reported: str, seed: int = 0, worse: float = 0.0) -> pd.DataFrame:
    """Two models, an even draw, requests that are easy or hard (x/0), two buckets. m1 is as good as m0 less ``worse``."""
    rng = np.random.default_rng(seed)
    chosen_n, hard_n, bucket_n = rng.integers(0, 2, N), rng.integers(0, 2, N), rng.integers(0, 2, N)
    mean_n = np.where(hard_n == 1, 0.4, 0.8)
    if reported == "easy ones, by which m1 gains":
        mean_n = np.where(hard_n == chosen_n, 0.3, 0.9)  # m1 is better on easy requests, and worse on hard ones
    quality_n = (rng.random(N) < mean_n - worse * chosen_n).astype(np.float64)
    rate_n = {
        "all": np.ones(N),
        "at random": np.full(N, 0.6),
        "by model": np.where(chosen_n == 1, 0.5, 0.8),
        "by request": np.where(hard_n == 1, 0.5, 0.9),
        "easy ones, by which m1 gains": np.where(hard_n == 1, 0.15, 0.9),
        "by request, each model another way": np.where(hard_n == chosen_n, 0.3, 0.9),
        "by bucket": np.where(bucket_n == 1, 0.4, 0.9),
        "by time": np.where(np.arange(N) < 5000, 0.9, 0.2),
        "by quality": np.where(quality_n == 1.0, 0.9, 0.4),
    }[reported]
    quality_n[rng.random(N) >= rate_n] = np.nan
    return pd.DataFrame(
        {
            "decision": [f"d{i}" for i in range(N)],
            "model": [f"m{i}" for i in chosen_n],
            "propensity": 0.5,
            "p/m0": 0.5,
            "p/m1": 0.5,
            "bucket": [("chat", "maths")[i] for i in bucket_n],
            "x/0": hard_n + 0.1 * rng.random(N),
            "quality": quality_n,
        }
    )


def read(folder: Path, frame: pd.DataFrame) -> Log:
    frame.to_csv(folder / "log.csv", index=False)
    return read_log(str(folder / "log.csv"))


def call(folder: Path, frame: pd.DataFrame, require: str = "lower(quality) >= 0.9 * logged(quality)") -> Result:
    frame.to_csv(folder / "log.csv", index=False)
    (folder / "m1.yaml").write_text("policy: fixed\nmodel: m1\n")
    args = ["--log", str(folder / "log.csv"), "--candidate", str(folder / "m1.yaml"), "--estimators", "dr"]
    return CliRunner().invoke(evaluate_command, [*args, "--range", "quality=0,1", "--require", require])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("reported", ["all", "at random"])
def test_what_is_missing_at_random_is_no_matter(tmp_path: Path, reported: str, seed: int) -> None:
    log = read(tmp_path, log_of(reported, seed))
    missing = missingness(log, ~np.isnan(log.signals["quality"]))
    assert not missing.inside and missing.across_p > 1e-4


@pytest.mark.parametrize(
    ("reported", "kind"),
    [("by request", "x/0"), ("by bucket", "bucket"), ("by time", TIME), ("by request, each model another way", "x/0")],
)
def test_what_is_missing_inside_a_model_is_told(tmp_path: Path, reported: str, kind: str) -> None:
    log = read(tmp_path, log_of(reported))
    missing = missingness(log, ~np.isnan(log.signals["quality"]))
    assert missing.inside[0].name == kind and missing.inside[0].most - missing.inside[0].least > 0.3
    done = call(tmp_path, log_of(reported))
    assert f"Whether quality was reported depends on {kind} inside a model: for m" in done.output
    assert (missing.across_p < 1e-4) == (reported == "by request, each model another way")


def test_times_and_buckets_alone_do_not_hold_a_good_candidate_back(tmp_path: Path) -> None:
    """Late outcomes are missing at the end; some buckets hear more of their users than others."""
    for reported in ("by time", "by bucket", "by request"):
        done = call(tmp_path, log_of(reported))
        assert done.exit_code == 0, done.output
    assert "all kinds of x/0 counted as often as they came" in done.output


@pytest.mark.parametrize(
    "reported", ["by model", "by quality", "by request, each model another way", "easy ones, by which m1 gains"]
)
def test_what_is_worse_is_not_promoted_by_what_is_missing(tmp_path: Path, reported: str) -> None:
    """m1 is no better than the log's policy on all rounds, but on those that have an outcome it may look so."""
    promoted = 0
    for seed in range(6):
        frame = log_of(reported, seed, worse=0.04)
        promoted += call(tmp_path, frame, "lower(quality) >= logged(quality)").exit_code == 0
    assert promoted == 0


def test_a_gain_that_easy_requests_alone_show_is_named(tmp_path: Path) -> None:
    done = call(tmp_path, log_of("easy ones, by which m1 gains"), "lower(quality) >= 1.05 * logged(quality)")
    assert done.exit_code == 1
    assert "yes  lower(quality) >= 1.05 * logged(quality): " in done.output
    assert (
        "NO   lower(quality) >= 1.05 * logged(quality), all kinds of x/0 counted as often as they came" in done.output
    )


def test_models_that_answer_for_different_requests_are_not_compared(tmp_path: Path) -> None:
    done = call(tmp_path, log_of("by request, each model another way"))
    assert done.exit_code == 1 and "NO   quality is missing equally often for all models" in done.output
    assert "by x/0 p = " in done.output
