"""Logs of any origin: what is written comes back; what is wrong is named with file, row and column."""

from __future__ import annotations

import importlib.util
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.server.cli.journal import export
from pointsman.simulator.offpolicy.candidate import BucketPolicy, Candidate
from pointsman.simulator.offpolicy.evaluation.evaluate import evaluate_candidate
from pointsman.simulator.offpolicy.logs.log import Log, LogError
from pointsman.simulator.offpolicy.logs.read import read_log
from pointsman.simulator.offpolicy.logs.table import read_pieces

FORMATS = (".csv", ".jsonl", ".parquet")
MODELS = ("a", "vendor/b", "c")


def decisions(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    p_nk = rng.dirichlet(np.ones(3), size=n)
    p_nk[::7, 2] = 0.0
    p_nk /= p_nk.sum(axis=1, keepdims=True)
    chosen_n = (rng.random((n, 1)) > p_nk.cumsum(axis=1)[:, :2]).sum(axis=1)
    quality_n = rng.random(n)
    quality_n[::5] = np.nan
    return pd.DataFrame(
        {
            "decision": [f"d{i}" for i in range(n)],
            "time": [f"2026-01-01T00:{i // 60 % 60:02d}:{i % 60:02d}Z" for i in range(n)] if n < 3600 else range(n),
            "bucket": [("chat", "maths")[i % 2] for i in range(n)],
            "model": [MODELS[i] for i in chosen_n],
            "propensity": p_nk[np.arange(n), chosen_n],
            **{f"p/{model}": p_nk[:, k] for k, model in enumerate(MODELS)},
            # c was left out by the policy in every seventh round, and in every other one of those could not be chosen
            "p/c": np.where(np.arange(n) % 14 == 0, np.nan, p_nk[:, 2]),
            "x/0": rng.normal(size=n),
            "x/1": rng.normal(size=n),
            "quality": quality_n,
            "cost_usd": rng.random(n),
            "signal/thumbs": rng.integers(0, 2, n),
        }
    )


def write(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True, double_precision=15)
    else:
        frame.to_parquet(path)
    return path


def assert_same(log: Log, other: Log) -> None:
    assert (log.models, log.groups) == (other.models, other.groups)
    for name in ("chosen_n", "propensity_n", "logged_nk", "eligible_nk", "x_nd", "group_n", "time_ns_n"):
        np.testing.assert_allclose(getattr(log, name), getattr(other, name), rtol=1e-12)
    assert log.signals.keys() == other.signals.keys()
    for name, value_n in log.signals.items():
        np.testing.assert_allclose(value_n, other.signals[name])


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    frame = decisions(200)
    log = read_log(str(write(frame, tmp_path / f"log{suffix}")))
    assert log.models == ("a", "c", "vendor/b") and log.groups == ("chat", "maths")
    assert [log.models[i] for i in log.chosen_n] == frame["model"].tolist()
    assert [log.groups[i] for i in log.group_n] == frame["bucket"].tolist()
    np.testing.assert_allclose(log.propensity_n, frame["propensity"])
    assert log.logged_nk is not None
    np.testing.assert_allclose(log.logged_nk[:, 2], frame["p/vendor/b"])
    assert not log.eligible_nk[::14, 1].any() and log.eligible_nk[7::14].all() and log.eligible_nk[1::7].all()
    assert not log.logged_nk[::7, 1].any()
    np.testing.assert_allclose(log.signals["quality"], frame["quality"])
    assert set(log.signals) == {"quality", "cost", "thumbs"}
    assert np.diff(log.time_ns_n).tolist() == [10**9] * 199


@pytest.mark.parametrize("suffix", FORMATS)
@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 70))
def test_pieces_are_the_whole(tmp_path_factory: pytest.TempPathFactory, suffix: str, rows: int) -> None:
    path = write(decisions(60), tmp_path_factory.mktemp("pieces") / f"log{suffix}")
    whole = read_log(str(path))
    pieces = list(read_pieces(path, rows))
    assert [len(piece) for piece in pieces] == [rows] * (60 // rows) + ([60 % rows] if 60 % rows else [])

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(piece, name) for piece in pieces])

    for name in ("chosen_n", "propensity_n", "logged_nk", "x_nd", "group_n", "time_ns_n"):
        np.testing.assert_array_equal(joined(name), getattr(whole, name))
    assert all((piece.models, piece.groups) == (whole.models, whole.groups) for piece in pieces)


@pytest.mark.parametrize("suffix", FORMATS)
def test_memory_does_not_grow_with_the_file(tmp_path: Path, suffix: str) -> None:
    def peak(n: int) -> int:
        frame = pd.concat([decisions(1000).drop(columns=["time", "decision"])] * (n // 1000))
        path = write(frame, tmp_path / f"{n}{suffix}")
        tracemalloc.start()
        assert sum(len(piece) for piece in read_pieces(path, 1000)) == n
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1000)  # what is imported on the way is no part of it
    assert peak(10_000) < 1.5 * peak(3000)


def test_little_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("model,propensity,success\nb,0.5,1\na,0.25,\na,1,0\n")
    log = read_log(str(path))
    assert log.models == ("a", "b") and log.groups == ("all",) and log.logged_nk is None
    assert log.eligible_nk.all() and log.x_nd.shape == (3, 0) and log.time_ns_n.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(log.signals["success"], [1.0, np.nan, 0.0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected columns in the first line"),
        ("model,propensity,quality\n", "expected at least one decision, got none"),
        ("propensity,quality\n1,1\n", "has no column model; columns are propensity, quality"),
        ("model,quality\na,1\n", "has no column propensity"),
        ("model,propensity\na,1\n", "has no column of an outcome: expected some of quality"),
        ("model,propensity,qualty\na,1,1\n", "column qualty: expected one of model, propensity"),
        ("model,model,propensity,quality\na,a,1,1\n", "expected different columns, got 'model' twice"),
        ("model,propensity,quality\na,1,1\n,1,1\n", "row 2, column model: expected a text, got nothing"),
        ("model,propensity,quality\na,1,1\na,0,1\n", "row 2, column propensity: expected a finite number above 0 to 1, got '0'"),
        ("model,propensity,quality\na,1.5,1\n", "row 1, column propensity: expected a finite number above 0 to 1, got '1.5'"),
        ("model,propensity,quality\na,,1\n", "row 1, column propensity: expected a finite number above 0 to 1, got nothing"),
        ("model,propensity,quality\na,1,good\n", "row 1, column quality: expected a finite number, got 'good'"),
        ("model,propensity,quality\na,1,inf\n", "row 1, column quality: expected a finite number, got 'inf'"),
        ("model,propensity,cost\na,1,-1\n", "row 1, column cost: expected a finite number from 0, got '-1'"),
        ("model,propensity,success\na,1,2\n", "column success: expected a finite number from 0 to 1, got '2'"),
        ("model,propensity,cost,cost_usd\na,1,1,1\n", "expected one of the columns cost and cost_usd, got both"),
        ("model,propensity,x/1,quality\na,1,1,1\n", "has 1 columns x/…, but no column x/0"),
        ("model,propensity,p/a,p/b,quality\na,.5,.5,.4,1\n", "row 1, columns p/…: expected probabilities that sum to 1, got 0.9"),
        ("model,propensity,p/a,p/b,quality\na,.5,.6,.4,1\n", "row 1, column propensity: expected 0.6 as in column p/a, got 0.5"),
        ("model,propensity,time_ns,quality\na,1,5,1\na,1,4,1\n", "row 2, column time_ns: expected no time before that"),
        ("model,propensity,time,quality\na,1,noon,1\n", "row 1, column time: expected ISO 8601 such as"),
        ("model,propensity,quality\na,1,1,1,1\n", "cannot be read as CSV"),
    ],
)  # fmt: skip
def test_errors_name_their_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(LogError) as error:
        read_log(str(path))
    assert message in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "line 2: expected a JSON object, got [1]"),
        ("{", "line 2: expected a JSON object"),
        (
            '{"model": "a", "propensity": true, "quality": 1}',
            "row 2, column propensity: expected a finite number above 0",
        ),
        ('{"model": 3.5, "propensity": 1, "quality": 1}', "row 2, column model: expected a text, got 3.5"),
        ('{"model": "a", "propensity": 1, "quality": [1]}', "row 2, column quality: expected a finite number, got [1]"),
        ('{"model": "a", "propensity": 1, "quality": "0.5"}', ""),
    ],
)
def test_json_lines(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"model": "a", "propensity": 1, "quality": 1}\n' + line + "\n")
    if not message:
        assert isinstance(read_log(str(path)), Log)
        return
    with pytest.raises(LogError) as error:
        read_log(str(path))
    assert message in str(error.value)


def test_other_files(tmp_path: Path, journal_file: Path) -> None:
    assert read_log(str(journal_file)).is_journal
    with pytest.raises(LogError, match=r"expected the journal's export"):
        read_log("log.txt")
    for suffix in FORMATS:
        with pytest.raises(LogError, match="cannot be read"):
            read_log(str(tmp_path / f"none{suffix}"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 this is not")
    with pytest.raises(LogError, match="cannot be read as Parquet"):
        read_log(str(tmp_path / "bad.parquet"))
    (tmp_path / "latin.csv").write_bytes("model,propensity,quality\ncaf\xe9,1,1\n".encode("latin-1"))
    with pytest.raises(LogError, match="expected UTF-8"):
        read_log(str(tmp_path / "latin.csv"))


def test_a_table_can_be_evaluated(tmp_path: Path) -> None:
    log = read_log(str(write(decisions(3000).drop(columns="time"), tmp_path / "log.parquet")))
    evaluation = evaluate_candidate(log, Candidate("c", BucketPolicy(policy="fixed", model="a"), {}))
    assert abs(evaluation.reports["quality"].estimate("dr").estimate - 0.5) < 0.1
    assert set(evaluation.reports) == {"quality", "cost", "thumbs"}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "obd" / "random" / "men"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "timestamp": [f"2019-11-24 00:{59 - i:02d}:00.000000+00:00" for i in range(60)],
            "item_id": [*range(4), *rng.integers(0, 4, 56)],
            "position": rng.integers(1, 4, 60),
            "click": rng.integers(0, 2, 60),
            "propensity_score": [0.25] * 60,
            "user_feature_0": rng.choice(["p", "q", "r"], 60),
            "user_feature_1": rng.choice(["u", "v"], 60),
        }
    )
    frame.to_csv(folder / "men.csv")
    return tmp_path / "obd"


def test_the_open_bandit_dataset(dataset: Path) -> None:
    log = read_log(f"obd:{dataset}:random/men")
    assert len(log) == 60 and log.models == ("item-0", "item-1", "item-2", "item-3")
    assert log.groups == ("position-1", "position-2", "position-3") and log.x_nd.shape == (60, 3)
    assert log.chosen_n[-4:].tolist() == [3, 2, 1, 0]  # sorted by time, which falls in the file
    assert (np.diff(log.time_ns_n) > 0).all() and log.logged_nk is not None and (log.logged_nk == 0.25).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("obd:{}:random/kids", "expected obd:FOLDER:POLICY/CAMPAIGN with a policy of random, bts"),
        ("obd:random/men", "expected obd:FOLDER:POLICY/CAMPAIGN"),
        ("obp:best/men", "expected obp:POLICY/CAMPAIGN"),
        ("obd:{}:random/all", "cannot be read"),
    ],
)
def test_a_wrong_dataset(dataset: Path, spec: str, message: str) -> None:
    with pytest.raises(LogError) as error:
        read_log(spec.format(dataset))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("item_id", -1, "column item_id: expected a finite number from 0"),
        ("propensity_score", 0, "column propensity_score: expected a finite number above 0"),
        ("click", 2, "column click: expected a finite number from 0 to 1"),
        ("timestamp", "later", "row 1, column timestamp: expected a time, got 'later'"),
    ],
)
def test_a_damaged_dataset(dataset: Path, column: str, value: object, message: str) -> None:
    path = dataset / "random" / "men" / "men.csv"
    frame = pd.read_csv(path, index_col=0).astype({column: object})
    frame.loc[0, column] = value
    frame.to_csv(path)
    with pytest.raises(LogError) as error:
        read_log(f"obd:{dataset}:random/men")
    assert message in str(error.value) and "men.csv" in str(error.value)


@pytest.mark.skipif(importlib.util.find_spec("obp") is None, reason="the package obp is not installed")
@pytest.mark.parametrize("which", ["random/all", "bts/women"])
def test_the_sample_is_read_as_obp_reads_it(which: str) -> None:
    log = read_log(f"obp:{which}")
    assert isinstance(log, Log) and len(log) == 10_000
    spec = importlib.util.find_spec("obp")
    assert spec is not None and spec.submodule_search_locations
    policy, campaign = which.split("/")
    path = Path(spec.submodule_search_locations[0], "dataset", "obd", policy, campaign, f"{campaign}.csv")
    frame = pd.read_csv(path, index_col=0)
    assert log.signals["click"].sum() == frame["click"].sum()
    assert log.propensity_n.sum() == pytest.approx(frame["propensity_score"].sum())
    assert np.bincount(log.chosen_n).tolist() == np.bincount(frame["item_id"]).tolist()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LogError, match=r"needs the package obp: pip install --no-deps obp==0\.4\.1"):
        read_log("obp:random/all")


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_services_table_of_decisions_says_what_its_journal_says(
    tmp_path: Path, journal_file: Path, suffix: str
) -> None:
    path = tmp_path / f"decisions{suffix}"
    args = ["--data", str(journal_file.parent / "data"), "--to", str(path), "--what", "decisions"]
    assert CliRunner().invoke(export, args).exit_code == 0
    journal, table = read_log(str(journal_file)), read_log(str(path))
    assert journal.is_journal and not table.is_journal
    log = journal
    assert (table.models, table.groups) == (log.models, log.groups)
    np.testing.assert_array_equal(table.chosen_n, log.chosen_n)
    np.testing.assert_array_equal(table.group_n, log.group_n)
    np.testing.assert_array_equal(table.time_ns_n, log.time_ns_n)
    assert table.logged_nk is not None and log.logged_nk is not None
    np.testing.assert_allclose(table.logged_nk, log.logged_nk, atol=1e-7)
    np.testing.assert_array_equal(table.eligible_nk, log.eligible_nk)
    np.testing.assert_allclose(table.x_nd, log.x_nd, atol=1e-7)
    for name in ("quality", "cost", "latency"):
        np.testing.assert_allclose(table.signals[name], log.signals[name], atol=1e-7)


@pytest.mark.parametrize("suffix", [*FORMATS, "journal"])
@pytest.mark.parametrize(("first", "last"), [(0, 100), (1000, 1500), (2400, None), (0, None), (2000, 9999)])
def test_a_part_of_a_log_is_that_part_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, journal_file: Path, suffix: str, first: int, last: int | None
) -> None:
    path = journal_file if suffix == "journal" else journal_file.with_name(f"table{suffix}")
    if not path.exists():
        args = ["--data", str(journal_file.parent / "data"), "--to", str(path), "--what", "decisions"]
        assert CliRunner().invoke(export, args).exit_code == 0
    whole, part = read_log(str(path)), read_log(str(path), first, last)
    assert len(part) == min(last or 2500, 2500) - first
    np.testing.assert_array_equal(part.propensity_n, whole.propensity_n[first:last])
    np.testing.assert_array_equal(part.signals["quality"], whole.signals["quality"][first:last])
    np.testing.assert_array_equal(part.time_ns_n, whole.time_ns_n[first:last])
    with pytest.raises(LogError, match="2500"):
        read_log(str(path), 2500, 2600)
