"""Which fields an update changes (AIP-134).

>>> from pointsman.v1.catalog_pb2 import Model
>>> old = Model(name="models/a", display_name="A", prices={"request_usd": 1})
>>> new = Model(name="models/a", prices={"request_usd": 2})
>>> merged = masked(old, new, FieldMask(paths=["prices.request_usd"]))
>>> merged.display_name, merged.prices.request_usd
('A', 2.0)
>>> check_mask(FieldMask(paths=["etag"]), new)
Traceback (most recent call last):
    ...
pointsman.bandit.errors.FieldError: update_mask: expected names of changeable fields, or * alone, got 'etag'
"""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from pointsman.bandit.errors import FieldError

FIXED = ("name", "etag", "availability")
"""Fields that no update changes."""
Resource = TypeVar("Resource", bound=Message)


def check_mask(mask: FieldMask, new: Message) -> None:
    """Raise ``FieldError`` unless every path names a changeable field of ``new``, or the only path is ``*``."""
    for path in mask.paths if list(mask.paths) != ["*"] else ():
        is_fixed = path.partition(".")[0] in FIXED
        if is_fixed or not FieldMask(paths=[path]).IsValidForDescriptor(new.DESCRIPTOR):  # type: ignore[arg-type]
            raise FieldError("update_mask", f"expected names of changeable fields, or * alone, got {path[:140]!r}")


def masked(old: Resource | None, new: Resource, mask: FieldMask) -> Resource:
    """``old``, which is changed, with the fields of ``new`` that ``mask`` names.

    All of ``new`` if there is no ``old``, and if the mask names nothing or ``*``.
    """
    if old is None or not mask.paths or list(mask.paths) == ["*"]:
        return new
    for path in mask.paths:
        *outer, last = path.split(".")
        target: Any = old
        source: Any = new
        for name in outer:
            target, source = getattr(target, name), getattr(source, name)
        part = type(source)()
        part.CopyFrom(source)
        for field in part.DESCRIPTOR.fields:
            if field.name != last:
                part.ClearField(field.name)
        target.ClearField(last)
        target.MergeFrom(part)
    return old
