"""What keeps covariances away from the likelihood's singularities, given by ``reg_covar``.

A number is added to every covariance's diagonal in every M-step (``Ridge``, as in scikit-learn).
``"auto"`` is a floor in place of an addition (``VarianceFloor``): no covariance falls below a
tiny fraction of the data's own total covariance. Healthy components are left exactly as the
likelihood wants them; under the constraint Σ_k ⪰ F the M-step has the closed form used here
(eigenvalues relative to F are raised to 1), so EM stays monotone, and since F moves with the data
a change of the features' units changes nothing but units. Of units that mix features the same holds
of all but what lies on the floor: along a direction in which the data is narrow, covariances in
doubles resolve no less than the part of F that is relative to each feature.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gmm_engine import kernels
from gmm_engine.errors import OutOfRangeError
from gmm_engine.kernels import Bounds
from gmm_engine.samples import SampleSource
from gmm_engine.statistics import DenseScatter, SufficientStatistics

COVARIANCE_FLOOR = 1e-12
"""Smallest variance of a component relative to the data's, in any direction."""
FEATURE_FLOOR = 1e-13
"""The same relative to each feature alone; holds where features are collinear."""
CONSTANT_FEATURE = 1e-14
"""A spread below this fraction of the magnitude is rounding, not variation."""
ROUNDING = 16.0
"""Numbers are rounded a few times before they are data: variation below so many units in the last
place is none."""
FAR_FROM_MEAN = 100.0
"""Squared deviations about a point are summed anew if it is, squared, so many variances from the
mean: two digits are lost by then."""
SMALLEST_SPREAD = 1e-142
"""The floor is a fraction of squares; of smaller spreads it, or its inverse, leaves the range."""
TREATED_TOGETHER = 100_000
"""Numbers of matrices that are looked at together, so that what is made of them stays small."""

_NONE = np.empty(0)


class HeldUp(NamedTuple):
    """Covariances as a regularisation lets them be."""

    covariances: NDArray[np.float64]
    n_held: NDArray[np.intp]
    """For each, in how many directions it had to be held up: 0 is healthy."""
    factors: NDArray[np.float64] | None = None
    """U with Σ⁻¹ = U Uᵀ where any of them lies on the floor, of which the numbers of a covariance
    with others hold but four digits. They need not be triangular; NaN for a healthy one."""


class Regularization(Protocol):
    """Makes estimated covariances fit to be factored, form by form.

    The M-step applies the bounds. Where covariances are below the floor, a method holds them up.
    """

    @property
    def dense_bounds(self) -> Bounds: ...

    @property
    def diagonal_bounds(self) -> Bounds: ...

    @property
    def scalar_bounds(self) -> Bounds: ...

    @property
    def least_spread(self) -> NDArray[np.float64]:  # (D,)
        """Variation that is none: of what is held up with less, the likelihood means nothing."""

    def dense(self, covariances: NDArray[np.float64]) -> HeldUp:
        """Treat (K, D, D) matrices."""

    def diagonal(self, variances: NDArray[np.float64]) -> HeldUp:
        """Treat (K, D) diagonals."""

    def scalar(self, variances: NDArray[np.float64]) -> HeldUp:
        """Treat (K,) variances common to all features."""


@dataclass(frozen=True, slots=True)
class Ridge:
    """Adds one number to every variance."""

    value: float

    @property
    def dense_bounds(self) -> Bounds:
        return Bounds(ridge=self.value, scale=_NONE, floor=_NONE)

    diagonal_bounds = scalar_bounds = dense_bounds

    @property
    def least_spread(self) -> NDArray[np.float64]:
        return _NONE

    def dense(self, covariances: NDArray[np.float64]) -> HeldUp:
        return HeldUp(covariances, np.zeros(len(covariances), dtype=np.intp))  # there is no floor

    diagonal = scalar = dense


@dataclass(frozen=True, slots=True)
class VarianceFloor:
    """Holds covariances above F = S·(ε R + η I)·S, with S the scales and R the correlations."""

    scale: NDArray[np.float64]  # (D,)
    """The data's standard deviation by feature."""
    shape: NDArray[np.float64]  # (D, D)
    """εR + ηI: the floor in units of ``scale``."""
    n_flat: int
    """Directions in which the data itself does not vary: not a component's fault."""
    is_constant: NDArray[np.bool_]  # (D,)
    axes: NDArray[np.float64]  # (D, D or less)
    """The data's principal axes, in units of ``scale``, along which it varies beyond the floor."""
    along: NDArray[np.float64]
    """The floor's variance along each of them."""
    across: NDArray[np.float64]  # (D, D)
    """The floor in all other directions, where every component lies on it."""
    rounding: NDArray[np.float64]  # (D,)
    """How much the data varies by being rounded."""

    @classmethod
    def of_total(
        cls,
        total: NDArray[np.float64],
        magnitude: NDArray[np.float64],
        is_constant: NDArray[np.bool_],
        rounding: NDArray[np.float64],
    ) -> "VarianceFloor":
        """Build the floor from the data's total covariance.

        A constant feature has no spread to measure by: its largest |x| stands in, or 1 where
        that is next to nothing.
        """
        constant = is_constant
        fallback = np.where(magnitude > SMALLEST_SPREAD, magnitude, 1.0)
        scale = np.where(constant, fallback, np.sqrt(np.diagonal(total)))
        correlation = total / scale / scale[:, np.newaxis]
        correlation[constant, :] = 0.0
        correlation[:, constant] = 0.0
        eigenvalues, vectors = np.linalg.eigh(correlation)
        varies = eigenvalues > FEATURE_FLOOR
        vectors[constant] = 0.0  # that of the others' axes is rounding, if anything
        others = vectors[:, ~varies]
        across = FEATURE_FLOOR * (others @ others.T)
        across[constant, constant] = FEATURE_FLOOR
        return cls(
            scale=scale,
            shape=COVARIANCE_FLOOR * correlation + FEATURE_FLOOR * np.eye(len(scale)),
            n_flat=int(np.count_nonzero(eigenvalues < 10 * FEATURE_FLOOR * len(scale))),
            is_constant=constant,
            axes=np.ascontiguousarray(vectors[:, varies]),
            along=COVARIANCE_FLOOR * eigenvalues[varies] + FEATURE_FLOOR,
            across=across,
            rounding=rounding,
        )

    @property
    def dense_bounds(self) -> Bounds:
        return Bounds(ridge=0.0, scale=self.scale, floor=self.shape.reshape(-1))

    @property
    def diagonal_bounds(self) -> Bounds:
        return Bounds(ridge=0.0, scale=self.scale, floor=self._feature_floor)

    @property
    def scalar_bounds(self) -> Bounds:
        return Bounds(ridge=0.0, scale=self.scale, floor=np.array([self._mean_floor]))

    @property
    def least_spread(self) -> NDArray[np.float64]:  # (D,)
        return np.where(self.is_constant, np.inf, self.rounding)

    def dense(self, covariances: NDArray[np.float64]) -> HeldUp:
        held, n_held = covariances, np.zeros(len(covariances), dtype=np.intp)
        factors: NDArray[np.float64] | None = None
        n_at_once = max(1, TREATED_TOGETHER // len(self.scale) ** 2)
        for begin in range(0, len(covariances), n_at_once):
            for k, raised, n_raised, factor in self._below(covariances[begin : begin + n_at_once]):
                if held is covariances:
                    held = covariances.copy()
                held[begin + k], n_held[begin + k] = raised, n_raised
                if factor is not None:
                    factors = np.full(held.shape, np.nan) if factors is None else factors
                    factors[begin + k] = factor
        return HeldUp(held, n_held, factors)

    def _below(
        self, covariances: NDArray[np.float64]
    ) -> Iterator[tuple[int, NDArray[np.float64], int, NDArray[np.float64] | None]]:
        """Yield the places of those below the floor, held up, in how many directions, and U."""
        n_across = len(self.scale) - len(self.along)
        scaled = covariances / self.scale / self.scale[:, np.newaxis]
        if not n_across and _is_positive_definite(scaled - self.shape):
            return
        for k, matrix in enumerate(scaled):
            if not n_across and _is_positive_definite((matrix - self.shape)[np.newaxis]):
                continue
            along, factor = self.axes.T @ matrix @ self.axes, None
            root, n_raised = self._raised(along)
            if root is not None:
                along = root @ root.T
                factor = self._inverse_root(root) / self.scale[:, np.newaxis]
            whole = self.axes @ along @ self.axes.T + self.across
            n_held = max(n_raised - (self.n_flat - n_across), 0)
            yield k, whole * self.scale * self.scale[:, np.newaxis], n_held, factor

    def diagonal(self, variances: NDArray[np.float64]) -> HeldUp:
        floor = self._feature_floor
        n_held = np.count_nonzero((variances < floor) & ~self.is_constant, axis=-1)
        return HeldUp(np.maximum(variances, floor), n_held)

    def scalar(self, variances: NDArray[np.float64]) -> HeldUp:
        floor = self._mean_floor
        return HeldUp(np.maximum(variances, floor), (variances < floor).astype(np.intp))

    @property
    def _feature_floor(self) -> NDArray[np.float64]:  # (D,)
        return np.diagonal(self.shape) * np.square(self.scale)

    @property
    def _mean_floor(self) -> float:
        counted = ~self.is_constant if not self.is_constant.all() else self.is_constant
        return float(self._feature_floor[counted].sum()) / len(self.scale)

    def _raised(self, matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64] | None, int]:
        """Raise what a matrix along ``axes`` has below the floor; tell in how many directions.

        Returns R with R Rᵀ what it becomes, whose columns are orthogonal in units of the floor;
        None where nothing is below it.
        """
        if not matrix.size or _is_positive_definite((matrix - np.diag(self.along))[np.newaxis]):
            return None, 0
        unit = np.sqrt(self.along)
        relative = matrix / unit / unit[:, np.newaxis]
        eigenvalues, vectors = np.linalg.eigh(0.5 * (relative + relative.T))
        # Rounding in `relative` is of the size of its largest eigenvalue.
        least = max(1.0, 16 * np.finfo(float).eps * len(matrix) * eigenvalues[-1])
        root = unit[:, np.newaxis] * vectors * np.sqrt(np.maximum(eigenvalues, least))
        return root, int(np.count_nonzero(eigenvalues < least))

    def _inverse_root(self, root: NDArray[np.float64]) -> NDArray[np.float64]:  # (D, D)
        """Return U with (U Uᵀ)⁻¹ = A R Rᵀ Aᵀ + ``across``, A the axes and R the root."""
        relative = root / np.sqrt(self.along)[:, np.newaxis]
        inverse = relative / np.square(relative).sum(axis=0) / np.sqrt(self.along)[:, np.newaxis]
        variances, others = np.linalg.eigh(self.across)
        beyond = slice(len(self.along), None)
        return np.hstack([self.axes @ inverse, others[:, beyond] / np.sqrt(variances[beyond])])


@dataclass(frozen=True, slots=True)
class DataScale:
    """The data as one Gaussian: what a scale-free start and floor are measured against."""

    mean: NDArray[np.float64]  # (D,)
    covariance: NDArray[np.float64]  # (D, D)
    floor: VarianceFloor
    constant_features: tuple[int, ...]

    @classmethod
    def of(cls, samples: SampleSource) -> "DataScale":
        """Measure the data; raises ``OutOfRangeError`` where a square would be."""
        smallest, largest = samples.extent
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
            whole = total(samples, 0.5 * smallest + 0.5 * largest)
            covariance = whole.central_scatter[0] / whole.n_samples
            if (np.square(whole.shift[0]) > FAR_FROM_MEAN * np.diagonal(covariance)).any():
                whole = total(samples, whole.means[0])
                covariance = whole.central_scatter[0] / whole.n_samples
        magnitude, extent = np.maximum(largest, -smallest), largest - smallest
        constant = extent <= CONSTANT_FEATURE * magnitude
        is_flat = ~(np.diagonal(covariance) > 0.0)
        too_narrow = np.flatnonzero(~constant & ((extent < SMALLEST_SPREAD) | is_flat))
        if not np.isfinite(covariance).all():
            raise OutOfRangeError(
                "the squares of the data's deviations leave the range of a double; "
                "rescale the features"
            )
        if too_narrow.size:
            named = ", ".join(map(str, too_narrow))
            raise OutOfRangeError(
                f"features {named} spread over less than {SMALLEST_SPREAD:g}, and what bounds "
                "variances from below leaves the range of a double; rescale the features"
            )
        return cls(
            mean=whole.means[0],
            covariance=covariance,
            floor=VarianceFloor.of_total(
                covariance, magnitude, constant, ROUNDING * samples.precision * magnitude
            ),
            constant_features=tuple(map(int, np.flatnonzero(constant))),
        )

    def whitened(self, X: NDArray[np.float64]) -> NDArray[np.float64]:  # (n_samples, D or less)
        """Return rows whose covariance over the data is one, but in flat directions."""
        variances, axes = self._principal_axes()
        return self._along(axes / np.sqrt(variances), X)

    def standardized(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return rows in units of each feature's spread, (n_samples, D or less).

        They are turned into the data's principal axes, but no distance changes.
        """
        _, axes = self._principal_axes()
        return self._along(axes, X)

    @property
    def n_directions(self) -> int:
        """In how many directions the data varies."""
        return len(self.mean) - self.floor.n_flat

    def _principal_axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return variances, in units of each feature's spread, and their axes, (D, D or less)."""
        scale = self.floor.scale
        correlation = self.covariance / scale / scale[:, np.newaxis]
        eigenvalues, vectors = np.linalg.eigh(correlation)
        varying = eigenvalues > FEATURE_FLOOR * len(scale)
        varying[-1] = True  # the widest axis stays, even of data that does not vary at all
        return np.maximum(eigenvalues[varying], FEATURE_FLOOR), vectors[:, varying]

    def _along(
        self, axes: NDArray[np.float64], X: NDArray[np.float64]
    ) -> NDArray[np.float64]:  # (n_samples, D or less)
        deviations = X - self.mean
        deviations /= self.floor.scale  # in place: large rows are seen anew for each start
        return np.asarray(deviations @ axes)


def total(samples: SampleSource, center: NDArray[np.float64]) -> SufficientStatistics:
    """Sum up all rows about one centre: a single component that no distance counts for."""
    D = samples.n_features
    indifferent = kernels.Prepared.of(
        weights=np.ones(1),
        means=center[np.newaxis],
        whitening=np.zeros((1, D, D)),
        log_det=np.zeros(1),
    )
    moments = kernels.expectation(indifferent, samples.chunks())
    return SufficientStatistics.of_moments(DenseScatter, center[np.newaxis], moments)


def regularization(reg_covar: float | Literal["auto"], scale: DataScale) -> Regularization:
    """Return what ``reg_covar`` stands for on data of this scale."""
    return scale.floor if reg_covar == "auto" else Ridge(float(reg_covar))


def _is_positive_definite(matrices: NDArray[np.float64]) -> bool:
    return kernels.cholesky_factors(matrices)[1] < 0
