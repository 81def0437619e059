"""Plain EM steps one after another, compiled: on small data Python around a step costs the most.

The pass over the rows is called by its address, so that it is compiled once, and the loop once
for all of them. The loop ends before a step that needs more than the common case: a covariance to
be held up, a row out of reach, a number beyond doubles. The caller takes that one by itself.
"""

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from gmm_engine.kernels import passes
from gmm_engine.kernels.calls import address_of, weigh_rows
from gmm_engine.kernels.compilation import compiled
from gmm_engine.kernels.factors import factorize
from gmm_engine.kernels.lanes import LANES
from gmm_engine.kernels.layout import (
    READ,
    WRITTEN,
    WRITTEN_TABLE,
    lay_out,
    take_up_moments,
    take_up_scatter,
)
from gmm_engine.kernels.maximization import Bounds, estimate, total_of
from gmm_engine.kernels.prepared import Prepared
from gmm_engine.kernels.projections import append_projection, count_directions

_NO_WEIGHT = np.empty(0)


@dataclass(frozen=True, slots=True)
class Sums:
    """What an E-step summed up about ``centers``: where a run of steps goes on from."""

    centers: NDArray[np.float64]  # (K, D)
    nk: NDArray[np.float64]  # (K,)
    first: NDArray[np.float64]  # (K, D)
    scatter: NDArray[np.float64]  # (K or 1, D, D) or (K, D)


@dataclass(frozen=True, slots=True)
class Steps:
    """The mixtures of consecutive steps, row by row, and the sums by the last of them."""

    n_taken: int
    """Rows of the arrays that are filled."""
    weights: NDArray[np.float64]  # (n, K)
    means: NDArray[np.float64]  # (n, K, D)
    covariances: NDArray[np.float64]  # (n, size), flat, in the family's own shape
    upper: NDArray[np.float64]  # (n, size)
    """U with Σ⁻¹ = U Uᵀ, or 1/σ."""
    log_det: NDArray[np.float64]  # (n, K), or (n, 1) where all components share a matrix
    nk: NDArray[np.float64]  # (n, K), by the mixture of the row
    log_likelihood: NDArray[np.float64]  # (n,)
    log_max_resp: NDArray[np.float64]  # (n,)
    sums: Sums


@lru_cache(maxsize=16)
def layout(n_components: int, n_features: int, *, is_dense: bool, is_shared: bool) -> Prepared:
    """Return how mixtures of a shape are laid out; its numbers are those of none."""
    whitening = (1 if is_shared else n_components, *[n_features] * (2 if is_dense else 1))
    return Prepared.of(
        weights=np.full(n_components, 1.0 / n_components),
        means=np.zeros((n_components, n_features)),
        whitening=np.zeros(whitening),
        log_det=np.zeros(n_components),
    )


def plain_steps(
    n_steps: int,
    X: NDArray[np.float64],
    weight: NDArray[np.float64] | None,
    *,
    start: Sums,
    like: Prepared,
    is_common: bool,
    bounds: Bounds,
) -> Steps:
    """Take up to ``n_steps`` EM steps from the sums of an E-step, all rows in one range.

    ``like`` is the layout of such mixtures; ``is_common`` tells whether its components share a
    matrix, or its features a variance.
    """
    K, D = start.centers.shape
    n_sets = 1 if like.is_dense and is_common else K
    size = n_sets * (D * D if like.is_dense else 1 if is_common else D)
    weights, means = np.empty((n_steps, K)), np.empty((n_steps, K, D))
    covariances, upper = np.empty((2, n_steps, size))
    log_det, nk = np.empty((n_steps, n_sets)), np.empty((n_steps, K))
    log_likelihood, log_max_resp = np.empty((2, n_steps))
    sums = Sums(*(array.copy() for array in (start.centers, start.nk, start.first, start.scatter)))
    n_taken = steps_loop()(
        address_of(*like.way),
        *passes.as_either_type(X),
        _NO_WEIGHT if weight is None else weight,
        like.is_dense,
        like.is_unrolled,
        is_common,
        like.width,
        like.factor_stride,
        np.empty(len(like.factors)),
        0 if like.is_shared else like.scatter_size,
        like.sum_lanes,
        np.empty(like.n_scatters * like.scatter_size),
        bounds.ridge,
        bounds.scale,
        bounds.floor,
        sums.centers,
        sums.nk,
        sums.first,
        sums.scatter.reshape(-1),
        weights,
        means,
        covariances,
        upper,
        log_det,
        nk,
        log_likelihood,
        log_max_resp,
    )
    return Steps(
        n_taken=n_taken,
        weights=weights,
        means=means,
        covariances=covariances,
        upper=upper,
        log_det=log_det,
        nk=nk,
        log_likelihood=log_likelihood,
        log_max_resp=log_max_resp,
        sums=sums,
    )


_LOOP_SIGNATURE = types.intp(
    types.intp,
    *passes.EXPECTATION_SIGNATURE.args[:2],
    READ,
    types.boolean,
    types.boolean,
    types.boolean,
    types.intp,
    types.intp,
    WRITTEN,
    types.intp,
    types.intp,
    WRITTEN,
    types.float64,
    READ,
    READ,
    WRITTEN_TABLE,
    WRITTEN,
    WRITTEN_TABLE,
    WRITTEN,
    WRITTEN_TABLE,
    types.float64[:, :, ::1],
    WRITTEN_TABLE,
    WRITTEN_TABLE,
    WRITTEN_TABLE,
    WRITTEN_TABLE,
    WRITTEN,
    WRITTEN,
)


@njit(nogil=True, error_model="numpy")
def _are_finite(means, log_det):
    are_finite = True
    for k in range(len(means)):
        for value in means[k]:
            are_finite &= abs(value) < np.inf
    for value in log_det:
        are_finite &= abs(value) < np.inf
    return are_finite


@cache
def steps_loop():
    """Return the compiled loop; it fills the rows of what is recorded and returns how many."""
    lanes = LANES

    @compiled(_LOOP_SIGNATURE)
    def loop(
        address,
        doubles,
        floats,
        weight,
        is_dense,
        is_unrolled,
        is_common,
        width,
        factor_stride,
        factors,
        scatter_stride,
        sum_lanes,
        summed,
        ridge,
        scale,
        floor,
        centers,
        nk,
        first,
        scatter,
        weights,
        means,
        covariances,
        upper,
        log_det,
        recorded_nk,
        log_likelihood,
        log_max_resp,
    ):
        K, D = centers.shape
        n_directions = count_directions(K, width) if is_dense and factor_stride else 0
        constants, densities = np.empty(K), np.empty(K)
        padded_means = np.empty(K * width)
        moments = np.empty(K * (1 + width) * sum_lanes)
        for step in range(len(log_likelihood)):
            are_above = estimate(
                is_dense,
                is_common,
                total_of(nk),
                nk,
                first,
                scatter,
                centers,
                ridge,
                scale,
                floor,
                weights[step],
                means[step],
                covariances[step],
            )
            if not are_above:
                return step
            singular = factorize(is_dense, covariances[step], D, upper[step], log_det[step])
            if singular >= 0:
                return step
            if not _are_finite(means[step], log_det[step]):
                return step
            negligible = lay_out(
                is_dense,
                is_unrolled,
                weights[step],
                means[step],
                upper[step],
                log_det[step],
                width,
                lanes,
                constants,
                densities,
                padded_means,
                factors,
            )
            if n_directions:
                append_projection(
                    weights[step],
                    means[step],
                    upper[step],
                    constants,
                    width,
                    n_directions,
                    K * factor_stride,
                    factors,
                )
            for place in range(len(moments)):
                moments[place] = 0.0
            for place in range(len(summed)):
                summed[place] = 0.0
            likelihood, max_resp, unreached = weigh_rows(
                address,
                doubles,
                floats,
                weight,
                constants,
                negligible,
                padded_means,
                width,
                factors,
                factor_stride,
                moments,
                summed,
                scatter_stride,
            )
            if unreached >= 0:
                return step
            take_up_moments(moments, width, sum_lanes, nk, first)
            take_up_scatter(is_dense, is_unrolled, summed, D, width, sum_lanes, scatter)
            for k in range(K):
                recorded_nk[step, k] = nk[k]
                for i in range(D):
                    centers[k, i] = means[step, k, i]
            log_likelihood[step] = likelihood
            log_max_resp[step] = max_resp
        return len(log_likelihood)

    return loop
