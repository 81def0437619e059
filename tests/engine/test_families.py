"""Every covariance family beside its dense truth: one conformance function for all of them."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from gmm_engine import COVARIANCE_FAMILIES, Mixture
from gmm_engine.covariances import CovarianceFamily
from gmm_engine.regularization import Ridge
from gmm_engine.samples import Samples
from gmm_engine.statistics import SufficientStatistics
from tests.support.data import random_covariances

N_PARAMETERS: dict[str, Callable[[int, int], int]] = {
    # K components, D features: free parameters of the covariances alone.
    "full": lambda K, D: K * D * (D + 1) // 2,
    "tied": lambda K, D: D * (D + 1) // 2,
    "diag": lambda K, D: K * D,
    "spherical": lambda K, D: K,
}
"""A new family adds its line."""


def labelled_statistics(
    family: type[CovarianceFamily], n_components: int, n_features: int, rng: np.random.Generator
) -> SufficientStatistics:
    """Sum up rows that belong to components with covariances of their own."""
    labels = np.repeat(np.arange(n_components), 4 * n_features + 6)
    roots = np.linalg.cholesky(random_covariances(n_components, n_features, rng))
    noise = rng.standard_normal((len(labels), n_features, 1))
    X = (roots[labels] @ noise)[:, :, 0] + 3.0 * labels[:, np.newaxis]
    return SufficientStatistics.of_labels(Samples.checked(X), labels, n_components, family.form)


def expected_log_likelihood(
    family: CovarianceFamily, statistics: SufficientStatistics, dense_scatter: NDArray[np.float64]
) -> float:
    """Return −½ Σ_k (N_k log|Σ_k| + tr Σ_k⁻¹ S_k), what the M-step maximises."""
    total = 0.0
    for nk, sigma, scatter in zip(statistics.nk, family.to_dense(), dense_scatter, strict=True):
        total -= 0.5 * (
            nk * np.linalg.slogdet(sigma)[1] + np.trace(np.linalg.solve(sigma, scatter))
        )
    return float(total)


def dense_statistics(
    n_components: int, n_features: int, rng: np.random.Generator
) -> SufficientStatistics:
    return labelled_statistics(COVARIANCE_FAMILIES["full"], n_components, n_features, rng)


def assert_conforms(
    family: type[CovarianceFamily], n_components: int, n_features: int, seed: int
) -> None:
    """Hold one family against the dense matrices that it stands for."""
    K, D = n_components, n_features
    statistics = labelled_statistics(family, K, D, np.random.default_rng(seed))
    scatter = dense_statistics(K, D, np.random.default_rng(seed)).central_scatter
    fitted, held = family.estimate(statistics, Ridge(0.0))
    dense = fitted.to_dense()

    assert not held.any()
    assert (fitted.n_components, fitted.n_features) == (K, D)
    assert dense.shape == (K, D, D)
    assert fitted.n_parameters == N_PARAMETERS[family.name](K, D)

    again = family.from_array(fitted.to_array(), K, D)
    np.testing.assert_array_equal(again.to_array(), fitted.to_array())
    np.testing.assert_array_equal(again.to_dense(), dense)

    closest = family.from_dense(dense, statistics.nk).to_dense()
    np.testing.assert_allclose(closest, dense, rtol=1e-14, atol=1e-15)
    own = scatter / statistics.nk[:, np.newaxis, np.newaxis]
    np.testing.assert_allclose(
        family.from_dense(own, statistics.nk).to_dense(), dense, rtol=1e-12, atol=1e-13
    )

    np.testing.assert_allclose(fitted.log_det, np.linalg.slogdet(dense)[1], rtol=1e-12, atol=1e-12)
    inverses = family.from_array(fitted.precisions, K, D).to_dense()
    np.testing.assert_allclose(inverses, np.linalg.inv(dense), rtol=1e-9, atol=1e-11)

    for component in range(K):
        roots = fitted.color(np.eye(D), component)
        np.testing.assert_allclose(roots.T @ roots, dense[component], rtol=1e-12, atol=1e-13)

    order = np.arange(K)[::-1]
    np.testing.assert_array_equal(fitted.reordered(order).to_dense(), dense[order])
    assert_scores_like_dense(fitted, seed)
    assert_is_maximum(fitted, statistics, scatter, seed)


def assert_scores_like_dense(fitted: CovarianceFamily, seed: int) -> None:
    rng = np.random.default_rng(seed + 1)
    K, D = fitted.n_components, fitted.n_features
    weights, means = rng.dirichlet(np.ones(K)), rng.standard_normal((K, D))
    ours = Mixture.from_arrays(
        {"weights": weights, "means": means, "covariances": fitted.to_array()}, fitted.name
    )
    truth = Mixture.from_arrays(
        {"weights": weights, "means": means, "covariances": ours.to_dense()}
    )
    X = 2.0 * rng.standard_normal((23, D))
    np.testing.assert_allclose(ours.log_prob(X), truth.log_prob(X), rtol=1e-11)
    np.testing.assert_allclose(ours.score_samples(X), truth.score_samples(X), rtol=1e-11)
    np.testing.assert_allclose(ours.predict_proba(X), truth.predict_proba(X), atol=1e-11)


def assert_is_maximum(
    fitted: CovarianceFamily,
    statistics: SufficientStatistics,
    scatter: NDArray[np.float64],
    seed: int,
) -> None:
    """No other member of the family near by, or farther off, explains the statistics better.

    Members are had by estimating from the statistics' own scatter with that of other rows mixed
    in; at a maximum the loss is of second order in how much of it is.
    """
    best = expected_log_likelihood(fitted, statistics, scatter)
    for attempt in range(1, 9):
        rng = np.random.default_rng([seed, attempt])
        other = labelled_statistics(
            type(fitted), fitted.n_components, fitted.n_features, rng
        ).about(statistics.means)
        losses = []
        for share in (1e-4, 1e-2, 1.0):
            mixed = scaled(other, share).merged(statistics.about(statistics.means))
            member, _ = type(fitted).estimate(mixed, Ridge(0.0))
            losses.append(best - expected_log_likelihood(member, statistics, scatter))
        assert all(loss > 0 for loss in losses)
        assert losses[0] < 1e-3 * losses[1]


def scaled(statistics: SufficientStatistics, share: float) -> SufficientStatistics:
    arrays = statistics.to_arrays()
    counted = {name: arrays[name] * share for name in ("nk", "first", "scatter", "sums")}
    return SufficientStatistics.from_arrays(
        statistics.form, {"centers": arrays["centers"], **counted}
    )


@pytest.mark.parametrize(("n_components", "n_features"), [(1, 1), (1, 4), (3, 1), (2, 2), (4, 7)])
@pytest.mark.parametrize("name", COVARIANCE_FAMILIES)
def test_every_family_does_what_its_dense_matrices_would(
    name: str, n_components: int, n_features: int
) -> None:
    assert COVARIANCE_FAMILIES[name].name == name
    assert_conforms(COVARIANCE_FAMILIES[name], n_components, n_features, seed=n_features)
