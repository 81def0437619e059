"""The engine beside other implementations: scikit-learn, SciPy, and mpmath's many digits."""

import warnings
from collections.abc import Callable
from functools import cache

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import multivariate_normal
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.mixture._gaussian_mixture import _compute_precision_cholesky

from gmm_engine import COVARIANCE_FAMILIES, FitOptions, Mixture, fit
from tests.support.data import faithful, iris, random_mixture, rows_of, standardized

pytestmark = pytest.mark.oracle

RELATIVE = 1e-9


@cache
def random_rows() -> NDArray[np.float64]:
    rng = np.random.default_rng(4)
    truth = random_mixture("full", n_components=5, n_features=7, rng=rng)
    return rows_of(truth, 600, rng)


DATA: dict[str, Callable[[], NDArray[np.float64]]] = {
    "faithful": faithful,
    "iris": iris,
    "wine": cache(lambda: standardized(load_wine().data)),
    "breast_cancer": cache(lambda: standardized(load_breast_cancer().data)),
    "digits": cache(lambda: np.asarray(load_digits().data[:, 2:64:4], dtype=np.float64)),
    "random": random_rows,
}


@cache
def fitted(data: str, covariance_type: str) -> Mixture:
    """Fit few steps: parameters as they come, not at a maximum, are the better test of scores."""
    options = FitOptions(
        3, covariance_type, max_iter=8, init_params="kmeans", reg_covar=1e-6, random_state=3
    )
    return fit(DATA[data](), options).mixture


def sklearn_with(mixture: Mixture) -> GaussianMixture:
    """Return scikit-learn's mixture with the same parameters, its factors made by itself."""
    peer = GaussianMixture(mixture.n_components, covariance_type=mixture.covariance_type)
    peer.weights_, peer.means_ = mixture.weights, mixture.means
    peer.covariances_ = mixture.covariances
    peer.precisions_cholesky_ = _compute_precision_cholesky(
        mixture.covariances, mixture.covariance_type
    )
    return peer


every_family = pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
every_set = pytest.mark.parametrize("data", DATA)


@every_family
@every_set
def test_scores_of_rows_are_those_of_scikit_learn(data: str, covariance_type: str) -> None:
    X, ours = DATA[data](), fitted(data, covariance_type)
    peer = sklearn_with(ours)
    # log p is a sum over the features whose terms may cancel to nearly nothing.
    np.testing.assert_allclose(
        ours.score_samples(X), peer.score_samples(X), rtol=RELATIVE, atol=RELATIVE * X.shape[1]
    )
    # A difference of 1e-9·|log p| between two log-densities shows in the responsibilities.
    np.testing.assert_allclose(
        ours.predict_proba(X), peer.predict_proba(X), rtol=1e-7, atol=RELATIVE
    )
    np.testing.assert_array_equal(ours.predict(X), peer.predict(X))


@every_family
@every_set
def test_criteria_are_those_of_scikit_learn(data: str, covariance_type: str) -> None:
    X, ours = DATA[data](), fitted(data, covariance_type)
    peer = sklearn_with(ours)
    assert ours.score(X) == pytest.approx(peer.score(X), rel=RELATIVE)
    assert ours.bic(X) == pytest.approx(peer.bic(X), rel=RELATIVE)
    assert ours.aic(X) == pytest.approx(peer.aic(X), rel=RELATIVE)
    assert ours.n_parameters == peer._n_parameters()


@every_family
@every_set
def test_precisions_are_those_of_scikit_learn(data: str, covariance_type: str) -> None:
    ours = fitted(data, covariance_type)
    peer = sklearn_with(ours)
    peer._set_parameters((peer.weights_, peer.means_, peer.covariances_, peer.precisions_cholesky_))
    assert ours.precisions.shape == peer.precisions_.shape
    np.testing.assert_allclose(
        ours.precisions, peer.precisions_, rtol=1e-7, atol=RELATIVE * np.abs(ours.precisions).max()
    )


@every_family
@pytest.mark.parametrize("data", ["faithful", "iris", "wine", "random"])
def test_em_takes_the_steps_of_scikit_learn(data: str, covariance_type: str) -> None:
    X = DATA[data]() - DATA[data]().mean(axis=0)  # its tied M-step loses digits to an offset
    begin = fitted(data, covariance_type).to_arrays()
    means = begin["means"] - DATA[data]().mean(axis=0)
    start = Mixture.from_arrays({**begin, "means": 0.5 * means}, covariance_type)
    for n_steps in (1, 2, 5, 12):
        options = FitOptions(3, covariance_type, tol=0.0, max_iter=n_steps, reg_covar=1e-4)
        ours = fit(X, options, start=start).mixture
        peer = sklearn_after(n_steps, X, start)
        for value, expected in (
            (ours.weights, peer.weights_),
            (ours.means, peer.means_),
            (ours.covariances, peer.covariances_),
        ):
            assert np.abs(value - expected).max() <= RELATIVE * np.abs(expected).max()


def sklearn_after(n_steps: int, X: NDArray[np.float64], start: Mixture) -> GaussianMixture:
    peer = GaussianMixture(
        start.n_components,
        covariance_type=start.covariance_type,
        tol=0.0,
        max_iter=n_steps,
        reg_covar=1e-4,
        weights_init=start.weights,
        means_init=start.means,
        precisions_init=start.precisions,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        peer.fit(X)
    assert peer.n_iter_ == n_steps
    return peer


@every_family
def test_densities_of_components_are_those_of_scipy(covariance_type: str) -> None:
    rng = np.random.default_rng(17)
    mixture = random_mixture(covariance_type, n_components=4, n_features=6, rng=rng)
    X = rows_of(mixture, 50, rng)
    expected = np.column_stack(
        [
            multivariate_normal(mean, covariance).logpdf(X)
            for mean, covariance in zip(mixture.means, mixture.to_dense(), strict=True)
        ]
    )
    np.testing.assert_allclose(mixture.log_prob(X), expected, rtol=RELATIVE)
    np.testing.assert_allclose(
        mixture.weighted_log_prob(X), np.log(mixture.weights) + expected, rtol=RELATIVE
    )


def exact_scores(mixture: Mixture, X: NDArray[np.float64]) -> list[mpmath.mpf]:
    """Return log p(x) of each row in 60 digits."""
    scores = []
    with mpmath.workdps(60):
        matrices = [mpmath.matrix(dense.tolist()) for dense in mixture.to_dense()]
        for row in X:
            density = mpmath.mpf(0)
            for weight, mean, matrix in zip(mixture.weights, mixture.means, matrices, strict=True):
                away = mpmath.matrix(row.tolist()) - mpmath.matrix(mean.tolist())
                distance = (away.T * mpmath.lu_solve(matrix, away))[0]
                norm = mpmath.sqrt((2 * mpmath.pi) ** len(row) * mpmath.det(matrix))
                density += mpmath.mpf(float(weight)) * mpmath.exp(-distance / 2) / norm
            scores.append(mpmath.log(density))
    return scores


def ill_conditioned_mixture() -> Mixture:
    """Two rotated components whose variances span twelve orders of magnitude."""
    rng = np.random.default_rng(23)
    turned = [np.linalg.qr(rng.standard_normal((3, 3)))[0] for _ in range(2)]
    dense = np.array([turn @ np.diag([1e-6, 1.0, 1e6]) @ turn.T for turn in turned])
    arrays = {
        "weights": np.array([0.25, 0.75]),
        "means": rng.standard_normal((2, 3)),
        "covariances": 0.5 * (dense + dense.transpose(0, 2, 1)),
    }
    return Mixture.from_arrays(arrays, "full")


def test_an_ill_conditioned_mixture_scores_as_in_sixty_digits() -> None:
    mixture = ill_conditioned_mixture()
    X = rows_of(mixture, 40, np.random.default_rng(1))
    exact = np.array([float(score) for score in exact_scores(mixture, X)])
    # A condition number of 1e12 costs twelve of sixteen digits of the squared distance.
    np.testing.assert_allclose(mixture.score_samples(X), exact, rtol=1e-4)


@every_family
@pytest.mark.parametrize("distance", [1e1, 1e4, 1e8, 1e100])
def test_far_rows_score_as_in_sixty_digits(covariance_type: str, distance: float) -> None:
    rng = np.random.default_rng(29)
    mixture = random_mixture(covariance_type, n_components=3, n_features=4, rng=rng)
    X = distance * rng.standard_normal((10, 4))
    exact = np.array([float(score) for score in exact_scores(mixture, X)])
    np.testing.assert_allclose(mixture.score_samples(X), exact, rtol=1e-12)
