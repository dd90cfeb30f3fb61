"""Hard budgets through the real service: caps hold under concurrent, cancelled and failing calls."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf import field_mask_pb2
from google.rpc import error_details_pb2, status_pb2

from pointsman.bandit.event import DecisionMade, OutcomeApplied
from pointsman.bandit.outcome import Signal
from pointsman.bandit.state import State
from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.state.reservations import Reservations, counters_of
from pointsman.server.state.rows import decode_all
from pointsman.v1 import catalog_pb2, catalog_service_pb2, context_pb2, insight_service_pb2, router_service_pb2
from tests.processes import WAIT, until
from tests.server.conftest import Scenario, Service

Run = Callable[[Scenario], None]
SECOND = 10**9
PRICES = {"a": (1.0, 10.0, 0.0), "b": (0.1, 0.4, 0.0001)}
"""Dollars per million input tokens, per million output tokens, per request. `c/d` has no prices: no bound on its calls."""
WORST = 0.001
"""The most that a call of `a` costs with 0 input tokens and 100 output tokens."""


async def put_model(service: Service, name: str, prices: tuple[float, float, float]) -> None:
    model = catalog_pb2.Model(name=f"models/{name}", max_output_tokens=100)
    model.prices.input_usd_per_million_tokens, model.prices.output_usd_per_million_tokens = prices[:2]
    model.prices.request_usd = prices[2]
    await service.catalog.UpdateModel(catalog_service_pb2.UpdateModelRequest(model=model))


async def put_bucket(service: Service, name: str, **fields: Any) -> catalog_pb2.Bucket:
    bucket = catalog_pb2.Bucket(name=f"buckets/{name}", **fields)
    request = catalog_service_pb2.UpdateBucketRequest(bucket=bucket, allow_missing=True)
    return (await service.catalog.UpdateBucket(request)).bucket


async def put_project(service: Service, name: str, **fields: Any) -> catalog_pb2.Project:
    project = catalog_pb2.Project(name=f"projects/{name}", **fields)
    request = catalog_service_pb2.UpdateProjectRequest(project=project, allow_missing=True)
    return (await service.catalog.UpdateProject(request)).project


def hard(dollars: float, seconds: int = 100) -> catalog_pb2.Budget:
    return catalog_pb2.Budget(usd_per_period=dollars, period={"seconds": seconds}, hard=True)


async def only_a(service: Service, dollars: float) -> None:
    """The bucket `one`, whose only model is `a`, with a hard budget."""
    await put_model(service, "a", PRICES["a"])
    await put_bucket(service, "one", models=["models/a"], budget=hard(dollars), attribution_window={"seconds": 10_000})


ONE = context_pb2.Context(input_tokens=0)


async def decide(service: Service, **fields: Any) -> Any:
    return await service.decide("buckets/one", context=ONE, **fields)


async def insight(service: Service, bucket: str = "one") -> insight_service_pb2.GetBucketInsightResponse:
    return await service.insight.GetBucketInsight(insight_service_pb2.GetBucketInsightRequest(name=f"buckets/{bucket}"))


async def reserved_usd(service: Service) -> float:
    """What counts against the cap of bucket `one`, in flight included."""
    return (await insight(service)).budget.reserved_usd


def refused(answers: list[Any]) -> int:
    """How many of ``answers`` are refusals because nothing is eligible; any other error is raised."""
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    for error in errors:
        if not isinstance(error, grpc.aio.AioRpcError) or error.code() != grpc.StatusCode.FAILED_PRECONDITION:
            raise error
    return len(errors)


async def most_counted(service: Service) -> dict[tuple[str, int], float]:
    """By holder of a budget and start of a period (100 s), the most that counted against it at any position of the journal.

    A decision counts with the most that its call can cost, worked out from the list prices, until its cost is reported.
    """
    counted: dict[tuple[str, int], float] = defaultdict(float)
    most: dict[tuple[str, int], float] = defaultdict(float)
    decisions: dict[bytes, tuple[list[tuple[str, int]], float]] = {}
    for row, record in decode_all(await service.rows(), State()):
        event = record.event
        if isinstance(event, DecisionMade):
            start = row.time_ns - row.time_ns % (100 * SECOND)
            of_input, of_output, of_request = PRICES[event.models[event.chosen]]
            output = min(100, event.max_output_tokens) if event.max_output_tokens >= 0 else 100
            worst = (of_input * event.input_tokens + of_output * output) / 1e6 + of_request
            decisions[event.id] = ([(event.bucket, start), ("p", start)], worst)
            change, id_ = worst, event.id
        elif isinstance(event, OutcomeApplied):
            id_ = event.decision_id
            keys, before = decisions[id_]
            after = event.reported_outcomes[event.model].aggregates[Signal.COST].value
            decisions[id_], change = (keys, after), after - before
        else:
            continue
        for key in decisions[id_][0]:
            counted[key] += change
            most[key] = max(most[key], counted[key])
    return most


async def check_counters(service: Service) -> None:
    """The journal's counters are what the fold counts against each hard budget, but for less than a nano-dollar an event."""
    journal = service.replica.journal
    assert isinstance(journal, SqliteJournal)
    for counter, (nanodollars, _) in counters_of(service.replica.state).items():
        assert abs(journal.store.used(counter) - nanodollars) <= service.replica.state.position


class MixedLoad:
    """Callers that decide, alone and in batches, cancel calls, report costs and let time pass, all at random."""

    def __init__(self, service: Service, rng: random.Random) -> None:
        self.service, self.rng = service, rng
        self.counts = {"made": 0, "cancelled": 0, "reported": 0}
        self.refusals: list[grpc.aio.AioRpcError] = []

    def context(self) -> context_pb2.Context:
        """The tokens of a random request."""
        context = context_pb2.Context(input_tokens=self.rng.randrange(500))
        if self.rng.random() < 0.5:
            context.max_output_tokens = self.rng.randrange(200)
        return context

    async def report(self, decision: Any, context: context_pb2.Context) -> None:
        """Report a cost of at most the bound of the call, or nothing."""
        of_input, of_output, of_request = PRICES[decision.model.removeprefix("models/")]
        tokens = min(100, context.max_output_tokens) if context.HasField("max_output_tokens") else 100
        bound = (of_input * context.input_tokens + of_output * tokens) / 1e6 + of_request
        if self.rng.random() < 0.7:
            await asyncio.sleep(self.rng.choice([0.0, 0.01]))
            await self.service.report(decision.name, cost_usd=self.rng.choice([0.0, bound, bound * self.rng.random()]))
            self.counts["reported"] += 1

    async def decide(self, contexts: list[context_pb2.Context]) -> list[Any]:
        """The decisions to report on, in the order of ``contexts``."""
        bucket = self.rng.choice(["buckets/b1", "buckets/b2"])
        if len(contexts) > 1:
            batch = router_service_pb2.BatchDecideRequest(bucket=bucket, contexts=contexts)
            return list((await self.service.router.BatchDecide(batch)).decisions)
        if self.rng.random() < 0.2:  # its decision may have been made for another caller's context: do not report on it
            await self.service.decide(bucket, context=contexts[0], request_id=f"r{self.rng.randrange(20)}")
            return []
        return [await self.service.decide(bucket, context=contexts[0])]

    async def caller(self) -> None:
        """Six calls in a row, one in ten cancelled."""
        for _ in range(6):
            contexts = [self.context() for _ in range(self.rng.choice([1, 1, 1, 2, 5]))]
            task = asyncio.ensure_future(self.decide(contexts))
            if self.rng.random() < 0.1:
                await asyncio.sleep(self.rng.random() * 0.02)
                task.cancel()
            try:
                decisions = await task
            except asyncio.CancelledError:
                self.counts["cancelled"] += 1
            except grpc.aio.AioRpcError as error:
                self.refusals.append(error)
            else:
                self.counts["made"] += len(decisions)
                for decision, context in zip(decisions, contexts, strict=False):
                    await self.report(decision, context)
            if self.rng.random() < 0.02:
                self.service.clock[0] += self.rng.randrange(60) * SECOND


async def set_up_caps(service: Service, caps: dict[str, float]) -> None:
    """A project with two buckets: caps of the project and of the first bucket."""
    for name, prices in PRICES.items():
        await put_model(service, name, prices)
    await put_project(service, "p", budget=hard(caps["p"]))
    window = {"seconds": 10_000}
    await put_bucket(service, "b1", project="projects/p", budget=hard(caps["b1"]), attribution_window=window)
    await put_bucket(service, "b2", project="projects/p", attribution_window=window)


async def check_reserved(service: Service) -> None:
    """With nothing in flight, what the service shows as reserved is what was folded in the present period."""
    pacer = service.replica.state.projects["p"].pacer
    assert pacer is not None
    start = service.clock[0] - service.clock[0] % (100 * SECOND)
    reserved = pacer.reserved if pacer.start_ns == start else 0.0  # none if nothing was decided in this period yet
    for bucket in ("b1", "b2"):
        shown = await insight(service, bucket)
        assert shown.project_budget.reserved_usd == pytest.approx(reserved)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_caps_hold_under_concurrent_calls(run: Run, seed: int) -> None:
    caps = {"b1": 0.008, "b2": 0.02, "p": 0.02}

    async def scenario(service: Service) -> None:
        await set_up_caps(service, caps)
        load = MixedLoad(service, random.Random(seed))
        await asyncio.gather(*(load.caller() for _ in range(64)))
        reserved_for = service.replica.decisions.reservations.reserved
        await until(lambda: reserved_for("projects/p") == 0.0, "what was cancelled under way is made or has failed")
        assert refused(load.refusals) > 0
        for error in load.refusals:
            assert all(part in str(error.details()) for part in ("a: ", "b: ", "c/d: ", "hard budget"))
        most = await most_counted(service)
        for (holder, _), dollars in most.items():
            assert dollars <= caps[holder] * (1 + 1e-9), holder
        assert max(dollars for (holder, _), dollars in most.items() if holder == "p") > 0.9 * caps["p"]
        assert min(load.counts.values()) > 0, load.counts
        await check_reserved(service)
        await check_counters(service)

    run(scenario)


def test_of_many_calls_at_once_as_many_pass_as_the_budget_pays(run: Run) -> None:
    async def scenario(service: Service) -> None:
        await only_a(service, 5.5 * WORST)
        answers = await asyncio.gather(*(decide(service) for _ in range(64)), return_exceptions=True)
        assert refused(answers) == 59
        assert await reserved_usd(service) == pytest.approx(5 * WORST)
        decided = [answer for answer in answers if not isinstance(answer, BaseException)]
        await service.report(decided[0].name, cost_usd=0.0)
        await service.report(decided[1].name, cost_usd=0.6 * WORST)
        answers = await asyncio.gather(*(decide(service) for _ in range(64)), return_exceptions=True)
        assert refused(answers) == 63  # 3.6 of 5.5 are gone: one more fits, and then 0.9 is left
        service.clock[0] += 100 * SECOND
        assert refused(await asyncio.gather(*(decide(service) for _ in range(64)), return_exceptions=True)) == 59
        await service.report(decided[2].name, cost_usd=WORST)  # of the period before: it takes nothing from this one
        assert await reserved_usd(service) == pytest.approx(5 * WORST)

    run(scenario)


def test_a_batch_is_paid_for_as_a_whole_or_not_made(run: Run) -> None:
    async def scenario(service: Service) -> None:
        await only_a(service, 5.5 * WORST)

        async def batch(size: int) -> Any:
            return await service.router.BatchDecide(
                router_service_pb2.BatchDecideRequest(bucket="buckets/one", contexts=[ONE] * size)
            )

        assert refused(await asyncio.gather(batch(6), return_exceptions=True)) == 1
        assert await reserved_usd(service) == 0.0
        assert refused(await asyncio.gather(*(batch(2) for _ in range(8)), return_exceptions=True)) == 6
        assert await reserved_usd(service) == pytest.approx(4 * WORST)

    run(scenario)


def test_a_refusal_has_a_reason_for_each_model(run: Run) -> None:
    async def scenario(service: Service) -> None:
        for name, prices in PRICES.items():
            await put_model(service, name, prices)
        await put_project(service, "p", budget=hard(1e-9))
        await put_bucket(service, "one", project="projects/p")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await decide(service)
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        details = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
        failure = error_details_pb2.PreconditionFailure()
        assert any(detail.Unpack(failure) for detail in status_pb2.Status.FromString(details).details)
        assert {violation.subject for violation in failure.violations} == {"models/a", "models/b", "models/c/d"}
        assert all("hard budget" in violation.description for violation in failure.violations)

    run(scenario)


def test_a_cancelled_call_keeps_its_reservation_until_its_write_is_settled(run: Run) -> None:
    async def scenario(service: Service) -> None:
        await only_a(service, 1.5 * WORST)
        journal, go, started = service.replica.journal, asyncio.Event(), asyncio.Event()
        append = journal.append

        async def slow(*arguments: Any) -> Any:
            started.set()
            await asyncio.wait_for(go.wait(), WAIT)
            return await append(*arguments)

        journal.append = slow  # type: ignore[method-assign]
        call = asyncio.ensure_future(decide(service))
        await asyncio.wait_for(started.wait(), WAIT)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        # it may yet be made; with limits, a request is decided at once
        assert refused([await answered(decide(service, limits={"max_cost_usd": 1.0}))]) == 1
        assert await reserved_usd(service) == pytest.approx(WORST)
        go.set()
        await until(lambda: service.replica.state.buckets["one"].pacer.reserved > 0.0, "it is folded")  # type: ignore[union-attr]
        assert await reserved_usd(service) == pytest.approx(
            WORST
        )  # it was made: the state counts it now, and nothing else does
        assert refused([await answered(decide(service))]) == 1

    run(scenario)


def test_a_decision_that_would_land_in_the_next_period_is_made_anew_in_it(run: Run) -> None:
    """The counter that it was judged by and the period that the fold counts it in are the same."""

    async def scenario(service: Service) -> None:
        await only_a(service, 1.5 * WORST)
        await decide(service)
        assert refused([await answered(decide(service))]) == 1
        service.clock[0] += 200 * SECOND - 1  # the last moment of the next period
        journal, append, appends = service.replica.journal, service.replica.journal.append, 0

        async def late(groups: Any, now_ns: int) -> Any:
            nonlocal appends
            appends += 1
            service.clock[0] += 100 * SECOND if appends == 1 else 0
            return await append(groups, service.clock[0])

        journal.append = late  # type: ignore[method-assign]
        await decide(service)
        assert appends == 2
        rows = await service.rows()
        assert rows[-1].time_ns == service.clock[0]
        assert rows[-1].position == rows[-2].position + 1
        assert await reserved_usd(service) == pytest.approx(WORST)
        assert refused([await answered(decide(service))]) == 1
        await check_counters(service)

    run(scenario)


def test_a_write_that_fails_holds_nothing(run: Run) -> None:
    async def scenario(service: Service) -> None:
        await only_a(service, 1.5 * WORST)
        journal = service.replica.journal
        append = journal.append

        def broken(*_: object) -> None:
            raise OverflowError("no such luck")

        journal.append = broken  # type: ignore[method-assign, assignment]
        for _ in range(3):
            error = await answered(decide(service))
            assert error.code() == grpc.StatusCode.UNAVAILABLE
        journal.append = append  # type: ignore[method-assign]
        await decide(service)
        assert await reserved_usd(service) == pytest.approx(WORST)

    run(scenario)


def test_a_repeated_request_takes_nothing_and_is_answered_also_when_nothing_is_left(run: Run) -> None:
    async def scenario(service: Service) -> None:
        await only_a(service, 3.5 * WORST)
        first = await decide(service, request_id="r")
        answers = await asyncio.gather(*(decide(service, request_id="r") for _ in range(20)))
        assert {answer.name for answer in answers} == {first.name}
        assert await reserved_usd(service) == pytest.approx(WORST)
        await decide(service)
        await decide(service)
        assert refused([await answered(decide(service))]) == 1
        assert (await decide(service, request_id="r")).name == first.name
        assert refused([await answered(decide(service, request_id="new"))]) == 1
        service.clock[0] += 100 * SECOND
        await decide(service)
        await decide(service)  # one more fits: of these, one is made, and the others find it, on its way or made
        answers = await asyncio.gather(*(decide(service, request_id="last") for _ in range(20)))
        assert len({answer.name for answer in answers}) == 1

    run(scenario)


def test_budgets_are_shown(run: Run) -> None:
    async def scenario(service: Service) -> None:
        await put_model(service, "a", PRICES["a"])
        await put_project(service, "p", budget=catalog_pb2.Budget(usd_per_request=0.5))
        quality = {"min": 0, "max": 100}
        await put_bucket(
            service, "one", models=["models/a"], project="projects/p", budget=hard(10 * WORST), quality_range=quality
        )
        await put_bucket(service, "free")
        free = await insight(service, "free")
        assert not free.HasField("budget") and not free.HasField("project_budget")
        decision = await decide(service)
        await decide(service)
        await service.report(decision.name, cost_usd=0.25 * WORST, success=False)
        insight_now = await insight(service)
        assert insight_now.budget.budget == hard(10 * WORST)
        assert insight_now.budget.reserved_usd == pytest.approx(1.25 * WORST)
        assert insight_now.budget.period_start.seconds == 10**9
        assert insight_now.budget.period_end.seconds == 10**9 + 100
        assert insight_now.project_budget.budget.usd_per_request == 0.5
        assert insight_now.project_budget.spent_usd == insight_now.budget.spent_usd
        assert insight_now.project_budget.reserved_usd == 0.0
        assert not insight_now.project_budget.HasField("period_start")
        pacer = service.replica.state.buckets["one"].pacer
        assert pacer is not None
        assert insight_now.budget.spent_usd == pacer.spent
        assert insight_now.budget.multiplier == 100 * pacer.multiplier
        assert insight_now.budget.target_usd_per_request == pacer.target
        (model,) = insight_now.models
        assert 0.5 < model.success_rate < 0.95
        assert not model.circuit_open
        assert model.latency_p95_factor > 0.0
        assert model.prior_mass > 0.0
        for _ in range(4):
            await service.report((await decide(service)).name, success=False, cost_usd=0.0)
        assert (await insight(service)).models[0].circuit_open
        service.clock[0] += 100 * SECOND
        later = await insight(service)
        assert later.budget.reserved_usd == later.budget.spent_usd == 0.0
        assert later.budget.period_start.seconds == 10**9 + 100

    run(scenario)


def test_hard_is_switched_by_a_mask_and_acts_on_the_next_decision(run: Run) -> None:
    async def scenario(service: Service) -> None:
        await put_model(service, "a", PRICES["a"])
        soft = catalog_pb2.Budget(usd_per_period=0.5 * WORST, period={"seconds": 100})
        await put_project(service, "p", budget=soft)
        await put_bucket(service, "one", models=["models/a"], project="projects/p")
        await decide(service)
        request = catalog_service_pb2.UpdateProjectRequest(
            project=catalog_pb2.Project(name="projects/p", budget={"hard": True}),
            update_mask=field_mask_pb2.FieldMask(paths=["budget.hard"]),
        )
        project = (await service.catalog.UpdateProject(request)).project
        assert project.budget == hard(0.5 * WORST)
        assert refused([await answered(decide(service))]) == 1

    run(scenario)


def test_reservations_add_up_and_leave_no_residue() -> None:
    reservations = Reservations()
    releases = [reservations.reserve(["b", "p"], 0.1) for _ in range(10)] + [reservations.reserve(["q", "p"], 0.3)]
    assert reservations.reserved("b") == pytest.approx(1.0)
    assert reservations.reserved("p") == pytest.approx(1.3)
    for release in releases:
        release()
    assert [reservations.reserved(name) for name in ("b", "p", "q")] == [0.0, 0.0, 0.0]


async def answered(call: Any) -> Any:
    """What ``call`` gives, or the error that it ends with."""
    (answer,) = await asyncio.gather(call, return_exceptions=True)
    return answer
