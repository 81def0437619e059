"""Fields behind a body in chunks are no part of its head, however the bytes come."""

import json
from collections.abc import Callable, Sequence

import pytest

from service.api.connection import MAX_HEAD_BYTES
from tests.service.api.test_short_way import PREDICT, Answer, received
from tests.service.client import Client
from tests.service.rows import ONE_OF_EACH

BODY = json.dumps({"X": ONE_OF_EACH}).encode()
HEAD = (
    f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    "Transfer-Encoding: chunked\r\n\r\n"
).encode()
CHUNK = b"%x\r\n%s\r\n" % (len(BODY), BODY)
LAST = b"0\r\n"
END = b"\r\n"

Packets = Callable[[bytes], Sequence[bytes]]

PACKETS: list[Packets] = [
    lambda trailer: (HEAD + CHUNK + LAST + trailer + END,),
    lambda trailer: (HEAD, CHUNK + LAST + trailer + END),
    lambda trailer: (HEAD + CHUNK, LAST + trailer + END),
    lambda trailer: (HEAD + CHUNK + LAST, trailer + END),
    lambda trailer: (HEAD, CHUNK, LAST + trailer[:7], trailer[7:], END),
]


@pytest.mark.parametrize("packets", PACKETS)
@pytest.mark.parametrize(
    "line",
    [
        b"Accept: text/csv",
        b"Accept: image/png",
        b"Content-Encoding: gzip",
        b"Content-Type: text/csv",
        b"Expect: 100-continue",
        b"GMM-Model: other",
        b"Host: another",
        b"If-Match: *",
        b"Inference-Header-Content-Length: 3",
        b"Request-Timeout: 0",
        b"Request-Timeout: soon",
        b"Upgrade: h2c",
        b"Connection: upgrade\r\nUpgrade: h2c",
        b"X-Request-Id: planted",
    ],
)
def test_a_field_behind_the_body_changes_nothing(
    fitted: Client, line: bytes, packets: Packets
) -> None:
    plain = Answer(received(fitted, *packets(b"")))
    answer = Answer(received(fitted, *packets(line + b"\r\n")))

    assert plain.status == 200
    assert answer.told() == plain.told()
    assert answer.header("x-request-id") != "planted"


@pytest.mark.parametrize("packets", PACKETS)
def test_fields_behind_the_body_of_an_inference_change_nothing(
    fitted: Client, packets: Packets
) -> None:
    rows = {"name": "X", "shape": [2, 2], "datatype": "FP64", "data": ONE_OF_EACH}
    body = json.dumps({"inputs": [rows]}).encode()

    def asked(trailer: bytes) -> Answer:
        parts = [
            part.replace(PREDICT.encode(), b"/v2/models/groups/infer").replace(
                CHUNK, b"%x\r\n%s\r\n" % (len(body), body)
            )
            for part in packets(trailer)
        ]
        return Answer(received(fitted, *parts))

    answer = asked(b"Inference-Header-Content-Length: 3\r\nOrigin: https://elsewhere\r\n")

    assert answer.status == 200
    assert answer.content == asked(b"").content


@pytest.mark.parametrize("packets", PACKETS)
def test_a_change_has_no_conditions_behind_its_body(fitted: Client, packets: Packets) -> None:
    change = b'{"n_init":7}'

    parts = [
        part.replace(b"POST " + PREDICT.encode(), b"PATCH /models/groups").replace(
            CHUNK, b"%x\r\n%s\r\n" % (len(change), change)
        )
        for part in packets(b'If-Match: "another"\r\nIf-None-Match: *\r\n')
    ]

    assert Answer(received(fitted, *parts)).status == 200
    assert fitted.get("/models/groups").json()["n_init"] == 7


@pytest.mark.parametrize("packets", PACKETS)
def test_fields_behind_a_body_are_bounded(fitted: Client, packets: Packets) -> None:
    line = b"X: %s\r\n" % (b"x" * 1000)

    answer = received(fitted, *packets(line * (MAX_HEAD_BYTES // len(line) + 1)))

    assert Answer(answer).status in (400, 431)
