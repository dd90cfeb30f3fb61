"""Logs as JSON, one object a line, for machines to read; plain lines for people.

>>> record = logging.makeLogRecord({"created": 0, "levelname": "INFO", "name": "pointsman", "msg": "call", "code": "OK"})
>>> print(JsonFormatter().format(record))
{"time": "1970-01-01T00:00:00.000000+00:00", "level": "INFO", "logger": "pointsman", "message": "call", "code": "OK"}
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message, what was given as ``extra``, and the exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({name: value for name, value in vars(record).items() if name not in _STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """A record as a line for people, with what was given as ``extra`` at its end."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without the exception, which follows it."""
        extra = "".join(f" {name}={value}" for name, value in vars(record).items() if name not in _STANDARD)
        return super().formatMessage(record) + extra


def set_up(format_: str, level: str) -> None:
    """Log to standard error: ``format_`` is `json`, `text`, or `auto`, which is text on a terminal only."""
    as_json = format_ == "json" or (format_ == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_ours)


def _is_ours(record: logging.LogRecord) -> bool:
    """False for the error that gRPC logs when a caller leaves while a response is sent to it: the call is logged as CANCELLED."""
    return record.exc_info is None or type(record.exc_info[1]).__name__ != "ExecuteBatchError"
