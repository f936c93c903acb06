"""Logs: lines on stderr, as text for people or one JSON object each for machines.

JSON keys: `time` (RFC 3339, UTC), `level`, `logger`, `thread`, `message`, `error` (a traceback);
what a call gives as `extra` stands beside them. The program writes at most one line a batch.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

_OWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JsonLines(logging.Formatter):
    """A record as one line of JSON, whatever is in it."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        told |= {key: value for key, value in record.__dict__.items() if key not in _OWN}
        return json.dumps(told, default=str, ensure_ascii=False)


def set_up(level: str, format_: Literal["text", "json"], stream: TextIO | None = None) -> None:
    """Send what is logged from `level` on to `stream` (none: stderr), in place of what was set."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if format_ == "json" else logging.Formatter(_TEXT))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
