"""Lines of text as they arrive."""

from collections.abc import Iterator

from service.errors import InvalidInput

MAX_LINE_BYTES = 16 * 1024**2


class Lines:
    """Cuts bytes behind the last line that is whole; keeps the rest for later."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that are whole by now, together; nothing when there is none.

        Raises ``InvalidInput`` for a line of more than ``MAX_LINE_BYTES``, its end not counted.
        """
        whole, newline, rest = data.rpartition(b"\n")
        if not newline:
            self._rest += rest
        else:
            text, self._rest = self._rest + whole, rest
            _require_short_lines(text)
            if text.strip():
                yield text
        _require_short_lines(self._rest)

    def end(self) -> Iterator[bytes]:
        """Yield the last line when nothing ended it."""
        if self._rest.strip():
            yield self._rest


def _require_short_lines(text: bytes) -> None:
    """Look for the last line that ends within the bound of where one begins, again and again."""
    begin = 0
    while len(text) - begin > MAX_LINE_BYTES:
        begin = text.rfind(b"\n", begin, begin + MAX_LINE_BYTES + 1) + 1
        if not begin:
            raise InvalidInput("invalid_data", f"a line has at most {MAX_LINE_BYTES} bytes")
