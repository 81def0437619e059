"""What a fit is expected to take, for a client that asks before it fits."""

import threading
from dataclasses import dataclass

from gmm_engine.costs import Costs
from gmm_engine.memory import memory_bytes
from gmm_engine.pilot import forecast
from service.domain.fit_task import FitTask


@dataclass(frozen=True, slots=True)
class FitEstimate:
    model_id: str
    n_samples: int
    n_features: int
    n_components: int
    work: int
    """Rows weighed by components, each time counted."""
    memory_bytes: int
    seconds: float
    """As a pilot of the fit foretells it."""
    seconds_at_most: float
    """Were every step taken that the options allow."""
    uncertainty: float
    """Factor, upwards and downwards, that ``seconds`` may well be off by."""


class MachineCosts:
    """What steps cost on this machine: measured when first asked for, once for a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._costs: Costs | None = None

    def __call__(self) -> Costs:
        with self._lock:
            if self._costs is None:
                self._costs = Costs.measured()
            return self._costs


def estimate_of(task: FitTask, model_id: str, costs: Costs) -> FitEstimate:
    """Begin the fit for a moment, and tell from that what all of it will take."""
    options, (n_samples, n_features) = task.options, task.X.shape
    rows = task.mapped()[0].X
    n_fitted_features = rows.shape[1]
    expected = forecast(rows, options, sample_weight=task.sample_weight, costs=costs)
    budget = float("inf") if task.budget_seconds is None else task.budget_seconds
    return FitEstimate(
        model_id=model_id,
        n_samples=n_samples,
        n_features=n_features,
        n_components=options.n_components,
        work=expected.work.weighed_rows * options.n_components,
        memory_bytes=memory_bytes(options, n_samples, n_fitted_features, expected.work),
        seconds=min(budget, expected.seconds),
        seconds_at_most=min(budget, expected.seconds_at_most),
        uncertainty=expected.uncertainty,
    )
