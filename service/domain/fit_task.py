"""What a worker of a runner does: one fit, in plain values. Imports the engine and records only."""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gmm_engine import Checkpoints, EMStep, FitOptions, FitResult, fit
from service.domain.records import JobProgress


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


def run_fit_task(
    task: FitTask,
    *,
    on_progress: Callable[[JobProgress], None],
    is_cancelled: Callable[[], bool],
    checkpoints: Checkpoints | None = None,
    seconds_before: float = 0.0,
) -> FitResult:
    """Fit, reporting every EM step; raises ``FitCancelled`` or an engine error.

    With ``checkpoints`` from where the fit was cut off, after ``seconds_before``.
    """
    begun = time.monotonic() - seconds_before
    budget_seconds = task.budget_seconds
    previous = math.nan

    def on_step(step: EMStep) -> None:
        nonlocal previous
        if is_cancelled():
            raise FitCancelled
        on_progress(_progress_of(step, task.options, previous, time.monotonic() - begun))
        previous = step.log_likelihood if step.iteration else math.nan

    return fit(
        task.X,
        task.options,
        sample_weight=task.sample_weight,
        on_step=on_step,
        budget_seconds=budget_seconds and max(0.0, budget_seconds - seconds_before),
        checkpoints=checkpoints,
    )


def digest_of(X: NDArray[np.float64], sample_weight: NDArray[np.float64] | None) -> str:
    """Return what tells these rows from others."""
    digest = hashlib.sha256(repr(X.shape).encode())
    digest.update(X.data)
    if sample_weight is not None:
        digest.update(sample_weight.data)
    return digest.hexdigest()


def _progress_of(
    step: EMStep, options: FitOptions, previous: float, elapsed_seconds: float
) -> JobProgress:
    delta = step.log_likelihood - previous
    steps_done = step.restart * options.max_iter + step.iteration
    steps_at_most = options.n_init * options.max_iter
    return JobProgress(
        restart=step.restart,
        n_init=options.n_init,
        iteration=step.iteration,
        max_iter=options.max_iter,
        log_likelihood=step.log_likelihood,
        delta=delta if math.isfinite(delta) else None,
        eta_seconds=(
            elapsed_seconds / steps_done * (steps_at_most - steps_done) if steps_done else None
        ),
    )
