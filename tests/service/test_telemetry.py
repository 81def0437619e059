"""The log: gathered, in order, and never lost by an orderly end."""

import io
import json
import logging
import time
from collections.abc import Iterator

import pytest

from service.telemetry import LONGEST_WAIT_SECONDS, MOST_WAITING, GatheringHandler, JsonLines

SOON_SECONDS = 100 * LONGEST_WAIT_SECONDS


class Written(io.StringIO):
    """What reached the stream, and how often something was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.n_writes = 0

    def write(self, text: str) -> int:
        self.n_writes += 1
        return super().write(text)

    @property
    def events(self) -> list[object]:
        return [json.loads(line)["event"] for line in self.getvalue().splitlines()]


@pytest.fixture
def stream() -> Written:
    return Written()


@pytest.fixture
def logger(stream: Written) -> Iterator[logging.Logger]:
    handler = GatheringHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.Logger("tests.telemetry", logging.INFO)
    logger.addHandler(handler)
    yield logger
    handler.close()


def test_events_are_written_soon_though_nothing_follows(
    logger: logging.Logger, stream: Written
) -> None:
    logger.info("begun", extra={"model": "groups"})
    until = time.monotonic() + SOON_SECONDS
    while not stream.getvalue() and time.monotonic() < until:
        time.sleep(LONGEST_WAIT_SECONDS / 5)
    event = json.loads(stream.getvalue())
    assert (event["event"], event["level"], event["model"]) == ("begun", "info", "groups")


def test_what_is_wrong_is_written_at_once_behind_what_came_before_it(
    logger: logging.Logger, stream: Written
) -> None:
    logger.info("first")
    logger.warning("second")
    assert stream.events == ["first", "second"]


def test_all_is_written_in_order_and_few_events_wait(
    logger: logging.Logger, stream: Written
) -> None:
    told = [f"event {number}" for number in range(10 * MOST_WAITING)]
    for each in told:
        logger.info(each)
    assert stream.events == told[: len(stream.events)]
    assert len(stream.events) > len(told) - MOST_WAITING
    assert stream.n_writes < len(told) / 10
    logger.handlers[0].flush()
    assert stream.events == told


def test_a_stream_that_fails_does_not_stop_who_logs(
    logger: logging.Logger, stream: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    stream.close()
    logger.warning("nobody reads this")
