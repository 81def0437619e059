"""Gaussian mixture models: fitting by EM, and everything a fitted mixture can answer.

Numbers only: the engine knows no file, no network and no service.
"""

from gmm_engine.checkpoints import Checkpoints, FitState
from gmm_engine.convergence import StopReason
from gmm_engine.conversion import from_sklearn, to_sklearn
from gmm_engine.covariances import COVARIANCE_FAMILIES
from gmm_engine.criteria import Criteria
from gmm_engine.em import EMStep, em_steps
from gmm_engine.errors import GmmEngineError
from gmm_engine.estimator import GaussianMixture
from gmm_engine.fitting import FitOptions, FitResult, FitWarning, fit
from gmm_engine.given import Given
from gmm_engine.grid import Grid
from gmm_engine.initialization import INITIALIZERS
from gmm_engine.kernels import set_thread_count, thread_count, warm_up
from gmm_engine.mixture import Mixture
from gmm_engine.samples import Blocks
from gmm_engine.selection import SELECTION_CRITERIA, Selection, ranked, select, value_of
from gmm_engine.sweep import Candidate

__all__ = [
    "COVARIANCE_FAMILIES",
    "INITIALIZERS",
    "SELECTION_CRITERIA",
    "Blocks",
    "Candidate",
    "Checkpoints",
    "Criteria",
    "EMStep",
    "FitOptions",
    "FitResult",
    "FitState",
    "FitWarning",
    "GaussianMixture",
    "Given",
    "GmmEngineError",
    "Grid",
    "Mixture",
    "Selection",
    "StopReason",
    "em_steps",
    "fit",
    "from_sklearn",
    "ranked",
    "select",
    "set_thread_count",
    "thread_count",
    "to_sklearn",
    "value_of",
    "warm_up",
]
