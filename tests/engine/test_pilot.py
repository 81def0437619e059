"""A pilot of a fit: what it sees it tells, and what it can't see it foretells within bounds."""

from collections.abc import Callable
from itertools import count

import numpy as np
import pytest
from numpy.typing import NDArray

from gmm_engine import COVARIANCE_FAMILIES, INITIALIZERS, EMStep, FitOptions, fit
from gmm_engine.costs import Costs, expected_work, most_work
from gmm_engine.fitting import START_ROWS
from gmm_engine.pilot import COUNTED, ENDED, FORETOLD, PILOT_SECONDS, TYPICAL, forecast


def costs(seconds_of_a_row: float = 1e-9) -> Costs:
    of_a_step = np.zeros(9)
    of_a_step[0], of_a_step[5] = 1e-6, seconds_of_a_row
    return Costs(
        of_a_fit=1e-6,
        of_a_step=dict.fromkeys(COVARIANCE_FAMILIES, of_a_step),
        of_a_start=dict.fromkeys(INITIALIZERS, (1e-6, 1e-12)),
    )


def clock(seconds: float) -> Callable[[], float]:
    """Return a clock that goes on by so much whenever it is looked at."""
    ticks = count()
    return lambda: seconds * next(ticks)


def overlapping(n_rows: int) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(size=(n_rows, 2))


def steps_of(X: NDArray[np.float64], options: FitOptions) -> list[EMStep]:
    steps: list[EMStep] = []
    fit(X, options, on_step=steps.append)
    return steps


@pytest.mark.parametrize("init_params", ["kmeans", "auto"])
@pytest.mark.parametrize("n_rows", [300, START_ROWS + 1])
def test_a_fit_that_ends_in_the_pilot_is_known(n_rows: int, init_params: str) -> None:
    options = FitOptions(
        n_components=2, init_params=init_params, max_iter=60, n_init=2, random_state=0
    )
    X = overlapping(n_rows)

    found = forecast(X, options, costs=costs(), clock=clock(1e-9))

    taken = steps_of(X, options)
    assert found.work.part_steps + found.work.steps == len(taken)
    assert found.work.weighed_rows == sum(step.n_rows for step in taken)
    assert found.uncertainty == ENDED
    assert 0 < found.seconds <= min(PILOT_SECONDS, found.seconds_at_most)


@pytest.mark.parametrize("n_rows", [300, 6000, START_ROWS + 1])
def test_steps_that_are_given_are_counted_to_the_end(n_rows: int) -> None:
    options = FitOptions(
        n_components=4, init_params="kmeans", tol=0.0, max_iter=400, n_init=3, random_state=0
    )

    found = forecast(overlapping(n_rows), options, costs=costs(), clock=clock(0.002))

    assert found.work == most_work(options, n_rows, 2)
    assert found.seconds == pytest.approx(found.seconds_at_most)
    assert found.seconds > PILOT_SECONDS
    assert found.uncertainty == COUNTED


@pytest.mark.parametrize("init_params", ["kmeans", "auto"])
@pytest.mark.parametrize("n_rows", [300, 6000, START_ROWS + 1])
@pytest.mark.parametrize("seconds", [0.0005, 0.005, 0.05])
def test_what_is_cut_off_is_foretold_to_go_on_but_not_beyond_the_most(
    n_rows: int, init_params: str, seconds: float
) -> None:
    options = FitOptions(
        n_components=8, init_params=init_params, tol=1e-14, max_iter=500, random_state=0
    )

    found = forecast(overlapping(n_rows), options, costs=costs(), clock=clock(seconds))

    most = most_work(options, n_rows, 2)
    assert found.uncertainty == FORETOLD
    assert 1 <= found.work.part_steps <= most.part_steps
    assert found.work.steps <= most.steps
    assert PILOT_SECONDS < found.seconds <= found.seconds_at_most


def test_rows_whose_steps_are_long_are_piloted_in_part() -> None:
    options = FitOptions(n_components=2, init_params="kmeans", random_state=0)
    X = overlapping(40_000)

    found = forecast(X, options, costs=costs(seconds_of_a_row=1e-6), clock=clock(1e-9))

    assert found.work.rows == len(X)
    assert found.work.steps <= most_work(options, len(X), 2).steps
    assert found.uncertainty == FORETOLD


def test_where_one_step_is_too_long_the_costs_must_do_and_nothing_is_begun() -> None:
    options = FitOptions(n_components=3)

    def never() -> float:
        raise AssertionError("the pilot was begun")

    found = forecast(overlapping(1000), options, costs=costs(seconds_of_a_row=1.0), clock=never)

    assert found.work == expected_work(options, 1000, 2)
    assert found.uncertainty == TYPICAL


def test_a_fit_that_breaks_off_in_the_pilot_is_told_by_its_costs() -> None:
    options = FitOptions(n_components=2, reg_covar=0.0, init_params="random_from_data")
    X = np.repeat([[0.0, 0.0], [1.0, 1.0]], 10, axis=0)

    assert forecast(X, options, costs=costs()).work == expected_work(options, 20, 2)
