"""Large bodies are received into the memory where they stay, and handed over as views of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from weakref import finalize

import numpy as np
import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send
from uvicorn.server import ServerState

from service.api.connection import LANDED_BYTES, BoundedProtocol
from service.api.landing import ROOM_BYTES, TURN_BYTES, landing_of
from service.api.middleware import KnownCaller
from tests.fuzz.wire import RecordingTransport

BODY = np.random.default_rng(0).bytes(2 * ROOM_BYTES + 12_345)
OF_ONE_ROOM = BODY[: 3 * LANDED_BYTES]

Story = Callable[[Receive], Awaitable[bytes]]

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Application:
    """Answers with what a story makes of the body."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        content = await self.story(receive)
        length = [(b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": content})

    @property
    def landed(self) -> list[bool]:
        return [landing_of(scope) is not None for scope in self.scopes]


class Connection:
    def __init__(self, app: Application) -> None:
        config = uvicorn.Config(KnownCaller(app), log_config=None, access_log=False, lifespan="off")
        state = ServerState()
        self.tasks = state.tasks
        self.transport = RecordingTransport()
        self.protocol = BoundedProtocol(config, state, {}, _loop=asyncio.get_running_loop())
        self.transport.protocol = self.protocol
        self.protocol.connection_made(self.transport)

    async def answers(self, n_answers: int) -> list[bytes]:
        """Return the contents of the answers, once there are so many."""
        async with asyncio.timeout(10):
            while len(found := contents(bytes(self.transport.written))) < n_answers:
                await self.transport.has_written.wait()
                self.transport.has_written.clear()
        return found


def contents(written: bytes) -> list[bytes]:
    found = []
    while b"\r\n\r\n" in written:
        head, _, rest = written.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(rest) < length:
            break
        found.append(rest[:length])
        written = rest[length:]
    return found


@asynccontextmanager
async def connected(story: Story) -> AsyncIterator[tuple[Application, Connection]]:
    app = Application(story)
    connection = Connection(app)
    try:
        yield app, connection
    finally:
        connection.transport.close()
        await asyncio.sleep(0)
        if connection.tasks:
            await asyncio.wait(connection.tasks, timeout=10)


def head(n_bytes: int, *more: str) -> bytes:
    lines = ["POST /any HTTP/1.1", "Host: a", *more, f"Content-Length: {n_bytes}", "", ""]
    return "\r\n".join(lines).encode()


async def messages(receive: Receive) -> AsyncIterator[Message]:
    while (message := await receive())["type"] == "http.request":
        yield message
        if not message["more_body"]:
            return


async def all_of(receive: Receive) -> bytes:
    return b"".join([message["body"] async for message in messages(receive)])


async def nothing_of(receive: Receive) -> bytes:
    return b"unread"


@pytest.mark.parametrize("cut", [0, 1, 1000, LANDED_BYTES])
@pytest.mark.parametrize("body", [OF_ONE_ROOM, BODY], ids=["small", "of three rooms"])
async def test_every_byte_is_handed_over_once_and_in_order(body: bytes, cut: int) -> None:
    async with connected(all_of) as (app, connection):
        await connection.transport.deliver(head(len(body)) + body[:cut])
        for begin in range(cut, len(body), 777_777):
            await connection.transport.deliver(body[begin : min(begin + 777_777, len(body))])

        assert await connection.answers(1) == [body]
        assert app.landed == [True]


async def test_bodies_come_in_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much of one is there already, another one is not kept waiting for all of it."""
    order: list[tuple[BoundedProtocol, int]] = []
    note = BoundedProtocol.body_received

    def noting(protocol: BoundedProtocol, n_bytes: int) -> None:
        order.append((protocol, n_bytes))
        note(protocol, n_bytes)

    async def story(receive: Receive) -> bytes:
        waiting = landing_of(apps.pop().scopes[0])
        assert waiting is not None
        waiting.into(np.empty(len(BODY), dtype=np.uint8).data)
        return await all_of(receive)

    monkeypatch.setattr(BoundedProtocol, "body_received", noting)
    apps: list[Application] = []
    async with connected(story) as (one, first), connected(story) as (other, second):
        for app, each in ((one, first), (other, second)):
            apps.append(app)
            await each.transport.deliver(head(len(BODY)) + BODY[:100])
            await asyncio.sleep(0.01)
        await asyncio.gather(
            first.transport.deliver(BODY[100:]), second.transport.deliver(BODY[100:])
        )
        answers = [await first.answers(1), await second.answers(1)]

    turns = [protocol for protocol, _ in order]
    halfway = turns[: len(turns) // 2]
    assert answers == [[BODY], [BODY]]
    assert max(n_bytes for _, n_bytes in order) <= TURN_BYTES
    assert abs(halfway.count(first.protocol) - halfway.count(second.protocol)) <= 2


def land_in_memory_that_tells(scope: Scope, freed: list[bool]) -> None:
    """Have the body received into memory that notes when it is freed."""
    landing = landing_of(scope)
    assert landing is not None
    whole = np.empty(len(BODY), dtype=np.uint8)
    finalize(whole, freed.append, True)
    landing.into(whole.data)


async def test_memory_of_a_body_is_freed_with_its_last_view() -> None:
    """Though the request lives on: it is in a cycle, which the collector comes to late."""
    freed: list[bool] = []

    async def story(receive: Receive) -> bytes:
        land_in_memory_that_tells(app.scopes[0], freed)
        return await all_of(receive)

    async with connected(story) as (app, connection):
        await connection.transport.deliver(head(len(BODY)) + BODY[:100])
        await connection.transport.deliver(BODY[100:])

        assert await connection.answers(1) == [BODY]
        assert landing_of(app.scopes[0]) is not None
        assert freed == [True]


async def test_memory_of_a_body_that_nobody_wants_any_more_is_freed_at_once() -> None:
    """Answered before it is in: what came of it is of no use."""
    freed: list[bool] = []

    async def story(receive: Receive) -> bytes:
        land_in_memory_that_tells(app.scopes[0], freed)
        return b"refused"

    async with connected(story) as (app, connection):
        await connection.transport.deliver(head(len(BODY)) + BODY[:100])

        assert await connection.answers(1) == [b"refused"]
        assert freed == [True]


async def test_the_application_may_say_where_to() -> None:
    whole = np.empty(len(BODY), dtype=np.uint8)
    landed: list[memoryview] = []
    owner: object = whole

    async def story(receive: Receive) -> bytes:
        landing = landing_of(app.scopes[0])
        assert landing is not None
        landing.into(whole.data)
        landed.extend([message["body"] async for message in messages(receive)])
        return b""

    async with connected(story) as (app, connection):
        await connection.transport.deliver(head(len(BODY)) + BODY[:100])
        await connection.transport.deliver(BODY[100:])
        await connection.answers(1)

    assert [(each.obj is owner, len(each)) for each in landed] == [(True, len(BODY))]
    assert whole.tobytes() == BODY


async def test_a_place_for_less_than_is_there_already_is_passed_over() -> None:
    async def story(receive: Receive) -> bytes:
        landing = landing_of(app.scopes[0])
        assert landing is not None
        landing.into(memoryview(bytearray(10)))
        return await all_of(receive)

    async with connected(story) as (app, connection):
        await connection.transport.deliver(head(len(BODY)) + BODY[:100])
        await connection.transport.deliver(BODY[100:])

        assert await connection.answers(1) == [BODY]


async def test_a_place_for_a_part_is_handed_over_when_it_is_full() -> None:
    part = np.empty(ROOM_BYTES + 5, dtype=np.uint8)
    lengths: list[int] = []

    async def story(receive: Receive) -> bytes:
        landing = landing_of(app.scopes[0])
        assert landing is not None
        landing.into(part.data)
        parts = [bytes(message["body"]) async for message in messages(receive)]
        lengths.append(len(parts[0]))
        return b"".join(parts)

    async with connected(story) as (app, connection):
        await connection.transport.deliver(head(len(BODY)) + BODY[:100])
        await connection.transport.deliver(BODY[100:])

        assert await connection.answers(1) == [BODY]
    assert lengths == [len(part)]


async def test_no_more_is_received_than_there_is_room_for_until_it_is_taken() -> None:
    is_wanted = asyncio.Event()

    async def story(receive: Receive) -> bytes:
        first = (await receive())["body"]
        await is_wanted.wait()
        return bytes(first) + await all_of(receive)

    async with connected(story) as (_, connection):
        await connection.transport.deliver(head(len(BODY)))
        sending = asyncio.create_task(connection.transport.deliver(BODY))
        done, _ = await asyncio.wait([sending], timeout=0.2)
        assert not done
        is_wanted.set()
        await sending

        assert await connection.answers(1) == [BODY]


async def test_nothing_is_received_before_it_is_asked_for() -> None:
    is_wanted = asyncio.Event()

    async def story(receive: Receive) -> bytes:
        await is_wanted.wait()
        return await all_of(receive)

    async with connected(story) as (_, connection):
        await connection.transport.deliver(head(len(BODY)))
        sending = asyncio.create_task(connection.transport.deliver(BODY[:1]))
        done, _ = await asyncio.wait([sending], timeout=0.2)
        assert not done
        is_wanted.set()
        await sending
        await connection.transport.deliver(BODY[1:])

        assert await connection.answers(1) == [BODY]


async def test_requests_behind_the_body_are_answered_in_their_turn() -> None:
    short = head(5) + b"short"
    async with connected(all_of) as (app, connection):
        for sent in (head(len(BODY)), BODY + short + short, head(len(BODY)), BODY, short):
            await connection.transport.deliver(sent)

        assert await connection.answers(5) == [BODY, b"short", b"short", BODY, b"short"]
        assert app.landed == [True, False, False, True, False]


async def test_what_is_beyond_the_length_is_no_part_of_the_body() -> None:
    async with connected(all_of) as (_, connection):
        await connection.transport.deliver(head(len(BODY)))
        await connection.transport.deliver(BODY + b"\x00 and more\r\n\r\n")

        assert b"malformed_request" in (await connection.answers(1))[-1]
        assert connection.transport.is_closing()


async def test_a_body_that_is_not_read_is_passed_over() -> None:
    async with connected(nothing_of) as (_, connection):
        for sent in (head(len(BODY)), BODY[:1000], BODY[1000:], head(len(BODY)), BODY):
            await connection.transport.deliver(sent)

        assert await connection.answers(2) == [b"unread", b"unread"]


async def test_who_goes_away_in_the_middle_is_heard_of() -> None:
    last: list[Message] = []

    async def story(receive: Receive) -> bytes:
        while (message := await receive())["type"] == "http.request":
            assert message["more_body"]
        last.append(message)
        return b""

    async with connected(story) as (_, connection):
        await connection.transport.deliver(head(len(BODY)))
        await connection.transport.deliver(BODY[:-1])

    assert last == [{"type": "http.disconnect"}]


async def test_behind_the_body_there_is_nothing_to_receive_but_the_client_s_leaving() -> None:
    async def story(receive: Receive) -> bytes:
        body = await all_of(receive)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.05)
        return body

    async with connected(story) as (_, connection):
        await connection.transport.deliver(head(len(BODY)))
        await connection.transport.deliver(BODY)

        assert await connection.answers(1) == [BODY]


async def test_a_body_of_unknown_length_goes_through_the_parser() -> None:
    sent = b"POST /any HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%s\r\n" % (len(OF_ONE_ROOM), OF_ONE_ROOM)
    async with connected(all_of) as (app, connection):
        for part in (sent, chunk, b"0\r\n\r\n"):
            await connection.transport.deliver(part)

        assert await connection.answers(1) == [OF_ONE_ROOM]
        assert app.landed == [False]


async def test_a_body_behind_a_request_that_is_being_answered_goes_through_the_parser() -> None:
    is_done = asyncio.Event()

    async def story(receive: Receive) -> bytes:
        body = await all_of(receive)
        await is_done.wait()
        return body

    async with connected(story) as (app, connection):
        await connection.transport.deliver(head(5) + b"short" + head(len(OF_ONE_ROOM)))
        is_done.set()
        await connection.transport.deliver(OF_ONE_ROOM)

        assert await connection.answers(2) == [b"short", OF_ONE_ROOM]
        assert app.landed == [False, False]
