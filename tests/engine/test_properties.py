"""What holds for any data: symmetries of EM and of everything a mixture answers."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gmm_engine import COVARIANCE_FAMILIES, EMStep, FitOptions, FitResult, Mixture, fit
from tests.support.data import Labelled, random_mixture, rows_of, separated_clusters
from tests.support.slow_twin import in_own_shape, to_dense

every_family = pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
seeds = st.integers(0, 2**32 - 1)
property_test = settings(max_examples=15, deadline=None, derandomize=True)
property_of_whole_fits = settings(max_examples=5, deadline=None, derandomize=True)


@dataclass(frozen=True, slots=True)
class Case:
    """Overlapping components, rows of them, and a start that is somewhere else."""

    X: NDArray[np.float64]
    start: Mixture
    rng: np.random.Generator


def drawn_case(covariance_type: str, seed: int) -> Case:
    rng = np.random.default_rng(seed)
    n_components, n_features = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    truth = random_mixture(
        covariance_type, n_components=n_components, n_features=n_features, rng=rng, spread=1.5
    )
    X = rows_of(truth, 80 * n_components, rng)
    # Wide and amid the rows, so that no component goes without its share of them.
    wide = np.cov(X.T, bias=True).reshape(1, n_features, n_features)
    wide = wide * rng.uniform(0.7, 1.3, size=(n_components, 1, 1))
    arrays = {
        "weights": rng.dirichlet(np.full(n_components, 20.0)),
        "means": X.mean(axis=0) + 0.7 * (rng.choice(X, n_components) - X.mean(axis=0)),
        "covariances": in_own_shape(wide, covariance_type),
    }
    return Case(X, Mixture.from_arrays(arrays, covariance_type), rng)


def after(
    case: Case,
    X: NDArray[np.float64] | None = None,
    start: Mixture | None = None,
    *,
    n_steps: int = 4,
    sample_weight: NDArray[np.float64] | None = None,
) -> FitResult:
    """Take plain EM steps without regularisation."""
    begin = case.start if start is None else start
    options = FitOptions(
        begin.n_components, begin.covariance_type, tol=0.0, max_iter=n_steps, reg_covar=0.0
    )
    rows = case.X if X is None else X
    return fit(rows, options, start=begin, sample_weight=sample_weight)


def assert_same(ours: Mixture, expected: Mixture, rel: float = 1e-8) -> None:
    for name, value in expected.to_arrays().items():
        np.testing.assert_allclose(
            ours.to_arrays()[name], value, rtol=rel, atol=rel * np.abs(value).max(), err_msg=name
        )


def moved(mixture: Mixture, matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> Mixture:
    """Return the mixture of A x + b."""
    dense = matrix @ mixture.to_dense() @ matrix.T
    arrays = {
        "weights": mixture.weights,
        "means": mixture.means @ matrix.T + offset,
        "covariances": in_own_shape(dense, mixture.covariance_type),
    }
    return Mixture.from_arrays(arrays, mixture.covariance_type)


def allowed_map(
    covariance_type: str, n_features: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return a matrix that maps the family onto itself, stretching by up to 10⁶."""
    turns = [np.linalg.qr(rng.standard_normal((n_features, n_features)))[0] for _ in range(2)]
    stretch = 10.0 ** rng.uniform(-2.0, 2.0, size=n_features)
    size = 10.0 ** rng.uniform(-1.0, 1.0)
    maps: dict[str, NDArray[np.float64]] = {
        "full": turns[0] * stretch @ turns[1],
        "tied": turns[0] * stretch @ turns[1],
        "diag": np.diag(stretch),
        "spherical": size * turns[0],
    }
    return maps[covariance_type]


# EM steps


@every_family
@property_test
@given(seed=seeds)
def test_the_likelihood_never_falls(covariance_type: str, seed: int) -> None:
    case = drawn_case(covariance_type, seed)
    steps: list[EMStep] = []
    for reg_covar in (0.0, "auto"):
        steps.clear()
        options = FitOptions(
            case.start.n_components, covariance_type, tol=0.0, max_iter=25, reg_covar=reg_covar
        )
        fit(case.X, options, start=case.start, on_step=steps.append)
        values = np.array([step.log_likelihood for step in steps])
        assert (np.diff(values) >= -1e-12 * np.abs(values[1:])).all()


@every_family
@property_test
@given(seed=seeds)
def test_the_order_of_rows_does_not_matter(covariance_type: str, seed: int) -> None:
    case = drawn_case(covariance_type, seed)
    shuffled = after(case, case.rng.permutation(case.X))
    assert_same(shuffled.mixture, after(case).mixture)


@every_family
@property_test
@given(seed=seeds)
def test_the_order_of_components_does_not_matter(covariance_type: str, seed: int) -> None:
    case = drawn_case(covariance_type, seed)
    order = case.rng.permutation(case.start.n_components)
    turned = after(case, start=case.start.reordered(order))
    assert_same(turned.mixture, after(case).mixture.reordered(order))


@every_family
@property_test
@given(seed=seeds)
def test_a_map_that_keeps_the_family_maps_every_step(covariance_type: str, seed: int) -> None:
    case = drawn_case(covariance_type, seed)
    n_rows, n_features = case.X.shape
    matrix = allowed_map(covariance_type, n_features, case.rng)
    offset = case.rng.uniform(-300.0, 300.0, size=(n_features,))
    plain = after(case)
    mapped = after(case, case.X @ matrix.T + offset, moved(case.start, matrix, offset))
    assert_same(mapped.mixture, moved(plain.mixture, matrix, offset), rel=1e-6)
    shift = -n_rows * np.linalg.slogdet(matrix)[1]
    expected = plain.criteria.log_likelihood + shift
    assert mapped.criteria.log_likelihood == pytest.approx(expected, abs=1e-6)


@every_family
@property_test
@given(seed=seeds)
def test_whole_weights_are_equal_rows(covariance_type: str, seed: int) -> None:
    case = drawn_case(covariance_type, seed)
    counts = case.rng.integers(1, 4, size=len(case.X))
    counts[:: len(case.X) // 7] = 0
    weighted = after(case, sample_weight=counts.astype(np.float64))
    repeated = after(case, np.repeat(case.X, counts, axis=0))
    assert_same(weighted.mixture, repeated.mixture)
    for name in ("n_samples", "log_likelihood", "bic", "icl"):
        expected = getattr(repeated.criteria, name)
        assert getattr(weighted.criteria, name) == pytest.approx(expected, rel=1e-10)


@every_family
@property_test
@given(seed=seeds, factor=st.floats(1e-3, 1e3))
def test_weights_count_relative_to_each_other(
    covariance_type: str, seed: int, factor: float
) -> None:
    case = drawn_case(covariance_type, seed)
    weight = case.rng.uniform(0.2, 1.0, size=len(case.X))
    plain = after(case, sample_weight=weight)
    scaled = after(case, sample_weight=factor * weight)
    assert_same(scaled.mixture, plain.mixture)


@every_family
@property_test
@given(seed=seeds)
def test_each_family_is_the_full_one_kept_in_its_shape(covariance_type: str, seed: int) -> None:
    """From one start, the first M-step of any family is the full one's, reduced."""
    case = drawn_case(covariance_type, seed)
    dense_start = Mixture.from_arrays(
        {**case.start.to_arrays(), "covariances": case.start.to_dense()}
    )
    ours = after(case, n_steps=1).mixture
    full = after(case, start=dense_start, n_steps=1).mixture
    dense = full.covariances
    if covariance_type == "tied":
        dense = np.repeat([np.average(dense, axis=0, weights=full.weights)], len(dense), axis=0)
    expected = in_own_shape(dense, covariance_type)
    np.testing.assert_allclose(ours.weights, full.weights, rtol=1e-9)
    np.testing.assert_allclose(ours.means, full.means, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(ours.covariances, expected, rtol=1e-8, atol=1e-10)


# Whole fits by default


@dataclass(frozen=True, slots=True)
class Mapped:
    """Clusters apart from each other, before and after A x + b."""

    before: Labelled
    after: NDArray[np.float64]
    log_det: float


def mapped_clusters(seed: int) -> Mapped:
    rng = np.random.default_rng(seed)
    drawn = separated_clusters(rng, n_features=3, rows_each=50)
    unlike = np.r_[0:50, 50:90, 100:130]  # cluster sizes, so that weight orders the components
    before = Labelled(drawn.X[unlike], drawn.labels[unlike])
    matrix = allowed_map("full", 3, rng)
    offset = 1e3 * rng.standard_normal(3)
    return Mapped(before, before.X @ matrix.T + offset, float(np.linalg.slogdet(matrix)[1]))


@property_of_whole_fits
@given(seed=seeds)
def test_any_invertible_map_leaves_the_default_clustering_alone(seed: int) -> None:
    case = mapped_clusters(seed)
    options = FitOptions(3, tol=1e-12, random_state=seed % 100)
    plain, mapped = fit(case.before.X, options), fit(case.after, options)
    np.testing.assert_array_equal(
        mapped.mixture.predict(case.after), plain.mixture.predict(case.before.X)
    )
    shifted = plain.criteria.log_likelihood - len(case.after) * case.log_det
    assert mapped.criteria.log_likelihood == pytest.approx(shifted, abs=1e-6)


@every_family
@property_of_whole_fits
@given(seed=seeds)
def test_the_order_of_rows_leaves_the_default_clustering_alone(
    covariance_type: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    data = separated_clusters(rng)
    order = rng.permutation(len(data.X))
    options = FitOptions(3, covariance_type, tol=1e-10, random_state=seed % 100)
    plain, shuffled = fit(data.X, options), fit(data.X[order], options)
    assert shuffled.criteria.log_likelihood == pytest.approx(
        plain.criteria.log_likelihood, abs=1e-6
    )
    ours, theirs = plain.mixture.predict(data.X)[order], shuffled.mixture.predict(data.X[order])
    pairs = set(zip(ours.tolist(), theirs.tolist(), strict=True))
    assert len(pairs) == 3  # the same clusters; equal weights may swap their names


@every_family
@property_of_whole_fits
@given(seed=seeds)
def test_the_same_seed_is_the_same_bits(covariance_type: str, seed: int) -> None:
    case = drawn_case(covariance_type, seed)
    options = FitOptions(
        case.start.n_components, covariance_type, max_iter=10, random_state=seed % 1_000
    )
    first, second = (fit(case.X, options) for _ in range(2))
    for name, value in first.mixture.to_arrays().items():
        np.testing.assert_array_equal(second.mixture.to_arrays()[name], value)
    np.testing.assert_array_equal(first.log_likelihoods, second.log_likelihoods)


# Mixtures


@every_family
@property_test
@given(seed=seeds, distance=st.floats(0.0, 140.0).map(lambda exponent: 10.0**exponent))
def test_responsibilities_sum_up_to_one_at_any_distance(
    covariance_type: str, seed: int, distance: float
) -> None:
    case = drawn_case(covariance_type, seed)
    X = distance * case.rng.standard_normal((20, case.start.n_features))
    proba = case.start.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, atol=1e-12)
    assert (proba >= 0.0).all()
    assert np.isfinite(case.start.score_samples(X)).all()


@every_family
@property_test
@given(seed=seeds)
def test_a_density_is_its_components_weighed(covariance_type: str, seed: int) -> None:
    case = drawn_case(covariance_type, seed)
    density = np.exp(case.start.log_prob(case.X)) @ case.start.weights
    np.testing.assert_allclose(case.start.score_samples(case.X), np.log(density), rtol=1e-10)


@every_family
@property_test
@given(seed=seeds)
def test_written_and_read_back_it_is_the_same_mixture(covariance_type: str, seed: int) -> None:
    case = drawn_case(covariance_type, seed)
    fitted = after(case).mixture
    again = Mixture.from_arrays(fitted.to_arrays(), covariance_type)
    np.testing.assert_array_equal(again.score_samples(case.X), fitted.score_samples(case.X))
    np.testing.assert_array_equal(again.predict_proba(case.X), fitted.predict_proba(case.X))
    shape = fitted.n_components, fitted.n_features
    np.testing.assert_array_equal(
        fitted.to_dense(), to_dense(fitted.covariances, covariance_type, *shape)
    )


@every_family
@property_test
@given(seed=seeds)
def test_samples_have_the_mean_and_covariance_of_the_mixture(
    covariance_type: str, seed: int
) -> None:
    mixture = drawn_case(covariance_type, seed).start
    X = mixture.sample(20_000, seed)[0]
    mean = mixture.weights @ mixture.means
    away = mixture.means - mean
    between = (away * mixture.weights[:, np.newaxis]).T @ away
    covariance = np.einsum("k,kij->ij", mixture.weights, mixture.to_dense()) + between
    spread = np.sqrt(covariance.diagonal())
    # Six standard errors; fourth moments of a mixture are below those of three normal ones.
    assert (np.abs(X.mean(axis=0) - mean) < 6 * spread / np.sqrt(len(X))).all()
    error = 6 * np.sqrt(3 / len(X)) * np.outer(spread, spread)
    assert (np.abs(np.cov(X.T, bias=True).reshape(covariance.shape) - covariance) < error).all()
