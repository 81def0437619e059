"""The plane that a picture shows, and what is seen of a mixture in it.

A plane is spanned by features or by principal components. The shadow that a Gaussian mixture casts
on it is a Gaussian mixture again: the exact marginal, not a cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gmm_engine import Mixture
from service.errors import InvalidInput, Issue

WINDOW_SIGMAS = 3.5
"""How far around every mean a density is shown."""
PLACES, PLACES_AROUND = 200, 41
"""Along an axis, and around every mean, so that a narrow component is seen too."""
FEET_SIGMAS = np.array([-8.0, -6.0, -4.5, 4.5, 6.0, 8.0])
"""Where a component has come down to nothing: a line from its foot to the next place would add much
to one that is narrow."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One of those that the mixture sees."""

    name: str
    share_of_variance: float | None = None
    """Where it is a principal axis of the rows sent."""


@dataclass(frozen=True, slots=True)
class Axis:
    name: str
    direction: NDArray[np.float64]  # (n_features,)
    share_of_variance: float | None = None
    """Of a principal component; None for a feature, or where nothing varies."""


@dataclass(frozen=True, slots=True)
class Plane:
    axes: Sequence[Axis]
    """Two; one where a single feature is looked at."""
    origin: NDArray[np.float64]  # (n_features,)

    def project(self, X: NDArray[np.float64]) -> NDArray[np.float64]:  # (n_samples, n_axes)
        return np.ascontiguousarray((X - self.origin) @ self._basis)

    def shadow(self, mixture: Mixture) -> Mixture:
        """Return the marginal of a mixture in this plane."""
        return mixture.marginal(self._basis, self.origin)

    @property
    def _basis(self) -> NDArray[np.float64]:  # (n_features, n_axes)
        return np.stack([axis.direction for axis in self.axes], axis=1)


def places_along(
    means: NDArray[np.float64],  # (K,)
    deviations: NDArray[np.float64],  # (K,)
    seen: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return places along an axis at which the density of components is looked at, in order.

    They go around all components and what else is ``seen``.
    """
    around = means + deviations * np.linspace(-WINDOW_SIGMAS, WINDOW_SIGMAS, PLACES_AROUND)[:, None]
    everything = np.append(around, [] if seen is None else seen)
    low, high = everything.min(), everything.max()
    feet = means + deviations * FEET_SIGMAS[:, None]
    places = np.concatenate([np.linspace(low, high, PLACES), around.ravel(), feet.ravel()])
    return np.unique(places[(low <= places) & (places <= high)])


def plane_of(
    mixture: Mixture,
    X: NDArray[np.float64] | None,
    features: Sequence[Feature],
    wanted: Sequence[str] | None,
) -> Plane:
    """Return the plane of the ``wanted`` features, of all if there are two, or the principal one.

    The principal plane is that of the rows; without rows, that of the mixture itself.
    """
    if wanted is not None:
        return _of_features([_column(name, features) for name in wanted], features)
    if mixture.n_features <= 2:
        return _of_features(range(mixture.n_features), features)
    varies = X is not None and bool(np.any(X[0] != X))
    return _principal(*(_moments(X) if X is not None and varies else _moments_of(mixture)))


def _of_features(columns: Sequence[int], features: Sequence[Feature]) -> Plane:
    if len(set(columns)) != len(columns):
        raise _wrong_features("the two features must be different ones")
    unit = np.eye(len(features))
    axes = [
        Axis(features[each].name, unit[each], features[each].share_of_variance) for each in columns
    ]
    return Plane(axes, np.zeros(len(features)))


def _column(wanted: str, features: Sequence[Feature]) -> int:
    """Find a feature by its name, or else by its index."""
    names = [feature.name for feature in features]
    if wanted in names:
        return names.index(wanted)
    if wanted.isascii() and wanted.isdigit() and len(wanted) < 6 and int(wanted) < len(names):
        return int(wanted)
    raise _wrong_features("the model has no such feature; give its name, or its index from 0")


def _principal(origin: NDArray[np.float64], covariance: NDArray[np.float64]) -> Plane:
    values, vectors = np.linalg.eigh(covariance)
    total = float(values.sum())
    axes = []
    for place, number in ((-1, 1), (-2, 2)):
        direction = vectors[:, place]
        # Either sign is right; the same rows are to make the same picture everywhere.
        direction = direction * np.sign(direction[np.argmax(np.abs(direction))])
        share = max(float(values[place]), 0.0) / total if total > 0 else None
        axes.append(Axis(f"PC {number}", direction, share))
    return Plane(axes, origin)


def _moments(X: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and, up to a factor that can't overflow, the covariance of rows."""
    mean = X.mean(axis=0)
    centred = X - mean
    centred /= np.abs(centred).max()
    return mean, centred.T @ centred / len(X)


def _moments_of(mixture: Mixture) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean = mixture.weights @ mixture.means
    away = mixture.means - mean
    dense = mixture.to_dense()
    scale = max(np.abs(away).max(), np.sqrt(np.abs(dense).max()))
    between = (mixture.weights * (away / scale).T) @ (away / scale)
    within = np.tensordot(mixture.weights, dense / scale / scale, axes=1)
    return mean, between + within


def _wrong_features(detail: str) -> InvalidInput:
    return InvalidInput(
        "invalid_parameter", detail, issues=[Issue("#/query/features", "unknown_feature", detail)]
    )
