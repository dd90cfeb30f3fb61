"""Command-line options made of settings: one for each field of a pydantic model, with its type, description and default.

>>> from pydantic import Field
>>> class Settings(BaseModel):
...     log_level: Literal["info", "error"] = Field("info", description="What is logged.")
...     workers: int = Field(1, description="Processes that serve.")
>>> @click.command(add_help_option=False)
... @setting_options(Settings, "APP_")
... def serve(**given):
...     print(sorted(given.items()))
>>> serve(["--workers", "2"], standalone_mode=False)
[('log_level', None), ('workers', 2)]
>>> print(serve.get_help(click.Context(serve, info_name="serve", terminal_width=80)))
Usage: serve [OPTIONS]
<BLANKLINE>
Options:
  --log-level [info|error]  What is logged.  [env: APP_LOG_LEVEL; default: info]
  --workers INTEGER         Processes that serve.  [env: APP_WORKERS; default:
                            1]
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pointsman.server.process.config import Metavar

Command = TypeVar("Command", bound=Callable[..., Any])


def setting_options(settings: type[BaseModel], prefix: str) -> Callable[[Command], Command]:
    """A decorator that gives a command an option for every field of ``settings``: `--log-level` for ``log_level``.

    What is not given is ``None``, so that other sources can be asked; ``prefix`` is that of the environment variables that the
    help names. Raises ``TypeError`` for a field whose type no option has.
    """

    def decorate(command: Command) -> Command:
        for name, field in reversed(settings.model_fields.items()):
            command = _option(name, field, prefix)(command)
        return command

    return decorate


def _option(name: str, field: FieldInfo, prefix: str) -> Callable[[Command], Command]:
    alternatives = _alternatives(field.annotation)
    if len(alternatives) != 1:
        raise TypeError(f"{name}: expected one type besides None, got {field.annotation}")
    annotation, metadata = alternatives[0]
    metavar = next((part.text for part in (*field.metadata, *metadata) if isinstance(part, Metavar)), None)
    default = "" if field.default is None or field.default is False else f"; default: {field.default}"
    return click.option(
        "--" + name.replace("_", "-"),
        type=None if annotation is bool else _click_type(name, annotation),
        is_flag=annotation is bool,
        default=None,
        metavar=metavar,
        help=f"{field.description}  [env: {prefix}{name.upper()}{default}]",
    )


def _alternatives(annotation: Any) -> list[tuple[Any, tuple[Any, ...]]]:
    """The types but ``None`` of an annotation, each with its metadata."""
    if get_origin(annotation) is Annotated:
        return [(get_args(annotation)[0], get_args(annotation)[1:])]
    if NoneType in get_args(annotation):
        parts = [part for part in get_args(annotation) if part is not NoneType]
        return [alternative for part in parts for alternative in _alternatives(part)]
    return [(annotation, ())]


def _click_type(name: str, annotation: Any) -> Any:
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    if annotation is Path:
        return click.Path(path_type=Path)
    if annotation in (str, int, float):
        return annotation
    raise TypeError(f"{name}: no option is of the type {annotation}")
