"""Pointsman for callers: ask which model to call, report what came of it. ``pointsman.aio`` has the client for asyncio.

Importing this package imports grpcio and protobuf only.
"""

from pointsman.channel import Tls
from pointsman.client import Client
from pointsman.messages import Decision, Refusal
from pointsman.service_config import SERVICE_CONFIG

__all__ = ["SERVICE_CONFIG", "Client", "Decision", "Refusal", "Tls", "__version__"]
__version__ = "0.1.0"
