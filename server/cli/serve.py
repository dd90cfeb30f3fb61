"""`pointsman serve`: the service, in one process or in several.

>>> from click.testing import CliRunner
>>> CliRunner().invoke(serve, ["--listen", "nowhere"]).exit_code
2
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import click

from pointsman.server.cli.setting_options import setting_options
from pointsman.server.journal.interface import JournalError
from pointsman.server.observe.logs import set_up
from pointsman.server.process import config as configuration
from pointsman.server.process.serve import ServeError
from pointsman.server.process.serve import serve as run
from pointsman.server.process.supervisor import Supervisor, WorkersError


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="POINTSMAN_CONFIG",
    help="YAML file of settings.  [env: POINTSMAN_CONFIG]",
)
@setting_options(configuration.Config, configuration.PREFIX)
def serve(config: Path | None, **flags: object) -> None:
    """Serve decisions over gRPC.

    Prints one line with the bound address when ready. SIGTERM or Ctrl-C lets calls finish and stops. Options take precedence over
    environment variables, those over the file of settings.
    """
    try:
        settings = configuration.load(config, os.environ, flags)
    except configuration.ConfigError as error:
        raise click.UsageError(str(error)) from error
    set_up(settings.log_format, settings.log_level)
    try:
        asyncio.run(_serve(settings, lambda address: click.echo(f"pointsman is serving on {address}")))
    except (JournalError, ServeError, WorkersError) as error:
        raise click.ClickException(str(error)) from error


async def _serve(settings: configuration.Config, ready: Callable[[str], None]) -> None:
    if settings.workers == 1:
        await run(settings, ready)
    else:
        await Supervisor(settings).run(ready)
