"""CatalogService: standard methods on models, buckets and projects over gRPC."""

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
from pointsman.server.codec.catalog import (
    read_bucket,
    read_model,
    read_project,
    write_bucket,
    write_model,
    write_project,
)
from pointsman.server.errors import AlreadyExistsError, StaleError, UnavailableError
from pointsman.server.names import parse
from pointsman.server.rpc.status import Call, unary
from pointsman.server.state.replica import ATTEMPTS, Replica
from pointsman.v1 import catalog_pb2 as pb
from pointsman.v1 import catalog_service_pb2 as rpc
from pointsman.v1 import catalog_service_pb2_grpc

DEFAULT_PAGE = 100
MAX_PAGE = 1000
MAX_REASON = 1024

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


class CatalogService(catalog_service_pb2_grpc.CatalogServiceServicer):
    """Serves a replica's catalogue. Etags are the journal positions of a resource's last change."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._models = Collection(
            "models",
            "model",
            lambda: replica.state.models,
            replica.model,
            read_model,
            _model,
            replica.put_model,
            replica.delete_model,
        )
        self._buckets = Collection(
            "buckets",
            "bucket",
            lambda: replica.state.buckets,
            replica.bucket,
            read_bucket,
            _bucket,
            replica.put_bucket,
            replica.delete_bucket,
        )
        self._projects = Collection(
            "projects",
            "project",
            lambda: replica.state.projects,
            replica.project,
            read_project,
            _project,
            replica.put_project,
            replica.delete_project,
        )

    @unary
    async def CreateModel(self, request: rpc.CreateModelRequest, context: Call) -> rpc.CreateModelResponse:
        """Add a model."""
        return rpc.CreateModelResponse(model=await self._models.create(request.model))

    @unary
    async def GetModel(self, request: rpc.GetModelRequest, context: Call) -> rpc.GetModelResponse:
        """One model."""
        return rpc.GetModelResponse(model=self._models.get(request.name))

    @unary
    async def ListModels(self, request: rpc.ListModelsRequest, context: Call) -> rpc.ListModelsResponse:
        """Models by name."""
        models, token = self._models.page(request.page_size, request.page_token)
        return rpc.ListModelsResponse(models=models, next_page_token=token)

    @unary
    async def UpdateModel(self, request: rpc.UpdateModelRequest, context: Call) -> rpc.UpdateModelResponse:
        """Change a model, or the fields of it that the mask names."""
        model = await self._models.update(request.model, request.update_mask, request.allow_missing)
        return rpc.UpdateModelResponse(model=model)

    @unary
    async def DeleteModel(self, request: rpc.DeleteModelRequest, context: Call) -> rpc.DeleteModelResponse:
        """Remove a model and what was learned of it."""
        await self._models.delete(request.name, request.etag)
        return rpc.DeleteModelResponse()

    @unary
    async def SetModelAvailability(
        self, request: rpc.SetModelAvailabilityRequest, context: Call
    ) -> rpc.SetModelAvailabilityResponse:
        """Switch a model on or off."""
        id_ = parse(request.name, "models", "name")
        if request.availability not in (
            pb.MODEL_AVAILABILITY_ENABLED,
            pb.MODEL_AVAILABILITY_DISABLED,
        ):
            raise FieldError(
                "availability",
                f"expected ENABLED or DISABLED, got {request.availability}",
            )
        if len(request.reason) > MAX_REASON:
            raise FieldError(
                "reason",
                f"expected at most {MAX_REASON} characters, got {len(request.reason)}",
            )
        available = request.availability == pb.MODEL_AVAILABILITY_ENABLED
        model = await self._replica.set_availability(id_, available, request.reason)
        return rpc.SetModelAvailabilityResponse(model=_model(model))

    @unary
    async def CreateBucket(self, request: rpc.CreateBucketRequest, context: Call) -> rpc.CreateBucketResponse:
        """Add a bucket."""
        return rpc.CreateBucketResponse(bucket=await self._buckets.create(request.bucket))

    @unary
    async def GetBucket(self, request: rpc.GetBucketRequest, context: Call) -> rpc.GetBucketResponse:
        """One bucket."""
        return rpc.GetBucketResponse(bucket=self._buckets.get(request.name))

    @unary
    async def ListBuckets(self, request: rpc.ListBucketsRequest, context: Call) -> rpc.ListBucketsResponse:
        """Buckets by name."""
        buckets, token = self._buckets.page(request.page_size, request.page_token)
        return rpc.ListBucketsResponse(buckets=buckets, next_page_token=token)

    @unary
    async def UpdateBucket(self, request: rpc.UpdateBucketRequest, context: Call) -> rpc.UpdateBucketResponse:
        """Change a bucket, or the fields of it that the mask names."""
        bucket = await self._buckets.update(request.bucket, request.update_mask, request.allow_missing)
        return rpc.UpdateBucketResponse(bucket=bucket)

    @unary
    async def DeleteBucket(self, request: rpc.DeleteBucketRequest, context: Call) -> rpc.DeleteBucketResponse:
        """Remove a bucket and its posteriors."""
        await self._buckets.delete(request.name, request.etag)
        return rpc.DeleteBucketResponse()

    @unary
    async def CreateProject(self, request: rpc.CreateProjectRequest, context: Call) -> rpc.CreateProjectResponse:
        """Add a project."""
        return rpc.CreateProjectResponse(project=await self._projects.create(request.project))

    @unary
    async def GetProject(self, request: rpc.GetProjectRequest, context: Call) -> rpc.GetProjectResponse:
        """One project."""
        return rpc.GetProjectResponse(project=self._projects.get(request.name))

    @unary
    async def ListProjects(self, request: rpc.ListProjectsRequest, context: Call) -> rpc.ListProjectsResponse:
        """Projects by name."""
        projects, token = self._projects.page(request.page_size, request.page_token)
        return rpc.ListProjectsResponse(projects=projects, next_page_token=token)

    @unary
    async def UpdateProject(self, request: rpc.UpdateProjectRequest, context: Call) -> rpc.UpdateProjectResponse:
        """Change a project, or the fields of it that the mask names."""
        project = await self._projects.update(request.project, request.update_mask, request.allow_missing)
        return rpc.UpdateProjectResponse(project=project)

    @unary
    async def DeleteProject(self, request: rpc.DeleteProjectRequest, context: Call) -> rpc.DeleteProjectResponse:
        """Remove a project, which no bucket may name, and the count of what it spent."""
        await self._projects.delete(request.name, request.etag)
        return rpc.DeleteProjectResponse()


def _model(state: ModelState) -> pb.Model:
    return write_model(state.model, state.available, str(state.version))


def _bucket(state: BucketState) -> pb.Bucket:
    return write_bucket(state.config, str(state.version))


def _project(state: ProjectState) -> pb.Project:
    return write_project(state.project, str(state.version))


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
