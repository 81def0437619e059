"""Cholesky factors and their inverses for a batch of small matrices, compiled.

For the matrices of a mixture the calls into LAPACK take longer than the work in it.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from gmm_engine.kernels.layout import AS_WRITTEN, READ, WRITTEN
from gmm_engine.kernels.ranges import in_order

_MATRICES = types.Array(types.float64, 3, "C", readonly=True)
_FACTORS = types.float64[:, :, ::1]
_TINY = float(np.finfo(float).tiny)
LEAST_SHARED_FEATURES = 48
"""From so many on a matrix takes long enough for threads to take one each."""


# Inner loops go along rows and add no sums up, so that they vectorise as they are written. Four
# columns at once are subtracted from the rest: it is read and written once for them.
PANEL = 4


@njit(nogil=True, error_model="numpy")
def factor_in_place(matrix, panel):
    """Turn the lower triangle of Σ into L with Σ = L Lᵀ; tell whether there is one.

    ``panel`` is room for ``PANEL`` columns, each along a row.
    """
    D = len(matrix)
    for first in range(0, D, PANEL):
        end = min(first + PANEL, D)
        for j in range(first, end):
            column = panel[j - first]
            for i in range(j, D):
                column[i] = matrix[i, j]
            for earlier in range(j - first):
                factor = panel[earlier, j]
                for i in range(j, D):
                    column[i] -= panel[earlier, i] * factor
            pivot = column[j]
            if not (pivot > 0.0 and pivot < np.inf):
                return False
            root = np.sqrt(pivot)
            column[j] = root
            for i in range(j + 1, D):
                column[i] /= root
            for i in range(j, D):
                matrix[i, j] = column[i]
        for i in range(end, D):  # there are rows left below whole panels only
            a, b, c, d = panel[0, i], panel[1, i], panel[2, i], panel[3, i]
            for m in range(end, i + 1):
                matrix[i, m] -= (a * panel[0, m] + b * panel[1, m]) + (
                    c * panel[2, m] + d * panel[3, m]
                )
    return True


@njit(types.intp(_MATRICES, _FACTORS), **AS_WRITTEN)
def factor_all(matrices, lower):
    """Set L with Σ = L Lᵀ; return the first that has none, or −1."""
    D = matrices.shape[1]
    panel = np.empty((PANEL, D))
    for k in range(len(matrices)):
        for i in range(D):
            for j in range(i + 1):
                lower[k, i, j] = matrices[k, i, j]
        if not factor_in_place(lower[k], panel):
            return k
    return -1


@njit(types.void(_MATRICES, _FACTORS), **AS_WRITTEN)
def invert_all(lower, upper):
    """Set U = L⁻ᵀ; row j of U is column j of L⁻¹, found by forward substitution."""
    D = lower.shape[1]
    turned, rest = np.empty((D, D)), np.empty(D)
    for k in range(len(lower)):
        for i in range(D):
            for m in range(i + 1):
                turned[m, i] = lower[k, i, m]
        for j in range(D):
            for m in range(j, D):
                rest[m] = 1.0 if m == j else 0.0
            begin = j
            while begin + PANEL < D:
                for m in range(begin, begin + PANEL):
                    value = rest[m] / turned[m, m]
                    upper[k, j, m] = value
                    for i in range(m + 1, begin + PANEL):
                        rest[i] -= turned[m, i] * value
                a, b = upper[k, j, begin], upper[k, j, begin + 1]
                c, d = upper[k, j, begin + 2], upper[k, j, begin + 3]
                for i in range(begin + PANEL, D):
                    rest[i] -= (turned[begin, i] * a + turned[begin + 1, i] * b) + (
                        turned[begin + 2, i] * c + turned[begin + 3, i] * d
                    )
                begin += PANEL
            for m in range(begin, D):
                value = rest[m] / turned[m, m]
                upper[k, j, m] = value
                for i in range(m + 1, D):
                    rest[i] -= turned[m, i] * value


@njit(
    types.intp(types.boolean, READ, types.intp, WRITTEN, WRITTEN, WRITTEN),
    **AS_WRITTEN,
)
def factorize(is_dense, covariances, n_features, lower, upper, log_det):
    """Factor covariances; return the first that is singular or beyond doubles, or −1.

    Sets L and U with Σ = L Lᵀ and Σ⁻¹ = U Uᵀ (1/σ, and no L, where they are diagonal), and
    log|Σ|, of each matrix, or of each row of variances.
    """
    D = n_features
    n = len(log_det)
    if is_dense:
        shape = (n, D, D)
        singular = factor_all(covariances.reshape(shape), lower.reshape(shape))
        if singular >= 0:
            return singular
        invert_all(lower.reshape(shape), upper.reshape(shape))
    n_variances = len(covariances) // n
    for k in range(n):
        total = 0.0
        precision = 0.0
        if is_dense:
            for place in range(k * D * D, (k + 1) * D * D):
                precision += upper[place] * upper[place]
            for i in range(D):
                total += np.log(upper[k * D * D + i * D + i])
        else:
            for place in range(k * n_variances, (k + 1) * n_variances):
                if not (covariances[place] >= _TINY and covariances[place] < np.inf):
                    return k
                upper[place] = 1.0 / np.sqrt(covariances[place])
                total += np.log(upper[place]) * (D // n_variances)
        if not precision < np.inf:
            return k
        log_det[k] = -2.0 * total
    return -1


@dataclass(frozen=True, slots=True)
class Factors:
    """Covariances factored once, all flat in their own shape but ``log_det``."""

    lower: NDArray[np.float64]
    """L with Σ = L Lᵀ; zero where covariances are diagonal."""
    upper: NDArray[np.float64]
    """U with Σ⁻¹ = U Uᵀ, or 1/σ."""
    log_det: NDArray[np.float64]  # one for each matrix, or row of variances
    singular: int
    """The first that is singular or beyond doubles, or −1."""


def factors_of(
    covariances: NDArray[np.float64], *, n_sets: int, n_features: int, is_dense: bool
) -> Factors:
    """Factor matrices (n_sets, D, D) or rows of variances, one or D to a row."""
    flat = np.ascontiguousarray(covariances).reshape(-1)
    lower, upper = np.zeros((2, len(flat)))
    log_det = np.empty(n_sets)
    size = len(flat) // n_sets

    def part(sets: slice) -> int:
        here = slice(sets.start * size, sets.stop * size)
        singular = factorize(
            is_dense, flat[here], n_features, lower[here], upper[here], log_det[sets]
        )
        return sets.start + int(singular) if singular >= 0 else -1

    has_long_parts = is_dense and n_features >= LEAST_SHARED_FEATURES
    n_parts = n_sets if has_long_parts else 1
    parts = [slice(i * n_sets // n_parts, (i + 1) * n_sets // n_parts) for i in range(n_parts)]
    singular = next((found for found in in_order(part, parts) if found >= 0), -1)
    return Factors(lower, upper, log_det, singular)


def cholesky_factors(matrices: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Return L with Σ = L Lᵀ for (K, D, D) matrices, and the first that has none, or −1."""
    lower = np.zeros(matrices.shape)
    return lower, factor_all(np.ascontiguousarray(matrices), lower)


def inverse_transposes(lower: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return U = L⁻ᵀ, upper triangular, for (K, D, D) lower factors."""
    upper = np.zeros(lower.shape)
    invert_all(np.ascontiguousarray(lower), upper)
    return upper
