"""Fuzzing of everything that decodes bytes: only documented errors may be raised.

    python benchmarks/soak/decoders.py [--minutes 2] [--runs N] [--engine atheris|mutate] [--json]

Coverage-guided with atheris (`pip install -e '.[soak]'`); without it, or with ``--engine mutate``, by seeded mutations of valid
input. A value that decodes is encoded and decoded again, and must be equal. Every kind of failure is shown once, with bytes that
cause it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))
from kit import finish

try:
    import atheris
except ImportError:
    atheris = None

if atheris is not None and "--guided" in sys.argv:
    with atheris.instrument_imports(
        include=[
            "pointsman.server.codec",
            "pointsman.server.state.snapshot",
            "pointsman.server.names",
            "pointsman.server.process.config",
        ]
    ):
        from pointsman.server import names
        from pointsman.server.codec import catalog as catalog_codec
        from pointsman.server.codec import event as event_codec
        from pointsman.server.codec import request as request_codec
        from pointsman.server.process import config
        from pointsman.server.state import snapshot
else:
    from pointsman.server import names
    from pointsman.server.codec import catalog as catalog_codec
    from pointsman.server.codec import event as event_codec
    from pointsman.server.codec import request as request_codec
    from pointsman.server.process import config
    from pointsman.server.state import snapshot

import numpy as np
from google.protobuf.message import DecodeError

from pointsman.bandit import catalog as c
from pointsman.bandit import event as e
from pointsman.bandit.errors import FieldError
from pointsman.bandit.outcome import ReportedOutcome, Signal, SignalAggregate, SignalChange
from pointsman.bandit.state import State, apply, fingerprint
from pointsman.bandit.terms import BucketTerms
from pointsman.server.journal.interface import JournalFormatError, Row
from pointsman.server.state import rows
from pointsman.v1 import catalog_pb2, context_pb2, decision_pb2, journal_pb2, outcome_pb2

Target = Callable[[bytes], None]


def _model(data: bytes) -> None:
    model = catalog_codec.read_model(catalog_pb2.Model.FromString(data))
    assert catalog_codec.read_model(catalog_codec.write_model(model)) == model


def _bucket(data: bytes) -> None:
    bucket = catalog_codec.read_bucket(catalog_pb2.Bucket.FromString(data))
    assert catalog_codec.read_bucket(catalog_codec.write_bucket(bucket)) == bucket


def _project(data: bytes) -> None:
    project = catalog_codec.read_project(catalog_pb2.Project.FromString(data))
    assert catalog_codec.read_project(catalog_codec.write_project(project)) == project


def _objective(data: bytes) -> None:
    objective = request_codec.read_objective(catalog_pb2.Objective.FromString(data))
    if objective is not None:
        data = request_codec.write_objective(
            objective
        ).SerializeToString()  # not compared as values: a floor may be NaN until the
        again = request_codec.read_objective(
            catalog_pb2.Objective.FromString(data)
        )  # scale of quality is known, and NaN != NaN
        assert again is not None
        assert request_codec.write_objective(again).SerializeToString() == data


def _limits(data: bytes) -> None:
    limits = request_codec.read_limits(decision_pb2.Limits.FromString(data))
    request_codec.write_limits(limits)


def _context(data: bytes) -> None:
    request_codec.read_context(context_pb2.Context.FromString(data))


def _outcome(data: bytes) -> None:
    request_codec.read_outcome(outcome_pb2.Outcome.FromString(data))


def _event(data: bytes) -> None:
    terms = {"b": [BucketTerms(0, ("a",), c.Objective(), c.QualityRange())]}
    event = event_codec.read_event(journal_pb2.JournalEvent.FromString(data), terms)
    again = event_codec.write_event(event).SerializeToString(deterministic=True)
    once_more = event_codec.write_event(event_codec.read_event(journal_pb2.JournalEvent.FromString(again), {}))
    assert once_more.SerializeToString(deterministic=True) == again


def _journal(data: bytes) -> None:
    rows.decode(Row(1, 1, data), terms={})


def _snapshot(data: bytes) -> None:
    """Load a snapshot as it is, and with a valid checksum in place: damage under a valid checksum must be detected too."""
    for whole in (data, snapshot.MAGIC + hashlib.sha256(data[53:]).digest() + data[53:]):
        try:
            snapshot.load(whole)
        except snapshot.SnapshotError:
            continue


def _names(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    for collection in ("models", "buckets", "projects"):
        try:
            id_ = names.parse(text, collection, "name")
            assert f"{collection}/{id_}" == text
        except FieldError:
            continue
    id_bytes = names.parse_decision(text, "name")
    assert names.parse_decision(names.decision_name(id_bytes), "name") == id_bytes


def _config(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(data)
        file.flush()
        config.load(Path(file.name), {}, {})


def _environment(data: bytes) -> None:
    values = data.decode(errors="surrogateescape").split("\n")
    settings = sorted(config.Config.model_fields)
    config.load(None, {f"POINTSMAN_{n.upper()}": v for n, v in zip(settings, values, strict=False)}, {})


MESSAGE = (DecodeError, FieldError)
TARGETS: dict[str, tuple[Target, tuple[type[Exception], ...]]] = {
    "codec.read_model": (_model, MESSAGE),
    "codec.read_bucket": (_bucket, MESSAGE),
    "codec.read_project": (_project, MESSAGE),
    "codec.read_objective": (_objective, MESSAGE),
    "codec.read_limits": (_limits, MESSAGE),
    "codec.read_context": (_context, MESSAGE),
    "codec.read_outcome": (_outcome, MESSAGE),
    "codec.read_event": (_event, (DecodeError, ValueError)),
    "rows.decode": (_journal, (JournalFormatError,)),
    "snapshot.load": (_snapshot, ()),
    "names.parse": (_names, (FieldError,)),
    "config.load": (_config, (config.ConfigError,)),
    "config.load, environment": (_environment, (config.ConfigError,)),
}
"""What is read, and the errors documented for it."""
NAMES = list(TARGETS)


def attempt(name: str, data: bytes) -> tuple[str, str] | None:
    """The kind of failure and its traceback if an undocumented error is raised, else None."""
    target, documented = TARGETS[name]
    try:
        target(data)
    except documented:
        return None
    except (Exception, RecursionError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{name}: {type(error).__name__} in {Path(last.filename).name} {last.name}", traceback.format_exc()
    return None


def seeds() -> dict[str, list[bytes]]:
    """Valid inputs by decoder."""
    model = c.Model("a", "A", "up", c.Prices(1.0, 2.0, 0.1), 1000, 100, ("vision",), {"region": "eu"})
    schema = c.Schema(
        (c.NumberFeature("n"),), (c.CategoryFeature("c", ("x", "y")),), (c.EmbeddingFeature("e", 3),), c.TextFeature()
    )
    bucket = c.Bucket("b", schema=schema, models=("a",), budget=c.Budget(1.0, c.DAY_NS, True), half_life=100.0)
    project = c.Project("p", "P", c.Budget(2.0))
    reported = ReportedOutcome({Signal.QUALITY: SignalAggregate(1, 0.5, 0.5, 0.5, 0.0)}, 1)
    outcome = e.OutcomeApplied(
        decision_id=bytes(16), bucket="b", generation=3, model="a", x_d=np.ones(4), state_position=3, expected_cost=0.1,
        changes=(SignalChange(Signal.QUALITY, None, 0.5),), reported_outcomes={"a": reported}, idempotency_key="k",
        decided_ns=1, project="", max_cost=0.0, references=(0.1, 0.0, 0.0),
    )  # fmt: skip
    decision = journal_pb2.DecisionMade(
        id=bytes(16), bucket="b", generation=3, features=[1.0] * 4, models=["a"], propensity=1.0, quality_mean=[0.5],
        quality_sd=[0.1], cost=[1], latency=[1], latency_p95=[2], output_tokens=[1], quality_draw=[0.5], exclusions=[0],
        objective=catalog_pb2.Objective(mode="OBJECTIVE_MODE_BALANCED", cost_weight=1.0), limits={"max_cost_usd": 1.0},
    )  # fmt: skip
    put: list[e.Event] = [
        e.ModelPut(model),
        e.ProjectPut(project),
        e.BucketPut(bucket),
        e.AvailabilitySet("a", False, ""),
    ]
    state = State()
    for position, event in enumerate(put, 1):
        apply(state, e.Record(position, position, event))
    body = b"".join(snapshot.capture(state))
    saved = snapshot.MAGIC + hashlib.sha256(body).digest() + body
    assert len(snapshot.MAGIC) + 32 == 53 and fingerprint(snapshot.load(saved)) == fingerprint(state)
    events = [event_codec.write_event(written).SerializeToString() for written in [*put, outcome]]
    events.append(journal_pb2.JournalEvent(decision_made=decision).SerializeToString())
    context = context_pb2.Context(numbers={"n": 1.0}, categories={"c": "x"}, text="t", input_tokens=3)
    context.embeddings["e"].values.extend([1.0, 2.0, 3.0])
    return {
        "codec.read_model": [catalog_codec.write_model(model).SerializeToString()],
        "codec.read_bucket": [catalog_codec.write_bucket(bucket).SerializeToString()],
        "codec.read_project": [catalog_codec.write_project(project).SerializeToString()],
        "codec.read_objective": [
            catalog_pb2.Objective(mode="OBJECTIVE_MODE_WEIGHTED", min_quality=0.5).SerializeToString()
        ],
        "codec.read_limits": [decision_pb2.Limits(max_cost_usd=1.0, deny_models=["models/a"]).SerializeToString()],
        "codec.read_context": [context.SerializeToString()],
        "codec.read_outcome": [outcome_pb2.Outcome(quality=1.0, success=True, output_tokens=5).SerializeToString()],
        "codec.read_event": events,
        "rows.decode": events,
        "snapshot.load": [saved],
        "names.parse": [b"models/a", b"buckets/a/b", names.decision_name(bytes(range(16))).encode()],
        "config.load": [
            b"data: /tmp/x\nlisten: 127.0.0.1:0\nseed: 3\ndrain_seconds: 1.5\n",
            b"{a: [1, 2], b: 2001-01-01}",
        ],
        "config.load, environment": [b"/tmp/x\n1.5\n127.0.0.1:0\n3\n100"],
    }


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """``data`` after a few random changes, with parts of ``other`` put in."""
    some = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at = rng.randrange(len(some) + 1)
        match rng.randrange(6):
            case 0 if at < len(some):
                some[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(some):
                some[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
            case 2:
                del some[at : at + rng.choice([1, 2, 8, 64])]
            case 3:
                some[at:at] = rng.choice(
                    [b"\xff" * 9 + b"\x01", b"\x80" * 4, b"\0\0\0\0\0\0\xf0\x7f", b"-", b"9" * 30, b"[", b'"']
                )
            case 4:
                start = rng.randrange(len(other) + 1)
                some[at:at] = other[start : start + rng.choice([2, 8, 40])]
            case _:
                some[at : at + 8] = rng.randbytes(8)
    return bytes(some)


def mutate(runs: int, seconds: float, seed: int) -> tuple[Counter[str], dict[str, tuple[int, str]]]:
    """Seeded mutations, in turns; attempts by what was read, failures by kind with how often and the first one's story."""
    rng, valid = random.Random(seed), seeds()
    done: Counter[str] = Counter()
    failures: dict[str, tuple[int, str]] = {}
    for name, some in valid.items():
        for data in some:
            assert attempt(name, data) is None, (name, attempt(name, data))
    end = time.perf_counter() + seconds
    while sum(done.values()) < runs and time.perf_counter() < end:
        name = NAMES[sum(done.values()) % len(NAMES)]
        data = mutated(rng.choice(valid[name]), rng.choice(valid[name]), rng)
        done[name] += 1
        failed = attempt(name, data)
        if failed is not None:
            kind, story = failed
            failures[kind] = (
                failures.get(kind, (0, f"{story}from {data[:300]!r}"))[0] + 1,
                failures.get(kind, (0, f"{story}from {data[:300]!r}"))[1],
            )
    return done, failures


def guided(name: str, corpus: Path, seconds: int, runs: int) -> None:
    """Runs one target under atheris in this process, which it ends; prints each kind of failure once, as JSON."""
    reported: set[str] = set()

    def try_input(data: bytes) -> None:
        failed = attempt(name, data)
        if failed is not None and failed[0] not in reported:
            reported.add(failed[0])
            print(json.dumps({"kind": failed[0], "story": f"{failed[1]}from {data[:300]!r}"}), flush=True)

    flags = [f"-max_total_time={seconds}", f"-runs={runs}", "-max_len=8192", "-rss_limit_mb=4096", "-timeout=60"]
    atheris.Setup([sys.argv[0], str(corpus), *flags], try_input)
    atheris.Fuzz()


def by_coverage(runs: int, seconds: float) -> tuple[Counter[str], dict[str, tuple[int, str]]]:
    """Every target in a process of its own under atheris, the time divided evenly."""
    done: Counter[str] = Counter()
    failures: dict[str, tuple[int, str]] = {}
    for name, some in seeds().items():
        with tempfile.TemporaryDirectory() as directory:
            for i, data in enumerate(some):
                (Path(directory) / f"seed{i}").write_bytes(data)
            share = max(1, round(seconds / len(NAMES)))
            command = [sys.executable, __file__, "--guided", name, directory, str(share), str(runs // len(NAMES))]
            ended = subprocess.run(command, capture_output=True, text=True, cwd=directory, check=False)
        for line in ended.stdout.splitlines():
            if line.startswith("{"):
                failure = json.loads(line)
                failures[failure["kind"]] = 1, failure["story"]
        counts = [line.split()[1] for line in ended.stderr.splitlines() if line.startswith("Done ")]
        done[name] = int(counts[-1]) if counts else 0
        if ended.returncode != 0 or not counts:
            failures[f"{name}: the process ended with {ended.returncode}"] = 1, ended.stderr[-1500:]
    return done, failures


def main() -> int:
    if sys.argv[1:2] == ["--guided"]:
        name, corpus, seconds, runs = sys.argv[2:6]
        guided(name, Path(corpus), int(seconds), int(runs))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--runs", type=int, default=100_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=["atheris", "mutate"], default="mutate" if atheris is None else "atheris")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.engine == "atheris" and atheris is None:
        parser.error(
            "--engine atheris: it is not installed; pip install -e '.[soak]' (Linux and macOS, Python 3.11 to 3.13)"
        )
    if atheris is None and not args.json:
        print("atheris is not to be had here: mutations without its guidance")
    started = time.perf_counter()
    if args.engine == "atheris":
        done, failures = by_coverage(args.runs, args.minutes * 60)
    else:
        done, failures = mutate(args.runs, args.minutes * 60, args.seed)
    rows: dict[str, object] = {
        "engine": args.engine,
        "inputs": sum(done.values()),
        **{f"  {n}": k for n, k in done.items()},
    }
    violations = [f"{count} × {kind}\n{story}" for kind, (count, story) in failures.items()]
    return finish("decoders", rows, violations, started, args.json)


if __name__ == "__main__":
    sys.exit(main())
