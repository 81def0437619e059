"""Where the passes find and leave their numbers, compiled: laying out factors, taking up sums.

``prepared`` says which layout a mixture has; here its numbers are moved. Once a step, for a few
components, the calls into NumPy would take longer than the work in them.
"""

import numpy as np
from numba import njit, types

from gmm_engine.kernels.centers import append_center, appended_size
from gmm_engine.kernels.compilation import compiled

READ = types.Array(types.float64, 1, "C", readonly=True)
WRITTEN = types.float64[::1]
READ_TABLE = types.Array(types.float64, 2, "C", readonly=True)
WRITTEN_TABLE = types.float64[:, ::1]

NEGLIGIBLE_DENSITY = -42.0
"""log of a component's density at a row, relative to the mixture's, below which it is absent."""
LN_2 = float(np.log(2.0))
_BINARY_SCALE = float(np.sqrt(0.5 / LN_2))
_LOG_2_PI = float(np.log(2.0 * np.pi))


@njit(nogil=True, error_model="numpy")
def _lay_out_dense(is_unrolled, whitening, n_features, width, lanes, factors):
    """Set factors to matrices column by column, or in panels of columns: panel, row, column.

    Column by column they are such that the squares they give are taken from a binary logarithm.
    """
    place = 0
    for matrix in range(len(whitening) // n_features**2):
        base = matrix * n_features**2
        if is_unrolled:
            for column in range(n_features):
                for row in range(column + 1):
                    factors[place] = _BINARY_SCALE * whitening[base + row * n_features + column]
                    place += 1
            continue
        for panel in range(width // lanes):
            for row in range(width):
                for column in range(panel * lanes, (panel + 1) * lanes):
                    inside = row < n_features and column < n_features
                    factors[place] = whitening[base + row * n_features + column] if inside else 0.0
                    place += 1


@njit(nogil=True, error_model="numpy")
def _append_whitened_means(means, whitening, width, factors):
    """Set the end of factors to a centre near the data and, from there, the whitened means."""
    K, D = means.shape
    begin = len(factors) - (1 + K) * width
    for place in range(begin, len(factors)):
        factors[place] = 0.0
    for i in range(D):
        factors[begin + i] = means[0, i]
    for k in range(1, K):
        place = begin + (1 + k) * width
        for i in range(D):
            away = means[k, i] - means[0, i]
            for j in range(i, D):
                factors[place + j] += away * whitening[i * D + j]


@compiled(
    types.float64(
        types.boolean,
        types.boolean,
        READ,
        READ_TABLE,
        READ,
        READ,
        types.intp,
        types.intp,
        WRITTEN,
        WRITTEN,
        WRITTEN,
        WRITTEN,
    ),
)
def lay_out(
    is_dense,
    is_unrolled,
    weights,
    means,
    whitening,
    log_det,
    width,
    lanes,
    constants,
    constants_of_densities,
    padded_means,
    factors,
):
    """Set the last four as the passes read them, and return what is negligible.

    ``whitening`` is flat: factors (K or 1, D, D), or 1/σ (K, D) or (K,); and ``log_det`` has a
    number for each matrix or row of it.
    """
    K, D = means.shape
    least = 0.0
    for k in range(K):
        constant = -0.5 * (D * _LOG_2_PI + log_det[k % len(log_det)])
        constants_of_densities[k] = constant
        log_weight = np.log(weights[k])
        constants[k] = log_weight + constant
        if log_weight > -np.inf and log_weight < least:
            least = log_weight
        for i in range(width):
            padded_means[k * width + i] = means[k, i] if i < D else 0.0
    if is_dense:
        _lay_out_dense(is_unrolled, whitening, D, width, lanes, factors)
        if not is_unrolled and len(whitening) < K * D * D:
            _append_whitened_means(means, whitening, width, factors)
        elif len(whitening) == K * D * D and appended_size(is_unrolled, K, width):
            scale = _BINARY_SCALE if is_unrolled else 1.0
            append_center(weights, means, whitening, scale, width, factors)
        return NEGLIGIBLE_DENSITY + least
    n_own = len(whitening) // K
    for k in range(K):
        for i in range(width):
            own = whitening[k * n_own + (i if n_own == D else 0)] if i < D else 0.0
            factors[k * width + i] = own
    return NEGLIGIBLE_DENSITY + least


@njit(nogil=True, error_model="numpy", forceinline=True)
def _lanes_total(summed, place, lanes):
    total = summed[place]
    for lane in range(1, lanes):
        total += summed[place + lane]
    return total


@compiled(types.void(READ, types.intp, types.intp, WRITTEN, WRITTEN_TABLE))
def take_up_moments(moments, width, lanes, nk, first):
    """Set Σγ (K,) and Σγ(x − μ) (K, D) from what the pass summed up.

    ``lanes`` is how many partial sums it keeps of each number.
    """
    for k in range(len(nk)):
        base = k * (1 + width) * lanes
        nk[k] = _lanes_total(moments, base, lanes)
        for i in range(first.shape[1]):
            first[k, i] = _lanes_total(moments, base + (1 + i) * lanes, lanes)


@compiled(
    types.void(types.boolean, types.boolean, READ, types.intp, types.intp, types.intp, WRITTEN),
)
def take_up_scatter(is_dense, is_unrolled, summed, n_features, width, lanes, scatter):
    """Set the scatters, (K or 1, D, D) or (K, D) or (K,) and flat, from what the pass summed up.

    ``lanes`` is how many partial sums it keeps of each number.
    """
    if not is_dense:
        n_components = len(summed) // (width * lanes)
        n_own = len(scatter) // n_components  # one where the variance of all features is common
        for k in range(n_components):
            for i in range(n_own):
                scatter[k * n_own + i] = 0.0
            for i in range(n_features):
                total = _lanes_total(summed, (k * width + i) * lanes, lanes)
                scatter[k * n_own + (i if n_own == n_features else 0)] += total
        return
    n_matrices = len(scatter) // n_features**2
    stride = len(summed) // n_matrices
    for matrix in range(n_matrices):
        base = matrix * n_features**2
        for i in range(n_features):
            for j in range(i + 1):
                if is_unrolled:
                    place = matrix * stride + (i * (i + 1) // 2 + j) * lanes
                    total = _lanes_total(summed, place, lanes)
                else:
                    total = summed[matrix * stride + i * width + j]
                scatter[base + i * n_features + j] = total
                scatter[base + j * n_features + i] = total
