"""The table of commands: what each is called, what it does, where its code is, and the extra that brings what the code needs.

Nothing here imports a command, so that `pointsman --help` is quick and whole with only the base installed.

>>> COMMANDS["serve"].extra
'server'
>>> COMMANDS["serve"].target
'pointsman.server.cli.serve:serve'
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """One command. ``target`` is MODULE:ATTRIBUTE of its ``click.Command``, ``help`` the first sentence of that command's own
    help, ``extra`` what has to be installed for it, empty if the base is enough.
    """

    target: str
    help: str
    extra: str = ""


COMMANDS = {
    "catalog": CommandEntry(
        "pointsman.server.cli.catalog:catalog",
        "Models, buckets and projects of a running server as one YAML file.",
        "server",
    ),
    "compact": CommandEntry(
        "pointsman.server.cli.journal:compact_",
        "Replace old decisions and outcomes by the state they led to.",
        "server",
    ),
    "contract": CommandEntry(
        "pointsman.contract:contract",
        "Write the contract's files, for callers in other languages.",
    ),
    "evaluate": CommandEntry(
        "pointsman.simulator.offpolicy.commands:evaluate_command",
        "Estimate what another policy would have made of logged requests, and whether it may go live.",
        "simulator",
    ),
    "export": CommandEntry(
        "pointsman.server.cli.journal:export",
        "Write the journal to a file; the server may be running.",
        "server",
    ),
    "import": CommandEntry(
        "pointsman.server.cli.journal:import_",
        "Make a data directory out of an exported journal: the inverse of export.",
        "server",
    ),
    "keys": CommandEntry(
        "pointsman.server.cli.keys:keys",
        "API keys: make, list and revoke them.",
        "server",
    ),
    "serve": CommandEntry(
        "pointsman.server.cli.serve:serve",
        "Serve decisions over gRPC.",
        "server",
    ),
    "simulate": CommandEntry(
        "pointsman.simulator.cli.simulate:simulate",
        "Replay outcomes, or play a world, through the policy that serves, beside its controls.",
        "simulator",
    ),
    "verify": CommandEntry(
        "pointsman.server.cli.journal:verify",
        "Fold the whole journal anew and compare with what a restart would serve.",
        "server",
    ),
}
"""Every command by its name."""
