"""The covariance families: one class each, and the table that names them.

A family holds the covariances of K components over D features in its own shape, factored once.
It can be estimated from sufficient statistics, whiten rows, colour noise, and tell its dense
matrices, its parameter count and its precision factors. A new family is one class and its line
in ``COVARIANCE_FAMILIES``; nothing else asks which family it has.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from typing import ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import rq, solve_triangular

from gmm_engine import kernels
from gmm_engine.errors import InvalidParameterError, SingularCovarianceError
from gmm_engine.regularization import HeldUp, Regularization
from gmm_engine.statistics import (
    DenseScatter,
    DiagonalScatter,
    PooledScatter,
    Scatter,
    SufficientStatistics,
    TraceScatter,
)
from gmm_engine.validation import require_finite, require_shape

SYMMETRY_TOLERANCE = 1e-8
"""Given matrices may differ from their transpose by this, relative to their diagonal."""

INVERSE_TOLERANCE = 1e-6
"""Given factors may differ from those of the covariances that they are given with by this, and by
what rounding makes of it where covariances are nearly singular."""

FLAT_FACTOR = 4 * float(np.finfo(float).eps)
"""A factor that had to be made triangular has no inverse where its diagonal is no more than this,
relative to a row."""
LEAST_FACTOR = float(np.finfo(float).eps) / 16
"""No diagonal of a factor that was found in other coordinates is less, relative to its row."""

LARGE = 20_000
"""Matrices of more numbers are kept as triangles while their mixture waits."""

CHECKED_TOGETHER = 100_000
"""Numbers of matrices that are looked at together, so that what is made of them stays small."""

Number = TypeVar("Number", np.float64, np.intp)

RAISE_REG_COVAR = "raise reg_covar, lower n_components, or use reg_covar='auto'"
GIVE_ANOTHER_MATRIX = "give a symmetric positive definite matrix"
GIVE_FACTORS = (
    f"{GIVE_ANOTHER_MATRIX}; that of nearly collinear features may not be in doubles: give its "
    "factors as precisions_cholesky, by Given or Mixture.from_arrays"
)
COVARIANCE, PRECISION = "covariance", "precision"
"""Of which an error says that it is not positive definite: the one that was given."""


class CovarianceFamily(ABC):
    """Covariances of K components over D features, prepared for use."""

    name: ClassVar[str]
    form: ClassVar[type[Scatter]]
    """The second moments that ``estimate`` needs."""
    has_correlations: ClassVar[bool]
    """Whether features may vary together within a component."""
    is_common: ClassVar[bool]
    """Whether all components share a matrix, or all features of a component a variance."""

    n_components: int
    n_features: int
    log_det: NDArray[np.float64]  # (K,)
    """log |Σ_k|"""
    _whole: NDArray[np.float64] | None
    """The covariances, or None where their triangles are kept in their stead."""
    _lower: NDArray[np.float64] | None = None  # (n_sets, D (D + 1) / 2)
    """Their lower triangles, row by row."""
    _upper: NDArray[np.float64] | None
    """``precisions_cholesky``, or None where it is made again when asked for."""
    has_given_factors: bool = False
    """Whether ``precisions_cholesky`` was given, and says more than the covariances may."""

    def __init__(
        self,
        covariances: NDArray[np.float64],
        n_components: int,
        n_features: int,
        *,
        remedy: str = GIVE_ANOTHER_MATRIX,
        what: str = COVARIANCE,
        factors: kernels.Factors | None = None,
        precisions_cholesky: NDArray[np.float64] | None = None,
    ) -> None:
        """Factor covariances in the family's own shape, naming the first that has no factor.

        Where factors are given the covariances are kept as they are: in doubles those of nearly
        collinear features need not have any.
        """
        self.n_components, self.n_features = n_components, n_features
        self._whole = covariances
        if precisions_cholesky is not None:
            self._require_regular(precisions_cholesky)
            self._upper, self.has_given_factors = precisions_cholesky, True
            self.log_det = self._log_det_of(precisions_cholesky)
            return
        factors = factors or kernels.factors_of(
            covariances,
            n_sets=self.n_sets,
            n_features=n_features,
            is_dense=self.has_correlations,
        )
        if factors.singular >= 0:
            raise SingularCovarianceError(factors.singular, remedy, what=what)
        self._upper = factors.upper.reshape(covariances.shape)
        self.log_det = self._by_component(factors.log_det)

    def _require_regular(self, factors: NDArray[np.float64]) -> None:
        """Raise for the first set whose factors, or covariances, leave a direction flat."""
        diagonal = np.diagonal(factors, axis1=-2, axis2=-1) if self.has_correlations else factors
        is_regular = (diagonal > 0.0).reshape(self.n_sets, -1).all(axis=1)
        is_regular &= np.isfinite(self._covariances).reshape(self.n_sets, -1).all(axis=1)
        if not is_regular.all():
            component = int(np.argmin(is_regular))
            raise SingularCovarianceError(component, GIVE_ANOTHER_MATRIX, what=PRECISION)

    @classmethod
    def of_step(cls, steps: kernels.Steps, row: int) -> Self:
        """Take what a compiled EM step has found and factored."""
        n_components, n_features = steps.means.shape[1:]
        shape = cls.shape(n_components, n_features)
        self = cls.__new__(cls)
        self.n_components, self.n_features = n_components, n_features
        self._whole = steps.covariances[row].reshape(shape)
        self._upper = steps.upper[row].reshape(shape)
        self.log_det = self._by_component(steps.log_det[row])
        return self

    @property
    def _covariances(self) -> NDArray[np.float64]:
        if self._whole is not None:
            return self._whole
        assert self._lower is not None  # noqa: S101 - one of them is kept
        whole = from_lower_triangles(self._lower, self.n_features)
        return whole.reshape(self.shape(self.n_components, self.n_features))

    @property
    def size(self) -> int:
        """How many numbers the covariances are."""
        return math.prod(self.shape(self.n_components, self.n_features))

    @property
    def is_large(self) -> bool:
        """Whether they are so many that memory counts."""
        return self.has_correlations and self.size > LARGE

    @property
    def lower_triangles(self) -> NDArray[np.float64]:  # (n_sets, D (D + 1) / 2)
        """The lower triangles of the matrices, row by row; kept for whoever asks again."""
        if self._lower is None:
            D = self.n_features
            self._lower = lower_triangles(self._covariances.reshape(self.n_sets, D, D))
        return self._lower

    def bare(self) -> Self:
        """Return the same without its factors, which are as large and can be made again.

        Large matrices are symmetric to the last bit, and kept as triangles.
        """
        is_small = self._whole is None or not self.is_large
        if self.has_given_factors or (self._upper is None and is_small):
            return self
        family = copy(self)
        family._upper = None  # noqa: SLF001 - its own kind
        if not is_small:
            family._lower, family._whole = self.lower_triangles, None  # noqa: SLF001 - as above
        return family

    def whole(self) -> Self:
        """Return the same with covariances as they are asked for."""
        if self._whole is not None:
            return self
        family = copy(self)
        family._whole, family._lower = self._covariances, None  # noqa: SLF001 - its own kind
        return family

    @property
    def precisions_cholesky(self) -> NDArray[np.float64]:
        """Factors U with Σ⁻¹ = U Uᵀ, upper triangular; 1/σ where the family is diagonal."""
        if self._upper is None:
            covariances = self._covariances
            factors = kernels.factors_of(
                covariances,
                n_sets=self.n_sets,
                n_features=self.n_features,
                is_dense=self.has_correlations,
            )
            self._upper = factors.upper.reshape(covariances.shape)
        return self._upper

    @classmethod
    def maximized(
        cls, statistics: SufficientStatistics, regularization: Regularization
    ) -> tuple[kernels.Estimates, Self, NDArray[np.intp]]:
        """Maximise the expected likelihood over mixtures of this family.

        Returns what was found, the family, and, by component, in how many directions it had to
        be held up. Raises ``SingularCovarianceError`` where the regularisation does not suffice.
        """
        found = kernels.estimates(
            is_dense=cls.has_correlations,
            is_common=cls.is_common,
            nk=statistics.nk,
            first=statistics.first,
            scatter=statistics.scatter,
            centers=statistics.centers,
            bounds=cls.bounds(regularization),
        )
        K, D = statistics.centers.shape
        covariances = found.covariances.reshape(cls.shape(K, D))
        if found.factors is None:
            held = cls._held_up(covariances, regularization)
            return found, cls._of_held(held, K, D), np.broadcast_to(held.n_held, K)
        family = cls(covariances, K, D, remedy=RAISE_REG_COVAR, factors=found.factors)
        return found, family, np.zeros(K, dtype=np.intp)

    def held_up(self, regularization: Regularization) -> Self:
        """Return this, or what it becomes where it is below the regularisation's floor."""
        if not len(self.bounds(regularization).floor):
            return self
        given = self._covariances
        held = self._held_up(given, regularization)
        if held.covariances is given or np.array_equal(held.covariances, given):
            return self
        return self._of_held(held, self.n_components, self.n_features)

    @classmethod
    def _of_held(cls, held: HeldUp, n_components: int, n_features: int) -> Self:
        """Take what a regularisation made of covariances, by their factors if it gives some.

        Both are changed in place then.
        """
        upper, covariances = held.factors, held.covariances
        if upper is not None:
            for matrices, factors in _portions_of(covariances, upper):
                is_raised = np.isfinite(factors).all(axis=(1, 2))
                matrices[is_raised], factors[is_raised] = cls._agreeing(
                    matrices[is_raised], factors[is_raised]
                )
                lower = _cholesky_factors(matrices[~is_raised], RAISE_REG_COVAR)
                factors[~is_raised] = kernels.inverse_transposes(lower)
            upper = upper.reshape(covariances.shape)
        return cls(
            covariances,
            n_components,
            n_features,
            remedy=RAISE_REG_COVAR,
            precisions_cholesky=upper,
        )

    @classmethod
    def _agreeing(
        cls, covariances: NDArray[np.float64], factors: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return matrices, and their factors made triangular, as ``from_both`` takes them.

        Where rounding has left of a matrix what is not its factor's, that of the factor takes its
        place.
        """
        upper = np.empty(factors.shape)
        for part, given, found in _portions_of(covariances, factors, upper):
            found[:] = _raised_diagonal(_triangular(given))
            is_lost = ~cls._are_inverse(part, found)
            if is_lost.any():
                part[is_lost] = _inverted(found[is_lost])
        return covariances, upper

    @classmethod
    def estimate(
        cls, statistics: SufficientStatistics, regularization: Regularization
    ) -> tuple[Self, NDArray[np.intp]]:
        """Return the covariances alone of what ``maximized`` finds, and how they were held up."""
        return cls.maximized(statistics, regularization)[1:]

    @staticmethod
    @abstractmethod
    def shape(n_components: int, n_features: int) -> tuple[int, ...]:
        """Return the shape that the covariances have."""

    @staticmethod
    @abstractmethod
    def bounds(regularization: Regularization) -> kernels.Bounds:
        """Return what the regularisation does to covariances of this shape."""

    @staticmethod
    @abstractmethod
    def _held_up(covariances: NDArray[np.float64], regularization: Regularization) -> HeldUp:
        """Hold up what is below the floor; tell in how many directions by component, or all."""

    @classmethod
    @abstractmethod
    def from_array(cls, array: NDArray[np.float64], n_components: int, n_features: int) -> Self:
        """Take covariances in the family's own shape; raise on anything that is not one."""

    @classmethod
    @abstractmethod
    def from_precisions(
        cls, array: NDArray[np.float64], n_components: int, n_features: int
    ) -> Self:
        """Take the covariances' inverses, as ``precisions`` gives them."""

    @classmethod
    @abstractmethod
    def from_precisions_cholesky(
        cls, array: NDArray[np.float64], n_components: int, n_features: int
    ) -> Self:
        """Take factors U with Σ⁻¹ = U Uᵀ, as ``precisions_cholesky`` gives them, and keep them."""

    @classmethod
    def from_both(
        cls,
        covariances: NDArray[np.float64],
        precisions_cholesky: NDArray[np.float64],
        n_components: int,
        n_features: int,
    ) -> Self:
        """Take covariances and, as given, their ``precisions_cholesky``.

        Raises ``InvalidParameterError`` where, as far as doubles tell, one is not the other's.
        """
        factors = cls._as_factors(precisions_cholesky, n_components, n_features)
        require_shape(covariances, cls.shape(n_components, n_features), what="covariances")
        if cls.has_correlations:
            covariances = _symmetric(covariances, what="covariances")
        if not cls._are_inverse(covariances, factors).all():
            raise InvalidParameterError(
                "precisions_cholesky", "must be the factors of the inverses of the covariances"
            )
        return cls(covariances, n_components, n_features, precisions_cholesky=factors)

    @classmethod
    def of_other_coordinates(
        cls,
        covariances: NDArray[np.float64],  # (n_sets, D, D)
        factors: NDArray[np.float64],  # (n_sets, D, D)
        n_components: int,
    ) -> Self:
        """Take correlations that were found, and factored, in other coordinates.

        Factors need not be triangular, nor matrices symmetric to the last bit. Where cancellation
        has left of a matrix what is not its factor's, that of the factor takes its place.
        """
        covariances, upper = cls._agreeing(_mirrored(covariances), factors)
        shape = cls.shape(n_components, covariances.shape[-1])
        return cls(
            covariances.reshape(shape),
            n_components,
            covariances.shape[-1],
            precisions_cholesky=upper.reshape(shape),
        )

    @classmethod
    def _are_inverse(
        cls, covariances: NDArray[np.float64], factors: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Tell of each set whether Uᵀ Σ U misses I by no more than rounding of Σ and U makes it."""
        if not cls.has_correlations:
            excess = np.abs(covariances * np.square(factors) - 1.0) - INVERSE_TOLERANCE
            return np.asarray(excess <= 0.0)
        excess = np.abs(
            np.swapaxes(factors, -1, -2) @ covariances @ factors - np.eye(covariances.shape[-1])
        ) - (INVERSE_TOLERANCE + _rounding_of_inverse(covariances, factors))
        return np.asarray((excess <= 0.0).all(axis=(-2, -1)))

    @classmethod
    def _as_factors(
        cls, array: NDArray[np.float64], n_components: int, n_features: int
    ) -> NDArray[np.float64]:
        """Return ``precisions_cholesky`` as they are kept; raise on anything that is not that."""
        shape = cls.shape(n_components, n_features)
        require_shape(array, shape, what="precisions_cholesky")
        if not cls.has_correlations:
            return np.abs(array)
        return _as_upper(array.reshape(-1, n_features, n_features)).reshape(shape)

    @classmethod
    def readers(cls) -> Mapping[str, Callable[[NDArray[np.float64], int, int], Self]]:
        """Return what a family can be made from, by the parameter's name."""
        return {
            "covariances": cls.from_array,
            "precisions": cls.from_precisions,
            "precisions_cholesky": cls.from_precisions_cholesky,
        }

    @classmethod
    @abstractmethod
    def from_dense(cls, dense: NDArray[np.float64], weights: NDArray[np.float64]) -> Self:
        """Take the likeliest member for components with these (K, D, D) covariances.

        It is they themselves, but for rounding, where they belong to this family.
        """

    def to_array(self) -> NDArray[np.float64]:
        """Return the covariances in the family's own shape."""
        return read_only(self._covariances)

    @abstractmethod
    def to_dense(self) -> NDArray[np.float64]:  # (K, D, D)
        """Return the covariance matrix of every component."""

    def along(self, basis: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return the covariances along directions (D, n), or their precisions' factors, by name.

        Where factors are given it is these: along nearly collinear directions covariances may
        have none.
        """
        if self.has_given_factors and self.has_correlations:
            factors = np.broadcast_to(self.whitening, self.shape_of_dense)
            return {"precisions_cholesky": np.stack([_factor_along(U, basis) for U in factors])}
        dense = basis.T @ self.to_dense() @ basis
        return {"covariances": (dense + dense.transpose(0, 2, 1)) / 2}

    @property
    def shape_of_dense(self) -> tuple[int, int, int]:
        return self.n_components, self.n_features, self.n_features

    @property
    @abstractmethod
    def precisions(self) -> NDArray[np.float64]:
        """The inverses, in the family's own shape."""

    @property
    @abstractmethod
    def whitening(self) -> NDArray[np.float64]:
        """What the compiled passes whiten rows with.

        Factors U with Σ⁻¹ = U Uᵀ, (K, D, D) or (1, D, D) when all components share one; or 1/σ,
        (K, D) or (K,), where the family is diagonal.
        """

    @abstractmethod
    def color(self, noise: NDArray[np.float64], component: int) -> NDArray[np.float64]:
        """Turn standard normal rows into rows with the component's covariance."""

    @staticmethod
    @abstractmethod
    def units(scale: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the size of a covariance of features with this spread, in its own shape."""

    def reordered(self, order: NDArray[np.intp]) -> Self:
        """Return the family with its components in another order."""
        given = self.precisions_cholesky[order] if self.has_given_factors else None
        return type(self)(
            self._covariances[order],
            self.n_components,
            self.n_features,
            precisions_cholesky=given,
        )

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Free parameters of all covariances together."""

    @property
    def n_sets(self) -> int:
        """How many matrices, or rows of variances, there are."""
        return 1 if self.has_correlations and self.is_common else self.n_components

    def _by_component(self, log_det: NDArray[np.float64]) -> NDArray[np.float64]:
        return (
            log_det if len(log_det) == self.n_components else np.repeat(log_det, self.n_components)
        )

    def _log_det_of(self, precisions_cholesky: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return log |Σ_k| = −2 Σ_j log U_jj."""
        if self.has_correlations:
            precisions_cholesky = np.diagonal(precisions_cholesky, axis1=-2, axis2=-1)
        by_set = -2.0 * np.log(precisions_cholesky.reshape(self.n_sets, -1)).sum(axis=-1)
        if self.is_common and not self.has_correlations:
            by_set *= self.n_features
        return self._by_component(by_set)


class FullCovariances(CovarianceFamily):
    """Any matrix for each component, (K, D, D)."""

    name = "full"
    form = DenseScatter
    is_common = False
    has_correlations = True

    @staticmethod
    def shape(n_components: int, n_features: int) -> tuple[int, ...]:
        return (n_components, n_features, n_features)

    @staticmethod
    def bounds(regularization: Regularization) -> kernels.Bounds:
        return regularization.dense_bounds

    @staticmethod
    def _held_up(covariances: NDArray[np.float64], regularization: Regularization) -> HeldUp:
        held = regularization.dense(covariances)
        if held.covariances is covariances:
            return held
        return held._replace(covariances=_mirrored(held.covariances))

    @classmethod
    def from_array(cls, array: NDArray[np.float64], n_components: int, n_features: int) -> Self:
        require_shape(array, (n_components, n_features, n_features), what="covariances")
        return cls(_symmetric(array, what="covariances"), n_components, n_features)

    @classmethod
    def from_precisions(
        cls, array: NDArray[np.float64], n_components: int, n_features: int
    ) -> Self:
        require_shape(array, (n_components, n_features, n_features), what="precisions")
        factors = _upper_factors(_symmetric(array, what="precisions"))
        return cls(_inverted(factors), n_components, n_features, precisions_cholesky=factors)

    @classmethod
    def from_precisions_cholesky(
        cls, array: NDArray[np.float64], n_components: int, n_features: int
    ) -> Self:
        factors = cls._as_factors(array, n_components, n_features)
        return cls(_inverted(factors), n_components, n_features, precisions_cholesky=factors)

    @classmethod
    def from_dense(cls, dense: NDArray[np.float64], weights: NDArray[np.float64]) -> Self:  # noqa: ARG003 - each component has its own matrix
        return cls(_mirrored(dense), *dense.shape[:2])

    def to_dense(self) -> NDArray[np.float64]:
        return read_only(self._covariances)

    @property
    def precisions(self) -> NDArray[np.float64]:
        return np.asarray(self.precisions_cholesky @ self.precisions_cholesky.transpose(0, 2, 1))

    @property
    def whitening(self) -> NDArray[np.float64]:
        return self.precisions_cholesky

    def color(self, noise: NDArray[np.float64], component: int) -> NDArray[np.float64]:
        if self.has_given_factors:
            return _colored(noise, self.precisions_cholesky[component])
        lower = _cholesky_factors(self._covariances[component : component + 1], RAISE_REG_COVAR)
        return np.asarray(noise @ lower[0].T)

    @staticmethod
    def units(scale: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.multiply.outer(scale, scale)

    @property
    def n_parameters(self) -> int:
        return self.n_components * self.n_features * (self.n_features + 1) // 2


class TiedCovariances(CovarianceFamily):
    """One matrix common to all components, (D, D)."""

    name = "tied"
    form = PooledScatter
    is_common = True
    has_correlations = True

    @staticmethod
    def shape(n_components: int, n_features: int) -> tuple[int, ...]:  # noqa: ARG004 - the protocol's
        return (n_features, n_features)

    @staticmethod
    def bounds(regularization: Regularization) -> kernels.Bounds:
        return regularization.dense_bounds

    @staticmethod
    def _held_up(covariances: NDArray[np.float64], regularization: Regularization) -> HeldUp:
        held = regularization.dense(covariances[np.newaxis])
        return held._replace(covariances=_mirrored(held.covariances[0]))

    @classmethod
    def from_array(cls, array: NDArray[np.float64], n_components: int, n_features: int) -> Self:
        require_shape(array, (n_features, n_features), what="covariances")
        return cls(_symmetric(array, what="covariances"), n_components, n_features)

    @classmethod
    def from_precisions(
        cls, array: NDArray[np.float64], n_components: int, n_features: int
    ) -> Self:
        require_shape(array, (n_features, n_features), what="precisions")
        factors = _upper_factors(_symmetric(array, what="precisions")[np.newaxis])
        return cls(_inverted(factors)[0], n_components, n_features, precisions_cholesky=factors[0])

    @classmethod
    def from_precisions_cholesky(
        cls, array: NDArray[np.float64], n_components: int, n_features: int
    ) -> Self:
        factors = cls._as_factors(array, n_components, n_features)
        covariances = _inverted(factors[np.newaxis])[0]
        return cls(covariances, n_components, n_features, precisions_cholesky=factors)

    @classmethod
    def from_dense(cls, dense: NDArray[np.float64], weights: NDArray[np.float64]) -> Self:
        return cls(_mirrored(np.average(dense, axis=0, weights=weights)), *dense.shape[:2])

    def to_dense(self) -> NDArray[np.float64]:
        return np.repeat(self._covariances[np.newaxis], self.n_components, axis=0)

    @property
    def precisions(self) -> NDArray[np.float64]:
        return np.asarray(self.precisions_cholesky @ self.precisions_cholesky.T)

    @property
    def whitening(self) -> NDArray[np.float64]:
        return self.precisions_cholesky[np.newaxis]

    def color(self, noise: NDArray[np.float64], component: int) -> NDArray[np.float64]:  # noqa: ARG002 - all components share the matrix
        if self.has_given_factors:
            return _colored(noise, self.precisions_cholesky)
        lower = _cholesky_factors(self._covariances[np.newaxis], RAISE_REG_COVAR)
        return np.asarray(noise @ lower[0].T)

    @staticmethod
    def units(scale: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.multiply.outer(scale, scale)

    def reordered(self, order: NDArray[np.intp]) -> Self:  # noqa: ARG002 - all components share the matrix
        return self

    @property
    def n_parameters(self) -> int:
        return self.n_features * (self.n_features + 1) // 2


class DiagonalCovariances(CovarianceFamily):
    """A variance for each component and feature, (K, D)."""

    name = "diag"
    form = DiagonalScatter
    is_common = False
    has_correlations = False

    @staticmethod
    def shape(n_components: int, n_features: int) -> tuple[int, ...]:
        return (n_components, n_features)

    @staticmethod
    def bounds(regularization: Regularization) -> kernels.Bounds:
        return regularization.diagonal_bounds

    @staticmethod
    def _held_up(covariances: NDArray[np.float64], regularization: Regularization) -> HeldUp:
        return regularization.diagonal(covariances)

    @classmethod
    def from_array(cls, array: NDArray[np.float64], n_components: int, n_features: int) -> Self:
        require_shape(array, (n_components, n_features), what="covariances")
        return cls(array, n_components, n_features)

    @classmethod
    def from_precisions(
        cls, array: NDArray[np.float64], n_components: int, n_features: int
    ) -> Self:
        require_shape(array, (n_components, n_features), what="precisions")
        return cls(_reciprocal(array), n_components, n_features, what=PRECISION)

    @classmethod
    def from_precisions_cholesky(
        cls, array: NDArray[np.float64], n_components: int, n_features: int
    ) -> Self:
        require_shape(array, (n_components, n_features), what="precisions_cholesky")
        variances = np.square(_reciprocal(array))
        return cls(variances, n_components, n_features, precisions_cholesky=np.abs(array))

    @classmethod
    def from_dense(cls, dense: NDArray[np.float64], weights: NDArray[np.float64]) -> Self:  # noqa: ARG003 - each component has its own variances
        return cls(np.diagonal(dense, axis1=1, axis2=2).copy(), *dense.shape[:2])

    def to_dense(self) -> NDArray[np.float64]:
        return self._covariances[:, :, np.newaxis] * np.eye(self.n_features)

    @property
    def precisions(self) -> NDArray[np.float64]:
        return np.asarray(1.0 / self._covariances)

    @property
    def whitening(self) -> NDArray[np.float64]:
        return self.precisions_cholesky

    def color(self, noise: NDArray[np.float64], component: int) -> NDArray[np.float64]:
        return np.asarray(noise * np.sqrt(self._covariances[component]))

    @staticmethod
    def units(scale: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.square(scale)

    @property
    def n_parameters(self) -> int:
        return self.n_components * self.n_features


class SphericalCovariances(CovarianceFamily):
    """One variance for each component, (K,)."""

    name = "spherical"
    form = TraceScatter
    is_common = True
    has_correlations = False

    @staticmethod
    def shape(n_components: int, n_features: int) -> tuple[int, ...]:  # noqa: ARG004 - the protocol's
        return (n_components,)

    @staticmethod
    def bounds(regularization: Regularization) -> kernels.Bounds:
        return regularization.scalar_bounds

    @staticmethod
    def _held_up(covariances: NDArray[np.float64], regularization: Regularization) -> HeldUp:
        return regularization.scalar(covariances)

    @classmethod
    def from_array(cls, array: NDArray[np.float64], n_components: int, n_features: int) -> Self:
        require_shape(array, (n_components,), what="covariances")
        return cls(array, n_components, n_features)

    @classmethod
    def from_precisions(
        cls, array: NDArray[np.float64], n_components: int, n_features: int
    ) -> Self:
        require_shape(array, (n_components,), what="precisions")
        return cls(_reciprocal(array), n_components, n_features, what=PRECISION)

    @classmethod
    def from_precisions_cholesky(
        cls, array: NDArray[np.float64], n_components: int, n_features: int
    ) -> Self:
        require_shape(array, (n_components,), what="precisions_cholesky")
        variances = np.square(_reciprocal(array))
        return cls(variances, n_components, n_features, precisions_cholesky=np.abs(array))

    @classmethod
    def from_dense(cls, dense: NDArray[np.float64], weights: NDArray[np.float64]) -> Self:  # noqa: ARG003 - each component has its own variance
        return cls(np.diagonal(dense, axis1=1, axis2=2).mean(axis=1), *dense.shape[:2])

    def to_dense(self) -> NDArray[np.float64]:
        return self._covariances[:, np.newaxis, np.newaxis] * np.eye(self.n_features)

    @property
    def precisions(self) -> NDArray[np.float64]:
        return np.asarray(1.0 / self._covariances)

    @property
    def whitening(self) -> NDArray[np.float64]:
        return self.precisions_cholesky

    def color(self, noise: NDArray[np.float64], component: int) -> NDArray[np.float64]:
        return np.asarray(noise * np.sqrt(self._covariances[component]))

    @staticmethod
    def units(scale: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([np.mean(np.square(scale))])

    @property
    def n_parameters(self) -> int:
        return self.n_components


COVARIANCE_FAMILIES: dict[str, type[CovarianceFamily]] = {
    family.name: family
    for family in (FullCovariances, TiedCovariances, DiagonalCovariances, SphericalCovariances)
}


def _cholesky_factors(
    matrices: NDArray[np.float64], remedy: str, *, what: str = COVARIANCE
) -> NDArray[np.float64]:
    """Return the lower factors of (K, D, D) matrices, naming the first that has none."""
    factors, singular = kernels.cholesky_factors(matrices)
    if singular >= 0:
        raise SingularCovarianceError(singular, remedy, what=what)
    return factors


def _upper_factors(precisions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the upper triangular U with U Uᵀ = Σ⁻¹ of every matrix.

    Cholesky's factor is lower triangular; that of the matrix turned about is U turned about.
    """
    turned = precisions[:, ::-1, ::-1]
    factors = _cholesky_factors(turned, GIVE_FACTORS, what=PRECISION)
    return np.ascontiguousarray(factors[:, ::-1, ::-1])


def _as_upper(factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the upper triangular R with R Rᵀ = U Uᵀ and a positive diagonal.

    That is U itself where it is one already, to the last bit.
    """
    require_finite(factors, what="precisions_cholesky")
    least = np.zeros(1)
    if np.tril(factors, -1).any() or (np.diagonal(factors, axis1=1, axis2=2) < 0).any():
        factors = _triangular(factors)
        least = FLAT_FACTOR * np.linalg.norm(factors, axis=-1)
    singular = np.argwhere((np.diagonal(factors, axis1=1, axis2=2) <= least).any(axis=1))
    if singular.size:
        component = int(singular[0][0])
        raise SingularCovarianceError(component, GIVE_ANOTHER_MATRIX, what=PRECISION)
    return factors


def _triangular(factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the upper triangular R, whose diagonal is not negative, with R Rᵀ = U Uᵀ."""
    upper = np.stack([rq(factor, mode="r") for factor in factors])
    signs = np.where(np.diagonal(upper, axis1=1, axis2=2) < 0, -1.0, 1.0)
    return np.asarray(upper * signs[:, np.newaxis, :])


def _raised_diagonal(upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return factors none of which has a zero where rounding has left nothing."""
    lengths = np.linalg.norm(upper, axis=-1)
    places = np.arange(upper.shape[-1])
    diagonal = np.maximum(upper[:, places, places], LEAST_FACTOR * lengths)
    upper[:, places, places] = diagonal
    return upper


def _inverted(factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Σ = U⁻ᵀ U⁻¹ for every upper factor U, refusing one whose Σ is beyond doubles."""
    inverses = kernels.inverse_transposes(factors.transpose(0, 2, 1))
    with np.errstate(over="ignore"):
        traces = np.einsum("kij,kij->k", inverses, inverses)
    if not np.isfinite(traces).all():
        component = int(np.argmin(np.isfinite(traces)))
        raise SingularCovarianceError(component, GIVE_ANOTHER_MATRIX, what=PRECISION)
    return _mirrored(inverses.transpose(0, 2, 1) @ inverses)


def _factor_along(upper: NDArray[np.float64], basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return V with (V Vᵀ)⁻¹ = Bᵀ (U Uᵀ)⁻¹ B."""
    root = np.linalg.qr(solve_triangular(upper, basis), mode="r")
    return np.asarray(np.linalg.inv(root))


def _colored(noise: NDArray[np.float64], upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn standard normal rows into rows whose precisions have this factor."""
    return np.asarray(solve_triangular(upper, noise.T, trans="T").T)


def _rounding_of_inverse(
    covariances: NDArray[np.float64], factors: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Bound what rounding of Σ, relative to its diagonal, and of U, by rows, does to Uᵀ Σ U."""
    unit = 64.0 * covariances.shape[-1] * np.finfo(float).eps
    scale = np.sqrt(np.abs(np.diagonal(covariances, axis1=-2, axis2=-1)))
    reach = np.einsum("...i,...ij->...j", scale, np.abs(factors))
    of_rows = unit * np.einsum("...i,...i->...", scale, np.linalg.norm(factors, axis=-1))
    of_rows = of_rows[..., np.newaxis, np.newaxis]
    of_covariances = unit * reach[..., np.newaxis] * reach[..., np.newaxis, :]
    return np.asarray(of_covariances + of_rows + np.square(of_rows))


def _reciprocal(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1/x; what comes of a zero is infinite and refused where variances are."""
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(1.0 / array)


def lower_triangles(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lower triangles of (..., D, D) matrices, (..., D (D + 1) / 2), row by row."""
    D = matrices.shape[-1]
    lower = np.empty((*matrices.shape[:-2], D * (D + 1) // 2))
    for i in range(D):
        lower[..., _row_of_triangle(i)] = matrices[..., i, : i + 1]
    return lower


def from_lower_triangles(lower: NDArray[Number], n_features: int) -> NDArray[Number]:
    """Return symmetric matrices (..., D, D) of these lower triangles."""
    matrices = np.empty((*lower.shape[:-1], n_features, n_features), dtype=lower.dtype)
    for i in range(n_features):
        row = lower[..., _row_of_triangle(i)]
        matrices[..., i, : i + 1] = matrices[..., : i + 1, i] = row
    return matrices


def _row_of_triangle(i: int) -> slice:
    begin = i * (i + 1) // 2
    return slice(begin, begin + i + 1)


def read_only(array: NDArray[np.float64]) -> NDArray[np.float64]:
    view = array.view()
    view.flags.writeable = False
    return view


def _mirrored(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return matrices that equal their transpose to the last bit.

    What is stored and read back is then the same mixture: ``_symmetric`` changes nothing in it.
    """
    mirrored = np.multiply(0.5, array, order="C")
    for half, portion in _portions_of(mirrored, array):
        np.add(half, 0.5 * np.swapaxes(portion, -1, -2), out=half)
    return mirrored


def _portions_of(*arrays: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.float64], ...]]:
    """Yield views of consecutive matrices of each array that are looked at together."""
    D = arrays[0].shape[-1]
    stacks = [array.reshape(-1, D, D) for array in arrays]
    n_at_once = max(1, CHECKED_TOGETHER // D**2)
    for begin in range(0, len(stacks[0]), n_at_once):
        yield tuple(stack[begin : begin + n_at_once] for stack in stacks)


def _symmetric(array: NDArray[np.float64], *, what: str) -> NDArray[np.float64]:
    require_finite(array, what=what)
    if not all(_are_symmetric(part) for (part,) in _portions_of(array)):
        raise InvalidParameterError(what, "must be symmetric")
    return _mirrored(array)


def _are_symmetric(matrices: NDArray[np.float64]) -> bool:
    size = np.sqrt(np.abs(np.diagonal(matrices, axis1=-2, axis2=-1)))
    allowed = SYMMETRY_TOLERANCE * size[..., :, np.newaxis] * size[..., np.newaxis, :]
    return bool((np.abs(matrices - np.swapaxes(matrices, -1, -2)) <= allowed).all())
