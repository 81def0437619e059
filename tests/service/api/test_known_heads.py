"""A head that was answered before is known by its bytes, and says the same as it did to the parser.

And a connection that is kept is closed when nothing has come for a while.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.api.connection import BoundedProtocol, ConnectionLimits
from service.api.payloads import CODECS, codec_of
from service.api.short_way import KEPT_HEAD_BYTES, KEPT_HEADS, ShortWay
from tests.fuzz.wire import RecordingTransport
from tests.service.api.test_short_way import Answer, closed, encoded_rows, sent
from tests.service.client import Client
from tests.service.rows import ONE_OF_EACH

T = TypeVar("T")

OTHERS = json.dumps({"X": ONE_OF_EACH[::-1]}).encode()
"""As long as the rows that are sent otherwise."""


class Connection:
    """A client's end of one connection, that is kept."""

    def __init__(self, client: Client, short_way: ShortWay, *, idle_seconds: int = 75) -> None:
        config = uvicorn.Config(
            client.app, log_config=None, access_log=False, timeout_keep_alive=idle_seconds
        )
        bounded = BoundedProtocol.bounded_by(ConnectionLimits(), short_way=short_way)
        self._state = ServerState()
        self.transport = RecordingTransport()
        self.protocol = bounded(config, self._state, {}, _loop=asyncio.get_running_loop())
        self.transport.protocol = self.protocol
        self.protocol.connection_made(self.transport)

    async def ask(self, *parts: bytes) -> Answer:
        """Send the parts one by one and return the first answer."""
        return Answer(await self.told(*parts))

    async def told(self, *parts: bytes) -> bytes:
        """Send the parts one by one and return what is answered."""
        self.transport.written.clear()
        for part in parts:
            await self.transport.deliver(part)
        if self._state.tasks:
            await asyncio.wait(self._state.tasks)
        return bytes(self.transport.written)

    def hide_parser(self) -> None:
        """Let nothing be parsed from now on, nor handed to the application."""
        self.protocol.parser = None  # type: ignore[assignment]  # any use of it fails
        self.protocol.app = closed

    async def lose(self) -> None:
        self.transport.close()
        await asyncio.sleep(0)


def on_one_connection(
    client: Client, story: Callable[[Connection], Awaitable[T]], **options: int
) -> T:
    async def told() -> T:
        connection = Connection(client, ShortWay(client.services), **options)
        try:
            return await story(connection)
        finally:
            await connection.lose()

    client.post("/models/groups/predict", {"X": ONE_OF_EACH})  # so that the model is at hand
    return client.portal.call(told)


def labels(answer: Answer) -> list[int]:
    assert answer.status == 200
    found: list[int] = json.loads(answer.content)["labels"]
    return found


def test_a_head_that_was_answered_is_not_parsed_again(fitted: Client) -> None:
    async def story(connection: Connection) -> list[Answer]:
        answers = [await connection.ask(b"".join(sent()))]
        connection.hide_parser()
        return [*answers, *[await connection.ask(b"".join(sent(body=OTHERS))) for _ in range(2)]]

    parsed, *known = on_one_connection(fitted, story)
    assert [labels(each) for each in known] == [labels(parsed)[::-1]] * 2
    names = [[name for name, _ in each.headers] for each in (parsed, *known)]
    assert names[0] == names[1] == names[2]
    assert len({each.header("x-request-id") for each in (parsed, *known)}) == 3


@pytest.mark.parametrize(
    "media_type", [each for each in sorted(CODECS) if not codec_of(each).unfolds]
)
def test_rows_are_answered_behind_a_known_head(fitted: Client, media_type: str) -> None:
    headers = {"content-type": media_type, "accept": media_type}
    question = b"".join(sent(body=encoded_rows(media_type), headers=headers))

    async def story(connection: Connection) -> list[Answer]:
        parsed = await connection.ask(question)
        connection.hide_parser()
        return [parsed, await connection.ask(question)]

    parsed, known = on_one_connection(fitted, story)
    assert (known.status, known.content) == (200, parsed.content)


def test_another_connection_knows_it_too(fitted: Client) -> None:
    async def story(connection: Connection) -> Answer:
        way = connection.protocol.short_way
        assert way is not None
        await connection.ask(b"".join(sent()))
        other = Connection(fitted, way)
        other.hide_parser()
        answer = await other.ask(b"".join(sent()))
        await other.lose()
        return answer

    assert on_one_connection(fitted, story).status == 200


@pytest.mark.parametrize("cut", [1, 20, len(sent()[0]), len(sent()[0]) + 5])
def test_a_known_head_may_come_in_other_pieces(fitted: Client, cut: int) -> None:
    async def story(connection: Connection) -> tuple[Answer, Answer, Answer]:
        whole = b"".join(sent())
        first = await connection.ask(whole)
        in_pieces = await connection.ask(whole[:cut], whole[cut:])
        return first, in_pieces, await connection.ask(whole)

    contents = {each.content for each in on_one_connection(fitted, story)}
    assert len(contents) == 1


def test_known_heads_that_come_together_are_answered_in_their_order(fitted: Client) -> None:
    one, other = b"".join(sent()), b"".join(sent(body=OTHERS))

    async def story(connection: Connection) -> list[bytes]:
        apart = [await connection.told(each) for each in (one, other, one)]
        together = await connection.told(one + other + one)
        return [b"".join(apart), together]

    apart, together = on_one_connection(fitted, story)
    contents = [
        [each.partition(b"\r\n\r\n")[2] for each in told.split(b"HTTP/1.1 200 OK\r\n")[1:]]
        for told in (apart, together)
    ]
    assert contents[0] == contents[1]
    assert contents[0][0] != contents[0][1]


def test_a_head_is_not_taken_for_that_of_the_question_before(fitted: Client) -> None:
    head, body = sent()
    other = b"".join(sent("/models/groups/score_samples"))
    unknown = b"".join(sent("/models/groups/nothing"))

    async def story(connection: Connection) -> list[Answer]:
        await connection.ask(head, body)
        return [await connection.ask(each) for each in (unknown, other, unknown, other)]

    statuses = [each.status for each in on_one_connection(fitted, story)]
    assert statuses == [404, 200, 404, 200]
    assert b"log_likelihood" in on_one_connection(fitted, story)[3].content


def test_a_client_that_names_its_requests_gets_each_name_back(fitted: Client) -> None:
    async def story(connection: Connection) -> list[str]:
        names = ["one", "one", "two", "two"]
        asked = [b"".join(sent(headers={"X-Request-Id": name})) for name in names]
        return [(await connection.ask(each)).header("x-request-id") for each in asked]

    assert on_one_connection(fitted, story) == ["one", "one", "two", "two"]


def test_a_known_head_with_wrong_rows_or_without_its_model_is_refused(fitted: Client) -> None:
    _, body = sent()
    wrong = b" " * (len(body) - 2) + b"{}"

    async def story(connection: Connection) -> list[int]:
        bodies = [body, wrong, body]
        statuses = [(await connection.ask(b"".join(sent(body=each)))).status for each in bodies]
        await asyncio.to_thread(fitted.services.catalogue.delete_model, "groups")
        return [*statuses, (await connection.ask(b"".join(sent()))).status]

    assert on_one_connection(fitted, story) == [200, 422, 200, 404]


def test_the_last_request_on_a_connection_is_known_by_no_head(fitted: Client) -> None:
    last = b"".join(sent(headers={"connection": "close"}))

    async def story(connection: Connection) -> list[Answer]:
        way = connection.protocol.short_way
        assert way is not None
        others = [Connection(fitted, way) for _ in range(2)]
        return [await each.ask(last) for each in (connection, *others)]

    answers = on_one_connection(fitted, story)
    assert [each.header("connection") for each in answers] == ["close"] * 3


def test_no_more_heads_are_kept_than_their_bound_says(fitted: Client) -> None:
    way = ShortWay(fitted.services)
    question = way.question(
        b"/models/groups/predict",
        [(b"host", b"a"), (b"content-type", b"application/json"), (b"content-length", b"9")],
    )
    assert question is not None
    heads = [b"%d" % number for number in range(3 * KEPT_HEADS // 2)]
    for head in [*heads, b"long" * KEPT_HEAD_BYTES]:
        way.remember(head, question)

    kept = [head for head in heads if way.known_question(head) is not None]
    assert 0 < len(kept) <= KEPT_HEADS
    assert kept[-1] == heads[-1]
    assert way.known_question(b"long" * KEPT_HEAD_BYTES) is None


def test_a_connection_is_closed_when_it_was_idle_for_long_since_the_last_answer(
    fitted: Client,
) -> None:
    async def story(connection: Connection) -> list[bool]:
        question = b"".join(sent())
        closed_after = []
        for pause in (0.6, 0.6, 0.6, 1.2):
            await connection.ask(question)
            await asyncio.sleep(pause)
            closed_after.append(connection.transport.is_closing())
        return closed_after

    assert on_one_connection(fitted, story, idle_seconds=1) == [False, False, False, True]


def test_a_connection_is_not_idle_while_a_request_comes_in(fitted: Client) -> None:
    async def story(connection: Connection) -> tuple[bool, int]:
        head, body = sent()
        await connection.ask(head, body)
        await connection.told(head)
        await asyncio.sleep(1.2)
        return connection.transport.is_closing(), (await connection.ask(body)).status

    assert on_one_connection(fitted, story, idle_seconds=1) == (False, 200)
