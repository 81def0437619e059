"""The passes over the rows: log-densities, and the E-step with its sufficient statistics.

This is the engine's one hot place. Everything stays in logs until the responsibilities, and rows
are taken in blocks, so that no array of n_samples × K exists during a fit.
"""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gmm_engine.errors import OutOfRangeError
from gmm_engine.samples import Samples
from gmm_engine.statistics import SufficientStatistics

if TYPE_CHECKING:
    from gmm_engine.mixture import Mixture

LOG_2_PI = math.log(2.0 * math.pi)


def log_prob(mixture: "Mixture", X: NDArray[np.float64]) -> NDArray[np.float64]:  # (n_samples, K)
    """Return log p(x | component) = log N(x | μ_k, Σ_k) for every row."""
    distances = mixture.family.squared_distances(X, mixture.means)
    normalisation = mixture.n_features * LOG_2_PI + mixture.family.log_det  # (K,)
    return np.asarray(-0.5 * (normalisation + distances))  # Bishop 2.43


def weighted_log_prob(
    mixture: "Mixture", X: NDArray[np.float64]
) -> NDArray[np.float64]:  # (n_samples, K)
    """Return log p(x, component) = log π_k + log N(x | μ_k, Σ_k) for every row."""
    return mixture.log_weights + log_prob(mixture, X)


def log_normalise(
    weighted: NDArray[np.float64], first_row: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn log p(x, component) into log responsibilities and log p(x), by log-sum-exp.

    Raises ``OutOfRangeError`` for a row so far from every component that its squared distances
    leave the range of a double.
    """
    largest = weighted.max(axis=1, keepdims=True)
    beyond = np.flatnonzero(~np.isfinite(largest))
    if beyond.size:
        raise OutOfRangeError(
            f"row {first_row + int(beyond[0])} is so far from every component that its squared "
            "distance leaves the range of a double"
        )
    scores = largest + np.log(np.exp(weighted - largest).sum(axis=1, keepdims=True))
    return weighted - scores, scores[:, 0]  # Bishop 9.23


def expectation(mixture: "Mixture", samples: Samples) -> SufficientStatistics:
    """Weigh every row by ``mixture`` and sum up what the M-step needs, about its means."""
    statistics = SufficientStatistics.zeros(mixture.family.form, mixture.means)
    log_likelihoods, log_max_resps = [], []
    for rows, X, weight in samples.blocks():
        log_resp, scores = log_normalise(weighted_log_prob(mixture, X), rows.start)
        log_max_resp = log_resp.max(axis=1)
        resp = np.exp(log_resp)
        if weight is not None:
            resp *= weight[:, np.newaxis]
            scores *= weight
            log_max_resp *= weight
        for component in range(mixture.n_components):
            statistics.add_rows(component, X, resp[:, component])
        log_likelihoods.append(float(scores.sum()))
        log_max_resps.append(float(log_max_resp.sum()))
    return replace(
        statistics,
        log_likelihood=math.fsum(log_likelihoods),
        log_max_resp=math.fsum(log_max_resps),
    )
