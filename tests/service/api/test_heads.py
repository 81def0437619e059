"""Large bodies are let in or refused at the head of their request, by the server's protocol."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import uvicorn
from uvicorn.server import ServerState

from service.api import connection
from service.api.connection import PORTION_BYTES, BoundedProtocol, ConnectionLimits
from service.api.short_way import LARGE_BODY_BYTES
from service.api.turns import Place, Turns
from tests.fuzz.wire import RecordingTransport
from tests.service.api.wire import NPY, to_npy
from tests.service.client import Client, serving
from tests.service.rows import ONE_OF_EACH, TWO_GROUPS

LARGE = to_npy(np.ones((LARGE_BODY_BYTES // 8, 2)))
SMALL = to_npy(np.array(ONE_OF_EACH))

LetIn = Callable[[], Place | None]


@pytest.fixture(scope="module")
def groups() -> Iterator[Client]:
    with serving() as client:
        client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
        client.post("/models/groups/fit", {"X": TWO_GROUPS})
        yield client


class Connection:
    """A client's end of one connection to the application."""

    def __init__(self, client: Client, let_in: LetIn) -> None:
        config = uvicorn.Config(client.app, log_config=None, access_log=False, lifespan="off")
        bounded = BoundedProtocol.bounded_by(ConnectionLimits(), let_in)
        self.tasks: set[asyncio.Task[None]] = set()
        state = ServerState()
        state.tasks = self.tasks
        self.protocol = bounded(config, state, {}, _loop=asyncio.get_running_loop())
        self.transport = RecordingTransport()
        self.transport.protocol = self.protocol
        self.protocol.connection_made(self.transport)

    async def send(self, *parts: bytes) -> bytes:
        """Send the parts one by one; return what has been answered when nothing goes on."""
        for part in parts:
            await self.transport.deliver(part)
            await asyncio.sleep(0)
        if self.tasks and not (self.protocol.cycle and self.protocol.cycle.more_body):
            await asyncio.wait(self.tasks)
        return bytes(self.transport.written)

    async def lose(self) -> None:
        self.transport.close()
        await asyncio.sleep(0)
        if self.tasks:
            await asyncio.wait(self.tasks)


def head(body: bytes, *more: str, path: str = "/models/groups/predict") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Type: {NPY}", *more]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode()


def no_place() -> None:
    """There is none."""


def answers(client: Client, let_in: LetIn, *parts: bytes) -> bytes:
    async def story() -> bytes:
        connection = Connection(client, let_in)
        answer = await connection.send(*parts)
        await connection.lose()
        return answer

    return client.portal.call(story)


def test_a_large_body_without_a_place_is_refused_before_it_comes(groups: Client) -> None:
    answer = answers(groups, no_place, head(LARGE, "X-Request-Id: mine"))

    told, _, content = answer.partition(b"\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 503 ")
    assert {b"retry-after: 1", b"connection: close", b"x-request-id: mine"} <= set(
        told.split(b"\r\n")
    )
    assert json.loads(content)["code"] == "overloaded"


def test_who_asks_before_sending_is_told_no(groups: Client) -> None:
    answer = answers(groups, no_place, head(LARGE, "Expect: 100-continue"))

    assert answer.startswith(b"HTTP/1.1 503 ")


def test_who_asks_before_sending_is_told_to_go_on(groups: Client) -> None:
    answer = answers(groups, Place, head(LARGE, "Expect: 100-continue"), b"", LARGE)

    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


ASKED = b"GET /models/groups HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST /models/groups/predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
LONG_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"a" * 70_000 + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("broken", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (CHUNKED + b"1\r\n[\r\nnone\r\n", 400),
        (LONG_HEAD, 431),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 400),
        (b"GET http://[::1 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"POST http://x@y@z/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12", 400),
    ],
)
@pytest.mark.parametrize("n_before", [1, 3])
def test_what_can_not_be_read_is_refused_behind_the_answers_before_it(
    groups: Client, broken: bytes, status: int, n_before: int
) -> None:
    asked = [ASKED] * n_before

    async def told(parts: list[bytes]) -> bytes:
        connection = Connection(groups, Place)
        for part in parts:
            await connection.transport.deliver(part)
            await asyncio.sleep(0)
        while connection.tasks:
            await asyncio.wait(connection.tasks)
        await connection.lose()
        return bytes(connection.transport.written)

    for parts in ([b"".join([*asked, broken])], [*asked, broken], [*asked, broken, ASKED]):
        answer = groups.portal.call(told, parts)

        statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", answer)]
        assert statuses == [200] * n_before + [status]


def test_what_comes_after_the_refusal_is_for_nobody(groups: Client) -> None:
    answer = answers(groups, no_place, head(LARGE) + LARGE[:1000], LARGE[1000:], head(SMALL))

    assert answer.count(b"HTTP/1.1 ") == 1


def test_of_what_comes_behind_the_last_answer_only_so_much_is_read(
    groups: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LINGER_BYTES", 1000)

    async def story() -> tuple[bytes, list[bool]]:
        last = Connection(groups, Place)
        answer = await last.send(head(SMALL, "Connection: close") + SMALL)
        stops = []
        for _ in range(2):
            await last.transport.deliver(LARGE[:600])
            stops.append(last.protocol.flow.read_paused)
        await last.lose()
        return answer, stops

    answer, stops = groups.portal.call(story)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert stops == [False, True]


def test_a_refusal_under_v2_has_the_shape_of_its_protocol(groups: Client) -> None:
    answer = answers(groups, no_place, head(LARGE, path="/v2/models/groups/infer"))

    assert set(json.loads(answer.partition(b"\r\n\r\n")[2])) == {"error"}


def test_a_small_body_needs_no_place(groups: Client) -> None:
    assert answers(groups, no_place, head(SMALL) + SMALL).startswith(b"HTTP/1.1 200 ")


def test_a_place_is_free_when_the_body_is_in(groups: Client) -> None:
    turns = Turns(1, queue_size=0, wait_seconds=1.0)

    answer = answers(groups, turns.let_in, head(LARGE), LARGE)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert turns.n_arriving == 0


def test_a_place_is_free_when_the_client_leaves(groups: Client) -> None:
    async def story() -> tuple[int, int]:
        turns = Turns(1, queue_size=0, wait_seconds=1.0)
        connection = Connection(groups, turns.let_in)
        await connection.send(head(LARGE), LARGE[:1000])
        before = turns.n_arriving
        await connection.lose()
        return before, turns.n_arriving

    assert groups.portal.call(story) == (1, 0)


def test_a_place_is_kept_only_so_long_for_a_body_that_does_not_come(
    groups: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.connection.ARRIVAL_SECONDS", 0.01)

    async def story() -> bytes:
        turns = Turns(1, queue_size=0, wait_seconds=1.0)
        slow, other = Connection(groups, turns.let_in), Connection(groups, turns.let_in)
        await slow.send(head(LARGE))
        while turns.n_arriving:  # noqa: ASYNC110  # a timer frees it
            await asyncio.sleep(0.01)
        answer = await other.send(head(LARGE), LARGE)
        await slow.lose()
        await other.lose()
        return answer

    assert groups.portal.call(story).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("n_bytes", [1, 1000, 65_536, PORTION_BYTES + 1])
def test_a_body_is_the_same_in_whatever_pieces_it_comes(groups: Client, n_bytes: int) -> None:
    rows = np.random.default_rng(0).normal(size=(150 if n_bytes == 1 else 150_000, 2))
    body = to_npy(rows)
    pieces = [body[begin : begin + n_bytes] for begin in range(0, len(body), n_bytes)]

    answer = answers(groups, Place, head(body, f"Accept: {NPY}"), *pieces)

    expected = groups.services.inference.open("groups").mixture.predict(rows)
    assert answer.endswith(expected.tobytes())
