"""Components weighed and summed up about one centre, where that is exact enough.

About a centre that all components share, a row's deviations and their products are the same for
all: they are made once, and a component's own mean is a number that whitened deviations start
from. What is left of the moments is a matrix product, responsibilities times products. Moved to a
component's mean, they lose the square of what it lies away from the centre in standard deviations;
so this is done where all means are near, and for those numbers of features that it pays for.
"""

import numpy as np
from numba import njit
from numba.extending import register_jitable

from gmm_engine.kernels.blocks import BLOCK_ROWS
from gmm_engine.kernels.lanes import LANES, aligned, load, spread_at, store, subtract
from gmm_engine.kernels.products import N_PRODUCTS, PANELS_WIDTH, product_place
from gmm_engine.kernels.unrolled import triangle_index

MAX_FEATURES = 5 if LANES == 8 else 3
"""Of unrolled ways: all their sums fit the registers."""
MAX_SUMS = (MAX_FEATURES + 1) * (MAX_FEATURES + 2) // 2
LEAST_COMPONENTS = 4
"""With fewer, what is made once for all is not used often enough."""
NEAR = 32.0
"""In standard deviations of a component: 2**-42 of a variance is lost at the most."""

_triangle_index = register_jitable(triangle_index)


@register_jitable
def appended_size(is_unrolled: bool, n_components: int, width: int) -> int:
    """Return how many numbers ``append_center`` sets behind matrices of so many features."""
    is_possible = width <= MAX_FEATURES if is_unrolled else width == PANELS_WIDTH
    return (1 + n_components) * width + 1 if is_possible else 0


@njit(nogil=True, error_model="numpy")
def append_center(weights, means, whitening, scale, width, factors):
    """Set the end of factors to the mean of all, whether all means are near it, and Uᵀ(μ − c).

    The last are multiplied by ``scale``, as the factors before them.
    """
    K, D = means.shape
    begin = len(factors) - (1 + K) * width - 1
    for place in range(begin, len(factors)):
        factors[place] = 0.0
    for k in range(K):
        for i in range(D):
            factors[begin + i] += weights[k] * means[k, i]
    are_near = K >= LEAST_COMPONENTS
    for k in range(K):
        for j in range(D):
            along, at_most = 0.0, 0.0
            for i in range(j + 1):
                part = whitening[(k * D + i) * D + j] * (means[k, i] - factors[begin + i])
                along += part
                at_most += abs(part)
            are_near &= at_most < NEAR
            factors[begin + width + 1 + k * width + j] = scale * along
    factors[begin + width] = 1.0 if are_near else 0.0


@njit(nogil=True, error_model="numpy", forceinline=True)
def center_place(factors, is_unrolled, n_components, factor_stride, width):
    """Return where the centre is in factors; −1 if a mean is not near it, or there is none."""
    place = n_components * factor_stride
    if factor_stride == 0 or appended_size(is_unrolled, n_components, width) == 0:
        return -1
    return place if factors[place + width] > 0.0 else -1


@njit(inline="always")
def subtract_center(columns, center, width):
    """Subtract the centre from the columns of a block."""
    for i in range(width):
        away = spread_at(center, i)
        for place in range(i * BLOCK_ROWS, (i + 1) * BLOCK_ROWS, LANES):
            store(columns, place, subtract(load(columns, place), away))


@njit(nogil=True, error_model="numpy", forceinline=True)
def _add_about_mean(total, first, second, away, moments, moments_at, scatter, scatter_at, lanes):
    """Add sums that were taken about a point from which the mean is ``away``.

    The scatter is packed where sums are kept by lane, of which the first takes them.
    """
    D = len(first)
    moments[moments_at] += total
    for i in range(D):
        about_mean = first[i] - total * away[i]
        moments[moments_at + (1 + i) * lanes] += about_mean
        for j in range(i + 1):
            place = _triangle_index(i, j) * lanes if lanes > 1 else i * D + j
            scatter[scatter_at + place] += second[i, j] - about_mean * away[j] - away[i] * first[j]


@njit(nogil=True, error_model="numpy", forceinline=True)
def move_to_means(
    is_unrolled, totals, factors, center_at, means, n_components, width, moments, scatter, stride
):
    """Add to moments and scatter the sums about each component's mean."""
    n_numbers = len(totals) // n_components
    lanes = LANES if is_unrolled else 1
    first, away, second = np.empty(width), np.empty(width), np.empty((width, width))
    in_panels = np.empty((width, width), dtype=np.int64)
    for i in range(width):
        for j in range(i + 1):
            in_panels[i, j] = LANES + product_place(i, j)
    for k in range(n_components):
        base = k * n_numbers
        total = 0.0
        for lane in range(LANES):
            total += totals[base + lane]
        for i in range(width):
            away[i] = means[k * width + i] - factors[center_at + i]
            first[i] = _sum_of(totals, base, is_unrolled, 1 + i, LANES + i)
            for j in range(i + 1):
                in_triangle = 1 + width + _triangle_index(i, j)
                second[i, j] = _sum_of(totals, base, is_unrolled, in_triangle, in_panels[i, j])
        at = k * (1 + width) * lanes
        _add_about_mean(total, first, second, away, moments, at, scatter, k * stride, lanes)


@njit(nogil=True, error_model="numpy", forceinline=True)
def _sum_of(totals, base, is_unrolled, vector, place):
    """Return a number that is summed up by lane, in a vector, or at its own place."""
    if not is_unrolled:
        return totals[base + place]
    total = 0.0
    for lane in range(LANES):
        total += totals[base + vector * LANES + lane]
    return total


@njit(inline="always")
def room_for_sums(is_unrolled, center_at, n_components, width):
    """Return zeros for the sums of all components; nothing where there is no centre."""
    in_triangle = (1 + width + width * (width + 1) // 2) * LANES
    n_numbers = in_triangle if is_unrolled else LANES + N_PRODUCTS
    totals = aligned(n_components * n_numbers if center_at >= 0 else 0)
    totals[:] = 0.0
    return totals
