"""Answers behind which the connection is closed, to clients that are still sending (RFC 9112, 9.6).

A system that closes on bytes which nobody has read resets the connection: what it has not sent by
then is lost, and a client that sends on hears of the reset before it looks for an answer.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

from tests.e2e.server import Server, running
from tests.service.api.wire import CSV, JSON, NPY, to_json, to_npy
from tests.service.rows import ONE_OF_EACH, TWO_GROUPS

ANSWER_SECONDS = 30.0
LATE_SECONDS = 0.5
PIPELINED = b"1.5,2.5\n" * 2**20
ROWS = np.random.default_rng(0).normal(3, 2, size=(100_000, 2))
SMALL = np.array(ONE_OF_EACH)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("last") / "registry") as server:
        with server.client() as client:
            client.post("/models", json={"id": "groups", "n_components": 2, "random_state": 0})
            client.post("/models/groups/fit?wait=60", json={"X": TWO_GROUPS})
        yield server


def asked(line: str, body: bytes, media_type: str, *lines: str) -> bytes:
    head = [f"{line} HTTP/1.1", "Host: a", f"Content-Type: {media_type}", *lines]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body


def last(line: str, body: bytes = b"", media_type: str = CSV) -> bytes:
    return asked(line, body, media_type, "Connection: close")


def read_late(client: socket.socket) -> bytes:
    """Return all up to the end of the connection, which is no reset."""
    time.sleep(LATE_SECONDS)
    received = b""
    while part := client.recv(65536):
        received += part
    return received


@pytest.mark.parametrize(
    "sent",
    [
        last("GET /openapi.json"),
        last("POST /models/groups/predict", to_npy(SMALL), NPY),
        last("POST /models/groups/predict_proba", to_json(ROWS[:8000]), JSON),
        last("POST /models/groups/predict_proba", to_npy(ROWS[:20_000]), NPY),
        last("POST /models/groups/predict_proba", to_json(ROWS), JSON),
        asked("POST /models/groups/predict", to_npy(SMALL), NPY).replace(b"/1.1", b"/1.0", 1),
    ],
    ids=["get", "one row", "short", "apart", "large", "old"],
)
def test_the_last_answer_comes_whole_whatever_is_sent_behind_it(
    server: Server, sent: bytes
) -> None:
    with socket.create_connection(server.address, timeout=ANSWER_SECONDS) as client:
        client.sendall(sent)

        def send_on() -> None:
            with suppress(OSError):  # the answer was read, and the connection closed
                client.sendall(asked("POST /models/groups/predict", PIPELINED, CSV))

        sending = threading.Thread(target=send_on)
        sending.start()
        received = read_late(client)
        sending.join()

    head, _, content = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    assert b"connection: close" in head.lower()
    assert len(content) == length


@pytest.mark.parametrize(
    ("line", "media_type", "status"),
    [
        ("POST /models/nope/fit", CSV, b"404"),
        ("POST /nope", CSV, b"404"),
        ("POST /models/groups/predict", "text/plain", b"415"),
    ],
)
def test_who_is_refused_may_send_the_body_to_its_end(
    server: Server, line: str, media_type: str, status: bytes
) -> None:
    with socket.create_connection(server.address, timeout=ANSWER_SECONDS) as client:
        client.sendall(last(line, PIPELINED, media_type))

        assert read_late(client).startswith(b"HTTP/1.1 %s " % status)


def test_who_never_ends_is_left(server: Server) -> None:
    with socket.create_connection(server.address, timeout=ANSWER_SECONDS) as client:
        client.sendall(last("GET /livez"))
        until = time.monotonic() + ANSWER_SECONDS
        with pytest.raises(ConnectionError):  # noqa: PT012 - which of them meets it is open
            while time.monotonic() < until:
                client.sendall(b"\r\n")
                time.sleep(0.05)
