"""What a state of many buckets costs: a decision, memory, a change of the catalogue.

    python benchmarks/core/scale.py [--buckets 1,100,10000,100000] [--json FILE]

Buckets have 8 models at d = 32 and are made through the fold; each learns one outcome of quality, cost and latency, so that it
holds all that a bucket in use holds. 100,000 buckets take 10 GB, and adding a model to all of them takes a minute. A decision is
timed in turns in a state of its own with one bucket, in one bucket of the many, and in a random one each time, which finds its
numbers in no cache; the ratio is that of the last to the first, the median over turns. Bars: a ratio of at most 1.2 in time, and
in memory at most 1.2 times the raw arrays.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import argparse
import gc
import json
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pointsman.bandit import catalog
from pointsman.bandit.bucket import BucketState, arrays, learn
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Context, Encoded
from pointsman.bandit.event import AvailabilitySet, BucketPut, Event, ModelDeleted, ModelPut, Record
from pointsman.bandit.outcome import Signal, SignalChange
from pointsman.bandit.posterior import RESPONSES
from pointsman.bandit.state import State, apply

D, K, CALLS, TURNS = 32, 8, 300, 21
CELLS = 8 * (2 * RESPONSES * D + D * (D + 1))
"""Bytes of m and η of each response and of packed Λ and Σ of one model."""
FEWEST = 100
"""Number of buckets below which the growth of the process is no measure of their size."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--buckets", default="1,100,10000,100000", help="numbers of buckets, ascending")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.buckets.split(",")]
    alone, state = new_state(), new_state()
    grow(alone, 1)
    rows = []
    for size in sizes:
        figures = {"buckets": float(size), **grow(state, size)}
        rows.append({**figures, **decisions(alone, state), **memory(state, figures), **changes(state)})
        for name in ("empty, bytes", "in use, bytes"):
            del rows[-1][name]
    beside = beside_arrays(state)
    added = timed(state, ModelPut(catalog.Model("new"))), timed(state, ModelDeleted("new"))
    rows[-1] |= {"add a model, s": added[0], "delete it, s": added[1]}
    console = Console(width=120)
    table = Table(title=f"d = {D}, k = {K}, one thread, medians of {TURNS} turns of {CALLS} calls")
    table.add_column("what")
    for size in sizes:
        table.add_column(f"{size:,} buckets", justify="right")
    for name in rows[-1]:
        values = [row.get(name, math.nan) for row in rows]
        table.add_row(name, *("" if math.isnan(value) else f"{value:,.4g}" for value in values))
    console.print(table)
    where = Table(title="Bytes of one bucket that are not numbers in arrays")
    where.add_column("of")
    where.add_column("bytes", justify="right")
    for name, size in beside.most_common():
        where.add_row(name, f"{size:,}")
    where.add_row("all", f"{beside.total():,}", style="bold")
    console.print(where)
    if arguments.json:
        arguments.json.write_text(json.dumps({"sizes": rows, "beside arrays": beside}, indent=1))


def put(state: State, event: Event) -> None:
    """Fold one more event."""
    apply(state, Record(state.position + 1, state.position + 1, event))


def timed(state: State, event: Event) -> float:
    """Seconds to fold one more event."""
    began = time.perf_counter()
    put(state, event)
    return time.perf_counter() - began


def new_state() -> State:
    """A state with models and no buckets."""
    state = State()
    for k in range(K):
        put(state, ModelPut(catalog.Model(f"m{k}", prices=catalog.Prices(1.0, 2.0))))
    return state


def grow(state: State, size: int) -> dict[str, float]:
    """Create buckets up to ``size`` and let them learn; the time and the bytes that each new one takes."""
    before, empty, rng = len(state.buckets), resident(), np.random.default_rng(size)
    schema = catalog.Schema(embeddings=(catalog.EmbeddingFeature("e", D - 1),))
    new, began = range(before, size), time.perf_counter()
    for i in track(new, f"{size:,} buckets", disable=len(new) < FEWEST):
        put(state, BucketPut(catalog.Bucket(f"b{i}", schema=schema)))
    seconds, filled = time.perf_counter() - began, resident()
    for i in track(new, "an outcome for each", disable=len(new) < FEWEST):
        bucket = state.buckets[f"b{i}"]
        values = {Signal.QUALITY: rng.random(), Signal.COST: 0.01, Signal.LATENCY: 1.0}
        changes = [SignalChange(signal, None, float(value)) for signal, value in values.items()]
        learn(bucket, f"m{rng.integers(K)}", context(bucket, rng).x_d, changes)
    cells = len(new) * K if len(new) >= FEWEST else math.nan
    return {
        "create a bucket, µs": 1e6 * seconds / max(len(new), 1),
        "empty, bytes": (filled - empty) / cells,
        "in use, bytes": (resident() - empty) / cells,
    }


def decisions(alone: State, crowded: State) -> dict[str, float]:
    """Median times of a decision in the three ways, in microseconds, and the median ratio of the last to the first."""
    rng = np.random.default_rng(1)
    names = list(crowded.buckets)
    turns = []
    for _ in range(TURNS):
        anywhere = [names[i] for i in rng.integers(len(names), size=CALLS)]
        ways = ((alone, ["b0"] * CALLS), (crowded, anywhere[:1] * CALLS), (crowded, anywhere))
        turns.append([decision_time(state, which, rng) for state, which in ways])
    only, hot, random = (statistics.median(turn[way] for turn in turns) for way in range(3))
    return {
        "decision, the only bucket, µs": only,
        "decision, one bucket of these, µs": hot,
        "decision, random buckets, µs": random,
        "ratio of random to only": statistics.median(turn[2] / turn[0] for turn in turns),
    }


def memory(state: State, figures: Mapping[str, float]) -> dict[str, float]:
    """Bytes of a (bucket, model) in the process and in arrays. Buckets are all alike, so the arrays of the last stand for all."""
    used = next(iter(state.buckets.values()))
    fresh = new_state()
    put(fresh, BucketPut(used.config))
    raw_empty, raw = (sum(a.nbytes for a in arrays(b).values()) / K for b in (fresh.buckets[used.config.id], used))
    return {
        "bytes of an empty (bucket, model)": figures["empty, bytes"],
        "… its arrays": raw_empty,
        "bytes of a (bucket, model) in use": figures["in use, bytes"],
        "… of it arrays": raw,
        "… of it m, η, Λ, Σ": CELLS,
        "ratio to the arrays": figures["in use, bytes"] / raw,
        "ratio to m, η, Λ, Σ": figures["in use, bytes"] / CELLS,
    }


def changes(state: State) -> dict[str, float]:
    """Milliseconds to fold changes of the catalogue."""
    repriced = catalog.Model("m0", prices=catalog.Prices(3.0, 4.0))
    return {
        "switch a model off, ms": 1e3 * timed(state, AvailabilitySet("m0", False)),
        "switch it on, ms": 1e3 * timed(state, AvailabilitySet("m0", True)),
        "change its prices, ms": 1e3 * timed(state, ModelPut(repriced)),
    }


def context(bucket: BucketState, rng: np.random.Generator) -> Encoded:
    """A random context."""
    return bucket.encoder.encode(Context(embeddings={"e": rng.normal(size=D - 1) / np.sqrt(D - 1)}))


def decision_time(state: State, names: Sequence[str], rng: np.random.Generator) -> float:
    """Microseconds of one decision in these buckets, of the processor's time: others may be at work on this machine."""
    encoded = context(state.buckets[names[0]], rng)
    began = time.process_time()
    for name in names:
        decide(state.buckets[name], [encoded], [b"0" * 16], rng, health=state.health, now_ns=0, state_position=0)
    return 1e6 * (time.process_time() - began) / len(names)


def resident() -> int:
    """Bytes of memory this process holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def beside_arrays(state: State) -> Counter[str]:
    """Bytes of the last bucket by attribute, without the data of arrays and without what it shares with others."""
    *others, last = state.buckets.values()
    shared = {id(part) for part in parts(others[0] if others else None)}
    bytes_by_field: Counter[str] = Counter({"the object itself": sys.getsizeof(last)})
    for f in fields(last):
        for part in parts(getattr(last, f.name)):
            if id(part) not in shared:
                shared.add(id(part))
                data = part.nbytes if isinstance(part, np.ndarray) and part.flags.owndata else 0
                bytes_by_field[f.name] += sys.getsizeof(part) - data
    return bytes_by_field


def parts(whole: Any) -> Iterator[object]:
    """An object and all that hangs from it."""
    yield whole
    if isinstance(whole, Mapping):
        for key, value in whole.items():
            yield from parts(key)
            yield from parts(value)
    elif isinstance(whole, tuple | list | set | frozenset):
        for item in whole:
            yield from parts(item)
    elif isinstance(whole, np.ndarray):
        yield whole.shape
        if whole.base is not None:
            yield from parts(whole.base)
    elif is_dataclass(whole):
        for f in fields(whole):
            yield from parts(getattr(whole, f.name))
    elif hasattr(whole, "__dict__") and not isinstance(whole, type):
        yield from parts(vars(whole))


if __name__ == "__main__":
    main()
