"""The standard methods (AIP-131 to 135) on one collection of resources: create, get, list, update, delete.

>>> read_etag("7", "etag")
7
>>> read_etag("", "etag") is None
True
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask

from pointsman.bandit.bucket import BucketState
from pointsman.bandit.catalog import Bucket, Model, Project
from pointsman.bandit.errors import FieldError, within
from pointsman.bandit.state import ModelState, ProjectState
from pointsman.server.errors import AlreadyExistsError, StaleError, UnavailableError
from pointsman.server.names import parse
from pointsman.server.rpc.field_mask import check_mask, masked
from pointsman.server.rpc.page_token import read_token, write_token
from pointsman.server.state.catalogue import ATTEMPTS
from pointsman.v1 import catalog_pb2 as pb

DEFAULT_PAGE = 100
"""Resources in a page if the caller does not say."""
MAX_PAGE = 1000
"""Most resources in a page."""
Message = TypeVar("Message", pb.Model, pb.Bucket, pb.Project)
Value = TypeVar("Value", Model, Bucket, Project)
State = TypeVar("State", ModelState, BucketState, ProjectState)


@dataclass(frozen=True, slots=True)
class Collection(Generic[Message, Value, State]):
    """The standard methods on one kind of resource: what a replica holds of it, and how it is read and written.

    ``name`` is the collection's (`models`), ``field`` that of the resource in requests (`model`). ``find`` takes an id and the
    field to blame if it does not exist. ``put`` and ``remove`` take the version that the caller has seen: 0 if it is not to
    exist, ``None`` if any will do; they raise ``StaleError`` or ``AlreadyExistsError`` if it is another.
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
        """Add a resource. Raises ``AlreadyExistsError``."""
        with within(self.field):
            value = self.read(message)
        return self.write(await self.put(value, 0))

    def get(self, name: str) -> Message:
        """The resource of that name. Raises ``NotFoundError``."""
        return self.write(self.find(parse(name, self.name, "name"), "name"))

    def page(self, size: int, token: str) -> tuple[list[Message], str]:
        """Resources sorted by id, after the page that gave ``token``, and the token of the next page or "".

        ``size`` 0 stands for ``DEFAULT_PAGE``. Raises ``FieldError``.
        """
        if not 0 <= size <= MAX_PAGE:
            raise FieldError("page_size", f"expected 0 to {MAX_PAGE}, got {size}")
        states = self.states()
        last_id = read_token(token, self.name) if token else ""
        remaining = sorted(id_ for id_ in states if id_ > last_id)
        page = remaining[: size or DEFAULT_PAGE]
        next_token = write_token(self.name, page[-1]) if len(page) < len(remaining) else ""
        return [self.write(states[id_]) for id_ in page], next_token

    async def update(self, new: Message, mask: FieldMask, allow_missing: bool) -> Message:
        """Change a resource, or the fields of it that the mask names.

        Optimistic concurrency: if another change came first the update is merged with that and tried again, so that neither is
        lost. With an etag it is not; then ``StaleError`` is raised. Raises ``UnavailableError`` after too many attempts.
        """
        with within(self.field):
            id_ = parse(new.name, self.name, "name")
            seen_version = read_etag(new.etag, "etag")
        check_mask(mask, new)
        for _ in range(ATTEMPTS):
            state = self.states().get(id_)
            if state is None and not allow_missing:
                self.find(id_, f"{self.field}.name")
            merged = masked(self.write(state) if state else None, new, mask)
            with within(self.field):
                value = self.read(merged)
            version = seen_version
            if version is None and mask.paths:  # that with which these fields were merged
                version = state.version if state else 0
            try:
                return self.write(await self.put(value, version))
            except (StaleError, AlreadyExistsError):
                if seen_version is not None:
                    raise
        raise UnavailableError("too many changes of this resource at the same time; nothing was written, retry")

    async def delete(self, name: str, etag: str) -> None:
        """Remove a resource. Raises ``NotFoundError``, ``StaleError`` or ``InUseError``."""
        await self.remove(parse(name, self.name, "name"), read_etag(etag, "etag"))


def read_etag(etag: str, field: str) -> int | None:
    """The version, a journal position, that an etag stands for; ``None`` for "". Raises ``FieldError``."""
    if not etag:
        return None
    if not (etag.isascii() and etag.isdigit() and len(etag) < 19 and int(etag)):
        raise FieldError(field, f"expected an etag that this service gave, got {etag[:40]!r}")
    return int(etag)
