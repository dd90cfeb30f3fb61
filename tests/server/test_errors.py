"""Every row of the table of errors in docs/api.md, provoked through a real channel."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from pointsman.server.errors import OverloadedError
from pointsman.server.guards.admission import Admission
from pointsman.server.journal.interface import JournalError
from pointsman.server.names import decision_name
from pointsman.server.rpc.status import DOMAIN, STATUSES
from pointsman.v1 import catalog_pb2, catalog_service_pb2, router_service_pb2
from tests.processes import ROOT
from tests.server.conftest import Scenario, Service

Run = Callable[[Scenario], None]
Row = tuple[str, str]
DETAILS = {
    name: getattr(error_details_pb2, name)
    for name in ("ErrorInfo", "BadRequest", "ResourceInfo", "PreconditionFailure", "RetryInfo")
}


def table() -> dict[Row, set[str]]:
    """Status and reason of each row, with the further details it promises."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").partition("## Errors")[2].partition("\n## ")[0]
    rows = {}
    for line in re.findall(r"^\|(.+)\|$", text, flags=re.M)[2:]:
        status, reason, _, details = (cell.strip() for cell in line.split("|"))
        assert (status, reason) not in rows, "a row occurs twice"
        rows[status, reason] = {name.strip() for name in details.split(",") if name.strip()}
    return rows


async def failure(call: Awaitable[Any]) -> tuple[grpc.aio.AioRpcError, dict[str, Any]]:
    """The error of a call and its details by type."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rpc_status.from_call(caught.value)
    details: dict[str, Any] = {}
    for packed in status.details if status is not None else ():
        name = packed.TypeName().removeprefix("google.rpc.")
        assert name not in details, "a detail occurs twice"
        details[name] = DETAILS[name]()
        assert packed.Unpack(details[name])
    return caught.value, details


def fields(details: dict[str, Any]) -> list[str]:
    return [violation.field for violation in details["BadRequest"].field_violations]


def create(name: str) -> Message:
    return catalog_service_pb2.CreateModelRequest(model=catalog_pb2.Model(name=name))


Case = Callable[[Service, pytest.MonkeyPatch], Awaitable[tuple[grpc.aio.AioRpcError, dict[str, Any]]]]
CASES: dict[Row, Case] = {}


def case(status: str, reason: str) -> Callable[[Case], Case]:
    def add(case: Case) -> Case:
        assert (status, reason) not in CASES
        CASES[status, reason] = case
        return case

    return add


@case("INVALID_ARGUMENT", "INVALID_FIELD")
async def invalid(service: Service, patch: pytest.MonkeyPatch) -> Any:
    error, details = await failure(service.decide("b"))
    assert fields(details) == ["bucket"]
    assert details["BadRequest"].field_violations[0].description == "expected buckets/{id}, got 'b'"
    return error, details


@case("NOT_FOUND", "NOT_FOUND")
async def missing(service: Service, patch: pytest.MonkeyPatch) -> Any:
    kinds = {
        "buckets/none": service.decide("buckets/none"),
        "models/none": service.catalog.GetModel(catalog_service_pb2.GetModelRequest(name="models/none")),
        "projects/none": service.catalog.GetProject(catalog_service_pb2.GetProjectRequest(name="projects/none")),
        decision_name(bytes(16)): service.report(decision_name(bytes(16)), quality=1.0),
    }
    for name, call in kinds.items():
        error, details = await failure(call)
        assert details["ResourceInfo"].resource_name == name
        assert details["ResourceInfo"].resource_type == name.partition("/")[0]
        assert error.code() == grpc.StatusCode.NOT_FOUND
    assert fields(details) == ["decision"]
    return error, details


@case("ALREADY_EXISTS", "ALREADY_EXISTS")
async def exists(service: Service, patch: pytest.MonkeyPatch) -> Any:
    error, details = await failure(service.catalog.CreateModel(create("models/a")))
    assert fields(details) == ["model.name"]
    assert details["ResourceInfo"].resource_name == "models/a"
    return error, details


@case("FAILED_PRECONDITION", "NOTHING_ELIGIBLE")
async def nothing(service: Service, patch: pytest.MonkeyPatch) -> Any:
    error, details = await failure(service.decide(limits={"required_capabilities": ["vision"]}))
    assert fields(details) == ["limits"]
    violations = details["PreconditionFailure"].violations
    assert {v.subject for v in violations} == {"models/a", "models/b", "models/c/d"}
    assert {v.type for v in violations} == {"INELIGIBLE"}
    assert all("vision" in v.description for v in violations)
    return error, details


@case("FAILED_PRECONDITION", "ATTRIBUTION_WINDOW_ENDED")
async def expired(service: Service, patch: pytest.MonkeyPatch) -> Any:
    decision = await service.decide()
    service.clock[0] += 101 * 10**9
    error, details = await failure(service.report(decision.name, quality=1.0))
    assert fields(details) == ["decision"]
    return error, details


@case("FAILED_PRECONDITION", "IN_USE")
async def in_use(service: Service, patch: pytest.MonkeyPatch) -> Any:
    for i in range(12):
        bucket = catalog_pb2.Bucket(name=f"buckets/u{i:02d}", models=["models/a"])
        await service.catalog.CreateBucket(catalog_service_pb2.CreateBucketRequest(bucket=bucket))
    error, details = await failure(service.catalog.DeleteModel(catalog_service_pb2.DeleteModelRequest(name="models/a")))
    assert fields(details) == ["name"]
    assert [v.subject for v in details["PreconditionFailure"].violations] == [f"buckets/u{i:02d}" for i in range(10)]
    assert "2 more" in error.details()
    return error, details


@case("ABORTED", "STALE_ETAG")
async def stale(service: Service, patch: pytest.MonkeyPatch) -> Any:
    await service.catalog.DeleteModel(
        catalog_service_pb2.DeleteModelRequest(
            name="models/b",
            etag=(await service.catalog.GetModel(catalog_service_pb2.GetModelRequest(name="models/b"))).model.etag,
        )
    )
    error, details = await failure(
        service.catalog.DeleteModel(catalog_service_pb2.DeleteModelRequest(name="models/a", etag="999"))
    )
    assert fields(details) == ["etag"]
    return error, details


@case("RESOURCE_EXHAUSTED", "OVERLOADED")
async def overloaded(service: Service, patch: pytest.MonkeyPatch) -> Any:
    await service.decide()
    patch.setattr(Admission, "refuse", lambda self: OverloadedError(0.25))
    error, details = await failure(service.decide())
    patch.undo()
    delay = details["RetryInfo"].retry_delay.ToMilliseconds()
    assert dict(error.trailing_metadata() or ())["grpc-retry-pushback-ms"] == str(delay)
    assert delay == 250
    return error, details


@case("DEADLINE_EXCEEDED", "LATE")
async def late(service: Service, patch: pytest.MonkeyPatch) -> Any:
    real = Admission.enter
    patch.setattr(Admission, "enter", lambda self, weight, remaining: real(self, weight, 0.0))  # as if it had passed
    return await failure(service.decide())


@case("UNAVAILABLE", "UNAVAILABLE")
async def unavailable(service: Service, patch: pytest.MonkeyPatch) -> Any:
    def full(*arguments: Any) -> Any:
        raise JournalError("cannot append: the disk is full")

    patch.setattr(service.replica.journal, "append", full)
    error, details = await failure(service.decide())
    patch.undo()
    assert details["RetryInfo"].retry_delay.seconds == 1
    assert "the disk is full" in error.details()
    assert (await service.decide()).name  # nothing is broken by it
    return error, details


@case("INTERNAL", "")
async def internal(service: Service, patch: pytest.MonkeyPatch) -> Any:
    def fault(*arguments: Any) -> Any:
        raise ZeroDivisionError("secret")

    patch.setattr(service.replica.records, "get", fault)
    request = router_service_pb2.GetDecisionRequest(name=decision_name(bytes(16)))
    error, details = await failure(service.router.GetDecision(request))
    assert "secret" not in error.details()
    return error, details


def test_every_row_has_a_case_and_every_case_a_row() -> None:
    assert set(table()) == set(CASES) | OTHERS


OTHERS: set[Row] = {
    ("RESOURCE_EXHAUSTED", "RATE_LIMITED"),
    ("UNAUTHENTICATED", "UNAUTHENTICATED"),
    ("PERMISSION_DENIED", "PERMISSION_DENIED"),
}
"""Rows that `test_security.py` drives: they need a server that asks for keys."""


@pytest.mark.parametrize("row", sorted(CASES), ids=" ".join)
def test_errors_match_the_documented_table(run: Run, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    status, reason = row

    async def scenario(service: Service) -> None:
        error, details = await CASES[row](service, monkeypatch)
        monkeypatch.undo()
        assert error.code().name == status
        expected = table()[row]
        if reason:
            info = details.pop("ErrorInfo")
            assert (info.reason, info.domain) == (reason, DOMAIN)
        assert set(details) == expected
        assert error.details()

    run(scenario)


def test_every_status_is_documented() -> None:
    assert set(table()) == {(code.name, reason) for code, reason in STATUSES.values()} | {("INTERNAL", "")}
