"""What has to change so that a catalogue becomes what a file says, in an order that works, and as a diff."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pointsman.bandit.catalog import Bucket
from pointsman.server.catalog.file import COLLECTIONS, CatalogFile, CatalogFileError, Item, fields, to_yaml

Action = Literal["create", "update", "delete"]
ACTIONS: tuple[Action, ...] = ("create", "update", "delete")


@dataclass(frozen=True, slots=True)
class Change:
    """One resource that is to be created (``before`` is ``None``), deleted (``after`` is ``None``) or changed."""

    name: str
    before: Item | None
    after: Item | None

    @property
    def action(self) -> Action:
        """What is to be done."""
        return "create" if self.before is None else "delete" if self.after is None else "update"


def plan(file: CatalogFile, held: Mapping[str, Item], prune: bool) -> list[Change]:
    """The changes that make ``held`` what ``file`` says: values are compared, so a default said or left out is the same.

    Without ``prune`` what the file does not name stays. Projects, models, then buckets are put; buckets, models, then projects
    deleted. Raises ``CatalogFileError`` if a bucket names a model or a project that will not be there.
    """
    there = set(file.items) if prune else set(file.items) | set(held)
    problems = [
        file.lines[item.name].say(field, f"{name} is neither in the file nor {'to stay' if prune else 'on the server'}")
        for item in file.items.values()
        for field, name in _names(item)
        if name not in there
    ]
    if problems:
        raise CatalogFileError(problems)
    wanted = [(name, _switched(item, held.get(name))) for name, item in _ordered(file.items)]
    puts = [Change(name, held.get(name), item) for name, item in wanted if held.get(name) != item]
    gone = {name: item for name, item in held.items() if prune and name not in file.items}
    return puts + [Change(name, item, None) for name, item in reversed(_ordered(gone))]


def diff(change: Change) -> Iterator[str]:
    """The lines of a unified diff of a change, the fields as YAML without what is the default."""
    before, after = (to_yaml(fields(item)).splitlines() if item else [] for item in (change.before, change.after))
    names = [change.name if item else "(none)" for item in (change.before, change.after)]
    return difflib.unified_diff(before, after, names[0], names[1], lineterm="")


def loses(change: Change) -> bool:
    """Whether a changed bucket forgets what it has learned, because it now means something else."""
    before, after = (item.value if item else None for item in (change.before, change.after))
    return isinstance(before, Bucket) and isinstance(after, Bucket) and not after.same_posteriors(before)


def count(changes: list[Change], unchanged: int) -> str:
    """A summary: `2 created, 1 updated, 5 unchanged`."""
    made = [(sum(change.action == action for change in changes), action) for action in ACTIONS]
    return ", ".join([f"{n} {action}d" for n, action in made if n] + [f"{unchanged} unchanged"])


def _switched(item: Item, held: Item | None) -> Item:
    """The item with a model's switch as it is, if the file does not say: an operator's hand is not undone by an old file."""
    if item.collection != "models" or item.available is not None:
        return item
    return replace(item, available=held is None or held.available)


def _names(item: Item) -> Iterator[tuple[str, str]]:
    """The fields of an item that name other resources, and those."""
    if isinstance(item.value, Bucket):
        for i, model in enumerate(item.value.models):
            yield f"models[{i}]", f"models/{model}"
        if item.value.project:
            yield "project", f"projects/{item.value.project}"


def _ordered(items: Mapping[str, Item]) -> list[tuple[str, Item]]:
    return sorted(items.items(), key=lambda pair: (COLLECTIONS.index(pair[1].collection), pair[0]))
