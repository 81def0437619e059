"""What a fit is expected to take, for a client that asks before it fits."""

import threading
from dataclasses import dataclass

from gmm_engine.costs import Costs, expected_work, memory_bytes, most_work
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
    """Of a typical search, on a machine with nothing else to do."""
    seconds_at_most: float
    """Of one that takes every step that the options allow."""


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
    options, (n_samples, n_features) = task.options, task.X.shape
    expected, most = (
        expected_work(options, n_samples, n_features),
        most_work(options, n_samples, n_features),
    )
    budget = float("inf") if task.budget_seconds is None else task.budget_seconds
    return FitEstimate(
        model_id=model_id,
        n_samples=n_samples,
        n_features=n_features,
        n_components=options.n_components,
        work=expected.weighed_rows * options.n_components,
        memory_bytes=memory_bytes(options, n_samples, n_features),
        seconds=min(budget, costs.seconds(expected, options, n_features)),
        seconds_at_most=min(budget, costs.seconds(most, options, n_features)),
    )
