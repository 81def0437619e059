"""The short way answers as the long one does, and passes by nothing that the long one checks."""

import inspect
import json
import logging
from collections.abc import Iterable

import httpx
import numpy as np
import pytest
from starlette.types import Message, Receive, Scope, Send

from service.api.dependencies import refuse_stray_query
from service.api.forms import FREQUENT
from service.api.payloads import CODECS, codec_of
from service.api.payloads.values import DataAnswer
from service.api.questions import ask_latest
from service.main import Application
from tests.service.client import Client
from tests.service.rows import ONE_OF_EACH, TWO_GROUPS

LONG_WAY = "?version=1"
VARYING = {"server-timing", "x-request-id", "date"}


ROWS = json.dumps({"X": ONE_OF_EACH}).encode()


def encoded_rows(media_type: str) -> bytes:
    if media_type == "application/json":
        return ROWS
    if media_type == "application/x-ndjson":
        return b"\n".join(json.dumps(row).encode() for row in ONE_OF_EACH)
    return codec_of(media_type).encode(DataAnswer("m", 1, {"X": np.array(ONE_OF_EACH)}))


def without_long_way(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def closed(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the long way was taken")

    assert isinstance(client.app, Application)
    monkeypatch.setattr(client.app.short_way, "_long_way", closed)


def answered(client: Client, incoming: Iterable[Message], **changed: object) -> list[Message]:
    """Return what the application sends to a question that comes in these messages."""
    headers = {
        "host": "service",
        "content-type": "application/json",
        "content-length": str(len(ROWS)),
    }
    scope = {
        "type": "http",
        "method": "POST",
        "http_version": "1.1",
        "path": "/models/groups/predict",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        **changed,
    }
    messages, sent = iter(incoming), []

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        sent.append(message)

    client.portal.call(client.app, scope, receive, send)
    return sent


def told(response: httpx.Response) -> tuple[int, dict[str, object], dict[str, str]]:
    headers = {name: value for name, value in response.headers.items() if name not in VARYING}
    content: dict[str, object] = response.json()
    if response.status_code >= 400:
        content = {name: content[name] for name in ("code", "detail", "errors", "title")}
    return response.status_code, content, headers


@pytest.mark.parametrize("path", sorted(FREQUENT))
def test_it_stands_in_for_no_other_check_than_those_it_knows(path: str) -> None:
    route = FREQUENT[path].route
    assert [each.dependency for each in route.dependencies] == [refuse_stray_query, ask_latest]
    assert list(inspect.signature(route.endpoint).parameters) == ["question"]


@pytest.mark.parametrize("path", sorted(FREQUENT))
@pytest.mark.parametrize("n_rows", [2, 20_000])
def test_both_ways_tell_the_same(fitted: Client, path: str, n_rows: int) -> None:
    rows = {"X": ONE_OF_EACH * (n_rows // 2)}
    address = f"/models/groups{path}"
    first, again = (told(fitted.post(address, rows)) for _ in range(2))
    assert first == again == told(fitted.post(address + LONG_WAY, rows))
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
    fitted.post("/models/groups/predict", {"X": ONE_OF_EACH})
    address = f"/models/{model}/predict"
    refused = told(fitted.post(address, body, headers))
    assert refused[0] >= 400
    long = told(fitted.post(address + LONG_WAY, body, headers))
    assert (refused[0], refused[1]["code"]) == (long[0], long[1]["code"])


def test_what_is_kept_at_hand_follows_every_fit_alias_and_deletion(fitted: Client) -> None:
    def version() -> int:
        answers = [fitted.post("/models/groups/predict", {"X": ONE_OF_EACH}) for _ in range(3)]
        numbers = {int(answer.headers["gmm-model-version"]) for answer in answers}
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
    assert fitted.post("/models/groups/predict", {"X": ONE_OF_EACH}).status_code == 404


@pytest.mark.parametrize("path", sorted(FREQUENT))
@pytest.mark.parametrize("media_type", sorted(CODECS))
def test_a_few_rows_in_any_format_do_without_the_long_way(
    fitted: Client, path: str, media_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"/models/groups{path}"
    body = encoded_rows(media_type)
    headers = {"content-type": media_type, "accept": media_type, "x-request-id": "mine"}
    long = fitted.send("POST", address + LONG_WAY, body=body, headers=headers)
    fitted.send("POST", address, body=body, headers=headers)
    without_long_way(fitted, monkeypatch)
    short = fitted.send("POST", address, body=body, headers=headers)

    assert (short.status_code, short.content) == (200, long.content)
    assert [name for name, _ in short.headers.raw] == [name for name, _ in long.headers.raw]
    del short.headers["server-timing"], long.headers["server-timing"]
    assert short.headers == long.headers
    assert short.headers["x-request-id"] == "mine"


def test_both_ways_time_the_same_steps(fitted: Client) -> None:
    address = "/models/groups/predict"
    fitted.post(address, {"X": ONE_OF_EACH})
    timings = [
        fitted.post(each, {"X": ONE_OF_EACH}).headers["server-timing"]
        for each in (address, address + LONG_WAY)
    ]
    short, long = ([step.partition(";")[0] for step in timing.split(", ")] for timing in timings)
    assert short == long == ["parse", "queue", "compute", "encode"]


def test_both_ways_tell_the_log_the_same(
    fitted: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "/models/groups/predict"
    headers = {"x-request-id": "mine"}
    fitted.post(address, {"X": ONE_OF_EACH}, headers)
    with caplog.at_level(logging.INFO):
        fitted.post(address + LONG_WAY, {"X": ONE_OF_EACH}, headers)
        without_long_way(fitted, monkeypatch)
        fitted.post(address, {"X": ONE_OF_EACH}, headers)
    long, short = (vars(record) for record in caplog.records if record.message == "request")
    for varying in ("created", "msecs", "relativeCreated", "duration_ms"):
        assert isinstance(short.pop(varying), float)
        long.pop(varying)
    assert short == long
    assert short["route"] == "/models/{id}/predict"


def test_rows_that_come_in_pieces_are_all_answered(
    fitted: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [{"type": "http.request", "body": ROWS, "more_body": False}]
    pieces = [
        {"type": "http.request", "body": ROWS[:9], "more_body": True},
        {"type": "http.request", "body": ROWS[9:], "more_body": False},
    ]
    answered(fitted, whole)
    without_long_way(fitted, monkeypatch)
    assert answered(fitted, pieces)[1]["body"] == answered(fitted, whole)[1]["body"]


def test_more_than_was_announced_is_left_to_the_long_way(fitted: Client) -> None:
    fitted.post("/models/groups/predict", {"X": ONE_OF_EACH})
    endless = (
        {"type": "http.request", "body": b" " * 65536, "more_body": True} for _ in range(999)
    )
    start, _ = answered(fitted, endless)
    assert start["status"] == 413


def test_a_client_that_goes_away_is_sent_nothing(fitted: Client) -> None:
    fitted.post("/models/groups/predict", {"X": ONE_OF_EACH})
    assert answered(fitted, [{"type": "http.disconnect"}] * 2) == []


@pytest.mark.parametrize("n_hosts", [0, 2])
def test_a_question_for_no_host_or_for_two_is_refused(fitted: Client, n_hosts: int) -> None:
    fitted.post("/models/groups/predict", {"X": ONE_OF_EACH})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ROWS))]
    whole = [{"type": "http.request", "body": ROWS, "more_body": False}]
    start, _ = answered(fitted, whole, headers=[*headers, *[(b"host", b"service")] * n_hosts])
    assert start["status"] == 400
