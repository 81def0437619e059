"""Which media type a request brings and which its client takes (RFC 9110, 8.3 and 12.5)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from functools import lru_cache

from fastapi import Request

from service.errors import NotAcceptable, UnsupportedEncoding, UnsupportedMediaType

JSON = "application/json"
NO_CODING = frozenset({"", "identity"})
"""What changes nothing in a list of codings (RFC 9110, 5.6.1.2 and 12.5.3)."""
CODING_ALIASES: Mapping[str, str] = {"x-gzip": "gzip"}
"""RFC 9110, 8.4.1.3."""

KEPT_HEADERS = 64
"""Clients send few different ones, each of them often; what they mean is kept."""


@dataclass(frozen=True, slots=True)
class _Range:
    """One entry of an Accept header, such as ``text/*;q=0.5``."""

    type: str
    subtype: str
    quality: float

    def matches(self, media_type: str) -> bool:
        main, _, sub = media_type.partition("/")
        return self.type in ("*", main) and self.subtype in ("*", sub)

    @property
    def specificity(self) -> int:
        return (self.type != "*") + (self.subtype != "*")


def accepted_type(request: Request, offers: Iterable[str]) -> str:
    """Return the offer that the client likes best, the first among equals."""
    best = best_type(tuple(offers), ",".join(request.headers.getlist("accept")))
    if best is None:
        raise NotAcceptable("not_acceptable", f"This is answered as {' or '.join(offers)}.")
    return best


@dataclass(frozen=True, slots=True)
class ContentType:
    media_type: str
    parameters: Mapping[str, str]
    """By name in lower case, such as ``{"header": "absent"}``."""


def content_type(request: Request, supported: Iterable[str], *, remark: str = "") -> ContentType:
    """Return the type of the body, one of ``supported``; in UTF-8.

    ``remark`` is told along with them when it is none.
    """
    header = request.headers.get("content-type")
    sent = None if header is None else sent_type(header)
    names = list(supported)
    if sent is None or sent.media_type not in names:
        raise UnsupportedMediaType(
            "unsupported_media_type",
            f"A body here is {' or '.join(names)}, in UTF-8, each parameter given once.{remark}",
        )
    return sent


def content_encoding(request: Request, supported: Iterable[str]) -> str | None:
    """Return how the body is compressed, one of ``supported``; None if it is not."""
    sent = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    codings = [coding for part in sent if (coding := part.strip(" \t")) not in NO_CODING]
    if not codings:
        return None
    encoding = CODING_ALIASES.get(codings[0], codings[0])
    if len(codings) > 1 or encoding not in supported:
        raise UnsupportedEncoding(tuple(supported))
    return encoding


async def answers_json(request: Request) -> None:
    """Refuse a client that takes no JSON; a dependency."""
    accepted_type(request, [JSON])


@lru_cache(KEPT_HEADERS)
def best_type(offered: Sequence[str], header: str) -> str | None:
    """Return the offer that an Accept header likes best, if it takes any."""
    if not header.strip():
        return offered[0]
    ranges = list(_ranges(header))
    best = max(offered, key=lambda offer: _quality(offer, ranges))
    return best if _quality(best, ranges) else None


@lru_cache(KEPT_HEADERS)
def sent_type(header: str) -> ContentType | None:
    """Return what the header says; None when the text is not in UTF-8, or it says a thing twice."""
    message = Message()
    message["content-type"] = header
    if message.get_content_charset("utf-8") not in ("utf-8", "us-ascii"):
        return None
    given = [(name.lower(), value) for name, value in message.get_params(failobj=[])[1:] if name]
    if len(dict(given)) < len(given):  # RFC 6838, 4.3
        return None
    return ContentType(
        message.get_content_type(),
        {name: value.lower() for name, value in given if isinstance(value, str)},
    )


def _ranges(header: str) -> Iterator[_Range]:
    for entry in header.split(","):
        media_type, *parameters = (part.strip() for part in entry.split(";"))
        main, slash, sub = media_type.lower().partition("/")
        if main and slash and sub:
            yield _Range(main, sub, _q(parameters))


def _q(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def _quality(offer: str, ranges: list[_Range]) -> float:
    matching = [entry for entry in ranges if entry.matches(offer)]
    return max(matching, key=lambda entry: entry.specificity).quality if matching else 0.0
