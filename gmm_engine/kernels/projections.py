"""Projections: a few directions in which components lie apart, and each component along them.

A squared distance along some directions, by the covariance along them, is never above the squared
distance by all features. Seen from the mean of all, a component is best told from others along
Σ_k⁻¹(μ_k − c): all components are projected on the span of those. Of K components that lie anyhow
it is nearly all that keeps them apart, at a cost of K numbers a row instead of D.

What rounding may do is made up for here: ``append_projection`` leaves constants and factors that
bound log p(x, k) from above as the passes compute it, but for ``slack`` times ``|units·(x − c)|²``.
"""

import numpy as np
from numba import njit, types
from numba.extending import register_jitable

from gmm_engine.kernels.compilation import FAST, compiled
from gmm_engine.kernels.factors import factor_in_place, invert
from gmm_engine.kernels.lanes import LANES, aligned, fma, load, multiply, spread, store
from gmm_engine.kernels.layout import READ, READ_TABLE, WRITTEN
from gmm_engine.kernels.tiled import add_scatter

LEAST_PROJECTED_FEATURES = 64
"""With fewer, bounds are seldom sharp and cost what they save."""
_EPS = float(np.finfo(float).eps)
_LEAST_NEW = 1e-6
"""What a direction has to have beside those before it, as a part of its length."""
_SHORTENING = 2.0**-9
"""By how much squared distances are made shorter: more than their own rounding."""
_MOST_STRETCHED = 2.0**-11
"""By how much squared distances may be too long before that: Cholesky's rounding."""
_LEAST_UNIT = 1e-140


@register_jitable
def count_directions(n_components: int, width: int) -> int:
    """Return how many directions a mixture is projected on, whole vectors; 0 for none.

    So few that their triangle is a quarter of that of the features, or less.
    """
    if width < LEAST_PROJECTED_FEATURES or n_components == 1:
        return 0
    most = width // 2 // LANES * LANES
    return min(-(-n_components // LANES) * LANES, most)


@register_jitable
def projection_size(n_components: int, width: int, n_directions: int) -> int:
    """Return how many numbers ``append_projection`` sets."""
    if n_directions == 0:
        return 0
    own = 1 + n_directions + n_directions**2
    return (n_directions + 2) * width + 1 + n_components * own


@njit(nogil=True, error_model="numpy", forceinline=True)
def places(begin, n_components, width, n_directions):
    """Return where the parts begin that ``append_projection`` sets behind ``begin``.

    P in panels of columns, with the centre c behind it; units (width,); slack; constants (K,);
    projected means (K, n_directions); and factors of the covariances along the directions.
    """
    units = begin + (n_directions + 1) * width
    slack = units + width
    constants = slack + 1
    means = constants + n_components
    factors = means + n_components * n_directions
    return units, slack, constants, means, factors


@njit(nogil=True, error_model="numpy", fastmath=set(FAST))
def _set_units(whitening, n_components, n_features, units):
    """Set units to the longest row of U_k for a feature: by them no covariance is below 1/D.

    Tells whether their squares are well within the range of a double.
    """
    D = n_features
    are_in_range = True
    for i in range(D):
        longest = 0.0
        for k in range(n_components):
            squares = 0.0
            for j in range(D):
                u = whitening[(k * D + i) * D + j]
                squares += u * u
            longest = max(longest, squares)
        units[i] = np.sqrt(longest)
        are_in_range &= _LEAST_UNIT < units[i] < 1.0 / _LEAST_UNIT
    return are_in_range


@njit(nogil=True, error_model="numpy", fastmath=set(FAST))
def _add_direction(whitening, k, n_features, away, white, units, target, directions):
    """Add to a row of ``directions`` that of Σ_k⁻¹(μ_k − c), in units."""
    D = n_features
    white[:] = 0.0
    for i in range(D):
        row = (k * D + i) * D
        for j in range(D):
            white[j] += away[i] * whitening[row + j]
    length = 0.0
    for j in range(D):
        length += white[j] * white[j]
    scale = 1.0 / np.sqrt(length)
    if not scale < np.inf:
        return
    for i in range(D):
        row = (k * D + i) * D
        total = 0.0
        for j in range(D):
            total += whitening[row + j] * white[j]
        directions[target, i] += scale * total / units[i]


@njit(nogil=True, error_model="numpy", fastmath=set(FAST))
def _orthonormalize(directions):
    """Make rows orthonormal; return how many are left, which come first."""
    n_found = 0
    n, D = directions.shape
    for k in range(n):
        before = 0.0
        for i in range(D):
            before += directions[k, i] * directions[k, i]
        for _ in range(2):  # once more for what rounding has left
            for found in range(n_found):
                along = 0.0
                for i in range(D):
                    along += directions[found, i] * directions[k, i]
                for i in range(D):
                    directions[k, i] -= along * directions[found, i]
        squares = 0.0
        for i in range(D):
            squares += directions[k, i] * directions[k, i]
        if not (squares > _LEAST_NEW * _LEAST_NEW * before and squares < np.inf):
            continue
        scale = 1.0 / np.sqrt(squares)
        for i in range(D):
            directions[n_found, i] = scale * directions[k, i]
        n_found += 1
    directions[n_found:] = 0.0
    return n_found


@njit(nogil=True, error_model="numpy", forceinline=True)
def _solve_two(whitening, base, n_features, width, first, second, solved):
    """Divide two vectors of columns by U from the left, or the same vector twice."""
    D = n_features
    for j in range(D - 1, -1, -1):
        inverse = spread(1.0 / whitening[base + j * D + j])
        row = j * width
        x = multiply(inverse, load(solved, row + first))
        y = multiply(inverse, load(solved, row + second))
        store(solved, row + first, x)
        store(solved, row + second, y)
        for i in range(j):
            u = spread(-whitening[base + i * D + j])
            row = i * width
            a = fma(u, x, load(solved, row + first))
            b = fma(u, y, load(solved, row + second))
            store(solved, row + first, a)
            store(solved, row + second, b)


@njit(nogil=True, error_model="numpy")
def _solve(whitening, base, n_features, width, solved):
    """Turn P (D × width) into X = U⁻¹P, so that XᵀX = PᵀΣP."""
    for first in range(0, width, 2 * LANES):
        second = first + LANES if first + LANES < width else first
        _solve_two(whitening, base, n_features, width, first, second, solved)


@njit(nogil=True, error_model="numpy", fastmath=set(FAST))
def _norm(matrix):
    total = 0.0
    for value in matrix:
        total += value * value
    return np.sqrt(total)


@njit(nogil=True, error_model="numpy")
def _factor_along(solved, n_found, width, gram, turned, inverse):
    """Set ``inverse`` to R⁻¹ with PᵀΣP = XᵀX = RᵀR; return |X||R⁻¹|, which amplifies rounding.

    That is infinity where there is no R.
    """
    gram[:] = 0.0
    add_scatter(solved, width, len(solved) // width, gram, 0)
    for i in range(n_found):
        for j in range(i):
            gram[j * width + i] = gram[i * width + j]
            gram[i * width + j] = 0.0
    if not factor_in_place(gram, n_found, width):
        return np.inf
    for i in range(n_found):
        for j in range(n_found):
            turned[j * width + i] = gram[i * width + j]
    inverse[:] = 0.0
    invert(gram, turned, n_found, width, inverse)
    return max(_norm(solved), 1.0) * _norm(inverse)


@njit(nogil=True, error_model="numpy")
def _find_directions(means, whitening, center, units, directions):
    """Set the first rows of ``directions`` to orthonormal ones in units; return how many."""
    K, D = means.shape
    away, white = np.empty(D), np.empty(D)
    directions[:] = 0.0
    for k in range(K):
        for i in range(D):
            away[i] = means[k, i] - center[i]
        _add_direction(whitening, k, D, away, white, units, k % len(directions), directions)
    return _orthonormalize(directions)


@njit(nogil=True, error_model="numpy")
def _lay_out_panels(matrix, n_rows, n_columns, width, scale, laid_out, begin):
    """Set panels of columns, each with room for ``width`` rows, to those of a flat matrix."""
    stride = len(matrix) // width
    for i in range(n_rows):
        for j in range(n_columns):
            place = begin + (j // LANES * width + i) * LANES + j % LANES
            laid_out[place] = scale * matrix[i * stride + j]


@njit(nogil=True, error_model="numpy")
def _project_mean(means, k, center, units, projection, n_directions, laid_out, place):
    """Add Pᵀ(μ − c); return |units·(μ − c)|²."""
    squares = 0.0
    for i in range(means.shape[1]):
        away = means[k, i] - center[i]
        squares += (units[i] * away) ** 2
        for j in range(n_directions):
            laid_out[place + j] += projection[i * n_directions + j] * away
    return squares


@compiled(
    types.void(READ, READ_TABLE, READ, READ, types.intp, types.intp, types.intp, WRITTEN),
)
def append_projection(
    weights, means, whitening, log_p_constants, width, n_directions, begin, laid_out
):
    """Set what is behind ``begin`` to the projection of a mixture, as ``places`` tells.

    The constant of a component whose factors amplify rounding too much is infinite.
    """
    K, D = means.shape
    r = n_directions
    laid_out[begin:] = 0.0
    units_at, slack_at, constants_at, means_at, factors_at = places(begin, K, width, r)
    center, units = laid_out[begin + r * width : units_at], laid_out[units_at:slack_at]
    for k in range(K):
        for i in range(D):
            center[i] += weights[k] * means[k, i]
    are_in_range = _set_units(whitening, K, D, units)
    directions = np.empty((r, D))
    n_found = _find_directions(means, whitening, center, units, directions)
    projection, solved = aligned(width * r), aligned(width * r)
    projection[:] = 0.0
    for i in range(D):
        for j in range(n_found):
            projection[i * r + j] = directions[j, i] * units[i]
    _lay_out_panels(projection, D, n_found, width, 1.0, laid_out, begin)
    gram, turned, inverse = aligned(r * r), aligned(r * r), aligned(r * r)
    turned[:] = 0.0
    squares = np.empty(K)
    most_amplified = 1.0
    for k in range(K):
        for place in range(len(projection)):
            solved[place] = projection[place]
        _solve(whitening, k * D * D, D, r, solved)
        amplification = _factor_along(solved, n_found, r, gram, turned, inverse)
        stretched = 4.0 * (D + 4) * _EPS * amplification * amplification
        is_bounded = are_in_range and stretched <= _MOST_STRETCHED
        laid_out[constants_at + k] = log_p_constants[k] if is_bounded else np.inf
        most_amplified = max(most_amplified, amplification if is_bounded else 0.0)
        squares[k] = _project_mean(
            means, k, center, units, projection, r, laid_out, means_at + k * r
        )
        scale = np.sqrt(1.0 - _SHORTENING)
        _lay_out_panels(inverse, n_found, n_found, r, scale, laid_out, factors_at + k * r * r)
    # |a| ≥ |b| − e makes |a|² ≥ (1 − t)|b|² − e²/t, with e ≤ ε(|units·(x − c)| + |units·(μ − c)|)
    error = 8.0 * (D + 4) * _EPS * np.sqrt(D) * most_amplified
    slack = error * error / (_SHORTENING / 4.0)
    laid_out[slack_at] = slack
    for k in range(K):
        laid_out[constants_at + k] += slack * squares[k]
