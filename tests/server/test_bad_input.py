"""Bad input: the right status, the field named, nothing written, and the server stays up."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.bandit.state import fingerprint
from pointsman.server.names import decision_name
from pointsman.server.rpc.router import MAX_BATCH
from pointsman.v1 import (
    catalog_pb2,
    catalog_service_pb2,
    context_pb2,
    decision_pb2,
    insight_service_pb2,
    router_service_pb2,
)
from tests.processes import WAIT
from tests.server.conftest import Scenario, Service

Run = Callable[[Scenario], None]
Code = grpc.StatusCode
INVALID, MISSING, FAILED = Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION


def decide(context: dict[str, Any] | None = None, bucket: str = "buckets/b", **fields: Any) -> Message:
    context = {"numbers": {"n": 0.5}} if context is None else context
    return router_service_pb2.DecideRequest(bucket=bucket, context=context_pb2.Context(**context), **fields)


def vector(*values: float) -> dict[str, Any]:
    return {"numbers": {"n": 0}, "embeddings": {"e": context_pb2.Embedding(values=values)}}


def report(decision: str = "DECISION", model: str = "", key: str = "", **outcome: Any) -> Message:
    return router_service_pb2.ReportOutcomeRequest(decision=decision, outcome=outcome, model=model, idempotency_key=key)


def batch(*contexts: context_pb2.Context) -> Message:
    return router_service_pb2.BatchDecideRequest(bucket="buckets/b", contexts=contexts)


def create_bucket(**fields: Any) -> Message:
    fields.setdefault("name", "buckets/new")
    return catalog_service_pb2.CreateBucketRequest(bucket=catalog_pb2.Bucket(**fields))


def create_project(**fields: Any) -> Message:
    fields.setdefault("name", "projects/new")
    return catalog_service_pb2.CreateProjectRequest(project=catalog_pb2.Project(**fields))


def create_model(**fields: Any) -> Message:
    return catalog_service_pb2.CreateModelRequest(model=catalog_pb2.Model(**fields))


def objective(mode: str, **fields: Any) -> dict[str, Any]:
    return {"objective": catalog_pb2.Objective(mode=f"OBJECTIVE_MODE_{mode}", **fields)}


def limits(**fields: Any) -> dict[str, Any]:
    return {"limits": decision_pb2.Limits(**fields)}


UNKNOWN = decision_name(bytes(16))
GOOD = context_pb2.Context(numbers={"n": 0.5})

CASES: list[tuple[str, Message, grpc.StatusCode, str]] = [
    ("Decide", decide(bucket="buckets/none"), MISSING, "bucket"),
    ("Decide", decide(bucket="b"), INVALID, "bucket"),
    ("Decide", decide(bucket=""), INVALID, "bucket"),
    ("Decide", decide({"numbers": {"n": math.nan}}), INVALID, 'context.numbers["n"]'),
    ("Decide", decide({"numbers": {"n": math.inf}}), INVALID, 'context.numbers["n"]'),
    ("Decide", decide({}), INVALID, 'context.numbers["n"]'),
    ("Decide", decide({"numbers": {"n": 0, "m": 0}}), INVALID, 'context.numbers["m"]'),
    ("Decide", decide({"numbers": {"n": 0}, "categories": {"d": "x"}}), INVALID, 'context.categories["d"]'),
    ("Decide", decide({"numbers": {"n": 0}, "categories": {"c": "z"}}), INVALID, 'context.categories["c"]'),
    ("Decide", decide(vector(1, 2)), INVALID, 'context.embeddings["e"]'),
    ("Decide", decide(vector(1, 2, math.nan)), INVALID, 'context.embeddings["e"]'),
    ("Decide", decide({"numbers": {"n": 0}, "text": "x" * ((1 << 20) + 1)}), INVALID, "context.text"),
    ("Decide", decide({"numbers": {"n": 0}, "input_tokens": -1}), INVALID, "context.input_tokens"),
    ("Decide", decide(request_id="x" * 129), INVALID, "request_id"),
    ("Decide", decide(**objective("WEIGHTED")), INVALID, "objective.cost_weight"),
    ("Decide", decide(**objective("BALANCED", cost_weight=-1)), INVALID, "objective.cost_weight"),
    ("Decide", decide(**objective("BALANCED", cost_weight=math.nan)), INVALID, "objective.cost_weight"),
    ("Decide", decide(**objective("COST_FIRST", cost_weight=1)), INVALID, "objective.cost_weight"),
    ("Decide", decide(**objective("QUALITY_FIRST", min_quality=0.5)), INVALID, "objective.min_quality"),
    ("Decide", decide(**objective("COST_FIRST", min_quality=2)), INVALID, "objective.min_quality"),
    ("Decide", decide(**limits(max_cost_usd=0)), INVALID, "limits.max_cost_usd"),
    ("Decide", decide(**limits(max_latency_seconds=math.inf)), INVALID, "limits.max_latency_seconds"),
    ("Decide", decide(**limits(min_quality=-1)), INVALID, "limits.min_quality"),
    ("Decide", decide(**limits(allow_models=["models/none"])), INVALID, "limits.allow_models"),
    ("Decide", decide(**limits(deny_models=["x"])), INVALID, "limits.deny_models[0]"),
    ("Decide", decide(**limits(max_cost_usd=1e-30)), FAILED, "limits"),
    ("Decide", decide(**limits(required_capabilities=["vision"])), FAILED, "limits"),
    ("BatchDecide", batch(), INVALID, "contexts"),
    ("BatchDecide", batch(*[GOOD] * (MAX_BATCH + 1)), INVALID, "contexts"),
    ("BatchDecide", batch(GOOD, context_pb2.Context()), INVALID, 'contexts[1].numbers["n"]'),
    ("ReportOutcome", report("decisions/none", quality=1), INVALID, "decision"),
    ("ReportOutcome", report(UNKNOWN, quality=1), MISSING, "decision"),
    ("ReportOutcome", report(), INVALID, "outcome"),
    ("ReportOutcome", report(quality=1.01), INVALID, "outcome.quality"),
    ("ReportOutcome", report(quality=math.nan), INVALID, "outcome.quality"),
    ("ReportOutcome", report(cost_usd=-0.01), INVALID, "outcome.cost_usd"),
    ("ReportOutcome", report(cost_usd=math.inf), INVALID, "outcome.cost_usd"),
    ("ReportOutcome", report(latency_seconds=-1), INVALID, "outcome.latency_seconds"),
    ("ReportOutcome", report(output_tokens=-1), INVALID, "outcome.output_tokens"),
    ("ReportOutcome", report(model="models/none", quality=1), INVALID, "model"),
    ("ReportOutcome", report(key="x" * 129, quality=1), INVALID, "idempotency_key"),
    ("ReportOutcome", report("EXPIRED", quality=1), FAILED, "decision"),
    ("BatchReportOutcomes", router_service_pb2.BatchReportOutcomesRequest(), INVALID, "requests"),
    ("GetDecision", router_service_pb2.GetDecisionRequest(name=UNKNOWN), MISSING, "name"),
    ("GetDecision", router_service_pb2.GetDecisionRequest(name="decisions/é"), INVALID, "name"),
    ("CreateModel", create_model(name="models/"), INVALID, "model.name"),
    ("CreateModel", create_model(name="models/a"), Code.ALREADY_EXISTS, "model.name"),
    ("CreateModel", create_model(name="models/n", context_window=-1), INVALID, "model.context_window"),
    (
        "CreateModel",
        create_model(name="models/n", prices=catalog_pb2.Prices(request_usd=math.nan)),
        INVALID,
        "model.prices.request_usd",
    ),
    ("CreateBucket", create_bucket(models=["models/none"]), MISSING, "bucket.models[0]"),
    ("CreateBucket", create_bucket(exploration_floor=1.5), INVALID, "bucket.exploration_floor"),
    ("CreateBucket", create_bucket(quality_range={"min": 1, "max": 1}), INVALID, "bucket.quality_range.max"),
    ("CreateBucket", create_bucket(quality_range={"min": -1e308, "max": 1e308}), INVALID, "bucket.quality_range.max"),
    ("CreateBucket", create_bucket(attribution_window={"seconds": -1}), INVALID, "bucket.attribution_window"),
    ("CreateBucket", create_bucket(attribution_window={}), INVALID, "bucket.attribution_window"),
    ("CreateBucket", create_bucket(priors={"cost_usd": 0}), INVALID, "bucket.priors.cost_usd"),
    ("CreateBucket", create_bucket(budget={}), INVALID, "bucket.budget.amount"),
    ("CreateBucket", create_bucket(budget={"usd_per_request": -1}), INVALID, "bucket.budget.usd_per_request"),
    (
        "CreateBucket",
        create_bucket(budget={"usd_per_request": 1, "hard": True}),
        INVALID,
        "bucket.budget.hard",
    ),
    ("CreateBucket", create_bucket(budget={"usd_per_period": math.nan}), INVALID, "bucket.budget.usd_per_period"),
    ("CreateBucket", create_bucket(budget={"usd_per_period": 1, "period": {}}), INVALID, "bucket.budget.period"),
    ("CreateBucket", create_bucket(half_life_outcomes=1), INVALID, "bucket.half_life_outcomes"),
    ("CreateBucket", create_bucket(half_life={}), INVALID, "bucket.half_life"),
    ("CreateBucket", create_bucket(half_life={"seconds": 59}), INVALID, "bucket.half_life"),
    ("CreateBucket", create_bucket(half_life={"seconds": -60}), INVALID, "bucket.half_life"),
    ("CreateBucket", create_bucket(half_life={"nanos": -1}), INVALID, "bucket.half_life"),
    ("CreateBucket", create_bucket(half_life={"seconds": 10_001 * 86_400}), INVALID, "bucket.half_life"),
    ("CreateBucket", create_bucket(half_life={"seconds": 2**62}), INVALID, "bucket.half_life"),
    ("CreateBucket", create_bucket(project="projects/none"), MISSING, "bucket.project"),
    ("CreateBucket", create_bucket(project="p"), INVALID, "bucket.project"),
    ("CreateBucket", create_bucket(project="projects/"), INVALID, "bucket.project"),
    ("CreateBucket", create_bucket(project="projects/a b"), INVALID, "bucket.project"),
    (
        "UpdateBucket",
        catalog_service_pb2.UpdateBucketRequest(
            bucket={"name": "buckets/b", "project": "projects/none"}, update_mask={"paths": ["project"]}
        ),
        MISSING,
        "bucket.project",
    ),
    (
        "UpdateBucket",
        catalog_service_pb2.UpdateBucketRequest(
            bucket={"name": "buckets/b", "budget": {"hard": True}}, update_mask={"paths": ["budget.hard"]}
        ),
        INVALID,
        "bucket.budget.amount",
    ),
    (
        "UpdateBucket",
        catalog_service_pb2.UpdateBucketRequest(bucket={"name": "buckets/b"}, update_mask={"paths": ["models.name"]}),
        INVALID,
        "update_mask",
    ),
    ("CreateProject", create_project(name="buckets/b"), INVALID, "project.name"),
    ("CreateProject", create_project(name="projects/a b"), INVALID, "project.name"),
    ("CreateProject", create_project(display_name="x" * 257), INVALID, "project.display_name"),
    ("CreateProject", create_project(budget={}), INVALID, "project.budget.amount"),
    (
        "CreateProject",
        create_project(budget={"usd_per_request": 1, "hard": True}),
        INVALID,
        "project.budget.hard",
    ),
    ("GetProject", catalog_service_pb2.GetProjectRequest(name="projects/none"), MISSING, "name"),
    ("GetProject", catalog_service_pb2.GetProjectRequest(name="none"), INVALID, "name"),
    (
        "UpdateProject",
        catalog_service_pb2.UpdateProjectRequest(project={"name": "projects/none"}),
        MISSING,
        "project.name",
    ),
    ("DeleteProject", catalog_service_pb2.DeleteProjectRequest(name="projects/none"), MISSING, "name"),
    ("ListProjects", catalog_service_pb2.ListProjectsRequest(page_size=1001), INVALID, "page_size"),
    (
        "CreateBucket",
        create_bucket(context_schema={"embeddings": [{"name": "e", "dimension": 0}]}),
        INVALID,
        "bucket.context_schema.embeddings[0].dimension",
    ),
    (
        "CreateBucket",
        create_bucket(context_schema={"numbers": [{"name": "n", "scale": 0}]}),
        INVALID,
        "bucket.context_schema.numbers[0].scale",
    ),
    (
        "CreateBucket",
        create_bucket(context_schema={"categories": [{"name": "c"}]}),
        INVALID,
        "bucket.context_schema.categories[0].values",
    ),
    ("UpdateModel", catalog_service_pb2.UpdateModelRequest(model={"name": "models/z"}), MISSING, "model.name"),
    (
        "UpdateModel",
        catalog_service_pb2.UpdateModelRequest(model={"name": "models/a"}, update_mask={"paths": ["prize"]}),
        INVALID,
        "update_mask",
    ),
    (
        "UpdateModel",
        catalog_service_pb2.UpdateModelRequest(model={"name": "models/a", "etag": "x"}),
        INVALID,
        "model.etag",
    ),
    (
        "UpdateModel",
        catalog_service_pb2.UpdateModelRequest(model={"name": "models/a", "etag": "999"}),
        Code.ABORTED,
        "etag",
    ),
    ("SetModelAvailability", catalog_service_pb2.SetModelAvailabilityRequest(name="models/a"), INVALID, "availability"),
    ("ListModels", catalog_service_pb2.ListModelsRequest(page_size=-1), INVALID, "page_size"),
    ("GetBucketInsight", insight_service_pb2.GetBucketInsightRequest(name="buckets/none"), MISSING, "name"),
]


async def refused(service: Service, method: str, request: Message) -> tuple[grpc.StatusCode, list[str], str]:
    """The status, the fields of BadRequest, and the message that a call is refused with."""
    stub = next(s for s in (service.router, service.catalog, service.insight) if hasattr(s, method))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(stub, method)(request)
    details = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(details)
    assert status.code == caught.value.code().value[0]
    fields = []
    for any_ in status.details:
        bad = error_details_pb2.BadRequest()
        if any_.Unpack(bad):
            fields = [violation.field for violation in bad.field_violations]
    return caught.value.code(), fields, caught.value.details() or ""


def test_every_bad_request_is_refused_by_name_and_writes_nothing(run: Run) -> None:
    async def scenario(service: Service) -> None:
        expired = await service.decide()
        service.clock[0] += 101 * 10**9
        current = await service.decide()
        before = fingerprint(service.replica.state)
        for method, request, code, field in CASES:
            if isinstance(request, router_service_pb2.ReportOutcomeRequest):
                named = {"DECISION": current.name, "EXPIRED": expired.name}
                request.decision = named.get(request.decision, request.decision)
            refusal = await refused(service, method, request)
            assert refusal[:2] == (code, [field]), (method, str(request)[:200], refusal)
            assert fingerprint(service.replica.state) == before, (method, request)
        await service.report(current.name, quality=1.0)

    run(scenario)


def test_nothing_eligible_names_the_limit_of_each_model(run: Run) -> None:
    async def scenario(service: Service) -> None:
        request = decide(**limits(max_cost_usd=1e-30, deny_models=["models/a"], required_tags={"region": "eu"}))
        code, _, message = await refused(service, "Decide", request)
        assert code == FAILED
        for part in ("a: ", "b: ", "c/d: ", "deny_models", "region=eu", "max_cost_usd"):
            assert part in message
        fallback = decide(**limits(max_cost_usd=1e-30, allow_least_violating=True))
        decision = (await service.router.Decide(fallback)).decision
        assert decision.limits_violated
        assert decision.propensity == 1.0

    run(scenario)


# --- anything at all -------------------------------------------------------------------------------------------------

_TEXT = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["buckets/b", "models/a", "buckets/f", "models/f", "projects/f", UNKNOWN, "n", "e", "c", "x", "/", "*"]
    ),
)
_FLOAT = st.one_of(st.floats(width=32), st.sampled_from([0.0, 0.5, 1.0, -1.0, math.nan, math.inf, 3e38, 1e-40]))


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return st.binary(max_size=8) if field.type == FieldDescriptor.TYPE_BYTES else _TEXT
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return _FLOAT
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return st.one_of(st.integers(0, 6), st.integers(-5, 1000))
    bits = 31 if kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32) else 63
    return st.one_of(st.integers(-3, 300), st.integers(-(2**bits), 2**bits - 1))


def fill(draw: Callable[[st.SearchStrategy[Any]], Any], message: Message, depth: int = 0) -> None:
    """Set a random part of a message's fields to random values of their types, in place."""
    for field in message.DESCRIPTOR.fields:
        if draw(st.integers(0, 2 + depth)) != 0:
            continue
        nested = field.message_type is not None
        if nested and field.message_type.GetOptions().map_entry:
            value = field.message_type.fields_by_name["value"]
            target = getattr(message, field.name)
            for _ in range(draw(st.integers(0, 2))):
                if value.message_type is None:
                    target[draw(_TEXT)] = draw(_scalar(value))
                else:
                    fill(draw, target[draw(_TEXT)], depth + 1)
        elif field.is_repeated:
            for _ in range(draw(st.integers(0, 3))):
                if nested:
                    fill(draw, getattr(message, field.name).add(), depth + 1)
                else:
                    getattr(message, field.name).append(draw(_scalar(field)))
        elif nested:
            getattr(message, field.name).SetInParent()
            fill(draw, getattr(message, field.name), depth + 1)
        else:
            setattr(message, field.name, draw(_scalar(field)))


METHODS: dict[str, type[Message]] = {
    "Decide": router_service_pb2.DecideRequest,
    "BatchDecide": router_service_pb2.BatchDecideRequest,
    "ReportOutcome": router_service_pb2.ReportOutcomeRequest,
    "BatchReportOutcomes": router_service_pb2.BatchReportOutcomesRequest,
    "GetDecision": router_service_pb2.GetDecisionRequest,
    "CreateModel": catalog_service_pb2.CreateModelRequest,
    "UpdateModel": catalog_service_pb2.UpdateModelRequest,
    "CreateBucket": catalog_service_pb2.CreateBucketRequest,
    "UpdateBucket": catalog_service_pb2.UpdateBucketRequest,
    "DeleteBucket": catalog_service_pb2.DeleteBucketRequest,
    "ListBuckets": catalog_service_pb2.ListBucketsRequest,
    "CreateProject": catalog_service_pb2.CreateProjectRequest,
    "UpdateProject": catalog_service_pb2.UpdateProjectRequest,
    "DeleteProject": catalog_service_pb2.DeleteProjectRequest,
    "GetBucketInsight": insight_service_pb2.GetBucketInsightRequest,
}
FINE = {Code.OK, INVALID, MISSING, FAILED, Code.ALREADY_EXISTS, Code.ABORTED}


@st.composite
def calls(draw: Callable[[st.SearchStrategy[Any]], Any]) -> list[tuple[str, Message]]:
    requests = []
    for _ in range(draw(st.integers(1, 6))):
        method = draw(st.sampled_from(sorted(METHODS)))
        message = METHODS[method]()
        fill(draw, message)
        requests.append((method, message))
    return requests


def test_no_request_breaks_the_server(run: Run) -> None:
    async def scenario(service: Service) -> None:
        loop = asyncio.get_running_loop()

        async def send(method: str, request: Message) -> None:
            stub = next(s for s in (service.router, service.catalog, service.insight) if hasattr(s, method))
            call = getattr(stub, method)(request, timeout=WAIT)
            code = await call.code()
            assert code in FINE, (code, await call.details(), request)

        @settings(max_examples=150)
        @given(calls())
        def fuzz(sent: list[tuple[str, Message]]) -> None:
            for method, request in sent:
                asyncio.run_coroutine_threadsafe(send(method, request), loop).result(60)

        await loop.run_in_executor(None, fuzz)
        await service.catalog.UpdateBucket(
            catalog_service_pb2.UpdateBucketRequest(bucket=catalog_pb2.Bucket(name="buckets/after"), allow_missing=True)
        )
        await service.decide("buckets/after", context=context_pb2.Context())

    run(scenario)
