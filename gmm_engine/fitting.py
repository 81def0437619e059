"""The fit: what a caller may ask of it, the search for the best run, and what comes out."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count, islice
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmm_engine.acceleration import PLAIN_STEPS, Accelerator
from gmm_engine.blas import one_blas_thread
from gmm_engine.checkpoints import Checkpoints, FitState, RunState, resumed_accelerator
from gmm_engine.convergence import LimitEstimate, StopReason, Trail
from gmm_engine.coordinates import Coordinates, MappedSamples, Placed
from gmm_engine.covariances import COVARIANCE_FAMILIES, CovarianceFamily
from gmm_engine.criteria import Criteria
from gmm_engine.em import MOST_AT_ONCE, EMStep, em_steps
from gmm_engine.errors import DimensionMismatchError, InvalidParameterError, TooFewSamplesError
from gmm_engine.given import Given
from gmm_engine.initialization import INITIALIZERS, AsTheyCome, StartRows, from_assignments
from gmm_engine.mixture import Mixture
from gmm_engine.passage import Passage
from gmm_engine.regularization import DataScale, Regularization, regularization
from gmm_engine.samples import Blocks, Dataset, Samples, SampleSource, sample_source
from gmm_engine.statistics import SufficientStatistics
from gmm_engine.validation import (
    require_integer_at_least,
    require_kind,
    require_known,
    require_number_at_least,
    require_seed,
)

START_ROWS = 10_000
"""Starts are sought on at most this many rows, drawn at random."""
LEAST_START_ROWS, START_ROWS_A_MEAN = 4_000, 30
"""A portfolio makes do with 30 rows for each component and each of its features (and one more),
but no fewer than this."""
TRIAL_STEPS = 16
"""EM steps that each start of a portfolio gets before it is compared with the others."""
ENOUGH_ALIKE = 2
"""When so many different starts have reached the best height, no more are tried."""
FINAL_RUNS, FINAL_STEPS = 3, 48
"""So many distinct runs go on to so many steps before one is chosen."""
RECENT_STEPS, OUT_OF_REACH = 8, 10.0
"""A run goes no further that would have to gain ten times as much as in its last eight steps, or in
the second half of its way."""
JUDGED_STEPS = 4
"""Every so many steps a start is judged by that."""
SAME_HEIGHT = 1e-6
"""Runs whose mean log-likelihoods are closer than this are taken to climb the same hill."""
SAME_START = 1e-12
"""Starts whose log-likelihoods are closer than this, relatively, are the same."""
NEAR_HEIGHT, NEAR_MEANS, NEAR_WEIGHTS = 1e-3, 0.05, 0.02
"""So is one that is still on its way to a converged run: by its mean log-likelihood, its means in
units of the data's spread, and its weights, all closer than these."""

SAME_COMPONENT = 1e-9
"""Components whose means, in units of the data's spread, and covariances, relatively, are closer
than this are one and the same."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """Hyperparameters of a fit; checks itself, raising ``InvalidParameterError``."""

    n_components: int = 1
    covariance_type: str = "full"
    """A key of ``COVARIANCE_FAMILIES``."""
    tol: float = 1e-6
    """How far from its limit the mean log-likelihood (nats a row) may be estimated to be."""
    max_iter: int = 500
    """EM steps at the most, for each restart."""
    n_init: int = 1
    """Restarts; the best is kept."""
    init_params: str = "auto"
    """A key of ``INITIALIZERS``. Of large data a start looks at 10,000 rows drawn at random."""
    reg_covar: float | Literal["auto"] = "auto"
    """A number is added to every variance; ``"auto"`` is a floor relative to the data's scale."""
    random_state: int | None = None
    """Seed; None draws a new one."""

    def __post_init__(self) -> None:
        require_integer_at_least("n_components", self.n_components, 1)
        require_known("covariance_type", self.covariance_type, COVARIANCE_FAMILIES)
        require_number_at_least("tol", self.tol, 0.0)
        require_integer_at_least("max_iter", self.max_iter, 1)
        require_integer_at_least("n_init", self.n_init, 1)
        require_known("init_params", self.init_params, INITIALIZERS)
        if not isinstance(self.reg_covar, str) or self.reg_covar != "auto":
            require_number_at_least("reg_covar", self.reg_covar, 0.0)
        require_seed("random_state", self.random_state)


@dataclass(frozen=True, slots=True)
class FitWarning:
    code: str
    detail: str
    component: int | None = None
    """The component that it is about, which ``detail`` names."""

    def renumbered(self, order: NDArray[np.intp]) -> "FitWarning":
        """Return the warning for components in another order."""
        if self.component is None:
            return self
        place = int(np.flatnonzero(order == self.component)[0])
        detail = self.detail.replace(f"component {self.component} ", f"component {place} ", 1)
        return FitWarning(self.code, detail, place)


@dataclass(frozen=True, slots=True)
class FitResult:
    """A fitted mixture and how it was reached."""

    mixture: Mixture
    criteria: Criteria
    """Of the training data under the returned parameters."""
    log_likelihoods: NDArray[np.float64]  # (n_iter,)
    """After each EM step; the last belongs to the returned parameters."""
    n_iter: int
    stop_reason: StopReason
    warnings: tuple[FitWarning, ...] = ()
    trail: Trail = ()
    """The end of the way, that of earlier fits that this one continued included."""
    in_own: Placed | None = None
    """The mixture in the coordinates that the fit ran in, where they are not as given: mapped back
    and forth it would be rounded, and a fit that goes on would not take the same steps."""

    @property
    def converged(self) -> bool:
        return self.stop_reason is StopReason.CONVERGED

    def in_canonical_order(self) -> "FitResult":
        """Return the same with the components ordered by falling weight, then by mean."""
        order, own = canonical_order(self.mixture), self.in_own
        return replace(
            self,
            mixture=self.mixture.reordered(order),
            warnings=tuple(warning.renumbered(order) for warning in self.warnings),
            in_own=own and replace(own, mixture=own.mixture.reordered(order)),
        )

    @property
    def log_likelihood(self) -> float:
        return self.criteria.log_likelihood


StepCallback = Callable[[EMStep], None]
Ending = Callable[[], StopReason | None]
"""Tells between two steps why the fit has to end with what it has, if it has to."""
Start = Mixture | FitResult | Given | ArrayLike


def fit(
    X: ArrayLike | Blocks | Dataset,
    options: FitOptions,
    *,
    sample_weight: ArrayLike | None = None,
    start: Start | None = None,
    on_step: StepCallback | None = None,
    budget_seconds: float | None = None,
    should_end: Callable[[], bool] | None = None,
    checkpoints: Checkpoints | None = None,
) -> FitResult:
    """Fit a Gaussian mixture by maximum likelihood.

    Parameters
    ----------
    X : array_like of shape (n_samples, n_features), Blocks or Arrow dataset
    options : FitOptions
    sample_weight : array_like of shape (n_samples,), optional
        A row of weight w counts like w equal rows.
    start : Mixture, FitResult, Given or array_like, optional
        Where to start instead of ``options.init_params``: a mixture, labels (n_samples,) or
        responsibilities (n_samples, K), or the result of a fit that is to go on. There is one
        run then. Of what is ``Given`` in part, every restart finds the rest. The components keep
        the order of the start; without one they are ordered by falling weight, then by mean.
    on_step : callable, optional
        Called with every ``EMStep``; what it raises ends the fit and is passed on.
    budget_seconds : float, optional
        Wall time after which the best parameters so far are returned. What is under way then is
        finished first, and of large data at least one step is taken on all rows: two passes.
    should_end : callable, optional
        Asked after every step; once it says True the best parameters so far are returned. What it
        raises ends the fit and is passed on.
    checkpoints : Checkpoints, optional
        Keeps the state of the fit now and then, and gives the one to go on from: a fit that was
        cut off ends with the same bits as one that was not. A fit from a whole start keeps none.

    Returns
    -------
    FitResult

    Raises
    ------
    InvalidDataError
        One of its kinds, as ``validation.as_samples`` raises them; ``TooFewSamplesError`` for
        fewer rows than components.
    InvalidParameterError
        A start that does not fit the options, negative weights.
    SingularCovarianceError
        A covariance collapsed and ``reg_covar`` was too small to hold it.
    """
    began = time.monotonic()
    require_kind("options", options, FitOptions)
    if budget_seconds is not None:
        require_number_at_least("budget_seconds", budget_seconds, 0.0)
    samples = sample_source(X, sample_weight)
    _require_enough(samples, options)
    deadline = math.inf if budget_seconds is None else began + budget_seconds
    with one_blas_thread, Passage() as passage:
        return _fitted(
            samples,
            options,
            start,
            on_step=passage.through(on_step),
            ending=partial(_reason_to_end, deadline, passage.through(should_end)),
            checkpoints=checkpoints,
        )


def n_start_rows(options: FitOptions, n_features: int) -> int:
    """Return on how many rows starts are sought at the most."""
    if len(INITIALIZERS[options.init_params]) == 1:
        return START_ROWS
    wanted = START_ROWS_A_MEAN * options.n_components * (n_features + 1)
    return min(max(wanted, LEAST_START_ROWS), START_ROWS)


def _reason_to_end(deadline: float, should_end: Callable[[], bool] | None) -> StopReason | None:
    if time.monotonic() >= deadline:
        return StopReason.TIME_BUDGET
    return StopReason.CANCELLED if should_end is not None and should_end() else None


def _fitted(
    samples: SampleSource,
    options: FitOptions,
    start: Start | None,
    *,
    on_step: StepCallback | None,
    ending: Ending,
    checkpoints: Checkpoints | None,
) -> FitResult:
    given_scale = scale = DataScale.of(samples)
    has_correlations = COVARIANCE_FAMILIES[options.covariance_type].has_correlations
    is_to_be_round = has_correlations and options.reg_covar == "auto"
    own = Coordinates.of(samples, scale) if is_to_be_round else None
    if own is not None:
        samples, scale = own.mapped(samples), own.data_scale(scale)
    if isinstance(start, Given):
        start = start.as_whole(options.covariance_type) or start
    search = _Search(
        samples=samples,
        options=options,
        given=start if isinstance(start, Given) else None,
        scale=scale,
        own=own,
        given_scale=given_scale,
        held_by=regularization(options.reg_covar, scale),
        on_step=on_step,
        ending=ending,
        checkpoints=checkpoints,
    )
    if start is None or isinstance(start, Given):
        best = search.best_of_restarts()
    else:
        best = search.from_whole(start)
    last = search.as_given(best.last, samples.total_weight)
    raised = 0.0 if own is None else samples.total_weight * own.log_density
    result = FitResult(
        mixture=last.mixture.whole(),
        criteria=Criteria(
            n_samples=samples.total_weight,
            n_parameters=last.mixture.n_parameters,
            log_likelihood=last.log_likelihood,
            log_max_resp=last.log_max_resp,
        ),
        log_likelihoods=np.array(best.log_likelihoods) + raised,
        n_iter=last.iteration,
        stop_reason=best.stop_reason or StopReason.MAX_ITER,
        warnings=_warnings(best, scale, given_scale, options, own),
        trail=_raised(best.trail, raised),
        in_own=None if own is None else Placed(best.last.mixture.whole(), own),
    )
    return result.in_canonical_order() if start is None else result


def _raised(trail: Trail, by: float) -> Trail:
    return tuple((log_likelihood + by, accelerated) for log_likelihood, accelerated in trail)


class _Run:
    """One run of EM, which can be halted and carried on; also from the ``trail`` of another."""

    def __init__(
        self, steps: Iterator[EMStep], accelerator: Accelerator | None = None, trail: Trail = ()
    ) -> None:
        self._steps: Iterator[EMStep] | None = steps
        self._steps_again: Callable[[EMStep], Iterator[EMStep]] | None = None
        self.accelerator = accelerator
        self._limit = LimitEstimate()
        self.last = next(steps)
        self._way = [(self.last.log_likelihood, False)]
        self.stop_reason: StopReason | None = None
        self._limit.follow(trail, self.last.log_likelihood)

    @classmethod
    def resumed(
        cls, state: RunState, steps: Iterator[EMStep], accelerator: Accelerator | None = None
    ) -> Self:
        run = cls(steps, accelerator, state.way)
        run._way = list(state.way)
        run.stop_reason = state.stop_reason
        return run

    @property
    def state(self) -> RunState:
        return RunState(
            last=self.last,
            way=tuple(self._way),
            stop_reason=self.stop_reason,
            accelerator=None if self.accelerator is None else self.accelerator.to_arrays(),
        )

    @property
    def log_likelihoods(self) -> list[float]:
        return [log_likelihood for log_likelihood, _ in self._way[1:]]

    @property
    def trail(self) -> Trail:
        return self._limit.trail

    @property
    def has_converged(self) -> bool:
        return self.stop_reason is StopReason.CONVERGED

    @property
    def rank(self) -> tuple[bool, float]:
        """Healthy runs before degenerate ones, whose likelihood means nothing; then by it."""
        return not self.last.degenerate, self.last.log_likelihood

    @property
    def first(self) -> float:
        """The log-likelihood of the start."""
        return self._way[0][0]

    def put_aside(self, steps_again: Callable[[EMStep], Iterator[EMStep]]) -> None:
        """Keep no more than what it takes to go on, by steps that follow the last one."""
        self.last = replace(self.last, mixture=self.last.mixture.bare())
        self._steps, self._steps_again = None, steps_again

    def end(self) -> None:
        """Keep no more than where it came to."""
        self._steps = self._steps_again = self.accelerator = None

    def _next_step(self) -> EMStep:
        if self._steps is None:
            assert self._steps_again is not None  # noqa: S101 - it was put aside
            self._steps = self._steps_again(self.last)
        return next(self._steps)

    @property
    def outcome(self) -> "_Outcome":
        mixture = self.last.mixture
        return _Outcome(self.first, self.rank, self.has_converged, mixture.weights, mixture.means)

    def may_overtake(self, best: "_Run") -> bool:
        """Tell whether it might, at its pace of late, become better than ``best``."""
        if best.last.degenerate or len(self._way) <= JUDGED_STEPS:
            return True
        n_recent = min(RECENT_STEPS, len(self._way) // 2)
        gained = self.last.log_likelihood - self._way[-1 - n_recent][0]
        return best.last.log_likelihood - self.last.log_likelihood <= OUT_OF_REACH * gained

    def carry_on(
        self,
        n_steps: int,
        *,
        tolerance: float,
        ending: Ending,
        between_steps: Callable[["_Run"], None] = lambda _: None,
        gives_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take steps until ``n_steps`` in all are done, the limit is near or time is up."""
        while self.stop_reason is None and self.last.iteration < n_steps and not gives_up():
            self.last = self._next_step()
            self._way.append((self.last.log_likelihood, self.last.accelerated))
            self._limit.observe(self.last.log_likelihood, accelerated=self.last.accelerated)
            is_near = self._limit.is_within(tolerance)
            self.stop_reason = StopReason.CONVERGED if is_near else ending()
            if self.stop_reason is None:
                between_steps(self)


def _distances(
    a: NDArray[np.float64], b: NDArray[np.float64], metric: Literal["chebyshev", "euclidean"]
) -> NDArray[np.float64]:
    """Return how far each row of one table is from each of another."""
    from scipy.spatial.distance import cdist  # noqa: PLC0415 - a tenth of a second that no start waits for

    distances: NDArray[np.float64] = cdist(a, b, metric)
    return distances


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Where a trial began and how far it came: what other trials are compared with."""

    first: float
    """The log-likelihood of the start."""
    rank: tuple[bool, float]
    """``_Run.rank`` of its end."""
    has_converged: bool
    weights: NDArray[np.float64]  # (K,)
    means: NDArray[np.float64]  # (K, D)

    @property
    def is_healthy(self) -> bool:
        return self.rank[0]

    @property
    def log_likelihood(self) -> float:
        return self.rank[1]

    def begins_like(self, other: "_Outcome") -> bool:
        """Tell whether it is the other's start again, as different ways to seek one may find."""
        return math.isclose(self.first, other.first, rel_tol=SAME_START)


def _are_near(a: _Outcome, b: _Outcome, scale: DataScale) -> bool:
    """Tell whether each component has one of its own in the other mixture, near and as heavy."""
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - a third of a second that no start waits for

    moves = _distances(scale.whitened(a.means), scale.whitened(b.means), "euclidean")
    there, back = linear_sum_assignment(moves)
    return bool(
        moves[there, back].max() <= NEAR_MEANS
        and np.abs(a.weights[there] - b.weights[back]).max() <= NEAR_WEIGHTS
    )


def _best_distinct(runs: list[_Run], n_kept: int, apart: float) -> list[_Run]:
    """Return the best runs that differ in height, best first."""
    kept: list[_Run] = []
    for run in sorted(runs, key=lambda run: run.rank, reverse=True):
        heights = (other.last.log_likelihood for other in kept)
        if all(abs(run.last.log_likelihood - height) > apart for height in heights):
            kept.append(run)
    return kept[:n_kept]


@dataclass(frozen=True, slots=True)
class _Search:
    """The runs of one fit: what they share, and how the best is found."""

    samples: SampleSource
    options: FitOptions
    given: Given | None
    scale: DataScale
    own: Coordinates | None
    """The coordinates that the samples, and all runs, are in, where they are not as given."""
    given_scale: DataScale
    held_by: Regularization
    on_step: StepCallback | None
    ending: Ending
    checkpoints: Checkpoints | None

    @property
    def family(self) -> type[CovarianceFamily]:
        return COVARIANCE_FAMILIES[self.options.covariance_type]

    def as_given(self, step: EMStep, total_weight: float) -> EMStep:
        """Return a step on rows of this weight in the units that were given."""
        if self.own is None:
            return step
        return replace(
            step,
            mixture=self.own.to_given(step.mixture),
            log_likelihood=step.log_likelihood + total_weight * self.own.log_density,
        )

    def best_of_restarts(self) -> _Run:
        seeds = np.random.SeedSequence(self.options.random_state).spawn(self.options.n_init)
        state = None if self.checkpoints is None else self.checkpoints.last()
        best: _Run | None = None
        if state is not None:
            self._require_same_form(state.running.last.mixture, self.samples.n_features)
            if state.restart >= self.options.n_init:
                raise InvalidParameterError("state", "is of a fit with more restarts")
            if state.best is not None:
                best = _Run.resumed(state.best, iter([state.best.last]))
        for restart in range(0 if state is None else state.restart, self.options.n_init):
            rng = np.random.default_rng(seeds[restart])
            best = self._best_from(restart, rng, best, state)
            state = None
            if self.ending() is not None:
                break
        assert best is not None  # noqa: S101 - n_init is at least one
        return best

    def _best_from(
        self, restart: int, rng: np.random.Generator, best: _Run | None, state: FitState | None
    ) -> _Run | None:
        """Finish the most promising run; another one only where that ends degenerate."""
        runs, first = self._promising(restart, rng), 0
        if state is not None:
            first = state.number
            runs = chain([self._resumed(state.running)], islice(runs, first + 1, None))
        for number, promising in enumerate(runs, first):
            run = self._finished(promising, partial(self._keep, number, best))
            best = run if best is None else max(best, run, key=lambda run: run.rank)
            if not run.last.degenerate or self.ending() is not None:
                break
        return best

    def _keep(self, number: int, best: _Run | None, running: _Run) -> None:
        if self.checkpoints is not None and self.checkpoints.is_due():
            kept = None if best is None else best.state
            self.checkpoints.keep(FitState(number, running.state, kept))

    def _resumed(self, state: RunState) -> _Run:
        accelerator = resumed_accelerator(state, self.scale.floor.scale)
        last = state.last
        steps = self._reported_steps(self.samples, last, last.restart, last.run, accelerator)
        return _Run.resumed(state, steps, accelerator)

    def from_whole(self, start: Mixture | FitResult | ArrayLike) -> _Run:
        if isinstance(start, FitResult):
            trail = start.trail
            if self.own is not None:
                trail = _raised(trail, -self.samples.total_weight * self.own.log_density)
            mixture = self._in_own(start.mixture, start.in_own)
            return self._finished(self._begun(self.samples, mixture, restart=0, trail=trail))
        if isinstance(start, Mixture):
            return self._finished(self._begun(self.samples, self._in_own(start), restart=0))
        statistics = from_assignments(
            start, self._in_memory(), self.options.n_components, self.family.form
        )
        return self._finished(self._begun(self.samples, statistics, restart=0))

    def _in_own(self, start: Mixture, known: Placed | None = None) -> Mixture:
        """Return a start in the coordinates of the runs, if it has the form that is asked for."""
        self._require_same_form(start, len(self.given_scale.mean))
        if self.own is None:
            return start
        if known is not None and known.coordinates.is_same(self.own):
            return known.mixture
        return self.own.to_own(start)

    def _in_memory(self) -> Samples:
        samples = self.samples
        if isinstance(samples, MappedSamples) and isinstance(samples.source, Samples):
            return samples.copied()
        if not isinstance(samples, Samples):
            raise InvalidParameterError(
                "start",
                "can't be labels or responsibilities when the data comes in blocks; give a "
                "Mixture, a FitResult or Given parameters",
            )
        return samples

    def _promising(self, restart: int, rng: np.random.Generator) -> Iterator[_Run]:
        """Yield runs to be carried on, the most promising first.

        Starts are sought, and try a few steps, on part of the data if it is large.
        """
        n_rows = n_start_rows(self.options, self.samples.n_features)
        tried = self._starts(self.samples.drawn(n_rows, rng), restart, rng)
        if n_rows >= self.samples.n_copies:
            yield from tried
            return
        mixtures = deque(run.last.mixture for run in tried)
        del tried  # and the part with it
        for number in count(len(INITIALIZERS[self.options.init_params])):
            if not mixtures:
                return
            yield self._begun(self.samples, mixtures.popleft(), restart, number)

    def _starts(self, part: Samples, restart: int, rng: np.random.Generator) -> Iterator[_Run]:
        """Return the runs from each start; those of a portfolio after a few steps, best first."""
        initializers = INITIALIZERS[self.options.init_params]
        rows = StartRows(part, self.scale, self._as_they_come)
        begun = (
            self._begun(
                part,
                self._with_given(
                    initialize(rows, self.options.n_components, self.family.form, rng)
                ),
                restart,
                number,
                n_plain=FINAL_STEPS if len(initializers) > 1 else PLAIN_STEPS,
            )
            for number, initialize in enumerate(initializers)
        )
        return iter(self._ranked(begun, part)) if len(initializers) > 1 else begun

    @property
    def _as_they_come(self) -> AsTheyCome | None:
        return None if self.own is None else AsTheyCome(self.own.undo, self.given_scale)

    def _ranked(self, begun: Iterator[_Run], part: Samples) -> list[_Run]:
        """Let the starts try a few steps, and the best of them some more; best first."""
        apart = SAME_HEIGHT * part.total_weight
        outcomes: list[_Outcome] = []
        finalists: list[_Run] = []  # no others are kept: each holds as much as a mixture
        is_enough = False
        for run in begun:
            if any(run.outcome.begins_like(other) for other in outcomes):
                continue
            self._try(run, finalists, part)
            outcomes.append(run.outcome)
            finalists = _best_distinct([*finalists, run], FINAL_RUNS, apart)
            is_enough = self._are_enough(outcomes, part.total_weight)
            if is_enough or self.ending() is not None:
                break
        del run
        best = finalists[0]
        is_found = is_enough and best.has_converged
        for run in finalists if len(finalists) > 1 and not is_found else ():
            if run.may_overtake(best):
                self._carry_on(run, FINAL_STEPS, part.total_weight)
                self._put_aside(run, part)
                best = max(best, run, key=lambda run: run.rank)
        return sorted(finalists, key=lambda run: run.rank, reverse=True)

    def _put_aside(self, run: _Run, samples: Samples) -> None:
        """Let a run keep little while others are tried, where its mixtures are large."""
        K, D = run.last.mixture.means.shape
        if math.prod(self.family.shape(K, D)) > MOST_AT_ONCE:
            run.put_aside(partial(self._steps_after, samples, run.accelerator))

    def _try(self, run: _Run, best_others: list[_Run], part: Samples) -> None:
        """Let a start try a few steps; fewer if they lead nowhere and another one is healthy.

        Beside one that has converged it takes as many as it needs to come up to it, or to fail.
        """
        best = best_others[0] if best_others else run
        run.carry_on(
            min(FINAL_STEPS if best.has_converged else TRIAL_STEPS, self.options.max_iter),
            tolerance=self.options.tol * part.total_weight,
            ending=self.ending,
            gives_up=lambda: self._is_decided(run, best, part.total_weight),
        )
        self._put_aside(run, part)

    def _is_decided(self, run: _Run, best: _Run, n_samples: float) -> bool:
        """Tell whether it is for nothing that a start tries further beside a healthy ``best``."""
        if best.last.degenerate or run.last.degenerate:
            return run is not best and not best.last.degenerate
        if run.last.iteration % JUDGED_STEPS or run.last.log_likelihood >= best.last.log_likelihood:
            return False
        if not run.may_overtake(best):
            return True
        return self._climbs(run.outcome, best.outcome, n_samples)

    def _are_enough(self, outcomes: list[_Outcome], n_samples: float) -> bool:
        """Tell whether so many healthy runs climb the hill of the best that it is the highest."""
        best = max(outcomes, key=lambda outcome: outcome.rank)
        n_alike = sum(
            outcome.is_healthy and self._climbs(outcome, best, n_samples) for outcome in outcomes
        )
        return n_alike >= ENOUGH_ALIKE

    def _climbs(self, run: _Outcome, best: _Outcome, n_samples: float) -> bool:
        below = (best.log_likelihood - run.log_likelihood) / n_samples
        if below <= SAME_HEIGHT:
            return True
        is_near = best.has_converged and below <= NEAR_HEIGHT
        return is_near and _are_near(run, best, self.scale)

    def _with_given(self, start: SufficientStatistics) -> SufficientStatistics | Mixture:
        if self.given is None:
            return start
        found, _ = Mixture.from_statistics(start, self.family, self.held_by)
        if self.own is None:
            return self.given.in_place_of(found)
        return self.own.to_own(self.given.in_place_of(self.own.to_given(found)))

    def _begun(
        self,
        samples: SampleSource,
        start: SufficientStatistics | Mixture,
        restart: int,
        number: int = 0,
        *,
        trail: Trail = (),
        n_plain: int = PLAIN_STEPS,
    ) -> _Run:
        accelerator = (
            Accelerator(self.scale.floor.scale, n_plain) if self.options.tol > 0.0 else None
        )
        steps = self._reported_steps(samples, start, restart, number, accelerator)
        return _Run(steps, accelerator, trail)

    def _finished(self, run: _Run, between_steps: Callable[[_Run], None] = lambda _: None) -> _Run:
        self._carry_on(run, self.options.max_iter, self.samples.total_weight, between_steps)
        run.end()
        return run

    def _carry_on(
        self,
        run: _Run,
        n_steps: int,
        n_samples: float,
        between_steps: Callable[[_Run], None] = lambda _: None,
    ) -> None:
        run.carry_on(
            min(n_steps, self.options.max_iter),
            tolerance=self.options.tol * n_samples,
            ending=self.ending,
            between_steps=between_steps,
        )

    def _reported_steps(
        self,
        samples: SampleSource,
        start: SufficientStatistics | Mixture | EMStep,
        restart: int,
        run: int,
        accelerator: Accelerator | None,
    ) -> Iterator[EMStep]:
        return self._reported(
            em_steps(
                samples,
                start,
                self.family,
                self.held_by,
                restart=restart,
                run=run,
                accelerator=accelerator,
            ),
            samples,
        )

    def _steps_after(
        self, samples: SampleSource, accelerator: Accelerator | None, step: EMStep
    ) -> Iterator[EMStep]:
        """Return the steps that follow one which has been reported."""
        steps = em_steps(
            samples,
            step,
            self.family,
            self.held_by,
            restart=step.restart,
            run=step.run,
            accelerator=accelerator,
        )
        next(steps)
        return self._reported(steps, samples)

    def _reported(self, steps: Iterator[EMStep], samples: SampleSource) -> Iterator[EMStep]:
        total_weight = samples.total_weight
        for step in steps:
            if self.on_step is not None:
                self.on_step(self.as_given(step, total_weight))
            yield step

    def _require_same_form(self, start: Mixture, n_features: int) -> None:
        if start.n_features != n_features:
            raise DimensionMismatchError(
                f"the start has {start.n_features} features, X has {n_features}"
            )
        wanted = (self.options.n_components, self.options.covariance_type)
        if (start.n_components, start.covariance_type) != wanted:
            raise InvalidParameterError(
                "start",
                f"has {start.n_components} components of type {start.covariance_type}; the "
                f"options ask for {wanted[0]} of type {wanted[1]}",
            )


def _require_enough(samples: SampleSource, options: FitOptions) -> None:
    if samples.n_positive < options.n_components:
        raise TooFewSamplesError(
            f"{samples.n_positive} rows (of a weight that counts) can't make "
            f"{options.n_components} components; lower n_components or send more rows"
        )


def canonical_order(mixture: Mixture) -> NDArray[np.intp]:
    """Order by falling weight, then by rising mean, feature by feature."""
    return np.lexsort((*mixture.means.T[::-1], -mixture.weights))


def _warnings(
    run: _Run,
    scale: DataScale,
    given_scale: DataScale,
    options: FitOptions,
    own: Coordinates | None,
) -> tuple[FitWarning, ...]:
    warnings = []
    if run.stop_reason is None and options.tol > 0:
        warnings.append(
            FitWarning(
                "not_converged",
                f"the fit stopped after max_iter={options.max_iter} steps; raise max_iter or tol",
            )
        )
    has_correlations = run.last.mixture.family.has_correlations
    n_flat = given_scale.floor.n_flat if own is None else own.n_flat
    warnings.extend(data_warnings(given_scale, n_flat, has_correlations=has_correlations))
    warnings.extend(
        FitWarning(
            "degenerate_component",
            f"component {component} has next to no spread in some direction, measured by that of "
            "all the data: it holds too few distinct rows, or outliers stretch the measure; lower "
            "n_components, raise n_init, give reg_covar as a number, or leave outliers out",
            component,
        )
        for component in run.last.degenerate
    )
    warnings.extend(
        FitWarning(
            "narrow_component",
            f"component {component} is so narrow in some direction, beside all of the data, that "
            "it is held at a millionth of that spread: groups or outliers lie that far apart; fit "
            "the groups by themselves, leave outliers out, or give reg_covar as a number",
            component,
        )
        for component in run.last.narrow
    )
    warnings.extend(
        FitWarning(
            "coincident_components",
            f"component {component} is the same as another: they tell nothing apart; the data has "
            "fewer groups, or rows repeated so often that a component on them would have no "
            "spread; lower n_components, or give reg_covar as a number",
            component,
        )
        for component in _coincident(run.last.mixture, scale)
    )
    return tuple(warnings)


def data_warnings(scale: DataScale, n_flat: int, *, has_correlations: bool) -> list[FitWarning]:
    """Return what is to be said of the data itself, for a family with correlations or without."""
    warnings = []
    if scale.constant_features:
        named = ", ".join(map(str, scale.constant_features))
        warnings.append(
            FitWarning(
                "constant_feature",
                f"features {named} do not vary; they tell nothing apart and make the "
                "log-likelihood depend on the variance floor; leave them out",
            )
        )
    n_collinear = n_flat - len(scale.constant_features)
    if n_collinear > 0 and has_correlations:
        warnings.append(
            FitWarning(
                "collinear_features",
                f"the data is flat in {n_collinear} directions; the log-likelihood depends "
                "on the variance floor; leave out redundant features or use 'diag'",
            )
        )
    return warnings


def _coincident(mixture: Mixture, scale: DataScale) -> list[int]:
    """Return the components that are, as far as can be told, one that comes before them."""
    units = scale.floor.scale
    means = (mixture.means - mixture.means[0]) / units
    first, second = np.nonzero(
        np.triu(_distances(means, means, "chebyshev") <= SAME_COMPONENT, k=1)
    )
    covariances = mixture.to_dense()
    return sorted(
        {
            int(b)
            for a, b in zip(first, second, strict=True)
            if np.allclose(covariances[a], covariances[b], rtol=SAME_COMPONENT, atol=0.0)
        }
    )
