"""Expectation–maximisation as an iterator of immutable steps.

``em_steps`` is the algorithm (Dempster, Laird and Rubin 1977). When to stop is in
``convergence``, what to start from in ``initialization``, the fit around it all in ``fitting``.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gmm_engine import kernels
from gmm_engine.acceleration import Accelerator
from gmm_engine.covariances import CovarianceFamily
from gmm_engine.errors import OutOfRangeError, SingularCovarianceError
from gmm_engine.mixture import Mixture
from gmm_engine.narrowness import narrow_components
from gmm_engine.regularization import Regularization
from gmm_engine.samples import Samples, SampleSource
from gmm_engine.statistics import SufficientStatistics

NEGLIGIBLE_ROWS = 1e-8
"""A component that holds less than this many rows of average weight has collapsed."""

FIRST_AT_ONCE, AT_ONCE = 4, 16
"""Steps that are taken in one compiled call, where a pass is too short for threads: few at first,
since a run that begins may soon end, and then as many as have been taken before."""
MOST_VAIN = 6
"""While covariances have to be held up, which no compiled step does, it is looked ahead less and
less often: in the end once in 2**6 steps."""
MOST_AT_ONCE = 20_000
"""Numbers in the covariances at most for that; each step keeps its own."""


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
    """Components that have collapsed: they hold next to nothing, or rows that hardly differ, and
    the floor holds their covariance up."""
    narrow: tuple[int, ...] = ()
    """Clusters that are so narrow beside all of the data that their covariance is held up."""
    n_rows: int = 0
    """Rows that the log-likelihood is of; starts may be tried on a part. 0 in a kept state."""
    run: int = 0
    """Of the restart, counts from 0: the starts that are tried, then those that go on on all rows
    where the starts were tried on a part. A run may go on after others."""


def em_steps(
    samples: SampleSource,
    start: SufficientStatistics | Mixture | EMStep,
    family: type[CovarianceFamily],
    held_by: Regularization,
    *,
    restart: int = 0,
    run: int = 0,
    accelerator: Accelerator | None = None,
) -> Iterator[EMStep]:
    """Yield the start and then one step after another, without end.

    Each step pairs a mixture with its own log-likelihood: the E-step that weighs the data by
    the mixture also prepares the next M-step, so that nothing is computed twice. With an
    ``accelerator`` a slow EM takes longer steps; the log-likelihood still never falls. From a
    step of an earlier iterator it goes on as that one would have.
    """
    iteration, accelerated = 0, False
    way = _Way(samples, family, held_by)
    if isinstance(start, EMStep):
        iteration, accelerated = start.iteration, start.accelerated
        held = np.zeros(start.mixture.n_components, dtype=np.intp)
        held[[*start.degenerate, *start.narrow]] = 1
        way.begin(start.mixture, held)
    elif isinstance(start, Mixture):
        way.begin(start, np.zeros(start.n_components, dtype=np.intp))
    else:
        way.begin_by(start)
    del start  # it is as large as a mixture
    while True:
        here = way.here
        yield EMStep(
            restart=restart,
            iteration=iteration,
            mixture=here.mixture,
            log_likelihood=here.log_likelihood,
            log_max_resp=here.log_max_resp,
            accelerated=accelerated,
            degenerate=here.degenerate,
            narrow=here.narrow,
            n_rows=samples.n_rows,
            run=run,
        )
        iteration += 1
        if accelerator is None:
            way.look(AT_ONCE)
            accelerated = False
        else:
            way.look(accelerator.n_plain_ahead, leaps=accelerator.may_leap)
            accelerated = way.leap(accelerator)
        if not accelerated:
            way.step()


@dataclass(frozen=True, slots=True)
class _Place:
    """A mixture with what the E-step says of it."""

    mixture: Mixture
    log_likelihood: float
    log_max_resp: float
    degenerate: tuple[int, ...]
    narrow: tuple[int, ...] = ()


@dataclass(slots=True)
class _Following:
    """What the M-step has found."""

    mixture: Mixture
    held: NDArray[np.intp]
    """By component, in how many directions its covariance is held up."""
    prepared: kernels.Prepared | None = None
    """Laid out for its pass already, or None."""


class _Way:
    """Where a run stands and what comes next; a few steps ahead at once where rows are few."""

    here: _Place
    _statistics: SufficientStatistics | None
    """The sums that the next mixture is made of: those by ``here``, or by the last one ahead."""

    def __init__(
        self, samples: SampleSource, family: type[CovarianceFamily], held_by: Regularization
    ) -> None:
        self._samples, self._family, self._held_by = samples, family, held_by
        self._negligible = NEGLIGIBLE_ROWS * samples.total_weight / samples.n_rows
        self._ahead: deque[_Place] = deque()
        self._n_looked = 0
        self._n_vain = self._n_to_wait = 0
        """Looks in a row that found no step, and steps until the next look: twice as many each."""
        self._next: _Following | None = None

    def begin(self, mixture: Mixture, held: NDArray[np.intp]) -> None:
        """Stand at a mixture."""
        self._few_rows = self._samples_if_few(*mixture.means.shape)
        self._next = _Following(mixture, held)
        del mixture
        self._weigh_next()

    def begin_by(self, start: SufficientStatistics) -> None:
        """Stand at the mixture that these statistics make."""
        self._few_rows = self._samples_if_few(*start.centers.shape)
        if self._few_rows is not None:
            self._statistics = start
            self._look_ahead(1 + FIRST_AT_ONCE, self._few_rows)
        if self._ahead:
            self.here = self._ahead.popleft()
        else:
            self.begin(*Mixture.from_statistics(start, self._family, self._held_by))

    def look(self, n_plain: int, *, leaps: bool = False) -> None:
        """Find EM's next mixture.

        ``n_plain`` steps are likely to be taken one after another, or, if ``leaps``, none.
        """
        if not self._ahead and n_plain and self._few_rows is not None and self._is_to_look():
            n_steps = min(n_plain, AT_ONCE, max(self._n_looked, FIRST_AT_ONCE))
            self._look_ahead(n_steps, self._few_rows)
        if not self._ahead:
            found = _Following(*Mixture.from_statistics(self._sums, self._family, self._held_by))
            self._statistics = None
            if found.mixture.family.is_large:
                found.prepared = None if leaps else found.mixture.laid_out()
                found.mixture = found.mixture.bare()
            self._next = found

    @property
    def following(self) -> Mixture:
        """What ``look`` has found."""
        if self._ahead:
            return self._ahead[0].mixture
        assert self._next is not None  # noqa: S101 - it was looked for
        return self._next.mixture

    @property
    def _sums(self) -> SufficientStatistics:
        assert self._statistics is not None  # noqa: S101 - a mixture is made of them once
        return self._statistics

    def _is_to_look(self) -> bool:
        self._n_to_wait -= 1
        return self._n_to_wait < 0

    def step(self) -> None:
        """Go to what ``following`` has returned."""
        if self._ahead:
            self.here = self._ahead.popleft()
        elif self._next is not None:
            self._weigh_next()

    def leap(self, accelerator: Accelerator) -> bool:
        """Go where the accelerator proposes if that is better; tell whether the run went there."""
        mixture = accelerator.proposal(self.here.mixture, self.following, self.here.log_likelihood)
        if mixture is None:
            return False
        if self._next is not None:
            self._next.prepared = None
        statistics = None
        try:
            mixture = mixture.held_up(self._held_by)
            prepared = mixture.laid_out()
            mixture = self._kept(mixture)
            statistics = expectation(mixture, self._samples, prepared)
        except (OutOfRangeError, SingularCovarianceError):
            pass  # a leap may land anywhere; the data itself is in range
        if statistics is None or not statistics.log_likelihood > self.here.log_likelihood:
            accelerator.reject()
            return False
        self._ahead.clear()
        self._next = None
        self._go_to(mixture, np.zeros(mixture.n_components, dtype=np.bool_), statistics)
        return True

    def _weigh_next(self) -> None:
        """Go to the mixture that was found, and weigh the rows by it.

        Little of a large one is left while that lasts but what the pass reads.
        """
        assert self._next is not None  # noqa: S101 - it was found
        found, self._next = self._next, None
        prepared = found.prepared or found.mixture.laid_out()
        mixture, is_held = self._kept(found.mixture), found.held > 0
        del found
        statistics = expectation(mixture, self._samples, prepared)
        is_narrow = None
        if is_held.any():
            is_narrow = narrow_components(
                self._family,
                prepared,
                self._samples,
                statistics,
                is_held=is_held,
                rounding=self._held_by.least_spread,
            )
        self._go_to(mixture, is_held, statistics, is_narrow)

    def _kept(self, mixture: Mixture) -> Mixture:
        """Return what is kept of a mixture where threads share a pass."""
        return mixture.bare() if self._few_rows is None else mixture

    def _go_to(
        self,
        mixture: Mixture,
        is_held: NDArray[np.bool_],
        statistics: SufficientStatistics,
        is_narrow: NDArray[np.bool_] | None = None,
    ) -> None:
        self._statistics = statistics
        is_lost = statistics.nk < self._negligible
        narrow = () if is_narrow is None else _indices(is_narrow & ~is_lost)
        is_degenerate = is_held | is_lost
        if narrow:
            is_degenerate[list(narrow)] = False
        self.here = _Place(
            mixture,
            statistics.log_likelihood,
            statistics.log_max_resp,
            _indices(is_degenerate),
            narrow,
        )

    def _look_ahead(self, n_steps: int, samples: Samples) -> None:
        now = self._sums
        steps = kernels.plain_steps(
            n_steps,
            samples.X,
            samples.weight,
            start=kernels.Sums(now.centers, now.nk, now.first, now.scatter),
            like=self._layout(*now.centers.shape),
            is_common=self._family.is_common,
            bounds=self._family.bounds(self._held_by),
        )
        self._n_looked += steps.n_taken
        self._n_vain = 0 if steps.n_taken else min(self._n_vain + 1, MOST_VAIN)
        self._n_to_wait = 2**self._n_vain - 1
        is_lost = steps.nk[: steps.n_taken] < self._negligible
        log_likelihood, log_max_resp = steps.log_likelihood.tolist(), steps.log_max_resp.tolist()
        for row, any_lost in enumerate(np.asarray(is_lost.any(axis=1))):
            place = _Place(
                Mixture.of_step(steps, row, self._family),
                log_likelihood[row],
                log_max_resp[row],
                _indices(is_lost[row]) if any_lost else (),
            )
            self._ahead.append(place)
        if steps.n_taken:
            self._statistics = replace(
                now,
                centers=steps.sums.centers,
                nk=steps.sums.nk,
                first=steps.sums.first,
                scatter=steps.sums.scatter,
                log_likelihood=self._ahead[-1].log_likelihood,
                log_max_resp=self._ahead[-1].log_max_resp,
            )

    def _samples_if_few(self, n_components: int, n_features: int) -> Samples | None:
        """Return the rows, as doubles, if threads would not share a pass over them."""
        samples = self._samples
        size = math.prod(self._family.shape(n_components, n_features))
        if not isinstance(samples, Samples) or size > MOST_AT_ONCE:
            return None
        if not kernels.is_one_range(self._layout(n_components, n_features), samples.n_rows):
            return None
        return Samples(np.ascontiguousarray(samples.X, dtype=np.float64), samples.weight)

    def _layout(self, n_components: int, n_features: int) -> kernels.Prepared:
        form = self._family.form
        return kernels.layout(
            n_components, n_features, is_dense=form.is_dense, is_shared=form.is_shared
        )


def _indices(of: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(map(int, np.flatnonzero(of)))


def expectation(
    mixture: Mixture, samples: SampleSource, prepared: kernels.Prepared | None = None
) -> SufficientStatistics:
    """Weigh the rows by ``mixture`` and sum up what the M-step needs: the E-step (Bishop 9.23).

    ``prepared`` is the mixture laid out, if it has been already.
    """
    moments = kernels.expectation(prepared or mixture.laid_out(), samples.chunks())
    return SufficientStatistics.of_moments(mixture.family.form, mixture.means, moments)
