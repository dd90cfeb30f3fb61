"""One worker of several, as a program. Its supervisor (`server/process/supervisor.py`) starts it and writes it a line of JSON.

>>> record = _record(logging.LogRecord, 2, "pointsman", logging.INFO, "a.py", 1, "ready", None, None)
>>> record.getMessage(), record.worker
('ready', 2)
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
    while not line.endswith(b"\n"):  # not buffered: the rest is for the thread that waits for its end
        if not (byte := os.read(0, 1)):
            sys.exit(1)
        line += byte
    given = json.loads(line)
    worker = Worker(given["index"], given["before"])
    config = Config.model_validate(given["config"])
    set_up(config.log_format, config.log_level)
    logging.setLogRecordFactory(partial(_record, logging.getLogRecordFactory(), worker.index))
    end_with_supervisor()
    try:
        asyncio.run(serve(config, lambda _: _ready(), worker))
    except (JournalError, ServeError) as error:
        sys.exit(f"Error: worker {worker.index}: {error}")


def _record(make: Callable[..., logging.LogRecord], index: int, *arguments: Any, **named: Any) -> logging.LogRecord:
    """A log record that says which worker it is of."""
    record = make(*arguments, **named)
    record.worker = index
    return record


def _ready() -> None:
    """Say that it serves, and from now on that it still does."""
    os.write(1, READY)
    os.set_blocking(1, False)
    _beat(asyncio.get_running_loop())


def _beat(loop: asyncio.AbstractEventLoop) -> None:
    with contextlib.suppress(
        BlockingIOError, BrokenPipeError
    ):  # a supervisor that hangs or has gone: not for here to notice
        os.write(1, BEAT)
    loop.call_later(BEAT_EVERY, _beat, loop)


if __name__ == "__main__":
    main()
