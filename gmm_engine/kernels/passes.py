"""The two compiled passes over rows: the E-step with its sums, and scoring.

A pass takes rows in blocks that stay in the first caches: it turns a block so that rows lie along
the lanes, computes log p(x, component) of all components, their log-sum-exp and the
responsibilities, and, in the E-step, adds the centred moments, before it reads the next block.
There are six ways to weigh a block, and each pass is compiled for one of them:

* dense covariances over at most ``MAX_UNROLLED_FEATURES``, one compiled pass a number of features;
* dense covariances over more features, one tiled pass for all;
* dense covariances over so many that a projection rules out most components: as before, but only
  what may count is weighed, its rows gathered from several blocks;
* one dense covariance common to all components over more features: as before, but rows are
  whitened once for all components;
* diagonal covariances over at most ``MAX_NARROW_FEATURES``, one pass for all;
* diagonal covariances over more features, one pass for all that sums up rows that count alone.
"""

from collections.abc import Callable
from enum import IntEnum, auto
from functools import cache

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from gmm_engine.kernels import centers, diagonal, likely, products, tiled, unrolled
from gmm_engine.kernels.blocks import BLOCK_ROWS, GATHERED_ROWS
from gmm_engine.kernels.compilation import FAST, compiled
from gmm_engine.kernels.exponentials import exponentiate, find_largest
from gmm_engine.kernels.lanes import (
    LANES,
    add,
    aligned,
    load,
    load_doubles,
    log_of_at_least_one,
    multiply,
    reciprocal,
    square_root,
    store,
    subtract,
    take_rows_apart,
    turn_tile,
    without_powers,
)
from gmm_engine.kernels.layout import LN_2
from gmm_engine.kernels.negligible import choose_rows_that_count, least_that_counts

MAX_UNROLLED_FEATURES = 9 if LANES == 4 else 12
"""With more, distances are found faster by tiles, and few pairs count."""
MAX_NARROW_FEATURES = 32
_MOST_LIKELY, _UNBOUNDED_BLOCKS = 0.5, 15
"""Where more than that part of a block is weighed in spite of bounds, so many go without."""
_CACHED_NUMBERS = 3072
"""Of a block that is read for one component after another: 24 KiB stay in the first cache."""
_LEAST_SCALED = 48
"""Rows whose products are added up at once: with fewer, sums are read more often than added to."""
_GATHERED_NUMBERS = 65536
"""Of rows that are gathered: half a MiB stays in the second cache."""

_KEPT_NUMBERS = max(products.KEPT_PRODUCTS, centers.MAX_SUMS * BLOCK_ROWS)
"""Of products of a block that are made once for all components."""
_ROWS_AT_ONCE = diagonal.ROWS_AT_ONCE
ALL_REACHED, UNSAFE = -1, -2
"""Returned by a scorer in the place of a row."""


class Way(IntEnum):
    """How a block is weighed, and its moments are summed.

    An integer, for passes are looked up by it: the hash of any other member is Python's to compute.
    """

    UNROLLED = auto()
    TILED = auto()
    GATHERED = auto()
    SHARED = auto()
    DIAGONAL = auto()
    WIDE_DIAGONAL = auto()


TILED_WAYS = frozenset({Way.TILED, Way.GATHERED, Way.SHARED})

# With their signatures given, passes are compiled when they are made and never by a call. What is
# read is declared read-only, which takes writable arrays as well.
#
# Rows are handed over twice, as doubles and as floats, of which one is empty: only where they are
# turned are they not the same, and all else is compiled once for both.
_ROWS = tuple(types.Array(dtype, 2, "C", readonly=True) for dtype in (types.float64, types.float32))
_ROWS_EITHER_WAY = tuple(types.Array(rows.dtype, 2, "A", readonly=True) for rows in _ROWS)
"""The numbers of a row stand side by side, or those of a column."""
_NO_DOUBLES, _NO_FLOATS = (np.empty((0, 0), dtype) for dtype in (np.float64, np.float32))
_READ = types.Array(types.float64, 1, "C", readonly=True)
_FLAT = types.float64[::1]
_TABLE = types.Array(types.float64, 2, "A")
EXPECTATION_SIGNATURE = types.Tuple((types.float64, types.float64, types.intp))(
    *_ROWS,
    _READ,
    _READ,
    types.float64,
    _READ,
    types.intp,
    _READ,
    types.intp,
    _FLAT,
    _FLAT,
    types.intp,
)
_SCORING_SIGNATURE = types.intp(
    *_ROWS_EITHER_WAY,
    types.float64,
    _READ,
    _READ,
    types.intp,
    _READ,
    types.intp,
    _TABLE,
    _TABLE,
    _FLAT,
    types.int64[::1],
)

ScoringPass = Callable[..., int]

_weigh_diagonal = diagonal.weigh
_weigh_whitened = diagonal.weigh_whitened
_project = tiled.project
_add_diagonal_moments = diagonal.add_moments
_add_moments_of_rows = diagonal.add_moments_of_rows
_weigh_unrolled = unrolled.weigh
_add_unrolled_moments = unrolled.add_moments
_exponentiate = exponentiate
_find_largest = find_largest
_weigh_tiled = tiled.weigh
_weigh_by_whitened_means = tiled.weigh_by_whitened_means
_add_unrolled_products = unrolled.add_products
_add_products = products.add_products
_center_place = centers.center_place
_subtract_center = centers.subtract_center
_room_for_sums = centers.room_for_sums
_move_to_means = centers.move_to_means
_weigh_likely = likely.weigh
_scale_deviations = tiled.scale_deviations
_add_scatter = tiled.add_scatter


@njit(inline="always")
def _turn_block(X, begin, n_rows, n_padded, columns, place):
    """Copy rows of a block to their columns from ``place`` on, in tiles as far as they go."""
    n_features = X.shape[1]
    row_stride, stride = X.strides[0] // X.itemsize, X.strides[1] // X.itemsize
    n_tiled = n_rows // LANES * LANES
    n_turned = n_features // LANES * LANES
    is_apart = row_stride == n_features < LANES
    n_tiled_features = n_features if is_apart or row_stride == 1 else n_turned
    if is_apart:
        n_tiles = n_tiled // LANES
        take_rows_apart(X, begin * n_features, n_tiles, columns, place, BLOCK_ROWS, n_features)
    for row in range(0, 0 if is_apart else n_tiled, LANES):
        source, target = (begin + row) * row_stride, place + row
        if row_stride == 1:
            for i in range(n_features):
                store(columns, target + i * BLOCK_ROWS, load_doubles(X, source + i * stride))
        else:
            for i in range(0, n_turned, LANES):
                tile = target + i * BLOCK_ROWS
                turn_tile(X, source + i, row_stride, columns, tile, BLOCK_ROWS)
    for i in range(n_features):
        column = place + i * BLOCK_ROWS
        for row in range(n_tiled if i < n_tiled_features else 0, n_rows):
            columns[column + row] = X[begin + row, i]
        for row in range(n_rows, n_padded):
            columns[column + row] = columns[column]


@njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _turn(X, begin, n_rows, n_padded, columns, width):
    """Copy blocks by feature, and fill up the last with a row of it.

    The copies are doubles whatever X is, so that float32 data needs no copy of its own.
    """
    for first in range(0, n_padded, BLOCK_ROWS):
        n_here = min(BLOCK_ROWS, n_rows - first)
        n_with_padding = min(BLOCK_ROWS, n_padded - first)
        place = first * width
        _turn_block(X, begin + first, n_here, n_with_padding, columns, place)


@njit(inline="always")
def _turn_either(doubles, floats, begin, n_rows, n_padded, columns, width):
    if len(doubles):
        _turn(doubles, begin, n_rows, n_padded, columns, width)
    else:
        _turn(floats, begin, n_rows, n_padded, columns, width)


@njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _keep(X, begin, n_rows, n_padded, center, rows, width):
    """Set rows to x − c, doubles whatever X is, and fill up the last block with a row of it."""
    n_features = X.shape[1]
    n_whole = n_features // LANES * LANES
    for row in range(n_rows):
        source, target = (begin + row) * n_features, row * width
        for i in range(0, n_whole, LANES):
            store(rows, target + i, subtract(load_doubles(X, source + i), load(center, i)))
        for i in range(n_whole, n_features):
            rows[target + i] = X[begin + row, i] - center[i]
    for row in range(n_rows, n_padded):
        for i in range(0, width, LANES):
            store(rows, row * width + i, load(rows, i))


@njit(inline="always")
def _keep_either(doubles, floats, begin, n_rows, n_padded, center, rows, width):
    if len(doubles):
        _keep(doubles, begin, n_rows, n_padded, center, rows, width)
    else:
        _keep(floats, begin, n_rows, n_padded, center, rows, width)


@njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _turn_kept(rows, n_padded, columns, width):
    """Copy blocks of rows that are kept by feature, their padding too."""
    for first in range(0, n_padded, BLOCK_ROWS):
        for row in range(first, min(first + BLOCK_ROWS, n_padded), LANES):
            for i in range(0, width, LANES):
                target = first * width + i * BLOCK_ROWS + row - first
                turn_tile(rows, row * width + i, width, columns, target, BLOCK_ROWS)


@njit(nogil=True, error_model="numpy", fastmath=set(FAST), forceinline=True)
def _add_first(sums, gammas, begin, end, component, width, moments):
    base = component * (1 + width)
    total = 0.0
    for place in range(begin, end):
        total += gammas[place]
    moments[base] += total
    for i in range(width):
        moments[base + 1 + i] += sums[i]


@njit(inline="always")
def _log_sum_exp(
    joint,
    n_components,
    n_padded,
    is_sparing,
    is_binary,
    negligible,
    least,
    largest,
    sums,
    most_rows,
):
    """Turn log p(x, k) into p(x, k) / exp(largest); set largest and sums by row.

    Binary, logarithms are those to base 2. Sparing, it takes what is below ``least_that_counts``
    as nothing.
    """
    _find_largest(joint, n_components, n_padded // LANES, largest, most_rows)
    if is_sparing:
        for row in range(n_padded):
            least[row] = least_that_counts(largest[row], negligible)
    _exponentiate(
        joint,
        n_components,
        n_padded // LANES,
        largest,
        sums,
        least,
        is_sparing,
        is_binary,
        most_rows,
    )


@njit(nogil=True, error_model="numpy", forceinline=True)
def _count(weight, begin, n_rows, n_padded, counts):
    """Set counts to the weights of a block's rows: nothing behind the last.

    Sums over rows read this copy and never a caller's array: where that happens to lie close
    before what a loop writes, the loop is run another way, and adds up in another order.
    """
    for row in range(n_rows):
        counts[row] = weight[begin + row]
    for row in range(n_rows, n_padded):
        counts[row] = 0.0


@njit(inline="always")
def _zeros(size):
    numbers = aligned(size)
    numbers[:] = 0.0
    return numbers


_TOPS, _PRODUCTS, _POWERS, _LOGS = (i * LANES for i in range(4))
"""Where a pass keeps, by lane: Σ largest; Π sums without powers of two; these; Σ log sums."""


@njit(inline="always")
def _no_rows():
    """Return what ``_take_up`` adds the rows of a block to."""
    taken_up = _zeros(4 * LANES)
    taken_up[_PRODUCTS:_POWERS] = 1.0
    return taken_up


@njit(nogil=True, error_model="numpy", fastmath=set(FAST), forceinline=True)
def _take_up_weighted(largest, sums, n_padded, counts, taken_up):
    """Set sums to counts / sums."""
    top = 0.0
    log_sums = 0.0
    for row in range(n_padded):
        top += counts[row] * largest[row]
        log_sums += counts[row] * log_of_at_least_one(sums[row])
        sums[row] = counts[row] / sums[row]
    taken_up[_TOPS] += top
    taken_up[_LOGS] += log_sums


@njit(nogil=True, error_model="numpy", fastmath=set(FAST), forceinline=True)
def _take_up_unweighted(largest, sums, n_rows, n_padded, taken_up):
    """Set sums to 1 / sums, and multiply them up before.

    So there is one logarithm a pass and not one a row. Of a block's product the power of two is
    taken out, lest the next one leaves the range of a double.
    """
    for row in range(n_rows, n_padded):
        largest[row] = 0.0
        sums[row] = 1.0
    for first in range(0, n_padded, BLOCK_ROWS):
        top, product = load(taken_up, _TOPS), load(taken_up, _PRODUCTS)
        for row in range(first, min(first + BLOCK_ROWS, n_padded), LANES):
            total = load(sums, row)
            top = add(top, load(largest, row))
            product = multiply(product, total)
            store(sums, row, reciprocal(total))
        store(taken_up, _TOPS, top)
        store(taken_up, _PRODUCTS, product)
        for lane in range(LANES):
            taken_up[_PRODUCTS + lane], n = without_powers(taken_up[_PRODUCTS + lane])
            taken_up[_POWERS + lane] += n
    for row in range(n_rows, n_padded):
        sums[row] = 0.0


@njit(inline="always")
def _take_up(is_weighted, counts, largest, sums, n_rows, n_padded, taken_up):
    """Add a block's rows to what is taken up, and set sums to what γ is p / exp(largest) times."""
    if is_weighted:
        _take_up_weighted(largest, sums, n_padded, counts, taken_up)
    else:
        _take_up_unweighted(largest, sums, n_rows, n_padded, taken_up)


@njit(nogil=True, error_model="numpy", fastmath=set(FAST), forceinline=True)
def _totals(taken_up):
    """Return Σ largest and Σ log sums, each row by its weight."""
    top = 0.0
    log_sums = 0.0
    for lane in range(LANES):
        top += taken_up[_TOPS + lane]
        log_sums += taken_up[_LOGS + lane]
        log_sums += LN_2 * taken_up[_POWERS + lane]
        log_sums += log_of_at_least_one(taken_up[_PRODUCTS + lane])
    return top, log_sums


@njit(nogil=True, error_model="numpy", forceinline=True)
def _label(joint, n_components, n_rows, largest, labels):
    """Set labels to the component with the largest log p(x, k), by row; the first of equals."""
    for row in range(n_rows):
        largest[row] = -np.inf
        labels[row] = 0
    for k in range(n_components):
        for row in range(n_rows):
            value = joint[k * BLOCK_ROWS + row]
            is_larger = value > largest[row]
            largest[row] = value if is_larger else largest[row]
            labels[row] = k if is_larger else labels[row]


@njit(nogil=True, error_model="numpy", fastmath=set(FAST), forceinline=True)
def _sum_of_squares(columns, width, n_rows):
    total = 0.0
    for i in range(width):
        for row in range(n_rows):
            value = columns[i * BLOCK_ROWS + row]
            total += value * value
    return total


@njit(nogil=True, error_model="numpy", forceinline=True)
def _turn_back(by_component, n_components, n_rows, begin, by_row):
    """Copy a block's numbers to their rows from ``begin`` on, whichever way these lie."""
    row_stride, stride = by_row.strides[0] // by_row.itemsize, by_row.strides[1] // by_row.itemsize
    n_tiled = n_rows // LANES * LANES
    n_tiled_components = n_components if row_stride == 1 else n_components // LANES * LANES
    for row in range(0, n_tiled, LANES):
        target = (begin + row) * row_stride
        if row_stride == 1:
            for k in range(n_components):
                store(by_row, target + k * stride, load(by_component, k * BLOCK_ROWS + row))
        else:
            for k in range(0, n_tiled_components, LANES):
                source = k * BLOCK_ROWS + row
                turn_tile(by_component, source, BLOCK_ROWS, by_row, target + k, row_stride)
    for row in range(n_rows):
        for k in range(n_tiled_components if row < n_tiled else 0, n_components):
            by_row[begin + row, k] = by_component[k * BLOCK_ROWS + row]


@njit(nogil=True, error_model="numpy", forceinline=True)
def _scale(by_row, begin, end, factor):
    for row in range(begin, end):
        for k in range(by_row.shape[1]):
            by_row[row, k] *= factor


@njit(nogil=True, error_model="numpy", forceinline=True)
def _first_unreached(largest, n_rows):
    """Return the first row that is beyond every component, or −1."""
    n_reached = 0
    for row in range(n_rows):  # a loop that may end early has no vectors
        n_reached += largest[row] > -np.inf
    if n_reached == n_rows:
        return -1
    row = 0
    while largest[row] > -np.inf:
        row += 1
    return row


@njit(inline="always")
def _weigh(
    is_unrolled,
    is_tiled,
    is_shared,
    D,
    columns,
    means,
    width,
    factors,
    factor_stride,
    constants,
    n_padded,
    deviations,
    whitened,
    joint,
    first,
    most_rows,
):
    """Set joint to log p(x, k) for a block, in the one way that the flags leave after pruning.

    Its rows are those from ``first`` on of the ``most_rows`` that joint has room for.
    """
    if is_shared:
        n_panels = width // LANES
        _project(columns, factors, 0, width, n_panels, True, n_padded, BLOCK_ROWS, whitened)
    for k in range(len(constants)):
        if is_unrolled:
            _weigh_unrolled(
                columns,
                means,
                k * width,
                factors,
                k * factor_stride,
                constants[k] / LN_2,
                joint,
                k * most_rows + first,
                n_padded // LANES,
                False,
                D,
                BLOCK_ROWS,
            )
        elif is_shared:
            _weigh_whitened(
                whitened,
                factors,
                (width + 1 + k) * width,
                width,
                constants[k],
                n_padded,
                BLOCK_ROWS,
                joint,
                k * most_rows + first,
            )
        elif is_tiled:
            _weigh_tiled(
                columns,
                means,
                k * width,
                factors,
                k * factor_stride,
                width,
                constants[k],
                n_padded,
                BLOCK_ROWS,
                deviations,
                joint,
                k * most_rows + first,
            )
        else:
            _weigh_diagonal(
                columns,
                means,
                factors,
                k * width,
                width,
                constants[k],
                n_padded,
                BLOCK_ROWS,
                joint,
                k * most_rows + first,
            )


@njit(inline="always")
def _add_moments(
    is_unrolled,
    is_tiled,
    is_wide,
    D,
    columns,
    rows,
    means,
    width,
    resp,
    scales,
    n_padded,
    chosen,
    gammas,
    roots,
    deviations,
    scaled,
    sums,
    moments,
    scatter,
    scatter_stride,
    n_components,
    most_rows,
    n_scaled,
):
    """Add a block's moments, in the one way that the flags leave after pruning.

    Responsibilities are ``resp``; the unrolled way has yet to multiply them by the ``scales``. The
    tiled way multiplies ``n_scaled`` rows at once.
    """
    for k in range(n_components):
        if is_unrolled:
            _add_unrolled_moments(
                columns,
                resp,
                k * most_rows,
                scales,
                means,
                k * width,
                moments,
                k * (1 + width) * LANES,
                scatter,
                k * scatter_stride,
                n_padded // LANES,
                deviations,
                D,
                BLOCK_ROWS,
            )
        elif is_tiled:
            count = choose_rows_that_count(resp, k * most_rows, n_padded, chosen, gammas)
            for row in range(0, count, LANES):
                store(roots, row, square_root(load(gammas, row)))
            for begin in range(0, count, n_scaled):
                end = min(begin + n_scaled, count)
                _scale_deviations(
                    rows,
                    means,
                    k * width,
                    chosen,
                    roots,
                    begin,
                    width,
                    end - begin,
                    scaled,
                    sums,
                )
                _add_first(sums, gammas, begin, end, k, width, moments)
                _add_scatter(scaled, width, end - begin, scatter, k * scatter_stride)
        elif is_wide:
            count = choose_rows_that_count(resp, k * most_rows, n_padded, chosen, gammas)
            if count:
                _add_moments_of_rows(
                    rows,
                    means,
                    k * width,
                    chosen,
                    gammas,
                    width,
                    count,
                    sums,
                    scatter,
                    k * scatter_stride,
                )
                _add_first(sums, gammas, 0, count, k, width, moments)
        else:
            _add_diagonal_moments(
                columns,
                resp,
                k * most_rows,
                means,
                k * width,
                width,
                moments,
                k * (1 + width) * LANES,
                scatter,
                k * scatter_stride,
                n_padded,
                BLOCK_ROWS,
            )


# Each pass is written once and compiled for a way of weighing; what is not that way is pruned.


def _flags(way: Way) -> tuple[bool, bool, bool]:
    """Return whether loops are unrolled, sums tiled and rows whitened for all components."""
    return way is Way.UNROLLED, way in TILED_WAYS, way is Way.SHARED


def _may_share_center(way: Way, D: int) -> bool:
    """Return whether a pass has a way of its own for components that are all near one centre."""
    return way is Way.TILED or (way is Way.UNROLLED and D <= centers.MAX_FEATURES)


def _unit(way: Way) -> float:
    """Return what logarithms are weighed in: few features take those to base 2, which cost less."""
    return LN_2 if way is Way.UNROLLED else 1.0


@njit(inline="always")
def _n_rows_at_once(width):
    """Return how many rows of many features are a block."""
    return max(
        _ROWS_AT_ONCE, min(BLOCK_ROWS, _CACHED_NUMBERS // width // _ROWS_AT_ONCE * _ROWS_AT_ONCE)
    )


@njit(inline="always")
def _n_rows_gathered(width):
    """Return of how many rows those that count are gathered, whole blocks."""
    n_blocks = _GATHERED_NUMBERS // (width * BLOCK_ROWS)
    return max(1, min(GATHERED_ROWS // BLOCK_ROWS, n_blocks)) * BLOCK_ROWS


def _name(way: Way, D: int) -> str:
    return f"{way.name.lower()}_{D}"


# What is called from the loop over blocks counts references to all arrays that it is given, once a
# block, and with few features that shows: so passes are long.


@cache
def expectation_pass(way: Way, D: int):  # noqa: PLR0915 - as told above
    """Return the compiled E-step.

    It adds to ``moments`` (K, 1 + width, lanes) and ``scatter``, both flat, and returns Σ log p(x),
    Σ log max γ and the first row out of reach of every component, or −1.
    """
    is_unrolled, is_tiled, is_shared = _flags(way)
    is_wide = way is Way.WIDE_DIAGONAL
    is_sparing = is_tiled or is_wide
    is_gathered, unit = way is Way.GATHERED, _unit(way)
    may_share_center = _may_share_center(way, D)
    most_rows = GATHERED_ROWS if is_gathered else BLOCK_ROWS

    @compiled(EXPECTATION_SIGNATURE, fastmath=FAST, name=_name(way, D))
    def expectation(  # noqa: PLR0912, PLR0915 - as told above
        doubles,
        floats,
        weight,
        constants,
        negligible,
        means,
        width,
        factors,
        factor_stride,
        moments,
        scatter,
        scatter_stride,
    ):
        n_components, n_all = len(constants), len(doubles) + len(floats)
        n_at_once = (
            _n_rows_gathered(width)
            if is_gathered
            else _n_rows_at_once(width)
            if is_wide
            else BLOCK_ROWS
        )
        n_numbers = width * max(n_at_once, BLOCK_ROWS)
        columns, rows = _zeros(n_numbers), _zeros(n_numbers)  # padding stays so
        deviations, scaled = aligned(width * BLOCK_ROWS), aligned(n_numbers)
        first = aligned(width)
        gammas, roots = aligned(most_rows + LANES), aligned(most_rows + LANES)
        chosen = np.empty(most_rows + LANES, dtype=np.int64)
        joint = aligned(n_components * most_rows)
        bounds = aligned(n_components * most_rows if is_gathered else 0)
        least, largest = aligned(most_rows), aligned(most_rows)
        sums, counts = aligned(most_rows), aligned(most_rows)
        taken_up = _no_rows()
        center_at = (
            _center_place(factors, is_unrolled, n_components, factor_stride, width)
            if may_share_center
            else -1
        )
        center = _zeros(width)
        if center_at >= 0:
            center[:] = factors[center_at : center_at + width]
        totals = _room_for_sums(is_unrolled, center_at, n_components, width)
        kept = aligned(_KEPT_NUMBERS if center_at >= 0 else 0)
        n_unbounded = 0
        n_scaled = max(_LEAST_SCALED, _CACHED_NUMBERS // width // LANES * LANES)
        n_a_block = n_at_once if is_wide else BLOCK_ROWS
        for begin in range(0, n_all, n_at_once):
            n_rows = min(n_at_once, n_all - begin)
            n_padded = -(-n_rows // BLOCK_ROWS) * BLOCK_ROWS if is_gathered else n_at_once
            if is_sparing:
                _keep_either(doubles, floats, begin, n_rows, n_padded, center, rows, width)
                _turn_kept(rows, n_padded, columns, width)
            else:
                _turn_either(doubles, floats, begin, n_rows, n_padded, columns, width)
            if may_share_center and center_at >= 0:
                if is_unrolled:
                    _subtract_center(columns, center, width)
                for k in range(n_components):
                    whitened_mean_at = center_at + (1 + k) * width + 1
                    if is_unrolled:
                        _weigh_unrolled(
                            columns,
                            factors,
                            whitened_mean_at,
                            factors,
                            k * factor_stride,
                            constants[k] / LN_2,
                            joint,
                            k * BLOCK_ROWS,
                            BLOCK_ROWS // LANES,
                            True,
                            D,
                            BLOCK_ROWS,
                        )
                    else:
                        _weigh_by_whitened_means(
                            columns,
                            factors,
                            whitened_mean_at,
                            factors,
                            k * factor_stride,
                            width,
                            constants[k],
                            BLOCK_ROWS,
                            BLOCK_ROWS,
                            deviations,
                            joint,
                            k * BLOCK_ROWS,
                        )
            elif is_gathered and n_unbounded == 0:
                share = _weigh_likely(
                    columns,
                    rows,
                    means,
                    factors,
                    factor_stride,
                    width,
                    constants,
                    negligible,
                    n_padded,
                    deviations,
                    scaled,
                    bounds,
                    least,
                    counts,
                    largest,
                    sums,
                    chosen,
                    gammas,
                    joint,
                )
                n_unbounded = _UNBOUNDED_BLOCKS if share > _MOST_LIKELY else 0
            else:
                n_unbounded = max(n_unbounded - 1, 0)
                for place in range(0, n_padded, n_a_block):
                    _weigh(
                        is_unrolled,
                        is_tiled,
                        is_shared,
                        D,
                        columns[place * width :],
                        means,
                        width,
                        factors,
                        factor_stride,
                        constants,
                        n_a_block,
                        deviations,
                        scaled,
                        joint,
                        place,
                        most_rows,
                    )
            _log_sum_exp(
                joint,
                n_components,
                n_padded,
                is_sparing,
                is_unrolled,
                negligible,
                least,
                largest,
                sums,
                most_rows,
            )
            unreached = _first_unreached(largest, n_rows)
            if unreached >= 0:
                return 0.0, 0.0, begin + unreached
            if len(weight):
                _count(weight, begin, n_rows, n_padded, counts)
            _take_up(len(weight) > 0, counts, largest, sums, n_rows, n_padded, taken_up)
            for k in range(0 if is_unrolled else n_components):
                for row in range(n_padded):
                    joint[k * most_rows + row] *= sums[row]
            if may_share_center and center_at >= 0:
                if is_unrolled:
                    _add_unrolled_products(
                        columns,
                        joint,
                        sums,
                        n_components,
                        BLOCK_ROWS // LANES,
                        kept,
                        totals,
                        D,
                        BLOCK_ROWS,
                    )
                else:
                    _add_products(rows, joint, n_components, BLOCK_ROWS, kept, totals)
            else:
                _add_moments(
                    is_unrolled,
                    is_tiled,
                    is_wide,
                    D,
                    columns,
                    rows,
                    means,
                    width,
                    joint,
                    sums,
                    n_padded,
                    chosen,
                    gammas,
                    roots,
                    deviations,
                    scaled,
                    first,
                    moments,
                    scatter,
                    scatter_stride,
                    n_components,
                    most_rows,
                    n_scaled,
                )
        if may_share_center and center_at >= 0:
            _move_to_means(
                is_unrolled,
                totals,
                factors,
                center_at,
                means,
                n_components,
                width,
                moments,
                scatter,
                scatter_stride,
            )
        top, log_sums = _totals(taken_up)
        return unit * top + log_sums, -log_sums, -1

    return expectation


@cache
def scoring_pass(way: Way, D: int):
    """Return the compiled scorer.

    It fills those of ``joint_out`` (n, K) with log p(x, k), ``resp_out`` (n, K), ``scores`` (n,)
    with log p(x) and ``labels`` (n,) that are not empty, and returns the first row out of reach
    of every component, or −1. At a block whose squares don't sum up to less than ``safe_sum`` it
    stops with ``UNSAFE``, unless that is zero.
    """
    is_unrolled, is_tiled, is_shared = _flags(way)
    is_diagonal = way is Way.DIAGONAL
    unit = _unit(way)

    @compiled(_SCORING_SIGNATURE, fastmath=FAST, name=_name(way, D))
    def scoring(
        doubles,
        floats,
        safe_sum,
        constants,
        means,
        width,
        factors,
        factor_stride,
        joint_out,
        resp_out,
        scores,
        labels,
    ):
        n_components, n_all = len(constants), len(doubles) + len(floats)
        columns = _zeros(width * BLOCK_ROWS)  # padding stays so
        deviations = aligned(width * BLOCK_ROWS)
        whitened = aligned(width * BLOCK_ROWS if is_shared else 0)
        joint = aligned(n_components * BLOCK_ROWS)
        largest = aligned(BLOCK_ROWS)
        sums = aligned(BLOCK_ROWS)
        n_at_once = _n_rows_at_once(width) if is_diagonal else BLOCK_ROWS
        for begin in range(0, n_all, n_at_once):
            n_rows = min(n_at_once, n_all - begin)
            n_padded = -(-n_rows // LANES) * LANES
            _turn_either(doubles, floats, begin, n_rows, n_padded, columns, width)
            if safe_sum > 0.0 and not _sum_of_squares(columns, width, n_rows) < safe_sum:
                return UNSAFE
            _weigh(
                is_unrolled,
                is_tiled,
                is_shared,
                D,
                columns,
                means,
                width,
                factors,
                factor_stride,
                constants,
                n_padded,
                deviations,
                whitened,
                joint,
                0,
                BLOCK_ROWS,
            )
            if len(joint_out):
                _turn_back(joint, n_components, n_rows, begin, joint_out)
                if unit != 1.0:
                    _scale(joint_out, begin, begin + n_rows, unit)
            if len(labels):
                _label(joint, n_components, n_rows, largest, labels[begin:])
            _log_sum_exp(
                joint,
                n_components,
                n_padded,
                False,
                is_unrolled,
                0.0,
                sums,
                largest,
                sums,
                BLOCK_ROWS,
            )
            unreached = _first_unreached(largest, n_rows)
            if unreached >= 0 and len(joint_out) == 0:
                return begin + unreached
            for row in range(n_rows if len(scores) else 0):
                scores[begin + row] = unit * largest[row] + log_of_at_least_one(sums[row])
            if len(resp_out):
                for row in range(n_padded):
                    sums[row] = 1.0 / sums[row]
                for k in range(n_components):
                    for row in range(n_padded):
                        joint[k * BLOCK_ROWS + row] *= sums[row]
                _turn_back(joint, n_components, n_rows, begin, resp_out)
        return ALL_REACHED

    return scoring


@cache
def scorer(way: Way, D: int) -> ScoringPass:
    """Return the scorer as C calls it.

    It looks nothing up by the types of what it is given, so it must be given just those.
    """
    compiled_pass = scoring_pass(way, D).get_compile_result(_SCORING_SIGNATURE)
    entry_point: ScoringPass = compiled_pass.entry_point
    return entry_point


def as_either_type(X: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return rows as passes take them: as doubles and as floats, of which one is empty."""
    return (X, _NO_FLOATS) if X.dtype.char == "d" else (_NO_DOUBLES, X)  # type: ignore[return-value]  # mypy does not narrow by dtype.char
