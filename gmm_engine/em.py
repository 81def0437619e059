"""Expectation–maximisation as an iterator of immutable steps.

``em_steps`` is the algorithm (Dempster, Laird and Rubin 1977). When to stop is in
``convergence``, what to start from in ``initialization``, the fit around it all in ``fitting``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gmm_engine import kernels
from gmm_engine.acceleration import Accelerator
from gmm_engine.covariances import CovarianceFamily
from gmm_engine.errors import OutOfRangeError
from gmm_engine.mixture import Mixture
from gmm_engine.regularization import Regularization
from gmm_engine.samples import SampleSource
from gmm_engine.statistics import SufficientStatistics

NEGLIGIBLE_ROWS = 1e-8
"""A component that holds less than this many rows of average weight has collapsed."""


@dataclass(frozen=True, slots=True)
class EMStep:
    """A mixture on the way, with its own log-likelihood."""

    restart: int
    """Counts from 0."""
    iteration: int
    """EM steps taken; 0 is the start itself."""
    mixture: Mixture
    log_likelihood: float
    log_max_resp: float
    accelerated: bool = False
    """The step was longer than EM's own."""
    degenerate: tuple[int, ...] = ()
    """Components whose covariance is held up by the floor, or that hold no rows."""


def em_steps(
    samples: SampleSource,
    start: SufficientStatistics | Mixture | EMStep,
    family: type[CovarianceFamily],
    held_by: Regularization,
    *,
    restart: int = 0,
    accelerator: Accelerator | None = None,
) -> Iterator[EMStep]:
    """Yield the start and then one step after another, without end.

    Each step pairs a mixture with its own log-likelihood: the E-step that weighs the data by
    the mixture also prepares the next M-step, so that nothing is computed twice. With an
    ``accelerator`` a slow EM takes longer steps; the log-likelihood still never falls. From a
    step of an earlier iterator it goes on as that one would have.
    """
    iteration, accelerated = 0, False
    if isinstance(start, EMStep):
        mixture, iteration, accelerated = start.mixture, start.iteration, start.accelerated
        held = np.zeros(mixture.n_components, dtype=np.intp)
        held[list(start.degenerate)] = 1
    elif isinstance(start, Mixture):
        mixture, held = start, np.zeros(start.n_components, dtype=np.intp)
    else:
        mixture, held = Mixture.from_statistics(start, family, held_by)
    statistics = expectation(mixture, samples)
    negligible = NEGLIGIBLE_ROWS * samples.total_weight / samples.n_rows
    while True:
        lost = statistics.nk < negligible
        yield EMStep(
            restart=restart,
            iteration=iteration,
            mixture=mixture,
            log_likelihood=statistics.log_likelihood,
            log_max_resp=statistics.log_max_resp,
            accelerated=accelerated,
            degenerate=tuple(map(int, np.flatnonzero((held > 0) | lost))),
        )
        iteration += 1
        following, held = Mixture.from_statistics(statistics, family, held_by)
        leap = accelerator and accelerator.proposal(mixture, following, statistics.log_likelihood)
        leapt = leap and _expectation_if_better(leap, samples, statistics.log_likelihood)
        accelerated = leapt is not None
        if leap and leapt:
            mixture, statistics = leap, leapt
            continue
        if leap and accelerator:
            accelerator.reject()
        mixture, statistics = following, expectation(following, samples)


def expectation(mixture: Mixture, samples: SampleSource) -> SufficientStatistics:
    """Weigh the rows by ``mixture`` and sum up what the M-step needs: the E-step (Bishop 9.23)."""
    moments = kernels.expectation(mixture.prepared, samples.chunks())
    return SufficientStatistics.of_moments(mixture.family.form, mixture.means, moments)


def _expectation_if_better(
    mixture: Mixture, samples: SampleSource, log_likelihood: float
) -> SufficientStatistics | None:
    try:
        statistics = expectation(mixture, samples)
    except OutOfRangeError:  # a leap may land anywhere; the data itself is in range
        return None
    return statistics if statistics.log_likelihood > log_likelihood else None
