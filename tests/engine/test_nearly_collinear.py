"""What holds for any data holds where features are nearly collinear and a fit has its own units."""

import copy
import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from mpmath import mp, mpf
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from sklearn.base import clone

from gmm_engine import (
    COVARIANCE_FAMILIES,
    Blocks,
    FitOptions,
    FitResult,
    GaussianMixture,
    Grid,
    Mixture,
    fit,
    from_sklearn,
    select,
    to_sklearn,
)
from gmm_engine.coordinates import Coordinates
from gmm_engine.regularization import DataScale
from gmm_engine.samples import Samples
from tests.engine.test_checkpoints import Kept, cut_off_after, is_same
from tests.engine.test_coordinates import made, oblique
from tests.support.data import longley

NIST = [15.0618722713733, -0.0358191792925910, -2.02022980381683, -1.03322686717359]
NIST += [-0.0511041056535807, 1829.15146461355]
"""Certified coefficients of the regression of Longley's employment on the other six."""
PARAMETERS: dict[str, Callable[[int, int], int]] = {
    "full": lambda K, D: K * D * (D + 1) // 2,
    "tied": lambda K, D: D * (D + 1) // 2,
    "diag": lambda K, D: K * D,
    "spherical": lambda K, D: K,
}


def with_trend() -> NDArray[np.float64]:
    """Return what employment was explained by, with a quadratic trend as well."""
    X = longley()[:, 1:]
    return np.column_stack([X, np.square(X[:, -1])])


def flat() -> NDArray[np.float64]:
    a = made(0, n=150, D=2)
    return np.column_stack([a, a @ [[1.0, 2.0], [3.0, -1.0]]])


DATA = {
    "longley": with_trend(),
    "condition 1e8": made(1, n=150) @ oblique(4, 1, 1e8),
    "far from zero": made(9, n=150) @ oblique(4, 9, 1e6) + 1e4,
    "flat": flat(),
}
every_set = pytest.mark.parametrize("name", DATA)
every_dense_family = pytest.mark.parametrize("covariance_type", ["full", "tied"])


@every_set
def test_these_data_are_fitted_in_coordinates_of_their_own(name: str) -> None:
    samples = Samples(DATA[name], None)
    own = Coordinates.of(samples, DataScale.of(samples))
    assert own is not None
    assert (own.n_flat > 0) == (name == "flat")


def test_one_component_is_the_regression_that_nist_certifies() -> None:
    employed, explained = longley()[:, 0], longley()[:, 1:]
    mixed = employed + 1000.0 * explained[:, 1]  # all of them whole numbers
    mixture = fit(np.column_stack([explained, mixed]), FitOptions(1)).mixture
    precisions = mixture.precisions_cholesky[0] @ mixture.precisions_cholesky[0].T
    coefficients = -precisions[:-1, -1] / precisions[-1, -1]
    coefficients[1] -= 1000.0
    assert_allclose(coefficients, NIST, rtol=1e-6)


def assert_same_bits(one: FitResult, other: FitResult) -> None:
    arrays = other.mixture.to_arrays()
    for key, array in one.mixture.to_arrays().items():
        assert_array_equal(array, arrays[key], err_msg=key)
    assert one.criteria == other.criteria


@every_dense_family
@every_set
@pytest.mark.parametrize("start", ["labels", "mixture"])
def test_a_fit_in_two_pieces_takes_the_same_steps_as_in_one(
    start: str, name: str, covariance_type: str
) -> None:
    X = DATA[name]
    options = FitOptions(2, covariance_type, tol=0.0, max_iter=40, random_state=0)
    begin: Any = np.arange(len(X)) % 2 if start == "labels" else fit(X, options).mixture
    whole = fit(X, options, start=begin)
    half = replace(options, max_iter=20)
    first = fit(X, half, start=begin)
    second = fit(X, half, start=first)
    assert_same_bits(second, whole)
    assert_array_equal(
        np.append(first.log_likelihoods, second.log_likelihoods), whole.log_likelihoods
    )


@every_dense_family
def test_a_warm_start_goes_on_where_the_fit_had_come_to(covariance_type: str) -> None:
    X = DATA["condition 1e8"]
    begin = fit(X, FitOptions(2, covariance_type, max_iter=5, tol=0.0, random_state=0)).mixture
    models = []
    for n_steps in (12, 4):
        model = GaussianMixture(
            2,
            covariance_type=covariance_type,
            tol=0.0,
            max_iter=n_steps,
            weights_init=begin.weights,
            means_init=begin.means,
            precisions_init=begin.precisions,
            warm_start=True,
        )
        for _ in range(12 // n_steps):
            model.fit(X)
        models.append(model)
    assert_array_equal(models[0].precisions_cholesky_, models[1].precisions_cholesky_)
    assert_array_equal(models[0].means_, models[1].means_)


def test_a_result_of_other_data_is_a_start_in_the_given_units() -> None:
    X = DATA["condition 1e8"]
    result = fit(X, FitOptions(2, random_state=0))
    seen: list[float] = []
    fit(
        X[10:],
        FitOptions(2, max_iter=1),
        start=result,
        on_step=lambda step: seen.append(step.mixture.score(X[10:])),
    )
    assert seen[0] == pytest.approx(result.mixture.score(X[10:]), abs=1e-6)


@every_dense_family
@every_set
def test_a_fit_that_was_cut_off_ends_in_the_same_bits(name: str, covariance_type: str) -> None:
    X = DATA[name]
    options = FitOptions(2, covariance_type, tol=1e-13, n_init=2, max_iter=120, random_state=0)
    whole, kept = fit(X, options), Kept(covariance_type)
    ended, n_attempts = None, 0
    while ended is None:
        kept = kept.reopened()
        n_attempts += 1
        ended = cut_off_after(8 * 2**n_attempts, X, options, kept)
    assert n_attempts > 1
    assert is_same(ended, whole)


@every_dense_family
@every_set
def test_whole_weights_are_repeated_rows(name: str, covariance_type: str) -> None:
    X = DATA[name]
    counts = np.random.default_rng(6).integers(1, 4, size=len(X))
    options = FitOptions(2, covariance_type, random_state=0)
    weighted, repeated = (
        fit(X, options, sample_weight=counts),
        fit(np.repeat(X, counts, axis=0), options),
    )
    assert weighted.criteria.n_samples == counts.sum()
    for criterion in ("log_likelihood", "bic", "aic", "aicc", "icl"):
        expected = getattr(repeated.criteria, criterion)
        found = getattr(weighted.criteria, criterion)
        assert found == pytest.approx(expected, abs=1e-8 * counts.sum())
    assert_allclose(weighted.mixture.score_samples(X), repeated.mixture.score_samples(X), atol=1e-5)
    assert_array_equal(weighted.mixture.predict(X), repeated.mixture.predict(X))


def exact_log_likelihood(mixture: Mixture, X: NDArray[np.float64]) -> Any:
    """Return Σ log p(x) by the weights, means and factors handed out, in fifty digits."""
    K, D = mixture.means.shape
    factors = mixture.precisions_cholesky
    exact = np.vectorize(lambda number: mpf(float(number)), otypes=[object])
    with mp.workdps(50):
        density = exact(np.zeros(len(X)))
        for k in range(K):
            match mixture.covariance_type:
                case "full":
                    upper = factors[k]
                case "tied":
                    upper = factors
                case "diag":
                    upper = np.diag(factors[k])
                case _:
                    upper = factors[k] * np.eye(D)
            white = (exact(X) - exact(mixture.means[k])) @ exact(upper)
            log_det = sum(mp.log(each) for each in exact(np.diagonal(upper)))
            height = log_det - D * mp.log(2 * mp.pi) / 2
            exponents = height - np.square(white).sum(axis=1) / 2
            density += mpf(float(mixture.weights[k])) * np.array([*map(mp.exp, exponents)])
        return sum(mp.log(each) for each in density)


@pytest.mark.parametrize("is_weighted", [False, True])
@every_set
def test_the_table_of_a_selection_is_that_of_sums_from_scratch(
    name: str, is_weighted: bool
) -> None:
    X = DATA[name]
    n, D = X.shape
    counts = 1 + np.arange(n) % 2 if is_weighted else np.ones(n, dtype=int)
    grid = Grid((1, 2), tuple(COVARIANCE_FAMILIES))
    selection = select(
        X,
        grid,
        FitOptions(random_state=0),
        sample_weight=counts if is_weighted else None,
    )
    rows, total = np.repeat(X, counts, axis=0), int(counts.sum())
    places = []
    for candidate in selection.candidates:
        assert candidate.result is not None
        mixture, key = candidate.result.mixture, candidate.key
        K = key.n_components
        n_parameters = PARAMETERS[key.covariance_type](K, D) + K * D + K - 1
        bic = float(-2 * exact_log_likelihood(mixture, rows) + n_parameters * mp.log(total))
        assert candidate.result.criteria.bic == pytest.approx(bic, abs=1e-7 * total)
        assert mixture.bic(rows) == pytest.approx(bic, abs=1e-6 * total)
        places.append((candidate.is_degenerate, round(bic, 3), n_parameters, key))
    ranked = [place[-1] for place in sorted(places, key=lambda place: place[:3])]
    assert [candidate.key for candidate in selection.ranked] == ranked


@every_dense_family
@every_set
def test_rows_on_disk_and_in_blocks_are_fitted_like_the_array(
    name: str, covariance_type: str, tmp_path: Path
) -> None:
    X = DATA[name]
    options = FitOptions(2, covariance_type, random_state=0)
    result = fit(X, options)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert is_same(fit(mapped, options), result)
    assert_array_equal(result.mixture.score_samples(mapped), result.mixture.score_samples(X))
    blocks = Blocks(lambda: (mapped[begin : begin + 7] for begin in range(0, len(X), 7)))
    parts = fit(blocks, options)
    assert is_same(fit(blocks, options), parts)
    assert parts.log_likelihood / len(X) == pytest.approx(result.log_likelihood / len(X), abs=1e-8)
    assert_array_equal(parts.mixture.predict(X), result.mixture.predict(X))


def through_joblib(model: GaussianMixture) -> GaussianMixture:
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    again: GaussianMixture = joblib.load(file)
    return again


ANSWERS = ("score_samples", "predict_proba", "predict", "score", "bic", "aic")


@pytest.mark.filterwarnings("ignore::gmm_engine.errors.FitQualityWarning")
@every_dense_family
@every_set
def test_a_copy_of_a_model_answers_with_the_same_bits(name: str, covariance_type: str) -> None:
    X = DATA[name]
    model = GaussianMixture(2, covariance_type=covariance_type, random_state=0).fit(X)
    copies = (
        pickle.loads(pickle.dumps(model)),  # noqa: S301 - our own bytes
        through_joblib(model),
        copy.deepcopy(model),
        clone(model).fit(X),
        from_sklearn(to_sklearn(model)),
    )
    for again in copies:
        for name_of_answer in ANSWERS:
            assert_array_equal(getattr(again, name_of_answer)(X), getattr(model, name_of_answer)(X))


def rounding_of_products(mixture: Mixture, X: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how much log p(x) may be off that takes x U and μ U apart, as scikit-learn does."""
    K, D = mixture.means.shape
    factors = np.broadcast_to(mixture.precisions_cholesky, (K, D, D))
    resp, off = mixture.predict_proba(X), np.zeros(len(X))
    for k, (mean, upper) in enumerate(zip(mixture.means, factors, strict=True)):
        lost = D * np.finfo(float).eps * (np.abs(X) + np.abs(mean)) @ np.abs(upper)
        off += resp[:, k] * (np.abs((X - mean) @ upper) * lost).sum(axis=1)
    return off


@every_dense_family
@every_set
def test_scikit_learn_keeps_every_score_as_far_as_its_sums_do(
    name: str, covariance_type: str
) -> None:
    X = DATA[name]
    mixture = fit(X, FitOptions(2, covariance_type, random_state=0)).mixture
    theirs, ours = to_sklearn(mixture).score_samples(X), mixture.score_samples(X)
    off = 1e-12 * np.abs(ours) + 2.0 * rounding_of_products(mixture, X)
    assert (np.abs(theirs - ours) <= off).all()


@every_dense_family
def test_scikit_learn_keeps_scores_to_1e_12_of_rows_about_zero(covariance_type: str) -> None:
    """Along each feature the means lie near zero, and little cancels."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((200, 2)) * np.where(rng.random((200, 1)) < 0.5, 1.0, 4.0)
    X = np.column_stack([a, a[:, 0] + 1e-5 * a[:, 1]])
    mixture = fit(X, FitOptions(2, covariance_type, random_state=0)).mixture
    theirs, ours = to_sklearn(mixture), mixture
    assert_allclose(theirs.score_samples(X), ours.score_samples(X), rtol=1e-12)
