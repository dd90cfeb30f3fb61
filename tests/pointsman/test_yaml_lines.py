"""YAML as plain values with their lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from pointsman.yaml_lines import MAX_DEPTH, YamlError, parse_yaml, read_yaml

TEXT = """\
rounds: 20
base: &base {quality: 0.5, seen: 2024-01-01}
models:
  - {<<: *base, on: true}
  - quality: .7
    note: ~
"""


def test_values_are_what_json_could_say() -> None:
    assert parse_yaml(TEXT, "f").mapping() == {
        "rounds": 20,
        "base": {"quality": 0.5, "seen": "2024-01-01"},
        "models": [{"quality": 0.5, "seen": "2024-01-01", "on": True}, {"quality": 0.7, "note": None}],
    }
    assert parse_yaml("", "f").data is None
    assert parse_yaml("yes: no\n1: 2\n", "f").data == {"yes": False, "1": 2}


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ((), 1),
        (("rounds",), 1),
        (("models", 0, "on"), 4),
        (("models", 0, "quality"), 2),  # where the merged value stands
        (("models", 1, "note"), 6),
        (("models", 1, "missing", 3), 5),
        (("missing",), 1),
    ],
)
def test_the_line_of_a_place_or_of_the_nearest_around_it(place: tuple[str | int, ...], line: int) -> None:
    assert parse_yaml(TEXT, "f").line(place) == line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [\n", "f, line 2: is not YAML: "),
        ("a: 1\nb: *c\n", "f, line 2: is not YAML: found undefined alias 'c'"),
        ("a:\n  b: 1\n  b: 2\n", "f, line 3: a.b: is already given at line 2"),
        ("a:\n  ? [1]\n  : 2\n", "f, line 2: a: expected a name, got a list or a mapping"),
        (
            "a:\n- !!binary aGk=\n",
            "f, line 2: a.0: expected a plain value, got one of the type tag:yaml.org,2002:binary",
        ),
        ("a: !!int x\n", "f, line 1: a: expected a value of its type, got 'x'"),
        ("a: \x00", "f: is not YAML: "),
        ("a: &a [*a]", "f, line 1: a.0.0"),
        ("[" * 10_000, "f: is nested too deeply"),
        ("a: " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "is nested too deeply or too large"),
    ],
)
def test_errors_name_file_line_and_field(text: str, message: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse_yaml(text, "f")
    assert message in str(caught.value)
    assert str(caught.value).startswith(caught.value.where)


def test_aliases_cannot_grow_without_bound() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(YamlError, match=r"^f, line 1: a5\.7\..*too large, aliases followed$"):
        parse_yaml("\n".join(lines), "f")


def test_a_mapping_is_required_where_one_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    for text in ("", "[1]", "3"):
        path.write_text(text)
        with pytest.raises(YamlError, match=r"f\.yaml, line 1: expected settings as `name: value`"):
            read_yaml(path).mapping()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(YamlError, match=r"cannot read .*none\.yaml"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("a: é".encode("latin-1"))
    with pytest.raises(YamlError, match=r"cannot read .*latin\.yaml"):
        read_yaml(tmp_path / "latin.yaml")


class _Model(BaseModel):
    quality: float
    on: bool = False


class _Settings(BaseModel):
    rounds: int
    models: list[_Model]


def test_pydantic_errors_have_lines() -> None:
    text = "rounds: many\nmodels:\n- quality: 1\n- on: true\n"
    document = parse_yaml(text, "f")
    values: Any = document.mapping()
    with pytest.raises(ValidationError) as caught:
        _Settings.model_validate(values)
    first, second = document.explain(caught.value.errors()).split("; ")
    assert first.startswith("f, line 1: rounds: Input should be a valid integer")
    assert second == "f, line 4: models.1.quality: Field required"
