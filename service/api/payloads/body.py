"""The bytes of a request's body, counted while they come in."""

from fastapi import Request

from service.errors import BodyTooLarge


async def read_body(request: Request, *, max_bytes: int) -> bytes | bytearray:
    """Return the whole body; raise ``BodyTooLarge`` as soon as it is known to be over the bound.

    A declared length is judged before the first byte, an undeclared one (chunked) as it grows.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    first = b""
    body = bytearray()
    async for chunk in request.stream():
        if max(len(first), len(body)) + len(chunk) > max_bytes:
            raise _too_large(max_bytes)
        if not first:
            first = chunk  # most bodies are one chunk, and need no copy
        elif chunk:
            body = body or bytearray(first)
            body += chunk
    return body or first


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge("body_too_large", f"A body here has at most {max_bytes} bytes.")
