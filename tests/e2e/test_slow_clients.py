"""Clients too many, or too slow to send or to read, over real sockets, with limits of a second."""

import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.api.door.guard import UNKNOWN_SECONDS
from tests.e2e.server import Server, running
from tests.service.rows import ONE_OF_EACH, TWO_GROUPS

LIMITS = {
    "GMM_MAX_CONNECTIONS": "8",
    "GMM_HEAD_SECONDS": "1",
    "GMM_BODY_STALL_SECONDS": "1",
    "GMM_MIN_BODY_RATE": "1000",
}
PATIENCE_SECONDS = 60.0
NPY = "application/x-npy"
POST = (
    b"POST /models/groups/predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n\r\n"
)
LARGE = POST.replace(b"1000", b"1000000")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("slow") / "registry", LIMITS) as server:
        with server.client() as client:
            client.post("/models", json={"id": "groups", "n_components": 2})
            client.post("/models/groups/fit", json={"X": TWO_GROUPS})
        yield server


def connected(server: Server) -> socket.socket:
    return socket.create_connection(server.address, timeout=PATIENCE_SECONDS)


LAST_CHUNK = b"\r\n0\r\n\r\n"


def everything_from(connection: socket.socket) -> bytes:
    """Return all up to the end of the connection, or of an answer in chunks."""
    received = b""
    try:
        while not received.endswith(LAST_CHUNK) and (chunk := connection.recv(65536)):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def is_too_slow(answer: bytes) -> bool:
    head, _, content = answer.partition(b"\r\n\r\n")
    return head.startswith(b"HTTP/1.1 408 ") and json.loads(content)["code"] == "request_too_slow"


@pytest.mark.parametrize(
    "sent", [b"", b"\r\n", b"\r\n\r\n", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: a\r\n"]
)
def test_a_head_that_does_not_come_is_not_waited_for(server: Server, sent: bytes) -> None:
    with connected(server) as connection:
        connection.sendall(sent)

        assert is_too_slow(everything_from(connection))


def test_empty_lines_behind_an_answer_are_no_request(server: Server) -> None:
    with connected(server) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"\r\n")

        assert is_too_slow(everything_from(connection))


def test_a_head_may_not_be_drawn_out_byte_by_byte(server: Server) -> None:
    with connected(server) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n")
        begun = time.monotonic()
        try:
            while time.monotonic() - begun < PATIENCE_SECONDS:
                connection.sendall(b"X-Slow: x\r\n")
                time.sleep(0.1)
        except ConnectionError:
            pass

        assert time.monotonic() - begun < PATIENCE_SECONDS


@pytest.mark.parametrize("sent", [POST + b'{"X":', LARGE + bytes(300_000)])
def test_a_body_that_stalls_is_not_waited_for(server: Server, sent: bytes) -> None:
    with connected(server) as connection:
        connection.sendall(sent)

        assert is_too_slow(everything_from(connection))


def test_a_body_that_drips_is_not_waited_for(server: Server) -> None:
    answers: list[bytes] = []
    with connected(server) as connection:
        connection.sendall(POST)
        reading = threading.Thread(target=lambda: answers.append(everything_from(connection)))
        reading.start()
        try:
            while reading.is_alive():
                connection.sendall(b" ")
                time.sleep(0.2)
        except ConnectionError:
            pass
        reading.join(PATIENCE_SECONDS)

    assert answers
    # A reset may overtake the answer when bytes still arrive behind it.
    assert not answers[0] or is_too_slow(answers[0])


def answer_of(connection: socket.socket) -> bytes:
    """Return the status line and the content of one answer whose length is told."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    n_bytes = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    content = b""
    while len(content) < n_bytes:
        content += connection.recv(n_bytes - len(content))
    return head.partition(b"\r\n")[0] + content


@pytest.mark.parametrize(
    ("path", "status"), [(b"/models/groups/predict", b"200"), (b"/models/none/fit", b"404")]
)
def test_a_connection_is_idle_behind_a_body_that_came_in_parts(
    server: Server, path: bytes, status: bytes
) -> None:
    body = json.dumps({"X": ONE_OF_EACH}).encode()
    head = (
        b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % (path, len(body))
    )
    with connected(server) as connection:
        for part in (head, body[:5], body[5:]):
            connection.sendall(part)
            time.sleep(0.1)
        assert answer_of(connection).startswith(b"HTTP/1.1 " + status)
        connection.settimeout(3.0)
        with pytest.raises(TimeoutError):  # nothing comes that nobody has asked for
            connection.recv(1)
        connection.settimeout(PATIENCE_SECONDS)
        connection.sendall(head + body)

        assert answer_of(connection).startswith(b"HTTP/1.1 " + status)


def test_what_is_said_beside_a_body_has_an_end(server: Server) -> None:
    with connected(server) as connection:
        connection.sendall(
            POST.replace(b"Content-Length: 1000", b"Transfer-Encoding: chunked") + b"1;"
        )
        answers: list[bytes] = []
        reading = threading.Thread(target=lambda: answers.append(everything_from(connection)))
        reading.start()
        with suppress(ConnectionError):
            while reading.is_alive():
                connection.sendall(b"x" * 4096)
                time.sleep(0.01)
        reading.join()

    assert not answers[0] or answers[0].startswith(b"HTTP/1.1 400 ")


def test_a_connection_between_requests_may_wait_longer(server: Server) -> None:
    with server.client() as client:
        first = client.post("/models/groups/predict", json={"X": ONE_OF_EACH})
        time.sleep(2)
        second = client.post("/models/groups/predict", json={"X": ONE_OF_EACH})

    assert (first.status_code, second.status_code) == (200, 200)
    assert second.extensions["network_stream"] is first.extensions["network_stream"]


def question(verb: str, n_rows: int, *more: str) -> bytes:
    body = io.BytesIO()
    np.save(body, np.ones((n_rows, 2), dtype=np.float32))
    lines = [
        f"POST /models/groups/{verb} HTTP/1.1", "Host: a", f"Content-Type: {NPY}",
        f"Accept: {NPY}", f"Content-Length: {body.tell()}", *more,
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode() + body.getvalue()


def reading_little(server: Server) -> socket.socket:
    """Connect with little room for what is not read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    connection.settimeout(PATIENCE_SECONDS)
    connection.connect(server.address)
    return connection


def asking(server: Server, asked: bytes) -> socket.socket:
    """Connect and ask; anew where those before have not been seen to be gone yet."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        connection = reading_little(server)
        try:
            connection.sendall(asked)
        except OSError:
            connection.close()
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return connection


@pytest.mark.parametrize("more", [(), ("Connection: close",)], ids=["kept", "closed"])
@pytest.mark.parametrize("verb", ["predict_proba", "score_samples"])
def test_who_reads_no_answer_keeps_nobody_out(
    server: Server, verb: str, more: tuple[str, ...]
) -> None:
    held = [asking(server, question(verb, 1_000_000, *more)) for _ in range(8)]
    begun, status = time.monotonic(), 0
    while status != 200 and time.monotonic() - begun < PATIENCE_SECONDS:
        time.sleep(0.2)
        with suppress(httpx.TransportError), server.client() as client:
            status = client.get("/version").status_code  # health is answered beyond the bound
    answers = [everything_from(connection) for connection in held]
    for connection in held:
        connection.close()

    assert status == 200
    assert not all(answer.endswith(LAST_CHUNK) for answer in answers)


def test_who_reads_an_answer_slowly_gets_it_whole(server: Server) -> None:
    with reading_little(server) as connection:
        connection.sendall(question("score_samples", 1_000_000, "Connection: close"))
        received, begun = b"", time.monotonic()
        while time.monotonic() - begun < 4:
            received += connection.recv(20_000)
            time.sleep(0.05)
        received += everything_from(connection)

    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(LAST_CHUNK)


def test_who_still_sends_need_not_read(server: Server) -> None:
    asked = question("predict_proba", 1_500_000, "Connection: close")
    with reading_little(server) as connection:
        for begin in range(0, len(asked), 500_000):
            connection.sendall(asked[begin : begin + 500_000])
            time.sleep(0.15)
        received = everything_from(connection)

    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(LAST_CHUNK)


def test_more_connections_than_there_may_be_are_refused_at_once(tmp_path: Path) -> None:
    settings = {"GMM_MAX_CONNECTIONS": "8"}
    with running(tmp_path / "registry", settings) as server:
        held = [connected(server) for _ in range(8)]
        time.sleep(0.5)
        with connected(server) as late:
            answer = everything_from(late)
        for connection in held:
            connection.close()
        time.sleep(0.5)
        with server.client() as client:
            after = client.get("/livez")

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in answer.lower()
    assert b"too_many_connections" in answer
    assert after.status_code == 200


def test_of_more_connections_than_there_may_be_those_that_ask_for_health_are_answered(
    tmp_path: Path,
) -> None:
    def told(server: Server, request: bytes) -> bytes:
        with connected(server) as client:
            client.sendall(request)
            return everything_from(client)

    settings = {"GMM_MAX_CONNECTIONS": "8"}
    with running(tmp_path / "registry", settings) as server:
        held = [connected(server) for _ in range(8)]
        time.sleep(UNKNOWN_SECONDS + 1.0)  # until then they may be at the door
        begun = time.monotonic()
        health = [
            told(server, b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            for path in (b"/livez", b"/readyz", b"/v2/health/live", b"/v2/health/ready")
        ]
        seconds = time.monotonic() - begun
        others = [
            told(server, request)
            for request in (POST + bytes(1000), b"GET /livezz HTTP/1.1\r\nHost: a\r\n\r\n")
        ]
        for connection in held:
            connection.close()

    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in health)
    assert all(b"connection: close" in answer for answer in health)
    assert seconds < 2
    assert all(answer.startswith(b"HTTP/1.1 503 ") for answer in others)
    assert all(b"too_many_connections" in answer for answer in others)
