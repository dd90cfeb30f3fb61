"""SIGKILLs at random moments under load: nothing acknowledged is lost, nothing is applied twice.

    python benchmarks/soak/kills.py [--kills 200] [--seed N] [--json] [-- more flags of `pointsman serve`]

Callers decide (alone and in batches), report (in parts, repeated, late, in any order, twice at the same time) and change the
catalogue. The server is killed under load, while it starts, and while it writes a snapshot. The driver lives on and keeps
the ledger. A call that was not answered is repeated, with its request id or key, until it is: so the ledger is exact. After
each restart a sample of it, at the end all of it, is compared with what the server says, decision by decision; then counts and
sums by model; then the state with a fold of the whole journal. Values are multiples of 1/64, so that sums are exact in any
order.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))
from kit import Stubs, finish, tracebacks, verify

from pointsman.v1 import (
    catalog_pb2,
    catalog_service_pb2,
    insight_service_pb2,
    outcome_pb2,
    router_service_pb2,
)
from tests.calls import patient
from tests.processes import WAIT, Served

MODELS = ("models/a", "models/b", "models/c")
LAST, PARTS = "buckets/last", "buckets/parts"
"""In one bucket the last word wins, in the other qualities are votes and costs are parts."""
SAMPLE = 40
"""Decisions, requests and reports of the ledger that are checked after each restart."""
VERIFY_EVERY = 25
"""Kills between two folds of the whole journal."""
KILLED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
"""How a call may end whose server was killed."""

Values = dict[str, float]


@dataclass
class Ledger:
    """What the clients know. The driver is never killed.

    ``wanted``: what was asked, by request id; ``named``: the decisions acknowledged for it; ``decisions``: bucket and model by
    name; ``sent``: by decision, the reports in order, as key and values; ``acknowledged``: those answered; ``catalog``: by
    model, the display name acknowledged last and the one under way.
    """

    wanted: dict[str, Any] = field(default_factory=dict)
    named: dict[str, list[str]] = field(default_factory=dict)
    decisions: dict[str, tuple[str, str]] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    sent: dict[str, dict[str, Values]] = field(default_factory=lambda: defaultdict(dict))
    acknowledged: set[tuple[str, str]] = field(default_factory=set)
    open: set[tuple[str, str]] = field(default_factory=set)
    busy: set[str] = field(default_factory=set)
    catalog: dict[str, tuple[str, str]] = field(default_factory=dict)
    changes: int = 0
    repeats: int = 0
    unseen: int = 0
    refused: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    def violations(self) -> list[str]:
        """All that must not be."""
        return [*self.lost, *self.twice, *self.other]


class Callers:
    """Calls on one server, entered in the ledger."""

    def __init__(self, channel: grpc.aio.Channel, ledger: Ledger, rng: random.Random) -> None:
        self.stubs, self.ledger, self.rng = Stubs(channel), ledger, rng

    async def send(self, method: Any, request: Any) -> Any:
        """The answer to a call, which is sent again if it was refused before it was begun."""
        answer, refused = await patient(method, request)
        self.ledger.refused += refused
        return answer

    async def decide(self, request_id: str) -> None:
        """Decide under an id that is in ``wanted``; single requests go through Decide."""
        ledger, request = self.ledger, self.ledger.wanted[request_id]
        if len(request.contexts) == 1:
            single = router_service_pb2.DecideRequest(
                bucket=request.bucket, context=request.contexts[0], request_id=request_id
            )
            made = [(await self.send(self.stubs.router.Decide, single)).decision]
        else:
            made = list((await self.send(self.stubs.router.BatchDecide, request)).decisions)
        names = [one.name for one in made]
        if ledger.named.get(request_id, names) != names:
            ledger.lost.append(f"{request_id} was given {ledger.named[request_id]}, and later {names}")
            return
        if request_id not in ledger.named:
            ledger.named[request_id] = names
            ledger.order += names
            ledger.decisions.update({one.name: (one.bucket, one.model) for one in made})

    async def report(self, name: str, key: str) -> bool:
        """Send the report that the ledger has under ``key``; whether the server knew it."""
        ledger = self.ledger
        known = (name, key) in ledger.acknowledged
        request = router_service_pb2.ReportOutcomeRequest(
            decision=name, idempotency_key=key, outcome=outcome_pb2.Outcome(**ledger.sent[name][key])
        )
        answer = await self.send(self.stubs.router.ReportOutcome, request)
        if known and not answer.duplicate:
            ledger.lost.append(f"report {key} on {name} was acknowledged, and unknown later")
        ledger.acknowledged.add((name, key))
        ledger.open.discard((name, key))
        return bool(answer.duplicate)

    async def new_report(self, name: str) -> None:
        """Report something more on a decision, unless another caller is about to: which would be the last word?"""
        ledger, rng = self.ledger, self.rng
        if name in ledger.busy:
            return
        ledger.busy.add(name)
        key = f"key {len(ledger.sent[name])}"
        values: Values = {}
        while not values:  # in parts
            if rng.random() < 0.6:
                values["quality"] = rng.randrange(17) / 16
            if rng.random() < 0.5:
                values["cost_usd"] = rng.randrange(65) / 64
            if rng.random() < 0.3:
                values["latency_seconds"] = rng.randrange(1, 65) / 64
        ledger.sent[name][key] = values
        ledger.open.add((name, key))
        if rng.random() < 0.15:
            ledger.repeats += 1
            both = await asyncio.gather(*(self.report(name, key) for _ in range(2)), return_exceptions=True)
            failed = [e for e in both if isinstance(e, BaseException)]
            if failed:
                raise failed[0]
            if both.count(True) != 1:
                ledger.twice.append(
                    f"report {key} on {name}, sent twice at once, was a duplicate {both.count(True)} times"
                )
        else:
            await self.report(name, key)
        ledger.busy.discard(name)

    async def change_catalog(self, model: str) -> None:
        """Give a model a display name and prices that say which change this was."""
        ledger = self.ledger
        ledger.changes += 1
        old, new = ledger.catalog[model][0], f"change {ledger.changes}"
        ledger.catalog[model] = old, new
        await self.send(
            self.stubs.catalog.UpdateModel,
            catalog_service_pb2.UpdateModelRequest(
                model=catalog_pb2.Model(
                    name=model, display_name=new, prices=catalog_pb2.Prices(request_usd=self.rng.random())
                )
            ),
        )
        ledger.catalog[model] = new, new

    async def again(self) -> None:
        """Repeat, with their ids and keys, all calls that were not answered; they need not have been begun."""
        ledger = self.ledger
        for request_id in [id_ for id_ in ledger.wanted if id_ not in ledger.named]:
            await self.decide(request_id)
        for name, key in sorted(ledger.open):
            ledger.unseen += await self.report(name, key)
        ledger.busy.clear()

    async def check_catalog(self) -> None:
        """Each model is as it was acknowledged last, or as the change that was not answered would have made it."""
        for model, allowed in self.ledger.catalog.items():
            found = (
                await self.send(self.stubs.catalog.GetModel, catalog_service_pb2.GetModelRequest(name=model))
            ).model
            if found.display_name not in allowed:
                self.ledger.lost.append(f"{model} is {found.display_name!r}, expected one of {allowed}")
            self.ledger.catalog[model] = found.display_name, found.display_name

    async def check(self, names: list[str]) -> None:
        """Decisions as acknowledged, with the outcomes reported: each once."""
        for name in names:
            try:
                found = await self.send(self.stubs.router.GetDecision, router_service_pb2.GetDecisionRequest(name=name))
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.NOT_FOUND:
                    raise
                self.ledger.lost.append(f"{name} is gone")
                continue
            if (found.decision.bucket, found.decision.model) != self.ledger.decisions[name]:
                self.ledger.lost.append(f"{name} was {self.ledger.decisions[name]}, and is {found.decision}")
            sent = self.ledger.sent.get(name, {})
            reports = sum(one.reports for one in found.outcomes)
            if reports != len(sent):
                broken = self.ledger.lost if reports < len(sent) else self.ledger.twice
                broken.append(f"{name} has {reports} reports, expected {len(sent)}")
            elif sent:
                expected = together(self.ledger.decisions[name][0], list(sent.values()))
                (one,) = found.outcomes
                is_ = {f.name: v for f, v in one.outcome.ListFields()}
                if is_.keys() != expected.keys() or any(abs(is_[f] - v) > 1e-12 for f, v in expected.items()):
                    self.ledger.twice.append(f"the outcome of {name} is {is_}, expected {expected}")

    async def check_sample(self) -> None:
        """A sample of the ledger: decisions, repeated requests, repeated reports."""
        ledger, rng = self.ledger, self.rng
        await self.check(rng.sample(ledger.order, min(SAMPLE, len(ledger.order))))
        for request_id in rng.sample(sorted(ledger.named), min(SAMPLE, len(ledger.named))):
            ledger.repeats += 1
            await self.decide(request_id)
        for name, key in rng.sample(sorted(ledger.acknowledged), min(SAMPLE, len(ledger.acknowledged))):
            ledger.repeats += 1
            await self.report(name, key)
        await self.check(ledger.order[-SAMPLE:])  # what was acknowledged just before the kill


def together(bucket: str, reports: list[Values]) -> Values:
    """What reports in order come to, by the rules of ``bucket``."""
    by_signal: dict[str, list[float]] = defaultdict(list)
    for values in reports:
        for signal, value in values.items():
            by_signal[signal].append(value)
    whole: Values = {}
    for signal, told in by_signal.items():
        if bucket == PARTS and signal == "quality":
            whole[signal] = sum(told) / len(told)
        elif bucket == PARTS and signal == "cost_usd":
            whole[signal] = sum(told)
        else:
            whole[signal] = told[-1]
    return whole


async def set_up(stubs: Stubs) -> None:
    """Three models and two buckets."""
    for name in MODELS:
        request = catalog_service_pb2.UpdateModelRequest(model=catalog_pb2.Model(name=name), allow_missing=True)
        await stubs.catalog.UpdateModel(request, timeout=WAIT)
    schema = catalog_pb2.ContextSchema(numbers=[catalog_pb2.NumberFeature(name="n")])
    votes = catalog_pb2.OutcomeRules(quality=catalog_pb2.AGGREGATION_MEAN, cost=catalog_pb2.AGGREGATION_SUM)
    for bucket in (
        catalog_pb2.Bucket(name=LAST, context_schema=schema, budget={"usd_per_request": 0.25}),
        catalog_pb2.Bucket(name=PARTS, context_schema=schema, outcome_rules=votes),
    ):
        await stubs.catalog.UpdateBucket(
            catalog_service_pb2.UpdateBucketRequest(bucket=bucket, allow_missing=True), timeout=WAIT
        )


async def load(callers: Callers, count: int, until: Callable[[], Awaitable[None]]) -> None:
    """Decide, report and change the catalogue from ``count`` callers until ``until`` is over and the calls have failed."""
    ledger, rng = callers.ledger, callers.rng

    async def work() -> None:
        while True:
            n = rng.choice([1, 1, 1, 5, 20])
            request_id = f"request {len(ledger.wanted)}"
            ledger.wanted[request_id] = router_service_pb2.BatchDecideRequest(
                bucket=rng.choice([LAST, PARTS]),
                contexts=[{"numbers": {"n": rng.random()}} for _ in range(n)],
                request_id=request_id,
            )
            await callers.decide(request_id)
            names = list(ledger.named[request_id])
            rng.shuffle(names)
            for name in names[:5]:
                if rng.random() < 0.7:
                    await callers.new_report(name)
            if rng.random() < 0.5:  # late, or one more, or a correction
                await callers.new_report(rng.choice(ledger.order))

    async def administrate() -> None:
        while True:
            await callers.change_catalog(rng.choice(MODELS))
            await asyncio.sleep(0.02)

    ended = await asyncio.gather(until(), administrate(), *(work() for _ in range(count)), return_exceptions=True)
    for error in ended[1:]:
        if not (isinstance(error, grpc.aio.AioRpcError) and error.code() in KILLED):
            ledger.other.append(f"under load: {error!r}")
    if ended[0] is not None:
        raise ended[0]  # type: ignore[misc]


async def check_insight(stubs: Stubs, ledger: Ledger) -> None:
    """Counts and sums by model are those of the ledger, exactly."""
    for bucket in (LAST, PARTS):
        request = insight_service_pb2.GetBucketInsightRequest(name=bucket)
        insight = await stubs.insight.GetBucketInsight(request, timeout=WAIT)
        for model in insight.models:
            mine = [name for name, where in ledger.decisions.items() if where == (bucket, model.model)]
            told = [together(bucket, list(ledger.sent[name].values())) for name in mine if ledger.sent.get(name)]
            by_signal = {s: [v[s] for v in told if s in v] for s in ("quality", "cost_usd", "latency_seconds")}
            counts = {
                "decisions": (model.decisions, len(mine)),
                "quality": (model.quality_observations, len(by_signal["quality"])),
                "cost": (model.cost_observations, len(by_signal["cost_usd"])),
                "latency": (model.latency_observations, len(by_signal["latency_seconds"])),
                "spend": (model.spend_usd, sum(by_signal["cost_usd"])),
            }
            for what, (found, expected) in counts.items():
                if found != expected:
                    broken = ledger.lost if found < expected else ledger.twice
                    broken.append(f"{bucket} {model.model}: {what} {found}, the ledger has {expected}")
            total = model.mean_quality * model.quality_observations
            if abs(total - sum(by_signal["quality"])) > 1e-6:
                ledger.twice.append(
                    f"{bucket} {model.model}: qualities sum to {total}, not {sum(by_signal['quality'])}"
                )


def soak(kills: int, seed: int, callers: int, data: Path, flags: list[str]) -> tuple[dict[str, object], list[str]]:
    """All of it; the rows of the table and the violations."""
    ledger, rng = Ledger(catalog=dict.fromkeys(MODELS, ("", ""))), random.Random(seed)
    kinds: Counter[str] = Counter()
    starts: list[float] = []
    partial = 0
    verified = 0

    def start() -> Served:
        began = time.perf_counter()
        server = Served(data, *flags).ready()
        starts.append(time.perf_counter() - began)
        return server

    def check_folds() -> None:
        nonlocal verified
        verified += 1
        found = verify(data)
        if not found["equal"]:
            ledger.other.append(f"the state is not the fold of the journal: {found}")

    async def one(server: Served, kind: str) -> None:
        async with grpc.aio.insecure_channel(server.address) as channel:
            client = Callers(channel, ledger, rng)

            async def kill() -> None:
                try:
                    await asyncio.sleep(rng.uniform(0.05, 1.0))
                    deadline = time.perf_counter() + 3
                    while kind == "writing a snapshot" and time.perf_counter() < deadline:
                        if next((data / "snapshots").glob("*.partial"), None):
                            break
                        await asyncio.sleep(0)
                finally:
                    server.kill()

            await load(client, callers, kill)

    async def on(server: Served, what: Callable[[grpc.aio.Channel], Awaitable[None]]) -> None:
        async with grpc.aio.insecure_channel(server.address) as channel:
            await what(channel)

    async def after_restart(channel: grpc.aio.Channel) -> None:
        client = Callers(channel, ledger, rng)
        await client.check_catalog()
        await client.again()
        await client.check_sample()

    server = start()
    asyncio.run(on(server, lambda channel: set_up(Stubs(channel))))
    for done in range(1, kills + 1):
        kind = rng.choices(["under load", "writing a snapshot", "starting"], [6, 2, 2])[0]
        kinds[kind] += 1
        if kind == "starting":
            server.kill()  # idle: the previous start was whole
            server = Served(data, *flags)
            time.sleep(rng.uniform(0.3, 1.1) * statistics.median(starts))
            server.kill()
        else:
            asyncio.run(one(server, kind))
        partial += any((data / "snapshots").glob("*.partial"))
        if done % VERIFY_EVERY == 0:
            check_folds()
        server = start()
        asyncio.run(on(server, after_restart))

    async def settle(channel: grpc.aio.Channel) -> None:
        client = Callers(channel, ledger, rng)
        await client.check(ledger.order)
        await check_insight(client.stubs, ledger)

    asyncio.run(on(server, settle))
    if (code := server.stop()) != 0:
        ledger.other.append(f"the server ended with {code}")
    if tracebacks(server.said()):
        ledger.other.append(f"the server logged a traceback: {server.said()[-2000:]}")
    check_folds()
    rows: dict[str, object] = {
        "kills": kills,
        **{f"  {kind}": count for kind, count in sorted(kinds.items())},
        "  leaving a snapshot half written": partial,
        "decisions acknowledged": len(ledger.decisions),
        "reports acknowledged": len(ledger.acknowledged),
        "catalogue changes": ledger.changes,
        "reports durable, the answer never seen": ledger.unseen,
        "repetitions sent on purpose": ledger.repeats,
        "calls refused as too many, and repeated": ledger.refused,
        "whole folds compared": verified,
        "acknowledged and lost": len(ledger.lost),
        "applied twice": len(ledger.twice),
        "median start": f"{statistics.median(starts):.2f} s",
    }
    return rows, ledger.violations()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument(
        "--snapshot-every", type=int, default=200, help="small: so that some kills come while one is written"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("flags", nargs="*", help="more flags for the server, after --")
    args = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        flags = ["--snapshot-every", str(args.snapshot_every), *args.flags]
        rows, violations = soak(args.kills, args.seed, args.callers, Path(directory) / "data", flags)
    return finish("kills", rows, violations, started, args.json)


if __name__ == "__main__":
    sys.exit(main())
