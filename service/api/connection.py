"""What is refused on a connection before there is a request to hand to the application.

The server's parser answers for itself there, in plain text, and takes headers of any size; the
server waits for a request's bytes without end, and for those of an answer to be taken. Here the
same is said as a problem, the head of a request and the connections are bounded, and who sends or
reads too slowly is cut off. While more is asked
than can be computed, a request with a large body is refused at its head: reading what is refused
afterwards would take the time of those that are answered.

Bodies are handed over in portions of a megabyte, or whole when they are smaller: every portion
wakes the request's task, and is joined once. Large ones whose length is known come in beside the
parser (``landing``).

What ``short_way`` can answer is answered as soon as its last byte is in, without the application
and its task; the application is handed the same request when it can't. Clients send the same head
again and again: where one of those that were answered comes again with its body, in the bytes of
one read, the parser is not asked what it says.
"""

import logging
import re
import select
from array import array
from asyncio import Event, Future, TimerHandle, Transport, get_running_loop
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fcntl import ioctl
from functools import partial
from http import HTTPStatus
from termios import FIONREAD, TIOCOUTQ

import httptools
import numpy as np
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from service.api.landing import Landing
from service.api.middleware import log, record_of, request_id_for
from service.api.outlet import Outlet
from service.api.payloads.values import Body
from service.api.refusals import Refusals
from service.api.short_way import LARGE_BODY_BYTES, ShortAnswer, ShortQuestion, ShortWay, note
from service.api.turns import Handed, Place, overloaded
from service.errors import (
    HeadTooLarge,
    MalformedRequest,
    ServiceError,
    SlowRequest,
    Unavailable,
)

REFUSAL_RECORD = record_of(logging.getLogger(__name__), "request_refused")
REFUSALS = Refusals()

MAX_HEAD_BYTES = 32 * 1024
"""Of the request line and all headers."""
PORTION_BYTES = 1024**2
"""Of a body that are handed over at once, if it is not whole before."""
LANDED_BYTES = 128 * 1024
"""Left of a body, from which on the rest is received into its place."""
HEAD_END = b"\r\n\r\n"
LINGER_SECONDS = 2.0
"""In which who gets no more answers may end what it is sending, and read the last one."""
LINGER_BYTES = 256 * 1024**2
"""Read of that and dropped."""
HEALTH = frozenset({b"/livez", b"/readyz", b"/v2/health/live", b"/v2/health/ready"})
SURPLUS, SURPLUS_SECONDS = 64, 0.5
"""Connections beyond those that may be open, which are heard for so long: whether the service is
well is answered there, and nothing else."""
LAST_SECONDS = 0.5
"""For which the rest of a head is awaited that had begun to come when the service was stopped."""
GONE_SECONDS = 0.1
"""Between looks whether a client that sends no more is there, while its answer is made."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
ARRIVAL_SECONDS = 1.0
"""For which a body on its way keeps its place in the queue; who sends slower than that competes
with nobody, and could otherwise keep others out."""

REQUEST_LINE = re.compile(rb"\S+ +(\S+)")
VERSIONS = frozenset({"1.0", "1.1"})
"""Of HTTP; the parser lets through others that it knows."""
UNREADABLE = MalformedRequest("malformed_request", "This is not a request of HTTP/1.1.")
TOO_LARGE = HeadTooLarge(
    "head_too_large", f"A request's line and headers have at most {MAX_HEAD_BYTES} bytes."
)


@dataclass(slots=True, eq=False)
class Apart:
    """Stands where uvicorn has the request under way, while a question is answered apart."""

    question: ShortQuestion
    head: bytes
    """What it came with, byte for byte, if no other request came in the same read."""
    keeps: bool
    """Whether the client wants the connection to be kept."""
    is_parsed: bool
    """Whether the parser has seen the head; it is known by its bytes otherwise."""
    body: memoryview = field(default_factory=lambda: memoryview(b""))
    handed: Handed | None = None
    """Its turn."""
    may_send: bool = False
    """Nothing else waits to be sent: the thread that finds the answer may do it."""
    answer: ShortAnswer | None = None
    unsent: Sequence[Body] | None = None
    """What is left of the answer; all of it is while there is None."""
    is_found: bool = False
    """The thread is done with it."""
    over: "Future[None]" = field(default_factory=lambda: get_running_loop().create_future())
    message_event: Event = field(default_factory=Event)
    disconnected: bool = False
    keep_alive: bool = True
    more_body: bool = True
    response_started: bool = False
    response_complete: bool = False


TOO_MANY = Unavailable(
    "too_many_connections", "Too many connections are open.", retry_after_seconds=1
)
OVERLOADED = overloaded()
TOO_MUCH_FRAMING = MalformedRequest(
    "malformed_request",
    f"Between two parts of a body there are at most {MAX_HEAD_BYTES} bytes.",
)
TOO_SLOW = SlowRequest("request_too_slow", "The request did not come in in time.")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    max_connections: int = 512
    head_seconds: float = 10.0
    """From the first byte of a head, or from the connection, to the head's end."""
    stall_seconds: float = 30.0
    """Without a byte of a body, or of an answer."""
    min_bytes_per_second: float = 1024.0
    """Of a body on average, looked at when ``stall_seconds`` have passed; of an answer that waits
    for its client, in each ``stall_seconds``."""


def always_let_in() -> Place:
    return Place()


def nobody_told(n_connections: int, n_at_most: int) -> None:
    """Do nothing about it."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with bounds on what a client may keep open, send and take time for.

    Refusals have the service's one shape. ``bounded_by`` makes the class that has other limits.
    """

    limits = ConnectionLimits()
    let_in: Callable[[], Place | None] = staticmethod(always_let_in)
    """Keeps a place in the queue for a large body that is about to come; None when it is full."""
    arrived: Callable[[int, int], None] = staticmethod(nobody_told)
    """Told with each connection how many there are, and how many there may be."""
    short_way: ShortWay | None = None
    """Tried before the application."""

    url = b""
    """None before the first request."""
    _head_bytes = 0
    """Of the names, values and path of the head that the parser has made out so far."""
    _open_head_bytes = 0
    """Received since a head began that is not complete; counts what the parser still holds."""
    _is_in_head = False
    _is_in_body = False
    _body_bytes = 0
    _framing_bytes = 0
    """Of a body in chunks, since its last byte: of a length, or of what is said besides it."""
    _waiting_seconds = 0.0
    """Spent on receiving the body; without the time in which the service did not read on."""
    _last_progress = 0.0
    _timer: TimerHandle | None = None
    """Runs while a head or a body is awaited, and never between requests."""
    _looking: TimerHandle | None = None
    """Looks whether an answer is taken, as long as the connection is there."""
    _unsent_bytes = 0
    """Of an answer that waited for its client at the last look."""
    _is_leaving = False
    """Refused, or answered for the last time: what still comes in is for nobody."""
    _dropped_bytes = 0
    """Received since then."""
    _refusal_behind: ServiceError | None = None
    """Of what came behind requests that are not answered yet: it has its turn after them."""
    _outlet: Outlet | None = None
    """For the threads that answer what came here; made when there is a question for them."""
    _is_handed_on = False
    """A question that could not be answered apart is being read by the parser."""
    _place = Place()
    """In the queue, of the body that is coming in."""
    _held_bytes = 0
    """Of the pieces that are not handed over yet."""
    _apart: Apart | None = None
    """Stands for the request that is answered by itself: its body is coming in, or its turn."""
    _landing: Landing | None = None
    """Receives the body that is coming in, instead of the parser."""
    _question: ShortQuestion | None = None
    """Of which the application has not heard: its body is coming in."""
    _answered: ShortQuestion | None = None
    """What came in last was, or ended with, this one, and the connection is kept."""
    _idle_since: float | None = None
    """When the last answer was given, unless something came in since."""
    _is_surplus = False
    """One of more connections than may be open."""
    _is_last = False
    """The service is being stopped: the next answer is the last one."""
    _has_ended = False
    """The client sends no more: it waits for answers to what it has sent, or is gone."""
    _looking_for_client: TimerHandle | None = None

    @classmethod
    def bounded_by(
        cls,
        limits: ConnectionLimits,
        let_in: Callable[[], Place | None] = always_let_in,
        short_way: ShortWay | None = None,
        arrived: Callable[[int, int], None] = nobody_told,
    ) -> "type[BoundedProtocol]":
        own = {
            "limits": limits,
            "let_in": staticmethod(let_in),
            "short_way": short_way,
            "arrived": staticmethod(arrived),
        }
        return type(cls.__name__, (cls,), own)

    def keep(self, place: Place) -> None:
        """Have a place from the beginning, for the body of the first request."""
        self._place = place

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # uvicorn's
        # As uvicorn's, which asks the system for both ends' addresses: that takes a third of a
        # millisecond while many bytes come in, and a question on the short way needs neither.
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        self.scheme = "https" if is_ssl(transport) else "http"
        self._pieces: list[bytes] = []
        self._later: list[bytes] = []
        """Came while a question was answered apart."""
        self._look_again()
        self.arrived(len(self.connections), self.limits.max_connections)
        n_surplus = len(self.connections) - self.limits.max_connections
        self._is_surplus = n_surplus > 0
        if n_surplus > SURPLUS:
            self._refuse(TOO_MANY)
        else:
            self._watch(SURPLUS_SECONDS if self._is_surplus else self.limits.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        for timer in (self._looking, self._looking_for_client, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()
        self._landing = None
        self._place.free()
        super().connection_lost(exc)
        if self._apart is None or self._is_given_up(self._apart):
            self._close_outlet()

    def _is_given_up(self, apart: Apart) -> bool:
        """Give up the turn of a question; False if a thread is at it, and may send."""
        if apart.handed is not None and not apart.is_found and self.short_way is not None:
            is_begun = not self.short_way.withdraw(apart.handed)
            if is_begun:
                return False
        self._let_go(apart)
        return True

    def _let_go(self, apart: Apart) -> None:
        """Forget a question whose client has gone; its log tells of an answer that was sent."""
        if apart.unsent is not None and not apart.unsent:
            note(apart.question)
        apart.over.cancel()
        apart.handed = None

    def _close_outlet(self) -> None:
        if self._outlet is not None:
            self._outlet.close()
            self._outlet = None

    def data_received(self, data: bytes) -> None:
        if self._is_done_with_input():
            self._drop(len(data))
            return
        if self._apart is not None and self._apart.is_found:
            self._settle(self._apart)
        if self._apart is not None:
            self._later.append(data)
            self.flow.pause_reading()
        else:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        was_in_head, was_in_body = self._is_in_head, self._is_in_body
        self._unset_keepalive_if_required()
        head = self._next_head(data)
        if head and self._is_answered_as_before(head, data):
            return
        if was_in_body:
            self._framing_bytes += len(data)
            self.body_received(len(data))
        self._parse(data)
        if self._is_done_with_input():
            return
        if self._answered is not None and head:
            self._remember(head, self._answered, len(data) - len(head))
        if was_in_head and self._is_in_head:
            self._open_head_bytes += len(data)
            if self._open_head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self._refuse(TOO_LARGE)
        elif self._is_in_head:
            self._watch(self.limits.head_seconds)
        elif self._is_in_body:
            self._go_on_with_body(head, data, is_new=not was_in_body)
        elif self._is_answering() or self._idle_since is not None:
            self._unwatch()
        elif was_in_body:  # it was answered before it was whole
            self._unwatch()
            self._be_idle()
        elif self._timer is None:  # empty lines, which may stand before a request
            self._watch(self.limits.head_seconds)

    def _go_on_with_body(self, head: bytes, data: bytes, *, is_new: bool) -> None:
        if is_new:
            self._begin_body()
            is_alone = len(head) + sum(map(len, self._pieces)) == len(data)
            self._land(head if is_alone else b"")
        elif self._framing_bytes > MAX_HEAD_BYTES:
            self._cut_off(TOO_MUCH_FRAMING)

    def _next_head(self, data: bytes) -> bytes:
        """Return the head of a request that begins here and follows no other; empty if cut off."""
        if self._is_in_head or self._is_in_body or self._is_answering():
            return b""
        end = data.find(HEAD_END)
        return data[: end + len(HEAD_END)] if end >= 0 else b""

    def _is_answered_as_before(self, head: bytes, data: bytes) -> bool:
        """Answer a question with a known head at once, if that is all that came.

        Of a large one the rest is received.
        """
        question = None if self.short_way is None else self.short_way.known_question(head)
        if question is None:
            return False
        if question.is_large:
            return self._is_landed_as_before(question, head, data)
        if len(data) != len(head) + question.n_bytes:
            return False
        answer = self._answer_of(question, memoryview(data)[len(head) :])
        if answer is None:
            return False
        self._unwatch()
        self._write(answer, keeps=not self._is_last)
        return True

    def _is_landed_as_before(self, question: ShortQuestion, head: bytes, data: bytes) -> bool:
        """Receive the rest of a large question with a known head, if it is let in."""
        early = memoryview(data)[len(head) :]
        is_busy = self.pipeline or self.flow.write_paused or self.transport.is_closing()
        if len(early) > question.n_bytes or is_busy or not self._has_place():
            return False
        self.headers, self.url = [], b""  # those of another request
        apart = Apart(question, head, keeps=not self._is_last, is_parsed=False)
        self._begin_apart(apart)
        if len(early) < question.n_bytes:
            self._is_in_body = True
            self._begin_body()
            self._receive_into_place(question.n_bytes, early).into(apart.body)
        else:
            self._unwatch()
            apart.body[:] = early  # where numbers have an address that they may have
            self._ask(apart)
        return True

    def _remember(self, head: bytes, question: ShortQuestion, n_bytes: int) -> None:
        """Keep the head of a question if nothing but its body followed."""
        if self.short_way is not None and question.n_bytes == n_bytes:
            self.short_way.remember(head, question)

    def _parse(self, data: bytes) -> None:
        self._answered = None
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            line = REQUEST_LINE.match(data)
            if self._is_in_head and not self.url and line is not None:
                self.url = line[1]  # the parser stops at a method that it does not know
            self.send_400_response(str(error))
        except httptools.HttpParserUpgrade as upgrade:
            if self._is_upgrade_ignored():
                rest = self._head_without_upgrade() + data[upgrade.args[0] :]
                self._parse_anew()
                self._parse(rest)

    def _is_upgrade_ignored(self) -> bool:
        """Say whether another protocol is wished for: there is none (RFC 9110, 7.8).

        The parser takes what follows such a head for that protocol's, and sees no body.
        """
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _head_without_upgrade(self) -> bytes:
        """Return the head that the parser has read, as one that it reads the body after."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _begin_body(self) -> None:
        self._body_bytes = self._framing_bytes = 0
        self._waiting_seconds = 0.0
        self._last_progress = self.loop.time()
        self._watch(self.limits.stall_seconds)

    def _land(self, head: bytes) -> None:
        """Receive the rest of the body into its place, if it is large and its length is known."""
        n_bytes = self._declared_bytes()
        is_little_left = n_bytes - sum(map(len, self._pieces)) < LANDED_BYTES
        is_large_question = self._question is not None and self._question.is_large
        if (is_little_left and not is_large_question) or not self._is_in_turn():
            return
        if self.flow.write_paused:  # the application waits until there is room for an answer
            self._take_long_way()
        early = b"".join(self._pieces)
        self._pieces.clear()
        self._held_bytes = 0
        if self._question is not None:
            keeps = self.parser.should_keep_alive() and not self._is_last
            apart = Apart(self._question, head, keeps=keeps, is_parsed=True)
            self._question = None
            self._begin_apart(apart)
            self._receive_into_place(n_bytes, early).into(apart.body)
            return
        self._receive_into_place(n_bytes, early)
        self.scope["state"]["landing"] = self._landing
        self.flow.pause_reading()  # until the application asks for it

    def _begin_apart(self, apart: Apart) -> None:
        self._apart = apart
        self.cycle = apart  # type: ignore[assignment]  # it has all that is asked of one
        apart.body = np.empty(apart.question.n_bytes, dtype=np.uint8).data

    def _receive_into_place(self, n_bytes: int, early: bytes | memoryview) -> Landing:
        event, pause = self.cycle.message_event, self.flow.pause_reading
        self._landing = Landing(self, n_bytes, early, event=event, pause=pause)
        self.transport.set_protocol(self._landing)
        return self._landing

    def _is_in_turn(self) -> bool:
        """Say whether the body that comes in is of the request that is to be answered next."""
        if self.pipeline or self.transport.is_closing():
            return False
        return self._question is not None or self._is_answering()

    def body_landed(self) -> None:
        self._landing = None
        self.transport.set_protocol(self)
        if self._is_leaving:
            return
        self._is_in_body = False
        self._unwatch()
        if self._apart is not None:
            self._ask(self._apart)
            return
        if not self.cycle.response_complete:
            self.cycle.more_body = False
        self._parse_anew()

    def let_others_read(self) -> None:
        """Read on in the loop's next turn: the server would go on as long as anything comes."""
        self.transport.pause_reading()
        self.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not (self.flow.read_paused or self.transport.is_closing()):
            self.transport.resume_reading()

    def _parse_anew(self) -> None:
        """Read requests again: the parser before still waits for a body that went by it."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's

    def _ask(self, apart: Apart) -> None:
        """Have a question answered by a computing thread, now that its body is in."""
        apart.more_body = False
        self._place.free()
        if self.short_way is None:
            return
        apart.may_send = self._has_outlet() and not self.transport.get_write_buffer_size()
        self.tasks.add(apart.over)  # type: ignore[arg-type]  # who drains waits for it as for one
        apart.over.add_done_callback(self.tasks.discard)
        found, over = partial(self._send, apart), partial(self._is_over, apart)
        try:
            apart.handed = self.short_way.hand(apart.question, apart.body, found, over)
        except Unavailable as error:
            self._is_over(apart, error)

    def _has_outlet(self) -> bool:
        if self._outlet is None and self.scheme == "http":
            own = self.transport.get_extra_info("socket")
            self._outlet = None if own is None else Outlet.of(own.fileno())
        return self._outlet is not None

    def _send(self, apart: Apart, answer: ShortAnswer | None) -> None:
        """Send an answer from the thread that has found it, as far as the system takes it."""
        apart.answer = answer
        outlet = self._outlet
        if answer is not None and apart.may_send and outlet is not None:
            apart.keeps = apart.keeps and apart.keep_alive
            apart.unsent = outlet.send([self._head_of(answer, keeps=apart.keeps), *answer.content])
        apart.is_found = True

    def _is_over(self, apart: Apart, error: Unavailable | None) -> None:
        """Take note of an answer, or of a refusal, on the loop."""
        apart.handed = None  # which knows it: the collector would have to find its body
        if apart.over.done():  # the next request came sooner
            return
        if apart.disconnected:
            self._let_go(apart)
            self._close_outlet()
        elif error is None:
            self._settle(apart)
        else:
            apart.over.set_result(None)
            if not self.transport.is_closing():
                self._refuse(error)

    def _settle(self, apart: Apart) -> None:
        """Go on behind a question that a computing thread is done with."""
        self._apart = None
        if apart.answer is None:
            self._hand_on(apart)
        else:
            self._end_answer(apart, apart.answer)
        apart.over.set_result(None)
        self._receive_later()

    def _end_answer(self, apart: Apart, answer: ShortAnswer) -> None:
        """Send what the thread has left of an answer, and be ready for the next request."""
        is_told = apart.unsent is not None
        keeps = apart.keeps if is_told else apart.keeps and apart.keep_alive
        if apart.is_parsed:
            self._parse_anew()
        apart.response_complete = True
        if self.short_way is not None:
            note(apart.question)
            if keeps and apart.is_parsed and apart.head:
                self.short_way.remember(apart.head, apart.question)
        if apart.unsent is None:
            self._write(answer, keeps=keeps)
        else:
            self._complete(apart.unsent, keeps=keeps)
        if keeps and self._is_last and not self._later:  # which its client could not know yet
            self._watch(LAST_SECONDS)

    def _hand_on(self, apart: Apart) -> None:
        """Hand a question that can't be answered here to the application, with its body."""
        self.cycle = None  # type: ignore[assignment]  # as before the first request
        if apart.is_parsed:
            self._begin_request()
        else:
            self._is_handed_on = True
            self.parser.feed_data(apart.head)
            self._is_handed_on = self._is_in_body = False
        self.cycle.body = bytes(apart.body)  # type: ignore[assignment]  # as in _hand_over
        self.cycle.more_body = False
        self.cycle.message_event.set()
        self.cycle.keep_alive &= apart.keep_alive
        self._parse_anew()

    def _receive_later(self) -> None:
        """Receive what came while a question was answered apart."""
        if self._later and not (self._is_leaving or self.transport.is_closing()):
            data = b"".join(self._later)
            self._later.clear()
            self._receive(data)
            self._close_if_ended()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's
        """Keep the connection for the answers to what came in whole (RFC 9112, 9.6)."""
        is_parsed = isinstance(self.cycle, RequestResponseCycle)
        is_stream = is_parsed and "ends_with_client" in self.scope["state"]
        if self._is_leaving or self._is_in_body or is_stream or not self._is_answering():
            return False
        self._has_ended = True
        self._looking_for_client = self.loop.call_later(GONE_SECONDS, self._ask_whether_gone)
        return True

    def _ask_whether_gone(self) -> None:
        """Send what says nothing: where nobody waits any more, it is answered with a reset."""
        is_silent = self._is_answering() and not (self.pipeline or self.cycle.response_started)
        if is_silent and self._may_say_continue():
            self.transport.write(CONTINUE)
        self._look_for_client()

    def _may_say_continue(self) -> bool:
        """Say whether the client knows what that is, and no thread may be sending meanwhile."""
        if self._apart is not None:
            return not self._apart.may_send
        return bool(self.scope["http_version"] == "1.1")

    def _look_for_client(self) -> None:
        if self.transport.is_closing() or not self._is_answering():
            return
        if _is_reset(self.transport):
            self.transport.abort()
        else:
            self._looking_for_client = self.loop.call_later(GONE_SECONDS, self._look_for_client)

    def _close_if_ended(self) -> None:
        """Close behind the last answer to a client that sends no more."""
        if self._has_ended and not (self._is_answering() or self._later):
            self.transport.close()

    def body_received(self, n_bytes: int) -> None:
        """Take note of a sender's progress."""
        if self._is_leaving:
            self._drop(n_bytes)
            return
        self._unset_keepalive_if_required()
        now = self.loop.time()
        self._body_bytes += n_bytes
        self._waiting_seconds += now - self._last_progress
        self._last_progress = now

    def _watch(self, seconds: float) -> None:
        self._unwatch()
        self._timer = self.loop.call_later(seconds, self._time_is_up)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_is_up(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if not self._is_in_body:
            self._refuse(TOO_MANY if self._is_surplus else TOO_SLOW)
            return
        self._take_long_way()
        if self.flow.read_paused:  # it is the service that does not read on
            self._last_progress = self.loop.time()
        waited = self.loop.time() - self._last_progress
        stall_seconds = self.limits.stall_seconds
        if waited < stall_seconds and not self._is_below_rate(waited):
            self._watch(stall_seconds - waited)
        else:
            self._cut_off(TOO_SLOW)

    def _cut_off(self, error: ServiceError) -> None:
        """End a request whose body is not taken any further."""
        if self.cycle is not None and self.cycle.response_started:
            self.transport.close()
        else:
            self._refuse(error)

    def _is_below_rate(self, waited: float) -> bool:
        seconds = self._waiting_seconds + waited
        if seconds < self.limits.stall_seconds:
            return False
        return self._body_bytes < self.limits.min_bytes_per_second * seconds

    def _look_again(self) -> None:
        self._looking = self.loop.call_later(self.limits.stall_seconds, self._look_at_answer)

    def _look_at_answer(self) -> None:
        """Break off when too little of an answer was taken since the last look."""
        before, self._unsent_bytes = self._unsent_bytes, self._waiting_bytes()
        least = self.limits.min_bytes_per_second * self.limits.stall_seconds
        if before and self._unsent_bytes and before - self._unsent_bytes < max(1, least):
            self.transport.abort()
        else:
            self._look_again()

    def _waiting_bytes(self) -> int:
        """Return how many bytes wait for the client, if none are added to them meanwhile.

        A client may send its whole body before it reads: as long as that goes on, it lives.
        """
        is_waiting = self.flow.write_paused and not self._is_in_body
        if is_waiting or self._is_leaving or self.transport.is_closing():
            return self.transport.get_write_buffer_size() + _queued_bytes(self.transport)
        return 0

    def resume_writing(self) -> None:
        self._unsent_bytes = 0
        super().resume_writing()

    def on_message_begin(self) -> None:
        self._head_bytes = self._open_head_bytes = 0
        self._is_in_head = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        if self._is_in_body:  # behind the last chunk, no part of the head (RFC 9110, 6.5.1)
            return
        name = name.lower()  # here, and not in a call of uvicorn's for each of them
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value.rstrip(b" \t")))  # RFC 9110, 5.5

    def on_headers_complete(self) -> None:
        if self.parser.get_http_version() not in VERSIONS:
            raise httptools.HttpParserCallbackError(UNREADABLE.detail)
        if self._is_upgrade_ignored():
            return
        self._is_in_head = False
        if self._is_leaving:
            return
        if self._is_surplus and not self._asks_for_health():
            self._is_leaving = True
            self._refuse(TOO_MANY)
            return
        self._is_in_body = True
        if self._is_handed_on:
            self._begin_request()
            return
        self._question = self._short_question()
        is_small = self._question is not None and not self._question.is_large
        if not is_small and self._is_let_in() and self._question is None:
            self._begin_request()

    def _begin_request(self) -> None:
        """Hand the request to the application."""
        if self.server is None:
            self.server = get_local_addr(self.transport)
            self.client = get_remote_addr(self.transport)
        self.scope["server"], self.scope["client"] = self.server, self.client
        self.expect_100_continue &= self.parser.get_http_version() != "1.0"  # RFC 9110, 10.1.1
        super().on_headers_complete()
        self.cycle.transport = _Closing(self.cycle, self)  # type: ignore[assignment]  # as much as it uses
        self.cycle.keep_alive &= not (self._is_surplus or self._is_last)
        self.scope["state"]["break_off"] = partial(_break_off, self.cycle)

    def _asks_for_health(self) -> bool:
        is_read = self.parser.get_method() in (b"GET", b"HEAD")
        return is_read and self.url.partition(b"?")[0] in HEALTH

    def _short_question(self) -> ShortQuestion | None:
        if self.short_way is None or self._is_leaving or self._is_answering():
            return None
        if self.parser.get_method() != b"POST" or self.parser.get_http_version() != "1.1":
            return None
        return self.short_way.question(self.url, self.headers)

    def _take_long_way(self) -> None:
        """Hand a question to the application, with what has come in by now."""
        if self._question is not None:
            self._question = None
            self._begin_request()

    def _is_let_in(self) -> bool:
        """Refuse a large body that would only wait to be refused."""
        if self._is_leaving:
            return False
        if self._declared_bytes() <= LARGE_BODY_BYTES or self._is_answering():
            return True
        if not self._has_place():
            self._refuse(OVERLOADED)
            return False
        self.scope["state"]["place"] = self._place
        return True

    def _has_place(self) -> bool:
        """Keep a place for a body that is about to come, if there is one."""
        place = self._place if self._place.is_kept else self.let_in()
        if place is None:
            return False
        self._place = place
        self.loop.call_later(ARRIVAL_SECONDS, place.free)
        return True

    def _declared_bytes(self) -> int:
        return next((int(value) for name, value in self.headers if name == b"content-length"), 0)

    def _is_answering(self) -> bool:
        """Say whether an earlier request is not answered yet: nothing may come in between."""
        return self.cycle is not None and not self.cycle.response_complete

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        if self._question is not None:  # its body is small, by its length
            self._pieces.append(body)
            return
        if self._is_leaving or self.cycle.response_complete:
            return
        self._pieces.append(body)
        self._held_bytes += len(body)
        if self._held_bytes < PORTION_BYTES:
            return
        if self.cycle.body:  # the portion before was not taken yet
            self.flow.pause_reading()
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        # Bytes, where uvicorn has an array of them: then it copies nothing when they are taken.
        self.cycle.body = b"".join([self.cycle.body, *self._pieces])  # type: ignore[assignment]
        self._pieces.clear()
        self._held_bytes = 0
        self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self._is_upgrade_ignored():
            return
        self._is_in_body = False
        if self._is_leaving or self._is_answered():
            return
        if self._pieces:
            self._hand_over()
        super().on_message_complete()

    def _is_answered(self) -> bool:
        """Answer on the short way, if this is a question for it and it can."""
        if self._question is None:
            return False
        keeps = self.parser.should_keep_alive() and not self._is_last
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        is_large = self._question.is_large  # it is answered here when it comes again
        answer = None if is_large else self._answer_of(self._question, body)
        self._answered = self._question if keeps and (is_large or answer is not None) else None
        if answer is None:
            self._take_long_way()
            return False
        self._question = None
        self._pieces.clear()
        self._write(answer, keeps=keeps)
        return True

    def _answer_of(self, question: ShortQuestion, body: Body) -> ShortAnswer | None:
        if self.short_way is None or self.flow.write_paused or self.transport.is_closing():
            return None
        return self.short_way.answer(question, body)

    def _head_of(self, answer: ShortAnswer, *, keeps: bool) -> bytes:
        parts = [STATUS_LINE[HTTPStatus.OK]]
        for name, value in self.server_state.default_headers:
            parts += (name, b": ", value, b"\r\n")
        parts += (answer.head, b"\r\n" if keeps else b"connection: close\r\n\r\n")
        return b"".join(parts)

    def _write(self, answer: ShortAnswer, *, keeps: bool) -> None:
        self._complete([self._head_of(answer, keeps=keeps), *answer.content], keeps=keeps)

    def _complete(self, parts: Sequence[Body], *, keeps: bool) -> None:
        """Send these parts of an answer, its last ones."""
        if not parts:
            pass
        elif sum(map(len, parts)) < PORTION_BYTES // 16:
            self.transport.write(b"".join(parts))
        else:
            self.transport.writelines(parts)
        if not keeps:
            self.see_out()
        self.on_response_complete()

    def shutdown(self) -> None:
        """Answer what has begun to come in, and nothing after it."""
        self._is_last = True
        self._take_long_way()
        if self._is_answering() or not (self._is_in_head or _unread_bytes(self.transport)):
            super().shutdown()
        elif not self._is_leaving:
            self._watch(LAST_SECONDS)

    def on_response_complete(self) -> None:
        self._place.free()
        if self._landing is not None:
            self._landing.drop()
        if self._is_leaving:
            self.server_state.total_requests += 1
            return
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        # As uvicorn's, but for a timer that is set again only when it has run out.
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        if self._refusal_behind is not None:
            self._refuse(self._refusal_behind)
            return
        self._be_idle()
        self._close_if_ended()

    def _be_idle(self) -> None:
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_whether_idle(self.timeout_keep_alive)

    def _look_whether_idle(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been idle for long enough."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._look_whether_idle(left)
        else:
            super().timeout_keep_alive_handler()

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's
        """Answer what the parser stopped at, or what ``_count`` stopped the parser for."""
        if self._is_done_with_input():
            return
        refusal = TOO_LARGE if self._head_bytes > MAX_HEAD_BYTES else UNREADABLE
        is_begun = self._is_in_body and self.cycle is not None and self.cycle.scope is self.scope
        if is_begun and self.pipeline:
            self.pipeline.popleft()  # the request whose body it is: the last one that came
        elif is_begun or not self._is_answering():
            self._refuse(refusal)
            return
        self._refusal_behind = refusal
        self._unwatch()

    def _is_done_with_input(self) -> bool:
        return self._is_leaving or self._refusal_behind is not None

    def _count(self, n_bytes: int) -> None:
        self._head_bytes += n_bytes
        if self._head_bytes > MAX_HEAD_BYTES:
            raise httptools.HttpParserCallbackError(TOO_LARGE.detail)

    def _refuse(self, error: ServiceError) -> None:
        given = self.headers or []  # none before the first request
        request_id = request_id_for(dict(given).get(b"x-request-id", b"").decode("latin-1"))
        path = self.url.partition(b"?")[0].decode("latin-1")
        refusal = REFUSALS.of(error, path)
        self.transport.write(STATUS_LINE[refusal.status] + refusal.told(request_id))
        log(REFUSAL_RECORD, code=error.code, status=refusal.status, request_id=request_id)
        if self._is_in_body:
            self._linger()
        else:
            self.transport.close()

    def see_out(self) -> None:
        """Close behind the last answer, but read on from a client that may still be sending."""
        if self._has_ended or self.scheme == "https":
            self.transport.close()
        else:
            self._linger()

    def _linger(self) -> None:
        """Let the client come to the answer: closing on what it still sends would take it away."""
        self._is_leaving = True
        if self._landing is not None:
            self._landing.drop()
        self._pieces.clear()
        self._later.clear()
        self.pipeline.clear()
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._unwatch()
        self.transport.write_eof()
        self.flow.resume_reading()
        self._timer = self.loop.call_later(LINGER_SECONDS, self._leave)

    def _drop(self, n_bytes: int) -> None:
        self._dropped_bytes += n_bytes
        if self._dropped_bytes > LINGER_BYTES:
            self.flow.pause_reading()

    def _leave(self) -> None:
        """Close once the answer is taken; ``_look_at_answer`` breaks off who does not take it."""
        if self.transport.get_write_buffer_size() + _queued_bytes(self.transport):
            self._timer = self.loop.call_later(LINGER_SECONDS, self._leave)
        else:
            self.transport.close()


@dataclass(frozen=True, slots=True)
class _Closing:
    """A connection as the cycle of a request has it, which closes it behind its last answer."""

    cycle: RequestResponseCycle
    protocol: BoundedProtocol

    def write(self, data: bytes) -> None:
        self.protocol.transport.write(data)

    def is_closing(self) -> bool:
        return self.protocol.transport.is_closing()

    def close(self) -> None:
        """Close at once what broke off: it must not pass as complete."""
        if self.cycle.response_complete:
            self.protocol.see_out()
        else:
            self.protocol.transport.close()


def _queued_bytes(transport: Transport) -> int:
    """Return how many bytes the system has taken and the other end has not.

    It takes the next ones when a third of its queue is free, which may be a megabyte: without
    these a slow reader looks like one that does not read.
    """
    return _told_by_system(transport, TIOCOUTQ)


def _unread_bytes(transport: Transport) -> int:
    """Return how many bytes have come that nobody has read yet."""
    return _told_by_system(transport, FIONREAD)


def _told_by_system(transport: Transport, request: int) -> int:
    number = array("i", [0])
    with suppress(OSError):  # the system does not tell, or the socket is closed
        ioctl(transport.get_extra_info("socket").fileno(), request, number)
    return number[0]


def _is_reset(transport: Transport) -> bool:
    looking = select.poll()
    looking.register(transport.get_extra_info("socket").fileno(), 0)
    return bool(looking.poll(0))  # of itself it tells of errors, and of the end of both directions


def _break_off(cycle: RequestResponseCycle) -> None:
    """Close the connection in the middle of an answer, which can't pass as complete then."""
    cycle.disconnected = True
    cycle.transport.close()
