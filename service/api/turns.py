"""Turns among a few threads, behind a short queue that nobody waits in for long.

Who comes to a full queue, or grows old in it, is refused at once: an answer that comes after its
client has given up is work for nobody. The caller may say how long an answer is worth waiting for
(``Request-Timeout``), and leaves the queue when its client goes away. A body that takes long to
read keeps a place in the queue while it comes in, so that it is refused before or not at all.
"""

import asyncio
import threading
import time
from array import array
from asyncio import Future, Task, TimerHandle
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import TypeVar
from weakref import finalize

import anyio
from anyio import CancelScope
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from service.errors import Unavailable

T = TypeVar("T")

RETRY_SECONDS = 1


class Place:
    """A place in a queue, kept for a question that is on its way; of no queue by itself."""

    def __init__(self, turns: "Turns | None" = None) -> None:
        self._turns = turns

    @property
    def is_kept(self) -> bool:
        return self._turns is not None

    def free(self) -> None:
        """Give the place back; nothing the second time."""
        if self._turns is not None:
            self._turns.n_arriving -= 1
            self._turns.places[0] += 1
            self._turns = None


@dataclass(slots=True)
class Caller:
    """The client of the request that is under way."""

    receive: Receive
    deadline: float = float("inf")
    """By ``time.monotonic``."""
    has_sent_all: bool = False
    """Whether the body is in, so that the next message can only be the client's leaving."""
    place: Place = field(default_factory=Place)
    """Of the body, while it comes in."""

    async def receive_noted(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self.has_sent_all = True
            self.place.free()
        return message

    async def gone(self) -> None:
        """Return when the client goes away; not before its body is in."""
        if not self.has_sent_all:
            await anyio.sleep_forever()
        while (await self.receive())["type"] != "http.disconnect":
            pass


CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)


class Workers:
    """Threads that take calls one after another, each handed over in half the time of anyio's."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._is_started = False

    async def run(self, call: Callable[[], T]) -> T:
        """Call it in one of the threads; the caller waits even if it is cancelled meanwhile."""
        if not self._is_started:
            self._start()
        loop = asyncio.get_running_loop()
        returned: Future[T] = loop.create_future()
        context = copy_context()

        def work() -> None:
            try:
                tell = partial(_set_result, returned, context.run(call))
            except BaseException as error:  # raised where it is waited for
                tell = partial(_set_exception, returned, error)
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(tell)

        self._calls.put(work)
        with CancelScope(shield=True):
            await returned
        return returned.result()

    def _start(self) -> None:
        self._is_started = True
        for _ in range(self._count):
            threading.Thread(target=_take, args=(self._calls,), daemon=True).start()
            finalize(self, self._calls.put, None)


def _take(calls: "SimpleQueue[Callable[[], None] | None]") -> None:
    while (call := calls.get()) is not None:
        call()
        del call


def _set_result(returned: Future[T], result: T) -> None:
    if not returned.done():
        returned.set_result(result)


def _set_exception(returned: Future[T], error: BaseException) -> None:
    if not returned.done():
        returned.set_exception(error)


class Turns:
    """``threads`` calls at once, and at most ``queue_size`` that wait, each ``wait_seconds``."""

    def __init__(self, threads: int, *, queue_size: int, wait_seconds: float) -> None:
        self._workers = Workers(threads)
        self._n_free = threads
        self.places = array("q", [threads + queue_size])
        """Free: one number, which a thread without the interpreter's lock may read."""
        self._queue: deque[Future[None]] = deque()
        """In the order of their coming; some may have left."""
        self._queue_size = queue_size
        self._wait_seconds = wait_seconds
        self._n_waiting = 0
        self.n_arriving = 0

    def let_in(self) -> Place | None:
        """Keep a place for a question that is on its way; None when there is none."""
        if self.places[0] <= 0:
            return None
        self.places[0] -= 1
        self.n_arriving += 1
        return Place(self)

    async def run(self, call: Callable[[], T]) -> T:
        """Call it in another thread when its turn comes; raise ``Unavailable`` when that is late.

        Raises ``ClientDisconnect`` when the client goes away before.
        """
        caller = CALLER.get()
        if not self._has_taken():
            if self._n_waiting >= self._queue_size:
                raise overloaded()
            await self._wait_for(caller)
        return await self._called(call, caller)

    async def go_on(self, call: Callable[[], T]) -> T:
        """Call a part of what has begun already: it waits as long as it takes."""
        if not self._has_taken():
            await self._given(self._asked())
        return await self._called(call, None)

    async def _called(self, call: Callable[[], T], caller: Caller | None) -> T:
        try:
            require_time(caller)
            return await self._workers.run(call)
        finally:
            self._give()

    async def _wait_for(self, caller: Caller | None) -> None:
        turn = self._asked()
        limits = self._limits_of(turn, caller)
        self._n_waiting += 1
        self.places[0] -= 1
        try:
            await self._given(turn)
        finally:
            self._n_waiting -= 1
            self.places[0] += 1
            for limit in limits:
                limit.cancel()

    def _limits_of(
        self, turn: Future[None], caller: Caller | None
    ) -> list[TimerHandle | Task[None]]:
        """Refuse the turn when its time is up, or when the client goes away."""
        deadline = float("inf") if caller is None else caller.deadline

        def refuse_late() -> None:
            if not turn.done():
                is_overdue = time.monotonic() >= deadline
                turn.set_exception(_too_late() if is_overdue else overloaded())

        def refuse_gone(leaving: Task[None]) -> None:
            if not (turn.done() or leaving.cancelled() or leaving.exception()):
                turn.set_exception(ClientDisconnect())

        seconds = min(self._wait_seconds, deadline - time.monotonic())
        lateness = asyncio.get_running_loop().call_later(max(0.0, seconds), refuse_late)
        if caller is None or not caller.has_sent_all:
            return [lateness]
        leaving = asyncio.create_task(caller.gone())
        leaving.add_done_callback(refuse_gone)
        return [lateness, leaving]

    def _has_taken(self) -> bool:
        """Take a turn that is free."""
        is_free = self._n_free > 0
        self._n_free -= is_free
        self.places[0] -= is_free
        return is_free

    def _asked(self) -> Future[None]:
        turn: Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        return turn

    async def _given(self, turn: Future[None]) -> None:
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.exception() is None:
                self._give()  # it came, but nobody is left to take it
            raise

    def _give(self) -> None:
        """Give a turn back: to the first who waits, if there is one."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._n_free += 1
        self.places[0] += 1


def require_time(caller: Caller | None) -> None:
    """Raise ``Unavailable`` when an answer that begins now is of no use to its caller."""
    if caller is not None and time.monotonic() >= caller.deadline:
        raise _too_late()


def overloaded() -> Unavailable:
    return Unavailable(
        "overloaded",
        "More is asked than can be computed; try again shortly.",
        retry_after_seconds=RETRY_SECONDS,
    )


def _too_late() -> Unavailable:
    return Unavailable(
        "deadline_exceeded",
        "The time that Request-Timeout gave had passed before the answer was begun.",
        retry_after_seconds=RETRY_SECONDS,
    )
