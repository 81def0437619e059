"""The search over a grid of candidates, numbers of components by families, that share starts.

Besides the fresh starts of a fit, each candidate is begun from its neighbours: from the same family
with fewer components by splitting one of them, with more by merging two, and from the other
families with as many. So a family that contains another never ends below it, nor a number of
components below a smaller one. Which candidate wins is ``selection``'s to say.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from gmm_engine.covariances import COVARIANCE_FAMILIES
from gmm_engine.errors import (
    GmmEngineError,
    InvalidParameterError,
    OutOfRangeError,
    SingularCovarianceError,
)
from gmm_engine.fitting import (
    START_ROWS,
    FitOptions,
    FitResult,
    FitWarning,
    Start,
    StepCallback,
    fit,
)
from gmm_engine.mixture import Mixture
from gmm_engine.neighbours import as_family, mergers, splits
from gmm_engine.samples import Samples
from gmm_engine.validation import require_integer_at_least, require_known

TRIAL_STEPS, FINAL_STEPS = 8, 40
"""EM steps that each way from a neighbour gets, and then the best of them.

They begin close to where they end, unlike fresh starts.
"""
MAX_PASSES = 6
"""How often the grid is gone through again, as long as candidates better their neighbours."""
NO_GAIN = 1e-6
"""A rise of the mean log-likelihood by less is no improvement."""
N_STAGES = 3
"""A run from a neighbour is tried, tried longer and carried to its end."""
SPURIOUS_ROWS = 4
"""A component of fewer rows than so many for each feature and one may be there by chance …"""
SPURIOUS_VARIANCE = 1e-6
"""… and is taken to be if its variance in some direction is so small a part of the data's."""
MEANINGLESS = frozenset({"degenerate_component", "spurious_component"})
"""Warnings of a component that raises the likelihood without describing the data."""
FLAT = 1e-12
"""Directions in which the data itself varies less than this are not looked at."""
NUMERICAL_FAILURES = (SingularCovarianceError, OutOfRangeError)
"""What one candidate may fail with while others succeed."""


class Origin(StrEnum):
    """Where the best run of a candidate began."""

    FRESH = "fresh"
    SPLIT = "split"
    MERGE = "merge"
    FAMILY = "family"


@dataclass(frozen=True, slots=True)
class Key:
    """Names a candidate."""

    n_components: int
    covariance_type: str


@dataclass(frozen=True, slots=True)
class Grid:
    """The candidates: every number of components with every family."""

    n_components: Sequence[int] = tuple(range(1, 10))
    covariance_types: Sequence[str] = tuple(COVARIANCE_FAMILIES)

    def __post_init__(self) -> None:
        for n_components in self.n_components:
            require_integer_at_least("n_components", n_components, 1)
        for covariance_type in self.covariance_types:
            require_known("covariance_types", covariance_type, COVARIANCE_FAMILIES)
        for name, values in (
            ("n_components", self.n_components),
            ("covariance_types", self.covariance_types),
        ):
            if not values or len(set(values)) != len(values):
                raise InvalidParameterError(name, "must name one or more, and none twice")

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every candidate, by number of components and then in the order of the families."""
        return tuple(
            Key(n_components, covariance_type)
            for n_components in sorted(self.n_components)
            for covariance_type in self.covariance_types
        )

    def neighbours(self, key: Key) -> Iterator[tuple[Origin, Key]]:
        """Yield the candidates next to one, and how one of theirs becomes one of its own."""
        sizes = sorted(self.n_components)
        place = sizes.index(key.n_components)
        for covariance_type in self.covariance_types:
            if covariance_type != key.covariance_type:
                yield Origin.FAMILY, Key(key.n_components, covariance_type)
        if place > 0:
            yield Origin.SPLIT, Key(sizes[place - 1], key.covariance_type)
        if place + 1 < len(sizes):
            yield Origin.MERGE, Key(sizes[place + 1], key.covariance_type)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """How well rows are described that a fit did not see, by K-fold cross-validation."""

    mean_log_likelihood: float
    """Nats a row, each under the fit to the folds without it."""
    standard_error: float
    """Of the mean, from its variation over the folds."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One line of the table; one that failed has the reason in place of a result."""

    key: Key
    origin: Origin = Origin.FRESH
    result: FitResult | None = None
    held_out: HeldOut | None = None
    failure: GmmEngineError | None = None

    @property
    def is_degenerate(self) -> bool:
        """Tell whether a component has collapsed, or nearly, so that the likelihood means less."""
        return self.result is not None and _is_degenerate(self.result)


CandidateCallback = Callable[[Candidate], None]


class Sweep:
    """The candidates found so far, and the ways to better ones."""

    def __init__(
        self,
        samples: Samples,
        grid: Grid,
        options: FitOptions,
        *,
        on_candidate: CandidateCallback | None = None,
        on_step: StepCallback | None = None,
        deadline: float = math.inf,
        should_end: Callable[[], bool] | None = None,
    ) -> None:
        self._samples = samples
        self._grid = grid
        self._options = options
        self._on_candidate = on_candidate
        self._on_step = on_step
        self._deadline = deadline
        self._should_end = should_end
        self._rng = np.random.default_rng(options.random_state)
        self._part = samples.drawn(START_ROWS, self._rng)
        """What starts are tried on."""
        self._whitening = _whitening(self._part)
        self._found: dict[Key, Candidate] = {}
        self._begun_from: dict[tuple[Key, Key], FitResult] = {}
        """By candidate and neighbour: what the neighbour was like when it was last begun from."""
        self.is_complete = True
        """False once something was left out because the time was up."""

    @property
    def _is_tried_on_all(self) -> bool:
        return self._part.n_rows == self._samples.n_rows

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return tuple(self._found[key] for key in self._grid.keys if key in self._found)

    def run(self) -> None:
        """Fit every candidate, then better them by their neighbours until nothing changes."""
        upwards = self._grid.keys
        for key in upwards:
            if self._found and self._is_late():
                return
            self._begin(key)
            self._better(key)
        for n_pass in range(MAX_PASSES):
            keys = upwards if n_pass % 2 else upwards[::-1]
            if not sum(self._better(key) for key in keys):
                return

    def cross_validate(self, n_folds: int) -> None:
        """Find for every candidate how well it describes rows that it has not seen."""
        folds = np.array_split(self._rng.permutation(self._samples.n_rows), n_folds)
        for candidate in self.candidates:
            if candidate.result is None:
                continue
            if self._is_late():
                return
            try:
                held_out = self._held_out(candidate.key, folds)
            except NUMERICAL_FAILURES as failure:
                self._report(Candidate(candidate.key, failure=failure))
                continue
            if self._is_late():  # the fits to the folds may have been cut short
                return
            self._report(replace(candidate, held_out=held_out))

    def _begin(self, key: Key) -> None:
        """Fit a candidate as if it were the only one."""
        try:
            self._report(Candidate(key, result=self._fit(key, self._samples)))
        except NUMERICAL_FAILURES as failure:
            self._report(Candidate(key, failure=failure))

    def _better(self, key: Key) -> bool:
        """Begin a candidate from each neighbour that has changed; tell whether that helped."""
        bettered = False
        for origin, neighbour in self._grid.neighbours(key):
            near = self._found.get(neighbour)
            if near is None or near.result is None or near.is_degenerate:
                continue
            if self._begun_from.get((key, neighbour)) is near.result or self._is_late():
                continue
            self._begun_from[key, neighbour] = near.result
            bettered |= self._climb(key, origin, near.result)
        return bettered

    def _climb(self, key: Key, origin: Origin, near: FitResult) -> bool:
        """Follow the most promising way from a neighbour to its end if it may end higher."""
        found = self._found[key].result
        begun = self._most_promising(key, _ways(origin, key, near.mixture, self._part))
        if begun is None or (found and not self._may_win(begun, found, near)):
            return False
        try:
            result = self._fit(
                key, self._samples, begun if self._is_tried_on_all else begun.mixture
            )
        except NUMERICAL_FAILURES:
            return False
        if self._is_tried_on_all:
            result = _joined(begun, result)
        apart = NO_GAIN * self._samples.total_weight
        if found and _rank(result) <= (not _is_degenerate(found), found.log_likelihood + apart):
            return False
        self._report(Candidate(key, origin, result.in_canonical_order()))
        return True

    def _most_promising(self, key: Key, starts: Iterator[Mixture]) -> FitResult | None:
        """Let each start try a few steps, and the best of them some more, on part of the data."""
        tried: list[FitResult] = []
        for start in starts:
            try:
                tried.append(self._fit(key, self._part, start, max_iter=TRIAL_STEPS))
            except NUMERICAL_FAILURES:
                continue
        if not tried:
            return None
        try:
            best = max(tried, key=_rank)
            return _joined(best, self._fit(key, self._part, best, max_iter=FINAL_STEPS))
        except NUMERICAL_FAILURES:
            return None

    def _may_win(self, begun: FitResult, found: FitResult, near: FitResult) -> bool:
        """Tell whether a run on part of the data is to go on with all of it."""
        if near.log_likelihood > found.log_likelihood:
            return True
        on_part = found.mixture.criteria(self._part.X, self._part.weight).log_likelihood
        apart = NO_GAIN * self._part.total_weight
        return _rank(begun) > (not _is_degenerate(found), on_part + apart)

    def _held_out(self, key: Key, folds: Sequence[NDArray[np.intp]]) -> HeldOut:
        weight = self._samples.weights_or_ones
        sums, totals = [], []
        for fold in folds:
            fitted = self._fit(key, _without(self._samples, fold))
            log_prob = fitted.mixture.score_samples(self._samples.X[fold])
            sums.append(float(weight[fold] @ log_prob))
            totals.append(float(weight[fold].sum()))
        mean = sum(sums) / sum(totals)
        residuals = np.array(sums) - mean * np.array(totals)
        spread = math.sqrt(float(residuals @ residuals) * len(folds) / (len(folds) - 1))
        return HeldOut(mean, spread / sum(totals))

    def _fit(
        self, key: Key, samples: Samples, start: Start | None = None, *, max_iter: int | None = None
    ) -> FitResult:
        options = replace(
            self._options,
            n_components=key.n_components,
            covariance_type=key.covariance_type,
            max_iter=min(self._options.max_iter, max_iter or self._options.max_iter),
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

    def _is_late(self) -> bool:
        is_ended = self._should_end is not None and self._should_end()
        if is_ended or time.monotonic() >= self._deadline:
            self.is_complete = False
        return not self.is_complete

    def _report(self, candidate: Candidate) -> None:
        self._found[candidate.key] = candidate
        if self._on_candidate is not None:
            self._on_candidate(candidate)


def _ways(origin: Origin, key: Key, near: Mixture, part: Samples) -> Iterator[Mixture]:
    """Yield starts with as many components and of the family that ``key`` asks for."""
    match origin:
        case Origin.SPLIT:
            yield from splits(near, key.n_components, _spread(part))
        case Origin.MERGE:
            yield from mergers(near, key.n_components, part.X)
        case _:
            yield as_family(near, key.covariance_type)


def _is_degenerate(result: FitResult) -> bool:
    return any(warning.code in MEANINGLESS for warning in result.warnings)


def _spurious_components(
    mixture: Mixture, n_samples: float, whitening: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Return the components that a few rows in line, or in one place, make by chance.

    The likelihood has many such maxima, higher than the one that is looked for (McLachlan and
    Peel 2000, section 3.10).
    """
    few = mixture.weights * n_samples < SPURIOUS_ROWS * (mixture.n_features + 1)
    if not few.any():
        return np.flatnonzero(few)
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
    return not _is_degenerate(result), result.log_likelihood


def _spread(samples: Samples) -> NDArray[np.float64]:  # (D,)
    """Return the range of each feature; 1 for one that does not vary."""
    extent = samples.largest - samples.smallest
    return np.where(extent > 0, extent, 1.0)


def _without(samples: Samples, fold: NDArray[np.intp]) -> Samples:
    weight = None if samples.weight is None else np.delete(samples.weight, fold)
    return Samples(np.delete(samples.X, fold, axis=0), weight)
