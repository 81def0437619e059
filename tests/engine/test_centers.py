"""Components summed up about one centre: as exact as about each one's own mean."""

import numpy as np
import pytest
from numpy.typing import NDArray

from gmm_engine import Mixture, kernels
from gmm_engine.kernels.blocks import BLOCK_ROWS
from gmm_engine.kernels.centers import LEAST_COMPONENTS, MAX_FEATURES, NEAR
from gmm_engine.kernels.products import PANELS_WIDTH
from tests.support.data import random_mixture, rows_of

K = LEAST_COMPONENTS + 1
every_size = pytest.mark.parametrize("n_features", [*range(1, MAX_FEATURES + 2), 13, 15, 16, 17])


def has_one_center(mixture: Mixture) -> bool:
    laid_out = mixture.prepared
    place = mixture.n_components * laid_out.factor_stride
    is_appended = len(laid_out.factors) > place
    return is_appended and bool(laid_out.factors[place + laid_out.width])


def exact_sums(
    mixture: Mixture, X: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.longdouble], NDArray[np.longdouble], NDArray[np.longdouble]]:
    """Return Σγ, Σγd and Σγddᵀ, d = x − μ, in more digits than doubles have."""
    d = X[:, np.newaxis].astype(np.longdouble) - mixture.means
    u = mixture.precisions_cholesky.astype(np.longdouble)
    squares = np.square(np.einsum("nki,kij->nkj", d, u)).sum(axis=2)
    heights = np.log(u.diagonal(axis1=1, axis2=2)).sum(axis=1) + np.log(mixture.weights)
    joint = heights - squares / 2
    resp = np.exp(joint - joint.max(axis=1, keepdims=True))
    gamma = weight[:, np.newaxis] * resp / resp.sum(axis=1, keepdims=True)
    second = np.stack([(d[:, k] * gamma[:, k, np.newaxis]).T @ d[:, k] for k in range(len(u))])
    return gamma.sum(axis=0), np.einsum("nk,nki->ki", gamma, d), second


def assert_exact(mixture: Mixture, X: NDArray[np.float64], *, digits: float) -> None:
    """Compare sums in units of what the responsible rows spread."""
    for weight in (None, np.random.default_rng(5).uniform(0.5, 2.0, len(X))):
        found = kernels.expectation(mixture.prepared, [(X, weight)])
        nk, first, second = exact_sums(mixture, X, np.ones(len(X)) if weight is None else weight)
        spread = np.sqrt(second.diagonal(axis1=1, axis2=2))
        np.testing.assert_allclose(found.nk, nk.astype(float), rtol=digits)
        assert np.abs((found.first - first) / spread / np.sqrt(nk)[:, np.newaxis]).max() < digits
        assert (
            np.abs(
                (found.scatter - second) / spread[:, np.newaxis] / spread[:, :, np.newaxis]
            ).max()
            < digits
        )


@every_size
@pytest.mark.parametrize("n_components", [LEAST_COMPONENTS - 1, LEAST_COMPONENTS, K, 11])
@pytest.mark.parametrize("n_rows", [2 * BLOCK_ROWS, 3 * BLOCK_ROWS + 5])
def test_sums_about_one_center_are_those_about_each_mean(
    n_features: int, n_components: int, n_rows: int
) -> None:
    rng = np.random.default_rng(n_features)
    mixture = random_mixture(
        "full", n_components=n_components, n_features=n_features, rng=rng, spread=0.5
    )
    X = rows_of(mixture, n_rows, rng)

    is_such_a_size = n_features <= MAX_FEATURES or 12 < n_features <= PANELS_WIDTH
    assert has_one_center(mixture) == (is_such_a_size and n_components >= LEAST_COMPONENTS)
    assert_exact(mixture, X, digits=1e-12)


def clusters_apart(apart: float, n_features: int) -> Mixture:
    """Return round components in a row, a standard deviation is one."""
    means = np.zeros((K, n_features))
    means[:, 0] = 1e3 + apart * np.linspace(-1.0, 1.0, K)
    return Mixture.from_arrays(
        {
            "weights": np.full(K, 1.0 / K),
            "means": means,
            "covariances": np.tile(np.eye(n_features), (K, 1, 1)),
        }
    )


@pytest.mark.parametrize("n_features", [1, 2, MAX_FEATURES, 16])
@pytest.mark.parametrize(
    ("apart", "is_near", "digits"), [(0.9 * NEAR, True, 2e-12), (1.1 * NEAR, False, 1e-13)]
)
def test_means_that_are_not_near_keep_their_own_center(
    n_features: int, apart: float, is_near: bool, digits: float
) -> None:
    mixture = clusters_apart(apart, n_features)
    X = rows_of(mixture, 500, np.random.default_rng(0))

    assert has_one_center(mixture) is is_near
    assert_exact(mixture, X, digits=digits)


@pytest.mark.parametrize("n_features", [2, 16])
def test_clusters_that_are_tiny_beside_their_distance_keep_their_digits(n_features: int) -> None:
    mixture = clusters_apart(1e8, n_features)
    X = rows_of(mixture, 500, np.random.default_rng(1))

    assert_exact(mixture, X, digits=1e-12)


def test_what_is_near_is_measured_along_the_narrowest_direction() -> None:
    # Side by side, a thousandth wide along a diagonal: far apart in that direction alone.
    wide = np.array([[1.0, 1.0 - 1e-6], [1.0 - 1e-6, 1.0]])
    steps = 0.1 * np.arange(K)[:, np.newaxis]
    arrays = {"weights": np.full(K, 1.0 / K), "covariances": np.tile(wide, (K, 1, 1))}
    along = Mixture.from_arrays(arrays | {"means": 0.01 * steps * [1.0, 1.0]})
    across = Mixture.from_arrays(arrays | {"means": steps * [1.0, -1.0]})

    assert has_one_center(along)
    assert not has_one_center(across)
    for mixture in (along, across):
        assert_exact(mixture, rows_of(mixture, 500, np.random.default_rng(2)), digits=1e-8)


@pytest.mark.parametrize("n_features", [2, 16])
def test_single_precision_rows_give_what_their_doubles_give(n_features: int) -> None:
    rng = np.random.default_rng(3)
    mixture = random_mixture("full", n_components=K, n_features=n_features, rng=rng)
    X = rows_of(mixture, 300, rng).astype(np.float32)
    single = kernels.expectation(mixture.prepared, [(X, None)])
    double = kernels.expectation(mixture.prepared, [(X.astype(np.float64), None)])

    np.testing.assert_array_equal(single.scatter, double.scatter)
    assert single.log_likelihood == double.log_likelihood
