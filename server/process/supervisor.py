"""Several processes behind one port, on one journal: the supervisor that starts them, and what each of them is told.

The supervisor holds the directory's lock and the port, and serves nothing itself. Each worker is given the lock too, so that the
directory is free only when the last process has gone, and the end of a pipe: when the supervisor has gone, however it went, the
pipe closes and the worker ends. A worker writes a byte every second, from its event loop, to another pipe: one that does not is
killed and started again, for it answers nobody and may hold up all others.

>>> first, second = Worker(index=0, before=0), Worker(index=1, before=0)
>>> first.rng(7).random() != second.rng(7).random()
True
>>> first.rng(7).random() == Worker(index=0, before=0).rng(7).random()
True
>>> [restart_pause(short_lives) for short_lives in (0, 1, 3, 10)]
[0.1, 0.2, 0.8, 5.0]
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
"""Failures of a worker in a row, before it is ready, after which the supervisor gives up."""
PAUSE = 0.1
"""Seconds before a worker is started again; doubled each time that its life was short."""
MAX_PAUSE = 5.0
"""Longest pause before a worker is started again, in seconds."""
SHORT_LIFE = 10.0
"""Seconds up to which a worker's life counts as short."""
READY = b"ready\n"
"""What a worker writes once it serves."""
BEAT = b"."
"""What a worker writes at each heartbeat."""
BEAT_EVERY = 1.0
"""Seconds between two heartbeats of a worker."""
BEAT_PATIENCE = 10.0
"""Seconds without a heartbeat after which a worker that serves is taken to hang."""
START_PATIENCE = 120.0
"""The same for a worker that starts: loading its modules, and a large snapshot, keeps its event loop from beating."""


class WorkersError(Exception):
    """The workers cannot be started; the message says why."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker of several: its ``index`` from 0, and how many processes had that index ``before`` it."""

    index: int
    before: int

    def rng(self, seed: int | None) -> np.random.Generator:
        """A stream of random numbers that no other worker has; from the system's entropy if ``seed`` is ``None``."""
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(self.index, self.before)))


def restart_pause(short_lives: int) -> float:
    """Seconds before a worker is started again after so many short lives in a row."""
    return min(PAUSE * 2.0**short_lives, MAX_PAUSE)


class Supervisor:
    """Runs ``config.workers`` workers until told to stop. Use it once, in an event loop."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stopping = asyncio.Event()
        self._running: dict[int, asyncio.subprocess.Process] = {}

    async def run(self, ready: Callable[[str], None]) -> None:
        """Run the workers; ``ready`` is called with the address once all serve. Returns when all have stopped.

        Raises ``JournalError``, or ``WorkersError`` if they cannot start.
        """
        journal = SqliteJournal(self._config.data)  # has the lock, and makes the tables
        try:
            if await journal.is_old():
                snapshots = SnapshotStore(self._config.data / "snapshots")
                await migrate(journal, await recover(journal, snapshots))
            await self._run(journal.fileno(), ready)
        finally:
            await journal.close()

    async def _run(self, lock: int, ready: Callable[[str], None]) -> None:
        port_holder, address = reserve(self._config.listen)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        started = [loop.create_future() for _ in range(self._config.workers)]
        tasks = [
            loop.create_task(self._keep(index, address, lock, started[index])) for index in range(self._config.workers)
        ]
        announcement = loop.create_task(_announce(started, lambda: ready(address)))
        try:
            await asyncio.gather(*tasks)
        except WorkersError:
            self._stop()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        finally:
            announcement.cancel()
            port_holder.close()

    def _stop(self) -> None:
        self._stopping.set()
        for process in self._running.values():
            if process.returncode is None:
                process.terminate()

    async def _keep(self, index: int, address: str, lock: int, started: asyncio.Future[None]) -> None:
        """Keep a worker of this index running until told to stop."""
        before, failures, short_lives = 0, 0, 0
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started_at = loop.time()
            process = await self._start(index, before, address, lock)
            assert process.stdout is not None
            assert process.stdin is not None
            is_ready = await _is_ready(process, process.stdout, index)
            if self._stopping.is_set() and process.returncode is None:
                process.terminate()  # again: the first signal may have come before it could handle it
            if is_ready:
                log.info("worker %d (process %d) serves", index, process.pid)
                if not started.done():
                    started.set_result(None)
                await _kill_when_silent(process, process.stdout, index)
            code = await process.wait()
            process.stdin.close()
            before, failures = before + 1, 0 if is_ready else failures + 1
            short_lives = short_lives + 1 if loop.time() - started_at <= SHORT_LIFE else 0
            if self._stopping.is_set():
                if code not in (0, -signal.SIGTERM):
                    log.warning("worker %d ended with %s", index, code)
                return
            if failures and (not started.done() or failures == ATTEMPTS):
                raise WorkersError(f"worker {index} cannot start: it ended with {code}")
            log.warning("worker %d (process %d) ended with %s; it is started again", index, process.pid, code)
            try:
                await asyncio.wait_for(self._stopping.wait(), restart_pause(short_lives))
            except TimeoutError:
                continue

    async def _start(self, index: int, before: int, address: str, lock: int) -> asyncio.subprocess.Process:
        """Start a worker and write it its settings and identity."""
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


async def _is_ready(process: asyncio.subprocess.Process, beats: asyncio.StreamReader, index: int) -> bool:
    """Whether a worker has come to serve; else it has ended, or was killed because it was silent while it started."""
    said = b""
    try:
        while READY not in said:
            heard = await _hear(beats, START_PATIENCE)
            if not heard:
                return False
            said = said[-len(READY) :] + heard
    except TimeoutError:
        _kill(process, index, START_PATIENCE)
        return False
    return True


async def _kill_when_silent(process: asyncio.subprocess.Process, beats: asyncio.StreamReader, index: int) -> None:
    """Return when a worker has closed its pipe, or has been killed because its heartbeat stopped."""
    try:
        while await _hear(beats, BEAT_PATIENCE):
            pass
    except TimeoutError:
        _kill(process, index, BEAT_PATIENCE)


async def _hear(beats: asyncio.StreamReader, patience: float) -> bytes:
    """What a worker writes next; nothing at its end. Raises ``TimeoutError`` if it is silent for ``patience`` seconds.

    They are counted one by one: when the machine, or this process, is stopped for long and goes on, that counts as one of them,
    and is not taken for silence of the workers, who were stopped too or whose heartbeats were not read.
    """
    for _ in range(round(patience / BEAT_EVERY)):
        try:
            return await asyncio.wait_for(beats.read(1024), BEAT_EVERY)
        except TimeoutError:
            continue
    raise TimeoutError


def _kill(process: asyncio.subprocess.Process, index: int, patience: float) -> None:
    log.error("worker %d (process %d) has not answered for %g s: it is killed", index, process.pid, patience)
    if process.returncode is None:
        process.kill()


def worker_command() -> list[str]:
    """The command that starts a worker: this interpreter, as isolated as here, and without the working directory on its path.

    A file called numpy.py that happens to lie where the service is started must not be run. Only where ``pointsman`` itself is
    imported from the working directory, as in a checkout that is not installed, does it stay there.
    """
    in_checkout = Path(pointsman.__file__).parents[1] == Path.cwd()
    isolation = [option for option, is_set in (("-I", sys.flags.isolated), ("-P", not in_checkout)) if is_set]
    return [sys.executable, *isolation, "-m", "pointsman.server.process.worker"]


async def _announce(started: list[asyncio.Future[None]], ready: Callable[[], None]) -> None:
    """Call ``ready`` once all workers have started."""
    await asyncio.gather(*started)
    ready()


def reserve(listen: str) -> tuple[socket.socket, str]:
    """Reserve the port of HOST:PORT for workers, without listening: the socket that holds it, and the address with the port.

    Raises ``WorkersError`` if another process has the port, even if that process would share it.
    """
    host, _, number = listen.rpartition(":")
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host.strip("[]"), int(number), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as exclusive:
            exclusive.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections do not count
            exclusive.bind(address)
            port = exclusive.getsockname()[1]
        holder = socket.socket(family, kind)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((address[0], port, *address[2:]))
    except OSError as error:
        raise WorkersError(f"cannot listen on {listen}: {error}") from error
    return holder, f"{host}:{port}"


def end_with_supervisor() -> None:
    """End this process at once when standard input closes, which means that its supervisor has gone.

    Nothing is lost: what was answered is durable.
    """

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="supervisor", daemon=True).start()
