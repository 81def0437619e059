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
    reporter = _Reporter(task, on_progress, is_cancelled, seconds_before=seconds_before)
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
        *,
        seconds_before: float,
    ) -> None:
        self._options = task.options
        self._plan = task.plan
        self._on_progress = on_progress
        self._is_cancelled = is_cancelled
        self._begun = time.monotonic() - seconds_before
        self._previous = math.nan
        self._last: JobProgress | None = None
        self._found: dict[object, Candidate] = {}
        self._leaderboard = None if task.plan is None else Leaderboard(task.plan.n_candidates)

    def on_step(self, step: EMStep) -> None:
        if self._is_cancelled():
            raise FitCancelled
        self._last = self._progress_of(step)
        self._on_progress(self._last)
        self._previous = step.log_likelihood if step.iteration else math.nan

    def on_candidate(self, candidate: Candidate) -> None:
        if self._plan is not None:
            self._found[candidate.key] = candidate
            self._leaderboard = _leaderboard_of(self._found, self._plan)
            if self._last is not None:
                self._on_progress(replace(self._last, leaderboard=self._leaderboard))

    def _progress_of(self, step: EMStep) -> JobProgress:
        options, delta = self._options, step.log_likelihood - self._previous
        return JobProgress(
            restart=step.restart,
            n_init=options.n_init,
            iteration=step.iteration,
            max_iter=options.max_iter,
            log_likelihood=step.log_likelihood,
            delta=delta if math.isfinite(delta) else None,
            eta_seconds=None if self._plan else self._seconds_left(step),
            leaderboard=self._leaderboard,
        )

    def _seconds_left(self, step: EMStep) -> float | None:
        steps_done = step.restart * self._options.max_iter + step.iteration
        steps_at_most = self._options.n_init * self._options.max_iter
        elapsed_seconds = time.monotonic() - self._begun
        if not steps_done:
            return None
        return elapsed_seconds / steps_done * (steps_at_most - steps_done)


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
