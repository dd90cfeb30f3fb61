"""Contents of the wheel and of the source distribution."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from pointsman import SERVICE_CONFIG
from tests.packaging.conftest import ROOT, Built, build

pytestmark = pytest.mark.xdist_group("packaging")  # one build, and one set of environments
LINKED = ("bandit", "server", "simulator", "protos")
"""Folders at the top of the repository that are imported, or read, below ``pointsman``."""


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def tracked(*patterns: str) -> set[str]:
    """The files that git has, or would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {path for path in done.stdout.split() if (ROOT / path).exists()}


def test_nothing_is_installed_but_pointsman_and_its_metadata(built: Built) -> None:
    tops = {PurePosixPath(name).parts[0] for name in contents(built.wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"pointsman"}
    assert len(tops) == 2


def test_the_wheel_has_every_tracked_file_of_its_packages_and_no_other(built: Built) -> None:
    links = {f"pointsman/{name}" for name in LINKED}
    expected = tracked("pointsman") - links | {f"pointsman/{path}" for path in tracked(*LINKED)}
    assert {name for name in contents(built.wheel) if ".dist-info/" not in name} == expected
    assert {"pointsman/py.typed", "pointsman/protos/pointsman/v1/router_service.proto"} <= expected
    assert {"pointsman/service_config.json", "pointsman/catalog.example.yaml"} <= expected


def test_the_wheel_has_no_links(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        assert [info.filename for info in archive.infolist() if info.external_attr >> 28 == 0o12] == []


def test_the_source_distribution_has_what_is_built_once_and_no_tests(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        members = archive.getmembers()
        names = {member.name.split("/", 1)[1] for member in members}
    assert [member.name for member in members if member.issym() or member.islnk()] == []
    sources = tracked("bandit", "server", "simulator", "protos", "docs", "pyproject.toml", "README.md", "LICENSE")
    assert sources - {"docs/catalog.example.yaml"} <= names  # a link to pointsman/
    assert [
        name for name in names if name.startswith(("tests", "benchmarks", "pointsman/bandit", "pointsman/protos"))
    ] == []


def test_the_source_distribution_builds_the_same_wheel(built: Built) -> None:
    assert contents(built.wheel) == contents(built.direct)


def test_a_checkout_without_links_builds_the_same_wheel(built: Built, tmp_path: Path) -> None:
    shutil.unpack_archive(built.sdist, tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    for name in LINKED:  # what git writes where the system has no links
        (source / "pointsman" / name).write_text(f"../{name}")
    assert contents(build(source, tmp_path / "dist", "--wheel")) == contents(built.direct)


def test_the_retry_policy_is_the_file(built: Built) -> None:
    assert json.loads(contents(built.wheel)["pointsman/service_config.json"]) == json.loads(SERVICE_CONFIG)


@pytest.mark.parametrize("name", LINKED)
def test_a_checkout_has_its_folders_below_pointsman(name: str) -> None:
    assert (ROOT / "pointsman" / name).resolve() == ROOT / name
