"""One queue for all methods of a server.

gRPC gives each method a queue of its own, in which calls wait unseen by what comes for another.

>>> class Server:
...     def add_generic_rpc_handlers(self, handlers):
...         print("generic", handlers)
>>> queue = SharedQueue(Server())
>>> queue.add_generic_rpc_handlers(["RouterService"])
generic ('RouterService',)
>>> queue.add_registered_method_handlers("RouterService", {})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc


class SharedQueue:
    """``server`` as what services are added to, so that all methods share one queue, first come first served."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Add handlers to the shared queue."""
        self._server.add_generic_rpc_handlers(tuple(handlers))

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Do nothing: this would give each method its queue, and all of them are in the generic handlers too."""
