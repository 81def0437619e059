"""A pass over the rows that threads share, compiled: nothing of Python's between its ranges.

Threads take ranges of rows one after another by counting up, and leave the sums of each in a place
of its own. When all are there they add them up, component by component, in the order of the
ranges. So the bits of a result don't depend on how many threads there are.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import njit, types
from numba.core.base import BaseContext
from numba.core.typing.templates import Signature
from numba.extending import intrinsic
from numpy.typing import NDArray

from gmm_engine.kernels import passes
from gmm_engine.kernels.calls import address_of, weigh_rows
from gmm_engine.kernels.compilation import compiled
from gmm_engine.kernels.lanes import LANES, array_data
from gmm_engine.kernels.layout import READ, WRITTEN, WRITTEN_TABLE
from gmm_engine.kernels.prepared import Prepared
from gmm_engine.kernels.ranges import HELPERS, thread_count

SUMS_AT_ONCE = 2**20
"""Numbers in the sums of ranges that wait to be added up: 8 MiB, if threads are few."""
MOST_RANGES_AT_ONCE = 16
"""Ranges between which nobody can interrupt a pass: many are those of long work."""
MOST_KEPT = 2
"""Rooms for sums that are kept from one pass to the next: fresh memory is slower than the sums."""
_LOOKS = 1_000_000
"""How often a thread looks whether others are done before it waits: half a millisecond or so."""
_LINE = 8
"""Numbers in a line of the cache, for counters that don't disturb each other."""
_RANGES_TAKEN, _RANGES_DONE, _SETS_TAKEN, _SETS_DONE = (i * _LINE for i in range(4))
_N_COUNTERS = 4 * _LINE

_COUNTERS = types.int64[::1]


@intrinsic
def _count_up(typing_context, counters, place):
    """Add one to a counter that threads share; return what it was before."""

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        address = builder.gep(array_data(context, builder, signature.args[0], args[0]), [args[1]])
        return builder.atomic_rmw("add", address, ir.Constant(ir.IntType(64), 1), "acq_rel")

    return types.int64(counters, types.intp), codegen


@intrinsic
def _read(typing_context, counters, place):
    """Return a counter that threads share, as it is now."""

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        address = builder.gep(array_data(context, builder, signature.args[0], args[0]), [args[1]])
        return builder.load_atomic(address, "acquire", 8)

    return types.int64(counters, types.intp), codegen


@njit(nogil=True, error_model="numpy")
def _has_reached(counters, place, count):
    """Look for a while whether a counter has reached a count."""
    looks = 0
    while _read(counters, place) < count:
        looks += 1
        if looks == _LOOKS:
            return False
    return True


@njit(nogil=True, error_model="numpy")
def _add_set(k, places, size, sums, is_first, totals):
    """Add to the numbers of one component what each range has summed up; to nothing at first."""
    begin, end = k * size, (k + 1) * size
    if is_first:
        totals[begin:end] = 0.0
    for place in range(places):
        base = place * len(totals)
        for i in range(begin, end):
            totals[i] += sums[base + i]


@njit(nogil=True, error_model="numpy")
def _add_lower(k, places, width, sums, is_first, totals):
    """Likewise of a matrix that is summed up in tiles: the rest of it is zero."""
    size = width * width
    if is_first:
        totals[k * size : (k + 1) * size] = 0.0
    for place in range(places):
        for row in range(width):
            begin = k * size + row * width
            source = place * len(totals) + begin
            for i in range((row // LANES + 1) * LANES):
                totals[begin + i] += sums[source + i]


@compiled(
    types.boolean(
        types.intp,
        *passes.EXPECTATION_SIGNATURE.args[:2],
        READ,
        READ,
        types.float64,
        READ,
        types.intp,
        READ,
        types.intp,
        types.intp,
        types.intp,
        types.boolean,
        types.int64[::1],
        types.boolean,
        _COUNTERS,
        WRITTEN_TABLE,
        WRITTEN_TABLE,
        WRITTEN_TABLE,
        WRITTEN,
        WRITTEN,
    ),
)
def _share(
    address,
    doubles,
    floats,
    weight,
    constants,
    negligible,
    means,
    width,
    factors,
    factor_stride,
    scatter_stride,
    n_scatters,
    is_tiled,
    borders,
    is_first,
    counters,
    moments,
    scatters,
    results,
    all_moments,
    all_scatters,
):
    """Sum up ranges that nobody has taken, and add up what all have summed up.

    Returns whether everything is done; not so where another thread takes its time.
    """
    n_ranges, n_components = len(borders) - 1, len(constants)
    while True:
        place = _count_up(counters, _RANGES_TAKEN)
        if place >= n_ranges:
            break
        begin, end = borders[place], borders[place + 1]
        moments[place] = 0.0
        scatters[place] = 0.0
        likelihood, max_resp, unreached = weigh_rows(
            address,
            doubles[begin:end],
            floats[begin:end],
            weight[begin:end] if len(weight) else weight,
            constants,
            negligible,
            means,
            width,
            factors,
            factor_stride,
            moments[place],
            scatters[place],
            scatter_stride,
        )
        results[place, 0] = likelihood
        results[place, 1] = max_resp
        results[place, 2] = begin + unreached if unreached >= 0 else -1.0
        _count_up(counters, _RANGES_DONE)
    if not _has_reached(counters, _RANGES_DONE, n_ranges):
        return False
    while True:
        k = _count_up(counters, _SETS_TAKEN)
        if k >= n_components:
            break
        size = len(all_moments) // n_components
        _add_set(k, n_ranges, size, moments.reshape(-1), is_first, all_moments)
        if k < n_scatters and is_tiled:
            _add_lower(k, n_ranges, width, scatters.reshape(-1), is_first, all_scatters)
        elif k < n_scatters:
            size = len(all_scatters) // n_scatters
            _add_set(k, n_ranges, size, scatters.reshape(-1), is_first, all_scatters)
        _count_up(counters, _SETS_DONE)
    return _has_reached(counters, _SETS_DONE, n_components)


@dataclass(frozen=True, slots=True)
class Totals:
    """What a pass over the rows has summed up about the means of a mixture."""

    nk: NDArray[np.float64]  # (K,)
    first: NDArray[np.float64]  # (K, D)
    scatter: NDArray[np.float64]  # (K or 1, D, D) or (K, D)
    log_likelihood: float
    log_max_resp: float
    unreached: int
    """The first row that is out of reach of every component, or −1."""


class _Room:
    """Memory for the sums of a few ranges at a time, and for those of all."""

    def __init__(self, n_places: int, n_moments: int, n_scatter: int) -> None:
        self.shape = n_places, n_moments, n_scatter
        n_rows = n_places + 1
        self.size = n_rows * (n_moments + n_scatter)
        numbers = np.empty(self.size + _LINE)
        first = -(numbers.ctypes.data // 8) % _LINE
        border = first + n_rows * n_scatter
        scatters = numbers[first:border].reshape(n_rows, n_scatter)
        moments = numbers[border : first + self.size].reshape(n_rows, n_moments)
        self.scatters, self.all_scatters = scatters[:-1], scatters[-1]
        self.moments, self.all_moments = moments[:-1], moments[-1]


_kept_rooms = deque[_Room](maxlen=MOST_KEPT)


def _taken_room(*shape: int) -> _Room:
    try:
        kept = _kept_rooms.pop()
    except IndexError:
        return _Room(*shape)
    return kept if kept.shape == shape else _Room(*shape)


def _give_back(room: _Room) -> None:
    """Keep the memory for another pass, if it is not too much; nobody reads the sums by now."""
    if room.size <= 2 * SUMS_AT_ONCE:
        _kept_rooms.append(room)


def sums_of(
    prepared: Prepared,
    X: NDArray[np.floating],
    weight: NDArray[np.float64],
    ranges: Sequence[slice],
) -> Totals:
    """Weigh rows by a mixture and sum up the moments, range by range, by several threads.

    ``weight`` is empty for ones. It ends early where a row is out of reach.
    """
    n_moments = len(prepared.constants) * (1 + prepared.width) * prepared.sum_lanes
    n_scatter = prepared.n_scatters * prepared.scatter_size
    n_threads = min(thread_count(), len(ranges))
    n_fit = min(SUMS_AT_ONCE // (n_moments + n_scatter), MOST_RANGES_AT_ONCE)
    n_places = min(max(n_fit, n_threads), len(ranges))
    room = _taken_room(n_places, n_moments, n_scatter)
    log_likelihood, log_max_resp, unreached = 0.0, 0.0, -1
    for first in range(0, len(ranges), n_places):
        portion = ranges[first : first + n_places]
        results = np.empty((len(portion), 3))
        work = partial(
            _share,
            address_of(*prepared.way),
            *passes.as_either_type(X),
            weight,
            prepared.constants,
            prepared.negligible,
            prepared.means,
            prepared.width,
            prepared.factors,
            prepared.factor_stride,
            0 if prepared.is_shared else prepared.scatter_size,
            prepared.n_scatters,
            prepared.is_tiled,
            np.array([portion[0].start, *(rows.stop for rows in portion)]),
            first == 0,
            np.zeros(_N_COUNTERS, dtype=np.int64),
            room.moments,
            room.scatters,
            results,
            room.all_moments,
            room.all_scatters,
        )
        _finish(work, min(n_threads, len(portion)))
        for likelihood, max_resp, beyond in results.tolist():
            log_likelihood += likelihood
            log_max_resp += max_resp
            unreached = int(beyond) if unreached < 0 else unreached
        if unreached >= 0:
            break
    nk, first_moments = prepared.unpacked_moments(room.all_moments)
    scatter = prepared.unpacked_scatter(room.all_scatters)
    _give_back(room)
    return Totals(nk, first_moments, scatter, log_likelihood, log_max_resp, unreached)


def _finish(work: Callable[[], bool], n_threads: int) -> None:
    """Call ``work`` in several threads until it is done; each call says whether it is."""
    if n_threads == 1:
        work()
        return
    has_changed = threading.Event()

    def help_out() -> None:
        work()
        has_changed.set()

    with HELPERS.beside(help_out, n_threads - 1):
        while True:
            has_changed.clear()
            if work():
                return
            has_changed.wait()
