"""What a fit tells of its way: which run a step is of, and how long it may still take."""

from collections import defaultdict
from itertools import count, pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from gmm_engine import FitOptions
from service.domain import fit_task
from service.domain.fit_task import FitTask, run_fit_task
from service.domain.records import JobProgress
from tests.support.data import iris


def progress_of(options: FitOptions, X: object = None) -> list[JobProgress]:
    told: list[JobProgress] = []
    task = FitTask("job", options, np.asarray(iris() if X is None else X))
    run_fit_task(task, on_progress=told.append, is_cancelled=lambda: False)
    return told


@pytest.mark.parametrize("n_init", [1, 2])
def test_within_a_run_the_progress_goes_forward(n_init: int) -> None:
    runs = defaultdict(list)
    for progress in progress_of(FitOptions(5, n_init=n_init, random_state=0)):
        runs[progress.restart, progress.run].append(progress)

    assert {restart for restart, _ in runs} == set(range(n_init))
    assert len(runs) > 2 * n_init
    for steps in runs.values():
        assert [step.iteration for step in steps] == list(range(len(steps)))
        for before, after in pairwise(steps):
            slack = 1e-9 * abs(before.log_likelihood)
            assert after.log_likelihood >= before.log_likelihood - slack
            gained = after.log_likelihood - before.log_likelihood
            assert after.delta is None or after.delta == pytest.approx(gained, abs=1e-12)


def test_a_run_on_all_rows_is_another_one_than_that_on_a_part_of_them() -> None:
    X = np.random.default_rng(0).normal(size=(12_000, 2))
    told = progress_of(FitOptions(2, init_params="kmeans", max_iter=5, tol=0.0, random_state=0), X)

    assert [(progress.run, progress.iteration) for progress in told] == [
        (0, 0),
        *((1, iteration) for iteration in range(6)),
    ]


@pytest.mark.parametrize("init_params", ["auto", "kmeans"])
@pytest.mark.parametrize("n_init", [1, 3])
@pytest.mark.parametrize("max_iter", [5, 16, 100])
def test_the_time_left_is_enough_for_every_run_to_come(
    monkeypatch: pytest.MonkeyPatch, init_params: str, n_init: int, max_iter: int
) -> None:
    """By a clock that goes on by a second with every step."""
    seconds = count()
    clock = SimpleNamespace(monotonic=lambda: float(next(seconds)))
    monkeypatch.setattr(fit_task, "time", clock)
    options = FitOptions(
        5, init_params=init_params, n_init=n_init, max_iter=max_iter, tol=0.0, random_state=0
    )
    told = progress_of(options)

    for number, progress in enumerate(told):
        steps_to_come = sum(1 for after in told[number + 1 :] if after.iteration)
        if progress.eta_seconds is not None:
            assert progress.eta_seconds >= steps_to_come
    assert sum(progress.eta_seconds is None for progress in told) <= 1
