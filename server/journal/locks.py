"""Locks between processes: who serves a data directory, and which of its workers writes just now.

>>> import tempfile
>>> directory = Path(tempfile.mkdtemp())
>>> descriptor = lock_directory(directory)
>>> try:
...     lock_directory(directory)
... except JournalLockedError as error:
...     print(str(error).replace(str(directory), "DIR"))
another process serves DIR; stop it or choose another directory
>>> os.close(descriptor)
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pointsman.server.journal.interface import JournalError, JournalLockedError

TURN_FILE = "turn"
"""The file whose lock is held by the one of several processes that writes just now."""
FORMER_LOCK = "lock"
"""The file that versions before this one locked instead of the directory. A process that has it locked is seen."""


def lock_directory(directory: Path) -> int:
    """Make ``directory`` if need be and lock it itself, so that nobody can take the lock away by deleting a file.

    Returns the descriptor that holds the lock, also in child processes that are given it. Raises ``JournalLockedError`` if
    another process has it, ``JournalError`` if the directory cannot be used.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(f"it cannot be written: {directory}")
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise JournalError(f"cannot use the data directory {directory}: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _check_former_lock(directory)
    except OSError as error:
        os.close(descriptor)
        raise JournalLockedError(f"another process serves {directory}; stop it or choose another directory") from error
    return descriptor


def _check_former_lock(directory: Path) -> None:
    """Raise ``BlockingIOError`` if a process of a former version serves ``directory``."""
    try:
        descriptor = os.open(directory / FORMER_LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


class Turn:
    """The turn to write among processes that share a directory: they queue for it, in the order in which they came.

    It only spares them SQLite's own waiting, which sleeps and looks again; that they exclude each other does not rest on it. So
    the file that is locked may be deleted at any time: whoever comes next makes it anew.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / TURN_FILE
        self._descriptor = self._open()
        self._state = threading.Condition()
        self._waiting = False  # somebody wants the turn
        self._queued = False  # a thread is blocked in the queue
        self._held = False

    @contextmanager
    def taken(self, patience: float) -> Iterator[None]:
        """Have the turn. Raises ``JournalError`` if it does not come within ``patience`` seconds.

        One thread at a time may ask.
        """
        if not self._take(patience):
            raise JournalError(
                f"another worker has had the turn to write for more than {patience:g} s; nothing was written"
            )
        try:
            yield
        finally:
            with self._state:
                self._held = False
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Leave the queue for good, unless a thread is stuck in it: then the end of the process does that."""
        with self._state:
            if not self._queued:
                os.close(self._descriptor)

    def _take(self, patience: float) -> bool:
        with self._state:
            if not self._queued:
                self._renew()
                try:
                    fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._held = True
                    return True
                except BlockingIOError:
                    self._queued = True
                    threading.Thread(target=self._queue, name="turn", daemon=True).start()
            self._waiting = True
            try:
                return self._state.wait_for(lambda: self._held, patience)
            finally:
                self._waiting = False

    def _queue(self) -> None:
        """Wait in the queue, however long it takes, and hand the turn over, or on if nobody waits for it any more."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        with self._state:
            self._queued, self._held = False, self._waiting
            if not self._waiting:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self._state.notify()

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JournalError(f"cannot use the data directory {self._path.parent}: {error}") from error

    def _renew(self) -> None:
        """Open the file anew if it is not the one that others would lock."""
        try:
            if os.path.samestat(os.stat(self._path), os.fstat(self._descriptor)):
                return
        except FileNotFoundError:
            pass
        os.close(self._descriptor)
        self._descriptor = self._open()
