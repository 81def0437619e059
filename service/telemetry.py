"""Logs: one JSON object a line, one event a fact. Never a request's data."""

import json
import logging
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import TextIO

import orjson

PLAIN = logging.makeLogRecord({}).__dict__
PLAIN_ATTRIBUTES = frozenset(PLAIN) | {"message", "asctime", "taskName"}
"""What every log record has; the rest are the event's own fields."""

LONGEST_WAIT_SECONDS = 0.05
"""Of an event that tells of nothing wrong, until it is written."""
MOST_WAITING = 64
"""With so many events all are written at once: few, so that their memory is used again soon."""


@lru_cache(2)
def _second(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "time": f"{_second(int(record.created))}.{int(record.created % 1 * 1e6):06d}+00:00",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        # Fields of an event stand behind the attributes that a record is made with.
        for name, value in islice(record.__dict__.items(), len(PLAIN), None):
            if name not in PLAIN_ATTRIBUTES and name not in event:
                event[name] = value
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(event, default=str).decode()
        except orjson.JSONEncodeError:  # a name on the disk that is not UTF-8, a huge number
            return json.dumps(event, default=str)


class GatheringHandler(logging.Handler):
    """Formats and writes events together, some twenty times a second, or when enough have come.

    To do it for every one by itself takes a third of the time of an answer for one row. What is
    wrong is written at once, with what came before it, and so is all when the process ends in
    order; a process that is killed may take its last twentieth of a second with it.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._records: deque[logging.LogRecord] = deque()
        self._writing = threading.Lock()
        self._has_records = threading.Event()
        threading.Thread(target=self._write_again_and_again, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)
        n_records = len(self._records)
        if record.levelno >= logging.WARNING or n_records >= MOST_WAITING:
            self.flush()
        elif n_records == 1:
            self._has_records.set()

    def flush(self) -> None:
        with self._writing:
            records = [self._records.popleft() for _ in range(len(self._records))]
            lines = [line for line in map(self._line, records) if line]
            try:
                self._stream.write("".join(lines))
                self._stream.flush()
            except (OSError, ValueError):  # as every handler: a log is no reason to fail
                if records:
                    self.handleError(records[-1])

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record) + "\n"
        except Exception:  # as above
            self.handleError(record)
            return ""

    def _write_again_and_again(self) -> None:
        while True:
            self._has_records.wait()
            self._has_records.clear()
            time.sleep(LONGEST_WAIT_SECONDS)
            self.flush()


def configure_logging(level: str) -> None:
    """Send every logger's events to standard error; standard output is the command's own."""
    # No event tells these, and to find them out takes half the time of an event.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001  # the switch that the logging HOWTO names for it
    handler = GatheringHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
