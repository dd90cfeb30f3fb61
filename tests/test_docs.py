"""The worked examples in docstrings are true, and every public module has one."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import pointsman

OPTIONAL = {"distributed", "obp", "opentelemetry", "paretobandit"}
"""Packages that extras bring: a module that needs one is skipped where it is missing."""


def modules() -> Iterator[str]:
    """The names of all modules of the package but the generated ones, public ones only."""
    for module in pkgutil.walk_packages(pointsman.__path__, "pointsman."):
        parts = module.name.split(".")
        if parts[1] != "v1" and not any(part.startswith("_") for part in parts):
            yield module.name


def is_bare(path: Path) -> bool:
    """Whether a module has nothing but a docstring and imports: then its members have the examples."""
    body = ast.parse(path.read_text()).body
    return all(isinstance(node, ast.Expr | ast.Import | ast.ImportFrom) for node in body)


@pytest.mark.parametrize("name", sorted(modules()))
def test_examples(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in OPTIONAL:
            raise
        pytest.skip(f"{missing} is not installed")
    results = doctest.testmod(module)
    assert results.failed == 0
    assert module.__file__ is not None
    if not is_bare(Path(module.__file__)):
        assert results.attempted, f"{name} has no example in its docstrings"
