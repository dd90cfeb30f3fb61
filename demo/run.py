"""The main job on real data: a service on a free port, 3,609 real prompts, three models, outcomes as they really were.

Warm-up from one half of the data (every model's outcome on every prompt, as an offline evaluation would report it), then
each prompt of the other half in seeded random order: Decide, look up what the chosen model really scored and cost,
ReportOutcome; three reports in ten come late and out of order. That at three budgets and under two objectives, each a bucket
of its own; at the end routing stands beside what one would do instead (``demo/result.py``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from result import Routed, show
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pointsman.channel import OPTIONS
from pointsman.simulator.data.table import OutcomeTable, load_table
from pointsman.v1 import (
    catalog_pb2,
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    context_pb2,
    decision_pb2,
    outcome_pb2,
    router_service_pb2,
    router_service_pb2_grpc,
)

WARM_UP, MAIN = "paretobandit:val", "paretobandit:test_holdout"
CALLERS = 32
START_S = 120.0
"""Seconds after which a service that has not said its address is taken to hang."""
LATE = 0.3
BATCH = 1024
COST_WEIGHT = 200.0
"""Quality per dollar: a tenth of a cent is worth .2 on the scale from 0 to 1."""
QUALITY_LOSS = 0.1
BUDGETS = (8.3e-5, 2.3e-4, 6.6e-4)
"""Dollars per request, of the published experiments on these prompts."""


@dataclass(frozen=True)
class Way:
    """A way of routing: its name, its objective, and its budget in dollars per request."""

    name: str
    objective: catalog_pb2.Objective
    budget: float | None = None


BEST = catalog_pb2.Objective(mode=catalog_pb2.OBJECTIVE_MODE_QUALITY_FIRST)
WAYS = (
    *(Way(f"${1000.0 * budget:.2f} per 1,000 requests", BEST, budget) for budget in BUDGETS),
    Way(
        "COST_FIRST, at most .1 worse",
        catalog_pb2.Objective(mode=catalog_pb2.OBJECTIVE_MODE_COST_FIRST, max_quality_loss=QUALITY_LOSS),
    ),
    Way(
        "BALANCED, .1 for $.0005",
        catalog_pb2.Objective(mode=catalog_pb2.OBJECTIVE_MODE_BALANCED, cost_weight=COST_WEIGHT),
    ),
)


async def main(seed: int, keep: Path | None) -> None:
    """Run the demo; ``keep`` is a data directory to keep, else a temporary one is used and removed."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=110)
    started = time.monotonic()
    warm, table = load_table(WARM_UP), load_table(MAIN)
    with contextlib.ExitStack() as stack:
        data = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pointsman-demo-")))
        async with service(data, seed) as address:
            console.print(f"pointsman serves on [bold]{address}[/bold], journal in {data}")
            routed = await drive(address, warm, table, seed, console)
        show(console, warm, table, routed)
    console.print(f"\n{time.monotonic() - started:.0f} s in all.")
    where_next(console, keep)


@contextlib.asynccontextmanager
async def service(data: Path, seed: int) -> AsyncIterator[str]:
    """A `pointsman serve` process on a free port; gives its address, and stops it at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pointsman.cli", "serve",
        "--data", str(data), "--listen", "127.0.0.1:0", "--seed", str(seed),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                line = (await process.stdout.readline()).decode()
        address_match = re.search(r"serving on (\S+)", line)
        if not address_match:
            if process.returncode is None:
                process.kill()
            assert process.stderr is not None
            raise SystemExit(f"the service did not start: {line}{(await process.stderr.read()).decode()}")
        yield address_match[1]
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.communicate()


async def drive(address: str, warm: OutcomeTable, table: OutcomeTable, seed: int, console: Console) -> list[Routed]:
    """Set the catalogue up, warm every bucket up, and route the main prompts through each."""
    columns = (
        TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    async with grpc.aio.insecure_channel(address, OPTIONS) as channel:  # with retries: a busy machine sheds load
        catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        for model in table.models:
            message = catalog_pb2.Model(name=f"models/{model}")
            await catalog.UpdateModel(catalog_service_pb2.UpdateModelRequest(model=message, allow_missing=True))
        router = router_service_pb2_grpc.RouterServiceStub(channel)
        routed = []
        with Progress(*columns, console=console) as progress:
            warming = progress.add_task("warm-up", total=len(WAYS) * len(warm.models) * len(warm.prompt_ids))
            for i, way in enumerate(WAYS):
                await put_bucket(catalog, i, way, warm, None)
                await warm_up(router, bucket_id(i), warm, lambda n: progress.advance(warming, n))
                await put_bucket(catalog, i, way, warm, way.budget)  # what warming up cost is not the budget's business
            for i, way in enumerate(WAYS):
                task = progress.add_task(way.name, total=len(table.prompt_ids))
                tick: Callable[[], None] = lambda task=task: progress.advance(task)  # type: ignore[misc]  # noqa: E731
                chosen_n = await route(router, bucket_id(i), table, np.random.default_rng(seed), tick)
                routed.append(Routed(way.name, way.budget, chosen_n))
    return routed


def bucket_id(i: int) -> str:
    """The name of the i-th bucket."""
    return f"buckets/demo-{i}"


async def put_bucket(
    catalog: catalog_service_pb2_grpc.CatalogServiceStub, i: int, way: Way, table: OutcomeTable, budget: float | None
) -> None:
    """A bucket that is told the task and the text of a prompt."""
    schema = catalog_pb2.ContextSchema()
    schema.categories.add(name="task", values=sorted(set(table.tasks)), open=True)
    schema.text.SetInParent()
    schema.input_tokens.SetInParent()
    bucket = catalog_pb2.Bucket(
        name=bucket_id(i), display_name=way.name, context_schema=schema, objective=way.objective
    )
    if budget is not None:
        bucket.budget.usd_per_request = budget
    await catalog.UpdateBucket(catalog_service_pb2.UpdateBucketRequest(bucket=bucket, allow_missing=True))


def context_of(table: OutcomeTable, row: int) -> context_pb2.Context:
    """What the service is told of a prompt."""
    assert table.texts is not None
    return context_pb2.Context(text=table.texts[row], categories={"task": table.tasks[row]})


def outcome_of(table: OutcomeTable, row: int, model: int) -> outcome_pb2.Outcome:
    """What the model really scored and cost on the prompt."""
    return outcome_pb2.Outcome(quality=table.quality_nk[row, model], cost_usd=table.cost_nk[row, model])


async def warm_up(
    router: router_service_pb2_grpc.RouterServiceStub,
    bucket: str,
    table: OutcomeTable,
    advance: Callable[[int], None],
) -> None:
    """Report the outcome of every model on every prompt."""
    n = len(table.prompt_ids)
    for start in range(0, n, BATCH):
        rows = range(start, min(n, start + BATCH))
        contexts = [context_of(table, row) for row in rows]
        for k, model in enumerate(table.models):
            only = decision_pb2.Limits(allow_models=[f"models/{model}"])
            request = router_service_pb2.BatchDecideRequest(bucket=bucket, contexts=contexts, limits=only)
            decided = await router.BatchDecide(request)
            reports = [
                router_service_pb2.ReportOutcomeRequest(decision=decision.name, outcome=outcome_of(table, row, k))
                for decision, row in zip(decided.decisions, rows, strict=True)
            ]
            answer = await router.BatchReportOutcomes(router_service_pb2.BatchReportOutcomesRequest(requests=reports))
            refused = [result.error.message for result in answer.results if result.HasField("error")]
            if refused:
                raise SystemExit(f"{len(refused)} outcomes were refused: {refused[0]}")
            advance(len(reports))


async def route(
    router: router_service_pb2_grpc.RouterServiceStub,
    bucket: str,
    table: OutcomeTable,
    rng: np.random.Generator,
    tick: Callable[[], None],
) -> np.ndarray:
    """Decide and report each prompt, in random order, as 32 callers would; the chosen model of each, (n)."""
    n = len(table.prompt_ids)
    place = {f"models/{model}": k for k, model in enumerate(table.models)}
    chosen_n = np.full(n, -1)
    work = asyncio.Queue[int]()
    for row in rng.permutation(n):
        work.put_nowait(int(row))
    exceedance_n = rng.random(n) < LATE
    delayed_reports: list[router_service_pb2.ReportOutcomeRequest] = []

    async def caller() -> None:
        while not work.empty():
            row = work.get_nowait()
            request = router_service_pb2.DecideRequest(bucket=bucket, context=context_of(table, row))
            decision = (await router.Decide(request)).decision
            chosen_n[row] = place[decision.model]
            report = router_service_pb2.ReportOutcomeRequest(
                decision=decision.name,
                outcome=outcome_of(table, row, chosen_n[row]),
                idempotency_key="outcome",
            )
            if exceedance_n[row]:
                delayed_reports.append(report)
            else:
                await router.ReportOutcome(report)
            if len(delayed_reports) > 4 * CALLERS:  # the late ones come in a random order, long after their decision
                await router.ReportOutcome(delayed_reports.pop(int(rng.integers(len(delayed_reports)))))
            tick()

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    await asyncio.gather(*(router.ReportOutcome(report) for report in delayed_reports))
    return chosen_n


def where_next(console: Console, keep: Path | None) -> None:
    """What to look at after the demo."""
    console.print(
        "\nNext: README.md, ten lines to adopt it; docs/operations.md to run it; docs/mathematics.md for the why."
    )
    if keep:
        console.print(f"The journal is in {keep}:  pointsman export --data {keep} --to decisions.csv")
    else:
        console.print("Keep the journal to look into it:  make demo KEEP=demo-data")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="keep the journal in this directory")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.seed, arguments.keep))
