"""The main job on real data: a service on a free port, 3,609 real prompts, three models, outcomes as they really were.

Warm-up from one half of the data (every model's outcome on every prompt, as an offline evaluation would report it), then
each prompt of the other half in seeded random order: Decide, look up what the chosen model really scored and cost,
ReportOutcome; three reports in ten come late and out of order. At the end a table sets the policy beside its controls.
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
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

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
COST_WEIGHT = 200.0  # quality per dollar: a tenth of a cent is worth 0.2 on the scale from 0 to 1
QUALITY_LOSS = 0.1
MODES = {
    "COST_FIRST": catalog_pb2.Objective(mode=catalog_pb2.OBJECTIVE_MODE_COST_FIRST, max_quality_loss=QUALITY_LOSS),
    "BALANCED": catalog_pb2.Objective(mode=catalog_pb2.OBJECTIVE_MODE_BALANCED, cost_weight=COST_WEIGHT),
    "QUALITY_FIRST": catalog_pb2.Objective(mode=catalog_pb2.OBJECTIVE_MODE_QUALITY_FIRST),
}


@dataclass(frozen=True)
class Run:
    """One way of routing the main prompts: what was chosen for each (n), as a column of the table."""

    name: str
    chosen_n: np.ndarray


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
            runs = await drive(address, warm, table, seed, console)
        report(console, table, runs, seed)
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


async def drive(address: str, warm: OutcomeTable, table: OutcomeTable, seed: int, console: Console) -> list[Run]:
    """Set the catalogue up, warm every bucket up, and route the main prompts through each."""
    buckets = {mode: (mode, True) for mode in MODES} | {f"{mode}, no context": (mode, False) for mode in MODES}
    columns = (
        TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    async with grpc.aio.insecure_channel(address, OPTIONS) as channel:  # with retries: a busy machine sheds load
        await set_up(catalog_service_pb2_grpc.CatalogServiceStub(channel), table.models, buckets)
        router = router_service_pb2_grpc.RouterServiceStub(channel)
        with Progress(*columns, console=console) as progress:
            warming = progress.add_task("warm-up", total=len(buckets) * len(warm.models) * len(warm.prompt_ids))
            for i, (_, context) in enumerate(buckets.values()):
                await warm_up(router, bucket_id(i), warm, context, lambda n: progress.advance(warming, n))
            runs = []
            for i, (name, (_, context)) in enumerate(buckets.items()):
                task = progress.add_task(name, total=len(table.prompt_ids))
                tick: Callable[[], None] = lambda task=task: progress.advance(task)  # type: ignore[misc]  # noqa: E731
                chosen_n = await route(router, bucket_id(i), table, context, np.random.default_rng(seed), tick)
                runs.append(Run(name, chosen_n))
    return runs


def bucket_id(i: int) -> str:
    """The name of the i-th bucket."""
    return f"buckets/demo-{i}"


async def set_up(
    catalog: catalog_service_pb2_grpc.CatalogServiceStub,
    models: Sequence[str],
    buckets: dict[str, tuple[str, bool]],
) -> None:
    """Three models, and a bucket for each mode with the prompt's text as context and one without."""
    for model in models:
        request = catalog_service_pb2.UpdateModelRequest(
            model=catalog_pb2.Model(name=f"models/{model}"), allow_missing=True
        )
        await catalog.UpdateModel(request)
    for i, (title, (mode, context)) in enumerate(buckets.items()):
        schema = catalog_pb2.ContextSchema()
        if context:
            schema.text.SetInParent()
            schema.input_tokens.SetInParent()
        bucket = catalog_pb2.Bucket(name=bucket_id(i), display_name=title, context_schema=schema, objective=MODES[mode])
        await catalog.UpdateBucket(catalog_service_pb2.UpdateBucketRequest(bucket=bucket, allow_missing=True))


def context_of(table: OutcomeTable, row: int, context: bool) -> context_pb2.Context:
    """What the service is told of a prompt."""
    return context_pb2.Context(text=table.texts[row]) if context else context_pb2.Context()


def outcome_of(table: OutcomeTable, row: int, model: int) -> outcome_pb2.Outcome:
    """What the model really scored and cost on the prompt."""
    return outcome_pb2.Outcome(quality=table.quality_nk[row, model], cost_usd=table.cost_nk[row, model])


async def warm_up(
    router: router_service_pb2_grpc.RouterServiceStub,
    bucket: str,
    table: OutcomeTable,
    context: bool,
    advance: Callable[[int], None],
) -> None:
    """Report the outcome of every model on every prompt."""
    n = len(table.prompt_ids)
    for start in range(0, n, BATCH):
        rows = range(start, min(n, start + BATCH))
        contexts = [context_of(table, row, context) for row in rows]
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
    context: bool,
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
            request = router_service_pb2.DecideRequest(bucket=bucket, context=context_of(table, row, context))
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


def best_mix(quality_k: np.ndarray, cost_k: np.ndarray, cost: float) -> float:
    """The best mean quality that a fixed mix of models can have at a mean cost, knowing all in hindsight."""
    best = quality_k[cost_k <= cost].max(initial=-np.inf)
    for i in range(len(cost_k)):
        for j in range(len(cost_k)):
            if cost_k[i] <= cost < cost_k[j]:
                share = (cost - cost_k[i]) / (cost_k[j] - cost_k[i])
                best = max(best, (1 - share) * quality_k[i] + share * quality_k[j])
    return float(best)


def report(console: Console, table: OutcomeTable, runs: Sequence[Run], seed: int) -> None:
    """The table, and what it says in sentences."""
    rows = np.arange(len(table.prompt_ids))
    quality_k, cost_k = table.quality_nk.mean(axis=0), table.cost_nk.mean(axis=0)
    dearest = int(np.argmax(cost_k))

    def line(name: str, quality_n: np.ndarray, cost_n: np.ndarray, style: str = "") -> None:
        quality, cost = quality_n.mean(), cost_n.mean()
        gain_n = quality_n - best_mix(quality_k, cost_k, cost)
        half = 1.96 * gain_n.std(ddof=1) / np.sqrt(len(gain_n))
        mixes = f"{gain_n.mean():+.3f} ± {half:.3f}" if style else ""
        sheet.add_row(
            name, f"{quality:.4f}", f"{1000 * cost:.3f}", f"{1 - cost / cost_k[dearest]:.1%}",
            f"{quality / quality_k[dearest]:.1%}", mixes, style=style,
        )  # fmt: skip

    sheet = Table(title=f"{len(rows)} prompts of {MAIN}, judged quality and real cost of {len(cost_k)} models")
    sheet.add_column("policy", no_wrap=True)
    for title in ("quality", "$/1,000", "saved", "kept", "against best mix"):
        sheet.add_column(title, justify="right", no_wrap=True)
    for run in runs:
        if "no context" not in run.name:
            line(run.name, table.quality_nk[rows, run.chosen_n], table.cost_nk[rows, run.chosen_n], "bold")
    sheet.add_section()
    for run in runs:
        if "no context" in run.name:
            line(run.name, table.quality_nk[rows, run.chosen_n], table.cost_nk[rows, run.chosen_n], "dim")
    sheet.add_section()
    for k in np.argsort(cost_k):
        line(f"always {table.models[k].rpartition('/')[2]}", table.quality_nk[:, k], table.cost_nk[:, k])
    random_n = np.random.default_rng(seed).integers(len(cost_k), size=len(rows))
    line("uniform random", table.quality_nk[rows, random_n], table.cost_nk[rows, random_n])
    sheet.add_section()
    utility_nk = table.quality_nk - COST_WEIGHT * table.cost_nk
    for name, best_n in (
        ("hindsight, BALANCED", utility_nk.argmax(axis=1)),
        ("hindsight, quality", (table.quality_nk - 1e-9 * table.cost_nk).argmax(axis=1)),
    ):
        line(name, table.quality_nk[rows, best_n], table.cost_nk[rows, best_n])
    console.print(sheet)
    console.print(
        f"saved, kept: cost and quality against always {table.models[dearest]}. Best mix: the best mix of fixed models at "
        "the same cost, all outcomes known beforehand; no policy that ignores the context can beat it. Hindsight: the best "
        "model of each prompt."
    )
    with_n, without_n = (
        table.quality_nk[rows, run.chosen_n] - COST_WEIGHT * table.cost_nk[rows, run.chosen_n]
        for run in (runs[1], runs[1 + len(MODES)])
    )
    gain_n = with_n - without_n
    half = 1.96 * gain_n.std(ddof=1) / np.sqrt(len(gain_n))
    verdict = "better than" if gain_n.mean() > half else "not clearly better than"
    console.print(
        f"BALANCED (quality - {COST_WEIGHT:g} x dollars): {with_n.mean():.4f} with the prompt's text, "
        f"{without_n.mean():.4f} without: {gain_n.mean():+.4f} ± {half:.4f}, {verdict} ignoring the context."
    )


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
