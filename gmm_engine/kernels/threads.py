"""The threads that help with a pass, and where the kernel may let them run."""

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue


def available_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Helpers:
    """Threads that wait for work; a forked child starts its own."""

    def __init__(self, count: int) -> None:
        self.count = count
        """Threads that a pass may use, the caller's among them."""
        self._begin_anew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._helpers: list[_Helper] = []

    @contextmanager
    def beside(self, work: Callable[[], None], n_threads: int) -> Iterator[None]:
        """Let up to ``n_threads`` begin ``work`` on other cores than the caller's, who keeps its.

        Left to itself, a kernel may wake a thread beside the one that wakes it, or move one thread
        to the other, and find the idle core tens of milliseconds later: longer than most passes
        take. A thread that still helps somebody else comes when it is done.
        """
        here, elsewhere = _cores()
        for helper in self._taken(n_threads):
            helper.begin(work, elsewhere or here)
        if not elsewhere:
            yield
            return
        caller = threading.get_native_id()
        try:  # from here on, for a signal may be handled as soon as the system returns
            _confine(caller, here)
            yield
        finally:
            _confine(caller, here | elsewhere)

    def _taken(self, n_threads: int) -> "list[_Helper]":
        """Return helpers, those that help nobody first."""
        with self._lock:
            n_more = min(n_threads, self.count - 1) - len(self._helpers)
            self._helpers += [_Helper() for _ in range(n_more)]
            return sorted(self._helpers, key=lambda helper: helper.is_working)[:n_threads]


class _Helper:
    """A thread that does one piece of work after another."""

    def __init__(self) -> None:
        self.is_working = False
        self._given = deque[Callable[[], None]](maxlen=1)
        self._calls = SimpleQueue[None]()
        self._thread = threading.Thread(target=self._help, name="gmm-engine", daemon=True)
        self._thread.start()

    def begin(self, work: Callable[[], None], cores: Collection[int]) -> None:
        """Begin ``work`` after what is being done, on one of ``cores`` if any are given.

        Only what came last is waited with: of a pass that came before, others have done the most.
        """
        if cores and self._thread.native_id is not None:
            _confine(self._thread.native_id, cores)
        self._given.append(work)
        if self._calls.empty():
            self._calls.put(None)

    def _help(self) -> None:
        while True:
            self._calls.get()
            while self._given:
                self.is_working = True
                self._given.pop()()
            self.is_working = False


def _confine(thread: int, cores: Collection[int]) -> None:
    """Let a thread run on these cores alone, unless the system does not allow to ask for that."""
    with suppress(OSError):
        os.sched_setaffinity(thread, cores)


def _cores() -> tuple[set[int], set[int]]:
    """Return the core that this thread runs on, and the others that it may; both may be empty."""
    if _sched_getcpu is None:
        return set(), set()
    allowed = os.sched_getaffinity(0)
    here = {_sched_getcpu()} & allowed
    return (here, allowed - here) if here else (set(), set())


_sched_getcpu: Callable[[], int] | None = (
    getattr(ctypes.CDLL(None), "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None
)
