"""Behaviour of the AIPs: etags, masks, pages, names, and idempotent requests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from pointsman.bandit.errors import FieldError
from pointsman.server.names import parse
from pointsman.v1 import (
    catalog_pb2,
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    context_pb2,
    insight_service_pb2,
    router_service_pb2,
    router_service_pb2_grpc,
)
from tests.processes import Serve
from tests.server.conftest import Scenario, Service
from tests.server.test_errors import failure, fields

Run = Callable[[Scenario], None]
rpc = catalog_service_pb2
Code = grpc.StatusCode
KINDS = ("Model", "Bucket", "Project")


def request(method: str, kind: str, plural: bool = False, **more: Any) -> Message:
    return getattr(rpc, f"{method}{kind}{'s' if plural else ''}Request")(**more)


async def call(service: Service, method: str, kind: str, **more: Any) -> Any:
    """Call a standard method; the resource if there is one in the answer."""
    answer = await getattr(service.catalog, method + kind)(request(method, kind, **more))
    return getattr(answer, kind.lower(), answer)


def name(kind: str, id_: str) -> str:
    return f"{kind.lower()}s/{id_}"


async def names(service: Service, kind: str, **more: Any) -> tuple[list[str], str]:
    answer = await getattr(service.catalog, f"List{kind}s")(request("List", kind, plural=True, **more))
    return [resource.name for resource in getattr(answer, kind.lower() + "s")], answer.next_page_token


async def refused(awaitable: Any, code: grpc.StatusCode, *expected: str) -> None:
    error, details = await failure(awaitable)
    assert (error.code(), fields(details)) == (code, list(expected))


# --- standard methods, etags, masks (AIP-131 to 135, 154) ------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_life_of_a_resource(run: Run, kind: str) -> None:
    field, mine = kind.lower(), name(kind, "x/y:1")

    async def scenario(service: Service) -> None:
        for method in ("Get", "Delete"):
            await refused(call(service, method, kind, name=mine), Code.NOT_FOUND, "name")
        update = {"update_mask": {"paths": ["display_name"]}}
        await refused(
            call(service, "Update", kind, **{field: {"name": mine}}, **update), Code.NOT_FOUND, f"{field}.name"
        )
        created = await call(service, "Create", kind, **{field: {"name": mine, "display_name": "first"}})
        assert created.etag
        assert await call(service, "Get", kind, name=mine) == created
        await refused(call(service, "Create", kind, **{field: {"name": mine}}), Code.ALREADY_EXISTS, f"{field}.name")
        same = await call(service, "Update", kind, **{field: created})
        assert same == created  # a change that changes nothing
        changed = await call(service, "Update", kind, **{field: {"name": mine, "display_name": "2"}}, **update)
        assert (changed.display_name, changed.etag != created.etag) == ("2", True)
        await refused(call(service, "Update", kind, **{field: created}), Code.ABORTED, "etag")
        await refused(call(service, "Delete", kind, name=mine, etag=created.etag), Code.ABORTED, "etag")
        await refused(call(service, "Delete", kind, name=mine, etag="x"), Code.INVALID_ARGUMENT, "etag")
        await call(service, "Delete", kind, name=mine, etag=changed.etag)
        await refused(call(service, "Delete", kind, name=mine), Code.NOT_FOUND, "name")
        again = await call(service, "Update", kind, **{field: {"name": mine}}, allow_missing=True)
        assert again.etag not in (created.etag, changed.etag)  # of another life

    run(scenario)


@pytest.mark.parametrize("kind", KINDS)
def test_masks(run: Run, kind: str) -> None:
    field, mine = kind.lower(), name(kind, "m")

    async def scenario(service: Service) -> None:
        def update(paths: list[str], allow_missing: bool = False, **values: Any) -> Any:
            fields_ = {field: {"name": mine, **values}, "update_mask": {"paths": paths}}
            return call(service, "Update", kind, allow_missing=allow_missing, **fields_)

        await refused(update(["no_such"], allow_missing=True), Code.INVALID_ARGUMENT, "update_mask")
        await refused(update(["*", "name"], allow_missing=True), Code.INVALID_ARGUMENT, "update_mask")
        await refused(call(service, "Get", kind, name=mine), Code.NOT_FOUND, "name")  # a bad mask creates nothing
        created = await update(["display_name"], allow_missing=True, display_name="d")
        assert created.display_name == "d"
        for bad in (
            ["no_such"],
            ["display_name", "no_such"],
            ["*", "display_name"],
            ["name"],
            ["etag"],
            [""],
            ["display_name.x"],
        ):
            await refused(update(bad, display_name="e"), Code.INVALID_ARGUMENT, "update_mask")
        assert await call(service, "Get", kind, name=mine) == created  # nothing of a refused update was taken
        assert (await update(["*"])).display_name == ""  # all of it is replaced
        assert (await update([], display_name="f")).display_name == "f"  # so it is without a mask

    run(scenario)


def test_an_etag_of_zero_or_of_the_future_is_refused(run: Run) -> None:
    async def scenario(service: Service) -> None:
        for etag, code in (("0", Code.INVALID_ARGUMENT), ("-1", Code.INVALID_ARGUMENT), ("10000", Code.ABORTED)):
            error, _ = await failure(call(service, "Update", "Model", model={"name": "models/a", "etag": etag}))
            assert error.code() == code
        missing = {"name": "models/new", "etag": "3"}  # what was seen is gone: it is not made anew
        await refused(call(service, "Update", "Model", model=missing, allow_missing=True), Code.ABORTED, "etag")

    run(scenario)


# --- pages (AIP-158) -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_pages(run: Run, kind: str) -> None:
    async def scenario(service: Service) -> None:
        before, _ = await names(service, kind)
        for i in range(7):
            await call(service, "Create", kind, **{kind.lower(): {"name": name(kind, f"p{i}")}})
        everything = sorted([*before, *(name(kind, f"p{i}") for i in range(7))])
        assert await names(service, kind) == (everything, "")
        assert await names(service, kind, page_size=0) == (everything, "")
        assert await names(service, kind, page_size=len(everything)) == (everything, "")  # no empty page follows
        for bad in (-1, -(2**31)):
            await refused(names(service, kind, page_size=bad), Code.INVALID_ARGUMENT, "page_size")
        await refused(names(service, kind, page_size=1001), Code.INVALID_ARGUMENT, "page_size")
        for token in ("garbage", "\x00", "é", "=" * 5000, "p3"):
            await refused(names(service, kind, page_token=token), Code.INVALID_ARGUMENT, "page_token")
        first, token = await names(service, kind, page_size=2)
        other = KINDS[(KINDS.index(kind) + 1) % 3]
        await refused(names(service, other, page_token=token), Code.INVALID_ARGUMENT, "page_token")
        # between two pages one that was seen, the last that was seen, and one that was not go, and others come
        await call(service, "Delete", kind, name=name(kind, "p6"))
        await call(service, "Create", kind, **{kind.lower(): {"name": name(kind, "z")}})
        rest = []
        while token:
            page, token = await names(service, kind, page_size=3, page_token=token)  # the size may change
            assert page
            rest += page
        assert first + rest == sorted({*everything, name(kind, "z")} - {name(kind, "p6")})

    run(scenario)


def test_the_page_goes_on_where_the_last_one_ended_though_that_is_gone(run: Run) -> None:
    async def scenario(service: Service) -> None:
        first, token = await names(service, "Model", page_size=2)
        for name in first:
            await call(service, "Delete", "Model", name=name)
        assert (await names(service, "Model", page_token=token))[0] == ["models/c/d"]

    run(scenario)


# --- names (AIP-122) -------------------------------------------------------------------------------------------------


@given(st.text(max_size=140))
def test_a_name_is_read_as_it_is_or_refused_by_field(text: str) -> None:
    legal = 0 < len(text) <= 128 and all(c.isascii() and (c.isalnum() or c in "._:@/-") for c in text)
    try:
        id_ = parse(f"models/{text}", "models", "model.name")
    except FieldError as error:
        refused_field = error.field
    else:
        refused_field = ""
        assert id_ == text
    assert legal or refused_field == "model.name"


# --- custom methods, use --------------------------------------------------------------------------------------------


def test_switching_is_idempotent_and_survives_an_update(run: Run) -> None:
    async def scenario(service: Service) -> None:
        off = rpc.SetModelAvailabilityRequest(name="models/a", availability="MODEL_AVAILABILITY_DISABLED", reason="x")
        first = (await service.catalog.SetModelAvailability(off)).model
        position = service.replica.state.position
        assert (await service.catalog.SetModelAvailability(off)).model == first
        assert service.replica.state.position == position  # the second one wrote nothing
        new = await call(service, "Update", "Model", model={"name": "models/a", "display_name": "n", "availability": 1})
        assert new.availability == catalog_pb2.MODEL_AVAILABILITY_DISABLED
        off.name = "models/none"
        await refused(service.catalog.SetModelAvailability(off), Code.NOT_FOUND, "name")

    run(scenario)


def test_a_stale_etag_takes_precedence_over_use(run: Run) -> None:
    async def scenario(service: Service) -> None:
        await call(service, "Create", "Bucket", bucket={"name": "buckets/u", "models": ["models/a"]})
        await refused(call(service, "Delete", "Model", name="models/a", etag="999"), Code.ABORTED, "etag")
        error, details = await failure(call(service, "Delete", "Model", name="models/a"))
        assert error.code() == Code.FAILED_PRECONDITION
        assert [v.subject for v in details["PreconditionFailure"].violations] == ["buckets/u"]

    run(scenario)


# --- streams ---------------------------------------------------------------------------------------------------------


def test_exporting_from_a_position(run: Run) -> None:
    async def scenario(service: Service) -> None:
        async def positions(first: int) -> list[int]:
            stream = service.insight.ExportJournal(insight_service_pb2.ExportJournalRequest(from_position=first))
            return [record.position async for response in stream for record in response.records]

        for _ in range(3):
            await service.decide()
        end = service.replica.state.position
        assert await positions(0) == await positions(1) == list(range(1, end + 1))
        assert await positions(end) == [end]
        assert await positions(end + 1) == await positions(2**63 - 1) == []
        for bad in (-1, -(2**63)):
            await refused(positions(bad), Code.INVALID_ARGUMENT, "from_position")

    run(scenario)


def test_watching_sees_each_decision_of_its_bucket_once(run: Run) -> None:
    async def scenario(service: Service) -> None:
        await call(service, "Create", "Bucket", bucket={"name": "buckets/other"})
        watch = insight_service_pb2.WatchDecisionsRequest
        missing = service.insight.WatchDecisions(watch(bucket="buckets/none"))
        await refused(missing.read(), Code.NOT_FOUND, "bucket")
        everything, mine = (
            service.insight.WatchDecisions(watch()),
            service.insight.WatchDecisions(watch(bucket="buckets/b")),
        )
        for stream in (everything, mine):
            await stream.initial_metadata()
        decisions = [await service.decide() for _ in range(3)]
        other = await service.decide("buckets/other", context=context_pb2.Context())
        assert [(await mine.read()).decision for _ in decisions] == decisions
        assert [(await everything.read()).decision for _ in range(4)] == [*decisions, other]
        mine.cancel()
        everything.cancel()

    run(scenario)


# --- a decision is what it was ---------------------------------------------------------------------------------------


def test_a_decision_is_explained_with_its_own_numbers_after_later_changes(serve: Serve, tmp_path: Path) -> None:
    decisions: list[Any] = []

    def explained(channel: grpc.Channel) -> list[Any]:
        router = router_service_pb2_grpc.RouterServiceStub(channel)
        get = router_service_pb2.GetDecisionRequest
        return [router.GetDecision(get(name=decision.name)).decision for decision in decisions]

    served = serve(tmp_path / "data")
    with grpc.insecure_channel(served.address) as channel:
        catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        router = router_service_pb2_grpc.RouterServiceStub(channel)
        for model_id in ("a", "b", "c"):
            catalog.CreateModel(
                rpc.CreateModelRequest(model={"name": f"models/{model_id}", "prices": {"request_usd": 0.1}})
            )
        bucket = {
            "name": "buckets/b",
            "context_schema": {"numbers": [{"name": "n"}]},
            "quality_range": {"min": 0, "max": 10},
        }
        catalog.CreateBucket(rpc.CreateBucketRequest(bucket=bucket))
        for i in range(12):
            decide = router_service_pb2.DecideRequest(
                bucket="buckets/b",
                context=context_pb2.Context(numbers={"n": i / 10}),
                explain=True,
                limits={"max_cost_usd": 0.5, "allow_least_violating": True} if i % 3 == 0 else None,
            )
            decisions.append(router.Decide(decide).decision)
            outcome = {"quality": 5 + i % 5, "cost_usd": 0.1 * i}
            router.ReportOutcome(router_service_pb2.ReportOutcomeRequest(decision=decisions[-1].name, outcome=outcome))
        assert explained(channel) == decisions
    assert served.stop() == 0
    served = serve(tmp_path / "data")
    with grpc.insecure_channel(served.address) as channel:
        assert explained(channel) == decisions  # after a restart, from the journal
        catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        catalog.UpdateBucket(
            rpc.UpdateBucketRequest(
                bucket={
                    "name": "buckets/b",
                    "quality_range": {"min": -5, "max": 50},
                    "context_schema": {"numbers": [{"name": "m"}]},
                    "objective": {"mode": "OBJECTIVE_MODE_QUALITY_FIRST"},
                    "exploration_floor": 0.5,
                }
            )
        )
        assert explained(channel) == decisions  # after its bucket changed
        catalog.DeleteBucket(rpc.DeleteBucketRequest(name="buckets/b"))
        assert explained(channel) == decisions  # after it is gone
