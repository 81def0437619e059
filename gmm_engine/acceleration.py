"""Longer steps for EM where it is slow: Anderson acceleration with a monotone safeguard.

EM is a fixed-point iteration θ ← M(θ). From the last few θ and residuals M(θ) − θ the combination
with the least residual is extrapolated (Anderson 1965; for EM, Henderson and Varadhan 2019). A
proposal is only kept when the log-likelihood gains by it, so EM stays monotone, and only made
when EM's own gains shrink slowly. Now and then plain steps are taken in between: their gains tell
how far the limit is.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gmm_engine.covariances import from_lower_triangles, lower_triangles
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


_Point = Mixture | NDArray[np.float64]
"""A mixture, or its parameters as one vector in units of the data's spread, in which large
covariances are triangles. Of a large mixture no more is kept than of one that waits."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A plain step: where it began and ended."""

    before: _Point
    after: _Point


_Part = Callable[[list[_Point]], NDArray[np.float64]]
"""Takes of points, row by row, numbers that are mixed together: all, or a component's matrix."""


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
        steps = self._steps or ()
        points = [[self._vector(point) for point in (s.before, s.after)] for s in steps]
        return {
            "points": np.array(points),
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

    @property
    def may_leap(self) -> bool:
        """Whether a longer step is likely to be proposed next."""
        return self._is_slow and not self._plain_left and self._bout_left > 0

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
        begun = self._newest[1] if goes_on and self._newest else _kept(before)
        self._newest = after.means, _kept(after)
        self._steps.append(_Step(begun, self._newest[1]))
        return True

    def _as_vectors(self) -> None:
        """Make vectors of the remembered steps: few of the small ones are ever asked for it."""
        if self._steps is None:
            return
        points = [point for step in self._steps for point in (step.before, step.after)]
        made = {id(point): point for point in points}
        made = {name: self._vector(point) for name, point in made.items()}
        vectors = [made[id(point)] for point in points]
        self._steps.clear()
        self._steps.extend(map(_Step, vectors[::2], vectors[1::2]))

    def _watch(self, log_likelihood: float) -> None:
        """Judge the rate by plain gains; those of accelerated steps tell nothing about EM."""
        gain = log_likelihood - self._last_log_likelihood
        if self._gain > 0.0 and (self._plain_left or not self._is_slow):
            self._is_slow = gain / self._gain > SLOW_RATE
        self._last_log_likelihood, self._gain = log_likelihood, gain

    def _mixed(self, after: Mixture) -> Mixture | None:
        """Return what the combination of the remembered steps with the least residual leads to."""
        if not after.family.is_large:
            self._as_vectors()
        steps = self._steps or ()
        befores, afters = [step.before for step in steps], [step.after for step in steps]
        n_changes = len(befores) - 1
        gram, towards = np.zeros((n_changes, n_changes)), np.zeros(n_changes)
        for part in self._parts(after):
            residuals = part(afters) - part(befores)
            changes = residuals[1:] - residuals[:-1]
            gram += changes @ changes.T
            towards += changes @ residuals[-1]
        gram[np.diag_indices_from(gram)] += DAMPING * np.trace(gram)
        try:
            share = np.linalg.solve(gram, towards)
        except np.linalg.LinAlgError:
            return None
        mixed = np.empty(after.weights.size + after.means.size + after.family.size)
        end = 0
        for part in self._parts(after):
            points = part(befores)
            residuals = part(afters) - points
            moves, changes = points[1:] - points[:-1], residuals[1:] - residuals[:-1]
            begin, end = end, end + points.shape[1]
            mixed[begin:end] = points[-1] + residuals[-1] - share @ (moves + changes)
        return self._mixture(mixed, after)

    def _parts(self, like: Mixture) -> Iterator[_Part]:
        """Yield the parts of points in the order that they have in a vector."""
        if not like.family.is_large:
            yield lambda points: np.array([self._vector(point) for point in points])
            return
        D, begin = like.n_features, like.weights.size + like.means.size
        yield lambda points: np.array([self._beginning(begin, point) for point in points])
        size = D * (D + 1) // 2
        places = from_lower_triangles(np.arange(size), D).ravel()
        units = lower_triangles(like.family.units(self._scale))
        for k in range(like.family.n_sets):
            yield partial(
                _matrices, k, slice(begin + k * size, begin + (k + 1) * size), units, places
            )

    def _beginning(self, end: int, point: _Point) -> NDArray[np.float64]:
        """Return the logarithms of the weights, and the means: up to ``end`` in a vector."""
        if not isinstance(point, Mixture):
            return point[:end]
        log_weights = np.log(np.maximum(point.weights, np.finfo(float).tiny))
        return np.concatenate((log_weights, (point.means / self._scale).ravel()))

    def _vector(self, point: _Point) -> NDArray[np.float64]:
        """Return the parameters as one vector, in units of the data's spread."""
        if not isinstance(point, Mixture):
            return point
        begin, units = self._beginning(0, point), point.family.units(self._scale)
        if point.family.is_large:
            covariances = point.family.lower_triangles / lower_triangles(units)
        else:
            covariances = point.covariances / units
        return np.concatenate((begin, covariances.ravel()))

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
    n_of_covariances = like.family.size
    if like.family.is_large:
        n_of_covariances = like.family.n_sets * D * (D + 1) // 2
    holds = points.shape in {(0,), (len(points), 2, K + K * D + n_of_covariances)}
    holds &= len(points) <= most and most in {0, most_remembered(like.n_parameters)}
    holds &= bool(np.isfinite(points).all())
    gains, counts = np.asarray(arrays["gains"], dtype=np.float64), np.asarray(arrays["counts"])
    if not holds or gains.shape != (2,) or counts.shape != (3,):
        raise ValueError
    for count in counts:
        as_count(count)


def _kept(mixture: Mixture) -> Mixture:
    """Return what is kept of a mixture."""
    return mixture.bare() if mixture.family.is_large else mixture


def _matrices(
    k: int,
    here: slice,
    units: NDArray[np.float64],
    places: NDArray[np.intp],
    points: list[_Point],
) -> NDArray[np.float64]:  # (n_points, D²)
    """Return the matrices of one component, whose triangle is ``here`` in a vector."""
    triangles = [
        point.family.lower_triangles[k] / units if isinstance(point, Mixture) else point[here]
        for point in points
    ]
    return np.array(triangles)[:, places]


def most_remembered(n_numbers: int) -> int:
    """Return how many steps of mixtures of so many parameters are remembered."""
    return min(MAX_REMEMBERED, MAX_REMEMBERED_NUMBERS // (2 * n_numbers))
