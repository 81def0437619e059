"""Starts of which a caller gives parts, and fits that go on where another one ended."""

import dataclasses

import numpy as np
import pytest

from gmm_engine import (
    COVARIANCE_FAMILIES,
    INITIALIZERS,
    EMStep,
    FitOptions,
    Given,
    Mixture,
    StopReason,
    errors,
    fit,
)
from tests.support.data import faithful, iris, random_mixture

every_family = pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)


def a_start(covariance_type: str) -> Mixture:
    rng = np.random.default_rng(3)
    drawn = random_mixture(covariance_type, n_components=3, n_features=4, rng=rng)
    return Mixture.from_arrays(
        {**drawn.to_arrays(), "means": iris()[[10, 60, 110]]}, covariance_type
    )


def first_step(options: FitOptions, start: Given) -> EMStep:
    steps: list[EMStep] = []
    fit(iris(), options, start=start, on_step=steps.append)
    return steps[0]


@every_family
def test_a_whole_start_is_taken_as_it_is(covariance_type: str) -> None:
    start = a_start(covariance_type)
    given = Given(start.weights, start.means, start.precisions)
    factored = Given(start.weights, start.means, precisions_cholesky=start.precisions_cholesky)
    options = FitOptions(3, covariance_type, max_iter=1, tol=0.0)
    begin = first_step(options, factored).mixture
    np.testing.assert_array_equal(begin.precisions_cholesky, start.precisions_cholesky)
    for init_params in INITIALIZERS:
        options = FitOptions(3, covariance_type, init_params=init_params, max_iter=1, tol=0.0)
        begin = first_step(options, given).mixture
        np.testing.assert_array_equal(begin.weights, start.weights)
        np.testing.assert_array_equal(begin.means, start.means)
        np.testing.assert_allclose(begin.covariances, start.covariances, rtol=1e-12, atol=1e-13)


@every_family
@pytest.mark.parametrize("part", ["weights", "means", "precisions", "precisions_cholesky"])
def test_a_given_part_replaces_what_was_found(covariance_type: str, part: str) -> None:
    value = getattr(a_start(covariance_type), part)
    options = FitOptions(3, covariance_type, init_params="kmeans", max_iter=1, random_state=5)
    found = first_step(options, Given()).mixture
    begin = first_step(options, Given(**{part: value})).mixture
    spread = part if part.startswith("precisions") else "precisions"
    for name in ("weights", "means", spread):
        expected = value if name == part else getattr(found, name)
        np.testing.assert_allclose(getattr(begin, name), expected, rtol=1e-9, atol=1e-12)


def test_components_keep_the_order_of_given_means() -> None:
    ordered = fit(faithful(), FitOptions(2, random_state=0)).mixture
    for order in ([0, 1], [1, 0]):
        means = ordered.means[order]
        result = fit(faithful(), FitOptions(2, random_state=0), start=Given(means=means))
        np.testing.assert_allclose(result.mixture.means, means, rtol=0.02)


def test_every_restart_finds_the_missing_parts_anew() -> None:
    begins: list[EMStep] = []
    options = FitOptions(3, init_params="random_from_data", n_init=4, max_iter=2, random_state=0)
    fit(iris(), options, start=Given(weights=[0.2, 0.3, 0.5]), on_step=begins.append)
    begins = [step for step in begins if step.iteration == 0]
    assert [step.restart for step in begins] == [0, 1, 2, 3]
    assert len({step.log_likelihood for step in begins}) == 4
    for step in begins:
        np.testing.assert_array_equal(step.mixture.weights, [0.2, 0.3, 0.5])


def test_weights_in_single_precision_sum_to_one_as_well_as_they_can() -> None:
    weights = np.array([0.1, 0.2, 0.7], dtype=np.float32)
    begin = first_step(FitOptions(3, max_iter=1, random_state=0), Given(weights=weights)).mixture
    assert begin.weights.sum() == pytest.approx(1.0, abs=1e-15)
    np.testing.assert_allclose(begin.weights, weights, rtol=1e-6)


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("weights", [0.5, 0.5], r"weights has shape \(2,\), but must have \(3,\)"),
        ("weights", [0.5, 0.5, 0.5], "weights must not be negative and must sum to 1"),
        ("weights", [-0.5, 0.5, 1.0], "weights must not be negative and must sum to 1"),
        ("means", np.zeros((3, 2)), r"means has shape \(3, 2\), but must have \(3, 4\)"),
        ("means", np.full((3, 4), np.nan), "means contains NaN"),
        ("precisions", np.eye(4), "precisions has shape"),
        ("precisions", np.stack([-np.eye(4)] * 3), "the precision of component 0 is not positive"),
        ("precisions_cholesky", np.eye(4), "precisions_cholesky has shape"),
        ("precisions_cholesky", np.zeros((3, 4, 4)), "the precision of component 0 is not"),
        ("precisions", np.stack([np.tri(4)] * 3), "precisions must be symmetric"),
    ],
)
def test_a_part_that_does_not_fit_is_refused(part: str, value: object, says: str) -> None:
    with pytest.raises(errors.GmmEngineError, match=says):
        fit(iris(), FitOptions(3, random_state=0), start=Given(**{part: value}))  # type: ignore[arg-type]  # the table's values


def test_precisions_and_their_factors_are_not_both_taken() -> None:
    with pytest.raises(errors.InvalidParameterError, match="precisions_cholesky can't be given"):
        Given(precisions=np.eye(2), precisions_cholesky=np.eye(2))


@every_family
def test_precisions_and_their_factors_make_the_mixture_they_came_from(
    covariance_type: str,
) -> None:
    mixture = a_start(covariance_type)
    for name in ("precisions", "precisions_cholesky"):
        arrays = {
            "weights": mixture.weights,
            "means": mixture.means,
            name: getattr(mixture, name),
        }
        again = Mixture.from_arrays(arrays, covariance_type)
        np.testing.assert_allclose(again.covariances, mixture.covariances, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(again.predict_proba(iris()), mixture.predict_proba(iris()))
    np.testing.assert_array_equal(again.precisions_cholesky, mixture.precisions_cholesky)
    np.testing.assert_array_equal(again.score_samples(iris()), mixture.score_samples(iris()))


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_any_factor_of_the_precisions_will_do(covariance_type: str) -> None:
    """Also the lower one of ``numpy.linalg.cholesky``, which many set by hand."""
    mixture = a_start(covariance_type)
    lower = np.linalg.cholesky(mixture.precisions)
    arrays = {**mixture.to_arrays(), "precisions_cholesky": lower}
    del arrays["covariances"]
    again = Mixture.from_arrays(arrays, covariance_type)
    np.testing.assert_allclose(again.score_samples(iris()), mixture.score_samples(iris()))
    assert not np.tril(again.precisions_cholesky, -1).any()


@pytest.mark.parametrize(
    ("covariance_type", "name", "value"),
    [
        ("full", "precisions_cholesky", np.zeros((1, 2, 2))),
        ("full", "precisions_cholesky", np.ones((1, 2, 2))),
        ("tied", "precisions_cholesky", np.zeros((2, 2))),
        ("diag", "precisions_cholesky", np.zeros((1, 2))),
        ("diag", "precisions", np.zeros((1, 2))),
        ("spherical", "precisions", [-1.0]),
        ("full", "precisions", np.diag([1.0, -1.0])[np.newaxis]),
        ("tied", "precisions", np.zeros((2, 2))),
        ("full", "precisions_cholesky", np.diag([1e-200, 1.0])[np.newaxis]),
    ],
)
def test_a_flat_precision_is_refused(covariance_type: str, name: str, value: object) -> None:
    arrays = {"weights": [1.0], "means": [[0.0, 0.0]], name: value}
    says = "the precision of component 0 is not positive definite; give a"
    with pytest.raises(errors.SingularCovarianceError, match=says):
        Mixture.from_arrays(arrays, covariance_type)  # type: ignore[arg-type]  # the table's values


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_a_precision_that_has_no_factor_in_doubles_is_refused_with_another_way(
    covariance_type: str,
) -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((200, 3))
    X[:, 2] = X[:, 0] + X[:, 1] + 1e-9 * X[:, 2]
    options = FitOptions(2, covariance_type, random_state=0)
    found = fit(X, options).mixture
    rest = {"weights": found.weights, "means": found.means}
    with pytest.raises(errors.SingularCovarianceError, match="give its factors as precisions_chol"):
        fit(X, options, start=Given(**rest, precisions=found.precisions))
    again = fit(X, options, start=Given(**rest, precisions_cholesky=found.precisions_cholesky))
    assert again.criteria.mean_log_likelihood >= found.score(X) - 1e-6


@every_family
def test_a_fit_in_parts_is_the_fit_in_one(covariance_type: str) -> None:
    start = a_start(covariance_type)
    whole = fit(iris(), FitOptions(3, covariance_type, tol=0.0, max_iter=6), start=start)
    step = FitOptions(3, covariance_type, tol=0.0, max_iter=1)
    part = fit(iris(), step, start=start)
    for _ in range(5):
        part = fit(iris(), step, start=part)
    np.testing.assert_array_equal(part.mixture.means, whole.mixture.means)
    assert part.trail == whole.trail
    assert part.n_iter == 1


def test_single_steps_converge_to_the_limit_of_one_long_fit() -> None:
    options = FitOptions(2, tol=1e-6, max_iter=1, init_params="kmeans", random_state=0)
    long = fit(faithful(), dataclasses.replace(options, max_iter=500))
    part, n_steps = fit(faithful(), options), 1
    while not part.converged:
        part, n_steps = fit(faithful(), options, start=part), n_steps + 1
    assert n_steps < 100
    assert part.criteria.mean_log_likelihood == pytest.approx(
        long.criteria.mean_log_likelihood, abs=2e-6
    )


def test_what_was_seen_of_other_data_does_not_count() -> None:
    ended = fit(faithful(), FitOptions(2, random_state=0))
    assert ended.stop_reason is StopReason.CONVERGED
    elsewhere = fit(faithful() + 1.0, FitOptions(2, max_iter=1), start=ended)
    assert not elsewhere.converged
    assert len(elsewhere.trail) == 2
