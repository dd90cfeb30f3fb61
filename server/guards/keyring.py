"""The API keys of a file in memory, read again when the file changes."""

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
"""Longest key looked at, in characters."""
RELOAD_NS = 1_000_000_000
"""How often, at most, the file is looked at for changes."""
_NOBODY = hashlib.sha256(b"no key has this").digest()


class Keyring:
    """The keys of a file, read again when it changes; ``clock_ns`` says when to look. Raises ``KeysError`` at first.

    A changed file that cannot be read is warned of, and the keys stay as they were.
    """

    def __init__(self, path: Path, clock_ns: Callable[[], int]) -> None:
        self._path, self._clock_ns = path, clock_ns
        self._looked_ns = clock_ns()
        self._stamp = _stamp(path)
        self._keys = {key.id: key for key in read_keys(path)}
        if self._stamp is not None and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            log.warning("%s can be read by others than its owner", path)

    def find(self, token: str) -> Key | None:
        """The entry of a key, or ``None``. Takes as long for a wrong secret as for an unknown id."""
        self._reload()
        if len(token) > LONGEST:
            return None
        key = self._keys.get(token.removeprefix(PREFIX).partition("_")[0])
        expected = _NOBODY if key is None else bytes.fromhex(key.hash)
        same = hmac.compare_digest(hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest(), expected)
        return key if same else None

    def holds(self, key: Key, scope: str) -> bool:
        """Whether a key that was found before is still there, and for ``scope`` ("": for anything)."""
        self._reload()
        now = self._keys.get(key.id)
        return now is not None and now.hash == key.hash and (not scope or scope in now.scopes)

    def _reload(self) -> None:
        now_ns = self._clock_ns()
        if 0 <= now_ns - self._looked_ns < RELOAD_NS:
            return
        self._looked_ns = now_ns
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = {key.id: key for key in read_keys(self._path)}
            log.info("read %d API keys anew", len(self._keys))
        except KeysError as error:
            log.warning("the API keys stay as they were: %s", error)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file does."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
