"""Bytes of a body in the order of their coming, cut by whoever knows how long each part is."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from service.api.payloads.values import Body, lies_in

WORD_BYTES = 8


class Incoming:
    """What has come and was not taken yet; what lies in one piece is taken as a view of it."""

    def __init__(self) -> None:
        self._pieces: deque[memoryview] = deque()
        self._n_bytes = 0
        self._offset = 0
        """Of the first byte that is left in the piece that it came in."""
        self._room: NDArray[np.uint8] | None = None
        """For the first bytes in one piece; then it is the only piece there is."""

    def __len__(self) -> int:
        return self._n_bytes

    def add(self, data: Body) -> None:
        if self._room is not None:
            data = self._put(data, self._room)
        if data:
            self._pieces.append(memoryview(data))
            self._n_bytes += len(data)

    def reserve(self, n_bytes: int) -> None:
        """Have the first bytes in one piece, of which there are some by now."""
        if self._room is None:
            n_held = self._n_bytes
            held = self.take(n_held)
            self._room = np.empty(n_bytes, dtype=np.uint8)
            self._put(held, self._room)

    @property
    def room(self) -> memoryview | None:
        """Where the next bytes are best written, if that matters; they are to be added then."""
        return None if self._room is None else self._room.data[self._n_bytes :]

    def _put(self, data: Body, room: NDArray[np.uint8]) -> Body:
        """Write bytes into the room if they are not there already; return those beyond it."""
        end = min(self._n_bytes + len(data), len(room))
        n_bytes = end - self._n_bytes
        if not lies_in(data, room):
            room[self._n_bytes : end] = np.frombuffer(data, dtype=np.uint8, count=n_bytes)
        self._n_bytes = end
        self._pieces = deque([room.data[:end]])
        if end == len(room):
            self._room = None
        return memoryview(data)[n_bytes:]

    def peek(self, n_bytes: int) -> bytes:
        """Return the first bytes, and let them be."""
        taken = b""
        for piece in self._pieces:
            taken += piece[: n_bytes - len(taken)]
            if len(taken) == n_bytes:
                break
        return taken

    def take(self, n_bytes: int) -> Body:
        """Return the first bytes, of which there are enough, at an address that words may have."""
        if not n_bytes:
            return b""
        first = self._pieces[0]
        if len(first) >= n_bytes and not self._offset % WORD_BYTES:
            taken: Body = first[:n_bytes]
            self._skip(n_bytes)
            return taken
        # NumPy asks for huge pages for what is large: they are there in a fraction of the time.
        whole = np.empty(n_bytes, dtype=np.uint8)
        at = 0
        while at < n_bytes:
            part = self._pieces[0][: n_bytes - at]
            whole[at : at + len(part)] = np.frombuffer(part, dtype=np.uint8)
            self._skip(len(part))
            at += len(part)
        return whole.data

    def _skip(self, n_bytes: int) -> None:
        """Drop bytes of the first piece."""
        self._n_bytes -= n_bytes
        rest = self._pieces.popleft()[n_bytes:]
        self._offset = self._offset + n_bytes if rest else 0
        if rest:
            self._pieces.appendleft(rest)
