from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pointsman.simulator.data.table import OutcomeTable, TableError, UnknownTableError, load_table, with_features

Columns = dict[str, list[object]]
Make = Callable[..., OutcomeTable]


def write_csv(path: Path, columns: Columns) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(
            [["" if cell is None else cell for cell in row] for row in zip(*columns.values(), strict=True)]
        )


def write_jsonl(path: Path, columns: Columns) -> None:
    rows = zip(*columns.values(), strict=True)
    lines = [
        json.dumps({k: v for k, v in zip(columns, row, strict=True) if v is not None}, ensure_ascii=False)
        for row in rows
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_parquet(path: Path, columns: Columns) -> None:
    pd.DataFrame(columns).to_parquet(path)


WRITERS: dict[str, Callable[[Path, Columns], None]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}
each_format = pytest.mark.parametrize("form", WRITERS)


def read(tmp_path: Path, form: str, columns: Columns) -> OutcomeTable:
    path = tmp_path / f"table.{form}"
    WRITERS[form](path, columns)
    return load_table(str(path))


@each_format
def test_a_table_comes_back_as_it_was_written(
    tmp_path: Path, form: str, make_table: Make, columns_of: Callable[[OutcomeTable], Columns]
) -> None:
    table = make_table(30, seed=3)
    columns = columns_of(table)
    columns["prompt"][4] = 'a "quoted" prompt, with\ntwo lines and a \u2028 separator'  # not a line of a JSONL file
    columns["latency/small"][7] = None
    columns["input_tokens"][2] = None
    table_read = read(tmp_path, form, columns)
    assert table_read.models == table.models
    assert table_read.prompt_ids == table.prompt_ids
    assert table_read.tasks == table.tasks
    assert table_read.texts is not None and table_read.texts[4] == columns["prompt"][4]
    np.testing.assert_array_equal(table_read.quality_nk, table.quality_nk)
    np.testing.assert_array_equal(table_read.cost_nk, table.cost_nk)
    np.testing.assert_array_equal(table_read.x_nd, table.x_nd)
    assert np.argwhere(np.isnan(table_read.latency_nk)).tolist() == [[7, 0]]
    assert table_read.input_tokens_n[2] == -1
    np.testing.assert_array_equal(np.delete(table_read.input_tokens_n, 2), np.delete(table.input_tokens_n, 2))
    assert np.isnan(table_read.output_tokens_nk).all()


@each_format
def test_only_ids_tasks_and_qualities_are_needed(tmp_path: Path, form: str) -> None:
    table_read = read(
        tmp_path, form, {"prompt_id": [1, 2], "task": ["a", "b"], "quality/m": [0.5, 1], "remark": ["x", "y"]}
    )
    assert table_read.prompt_ids == ("1", "2")
    assert table_read.models == ("m",)
    assert table_read.texts is None and table_read.x_nd is None
    assert np.isnan(table_read.cost_nk).all()
    assert table_read.input_tokens_n.tolist() == [-1, -1]


def test_arrays_are_read_only(make_table: Make) -> None:
    table = make_table(3)
    with pytest.raises(ValueError, match="read-only"):
        table.quality_nk[0, 0] = 1.0


BASE: Columns = {
    "prompt_id": ["p", "q"],
    "task": ["t", "t"],
    "input_tokens": [3, 4],
    "x/0": [0.5, 1.5],
    "quality/m": [0.5, 0.6],
    "cost/m": [0.1, 0.2],
}
WRONG: list[tuple[Columns, tuple[str, ...]]] = [
    ({"prompt_id": ["p", "p"]}, ("row 2", "column prompt_id", "'p'", "row 1")),
    ({"prompt_id": ["p", None]}, ("row 2", "column prompt_id", "nothing")),
    ({"task": [None, "t"]}, ("row 1", "column task", "nothing")),
    ({"task": ["t" * 257, "t"]}, ("row 1", "column task", "256")),
    ({"input_tokens": [3, -1]}, ("row 2 ('q')", "column input_tokens", "-1")),
    ({"input_tokens": [3.5, 1]}, ("row 1 ('p')", "column input_tokens", "whole", "3.5")),
    ({"x/0": [None, 1.0]}, ("row 1 ('p')", "column x/0", "nothing")),
    ({"x/2": [1.0, 1.0]}, ("x/1",)),
    ({"quality/m": [0.5, None]}, ("row 2 ('q')", "column quality/m", "expected a finite number", "nothing")),
    ({"cost/m": [-0.1, 0.2]}, ("row 1 ('p')", "column cost/m", "from 0", "-0.1")),
    ({"cost/other": [0.1, 0.1]}, ("cost/other", "quality/other")),
    ({"quality/a b": [0.1, 0.1]}, ("quality/a b",)),
]


@each_format
@pytest.mark.parametrize(("change", "message"), WRONG)
def test_errors_name_their_place(tmp_path: Path, form: str, change: Columns, message: tuple[str, ...]) -> None:
    with pytest.raises(TableError) as error:
        read(tmp_path, form, BASE | change)
    for word in (f"table.{form}", *message):
        assert word in str(error.value)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("column", ["quality/m", "cost/m", "x/0", "input_tokens"])
@pytest.mark.parametrize("cell", ["many", float("inf"), float("nan"), True])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, form: str, column: str, cell: object) -> None:
    with pytest.raises(TableError, match=f"row 2 .'q'., column {column}: expected a finite number"):
        read(tmp_path, form, BASE | {column: [1, cell]})


def test_a_number_in_quotes_is_not_a_number_in_jsonl(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"column quality/m.*'0\.5'"):
        read(tmp_path, "jsonl", BASE | {"quality/m": [0.1, "0.5"]})


@each_format
@pytest.mark.parametrize("missing", ["prompt_id", "task", "quality/m"])
def test_a_missing_column_is_named(tmp_path: Path, form: str, missing: str) -> None:
    columns = {title: cells for title, cells in BASE.items() if title != missing and title != "cost/m"}
    expected = "quality/<model>" if missing == "quality/m" else missing
    with pytest.raises(TableError, match=f"has no column {expected}"):
        read(tmp_path, form, columns)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_no_rows(tmp_path: Path, form: str) -> None:
    with pytest.raises(TableError, match="at least one row"):
        read(tmp_path, form, {title: [] for title in BASE})


@each_format
def test_an_empty_file(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"table.{form}"
    path.write_bytes(b"\n" if form != "parquet" else b"")
    with pytest.raises(TableError, match="empty file"):
        load_table(str(path))


@pytest.mark.parametrize(
    ("form", "content", "message"),
    [
        (
            "csv",
            "prompt_id,task,quality/m\np,t,0.1\nq,t\n",
            "row 2 .'q'., column quality/m: expected a finite number, got nothing",
        ),
        ("csv", "prompt_id,task,quality/m\np,t,0.1,7\n", "Expected 3 fields in line 2, saw 4"),
        ("csv", "prompt_id,task,task,quality/m\np,t,t,0.1\n", "'task' twice"),
        ("jsonl", '{"prompt_id": "p"}\n{"prompt_id": \n', "line 2: expected a JSON object"),
        ("jsonl", '{"prompt_id": "p"}\n\n[1]\n', r"line 3: expected a JSON object, got \[1\]"),
        ("parquet", "no parquet at all", "cannot be read as Parquet"),
    ],
)
def test_a_broken_file(tmp_path: Path, form: str, content: str, message: str) -> None:
    path = tmp_path / f"broken.{form}"
    path.write_text(content)
    with pytest.raises(TableError, match=message):
        load_table(str(path))


@pytest.mark.parametrize("name", ["table.xlsx", "table", "nowhere.csv", "paretobandit:train"])
def test_an_unknown_table(name: str) -> None:
    with pytest.raises(UnknownTableError, match=name):
        load_table(name)


def test_take_keeps_rows_together(make_table: Make) -> None:
    table = make_table(10)
    part = table.take([7, 2], "part")
    assert part.prompt_ids == ("p7", "p2")
    assert part.texts == (table.texts[7], table.texts[2]) if table.texts else False
    np.testing.assert_array_equal(part.quality_nk, table.quality_nk[[7, 2]])
    assert len(part) == 2


def test_features_from_a_file(tmp_path: Path, make_table: Make) -> None:
    table = make_table(4, features=0)
    x_nd = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.savez(tmp_path / "x.npz", good=x_nd, good_sha256=table.sha256, short=x_nd[1:], bad=x_nd * np.nan,
             other=x_nd, other_sha256="1" * 64, flat=x_nd[:, 0])  # fmt: skip
    extended = with_features(table, f"{tmp_path / 'x.npz'}:good")
    np.testing.assert_array_equal(extended.x_nd, x_nd)
    assert table.x_nd is None
    for array, message in (
        ("short", r"shape \(4, d\)"),
        ("flat", r"shape \(4, d\)"),
        ("bad", "finite"),
        ("other", "sha256"),
        ("none", "has no array 'none'"),
    ):
        with pytest.raises(TableError, match=message):
            with_features(table, f"{tmp_path / 'x.npz'}:{array}")
    with pytest.raises(UnknownTableError, match=r"FILE.npz:ARRAY"):
        with_features(table, "x.npz")
    with pytest.raises(UnknownTableError, match="cannot be read"):
        with_features(table, f"{tmp_path / 'none.npz'}:x")


def test_the_demo_data_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TableError, match=r"pip install 'pointsman\[demo\]'"):
        load_table("paretobandit:val")


@pytest.mark.skipif(
    importlib.util.find_spec("pareto_bandit") is None, reason="needs paretobandit: pip install 'pointsman[demo]'"
)
def test_the_demo_data() -> None:
    table = load_table("paretobandit:val")
    assert len(table) == 1785
    assert len(table.models) == 3
    assert "gsm8k" in table.tasks
    assert table.texts is not None and all(table.texts)
    assert not np.isnan(table.quality_nk).any() and not np.isnan(table.cost_nk).any()
    assert table.quality_nk.min() >= 0.0 and table.quality_nk.max() <= 1.0
