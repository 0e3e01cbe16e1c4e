"""The processes' own logs: one line of JSON for each event, to standard error. Nothing logs what callers send."""

import logging
import sys
from typing import Any, Final

import msgspec

from noria.settings import log_level

ABOUT: Final = ("request_id", "trace_id")
"""What a line about one request names beside the event; see `serving.passage`."""


class JsonLines(logging.Formatter):
    """An event as a line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        event: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        event |= {name: value for name in ABOUT if (value := getattr(record, name, ""))}
        event |= getattr(record, "fields", {})
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(event).decode()


def log_json() -> None:
    """Log to standard error, in JSON lines, what is as grave as NORIA_LOG_LEVEL says."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=log_level(), handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
