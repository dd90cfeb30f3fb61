"""The plan that turns a catalogue into the one in a file: changes in a valid order, and as a diff.

>>> from pointsman.bandit.catalog import Model
>>> from pointsman.server.catalog.file import read_catalog
>>> file = read_catalog("models: {small: {}, large: {}}", "catalog.yaml")
>>> on_server = {"models/small": Resource("models/small", Model("small"))}
>>> changes = plan(file, on_server, prune=False)
>>> [(change.action, change.name) for change in changes]
[('create', 'models/large')]
>>> summary(changes, unchanged=1)
'1 created, 1 unchanged'
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pointsman.bandit.catalog import Bucket
from pointsman.server.catalog.file import CatalogFile, to_yaml
from pointsman.server.catalog.lines import CatalogFileError
from pointsman.server.catalog.resource import COLLECTIONS, Resource, fields_without_defaults

Action = Literal["create", "update", "delete"]
ACTIONS: tuple[Action, ...] = ("create", "update", "delete")


@dataclass(frozen=True, slots=True)
class CatalogChange:
    """One resource that is to be created (``before`` is ``None``), deleted (``after`` is ``None``) or updated."""

    name: str
    before: Resource | None
    after: Resource | None

    @property
    def action(self) -> Action:
        """`create`, `update` or `delete`."""
        return "create" if self.before is None else "delete" if self.after is None else "update"


def plan(file: CatalogFile, on_server: Mapping[str, Resource], prune: bool) -> list[CatalogChange]:
    """The changes that make ``on_server``, resources by name, what ``file`` says, in an order that works.

    Values are compared, so a default that is spelled out or left out is the same. Without ``prune`` what the file does not name
    stays. Projects, models, then buckets are put; buckets, models, then projects deleted. Raises ``CatalogFileError`` if a
    bucket names a model or a project that will not be there.
    """
    remaining = set(file.resources) if prune else set(file.resources) | set(on_server)
    nowhere = f"is neither in the file nor {'to stay' if prune else 'on the server'}"
    problems = [
        file.lines[resource.name].at(field, f"{name} {nowhere}")
        for resource in file.resources.values()
        for field, name in _references(resource)
        if name not in remaining
    ]
    if problems:
        raise CatalogFileError(problems)
    wanted = [(name, _with_availability(resource, on_server.get(name))) for name, resource in _ordered(file.resources)]
    puts = [CatalogChange(name, on_server.get(name), new) for name, new in wanted if on_server.get(name) != new]
    superfluous = {name: resource for name, resource in on_server.items() if prune and name not in file.resources}
    return puts + [CatalogChange(name, resource, None) for name, resource in reversed(_ordered(superfluous))]


def diff(change: CatalogChange) -> Iterator[str]:
    """The lines of a unified diff of a change, the fields as YAML without defaults."""
    sides = (change.before, change.after)
    before, after = (to_yaml(fields_without_defaults(side)).splitlines() if side else [] for side in sides)
    names = [change.name if side else "(none)" for side in sides]
    return difflib.unified_diff(before, after, names[0], names[1], lineterm="")


def forgets(change: CatalogChange) -> bool:
    """Whether a changed bucket forgets what it has learned, because its contexts or its qualities now mean something else."""
    before, after = (side.value if side else None for side in (change.before, change.after))
    return isinstance(before, Bucket) and isinstance(after, Bucket) and not after.same_posteriors(before)


def summary(changes: list[CatalogChange], unchanged: int) -> str:
    """How much changes: `2 created, 1 updated, 5 unchanged`."""
    counts = [(sum(change.action == action for change in changes), action) for action in ACTIONS]
    return ", ".join([f"{count} {action}d" for count, action in counts if count] + [f"{unchanged} unchanged"])


def _with_availability(resource: Resource, on_server: Resource | None) -> Resource:
    """``resource`` with a model's availability as it is on the server if the file leaves it open.

    So what an operator has switched off is not switched on by a file that does not mention it.
    """
    if resource.collection != "models" or resource.available is not None:
        return resource
    return replace(resource, available=on_server is None or on_server.available)


def _references(resource: Resource) -> Iterator[tuple[str, str]]:
    """The fields of a resource that name other resources, each with that name."""
    if isinstance(resource.value, Bucket):
        for i, model in enumerate(resource.value.models):
            yield f"models[{i}]", f"models/{model}"
        if resource.value.project:
            yield "project", f"projects/{resource.value.project}"


def _ordered(resources: Mapping[str, Resource]) -> list[tuple[str, Resource]]:
    return sorted(resources.items(), key=lambda entry: (COLLECTIONS.index(entry[1].collection), entry[0]))
