"""The bytes of all bodies that are held whole, counted together as they come in.

Each body has a bound of its own; of many at once, together they would still fill the memory.
"""

from service.api.turns import overloaded


class Holdings:
    """Counts what is held; at most ``max_bytes``, but any one body if there is no other."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.n_bytes = 0

    def begin(self) -> "Holding":
        return Holding(self)

    def add(self, n_bytes: int, *, to: int) -> None:
        """Count bytes of a body of which so many are held; raise ``Unavailable`` if it may not."""
        is_over = self.n_bytes + n_bytes > self._max_bytes
        if is_over and self.n_bytes > to:
            raise overloaded()
        self.n_bytes += n_bytes


class Holding:
    """What one request holds."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._n_bytes = 0

    def add(self, n_bytes: int) -> None:
        self._holdings.add(n_bytes, to=self._n_bytes)
        self._n_bytes += n_bytes

    def release(self) -> None:
        """Give all back; nothing the second time."""
        self._holdings.n_bytes -= self._n_bytes
        self._n_bytes = 0
