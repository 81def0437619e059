"""Questions with large bodies are answered the short way, too, but in a computing thread."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest
import uvicorn
from uvicorn.server import ServerState

from service.api.connection import LANDED_BYTES, BoundedProtocol, ConnectionLimits
from service.api.forms import FREQUENT
from service.api.payloads import codec_of
from service.api.payloads.values import Body, DataAnswer, DataPayload, Expected
from service.api.services import Threads, available_cores
from service.api.short_way import MOST_BYTES, ShortWay
from tests.fuzz.wire import RecordingTransport
from tests.service.api.test_short_way import LONG_WAY, Answer, closed, received, sent
from tests.service.client import Client, serving
from tests.service.rows import TWO_GROUPS

NPY, ARROW = "application/x-npy", "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
JSON = "application/json"
X = np.random.default_rng(0).normal(size=(20_000, 2))
PREDICT = "/models/groups/predict"


@pytest.fixture
def groups() -> Iterator[Client]:
    with serving() as client:
        client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
        client.post("/models/groups/fit", {"X": TWO_GROUPS})
        client.post(PREDICT, {"X": TWO_GROUPS})
        yield client


def encoded_rows(media_type: str, rows: np.ndarray = X) -> bytes:
    if media_type == JSON:
        return json.dumps({"X": rows.tolist()}).encode()
    return codec_of(media_type).encode(DataAnswer("m", 1, {"X": rows}))


def question(path: str, media_type: str, rows: np.ndarray = X) -> tuple[bytes, bytes, bytes]:
    """Return head and body in pieces, as a socket has them."""
    head, body = sent(
        path, encoded_rows(media_type, rows), {"content-type": media_type, "accept": media_type}
    )
    return head, body[:1000], body[1000:]


@pytest.mark.parametrize("path", sorted(FREQUENT))
@pytest.mark.parametrize("media_type", [NPY, ARROW, JSON])
def test_both_ways_tell_the_same(groups: Client, path: str, media_type: str) -> None:
    assert LANDED_BYTES < len(encoded_rows(media_type)) <= MOST_BYTES
    address = f"/models/groups{path}"
    short = Answer(received(groups, *question(address, media_type), long_way=closed))
    long = Answer(received(groups, *question(address + LONG_WAY, media_type)))

    assert (short.status, short.content) == (200, long.content)
    varying = ("server-timing", "date", "x-request-id")
    assert [each for each in short.headers if each[0] not in varying] == [
        each for each in long.headers if each[0] not in varying
    ]
    steps = [step.partition(";")[0] for step in short.header("server-timing").split(", ")]
    assert steps == ["parse", "queue", "compute", "encode"]


def test_a_file_that_unfolds_is_never_decoded_on_the_loop(
    groups: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some kilobytes of Parquet may hold more rows than the loop can be kept from others for."""
    codec = codec_of(PARQUET)
    decode, threads = codec.decode, []

    def decoded(body: Body, expected: Expected) -> DataPayload:
        threads.append(threading.current_thread())
        return decode(body, expected)

    monkeypatch.setattr(type(codec), "decode", lambda _, *arguments: decoded(*arguments))
    constants = np.zeros((1_000_000, 2))
    assert len(encoded_rows(PARQUET, constants)) < LANDED_BYTES
    for path in sorted(FREQUENT):
        told = Answer(received(groups, *question(f"/models/groups{path}", PARQUET, constants)))
        assert told.status == 200
    loop = groups.portal.call(threading.current_thread)
    assert len(threads) == len(FREQUENT)
    assert loop not in threads


def test_the_connection_is_kept_and_answers_in_order(groups: Client) -> None:
    large, small = question(PREDICT, NPY), b"".join(question(PREDICT, NPY, X[:3]))
    several = [*large, small + small, *large, *question(PREDICT + LONG_WAY, NPY), small]
    told = received(groups, *several).split(b"HTTP/1.1 200 OK\r\n")[1:]

    lengths = [len(each.partition(b"\r\n\r\n")[2]) for each in told]
    assert lengths == [128 + 8 * n for n in (len(X), 3, 3, len(X), len(X), 3)]


def test_what_comes_while_it_is_answered_waits(groups: Client) -> None:
    head, first, rest = question(PREDICT, NPY)
    behind = b"".join(question(PREDICT, NPY, X[:3]))
    told = received(groups, head, first, rest, behind[:20], behind[20:], long_way=closed)

    assert told.count(b"HTTP/1.1 200 OK\r\n") == 2


def test_what_it_does_not_answer_goes_the_long_way(groups: Client) -> None:
    wide = np.ones((10_000, 3))
    short = Answer(received(groups, *question(PREDICT, NPY, wide)))
    long = Answer(received(groups, *question(PREDICT + LONG_WAY, NPY, wide)))
    again = received(groups, *question(PREDICT, NPY, wide), *question(PREDICT, NPY))

    assert short.told() == long.told()
    assert json.loads(short.content)["code"] == "dimension_mismatch"
    assert again.count(b"HTTP/1.1 4") == again.count(b"HTTP/1.1 200 OK") == 1


class Held:
    """A connection to a service whose computing threads are all held."""

    def __init__(self, client: Client, threads: Threads) -> None:
        self.threads = threads
        config = uvicorn.Config(client.app, log_config=None, access_log=False, lifespan="off")
        short_way = ShortWay(replace(client.services, threads=threads))
        bounded = BoundedProtocol.bounded_by(ConnectionLimits(), short_way=short_way)
        state = ServerState()
        self.tasks = state.tasks
        self.transport = RecordingTransport()
        self.protocol = bounded(config, state, {}, _loop=asyncio.get_running_loop())
        self.transport.protocol = self.protocol
        self.protocol.connection_made(self.transport)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        over = threading.Event()
        n_threads = available_cores()
        holding = [
            asyncio.create_task(self.threads.compute(over.wait, 30)) for _ in range(n_threads)
        ]
        try:
            await asyncio.sleep(0.05)
            yield
        finally:
            over.set()
            await asyncio.wait(holding)

    async def ask(self) -> None:
        for part in question(PREDICT, NPY):
            await self.transport.deliver(part)
        await asyncio.sleep(0.05)


def test_it_is_refused_when_its_turn_does_not_come_in_time(groups: Client) -> None:
    async def story() -> bytes:
        connection = Held(groups, Threads(wait_seconds=0.1))
        async with connection.held():
            await connection.ask()
            async with asyncio.timeout(10):
                await connection.transport.has_written.wait()
        return bytes(connection.transport.written)

    told = groups.portal.call(story)
    assert told.startswith(b"HTTP/1.1 503 ")
    assert json.loads(told.partition(b"\r\n\r\n")[2])["code"] == "overloaded"


def test_who_goes_away_gives_the_turn_up(groups: Client) -> None:
    async def story() -> tuple[bytes, int]:
        connection = Held(groups, Threads())
        async with connection.held():
            await connection.ask()
            assert len(connection.tasks) == 1
            connection.transport.close()
            await asyncio.sleep(0.05)
            return bytes(connection.transport.written), len(connection.tasks)

    assert groups.portal.call(story) == (b"", 0)


def test_a_drain_lets_it_be_answered_and_closes(groups: Client) -> None:
    async def story() -> tuple[bytes, bool]:
        connection = Held(groups, Threads())
        async with connection.held():
            await connection.ask()
            connection.protocol.shutdown()
        if connection.tasks:
            await asyncio.wait(connection.tasks, timeout=10)
        return bytes(connection.transport.written), connection.transport.has_ended

    told, has_ended = groups.portal.call(story)
    assert told.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close\r\n" in told
    assert has_ended


def test_the_next_question_is_the_last_one_of_a_service_that_is_stopped(groups: Client) -> None:
    """An answer was sent as one of several when the service was told to stop."""
    head, first, rest = question(PREDICT, NPY)

    async def story() -> tuple[list[bytes], bool]:
        connection = Held(groups, Threads())
        for place in range(2):
            await connection.transport.deliver(head + first)
            await connection.transport.deliver(rest)
            told = await told_once(connection.transport, place + 1)
        connection.protocol._is_last = True
        await connection.transport.deliver(head + first)
        await connection.transport.deliver(rest)
        told = await told_once(connection.transport, 3)
        return told.split(b"HTTP/1.1 200 OK\r\n")[1:], connection.transport.has_ended

    answers, has_ended = groups.portal.call(story)
    assert [b"connection: close\r\n" in each for each in answers] == [False, False, True]
    assert has_ended


async def told_once(transport: RecordingTransport, n_answers: int) -> bytes:
    """Return what was written, once there are so many answers."""
    async with asyncio.timeout(10):
        while transport.written.count(b"HTTP/1.1 ") < n_answers:
            await transport.has_written.wait()
            transport.has_written.clear()
    return bytes(transport.written)


def test_a_head_that_is_known_is_not_parsed_again(
    groups: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large question it comes with the first part of the body."""
    head, first, rest = question(PREDICT, NPY)

    async def story() -> bytes:
        connection = Held(groups, Threads())
        for place in range(3):
            await connection.transport.deliver(head + first)
            await connection.transport.deliver(rest)
            told = await told_once(connection.transport, place + 1)
            monkeypatch.setattr(connection.protocol, "_parse", not_parsed)
        return told

    def not_parsed(data: bytes) -> None:
        raise AssertionError("the parser was asked")

    answers = groups.portal.call(story).split(b"HTTP/1.1 200 OK\r\n")[1:]
    contents = {each.partition(b"\r\n\r\n")[2] for each in answers}
    assert (len(answers), len(contents)) == (3, 1)


@pytest.mark.parametrize("n_left", [0, 9])
def test_a_large_question_in_one_read_or_two_does_without_the_long_way(
    groups: Client, n_left: int
) -> None:
    """The first whose head is not known goes there, if it comes in one."""
    whole = b"".join(question(PREDICT, NPY))
    parts = [whole] if n_left == 0 else [whole[:-n_left], whole[-n_left:]]

    async def story() -> bytes:
        connection = Held(groups, Threads())
        for place in range(3):
            if place or n_left:
                connection.protocol.app = closed
            for part in parts:
                await connection.transport.deliver(part)
            told = await told_once(connection.transport, place + 1)
        return told

    answers = groups.portal.call(story).split(b"HTTP/1.1 200 OK\r\n")[1:]
    contents = {each.partition(b"\r\n\r\n")[2] for each in answers}
    assert (len(answers), len(contents)) == (3, 1)


def test_a_known_head_of_what_it_does_not_answer_goes_the_long_way(groups: Client) -> None:
    wide, narrow = np.ones((12_000, 3)), X[:18_000]
    known, unanswered = question(PREDICT, NPY, narrow), question(PREDICT, NPY, wide)
    assert known[0] == unanswered[0]  # the head
    asked = [known, unanswered, known, unanswered]
    pieces = [part for head, first, rest in asked for part in (head + first, rest)]
    told = received(groups, *pieces)

    long = Answer(received(groups, *question(PREDICT + LONG_WAY, NPY, wide)))
    answers = told.split(b"HTTP/1.1 ")[1:]
    assert [each[:3] for each in answers] == [b"200", b"422", b"200", b"422"]
    refused = Answer(b"HTTP/1.1 " + answers[-1])
    assert refused.told() == long.told()


def test_a_known_head_is_refused_where_there_is_no_place(groups: Client) -> None:
    head, first, rest = question(PREDICT, NPY)

    async def story() -> bytes:
        connection = Held(groups, Threads())
        await connection.transport.deliver(head + first)
        await connection.transport.deliver(rest)
        await told_once(connection.transport, 1)
        connection.protocol.let_in = lambda: None  # full
        await connection.transport.deliver(head + first)
        return await told_once(connection.transport, 2)

    told = groups.portal.call(story).partition(b"HTTP/1.1 503 ")[2]
    assert json.loads(told.partition(b"\r\n\r\n")[2])["code"] == "overloaded"
