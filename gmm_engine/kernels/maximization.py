"""The M-step, compiled: from the sums of a pass to weights, means and covariances.

``estimate`` finds the maximum of the expected log-likelihood (Bishop 9.24 to 9.26); what the next
E-step needs of it is in ``factors``. Arrays of covariances are flat, in their family's own shape:
(K, D, D), or (D, D) where they are common to all components; (K, D), or (K,) where one variance
is common to all features.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from gmm_engine.kernels.compilation import compiled
from gmm_engine.kernels.factors import (
    Factors,
    factor_in_place,
    factorize,
    padded,
    parts_of_sets,
)
from gmm_engine.kernels.lanes import aligned
from gmm_engine.kernels.layout import READ, READ_TABLE, WRITTEN, WRITTEN_TABLE
from gmm_engine.kernels.ranges import in_order

_TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What regularisation does to covariances, as the M-step applies it."""

    ridge: float
    """Added to every variance."""
    scale: NDArray[np.float64]  # (D,)
    floor: NDArray[np.float64]
    """Below which a covariance must not fall; empty for none.

    A matrix (D, D), flat, in units of ``scale``; or a variance for each feature, or for all.
    """


@dataclass(frozen=True, slots=True)
class Estimates:
    weights: NDArray[np.float64]  # (K,)
    means: NDArray[np.float64]  # (K, D)
    covariances: NDArray[np.float64]
    """Flat, in the family's own shape."""
    factors: Factors | None
    """None where a covariance is below the floor, and has to be held up first."""


@njit(nogil=True, error_model="numpy")
def _is_above(covariances, begin, scale, floor, rest, width):
    """Tell whether a matrix less the floor has a Cholesky factor."""
    D = len(scale)
    rest[:] = 0.0
    for i in range(D):
        for j in range(i, D):
            in_units = covariances[begin + i * D + j] / scale[i] / scale[j]
            rest[i * width + j] = in_units - floor[i * D + j]
    return factor_in_place(rest, D, width)


@njit(nogil=True, error_model="numpy")
def _estimate_dense(is_common, nk, total, first, scatter, shift, ridge, covariances):
    """Set Σ_k = (Σγ(x − c)(x − c)ᵀ − Σγ(x − c) (μ − c)ᵀ) / N_k, or all of them pooled."""
    K, D = first.shape
    for k in range(1 if is_common else K):
        base = k * D * D
        divisor = total if is_common else max(nk[k], _TINY)
        for i in range(D):
            for j in range(i + 1):
                value = scatter[base + i * D + j]
                if is_common:
                    for component in range(K):
                        value -= first[component, i] * shift[component, j]
                else:
                    value -= first[k, i] * shift[k, j]
                covariances[base + i * D + j] = value / divisor
            covariances[base + i * D + i] += ridge
        for j in range(D):
            for i in range(j + 1, D):
                covariances[base + j * D + i] = covariances[base + i * D + j]


@njit(nogil=True, error_model="numpy")
def _estimate_diagonal(is_common, nk, first, scatter, shift, ridge, floor, covariances):
    """Set σ²_kd likewise, or their mean over the features; tell whether all reach the floor."""
    K, D = first.shape
    is_above = True
    for k in range(K):
        divisor = max(nk[k], _TINY)
        pooled = scatter[k] if is_common else 0.0
        for i in range(D):
            away = first[k, i] * shift[k, i]
            if is_common:
                pooled -= away
            else:
                covariances[k * D + i] = (scatter[k * D + i] - away) / divisor + ridge
                if len(floor) and not covariances[k * D + i] >= floor[i]:
                    is_above = False
        if is_common:
            covariances[k] = pooled / (D * divisor) + ridge
            if len(floor) and not covariances[k] >= floor[0]:
                is_above = False
    return is_above


@compiled(
    types.boolean(
        types.boolean,
        types.boolean,
        types.float64,
        READ,
        READ_TABLE,
        READ,
        READ_TABLE,
        types.float64,
        READ,
        READ,
        WRITTEN,
        WRITTEN_TABLE,
        WRITTEN,
    ),
)
def estimate(
    is_dense,
    is_common,
    total,
    nk,
    first,
    scatter,
    centers,
    ridge,
    scale,
    floor,
    weights,
    means,
    covariances,
):
    """Set the parameters from sums about ``centers``; tell whether all are above the floor.

    ``total`` is Σ N_k of all components, also of those that are not among these.
    """
    K, D = centers.shape
    shift = np.zeros((K, D))
    for k in range(K):
        weights[k] = nk[k] / total
        for i in range(D):
            if nk[k] > 0.0:
                shift[k, i] = first[k, i] / nk[k]
            means[k, i] = centers[k, i] + shift[k, i]
    if not is_dense:
        return _estimate_diagonal(is_common, nk, first, scatter, shift, ridge, floor, covariances)
    _estimate_dense(is_common, nk, total, first, scatter, shift, ridge, covariances)
    if len(floor) == 0:
        return True
    width = padded(D)
    rest = aligned(width * width)
    for begin in range(0, len(covariances), D * D):
        if not _is_above(covariances, begin, scale, floor, rest, width):
            return False
    return True


@compiled(types.float64(READ))
def total_of(nk):
    """Return Σ N_k, added one by one."""
    total = 0.0
    for k in range(len(nk)):
        total += nk[k]
    return total


def estimates(
    *,
    is_dense: bool,
    is_common: bool,
    nk: NDArray[np.float64],
    first: NDArray[np.float64],
    scatter: NDArray[np.float64],
    centers: NDArray[np.float64],
    bounds: Bounds,
) -> Estimates:
    """Maximise over mixtures whose covariances are dense or diagonal, common or not.

    Covariances of many features are estimated and factored by several threads, each component by
    itself.
    """
    K, D = centers.shape
    n_sets = 1 if is_dense and is_common else K
    own_size = D * D if is_dense else 1 if is_common else D
    weights, means, covariances = np.empty(K), np.empty((K, D)), np.empty(n_sets * own_size)
    upper, log_det = np.empty(n_sets * own_size), np.empty(n_sets)
    total, flat, centers = total_of(nk), scatter.ravel(), np.ascontiguousarray(centers)

    def part(sets: slice) -> tuple[bool, int]:
        own = slice(0, K) if n_sets == 1 else sets
        here = slice(sets.start * own_size, sets.stop * own_size)
        is_above = estimate(
            is_dense,
            is_common,
            total,
            nk[own],
            first[own],
            flat[here],
            centers[own],
            bounds.ridge,
            bounds.scale,
            bounds.floor,
            weights[own],
            means[own],
            covariances[here],
        )
        if not is_above:
            return False, -1
        singular = factorize(is_dense, covariances[here], D, upper[here], log_det[sets])
        return True, sets.start + int(singular) if singular >= 0 else -1

    found = list(in_order(part, parts_of_sets(n_sets, D, is_dense=is_dense)))
    are_above = all(is_above for is_above, _ in found)
    singular = next((singular for _, singular in found if singular >= 0), -1)
    factors = Factors(upper, log_det, singular) if are_above else None
    return Estimates(weights, means, covariances, factors)
