"""YAML as plain values that know their lines, so that an error can name the file, the line and the field.

Only what JSON could say is read: mappings with names as keys, lists, text, numbers, booleans and null. A name given twice, a tag
for anything else, and a document that is nested too deeply or grows too large through aliases are errors. Dates stay text.

>>> document = parse_yaml("listen: 127.0.0.1:7420\\nbuckets:\\n  summarize: {half_life: -1}\\n", "settings.yaml")
>>> document.mapping()["buckets"]
{'summarize': {'half_life': -1}}
>>> document.at(("buckets", "summarize", "half_life"), "expected a positive number, got -1")
'settings.yaml, line 3: buckets.summarize.half_life: expected a positive number, got -1'
>>> parse_yaml("seed: 1\\nseed: 2\\n", "settings.yaml")
Traceback (most recent call last):
    ...
pointsman.yaml_lines.YamlError: settings.yaml, line 2: seed: is already given at line 1
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MAX_DEPTH = 32
"""Most levels of nesting."""
MAX_NODES = 1_000_000
"""Most values in a document, counted with aliases followed: a few lines of YAML can stand for more than any memory holds."""
_JSON_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null")}
_TEXT_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "timestamp", "value", "merge")}
_MERGE_TAG = "tag:yaml.org,2002:merge"

Place = tuple[str | int, ...]
"""Where a value stands: the names and list indices that lead to it from the top of its document."""


class YamlError(ValueError):
    """A file cannot be read or is not acceptable YAML. ``where`` names the file and, where it is known, the line; the message
    says that and the problem, which may quote the file.
    """

    def __init__(self, message: str, where: str) -> None:
        super().__init__(message)
        self.where = where


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """A YAML text as plain values: ``data``, which is ``None`` for an empty document.

    ``name`` is what errors call the file; ``line_by_place`` has the line, from 1, of every value (of its key, in a mapping).
    """

    name: str
    text: str
    data: Any
    line_by_place: Mapping[Place, int]

    def mapping(self) -> dict[str, Any]:
        """The document as a mapping. Raises ``YamlError`` if it is anything else, also if it is empty."""
        if not isinstance(self.data, dict):
            raise YamlError(self.at((), "expected settings as `name: value`"), self.name)
        return self.data

    def line(self, place: Place) -> int:
        """The line of the value at ``place``, or of the nearest one around it that the document has."""
        while place and place not in self.line_by_place:
            place = place[:-1]
        return self.line_by_place.get(place, 1)

    def at(self, place: Place, problem: str) -> str:
        """A sentence on the value at ``place``: file, line, field and ``problem``."""
        return _sentence(self.name, self.line(place), place, problem)

    def explain(self, errors: Iterable[Mapping[str, Any]]) -> str:
        """The problems that pydantic found in ``data``, given as ``ValidationError.errors()``, as sentences joined by ``; ``."""
        return "; ".join(self.at(error["loc"], error["msg"].removeprefix("Value error, ")) for error in errors)


def read_yaml(path: Path) -> YamlDocument:
    """The document in a file, which errors call ``path``. Raises ``YamlError``."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise YamlError(f"cannot read {path}: {error}", str(path)) from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> YamlDocument:
    """The document in ``text``; ``name`` is what errors call its file. Raises ``YamlError``."""
    try:
        reader = _Reader(text, name)
        return YamlDocument(name, text, reader.data(), reader.line_by_place)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}, line {mark.line + 1}" if mark else name
        problem = ": ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(f"{where}: is not YAML: {problem}", where) from error
    except yaml.YAMLError as error:
        raise YamlError(f"{name}: is not YAML: {error}", name) from error
    except RecursionError:
        raise YamlError(f"{name}: is nested too deeply", name) from None


class _Reader:
    """Turns the nodes of one text into plain values and notes their lines."""

    def __init__(self, text: str, name: str) -> None:
        self.line_by_place: dict[Place, int] = {(): 1}
        self._name = name
        self._loader = yaml.SafeLoader(text)
        self._nodes_left = MAX_NODES
        self._merged: set[int] = set()  # mappings, by id, that already hold what they merge

    def data(self) -> Any:
        node = self._loader.get_single_node()
        return None if node is None else self._value(node, ())

    def _value(self, node: yaml.Node, place: Place) -> Any:
        self.line_by_place.setdefault(place, node.start_mark.line + 1)
        self._nodes_left -= 1
        if len(place) > MAX_DEPTH or self._nodes_left < 0:
            raise self._error(self.line_by_place[place], place, "is nested too deeply or too large, aliases followed")
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*place, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        return self._scalar(node, place)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        if id(node) not in self._merged:  # an alias leads here again
            self._merged.add(id(node))
            self._check_keys(node, place)
            self._loader.flatten_mapping(node)
        values: dict[str, Any] = {}
        for key, value in node.value:
            self.line_by_place[(*place, key.value)] = key.start_mark.line + 1
            values[key.value] = self._value(value, (*place, key.value))
        return values

    def _check_keys(self, node: yaml.MappingNode, place: Place) -> None:
        line_by_key: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(line, place, "expected a name, got a list or a mapping")
            if key.value in line_by_key and key.tag != _MERGE_TAG:
                raise self._error(line, (*place, key.value), f"is already given at line {line_by_key[key.value]}")
            line_by_key[key.value] = line

    def _scalar(self, node: yaml.Node, place: Place) -> Any:
        line = self.line_by_place[place]
        if node.tag in _TEXT_TAGS:
            return node.value
        if node.tag not in _JSON_TAGS:
            raise self._error(line, place, f"expected a plain value, got one of the type {node.tag}")
        try:
            return self._loader.construct_object(node)
        except (ValueError, KeyError, IndexError) as error:
            raise self._error(line, place, f"expected a value of its type, got {node.value!r}") from error

    def _error(self, line: int, place: Place, problem: str) -> YamlError:
        return YamlError(_sentence(self._name, line, place, problem), f"{self._name}, line {line}")


def _sentence(name: str, line: int, place: Place, problem: str) -> str:
    field = ".".join(str(step) for step in place)
    return f"{name}, line {line}: {field}{': ' if field else ''}{problem}"
