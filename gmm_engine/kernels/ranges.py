"""Rows cut into ranges that threads share."""

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Generic, NoReturn, TypeVar

from gmm_engine.kernels.blocks import BLOCK_ROWS
from gmm_engine.kernels.threads import Helpers, available_cores
from gmm_engine.validation import require_integer_at_least

SHORT_RANGE, LONG_RANGE = 250_000, 10_000_000
"""Nanoseconds that a range should take: long against a change of threads, short against a pass."""
FEW_RANGES, MAX_RANGES = 16, 64
"""So many short ranges do for a few cores; only long work is cut into more."""
LEAST_DENSE_ROWS, DENSE_ROWS_A_FEATURE = 1024, 16
"""Matrices of sums are added up after every range, which should take longer by far."""

Part = TypeVar("Part")


@lru_cache(maxsize=64)
def row_ranges(
    n_rows: int, n_components: int, n_features: int, *, is_dense: bool
) -> Sequence[slice]:
    """Cut rows into ranges whose borders depend on the size of the work alone."""
    if n_rows <= BLOCK_ROWS:
        return (slice(0, n_rows),)
    by_features = n_features**2 / 20.0 if is_dense else n_features / 4.0
    nanoseconds = n_rows * n_components * (3.0 + by_features)
    wanted = max(min(nanoseconds / SHORT_RANGE, FEW_RANGES), nanoseconds / LONG_RANGE)
    if wanted < 2:
        return (slice(0, n_rows),)
    n_blocks = -(-n_rows // BLOCK_ROWS)
    least_dense = max(LEAST_DENSE_ROWS, DENSE_ROWS_A_FEATURE * n_features)
    most = min(MAX_RANGES, n_rows // least_dense if is_dense else n_blocks)
    n_ranges = max(1, min(int(wanted), most))
    blocks_a_range = -(-n_blocks // n_ranges)
    step = blocks_a_range * BLOCK_ROWS
    return tuple(slice(begin, min(begin + step, n_rows)) for begin in range(0, n_rows, step))


def in_order(work: Callable[[slice], Part], ranges: Sequence[slice]) -> Iterator[Part]:
    """Yield the results of ``work`` in the order of the ranges; the caller's thread works too.

    However many ranges there are, one more result than there are threads waits at the most.
    """
    n_threads = min(thread_count(), len(ranges))
    if n_threads == 1:
        for rows in ranges:
            yield work(rows)
        return
    shared = _SharedWork(work, ranges, most_waiting=n_threads + 1)
    with HELPERS.beside(shared.help, n_threads - 1):
        try:
            for place in range(len(ranges)):
                yield shared.result(place)
        finally:
            shared.end()


class _SharedWork(Generic[Part]):
    """Ranges that several threads take one after another, and the results not yet fetched."""

    def __init__(
        self, work: Callable[[slice], Part], ranges: Sequence[slice], most_waiting: int
    ) -> None:
        self._work, self._ranges = work, ranges
        self._most_waiting = most_waiting
        self._changed = threading.Condition()
        self._n_taken = self._n_fetched = 0
        self._has_ended = False
        self._finished: dict[int, Callable[[], Part]] = {}

    def help(self) -> None:
        """Work until there is nothing left to take."""
        while True:
            with self._changed:
                while not self._has_ended and self._is_too_far_ahead():
                    self._changed.wait()
                place = self._take()
            if place is None:
                return
            self._do(place)

    def result(self, place: int) -> Part:
        """Return the result of the range at ``place``, or raise its error."""
        while True:
            with self._changed:
                own = None if place in self._finished else self._take()
                if own is None:
                    while place not in self._finished:
                        self._changed.wait()
                    outcome = self._finished.pop(place)
                    self._n_fetched += 1
                    self._changed.notify_all()
                    break
            self._do(own)
        return outcome()

    def end(self) -> None:
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def _is_too_far_ahead(self) -> bool:
        return self._n_taken - self._n_fetched >= self._most_waiting

    def _take(self) -> int | None:
        if self._has_ended or self._n_taken == len(self._ranges) or self._is_too_far_ahead():
            return None
        self._n_taken += 1
        return self._n_taken - 1

    def _do(self, place: int) -> None:
        outcome: Callable[[], Part]
        try:
            part = self._work(self._ranges[place])
        except BaseException as error:
            outcome = partial(_raise, error)
        else:
            outcome = partial(_returned, part)
        with self._changed:
            self._finished[place] = outcome
            self._changed.notify_all()


def _returned(part: Part) -> Part:
    return part


def _raise(error: BaseException) -> NoReturn:
    raise error


HELPERS = Helpers(available_cores())


def thread_count() -> int:
    """Return how many threads a pass may use."""
    return HELPERS.count


def set_thread_count(n_threads: int) -> None:
    """Let each pass of this process use up to ``n_threads``; no result depends on it.

    Raises
    ------
    InvalidParameterError
        It is no whole number of at least 1.
    """
    require_integer_at_least("n_threads", n_threads, 1)
    HELPERS.count = n_threads
