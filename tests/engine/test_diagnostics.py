"""Figures of components and rows, beside their definitions computed another way."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from gmm_engine import COVARIANCE_FAMILIES, FitOptions, Mixture, fit
from gmm_engine.diagnostics import condition_numbers, diagnose_rows, entropy, matching, overlap
from gmm_engine.errors import InvalidParameterError
from tests.support.data import faithful, random_mixture

every_family = pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)


def test_entropy_is_nothing_where_one_component_is_sure_and_ln_k_where_all_are_even() -> None:
    resp = np.array([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]])
    np.testing.assert_allclose(entropy(resp), [0.0, np.log(3), np.log(2)], rtol=1e-15)


def test_sizes_count_the_labels_and_effective_sizes_the_shares() -> None:
    mixture = fit(faithful(), FitOptions(2, random_state=0)).mixture
    rows = diagnose_rows(mixture, faithful())
    np.testing.assert_array_equal(rows.sizes, np.bincount(mixture.predict(faithful())))
    np.testing.assert_allclose(rows.effective_sizes, 272 * mixture.weights, rtol=1e-4)
    assert rows.sizes.sum() == 272


def test_the_rows_of_lowest_density_come_lowest_first() -> None:
    X = np.append(np.zeros((5, 1)), [[9.0], [-30.0], [2.0]], axis=0)
    mixture = Mixture.from_arrays(
        {"weights": [1.0], "means": [[0.0]], "covariances": [1.0]}, "spherical"
    )
    rows = diagnose_rows(mixture, X)
    np.testing.assert_array_equal(rows.lowest(3), [6, 5, 7])
    assert len(rows.lowest(100)) == 8
    with pytest.raises(InvalidParameterError):
        rows.lowest(-1)


def test_overlap_is_the_integral_of_the_root_of_the_product() -> None:
    means, spreads = [0.0, 1.0, 6.0], [1.0, 0.3, 2.0]
    mixture = Mixture.from_arrays(
        {
            "weights": [0.2, 0.3, 0.5],
            "means": np.reshape(means, (3, 1)),
            "covariances": np.square(spreads),
        },
        "spherical",
    )
    found = overlap(mixture)
    for j in range(3):
        for k in range(3):
            left, right = norm(means[j], spreads[j]), norm(means[k], spreads[k])
            expected, _ = quad(
                lambda x, p=left, q=right: np.sqrt(p.pdf(x) * q.pdf(x)), -15.0, 25.0, limit=200
            )
            assert found[j, k] == pytest.approx(expected, abs=1e-7)


@every_family
def test_overlap_does_not_depend_on_the_units_of_a_feature(covariance_type: str) -> None:
    rng = np.random.default_rng(0)
    mixture = random_mixture(covariance_type, n_components=3, n_features=3, rng=rng)
    unit = 1e-4
    arrays = mixture.to_arrays()
    rescaled = Mixture.from_arrays(
        {
            "weights": arrays["weights"],
            "means": arrays["means"] * unit,
            "covariances": arrays["covariances"] * unit**2,
        },
        covariance_type,
    )
    np.testing.assert_allclose(overlap(rescaled), overlap(mixture), rtol=1e-9)
    np.testing.assert_allclose(condition_numbers(rescaled), condition_numbers(mixture), rtol=1e-9)


@every_family
def test_condition_numbers_are_those_of_the_dense_matrices(covariance_type: str) -> None:
    rng = np.random.default_rng(1)
    mixture = random_mixture(covariance_type, n_components=3, n_features=4, rng=rng)
    expected = [np.linalg.cond(matrix) for matrix in mixture.to_dense()]
    np.testing.assert_allclose(condition_numbers(mixture), expected, rtol=1e-9)


def test_clusters_are_matched_one_to_one_by_the_rows_that_they_share() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    others = np.array([2, 2, 1, 1, 1, 0])
    np.testing.assert_array_equal(matching(labels, others, 3), [2, 1, 0])
