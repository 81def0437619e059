"""How sure, how separate and how sound a mixture is: figures of its components and of rows.

What compares labellings or distances between rows is elsewhere; kept libraries have it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr

from gmm_engine.coordinates import Coordinates
from gmm_engine.mixture import Mixture
from gmm_engine.validation import require_integer_at_least


@dataclass(frozen=True, slots=True)
class RowDiagnostics:
    """Figures of rows under a mixture."""

    labels: NDArray[np.int64]  # (n_samples,)
    entropy: NDArray[np.float64]  # (n_samples,)
    """−Σ_k γ_k ln γ_k in nats: 0 where one component is sure, ln K where all are even."""
    log_prob: NDArray[np.float64]  # (n_samples,)
    """log p(x)"""
    sizes: NDArray[np.int64]  # (K,)
    """Rows that each component is the most probable of."""
    effective_sizes: NDArray[np.float64]  # (K,)
    """Σ_i γ_ik: rows that each component has a share of."""

    def lowest(self, n_rows: int) -> NDArray[np.int64]:
        """Return the indices of the rows of lowest density, the lowest first."""
        require_integer_at_least("n_rows", n_rows, 0)
        return np.argsort(self.log_prob, kind="stable")[:n_rows].astype(np.int64)


def diagnose_rows(mixture: Mixture, X: ArrayLike) -> RowDiagnostics:
    """Look at every row once more.

    Raises
    ------
    InvalidDataError
        One of its kinds.
    """
    resp = mixture.predict_proba(X)
    labels = mixture.predict(X)
    return RowDiagnostics(
        labels=labels,
        entropy=entropy(resp),
        log_prob=mixture.score_samples(X),
        sizes=np.bincount(labels, minlength=mixture.n_components).astype(np.int64),
        effective_sizes=resp.sum(axis=0),
    )


def entropy(resp: NDArray[np.float64]) -> NDArray[np.float64]:  # (n_samples,)
    """Return −Σ_k γ_k ln γ_k of (n_samples, K) responsibilities, in nats."""
    return np.asarray(entr(resp).sum(axis=1))


def overlap(mixture: Mixture) -> NDArray[np.float64]:  # (K, K)
    """Return Bhattacharyya's coefficient ∫ √(p_j p_k) of every two components.

    1 for the same density, 0 for densities that nowhere meet; weights play no part
    (Bhattacharyya 1943; Kailath 1967).
    """
    frame = Coordinates.of_component(mixture)  # it does not depend on units
    mixture = mixture if frame is None else frame.to_own(mixture)
    dense, means = mixture.to_dense(), mixture.means
    halves = 0.5 * _half_log_det(dense)
    coefficients = np.eye(mixture.n_components)
    for j in range(mixture.n_components):
        for k in range(j):
            middle = 0.5 * dense[j] + 0.5 * dense[k]
            factor = np.linalg.cholesky(middle)
            apart = np.linalg.solve(factor, means[j] - means[k])
            exponent = halves[j] + halves[k] - np.log(np.diagonal(factor)).sum()
            value = np.exp(min(exponent - 0.125 * float(apart @ apart), 0.0))
            coefficients[j, k] = coefficients[k, j] = value
    return coefficients


def condition_numbers(mixture: Mixture) -> NDArray[np.float64]:  # (K,)
    """Return the largest over the smallest variance of each component, over all directions."""
    family = mixture.family
    if family.has_given_factors and family.has_correlations:
        lengths = np.linalg.svd(family.whitening, compute_uv=False)  # 1/σ, the largest first
        ratios = np.square(lengths[:, 0] / lengths[:, -1])
        return np.array(np.broadcast_to(ratios, mixture.n_components))
    variances = np.linalg.eigvalsh(mixture.to_dense())
    smallest = np.maximum(variances[:, 0], np.finfo(float).tiny)
    return np.asarray(variances[:, -1] / smallest)


def matching(
    labels: NDArray[np.int64], others: NDArray[np.int64], n_clusters: int
) -> NDArray[np.intp]:  # (n_clusters,)
    """Return for each cluster of ``others`` the one of ``labels`` that it is best taken for.

    One to one, so that as many rows as possible have the same label in both (Kuhn 1955).
    """
    shared = np.zeros((n_clusters, n_clusters))
    np.add.at(shared, (others, labels), 1.0)
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - a third of a second that no start waits for

    return np.asarray(linear_sum_assignment(-shared)[1])


def _half_log_det(dense: NDArray[np.float64]) -> NDArray[np.float64]:  # (K,)
    diagonals = np.diagonal(np.linalg.cholesky(dense), axis1=1, axis2=2)
    return np.asarray(np.log(diagonals).sum(axis=1))
