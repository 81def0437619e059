"""Cholesky factors and their inverses for a batch of small matrices, compiled.

For the matrices of a mixture the calls into LAPACK take longer than the work in it.
"""

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from gmm_engine.kernels.passes import OPTIONS

_MATRICES = types.Array(types.float64, 3, "C", readonly=True)
_WRITTEN = types.float64[:, :, ::1]


@njit(types.intp(_MATRICES, _WRITTEN), **OPTIONS)
def _factor(matrices, lower):
    """Set L with Σ = L Lᵀ, row by row; return the first that has none, or −1."""
    for k in range(len(matrices)):
        for i in range(matrices.shape[1]):
            for j in range(i + 1):
                total = matrices[k, i, j]
                for m in range(j):
                    total -= lower[k, i, m] * lower[k, j, m]
                if j < i:
                    lower[k, i, j] = total / lower[k, j, j]
                elif total > 0.0 and total < np.inf:
                    lower[k, i, i] = np.sqrt(total)
                else:
                    return k
    return -1


@njit(types.void(_MATRICES, _WRITTEN), **OPTIONS)
def _invert(lower, upper):
    """Set U = L⁻ᵀ; row j of U is column j of L⁻¹, found by forward substitution."""
    for k in range(len(lower)):
        for j in range(lower.shape[1]):
            upper[k, j, j] = 1.0 / lower[k, j, j]
            for i in range(j + 1, lower.shape[1]):
                total = 0.0
                for m in range(j, i):
                    total += lower[k, i, m] * upper[k, j, m]
                upper[k, j, i] = -total / lower[k, i, i]


def cholesky_factors(matrices: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Return L with Σ = L Lᵀ for (K, D, D) matrices, and the first that has none, or −1."""
    lower = np.zeros(matrices.shape)
    return lower, _factor(np.ascontiguousarray(matrices), lower)


def inverse_transposes(lower: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return U = L⁻ᵀ, upper triangular, for (K, D, D) lower factors."""
    upper = np.zeros(lower.shape)
    _invert(np.ascontiguousarray(lower), upper)
    return upper
