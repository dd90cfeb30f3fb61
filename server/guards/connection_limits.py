"""Limits of one connection: sizes, pings, ages. gRPC itself enforces them, before a call reaches the service.

>>> dict(OPTIONS)["grpc.max_receive_message_length"] == MAX_MESSAGE
True
"""

from __future__ import annotations

MAX_MESSAGE = 64 << 20
"""Largest message in bytes: a full batch of long prompts."""
_SECOND = 1000

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_metadata_size", 8 << 10),  # of a caller; from here to the next, ever more calls are refused
    ("grpc.absolute_max_metadata_size", 16 << 10),
    ("grpc.max_concurrent_streams", 1024),  # of one connection; a caller's further calls wait on its side
    # Calls that are not begun yet: gRPC refuses some from the first number on, all from the second, instead of letting them
    # wait. `server/guards/admission.py` limits what is begun.
    ("grpc.server.max_pending_requests", 2000),
    ("grpc.server.max_pending_requests_hard_limit", 4000),
    # Callers may ping every 10 s, with or without calls, to notice a broken path early; the server does so every minute.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10 * _SECOND),
    ("grpc.keepalive_time_ms", 60 * _SECOND),
    ("grpc.keepalive_timeout_ms", 20 * _SECOND),
    # A connection ends after a while, so that callers spread over the servers that exist by then. Calls under way have the
    # grace period to end; a caller's gRPC reconnects without an error.
    ("grpc.max_connection_idle_ms", 30 * 60 * _SECOND),
    ("grpc.max_connection_age_ms", 30 * 60 * _SECOND),
    ("grpc.max_connection_age_grace_ms", 10 * 60 * _SECOND),
    ("grpc.so_reuseport", 0),  # otherwise two servers with different journals could share a port
)
SHARED_PORT_OPTIONS = tuple((name, 1 if name == "grpc.so_reuseport" else value) for name, value in OPTIONS)
"""For the workers of one supervisor, which has made sure that the port is theirs."""
