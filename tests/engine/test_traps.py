"""Traps that implementations of mixtures fell into, one section each, named after where.

The text before each test names the library and what went wrong there.
"""

import dataclasses
from collections.abc import Callable
from functools import cache
from itertools import chain, pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy.stats import multivariate_normal
from sklearn.metrics import adjusted_rand_score

from gmm_engine import (
    COVARIANCE_FAMILIES,
    INITIALIZERS,
    Blocks,
    EMStep,
    FitOptions,
    FitResult,
    Mixture,
    fit,
)
from gmm_engine.errors import OutOfRangeError, TooFewSamplesError
from gmm_engine.initialization import Initializer, StartRows, random_rows
from gmm_engine.regularization import FEATURE_FLOOR, DataScale
from gmm_engine.samples import Samples
from gmm_engine.statistics import DenseScatter
from tests.support.data import (
    Labelled,
    faithful,
    iris,
    iris_species,
    parallel_clusters,
    random_mixture,
    rotation,
    rows_of,
    separated_clusters,
)
from tests.support.slow_twin import in_own_shape

every_family = pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)


def agreement(result: FitResult, data: Labelled) -> float:
    return float(adjusted_rand_score(data.labels, result.mixture.predict(data.X)))


def codes(result: FitResult) -> list[str]:
    return [warning.code for warning in result.warnings]


# Elongated clusters (scikit-learn issues 34842, 34845): isotropic distances cut them across.

MAPS = {
    "as they are": np.eye(2),
    "rotated by 30 degrees": rotation(30),
    "rotated by 73 degrees": rotation(73),
    "rescaled": np.diag([1e-3, 1e4]),
    "badly scaled": np.diag([1e-6, 1e6]),
    "badly scaled and rotated": rotation(30) @ np.diag([1e-3, 1e3]),
    "sheared": np.array([[1.0, 5.0], [0.0, 1.0]]),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("change", MAPS)
def test_elongated_clusters_are_found_by_default(change: str, seed: int) -> None:
    drawn = parallel_clusters(np.random.default_rng(seed))
    data = Labelled(drawn.X @ MAPS[change].T, drawn.labels)
    assert agreement(fit(data.X, FitOptions(3, random_state=seed)), data) >= 0.95


def elongated(
    rng: np.random.Generator, *, n_clusters: int, n_features: int, rows_each: int
) -> Labelled:
    """Return parallel clusters with sd 30 along all features but the last, where it is 0.3."""
    labels = np.repeat(np.arange(n_clusters), rows_each)
    X = rng.standard_normal((len(labels), n_features))
    X[:, :-1] *= 30.0
    X[:, -1] = 0.3 * X[:, -1] + 3.0 * labels
    return Labelled(X, labels)


@pytest.mark.parametrize(
    ("n_clusters", "n_features", "rows_each"),
    [(5, 2, 200), (8, 2, 200), (3, 4, 200), (3, 8, 200), (3, 2, 40)],
    ids=["five", "eight", "plates in 4-D", "plates in 8-D", "40 rows each"],
)
def test_harder_elongated_clusters_are_found_by_default(
    n_clusters: int, n_features: int, rows_each: int
) -> None:
    for seed in (1, 2, 4):
        data = elongated(
            np.random.default_rng(seed),
            n_clusters=n_clusters,
            n_features=n_features,
            rows_each=rows_each,
        )
        result = fit(data.X, FitOptions(n_clusters, max_iter=100, random_state=seed))
        assert agreement(result, data) >= 0.95


# Stopping on a small change (scikit-learn issue 10122): on its data scikit-learn 1.9.1 stops at
# weights 0.37/0.63, where the maximum that it is on the way to has 0.24/0.76.


def slow_data() -> NDArray[np.float64]:
    draws = np.random.RandomState(1234)  # the issue's own generator
    large = multivariate_normal([2, 4], [[5, 2], [2, 6]]).rvs(300, random_state=draws)
    small = multivariate_normal([0, 0], [[4, 2], [2, 3]]).rvs(100, random_state=draws)
    return np.concatenate([large, small])


def test_slow_convergence_is_not_taken_for_convergence() -> None:
    options = FitOptions(2, init_params="kmeans", random_state=0)
    by_default = fit(slow_data(), options)
    to_the_end = fit(slow_data(), dataclasses.replace(options, tol=1e-12, max_iter=20_000))
    assert by_default.converged
    assert to_the_end.converged
    assert_allclose(to_the_end.mixture.weights, [0.76126, 0.23874], atol=1e-4)
    assert_allclose(by_default.mixture.weights, [0.76126, 0.23874], atol=1e-2)
    missing = to_the_end.criteria.mean_log_likelihood - by_default.criteria.mean_log_likelihood
    assert 0.0 <= missing <= 2.0 * options.tol


@pytest.mark.parametrize("seed", range(4))
def test_what_is_left_after_convergence_is_what_tol_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = random_mixture("full", n_components=3, n_features=2, rng=rng, spread=0.8)
    X = rows_of(truth, 400, rng)
    options = FitOptions(3, init_params="kmeans", max_iter=20_000, random_state=seed)
    by_default = fit(X, options)
    to_the_end = fit(X, dataclasses.replace(options, tol=1e-11), start=by_default.mixture)
    assert by_default.converged
    missing = to_the_end.criteria.mean_log_likelihood - by_default.criteria.mean_log_likelihood
    assert missing <= 5.0 * options.tol


def test_defaults_choose_the_better_of_two_near_maxima() -> None:
    for seed in range(8):
        result = fit(slow_data(), FitOptions(2, random_state=seed))
        assert result.criteria.mean_log_likelihood >= -4.50969


# E[x²] − μ²: scikit-learn's diag, spherical and tied raise at an offset of 1e8.


@every_family
@pytest.mark.parametrize("offset", [1e8, 1e12, -1e12])
def test_an_offset_changes_nothing_but_the_means(covariance_type: str, offset: float) -> None:
    drawn = separated_clusters(np.random.default_rng(0), n_features=3)
    X = np.round(drawn.X * 8.0) / 8.0  # exact beside the offset
    options = FitOptions(3, covariance_type, random_state=0)
    near, far = fit(X, options), fit(X + offset, options)
    assert far.converged
    assert far.warnings == ()
    np.testing.assert_array_equal(far.mixture.predict(X + offset), near.mixture.predict(X))
    assert_allclose(far.mixture.means - offset, near.mixture.means, atol=1e-3)
    assert_allclose(far.mixture.covariances, near.mixture.covariances, atol=1e-3)
    assert far.criteria.log_likelihood == pytest.approx(near.criteria.log_likelihood, abs=0.05)


# Absolute reg_covar: dominates data in small units, does nothing in large ones.


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
@pytest.mark.parametrize(
    "units", [[1e-6] * 4, [1e6] * 4, [1e-6, 1.0, 1e3, 1e6]], ids=["small", "large", "mixed"]
)
def test_other_units_change_nothing_but_units(covariance_type: str, units: list[float]) -> None:
    options = FitOptions(3, covariance_type, tol=1e-10, max_iter=5_000, random_state=0)
    plain, scaled = fit(iris(), options), fit(iris() * units, options)
    np.testing.assert_array_equal(
        scaled.mixture.predict(iris() * units), plain.mixture.predict(iris())
    )
    assert_allclose(scaled.mixture.means / units, plain.mixture.means, rtol=1e-4)
    shift = -150 * np.log(units).sum()
    expected = plain.criteria.log_likelihood + shift
    assert scaled.criteria.log_likelihood == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_another_unit_for_all_features_suits_round_components_too(unit: float) -> None:
    options = FitOptions(3, "spherical", tol=1e-10, max_iter=5_000, random_state=0)
    plain, scaled = fit(iris(), options), fit(iris() * unit, options)
    shift = -150 * 4 * np.log(unit)
    expected = plain.criteria.log_likelihood + shift
    assert scaled.criteria.log_likelihood == pytest.approx(expected, abs=1e-5)


@every_family
def test_a_number_for_reg_covar_is_added_to_every_variance(covariance_type: str) -> None:
    plain, raised = (
        fit(faithful(), FitOptions(1, covariance_type, reg_covar=reg_covar)).mixture
        for reg_covar in (0.0, 2.5)
    )
    assert_allclose(raised.to_dense()[0] - plain.to_dense()[0], 2.5 * np.eye(2), atol=1e-12)


# Extreme magnitudes: scikit-learn's diag gives a NaN model at 1e300, NaN predictions at 1e160.


@every_family
@pytest.mark.parametrize("factor", [1e300, 1e160, 1e-160, 1e-300])
def test_data_beyond_the_range_is_refused_by_name(covariance_type: str, factor: float) -> None:
    with pytest.raises(OutOfRangeError, match="rescale"):
        fit(iris() * factor, FitOptions(2, covariance_type, random_state=0))


@every_family
@pytest.mark.parametrize("factor", [1e140, 1e100, 1e-100, 1e-140])
def test_data_of_extreme_magnitude_is_fitted_like_any(covariance_type: str, factor: float) -> None:
    options = FitOptions(2, covariance_type, random_state=0)
    plain, extreme = fit(iris(), options), fit(iris() * factor, options)
    assert extreme.warnings == ()
    np.testing.assert_array_equal(
        extreme.mixture.predict(iris() * factor), plain.mixture.predict(iris())
    )
    assert_allclose(extreme.mixture.means / factor, plain.mixture.means, rtol=1e-3)


FAR = np.array([[1.0, 0, 0, 0], [0, -1.0, 0, 0], [1.0, 1.0, -1.0, 1.0]])


@cache
def iris_mixture(covariance_type: str) -> Mixture:
    return fit(iris(), FitOptions(3, covariance_type, max_iter=20, random_state=0)).mixture


@every_family
@pytest.mark.parametrize("distance", [1e3, 1e5, 1e8])
def test_far_rows_are_not_shared_out_evenly(covariance_type: str, distance: float) -> None:
    proba = iris_mixture(covariance_type).predict_proba(distance * FAR)
    assert_allclose(proba.sum(axis=1), 1.0, atol=1e-12)
    assert (proba.max(axis=1) > 0.99).all()


@pytest.mark.parametrize("distance", [1e30, 1e75, 1e150])
@every_family
def test_rows_however_far_have_probabilities(covariance_type: str, distance: float) -> None:
    proba = iris_mixture(covariance_type).predict_proba(distance * FAR)
    assert_allclose(proba.sum(axis=1), 1.0, atol=1e-12)


@every_family
@pytest.mark.parametrize("distance", [1e160, 1e300])
def test_rows_beyond_the_range_are_refused_by_name(covariance_type: str, distance: float) -> None:
    with pytest.raises(OutOfRangeError, match="rescale"):
        iris_mixture(covariance_type).predict_proba(distance * FAR)


@every_family
def test_a_row_too_far_for_a_narrow_component_is_refused_by_name(covariance_type: str) -> None:
    narrow = 1e-10 * np.stack([np.eye(2)] * 2)
    mixture = Mixture.from_arrays(
        {
            "weights": [0.5, 0.5],
            "means": np.eye(2),
            "covariances": in_own_shape(narrow, covariance_type),
        },
        covariance_type,
    )
    with pytest.raises(OutOfRangeError, match="row 1 is so far"):
        mixture.score_samples([[0.0, 0.0], [1e151, 0.0]])


# Products of densities: far rows get uniform posteriors (Spark), determinants as products
# overflow (oneDAL).


def test_a_far_row_belongs_to_the_wider_component() -> None:
    mixture = Mixture.from_arrays(
        {"weights": [0.5, 0.5], "means": [[0.0], [0.0]], "covariances": [1.0, 4.0]}, "spherical"
    )
    np.testing.assert_array_equal(mixture.predict([[60.0], [-1e6], [1e100]]), 1)
    assert_allclose(mixture.predict_proba([[60.0], [-1e6], [1e100]])[:, 1], 1.0)


@every_family
@pytest.mark.parametrize("variance", [1e-9, 1e9])
def test_determinants_beyond_the_range_do_no_harm(covariance_type: str, variance: float) -> None:
    n_features = 100  # a determinant of 1e±900
    dense = np.stack([variance * np.eye(n_features)] * 2)
    means = np.sqrt(variance) * np.stack([np.zeros(n_features), np.full(n_features, 3.0)])
    mixture = Mixture.from_arrays(
        {
            "weights": [0.5, 0.5],
            "means": means,
            "covariances": in_own_shape(dense, covariance_type),
        },
        covariance_type,
    )
    expected = -0.5 * n_features * np.log(2.0 * np.pi * variance) + np.log(0.5)
    assert_allclose(mixture.score_samples(means), expected, rtol=1e-12)
    np.testing.assert_array_equal(mixture.predict(means), [0, 1])


# The bound of the step before (scikit-learn's lower_bound_).


@every_family
@pytest.mark.parametrize("max_iter", [1, 3])
def test_the_value_reported_is_that_of_the_parameters_returned(
    covariance_type: str, max_iter: int
) -> None:
    options = FitOptions(3, covariance_type, tol=0.0, max_iter=max_iter)
    result = fit(iris(), options, start=iris_species())
    own = result.mixture.score_samples(iris()).sum()
    assert result.criteria.log_likelihood == pytest.approx(own, rel=1e-12)
    assert result.criteria.bic == pytest.approx(result.mixture.bic(iris()), rel=1e-12)


# tied by (XᵀX − ΣNμμᵀ)/n ignores the responsibilities (and the weights).


def test_a_tied_covariance_is_the_weighted_scatter_within() -> None:
    rng = np.random.default_rng(0)
    begin = random_mixture("tied", n_components=3, n_features=4, rng=rng)
    X, weight = rows_of(begin, 200, rng), rng.uniform(0.0, 3.0, size=200)
    options = FitOptions(3, "tied", tol=0.0, max_iter=1, reg_covar=0.0)
    after = fit(X, options, start=begin, sample_weight=weight).mixture
    resp = begin.predict_proba(X) * weight[:, np.newaxis]
    within = np.zeros((4, 4))
    for k, mean in enumerate(after.means):
        within += ((X - mean) * resp[:, [k]]).T @ (X - mean)
    assert_allclose(after.covariances, within / weight.sum(), rtol=1e-11)


# A variance handed over as a standard deviation (pomegranate).


@every_family
def test_samples_spread_by_the_standard_deviation(covariance_type: str) -> None:
    dense = np.array([[[100.0, 0.0], [0.0, 100.0]]])
    mixture = Mixture.from_arrays(
        {
            "weights": [1.0],
            "means": [[0.0, 0.0]],
            "covariances": in_own_shape(dense, covariance_type),
        },
        covariance_type,
    )
    assert mixture.sample(40_000, 0)[0].std() == pytest.approx(10.0, rel=0.02)


# Collapsed components: copied (OpenCV), frozen (Armadillo), NaN (others); and the likelihood's
# singularities win restarts.

COLLAPSES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "one row far away": lambda X: np.vstack([X, [[60.0, -60.0]]]),
    "equal rows": lambda X: np.vstack([X, np.repeat([[60.0, -60.0]], 8, axis=0)]),
}


@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical"])
@pytest.mark.parametrize("where", COLLAPSES)
def test_a_component_that_collapsed_is_named(covariance_type: str, where: str) -> None:
    blobs = separated_clusters(np.random.default_rng(0), n_clusters=2)
    X = COLLAPSES[where](blobs.X)
    start = np.append(blobs.labels, np.full(len(X) - len(blobs.X), 2))
    result = fit(X, FitOptions(3, covariance_type), start=start)
    assert codes(result) == ["degenerate_component"]
    assert "component 2 has next to no spread" in result.warnings[0].detail
    assert "lower n_components" in result.warnings[0].detail
    assert all(np.isfinite(value).all() for value in result.mixture.to_arrays().values())
    assert np.isfinite(result.criteria.bic)


def test_a_component_that_collapsed_is_named_by_its_place_in_the_order_of_the_result() -> None:
    X = separated_clusters(np.random.default_rng(0), n_clusters=2).X
    start = np.append(np.zeros(len(X) // 2), np.ones(len(X) - len(X) // 2))
    X = np.vstack([X, [[60.0, -60.0]]])
    given = fit(X, FitOptions(3), start=np.append(start + 1, 0))  # the lightest comes first
    assert [warning.component for warning in given.warnings] == [0]
    ordered = given.in_canonical_order()
    assert ordered.mixture.weights.argmin() == 2
    assert [warning.component for warning in ordered.warnings] == [2]
    assert "component 2 has next to no spread" in ordered.warnings[0].detail


@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical"])
def test_a_component_without_rows_is_named(covariance_type: str) -> None:
    result = fit(iris(), FitOptions(4, covariance_type, max_iter=20), start=iris_species())
    assert "degenerate_component" in codes(result)
    assert any("component 3" in warning.detail for warning in result.warnings)
    assert all(np.isfinite(value).all() for value in result.mixture.to_arrays().values())


@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical"])
@pytest.mark.parametrize("init_params", ["auto", "random_from_data", "k-means++"])
def test_a_singularity_never_wins_a_restart(covariance_type: str, init_params: str) -> None:
    """Ten equal rows far off: a component on them alone has by far the largest likelihood."""
    blobs = separated_clusters(np.random.default_rng(2), n_clusters=2, rows_each=100)
    X = np.vstack([blobs.X, np.repeat([[6.0, 30.0]], 10, axis=0)])
    steps: list[EMStep] = []
    options = FitOptions(2, covariance_type, init_params=init_params, n_init=10, random_state=0)
    result = fit(X, options, on_step=steps.append)
    tempting = [step for step in steps if step.degenerate]
    assert max(step.log_likelihood for step in tempting) > result.criteria.log_likelihood + 50
    assert codes(result) == []
    assert adjusted_rand_score(blobs.labels, result.mixture.predict(blobs.X)) == 1.0


@every_family
def test_a_constant_feature_is_named_and_disturbs_nothing(covariance_type: str) -> None:
    blobs = separated_clusters(np.random.default_rng(3))
    X = np.column_stack([blobs.X[:, 0], np.full(len(blobs.X), 5.0), blobs.X[:, 1]])
    result = fit(X, FitOptions(3, covariance_type, random_state=0))
    assert codes(result) == ["constant_feature"]
    assert "features 1 do not vary" in result.warnings[0].detail
    assert agreement(result, Labelled(X, blobs.labels)) == 1.0
    assert np.isfinite(result.criteria.bic)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
def test_beside_a_constant_feature_is_found_what_is_found_without_it(covariance_type: str) -> None:
    blobs = separated_clusters(np.random.default_rng(3))
    options = FitOptions(3, covariance_type, tol=1e-12, random_state=0)
    X = np.column_stack([blobs.X[:, 0], np.full(len(blobs.X), 5.0), blobs.X[:, 1]])
    alone, beside = (fit(rows, options).mixture for rows in (blobs.X, X))
    covariances = beside.to_dense()

    assert_allclose(beside.means[:, [0, 2]], alone.means, rtol=1e-6)
    assert_allclose(covariances[:, [[0], [2]], [0, 2]], alone.to_dense(), rtol=1e-5, atol=1e-9)
    assert (covariances[:, 1, [0, 2]] == 0.0).all()
    assert_allclose(covariances[:, 1, 1], FEATURE_FLOOR * 5.0**2, rtol=1e-12)


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
@pytest.mark.parametrize("n_components", [2, 3])
@pytest.mark.parametrize("n_rows", [200, 2000])
@pytest.mark.parametrize("seed", range(5))
def test_beside_collinear_features_no_step_leaves_the_floor(
    covariance_type: str, n_components: int, n_rows: int, seed: int
) -> None:
    a = np.random.default_rng(0).standard_normal((n_rows, 2))
    X = np.column_stack([a, a.sum(axis=1)])
    steps: list[EMStep] = []
    options = FitOptions(n_components, covariance_type, random_state=seed)
    result = fit(X, options, on_step=steps.append)

    gains = [
        after.log_likelihood - before.log_likelihood
        for before, after in pairwise(steps)
        if after.iteration == before.iteration + 1
    ]
    # Covariances in doubles say no more of their flattest direction than this; a gain is rounded
    # at both its ends.
    spread = np.linalg.eigvalsh(result.mixture.to_dense())
    condition = (spread[:, -1] / spread[:, 0]).max()
    rounding = 0.5 * len(X) * np.finfo(float).eps * condition
    assert min(gains) > -2.0 * rounding
    flattest = np.linalg.eigvalsh(result.mixture.to_dense())[:, 0]
    alone = fit(X, FitOptions(1, covariance_type)).mixture.to_dense()
    assert_allclose(flattest, np.linalg.eigvalsh(alone)[0, 0], rtol=0.1)


def test_collinear_features_are_named_beside_a_constant_one() -> None:
    a = np.random.default_rng(0).standard_normal((200, 2))
    X = np.column_stack([a, a.sum(axis=1), np.ones(200)])
    result = fit(X, FitOptions(2, random_state=0))
    codes = [warning.code for warning in result.warnings]
    assert codes[:2] == ["constant_feature", "collinear_features"]
    assert "flat in 1 directions" in result.warnings[1].detail


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_collinear_features_are_named_and_disturb_nothing(covariance_type: str) -> None:
    blobs = separated_clusters(np.random.default_rng(4))
    X = np.column_stack([blobs.X, blobs.X @ [1.0, -2.0]])
    result = fit(X, FitOptions(3, covariance_type, random_state=0))
    assert codes(result) == ["collinear_features"]
    assert agreement(result, Labelled(X, blobs.labels)) == 1.0


@pytest.mark.parametrize("covariance_type", ["diag", "spherical"])
def test_collinear_features_are_no_matter_to_diagonal_families(covariance_type: str) -> None:
    blobs = separated_clusters(np.random.default_rng(4))
    X = np.column_stack([blobs.X, blobs.X @ [1.0, -2.0]])
    assert codes(fit(X, FitOptions(3, covariance_type, random_state=0))) == []


# Weights by rescaling: mclust's weighted log-likelihood and BIC differ from row duplication.


@every_family
@pytest.mark.parametrize("init_params", ["auto", "k-means++", "kmeans", "random_from_data"])
def test_whole_weights_are_repeated_rows(covariance_type: str, init_params: str) -> None:
    data = separated_clusters(np.random.default_rng(5))
    counts = np.random.default_rng(6).integers(0, 4, size=len(data.X))
    options = FitOptions(3, covariance_type, init_params=init_params, random_state=1)
    weighted = fit(data.X, options, sample_weight=counts)
    repeated = fit(np.repeat(data.X, counts, axis=0), options)
    for name, value in repeated.mixture.to_arrays().items():
        assert_allclose(
            weighted.mixture.to_arrays()[name], value, rtol=1e-9, atol=1e-9, err_msg=name
        )
    assert weighted.criteria.n_samples == counts.sum()
    for name in ("log_likelihood", "bic", "aic", "aicc", "icl"):
        expected = getattr(repeated.criteria, name)
        assert getattr(weighted.criteria, name) == pytest.approx(expected, rel=1e-11)


ALL_STARTS = tuple(dict.fromkeys(chain.from_iterable(INITIALIZERS.values())))


def overlapping(rng: np.random.Generator, n_rows: int) -> tuple[NDArray[np.float64], int]:
    """Return rows of components that overlap, where other draws end elsewhere, and how many."""
    D, K = int(rng.integers(1, 5)), int(rng.integers(2, 5))
    centers = rng.standard_normal((K, D))
    return rng.standard_normal((n_rows, D)) + centers[rng.integers(0, K, n_rows)], K


@pytest.mark.parametrize("initialize", ALL_STARTS)
@pytest.mark.parametrize("n_rows", [90, 900])
@pytest.mark.parametrize("seed", range(10))
def test_starts_from_whole_weights_are_those_from_repeated_rows(
    initialize: Initializer, n_rows: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    X, K = overlapping(rng, n_rows)
    counts = rng.integers(0, 5, size=n_rows)
    starts = []
    for samples in (Samples.checked(X, counts), Samples.checked(np.repeat(X, counts, axis=0))):
        rows = StartRows(samples, DataScale.of(samples))
        starts.append(initialize(rows, K, DenseScatter, np.random.default_rng(1)))
    assert_allclose(starts[0].nk, starts[1].nk, rtol=1e-9)
    assert_allclose(starts[0].means, starts[1].means, rtol=1e-7, atol=1e-9)
    assert_allclose(starts[0].central_scatter, starts[1].central_scatter, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("init_params", INITIALIZERS)
@pytest.mark.parametrize("n_blocks", [None, 3])
def test_fits_of_many_rows_with_whole_weights_are_those_of_repeated_rows(
    init_params: str, n_blocks: int | None
) -> None:
    """Of so many that starts are sought on a part of them."""
    rng = np.random.default_rng(3)
    X, K = overlapping(rng, 6000)
    counts = rng.integers(0, 5, size=len(X)).astype(float)
    options = FitOptions(K, init_params=init_params, max_iter=30, random_state=1)
    repeated = fit(np.repeat(X, counts.astype(int), axis=0), options)
    if n_blocks is None:
        weighted = fit(X, options, sample_weight=counts)
    else:
        parts = (np.array_split(values, n_blocks) for values in (X, counts))
        blocks = list(zip(*parts, strict=True))
        weighted = fit(Blocks(lambda: blocks), options)
    assert weighted.criteria.log_likelihood == pytest.approx(
        repeated.criteria.log_likelihood, abs=1e-3
    )
    assert_allclose(weighted.mixture.means, repeated.mixture.means, atol=1e-4)


def test_random_rows_differ_as_long_as_there_are_others() -> None:
    X = np.repeat([[0.0, 1.0], [0.0, 2.0], [5.0, 1.0]], [40, 1, 1], axis=0)
    samples = Samples.checked(X)
    rows = StartRows(samples, DataScale.of(samples))
    for seed in range(20):
        drawn = random_rows(rows, 3, DenseScatter, np.random.default_rng(seed)).means
        assert len(np.unique(drawn, axis=0)) == 3
        drawn = random_rows(rows, 5, DenseScatter, np.random.default_rng(seed)).means
        assert len(np.unique(drawn, axis=0)) == 3


@pytest.mark.parametrize("init_params", ["auto", "kmeans", "random", "random_from_data"])
def test_weights_that_are_lost_in_every_sum_are_none(init_params: str) -> None:
    X = separated_clusters(np.random.default_rng(5)).X
    is_counted = np.arange(len(X)) % 3 > 0
    options = FitOptions(3, init_params=init_params, random_state=1)
    without = fit(X, options, sample_weight=np.where(is_counted, 1.0, 0.0))
    beside = fit(X, options, sample_weight=np.where(is_counted, 1.0, 1e-160))
    np.testing.assert_array_equal(beside.mixture.means, without.mixture.means)
    assert beside.criteria == without.criteria


def test_a_weight_that_outweighs_all_others_leaves_one_row() -> None:
    X = separated_clusters(np.random.default_rng(5)).X
    weight = np.full(len(X), 1e-160)
    weight[:2] = 1.0
    with pytest.raises(TooFewSamplesError, match="2 rows"):
        fit(X, FitOptions(3), sample_weight=weight)
    blocks = Blocks(lambda: [(X[:50], weight[:50]), (X[50:], weight[50:] * 1e80)])
    with pytest.raises(TooFewSamplesError, match="2 rows"):
        fit(blocks, FitOptions(3))
    weight = np.where(np.arange(len(X)) < 10, 1.0, 1e-20)
    assert np.isfinite(fit(X, FitOptions(3, random_state=0), sample_weight=weight).log_likelihood)


def test_the_criteria_of_a_mixture_count_weights_like_rows() -> None:
    mixture = fit(faithful(), FitOptions(2, random_state=0)).mixture
    counts = np.random.default_rng(7).integers(0, 5, size=272)
    weighted = mixture.criteria(faithful(), counts)
    repeated = mixture.criteria(np.repeat(faithful(), counts, axis=0))
    for name in ("n_samples", "log_likelihood", "log_max_resp", "bic", "icl"):
        assert getattr(weighted, name) == pytest.approx(getattr(repeated, name), rel=1e-12)


# One seed, one sample at every call (scikit-learn issue 10539).


def test_a_generator_gives_another_sample_at_every_call() -> None:
    mixture = fit(faithful(), FitOptions(2, random_state=0)).mixture
    rng = np.random.default_rng(0)
    first, second = mixture.sample(20, rng)[0], mixture.sample(20, rng)[0]
    assert not np.isin(first, second).any()


# Label order changes with seed and start.


@every_family
def test_every_seed_and_start_names_the_components_alike(covariance_type: str) -> None:
    drawn = separated_clusters(np.random.default_rng(8), n_clusters=4)
    X = np.vstack([drawn.X, drawn.X[60:100], drawn.X[120:140]])  # clusters of unlike weight
    labels = set()
    for init_params in ("auto", "kmeans"):
        for seed in range(3):
            options = FitOptions(
                4, covariance_type, init_params=init_params, n_init=3, random_state=seed
            )
            labels.add(tuple(fit(X, options).mixture.predict(X)))
    assert len(labels) == 1


# The sign and the count of BIC.


@every_family
def test_the_criteria_count_what_is_free(covariance_type: str) -> None:
    K, D = 3, 4
    covariances = {"full": K * 10, "tied": 10, "diag": K * D, "spherical": K}[covariance_type]
    expected = covariances + K * D + K - 1
    result = fit(iris(), FitOptions(K, covariance_type, random_state=0))
    criteria = result.criteria
    assert criteria.n_parameters == expected
    assert criteria.bic == pytest.approx(
        -2.0 * criteria.log_likelihood + expected * np.log(150), rel=1e-14
    )
    assert criteria.aic == pytest.approx(-2.0 * criteria.log_likelihood + 2 * expected, rel=1e-14)
    assert criteria.aicc == pytest.approx(
        criteria.aic + 2 * expected * (expected + 1) / (150 - expected - 1), rel=1e-14
    )
    resp = result.mixture.predict_proba(iris())
    icl = criteria.bic - 2.0 * np.log(resp.max(axis=1)).sum()
    assert criteria.icl == pytest.approx(icl, rel=1e-12)
    assert criteria.icl >= criteria.bic


def test_lower_is_better_and_finds_the_number_of_clusters() -> None:
    X = separated_clusters(np.random.default_rng(9), n_clusters=3).X
    fits = {K: fit(X, FitOptions(K, n_init=3, random_state=0)).criteria for K in (1, 2, 3, 4, 5)}
    for name in ("bic", "icl"):
        assert min(fits, key=lambda K: getattr(fits[K], name)) == 3


# A run that only seems to stand still.


def test_the_steps_of_a_run_never_lower_the_likelihood() -> None:
    steps: list[EMStep] = []
    options = FitOptions(3, init_params="random", reg_covar=0.0, random_state=0)
    fit(iris(), options, on_step=steps.append)
    gains = np.diff([step.log_likelihood for step in steps])
    assert (gains >= -1e-10).all()
