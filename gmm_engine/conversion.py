"""Mixtures to and from scikit-learn's ``GaussianMixture``; every score stays what it was.

``to_sklearn`` alone needs scikit-learn to be installed, and imports it when it is called.
"""

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike

from gmm_engine.errors import InvalidParameterError, NotFittedError
from gmm_engine.given import normalized_if_single
from gmm_engine.mixture import Mixture

if TYPE_CHECKING:
    import sklearn.mixture


class FittedMixture(Protocol):
    """What is read of a fitted ``sklearn.mixture.GaussianMixture``."""

    covariance_type: str

    @property
    def weights_(self) -> ArrayLike: ...

    @property
    def means_(self) -> ArrayLike: ...

    @property
    def precisions_cholesky_(self) -> ArrayLike: ...


def from_sklearn(model: FittedMixture) -> Mixture:
    """Return the mixture that a fitted scikit-learn ``GaussianMixture`` holds.

    It is made from ``weights_``, ``means_`` and ``precisions_cholesky_``, which are all that
    scikit-learn's own scores are computed from.

    Raises
    ------
    NotFittedError
        One of these is missing.
    InvalidParameterError
        It is a ``BayesianGaussianMixture``, whose scores are not those of its mean parameters; or
        no such model at all.
    """
    if not hasattr(model, "covariance_type"):
        raise InvalidParameterError(
            "model", f"must be a GaussianMixture of scikit-learn, not {type(model).__name__}"
        )
    if hasattr(model, "weight_concentration_prior"):
        raise InvalidParameterError(
            "model", "is a Bayesian mixture, whose scores no mixture of fixed parameters has"
        )
    try:
        arrays = {
            "weights": normalized_if_single(model.weights_),
            "means": model.means_,
            "precisions_cholesky": model.precisions_cholesky_,
        }
    except AttributeError as error:
        raise NotFittedError(f"the model is not fitted: {error}") from error
    return Mixture.from_arrays(arrays, model.covariance_type)


class HoldsMixture(Protocol):
    """A fitted ``gmm_engine.GaussianMixture``, for one."""

    @property
    def mixture_(self) -> Mixture: ...


def to_sklearn(model: Mixture | HoldsMixture) -> "sklearn.mixture.GaussianMixture":
    """Return a fitted scikit-learn ``GaussianMixture`` with the parameters of ``model``.

    Raises ``NotFittedError`` for an estimator that is not fitted, and ``InvalidParameterError``
    for what is neither an estimator nor a ``Mixture``.
    """
    from sklearn.mixture import GaussianMixture  # noqa: PLC0415 - only who calls this needs it

    try:
        mixture = model if isinstance(model, Mixture) else model.mixture_
    except NotFittedError:
        raise
    except AttributeError as error:
        what = f"must be a Mixture or an estimator that holds one, not {type(model).__name__}"
        raise InvalidParameterError("model", what) from error
    theirs = GaussianMixture(mixture.n_components, covariance_type=mixture.covariance_type)
    theirs.weights_ = np.array(mixture.weights)
    theirs.means_ = np.array(mixture.means)
    theirs.covariances_ = np.array(mixture.covariances)
    theirs.precisions_ = np.array(mixture.precisions)
    theirs.precisions_cholesky_ = np.array(mixture.precisions_cholesky)
    theirs.n_features_in_ = mixture.n_features
    # It was not fitted here: no step was taken, and a warm start begins anew.
    theirs.converged_ = True
    theirs.n_iter_ = 0
    theirs.lower_bound_ = -np.inf
    theirs.lower_bounds_ = []
    return theirs
