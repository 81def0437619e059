"""What a fit will take, before it is begun: work and time.

What a step costs is measured on this machine, once (``Costs.measured``). How many steps a fit
takes is up to the data: expected are those of a typical search, at most those that the options
allow. With ``tol=0`` a run takes ``max_iter`` steps, and the two differ by the starts alone.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gmm_engine.blas import one_blas_thread
from gmm_engine.covariances import COVARIANCE_FAMILIES
from gmm_engine.em import AT_ONCE, EMStep, em_steps
from gmm_engine.fitting import (
    FINAL_RUNS,
    FINAL_STEPS,
    TRIAL_STEPS,
    FitOptions,
    fit,
    n_start_rows,
)
from gmm_engine.initialization import INITIALIZERS, StartRows
from gmm_engine.kernels import thread_count
from gmm_engine.kernels.ranges import row_ranges
from gmm_engine.regularization import DataScale, regularization
from gmm_engine.samples import Samples

TYPICAL_STEPS = 30
"""Of a run that is carried on until it converges."""
EASY_COMPONENTS = 3
"""Up to so many, the starts of a portfolio often agree early, and the others are not tried: two of
ten on groups that lie apart, all of them where groups overlap. Taken is what is between."""
EASY_STARTS, EASY_FINALISTS = 5, 2
HARD_STARTS, HARD_FINALISTS = 8, FINAL_RUNS

TIMED_STEPS, TIMED_RUNS = AT_ONCE, 2
"""Of each size; the faster run counts, for the other was disturbed."""
SIZES = (
    (64, 2, 2),
    (64, 2, 16),
    (64, 16, 4),
    (64, 32, 8),
    (4096, 2, 4),
    (4096, 8, 4),
    (4096, 8, 16),
    (2048, 32, 4),
    (8192, 24, 4),
    (65_536, 2, 2),
    (32_768, 8, 2),
)
"""Rows, features and components that a step is timed with."""
START_SIZES = ((300, 2, 2), (2000, 8, 8))
"""The same for starts."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Work:
    """Passes over rows: over those that starts are sought on, and over all."""

    starts: int
    part_rows: int
    part_steps: int
    rows: int
    steps: int

    @property
    def weighed_rows(self) -> int:
        """Rows that are weighed by all components, each time counted."""
        return self.part_rows * self.part_steps + self.rows * self.steps


def expected_work(options: FitOptions, n_rows: int, n_features: int) -> Work:
    """Return what a typical search does."""
    n_kinds = len(INITIALIZERS[options.init_params])
    n_steps = options.max_iter if options.tol == 0.0 else min(TYPICAL_STEPS, options.max_iter)
    if options.n_components > EASY_COMPONENTS:
        n_starts, n_finalists = HARD_STARTS, HARD_FINALISTS
    else:
        n_starts, n_finalists = EASY_STARTS, EASY_FINALISTS
    n_starts = min(n_starts, n_kinds)
    return _work(
        options,
        n_rows,
        n_features,
        n_starts=n_starts,
        n_finalists=n_finalists,
        n_steps=n_steps,
    )


def most_work(options: FitOptions, n_rows: int, n_features: int) -> Work:
    """Return what a search does that never converges."""
    return _work(
        options,
        n_rows,
        n_features,
        n_starts=len(INITIALIZERS[options.init_params]),
        n_finalists=FINAL_RUNS,
        n_steps=options.max_iter,
    )


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds that steps and starts take here; grows with rows, features and components."""

    of_a_fit: float
    """Seconds beside steps and starts: checks, the scale of the data, criteria."""
    of_a_step: Mapping[str, NDArray[np.float64]]
    """By family: seconds for each of ``_terms``."""
    of_a_start: Mapping[str, tuple[float, float]]
    """By the name of initialisers: seconds, and those for each number of rows × components."""

    @classmethod
    def measured(cls, clock: Clock = time.perf_counter) -> "Costs":
        """Time some steps and starts; takes about a second."""
        with one_blas_thread:
            return cls(
                of_a_fit=_seconds_of_fit(clock),
                of_a_step={family: _step_costs(family, clock) for family in COVARIANCE_FAMILIES},
                of_a_start={name: _start_costs(name, clock) for name in INITIALIZERS},
            )

    def seconds(self, work: Work, options: FitOptions, n_features: int) -> float:
        of_starts = work.starts * self.seconds_of_start(work.part_rows, options, n_features)
        of_part = work.part_steps * self.seconds_of_step(work.part_rows, options, n_features)
        of_all = work.steps * self.seconds_of_step(work.rows, options, n_features)
        return self.of_a_fit + of_part + of_all + of_starts

    def seconds_of_start(self, n_rows: int, options: FitOptions, n_features: int) -> float:
        fixed, for_each = self.of_a_start[options.init_params]
        return fixed + for_each * n_rows * options.n_components * n_features

    def seconds_of_step(self, n_rows: int, options: FitOptions, n_features: int) -> float:
        costs = self.of_a_step[options.covariance_type]
        family = options.covariance_type
        return float(_terms(family, n_rows, n_features, options.n_components) @ costs)


def _work(
    options: FitOptions,
    n_rows: int,
    n_features: int,
    *,
    n_starts: int,
    n_finalists: int,
    n_steps: int,
) -> Work:
    """Follow the search: starts on a part, some steps each, more for the best, one to the end."""
    trial = min(TRIAL_STEPS, n_steps) if n_starts > 1 else 0
    final = max(0, min(FINAL_STEPS, n_steps) - trial) if n_starts > 1 else 0
    part_steps = n_starts * (1 + trial) + min(n_finalists, n_starts) * final
    part_rows = min(n_rows, n_start_rows(options, n_features))
    is_part = n_rows > part_rows
    n_left = n_steps + 1 if is_part else n_steps - trial - final
    return Work(
        starts=n_starts * options.n_init,
        part_rows=part_rows,
        part_steps=part_steps * options.n_init,
        rows=n_rows,
        steps=n_left * options.n_init,
    )


def _terms(
    covariance_type: str, n_rows: int, n_features: int, n_components: int
) -> NDArray[np.float64]:
    """Return what the seconds of a step grow with: itself, its M-step, its pass over the rows."""
    D, K = n_features, n_components
    is_dense = COVARIANCE_FAMILIES[covariance_type].has_correlations
    n_ranges = len(row_ranges(n_rows, K, D, is_dense=is_dense))
    rows = n_rows / min(n_ranges, thread_count())
    is_many = float(n_ranges > 1)  # else several steps are taken in one compiled call
    of_all_rows = [rows, rows * K, rows * K * D, rows * K * D**2]
    return np.array([1.0, is_many, K, K * D, K * D**3, *of_all_rows])


def _seconds_of_fit(clock: Clock) -> float:
    """Return what a fit takes that is next to nothing but its beginning and its end."""
    samples, _ = _drawn(*SIZES[0][:2])
    options = FitOptions(
        n_components=2, init_params="random_from_data", max_iter=1, tol=0.0, random_state=0
    )
    return min(_timed(partial(fit, samples.X, options), clock) for _ in range(TIMED_RUNS))


def _step_costs(covariance_type: str, clock: Clock) -> NDArray[np.float64]:
    terms = np.array([_terms(covariance_type, *size) for size in SIZES])
    seconds = np.array([_seconds_of_step(covariance_type, *size, clock) for size in SIZES])
    # Relative errors are what matters: a step of 100 µs as much as one of 10 ms.
    from scipy.optimize import nnls  # noqa: PLC0415 - a third of a second that no start waits for

    costs, _ = nnls(terms / seconds[:, np.newaxis], np.ones(len(seconds)))
    return np.asarray(costs)


def _seconds_of_step(covariance_type: str, n: int, D: int, K: int, clock: Clock) -> float:
    samples, scale = _drawn(n, D)
    family = COVARIANCE_FAMILIES[covariance_type]
    (initialize,) = INITIALIZERS["random_from_data"]
    start = initialize(StartRows(samples, scale), K, family.form, np.random.default_rng(0))
    seconds = []
    for _ in range(TIMED_RUNS):
        steps = em_steps(samples, start, family, regularization("auto", scale))
        next(steps)
        seconds.append(_timed(partial(_take, steps, TIMED_STEPS), clock) / TIMED_STEPS)
    return min(seconds)


def _take(steps: Iterator[EMStep], count: int) -> None:
    for _ in range(count):
        next(steps)


def _start_costs(name: str, clock: Clock) -> tuple[float, float]:
    small, large = (_seconds_of_start(name, *size, clock) for size in START_SIZES)
    n_small, n_large = (n * D * K for n, D, K in START_SIZES)
    for_each = max(0.0, large - small) / (n_large - n_small)
    return max(0.0, small - for_each * n_small), for_each


def _seconds_of_start(name: str, n: int, D: int, K: int, clock: Clock) -> float:
    """Return what one start takes, on the average over those of the name."""
    samples, scale = _drawn(n, D)
    form = COVARIANCE_FAMILIES["full"].form
    rows, rng = StartRows(samples, scale), np.random.default_rng(0)
    seconds = [
        _timed(partial(initialize, rows, K, form, rng), clock) for initialize in INITIALIZERS[name]
    ]
    return float(np.mean(seconds))


def _drawn(n: int, D: int) -> tuple[Samples, DataScale]:
    samples = Samples.checked(np.random.default_rng(0).standard_normal((n, D)))
    return samples, DataScale.of(samples)


def _timed(call: Callable[[], object], clock: Clock) -> float:
    begun = clock()
    call()
    return max(clock() - begun, 1e-9)
