"""The catalogue: models, buckets and projects as they are, and conditional changes to them.

>>> import asyncio, tempfile
>>> from pathlib import Path
>>> import numpy as np
>>> from pointsman.bandit.catalog import Model
>>> from pointsman.server.journal.sqlite import SqliteJournal
>>> from pointsman.server.state.replica import open_replica
>>> async def example():
...     journal = SqliteJournal(Path(tempfile.mkdtemp()))
...     replica = await open_replica(journal, np.random.default_rng(0), lambda: 5, None)
...     first = await replica.catalogue.put_model(Model("gpt"), expected_version=0)
...     await replica.catalogue.put_model(Model("gpt", context_window=8000), expected_version=first.version)
...     try:
...         await replica.catalogue.put_model(Model("gpt"), expected_version=first.version)  # it has changed since
...     except StaleError as error:
...         print(error)
...     await replica.close()
>>> asyncio.run(example())
models/gpt has changed since that etag; read it again
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pointsman.bandit import event as e
from pointsman.bandit.bucket import BucketState
from pointsman.bandit.catalog import Bucket, Model, Project
from pointsman.bandit.state import ModelState, ProjectState, State
from pointsman.server.errors import AlreadyExistsError, InUseError, NotFoundError, StaleError, UnavailableError
from pointsman.server.journal.commit import GroupCommit
from pointsman.server.journal.interface import Appended, Condition, Group, Journal
from pointsman.server.names import bucket_name, model_name, project_name
from pointsman.server.state.rows import entry_of

ATTEMPTS = 64
"""Optimistic-concurrency retries of one change whose caller did not say what it rests on."""
Resource = ModelState | BucketState | ProjectState


class Catalogue:
    """The resources of ``state``. The version of each, its etag, is the position of its last change.

    Changes take the expected version of the resource: 0 if it must not exist, ``None`` for any. They raise
    ``StaleError`` if it is another, also if that was so only by the time the change was appended.
    """

    def __init__(self, state: State, journal: Journal, commit: GroupCommit) -> None:
        self._state, self._journal, self._commit = state, journal, commit

    def model(self, id_: str, field: str = "name") -> ModelState:
        """A model. Raises ``NotFoundError``."""
        if id_ not in self._state.models:
            raise NotFoundError(field, model_name(id_))
        return self._state.models[id_]

    def bucket(self, id_: str, field: str = "bucket") -> BucketState:
        """A bucket. Raises ``NotFoundError``."""
        if id_ not in self._state.buckets:
            raise NotFoundError(field, bucket_name(id_))
        return self._state.buckets[id_]

    def project(self, id_: str, field: str = "name") -> ProjectState:
        """A project. Raises ``NotFoundError``."""
        if id_ not in self._state.projects:
            raise NotFoundError(field, project_name(id_))
        return self._state.projects[id_]

    async def put_model(self, model: Model, expected_version: int | None) -> ModelState:
        """Create or replace a model."""
        await self._put(
            model_name(model.id),
            lambda: self._state.models.get(model.id),
            lambda current: isinstance(current, ModelState) and current.model == model,
            e.ModelPut(model),
            expected_version,
        )
        return self.model(model.id)

    async def set_availability(self, id_: str, available: bool, reason: str) -> ModelState:
        """Switch a model on or off."""
        self.model(id_)
        await self._put(
            model_name(id_),
            lambda: self.model(id_),
            lambda current: isinstance(current, ModelState) and current.available == available,
            e.AvailabilitySet(id_, available, reason),
            None,
        )
        return self.model(id_)

    async def delete_model(self, id_: str, expected_version: int | None) -> None:
        """Delete a model. Raises ``InUseError`` while buckets list it."""

        def users() -> list[str]:
            return [bucket_name(name) for name, bucket in self._state.buckets.items() if id_ in bucket.config.models]

        await self._delete(model_name(id_), lambda: self.model(id_), users, e.ModelDeleted(id_), expected_version)

    async def put_bucket(self, bucket: Bucket, expected_version: int | None) -> BucketState:
        """Create or replace a bucket."""
        for i, model in enumerate(bucket.models):
            self.model(model, f"bucket.models[{i}]")
        if bucket.project:
            self.project(bucket.project, "bucket.project")
        await self._put(
            bucket_name(bucket.id),
            lambda: self._state.buckets.get(bucket.id),
            lambda current: isinstance(current, BucketState) and current.config == bucket,
            e.BucketPut(bucket),
            expected_version,
        )
        return self.bucket(bucket.id)

    async def delete_bucket(self, id_: str, expected_version: int | None) -> None:
        """Delete a bucket and its posteriors."""
        await self._delete(
            bucket_name(id_), lambda: self.bucket(id_, "name"), list, e.BucketDeleted(id_), expected_version
        )

    async def put_project(self, project: Project, expected_version: int | None) -> ProjectState:
        """Create or replace a project."""
        await self._put(
            project_name(project.id),
            lambda: self._state.projects.get(project.id),
            lambda current: isinstance(current, ProjectState) and current.project == project,
            e.ProjectPut(project),
            expected_version,
        )
        return self.project(project.id)

    async def delete_project(self, id_: str, expected_version: int | None) -> None:
        """Delete a project. Raises ``InUseError`` while buckets name it."""

        def users() -> list[str]:
            return [bucket_name(name) for name, bucket in self._state.buckets.items() if id_ == bucket.config.project]

        await self._delete(project_name(id_), lambda: self.project(id_), users, e.ProjectDeleted(id_), expected_version)

    async def _put(
        self,
        name: str,
        current: Callable[[], Resource | None],
        is_same: Callable[[Resource], bool],
        event: e.Event,
        expected_version: int | None,
    ) -> None:
        """Create or replace the resource ``name``; nothing is written if that would change nothing."""
        for _ in range(ATTEMPTS):
            resource = current()
            if expected_version == 0 and resource is not None:
                raise AlreadyExistsError(f"{name.partition('s/')[0]}.name", name)
            _check_version(name, resource, expected_version)
            if resource is not None and is_same(resource):
                return
            if await self._change(name, resource, current, event, expected_version):
                return
        raise UnavailableError(f"{name} is changed too often; nothing was written, retry")

    async def _delete(
        self,
        name: str,
        current: Callable[[], Resource],
        users: Callable[[], Sequence[str]],
        event: e.Event,
        expected_version: int | None,
    ) -> None:
        for _ in range(ATTEMPTS):
            resource = current()
            _check_version(name, resource, expected_version)
            if dependents := users():
                raise InUseError("name", name, sorted(dependents))
            if await self._change(name, resource, current, event, expected_version):
                return
        raise UnavailableError(f"{name} is changed too often; nothing was written, retry")

    async def _change(
        self,
        name: str,
        resource: Resource | None,
        current: Callable[[], Resource | None],
        event: e.Event,
        expected_version: int | None,
    ) -> bool:
        """Append a change of ``resource``; false if another came first and the caller does not mind. Raises ``StaleError``."""
        key, version = name.encode(), 0
        if resource is not None:
            version = resource.version
        else:  # never there, or deleted; a change that is in the journal but not folded yet is a conflict
            span = await self._journal.span(key)
            if span is not None and span.last <= self._state.position:
                version = span.last
            if current() is not None:  # made meanwhile
                version = 0
        result = await self._commit.write(Group((entry_of(event),), conditions=(Condition(key, version),)), (event,))
        if not isinstance(result, Appended) and expected_version is not None:
            raise StaleError("etag", f"{name} was changed at the same time; read it again")
        return isinstance(result, Appended)


def _check_version(name: str, resource: Resource | None, expected_version: int | None) -> None:
    if expected_version and (resource is None or resource.version != expected_version):
        raise StaleError("etag", f"{name} has changed since that etag; read it again")
