"""The API keys of a file in memory, read again when the file changes.

>>> import tempfile
>>> from pointsman.server.guards.api_keys import new_key, write_keys
>>> with tempfile.TemporaryDirectory() as directory:
...     path = Path(directory) / "keys.yaml"
...     entry, token = new_key("web", ("decide",))
...     write_keys(path, [entry])
...     Keyring(path, lambda: 0).find(token) == entry
True
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import stat
from collections.abc import Callable
from pathlib import Path

from pointsman.server.guards.api_keys import PREFIX, Key, KeysError, read_keys

log = logging.getLogger("pointsman.keys")

LONGEST = 128
"""Longest key that is looked up, in characters."""
RELOAD_NS = 1_000_000_000
"""Nanoseconds between two checks whether the file has changed."""
_NO_HASH = hashlib.sha256(b"no key has this hash").digest()


class Keyring:
    """The keys of a file, read again when it changes; ``clock_ns`` gives the time by which it is checked.

    Raises ``KeysError`` if the file cannot be used when this is made. Later that is only a warning, and the keys stay.
    """

    def __init__(self, path: Path, clock_ns: Callable[[], int]) -> None:
        self._path, self._clock_ns = path, clock_ns
        self._checked_ns = clock_ns()
        self._stamp = _stamp(path)
        self._keys = {key.id: key for key in read_keys(path)}
        if self._stamp is not None and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            log.warning("%s can be read by users other than its owner", path)

    def find(self, token: str) -> Key | None:
        """The entry of a key, or ``None``. Takes as long for a wrong secret as for an unknown id."""
        self._reload()
        if len(token) > LONGEST:
            return None
        key = self._keys.get(token.removeprefix(PREFIX).partition("_")[0])
        expected = _NO_HASH if key is None else bytes.fromhex(key.hash)
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        return key if hmac.compare_digest(digest, expected) else None

    def holds(self, key: Key, scope: str) -> bool:
        """Whether a key that was found before is unchanged and has ``scope``; any will do for ""."""
        self._reload()
        current = self._keys.get(key.id)
        return current is not None and current.hash == key.hash and (not scope or scope in current.scopes)

    def _reload(self) -> None:
        now_ns = self._clock_ns()
        if 0 <= now_ns - self._checked_ns < RELOAD_NS:
            return
        self._checked_ns = now_ns
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = {key.id: key for key in read_keys(self._path)}
            log.info("reloaded %d API keys", len(self._keys))
        except KeysError as error:
            log.warning("keeping the former API keys: %s", error)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file does: its time, inode and size; ``None`` if it cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
