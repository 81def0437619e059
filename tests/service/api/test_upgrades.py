"""Other protocols are wished for in vain: the request is answered as if they had not been."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.service.api.test_short_way import LONG_WAY, PREDICT, Answer, closed, received
from tests.service.api.wire import NPY, to_npy
from tests.service.client import Client

H2C = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAMAAABkAARAAAAAAAIA",
)
WEBSOCKET = ("Connection: keep-alive, Upgrade", "Upgrade: websocket")
OK = b"HTTP/1.1 200 OK\r\n"
SMALL, MIDDLING, LANDED = 3, 5_000, 150_000
"""Numbers of rows: answered at once, apart, and of a body in several portions."""

Asked = Callable[[int, tuple[str, ...]], tuple[bytes, bytes]]


def rows(n_rows: int) -> np.ndarray:
    return np.random.default_rng(n_rows).normal(3, 3, size=(n_rows, 2))


def chunked(body: bytes) -> bytes:
    pieces = [body[begin : begin + 50_000] for begin in range(0, len(body), 50_000)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])


def question(n_rows: int, wish: tuple[str, ...], *, path: str = PREDICT) -> tuple[bytes, bytes]:
    body = to_npy(rows(n_rows))
    return _head(wish, path, f"Content-Length: {len(body)}"), body


def question_in_chunks(n_rows: int, wish: tuple[str, ...]) -> tuple[bytes, bytes]:
    return _head(wish, PREDICT, "Transfer-Encoding: chunked"), chunked(to_npy(rows(n_rows)))


def _head(wish: tuple[str, ...], path: str, framing: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: a", *wish, f"Content-Type: {NPY}", f"Accept: {NPY}"]
    return "\r\n".join([*lines, framing, "", ""]).encode()


def labels(client: Client, n_rows: int) -> bytes:
    return client.services.inference.open("groups").mixture.predict(rows(n_rows)).tobytes()


@pytest.mark.parametrize("wish", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
@pytest.mark.parametrize("asked", [question, question_in_chunks])
@pytest.mark.parametrize("n_rows", [SMALL, MIDDLING, LANDED])
@pytest.mark.parametrize("is_in_one_read", [True, False])
def test_the_body_after_it_is_read(
    fitted: Client, wish: tuple[str, ...], asked: Asked, n_rows: int, *, is_in_one_read: bool
) -> None:
    head, body = asked(n_rows, wish)
    parts = [head + body] if is_in_one_read else [head[:40], head[40:], body[:7], body[7:]]

    told = Answer(received(fitted, *parts))

    assert told.status == 200
    assert told.content.endswith(labels(fitted, n_rows))


def test_it_is_answered_the_short_way(fitted: Client) -> None:
    fitted.post(PREDICT, {"X": [[1, 2]]})

    assert received(fitted, *question(SMALL, H2C), long_way=closed).startswith(OK)


def test_several_are_answered_in_order(fitted: Client) -> None:
    plain: tuple[str, ...] = ()
    asked = [
        question(3, plain), question(4, H2C), question(5, H2C, path=PREDICT + LONG_WAY),
        question(6, H2C), question(7, plain),
    ]  # fmt: skip

    told = received(fitted, b"".join(part for each in asked for part in each))

    contents = [each.partition(b"\r\n\r\n")[2] for each in told.split(OK)[1:]]
    assert contents == [
        received(fitted, *question(n_rows, plain)).partition(b"\r\n\r\n")[2]
        for n_rows in range(3, 8)
    ]


def test_a_request_without_a_body_and_what_follows_it_are_answered(fitted: Client) -> None:
    get = "\r\n".join(["GET /livez HTTP/1.1", "Host: a", *H2C, "", ""]).encode()

    assert received(fitted, get + get, *question(SMALL, H2C)).count(OK) == 3


def test_the_head_is_not_longer_for_it(fitted: Client) -> None:
    lines = ["GET /livez HTTP/1.1", "Host: a", *H2C, *(f"X-{n}: {'x' * 1000}" for n in range(40))]

    assert received(fitted, "\r\n".join([*lines, "", ""]).encode()).startswith(b"HTTP/1.1 431 ")


def test_nobody_is_connected_to_elsewhere(fitted: Client) -> None:
    told = received(fitted, b"CONNECT other:80 HTTP/1.1\r\nHost: other\r\n\r\n", b"secret")

    assert told.startswith(b"HTTP/1.1 4")
    assert told.count(b"HTTP/1.1 ") == 1
