"""Fits of data that comes block by block."""

import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import dataset as datasets
from pyarrow import parquet

from gmm_engine import Blocks, FitOptions, fit
from gmm_engine.errors import (
    DimensionMismatchError,
    EmptyDataError,
    GmmEngineError,
    InvalidDataError,
    InvalidParameterError,
    NonFiniteNumberError,
    OutOfRangeError,
    TooFewSamplesError,
)
from gmm_engine.samples import Points, Samples, sample_source
from tests.support.data import iris, separated_clusters

OPTIONS = FitOptions(3, random_state=0)


def in_blocks(X: NDArray[np.float64], n_blocks: int) -> Blocks:
    return Blocks(lambda: np.array_split(X, n_blocks))


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_blocks_are_fitted_like_the_whole_array(covariance_type: str) -> None:
    # So near to the optimum that it does not matter from which side it was reached.
    options = FitOptions(3, covariance_type, tol=1e-8, random_state=0)
    whole, blocks = fit(iris(), options), fit(in_blocks(iris(), 7), options)
    assert blocks.criteria.log_likelihood == pytest.approx(whole.criteria.log_likelihood, abs=1e-3)
    np.testing.assert_allclose(blocks.mixture.means, whole.mixture.means, atol=1e-3)


@pytest.mark.parametrize(
    "init_params", ["auto", "kmeans", "k-means++", "random", "random_from_data"]
)
def test_few_rows_in_blocks_are_begun_like_the_whole_array(init_params: str) -> None:
    X = np.random.default_rng(0).standard_normal((400, 3))  # of many optima
    options = FitOptions(3, init_params=init_params, max_iter=30, random_state=0)
    whole, blocks = fit(X, options), fit(in_blocks(X, 7), options)
    assert blocks.criteria.log_likelihood == pytest.approx(whole.criteria.log_likelihood, abs=1e-6)


def test_weights_come_with_their_blocks() -> None:
    X = iris()
    weight = np.random.default_rng(0).integers(0, 3, len(X)).astype(float)
    blocks = Blocks(lambda: zip(np.array_split(X, 4), np.array_split(weight, 4), strict=True))
    start = fit(X, OPTIONS).mixture
    whole = fit(X, OPTIONS, sample_weight=weight, start=start)
    parts = fit(blocks, OPTIONS, start=start)
    assert parts.criteria.n_samples == weight.sum()
    assert parts.log_likelihood == pytest.approx(whole.log_likelihood, rel=1e-9)


def test_a_memory_map_is_read_in_place(tmp_path: Path) -> None:
    X = separated_clusters(np.random.default_rng(0), rows_each=400).X
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert fit(mapped, OPTIONS).log_likelihood == fit(X, OPTIONS).log_likelihood


def test_an_arrow_dataset_is_read_batch_by_batch(tmp_path: Path) -> None:
    X = iris()
    for part, rows in enumerate(np.array_split(X, 3)):
        table = pa.table(dict(zip("abcd", rows.T, strict=True)))
        parquet.write_table(table, tmp_path / f"{part}.parquet")
    dataset = datasets.dataset(tmp_path)
    result = fit(dataset, OPTIONS)
    np.testing.assert_array_equal(
        result.mixture.means, fit(Blocks(lambda: np.array_split(X, 3)), OPTIONS).mixture.means
    )
    with pytest.raises(InvalidDataError, match="blocks carry their weights"):
        fit(dataset, OPTIONS, sample_weight=np.ones(150))
    parquet.write_table(pa.table({"a": ["x"]}), tmp_path / "text.parquet")
    with pytest.raises(InvalidDataError, match="real numbers"):
        fit(datasets.dataset(tmp_path / "text.parquet"), OPTIONS)


def test_memory_is_bounded_by_a_block() -> None:
    n_blocks, block_rows, D = 40, 20_000, 4

    def read() -> Iterator[NDArray[np.float64]]:
        for seed in range(n_blocks):
            yield np.random.default_rng(seed).standard_normal((block_rows, D))

    options = FitOptions(2, max_iter=2, tol=0.0, init_params="random_from_data", random_state=0)
    fit(Blocks(lambda: [next(read())]), options)  # compiled code and thread pools are there now
    tracemalloc.start()
    fit(Blocks(read), options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * block_rows * D * 8 < n_blocks * block_rows * D * 8 / 4


def test_blocks_that_change_between_passes_are_refused() -> None:
    calls: list[int] = []

    def read() -> list[NDArray[np.float64]]:
        calls.append(1)
        return [iris()[: 150 - len(calls)]]

    with pytest.raises(InvalidDataError, match="when read again"):
        fit(Blocks(read), OPTIONS)


@pytest.mark.parametrize(
    ("n_reads", "weight"),
    [(1, None), (2, None), (1, 1.0), (2, 1.0), (1, 100.0), (2, 100.0), (3, 100.0), (9, 100.0)],
)
def test_blocks_that_change_at_whichever_pass_are_refused(
    n_reads: int, weight: float | None
) -> None:
    """Few rows are read three times; with weights of a hundred they are more than starts take."""
    calls: list[int] = []

    def read() -> Iterator[NDArray[np.float64] | tuple[NDArray[np.float64], NDArray[np.float64]]]:
        calls.append(1)
        X = iris()[: 150 if len(calls) <= n_reads else 90]
        yield X if weight is None else (X, np.full(len(X), weight))

    with pytest.raises(InvalidDataError, match="150 rows at first and 90 when read again"):
        fit(Blocks(read), FitOptions(3, init_params="kmeans", random_state=0))
    assert len(calls) == n_reads + 1


def test_an_iterator_that_can_be_read_once_only_is_refused() -> None:
    once = iter(np.array_split(iris(), 3))
    with pytest.raises(InvalidDataError, match="when read again"):
        fit(Blocks(lambda: once), OPTIONS)


def test_wrong_blocks_are_refused_like_wrong_arrays() -> None:
    X = iris()
    spoilt = X.copy()
    spoilt[3, 1] = np.nan
    with pytest.raises(NonFiniteNumberError):
        fit(Blocks(lambda: [X, spoilt]), OPTIONS)
    with pytest.raises(DimensionMismatchError):
        fit(Blocks(lambda: [X, X[:, :2]]), OPTIONS)
    with pytest.raises(EmptyDataError):
        fit(Blocks(list), OPTIONS)
    with pytest.raises(TooFewSamplesError):
        fit(Blocks(lambda: [X[:1], X[:1]]), OPTIONS)
    with pytest.raises(InvalidParameterError, match="start"):
        fit(in_blocks(X, 2), OPTIONS, start=np.zeros(150))
    with pytest.raises(InvalidDataError, match="sample_weight"):
        fit(in_blocks(X, 2), OPTIONS, sample_weight=np.ones(150))


def refusal_of(blocks: list[Any]) -> InvalidDataError:
    with pytest.raises(InvalidDataError) as caught:
        fit(Blocks(lambda: blocks), OPTIONS)
    return caught.value


def test_a_wrong_number_is_named_by_its_row_among_all_and_by_its_block() -> None:
    X, weight = iris(), np.ones(150)
    spoilt, endless, huge = X.copy(), weight.copy(), X.copy()
    spoilt[[3, 7], 1], endless[5], huge[4, 2] = np.nan, np.inf, -1e200
    caught = refusal_of([X, X[:0], spoilt, X])
    assert isinstance(caught, NonFiniteNumberError)
    assert caught.positions == ((153, 1), (157, 1))
    assert "first at index [153, 1] of all rows, [3, 1] of block 2;" in str(caught)
    caught = refusal_of([(X, weight), (X[:20], weight[:20]), (X, endless)])
    assert caught.positions == ((175,),)
    assert "sample_weight contains NaN or infinity, first at index [175]" in str(caught)
    caught = refusal_of([X, huge])
    assert isinstance(caught, OutOfRangeError)
    assert caught.positions == ((154, 2),)
    assert str(caught).startswith("block 1, which begins with row 150: X holds magnitudes above")
    caught = refusal_of([X, X, X[:, :2]])
    assert isinstance(caught, DimensionMismatchError)
    assert str(caught).startswith("block 2, which begins with row 300: X has 2 features")


def test_a_negative_weight_is_named_by_its_row_among_all_and_by_its_block() -> None:
    X, weight = iris(), np.ones(150)
    below = weight.copy()
    below[[2, 5]] = -1.0
    with pytest.raises(InvalidParameterError) as caught:
        fit(Blocks(lambda: [(X, weight), (X[:0], weight[:0]), (X, below)]), OPTIONS)
    assert caught.value.positions == ((152,), (155,))
    assert str(caught.value) == (
        "sample_weight must not be negative, as it is first at index [152] of all rows, "
        "[2] of block 2"
    )


@pytest.mark.parametrize("X", [iris(), np.column_stack([iris(), iris() @ np.ones(4)])])
def test_a_block_of_no_weight_counts_as_little_as_its_rows_do_in_an_array(
    X: NDArray[np.float64],
) -> None:
    weight = np.where(np.arange(150) // 30 == 2, 0.0, 1.5)
    weight[-30:] *= 1e-120  # beside the others they are lost
    blocks = list(zip(np.array_split(X, 5), np.array_split(weight, 5), strict=True))
    options = FitOptions(2, random_state=0)
    begin = fit(X, options, sample_weight=weight).mixture
    whole = fit(X, options, sample_weight=weight, start=begin)
    for order in (blocks, [blocks[2], *blocks]):
        parts = fit(Blocks(partial(iter, order)), options, start=begin)
        assert parts.criteria.n_samples == whole.criteria.n_samples
        assert parts.log_likelihood == pytest.approx(whole.log_likelihood, rel=1e-9)


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (0.0, InvalidParameterError, "must not be zero everywhere"),
        (1e-103, OutOfRangeError, "next to nothing"),
        (1e306, OutOfRangeError, "beyond the range"),
    ],
)
def test_weights_of_all_blocks_are_refused_by_their_sum(
    value: float, error: type[GmmEngineError], says: str
) -> None:
    half = (iris()[:75], np.full(75, value if value < 1.0 else 1.5 * value))
    with pytest.raises(error, match=says):
        fit(Blocks(lambda: [half, half]), OPTIONS)


@pytest.mark.parametrize("n_blocks", [1, 7])
@pytest.mark.parametrize(
    ("unit", "total", "off"),
    [(1.0, 400.0, 0.3), (0.75, 0.75 * 2198, 0.05)],
    ids=["counts", "other weights"],
)
def test_rows_are_drawn_by_their_weight(
    n_blocks: int, unit: float, total: float, off: float
) -> None:
    X = np.arange(2000.0)[:, np.newaxis]
    weight = np.full(2000, unit)
    weight[:100], weight[1500], weight[1999] = 0.0, 300.0 * unit, 0.0
    whole = Samples.checked(X, weight)
    blocked = sample_source(
        Blocks(
            lambda: zip(np.array_split(X, n_blocks), np.array_split(weight, n_blocks), strict=True)
        ),
        None,
    )
    for samples in (whole, blocked):
        part = samples.drawn(400, np.random.default_rng(0))
        assert part.weight is not None
        rows = part.X[:, 0].astype(int)
        assert weight[rows].min() > 0
        assert part.n_rows < 400
        assert part.total_weight == pytest.approx(total)
        assert part.weight[rows == 1500] == pytest.approx(total * 300 / 2198, rel=off)
        assert np.average(rows, weights=part.weight) == pytest.approx(
            np.average(X[:, 0], weights=weight), rel=off / 5
        )


@pytest.mark.parametrize("are_counts", [True, False])
@pytest.mark.parametrize("n_rows", [1, 8192, 8193, 40_000])
def test_points_fall_on_the_rows_that_all_weights_summed_at_once_tell(
    n_rows: int, are_counts: bool
) -> None:
    rng = np.random.default_rng(n_rows)
    weight = rng.integers(0, 4, n_rows).astype(float) if are_counts else rng.random(n_rows)
    weight[n_rows // 2 : n_rows // 2 + 3], weight[0], weight[n_rows * 9 // 10 + 1 :] = 0.0, 2.0, 0.0
    edges = np.cumsum(weight)
    at = np.sort(np.append(rng.uniform(0.0, edges[-1], 500), [0.0, *rng.choice(edges, 50)]))
    on = np.minimum(np.searchsorted(edges, at, side="right"), np.flatnonzero(weight)[-1])

    chosen, fallen = Points(at, 0.25).rows(weight)

    np.testing.assert_array_equal(np.repeat(chosen, (4.0 * fallen).astype(int)), on)


def test_points_find_their_rows_in_the_memory_of_a_portion() -> None:
    rng = np.random.default_rng(0)
    weight = rng.random(1_000_000)
    points = Points.drawn(1000, float(weight.sum()), rng, are_copies=False)
    tracemalloc.start()
    points.rows(weight)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6


def test_a_block_without_rows_is_passed_over() -> None:
    X = iris()
    nothing = X[:0]
    blocks = Blocks(lambda: [nothing, X[:60], nothing, X[60:], []])
    whole = fit(Blocks(lambda: [X[:60], X[60:]]), OPTIONS)
    np.testing.assert_array_equal(fit(blocks, OPTIONS).mixture.means, whole.mixture.means)


def test_blocks_want_a_function_that_reads_them() -> None:
    blocks: Any = [iris()]  # what a caller without types may hand over
    with pytest.raises(InvalidDataError, match="takes a function"):
        Blocks(blocks)
