from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pointsman.simulator.cli.simulate import simulate
from pointsman.simulator.data.table import OutcomeTable

Columns = dict[str, list[object]]
CONTRACT = {
    "policy", "objective", "budget", "seed", "rounds", "mean_quality", "mean_cost", "spend_ratio", "mean_latency", "regret",
}  # fmt: skip
CONTROLS = "uniform,fixed:vendor/large,best-fixed,best-mix,task-lp,prompt-oracle"


@pytest.fixture
def file(tmp_path: Path, make_table: Callable[..., OutcomeTable], columns_of: Callable[[OutcomeTable], Columns]) -> str:
    return written(tmp_path, columns_of(make_table(60)))


def written(folder: Path, columns: Columns) -> str:
    """The path of a table that is written there."""
    path = folder / "table.jsonl"
    rows = zip(*columns.values(), strict=True)
    path.write_text("\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in rows))
    return str(path)


def call(*args: str) -> Result:
    return CliRunner().invoke(simulate, [*args, "--jobs", "1"])


def test_results_are_written_and_printed(file: str, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report"
    done = call("--table", file, "--warm-start", file, "--policy", f"thompson,epsilon-greedy,{CONTROLS}", "--objective",
                "BALANCED:cost_weight=20,COST_FIRST", "--features", "text", "--seeds", "2", "--out", str(out))  # fmt: skip
    assert done.exit_code == 0, done.output
    rows = json.loads((out / "results.json").read_text())
    assert len(rows) == 8 * 2 * 2
    for row in rows:
        assert set(row) >= CONTRACT
        assert row["rounds"] == 60 and row["budget"] is None and row["spend_ratio"] is None
        assert sum(row["shares"].values()) == pytest.approx(1.0)
    assert {(row["policy"], row["objective"], row["seed"]) for row in rows} == {
        (policy, objective, seed)
        for policy in ("thompson", "epsilon-greedy", *CONTROLS.split(","))
        for objective in ("BALANCED:cost_weight=20", "COST_FIRST")
        for seed in (0, 1)
    }
    with (out / "results.csv").open(newline="") as csv_file:
        flat = list(csv.DictReader(csv_file))
    assert [float(row["mean_quality"]) for row in flat] == [row["mean_quality"] for row in rows]
    assert [float(row["share/vendor/large"]) for row in flat] == [row["shares"]["vendor/large"] for row in rows]
    assert "thompson" in done.stdout and "best static mix" in done.stdout
    assert done.stderr == ""  # no progress bar where there is no terminal


def test_it_says_what_of_a_warm_start_does_not_fit(file: str, tmp_path: Path) -> None:
    lacking = tmp_path / "lacking.csv"
    lacking.write_text("prompt_id,task,quality/small,quality/retired\na,chat,4,1\nb,maths,2,5\n")
    args = ("--table", file, "--warm-start", str(lacking), "--features", "none", "--seeds", "1")
    done = call(*args, "--warm-quality-range", "1,5")
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "has no vendor/large: they start from their usual priors" in said
    assert "retired of it left out" in said
    refused = call(*args)
    assert refused.exit_code != 0
    assert "quality/small" in refused.output


def test_json_on_stdout_is_the_rows(file: str) -> None:
    done = call("--table", file, "--policy", "best-mix,uniform", "--budget", "1e-4,0.001", "--seeds", "1", "--json")
    rows = json.loads(done.stdout)
    assert [(row["policy"], row["budget"]) for row in rows] == [
        ("best-mix", 1e-4),
        ("best-mix", 1e-3),
        ("uniform", 1e-4),
        ("uniform", 1e-3),
    ]
    for row in rows:
        assert row["spend_ratio"] == pytest.approx(row["mean_cost"] / row["budget"])


def test_by_default_thompson_with_the_features_there_are(file: str) -> None:
    rows = json.loads(call("--table", file, "--json").stdout)
    assert [row["seed"] for row in rows] == [0, 1, 2, 3, 4]
    assert {(row["policy"], row["objective"], row["features"]) for row in rows} == {("thompson", "BALANCED", "x")}


class Links(HTMLParser):
    """Everything that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "action", "data")]
        if tag in ("script", "link", "iframe", "object"):
            self.found.append(tag)


def test_the_report_stands_alone_and_is_honest(
    tmp_path: Path, make_table: Callable[..., OutcomeTable], columns_of: Callable[[OutcomeTable], Columns]
) -> None:
    file = written(tmp_path, columns_of(make_table(240)))
    call("--table", file, "--policy", f"thompson,{CONTROLS}", "--objective", "QUALITY_FIRST", "--seeds", "2", "--bucket",
         "task", "--out", str(tmp_path))  # fmt: skip
    page = (tmp_path / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert links.found == []
    assert "url(" not in page and "@import" not in page
    figures = re.findall(r"<figure>(<svg.*?</svg>)<figcaption", page, re.S)
    assert len(figures) == 3  # the frontier, the regret, the traffic of thompson
    for figure in figures:
        for element in ElementTree.fromstring(figure).iter():
            assert not re.search("nan|inf", element.get("d", "")), "a point without a place"
    assert "routing beat the best fixed model" in page
    for heading in ("Configuration", "table.jsonl", "QUALITY_FIRST", "seeds"):
        assert heading in page


def test_the_report_says_when_routing_was_not_worth_it(
    tmp_path: Path, make_table: Callable[..., OutcomeTable], columns_of: Callable[[OutcomeTable], Columns]
) -> None:
    """One model is best at everything, and its name could be markup: exploring can only lose."""
    columns = columns_of(make_table(200))
    columns["quality/small"] = [0.99] * 200
    columns["task"] = [f"<b>{task}</b>" for task in columns["task"]]
    path = tmp_path / "one<i>.jsonl"
    path.write_text(
        "\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True))
    )
    done = call("--table", str(path), "--features", "none", "--bucket", "task", "--seeds", "3", "--out", str(tmp_path))
    assert "routing did NOT beat the best fixed model (small)" in done.stdout
    page = (tmp_path / "report.html").read_text()
    assert "routing did NOT beat the best fixed model (small)" in page
    assert "<i>." not in page and "one&lt;i&gt;.jsonl" in page


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--table, --world, --log: expected one of them"),
        (["--table", "nowhere.csv"], "nowhere.csv"),
        (["--table", "x.xlsx"], ".parquet"),
        (["--table", "paretobandit:nothing"], "paretobandit:val"),
        (["--table", "FILE", "--policy", "greedy"], "prompt-oracle"),
        (["--table", "FILE", "--policy", "uniform,,thompson"], "--policy"),
        (["--table", "FILE", "--policy", "uniform,uniform"], "different"),
        (["--table", "FILE", "--policy", "fixed:none"], "vendor/large"),
        (["--table", "FILE", "--objective", "CHEAP"], "COST_FIRST"),
        (["--table", "FILE", "--policy", "uniform", "--budget", "0"], "--budget"),
        (["--table", "FILE", "--policy", "uniform", "--budget", "ten"], "'ten'"),
        (["--table", "FILE", "--bucket", "task", "--budget", "0.01"], "--bucket one"),
        (["--table", "FILE", "--features", "y"], "--features"),
        (["--table", "FILE", "--seeds", "0"], "--seeds"),
        (["--table", "FILE", "--quality-range", "1"], "LOW,HIGH"),
        (["--table", "FILE", "--quality-range", "1,0"], "--quality-range"),
        (["--table", "FILE", "--x-from", "x.npz"], "FILE.npz:ARRAY"),
        (["--table", "FILE", "--warm-x-from", "x.npz:a"], "--warm-start"),
        (["--table", "FILE", "--warm-mass", "10"], "--warm-start"),
        (["--table", "FILE", "--warm-quality-range", "1,5"], "--warm-start"),
        (["--table", "FILE", "--warm-start", "FILE", "--warm-mass", "0"], "--warm-mass"),
    ],
)  # fmt: skip
def test_usage_errors_exit_2_and_say_what_was_expected(file: str, args: list[str], message: str) -> None:
    done = call(*(file if arg == "FILE" else arg for arg in args))
    assert done.exit_code == 2
    assert message in re.sub(r"\s+", " ", done.stderr)
    assert done.stdout == ""


def test_a_broken_table_exits_1(tmp_path: Path) -> None:
    path = tmp_path / "broken.csv"
    path.write_text("prompt_id,task,quality/a\np,t,high\n")
    done = call("--table", str(path))
    assert done.exit_code == 1
    assert "row 1 ('p'), column quality/a" in done.stderr


def test_features_from_npz(file: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.random.default_rng(0).standard_normal((60, 5)))
    x = f"{tmp_path / 'x.npz'}:a"
    args = ["--table", file, "--x-from", x, "--warm-start", file, "--warm-x-from", x, "--seeds", "1", "--json"]
    rows = json.loads(call(*args).stdout)
    assert rows[0]["features"] == "x"
    lone = call("--table", file, "--x-from", x, "--warm-start", file)  # 5 features beside the warm table's own 2
    assert lone.exit_code == 2 and "2 feature columns" in lone.stderr


def test_worlds_are_played_and_their_options_give_the_same_again(tmp_path: Path) -> None:
    world_yaml = "models: {small: {quality: 0.4, cost: 0.001}, large: {quality: 0.8, cost: 0.01}}\nrounds: 80\n"
    (tmp_path / "calm.yaml").write_text(world_yaml)
    (tmp_path / "storm.yaml").write_text(world_yaml + "changes: [{kind: outage, model: large, start: 20, end: 40}]\n")
    worlds = f"{tmp_path / 'calm.yaml'},{tmp_path / 'storm.yaml'}"
    out, again = tmp_path / "out", tmp_path / "again"
    done = call(
        "--world", worlds, "--policy", "thompson,prompt-oracle", "--seeds", "2", "--budget", "0.005", "--out", str(out)
    )
    assert done.exit_code == 0, done.output
    rows = json.loads((out / "results.json").read_text())
    assert [row["world"] for row in rows] == ["calm"] * 4 + ["storm"] * 4
    points = json.loads((out / "traces.json").read_text())
    assert [p["round"] for p in points if p["world"] == "storm" and p["policy"] == "thompson" and p["seed"] == 1][
        -1
    ] == 80
    with (out / "traces.csv").open(newline="") as file:
        assert [float(row["regret"]) for row in csv.DictReader(file)] == [point["regret"] for point in points]
    verdicts = json.loads((out / "verdicts.json").read_text())
    assert {(verdict["world"], verdict["policy"]) for verdict in verdicts} == {
        ("calm", "thompson"),
        ("storm", "thompson"),
    }
    page = (out / "report.html").read_text()
    for text in (
        "storm, BALANCED, $0.005 a request",
        "Budget",
        "best static mix at the cost of thompson",
        "Outage(model=",
    ):
        assert text in page, text

    done = call("--config", str(out / "run.json"), "--out", str(again))
    assert done.exit_code == 0, done.output
    for name in ("results.json", "results.csv", "traces.json", "verdicts.json", "run.json"):
        assert (again / name).read_text() == (out / name).read_text(), name
    other = call("--config", str(out / "run.json"), "--seeds", "1", "--json")
    assert len(json.loads(other.stdout)) == 4  # what is said on the command line takes precedence


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--world", "none.yaml"), "cannot read none.yaml"),
        (("--world", "a.yaml,b/a.yaml"), "cannot read a.yaml"),
        (("--world", "a.yaml", "--warm-start", "t.csv"), "--warm-start: expected with --table only"),
        (("--world", "a.yaml", "--table", "t.csv"), "--table, --world, --log: expected one of them"),
        (("--table", "t.csv", "--executor", "cloud"), "--executor: expected processes or tcp://HOST:PORT"),
        (("--config", __file__), "expected the run.json of an earlier run"),
    ],
)
def test_wrong_worlds_and_executors(args: tuple[str, ...], message: str) -> None:
    done = call(*args)
    assert done.exit_code == 2 and message in re.sub(r"\s+", " ", done.output), done.output
