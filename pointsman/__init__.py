"""Pointsman for callers: ask which model to call, report what came of it.

Importing this package imports grpcio and protobuf only.
"""

from pointsman.client import Client, Decision

__all__ = ["Client", "Decision", "__version__"]
__version__ = "0.1.0"
