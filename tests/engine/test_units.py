"""The same data in other units: the same clustering, for what a covariance family can express."""

import math
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from gmm_engine import INITIALIZERS, FitOptions, FitResult, fit
from gmm_engine.errors import FitQualityWarning
from gmm_engine.initialization import Initializer, StartRows
from gmm_engine.regularization import DataScale
from gmm_engine.samples import Samples
from gmm_engine.statistics import DenseScatter
from tests.support.data import faithful, iris, standardized

SAME_OPTIMUM = 1e-6
"""Nats a row: the default ``tol``, within which a fit ends of its limit."""

STARTS = tuple(dict.fromkeys(INITIALIZERS["auto"]))


def few_in_many_dimensions(seed: int) -> tuple[NDArray[np.float64], int]:
    """Return 150 rows of three groups in ten dimensions, which have many optima."""
    rng = np.random.default_rng(seed)
    centers = 2.0 * rng.standard_normal((3, 10))
    return centers[rng.integers(3, size=150)] + rng.standard_normal((150, 10)), 3


def groups_of_own_shapes(seed: int) -> tuple[NDArray[np.float64], int]:
    """Return rows of groups that overlap, each of its own covariance."""
    rng = np.random.default_rng(seed)
    D, K = int(rng.integers(2, 6)), int(rng.integers(2, 6))
    of_group = rng.integers(K, size=400)
    roots = rng.standard_normal((K, D, D))[of_group]
    noise = np.einsum("ni,nij->nj", rng.standard_normal((400, D)), roots)
    centers = 2.0 * rng.standard_normal((K, D))
    return np.asarray(centers[of_group] + noise), K


SETS = {
    **{f"few-{seed}": few_in_many_dimensions(seed) for seed in (0, 7, 9, 10, 18, 19)},
    **{f"own-{seed}": groups_of_own_shapes(seed) for seed in range(8)},
    "faithful": (faithful(), 2),
    "iris": (iris(), 3),
}
"""The first six ended at another optimum when k-means still looked at the data's own units."""

every_set = pytest.mark.parametrize("name", SETS)


def rotation(D: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return np.asarray(np.linalg.qr(rng.standard_normal((D, D)))[0])


def oblique(D: int, rng: np.random.Generator, condition: float) -> NDArray[np.float64]:
    """Return a matrix of this condition, its axes in random directions."""
    stretched = rotation(D, rng) * np.geomspace(1.0, condition, D)
    return np.asarray(stretched @ rotation(D, rng))


def units_of(covariance_type: str, D: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return units that turn mixtures of a family into others of the same family."""
    if covariance_type == "diag":
        return np.diag(10.0 ** rng.uniform(-2.0, 2.0, D))
    if covariance_type == "spherical":
        return np.asarray(10.0 ** rng.uniform(-2.0, 2.0) * rotation(D, rng))
    return oblique(D, rng, condition=10.0 ** rng.uniform(0.0, 4.0))


def mean_log_likelihood(result: FitResult, units: NDArray[np.float64]) -> float:
    """Return it as a density in the first units (the rows are X @ units)."""
    return result.criteria.mean_log_likelihood + math.log(abs(np.linalg.det(units)))


@every_set
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_other_units_lead_to_the_same_optimum(name: str, covariance_type: str) -> None:
    X, K = SETS[name]
    options = FitOptions(K, covariance_type, random_state=0)
    first = fit(X, options)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        units = units_of(covariance_type, X.shape[1], rng)
        other = fit(X @ units + rng.standard_normal(X.shape[1]), options)
        assert mean_log_likelihood(other, units) == pytest.approx(
            first.criteria.mean_log_likelihood, abs=SAME_OPTIMUM
        )


def on_a_plane_among_others(seed: int) -> NDArray[np.float64]:
    """Return 150 rows of which twenty lie on a plane, where a component collapses."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((150, 3)) @ rng.standard_normal((3, 3))
    X[:20] = 2.0 * rng.standard_normal(3) + rng.standard_normal((20, 2)) @ rng.standard_normal(
        (2, 3)
    )
    return X


@pytest.mark.parametrize("seed", [0, 1, 3, 4, 5, 6])
def test_what_collapses_does_so_in_any_units_and_as_high_in_any_of_the_features(seed: int) -> None:
    """Where units mix features the floor is another one, and with it the height."""
    X, rng = on_a_plane_among_others(seed), np.random.default_rng(seed)
    options = FitOptions(2, random_state=0)
    first = fit(X, options)
    of_features = np.diag(10.0 ** rng.uniform(-3.0, 3.0, 3))
    for units in (of_features, oblique(3, rng, condition=100.0)):
        other = fit(X @ units, options)
        for result in (first, other):
            assert [warning.code for warning in result.warnings] == ["degenerate_component"]
        assert_array_equal(other.mixture.predict(X @ units), first.mixture.predict(X))
        if units is of_features:
            assert mean_log_likelihood(other, units) == pytest.approx(
                first.criteria.mean_log_likelihood, abs=SAME_OPTIMUM
            )


@every_set
def test_other_units_lead_to_the_same_clusters(name: str) -> None:
    X, K = SETS[name]
    options = FitOptions(K, tol=1e-9, max_iter=5_000, random_state=1)
    first = fit(X, options)
    units = oblique(X.shape[1], np.random.default_rng(0), condition=100.0)
    other = fit(X @ units, options)
    assert_allclose(
        other.mixture.predict_proba(X @ units), first.mixture.predict_proba(X), atol=2e-3
    )


@every_set
@pytest.mark.parametrize("initialize", STARTS)
def test_every_start_of_the_portfolio_is_the_same_in_other_units(
    name: str, initialize: Initializer
) -> None:
    X, K = SETS[name]
    rng = np.random.default_rng(0)
    units, origin = oblique(X.shape[1], rng, condition=1e3), rng.standard_normal(X.shape[1])
    starts = []
    for rows in (X, X @ units + origin):
        samples = Samples.checked(rows)
        seen = StartRows(samples, DataScale.of(samples))
        starts.append(initialize(seen, K, DenseScatter, np.random.default_rng(1)))
    first, other = starts
    assert_allclose(other.nk, first.nk)
    assert_allclose(other.means, first.means @ units + origin, rtol=1e-7, atol=1e-7)
    assert_allclose(
        other.central_scatter, units.T @ first.central_scatter @ units, rtol=1e-6, atol=1e-6
    )


def test_groups_in_oblique_units_are_found_by_the_spread_within_them() -> None:
    """Whitening alone presses groups together that lie apart in one of many directions."""
    rng = np.random.default_rng(3)
    group = rng.integers(2, size=300)
    X = rng.standard_normal((300, 6))
    X[:, 0] += 8.0 * group
    X = standardized(X) @ oblique(6, rng, condition=100.0)
    samples = Samples.checked(X)
    rows = StartRows(samples, DataScale.of(samples))
    within = rows.within(2, np.random.default_rng(0))
    apart = within[group == 1].mean(axis=0) - within[group == 0].mean(axis=0)
    spread = np.linalg.eigvalsh(np.cov((within - np.outer(group, apart)).T, bias=True))
    assert spread[-1] < 3.0 * spread[0]
    assert np.linalg.norm(apart) > 6.0 * math.sqrt(spread[0])
    white = rows.whitened
    pressed = white[group == 1].mean(axis=0) - white[group == 0].mean(axis=0)
    assert np.linalg.norm(pressed) <= 2.0


@pytest.mark.parametrize(("n", "D"), [(15, 30), (40, 60)])
@pytest.mark.parametrize("covariance_type", ["diag", "spherical"])
@pytest.mark.parametrize("seed", range(10))
def test_no_more_rows_than_features_are_not_told_apart_by_rounding(
    n: int, D: int, covariance_type: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    X, weight = rng.uniform(size=(n, D)), rng.integers(5, size=n)
    options = FitOptions(2, covariance_type, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitQualityWarning)
        first, scaled = fit(X, options), fit(3.0 * X, options)
        weighted = fit(X, options, sample_weight=weight)
        repeated = fit(X.repeat(weight, axis=0), options)
    assert scaled.log_likelihood + n * D * math.log(3.0) == pytest.approx(
        first.log_likelihood, rel=1e-8
    )
    assert repeated.log_likelihood == pytest.approx(weighted.log_likelihood, rel=1e-8)


@pytest.mark.parametrize("more", [0, 1])
def test_rows_are_whitened_where_they_are_more_than_the_corners_of_a_simplex(more: int) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((5 + more, 4)) * np.geomspace(1.0, 100.0, 4)
    X = np.column_stack([X, X @ [1.0, 2.0, 0.0, 1.0], np.full(len(X), 7.0)])  # four directions
    weight = np.append(rng.integers(1, 4, len(X)), 0)
    samples = Samples.checked(np.vstack([X, np.ones(6)]), weight)
    repeated = Samples.checked(X.repeat(weight[:-1], axis=0))
    for rows in (samples, repeated):
        white = StartRows(rows, DataScale.of(rows)).whitened
        scale = np.std(repeated.X, axis=0)
        standard = (rows.X - repeated.X.mean(axis=0)) / np.where(scale > 0.0, scale, 1.0)
        covariance = np.cov(white.T, aweights=rows.weights_or_ones, bias=True)
        if more:
            assert_allclose(covariance, np.eye(4), atol=1e-9)
        else:
            counts = rows.weights_or_ones > 0
            assert_allclose(pdist(white[counts]), pdist(standard[counts]), atol=1e-9)
            assert not np.allclose(covariance, np.eye(4), atol=0.1)
