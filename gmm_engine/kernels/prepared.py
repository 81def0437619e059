"""A mixture laid out for the compiled passes, and which pass serves it.

The choice depends on the family's shape and the number of features alone, so that the bits of a
result never depend on what happens to be compiled.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gmm_engine.kernels import passes
from gmm_engine.kernels.lanes import LANES
from gmm_engine.kernels.layout import lay_out, take_up_moments, take_up_scatter


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
    means: NDArray[np.float64]  # (K × width,)
    factors: NDArray[np.float64]
    """The whitening in the order that the pass reads it."""

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
        width = _width(n_features, is_dense=is_dense)
        is_unrolled = way_of_weighing(n_features, is_dense=is_dense)[0]
        size = n_features * (n_features + 1) // 2 if is_unrolled else width**2
        constants, constants_of_densities = np.empty((2, n_components))
        padded_means = np.empty(n_components * width)
        factors = np.empty(len(whitening) * size if is_dense else means.size)
        lay_out(
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
        return cls(
            n_features=n_features,
            is_dense=is_dense,
            is_shared=is_dense and len(whitening) < n_components,
            constants=constants,
            constants_of_densities=constants_of_densities,
            means=padded_means,
            factors=factors,
        )

    @property
    def n_components(self) -> int:
        return len(self.constants)

    @property
    def width(self) -> int:
        """Features, with those added as padding."""
        return _width(self.n_features, is_dense=self.is_dense)

    @property
    def is_unrolled(self) -> bool:
        return self.is_dense and self.n_features <= passes.MAX_UNROLLED_FEATURES

    @property
    def way(self) -> tuple[bool, bool, int]:
        """What the passes are compiled for."""
        return way_of_weighing(self.n_features, is_dense=self.is_dense)

    @property
    def factor_stride(self) -> int:
        return 0 if self.is_shared else len(self.factors) // self.n_components

    @property
    def scatter_size(self) -> int:
        """Numbers that one scatter takes up in the pass."""
        if not self.is_dense:
            return self.width
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
        nk, first = np.empty(self.n_components), np.empty((self.n_components, self.n_features))
        take_up_moments(moments, self.width, LANES, nk, first)
        return nk, first

    def unpacked_scatter(self, scatter: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scatters, (K or 1, D, D) or (K, D), from what the pass summed up."""
        D = self.n_features
        unpacked = np.empty((self.n_scatters, D, D) if self.is_dense else (self.n_components, D))
        take_up_scatter(
            self.is_dense, self.is_unrolled, scatter, D, self.width, LANES, unpacked.reshape(-1)
        )
        return unpacked


def way_of_weighing(n_features: int, *, is_dense: bool) -> tuple[bool, bool, int]:
    """Return the arguments of ``passes.expectation_pass`` and ``passes.scoring_pass``."""
    if is_dense and n_features <= passes.MAX_UNROLLED_FEATURES:
        return True, False, n_features
    return False, is_dense, 0


def _width(n_features: int, *, is_dense: bool) -> int:
    if is_dense and n_features > passes.MAX_UNROLLED_FEATURES:
        return -(-n_features // LANES) * LANES
    return n_features
