"""Refusals of a connection's own, as bytes: made up once, but for the request's id.

Under overload most of what a connection does is to refuse.
"""

from dataclasses import dataclass

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.api.middleware import NO_SNIFFING
from service.api.problems import is_open_inference, problem_response
from service.errors import ServiceError

ANY_ID = "0123456789abcdef" * 2
"""Stands where the request's id will be."""
CLOSING = (NO_SNIFFING, (b"connection", b"close"))
COUNTED = frozenset({b"content-length"})


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int
    head: bytes
    """All headers but those that follow from the request's id."""
    content: tuple[bytes, ...]
    """What stands around the id."""

    @classmethod
    def of(cls, error: ServiceError, path: str) -> "Refusal":
        answer = problem_response(error, {"path": path, "state": {"request_id": ANY_ID}})
        headers = [each for each in answer.raw_headers if each[0] not in COUNTED]
        head = b"".join(b"%s: %s\r\n" % header for header in [*headers, *CLOSING])
        content = bytes(answer.body).split(ANY_ID.encode())
        return cls(answer.status_code, head, tuple(content))

    def told(self, request_id: str) -> bytes:
        """Return headers and content."""
        own = request_id.encode()
        content = own.join(self.content)
        return b"%scontent-length: %d\r\nx-request-id: %s\r\n\r\n%s" % (
            self.head,
            len(content),
            own,
            content,
        )

    def marked(self, *, id_mark: bytes, length_mark: bytes) -> tuple[bytes, int]:
        """Return the whole answer, with marks for what follows from the id, and its head's length.

        The marks stand for the id, in the head and in the content, and for the content's length.
        """
        head = b"%s%scontent-length: %s\r\nx-request-id: %s\r\n\r\n" % (
            STATUS_LINE[self.status],
            self.head,
            length_mark,
            id_mark,
        )
        return head + id_mark.join(self.content), len(head)


class Refusals:
    """Refusals by their codes, each of which has one sentence here."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bool], Refusal] = {}

    def of(self, error: ServiceError, path: str) -> Refusal:
        key = error.code, is_open_inference({"path": path})
        if key not in self._known:
            self._known[key] = Refusal.of(error, path)
        return self._known[key]
