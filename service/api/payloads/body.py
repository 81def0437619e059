"""The bytes of a request's body: counted while they come in, and unfolded when compressed."""

from collections.abc import AsyncIterator

import numpy as np
from fastapi import Request

from service.api.landing import Landing, landing_of
from service.api.negotiation import content_encoding
from service.api.payloads.encodings import ENCODINGS
from service.api.payloads.values import Body, lies_in
from service.api.services import services_of
from service.api.turns import CALLER, require_time
from service.errors import BodyTooLarge, MalformedRequest

MAX_RATIO = 200
"""Of what a compressed body unfolds to; rows of numbers shrink to a tenth or so."""
FREE_BYTES = 1024**2
"""What may come out before the ratio is looked at."""
LARGE_BYTES = 1024**2
"""From here on a body is written to where it will lie, in memory that is reserved by its length."""
STEP_BYTES = 4 * 1024**2
"""Received at once of a large body, and counted then."""
WORD_BYTES = 8


async def read_body(request: Request, *, max_bytes: int, words_at: int = 0) -> Body:
    """Return the whole body; raise ``BodyTooLarge`` as soon as it is known to be over the bound.

    In a large one numbers that begin at ``words_at`` lie at an address that words may have.
    """
    chunks = _held(request, body_chunks(request, max_bytes=max_bytes))
    declared = _declared_bytes(request)
    landing = landing_of(request.scope)
    is_plain = "content-encoding" not in request.headers
    if is_plain and (declared > LARGE_BYTES or landing is not None):
        return await _laid_out(chunks, declared, landing, before=-words_at % WORD_BYTES)
    if not is_plain:
        chunks = _in_time(chunks)
    return b"".join([chunk async for chunk in chunks])  # a single one is not copied


async def _laid_out(
    chunks: AsyncIterator[Body], n_bytes: int, landing: Landing | None, *, before: int
) -> Body:
    """Have the chunks where they belong, behind some bytes that are of no use."""
    whole = np.empty(before + n_bytes, dtype=np.uint8)  # memory is only taken as it is written
    at = before
    if landing is not None:
        landing.into(whole.data[at : at + STEP_BYTES])
    async for chunk in chunks:
        end = at + len(chunk)
        if end > len(whole):
            raise MalformedRequest("malformed_request", "The body is longer than it was said to be")
        if not lies_in(chunk, whole):
            whole[at:end] = np.frombuffer(chunk, dtype=np.uint8)
        at = end
        if landing is not None and at < len(whole):
            landing.into(whole.data[at : at + STEP_BYTES])
    return whole.data[before:at]


def body_chunks(request: Request, *, max_bytes: int) -> AsyncIterator[Body]:
    """Return the body as it arrives; raise ``BodyTooLarge`` as above.

    A declared length is judged before the first byte, an undeclared one (chunked) as it grows,
    and of a compressed body also what it unfolds to.
    """
    encoding = content_encoding(request, ENCODINGS)
    if _declared_bytes(request) > max_bytes:
        raise _too_large(max_bytes)
    received = _counted(request.stream(), max_bytes)
    if encoding is None:
        return received
    return _counted(_unfolded(request, received, encoding), max_bytes)


def waits_to_send(request: Request) -> bool:
    """Tell whether the client sends its body when it is told to go on (RFC 9110, 10.1.1)."""
    return request.headers.get("expect", "").lower() == "100-continue"


def known_length(request: Request) -> int | None:
    """Return of how many bytes the body will be, if that is known before it is there."""
    is_plain = content_encoding(request, ENCODINGS) is None
    return _declared_bytes(request) or None if is_plain else None


def _declared_bytes(request: Request) -> int:
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isdecimal() else 0


async def _counted(chunks: AsyncIterator[Body], max_bytes: int) -> AsyncIterator[Body]:
    n_bytes = 0
    async for chunk in chunks:
        n_bytes += len(chunk)
        if n_bytes > max_bytes:
            raise _too_large(max_bytes)
        yield chunk


async def _held(request: Request, chunks: AsyncIterator[Body]) -> AsyncIterator[Body]:
    """Count what is held of the body, until the request ends; raise ``Unavailable`` over all."""
    holding = services_of(request).holdings.begin()
    request.scope["state"]["holding"] = holding
    async for chunk in chunks:
        holding.add(len(chunk))
        yield chunk


async def _in_time(chunks: AsyncIterator[Body]) -> AsyncIterator[Body]:
    """Unfold no further for an answer that is late: a small body can be work for seconds."""
    async for chunk in chunks:
        require_time(CALLER.get())
        yield chunk


async def _unfolded(
    request: Request, chunks: AsyncIterator[Body], encoding: str
) -> AsyncIterator[Body]:
    compute = services_of(request).threads.go_on
    decoder = ENCODINGS[encoding]()
    n_in = n_out = 0
    async for chunk in chunks:
        n_in += len(chunk)
        portions = decoder.decode(chunk)
        while portion := await compute(next, portions, b""):
            n_out += len(portion)
            if n_out > FREE_BYTES + MAX_RATIO * n_in:
                raise BodyTooLarge(
                    "body_too_large",
                    f"A compressed body unfolds to at most {MAX_RATIO} times its size.",
                )
            yield portion
    decoder.end()


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge("body_too_large", f"A body here has at most {max_bytes} bytes.")
