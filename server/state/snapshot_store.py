"""Where snapshots are kept: a directory with the newest ones, and the one that is to become the journal's base.

>>> import tempfile
>>> store = SnapshotStore(Path(tempfile.mkdtemp()))
>>> [store.save([b"state at ", b"1"], 1).name, store.save([b"state at 2"], 2).name][-1]
'00000000000000000002.snapshot'
>>> [path.name for path in store.newest_first()]
['00000000000000000002.snapshot', '00000000000000000001.snapshot']
>>> store.propose_candidate()
>>> store.candidate() == store.newest_first()[0].read_bytes()
True
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pointsman.server.state.snapshot import digest, whole_parts

KEEP = 2
"""Snapshots kept: the newest, and one before it in case the newest turns out to be damaged."""
CANDIDATE = "candidate"
"""Ending of the candidate's file among the snapshots."""


class SnapshotStore:
    """Snapshots in ``directory``, which is made when the first is saved. All methods block and raise ``OSError``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def save(self, captured: Sequence[bytes], position: int) -> Path:
        """Write a snapshot so that it is whole or absent whatever happens, and drop all but the newest ``KEEP``."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for left in self.directory.glob("*.partial"):  # by a process that was killed, or a disk that was full
            left.unlink(missing_ok=True)
        path = self.directory / f"{position:020d}.snapshot"
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            file.writelines(whole_parts(captured, digest(captured)))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        for old in self.newest_first()[KEEP:]:
            old.unlink(missing_ok=True)
        return path

    def newest_first(self) -> list[Path]:
        """The files of the snapshots."""
        return sorted(self.directory.glob("*.snapshot"), reverse=True)

    def candidate(self) -> bytes | None:
        """The snapshot that is to become the journal's base once it is old enough, if one was proposed."""
        path = self._candidate()
        return path.read_bytes() if path is not None else None

    def propose_candidate(self) -> None:
        """Put the newest snapshot aside as the candidate, unless there is one already or no snapshot."""
        newest = next(iter(self.newest_first()), None)
        if newest is not None and self._candidate() is None:
            os.link(newest, newest.with_suffix(f".{CANDIDATE}"))

    def drop_candidate(self) -> None:
        """Forget the candidate."""
        path = self._candidate()
        if path is not None:
            path.unlink()

    def _candidate(self) -> Path | None:
        return next(iter(sorted(self.directory.glob(f"*.{CANDIDATE}"))), None)
