"""A catalogue as one YAML file: projects, models and buckets by id, in the contract's own field names.

Every resource is parsed by ``google.protobuf.json_format`` into the contract's message and read by ``server.codec.catalog``,
so that a file may say what a call may say, checked by the same code. All errors are reported at once, each with the file, the
line and the field.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from pointsman.bandit.catalog import Bucket, Model, Project
from pointsman.bandit.errors import FieldError
from pointsman.server.codec.catalog import (
    read_bucket,
    read_model,
    read_project,
    write_bucket,
    write_model,
    write_project,
)
from pointsman.v1 import catalog_pb2 as pb
from pointsman.yaml_lines import Place, YamlDocument, YamlError, parse_yaml

COLLECTIONS = ("projects", "models", "buckets")
"""In the order in which they can be created: a bucket names models and a project."""
_DURATION = "google.protobuf.Duration"
_STEPS = re.compile(r'\["(?P<key>.*?)"\]|\[(?P<index>\d+)\]|(?P<name>[^.\[\]]+)')
Value = Project | Model | Bucket


class CatalogFileError(Exception):
    """The file is not an acceptable catalogue. ``problems`` are sentences that name the file, the line and the field."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Item:
    """A resource of a catalogue: its resource name, what it is, and, of a model, whether it may be chosen: ``None`` if that is
    not said.
    """

    name: str
    value: Value
    available: bool | None = True

    @property
    def collection(self) -> str:
        """`projects`, `models` or `buckets`."""
        return self.name.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Lines:
    """Where the fields of the resource ``name``, which is at ``root``, stand in a file."""

    document: YamlDocument
    name: str
    root: Place

    def say(self, field: str, problem: str) -> str:
        """A sentence on a field, given by its path (`priors.quality`, `models[2]`, `tags["region"]`)."""
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


@dataclass(frozen=True, slots=True)
class CatalogFile:
    """What a file says: the items by resource name, and where they stand."""

    items: Mapping[str, Item]
    lines: Mapping[str, Lines]


def read_catalog(text: str, file: str) -> CatalogFile:
    """The catalogue in ``text``; ``file`` is what errors call it. Raises ``CatalogFileError`` with all that is wrong."""
    problems: list[str] = []
    items: dict[str, Item] = {}
    lines: dict[str, Lines] = {}
    try:
        document = parse_yaml(text, file)
        sections = _sections(document)
        for collection in COLLECTIONS:
            for place, id_, body in _bodies(document, collection, sections.get(collection), problems):
                name = id_ if id_.startswith(collection + "/") else f"{collection}/{id_}"
                if name in items:
                    problems.append(document.at(place, f"{name} is already given at line {lines[name].line}"))
                    continue
                lines[name] = Lines(document, name, place)
                found = _item(name, body, lines[name], problems)
                if found is not None:
                    items[name] = found
    except YamlError as error:
        raise CatalogFileError([str(error)]) from error
    if problems:
        raise CatalogFileError(problems)
    return CatalogFile(items, lines)


def write_catalog(items: Iterable[Item]) -> dict[str, dict[str, dict[str, Any]]]:
    """The document that reads as ``items``: collections of fields by id, in order, without what is the default."""
    document: dict[str, dict[str, dict[str, Any]]] = {}
    by_name = sorted(items, key=lambda item: (COLLECTIONS.index(item.collection), item.name))
    for item in by_name:
        id_ = item.name.partition("/")[2]
        key = item.name if id_.startswith(item.collection + "/") else id_
        document.setdefault(item.collection, {})[key] = fields(item)
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


def fields(item: Item) -> dict[str, Any]:
    """The fields of a resource that are not the default, by the contract's names."""
    message = to_message(item)
    if isinstance(message, pb.Model) and item.available:  # on, as it is where nothing is said
        message.ClearField("availability")
        item = replace(item, available=None)
    _shorten(message, message, item)
    made: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    del made["name"]
    whole = {field.name for field in message.DESCRIPTOR.fields if field.type == FieldDescriptor.TYPE_INT64}
    return {name: int(value) if name in whole else value for name, value in made.items()}  # JSON has them as text


def to_message(item: Item, etag: str = "") -> pb.Project | pb.Model | pb.Bucket:
    """The contract's message of an item, every default filled in."""
    match item.value:
        case Project():
            return write_project(item.value, etag)
        case Model():
            return write_model(item.value, item.available is not False, etag)
        case Bucket():
            return write_bucket(item.value, etag)


def to_item(message: Message) -> Item:
    """The item of a message. Raises ``FieldError``."""
    match message:
        case pb.Project():
            return Item(message.name, read_project(message))
        case pb.Model():
            if message.availability not in pb.ModelAvailability.values():
                raise FieldError("availability", f"got the unknown number {message.availability}")
            said = message.availability != pb.MODEL_AVAILABILITY_UNSPECIFIED
            available = message.availability != pb.MODEL_AVAILABILITY_DISABLED if said else None
            return Item(message.name, read_model(message), available)
        case pb.Bucket():
            return Item(message.name, read_bucket(message))
        case _:
            raise TypeError(f"expected a Project, Model or Bucket, got {type(message).__name__}")


_MESSAGES: Mapping[str, type[pb.Project | pb.Model | pb.Bucket]] = {
    "projects": pb.Project,
    "models": pb.Model,
    "buckets": pb.Bucket,
}


def _shorten(whole: Message, part: Message, item: Item) -> None:
    """Clear every field of ``part``, a message within ``whole``, without which ``whole`` still reads as ``item``."""
    for descriptor, _ in part.ListFields():
        kept = type(part)()
        kept.CopyFrom(part)
        part.ClearField(descriptor.name)
        try:
            same = to_item(whole) == item
        except FieldError:
            same = False
        if same:
            continue
        part.CopyFrom(kept)
        if descriptor.message_type and not _is_repeated(descriptor) and descriptor.message_type.full_name != _DURATION:
            _shorten(whole, getattr(part, descriptor.name), item)


def _unknown(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    return f"is not known; did you mean {near[0]}?" if near else f"is not known; expected one of {', '.join(known)}"


def _sections(document: YamlDocument) -> dict[str, Any]:
    """The collections of a document, none if it is empty. Raises ``CatalogFileError``."""
    if document.data is None:
        return {}
    if not isinstance(document.data, dict):
        raise CatalogFileError([document.at((), "expected projects, models or buckets as `name: value`")])
    for section in document.data:
        if section not in COLLECTIONS:
            raise CatalogFileError([document.at((section,), _unknown(section, COLLECTIONS))])
    return document.data


def _bodies(document: YamlDocument, collection: str, section: Any, problems: list[str]) -> list[tuple[Place, str, Any]]:
    """Place, id or name, and body of each resource of a section: a mapping by id, a list of named ones, or nothing."""
    found: list[tuple[Place, str, Any]] = []
    if section is None:
        return found
    if isinstance(section, dict):
        return [((collection, id_), id_, {} if body is None else body) for id_, body in section.items()]
    if not isinstance(section, list):
        problems.append(document.at((collection,), "expected resources as `id: fields`, or a list of them with names"))
        return []
    for i, body in enumerate(section):
        name = body.get("name") if isinstance(body, dict) else None
        if isinstance(name, str) and name.startswith(collection + "/"):
            found.append(((collection, i), name, body))
        else:
            problems.append(document.at((collection, i), f"expected fields with a name, {collection}/{{id}}"))
    return found


def _item(name: str, body: Any, lines: Lines, problems: list[str]) -> Item | None:
    """The resource ``name`` with the fields in ``body``; ``None`` if ``problems`` were found."""
    of = _MESSAGES[name.partition("/")[0]]
    before = len(problems)
    clean = _checked(body, of.DESCRIPTOR, "", lines, problems)  # type: ignore[arg-type]  # one class, two stubs
    if clean.get("name", name) != name:
        problems.append(lines.say("name", f"expected {name}, got {clean['name']!r}"))
    if "etag" in clean:
        problems.append(lines.say("etag", "expected nothing: etags are the server's"))
    if len(problems) > before:
        return None
    try:
        message = json_format.ParseDict({**clean, "name": name}, of())
        return to_item(message)
    except FieldError as error:
        problems.append(lines.say(error.field, error.problem))
    except (json_format.ParseError, TypeError, ValueError) as error:
        problems.append(lines.say("", str(error)))
    return None


def _checked(body: Any, of: Descriptor, path: str, lines: Lines, problems: list[str]) -> dict[str, Any]:
    """The fields of ``body`` that are set; what is no field of the message ``of``, or no value of one, goes to ``problems``."""
    if not isinstance(body, dict):
        problems.append(lines.say(path, f"expected fields as `name: value`, got {_shown(body)}"))
        return {}
    clean: dict[str, Any] = {}
    for name, value in body.items():
        field = of.fields_by_name.get(name)
        at = f"{path}.{name}" if path else name
        if field is None:
            problems.append(lines.say(at, _unknown(name, of.fields_by_name)))
        elif value is not None:
            clean[name] = _checked_field(value, field, at, lines, problems)
    for choice in of.oneofs:
        said = [field.name for field in choice.fields if field.name in clean]
        if len(said) > 1:
            at = f"{path}.{said[1]}" if path else said[1]
            problems.append(lines.say(at, f"expected {' or '.join(said)}, got both"))
    return clean


def _checked_field(value: Any, field: FieldDescriptor, path: str, lines: Lines, problems: list[str]) -> Any:
    if _is_map(field):
        if isinstance(value, dict):
            for key, one in value.items():
                _check_leaf(one, {key: one}, field, f'{path}["{key}"]', lines, problems)
        else:
            problems.append(lines.say(path, f"expected `key: value`, got {_shown(value)}"))
        return value
    if not _is_repeated(field):
        return _checked_one(value, value, field, path, lines, problems)
    if not isinstance(value, list):
        problems.append(lines.say(path, f"expected a list, got {_shown(value)}"))
        return value
    return [_checked_one(one, [one], field, f"{path}[{i}]", lines, problems) for i, one in enumerate(value)]


def _checked_one(value: Any, whole: Any, field: FieldDescriptor, path: str, lines: Lines, problems: list[str]) -> Any:
    if field.message_type and field.message_type.full_name != _DURATION:
        return _checked(value, field.message_type, path, lines, problems)
    _check_leaf(value, whole, field, path, lines, problems)
    return value


def _check_leaf(value: Any, whole: Any, field: FieldDescriptor, path: str, lines: Lines, problems: list[str]) -> None:
    """Whether the contract's JSON takes ``value`` for ``field``; ``whole`` is it as the field holds it."""
    try:
        holder = message_factory.GetMessageClass(field.containing_type)()  # type: ignore[arg-type]  # it has one
        if value is None or (
            isinstance(value, bool) and field.type != FieldDescriptor.TYPE_BOOL and not _is_map(field)
        ):
            raise ValueError("null and true are no numbers")
        json_format.ParseDict({field.name: whole}, holder)
    except (json_format.ParseError, TypeError, ValueError, AttributeError):
        problems.append(lines.say(path, f"expected {_expected(field)}, got {_shown(value)}"))


def _expected(field: FieldDescriptor) -> str:
    if _is_map(field):
        return "text (in quotes if it looks like something else)"
    if field.enum_type:
        return f"one of {', '.join(field.enum_type.values_by_name)}"
    if field.message_type:
        return "a duration in seconds, such as 3600s"
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return "text (in quotes if it looks like something else)"
        case FieldDescriptor.TYPE_BOOL:
            return "true or false"
        case FieldDescriptor.TYPE_DOUBLE:
            return "a number"
        case _:
            return "a whole number"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:79] + "…"


def _is_repeated(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated)


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)
