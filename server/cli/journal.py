"""`pointsman export`, `import`, `compact` and `verify`: commands on the journal of a data directory.

>>> from click.testing import CliRunner
>>> CliRunner().invoke(export, ["--data", "none", "--to", "decisions.xls"]).output.splitlines()[-1]
'Error: --to: expected a file that ends in .jsonl, .parquet or .csv, got decisions.xls'
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import chain
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from pointsman.bandit.state import State, fingerprint
from pointsman.server.journal.interface import JournalError
from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.journal.sqlite_store import check, read_rows, rows_before_base
from pointsman.server.process import config as configuration
from pointsman.server.state.recovery import recover, refold
from pointsman.server.state.retention import DAY_NS
from pointsman.server.state.rows import decode_all
from pointsman.server.state.snapshot_store import SnapshotStore
from pointsman.server.tools.compact import compact
from pointsman.server.tools.export import write_decisions, write_journal
from pointsman.server.tools.exported_records import ImportFileError
from pointsman.server.tools.import_journal import import_journal

_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=configuration.Config.model_fields["data"].default,
    show_default=True,
    envvar="POINTSMAN_DATA",
    help="The server's data directory.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.command()
@_DATA
@click.option(
    "--to",
    "path",
    type=click.Path(path_type=Path),
    required=True,
    help="FILE.jsonl, FILE.parquet or FILE.csv",
)
@click.option(
    "--what",
    type=click.Choice(["journal", "decisions"]),
    help="Every event losslessly (JSON lines only), or one row a decision. Default: journal for .jsonl, else decisions.",
)
@_JSON
def export(data: Path, path: Path, what: str | None, as_json: bool) -> None:
    """Write the journal to a file; the server may be running."""
    if path.suffix not in (".jsonl", ".parquet", ".csv"):
        raise click.UsageError(f"--to: expected a file that ends in .jsonl, .parquet or .csv, got {path}")
    what = what or ("journal" if path.suffix == ".jsonl" else "decisions")
    if what == "journal" and path.suffix != ".jsonl":
        raise click.UsageError("--what journal: expected --to FILE.jsonl")
    try:
        write = write_journal if what == "journal" else write_decisions
        rows = read_rows(data)
        first = next(rows, None)
        state = State()
        for _ in decode_all((row for row in rows_before_base(data) if first and row.position < first.position), state):
            pass  # the catalogue at the beginning is all that is wanted
        count = write(rows if first is None else chain((first,), rows), path, state)
    except (JournalError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        result = {"what": what, "file": str(path), "rows": count, "from_position": first.position if first else 1}
        click.echo(json.dumps(result))
    else:
        click.echo(f"wrote {count} {'records' if what == 'journal' else 'decisions'} to {path}")
        if first and first.position > 1:
            click.echo(f"the journal is compacted: the export starts at position {first.position}", err=True)


@click.command(name="import")
@_DATA
@click.option(
    "--from",
    "path",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="FILE.jsonl that `pointsman export` wrote.",
)
@_JSON
def import_(data: Path, path: Path, as_json: bool) -> None:
    """Make a data directory out of an exported journal: the inverse of export.

    The directory must be new or empty. Positions, times and events are restored exactly, so that the state is the same bit for
    bit; nothing is left behind if the file is wrong or the import is interrupted.

    Example: pointsman import --from journal.jsonl --data restored
    """
    console = Console(stderr=True)
    columns = (TextColumn("importing"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("", total=path.stat().st_size)
            imported = import_journal(path, data, lambda done: bar.update(task, completed=done))
    except (ImportFileError, JournalError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps({"data": str(data), "records": imported.records, "state": imported.state}))
    else:
        click.echo(f"imported {imported.records} records into {data}; state {imported.state}")


@click.command(name="compact")
@_DATA
@click.option(
    "--older-than", "days", metavar="DAYS", type=click.FloatRange(min=0), required=True, help="Age of what goes."
)
@_JSON
def compact_(data: Path, days: float, as_json: bool) -> None:
    """Replace old decisions and outcomes by the state they led to. The server must not be running.

    What was learned stays; what is replaced can no longer be exported, looked up or repeated.

    Example: pointsman compact --data DIR --older-than 30
    """
    try:
        next(read_rows(data), None)  # opening would make a journal where there is none
        now_ns = time.time_ns()
        compacted = asyncio.run(compact(data, now_ns - int(days * DAY_NS), now_ns))
    except JournalError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps({"position": compacted.position, "bytes": compacted.size}))
    else:
        click.echo(f"the journal starts after position {compacted.position}; its file has {compacted.size:,} bytes")


@click.command()
@_DATA
@_JSON
def verify(data: Path, as_json: bool) -> None:
    """Fold the whole journal anew and compare with what a restart would serve. The server must not be running.

    A compacted journal is folded from the state that it starts from. Exits 1 if they differ in a single bit, or if a page of
    the journal is damaged.
    """
    try:
        next(read_rows(data), None)  # opening would make a journal where there is none
        recovered, refolded = asyncio.run(_recover_and_refold(data))
    except JournalError as error:
        raise click.ClickException(str(error)) from error
    equal = fingerprint(recovered) == fingerprint(refolded)
    if as_json:
        click.echo(json.dumps({"equal": equal, "position": refolded.position, "state": fingerprint(refolded)}))
    else:
        click.echo(f"{'equal' if equal else 'DIFFERENT'} at position {refolded.position}: {fingerprint(refolded)}")
    if not equal:
        sys.exit(1)


async def _recover_and_refold(data: Path) -> tuple[State, State]:
    """What a restart would serve, and the fold of the whole journal, whose every page is looked at."""
    journal = SqliteJournal(data)
    try:
        recovered = await recover(journal, SnapshotStore(data / "snapshots"))
        await asyncio.to_thread(check, data)
        return recovered, await refold(journal)
    finally:
        await journal.close()
