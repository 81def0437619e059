"""Bodies that are held whole are bounded all together, by what has come in of them."""

import asyncio
import json
from collections.abc import Iterator

import numpy as np
import pytest

from service.api.holdings import Holdings
from service.api.turns import Place
from service.errors import Unavailable
from service.settings import Settings
from tests.service.api.test_heads import Connection, head
from tests.service.api.wire import NPY, to_npy
from tests.service.client import Client, serving
from tests.service.rows import TWO_GROUPS

MEBIBYTE = 1024**2
BODY = to_npy(np.ones((5 * MEBIBYTE // 8, 2)))
"""10 MiB, answered as NPY: it is held whole."""


@pytest.fixture
def groups() -> Iterator[Client]:
    with serving(Settings(max_held_body_bytes=10 * MEBIBYTE)) as client:
        client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
        client.post("/models/groups/fit", {"X": TWO_GROUPS})
        yield client


async def refused(connection: Connection) -> bytes:
    async with asyncio.timeout(10):
        while not connection.transport.written:  # noqa: ASYNC110  # another task writes
            await asyncio.sleep(0.01)
    return bytes(connection.transport.written)


def asked() -> bytes:
    return head(BODY, f"Accept: {NPY}")


def test_one_body_more_is_refused_until_another_request_ends(groups: Client) -> None:
    async def story() -> tuple[bytes, bytes, bytes, int]:
        first, second, third = (Connection(groups, Place) for _ in range(3))
        await first.send(asked(), BODY[:-1])
        await second.send(asked(), BODY[: 8 * MEBIBYTE])
        no = await refused(second)
        yes = await first.send(BODY[-1:])
        again = await third.send(asked(), BODY)
        for connection in (first, second, third):
            await connection.lose()
        return no, yes, again, groups.services.holdings.n_bytes

    no, yes, again, n_left = groups.portal.call(story)

    told, _, content = no.partition(b"\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in told
    assert json.loads(content)["code"] == "overloaded"
    assert yes.startswith(b"HTTP/1.1 200 ")
    assert again.startswith(b"HTTP/1.1 200 ")
    assert n_left == 0


def test_who_leaves_gives_back_what_was_held(groups: Client) -> None:
    async def story() -> tuple[int, int]:
        connection = Connection(groups, Place)
        await connection.send(asked(), BODY[:-1])
        before = groups.services.holdings.n_bytes
        await connection.lose()
        return before, groups.services.holdings.n_bytes

    assert groups.portal.call(story) == (8 * MEBIBYTE, 0)


def test_a_length_that_is_only_claimed_keeps_nobody_out(groups: Client) -> None:
    async def story() -> bytes:
        claiming, sending = Connection(groups, Place), Connection(groups, Place)
        await claiming.send(asked())
        answer = await sending.send(asked(), BODY)
        await claiming.lose()
        await sending.lose()
        return answer

    assert groups.portal.call(story).startswith(b"HTTP/1.1 200 ")


def test_one_alone_may_be_larger_than_all_together() -> None:
    holdings = Holdings(10)
    first, second = holdings.begin(), holdings.begin()
    first.add(8)
    first.add(8)

    with pytest.raises(Unavailable, match="More is asked"):
        second.add(1)
    first.release()
    first.release()
    second.add(1)
    assert holdings.n_bytes == 1
