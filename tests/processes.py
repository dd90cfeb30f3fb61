"""Processes of their own, as tests and soaks start them: waited for with a deadline, shown when they fail, ended by whoever
started them.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

ROOT = Path(__file__).parents[1]
WAIT = 120.0
"""Seconds after which whatever is waited for is taken to hang: many times what it takes on a busy machine."""
SERVE = "from pointsman.server.cli.serve import serve; serve()"
ANY_PORT = "127.0.0.1:0"
_LOOK = 0.01
"""Seconds between two looks at what is waited for."""

T = TypeVar("T")


def environment() -> dict[str, str]:
    """The environment of a process that imports this checkout, installed or not."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def wait_until(condition: Callable[[], T], what: str, seconds: float = WAIT) -> T:
    """What ``condition`` gives once that is true. Raises ``TimeoutError`` naming ``what`` if it is not within ``seconds``."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for this: {what}")
        time.sleep(_LOOK)
    return value


async def until(condition: Callable[[], T], what: str, seconds: float = WAIT) -> T:
    """``wait_until`` for code on an event loop."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for this: {what}")
        await asyncio.sleep(_LOOK)
    return value


def first_line(stream: IO[str], seconds: float = WAIT) -> str:
    """The first line that a process writes to ``stream``, a pipe; what there is of it if the pipe closes before its end.

    Raises ``TimeoutError`` if neither happens within ``seconds``. Nothing may have been read from ``stream`` before.
    """
    end, line = time.monotonic() + seconds, b""
    while not line.endswith(b"\n"):
        if not select.select([stream], [], [], max(0.0, end - time.monotonic()))[0]:
            raise TimeoutError(f"no line within {seconds:g} s, only {line!r}")
        byte = os.read(stream.fileno(), 1)
        if not byte:
            break
        line += byte
    return line.decode()


def address_of(server: subprocess.Popen[str], said: Callable[[], str] = str) -> str:
    """HOST:PORT from the line that a server prints when it answers; ``said`` gives what it wrote to standard error.

    If it ends instead, or does neither in time, it is killed, and this raises ``RuntimeError`` with what it said.
    """
    assert server.stdout is not None
    try:
        line = first_line(server.stdout)
    except TimeoutError as error:
        line = str(error)
    serving = re.search(r"serving on (\S+)", line)
    if not serving:
        server.kill()
        server.wait(WAIT)
        raise RuntimeError(f"the server did not start: {line}{said()[-4000:]}")
    return serving[1]


def run_python(*arguments: str, seconds: float = WAIT) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, which should end by itself within ``seconds``, whatever its exit code."""
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT, env=environment()
    )


def refused_start(data: Path, *flags: str, listen: str = ANY_PORT) -> subprocess.CompletedProcess[str]:
    """A start of the service that should end by itself."""
    return run_python("-c", SERVE, "--data", str(data), "--listen", listen, *flags)


class Served:
    """A service on ``data`` in a process group of its own; its standard error goes to a file beside ``data``.

    It is being started when this is made; ``ready`` waits until it answers.
    """

    def __init__(self, data: Path, *flags: str, listen: str = ANY_PORT) -> None:
        self.data, self.errors = data, data.with_name(data.name + ".stderr")
        self.address = ""
        """HOST:PORT, known once it is ready."""
        command = [sys.executable, "-c", SERVE, "--data", str(data), "--listen", listen, *flags]
        with self.errors.open("a") as errors:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env=environment(),
                start_new_session=True,
            )

    def ready(self) -> Served:
        """Wait until it answers. Raises ``RuntimeError`` with what it said if it ends instead, or does neither in time."""
        self.address = address_of(self.process, self.said)
        return self

    def said(self) -> str:
        """All that was written to standard error on this data directory."""
        return self.errors.read_text()

    def stop(self) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it with no chance to do anything more; its workers see that it has gone and end too."""
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        code = self.process.wait(WAIT)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def end(self) -> None:
        """``kill`` it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.wait()


Serve = Callable[..., Served]
"""The fixture `serve`: takes what ``Served`` does, gives it when it is ready."""


@contextmanager
def reserved_address() -> Iterator[str]:
    """HOST:PORT that nothing else gets meanwhile, however often a service on it ends and starts again."""
    with socket.socket() as holder:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):  # so that servers can bind it: this never listens
            holder.setsockopt(socket.SOL_SOCKET, option, 1)
        holder.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{holder.getsockname()[1]}"


def children(pid: int) -> list[int]:
    """The processes that ``pid`` started and that run."""
    running = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
        if int(parent) == pid and state != "Z":
            running.append(int(path.parent.name))
    return sorted(running)


def has_gone(pid: int) -> bool:
    """Whether an orphan has ended: a zombie's other threads can still hold its files and sockets."""
    return not Path(f"/proc/{pid}").exists()


def pause(pid: int) -> None:
    """Stop a process where it is, and return when it has stopped: SIGSTOP takes effect some time after it was sent."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: _state(pid) == "T", f"process {pid} stands still")


def _state(pid: int) -> str:
    """The letter of a process's state, as in proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
