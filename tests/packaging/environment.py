"""Environments to install into. Empty ones are filled from the index; borrowed ones link to what this one has, which is quick and
needs no index.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution, requires
from pathlib import Path

from packaging.requirements import Requirement

WAIT = 120.0
"""Seconds after which a process that should have ended or answered is taken to hang."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment without pip of its own, at ``path``."""

    path: Path

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    @property
    def command(self) -> str:
        """The installed console script."""
        return str(self.path / "bin" / "pointsman")

    @property
    def site_packages(self) -> Path:
        return next((self.path / "lib").glob("python*/site-packages"))

    def run(self, *arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``python arguments…`` and capture what it writes, whatever its exit code."""
        return run([str(self.python), *arguments], cwd or self.path, **variables)

    def pointsman(self, *arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the installed command."""
        return run([self.command, *arguments], cwd or self.path, **variables)

    def pip(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run this interpreter's pip on the environment; raises ``AssertionError`` with what it said if it fails."""
        pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "--python", str(self.python)]
        done = run([*pip, *arguments], self.path, timeout=600.0)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def install(self, wheel: Path) -> None:
        """Put a wheel in without what it depends on."""
        self.pip("install", "--no-deps", "--no-index", str(wheel))


def create(path: Path, python: str = sys.executable) -> Environment:
    """An empty environment."""
    subprocess.run([python, "-m", "venv", "--without-pip", str(path)], check=True, timeout=WAIT)
    return Environment(path)


def run(command: list[str], cwd: Path, timeout: float = WAIT, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command without this process's own settings of Python."""
    return subprocess.run(
        command, cwd=cwd, env=_variables(variables), capture_output=True, text=True, timeout=timeout, check=False
    )


@contextmanager
def serving(
    environment: Environment, data: Path, *options: str, cwd: Path | None = None, **variables: str
) -> Iterator[str]:
    """A running `pointsman serve`; gives its address. Raises ``AssertionError`` if it does not start, or does not stop well."""
    command = [environment.command, "serve", "--data", str(data), "--listen", "127.0.0.1:0", *options]
    with (data.parent / "stderr").open("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=cwd or environment.path,
            env=_variables(variables),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        hangs = threading.Timer(WAIT, process.kill)  # until it serves; then it may as long as its caller wants
        hangs.start()
        try:
            assert process.stdout is not None
            address = re.search(r"serving on (\S+)", process.stdout.readline())
            assert address, Path(errors.name).read_text()
            hangs.cancel()
            yield address[1]
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT) == 0, Path(errors.name).read_text()
        finally:
            hangs.cancel()
            process.kill()
            process.communicate()


def closure(requirements: Iterable[str]) -> set[str]:
    """The distributions that ``requirements`` (such as ``pointsman[server]``) install, by their names in lower case with hyphens.

    Raises ``PackageNotFoundError`` if one is not installed here.
    """
    waiting = [Requirement(text) for text in requirements]
    checked, names = set[str](), set[str]()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in checked:
            continue
        checked.add(str(requirement))
        names.add(normal(requirement.name))
        for text in requires(requirement.name) or ():
            needed = Requirement(text)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return names


def normal(name: str) -> str:
    """A distribution's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def borrow(environment: Environment, distributions: Iterable[str]) -> None:
    """Link the files of ``distributions`` that are installed here into the environment."""
    for name in distributions:
        for file in distribution(name).files or ():
            if ".." in file.parts:
                continue  # scripts
            target = environment.site_packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                target.symlink_to(Path(str(file.locate())).resolve())


@contextmanager
def without(environment: Environment, name: str, leave_folders: bool = False) -> Iterator[None]:
    """Take a borrowed distribution out for a while, as uninstalling it would."""
    paths = [environment.site_packages / file for file in distribution(name).files or () if ".." not in file.parts]
    folders = sorted({folder for path in paths for folder in path.relative_to(environment.site_packages).parents})
    for path in paths:
        path.unlink(missing_ok=True)
    if not leave_folders:
        for folder in (environment.site_packages / folder for folder in reversed(folders)):
            if not any(folder.iterdir()):
                folder.rmdir()
    try:
        yield
    finally:
        borrow(environment, [name])


def _variables(more: Mapping[str, str]) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "POINTSMAN"))}
    return {**own, "PYTHONUNBUFFERED": "1", **more}
