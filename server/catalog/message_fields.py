"""Whether the fields of a file are those of one of the contract's messages, each with a value that it takes.

>>> from pointsman.v1 import catalog_pb2
>>> from pointsman.yaml_lines import parse_yaml
>>> document = parse_yaml("models:\\n  small: {context_windw: 8192, display_name: 3}\\n", "catalog.yaml")
>>> checker = FieldChecker(ResourceLines(document, "models/small", ("models", "small")))
>>> checker.check(document.data["models"]["small"], catalog_pb2.Model.DESCRIPTOR)
{'display_name': 3}
>>> for problem in checker.problems:
...     print(problem)
catalog.yaml, line 2: models/small: context_windw: is not known; did you mean context_window?
catalog.yaml, line 2: models/small: display_name: expected text (in quotes if it looks like something else), got 3
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from pointsman.server.catalog.lines import ResourceLines
from pointsman.server.catalog.resource import DURATION

LONGEST_SHOWN = 80
"""Most characters of a wrong value that a problem quotes."""
_TEXT = "text (in quotes if it looks like something else)"


def unknown(name: str, names: Iterable[str]) -> str:
    """What to say of a ``name`` that is none of ``names``.

    >>> unknown("model", ["models", "buckets"])
    'is not known; did you mean models?'
    """
    names = list(names)
    close = difflib.get_close_matches(name, names, 1)
    return f"is not known; did you mean {close[0]}?" if close else f"is not known; expected one of {', '.join(names)}"


class FieldChecker:
    """Checks the fields of one resource; ``problems`` collects what is wrong, as sentences that name file, line and field."""

    def __init__(self, lines: ResourceLines) -> None:
        self._lines = lines
        self.problems: list[str] = []

    def add(self, field: str, problem: str) -> None:
        """Add a problem of a field."""
        self.problems.append(self._lines.at(field, problem))

    def check(self, body: Any, descriptor: Descriptor, path: str = "") -> dict[str, Any]:
        """The fields in ``body`` that are set. ``path`` is that of ``body`` within the resource.

        What is no field of the message that ``descriptor`` describes, or no value of one, is added to the problems.
        """
        if not isinstance(body, dict):
            self.add(path, f"expected fields as `name: value`, got {_shown(body)}")
            return {}
        values: dict[str, Any] = {}
        for name, value in body.items():
            field = descriptor.fields_by_name.get(name)
            field_path = f"{path}.{name}" if path else name
            if field is None:
                self.add(field_path, unknown(name, descriptor.fields_by_name))
            elif value is not None:
                values[name] = self._check_field(value, field, field_path)
        for oneof in descriptor.oneofs:
            present = [field.name for field in oneof.fields if field.name in values]
            if len(present) > 1:
                self.add(f"{path}.{present[1]}" if path else present[1], f"expected {' or '.join(present)}, got both")
        return values

    def _check_field(self, value: Any, field: FieldDescriptor, path: str) -> Any:
        if _is_map(field):
            if isinstance(value, dict):
                for key, entry in value.items():
                    self._check_scalar(entry, {key: entry}, field, f'{path}["{key}"]')
            else:
                self.add(path, f"expected `key: value`, got {_shown(value)}")
            return value
        if not field.is_repeated:
            return self._check_value(value, value, field, path)
        if not isinstance(value, list):
            self.add(path, f"expected a list, got {_shown(value)}")
            return value
        return [self._check_value(element, [element], field, f"{path}[{i}]") for i, element in enumerate(value)]

    def _check_value(self, value: Any, whole: Any, field: FieldDescriptor, path: str) -> Any:
        if field.message_type and field.message_type.full_name != DURATION:
            return self.check(value, field.message_type, path)
        self._check_scalar(value, whole, field, path)
        return value

    def _check_scalar(self, value: Any, whole: Any, field: FieldDescriptor, path: str) -> None:
        """Whether protobuf's JSON takes ``value`` for ``field``; ``whole`` is the value as the field holds it."""
        try:
            holder = message_factory.GetMessageClass(field.containing_type)()  # type: ignore[arg-type]  # it has one
            takes_bool = field.type == FieldDescriptor.TYPE_BOOL or _is_map(field)
            if value is None or (isinstance(value, bool) and not takes_bool):
                raise ValueError("protobuf would take null and true for numbers")
            json_format.ParseDict({field.name: whole}, holder)
        except (json_format.ParseError, TypeError, ValueError, AttributeError):
            self.add(path, f"expected {_expected(field)}, got {_shown(value)}")


def _expected(field: FieldDescriptor) -> str:
    if _is_map(field):
        return _TEXT
    if field.enum_type:
        return f"one of {', '.join(field.enum_type.values_by_name)}"
    if field.message_type:
        return "a duration in seconds, such as 3600s"
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return _TEXT
        case FieldDescriptor.TYPE_BOOL:
            return "true or false"
        case FieldDescriptor.TYPE_DOUBLE:
            return "a number"
        case _:
            return "a whole number"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)
