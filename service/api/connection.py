"""What is refused on a connection before there is a request to hand to the application.

The server's parser answers for itself there, in plain text, and takes headers of any size. Here
the same is said as a problem, and the head of a request is bounded.
"""

import secrets
from http import HTTPStatus

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.problems import PROBLEM_MEDIA_TYPE, problem_content, status_of
from service.errors import HeadTooLarge, MalformedRequest, ServiceError

MAX_HEAD_BYTES = 32 * 1024
"""Of the request line and all headers."""

UNREADABLE = MalformedRequest("malformed_request", "This is not a request of HTTP/1.1.")
TOO_LARGE = HeadTooLarge(
    "head_too_large", f"A request's line and headers have at most {MAX_HEAD_BYTES} bytes."
)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a bound on the head and refusals in the service's one shape."""

    _head_bytes = 0
    """Of the names, values and path of the head that the parser has made out so far."""
    _open_head_bytes = 0
    """Received since a head began that is not complete; counts what the parser still holds."""
    _is_in_head = False

    def data_received(self, data: bytes) -> None:
        was_in_head = self._is_in_head
        super().data_received(data)
        if was_in_head and self._is_in_head:
            self._open_head_bytes += len(data)
            if self._open_head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self._refuse(TOO_LARGE)

    def on_message_begin(self) -> None:
        self._head_bytes = self._open_head_bytes = 0
        self._is_in_head = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's
        """Answer what the parser stopped at, or what ``_count`` stopped the parser for."""
        self._refuse(TOO_LARGE if self._head_bytes > MAX_HEAD_BYTES else UNREADABLE)

    def _count(self, *parts: bytes) -> None:
        self._head_bytes += sum(map(len, parts))
        if self._head_bytes > MAX_HEAD_BYTES:
            raise httptools.HttpParserCallbackError(TOO_LARGE.detail)

    def _refuse(self, error: ServiceError) -> None:
        request_id = secrets.token_hex(16)
        content = problem_content(error, request_id)
        status = HTTPStatus(status_of(error))
        head = "\r\n".join(
            [
                f"HTTP/1.1 {status.value} {status.phrase}",
                f"Content-Type: {PROBLEM_MEDIA_TYPE}",
                f"Content-Length: {len(content)}",
                f"X-Request-Id: {request_id}",
                "X-Content-Type-Options: nosniff",
                "Cache-Control: no-store",
                "Connection: close",
            ]
        )
        self.transport.write(head.encode() + b"\r\n\r\n" + content)
        self.transport.close()
