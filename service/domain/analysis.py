"""What a version makes of rows beyond its answers: diagnostics, and k-means beside it.

The mixture's own figures are the engine's; what a kept library has is the ``Analyst``'s.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gmm_engine.diagnostics import (
    RowDiagnostics,
    condition_numbers,
    diagnose_rows,
    matching,
    overlap,
)
from gmm_engine.preprocessing import mapped_rows
from service.domain.data import Label, Table
from service.domain.inference import FittedModel
from service.domain.ports import Agreement, Analyst, Clustering, Silhouette
from service.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Diagnosis:
    rows: RowDiagnostics
    lowest: NDArray[np.int64]
    """Indices of the rows of lowest density, the lowest first."""
    weights: NDArray[np.float64]  # (K,)
    overlap: NDArray[np.float64]  # (K, K)
    condition_numbers: NDArray[np.float64]  # (K,)
    silhouette: Silhouette | None
    agreement: Agreement | None
    """With the true labels, if any were given."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of two ways to cluster the same rows."""

    labels: NDArray[np.int64]  # (n_samples,)
    centers: NDArray[np.float64]  # (K, D)
    inertia: float
    """The sum of the rows' squared distances to the centres of their clusters."""
    silhouette: Silhouette | None


@dataclass(frozen=True, slots=True)
class Comparison:
    mixture: Side
    k_means: Side
    """Its clusters are numbered like the components that they share the most rows with."""
    k_means_n_iter: int
    agreement: Agreement
    differing: NDArray[np.int64]
    """Indices of the rows that the two put into different clusters."""


class Analysis:
    def __init__(self, find_analyst: Callable[[], Analyst]) -> None:
        self._find_analyst = find_analyst
        """Raises ``Unsupported`` where this installation has none."""

    def diagnose(self, fitted: FittedModel, table: Table, *, n_lowest: int) -> Diagnosis:
        X, mixture = fitted.checked_for_analysis(table), fitted.mixture
        with fitted.refusals(table):
            rows = diagnose_rows(mixture, X)
        return Diagnosis(
            rows=rows,
            lowest=rows.lowest(n_lowest),
            weights=mixture.weights,
            overlap=overlap(mixture),
            condition_numbers=condition_numbers(mixture),
            silhouette=self._find_analyst().silhouette(mapped_rows(mixture, X), rows.labels),
            agreement=None
            if table.labels is None
            else self._find_analyst().agreement(_numbered(table.labels), rows.labels),
        )

    def compare_with_k_means(
        self, fitted: FittedModel, table: Table, *, n_init: int, random_state: int | None
    ) -> Comparison:
        X, mixture = fitted.checked_for_analysis(table), fitted.mixture
        with fitted.refusals(table):
            labels, other = self.k_means_beside(fitted, X, n_init=n_init, random_state=random_state)
        X = mapped_rows(mixture, X)
        return Comparison(
            mixture=self._side(X, labels, mixture.means),
            k_means=self._side(X, other.labels, other.centers),
            k_means_n_iter=other.n_iter,
            agreement=self._find_analyst().agreement(labels, other.labels),
            differing=np.flatnonzero(labels != other.labels),
        )

    def k_means_beside(
        self,
        fitted: FittedModel,
        X: NDArray[np.float64],
        *,
        n_init: int,
        random_state: int | None,
    ) -> tuple[NDArray[np.int64], Clustering]:
        """Return the mixture's labels of checked rows, and k-means' numbered like them.

        Its centres are in the space of the mixture. What the engine refuses it raises itself.
        """
        mixture = fitted.mixture
        labels = mixture.predict(X)
        X = mapped_rows(mixture, X)
        n_distinct = len(np.unique(X, axis=0))
        if n_distinct < mixture.n_components:
            raise InvalidInput(
                "too_few_samples",
                f"{n_distinct} distinct rows can't make {mixture.n_components} clusters; send more",
            )
        found = self._find_analyst().k_means(
            X, mixture.n_components, n_init=n_init, random_state=random_state
        )
        return labels, _numbered_like(labels, found)

    def _side(
        self, X: NDArray[np.float64], labels: NDArray[np.int64], centers: NDArray[np.float64]
    ) -> Side:
        return Side(
            labels=labels,
            centers=centers,
            inertia=float(np.square(X - centers[labels]).sum()),
            silhouette=self._find_analyst().silhouette(X, labels),
        )


def _numbered(labels: Sequence[Label]) -> NDArray[np.int64]:
    """Give every class a number: equal numbers are one, equal texts; a truth is no number here."""
    classes = [(isinstance(label, bool), label) for label in labels]
    numbers = {each: number for number, each in enumerate(dict.fromkeys(classes))}
    return np.array([numbers[each] for each in classes], dtype=np.int64)


def _numbered_like(labels: NDArray[np.int64], found: Clustering) -> Clustering:
    """Give clusters the numbers of the components that they share most rows with, one to one."""
    component_of = matching(labels, found.labels, len(found.centers))
    return replace(
        found,
        labels=component_of[found.labels].astype(np.int64),
        centers=found.centers[np.argsort(component_of)],
    )
