"""A small run of the proof of trust: intervals hold on data where the truth is known, and the gate keeps its promise."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import binom

REPLICATIONS, ROUNDS = 24, 800


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "simulator" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_benchmark", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def found(coverage: ModuleType) -> tuple[list, list]:
    world = coverage.make_world(coverage.made_table(600), coverage.Features("none", "one"))
    scenario = coverage.Scenario("small", "made", "ours", floor=0.2)
    points, promotions = [], []
    for seed in range(REPLICATIONS):
        p, q = coverage.replicate({"made": world}, (scenario, seed, ROUNDS))
        points += p
        promotions += q
    return points, promotions


def test_intervals_hold_about_as_often_as_they_say(coverage: ModuleType, found: tuple[list, list]) -> None:
    rows = coverage.summarise(found[0])
    of = {(r["candidate"], r["signal"], r["estimator"], r["interval"]): r for r in rows}
    assert len(of) == len(rows)
    least = binom.ppf(1e-4, REPLICATIONS, 0.95) / REPLICATIONS
    trusted = [
        r for r in rows if r["estimator"] in ("dr", "dr, adaptive weights", "dm", "dros", "switch-dr", "betting")
    ]
    assert len(trusted) >= 40 and {row["replications"] for row in trusted} == {REPLICATIONS}
    for row in trusted:
        assert row["coverage"] >= least, row
    assert min(row["coverage"] for row in rows if row["estimator"] == "betting") == 1.0


def test_unbiased_estimates_have_no_bias(coverage: ModuleType, found: tuple[list, list]) -> None:
    for row in coverage.summarise(found[0]):
        if row["estimator"] in ("ips", "dr") and row["interval"] == "normal":
            assert abs(row["bias"]) < 4.0 * row["rmse"] / np.sqrt(REPLICATIONS), row


def test_the_gate_lets_through_what_is_better_and_not_what_is_not(
    coverage: ModuleType, found: tuple[list, list]
) -> None:
    rows = {(r["candidate"], r["margin"]): r for r in coverage.promoted(found[1])}
    margins = sorted({margin for _, margin in rows})
    assert margins[0] < 0.0
    wrong = [row for (_, margin), row in rows.items() if margin < 0.0]
    most = binom.isf(1e-4, REPLICATIONS * len(wrong), 0.05)
    assert sum(row["ever"] for row in wrong) * REPLICATIONS <= most
    for candidate in {name for name, _ in rows}:
        shares = [rows[candidate, margin]["gate"] for margin in margins]
        assert shares == sorted(shares), "the better, the more often"
    assert rows["by task", max(margins)]["gate"] > 0.9


def test_its_page_and_tables(
    coverage: ModuleType, found: tuple[list, list], capsys: pytest.CaptureFixture[str]
) -> None:
    rows, gates = coverage.summarise(found[0]), coverage.promoted(found[1])
    page = coverage.html(rows, gates, "24 replications")
    assert "<svg" in page and "betting" in page and "src=" not in page
    coverage.report(coverage.Console(width=150), rows, gates)
    assert "gate, any of 100 looks" in capsys.readouterr().out
