"""From one mixture to others near it: more components, fewer, another family.

Each is a start for EM, not a maximum. Splitting and merging keep the mean and covariance of what
they touch (Richardson and Green 1997; Ueda et al. 2000), so that the density changes little.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from gmm_engine.covariances import COVARIANCE_FAMILIES
from gmm_engine.mixture import Mixture

MAX_SPLIT_COMPONENTS = 8
"""The heaviest components are split."""
SPLIT_AXES = 2
"""Along so many of the longest axes of each."""
SPLIT_DISTANCE = 0.75
"""How far the halves' means move from the old one, in standard deviations along the axis."""
NEARLY_ONE = 0.01
"""At this distance two halves describe the data as the whole one did."""
MAX_MERGERS = 8
"""Pairs that share the most rows."""


def as_family(mixture: Mixture, covariance_type: str) -> Mixture:
    """Return the member of another family that is closest; the same density where it is one."""
    return _of_dense(mixture.weights, mixture.means, mixture.to_dense(), covariance_type)


def as_many(mixture: Mixture, n_components: int) -> Mixture:
    """Return the same density by more components: equal parts of the heaviest."""
    while mixture.n_components < n_components:
        heaviest = int(np.argmax(mixture.weights))
        mixture = _split(mixture, heaviest, 0, 0.0, np.ones(mixture.n_features))
    return mixture


def splits(mixture: Mixture, n_components: int, scale: NDArray[np.float64]) -> Iterator[Mixture]:
    """Yield mixtures of more components, in which the heaviest are cut in two.

    The last of them is next to the old density. ``scale`` (D,) is the size that a length in each
    feature is measured by.
    """
    while mixture.n_components < n_components - 1:
        mixture = _split(mixture, int(np.argmax(mixture.weights)), 0, SPLIT_DISTANCE, scale)
    for component in np.argsort(-mixture.weights, kind="stable")[:MAX_SPLIT_COMPONENTS]:
        for axis in range(min(SPLIT_AXES, mixture.n_features)):
            yield _split(mixture, int(component), axis, SPLIT_DISTANCE, scale)
    yield _split(mixture, int(np.argmax(mixture.weights)), 0, NEARLY_ONE, scale)


def mergers(mixture: Mixture, n_components: int, X: NDArray[np.float64]) -> Iterator[Mixture]:
    """Yield mixtures of fewer components, in which those are one that share most of ``X``."""
    while mixture.n_components > n_components + 1:
        mixture = _merged(mixture, _closest_pairs(mixture, X)[0])
    for pair in _closest_pairs(mixture, X):
        yield _merged(mixture, pair)


def _split(
    mixture: Mixture, component: int, axis: int, distance: float, scale: NDArray[np.float64]
) -> Mixture:
    """Cut a component in two across one of its longest axes."""
    dense = mixture.to_dense().copy()
    offset = distance * _half_axes(dense[component], scale)[axis]
    dense[component] -= np.multiply.outer(offset, offset)
    means = np.array(mixture.means)
    means[component] += offset
    weights = np.array(mixture.weights)
    weights[component] /= 2.0
    return _of_dense(
        np.append(weights, weights[component]),
        np.append(means, [means[component] - 2.0 * offset], axis=0),
        np.append(dense, dense[[component]], axis=0),
        mixture.covariance_type,
    )


def _merged(mixture: Mixture, pair: tuple[int, int]) -> Mixture:
    both = list(pair)
    dense = mixture.to_dense()
    weight = mixture.weights[both].sum()
    share = mixture.weights[both] / weight if weight > 0 else np.full(2, 0.5)
    mean = share @ mixture.means[both]
    deviations = mixture.means[both] - mean
    covariance = np.einsum("k,kij->ij", share, dense[both])
    covariance += (deviations * share[:, np.newaxis]).T @ deviations
    return _of_dense(
        np.append(np.delete(mixture.weights, both), weight),
        np.append(np.delete(mixture.means, both, axis=0), [mean], axis=0),
        np.append(np.delete(dense, both, axis=0), [covariance], axis=0),
        mixture.covariance_type,
    )


def _half_axes(
    covariance: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:  # (D, D)
    """Return the half-axes of the ellipsoid at one standard deviation, the longest first."""
    values, vectors = np.linalg.eigh(covariance / scale / scale[:, np.newaxis])
    lengths = np.sqrt(np.maximum(values, 0.0))
    return np.asarray(((vectors * lengths).T * scale)[::-1])


def _closest_pairs(mixture: Mixture, X: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return pairs by the cosine of their responsibilities over the rows, the largest first."""
    resp = mixture.predict_proba(X)
    shared = resp.T @ resp
    length = np.sqrt(np.maximum(np.diagonal(shared), np.finfo(float).tiny))
    cosine = shared / length / length[:, np.newaxis]
    pairs = combinations(range(mixture.n_components), 2)
    return sorted(pairs, key=lambda pair: -float(cosine[pair]))[:MAX_MERGERS]


def _of_dense(
    weights: NDArray[np.float64],
    means: NDArray[np.float64],
    dense: NDArray[np.float64],
    covariance_type: str,
) -> Mixture:
    family = COVARIANCE_FAMILIES[covariance_type].from_dense(dense, weights)
    return Mixture(weights / weights.sum(), np.array(means), family)
