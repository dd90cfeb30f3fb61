"""The gRPC server of one process: its services and what stands before them.

>>> SERVICES
('pointsman.v1.RouterService', 'pointsman.v1.CatalogService', 'pointsman.v1.InsightService')
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from pointsman.server.guards.admission import Admission, AdmissionInterceptor
from pointsman.server.guards.auth import AuthInterceptor
from pointsman.server.guards.connection_limits import OPTIONS, SHARED_PORT_OPTIONS
from pointsman.server.guards.decoding import DecodingInterceptor
from pointsman.server.guards.shared_queue import SharedQueue
from pointsman.server.observe.access import AccessInterceptor
from pointsman.server.observe.metrics import Metrics
from pointsman.server.rpc.catalog import CatalogService
from pointsman.server.rpc.insight import InsightService
from pointsman.server.rpc.router import RouterService
from pointsman.server.state.replica import Replica
from pointsman.v1 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    insight_service_pb2,
    insight_service_pb2_grpc,
    router_service_pb2,
    router_service_pb2_grpc,
)

if TYPE_CHECKING:
    from pointsman.server.observe.tracing import Tracing

SERVICES = tuple(
    descriptor.services_by_name[name].full_name
    for descriptor, name in (
        (router_service_pb2.DESCRIPTOR, "RouterService"),
        (catalog_service_pb2.DESCRIPTOR, "CatalogService"),
        (insight_service_pb2.DESCRIPTOR, "InsightService"),
    )
)
"""The contract's services by their full names."""


def make_server(
    replica: Replica,
    admission: Admission | None = None,
    auth: AuthInterceptor | None = None,
    metrics: Metrics | None = None,
    tracing: Tracing | None = None,
    shares_port: bool = False,
) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    """A gRPC server of all services, health and reflection on ``replica``, without a port yet.

    ``admission`` limits how many calls run at once, by its defaults if not given. If given, ``auth`` asks callers for their
    keys, ``metrics`` counts calls and ``tracing`` makes spans of them. ``shares_port`` lets other processes listen on the same
    port.
    """
    guards = [] if auth is None else [auth]
    interceptors = (
        *([] if tracing is None else [tracing.interceptor]),
        AccessInterceptor(metrics),
        *guards,
        DecodingInterceptor(),
        AdmissionInterceptor(admission or Admission()),
    )
    server = grpc.aio.server(interceptors=interceptors, options=SHARED_PORT_OPTIONS if shares_port else OPTIONS)
    queue: Any = SharedQueue(server)
    router_service_pb2_grpc.add_RouterServiceServicer_to_server(RouterService(replica), queue)
    catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(CatalogService(replica), queue)
    insight_service_pb2_grpc.add_InsightServiceServicer_to_server(InsightService(replica), queue)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, queue)
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server, health_servicer
