"""The server's configuration: one YAML file, every setting also as an environment variable and a flag.

Flags win over the environment (``POINTSMAN_LISTEN`` for ``listen``), the environment over the file, the file over the
defaults.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pointsman.server.state.snapshot import EVERY
from pointsman.yaml_lines import YamlError, read_yaml

PREFIX = "POINTSMAN_"
_Address = Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+):[0-9]{1,5}$")]


class ConfigError(Exception):
    """The configuration is not acceptable. The message names the file and the line, the variable or the flag."""


class Config(BaseModel):
    """Every setting of `pointsman serve`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path = Field(Path("pointsman-data"), description="directory of the journal and its snapshots")
    listen: _Address = Field("127.0.0.1:7420", description="HOST:PORT for gRPC; port 0 takes a free one")
    workers: int = Field(1, ge=1, le=64, description="processes that serve, on one journal and one port")
    seed: int | None = Field(
        None,
        ge=0,
        description="seed of the policy's draws; from the system if not given",
    )
    http: _Address | None = Field(None, description="HOST:PORT for /metrics and /healthz over HTTP; off if not given")
    traces: bool = Field(
        False, description="OpenTelemetry traces, set up by the OTEL_… variables; needs the extra `otel`"
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="JSON, one object a line, or text; auto is text on a terminal and JSON elsewhere"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="what is logged")
    insecure: bool = Field(
        False, description="listen beyond this machine without encryption, for instance behind a proxy that has it"
    )
    tls_cert: Path | None = Field(None, description="certificate chain (PEM) to encrypt with; needs tls_key")
    tls_key: Path | None = Field(None, description="private key (PEM) of tls_cert")
    tls_client_ca: Path | None = Field(None, description="roots (PEM) of the certificates that callers must show")
    api_keys: Path | None = Field(None, description="file of API keys, one of which callers must send")
    drain_seconds: float = Field(10.0, ge=0, le=3600, description="how long a stopping server lets calls finish")
    snapshot_every: int = Field(
        EVERY, ge=1, description="events between two snapshots: what a restart may have to fold"
    )
    retention_days: int = Field(
        0, ge=0, le=36_500, description="days that decisions and outcomes stay in the journal at least; 0: for ever"
    )

    @model_validator(mode="after")
    def _safe(self) -> Self:
        """Refuse what would be open to others without anybody having said so."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key: expected both or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca: expected tls_cert and tls_key with it")
        host = self.listen.rpartition(":")[0].strip("[]")
        if not (_is_loopback(host) or self.tls_cert or self.insecure):
            raise ValueError(
                f"listen: {self.listen} can be reached from other machines: expected tls_cert and tls_key, or insecure"
            )
        if self.http and not (_is_loopback(self.http.rpartition(":")[0].strip("[]")) or self.insecure):
            raise ValueError(
                f"http: {self.http} can be reached from other machines and is not encrypted: expected insecure"
            )
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> Config:
    """The configuration from all its sources. Raises ``ConfigError``."""
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
        for item in error.errors():
            if not item["loc"]:  # settings that do not go together
                problems.append(item["msg"].removeprefix("Value error, "))
                continue
            name = str(item["loc"][0])
            problems.append(f"{origin.get(name, name)}: {item['msg']}, got {item['input']!r}")
        raise ConfigError("; ".join(problems)) from None
