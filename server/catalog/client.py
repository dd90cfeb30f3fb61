"""A server's catalogue from outside: read over gRPC, and changed so that no change made meanwhile is overwritten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from pointsman.server.catalog.file import COLLECTIONS, Item, to_item, to_message
from pointsman.server.catalog.plan import Change
from pointsman.v1 import catalog_pb2 as pb
from pointsman.v1 import catalog_service_pb2 as rpc
from pointsman.v1 import catalog_service_pb2_grpc

PAGE = 200
TIMEOUT = 30.0
"""Seconds that one call may take."""
MAX_MESSAGE = 64 << 20
"""Largest answer in bytes: a page of buckets with long schemas."""
_NOUNS = {"projects": "Project", "models": "Model", "buckets": "Bucket"}
_RACES = (grpc.StatusCode.ABORTED, grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.NOT_FOUND)


class RemoteError(Exception):
    """A call failed. ``field`` is the field at issue, relative to the resource, if the server named one; ``raced`` says that
    somebody else changed the catalogue meanwhile.
    """

    def __init__(self, problem: str, field: str = "", raced: bool = False) -> None:
        super().__init__(problem)
        self.field = field
        self.raced = raced


@dataclass(frozen=True, slots=True)
class Held:
    """A server's catalogue: the items by resource name, and their etags."""

    items: Mapping[str, Item]
    etags: Mapping[str, str]


class Remote:
    """The catalogue of the server at ``address``; also a context manager. Encrypted if ``ca`` (certificates, PEM) is given."""

    def __init__(self, address: str, api_key: str = "", ca: bytes | None = None) -> None:
        self._address = address
        options = (("grpc.max_receive_message_length", MAX_MESSAGE),)
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()
        self._channel = (
            grpc.insecure_channel(address, options)
            if ca is None
            else grpc.secure_channel(address, grpc.ssl_channel_credentials(ca), options)
        )
        self._stub = catalog_service_pb2_grpc.CatalogServiceStub(self._channel)

    def read(self) -> Held:
        """The whole catalogue. Raises ``RemoteError``."""
        items: dict[str, Item] = {}
        etags: dict[str, str] = {}
        for collection in COLLECTIONS:
            token = ""
            while True:
                answer = self._call("List", _NOUNS[collection] + "s", page_size=PAGE, page_token=token)
                for message in getattr(answer, collection):
                    items[message.name], etags[message.name] = to_item(message), message.etag
                token = answer.next_page_token
                if not token:
                    break
        return Held(items, etags)

    def make(self, change: Change, etag: str) -> None:
        """Make one change; ``etag`` is that of the resource as it was read. Raises ``RemoteError``."""
        noun = _NOUNS[change.name.partition("/")[0]]
        if change.after is None:
            self._call("Delete", noun, name=change.name, etag=etag)
            return
        if change.before is None:
            self._call("Create", noun, **{noun.lower(): to_message(change.after)})
        elif change.before.value != change.after.value:
            self._call("Update", noun, **{noun.lower(): to_message(change.after, etag)})
        if change.after.available != (change.before is None or change.before.available):
            switch = pb.MODEL_AVAILABILITY_ENABLED if change.after.available else pb.MODEL_AVAILABILITY_DISABLED
            self._call("Set", "ModelAvailability", name=change.name, availability=switch, reason="catalog apply")

    def _call(self, verb: str, noun: str, **fields: Any) -> Any:
        method, request = getattr(self._stub, verb + noun), getattr(rpc, f"{verb}{noun}Request")
        try:
            return method(request(**fields), timeout=TIMEOUT, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._error(error) from error

    def _error(self, error: Any) -> RemoteError:
        code, details = error.code(), error.details() or ""
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return RemoteError(f"{self._address} does not answer: {details}")
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                for detail in status_pb2.Status.FromString(value).details:
                    bad = error_details_pb2.BadRequest()
                    if detail.Unpack(bad) and bad.field_violations:
                        first = bad.field_violations[0]
                        outer, _, inner = first.field.partition(".")  # `model.prices` in a request, `prices` in a file
                        return RemoteError(first.description, inner or outer, code in _RACES)
        return RemoteError(f"{code.name}: {details}", raced=code in _RACES)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
