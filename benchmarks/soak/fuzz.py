"""Requests nobody would send, to a real server over a real channel: it answers each, properly, and stays whole.

    python benchmarks/soak/fuzz.py [--requests 100000] [--seed N] [--json] [-- more flags of `pointsman serve`]

Requests to all methods, streams too, are made from the contract's descriptors: any field may be there or not, numbers are
at their bounds or not finite, strings are odd, long or the names of what exists, enumerations have numbers unknown, messages
have fields unknown. Half of them begin as a request that was accepted before, so that they get far. One in eight goes as bytes
that were damaged. A call that ends as INTERNAL, UNKNOWN or with any status that the contract does not have, or that has not
ended after its deadline, is a violation; so is a server that has ended, has logged a traceback, does not decide properly
afterwards, or whose state is not the fold of its journal.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict, deque
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import DecodeError, Message

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
from tests.processes import WAIT, Served

AT_ONCE = 8
"""Calls under way at once."""
CORPUS = 60
"""Accepted requests kept for each method, and names kept of each kind."""
SERVICES = (
    router_service_pb2.DESCRIPTOR.services_by_name["RouterService"],
    catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"],
    insight_service_pb2.DESCRIPTOR.services_by_name["InsightService"],
)
METHODS = [method for service in SERVICES for method in service.methods]
LIKELY = {
    "Decide": 6,
    "BatchDecide": 4,
    "ReportOutcome": 6,
    "BatchReportOutcomes": 4,
    "UpdateBucket": 4,
    "CreateBucket": 3,
}
"""Methods that are called so many times as often as others."""
CODES = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""The statuses that the contract has for a server that is well."""
KINDS = {
    "bucket": "buckets/",
    "decision": "decisions/",
    "model": "models/",
    "models": "models/",
    "allow_models": "models/",
    "deny_models": "models/",
    "project": "projects/",
}
FLOATS = (0.0, -0.0, 0.5, 1.0, 2.0, -1.0, 1e-300, 5e-324, 1e308, -1e308, 3.4e38, 1e-40, math.nan, math.inf, -math.inf)
STRINGS = (
    "",
    "n",
    "c",
    "e",
    "x",
    "y",
    "a",
    "/",
    "*",
    "é",
    "\0",
    "\u202e",
    "𝔘",
    "a b",
    "..",
    "name",
    "n" * 129,
    "é" * 300,
)
PATHS = (
    "*",
    "name",
    "display_name",
    "budget",
    "budget.hard",
    "models",
    "context_schema",
    "context_schema.numbers",
    "etag",
    "tags",
)


def message_class(descriptor: Any) -> type[Message]:
    """The class of messages of ``descriptor``."""
    return message_factory.GetMessageClass(descriptor)  # type: ignore[no-any-return]


class Maker:
    """Makes requests. ``names`` are those of what exists, by collection; ``accepted`` the requests that were."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.names: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=CORPUS))
        self.accepted: dict[str, deque[bytes]] = defaultdict(lambda: deque(maxlen=CORPUS))
        for kind in ("models/", "buckets/", "projects/"):
            self.names[kind].extend(kind + resource_id for resource_id in ("a", "b", "f", "g/h"))

    def request(self, method: MethodDescriptor) -> bytes:
        """A request of ``method``, as bytes."""
        rng, accepted = self.rng, self.accepted[method.full_name]
        message = message_class(method.input_type)()
        if accepted and rng.random() < 0.5:
            message.ParseFromString(rng.choice(accepted))
            for _ in range(rng.choice([0, 1, 1, 2, 4])):
                self.change(message)
        else:
            self.fill(message)
        data = message.SerializeToString()
        kind = rng.random()
        if kind < 0.125:
            return self.damaged(data)
        if kind < 0.2:  # a field that nobody knows
            return data + rng.choice([b"\xfa\xff\x03\x03abc", b"\x98\x75\x01", b"\xa2\x1f\x00", b"\x9b\x75\x9c\x75"])
        return data

    def damaged(self, data: bytes) -> bytes:
        """``data`` with bytes changed, taken out, put in, or the whole cut off."""
        rng, some = self.rng, bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = rng.randrange(len(some) + 1)
            match rng.randrange(5):
                case 0 if at < len(some):
                    some[at] ^= 1 << rng.randrange(8)
                case 1:
                    some[at:at] = rng.randbytes(rng.choice([1, 2, 9]))
                case 2:
                    del some[at : at + rng.choice([1, 1, 5])]
                case 3:
                    del some[at:]
                case _:
                    some[at : at + 1] = rng.choice([b"\xff", b"\x80", b"\xff" * 10, b"\xc3\x28", b"\x00"])
        return bytes(some)

    def fill(self, message: Message, depth: int = 0) -> None:
        """Set a random part of the fields, in place."""
        for field in message.DESCRIPTOR.fields:
            likely = field.name in ("name", "bucket", "decision", "context", "outcome", "model", "contexts", "requests")
            if self.rng.random() < (0.9 if likely and depth < 2 else 0.5 / (1 + depth)):
                self.set(message, field, depth)

    def change(self, message: Message) -> None:
        """Set one field, of this message or of one inside, anew or not at all, in place."""
        inside = [value for field, value in message.ListFields() if field.message_type and not field.is_repeated]
        inside += [
            value
            for field, values in message.ListFields()
            if field.message_type and field.is_repeated and not is_map(field)
            for value in values
        ]
        if inside and self.rng.random() < 0.6:
            self.change(self.rng.choice(inside))
            return
        if message.DESCRIPTOR.fields:
            field = self.rng.choice(message.DESCRIPTOR.fields)
            if self.rng.random() < 0.7:
                message.ClearField(field.name)
            if self.rng.random() < 0.8:
                self.set(message, field, 1)

    def set(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        """Give ``field`` a random value, or several, in place."""
        rng = self.rng
        if is_map(field):
            target, value = getattr(message, field.name), field.message_type.fields_by_name["value"]
            for _ in range(rng.choice([0, 1, 1, 2, 3, 100])):
                key = rng.choice(["n", "c", "e", self.text(field)])
                if value.message_type is None:
                    target[key] = self.scalar(value)
                else:
                    self.fill(target[key], depth + 1)
        elif field.is_repeated:
            target = getattr(message, field.name)
            count = rng.choice([0, 1, 1, 2, 3, 3, 17, 300 if field.message_type is None else 20])
            for _ in range(count):
                if field.message_type is not None:
                    self.fill(target.add(), depth + 1)
                else:
                    target.append(self.scalar(field))
        elif field.message_type is not None:
            getattr(message, field.name).SetInParent()
            self.fill(getattr(message, field.name), depth + 1)
        else:
            setattr(message, field.name, self.scalar(field))

    def scalar(self, field: FieldDescriptor) -> Any:
        """A value of the field's type."""
        rng, kind = self.rng, field.cpp_type
        if kind == FieldDescriptor.CPPTYPE_STRING:
            return (
                rng.randbytes(rng.choice([0, 1, 16])) if field.type == FieldDescriptor.TYPE_BYTES else self.text(field)
            )
        if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            value = rng.choice([rng.random(), rng.gauss(0, 10), rng.choice(FLOATS)])
            return value if kind == FieldDescriptor.CPPTYPE_DOUBLE or abs(value) < 3e38 else math.inf
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.5
        if kind == FieldDescriptor.CPPTYPE_ENUM:
            return rng.choice([rng.randrange(7), rng.randrange(4), -1, 1000, 2**31 - 1, -(2**31)])
        bits = 31 if kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32) else 63
        bound = rng.choice([2**bits - 1, -(2**bits), 2 ** rng.randrange(bits), -(2 ** rng.randrange(bits)), 0, -1])
        return rng.choice([rng.randrange(1, 9), rng.randrange(300), bound])

    def text(self, field: FieldDescriptor) -> str:
        """A string: a name of what exists where one is expected, mostly."""
        rng = self.rng
        kind = KINDS.get(field.name)
        if field.name == "name" and field.containing_type.name not in (
            "NumberFeature",
            "CategoryFeature",
            "EmbeddingFeature",
        ):
            kind = next((k for w, k in CONTAINERS.items() if w in field.containing_type.name), None)
        if kind and self.names[kind] and rng.random() < 0.8:
            return rng.choice(self.names[kind])
        if field.name == "paths":
            return rng.choice(PATHS)
        if field.name in ("etag", "page_token") and self.names[field.name] and rng.random() < 0.6:
            return rng.choice(self.names[field.name])
        if rng.random() < 0.001:
            return "long " * 250_000  # more than a text may have
        if rng.random() < 0.3:
            return "".join(
                chr(rng.choice([rng.randrange(32, 127), rng.randrange(0x250)])) for _ in range(rng.randrange(12))
            )
        return rng.choice(STRINGS)

    def learn(self, method: MethodDescriptor, request: bytes, response: Message) -> None:
        """Keep a request that was accepted, and the names in its response."""
        if len(request) < 20_000:
            self.accepted[method.full_name].append(request)
        self._harvest(response)

    def _harvest(self, message: Message, depth: int = 0) -> None:
        for field, value in message.ListFields():
            if is_map(field) or depth > 3:
                continue
            for item in list(value)[:5] if field.is_repeated else [value]:
                if isinstance(item, Message):
                    self._harvest(item, depth + 1)
                elif isinstance(item, str) and field.name in ("name", "etag", "next_page_token"):
                    collection = (
                        item.partition("/")[0] + "/" if field.name == "name" else field.name.removeprefix("next_")
                    )
                    if item not in self.names[collection]:
                        self.names[collection].append(item)


CONTAINERS = {"Decision": "decisions/", "Bucket": "buckets/", "Project": "projects/", "Model": "models/"}


def is_map(field: FieldDescriptor) -> bool:
    """Whether ``field`` is a map."""
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


async def call(
    channel: grpc.aio.Channel, method: MethodDescriptor, request: bytes
) -> tuple[grpc.StatusCode, str, bytes]:
    """Send bytes; the status, its message, and the response (the first one of a stream) as bytes."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    try:
        if not method.server_streaming:
            return grpc.StatusCode.OK, "", await channel.unary_unary(path)(request, timeout=WAIT)
        stream = channel.unary_stream(path)(request, timeout=WAIT)
        if method.name == "WatchDecisions":  # has no end: that it has begun, or is refused, is its answer
            await stream.initial_metadata()
            await asyncio.sleep(0)
            if stream.done():
                return await stream.code(), await stream.details(), b""
            await asyncio.sleep(0.005)
            if stream.done():
                return await stream.code(), await stream.details(), b""
            stream.cancel()
            return grpc.StatusCode.OK, "", b""
        first = await stream.read()
        if first is grpc.aio.EOF:
            return await stream.code(), await stream.details(), b""
        stream.cancel()
        return grpc.StatusCode.OK, "", first
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or "", b""


async def bombard(
    server: Served, maker: Maker, count: int, seconds: float
) -> tuple[Counter[str], Counter[str], list[str]]:
    """Send ``count`` requests, or as many as fit; how many were sent by method, answered by status, and what was wrong."""
    by_method: Counter[str] = Counter()
    by_code: Counter[str] = Counter()
    violations: list[str] = []
    wrong: dict[str, tuple[int, bytes]] = defaultdict(lambda: (0, b""))
    methods = [method for method in METHODS for _ in range(LIKELY.get(method.name, 1))]
    end = time.perf_counter() + seconds

    async with grpc.aio.insecure_channel(server.address) as channel:

        async def work() -> None:
            while sum(by_method.values()) < count and time.perf_counter() < end and server.process.poll() is None:
                method = maker.rng.choice(methods)
                request = maker.request(method)
                by_method[method.name] += 1
                code, details, response = await call(channel, method, request)
                by_code[code.name] += 1
                if code not in CODES:
                    kind = f"{code.name} {details[:120]!r} from {method.name}"
                    wrong[kind] = wrong[kind][0] + 1, wrong[kind][1] or request
                elif code == grpc.StatusCode.OK and response:
                    try:
                        maker.learn(method, request, message_class(method.output_type).FromString(response))
                    except DecodeError:
                        violations.append(
                            f"{method.name} answered what is no {method.output_type.name}: {response[:200]!r}"
                        )

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    violations += [f"{n} × {kind}: {request[:500]!r}" for kind, (n, request) in wrong.items()]
    return by_method, by_code, violations


async def set_up(stubs: Stubs, bucket: str) -> None:
    """Models, a project and a bucket of the kind that the requests speak of."""
    for name in ("models/a", "models/b"):
        await stubs.catalog.UpdateModel(
            catalog_service_pb2.UpdateModelRequest(model=catalog_pb2.Model(name=name), allow_missing=True), timeout=WAIT
        )
        await stubs.catalog.SetModelAvailability(
            catalog_service_pb2.SetModelAvailabilityRequest(name=name, availability="MODEL_AVAILABILITY_ENABLED"),
            timeout=WAIT,
        )
    schema = catalog_pb2.ContextSchema(
        numbers=[catalog_pb2.NumberFeature(name="n", optional=True)],
        categories=[catalog_pb2.CategoryFeature(name="c", values=["x", "y"], optional=True, open=True)],
        embeddings=[catalog_pb2.EmbeddingFeature(name="e", dimension=3, optional=True)],
        text=catalog_pb2.TextFeature(optional=True),
    )
    message = catalog_pb2.Bucket(name=bucket, context_schema=schema, models=["models/a", "models/b"])
    await stubs.catalog.UpdateBucket(
        catalog_service_pb2.UpdateBucketRequest(bucket=message, allow_missing=True), timeout=WAIT
    )


async def decides(server: Served) -> list[str]:
    """What is wrong with how the server decides and learns."""
    wrong = []
    async with grpc.aio.insecure_channel(server.address) as channel:
        stubs = Stubs(channel)
        await set_up(stubs, "buckets/after")
        for i in range(100):
            request = router_service_pb2.DecideRequest(
                bucket="buckets/after", context={"numbers": {"n": i / 100}}, explain=True
            )
            decision = (await stubs.router.Decide(request, timeout=WAIT)).decision
            total = sum(candidate.propensity for candidate in decision.candidates)
            if not (0 < decision.propensity <= 1 and abs(total - 1) < 1e-6):
                wrong.append(f"propensities sum to {total}: {decision}")
            await stubs.router.ReportOutcome(
                router_service_pb2.ReportOutcomeRequest(
                    decision=decision.name, outcome=outcome_pb2.Outcome(quality=0.5)
                ),
                timeout=WAIT,
            )
        insight = await stubs.insight.GetBucketInsight(
            insight_service_pb2.GetBucketInsightRequest(name="buckets/after"), timeout=WAIT
        )
        if sum(model.quality_observations for model in insight.models) != 100:
            wrong.append(f"100 outcomes were reported, and known are {insight}")
    return wrong


def soak(count: int, seconds: float, seed: int, data: Path, flags: list[str]) -> tuple[dict[str, object], list[str]]:
    """All of it; the rows of the table and the violations."""
    server, maker = Served(data, *flags).ready(), Maker(seed)

    async def run() -> tuple[Counter[str], Counter[str], list[str]]:
        async with grpc.aio.insecure_channel(server.address) as channel:
            await set_up(Stubs(channel), "buckets/b")
        return await bombard(server, maker, count, seconds)

    by_method, by_code, violations = asyncio.run(run())
    if server.process.poll() is not None:
        violations.append(f"the server ended with {server.process.poll()}: {server.said()[-2000:]}")
    else:
        try:
            violations += asyncio.run(decides(server))
        except grpc.aio.AioRpcError as error:
            violations.append(f"the server does not decide any more: {error.code().name} {error.details()}")
        if (code := server.stop()) != 0:
            violations.append(f"the server ended with {code}")
    if tracebacks(server.said()):
        output = server.said()
        violations.append(
            f"the server logged {tracebacks(output)} tracebacks: {output[output.find('Traceback') :][:3000]}"
        )
    folded = verify(data)
    if not folded["equal"]:
        violations.append(f"the state is not the fold of the journal: {folded}")
    rows: dict[str, object] = {
        "requests": sum(by_method.values()),
        "methods": len(by_method),
        **{f"  {code}": n for code, n in by_code.most_common()},
        "hangs": by_code["DEADLINE_EXCEEDED"],
        "INTERNAL or UNKNOWN": by_code["INTERNAL"] + by_code["UNKNOWN"],
        "events in the journal": folded["position"],
        "folds equal": folded["equal"],
    }
    return rows, violations


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=60.0, help="end earlier than after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("flags", nargs="*", help="more flags for the server, after --")
    args = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        rows, violations = soak(args.requests, args.minutes * 60, args.seed, Path(directory) / "data", args.flags)
    return finish("fuzz", rows, violations, started, args.json)


if __name__ == "__main__":
    sys.exit(main())
