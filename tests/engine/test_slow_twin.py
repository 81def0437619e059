"""The engine beside its slow twin, EM step by EM step from the same start."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from gmm_engine import COVARIANCE_FAMILIES, EMStep, FitOptions, Mixture, StopReason, fit
from tests.support.data import faithful, iris, random_mixture, rows_of
from tests.support.slow_twin import TwinStep, em, in_own_shape

AGREEMENT = 1e-10
"""Largest difference, relative to the largest number of its kind."""


def engine_steps(
    X: NDArray[np.float64],
    start: Mixture,
    *,
    n_steps: int,
    sample_weight: NDArray[np.float64] | None = None,
    reg_covar: float = 0.0,
) -> list[EMStep]:
    steps: list[EMStep] = []
    options = FitOptions(
        n_components=start.n_components,
        covariance_type=start.covariance_type,
        tol=0.0,
        max_iter=n_steps,
        reg_covar=reg_covar,
    )
    result = fit(X, options, sample_weight=sample_weight, start=start, on_step=steps.append)
    assert result.n_iter == n_steps
    assert result.stop_reason is StopReason.MAX_ITER
    assert result.criteria.log_likelihood == steps[-1].log_likelihood
    for name, value in result.mixture.to_arrays().items():
        np.testing.assert_array_equal(value, steps[-1].mixture.to_arrays()[name])
    return steps


def assert_same_road(ours: Sequence[EMStep], twin: Sequence[TwinStep]) -> None:
    assert [step.iteration for step in ours] == list(range(len(twin)))
    for step, truth in zip(ours, twin, strict=True):
        for name, value in step.mixture.to_arrays().items():
            expected = getattr(truth, name)
            assert np.abs(value - expected).max() <= AGREEMENT * np.abs(expected).max(), name
        assert step.log_likelihood == pytest.approx(truth.log_likelihood, rel=AGREEMENT)


def start_amid(
    X: NDArray[np.float64], n_components: int, covariance_type: str, rng: np.random.Generator
) -> Mixture:
    """Begin at random rows with the covariance of all the data, as a poor start would."""
    whole = np.repeat([np.cov(X.T, bias=True).reshape(X.shape[1], -1)], n_components, axis=0)
    weights = rng.uniform(0.5, 1.5, size=n_components)
    arrays = {
        "weights": weights / weights.sum(),
        "means": rng.choice(X, n_components, replace=False),
        "covariances": in_own_shape(whole, covariance_type),
    }
    return Mixture.from_arrays(arrays, covariance_type)


def follow(
    X: NDArray[np.float64],
    start: Mixture,
    *,
    n_steps: int,
    sample_weight: NDArray[np.float64] | None = None,
    reg_covar: float = 0.0,
) -> None:
    ours = engine_steps(X, start, n_steps=n_steps, sample_weight=sample_weight, reg_covar=reg_covar)
    twin = em(
        X,
        start.to_arrays(),
        start.covariance_type,
        sample_weight=sample_weight,
        reg_covar=reg_covar,
    )
    assert_same_road(ours, list(itertools.islice(twin, n_steps + 1)))


@pytest.mark.parametrize("reg_covar", [0.0, 1e-3])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
def test_iris_takes_the_same_ten_steps(
    covariance_type: str, weighted: bool, reg_covar: float
) -> None:
    rng = np.random.default_rng(11)
    start = start_amid(iris(), 3, covariance_type, rng)
    sample_weight = rng.uniform(0.0, 3.0, size=len(iris())) if weighted else None
    follow(iris(), start, n_steps=10, sample_weight=sample_weight, reg_covar=reg_covar)


@pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
def test_faithful_takes_the_same_steps_from_a_poor_start(covariance_type: str) -> None:
    start = start_amid(faithful(), 4, covariance_type, np.random.default_rng(5))
    follow(faithful(), start, n_steps=8)


@pytest.mark.parametrize("n_features", [1, 2, 3, 5, 8, 9, 16, 17, 33])
@pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
def test_every_width_of_data_takes_the_same_steps(covariance_type: str, n_features: int) -> None:
    rng = np.random.default_rng(n_features)
    start = random_mixture(
        covariance_type, n_components=3, n_features=n_features, rng=rng, spread=0.5
    )
    X = rows_of(start, 60 + 3 * n_features, rng)
    follow(X, start, n_steps=2, sample_weight=rng.uniform(0.5, 1.5, size=len(X)), reg_covar=1e-6)


@pytest.mark.parametrize("n_components", [1, 7, 16])
@pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
def test_every_number_of_components_takes_the_same_steps(
    covariance_type: str, n_components: int
) -> None:
    rng = np.random.default_rng(n_components)
    start = random_mixture(covariance_type, n_components=n_components, n_features=2, rng=rng)
    follow(rows_of(start, 15 * n_components, rng), start, n_steps=2, reg_covar=1e-6)


@pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
def test_rows_beyond_one_block_are_added_up_like_one_block(covariance_type: str) -> None:
    rng = np.random.default_rng(8)
    start = random_mixture(covariance_type, n_components=2, n_features=3, rng=rng)
    X = rows_of(start, 4_321, rng)
    follow(X, start, n_steps=1, sample_weight=rng.uniform(0.0, 2.0, size=len(X)))


@pytest.mark.parametrize("offset", [1e8, 1e12])
@pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
def test_an_offset_takes_the_same_steps_as_the_same_rows_without_it(
    covariance_type: str, offset: float
) -> None:
    rng = np.random.default_rng(21)
    rows = rng.integers(-40, 40, size=(90, 2)) / 4.0  # exact beside the offset, up to 2⁵³
    rows[:45] += 8.0
    arrays = start_amid(rows, 2, covariance_type, rng).to_arrays()
    moved = Mixture.from_arrays({**arrays, "means": arrays["means"] + offset}, covariance_type)
    steps = engine_steps(rows + offset, moved, n_steps=6)
    twin = list(itertools.islice(em(rows, arrays, covariance_type), 7))
    resolution = 4 * np.spacing(offset)
    for step, truth in zip(steps, twin, strict=True):
        assert np.abs(step.mixture.means - offset - truth.means).max() <= resolution
        spread = float(np.abs(truth.covariances).max())
        assert np.abs(step.mixture.covariances - truth.covariances).max() <= max(
            AGREEMENT * spread, resolution * np.sqrt(spread)
        )
