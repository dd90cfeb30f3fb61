"""A server's catalogue from outside: read over gRPC, and changed so that no change made meanwhile is overwritten.

>>> in_file(BadRequest.FieldViolation(field="model.prices.request_usd", description="expected 0 or more, got -1"))
'prices.request_usd'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc
from google.rpc import status_pb2
from google.rpc.error_details_pb2 import BadRequest

from pointsman.server.catalog.plan import CatalogChange
from pointsman.server.catalog.resource import COLLECTIONS, Resource, read_resource, write_resource
from pointsman.v1 import catalog_pb2 as pb
from pointsman.v1 import catalog_service_pb2 as rpc
from pointsman.v1 import catalog_service_pb2_grpc

PAGE_SIZE = 200
"""Resources asked for at a time."""
TIMEOUT = 30.0
"""Seconds that one call may take."""
MAX_MESSAGE = 64 << 20
"""Largest answer in bytes: a page of buckets with long schemas."""
_NOUNS = {"projects": "Project", "models": "Model", "buckets": "Bucket"}
_CONFLICTS = (grpc.StatusCode.ABORTED, grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.NOT_FOUND)


class CatalogClientError(Exception):
    """A call failed. ``field`` is the field at issue, relative to the resource, if the server named one; ``conflict`` says that
    somebody else changed the catalogue meanwhile.
    """

    def __init__(self, problem: str, field: str = "", conflict: bool = False) -> None:
        super().__init__(problem)
        self.field = field
        self.conflict = conflict


@dataclass(frozen=True, slots=True)
class ServerCatalog:
    """A server's catalogue as it was read: the resources by name, and their etags."""

    resources: Mapping[str, Resource]
    etags: Mapping[str, str]


class CatalogClient:
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

    def read(self) -> ServerCatalog:
        """The whole catalogue. Raises ``CatalogClientError``, and ``FieldError`` for what this version does not know."""
        resources: dict[str, Resource] = {}
        etags: dict[str, str] = {}
        for collection in COLLECTIONS:
            token = ""
            while True:
                page = self._call("List", _NOUNS[collection] + "s", page_size=PAGE_SIZE, page_token=token)
                for message in getattr(page, collection):
                    resources[message.name], etags[message.name] = read_resource(message), message.etag
                token = page.next_page_token
                if not token:
                    break
        return ServerCatalog(resources, etags)

    def apply(self, change: CatalogChange, etag: str) -> None:
        """Make one change; ``etag`` is that of the resource as it was read. Raises ``CatalogClientError``."""
        noun = _NOUNS[change.name.partition("/")[0]]
        if change.after is None:
            self._call("Delete", noun, name=change.name, etag=etag)
            return
        if change.before is None:
            self._call("Create", noun, **{noun.lower(): write_resource(change.after)})
        elif change.before.value != change.after.value:
            self._call("Update", noun, **{noun.lower(): write_resource(change.after, etag)})
        if change.after.available != (change.before is None or change.before.available):
            switch = pb.MODEL_AVAILABILITY_ENABLED if change.after.available else pb.MODEL_AVAILABILITY_DISABLED
            self._call("Set", "ModelAvailability", name=change.name, availability=switch, reason="catalog apply")

    def _call(self, verb: str, noun: str, **fields: Any) -> Any:
        method, request = getattr(self._stub, verb + noun), getattr(rpc, f"{verb}{noun}Request")
        try:
            return method(request(**fields), timeout=TIMEOUT, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._error(error) from error

    def _error(self, error: Any) -> CatalogClientError:
        code, details = error.code(), error.details() or ""
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return CatalogClientError(f"{self._address} does not answer: {details}")
        violation = _first_violation(error.trailing_metadata() or ())
        if violation is not None:
            return CatalogClientError(violation.description, in_file(violation), code in _CONFLICTS)
        return CatalogClientError(f"{code.name}: {details}", conflict=code in _CONFLICTS)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> CatalogClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _first_violation(metadata: Any) -> BadRequest.FieldViolation | None:
    """The first wrong field that a call's trailing metadata names."""
    for key, value in metadata:
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                bad_request = BadRequest()
                if detail.Unpack(bad_request) and bad_request.field_violations:
                    return bad_request.field_violations[0]
    return None


def in_file(violation: BadRequest.FieldViolation) -> str:
    """The field of a violation as a file calls it: `model.prices` in a request is `prices` of a resource."""
    outer, _, inner = violation.field.partition(".")
    return str(inner or outer)
