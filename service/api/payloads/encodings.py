"""How a body may be compressed on its way here. A new way is one class and its line in the table.

What a few bytes can unfold to has no bound, so everything comes out in portions, and whoever takes
them counts.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Protocol

from service.api.payloads.values import Body
from service.errors import MalformedRequest

PORTION_BYTES = 1024**2
ZSTD_STEP_BYTES = 512
"""Given to the decoder at once, which has no bound of its own: it makes 16 MiB of them at most."""
ZSTD_WINDOW_BYTES = 8 * 1024**2
"""What every decoder must support (RFC 8878, 3.1.1.1.2); more is not asked of memory."""


class Decoder(Protocol):
    """Compressed bytes in, as they arrive; plain bytes out, in portions."""

    def decode(self, data: Body) -> Iterator[bytes]:
        """Yield what the bytes unfold to; raise ``MalformedRequest`` when they can't be."""

    def end(self) -> None:
        """Raise ``MalformedRequest`` when what was decoded is not whole."""


class ZlibDecoder:
    """Gzip (RFC 1952) or, as ``deflate``, zlib (RFC 1950): one member after another."""

    def __init__(self, name: str, window_bits: int) -> None:
        self._name = name
        self._window_bits = window_bits
        self._member = zlib.decompressobj(window_bits)
        self._has_begun = False

    def decode(self, data: Body) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(self._window_bits)
            self._has_begun = True
            try:
                portion = self._member.decompress(data, PORTION_BYTES)
            except zlib.error as error:
                raise _malformed(self._name) from error
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if portion:
                yield portion

    def end(self) -> None:
        if self._has_begun and not self._member.eof:
            raise _malformed(self._name)


class ZstdDecoder:
    """RFC 8878: one frame after another."""

    def __init__(self) -> None:
        import zstandard  # noqa: PLC0415  # comes with the extra

        self._error = zstandard.ZstdError
        self._new_frame = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
        self._frame = self._new_frame.decompressobj()
        self._has_begun = False

    def decode(self, data: Body) -> Iterator[bytes]:
        for begin in range(0, len(data), ZSTD_STEP_BYTES):
            yield from self._step(data[begin : begin + ZSTD_STEP_BYTES])

    def _step(self, data: Body) -> Iterator[bytes]:
        while data:
            if self._frame.eof:
                self._frame = self._new_frame.decompressobj()
            self._has_begun = True
            try:
                portion = self._frame.decompress(data)
            except self._error as error:
                raise _malformed("zstd") from error
            data = self._frame.unused_data if self._frame.eof else b""
            if portion:
                yield portion

    def end(self) -> None:
        if self._has_begun and not self._frame.eof:
            raise _malformed("zstd")


ENCODINGS: Mapping[str, Callable[[], Decoder]] = {
    "gzip": partial(ZlibDecoder, "gzip", 16 + zlib.MAX_WBITS),
    "deflate": partial(ZlibDecoder, "deflate", zlib.MAX_WBITS),
    **({"zstd": ZstdDecoder} if find_spec("zstandard") is not None else {}),
}
"""By the name in ``Content-Encoding``."""


def _malformed(name: str) -> MalformedRequest:
    return MalformedRequest("malformed_encoding", f"the body is not whole {name}")
