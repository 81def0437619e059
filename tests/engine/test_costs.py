"""What a fit is expected to take: counted like the search counts, timed on this machine."""

import time
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from gmm_engine import COVARIANCE_FAMILIES, INITIALIZERS, EMStep, FitOptions, fit
from gmm_engine.costs import Costs, expected_work, most_work
from gmm_engine.fitting import START_ROWS
from gmm_engine.memory import memory_bytes
from gmm_engine.pilot import forecast


@pytest.fixture(scope="module")
def costs() -> Costs:
    ticks = iter(range(10**9))
    return Costs.measured(lambda: 0.001 * next(ticks))


def steps_of(X: np.ndarray, options: FitOptions) -> Iterator[EMStep]:
    steps: list[EMStep] = []
    fit(X, options, on_step=steps.append)
    yield from steps


@pytest.mark.parametrize("n_init", [1, 3])
@pytest.mark.parametrize("n_rows", [200, START_ROWS + 1])
def test_a_search_by_one_kind_of_start_is_counted_exactly(n_rows: int, n_init: int) -> None:
    X = np.random.default_rng(0).normal(size=(n_rows, 2))
    options = FitOptions(
        n_components=4, init_params="kmeans", tol=0.0, max_iter=7, n_init=n_init, random_state=0
    )

    n_taken = len(list(steps_of(X, options)))

    for work in (expected_work(options, n_rows, 2), most_work(options, n_rows, 2)):
        assert work.part_steps + work.steps == n_taken
        assert work.weighed_rows == work.part_rows * work.part_steps + n_rows * work.steps


@pytest.mark.parametrize("max_iter", [1, 5, 20, 60])
def test_no_search_takes_more_than_the_most(max_iter: int) -> None:
    X = np.random.default_rng(0).normal(size=(300, 2))
    options = FitOptions(n_components=6, tol=0.0, max_iter=max_iter, random_state=0)

    n_taken = len(list(steps_of(X, options)))

    most, expected = most_work(options, 300, 2), expected_work(options, 300, 2)
    assert n_taken <= most.part_steps + most.steps
    assert expected.weighed_rows <= most.weighed_rows


def test_a_fit_that_converges_is_expected_to_take_no_more_steps_than_it_may() -> None:
    few = FitOptions(n_components=4, init_params="kmeans", max_iter=3)

    assert expected_work(few, 100, 2) == most_work(few, 100, 2)


@pytest.mark.parametrize("init_params", INITIALIZERS)
@pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
def test_more_work_never_costs_less(costs: Costs, covariance_type: str, init_params: str) -> None:
    small = FitOptions(
        n_components=2, covariance_type=covariance_type, init_params=init_params, max_iter=30
    )
    large = FitOptions(
        n_components=9, covariance_type=covariance_type, init_params=init_params, max_iter=300
    )

    few = costs.seconds(expected_work(small, 1000, 3), small, 3)
    many = costs.seconds(most_work(large, 50_000, 30), large, 30)

    assert 0.0 < few <= many


@pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
@pytest.mark.parametrize("init_params", ["kmeans", "auto", "random"])
@pytest.mark.parametrize("size", [(1000, 24, 10), (30_000, 4, 3)])
def test_the_arrays_of_a_fit_take_about_the_memory_estimated(
    costs: Costs, covariance_type: str, init_params: str, size: tuple[int, int, int]
) -> None:
    n_rows, n_features, n_components = size
    options = FitOptions(
        n_components=n_components,
        covariance_type=covariance_type,
        init_params=init_params,
        max_iter=20,
        random_state=0,
    )
    X = np.random.default_rng(0).normal(size=(n_rows, n_features))
    work = forecast(X, options, costs=costs, clock=lambda: 0.0).work
    tracemalloc.start()
    fit(X, options)
    n_bytes = X.nbytes + tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert n_bytes / 2 < memory_bytes(options, n_rows, n_features, work) < 2 * n_bytes


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_the_arrays_of_large_mixtures_take_about_the_memory_estimated(
    costs: Costs, covariance_type: str
) -> None:
    options = FitOptions(
        n_components=9, covariance_type=covariance_type, max_iter=12, random_state=0
    )
    X = np.random.default_rng(0).normal(size=(3000, 100))
    work = forecast(X, options, costs=costs, clock=lambda: 0.0).work
    tracemalloc.start()
    fit(X, options)
    n_bytes = X.nbytes + tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert n_bytes / 2 < memory_bytes(options, len(X), X.shape[1], work) < 2 * n_bytes


def test_more_rows_take_more_memory() -> None:
    options = FitOptions(n_components=5, init_params="kmeans")

    n_bytes = memory_bytes(options, 10_000, 4)

    assert memory_bytes(options, 20_000, 4) - n_bytes >= 8 * 10_000 * 4


@pytest.mark.slow
def test_a_fit_takes_about_as_long_as_estimated() -> None:
    """Wider than a factor of two: other work on the machine is measured along."""
    options = FitOptions(n_components=8, init_params="kmeans", tol=0.0, max_iter=100)
    X = np.random.default_rng(0).normal(size=(20_000, 8))
    measured = Costs.measured(time.process_time)
    begun = time.process_time()
    fit(X, options)
    seconds = time.process_time() - begun

    assert (
        seconds / 6 < measured.seconds(expected_work(options, len(X), 8), options, 8) < 6 * seconds
    )
