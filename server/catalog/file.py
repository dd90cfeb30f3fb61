"""A catalogue as one YAML file: projects, models and buckets by id, in the contract's own field names.

Every resource is parsed by ``google.protobuf.json_format`` into the contract's message and read by ``server.codec.catalog``,
so that a file may say what a call may say, checked by the same code. All errors are reported at once, each with the file, the
line and the field.

>>> catalog = read_catalog("models:\\n  small: {context_window: 8192}\\n", "catalog.yaml")
>>> catalog.resources["models/small"].value.context_window
8192
>>> print(to_yaml(write_catalog(catalog.resources.values())), end="")
models:
  small:
    context_window: 8192
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from google.protobuf import json_format

from pointsman.bandit.errors import FieldError
from pointsman.server.catalog.lines import CatalogFileError, ResourceLines
from pointsman.server.catalog.message_fields import FieldChecker, unknown
from pointsman.server.catalog.resource import COLLECTIONS, Resource, fields_without_defaults, read_resource
from pointsman.v1 import catalog_pb2 as pb
from pointsman.yaml_lines import Place, YamlDocument, YamlError, parse_yaml

_MESSAGES: Mapping[str, type[pb.Project | pb.Model | pb.Bucket]] = {
    "projects": pb.Project,
    "models": pb.Model,
    "buckets": pb.Bucket,
}


@dataclass(frozen=True, slots=True)
class CatalogFile:
    """What a file says: the resources by name, and where they stand."""

    resources: Mapping[str, Resource]
    lines: Mapping[str, ResourceLines]


def read_catalog(text: str, file: str) -> CatalogFile:
    """The catalogue in ``text``; ``file`` is what errors call it. Raises ``CatalogFileError`` with all that is wrong."""
    problems: list[str] = []
    resources: dict[str, Resource] = {}
    lines: dict[str, ResourceLines] = {}
    try:
        document = parse_yaml(text, file)
    except YamlError as error:
        raise CatalogFileError([str(error)]) from error
    sections = _sections(document)
    for collection in COLLECTIONS:
        for place, id_, body in _bodies(document, collection, sections.get(collection), problems):
            name = id_ if id_.startswith(collection + "/") else f"{collection}/{id_}"
            if name in lines:
                problems.append(document.at(place, f"{name} is already given at line {lines[name].line}"))
                continue
            lines[name] = ResourceLines(document, name, place)
            resource = _resource(name, body, lines[name], problems)
            if resource is not None:
                resources[name] = resource
    if problems:
        raise CatalogFileError(problems)
    return CatalogFile(resources, lines)


def write_catalog(resources: Iterable[Resource]) -> dict[str, dict[str, dict[str, Any]]]:
    """The document that reads as ``resources``: collections of fields by id, sorted by name, without defaults."""
    document: dict[str, dict[str, dict[str, Any]]] = {}
    for resource in sorted(resources, key=lambda resource: (COLLECTIONS.index(resource.collection), resource.name)):
        id_ = resource.name.partition("/")[2]
        key = resource.name if id_.startswith(resource.collection + "/") else id_
        document.setdefault(resource.collection, {})[key] = fields_without_defaults(resource)
    return document


def to_yaml(document: object) -> str:
    """``document`` as YAML that ``read_catalog`` reads as the same."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Writes text with any kind of line break in double quotes, in which none is folded into a space."""


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if any(letter in text for letter in "\n\r\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _write_text)


def _sections(document: YamlDocument) -> dict[str, Any]:
    """The collections of a document, none if it is empty. Raises ``CatalogFileError``."""
    if document.data is None:
        return {}
    if not isinstance(document.data, dict):
        raise CatalogFileError([document.at((), "expected projects, models or buckets as `name: value`")])
    for section in document.data:
        if section not in COLLECTIONS:
            raise CatalogFileError([document.at((section,), unknown(section, COLLECTIONS))])
    return document.data


def _bodies(document: YamlDocument, collection: str, section: Any, problems: list[str]) -> list[tuple[Place, str, Any]]:
    """Place, id or name, and body of each resource of a section: a mapping by id, a list of named ones, or nothing."""
    if section is None:
        return []
    if isinstance(section, dict):
        return [((collection, id_), id_, {} if body is None else body) for id_, body in section.items()]
    if not isinstance(section, list):
        problems.append(document.at((collection,), "expected resources as `id: fields`, or a list of them with names"))
        return []
    bodies: list[tuple[Place, str, Any]] = []
    for i, body in enumerate(section):
        name = body.get("name") if isinstance(body, dict) else None
        if isinstance(name, str) and name.startswith(collection + "/"):
            bodies.append(((collection, i), name, body))
        else:
            problems.append(document.at((collection, i), f"expected fields with a name, {collection}/{{id}}"))
    return bodies


def _resource(name: str, body: Any, lines: ResourceLines, problems: list[str]) -> Resource | None:
    """The resource ``name`` with the fields in ``body``; ``None`` if there are problems, which are added to ``problems``."""
    message_class = _MESSAGES[name.partition("/")[0]]
    checker = FieldChecker(lines)
    values = checker.check(body, message_class.DESCRIPTOR)  # type: ignore[arg-type]  # one class, two stubs
    if values.get("name", name) != name:
        checker.add("name", f"expected {name}, got {values['name']!r}")
    if "etag" in values:
        checker.add("etag", "expected nothing: etags are the server's")
    resource = None
    if not checker.problems:
        try:
            resource = read_resource(json_format.ParseDict({**values, "name": name}, message_class()))
        except FieldError as error:
            checker.add(error.field, error.problem)
        except (json_format.ParseError, TypeError, ValueError) as error:
            checker.add("", str(error))
    problems.extend(checker.problems)
    return resource
