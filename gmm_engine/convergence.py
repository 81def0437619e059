"""Why a run ends, and when EM may: by how far the log-likelihood still is from its limit."""

import math
from collections import deque
from enum import StrEnum
from itertools import pairwise

import numpy as np

LEAST_OBSERVED = 3
"""The start and two steps: one small gain may be the slow beginning of a long way."""
LEAST_RATES = 3
"""Rates of plain steps that must be known: the quickest part of the way comes first."""
REMEMBERED_RATES = 50
RATES_IN_A_ROW = 2
"""Rates that must be known since an accelerated step: it takes what EM would gain next, so that the
rest looks small until a few steps tell how slowly it shrinks."""
STEPS_AHEAD = 4
"""A rising rate is taken to rise for so many steps more."""
MOST_AHEAD = 0.99
"""A rising rate is not taken to lead beyond between gains that may be rounding."""
IN_PLACE = 12
"""Steps without a new height, falls among them, that tell of a run that only moves in place."""
ROUNDING = 8.0 * np.finfo(float).eps
"""A relative gain below this is the rounding of the sum."""
NEAR_ROUNDING = 1e4 * ROUNDING
"""Below this it may be so large a part of the gain that rates mean nothing."""
SAME_DATA = 1e-12
"""Log-likelihoods of one mixture closer than this, relatively, belong to the same data."""

Trail = tuple[tuple[float, bool], ...]
"""The last log-likelihoods of a run, and whether an accelerated step led there."""


class StopReason(StrEnum):
    CONVERGED = "converged"
    MAX_ITER = "max_iter"
    TIME_BUDGET = "time_budget"
    CANCELLED = "cancelled"


class LimitEstimate:
    """The log-likelihood's distance to its limit, by Aitken's extrapolation.

    EM converges linearly: gains shrink by a rate a, and what is left after a gain δ is about
    δ·a/(1 − a) (McLachlan and Peel 2000, section 2.11). The slowest of the recent rates is used:
    neither a lucky step nor the quick settling after an accelerated one ends a run that is slow.
    Accelerated steps themselves tell nothing of EM's rate, and only after two rates behind one is
    it known again.
    """

    def __init__(self) -> None:
        self._last = np.nan
        self._gain = np.nan
        self._trail: deque[tuple[float, bool]] = deque(maxlen=REMEMBERED_RATES + 2)
        self._rates: deque[float] = deque(maxlen=REMEMBERED_RATES)
        self._n_in_a_row = 0
        """Rates since the last accelerated step, or the start."""

    @property
    def trail(self) -> Trail:
        """What a run that goes on from here has to know."""
        return tuple(self._trail)

    def follow(self, trail: Trail, log_likelihood: float) -> None:
        """Go on from the end of a run, whose data was this if ``log_likelihood`` was its last.

        On other data nothing of it counts.
        """
        if trail and math.isclose(trail[-1][0], log_likelihood, rel_tol=SAME_DATA):
            for earlier, accelerated in trail:
                self.observe(earlier, accelerated=accelerated)
        else:
            self.observe(log_likelihood)

    def observe(self, log_likelihood: float, *, accelerated: bool = False) -> None:
        """Take note of the next step's log-likelihood."""
        self._trail.append((log_likelihood, accelerated))
        gain = np.nan if accelerated else log_likelihood - self._last
        if accelerated:
            self._n_in_a_row = 0
        if self._gain > 0.0 and gain > 0.0:
            self._rates.append(gain / self._gain)
            self._n_in_a_row += 1
        self._last, self._gain = log_likelihood, gain

    def is_within(self, tolerance: float) -> bool:
        """Tell whether the estimated rest is below ``tolerance``; never for a tolerance of 0."""
        if tolerance == 0.0 or len(self._trail) < LEAST_OBSERVED:
            return False
        if abs(self._gain) <= ROUNDING * abs(self._last):
            return True
        if not self._gain > 0.0:
            return self._only_moves_in_place(tolerance)
        if not self._has_settled:
            return False
        ahead = self._rate_ahead()
        if ahead >= 1.0 or self._rest_at(ahead) > tolerance:
            return False
        return self._rest_at(max(rate for rate in self._rates if rate < 1.0)) <= tolerance

    @property
    def _has_settled(self) -> bool:
        """Whether enough is known of EM's own rate, and gains shrink."""
        is_known = len(self._rates) >= LEAST_RATES and self._n_in_a_row >= RATES_IN_A_ROW
        return is_known and self._rates[-1] < 1.0

    def _rate_ahead(self) -> float:
        """Return the last rate, or where it leads: while it rises, the slow part is yet to come.

        That may be 1 or more on a plateau, where gains grow before they shrink.
        """
        before, last = self._rates[-2], self._rates[-1]
        ahead = last + STEPS_AHEAD * (last - before)
        if self._gain <= NEAR_ROUNDING * abs(self._last):
            ahead = min(ahead, MOST_AHEAD)
        return max(last, ahead)

    def _only_moves_in_place(self, tolerance: float) -> bool:
        """Tell whether the run falls again and again and gains no height.

        EM falls only by rounding, which is large where covariances are at their floor.
        """
        heights = [height for height, _ in self._trail][-2 * IN_PLACE :]
        earlier, recent = heights[:IN_PLACE], heights[IN_PLACE:]
        if len(recent) < IN_PLACE:
            return False
        n_falls = sum(later < before for before, later in pairwise(recent))
        return n_falls >= IN_PLACE // 4 and max(recent) - max(earlier) <= tolerance

    def _rest_at(self, rate: float) -> float:
        return self._gain * rate / (1.0 - rate)
