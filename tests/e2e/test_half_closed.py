"""Clients that end what they send, and read on (RFC 9112, 9.6); and those that are gone."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.e2e.server import Server, running
from tests.service.api.wire import NPY, to_npy
from tests.service.rows import ONE_OF_EACH, TWO_GROUPS

OK = b"HTTP/1.1 200 OK\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
PREDICT = "POST /models/groups/predict"
LONG = {"id": "long", "n_components": 8, "tol": 0, "max_iter": 100_000, "n_init": 100}
ANSWER_SECONDS = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("half") / "registry") as server:
        with server.client() as client:
            client.post("/models", json={"id": "groups", "n_components": 2, "random_state": 0})
            client.post("/models/groups/fit?wait=60", json={"X": TWO_GROUPS})
        yield server


def asked(line: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"{line} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def of_rows(count: int, answered: str = NPY) -> bytes:
    X = np.random.default_rng(0).normal(3, 3, size=(count, 2))
    return asked(PREDICT, to_npy(X), f"Content-Type: {NPY}", f"Accept: {answered}")


def in_chunks(count: int) -> bytes:
    whole = of_rows(count)
    head, _, body = whole.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    pieces = [body[begin : begin + 100_000] for begin in range(0, len(body), 100_000)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])
    return b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", b""]) + chunks


def everything(server: Server, sent: bytes) -> bytes:
    """Send, end sending, and return all up to the end of the connection."""
    with socket.create_connection(server.address, timeout=ANSWER_SECONDS) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        received = b""
        with suppress(ConnectionResetError):
            while part := client.recv(1024**2):
                received += part
        return received


SMALL = json.dumps({"X": ONE_OF_EACH}).encode()


@pytest.mark.parametrize(
    "sent",
    [
        asked(PREDICT, SMALL, "Content-Type: application/json"),
        asked(PREDICT + "?version=1", SMALL, "Content-Type: application/json"),
        asked("GET /models"),
        of_rows(20_000),
        of_rows(200_000),
        of_rows(200_000, "text/csv"),
        in_chunks(200_000),
    ],
    ids=[
        "at once", "the long way", "without a body", "apart", "in portions", "answered in portions",
        "in chunks",
    ],
)  # fmt: skip
def test_what_came_in_whole_is_answered(server: Server, sent: bytes) -> None:
    received = everything(server, sent)

    assert received.removeprefix(CONTINUE).startswith(OK)
    assert is_whole(received)


def is_whole(answer: bytes) -> bool:
    head, _, content = answer.removeprefix(CONTINUE).partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if b"content-length" in line]
    if lengths:
        return len(content) == int(lengths[0].split(b":")[1])
    return content.endswith(b"\r\n0\r\n\r\n")


def test_several_are_answered_in_order(server: Server) -> None:
    received = everything(server, of_rows(20_000) + asked("GET /livez") + asked("GET /version"))

    assert received.count(OK) == 3
    assert b'"version"' in received.rpartition(OK)[2]


@pytest.mark.parametrize(
    "sent",
    [of_rows(3)[:-1], of_rows(20_000)[:-1], of_rows(200_000)[:-9], in_chunks(200_000)[:-5]],
    ids=["small", "apart", "in portions", "in chunks"],
)
def test_a_body_that_is_cut_off_has_no_whole_answer(server: Server, sent: bytes) -> None:
    received = everything(server, sent)

    assert not is_whole(received)


def test_who_waits_for_long_is_told_so_and_answered(server: Server) -> None:
    with server.client() as client:
        client.post("/models", json=LONG)
        job = begun_job(client)
        received = everything(server, asked(f"GET /jobs/{job}?wait=1"))
        client.post(f"/jobs/{job}/cancel")

    assert received.startswith(CONTINUE + OK)


def begun_job(client: httpx.Client) -> str:
    X = np.random.default_rng(0).normal(size=(3000, 2)).tolist()
    answer = client.post("/models/long/fit?wait=0", json={"X": X})
    assert answer.status_code == 202
    return str(answer.json()["id"])


def test_who_is_gone_is_let_go(server: Server) -> None:
    """The connection of one that waits for a minute ends long before."""
    with server.client() as client:
        client.post("/models", json=LONG)
        job = begun_job(client)
        gone = socket.create_connection(server.address, timeout=ANSWER_SECONDS)
        with closing(gone):
            port = gone.getsockname()[1]
            gone.sendall(asked(f"GET /jobs/{job}?wait=60"))
            time.sleep(0.3)
            assert has_connection(server, port)
        begun = time.monotonic()
        while has_connection(server, port):
            assert time.monotonic() - begun < 10
            time.sleep(0.05)
        client.post(f"/jobs/{job}/cancel")


def has_connection(server: Server, port: int) -> bool:
    """Tell whether the service's end of the connection from the port is there."""
    ends = f":{server.address[1]:04X} ", f":{port:04X} "
    table = Path("/proc/net/tcp").read_text(encoding="ascii")
    lines = [line.split() for line in table.splitlines()]
    return any(
        f"{line[1]} ".endswith(ends[0]) and f"{line[2]} ".endswith(ends[1]) for line in lines
    )
