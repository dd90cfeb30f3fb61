"""Where the fields of a catalogue file stand, and the error that says so.

>>> from pointsman.yaml_lines import parse_yaml
>>> document = parse_yaml("models:\\n  small:\\n    prices: {request_usd: -1}\\n", "catalog.yaml")
>>> ResourceLines(document, "models/small", ("models", "small")).at("prices.request_usd", "expected 0 or more, got -1")
'catalog.yaml, line 3: models/small: prices.request_usd: expected 0 or more, got -1'
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pointsman.yaml_lines import Place, YamlDocument

_STEPS = re.compile(r'\["(?P<key>.*?)"\]|\[(?P<index>\d+)\]|(?P<name>[^.\[\]]+)')


class CatalogFileError(Exception):
    """The file is not an acceptable catalogue. ``problems`` are sentences that name the file, the line and the field."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class ResourceLines:
    """Where the fields of the resource ``name``, which is at ``root``, stand in a file."""

    document: YamlDocument
    name: str
    root: Place

    def at(self, field: str, problem: str) -> str:
        """A sentence on a field, given by its path (`priors.quality`, `models[2]`, `tags["region"]`; "": the resource)."""
        place = list(self.root)
        for step in _STEPS.finditer(field):
            key, index, name = step["key"], step["index"], step["name"]
            place.append(int(index) if index is not None else key if key is not None else name)
        line = self.document.line(tuple(place))
        return f"{self.document.name}, line {line}: {self.name}: {field}{': ' if field else ''}{problem}"

    @property
    def line(self) -> int:
        """Where the resource begins."""
        return self.document.line(self.root)
