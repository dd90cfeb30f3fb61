"""Spans of a real service, as a collector gets them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from pointsman import Client
from pointsman.v1 import catalog_pb2, catalog_service_pb2, catalog_service_pb2_grpc, router_service_pb2
from pointsman.v1.router_service_pb2_grpc import RouterServiceStub
from tests.processes import WAIT, Serve, run_python

pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

PROMPT = "a most secret prompt"
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def Export(self, request: Any, context: Any) -> Any:
        self.got.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self) -> list[tuple[str, dict[str, Any], Any]]:
        """Name, attributes and the span itself of all spans."""
        return [
            (span.name, {a.key: a.value.string_value or a.value.int_value for a in span.attributes}, span)
            for request in self.got
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    running = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(running, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    yield running
    server.stop(None)


def test_a_collector_gets_calls_and_appends_and_no_contexts(tmp_path: Path, serve: Serve, collector: Collector) -> None:
    service = serve(tmp_path / "data", "--traces")
    with grpc.insecure_channel(service.address) as channel:
        catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        catalog.CreateModel(catalog_service_pb2.CreateModelRequest(model=catalog_pb2.Model(name="models/a")))
        schema = catalog_pb2.ContextSchema(text=catalog_pb2.TextFeature())
        bucket = catalog_pb2.Bucket(name="buckets/t", context_schema=schema)
        catalog.CreateBucket(catalog_service_pb2.CreateBucketRequest(bucket=bucket))
        router = RouterServiceStub(channel)
        request = router_service_pb2.DecideRequest(bucket="buckets/t", context={"text": PROMPT})
        decision = router.Decide(request, metadata=[("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")]).decision
        with pytest.raises(grpc.RpcError):
            router.Decide(router_service_pb2.DecideRequest(bucket="buckets/none"))
    with Client(service.address, timeout=WAIT) as client:
        client.report(decision.name, quality=0.5)
    assert service.stop() == 0
    spans = collector.spans()
    decided = [(attributes, span) for name, attributes, span in spans if name == "pointsman.v1.RouterService/Decide"]
    assert [attributes["rpc.grpc.status_code"] for attributes, _ in decided] == [0, 5]
    attributes, span = decided[0]
    assert attributes["pointsman.decision"] == decision.name and attributes["pointsman.model"] == "models/a"
    assert attributes["rpc.service"] == "pointsman.v1.RouterService" and attributes["rpc.method"] == "Decide"
    assert span.trace_id.hex() == TRACE and span.parent_span_id.hex() == "b7ad6b7169203331"
    assert decided[1][1].status.code == 0, "what the caller got wrong is no error of the service"
    names = [name for name, _, _ in spans]
    assert names.count("pointsman.v1.RouterService/ReportOutcome") == 1
    appends = [attributes["pointsman.writes"] for name, attributes, _ in spans if name == "journal append"]
    assert sum(appends) == 4, "a model, a bucket, a decision, an outcome"
    assert PROMPT not in str(collector.got)
    assert {a.value.string_value for r in collector.got for a in r.resource_spans[0].resource.attributes} & {
        "pointsman"
    }


def test_without_the_extra_the_setting_is_refused(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None; from pointsman.server.cli.serve import serve; "
        f"serve(['--data', {str(tmp_path / 'data')!r}, '--listen', '127.0.0.1:0', '--traces'])"
    )
    ended = run_python("-c", program)
    assert ended.returncode == 1
    assert "traces: expected the extra `otel`" in ended.stderr
