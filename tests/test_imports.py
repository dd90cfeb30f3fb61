"""Imports of the client are light, and the client works."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
before = set(sys.modules)
from pointsman import Client
pulled = {name.split(".")[0] for name in set(sys.modules) - before}
print(sorted(pulled - set(sys.stdlib_module_names) - {"pointsman"}))
"""


def test_the_client_pulls_in_grpcio_and_protobuf_only() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    pulled = set(done.stdout.strip("[]\n").replace("'", "").split(", "))
    # grpcio itself imports its own optional companions (grpc_health, grpc_tools, …) where they are installed
    others = {name for name in pulled if not name.startswith(("grpc", "_cython", "cython"))}
    assert others <= {"google", "typing_extensions"}


def test_every_package_imports() -> None:
    for module in (
        "pointsman.bandit.decide",
        "pointsman.server.cli.serve",
        "pointsman.simulator.cli.simulate",
        "pointsman.cli",
    ):
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
