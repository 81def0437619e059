"""Weighing many features: components that a projection rules out are not weighed.

Along a few directions in which components lie apart, a squared distance is cheap, and no larger
than by all features: it bounds log p(x, k) from above. Where the bound is below what counts beside
another component, −∞ stays in the place of the number: both are taken as nothing. Rows of the
others are gathered and weighed whole, with the same operations as without bounds, so that no bit
depends on what was bounded.
"""

import math

from numba import njit

from gmm_engine.kernels import tiled
from gmm_engine.kernels.blocks import BLOCK_ROWS, GATHERED_ROWS
from gmm_engine.kernels.exponentials import find_largest
from gmm_engine.kernels.lanes import LANES
from gmm_engine.kernels.negligible import choose_rows_that_count, least_that_counts
from gmm_engine.kernels.projections import count_directions, places

_find_largest = find_largest
_weigh_tiled = tiled.weigh
_project = tiled.project


@njit(nogil=True, error_model="numpy", forceinline=True)
def _gather(rows, width, chosen, first, n_rows, packed):
    for place in range(n_rows):
        begin = chosen[first + place] * width
        for i in range(width):
            packed[i * BLOCK_ROWS + place] = rows[begin + i]


@njit(nogil=True, error_model="numpy")
def _add_squares(columns, width, center_at, units_at, laid_out, squares, squares_at):
    """Set squares to |units·(x − c)|² of the rows of a block."""
    for row in range(BLOCK_ROWS):
        squares[squares_at + row] = 0.0
    for i in range(width):
        center, unit = laid_out[center_at + i], laid_out[units_at + i]
        for row in range(BLOCK_ROWS):
            away = unit * (columns[i * BLOCK_ROWS + row] - center)
            squares[squares_at + row] += away * away


@njit(nogil=True, error_model="numpy")
def bound(
    columns,
    width,
    n_rows,
    laid_out,
    begin,
    n_components,
    n_directions,
    deviations,
    projected,
    slack,
    bounds,
):
    """Set bounds to what log p(x, k) is not above but for ``slack``, by row."""
    units_at, slack_at, constants_at, means_at, factors_at = places(
        begin, n_components, width, n_directions
    )
    center_at = begin + n_directions * width
    for first in range(0, n_rows, BLOCK_ROWS):
        block = columns[first * width : (first + BLOCK_ROWS) * width]
        _project(
            block,
            laid_out,
            begin,
            width,
            n_directions // LANES,
            False,
            BLOCK_ROWS,
            BLOCK_ROWS,
            projected,
        )
        _add_squares(block, width, center_at, units_at, laid_out, slack, first)
        for k in range(n_components):
            _weigh_tiled(
                projected,
                laid_out,
                means_at + k * n_directions,
                laid_out,
                factors_at + k * n_directions**2,
                n_directions,
                laid_out[constants_at + k],
                BLOCK_ROWS,
                BLOCK_ROWS,
                deviations,
                bounds,
                k * GATHERED_ROWS + first,
            )
    for row in range(n_rows):
        slack[row] *= laid_out[slack_at]


@njit(nogil=True, error_model="numpy")
def _weigh_what_may_count(
    rows,
    means,
    factors,
    factor_stride,
    width,
    constants,
    n_rows,
    bounds,
    least,
    slack,
    deviations,
    packed,
    marks,
    chosen,
    weighed,
    joint,
):
    """Set joint where it is not yet and the bound is not below ``least``; return for how many."""
    total = 0
    for k in range(len(constants)):
        begin = k * GATHERED_ROWS
        for row in range(n_rows):
            is_ruled_out = bounds[begin + row] + slack[row] < least[row]
            may_count = not is_ruled_out and joint[begin + row] == -math.inf
            marks[row] = 1.0 if may_count else 0.0
        count = choose_rows_that_count(marks, 0, n_rows, chosen, weighed)
        total += count
        for place in range(count, count + LANES if count else 0):
            chosen[place] = chosen[0]
        for first in range(0, count, BLOCK_ROWS):
            n_weighed = min(BLOCK_ROWS, -(-(count - first) // LANES) * LANES)
            _gather(rows, width, chosen, first, n_weighed, packed)
            _weigh_tiled(
                packed,
                means,
                k * width,
                factors,
                k * factor_stride,
                width,
                constants[k],
                n_weighed,
                BLOCK_ROWS,
                deviations,
                weighed,
                0,
            )
            for place in range(min(BLOCK_ROWS, count - first)):
                joint[begin + chosen[first + place]] = weighed[place]
    return total


@njit(nogil=True, error_model="numpy")
def weigh(
    columns,
    rows,
    means,
    factors,
    factor_stride,
    width,
    constants,
    negligible,
    n_rows,
    deviations,
    packed,
    bounds,
    least,
    slack,
    largest,
    marks,
    chosen,
    weighed,
    joint,
):
    """Set joint to log p(x, k) of blocks where it counts, and to −∞ elsewhere.

    Returns the part of the numbers that was weighed whole. What may count is guessed first from the
    bounds alone, and made certain by what comes out.
    """
    n_components = len(constants)
    begin = n_components * factor_stride
    n_directions = count_directions(n_components, width)
    bound(
        columns,
        width,
        n_rows,
        factors,
        begin,
        n_components,
        n_directions,
        deviations,
        packed,
        slack,
        bounds,
    )
    for k in range(n_components):
        for row in range(n_rows):
            joint[k * GATHERED_ROWS + row] = -math.inf
    n_vectors = n_rows // LANES
    _find_largest(bounds, n_components, n_vectors, largest, GATHERED_ROWS)
    rest = 0.5 * (width - n_directions)  # what other directions take from the right component
    for row in range(n_rows):
        expected = largest[row] - rest - 2.0 * math.sqrt(rest)
        least[row] = least_that_counts(expected, negligible)
    total = 0
    for _ in range(2):
        total += _weigh_what_may_count(
            rows,
            means,
            factors,
            factor_stride,
            width,
            constants,
            n_rows,
            bounds,
            least,
            slack,
            deviations,
            packed,
            marks,
            chosen,
            weighed,
            joint,
        )
        _find_largest(joint, n_components, n_vectors, largest, GATHERED_ROWS)
        for row in range(n_rows):
            least[row] = least_that_counts(largest[row], negligible)
    return total / (n_components * n_rows)
