"""Stored decisions refer to their bucket's terms, which readers get back."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.bandit.catalog import Mode, Objective, QualityRange
from pointsman.bandit.state import State, fingerprint
from pointsman.bandit.terms import TermsHistory, note_terms
from pointsman.server.codec.terms import fill_in, read_terms
from pointsman.server.journal.sqlite_store import read_rows
from pointsman.server.state.recovery import fold_rows
from pointsman.server.tools.export import write_journal
from pointsman.server.tools.import_journal import import_journal
from pointsman.v1 import catalog_pb2, catalog_service_pb2, journal_pb2, router_service_pb2
from tests.server.conftest import Service, recovered

Run = Callable[[Callable[[Service], Awaitable[None]]], None]


async def put_bucket(service: Service, high: float = 1.0, **fields: object) -> None:
    bucket = catalog_pb2.Bucket(
        name="buckets/b",
        context_schema=catalog_pb2.ContextSchema(numbers=[catalog_pb2.NumberFeature(name="n")]),
        quality_range=catalog_pb2.QualityRange(min=0.0, max=high),
        **fields,  # type: ignore[arg-type]
    )
    bucket.attribution_window.seconds = 100
    await service.catalog.UpdateBucket(catalog_service_pb2.UpdateBucketRequest(bucket=bucket, allow_missing=True))


async def explained(service: Service, name: str) -> bytes:
    request = router_service_pb2.GetDecisionRequest(name=name)
    return bytes((await service.router.GetDecision(request)).decision.SerializeToString(deterministic=True))


async def edits_and_decisions(service: Service) -> list[str]:
    """Decisions before and after edits of all that terms are made of; their names."""
    names = []

    async def decisions() -> None:
        for _ in range(3):
            names.append((await service.decide()).name)
        own = catalog_pb2.Objective(mode=catalog_pb2.OBJECTIVE_MODE_QUALITY_FIRST)
        names.append((await service.decide(objective=own)).name)

    await put_bucket(service)
    await decisions()
    await put_bucket(service, objective={"mode": "OBJECTIVE_MODE_COST_FIRST"})
    await decisions()
    model = catalog_pb2.Model(name="models/new")
    await service.catalog.UpdateModel(catalog_service_pb2.UpdateModelRequest(model=model, allow_missing=True))
    await decisions()
    await put_bucket(service, high=10.0)
    await decisions()
    await put_bucket(service, high=10.0, models=["models/a", "models/new"])
    await decisions()
    return names


def test_decisions_keep_their_terms_after_later_changes(run: Run, tmp_path: Path) -> None:
    answers: dict[str, bytes] = {}

    async def scenario(service: Service) -> None:
        for name in await edits_and_decisions(service):
            answers[name] = await explained(service, name)
        await put_bucket(service, high=3.0, models=["models/a"])
        await service.catalog.DeleteBucket(catalog_service_pb2.DeleteBucketRequest(name="buckets/b"))
        await put_bucket(service, high=2.0)
        service.replica.records.forget()  # read them from the journal
        for name, answer in answers.items():
            assert await explained(service, name) == answer

    run(scenario)
    assert fingerprint(recovered(tmp_path)) == fingerprint(fold_rows(read_rows(tmp_path), State()))

    async def after_a_restart(service: Service) -> None:
        for name, answer in answers.items():
            assert await explained(service, name) == answer

    run(after_a_restart)


def test_stored_decisions_omit_terms_and_exported_ones_are_complete(run: Run, tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        await edits_and_decisions(service)

    run(scenario)
    stored = [journal_pb2.JournalEvent.FromString(row.data).decision_made for row in read_rows(tmp_path)]
    stored = [decision for decision in stored if decision.id]
    assert len(stored) == 20
    assert not any(decision.models or decision.HasField("quality_range") for decision in stored)
    assert [decision.HasField("objective") for decision in stored] == [False, False, False, True] * 5
    export = tmp_path / "export.jsonl"
    write_journal(read_rows(tmp_path), export, State())
    records = [json.loads(line)["event"] for line in export.read_text().splitlines()]
    exported = [record["decision_made"] for record in records if "decision_made" in record]
    assert all({"models", "objective", "quality_range"} <= decision.keys() for decision in exported)
    assert {decision["quality_range"]["max"] for decision in exported} == {1.0, 10.0}
    imported = import_journal(export, tmp_path / "imported")
    assert imported.state == fingerprint(fold_rows(read_rows(tmp_path), State()))


def test_an_objective_that_the_request_brings_is_its_own(run: Run) -> None:
    async def scenario(service: Service) -> None:
        own = catalog_pb2.Objective(mode=catalog_pb2.OBJECTIVE_MODE_QUALITY_FIRST)
        decision = await service.decide(objective=own)
        service.replica.records.forget()
        request = router_service_pb2.GetDecisionRequest(name=decision.name)
        again = (await service.router.GetDecision(request)).decision
        assert again.objective.mode == catalog_pb2.OBJECTIVE_MODE_QUALITY_FIRST
        with pytest.raises(grpc.aio.AioRpcError, match="decisions/"):
            await service.router.GetDecision(router_service_pb2.GetDecisionRequest(name="decisions/" + "0" * 26))

    run(scenario)


@given(st.booleans(), st.booleans(), st.booleans())
def test_terms_in_a_message_take_precedence(models: bool, objective: bool, scale: bool) -> None:
    history: TermsHistory = {}
    note_terms(history, "b", 2, ("a", "b"), Objective(Mode.QUALITY_FIRST), QualityRange(0.0, 5.0))
    message = journal_pb2.DecisionMade(bucket="b", state_position=4)
    if models:
        message.models.extend(["c"])
    if objective:
        message.objective.CopyFrom(catalog_pb2.Objective(mode=catalog_pb2.OBJECTIVE_MODE_COST_FIRST))
    if scale:
        message.quality_range.CopyFrom(catalog_pb2.QualityRange(min=1.0, max=2.0))
    terms = read_terms(message, history)
    assert terms.models == (("c",) if models else ("a", "b"))
    assert terms.objective.mode is (Mode.COST_FIRST if objective else Mode.QUALITY_FIRST)
    assert terms.quality == (QualityRange(1.0, 2.0) if scale else QualityRange(0.0, 5.0))
    fill_in(message, history)
    assert read_terms(message, {}).quality == terms.quality


def test_unknown_terms_are_an_error_naming_bucket_and_position() -> None:
    message = journal_pb2.DecisionMade(bucket="b", state_position=4)
    with pytest.raises(ValueError, match=r"terms that are not known: buckets/b has no terms at position 4"):
        read_terms(message, {})
