"""The server's configuration: one YAML file, every setting also as an environment variable and a flag.

Flags win over the environment (``POINTSMAN_LISTEN`` for ``listen``), the environment over the file, the file over the
defaults.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pointsman.server.state.snapshotting import EVERY
from pointsman.yaml_lines import YamlError, read_yaml

PREFIX = "POINTSMAN_"


@dataclass(frozen=True, slots=True)
class Metavar:
    """The placeholder that help shows for a value of an annotated type."""

    text: str


Address = Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+):[0-9]{1,5}$"), Metavar("HOST:PORT")]


class ConfigError(Exception):
    """The configuration is not acceptable. The message names the file and the line, the variable or the flag."""


class Config(BaseModel):
    """Every setting of `pointsman serve`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path = Field(Path("pointsman-data"), description="Directory of the journal and its snapshots.")
    listen: Address = Field("127.0.0.1:7420", description="Address for gRPC; port 0 takes a free one.")
    workers: int = Field(1, ge=1, le=64, description="Processes that serve, on one journal and one port.")
    seed: int | None = Field(
        None, ge=0, description="Seed of the policy's draws, for repeatable runs. From the system if not given."
    )
    http: Address | None = Field(None, description="Address for /metrics and /healthz over HTTP. Off if not given.")
    traces: bool = Field(
        False, description="Send OpenTelemetry traces, as the OTEL_… variables say. Needs the extra `otel`."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="Log JSON objects, one a line, or text. auto is text on a terminal and JSON elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged."
    )
    insecure: bool = Field(
        False, description="Listen beyond this machine without encryption, as behind a proxy that encrypts."
    )
    tls_cert: Path | None = Field(None, description="Certificate chain (PEM) to encrypt with. Needs tls_key.")
    tls_key: Path | None = Field(None, description="Private key (PEM) of tls_cert.")
    tls_client_ca: Path | None = Field(None, description="Roots (PEM) of the certificates that callers must show.")
    api_keys: Path | None = Field(
        None, description="File of API keys, one of which callers must send; see `pointsman keys`."
    )
    drain_seconds: float = Field(
        10.0, ge=0, le=3600, description="Longest time that calls have to finish when the server stops."
    )
    snapshot_every: int = Field(
        EVERY, ge=1, description="Events between two snapshots: the most that a restart has to fold."
    )
    retention_days: int = Field(
        0, ge=0, le=36_500, description="Fewest days that decisions and outcomes stay in the journal. 0 is for ever."
    )

    @model_validator(mode="after")
    def _safe(self) -> Self:
        """Refuse to be open to other machines by accident."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key: expected both or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca: expected tls_cert and tls_key with it")
        host = self.listen.rpartition(":")[0].strip("[]")
        if not (is_loopback(host) or self.tls_cert or self.insecure):
            raise ValueError(
                f"listen: {self.listen} can be reached from other machines: expected tls_cert and tls_key, or insecure"
            )
        if self.http and not (is_loopback(self.http.rpartition(":")[0].strip("[]")) or self.insecure):
            raise ValueError(
                f"http: {self.http} can be reached from other machines and is not encrypted: expected insecure"
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether ``host``, a name or an IP address without brackets, can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> Config:
    """The configuration from all its sources; a flag that is ``None`` was not given. Raises ``ConfigError``.

    >>> load(None, {"POINTSMAN_LISTEN": "127.0.0.1:1", "POINTSMAN_WORKERS": "2"}, {"listen": "127.0.0.1:0"}).listen
    '127.0.0.1:0'
    """
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    if file is not None:
        try:
            document = read_yaml(file)
            settings = {} if document.data is None else document.mapping()
        except YamlError as error:
            raise ConfigError(str(error)) from error
        for name, value in settings.items():
            values[name], origin[name] = value, f"{file}, line {document.line((name,))}: {name}"
    for variable, text in environment.items():
        if variable.startswith(PREFIX) and variable != PREFIX + "CONFIG":
            name = variable[len(PREFIX) :].lower()
            if name in Config.model_fields:
                values[name], origin[name] = text, variable
    for name, value in flags.items():
        if value is not None:
            values[name], origin[name] = value, "--" + name.replace("_", "-")
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            if not problem["loc"]:  # settings that do not go together
                problems.append(problem["msg"].removeprefix("Value error, "))
                continue
            name = str(problem["loc"][0])
            problems.append(f"{origin.get(name, name)}: {problem['msg']}, got {problem['input']!r}")
        raise ConfigError("; ".join(problems)) from None
