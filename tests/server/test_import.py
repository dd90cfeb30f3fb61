"""`pointsman import`: an export is restored exactly, or not at all."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pointsman.bandit.encoder import Context
from pointsman.bandit.event import DecisionMade, OutcomeApplied
from pointsman.bandit.outcome import Signal
from pointsman.bandit.state import State, fingerprint
from pointsman.server.cli.journal import export, import_, verify
from pointsman.server.journal.interface import Entry, Group, JournalError
from pointsman.server.journal.keys import idempotency_key_of, key_of
from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.journal.sqlite_store import FILE, SqliteStore, read_rows
from pointsman.server.state.outcomes import Report
from pointsman.server.state.recovery import fold_rows
from pointsman.server.state.replica import open_replica
from pointsman.server.state.rows import decode_all
from pointsman.server.tools.exported_records import FORMER_NAMES, ImportFileError
from pointsman.server.tools.import_journal import import_journal
from pointsman.v1 import catalog_pb2, catalog_service_pb2, context_pb2, router_service_pb2
from tests.processes import run_python
from tests.server.conftest import Service

Lines = list[dict[str, Any]]


def call(command: Any, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def context(n: float) -> context_pb2.Context:
    return context_pb2.Context(numbers={"n": n})


@pytest.fixture
def exported(run: Callable[..., None], tmp_path: Path) -> Path:
    """The file of a journal with every kind of event; the journal itself is beside it, in the same directory."""

    async def scenario(service: Service) -> None:
        pb, rpc = catalog_pb2, catalog_service_pb2
        prices = pb.Prices(input_usd_per_million_tokens=0.1, output_usd_per_million_tokens=1 / 3)
        model = pb.Model(name="models/e", prices=prices, tags={"z": "ü\n", "a": "\u2028"}, capabilities=["tools"])
        await service.catalog.CreateModel(rpc.CreateModelRequest(model=model))
        budget = pb.Budget(usd_per_period=0.7)
        await service.catalog.CreateProject(
            rpc.CreateProjectRequest(project=pb.Project(name="projects/p", budget=budget))
        )
        schema = pb.ContextSchema(text=pb.TextFeature(), numbers=[pb.NumberFeature(name="n", scale=3.0)])
        bucket = pb.Bucket(
            name="buckets/t", context_schema=schema, project="projects/p", models=["models/e", "models/a"]
        )
        await service.catalog.CreateBucket(rpc.CreateBucketRequest(bucket=bucket))
        await service.catalog.SetModelAvailability(
            rpc.SetModelAvailabilityRequest(name="models/b", availability=2, reason="maintenance")
        )
        for i in range(40):
            service.clock[0] += (i % 3) * 12_345_678_901
            decision = await service.decide(context=context(i / 7), request_id=f"r{i}")
            await service.report(decision.name, quality=i / 40, cost_usd=1e-4 / (i + 1), success=i % 5 > 0)
            text = context_pb2.Context(numbers={"n": -i / 3}, text=f"prompt number {i}")
            decision = await service.decide("buckets/t", context=text)
            await service.report(decision.name, latency_seconds=0.1 + i, output_tokens=i, idempotency_key=f"k{i}")
        for request_id in ("batch", ""):
            request = router_service_pb2.BatchDecideRequest(
                bucket="buckets/b", contexts=[context(0.1), context(0.2), context(0.3)], request_id=request_id
            )
            await service.router.BatchDecide(request)
        spare = pb.Bucket(name="buckets/spare", project="projects/p")
        await service.catalog.CreateBucket(rpc.CreateBucketRequest(bucket=spare))
        await service.catalog.DeleteBucket(rpc.DeleteBucketRequest(name="buckets/spare"))
        await service.catalog.CreateProject(rpc.CreateProjectRequest(project=pb.Project(name="projects/q")))
        await service.catalog.DeleteProject(rpc.DeleteProjectRequest(name="projects/q"))
        await service.catalog.DeleteModel(rpc.DeleteModelRequest(name="models/c/d"))

    run(scenario)
    path = tmp_path / "journal.jsonl"
    assert call(export, "--data", tmp_path, "--to", path).exit_code == 0
    return path


def read(path: Path) -> Lines:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, lines: Lines) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def kinds(lines: Lines) -> set[str]:
    return {kind for line in lines for kind in line["event"] if kind != "time_ns"}


def test_an_export_is_imported_exactly(exported: Path, tmp_path: Path) -> None:
    assert len(kinds(read(exported))) == 9, "every kind of event"
    before = fingerprint(fold_rows(read_rows(tmp_path), State()))
    done = call(import_, "--from", exported, "--data", tmp_path / "new", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == {
        "data": str(tmp_path / "new"),
        "records": len(read(exported)),
        "state": before,
    }
    checked = call(verify, "--data", tmp_path / "new", "--json")
    assert json.loads(checked.output) == {"equal": True, "position": len(read(exported)), "state": before}
    again = tmp_path / "again.jsonl"
    assert call(export, "--data", tmp_path / "new", "--to", again).exit_code == 0
    assert read(again) == read(exported)


def with_former_names(message: Any) -> Any:
    """A record's JSON as version 0.1.0 wrote it."""
    former = {name: old for old, name in FORMER_NAMES.items()}
    if isinstance(message, dict):
        return {former.get(key, key): with_former_names(value) for key, value in message.items()}
    return [with_former_names(item) for item in message] if isinstance(message, list) else message


def test_an_export_under_former_names_comes_back(exported: Path, tmp_path: Path) -> None:
    old = write(tmp_path / "old.jsonl", [with_former_names(line) for line in read(exported)])
    text = old.read_text()
    # "worst_cost" and "faded" are zero here, and so not written; "latency_mark" is only read, of former decisions
    assert {name for name in FORMER_NAMES if f'"{name}"' not in text} <= {"worst_cost", "faded", "latency_mark"}
    imported = import_journal(old, tmp_path / "new")
    assert imported.state == fingerprint(fold_rows(read_rows(tmp_path), State()))


def test_every_table_of_the_journal_comes_back(exported: Path, tmp_path: Path) -> None:
    """What each key and idempotency string points at is what it pointed at before."""
    import_journal(exported, tmp_path / "new")
    old, new = SqliteStore(tmp_path), SqliteStore(tmp_path / "new")
    try:
        for _, record in decode_all(read_rows(tmp_path), State()):
            event = record.event
            assert new.span(key_of(event)) == old.span(key_of(event))
            if key := idempotency_key_of(event):
                assert new.span(key) == old.span(key)
                assert new.span(key) is not None
    finally:
        old.close()
        new.close()


def test_repetitions_are_recognised_after_an_import(exported: Path, tmp_path: Path) -> None:
    import_journal(exported, tmp_path / "new")
    records = [record for _, record in decode_all(read_rows(tmp_path / "new"), State())]
    batch = [r.event.id for r in records if isinstance(r.event, DecisionMade) and r.event.request_id == "batch"]
    report = next(r.event for r in records if isinstance(r.event, OutcomeApplied) and r.event.idempotency_key)

    async def go() -> None:
        journal = SqliteJournal(tmp_path / "new")
        replica = await open_replica(journal, np.random.default_rng(1), lambda: records[-1].time_ns, None)
        try:
            contexts = [Context(numbers={"n": 0.1})] * 3
            repeated = await replica.decisions.decide("b", contexts, None, None, "batch")
            assert [record.decision.id for record in repeated] == batch
            reported = await replica.outcomes.report(
                Report(report.decision_id, {Signal.LATENCY: 9.0}, report.idempotency_key)
            )
            assert reported.duplicate
            assert await journal.end() == len(records)
            fresh = await replica.outcomes.report(Report(batch[0], {Signal.QUALITY: 0.5}, "new"))
            assert not fresh.duplicate
        finally:
            await replica.close()

    asyncio.run(go())


def edit(lines: Lines, defect: str) -> None:
    """Make line 30 or thereabouts wrong."""
    decision = next(i for i in range(29, 60) if "request_id" in lines[i]["event"].get("decision_made", {}))
    first = lines[decision]["event"]["decision_made"]
    if defect == "gap":
        del lines[29]
    elif defect == "twice":
        lines.insert(29, lines[28])
    elif defect == "time":
        lines[29]["event"]["time_ns"] = "5"
    elif defect == "unknown field":
        lines[29]["event"]["nonsense"] = 1
    elif defect == "no event":
        lines[29]["event"] = {"time_ns": lines[29]["event"]["time_ns"]}
    elif defect == "bad bucket":
        put = next(i for i in lines if "bucket_put" in i["event"])
        put["event"]["bucket_put"]["bucket"]["exploration_floor"] = 7
    elif defect == "features":
        outcome = next(i for i in lines[29:] if "outcome_applied" in i["event"])
        outcome["event"]["outcome_applied"]["features"] = [1.0]
    elif defect == "decision twice":
        later = next(i for i in range(decision + 1, 90) if "decision_made" in lines[i]["event"])
        for line in lines[later : later + 2]:  # it and its outcome
            event = line["event"]
            about = event["decision_made"] if "decision_made" in event else event["outcome_applied"]
            about["id" if about is event.get("decision_made") else "decision_id"] = first["id"]
    elif defect == "request id twice":
        same = [i["event"]["decision_made"] for i in lines[decision + 1 :] if "decision_made" in i["event"]]
        next(i for i in same if i["bucket"] == first["bucket"])["request_id"] = first["request_id"]
    elif defect == "orphan":
        outcome = next(i for i in lines[29:] if "outcome_applied" in i["event"])
        outcome["event"]["outcome_applied"]["decision_id"] = "AAAAAAAAAAAAAAAAAAAAAA=="


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        ("gap", "line 30: position: expected 30, got 31; a line is missing, or the journal was compacted"),
        ("twice", "line 30: position: expected 30, got 29"),
        ("time", "line 30: event.time_ns: expected at least"),
        ("unknown field", "line 30: expected a JournalRecord as JSON"),
        ("no event", "line 30: event: the event at position 30 cannot be read"),
        ("bad bucket", "exploration_floor"),
        ("features", "event: features: expected"),
        ("decision twice", "its decision was made before"),
        ("request id twice", "its request id or idempotency key was used"),
        ("orphan", "was not made before its outcome"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_left(exported: Path, tmp_path: Path, defect: str, message: str) -> None:
    lines = read(exported)
    edit(lines, defect)
    wrong = write(tmp_path / "wrong.jsonl", lines)
    done = call(import_, "--from", wrong, "--data", tmp_path / "new")
    assert done.exit_code == 1, done.output
    assert f"{wrong}, line " in done.output
    assert message in done.output
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "line 1: expected a JournalRecord as JSON"),
        (b"\xff\n", "line 1: expected a JournalRecord as JSON"),
        (b"\n", "line 1: expected a JournalRecord as JSON"),
        (b"[" * 100_000, "line 1: expected a JournalRecord as JSON"),
        (b"", "has no records"),
    ],
)
def test_files_that_are_not_json_lines_are_refused(tmp_path: Path, text: bytes, message: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_bytes(text)
    with pytest.raises(ImportFileError, match=message):
        import_journal(file, tmp_path / "new")
    assert not (tmp_path / "new" / FILE).exists()


def test_a_file_that_was_cut_short(exported: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(exported.read_bytes()[:-40])
    with pytest.raises(ImportFileError, match=f"line {len(read(exported))}: expected a JournalRecord"):
        import_journal(cut, tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_directory_in_use_is_refused(exported: Path, tmp_path: Path) -> None:
    for data in (tmp_path, tmp_path / "file"):
        (tmp_path / "file").touch()
        done = call(import_, "--from", exported, "--data", data)
        assert done.exit_code == 1, done.output
    assert call(import_, "--from", tmp_path / "none.jsonl", "--data", tmp_path / "new").exit_code == 2
    assert call(import_, "--data", tmp_path / "new").exit_code == 2


def test_a_journal_created_concurrently_is_not_replaced(exported: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"

    def progress(read: int) -> None:
        if not (new / FILE).exists():
            journal = SqliteStore(new)
            journal.append([Group((Entry(b"other"),))], 1)
            journal.close()

    with pytest.raises(JournalError, match="got another journal"):
        import_journal(exported, new, progress)
    assert [row.data for row in read_rows(new)] == [b"other"]


def test_an_import_that_is_interrupted_leaves_nothing(exported: Path, tmp_path: Path) -> None:
    def interrupt(read: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_journal(exported, tmp_path / "new", interrupt)
    assert list((tmp_path / "new").iterdir()) == []


def test_an_import_that_is_killed_can_be_done_again(exported: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from pointsman.server.tools.import_journal import import_journal\n"
        "import_journal(Path(sys.argv[1]), Path(sys.argv[2]),"
        " lambda read: os.kill(os.getpid(), 9) if read > 30_000 else None)"
    )
    new = tmp_path / "new"
    killed = run_python("-c", code, str(exported), str(new))
    assert killed.returncode == -signal.SIGKILL
    assert [path.name[:8] for path in new.iterdir()] == [".import-"], "half a journal, but not in its place"
    assert import_journal(exported, new).records == len(read(exported))
    assert [path.name for path in new.iterdir()] == [FILE]


def test_import_is_listed_with_an_example() -> None:
    assert "pointsman import --from" in call(import_, "--help").output
