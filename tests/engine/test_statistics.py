"""Sufficient statistics: what passes hand to one another must add up, whatever the split."""

import itertools
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gmm_engine.samples import Samples
from gmm_engine.statistics import (
    DenseScatter,
    DiagonalScatter,
    PooledScatter,
    Scatter,
    SufficientStatistics,
    TraceScatter,
)

FORMS: list[type[Scatter]] = [DenseScatter, PooledScatter, DiagonalScatter, TraceScatter]
every_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)

K, D = 3, 4


def data(seed: int, n_rows: int = 60) -> tuple[Samples, NDArray[np.float64]]:
    """Return weighted rows with responsibilities."""
    rng = np.random.default_rng(seed)
    X = 3.0 * rng.standard_normal((n_rows, D)) + 10.0
    resp = rng.dirichlet(np.ones(K), size=n_rows)
    return Samples.checked(X, rng.uniform(0.0, 2.0, size=n_rows)), resp


def part(samples: Samples, rows: slice) -> Samples:
    assert samples.weight is not None
    return Samples.checked(samples.X[rows], samples.weight[rows])


def in_form(form: type[Scatter], dense: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reduce (K, D, D) to what the form keeps, spelled out."""
    if form is DenseScatter:
        return dense
    if form is PooledScatter:
        return np.asarray(dense.sum(axis=0))
    diagonal = np.einsum("kii->ki", dense)
    return diagonal if form is DiagonalScatter else np.asarray(diagonal.sum(axis=1))


def moments(
    samples: Samples, resp: NDArray[np.float64], centers: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Sum up N_k, Σγ(x − c_k) and Σγ(x − c_k)(x − c_k)ᵀ row by row."""
    nk, first, dense = np.zeros(K), np.zeros((K, D)), np.zeros((K, D, D))
    for row, weight, shares in zip(samples.X, samples.weights_or_ones, resp, strict=True):
        for k, share in enumerate(weight * shares):
            away = row - centers[k]
            nk[k] += share
            first[k] += share * away
            dense[k] += share * np.outer(away, away)
    return nk, first, dense


def assert_same(
    ours: SufficientStatistics, other: SufficientStatistics, rel: float = 1e-12
) -> None:
    """Compare what does not depend on the centres."""
    for name in ("nk", "means", "central_scatter"):
        value, expected = getattr(ours, name), getattr(other, name)
        np.testing.assert_allclose(value, expected, rtol=rel, atol=rel * np.abs(expected).max())
    assert ours.log_likelihood == pytest.approx(other.log_likelihood, rel=rel)
    assert ours.log_max_resp == pytest.approx(other.log_max_resp, rel=rel)


@every_form
def test_they_are_the_sums_that_they_say(form: type[Scatter]) -> None:
    samples, resp = data(1)
    statistics = SufficientStatistics.of_responsibilities(samples, resp, form)
    nk, first, dense = moments(samples, resp, statistics.centers)
    np.testing.assert_allclose(statistics.nk, nk, rtol=1e-13)
    np.testing.assert_allclose(statistics.first, first, atol=1e-11)
    np.testing.assert_allclose(statistics.scatter, in_form(form, dense), rtol=1e-12, atol=1e-11)
    assert statistics.n_samples == pytest.approx(samples.total_weight, rel=1e-14)
    assert (statistics.n_components, statistics.n_features) == (K, D)


@every_form
def test_rows_added_one_after_another_are_rows_added_at_once(form: type[Scatter]) -> None:
    samples, resp = data(2)
    centers = np.full((K, D), 9.0)
    at_once, one_by_one = (SufficientStatistics.zeros(form, centers) for _ in range(2))
    for k in range(K):
        at_once.add_rows(k, samples.X, resp[:, k])
        for row in range(samples.n_rows):
            one_by_one.add_rows(k, samples.X[row : row + 1], resp[row : row + 1, k])
    assert_same(one_by_one, at_once)


@every_form
def test_labels_are_responsibilities_of_one(form: type[Scatter]) -> None:
    samples, resp = data(3)
    labels = resp.argmax(axis=1)
    by_label = SufficientStatistics.of_labels(samples, labels, K, form)
    by_resp = SufficientStatistics.of_responsibilities(samples, np.eye(K)[labels], form)
    assert_same(by_label, by_resp)


@every_form
def test_central_scatter_is_the_weighted_scatter_about_the_means(form: type[Scatter]) -> None:
    samples, resp = data(4)
    statistics = SufficientStatistics.of_responsibilities(samples, resp, form)
    away = statistics.about(np.zeros((K, D)))
    shares = resp * samples.weights_or_ones[:, np.newaxis]
    means = np.array([np.average(samples.X, axis=0, weights=share) for share in shares.T])
    dense = np.array(
        [share.sum() * np.cov(samples.X.T, aweights=share, ddof=0) for share in shares.T]
    )
    for about_whatever in (statistics, away):
        np.testing.assert_allclose(about_whatever.means, means, rtol=1e-12)
        np.testing.assert_allclose(
            about_whatever.central_scatter, in_form(form, dense), rtol=1e-10, atol=1e-10
        )


@every_form
def test_another_centre_gives_the_moments_about_it(form: type[Scatter]) -> None:
    samples, resp = data(5)
    centers = np.random.default_rng(6).uniform(5.0, 15.0, size=(K, D))
    moved = SufficientStatistics.of_responsibilities(samples, resp, form).about(centers)
    nk, first, dense = moments(samples, resp, centers)
    np.testing.assert_array_equal(moved.centers, centers)
    np.testing.assert_allclose(moved.nk, nk, rtol=1e-13)
    np.testing.assert_allclose(moved.first, first, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(moved.scatter, in_form(form, dense), rtol=1e-11, atol=1e-11)


@every_form
@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(1, 59), max_size=5, unique=True))
def test_any_split_adds_up_to_the_whole(form: type[Scatter], seed: int, cuts: list[int]) -> None:
    samples, resp = data(seed)
    whole = SufficientStatistics.of_responsibilities(samples, resp, form)
    edges = [0, *sorted(cuts), samples.n_rows]
    parts = [
        SufficientStatistics.of_responsibilities(part(samples, rows), resp[rows], form)
        for rows in itertools.starmap(slice, itertools.pairwise(edges))
    ]
    assert_same(reduce(SufficientStatistics.merged, parts), whole, rel=1e-11)
    assert_same(reduce(SufficientStatistics.merged, reversed(parts)), whole, rel=1e-11)


@every_form
def test_parts_about_one_centre_are_simply_added(form: type[Scatter]) -> None:
    samples, resp = data(7)
    centers = samples.X[:K]
    left, right = (
        SufficientStatistics.of_responsibilities(part(samples, rows), resp[rows], form).about(
            centers
        )
        for rows in (slice(0, 20), slice(20, 60))
    )
    merged = left.merged(right)
    np.testing.assert_array_equal(merged.centers, centers)
    np.testing.assert_array_equal(merged.scatter, left.scatter + right.scatter)


@every_form
def test_parts_without_rows_add_nothing(form: type[Scatter]) -> None:
    samples, resp = data(8)
    whole = SufficientStatistics.of_responsibilities(samples, resp, form)
    nothing = SufficientStatistics.zeros(form, np.full((K, D), -7.0))
    assert_same(whole.merged(nothing), whole)
    assert_same(nothing.merged(whole), whole)
    assert nothing.merged(nothing).n_samples == 0.0


@every_form
def test_a_component_without_rows_stays_where_its_centre_is(form: type[Scatter]) -> None:
    samples, _ = data(9)
    labels = np.arange(samples.n_rows) % 2
    statistics = SufficientStatistics.of_labels(samples, labels, K, form)
    assert statistics.nk[2] == 0.0
    assert np.isfinite(statistics.means).all()
    np.testing.assert_array_equal(statistics.shift[2], 0.0)


@every_form
def test_written_and_read_back_they_are_the_same_bits(form: type[Scatter]) -> None:
    samples, resp = data(10)
    statistics = SufficientStatistics.of_responsibilities(samples, resp, form)
    arrays = {
        name: np.frombuffer(value.tobytes()).reshape(value.shape)
        for name, value in statistics.to_arrays().items()
    }
    again = SufficientStatistics.from_arrays(form, arrays)
    for name in ("centers", "nk", "first", "scatter", "means", "central_scatter"):
        np.testing.assert_array_equal(getattr(again, name), getattr(statistics, name))
    assert again.log_likelihood == statistics.log_likelihood
    assert again.log_max_resp == statistics.log_max_resp


@every_form
@pytest.mark.parametrize("offset", [1e8, 1e12, -1e12])
def test_an_offset_costs_no_digits(form: type[Scatter], offset: float) -> None:
    """Rows on a grid are exact beside the offset, so every digit can be asked for."""
    rng = np.random.default_rng(12)
    X = rng.integers(-64, 64, size=(80, D)) / 8.0
    labels = np.arange(80) % K
    near = SufficientStatistics.of_labels(Samples.checked(X), labels, K, form)
    far = [
        SufficientStatistics.of_labels(Samples.checked(X[rows] + offset), labels[rows], K, form)
        for rows in (slice(0, 31), slice(31, 80))
    ]
    merged = far[0].merged(far[1])
    np.testing.assert_allclose(merged.means - offset, near.means, atol=2 * np.spacing(abs(offset)))
    np.testing.assert_allclose(merged.central_scatter, near.central_scatter, rtol=2e-6)
    whole = SufficientStatistics.of_labels(Samples.checked(X + offset), labels, K, form)
    np.testing.assert_allclose(whole.central_scatter, near.central_scatter, rtol=1e-9)


def test_a_form_spreads_one_scatter_over_the_components() -> None:
    total = np.array([[4.0, 1.0], [1.0, 9.0]])
    share = np.array([0.25, 0.75])
    dense = share[:, np.newaxis, np.newaxis] * total
    for form in FORMS:
        np.testing.assert_allclose(form.from_total(total, share), in_form(form, dense))
