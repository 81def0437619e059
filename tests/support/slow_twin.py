"""The engine's slow, obvious twin: EM written down as the formulas stand, row by row.

It shares no line with the engine. What it lacks in speed it has in being read at a glance
(Bishop, Pattern Recognition and Machine Learning, 9.23 to 9.28).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp


@dataclass(frozen=True, slots=True)
class TwinStep:
    """Parameters, covariances in the family's own shape, and their log-likelihood."""

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    covariances: NDArray[np.float64]
    log_likelihood: float


def em(
    X: NDArray[np.float64],
    start: dict[str, NDArray[np.float64]],
    covariance_type: str,
    *,
    sample_weight: NDArray[np.float64] | None = None,
    reg_covar: float = 0.0,
) -> Iterator[TwinStep]:
    """Yield the start and one EM step after another, without end."""
    counts = np.ones(len(X)) if sample_weight is None else sample_weight
    weights, means, covariances = start["weights"], start["means"], start["covariances"]
    while True:
        dense = to_dense(covariances, covariance_type, *means.shape)
        joint = joint_log_densities(X, weights, means, dense)
        scores = logsumexp(joint, axis=1)
        yield TwinStep(weights, means, covariances, float(counts @ scores))
        resp = np.exp(joint - scores[:, np.newaxis])
        weights, means, dense = maximise(X, resp, counts)
        if covariance_type == "tied":
            dense = np.repeat([np.average(dense, axis=0, weights=weights)], len(dense), axis=0)
        covariances = in_own_shape(dense + reg_covar * np.eye(X.shape[1]), covariance_type)


def joint_log_densities(
    X: NDArray[np.float64],
    weights: NDArray[np.float64],
    means: NDArray[np.float64],
    dense: NDArray[np.float64],
) -> NDArray[np.float64]:  # (n_samples, K)
    """Return log π_k + log N(x_i | μ_k, Σ_k)."""
    joint = np.empty((len(X), len(means)))
    for k, (weight, mean, covariance) in enumerate(zip(weights, means, dense, strict=True)):
        log_det = np.linalg.slogdet(2.0 * np.pi * covariance)[1]
        precision = np.linalg.inv(covariance)
        for i, row in enumerate(X):
            away = row - mean
            joint[i, k] = np.log(weight) - 0.5 * (log_det + away @ precision @ away)
    return joint


def maximise(
    X: NDArray[np.float64], resp: NDArray[np.float64], counts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the weights, means and dense covariances that the responsibilities ask for."""
    n_features, n_components = X.shape[1], resp.shape[1]
    weights = np.empty(n_components)
    means = np.empty((n_components, n_features))
    dense = np.zeros((n_components, n_features, n_features))
    for k in range(n_components):
        share = resp[:, k] * counts
        weights[k] = share.sum() / counts.sum()
        means[k] = np.average(X, axis=0, weights=share)
        for away, portion in zip(X - means[k], share / share.sum(), strict=True):
            dense[k] += portion * away[:, np.newaxis] * away
    return weights, means, dense


def in_own_shape(dense: NDArray[np.float64], covariance_type: str) -> NDArray[np.float64]:
    """Return the (K, D, D) matrices as the family keeps them, dropping what it can't hold."""
    variances = np.diagonal(dense, axis1=1, axis2=2)
    own: dict[str, NDArray[np.float64]] = {
        "full": dense,
        "tied": dense.mean(axis=0),
        "diag": variances,
        "spherical": variances.mean(axis=1),
    }
    return own[covariance_type]


def to_dense(
    covariances: NDArray[np.float64], covariance_type: str, n_components: int, n_features: int
) -> NDArray[np.float64]:  # (K, D, D)
    """Return covariances in the family's own shape as one matrix per component."""
    identity = np.eye(n_features)
    matrices = []
    for k in range(n_components):
        if covariance_type == "full":
            matrices.append(covariances[k])
        elif covariance_type == "tied":
            matrices.append(covariances)
        elif covariance_type == "diag":
            matrices.append(np.diag(covariances[k]))
        else:
            matrices.append(covariances[k] * identity)
    return np.array(matrices)
