"""One worker of several, as a program. Its supervisor (`server/process/supervisor.py`) starts it and writes it a line of JSON.

>>> worker_record(logging.LogRecord, 3, "pointsman", logging.INFO, "worker.py", 1, "call", (), None).worker
3
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from pointsman.server.journal.interface import JournalError
from pointsman.server.observe.logs import set_up
from pointsman.server.process.config import Config
from pointsman.server.process.serve import ServeError, serve
from pointsman.server.process.supervisor import BEAT, BEAT_EVERY, READY, Worker, end_with_supervisor


def main() -> None:
    """Serve as the line on standard input says, until SIGTERM or the end of standard input."""
    line = b""
    while not line.endswith(b"\n"):  # unbuffered: what follows is for the thread that waits for the end of input
        if not (byte := os.read(0, 1)):
            sys.exit(1)
        line += byte
    message = json.loads(line)
    worker = Worker(message["index"], message["before"])
    config = Config.model_validate(message["config"])
    set_up(config.log_format, config.log_level)
    logging.setLogRecordFactory(partial(worker_record, logging.getLogRecordFactory(), worker.index))
    end_with_supervisor()
    try:
        asyncio.run(_serve(config, worker))
    except (JournalError, ServeError) as error:
        sys.exit(f"Error: worker {worker.index}: {error}")


def worker_record(
    make: Callable[..., logging.LogRecord], index: int, *arguments: Any, **keywords: Any
) -> logging.LogRecord:
    """The log record that ``make`` makes, with the index of its worker."""
    record = make(*arguments, **keywords)
    record.worker = index
    return record


async def _serve(config: Config, worker: Worker) -> None:
    """Serve, and tell the supervisor from the beginning that this worker lives, and when it serves."""
    os.set_blocking(1, False)
    _beat(asyncio.get_running_loop())
    await serve(config, _ready, worker)


def _ready(_: str) -> None:
    os.write(1, READY)


def _beat(loop: asyncio.AbstractEventLoop) -> None:
    """Write a heartbeat, now and every ``BEAT_EVERY`` seconds. Whether the supervisor reads it is not noticed here."""
    with contextlib.suppress(BlockingIOError, BrokenPipeError):
        os.write(1, BEAT)
    loop.call_later(BEAT_EVERY, _beat, loop)


if __name__ == "__main__":
    main()
