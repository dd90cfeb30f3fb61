"""CatalogService: standard methods on models and buckets over gRPC."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from bandit.errors import FieldError, within
from bandit.state import BucketState, ModelState
from pointsman.v1 import catalog_pb2 as pb
from pointsman.v1 import catalog_service_pb2 as rpc
from pointsman.v1 import catalog_service_pb2_grpc
from server.codec import read_bucket, read_model, write_bucket, write_model
from server.errors import AlreadyExistsError, StaleError, UnavailableError
from server.names import parse
from server.replica import ATTEMPTS, Replica
from server.status import unary

DEFAULT_PAGE = 100
MAX_PAGE = 1000
MAX_REASON = 1024

Call = grpc.aio.ServicerContext[Any, Any]
Resource = TypeVar("Resource", pb.Model, pb.Bucket)
State = TypeVar("State", ModelState, BucketState)


class CatalogService(catalog_service_pb2_grpc.CatalogServiceServicer):
    """Serves a replica's catalogue. Etags are the journal positions of a resource's last change."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    @unary
    async def CreateModel(self, request: rpc.CreateModelRequest, context: Call) -> rpc.CreateModelResponse:
        """Add a model."""
        with within("model"):
            model = read_model(request.model)
        return rpc.CreateModelResponse(model=_model(await self._replica.put_model(model, seen=0)))

    @unary
    async def GetModel(self, request: rpc.GetModelRequest, context: Call) -> rpc.GetModelResponse:
        """One model."""
        return rpc.GetModelResponse(model=_model(self._replica.model(parse(request.name, "models", "name"))))

    @unary
    async def ListModels(self, request: rpc.ListModelsRequest, context: Call) -> rpc.ListModelsResponse:
        """Models by name."""
        models = self._replica.state.models
        ids, token = _page(sorted(models), request.page_size, request.page_token)
        return rpc.ListModelsResponse(models=[_model(models[id_]) for id_ in ids], next_page_token=token)

    @unary
    async def UpdateModel(self, request: rpc.UpdateModelRequest, context: Call) -> rpc.UpdateModelResponse:
        """Change a model, or the fields of it that the mask names."""
        with within("model"):
            id_ = parse(request.model.name, "models", "name")
        seen = _seen(request.model.etag, "model.etag")

        async def attempt() -> ModelState:
            known = self._replica.state.models.get(id_)
            if known is None and not request.allow_missing:
                self._replica.model(id_, "model.name")
            merged = _masked(_model(known) if known else None, request.model, request.update_mask)
            with within("model"):
                model = read_model(merged)
            return await self._replica.put_model(model, _guard(seen, request.update_mask, known))

        return rpc.UpdateModelResponse(model=_model(await _again_if_stale(attempt, seen)))

    @unary
    async def DeleteModel(self, request: rpc.DeleteModelRequest, context: Call) -> rpc.DeleteModelResponse:
        """Remove a model and what was learned of it."""
        await self._replica.delete_model(parse(request.name, "models", "name"), _seen(request.etag, "etag"))
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
        with within("bucket"):
            bucket = read_bucket(request.bucket)
        return rpc.CreateBucketResponse(bucket=_bucket(await self._replica.put_bucket(bucket, seen=0)))

    @unary
    async def GetBucket(self, request: rpc.GetBucketRequest, context: Call) -> rpc.GetBucketResponse:
        """One bucket."""
        id_ = parse(request.name, "buckets", "name")
        return rpc.GetBucketResponse(bucket=_bucket(self._replica.bucket(id_, "name")))

    @unary
    async def ListBuckets(self, request: rpc.ListBucketsRequest, context: Call) -> rpc.ListBucketsResponse:
        """Buckets by name."""
        buckets = self._replica.state.buckets
        ids, token = _page(sorted(buckets), request.page_size, request.page_token)
        return rpc.ListBucketsResponse(buckets=[_bucket(buckets[id_]) for id_ in ids], next_page_token=token)

    @unary
    async def UpdateBucket(self, request: rpc.UpdateBucketRequest, context: Call) -> rpc.UpdateBucketResponse:
        """Change a bucket, or the fields of it that the mask names."""
        with within("bucket"):
            id_ = parse(request.bucket.name, "buckets", "name")
        seen = _seen(request.bucket.etag, "bucket.etag")

        async def attempt() -> BucketState:
            known = self._replica.state.buckets.get(id_)
            if known is None and not request.allow_missing:
                self._replica.bucket(id_, "bucket.name")
            merged = _masked(_bucket(known) if known else None, request.bucket, request.update_mask)
            with within("bucket"):
                bucket = read_bucket(merged)
            return await self._replica.put_bucket(bucket, _guard(seen, request.update_mask, known))

        return rpc.UpdateBucketResponse(bucket=_bucket(await _again_if_stale(attempt, seen)))

    @unary
    async def DeleteBucket(self, request: rpc.DeleteBucketRequest, context: Call) -> rpc.DeleteBucketResponse:
        """Remove a bucket and its posteriors."""
        await self._replica.delete_bucket(parse(request.name, "buckets", "name"), _seen(request.etag, "etag"))
        return rpc.DeleteBucketResponse()


def _model(state: ModelState) -> pb.Model:
    return write_model(state.model, state.available, str(state.version))


def _bucket(state: BucketState) -> pb.Bucket:
    return write_bucket(state.config, str(state.version))


def _guard(seen: int | None, mask: FieldMask, known: ModelState | BucketState | None) -> int | None:
    """The change that an update builds on: that of the etag, or, for some fields only, the one they were merged with."""
    if seen is not None or not mask.paths:
        return seen
    return known.version if known else 0


async def _again_if_stale(attempt: Callable[[], Awaitable[State]], seen: int | None) -> State:
    """``attempt``, and again if another change came first, so that neither is lost; not if the caller gave an etag."""
    for _ in range(ATTEMPTS):
        try:
            return await attempt()
        except (StaleError, AlreadyExistsError):
            if seen is not None:
                raise
    raise UnavailableError("too many changes of this resource at the same time; nothing was written, retry")


def _seen(etag: str, field: str) -> int | None:
    if not etag:
        return None
    if not (etag.isascii() and etag.isdigit() and len(etag) < 19 and int(etag)):
        raise FieldError(field, f"expected an etag that this service gave, got {etag[:40]!r}")
    return int(etag)


def _page(ids: Sequence[str], size: int, token: str) -> tuple[Sequence[str], str]:
    """The ids after ``token`` (the last id of the page before), and the token of the next page."""
    if not 0 <= size <= MAX_PAGE:
        raise FieldError("page_size", f"expected 0 to {MAX_PAGE}, got {size}")
    rest = [id_ for id_ in ids if id_ > token]
    page = rest[: size or DEFAULT_PAGE]
    return page, page[-1] if len(page) < len(rest) else ""


def _masked(old: Resource | None, new: Resource, mask: FieldMask) -> Resource:
    """``old`` with the fields of ``new`` that ``mask`` names; all of ``new`` if there is no mask or no ``old``."""
    if old is None or not mask.paths or list(mask.paths) == ["*"]:
        return new
    for path in mask.paths:
        field = new.DESCRIPTOR.fields_by_name.get(path)
        if field is None or path in ("name", "etag", "availability"):
            raise FieldError(
                "update_mask",
                f"expected names of changeable top-level fields, got {path!r}",
            )
        old.ClearField(path)
        value = getattr(new, path)
        if field.is_repeated:
            _copy_repeated(old, path, value)
        elif isinstance(value, Message):
            if new.HasField(path):
                getattr(old, path).CopyFrom(value)
        elif not field.has_presence or new.HasField(path):
            setattr(old, path, value)
    return old


def _copy_repeated(message: Message, path: str, value: Any) -> None:
    target = getattr(message, path)
    if hasattr(target, "update"):
        target.update(value)
    else:
        target.extend(value)
