"""Logs: one JSON object a line, one event a fact. Never a request's data."""

import json
import logging
import sys
from datetime import UTC, datetime

import orjson

PLAIN_ATTRIBUTES = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",
}
"""What every log record has; the rest are the event's own fields."""


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        event.update(
            (name, value)
            for name, value in record.__dict__.items()
            if name not in PLAIN_ATTRIBUTES and name not in event
        )
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(event, default=str).decode()
        except orjson.JSONEncodeError:  # a name on the disk that is not UTF-8, a huge number
            return json.dumps(event, default=str)


def configure_logging(level: str) -> None:
    """Send every logger's events to standard error; standard output is the command's own."""
    # No event tells these, and to find them out takes half the time of an event.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001  # the switch that the logging HOWTO names for it
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
