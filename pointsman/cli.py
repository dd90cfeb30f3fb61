"""The `pointsman` command. Sub-commands are found by the entry points of the group ``pointsman.commands``."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, entry_points

import click

GROUP = "pointsman.commands"


class _Found(click.Group):
    """Sub-commands from entry points, loaded only when they are run or listed."""

    def _points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=GROUP)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        # One thread for linear algebra, set before anything loads it: the matrices are small, and a fold must not depend
        # on how the work is split.
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(variable, "1")
        point = self._points().get(cmd_name)
        return None if point is None else point.load()


@click.command(cls=_Found)
@click.version_option(package_name="pointsman")
def main() -> None:
    """Pointsman decides, for every request, which LLM to call."""


if __name__ == "__main__":
    main()
