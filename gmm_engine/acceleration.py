"""Longer steps for EM where it is slow: Anderson acceleration with a monotone safeguard.

EM is a fixed-point iteration θ ← M(θ). From the last few θ and residuals M(θ) − θ the combination
with the least residual is extrapolated (Anderson 1965; for EM, Henderson and Varadhan 2019). A
proposal is only kept when the log-likelihood gains by it, so EM stays monotone, and only made
when EM's own gains shrink slowly. Now and then plain steps are taken in between: their gains tell
how far the limit is.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gmm_engine.errors import GmmEngineError
from gmm_engine.mixture import Mixture
from gmm_engine.validation import as_count

SLOW_RATE = 0.8
"""Accelerate when the gains shrink more slowly than this."""
PLAIN_STEPS = 2
"""Plain steps between bouts of accelerated ones, and before the rate is judged at all."""
LIKELY_PLAIN = 8
"""While EM is quick, so many plain steps are likely to follow."""
BOUT = 6
"""Accelerated steps in a row at the most."""
MAX_REMEMBERED = 9
MAX_REMEMBERED_NUMBERS = 4_000_000
"""Bounds the memory of the remembered steps: 32 MiB."""
DAMPING = 1e-10
"""Keeps the least squares of nearly dependent residuals solvable, relative to their size."""


LARGE = 20_000
"""Covariances of more numbers are remembered as triangles, and mixed one after another."""

_Point = Mixture | NDArray[np.float64]
"""A mixture, or its parameters as one vector in units of the data's spread."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A plain step: where it began and ended."""

    before: _Point
    after: _Point


@dataclass(frozen=True, slots=True)
class _Part:
    """Numbers of the vectors that are mixed together: all, or the matrix of one component."""

    place: slice
    whole: NDArray[np.intp] | None = None
    """Where in its triangle each number of a matrix is."""

    def of(self, vectors: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        rows = np.array([vector[self.place] for vector in vectors])
        return rows if self.whole is None else rows[:, self.whole]


class Accelerator:
    """Watches the steps of one run and proposes longer ones."""

    def __init__(self, scale: NDArray[np.float64], n_plain: int = PLAIN_STEPS) -> None:
        """``scale`` is the data's spread by feature; the first ``n_plain`` steps are left plain."""
        self._scale = scale  # (D,)
        self._steps: deque[_Step] | None = None
        self._newest: tuple[NDArray[np.float64], _Point] | None = None
        """Means and all of where the last step ended: most often the next one begins there."""
        self._last_log_likelihood = math.nan
        self._gain = math.nan
        self._is_slow = False
        self._plain_left = n_plain
        self._bout_left = BOUT

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.generic]], scale: NDArray[np.float64]
    ) -> Self:
        """Go on from what ``to_arrays`` gave, to the last bit."""
        accelerator = cls(scale)
        accelerator._last_log_likelihood, accelerator._gain = map(float, arrays["gains"])
        slow, accelerator._plain_left, accelerator._bout_left = map(int, arrays["counts"])
        accelerator._is_slow = bool(slow)
        steps = np.asarray(arrays["points"], dtype=np.float64)  # (n_remembered, 2, n_numbers)
        if len(steps):
            accelerator._steps = deque(
                (_Step(before, after) for before, after in steps),
                maxlen=int(arrays["most"]),
            )
        return accelerator

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        return {
            "points": np.array(list(zip(*self._as_vectors(), strict=True))),
            "most": np.array(0 if self._steps is None else self._steps.maxlen),
            "gains": np.array([self._last_log_likelihood, self._gain]),
            "counts": np.array([self._is_slow, self._plain_left, self._bout_left], dtype=np.int64),
        }

    @property
    def n_plain_ahead(self) -> int:
        """How many plain steps are likely to come next."""
        if self._plain_left:
            return self._plain_left
        return 0 if self._is_slow else LIKELY_PLAIN

    def proposal(self, before: Mixture, after: Mixture, log_likelihood: float) -> Mixture | None:
        """Propose a mixture instead of ``after``, EM's next, or None.

        ``log_likelihood`` is that of ``before``.
        """
        if not self._remember(before, after):
            return None
        self._watch(log_likelihood)
        if self._plain_left:
            self._plain_left -= 1
            return None
        if not self._is_slow or self._steps is None or len(self._steps) < 2:
            return None
        if not self._bout_left:
            self._rest()
            return None
        self._bout_left -= 1
        proposed = self._mixed(after)
        if proposed is None:
            self.reject()
        return proposed

    def reject(self) -> None:
        """Take note that the last proposal did not gain: forget, and go on plainly for a while."""
        if self._steps is not None:
            self._steps.clear()
        self._newest = None
        self._rest()

    def _rest(self) -> None:
        self._plain_left, self._bout_left = PLAIN_STEPS, BOUT
        self._gain = math.nan

    def _remember(self, before: Mixture, after: Mixture) -> bool:
        if self._steps is None:
            self._steps = deque(maxlen=most_remembered(before.n_parameters))
        most = self._steps.maxlen
        if not most:
            return False
        if self._plain_left >= most:  # others will have taken its place before steps are mixed
            return True
        goes_on = self._newest is not None and self._newest[0] is before.means
        begun = self._newest[1] if goes_on and self._newest else self._point(before)
        self._newest = after.means, self._point(after)
        self._steps.append(_Step(begun, self._newest[1]))
        return True

    def _point(self, mixture: Mixture) -> _Point:
        """Return what is kept of a mixture: few of the small ones are ever made into vectors."""
        return self._vector(mixture) if _is_large(mixture) else mixture

    def _as_vectors(self) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
        """Return where the remembered steps began and ended, made into vectors when first asked."""
        if self._steps is None:
            return [], []
        made: dict[int, NDArray[np.float64]] = {}
        points = [point for step in self._steps for point in (step.before, step.after)]
        for point in points:
            if isinstance(point, Mixture) and id(point) not in made:
                made[id(point)] = self._vector(point)
        vectors = [made[id(point)] if isinstance(point, Mixture) else point for point in points]
        befores, afters = vectors[::2], vectors[1::2]
        self._steps.clear()
        self._steps.extend(map(_Step, befores, afters))
        return befores, afters

    def _watch(self, log_likelihood: float) -> None:
        """Judge the rate by plain gains; those of accelerated steps tell nothing about EM."""
        gain = log_likelihood - self._last_log_likelihood
        if self._gain > 0.0 and (self._plain_left or not self._is_slow):
            self._is_slow = gain / self._gain > SLOW_RATE
        self._last_log_likelihood, self._gain = log_likelihood, gain

    def _mixed(self, after: Mixture) -> Mixture | None:
        """Return what the combination of the remembered steps with the least residual leads to."""
        (befores, afters), parts = self._as_vectors(), _parts(after)
        n_changes = len(befores) - 1
        gram, towards = np.zeros((n_changes, n_changes)), np.zeros(n_changes)
        for part in parts:
            residuals = part.of(afters) - part.of(befores)
            changes = residuals[1:] - residuals[:-1]
            gram += changes @ changes.T
            towards += changes @ residuals[-1]
        gram[np.diag_indices_from(gram)] += DAMPING * np.trace(gram)
        try:
            share = np.linalg.solve(gram, towards)
        except np.linalg.LinAlgError:
            return None
        mixed = []
        for part in parts:
            points = part.of(befores)
            residuals = part.of(afters) - points
            moves, changes = points[1:] - points[:-1], residuals[1:] - residuals[:-1]
            mixed.append(points[-1] + residuals[-1] - share @ (moves + changes))
        return self._mixture(np.concatenate(mixed), after)

    def _vector(self, mixture: Mixture) -> NDArray[np.float64]:
        """Return the parameters as one vector, in units of the data's spread."""
        log_weights = np.log(np.maximum(mixture.weights, np.finfo(float).tiny))
        covariances = mixture.covariances / mixture.family.units(self._scale)
        if _is_large(mixture):
            covariances = covariances[..., *np.tril_indices(mixture.n_features)]
        return np.concatenate(
            (log_weights, (mixture.means / self._scale).ravel(), covariances.ravel())
        )

    def _mixture(self, vector: NDArray[np.float64], like: Mixture) -> Mixture | None:
        if not np.isfinite(vector).all():
            return None
        K, D = like.means.shape
        weights = np.exp(vector[:K] - vector[:K].max())
        covariances = vector[K + K * D :].reshape(like.covariances.shape)
        covariances *= like.family.units(self._scale)
        means = vector[K : K + K * D].reshape(K, D) * self._scale
        try:
            family = like.family.from_array(covariances, K, D)
            return Mixture(weights / weights.sum(), means, family)
        except GmmEngineError:  # beyond the border of what is a mixture
            return None


def require_accelerator(arrays: Mapping[str, NDArray[np.generic]], like: Mixture) -> None:
    """Raise ``ValueError`` or its like where these arrays are no accelerator's of such mixtures."""
    points, most = np.asarray(arrays["points"], dtype=np.float64), as_count(arrays["most"].item())
    K, D = like.means.shape
    n_of_covariances = K * D * (D + 1) // 2 if _is_large(like) else like.covariances.size
    holds = points.shape in {(0,), (len(points), 2, K + K * D + n_of_covariances)}
    holds &= len(points) <= most and most in {0, most_remembered(like.n_parameters)}
    holds &= bool(np.isfinite(points).all())
    gains, counts = np.asarray(arrays["gains"], dtype=np.float64), np.asarray(arrays["counts"])
    if not holds or gains.shape != (2,) or counts.shape != (3,):
        raise ValueError
    for count in counts:
        as_count(count)


def _is_large(mixture: Mixture) -> bool:
    return mixture.family.has_correlations and mixture.covariances.size > LARGE


def _parts(like: Mixture) -> list[_Part]:
    if not _is_large(like):
        return [_Part(slice(None))]
    D = like.n_features
    begin, size = like.weights.size + like.means.size, D * (D + 1) // 2
    whole = np.empty((D, D), dtype=np.intp)
    rows, columns = np.tril_indices(D)
    whole[rows, columns] = whole[columns, rows] = np.arange(size)
    matrices = (
        _Part(slice(begin + k * size, begin + (k + 1) * size), whole.ravel())
        for k in range(like.family.n_sets)
    )
    return [_Part(slice(begin)), *matrices]


def most_remembered(n_numbers: int) -> int:
    """Return how many steps of mixtures of so many parameters are remembered."""
    return min(MAX_REMEMBERED, MAX_REMEMBERED_NUMBERS // (2 * n_numbers))
