"""The compiled passes beside plain NumPy, for every way of weighing a block."""

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import cast

import numpy as np
import pytest
from llvmlite import binding
from mpmath import mp, mpf
from numba import njit
from numpy.typing import NDArray

from gmm_engine import COVARIANCE_FAMILIES, Mixture, kernels
from gmm_engine.errors import NonFiniteNumberError, OutOfRangeError
from gmm_engine.kernels import passes
from gmm_engine.kernels.blocks import BLOCK_ROWS, GATHERED_ROWS
from gmm_engine.kernels.compilation import FAST
from gmm_engine.kernels.lanes import (
    LANES,
    load,
    log_of_at_least_one,
    reciprocal,
    square_root,
    store,
    without_powers,
)
from gmm_engine.kernels.passes import (
    MAX_UNROLLED_FEATURES,
    Way,
    expectation_pass,
    scoring_pass,
)
from gmm_engine.kernels.ranges import in_order, row_ranges
from tests.support.data import random_mixture, rows_of

every_family = pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
every_way = pytest.mark.parametrize(
    "n_features", [*range(1, MAX_UNROLLED_FEATURES + 6), 16, 33, 70, 130]
)


def example(covariance_type: str, n_features: int) -> Mixture:
    rng = np.random.default_rng(n_features)
    return random_mixture(covariance_type, n_components=3, n_features=n_features, rng=rng)


def plain_log_joint(mixture: Mixture, X: NDArray[np.float64]) -> NDArray[np.float64]:
    columns = []
    for weight, mean, covariance in zip(
        mixture.weights, mixture.means, mixture.to_dense(), strict=True
    ):
        distances = np.einsum("ij,ij->i", X - mean, np.linalg.solve(covariance, (X - mean).T).T)
        log_det = np.linalg.slogdet(2.0 * np.pi * covariance)[1]
        columns.append(np.log(weight) - 0.5 * (log_det + distances))
    return np.stack(columns, axis=1)


def test_no_two_passes_share_the_name_that_their_symbols_are_made_of() -> None:
    ways = [(Way.UNROLLED, D) for D in range(1, MAX_UNROLLED_FEATURES + 1)]
    ways += [(way, 0) for way in (Way.TILED, Way.SHARED, Way.DIAGONAL)]
    compiled = [make(*way) for way in ways for make in (expectation_pass, scoring_pass)]
    compiled.append(expectation_pass(Way.GATHERED, 0))
    results = (each.overloads.values() for each in compiled)
    names = [{result.fndesc.qualname for result in of_one} for of_one in results]
    assert all(len(of_one) == 1 for of_one in names)
    assert len(set().union(*names)) == len(compiled)


def apart_by_column(X: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the same, each column contiguous, with something else between them."""
    columns = np.full((X.shape[1], len(X) + 3), np.nan, dtype=X.dtype)
    columns[:, : len(X)] = X.T
    return columns[:, : len(X)].T


@pytest.mark.parametrize("n_components", [LANES - 1, LANES, LANES + 1, 2 * LANES, 2 * LANES + 3])
@pytest.mark.parametrize("n_features", [*range(1, LANES + 1), LANES + 3, 2 * LANES + 1])
@pytest.mark.parametrize("covariance_type", ["full", "diag"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_no_number_depends_on_which_of_them_stand_side_by_side(
    n_components: int, n_features: int, covariance_type: str, dtype: type[np.floating]
) -> None:
    rng = np.random.default_rng(n_components)
    mixture = random_mixture(
        covariance_type, n_components=n_components, n_features=n_features, rng=rng
    )
    X = rows_of(mixture, 2 * BLOCK_ROWS + LANES + 3, rng).astype(dtype)
    joint = plain_log_joint(mixture, X.astype(np.float64))
    resp = np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, np.newaxis])

    found = mixture.predict_proba(X)
    np.testing.assert_allclose(found, resp, rtol=1e-8, atol=1e-11)
    np.testing.assert_array_equal(mixture.predict_proba(apart_by_column(X)), found)
    np.testing.assert_array_equal(mixture.predict_proba(np.asfortranarray(X)), found)
    np.testing.assert_array_equal(mixture.predict(apart_by_column(X)), found.argmax(axis=1))


@pytest.mark.parametrize("row", [0, BLOCK_ROWS + 1, 2 * BLOCK_ROWS])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_refused_in_whichever_block_it_is(row: int, value: float) -> None:
    mixture = example("full", 3)
    X = rows_of(mixture, 2 * BLOCK_ROWS + 1, np.random.default_rng(0))
    X[0, 0] = 1e150  # beyond every component, and still a number
    X[row, 2] = value
    for asked in (mixture.predict_proba, mixture.predict, mixture.score_samples):
        for rows in (X, np.asfortranarray(X)):
            with pytest.raises(NonFiniteNumberError) as refused:
                asked(rows)
            assert list(refused.value.positions) == [(row, 2)]


def test_a_number_that_is_none_is_told_before_a_row_out_of_reach() -> None:
    mixture = Mixture.from_arrays(
        {"weights": [1.0], "means": np.zeros((1, 2)), "covariances": [1e-300]}, "spherical"
    )
    X = np.zeros((2 * BLOCK_ROWS, 2))
    X[0, 0] = 1e10
    with pytest.raises(OutOfRangeError, match="row 0 is so far from every component"):
        mixture.predict_proba(X)
    X[-1, 1] = np.nan
    with pytest.raises(NonFiniteNumberError):
        mixture.predict_proba(X)


@pytest.mark.parametrize("row", [0, BLOCK_ROWS, 2 * BLOCK_ROWS])
def test_large_numbers_are_scored_and_those_out_of_range_refused(row: int) -> None:
    mixture = Mixture.from_arrays(
        {"weights": [0.5, 0.5], "means": [[0.0, 1e20], [0.0, -1e20]], "covariances": [1e40, 1e40]},
        "spherical",
    )
    X = np.zeros((2 * BLOCK_ROWS + 1, 2))
    X[row, 1] = 2e20
    even = np.full((len(X), 2), 0.5)
    even[row] = np.exp([0.0, -4.0]) / (1.0 + np.exp(-4.0))
    np.testing.assert_allclose(mixture.predict_proba(X), even, rtol=1e-12)
    X[row, 1] = 1e153
    with pytest.raises(OutOfRangeError, match="magnitudes above 1e"):
        mixture.predict_proba(X)


@every_family
@every_way
@pytest.mark.parametrize("n_rows", [1, BLOCK_ROWS - 1, 2 * BLOCK_ROWS + 5, GATHERED_ROWS + 5])
def test_sums_and_scores_are_those_of_plain_numpy(
    covariance_type: str, n_features: int, n_rows: int
) -> None:
    mixture = example(covariance_type, n_features)
    rng = np.random.default_rng(n_rows)
    X, weight = rows_of(mixture, n_rows, rng), rng.uniform(0.0, 2.0, n_rows)
    joint = plain_log_joint(mixture, X)
    scores = np.logaddexp.reduce(joint, axis=1)
    resp = np.exp(joint - scores[:, np.newaxis])

    tables, log_prob = np.empty((2, *joint.shape)), np.empty(n_rows)
    labels = np.empty(n_rows, dtype=np.int64)
    kernels.score(
        mixture.prepared, X, joint=tables[0], resp=tables[1], log_prob=log_prob, labels=labels
    )
    np.testing.assert_allclose(tables[0], joint, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(tables[1], resp, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(log_prob, scores, rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(labels, joint.argmax(axis=1))

    by_column = [np.empty(table.shape, order="F") for table in tables]
    kernels.score(mixture.prepared, apart_by_column(X), joint=by_column[0], resp=by_column[1])
    np.testing.assert_array_equal(by_column, tables)

    moments = kernels.expectation(mixture.prepared, [(X, weight)])
    gamma = resp * weight[:, np.newaxis]
    deviations = X[:, np.newaxis] - mixture.means
    second = np.einsum("nk,nki,nkj->kij", gamma, deviations, deviations)
    expected = {
        "full": second,
        "tied": second.sum(axis=0, keepdims=True),
        "diag": np.diagonal(second, axis1=1, axis2=2),
        "spherical": np.diagonal(second, axis1=1, axis2=2),
    }[covariance_type]
    np.testing.assert_allclose(moments.nk, gamma.sum(axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        moments.first, np.einsum("nk,nki->ki", gamma, deviations), rtol=1e-8, atol=1e-9
    )
    np.testing.assert_allclose(moments.scatter, expected, rtol=1e-8, atol=1e-9)
    assert moments.log_likelihood == pytest.approx(float(weight @ scores), rel=1e-11)
    assert moments.log_max_resp == pytest.approx(
        float(weight @ np.log(resp.max(axis=1))), rel=1e-8, abs=1e-9
    )


@every_family
@every_way
@pytest.mark.parametrize("n_rows", [1, BLOCK_ROWS - 1, 2 * BLOCK_ROWS + 5, GATHERED_ROWS + 5])
def test_rows_without_weights_count_once(
    covariance_type: str, n_features: int, n_rows: int
) -> None:
    mixture = example(covariance_type, n_features)
    X = rows_of(mixture, n_rows, np.random.default_rng(n_rows))
    joint = plain_log_joint(mixture, X)
    scores = np.logaddexp.reduce(joint, axis=1)
    resp = np.exp(joint - scores[:, np.newaxis])
    deviations = X[:, np.newaxis] - mixture.means

    plain = kernels.expectation(mixture.prepared, [(X, None)])
    ones = kernels.expectation(mixture.prepared, [(X, np.ones(n_rows))])

    np.testing.assert_allclose(plain.nk, resp.sum(axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        plain.first, np.einsum("nk,nki->ki", resp, deviations), rtol=1e-8, atol=1e-9
    )
    np.testing.assert_allclose(plain.scatter, ones.scatter, rtol=1e-13, atol=1e-13 * n_rows)
    assert plain.log_likelihood == pytest.approx(float(scores.sum()), rel=1e-11)
    assert plain.log_max_resp == pytest.approx(
        float(np.log(resp.max(axis=1)).sum()), rel=1e-8, abs=1e-9
    )


@every_family
def test_the_log_likelihood_of_many_rows_is_the_sum_of_theirs(covariance_type: str) -> None:
    # All components are the same: a row has their number for a sum, all rows a product of 10**4700.
    one = random_mixture(
        covariance_type, n_components=1, n_features=3, rng=np.random.default_rng(0)
    ).to_arrays()
    n_components, n_rows = 40, 3000
    spreads = one["covariances"]
    is_common = covariance_type == "tied"
    mixture = Mixture.from_arrays(
        {
            "weights": np.full(n_components, 1.0 / n_components),
            "means": np.repeat(one["means"], n_components, axis=0),
            "covariances": spreads if is_common else np.repeat(spreads, n_components, axis=0),
        },
        covariance_type,
    )
    X = rows_of(mixture, n_rows, np.random.default_rng(1))
    joint = plain_log_joint(mixture, X)

    sums = kernels.expectation(mixture.prepared, [(X, None)])

    assert sums.log_likelihood == pytest.approx(
        float(np.logaddexp.reduce(joint, axis=1).sum()), rel=1e-12
    )
    assert sums.log_max_resp == pytest.approx(-n_rows * np.log(n_components), rel=1e-12)


@every_family
@pytest.mark.parametrize("n_features", [3, 20, 40, 70])
def test_single_precision_rows_give_what_their_doubles_give(
    covariance_type: str, n_features: int
) -> None:
    mixture = example(covariance_type, n_features)
    X = rows_of(mixture, 300, np.random.default_rng(0)).astype(np.float32)
    single = kernels.expectation(mixture.prepared, [(X, None)])
    double = kernels.expectation(mixture.prepared, [(X.astype(np.float64), None)])
    np.testing.assert_array_equal(single.scatter, double.scatter)
    assert single.log_likelihood == double.log_likelihood


@pytest.mark.parametrize(("covariance_type", "D"), [("full", 20), ("diag", 40)])
def test_what_is_left_out_of_the_moments_is_below_their_rounding(
    covariance_type: str, D: int
) -> None:
    # Clusters apart by 9, 12 and 30 standard deviations, a light one among them, and a row that is
    # far from all and about as far from each.
    rng = np.random.default_rng(7)
    means = np.zeros((4, D))
    means[1, 0], means[2, 0], means[3, 0] = 9.0, 21.0, 51.0
    mixture = Mixture.from_arrays(
        {
            "weights": [0.5, 1e-6, 0.3, 0.199999],
            "means": means,
            "covariances": np.tile(np.eye(D), (4, 1, 1))
            if covariance_type == "full"
            else np.ones((4, D)),
        },
        covariance_type,
    )
    X = means[rng.integers(0, 4, 400)] + rng.standard_normal((400, D))
    X[0, 1:] = 1e7
    joint = np.log(mixture.weights) - 0.5 * (
        D * np.log(2 * np.pi) + np.square(X[:, np.newaxis] - means).sum(axis=2)
    ).astype(np.longdouble)
    resp = np.exp(joint - joint.max(axis=1, keepdims=True))
    resp /= resp.sum(axis=1, keepdims=True)
    assert np.count_nonzero((resp > 0) & (resp < 1e-20)) > 100  # there is something to leave out
    deviations = X[:, np.newaxis] - means
    moments = kernels.expectation(mixture.prepared, [(X, None)])
    np.testing.assert_allclose(moments.nk, resp.sum(axis=0).astype(float), rtol=1e-12)
    outer = "nk,nki,nkj->kij" if covariance_type == "full" else "nk,nki,nki->ki"
    second = np.einsum(outer, resp.astype(float), deviations, deviations)
    for found, exact in zip(moments.scatter, second, strict=True):
        np.testing.assert_allclose(found, exact, rtol=0.0, atol=1e-13 * np.abs(exact).max())


@pytest.mark.parametrize("n_features", [4, 20])
def test_components_far_apart_that_share_a_covariance_keep_their_distances(n_features: int) -> None:
    rng = np.random.default_rng(3)
    means = np.zeros((3, n_features))
    means[:, 0] = 1e12 + np.array([0.0, 1e5, 3e5])
    mixture = Mixture.from_arrays(
        {"weights": np.full(3, 1 / 3), "means": means, "covariances": np.eye(n_features)}, "tied"
    )
    X = means[rng.integers(0, 3, 100)] + np.round(rng.standard_normal((100, n_features)), 3)
    nearest = np.square(X[:, np.newaxis] - means).sum(axis=2).min(axis=1)
    expected = np.log(1 / 3) - 0.5 * (n_features * np.log(2 * np.pi) + nearest)
    np.testing.assert_allclose(mixture.score_samples(X), expected, rtol=1e-9)


@every_family
def test_a_row_is_scored_alike_alone_and_among_others(covariance_type: str) -> None:
    mixture = example(covariance_type, 5)
    X = rows_of(mixture, 200, np.random.default_rng(1))
    together = mixture.predict_proba(X)
    np.testing.assert_array_equal(
        np.concatenate([mixture.predict_proba(x[None]) for x in X]), together
    )


def test_a_row_beyond_every_component_is_named_by_its_number_in_the_data() -> None:
    X = np.zeros((70_000, 2))
    X[65_432] = 1e152
    sharp = Mixture.from_arrays(
        {"weights": [1.0], "means": [[0.0, 0.0]], "covariances": [np.eye(2) * 1e-20]}
    )
    with pytest.raises(OutOfRangeError, match="row 65432 "):
        sharp.score_samples(X)


Elementwise = Callable[[NDArray[np.float64]], NDArray[np.float64]]
_exponentiate = cast("Callable[..., None]", passes._exponentiate)


def _exp_each(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return exp of numbers ≤ 0, as the passes take it of a block."""
    block, sums, nothing = np.zeros(BLOCK_ROWS), np.zeros(BLOCK_ROWS), np.zeros(BLOCK_ROWS)
    out = np.empty_like(x)
    for begin in range(0, len(x), BLOCK_ROWS):
        part = x[begin : begin + BLOCK_ROWS]
        block[: len(part)] = part
        _exponentiate(block, 1, BLOCK_ROWS // LANES, nothing, sums, nothing, 0, 0, BLOCK_ROWS)
        out[begin : begin + BLOCK_ROWS] = block[: len(part)]
    return out


def _exp2_each(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 2 to the power of numbers ≤ 0 likewise."""
    block, sums, nothing = np.zeros(BLOCK_ROWS), np.zeros(BLOCK_ROWS), np.zeros(BLOCK_ROWS)
    out = np.empty_like(x)
    for begin in range(0, len(x), BLOCK_ROWS):
        part = x[begin : begin + BLOCK_ROWS]
        block[: len(part)] = part
        _exponentiate(block, 1, BLOCK_ROWS // LANES, nothing, sums, nothing, 0, 1, BLOCK_ROWS)
        out[begin : begin + BLOCK_ROWS] = block[: len(part)]
    return out


def _log_each(x: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.empty_like(x)
    for i in range(len(x)):
        out[i] = log_of_at_least_one(x[i])
    return out


as_passes = njit(fastmath=set(FAST))  # sums may be regrouped
exp_each = cast("Elementwise", as_passes(_exp_each))
exp2_each = cast("Elementwise", as_passes(_exp2_each))
log_each = cast("Elementwise", as_passes(_log_each))


def test_exp_and_log_are_right_to_two_units_in_the_last_place() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([-rng.uniform(0, 700, 3000), -(10.0 ** rng.uniform(-18, 0, 1000)), [0.0]])
    y = np.concatenate([rng.uniform(1, 1e6, 3000), 1 + 10.0 ** rng.uniform(-15, 308, 1000), [1.0]])
    with mp.workprec(120):
        exact_exp = np.array([float(mp.exp(mpf(v))) for v in x])
        exact_log = np.array([float(mp.log(mpf(v))) for v in y])
        exact_exp2 = np.array([float(mp.power(2, mpf(v))) for v in x])
    np.testing.assert_array_max_ulp(exp_each(x), exact_exp, maxulp=2)
    np.testing.assert_array_max_ulp(exp2_each(x), exact_exp2, maxulp=2)
    np.testing.assert_array_max_ulp(log_each(y), exact_log, maxulp=2)


def test_exp_of_what_is_out_of_range_is_zero() -> None:
    np.testing.assert_array_equal(exp_each(np.array([-709.0, -np.inf, np.nan])), 0.0)
    np.testing.assert_array_equal(exp2_each(np.array([-1022.0, -1e300, -np.inf, np.nan])), 0.0)


@pytest.mark.skipif(LANES < 8, reason="vectors of four are what all tests run with here")
def test_vectors_of_four_are_as_right() -> None:
    host = binding.get_host_cpu_features()
    kept = {name: has and not name.startswith(("avx512", "avx10")) for name, has in host.items()}
    features = ",".join(f"{'+' if has else '-'}{name}" for name, has in kept.items())
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": features,
    }
    tests = (
        test_exp_and_log_are_right_to_two_units_in_the_last_place,
        test_exp_of_what_is_out_of_range_is_zero,
        test_powers_of_two_are_right_where_their_parts_meet,
    )
    names = [f"{__file__}::{test.__name__}" for test in tests]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", *names]
    done = subprocess.run(  # noqa: S603 - our own tests
        command, env=environment, capture_output=True, text=True, check=False
    )
    assert "3 passed" in done.stdout, done.stdout


def test_powers_of_two_are_right_where_their_parts_meet() -> None:
    steps = -np.arange(16.0 * 1020) / 16
    for x in (steps, np.nextafter(steps, -np.inf), np.nextafter(steps[1:], 0.0)):
        with mp.workprec(120):
            exact = np.array([float(mp.power(2, mpf(v))) for v in x])
        np.testing.assert_array_max_ulp(exp2_each(x), exact, maxulp=2)
    np.testing.assert_array_equal(exp2_each(steps[::16]), 2.0 ** steps[::16])


@pytest.mark.parametrize("n_rows", [1, 95, 96, 97, 10_000, 1_234_567])
def test_ranges_cover_every_row_once_in_order(n_rows: int) -> None:
    ranges = row_ranges(n_rows, 8, 8, is_dense=True)
    assert ranges[0].start == 0
    assert ranges[-1].stop == n_rows
    assert all(a.stop == b.start for a, b in pairwise(ranges))


def test_what_fails_in_a_range_reaches_the_caller_and_leaves_the_threads_usable() -> None:
    ranges = [slice(i, i + 1) for i in range(20)]

    def work(rows: slice) -> int:
        if rows.start == 7:
            raise OutOfRangeError("the seventh")
        return int(rows.start)

    with pytest.raises(OutOfRangeError, match="seventh"):
        list(in_order(work, ranges))
    assert list(in_order(lambda rows: rows.start, ranges)) == list(range(20))


def test_sums_have_the_same_bits_wherever_the_weights_lie_in_memory() -> None:
    rng = np.random.default_rng(0)
    mixture = example("full", 1)
    X, weight = rows_of(mixture, 300, rng), rng.uniform(0.5, 1.5, 300)
    found, kept = set(), []
    for _ in range(500):
        kept.append(np.empty(int(rng.integers(1, 3000))))  # what is allocated next lies elsewhere
        sums = kernels.expectation(mixture.prepared, [(X, weight.copy())])
        found.add((sums.log_likelihood, sums.log_max_resp, sums.nk.tobytes()))

    assert len(found) == 1


@pytest.mark.parametrize("n_features", [1, 2, 7, 8, 9, 16, 25, 33, 130])
def test_factors_are_those_of_lapack(n_features: int) -> None:
    A = np.random.default_rng(n_features).standard_normal((3, n_features, 2 * n_features + 2))
    matrices = A @ A.transpose(0, 2, 1)

    factors, singular = kernels.cholesky_factors(0.5 * (matrices + matrices.transpose(0, 2, 1)))
    inverses = kernels.inverse_transposes(factors)

    assert singular == -1
    np.testing.assert_allclose(factors, np.linalg.cholesky(matrices), atol=1e-13 * n_features)
    identities = np.einsum("kij,kil->kjl", inverses, factors)
    np.testing.assert_allclose(
        identities, np.broadcast_to(np.eye(n_features), identities.shape), atol=1e-12
    )
    assert not np.tril(inverses, -1).any()


def test_a_matrix_of_lower_rank_has_no_factor() -> None:
    matrices = np.stack([np.eye(2), np.array([[1.0, 1.0 / 3.0], [1.0 / 3.0, 1.0 / 9.0]])])

    assert kernels.cholesky_factors(matrices)[1] == 1


_load, _store, _square_root = (cast("Callable[..., object]", f) for f in (load, store, square_root))


def _root_each(x: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.empty_like(x)
    for begin in range(0, len(x), LANES):
        _store(out, begin, _square_root(_load(x, begin)))
    return out


root_each = cast("Elementwise", njit(_root_each))


def test_roots_are_right_to_a_unit_in_the_last_place() -> None:
    x = 10.0 ** np.random.default_rng(0).uniform(-307, 307, 1000 * LANES)
    np.testing.assert_array_max_ulp(root_each(x), np.sqrt(x), maxulp=1)
    np.testing.assert_array_equal(
        root_each(np.array([0.0, 1.0, 4.0, 0.25] * 2)), [0, 1, 2, 0.5] * 2
    )


_reciprocal = cast("Callable[..., object]", reciprocal)
_without_powers = cast("Callable[[float], tuple[float, int]]", without_powers)


def _invert_each(x: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.empty_like(x)
    for begin in range(0, len(x), LANES):
        _store(out, begin, _reciprocal(_load(x, begin)))
    return out


invert_each = cast("Elementwise", as_passes(_invert_each))


def test_reciprocals_are_right_to_a_unit_in_the_last_place() -> None:
    x = 10.0 ** np.random.default_rng(0).uniform(0, 300, 1000 * LANES)
    np.testing.assert_array_max_ulp(invert_each(x), 1.0 / x, maxulp=1)
    np.testing.assert_array_equal(
        invert_each(np.array([1.0, 2.0, 4.0, 2.0**900] * 2)) * 4.0, [4.0, 2.0, 1.0, 2.0**-898] * 2
    )


def test_a_number_is_taken_apart_into_a_mantissa_and_a_power_of_two() -> None:
    for x in (1.0, np.nextafter(2.0, 1.0), 2.0, 3.0, 1e300, np.finfo(float).max):
        mantissa, power = _without_powers(x)
        assert 1.0 <= mantissa < 2.0
        assert mantissa * 2.0**power == x
