"""Clients of HTTP/1.0, and heads that say two things at once."""

import json

import numpy as np
import pytest

from tests.service.api.test_short_way import PREDICT, Answer, received
from tests.service.api.wire import CSV, to_csv
from tests.service.client import Client

ROWS = np.random.default_rng(0).normal(3.0, 2.0, size=(80_000, 2))
LARGE = to_csv(ROWS)
SMALL = b'{"X": [[1, 2]]}'
BROKEN = to_csv(np.tile(ROWS, (4, 1))) + b"1,two\n"


def asked(body: bytes, *lines: str, version: str = "1.0", media_type: str = CSV) -> bytes:
    head = [
        f"POST {PREDICT} HTTP/{version}", "Host: a", f"Content-Type: {media_type}",
        f"Accept: {media_type}", *lines,
    ]  # fmt: skip
    if not any(line.startswith("Transfer-Encoding") for line in lines):
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


def test_an_answer_in_portions_comes_in_one_with_its_length(fitted: Client) -> None:
    told = received(fitted, asked(LARGE))
    head = told.partition(b"\r\n\r\n")[0].lower()

    assert told.startswith(b"HTTP/1.1 200 ")
    assert b"transfer-encoding" not in head
    assert b"content-length: " in head
    assert Answer(told).content == Answer(received(fitted, asked(LARGE, version="1.1"))).content


def test_what_fails_in_the_middle_is_told(fitted: Client) -> None:
    sent = asked(BROKEN)
    pieces = [sent[begin : begin + 2**18] for begin in range(0, len(sent), 2**18)]
    answer = Answer(received(fitted, *pieces))

    assert answer.status == 422
    assert json.loads(answer.content)["status"] == 422


def test_nothing_comes_before_the_answer(fitted: Client) -> None:
    told = received(fitted, asked(SMALL, "Expect: 100-continue", media_type="application/json"))

    assert told.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("version", "lines"),
    [
        ("1.0", ("Transfer-Encoding: chunked",)),
        ("1.1", ("Transfer-Encoding: gzip, chunked",)),
        ("1.1", ("Transfer-Encoding: gzip", "Transfer-Encoding: chunked")),
        ("1.1", ("Content-Type: text/csv",)),
        ("1.1", ("Request-Timeout: 5", "Request-Timeout: 0.1")),
        ("1.1", ("Inference-Header-Content-Length: 5", "Inference-Header-Content-Length: 0")),
    ],
)
def test_a_head_that_is_not_clear_is_refused(
    fitted: Client, version: str, lines: tuple[str, ...]
) -> None:
    is_chunked = lines[0].startswith("Transfer")
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMALL), SMALL) if is_chunked else SMALL
    answer = Answer(
        received(fitted, asked(body, *lines, version=version, media_type="application/json"))
    )

    assert answer.status == 400
    assert json.loads(answer.content)["code"] == "malformed_request"


@pytest.mark.parametrize("version", ["0.9", "1.2", "2.0", "3.0"])
@pytest.mark.parametrize("line", ["Accept: */*", "Upgrade: h2c"])
def test_a_request_of_another_version_is_refused(fitted: Client, version: str, line: str) -> None:
    answer = Answer(
        received(fitted, asked(SMALL, line, version=version, media_type="application/json"))
    )

    assert answer.status == 400
    assert json.loads(answer.content)["code"] == "malformed_request"


def test_chunks_in_capitals_are_read(fitted: Client) -> None:
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMALL), SMALL)
    sent = asked(body, "Transfer-Encoding: Chunked", version="1.1", media_type="application/json")

    assert Answer(received(fitted, sent)).status == 200
