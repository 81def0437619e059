"""``Mixture``: a Gaussian mixture with known parameters, and everything it can answer.

It is frozen and knows nothing of how it came to be; fitting is in ``em``.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Literal, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmm_engine import kernels
from gmm_engine.covariances import COVARIANCE_FAMILIES, CovarianceFamily, read_only
from gmm_engine.criteria import Criteria
from gmm_engine.errors import InvalidParameterError, OutOfRangeError
from gmm_engine.regularization import Regularization
from gmm_engine.samples import Samples
from gmm_engine.statistics import SufficientStatistics
from gmm_engine.validation import (
    as_generator,
    as_real_array,
    as_rows,
    require_finite,
    require_integer_at_least,
    require_known,
    require_shape,
)

WEIGHT_SUM_TOLERANCE = 1e-8
"""Given weights may miss a sum of one by this; they are used as they are."""

MOST_BYTES = sys.maxsize
"""Of an array."""

BOTH = ("covariances", "precisions_cholesky")
"""What may be given together."""

_set = object.__setattr__
"""How a frozen mixture sets its own attributes."""


class Mixture:
    """The mixture p(x) = Σ_k π_k N(x | μ_k, Σ_k).

    Make one with ``from_arrays`` or by ``gmm_engine.fit``.

    Attributes
    ----------
    weights : ndarray of shape (K,)
        π, not negative, summing to one.
    means : ndarray of shape (K, D)
        μ, in the units of the data.
    family : CovarianceFamily
        Σ, factored, in the form that its family has.
    """

    __slots__ = ("_family", "_prepared", "means", "weights")

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    _family: CovarianceFamily | Callable[[], CovarianceFamily]
    """Or how to take it from the steps of a fit: few of their mixtures are ever asked for it."""
    _prepared: kernels.Prepared | None

    def __init__(
        self, weights: NDArray[np.float64], means: NDArray[np.float64], family: CovarianceFamily
    ) -> None:
        if not (np.isfinite(means).all() and np.isfinite(family.log_det).all()):
            raise OutOfRangeError(
                "the parameters of the mixture leave the range of a double; rescale the data"
            )
        _set_parameters(self, weights, means, family)

    @property
    def family(self) -> CovarianceFamily:
        """Σ, factored, in the form that its family has."""
        if not isinstance(self._family, CovarianceFamily):
            _set(self, "_family", self._family())
        return cast("CovarianceFamily", self._family)

    @property
    def prepared(self) -> kernels.Prepared:
        """The parameters as the compiled passes read them, kept when first asked for."""
        prepared = self._prepared
        if prepared is None:
            prepared = self.laid_out()
            _set(self, "_prepared", prepared)
        return prepared

    def laid_out(self) -> kernels.Prepared:
        """Lay the parameters out for one pass; what is laid out is as large as the covariances."""
        if self._prepared is not None:
            return self._prepared
        family = self.family.whole()  # what is made of triangles is let go with it
        return kernels.Prepared.of(self.weights, self.means, family.whitening, family.log_det)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Mixture is frozen; {name} can't be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Mixture is frozen; {name} can't be deleted")

    def __repr__(self) -> str:
        return (
            f"Mixture(n_components={self.n_components}, n_features={self.n_features}, "
            f"covariance_type={self.covariance_type!r})"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (self.to_arrays(), self.covariance_type)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike], covariance_type: str = "full") -> Self:
        """Make a mixture from its parameters.

        Parameters
        ----------
        arrays : mapping
            ``weights`` (K,), ``means`` (K, D) and ``covariances`` in the family's shape:
            full (K, D, D), tied (D, D), diag (K, D), spherical (K,). In their stead
            ``precisions`` or ``precisions_cholesky``, as a mixture gives them; or the latter
            beside them, where they say more than covariances of nearly collinear features can.
        covariance_type : str
            A key of ``COVARIANCE_FAMILIES``.

        Raises
        ------
        InvalidParameterError
            A name is missing or a shape wrong, weights are negative or don't sum to one.
        NonFiniteNumberError, SingularCovarianceError
        """
        require_known("covariance_type", covariance_type, COVARIANCE_FAMILIES)
        family = COVARIANCE_FAMILIES[covariance_type]
        readers = family.readers()
        are_both = all(name in arrays for name in BOTH)
        spread = next((name for name in readers if name in arrays), "covariances")
        names = ("weights", "means", *(BOTH if are_both else [spread]))
        missing = set(names) - set(arrays)
        if missing:
            raise InvalidParameterError(", ".join(sorted(missing)), "must be given")
        weights, means, *spreads = (
            np.array(as_real_array(arrays[name], what=name)) for name in names
        )
        if means.ndim != 2 or means.size == 0:
            raise InvalidParameterError("means", "must have shape (n_components, n_features)")
        n_components, n_features = means.shape
        require_shape(weights, (n_components,), what="weights")
        for name, value in zip(names, (weights, means, *spreads), strict=True):
            require_finite(value, what=name)
        if weights.min() < 0 or abs(weights.sum() - 1.0) > WEIGHT_SUM_TOLERANCE:
            raise InvalidParameterError("weights", "must not be negative and must sum to 1")
        if are_both:
            covariances, factors = spreads
            both = family.from_both(covariances, factors, n_components, n_features)
            return cls(weights, means, both)
        return cls(weights, means, readers[spread](spreads[0], n_components, n_features))

    @classmethod
    def from_statistics(
        cls,
        statistics: SufficientStatistics,
        family: type[CovarianceFamily],
        regularization: Regularization,
    ) -> tuple[Self, NDArray[np.intp]]:
        """Maximise the expected log-likelihood: the M-step (Bishop 9.24 to 9.26).

        Returns the mixture and, by component, in how many directions its covariance had to be
        held up by the regularisation.
        """
        found, covariances, held = family.maximized(statistics, regularization)
        return cls(found.weights, found.means, covariances), held

    @classmethod
    def of_step(cls, steps: kernels.Steps, row: int, family: type[CovarianceFamily]) -> Self:
        """Take what a compiled EM step has found and checked."""
        mixture = cls.__new__(cls)
        _set_parameters(
            mixture, steps.weights[row], steps.means[row], partial(family.of_step, steps, row)
        )
        return mixture

    def held_up(self, regularization: Regularization) -> "Mixture":
        """Return this, or what it becomes where it is below the regularisation's floor."""
        family = self.family.held_up(regularization)
        return self if family is self.family else Mixture(self.weights, self.means, family)

    def bare(self) -> "Mixture":
        """Return the same without what has been made of the covariances and can be made again."""
        family = self.family.bare()
        return self if family is self.family else Mixture(self.weights, self.means, family)

    def whole(self) -> "Mixture":
        """Return the same with covariances that need not be put together to be looked at."""
        family = self.family.whole()
        return self if family is self.family else Mixture(self.weights, self.means, family)

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return the parameters as ``from_arrays`` takes them, ``precisions_cholesky`` if given."""
        arrays = {"weights": self.weights, "means": self.means, "covariances": self.covariances}
        if self.family.has_given_factors:
            arrays["precisions_cholesky"] = self.precisions_cholesky
        return arrays

    @property
    def covariance_type(self) -> str:
        return self.family.name

    @property
    def n_components(self) -> int:
        return len(self.means)

    @property
    def n_features(self) -> int:
        return int(self.means.shape[1])

    @property
    def n_parameters(self) -> int:
        """Free parameters: K − 1 weights, K·D means and those of the covariances."""
        return self.n_components - 1 + self.means.size + self.family.n_parameters

    @property
    def covariances(self) -> NDArray[np.float64]:
        """Σ in the family's own shape."""
        return self.family.to_array()

    @property
    def precisions(self) -> NDArray[np.float64]:
        """Σ⁻¹ in the family's own shape."""
        return self.family.precisions

    @property
    def precisions_cholesky(self) -> NDArray[np.float64]:
        """Factors U with Σ⁻¹ = U Uᵀ; 1/σ for the diagonal families."""
        return read_only(self.family.precisions_cholesky)

    def to_dense(self) -> NDArray[np.float64]:  # (K, D, D)
        """Return every covariance as a full matrix, whatever the family."""
        return self.family.to_dense()

    def reordered(self, order: NDArray[np.intp]) -> "Mixture":
        """Return the same density with its components in another order."""
        return Mixture(self.weights[order], self.means[order], self.family.reordered(order))

    def marginal(self, basis: NDArray[np.float64], origin: NDArray[np.float64]) -> "Mixture":
        """Return the mixture of what is seen of rows along some directions.

        Parameters
        ----------
        basis : ndarray of shape (D, n_directions)
        origin : ndarray of shape (D,)
            Rows are seen as (X − origin) @ basis.
        """
        arrays = {
            "weights": self.weights,
            "means": np.ascontiguousarray((self.means - origin) @ basis),
            **self.family.along(basis),
        }
        return Mixture.from_arrays(arrays, "full")

    def weighted_log_prob(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return log p(x, component), shape (n_samples, K)."""
        return self._joint(self.prepared, X)

    def log_prob(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return log p(x | component), shape (n_samples, K)."""
        evenly = replace(self.prepared, constants=self.prepared.constants_of_densities)
        return self._joint(evenly, X)

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return log p(x) of each row in nats, shape (n_samples,).

        Raises
        ------
        InvalidDataError
            One of its kinds; ``OutOfRangeError`` for a row at a distance beyond doubles.
        """
        rows = self._rows(X)
        log_prob = np.empty(len(rows))
        kernels.score(self.prepared, rows, log_prob=log_prob)
        return log_prob

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the responsibilities p(component | x), shape (n_samples, K); rows sum to one.

        Like those of X, either the numbers of a row stand side by side or those of a column.

        Some 1e15 standard deviations away, what tells the components of a tied mixture apart is
        below the rounding of their common distance, and the responsibilities become even.
        """
        rows = self._rows(X)
        order: Literal["C", "F"] = "C" if rows.flags.c_contiguous else "F"
        resp = np.empty((len(rows), len(self.means)), order=order)
        kernels.score(self.prepared, rows, resp=resp)
        return resp

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return the index of the most probable component of each row, shape (n_samples,)."""
        rows = self._rows(X)
        labels = np.empty(len(rows), dtype=np.int64)
        kernels.score(self.prepared, rows, labels=labels)
        return labels

    def score(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the (weighted) mean of log p(x) in nats."""
        return self.criteria(X, sample_weight).mean_log_likelihood

    def criteria(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> Criteria:
        """Return the log-likelihood of the data and the information criteria."""
        samples = Samples.checked(X, sample_weight, n_features=self.n_features)
        sums = kernels.expectation(self.prepared, samples.chunks())
        return Criteria(
            n_samples=samples.total_weight,
            n_parameters=self.n_parameters,
            log_likelihood=sums.log_likelihood,
            log_max_resp=sums.log_max_resp,
        )

    def bic(self, X: ArrayLike) -> float:
        """Return the Bayesian information criterion; lower is better."""
        return self.criteria(X).bic

    def aic(self, X: ArrayLike) -> float:
        """Return the Akaike information criterion; lower is better."""
        return self.criteria(X).aic

    def aicc(self, X: ArrayLike) -> float:
        """Return the Akaike information criterion corrected for small samples."""
        return self.criteria(X).aicc

    def icl(self, X: ArrayLike) -> float:
        """Return the integrated classification likelihood; lower is better."""
        return self.criteria(X).icl

    def sample(
        self, n_samples: int, rng: np.random.Generator | int | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Draw independent rows.

        Parameters
        ----------
        n_samples : int
            At least 1.
        rng : Generator or int, optional
            A generator goes on from where it stands; an integer starts a new one.

        Returns
        -------
        X : ndarray of shape (n_samples, D)
        labels : ndarray of shape (n_samples,)
            The component that each row was drawn from.

        Raises
        ------
        InvalidParameterError
            No array has so many rows.
        MemoryError
            They are more than the memory holds.
        """
        require_integer_at_least("n_samples", n_samples, 1)
        if n_samples > (most := MOST_BYTES // (8 * self.n_features)):
            raise InvalidParameterError("n_samples", f"must be at most {most}, the largest array")
        generator = as_generator(rng)
        edges = np.cumsum(self.weights)
        labels = np.searchsorted(edges, generator.random(n_samples) * edges[-1], side="right")
        X = generator.standard_normal((n_samples, self.n_features))
        for component in range(self.n_components):
            rows = labels == component
            X[rows] = self.means[component] + self.family.color(X[rows], component)
        return X, labels.astype(np.int64)

    def _rows(self, X: ArrayLike) -> NDArray[np.floating]:
        return as_rows(X, n_features=self.means.shape[1])

    def _joint(self, prepared: kernels.Prepared, X: ArrayLike) -> NDArray[np.float64]:
        rows = self._rows(X)
        joint = np.empty((len(rows), len(self.means)))
        kernels.score(prepared, rows, joint=joint)
        return joint


def _restore(arrays: Mapping[str, ArrayLike], covariance_type: str) -> Mixture:
    return Mixture.from_arrays(arrays, covariance_type)


def _set_parameters(
    mixture: Mixture,
    weights: NDArray[np.float64],
    means: NDArray[np.float64],
    family: CovarianceFamily | Callable[[], CovarianceFamily],
) -> None:
    weights.flags.writeable = means.flags.writeable = False
    _set(mixture, "weights", weights)
    _set(mixture, "means", means)
    _set(mixture, "_family", family)
    _set(mixture, "_prepared", None)
