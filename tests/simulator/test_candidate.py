"""Candidates do what the service would have done, on what was known at each decision."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pointsman.simulator.offpolicy.candidate import CandidateError, read_candidate, target_of
from pointsman.simulator.offpolicy.logs.journal import read_journal
from pointsman.simulator.offpolicy.logs.log import Log, LogError


@pytest.fixture(scope="module")
def journal(journal_file: Path) -> Log:
    return read_journal(journal_file)


def of(tmp_path: Path, text: str, log: Log) -> np.ndarray:
    path = tmp_path / "candidate.yaml"
    path.write_text(text)
    target_nk = target_of(read_candidate(path), log).target_nk
    assert np.abs(target_nk.sum(axis=1) - 1.0).max() < 1e-9
    return target_nk


def test_the_export_is_read_whole(journal: Log) -> None:
    log = journal
    assert log.is_journal and log.decisions is not None and len(log.decisions) == 2500
    assert len(log) == 2500 and log.models == ("m0", "m1", "m2") and log.groups == ("chat", "maths")
    assert set(log.signals) == {"quality", "cost", "latency"}
    reported_n = ~np.isnan(log.signals["quality"])
    assert 0.87 < reported_n.mean() < 0.93
    np.testing.assert_array_equal(log.signals["latency"][reported_n], 1.0 + log.chosen_n[reported_n])
    assert log.logged_nk is not None
    np.testing.assert_allclose(log.logged_nk[np.arange(2500), log.chosen_n], log.propensity_n, atol=1e-9)


@pytest.mark.parametrize("text", ["policy: logged", "policy: thompson", "buckets: {chat: {policy: thompson}}"])
def test_unchanged_settings_are_the_policy_that_logged(tmp_path: Path, journal: Log, text: str) -> None:
    np.testing.assert_array_equal(of(tmp_path, text, journal), journal.logged_nk)


def test_a_changed_objective_changes_choices_of_its_bucket_only(tmp_path: Path, journal: Log) -> None:
    log = journal
    cheap_nk = of(tmp_path, "buckets: {maths: {objective: {mode: COST_FIRST, max_quality_loss: 1.0}}}", journal)
    maths_n = log.group_n == 1
    np.testing.assert_array_equal(cheap_nk[~maths_n], log.logged_nk[~maths_n])  # type: ignore[index]
    assert cheap_nk[maths_n, 0].mean() > 0.9 > log.logged_nk[maths_n, 0].mean()  # type: ignore[index]


def test_an_exploration_floor_is_kept(tmp_path: Path, journal: Log) -> None:
    target_nk = of(tmp_path, "{policy: thompson, exploration_floor: 0.3}", journal)
    assert target_nk[journal.eligible_nk].min() > 0.3 / 3.0 - 1e-9


def test_static_candidates(tmp_path: Path, journal: Log) -> None:
    assert (of(tmp_path, "{policy: fixed, model: models/m1}", journal)[:, 1] == 1.0).all()
    assert (of(tmp_path, "policy: uniform", journal) == 1.0 / 3.0).all()
    assert (of(tmp_path, "{policy: uniform, deny: [m0]}", journal)[:, 1:] == 0.5).all()
    np.testing.assert_allclose(
        of(tmp_path, "{policy: mix, shares: {m0: 0.25, m2: 0.75}}", journal)[7], [0.25, 0.0, 0.75]
    )
    assert (of(tmp_path, "{policy: thompson, deny: [models/m0, m2]}", journal)[:, 1] > 0.99).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected settings"),
        ("[]", "line 1: expected settings"),
        ("policy: {", "is not YAML"),
        ("policy: best", "line 1: policy: Input should be 'logged', 'thompson'"),
        ("policy: thompson\nexploration_flor: 0.1", "line 2: exploration_flor: Extra inputs"),
        (
            "policy: thompson\n\nexploration_floor: 1.5",
            "line 3: exploration_floor: Input should be less than or equal to 1",
        ),
        ("policy: fixed", "model: expected with policy fixed"),
        ("{policy: uniform, model: m0}", "model: expected with policy fixed, and only there; the policy is uniform"),
        ("{policy: mix, shares: {m0: 0.5}}", "shares: expected a sum of 1, got 0.5"),
        ("{policy: fixed, model: m0, exploration_floor: 0.1}", "exploration_floor: expected with policy thompson only"),
        ("buckets:\n  chat:\n    policy: no", "line 3: buckets.chat.policy"),
        ("{policy: thompson, objective: {mode: CHEAP}}", "objective.mode: Input should be"),
    ],
)
def test_a_bad_file_names_line_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "candidate.yaml"
    path.write_text(text)
    with pytest.raises(CandidateError) as error:
        read_candidate(path)
    assert message in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{policy: fixed, model: m9}", "models/m9: expected one of the log's models: m0, m1, m2"),
        ("buckets: {poems: {policy: uniform}}", "buckets: poems: expected one of the log's: chat, maths"),
        ("{policy: thompson, objective: {mode: COST_FIRST, max_quality_loss: -1}}", "max_quality_loss"),
    ],
)
def test_a_candidate_that_the_log_does_not_know(tmp_path: Path, journal: Log, text: str, message: str) -> None:
    with pytest.raises(CandidateError, match=message.replace("(", r"\(")):
        of(tmp_path, text, journal)


def test_a_propensity_that_its_numbers_do_not_give_is_refused(tmp_path: Path, journal_file: Path) -> None:
    lines = journal_file.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if "decision_made" in line and i > 500)
    record = json.loads(lines[at])
    record["event"]["decision_made"]["propensity"] *= 0.9
    lines[at] = json.dumps(record)
    path = tmp_path / "export.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(
        LogError, match=rf"position {record['position']}: propensity: .* was logged, but its numbers give"
    ):
        read_journal(path)


def with_chosen(lines: list[str], chosen: int) -> list[str]:
    """The first decision of an export chooses another of its candidates."""
    at = next(i for i, line in enumerate(lines) if "decision_made" in line)
    record = json.loads(lines[at])
    record["event"]["decision_made"]["chosen"] = chosen
    return [*lines[:at], json.dumps(record), *lines[at + 1 :]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: with_chosen(lines, 3), "chosen: expected the number of one of 3 models, got 3"),
        (lambda lines: with_chosen(lines, -1), "chosen: expected the number of one of 3 models, got -1"),
        (lambda lines: [*lines[:50], lines[50][:40]], "line 51: expected a record as JSON"),
        (lambda lines: lines[:3], "expected decisions, found none"),
        (lambda lines: [*lines[:60], *lines[10:]], "event.time_ns: expected at least"),
        (lambda lines: ['{"position": 1}'], "line 1: expected a record as JSON with position and event.time_ns"),
    ],
)
def test_a_damaged_export_names_the_line(tmp_path: Path, journal_file: Path, change: object, message: str) -> None:
    path = tmp_path / "export.jsonl"
    path.write_text("\n".join(change(journal_file.read_text().splitlines())))  # type: ignore[operator]
    with pytest.raises(LogError) as error:
        read_journal(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_part_of_a_log(journal_file: Path, journal: Log) -> None:
    part = read_journal(journal_file, 1000, 1500)
    assert len(part) == 500
    np.testing.assert_array_equal(part.propensity_n, journal.propensity_n[1000:1500])
    np.testing.assert_array_equal(part.signals["quality"], journal.signals["quality"][1000:1500])
