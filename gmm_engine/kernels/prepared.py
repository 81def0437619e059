"""A mixture laid out for the compiled passes, and which pass serves it.

The choice depends on the family's shape and the number of features alone, so that the bits of a
result never depend on what happens to be compiled.
"""

from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gmm_engine.kernels import passes
from gmm_engine.kernels.lanes import LANES
from gmm_engine.kernels.passes import Way

LOG_2_PI = float(np.log(2.0 * np.pi))
NEGLIGIBLE_DENSITY = -42.0
"""log of a component's density at a row, relative to the mixture's, below which it is absent."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The parameters of a mixture as the passes read them."""

    n_features: int
    is_dense: bool
    is_shared: bool
    """One whitening matrix for all components."""
    constants: NDArray[np.float64]  # (K,)
    """log π_k − ½(D log 2π + log|Σ_k|)"""
    constants_of_densities: NDArray[np.float64]  # (K,)
    """−½(D log 2π + log|Σ_k|)"""
    negligible: float
    """How far below the largest log p(x, k) another is taken as nothing: −42 − log K or so.

    A component that is e⁻⁴² as dense at a row as the whole mixture adds less than the rounding
    of its own sums.
    """
    means: NDArray[np.float64]  # (K × width,)
    factors: NDArray[np.float64]
    """The whitening in the order that the pass reads it."""
    width: int
    """Features, with those added as padding."""
    factor_stride: int
    """From one component's factors to the next one's; 0 where they share them."""
    way: tuple[Way, int]
    """What the passes are compiled for: the arguments of those that make them."""

    @classmethod
    def of(
        cls,
        log_weights: NDArray[np.float64],
        means: NDArray[np.float64],
        whitening: NDArray[np.float64],
        log_det: NDArray[np.float64],
    ) -> Self:
        """Lay out a mixture.

        ``whitening`` holds upper triangular U with Σ⁻¹ = U Uᵀ, (K, D, D) or (1, D, D) when
        shared, or 1/σ (K, D) for diagonal covariances.
        """
        n_features = int(means.shape[1])
        is_dense = whitening.ndim == 3
        width = _width(n_features, is_dense=is_dense)
        is_shared = is_dense and len(whitening) < len(means)
        way = _way(n_features, is_dense=is_dense, is_shared=is_shared)
        factors = _packed(whitening, width)
        if way is Way.SHARED:
            factors = _with_whitened_means(factors, means, whitening[0])
        padded_means = np.zeros((len(means), width))
        padded_means[:, :n_features] = means
        constants_of_densities = -0.5 * (n_features * LOG_2_PI + log_det)
        return cls(
            n_features=n_features,
            is_dense=is_dense,
            is_shared=is_shared,
            constants=log_weights + constants_of_densities,
            constants_of_densities=constants_of_densities,
            negligible=NEGLIGIBLE_DENSITY + _least_finite(log_weights),
            means=padded_means.ravel(),
            factors=factors.ravel(),
            width=width,
            factor_stride=0 if is_shared else factors[0].size,
            way=(way, n_features if way is Way.UNROLLED else 0),
        )

    @property
    def n_components(self) -> int:
        return len(self.constants)

    @property
    def is_unrolled(self) -> bool:
        return self.way[0] is Way.UNROLLED

    @property
    def scatter_size(self) -> int:
        """Numbers that one scatter takes up in the pass."""
        if not self.is_dense:
            return LANES * self.width
        if self.is_unrolled:
            return LANES * self.n_features * (self.n_features + 1) // 2
        return self.width**2

    @property
    def n_scatters(self) -> int:
        return 1 if self.is_shared else self.n_components

    def unpacked_moments(
        self, moments: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return Σγ (K,) and Σγ(x − μ) (K, D) from what the pass summed up."""
        sums = moments.reshape(self.n_components, 1 + self.width, LANES).sum(axis=2)
        return sums[:, 0].copy(), sums[:, 1 : 1 + self.n_features].copy()

    def unpacked_scatter(self, scatter: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scatters, (K or 1, D, D) or (K, D), from what the pass summed up."""
        if not self.is_dense:
            return np.asarray(
                scatter.reshape(self.n_components, self.n_features, LANES).sum(axis=2)
            )
        D = self.n_features
        rows, columns = _triangle(D)
        if self.is_unrolled:
            triangles = scatter.reshape(self.n_scatters, -1, LANES).sum(axis=2)
        else:
            triangles = scatter.reshape(self.n_scatters, self.width, self.width)[:, rows, columns]
        dense = np.empty((self.n_scatters, D, D))
        dense[:, rows, columns] = triangles
        dense[:, columns, rows] = triangles
        return dense


def _way(n_features: int, *, is_dense: bool, is_shared: bool) -> Way:
    if not is_dense:
        return Way.DIAGONAL
    if n_features <= passes.MAX_UNROLLED_FEATURES:
        return Way.UNROLLED
    return Way.SHARED if is_shared else Way.TILED


def _width(n_features: int, *, is_dense: bool) -> int:
    if is_dense and n_features > passes.MAX_UNROLLED_FEATURES:
        return -(-n_features // LANES) * LANES
    return n_features


def _least_finite(log_weights: NDArray[np.float64]) -> float:
    return float(np.min(log_weights, where=np.isfinite(log_weights), initial=0.0))


def _with_whitened_means(
    factors: NDArray[np.float64], means: NDArray[np.float64], whitening: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Append a centre near the data and, from there, the whitened means."""
    width = factors.shape[1] * LANES
    appended = np.zeros((1 + len(means), width))
    appended[0, : means.shape[1]] = means[0]
    appended[1:, : means.shape[1]] = (means - means[0]) @ whitening
    return np.concatenate((factors.ravel(), appended.ravel()))[np.newaxis]


@cache
def _triangle(n_features: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.tril_indices(n_features)


def _packed(whitening: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    if whitening.ndim == 2:
        return whitening
    n_matrices, D = whitening.shape[:2]
    if width <= passes.MAX_UNROLLED_FEATURES:
        columns, rows = _triangle(D)
        return whitening[:, rows, columns]  # the columns of U one after another
    padded = np.zeros((n_matrices, width, width))
    padded[:, :D, :D] = whitening
    panels = padded.reshape(n_matrices, width, width // LANES, LANES).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(panels)
