"""Snapshots: a state as bytes at one journal position, to start a fold from. A cache only: the journal is the truth.

A compacted journal starts from one of these bytes, its base: what they say must stay readable for later versions too.

Layout: magic, SHA-256 of the rest, length of the header, a JSON header (configuration as base64 of the contract's
messages, names and shapes of the arrays), then the arrays' raw little-endian numbers. So a state comes back bit for bit.

>>> from pointsman.bandit.state import fingerprint
>>> state = State(position=7, time_ns=5)
>>> data = whole(capture(state))
>>> position_and_time(data), fingerprint(load(data)) == fingerprint(state)
(Base(position=7, time_ns=5), True)
>>> load(data[:-1])
Traceback (most recent call last):
pointsman.server.state.snapshot.SnapshotError: its checksum is wrong
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from pointsman.bandit import pacer
from pointsman.bandit.bucket import BucketState, arrays, new_bucket, restore_arrays
from pointsman.bandit.catalog import FLOORS, Mode, Objective, QualityRange
from pointsman.bandit.event import DecisionMade, Event, OutcomeApplied
from pointsman.bandit.health import Health
from pointsman.bandit.hierarchical_prior import SPREADS, HierarchicalPrior
from pointsman.bandit.posterior import RESPONSES, to_arrays
from pointsman.bandit.state import ModelState, ProjectState, State, rebuild_pool, refresh_derived
from pointsman.bandit.terms import BucketTerms
from pointsman.server.codec.catalog import (
    read_bucket,
    read_model,
    read_project,
    write_bucket,
    write_model,
    write_project,
)
from pointsman.server.journal.interface import Base
from pointsman.v1 import catalog_pb2

MAGIC = b"POINTSMAN-SNAPSHOT-4\n"
MAGIC_3 = b"POINTSMAN-SNAPSHOT-3\n"
"""A form without sums of amounts, and with other contributions to the pool: bases of compacted journals may still have it."""
MAGIC_2 = b"POINTSMAN-SNAPSHOT-2\n"
"""The form of version 0.1.0, which has no terms either."""
SLICE = 500_000
"""Bytes that are copied at a time, in under a millisecond."""


class SnapshotError(Exception):
    """A snapshot is damaged or of a version that this one does not read."""


class Capture:
    """A copy of all that a state holds, made a slice at a time while the fold goes on: no caller waits for all of it.

    What is not copied yet is copied just before an event changes it (``before``), so the copy is of one position, that at which
    it was begun. The parts of all buckets together are the state but for a few numbers.
    """

    def __init__(self, state: State) -> None:
        self.position = state.position
        self._buckets = dict(state.buckets)
        self._terms = state.terms
        self._left = dict.fromkeys(state.buckets)
        self._taken: dict[str, tuple[str, list[bytes]]] = {}
        self._project_blobs: list[bytes] = []
        projects = []
        for project in state.projects.values():
            named = {} if project.pacer is None else pacer.to_arrays(project.pacer)
            self._project_blobs += [array.tobytes() for array in named.values()]
            projects.append(
                {
                    "config": _encode(write_project(project.project)),
                    "version": project.version,
                    "arrays": _shapes(named),
                }
            )
        self._rest = json.dumps(
            {
                "position": state.position,
                "time_ns": state.time_ns,
                "models": [
                    {
                        "config": _encode(write_model(m.model)),
                        "available": m.available,
                        "version": m.version,
                    }
                    for m in state.models.values()
                ],
                "health": {name: asdict(health) for name, health in state.health.items()},
                "pool": _write_pool(state.hierarchical_prior),
                "projects": projects,
                "terms": {
                    name: _write_terms(terms) for name, terms in state.terms.items() if name not in state.buckets
                },
            }
        )

    def before(self, event: Event) -> None:
        """Copy what ``event``, about to be applied, may change. Most events change one bucket; edits of the catalogue any."""
        if isinstance(event, DecisionMade | OutcomeApplied):
            if event.bucket in self._left:
                self._take(event.bucket)
        else:
            while self.step():
                pass

    def step(self) -> bool:
        """Copy about ``SLICE`` bytes more; whether something is left."""
        size = 0
        while self._left and size < SLICE:
            size += self._take(next(iter(self._left)))
        return bool(self._left)

    def parts(self) -> list[bytes]:
        """The parts of the snapshot's body, when nothing is left. They need no state any more."""
        assert not self._left
        taken = [self._taken[name] for name in self._buckets]
        header = f'{self._rest[:-1]}, "buckets": [{", ".join(entry for entry, _ in taken)}]}}'.encode()
        blobs = [blob for _, blobs in taken for blob in blobs]
        return [len(header).to_bytes(8, "little"), header, *blobs, *self._project_blobs]

    def _take(self, name: str) -> int:
        """Copy one bucket; how many bytes that were."""
        del self._left[name]
        bucket = self._buckets[name]
        named = arrays(bucket)
        entry = {
            "config": _encode(write_bucket(bucket.config)),
            "version": bucket.version,
            "generation": bucket.generation,
            "encoder": bucket.encoder.version,
            "columns": bucket.columns,
            "terms": _write_terms(self._terms[name]),
            "arrays": _shapes(named),
        }
        blobs = [array.tobytes() for array in named.values()]
        self._taken[name] = json.dumps(entry), blobs
        return sum(map(len, blobs))


def capture(state: State) -> list[bytes]:
    """The parts of a snapshot's body, all at once."""
    copy = Capture(state)
    while copy.step():
        pass
    return copy.parts()


def load(data: bytes, complete: bool = False) -> State:
    """The state that was captured; ``complete``: only if its form has all that this version knows.

    Raises ``SnapshotError`` if ``data`` is not what was saved.
    """
    if complete and data.startswith((MAGIC_2, MAGIC_3)):
        raise SnapshotError("it is of a version before 0.2, which kept less")
    try:
        return _load(data)
    except SnapshotError:
        raise
    except Exception as error:  # a header that is wrong can make anything fail: parsing, names, shapes, numbers
        raise SnapshotError(f"it cannot be read: {error!r}") from error


def _load(data: bytes) -> State:
    header, body, at = _header(data)
    has_terms = not data.startswith(MAGIC_2)
    state = State(position=header["position"], time_ns=header["time_ns"])
    for entry in header["models"]:
        model = read_model(catalog_pb2.Model.FromString(base64.b64decode(entry["config"])))
        state.models[model.id] = ModelState(model, entry["available"], entry["version"])
    for name, entry in header["health"].items():
        state.health[name] = Health(**entry)
    for entry in header["buckets"]:
        bucket, at = _load_bucket(entry, body, at)
        refresh_derived(state, bucket)
        state.buckets[bucket.config.id] = bucket
        state.terms[bucket.config.id] = _read_terms(entry["terms"]) if has_terms else [_present_terms(bucket)]
    for entry in header["projects"]:
        project = read_project(catalog_pb2.Project.FromString(base64.b64decode(entry["config"])))
        named, at = _load_arrays(entry["arrays"], body, at)
        pacer_state = pacer.from_arrays(named) if named else None
        state.projects[project.id] = ProjectState(project, entry["version"], pacer_state)
    state.terms.update({name: _read_terms(terms) for name, terms in (header["terms"] if has_terms else {}).items()})
    if data.startswith(MAGIC):
        state.hierarchical_prior = _read_pool(header["pool"])
    else:
        rebuild_pool(state)
    return state


def position_and_time(data: bytes) -> Base:
    """Where in its journal a snapshot was taken. Raises ``SnapshotError`` if ``data`` is not whole."""
    header = _header(data)[0]
    return Base(header["position"], header["time_ns"])


def _header(data: bytes) -> tuple[dict[str, Any], memoryview, int]:
    """The header of a whole snapshot, its body, and where in that the arrays start."""
    start = len(MAGIC) + 32
    body = memoryview(data)[start:]
    if data[: len(MAGIC)] not in (MAGIC, MAGIC_3, MAGIC_2):
        raise SnapshotError("it is not a snapshot of this version")
    if hashlib.sha256(body).digest() != data[len(MAGIC) : start]:
        raise SnapshotError("its checksum is wrong")
    length = int.from_bytes(body[:8], "little")
    return json.loads(bytes(body[8 : 8 + length])), body, 8 + length


def _load_bucket(entry: dict[str, Any], body: memoryview, at: int) -> tuple[BucketState, int]:
    config = read_bucket(catalog_pb2.Bucket.FromString(base64.b64decode(entry["config"])))
    bucket = new_bucket(config, entry["version"], entry["generation"], entry.get("encoder", 1))
    bucket.columns = tuple(entry["columns"])
    loaded, at = _load_arrays(entry["arrays"], body, at)
    restore_arrays(bucket, loaded)
    if not all(np.isfinite(array).all() for array in to_arrays(bucket.posteriors).values()):
        raise SnapshotError(f"buckets/{config.id} holds numbers that are not finite")
    return bucket, at


def _write_pool(pool: HierarchicalPrior) -> dict[str, Any]:
    return {
        "models": pool.models,
        "precision": pool.precision_rgmm.tolist(),
        "eta": pool.eta_rgm.tolist(),
        "evidence": pool.evidence_rg.tolist(),
        "following": pool.following_2r.tolist(),
    }


def _read_pool(entry: Mapping[str, Any]) -> HierarchicalPrior:
    models = [str(model) for model in entry["models"]]
    m, g = len(models), len(SPREADS)
    return HierarchicalPrior(
        models,
        np.array(entry["precision"], dtype=np.float64).reshape(RESPONSES, g, m, m),
        np.array(entry["eta"], dtype=np.float64).reshape(RESPONSES, g, m),
        np.array(entry["evidence"], dtype=np.float64).reshape(RESPONSES, g),
        np.array(entry["following"], dtype=np.float64).reshape(2, RESPONSES),
    )


def _write_terms(terms: Sequence[BucketTerms]) -> list[list[Any]]:
    return [
        [t.since, t.models, t.objective.mode.value, *_weights(t.objective), t.quality.min, t.quality.max] for t in terms
    ]


def _weights(objective: Objective) -> tuple[float | None, ...]:
    return tuple(getattr(objective, name) for name in ("cost_weight", "latency_weight", *FLOORS))


def _read_terms(entries: Sequence[Sequence[Any]]) -> list[BucketTerms]:
    return [
        BucketTerms(since, tuple(models), Objective(Mode(mode), *weights), QualityRange(low, high))
        for since, models, mode, *weights, low, high in entries
    ]


def _present_terms(bucket: BucketState) -> BucketTerms:
    """What a snapshot without terms says: what decisions need that were made before it is in their events."""
    return BucketTerms(0, bucket.candidates.names, bucket.objective, bucket.config.quality_range)


def _shapes(named: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, list[Any]]:
    return {name: [array.dtype.str, array.shape] for name, array in named.items()}


def _load_arrays(
    shapes: Mapping[str, Any], body: memoryview, at: int
) -> tuple[dict[str, npt.NDArray[np.generic]], int]:
    """The arrays that start at ``at``, and where they end."""
    loaded = {}
    for name, (dtype, shape) in shapes.items():
        count = int(np.prod(shape))
        loaded[name] = np.frombuffer(body, dtype=dtype, count=count, offset=at).reshape(shape).copy()
        at += loaded[name].nbytes
    return loaded, at


def _encode(message: catalog_pb2.Model | catalog_pb2.Bucket | catalog_pb2.Project) -> str:
    return base64.b64encode(message.SerializeToString(deterministic=True)).decode()


def whole(captured: Sequence[bytes]) -> bytes:
    """The bytes of the snapshot whose body is ``captured``, as ``load`` takes them."""
    return b"".join(whole_parts(captured, digest(captured)))


def whole_parts(captured: Sequence[bytes], digest_: bytes) -> list[bytes]:
    """The parts of a whole snapshot whose body is ``captured`` and has that digest."""
    return [MAGIC, digest_, *captured]


def digest(captured: Sequence[bytes]) -> bytes:
    """The checksum of a snapshot's body."""
    checksum = hashlib.sha256()
    for part in captured:
        checksum.update(part)
    return checksum.digest()
