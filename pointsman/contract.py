"""The command ``pointsman contract``: the files that callers in other languages need.

>>> [path.rpartition("/")[2] for path in contract_files() if path.endswith("router_service.proto")]
['router_service.proto']
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click


def contract_files() -> dict[str, bytes]:
    """Every file by its path: the contract below ``protos/``, which is its include path, the retry policy and an example of a
    catalogue.
    """
    package = files("pointsman")
    contents = {f"protos/{path}": file.read_bytes() for path, file in _walk(package / "protos", "")}
    for name in ("service_config.json", "catalog.example.yaml"):
        contents[name] = package.joinpath(name).read_bytes()
    return contents


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".proto"):
            yield prefix + entry.name, entry


@click.command()
@click.option("--to", "folder", type=click.Path(path_type=Path, file_okay=False), required=True, help="Where to write.")
def contract(folder: Path) -> None:
    """Write the contract's files, for callers in other languages.

    protos/ is the include path of pointsman/v1/*.proto, service_config.json the gRPC service config (retries) to give a channel,
    catalog.example.yaml a catalogue to start from. What is there already is overwritten.

    Example: pointsman contract --to contract; protoc -I contract/protos …
    """
    try:
        for path, content in contract_files().items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            click.echo(target)
    except OSError as error:
        raise click.ClickException(f"cannot write {error.filename}: {error.strerror}") from error
