"""What holds for every request: plain ASGI classes, outermost first in ``service.main``."""

import logging
import re
import secrets
import time
from asyncio import CancelledError
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.departures import AnswerCutOff
from service.api.landing import landing_of
from service.api.negotiation import KEPT_HEADERS
from service.api.payloads.spool import Outbox
from service.api.problems import UNEXPECTED, problem_response, request_id_of
from service.api.services import Services
from service.api.turns import CALLER, Caller, Place
from service.errors import MalformedRequest, Unavailable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecordKind:
    """Records of one event, which only differ in their fields."""

    logger: logging.Logger
    common: Mapping[str, object]


def record_of(logger: logging.Logger, event: str) -> RecordKind:
    record = logger.makeRecord(logger.name, logging.INFO, "", 0, event, (), None)
    return RecordKind(logger, record.__dict__)


def log(kind: RecordKind, **fields: object) -> None:
    """Do as ``logger.info``, but make the record from another in a quarter of the time."""
    if not kind.logger.isEnabledFor(logging.INFO):
        return
    now = time.time()
    record = logging.LogRecord.__new__(logging.LogRecord)
    record.__dict__ = {**kind.common, "created": now, "msecs": now % 1 * 1000, **fields}
    kind.logger.handle(record)


REQUEST_RECORD = record_of(logger, "request")

WELL_FORMED_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@~-]{1,128}\Z")

ID_BYTES, IDS_AT_ONCE = 16, 256

SECONDS = re.compile(r"([0-9]+(\.[0-9]*)?|\.[0-9]+)([Ee][+-]?[0-9]+)?\Z")
MAX_SECONDS_LENGTH = 32
TIMEOUT_UNCLEAR = MalformedRequest(
    "malformed_request",
    "Request-Timeout is a decimal number of seconds, such as 5, 0.5 or 1e-3: not negative, and of "
    f"at most {MAX_SECONDS_LENGTH} characters.",
)
HOST_UNCLEAR = MalformedRequest(
    "malformed_request", "A request needs exactly one Host header: a name or address, and a port."
)
HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.v]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::\d*)?"
)
"""``uri-host [ ":" port ]`` (RFC 9110, 7.2; RFC 3986, 3.2.2); empty where a target has none."""
SAID_ONCE = (b"content-type", b"request-timeout", b"inference-header-content-length")
SAID_TWICE = MalformedRequest(
    "malformed_request",
    "Content-Type, Request-Timeout and Inference-Header-Content-Length may be given once each.",
)
CODING_UNKNOWN = MalformedRequest(
    "malformed_request", "Transfer-Encoding can only be chunked, and only in HTTP/1.1."
)


RawHeader = tuple[bytes, bytes]
NO_SNIFFING = (b"x-content-type-options", b"nosniff")
NOT_STORED = (b"cache-control", b"no-store")
"""Unless an answer says otherwise."""
ALWAYS_OURS = frozenset({b"x-request-id", NO_SNIFFING[0]})


class RequestIdentity:
    """Gives every request an id, the client's own if it is well-formed, and sends it back."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = request_id_for(Headers(scope=scope).get("x-request-id", ""))
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _with_identity(message["headers"], request_id.encode())
            await send(message)

        await self.app(scope, receive, send_with_headers)


def request_id_for(given: str) -> str:
    """Return the id that a request came with, or a new one."""
    return given if given and WELL_FORMED_REQUEST_ID.match(given) else next(NEW_IDS)


def _new_ids() -> Iterator[str]:
    """Yield random ids without end; the kernel is asked for many at once."""
    while True:
        digits = secrets.token_hex(ID_BYTES * IDS_AT_ONCE)
        for begin in range(0, len(digits), 2 * ID_BYTES):
            yield digits[begin : begin + 2 * ID_BYTES]


NEW_IDS = _new_ids()
"""For one thread: that of the server's loop."""


def _with_identity(headers: Iterable[RawHeader], request_id: bytes) -> list[RawHeader]:
    identified = [header for header in headers if header[0] not in ALWAYS_OURS]
    identified += (b"x-request-id", request_id), NO_SNIFFING
    if all(name != NOT_STORED[0] for name, _ in identified):
        identified.append(NOT_STORED)
    return identified


class AccessLog:
    """One event for each request; the route's template, never the client's text."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 0

        async def noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting_status)
        finally:
            log_request(
                scope["method"],
                getattr(scope.get("route"), "path", None),
                status=status,
                begun=begun,
                request_id=scope["state"]["request_id"],
            )


def log_request(
    method: str, route: str | None, *, status: int, begun: float, request_id: str
) -> None:
    """Tell what was answered to what; ``begun`` by ``time.perf_counter``."""
    log(
        REQUEST_RECORD,
        method=method,
        route=route,
        status=status,
        duration_ms=round(1000 * (time.perf_counter() - begun), 3),
        request_id=request_id,
    )


class LastResort:
    """Answers what nothing else caught: logged whole, told in one sentence."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_started = False

        async def noting_start(message: Message) -> None:
            nonlocal is_started
            is_started = True
            await send(message)

        try:
            await self.app(scope, receive, noting_start)
        except ClientDisconnect:
            return  # nobody is left to answer
        except AnswerCutOff as cut:  # logged
            _break_off(scope, cut)
        except CancelledError as cancelled:
            services: Services = scope["app"].state.services
            if not services.lifecycle.is_draining:
                raise
            logger.warning("request_cut_off", extra={"request_id": request_id_of(scope)})
            if is_started:
                _break_off(scope, cancelled)
            else:
                await problem_response(Unavailable.draining(), scope)(scope, receive, send)
        except Exception as error:
            logger.exception("unexpected_error", extra={"request_id": request_id_of(scope)})
            if is_started:
                _break_off(scope, error)
            else:
                await problem_response(UNEXPECTED, scope)(scope, receive, send)


def _break_off(scope: Scope, error: BaseException) -> None:
    """Break the connection off, so that the answer can't pass as complete."""
    break_off = scope.get("state", {}).get("break_off")
    if break_off is None:
        raise error  # for the server, which has no other way
    break_off()


class HeadAsGet:
    """Answers HEAD as GET without the body (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)
            is_start = message["type"] == "http.response.start"
            if is_start and "content-length" not in Headers(raw=message["headers"]):
                # A stream, which may go on for long: the client has all that it asked for.
                await send({"type": "http.response.body", "body": b""})
                raise ClientDisconnect

        with suppress(ClientDisconnect):
            await self.app({**scope, "method": "GET"}, receive, without_body)


class SoundHead:
    """Refuses a head that says two things at once, or of a body what can't be.

    The parser lets them by.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wrong = _wrong_with_head(scope) if scope["type"] == "http" else None
        app = self.app if wrong is None else problem_response(wrong, scope)
        await app(scope, receive, send)


@lru_cache(KEPT_HEADERS)
def is_host(value: bytes) -> bool:
    return HOST.fullmatch(value) is not None


def _wrong_with_head(scope: Scope) -> MalformedRequest | None:
    is_old = scope["http_version"] == "1.0"
    names = [name for name, _ in scope["headers"]]
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if len(hosts) > 1 or not (is_old or hosts) or not all(map(is_host, hosts)):  # RFC 9112, 3.2
        return HOST_UNCLEAR
    if len(set(names)) < len(names) and any(names.count(name) > 1 for name in SAID_ONCE):
        return SAID_TWICE
    if b"transfer-encoding" in names:
        codings = [value for name, value in scope["headers"] if name == b"transfer-encoding"]
        if is_old or [coding.lower() for coding in codings] != [b"chunked"]:
            return CODING_UNKNOWN
    return None


class WholeUnderHttp10:
    """Answers a client of HTTP/1.0 in one piece: it knows no chunks (RFC 9112, 6.1).

    An answer of unknown length would end with the connection, as one that is cut off does. What
    goes wrong in its middle can still be told.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_old = scope["type"] == "http" and scope["http_version"] == "1.0"
        if not is_old or scope["method"] == "HEAD":  # which has no chunks anyway
            await self.app(scope, receive, send)
            return
        services: Services = scope["app"].state.services
        outbox = Outbox(services.options.spool)
        start: Message | None = None
        """Of an answer of unknown length."""
        n_bytes = 0

        async def keep(message: Message) -> None:
            nonlocal start, n_bytes
            if message["type"] == "http.response.start" and _is_of_unknown_length(message):
                start = message
                return
            if start is None:
                await send(message)
                return
            part = message.get("body", b"")
            n_bytes += len(part)
            if part:
                await services.threads.look_up(outbox.put, bytes(part))
            if not message.get("more_body", False):
                length = b"content-length", str(n_bytes).encode()
                await send({**start, "headers": [*start["headers"], length]})
                while part := await services.threads.look_up(outbox.take):
                    await send({"type": message["type"], "body": part, "more_body": True})
                await send({"type": message["type"], "body": b""})

        try:
            await self.app(scope, receive, keep)
        except AnswerCutOff as cut:
            await problem_response(cut.error, scope)(scope, receive, send)
        finally:
            outbox.close()


def _is_of_unknown_length(start: Message) -> bool:
    has_content = start["status"] not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
    return has_content and all(name != b"content-length" for name, _ in start["headers"])


class KnownCaller:
    """Lets whoever queues for this request know how long it is worth it (``turns``)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        landing = landing_of(scope)
        if landing is not None:
            receive = landing.taking(receive)
        caller = Caller(receive, place=scope["state"].pop("place", None) or Place())
        given = Headers(scope=scope).get("request-timeout")
        if given is not None:
            if len(given) > MAX_SECONDS_LENGTH or not SECONDS.match(given):
                await problem_response(TIMEOUT_UNCLEAR, scope)(scope, receive, send)
                return
            caller.deadline = time.monotonic() + float(given)
        token = CALLER.set(caller)
        try:
            await self.app(scope, caller.receive_noted, send)
        finally:
            CALLER.reset(token)
            holding = scope["state"].pop("holding", None)
            if holding is not None:
                holding.release()
