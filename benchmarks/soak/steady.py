"""Half load for a long time: memory, file descriptors and threads stay as they are; and a system clock that jumps.

    python benchmarks/soak/steady.py [--minutes 10] [--load 0.5] [--json] [-- more flags of `pointsman serve`]

First the server is filled: a hundred buckets, and more decisions than it keeps in memory (20,000 of about 3 kB), each with an
outcome, as fast as it goes; the rate reached is full load. Then it gets ``--load`` of that for the rest of the time. Each
second its memory is read. The medians of the second and the last quarter may differ by 5 % or 10 MiB; the slope is the median
of those between all pairs of readings from the second quarter on (Theil and Sen).

Then the clock: a data directory is opened with clocks an hour and a hundred days ahead, behind, and as before, in this process.
Journal times never go back, a repeated report or request is recognised at any clock, decisions expire when their window
has passed and not before, and the state is the fold of the journal.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))
from kit import Stubs, finish, tracebacks, verify

from pointsman.bandit.catalog import DAY_NS, Bucket, Model
from pointsman.bandit.encoder import Context
from pointsman.bandit.outcome import Signal
from pointsman.bandit.state import State, fingerprint
from pointsman.server.errors import ExpiredError
from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.journal.sqlite_store import read_rows
from pointsman.server.state.outcomes import Report
from pointsman.server.state.records import KEPT as DECISIONS_KEPT
from pointsman.server.state.recovery import fold_rows
from pointsman.server.state.replica import open_replica
from pointsman.v1 import catalog_pb2, catalog_service_pb2, outcome_pb2, router_service_pb2
from tests.calls import patient
from tests.processes import WAIT, Served

BUCKETS = 100
AT_ONCE = 16
TOLERANCE, SLACK_MIB = 1.05, 10.0
HOUR_NS = 3600 * 10**9


@dataclass(frozen=True)
class Reading:
    """A process's resources at a time."""

    seconds: float
    rss_mib: float
    descriptors: int
    threads: int
    snapshots: int


def read(server: Served, began: float) -> Reading:
    """Of the server's process, from /proc."""
    process = Path(f"/proc/{server.process.pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
    return Reading(
        time.perf_counter() - began,
        int(status["VmRSS"].split()[0]) / 1024,
        len(list((process / "fd").iterdir())),
        int(status["Threads"]),
        len(list((server.data / "snapshots").glob("*"))),
    )


async def set_up(stubs: Stubs) -> None:
    """Four models and a hundred buckets."""
    for name in "abcd":
        model = catalog_pb2.Model(name=f"models/{name}")
        await stubs.catalog.UpdateModel(
            catalog_service_pb2.UpdateModelRequest(model=model, allow_missing=True), timeout=WAIT
        )
    schema = catalog_pb2.ContextSchema(numbers=[catalog_pb2.NumberFeature(name=f"n{i}") for i in range(8)])
    for i in range(BUCKETS):
        bucket = catalog_pb2.Bucket(name=f"buckets/b{i}", context_schema=schema)
        await stubs.catalog.UpdateBucket(
            catalog_service_pb2.UpdateBucketRequest(bucket=bucket, allow_missing=True), timeout=WAIT
        )


async def decide_and_report(stubs: Stubs, rng: np.random.Generator) -> int:
    """A decision and its outcome; returns how often the server refused to admit a call."""
    numbers = {f"n{i}": float(x) for i, x in enumerate(rng.normal(size=8))}
    request = router_service_pb2.DecideRequest(bucket=f"buckets/b{rng.integers(BUCKETS)}", context={"numbers": numbers})
    answer, refused = await patient(stubs.router.Decide, request)
    outcome = outcome_pb2.Outcome(quality=float(rng.random()), cost_usd=float(rng.random()), latency_seconds=1.0)
    _, more = await patient(
        stubs.router.ReportOutcome,
        router_service_pb2.ReportOutcomeRequest(decision=answer.decision.name, outcome=outcome, idempotency_key="k"),
    )
    return refused + more


async def drive(server: Served, fill: int, minutes: float, load: float) -> tuple[float, int, int, list[Reading]]:
    """Fill, then keep to ``load``; full load in decisions per second, decisions and refusals after it, readings."""
    rng = np.random.default_rng(0)
    async with grpc.aio.insecure_channel(server.address) as channel:
        stubs = Stubs(channel)
        await set_up(stubs)
        began, left = time.perf_counter(), fill

        async def filling() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await decide_and_report(stubs, rng)

        await asyncio.gather(*(filling() for _ in range(AT_ONCE)))
        full = fill / (time.perf_counter() - began)
        started = time.perf_counter()
        end = max(began + minutes * 60, started + 4)
        sent = refused = 0

        async def steady() -> None:
            nonlocal sent, refused
            while (now := time.perf_counter()) < end:
                due = started + sent / (load * full)
                sent += 1
                if due > now:
                    await asyncio.sleep(due - now)
                more = await decide_and_report(stubs, rng)
                refused += more  # not in one line: others count while this one waits

        async def watch() -> list[Reading]:
            readings = []
            while time.perf_counter() < end:
                readings.append(read(server, started))
                await asyncio.sleep(1 if end - started > 60 else 0.2)
            return readings

        readings, *_ = await asyncio.gather(watch(), *(steady() for _ in range(AT_ONCE)))
    return full, sent, refused, readings


def slope(readings: list[Reading]) -> float:
    """MiB an hour: the median of the slopes between pairs of readings, of at most 200."""
    some = readings[:: max(1, len(readings) // 200)]
    slopes = [(b.rss_mib - a.rss_mib) / (b.seconds - a.seconds) for i, a in enumerate(some) for b in some[i + 1 :]]
    return 3600 * statistics.median(slopes)


async def jumps(data: Path) -> tuple[dict[str, object], list[str]]:
    """Restarts with clocks that jump; counts by title, and violations."""
    start = 1_700_000_000 * 10**9
    offsets = [0, HOUR_NS, -HOUR_NS, 100 * DAY_NS, -100 * DAY_NS, 0, 5 * HOUR_NS, -DAY_NS]
    wrong: list[str] = []
    decided: list[tuple[bytes, int, str]] = []  # id, end of the window, request id
    first: dict[str, bytes] = {}
    checked = 0
    for turn, offset in enumerate(offsets):
        journal = SqliteJournal(data)
        clock = [start + offset]
        replica = await open_replica(
            journal, np.random.default_rng(turn), lambda clock=clock: clock[0], data / "snapshots", 50
        )  # type: ignore[misc]
        try:
            if turn == 0:
                await replica.catalogue.put_model(Model("a"), 0)
                await replica.catalogue.put_bucket(Bucket("b"), 0)
            for i in range(10):
                clock[0] += 10**9
                id_ = f"{turn}.{i}"
                (record,) = await replica.decisions.decide("b", [Context()], None, None, id_)
                decided.append((record.decision.id, record.decision.expire_ns, id_))
                first[id_] = record.decision.id
                if record.decision.expire_ns < clock[0] + HOUR_NS:
                    wrong.append(f"turn {turn}: the window of a new decision ends within the hour")
                reported = await replica.outcomes.report(Report(record.decision.id, {Signal.QUALITY: 0.5}, "k"))
                if reported.duplicate:
                    wrong.append(f"turn {turn}: a new report is taken for a repetition")
            for id_bytes, expire_ns, id_ in decided:
                checked += 1
                (record,) = await replica.decisions.decide("b", [Context()], None, None, id_)
                if record.decision.id != first[id_]:
                    wrong.append(f"turn {turn}: request {id_} was decided twice")
                try:
                    again = await replica.outcomes.report(Report(id_bytes, {Signal.QUALITY: 0.5}, "k"))
                    if not again.duplicate or again.outcome.reports != 1:
                        wrong.append(f"turn {turn}: the report on {id_} was applied twice")
                    late = clock[0] > expire_ns
                except ExpiredError:
                    late = clock[0] <= expire_ns
                if late:
                    wrong.append(
                        f"turn {turn}: at {clock[0]} the window of {id_}, which ends at {expire_ns}, is not respected"
                    )
        finally:
            await replica.close()
        rows = list(read_rows(data))
        if any(b.time_ns < a.time_ns for a, b in itertools.pairwise(rows)):
            wrong.append(f"turn {turn}: the journal's time goes back")
        if fingerprint(fold_rows(rows, State())) != fingerprint(replica.state):
            wrong.append(f"turn {turn}: the state is not the fold of the journal")
    rows_: dict[str, object] = {"restarts with another time": len(offsets) - 1, "  decisions checked": checked}
    return rows_, wrong


async def soak(
    fill: int, minutes: float, load: float, data: Path, flags: list[str]
) -> tuple[dict[str, object], list[str]]:
    """All of it; the rows of the table and the violations."""
    server = Served(data, *flags).ready()
    full, sent, refused, readings = await drive(server, fill, minutes, load)
    violations = []
    if (code := server.stop()) != 0:
        violations.append(f"the server ended with {code}")
    if tracebacks(server.said()):
        violations.append(f"the server logged a traceback: {server.said()[-2000:]}")
    if not (folded := verify(data))["equal"]:
        violations.append(f"the state is not the fold of the journal: {folded}")
    quarter = len(readings) // 4
    second, last = readings[quarter : 2 * quarter], readings[3 * quarter :]
    before, after = (statistics.median(r.rss_mib for r in some) for some in (second, last))
    if after > before * TOLERANCE + SLACK_MIB:
        violations.append(f"memory grew from {before:.1f} MiB to {after:.1f} MiB")
    for resource in ("descriptors", "threads"):
        was, is_ = (max(getattr(r, resource) for r in some) for some in (second, last))
        if is_ > was + 2:
            violations.append(f"{resource} grew from {was} to {is_}")
    if (most := max(r.snapshots for r in readings)) > 3:
        violations.append(f"{most} snapshots are kept")
    return {
        "decisions with outcomes, filling": fill,
        "full load, decisions/s": round(full),
        "decisions with outcomes, steady": sent,
        "calls refused as too many, and repeated": refused,
        "steady seconds": round(readings[-1].seconds),
        "steady decisions/s": round(sent / readings[-1].seconds),
        "memory, second quarter": f"{before:.1f} MiB",
        "memory, last quarter": f"{after:.1f} MiB",
        "slope": f"{slope(readings[quarter:]):+.1f} MiB/h",
        "descriptors": f"{min(r.descriptors for r in readings)}-{max(r.descriptors for r in readings)}",
        "threads": f"{min(r.threads for r in readings)}-{max(r.threads for r in readings)}",
        "snapshots kept, at most": most,
        "events in the journal": folded["position"],
    }, violations


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--fill", type=int, default=DECISIONS_KEPT + 2000, help="decisions before memory is looked at")
    parser.add_argument("--load", type=float, default=0.5, help="of full load")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("flags", nargs="*", help="more flags for the server, after --")
    args = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory)
        rows, violations = asyncio.run(soak(args.fill, args.minutes, args.load, data / "data", args.flags))
        jumped, wrong = asyncio.run(jumps(data / "jumps"))
    return finish("steady", {**rows, **jumped}, [*violations, *wrong], started, args.json)


if __name__ == "__main__":
    sys.exit(main())
