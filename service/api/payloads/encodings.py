"""How a body may be compressed on its way here. A new way is one class and its line in the table.

What a few bytes can unfold to has no bound, so everything comes out in portions, and whoever takes
them counts.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from service.api.payloads.values import Body
from service.errors import MalformedRequest

if TYPE_CHECKING:
    from zstandard import ZstdDecompressionObj

PORTION_BYTES = 1024**2
ZLIB_STEP_BYTES = 4096
"""Given to the decoder at once: what a member leaves of them is copied."""
ZSTD_STEP_BYTES = 512
"""The same of a decoder that has no bound of its own: it makes 16 MiB of them at most."""
ZSTD_WINDOW_BYTES = 8 * 1024**2
"""What every decoder must support (RFC 8878, 3.1.1.1.2); more is not asked of memory."""
WINDOW_TOO_LARGE = "too much memory"
"""What zstd says of a frame with a larger one."""
FREE_MEMBERS = 1000
"""That may begin before their sizes are looked at."""
LEAST_MEMBER_BYTES = 64
"""Of those beyond, on average: to begin one takes microseconds, however little is in it."""


class Member(Protocol):
    """What unfolds one gzip member, zlib stream or zstd frame, as a decompressor of ``zlib``."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def unconsumed_tail(self) -> bytes: ...


M = TypeVar("M", bound=Member)


class Decoder(ABC, Generic[M]):
    """Compressed bytes in, as they arrive; plain bytes out, in portions; member after member."""

    step_bytes: int
    """Given to a member at once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._member: M | None = None
        self._n_members = self._n_bytes = 0

    @abstractmethod
    def begin(self) -> M:
        """Return what unfolds the next member."""

    @abstractmethod
    def unfold(self, member: M, data: Body) -> bytes:
        """Return what the bytes unfold to; raise ``MalformedRequest`` when they can't be."""

    def decode(self, data: Body) -> Iterator[bytes]:
        """Yield what the bytes unfold to; raise ``MalformedRequest`` when they can't be."""
        held: list[bytes] = []
        n_held = 0
        for part in self._parts(memoryview(data)):
            held.append(part)
            n_held += len(part)
            if n_held >= PORTION_BYTES:
                yield b"".join(held)
                held.clear()
                n_held = 0
        if n_held:
            yield b"".join(held)

    def end(self) -> None:
        """Raise ``MalformedRequest`` when what was decoded is not whole."""
        if self._member is not None and not self._member.eof:
            raise self.not_whole()

    def not_whole(self) -> MalformedRequest:
        return _malformed(f"the body is not whole {self.name}")

    def _parts(self, data: memoryview) -> Iterator[bytes]:
        for begin in range(0, len(data), self.step_bytes):
            rest: Body = data[begin : begin + self.step_bytes]
            self._n_bytes += len(rest)
            while rest:
                member = self._unfinished()
                yield self.unfold(member, rest)
                rest = member.unused_data if member.eof else member.unconsumed_tail

    def _unfinished(self) -> M:
        if self._member is None or self._member.eof:
            self._n_members += 1
            if self._n_members > FREE_MEMBERS + self._n_bytes // LEAST_MEMBER_BYTES:
                raise _malformed(
                    f"beyond {FREE_MEMBERS} members or frames they must have "
                    f"{LEAST_MEMBER_BYTES} bytes on average; compress more in each"
                )
            self._member = self.begin()
        return self._member


class ZlibDecoder(Decoder["zlib._Decompress"]):
    """Gzip (RFC 1952) or, as ``deflate``, zlib (RFC 1950)."""

    step_bytes = ZLIB_STEP_BYTES

    def __init__(self, name: str, window_bits: int) -> None:
        super().__init__(name)
        self._window_bits = window_bits

    def begin(self) -> "zlib._Decompress":
        return zlib.decompressobj(self._window_bits)

    def unfold(self, member: "zlib._Decompress", data: Body) -> bytes:
        try:
            return member.decompress(data, PORTION_BYTES)
        except zlib.error as error:
            raise self.not_whole() from error


class ZstdDecoder(Decoder["ZstdDecompressionObj"]):
    """RFC 8878."""

    step_bytes = ZSTD_STEP_BYTES

    def __init__(self) -> None:
        import zstandard  # noqa: PLC0415  # comes with the extra

        super().__init__("zstd")
        self._error = zstandard.ZstdError
        self._new_frame = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)

    def begin(self) -> "ZstdDecompressionObj":
        return self._new_frame.decompressobj()

    def unfold(self, member: "ZstdDecompressionObj", data: Body) -> bytes:
        try:
            return member.decompress(data)
        except self._error as error:
            if WINDOW_TOO_LARGE in str(error):
                raise _malformed(
                    f"a zstd frame may have a window of {ZSTD_WINDOW_BYTES} bytes at most; "
                    "compress without --long, at a level up to 19"
                ) from error
            raise self.not_whole() from error


ENCODINGS: Mapping[str, Callable[[], Decoder[Any]]] = {
    "gzip": partial(ZlibDecoder, "gzip", 16 + zlib.MAX_WBITS),
    "deflate": partial(ZlibDecoder, "deflate", zlib.MAX_WBITS),
    **({"zstd": ZstdDecoder} if find_spec("zstandard") is not None else {}),
}
"""By the name in ``Content-Encoding``."""


def _malformed(detail: str) -> MalformedRequest:
    return MalformedRequest("malformed_encoding", detail)
