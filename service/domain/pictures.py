"""What pictures show, as numbers: what is answered as data, and what a painter draws from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.domain.planes import Plane


@dataclass(frozen=True, slots=True)
class Ellipse:
    """Where the Mahalanobis distance to a component's mean is so many sigmas."""

    sigmas: float
    width: float
    height: float
    angle_degrees: float
    """Of the width, counter-clockwise from the first axis."""


@dataclass(frozen=True, slots=True)
class Component:
    """As it is seen in the plane."""

    weight: float
    mean: NDArray[np.float64]  # (n_axes,)
    covariance: NDArray[np.float64]  # (n_axes, n_axes)
    ellipses: Sequence[Ellipse]
    """Of no height on a single axis."""


@dataclass(frozen=True, slots=True)
class Points:
    n_samples: int
    """Rows that were sent."""
    rows: NDArray[np.int64]  # (n_points,)
    """Indices of those that are shown: all, or a random part."""
    X: NDArray[np.float64]  # (n_points, n_axes)
    labels: NDArray[np.int64]  # (n_points,)


@dataclass(frozen=True, slots=True)
class ClustersPicture:
    plane: Plane
    components: Sequence[Component]
    points: Points | None
    """None where no rows were sent."""


@dataclass(frozen=True, slots=True)
class UncertaintyPicture:
    plane: Plane
    components: Sequence[Component]
    points: Points
    entropy: NDArray[np.float64]  # (n_points,)
    max_entropy: float
    """ln K: that of a row which could be of any component."""


@dataclass(frozen=True, slots=True)
class DensityLevel:
    share: float
    """Of the probability that lies where the density is at least as high."""
    log_density: float


@dataclass(frozen=True, slots=True)
class DensityPicture:
    plane: Plane
    components: Sequence[Component]
    points: Points | None
    x: NDArray[np.float64]  # (n,)
    y: NDArray[np.float64] | None  # (n,)
    """None on a single axis."""
    log_density: NDArray[np.float64]  # (n, n), a row for each y; (n,) on a single axis
    levels: Sequence[DensityLevel]
    """The highest first; none on a single axis."""


@dataclass(frozen=True, slots=True)
class ResponsibilitiesPicture:
    n_samples: int
    rows: NDArray[np.int64]  # (n_points,)
    """By label, then the surest first."""
    labels: NDArray[np.int64]  # (n_points,)
    probabilities: NDArray[np.float64]  # (n_points, K)


@dataclass(frozen=True, slots=True)
class ConvergencePicture:
    log_likelihood: Sequence[float]
    """After each step; the first is that of the start."""
    converged: bool
    stop_reason: str


@dataclass(frozen=True, slots=True)
class SelectionCurve:
    """The candidates of one family, by number of components."""

    covariance_type: str
    n_components: Sequence[int]
    values: Mapping[str, Sequence[float | None]]
    """By criterion."""


@dataclass(frozen=True, slots=True)
class BestCandidate:
    covariance_type: str
    n_components: int
    value: float


@dataclass(frozen=True, slots=True)
class SelectionPicture:
    criterion: str
    """That the version was chosen by."""
    curves: Sequence[SelectionCurve]
    best: Mapping[str, BestCandidate | None]
    """By criterion; None where no candidate has a finite value."""


@dataclass(frozen=True, slots=True)
class KMeansPicture:
    plane: Plane
    components: Sequence[Component]
    points: Points
    kmeans_labels: NDArray[np.int64]  # (n_points,)
    kmeans_centers: NDArray[np.float64]  # (K, n_axes)
    differing: NDArray[np.int64]
    """Indices of the points shown that the two put into different clusters."""
    n_differing: int
    """Of all rows sent."""


Picture = (
    ClustersPicture
    | UncertaintyPicture
    | DensityPicture
    | ResponsibilitiesPicture
    | ConvergencePicture
    | SelectionPicture
    | KMeansPicture
)

Palette = Literal["okabe-ito", "tol-muted", "cividis", "viridis"]
"""Each can be told apart by people who see few colours."""
Theme = Literal["light", "dark"]


@dataclass(frozen=True, slots=True)
class Style:
    """How a picture is drawn."""

    format: Literal["svg", "png"]
    width: int
    height: int
    """Both in pixels."""
    palette: Palette
    theme: Theme
