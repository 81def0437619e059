"""A mixture laid out for the compiled passes, and which pass serves it.

The choice depends on the family's shape and the number of features alone, so that the bits of a
result never depend on what happens to be compiled.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gmm_engine.kernels import passes
from gmm_engine.kernels.centers import appended_size
from gmm_engine.kernels.lanes import LANES
from gmm_engine.kernels.layout import lay_out, take_up_moments, take_up_scatter
from gmm_engine.kernels.passes import Way
from gmm_engine.kernels.projections import append_projection, count_directions, projection_size


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
    """What the E-step is compiled for: the arguments of the function that makes it."""
    scoring_way: tuple[Way, int]
    """Likewise the scorer: it sums up nothing, so that one does for all diagonals, for example."""

    @classmethod
    def of(
        cls,
        weights: NDArray[np.float64],
        means: NDArray[np.float64],
        whitening: NDArray[np.float64],
        log_det: NDArray[np.float64],
    ) -> Self:
        """Lay out a mixture.

        ``whitening`` holds upper triangular U with Σ⁻¹ = U Uᵀ, (K, D, D) or (1, D, D) when
        shared, or 1/σ, (K, D) or (K,), for diagonal covariances.
        """
        n_components, n_features = means.shape
        is_dense = whitening.ndim == 3
        is_shared = is_dense and len(whitening) < n_components
        way = _way(n_components, n_features, is_dense=is_dense, is_shared=is_shared)
        width = _width(n_features, way)
        is_unrolled = way is Way.UNROLLED
        if is_dense:
            size = n_features * (n_features + 1) // 2 if is_unrolled else width**2
            n_numbers = len(whitening) * size
        else:
            n_numbers = n_components * width
        factor_stride = 0 if is_shared else n_numbers // n_components
        n_directions = count_directions(n_components, width) if way is Way.GATHERED else 0
        projection_begin = n_numbers
        if way is Way.SHARED:  # a centre and, from there, the whitened means
            n_numbers += (1 + n_components) * width
        if is_dense and not is_shared:
            n_numbers += appended_size(is_unrolled, n_components, width)
        n_numbers += projection_size(n_components, width, n_directions)
        constants, constants_of_densities = np.empty((2, n_components))
        padded_means, factors = np.empty(n_components * width), np.empty(n_numbers)
        negligible = lay_out(
            is_dense,
            is_unrolled,
            weights,
            np.ascontiguousarray(means),
            np.ascontiguousarray(whitening).reshape(-1),
            log_det,
            width,
            LANES,
            constants,
            constants_of_densities,
            padded_means,
            factors,
        )
        if n_directions:
            append_projection(
                weights,
                np.ascontiguousarray(means),
                np.ascontiguousarray(whitening).reshape(-1),
                constants,
                width,
                n_directions,
                projection_begin,
                factors,
            )
        return cls(
            n_features=n_features,
            is_dense=is_dense,
            is_shared=is_shared,
            constants=constants,
            constants_of_densities=constants_of_densities,
            negligible=negligible,
            means=padded_means,
            factors=factors,
            width=width,
            factor_stride=factor_stride,
            way=(way, n_features if is_unrolled else 0),
            scoring_way=(_scoring_way(way), n_features if is_unrolled else 0),
        )

    @property
    def n_components(self) -> int:
        return len(self.constants)

    @property
    def is_unrolled(self) -> bool:
        return self.way[0] is Way.UNROLLED

    @property
    def is_tiled(self) -> bool:
        """Whether scatters are summed up in tiles, of which the upper triangle stays zero."""
        return self.way[0] in passes.TILED_WAYS

    @property
    def sum_lanes(self) -> int:
        """Partial sums that the pass keeps of each number in its moments."""
        return LANES if self.way[0] in {Way.UNROLLED, Way.DIAGONAL} else 1

    @property
    def scatter_size(self) -> int:
        """Numbers that one scatter takes up in the pass."""
        if not self.is_dense:
            return self.sum_lanes * self.width
        if self.is_unrolled:
            return self.sum_lanes * self.n_features * (self.n_features + 1) // 2
        return self.width**2

    @property
    def n_scatters(self) -> int:
        return 1 if self.is_shared else self.n_components

    def unpacked_moments(
        self, moments: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return Σγ (K,) and Σγ(x − μ) (K, D) from what the pass summed up."""
        nk, first = np.empty(self.n_components), np.empty((self.n_components, self.n_features))
        take_up_moments(moments, self.width, self.sum_lanes, nk, first)
        return nk, first

    def unpacked_scatter(self, scatter: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scatters, (K or 1, D, D) or (K, D), from what the pass summed up."""
        D = self.n_features
        unpacked = np.empty((self.n_scatters, D, D) if self.is_dense else (self.n_components, D))
        take_up_scatter(
            self.is_dense,
            self.is_unrolled,
            scatter,
            D,
            self.width,
            self.sum_lanes,
            unpacked.reshape(-1),
        )
        return unpacked


def _way(n_components: int, n_features: int, *, is_dense: bool, is_shared: bool) -> Way:
    if not is_dense:
        is_narrow = n_features <= passes.MAX_NARROW_FEATURES
        return Way.DIAGONAL if is_narrow else Way.WIDE_DIAGONAL
    if n_features <= passes.MAX_UNROLLED_FEATURES:
        return Way.UNROLLED
    if is_shared:
        return Way.SHARED
    can_be_ruled_out = count_directions(n_components, _width(n_features, Way.TILED)) > 0
    return Way.GATHERED if can_be_ruled_out else Way.TILED


def _scoring_way(way: Way) -> Way:
    """Return the way of a scorer, which weighs everything and sums up nothing."""
    return {Way.GATHERED: Way.TILED, Way.WIDE_DIAGONAL: Way.DIAGONAL}.get(way, way)


def _width(n_features: int, way: Way) -> int:
    """Return the features with those that fill up the lanes where they lie along them."""
    if way in {Way.UNROLLED, Way.DIAGONAL}:
        return n_features
    return -(-n_features // LANES) * LANES
