"""What was built, once for all tests of a process, and environments that it is installed into."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packaging.environment import WAIT, Environment, borrow, closure, create

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Built:
    """The files that a release consists of: ``wheel`` was built from ``sdist``, ``direct`` from the checkout."""

    sdist: Path
    wheel: Path
    direct: Path


def build(source: Path, folder: Path, *options: str) -> Path:
    """Build what ``options`` say (by default a source distribution, and the wheel from it) into ``folder``; gives the wheel."""
    command = [sys.executable, "-m", "build", "--no-isolation", *options, "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("dist")
    wheel = build(ROOT, folder)
    direct = build(ROOT, tmp_path_factory.mktemp("direct"), "--wheel")
    return Built(next(folder.glob("*.tar.gz")), wheel, direct)


@pytest.fixture(scope="session")
def borrowed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Environment]:
    """Makes an environment with the wheel and, borrowed, what ``requirement`` needs."""

    def make(requirement: str) -> Environment:
        environment = create(tmp_path_factory.mktemp("environment"))
        borrow(environment, sorted(closure([requirement]) - {"pointsman"}))
        environment.install(built.wheel)
        return environment

    return make


@pytest.fixture(scope="session")
def base(borrowed: Callable[..., Environment]) -> Environment:
    """What a caller installs."""
    return borrowed("pointsman")


@pytest.fixture(scope="session")
def service(borrowed: Callable[..., Environment]) -> Environment:
    """The service without the simulator."""
    return borrowed("pointsman[server]")


@pytest.fixture(scope="session")
def full(borrowed: Callable[..., Environment]) -> Environment:
    """The service and the simulator."""
    return borrowed("pointsman[server,simulator]")
