"""Several processes behind one port, on one journal: the supervisor that starts them, and what each of them is told.

The supervisor holds the directory's lock and the port, and serves nothing itself. Each worker is given the lock too, so that the
directory is free only when the last process has gone, and the end of a pipe: when the supervisor has gone, however it went, the
pipe closes and the worker ends. A worker that serves writes a byte every second, from its event loop, to another pipe: one that
does not is killed and started again, for it answers nobody and may hold up all others.

>>> first, second = Worker(index=0, before=0), Worker(index=1, before=0)
>>> first.rng(7).random() != second.rng(7).random()
True
>>> first.rng(7).random() == Worker(index=0, before=0).rng(7).random()
True
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import pointsman
from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.process.config import Config
from pointsman.server.state.recovery import migrate, recover
from pointsman.server.state.snapshot_store import SnapshotStore

log = logging.getLogger("pointsman.workers")

ATTEMPTS = 5
"""How often in a row a worker may fail before it is ready; then the supervisor gives up."""
PAUSE = 0.1
"""Seconds before a worker is started again; doubled each time that it ends soon."""
_LONGEST = 5.0
_STEADY = 10.0
"""Seconds after which a worker that ends did not end soon."""
READY = b"ready\n"
BEAT = b"."
BEAT_EVERY = 1.0
"""Seconds between two heartbeats of a worker."""
BEAT_PATIENCE = 10.0
"""Seconds without a heartbeat after which a worker is taken to hang."""


class WorkersError(Exception):
    """The workers cannot be started; the message says why."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One of several: its ``index`` from 0, and how many processes had that index ``before`` it."""

    index: int
    before: int

    def rng(self, seed: int | None) -> np.random.Generator:
        """A stream of draws that no other worker has."""
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(self.index, self.before)))


class Supervisor:
    """Runs ``config.workers`` workers until told to stop. Use it once, in an event loop."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stopping = asyncio.Event()
        self._running: dict[int, asyncio.subprocess.Process] = {}

    async def run(self, ready: Callable[[str], None]) -> None:
        """Returns when all workers have stopped. Raises ``JournalError`` or ``WorkersError``."""
        journal = SqliteJournal(self._config.data)  # has the lock, and makes the tables
        try:
            if await journal.is_old():
                snapshots = SnapshotStore(self._config.data / "snapshots")
                await migrate(journal, await recover(journal, snapshots))
            await self._run(journal.fileno(), ready)
        finally:
            await journal.close()

    async def _run(self, lock: int, ready: Callable[[str], None]) -> None:
        held, address = reserve(self._config.listen)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        started = [loop.create_future() for _ in range(self._config.workers)]
        tasks = [
            loop.create_task(self._keep(index, address, lock, started[index])) for index in range(self._config.workers)
        ]
        telling = loop.create_task(_tell(started, lambda: ready(address)))
        try:
            await asyncio.gather(*tasks)
        except WorkersError:
            self._stop()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        finally:
            telling.cancel()
            held.close()

    def _stop(self) -> None:
        self._stopping.set()
        for process in self._running.values():
            if process.returncode is None:
                process.terminate()

    async def _keep(self, index: int, address: str, lock: int, started: asyncio.Future[None]) -> None:
        """Have a worker of this index until told to stop."""
        before, failed, soon = 0, 0, 0
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            begun = loop.time()
            process = await self._start(index, before, address, lock)
            assert process.stdout is not None
            assert process.stdin is not None
            is_ready = await process.stdout.readline() == READY
            if self._stopping.is_set() and process.returncode is None:
                process.terminate()  # it was told before it could listen, perhaps
            if is_ready:
                log.info("worker %d (process %d) serves", index, process.pid)
                if not started.done():
                    started.set_result(None)
                await _kill_when_silent(process, process.stdout, index)
            code = await process.wait()
            process.stdin.close()
            before, failed = before + 1, 0 if is_ready else failed + 1
            soon = 0 if loop.time() - begun > _STEADY else soon + 1
            if self._stopping.is_set():
                if code not in (0, -signal.SIGTERM):
                    log.warning("worker %d ended with %s", index, code)
                return
            if failed and (not started.done() or failed == ATTEMPTS):
                raise WorkersError(f"worker {index} cannot start: it ended with {code}")
            log.warning("worker %d (process %d) ended with %s; it is started again", index, process.pid, code)
            try:
                await asyncio.wait_for(self._stopping.wait(), min(PAUSE * 2**soon, _LONGEST))
            except TimeoutError:
                continue

    async def _start(self, index: int, before: int, address: str, lock: int) -> asyncio.subprocess.Process:
        """Start a worker and tell it what it is."""
        process = await asyncio.create_subprocess_exec(
            *worker_command(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=(lock,),
            start_new_session=True,  # Ctrl-C is for the supervisor, which tells them
        )
        self._running[index] = process
        assert process.stdin is not None
        config = {**self._config.model_dump(mode="json"), "listen": address}
        process.stdin.write(json.dumps({"config": config, "index": index, "before": before}).encode() + b"\n")
        return process


async def _kill_when_silent(process: asyncio.subprocess.Process, beats: asyncio.StreamReader, index: int) -> None:
    """Return when a worker has closed its pipe, or has been killed because its heartbeat stopped."""
    try:
        while await asyncio.wait_for(beats.read(1024), BEAT_PATIENCE):
            pass
    except TimeoutError:
        log.error("worker %d (process %d) has not answered for %g s: it is killed", index, process.pid, BEAT_PATIENCE)
        if process.returncode is None:
            process.kill()


def worker_command() -> list[str]:
    """What starts a worker: this interpreter, as isolated as it is here, and without the working directory on its path.

    A file called numpy.py that happens to lie where the service is started must not be run. Only where ``pointsman`` itself is
    imported from the working directory, as in a checkout that is not installed, does it stay there.
    """
    here = Path(pointsman.__file__).parents[1] == Path.cwd()
    isolation = [option for option, is_set in (("-I", sys.flags.isolated), ("-P", not here)) if is_set]
    return [sys.executable, *isolation, "-m", "pointsman.server.process.worker"]


async def _tell(started: list[asyncio.Future[None]], ready: Callable[[], None]) -> None:
    await asyncio.gather(*started)
    ready()


def reserve(listen: str) -> tuple[socket.socket, str]:
    """Hold the port of HOST:PORT for workers without listening; returns what holds it and the address with the port.

    Raises ``WorkersError`` if something else has it, also if that would share it.
    """
    host, _, number = listen.rpartition(":")
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host.strip("[]"), int(number), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have ended do not count
            alone.bind(address)
            port = alone.getsockname()[1]
        held = socket.socket(family, kind)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((address[0], port, *address[2:]))
    except OSError as error:
        raise WorkersError(f"cannot listen on {listen}: {error}") from error
    return held, f"{host}:{port}"


def end_with_supervisor() -> None:
    """End this process at once when standard input closes: what was answered is durable."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="supervisor", daemon=True).start()
