"""Installs from the index, as people do it; `make test-packaging` runs this. Every Python that is on PATH has its turn."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pointsman.commands import COMMANDS
from tests.packaging.conftest import ROOT, Built
from tests.packaging.environment import Environment, create, serving

pytestmark = [pytest.mark.index, pytest.mark.xdist_group("packaging")]
LARGEST_BASE = 64 << 20
"""Bytes that the base may take with all it depends on."""
CALLER = """
import asyncio, sys
import grpc
from pointsman import Client, aio
from pointsman.v1 import catalog_pb2, catalog_service_pb2, catalog_service_pb2_grpc
catalog = catalog_service_pb2_grpc.CatalogServiceStub(grpc.insecure_channel(sys.argv[1]))
model, bucket = catalog_pb2.Model(name="models/a"), catalog_pb2.Bucket(name="buckets/t")
catalog.UpdateModel(catalog_service_pb2.UpdateModelRequest(model=model, allow_missing=True), wait_for_ready=True)
catalog.UpdateBucket(catalog_service_pb2.UpdateBucketRequest(bucket=bucket, allow_missing=True))
with Client(sys.argv[1]) as client:
    with client.call("t") as call:
        call.succeeded(cost_usd=0.5)
    client.report(call.decision, quality=1.0)
    assert client.flush() == 0
    assert client.get_decision(call.decision).outcomes[0].outcome.cost_usd == 0.5
async def main():
    async with aio.Client(sys.argv[1]) as client:
        return await client.decide("t")
print(asyncio.run(main()).model)
"""


@cache
def pythons() -> dict[str, str]:
    """The interpreters of PATH that the project runs on, by version, besides this one."""
    interpreters = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    for minor in range(11, 20):
        path = shutil.which(f"python3.{minor}")
        if path and subprocess.run([path, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            interpreters.setdefault(f"3.{minor}", path)
    return interpreters


@pytest.fixture(scope="module", autouse=True)
def index() -> None:
    """Skips if nothing can be had."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "index", "versions", "click"]
    if subprocess.run(command, capture_output=True, check=False, timeout=60).returncode:
        pytest.skip("the package index cannot be reached")


@pytest.fixture(scope="module")
def served(full: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service that callers of any version speak to."""
    with serving(full, tmp_path_factory.mktemp("served") / "data") as address:
        yield address


def oldest(extra: str = "") -> list[str]:
    """The requirements of ``extra``, or of the base, each at its floor."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted: list[str] = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return [line.replace(">=", "==") for line in wanted]


def requirement(built: Built, extra: str) -> str:
    return f"pointsman[{extra}] @ {built.wheel.as_uri()}"


def table(path: Path) -> Path:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt_id", "task", "input_tokens", "x/0", "quality/a", "cost/a", "quality/b", "cost/b"])
        rows.writerows([i, "t", 10, i / 20, i % 2, 0.001, 1, 0.01] for i in range(20))
    return path


def lints(environment: Environment) -> bool:
    """Whether `python -m bandit` is the linter, and works."""
    return "security analyzer" in environment.run("-m", "bandit", "--help").stdout


def damaged(environment: Environment) -> list[str]:
    """The files of the installed wheel that are not there any more, or are not what they were."""
    (record,) = environment.site_packages.glob("pointsman-*.dist-info/RECORD")
    wrong = []
    for name, digest, _ in csv.reader(record.open()):
        path = environment.site_packages / name
        if not path.exists():
            wrong.append(name)
        elif digest:
            method, _, expected = digest.partition("=")
            actual = base64.urlsafe_b64encode(hashlib.new(method, path.read_bytes()).digest()).decode().rstrip("=")
            wrong += [] if actual == expected else [name]
    return wrong


@pytest.mark.parametrize("version", pythons())
def test_the_base_is_light_and_calls(built: Built, served: str, tmp_path: Path, version: str) -> None:
    environment = create(tmp_path / "environment", pythons()[version])
    environment.pip("install", str(built.wheel))
    installed = {path.name.partition("-")[0] for path in environment.site_packages.glob("*.dist-info")}
    assert installed == {"click", "grpcio", "pointsman", "protobuf", "typing_extensions"}
    size = sum(path.stat().st_size for path in environment.site_packages.rglob("*") if path.is_file())
    assert size < LARGEST_BASE
    assert environment.run("-W", "error", "-c", CALLER, served).stdout == "models/a\n"
    assert all(f"\n  {name} " in environment.pointsman("--help").stdout for name in COMMANDS)
    assert environment.pointsman("serve").stderr.endswith("pip install 'pointsman[server]'\n")


@pytest.mark.parametrize("version", [version for version in pythons() if version in ("3.11", "3.12")])
def test_the_oldest_dependencies_of_the_base_are_enough(
    built: Built, served: str, tmp_path: Path, version: str
) -> None:
    environment = create(tmp_path / "environment", pythons()[version])
    environment.pip("install", "--only-binary", ":all:", str(built.wheel), *oldest())
    done = environment.run("-c", CALLER, served)  # with warnings: protobuf 4.25 itself has one on Python 3.12
    assert done.stdout == "models/a\n", done.stderr
    assert all(f"\n  {name} " in environment.pointsman("--help").stdout for name in COMMANDS)
    assert environment.pointsman("contract", "--to", str(tmp_path / "contract")).returncode == 0


@pytest.mark.parametrize("linter_first", [False, True])
def test_the_linter_of_the_same_name_is_no_trouble(built: Built, tmp_path: Path, linter_first: bool) -> None:
    environment = create(tmp_path / "environment")
    for wanted in ("bandit", str(built.wheel))[:: 1 if linter_first else -1]:
        environment.pip("install", wanted)
    assert lints(environment)
    assert environment.pointsman("--version").returncode == 0
    environment.pip("uninstall", "-y", "bandit")
    assert damaged(environment) == []
    assert environment.pointsman("--version").returncode == 0


def test_the_linter_survives_us(built: Built, tmp_path: Path) -> None:
    environment = create(tmp_path / "environment")
    environment.pip("install", "bandit", str(built.wheel))
    environment.pip("uninstall", "-y", "pointsman")
    assert lints(environment)
    assert not (environment.site_packages / "pointsman").exists()


@pytest.mark.parametrize("age", ["newest", "oldest"])
@pytest.mark.parametrize("version", pythons())
def test_the_extras_serve_and_simulate(built: Built, tmp_path: Path, version: str, age: str) -> None:
    if age == "oldest" and version != "3.11":
        pytest.skip("not all of the oldest dependencies have wheels for a newer Python")
    environment = create(tmp_path / "environment", pythons()[version])
    environment.pip("install", requirement(built, "server"), *(oldest("server") if age == "oldest" else ()))
    assert not (environment.site_packages / "pandas").exists()
    with serving(environment, tmp_path / "data", "--workers", "1") as address:
        done = environment.run("-c", CALLER, address)
    assert done.stdout == "models/a\n", done.stderr
    done = environment.pointsman("simulate", "--help")
    assert done.stderr.endswith("pip install 'pointsman[simulator]'\n")
    floors = oldest("simulator") if age == "oldest" else ()
    environment.pip("install", requirement(built, "simulator"), *floors)
    options = ("--table", str(table(tmp_path / "table.csv")), "--policy", "thompson,uniform", "--seeds", "2", "--json")
    done = environment.pointsman("simulate", *options)
    assert done.returncode == 0, done.stderr
    assert {row["policy"] for row in json.loads(done.stdout)} == {"thompson", "uniform"}
    for name in ("events.jsonl", "table.csv", "table.parquet"):
        done = environment.pointsman("export", "--data", str(tmp_path / "data"), "--to", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
