"""CatalogService: the standard methods of models, buckets and projects over gRPC.

>>> from pointsman.bandit.catalog import Model
>>> write_model_state(ModelState(Model("small"), available=False, version=7)).etag
'7'
"""

from __future__ import annotations

from pointsman.bandit.bucket import BucketState
from pointsman.bandit.errors import FieldError
from pointsman.bandit.state import ModelState, ProjectState
from pointsman.server.codec.catalog import (
    read_bucket,
    read_model,
    read_project,
    write_bucket,
    write_model,
    write_project,
)
from pointsman.server.names import parse
from pointsman.server.rpc.collection import Collection
from pointsman.server.rpc.status import Call, unary
from pointsman.server.state.replica import Replica
from pointsman.v1 import catalog_pb2 as pb
from pointsman.v1 import catalog_service_pb2 as rpc
from pointsman.v1 import catalog_service_pb2_grpc

MAX_REASON = 1024
"""Longest reason for switching a model, in characters."""


class CatalogService(catalog_service_pb2_grpc.CatalogServiceServicer):
    """Serves a replica's catalogue. Etags are the journal positions of a resource's last change."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._models = Collection(
            "models",
            "model",
            lambda: replica.state.models,
            replica.catalogue.model,
            read_model,
            write_model_state,
            replica.catalogue.put_model,
            replica.catalogue.delete_model,
        )
        self._buckets = Collection(
            "buckets",
            "bucket",
            lambda: replica.state.buckets,
            replica.catalogue.bucket,
            read_bucket,
            write_bucket_state,
            replica.catalogue.put_bucket,
            replica.catalogue.delete_bucket,
        )
        self._projects = Collection(
            "projects",
            "project",
            lambda: replica.state.projects,
            replica.catalogue.project,
            read_project,
            write_project_state,
            replica.catalogue.put_project,
            replica.catalogue.delete_project,
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
        """Remove a model and its posteriors."""
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
        model = await self._replica.catalogue.set_availability(id_, available, request.reason)
        return rpc.SetModelAvailabilityResponse(model=write_model_state(model))

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


def write_model_state(state: ModelState) -> pb.Model:
    """The message of a model as it is, with its etag."""
    return write_model(state.model, state.available, str(state.version))


def write_bucket_state(state: BucketState) -> pb.Bucket:
    """The message of a bucket as it is, with its etag."""
    return write_bucket(state.config, str(state.version))


def write_project_state(state: ProjectState) -> pb.Project:
    """The message of a project as it is, with its etag."""
    return write_project(state.project, str(state.version))
