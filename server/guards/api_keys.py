"""API keys with scopes and rates, stored hashed in one YAML file.

A key is `pk_{id}_{secret}`: the id finds the entry, the secret is 256 random bits. What is kept is the SHA-256 of the whole key.
A slow hash would protect secrets that people choose, which can be guessed; these cannot, and a fast one costs a microsecond.

>>> entry, token = new_key("web", ("decide", "report"), requests_per_second=10)
>>> token.startswith(f"pk_{entry.id}_"), hashlib.sha256(token.encode()).hexdigest() == entry.hash
(True, True)
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pointsman.yaml_lines import YamlError, parse_yaml

SCOPES = ("decide", "report", "catalogue", "insight")
"""What a key may allow: `Decide` and `BatchDecide`; reports of outcomes; the catalogue; reading everything else."""
PREFIX = "pk_"


class KeysError(Exception):
    """The file of keys cannot be used; the message says where and why."""


class Key(BaseModel):
    """An entry of the file: a key's name, id, SHA-256 (``hash``, in hexadecimal) and scopes.

    ``requests_per_second`` bounds its calls; without it they are unbounded. ``burst`` is how many calls may come at once: a
    second's worth, and at least one, if not given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[str, ...], Field(min_length=1)]
    requests_per_second: Annotated[float, Field(gt=0, le=1e6)] | None = None
    burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = None

    @model_validator(mode="after")
    def _burst_of_a_rate(self) -> Self:
        if self.burst is not None and self.requests_per_second is None:
            raise ValueError("burst: expected requests_per_second with it")
        return self


def new_key(
    name: str, scopes: tuple[str, ...], requests_per_second: float | None = None, burst: int | None = None
) -> tuple[Key, str]:
    """A new entry and the key itself, which is not kept anywhere. Raises ``KeysError`` for an invalid name, scope or rate."""
    id_ = secrets.token_hex(8)
    token = f"{PREFIX}{id_}_{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(token.encode()).hexdigest()
    rate = {"requests_per_second": requests_per_second, "burst": burst}
    entry = {"name": name, "id": id_, "hash": digest, "scopes": scopes, **rate}
    return _checked(entry, "the key"), token


def read_keys(path: Path) -> list[Key]:
    """The entries of a file. Raises ``KeysError`` with the line of the first problem, and nothing of the file's text."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KeysError(f"cannot read {path}: {error}") from error
    try:
        document = parse_yaml(text, str(path))
    except YamlError as error:  # without the reason, which would quote the file
        raise KeysError(f"{error.where}: is not acceptable YAML") from None
    data = document.data
    if not isinstance(data, dict) or set(data) != {"keys"} or not isinstance(data["keys"], list):
        raise KeysError(f"{path}: expected a list `keys` and nothing else")
    places = [f"{path}, line {document.line(('keys', i))}: keys[{i}]" for i in range(len(data["keys"]))]
    keys = [_checked(entry, place) for entry, place in zip(data["keys"], places, strict=True)]
    for i, key in enumerate(keys):
        if key.name in {other.name for other in keys[:i]} or key.id in {other.id for other in keys[:i]}:
            raise KeysError(f"{places[i]}: the name {key.name} or its id is there twice")
    return keys


def write_keys(path: Path, keys: list[Key]) -> None:
    """Replace a file by these entries, whole or not at all, readable by its owner only. Raises ``KeysError``.

    The file keeps its owner, whoever writes it: a server that could no longer read what root wrote would honour a revoked key.
    Where ``path`` is a link, its target is replaced.
    """
    text = yaml.safe_dump({"keys": [key.model_dump(mode="json", exclude_none=True) for key in keys]}, sort_keys=False)
    partial = ""
    try:
        path = path.resolve()
        descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # with mode 0600
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if path.exists():
                old, new = path.stat(), os.fstat(file.fileno())
                if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).replace(path)
    except OSError as error:
        if partial:
            Path(partial).unlink(missing_ok=True)
        raise KeysError(f"cannot write {path}: {error}") from error


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Exclude other processes that change the same file, so that what is read can be changed and written back.

    Without it, a key that is made while another is revoked could bring that one back. Raises ``KeysError``.
    """
    try:
        directory = os.open(path.resolve().parent, os.O_RDONLY)  # not the file, which is replaced
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead to themselves
        raise KeysError(f"cannot write {path}: {error}") from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _checked(entry: object, where: str) -> Key:
    try:
        key = Key.model_validate(entry)
    except ValidationError as error:
        problem = error.errors()[0]
        field = "".join(f"{part}: " for part in problem["loc"][:1])  # none if fields do not go together
        raise KeysError(f"{where}: {field}{problem['msg'].removeprefix('Value error, ')}") from None
    unknown = [scope for scope in key.scopes if scope not in SCOPES]
    if unknown:
        raise KeysError(f"{where}: scopes: expected some of {', '.join(SCOPES)}, got {unknown[0]!r}")
    return key
