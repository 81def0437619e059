"""The short way of the questions that are asked most: rows, not very many, for a model at hand.

``POST /models/{id}/predict`` with a small body leaves little to find out, but the way there is
long: a task, eleven layers around a router, and objects for the request and its answer. Here the
same is found out from the head and the body as the connection has them, in a fifth of the time, and
only one thing is ever said: the answer that was asked for. Whatever is unusual in anything, and
whatever is wrong, goes the long way, and is answered there as if nothing had been before.

A few rows are answered at once, more of them in a computing thread when their turn comes.

So there are no refusals here, and none can differ. What the long way promises of a success is to be
kept here too: the headers, the event in the log, the times; a test compares them. A middleware that
is to hold for questions as well is to be known here: by a header that asks for it, for one.
"""

import logging
import re
import time
from asyncio import get_running_loop
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from fastapi import Response

from service.api.forms import FREQUENT, FrequentQuestion
from service.api.middleware import is_host, log_request, request_id_for
from service.api.negotiation import KEPT_HEADERS, best_type, sent_type
from service.api.payloads import CODECS, codec_of
from service.api.payloads.values import Body, Codec, Expected
from service.api.questions import pieces_of
from service.api.services import Services
from service.api.turns import Handed, Over
from service.domain.data import Table
from service.domain.identifiers import ID_PATTERN
from service.domain.inference import FittedModel
from service.errors import ServiceError

logger = logging.getLogger(__name__)

LARGE_BODY_BYTES = 128 * 1024
"""A body of more than this is let in at the head of its request, or refused there; what it asks is
not answered on the loop."""
MOST_BYTES = 1024**2
"""Of a body that is answered here at all."""

PATH = re.compile(rf"/models/({ID_PATTERN.strip('^$')})(/[a-z_]+)\Z".encode())
"""Of a target without a query."""

UNUSUAL_HEADERS = frozenset(
    {b"content-encoding", b"expect", b"request-timeout", b"transfer-encoding", b"upgrade"}
)
"""What they ask for is known on the long way."""
LONGEST_LENGTH = 9
"""Digits of a Content-Length that is looked at."""


KEPT_TARGETS = 1024
KEPT_HEADS, KEPT_HEAD_BYTES = 1024, 1024
"""How many heads are known by their bytes, and how long they are at the most."""


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
    n_bytes: int
    """Of the body."""
    request_id: str
    begun: float
    """By ``time.perf_counter``."""

    @property
    def is_large(self) -> bool:
        return self.n_bytes > LARGE_BODY_BYTES

    def again(self) -> "ShortQuestion":
        """Return the same, asked now by a client that gives it no id."""
        begun, request_id = time.perf_counter(), request_id_for("")
        return ShortQuestion(
            self.asked, self.model_id, self.formats, self.n_bytes, request_id, begun
        )


@dataclass(slots=True)
class ShortAnswer:
    head: bytes
    """Headers, each with its end of line."""
    content: Sequence[Body]
    """One piece behind the other."""


Opened = Callable[[Table], FittedModel | None]
"""What opens the model for rows; None where they are not for here to answer."""


class ShortWay:
    """Answers what it can."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._formats = lru_cache(KEPT_HEADERS)(self._find_formats)
        self._at_hand: dict[str, FittedModel | None] = {}
        """What has been looked up in this turn of the loop."""
        self._known: dict[bytes, ShortQuestion] = {}
        """Questions by their heads, byte for byte."""

    def question(
        self, target: bytes, headers: Sequence[tuple[bytes, bytes]]
    ) -> ShortQuestion | None:
        """Return what a POST asks if its head tells of nothing unusual."""
        asked, model_id = frequent_question(target)
        if asked is None:
            return None
        by_name = dict(headers)
        is_usual = len(by_name) == len(headers) and UNUSUAL_HEADERS.isdisjoint(by_name)
        host = by_name.get(b"host")
        if not is_usual or host is None or not is_host(host):
            return None
        formats = self._formats(by_name.get(b"content-type", b""), by_name.get(b"accept", b""))
        length = by_name.get(b"content-length", b"")
        if formats is None or not length.isdigit() or len(length) > LONGEST_LENGTH:
            return None
        n_bytes = int(length)
        if n_bytes > formats.most_bytes:
            return None
        request_id = request_id_for(by_name.get(b"x-request-id", b"").decode("latin-1"))
        return ShortQuestion(asked, model_id, formats, n_bytes, request_id, time.perf_counter())

    def known_question(self, head: bytes) -> ShortQuestion | None:
        """Return what a head asks that was remembered."""
        known = self._known.get(head)
        return None if known is None else known.again()

    def remember(self, head: bytes, question: ShortQuestion) -> None:
        """Know a question by its head from now on, unless that names it with an id of its own."""
        if len(head) > KEPT_HEAD_BYTES or b"x-request-id" in head.lower():
            return
        if len(self._known) >= KEPT_HEADS:
            self._known.clear()
        self._known[head] = question

    def _find_formats(self, content_type: bytes, accept: bytes) -> Formats | None:
        sent = sent_type(content_type.decode("latin-1"))
        media_type = best_type(tuple(CODECS), accept.decode("latin-1"))
        if sent is None or sent.media_type not in CODECS or media_type is None:
            return None
        codec = codec_of(sent.media_type)
        if codec.unfolds:
            return None
        options = self._services.options
        most_bytes = min(
            MOST_BYTES, options.max_bytes(is_text=codec.is_text), options.max_stream_bytes
        )
        admit = self._services.limits.require_table
        expected = Expected(parameters=sent.parameters, admit=admit)
        answered = Response(media_type=media_type).headers["content-type"]
        return Formats(codec, expected, most_bytes, media_type, answered)

    def answer(self, question: ShortQuestion, body: Body) -> ShortAnswer | None:
        """Return the answer if it can be given here and now, and tell the log."""
        opened = partial(self._quickly_opened, question.model_id)
        answer = self._found(question, body, opened)
        if answer is not None:
            note(question)
        return answer

    def hand(
        self,
        question: ShortQuestion,
        body: Body,
        found: Callable[[ShortAnswer | None], None],
        over: Over,
    ) -> Handed:
        """Have it answered in a computing thread, which tells ``found`` the answer, if any.

        Raises ``Unavailable`` when the queue is full; ``over`` is told on the loop, also when it
        grows old there.
        """
        received = time.perf_counter()

        def opened(_: Table) -> FittedModel | None:
            # Here, for each look at the disk may cost the loop a wait for the interpreter's lock.
            return self._services.inference.at_hand(question.model_id)

        def answer() -> None:
            waited = time.perf_counter() - received
            found(self._found(question, body, opened, waited=waited))

        return self._services.threads.hand(answer, over)

    def withdraw(self, handed: Handed) -> bool:
        """Give its turn up; False if it was begun or refused before."""
        return self._services.threads.withdraw(handed)

    def _found(
        self, question: ShortQuestion, body: Body, opened: Opened, *, waited: float = 0.0
    ) -> ShortAnswer | None:
        formats = question.formats
        try:
            table = formats.codec.decode(body, formats.expected).table
            parsed = time.perf_counter()
            fitted = opened(table)
            if fitted is None:
                return None
            begun = time.perf_counter()
            values = question.asked.verb(fitted, table)
            computed = time.perf_counter()
            version = fitted.version
            content = pieces_of(version, values, formats.media_type)
        except ServiceError:
            return None
        except Exception:
            logger.exception("unexpected_error", extra={"request_id": question.request_id})
            return None
        if content is None:
            return None
        ended = time.perf_counter()
        parse = parsed - question.begun - waited
        queue = begun - parsed + waited
        head = (
            f"gmm-model-version: {version.number}\r\ngmm-space: {version.preprocessing.space}\r\n"
            f"server-timing: parse;dur={1e3 * parse:.3f}, queue;dur={1e3 * queue:.3f}"
            f", compute;dur={1e3 * (computed - begun):.3f}"
            f", encode;dur={1e3 * (ended - computed):.3f}\r\ncache-control: no-store\r\n"
            f"content-length: {sum(map(len, content))}\r\n"
            f"content-type: {formats.content_type}\r\n"
            f"x-request-id: {question.request_id}\r\nx-content-type-options: nosniff\r\n"
        )
        return ShortAnswer(head.encode("latin-1"), content)

    def _quickly_opened(self, model_id: str, table: Table) -> FittedModel | None:
        """Return the model if it is at hand and answers before another thread would begin to."""
        fitted = self._model_at_hand(model_id)
        return fitted if fitted is not None and fitted.is_quick_for(table) else None

    def _model_at_hand(self, model_id: str) -> FittedModel | None:
        """Return the model if it is at hand, looked up once for all who ask in this turn.

        Their questions were all on their way before it was looked up, so none can miss a change
        that its client knows of.
        """
        if not self._at_hand:
            get_running_loop().call_soon(self._at_hand.clear)
        elif model_id in self._at_hand:
            return self._at_hand[model_id]
        fitted = self._at_hand[model_id] = self._services.inference.at_hand(model_id)
        return fitted


@lru_cache(KEPT_TARGETS)
def frequent_question(target: bytes) -> tuple[FrequentQuestion | None, str]:
    """Return what is asked of which model, if it is asked often."""
    found = PATH.match(target)
    if found is None:
        return None, ""
    return FREQUENT.get(found[2].decode()), found[1].decode()


def note(question: ShortQuestion) -> None:
    """Tell the log of an answer."""
    path = question.asked.route.path
    log_request("POST", path, status=200, begun=question.begun, request_id=question.request_id)
