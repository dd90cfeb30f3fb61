"""The `pointsman` command: a table of sub-commands, each of which is imported when it is run.

A command whose extra is not installed says which to install and exits with 2, as a wrong command does: 1 is for a command that
ran and failed, such as a gate that was not passed.

>>> from click.testing import CliRunner
>>> CliRunner().invoke(main, ["--version"]).output.split()[0]
'pointsman,'
"""

from __future__ import annotations

import os
from importlib import import_module

import click
from click.shell_completion import CompletionItem

from pointsman import __version__
from pointsman.commands import COMMANDS


class MissingExtraError(click.ClickException):
    """A command cannot run before an extra is installed."""

    exit_code = 2


class _LazyGroup(click.Group):
    """Sub-commands from the table. Help and completion read the table only."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now. Raises ``MissingExtraError``, and any other fault of the import as it is."""
        if cmd_name not in COMMANDS:
            return None
        # One thread for linear algebra, set before anything loads it: the matrices are small, and a fold must not depend
        # on how the work is split.
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(variable, "1")
        module, _, attribute = COMMANDS[cmd_name].target.partition(":")
        try:
            command: click.Command = getattr(import_module(module), attribute)
        except ImportError as error:
            _raise_if_missing(error, cmd_name)
            raise
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command. What it imports only on the way may be missing as well."""
        try:
            return super().invoke(ctx)
        except ImportError as error:
            _raise_if_missing(error, ctx.invoked_subcommand or "")
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=COMMANDS[name].help) for name in names] + options


def _raise_if_missing(error: ImportError, command: str) -> None:
    """Raise ``MissingExtraError`` if ``command`` could not import something because an extra is not installed."""
    from pointsman.extras import missing_extra  # not at the top: a third of the time that help would take

    entry = COMMANDS.get(command)
    missing = missing_extra(error, entry.extra) if entry is not None and entry.extra else None
    if missing is not None:
        raise MissingExtraError(f"{command}: {missing}") from error


@click.command(cls=_LazyGroup)
@click.version_option(__version__, prog_name="pointsman")
def main() -> None:
    """Pointsman decides, for every request, which LLM to call."""


if __name__ == "__main__":
    main(prog_name="pointsman")
