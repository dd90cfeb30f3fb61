"""The standard methods (AIP-131 to 135) on one collection of resources: create, get, list, update, delete."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask

from pointsman.bandit.bucket import BucketState
from pointsman.bandit.catalog import Bucket, Model, Project
from pointsman.bandit.errors import FieldError, within
from pointsman.bandit.state import ModelState, ProjectState
from pointsman.server.errors import AlreadyExistsError, StaleError, UnavailableError
from pointsman.server.names import parse
from pointsman.server.state.replica import ATTEMPTS
from pointsman.v1 import catalog_pb2 as pb

DEFAULT_PAGE = 100
MAX_PAGE = 1000
Message = TypeVar("Message", pb.Model, pb.Bucket, pb.Project)
Value = TypeVar("Value", Model, Bucket, Project)
State = TypeVar("State", ModelState, BucketState, ProjectState)


@dataclass(frozen=True, slots=True)
class Collection(Generic[Message, Value, State]):
    """The standard methods on one kind of resource: what a replica holds of it, and how it is read and written.

    ``name`` is the collection's (`models`), ``field`` that of the resource in requests (`model`); ``find`` takes an id and
    the field to blame; ``put`` and ``delete`` take the change that the caller has seen.
    """

    name: str
    field: str
    states: Callable[[], Mapping[str, State]]
    find: Callable[[str, str], State]
    read: Callable[[Message], Value]
    write: Callable[[State], Message]
    put: Callable[[Value, int | None], Awaitable[State]]
    remove: Callable[[str, int | None], Awaitable[None]]

    async def create(self, message: Message) -> Message:
        """Add one."""
        with within(self.field):
            value = self.read(message)
        return self.write(await self.put(value, 0))

    def get(self, name: str) -> Message:
        """One by its resource name."""
        return self.write(self.find(parse(name, self.name, "name"), "name"))

    def page(self, size: int, token: str) -> tuple[list[Message], str]:
        """Those after the page that gave ``token`` by name, and the token of the next page."""
        if not 0 <= size <= MAX_PAGE:
            raise FieldError("page_size", f"expected 0 to {MAX_PAGE}, got {size}")
        states = self.states()
        last = _read_token(token, self.name) if token else ""
        rest = sorted(id_ for id_ in states if id_ > last)
        page = rest[: size or DEFAULT_PAGE]
        more = len(page) < len(rest)
        return [self.write(states[id_]) for id_ in page], _write_token(self.name, page[-1]) if more else ""

    async def update(self, new: Message, mask: FieldMask, allow_missing: bool) -> Message:
        """Change one, or the fields of it that the mask names.

        Again if another change came first, so that neither is lost; not if the caller gave an etag.
        """
        with within(self.field):
            id_ = parse(new.name, self.name, "name")
            seen = _seen(new.etag, "etag")
        _check_mask(mask, new)
        for _ in range(ATTEMPTS):
            known = self.states().get(id_)
            if known is None and not allow_missing:
                self.find(id_, f"{self.field}.name")
            merged = _masked(self.write(known) if known else None, new, mask)
            with within(self.field):
                value = self.read(merged)
            builds_on = seen
            if seen is None and mask.paths:  # the change that these fields were merged with
                builds_on = known.version if known else 0
            try:
                return self.write(await self.put(value, builds_on))
            except (StaleError, AlreadyExistsError):
                if seen is not None:
                    raise
        raise UnavailableError("too many changes of this resource at the same time; nothing was written, retry")

    async def delete(self, name: str, etag: str) -> None:
        """Remove one."""
        await self.remove(parse(name, self.name, "name"), _seen(etag, "etag"))


def _seen(etag: str, field: str) -> int | None:
    if not etag:
        return None
    if not (etag.isascii() and etag.isdigit() and len(etag) < 19 and int(etag)):
        raise FieldError(field, f"expected an etag that this service gave, got {etag[:40]!r}")
    return int(etag)


def _write_token(collection: str, last: str) -> str:
    """A page's token: the name of its last resource, which need not exist any more when the next page is asked for."""
    return urlsafe_b64encode(f"{collection}/{last}".encode()).decode()


def _read_token(token: str, collection: str) -> str:
    """The id in a token of ``collection``. Raises ``FieldError`` if this service gave no such token."""
    try:
        name = urlsafe_b64decode(token.encode()).decode("ascii")
        last = parse(name, collection, "page_token")
    except (ValueError, FieldError):  # ValueError: not base 64, or not of ASCII
        last = ""
    if not last or _write_token(collection, last) != token:
        raise FieldError("page_token", f"expected a token that List of {collection} gave, got {token[:40]!r}")
    return last


def _check_mask(mask: FieldMask, new: Message) -> None:
    """Raise ``FieldError`` unless every path names a changeable field, or the only one is ``*``."""
    for path in mask.paths if list(mask.paths) != ["*"] else ():
        fixed = path.partition(".")[0] in ("name", "etag", "availability")
        if fixed or not FieldMask(paths=[path]).IsValidForDescriptor(new.DESCRIPTOR):  # type: ignore[arg-type]
            raise FieldError("update_mask", f"expected names of changeable fields, or * alone, got {path[:140]!r}")


def _masked(old: Message | None, new: Message, mask: FieldMask) -> Message:
    """``old`` with the fields of ``new`` that ``mask`` names; all of ``new`` if there is no mask or no ``old``."""
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
