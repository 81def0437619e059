"""The short way answers as the long one does, and passes by nothing that the long one checks."""

import gc
import inspect
import io
import json
import logging
from collections.abc import Mapping
from functools import partial
from http.client import HTTPResponse

import numpy as np
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.connection import BoundedProtocol, ConnectionLimits
from service.api.dependencies import refuse_stray_query
from service.api.forms import FREQUENT
from service.api.payloads import CODECS, codec_of
from service.api.payloads.values import DataAnswer
from service.api.questions import ask_latest
from service.api.short_way import ShortWay
from tests.fuzz.wire import answered
from tests.service.client import Client
from tests.service.rows import ONE_OF_EACH, TWO_GROUPS

PREDICT = "/models/groups/predict"
LONG_WAY = "?version=1"
VARYING = {"server-timing", "x-request-id", "date"}
ROWS = json.dumps({"X": ONE_OF_EACH}).encode()


class Received(io.BytesIO):
    """Bytes that the standard library reads an answer from."""

    def makefile(self, *_: object) -> io.BytesIO:
        return self


class Answer:
    def __init__(self, received: bytes) -> None:
        response = HTTPResponse(Received(received))  # type: ignore[arg-type]  # all that it uses
        response.begin()
        self.status = response.status
        self.headers = [(name.lower(), value) for name, value in response.getheaders()]
        self.content = response.read()

    def header(self, name: str) -> str:
        return dict(self.headers)[name]

    def told(self) -> tuple[int, dict[str, object], dict[str, str]]:
        headers = {name: value for name, value in self.headers if name not in VARYING}
        content: dict[str, object] = json.loads(self.content)
        if self.status >= 400:
            content = {name: content[name] for name in ("code", "detail", "errors", "title")}
        return self.status, content, headers


async def closed(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("the long way was taken")


def sent(
    path: str = PREDICT, body: bytes = ROWS, headers: Mapping[str, str] | None = None
) -> tuple[bytes, bytes]:
    """Return the head and the body of a request."""
    given = {"content-type": "application/json", **(headers or {})}
    lines = [f"POST {path} HTTP/1.1", "Host: service", *(f"{k}: {v}" for k, v in given.items())]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
    return head.encode(), body


def received(client: Client, *parts: bytes, long_way: ASGIApp | None = None) -> bytes:
    """Return what a connection to the service writes when these bytes come in one by one."""
    protocol = BoundedProtocol.bounded_by(ConnectionLimits(), short_way=ShortWay(client.services))
    app = long_way or client.app
    call = partial(answered, protocol_class=protocol)
    return client.portal.call(call, app, *parts)


def asked(
    client: Client,
    path: str = PREDICT,
    body: bytes = ROWS,
    headers: Mapping[str, str] | None = None,
    *,
    long_way: ASGIApp | None = None,
) -> Answer:
    return Answer(received(client, b"".join(sent(path, body, headers)), long_way=long_way))


def encoded_rows(media_type: str) -> bytes:
    if media_type == "application/json":
        return ROWS
    if media_type == "application/x-ndjson":
        return b"\n".join(json.dumps(row).encode() for row in ONE_OF_EACH)
    return codec_of(media_type).encode(DataAnswer("m", 1, {"X": np.array(ONE_OF_EACH)}))


@pytest.mark.parametrize("path", sorted(FREQUENT))
def test_it_stands_in_for_no_other_check_than_those_it_knows(path: str) -> None:
    route = FREQUENT[path].route
    assert [each.dependency for each in route.dependencies] == [refuse_stray_query, ask_latest]
    assert list(inspect.signature(route.endpoint).parameters) == ["question"]


@pytest.mark.parametrize("path", sorted(FREQUENT))
@pytest.mark.parametrize("n_rows", [2, 20_000])
def test_both_ways_tell_the_same(fitted: Client, path: str, n_rows: int) -> None:
    rows = json.dumps({"X": ONE_OF_EACH * (n_rows // 2)}).encode()
    address = f"/models/groups{path}"
    first, again = (asked(fitted, address, rows).told() for _ in range(2))
    assert first == again == asked(fitted, address + LONG_WAY, rows).told()
    assert first[0] == 200


@pytest.mark.parametrize(
    ("model", "body", "headers"),
    [
        ("nobody", {"X": ONE_OF_EACH}, {}),
        ("groups", {"X": [[1.0]]}, {}),
        ("groups", {"X": []}, {}),
        ("groups", {"X": ONE_OF_EACH}, {"content-type": "text/plain"}),
        ("groups", {"X": ONE_OF_EACH}, {"accept": "image/png"}),
        ("groups", {"X": ONE_OF_EACH}, {"request-timeout": "0"}),
    ],
    ids=["no model", "dimensions", "no rows", "media type", "accept", "too late"],
)
def test_both_ways_refuse_alike(
    fitted: Client, model: str, body: object, headers: dict[str, str]
) -> None:
    asked(fitted)
    address, content = f"/models/{model}/predict", json.dumps(body).encode()
    refused = asked(fitted, address, content, headers).told()
    assert refused[0] >= 400
    long = asked(fitted, address + LONG_WAY, content, headers).told()
    assert (refused[0], refused[1]["code"]) == (long[0], long[1]["code"])


def test_what_is_kept_at_hand_follows_every_fit_alias_and_deletion(fitted: Client) -> None:
    def version() -> int:
        numbers = {int(asked(fitted).header("gmm-model-version")) for _ in range(3)}
        assert len(numbers) == 1
        return numbers.pop()

    assert version() == 1
    fitted.post("/models/groups/fit", {"X": TWO_GROUPS})
    assert version() == 2
    fitted.put("/models/groups/aliases/champion", {"version": 1})
    assert version() == 1
    fitted.delete("/models/groups/aliases/champion")
    assert version() == 2
    fitted.delete("/models/groups/versions/2")
    assert version() == 1
    fitted.delete("/models/groups")
    assert asked(fitted).status == 404


@pytest.mark.parametrize("path", sorted(FREQUENT))
@pytest.mark.parametrize(
    "media_type", [each for each in sorted(CODECS) if not codec_of(each).unfolds]
)
def test_a_few_rows_do_without_the_long_way(fitted: Client, path: str, media_type: str) -> None:
    address = f"/models/groups{path}"
    body = encoded_rows(media_type)
    headers = {"content-type": media_type, "accept": media_type, "x-request-id": "mine"}
    long = asked(fitted, address + LONG_WAY, body, headers)
    asked(fitted, address, body, headers)
    short = asked(fitted, address, body, headers, long_way=closed)

    assert (short.status, short.content) == (200, long.content)
    assert [name for name, _ in short.headers] == [name for name, _ in long.headers]
    assert [each for each in short.headers if each[0] not in ("server-timing", "date")] == [
        each for each in long.headers if each[0] not in ("server-timing", "date")
    ]
    assert short.header("x-request-id") == "mine"


def test_both_ways_time_the_same_steps(fitted: Client) -> None:
    asked(fitted)
    timings = [
        asked(fitted, path).header("server-timing") for path in (PREDICT, PREDICT + LONG_WAY)
    ]
    short, long = ([step.partition(";")[0] for step in timing.split(", ")] for timing in timings)
    assert short == long == ["parse", "queue", "compute", "encode"]


def test_both_ways_tell_the_log_the_same(fitted: Client, caplog: pytest.LogCaptureFixture) -> None:
    headers = {"x-request-id": "mine"}
    asked(fitted, headers=headers)
    with caplog.at_level(logging.INFO):
        asked(fitted, PREDICT + LONG_WAY, headers=headers)
        asked(fitted, headers=headers, long_way=closed)
    long, short = (vars(record) for record in caplog.records if record.message == "request")
    for varying in ("created", "msecs", "relativeCreated", "duration_ms"):
        assert isinstance(short.pop(varying), float)
        long.pop(varying)
    assert short == long
    assert short["route"] == "/models/{id}/predict"


def test_rows_that_come_in_pieces_are_all_answered(fitted: Client) -> None:
    whole = asked(fitted)
    head, body = sent()
    in_pieces = received(fitted, head[:20], head[20:], body[:9], body[9:], long_way=closed)
    assert Answer(in_pieces).content == whole.content


def test_a_question_whose_body_never_ends_is_sent_nothing(fitted: Client) -> None:
    asked(fitted)
    head, body = sent()
    assert received(fitted, head, body[:9], long_way=closed) == b""


def test_questions_sent_together_are_answered_in_their_order(fitted: Client) -> None:
    asked(fitted)
    short, long = b"".join(sent()), b"".join(sent(PREDICT + LONG_WAY))
    answers = received(fitted, short + short + long, long_way=None).split(b"HTTP/1.1 200 OK\r\n")
    assert len(answers) == 4


def test_nothing_that_the_collector_must_find_is_left_by_a_question(fitted: Client) -> None:
    """Collecting cycles of thousands of questions at once would hold up those that come then."""
    for _ in range(3):
        asked(fitted)
    question = b"".join(sent())
    gc.collect()
    gc.disable()
    try:
        received(fitted, *[question], long_way=closed)
        for_one = gc.collect()
        received(fitted, *[question] * 50, long_way=closed)
        for_fifty = gc.collect()
    finally:
        gc.enable()
    assert for_fifty <= for_one + 5


def with_hosts(hosts: str) -> bytes:
    head, body = sent()
    return head.replace(b"Host: service\r\n", hosts.encode()) + body


@pytest.mark.parametrize(
    "hosts",
    [
        "",
        "Host: a\r\nHost: b\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: a:b\r\n",
        "Host: [a\r\n",
    ],
    ids=["none", "two", "a space", "a path", "a port of letters", "half an address"],
)
def test_a_question_for_no_host_or_for_two_is_refused(fitted: Client, hosts: str) -> None:
    asked(fitted)
    assert Answer(received(fitted, with_hosts(hosts))).status == 400


@pytest.mark.parametrize("host", ["", "a_b.c-d:80", "127.0.0.1:", "[::1]:8000", "xn--caf-dma.fr"])
def test_a_host_is_a_name_or_an_address(fitted: Client, host: str) -> None:
    asked(fitted)
    told = received(fitted, with_hosts(f"Host: {host}\r\n"), long_way=closed)
    assert Answer(told).status == 200
