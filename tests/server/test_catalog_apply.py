"""`pointsman catalog apply` and `show`: a server's catalogue becomes the one in a file, with the fewest events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from pointsman.bandit.catalog import Bucket, Model, Project
from pointsman.bandit.errors import FieldError
from pointsman.server.catalog.client import CatalogClient
from pointsman.server.catalog.file import read_catalog, to_yaml, write_catalog
from pointsman.server.catalog.lines import CatalogFileError
from pointsman.server.catalog.plan import plan
from pointsman.server.catalog.resource import Resource
from pointsman.server.cli.catalog import catalog
from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.journal.sqlite_store import read_rows
from pointsman.server.state.replica import open_replica
from pointsman.v1 import catalog_pb2 as pb
from pointsman.v1 import catalog_service_pb2 as rpc
from pointsman.v1 import catalog_service_pb2_grpc, journal_pb2
from tests.processes import ROOT, WAIT
from tests.server import test_codec as values
from tests.server.conftest import serving

EXAMPLE = ROOT / "docs" / "catalog.example.yaml"


class Running:
    """A service on a thread of its own, so that the commands, which block, can call it."""

    def __init__(self, data: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.data = data
        self.seen: list[Any] = []
        self.address: str = self.do(self._start())
        self.channel = grpc.insecure_channel(self.address)
        self.stub: Any = catalog_service_pb2_grpc.CatalogServiceStub(self.channel)

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(WAIT)

    async def _start(self) -> str:
        self.replica = await open_replica(SqliteJournal(self.data), np.random.default_rng(0), lambda: 10**18, None)
        self._serving = serving(self.replica)
        return await self._serving.__aenter__()

    def events(self) -> list[journal_pb2.JournalEvent]:
        return [journal_pb2.JournalEvent.FromString(row.data) for row in read_rows(self.data)]

    def position(self) -> int:
        return self.replica.state.position

    def stop(self) -> None:
        self.channel.close()
        self.do(self._serving.__aexit__(None, None, None))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Running]]:
    running: list[Running] = []

    def start_server() -> Running:
        running.append(Running(tmp_path / f"data{len(running)}"))
        return running[-1]

    yield start_server
    for server in running:
        server.stop()


@pytest.fixture
def server(start: Callable[[], Running]) -> Running:
    return start()


def call(server: Running, *arguments: object, input: str | None = None) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(catalog, [words[0], "--server", server.address, *words[1:]], input=input)


def apply(server: Running, text: str, *more: str, input: str | None = None) -> Result:
    path = server.data.with_suffix(".yaml")
    path.write_text(text)
    return call(server, "apply", path, *more, input=input)


SMALL = """\
projects:
  p:
    budget: {usd_per_period: 3}
models:
  a:
    context_window: 1000
  x/b:
    availability: MODEL_AVAILABILITY_DISABLED
buckets:
  t:
    models: [models/a, models/x/b]
    project: projects/p
    context_schema: {text: {}}
"""


def test_the_example_applies_and_then_changes_nothing(server: Running) -> None:
    done = call(server, "apply", EXAMPLE)
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("6 created, 0 unchanged\n")
    position = server.position()
    assert position == 7, "six resources and a switch"
    again = call(server, "apply", EXAMPLE)
    assert again.stdout == "6 unchanged\n"
    assert server.position() == position
    assert call(server, "apply", EXAMPLE, "--prune").stdout == "6 unchanged\n"


def test_a_file_makes_the_same_events_as_calls(start: Callable[[], Running]) -> None:
    by_file, by_calls = start(), start()
    assert apply(by_file, SMALL).exit_code == 0
    project = pb.Project(name="projects/p", budget=pb.Budget(usd_per_period=3))
    by_calls.stub.CreateProject(rpc.CreateProjectRequest(project=project))
    by_calls.stub.CreateModel(rpc.CreateModelRequest(model=pb.Model(name="models/a", context_window=1000)))
    by_calls.stub.CreateModel(rpc.CreateModelRequest(model=pb.Model(name="models/x/b")))
    switch = rpc.SetModelAvailabilityRequest(name="models/x/b", availability=2, reason="catalog apply")
    by_calls.stub.SetModelAvailability(switch)
    schema = pb.ContextSchema(text=pb.TextFeature())
    bucket = pb.Bucket(name="buckets/t", models=["models/a", "models/x/b"], project="projects/p", context_schema=schema)
    by_calls.stub.CreateBucket(rpc.CreateBucketRequest(bucket=bucket))
    assert by_file.events() == by_calls.events()
    assert len(by_file.events()) == 5


def test_only_differences_are_applied(server: Running) -> None:
    assert apply(server, SMALL).exit_code == 0
    changed = SMALL.replace("context_window: 1000", "context_window: 2000")
    done = apply(server, changed)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "--- models/a",
        "+++ models/a",
        "@@ -1 +1 @@",
        "-context_window: 1000",
        "+context_window: 2000",
        "1 updated, 3 unchanged",
    ]
    assert server.events()[-1].model_put.model.context_window == 2000
    assert len(server.events()) == 6


def test_explicit_and_omitted_defaults_are_equal(server: Running) -> None:
    assert apply(server, SMALL).exit_code == 0
    explicit = SMALL.replace("    project: projects/p\n", "    project: projects/p\n    attribution_window: 86400s\n")
    explicit = explicit.replace("context_schema", "priors: {latency_seconds: 0.5}\n    context_schema")
    assert apply(server, explicit).stdout == "4 unchanged\n"
    assert apply(server, SMALL.replace("    context_window: 1000\n", "")).exit_code == 0
    assert server.events()[-1].model_put.model.context_window == 0


def test_the_switch_of_a_model(server: Running) -> None:
    assert apply(server, SMALL).exit_code == 0
    on = SMALL.replace("availability: MODEL_AVAILABILITY_DISABLED", "{}")
    unsaid = apply(server, on.replace("x/b:\n    {}", "x/b: {}"))
    assert (
        unsaid.stdout == "4 unchanged\n"
    )  # what an operator switched is not undone by a file that does not speak of it
    done = apply(server, SMALL.replace("MODEL_AVAILABILITY_DISABLED", "MODEL_AVAILABILITY_ENABLED"))
    assert done.stdout.endswith("1 updated, 3 unchanged\n"), done.output
    assert len(server.events()) == 6
    assert server.events()[-1].model_availability_set.availability == pb.MODEL_AVAILABILITY_ENABLED
    assert apply(server, SMALL).exit_code == 0
    assert server.events()[-1].model_availability_set.availability == pb.MODEL_AVAILABILITY_DISABLED


def test_dry_run_changes_nothing(server: Running) -> None:
    done = apply(server, SMALL, "--dry-run")
    assert done.exit_code == 0
    assert "+context_window: 1000" in done.stdout
    assert done.stdout.endswith("4 created, 0 unchanged (dry run: nothing was changed)\n")
    assert server.position() == 0
    summary = json.loads(apply(server, SMALL, "--dry-run", "--json").stdout)
    assert summary["dry_run"]
    assert summary["created"] == ["projects/p", "models/a", "models/x/b", "buckets/t"]
    assert (summary["updated"], summary["deleted"], summary["unchanged"]) == ([], [], 0)
    assert "+context_window: 1000" in summary["diffs"]["models/a"]
    assert server.position() == 0


def test_pruning_asks_and_deletes_in_an_order_that_works(server: Running) -> None:
    assert apply(server, SMALL).exit_code == 0
    result = apply(server, "models:\n  new:\n")
    assert result.stdout.endswith("1 created, 0 unchanged\n")
    position = server.position()
    refused = apply(server, "models:\n  new:\n", "--prune", input="n\n")
    assert refused.exit_code == 1
    assert "Delete buckets/t, models/x/b, models/a, projects/p" in refused.stderr
    assert server.position() == position
    done = apply(server, "models:\n  new:\n", "--prune", "--yes")
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("4 deleted, 1 unchanged\n")
    assert [event.WhichOneof("kind") for event in server.events()[position:]] == [
        "bucket_deleted",
        "model_deleted",
        "model_deleted",
        "project_deleted",
    ]
    assert list(server.replica.state.models) == ["new"]


def test_a_concurrent_change_is_not_overwritten(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    assert apply(server, SMALL).exit_code == 0
    read = CatalogClient.read

    def read_then_changed(remote: CatalogClient) -> Any:
        before = read(remote)
        model = pb.Model(name="models/a", context_window=7)
        server.stub.UpdateModel(rpc.UpdateModelRequest(model=model))
        return before

    monkeypatch.setattr(CatalogClient, "read", read_then_changed)
    text = SMALL.replace("context_window: 1000", "context_window: 2000").replace(
        "usd_per_period: 3", "usd_per_period: 4"
    )
    done = apply(server, text)
    assert done.exit_code == 1
    assert "data0.yaml, line 5: models/a: etag:" in done.output
    assert "Somebody else changed the catalogue meanwhile. 1 of 2 changes were made" in done.output
    assert server.replica.state.models["a"].model.context_window == 7
    monkeypatch.undo()
    assert apply(server, text).exit_code == 0
    assert server.replica.state.models["a"].model.context_window == 2000


def test_a_change_that_resets_a_bucket_is_announced(server: Running) -> None:
    assert apply(server, SMALL).exit_code == 0
    done = apply(server, SMALL.replace("{text: {}}", "{input_tokens: {}}"))
    assert "buckets/t: its schema or quality range changes, so it forgets what it has learned" in done.stderr
    assert "learned" not in apply(server, SMALL.replace("{usd_per_period: 3}", "{usd_per_period: 4}")).stdout


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "usd_per_period: 3",
            "usd_per_period: x",
            'line 3: projects/p: budget.usd_per_period: expected a number, got "x"',
        ),
        ("usd_per_period: 3", "usd_per_period: true", "line 3: projects/p: budget.usd_per_period: expected a number"),
        (
            "usd_per_period: 3",
            "usd_per_period: -3",
            "line 3: projects/p: budget.usd_per_period: expected a finite number",
        ),
        (
            "usd_per_period: 3",
            "usd_per_period: .inf",
            "line 3: projects/p: budget.usd_per_period: expected a number, got Infinity",
        ),
        ("usd_per_period: 3", "period: 60s", "line 3: projects/p: budget.amount: expected usd_per_request"),
        ("usd_per_period: 3", "usd_per_period: 3, usd_per_request: 1", "got both"),
        ("usd_per_period: 3", "usd_per_period: 3, period: 60", "expected a duration in seconds, such as 3600s, got 60"),
        ("context_window: 1000", "context_windw: 1000", "line 6: models/a: context_windw: is not known; did you mean"),
        ("context_window: 1000", "contextWindow: 1000", "line 6: models/a: contextWindow: is not known; did you mean"),
        ("context_window: 1000", "context_window: 1.5", "line 6: models/a: context_window: expected a whole number"),
        ("context_window: 1000", "tags: {country: no}", 'models/a: tags["country"]: expected text (in quotes'),
        ("context_window: 1000", "capabilities: tools", 'capabilities: expected a list, got "tools"'),
        ("context_window: 1000", 'etag: "1"', "line 6: models/a: etag: expected nothing"),
        ("context_window: 1000", "name: models/b", "line 6: models/a: name: expected models/a, got 'models/b'"),
        ("context_window: 1000", "- 1", "line 5: models/a: expected fields as `name: value`, got [1]"),
        ("MODEL_AVAILABILITY_DISABLED", "OFF", "line 8: models/x/b: availability: expected one of MODEL_AVAILABILITY"),
        ("MODEL_AVAILABILITY_DISABLED", "9", "line 8: models/x/b: availability: "),
        ("  x/b:", "  x b:", "line 7: models/x b: name: expected 1-128 letters"),
        ("  x/b:", "  a:", "line 7: models.a: is already given at line 5"),
        ("  x/b:", "  models/a:", "line 7: models.models/a: models/a is already given at line 5"),
        ("models: [models/a, ", "models: [a, ", "line 11: buckets/t: models[0]: expected models/{id}"),
        ("models: [models/a, ", "models: [models/c, ", "models[0]: models/c is neither in the file nor on the server"),
        (
            "project: projects/p",
            "project: projects/q",
            "line 12: buckets/t: project: projects/q is neither in the file",
        ),
        ("models:\n  a", "model:\n  a", "line 4: model: is not known; did you mean models?"),
        ("models:\n  a", "models: [\n  a", "is not YAML"),
        ("models:\n  a", "models: *a\n  a", "is not YAML"),
        (
            "context_window: 1000",
            "display_name: !!binary aGk=",
            "line 6: models.a.display_name: expected a plain value",
        ),
        ("context_window: 1000", "? [1]\n    : 2", "line 6: models.a: expected a name, got a list"),
    ],
)
def test_errors_are_named_before_anything_changes(server: Running, old: str, new: str, message: str) -> None:
    assert old in SMALL
    done = apply(server, SMALL.replace(old, new, 1))
    assert done.exit_code == 2, done.output
    assert f"{server.data.with_suffix('.yaml')}, line " in done.stderr
    assert message in done.stderr
    assert done.stderr.endswith("nothing was changed\n")
    assert server.position() == 0


def test_all_errors_are_reported_at_once() -> None:
    text = SMALL.replace("3}", "x}").replace("1000", "x").replace("models/a,", "a,")
    with pytest.raises(CatalogFileError) as caught:
        read_catalog(text, "f")
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["f, line 3", "f, line 6", "f, line 11"]


@pytest.mark.parametrize(
    "text",
    [
        "models: &a [*a]",
        "models: " + "[" * 1000,
        "models: " + "{a: " * 1000,
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "\n".join(f"{y}: &{y} [{','.join(['*' + x] * 9)}]" for x, y in zip("abcdefgh", "bcdefghi", strict=True)),
        "- 1",
        "7",
        "\x00",
        "models: {}\n---\nmodels: {}",
        "models: 3",
        "models: [3]",
        "models: [{name: a}]",
        "models: {1: 2}",
        "models: {a: {context_window: !!int x}}",
        "buckets: {a: {context_schema: [1]}}",
        "buckets: {a: {context_schema: {numbers: [null]}}}",
        "buckets: {a: {models: [null]}}",
        "models: {a: {tags: {x: null}}}",
    ],
)
def test_strange_files_are_refused(text: str) -> None:
    with pytest.raises(CatalogFileError, match=r"^f\b"):
        read_catalog(text, "f")


@given(st.text(max_size=60) | st.text("models:buckets\n {}[]&*a<-\"'!0", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(CatalogFileError):
        read_catalog(text, "f")


def test_lists_of_named_resources_and_null_fields() -> None:
    listed = read_catalog("models:\n- name: models/a\n  prices: null\n- name: models/x/b\nbuckets:\nprojects: []", "f")
    assert dict(listed.resources) == {
        name: Resource(name, Model(name[7:]), None) for name in ("models/a", "models/x/b")
    }
    assert read_catalog("", "f").resources == {}
    mapped = read_catalog("models:\n  007:\n  models/b:\n  models/models/c:\n", "f")
    assert list(mapped.resources) == ["models/007", "models/b", "models/models/c"]


def resource(name: str, value: Project | Model | Bucket, available: bool = True) -> Resource:
    return Resource(f"{name}/{value.id}", value, available)


@st.composite
def valid(draw: st.DrawFn, value: st.SearchStrategy[Any]) -> Any:
    """What can be made at all: a schema may come out with too many features."""
    try:
        return draw(value)
    except FieldError:
        reject()


catalogs = st.tuples(
    st.lists(st.builds(resource, st.just("projects"), values.projects), max_size=2),
    st.lists(st.builds(resource, st.just("models"), values.models, st.booleans()), max_size=3),
    st.lists(st.builds(resource, st.just("buckets"), valid(values.buckets)), max_size=2),
).map(lambda parts: {resource.name: resource for part in parts for resource in part})


@settings(max_examples=50)
@given(catalogs)
def test_any_catalogue_is_written_and_read_back(resources: dict[str, Resource]) -> None:
    text = to_yaml(write_catalog(resources.values()))
    again = read_catalog(text, "f")
    expected = {
        name: replace(resource, available=None)
        if isinstance(resource.value, Model) and resource.available
        else resource
        for name, resource in resources.items()
    }
    assert dict(again.resources) == expected
    if not any(
        isinstance(resource.value, Bucket) for resource in resources.values()
    ):  # theirs may name what is not there
        assert plan(again, resources, prune=True) == []


def test_applying_the_shown_catalogue_changes_nothing(start: Callable[[], Running]) -> None:
    """For catalogues made by hypothesis, on a real server; and a second server that gets it shows the same."""
    server, other_server = start(), start()

    @settings(max_examples=20)
    @given(catalogs)
    def check(resources: dict[str, Resource]) -> None:
        closed = dict(resources)
        for resource in resources.values():  # what buckets name must be there
            if isinstance(resource.value, Bucket):
                for id_ in resource.value.models:
                    closed.setdefault(f"models/{id_}", Resource(f"models/{id_}", Model(id_)))
                if resource.value.project:
                    name = f"projects/{resource.value.project}"
                    closed.setdefault(name, Resource(name, Project(resource.value.project)))
        done = apply(server, to_yaml(write_catalog(closed.values())), "--prune", "--yes")
        assert done.exit_code == 0, done.output
        shown = call(server, "show")
        position = server.position()
        again = apply(server, shown.stdout, "--prune")
        assert again.stdout == f"{len(closed)} unchanged\n", again.output
        assert server.position() == position
        assert apply(other_server, shown.stdout, "--prune", "--yes").exit_code == 0
        assert call(other_server, "show").stdout == shown.stdout
        assert json.loads(call(other_server, "show", "--format", "json").stdout) == (yaml.safe_load(shown.stdout) or {})

    check()


def test_many_resources_come_in_pages(server: Running) -> None:
    text = "models:\n" + "".join(f"  m{i}:\n" for i in range(230))
    assert apply(server, text).stdout.endswith("230 created, 0 unchanged\n")
    assert apply(server, text, "--prune").stdout == "230 unchanged\n"


def test_what_cannot_be_reached_or_read(server: Running, tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(SMALL)
    gone = CliRunner().invoke(catalog, ["apply", str(path), "--server", "127.0.0.1:1"])
    assert gone.exit_code == 1
    assert "127.0.0.1:1 does not answer" in gone.output
    assert CliRunner().invoke(catalog, ["apply", str(tmp_path / "none")]).exit_code == 2
    path.write_bytes(b"models:\n  a\xff:\n")
    latin = call(server, "apply", path)
    assert latin.exit_code == 2
    assert f"{path}, line 2: expected UTF-8 text" in latin.output


def test_standard_input(server: Running) -> None:
    done = call(server, "apply", "-", input="models:\n  a:\n    x: 1\n")
    assert "standard input, line 3: models/a: x: is not known" in done.stderr
    assert call(server, "apply", "-", input="models:\n  a:\n").exit_code == 0


def test_the_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that only notes what it is sent."""
    from concurrent.futures import ThreadPoolExecutor

    headers: list[Any] = []

    class Notes(catalog_service_pb2_grpc.CatalogServiceServicer):
        def ListProjects(self, request: Any, context: Any) -> Any:
            headers.append(dict(context.invocation_metadata())["authorization"])
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")

    noting = grpc.server(ThreadPoolExecutor(1))
    catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(Notes(), noting)
    port = noting.add_insecure_port("127.0.0.1:0")
    noting.start()
    try:
        monkeypatch.setenv("POINTSMAN_SERVER", f"127.0.0.1:{port}")
        monkeypatch.setenv("POINTSMAN_API_KEY", "secret")
        done = CliRunner().invoke(catalog, ["show"])
        assert done.exit_code == 1
        assert "PERMISSION_DENIED: no" in done.output
        assert CliRunner().invoke(catalog, ["show", "--api-key", "other"]).exit_code == 1
    finally:
        noting.stop(None).wait()
    assert headers == ["Bearer secret", "Bearer other"]


def test_a_key_in_the_clear_is_warned_of() -> None:
    far = CliRunner().invoke(catalog, ["show", "--server", "pointsman.invalid:1", "--api-key", "k"])
    assert far.exit_code == 1
    assert "warning: the API key travels to pointsman.invalid:1 unencrypted" in far.stderr
    near = CliRunner().invoke(catalog, ["show", "--server", "127.0.0.1:1", "--api-key", "k"])
    assert "unencrypted" not in near.stderr


def test_help_has_an_example() -> None:
    for command in ("apply", "show"):
        assert "Example: pointsman catalog" in CliRunner().invoke(catalog, [command, "--help"]).output
