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

Over = Callable[[Unavailable | None], None]
"""Told that a call is over, or why it was never begun."""

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
        returned: Future[T] = asyncio.get_running_loop().create_future()
        self.begin(partial(_call_for, returned, partial(copy_context().run, call)))
        with CancelScope(shield=True):
            await returned
        try:
            return returned.result()
        finally:
            del returned  # or its error holds this frame, which holds it

    def begin(self, call: Callable[[], None]) -> None:
        """Call it in one of the threads; it raises nothing, and tells for itself what it made."""
        if not self._is_started:
            self._start()
        self._calls.put(call)

    def _start(self) -> None:
        self._is_started = True
        for _ in range(self._count):
            threading.Thread(target=_take, args=(self._calls,), daemon=True).start()
            finalize(self, self._calls.put, None)


def _take(calls: "SimpleQueue[Callable[[], None] | None]") -> None:
    while (call := calls.get()) is not None:
        call()
        del call


def _call_for(returned: Future[T], call: Callable[[], T]) -> None:
    try:
        tell = partial(_set_result, returned, call())
    except BaseException as error:  # raised where it is waited for
        tell = partial(_set_exception, returned, error)
    with suppress(RuntimeError):  # the loop is closed: nobody waits
        returned.get_loop().call_soon_threadsafe(tell)
    del tell, returned  # or the error holds this frame, which holds it


def _set_result(returned: Future[T], result: T) -> None:
    if not returned.done():
        returned.set_result(result)


def _set_exception(returned: Future[T], error: BaseException) -> None:
    if not returned.done():
        returned.set_exception(error)


class Handed:
    """A call that waits for its turn without a task: a thread takes it as soon as it is free.

    Whoever claims it first, of the thread that begins it, its lateness and its leaving client,
    decides what becomes of it.
    """

    __slots__ = ("_unclaimed", "call", "lateness", "over")

    def __init__(self, call: Callable[[], None], over: Over) -> None:
        self.call = call
        """Raises nothing."""
        self.over = over
        """Told on the loop when it was called, or why it was not."""
        self.lateness: TimerHandle | None = None
        """Set as long as it waits."""
        self._unclaimed = [True]

    def claim(self) -> bool:
        """Return True to the first who asks, in whichever thread."""
        try:
            return self._unclaimed.pop()
        except IndexError:
            return False


class Turns:
    """``threads`` calls at once, and at most ``queue_size`` that wait, each ``wait_seconds``."""

    def __init__(self, threads: int, *, queue_size: int, wait_seconds: float) -> None:
        self._workers = Workers(threads)
        self._n_free = threads
        self.places = array("q", [threads + queue_size])
        """Free: one number, which a thread without the interpreter's lock may read."""
        self._queue: deque[Future[None] | Handed] = deque()
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

    def hand(self, call: Callable[[], None], over: Over) -> Handed:
        """Have it called when its turn comes, as ``run`` does, from the loop and without a task.

        Raises ``Unavailable`` when the queue is full; ``over`` is told when it grows old in it.
        """
        handed = Handed(call, over)
        if self._has_taken():
            handed.claim()
            self._begin(handed)
        elif self._n_waiting >= self._queue_size:
            raise overloaded()
        else:
            self._keep_waiting(handed)
        return handed

    def withdraw(self, handed: Handed) -> bool:
        """Take it out of the queue; False if it was begun or refused before."""
        if not handed.claim():
            return False
        self._has_waited(handed)
        return True

    def _begin(self, handed: Handed) -> None:
        self._workers.begin(partial(self._work, handed, asyncio.get_running_loop()))

    def _work(self, handed: Handed, loop: asyncio.AbstractEventLoop) -> None:
        """Call it, in a thread, and those that wait behind it: none waits for the loop."""
        following: Handed | None = handed
        while following is not None:
            handed = following
            handed.call()
            following = self._next_handed()
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(self._is_over, handed, following)

    def _next_handed(self) -> Handed | None:
        """Take the next call out of the queue, unless somebody waits there whom the loop wakes."""
        while self._queue:
            with suppress(IndexError):  # another thread was first
                first = self._queue.popleft()
                if not isinstance(first, Handed):
                    self._queue.appendleft(first)
                    return None
                if first.claim():
                    return first
        return None

    def _is_over(self, handed: Handed, following: Handed | None) -> None:
        if following is None:
            self._give()
        else:
            self._has_waited(following)
        handed.over(None)

    def _keep_waiting(self, handed: Handed) -> None:
        self._queue.append(handed)
        self._n_waiting += 1
        self.places[0] -= 1
        loop = asyncio.get_running_loop()
        handed.lateness = loop.call_later(self._wait_seconds, self._refuse_late, handed)

    def _refuse_late(self, handed: Handed) -> None:
        if self.withdraw(handed):
            handed.over(overloaded())

    def _has_waited(self, handed: Handed) -> None:
        self._n_waiting -= 1
        self.places[0] += 1
        if handed.lateness is not None:
            handed.lateness.cancel()
            handed.lateness = None

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
            with suppress(IndexError):  # a thread was first
                if self._has_begun(self._queue.popleft()):
                    return
        self._n_free += 1
        self.places[0] += 1

    def _has_begun(self, turn: "Future[None] | Handed") -> bool:
        """Give a turn to one who waits, unless that one has left."""
        if isinstance(turn, Handed):
            if not turn.claim():
                return False
            self._has_waited(turn)
            self._begin(turn)
            return True
        if turn.done():
            return False
        turn.set_result(None)
        return True


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
