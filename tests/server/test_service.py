"""End to end through a real channel: decide, report in every way, explain, and the catalogue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf import field_mask_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from pointsman.bandit.event import Record
from pointsman.bandit.state import State as FoldedState
from pointsman.bandit.state import apply, fingerprint
from pointsman.bandit.trials import QUOTA
from pointsman.server.codec.event import read_event
from pointsman.v1 import (
    catalog_pb2,
    catalog_service_pb2,
    context_pb2,
    decision_pb2,
    insight_service_pb2,
    router_service_pb2,
)
from tests.server.conftest import MODELS, Scenario, Service

Run = Callable[[Scenario], None]


async def insight(service: Service) -> insight_service_pb2.GetBucketInsightResponse:
    return await service.insight.GetBucketInsight(insight_service_pb2.GetBucketInsightRequest(name="buckets/b"))


async def of_model(service: Service, model: str) -> insight_service_pb2.ModelInsight:
    return next(arm for arm in (await insight(service)).models if arm.model == model)


async def get(service: Service, name: str) -> router_service_pb2.GetDecisionResponse:
    return await service.router.GetDecision(router_service_pb2.GetDecisionRequest(name=name))


def test_a_decision_event_is_complete(run: Run) -> None:
    async def scenario(service: Service) -> None:
        decision = await service.decide(explain=True)
        assert decision.name.startswith("decisions/")
        assert {decision.model, *decision.fallbacks} == {f"models/{m}" for m in MODELS}
        assert decision.upstream == decision.model.removeprefix("models/")
        assert sum(c.propensity for c in decision.candidates) == pytest.approx(1, abs=1e-9)
        chosen = next(c for c in decision.candidates if c.model == decision.model)
        assert chosen.propensity == pytest.approx(decision.propensity, abs=1e-9)
        assert decision.expire_time.seconds - decision.create_time.seconds == 100
        for _ in range(5):  # learning does not change what was decided
            await service.report((await service.decide()).name, quality=1.0)
        explained = (await get(service, decision.name)).decision
        assert explained == decision

    run(scenario)


def test_outcomes_in_parts_late_repeated_corrected(run: Run) -> None:
    async def scenario(service: Service) -> None:
        decision = await service.decide()
        await service.report(decision.name, cost_usd=0.25, latency_seconds=2.0)
        for _ in range(3):
            answer = await service.report(decision.name, quality=0.25, idempotency_key="judge")
        assert answer.duplicate
        answer = await service.report(decision.name, quality=0.75, idempotency_key="second look", success=True)
        assert not answer.duplicate
        assert answer.outcome.quality == 0.75
        assert answer.outcome.cost_usd == 0.25
        assert answer.outcome.success
        arm = await of_model(service, decision.model)
        assert arm.quality_observations == arm.cost_observations == arm.latency_observations == 1
        assert arm.mean_quality == 0.75
        assert arm.spend_usd == 0.25
        (outcome,) = (await get(service, decision.name)).outcomes
        assert outcome.reports == 3

    run(scenario)


def test_votes_and_parts(run: Run) -> None:
    async def scenario(service: Service) -> None:
        rules = catalog_pb2.OutcomeRules(quality=catalog_pb2.AGGREGATION_MEAN, cost=catalog_pb2.AGGREGATION_SUM)
        request = catalog_service_pb2.UpdateBucketRequest(
            bucket=catalog_pb2.Bucket(name="buckets/b", outcome_rules=rules),
            update_mask=field_mask_pb2.FieldMask(paths=["outcome_rules"]),
        )
        await service.catalog.UpdateBucket(request)
        decision = await service.decide()
        await asyncio.gather(*(service.report(decision.name, quality=q, cost_usd=0.5) for q in (0, 0.5, 1, 0.5)))
        arm = await of_model(service, decision.model)
        assert arm.mean_quality == pytest.approx(0.5)
        assert arm.spend_usd == pytest.approx(2.0)
        assert arm.quality_observations == 1

    run(scenario)


def test_a_fallback_that_answered_is_learned_for_itself(run: Run) -> None:
    async def scenario(service: Service) -> None:
        decision = await service.decide()
        await service.report(decision.name, success=False)
        await service.report(decision.name, model=decision.fallbacks[0], quality=1.0, success=True)
        assert (await of_model(service, decision.model)).failures == 1
        fallback = await of_model(service, decision.fallbacks[0])
        assert fallback.quality_observations == fallback.successes == 1
        assert len((await get(service, decision.name)).outcomes) == 2

    run(scenario)


def test_repeating_a_request_answers_the_first_decision(run: Run) -> None:
    async def scenario(service: Service) -> None:
        decisions = await asyncio.gather(*(service.decide(request_id="r") for _ in range(20)))
        assert len({d.name for d in decisions}) == 1
        assert (await service.decide(request_id="other")).name != decisions[0].name
        contexts = [context_pb2.Context(numbers={"n": i / 10}) for i in range(7)]
        batch = router_service_pb2.BatchDecideRequest(bucket="buckets/b", contexts=contexts, request_id="batch")
        first, second = (await service.router.BatchDecide(batch)), (await service.router.BatchDecide(batch))
        assert [d.name for d in first.decisions] == [d.name for d in second.decisions]
        assert (await insight(service)).decisions == 9

    run(scenario)


def test_insight_warns_of_features_that_are_not_as_declared(run: Run) -> None:
    async def scenario(service: Service) -> None:
        schema = catalog_pb2.ContextSchema(
            numbers=[
                catalog_pb2.NumberFeature(name="size", scale=1e6),
                catalog_pb2.NumberFeature(name="age", optional=True),
                catalog_pb2.NumberFeature(name="fine"),
            ],
            categories=[catalog_pb2.CategoryFeature(name="lang", values=["en"], open=True)],
            embeddings=[catalog_pb2.EmbeddingFeature(name="v", dimension=2)],
        )
        bucket = catalog_pb2.Bucket(name="buckets/odd", context_schema=schema)
        await service.catalog.CreateBucket(catalog_service_pb2.CreateBucketRequest(bucket=bucket))
        for i in range(64):
            context = context_pb2.Context(
                numbers={"size": i, "fine": i / 32, **({"age": 1.0} if i % 4 == 0 else {})},
                categories={"lang": f"l{i}"},
                embeddings={"v": context_pb2.Embedding(values=[60, 80])},
            )
            await service.decide("buckets/odd", context=context)
        request = insight_service_pb2.GetBucketInsightRequest(name="buckets/odd")
        features = {f.feature: f for f in (await service.insight.GetBucketInsight(request)).features}
        size, age, fine, lang, v = (features[name] for name in ("size", "age", "fine", "lang", "v"))
        assert size.rescaled and size.mean == 31.5 and "declare center 31.5" in size.warning
        assert age.missing_share == 0.75 and "missing from 75%" in age.warning
        assert (fine.warning, fine.rescaled, fine.sampled) == ("", False, 64)
        assert lang.outside_share == 1.0 and "100% of requests" in lang.warning
        assert v.rescaled and v.mean == pytest.approx(100.0) and "declare scale 0.01" in v.warning

    run(scenario)


def test_insight_warns_of_list_prices_that_are_not_what_is_paid(run: Run) -> None:
    async def scenario(service: Service) -> None:
        prices = catalog_pb2.Prices(input_usd_per_million_tokens=2.0, output_usd_per_million_tokens=10.0)
        model = catalog_pb2.Model(name="models/listed", prices=prices)
        await service.catalog.CreateModel(catalog_service_pb2.CreateModelRequest(model=model))
        bucket = catalog_pb2.Bucket(name="buckets/paid", models=["models/listed"])
        await service.catalog.CreateBucket(catalog_service_pb2.CreateBucketRequest(bucket=bucket))
        request = insight_service_pb2.GetBucketInsightRequest(name="buckets/paid")
        (before,) = (await service.insight.GetBucketInsight(request)).models
        assert not before.HasField("list_price_ratio")
        for i in range(12):
            decision = await service.decide("buckets/paid", context=context_pb2.Context(input_tokens=1000))
            await service.report(decision.name, cost_usd=0.0035, output_tokens=500)
            if i == 3:
                (early,) = (await service.insight.GetBucketInsight(request)).models
                assert not early.list_price_warning
        (after,) = (await service.insight.GetBucketInsight(request)).models
        assert after.list_price_ratio == pytest.approx(0.5)
        assert after.list_price_calls == 12
        assert "calls cost 0.5 times what its list prices say, over 12 calls" in after.list_price_warning

    run(scenario)


def test_insight_shows_a_floor_on_mean_quality(run: Run) -> None:
    async def scenario(service: Service) -> None:
        objective = catalog_pb2.Objective(mode=catalog_pb2.OBJECTIVE_MODE_COST_FIRST, min_mean_quality=0.8)
        bucket = catalog_pb2.Bucket(name="buckets/promised", objective=objective)
        await service.catalog.CreateBucket(catalog_service_pb2.CreateBucketRequest(bucket=bucket))
        request = insight_service_pb2.GetBucketInsightRequest(name="buckets/promised")
        before = (await service.insight.GetBucketInsight(request)).quality_floor
        assert before.min_mean_quality == 0.8 and not before.HasField("mean_quality")
        made = [await service.decide("buckets/promised", context=context_pb2.Context()) for _ in range(4)]
        for decision in made[:2]:
            await service.report(decision.name, quality=0.75, cost_usd=0.001)
        after = (await service.insight.GetBucketInsight(request)).quality_floor
        assert (after.decisions, after.judged) == (4, 2)
        assert 0.5 < after.mean_quality < 0.75
        assert not (await insight(service)).HasField("quality_floor")
        with pytest.raises(grpc.aio.AioRpcError, match=r"objective\.min_mean_quality"):
            await service.decide("buckets/b", objective=objective)

    run(scenario)


def test_batches(run: Run) -> None:
    async def scenario(service: Service) -> None:
        contexts = [context_pb2.Context(numbers={"n": i / 100}) for i in range(100)]
        batch = router_service_pb2.BatchDecideRequest(bucket="buckets/b", contexts=contexts, explain=True)
        decisions = (await service.router.BatchDecide(batch)).decisions
        assert all(sum(c.propensity for c in d.candidates) == pytest.approx(1, abs=1e-9) for d in decisions)
        requests = [
            router_service_pb2.ReportOutcomeRequest(decision=d.name, outcome={"quality": 0.5}, idempotency_key="k")
            for d in [*decisions, *decisions]
        ]
        requests.append(router_service_pb2.ReportOutcomeRequest(decision=decisions[0].name, outcome={"quality": 7}))
        answer = await service.router.BatchReportOutcomes(
            router_service_pb2.BatchReportOutcomesRequest(requests=requests)
        )
        assert [r.response.duplicate for r in answer.results[:-1]] == [False] * 100 + [True] * 100
        error = answer.results[-1].error
        assert error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert error.field == "requests[200].outcome.quality"
        assert sum(m.quality_observations for m in (await insight(service)).models) == 100

    run(scenario)


def test_the_catalogue(run: Run) -> None:
    async def scenario(service: Service) -> None:
        rpc = catalog_service_pb2
        created = await service.catalog.CreateModel(
            rpc.CreateModelRequest(model=catalog_pb2.Model(name="models/new", tags={"region": "eu"}))
        )
        etag = created.model.etag
        masked = rpc.UpdateModelRequest(
            model=catalog_pb2.Model(name="models/new", display_name="New", etag=etag),
            update_mask=field_mask_pb2.FieldMask(paths=["display_name"]),
        )
        changed = (await service.catalog.UpdateModel(masked)).model
        assert changed.tags == {"region": "eu"}
        assert changed.etag != etag
        with pytest.raises(grpc.aio.AioRpcError) as stale:
            await service.catalog.UpdateModel(masked)
        assert stale.value.code() == grpc.StatusCode.ABORTED
        same = rpc.UpdateModelRequest(model=changed)
        assert (await service.catalog.UpdateModel(same)).model.etag == changed.etag
        names, token = [], ""
        while True:
            page = await service.catalog.ListModels(rpc.ListModelsRequest(page_size=2, page_token=token))
            names += [m.name for m in page.models]
            token = page.next_page_token
            if not token:
                break
        assert names == sorted(f"models/{m}" for m in (*MODELS, "new"))
        pinned = catalog_pb2.Bucket(name="buckets/pinned", models=["models/new"])
        await service.catalog.CreateBucket(rpc.CreateBucketRequest(bucket=pinned))
        with pytest.raises(grpc.aio.AioRpcError, match="buckets/pinned") as used:
            await service.catalog.DeleteModel(rpc.DeleteModelRequest(name="models/new"))
        assert used.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        await service.catalog.DeleteBucket(rpc.DeleteBucketRequest(name="buckets/pinned"))
        await service.catalog.DeleteModel(rpc.DeleteModelRequest(name="models/new"))
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await service.catalog.GetModel(rpc.GetModelRequest(name="models/new"))
        assert gone.value.code() == grpc.StatusCode.NOT_FOUND

    run(scenario)


def test_projects(run: Run) -> None:
    async def scenario(service: Service) -> None:
        rpc, catalog = catalog_service_pb2, service.catalog
        budget = catalog_pb2.Budget(usd_per_period=5, period={"seconds": 60}, hard=True)
        project = catalog_pb2.Project(name="projects/p", display_name="P", budget=budget)
        created = (await catalog.CreateProject(rpc.CreateProjectRequest(project=project))).project
        assert created.budget == budget
        assert (await catalog.GetProject(rpc.GetProjectRequest(name="projects/p"))).project == created
        with pytest.raises(grpc.aio.AioRpcError) as twice:
            await catalog.CreateProject(rpc.CreateProjectRequest(project=project))
        assert twice.value.code() == grpc.StatusCode.ALREADY_EXISTS
        masked = rpc.UpdateProjectRequest(
            project={"name": "projects/p", "etag": created.etag, "budget": {"usd_per_period": 7}},
            update_mask={"paths": ["budget.usd_per_period"]},
        )
        changed = (await catalog.UpdateProject(masked)).project
        assert changed.budget == catalog_pb2.Budget(usd_per_period=7, period={"seconds": 60}, hard=True)
        assert changed.display_name == "P"
        with pytest.raises(grpc.aio.AioRpcError) as stale:
            await catalog.UpdateProject(masked)
        assert stale.value.code() == grpc.StatusCode.ABORTED
        same = (await catalog.UpdateProject(rpc.UpdateProjectRequest(project=changed))).project
        assert same.etag == changed.etag
        other = rpc.UpdateProjectRequest(project={"name": "projects/o"}, allow_missing=True)
        await catalog.UpdateProject(other)
        page = await catalog.ListProjects(rpc.ListProjectsRequest(page_size=1))
        assert [p.name for p in page.projects] == ["projects/o"]
        page = await catalog.ListProjects(rpc.ListProjectsRequest(page_token=page.next_page_token))
        assert [p.name for p in page.projects] == ["projects/p"]
        assert page.next_page_token == ""
        for i in range(12):
            bucket = catalog_pb2.Bucket(name=f"buckets/u{i:02d}", project="projects/p")
            assert (await catalog.CreateBucket(rpc.CreateBucketRequest(bucket=bucket))).bucket.project == "projects/p"
        with pytest.raises(grpc.aio.AioRpcError, match="and 2 more") as used:
            await catalog.DeleteProject(rpc.DeleteProjectRequest(name="projects/p"))
        assert used.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        details = dict(used.value.trailing_metadata() or ())["grpc-status-details-bin"]
        failure = error_details_pb2.PreconditionFailure()
        assert any(detail.Unpack(failure) for detail in status_pb2.Status.FromString(details).details)
        assert [v.subject for v in failure.violations] == [f"buckets/u{i:02d}" for i in range(10)]
        for i in range(12):  # moved away, by a mask that names the project alone
            moved = {"name": f"buckets/u{i:02d}", "project": "projects/o" if i % 2 else ""}
            request = rpc.UpdateBucketRequest(bucket=moved, update_mask={"paths": ["project"]})
            assert (await catalog.UpdateBucket(request)).bucket.project == moved["project"]
        await catalog.DeleteProject(rpc.DeleteProjectRequest(name="projects/p", etag=changed.etag))
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await catalog.GetProject(rpc.GetProjectRequest(name="projects/p"))
        assert gone.value.code() == grpc.StatusCode.NOT_FOUND
        again = (await catalog.CreateProject(rpc.CreateProjectRequest(project=project))).project
        assert int(again.etag) > int(changed.etag)

    run(scenario)


def test_masks_change_only_named_fields(run: Run) -> None:
    async def scenario(service: Service) -> None:
        async def update(paths: list[str], **fields: Any) -> catalog_pb2.Bucket:
            request = catalog_service_pb2.UpdateBucketRequest(
                bucket=catalog_pb2.Bucket(name="buckets/b", **fields), update_mask={"paths": paths}
            )
            return (await service.catalog.UpdateBucket(request)).bucket

        before = await update(["budget", "half_life"], budget={"usd_per_period": 2}, half_life={"seconds": 3600})
        assert before.half_life.seconds == 3600
        after = await update(["budget.period", "exploration_floor"], budget={"period": {"seconds": 60}}, project="x")
        assert after.budget == catalog_pb2.Budget(usd_per_period=2, period={"seconds": 60})
        assert after.project == ""
        after = await update(["priors.cost_usd"], priors={"cost_usd": 0.5})
        assert (after.priors.cost_usd, after.priors.latency_seconds) == (0.5, before.priors.latency_seconds)
        after = await update(["half_life", "budget", "models"], models=["models/a"])
        assert not after.HasField("half_life") and not after.HasField("budget")
        assert after.models == ["models/a"]
        assert after.context_schema == before.context_schema
        assert (await update(["context_schema.text"], context_schema={"text": {}})).context_schema.HasField("text")

    run(scenario)


def test_a_model_that_joins_later_is_shown_as_a_newcomer(run: Run) -> None:
    async def scenario(service: Service) -> None:
        for i in range(24):
            decision = await service.decide(explain=True)
            assert not decision.HasField("newcomer_quota")
            await service.report(decision.name, quality=0.5 + i % 2 / 10)
        request = catalog_service_pb2.CreateModelRequest(model=catalog_pb2.Model(name="models/new"))
        await service.catalog.CreateModel(request)
        for _ in range(100):  # ten free calls first; none of them is judged
            decision = await service.decide(explain=True)
            if decision.HasField("newcomer_quota"):
                break
        assert decision.newcomer_quota == pytest.approx(QUOTA)
        assert [c.model for c in decision.candidates if c.newcomer] == ["models/new"]
        assert sum(c.propensity for c in decision.candidates) == pytest.approx(1, abs=1e-9)
        new = next(c for c in decision.candidates if c.newcomer)
        assert new.propensity <= QUOTA + decision_floor(decision)
        assert (await get(service, decision.name)).decision == decision
        assert {m.model for m in (await insight(service)).models if m.newcomer} == {"models/new"}

    run(scenario)


def decision_floor(decision: decision_pb2.Decision) -> float:
    """The largest part of a propensity that the exploration floor's default can make up."""
    return 0.01 / len(decision.candidates)


def test_switching_a_model_off_acts_on_the_next_decision(run: Run) -> None:
    async def scenario(service: Service) -> None:
        for name in MODELS[:2]:
            request = catalog_service_pb2.SetModelAvailabilityRequest(
                name=f"models/{name}", availability=catalog_pb2.MODEL_AVAILABILITY_DISABLED, reason="outage"
            )
            await service.catalog.SetModelAvailability(request)
        decision = await service.decide(explain=True)
        assert decision.model == f"models/{MODELS[2]}"
        assert decision.propensity == 1.0
        off = next(c for c in decision.candidates if c.model == "models/a")
        assert [e.reason for e in off.exclusions] == [decision_pb2.EXCLUSION_REASON_UNAVAILABLE]

    run(scenario)


def test_the_exported_journal_folds_to_the_same_state(run: Run) -> None:
    async def scenario(service: Service) -> None:
        for i in range(30):
            decision = await service.decide()
            await service.report(decision.name, quality=i / 30, cost_usd=0.001 * i)
        state = FoldedState()
        async for part in service.insight.ExportJournal(insight_service_pb2.ExportJournalRequest()):
            for record in part.records:
                apply(state, Record(record.position, record.event.time_ns, read_event(record.event, {})))
        assert fingerprint(state) == fingerprint(service.replica.state)

    run(scenario)


def test_watching(run: Run) -> None:
    async def scenario(service: Service) -> None:
        call = service.insight.WatchDecisions(insight_service_pb2.WatchDecisionsRequest(bucket="buckets/b"))
        await call.initial_metadata()
        names = [(await service.decide()).name for _ in range(5)]
        assert [(await call.read()).decision.name for _ in range(5)] == names
        call.cancel()

    run(scenario)


def test_a_full_disk_refuses_and_recovers(run: Run) -> None:
    async def scenario(service: Service) -> None:
        decision = await service.decide()
        writer = service.replica.journal.store.writer  # type: ignore[attr-defined]
        pages = writer.execute("PRAGMA page_count").fetchone()[0]
        writer.execute(f"PRAGMA max_page_count = {pages}")
        before = fingerprint(service.replica.state)
        contexts = [context_pb2.Context(numbers={"n": 0})] * 2000
        big = router_service_pb2.BatchDecideRequest(bucket="buckets/b", contexts=contexts)
        with pytest.raises(grpc.aio.AioRpcError, match="full") as refused:
            await service.router.BatchDecide(big)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert fingerprint(service.replica.state) == before
        assert (await get(service, decision.name)).decision.name == decision.name
        writer.execute("PRAGMA max_page_count = 1000000")
        assert len((await service.router.BatchDecide(big)).decisions) == 2000
        await service.report(decision.name, quality=1.0)

    run(scenario)


def test_an_unforeseen_fault_of_the_journal_fails_the_call_and_not_the_server(run: Run) -> None:
    async def scenario(service: Service) -> None:
        journal = service.replica.journal
        append = journal.append

        def broken(*_: object) -> None:
            raise OverflowError("no such luck")

        journal.append = broken  # type: ignore[method-assign, assignment]
        with pytest.raises(grpc.aio.AioRpcError, match="no such luck") as refused:
            await service.decide()
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        journal.append = append  # type: ignore[method-assign]
        await service.decide()

    run(scenario)


def test_the_clock_may_jump(run: Run) -> None:
    async def scenario(service: Service) -> None:
        first = await service.decide()
        service.clock[0] -= 3600 * 10**9
        second = await service.decide()
        await service.report(first.name, quality=1.0)
        await service.report(second.name, quality=1.0)
        assert second.create_time.ToNanoseconds() >= first.create_time.ToNanoseconds()
        service.clock[0] += 3600 * 10**9
        third = await service.decide()
        await service.report(third.name, quality=1.0)
        assert sum(m.quality_observations for m in (await insight(service)).models) == 3

    run(scenario)


def test_health_and_reflection(run: Run) -> None:
    async def scenario(service: Service) -> None:
        health = health_pb2_grpc.HealthStub(service.channel)
        await health.Check(health_pb2.HealthCheckRequest())
        reflection = reflection_pb2_grpc.ServerReflectionStub(service.channel)

        async def asked() -> object:
            yield reflection_pb2.ServerReflectionRequest(list_services="")

        async for answer in reflection.ServerReflectionInfo(asked()):
            names = {s.name for s in answer.list_services_response.service}
            assert {"pointsman.v1.RouterService", "pointsman.v1.CatalogService", "grpc.health.v1.Health"} <= names

    run(scenario)
