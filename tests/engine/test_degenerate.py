"""Data with hardly anything in it: a finite model that says so, or a named refusal."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from gmm_engine import (
    COVARIANCE_FAMILIES,
    INITIALIZERS,
    FitOptions,
    FitResult,
    Mixture,
    fit,
    kernels,
)
from gmm_engine.errors import OutOfRangeError, TooFewSamplesError
from gmm_engine.regularization import DataScale
from gmm_engine.samples import Samples

every_family = pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
every_start = pytest.mark.parametrize("init_params", INITIALIZERS)


def assert_healthy_numbers(result: FitResult, X: NDArray[np.float64]) -> None:
    """Nothing that leaves the engine is NaN or infinite, and probabilities are such."""
    mixture = result.mixture
    for name, value in mixture.to_arrays().items():
        assert np.isfinite(value).all(), name
    assert np.isfinite(mixture.precisions).all()
    assert np.isfinite(result.log_likelihoods).all()
    assert np.isfinite(result.criteria.bic)
    assert mixture.weights.min() >= 0
    assert mixture.weights.sum() == pytest.approx(1.0, abs=1e-9)
    proba = mixture.predict_proba(X)
    assert ((proba >= 0) & (proba <= 1 + 1e-12)).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, atol=1e-9)
    assert np.isfinite(mixture.score_samples(X)).all()
    assert np.isfinite(mixture.sample(5, 0)[0]).all()


def codes(result: FitResult) -> set[str]:
    return {warning.code for warning in result.warnings}


def in_own_form(covariance: NDArray[np.float64], covariance_type: str) -> NDArray[np.float64]:
    """Return what of one (D, D) matrix the family can hold, as a (D, D) matrix."""
    if covariance_type in ("full", "tied"):
        return covariance
    variances = np.diagonal(covariance)
    return np.diag(
        variances if covariance_type == "diag" else np.full_like(variances, variances.mean())
    )


@every_family
@every_start
def test_one_component_is_the_mean_and_covariance_of_the_data(
    covariance_type: str, init_params: str
) -> None:
    X = np.random.default_rng(0).standard_normal((40, 3)) @ np.diag([1.0, 5.0, 0.1]) + 7.0
    options = FitOptions(1, covariance_type, init_params=init_params, random_state=0)
    result = fit(X, options)
    expected = in_own_form(np.cov(X.T, bias=True), covariance_type)
    assert result.converged
    np.testing.assert_array_equal(result.mixture.weights, [1.0])
    np.testing.assert_allclose(result.mixture.means[0], X.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(result.mixture.to_dense()[0], expected, rtol=1e-12, atol=1e-14)


@every_family
def test_one_row_makes_one_component_on_it(covariance_type: str) -> None:
    X = np.array([[3.0, -4.0]])
    result = fit(X, FitOptions(1, covariance_type))
    assert_healthy_numbers(result, X)
    np.testing.assert_array_equal(result.mixture.means, X)
    assert codes(result) & {"constant_feature", "degenerate_component"}


@every_family
@every_start
def test_as_many_components_as_rows_is_possible_and_named(
    covariance_type: str, init_params: str
) -> None:
    X = np.random.default_rng(1).standard_normal((4, 2))
    result = fit(X, FitOptions(4, covariance_type, init_params=init_params, random_state=0))
    assert_healthy_numbers(result, X)
    if covariance_type != "tied" and init_params.startswith("k"):
        assert "degenerate_component" in codes(result)


def test_more_components_than_rows_is_refused() -> None:
    with pytest.raises(TooFewSamplesError, match=r"3 rows .* 4 components"):
        fit(np.eye(3), FitOptions(4))


@every_family
@pytest.mark.parametrize("n_components", [1, 2])
def test_more_features_than_rows_is_a_model_with_a_warning(
    covariance_type: str, n_components: int
) -> None:
    X = np.random.default_rng(2).standard_normal((6, 25))
    options = FitOptions(n_components, covariance_type, max_iter=50, random_state=0)
    result = fit(X, options)
    assert_healthy_numbers(result, X)
    if covariance_type in ("full", "tied"):
        assert "collinear_features" in codes(result)


@every_family
@pytest.mark.parametrize("value", [0.0, 7.0, -1e12, 1e-12])
def test_rows_all_alike_are_a_model_with_a_warning(covariance_type: str, value: float) -> None:
    X = np.full((12, 3), value)
    result = fit(X, FitOptions(2, covariance_type, random_state=0))
    assert_healthy_numbers(result, X)
    assert "constant_feature" in codes(result)
    np.testing.assert_allclose(result.mixture.means, value, rtol=1e-12)


@every_family
def test_rows_of_weight_zero_might_as_well_not_be_there(covariance_type: str) -> None:
    rng = np.random.default_rng(3)
    X = rng.standard_normal((50, 2))
    X[25:] += 10.0
    strangers = np.array([[1e6, -1e6], [0.0, 500.0], [33.0, 1e100]])
    weight = np.concatenate([np.ones(50), np.zeros(3)])
    start = (np.arange(50) >= 25).astype(int)
    options = FitOptions(2, covariance_type, tol=1e-10)
    without = fit(X, options, start=start)
    with_them = fit(
        np.vstack([X, strangers]), options, sample_weight=weight, start=np.append(start, [0, 1, 1])
    )
    assert with_them.warnings == without.warnings == ()
    assert with_them.criteria.n_samples == 50.0
    for name, value in without.mixture.to_arrays().items():
        np.testing.assert_allclose(
            with_them.mixture.to_arrays()[name], value, rtol=1e-9, atol=1e-12
        )


@every_family
@pytest.mark.parametrize("factor", [1e-6, 3.0, 1e6])
def test_weights_count_only_relative_to_each_other(covariance_type: str, factor: float) -> None:
    rng = np.random.default_rng(4)
    X = rng.standard_normal((60, 2))
    X[30:] += 6.0
    options = FitOptions(2, covariance_type, init_params="kmeans", tol=1e-9, random_state=0)
    weight = rng.uniform(0.5, 1.5, size=60)
    plain = fit(X, options, sample_weight=weight)
    scaled = fit(X, options, sample_weight=factor * weight)
    assert scaled.warnings == plain.warnings == ()
    np.testing.assert_allclose(scaled.mixture.weights, plain.mixture.weights, rtol=1e-7)
    np.testing.assert_allclose(scaled.mixture.means, plain.mixture.means, rtol=1e-6)
    np.testing.assert_allclose(
        scaled.criteria.log_likelihood, factor * plain.criteria.log_likelihood, rtol=1e-8
    )


def test_tiny_weights_are_weights_like_others() -> None:
    X = np.random.default_rng(4).standard_normal((60, 2))
    X[30:] += 6.0
    result = fit(X, FitOptions(2, random_state=0), sample_weight=np.full(60, 1e-12))
    assert result.warnings == ()


@every_family
def test_a_single_row_of_weight_is_a_component_on_it(covariance_type: str) -> None:
    X = np.random.default_rng(5).standard_normal((9, 2))
    result = fit(X, FitOptions(1, covariance_type), sample_weight=np.eye(9)[4])
    assert_healthy_numbers(result, X)
    np.testing.assert_allclose(result.mixture.means[0], X[4], rtol=1e-14)


nasty_numbers = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 3.5, 1e-9, 1e9, 1e12, 1e100, -1e150, 1e-150, 5e-324, 1e300]),
    st.floats(-1e3, 1e3),
)
nasty_tables = st.tuples(st.integers(1, 12), st.integers(1, 4)).flatmap(
    lambda shape: st.one_of(
        arrays(np.float64, shape, elements=nasty_numbers),
        arrays(np.float64, shape, elements=st.sampled_from([0.0, 1.0, 2.0])),
    )
)


@every_family
@settings(max_examples=40, deadline=None, derandomize=True)
@given(X=nasty_tables, n_components=st.integers(1, 3), seed=st.integers(0, 3))
def test_whatever_the_table_it_is_a_finite_model_or_a_named_refusal(
    covariance_type: str, X: NDArray[np.float64], n_components: int, seed: int
) -> None:
    options = FitOptions(n_components, covariance_type, max_iter=15, random_state=seed)
    try:
        result = fit(X, options)
    except (TooFewSamplesError, OutOfRangeError):
        return
    assert_healthy_numbers(result, X)


TWO_DISTINCT_ROWS = np.repeat([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]], 25, axis=0)


@every_family
def test_components_that_come_out_as_one_are_named(covariance_type: str) -> None:
    X = TWO_DISTINCT_ROWS
    undecided = np.full((len(X), 2), 0.5)
    result = fit(X, FitOptions(2, covariance_type, random_state=0), start=undecided)
    assert_healthy_numbers(result, X)
    named = [warning for warning in result.warnings if warning.code == "coincident_components"]
    assert [warning.component for warning in named] == [1]


@every_family
@pytest.mark.parametrize(("reg_covar", "n_collapsed"), [("auto", 2), (1e-6, 0)])
def test_two_distinct_rows_are_told_apart(
    covariance_type: str, reg_covar: Literal["auto"] | float, n_collapsed: int
) -> None:
    X = TWO_DISTINCT_ROWS
    result = fit(X, FitOptions(2, covariance_type, random_state=0, reg_covar=reg_covar))
    assert_healthy_numbers(result, X)
    assert len(set(result.mixture.predict(X))) == 2
    named = [warning.code for warning in result.warnings]
    assert named.count("degenerate_component") == n_collapsed
    assert "coincident_components" not in named


@pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
def test_weights_that_take_squares_out_of_range_are_refused(covariance_type: str) -> None:
    X = 1e140 * np.random.default_rng(0).standard_normal((200, 2))
    with pytest.raises(OutOfRangeError, match="squares"):
        fit(X, FitOptions(2, covariance_type), sample_weight=np.geomspace(1.0, 1e39, 200))


def test_a_row_of_no_weight_is_near_no_other_however_far_away() -> None:
    X, weight = np.random.default_rng(0).standard_normal((40, 2)), np.full(40, 2.0)
    far, counted = np.vstack([X, [[1e200, -1e200]]]), np.append(weight, 0.0)
    found = kernels.near_portions(far, counted, 1, 21.0, np.random.default_rng(1))
    alone = kernels.near_portions(X, weight, 1, 21.0, np.random.default_rng(1))
    for (rows, portions), (expected, expected_portions) in zip(found, alone, strict=True):
        np.testing.assert_array_equal(rows, expected)
        np.testing.assert_array_equal(portions, expected_portions)


def with_few_rows_apart(seed: int) -> NDArray[np.float64]:
    """Return a cloud with rows around it on which components of next to no variance end."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((60, 5))
    X[:6] = rng.uniform(-15.0, 15.0, (6, 5))
    if seed % 2:
        X[-15:] = X[-1]
    return X if seed % 3 else np.column_stack([X, np.ones(len(X))])


@pytest.mark.parametrize("seed", [0, 1, 3, 4, 5, 6, 7, 9])
@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_components_on_the_floor_keep_em_monotone_and_their_own_result_a_limit(
    covariance_type: str, seed: int
) -> None:
    X = with_few_rows_apart(seed)
    options = FitOptions(5, covariance_type, random_state=0)
    result = fit(X, options)
    if covariance_type == "full":
        assert "degenerate_component" in codes(result)
    assert np.diff(result.log_likelihoods).min(initial=0.0) > -1e-10 * len(X)
    for start in (result, result.mixture):
        again = fit(X, options, start=start)
        assert again.log_likelihood > result.log_likelihood - 1e-10 * len(X)
    kept = Mixture.from_arrays(result.mixture.to_arrays(), covariance_type)
    np.testing.assert_array_equal(kept.score_samples(X), result.mixture.score_samples(X))


@pytest.mark.parametrize("seed", range(4))
def test_the_factors_of_what_is_held_up_are_those_of_its_inverse(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((200, 4)) @ np.diag([1.0, 1e3, 1e-3, 1.0])
    X = np.column_stack([X, np.full(len(X), 7.0)])[:, rng.permutation(5)].copy(order="C")
    floor = DataScale.of(Samples(X, None)).floor
    few = np.stack([np.cov(X[:n].T, bias=True) for n in (2, 3, 4, 200)])
    held = floor.dense(few)
    assert held.factors is not None
    assert held.n_held.tolist() == [3, 2, 1, 0]
    assert np.isnan(held.factors[3]).all()
    for k, n_on_the_floor in enumerate(held.n_held[:3]):
        white = held.factors[k].T @ held.covariances[k] @ held.factors[k]
        np.testing.assert_allclose(white, np.eye(5), atol=1e-2)  # the covariance has no more digits
        precision = held.factors[k] @ held.factors[k].T
        of_floor = np.linalg.eigvals(precision @ (floor.shape * np.outer(floor.scale, floor.scale)))
        on_it = np.abs(of_floor - 1.0) < 1e-9
        assert on_it.sum() == n_on_the_floor + 1  # and the feature that does not vary


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_what_is_held_up_is_read_as_it_was_stored(covariance_type: str) -> None:
    n_held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        D = int(rng.integers(2, 5))
        X = rng.integers(0, int(rng.integers(2, 9)), (11, D)).astype(float)
        mixture = fit(X, FitOptions(4, covariance_type, random_state=seed)).mixture
        n_held += mixture.family.has_given_factors
        kept = Mixture.from_arrays(mixture.to_arrays(), covariance_type)
        np.testing.assert_array_equal(kept.score_samples(X), mixture.score_samples(X))
    assert n_held
