"""What is done for one candidate of a search, by itself: in this process or in another.

A ``Task`` says everything that its ``Outcome`` depends on beside the data and the options, so that
it does not matter who does it, nor in which order. Which tasks there are is ``sweep``'s to say.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gmm_engine.convergence import StopReason
from gmm_engine.coordinates import Coordinates
from gmm_engine.covariances import COVARIANCE_FAMILIES
from gmm_engine.errors import GmmEngineError, OutOfRangeError, SingularCovarianceError
from gmm_engine.fitting import (
    OUT_OF_REACH,
    RECENT_STEPS,
    START_ROWS,
    FitOptions,
    FitResult,
    FitWarning,
    Start,
    StepCallback,
    data_warnings,
    fit,
)
from gmm_engine.grid import Key, Origin
from gmm_engine.mixture import Mixture
from gmm_engine.neighbours import as_family, as_many, mergers, splits
from gmm_engine.regularization import DataScale
from gmm_engine.samples import Samples

TRIAL_STEPS, FINAL_STEPS = 8, 40
"""EM steps that each way from a neighbour gets, and then the best of them.

They begin close to where they end, unlike fresh starts.
"""
NO_GAIN = 1e-6
"""A rise of the mean log-likelihood by less is no improvement."""
RESTING = (
    "these are the parameters of a simpler candidate, which describe the data better than what "
    "runs of this one reach before a component collapses"
)
ROUNDING = 1e-10
"""A log-likelihood that differs by less, relative to itself, is the same."""
N_STAGES = 3
"""A run from a neighbour is tried, tried longer and carried to its end."""
SPURIOUS_ROWS = 4
"""A component of fewer rows than so many for each feature and one may be there by chance …"""
SPURIOUS_VARIANCE = 1e-6
"""… and is taken to be if its variance in some direction is so small a part of the data's."""
MEANINGLESS = frozenset({"degenerate_component", "spurious_component", "degenerate_fold"})
"""Warnings of a component that raises the likelihood without describing the data."""
FLAT = 1e-12
"""Directions in which the data itself varies less than this are not looked at."""
NUMERICAL_FAILURES = (SingularCovarianceError, OutOfRangeError)
"""What one candidate may fail with while others succeed."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a candidate stands, as far as another one may begin from it."""

    mixture: Mixture
    log_likelihood: float
    is_degenerate: bool = False

    @classmethod
    def of(cls, result: FitResult) -> Self:
        return cls(result.mixture, result.log_likelihood, is_degenerate(result))

    def is_above(self, other: "Place") -> bool:
        """Tell whether this is higher by more than rounding, and neither has collapsed."""
        if self.is_degenerate or other.is_degenerate:
            return False
        return self.log_likelihood - other.log_likelihood > ROUNDING * abs(other.log_likelihood)


@dataclass(frozen=True, slots=True)
class Task:
    """To fit a candidate as if it were alone, to better it by neighbours, or to hold rows out."""

    key: Key
    found: Place | None = None
    """What has to be bettered."""
    near: Sequence[tuple[Origin, Place]] = ()
    """Neighbours to begin from, one after another; without any the candidate is fitted alone."""
    n_folds: int | None = None
    """Of a cross-validation, which leaves the candidate as it is."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """How well rows are described that a fit did not see, by K-fold cross-validation."""

    mean_log_likelihood: float
    """Nats a row, each under the fit to the folds without it."""
    standard_error: float
    """Of the mean, from its variation over the folds."""
    n_collapsed: int = 0
    """Folds whose fit is degenerate, so that the mean says little."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a task."""

    result: FitResult | None = None
    """None if there is nothing better than what was found before."""
    origin: Origin = Origin.FRESH
    held_out: HeldOut | None = None
    failure: GmmEngineError | None = None
    is_late: bool = False
    """The time did not suffice to do all of it."""


class Bench:
    """The data and options of a search, and how its tasks are done with them."""

    def __init__(
        self,
        samples: Samples,
        options: FitOptions,
        *,
        on_step: StepCallback | None = None,
        deadline: float = math.inf,
        should_end: Callable[[], bool] | None = None,
    ) -> None:
        """``options`` have a seed: on every bench with it the same tasks end in the same bits."""
        self._samples = samples
        self._options = options
        self._on_step = on_step
        self._deadline = deadline
        self._should_end = should_end
        self._rng = np.random.default_rng(options.random_state)
        self._part = samples.drawn(START_ROWS, self._rng)
        """What starts are tried on."""
        self._whitening = _whitening(self._part)

    def do(self, task: Task, *, is_needed: bool = False) -> Outcome:
        """Do what there is time for; a task that ``is_needed`` is at least begun."""
        if self.is_late() and not is_needed:
            return Outcome(is_late=True)
        try:
            if task.n_folds is not None:
                return self._held_out(task.key, task.n_folds)
            if not task.near:
                return Outcome(self._fit(task.key, self._samples))
        except NUMERICAL_FAILURES as failure:
            return Outcome(failure=failure)
        return self._bettered(task)

    def is_late(self) -> bool:
        is_ended = self._should_end is not None and self._should_end()
        return is_ended or time.monotonic() >= self._deadline

    def _bettered(self, task: Task) -> Outcome:
        best, found = Outcome(), task.found
        if not self._whitening.shape[1] and found:  # all rows are the same: so are all ways
            return best
        for origin, near in task.near:
            if self.is_late():
                return replace(best, is_late=True)
            result = self._climb(task.key, origin, near, found)
            if result is not None:
                best, found = Outcome(result, origin), Place.of(result)
        return best

    def _climb(
        self, key: Key, origin: Origin, near: Place, found: Place | None
    ) -> FitResult | None:
        """Go on from a neighbour; return where that led if it is higher than what was found."""
        starts: list[Mixture] = []
        with suppress(*NUMERICAL_FAILURES):  # a part of a collapsed component is no start
            starts.extend(_ways(origin, key, near.mixture, self._part))
        result = self._followed(key, starts, near, found)
        if result is None and found and near.is_above(found):
            result = self._resting(key, near, found)
        return None if result is None else result.in_canonical_order()

    def _followed(
        self, key: Key, starts: Sequence[Mixture], near: Place, found: Place | None
    ) -> FitResult | None:
        """Follow the most promising way to its end; return that if it is higher.

        Ways that fall behind end after a few steps, and the best of them where it can't win.
        """
        begun = self._most_promising(key, starts)
        if begun is None or (found and not self._may_win(begun, found, near)):
            return None
        try:
            result = self._fit(
                key, self._samples, begun if self._is_tried_on_all else begun.mixture
            )
        except NUMERICAL_FAILURES:
            return None
        if self._is_tried_on_all:
            result = _joined(begun, result)
        apart = NO_GAIN * self._samples.total_weight
        if found and _rank(result) <= (not found.is_degenerate, found.log_likelihood + apart):
            return None
        return result

    def _resting(self, key: Key, near: Place, found: Place) -> FitResult | None:
        """Stay with the density of a neighbour that is higher, where the way from it collapses.

        So what contains the neighbour does not end below it; what does not has no such density.
        """
        if near.mixture.n_components > key.n_components:
            return None
        frame = _frame(near.mixture, key)
        density = near.mixture if frame is None else frame.to_own(near.mixture)
        start = as_many(as_family(density, key.covariance_type), key.n_components)
        start = start if frame is None else frame.to_given(start)
        criteria = start.criteria(self._samples.X, self._samples.weight)
        if not Place(start, criteria.log_likelihood).is_above(found):
            return None
        result = FitResult(
            mixture=start,
            criteria=criteria,
            log_likelihoods=np.array([criteria.log_likelihood]),
            n_iter=1,
            stop_reason=StopReason.MAX_ITER,
            warnings=(
                *data_warnings(
                    self._scale, self._n_flat, has_correlations=start.family.has_correlations
                ),
                FitWarning("rests_on_neighbour", RESTING),
            ),
        )
        named = self._with_spurious_named(result)
        return None if is_degenerate(named) else named

    @cached_property
    def _scale(self) -> DataScale:
        return DataScale.of(self._samples)

    @cached_property
    def _n_flat(self) -> int:
        own = Coordinates.of(self._samples, self._scale)
        return self._scale.floor.n_flat if own is None else own.n_flat

    @property
    def _is_tried_on_all(self) -> bool:
        return self._samples.n_copies <= START_ROWS

    def _most_promising(self, key: Key, starts: Sequence[Mixture]) -> FitResult | None:
        """Let each start try a few steps, and the best of them some more, on part of the data."""
        tried: list[FitResult] = []
        for start in starts:
            with suppress(*NUMERICAL_FAILURES):
                tried.append(self._tried(key, start, TRIAL_STEPS if starts[1:] else FINAL_STEPS))
        best = max(tried, key=_rank, default=None)
        if best is None or not starts[1:]:
            return best
        with suppress(*NUMERICAL_FAILURES):
            return _joined(best, self._tried(key, best.mixture, FINAL_STEPS))
        return None

    def _tried(self, key: Key, start: Mixture, n_steps: int) -> FitResult:
        """Take so many plain steps on part of the data; those of few rows cost next to nothing."""
        return self._fit(key, self._part, start, max_iter=n_steps, tol=0.0)

    def _may_win(self, begun: FitResult, found: Place, near: Place) -> bool:
        """Tell whether a run on part of the data is to go on with all of it.

        At ten times the pace of its last steps it has to become better than what was found. Where
        it is as high as a neighbour that is higher, it is, though the part may say otherwise.
        """
        apart = NO_GAIN * self._part.total_weight
        height = begun.log_likelihood
        if near.log_likelihood > found.log_likelihood and height >= self._on_part(near) - apart:
            return True
        gained = height - begun.log_likelihoods[-1 - RECENT_STEPS :][0]
        may_reach = height + OUT_OF_REACH * gained
        return (not is_degenerate(begun), may_reach) > (
            not found.is_degenerate,
            self._on_part(found) + apart,
        )

    def _on_part(self, place: Place) -> float:
        """Return the log-likelihood of what starts are tried on."""
        if self._is_tried_on_all:
            return place.log_likelihood
        return place.mixture.criteria(self._part.X, self._part.weight).log_likelihood

    def _held_out(self, key: Key, n_folds: int) -> Outcome:
        """Find how well a candidate describes rows that its fit has not seen."""
        weight = self._samples.weights_or_ones
        sums, totals = [], []
        n_collapsed = 0
        for fold in np.array_split(self._shuffled, n_folds):
            fitted = self._fit(key, _without(self._samples, fold))
            if self.is_late():  # the fit may have been cut short
                return Outcome(is_late=True)
            n_collapsed += is_degenerate(fitted)
            log_prob = fitted.mixture.score_samples(self._samples.X[fold])
            sums.append(float(weight[fold] @ log_prob))
            totals.append(float(weight[fold].sum()))
        mean = sum(sums) / sum(totals)
        residuals = np.array(sums) - mean * np.array(totals)
        spread = math.sqrt(float(residuals @ residuals) * n_folds / (n_folds - 1))
        return Outcome(held_out=HeldOut(mean, spread / sum(totals), n_collapsed))

    @cached_property
    def _shuffled(self) -> NDArray[np.intp]:
        """The rows that count in the order that folds are cut from."""
        counted = np.flatnonzero(self._samples.weights_or_ones)
        return counted[self._rng.permutation(len(counted))]

    def _fit(
        self,
        key: Key,
        samples: Samples,
        start: Start | None = None,
        *,
        max_iter: int | None = None,
        tol: float | None = None,
    ) -> FitResult:
        options = replace(
            self._options,
            n_components=key.n_components,
            covariance_type=key.covariance_type,
            max_iter=min(self._options.max_iter, max_iter or self._options.max_iter),
            tol=self._options.tol if tol is None else tol,
        )
        seconds_left = max(0.0, self._deadline - time.monotonic())
        result = fit(
            samples.X,
            options,
            sample_weight=samples.weight,
            start=start,
            on_step=self._on_step,
            budget_seconds=None if math.isinf(seconds_left) else seconds_left,
            should_end=self._should_end,
        )
        return self._with_spurious_named(result)

    def _with_spurious_named(self, result: FitResult) -> FitResult:
        n_samples = result.criteria.n_samples
        found = _spurious_components(result.mixture, n_samples, self._whitening)
        warnings = tuple(
            FitWarning(
                "spurious_component",
                f"component {component} is a few rows that lie nearly in line or in one place; "
                "the likelihood makes too much of them; a selection prefers mixtures without",
                int(component),
            )
            for component in found
        )
        return replace(result, warnings=result.warnings + warnings) if warnings else result


def _ways(origin: Origin, key: Key, near: Mixture, part: Samples) -> Iterator[Mixture]:
    """Yield starts with as many components and of the family that ``key`` asks for."""
    frame = _frame(near, key)
    if frame is not None:
        own = Samples(frame.map(part.X), part.weight)
        yield from map(frame.to_given, _ways_as_given(origin, key, frame.to_own(near), own))
    else:
        yield from _ways_as_given(origin, key, near, part)


def _frame(near: Mixture, key: Key) -> Coordinates | None:
    """Return coordinates in which covariances say all that the mixture's factors do, if needed."""
    has_correlations = COVARIANCE_FAMILIES[key.covariance_type].has_correlations
    return Coordinates.of_component(near) if has_correlations else None


def _ways_as_given(origin: Origin, key: Key, near: Mixture, part: Samples) -> Iterator[Mixture]:
    match origin:
        case Origin.SPLIT:
            yield from splits(near, key.n_components, _spread(part))
        case Origin.MERGE:
            yield from mergers(near, key.n_components, part.X)
        case _:
            yield as_family(near, key.covariance_type)


def is_degenerate(result: FitResult) -> bool:
    return any(warning.code in MEANINGLESS for warning in result.warnings)


def _spurious_components(
    mixture: Mixture, n_samples: float, whitening: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Return the components that a few rows in line, or in one place, make by chance.

    The likelihood has many such maxima, higher than the one that is looked for (McLachlan and
    Peel 2000, section 3.10).
    """
    few = mixture.weights * n_samples < SPURIOUS_ROWS * (mixture.n_features + 1)
    if not few.any() or not whitening.shape[1]:  # or all rows are the same
        return np.array([], dtype=np.intp)
    relative = whitening.T @ mixture.to_dense()[few] @ whitening
    flat = np.linalg.eigvalsh(relative)[:, 0] < SPURIOUS_VARIANCE
    return np.flatnonzero(few)[flat]


def _whitening(samples: Samples) -> NDArray[np.float64]:  # (D, n_varying)
    """Return what brings the covariance of the data to one, in the directions that it varies in."""
    weight = samples.weights_or_ones
    scaled = (samples.X - np.average(samples.X, axis=0, weights=weight)) / _spread(samples)
    values, vectors = np.linalg.eigh((scaled.T * weight) @ scaled / weight.sum())
    varying = values > FLAT * values[-1]
    return np.asarray(
        vectors[:, varying] / np.sqrt(values[varying]) / _spread(samples)[:, np.newaxis]
    )


def _joined(begun: FitResult, gone_on: FitResult) -> FitResult:
    """Return where a fit led that went on from another one of the same data, with all its steps."""
    return replace(
        gone_on,
        log_likelihoods=np.append(begun.log_likelihoods, gone_on.log_likelihoods),
        n_iter=begun.n_iter + gone_on.n_iter,
    )


def _rank(result: FitResult) -> tuple[bool, float]:
    """Healthy runs before degenerate ones, whose likelihood means nothing; then by it."""
    return not is_degenerate(result), result.log_likelihood


def _spread(samples: Samples) -> NDArray[np.float64]:  # (D,)
    """Return the range of each feature; 1 for one that does not vary."""
    smallest, largest = samples.extent
    extent = largest - smallest
    return np.where(extent > 0, extent, 1.0)


def _without(samples: Samples, fold: NDArray[np.intp]) -> Samples:
    weight = None if samples.weight is None else np.delete(samples.weight, fold)
    return Samples(np.delete(samples.X, fold, axis=0), weight)
