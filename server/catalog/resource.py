"""A resource of a catalogue, whatever its kind, and the contract's message of it.

>>> model = Resource("models/small", Model("small", context_window=8192))
>>> fields_without_defaults(model)
{'context_window': 8192}
>>> read_resource(write_resource(model)) == model
True
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
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

COLLECTIONS = ("projects", "models", "buckets")
"""The kinds of resources, in the order in which they can be created: a bucket names models and a project."""
DURATION = "google.protobuf.Duration"
"""The full name of the message whose JSON is text (`3600s`) and not an object."""
Value = Project | Model | Bucket


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource by its ``name`` (`models/{id}`). ``available`` says whether a model may be chosen; ``None`` leaves that open."""

    name: str
    value: Value
    available: bool | None = True

    @property
    def collection(self) -> str:
        """`projects`, `models` or `buckets`."""
        return self.name.partition("/")[0]


def write_resource(resource: Resource, etag: str = "") -> pb.Project | pb.Model | pb.Bucket:
    """The contract's message of a resource, every default filled in."""
    match resource.value:
        case Project():
            return write_project(resource.value, etag)
        case Model():
            return write_model(resource.value, resource.available is not False, etag)
        case Bucket():
            return write_bucket(resource.value, etag)


def read_resource(message: Message) -> Resource:
    """The resource in a message. Raises ``FieldError``, and ``TypeError`` for a message of another kind."""
    match message:
        case pb.Project():
            return Resource(message.name, read_project(message))
        case pb.Model():
            return Resource(message.name, read_model(message), _read_availability(message.availability))
        case pb.Bucket():
            return Resource(message.name, read_bucket(message))
        case _:
            raise TypeError(f"expected a Project, Model or Bucket, got {type(message).__name__}")


def _read_availability(availability: pb.ModelAvailability) -> bool | None:
    if availability not in pb.ModelAvailability.values():
        raise FieldError("availability", f"got the unknown number {availability}")
    if availability == pb.MODEL_AVAILABILITY_UNSPECIFIED:
        return None
    return availability != pb.MODEL_AVAILABILITY_DISABLED


def fields_without_defaults(resource: Resource) -> dict[str, Any]:
    """The fields of a resource but its name, by the contract's names and as JSON has them, without those at their defaults."""
    message = write_resource(resource)
    if isinstance(message, pb.Model) and resource.available:  # on, as it is where nothing is said
        message.ClearField("availability")
        resource = replace(resource, available=None)
    _clear_defaults(message, message, resource)
    values: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    del values["name"]
    integers = {field.name for field in message.DESCRIPTOR.fields if field.type == FieldDescriptor.TYPE_INT64}
    return {name: int(value) if name in integers else value for name, value in values.items()}  # JSON has them as text


def _clear_defaults(whole: Message, part: Message, resource: Resource) -> None:
    """Clear every field of ``part``, a message within ``whole``, without which ``whole`` still reads as ``resource``."""
    for descriptor, _ in part.ListFields():
        before = type(part)()
        before.CopyFrom(part)
        part.ClearField(descriptor.name)
        try:
            same = read_resource(whole) == resource
        except FieldError:
            same = False
        if same:
            continue
        part.CopyFrom(before)
        message_type = descriptor.message_type
        if message_type and not descriptor.is_repeated and message_type.full_name != DURATION:
            _clear_defaults(whole, getattr(part, descriptor.name), resource)
