"""What EM needs to know of the data: centred, additive sufficient statistics.

``SufficientStatistics`` is all that leaves a pass over the rows: N_k, Σγ(x−c_k) and second moments
Σγ(x−c_k)(x−c_k)ᵀ about centres c_k near the data, never raw moments. It adds up over blocks,
threads and machines. Which second moments a covariance family needs is a ``Scatter``.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gmm_engine import kernels
from gmm_engine.kernels import Moments
from gmm_engine.samples import Samples

_NO_WEIGHT = np.empty(0)


class Scatter(ABC):
    """One form of second moments, and how rows add to it."""

    is_dense: ClassVar[bool]
    """Whether a compiled pass sums up whole matrices, or diagonals."""
    is_shared: ClassVar[bool] = False
    """Whether there is one matrix for all components."""

    @staticmethod
    @abstractmethod
    def zeros(n_components: int, n_features: int) -> NDArray[np.float64]:
        """Return the moments of no rows."""

    @staticmethod
    @abstractmethod
    def add(
        scatter: NDArray[np.float64],
        component: int,
        deviations: NDArray[np.float64],
        resp: NDArray[np.float64],
    ) -> None:
        """Add Σ_i resp_i d_i d_iᵀ of (n, D) deviations to ``scatter``, in place."""

    @staticmethod
    @abstractmethod
    def outer(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the symmetric part of left_k right_kᵀ of (K, D) rows, in this form."""

    @staticmethod
    @abstractmethod
    def from_pass(scatter: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return this form of what a compiled pass summed up for it."""

    @staticmethod
    @abstractmethod
    def from_total(total: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return this form of share_k times one dense (D, D) scatter for every component."""


class DenseScatter(Scatter):
    """A matrix for each component, (K, D, D)."""

    is_dense = True

    @staticmethod
    def zeros(n_components: int, n_features: int) -> NDArray[np.float64]:
        return np.zeros((n_components, n_features, n_features))

    @staticmethod
    def add(
        scatter: NDArray[np.float64],
        component: int,
        deviations: NDArray[np.float64],
        resp: NDArray[np.float64],
    ) -> None:
        scatter[component] += (deviations * resp[:, np.newaxis]).T @ deviations

    @staticmethod
    def outer(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        product = left[:, :, np.newaxis] * right[:, np.newaxis, :]
        return np.asarray(0.5 * (product + product.transpose(0, 2, 1)))

    @staticmethod
    def from_pass(scatter: NDArray[np.float64]) -> NDArray[np.float64]:
        return scatter

    @staticmethod
    def from_total(total: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(share[:, np.newaxis, np.newaxis] * total)


class PooledScatter(Scatter):
    """One matrix summed over the components, each about its own centre, (D, D)."""

    is_dense = True
    is_shared = True

    @staticmethod
    def zeros(n_components: int, n_features: int) -> NDArray[np.float64]:  # noqa: ARG004 - the protocol's
        return np.zeros((n_features, n_features))

    @staticmethod
    def add(
        scatter: NDArray[np.float64],
        component: int,  # noqa: ARG004 - the protocol's: all components share the matrix
        deviations: NDArray[np.float64],
        resp: NDArray[np.float64],
    ) -> None:
        scatter += (deviations * resp[:, np.newaxis]).T @ deviations

    @staticmethod
    def outer(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        product = left.T @ right
        return np.asarray(0.5 * (product + product.T))

    @staticmethod
    def from_pass(scatter: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(scatter[0])

    @staticmethod
    def from_total(total: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(share.sum() * total)


class DiagonalScatter(Scatter):
    """The diagonal for each component, (K, D)."""

    is_dense = False

    @staticmethod
    def zeros(n_components: int, n_features: int) -> NDArray[np.float64]:
        return np.zeros((n_components, n_features))

    @staticmethod
    def add(
        scatter: NDArray[np.float64],
        component: int,
        deviations: NDArray[np.float64],
        resp: NDArray[np.float64],
    ) -> None:
        scatter[component] += resp @ np.square(deviations)

    @staticmethod
    def outer(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        return left * right

    @staticmethod
    def from_pass(scatter: NDArray[np.float64]) -> NDArray[np.float64]:
        return scatter

    @staticmethod
    def from_total(total: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.multiply.outer(share, np.diagonal(total))


class TraceScatter(Scatter):
    """The trace for each component, (K,)."""

    is_dense = False

    @staticmethod
    def zeros(n_components: int, n_features: int) -> NDArray[np.float64]:  # noqa: ARG004 - the protocol's
        return np.zeros(n_components)

    @staticmethod
    def add(
        scatter: NDArray[np.float64],
        component: int,
        deviations: NDArray[np.float64],
        resp: NDArray[np.float64],
    ) -> None:
        scatter[component] += resp @ np.einsum("ij,ij->i", deviations, deviations)

    @staticmethod
    def outer(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.einsum("kj,kj->k", left, right))

    @staticmethod
    def from_pass(scatter: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.cumsum(scatter, axis=1)[:, -1]  # one by one, as the loop of several steps adds

    @staticmethod
    def from_total(total: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(share * np.trace(total))


@dataclass(frozen=True, slots=True)
class SufficientStatistics:
    """Sums over rows, each row counted with its weight times its responsibility."""

    form: type[Scatter]
    centers: NDArray[np.float64]  # (K, D)
    """The points c_k that the moments are taken about."""
    nk: NDArray[np.float64]  # (K,)
    """Σγ"""
    first: NDArray[np.float64]  # (K, D)
    """Σγ(x − c_k)"""
    scatter: NDArray[np.float64]
    """Σγ(x − c_k)(x − c_k)ᵀ in this form"""
    log_likelihood: float = 0.0
    """Σ log p(x); zero where the rows were assigned rather than weighed by a mixture."""
    log_max_resp: float = 0.0
    """Σ log max_k γ_k, for the integrated classification likelihood; zero as above."""

    @classmethod
    def zeros(cls, form: type[Scatter], centers: NDArray[np.float64]) -> "SufficientStatistics":
        n_components, n_features = centers.shape
        return cls(
            form=form,
            centers=centers,
            nk=np.zeros(n_components),
            first=np.zeros((n_components, n_features)),
            scatter=form.zeros(n_components, n_features),
        )

    @classmethod
    def of_moments(
        cls, form: type[Scatter], centers: NDArray[np.float64], moments: Moments
    ) -> "SufficientStatistics":
        """Take what a compiled pass summed up about these centres."""
        return cls(
            form=form,
            centers=centers,
            nk=moments.nk,
            first=moments.first,
            scatter=form.from_pass(moments.scatter),
            log_likelihood=moments.log_likelihood,
            log_max_resp=moments.log_max_resp,
        )

    @classmethod
    def of_labels(
        cls,
        samples: Samples,
        labels: NDArray[np.intp],
        n_components: int,
        form: type[Scatter],
    ) -> "SufficientStatistics":
        """Sum rows that belong wholly to one component each, about the components' means."""
        centers = _label_means(samples, labels, n_components)
        K, D = centers.shape
        nk, first = np.zeros(K), np.zeros((K, D))
        scatter = np.zeros((1 if form.is_shared else K, D, D) if form.is_dense else (K, D))
        for rows, X, weight in samples.blocks():
            kernels.add_labelled(
                form.is_dense,
                form.is_shared,
                np.ascontiguousarray(X),
                _NO_WEIGHT if weight is None else weight,
                labels[rows],
                centers,
                nk,
                first,
                scatter.reshape(-1),
            )
        return cls(form=form, centers=centers, nk=nk, first=first, scatter=form.from_pass(scatter))

    @classmethod
    def of_responsibilities(
        cls, samples: Samples, resp: NDArray[np.float64], form: type[Scatter]
    ) -> "SufficientStatistics":
        """Sum rows with given (n_samples, K) responsibilities, about the components' means."""
        weighted = resp if samples.weight is None else resp * samples.weight[:, np.newaxis]
        origin = samples.X[0]
        nk = weighted.sum(axis=0)
        shift = weighted.T @ (samples.X - origin)
        centers = origin + np.divide(
            shift, nk[:, np.newaxis], out=np.zeros_like(shift), where=nk[:, np.newaxis] > 0
        )
        statistics = cls.zeros(form, centers)
        for rows, X, _ in samples.blocks():
            for component in range(len(nk)):
                statistics.add_rows(component, X, weighted[rows, component])
        return statistics

    def add_rows(self, component: int, X: NDArray[np.float64], resp: NDArray[np.float64]) -> None:
        """Add rows with their responsibilities to one component, in place."""
        deviations = X - self.centers[component]
        self.nk[component] += resp.sum()
        self.first[component] += resp @ deviations
        self.form.add(self.scatter, component, deviations, resp)

    @property
    def n_components(self) -> int:
        return len(self.centers)

    @property
    def n_features(self) -> int:
        return int(self.centers.shape[1])

    @property
    def n_samples(self) -> float:
        """The sum of the weights of all rows."""
        return float(self.nk.sum())

    @property
    def shift(self) -> NDArray[np.float64]:  # (K, D)
        """The means as seen from the centres; zero for a component without rows."""
        nk = self.nk[:, np.newaxis]
        return np.divide(self.first, nk, out=np.zeros_like(self.first), where=nk > 0)

    @property
    def means(self) -> NDArray[np.float64]:  # (K, D)
        return self.centers + self.shift

    @property
    def central_scatter(self) -> NDArray[np.float64]:
        """Σγ(x − μ_k)(x − μ_k)ᵀ about the means, in this form."""
        return self.scatter - self.form.outer(self.first, self.shift)

    def central_matrix(self, component: int) -> NDArray[np.float64]:  # (D, D)
        """Return the central scatter of one component, or of all where they share a matrix."""
        one = slice(None) if self.form.is_shared else slice(component, component + 1)
        scatter = self.scatter if self.form.is_shared else self.scatter[component]
        outer = self.form.outer(self.first[one], self.shift[one])
        return np.asarray(scatter - outer.reshape(scatter.shape))

    def about(self, centers: NDArray[np.float64]) -> "SufficientStatistics":
        """Return the same statistics about other centres."""
        move = self.centers - centers
        first = self.first + self.nk[:, np.newaxis] * move
        scatter = self.scatter + self.form.outer(self.first + first, move)
        return replace(self, centers=centers, first=first, scatter=scatter)

    def merged(self, other: "SufficientStatistics") -> "SufficientStatistics":
        """Return the statistics of both sets of rows together.

        With different centres both are moved to the merged means first (the pairwise update of
        Chan, Golub and LeVeque 1983), so that nothing is lost to cancellation.
        """
        left, right = self, other
        if not np.array_equal(self.centers, other.centers):
            nk = self.nk + other.nk
            share = np.divide(other.nk, nk, out=np.zeros_like(nk), where=nk > 0)[:, np.newaxis]
            means = self.means + share * (other.means - self.means)
            left, right = self.about(means), other.about(means)
        return replace(
            left,
            nk=left.nk + right.nk,
            first=left.first + right.first,
            scatter=left.scatter + right.scatter,
            log_likelihood=left.log_likelihood + right.log_likelihood,
            log_max_resp=left.log_max_resp + right.log_max_resp,
        )

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return plain arrays that ``from_arrays`` restores, given the form."""
        return {
            "centers": self.centers,
            "nk": self.nk,
            "first": self.first,
            "scatter": self.scatter,
            "sums": np.array([self.log_likelihood, self.log_max_resp]),
        }

    @classmethod
    def from_arrays(
        cls, form: type[Scatter], arrays: dict[str, NDArray[np.float64]]
    ) -> "SufficientStatistics":
        log_likelihood, log_max_resp = map(float, arrays["sums"])
        return cls(
            form=form,
            centers=arrays["centers"],
            nk=arrays["nk"],
            first=arrays["first"],
            scatter=arrays["scatter"],
            log_likelihood=log_likelihood,
            log_max_resp=log_max_resp,
        )


def _label_means(
    samples: Samples, labels: NDArray[np.intp], n_components: int
) -> NDArray[np.float64]:  # (K, D)
    """Means of labelled rows, summed as differences from one row of the data."""
    origin = np.asarray(samples.X[0], dtype=np.float64)
    nk = np.zeros(n_components)
    first = np.zeros((n_components, samples.n_features))
    for rows, X, weight in samples.blocks():
        counted = _NO_WEIGHT if weight is None else weight
        kernels.add_by_label(np.ascontiguousarray(X), counted, labels[rows], origin, nk, first)
    nk = nk[:, np.newaxis]
    return np.asarray(origin + np.divide(first, nk, out=np.zeros_like(first), where=nk > 0))
