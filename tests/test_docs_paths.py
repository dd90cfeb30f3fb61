"""Paths and dotted names that the documentation mentions exist."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
)
FOLDERS = ("bandit", "benchmarks", "demo", "deploy", "docs", "pointsman", "protos", "server", "simulator", "tests")
"""Folders at the top of the repository: a mention that begins with one of them, and a slash, is a path."""
PACKAGES = ("bandit", "server", "simulator")
"""Packages under ``pointsman``, which pages may name without it."""
PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./*-]*")
USERS = {"server.py", "bandit.py"}
"""Names that pages use for files of a user's own."""
BARE = re.compile(r"(?<![\w/.*-])\w+\.(?:py|proto)")
"""Names of files without their folder, as tables have them after a first one with it."""
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
NAME = re.compile(rf"(?:pointsman|{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+")


def code_spans(page: Path) -> Iterator[str]:
    """The texts in backticks, outside of fenced blocks."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", prose)


def missing_paths(page: Path) -> list[str]:
    """Files and folders of the repository that code spans and links of ``page`` name and that do not exist."""
    mentioned = {ROOT / path.rstrip(".") for span in code_spans(page) for path in PATH.findall(span)}
    linked = {page.parent / target for target in LINK.findall(page.read_text()) if "://" not in target}
    return sorted(str(path) for path in mentioned | linked if not exists(path))


def missing_files(page: Path) -> list[str]:
    """Files that code spans of ``page`` name without their folder, and that no folder has. A user's own may be in ``USERS``."""
    names = {name for span in code_spans(page) for name in BARE.findall(span)} - USERS
    return sorted(names - file_names())


@cache
def file_names() -> frozenset[str]:
    """The names of all modules and contracts of the repository."""
    return frozenset(path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*.*"))


def exists(path: Path) -> bool:
    """Whether there is a file or folder at ``path``, which may have wildcards."""
    relative = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
    return any(ROOT.glob(relative)) if "*" in relative else path.exists()


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one, under ``pointsman``."""
    parts = (name if name.startswith("pointsman.") else f"pointsman.{name}").split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        try:
            value: object = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # a package that the module needs
            continue
        for attribute in parts[length:]:
            if not hasattr(value, attribute):
                return False
            value = getattr(value, attribute)
        return True
    return False


def unresolved_names(page: Path) -> list[str]:
    """Dotted names of the packages in code spans of ``page`` that nothing has."""
    spans = {span.removesuffix("()") for span in code_spans(page)}
    return sorted(span for span in spans if NAME.fullmatch(span) and not is_data(span) and not resolves(span))


def is_data(span: str) -> bool:
    """Whether a span that looks like a dotted name is a file's name, such as ``server.pem``."""
    return Path(span).suffix in {".pem", ".py", ".yaml", ".json", ".md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_mentioned_paths_and_names_exist(page: Path) -> None:
    assert missing_paths(page) == []
    assert missing_files(page) == []
    assert unresolved_names(page) == []


def test_missing_paths_and_names_are_reported(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "`bandit/gone.py`, `tests/*.gone`, `server.gone.thing`, `bandit.state.gone`, [x](gone.md)\n"
        "`bandit.state.apply`, `state.py`, `gone.py`\n"
    )
    assert missing_paths(page) == sorted(
        [str(ROOT / "bandit/gone.py"), str(ROOT / "tests/*.gone"), str(tmp_path / "gone.md")]
    )
    assert missing_files(page) == ["gone.py"]
    assert unresolved_names(page) == ["bandit.state.gone", "server.gone.thing"]
