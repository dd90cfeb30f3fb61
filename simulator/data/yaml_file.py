"""YAML files whose errors say where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError


class YamlError(ValueError):
    """A file cannot be read, or is not a YAML mapping."""


def load_yaml(path: Path) -> tuple[str, dict[str, Any], yaml.MappingNode]:
    """Text, values and tree of a file that is a mapping. Raises ``YamlError``."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise YamlError(f"cannot read {path}: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise YamlError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict) or not isinstance(node, yaml.MappingNode):
        raise YamlError(f"{path}, line 1: expected settings as `name: value`")
    return text, values, node


def said_of(path: Path, node: yaml.Node, error: ValidationError) -> str:
    """All problems of a validation, each with file, line and field."""
    said = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        said.append(f"{path}, line {line_of(node, problem['loc'])}: {field + ': ' if field else ''}{message}")
    return "; ".join(said)


def line_of(node: yaml.Node, place: tuple[int | str, ...]) -> int:
    """Where the field at ``place``, or the nearest around it, stands."""
    line = node.start_mark.line + 1
    for part in place:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
            continue
        if not isinstance(node, yaml.MappingNode):
            break
        found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
