"""`pointsman catalog apply` and `pointsman catalog show`: a running server's catalogue as one file.

>>> from click.testing import CliRunner
>>> file = "models:\\n  small: {context_windw: 8192}\\n"
>>> print(CliRunner().invoke(catalog, ["apply", "-"], input=file).stderr, end="")
standard input, line 2: models/small: context_windw: is not known; did you mean context_window?
nothing was changed
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import track
from rich.text import Text

from pointsman.bandit.errors import FieldError
from pointsman.server.catalog.client import CatalogClient, CatalogClientError, ServerCatalog
from pointsman.server.catalog.file import CatalogFile, read_catalog, to_yaml, write_catalog
from pointsman.server.catalog.lines import CatalogFileError
from pointsman.server.catalog.plan import ACTIONS, CatalogChange, diff, forgets, plan, summary
from pointsman.server.process.config import Config, is_loopback

_STYLES = {"+": "green", "-": "red", "@": "cyan"}
_PROGRESS_FROM = 50
"""Number of changes from which on a progress bar is shown."""

Command = Callable[..., None]


def _connection(command: Command) -> Command:
    """Give a command the options that say where the server is, and the argument ``connect``, which connects to it."""

    @click.option(
        "--server",
        metavar="HOST:PORT",
        envvar="POINTSMAN_SERVER",
        default=Config.model_fields["listen"].default,
        show_default=True,
        help="The running server. [env: POINTSMAN_SERVER]",
    )
    @click.option(
        "--api-key",
        envvar="POINTSMAN_API_KEY",
        help="Sent as `authorization: Bearer …`. Better given as the variable POINTSMAN_API_KEY.",
    )
    @click.option(
        "--ca",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="PEM file of certificates to trust; turns TLS on.",
    )
    @functools.wraps(command)
    def wrapped(server: str, api_key: str | None, ca: Path | None, **rest: Any) -> None:
        if api_key and ca is None and not is_loopback(server.rpartition(":")[0].strip("[]")):
            click.echo(f"warning: the API key travels to {server} unencrypted; give --ca FILE", err=True)
        command(connect=lambda: CatalogClient(server, api_key or "", ca.read_bytes() if ca else None), **rest)

    return wrapped


@click.group()
def catalog() -> None:
    """Models, buckets and projects of a running server as one YAML file.

    Example: pointsman catalog show > catalog.yaml; edit it; pointsman catalog apply catalog.yaml
    """


@catalog.command()
@click.argument("file", type=click.Path(path_type=str, exists=True, dir_okay=False, allow_dash=True))
@_connection
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--prune", is_flag=True, help="Delete what the file does not name; asks first.")
@click.option("--yes", is_flag=True, help="Do not ask before deleting.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def apply(
    file: str, connect: Callable[[], CatalogClient], dry_run: bool, prune: bool, yes: bool, as_json: bool
) -> None:
    """Make a server's catalogue what FILE says (- for standard input), changing only what differs.

    A field that the file leaves out has its default. Nothing is changed if anything in the file is wrong, and a change that
    somebody else makes meanwhile is not overwritten. Exits 2 for a wrong file, 1 if a change failed.

    Example: pointsman catalog apply catalog.yaml --dry-run
    """
    with _reporting_errors():
        wanted = _read(file)
        with connect() as client:
            on_server = client.read()
            changes = plan(wanted, on_server.resources, prune)
            unchanged = len(wanted.resources) - sum(change.after is not None for change in changes)
            if not as_json:
                _show(changes)
            for change in changes:
                if forgets(change):
                    click.echo(
                        f"{change.name}: its schema or quality range changes, so it forgets what it has learned",
                        err=True,
                    )
            if not dry_run:
                _confirm(changes, yes)
                _apply(client, on_server, changes, wanted)
    if as_json:
        names = {f"{action}d": [c.name for c in changes if c.action == action] for action in ACTIONS}
        diffs = {change.name: "\n".join(diff(change)) for change in changes}
        click.echo(json.dumps({"dry_run": dry_run, **names, "unchanged": unchanged, "diffs": diffs}))
    else:
        click.echo(summary(changes, unchanged) + (" (dry run: nothing was changed)" if dry_run else ""))


@catalog.command()
@_connection
@click.option(
    "--format", "form", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="How to print it."
)
def show(connect: Callable[[], CatalogClient], form: str) -> None:
    """Print a server's catalogue as a file that `pointsman catalog apply` takes, without what is the default.

    Example: pointsman catalog show > catalog.yaml
    """
    with _reporting_errors(), connect() as client:
        document = write_catalog(client.read().resources.values())
    if form == "json":
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        click.echo(to_yaml(document), nl=False)


@contextmanager
def _reporting_errors() -> Iterator[None]:
    """Turns errors into messages and exit codes: 2 for a wrong file, 1 for all else."""
    try:
        yield
    except CatalogFileError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        click.echo("nothing was changed", err=True)
        raise click.exceptions.Exit(2) from error
    except CatalogClientError as error:
        raise click.ClickException(str(error)) from error
    except FieldError as error:
        raise click.ClickException(
            f"the server is of a later version and its catalogue has what this one lacks: {error}"
        ) from error
    except OSError as error:
        raise click.ClickException(str(error)) from error


def _read(file: str) -> CatalogFile:
    name = "standard input" if file == "-" else file
    with click.open_file(file, "rb") as opened:
        data = opened.read()
    try:
        return read_catalog(data.decode(), name)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise CatalogFileError([f"{name}, line {line}: expected UTF-8 text"]) from error


def _show(changes: list[CatalogChange]) -> None:
    console = Console(highlight=False)
    for change in changes:
        for line in diff(change):
            style = "bold" if line.startswith(("+++", "---")) else _STYLES.get(line[:1], "")
            console.print(Text(line, style), soft_wrap=True)


def _confirm(changes: list[CatalogChange], yes: bool) -> None:
    deleted = [change.name for change in changes if change.after is None]
    if deleted and not yes:
        click.confirm(f"Delete {', '.join(deleted)} and what was learned of them?", abort=True, err=True)


def _apply(client: CatalogClient, on_server: ServerCatalog, changes: list[CatalogChange], wanted: CatalogFile) -> None:
    console = Console(stderr=True)
    quiet = not console.is_terminal or len(changes) < _PROGRESS_FROM
    steps = track(changes, "applying", console=console, transient=True, disable=quiet)
    for done, change in enumerate(steps):
        try:
            client.apply(change, on_server.etags.get(change.name, ""))
        except CatalogClientError as error:
            lines = wanted.lines.get(change.name)  # none for what is to be deleted
            problem = f"{change.name}: {error}" if lines is None else lines.at(error.field, str(error))
            conflict = "Somebody else changed the catalogue meanwhile. " if error.conflict else ""
            raise CatalogClientError(
                f"{problem}\n{conflict}{done} of {len(changes)} changes were made; apply again to make the others"
            ) from error
