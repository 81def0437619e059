"""A large body on its way from the socket to where it will lie.

The server's parser makes an object of every read, and another of the body in it, which are joined
and written to their place in the end. Nothing is left to parse in a body whose length is known:
here it is received into the memory where it will stay, and handed over as a view of that.

Nothing is received before the application asks for it, so that it can say where to.
"""

from asyncio import BufferedProtocol, Event
from collections.abc import Callable
from typing import Protocol

import numpy as np
from starlette.types import Message, Receive, Scope

PORTION_BYTES = 1024**2
"""Handed over at once, where the application has not said how much it wants together."""
ROOM_BYTES = 4 * 1024**2
"""Received at most before it is taken."""
TURN_BYTES = 1024**2
"""Read at once, before others have their turn: to read this much may take two milliseconds, where
the system has to clear memory for it, and there may be many bodies on their way."""
DROPPED_BYTES = 64 * 1024
"""Read at once of a body that nobody wants any more."""


class Receiver(Protocol):
    """The connection that a body comes in on."""

    def body_received(self, n_bytes: int) -> None:
        """Take note of the sender's progress."""

    def body_landed(self) -> None:
        """Read on as before: this body is in."""

    def let_others_read(self) -> None:
        """Read on in the loop's next turn."""

    def connection_lost(self, exc: Exception | None) -> None: ...
    def eof_received(self) -> bool: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class Landing(BufferedProtocol):
    """Receives the rest of a body, of which ``early`` came with its head."""

    def __init__(
        self,
        receiver: Receiver,
        n_bytes: int,
        early: bytes | memoryview,
        *,
        event: Event,
        pause: Callable[[], None],
    ) -> None:
        self._receiver = receiver
        self._early = early
        self._n_left = n_bytes - len(self._early)
        """Not received yet."""
        self._event = event
        """Set when there is something to take."""
        self._pause = pause
        """Stops reading, until the application asks for more."""
        self._room = memoryview(b"")
        self._begin = self._end = 0
        """Of what was received into the room and is not taken."""
        self._least = PORTION_BYTES
        """To be received before something is handed over, unless the body ends."""
        self._is_unwanted = False

    def into(self, room: memoryview) -> None:
        """Receive what comes next there, and hand it over when that is full or the body ends.

        Left alone when more than fits in is here already.
        """
        held = self._held()
        if self._n_left and len(held) < len(room):
            room[: len(held)] = held
            self._room, self._begin, self._end = room, 0, len(held)
            self._early, self._least = b"", len(room)

    def drop(self) -> None:
        """Read what is left for nobody, and let go of what was not taken."""
        self._is_unwanted = True
        self._early, self._room = b"", memoryview(b"")
        self._begin = self._end = 0

    def taking(self, receive: Receive) -> Receive:
        """Return what receives the messages of ``receive`` with this body in them."""

        async def receive_landed() -> Message:
            if self._early:
                self.into(_room_of(self._n_left + len(self._early)))
                self._least = PORTION_BYTES
            if self._is_ready:
                self._event.set()
            message = await receive()
            if message["type"] == "http.request":
                message["body"] = self._taken()
            return message

        return receive_landed

    @property
    def _is_ready(self) -> bool:
        n_bytes = self._end - self._begin
        return n_bytes > 0 and (n_bytes >= self._least or not self._n_left or self._is_full)

    @property
    def _is_full(self) -> bool:
        return self._end == len(self._room)

    def _held(self) -> memoryview:
        return memoryview(self._early) if self._early else self._room[self._begin : self._end]

    def _taken(self) -> memoryview:
        taken = self._room[self._begin : self._end]
        self._begin = self._end
        self._least = PORTION_BYTES
        if not self._n_left:  # who asked may be kept in a cycle of garbage for long
            self._room, self._begin, self._end = memoryview(b""), 0, 0
        return taken

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's
        if self._is_unwanted:
            return _room_of(min(self._n_left, DROPPED_BYTES))
        if self._is_full:
            self._room, self._begin, self._end = _room_of(self._n_left), 0, 0
        return self._room[self._end : self._end + min(self._n_left, TURN_BYTES)]

    def buffer_updated(self, nbytes: int) -> None:
        self._n_left -= nbytes
        self._receiver.body_received(nbytes)
        if not self._is_unwanted:
            self._end += nbytes
            if self._is_full and self._n_left:
                self._pause()
            if self._is_ready:
                self._event.set()
        if not self._n_left:
            self._receiver.body_landed()
        elif nbytes == TURN_BYTES:
            self._receiver.let_others_read()

    def connection_lost(self, exc: Exception | None) -> None:
        self.drop()
        self._receiver.connection_lost(exc)

    def eof_received(self) -> bool:
        return self._receiver.eof_received()

    def pause_writing(self) -> None:
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        self._receiver.resume_writing()


def landing_of(scope: Scope) -> Landing | None:
    """Return what receives the body of a request, if it is one that is received into its place."""
    landing: Landing | None = scope.get("state", {}).get("landing")
    return landing


def _room_of(n_bytes: int) -> memoryview:
    # NumPy asks for huge pages for what is large: they are there in a fraction of the time.
    return np.empty(min(n_bytes, ROOM_BYTES), dtype=np.uint8).data
