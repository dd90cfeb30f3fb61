"""Files of a user's own that are called as our folders are, or as what we import: none of them is run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.packaging.environment import Environment, serving

pytestmark = pytest.mark.xdist_group("packaging")  # one build, and one set of environments

OURS = ("bandit", "server", "simulator")
THEIRS = ("numpy", "grpc", "yaml", "logging", "random")
HOSTILE = "from pathlib import Path; Path(r'{marker}').write_text(__name__); raise SystemExit('hostile')"
CALL = """
import sys
import grpc
from pointsman.v1 import catalog_pb2, catalog_service_pb2, catalog_service_pb2_grpc
from pointsman.v1 import router_service_pb2, router_service_pb2_grpc
with grpc.insecure_channel(sys.argv[1]) as channel:  # one connection, so one worker, which reads what it wrote
    catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
    router = router_service_pb2_grpc.RouterServiceStub(channel)
    model, bucket = catalog_pb2.Model(name="models/a"), catalog_pb2.Bucket(name="buckets/t")
    catalog.UpdateModel(catalog_service_pb2.UpdateModelRequest(model=model, allow_missing=True), wait_for_ready=True)
    catalog.UpdateBucket(catalog_service_pb2.UpdateBucketRequest(bucket=bucket, allow_missing=True))
    print(router.Decide(router_service_pb2.DecideRequest(bucket="buckets/t")).decision.model)
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A working directory full of hostile modules; what one of them runs writes the file ``ran``."""
    folder = tmp_path / "work"
    folder.mkdir()
    for name in (*OURS, *THEIRS):
        (folder / f"{name}.py").write_text(HOSTILE.format(marker=tmp_path / "ran"))
    return folder


@pytest.fixture
def on_path(tmp_path: Path) -> Path:
    """A directory for PYTHONPATH with hostile modules that are called as our folders are."""
    folder = tmp_path / "path"
    folder.mkdir()
    for name in OURS:
        (folder / f"{name}.py").write_text(HOSTILE.format(marker=tmp_path / "ran"))
    return folder


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_service_runs_none_of_them(
    full: Environment, hostile: Path, on_path: Path, tmp_path: Path, workers: str
) -> None:
    with serving(full, tmp_path / "data", "--workers", workers, cwd=hostile, PYTHONPATH=str(on_path)) as address:
        done = full.run("-c", CALL, address, cwd=tmp_path, PYTHONPATH=str(on_path))
    assert done.stdout == "models/a\n", done.stderr
    assert not (tmp_path / "ran").exists()


def test_the_simulator_runs_none_of_them(full: Environment, hostile: Path, on_path: Path, tmp_path: Path) -> None:
    with (hostile / "table.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt_id", "task", "input_tokens", "x/0", "quality/a", "cost/a", "quality/b", "cost/b"])
        rows.writerows([i, "t", 10, i / 20, i % 2, 0.001, 1, 0.01] for i in range(20))
    options = ("--table", "table.csv", "--policy", "thompson,uniform", "--seeds", "2", "--jobs", "2", "--json")
    done = full.pointsman("simulate", *options, cwd=hostile, PYTHONPATH=str(on_path))
    assert done.returncode == 0, done.stderr
    assert {row["policy"] for row in json.loads(done.stdout)} == {"thompson", "uniform"}
    assert not (tmp_path / "ran").exists()


def test_the_hostile_files_would_run(full: Environment, hostile: Path, tmp_path: Path) -> None:
    """What the other tests here would see if the working directory were on the path."""
    assert full.run("-c", "import server", cwd=hostile).returncode == 1
    assert (tmp_path / "ran").read_text() == "server"
