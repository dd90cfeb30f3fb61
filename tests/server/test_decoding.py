"""Undecodable requests are INVALID_ARGUMENT for every method, without a traceback in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor

from pointsman.v1 import catalog_service_pb2, insight_service_pb2, router_service_pb2
from tests.processes import WAIT
from tests.server.conftest import Scenario, Service

SERVICES = (
    router_service_pb2.DESCRIPTOR.services_by_name["RouterService"],
    catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"],
    insight_service_pb2.DESCRIPTOR.services_by_name["InsightService"],
)


def test_bytes_that_are_no_message_are_an_invalid_argument(
    run: Callable[[Scenario], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(service: Service) -> None:
        for method in (method for service_methods in SERVICES for method in service_methods.methods):
            path = f"/{method.containing_service.full_name}/{method.name}"
            broken = [b"\xff", b"\x0a\x05ab"]  # cut off, at the tag and in the value
            if method.input_type.fields_by_number[1].type == FieldDescriptor.TYPE_STRING:
                broken.append(b"\x0a\x02\xc3\x28")  # no UTF-8
            for data in broken:
                streaming = method.server_streaming
                make = service.channel.unary_stream if streaming else service.channel.unary_unary
                call = make(path)(data, timeout=WAIT)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await (call.read() if streaming else call)
                assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, (method.name, data)
                assert "request: expected" in (caught.value.details() or "")
                assert "Traceback" not in (caught.value.details() or "")
        await service.decide()

    with caplog.at_level(logging.ERROR):
        run(scenario)
    assert not caplog.records
