"""SIGKILLs at random moments under load: nothing acknowledged is lost, nothing is applied twice.

    python benchmarks/soak/kills.py [--kills 200] [--seed N] [--json] [-- more flags of `pointsman serve`]

Callers decide (alone and in batches), report (in parts, repeated, late, in any order, twice at the same time) and change the
catalogue. The server is killed under load, while it starts, and while it writes a snapshot. The driver is never killed and keeps
a history of all operations. A call that was not answered is repeated, with its request id or key, until it is; so the history is
exact. After each restart a sample of the history, at the end all of it, is compared with the server's answers, decision by
decision; then counts and sums by model; then the state with a fold of the whole journal. Values are multiples of 1/64, so that
sums are exact in any order.
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
"""In the first bucket the last report of a signal counts; in the second qualities are averaged and costs are summed."""
SAMPLE = 40
"""Decisions, and likewise requests and reports, sampled from the history for the check after each restart."""
VERIFY_EVERY = 25
"""Kills between two folds of the whole journal."""
KILLED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
"""Statuses with which a call may end when its server is killed."""

Values = dict[str, float]


@dataclass
class History:
    """The operations that clients sent and the answers they had; the driver, which keeps it, is never killed.

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
        """Every violation, one sentence each."""
        return [*self.lost, *self.twice, *self.other]


class Callers:
    """Calls on one server, recorded in the history."""

    def __init__(self, channel: grpc.aio.Channel, history: History, rng: random.Random) -> None:
        self.stubs, self.history, self.rng = Stubs(channel), history, rng

    async def send(self, method: Any, request: Any) -> Any:
        """The answer to a call, which is retried while the server refuses to admit it."""
        answer, refused = await patient(method, request)
        self.history.refused += refused
        return answer

    async def decide(self, request_id: str) -> None:
        """Decide under an id that is in ``wanted``; single requests go through Decide."""
        history, request = self.history, self.history.wanted[request_id]
        if len(request.contexts) == 1:
            single = router_service_pb2.DecideRequest(
                bucket=request.bucket, context=request.contexts[0], request_id=request_id
            )
            decisions = [(await self.send(self.stubs.router.Decide, single)).decision]
        else:
            decisions = list((await self.send(self.stubs.router.BatchDecide, request)).decisions)
        names = [decision.name for decision in decisions]
        if history.named.get(request_id, names) != names:
            history.lost.append(f"{request_id} was given {history.named[request_id]}, and later {names}")
            return
        if request_id not in history.named:
            history.named[request_id] = names
            history.order += names
            history.decisions.update({decision.name: (decision.bucket, decision.model) for decision in decisions})

    async def report(self, name: str, key: str) -> bool:
        """Send the report that the history has under ``key``; whether the server answered that it is a duplicate."""
        history = self.history
        was_acknowledged = (name, key) in history.acknowledged
        request = router_service_pb2.ReportOutcomeRequest(
            decision=name, idempotency_key=key, outcome=outcome_pb2.Outcome(**history.sent[name][key])
        )
        answer = await self.send(self.stubs.router.ReportOutcome, request)
        if was_acknowledged and not answer.duplicate:
            history.lost.append(f"report {key} on {name} was acknowledged, and unknown later")
        history.acknowledged.add((name, key))
        history.open.discard((name, key))
        return bool(answer.duplicate)

    async def new_report(self, name: str) -> None:
        """Send another report on a decision, unless another caller is doing so: the order of the two would be unknown."""
        history, rng = self.history, self.rng
        if name in history.busy:
            return
        history.busy.add(name)
        key = f"key {len(history.sent[name])}"
        values: Values = {}
        while not values:  # in parts
            if rng.random() < 0.6:
                values["quality"] = rng.randrange(17) / 16
            if rng.random() < 0.5:
                values["cost_usd"] = rng.randrange(65) / 64
            if rng.random() < 0.3:
                values["latency_seconds"] = rng.randrange(1, 65) / 64
        history.sent[name][key] = values
        history.open.add((name, key))
        if rng.random() < 0.15:
            history.repeats += 1
            answers = await asyncio.gather(*(self.report(name, key) for _ in range(2)), return_exceptions=True)
            failed = [e for e in answers if isinstance(e, BaseException)]
            if failed:
                raise failed[0]
            if answers.count(True) != 1:
                history.twice.append(
                    f"report {key} on {name}, sent twice at once, was a duplicate {answers.count(True)} times"
                )
        else:
            await self.report(name, key)
        history.busy.discard(name)

    async def change_catalog(self, model: str) -> None:
        """Give a model a display name that numbers the change, and new prices."""
        history = self.history
        history.changes += 1
        old, new = history.catalog[model][0], f"change {history.changes}"
        history.catalog[model] = old, new
        await self.send(
            self.stubs.catalog.UpdateModel,
            catalog_service_pb2.UpdateModelRequest(
                model=catalog_pb2.Model(
                    name=model, display_name=new, prices=catalog_pb2.Prices(request_usd=self.rng.random())
                )
            ),
        )
        history.catalog[model] = new, new

    async def repeat_unanswered(self) -> None:
        """Repeat, with their ids and keys, all calls that were not answered, whether or not the server had begun them."""
        history = self.history
        for request_id in [id_ for id_ in history.wanted if id_ not in history.named]:
            await self.decide(request_id)
        for name, key in sorted(history.open):
            history.unseen += await self.report(name, key)
        history.busy.clear()

    async def check_catalog(self) -> None:
        """Each model is as last acknowledged, or as the unanswered change would have made it."""
        for model, allowed in self.history.catalog.items():
            model_now = (
                await self.send(self.stubs.catalog.GetModel, catalog_service_pb2.GetModelRequest(name=model))
            ).model
            if model_now.display_name not in allowed:
                self.history.lost.append(f"{model} is {model_now.display_name!r}, expected one of {allowed}")
            self.history.catalog[model] = model_now.display_name, model_now.display_name

    async def check(self, names: list[str]) -> None:
        """Decisions are as acknowledged, and each report counts exactly once."""
        for name in names:
            try:
                view = await self.send(self.stubs.router.GetDecision, router_service_pb2.GetDecisionRequest(name=name))
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.NOT_FOUND:
                    raise
                self.history.lost.append(f"{name} is gone")
                continue
            if (view.decision.bucket, view.decision.model) != self.history.decisions[name]:
                self.history.lost.append(f"{name} was {self.history.decisions[name]}, and is {view.decision}")
            sent = self.history.sent.get(name, {})
            reports = sum(outcome.reports for outcome in view.outcomes)
            if reports != len(sent):
                broken = self.history.lost if reports < len(sent) else self.history.twice
                broken.append(f"{name} has {reports} reports, expected {len(sent)}")
            elif sent:
                expected = merge_reports(self.history.decisions[name][0], list(sent.values()))
                (stored,) = view.outcomes
                is_ = {f.name: v for f, v in stored.outcome.ListFields()}
                if is_.keys() != expected.keys() or any(abs(is_[f] - v) > 1e-12 for f, v in expected.items()):
                    self.history.twice.append(f"the outcome of {name} is {is_}, expected {expected}")

    async def check_sample(self) -> None:
        """A sample of the history: decisions, repeated requests, repeated reports."""
        history, rng = self.history, self.rng
        await self.check(rng.sample(history.order, min(SAMPLE, len(history.order))))
        for request_id in rng.sample(sorted(history.named), min(SAMPLE, len(history.named))):
            history.repeats += 1
            await self.decide(request_id)
        for name, key in rng.sample(sorted(history.acknowledged), min(SAMPLE, len(history.acknowledged))):
            history.repeats += 1
            await self.report(name, key)
        await self.check(history.order[-SAMPLE:])  # what was acknowledged just before the kill


def merge_reports(bucket: str, reports: list[Values]) -> Values:
    """The outcome that reports, in order, aggregate to by the rules of ``bucket``."""
    by_signal: dict[str, list[float]] = defaultdict(list)
    for values in reports:
        for signal, value in values.items():
            by_signal[signal].append(value)
    merged: Values = {}
    for signal, reported in by_signal.items():
        if bucket == PARTS and signal == "quality":
            merged[signal] = sum(reported) / len(reported)
        elif bucket == PARTS and signal == "cost_usd":
            merged[signal] = sum(reported)
        else:
            merged[signal] = reported[-1]
    return merged


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
    """Decide, report and change the catalogue from ``count`` callers until ``until`` returns and the calls have failed."""
    history, rng = callers.history, callers.rng

    async def work() -> None:
        while True:
            n = rng.choice([1, 1, 1, 5, 20])
            request_id = f"request {len(history.wanted)}"
            history.wanted[request_id] = router_service_pb2.BatchDecideRequest(
                bucket=rng.choice([LAST, PARTS]),
                contexts=[{"numbers": {"n": rng.random()}} for _ in range(n)],
                request_id=request_id,
            )
            await callers.decide(request_id)
            names = list(history.named[request_id])
            rng.shuffle(names)
            for name in names[:5]:
                if rng.random() < 0.7:
                    await callers.new_report(name)
            if rng.random() < 0.5:  # late, or one more, or a correction
                await callers.new_report(rng.choice(history.order))

    async def administrate() -> None:
        while True:
            await callers.change_catalog(rng.choice(MODELS))
            await asyncio.sleep(0.02)

    ended = await asyncio.gather(until(), administrate(), *(work() for _ in range(count)), return_exceptions=True)
    for error in ended[1:]:
        if not (isinstance(error, grpc.aio.AioRpcError) and error.code() in KILLED):
            history.other.append(f"under load: {error!r}")
    if ended[0] is not None:
        raise ended[0]  # type: ignore[misc]


async def check_insight(stubs: Stubs, history: History) -> None:
    """Counts and sums by model are those of the history, exactly."""
    for bucket in (LAST, PARTS):
        request = insight_service_pb2.GetBucketInsightRequest(name=bucket)
        insight = await stubs.insight.GetBucketInsight(request, timeout=WAIT)
        for model in insight.models:
            mine = [name for name, where in history.decisions.items() if where == (bucket, model.model)]
            outcomes = [
                merge_reports(bucket, list(history.sent[name].values())) for name in mine if history.sent.get(name)
            ]
            by_signal = {s: [v[s] for v in outcomes if s in v] for s in ("quality", "cost_usd", "latency_seconds")}
            counts = {
                "decisions": (model.decisions, len(mine)),
                "quality": (model.quality_observations, len(by_signal["quality"])),
                "cost": (model.cost_observations, len(by_signal["cost_usd"])),
                "latency": (model.latency_observations, len(by_signal["latency_seconds"])),
                "spend": (model.spend_usd, sum(by_signal["cost_usd"])),
            }
            for quantity, (counted, expected) in counts.items():
                if counted != expected:
                    broken = history.lost if counted < expected else history.twice
                    broken.append(f"{bucket} {model.model}: {quantity} {counted}, the history has {expected}")
            total = model.mean_quality * model.quality_observations
            if abs(total - sum(by_signal["quality"])) > 1e-6:
                history.twice.append(
                    f"{bucket} {model.model}: qualities sum to {total}, not {sum(by_signal['quality'])}"
                )


class Soak:
    """One server on ``data`` that is killed and restarted, and the history that its clients keep."""

    def __init__(self, data: Path, flags: list[str], seed: int, callers: int) -> None:
        self.data, self.flags, self.callers = data, flags, callers
        self.history, self.rng = History(catalog=dict.fromkeys(MODELS, ("", ""))), random.Random(seed)
        self.kinds: Counter[str] = Counter()
        self.start_seconds: list[float] = []
        self.partial_snapshots = self.verified = 0

    def run(self, kills: int) -> None:
        """Start a server, kill it ``kills`` times, and check it after each restart and at the end."""
        server = self.start()
        asyncio.run(self.on_channel(server, lambda channel: set_up(Stubs(channel))))
        for done in range(1, kills + 1):
            kind = self.rng.choices(["under load", "writing a snapshot", "starting"], [6, 2, 2])[0]
            self.kinds[kind] += 1
            if kind == "starting":
                self.kill_while_starting(server)
            else:
                asyncio.run(self.kill_under_load(server, kind))
            self.partial_snapshots += self.is_writing_snapshot()
            if done % VERIFY_EVERY == 0:
                self.check_fold()
            server = self.start()
            asyncio.run(self.on_channel(server, self.check_restart))
        asyncio.run(self.on_channel(server, self.check_all))
        if (code := server.stop()) != 0:
            self.history.other.append(f"the server ended with {code}")
        if tracebacks(server.said()):
            self.history.other.append(f"the server logged a traceback: {server.said()[-2000:]}")
        self.check_fold()

    def start(self) -> Served:
        """A server that answers; the time of its start is kept."""
        began = time.perf_counter()
        server = Served(self.data, *self.flags).ready()
        self.start_seconds.append(time.perf_counter() - began)
        return server

    def is_writing_snapshot(self) -> bool:
        """Whether there is a snapshot that is not complete."""
        return any((self.data / "snapshots").glob("*.partial"))

    def kill_while_starting(self, server: Served) -> None:
        """Kill an idle server, start it again, and kill it at a random moment of that start."""
        server.kill()
        server = Served(self.data, *self.flags)
        time.sleep(self.rng.uniform(0.3, 1.1) * statistics.median(self.start_seconds))
        server.kill()

    async def kill_under_load(self, server: Served, kind: str) -> None:
        """Kill a server within a second of load; for ``writing a snapshot`` once one is being written, if that is within 3 s."""

        async def kill() -> None:
            try:
                await asyncio.sleep(self.rng.uniform(0.05, 1.0))
                deadline = time.perf_counter() + 3
                while kind == "writing a snapshot" and time.perf_counter() < deadline:
                    if self.is_writing_snapshot():
                        break
                    await asyncio.sleep(0)
            finally:
                server.kill()

        async with grpc.aio.insecure_channel(server.address) as channel:
            await load(Callers(channel, self.history, self.rng), self.callers, kill)

    async def on_channel(self, server: Served, action: Callable[[grpc.aio.Channel], Awaitable[None]]) -> None:
        """Run ``action`` on a channel of its own."""
        async with grpc.aio.insecure_channel(server.address) as channel:
            await action(channel)

    async def check_restart(self, channel: grpc.aio.Channel) -> None:
        """Repeat the calls that were not answered; then compare the catalogue and a sample with the history."""
        client = Callers(channel, self.history, self.rng)
        await client.check_catalog()
        await client.repeat_unanswered()
        await client.check_sample()

    async def check_all(self, channel: grpc.aio.Channel) -> None:
        """Compare every decision, and counts and sums by model, with the history."""
        client = Callers(channel, self.history, self.rng)
        await client.check(self.history.order)
        await check_insight(client.stubs, self.history)

    def check_fold(self) -> None:
        """Compare the latest state with a fold of the whole journal; the server must not be running."""
        self.verified += 1
        result = verify(self.data)
        if not result["equal"]:
            self.history.other.append(f"the state is not the fold of the journal: {result}")

    def rows(self) -> dict[str, object]:
        """Counts, by title."""
        history = self.history
        return {
            "kills": self.kinds.total(),
            **{f"  {kind}": count for kind, count in sorted(self.kinds.items())},
            "  leaving a snapshot half written": self.partial_snapshots,
            "decisions acknowledged": len(history.decisions),
            "reports acknowledged": len(history.acknowledged),
            "catalogue changes": history.changes,
            "reports durable, the answer never seen": history.unseen,
            "repetitions sent on purpose": history.repeats,
            "calls refused as too many, and repeated": history.refused,
            "whole folds compared": self.verified,
            "acknowledged and lost": len(history.lost),
            "applied twice": len(history.twice),
            "median start": f"{statistics.median(self.start_seconds):.2f} s",
        }


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
        soak = Soak(Path(directory) / "data", flags, args.seed, args.callers)
        soak.run(args.kills)
    return finish("kills", soak.rows(), soak.history.violations(), started, args.json)


if __name__ == "__main__":
    sys.exit(main())
