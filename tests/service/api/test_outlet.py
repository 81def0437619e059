"""Answers of computing threads on their way out, over sockets."""

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPResponse
from typing import BinaryIO

import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray
from uvicorn.server import ServerState

from service.api.connection import GONE_SECONDS, BoundedProtocol, ConnectionLimits
from service.api.outlet import MOST_OUTLETS, MOST_PARTS, Outlet
from service.api.payloads import codec_of
from service.api.payloads.values import Body, DataAnswer, DataPayload, Expected
from service.api.short_way import ShortWay
from tests.service.api.test_short_way import LONG_WAY, Answer, received, sent
from tests.service.client import Client, serving
from tests.service.rows import TWO_GROUPS

NPY = "application/x-npy"
PROBABILITIES = "/models/groups/predict_proba"
X = np.random.default_rng(0).normal(size=(40_000, 2))
SECONDS = 20.0
SEND = Outlet.send


@pytest.fixture(scope="module")
def groups() -> Iterator[Client]:
    with serving() as client:
        client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
        client.post("/models/groups/fit", {"X": TWO_GROUPS})
        client.post(PROBABILITIES, {"X": TWO_GROUPS})
        yield client


@pytest.fixture
def port(groups: Client) -> Iterator[int]:
    with served(groups, socket.socket()) as port:
        yield port


@contextmanager
def served(client: Client, listener: socket.socket) -> Iterator[int]:
    """Serve on a port of its own."""
    config = uvicorn.Config(client.app, log_config=None, access_log=False, lifespan="off")
    bounded = BoundedProtocol.bounded_by(ConnectionLimits(), short_way=ShortWay(client.services))

    async def opened() -> asyncio.Server:
        loop, state = asyncio.get_running_loop(), ServerState()
        return await loop.create_server(
            lambda: bounded(config, state, {}, _loop=loop), sock=listener
        )

    async def close(server: asyncio.Server) -> None:
        server.close()

    listener.bind(("127.0.0.1", 0))
    server = client.portal.call(opened)
    yield listener.getsockname()[1]
    client.portal.call(close, server)
    wait_until(lambda: Outlet._n_open == 0)


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


def question(rows: NDArray[np.float64] = X, **headers: str) -> bytes:
    body = codec_of(NPY).encode(DataAnswer("m", 1, {"X": rows}))
    given = {"content-type": NPY, "accept": NPY, **headers}
    return b"".join(sent(PROBABILITIES, body, given))


def expected(client: Client, rows: NDArray[np.float64] = X) -> bytes:
    body = codec_of(NPY).encode(DataAnswer("m", 1, {"X": rows}))
    head, body = sent(PROBABILITIES + LONG_WAY, body, {"content-type": NPY, "accept": NPY})
    return Answer(received(client, head, body)).content


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as client:
        yield client


def next_answer(client: socket.socket) -> HTTPResponse:
    response = HTTPResponse(client)
    response.begin()
    assert response.status == 200
    return response


def next_of(answers: BinaryIO) -> bytes:
    """Return the content of the next of several answers."""
    head = b"".join(iter(answers.readline, b"\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return answers.read(length)


def test_a_kept_connection_gets_one_answer_after_another(
    groups: Client, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def noted(outlet: Outlet, parts: Sequence[Body]) -> list[Body]:
        threads.append(threading.current_thread())
        return SEND(outlet, parts)

    monkeypatch.setattr(Outlet, "send", noted)
    right = expected(groups)
    with connected(port) as client:
        for _ in range(20):
            client.sendall(question())
            assert next_answer(client).read() == right
    assert len(threads) == 20
    assert groups.portal.call(threading.current_thread) not in threads


def test_several_connections_get_their_own_answers(groups: Client, port: int) -> None:
    tables = [X + shift for shift in range(6)]
    right = [expected(groups, rows) for rows in tables]
    wrong: list[int] = []

    def ask(place: int) -> None:
        with connected(port) as client:
            for _ in range(10):
                client.sendall(question(tables[place]))
                if next_answer(client).read() != right[place]:
                    wrong.append(place)

    clients = [threading.Thread(target=ask, args=(place,)) for place in range(len(tables))]
    for each in clients:
        each.start()
    for each in clients:
        each.join(SECONDS)
    assert wrong == []


@pytest.mark.parametrize("n_small", [1, 400])
def test_the_head_of_one_question_is_not_taken_for_that_of_another(
    groups: Client, port: int, n_small: int
) -> None:
    """A small question and the beginning of a large one come in one read."""
    small, large = question(X[:n_small], known=str(n_small)), question()
    with connected(port) as client:
        client.sendall(small + large[:100_000])
        time.sleep(0.05)
        client.sendall(large[100_000:])
        with client.makefile("rb") as answers:
            told = [next_of(answers) for _ in range(2)]
    assert told == [expected(groups, X[:n_small]), expected(groups)]
    right = expected(groups, X[:n_small])
    for _ in range(2):
        with connected(port) as client:
            client.sendall(small)
            assert next_answer(client).read() == right


def test_who_ends_sending_after_a_known_question_gets_its_answer(
    groups: Client, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with connected(port) as client:
        for _ in range(2):  # its head is known then
            client.sendall(question())
            next_answer(client).read()
    right = expected(groups)
    for _ in range(20):
        with connected(port) as client:
            client.sendall(question())
            client.shutdown(socket.SHUT_WR)
            assert next_answer(client).read() == right
            assert client.recv(1) == b""
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_nothing_comes_between_the_parts_that_a_thread_sends(
    groups: Client, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a client that sends no more has gone is not asked in the middle of its answer."""

    def slowly(outlet: Outlet, parts: Sequence[Body]) -> list[Body]:
        SEND(outlet, [parts[0]])
        time.sleep(5 * GONE_SECONDS)
        return SEND(outlet, parts[1:])

    monkeypatch.setattr(Outlet, "send", slowly)
    with connected(port) as client:
        client.sendall(question())
        client.shutdown(socket.SHUT_WR)
        assert next_answer(client).read() == expected(groups)


@pytest.mark.parametrize("blank", [" ", "\t"])
def test_blanks_behind_a_value_are_none_of_it(groups: Client, port: int, blank: str) -> None:
    head, _, body = question().partition(b"\r\n\r\n")
    with connected(port) as client:
        for _ in range(2):
            client.sendall(head + blank.encode() + b"\r\n\r\n" + body)
            assert next_answer(client).read() == expected(groups)


def test_questions_sent_in_one_go_are_answered_in_their_order(groups: Client, port: int) -> None:
    counts = [40_000, 3, 12_000, 39_000, 3, 3, 25_000]
    with connected(port) as client:
        whole = b"".join(question(X[:count]) for count in counts)
        sending = threading.Thread(target=client.sendall, args=(whole,))
        sending.start()
        with client.makefile("rb") as answers:
            for count in counts:
                assert next_of(answers) == expected(groups, X[:count])
        sending.join(SECONDS)


def test_a_slow_reader_gets_the_whole_answer(
    groups: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = lengths_left(monkeypatch, Outlet.send)
    right = expected(groups)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)  # those it accepts, too
    with served(groups, listener) as port, closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(SECONDS)
        client.connect(("127.0.0.1", port))
        for _ in range(2):
            client.sendall(question())
            time.sleep(0.1)
            assert next_answer(client).read() == right
    assert len(left) == 2
    assert 0 < max(left) < len(right)


def sent_by_halves(outlet: Outlet, parts: Sequence[Body]) -> list[Body]:
    """Send the head alone: what a system takes at once depends on its buffers."""
    return [*SEND(outlet, parts[:1]), *parts[1:]]


def lengths_left(
    monkeypatch: pytest.MonkeyPatch, send: Callable[[Outlet, Sequence[Body]], list[Body]]
) -> list[int]:
    """Return what is filled with how many bytes each thread left to the loop."""
    left: list[int] = []

    def noted(outlet: Outlet, parts: Sequence[Body]) -> list[Body]:
        rest = send(outlet, parts)
        left.append(sum(map(len, rest)))
        return rest

    monkeypatch.setattr(Outlet, "send", noted)
    return left


def test_an_answer_of_which_a_part_is_left_is_ended_before_the_next(
    groups: Client, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = lengths_left(monkeypatch, sent_by_halves)
    right = expected(groups)
    with connected(port) as client:
        for _ in range(5):
            client.sendall(question())
            assert next_answer(client).read() == right
    assert left == [len(right)] * 5


def test_who_wants_the_connection_closed_gets_the_answer_before(groups: Client, port: int) -> None:
    with connected(port) as client:
        client.sendall(question(connection="close"))
        answer = next_answer(client)
        assert answer.getheader("connection") == "close"
        assert answer.read() == expected(groups)
        assert client.recv(1) == b""


def test_who_goes_away_in_the_middle_leaves_nothing_behind(
    groups: Client, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, over = threading.Event(), threading.Event()
    codec = codec_of(NPY)
    decode = codec.decode

    def held(_: object, body: Body, told: Expected) -> DataPayload:
        begun.set()
        over.wait(SECONDS)
        return decode(body, told)

    right = expected(groups)
    with monkeypatch.context() as patched, ExitStack() as clients:
        patched.setattr(type(codec), "decode", held)
        client = clients.enter_context(connected(port))
        client.sendall(question())
        assert begun.wait(SECONDS)
        client.close()
        others = [clients.enter_context(connected(port)) for _ in range(3)]
        for other in others:
            other.sendall(question())
        over.set()
        assert [next_answer(other).read() == right for other in others] == [True] * 3
    wait_until(lambda: Outlet._n_open == 0)


def test_an_answer_that_was_sent_is_told_of_though_its_client_is_gone(
    groups: Client, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(10):
            with connected(port) as client:
                client.sendall(question())
                next_answer(client).read()
        wait_until(lambda: told(caplog) == 10)


def told(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.message == "request" for record in caplog.records)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    with ExitStack() as stack:
        here, there = map(stack.enter_context, socket.socketpair())
        here.setblocking(False)
        yield here, there


def outlet_of(end: socket.socket) -> Outlet:
    outlet = Outlet.of(end.fileno())
    assert outlet is not None
    return outlet


def test_what_the_system_does_not_take_is_left(ends: tuple[socket.socket, socket.socket]) -> None:
    here, there = ends
    parts: list[Body] = [b"head", os.urandom(4_000_000), b"", memoryview(bytes(range(256)))]
    with closing(outlet_of(here)) as outlet:
        left = outlet.send(parts)
        n_sent = sum(map(len, parts)) - sum(map(len, left))
        assert 0 < n_sent < 4_000_000
        assert outlet.send([b"more"]) == [b"more"]
        taken = b""
        while len(taken) < n_sent:
            taken += there.recv(2**20)
    assert taken + b"".join(left) == b"".join(parts)


def test_of_more_parts_than_are_sent_at_once_the_others_are_left(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    with closing(outlet_of(ends[0])) as outlet:
        assert outlet.send([b"x"] * (MOST_PARTS + 2)) == [b"x"] * 2


def test_nothing_is_taken_by_a_connection_that_is_gone(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ends[1].close()
    with closing(outlet_of(ends[0])) as outlet:
        assert outlet.send([b"a", b"b"]) == [b"a", b"b"]


def test_it_outlives_the_descriptor_it_was_made_of(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    here, there = ends
    with closing(outlet_of(here)) as outlet:
        here.close()
        assert outlet.send([b"late"]) == []
        assert there.recv(9) == b"late"
    assert there.recv(1) == b""


def test_few_connections_have_one(ends: tuple[socket.socket, socket.socket]) -> None:
    descriptor = ends[0].fileno()
    made = [Outlet.of(descriptor) for _ in range(MOST_OUTLETS)]
    assert Outlet.of(descriptor) is None
    for outlet in made:
        assert outlet is not None
        outlet.close()
    again = Outlet.of(descriptor)
    assert again is not None
    again.close()
