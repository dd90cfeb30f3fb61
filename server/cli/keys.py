"""`pointsman keys`: commands that maintain the file of API keys.

>>> from tempfile import TemporaryDirectory
>>> from click.testing import CliRunner
>>> with TemporaryDirectory() as directory:
...     file = ["--file", f"{directory}/keys.yaml"]
...     new_key = CliRunner().invoke(keys, ["new", "web", "--scope", "decide", "--rate", "10", *file])
...     listed = CliRunner().invoke(keys, ["list", *file])
>>> new_key.output.startswith("pk_"), listed.output
(True, 'web  decide  at most 10/s\\n')
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from pointsman.server.guards.api_keys import SCOPES, KeysError, exclusive, new_key, read_keys, write_keys

_FILE = click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path),
    default=Path("pointsman-keys.yaml"),
    show_default=True,
    envvar="POINTSMAN_API_KEYS",
    help="The file of keys, as given to `pointsman serve --api-keys`.",
)


@click.group()
def keys() -> None:
    """API keys: make, list and revoke them. A running server sees changes within a second."""


@keys.command("new")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, type=click.Choice(SCOPES), help="Repeat for several.")
@click.option("--rate", type=float, help="Most calls per second. Default: no limit.")
@click.option("--burst", type=int, help="Most calls at once, with --rate. Default: a second's worth.")
@_FILE
def new(name: str, scopes: tuple[str, ...], rate: float | None, burst: int | None, path: Path) -> None:
    """Make a key called NAME and print it, once; only its hash is kept."""
    try:
        with exclusive(path):
            entries = read_keys(path) if path.exists() else []
            if any(entry.name == name for entry in entries):
                raise KeysError(f"there is a key called {name} already")
            entry, token = new_key(name, tuple(dict.fromkeys(scopes)), rate, burst)
            write_keys(path, [*entries, entry])
    except KeysError as error:
        raise click.ClickException(str(error)) from error
    click.echo(token)


@keys.command("list")
@_FILE
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def list_(path: Path, as_json: bool) -> None:
    """List the keys with their scopes and rates."""
    try:
        entries = read_keys(path)
    except KeysError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps([entry.model_dump(mode="json", exclude={"hash"}) for entry in entries]))
    else:
        for entry in entries:
            rate = "" if entry.requests_per_second is None else f"  at most {entry.requests_per_second:g}/s"
            burst = "" if entry.burst is None else f", {entry.burst} at once"
            click.echo(f"{entry.name}  {','.join(entry.scopes)}{rate}{burst}")


@keys.command("revoke")
@click.argument("name")
@_FILE
def revoke(name: str, path: Path) -> None:
    """Remove the key called NAME."""
    try:
        with exclusive(path):
            entries = read_keys(path)
            if all(entry.name != name for entry in entries):
                raise KeysError(f"there is no key called {name}")
            write_keys(path, [entry for entry in entries if entry.name != name])
    except KeysError as error:
        raise click.ClickException(str(error)) from error
