"""What rows go through before a mixture sees them: standardised features, principal axes.

``Preprocessing`` is what is asked for, ``Transform`` what was measured on the training rows: one
affine map, x ↦ (x − c)/s A. ``MappedMixture`` is a mixture together with its map: rows go in as
they come, and densities are those of the mapped rows, in their ``space``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmm_engine.covariances import CovarianceFamily
from gmm_engine.criteria import Criteria
from gmm_engine.errors import InvalidDataError, InvalidParameterError
from gmm_engine.mixture import Mixture
from gmm_engine.regularization import CONSTANT_FEATURE
from gmm_engine.samples import Samples
from gmm_engine.validation import (
    as_real_array,
    as_samples,
    require_finite,
    require_integer_at_least,
    require_shape,
)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Which steps the rows go through; checks itself, raising ``InvalidParameterError``."""

    standardize: bool = False
    """Every feature is brought to mean 0 and standard deviation 1; a constant one to 0."""
    pca_components: int | None = None
    """Only so many principal axes are kept, those of the largest variance."""

    def __post_init__(self) -> None:
        if not isinstance(self.standardize, bool):
            raise InvalidParameterError("standardize", "must be true or false")
        if self.pca_components is not None:
            require_integer_at_least("pca_components", self.pca_components, 1)

    @property
    def is_empty(self) -> bool:
        return not self.standardize and self.pca_components is None

    def require_features(self, n_features: int) -> None:
        """Raise ``InvalidParameterError`` where there are fewer axes than are asked for."""
        if self.pca_components is not None and self.pca_components > n_features:
            raise InvalidParameterError(
                "pca_components", f"must be at most the number of features, {n_features}"
            )

    def n_kept(self, n_features: int) -> int:
        """Return how many features mapped rows have."""
        return n_features if self.pca_components is None else self.pca_components

    def shapes(self, n_features: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of what ``Transform.to_arrays`` gives; nothing of what is empty."""
        if self.is_empty:
            return {}
        shapes: dict[str, tuple[int, ...]] = {"center": (n_features,), "scale": (n_features,)}
        if self.pca_components is not None:
            shapes["axes"] = (n_features, self.pca_components)
            shapes["variance_ratio"] = (self.pca_components,)
        return shapes

    @property
    def space(self) -> str:
        """The name of the space that mapped rows are in."""
        if self.pca_components is not None:
            return "principal"
        return "standardized" if self.standardize else "original"


AS_THEY_COME = Preprocessing()
"""Rows go through nothing."""


@dataclass(frozen=True, slots=True)
class Transform:
    """An affine map of rows, as it was measured on some."""

    center: NDArray[np.float64]  # (n_features,)
    scale: NDArray[np.float64]  # (n_features,)
    """What each feature is divided by."""
    axes: NDArray[np.float64] | None = None  # (n_features, n_kept)
    """Orthonormal principal axes of the scaled rows, by falling variance."""
    variance_ratio: NDArray[np.float64] | None = None  # (n_kept,)
    """The share of all variance along each of them."""

    @classmethod
    def of(
        cls, preprocessing: Preprocessing, X: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Measure the map on these rows.

        Raises
        ------
        InvalidDataError
            One of its kinds.
        InvalidParameterError
            More principal axes are asked for than there are features.
        """
        samples = Samples.checked(X, sample_weight)
        n_kept = preprocessing.pca_components
        preprocessing.require_features(samples.n_features)
        share = samples.weights_or_ones / samples.total_weight
        center = samples.X[0] + share @ (samples.X - samples.X[0])
        scale = np.ones(samples.n_features)
        if preprocessing.standardize:
            scale = _spread(samples, center, share)
        if n_kept is None:
            return cls(center, scale)
        scaled = (samples.X - center) / scale
        return cls(center, scale, *_principal_axes(scaled, share, n_kept))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike]) -> Self:
        """Restore what ``to_arrays`` gave; raise an engine error for anything else."""
        known = {name: as_real_array(value, what=name) for name, value in arrays.items()}
        for name, value in known.items():
            require_finite(value, what=name)
        n_features = known["center"].size
        for name in ("center", "scale"):
            require_shape(known[name], (n_features,), what=name)
        if not (known["scale"] > 0).all():
            raise InvalidParameterError("scale", "must be positive")
        axes, ratio = known.get("axes"), known.get("variance_ratio")
        if axes is not None and ratio is not None:
            require_shape(axes, (n_features, ratio.size), what="axes")
            require_shape(ratio, (ratio.size,), what="variance_ratio")
        return cls(known["center"], known["scale"], axes, ratio)

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        arrays = {"center": self.center, "scale": self.scale}
        if self.axes is not None and self.variance_ratio is not None:
            arrays |= {"axes": self.axes, "variance_ratio": self.variance_ratio}
        return arrays

    @property
    def n_features(self) -> int:
        """Of the rows as they come."""
        return len(self.center)

    @property
    def n_kept(self) -> int:
        """Of the rows as they are mapped."""
        return self.n_features if self.axes is None else int(self.axes.shape[1])

    def apply(self, X: ArrayLike) -> NDArray[np.float64]:  # (n_samples, n_kept)
        """Map rows; the errors are those of ``validation.as_samples``."""
        scaled = (as_samples(X, n_features=self.n_features) - self.center) / self.scale
        return scaled if self.axes is None else np.ascontiguousarray(scaled @ self.axes)

    def undo(self, mapped: NDArray[np.float64]) -> NDArray[np.float64]:  # (n_samples, n_features)
        """Map rows back; across the axes that were left out they are at the centre."""
        scaled = mapped if self.axes is None else mapped @ self.axes.T
        return np.asarray(scaled * self.scale + self.center)


TRANSFORM_ARRAYS = ("center", "scale", "axes", "variance_ratio")
"""Names that ``Transform.to_arrays`` may give."""


class MappedMixture(Mixture):
    """A mixture of mapped rows that takes rows as they come.

    Attributes
    ----------
    transform : Transform
        What maps them. ``means``, ``family`` and densities are those of the mapped rows.
    """

    __slots__ = ("transform",)

    transform: Transform

    def __init__(
        self,
        weights: NDArray[np.float64],
        means: NDArray[np.float64],
        family: CovarianceFamily,
        transform: Transform | None = None,
    ) -> None:
        super().__init__(weights, means, family)
        n_features = means.shape[1]
        unmoved = Transform(np.zeros(n_features), np.ones(n_features))
        object.__setattr__(self, "transform", transform or unmoved)

    @classmethod
    def over(cls, transform: Transform, mixture: Mixture) -> "MappedMixture":
        """Put a map before a mixture of what it maps to."""
        if transform.n_kept != mixture.n_features:
            raise InvalidParameterError(
                "transform", f"maps to {transform.n_kept} features, not {mixture.n_features}"
            )
        return cls(mixture.weights, mixture.means, mixture.family, transform)

    def __reduce__(self) -> tuple[object, ...]:
        return mixture_from_arrays, (self.to_arrays(), self.covariance_type)

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return the parameters and the map as ``mixture_from_arrays`` takes them."""
        return {**super().to_arrays(), **self.transform.to_arrays()}

    @property
    def n_features(self) -> int:
        """Of the rows as they come."""
        return self.transform.n_features

    def reordered(self, order: NDArray[np.intp]) -> "MappedMixture":
        return MappedMixture.over(self.transform, super().reordered(order))

    def criteria(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> Criteria:
        return self._of_mapped().criteria(self._rows(X), sample_weight)

    def sample(
        self, n_samples: int, rng: np.random.Generator | int | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Draw rows and map them back; see ``Mixture.sample`` and ``Transform.undo``."""
        mapped, labels = self._of_mapped().sample(n_samples, rng)
        return self.transform.undo(mapped), labels

    def _of_mapped(self) -> Mixture:
        return Mixture(self.weights, self.means, self.family)

    def _rows(self, X: ArrayLike) -> NDArray[np.floating]:
        mapped = self.transform.apply(X)
        try:
            return as_samples(mapped)
        except InvalidDataError as error:
            if self.transform.axes is None:
                raise
            # An axis is no feature: of the rows as they come only the row is known.
            raise error.at([*dict.fromkeys((row,) for row, *_ in error.positions)]) from error


def mixture_from_arrays(arrays: Mapping[str, ArrayLike], covariance_type: str) -> Mixture:
    """Return what gave these arrays: a mixture, or a mapped one where there is a map among them."""
    of_transform = {name: arrays[name] for name in TRANSFORM_ARRAYS if name in arrays}
    rest = {name: arrays[name] for name in arrays if name not in of_transform}
    mixture = Mixture.from_arrays(rest, covariance_type)
    if not of_transform:
        return mixture
    return MappedMixture.over(Transform.from_arrays(of_transform), mixture)


def mapped_rows(mixture: Mixture, X: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows as the mixture sees them."""
    return mixture.transform.apply(X) if isinstance(mixture, MappedMixture) else X


def _spread(
    samples: Samples, center: NDArray[np.float64], share: NDArray[np.float64]
) -> NDArray[np.float64]:  # (n_features,)
    """Return the standard deviations; 1 for a feature that does not vary."""
    spread = np.sqrt(share @ np.square(samples.X - center))
    smallest, largest = samples.extent
    magnitude = np.maximum(largest, -smallest)
    is_constant = largest - smallest <= CONSTANT_FEATURE * magnitude
    return np.where(is_constant | (spread == 0.0), 1.0, spread)


def _principal_axes(
    scaled: NDArray[np.float64], share: NDArray[np.float64], n_kept: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # (n_features, n_kept), (n_kept,)
    """Return the first axes and their shares of the variance.

    Each points to where its largest part is positive, so that equal data has equal axes.
    """
    covariance = (scaled * share[:, np.newaxis]).T @ scaled
    variances, axes = np.linalg.eigh(covariance)
    axes, variances = axes[:, ::-1][:, :n_kept], np.maximum(variances[::-1], 0.0)
    largest = np.argmax(np.abs(axes), axis=0)
    signs = np.where(axes[largest, np.arange(n_kept)] < 0, -1.0, 1.0)
    total = variances.sum()
    ratio = variances[:n_kept] / total if total > 0 else np.zeros(n_kept)
    return np.ascontiguousarray(axes * signs), ratio
