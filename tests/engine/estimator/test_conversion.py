"""Mixtures go to scikit-learn and come back with every score what it was."""

import subprocess
import sys

import numpy as np
import pytest
import sklearn.mixture
from numpy.typing import NDArray

import gmm_engine
from gmm_engine import (
    COVARIANCE_FAMILIES,
    FitOptions,
    Mixture,
    errors,
    fit,
    from_sklearn,
    to_sklearn,
)
from tests.support.data import faithful, iris, random_mixture, rows_of

pytestmark = pytest.mark.oracle
every_family = pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
EXACT = 1e-12
"""Relative, as issue and documentation promise."""


def stretched_rows() -> NDArray[np.float64]:
    """Clusters a hundred times longer than wide, askew."""
    rng = np.random.default_rng(4)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    centers = 5.0 * rng.standard_normal((4, 3))[rng.integers(4, size=400)]
    return np.asarray((centers + rng.standard_normal((400, 3)) * [30.0, 3.0, 0.3]) @ turn)


DATA = {"faithful": (faithful(), 2), "iris": (iris(), 3), "stretched": (stretched_rows(), 4)}
every_set = pytest.mark.parametrize("data", DATA)


def assert_scores_agree(
    peer: sklearn.mixture.GaussianMixture, mixture: Mixture, X: NDArray[np.float64]
) -> None:
    theirs, ours = peer.score_samples(X), mixture.score_samples(X)
    np.testing.assert_allclose(ours, theirs, rtol=EXACT, atol=EXACT * np.abs(theirs).max())
    assert mixture.score(X) == pytest.approx(peer.score(X), rel=EXACT)
    assert mixture.bic(X) == pytest.approx(peer.bic(X), rel=EXACT)
    assert mixture.aic(X) == pytest.approx(peer.aic(X), rel=EXACT)
    np.testing.assert_allclose(
        mixture.predict_proba(X), peer.predict_proba(X), rtol=1e-10, atol=EXACT
    )
    np.testing.assert_array_equal(mixture.predict(X), peer.predict(X))


@every_family
@every_set
def test_a_model_of_theirs_keeps_its_scores(covariance_type: str, data: str) -> None:
    X, n_components = DATA[data]
    peer = sklearn.mixture.GaussianMixture(
        n_components, covariance_type=covariance_type, max_iter=1_000, random_state=0
    ).fit(X)
    assert_scores_agree(peer, from_sklearn(peer), X)


@every_family
@every_set
def test_a_mixture_of_ours_keeps_its_scores(covariance_type: str, data: str) -> None:
    X, n_components = DATA[data]
    mixture = fit(X, FitOptions(n_components, covariance_type, max_iter=30, random_state=0)).mixture
    assert_scores_agree(to_sklearn(mixture), mixture, X)


@every_family
def test_there_and_back_is_the_same_to_the_last_bit(covariance_type: str) -> None:
    rng = np.random.default_rng(0)
    mixture = random_mixture(covariance_type, n_components=3, n_features=5, rng=rng)
    X = rows_of(mixture, 100, rng)
    again = from_sklearn(to_sklearn(mixture))
    np.testing.assert_array_equal(again.precisions_cholesky, mixture.precisions_cholesky)
    np.testing.assert_array_equal(again.score_samples(X), mixture.score_samples(X))


@every_family
def test_what_comes_out_works_as_a_fitted_model_of_theirs(covariance_type: str) -> None:
    mixture = fit(iris(), FitOptions(3, covariance_type, random_state=0)).mixture
    peer = to_sklearn(mixture)
    assert peer.n_features_in_ == 4
    rows, _ = peer.set_params(random_state=0).sample(2_000)
    assert mixture.score(rows) == pytest.approx(mixture.score(mixture.sample(2_000, 1)[0]), abs=0.2)
    peer.set_params(warm_start=True, max_iter=200).fit(iris())
    assert peer.score(iris()) >= mixture.score(iris()) - 1e-3
    peer.weights_ *= 0.5  # a copy: the mixture stays as it is
    assert mixture.weights.sum() == pytest.approx(1.0)


def test_a_model_set_by_hand_needs_no_more_than_scores_do() -> None:
    """The idiom for known parameters; its factor is the lower one."""
    peer = sklearn.mixture.GaussianMixture(2)
    covariances = np.array([[[2.0, 0.5], [0.5, 1.0]], [[1.0, -0.3], [-0.3, 0.5]]])
    peer.weights_, peer.means_ = np.array([0.4, 0.6]), np.array([[0.0, 1.0], [2.0, 3.0]])
    peer.precisions_cholesky_ = np.linalg.cholesky(np.linalg.inv(covariances))
    mixture = from_sklearn(peer)
    np.testing.assert_allclose(mixture.covariances, covariances)
    X = np.random.default_rng(0).standard_normal((50, 2))
    np.testing.assert_allclose(mixture.score_samples(X), peer.score_samples(X), rtol=EXACT)


def test_a_model_in_single_precision_can_be_taken_over() -> None:
    X = iris().astype(np.float32)
    peer = sklearn.mixture.GaussianMixture(3, random_state=0).fit(X)
    assert peer.weights_.dtype == np.float32
    np.testing.assert_allclose(
        from_sklearn(peer).score_samples(X), peer.score_samples(X), atol=1e-3
    )


def test_our_own_estimator_can_be_taken_over_too() -> None:
    model = gmm_engine.GaussianMixture(2, random_state=0).fit(faithful())
    np.testing.assert_array_equal(
        from_sklearn(model).score_samples(faithful()), model.score_samples(faithful())
    )


def test_our_own_estimator_can_be_handed_over_too() -> None:
    model = gmm_engine.GaussianMixture(2, random_state=0).fit(faithful())
    np.testing.assert_allclose(
        to_sklearn(model).score_samples(faithful()), model.score_samples(faithful()), rtol=1e-12
    )
    with pytest.raises(errors.NotFittedError):
        to_sklearn(gmm_engine.GaussianMixture(2))


def test_a_model_that_is_not_fitted_is_refused() -> None:
    with pytest.raises(errors.NotFittedError, match="the model is not fitted"):
        from_sklearn(sklearn.mixture.GaussianMixture())


def test_a_bayesian_mixture_is_refused() -> None:
    peer = sklearn.mixture.BayesianGaussianMixture(random_state=0).fit(faithful())
    with pytest.raises(errors.InvalidParameterError, match="Bayesian mixture"):
        from_sklearn(peer)


WITHOUT_SKLEARN = """
import sys
sys.modules["sklearn"] = None  # importing it fails
import gmm_engine
X = [[0.0, 1.0], [0.5, 0.0], [9.0, 9.5], [9.5, 9.0], [10.0, 10.0]]
model = gmm_engine.GaussianMixture(2, max_iter=1, random_state=0)
try:
    model.predict(X)
except gmm_engine.errors.NotFittedError as error:
    assert "not fitted" in str(error)
model.fit(X)
model.sample(3), model.bic(X), repr(model)
gmm_engine.from_sklearn(model)
assert not [name for name in sys.modules if name.startswith("sklearn.")]
"""


def test_all_but_to_sklearn_works_where_scikit_learn_is_not_installed() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_SKLEARN], check=True)  # noqa: S603 - our own script
