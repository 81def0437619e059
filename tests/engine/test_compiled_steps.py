"""Steps taken in one compiled call, and the starts that are found in compiled code."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_rand_score

from gmm_engine import COVARIANCE_FAMILIES, EMStep, Mixture, em_steps, kernels
from gmm_engine.em import AT_ONCE, MOST_AT_ONCE, expectation
from gmm_engine.regularization import DataScale, Regularization, Ridge
from gmm_engine.samples import Blocks, Samples, SampleSource, sample_source
from tests.support.data import iris, random_mixture, rows_of

every_family = pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)


def steps_from(
    begin: Mixture, samples: SampleSource, n_steps: int, held_by: Regularization
) -> list[EMStep]:
    steps = em_steps(samples, begin, type(begin.family), held_by)
    return list(itertools.islice(steps, n_steps + 1))


def assert_same_steps(left: list[EMStep], right: list[EMStep]) -> None:
    for one, other in zip(left, right, strict=True):
        assert one.log_likelihood == other.log_likelihood
        assert one.log_max_resp == other.log_max_resp
        assert one.degenerate == other.degenerate
        for name, value in one.mixture.to_arrays().items():
            np.testing.assert_array_equal(value, other.mixture.to_arrays()[name])


@every_family
@pytest.mark.parametrize(
    ("n_features", "n_components"), [(1, 3), (3, 3), (3, 5), (13, 3), (13, 5), (20, 3), (35, 3)]
)
@pytest.mark.parametrize("held", ["by a floor", "by a ridge"])
def test_steps_taken_together_are_those_taken_one_by_one(
    covariance_type: str, n_features: int, n_components: int, held: str
) -> None:
    rng = np.random.default_rng(n_features)
    begin = random_mixture(
        covariance_type, n_components=n_components, n_features=n_features, rng=rng, spread=0.5
    )
    X, weight = rows_of(begin, 300, rng), rng.uniform(0.5, 1.5, 300)
    samples = Samples.checked(X, weight)
    held_by = DataScale.of(samples).floor if held == "by a floor" else Ridge(1e-3)
    one_by_one = sample_source(Blocks(lambda: [(X, weight)]), None)  # what may not fit in memory

    together = steps_from(begin, samples, 2 * AT_ONCE + 3, held_by)

    assert_same_steps(together, steps_from(begin, one_by_one, 2 * AT_ONCE + 3, held_by))
    assert together[-1].log_likelihood > together[0].log_likelihood


def test_the_mixture_of_a_step_answers_like_one_of_its_parameters() -> None:
    samples = Samples.checked(iris())
    begin = random_mixture("full", n_components=3, n_features=4, rng=np.random.default_rng(0))
    step = steps_from(begin, samples, 5, DataScale.of(samples).floor)[-1]
    anew = Mixture.from_arrays(step.mixture.to_arrays())
    np.testing.assert_array_equal(step.mixture.predict_proba(iris()), anew.predict_proba(iris()))
    np.testing.assert_array_equal(step.mixture.precisions_cholesky, anew.precisions_cholesky)


def test_a_component_that_collapses_among_them_is_held_up() -> None:
    rng = np.random.default_rng(3)
    X = np.vstack([rng.standard_normal((60, 2)), np.full((6, 2), 9.0)])
    labels = np.repeat([0, 1], [60, 6])
    labels[:2] = 1
    begin = Mixture.from_arrays(
        {
            "weights": [0.9, 0.1],
            "means": [X[labels == k].mean(axis=0) for k in range(2)],
            "covariances": [np.cov(X[labels == k].T) for k in range(2)],
        }
    )
    samples = Samples.checked(X)
    steps = steps_from(begin, samples, 12, DataScale.of(samples).floor)
    assert steps[0].degenerate == ()
    assert steps[-1].degenerate == (1,)
    assert all(np.isfinite(step.log_likelihood) for step in steps)


def test_few_rows_of_many_numbers_are_not_kept_sixteen_times() -> None:
    D = 20
    K = MOST_AT_ONCE // D**2 + 1
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2 * K, D))
    samples = Samples.checked(X)
    begin = Mixture.from_arrays(
        {
            "weights": np.full(K, 1.0 / K),
            "means": X[:K],
            "covariances": np.tile(np.eye(D), (K, 1, 1)),
        }
    )
    assert kernels.is_one_range(begin.prepared, 2 * K)
    first = steps_from(begin, samples, 1, Ridge(0.1))[1]
    assert first.mixture.means.base is None
    expected, _ = Mixture.from_statistics(
        expectation(begin, samples), type(begin.family), Ridge(0.1)
    )
    np.testing.assert_array_equal(first.mixture.covariances, expected.covariances)


def groups(rng: np.random.Generator, n_features: int) -> NDArray[np.float64]:
    centers = 4.0 * rng.standard_normal((6, n_features))
    return centers[rng.integers(0, 6, 500)] + rng.standard_normal((500, n_features))


@pytest.mark.parametrize("n_features", [1, 2, 5, 17])
def test_rows_joined_from_the_bottom_up_are_those_that_scipy_joins(n_features: int) -> None:
    X = groups(np.random.default_rng(n_features), n_features)
    for n_clusters in (1, 2, 6, 40, 500):
        labels = kernels.ward_labels(X, np.ones(len(X)), n_clusters)
        expected = fcluster(linkage(X, method="ward"), n_clusters, criterion="maxclust")
        assert adjusted_rand_score(expected, labels) == 1.0
        np.testing.assert_array_equal(np.unique(labels), np.arange(n_clusters))


def test_equal_rows_are_joined_too() -> None:
    labels = kernels.ward_labels(np.repeat([[0.0, 1.0], [5.0, 5.0]], 20, axis=0), np.ones(40), 2)
    assert len(set(labels[:20])) == len(set(labels[20:])) == 1
    assert labels[0] != labels[-1]


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_k_means_ends_where_every_row_is_nearest_to_its_own_mean(offset: float) -> None:
    rng = np.random.default_rng(1)
    X, weight = groups(rng, 3) + offset, rng.integers(1, 4, 500).astype(float)
    labels = kernels.k_means_labels(X, weight, 6, rng, max_steps=200, settled=0.0)
    means = np.stack(
        [np.average(X[labels == k], axis=0, weights=weight[labels == k]) for k in range(6)]
    )
    np.testing.assert_array_equal(cdist(X, means).argmin(axis=1), labels)


def test_k_means_from_given_centres_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(4)
    X, weight = groups(rng, 3), rng.integers(1, 4, 500).astype(float)
    chosen = rng.choice(500, 6, replace=False)
    given = means = X[chosen]
    for n_steps in range(4):
        labels = kernels.k_means_labels_from(given, X, weight, max_steps=n_steps, settled=0.0)
        expected = cdist(X, means).argmin(axis=1)
        np.testing.assert_array_equal(labels, expected)
        means = np.stack(
            [np.average(X[expected == k], axis=0, weights=weight[expected == k]) for k in range(6)]
        )
    np.testing.assert_array_equal(given, X[chosen])


def test_centres_are_rows_and_spread_out() -> None:
    X = groups(np.random.default_rng(2), 2)
    centers = X[kernels.near_rows(X, np.ones(500), 6, 1, np.random.default_rng(0))[:, 0]]
    assert len(np.unique(centers, axis=0)) == 6
    at_random = X[np.random.default_rng(0).choice(500, 6, replace=False)]
    assert cdist(X, centers).min(axis=1).mean() < cdist(X, at_random).min(axis=1).mean()


def test_a_row_without_weight_is_no_centre() -> None:
    X = np.array([[0.0], [1.0], [1e6]])
    weight = np.array([1.0, 1.0, 0.0])
    for seed in range(20):
        centers = kernels.near_rows(X, weight, 2, 1, np.random.default_rng(seed))
        assert sorted(X[centers].ravel()) == [0.0, 1.0]


def test_each_centre_is_given_the_rows_nearest_to_it() -> None:
    X = groups(np.random.default_rng(3), 2).round(1)  # some are as far as others
    near = kernels.near_rows(X, np.ones(500), 6, 40, np.random.default_rng(0))
    itself = kernels.near_rows(X, np.ones(500), 6, 1, np.random.default_rng(0))[:, 0]
    for rows, center in zip(near, itself, strict=True):
        distances = cdist(X[[center]], X)[0]
        assert len(set(rows)) == 40
        assert distances[rows].max() == np.sort(distances)[39]
