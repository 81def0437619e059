"""The short way of the questions that are asked most: a few rows for a model that is at hand.

``POST /models/{id}/predict`` with a small body leaves little to find out, but the way there is
long: eleven layers around a router, and objects for the request and its answer. Here the same is
found out from the messages of ASGI themselves, in a third of the time, and only one thing is ever
said: the answer that was asked for. Whatever is unusual in anything, and whatever is wrong, goes
the long way with all that has come in by then, and is answered there as if nothing had been before.

So there are no refusals here, and none can differ. What the long way promises of a success is to be
kept here too: the headers, the event in the log, the times; a test compares them. A middleware that
is to hold for questions as well is to be known here: by a header that asks for it, for one.
"""

import logging
import re
import time
from dataclasses import dataclass
from functools import lru_cache

from fastapi import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.connection import LARGE_BODY_BYTES, WHOLE_ANSWER, WriteWhole
from service.api.forms import FREQUENT, FrequentQuestion
from service.api.middleware import log_request, request_id_for
from service.api.negotiation import KEPT_HEADERS, best_type, sent_type
from service.api.payloads import CODECS, codec_of
from service.api.payloads.values import Codec, Expected
from service.api.questions import Stopwatch, encoded, inference_headers
from service.api.services import Services
from service.domain.identifiers import ID_PATTERN
from service.errors import ServiceError

logger = logging.getLogger(__name__)

PATH = re.compile(rf"/models/({ID_PATTERN.strip('^$')})(/[a-z_]+)\Z")

UNUSUAL_HEADERS = frozenset(
    {b"content-encoding", b"expect", b"request-timeout", b"transfer-encoding"}
)
"""What they ask for is known on the long way."""
LONGEST_LENGTH = 9
"""Digits of a Content-Length that is looked at."""


@dataclass(frozen=True, slots=True)
class Formats:
    """Of a question and of its answer, as two headers name them."""

    codec: Codec
    expected: Expected
    most_bytes: int
    media_type: str
    """Of the answer."""
    content_type: str
    """The same as its header has it."""


@dataclass(slots=True)
class ShortQuestion:
    """A question of which nothing but the rows is missing."""

    asked: FrequentQuestion
    model_id: str
    formats: Formats
    request_id: str


@dataclass(slots=True)
class ShortAnswer:
    head: bytes
    """Headers, each with its end of line."""
    content: bytes

    async def send(self, send: Send) -> None:
        lines = self.head.splitlines()
        headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.content})


class ShortWay:
    """Answers what it can, and hands everything else to ``long_way``."""

    def __init__(self, services: Services, long_way: ASGIApp) -> None:
        self._services = services
        self._long_way = long_way
        self._formats = lru_cache(KEPT_HEADERS)(self._find_formats)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = time.perf_counter()
        question = self._question(scope)
        if question is None:
            await self._long_way(scope, receive, send)
            return
        stopwatch = Stopwatch()
        messages = [await receive()]
        while (
            messages[-1].get("more_body", False)
            and size_of(messages) <= question.formats.most_bytes
        ):
            messages.append(await receive())
        answer = self._answer(question, messages, stopwatch)
        if answer is None:
            await self._long_way(scope, replaying(messages, receive), send)
            return
        extension = scope.get("extensions", {}).get(WHOLE_ANSWER)
        write: WriteWhole | None = extension and extension["write"]
        if write is None or not write(answer.head, answer.content):
            await answer.send(send)
        path = question.asked.route.path
        log_request("POST", path, status=200, begun=begun, request_id=question.request_id)

    def _question(self, scope: Scope) -> ShortQuestion | None:
        """Return what is asked if its head tells of nothing unusual."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["query_string"]:
            return None
        found = PATH.match(scope["path"])
        asked = FREQUENT.get(found[2]) if found else None
        if found is None or asked is None:
            return None
        headers: dict[bytes, bytes] = dict(scope["headers"])
        is_usual = len(headers) == len(scope["headers"]) and UNUSUAL_HEADERS.isdisjoint(headers)
        if not is_usual or b"host" not in headers:
            return None
        formats = self._formats(headers.get(b"content-type", b""), headers.get(b"accept", b""))
        length = headers.get(b"content-length", b"")
        if formats is None or not length.isdigit() or len(length) > LONGEST_LENGTH:
            return None
        if int(length) > formats.most_bytes:
            return None
        request_id = request_id_for(headers.get(b"x-request-id", b"").decode("latin-1"))
        return ShortQuestion(asked, found[1], formats, request_id)

    def _find_formats(self, content_type: bytes, accept: bytes) -> Formats | None:
        sent = sent_type(content_type.decode("latin-1"))
        media_type = best_type(tuple(CODECS), accept.decode("latin-1"))
        if sent is None or sent.media_type not in CODECS or media_type is None:
            return None
        codec = codec_of(sent.media_type)
        options = self._services.options
        most_bytes = min(
            LARGE_BODY_BYTES, options.max_bytes(is_text=codec.is_text), options.max_stream_bytes
        )
        admit = self._services.limits.require_table
        expected = Expected(parameters=sent.parameters, admit=admit)
        answered = Response(media_type=media_type).headers["content-type"]
        return Formats(codec, expected, most_bytes, media_type, answered)

    def _answer(
        self, question: ShortQuestion, messages: list[Message], stopwatch: Stopwatch
    ) -> ShortAnswer | None:
        """Return the answer if all rows are in and it can be given here and now."""
        last = messages[-1]
        if last["type"] != "http.request" or last.get("more_body", False):
            return None
        body = body_of(last) if len(messages) == 1 else b"".join(map(body_of, messages))
        formats = question.formats
        try:
            payload = formats.codec.decode(body, formats.expected)
            stopwatch.lap("parse")
            fitted = self._services.inference.at_hand(question.model_id)
            if fitted is None or not fitted.is_quick_for(payload.table):
                return None
            stopwatch.lap("queue")
            values = question.asked.verb(fitted, payload.table)
        except ServiceError:
            return None
        except Exception:
            logger.exception("unexpected_error", extra={"request_id": question.request_id})
            return None
        stopwatch.lap("compute")
        content = encoded(fitted.version, values, formats.media_type)
        if not isinstance(content, bytes):
            return None
        stopwatch.lap("encode")
        told = inference_headers(fitted.version, stopwatch)
        head = "".join([f"{name.lower()}: {value}\r\n" for name, value in told.items()]) + (
            f"content-length: {len(content)}\r\ncontent-type: {formats.content_type}\r\n"
            f"x-request-id: {question.request_id}\r\nx-content-type-options: nosniff\r\n"
        )
        return ShortAnswer(head.encode("latin-1"), content)


def body_of(message: Message) -> bytes:
    body: bytes = message.get("body", b"")
    return body


def size_of(messages: list[Message]) -> int:
    return sum(len(body_of(message)) for message in messages)


def replaying(messages: list[Message], receive: Receive) -> Receive:
    """Return a ``receive`` that begins with messages that were received already."""
    again = iter(messages)

    async def receive_again() -> Message:
        return next(again, None) or await receive()

    return receive_again
