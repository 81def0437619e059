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


@dataclass(frozen=True, slots=True)
class _Mixtures:
    """A plain step: where it began and ended."""

    before: Mixture
    after: Mixture


@dataclass(frozen=True, slots=True)
class _Vectors:
    """The same as a vector of parameters and the residual there."""

    x: NDArray[np.float64]
    residual: NDArray[np.float64]


class Accelerator:
    """Watches the steps of one run and proposes longer ones."""

    def __init__(self, scale: NDArray[np.float64], n_plain: int = PLAIN_STEPS) -> None:
        """``scale`` is the data's spread by feature; the first ``n_plain`` steps are left plain."""
        self._scale = scale  # (D,)
        self._steps: deque[_Mixtures | _Vectors] | None = None
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
        steps = np.asarray(arrays["steps"], dtype=np.float64)  # (n_remembered, 2, n_numbers)
        if len(steps):
            accelerator._steps = deque(
                (_Vectors(x, residual) for x, residual in steps),
                maxlen=most_remembered(steps.shape[-1]),
            )
        return accelerator

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        return {
            "steps": np.array([(step.x, step.residual) for step in self._as_vectors()]),
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
        self._rest()

    def _rest(self) -> None:
        self._plain_left, self._bout_left = PLAIN_STEPS, BOUT
        self._gain = math.nan

    def _remember(self, before: Mixture, after: Mixture) -> bool:
        if self._steps is None:
            self._steps = deque(maxlen=most_remembered(before.n_parameters))
        if self._steps.maxlen == 0:
            return False
        self._steps.append(_Mixtures(before, after))
        return True

    def _as_vectors(self) -> list["_Vectors"]:
        """Return the remembered steps, made into vectors when first asked for."""
        steps = [self._as_vector(step) for step in self._steps or ()]
        if self._steps is not None:
            self._steps.clear()
            self._steps.extend(steps)
        return steps

    def _as_vector(self, step: "_Mixtures | _Vectors") -> "_Vectors":
        if isinstance(step, _Vectors):
            return step
        x = self._vector(step.before)
        return _Vectors(x, self._vector(step.after) - x)

    def _watch(self, log_likelihood: float) -> None:
        """Judge the rate by plain gains; those of accelerated steps tell nothing about EM."""
        gain = log_likelihood - self._last_log_likelihood
        if self._gain > 0.0 and (self._plain_left or not self._is_slow):
            self._is_slow = gain / self._gain > SLOW_RATE
        self._last_log_likelihood, self._gain = log_likelihood, gain

    def _mixed(self, after: Mixture) -> Mixture | None:
        steps = self._as_vectors()
        points = np.array([step.x for step in steps])
        residuals = np.array([step.residual for step in steps])
        moves, changes = points[1:] - points[:-1], residuals[1:] - residuals[:-1]
        x, residual = points[-1], residuals[-1]
        gram = changes @ changes.T
        gram[np.diag_indices_from(gram)] += DAMPING * np.trace(gram)
        try:
            share = np.linalg.solve(gram, changes @ residual)
        except np.linalg.LinAlgError:
            return None
        return self._mixture(x + residual - share @ (moves + changes), after)

    def _vector(self, mixture: Mixture) -> NDArray[np.float64]:
        """Return the parameters as one vector, in units of the data's spread."""
        log_weights = np.log(np.maximum(mixture.weights, np.finfo(float).tiny))
        covariances = mixture.covariances / mixture.family.units(self._scale)
        return np.concatenate(
            (log_weights, (mixture.means / self._scale).ravel(), covariances.ravel())
        )

    def _mixture(self, vector: NDArray[np.float64], like: Mixture) -> Mixture | None:
        if not np.isfinite(vector).all():
            return None
        K, D = like.means.shape
        weights = np.exp(vector[:K] - vector[:K].max())
        covariances = vector[K + K * D :].reshape(like.covariances.shape)
        means = vector[K : K + K * D].reshape(K, D) * self._scale
        units = like.family.units(self._scale)
        try:
            family = like.family.from_array(covariances * units, K, D)
            return Mixture(weights / weights.sum(), means, family)
        except GmmEngineError:  # beyond the border of what is a mixture
            return None


def most_remembered(n_numbers: int) -> int:
    """Return how many steps of mixtures of so many parameters are remembered."""
    return min(MAX_REMEMBERED, MAX_REMEMBERED_NUMBERS // (2 * n_numbers))
