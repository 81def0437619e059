"""Which components that the floor holds up have collapsed, and which are clusters.

The likelihood has a singularity where a component sits on few rows, on repeated ones, or on rows
in line. A component of many distinct rows that vary in every direction by more than they are
rounded sits on none: it is a cluster, narrow beside all of the data, and the floor makes its
likelihood lower than it is.
"""

import numpy as np
from numpy.typing import NDArray

from gmm_engine import kernels
from gmm_engine.covariances import CovarianceFamily
from gmm_engine.samples import SampleSource
from gmm_engine.statistics import SufficientStatistics

LEAST_ROWS = 2
"""Distinct rows, for each feature and one, that a covariance is not singular for by chance."""
ENOUGH_ROWS = 8
"""So many, for each feature and one, are looked at."""
LOOKED_AT_TOGETHER = 1024
"""Rows."""


def narrow_components(
    family: type[CovarianceFamily],
    prepared: kernels.Prepared,
    samples: SampleSource,
    statistics: SufficientStatistics,
    *,
    is_held: NDArray[np.bool_],
    rounding: NDArray[np.float64],
) -> NDArray[np.bool_]:  # (K,)
    """Tell which of the components that the floor holds up are clusters.

    ``statistics`` are those of the rows as they are weighed. ``rounding`` is, by feature, how much
    rows vary by being rounded; ∞ where they don't vary. Rows are read only where the statistics
    leave it open, and no more of them than it takes.
    """
    varying = np.isfinite(rounding)
    is_narrow = np.zeros(len(is_held), dtype=np.bool_)
    if not varying.any():
        return is_narrow
    may_be = is_held & _may_be_narrow(family, samples, statistics, is_held, rounding)
    if not may_be.any():
        return is_narrow
    rounding = rounding[varying]
    found = _distinct_rows(prepared, samples, np.flatnonzero(may_be))
    deviations = {
        k: (rows - rows.mean(axis=0))[:, varying] for k, rows in found.items() if len(rows)
    }
    if family.has_correlations and family.is_common:
        pooled = np.concatenate([*deviations.values()]) if deviations else np.empty((0, 1))
        is_narrow[is_held] = _vary(family, pooled, rounding, n_means=len(deviations))
        return is_narrow
    for k, of_component in deviations.items():
        is_narrow[k] = _vary(family, of_component, rounding, n_means=1)
    return is_narrow


def _may_be_narrow(
    family: type[CovarianceFamily],
    samples: SampleSource,
    statistics: SufficientStatistics,
    is_held: NDArray[np.bool_],
    rounding: NDArray[np.float64],
) -> NDArray[np.bool_]:  # (K,), or (1,) for all
    """Tell which components have weight enough, and a spread beyond rounding in every direction.

    Of matrices those that are held are looked at, one by one.
    """
    nk, varying = statistics.nk, np.isfinite(rounding)
    n_rows = nk * (samples.n_rows / samples.total_weight)
    if family.has_correlations and family.is_common:
        n_rows, nk = n_rows.sum(keepdims=True), nk.sum(keepdims=True)
    is_enough = n_rows >= LEAST_ROWS * (np.count_nonzero(varying) + 1)
    least = rounding[varying]
    if not family.has_correlations:
        scatter, nk = statistics.central_scatter, np.where(is_enough, nk, 1.0)
        if family.is_common:
            return np.asarray(is_enough & (scatter > nk * np.square(least).sum()))
        relative = scatter[:, varying] / least / least
        return np.asarray(is_enough & (relative > nk[:, np.newaxis]).all(axis=1))
    is_wide = np.zeros(len(nk), dtype=np.bool_)
    for k in map(int, np.flatnonzero(is_enough if family.is_common else is_enough & is_held)):
        matrix = statistics.central_matrix(k)[np.ix_(varying, varying)]
        variances = np.linalg.eigvalsh(matrix / least / least[:, np.newaxis] / nk[k])
        is_wide[k] = variances[0] > max(1.0, np.finfo(float).eps * len(least) * variances[-1])
    return is_wide


def _distinct_rows(
    prepared: kernels.Prepared, samples: SampleSource, components: NDArray[np.intp]
) -> dict[int, NDArray[np.float64]]:
    """Return distinct rows that each component is the most probable of, enough to judge by."""
    n_features = samples.n_features
    enough = ENOUGH_ROWS * (n_features + 1)
    found = {int(k): np.empty((0, n_features)) for k in components}
    for X, weight in samples.chunks():
        for begin in range(0, len(X), LOOKED_AT_TOGETHER):
            rows = X[begin : begin + LOOKED_AT_TOGETHER]
            if weight is not None:
                rows = rows[weight[begin : begin + LOOKED_AT_TOGETHER] > 0.0]
            labels = np.empty(len(rows), dtype=np.int64)
            if len(rows):
                kernels.score(prepared, rows, labels=labels)
            lacking = [k for k in found if len(found[k]) < enough]
            if not lacking:
                return found
            for k in lacking:
                here = rows[labels == k]
                if len(found[k]):  # a repeated row, most often
                    here = here[(here != found[k][0]).any(axis=1)]
                found[k] = np.unique(np.concatenate([found[k], here]), axis=0)
    return found


def _vary(
    family: type[CovarianceFamily],
    deviations: NDArray[np.float64],
    rounding: NDArray[np.float64],
    *,
    n_means: int,
) -> bool:
    """Tell whether there are rows enough, and they vary wherever the family's covariances may."""
    n_free, n_features = len(deviations) - n_means, len(rounding)
    if n_free < LEAST_ROWS * (n_features + 1):
        return False
    if not family.has_correlations:
        squares, least = np.square(deviations).mean(axis=0), np.square(rounding)
        return bool(squares.sum() > least.sum() if family.is_common else (squares > least).all())
    lengths = np.linalg.svd(deviations / rounding, compute_uv=False)
    least_length = np.finfo(float).eps * len(deviations) * lengths[0]
    return bool(lengths[-1] > max(np.sqrt(len(deviations)), least_length))
