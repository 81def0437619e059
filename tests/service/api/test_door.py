"""Who is met at the door while there is no place: the loop's own words are the measure."""

import asyncio
import errno
import json
import logging
import os
import random
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from http.client import HTTPConnection
from typing import Any, TypeVar

import numpy as np
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.api import door as door_package
from service.api.connection import BoundedProtocol, ConnectionLimits
from service.api.door import RUSH, RUSH_SECONDS, Door, Entrance
from service.api.door.guard import (
    CALM_SECONDS,
    MOST_LEAVING,
    SHORT_SECONDS,
    UNKNOWN_SECONDS,
    has_left,
)
from service.api.door.heads import LARGE, MIDDLING, MIDDLING_BODY_BYTES, judge
from service.api.landing import landing_of
from service.api.services import Threads
from service.api.short_way import LARGE_BODY_BYTES
from service.api.turns import Place
from tests.fuzz.wire import answered

# Elsewhere there is no guard, and the loop accepts and refuses as the other tests have it.
pytestmark = pytest.mark.skipif(
    not door_package.IS_AVAILABLE, reason="the guard needs calls that only Linux has"
)

T = TypeVar("T")


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    door_package.warm_up()


QUEUE_SIZE = 2
MUCH = LARGE_BODY_BYTES + 1
ANSWERED = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n%d" % MUCH
OK, REFUSED = b"HTTP/1.1 200 ", b"HTTP/1.1 503 "
REQUEST_ID = re.compile(rb"[0-9a-f]{32}")


def head(*lines: str, target: str = "/models/m/predict", length: int = MUCH) -> bytes:
    first = [f"POST {target} HTTP/1.1", "Host: a", f"Content-Length: {length}"]
    return "\r\n".join([*first, *lines, "", ""]).encode()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with how many bytes have come."""
    landing = landing_of(scope)
    receive = receive if landing is None else landing.taking(receive)
    count, has_more = 0, True
    while has_more:
        message = await receive()
        count += len(message.get("body", b""))
        has_more = message.get("more_body", False)
    content = str(count).encode()
    headers = [(b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


class House:
    """A loop that serves behind a door."""

    def __init__(self, limits: ConnectionLimits, queue_size: int) -> None:
        self.threads = Threads(queue_size=queue_size)
        self.door = Door(self.threads)
        self.kept: list[Place] = []
        self.servers: list[asyncio.Server] = []
        self.state = ServerState()
        self.config = config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off"
        )
        config.load()
        bounded = BoundedProtocol.bounded_by(limits, self.door.let_in, arrived=self.door.arrived)
        self._protocol = lambda: bounded(config, self.state, {})
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address: tuple[str, int] = self._listener.getsockname()

    @property
    def n_free(self) -> int:
        return self.threads.places[0]

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        listener = self._listener.dup()
        self.servers.append(await loop.create_server(self._protocol, sock=self._listener))
        self.door.open(Entrance(listener, self.servers, self._protocol, 64))

    async def fill(self) -> None:
        """Take all places, and call the guard as one does for whom there is none."""
        while (place := self.door.let_in()) is not None:
            self.kept.append(place)
        await asyncio.sleep(0.1)

    async def close(self) -> None:
        await self.door.close()
        for server in self.servers:
            server.close()
        for place in self.kept:
            place.free()
        for connection in list(self.state.connections):
            connection.shutdown()


@asynccontextmanager
async def house(
    *,
    is_full: bool = True,
    limits: ConnectionLimits = BoundedProtocol.limits,
    queue_size: int = QUEUE_SIZE,
) -> AsyncIterator[House]:
    built = House(limits, queue_size)
    await built.open()
    try:
        if is_full:
            await built.fill()
        yield built
    finally:
        await built.close()
        await asyncio.sleep(0.05)


def within(story: Callable[[], Awaitable[T]]) -> T:
    async def timed() -> T:
        return await asyncio.wait_for(story(), 30)

    return asyncio.run(timed())


async def in_thread(call: Callable[..., T], *args: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, call, *args)


def asked(address: tuple[str, int], *parts: bytes, pause: float = 0.0) -> bytes:
    """Send the parts, and return all that is answered until the other end closes or is silent."""
    with socket.create_connection(address, timeout=5) as client:
        for part in parts:
            client.sendall(part)
            time.sleep(pause)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while part := client.recv(65536):
            answer += part
        return answer


def refused_by_loop(*parts: bytes) -> bytes:
    class Full(BoundedProtocol):
        let_in = staticmethod(lambda: None)

    return asyncio.run(answered(app, *parts, protocol_class=Full))


def verdict(text: bytes) -> tuple[int, bool, bytes]:
    kind, is_v2, begin, end = judge(np.frombuffer(text, dtype=np.uint8), len(text))
    return kind, is_v2, text[begin:end]


@pytest.mark.parametrize(
    ("target", "is_v2"),
    [
        ("/models/m/predict", False),
        ("/v2", True),
        ("/v2/models/m/infer", True),
        ("/v2x", False),
        ("/v2?a=b", False),
        ("/V2/models", False),
    ],
)
def test_a_head_with_a_large_body_is_known(target: str, is_v2: bool) -> None:
    assert verdict(head(target=target)) == (LARGE, is_v2, b"")


@pytest.mark.parametrize("name", ["X-Request-Id", "x-request-id", "X-REQUEST-ID"])
@pytest.mark.parametrize("space", ["", " ", "\t  "])
def test_the_id_of_a_request_is_found(name: str, space: str) -> None:
    assert verdict(head(f"{name}:{space}it-is.1{space}", "A: b")) == (LARGE, False, b"it-is.1")


@pytest.mark.parametrize("length", [MIDDLING_BODY_BYTES + 1, LARGE_BODY_BYTES])
def test_a_body_that_takes_its_time_on_the_loop_is_known(length: int) -> None:
    assert verdict(head(length=length)) == (MIDDLING, False, b"")
    assert verdict(head(length=MIDDLING_BODY_BYTES))[0] != MIDDLING


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "é"])
def test_an_id_that_is_none_is_left_out(given: str) -> None:
    assert verdict(head(f"X-Request-Id: {given}")) == (LARGE, False, b"")


@pytest.mark.parametrize(
    "text",
    [
        head(length=LARGE_BODY_BYTES),
        head(length=MUCH)[:-1],
        head("Content-Length: 1"),
        head("Transfer-Encoding: chunked"),
        head("X-Request-Id: a", "X-Request-Id: b"),
        head(" folded: line"),
        head("no colon"),
        head(": no name"),
        head("a\x00b: c"),
        head("a: b\nc: d"),
        head("Content-Length : 1"),
        head().replace(b"POST", b"GET"),
        head().replace(b"HTTP/1.1", b"HTTP/1.0"),
        head().replace(b"HTTP/1.1", b"HTTP/1.1 "),
        head().replace(b"/models", b"/mod els"),
        head().replace(str(MUCH).encode(), b"+" + str(MUCH).encode()),
        head().replace(str(MUCH).encode(), b"9" * 19),
        head().replace(str(MUCH).encode(), b""),
        b"",
        b"POST ",
        b"\r\n\r\n",
    ],
)
def test_what_is_unusual_is_for_the_loop(text: bytes) -> None:
    assert verdict(text)[0] != LARGE


def test_no_head_is_refused_at_the_door_that_the_loop_does_not_refuse_alike() -> None:
    draw = random.Random(0)
    plain = head("X-Request-Id: mine", "Accept: a/b", "Expect: 100-continue")
    parts = [
        b"\r\n",
        b" ",
        b":",
        b"\t",
        b"\x00",
        b"POST",
        b"HTTP/1.1",
        b"content-length: 9",
        b"/v2",
    ]
    n_large = 0
    for _ in range(3000):
        text = bytearray(plain)
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(len(text))
            width = draw.choice((0, 0, 1, 1, 2))
            new = draw.choice([*parts, bytes([draw.randrange(256)])])
            text[place : place + width] = draw.choice((b"", new))
        if verdict(bytes(text))[0] == LARGE:
            n_large += 1
            told = refused_by_loop(bytes(text))
            assert told.startswith(REFUSED), bytes(text)
            assert b'"overloaded"' in told or b"can be computed" in told
    assert n_large > 500


@pytest.mark.parametrize("target", ["/models/m/predict", "/v2/models/m/infer"])
@pytest.mark.parametrize("request_id", ["mine", "m" * 128])
def test_a_refusal_at_the_door_is_the_loops_to_the_byte(target: str, request_id: str) -> None:
    request = head(f"X-Request-Id: {request_id}", target=target)

    async def story() -> bytes:
        async with house() as full:
            return await in_thread(asked, full.address, request)

    assert within(story) == refused_by_loop(request)


def test_a_refusal_has_an_id_of_its_own_where_none_was_given() -> None:
    async def story() -> list[bytes]:
        async with house() as full:
            return [await in_thread(asked, full.address, head()) for _ in range(20)]

    answers = within(story)

    ids = [REQUEST_ID.findall(answer) for answer in answers]
    assert all(len(set(each)) == 1 and len(each) >= 2 for each in ids)
    assert len({each[0] for each in ids}) == 20
    for answer in answers:
        told, _, content = answer.partition(b"\r\n\r\n")
        assert f"content-length: {len(content)}".encode() in told
        assert json.loads(content)["code"] == "overloaded"


def test_what_needs_no_place_is_answered_all_the_same() -> None:
    async def story() -> list[bytes]:
        async with house() as full:
            return [
                await in_thread(asked, full.address, head(length=3) + b"abc"),
                await in_thread(asked, full.address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
                await in_thread(asked, full.address, b"nonsense\r\n\r\n"),
            ]

    small, without_body, nonsense = within(story)
    assert small.startswith(OK)
    assert small.endswith(b"3")
    assert without_body.startswith(OK)
    assert nonsense.startswith(b"HTTP/1.1 400 ")


def test_who_asks_for_little_goes_before_many_who_ask_for_more() -> None:
    """Their connections are taken a few in each turn of the loop."""
    n_middling, length = 200, MIDDLING_BODY_BYTES + 1
    order: list[bytes] = []

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        order.append(scope["method"].encode())
        time.sleep(0.002)  # noqa: ASYNC251  # it is the loop that is busy
        await app(scope, receive, send)

    async def story() -> None:
        async with house() as full:
            full.config.loaded_app = noting
            clients = []
            for _ in range(n_middling):  # not more at once than the system keeps for the door
                client = socket.create_connection(full.address, timeout=5)
                client.sendall(head(length=length) + bytes(length))
                clients.append(client)
                time.sleep(0.002)  # noqa: ASYNC251  # the loop is busy here, too
            little = socket.create_connection(full.address, timeout=5)
            little.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(0.5)  # noqa: ASYNC251  # so that all are handed over before the loop goes on
            first, *others = clients
            assert (await in_thread(first.recv, len(OK))) == OK
            late = socket.create_connection(full.address, timeout=5)
            late.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\n\r\n")
            for client in (*others, little, late):
                assert (await in_thread(client.recv, len(OK))) == OK
                client.close()
            first.close()

    within(story)
    assert len(order) == n_middling + 2
    assert order.index(b"PUT") < n_middling  # which came when the others had been taken note of
    assert order.index(b"GET") < 3 * n_middling // 4  # it was the last one


def test_a_head_in_two_parts_is_the_loops_to_refuse() -> None:
    async def story() -> bytes:
        async with house() as full:
            text = head()
            return await in_thread(lambda: asked(full.address, text[:20], text[20:], pause=0.2))

    assert within(story).startswith(REFUSED)


def test_who_says_nothing_yet_is_handed_over_in_time() -> None:
    async def story() -> bytes:
        async with house() as full:
            silent = socket.create_connection(full.address, timeout=5)
            await asyncio.sleep(UNKNOWN_SECONDS + 0.3)
            assert len(full.state.connections) == 1
            with closing(silent):
                silent.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                return await in_thread(silent.recv, 1000)

    assert within(story).startswith(OK)


def test_who_leaves_without_a_word_is_forgotten() -> None:
    async def story() -> int:
        async with house() as full:
            for _ in range(5):
                socket.create_connection(full.address).close()
            await asyncio.sleep(0.2)
            answer = await in_thread(asked, full.address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert answer.startswith(OK)
            return len(full.state.connections)

    assert within(story) == 0


def test_a_place_that_is_free_is_for_the_next_one_and_no_other() -> None:
    async def story() -> list[bytes]:
        async with house() as full:
            full.kept.pop().free()
            first = socket.create_connection(full.address, timeout=5)
            with closing(first):
                first.sendall(head())
                await asyncio.sleep(0.2)
                assert full.n_free == 0
                between = await in_thread(asked, full.address, head())
                first.sendall(bytes(MUCH))
                answer = await in_thread(first.makefile("rb").read, len(ANSWERED))
            await asyncio.sleep(0.05)
            assert full.n_free == 1
            return [answer, between]

    answer, between = within(story)
    assert answer == ANSWERED
    assert between.startswith(REFUSED)


def test_who_is_let_in_and_leaves_gives_the_place_back() -> None:
    async def story() -> list[int]:
        async with house() as full:
            full.kept.pop().free()
            with socket.create_connection(full.address) as first:
                first.sendall(head())
                await asyncio.sleep(0.2)
                told = [full.n_free]
            await asyncio.sleep(0.2)
            return [*told, full.n_free]

    assert within(story) == [0, 1]


@pytest.mark.parametrize("count", [1, 8])
def test_who_sends_all_before_reading_reads_why(count: int) -> None:
    """As ``http.client`` does, with more than the system's buffers hold."""
    body = bytes(12 * 1024**2)

    def ask(address: tuple[str, int]) -> tuple[int, str]:
        with closing(HTTPConnection(*address, timeout=10)) as connection:
            connection.request("POST", "/models/m/predict", body)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())["code"]

    async def story() -> list[tuple[int, str]]:
        async with house() as full:
            asking = [in_thread(ask, full.address) for _ in range(count)]
            return list(await asyncio.gather(*asking))

    assert set(within(story)) == {(503, "overloaded")}


def test_who_left_with_a_body_half_sent_is_told_from_who_sends_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client, other = (socket.create_connection(listener.getsockname()) for _ in range(2))
        served, served_other = listener.accept()[0], listener.accept()[0]
        with served, served_other, other:
            for each in (client, other):
                each.setblocking(False)
                with suppress(BlockingIOError):
                    while True:
                        each.send(bytes(1024**2))
            client.close()
            room = np.empty(2, np.int32)
            assert has_left(served.fileno(), room)
            assert not has_left(served_other.fileno(), room)
            assert other.recv(100) == b"\r\n"


def test_who_reads_to_the_end_finds_the_answer_and_an_empty_line() -> None:
    async def story() -> bytes:
        async with house() as full:
            client = socket.create_connection(full.address, timeout=5)
            with closing(client):
                client.sendall(head())
                return await in_thread(client.makefile("rb").read)

    told, _, content = within(story).partition(b"\r\n\r\n")
    length = int(told.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    assert content[length:] == b"\r\n"
    assert json.loads(content[:length])["code"] == "overloaded"


def test_the_queue_is_kept_short_while_others_are_refused() -> None:
    """And may be as long as it is allowed to when the last refusal is past."""

    def status(address: tuple[str, int], *parts: bytes) -> bytes:
        with socket.create_connection(address, timeout=5) as client:
            client.sendall(b"".join(parts))
            return client.recv(len(OK))

    async def story() -> tuple[list[bytes], bytes]:
        async with house(queue_size=100) as full:
            seconds, early = SHORT_SECONDS, []
            while seconds >= SHORT_SECONDS:  # the machine may be busy
                await full.fill()
                freed = [full.kept.pop() for _ in range(2)]
                begun = time.monotonic()
                early = [await in_thread(status, full.address, head()) for _ in freed]
                for place in freed:
                    place.free()
                early.append(await in_thread(status, full.address, head()))
                seconds = time.monotonic() - begun
            await asyncio.sleep(3 * SHORT_SECONDS)
            return early, await in_thread(status, full.address, head(), bytes(MUCH))

    early, late = within(story)
    assert early == [REFUSED] * 3
    assert late == OK


def test_more_than_may_linger_are_refused_too() -> None:
    async def story() -> set[bytes]:
        async with house() as full:
            clients = [
                socket.create_connection(full.address, timeout=5) for _ in range(MOST_LEAVING + 40)
            ]
            for client in clients:
                client.sendall(head() + bytes(1000))
            answers = [await in_thread(client.recv, 13) for client in clients]
            for client in clients:
                client.close()
            return set(answers)

    assert within(story) == {REFUSED}


def test_the_loop_accepts_by_itself_again_when_it_is_calm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def story() -> list[int]:
        async with house() as full:
            told = [len(full.servers)]
            for _ in range(7):
                await in_thread(asked, full.address, head())
            for place in full.kept:
                place.free()
            await asyncio.sleep(CALM_SECONDS + 0.5)
            told.append(len(full.servers))
            answer = await in_thread(asked, full.address, head() + bytes(MUCH))
            assert answer.startswith(OK)
            await full.fill()
            told.append(len(full.servers))
            assert (await in_thread(asked, full.address, head())).startswith(REFUSED)
            return told

    assert within(story) == [0, 1, 0]
    counts = [
        getattr(each, "count", 0) for each in caplog.records if each.msg == "requests_refused"
    ]
    assert sum(counts) == 8


def test_there_is_no_guard_before_one_is_needed() -> None:
    async def story() -> tuple[bytes, int, int]:
        async with house(is_full=False) as quiet:
            answer = await in_thread(asked, quiet.address, head() + bytes(MUCH))
            return answer, len(quiet.servers), doors()

    answer, n_servers, n_doors = within(story)
    assert answer.startswith(OK)
    assert (n_servers, n_doors) == (1, 0)


def test_the_guard_is_there_before_the_last_place_is_taken() -> None:
    async def story() -> list[bool]:
        async with house(is_full=False) as filling:
            told = []
            for _ in range(filling.n_free):
                place = filling.door.let_in()
                assert place is not None
                filling.kept.append(place)
                told.append(bool(filling.servers))
            assert (await in_thread(asked, filling.address, head())).startswith(REFUSED)
            return told

    told = within(story)
    assert told[0]
    assert not any(told[len(told) // 2 :])


def test_the_guard_is_called_when_many_connections_are_open() -> None:
    async def story() -> list[int]:
        limits = ConnectionLimits(max_connections=16)
        async with house(is_full=False, limits=limits) as crowded:
            told, clients = [], []
            for _ in range(6):
                clients.append(socket.create_connection(crowded.address))
                await asyncio.sleep(0.05)
                told.append(len(crowded.servers))
            for client in clients:
                client.close()
            return told

    assert within(story) == [1, 1, 1, 1, 0, 0]


def test_the_guard_is_called_when_many_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop would accept one of them in each of its turns."""
    calls: list[int] = []
    door = Door(Threads(queue_size=QUEUE_SIZE))
    monkeypatch.setattr(door, "call_guard", lambda: calls.append(len(calls)))
    for _ in range(RUSH - 1):
        door.arrived(1, 512)
    assert not calls
    time.sleep(RUSH_SECONDS)
    door.arrived(1, 512)  # the first of them is long past
    assert not calls
    for _ in range(RUSH - 1):
        door.arrived(1, 512)
    assert calls == [0]
    door.arrived(1, 512)  # counted anew
    assert calls == [0]


def test_the_guard_stays_while_there_are_too_many_open_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked_for: list[socket.socket] = []
    dup = socket.socket.dup

    def dup_at_last(listener: socket.socket) -> socket.socket:
        asked_for.append(listener)
        if len(asked_for) == 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return dup(listener)

    async def story() -> tuple[bytes, int]:
        async with house() as full:
            monkeypatch.setattr(socket.socket, "dup", dup_at_last)
            for place in full.kept:
                place.free()
            full.kept.clear()
            await asyncio.sleep(2.5 * CALM_SECONDS)  # calm twice
            return await in_thread(asked, full.address, head() + bytes(MUCH)), len(full.servers)

    answer, n_servers = within(story)
    assert answer.startswith(OK)
    assert (len(asked_for), n_servers) == (2, 1)


def test_a_door_that_is_closed_leaves_nobody_behind() -> None:
    async def story() -> int:
        async with house() as full:
            waiting = socket.create_connection(full.address)
            await asyncio.sleep(0.05)
            await full.door.close()
            with closing(waiting), pytest.raises(ConnectionRefusedError):
                socket.create_connection(full.address)
            return doors()

    assert within(story) == 0


@pytest.mark.parametrize("is_full", [True, False], ids=["the guard", "the loop"])
def test_who_has_come_when_the_door_closes_is_answered(*, is_full: bool) -> None:
    """Those who have been accepted, and those whom nobody has accepted yet."""

    def ask(address: tuple[str, int], text: bytes) -> socket.socket:
        client = socket.create_connection(address, timeout=5)
        client.sendall(text)
        return client

    async def story() -> list[bytes]:
        async with house(is_full=is_full) as closing_down:
            address = closing_down.address
            cut = ask(address, b"GET / HTTP/1.1\r\nHo")
            await asyncio.sleep(0.05)
            clients = [ask(address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(20)]
            await closing_down.close()
            cut.sendall(b"st: a\r\n\r\n")
            answers = [await in_thread(each.makefile("rb").read) for each in (*clients, cut)]
            for each in (*clients, cut):
                each.close()
            return answers

    answers = within(story)
    assert [answer[: len(OK)] for answer in answers] == [OK] * 21
    assert b"connection: close" in answers[-1]


def doors() -> int:
    return sum(thread.name == "door" for thread in threading.enumerate())
