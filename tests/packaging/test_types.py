"""Callers' code under mypy --strict, against the installed wheel: the documentation's snippets, and uses of the stubs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT
from tests.packaging.environment import WAIT, Environment, borrow

pytestmark = pytest.mark.xdist_group("packaging")  # one build, and one set of environments

PREAMBLE = """
from __future__ import annotations
from typing import Any
gateway: Any
name: str
prompt: str
"""
"""What the snippets leave to the reader."""
SERVICER = """
from collections.abc import Iterator

import grpc

from pointsman import Client, aio
from pointsman.v1 import insight_service_pb2, insight_service_pb2_grpc, router_service_pb2, router_service_pb2_grpc


def watch(channel: grpc.Channel) -> Iterator[str]:
    stub = insight_service_pb2_grpc.InsightServiceStub(channel)
    for response in stub.WatchDecisions(insight_service_pb2.WatchDecisionsRequest()):
        yield response.decision.model


async def propensity(channel: grpc.aio.Channel, name: str) -> float:
    stub = router_service_pb2_grpc.RouterServiceStub(channel)
    answer = await stub.GetDecision(router_service_pb2.GetDecisionRequest(name=name))
    return answer.decision.propensity


async def decide(client: aio.Client) -> tuple[str, ...]:
    return (await client.decide("t", numbers={"n": 1.0})).fallbacks


def report(client: Client) -> None:
    client.report("decisions/1", quality=1.0, success=True)
"""
WRONG = """
from pointsman import Client
from pointsman.v1 import router_service_pb2, router_service_pb2_grpc
import grpc

client = Client(7420)
model: int = client.decide("t").model
client.report("decisions/1", quality="good")
stub = router_service_pb2_grpc.RouterServiceStub(grpc.insecure_channel("localhost:1"))
stub.Decide(router_service_pb2.GetDecisionRequest())
"""


def snippets() -> Iterator[tuple[str, str]]:
    """The Python in each document: one program, since later blocks build on earlier ones."""
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        if blocks:
            yield path.name, "\n".join(blocks)


def check(environment: Environment, folder: Path, code: str) -> list[str]:
    """What mypy says of ``code``, a line each."""
    (folder / "caller.py").write_text(code)
    (folder / "mypy.ini").write_text("[mypy]\nstrict = true\n[mypy-litellm.*]\nignore_missing_imports = true\n")
    command = [sys.executable, "-m", "mypy", "--python-executable", str(environment.python), "caller.py"]
    cache = ["--cache-dir", str(environment.path / "mypy")]
    done = subprocess.run([*command, *cache], cwd=folder, capture_output=True, text=True, timeout=WAIT, check=False)
    return [
        line for line in (done.stdout + done.stderr).splitlines() if line.startswith("caller.py") or "rror:" in line
    ]


@pytest.fixture(scope="module")
def typed(base: Environment) -> Environment:
    """The base with the types of grpcio and protobuf, as a caller who checks types has them."""
    borrow(base, ["types-grpcio", "types-protobuf"])
    return base


@pytest.mark.parametrize(("document", "code"), [*snippets()], ids=[document for document, _ in snippets()])
def test_the_snippets_are_well_typed(typed: Environment, tmp_path: Path, document: str, code: str) -> None:
    assert check(typed, tmp_path, PREAMBLE + code) == []


def test_the_clients_and_stubs_are_typed(typed: Environment, tmp_path: Path) -> None:
    assert check(typed, tmp_path, SERVICER) == []


def test_wrong_uses_are_found(typed: Environment, tmp_path: Path) -> None:
    lines = [int(line.split(":")[1]) for line in check(typed, tmp_path, WRONG) if "error:" in line]
    assert lines == [6, 7, 8, 10]


def test_there_are_snippets() -> None:
    assert {"README.md", "adopting.md"} <= {document for document, _ in snippets()}
