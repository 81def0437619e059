"""The short way over a real connection, where the server writes its answers in one piece."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.server import Server, running
from tests.service.rows import ONE_OF_EACH, TWO_GROUPS

SETTLED_SECONDS = 2.5
"""A version is at hand when nothing has changed for two seconds."""
BODY = json.dumps({"X": ONE_OF_EACH}).encode()
VARYING = (b"server-timing", b"date")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(_registry(tmp_path_factory)) as server:
        with server.client() as client:
            client.post("/models", json={"id": "groups", "n_components": 2, "random_state": 0})
            client.post("/models/groups/fit", json={"X": TWO_GROUPS})
            time.sleep(SETTLED_SECONDS)
            client.post("/models/groups/predict", json={"X": ONE_OF_EACH})
        yield server


def _registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("short") / "registry"


def question(query: str = "", *, headers: str = "") -> bytes:
    head = (
        f"POST /models/groups/predict{query} HTTP/1.1\r\nHost: service\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n"
        f"X-Request-Id: mine\r\n{headers}\r\n"
    )
    return head.encode() + BODY


def sent_back(server: Server, request: bytes) -> bytes:
    """Return all that the server sends before it closes the connection."""
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def lines_of(answer: bytes) -> tuple[list[bytes], bytes]:
    head, _, content = answer.partition(b"\r\n\r\n")
    return [line for line in head.split(b"\r\n") if not line.startswith(VARYING)], content


def test_it_writes_what_the_long_way_writes(server: Server) -> None:
    short, long = (
        sent_back(server, question(query, headers="Connection: close\r\n"))
        for query in ("", "?version=1")
    )
    assert lines_of(short) == lines_of(long)
    assert short.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close" in short


def test_questions_sent_without_waiting_are_answered_in_their_order(server: Server) -> None:
    last = question(headers="Connection: close\r\n")
    together = question() + question("?version=1") + question() + last
    answers = sent_back(server, together).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert len(answers) == 4
    assert len({lines_of(answer)[1] for answer in answers}) == 1


def test_a_connection_is_kept_for_the_next_question(server: Server) -> None:
    with socket.create_connection(server.address, timeout=20) as connection:
        for _ in range(3):
            connection.sendall(question())
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"connection: close" not in answer
