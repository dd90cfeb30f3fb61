"""Which workers are taken to hang: those that are silent while their supervisor listens, and no others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pointsman.server.process import supervisor
from pointsman.server.process.supervisor import BEAT, BEAT_PATIENCE, READY
from tests.server.test_journal import scenario


class FakeProcess:
    """A process that can be killed."""

    pid, returncode = 7, None

    def __init__(self) -> None:
        self.killed = False

    def kill(self) -> None:
        self.killed = True


async def listens(process: Any, beats: asyncio.StreamReader) -> None:
    await supervisor._kill_when_silent(process, beats, 0)


@scenario
async def test_workers_are_not_killed_when_the_machine_was_stopped() -> None:
    process, beats = FakeProcess(), asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    clock, stopped = loop.time, 0.0
    loop.time = lambda: clock() + stopped  # type: ignore[method-assign]
    listening = asyncio.create_task(listens(process, beats))
    for _ in range(3):
        beats.feed_data(BEAT)
        for _ in range(5):
            await asyncio.sleep(0)
        stopped += 1.5 * BEAT_PATIENCE
        for _ in range(5):  # it goes on, before any worker had the time to beat again
            await asyncio.sleep(0)
        assert not listening.done()
    beats.feed_eof()
    await listening
    assert not process.killed


@scenario
async def test_a_worker_that_falls_silent_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "BEAT_EVERY", 0.001)
    monkeypatch.setattr(supervisor, "BEAT_PATIENCE", 0.02)
    process, beats = FakeProcess(), asyncio.StreamReader()
    beats.feed_data(BEAT)
    await listens(process, beats)
    assert process.killed


@pytest.mark.parametrize("pieces", [[READY], [BEAT, READY + BEAT], [BEAT * 2000 + READY[:2], READY[2:]]])
@scenario
async def test_a_worker_that_starts_beats_until_it_is_ready(pieces: list[bytes]) -> None:
    process, beats = FakeProcess(), asyncio.StreamReader()
    starting = asyncio.create_task(supervisor._is_ready(process, beats, 0))  # type: ignore[arg-type]
    for piece in pieces:
        await asyncio.sleep(0)
        assert not starting.done()
        beats.feed_data(piece)
    assert await starting
    assert not process.killed


@pytest.mark.parametrize("ends", [False, True])
@scenario
async def test_a_worker_that_never_comes_to_serve(monkeypatch: pytest.MonkeyPatch, ends: bool) -> None:
    """One that is stopped while it starts would keep the service from ending."""
    monkeypatch.setattr(supervisor, "BEAT_EVERY", 0.001)
    monkeypatch.setattr(supervisor, "START_PATIENCE", 0.02)
    process, beats = FakeProcess(), asyncio.StreamReader()
    beats.feed_data(BEAT)
    if ends:
        beats.feed_eof()
    assert not await supervisor._is_ready(process, beats, 0)  # type: ignore[arg-type]
    assert process.killed is not ends
