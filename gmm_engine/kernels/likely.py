"""Weighing many features: components that the first of them rule out are not weighed to the end.

A squared distance only grows with every column of the whitening, so the first panels of columns
bound log p(x, k) from above, at a fraction of the products: of a triangle half the columns are a
quarter. Where the bound is below what counts beside another component, it stays in the place of
the number: both are taken as nothing. Rows of the others are gathered and weighed whole, with the
same operations as without bounds, so that no bit depends on what was bounded.
"""

import math

from numba import njit

from gmm_engine.kernels import tiled
from gmm_engine.kernels.blocks import BLOCK_ROWS
from gmm_engine.kernels.exponentials import find_largest
from gmm_engine.kernels.lanes import LANES
from gmm_engine.kernels.negligible import choose_rows_that_count, least_that_counts

_MOST_GATHERED = 0.6
"""Of a block's rows: when more of them may count for a component, all are weighed."""
_BOUNDING = 5, 8
"""The part of the panels that bounds are made of; fewer are often not sharp at 64 features."""
_ROUNDING = 1e-9
"""More than a bound may be wrong by, as a part of the largest log p(x, k)."""

_find_largest = find_largest
_weigh_tiled = tiled.weigh


@njit(nogil=True, error_model="numpy")
def _weigh_panels(
    columns,
    means,
    factors,
    factor_stride,
    width,
    k,
    n_panels,
    constant,
    n_rows,
    deviations,
    out,
    out_offset,
):
    _weigh_tiled(
        columns,
        means,
        k * width,
        factors,
        k * factor_stride,
        width,
        n_panels,
        constant,
        n_rows,
        BLOCK_ROWS,
        deviations,
        out,
        out_offset,
    )


@njit(nogil=True, error_model="numpy", forceinline=True)
def _gather(columns, width, chosen, n_rows, packed):
    for i in range(width):
        for place in range(n_rows):
            packed[i * BLOCK_ROWS + place] = columns[i * BLOCK_ROWS + chosen[place]]


@njit(nogil=True, error_model="numpy")
def _weigh_what_may_count(
    columns,
    means,
    factors,
    factor_stride,
    width,
    constants,
    bounds,
    least,
    deviations,
    packed,
    marks,
    chosen,
    weighed,
    joint,
):
    """Set joint where it is not yet and the bound is not below ``least``; return for how many."""
    n_panels = width // LANES
    total = 0
    for k in range(len(constants)):
        begin = k * BLOCK_ROWS
        for row in range(BLOCK_ROWS):
            may_count = bounds[begin + row] >= least[row] and joint[begin + row] == -math.inf
            marks[row] = 1.0 if may_count else 0.0
        count = choose_rows_that_count(marks, 0, BLOCK_ROWS, chosen, weighed)
        if count == 0:
            continue
        total += count
        if count > _MOST_GATHERED * BLOCK_ROWS:
            _weigh_panels(
                columns,
                means,
                factors,
                factor_stride,
                width,
                k,
                n_panels,
                constants[k],
                BLOCK_ROWS,
                deviations,
                joint,
                begin,
            )
            continue
        n_padded = -(-count // LANES) * LANES
        for place in range(count, n_padded):
            chosen[place] = chosen[0]
        _gather(columns, width, chosen, n_padded, packed)
        _weigh_panels(
            packed,
            means,
            factors,
            factor_stride,
            width,
            k,
            n_panels,
            constants[k],
            n_padded,
            deviations,
            weighed,
            0,
        )
        for place in range(count):
            joint[begin + chosen[place]] = weighed[place]
    return total


@njit(nogil=True, error_model="numpy")
def weigh(
    columns,
    means,
    factors,
    factor_stride,
    width,
    constants,
    negligible,
    deviations,
    packed,
    bounds,
    least,
    largest,
    marks,
    chosen,
    weighed,
    joint,
):
    """Set joint to log p(x, k) of a block where it counts, and to −∞ elsewhere.

    Returns the part of the block that was weighed whole. What may count is guessed first from the
    bounds alone, and made certain by what comes out.
    """
    n_components = len(constants)
    n_bounding = -(-_BOUNDING[0] * (width // LANES) // _BOUNDING[1])
    for k in range(n_components):
        _weigh_panels(
            columns,
            means,
            factors,
            factor_stride,
            width,
            k,
            n_bounding,
            constants[k],
            BLOCK_ROWS,
            deviations,
            bounds,
            k * BLOCK_ROWS,
        )
    for place in range(n_components * BLOCK_ROWS):
        joint[place] = -math.inf
    n_vectors = BLOCK_ROWS // LANES
    _find_largest(bounds, n_components, n_vectors, largest, BLOCK_ROWS)
    rest = 0.5 * (width - n_bounding * LANES)  # what other columns take from the right component
    for row in range(BLOCK_ROWS):
        expected = largest[row] - rest - 2.0 * math.sqrt(rest)
        least[row] = least_that_counts(expected, negligible)
    total = 0
    for _ in range(2):
        total += _weigh_what_may_count(
            columns,
            means,
            factors,
            factor_stride,
            width,
            constants,
            bounds,
            least,
            deviations,
            packed,
            marks,
            chosen,
            weighed,
            joint,
        )
        _find_largest(joint, n_components, n_vectors, largest, BLOCK_ROWS)
        for row in range(BLOCK_ROWS):
            surely = least_that_counts(largest[row], negligible)
            least[row] = surely - _ROUNDING * abs(largest[row])
    return total / (n_components * BLOCK_ROWS)
