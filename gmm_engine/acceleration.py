"""Leaps for EM where it is slow.

Near its limit EM moves along one direction with steps that shrink by a rate λ; the gains of the
log-likelihood shrink by λ². So the limit is about λ/(1 − λ) steps ahead, and parameters can be
extrapolated there (Aitken; compare SQUAREM, Varadhan and Roland 2008). Weights, means and
covariances are extrapolated linearly and λ comes from the likelihood, so that a leap, like EM
itself, does not depend on the units of the data. The caller keeps a leap only if it gains.
"""

import math

from gmm_engine.errors import GmmEngineError
from gmm_engine.mixture import Mixture

SLOW_RATE = 0.8
"""Leap when the gains shrink more slowly than this: steps then shrink by about 0.9."""
PLAIN_STEPS_BETWEEN = 3
"""Steps after a leap before the rate is trusted again."""
FIRST_REACH = 4.0
"""How many steps ahead the first leap may go; doubled when it pays, halved when not."""
MOST_REACH = 1024.0


class Accelerator:
    """Watches the steps of one run and proposes leaps."""

    def __init__(self) -> None:
        self._gains: list[float] = []
        self._last = math.nan
        self._reach = FIRST_REACH

    def leap(self, before: Mixture, after: Mixture, log_likelihood: float) -> Mixture | None:
        """Propose a mixture ahead of the step from ``before`` to ``after``, or None.

        ``log_likelihood`` is that of ``before``.
        """
        if not math.isnan(self._last):
            self._gains.append(log_likelihood - self._last)
        self._last = log_likelihood
        if len(self._gains) < PLAIN_STEPS_BETWEEN or not min(self._gains[-2:]) > 0.0:
            return None
        rate = self._gains[-1] / self._gains[-2]
        if not SLOW_RATE < rate < 1.0:
            return None
        step_rate = math.sqrt(rate)
        reach = min(step_rate / (1.0 - step_rate), self._reach)
        return _extrapolated(before, after, reach)

    def judge(self, *, accepted: bool) -> None:
        """Learn from what became of the last leap."""
        factor = 2.0 if accepted else 0.5
        self._reach = min(max(1.0, self._reach * factor), MOST_REACH)
        self._gains.clear()
        self._last = math.nan


def _extrapolated(before: Mixture, after: Mixture, reach: float) -> Mixture | None:
    """Return ``after`` moved on by ``reach`` times its step, or None where that is no mixture."""
    was, now = before.to_arrays(), after.to_arrays()
    ahead = {name: now[name] + reach * (now[name] - was[name]) for name in now}
    weights = ahead["weights"]
    if not weights.min() > 0.0:
        return None
    ahead["weights"] = weights / weights.sum()
    try:
        return Mixture.from_arrays(ahead, after.covariance_type)
    except GmmEngineError:
        return None
