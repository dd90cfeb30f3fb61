"""Decoders raise documented errors only. `benchmarks/soak/decoders.py` fuzzes them at length."""

from __future__ import annotations

import hashlib
import json

import pytest

from pointsman.bandit.state import State, fingerprint
from pointsman.server.state import snapshot


def sealed(body: bytes) -> bytes:
    """``body`` as a snapshot whose checksum is right."""
    return snapshot.MAGIC + hashlib.sha256(body).digest() + body


def test_a_snapshot_that_makes_no_sense_is_a_snapshot_error_though_its_checksum_is_right() -> None:
    body = b"".join(snapshot.capture(State(position=3, time_ns=4)))
    assert fingerprint(snapshot.load(sealed(body))) == fingerprint(State(position=3, time_ns=4))
    header = json.loads(body[8:])
    put = {
        "models": [{"config": "=", "available": True, "version": 1}],  # no base64
        "health": {"a": {"no": 1}},
        "pool": [[1]],
        "projects": [{"config": "CgpwIQ==", "version": 1, "arrays": {}}],  # cut off
        "buckets": [{"config": ""}],
    }
    broken = [{name: value for name, value in header.items() if name != gone} for gone in header]
    broken += [{**header, name: value} for name, value in put.items()]
    for document in broken:
        text = json.dumps(document).encode()
        with pytest.raises(snapshot.SnapshotError):
            snapshot.load(sealed(len(text).to_bytes(8, "little") + text))
    for cut in (b"", body[:5], body[:50], body[:8] + b"\xff" + body[9:]):
        with pytest.raises(snapshot.SnapshotError):
            snapshot.load(sealed(cut))
