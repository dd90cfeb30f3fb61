"""OpenTelemetry traces: a span for every call and one for every append to the journal. Needs the extra ``otel``.

OpenTelemetry's own variables say where spans go and how many are kept: ``OTEL_EXPORTER_OTLP_ENDPOINT``,
``OTEL_TRACES_SAMPLER``, ``OTEL_RESOURCE_ATTRIBUTES`` and so on. A call with a W3C ``traceparent`` in its metadata continues that
trace. Attributes follow OpenTelemetry's conventions for gRPC; a decision adds its name, bucket and model. No part of a context is
in a span.

>>> from opentelemetry.sdk.trace.export import SimpleSpanProcessor
>>> from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
>>> spans, provider = InMemorySpanExporter(), TracerProvider()
>>> provider.add_span_processor(SimpleSpanProcessor(spans))
>>> Tracing(provider).appended(groups=3, seconds=0.002, lag=0.0001)
>>> [(span.name, span.attributes["pointsman.writes"]) for span in spans.get_finished_spans()]
[('journal append', 3)]
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pointsman.server.observe.access import code_of
from pointsman.server.rpc.interceptor import Interceptor, OnResponse
from pointsman.server.rpc.status import Call
from pointsman.v1.router_service_pb2 import DecideResponse, GetDecisionResponse

_PROPAGATOR = TraceContextTextMapPropagator()
_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Codes that are the server's fault by OpenTelemetry's conventions. Others are the caller's, and their spans are not errors."""


def make_provider() -> TracerProvider:
    """A provider whose spans go to an OTLP collector over gRPC in the background.

    ``service.name`` is pointsman unless a variable says otherwise.
    """
    has_name = "OTEL_SERVICE_NAME" in os.environ or SERVICE_NAME in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if has_name else {SERVICE_NAME: "pointsman"})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Tracing:
    """Makes spans: ``interceptor`` of calls, ``appended`` of the journal. ``close`` blocks while it sends the last ones."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("pointsman")
        self.interceptor = TracingInterceptor(self._tracer)

    def appended(self, groups: int, seconds: float, lag: float) -> None:
        """Make a span of an append of ``groups``: ``seconds`` until it was durable, then ``lag`` seconds until it was folded."""
        end = time.time_ns()
        start = end - int((seconds + lag) * 1e9)
        span = self._tracer.start_span("journal append", start_time=start, attributes={"pointsman.writes": groups})
        span.add_event("durable", timestamp=start + int(seconds * 1e9))
        span.end(end)

    def close(self) -> None:
        """Send the spans that have not been sent. Blocks."""
        self._provider.shutdown()


class TracingInterceptor(Interceptor):
    """Makes a span of every call of the contract, from before anything else looks at it."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    @contextmanager
    def around(self, method: str, request: Any, context: Call) -> Iterator[OnResponse]:
        """A span that ends with the code with which the call ends, and says what was decided."""
        service, _, name = method[1:].partition("/")
        carrier = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        span = self._tracer.start_span(
            method[1:],
            context=_PROPAGATOR.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
        )
        code = "OK"
        try:
            yield partial(_describe, span)
        except BaseException as error:
            code = code_of(error, context)
            raise
        finally:
            span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[code].value[0])
            if code in _FAULTS:
                span.set_status(Status(StatusCode.ERROR, code))
            span.end()


def _describe(span: Span, response: Any) -> None:
    """Say on ``span`` which decision was made or looked up, if one was."""
    if isinstance(response, DecideResponse | GetDecisionResponse) and span.is_recording():
        decision = response.decision
        span.set_attribute("pointsman.decision", decision.name)
        span.set_attribute("pointsman.bucket", decision.bucket)
        span.set_attribute("pointsman.model", decision.model)
