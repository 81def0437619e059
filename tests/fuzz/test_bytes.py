"""Seeded mutants of requests: never a 500, a hang, or a refusal over 16 KiB.

``FUZZ_CASES`` says how many; ``make fuzz`` asks for ten million.
"""

import logging
import os
import random
import re
from functools import partial

import pytest

from service.api.connection import BoundedProtocol, ConnectionLimits
from service.api.short_way import ShortWay
from tests.fuzz.corpus import CORPUS, mutated
from tests.fuzz.wire import answered
from tests.service.client import Client

CASES = int(os.environ.get("FUZZ_CASES", "100000"))
SEEDS = range(10)
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
MAX_REFUSAL_BYTES = 16 * 1024
HEAD_BYTES = 2048


def complaint(answer: bytes) -> str:
    """Say what is wrong with an answer; nothing when it is as it should be."""
    statuses = [int(status) for status in STATUS.findall(answer)]
    if any(status == 500 for status in statuses):
        return "a 500"
    if len(statuses) == 1 and statuses[0] >= 400:
        return "" if len(answer) <= MAX_REFUSAL_BYTES + HEAD_BYTES else "a large refusal"
    return ""


@pytest.fixture(autouse=True)
def quiet() -> None:
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


@pytest.fixture
def protocol(fitted: Client) -> type[BoundedProtocol]:
    return BoundedProtocol.bounded_by(ConnectionLimits(), short_way=ShortWay(fitted.services))


@pytest.mark.parametrize("number", range(len(CORPUS)))
def test_every_request_of_the_corpus_is_answered(
    fitted: Client, protocol: type[BoundedProtocol], number: int
) -> None:
    asked = partial(answered, fitted.app, CORPUS[number], protocol_class=protocol)
    answer = fitted.portal.call(asked)

    assert STATUS.match(answer)
    assert int(STATUS.findall(answer)[0]) < 500


@pytest.mark.parametrize("seed", SEEDS)
def test_mutants_are_answered_or_cut_off_and_never_break_anything(
    fitted: Client, protocol: type[BoundedProtocol], seed: int
) -> None:
    rng = random.Random(seed)

    async def wrong() -> list[tuple[str, bytes]]:
        found = []
        for _ in range(CASES // len(SEEDS)):
            sent = mutated(rng)
            told = complaint(await answered(fitted.app, sent, protocol_class=protocol))
            if told:
                found.append((told, sent))
        return found

    assert fitted.portal.call(wrong) == []
    assert fitted.get("/livez").status_code == 200


def test_a_500_and_a_large_refusal_are_seen() -> None:
    assert complaint(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")
    assert complaint(b"HTTP/1.1 422 Unprocessable\r\n\r\n" + b"x" * 20_000)
    assert not complaint(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 20_000)
