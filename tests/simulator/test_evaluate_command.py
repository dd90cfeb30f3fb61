"""pointsman evaluate, from a journal's export to an exit code."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pointsman.simulator.offpolicy.commands import evaluate_command

SHOWN = "lower(quality) >= 0.5 * logged(quality)"
NOT_SHOWN = "lower(quality) >= 0.98 * logged(quality) and upper(cost) <= 0.01 * logged(cost)"


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    path = tmp_path / "new.yaml"
    path.write_text("policy: thompson\nexploration_floor: 0.1\n")
    return path


def call(*args: object) -> Result:
    return CliRunner().invoke(evaluate_command, [str(arg) for arg in args])


def test_exit_codes_are_the_verdict(journal_file: Path, candidate: Path) -> None:
    both = ("--log", journal_file, "--candidate", candidate)
    done = call(*both, "--require", SHOWN)
    assert done.exit_code == 0 and "PASSED: shown at 95.00%" in done.output and "NOT PASSED" not in done.output
    done = call(*both, "--require", NOT_SHOWN)
    assert done.exit_code == 1 and "NOT PASSED: not shown at 95.00%" in done.output
    assert "NO   upper(cost) <= 0.01 * logged(cost)" in done.output
    done = call(*both)
    assert done.exit_code == 0 and "PASSED" not in done.output
    assert (
        "The candidate" in done.output
        and "best fixed model" in done.output
        and "best mix at the same cost" in done.output
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--require", "lower(quality) >= "), "--require: expected an expression"),
        (("--require", "lower(speed) >= 1"), "lower of one of the log's signals"),
        (("--require", "lower(quality) >= logged(cost)"), "so that both can be tested together"),
        (("--estimators", "ips,best"), "--estimators: expected some of ips"),
        (("--cap", "cost"), "--cap: expected SIGNAL=VALUE"),
        (("--cap", "cost=nan"), "--cap: expected SIGNAL=VALUE"),
        (("--signal", "speed"), "speed: expected a signal that the log has"),
        (("--signal", "worth=quality*cost"), "--signal worth: "),
        (("--level", "1.5"), "--level"),
        (("--decisions", "5:5"), "--decisions: expected FIRST:LAST"),
        (("--decisions", "-5:"), "--decisions: expected FIRST:LAST"),
        (("--decisions", "100"), "--decisions: expected FIRST:LAST"),
    ],
)
def test_a_wrong_command_exits_2_with_a_message(
    journal_file: Path, candidate: Path, more: tuple[str, ...], message: str
) -> None:
    done = call("--log", journal_file, "--candidate", candidate, *more)
    assert done.exit_code == 2 and message in done.output, done.output


def test_some_of_the_decisions(journal_file: Path, candidate: Path) -> None:
    done = call("--log", journal_file, "--candidate", candidate, "--decisions", "500:1500", "--json")
    assert json.loads(done.stdout)["log"]["rounds"] == 1000


def test_bad_files_are_named(journal_file: Path, candidate: Path, tmp_path: Path) -> None:
    done = call("--log", tmp_path / "none.jsonl", "--candidate", candidate)
    assert done.exit_code == 2 and "none.jsonl" in done.output and "Traceback" not in done.output
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("policy: best")
    done = call("--log", journal_file, "--candidate", wrong)
    assert done.exit_code == 2 and "wrong.yaml, line 1: policy" in done.output
    done = call("--log", journal_file, "--candidate", candidate, "--out", candidate / "below")
    assert done.exit_code == 2 and "--out" in done.output


class Page(HTMLParser):
    """The tags that are open at the end, what is loaded from elsewhere, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


def test_every_number_is_written(journal_file: Path, candidate: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    require = "upper(worth) <= 2"
    cap = "cost=0.05"
    done = call("--log", journal_file, "--candidate", candidate, "--signal", "worth=quality - 20 * cost", "--signal", "quality",
                "--cap", cap, "--require", require, "--out", out, "--json", "--level", "0.9", "--seed", "3")  # fmt: skip
    assert done.exit_code == 0, done.output
    values = json.loads((out / "evaluation.json").read_text())
    assert values == json.loads(done.stdout)
    assert values["configuration"]["require"] == require and values["configuration"]["seed"] == 3
    assert set(values["signals"]) == {"worth", "quality"} and values["verdict"]["passed"] is True
    dr = next(line for line in values["signals"]["quality"]["estimates"] if line["estimator"] == "dr")
    with (out / "evaluation.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["signal"] == "quality" and row["estimator"] == "dr"]
    assert {row["interval"]: [float(row["low"]), float(row["high"])] for row in rows} == dr["intervals"]
    page = Page((out / "evaluation.html").read_text())
    assert page.open == [] and page.loads == []
    for text in (
        require,
        "Passed: it is shown, at 0.9",
        "best fixed model",
        "exploration_floor: 0.1",
        "switch-dr",
    ):
        assert text in page.said, text
    again = tmp_path / "again"
    call("--log", journal_file, "--candidate", candidate, "--signal", "worth=quality - 20 * cost", "--signal", "quality",
         "--cap", cap, "--require", require, "--out", again, "--level", "0.9", "--seed", "3")  # fmt: skip
    assert (again / "evaluation.json").read_text() == (out / "evaluation.json").read_text()


def test_a_name_with_markup_is_shown_as_it_is(journal_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "<b>[red]&.yaml"
    path.write_text("policy: logged")
    done = call("--log", journal_file, "--candidate", path, "--out", tmp_path / "out")
    assert done.exit_code == 0 and "<b>[red]&" in done.output
    assert Page((tmp_path / "out" / "evaluation.html").read_text()).open == []


@pytest.mark.parametrize(
    "rows", ["a,0.5,0.5,0.5,1", "a,0.5,0.5,0.5,1\na,0.5,0.5,0.5,", "b,0.5,0.5,0.5,0\nb,0.5,0.5,0.5,0"]
)
def test_next_to_nothing_is_enough_to_say_that_it_is_not(tmp_path: Path, rows: str) -> None:
    log, candidate = tmp_path / "log.csv", tmp_path / "a.yaml"
    log.write_text(f"model,propensity,p/a,p/b,quality\n{rows}\n")
    candidate.write_text("policy: fixed\nmodel: a\n")
    done = call("--log", log, "--candidate", candidate, "--require", "lower(quality) >= 0", "--out", tmp_path / "out")
    assert done.exit_code == 1 and "NO   effective sample size" in done.output, done.output
