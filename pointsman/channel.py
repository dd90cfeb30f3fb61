"""How the clients' channels are made: retries, keepalive, encryption, and the key that is sent along.

>>> metadata(api_key="secret")
(('authorization', 'Bearer secret'),)
>>> Tls(ca="/nowhere/ca.pem").credentials()
Traceback (most recent call last):
FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/ca.pem'
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from pointsman.service_config import SERVICE_CONFIG

MAX_MESSAGE = 64 << 20
"""Largest message in bytes, as the service's own."""
OPTIONS = (
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.enable_retries", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
)


@dataclass(frozen=True, slots=True)
class Tls:
    """Encryption of a channel: files in PEM form. Without ``ca`` the system's roots are trusted; ``cert`` and ``key`` are shown
    to a service that asks who calls.
    """

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files. Raises ``OSError`` if one cannot be read."""

        def read(path: str | Path | None) -> bytes | None:
            return None if path is None else Path(path).read_bytes()

        return grpc.ssl_channel_credentials(read(self.ca), read(self.key), read(self.cert))


def metadata(api_key: str | None) -> tuple[tuple[str, str], ...]:
    """Metadata of every call."""
    return (("authorization", f"Bearer {api_key}"),) if api_key else ()
