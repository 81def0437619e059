"""The bytes of a request's body: counted while they come in, and unfolded when compressed."""

from collections.abc import AsyncIterator

from fastapi import Request

from service.api.negotiation import content_encoding
from service.api.payloads.encodings import ENCODINGS
from service.api.services import services_of
from service.errors import BodyTooLarge

MAX_RATIO = 200
"""Of what a compressed body unfolds to; rows of numbers shrink to a tenth or so."""
FREE_BYTES = 1024**2
"""What may come out before the ratio is looked at."""


async def read_body(request: Request, *, max_bytes: int) -> bytes | bytearray:
    """Return the whole body; raise ``BodyTooLarge`` as soon as it is known to be over the bound."""
    first = b""
    body = bytearray()
    async for chunk in body_chunks(request, max_bytes=max_bytes):
        if not first:
            first = chunk  # most bodies are one chunk, and need no copy
        elif chunk:
            body = body or bytearray(first)
            body += chunk
    return body or first


def body_chunks(request: Request, *, max_bytes: int) -> AsyncIterator[bytes]:
    """Return the body as it arrives; raise ``BodyTooLarge`` as above.

    A declared length is judged before the first byte, an undeclared one (chunked) as it grows,
    and of a compressed body also what it unfolds to.
    """
    encoding = content_encoding(request, ENCODINGS)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    received = _counted(request.stream(), max_bytes)
    if encoding is None:
        return received
    return _counted(_unfolded(request, received, encoding), max_bytes)


async def _counted(chunks: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[bytes]:
    n_bytes = 0
    async for chunk in chunks:
        n_bytes += len(chunk)
        if n_bytes > max_bytes:
            raise _too_large(max_bytes)
        yield chunk


async def _unfolded(
    request: Request, chunks: AsyncIterator[bytes], encoding: str
) -> AsyncIterator[bytes]:
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
