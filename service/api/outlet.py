"""The way out of a connection for other threads than the loop's.

The loop would have to wake up for an answer that is found in a thread, and would hold the
interpreter's lock while the system copies it. Here the thread that has found an answer sends what
the system takes at once; what is left is the loop's.
"""

import os
from collections.abc import Sequence

from service.api.payloads.values import Body

MOST_OUTLETS = 64
"""Connections that have one at a time: each takes a second file descriptor."""

MOST_PARTS = 1024
"""Sent at once; the system takes no more."""


class Outlet:
    """Another descriptor of a connection's socket: the loop may close its own while it is used."""

    _n_open = 0

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        Outlet._n_open += 1

    @classmethod
    def of(cls, descriptor: int) -> "Outlet | None":
        """Return one for a socket that does not block, if there can be one more."""
        if cls._n_open >= MOST_OUTLETS:
            return None
        try:
            return cls(os.dup(descriptor))
        except OSError:  # no descriptor is free
            return None

    def send(self, parts: Sequence[Body]) -> list[Body]:
        """Send what the system takes at once, and return what is left; from any thread."""
        try:
            n_sent = os.writev(self._descriptor, parts[:MOST_PARTS])
        except OSError:  # it takes nothing now, or the connection is broken: the loop will see
            n_sent = 0
        return _behind(parts, n_sent)

    def close(self) -> None:
        """Let go of the socket, on the loop, while no thread sends."""
        Outlet._n_open -= 1
        os.close(self._descriptor)


def _behind(parts: Sequence[Body], n_bytes: int) -> list[Body]:
    left: list[Body] = []
    for part in parts:
        skipped = min(n_bytes, len(part))
        n_bytes -= skipped
        if skipped < len(part):
            left.append(memoryview(part)[skipped:])
    return left
