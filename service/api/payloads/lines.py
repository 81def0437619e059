"""Lines of text as they arrive."""

from collections.abc import Iterator

from service.errors import InvalidInput

MAX_LINE_BYTES = 16 * 1024**2


class Lines:
    """Cuts bytes behind the last line that is whole; keeps the rest for later."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that are whole by now, together; nothing when there is none."""
        whole, newline, rest = data.rpartition(b"\n")
        if not newline:
            self._rest += rest
        else:
            text, self._rest = self._rest + whole, rest
            if text.strip():
                yield text
        if len(self._rest) > MAX_LINE_BYTES:
            raise InvalidInput("invalid_data", f"a line has at most {MAX_LINE_BYTES} bytes")

    def end(self) -> Iterator[bytes]:
        """Yield the last line when nothing ended it."""
        if self._rest.strip():
            yield self._rest
