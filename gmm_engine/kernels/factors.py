"""Cholesky factors and their inverses for a batch of small matrices, compiled.

For the matrices of a mixture the calls into LAPACK take longer than the work in it.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from gmm_engine.kernels.compilation import compiled
from gmm_engine.kernels.lanes import LANES, aligned, fma, load, multiply, spread, store
from gmm_engine.kernels.layout import READ, WRITTEN
from gmm_engine.kernels.ranges import in_order
from gmm_engine.kernels.tiled import subtract_products

_TINY, _LARGEST = float(np.finfo(float).tiny), float(np.finfo(float).max)
_ROUNDING = 4.0 * float(np.finfo(float).eps)
LEAST_SHARED_FEATURES = 64
"""From so many on a matrix takes long enough for threads to take a few each."""
SETS_A_PART = 4
"""Of matrices: each part asks for memory of its own."""


# Matrices are worked on as rows of whole vectors, upper triangles of which the rest is zero.
# Only rows of vectors are multiplied and added, in the order written.


@njit(nogil=True, error_model="numpy")
def padded(n_features):
    """Return n_features made whole vectors."""
    return -(-n_features // LANES) * LANES


@njit(nogil=True, error_model="numpy", forceinline=True)
def add_row(factor, source, source_at, target, target_at, count):
    """Add ``factor`` times numbers of one matrix to those of another, or of the same."""
    spread_factor = spread(factor)
    for j in range(0, count, LANES):
        value = fma(spread_factor, load(source, source_at + j), load(target, target_at + j))
        store(target, target_at + j, value)


@njit(nogil=True, error_model="numpy", forceinline=True)
def _scale_row(factor, row, begin, width, matrix):
    spread_factor = spread(factor)
    for j in range(begin, width, LANES):
        store(matrix, row + j, multiply(spread_factor, load(matrix, row + j)))


@njit(nogil=True, error_model="numpy")
def factor_in_place(matrix, n_features, width):
    """Turn the upper triangle of Σ into R = Lᵀ with Σ = L Lᵀ; tell whether there is one.

    Panels of rows: what the rows above make of a panel is subtracted in tiles, and then row by
    row within it. ``matrix`` is flat, ``n_features`` rows of ``width`` numbers and zeros behind.
    There is none where what is left of a variance is not more than rounding.
    """
    least = np.empty(n_features)
    for i in range(n_features):
        least[i] = max(_ROUNDING * matrix[i * width + i], 0.0)
    for panel in range(0, n_features, LANES):
        if panel:
            subtract_products(matrix, matrix, width, 0, panel, False, matrix)
        end = min(panel + LANES, n_features)
        for i in range(panel, end):
            row = i * width
            pivot = matrix[row + i]
            if not (pivot > least[i] and pivot < np.inf):
                return False
            root = np.sqrt(pivot)
            _scale_row(1.0 / root, row, panel, width, matrix)
            matrix[row + i] = root
            for later in range(i + 1, end):
                target = later * width + panel
                add_row(-matrix[row + later], matrix, row + panel, matrix, target, width - panel)
    return True


@njit(nogil=True, error_model="numpy")
def invert(upper, lower, n_features, width, inverse):
    """Set ``inverse`` to R⁻¹, given R and Rᵀ; panel by panel from the last row up.

    ``inverse`` is zero before.
    """
    for panel in range(width - LANES, -1, -LANES):
        end = min(panel + LANES, n_features)
        for i in range(panel, end):
            inverse[i * width + i] = 1.0
        subtract_products(lower, inverse, width, 0, panel, True, inverse)
        for i in range(end - 1, panel - 1, -1):
            row = i * width
            for later in range(i + 1, end):
                source = later * width + panel
                add_row(-upper[row + later], inverse, source, inverse, row + panel, width - panel)
            _scale_row(1.0 / upper[row + i], row, panel, width, inverse)


@njit(nogil=True, error_model="numpy")
def _copy_turned(matrix, begin, n_features, target, width):
    """Set the upper triangle of a target to the lower triangle of a matrix, turned."""
    for i in range(n_features):
        for j in range(i, n_features):
            target[i * width + j] = matrix[begin + j * n_features + i]


@compiled(types.intp(READ, types.intp, WRITTEN))
def factor_all(matrices, n_features, lower):
    """Set L with Σ = L Lᵀ, all flat; return the first that has none, or −1."""
    D, width = n_features, padded(n_features)
    work = aligned(width * width)
    for k in range(len(matrices) // (D * D)):
        base = k * D * D
        work[:] = 0.0
        _copy_turned(matrices, base, D, work, width)
        if not factor_in_place(work, D, width):
            return k
        for i in range(D):
            for j in range(i + 1):
                lower[base + i * D + j] = work[j * width + i]
    return -1


@njit(nogil=True, error_model="numpy")
def _invert_into(turned, straight, n_features, width, inverse, upper, begin):
    """Set a matrix of ``upper`` to R⁻¹, given R and room for Rᵀ and the inverse."""
    D = n_features
    for i in range(D):
        for j in range(i + 1):
            straight[i * width + j] = turned[j * width + i]
    inverse[:] = 0.0
    invert(turned, straight, D, width, inverse)
    for i in range(D):
        for j in range(D):
            upper[begin + i * D + j] = inverse[i * width + j]


@compiled(types.void(READ, types.intp, WRITTEN))
def invert_all(lower, n_features, upper):
    """Set U = L⁻ᵀ, all flat."""
    D, width = n_features, padded(n_features)
    turned, straight = aligned(width * width), aligned(width * width)
    inverse = aligned(width * width)
    turned[:] = 0.0
    straight[:] = 0.0
    for k in range(len(lower) // (D * D)):
        _copy_turned(lower, k * D * D, D, turned, width)
        _invert_into(turned, straight, D, width, inverse, upper, k * D * D)


@njit(nogil=True, error_model="numpy")
def _factorize_dense(covariances, n_features, upper, log_det):
    D, width = n_features, padded(n_features)
    turned, straight = aligned(width * width), aligned(width * width)
    inverse = aligned(width * width)
    straight[:] = 0.0
    largest = np.sqrt(_LARGEST / D)
    for k in range(len(log_det)):
        begin = k * D * D
        turned[:] = 0.0
        _copy_turned(covariances, begin, D, turned, width)
        if not factor_in_place(turned, D, width):
            return k
        _invert_into(turned, straight, D, width, inverse, upper, begin)
        is_in_range = True
        for place in range(begin, begin + D * D):
            is_in_range &= abs(upper[place]) < largest
        if not is_in_range:
            return k
        total = 0.0
        for i in range(D):
            total += np.log(upper[begin + i * D + i])
        log_det[k] = -2.0 * total
    return -1


@njit(nogil=True, error_model="numpy")
def _factorize_diagonal(variances, n_features, upper, log_det):
    n_variances = len(variances) // len(log_det)
    for k in range(len(log_det)):
        total = 0.0
        for place in range(k * n_variances, (k + 1) * n_variances):
            if not (variances[place] >= _TINY and variances[place] < np.inf):
                return k
            upper[place] = 1.0 / np.sqrt(variances[place])
            total += np.log(upper[place]) * (n_features // n_variances)
        log_det[k] = -2.0 * total
    return -1


@compiled(types.intp(types.boolean, READ, types.intp, WRITTEN, WRITTEN))
def factorize(is_dense, covariances, n_features, upper, log_det):
    """Factor covariances; return the first that is singular or beyond doubles, or −1.

    Sets U with Σ⁻¹ = U Uᵀ (1/σ where they are diagonal), and log|Σ|, of each matrix, or of
    each row of variances.
    """
    if is_dense:
        return _factorize_dense(covariances, n_features, upper, log_det)
    return _factorize_diagonal(covariances, n_features, upper, log_det)


@dataclass(frozen=True, slots=True)
class Factors:
    """Covariances factored once; ``upper`` is flat in their own shape."""

    upper: NDArray[np.float64]
    """U with Σ⁻¹ = U Uᵀ, or 1/σ."""
    log_det: NDArray[np.float64]  # one for each matrix, or row of variances
    singular: int
    """The first that is singular or beyond doubles, or −1."""


def parts_of_sets(n_sets: int, n_features: int, *, is_dense: bool) -> list[slice]:
    """Cut matrices, or rows of variances, into what threads take one after another."""
    has_long_parts = is_dense and n_features >= LEAST_SHARED_FEATURES
    n_parts = -(-n_sets // SETS_A_PART) if has_long_parts else 1
    return [slice(i * n_sets // n_parts, (i + 1) * n_sets // n_parts) for i in range(n_parts)]


def factors_of(
    covariances: NDArray[np.float64], *, n_sets: int, n_features: int, is_dense: bool
) -> Factors:
    """Factor matrices (n_sets, D, D) or rows of variances, one or D to a row."""
    flat = np.ascontiguousarray(covariances).reshape(-1)
    upper, log_det = np.empty(len(flat)), np.empty(n_sets)
    size = len(flat) // n_sets

    def part(sets: slice) -> int:
        here = slice(sets.start * size, sets.stop * size)
        singular = factorize(is_dense, flat[here], n_features, upper[here], log_det[sets])
        return sets.start + int(singular) if singular >= 0 else -1

    parts = parts_of_sets(n_sets, n_features, is_dense=is_dense)
    singular = next((found for found in in_order(part, parts) if found >= 0), -1)
    return Factors(upper, log_det, singular)


def cholesky_factors(matrices: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Return L with Σ = L Lᵀ for (K, D, D) matrices, and the first that has none, or −1."""
    lower = np.zeros(matrices.shape)
    flat = np.ascontiguousarray(matrices).reshape(-1)
    return lower, factor_all(flat, matrices.shape[-1], lower.reshape(-1))


def inverse_transposes(lower: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return U = L⁻ᵀ, upper triangular, for (K, D, D) lower factors."""
    upper = np.zeros(lower.shape)
    invert_all(np.ascontiguousarray(lower).reshape(-1), lower.shape[-1], upper.reshape(-1))
    return upper
