"""A small run of the proof of trust: intervals hold on data where the truth is known, and the gate keeps its promise."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.simulator.coverage_page import coverage_page, relative_widths

pytestmark = pytest.mark.xdist_group("coverage")  # one worker makes the records for all

REPLICATIONS, ROUNDS = 24, 800


@pytest.fixture(scope="module")
def coverage() -> Iterator[ModuleType]:
    path = Path(__file__).parents[2] / "benchmarks" / "simulator" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_benchmark", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(path.parent)  # as for a script
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def records(coverage: ModuleType) -> tuple[list, list, list]:
    world = coverage.make_world(coverage.made_table(600), coverage.Features("none", "one"))
    scenario = coverage.Scenario("small", "made", "ours", floor=0.2)
    points, watched, promotions = [], [], []
    for seed in range(REPLICATIONS):
        replication = coverage.replicate({"made": world}, (scenario, seed, ROUNDS))
        points += replication.points
        watched += replication.watched
        promotions += replication.promotions
    return points, watched, promotions


def test_intervals_have_about_nominal_coverage(coverage: ModuleType, records: tuple[list, list, list]) -> None:
    rows = coverage.summarise(records[0])
    of = {(r["candidate"], r["signal"], r["estimator"], r["interval"]): r for r in rows}
    assert len(of) == len(rows)
    least = binom.ppf(1e-4, REPLICATIONS, 0.95) / REPLICATIONS
    trusted = [
        r for r in rows if r["estimator"] in ("dr", "dr, adaptive weights", "dm", "dros", "switch-dr", "betting")
    ]
    assert len(trusted) >= 40 and {row["replications"] for row in trusted} == {REPLICATIONS}
    for row in trusted:
        assert row["coverage"] >= least, row
    assert np.mean([row["coverage"] for row in rows if row["estimator"] == "betting"]) > 0.98


def test_betting_bounds_hold_at_every_look(coverage: ModuleType, records: tuple[list, list, list]) -> None:
    rows = coverage.interval_coverage(records[1])
    assert len(rows) == 8 and {row["replications"] for row in rows} == {REPLICATIONS}
    most = binom.isf(1e-4, REPLICATIONS, 0.05)
    for row in rows:
        assert (1.0 - row["betting"]) * REPLICATIONS <= most, row
    assert np.mean([row["normal"] for row in rows]) < np.mean([row["betting"] for row in rows])


def test_unbiased_estimates_have_no_bias(coverage: ModuleType, records: tuple[list, list, list]) -> None:
    for row in coverage.summarise(records[0]):
        if row["estimator"] in ("ips", "dr") and row["interval"] == "normal":
            assert abs(row["bias"]) < 4.0 * row["rmse"] / np.sqrt(REPLICATIONS), row


def test_the_gate_passes_better_candidates_only(coverage: ModuleType, records: tuple[list, list, list]) -> None:
    rows = {(r["candidate"], r["margin"]): r for r in coverage.promoted(records[2])}
    margins = sorted({margin for _, margin in rows})
    assert margins[0] < 0.0
    wrong = [row for (_, margin), row in rows.items() if margin < 0.0]
    most = binom.isf(1e-4, REPLICATIONS * len(wrong), 0.05)
    assert sum(row["bound_ever"] for row in wrong) * REPLICATIONS <= most
    for candidate in {name for name, _ in rows}:
        shares = [rows[candidate, margin]["bound"] for margin in margins]
        assert shares == sorted(shares), "the better, the more often"
    assert rows["by task", max(margins)]["gate"] > 0.8


def test_the_gate_passes_what_its_bound_and_its_conditions_do(records: tuple[list, list, list]) -> None:
    promotions = records[2]
    assert all(promotion.gate == (promotion.bound and promotion.conditions) for promotion in promotions)
    assert all(promotion.bound_ever for promotion in promotions if promotion.bound and promotion.margin > 0.0)
    refused = [promotion for promotion in promotions if promotion.bound and not promotion.gate]
    assert {"even", "thompson"} <= {promotion.candidate for promotion in refused}, "too few of their rounds count"


def test_predictions_are_fitted_once_for_the_same_log(coverage: ModuleType, records: tuple[list, list, list]) -> None:
    fitted = []
    once = coverage._once(lambda *given: fitted.append(given) or given[0] + 1.0)
    rewards, others = np.arange(3.0), np.arange(3)
    assert once(rewards, others, 2) is once(rewards.copy(), others, 2)
    assert len(fitted) == 1
    once(rewards, others[::-1], 2)
    once(rewards, others, 3)
    assert len(fitted) == 3
    assert records[0] and coverage.evidence.past_only is coverage.past_only, "as it was, after replications"


def test_its_page_and_tables(
    coverage: ModuleType, records: tuple[list, list, list], capsys: pytest.CaptureFixture[str]
) -> None:
    rows, looks, gates = (
        coverage.summarise(records[0]),
        coverage.interval_coverage(records[1]),
        coverage.promoted(records[2]),
    )
    page = coverage_page(rows, looks, gates, "24 replications & more")
    assert page.count("<svg viewBox") == 4, "coverage, bias, width, power"
    assert "betting" in page and "24 replications &amp; more" in page and "src=" not in page
    coverage.report(coverage.Console(width=150), rows, looks, gates)
    output = capsys.readouterr().out
    assert "its conditions" in output and "hold at every one of 100 looks" in output


def test_widths_are_told_in_widths_of_dr(coverage: ModuleType, records: tuple[list, list, list]) -> None:
    rows = coverage.summarise(records[0])
    plain = [r for r in rows if (r["estimator"], r["interval"]) == ("dr", "normal")]
    assert relative_widths(plain, rows) == [1.0] * 8
    betting = [r for r in rows if r["estimator"] == "betting"]
    assert min(relative_widths(betting, rows)) > 1.0


def test_hard_logs_are_not_promoted(coverage: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Each twice: what is not true passes in 5 % at most, so hardly ever here; without the gate's conditions some would pass."""
    hard = sys.modules["hard_logs"]
    answers = [hard.answer(None, (name, seed, 3000)) for name in hard.SCENARIOS for seed in range(2)]
    rows = hard.summarise_answers(answers)
    assert len(rows) >= 17 and {row["replications"] for row in rows} == {2}
    assert sum(a.ever for a in answers) <= binom.isf(1e-4, len(answers), 0.05)
    by_name = {row["scenario"]: row for row in rows}
    assert by_name["missing where m2 is bad"]["bound"] == 1.0 and by_name["missing where m2 is bad"]["ever"] == 0.0
    hard.report_hard(coverage.Console(width=150), rows)
    assert "never tried, 5 % of a mix" in capsys.readouterr().out
