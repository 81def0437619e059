"""What a worker of a runner does: one fit or selection, in plain values.

Imports the engine and records only.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gmm_engine import (
    Candidate,
    Checkpoints,
    EMStep,
    FitOptions,
    FitResult,
    Grid,
    Selection,
    StopReason,
    fit,
    ranked,
    select,
    value_of,
)
from gmm_engine.fitting import FINAL_RUNS, FINAL_STEPS, TRIAL_STEPS
from gmm_engine.initialization import INITIALIZERS
from gmm_engine.preprocessing import AS_THEY_COME, MappedMixture, Preprocessing, Transform
from gmm_engine.sweep import Spread, one_by_one
from service.domain.records import (
    CandidateFigures,
    CandidateRecord,
    FitWarningRecord,
    JobFailure,
    JobProgress,
    Leader,
    Leaderboard,
    SelectionPlan,
    SelectionRecord,
)

MAX_CANDIDATE_WARNINGS = 4
"""A candidate in a table tells so many of its warnings; there may be one for every component."""


class FitCancelled(Exception):
    """Raised between two EM steps when the fit was asked to stop."""


@dataclass(frozen=True, slots=True)
class FitTask:
    job_id: str
    options: FitOptions
    X: NDArray[np.float64]  # (n_samples, n_features)
    sample_weight: NDArray[np.float64] | None = None  # (n_samples,)
    budget_seconds: float | None = None
    """Wall time after which the best parameters so far are the result."""
    plan: SelectionPlan | None = None
    """With one, a selection: every candidate is fitted, the best is the result."""
    preprocessing: Preprocessing = AS_THEY_COME
    """What the rows go through first, as it is measured on them."""

    def mapped(self) -> "tuple[FitTask, Transform | None]":
        """Return the task over rows as the mixture sees them, and what maps them."""
        if self.preprocessing.is_empty:
            return self, None
        transform = Transform.of(self.preprocessing, self.X, self.sample_weight)
        return replace(self, X=transform.apply(self.X), preprocessing=AS_THEY_COME), transform


@dataclass(frozen=True, slots=True)
class FitOutcome:
    result: FitResult
    selection: SelectionRecord | None = None
    """The table that the result is the best of."""

    def over(self, transform: Transform | None) -> "FitOutcome":
        """Return the same for rows that are mapped first."""
        if transform is None:
            return self
        whole = MappedMixture.over(transform, self.result.mixture)
        return replace(self, result=replace(self.result, mixture=whole))


def run_fit_task(
    task: FitTask,
    *,
    on_progress: Callable[[JobProgress], None],
    is_cancelled: Callable[[], bool],
    should_end: Callable[[], bool] = lambda: False,
    checkpoints: Checkpoints | None = None,
    seconds_before: float = 0.0,
    spread: Spread = one_by_one,
) -> FitOutcome:
    """Fit, reporting every EM step; raises ``FitCancelled`` or an engine error.

    Once it ``should_end`` the result is the best so far. ``spread`` shares a selection's tasks.
    With ``checkpoints`` from where the fit was cut off, after ``seconds_before``; a selection
    begins anew.
    """
    reporter = _Reporter(task, on_progress, is_cancelled)
    task, transform = task.mapped()
    if task.plan is not None:
        return _selected(task, task.plan, reporter, should_end, spread).over(transform)
    budget_seconds = task.budget_seconds
    result = fit(
        task.X,
        task.options,
        sample_weight=task.sample_weight,
        on_step=reporter.on_step,
        budget_seconds=budget_seconds and max(0.0, budget_seconds - seconds_before),
        should_end=should_end,
        checkpoints=checkpoints,
    )
    return FitOutcome(result).over(transform)


def digest_of(X: NDArray[np.float64], sample_weight: NDArray[np.float64] | None) -> str:
    """Return what tells these rows from others."""
    digest = hashlib.sha256(repr(X.shape).encode())
    digest.update(X.data)
    if sample_weight is not None:
        digest.update(sample_weight.data)
    return digest.hexdigest()


def _selected(
    task: FitTask,
    plan: SelectionPlan,
    reporter: "_Reporter",
    should_end: Callable[[], bool],
    spread: Spread,
) -> FitOutcome:
    selection = select(
        task.X,
        Grid(plan.n_components, plan.covariance_types),
        task.options,
        criterion=plan.criterion,
        n_folds=plan.n_folds,
        sample_weight=task.sample_weight,
        on_candidate=reporter.on_candidate,
        on_step=reporter.on_step,
        budget_seconds=task.budget_seconds,
        should_end=should_end,
        spread=spread,
    )
    result = selection.best.result
    if result is None:
        raise AssertionError("what is ranked has a result")
    if not selection.is_complete:  # the best of what there was time for has not won
        ending = StopReason.CANCELLED if should_end() else StopReason.TIME_BUDGET
        result = replace(result, stop_reason=ending)
    return FitOutcome(result, _record_of(selection, plan))


class _Reporter:
    """Turns what the engine tells into the progress of the job."""

    def __init__(
        self,
        task: FitTask,
        on_progress: Callable[[JobProgress], None],
        is_cancelled: Callable[[], bool],
    ) -> None:
        self._options = task.options
        self._plan = task.plan
        self._on_progress = on_progress
        self._is_cancelled = is_cancelled
        self._clock = _Clock(task.options, len(task.X))
        self._heights: dict[tuple[int, int], float] = {}
        """Of every run after its last step, for the next."""
        self._last: JobProgress | None = None
        self._found: dict[object, Candidate] = {}
        self._leaderboard = None if task.plan is None else Leaderboard(task.plan.n_candidates)

    def on_step(self, step: EMStep) -> None:
        if self._is_cancelled():
            raise FitCancelled
        self._last = self._progress_of(step)
        self._on_progress(self._last)
        if step.iteration:
            self._heights[step.restart, step.run] = step.log_likelihood

    def on_candidate(self, candidate: Candidate) -> None:
        if self._plan is not None:
            self._found[candidate.key] = candidate
            self._leaderboard = _leaderboard_of(self._found, self._plan)
            if self._last is not None:
                self._on_progress(replace(self._last, leaderboard=self._leaderboard))

    def _progress_of(self, step: EMStep) -> JobProgress:
        options = self._options
        if step.iteration == 0:  # of another candidate, perhaps
            self._heights.pop((step.restart, step.run), None)
        delta = step.log_likelihood - self._heights.get((step.restart, step.run), math.nan)
        seconds_left = self._clock.seconds_left(step)
        return JobProgress(
            restart=step.restart,
            run=step.run,
            n_init=options.n_init,
            iteration=step.iteration,
            max_iter=options.max_iter,
            log_likelihood=step.log_likelihood,
            delta=delta if math.isfinite(delta) else None,
            eta_seconds=None if self._plan else seconds_left,
            leaderboard=self._leaderboard,
        )


class _Clock:
    """Tells how long a fit may still take, were every step taken that its options allow."""

    def __init__(self, options: FitOptions, n_rows: int) -> None:
        self._options = options
        self._n_rows = n_rows
        n_starts = len(INITIALIZERS[options.init_params])
        self._n_trials = n_starts if n_starts > 1 else 0
        self._begun = time.monotonic()
        self._rows_done = 0
        """Each counted with every step that was taken here."""
        self._place = (0, 0)
        """The last restart and run that was begun."""

    def seconds_left(self, step: EMStep) -> float | None:
        self._place = max(self._place, (step.restart, step.run))
        self._rows_done += step.n_rows if step.iteration else 0
        if not self._rows_done:
            return None
        elapsed_seconds = time.monotonic() - self._begun
        return elapsed_seconds / self._rows_done * self._rows_left(step)

    def _rows_left(self, step: EMStep) -> int:
        restart, run = self._place
        is_trial = run < self._n_trials and step.iteration <= FINAL_STEPS
        part_rows = step.n_rows if run < self._n_trials else self._n_rows
        restarts_left = self._options.n_init - restart - 1
        left = restarts_left * self._rows_of_search(self._n_trials, part_rows)
        if is_trial:
            return left + self._rows_of_search(self._n_trials - run - 1, part_rows)
        return left + (self._options.max_iter - step.iteration) * step.n_rows

    def _rows_of_search(self, n_trials: int, part_rows: int) -> int:
        """Return those of so many trials, of the finalists and of the run to the end."""
        max_iter = self._options.max_iter
        trial, final = min(TRIAL_STEPS, max_iter), min(FINAL_STEPS, max_iter)
        steps = n_trials * trial + (FINAL_RUNS - 1) * (final - trial) if self._n_trials else 0
        return steps * part_rows + max_iter * self._n_rows


def _leaderboard_of(found: dict[object, Candidate], plan: SelectionPlan) -> Leaderboard:
    leaders = [
        Leader(
            n_components=candidate.key.n_components,
            covariance_type=candidate.key.covariance_type,
            value=value_of(candidate, plan.criterion),
            log_likelihood=candidate.result.log_likelihood,
        )
        for candidate in ranked(found.values(), plan.criterion)
        if candidate.result is not None
    ]
    return Leaderboard(plan.n_candidates, leaders)


def _record_of(selection: Selection, plan: SelectionPlan) -> SelectionRecord:
    ranks = {candidate.key: rank for rank, candidate in enumerate(selection.ranked, start=1)}
    return SelectionRecord(
        plan=plan,
        candidates=[
            CandidateRecord(
                n_components=candidate.key.n_components,
                covariance_type=candidate.key.covariance_type,
                rank=ranks.get(candidate.key),
                value=value_of(candidate, plan.criterion),
                origin=candidate.origin.value,
                figures=_figures_of(candidate),
                failure=_failure_of(candidate),
            )
            for candidate in selection.candidates
        ],
        is_complete=selection.is_complete,
    )


def _failure_of(candidate: Candidate) -> JobFailure | None:
    error = candidate.failure
    return None if error is None else JobFailure(error.code, str(error))


def _figures_of(candidate: Candidate) -> CandidateFigures | None:
    result, held_out = candidate.result, candidate.held_out
    if result is None:
        return None
    criteria = result.criteria
    return CandidateFigures(
        n_parameters=criteria.n_parameters,
        log_likelihood=criteria.log_likelihood,
        mean_log_likelihood=criteria.mean_log_likelihood,
        bic=criteria.bic,
        aic=criteria.aic,
        aicc=criteria.aicc,
        icl=criteria.icl,
        converged=result.converged,
        n_iter=result.n_iter,
        warnings=[
            FitWarningRecord(warning.code, warning.detail)
            for warning in result.warnings[:MAX_CANDIDATE_WARNINGS]
        ],
        held_out_log_likelihood=None if held_out is None else held_out.mean_log_likelihood,
        held_out_standard_error=None if held_out is None else held_out.standard_error,
    )
