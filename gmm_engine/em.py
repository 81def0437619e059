"""Expectation–maximisation: the iteration, when it stops, and the fit around it.

``em_steps`` is the algorithm (Dempster, Laird and Rubin 1977) as an iterator; ``fit`` chooses
starts, runs it, and keeps the best.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmm_engine import kernels
from gmm_engine.covariances import COVARIANCE_FAMILIES, CovarianceFamily
from gmm_engine.criteria import Criteria
from gmm_engine.errors import DimensionMismatchError, InvalidParameterError, TooFewSamplesError
from gmm_engine.given import Given
from gmm_engine.initialization import INITIALIZERS, from_assignments
from gmm_engine.mixture import Mixture
from gmm_engine.regularization import DataScale, Regularization, regularization
from gmm_engine.samples import Samples
from gmm_engine.statistics import SufficientStatistics
from gmm_engine.validation import (
    require_integer_at_least,
    require_known,
    require_number_at_least,
)

SHORT_RUN_STEPS = 10
"""EM steps that each start of a portfolio gets before the best is carried on."""
NEGLIGIBLE_ROWS = 1e-8
"""A component that holds less than this many rows' weight has collapsed."""
SAME_DATA = 1e-12
"""Log-likelihoods of one mixture closer than this, relatively, belong to the same data."""


class StopReason(StrEnum):
    CONVERGED = "converged"
    MAX_ITER = "max_iter"
    TIME_BUDGET = "time_budget"


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
    """A key of ``INITIALIZERS``."""
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
        if self.reg_covar != "auto":
            require_number_at_least("reg_covar", self.reg_covar, 0.0)
        if self.random_state is not None:
            require_integer_at_least("random_state", self.random_state, 0)


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
    degenerate: tuple[int, ...] = ()
    """Components whose covariance is held up by the floor, or that hold no rows."""


@dataclass(frozen=True, slots=True)
class FitWarning:
    code: str
    detail: str


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
    trail: tuple[float, ...] = ()
    """The last few log-likelihoods, those of earlier fits that this one continued included."""

    @property
    def converged(self) -> bool:
        return self.stop_reason is StopReason.CONVERGED

    @property
    def log_likelihood(self) -> float:
        return self.criteria.log_likelihood


StepCallback = Callable[[EMStep], None]
Start = Mixture | FitResult | Given | ArrayLike


def em_steps(
    samples: Samples,
    start: SufficientStatistics | Mixture,
    family: type[CovarianceFamily],
    held_by: Regularization,
    *,
    restart: int = 0,
) -> Iterator[EMStep]:
    """Yield the start and then one EM step after another, without end.

    Each step pairs a mixture with its own log-likelihood: the E-step that weighs the data by
    the mixture also prepares the next M-step, so that nothing is computed twice.
    """
    held = np.zeros(start.n_components, dtype=np.intp)
    if isinstance(start, Mixture):
        mixture = start
    else:
        mixture, held = Mixture.from_statistics(start, family, held_by)
    iteration = 0
    while True:
        statistics = expectation(mixture, samples)
        lost = statistics.nk < NEGLIGIBLE_ROWS
        yield EMStep(
            restart=restart,
            iteration=iteration,
            mixture=mixture,
            log_likelihood=statistics.log_likelihood,
            log_max_resp=statistics.log_max_resp,
            degenerate=tuple(map(int, np.flatnonzero((held > 0) | lost))),
        )
        mixture, held = Mixture.from_statistics(statistics, family, held_by)
        iteration += 1


def expectation(mixture: Mixture, samples: Samples) -> SufficientStatistics:
    """Weigh the rows by ``mixture`` and sum up what the M-step needs: the E-step (Bishop 9.23)."""
    moments = kernels.expectation(mixture.prepared, samples.X, samples.weight)
    form = mixture.family.form
    return SufficientStatistics(
        form=form,
        centers=mixture.means,
        nk=moments.nk,
        first=moments.first,
        scatter=form.from_pass(moments.scatter),
        log_likelihood=moments.log_likelihood,
        log_max_resp=moments.log_max_resp,
    )


def fit(
    X: ArrayLike,
    options: FitOptions,
    *,
    sample_weight: ArrayLike | None = None,
    start: Start | None = None,
    on_step: StepCallback | None = None,
    budget_seconds: float | None = None,
) -> FitResult:
    """Fit a Gaussian mixture by maximum likelihood.

    Parameters
    ----------
    X : array_like of shape (n_samples, n_features)
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
        Wall time after which the best parameters so far are returned.

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
    samples = Samples.checked(X, sample_weight)
    _require_enough(samples, options)
    scale = DataScale.of(samples)
    search = _Search(
        samples=samples,
        options=options,
        given=start if isinstance(start, Given) else None,
        scale=scale,
        held_by=regularization(options.reg_covar, scale),
        on_step=on_step,
        deadline=math.inf if budget_seconds is None else began + budget_seconds,
    )
    if isinstance(start, Given):
        start = start.as_whole(options.covariance_type) or start
    if start is None or isinstance(start, Given):
        best = search.best_of_restarts()
    else:
        best = search.from_whole(start)
    mixture = best.last.mixture
    if start is None:
        mixture = mixture.reordered(_canonical_order(mixture))
    return FitResult(
        mixture=mixture,
        criteria=Criteria(
            n_samples=samples.total_weight,
            n_parameters=mixture.n_parameters,
            log_likelihood=best.last.log_likelihood,
            log_max_resp=best.last.log_max_resp,
        ),
        log_likelihoods=np.array(best.log_likelihoods),
        n_iter=best.last.iteration,
        stop_reason=best.stop_reason or StopReason.MAX_ITER,
        warnings=_warnings(best, scale, options),
        trail=best.trail,
    )


class _Run:
    """One run of EM, which can be halted and carried on.

    ``earlier`` is the trail of a run that this one continues. It counts towards the limit if
    the data is the same, which the start's own log-likelihood tells.
    """

    def __init__(self, steps: Iterator[EMStep], earlier: Sequence[float] = ()) -> None:
        self._steps = steps
        self._limit = _LimitEstimate()
        self.last = next(steps)
        self.log_likelihoods: list[float] = []
        self.stop_reason: StopReason | None = None
        if earlier and math.isclose(earlier[-1], self.last.log_likelihood, rel_tol=SAME_DATA):
            for log_likelihood in earlier[:-1]:
                self._limit.observe(log_likelihood)
        self._limit.observe(self.last.log_likelihood)

    @property
    def trail(self) -> tuple[float, ...]:
        return self._limit.trail

    @property
    def rank(self) -> tuple[bool, float]:
        """Healthy runs before degenerate ones, whose likelihood means nothing; then by it."""
        return not self.last.degenerate, self.last.log_likelihood

    def carry_on(self, n_steps: int, *, tolerance: float, deadline: float) -> None:
        """Take steps until ``n_steps`` in all are done, the limit is near or time is up."""
        while self.stop_reason is None and self.last.iteration < n_steps:
            self.last = next(self._steps)
            self.log_likelihoods.append(self.last.log_likelihood)
            self._limit.observe(self.last.log_likelihood)
            if self._limit.is_within(tolerance):
                self.stop_reason = StopReason.CONVERGED
            elif time.monotonic() >= deadline:
                self.stop_reason = StopReason.TIME_BUDGET


@dataclass(frozen=True, slots=True)
class _Search:
    """The runs of one fit: what they share, and how the best is found."""

    samples: Samples
    options: FitOptions
    given: Given | None
    scale: DataScale
    held_by: Regularization
    on_step: StepCallback | None
    deadline: float

    @property
    def family(self) -> type[CovarianceFamily]:
        return COVARIANCE_FAMILIES[self.options.covariance_type]

    def best_of_restarts(self) -> _Run:
        seeds = np.random.SeedSequence(self.options.random_state).spawn(self.options.n_init)
        runs = (
            self._finished(self._most_promising(restart, np.random.default_rng(seed)))
            for restart, seed in enumerate(seeds)
        )
        best = next(runs)
        for run in self._in_time(runs, best):
            best = max(best, run, key=lambda run: run.rank)
        return best

    @staticmethod
    def _in_time(runs: Iterator[_Run], first: _Run) -> Iterator[_Run]:
        run: _Run | None = first
        while run is not None and run.stop_reason is not StopReason.TIME_BUDGET:
            run = next(runs, None)
            if run is not None:
                yield run

    def from_whole(self, start: Mixture | FitResult | ArrayLike) -> _Run:
        if isinstance(start, FitResult):
            self._require_same_form(start.mixture)
            steps = self._reported_steps(start.mixture, restart=0)
            return self._finished(_Run(steps, start.trail))
        if isinstance(start, Mixture):
            self._require_same_form(start)
            return self._finished(self._begun(start, restart=0))
        statistics = from_assignments(
            start, self.samples, self.options.n_components, self.family.form
        )
        return self._finished(self._begun(statistics, restart=0))

    def _most_promising(self, restart: int, rng: np.random.Generator) -> _Run:
        """Begin from every start of the portfolio; return the run that got furthest."""
        candidates = []
        for initialize in INITIALIZERS[self.options.init_params]:
            start = initialize(
                self.samples, self.scale, self.options.n_components, self.family.form, rng
            )
            candidates.append(self._begun(self._with_given(start), restart))
        if len(candidates) > 1:
            for run in candidates:
                self._carried_on(run, min(SHORT_RUN_STEPS, self.options.max_iter))
        return max(candidates, key=lambda run: run.rank)

    def _with_given(self, start: SufficientStatistics) -> SufficientStatistics | Mixture:
        if self.given is None:
            return start
        found, _ = Mixture.from_statistics(start, self.family, self.held_by)
        return self.given.in_place_of(found)

    def _begun(self, start: SufficientStatistics | Mixture, restart: int) -> _Run:
        return _Run(self._reported_steps(start, restart))

    def _finished(self, run: _Run) -> _Run:
        return self._carried_on(run, self.options.max_iter)

    def _carried_on(self, run: _Run, n_steps: int) -> _Run:
        tolerance = self.options.tol * self.samples.total_weight
        run.carry_on(n_steps, tolerance=tolerance, deadline=self.deadline)
        return run

    def _reported_steps(
        self, start: SufficientStatistics | Mixture, restart: int
    ) -> Iterator[EMStep]:
        for step in em_steps(self.samples, start, self.family, self.held_by, restart=restart):
            if self.on_step is not None:
                self.on_step(step)
            yield step

    def _require_same_form(self, start: Mixture) -> None:
        if start.n_features != self.samples.n_features:
            raise DimensionMismatchError(
                f"the start has {start.n_features} features, X has {self.samples.n_features}"
            )
        wanted = (self.options.n_components, self.options.covariance_type)
        if (start.n_components, start.covariance_type) != wanted:
            raise InvalidParameterError(
                "start",
                f"has {start.n_components} components of type {start.covariance_type}; the "
                f"options ask for {wanted[0]} of type {wanted[1]}",
            )


class _LimitEstimate:
    """How far the log-likelihood still is from its limit, by Aitken's extrapolation.

    EM converges linearly: gains shrink by a rate a, and what is left after a gain δ is about
    δ·a/(1 − a) (McLachlan and Peel 2000, section 2.11). The larger of the last two rates is
    used, so that one lucky step does not end a run.
    """

    def __init__(self) -> None:
        self.trail: tuple[float, ...] = ()

    def observe(self, log_likelihood: float) -> None:
        self.trail = (*self.trail[-3:], log_likelihood)

    def is_within(self, tolerance: float) -> bool:
        """Tell whether the estimated rest is below ``tolerance``; never for a tolerance of 0."""
        if tolerance == 0.0 or len(self.trail) < 3:
            return False
        gains = np.diff(self.trail)
        rounding = 4.0 * np.finfo(float).eps * abs(self.trail[-1])
        if abs(gains[-1]) <= rounding:
            return True
        if (gains <= rounding).any():
            return False
        rate = float(max(gains[1:] / gains[:-1]))
        return rate < 1.0 and float(gains[-1]) * rate / (1.0 - rate) <= tolerance


def _require_enough(samples: Samples, options: FitOptions) -> None:
    if samples.n_positive < options.n_components:
        raise TooFewSamplesError(
            f"{samples.n_positive} rows (of positive weight) can't make "
            f"{options.n_components} components; lower n_components or send more rows"
        )


def _canonical_order(mixture: Mixture) -> NDArray[np.intp]:
    """Order by falling weight, then by rising mean, feature by feature."""
    return np.lexsort((*mixture.means.T[::-1], -mixture.weights))


def _warnings(run: _Run, scale: DataScale, options: FitOptions) -> tuple[FitWarning, ...]:
    warnings = []
    if run.stop_reason is None and options.tol > 0:
        warnings.append(
            FitWarning(
                "not_converged",
                f"the fit stopped after max_iter={options.max_iter} steps; raise max_iter or tol",
            )
        )
    if scale.constant_features:
        named = ", ".join(map(str, scale.constant_features))
        warnings.append(
            FitWarning(
                "constant_feature",
                f"features {named} do not vary; they tell nothing apart and make the "
                "log-likelihood depend on the variance floor; leave them out",
            )
        )
    elif scale.floor.n_flat:
        warnings.append(
            FitWarning(
                "collinear_features",
                f"the data is flat in {scale.floor.n_flat} directions; the log-likelihood depends "
                "on the variance floor; leave out redundant features or use 'diag'",
            )
        )
    warnings.extend(
        FitWarning(
            "degenerate_component",
            f"component {component} has collapsed onto too few distinct rows; lower "
            "n_components, raise reg_covar or n_init",
        )
        for component in run.last.degenerate
    )
    return tuple(warnings)
