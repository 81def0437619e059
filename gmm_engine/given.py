"""``Given``: a start of which a caller gives some parameters and leaves the others to be found.

Whole starts, mixtures as well as labels and responsibilities, need nothing of this.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmm_engine.errors import InvalidParameterError
from gmm_engine.mixture import BOTH, Mixture
from gmm_engine.validation import as_real_array, require_shape

SINGLE_PRECISION_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Given:
    """Parameters to start from; what is None comes from ``FitOptions.init_params``.

    The fitted components keep the order in which they are given.
    """

    weights: ArrayLike | None = None  # (K,)
    means: ArrayLike | None = None  # (K, D)
    precisions: ArrayLike | None = None
    """Σ⁻¹ in the family's own shape."""
    precisions_cholesky: ArrayLike | None = None
    """In their place: factors U with Σ⁻¹ = U Uᵀ, which say more of nearly collinear features."""

    def __post_init__(self) -> None:
        if self.precisions is not None and self.precisions_cholesky is not None:
            message = "can't be given beside precisions: one is made of the other"
            raise InvalidParameterError("precisions_cholesky", message)

    @property
    def is_empty(self) -> bool:
        return all(getattr(self, each.name) is None for each in fields(self))

    def in_place_of(self, found: Mixture) -> Mixture:
        """Return ``found`` with the given parameters in place of its own."""
        given = self._arrays()
        for name, value in given.items():
            require_shape(value, getattr(found, name).shape, what=name)
        own = found.to_arrays()
        if given.keys() & {"precisions", "precisions_cholesky"}:
            own = {name: value for name, value in own.items() if name not in BOTH}
        return Mixture.from_arrays({**own, **given}, found.covariance_type)

    def as_whole(self, covariance_type: str) -> Mixture | None:
        """Return the mixture that is given, if all of it is."""
        given = self._arrays()
        return Mixture.from_arrays(given, covariance_type) if len(given) == 3 else None

    def _arrays(self) -> dict[str, NDArray[np.float64]]:
        arrays = {
            name: as_real_array(value, what=name)
            for name in ("means", "precisions", "precisions_cholesky")
            if (value := getattr(self, name)) is not None
        }
        if self.weights is not None:
            arrays["weights"] = normalized_if_single(self.weights)
        return arrays


def normalized_if_single(weights: ArrayLike) -> NDArray[np.float64]:
    """Return the weights; singles, which can't sum to one exactly, scaled to do so."""
    array = as_real_array(weights, what="weights")
    total = array.sum()
    is_single = getattr(weights, "dtype", None) == np.float32
    if is_single and abs(total - 1.0) <= SINGLE_PRECISION_SUM_TOLERANCE:
        return np.asarray(array / total)
    return array
