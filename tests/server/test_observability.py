"""Metrics, health over HTTP, and logs, of a real service."""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pointsman import Client
from pointsman.server.guards.admission import Admission
from pointsman.server.observe.logs import JsonFormatter, TextFormatter, set_up
from pointsman.server.observe.metrics import MAX_BUCKETS, OTHER, Metrics
from pointsman.server.observe.metrics_server import MetricsServer
from pointsman.server.state.replica import Replica
from pointsman.v1 import catalog_pb2, catalog_service_pb2, catalog_service_pb2_grpc
from tests.processes import WAIT, Serve, Served, refused_start
from tests.server.conftest import Service

PROMPT = "a most secret prompt"


def scrape(url: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by its name and labels."""
    with urllib.request.urlopen(url, timeout=WAIT) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def lines(service: Served) -> list[dict[str, object]]:
    """The JSON lines that were logged."""
    return [json.loads(line) for line in service.said().splitlines()]


def declare(address: str, budget: catalog_pb2.Budget) -> None:
    """A bucket of texts with two models."""
    with grpc.insecure_channel(address) as channel:
        catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        for name in "ab":
            catalog.CreateModel(catalog_service_pb2.CreateModelRequest(model=catalog_pb2.Model(name=f"models/{name}")))
        schema = catalog_pb2.ContextSchema(text=catalog_pb2.TextFeature())
        bucket = catalog_pb2.Bucket(name="buckets/t", context_schema=schema, budget=budget)
        catalog.CreateBucket(catalog_service_pb2.CreateBucketRequest(bucket=bucket))


def test_metrics_match_the_calls_made(tmp_path: Path, serve: Serve) -> None:
    service = serve(tmp_path / "data", "--http", "127.0.0.1:0", "--log-format", "json", "--log-level", "debug")
    url = str(next(line["message"] for line in lines(service) if "metrics are on" in str(line["message"]))).split()[-1]
    declare(service.address, catalog_pb2.Budget(usd_per_request=0.5))
    with Client(service.address, timeout=WAIT) as client:
        decisions = [client.decide("t", text=PROMPT) for _ in range(7)]
        for decision in decisions[:5]:
            client.report(decision, quality=0.5, cost_usd=0.25)
        client.report(decisions[0], cost_usd=0.5)  # a correction is not another outcome
        with pytest.raises(grpc.RpcError):
            client.decide("nothing", text=PROMPT)
    samples = scrape(url)

    def value(name: str, **labels: str) -> float:
        return samples[name, tuple(sorted(labels.items()))]

    decide = "RouterService/Decide"
    assert value("pointsman_calls_total", method=decide, code="OK") == 7
    assert value("pointsman_calls_total", method=decide, code="NOT_FOUND") == 1
    assert value("pointsman_call_seconds_count", method=decide) == 8
    decisions = [v for (name, _), v in samples.items() if name == "pointsman_decisions_total"]
    assert sum(decisions) == 7
    assert value("pointsman_propensity_count", bucket="t") == 7
    assert value("pointsman_outcomes_total", signal="quality") == 5
    assert value("pointsman_outcomes_total", signal="cost_usd") == 5
    assert value("pointsman_spend_usd", bucket="t") == 1.5
    assert value("pointsman_journal_position") == 3 + 7 + 6
    assert ("pointsman_budget_multiplier", (("holder", "buckets/t"),)) in samples
    assert value("pointsman_append_groups_sum") == 3 + 7 + 6
    assert value("pointsman_fold_lag_seconds_count") == value("pointsman_append_seconds_count")
    assert value("pointsman_broken") == 0
    with urllib.request.urlopen(url.replace("/metrics", "/healthz"), timeout=WAIT) as answer:
        assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(url.replace("/metrics", "/else"), timeout=WAIT)
    assert service.stop() == 0
    calls = [line for line in lines(service) if line["logger"] == "pointsman.access"]
    assert [line["code"] for line in calls if line["method"] == decide] == ["OK"] * 7 + ["NOT_FOUND"]
    assert all({"time", "level", "message", "seconds", "peer", "request_id"} <= set(line) for line in calls)
    assert PROMPT not in service.said()


def test_a_request_id_of_the_callers_is_in_the_log(tmp_path: Path, serve: Serve) -> None:
    service = serve(tmp_path / "data", "--log-format", "json")
    with grpc.insecure_channel(service.address) as channel:
        stub = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        request = catalog_service_pb2.GetModelRequest(name="models/none")
        with pytest.raises(grpc.RpcError):
            stub.GetModel(request, metadata=(("x-request-id", "my-id"),), timeout=WAIT)
    assert service.stop() == 0
    (call,) = [line for line in lines(service) if line["logger"] == "pointsman.access"]
    assert (call["request_id"], call["code"], call["level"]) == ("my-id", "NOT_FOUND", "INFO")


def test_health_over_http_tells_of_a_journal_that_cannot_be_folded(run: Callable[..., None]) -> None:
    async def scenario(service: Service) -> None:
        replica: Replica = service.replica
        metrics = Metrics()
        server = MetricsServer("127.0.0.1", 0, replica, Admission(), metrics)

        def status() -> int:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz", timeout=WAIT) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                return error.code

        try:
            assert await asyncio.to_thread(status) == 200
            replica.broken.set()
            assert await asyncio.to_thread(status) == 503
            samples = await asyncio.to_thread(scrape, f"http://127.0.0.1:{server.port}/metrics")
            assert samples["pointsman_broken", ()] == 1
            assert samples["pointsman_models", ()] == 3
        finally:
            await asyncio.to_thread(server.close)

    run(scenario)


def test_labels_are_bounded() -> None:
    metrics = Metrics()
    labels = {metrics.bucket(f"b{i}") for i in range(MAX_BUCKETS + 50)}
    assert len(labels) == MAX_BUCKETS + 1 and OTHER in labels
    assert metrics.bucket("b3") == "b3" and metrics.bucket(f"b{MAX_BUCKETS + 7}") == OTHER


def test_every_log_line_is_one_json_object() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "said %s", ('a\n"b"',), None)
    record.method = "M"
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == 'said a\n"b"' and json.loads(line)["method"] == "M"
    assert TextFormatter().format(record).endswith("method=M")


@pytest.mark.parametrize(
    ("address", "problem"), [("0.0.0.0:0", "can be reached from other machines"), ("127.0.0.1:99999", "HTTP")]
)
def test_http_is_refused_where_it_cannot_or_should_not_be(tmp_path: Path, address: str, problem: str) -> None:
    refused = refused_start(tmp_path / "data", "--http", address)
    assert refused.returncode in (1, 2)
    assert problem in refused.stderr


def test_a_caller_that_goes_away_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    """gRPC logs it with a traceback as if the service were at fault."""
    gone = type("ExecuteBatchError", (Exception,), {})
    root, theirs = logging.getLogger(), logging.getLogger("grpc._cython.cygrpc")
    before, level = list(root.handlers), root.level
    try:
        set_up("json", "info")
        for error in (gone("Failed"), ValueError("a real one")):
            theirs.error("raised by servicer", exc_info=error)
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        theirs.filters.clear()
    output = capfd.readouterr().err
    assert "a real one" in output and "ExecuteBatchError" not in output
