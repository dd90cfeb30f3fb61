"""Pointsman for callers: ask which model to call, report what came of it. ``pointsman.aio`` has the client for asyncio.

Importing this package imports nothing else: what it offers is imported when it is first asked for, and then grpcio and
protobuf only. So ``pointsman.bandit``, which knows no network, does not bring one along.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pointsman.channel import Tls
    from pointsman.client import Client
    from pointsman.messages import Decision, Refusal
    from pointsman.service_config import SERVICE_CONFIG

__all__ = ["SERVICE_CONFIG", "Client", "Decision", "Refusal", "Tls", "__version__"]
__version__ = "0.1.0"

_MODULE_OF = {
    "SERVICE_CONFIG": "service_config",
    "Client": "client",
    "Decision": "messages",
    "Refusal": "messages",
    "Tls": "channel",
}


def __getattr__(name: str) -> object:
    """What is offered, imported now (PEP 562). Raises ``AttributeError`` for any other name."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'pointsman' has no attribute {name!r}")
    return getattr(import_module(f"pointsman.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
