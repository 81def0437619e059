"""The bytes of a request's body, counted while they come in."""

from fastapi import Request

from service.errors import BodyTooLarge


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """Return the whole body; raise ``BodyTooLarge`` as soon as it is known to be over the bound.

    A declared length is judged before the first byte, an undeclared one (chunked) as it grows.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge("body_too_large", f"A body here has at most {max_bytes} bytes.")
