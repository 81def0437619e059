"""What the routes stand on, as one value in ``app.state``; built in ``service.wiring``."""

import os
import time
from array import array
from asyncio import AbstractEventLoop, Event, get_running_loop
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
from anyio import CapacityLimiter
from fastapi import Request

from service.api.holdings import Holdings
from service.api.payloads.spool import SpoolPlace
from service.api.turns import Handed, Over, Place, Turns
from service.domain.aliases import Aliases
from service.domain.analysis import Analysis
from service.domain.catalogue import Catalogue
from service.domain.fitting import Fitting
from service.domain.inference import Inference
from service.domain.limits import Limits
from service.domain.picturing import Picturing
from service.domain.ports import AnswerStore, AuditTrail
from service.domain.records import JobRecord
from service.domain.served_models import ServedModels
from service.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")

REGISTRY_THREADS = 16
LARGE_TABLE_NUMBERS = 20_000
"""Questions about more numbers than this take their turns apart from the small ones."""
SMALL_PER_LARGE = 4
"""Places in the queue of the small questions for one in the other."""


@dataclass(frozen=True, slots=True)
class ApiOptions:
    fit_wait_seconds: float
    max_wait_seconds: float
    drain_seconds: float
    max_body_bytes: int
    """Of JSON and other text."""
    max_binary_body_bytes: int
    max_stream_bytes: int
    """Of a body that is spooled, or answered as it arrives."""
    recovery_seconds: float
    """How often it is looked for jobs of processes that died."""
    preload_extras: bool
    """Whether what analyses and pictures need is loaded before it is asked for."""
    spool: SpoolPlace
    """Where what does not fit into memory waits."""

    def max_bytes(self, *, is_text: bool) -> int:
        return self.max_body_bytes if is_text else self.max_binary_body_bytes


def available_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Threads:
    """Where blocking work goes: looking things up, and computing, each with its own bound."""

    def __init__(self, *, queue_size: int = 64, wait_seconds: float = 10.0) -> None:
        self.n_computing = n_cores = available_cores()
        """Threads that answer large questions."""
        self._registry = CapacityLimiter(REGISTRY_THREADS)
        self._large = Turns(n_cores, queue_size=queue_size, wait_seconds=wait_seconds)
        self._small = Turns(
            n_cores, queue_size=SMALL_PER_LARGE * queue_size, wait_seconds=wait_seconds
        )
        self._fits = Turns(n_cores, queue_size=queue_size, wait_seconds=wait_seconds)

    async def look_up(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await anyio.to_thread.run_sync(
            partial(call, *args, **kwargs), limiter=self._registry
        )

    async def compute(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it when its turn comes; raise ``Unavailable`` when that would be too late."""
        return await self._large.run(partial(call, *args, **kwargs))

    def hand(self, call: Callable[[], None], over: Over) -> Handed:
        """Do as ``compute`` without a task; ``over`` is told on the loop."""
        return self._large.hand(call, over)

    def withdraw(self, handed: Handed) -> bool:
        """Take back what was handed over; False if it was begun or refused before."""
        return self._large.withdraw(handed)

    def let_in(self) -> Place | None:
        """Keep a place in the queue for a large body; None when it would be refused later on."""
        return self._large.let_in()

    @property
    def places(self) -> "array[int]":
        """How many of them are free: one number, kept up to date."""
        return self._large.places

    async def begin(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Begin a fit when its turn comes among others, however many questions wait."""
        return await self._fits.run(partial(call, *args, **kwargs))

    async def go_on(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Likewise for a part of what has begun, which is never refused for want of a turn."""
        return await self._large.go_on(partial(call, *args, **kwargs))

    async def answer(self, n_numbers: int, call: Callable[[], T]) -> T:
        """Answer a question about so many numbers; a small one does not wait for large ones."""
        turns = self._large if n_numbers > LARGE_TABLE_NUMBERS else self._small
        return await turns.run(call)


class Lifecycle:
    """Starting, serving, draining: who holds a request open lets go when the drain begins."""

    def __init__(self) -> None:
        self._loop: AbstractEventLoop | None = None
        self._draining = Event()
        self._drain_begun: float | None = None

    @property
    def is_serving(self) -> bool:
        return self._loop is not None and not self.is_draining

    @property
    def is_draining(self) -> bool:
        return self._drain_begun is not None

    def begin_serving(self) -> None:
        self._loop = get_running_loop()

    def begin_draining(self) -> None:
        """Safe to call from a signal handler or another thread."""
        if self._drain_begun is None:
            self._drain_begun = time.monotonic()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._draining.set)

    def require_serving(self) -> None:
        if self._loop is None:
            raise Unavailable("starting", "The service is starting.", retry_after_seconds=1)
        if self.is_draining:
            raise Unavailable.draining()

    def seconds_draining(self) -> float:
        return 0.0 if self._drain_begun is None else time.monotonic() - self._drain_begun

    async def drained(self) -> None:
        """Return when the drain begins."""
        await self._draining.wait()


@dataclass(frozen=True, slots=True)
class Services:
    catalogue: Catalogue
    aliases: Aliases
    fitting: Fitting
    inference: Inference
    analysis: Analysis
    pictures: Picturing
    answers: AnswerStore
    audit: AuditTrail
    served: ServedModels
    options: ApiOptions
    limits: Limits
    start: Callable[[], None]
    """Begins to run fits; called once, when the service is ready to serve."""
    close: Callable[[float], None]
    """Ends what runs within so many seconds; called once, when no request is left."""
    streams: CapacityLimiter
    """Places for streams of events."""
    holdings: Holdings
    """Of the bodies that are held whole."""
    threads: Threads = field(default_factory=Threads)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)

    async def job_within(self, job_id: str, timeout_seconds: float) -> JobRecord:
        """Return the job once it is done, or as it is when the time is up or the drain begins."""
        loop, over = get_running_loop(), Event()
        forget = self.fitting.when_done(job_id, lambda: set_from_thread(loop, over))
        try:
            await self.woken(over, timeout_seconds)
        finally:
            forget()
        return self.fitting.get_job(job_id)

    async def woken(self, event: Event, timeout_seconds: float) -> bool:
        """Wait for the event or the drain; tell whether one of them came in time."""
        with anyio.move_on_after(max(0.0, timeout_seconds)):
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(self._set_when_draining, event)
                await event.wait()
                waiting.cancel_scope.cancel()
        return event.is_set()

    def drain_seconds_left(self) -> float:
        return max(0.0, self.options.drain_seconds - self.lifecycle.seconds_draining())

    def wait_seconds(self, wished: float | None, default: float) -> float:
        seconds = default if wished is None else wished
        return min(seconds, self.options.max_wait_seconds)

    async def _set_when_draining(self, over: Event) -> None:
        await self.lifecycle.drained()
        over.set()


def set_from_thread(loop: AbstractEventLoop, over: Event) -> None:
    loop.call_soon_threadsafe(over.set)


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services
