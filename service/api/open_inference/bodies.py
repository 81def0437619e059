"""Bodies under ``/v2``, of whatever media type they claim to be.

A page of another site can make a browser send a body without a media type and without asking; as
none is asked for here, what comes from another site is refused.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

from fastapi import Request

from service.api.payloads.body import read_body
from service.api.payloads.json_document import JsonValue, parse_json
from service.api.services import ApiOptions
from service.errors import (
    BodyTooLarge,
    Forbidden,
    InvalidInput,
    MalformedRequest,
)

LENGTH_HEADER = "inference-header-content-length"
MAX_CONTROL_BODY_BYTES = 1024**2
CONTROLS: Mapping[str, tuple[type[bool | dict[str, JsonValue]], str]] = {
    "ready": (bool, "true or false"),
    "parameters": (dict, "an object"),
}
"""What control requests may hold; all else is passed over, as the protocol has it."""
SAME_SITE = frozenset({"same-origin", "none"})


async def refuse_other_sites(request: Request) -> None:
    site = request.headers.get("sec-fetch-site", "none")
    origin = request.headers.get("origin")
    host = request.headers.get("host", "")
    is_foreign = origin is not None and _netloc(origin) != host.lower()
    if site not in SAME_SITE or is_foreign:
        raise Forbidden("cross_site", "Requests from pages of other sites are not taken here.")


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def json_length_of(request: Request) -> int | None:
    """Return where the JSON part of the body ends; None where all of it is JSON."""
    given = request.headers.get(LENGTH_HEADER)
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) <= len(str(2**63))):
        raise MalformedRequest(
            "malformed_request", "Inference-Header-Content-Length must be a number of bytes"
        )
    return int(given)


def max_bytes_of(options: ApiOptions, json_length: int | None) -> int:
    if json_length is None:
        return options.max_body_bytes
    if json_length > options.max_body_bytes:
        raise BodyTooLarge(
            "body_too_large", f"The JSON part has at most {options.max_body_bytes} bytes."
        )
    return options.max_binary_body_bytes


async def read_control(request: Request) -> Mapping[str, JsonValue]:
    """Return the body of a control request, an object; clients may send none."""
    body = await read_body(request, max_bytes=MAX_CONTROL_BODY_BYTES)
    document = parse_json(bytes(body)) if body else {}
    if not isinstance(document, dict):
        raise InvalidInput("invalid_parameter", "the body must be an object, or none")
    for name, (kind, called) in CONTROLS.items():
        if not isinstance(document.get(name, kind()), kind):
            raise InvalidInput("invalid_parameter", f"{name} must be {called}")
    return document
