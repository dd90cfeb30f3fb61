"""What a state of many buckets costs: memory, a decision, a change of the catalogue.

    python benchmarks/core/scale.py [--buckets 1,1000,100000] [--json FILE]

Buckets have 8 models at d = 32 and are made through the fold; a sample of them learns outcomes. 100,000 buckets take 10 GB. A
decision is timed in one bucket again and again, and in a random one each time, which finds its numbers in no cache.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import argparse
import gc
import json
import statistics
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bandit import catalog
from bandit.bucket import BucketState, arrays, learn
from bandit.decide import decide
from bandit.encoder import Context, Encoded
from bandit.event import AvailabilitySet, BucketPut, ModelPut, Record
from bandit.outcome import Change, Signal
from bandit.state import State, apply

D, K, SAMPLE, CALLS, REPEATS = 32, 8, 100, 400, 9


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--buckets", default="1,1000,100000", help="numbers of buckets, ascending")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.buckets.split(",")]
    state, schema = State(), catalog.Schema(embeddings=(catalog.EmbeddingFeature("e", D - 1),))
    for k in range(K):
        put(state, ModelPut(catalog.Model(f"m{k}")))
    rows, start = [], resident()
    for size in sizes:
        began, before = time.perf_counter(), len(state.buckets)
        for i in track(range(before, size), f"{size} buckets"):
            put(state, BucketPut(catalog.Bucket(f"b{i}", schema=schema)))
        made = (time.perf_counter() - began) / max(size - before, 1)
        rows.append({"buckets": size, "create a bucket, µs": 1e6 * made, **measure(state, size, resident() - start)})
    table = Table(title=f"d = {D}, k = {K}, one thread, medians of {REPEATS} repeats of {CALLS} calls")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{value:,.3g}" if isinstance(value, float) else f"{value:,}" for value in row.values()))
    Console(width=160).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


def put(state: State, event: ModelPut | BucketPut | AvailabilitySet) -> None:
    """Fold one more event."""
    apply(state, Record(state.position + 1, state.position + 1, event))


def measure(state: State, size: int, grown: int) -> dict[str, float]:
    """The figures of a state as it is; ``grown`` are the bytes it takes."""
    rng = np.random.default_rng(size)
    names = [f"b{i}" for i in rng.choice(size, min(size, SAMPLE), replace=False)]
    for name in names:
        for _ in range(20):
            x_d = context(state.buckets[name], rng).x_d
            changes = [Change(Signal.QUALITY, None, float(rng.random())), Change(Signal.COST, None, 0.01)]
            learn(state.buckets[name], f"m{rng.integers(K)}", x_d, changes)
    anywhere = [f"b{i}" for i in rng.choice(size, CALLS)]
    raw = sum(array.nbytes for bucket in state.buckets.values() for array in arrays(bucket).values()) / size / K
    seconds = []
    for available in (False, True):
        began = time.perf_counter()
        put(state, AvailabilitySet("m0", available))
        seconds.append(time.perf_counter() - began)
    gc.collect()
    return {
        "decision, one bucket, µs": decision_time(state, names[:1] * CALLS, rng),
        "decision, random buckets, µs": decision_time(state, anywhere, rng),
        "bytes a (bucket, model)": grown / size / K if size >= 1000 else float("nan"),
        "of it raw arrays": raw,
        "ratio": grown / size / K / raw if size >= 1000 else float("nan"),
        "switch a model off, ms": 1e3 * min(seconds),
    }


def context(bucket: BucketState, rng: np.random.Generator) -> Encoded:
    """A random context."""
    return bucket.encoder.encode(Context(embeddings={"e": rng.normal(size=D - 1) / np.sqrt(D - 1)}))


def decision_time(state: State, names: list[str], rng: np.random.Generator) -> float:
    """Median over repeats of the time of one decision, in microseconds."""
    encoded = [context(state.buckets[name], rng) for name in names]
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for name, one in zip(names, encoded, strict=True):
            decide(state.buckets[name], [one], [b"0" * 16], rng, health=state.health, now_ns=0, state_position=0)
        times.append((time.perf_counter() - began) / len(names))
    return 1e6 * statistics.median(times)


def resident() -> int:
    """Bytes of memory this process holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
