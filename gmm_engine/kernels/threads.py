"""The threads that help with a pass, and where the kernel may let them run."""

import ctypes
import os
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager


def available_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Helpers:
    """Threads that wait for work; a forked child starts its own."""

    def __init__(self, count: int) -> None:
        self.count = count
        """Threads that a pass may use, the caller's among them."""
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._idle: list[_Helper] = []
        self._n_started = 0

    @contextmanager
    def beside(self, work: Callable[[], None], n_threads: int) -> Iterator[None]:
        """Let up to ``n_threads`` begin ``work`` on other cores than the caller's, who keeps its.

        Fewer do where passes run at the same time, which keep the cores busy as they are. Left to
        itself, a kernel may wake a thread beside the one that wakes it, or move one thread to the
        other, and find the idle core tens of milliseconds later: longer than most passes take.
        """
        here, elsewhere = _cores()
        for helper in self._taken(n_threads):
            helper.begin(work, elsewhere or here)
        if not elsewhere:
            yield
            return
        caller = threading.get_native_id()
        os.sched_setaffinity(caller, here)
        try:
            yield
        finally:
            os.sched_setaffinity(caller, here | elsewhere)

    def _taken(self, n_threads: int) -> "list[_Helper]":
        with self._lock:
            if self._owner != os.getpid():
                self._owner, self._idle, self._n_started = os.getpid(), [], 0
            n_more = min(n_threads - len(self._idle), self.count - 1 - self._n_started)
            if n_more > 0:
                self._idle += [_Helper(self._give_back) for _ in range(n_more)]
                self._n_started += n_more
            taken, self._idle = self._idle[:n_threads], self._idle[n_threads:]
        return taken

    def _give_back(self, helper: "_Helper") -> None:
        with self._lock:
            self._idle.insert(0, helper)


class _Helper:
    """A thread that does one piece of work after another."""

    def __init__(self, give_back: "Callable[[_Helper], None]") -> None:
        self._give_back = give_back
        self._work: Callable[[], None]
        self._is_given = threading.Lock()
        self._is_given.acquire()
        self._thread = threading.Thread(target=self._help, name="gmm-engine", daemon=True)
        self._thread.start()

    def begin(self, work: Callable[[], None], cores: Collection[int]) -> None:
        """Begin ``work``, on one of ``cores`` if there are any."""
        self._work = work
        if cores and self._thread.native_id is not None:
            os.sched_setaffinity(self._thread.native_id, cores)
        self._is_given.release()

    def _help(self) -> None:
        while True:
            self._is_given.acquire()
            self._work()
            del self._work  # and what it holds
            self._give_back(self)


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
