"""The table of commands and of extras: that both say what is true, and that faults of a command's own are shown."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from pointsman.cli import main
from pointsman.commands import COMMANDS, CommandEntry
from pointsman.extras import MODULES, MissingExtra, missing_extra

ROOT = Path(__file__).parents[2]
EXTRAS_OF = {"bandit": ("server", "simulator"), "server": ("server",), "simulator": ("simulator",)}
"""Which extras have to bring what the code of a folder imports."""
OPTIONAL = {"distributed", "opentelemetry", "paretobandit", "mabwiser", "vowpalwabbit"}
"""What is imported where it is used, and asked for by an extra of its own."""
TABLES = {("server", "pandas"), ("server", "pyarrow")}
"""What `export` imports only to write a table, and names the extra `simulator` for."""


def requirements(extra: str) -> set[str]:
    """The distributions that ``pyproject.toml`` asks for, without versions; of the base if ``extra`` is empty."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    specifiers = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {specifier.partition(">=")[0].partition("==")[0] for specifier in specifiers}


def imported(folder: str) -> Iterator[str]:
    """The modules that the code of a folder imports, anywhere in it."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name: str) -> None:
    context = click.Context(main)
    assert isinstance(main, click.Group)
    command = main.get_command(context, name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(1000) == COMMANDS[name].help


def test_completion_reads_the_table() -> None:
    complete = ShellComplete(main, {}, "pointsman", "_POINTSMAN_COMPLETE")
    completions = {item.value: item.help for item in complete.get_completions([], "ex")}
    assert completions == {"export": COMMANDS["export"].help}
    assert [item.value for item in complete.get_completions([], "--v")] == ["--version"]


@pytest.mark.parametrize("extra", MODULES)
def test_extras_are_what_pyproject_asks_for(extra: str) -> None:
    assert set(MODULES[extra].values()) == requirements(extra) - requirements("")
    providers = packages_distributions()
    for module, distribution in MODULES[extra].items():
        if not module.startswith("google."):  # shared with protobuf and others
            assert distribution.replace("-", "_") in (name.replace("-", "_") for name in providers[module])


@pytest.mark.parametrize("folder", EXTRAS_OF)
def test_all_that_is_imported_is_asked_for(folder: str) -> None:
    base = {"click", "google.protobuf", "grpc", "pointsman"}
    modules = set(imported(folder))
    assert len(modules) > 5
    for module in modules:
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top in OPTIONAL:
            continue
        for extra in EXTRAS_OF[folder]:
            provided = (*base, *(name.removesuffix(".status_pb2") for name in MODULES[extra]))
            assert (extra, top) in TABLES or any(f"{a}.".startswith(f"{b}.") for a, b in pairs(module, provided)), (
                module
            )


def pairs(module: str, provided: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Each of ``known`` with ``module``, both ways: one may be a part of the other."""
    for name in provided:
        yield module, name
        yield name, module


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import pointsman.nowhere", ModuleNotFoundError),
        ("import nowhere", ModuleNotFoundError),
        ("import numpy.nowhere", ModuleNotFoundError),
        ("from numpy import nowhere", ImportError),
        ("from pointsman.bandit.state import nowhere", ImportError),
        ("raise ImportError('of its own')", ImportError),
        ("1 / 0", ZeroDivisionError),
    ],
)
@pytest.mark.parametrize("later", [False, True])
def test_a_fault_of_the_command_itself_is_not_taken_for_a_missing_extra(
    source: str, error: type[Exception], later: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = f"    {source}" if later else "    pass"
    code = f"import click\n@click.command()\ndef broken():\n{body}\n" + ("" if later else f"{source}\n")
    (tmp_path / "broken_command.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_command", raising=False)
    monkeypatch.setitem(COMMANDS, "broken", CommandEntry("broken_command:broken", "Fails.", "server"))
    result = CliRunner().invoke(main, ["broken"])
    assert isinstance(result.exception, error)
    assert result.output == ""


def test_a_missing_package_is_named_by_its_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointsman.extras.find_spec", lambda name: None)
    error = ModuleNotFoundError("No module named 'yaml'", name="yaml")
    assert missing_extra(error, "server") == MissingExtra("server", ("PyYAML",))
    error = ModuleNotFoundError("No module named 'pandas'", name="pandas")
    assert missing_extra(error, "server") == MissingExtra("simulator", ("pandas",))
    error = ModuleNotFoundError("No module named 'google'", name="google")
    assert str(missing_extra(error, "server")).startswith("googleapis-common-protos is not installed")
