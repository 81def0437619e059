"""Seeded mutants of requests: never a 500, a hang, or a refusal over 16 KiB.

``FUZZ_CASES`` says how many; ``make fuzz`` asks for ten million.
"""

import json
import logging
import math
import os
import random
import re
from functools import partial
from http import HTTPStatus
from pathlib import Path

import pytest

from service.api.connection import BoundedProtocol, ConnectionLimits
from service.api.short_way import ShortWay
from tests.fuzz.corpus import CORPUS, mutated
from tests.fuzz.wire import answered
from tests.service.client import Client

CASES = int(os.environ.get("FUZZ_CASES", "100000"))
CASES_EACH = 10_000
"""Of one service: what mutants create and fit is let go with it."""
SEEDS = range(math.ceil(CASES / CASES_EACH))
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
DOCUMENTED = {
    int(status)
    for path in json.loads(Path("openapi.json").read_text())["paths"].values()
    for operation in path.values()
    for status in operation["responses"]
} | {HTTPStatus.METHOD_NOT_ALLOWED.value}
INTERIM = re.compile(rb"HTTP/1\.1 100 Continue\r\n\r\n")
MAX_REFUSAL_BYTES = 16 * 1024
HEAD_BYTES = 2048


def complaint(answer: bytes) -> str:
    """Say what is wrong with what was answered; nothing when it is as it should be."""
    answer = INTERIM.sub(b"", answer)
    statuses = [int(status) for status in STATUS.findall(answer)]
    if not DOCUMENTED.issuperset(statuses):
        return f"an undocumented status among {statuses}"
    if len(statuses) == 1 and statuses[0] >= HTTPStatus.BAD_REQUEST:
        return _complaint_of_refusal(answer)
    return ""


def _complaint_of_refusal(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    if len(answer) > MAX_REFUSAL_BYTES + HEAD_BYTES:
        return "a large refusal"
    if b"x-request-id: " not in head:
        return "a refusal without its request's id"
    try:
        told = json.loads(body)
    except ValueError:
        return "a refusal that is not JSON"
    is_told = {"code", "detail"} <= told.keys() if b"problem+json" in head else "error" in told
    return "" if is_told else "a refusal without its code"


@pytest.fixture(autouse=True)
def quiet() -> None:
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


@pytest.fixture
def protocol(fitted: Client) -> type[BoundedProtocol]:
    fitted.post("/models", {"id": "others", "n_components": 2, "max_iter": 20})
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
        for _ in range(min(CASES_EACH, CASES - seed * CASES_EACH)):
            sent = mutated(rng)
            told = complaint(await answered(fitted.app, sent, protocol_class=protocol))
            if told:
                found.append((told, sent))
        return found

    assert fitted.portal.call(wrong) == []
    assert fitted.get("/livez").status_code == 200


def test_what_is_wrong_with_an_answer_is_seen() -> None:
    problem = b'Content-Type: application/problem+json\r\n\r\n{"code":"a","detail":"b"}'
    said = b"HTTP/1.1 422 Unprocessable\r\nx-request-id: 1\r\n"

    assert not complaint(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 20_000)
    assert not complaint(said + problem)
    assert complaint(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")
    assert complaint(b"HTTP/1.1 418 Teapot\r\n\r\n")
    assert complaint(b"HTTP/1.1 422 Unprocessable\r\n" + problem)
    assert complaint(said + problem.replace(b'"b"', b'"' + b"x" * 20_000 + b'"'))
    assert complaint(said + problem.replace(b'"code"', b'"kode"'))
    assert complaint(said + b"\r\nInvalid HTTP request received.")
