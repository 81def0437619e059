"""The variance floor beside its definition: no eigenvalue relative to the floor is below one."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy.linalg import eigh

from gmm_engine.regularization import COVARIANCE_FLOOR, FEATURE_FLOOR, DataScale
from gmm_engine.samples import Samples

UNITS = np.array([1e-5, 1.0, 3e4, 2.0, 0.1, 7.0])


def rows_that_span(rank: int, n_features: int, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((300, rank)) @ rng.standard_normal((rank, n_features))
    X *= UNITS[:n_features]
    return X


def raised(matrix: NDArray[np.float64], floor: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the least matrix, in the order of the cone, that is above both of them."""
    values, vectors = eigh(matrix, floor)  # VᵀFV = 1
    around = floor @ vectors
    return np.asarray((around * np.maximum(values, 1.0)) @ around.T)


def total_and_thin(X: NDArray[np.float64]) -> NDArray[np.float64]:
    """The covariance of all rows, and some of less: alike in one direction, and of two rows."""
    few = X[:40] / UNITS
    few -= np.outer(few @ few[0] / (few[0] @ few[0]), few[0])
    parts = (X, few * UNITS, X[:2])
    return np.stack([np.cov(part.T, bias=True) for part in parts])


@pytest.mark.parametrize("rank", [6, 4, 1])
@pytest.mark.parametrize("seed", range(5))
def test_covariances_are_raised_to_the_floor_and_no_further(rank: int, seed: int) -> None:
    X = rows_that_span(rank, 6, seed)
    floor = DataScale.of(Samples(X, None)).floor
    covariances = total_and_thin(X)

    held, n_held, _ = floor.dense(covariances)

    units = np.outer(floor.scale, floor.scale)
    correlation = np.cov(X.T, bias=True) / units
    least = COVARIANCE_FLOOR * correlation + FEATURE_FLOOR * np.eye(6)
    for covariance, found in zip(covariances, held, strict=True):
        expected = raised(covariance / units, least)
        assert_allclose(found / units, expected, rtol=0.0, atol=1e-9)
        # In flat directions a covariance in doubles is rounding: some hundredths of the floor.
        lowest = eigh(found / units, least, eigvals_only=True)[0]
        assert_allclose(lowest, eigh(expected, least, eigvals_only=True)[0], rtol=0.1)
    assert n_held[0] == 0
    assert n_held[2] == max(rank - 1, 0)


def test_covariances_above_the_floor_are_left_as_they_are() -> None:
    X = rows_that_span(6, 6, 0)
    covariances = np.stack([np.cov(X[:150].T), np.cov(X[150:].T)])
    held, n_held, _ = DataScale.of(Samples(X, None)).floor.dense(covariances)
    np.testing.assert_array_equal(held, covariances)
    assert not n_held.any()


def test_directions_without_any_variation_are_on_the_floor_alone() -> None:
    X = rows_that_span(3, 5, 1)
    X[:, 2] = 8.0
    floor = DataScale.of(Samples(X, None)).floor
    held, *_ = floor.dense(np.cov(X[:100].T)[np.newaxis])
    assert (held[0, 2, [0, 1, 3, 4]] == 0.0).all()
    assert held[0, 2, 2] == FEATURE_FLOOR * 8.0**2
    others = np.delete(np.delete(held[0], 2, 0), 2, 1) / np.outer(*[np.delete(floor.scale, 2)] * 2)
    assert_allclose(np.linalg.eigvalsh(others)[:1], FEATURE_FLOOR, rtol=0.05)
