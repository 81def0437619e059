"""Turns among a few threads, behind a short queue that nobody waits in for long.

Who comes to a full queue, or grows old in it, is refused at once: an answer that comes after its
client has given up is work for nobody. The caller may say how long an answer is worth waiting for
(``Request-Timeout``), and leaves the queue when its client goes away.
"""

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import anyio
from anyio import CapacityLimiter, Semaphore
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from service.errors import Unavailable

T = TypeVar("T")

RETRY_SECONDS = 1


@dataclass(slots=True)
class Caller:
    """The client of the request that is under way."""

    receive: Receive
    deadline: float = float("inf")
    """By ``time.monotonic``."""
    has_sent_all: bool = False
    """Whether the body is in, so that the next message can only be the client's leaving."""

    async def receive_noted(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self.has_sent_all = True
        return message

    async def gone(self) -> None:
        """Return when the client goes away; not before its body is in."""
        if not self.has_sent_all:
            await anyio.sleep_forever()
        while (await self.receive())["type"] != "http.disconnect":
            pass


CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)


class Turns:
    """``threads`` calls at once, and at most ``queue_size`` that wait, each ``wait_seconds``."""

    def __init__(self, threads: int, *, queue_size: int, wait_seconds: float) -> None:
        self._limiter = CapacityLimiter(threads)
        self._free = Semaphore(threads, fast_acquire=True)
        self._queue_size = queue_size
        self._wait_seconds = wait_seconds
        self._n_waiting = 0

    async def run(self, call: Callable[[], T]) -> T:
        """Call it in another thread when its turn comes; raise ``Unavailable`` when that is late.

        Raises ``ClientDisconnect`` when the client goes away before.
        """
        caller = CALLER.get()
        await self._take_turn(caller)
        try:
            require_time(caller)
            return await anyio.to_thread.run_sync(call, limiter=self._limiter)
        finally:
            self._free.release()

    async def go_on(self, call: Callable[[], T]) -> T:
        """Call a part of what has begun already: it waits as long as it takes."""
        async with self._free:
            return await anyio.to_thread.run_sync(call, limiter=self._limiter)

    async def _take_turn(self, caller: Caller | None) -> None:
        try:
            self._free.acquire_nowait()
        except anyio.WouldBlock:
            if self._n_waiting >= self._queue_size:
                raise _overloaded() from None
            await self._wait(caller)

    async def _wait(self, caller: Caller | None) -> None:
        self._n_waiting += 1
        try:
            if caller is None:
                await self._free.acquire()
            else:
                await self._wait_for(caller)
        finally:
            self._n_waiting -= 1

    async def _wait_for(self, caller: Caller) -> None:
        has_turn = is_gone = False
        seconds = min(self._wait_seconds, caller.deadline - time.monotonic())
        with anyio.move_on_after(max(0.0, seconds)):
            async with anyio.create_task_group() as waiting:

                async def leave() -> None:
                    nonlocal is_gone
                    await caller.gone()
                    is_gone = True
                    waiting.cancel_scope.cancel()

                waiting.start_soon(leave)
                await self._free.acquire()
                has_turn = True
                waiting.cancel_scope.cancel()
        if has_turn:
            return
        if is_gone:
            raise ClientDisconnect
        raise _overloaded() if time.monotonic() < caller.deadline else _too_late()


def require_time(caller: Caller | None) -> None:
    """Raise ``Unavailable`` when an answer that begins now is of no use to its caller."""
    if caller is not None and time.monotonic() >= caller.deadline:
        raise _too_late()


def _overloaded() -> Unavailable:
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
