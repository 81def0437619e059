"""``select``: which number of components and which family describe the data best.

What the criteria are and how candidates compare by them; the search for each is in ``sweep``.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from gmm_engine.blas import one_blas_thread
from gmm_engine.covariances import COVARIANCE_FAMILIES
from gmm_engine.criteria import Criteria
from gmm_engine.errors import (
    GmmEngineError,
    InvalidDataError,
    InvalidParameterError,
    TooFewSamplesError,
)
from gmm_engine.fitting import FitOptions, StepCallback
from gmm_engine.grid import Grid
from gmm_engine.passage import Passage
from gmm_engine.samples import Samples, comes_in_blocks
from gmm_engine.sweep import Candidate, CandidateCallback, Spread, Sweep, one_by_one
from gmm_engine.validation import (
    require_integer_at_least,
    require_kind,
    require_known,
    require_number_at_least,
)

HELD_OUT = "held_out_log_likelihood"
"""The mean log-likelihood of rows that a fit did not see: the one criterion to be high."""
OF_THE_FIT: Mapping[str, Callable[[Criteria], float]] = {
    "bic": lambda criteria: criteria.bic,
    "aic": lambda criteria: criteria.aic,
    "aicc": lambda criteria: criteria.aicc,
    "icl": lambda criteria: criteria.icl,
}
SELECTION_CRITERIA = (*OF_THE_FIT, HELD_OUT)
IN_ITS_PLACE = "bic"
"""What counts where a search was ended before any rows were held out."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The table of a search, and what it says."""

    criterion: str
    candidates: tuple[Candidate, ...]
    """By number of components, then in the grid's order of families; those that the time did not
    suffice for are left out."""
    is_complete: bool
    """False where the search was ended early."""

    @property
    def ranked(self) -> tuple[Candidate, ...]:
        """The best first; by BIC where the search was ended before any rows were held out."""
        by_criterion = ranked(self.candidates, self.criterion)
        return by_criterion or ranked(self.candidates, IN_ITS_PLACE)

    @property
    def best(self) -> Candidate:
        """The candidate with the best criterion; a degenerate one only where all are."""
        return self.ranked[0]


def select(
    X: ArrayLike,
    grid: Grid | None = None,
    options: FitOptions | None = None,
    *,
    criterion: str = "bic",
    n_folds: int = 5,
    sample_weight: ArrayLike | None = None,
    on_candidate: CandidateCallback | None = None,
    on_step: StepCallback | None = None,
    budget_seconds: float | None = None,
    should_end: Callable[[], bool] | None = None,
    spread: Spread = one_by_one,
) -> Selection:
    """Fit every candidate of a grid and compare them.

    Parameters
    ----------
    X : array_like of shape (n_samples, n_features)
    grid : Grid, optional
        1 to 9 components with every family, if it is left out.
    options : FitOptions, optional
        Of every fit; its ``n_components`` and ``covariance_type`` give way to the grid's.
    criterion : str
        One of ``SELECTION_CRITERIA``. ``"held_out_log_likelihood"`` also fits every candidate to
        the rows outside of each fold.
    n_folds : int
        Folds of that cross-validation, at least 2.
    sample_weight : array_like of shape (n_samples,), optional
    on_candidate : callable, optional
        Called with a candidate when it has a result, and again whenever that is bettered.
    on_step : callable, optional
        Called with every ``EMStep``; what it raises ends the search and is passed on.
    budget_seconds : float, optional
        Wall time after which the candidates found so far are compared.
    should_end : callable, optional
        Asked after every step; once it says True the candidates found so far are compared.
    spread : callable, optional
        Shares the tasks of each round among several workers; the table does not depend on it.

    Returns
    -------
    Selection

    Raises
    ------
    InvalidDataError
        One of its kinds; ``TooFewSamplesError`` for fewer rows than components.
    InvalidParameterError
    GmmEngineError
        What the first candidate failed with, if all of them failed.
    """
    began = time.monotonic()
    require_known("criterion", criterion, dict.fromkeys(SELECTION_CRITERIA))
    require_integer_at_least("n_folds", n_folds, 2)
    if budget_seconds is not None:
        require_number_at_least("budget_seconds", budget_seconds, 0.0)
    grid = Grid() if grid is None else grid
    options = FitOptions() if options is None else options
    require_kind("grid", grid, Grid)
    require_kind("options", options, FitOptions)
    if comes_in_blocks(X):
        raise InvalidDataError(
            "select takes arrays; data in blocks and datasets are fitted by gmm_engine.fit"
        )
    samples = Samples.checked(X, sample_weight)
    require_comparable(samples, grid, criterion, n_folds=n_folds, n_features=samples.n_features)
    with Passage() as passage:
        sweep = Sweep(
            samples,
            grid,
            options,
            on_candidate=passage.through(on_candidate),
            on_step=passage.through(on_step),
            deadline=math.inf if budget_seconds is None else began + budget_seconds,
            should_end=passage.through(should_end),
            spread=spread,
        )
        with one_blas_thread:
            sweep.run()
            if criterion == HELD_OUT:
                sweep.cross_validate(n_folds)
    return _compared(sweep, criterion)


def require_comparable(
    samples: Samples, grid: Grid, criterion: str, *, n_folds: int, n_features: int
) -> None:
    """Refuse data of which some fit has too few rows, or no candidate a value to compare by.

    ``n_features`` are those that the candidates see.
    """
    n_rows = samples.n_positive
    if criterion == HELD_OUT:
        if n_folds > n_rows:
            message = f"must be at most the number of rows (of a weight that counts), {n_rows}"
            raise InvalidParameterError("n_folds", message)
        n_rows -= math.ceil(n_rows / n_folds)
    if n_rows < max(grid.n_components):
        raise TooFewSamplesError(
            f"{max(n_rows, 0)} rows (of a weight that counts) can't make {max(grid.n_components)} "
            "components; lower n_components or send more rows"
        )
    if criterion == "aicc":
        _require_aicc(samples.total_weight, grid, n_features)


def _require_aicc(n_samples: float, grid: Grid, n_features: int) -> None:
    """Refuse where every candidate has so many parameters that AICc is not defined."""
    n_components = min(grid.n_components)
    alike = np.broadcast_to(np.eye(n_features), (n_components, n_features, n_features))
    weights = np.full(n_components, 1.0 / n_components)
    of_covariances = (
        COVARIANCE_FAMILIES[covariance_type].from_dense(alike, weights).n_parameters
        for covariance_type in grid.covariance_types
    )
    n_parameters = min(of_covariances) + n_components * n_features + n_components - 1
    if n_samples <= n_parameters + 1:
        raise InvalidParameterError(
            "criterion",
            "'aicc' has no value for any candidate: that takes more rows than parameters and one, "
            f"here at least {n_parameters + 2}; send more rows, or compare by 'bic' or 'aic'",
        )


def value_of(candidate: Candidate, criterion: str) -> float | None:
    """Return a candidate's criterion; None where it has no result."""
    if criterion == HELD_OUT:
        return None if candidate.held_out is None else candidate.held_out.mean_log_likelihood
    return None if candidate.result is None else OF_THE_FIT[criterion](candidate.result.criteria)


def ranked(candidates: Iterable[Candidate], criterion: str) -> tuple[Candidate, ...]:
    """Return those that have a value, the best first; of equal ones that of fewer parameters."""
    sign = -1.0 if criterion == HELD_OUT else 1.0
    places = []
    for candidate in candidates:
        value = value_of(candidate, criterion)
        if value is not None and candidate.result is not None:
            n_parameters = candidate.result.mixture.n_parameters
            places.append(((candidate.is_degenerate, sign * value, n_parameters), candidate))
    return tuple(candidate for _, candidate in sorted(places, key=lambda place: place[0]))


def _compared(sweep: Sweep, criterion: str) -> Selection:
    failures: list[GmmEngineError] = [
        candidate.failure for candidate in sweep.candidates if candidate.failure is not None
    ]
    if len(failures) == len(sweep.candidates):
        raise failures[0]
    return Selection(criterion, sweep.candidates, sweep.is_complete)
