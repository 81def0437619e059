"""Units that make features nearly collinear: no digit is lost that the rows still have."""

import pickle
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from mpmath import mp, mpf
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import adjusted_rand_score

from gmm_engine import (
    Blocks,
    EMStep,
    FitOptions,
    Given,
    Grid,
    Mixture,
    coordinates,
    fit,
    select,
    to_sklearn,
)
from gmm_engine.coordinates import Coordinates
from gmm_engine.diagnostics import condition_numbers, overlap
from gmm_engine.errors import InvalidParameterError
from gmm_engine.kernels import set_thread_count, thread_count
from gmm_engine.regularization import FEATURE_FLOOR, DataScale
from gmm_engine.samples import Samples
from tests.support.data import random_mixture, standardized

SAME_OPTIMUM = 1e-6
every_dense_family = pytest.mark.parametrize("covariance_type", ["full", "tied"])


def oblique(D: int, seed: int, condition: float) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.standard_normal((D, D)))[0] for _ in range(2))
    return np.asarray(left @ np.diag(np.geomspace(1.0, condition, D)) @ right)


def made(seed: int, n: int = 400, D: int = 4, K: int = 3) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return random_mixture("full", n_components=K, n_features=D, rng=rng, spread=3.0).sample(n, rng)[
        0
    ]


def nearly_collinear(seed: int = 0, n: int = 400) -> NDArray[np.float64]:
    return made(seed, n) @ oblique(4, seed, 1e7) + [1.0, -2.0, 0.0, 5.0]


def mean_difference(X: NDArray[np.float64], A: NDArray[np.float64], options: FitOptions) -> float:
    first, other = fit(X, options), fit(X @ A, options)
    assert adjusted_rand_score(first.mixture.predict(X), other.mixture.predict(X @ A)) == 1.0
    log_det = float(np.linalg.slogdet(A)[1])
    return (other.log_likelihood - first.log_likelihood) / len(X) + log_det


@every_dense_family
@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
def test_raw_measurements_mixed_by_any_units_have_the_same_optimum(
    covariance_type: str, condition: float
) -> None:
    X = load_breast_cancer().data[:, :10]  # one feature spreads 50,000 times as far as another
    options = FitOptions(2, covariance_type, random_state=0)
    assert abs(mean_difference(X, oblique(10, 1, condition), options)) < SAME_OPTIMUM


@every_dense_family
@pytest.mark.parametrize("seed", range(4))
def test_made_data_has_the_same_optimum_however_nearly_collinear(
    covariance_type: str, seed: int
) -> None:
    options = FitOptions(3, covariance_type, random_state=0)
    assert abs(mean_difference(made(seed), oblique(4, seed, 1e8), options)) < SAME_OPTIMUM


def test_the_fit_is_that_of_rows_whitened_with_more_digits() -> None:
    X = nearly_collinear()
    long = X.astype(np.longdouble) - X.mean(axis=0)
    turned, log_det = long, 0.0
    for _ in range(3):  # what is left of whitening in doubles, by rows of long doubles
        values, vectors = np.linalg.eigh(np.cov(turned.astype(np.float64).T, bias=True))
        turned = turned @ (vectors / np.sqrt(np.maximum(values, 1e-14 * values[-1])))
        log_det -= 0.5 * float(np.log(np.maximum(values, 1e-14 * values[-1])).sum())
    options = FitOptions(3, random_state=0)
    expected, found = fit(turned.astype(np.float64), options), fit(X, options)
    assert found.log_likelihood / len(X) == pytest.approx(
        expected.log_likelihood / len(X) + log_det, abs=1e-7
    )


def as_exact(array: NDArray[np.float64]) -> NDArray[np.object_]:
    return np.array([mpf(float(each)) for each in array.flat], dtype=object).reshape(array.shape)


def held_by(
    Y: NDArray[np.float64], A: NDArray[np.float64], b: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return A⁻¹ (y − b) of what the rows are, in forty digits, rounded once."""
    with mp.workdps(40):
        inverse = np.array(mp.matrix(A.tolist()) ** -1, dtype=object).reshape(A.shape)
        return np.asarray((as_exact(Y) - as_exact(b)) @ inverse.T, dtype=np.float64)


@every_dense_family
@pytest.mark.parametrize("far", [0.0, 30.0])
@pytest.mark.parametrize("condition", [1e4, 1e6, 1e8])
@pytest.mark.parametrize("name", ["raw", "made"])
def test_the_fit_is_that_of_what_the_rows_still_hold(
    name: str, condition: float, far: float, covariance_type: str
) -> None:
    X = load_breast_cancer().data[:, :10] if name == "raw" else made(7, n=300, D=6)
    rng, A = np.random.default_rng(3), oblique(X.shape[1], 3, condition)
    b = far * rng.standard_normal(X.shape[1]) * (X @ A.T).std(axis=0)
    Y = X @ A.T + b
    options = FitOptions(2, covariance_type, random_state=0)
    found, held = fit(Y, options), held_by(Y, A, b)
    expected = fit(held, options)
    log_det = float(np.linalg.slogdet(A)[1])
    difference = (found.log_likelihood - expected.log_likelihood) / len(X) + log_det
    assert abs(difference) < 3e-8
    assert_array_equal(found.mixture.predict(Y), expected.mixture.predict(held))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rows_are_mapped_with_the_digits_that_they_have(dtype: type[np.floating]) -> None:
    A = oblique(10, 0, 1e8 if dtype is np.float64 else 1e2)
    X = load_breast_cancer().data[:, :10] @ A.T
    own = Coordinates.of(Samples(X, None), DataScale.of(Samples(X, None)))
    assert own is not None
    X = X[:100].astype(dtype)
    with mp.workdps(40):
        onto = as_exact(own.matrix / own.scale)
        expected = (as_exact(X) - as_exact(own.center)) @ onto.T
    assert_allclose(own.map(X), expected.astype(np.float64), rtol=1e-7, atol=1e-6)


def exact_log_prob(mixture: Mixture, x: NDArray[np.float64]) -> float:
    """Return log p(x) by the factors of the precisions, in sixty digits."""
    densities = []
    for weight, mean, upper in zip(
        mixture.weights, mixture.means, mixture.precisions_cholesky, strict=True
    ):
        D = len(mean)
        away = [mpf(float(x[i])) - mpf(float(mean[i])) for i in range(D)]
        white = [sum(mpf(float(upper[i, j])) * away[i] for i in range(D)) for j in range(D)]
        log_det = sum(mp.log(mpf(float(upper[j, j]))) for j in range(D))
        square = sum(each * each for each in white)
        densities.append(
            mpf(float(weight)) * mp.exp(log_det - D * mp.log(2 * mp.pi) / 2 - square / 2)
        )
    return float(mp.log(sum(densities)))


def test_what_is_handed_out_scores_as_the_fit_did() -> None:
    X = nearly_collinear()
    result = fit(X, FitOptions(3, random_state=0))
    with mp.workdps(60):
        exact = [exact_log_prob(result.mixture, x) for x in X]
    assert_allclose(result.mixture.score_samples(X), exact, rtol=1e-7)
    assert result.log_likelihood == pytest.approx(sum(exact), rel=1e-7)
    assert result.log_likelihoods[-1] == result.log_likelihood
    theirs = to_sklearn(result.mixture)
    assert_allclose(theirs.score_samples(X), exact, rtol=1e-6)


@every_dense_family
def test_the_log_likelihood_of_nearly_collinear_features_does_not_fall(
    covariance_type: str,
) -> None:
    X = nearly_collinear()
    result = fit(X, FitOptions(3, covariance_type, tol=0.0, max_iter=200, random_state=0))
    assert np.diff(result.log_likelihoods).min() > -1e-12 * abs(result.log_likelihood)


@every_dense_family
def test_what_remains_of_a_start_is_seen_in_the_given_units(covariance_type: str) -> None:
    X = nearly_collinear()
    steps: list[EMStep] = []
    options = FitOptions(3, covariance_type, random_state=0)
    result = fit(X, options, on_step=steps.append)
    for step in (steps[0], steps[-1]):
        assert step.n_rows == len(X)
        assert step.mixture.score(X) == pytest.approx(step.log_likelihood / len(X), abs=1e-6)
    assert steps[-1].mixture.means.shape == (3, 4)
    again = fit(X, options, start=result)
    assert again.log_likelihood >= result.log_likelihood - 1e-6
    assert_allclose(again.mixture.predict_proba(X), result.mixture.predict_proba(X), atol=1e-3)


@pytest.mark.parametrize("n_copied", [coordinates.COPIED_NUMBERS, 0])
def test_a_start_from_labels_is_the_m_step_of_these_labels(
    n_copied: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinates, "COPIED_NUMBERS", n_copied)
    X = nearly_collinear()
    labels = np.arange(len(X)) % 3
    for start in (labels, np.eye(3)[labels]):
        steps: list[EMStep] = []
        fit(X, FitOptions(3), start=start, on_step=steps.append)
        for component in range(3):
            rows = X[labels == component]
            assert_allclose(steps[0].mixture.means[component], rows.mean(axis=0), rtol=1e-9)
            expected = np.cov(rows.T, bias=True)
            size = np.sqrt(np.diagonal(expected))
            assert_allclose(
                steps[0].mixture.covariances[component] / np.outer(size, size),
                expected / np.outer(size, size),
                atol=1e-12,
            )


def test_given_parameters_are_in_the_given_units() -> None:
    X = nearly_collinear()
    means = X[[3, 50, 200]]
    steps: list[EMStep] = []
    options = FitOptions(3, init_params="kmeans", random_state=0)
    fit(X, options, start=Given(means=means), on_step=steps.append)
    assert_allclose(steps[0].mixture.means, means, rtol=1e-12)
    whole = fit(X, options).mixture
    mixed: list[EMStep] = []
    fit(X, options, start=whole, on_step=mixed.append)
    assert mixed[0].mixture.score(X) == pytest.approx(whole.score(X), abs=1e-6)


@every_dense_family
def test_given_factors_of_precisions_say_what_precisions_can_not(covariance_type: str) -> None:
    X = made(0) @ oblique(4, 0, 1e8)
    options = FitOptions(3, covariance_type, random_state=0)
    whole = fit(X, options).mixture
    far_from_it = []
    for given in (
        Given(whole.weights, whole.means, precisions_cholesky=whole.precisions_cholesky),
        Given(whole.weights, whole.means, whole.precisions),
    ):
        begun: list[EMStep] = []
        fit(X, options, start=given, on_step=begun.append)
        far_from_it.append(abs(begun[0].mixture.score(X) - whole.score(X)))
    by_factors, by_precisions = far_from_it
    assert by_factors < 1e-6
    assert by_precisions > 1000 * by_factors


@every_dense_family
@pytest.mark.parametrize(
    "again",
    [
        lambda mixture: Mixture.from_arrays(mixture.to_arrays(), mixture.covariance_type),
        lambda mixture: pickle.loads(pickle.dumps(mixture)),  # noqa: S301 - its own bytes
        lambda mixture: mixture.reordered(np.arange(3)),
    ],
    ids=["arrays", "pickle", "order"],
)
def test_stored_and_read_again_it_scores_with_the_same_bits(
    covariance_type: str, again: Callable[[Mixture], Mixture]
) -> None:
    X = nearly_collinear()
    mixture = fit(X, FitOptions(3, covariance_type, random_state=0)).mixture
    assert_array_equal(again(mixture).score_samples(X), mixture.score_samples(X))
    assert_array_equal(again(mixture).covariances, mixture.covariances)


def test_factors_that_are_not_those_of_the_covariances_are_refused() -> None:
    X = nearly_collinear()
    arrays = fit(X, FitOptions(3, random_state=0)).mixture.to_arrays()
    for wrong in (2.0 * arrays["precisions_cholesky"], arrays["precisions_cholesky"][::-1]):
        with pytest.raises(InvalidParameterError, match="factors"):
            Mixture.from_arrays({**arrays, "precisions_cholesky": wrong})
    for covariance_type in ("diag", "spherical"):
        mixture = fit(X, FitOptions(2, covariance_type, random_state=0)).mixture
        factors = {"precisions_cholesky": mixture.precisions_cholesky}
        whole = Mixture.from_arrays({**mixture.to_arrays(), **factors}, covariance_type)
        assert_array_equal(whole.score_samples(X), mixture.score_samples(X))
        factors["precisions_cholesky"] = 1.01 * factors["precisions_cholesky"]
        with pytest.raises(InvalidParameterError, match="factors"):
            Mixture.from_arrays({**mixture.to_arrays(), **factors}, covariance_type)


@every_dense_family
def test_one_thread_or_two_and_rows_block_by_block_end_alike(
    covariance_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = nearly_collinear(n=9_000)
    options = FitOptions(3, covariance_type, random_state=0)
    copied = fit(X, options)
    monkeypatch.setattr(coordinates, "COPIED_NUMBERS", 0)
    monkeypatch.setattr(coordinates, "BLOCK_NUMBERS", 10_000)
    monkeypatch.setattr(coordinates, "CACHED_NUMBERS", 3_000)
    before = thread_count()
    found = []
    try:
        for n_threads in (1, 2):
            set_thread_count(n_threads)
            found.append(fit(X, options))
    finally:
        set_thread_count(before)
    blocks = fit(Blocks(lambda: np.array_split(X, 7)), options)
    assert_array_equal(found[0].mixture.precisions_cholesky, found[1].mixture.precisions_cholesky)
    for other in (found[0], blocks):
        assert other.log_likelihood / len(X) == pytest.approx(
            copied.log_likelihood / len(X), abs=SAME_OPTIMUM
        )


def test_equal_rows_are_mapped_to_equal_bits() -> None:
    for D in (3, 40, 100):
        X = standardized(made(0, n=300, D=D)) @ oblique(D, 0, 1e6)
        samples = Samples(X, None)
        own = Coordinates.of(samples, DataScale.of(samples))
        assert own is not None
        mapped = own.map(np.repeat(X[:1], 70_000 // D + 1, axis=0))
        assert (mapped == mapped[0]).all()


def test_single_precision_rows_are_flat_where_they_are_rounded() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((500, 2)).astype(np.float32)
    X = np.column_stack([a, a[:, 0] + a[:, 1]])
    result = fit(X, FitOptions(2, random_state=0))
    assert [warning.code for warning in result.warnings] == ["collinear_features"]
    doubles = fit(X.astype(np.float64), FitOptions(2, random_state=0))
    assert "collinear_features" not in {warning.code for warning in doubles.warnings}


@every_dense_family
def test_flat_directions_have_the_floors_variance(covariance_type: str) -> None:
    a = made(0, D=2)
    X = np.column_stack([a, a @ [[1.0, 2.0], [3.0, -1.0]]])
    result = fit(X, FitOptions(3, covariance_type, random_state=0))
    assert [warning.code for warning in result.warnings] == ["collinear_features"]
    assert "flat in 2 directions" in result.warnings[0].detail
    scale = X.std(axis=0)
    relative = result.mixture.to_dense() / np.outer(scale, scale)
    assert_allclose(np.linalg.eigvalsh(relative)[:, :2], FEATURE_FLOOR, rtol=0.01)
    alone = fit(a, FitOptions(3, covariance_type, random_state=0))
    assert_allclose(result.mixture.means[:, :2], alone.mixture.means, atol=1e-3)
    steps: list[EMStep] = []
    fit(X, FitOptions(3, covariance_type, random_state=0), on_step=steps.append)
    falls = [b.log_likelihood - a.log_likelihood for a, b in pairwise(steps) if b.run == a.run]
    assert min(falls) > -1e-10 * abs(result.log_likelihood)


def test_answers_do_not_need_covariances_to_have_factors() -> None:
    X = made(0) @ oblique(4, 0, 1e8)
    mixture = fit(X, FitOptions(3, random_state=0)).mixture
    own = fit(made(0), FitOptions(3, random_state=0)).mixture
    assert_allclose(overlap(mixture), overlap(own), atol=1e-4)
    assert (condition_numbers(mixture) > 1e14).all()
    drawn, _ = mixture.sample(5_000, 0)
    assert mixture.score(drawn) == pytest.approx(mixture.score(X), abs=0.2)
    seen = mixture.marginal(np.eye(4)[:, :2], np.zeros(4))
    assert_allclose(seen.covariances, mixture.covariances[:, :2, :2], rtol=1e-4)


def with_flat_groups(kind: str, seed: int) -> NDArray[np.float64]:
    """Return collinear rows of which components may have features that do not vary in them."""
    rng = np.random.default_rng(seed)
    if kind == "dummies":
        group = rng.integers(0, 2, 150)
        return np.column_stack([rng.standard_normal((150, 2)), group, 1.0 - group])
    if kind == "nearly":
        about = rng.integers(0, 2, 150) + 1e-6 * rng.standard_normal(150)
        return np.column_stack([rng.standard_normal(150), about, 1.0 - about])
    counts = rng.integers(0, 3, (150, 2)).astype(float)
    return np.column_stack([counts, counts.sum(axis=1)])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("covariance_type", ["full", "tied"])
@pytest.mark.parametrize("kind", ["dummies", "nearly", "counts"])
def test_components_without_variance_in_collinear_features_are_fitted(
    kind: str, covariance_type: str, seed: int
) -> None:
    X = with_flat_groups(kind, seed)
    options = FitOptions(3, covariance_type, random_state=seed)
    result = fit(X, options)
    seen: list[float] = []
    observed = fit(X, options, on_step=lambda step: seen.append(step.mixture.score(X)))

    assert "collinear_features" in {warning.code for warning in result.warnings}
    assert observed.log_likelihood == result.log_likelihood
    assert np.isfinite(seen).all()
    kept = Mixture.from_arrays(result.mixture.to_arrays(), covariance_type)
    assert_array_equal(kept.score_samples(X), result.mixture.score_samples(X))
    assert np.isfinite(result.mixture.sample(9, np.random.default_rng(0))[0]).all()


def test_a_direction_whose_variance_is_rounded_below_none_is_flat() -> None:
    X = np.array([[1.0, 2.0], [5.0, 6.0], [5.0, 6.0]])
    result = fit(X, FitOptions(1))
    assert "collinear_features" in {warning.code for warning in result.warnings}
    assert_allclose(result.mixture.means, [[11.0 / 3.0, 14.0 / 3.0]])
    assert np.isfinite(result.mixture.score_samples(X)).all()


def test_a_selection_goes_on_beside_components_without_variance() -> None:
    X = with_flat_groups("counts", 39)
    selection = select(X, Grid((1, 2, 3), ("full", "tied")), FitOptions(random_state=0))
    assert all(candidate.failure is None for candidate in selection.candidates)
