"""The implementations that are measured, each behind the same few calls."""

import math
import time
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from gmm_engine import COVARIANCE_FAMILIES, FitOptions, Mixture, fit
from gmm_engine.em import expectation
from gmm_engine.regularization import DataScale
from gmm_engine.samples import Samples

try:
    import daal4py
except ImportError:
    daal4py = None


STEPS = 4
"""EM steps that are timed together: in a fit one follows the other at once."""
WRONG_LABELS, STEPS_BEFORE = 0.2, 2
"""The mixture that steps begin at: so many after a start of which such a part is wrong."""


class Peer(Protocol):
    name: str

    @property
    def can_run(self) -> bool: ...

    def step(self) -> float:
        """Take ``STEPS`` EM steps from the same start and return the seconds of one."""


class Ours:
    """gmm_engine: the E-step with its sums, and the M-step."""

    name = "ours"
    can_run = True

    def __init__(self, X: NDArray[np.floating], start: Mixture) -> None:
        self._samples = Samples.checked(X)
        self._floor = DataScale.of(self._samples).floor
        self._family = COVARIANCE_FAMILIES[start.covariance_type]
        self._start = start

    def step(self) -> float:
        mixture = self._start
        begun = time.perf_counter()
        for _ in range(STEPS):
            statistics = expectation(mixture, self._samples)
            mixture, _ = Mixture.from_statistics(statistics, self._family, self._floor)
        return (time.perf_counter() - begun) / STEPS


class ScikitLearn:
    """scikit-learn's GaussianMixture: its own E-step and M-step."""

    name = "scikit-learn"
    can_run = True

    def __init__(self, X: NDArray[np.float64], start: Mixture) -> None:
        self._X, self._start = X, start
        self.model = GaussianMixture(start.n_components, covariance_type=start.covariance_type)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.model.weights_, self.model.means_ = self._start.weights, self._start.means
        self.model.covariances_ = self._start.covariances
        self.model.precisions_cholesky_ = self._start.precisions_cholesky

    def step(self) -> float:
        self._begin_anew()
        begun = time.perf_counter()
        for _ in range(STEPS):
            _, log_resp = self.model._e_step(self._X)  # noqa: SLF001 - a step has no public call
            self.model._m_step(self._X, log_resp)  # noqa: SLF001 - nor has its second half
        return (time.perf_counter() - begun) / STEPS

    @staticmethod
    def from_defaults(n_components: int, seed: int) -> GaussianMixture:
        return GaussianMixture(n_components, n_init=10, random_state=seed)


class OneDal:
    """oneDAL's em_gmm through daal4py; full covariance only."""

    name = "oneDAL"

    def __init__(self, X: NDArray[np.float64], start: Mixture) -> None:
        self._X, self._start = X, start
        self.can_run = daal4py is not None

    def step(self) -> float:
        algorithm = daal4py.em_gmm(
            nComponents=self._start.n_components, maxIterations=STEPS, accuracyThreshold=0.0
        )
        begun = time.perf_counter()
        try:
            algorithm.compute(
                self._X,
                self._start.weights.reshape(1, -1),
                self._start.means,
                list(self._start.covariances),
            )
        except RuntimeError:  # it takes a covariance for ill-conditioned, now and then
            return math.nan
        return (time.perf_counter() - begun) / STEPS


def random_mixture_data(
    n_samples: int, n_features: int, n_components: int, family: str
) -> tuple[NDArray[np.float64], Mixture]:
    """Return overlapping clusters and a mixture in the middle of a fit of them."""
    rng = np.random.default_rng(n_features * 1000 + n_components)
    means = rng.standard_normal((n_components, n_features)) * 1.5
    labels = rng.integers(0, n_components, n_samples)
    X = rng.standard_normal((n_samples, n_features))
    X += means[labels]
    is_wrong = rng.random(n_samples) < WRONG_LABELS
    labels[is_wrong] = rng.integers(0, n_components, int(is_wrong.sum()))
    options = FitOptions(n_components, family, max_iter=STEPS_BEFORE, tol=0.0)
    return X, fit(X, options, start=labels).mixture
