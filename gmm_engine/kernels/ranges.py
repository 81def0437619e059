"""Rows cut into ranges, and the threads that work on them."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from gmm_engine.kernels.passes import BLOCK_ROWS

RANGE_NANOSECONDS = 250_000
"""About how long a range should take: long against a change of threads, short against a pass."""
MAX_RANGES = 64

Part = TypeVar("Part")


def row_ranges(n_rows: int, n_components: int, n_features: int) -> Sequence[slice]:
    """Cut rows into ranges whose borders depend on the size of the work alone."""
    nanoseconds_a_row = n_components * (3.0 + n_features**2 / 10.0)
    wanted = int(n_rows * nanoseconds_a_row / RANGE_NANOSECONDS)
    if wanted <= 1:
        return (slice(0, n_rows),)
    n_blocks = -(-n_rows // BLOCK_ROWS)
    n_ranges = max(1, min(wanted, MAX_RANGES, n_blocks))
    blocks_a_range = -(-n_blocks // n_ranges)
    step = blocks_a_range * BLOCK_ROWS
    return [slice(begin, min(begin + step, n_rows)) for begin in range(0, n_rows, step)]


def in_order(work: Callable[[slice], Part], ranges: Sequence[slice]) -> Iterator[Part]:
    """Yield the results of ``work`` in the order of the ranges.

    Only one result more than there are threads waits at any time, however many ranges there are.
    """
    n_threads = thread_count()
    if len(ranges) == 1 or n_threads == 1:
        for rows in ranges:
            yield work(rows)
        return
    pool = _THREADS.pool()
    waiting: deque[Future[Part]] = deque()
    upcoming = iter(ranges)
    try:
        for rows in upcoming:
            waiting.append(pool.submit(work, rows))
            if len(waiting) > n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


class _Threads:
    """The threads of this process; a forked child starts its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._owner = (0, 0)
        self.count = available_cores()

    def pool(self) -> ThreadPoolExecutor:
        with self._lock:
            owner = (os.getpid(), self.count)
            if self._pool is None or self._owner != owner:
                self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="gmm-engine")
                self._owner = owner
            return self._pool


def available_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_THREADS = _Threads()


def thread_count() -> int:
    """Return how many threads a pass may use."""
    return _THREADS.count


def set_thread_count(n_threads: int) -> None:
    """Let each pass of this process use up to ``n_threads``; no result depends on it."""
    _THREADS.count = max(1, n_threads)
