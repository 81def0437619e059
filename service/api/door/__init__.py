"""Who answers the door while more is asked than can be computed.

To accept a connection on the loop, read its head and refuse it costs as much as to answer a small
question, and waits for the interpreter's lock several times. So when half of the places are taken,
or many connections are open or come at once, a thread of its own accepts, in compiled code without
the lock: it refuses what has a large body and no place, in the very words of the loop, and hands
all else over. When none has been refused for two seconds the loop accepts again.
``docs/benchmarks/serving.md`` has figures.
"""

import logging
import os
import platform
import secrets
import socket
import struct
import threading
import time
from asyncio import AbstractEventLoop, Server, Task, TimerHandle, get_running_loop, wait
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from service.api.connection import OVERLOADED, REFUSALS, BoundedProtocol
from service.api.door.guard import (
    ID_MARK,
    IS_OVER,
    LENGTH_MARK,
    N_COUNTS,
    N_REFUSED,
    N_SEEN,
    SEED,
    guarding_pass,
)
from service.api.door.heads import LARGE, MIDDLING
from service.api.door.slices import ask_for_slices
from service.api.services import Threads
from service.api.turns import Place
from service.errors import ServiceError

logger = logging.getLogger(__name__)

IS_AVAILABLE = platform.system() == "Linux"
HANDED = struct.Struct("=ii")
"""A connection's file, and what kind of request has come on it."""
HANDED_AT_ONCE = 256
MIDDLING_AT_ONCE = 8
"""Of the connections with bodies that take their time, taken in one turn of the loop: who asks
for less, such as whether the service is well, goes before the others."""
RUSH, RUSH_SECONDS = 64, 0.25
"""So many connections in so short a time are more than the loop should accept one by one."""
WAITING_PER_THREAD = 12
"""So many large bodies for each computing thread are enough to wait while others are refused."""
SLICE_NANOSECONDS = 100_000
"""Of the thread at the door, which does little and should do it soon."""
TELLING_SECONDS = 1.0
"""Between two events that tell how many were refused."""

Protocols = Callable[[], BoundedProtocol]


def warm_up() -> None:
    """Compile what is done at the door, or load it from Numba's cache on disk."""
    if IS_AVAILABLE:
        guarding_pass()


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where the loop itself accepts, while there is no guard at the door."""

    listener: socket.socket
    servers: list[Server]
    """The loop's; empty while there is a guard."""
    protocols: Protocols
    backlog: int


class Door:
    """Lets in, and calls the guard when somebody has to be refused."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._places = np.frombuffer(threads.places, dtype=np.int64)
        self._n_places = threads.places[0]
        self._n_spared = max(0, self._n_places - WAITING_PER_THREAD * threads.n_computing)
        self._counts = np.zeros(N_COUNTS, dtype=np.int64)
        self._counts[SEED] = secrets.randbits(63)
        self._calls: SimpleQueue[bool] = SimpleQueue()
        """For the guard; False is the last."""
        self._guard: threading.Thread | None = None
        self._entrance: Entrance | None = None
        self._is_guarded = False
        self._tasks: set[Task[None]] = set()
        self._middling: deque[int] = deque()
        """Files of connections that are handed over and wait for a turn of the loop."""
        self._arrivals: deque[float] = deque(maxlen=RUSH)
        """When the loop accepted the last ones."""
        self._telling: TimerHandle | None = None
        self._n_told = 0

    def let_in(self) -> Place | None:
        """Keep a place for a large body; with half of them taken, whoever comes meets the guard."""
        place = self._threads.let_in()
        if self._threads.places[0] <= self._n_places // 2:
            self.call_guard()
        return place

    def arrived(self, n_connections: int, n_at_most: int) -> None:
        """Take note of a connection; when many are open, or come at once, call the guard.

        The loop accepts one in each of its turns, the guard all that there are.
        """
        if self._is_guarded:
            return
        self._arrivals.append(time.monotonic())
        lasted = self._arrivals[-1] - self._arrivals[0]
        is_rush = len(self._arrivals) == RUSH and lasted < RUSH_SECONDS
        if is_rush or 4 * n_connections > n_at_most:
            self._arrivals.clear()
            self.call_guard()

    def open(self, entrance: Entrance) -> None:
        """Begin to care for an entrance, in the loop that serves there."""
        if not IS_AVAILABLE:
            return
        entrance.listener.setblocking(False)
        self._entrance = entrance
        self._loop = get_running_loop()
        self._handed, self._handing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._waking, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop.add_reader(self._handed, self._take_in, entrance)

    async def close(self) -> None:
        """Let in who has come by now, and nobody else."""
        if self._entrance is None:
            return
        entrance, self._is_guarded = self._entrance, True
        self._counts[IS_OVER] = 1
        os.write(self._wake, b"\0")
        self._calls.put(False)
        if self._guard is not None:
            await self._loop.run_in_executor(None, self._guard.join)
        for server in entrance.servers:
            server.close()
        entrance.servers.clear()
        self._loop.remove_reader(self._handed)
        while self._take_in(entrance):
            pass
        for file in self._middling:
            self._begin(self._serve(entrance, file, Place()))
        self._middling.clear()
        self._accept_last(entrance)
        if self._tasks:
            await wait(self._tasks)
        self._is_guarded = False
        self._tell_again()
        for file in (self._handed, self._handing, self._waking, self._wake):
            os.close(file)
        entrance.listener.close()
        self._entrance = None

    def _accept_last(self, entrance: Entrance) -> None:
        """Accept all who wait, and stop listening at once: who comes later is told by the system.

        Closing would not do, for others have the listener open too.
        """
        last = []
        with suppress(OSError):  # there is none left
            while True:
                last.append(entrance.listener.accept()[0])
        entrance.listener.shutdown(socket.SHUT_RDWR)
        for connection in last:
            self._begin(self._serve(entrance, connection.detach(), Place()))

    def call_guard(self) -> None:
        """Have nobody accepted by the loop until it is calm."""
        if self._entrance is None or self._is_guarded:
            return
        self._is_guarded = True
        for server in self._entrance.servers:
            server.close()
        self._entrance.servers.clear()
        if self._guard is None:
            listener = self._entrance.listener.fileno()
            args = (self._loop, listener, self._waking, self._handing)
            self._guard = threading.Thread(target=self._watch, args=args, name="door", daemon=True)
            self._guard.start()
        self._calls.put(True)
        self._tell_again()

    def _watch(self, loop: AbstractEventLoop, listener: int, waking: int, handing: int) -> None:
        ask_for_slices(SLICE_NANOSECONDS)
        refusals = [*_marked(OVERLOADED, "/"), *_marked(OVERLOADED, "/v2")]
        while self._calls.get():
            guarding_pass()(
                listener, waking, handing, self._places, self._n_spared, self._counts, *refusals
            )
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._leave_to_loop)

    def _leave_to_loop(self) -> None:
        if self._entrance is not None and not self._counts[IS_OVER]:
            self._begin(self._accept_again(self._entrance))

    def _begin(self, story: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(story)
        self._tasks.add(task)  # the loop itself keeps none alive
        task.add_done_callback(self._tasks.discard)

    async def _accept_again(self, entrance: Entrance) -> None:
        try:
            listener = entrance.listener.dup()
        except OSError:  # too many files are open: the guard waits until there are fewer
            self._calls.put(True)
            return
        server = await self._loop.create_server(
            entrance.protocols, sock=listener, backlog=entrance.backlog
        )
        if self._counts[IS_OVER]:
            server.close()
            return
        entrance.servers.append(server)
        self._is_guarded = False
        self._tell_again()

    def _take_in(self, entrance: Entrance) -> bool:
        """Take what the guard hands over, each with a place if it is to have one; tell if any."""
        handed = self._all_handed()
        for file, kind in handed:
            if kind == MIDDLING:
                self._middling.append(file)
                if len(self._middling) == 1:
                    self._loop.call_soon(self._take_in_middling, entrance)
                continue
            place = (self._threads.let_in() if kind == LARGE else None) or Place()
            self._counts[N_SEEN] += kind == LARGE
            self._begin(self._serve(entrance, file, place))
        return bool(handed)

    def _take_in_middling(self, entrance: Entrance) -> None:
        for _ in range(min(MIDDLING_AT_ONCE, len(self._middling))):
            self._begin(self._serve(entrance, self._middling.popleft(), Place()))
        if self._middling:
            self._loop.call_soon(self._take_in_middling, entrance)

    def _all_handed(self) -> list[tuple[int, int]]:
        with suppress(BlockingIOError):
            return list(HANDED.iter_unpack(os.read(self._handed, HANDED_AT_ONCE * HANDED.size)))
        return []

    async def _serve(self, entrance: Entrance, file: int, place: Place) -> None:
        listener, protocols = entrance.listener, entrance.protocols

        def with_place() -> BoundedProtocol:
            protocol = protocols()
            protocol.keep(place)
            return protocol

        connection = socket.socket(listener.family, listener.type, listener.proto, file)
        with ExitStack() as unless_served:
            unless_served.callback(place.free)
            unless_served.callback(connection.close)
            unless_served.enter_context(suppress(OSError))  # its client was gone before
            await self._loop.connect_accepted_socket(with_place, connection)
            unless_served.pop_all()

    def _tell_again(self) -> None:
        """Tell now, and every second as long as there is a guard."""
        if self._telling is not None:
            self._telling.cancel()
        self._tell()
        if self._is_guarded:
            self._telling = self._loop.call_later(TELLING_SECONDS, self._tell_again)

    def _tell(self) -> None:
        """Tell the log how many were refused since the last time."""
        count = int(self._counts[N_REFUSED])
        if count > self._n_told:
            refused = {"code": OVERLOADED.code, "status": 503, "count": count - self._n_told}
            logger.info("requests_refused", extra=refused)
            self._n_told = count


def _marked(error: ServiceError, path: str) -> tuple[NDArray[np.uint8], int]:
    refusal, content_begin = REFUSALS.of(error, path).marked(
        id_mark=bytes([ID_MARK]), length_mark=bytes([LENGTH_MARK])
    )
    return np.frombuffer(refusal, dtype=np.uint8), content_begin
